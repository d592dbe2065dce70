"""How near an upscaled image is to another, as it is seen: clipped, in 8 bits, without its border
(jax)."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxgan_compress.metrics.formulas import grey_levels, laplacian

# What a flat target counts as, so that ratios to it stay finite: levels of 255, and their squares.
LEAST_EDGE, LEAST_GRID = 1e-3, 1e-5


def visible(images, border: int):
  """Images [B,H,W,C] in [-1, 1] as a file of 8 bits has them, without `border` pixels on each side.
  """
  inner = images[:, border:images.shape[1] - border, border:images.shape[2] - border]
  return jnp.round((inner.clip(-1, 1) + 1) * 127.5) / 127.5 - 1


def sharpness(images, target):
  """[B]: the mean |Laplacian| of grey images [B,H,W,C] over that of their targets; 1 is as sharp.

  A grid or noise is sharp, too: read it beside `grid_ratio`.
  """
  return _edges(images) / jnp.maximum(_edges(target), LEAST_EDGE)


def grid_ratio(images, target):
  """[B]: the energy of grey images [B,H,W,C] at the frequencies of a grid over that of their
  targets.

  Upscalers by four draw patterns of 4 and 2 pixels: the nine pairs of frequencies are 1/4, 1/2 and
  3/4 of the sampling rate down and across, behind a Hann window.
  """
  return _grid(images) / jnp.maximum(_grid(target), LEAST_GRID)


def _edges(images):
  return jnp.abs(laplacian(grey_levels(images))).mean((1, 2))


def _grid(images):
  x = grey_levels(images)
  down, across = (_waves(side) for side in x.shape[1:])
  # Without the mean, which the window would let through beside the lowest frequency.
  x = x - x.mean((1, 2), keepdims=True)
  waves = jnp.einsum('ky,byx,lx->bkl', down, x, across, precision='highest')
  return jnp.square(jnp.abs(waves)).sum((1, 2))


def _waves(side: int) -> np.ndarray:
  """The three waves of a grid along a side, behind a Hann window of sum 1: complex [3,side]."""
  position = np.arange(side)
  window = np.sin(np.pi * (position + .5) / side) ** 2
  frequencies = np.array([1 / 4, 1 / 2, 3 / 4])[:, None]
  return (window / window.sum() * np.exp(-2j * np.pi * frequencies * position)).astype(np.complex64)
