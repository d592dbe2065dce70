"""Enlarging without learning, as a generator: what upscalers are compared with."""

from __future__ import annotations

import jax

from jaxgan_compress.core import Axes
from jaxgan_compress.core.arguments import one_of
from jaxgan_compress.nn.layers.inputs import ImageNetwork, Images

METHODS = {'nearest': 'nearest', 'bilinear': 'linear', 'bicubic': 'cubic'}


class Resize(ImageNetwork):
  """x [B,H,W,channels] -> the image [B,scale H,scale W,channels], and no taps; it has no weights.

  method: 'nearest', 'bilinear', or 'bicubic' of a = -0.5 (Keys 1981), as Pillow has it. Raises
  ValueError for another.
  """
  scale: int = 4
  method: str = 'bicubic'
  channels: int = 3

  def __call__(self, x, train: bool = False, axes: Axes = Axes()):
    one_of('method', self.method, METHODS)
    self.takes.check(x, 'this Resize')
    B, H, W, C = x.shape
    shape = B, self.scale * H, self.scale * W, C
    return jax.image.resize(x, shape, METHODS[self.method]), {}

  @property
  def takes(self) -> Images:
    return Images(self.channels)
