"""The U-Net of pix2pix and OMGD's deeper one."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from jaxgan_compress.core import Axes
from jaxgan_compress.core.arguments import typed
from jaxgan_compress.nn import layers
from jaxgan_compress.nn.generators.resnets import ExpansionBlock, expanding
from jaxgan_compress.nn.layers.inputs import ImageNetwork, Images
from jaxgan_compress.nn.prunable import Group, Plan, Widths, make_plan, renewed


@typed
def unet(ngf: int = 64, depth: int = 8, **fields) -> UNetGenerator:
  """The generator of pix2pix (Isola et al. 2017): n, 2n, 4n, 8n, 8n, ... channels on the way down.

  depth 8 for 256 px, 7 for 128; fields as of the class.
  """
  down = tuple(min(2 ** i, 8) * ngf for i in range(depth))
  return UNetGenerator(down=down, up=down[:-1], **fields)


@typed
def unet_deepest(ngf: int = 16, depth: int = 8, **fields) -> UNetGenerator:
  """The deeper teacher of OMGD: two expansion blocks after every step but the innermost."""
  return unet(ngf, depth, deeper=True, **fields)


class UNetGenerator(ImageNetwork):
  """Strided convolutions down to a few pixels, transposed ones back, each level's input joined.

  x: [B,H,W,inputs] in [-1, 1], H and W multiples of 2^depth -> image [B,H,W,channels] in [-1, 1],
  and taps 'down1' .. (what enters a level, after its leaky ReLU) and 'up0' .. (what its transposed
  convolution sees, after ReLU, skipped channels first).

  down: channels of the strided convolutions, level 0 outermost; the depth is their number.
  up: of the transposed convolutions of levels 1, 2, ...; level 0 makes the image.
  deeper: two expansion blocks after every step down and up, except at the innermost level.
  dropout: rate on the way up, from level 4 on, except at the innermost.
  bias: whether convolutions before a norm have one; None: as published, with instance norm only.
  implementation: of the replaceable operations, see `nn.layers.conv_dispatch`.
  dtype: of the computation.

  What skips a level is its input *after* the leaky ReLU, as published code has it, where that
  ReLU works in place; the deeper net shows the difference.

  Raises ValueError for other sizes. Isola et al. 2017; Ren et al. 2021, OMGD.
  """
  down: tuple[int, ...] = (64, 128, 256, 512, 512, 512, 512, 512)
  up: tuple[int, ...] = (64, 128, 256, 512, 512, 512, 512)
  inputs: int = 3
  channels: int = 3
  norm: str = 'batch'
  deeper: bool = False
  dropout: float = 0.
  bias: bool | None = None
  implementation: str = 'auto'
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, train: bool = False, axes: Axes = Axes()):
    depth, bias = len(self.down), layers.conv_bias(self.norm, self.bias)
    if depth < 2 or len(self.up) != depth - 1:
      raise ValueError(f'{depth} down and {len(self.up)} up widths; at least 2 down and one fewer '
                       'up')
    self.takes.check(x, f'this U-Net of depth {depth}')
    up = layers.layer_of(self, layers.UpConv)
    taps = {}

    def normed(x, name):
      return layers.norm(self.norm, f'{name}_norm')(x, train, axes)

    def deepen(x, name):
      for i in (1, 2) if self.deeper else ():
        x = ExpansionBlock(self.norm, bias, 'reflect', self.dropout, self.implementation,
                           self.dtype, name=f'{name}_expand{i}')(x, train, axes)
      return x

    def level(i, x):
      if i:
        x = taps[f'down{i}'] = layers.leaky_relu(x)
      y = layers.Conv(self.down[i], 4, 2, padding=1, bias=bias, dtype=self.dtype,
                      name=f'down{i}')(x)
      if i < depth - 1:
        y = normed(y, f'down{i}') if i else y  # neither end of the way down has a norm
        y = level(i + 1, deepen(y, f'down{i}'))
      if not i:
        y = taps['up0'] = nn.relu(deepen(y, 'up0'))
        return up(self.channels, name='up0')(y)
      y = taps[f'up{i}'] = nn.relu(y)
      y = normed(up(self.up[i - 1], bias=bias, name=f'up{i}')(y), f'up{i}')
      if i < depth - 1:
        y = deepen(y, f'up{i}')
        y = nn.Dropout(self.dropout if i > 3 else 0.)(y, deterministic=not train)
      return jnp.concatenate([x, y], -1)

    return layers.to_tanh_float32(level(0, x)), taps

  def plan(self) -> Plan:
    """Groups 'down0' .. and 'up1' .., the channels that leave each convolution."""
    last = len(self.down) - 1

    def group(side, i, n):
      name = f'{side}{i}'
      # What skips level 1 and what comes up through it are expanded together.
      expanded = [name] * (i < last) + ['up0'] * (name in ('down0', 'up1'))
      blocks = [f'{each}_expand{k}' for each in expanded if self.deeper for k in (1, 2)]
      return {name: Group(n, f'{name}_norm', layers=(name, *expanding(*blocks)))}

    groups = {}
    for i, n in enumerate(self.down):
      groups |= group('down', i, n)
    for i, n in enumerate(self.up, 1):
      groups |= group('up', i, n)
    return make_plan(self, groups)

  def with_widths(self, widths: Widths) -> UNetGenerator:
    """The same network with other widths, `{group: channels}`."""
    return self.clone(down=renewed(widths, 'down', self.down),
                      up=renewed(widths, 'up', self.up, 1))

  @property
  def takes(self) -> Images:
    return Images(self.inputs, 2 ** len(self.down))
