"""Label maps to images: SPADE, its separable form and CAT's inception form."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from jaxgan_compress.core import Axes
from jaxgan_compress.core.arguments import typed
from jaxgan_compress.nn import layers
from jaxgan_compress.nn.generators.inceptions import Branches, InceptionBranches
from jaxgan_compress.nn.layers.inputs import ImageNetwork, Images
from jaxgan_compress.nn.prunable import Group, Plan, Widths, make_plan

# How many resolutions the label map is above the first convolution.
UPSAMPLING = {'normal': 5, 'more': 6, 'most': 7}
NORMS = ('batch', 'batch_stat', 'instance')


@dataclasses.dataclass(frozen=True)
class SPADEBlock:
  """Widths of one block: between its convolutions, at its end, and inside its modulations.

  shortcut: whether the way around the convolutions has a 1x1 convolution of its own.
  """
  middle: int
  out: int
  hidden: int = 128
  shortcut: bool = False


@dataclasses.dataclass(frozen=True)
class InceptionSPADEBlock:
  """One block: channels at its end, branches of the main path and of its modulation.

  Without main branches the block is its shortcut alone and the modulation is not there either.
  """
  out: int
  main: Branches = Branches()
  spade: Branches = Branches()


@typed
def spade(ngf: int = 64, upsampling: str = 'more', hidden: int = 128, **fields) -> SPADEGenerator:
  """The generator of SPADE, known as GauGAN (Park et al. 2019); fields as of the class."""
  blocks = tuple(SPADEBlock(min(into, out), out, hidden, into != out)
                 for into, out in _widths(16 * ngf, upsampling))
  return SPADEGenerator(16 * ngf, blocks, upsampling=upsampling, **fields)


@typed
def mobile_spade(ngf: int = 64, upsampling: str = 'more', hidden: int = 128,
                 **fields) -> SPADEGenerator:
  """GAN Compression's teacher: SPADE with separable modulations, without spectral norm."""
  return spade(ngf, upsampling, hidden, **{'separable': True, 'spectral': False, **fields})


@typed
def inception_spade(ngf: int = 64, upsampling: str = 'more', reduction: int = 6,
                    hidden: int = 128, **fields) -> InceptionSPADEGenerator:
  """CAT's teacher for label maps; fields as of the class."""
  def block(into, out):
    main = Branches.even(min(into, out) // reduction)
    return InceptionSPADEBlock(out, main, Branches.even(hidden // reduction if main else 0))

  blocks = tuple(block(*both) for both in _widths(16 * ngf, upsampling))
  return InceptionSPADEGenerator(16 * ngf, blocks, upsampling=upsampling, **fields)


class _LabelsToImage(ImageNetwork):
  """What both generators share: the way through all resolutions, and sizes of label maps."""
  input_kind = 'labels'

  @property
  def takes(self) -> Images:
    scale = 2 ** _doublings(self.upsampling)
    return Images(self.labels, scale, scale)

  @property
  def named_blocks(self) -> dict:
    """`blocks` by name, first to last."""
    names = block_names(self.upsampling)
    if len(self.blocks) != len(names):
      raise ValueError(f'{len(self.blocks)} blocks; upsampling={self.upsampling!r} has '
                       f'{len(names)}: {", ".join(names)}')
    return dict(zip(names, self.blocks, strict=True))

  def generate(self, labels, first, block):
    """first: what follows the first convolution; block: a function of (name, block, x)."""
    blocks, scale = self.named_blocks, self.takes.multiple
    self.takes.check(labels, 'this SPADE generator')
    conv = functools.partial(layers.Conv, dtype=self.dtype)
    x = layers.subsample(labels, labels.shape[1] // scale, labels.shape[2] // scale)
    x = first(conv(self.fc, name='fc')(x))
    taps = {'fc': x}
    for name, widths in blocks.items():
      if name != 'head' and (name != 'middle1' or self.upsampling != 'normal'):
        x = layers.upsample(x)
      x = taps[name] = block(name, widths, x)
    x = conv(self.channels, name='to_image')(layers.leaky_relu(x))
    return layers.to_tanh_float32(x), taps


class SPADEGenerator(_LabelsToImage):
  """A small label map, a convolution, then residual blocks modulated by the label map, doubling.

  labels: one-hot [B,H,W,labels], H and W multiples of 64 (`upsampling` 'more'; 'normal' 32, 'most'
  128) -> image [B,H,W,channels] in [-1, 1], and taps 'fc', 'head', 'middle0', 'middle1', 'up0' ..
  right after each block.

  fc: channels of the first convolution. blocks: a `SPADEBlock` each.
  norm: what modulation starts from, without parameters: 'batch' (over all replicas), 'batch_stat'
  (the same without running statistics) or 'instance'.
  spectral: spectral norm of the blocks' convolutions. separable: modulations by separable
  convolutions, with an instance norm inside where `separable_norm`. remat: as of the ResNet.

  Raises ValueError for other sizes. Park et al. 2019; Li et al. 2020, GAN Compression.
  """
  fc: int
  blocks: tuple[SPADEBlock, ...]
  labels: int = 36
  channels: int = 3
  upsampling: str = 'more'
  norm: str = 'batch'
  spectral: bool = True
  separable: bool = False
  separable_norm: bool = True
  remat: bool = False
  implementation: str = 'auto'
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, labels, train: bool = False, axes: Axes = Axes()):
    if self.norm not in NORMS:
      raise ValueError(f'norm={self.norm!r}; one of {", ".join(NORMS)}')
    modulated = layers.maybe_remat(ModulatedBlock, self.remat, 2)
    return self.generate(labels, lambda x: x, lambda name, block, x: modulated(
        block, self.norm, self.spectral, self.separable, self.separable_norm, self.implementation,
        self.dtype, name=name)(x, labels, train, axes))

  def plan(self) -> Plan:
    """Groups 'fc' (also what the first three blocks hand on), 'up0' ..; 'head/middle' .. between a
    block's convolutions; 'head/hidden' .. inside its modulations, which share their channels."""
    named = self.named_blocks
    stream = [name for name, block in named.items() if block.shortcut and name[:2] != 'up']
    return make_plan(self, {
        'fc': Group(self.fc, layers=('fc', *stream)),
        **{name: Group(block.out) for name, block in named.items() if name.startswith('up')},
        **{f'{name}/middle': Group(block.middle, layers=(f'{name}/conv0',))
           for name, block in named.items()},
        **{f'{name}/hidden': Group(block.hidden, layers=tuple(
            f'{name}/{norm}/shared' for norm in ('norm0', 'norm1', 'shortcut_norm')[
                :2 + block.shortcut])) for name, block in named.items()}})

  def with_widths(self, widths: Widths) -> SPADEGenerator:
    """The same network with other widths, `{group: channels}`."""
    fc = widths.get('fc', self.fc)
    return self.clone(fc=fc, blocks=tuple(dataclasses.replace(
        block, out=widths.get(name, block.out) if name.startswith('up') else fc,
        middle=widths.get(f'{name}/middle', block.middle),
        hidden=widths.get(f'{name}/hidden', block.hidden))
        for name, block in self.named_blocks.items()))


class ModulatedBlock(nn.Module):
  """shortcut(x) + conv(act(SPADE(conv(act(SPADE(x)))))), act a leaky ReLU of slope 0.2.

  x: [B,h,w,C], labels: [B,H,W,L] -> [B,h,w,block.out]. The shortcut is x, or a modulation and a
  1x1 convolution without bias.
  """
  block: SPADEBlock
  norm: str
  spectral: bool
  separable: bool
  separable_norm: bool
  implementation: str
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x, labels, train: bool, axes: Axes):
    out = self.block.out
    if not self.block.shortcut and out != x.shape[-1]:
      raise ValueError(f'a block from {x.shape[-1]} to {out} channels needs a shortcut')
    conv = layers.layer_of(self, layers.Conv, spectral=self.spectral)

    def modulated(x, name, **more):
      return Modulation(self.block.hidden, self.norm, self.separable, self.separable_norm,
                        self.implementation, self.dtype, name=name, **more)(x, labels, train, axes)

    y = conv(self.block.middle, name='conv0')(modulated(x, 'norm0', slope=0.2), train)
    y = conv(out, name='conv1')(modulated(y, 'norm1', slope=0.2), train)
    if self.block.shortcut:
      x = conv(out, 1, bias=False, name='shortcut')(modulated(x, 'shortcut_norm'), train)
    return x + y


class Modulation(nn.Module):
  """SPADE: normalised x * (1 + gamma) + beta, both made of the label map by convolutions.

  x: [B,h,w,C], labels: [B,H,W,L] -> [B,h,w,C]. slope: of a leaky ReLU after it, 1 for none. Park
  et al. 2019.
  """
  hidden: int
  norm: str
  separable: bool
  separable_norm: bool
  implementation: str
  dtype: jnp.dtype
  slope: float = 1.

  @nn.compact
  def __call__(self, x, labels, train: bool, axes: Axes):
    free = layers.InstanceNorm() if self.norm == 'instance' else layers.BatchNorm(
        track=self.norm == 'batch', affine=False, name='norm')
    conv = layers.layer_of(self, layers.Conv)
    labels = layers.subsample(labels, *x.shape[1:3])
    hidden = nn.relu(conv(self.hidden, name='shared')(labels))
    if self.separable:
      conv = layers.layer_of(self, layers.SeparableConv, norm=self.separable_norm)
    both: list[Any] = [conv(x.shape[-1], name=name) for name in ('gamma', 'beta')]
    merged = not self.separable and layers.merges(hidden, self.implementation)
    gamma, beta = layers.convolve_together(both, hidden) if merged else (
        conv(hidden) for conv in both)
    y = free(x, train, axes) * (1 + gamma) + beta
    return y if self.slope == 1 else layers.leaky_relu(y, self.slope)


class InceptionSPADEGenerator(_LabelsToImage):
  """CAT's generator for label maps: one modulation a block, inception branches everywhere.

  labels: one-hot [B,H,W,labels], sizes and taps as `SPADEGenerator` -> image and taps.

  fc: channels of the first convolution, whose norm has no activation. blocks: an
    `InceptionSPADEBlock` each; where the width changes, the shortcut is a norm and a 1x1
    convolution.
  slope: of the leaky ReLU in the main branches: CAT trained its teacher with 0.01 and its students
    with 0, ReLU. remat: as of the ResNet.
  spectral: spectral norm of the convolutions in main branches and shortcuts, which no published run
    has.

  Raises ValueError for other sizes. Jin et al. 2021, CAT.
  """
  fc: int
  blocks: tuple[InceptionSPADEBlock, ...]
  labels: int = 36
  channels: int = 3
  upsampling: str = 'more'
  slope: float = 0.
  remat: bool = False
  implementation: str = 'auto'
  dtype: jnp.dtype = jnp.float32
  spectral: bool = False

  @nn.compact
  def __call__(self, labels, train: bool = False, axes: Axes = Axes()):
    first = layers.BatchNorm(name='fc_norm')
    modulated = layers.maybe_remat(InceptionModulatedBlock, self.remat, 2)
    return self.generate(labels, lambda x: first(x, train, axes), lambda name, block, x: modulated(
        block, self.slope, self.implementation, self.dtype, self.spectral, name=name)(
            x, labels, train, axes))

  def plan(self) -> Plan:
    """Groups 'fc' (also what the first three blocks hand on), 'up0' .., which follow it by halves,
    and 'head/main/dense3', 'head/spade/dense3' ..; without main branches a block is its shortcut,
    and its modulation goes with them."""
    ups = {name: block for name, block in self.named_blocks.items() if name.startswith('up')}
    groups = {'fc': Group(self.fc, 'fc_norm', step=2 ** len(ups))}
    groups |= {name: Group(block.out, follows=('fc', 2 ** i))
               for i, (name, block) in enumerate(ups.items(), 1)}
    parts = {}
    for name, block in self.named_blocks.items():
      main, main_parts = block.main.groups(f'{name}/main/')
      spade, spade_parts = block.spade.groups(f'{name}/spade/')
      groups |= main | spade
      parts |= {**main_parts, **spade_parts, f'{name}/norm/': tuple(main),
                f'{name}/spade/': tuple(main)}
    return make_plan(self, groups, parts)

  def with_widths(self, widths: Widths) -> InceptionSPADEGenerator:
    """The same network with other widths, `{group: channels}`; a branch of width 0 is gone."""
    fc = widths.get('fc', self.fc)

    def renew(name, block):
      main = block.main.with_widths(widths, f'{name}/main/')
      return InceptionSPADEBlock(
          widths.get(name, block.out) if name.startswith('up') else fc, main,
          block.spade.with_widths(widths, f'{name}/spade/') if main else Branches())

    return self.clone(fc=fc, blocks=tuple(
        renew(name, block) for name, block in self.named_blocks.items()))


class InceptionModulatedBlock(nn.Module):
  """shortcut(x) + branches(act(x normalised * (1 + gamma) + beta)); Jin et al. 2021.

  x: [B,h,w,C], labels: [B,H,W,L] -> [B,h,w,block.out]. The modulation's own branches end in 2C
  channels, gamma first; without any, gamma and beta are 0.
  """
  block: InceptionSPADEBlock
  slope: float
  implementation: str
  dtype: jnp.dtype
  spectral: bool = False

  @nn.compact
  def __call__(self, x, labels, train: bool, axes: Axes):
    channels, out = x.shape[-1], self.block.out
    branches = layers.layer_of(self, InceptionBranches)
    y = None
    if self.block.main:
      y = layers.BatchNorm(affine=False, name='norm')(x, train, axes)
      if self.block.spade:
        both = branches(self.block.spade, 2 * channels, 'batch', 'batch', name='spade')(
            layers.subsample(labels, *x.shape[1:3]), train, axes)
        y = y * (1 + both[..., :channels]) + both[..., channels:]
      y = layers.leaky_relu(y, self.slope)
      y = branches(self.block.main, out, 'batch', 'batch_fixed', slope=self.slope,
                   spectral=self.spectral, name='main')(y, train, axes)
    if out != channels:
      x = layers.BatchNorm(name='shortcut_norm')(x, train, axes)
      x = layers.Conv(out, 1, bias=False, spectral=self.spectral, dtype=self.dtype,
                      name='shortcut')(x, train)
    return x if y is None else x + y


def _doublings(upsampling):
  if upsampling not in UPSAMPLING:
    raise ValueError(f'upsampling={upsampling!r}; one of {", ".join(UPSAMPLING)}')
  return UPSAMPLING[upsampling]


def block_names(upsampling: str) -> tuple[str, ...]:
  """The blocks' names, first to last. Raises ValueError for another upsampling."""
  ups = max(4, _doublings(upsampling) - 2)
  return ('head', 'middle0', 'middle1', *(f'up{i}' for i in range(ups)))


def _widths(first, upsampling):
  """(channels that enter it, channels that leave it) for each block."""
  ups = len(block_names(upsampling)) - 3
  widths = (first,) * 4 + tuple(first // 2 ** i for i in range(1, ups + 1))
  return itertools.pairwise(widths)
