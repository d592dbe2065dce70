"""Weights of other frameworks become our variables. No other framework is needed."""

from jaxgan_compress.convert.torch import dcgan_generator

__all__ = ['dcgan_generator']
