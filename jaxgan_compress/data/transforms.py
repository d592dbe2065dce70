"""Crops, resizes and shifts of images on the host, before they are batched as uint8 or uint16."""

from __future__ import annotations

import numpy as np

from jaxgan_compress.core.arguments import one_of
from jaxgan_compress.data.decode import with_channels
from jaxgan_compress.data.views import resized

FITS = ('resize', 'pad')


def frame(image: np.ndarray, size: int, *, crop: int | None = None, fit: str = 'resize',
          channels: int | None = None, bits: int = 8) -> np.ndarray:
  """A square image of `size` pixels: centre crop, then bicubic resize or a frame of zeros.

  image: uint8 or uint16 [H,W,C] -> uint8, or uint16 with bits=16, [size,size,C]. crop: edge of the
  square taken from the centre (default: the shorter side). fit 'pad' keeps the pixels and centres
  them, for MNIST's 28 in 32. channels, bits: see `decode.with_channels`; of images of 1 to 4.

  Raises ValueError for another `fit`, a crop larger than the image, padding that would shrink, or
  planes that are not `channels`.
  """
  one_of('fit', fit, FITS)
  height, width, depth = image.shape
  edge = crop or min(height, width)
  if edge > min(height, width):
    raise ValueError(f'crop={crop} is larger than an image of {height}x{width} pixels')
  top, left = (height - edge) // 2, (width - edge) // 2
  image = image[top:top + edge, left:left + edge]
  image = with_channels(image, channels or depth, bits)
  if fit == 'pad':
    if edge > size:
      raise ValueError(f"fit='pad' cannot put {edge} pixels into {size}; use fit='resize'")
    before = (size - edge) // 2
    return np.pad(image, ((before, size - edge - before),) * 2 + ((0, 0),))
  if edge != size:
    image = resized(image, size, size)
  return np.ascontiguousarray(image)


def random_shift(pixels: int):
  """An augmentation that moves the target by up to `pixels` in each direction, over zeros."""

  def augment(element, rng):
    if set(element) - {'target', 'label'}:
      raise ValueError(f'a shift moves the target alone, and this target belongs to '
                       f'{", ".join(sorted(set(element) - {"target", "label"}))}')
    down, right = rng.integers(0, 2 * pixels + 1, 2)
    height, width = element['target'].shape[:2]
    padded = np.pad(element['target'], ((pixels, pixels), (pixels, pixels), (0, 0)))
    return {**element, 'target': padded[down:down + height, right:right + width]}

  return augment
