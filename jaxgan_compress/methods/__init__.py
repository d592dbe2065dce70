"""Training recipes: frozen values with `init`, `step` and `generators` (see `core.Method`)."""

from jaxgan_compress.methods.adversary import Adversary
from jaxgan_compress.methods.cat import CAT, CATGauGAN
from jaxgan_compress.methods.classify import Classifier
from jaxgan_compress.methods.cyclegan import CycleGAN
from jaxgan_compress.methods.diagnosis import term_gradients
from jaxgan_compress.methods.distillation import (
  PUBLISHED,
  SSIM,
  DistillLoss,
  Grid,
  Output,
  Perceptual,
  Pixel,
  Spectrum,
  Style,
  Taps,
  TotalVariation,
)
from jaxgan_compress.methods.gan import GAN
from jaxgan_compress.methods.gaugan import GauGAN
from jaxgan_compress.methods.kd import KD
from jaxgan_compress.methods.offline import Offline
from jaxgan_compress.methods.omgd import OMGD
from jaxgan_compress.methods.omgd_unpaired import AlternatingSchedule, OMGDCycle
from jaxgan_compress.methods.pix2pix import Pix2Pix
from jaxgan_compress.methods.pretrained import Pretrained

__all__ = [
  'CAT',
  'GAN',
  'KD',
  'OMGD',
  'PUBLISHED',
  'SSIM',
  'Adversary',
  'AlternatingSchedule',
  'CATGauGAN',
  'Classifier',
  'CycleGAN',
  'DistillLoss',
  'GauGAN',
  'Grid',
  'OMGDCycle',
  'Offline',
  'Output',
  'Perceptual',
  'Pix2Pix',
  'Pixel',
  'Pretrained',
  'Spectrum',
  'Style',
  'Taps',
  'TotalVariation',
  'term_gradients',
]
