"""Discriminators on patches: images to maps of logits."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from jaxgan_compress.core import Axes
from jaxgan_compress.nn.layers import Conv, InstanceNorm, conv_bias, leaky_relu, norm
from jaxgan_compress.nn.layers.inputs import ImageNetwork, Images
from jaxgan_compress.nn.layers.norms import at_least_float32


class PatchGAN(ImageNetwork):
  """4x4 convolutions ndf, 2 ndf, 4 ndf, 8 ndf (at most), all strided but the last, then 1 logit.

  image: [B,H,W,C] in [-1, 1]; condition: [B,H,W,C'], set before the image along channels, or None.
  -> `{head: [B,h,w,1]}` logits, 30x30 for 256x256 and three strided layers, and taps 'stage1' ..
  after each leaky ReLU.

  inputs: C + C'. layers: strided ones.
  bias: whether convolutions before a norm have one; None: as published, with instance norm only.
  The first and the last always have.
  heads: with several, OMGD's shared discriminator: the first `shared` of the layers + 2
  convolutions serve all heads, the others are each head's own (taps 'stage4_wide' and so on).

  Raises ValueError for an image too small. Isola et al. 2017; Ren et al. 2021, OMGD.
  """
  ndf: int = 64
  layers: int = 3
  inputs: int = 3
  norm: str = 'instance'
  heads: tuple[str, ...] = ('real',)
  shared: int = 0
  bias: bool | None = None
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, image, condition=None, train: bool = False, axes: Axes = Axes()):
    stages = self.layers + 2
    if not 0 <= self.shared <= stages:
      raise ValueError(f'shared={self.shared}; from 0 to {stages}, the number of convolutions')
    if not self.heads or self.layers < 1:
      raise ValueError(f'heads={self.heads}, layers={self.layers}; at least one of each')
    x = _conditioned(image, condition)
    self.takes.check(x, 'this PatchGAN')
    bias = conv_bias(self.norm, self.bias)
    taps = {}

    def stage(k, x, name):
      last = k == stages
      width = 1 if last else min(2 ** (k - 1), 8) * self.ndf
      x = Conv(width, 4, 2 if k <= self.layers else 1, padding=1, bias=bias or last or k == 1,
               dtype=self.dtype, name=name)(x)
      if last:
        return at_least_float32(x)
      if k > 1:
        x = norm(self.norm, f'{name}_norm')(x, train, axes)
      taps[name] = leaky_relu(x)
      return taps[name]

    shared = self.shared if len(self.heads) > 1 else stages
    for k in range(1, shared + 1):
      x = stage(k, x, f'stage{k}')
    logits = {}
    for head in self.heads:
      y = x
      for k in range(shared + 1, stages + 1):
        y = stage(k, y, f'stage{k}_{head}')
      logits[head] = y
    return logits, taps

  @property
  def takes(self) -> Images:
    return Images(self.inputs, 1, 3 * 2 ** self.layers)


class PixelGAN(ImageNetwork):
  """Three 1x1 convolutions, ndf, 2 ndf, 1: the logit of a pixel depends on that pixel alone.

  image, condition: as `PatchGAN` -> `{'real': [B,H,W,1]}` and taps. bias: of the last two, as
  there. Isola et al. 2017.
  """
  ndf: int = 64
  inputs: int = 3
  norm: str = 'instance'
  bias: bool | None = None
  dtype: jnp.dtype = jnp.float32
  example_side = 4

  @nn.compact
  def __call__(self, image, condition=None, train: bool = False, axes: Axes = Axes()):
    x = _conditioned(image, condition)
    self.takes.check(x, 'this PixelGAN')
    conv = functools.partial(Conv, kernel=1, dtype=self.dtype)
    bias = conv_bias(self.norm, self.bias)
    x = stage1 = leaky_relu(conv(self.ndf, name='stage1')(x))
    x = conv(2 * self.ndf, bias=bias, name='stage2')(x)
    stage2 = leaky_relu(norm(self.norm, 'stage2_norm')(x, train, axes))
    logits = at_least_float32(conv(1, bias=bias, name='stage3')(stage2))
    return {'real': logits}, {'stage1': stage1, 'stage2': stage2}

  @property
  def takes(self) -> Images:
    return Images(self.inputs)


class UNetDiscriminator(ImageNetwork):
  """A U-Net of spectrally normalised convolutions that gives every pixel a logit.

  image, condition: as `PatchGAN`, sides multiples of 8; a smaller condition, as the input of an
  upscaler, is enlarged -> `{'real': [B,H,W,1]}` and taps 'stem', 'down1' .. 'up1'.

  Its first and its last convolutions have no stride, so that it sees, and its gradients have, no
  grid. ndf: channels of the stem, twice as many after each of three strided convolutions; the way
  up is bilinear, with sums. Wang et al. 2021, Real-ESRGAN; after Schonfeld et al. 2020.
  """
  ndf: int = 64
  inputs: int = 3
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, image, condition=None, train: bool = False, axes: Axes = Axes()):
    x = _conditioned(image, condition)
    self.takes.check(x, 'this UNetDiscriminator')
    conv = functools.partial(Conv, kernel=3, padding=1, dtype=self.dtype)
    normalised = functools.partial(conv, bias=False, spectral=True)
    x = leaky_relu(conv(self.ndf, name='stem')(x))
    taps, skips = {'stem': x}, [x]
    for k in (1, 2, 3):
      x = taps[f'down{k}'] = leaky_relu(normalised(
          2 ** k * self.ndf, kernel=4, stride=2, name=f'down{k}')(x, train))
      skips.append(x)
    skips.pop()
    for k in (3, 2, 1):
      B, h, w, C = x.shape
      x = jax.image.resize(x, (B, 2 * h, 2 * w, C), 'linear')
      x = leaky_relu(normalised(2 ** (k - 1) * self.ndf, name=f'up{k}')(x, train)) + skips.pop()
      taps[f'up{k}'] = x
    for k in (1, 2):
      x = leaky_relu(normalised(self.ndf, name=f'out{k}')(x, train))
    return {'real': at_least_float32(conv(1, name='logits')(x))}, taps

  @property
  def takes(self) -> Images:
    return Images(self.inputs, 8, 8)


class MultiScale(ImageNetwork):
  """The same small discriminator, with its own weights, on the image and on smaller copies.

  image, condition: as `PatchGAN` -> logits `{'scale0': [B,h,w,1], 'scale1': ...}`, scale 0 full
  size, and taps 'scale0_stage1' .. for feature matching: every activation before the logits.

  Each scale: 4x4 convolutions padded by 2; the first biased, without norm; `layers - 1` (with
  `spectral` spectrally normalised) ones without bias, each before an instance norm without
  parameters, strided but for the last; one to the logits. Smaller copies are 3x3 means of stride 2
  that leave padding out.

  Raises ValueError for an image too small. Park et al. 2019, SPADE; after Wang et al. 2018.
  """
  ndf: int = 64
  layers: int = 4
  scales: int = 2
  inputs: int = 39
  spectral: bool = True
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, image, condition=None, train: bool = False, axes: Axes = Axes()):
    if self.scales < 1 or self.layers < 1:
      raise ValueError(f'scales={self.scales}, layers={self.layers}; at least one of each')
    x = _conditioned(image, condition)
    self.takes.check(x, 'this multi-scale discriminator')
    conv = functools.partial(Conv, kernel=4, padding=2, dtype=self.dtype)
    logits, taps = {}, {}
    for scale in range(self.scales):
      x = _halved(x) if scale else x
      y = taps[f'scale{scale}_stage1'] = leaky_relu(
          conv(self.ndf, stride=2, name=f'scale{scale}_stage1')(x))
      for k in range(2, self.layers + 1):
        y = conv(min(2 ** (k - 1), 8) * self.ndf, stride=2 if k < self.layers else 1, bias=False,
                 spectral=self.spectral, name=f'scale{scale}_stage{k}')(y, train)
        y = taps[f'scale{scale}_stage{k}'] = leaky_relu(InstanceNorm()(y))
      logits[f'scale{scale}'] = at_least_float32(
          conv(1, name=f'scale{scale}_stage{self.layers + 1}')(y))
    return logits, taps

  @property
  def takes(self) -> Images:
    return Images(self.inputs, 1, 2 ** (self.layers + self.scales - 1))


def _conditioned(image, condition):
  """Both side by side along channels; a smaller condition, as of an upscaler, is enlarged."""
  if condition is None:
    return image
  return jnp.concatenate([fitted(condition, image), image], -1)


def fitted(condition, image):
  """The condition, [B,h,w,C], in the size of the image [B,H,W,C']."""
  if condition.shape[1:3] == image.shape[1:3]:
    return condition
  return jax.image.resize(condition, (*image.shape[:3], condition.shape[-1]), 'cubic')


def _halved(x):
  """3x3 means of stride 2, padded by 1, the padding not counted."""
  sums = functools.partial(
      lax.reduce_window, init_value=np.zeros((), x.dtype), computation=lax.add,
      window_dimensions=(1, 3, 3, 1), window_strides=(1, 2, 2, 1),
      padding=((0, 0), (1, 1), (1, 1), (0, 0)))
  return sums(x) / sums(jnp.ones((1, *x.shape[1:3], 1), x.dtype))
