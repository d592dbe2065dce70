"""What a network costs: parameters, multiply-accumulates, bytes and seconds."""

from __future__ import annotations

import collections
import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from flax import linen
from jax.core import ShapedArray
from jax.extend.core import Jaxpr, Literal

from jaxgan_compress import nn
from jaxgan_compress.core import Axes, xla
from jaxgan_compress.nn.generators.spades import InceptionModulatedBlock, Modulation
from jaxgan_compress.nn.init import remembered
from jaxgan_compress.nn.layers import conv_dispatch
from jaxgan_compress.nn.layers.conv import LatentProjection
from jaxgan_compress.tracing.program import equations, products

CONVENTIONS = ('exact', 'torchprofile', 'cat')
PARAM_CONVENTIONS = ('all', 'paper', 'cat')

Key = TypeVar('Key')


def count_params(variables: Mapping, convention: str = 'all') -> int:
  """Parameters of a network, from its variables (or their shapes).

  'all': every entry of 'params'. 'paper': as Aguinaldo et al. 2019 counted, weights and biases of
  convolutions only, norms left out, and the last layer (`to_image`) with one output channel even
  where it makes colour. 'cat': as CAT's profiler prints, scales and biases of norms that have
  running statistics left out. Running statistics and spectral vectors are never parameters.

  Raises ValueError for another convention.
  """
  _choose(convention, PARAM_CONVENTIONS)
  stats = variables.get('batch_stats', {})
  count = 0

  def walk(tree, stats, path=()):
    nonlocal count
    norm = 'scale' in tree
    if norm and (convention == 'paper' or (convention == 'cat' and 'var' in stats)):
      return
    for name, x in tree.items():
      if isinstance(x, Mapping):
        walk(x, stats.get(name, {}), (*path, name))
      else:
        one_channel = convention == 'paper' and 'to_image' in path
        count += x.size // x.shape[-1] if one_channel else x.size

  walk(variables.get('params', variables), stats)
  return count


@dataclasses.dataclass(frozen=True)
class Layer:
  """One layer of a network, in the order of the forward pass.

  path: 'block1/conv1'. kind: its class. shape: of its output. params: its parameters.
  macs: multiply-accumulates, by convention. bytes: of its output.
  """
  path: str
  kind: str
  shape: tuple[int, ...]
  params: int
  macs: Mapping[str, int]
  bytes: int


def layers(module: linen.Module, shape: Sequence[int] | None = None,
           variables: Mapping | None = None) -> list[Layer]:
  """Every layer that has parameters or does multiply-accumulates; see `macs` for the arguments.

  variables: the module's, or their shapes, where they are known: half the time.
  """
  x = _example(module, shape)
  variables, calls, jaxpr, _ = _trace(module, x, variables) if variables else _traced(module, x)
  # A container returns after what is inside it: only layers that hold something are wanted.
  inner = {call.path[:n] for call in calls for n in range(len(call.path))}
  calls = {call.path: call for call in calls
           if call.path not in inner or _at(variables['params'], call.path)}
  counted = {}
  for scope, *counts in _walk(jaxpr):
    path = _owner(scope, calls)
    counted[path] = np.add(counted.get(path, (0, 0)), counts).tolist()
  rows = []
  for path, (_, kind, extra, out) in calls.items():
    params = sum(leaf.size for leaf in _at(variables['params'], path).values()
                 if not isinstance(leaf, Mapping))
    exact, legacy = counted.get(path, (0, 0))
    if params or exact or any(extra.values()):
      rows.append(Layer('/'.join(path), kind, out.shape, params, {
          'exact': exact, **{convention: legacy + extra[convention] for convention in extra}},
          out.size * out.dtype.itemsize))
  return rows


def macs(module: linen.Module | Callable, shape: Sequence[int] | None = None,
         convention: str = 'exact') -> int:
  """Multiply-accumulates of one forward pass in inference mode.

  module: a network, or any function of one array (whose networks, if any, are inside it).
  shape: of the input, as (1, 256, 256, 3); may be left out for networks that start from noise.
  convention:
    'exact': what convolutions and matmuls take. A transposed convolution is counted on its input.
    'torchprofile': as published for GAN Compression and OMGD. A transposed convolution counts its
      output, 4 times too much at stride 2; norms with a scale one for each element of their output,
      and so do products of activations, leaky ReLUs that the published code does not take in place
      and means over windows (all of them in SPADE's family).
    'cat': as CAT counts: the same, but norms with a scale count only if they have no running
      statistics.

  Nothing runs: the program is traced and walked, with the reference implementation of each
  operation. Raises
  ValueError for another convention or a missing shape.
  """
  _choose(convention, CONVENTIONS)
  _, calls, jaxpr, _ = _traced(module, _example(module, shape))
  counts = [(exact, legacy) for _, exact, legacy in _walk(jaxpr)]
  if convention == 'exact':
    return sum(exact for exact, _ in counts)
  return sum(legacy for _, legacy in counts) + sum(call.extra[convention] for call in calls)


def activation_bytes(module: linen.Module | Callable, shape: Sequence[int] | None = None) -> int:
  """Peak bytes of input and intermediate arrays of one forward pass; parameters not counted.

  An estimate from the order of the program: an array lives from where it is made to its last use,
  and an operation whose output is as large as an operand that ends there works in place. For the
  truth on one machine compile, and ask `memory_analysis()`.
  """
  variables, _, jaxpr, out = _traced(module, _example(module, shape))
  weights = len(jax.tree.leaves(variables))
  outputs = jaxpr.outvars
  if isinstance(module, linen.Module):
    outputs = outputs[:len(jax.tree.leaves(_wanted(out)))]
  ends = {}
  for i, eqn in enumerate(jaxpr.eqns):
    ends.update(dict.fromkeys(_variables(eqn.invars), i))
  ends.update(dict.fromkeys(_variables(outputs), len(jaxpr.eqns)))
  live = {v: _bytes(v) for v in jaxpr.invars[weights:]}
  peak = sum(live.values())
  for i, eqn in enumerate(jaxpr.eqns):
    dying = [v for v in _variables(eqn.invars) if v in live and ends[v] == i]
    made = {v: _bytes(v) for v in eqn.outvars}
    in_place = max((live[v] for v in dying if live[v] in made.values()), default=0)
    peak = max(peak, sum(live.values()) + sum(made.values()) - in_place)
    live.update(made)
    for v in (*dying, *(made.keys() - ends)):
      del live[v]
  return peak


def _variables(atoms) -> set:
  """Inputs or outputs of an equation without literals, which take no memory."""
  return {v for v in atoms if not isinstance(v, Literal)}


class StepCost(NamedTuple):
  """What one call costs each replica: multiply-accumulates, and the bytes it gives to means over
  all replicas (gradients, statistics, logs) and to all others as they are."""
  macs: int
  reduced: int
  gathered: int


def step_cost(step: Callable, *args, replicas: int = 2) -> StepCost:
  """The cost of `step(*args, Axes(mesh=('replica',)))`, forward and backward, of one replica.

  args: arrays or their shapes, a replica's own. Nothing runs, see `macs`; of branches that depend
  on a value both count.
  """
  with conv_dispatch.reference():
    program = jax.make_jaxpr(lambda *args: step(*args, Axes(('replica',))),
                             axis_env=[('replica', replicas)])(*args)
  sent = collections.Counter()
  for eqn, _, times in equations(program.jaxpr):
    if eqn.primitive.name.startswith(('psum', 'all_gather')):
      sent[eqn.primitive.name[:4]] += times * sum(map(_bytes, eqn.invars))
  return StepCost(sum(exact for _, exact, _ in _walk(program.jaxpr)), sent['psum'], sent['all_'])


class Timing(NamedTuple):
  """Seconds of one call: the median and the 95th percentile of `rounds` calls."""
  median: float
  p95: float
  rounds: int


def time_calls(functions: Mapping[Key, Callable[[], object]], rounds: int = 30,
               warmup: int = 2) -> dict[Key, np.ndarray]:
  """Seconds of each call of each function, [rounds], until the arrays that it returns are ready.

  The functions are called in turn, so that they share whatever else the machine does. The first
  `warmup` calls of each, which compile, are not counted.
  """
  for function in functions.values():
    for _ in range(warmup):
      jax.block_until_ready(function())
  seconds = {name: np.zeros(rounds) for name in functions}
  for i in range(rounds):
    for name, function in functions.items():
      start = time.perf_counter()
      jax.block_until_ready(function())
      seconds[name][i] = time.perf_counter() - start
  return seconds


def latency(functions: Mapping[Key, Callable[[], object]], rounds: int = 30,
            warmup: int = 2) -> dict[Key, Timing]:
  """The median and the 95th percentile of `time_calls`."""
  return {name: Timing(float(np.median(seconds)), float(np.percentile(seconds, 95)), rounds)
          for name, seconds in time_calls(functions, rounds, warmup).items()}


def network_latency(module: linen.Module, shape: Sequence[int] | None = None, batches=(1, 8),
                    rounds: int = 30) -> dict[int, Timing]:
  """Seconds of one compiled forward pass at each batch size, with random weights.

  shape: of the input; its batch is replaced. The weights are an argument of the program.
  """
  x = _example(module, shape)
  variables = nn.initialise(module, jax.random.key(0), x)
  run = xla.jit(lambda variables, x: _wanted(module.apply(variables, x)))
  inputs = {batch: jax.random.normal(jax.random.key(1), (batch, *x.shape[1:])) for batch in batches}
  return latency({batch: lambda x=x: run(variables, x) for batch, x in inputs.items()}, rounds)


def _wanted(out):
  """The image or the logits without the taps, so that nothing keeps these."""
  return out[0] if isinstance(out, tuple) else out


def _choose(convention, possible):
  if convention not in possible:
    raise ValueError(f'convention={convention!r}; one of {", ".join(possible)}')


def _example(module, shape):
  if shape is not None:
    return jax.ShapeDtypeStruct(tuple(shape), np.float32)
  if not hasattr(module, 'example'):  # a function, or a module from outside this package
    raise ValueError('give the shape of the input')
  x = jax.eval_shape(module.example)
  if len(x.shape) == 4:
    raise ValueError(f'what {type(module).__name__} costs depends on the size of its input; give '
                     f'a shape, for example (1, 256, 256, {x.shape[-1]})')
  return x


class _Call(NamedTuple):
  path: tuple[str, ...]
  kind: str
  extra: Mapping[str, int]
  out: ShapedArray


def _traced(run, x) -> tuple[Mapping, list[_Call], Jaxpr, Any]:
  return (_known if isinstance(run, linen.Module) else _trace)(run, x)


def _trace(run, x, variables=None) -> tuple[Mapping, list[_Call], Jaxpr, Any]:
  """(shapes of the variables, calls of layers in order of their end, the program, its output)."""
  calls = []

  def note(call, args, kwargs, context):
    out, layer = call(*args, **kwargs), context.module
    if context.method_name == '__call__' and isinstance(out, jax.Array):
      calls.append(_Call(layer.path, type(layer).__name__, _extra(layer, args[0], out), out.aval))
    return out

  with conv_dispatch.reference():
    if variables is None:
      variables = {'params': {}}
      if isinstance(run, linen.Module):
        variables |= jax.eval_shape(run.init, jax.random.key(0), x)
    with linen.intercept_methods(note):
      program, out = jax.make_jaxpr(run.apply if isinstance(run, linen.Module) else
                                    lambda _, x: run(x), return_shape=True)(variables, x)
  return variables, calls, program.jaxpr, out


_known = remembered(_trace, 16)


def _walk(jaxpr):
  """(scope, exact, legacy) of every convolution and matmul."""
  for eqn, scope, times in equations(jaxpr):
    exact, legacy = products(eqn)
    if legacy:
      yield scope, times * exact, times * legacy


def _owner(scope, calls) -> tuple[str, ...]:
  """The path of the innermost layer that the scope names."""
  parts = [part for part in scope.split('/') if part and '(' not in part]
  for start in range(len(parts)):
    for end in range(len(parts), start, -1):
      if tuple(parts[start:end]) in calls:
        return tuple(parts[start:end])
  return ()


def _extra(layer, x, out):
  """What the profilers count of a layer beyond its convolution, given its input and output."""
  counts = {'torchprofile': _elementwise(layer, x, out), 'cat': 0}
  if isinstance(layer, nn.BatchNorm | nn.InstanceNorm | nn.LayerNorm) and layer.affine:
    tracked = isinstance(layer, nn.BatchNorm) and layer.track
    counts = {'torchprofile': out.size, 'cat': 0 if tracked else out.size}
  if isinstance(layer, LatentProjection):  # a transposed convolution of a 1x1 map: 16 taps each
    counts = dict.fromkeys(counts, 15 * out.size * layer.variables['params']['kernel'].shape[2])
  return counts


def _elementwise(layer, x, out):
  """Of the operations of torchprofile's list that count an element each: mul, leaky_relu (not
  leaky_relu_, in place, as everywhere but in SPADE's family) and avg_pool2d."""
  parent, name = layer.parent, layer.name or ''
  if isinstance(layer, Modulation):
    return out.size * (1 + (layer.slope != 1))
  if isinstance(layer, InceptionModulatedBlock):  # whose other leaky ReLUs are in place
    return x.size * bool(layer.block.main)
  if isinstance(parent, nn.SPADEGenerator | nn.InceptionSPADEGenerator) and name == 'to_image':
    return x.size  # of the leaky ReLU before it
  if isinstance(parent, nn.MultiScale) and isinstance(layer, nn.Conv):
    scale, stage = (int(part.strip('scaletg')) for part in name.split('_'))
    pooled = x.size if scale and stage == 1 else 0
    return pooled + (out.size if stage <= parent.layers else 0)
  return 0


def _at(tree, path):
  for part in path:
    tree = tree.get(part, {})
  return tree


def _bytes(v):
  # An effect's token has no shape.
  return math.prod(v.aval.shape) * v.aval.dtype.itemsize if isinstance(v.aval, ShapedArray) else 0
