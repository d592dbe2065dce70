"""Generators; a class says every width, a function in lower case gives those of the papers."""
