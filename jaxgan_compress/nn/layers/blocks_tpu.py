"""Maps whose 2 x 2 pixels are one pixel of four times the channels, for TPUs.

A register holds 128 channels of a pixel. Where an image-to-image network is at its full resolution
it has 64 channels or 3, and half of every register or more is empty; of blocks it is full. Channels
of a block are ordered (row, column, channel).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

from jaxgan_compress.nn.layers import conv_tpu
from jaxgan_compress.nn.layers.norms import per_channel
from jaxgan_compress.nn.layers.resample import pad

PIXELS = 4  # of a block


def fit(x, features: int, implementation: str = 'auto') -> bool:
  """Whether maps of so many channels, with the pixels of x or four times as many, are better held
  in blocks: where channels leave a register empty, and borders of 4 pixels can be reflected."""
  return (2 * features <= conv_tpu.LANES and conv_tpu.applies(x, x[:1, :1, :1], implementation) and
          not any(side % 2 or side < 6 for side in x.shape[1:3]))


def stem(conv, x):
  """A 7x7 convolution that reflects, to blocks: x [B,H,W,C] -> [B,H/2,W/2,4F]."""
  kernel, bias = conv.weights(x.shape[-1])
  with jax.named_scope(conv.name):
    return _biased(convolve7(to_blocks(pad(x.astype(conv.dtype), 4, 'reflect')), kernel), bias)


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
  """A 7x7 convolution that reflects, from blocks to pixels: [B,h,w,4C] -> [B,2h,2w,F]."""
  kernel, bias = conv.weights(y.shape[-1] // PIXELS)
  with jax.named_scope(conv.name):
    return to_pixels(_biased(convolve7(reflect(y.astype(conv.dtype)), kernel), bias))


def _biased(y, bias, phases=PIXELS):
  return y if bias is None else y + per_channel(bias, phases)


def to_blocks(x):
  """[B,H,W,C] -> [B,H/2,W/2,4C]."""
  B, H, W, C = x.shape
  x = x.reshape(B, H // 2, 2, W // 2, 2, C).transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(B, H // 2, W // 2, PIXELS * C)


def to_pixels(y):
  """[B,h,w,4C] -> [B,2h,2w,C]."""
  B, h, w, channels = y.shape
  y = y.reshape(B, h, w, 2, 2, channels // PIXELS).transpose(0, 1, 3, 2, 4, 5)
  return y.reshape(B, 2 * h, 2 * w, -1)


@jax.custom_vjp
def reflect(y):
  """Blocks of a map that is reflected by 4 pixels on each side: [B,h,w,4C] -> [B,h+4,w+4,4C]."""
  for axis, before, after in _BORDERS:
    y = jnp.concatenate([before(y), y, after(y)], axis)
  return y


def _reflect_backward(_, dy):
  # What each border gives as one strip: left to itself, the gradient of every piece that borders
  # are made of would be a map of its own.
  for axis, *borders in reversed(_BORDERS):
    n = dy.shape[axis] - 4
    cut = functools.partial(lax.slice_in_dim, dy, axis=axis)
    inner = cut(2, n + 2)
    source = jax.ShapeDtypeStruct((*dy.shape[:axis], 3, *dy.shape[axis + 1:]), dy.dtype)
    for border, part, at in zip(borders, (cut(0, 2), cut(n + 2, n + 4)), (0, n - 3), strict=True):
      strip, = jax.linear_transpose(border, source)(part)
      room = [(0, 0)] * dy.ndim
      room[axis] = at, n - 3 - at
      inner += jnp.pad(strip, room)
    dy = inner
  return (dy,)


reflect.defvjp(lambda y: (reflect(y), None), _reflect_backward)


def _rows(y, *places):
  """Two rows of blocks, of the rows of pixels at these (row of a block, block)."""
  a, b, c, d = jnp.split(y, PIXELS, -1)
  rows = jnp.concatenate([a, b], -1), jnp.concatenate([c, d], -1)
  pixels = [_at(rows[row], block, 1) for row, block in places]
  return jnp.concatenate([jnp.concatenate(pixels[i:i + 2], -1) for i in (0, 2)], 1)


def _columns(y, *places):
  """The same of columns."""
  parts = jnp.split(y, PIXELS, -1)
  pixels = [[_at(parts[2 * row + column], block, 2) for row in (0, 1)] for column, block in places]
  return jnp.concatenate([jnp.concatenate(
      [pixels[i + column][row] for row in (0, 1) for column in (0, 1)], -1) for i in (0, 2)], 2)


# Pixels 4, 3, 2, 1 stand before pixel 0, and behind the last one those before it.
_BEFORE, _AFTER = ((0, 2), (1, 1), (0, 1), (1, 0)), ((0, -1), (1, -2), (0, -2), (1, -3))
# (axis, what makes the two blocks before the first, and behind the last).
_BORDERS = tuple((axis, lambda y, lines=lines: lines(y, *_BEFORE),
                 lambda y, lines=lines: lines(y, *_AFTER))
                for axis, lines in ((1, _rows), (2, _columns)))


def convolve7(y, kernel):
  """A valid 7x7 convolution, to blocks: y [B,h+4,w+4,4C] of a map with 4 pixels more on each side,
  of which the outermost is not read, kernel [7,7,C,F] -> [B,h,w,4F]."""
  *_, depth, features = kernel.shape
  # Row r of a block reads rows r + 1 .. r + 7 of its window of five blocks.
  shifted = [jnp.pad(kernel, ((r + 1, 2 - r), (s + 1, 2 - s), (0, 0), (0, 0)))
             for r in (0, 1) for s in (0, 1)]
  kernel = jnp.concatenate(shifted, -1).reshape(5, 2, 5, 2, depth, PIXELS * features)
  kernel = kernel.transpose(0, 2, 1, 3, 4, 5).reshape(5, 5, PIXELS * depth, -1)
  if features < conv_tpu.FEW_CHANNELS:
    return conv_tpu.to_few_channels(y, kernel)
  return conv_tpu.products(y, kernel, 1, 0)


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


def _at(x, i, axis):
  i %= x.shape[axis]
  return x[:, i:i + 1] if axis == 1 else x[:, :, i:i + 1]
