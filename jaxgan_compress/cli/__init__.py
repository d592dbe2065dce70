"""The command `jaxgan-compress`."""
