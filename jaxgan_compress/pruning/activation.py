"""Channels as their readers see them: statistics of activations, and biases that keep the mean of
channels that go."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, traverse_util

from jaxgan_compress.core import AnyArray, xla
from jaxgan_compress.nn.init import remembered
from jaxgan_compress.nn.layers import conv_dispatch
from jaxgan_compress.nn.layers.inputs import ImageNetwork, input_kind
from jaxgan_compress.nn.layers.norms import BatchNorm, InstanceNorm
from jaxgan_compress.nn.prunable import Path, Plan


@dataclasses.dataclass(frozen=True, eq=False)
class ReaderStatistics:
  """What one layer reads: mean and standard deviation of each of its input channels, over all
  pixels of all pictures, and the L2 norm of the weights that read it; float64 [channels]."""
  mean: np.ndarray
  std: np.ndarray
  weight: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class ActivationStatistics:
  """readers: {path of the layer: `ReaderStatistics`} of the layers that read prunable channels.
  sample: the first batch, see `keep_means`."""
  readers: Mapping[Path, ReaderStatistics]
  sample: AnyArray


def activation_statistics(module: linen.Module, variables: Mapping, batches: Iterable
                          ) -> ActivationStatistics:
  """Statistics of what the readers of every group see, after norms and activation functions.

  Readers are the convolutions and dense layers whose kernel has the group along its input axis.
  batches: inputs of the network, float [B,H,W,C] in [-1, 1] or latents [B,D]; batches may differ in
  size. Each is summed up on the device, around its own mean, and merged on the host in float64
  (Chan et al. 1979), so the split into batches does not matter. One process, inference mode.

  Raises ValueError for no batch, integers, images outside [-1, 1], numbers that are not finite,
  another shape than the network takes, or a layer that the plan knows and no call shows.
  """
  plan = module.plan()
  run, masks = _program(module), {name: np.ones(n, bool) for name, n in plan.widths.items()}
  means = {'/'.join(path): np.zeros(_length(plan, path)) for path in plan.readers}
  total: dict[str, _Moments] = {}
  weights, sample = {}, None
  for x in batches:
    x = _checked(module, x)
    sample = x if sample is None else sample
    moments, weights, _ = jax.device_get(run(dict(variables), x, masks, means))
    for path, (count, mean, squares) in moments.items():
      if not (np.isfinite(mean).all() and np.isfinite(squares).all()):
        raise ValueError(f'activations that {path} reads are not finite; check the weights')
      new = _Moments(float(count), mean.astype(float), squares.astype(float))
      total[path] = total[path].merged(new) if path in total else new
  if sample is None:
    raise ValueError('there is no batch to take statistics of activations from; give at least one')
  if missing := sorted(means.keys() - total.keys()):
    raise ValueError(f'{missing[0]} reads channels that may be pruned and is not called as a layer '
                     "of one array; take another criterion, as 'l1'")
  return ActivationStatistics({
      tuple(path.split('/')): ReaderStatistics(
          moments.mean, np.sqrt(moments.squares / moments.count), weights[path].astype(float))
      for path, moments in total.items()}, sample)


def keep_means(module: linen.Module, variables: Mapping, masks: Mapping[str, AnyArray],
               statistics: ActivationStatistics) -> dict:
  """The variables, whole, in which what the removed channels give on average has become a constant:
  then `compact` and `apply_masks` take away only what varies.

  A layer that reads removed channels loses, on average, the sum over them of mean activation times
  weights, summed over the kernel (of a transposed convolution of stride s over s^2, the average of
  its phases). Its bias takes that. Where it has none, or dies itself, its output is lower by it,
  and what comes next takes that: a norm in its running mean, and a layer with a bias as above, with
  the mean by which its input differs in `statistics.sample`. A norm that takes the mean off by
  itself needs nothing.

  Of a channel that is constant nothing is lost, except at borders that are padded with zeros,
  where a kernel larger than 1x1 reads fewer pixels: there, and between the phases of a transposed
  convolution, it is an approximation. What reaches the network's output through no such layer is
  lost.
  """
  means = {'/'.join(path): of.mean for path, of in statistics.readers.items()}
  shifts = _program(module)(dict(variables), statistics.sample, dict(masks), means)[2]
  flat: dict[Path, Any] = traverse_util.flatten_dict(dict(variables))
  for name, shift in jax.device_get(shifts).items():
    path = tuple(name.split('/'))
    flat[path] = np.asarray(flat[path]) + shift.astype(flat[path].dtype)
  return traverse_util.unflatten_dict({path: np.asarray(x) for path, x in flat.items()})


class _Moments(NamedTuple):
  """Of some values: how many, their mean, the sum of squared differences from it."""
  count: Any
  mean: Any
  squares: Any

  def merged(self, other: _Moments) -> _Moments:
    count, apart = self.count + other.count, other.mean - self.mean
    return _Moments(count, self.mean + apart * (other.count / count), self.squares + other.squares
                    + np.square(apart) * (self.count * other.count / count))


def _length(plan, path):
  return plan.shapes['params', *path, 'kernel'][-2]


def _checked(module, x):
  x = np.asarray(x)
  if isinstance(module, ImageNetwork):
    module.takes.check(x, f'this {type(module).__name__}')
  if x.dtype.kind != 'f':
    raise ValueError(f'a batch is of {x.dtype}; networks take float images in [-1, 1], which '
                     'core.normalise makes of integers')
  if not x.size or not np.isfinite(x).all():
    raise ValueError(f'a batch of shape {x.shape} is empty or not finite everywhere')
  if input_kind(module) == 'image' and np.abs(x).max() > 1 + 1e-3:
    raise ValueError(f'a batch has values from {x.min():.3g} to {x.max():.3g}; images are in '
                     '[-1, 1]')
  return x


@remembered
def _program(module):
  """The compiled function of (variables, a batch, masks, {reader: means}) -> ({reader: moments},
  {reader: L2 norms}, {leaf: what it takes of the means of channels that are not in the masks})."""
  plan = module.plan()

  def run(variables, x, masks, means):
    pair = _Pair(plan, masks, means)
    with conv_dispatch.reference(), linen.intercept_methods(pair.intercept):
      module.apply(variables, jnp.concatenate([x, x]), train=False)
    moments = {path: _together(each) for path, each in pair.moments.items()}
    return moments, pair.weights, pair.shifts

  return xla.jit(run)


def _together(parts):
  merged = parts[0]
  for part in parts[1:]:
    merged = merged.merged(part)
  return tuple(merged)


class _Pair:
  """A network at work on a batch twice over. The first half is computed. The second lacks, after
  each layer, what the removed channels gave on average and no bias has taken; layers with a bias or
  a running mean take it and hand on what the first half has."""

  def __init__(self, plan: Plan, masks, means):
    self.plan, self.masks, self.means = plan, masks, means
    self.moments, self.weights, self.shifts, self._kernels = {}, {}, {}, {}

  def intercept(self, call, args, kwargs, context):
    layer, method = context.module, context.method_name
    if method == 'weights':  # the kernel as it applies, divided by its spectral norm
      found = call(*args, **kwargs)
      self._kernels[layer.path] = found[0]
      return found
    if method != '__call__':
      return call(*args, **kwargs)
    shape = self.plan.shapes.get(('params', *layer.path, 'kernel'))
    if shape and isinstance(layer, linen.DenseGeneral) and len(shape) > 2:
      raise ValueError("criterion='activation' looks at convolutions and dense layers of two axes; "
                       f'the kernel of {"/".join(layer.path)} is {shape}, as in an attention: take '
                       "another criterion, as 'l1'")
    if shape:
      return self._kernel(layer, call, *args, **kwargs)
    tracked = ('batch_stats', *layer.path, 'mean') in self.plan.leaves
    if tracked or isinstance(layer, BatchNorm | InstanceNorm):
      return self._norm(layer.path, tracked, call, *args, **kwargs)
    return call(*args, **kwargs)

  def _kernel(self, layer, call, x, *args, **kwargs):
    x, other = jnp.split(x, 2)
    y = call(x, *args, **kwargs)
    kernel = self._kernels.get(layer.path, layer.variables['params']['kernel'])
    name, path = '/'.join(layer.path), ('params', *layer.path, 'kernel')
    lacking = _mean(x - other)
    if name in self.means:
      alive = self.plan.alive(self.masks, jnp)[self.plan.leaves[path][-2]]
      lacking = jnp.where(alive, lacking, self.means[name])
      self.moments.setdefault(name, []).append(_moments(x))
      self.weights[name] = jnp.sqrt(jnp.square(_wide(kernel)).sum(
          (*range(kernel.ndim - 2), kernel.ndim - 1)))
    lacking = _product(lacking, kernel, math.prod(
        max(1, round(out / into)) for out, into in itertools.zip_longest(
            y.shape[1:-1], x.shape[1:-1], fillvalue=1)))
    leaf = 'params', *layer.path, 'bias'
    bias = layer.variables['params']['bias'] if leaf in self.plan.leaves else 0
    return jnp.concatenate([y, self._after(y, leaf, lacking, lacking + bias)])

  def _norm(self, path, tracked, call, x, *args, **kwargs):
    x, other = jnp.split(x, 2)
    y, leaf = call(x, *args, **kwargs), ('batch_stats', *path, 'mean')
    if tracked:
      return jnp.concatenate([y, self._after(y, leaf, _mean(x - other), _mean(y), -1)])
    return jnp.concatenate([y, self._if_dead(leaf, _less(y, _mean(y)), call(other, *args, **kwargs))
                            ])

  def _after(self, y, leaf, lacking, all_, sign=1):
    """What the second half has after a layer: y, where its leaf takes what is lacking. all_: what
    is lacking where the layer itself is removed."""
    other = y
    if leaf in self.plan.leaves:
      name = '/'.join(leaf)
      shift = self._if_dead(leaf, jnp.zeros_like(lacking), sign * lacking)
      self.shifts[name] = self.shifts.get(name, 0) + shift
    else:
      other = _less(y, lacking)
    return self._if_dead(leaf, _less(y, all_), other)

  def _if_dead(self, leaf, dead, alive):
    """One of two values, by whether masks remove the layer of this leaf."""
    empty = [~jnp.stack([self.masks[name].any() for name in groups]).any()
             for groups in self.plan.feeders(leaf)]
    return jnp.where(jnp.stack(empty).any(), dead, alive) if empty else alive


def _wide(x):
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _less(x, values):
  """x [..., C] less one value a channel, in its own dtype."""
  return x - values.reshape(*(1,) * (x.ndim - 1), -1).astype(x.dtype)


def _mean(x):
  return _wide(x).mean(tuple(range(x.ndim - 1)))


def _moments(x):
  """Around the mean: the sum of squares alone would lose what matters to cancellation."""
  mean, count = _mean(x), x.size // x.shape[-1]
  return _Moments(jnp.asarray(count, mean.dtype), mean, jnp.square(_less(_wide(x), mean)).sum(
      tuple(range(x.ndim - 1))))


def _product(x, kernel, phases):
  """[F]: x [C] times what a kernel [..., C / groups, F] sums up to, on average over phases."""
  depth, features = kernel.shape[-2:]
  groups = len(x) // depth
  total = _wide(kernel).sum(tuple(range(kernel.ndim - 2))).reshape(depth, groups, -1)
  return jnp.einsum('gd,dgf->gf', x.reshape(groups, depth), total).reshape(features) / phases
