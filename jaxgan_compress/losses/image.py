"""Losses between images."""

from __future__ import annotations

import jax.numpy as jnp

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
