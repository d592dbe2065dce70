"""Residual image-to-image generators: of CycleGAN, separable, and OMGD's deeper teacher."""

from __future__ import annotations

import functools

import jax.numpy as jnp
from flax import linen as nn

from jaxgan_compress.core import Axes
from jaxgan_compress.core.arguments import typed
from jaxgan_compress.nn import layers
from jaxgan_compress.nn.layers import blocks_tpu
from jaxgan_compress.nn.layers.inputs import ImageNetwork, Images
from jaxgan_compress.nn.prunable import Group, Plan, Widths, make_plan, renewed


@typed
def resnet(ngf: int = 64, blocks: int = 9, **fields) -> ResNetGenerator:
  """The generator of CycleGAN (Zhu et al. 2017) at base width `ngf`; fields as of the class."""
  return ResNetGenerator(stem=(ngf, 2 * ngf, 4 * ngf), hidden=(4 * ngf,) * blocks,
                         up=(2 * ngf, ngf), **fields)


@typed
def mobile_resnet(ngf: int = 64, blocks: int = 9, **fields) -> ResNetGenerator:
  """The same with separable convolutions in its blocks (GAN Compression, OMGD)."""
  return resnet(ngf, blocks, separable=True, **{'dropout': 0., **fields})


@typed
def mobile_deepest_resnet(ngf: int = 16, blocks: int = 9, **fields) -> ResNetGenerator:
  """The deeper teacher of OMGD: the same with expansion blocks at every resolution."""
  return mobile_resnet(ngf, blocks, deeper=True, **fields)


class ResNetGenerator(ImageNetwork):
  """A 7x7 convolution and strided ones, residual blocks, transposed convolutions, 7x7, tanh.

  x: [B,H,W,inputs] in [-1, 1], H and W multiples of 4 from 8 (with two strided ones) -> image
  [B,H,W,channels] in [-1, 1], and taps 'stem' (after the last strided convolution), 'block1' ..
  'block9'.

  stem: channels of the first convolutions. hidden: of each block, channels between its two
    convolutions; the residual stream is as wide as the stem's last. up: of the transposed ones.
  separable: blocks of separable convolutions. deeper: expansion blocks (1x1 to four times the
    channels, 3x3, 1x1 back, 3x3) after every change of resolution, each followed by a 3x3
    convolution, and two in the middle of the blocks.
  padding: at the 7x7 convolutions always reflection; in blocks 'reflect', 'replicate', 'zero'.
  dropout: rate inside blocks; None: no such layer, which PyTorch's parameter names tell from 0.
  clamp: inputs are cut to [-1, 1] first, as GAN Compression's plain and pruned ResNets do.
  bias: whether convolutions before a norm have one; None: as published, with instance norm only.
  remat: blocks store their inputs alone and compute the rest again for the gradient: less
    memory, up to a third more time. Of no use on CPUs, where XLA merges both.
  implementation: of the replaceable operations, see `nn.layers.conv_dispatch`.
  dtype: of the computation.

  Raises ValueError for other sizes. Zhu et al. 2017; Li et al. 2020; Ren et al. 2021, OMGD.
  """
  stem: tuple[int, ...] = (64, 128, 256)
  hidden: tuple[int, ...] = (256,) * 9
  up: tuple[int, ...] = (128, 64)
  inputs: int = 3
  channels: int = 3
  norm: str = 'instance'
  separable: bool = False
  deeper: bool = False
  padding: str = 'reflect'
  dropout: float | None = None
  clamp: bool = False
  bias: bool | None = None
  remat: bool = False
  implementation: str = 'auto'
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, train: bool = False, axes: Axes = Axes()):
    if len(self.stem) != len(self.up) + 1:
      raise ValueError(f'{len(self.stem)} stem and {len(self.up)} up widths; the stem has one more')
    self.takes.check(x, 'this ResNet')
    bias = layers.conv_bias(self.norm, self.bias)
    shared = self.padding, self.dropout, self.implementation, self.dtype
    coder = EncoderDecoder(self, bias, train, axes)

    def expand(x, name):
      block = layers.maybe_remat(ExpansionBlock, self.remat)
      return block(self.norm, bias, *shared, name=name)(x, train, axes)

    def deepen(x, name):
      x = expand(x, f'{name}_expand')
      return coder.normed(coder.conv(x.shape[-1], bias=bias, name=f'{name}_mix')(x), f'{name}_mix')

    deepened = deepen if self.deeper else None
    x = coder.encode(jnp.clip(x, -1, 1) if self.clamp else x, deepened)
    taps = {'stem': x}
    for i, width in enumerate(self.hidden, 1):
      if self.deeper and i == len(self.hidden) // 2 + 1:
        x = expand(expand(x, 'expand1'), 'expand2')
      x = taps[f'block{i}'] = layers.maybe_remat(ResidualBlock, self.remat)(
          width, self.norm, bias, self.separable, *shared, name=f'block{i}')(x, train, axes)
    return coder.decode(x, deepened), taps

  def plan(self) -> Plan:
    """Groups 'stem0' .. (the last is the residual stream), 'block1' .. (hidden), 'up0' .."""
    def resampled(name, n, *more):
      deeper = (*expanding(f'{name}_expand'), f'{name}_mix', *more) if self.deeper else ()
      return {name: Group(n, f'{name}_norm', layers=(name, *deeper))}

    middle = expanding('expand1', 'expand2') if self.deeper else ()  # of the residual stream
    groups = {'stem0': Group(self.stem[0], 'stem0_norm',
                             layers=('stem0', *(() if self.up else middle)))}
    for i, n in enumerate(self.stem[1:], 1):
      groups |= resampled(f'stem{i}', n, *(middle if i == len(self.up) else ()))
    groups |= {f'block{i}': Group(n, f'block{i}/norm1', layers=(f'block{i}/conv1',))
               for i, n in enumerate(self.hidden, 1)}
    for i, n in enumerate(self.up):
      groups |= resampled(f'up{i}', n)
    return make_plan(self, groups)

  def with_widths(self, widths: Widths) -> ResNetGenerator:
    """The same network with other widths, `{group: channels}`."""
    return self.clone(stem=renewed(widths, 'stem', self.stem),
                      hidden=renewed(widths, 'block', self.hidden, 1),
                      up=renewed(widths, 'up', self.up))

  @property
  def takes(self) -> Images:
    # The blocks reflect by 1, the 7x7 convolutions by 3.
    return Images(self.inputs, 2 ** len(self.up), max(2 * 2 ** len(self.up), 4))


class EncoderDecoder:
  """The convolutions around the blocks of `net`, which has stem, up and channels: 7x7 and strided
  ones before, transposed ones and 7x7 after."""

  def __init__(self, net, bias: bool, train: bool, axes: Axes):
    self.net, self.bias, self.train, self.axes = net, bias, train, axes
    self.conv = layers.layer_of(net, layers.Conv)

  def normed(self, x, name, phases=1):
    norm = layers.norm(self.net.norm, f'{name}_norm')
    return nn.relu(norm(x, self.train, self.axes, phases))

  def encode(self, x, after=None):
    """From the image to the stem's last width; after: what follows each strided convolution."""
    first, *widths = self.net.stem
    stem = self.conv(first, 7, mode='reflect', bias=self.bias, name='stem0')
    blocks = widths and blocks_tpu.fit(x, x.shape[1:3], first, x.shape[-1],
                                       self.net.implementation)
    x = self.normed(blocks_tpu.stem(stem, x), 'stem0', blocks_tpu.PIXELS) if blocks else \
        self.normed(stem(x), 'stem0')
    for i, width in enumerate(widths, 1):
      down = self.conv(width, stride=2, bias=self.bias, name=f'stem{i}')
      x = blocks_tpu.down(down, x) if i == 1 and blocks else down(x)
      x = self.normed(x, f'stem{i}')
      x = after(x, f'stem{i}') if after else x
    return x

  def decode(self, x, after=None):
    """From the blocks to the image; after: what follows each transposed convolution."""
    up = layers.layer_of(self.net, layers.UpConv, kernel=3, bias=self.bias)
    to_image = self.conv(self.net.channels, 7, mode='reflect', name='to_image')
    for i, width in enumerate(self.net.up):
      conv, name = up(width, name=f'up{i}'), f'up{i}'
      if i == len(self.net.up) - 1 and not after and \
          blocks_tpu.fit(x, [2 * side for side in x.shape[1:3]], width, self.net.channels,
                         self.net.implementation):
        x = self.normed(blocks_tpu.up(conv, x), name, blocks_tpu.PIXELS)
        return layers.to_tanh_float32(blocks_tpu.to_image(to_image, x))
      x = self.normed(conv(x), name)
      x = after(x, name) if after else x
    return layers.to_tanh_float32(to_image(x))


class ResidualBlock(nn.Module):
  """x + norm(conv(dropout(relu(norm(conv(x)))))), 3x3 convolutions, plain or separable.

  x: [B,h,w,C] -> the same shape; `hidden` channels between the two.
  """
  hidden: int
  norm: str
  bias: bool
  separable: bool
  padding: str
  dropout: float | None
  implementation: str
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x, train: bool, axes: Axes):
    conv = layers.layer_of(self, layers.SeparableConv, mode=self.padding) if self.separable else \
        layers.layer_of(self, layers.Conv, mode=self.padding, bias=self.bias)
    norm = functools.partial(layers.norm, self.norm)
    y = nn.relu(norm('norm1')(conv(self.hidden, name='conv1')(x), train, axes))
    y = nn.Dropout(self.dropout or 0.)(y, deterministic=not train)
    return x + norm('norm2')(conv(x.shape[-1], name='conv2')(y), train, axes)


def expanding(*blocks: str) -> tuple[str, ...]:
  """The layers inside expansion blocks, whose channels follow what enters these."""
  return tuple(f'{block}/conv{i}' for block in blocks for i in (1, 2, 3))


class ExpansionBlock(nn.Module):
  """x + a bottleneck turned inside out: 1x1 to 4C, 3x3, 1x1 to C, 3x3, a norm after each.

  The first 1x1 and its norm see the padded map, so statistics include the reflected border.
  x: [B,h,w,C] -> the same shape. Ren et al. 2021, OMGD.
  """
  norm: str
  bias: bool
  padding: str
  dropout: float | None
  implementation: str
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x, train: bool, axes: Axes):
    channels = x.shape[-1]
    conv = layers.layer_of(self, layers.Conv, padding=0, bias=self.bias)
    pad = functools.partial(layers.pad, amount=1, mode=self.padding,
                            implementation=self.implementation)

    def normed(y, name):
      return layers.norm(self.norm, name)(y, train, axes)

    y = conv(4 * channels, 1, name='conv1')(pad(x))
    y = conv(4 * channels, 3, name='conv2')(nn.relu(normed(y, 'norm1')))
    y = conv(channels, 1, name='conv3')(nn.relu(normed(y, 'norm2')))
    y = nn.Dropout(self.dropout or 0.)(nn.relu(normed(y, 'norm3')), deterministic=not train)
    return x + normed(conv(channels, 3, name='conv4')(pad(y)), 'norm4')
