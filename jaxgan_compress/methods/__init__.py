"""Training recipes: frozen values with `init`, `step` and `generators` (see `core.Method`)."""

from jaxgan_compress.methods.classify import Classifier
from jaxgan_compress.methods.gan import GAN, Adversary
from jaxgan_compress.methods.kd import KD
from jaxgan_compress.methods.omgd import OMGD, Weights

__all__ = ['GAN', 'KD', 'OMGD', 'Adversary', 'Classifier', 'Weights']
