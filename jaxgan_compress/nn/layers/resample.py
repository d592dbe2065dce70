"""Maps of other sizes: padding, and nearest pixels of larger and smaller maps, NHWC."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxgan_compress.nn.layers import conv_dispatch

# What `pad` adds, as numpy.pad names it.
_MODES = {'zero': 'constant', 'reflect': 'reflect', 'replicate': 'edge'}
PADDINGS = tuple(_MODES)


@conv_dispatch.operation
def pad(x, amount: int, mode: str = 'zero', implementation: str = 'auto'):
  """x [B,H,W,C] with `amount` more rows and columns on each side.

  mode: 'zero', 'reflect' (the border is not repeated) or 'replicate'. Raises ValueError for
  another mode, or a map too small to reflect.
  """
  if mode not in PADDINGS:
    raise ValueError(f'padding={mode!r}; one of {", ".join(PADDINGS)}')
  if not amount:
    return x
  if mode == 'reflect':
    if any(side <= amount for side in x.shape[1:3]):  # sides may be symbols of an export
      raise ValueError(f'a map of {x.shape[1]}x{x.shape[2]} cannot be reflected by {amount} '
                       'pixels; give a larger image')
    run = {'gather': _reflect, 'pieces': _reflect_by_pieces}.get(
        conv_dispatch.choose('reflect', implementation))
    if run:
      return run(x, amount)
  return jnp.pad(x, ((0, 0), (amount, amount), (amount, amount), (0, 0)), _MODES[mode])


@conv_dispatch.operation
def upsample(x, factor: int = 2):
  """[B,h,w,C] -> [B,factor h,factor w,C], every pixel factor^2 times."""
  return x.repeat(factor, 1).repeat(factor, 2)


@conv_dispatch.operation
def pixel_shuffle(x, factor: int):
  """[B,h,w,C factor^2] -> [B,factor h,factor w,C], in PyTorch's order: channel
  c factor^2 + i factor + j holds row i and column j of each square. Shi et al. 2016."""
  B, h, w, C = x.shape
  x = x.reshape(B, h, w, C // factor ** 2, factor, factor).transpose(0, 1, 4, 2, 5, 3)
  return x.reshape(B, factor * h, factor * w, C // factor ** 2)


@conv_dispatch.operation
def pixel_unshuffle(x, factor: int):
  """The inverse of `pixel_shuffle`: [B,factor h,factor w,C] -> [B,h,w,C factor^2]."""
  B, H, W, C = x.shape
  x = x.reshape(B, H // factor, factor, W // factor, factor, C).transpose(0, 1, 3, 5, 2, 4)
  return x.reshape(B, H // factor, W // factor, C * factor ** 2)


@conv_dispatch.operation
def bicubic(x, factor: float):
  """x [B,H,W,C] at `factor` times its size, by the cubic of a = -0.75, half-pixel centres, borders
  repeated and no antialiasing: PyTorch's 'bicubic' and ncnn's.

  factor: 0.5 of sides that are even, or 0.75 of multiples of 4. Raises ValueError for another.
  """
  if factor not in BICUBIC:
    raise ValueError(f'factor={factor!r}; one of {", ".join(map(str, BICUBIC))}')
  phases, period = BICUBIC[factor]
  border = 2
  for axis in (1, 2):
    n = x.shape[axis] // period
    padded = jnp.pad(x, [(border, border) if i == axis else (0, 0) for i in range(4)], 'edge')
    rows = []
    for phase in range(phases):
      at, weights = cubic_taps(phase, period / phases)
      rows.append(sum(weight * lax.slice_in_dim(
          padded, start := at + i + border, start + (n - 1) * period + 1, period, axis)
          for i, weight in enumerate(weights)))
    x = jnp.stack(rows, axis + 1)
    x = x.reshape(*x.shape[:axis], phases * n, *x.shape[axis + 2:])
  return x


BICUBIC = {0.5: (1, 2), 0.75: (3, 4)}  # {factor: (pixels that come out, of so many)}
CUBIC = -0.75  # the slope of the kernel at distance 1; Keys has -0.5


def cubic_taps(i: int, step: float) -> tuple[int, list[float]]:
  """(the first of the four pixels that make pixel i, their weights). Keys 1981."""
  center = (i + 0.5) * step - 0.5
  first = int(np.floor(center)) - 1
  d = np.abs(center - np.arange(first, first + 4))
  weights = np.where(d <= 1, (CUBIC + 2) * d ** 3 - (CUBIC + 3) * d ** 2 + 1,
                     CUBIC * (d ** 3 - 5 * d ** 2 + 8 * d - 4))
  return first, [float(weight) for weight in weights]


@conv_dispatch.operation
def subsample(x, height: int, width: int):
  """Nearest pixels of x [B,H,W,C] at a size that divides its own: strided, as PyTorch has it.

  `jax.image.resize` would take half-pixel centres. Raises ValueError where it does not divide.
  """
  rows, columns = x.shape[1] // height, x.shape[2] // width
  if (rows * height, columns * width) != x.shape[1:3]:
    raise ValueError(f'{height}x{width} does not divide {x.shape[1]}x{x.shape[2]}')
  return x[:, ::rows, ::columns]


def _reflect_by_pieces(x, amount):
  """Reflection by concatenation, an axis at a time: the gradient of its reversals are reversals."""
  for axis in (1, 2):
    n = x.shape[axis]
    rows = functools.partial(lax.slice_in_dim, x, axis=axis)
    x = jnp.concatenate([jnp.flip(rows(1, amount + 1), axis), x,
                         jnp.flip(rows(n - 1 - amount, n - 1), axis)], axis)
  return x


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _reflect(x, amount):
  """Reflection by gathers: one operation an axis, where pieces would each compile whatever made
  x once more."""
  for axis in (1, 2):
    n = x.shape[axis]
    x = jnp.take(x, np.pad(np.arange(n), amount, 'reflect'), axis, mode='clip')
  return x


def _reflect_backward(amount, _, dy):
  # Left to itself, the gradient of a gather would be a scatter, one row after another.
  for axis in (2, 1):
    n = dy.shape[axis] - 2 * amount
    at = np.arange(n)
    inner = lax.slice_in_dim(dy, amount, n + amount, axis=axis)
    for mirrored, source in (((at > 0) & (at <= amount), amount - at),
                             ((at >= n - 1 - amount) & (at < n - 1), 2 * (n - 1) + amount - at)):
      border = jnp.take(dy, np.where(mirrored, source, 0), axis, mode='clip')
      mirrored = np.expand_dims(mirrored, tuple(i for i in range(dy.ndim) if i != axis))
      inner = inner + jnp.where(mirrored, border, 0)
    dy = inner
  return (dy,)


_reflect.defvjp(lambda x, amount: (_reflect(x, amount), None), _reflect_backward)
