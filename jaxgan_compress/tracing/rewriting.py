"""The same program with other shapes: what a network computes when channels are gone, whatever its
code says of their number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan_compress.core import AnyArray
from jaxgan_compress.tracing.labels import Labels, Space, is_pattern, living
from jaxgan_compress.tracing.network import traced_call
from jaxgan_compress.tracing.plan import Path, Plan
from jaxgan_compress.tracing.program import Walk, opened, row, scan_counts, understand

Value = tuple[Labels, Any]  # labels of the whole array, and what is left of it


def function(plan: Plan, call: Callable, masks: Mapping[str, AnyArray],
             outputs: Callable | None = None) -> Callable:
  """(leaves of the small network by path, *inputs) -> (output, new states by path): what `call` of
  the large network computes where the channels that are not in the masks are 0, their number
  included in every mean. The program is traced and understood anew for each shape of the inputs.

  Raises NotImplementedError for an operation that cannot be done on what is left.
  """

  def run(flat: Mapping[Path, Any], *inputs):
    shapes = {path: jax.ShapeDtypeStruct(plan.shapes[path], jnp.result_type(x))
              for path, x in flat.items()}
    traced = traced_call(call, shapes, jax.eval_shape(lambda *x: x, *inputs), outputs)
    found = understand([traced], {path: x.shape for path, x in shapes.items()})
    alive = np.ones(len(found.atoms), bool)
    of_channels = plan.alive(masks)
    for path, labels in found.leaves.items():
      for axis, channels in enumerate(plan.leaves[path]):
        if channels is not None:
          alive[labels.parts[axis,][~of_channels[channels]]] = False
    walk = Rewriting(Space(found.atoms), alive[found.atoms.find(np.arange(len(alive)))])
    jaxpr, consts = opened(traced.jaxpr)
    values = [(found.leaves[path], jnp.asarray(flat[path])) for path in traced.leaves]
    values += [walk.constant(x) for x in jax.tree.leaves(inputs)]
    results = walk.run(jaxpr, [walk.constant(c) for c in consts], values)
    return (jax.tree.unflatten(traced.tree, [results[i][1] for i in traced.returned]),
            {path: walk.fitted(results[i], found.leaves[path])
             for i, path in traced.states.items()}
            | {path: results[i][1] for i, path in traced.others.items()})

  return run


class Rewriting(Walk):
  """A walk on values of which each array has only the indices that are left.

  alive: bool by atom.
  """

  def __init__(self, space: Space, alive: np.ndarray):
    super().__init__(space)
    self.alive = alive
    self.merged = Labels(())

  def constant(self, value):
    return super().constant(value), value

  def note(self, eqn, stack, times, merged):
    self.merged = merged

  def left(self, labels: Labels, axis: int) -> np.ndarray | None:
    """Which indices of an axis are left, None where all are."""
    axes = labels.part(axis)
    if axes is None or is_pattern(labels.parts[axes]):
      return None
    there: Any = living(labels.parts[axes], self.alive)
    return there.any(tuple(i for i in range(len(axes)) if axes[i] != axis))

  def fitted(self, value: Value, to: Labels) -> Any:
    """The array with only those indices that are left of `to`, of the same rank, where it is itself
    the same at every index, or repeats, and has them all."""
    labels, x = value
    for axis, n in enumerate(labels.shape):
      there = self.left(to, axis)
      if there is not None and n > 1 and self.left(labels, axis) is None:
        x = _take(x, np.flatnonzero(there), axis)
    return x

  def plain(self, eqn, inputs, stack, times):
    labels = super().plain(eqn, [v for v, _ in inputs], stack, times)
    adapt = ADAPTED.get(eqn.primitive.name, _fit_all)
    arrays, params = adapt(self, dict(eqn.params), inputs, labels)
    # Of some the operation itself is another.
    results = arrays() if callable(arrays) else eqn.primitive.bind(*arrays, **params)
    made: list[Any] = list(results) if isinstance(results, list | tuple) else [results]
    for v, x in zip(labels, made, strict=True):
      if v.kept(self.alive) != x.shape:
        raise NotImplementedError(f'{eqn.primitive.name} of what is left gives {x.shape} and not '
                                  f'{v.kept(self.alive)}')
    return list(zip(labels, made, strict=True))

  def scan(self, eqn, inputs, stack, times):
    jaxpr, consts = opened(eqn.params['jaxpr'])
    constants, carried = scan_counts(eqn.params)
    labels = Walk.scan(self._whole(), eqn, [v for v, _ in inputs], stack, times)
    consts = [self.constant(c) for c in consts]
    fixed, rows = inputs[:constants], inputs[constants + carried:]
    states = labels[:carried]
    row_labels = [row(self.space, v) for v, _ in rows]

    def body(carry, xs):
      out = self.run(jaxpr, consts, [*fixed, *zip(states, carry, strict=True),
                                     *zip(row_labels, xs, strict=True)], stack, times)
      new = [self.fitted(value, to) for value, to in zip(out, states, strict=False)]
      return new, [x for _, x in out[carried:]]

    start = [self.fitted(value, to) for value, to in zip(
        inputs[constants:constants + carried], states, strict=True)]
    carry, ys = jax.lax.scan(body, start, [x for _, x in rows], length=eqn.params['length'],
                             reverse=eqn.params['reverse'])
    return list(zip(labels, [*carry, *ys], strict=True))

  def while_(self, eqn, inputs, stack, times):
    (test, test_consts), (body, body_consts) = (
        opened(eqn.params[key]) for key in ('cond_jaxpr', 'body_jaxpr'))
    n, m = eqn.params['cond_nconsts'], eqn.params['body_nconsts']
    labels = Walk.while_(self._whole(), eqn, [v for v, _ in inputs], stack, times)

    def step(carry):
      out = self.run(body, [self.constant(c) for c in body_consts],
                     [*inputs[n:n + m], *zip(labels, carry, strict=True)], stack, times)
      return [self.fitted(value, to) for value, to in zip(out, labels, strict=True)]

    def goes_on(carry):
      out = self.run(test, [self.constant(c) for c in test_consts],
                     [*inputs[:n], *zip(labels, carry, strict=True)], stack, times)
      return out[0][1]

    carry = jax.lax.while_loop(goes_on, step, [
        self.fitted(value, to) for value, to in zip(inputs[n + m:], labels, strict=True)])
    return list(zip(labels, carry, strict=True))

  def cond(self, eqn, inputs, stack, times):
    labels = Walk.cond(self._whole(), eqn, [v for v, _ in inputs], stack, times)

    def branch(program):
      jaxpr, consts = opened(program)

      def run(*arrays):
        out = self.run(jaxpr, [self.constant(c) for c in consts], [
            (v, x) for (v, _), x in zip(inputs[1:], arrays, strict=True)], stack, times)
        return [self.fitted(value, to) for value, to in zip(out, labels, strict=True)]

      return run

    out = jax.lax.switch(inputs[0][1].astype(jnp.int32), [
        branch(each) for each in eqn.params['branches']], *(x for _, x in inputs[1:]))
    return list(zip(labels, out, strict=True))

  def _whole(self):
    """A walk on labels alone, of the same atoms."""
    return Walk(self.space)


def _take(x, indices, axis):
  return jnp.take(x, indices, axis) if len(indices) < x.shape[axis] else x


def _fit_all(walk, params, inputs, labels):
  """Of elementwise operations, whose operands are as large as the result; of others as they are."""
  to = labels[0] if labels else Labels(())
  return [walk.fitted(value, to) if len(value[0].shape) == len(to.shape) and all(
      n in (1, m) for n, m in zip(value[0].shape, to.shape, strict=True)) else value[1]
          for value in inputs], params


def _as_is(walk, params, inputs, labels):
  return [x for _, x in inputs], params


def _broadcast(walk, params, inputs, labels):
  return [inputs[0][1]], params | {'shape': labels[0].kept(walk.alive)}


def _reshape(walk, params, inputs, labels):
  x = inputs[0][1]
  if params.get('dimensions') is not None:
    x = jax.lax.transpose(x, params['dimensions'])
  shape = labels[0].kept(walk.alive)
  return (lambda: jax.lax.reshape(x, shape)), params


def _slice(walk, params, inputs, labels):
  (whole, x), steps = inputs[0], params['strides'] or (1,) * len(labels[0].shape)
  bounds = list(zip(params['start_indices'], params['limit_indices'], steps, strict=True))
  return (lambda: _sliced(walk, whole, x, bounds)), params


def _sliced(walk, whole, x, bounds):
  for axis, (start, end, step) in enumerate(bounds):
    taken = np.zeros(whole.shape[axis], bool)
    taken[start:end:step] = True
    there = walk.left(whole, axis)
    places = np.flatnonzero(taken if there is None else taken[there])
    if len(places) < x.shape[axis]:
      contiguous = len(places) > 0 and places[-1] - places[0] + 1 == len(places)
      x = jax.lax.slice_in_dim(x, int(places[0]), int(places[-1]) + 1, axis=axis) \
          if contiguous else jnp.take(x, places, axis)
  return x


def _split(walk, params, inputs, labels):
  return [inputs[0][1]], params | {'sizes': tuple(
      v.kept(walk.alive)[params['axis']] for v in labels)}


def _pad(walk, params, inputs, labels):
  (whole, x), value = inputs[0], inputs[1][1]
  config = []
  for axis, (low, high, inside) in enumerate(params['padding_config']):
    there = walk.left(whole, axis)
    if there is not None and not there.all():
      if inside:
        raise NotImplementedError('channels between which a pad puts zeros')
      low = low if low > 0 else -int(there[:-low].sum())
      high = high if high > 0 else -int(there[len(there) + high:].sum())
    config.append((low, high, inside))
  return [x, value], params | {'padding_config': tuple(config)}


def _concatenate(walk, params, inputs, labels):
  axis, to = params['dimension'], labels[0]
  others = Labels(to.shape, to.rigid, {axes: x for axes, x in to.parts.items() if axis not in axes})
  return [walk.fitted(value, others) for value in inputs], params


def _stack(walk, params, inputs, labels):
  axis = params['axis']
  to = labels[0]
  places = {i: i - (i > axis) for i in range(len(to.shape)) if i != axis}
  flat = Labels(tuple(n for i, n in enumerate(to.shape) if i != axis), parts={
      tuple(places[i] for i in axes): x for axes, x in to.parts.items()})
  return [walk.fitted(value, flat) for value in inputs], params


def _gather(walk, params, inputs, labels):
  (whole, x), indices = inputs[0], inputs[1][1]
  sizes = tuple(x.shape[axis] if n == whole.shape[axis] else n
                for axis, n in enumerate(params['slice_sizes']))
  return [x, indices], params | {'slice_sizes': sizes}


def _dynamic_slice(walk, params, inputs, labels):
  whole, x = inputs[0]
  sizes = tuple(x.shape[axis] if n == whole.shape[axis] else n
                for axis, n in enumerate(params['slice_sizes']))
  return [x, *(start for _, start in inputs[1:])], params | {'slice_sizes': sizes}


def _dynamic_update(walk, params, inputs, labels):
  return [walk.fitted(inputs[0], labels[0]), walk.fitted(inputs[1], labels[0]),
          *(start for _, start in inputs[2:])], params


def _dot(walk, params, inputs, labels):
  (left_sum, right_sum), (left_batch, right_batch) = params['dimension_numbers']
  merged, arrays, start = walk.merged, [], len(left_batch) + len(left_sum)
  for (own, x), summed, batch in ((inputs[0], left_sum, left_batch),
                                  (inputs[1], right_sum, right_batch)):
    free = [i for i in range(len(own.shape)) if i not in (*summed, *batch)]
    places = {axis: i for i, axis in enumerate((*batch, *summed))} | {
        axis: start + i for i, axis in enumerate(free)}
    start += len(free)
    arrays.append(_fitted_at(walk, own, x, merged, places))
  return arrays, params


def _fitted_at(walk, own, x, merged, places):
  """An operand with the indices that are left of the product, at whose axes its own are."""
  for axis, place in places.items():
    there = walk.left(merged, place)
    if there is not None and own.shape[axis] > 1 and walk.left(own, axis) is None:
      x = _take(x, np.flatnonzero(there), axis)
  return x


def _conv(walk, params, inputs, labels):
  """Of a product [G, I, N, O/G]."""
  numbers = params['dimension_numbers']
  (image, x), (own, kernel) = inputs
  groups, inside, *_ = walk.merged.kept(walk.alive)
  channel = numbers.lhs_spec[1]
  if x.shape[channel] != groups * inside and walk.left(image, channel) is None:
    there = np.ones(walk.merged.shape[:2], bool)
    for axis in (0, 1):
      if (left := walk.left(walk.merged, axis)) is not None:
        there &= left.reshape((-1, 1) if axis == 0 else (1, -1))
    x = _take(x, np.flatnonzero(there.reshape(-1)), channel)
  kernel = _fitted_at(walk, own, kernel, walk.merged, {numbers.rhs_spec[1]: 1})
  return [x, kernel], params | {'feature_group_count': groups}


ADAPTED: dict[str, Callable] = {
    'broadcast_in_dim': _broadcast, 'reshape': _reshape, 'slice': _slice, 'split': _split,
    'pad': _pad, 'concatenate': _concatenate, 'stack': _stack, 'gather': _gather,
    'dynamic_slice': _dynamic_slice, 'dynamic_update_slice': _dynamic_update, 'dot_general': _dot,
    'conv_general_dilated': _conv, 'optimization_barrier': _as_is,
} | dict.fromkeys(('transpose', 'squeeze', 'rev', 'reduce_sum', 'reduce_max', 'reduce_min',
                   'reduce_prod', 'reduce_and', 'reduce_or', 'tile', 'unstack', 'iota',
                   'random_bits', 'top_k', 'sort'), _as_is)
