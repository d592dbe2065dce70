"""What networks are made of, and which implementation of an operation a device takes."""

from jaxgan_compress.nn.layers.conv import (
  Conv,
  LatentProjection,
  PReLU,
  SeparableConv,
  UpConv,
  convolve,
  convolve_sum,
  convolve_together,
  layer_of,
  leaky_relu,
  maybe_remat,
  merges,
  prelu,
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
from jaxgan_compress.nn.layers.resample import (
  PADDINGS,
  bicubic,
  pad,
  pixel_shuffle,
  pixel_unshuffle,
  subsample,
  upsample,
)

__all__ = ['NORMS', 'PADDINGS', 'BatchNorm', 'Conv', 'InstanceNorm', 'LatentProjection',
           'LayerNorm', 'PReLU', 'SeparableConv', 'UpConv', 'bicubic', 'conv_bias', 'convolve',
           'convolve_sum', 'convolve_together', 'layer_of', 'leaky_relu',
           'maybe_remat', 'merges', 'norm', 'pad', 'pixel_shuffle', 'pixel_unshuffle', 'prelu',
           'subsample', 'to_tanh_float32', 'upsample']
