"""OMGD, Ren et al. 2021: published runs, and short ones on built-in samples."""
