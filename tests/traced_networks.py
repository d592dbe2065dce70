"""Networks as users write them, with what is known of their channels by hand.

Nothing here knows of this package. Their operands broadcast freely, so they are traced with
`jax.numpy_rank_promotion('allow')`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import nnx
from jax import lax

IMAGE = 1, 16, 16, 3


@dataclasses.dataclass(frozen=True)
class Case:
  """A network and what is known of it.

  make: () -> (network, variables): a module of linen or of nnx and None, or a function of
    (variables, x) and the shapes of its variables. shape, dtype: of x. groups, channels: how many a
    cut may remove.
  kind: what the same code gives with smaller arrays: 'exact', what a mask leaves; 'approximate', a
    mean or norm changes its meaning, which the rewritten program keeps; or 'program', the rewritten
    program alone gives it.
  approximate: the groups of which this holds, by the first leaf that has them; none: all.
  never_exact: those that are approximate by the rewritten program too.
  refused: those without some of whose channels the same code does not run.
  """
  make: Callable[[], tuple[Any, Any]]
  groups: int
  channels: int
  kind: str = 'exact'
  approximate: tuple[str, ...] = ()
  refused: tuple[str, ...] = ()
  never_exact: tuple[str, ...] = ()
  shape: tuple[int, ...] = IMAGE
  dtype: Any = jnp.float32


def module(cls, *args, **kwargs):
  return lambda: (cls(*args, **kwargs), None)


def shapes(tree):
  """Arrays' shapes -> what stands for arrays of these shapes."""
  if isinstance(tree, Mapping):
    return {key: shapes(each) for key, each in tree.items()}
  return jax.ShapeDtypeStruct(tree, jnp.float32)


def function(f, **variables):
  return lambda: (f, shapes(variables))


def conv(features, size=3, **kwargs):
  return nn.Conv(features, (size, size), **kwargs)


def conv_of(layer, x, stride=1, groups=1, size='SAME'):
  """A convolution by hand."""
  y = lax.conv_general_dilated(x, layer['kernel'], (stride, stride), size,
                               dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
                               feature_group_count=groups)
  return y + layer['bias']


def layer(inputs, outputs, size=3):
  return {'kernel': (size, size, inputs, outputs), 'bias': (outputs,)}


class BatchNorms(nn.Module):
  @nn.compact
  def __call__(self, x, train: bool = False):
    for width in (8, 12):
      x = conv(width)(x)
      x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
    return conv(3)(x)


class BasicBlock(nn.Module):
  features: int
  stride: int

  @nn.compact
  def __call__(self, x, train):
    norm = functools.partial(nn.BatchNorm, use_running_average=not train)
    y = conv(self.features, strides=self.stride, use_bias=False)(x)
    y = conv(self.features, use_bias=False)(nn.relu(norm()(y)))
    y = norm()(y)
    if self.stride > 1 or x.shape[-1] != y.shape[-1]:
      x = conv(self.features, 1, strides=self.stride, use_bias=False, name='shortcut')(x)
      x = norm(name='shortcut_norm')(x)
    return nn.relu(x + y)


class ResNet18(nn.Module):
  """ResNet (He et al. 2016)."""
  widths: tuple[int, ...] = (8, 16, 32, 64)

  @nn.compact
  def __call__(self, x, train: bool = False):
    x = conv(self.widths[0], 7, strides=2, use_bias=False)(x)
    x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
    x = nn.max_pool(x, (3, 3), (2, 2), 'SAME')
    for i, width in enumerate(self.widths):
      for j in range(2):
        x = BasicBlock(width, 2 if i and not j else 1)(x, train)
    return nn.Dense(10)(x.mean((1, 2)))


class UNet(nn.Module):
  """U-Net (Ronneberger et al. 2015)."""

  @nn.compact
  def __call__(self, x):
    size = x.shape[1:3]
    skips = []
    for width in (6, 8, 10):
      x = nn.relu(conv(width, strides=2, name=f'down{width}')(x))
      skips.append(x)
    x = jnp.concatenate([x, x], -1)
    for width, skip in ((9, skips[1]), (7, skips[0])):
      x = nn.relu(nn.ConvTranspose(width, (4, 4), (2, 2), name=f'up{width}')(x))
      x = jnp.concatenate([x, skip], -1)
    y = nn.relu(nn.ConvTranspose(5, (4, 4), (2, 2), name='up5')(x))
    x = jax.image.resize(x, (x.shape[0], *size, x.shape[-1]), 'bilinear')
    return conv(3)(y + conv(5, 1, name='beside')(x))


class Depthwise(nn.Module):
  """MobileNet (Howard et al. 2017)."""

  @nn.compact
  def __call__(self, x):
    x = nn.relu(conv(8)(x))
    for width in (12, 16):
      x = nn.relu(conv(x.shape[-1], feature_group_count=x.shape[-1])(x))
      x = nn.relu(conv(width, 1)(x))
    x = nn.relu(conv(2 * x.shape[-1], feature_group_count=x.shape[-1])(x))
    return conv(3, 1)(x)


class Grouped(nn.Module):
  @nn.compact
  def __call__(self, x):
    x = nn.relu(conv(12)(x))
    x = nn.relu(conv(16, feature_group_count=4)(x))
    return conv(3)(x)


class ShuffleNet(nn.Module):
  """ShuffleNet (Zhang et al. 2018)."""

  @nn.compact
  def __call__(self, x):
    x = nn.relu(conv(16, 1, name='stem')(x))
    y = nn.relu(conv(16, 1, feature_group_count=4, name='squeeze')(x))
    b, h, w, c = y.shape
    y = y.reshape(b, h, w, 4, c // 4).swapaxes(3, 4).reshape(b, h, w, c)
    y = conv(c, feature_group_count=c, name='depthwise')(y)
    x = nn.relu(x + conv(16, 1, feature_group_count=4, name='expand')(y))
    return conv(3)(x)


class DenseNet(nn.Module):
  """DenseNet (Huang et al. 2017)."""

  @nn.compact
  def __call__(self, x, train: bool = False):
    x = conv(8)(x)
    for _ in range(3):
      y = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
      x = jnp.concatenate([x, conv(4)(y)], -1)
    x = nn.relu(conv(10, 1)(x))
    return nn.Dense(5)(x.mean((1, 2)))


class ResidualDense(nn.Module):
  growth: int

  @nn.compact
  def __call__(self, x):
    y = x
    for _ in range(4):
      y = jnp.concatenate([y, nn.leaky_relu(conv(self.growth)(y), 0.2)], -1)
    return x + 0.2 * conv(x.shape[-1])(y)


class RRDBNet(nn.Module):
  """ESRGAN (Wang et al. 2018)."""
  features: int = 8
  growth: int = 4
  blocks: int = 2

  @nn.compact
  def __call__(self, x):
    x = conv(self.features, name='first')(x)
    y = x
    for _ in range(self.blocks):
      z = y
      for _ in range(3):
        z = ResidualDense(self.growth)(z)
      y = y + 0.2 * z
    x = x + conv(self.features, name='trunk')(y)
    for i in range(2):
      x = jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)
      x = nn.leaky_relu(conv(self.features, name=f'up{i}')(x), 0.2)
    x = nn.leaky_relu(conv(self.features, name='high')(x), 0.2)
    return conv(3, name='last')(x)


class Normed(nn.Module):
  norm: Callable[[], nn.Module]

  @nn.compact
  def __call__(self, x):
    for width in (8, 12):
      x = nn.relu(self.norm()(conv(width)(x)))
    return conv(3)(x)


class FromDense(nn.Module):
  literal: bool

  @nn.compact
  def __call__(self, x, train: bool = False):
    x = nn.Dense(128, name='dense')(x)
    x = x.reshape((-1, 4, 4, 8)) if self.literal else x.reshape((x.shape[0], 4, 4, -1))
    x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
    x = nn.relu(nn.ConvTranspose(6, (4, 4), (2, 2))(x))
    return nn.tanh(nn.ConvTranspose(3, (4, 4), (2, 2))(x))


class FromDenseNCHW(nn.Module):
  @nn.compact
  def __call__(self, x):
    x = nn.relu(nn.Dense(128)(x)).reshape((x.shape[0], -1, 4, 4))
    return conv(3)(x.transpose(0, 2, 3, 1))


class PixelShuffle(nn.Module):
  """Sub-pixel convolution (Shi et al. 2016), channels first (PyTorch) or last (TensorFlow)."""
  channels_first: bool

  @nn.compact
  def __call__(self, x):
    x = conv(20)(x)
    b, h, w, c = x.shape
    if self.channels_first:
      x = x.reshape(b, h, w, c // 4, 2, 2).transpose(0, 1, 4, 2, 5, 3)
    else:
      x = x.reshape(b, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
    x = conv(6)(nn.relu(x.reshape(b, 2 * h, 2 * w, c // 4)))
    x = nn.relu(x).reshape(b, h, 2, w, 2, -1).transpose(0, 1, 3, 2, 4, 5).reshape(b, h, w, -1)
    return conv(3)(x)


class SqueezeExcite(nn.Module):
  """Squeeze-and-excitation (Hu et al. 2018)."""

  @nn.compact
  def __call__(self, x):
    x = nn.relu(conv(12)(x))
    gate = nn.relu(nn.Dense(6)(x.mean((1, 2))))
    gate = nn.sigmoid(nn.Dense(x.shape[-1])(gate))
    return conv(3)(x * gate[:, None, None, :])


class SpatialGate(nn.Module):
  """The spatial gate of CBAM (Woo et al. 2018)."""

  @nn.compact
  def __call__(self, x):
    x = nn.relu(conv(12)(x))
    both = jnp.concatenate([x.mean(-1, keepdims=True), x.max(-1, keepdims=True)], -1)
    return conv(3)(x * nn.sigmoid(conv(1, 7)(both)))


class Attention(nn.Module):
  @nn.compact
  def __call__(self, x):
    x = nn.relu(conv(12, strides=4, name='conv')(x))
    y = x.reshape(x.shape[0], -1, x.shape[-1])
    y = nn.MultiHeadDotProductAttention(4, qkv_features=16, name='attention')(y, y)
    return conv(3)(x + y.reshape(x.shape))


class AttentionByHand(nn.Module):
  heads: int = 4

  @nn.compact
  def __call__(self, x):
    x = nn.relu(conv(12, strides=4)(x))
    b, h, w, c = x.shape
    tokens = x.reshape(b, h * w, c)
    split = lambda y: y.reshape(b, h * w, self.heads, -1).transpose(0, 2, 1, 3)
    q, k, v = map(split, jnp.split(nn.Dense(48)(tokens), 3, -1))
    weights = nn.softmax(q @ k.swapaxes(2, 3) * 0.5)
    y = (weights @ v).transpose(0, 2, 1, 3).reshape(b, h * w, -1)
    return conv(3)(x + nn.Dense(c)(y).reshape(x.shape))


class SpectralNorms(nn.Module):
  """Spectral normalisation (Miyato et al. 2018)."""

  @nn.compact
  def __call__(self, x, train: bool = False):
    for width in (8, 12):
      x = nn.SpectralNorm(conv(width, strides=2))(x, update_stats=train)
      x = nn.leaky_relu(x, 0.2)
    return nn.SpectralNorm(conv(3))(x, update_stats=train)


class WeightNorms(nn.Module):
  """Weight normalisation (Salimans and Kingma 2016)."""

  @nn.compact
  def __call__(self, x):
    for width in (8, 12):
      x = nn.leaky_relu(nn.WeightNorm(conv(width, strides=2))(x), 0.2)
    return conv(3)(x)


class Residual(nn.Module):
  @nn.compact
  def __call__(self, x, _=None):
    y = nn.relu(conv(10)(x))
    return x + conv(x.shape[-1])(y), None


class Scanned(nn.Module):
  @nn.compact
  def __call__(self, x):
    x = nn.relu(conv(8)(x))
    blocks = nn.scan(Residual, variable_axes={'params': 0}, split_rngs={'params': True}, length=3)
    x, _ = blocks()(x, None)
    return conv(3)(x)


class Rematerialised(nn.Module):
  @nn.compact
  def __call__(self, x):
    x = nn.relu(conv(8)(x))
    for _ in range(2):
      x, _ = nn.remat(Residual)()(x)
    return conv(3)(x)


class Vmapped(nn.Module):
  @nn.compact
  def __call__(self, x):
    x = nn.relu(conv(8)(x))
    both = nn.vmap(nn.Conv, variable_axes={'params': 0}, split_rngs={'params': True},
                   in_axes=None, axis_size=2)
    return conv(3)(nn.relu(both(6, (3, 3))(x).sum(0)))


def tied(variables, x):
  """One convolution used twice, one matrix used from both sides."""
  x = jax.nn.relu(conv_of(variables['first'], x))
  for _ in range(2):
    x = jax.nn.relu(conv_of(variables['shared'], x))
  w = variables['tied']['kernel']
  x = jax.nn.relu(x @ w) @ w.T
  return conv_of(variables['last'], x)


class Dropped(nn.Module):
  @nn.compact
  def __call__(self, x, train: bool = False):
    x = nn.relu(conv(8)(x))
    x = nn.Dropout(0.5, deterministic=not train)(x)
    return conv(3)(x)


class ConvNeXtBlock(nn.Module):
  @nn.compact
  def __call__(self, x):
    width = x.shape[-1]
    y = nn.LayerNorm()(conv(width, 7, feature_group_count=width)(x))
    y = nn.Dense(width)(nn.gelu(nn.Dense(4 * 8)(y)))
    return x + y * self.param('layer_scale', nn.initializers.constant(1e-6), (width,))


class ConvNeXt(nn.Module):
  """ConvNeXt (Liu et al. 2022)."""

  @nn.compact
  def __call__(self, x):
    x = conv(8, name='stem')(x)
    for _ in range(2):
      x = ConvNeXtBlock()(x)
    return conv(3)(x)


class Gated(nn.Module):
  """Gated linear units (Dauphin et al. 2017)."""

  @nn.compact
  def __call__(self, x):
    value, gate = jnp.split(conv(16)(x), 2, -1)
    x = value * nn.sigmoid(gate)
    return conv(3)(nn.glu(conv(12)(x)))


class SplitByNumber(nn.Module):
  @nn.compact
  def __call__(self, x):
    y = nn.relu(conv(16, name='conv')(x))
    return conv(3)(y[..., :8]) + conv(3)(y[..., 8:])


class PaddedShortcut(nn.Module):
  """Option A of ResNet (He et al. 2016): a shortcut without weights."""

  @nn.compact
  def __call__(self, x):
    x = nn.relu(conv(8)(x))
    shortcut = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (2, 2)))
    return conv(3)(nn.relu(shortcut + conv(12)(x)))


class PReLU(nn.Module):
  @nn.compact
  def __call__(self, x):
    slope = self.param('slope', nn.initializers.constant(0.25), (x.shape[-1],))
    return jnp.where(x > 0, x, slope * x)


class PReLUs(nn.Module):
  @nn.compact
  def __call__(self, x):
    for width in (8, 6):
      x = PReLU()(conv(width)(x))
    return conv(3)(x)


class MovedPixels(nn.Module):
  @nn.compact
  def __call__(self, x):
    x = nn.relu(conv(8)(x))
    pads = (0, 0), (1, 1), (2, 2), (0, 0)
    x = jnp.pad(jnp.pad(x, pads, 'reflect'), pads, 'edge')
    x = jnp.roll(jnp.flip(x, 2), (1, -2), (1, 2))
    return conv(3, strides=2)(jnp.tile(x, (1, 2, 1, 1)))


class PixelNormSoftmax(nn.Module):
  @nn.compact
  def __call__(self, x):
    x = conv(8)(x)
    x = conv(6, name='softmaxed')(x * lax.rsqrt(jnp.sum(x ** 2, -1, keepdims=True) + 1e-8))
    return conv(3)(nn.softmax(x))


class SumAndMean(nn.Module):
  @nn.compact
  def __call__(self, x):
    return jnp.stack([nn.relu(conv(8)(x)).sum(-1), nn.relu(conv(6, name='mean')(x)).mean(-1)], -1)


class ASPP(nn.Module):
  """Branches as in DeepLab v3 (Chen et al. 2017), then a style as in AdaIN (Huang and Belongie
  2017)."""

  @nn.compact
  def __call__(self, x):
    size = x.shape
    x = nn.avg_pool(x, (2, 2), (2, 2))
    branches = [nn.relu(conv(4, kernel_dilation=rate)(x)) for rate in (1, 2)]
    pooled = nn.relu(conv(4, 1)(x.mean((1, 2), keepdims=True)))
    branches.append(jnp.broadcast_to(pooled, (*x.shape[:3], pooled.shape[-1])))
    x = nn.relu(conv(8)(jnp.concatenate(branches, -1)))
    x = jax.image.resize(x, (*size[:3], x.shape[-1]), 'bilinear')
    style = nn.Dense(2 * x.shape[-1])(x.mean((1, 2))).reshape(x.shape[0], 2, x.shape[-1])
    gain, shift = style[:, 0, None, None], style[:, 1, None, None]
    return conv(3)(x * (1 + gain) + shift)


class Tokens(nn.Module):
  @nn.compact
  def __call__(self, tokens):
    x = nn.Embed(11, 8)(tokens)
    x = x + self.param('positions', nn.initializers.normal(), (tokens.shape[1], x.shape[-1]))
    y = nn.Dense(x.shape[-1])(nn.gelu(nn.Dense(20)(x)))
    return nn.Dense(11)(x + y)


def modulated(variables, x):
  """The modulated convolution of StyleGAN2 (Karras et al. 2020), a sample at a time."""
  kernel = variables['modulated']['kernel']

  def one(x, style):
    own = kernel * style[None, None, :, None]
    own = own * lax.rsqrt(jnp.sum(own ** 2, (0, 1, 2), keepdims=True) + 1e-8)
    return conv_of({'kernel': own, 'bias': variables['modulated']['bias']}, x[None])[0]

  style = x.mean((1, 2)) @ variables['style']['kernel'] + variables['style']['bias']
  x = jax.nn.relu(conv_of(variables['first'], x))
  x = jax.nn.leaky_relu(jax.vmap(one)(x, style), 0.2)
  return conv_of(variables['last'], x)


class OfNNX(nnx.Module):
  def __init__(self, rngs):
    self.conv1 = nnx.Conv(3, 8, (3, 3), rngs=rngs)
    self.norm1 = nnx.BatchNorm(8, rngs=rngs)
    self.depthwise = nnx.Conv(8, 8, (3, 3), feature_group_count=8, rngs=rngs)
    self.norm2 = nnx.GroupNorm(8, num_groups=4, rngs=rngs)
    self.conv2 = nnx.Conv(8, 12, (3, 3), strides=2, rngs=rngs)
    self.norm3 = nnx.LayerNorm(12, rngs=rngs)
    self.up = nnx.ConvTranspose(12, 6, (4, 4), (2, 2), rngs=rngs)
    self.attention = nnx.MultiHeadAttention(2, in_features=6, qkv_features=8, decode=False,
                                            rngs=rngs)
    self.dropout = nnx.Dropout(0.1, rngs=rngs)
    self.last = nnx.Conv(6, 3, (3, 3), rngs=rngs)

  def __call__(self, x):
    x = nnx.relu(self.norm1(self.conv1(x)))
    x = nnx.relu(self.norm2(self.depthwise(x)))
    x = nnx.relu(self.norm3(self.conv2(x)))
    x = nnx.relu(self.up(x))
    y = x.reshape(x.shape[0], -1, x.shape[-1])
    x = x + self.dropout(self.attention(y)).reshape(x.shape)
    return self.last(x)


def of_nnx():
  return nnx.eval_shape(lambda: OfNNX(nnx.Rngs(0))), None


NETWORKS = {
    'batch norms': Case(module(BatchNorms), 2, 20),
    # 4 streams of 8, 16, 32, 64; in each two blocks' inner channels.
    'resnet18': Case(module(ResNet18), 12, 360),
    'unet': Case(module(UNet), 6, 45),
    'depthwise': Case(module(Depthwise), 3, 36),
    'grouped': Case(module(Grouped), 2, 7),  # 3 and 4 places in each of 4 groups
    # The shuffled channels stay: each group sees every other.
    'shufflenet': Case(module(ShuffleNet), 1, 4),
    'densenet': Case(module(DenseNet), 5, 30),
    'rrdb': Case(module(RRDBNet), 28, 128),
    '23 rrdbs': Case(module(RRDBNet, 64, 32, 23), 280, 9088),
    'instance norm': Case(module(Normed, nn.InstanceNorm), 2, 20),
    'group norm of 1': Case(module(Normed, functools.partial(
        nn.GroupNorm, num_groups=None, group_size=1)), 2, 20),
    'layer norm': Case(module(Normed, nn.LayerNorm), 2, 20, 'approximate'),
    'rms norm': Case(module(Normed, nn.RMSNorm), 2, 20, 'approximate'),
    'group norm': Case(module(Normed, functools.partial(nn.GroupNorm, 4)), 2, 5, 'approximate'),
    'dense': Case(module(FromDense, literal=False), 2, 14, shape=(1, 5)),
    'dense, literal': Case(module(FromDense, literal=True), 2, 14, refused=('dense',),
                           shape=(1, 5)),
    'dense, channels first': Case(module(FromDenseNCHW), 1, 8, shape=(1, 5)),
    # 5 channels with 4 copies, 6.
    'pixel shuffle, channels first': Case(module(PixelShuffle, channels_first=True), 2, 11),
    'pixel shuffle, channels last': Case(module(PixelShuffle, channels_first=False), 2, 11),
    'squeeze and excite': Case(module(SqueezeExcite), 2, 18),
    'spatial gate': Case(module(SpatialGate), 1, 12, 'approximate'),
    # 12, the dims of queries and keys, heads, the dims of values.
    'attention': Case(module(Attention), 4, 24, 'approximate', ('attention/query',)),
    # 12, the dims of queries and keys, those of values: one Dense, which the same code splits in 3
    # equal parts.
    'attention by hand': Case(module(AttentionByHand), 3, 20, refused=('Dense_0',)),
    'spectral norm': Case(module(SpectralNorms), 2, 20),
    'weight norm': Case(module(WeightNorms), 2, 20),
    'scan': Case(module(Scanned), 2, 18),
    'remat': Case(module(Rematerialised), 3, 28),
    'vmap': Case(module(Vmapped), 2, 14),
    'tied': Case(function(tied, first=layer(3, 8), shared=layer(8, 8), tied={'kernel': (8, 20)},
                          last=layer(8, 3)), 2, 28),
    'dropout': Case(module(Dropped), 1, 8, 'program'),  # other bits are drawn for other shapes
    # The stream, two times 32.
    'convnext': Case(module(ConvNeXt), 3, 72, 'approximate', ('stem',)),
    'glu': Case(module(Gated), 2, 14),
    'split by number': Case(module(SplitByNumber), 2, 16, refused=('conv',)),
    'padded shortcut': Case(module(PaddedShortcut), 1, 8),  # the 12 stay
    'prelu': Case(module(PReLUs), 2, 14),
    'moved pixels': Case(module(MovedPixels), 1, 8),
    'pixel norm and softmax': Case(module(PixelNormSoftmax), 2, 14, 'approximate', ('softmaxed',),
                                   never_exact=('softmaxed',)),
    'sum and mean': Case(module(SumAndMean), 2, 14, 'approximate', ('mean',)),
    'aspp and affine': Case(module(ASPP), 4, 20),
    'tokens': Case(module(Tokens), 2, 28, shape=(1, 6), dtype=jnp.int32),
    'modulated': Case(function(modulated, first=layer(3, 8), style={'kernel': (3, 8), 'bias': (8,)},
                               modulated=layer(8, 10), last=layer(10, 3)), 2, 18),
    # 2 places in 4 groups, 12, 6, heads 2, dims 4 of queries and keys, 4 of values.
    'nnx': Case(of_nnx, 6, 30, 'approximate', ('conv1', 'conv2'),
                refused=('attention/query', 'attention/value')),
}
