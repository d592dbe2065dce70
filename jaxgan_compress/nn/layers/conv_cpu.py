"""Convolutions that XLA:CPU computes slowly, as matmuls and sums that it computes quickly.

All take x [B,H,W,C], kernel [k,k,C,features] (or [k,k,1,C], one filter a channel), the stride, and
how many zeros stand around x. -> [B,H',W',features].
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxgan_compress.core import xla
from jaxgan_compress.nn.layers import conv_dispatch
from jaxgan_compress.nn.layers.norms import per_channel
from jaxgan_compress.nn.layers.resample import pad

# Each bound was set by a case of `benchmarks/forms.py`, whose figures stand in docs/results.md.
NARROW = 16  # case 'few': sums of shifted results are quicker from so many channels ...
FEW = 4      # case 'few': ... to at most so many
BROAD = 128  # case 'dense': fewer products pay for their sums from so many channels to as many ...
MANY = 512   # case 'dense': ... in at least so many pixels of the batch
SMALL = 64   # case 'small': patches are quicker for at most so many pixels of an output


def choose(x, kernel, stride: int, amount: int, implementation: str = 'auto') -> Callable:
  """The function of (x, kernel, stride, amount) that computes this convolution."""
  if conv_dispatch.counting():  # sizes may be symbols of an export
    conv_dispatch.choose('border', implementation)  # raises for an unknown name
    return convolution
  k, _, depth, features = kernel.shape
  grouped, pixels = depth < x.shape[-1], x.shape[1] * x.shape[2]
  cases = (  # the first that applies is taken
      ('depthwise', grouped, _by_taps if k > 1 else _scaled_channels),
      ('pointwise', not grouped and k == stride == 1, _product),
      ('few', k > stride == 1 and depth >= NARROW and features <= FEW, _by_sums),
      ('dense', not grouped and stride == 1 and _is_broad(x, kernel, amount), _by_winograd),
      ('small', not grouped and pixels <= SMALL * stride ** 2, _by_patches),
      ('strided', not grouped and stride > 1, _by_rows),
      ('border', stride == 1, lambda x, *args: convolution(pad(x, amount), kernel, stride, 0)))
  return next((run for operation, applies, run in cases if applies and
               conv_dispatch.is_optimized(operation, implementation)), convolution)


def convolution(x, kernel, stride: int, amount: int):
  """The reference."""
  return lax.conv_general_dilated(
      x, kernel, (stride,) * 2, ((amount, amount),) * 2, dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=x.shape[-1] // kernel.shape[2])


def _scaled_channels(x, kernel, stride, amount):
  return pad(x, amount) * kernel[:, :, 0][None]


def _product(x, kernel, stride, amount):
  """A 1x1 convolution as a matmul. Of two axes: the gradient of a product of four is slow."""
  x = pad(x, amount)
  return (x.reshape(-1, x.shape[-1]) @ kernel[0, 0]).reshape(*x.shape[:3], kernel.shape[-1])


def _by_patches(x, kernel, stride, amount):
  """A convolution as one matmul of what lies under the kernel: quick where pixels are few, as is
  its gradient."""
  k, _, depth, features = kernel.shape
  x = pad(x, amount)
  h, w = ((side - k) // stride + 1 for side in x.shape[1:3])
  patches = jnp.concatenate([
      x[:, i:i + stride * (h - 1) + 1:stride, j:j + stride * (w - 1) + 1:stride]
      for i in range(k) for j in range(k)], -1)
  y = patches.reshape(-1, k * k * depth) @ kernel.reshape(-1, features)
  return y.reshape(len(x), h, w, features)


# A convolution whose weight gradient is one matmul for each row of the kernel.
_by_rows = jax.custom_vjp(convolution, nondiff_argnums=(2, 3))


def _by_rows_backward(stride, amount, saved, dy):
  x, kernel = saved
  dx, = jax.linear_transpose(lambda x: convolution(x, kernel, stride, amount), x)(dy)
  return dx, weight_gradient_by_rows(x, dy, len(kernel), stride, amount)


def weight_gradient_by_rows(x, dy, k: int, stride: int, amount: int):
  """The gradient by a kernel of [k,k] whose convolution of x has the gradient dy."""
  x = pad(x, amount)
  (h, w, features), depth = dy.shape[1:], x.shape[-1]
  wide = jnp.concatenate([x[:, :, j:j + stride * (w - 1) + 1:stride] for j in range(k)], -1)
  dy = dy.reshape(-1, features)
  rows = [wide[:, i:i + stride * (h - 1) + 1:stride].reshape(-1, k * depth).T @ dy
          for i in range(k)]
  return jnp.stack(rows).reshape(k, k, depth, features)


_by_rows.defvjp(lambda x, kernel, stride, amount: (
    convolution(x, kernel, stride, amount), (x, kernel)), _by_rows_backward)


def _by_sums(x, kernel, stride, amount):
  return _spread(pad(x, amount), kernel)


@jax.custom_vjp
def _spread(x, kernel):
  """A valid convolution to few channels: one matmul of each pixel with all taps, then the sum of
  what lies k*k pixels apart; of a large kernel one convolution by its columns, then the sum of
  what lies k pixels apart. Its gradient is quick as it is."""
  k, _, depth, features = kernel.shape
  h, w = x.shape[1] - k + 1, x.shape[2] - k + 1
  if k > 4:
    columns = kernel.transpose(0, 2, 1, 3).reshape(k, 1, depth, -1)
    y = convolution(x, columns, 1, 0).reshape(len(x), h, x.shape[2], k, features)
    return sum(y[:, :, j:j + w, j] for j in range(k))
  y = x @ kernel.transpose(2, 0, 1, 3).reshape(depth, -1)
  y = y.reshape(*y.shape[:3], k * k, features)
  return sum(y[:, i:i + h, j:j + w, i * k + j] for i in range(k) for j in range(k))


_spread.defvjp(
    lambda x, kernel: (_spread(x, kernel), (x, kernel)), lambda saved, dy: jax.vjp(
        lambda x, kernel: convolution(x, kernel, 1, 0), *saved)[1](dy))


def _is_broad(x, kernel, amount):
  h, w = (side + 2 * amount - 2 for side in x.shape[1:3])
  return (len(kernel) == 3 and min(kernel.shape[2:]) >= BROAD and not h % 2 and not w % 2 and
          len(x) * h * w >= MANY and jnp.finfo(x.dtype).bits >= 32)


@xla.kept_whole
def _by_tiles(x, kernel):
  """A valid 3x3 convolution to an even height and width, F(2x2, 3x3) of Lavin and Gray 2016: 16
  products for the four outputs of a tile, not 36."""
  def into(d):
    return d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]

  def spread(g):
    return g[0], (g[0] + g[1] + g[2]) / 2, (g[0] - g[1] + g[2]) / 2, g[2]

  def back(m):
    return m[0] + m[1] + m[2], m[1] - m[2] - m[3]

  B, h, w = len(x), (x.shape[1] - 2) // 2, (x.shape[2] - 2) // 2
  taps = [spread(row) for row in spread(kernel)]
  tiles = [into([row[:, :, j:j + 2 * w - 1:2] for j in range(4)])
           for row in into([x[:, i:i + 2 * h - 1:2] for i in range(4)])]
  products = [[(d.reshape(-1, d.shape[-1]) @ g).reshape(B, h, w, -1)
               for d, g in zip(*both, strict=True)] for both in zip(tiles, taps, strict=True)]
  columns = [back([products[i][j] for i in range(4)]) for j in range(4)]
  y = jnp.stack([jnp.stack(back([column[p] for column in columns]), 3) for p in range(2)], 2)
  return y.reshape(B, 2 * h, 2 * w, -1)


def _by_winograd(x, kernel, stride, amount):
  return _winograd(pad(x, amount), kernel)


_winograd = jax.custom_vjp(_by_tiles)


def _winograd_backward(saved, dy):
  x, kernel = saved
  dkernel, = jax.linear_transpose(lambda k: convolution(x, k, 1, 0), kernel)(dy)
  return _by_tiles(pad(dy, 2), kernel[::-1, ::-1].swapaxes(2, 3)), dkernel


_winograd.defvjp(lambda x, kernel: (_winograd(x, kernel), (x, kernel)), _winograd_backward)


@xla.kept_whole
def _weighted_shifts(x, kernel):
  """A valid depthwise convolution as k*k shifted multiply-adds. x [B,H,W,C], kernel [k,k,C]."""
  return functools.reduce(jnp.add, (part * per_channel(tap) for part, tap in _shifts(x, kernel)))


@xla.kept_whole
def _sums_of_shifts(x, kernel, dy):
  wide = jnp.promote_types(x.dtype, jnp.float32)
  products, k = [part * dy for part, _ in _shifts(x, kernel)], len(kernel)
  rows = [jnp.stack(products[i:i + k]) for i in range(0, k * k, k)]  # a reduction each
  return jnp.stack([row.sum((1, 2, 3), dtype=wide) for row in rows]).astype(kernel.dtype)


def _by_taps(x, kernel, stride, amount):
  return _taps(pad(x, amount), kernel[:, :, 0])


_taps = jax.custom_vjp(_weighted_shifts)


def _shifts(x, kernel):
  k = len(kernel)
  h, w = x.shape[1] - k + 1, x.shape[2] - k + 1
  return [(x[:, i:i + h, j:j + w], kernel[i, j]) for i in range(k) for j in range(k)]


def _taps_backward(saved, dy):
  # Left to itself, the gradient of every slice would be a padded copy of the whole map.
  x, kernel = saved
  dx = _weighted_shifts(pad(dy, len(kernel) - 1), kernel[::-1, ::-1])
  return dx, _sums_of_shifts(x, kernel, dy)


_taps.defvjp(lambda x, kernel: (_taps(x, kernel), (x, kernel)), _taps_backward)
