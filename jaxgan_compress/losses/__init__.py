''"Losses: scalars from arrays; lower is better, weights are the method's.''"

from jaxgan_compress.losses import features, gan, image, relations, similarity

__all__ = ['features', 'gan', 'image', 'relations', 'similarity']
