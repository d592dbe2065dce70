"""What networks are made of, and which implementation of an operation a device takes."""

from jaxgan_compress.nn.layers.conv import (
  PADDINGS,
  Conv,
  Project,
  SeparableConv,
  UpConv,
  check_images,
  convolve,
  leaky_relu,
  pad,
  remembering,
  subsample,
  to_range,
  upsample,
)
from jaxgan_compress.nn.layers.norms import (
  NORMS,
  BatchNorm,
  InstanceNorm,
  LayerNorm,
  conv_bias,
  norm,
)

__all__ = ['NORMS', 'PADDINGS', 'BatchNorm', 'Conv', 'InstanceNorm', 'LayerNorm', 'Project',
           'SeparableConv', 'UpConv', 'check_images', 'conv_bias', 'convolve', 'leaky_relu', 'norm',
           'pad', 'remembering', 'subsample', 'to_range', 'upsample']
