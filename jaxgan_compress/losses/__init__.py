"""Losses: scalars from arrays; lower is better, weights are the method's."""

from jaxgan_compress.losses import alignment, distill, features, gan, image

__all__ = ['alignment', 'distill', 'features', 'gan', 'image']
