"""Inception v3 as the Frechet inception distance uses it: the TensorFlow graph of 2015-12-05."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from jaxgan_compress.nn.layers.inputs import ImageNetwork, Images
from jaxgan_compress.nn.layers.norms import BatchNorm, at_least_float32

CLASSES = 1008  # ImageNet's 1000, and some that the graph leaves empty

# (features, rows and columns of the kernel) of the convolutions before the blocks, by name.
STEM = {'1a': (32, 3, 3), '2a': (32, 3, 3), '2b': (64, 3, 3), '3b': (80, 1, 1), '4a': (192, 3, 3)}


def _a(pool):
  return dict(branch1x1=[(64, 1, 1)], branch5x5=[(48, 1, 1), (64, 5, 5)],
              branch3x3dbl=[(64, 1, 1), (96, 3, 3), (96, 3, 3)], branch_pool=[(pool, 1, 1)])


def _c(n):
  return dict(branch1x1=[(192, 1, 1)], branch7x7=[(n, 1, 1), (n, 1, 7), (192, 7, 1)],
              branch7x7dbl=[(n, 1, 1), (n, 7, 1), (n, 1, 7), (n, 7, 1), (192, 1, 7)],
              branch_pool=[(192, 1, 1)])


_FORK = [(384, 1, 3), (384, 3, 1)]  # two convolutions that read the same map
_E = dict(branch1x1=[(320, 1, 1)], branch3x3=[(384, 1, 1), _FORK],
          branch3x3dbl=[(448, 1, 1), (384, 3, 3), _FORK], branch_pool=[(192, 1, 1)])

# How each block pools, and the convolutions of its branches, in the order that they are joined.
# The last block's maximum is a slip of the graph; FID is defined with it.
BLOCKS = {
    '5b': ('average', _a(32)), '5c': ('average', _a(64)), '5d': ('average', _a(64)),
    '6a': ('reduce', dict(branch3x3=[(384, 3, 3)],
                          branch3x3dbl=[(64, 1, 1), (96, 3, 3), (96, 3, 3)], branch_pool=[])),
    '6b': ('average', _c(128)), '6c': ('average', _c(160)), '6d': ('average', _c(160)),
    '6e': ('average', _c(192)),
    '7a': ('reduce', dict(branch3x3=[(192, 1, 1), (320, 3, 3)],
                          branch7x7x3=[(192, 1, 1), (192, 1, 7), (192, 7, 1), (192, 3, 3)],
                          branch_pool=[])),
    '7b': ('average', _E), '7c': ('max', _E),
}


class FIDInception(ImageNetwork):
  """Inception v3 with 1008 classes, in inference mode, as ported for FID.

  image: [B,H,W,3] in [-1, 1], H and W from 75; FID's are 299x299, resized elsewhere -> logits
  [B,1008] and taps '64' (after the first pooling, [B,73,73,64] of 299x299), '192' (after the
  second, [B,35,35,192]), '768' (before the last reduction, [B,17,17,768]) and '2048' (the means
  over all pixels, [B,2048] float32, which FID takes).

  Not torchvision's network of the same keys: average poolings count no padding, and the last block
  pools by maximum. Products are never rounded below `dtype`, so that a score does not depend on
  the accelerator.

  Raises ValueError for other shapes. Szegedy et al. 2016; Heusel et al. 2017.
  """
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, image):
    self.takes.check(image, 'this Inception')

    def conv(x, name, stride=1, same=False):
      features, *kernel = STEM[name]
      return ConvNorm(features, kernel, stride, same, self.dtype, name=f'conv{name}')(x)

    taps = {}
    x = conv(conv(conv(image, '1a', stride=2), '2a'), '2b', same=True)
    x = taps['64'] = _reduced(x)
    x = taps['192'] = _reduced(conv(conv(x, '3b'), '4a'))
    for name in BLOCKS:
      if name == '7a':
        taps['768'] = x
      x = InceptionBlock(name, self.dtype, name=f'block{name}')(x)
    x = taps['2048'] = at_least_float32(x).mean((1, 2))
    return nn.Dense(CLASSES, dtype=self.dtype, precision='highest', name='fc')(x), taps

  @property
  def takes(self) -> Images:
    return Images(3, least=75)  # the smallest of which a pixel is left


class InceptionBlock(nn.Module):
  """Branches of convolutions side by side, their outputs joined.

  x: [B,h,w,C] -> [B,h,w,C'], or [B,(h-1)//2,(w-1)//2,C'] where the block reduces: there the last
  convolution of each branch and the pooling have stride 2 and no padding.
  """
  block: str
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x):
    pool, branches = BLOCKS[self.block]
    conv = functools.partial(ConvNorm, dtype=self.dtype)
    joined = []
    for branch, convs in branches.items():
      ends = [_POOLS[pool](x) if branch == 'branch_pool' else x]
      for i, stage in enumerate(stages(branch, convs), 1):
        last = pool == 'reduce' and i == len(convs)
        ends = [conv(features, kernel, 1 + last, not last, name=name)(ends[0])
                for name, features, *kernel in stage]
      joined += ends
    return jnp.concatenate(joined, -1)


class ConvNorm(nn.Module):
  """relu(norm(conv(x))); with `same` padded to the size of the map."""
  features: int
  kernel: Sequence[int]
  stride: int
  same: bool
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x):
    padding = [(k // 2 * self.same, k // 2 * self.same) for k in self.kernel]
    x = nn.Conv(self.features, self.kernel, self.stride, padding, use_bias=False, dtype=self.dtype,
                precision='highest', name='conv')(x)
    return nn.relu(BatchNorm(epsilon=1e-3, name='norm')(x, False))


def stages(branch: str, convs) -> Iterator[list[tuple[str, int, int, int]]]:
  """(name, features, rows, columns) of the convolutions of a branch, those of one input together;
  names as in published files."""
  for i, stage in enumerate(convs, 1):
    name = f'{branch}_{i}' if len(convs) > 1 else branch
    yield ([(name + letter, *conv) for letter, conv in zip('ab', stage, strict=True)]
           if isinstance(stage, list) else [(name, *stage)])


_AROUND: Any = ((1, 1), (1, 1))  # flax says that it takes text alone
_reduced = functools.partial(nn.max_pool, window_shape=(3, 3), strides=(2, 2))
_POOLS = {
    'average': functools.partial(nn.avg_pool, window_shape=(3, 3), padding=_AROUND,
                                 count_include_pad=False),
    'max': functools.partial(nn.max_pool, window_shape=(3, 3), padding=_AROUND),
    'reduce': _reduced}
