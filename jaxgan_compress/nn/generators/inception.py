"""CAT's inception generator: residual blocks of dense and separable branches, of any widths."""

from __future__ import annotations

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxgan_compress.core import Axes
from jaxgan_compress.core.arguments import typed
from jaxgan_compress.nn.layers import conv_dispatch
from jaxgan_compress.nn.layers.conv import (
  Conv,
  UpConv,
  check_images,
  convolve,
  leaky_relu,
  remembering,
  to_range,
)
from jaxgan_compress.nn.layers.norms import BatchNorm, conv_bias, norm
from jaxgan_compress.nn.prunable import Group, Plan, Widths, make_plan, renewed

KERNELS = (1, 3, 5)


@dataclasses.dataclass(frozen=True)
class Branches:
  """The branches of one block, as (kernel size, hidden channels) each; a removed one is not there.

  `Branches(dense=((1, 8), (3, 13)), depthwise=((5, 4),))`; `Branches()` is an empty block.

  Raises ValueError for a kernel size given twice or a width below 1.
  """
  dense: tuple[tuple[int, int], ...] = ()
  depthwise: tuple[tuple[int, int], ...] = ()

  def __post_init__(self):
    for kind in ('dense', 'depthwise'):
      given = tuple((int(k), int(width)) for k, width in getattr(self, kind))
      object.__setattr__(self, kind, given)
      kernels = [k for k, _ in given]
      if len(set(kernels)) < len(kernels) or any(k % 2 == 0 or width < 1 for k, width in given):
        raise ValueError(f'{kind} branches {given}; one (kernel, width) for each odd kernel size, '
                         'width from 1 (leave a removed branch out)')

  @classmethod
  def even(cls, width: int, kernels=KERNELS) -> Branches:
    """Every kernel size, dense and depthwise, all of one width; with width 0 none."""
    every = tuple((k, width) for k in kernels if width)
    return cls(every, every)

  def __bool__(self):
    return bool(self.dense or self.depthwise)

  def groups(self, kind: str, within: str):
    """({group: Group}, {what dies with it: (group,)}) for branches at the path `within`."""
    named = {f'{within}{side}{k}': n for side in ('dense', 'depthwise')
             for k, n in getattr(self, side)}
    return ({name: Group.voting(kind, n, f'{name}_norm', least=0) for name, n in named.items()},
            {f'{name}_': (name,) for name in named})

  def with_widths(self, widths: Widths, within: str) -> Branches:
    """The branches with other widths; those of width 0 are gone."""
    kept = {side: tuple((k, width) for k, n in getattr(self, side)
                        if (width := widths.get(f'{within}{side}{k}', n)))
            for side in ('dense', 'depthwise')}
    return Branches(**kept)


@typed
def inception(ngf: int = 64, blocks: int = 9, reduction: int = 6, **fields) -> InceptionGenerator:
  """CAT's teacher: six branches a block, each with (4 ngf) // reduction hidden channels."""
  return InceptionGenerator(
      stem=(ngf, 2 * ngf, 4 * ngf), blocks=(Branches.even(4 * ngf // reduction),) * blocks,
      up=(2 * ngf, ngf), **fields)


class InceptionGenerator(nn.Module):
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
  form: of the replaceable operations, see `nn.layers.conv_dispatch`. dtype: of the computation.

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
  form: str = 'auto'
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, train: bool = False, axes: Axes = Axes()):
    check_images(x, self.inputs, 4, self.least, 'this inception generator')
    bias = conv_bias(self.norm, self.bias)
    conv = functools.partial(Conv, form=self.form, dtype=self.dtype)

    def normed(x, name):
      return nn.relu(norm(self.norm, f'{name}_norm')(x, train, axes))

    x = normed(conv(self.stem[0], 7, mode='reflect', bias=bias, name='stem0')(x), 'stem0')
    for i, width in enumerate(self.stem[1:], 1):
      x = normed(conv(width, stride=2, bias=bias, name=f'stem{i}')(x), f'stem{i}')
    taps = {'stem': x}
    for i, branches in enumerate(self.blocks, 1):
      if branches:
        y = remembering(InceptionBranches, self.remat)(
            branches, x.shape[-1], self.norm, self.norm, self.padding, bias, self.slope,
            self.dropout, self.form, self.dtype, name=f'block{i}')(x, train, axes)
        x = x + norm(self.norm, f'block{i}_norm')(y, train, axes)
      taps[f'block{i}'] = x
    for i, width in enumerate(self.up):
      x = normed(UpConv(width, 3, bias, self.form, self.dtype, name=f'up{i}')(x), f'up{i}')
    x = conv(self.channels, 7, mode='reflect', name='to_image')(x)
    return to_range(x), taps

  def plan(self) -> Plan:
    """Groups 'stem0' .. (the last is the residual stream), 'block1/dense3' .., 'up0' ..; every
    branch may vanish, and with its branches a block."""
    group = functools.partial(Group.voting, self.norm)
    groups = {f'stem{i}': group(n, f'stem{i}_norm') for i, n in enumerate(self.stem)}
    parts = {}
    for i, branches in enumerate(self.blocks, 1):
      inside, owns = branches.groups(self.norm, f'block{i}/')
      groups |= inside
      parts |= {**owns, f'block{i}_norm/': tuple(inside)}
    groups |= {f'up{i}': group(n, f'up{i}_norm') for i, n in enumerate(self.up)}
    return make_plan(self, groups, parts)

  def with_widths(self, widths: Widths) -> InceptionGenerator:
    """The same network with other widths, `{group: channels}`; a branch of width 0 is gone."""
    return self.clone(stem=renewed(widths, 'stem', self.stem), up=renewed(widths, 'up', self.up),
                      blocks=tuple(branches.with_widths(widths, f'block{i}/')
                                   for i, branches in enumerate(self.blocks, 1)))

  @property
  def least(self) -> int:
    """Pixels of the smallest side: blocks reflect a quarter of it by half their largest kernel."""
    kernels = [k for block in self.blocks for k, _ in block.dense + block.depthwise]
    reflected = max(kernels, default=1) // 2 if self.padding == 'reflect' else 0
    return 4 * max(3, reflected + 1)

  def example(self):
    """An input of batch 1, for counting and initialising."""
    return jnp.zeros((1, self.least, self.least, self.inputs))


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
  form: str = 'auto'
  dtype: jnp.dtype = jnp.float32
  spectral: bool = False

  @nn.compact
  def __call__(self, x, train: bool, axes: Axes):
    conv = functools.partial(Conv, mode=self.padding, bias=self.bias, spectral=self.spectral,
                             form=self.form, dtype=self.dtype)

    def drop(y):
      return nn.Dropout(self.dropout)(y, deterministic=not train)

    def act(y, kind, name):
      layer = BatchNorm(affine=False, name=name) if kind == 'batch_fixed' else norm(kind, name)
      return leaky_relu(layer(y, train, axes), self.slope)

    out = functools.partial(conv, self.features)
    pointwise = [(f'dense{k}', width) for k, width in self.branches.dense if k == 1] + [
        (f'depthwise{k}', width) for k, width in self.branches.depthwise]
    merged = conv_dispatch.choose('branches', self.form) == 'merged' and len(pointwise) > 1
    begun = {}  # of merged branches, what their one 1x1 convolution of x made
    if merged:
      kernels, biases = zip(*(conv(width, 1, name=f'{name}_in').weights(x.shape[-1], train)
                              for name, width in pointwise), strict=True)
      y = convolve(x.astype(self.dtype), jnp.concatenate(kernels, -1),
                   jnp.concatenate(biases) if self.bias else None, form=self.form)
      ends = np.cumsum([width for _, width in pointwise])[:-1]
      begun = dict(zip((name for name, _ in pointwise), jnp.split(y, ends, -1), strict=True))
    total, last = 0, {}  # summed as they come, so that no two outputs live at once
    for k, width in self.branches.dense:
      name = f'dense{k}'
      y = begun[name] if name in begun else conv(width, k, name=f'{name}_in')(x, train)
      y = drop(act(y, self.norm, f'{name}_norm'))
      if name in begun:
        last[name] = y
      else:
        total += out(k, name=f'{name}_out')(y, train)
    for k, width in self.branches.depthwise:
      name = f'depthwise{k}'
      y = begun[name] if merged else conv(width, 1, name=f'{name}_in')(x, train)
      y = act(y, self.norm, f'{name}_norm')
      y = conv(width, k, depthwise=True, name=f'{name}_filter')(y, train)
      y = drop(act(y, self.second_norm, f'{name}_norm2'))
      if merged:
        last[name] = y
      else:
        total += out(1, name=f'{name}_out')(y, train)
    if merged:
      kernels, biases = zip(*(out(1, name=f'{name}_out').weights(y.shape[-1], train)
                              for name, y in last.items()), strict=True)
      total += convolve(jnp.concatenate(list(last.values()), -1).astype(self.dtype),
                        jnp.concatenate(kernels, 2), sum(biases) if self.bias else None,
                        form=self.form)
    return total
