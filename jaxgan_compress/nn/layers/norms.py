"""Normalisation with PyTorch's exact semantics, NHWC; statistics in float32 or wider."""

from __future__ import annotations

import contextlib
import contextvars

import jax
import jax.numpy as jnp
from flax import errors
from flax import linen as nn
from jax import lax

from jaxgan_compress.core import Axes
from jaxgan_compress.nn.layers import conv_dispatch

NORMS = ('instance', 'instance_affine', 'batch', 'batch_stat', 'none')


def norm(kind: str, name: str | None = None):
  """A norm by name, called as `norm(x, train, axes)`, or of a map whose pixels hold several of the
  whole map's side by side, as `norm(x, train, axes, phases)` with their number.

  'instance': no parameters. 'instance_affine': with scale and bias. 'batch': tracked. 'batch_stat':
  batch norm that always takes the batch's own statistics ("syncbatch without tracking"). 'none':
  identity. Raises ValueError for another name.
  """
  if kind not in NORMS:
    raise ValueError(f'norm={kind!r}; one of {", ".join(NORMS)}')
  if kind == 'none':
    return lambda x, train=False, axes=Axes(), phases=1: x
  if kind.startswith('instance'):
    return InstanceNorm(affine=kind == 'instance_affine', name=name)
  return BatchNorm(track=kind == 'batch', name=name)


def conv_bias(kind: str, bias: bool | None = None) -> bool:
  """Whether convolutions before this norm have a bias: `bias`, or if that is None, as published,
  with instance norm only."""
  return kind.startswith('instance') if bias is None else bias


class BatchNorm(nn.Module):
  """(x - mean) / sqrt(var + epsilon) * scale + bias over B, H, W, as PyTorch's BatchNorm2d.

  Training takes the batch's statistics (biased variance, centred before squaring), over all
  replicas of `axes`, and moves the running ones, variance from the unbiased estimate; `count`
  counts these updates. Inference takes the running ones, so each image is a function of its own
  input alone. With `track=False` there are none and the batch's are always used. Without `affine`
  there is no scale and no bias.

  x: [B,H,W,C] -> the same shape and dtype.
  """
  momentum: float = 0.9  # PyTorch's momentum is one minus this
  epsilon: float = 1e-5
  track: bool = True
  affine: bool = True

  @nn.compact
  def __call__(self, x, train: bool, axes: Axes = Axes(), phases: int = 1):
    channels = x.shape[-1] // phases
    scale, bias = _scale_and_bias(self, channels)
    if not self.track:
      return _by_batch(x, scale, bias, self.epsilon, axes, phases)[0]
    running_mean = self.variable('batch_stats', 'mean', jnp.zeros, (channels,))
    running_var = self.variable('batch_stats', 'var', jnp.ones, (channels,))
    updates = self.variable('batch_stats', 'count', jnp.zeros, (), jnp.int32)
    if not train:
      y = at_least_float32(x) - per_channel(running_mean.value, phases)
      inverse = per_channel(lax.rsqrt(running_var.value + self.epsilon), phases)
      return _scaled(y, inverse, scale, bias, x.dtype, phases)
    y, mean, var = _by_batch(x, scale, bias, self.epsilon, axes, phases)
    if self.is_mutable_collection('batch_stats') and not self.is_initializing():
      count = y.size // channels * axes.count
      unbiased = var * (count / max(count - 1, 1))
      # Never in place: a caller's NumPy arrays would change under it.
      share = 1 - self.momentum
      running_mean.value = running_mean.value + share * (mean - running_mean.value)
      running_var.value = running_var.value + share * (unbiased - running_var.value)
      updates.value = updates.value + 1
    return y


class InstanceNorm(nn.Module):
  """(x - mean) / sqrt(var + epsilon) of each sample and channel over H, W, as InstanceNorm2d.

  Biased variance, centred before squaring: the one-pass form loses what matters to cancellation.
  With `affine` times a scale plus a bias. `train` and `axes` change nothing.

  x: [B,H,W,C] -> the same shape and dtype.
  """
  epsilon: float = 1e-5
  affine: bool = False

  @nn.compact
  def __call__(self, x, train: bool = False, axes: Axes = Axes(), phases: int = 1):
    scale, bias = _scale_and_bias(self, x.shape[-1] // phases)
    blocks = {'phases': phases} if phases > 1 else {}  # which no recorder knows
    return instance_norm(x, scale, bias, self.epsilon, **blocks)


class LayerNorm(nn.Module):
  """The same with mean and variance of each sample over H, W, C: safe with a gradient penalty.

  On TPUs the variance is the mean square less the squared mean.

  x: [B,H,W,C] -> the same shape and dtype; `scale` and `bias` are per channel.
  """
  epsilon: float = 1e-5
  affine = True

  @nn.compact
  def __call__(self, x):
    return _by_sample(x, *_scale_and_bias(self, x.shape[-1]), self.epsilon, None)


@conv_dispatch.operation
def instance_norm(x, scale=None, bias=None, epsilon: float = 1e-5, phases: int = 1):
  """What `InstanceNorm` computes; scale, bias: [C] or None."""
  return _by_sample(x, scale, bias, epsilon, phases)


def _by_sample(*args):
  # phases=None: all channels of a sample have one mean and variance.
  closed = conv_dispatch.is_optimized('norm') and not conv_dispatch.recorded()
  return _closed_by_sample(*args) if closed else _of_samples(*args)[0]


def _of_samples(x, scale, bias, epsilon, phases):
  """(x normalised by the statistics of each sample, mean, inverse standard deviation)."""
  y = at_least_float32(x)
  together, phases = phases is None, phases or 1
  if together:
    statistic = lambda y: y.mean((1, 2, 3), keepdims=True)
  else:
    statistic = lambda y: _of_phases(y.mean((1, 2), keepdims=True), phases)
  mean = statistic(y)
  centred = y - mean
  if together and conv_dispatch.is_optimized('norm'):
    # In the pass of the mean, which XLA:TPU joins to the convolution before. As many digits are
    # lost as the variance is smaller than the squared mean: few for all channels of a sample, while
    # those of one channel may nearly be equal.
    variance = jnp.maximum(statistic(jnp.square(y)) - jnp.square(mean), 0)
  else:
    variance = statistic(jnp.square(centred))
  inverse = lax.rsqrt(variance + epsilon)
  return _scaled(centred, inverse, scale, bias, x.dtype, phases), mean, inverse


_closed_by_sample = jax.custom_vjp(lambda *args: _of_samples(*args)[0], nondiff_argnums=(3, 4))


def _by_sample_forward(x, scale, bias, epsilon, phases):
  y, mean, inverse = _of_samples(x, scale, bias, epsilon, phases)
  return y, (x, scale, mean, inverse)


def _by_sample_backward(_, phases, saved, dy):
  # Two sums over all pixels at once, where its parts one by one take up to four in two passes.
  x, scale, mean, inverse = saved
  dy, unit = at_least_float32(dy), (at_least_float32(x) - mean) * inverse
  flat, along = sums = [each.mean((1, 2), keepdims=True) for each in (dy, dy * unit)]
  factor = 1 if scale is None else per_channel(scale, phases or 1)
  if phases is None:
    flat, along = ((each * factor).mean(3, keepdims=True) for each in sums)
    dx = (dy * factor - flat - unit * along) * inverse
  else:
    flat, along = sums = [_of_phases(each, phases) for each in sums]
    dx = (dy - flat - unit * along) * (inverse * factor)
  dx = dx.astype(x.dtype)
  if scale is None:
    return dx, None, None
  pixels = x.shape[1] * x.shape[2] * (phases or 1)
  dbias, dscale = ((pixels * each[..., :scale.size].sum((0, 1, 2))).astype(scale.dtype)
                   for each in sums)
  return dx, dscale, dbias


_closed_by_sample.defvjp(_by_sample_forward, _by_sample_backward)


@conv_dispatch.operation
def channel_mean(x):
  """[B,H,W,C] -> [C]."""
  return x.mean((0, 1, 2))


def _of_batch(x, scale, bias, epsilon: float, axes: Axes, phases: int):
  """(x normalised by the statistics of its batch, mean, biased variance)."""
  y = at_least_float32(x)
  mean = axes.mean(_joined(channel_mean(y), phases))
  y = y - per_channel(mean, phases)
  var = axes.mean(_joined(channel_mean(jnp.square(y)), phases))
  inverse = per_channel(lax.rsqrt(var + epsilon), phases)
  return _scaled(y, inverse, scale, bias, x.dtype, phases), mean, var


# Gradients pass through the first of the three alone.
_with_gradient = jax.custom_vjp(_of_batch, nondiff_argnums=(3, 4, 5))


def _by_batch(*args):
  # What a recorder sees inside a custom_vjp cannot leave it.
  return (_of_batch if conv_dispatch.recorded() else _with_gradient)(*args)


def _by_batch_forward(x, scale, bias, epsilon, axes, phases):
  # By its parts, which penalties differentiate.
  y, mean, var = _of_batch(x, scale, bias, epsilon, axes, phases)
  return (y, mean, var), (x, scale, mean, var)


def _by_batch_backward(epsilon, axes, phases, saved, cotangents):
  # In closed form two sums over all pixels, where its parts one by one take four.
  x, scale, mean, var = saved
  dy, inverse = at_least_float32(cotangents[0]), lax.rsqrt(var + epsilon)
  unit = (at_least_float32(x) - per_channel(mean, phases)) * per_channel(inverse, phases)
  # In this order: with the product first, XLA:CPU makes a step of a U-Net 5 % slower.
  flat = _joined(channel_mean(dy), phases)
  along = _joined(channel_mean(dy * unit), phases)
  dx = dy - per_channel(axes.mean(flat), phases) - unit * per_channel(axes.mean(along), phases)
  dx = (dx * per_channel(inverse if scale is None else inverse * scale, phases)).astype(x.dtype)
  if scale is None:
    return dx, None, None
  count = x.size // x.shape[-1] * phases
  return dx, (count * along).astype(scale.dtype), (count * flat).astype(scale.dtype)


_with_gradient.defvjp(_by_batch_forward, _by_batch_backward)


def per_channel(x, phases: int = 1):
  """[C] -> [1,1,1,C]: ranks are never promoted in silence. phases: so many times side by side."""
  return jnp.tile(x, phases).reshape(1, 1, 1, -1) if phases > 1 else x.reshape(1, 1, 1, -1)


def _joined(means, phases):
  """[phases*C] -> [C], of the mean of each phase that of all."""
  return means.reshape(phases, -1).mean(0) if phases > 1 else means


def _of_phases(means, phases):
  """[B,1,1,phases*C]: of the mean of each phase that of all, for each."""
  if phases == 1:
    return means
  whole = means.reshape(len(means), 1, phases, -1).mean(2, keepdims=True)
  return jnp.tile(whole, (1, 1, phases, 1)).reshape(means.shape)


def at_least_float32(x):
  """x in float32, or wider where it is."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


_shapes_alone = contextvars.ContextVar('shapes_alone', default=False)


@contextlib.contextmanager
def shapes_alone():
  """Inside, parameters that are made are zeros: random ones are most of the time to trace them."""
  token = _shapes_alone.set(True)
  try:
    yield
  finally:
    _shapes_alone.reset(token)


def parameter(module: nn.Module, name: str, initializer, shape: tuple[int, ...]):
  """`module.param(...)` without its trace of the initializer where the parameter is there, for the
  shape alone: a third of the time to trace a network."""
  if not module.has_variable('params', name):
    return module.param(name, nn.initializers.zeros_init() if _shapes_alone.get() else initializer,
                        shape)
  value = module.get_variable('params', name)
  if jnp.shape(value) != shape:
    raise errors.ScopeParamShapeError(name, '/'.join(module.path), jnp.shape(value), shape)
  return value


def _scale_and_bias(module, channels):
  return (parameter(module, 'scale', nn.initializers.ones_init(), (channels,)),
          parameter(module, 'bias', nn.initializers.zeros_init(), (channels,))) \
      if module.affine else (None, None)


def _scaled(centred, inverse, scale, bias, dtype, phases=1):
  """centred * inverse * scale + bias."""
  if scale is None:
    return (centred * inverse).astype(dtype)
  return (centred * (inverse * per_channel(scale, phases))
          + per_channel(bias, phases)).astype(dtype)
