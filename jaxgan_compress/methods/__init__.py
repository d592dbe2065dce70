"""Training recipes: frozen values with `init`, `step` and `generators` (see `core.Method`)."""

from jaxgan_compress.methods.cat import CAT, CATGauGAN
from jaxgan_compress.methods.classify import Classifier
from jaxgan_compress.methods.cyclegan import Blocks, CycleGAN, OMGDCycle
from jaxgan_compress.methods.diagnosis import term_gradients
from jaxgan_compress.methods.distillation import Lessons
from jaxgan_compress.methods.gan import GAN, Adversary
from jaxgan_compress.methods.kd import KD
from jaxgan_compress.methods.omgd import OMGD, Offline
from jaxgan_compress.methods.pix2pix import GauGAN, Pix2Pix

__all__ = ['CAT', 'GAN', 'KD', 'OMGD', 'Adversary', 'Blocks', 'CATGauGAN', 'Classifier', 'CycleGAN',
           'GauGAN', 'Lessons', 'OMGDCycle', 'Offline', 'Pix2Pix', 'term_gradients']
