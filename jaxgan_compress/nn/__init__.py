"""Networks. A generator returns `(image, taps)`, a discriminator `({head: logits}, taps)`.

A class says every width, so a pruned network is just another value; the functions in lower case
give the widths of the papers: `nn.mobile_resnet(ngf=16)` is a `ResNetGenerator`.
"""

from jaxgan_compress.nn.classifiers import LeNet5, SmallClassifier, SmallSegmenter
from jaxgan_compress.nn.dcgan import DCGANDiscriminator, DCGANGenerator
from jaxgan_compress.nn.discriminators import MultiScale, PatchGAN, PixelGAN
from jaxgan_compress.nn.drn import DRN
from jaxgan_compress.nn.features import VGG, Adapter
from jaxgan_compress.nn.fid_inception import FIDInception
from jaxgan_compress.nn.inception import Branches, InceptionGenerator, inception
from jaxgan_compress.nn.init import initialise
from jaxgan_compress.nn.layers import Conv, SeparableConv, UpConv
from jaxgan_compress.nn.norms import BatchNorm, InstanceNorm, LayerNorm
from jaxgan_compress.nn.plans import Group, Plan, make_plan
from jaxgan_compress.nn.resnet import (
  ResNetGenerator,
  mobile_deepest_resnet,
  mobile_resnet,
  resnet,
)
from jaxgan_compress.nn.spade import (
  InceptionSPADEBlock,
  InceptionSPADEGenerator,
  SPADEBlock,
  SPADEGenerator,
  inception_spade,
  mobile_spade,
  spade,
)
from jaxgan_compress.nn.storage import load, save
from jaxgan_compress.nn.unet import UNetGenerator, unet, unet_deepest

__all__ = [
  'DRN', 'VGG', 'Adapter', 'BatchNorm', 'Branches', 'Conv', 'DCGANDiscriminator',
  'DCGANGenerator', 'FIDInception', 'Group', 'InceptionGenerator', 'InceptionSPADEBlock',
  'InceptionSPADEGenerator', 'InstanceNorm', 'LayerNorm', 'LeNet5', 'MultiScale', 'PatchGAN',
  'PixelGAN', 'Plan', 'ResNetGenerator', 'SPADEBlock', 'SPADEGenerator', 'SeparableConv',
  'SmallClassifier', 'SmallSegmenter', 'UNetGenerator', 'UpConv', 'inception', 'inception_spade',
  'initialise', 'load', 'make_plan', 'mobile_deepest_resnet', 'mobile_resnet', 'mobile_spade',
  'resnet', 'save', 'spade', 'unet', 'unet_deepest']
