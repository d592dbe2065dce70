"""Losses between images."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

REDUCTIONS = ('sum_pixels', 'mean')


def mse(image, lesson, reduction: str = 'sum_pixels'):
  """E |image - lesson|^2, summed over H, W, C ('sum_pixels', the paper's norm) or their mean.

  image, lesson: [B,H,W,C]. 'mean' is H*W*C times smaller, which changes the meaning of any weight
  beside it. Raises ValueError for another reduction. Aguinaldo et al. 2019.
  """
  if reduction not in REDUCTIONS:
    raise ValueError(f'mse_reduction={reduction!r}; one of {", ".join(REDUCTIONS)}')
  squares = jnp.square(image - lesson)
  return squares.mean() if reduction == 'mean' else squares.sum((1, 2, 3)).mean()


def l1(image, lesson):
  """mean |image - lesson|."""
  return jnp.abs(image - lesson).mean()


def total_variation(image):
  """Sum of |first differences| along H and along W, over the whole batch [B,H,W,C].

  A sum, as OMGD has it (Ren et al. 2021): its weight depends on batch and image size.
  """
  return jnp.abs(jnp.diff(image, axis=1)).sum() + jnp.abs(jnp.diff(image, axis=2)).sum()


def ssim(image, lesson, padding: int = 5):
  """Mean structural similarity of each image, [B]; 1 for equal images.

  Windows of 11x11, Gaussian with sigma 1.5, and the constants for a range of 1 (C1 = 1e-4,
  C2 = 9e-4). As a loss, `1 - ssim(...).mean()`, OMGD (Ren et al. 2021) takes images [B,H,W,C] in
  [-1, 1] as they are, with 5 zeros around. As a metric images are in [0, 1] and windows stay
  inside: padding=0. Wang et al. 2004.
  """
  dtype = jnp.promote_types(image.dtype, jnp.float32)
  image, lesson = image.astype(dtype), lesson.astype(dtype)
  down, across = (jnp.asarray(_windows(side, padding), dtype) for side in image.shape[1:3])

  def blur(x):
    return jnp.einsum('hy,byxc,wx->bhwc', down, x, across, precision='highest')

  mean_a, mean_b = blur(image), blur(lesson)
  var_a = blur(image * image) - mean_a * mean_a
  var_b = blur(lesson * lesson) - mean_b * mean_b
  covariance = blur(image * lesson) - mean_a * mean_b
  similar = (2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4)
  return (similar / ((mean_a ** 2 + mean_b ** 2 + 1e-4) * (var_a + var_b + 9e-4))).mean((1, 2, 3))


def _windows(side, padding):
  """One Gaussian a row, [windows, side]: the two-dimensional one is the product of two. Matrices,
  because grouped convolutions and their gradients are slow on CPUs."""
  # Rounded to float32 before it is normalised, as the original: its sum is not quite 1.
  line = np.exp(-np.arange(-5, 6) ** 2 / (2 * 1.5 ** 2)).astype(np.float32)
  line = line / np.float32(line.sum(dtype=np.float64))
  rows = np.zeros((side + 2 * padding - 10, side + 2 * padding), np.float32)
  for i, row in enumerate(rows):
    row[i:i + 11] = line
  return rows[:, padding:padding + side]
