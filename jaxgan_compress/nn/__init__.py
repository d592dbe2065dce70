"""Networks. A generator returns `(image, taps)`, a discriminator `({head: logits}, taps)`.

A class says every width, so a pruned network is just another value; the functions in lower case
give the widths of the papers: `nn.mobile_resnet(ngf=16)` is a `ResNetGenerator`.
"""

from jaxgan_compress.nn.discriminators import MultiScale, PatchGAN, PixelGAN, UNetDiscriminator
from jaxgan_compress.nn.feature_nets.classifiers import LeNet5, SmallClassifier, SmallSegmenter
from jaxgan_compress.nn.feature_nets.drn import DRN
from jaxgan_compress.nn.feature_nets.efficientnet import EfficientNetLite0
from jaxgan_compress.nn.feature_nets.fid_inception import FIDInception
from jaxgan_compress.nn.feature_nets.vgg import VGG, Adapter
from jaxgan_compress.nn.files.factors import load_factors, save_factors
from jaxgan_compress.nn.files.network import allow, load, save
from jaxgan_compress.nn.generators.dcgan import DCGANDiscriminator, DCGANGenerator
from jaxgan_compress.nn.generators.inceptions import Branches, InceptionGenerator, inception
from jaxgan_compress.nn.generators.interpolation import Resize
from jaxgan_compress.nn.generators.low_rank import LowRank, merged, plain, search_rank
from jaxgan_compress.nn.generators.resnets import (
  ResNetGenerator,
  mobile_deepest_resnet,
  mobile_resnet,
  resnet,
)
from jaxgan_compress.nn.generators.spades import (
  InceptionSPADEBlock,
  InceptionSPADEGenerator,
  SPADEBlock,
  SPADEGenerator,
  inception_spade,
  mobile_spade,
  spade,
)
from jaxgan_compress.nn.generators.unets import UNetGenerator, unet, unet_deepest
from jaxgan_compress.nn.generators.upscalers import (
  RRDBGenerator,
  SRVGGGenerator,
  rrdbnet,
  srvgg,
)
from jaxgan_compress.nn.generators.wrapped import Wrapped, wrap
from jaxgan_compress.nn.init import initialise
from jaxgan_compress.nn.layers.conv import Conv, SeparableConv, UpConv
from jaxgan_compress.nn.layers.inputs import input_kind, output_scale
from jaxgan_compress.nn.layers.norms import BatchNorm, InstanceNorm, LayerNorm
from jaxgan_compress.nn.prunable import Group, Plan, make_plan

__all__ = [
  'DRN',
  'VGG',
  'Adapter',
  'BatchNorm',
  'Branches',
  'Conv',
  'DCGANDiscriminator',
  'DCGANGenerator',
  'EfficientNetLite0',
  'FIDInception',
  'Group',
  'InceptionGenerator',
  'InceptionSPADEBlock',
  'InceptionSPADEGenerator',
  'InstanceNorm',
  'LayerNorm',
  'LeNet5',
  'LowRank',
  'MultiScale',
  'PatchGAN',
  'PixelGAN',
  'Plan',
  'RRDBGenerator',
  'ResNetGenerator',
  'Resize',
  'SPADEBlock',
  'SPADEGenerator',
  'SRVGGGenerator',
  'SeparableConv',
  'SmallClassifier',
  'SmallSegmenter',
  'UNetDiscriminator',
  'UNetGenerator',
  'UpConv',
  'Wrapped',
  'allow',
  'inception',
  'inception_spade',
  'initialise',
  'input_kind',
  'load',
  'load_factors',
  'make_plan',
  'merged',
  'mobile_deepest_resnet',
  'mobile_resnet',
  'mobile_spade',
  'output_scale',
  'plain',
  'resnet',
  'rrdbnet',
  'save',
  'save_factors',
  'search_rank',
  'spade',
  'srvgg',
  'unet',
  'unet_deepest',
  'wrap',
]
