"""Maps whose 2 x 2 pixels are one pixel of four times the channels, for TPUs.

A register holds 128 channels of a pixel. Where an image-to-image network is at its full resolution
it has 64 channels or 3, and half of every register or more is empty; of blocks it is full. Channels
of a block are ordered (row, column, channel).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxgan_compress.nn.layers import conv_tpu, few_channels_tpu
from jaxgan_compress.nn.layers.norms import per_channel

SIDE = 2  # pixels of a side of a block
PIXELS = SIDE ** 2  # of a block


def fit(x, size, features: int, channels: int, implementation: str = 'auto') -> bool:
  """Whether the map of so many features of an image of so many channels, at its `size` (height,
  width), is better held in blocks: where features leave a register empty. x: any map of the batch.
  """
  return (2 * features <= conv_tpu.LANES and channels < few_channels_tpu.FEW and
          few_channels_tpu.fits(x, size, implementation) and
          all(side % 2 == 0 and side > 3 for side in size))


def stem(conv, x):
  """A 7x7 convolution that reflects, of an image to blocks: x [B,H,W,C] -> [B,H/2,W/2,4F]."""
  kernel, bias = conv.weights(x.shape[-1])
  with jax.named_scope(conv.name):
    y = few_channels_tpu.from_few(x.astype(conv.dtype), kernel, 1, 3, 'reflect', SIDE)
    return _biased(y, bias)


def down(conv, y):
  """A 3x3 convolution of stride 2, from blocks: [B,h,w,4C] -> [B,h,w,F]."""
  kernel, bias = conv.weights(y.shape[-1] // PIXELS)
  with jax.named_scope(conv.name):
    return _biased(downsample(y.astype(conv.dtype), kernel), bias, 1)


def up(conv, x):
  """An `UpConv`, to blocks: [B,h,w,C] -> [B,h,w,4F]."""
  kernel, bias = conv.weights(x.shape[-1])
  with jax.named_scope(conv.name):
    return _biased(upsample(x.astype(conv.dtype), kernel), bias)


def to_image(conv, y):
  """A 7x7 convolution that reflects, of blocks to an image: [B,h,w,4C] -> [B,2h,2w,F]."""
  kernel, bias = conv.weights(y.shape[-1] // PIXELS)
  with jax.named_scope(conv.name):
    x = few_channels_tpu.to_few(y.astype(conv.dtype), kernel, 1, 3, 'reflect', SIDE)
    return _biased(x, bias, 1)


def _biased(y, bias, phases=PIXELS):
  return y if bias is None else y + per_channel(bias, phases)


def upsample(x, kernel):
  """A transposed convolution of stride 2, to blocks: x [B,h,w,C], kernel [k,k,C,F] as of `UpConv`
  -> [B,h,w,4F]."""
  k = len(kernel)
  # Row 2m + r of the result reads row m + d of x through row r + 1 - 2d of the turned kernel.
  turned = jnp.pad(kernel[::-1, ::-1], ((1, 5 - k), (1, 5 - k), (0, 0), (0, 0)))
  phases = [turned[r::2, s::2][::-1, ::-1] for r in (0, 1) for s in (0, 1)]
  return conv_tpu.products(x, jnp.concatenate(phases, -1), 1, 1)


def downsample(y, kernel):
  """A 3x3 convolution of stride 2, padded by 1, from blocks: y [B,h,w,4C], kernel [3,3,C,F]
  -> [B,h,w,F]."""
  *_, depth, features = kernel.shape
  # Row m of the result reads rows 2m - 1 .. 2m + 1: the lower one of block m - 1, and block m.
  kernel = jnp.pad(kernel, ((1, 0), (1, 0), (0, 0), (0, 0))).reshape(2, 2, 2, 2, depth, features)
  kernel = kernel.transpose(0, 2, 1, 3, 4, 5).reshape(2, 2, PIXELS * depth, features)
  return conv_tpu.products(jnp.pad(y, ((0, 0), (1, 0), (1, 0), (0, 0))), kernel, 1, 0)
