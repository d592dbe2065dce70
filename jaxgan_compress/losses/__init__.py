"""Losses: scalars from arrays; lower is better, weights are the method's."""

from jaxgan_compress.losses import alignment, features, gan, image, similarity

__all__ = ['alignment', 'features', 'gan', 'image', 'similarity']
