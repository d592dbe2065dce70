"""CAT, Jin et al. 2021: students pruned from their teachers, short runs on built-in samples."""
