"""Label maps to images: SPADE, its separable form and CAT's inception form."""

from __future__ import annotations

import dataclasses
import functools

import jax.numpy as jnp
from flax import linen as nn

from jaxgan_compress.core import Axes
from jaxgan_compress.core.arguments import typed
from jaxgan_compress.nn.generators.inception import Branches, InceptionBranches
from jaxgan_compress.nn.layers import conv_dispatch
from jaxgan_compress.nn.layers.conv import (
  Conv,
  SeparableConv,
  check_images,
  convolve,
  leaky_relu,
  remembering,
  subsample,
  to_range,
  upsample,
)
from jaxgan_compress.nn.layers.norms import BatchNorm, InstanceNorm
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
  widths = _widths(16 * ngf, upsampling)
  blocks = tuple(SPADEBlock(min(into, out), out, hidden, into != out)
                 for into, out in zip((16 * ngf, *widths), widths, strict=False))
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
  widths = _widths(16 * ngf, upsampling)

  def block(into, out):
    main = Branches.even(min(into, out) // reduction)
    return InceptionSPADEBlock(out, main, Branches.even(hidden // reduction if main else 0))

  blocks = tuple(map(block, (16 * ngf, *widths), widths))
  return InceptionSPADEGenerator(16 * ngf, blocks, upsampling=upsampling, **fields)


class SPADEGenerator(nn.Module):
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
  form: str = 'auto'
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, labels, train: bool = False, axes: Axes = Axes()):
    if self.norm not in NORMS:
      raise ValueError(f'norm={self.norm!r}; one of {", ".join(NORMS)}')
    modulated = remembering(ModulatedBlock, self.remat, 2)
    return _draw(self, labels, lambda x: x, lambda name, block, x: modulated(
        block, self.norm, self.spectral, self.separable, self.separable_norm, self.form,
        self.dtype, name=name)(x, labels, train, axes))

  def plan(self) -> Plan:
    """Groups 'fc' (also what the first three blocks hand on), 'up0' ..; 'head/middle' .. between a
    block's convolutions; 'head/hidden' .. inside its modulations, which share their channels."""
    named = dict(zip(block_names(self.upsampling), self.blocks, strict=True))
    return make_plan(self, {
        'fc': Group(self.fc),
        **{name: Group(block.out) for name, block in named.items() if name.startswith('up')},
        **{f'{name}/middle': Group(block.middle) for name, block in named.items()},
        **{f'{name}/hidden': Group(block.hidden) for name, block in named.items()}})

  def with_widths(self, widths: Widths) -> SPADEGenerator:
    """The same network with other widths, `{group: channels}`."""
    fc = widths.get('fc', self.fc)
    return self.clone(fc=fc, blocks=tuple(dataclasses.replace(
        block, out=widths.get(name, block.out) if name.startswith('up') else fc,
        middle=widths.get(f'{name}/middle', block.middle),
        hidden=widths.get(f'{name}/hidden', block.hidden))
        for name, block in zip(block_names(self.upsampling), self.blocks, strict=True)))

  def example(self):
    """An input of batch 1, for counting and initialising."""
    side = 2 ** UPSAMPLING[self.upsampling]
    return jnp.zeros((1, side, side, self.labels))


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
  form: str
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x, labels, train: bool, axes: Axes):
    out = self.block.out
    if not self.block.shortcut and out != x.shape[-1]:
      raise ValueError(f'a block from {x.shape[-1]} to {out} channels needs a shortcut')
    conv = functools.partial(Conv, spectral=self.spectral, form=self.form, dtype=self.dtype)

    def modulated(x, name, **more):
      return Modulation(self.block.hidden, self.norm, self.separable, self.separable_norm,
                        self.form, self.dtype, name=name, **more)(x, labels, train, axes)

    y = conv(self.block.middle, name='conv0')(modulated(x, 'norm0', slope=0.2), train)
    y = conv(out, name='conv1')(modulated(y, 'norm1', slope=0.2), train)
    if self.block.shortcut:
      x = conv(out, 1, bias=False, name='shortcut')(modulated(x, 'shortcut_norm'), train)
    return x + y


class Modulation(nn.Module):
  """SPADE: normalised x * (1 + gamma) + beta, both drawn from the label map by convolutions.

  x: [B,h,w,C], labels: [B,H,W,L] -> [B,h,w,C]. slope: of a leaky ReLU after it, 1 for none. Park
  et al. 2019.
  """
  hidden: int
  norm: str
  separable: bool
  separable_norm: bool
  form: str
  dtype: jnp.dtype
  slope: float = 1.

  @nn.compact
  def __call__(self, x, labels, train: bool, axes: Axes):
    free = InstanceNorm() if self.norm == 'instance' else BatchNorm(
        track=self.norm == 'batch', affine=False, name='norm')
    seen = subsample(labels, *x.shape[1:3])
    conv = functools.partial(Conv, form=self.form, dtype=self.dtype)
    seen = nn.relu(conv(self.hidden, name='shared')(seen))
    if self.separable:
      conv = functools.partial(SeparableConv, norm=self.separable_norm, form=self.form,
                               dtype=self.dtype)
    both = [conv(x.shape[-1], name=name) for name in ('gamma', 'beta')]
    if not self.separable and conv_dispatch.choose('branches', self.form) == 'merged':
      kernels, biases = zip(*(each.weights(self.hidden) for each in both), strict=True)
      gamma, beta = jnp.split(convolve(seen, jnp.concatenate(kernels, -1), jnp.concatenate(biases),
                                       amount=1, form=self.form), 2, -1)
    else:
      gamma, beta = (each(seen) for each in both)
    y = free(x, train, axes) * (1 + gamma) + beta
    return y if self.slope == 1 else leaky_relu(y, self.slope)


class InceptionSPADEGenerator(nn.Module):
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
  form: str = 'auto'
  dtype: jnp.dtype = jnp.float32
  spectral: bool = False

  @nn.compact
  def __call__(self, labels, train: bool = False, axes: Axes = Axes()):
    first = BatchNorm(name='fc_norm')
    modulated = remembering(InceptionModulatedBlock, self.remat, 2)
    return _draw(self, labels, lambda x: first(x, train, axes),
                 lambda name, block, x: modulated(
                     block, self.slope, self.form, self.dtype, self.spectral, name=name)(
                         x, labels, train, axes))

  def plan(self) -> Plan:
    """Groups 'fc' (also what the first three blocks hand on), 'up0' .., which follow it by halves,
    and 'head/main/dense3', 'head/spade/dense3' ..; without main branches a block is its shortcut,
    and its modulation goes with them."""
    ups = [name for name in block_names(self.upsampling) if name.startswith('up')]
    groups = {'fc': Group(self.fc, 'fc_norm', step=2 ** len(ups))}
    parts = {}
    for name, block in zip(block_names(self.upsampling), self.blocks, strict=True):
      if name in ups:
        groups[name] = Group(block.out, follows=('fc', 2 ** (ups.index(name) + 1)))
    for name, block in zip(block_names(self.upsampling), self.blocks, strict=True):
      main, own = block.main.groups('batch', f'{name}/main/')
      spade, theirs = block.spade.groups('batch', f'{name}/spade/')
      groups |= {**main, **spade}
      parts |= {**own, **theirs, f'{name}/norm/': tuple(main), f'{name}/spade/': tuple(main)}
    return make_plan(self, groups, parts)

  def with_widths(self, widths: Widths) -> InceptionSPADEGenerator:
    """The same network with other widths, `{group: channels}`; a branch of width 0 is gone."""
    fc = widths.get('fc', self.fc)

    def renew(name, block):
      main = block.main.with_widths(widths, f'{name}/main/')
      return InceptionSPADEBlock(
          widths.get(name, block.out) if name.startswith('up') else fc, main,
          block.spade.with_widths(widths, f'{name}/spade/') if main else Branches())

    return self.clone(fc=fc, blocks=tuple(map(renew, block_names(self.upsampling), self.blocks)))

  def example(self):
    """An input of batch 1, for counting and initialising."""
    side = 2 ** UPSAMPLING[self.upsampling]
    return jnp.zeros((1, side, side, self.labels))


class InceptionModulatedBlock(nn.Module):
  """shortcut(x) + branches(act(x normalised * (1 + gamma) + beta)); Jin et al. 2021.

  x: [B,h,w,C], labels: [B,H,W,L] -> [B,h,w,block.out]. The modulation's own branches end in 2C
  channels, gamma first; without any, gamma and beta are 0.
  """
  block: InceptionSPADEBlock
  slope: float
  form: str
  dtype: jnp.dtype
  spectral: bool = False

  @nn.compact
  def __call__(self, x, labels, train: bool, axes: Axes):
    channels, out = x.shape[-1], self.block.out
    branches = functools.partial(InceptionBranches, form=self.form, dtype=self.dtype)
    if self.block.main:
      y = BatchNorm(affine=False, name='norm')(x, train, axes)
      if self.block.spade:
        seen = subsample(labels, *x.shape[1:3])
        seen = branches(self.block.spade, 2 * channels, 'batch', 'batch',
                        name='spade')(seen, train, axes)
        y = y * (1 + seen[..., :channels]) + seen[..., channels:]
      y = branches(self.block.main, out, 'batch', 'batch_fixed', slope=self.slope,
                   spectral=self.spectral, name='main')(leaky_relu(y, self.slope), train, axes)
    if out != channels:
      x = BatchNorm(name='shortcut_norm')(x, train, axes)
      x = Conv(out, 1, bias=False, spectral=self.spectral, dtype=self.dtype,
               name='shortcut')(x, train)
    return x + y if self.block.main else x


def block_names(upsampling: str) -> tuple[str, ...]:
  """The blocks' names, first to last."""
  ups = 5 if upsampling == 'most' else 4
  return ('head', 'middle0', 'middle1', *(f'up{i}' for i in range(ups)))


def _draw(net, labels, first, block):
  """The walk that both generators share: `block(name, widths, x)` at every resolution."""
  if net.upsampling not in UPSAMPLING:
    raise ValueError(f'upsampling={net.upsampling!r}; one of {", ".join(UPSAMPLING)}')
  names = block_names(net.upsampling)
  if len(net.blocks) != len(names):
    raise ValueError(f'{len(net.blocks)} blocks; upsampling={net.upsampling!r} has {len(names)}: '
                     f'{", ".join(names)}')
  scale = 2 ** UPSAMPLING[net.upsampling]
  check_images(labels, net.labels, scale, scale, 'this SPADE generator')
  conv = functools.partial(Conv, dtype=net.dtype)
  x = subsample(labels, labels.shape[1] // scale, labels.shape[2] // scale)
  x = first(conv(net.fc, name='fc')(x))
  taps = {'fc': x}
  for name, widths in zip(names, net.blocks, strict=True):
    if name != 'head' and (name != 'middle1' or net.upsampling != 'normal'):
      x = upsample(x)
    x = taps[name] = block(name, widths, x)
  x = conv(net.channels, name='to_image')(leaky_relu(x))
  return to_range(x), taps


def _widths(first, upsampling):
  if upsampling not in UPSAMPLING:
    raise ValueError(f'upsampling={upsampling!r}; one of {", ".join(UPSAMPLING)}')
  ups = len(block_names(upsampling)) - 3
  return (first,) * 3 + tuple(first // 2 ** i for i in range(1, ups + 1))
