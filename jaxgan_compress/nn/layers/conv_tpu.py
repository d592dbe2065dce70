"""Convolutions of few images as the products of matrices that a TPU is made for.

XLA:TPU lays a convolution's operands out with the images of the batch side by side in a register
of 8 x 128 numbers. Of fewer than 8 or 16 images it makes more, by cutting the map into stripes,
and rearranges everything around them. Products of matrices leave a map as it lies: channels side
by side, pixels of a row one below the other.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxgan_compress.nn.layers import conv_dispatch
from jaxgan_compress.nn.layers.resample import pad

# Of 4 images products take fewer cycles, of 32 XLA's convolutions do, by the compiler's estimates
# for a residual block (`benchmarks/tpu_forms.py --batch`); between the two nothing was compared.
FEW_IMAGES = 16
LANES = 128      # numbers side by side in a register
THIN = 64        # numbers under a row of the kernel, up to which all rows make one product


def choose(x, kernel, stride: int, amount: int, implementation: str = 'auto') -> Callable | None:
  """The function of (x, kernel, stride, amount) that computes this convolution, or None."""
  grouped = kernel.shape[2] < x.shape[-1]
  # A stride makes the map four times smaller than it looks.
  if not applies(x, kernel, implementation, 4 if stride == 1 else 1) or grouped or stride > 2 or \
      amount >= len(kernel):
    return None
  return products


def choose_transposed(x, kernel, implementation: str = 'auto') -> Callable | None:
  """The function of (x, kernel) that computes this transposed convolution, or None."""
  return _transposed if applies(x, kernel, implementation) else None


def applies(x, kernel, implementation: str = 'auto', larger: int = 1) -> bool:
  """Whether products are for convolutions of this map with kernels as large as this: where the
  kernel is more than so many times larger than the map, XLA's own are better, which do not
  rearrange it."""
  return few_images(x, implementation) and kernel.size <= larger * x.size


def few_images(x, implementation: str = 'auto') -> bool:
  """Whether this is for a TPU and a map of few images. Of an export, which is not, the number of
  images may be a symbol."""
  return (not conv_dispatch.counting() and conv_dispatch.is_optimized('rows', implementation) and
          len(x) < FEW_IMAGES)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def products(x, kernel, stride, amount):
  """A convolution: pixels under a row of the kernel side by side as channels, then one product for
  each row, summed."""
  view = _view(pad(x, amount), kernel.shape, stride)
  return _summed(view, _rows_of(kernel, stride)).astype(x.dtype)


def _view(x, shape, stride):
  """What lies under each row of a kernel of this shape, [[B,h,w,n], ...]: one for each product."""
  k, across, depth, _ = shape
  height = (x.shape[1] - k) // stride + 1
  width = (x.shape[2] - across) // stride + 1
  if stride == 2:  # two pixels become one of twice the channels
    x = jnp.pad(x, ((0, 0), (0, 0), (0, x.shape[2] % 2), (0, 0)))
    x = x.reshape(*x.shape[:2], -1, 2 * depth)
  taps = -(-across // stride)
  x = jnp.pad(x, ((0, 0), (0, 0), (0, max(0, width + taps - 1 - x.shape[2])), (0, 0)))
  columns = _side_by_side([x[:, :, j:j + width] for j in range(taps)])
  rows = [columns[:, i:i + stride * (height - 1) + 1:stride] for i in range(k)]
  return [_side_by_side(rows)] if across * depth <= THIN else rows


def _rows_of(kernel, stride):
  """The matrices that belong to a `_view`."""
  _, across, depth, features = kernel.shape
  kernel = jnp.pad(kernel, ((0, 0), (0, -across % stride), (0, 0), (0, 0)))
  rows = [row.reshape(-1, features) for row in kernel]
  return [jnp.concatenate(rows)] if across * depth <= THIN else rows


def _side_by_side(parts):
  return jnp.concatenate(parts, -1) if len(parts) > 1 else parts[0]


def _summed(view, matrices):
  return functools.reduce(jnp.add, map(product, view, matrices))


def product(x, matrix, over=((3,), (0,))):
  """Summed in float32 or wider."""
  return lax.dot_general(x, matrix, (over, ((), ())),
                         preferred_element_type=jnp.promote_types(x.dtype, jnp.float32))


def _products_backward(stride, amount, saved, dy):
  x, kernel = saved
  k, across, depth, features = kernel.shape
  pixels = (0, 1, 2)
  # As wide as a register, or XLA turns round the map with all its pixels.
  wide = jnp.pad(dy, ((0, 0),) * 3 + ((0, max(0, LANES - features)),))
  rows = [product(part, wide, (pixels, pixels))[:, :features]
          for part in _view(pad(x, amount), kernel.shape, stride)]
  dkernel = jnp.stack(rows).reshape(k, -1, depth, features)[:, :across].astype(kernel.dtype)
  back = kernel.swapaxes(2, 3)
  if stride == 1:
    dy = jnp.pad(dy, ((0, 0), *((side - 1 - amount,) * 2 for side in (k, across)), (0, 0)))
    return products(dy, back[::-1, ::-1], 1, 0), dkernel
  return _spread(dy, back, amount, x.shape[1:3]), dkernel


products.defvjp(lambda x, kernel, stride, amount: (
    products(x, kernel, stride, amount), (x, kernel)), _products_backward)


def _spread(x, kernel, before, size):
  """y[r] = sum over m and i with 2m + i = r + before of x[m] kernel[i], in both directions, for r
  from 0 to `size`: the transpose of a convolution of stride 2 padded by `before`."""
  k = len(kernel)
  rows, columns = (-(-side // 2) for side in size)
  # Two pixels of a row come from x[n + low] .. x[n + high], two rows likewise.
  reach = [[(r + before - i) // 2 for i in range(k) if (r + before - i) % 2 == 0] for r in (0, 1)]
  low, high = min(map(min, reach)), max(map(max, reach))
  room = [(-low, max(0, high + count - length))
          for count, length in zip((rows, columns), x.shape[1:3], strict=True)]
  x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((*both, 0) for both in room), (0, 0, 0)))
  window = _side_by_side([x[:, :, j:j + columns] for j in range(high - low + 1)])
  none = jnp.zeros_like(kernel[0, 0])

  def matrix(i):
    """Of one row of the kernel, from all pixels of the window to the two."""
    taps = [[(r + before - 2 * m) for r in (0, 1)] for m in range(low, high + 1)]
    return jnp.concatenate([jnp.concatenate(
        [kernel[i, j] if 0 <= j < k else none for j in pair], -1) for pair in taps])

  lines = []
  for r, reached in enumerate(reach):
    y = _summed([window[:, m - low:m - low + rows] for m in reached],
                [matrix(r + before - 2 * m) for m in reached])
    lines.append(y.astype(x.dtype).reshape(len(x), rows, 2 * columns, -1))
  y = jnp.stack(lines, 2).reshape(len(x), 2 * rows, 2 * columns, -1)
  return y[:, :size[0], :size[1]]


@jax.custom_vjp
def _transposed(x, kernel):
  """A transposed convolution of stride 2 that doubles the map, kernel 3x3 or 4x4 as of `UpConv`."""
  return _spread(x, kernel[::-1, ::-1], 1, [2 * side for side in x.shape[1:3]])


def _transposed_backward(saved, dy):
  x, kernel = saved
  # x is the gradient of what this convolution of dy, padded by 1, would give.
  turned = kernel[::-1, ::-1].swapaxes(2, 3)
  k = len(kernel)
  dy = jnp.pad(dy, ((0, 0), (1, k - 3), (1, k - 3), (0, 0)))
  _, dturned = _products_backward(2, 0, (dy, turned), x)
  return products(dy, turned, 2, 0), dturned.swapaxes(2, 3)[::-1, ::-1]


_transposed.defvjp(lambda x, kernel: (_transposed(x, kernel), (x, kernel)), _transposed_backward)
