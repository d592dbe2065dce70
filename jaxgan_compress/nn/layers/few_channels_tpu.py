"""Convolutions of few channels, as from and to images, for TPUs.

A register holds 8 x 128 numbers with channels side by side, so that of an image almost all of it is
empty. Here the few channels lie one behind the other, [F,B,H,W], and rows of pixels fill registers.
What each weight of a kernel reads of such maps, at their borders too, are two products with
matrices of zeros and ones, one for each axis; so no map of many channels is padded or shifted, nor
is its gradient. At a TPU's default precision what a weight gives is rounded to bfloat16 before it
is summed, as are all operands of products there.

Blocks are 2 x 2 pixels as one pixel of four times the channels, see `blocks_tpu`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxgan_compress.nn.layers import conv_tpu

FEW = 8  # channels; compared were 1, 3 and 6
# Pixels of a side: a matrix takes as many products for each pixel. Compared were 256 and 512.
SIDE = 512
PADDINGS = ('zero', 'reflect')


def fits(x, size, implementation: str = 'auto') -> bool:
  """Whether few channels at this size (height, width) are for this module. x: a map of the batch.
  """
  return conv_tpu.few_images(x, implementation) and max(size) <= SIDE


def choose(x, kernel, stride: int, amount: int, mode: str, implementation: str = 'auto'
           ) -> Callable | None:
  """The function of (x, kernel) that computes this convolution, or None."""
  _, _, depth, features = kernel.shape
  run = to_few if features < min(FEW, depth + 1) else from_few if depth < FEW else None
  plain = len(kernel) == 1 and run is from_few  # one product as it is
  grouped = depth < x.shape[-1]
  if not run or plain or grouped or mode not in PADDINGS or \
      not fits(x, x.shape[1:3], implementation) or min(x.shape[1:3]) <= amount:
    return None
  return functools.partial(run, stride=stride, amount=amount, mode=mode)


def choose_transposed(x, kernel, implementation: str = 'auto') -> Callable | None:
  """The function of (x, kernel) that computes this transposed convolution, or None."""
  few = kernel.shape[-1] < FEW
  return upsample if few and fits(x, [2 * side for side in x.shape[1:3]], implementation) else None


def from_few(x, kernel, stride: int, amount: int, mode: str, pixels: int = 1):
  """A convolution of few channels: x [B,H,W,F], padded by `amount` on every side, kernel [k,k,F,C]
  -> [B,h,w,C], or with 2 `pixels` of a side of a block [B,h/2,w/2,4C]."""
  down, across = (_by_phase(_reads(len(kernel), side, stride, amount, mode), pixels)
                  for side in x.shape[1:3])
  return _from_maps(x, _of_blocks(kernel, pixels), down, across)


def to_few(x, kernel, stride: int, amount: int, mode: str, pixels: int = 1):
  """A convolution to few channels: x [B,H,W,C], padded by `amount` on every side, or with 2
  `pixels` of a side of a block [B,H/2,W/2,4C], kernel [k,k,C,F] -> [B,h,w,F]."""
  down, across = (_by_phase(_reads(len(kernel), pixels * side, stride, amount, mode).swapaxes(1, 2),
                            pixels) for side in x.shape[1:3])
  return _to_maps(x, _of_blocks(kernel.swapaxes(2, 3), pixels), down, across)


def upsample(x, kernel):
  """A transposed convolution of stride 2 to few channels: x [B,h,w,C], kernel [k,k,C,F] as of
  `UpConv` -> [B,2h,2w,F]."""
  # It is the transpose of a convolution of stride 2 padded by 1, with the kernel turned.
  down, across = (_reads(len(kernel), 2 * side, 2, 1, 'zero') for side in x.shape[1:3])
  return _to_maps(x, kernel[::-1, ::-1].swapaxes(2, 3), down, across)


def _reads(k, side, stride, amount, mode):
  """[k,outputs,side] of zeros and ones: whether an output reads an input through a weight."""
  outputs = (side + 2 * amount - k) // stride + 1
  weight, output, given = (lax.broadcasted_iota(jnp.int32, (k, outputs, side), axis)
                           for axis in range(3))
  at = stride * output + weight - amount
  if mode == 'reflect':
    at = side - 1 - jnp.abs(side - 1 - jnp.abs(at))
  return (at == given).astype(jnp.float32)


def _by_phase(reads, pixels):
  """[k,many,few] for pixels of blocks as [k pixels,many / pixels,few]: by weight, then phase."""
  k, _, few = reads.shape
  return reads.reshape(k, -1, pixels, few).swapaxes(1, 2).reshape(k * pixels, -1, few)


def _of_blocks(kernel, pixels):
  """A kernel [k,k,F,C] of pixels as one [k pixels,k pixels,F,C pixels^2] of blocks: weights that
  belong to a phase give, or take, that phase alone."""
  k, _, few, _ = kernel.shape
  alone = jnp.eye(pixels, dtype=kernel.dtype)
  return jnp.einsum('ijfc,ra,sb->irjsfabc', kernel, alone, alone).reshape(
      k * pixels, k * pixels, few, -1)


def _from_maps(x, kernel, down, across):
  """x [B,H,W,F], kernel [k,k,F,C] -> [B,h,w,C]; down, across: [k,h,H], [k,w,W]."""
  read = _spread(x.transpose(3, 0, 1, 2), down.astype(x.dtype), across.astype(x.dtype))
  read = read.reshape(-1, *read.shape[3:])
  return conv_tpu.product(read, kernel.reshape(len(read), -1), ((0,), (0,))).astype(x.dtype)


def _to_maps(x, kernel, down, across):
  """The transpose of `_from_maps` in x: [B,h,w,C], kernel [k,k,F,C] -> [B,H,W,F]."""
  read = conv_tpu.product(kernel.reshape(-1, x.shape[-1]), x, ((1,), (3,))).astype(x.dtype)
  read = read.reshape(*kernel.shape[:3], *x.shape[:3])
  return _gather(read, down.astype(x.dtype), across.astype(x.dtype)).transpose(1, 2, 3, 0)


@jax.custom_vjp
def _spread(x, down, across):
  """[F,B,H,W] -> [k,k,F,B,h,w]: what each weight reads."""
  columns = _einsum('fbgv,jwv->jfbgw', x, across)
  return _einsum('jfbgw,ihg->ijfbhw', columns, down)


@jax.custom_vjp
def _gather(read, down, across):
  """The transpose of `_spread`: [k,k,F,B,h,w] -> [F,B,H,W]."""
  columns = _einsum('ijfbhw,ihg->jfbgw', read, down)
  return _einsum('jfbgw,jwv->fbgv', columns, across)


# JAX's own transposes of products leave their results in an order that XLA:TPU turns round.
_spread.defvjp(lambda x, *reads: (_spread(x, *reads), reads),
               lambda reads, dy: (_gather(dy, *reads), None, None))
_gather.defvjp(lambda read, *reads: (_gather(read, *reads), reads),
               lambda reads, dx: (_spread(dx, *reads), None, None))


def _einsum(how, x, reads):
  """Summed in float32 or wider."""
  return jnp.einsum(how, x, reads, preferred_element_type=jnp.promote_types(
      x.dtype, jnp.float32)).astype(x.dtype)
