"""Residual image-to-image generators: of CycleGAN, separable, and OMGD's deeper teacher."""

from __future__ import annotations

import functools

import jax.numpy as jnp
from flax import linen as nn

from jaxgan_compress.core import Axes
from jaxgan_compress.core.arguments import typed
from jaxgan_compress.nn.layers.conv import (
  Conv,
  SeparableConv,
  UpConv,
  check_images,
  pad,
  remembering,
  to_range,
)
from jaxgan_compress.nn.layers.norms import conv_bias, norm
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


class ResNetGenerator(nn.Module):
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
  remat: blocks remember their inputs alone and compute the rest again for the gradient: less
    memory, up to a third more time. Of no use on CPUs, where XLA merges both.
  form: of the replaceable operations, see `nn.layers.conv_dispatch`. dtype: of the computation.

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
  form: str = 'auto'
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, train: bool = False, axes: Axes = Axes()):
    if len(self.stem) != len(self.up) + 1:
      raise ValueError(f'{len(self.stem)} stem and {len(self.up)} up widths; the stem has one more')
    check_images(x, self.inputs, 2 ** len(self.up), self.least, 'this ResNet')
    bias = conv_bias(self.norm, self.bias)
    conv = functools.partial(Conv, form=self.form, dtype=self.dtype)

    def normed(x, name):
      return nn.relu(norm(self.norm, f'{name}_norm')(x, train, axes))

    def expand(x, name):
      block = remembering(ExpansionBlock, self.remat)
      return block(self.norm, bias, self.padding, self.dropout, self.form, self.dtype,
                   name=name)(x, train, axes)

    def deepen(x, name):
      x = expand(x, f'{name}_expand')
      return normed(conv(x.shape[-1], bias=bias, name=f'{name}_mix')(x), f'{name}_mix')

    x = jnp.clip(x, -1, 1) if self.clamp else x
    x = normed(conv(self.stem[0], 7, mode='reflect', bias=bias, name='stem0')(x), 'stem0')
    for i, width in enumerate(self.stem[1:], 1):
      x = normed(conv(width, stride=2, bias=bias, name=f'stem{i}')(x), f'stem{i}')
      x = deepen(x, f'stem{i}') if self.deeper else x
    taps = {'stem': x}
    for i, width in enumerate(self.hidden, 1):
      if self.deeper and i == len(self.hidden) // 2 + 1:
        x = expand(expand(x, 'expand1'), 'expand2')
      x = taps[f'block{i}'] = remembering(ResidualBlock, self.remat)(
          width, self.norm, bias, self.separable, self.padding, self.dropout, self.form,
          self.dtype, name=f'block{i}')(x, train, axes)
    for i, width in enumerate(self.up):
      x = UpConv(width, 3, bias, self.form, self.dtype, name=f'up{i}')(x)
      x = normed(x, f'up{i}')
      x = deepen(x, f'up{i}') if self.deeper else x
    x = conv(self.channels, 7, mode='reflect', name='to_image')(x)
    return to_range(x), taps

  def plan(self) -> Plan:
    """Groups 'stem0' .. (the last is the residual stream), 'block1' .. (hidden), 'up0' .."""
    group = functools.partial(Group.voting, self.norm)
    return make_plan(self, {
        **{f'stem{i}': group(n, f'stem{i}_norm') for i, n in enumerate(self.stem)},
        **{f'block{i}': group(n, f'block{i}/norm1') for i, n in enumerate(self.hidden, 1)},
        **{f'up{i}': group(n, f'up{i}_norm') for i, n in enumerate(self.up)}})

  def with_widths(self, widths: Widths) -> ResNetGenerator:
    """The same network with other widths, `{group: channels}`."""
    return self.clone(stem=renewed(widths, 'stem', self.stem),
                      hidden=renewed(widths, 'block', self.hidden, 1),
                      up=renewed(widths, 'up', self.up))

  @property
  def least(self) -> int:
    """Pixels of the smallest side: the blocks reflect by 1, the 7x7 convolutions by 3."""
    return max(2 * 2 ** len(self.up), 4)

  def example(self):
    """An input of batch 1, for counting and initialising."""
    return jnp.zeros((1, self.least, self.least, self.inputs))


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
  form: str
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x, train: bool, axes: Axes):
    def conv(x, features, name):
      if self.separable:
        return SeparableConv(features, mode=self.padding, form=self.form, dtype=self.dtype,
                             name=name)(x)
      return Conv(features, mode=self.padding, bias=self.bias, form=self.form,
                  dtype=self.dtype, name=name)(x)

    y = norm(self.norm, 'norm1')(conv(x, self.hidden, 'conv1'), train, axes)
    y = nn.Dropout(self.dropout or 0.)(nn.relu(y), deterministic=not train)
    return x + norm(self.norm, 'norm2')(conv(y, x.shape[-1], 'conv2'), train, axes)


class ExpansionBlock(nn.Module):
  """x + a bottleneck turned inside out: 1x1 to 4C, 3x3, 1x1 to C, 3x3, a norm after each.

  The first 1x1 and its norm see the padded map, so statistics include the reflected border.
  x: [B,h,w,C] -> the same shape. Ren et al. 2021, OMGD.
  """
  norm: str
  bias: bool
  padding: str
  dropout: float | None
  form: str
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x, train: bool, axes: Axes):
    channels = x.shape[-1]
    conv = functools.partial(Conv, padding=0, bias=self.bias, form=self.form, dtype=self.dtype)

    def normed(y, name):
      return norm(self.norm, name)(y, train, axes)

    y = conv(4 * channels, 1, name='conv1')(pad(x, 1, self.padding, self.form))
    y = conv(4 * channels, 3, name='conv2')(nn.relu(normed(y, 'norm1')))
    y = conv(channels, 1, name='conv3')(nn.relu(normed(y, 'norm2')))
    y = nn.Dropout(self.dropout or 0.)(nn.relu(normed(y, 'norm3')), deterministic=not train)
    y = conv(channels, 3, name='conv4')(pad(y, 1, self.padding, self.form))
    return x + normed(y, 'norm4')
