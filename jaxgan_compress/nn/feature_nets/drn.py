"""Dilated residual networks, which segment street scenes: mIoU of generated cityscapes."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxgan_compress.nn.layers.inputs import ImageNetwork, Images
from jaxgan_compress.nn.layers.norms import BatchNorm, at_least_float32

# Of RGB in [0, 1] over Cityscapes: what GAN Compression, OMGD and CAT put before
# `drn-d-105_ms_cityscapes.pth`.
CITYSCAPES_MEAN = (0.29010095242892997, 0.32808144844279574, 0.28696394422942517)
CITYSCAPES_STD = (0.1829540508368939, 0.18656561047509476, 0.18447508988480435)

STRIDES, DILATIONS = (2, 2, 1, 1), (1, 1, 2, 4)  # of the levels of blocks


class DRN(ImageNetwork):
  """DRN-D: three convolutions, four levels of bottlenecks, two convolutions, 8x bilinear. The
  defaults are DRN-D-105.

  image: [B,H,W,3], H and W multiples of 8, RGB in [0, 1] less the mean and over the deviation of
  the training set -> log-probabilities [B,H,W,classes] float32, and taps 'level0' .. 'level8',
  'seg' (the logits, [B,H/8,W/8,classes]). Inference mode; levels 5 to 7 are dilated by 2, 4, 2
  instead of strided.

  stem: channels of levels 0, 1, 2. blocks, planes: of levels 3 to 6, how many bottlenecks and the
  channels inside, a quarter of those outside. head: channels of levels 7, 8.

  Products are never rounded below `dtype`, so that a score does not depend on the accelerator.
  Raises ValueError for other sizes. Yu et al. 2017.
  """
  stem: tuple[int, ...] = (16, 16, 32)
  blocks: tuple[int, ...] = (3, 4, 23, 3)
  planes: tuple[int, ...] = (64, 128, 256, 512)
  head: tuple[int, ...] = (512, 512)
  classes: int = 19
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, image):
    self.takes.check(image, 'this DRN')

    def level(x, i, features, kernel=3, **options):
      return nn.relu(_conv_norm(x, features, kernel, f'level{i}', dtype=self.dtype, **options))

    taps, x = {}, image
    for i, (features, kernel, stride) in enumerate(zip(self.stem, (7, 3, 3), (1, 1, 2),
                                                       strict=True)):
      x = taps[f'level{i}'] = level(x, i, features, kernel, stride=stride)
    for i, (count, planes, stride, dilation) in enumerate(
        zip(self.blocks, self.planes, STRIDES, DILATIONS, strict=True), 3):
      for j in range(1, count + 1):
        x = Bottleneck(planes, stride if j == 1 else 1, dilation, j == 1, self.dtype,
                       name=f'level{i}_block{j}')(x)
      taps[f'level{i}'] = x
    for i, (features, dilation) in enumerate(zip(self.head, (2, 1), strict=True), 7):
      x = taps[f'level{i}'] = level(x, i, features, dilation=dilation)
    x = taps['seg'] = nn.Conv(self.classes, (1, 1), dtype=self.dtype, precision='highest',
                              name='seg')(x)
    return jax.nn.log_softmax(enlarge(x)), taps

  @property
  def takes(self) -> Images:
    return Images(3, 8, 8)


class Bottleneck(nn.Module):
  """relu(shortcut(x) + 1x1 to `planes`, 3x3, 1x1 to four times as many), a norm after each.

  x: [B,h,w,C] -> [B,h/stride,w/stride,4 planes]. With `project` the shortcut is a strided 1x1
  convolution and a norm, else the identity.
  """
  planes: int
  stride: int
  dilation: int
  project: bool
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x):
    unit = functools.partial(_conv_norm, dtype=self.dtype)
    y = nn.relu(unit(x, self.planes, 1, 'conv1'))
    y = nn.relu(unit(y, self.planes, 3, 'conv2', stride=self.stride, dilation=self.dilation))
    y = unit(y, 4 * self.planes, 1, 'conv3')
    if self.project:
      x = unit(x, 4 * self.planes, 1, 'shortcut', stride=self.stride)
    return nn.relu(x + y)


def bilinear_kernel(classes: int):
  """[classes,1,16,16]: the fixed weight of the transposed convolution that `enlarge` computes.

  Multiples of 1/256, exact in every floating-point type.
  """
  row = 1 - np.abs(np.arange(16) - 7.5) / 8
  return np.tile(np.outer(row, row).astype(np.float32), (classes, 1, 1, 1))


def enlarge(x):
  """x [B,h,w,C] -> [B,8h,8w,C] float32 or wider: each channel's 16x16 transposed convolution of
  stride 8 and padding 4 with a bilinear kernel, as two small matmuls.

  Beyond the border lie zeros, so the outermost four rows and columns fade: no `jax.image.resize`.
  """
  x = at_least_float32(x)
  rows, columns = (np.maximum(0, 1 - np.abs(
      np.arange(8 * n)[:, None] - 8 * np.arange(n) - 3.5) / 8).astype(x.dtype)
      for n in x.shape[1:3])
  return jnp.einsum('Hh,bhwc,Ww->bHWc', rows, x, columns, precision='highest')


def _conv_norm(x, features, kernel, name, *, dtype, stride=1, dilation=1):
  """A convolution without bias, padded to keep the size (before its stride), and its norm."""
  x = nn.Conv(features, (kernel, kernel), stride, kernel // 2 * dilation, kernel_dilation=dilation,
              use_bias=False, dtype=dtype, precision='highest', name=name)(x)
  return BatchNorm(name=f'{name}_norm')(x, False)
