"""Losses: scalars from arrays; lower is better, weights are the method's."""

from jaxgan_compress.losses import distill, features, gan, image

__all__ = ['distill', 'features', 'gan', 'image']
