"""CAT's inception generator: residual blocks of dense and separable branches, of any widths."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from jaxgan_compress.core import Axes
from jaxgan_compress.core.arguments import typed
from jaxgan_compress.nn import layers
from jaxgan_compress.nn.generators.resnets import EncoderDecoder
from jaxgan_compress.nn.layers.inputs import ImageNetwork, Images
from jaxgan_compress.nn.prunable import Group, Plan, Widths, make_plan, renewed

KERNELS = (1, 3, 5)
SIDES = ('dense', 'depthwise')


@dataclasses.dataclass(frozen=True)
class Branches:
  """The branches of one block, as (kernel size, hidden channels) each; a removed one is not there.

  `Branches(dense=((1, 8), (3, 13)), depthwise=((5, 4),))`; `Branches()` is an empty block.

  Raises ValueError for a kernel size given twice or a width below 1.
  """
  dense: tuple[tuple[int, int], ...] = ()
  depthwise: tuple[tuple[int, int], ...] = ()

  def __post_init__(self):
    for kind in SIDES:
      branches = tuple((int(k), int(width)) for k, width in getattr(self, kind))
      object.__setattr__(self, kind, branches)
      if len(dict(branches)) < len(branches) or any(
          k % 2 == 0 or width < 1 for k, width in branches):
        raise ValueError(f'{kind} branches {branches}; one (kernel, width) for each odd kernel '
                         'size, width from 1 (leave a removed branch out)')

  @classmethod
  def even(cls, width: int, kernels=KERNELS) -> Branches:
    """Every kernel size, dense and depthwise, all of one width; with width 0 none."""
    every = tuple((k, width) for k in kernels if width)
    return cls(every, every)

  def __bool__(self):
    return bool(self.dense or self.depthwise)

  def groups(self, within: str):
    """({group: Group}, {what dies with it: (group,)}) for branches at the path `within`."""
    named = {f'{within}{side}{k}': n for side in SIDES for k, n in getattr(self, side)}
    return ({name: Group(n, f'{name}_norm', least=0, layers=(f'{name}_in',))
             for name, n in named.items()},
            {f'{name}_': (name,) for name in named})

  def with_widths(self, widths: Widths, within: str) -> Branches:
    """The branches with other widths; those of width 0 are gone."""
    return Branches(*(
        tuple((k, width) for k, n in getattr(self, side)
              if (width := widths.get(f'{within}{side}{k}', n))) for side in SIDES))


@typed
def inception(ngf: int = 64, blocks: int = 9, reduction: int = 6, **fields) -> InceptionGenerator:
  """CAT's teacher: six branches a block, each with (4 ngf) // reduction hidden channels."""
  return InceptionGenerator(
      stem=(ngf, 2 * ngf, 4 * ngf), blocks=(Branches.even(4 * ngf // reduction),) * blocks,
      up=(2 * ngf, ngf), **fields)


class InceptionGenerator(ImageNetwork):
  """The ResNet generator with inception blocks: the search space of CAT, and its students.

  x: [B,H,W,inputs] in [-1, 1], H and W multiples of 4 from 12 (16 with 7x7 kernels) -> image
  [B,H,W,channels] in [-1, 1], and taps 'stem' (after the last strided convolution), 'block1' ..
  'block9'.

  stem, up: channels of the convolutions before and the transposed ones after the blocks; the
    residual stream is as wide as the stem's last. blocks: `Branches` of each; an empty one is the
    identity.
  norm: 'instance_affine' (horse2zebra), 'batch' (paired tasks), 'batch_stat' (zebra2horse).
  padding: in blocks 'reflect', 'replicate' or 'zero'. dropout: rate inside the branches.
  bias: whether convolutions before a norm have one; None: as published, with instance norm only.
  slope: of the leaky ReLU in the blocks, 0 for ReLU. remat: as of the ResNet.
  implementation: of the replaceable operations, see `nn.layers.conv_dispatch`.
  dtype: of the computation.

  Raises ValueError for other sizes. Jin et al. 2021, CAT.
  """
  stem: tuple[int, int, int] = (64, 128, 256)
  blocks: tuple[Branches, ...] = (Branches.even(42),) * 9
  up: tuple[int, int] = (128, 64)
  inputs: int = 3
  channels: int = 3
  norm: str = 'instance_affine'
  padding: str = 'reflect'
  dropout: float = 0.
  slope: float = 0.
  bias: bool | None = None
  remat: bool = False
  implementation: str = 'auto'
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, train: bool = False, axes: Axes = Axes()):
    self.takes.check(x, 'this inception generator')
    bias = layers.conv_bias(self.norm, self.bias)
    coder = EncoderDecoder(self, bias, train, axes)
    x = coder.encode(x)
    taps = {'stem': x}
    for i, branches in enumerate(self.blocks, 1):
      if branches:
        y = layers.maybe_remat(InceptionBranches, self.remat)(
            branches, x.shape[-1], self.norm, self.norm, self.padding, bias, self.slope,
            self.dropout, self.implementation, self.dtype, name=f'block{i}')(x, train, axes)
        x = x + layers.norm(self.norm, f'block{i}_norm')(y, train, axes)
      taps[f'block{i}'] = x
    return coder.decode(x), taps

  def plan(self) -> Plan:
    """Groups 'stem0' .. (the last is the residual stream), 'block1/dense3' .., 'up0' ..; every
    branch may vanish, and with its branches a block."""
    groups = {f'stem{i}': Group(n, f'stem{i}_norm') for i, n in enumerate(self.stem)}
    parts = {}
    for i, branches in enumerate(self.blocks, 1):
      inside, owns = branches.groups(f'block{i}/')
      groups |= inside
      parts |= {**owns, f'block{i}_norm/': tuple(inside)}
    groups |= {f'up{i}': Group(n, f'up{i}_norm') for i, n in enumerate(self.up)}
    return make_plan(self, groups, parts)

  def with_widths(self, widths: Widths) -> InceptionGenerator:
    """The same network with other widths, `{group: channels}`; a branch of width 0 is gone."""
    return self.clone(stem=renewed(widths, 'stem', self.stem), up=renewed(widths, 'up', self.up),
                      blocks=tuple(branches.with_widths(widths, f'block{i}/')
                                   for i, branches in enumerate(self.blocks, 1)))

  @property
  def takes(self) -> Images:
    # Blocks reflect a quarter of a side by half their largest kernel.
    kernels = [k for block in self.blocks for k, _ in block.dense + block.depthwise]
    reflected = max(kernels, default=1) // 2 if self.padding == 'reflect' else 0
    return Images(self.inputs, 4, 4 * max(3, reflected + 1))


class InceptionBranches(nn.Module):
  """The sum of the branches: [B,h,w,C] -> [B,h,w,features].

  dense: k x k to its width, norm, activation, dropout, k x k to `features`.
  depthwise: 1x1 to its width, norm, activation, depthwise k x k, second norm, activation, dropout,
  1x1 to `features`. second_norm: as `norm`, or 'batch_fixed', a tracked batch norm without scale
  and bias. spectral: spectral norm of every convolution.
  """
  branches: Branches
  features: int
  norm: str
  second_norm: str
  padding: str = 'zero'
  bias: bool = True
  slope: float = 0.
  dropout: float = 0.
  implementation: str = 'auto'
  dtype: jnp.dtype = jnp.float32
  spectral: bool = False

  @nn.compact
  def __call__(self, x, train: bool, axes: Axes):
    conv = layers.layer_of(self, layers.Conv, mode=self.padding, bias=self.bias,
                           spectral=self.spectral)

    def act(y, kind, name):
      norm = layers.BatchNorm(affine=False, name=name) if kind == 'batch_fixed' else \
          layers.norm(kind, name)
      return layers.leaky_relu(norm(y, train, axes), self.slope)

    # (name, kernel of the first and last convolution, kernel of the depthwise one or 0, width)
    branches = [*((f'dense{k}', k, 0, width) for k, width in self.branches.dense),
                *((f'depthwise{k}', 1, k, width) for k, width in self.branches.depthwise)]
    pointwise = [(name, width) for name, k, _, width in branches if k == 1]
    merged = len(pointwise) > 1 and layers.merges(x, self.implementation)
    first, last = {}, {}  # of merged branches, what their first convolutions made, their last see
    if merged:
      convs = [conv(width, 1, name=f'{name}_in') for name, width in pointwise]
      outputs = layers.convolve_together(convs, x, train)
      first = {name: y for (name, _), y in zip(pointwise, outputs, strict=True)}
    total: Any = 0  # summed as they come, so that no two outputs live at once
    for name, k, depthwise, width in branches:
      y = first[name] if name in first else conv(width, k, name=f'{name}_in')(x, train)
      y = act(y, self.norm, f'{name}_norm')
      if depthwise:
        y = conv(width, depthwise, depthwise=True, name=f'{name}_filter')(y, train)
        y = act(y, self.second_norm, f'{name}_norm2')
      y = nn.Dropout(self.dropout)(y, deterministic=not train)
      if name in first:
        last[name] = y
      else:
        total += conv(self.features, k, name=f'{name}_out')(y, train)
    if merged:
      convs = [conv(self.features, 1, name=f'{name}_out') for name in last]
      total += layers.convolve_sum(convs, list(last.values()), train)
    return total
