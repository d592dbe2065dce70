"""Training recipes: frozen values with `init`, `step` and `generators` (see `core.Method`)."""

from jaxgan_compress.methods.adversary import Adversary
from jaxgan_compress.methods.augment import Adaptive, DiffAugment
from jaxgan_compress.methods.cat import CAT, CATGauGAN
from jaxgan_compress.methods.classify import Classifier
from jaxgan_compress.methods.cyclegan import CycleGAN
from jaxgan_compress.methods.diagnosis import term_gradients
from jaxgan_compress.methods.distillation import PUBLISHED, DistillLoss
from jaxgan_compress.methods.gan import GAN
from jaxgan_compress.methods.gaugan import GauGAN
from jaxgan_compress.methods.kd import KD
from jaxgan_compress.methods.offline import Offline
from jaxgan_compress.methods.omgd import OMGD
from jaxgan_compress.methods.omgd_unpaired import AlternatingSchedule, OMGDCycle
from jaxgan_compress.methods.pix2pix import Pix2Pix
from jaxgan_compress.methods.pretrained import Pretrained
from jaxgan_compress.methods.tap_terms import DiscriminatorFeatures, RegionContrast, Taps
from jaxgan_compress.methods.terms import (
  SSIM,
  Discriminator,
  FeatureMatching,
  Grid,
  Output,
  Perceptual,
  Pixel,
  Relations,
  Spectrum,
  Style,
  Target,
  TotalVariation,
  Wavelet,
)

__all__ = [
  'CAT',
  'GAN',
  'KD',
  'OMGD',
  'PUBLISHED',
  'SSIM',
  'Adaptive',
  'Adversary',
  'AlternatingSchedule',
  'CATGauGAN',
  'Classifier',
  'CycleGAN',
  'DiffAugment',
  'Discriminator',
  'DiscriminatorFeatures',
  'DistillLoss',
  'FeatureMatching',
  'GauGAN',
  'Grid',
  'OMGDCycle',
  'Offline',
  'Output',
  'Perceptual',
  'Pix2Pix',
  'Pixel',
  'Pretrained',
  'RegionContrast',
  'Relations',
  'Spectrum',
  'Style',
  'Taps',
  'Target',
  'TotalVariation',
  'Wavelet',
  'term_gradients',
]
