"""Losses between images."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

REDUCTIONS = ('sum_pixels', 'mean')
GREY = .299, .587, .114  # shares of red, green and blue
# The waves of the orthonormal 4x4 cosine transform but the constant: [4,4,1,15].
_LINES = np.cos(np.pi * (2 * np.arange(4) + 1) * np.arange(4)[:, None] / 8) * np.where(
    np.arange(4) > 0, .5 ** .5, .5)[:, None]
WAVES = np.stack([np.outer(a, b) for a in _LINES for b in _LINES][1:], -1)[:, :, None]


@jax.custom_jvp
def absolute(x):
  """|x|, whose slope at 0 is 0 as in PyTorch. That of `jnp.abs` is 1 there: a student equal to its
  teacher would not stay."""
  return jnp.abs(x)


@absolute.defjvp
def _(primals, tangents):
  return absolute(*primals), jnp.sign(primals[0]) * tangents[0]


def mse(image, target, reduction: str = 'sum_pixels'):
  """E |image - target|^2, summed over H, W, C ('sum_pixels', the paper's norm) or their mean.

  image, target: [B,H,W,C]. 'mean' is H*W*C times smaller, which changes the meaning of any weight
  next to it. Raises ValueError for another reduction. Aguinaldo et al. 2019.
  """
  if reduction not in REDUCTIONS:
    raise ValueError(f'mse_reduction={reduction!r}; one of {", ".join(REDUCTIONS)}')
  squares = jnp.square(image - target)
  return squares.mean() if reduction == 'mean' else squares.sum((1, 2, 3)).mean()


def l1(image, target):
  """mean |image - target|."""
  return absolute(image - target).mean()


def smooth_l1(image, target):
  """The mean of d^2 / 2 where d = |image - target| is below 1, and of d - 1/2 elsewhere:
  PyTorch's SmoothL1Loss with beta = 1. Girshick 2015."""
  distance = absolute(image - target)
  return jnp.where(distance < 1, jnp.square(distance) / 2, distance - .5).mean()


# Losses between a generated image and its target, by the names that CAT and OMGD give them.
RECONSTRUCTIONS = {'l1': l1, 'l2': functools.partial(mse, reduction='mean'), 'smooth_l1': smooth_l1}


def local_spectrum(image, target, window: int = 8):
  """Mean |difference| of how strong the 15 waves of the 4x4 cosine transform are in grey images, at
  every place in means over `window` x `window` of them.

  image, target: [B,H,W,3] in [-1, 1], sides at least window + 3. It asks for as much detail as the
  target has, wherever its edges lie exactly, where a distance of pixels is least for a blur.
  """
  def strengths(x):
    grey = x @ jnp.asarray(GREY, x.dtype)[:, None]
    waves = lax.conv_general_dilated(grey, jnp.asarray(WAVES, x.dtype), (1, 1), 'VALID',
                                     dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
    return _means(jnp.sqrt(jnp.square(waves) + 1e-6), window)  # smooth, where there is none

  return absolute(strengths(image) - strengths(target)).mean()


def grid_difference(image, target, period: int = 4, window: int = 8):
  """Mean |difference| of what repeats every `period` pixels, in means over `window` x `window`
  tiles of so many pixels, without what the whole tile is lighter or darker.

  image, target: [B,H,W,C], sides at least period * window. An upscaler that shuffles channels into
  pixels makes such a grid easily.
  """
  B, H, W, C = image.shape
  rows, columns = H // period, W // period
  x = (image - target)[:, :rows * period, :columns * period]
  x = x.reshape(B, rows, period, columns, period, C)
  x = (x - x.mean((2, 4), keepdims=True)).transpose(0, 1, 3, 2, 4, 5)
  return absolute(_means(x.reshape(B, rows, columns, -1), window)).mean()


def haar(image):
  """One level of the orthonormal Haar transform: (low [B,h,w,C], high [B,h,w,C,3]), where
  h = ceil(H / 2).

  Of a block [[a, b], [c, d]]: low is (a + b + c + d) / 2; high is the change downwards (a + b - c -
  d) / 2, the change across and the diagonal one. An odd side gets one line of zeros at its end.
  """
  B, H, W, C = image.shape
  x = jnp.pad(image, ((0, 0), (0, H % 2), (0, W % 2), (0, 0)))
  x = x.reshape(B, -(-H // 2), 2, -(-W // 2), 2, C)
  left, right = x[:, :, :, :, 0], x[:, :, :, :, 1]
  sums, changes = left + right, left - right
  down, diagonal = sums[:, :, 0] - sums[:, :, 1], changes[:, :, 0] - changes[:, :, 1]
  return sums.sum(2) / 2, jnp.stack([down, changes.sum(2), diagonal], -1) / 2


def haar_levels(image, levels: int):
  """The high bands of `levels` levels of `haar`, [B,h,w,C,3] each, the finest first."""
  bands = []
  for _ in range(levels):
    image, high = haar(image)
    bands.append(high)
  return bands


def wavelet(image, target, levels: int, balance: str = 'orthonormal'):
  """The sum over levels of mean |high bands of image - those of target|; the low one is free.

  image, target: [B,H,W,C]. balance: 'orthonormal', as published, whose level j is 2^(j-1) times
  differences of block means, so that the coarsest level is most of the sum; 'mean', of those
  differences themselves. Zhang et al. 2022, wavelet knowledge distillation.
  """
  return sum(absolute(high).mean() * (1 if balance == 'orthonormal' else .5 ** j)
             for j, high in enumerate(haar_levels(image - target, levels)))


def unsharp(image, amount: float, radius: float):
  """image + amount * (image - its Gaussian blur of standard deviation `radius`), borders repeated.

  image: [B,H,W,C]. radius: in pixels.
  """
  reach = math.ceil(3 * radius)
  line = np.exp(-np.square(np.arange(-reach, reach + 1)) / (2 * radius ** 2))
  blurred = jnp.pad(image, ((0, 0), (reach, reach), (reach, reach), (0, 0)), 'edge')
  for axis in (1, 2):
    side = image.shape[axis]
    shifted = [lax.slice_in_dim(blurred, i, i + side, axis=axis) for i in range(len(line))]
    blurred = jnp.tensordot(jnp.asarray(line / line.sum(), image.dtype), jnp.stack(shifted), 1,
                            precision='highest')
  return image + amount * (image - blurred)


def _means(x, window):
  """Of [B,H,W,C] over squares of `window` pixels, those at the right and the bottom left out."""
  B, H, W, C = x.shape
  rows, columns = H // window, W // window
  x = x[:, :rows * window, :columns * window]
  return x.reshape(B, rows, window, columns, window, C).mean((2, 4))


def total_variation(image):
  """Sum of |first differences| along H and along W, over the whole batch [B,H,W,C].

  A sum, as OMGD has it (Ren et al. 2021): its weight depends on batch and image size.
  """
  return absolute(jnp.diff(image, axis=1)).sum() + absolute(jnp.diff(image, axis=2)).sum()


def ssim(image, target, padding: int | None = None, window: int = 11):
  """Mean structural similarity of each image, [B]; 1 for equal images.

  Windows of `window` x `window` pixels, Gaussian with sigma 1.5, and the constants for a range of 1
  (C1 = 1e-4, C2 = 9e-4). As a loss, `1 - ssim(...).mean()`, OMGD (Ren et al. 2021) takes images
  [B,H,W,C] in [-1, 1] as they are, with window // 2 zeros around, the default. As a metric images
  are in [0, 1] and windows stay inside: padding=0. Wang et al. 2004.

  Raises ValueError for an even window, or one that does not fit inside the image.
  """
  check_window(window)
  padding = window // 2 if padding is None else padding
  if min(image.shape[1:3]) + 2 * padding < window:
    size = f'{image.shape[1]}x{image.shape[2]}'
    raise ValueError(f'images of {size} with {padding} zeros around hold no window of '
                     f'{window}x{window}; take a smaller window, or larger images')
  dtype = jnp.promote_types(image.dtype, jnp.float32)
  image, target = image.astype(dtype), target.astype(dtype)
  down, across = (jnp.asarray(_windows(side, padding, window), dtype)
                  for side in image.shape[1:3])

  def blur(x):
    return jnp.einsum('hy,byxc,wx->bhwc', down, x, across, precision='highest')

  mean_a, mean_b = blur(image), blur(target)
  var_a = blur(image * image) - mean_a * mean_a
  var_b = blur(target * target) - mean_b * mean_b
  covariance = blur(image * target) - mean_a * mean_b
  similar = (2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4)
  return (similar / ((mean_a ** 2 + mean_b ** 2 + 1e-4) * (var_a + var_b + 9e-4))).mean((1, 2, 3))


def check_window(window: int):
  """Raises ValueError for a window of SSIM that has no pixel in its middle."""
  if window < 1 or window % 2 == 0:
    raise ValueError(f'window={window}; windows of SSIM have an odd number of pixels, as 11')


def _windows(side, padding, window=11):
  """One Gaussian a row, [windows, side]: the two-dimensional one is the product of two. Matrices,
  because grouped convolutions and their gradients are slow on CPUs."""
  # Rounded to float32 before it is normalised, as the original: its sum is not quite 1.
  reach = window // 2
  line = np.exp(-np.arange(-reach, reach + 1) ** 2 / (2 * 1.5 ** 2)).astype(np.float32)
  line = line / np.float32(line.sum(dtype=np.float64))
  rows = np.zeros((side + 2 * padding - 2 * reach, side + 2 * padding), np.float32)
  for i, row in enumerate(rows):
    row[i:i + window] = line
  return rows[:, padding:padding + side]
