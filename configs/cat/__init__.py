"""CAT, Jin et al. 2021: students cut from their teachers, short runs on built-in samples."""
