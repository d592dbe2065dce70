"""Images as the inputs of feature networks; each protocol has a function."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np


def to_uint8(images, round: bool = False):
  """clip((x + 1) / 2 * 255, 0, 255), truncated: images in [-1, 1] -> uint8, of any shape.

  GAN Compression, CAT and OMGD truncate before they measure, also real images: of the 256 grey
  levels, 63 come back one lower after float32 (v / 255 - 0.5) / 0.5. `round` gives each back, and
  is what to save images with.
  """
  x = jnp.clip((images.astype(jnp.float32) + 1) / 2 * 255, 0, 255)
  return (jnp.round(x) if round else x).astype(jnp.uint8)


def fid_pytorch(images):
  """uint8 [B,H,W,3] -> float32 [B,299,299,3] in [-1, 1], as pytorch-fid, CAT and OMGD have it.

  x / 255, bilinear to 299 x 299 without antialias (torch: align_corners=False), 2 x - 1. It skips
  pixels of images larger than 598. Raises ValueError for another shape or dtype.
  """
  _check(images)
  return 2 * _resize(images.astype(jnp.float32) / 255, 299, _linear, antialias=False) - 1


def fid_clean(images):
  """uint8 [B,H,W,3] -> float32 [B,299,299,3] in [-1, 127/128], as clean-fid has it.

  `bicubic`, then (x - 128) / 128, the scale of the network that clean-fid uses. Raises ValueError
  for another shape or dtype. Parmar et al. 2022.
  """
  return (bicubic(images, 299) - 128) / 128


def bicubic(images, side: int):
  """uint8 [B,H,W,3] -> float32 [B,side,side,3] in [0, 255], made smaller or larger.

  Bicubic with antialias, as Pillow resizes a channel of floats, clipped to 0..255, not rounded.
  Raises ValueError for another shape or dtype.
  """
  _check(images)
  return jnp.clip(_resize(images.astype(jnp.float32), side, _cubic, antialias=True), 0, 255)


def _resize(x, side, kernel, antialias):
  # jax.image.resize finds its weights in float32, which costs up to 0.003 grey levels.
  down, across = (jnp.asarray(_weights(size, side, kernel, antialias), jnp.float32)
                  for size in x.shape[1:3])
  x = jnp.einsum('Hh,bhwc->bHwc', down, x, precision='highest')
  return jnp.einsum('Ww,bHwc->bHWc', across, x, precision='highest')


def _weights(size, side, kernel, antialias):
  """The weight of each of `size` pixels in each of `side`, [side,size]; half-pixel centres."""
  scale = size / side
  centres = (np.arange(side) + .5) * scale - .5
  distances = np.abs(np.arange(size) - centres[:, None])
  weights = kernel(distances / (max(scale, 1) if antialias else 1))
  return weights / weights.sum(1, keepdims=True)  # the image ends: its edge weighs more


def _linear(x):
  return np.maximum(1 - x, 0)


def _cubic(x):
  # Keys 1981 with a = -1/2, as Pillow has it; torch without antialias has -3/4.
  return np.where(x < 1, (1.5 * x - 2.5) * x * x + 1,
                  np.where(x < 2, ((2.5 - .5 * x) * x - 4) * x + 2, 0))


def _check(images):
  if images.dtype != jnp.uint8 or images.ndim != 4 or images.shape[-1] != 3:
    raise ValueError(f'images {images.dtype}{list(images.shape)}; pass uint8 [B,H,W,3], made by '
                     'to_uint8 and, from grey, by repeating the channel')
