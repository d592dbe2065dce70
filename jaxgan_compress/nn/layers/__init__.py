"""What networks are made of, and which implementation of an operation a device takes."""

from jaxgan_compress.nn.layers.conv import (
  Conv,
  LatentProjection,
  SeparableConv,
  UpConv,
  convolve,
  convolve_sum,
  convolve_together,
  layer_of,
  leaky_relu,
  maybe_remat,
  to_tanh_float32,
)
from jaxgan_compress.nn.layers.norms import (
  NORMS,
  BatchNorm,
  InstanceNorm,
  LayerNorm,
  conv_bias,
  norm,
)
from jaxgan_compress.nn.layers.resample import PADDINGS, pad, subsample, upsample

__all__ = ['NORMS', 'PADDINGS', 'BatchNorm', 'Conv', 'InstanceNorm', 'LatentProjection',
           'LayerNorm', 'SeparableConv', 'UpConv', 'conv_bias', 'convolve', 'convolve_sum',
           'convolve_together', 'layer_of', 'leaky_relu', 'maybe_remat', 'norm', 'pad', 'subsample',
           'to_tanh_float32', 'upsample']
