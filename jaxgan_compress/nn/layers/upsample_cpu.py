"""Transposed convolutions of stride 2 that XLA:CPU computes slowly, as matmuls.

x [B,h,w,C], kernel [k,k,C,features] with k 3 or 4 -> [B,2h,2w,features].
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxgan_compress.nn.layers import conv_cpu, conv_dispatch
from jaxgan_compress.nn.layers.conv_cpu import FEW, NARROW, SMALL

# Each bound was set by case 'upsample' of `benchmarks/forms.py`, as were NARROW, FEW and SMALL
# here; its figures stand in docs/results.md.
WIDE = 64     # XLA is as quick forward from so many channels ...
LARGE = 1024  # ... of a 4x4 kernel on a map of more pixels, of a 3x3 one on more than SMALL


def choose(x, kernel, implementation: str = 'auto') -> Callable:
  """The function of (x, kernel) that computes this transposed convolution."""
  if not conv_dispatch.is_optimized('upsample', implementation):
    return transposed
  k, _, depth, features = kernel.shape
  pixels = x.shape[1] * x.shape[2]
  if k == 4 and pixels <= SMALL and len(x) * pixels <= depth:
    return _scattered  # the kernel is larger than all that it is applied to
  wide = depth >= WIDE and pixels > (LARGE if k == 4 else SMALL)
  few = depth > NARROW and features <= FEW and pixels > SMALL
  return functools.partial(_upsampled, 'transpose' if wide or few else 'subpixel')


def transposed(x, kernel):
  """The reference."""
  padding = ((2, 2),) * 2 if len(kernel) == 4 else ((1, 2),) * 2
  return lax.conv_transpose(x, kernel, (2, 2), padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def _subpixel(x, kernel):
  return (_subpixel4 if len(kernel) == 4 else _subpixel3)(x, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _upsampled(implementation, x, kernel):
  """A transposed convolution in either implementation, whose gradient is that of the strided
  convolution that it transposes."""
  return (transposed if implementation == 'transpose' else _subpixel)(x, kernel)


def _upsampled_backward(implementation, saved, dy):
  x, kernel = saved
  turned = lambda kernel: kernel[::-1, ::-1].swapaxes(2, 3)
  dx = conv_cpu.convolution(dy, turned(kernel), 2, 1)
  return dx, turned(conv_cpu.weight_gradient_by_rows(dy, x, len(kernel), 2, 1))


_upsampled.defvjp(
    lambda implementation, x, kernel: (_upsampled(implementation, x, kernel), (x, kernel)),
    _upsampled_backward)


def _subpixel4(x, kernel):
  # Row 2m+p of the uncropped output gathers input rows m and m-1 through kernel rows p and 2+p:
  # all four phases are one 2x2 convolution to 4*features channels, cropped by one pixel.
  B, h, w, C = x.shape
  features = kernel.shape[-1]
  taps = kernel.reshape(2, 2, 2, 2, C, features)[:, ::-1, :, ::-1]  # (tap, phase) of rows, columns
  taps = taps.transpose(0, 2, 4, 1, 3, 5).reshape(4 * C, 4 * features)
  x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  x = jnp.concatenate([x[:, :-1, :-1], x[:, :-1, 1:], x[:, 1:, :-1], x[:, 1:, 1:]], -1)
  y = (x @ taps).reshape(B, h + 1, w + 1, 2, 2, features)
  y = y.transpose(0, 1, 3, 2, 4, 5).reshape(B, 2 * h + 2, 2 * w + 2, features)
  return y[:, 1:-1, 1:-1]


def _scattered(x, kernel):
  # Of few pixels most of the time would go to rearranging the kernel: here it is read as it lies,
  # one product a tap, and what came of it is put in its place.
  B, h, w, C = x.shape
  pixels = jnp.broadcast_to(x.reshape(1, -1, C), (16, B * h * w, C))
  y = jnp.einsum('tnc,tcf->tnf', pixels, kernel.reshape(16, C, -1))
  y = y.reshape(2, 2, 2, 2, B, h, w, -1)  # (tap, phase) of rows, of columns, both from the last

  def met(near, far):  # along axis 4: row m of one with row m - 1 of the other
    after, before = ([(0, 0)] * 4 + [side] + [(0, 0)] * (near.ndim - 5)
                     for side in ((0, 1), (1, 0)))
    return jnp.pad(near, after) + jnp.pad(far, before)

  y = met(y[1], y[0])[::-1]
  y = met(y[:, 1], y[:, 0])[:, ::-1]
  y = y.transpose(2, 3, 0, 4, 1, 5).reshape(B, 2 * h + 2, 2 * w + 2, -1)
  return y[:, 1:-1, 1:-1]


def _subpixel3(x, kernel):
  # Even rows see kernel row 1 at input row m; odd rows see rows 0 and 2 at m and m+1.
  B, h, w, _ = x.shape
  features = kernel.shape[-1]
  x = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
  rows = []
  for vertical in (((1, 0),), ((0, 0), (2, 1))):
    row = []
    for horizontal in (((1, 0),), ((0, 0), (2, 1))):
      taps = [(i, m, j, n) for i, m in vertical for j, n in horizontal]
      shifted = jnp.concatenate([x[:, m:m + h, n:n + w] for _, m, _, n in taps], -1)
      row.append(shifted @ jnp.concatenate([kernel[i, j] for i, _, j, _ in taps]))
    rows.append(jnp.stack(row, 3))
  return jnp.stack(rows, 2).reshape(B, 2 * h, 2 * w, features)
