"""What each operation of a program does to labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxgan_compress.tracing.labels import STAYS, Labels, is_pattern

# A rule: (space, parameters of the equation, labels of its inputs) -> labels of its outputs. The
# parameters of an equation and the shapes of its outputs are all that it may read besides.
Rule = Callable[..., Labels | Sequence[Labels]]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
  def register(function: Rule) -> Rule:
    RULES.update(dict.fromkeys(names, function))
    return function
  return register


@rule('abs', 'acos', 'acosh', 'add', 'add_any', 'and', 'asin', 'asinh', 'atan', 'atan2', 'atanh',
      'bessel_i0e', 'bessel_i1e', 'cbrt', 'ceil', 'clz', 'conj', 'convert_element_type', 'copy',
      'copy_p', 'cos', 'cosh', 'digamma', 'div', 'eq', 'eq_to', 'erf', 'erf_inv', 'erfc', 'exp',
      'exp2', 'expm1', 'floor', 'ge', 'gt', 'imag', 'integer_pow', 'is_finite', 'layout_constraint',
      'le', 'le_to', 'lgamma', 'log', 'log1p', 'logistic', 'lt', 'lt_to', 'max', 'min', 'mul',
      'name', 'ne', 'neg', 'nextafter', 'not', 'or', 'pmax', 'pmin', 'population_count', 'pow',
      'psum', 'real', 'reduce_precision', 'rem', 'reshard', 'round', 'rsqrt', 'sharding_constraint',
      'shift_left', 'shift_right_arithmetic', 'shift_right_logical', 'sign', 'sin', 'sinh', 'sqrt',
      'square', 'stop_gradient', 'sub', 'tan', 'tanh', 'xor')
def elementwise(space, params, *values):
  return space.merge(*values)


@rule('select_n', 'clamp')
def selected(space, params, *values):
  return space.merge(*(v for v in values if v.shape or not any(w.shape for w in values)))


@rule('optimization_barrier', 'device_put')
def barrier(space, params, *values):
  return [space.normal(v) for v in values]


@rule('bitcast_convert_type')
def bitcast(space, params, v, *, out: Any = None):
  if v.shape == out:
    return space.normal(v)
  space.pin_all(v)  # bytes become an axis of their own, or an axis becomes numbers
  return Labels.all_rigid(out)


@rule('broadcast_in_dim')
def broadcast_in_dim(space, params, v, *_):
  return space.move(v, dict(enumerate(params['broadcast_dimensions'])), params['shape'])


@rule('squeeze')
def squeeze(space, params, v):
  rank = len(v.shape)
  return space.squeeze(v, [i % rank for i in params['dimensions']])


@rule('transpose')
def transpose(space, params, v):
  return space.transpose(v, params['permutation'])


@rule('rev')
def rev(space, params, v):
  return Labels(v.shape, v.rigid, {
      axes: np.flip(labels, tuple(i for i, axis in enumerate(axes) if axis in params['dimensions']))
      for axes, labels in v.parts.items()})


@rule('reshape')
def reshape(space, params, v, *_):
  if params.get('dimensions') is not None:
    v = space.transpose(v, params['dimensions'])
  return space.reshape(v, params['new_sizes'])


@rule('reduce_sum', 'reduce_max', 'reduce_min', 'reduce_prod', 'reduce_and', 'reduce_or',
      'reduce_xor')
def reduction(space, params, v):
  axes = params['axes']
  return space.squeeze(space.drop(v, axes, mixed=True), axes)


@rule('argmax', 'argmin')
def argument(space, params, v):
  return space.squeeze(space.drop(space.pin(v, *params['axes']), params['axes']), params['axes'])


@rule('cumsum', 'cumprod', 'cummax', 'cummin', 'cumlogsumexp')
def cumulative(space, params, v):
  return _rigid_along(space.pin(v, params['axis']), (params['axis'],))


@rule('sort')
def sort(space, params, *values):
  axis = params['dimension']
  merged = space.merge(*(_rigid_along(space.pin(v, axis), (axis,)) for v in values))
  return [merged] * len(values)


@rule('top_k')
def top_k(space, params, v):
  axis = params.get('axis', -1) % len(v.shape)
  out = _resized(_rigid_along(space.pin(v, axis), (axis,)), axis, params['k'])
  return [out, out]


@rule('dot_general')
def dot_general(space, params, left, right, *, note=None):
  (left_sum, right_sum), (left_batch, right_batch) = params['dimension_numbers']
  left_free, right_free = (
      [i for i in range(len(v.shape)) if i not in (*summed, *batch)]
      for v, summed, batch in ((left, left_sum, left_batch), (right, right_sum, right_batch)))
  batch, summed, first, second = map(len, (left_batch, left_sum, left_free, right_free))
  rank = batch + summed + first + second
  left = _placed(space, left, (*left_batch, *left_sum, *left_free),
                 range(rank - second), rank)
  right = _placed(space, right, (*right_batch, *right_sum, *right_free),
                  (*range(batch + summed), *range(batch + summed + first, rank)), rank)
  contracted = range(batch, batch + summed)
  # Of arrays in batches neither is a layer's weights: what is scaled by 1 / sqrt(their number).
  return space.squeeze(_product(space, left, right, contracted, note, batch > 0), contracted)


@rule('conv_general_dilated')
def conv(space, params, x, kernel, *, note=None, out: Any = None):
  if params['batch_group_count'] != 1:
    for v in (x, kernel):
      space.pin_all(v)
    return Labels.all_rigid(out)
  numbers, groups = params['dimension_numbers'], params['feature_group_count']
  x = _rows(space, x, numbers.lhs_spec)  # [N, G I]
  kernel = _rows(space, kernel, numbers.rhs_spec)  # [G O/G, I]
  inside, features = kernel.shape[1], kernel.shape[0]
  x = space.reshape(x, (x.shape[0], groups, inside))
  kernel = space.reshape(kernel, (groups, features // groups, inside))
  if 1 < groups < groups * inside:
    x, kernel = space.pin(x, 1), space.pin(kernel, 0)
  x = _placed(space, x, (1, 2, 0), (0, 1, 2), 4)  # [G, I, N, 1]
  kernel = _placed(space, kernel, (0, 2, 1), (0, 1, 3), 4)  # [G, I, 1, O/G]
  y = space.squeeze(_product(space, x, kernel, (1,), note), (1,))  # [G, N, O/G]
  y = space.reshape(space.transpose(y, (1, 0, 2)), (y.shape[1], features))
  batch, channel = numbers.out_spec[:2]
  y = space.move(y, {0: batch, 1: channel}, out)
  return _rigid_along(y, numbers.out_spec[2:])


def _rows(space, v, spec):
  """[of two axes of a convolution's operand] all others, which are pixels, rigid and left out."""
  v = space.pin(v, *spec[2:])
  return space.transpose(space.squeeze(space.drop(v, spec[2:]), spec[2:]),
                         (0, 1) if spec[0] < spec[1] else (1, 0))


def _placed(space, v, axes, places, rank):
  """The given axes at places of an array of another rank, whose others are of size 1."""
  shape = [1] * rank
  for axis, place in zip(axes, places, strict=True):
    shape[place] = v.shape[axis]
  return space.move(v, dict(zip(axes, places, strict=True)), shape)


def _product(space, left, right, contracted, note, mixed=False):
  """The two, joined, without the contracted axes. A sum against what is the same at every index, or
  differs by pixel, is a mean."""
  merged = space.merge(left, right)
  if note:
    note(merged)
  mixed |= any(merged.part(axis) and axis not in v.rigid and v.part(axis) is None
              for v in (left, right) for axis in contracted)
  return space.drop(merged, contracted, mixed=mixed)


@rule('slice')
def slice_(space, params, v):
  steps = params['strides'] or (1,) * len(v.shape)
  taken = [slice(*each) for each in zip(params['start_indices'], params['limit_indices'], steps,
                                        strict=True)]
  for axis, indices in enumerate(taken):
    v = _taken(space, v, axis, np.arange(v.shape[axis])[indices])
  return v


@rule('split')
def split(space, params, v):
  axis, ends = params['axis'], np.cumsum(params['sizes'])
  return [_taken(space, v, axis, np.arange(end - n, end))
          for n, end in zip(params['sizes'], ends, strict=True)]


def _taken(space, v, axis, indices):
  """Of these indices of an axis."""
  if len(indices) == v.shape[axis] and (indices == np.arange(len(indices))).all():
    return v
  axes = v.part(axis)
  if axes and len(axes) > 1:
    v = space.pin(v, axis)
    axes = None
  parts = dict(v.parts)
  if axes:
    labels = parts.pop(axes)[indices]
    if len(indices) == 1 and not is_pattern(labels):
      space.atoms.freeze(labels, space.why)
    elif len(indices) > 1:
      parts[axes] = labels
  rigid = v.rigid - {axis} if len(indices) == 1 else v.rigid
  return space.normal(Labels(_with(v.shape, axis, len(indices)), rigid, parts))


@rule('pad')
def pad(space, params, v, value):
  for axis, (low, high, inside) in enumerate(params['padding_config']):
    if low == high == inside == 0:
      continue
    n = v.shape[axis]
    length = low + high + n + max(0, n - 1) * inside
    places = np.arange(n) * (inside + 1) + low
    there = (places >= 0) & (places < length)
    axes = v.part(axis)
    if axes and len(axes) > 1:
      v, axes = space.pin(v, axis), None
    parts: dict[Any, np.ndarray] = dict(v.parts)
    rigid = v.rigid - {axis}
    if axes and not is_pattern(parts[axes]):
      labels = np.full(length, STAYS)
      labels[places[there]] = parts.pop(axes)[there]
      if length == 1:
        space.atoms.freeze(labels, space.why)
      else:
        parts[axes] = labels
    else:
      parts.pop(axes, None)
      rigid |= {axis} if length > 1 else set()
    v = Labels(_with(v.shape, axis, length), rigid, parts)
  return space.normal(v)


@rule('concatenate')
def concatenate(space, params, *values):
  axis = params['dimension']
  values = [v for v in values if v.shape[axis]]
  labels, others = [], []
  for v in values:
    axes = v.part(axis)
    if axes and len(axes) > 1:
      v, axes = space.pin(v, axis), None
    plain = axes and not is_pattern(v.parts[axes])
    labels.append(v.parts[axes] if plain else np.full(v.shape[axis], STAYS))
    others.append(Labels(_with(v.shape, axis, 1), v.rigid - {axis},
                         {part: x for part, x in v.parts.items() if axis not in part}))
  merged, joined = space.merge(*others), np.concatenate(labels)
  return space.normal(Labels(_with(merged.shape, axis, len(joined)), merged.rigid,
                             {**merged.parts, (axis,): joined}
                             if len(joined) > 1 else merged.parts))


@rule('stack')
def stack(space, params, *values):
  axis = params['axis']
  merged = space.merge(*values)
  places = [i + (i >= axis) for i in range(len(merged.shape))]
  shape = list(merged.shape)
  shape.insert(axis, len(values))
  out = space.move(merged, dict(enumerate(places)), shape)
  return _rigid_along(out, (axis,))


@rule('unstack')
def unstack(space, params, v):
  axis = params['axis']
  v = space.pin(v, axis)
  one = space.squeeze(Labels(_with(v.shape, axis, 1), v.rigid - {axis}, v.parts), (axis,))
  return [one] * v.shape[axis]


@rule('tile')
def tile(space, params, v):
  for axis, times in enumerate(params['reps']):
    if times == 1:
      continue
    axes, n = v.part(axis), v.shape[axis]
    if axes and len(axes) > 1:
      v, axes = space.pin(v, axis), None
    parts = dict(v.parts)
    if axes:
      parts[axes] = np.tile(parts[axes], times)
    elif axis in v.rigid:
      parts[axis,] = np.tile(-2 - np.arange(n), times)
    v = space.normal(Labels(_with(v.shape, axis, n * times), v.rigid - {axis}, parts))
  return v


@rule('gather')
def gather(space, params, v, indices, *, out: Any = None):
  numbers, sizes = params['dimension_numbers'], params['slice_sizes']
  space.pin_all(indices)
  gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
  offsets = dict(zip((i for i in range(len(v.shape)) if i not in gone), numbers.offset_dims,
                     strict=True))
  v = space.pin(v, *(i for i, n in enumerate(v.shape) if i in gone or sizes[i] != n))
  result = Labels(tuple(out), frozenset(offsets[i] for i in v.rigid if i in offsets
                                        and out[offsets[i]] > 1),
                  {tuple(offsets[i] for i in axes): labels for axes, labels in v.parts.items()})
  return _rigid_along(result, [i for i in range(len(out)) if i not in numbers.offset_dims])


@rule('dynamic_slice')
def dynamic_slice(space, params, v, *starts):
  sizes = params['slice_sizes']
  v = space.pin(v, *(i for i, n in enumerate(sizes) if n != v.shape[i]))
  return Labels(tuple(sizes), frozenset(i for i in v.rigid if sizes[i] > 1), v.parts)


@rule('dynamic_update_slice')
def dynamic_update_slice(space, params, v, update, *starts):
  part = [i for i, n in enumerate(update.shape) if n != v.shape[i]]
  v, update = _rigid_along(space.pin(v, *part), part), space.pin(update, *part)
  small = Labels(tuple(1 if i in part else n for i, n in enumerate(update.shape)),
                 update.rigid - set(part), update.parts)
  return space.merge(v, small)


@rule('reduce_window', 'reduce_window_sum', 'reduce_window_max', 'reduce_window_min')
def reduce_window(space, params, *values, out: Any = None):
  windows = zip(params['window_dimensions'], params['window_strides'], params['padding'],
                params['base_dilation'], strict=True)
  moved = [i for i, each in enumerate(windows) if each != (1, 1, (0, 0), 1)]
  v = space.pin(space.merge(*(v for v in values if v.shape)), *moved)
  return _rigid_along(Labels(tuple(out), v.rigid, v.parts), moved)


@rule('iota')
def iota(space, params):
  axis = params['dimension']
  return _rigid_along(Labels(tuple(params['shape'])), (axis,))


@rule('random_bits')
def random_bits(space, params, *_, out: Any = None):
  return Labels(tuple(out))


@rule('random_wrap', 'random_unwrap', 'random_seed', 'random_split', 'random_fold_in',
      'random_clone', 'random_gamma', 'threefry2x32', 'empty')
def rigid(space, params, *values, out: Any = None):
  for v in values:
    space.pin_all(v)
  return Labels.all_rigid(out)


def _with(shape, axis, n):
  return (*shape[:axis], n, *shape[axis + 1:])


def _resized(v, axis, n):
  return Labels(_with(v.shape, axis, n), v.rigid if n > 1 else v.rigid - {axis}, v.parts)


def _rigid_along(v, axes):
  """The same with rigid axes where they were free or have just been made."""
  new = {i for i in axes if v.shape[i] > 1 and v.part(i) is None}
  gone = {i for i in v.rigid if v.shape[i] == 1}
  return Labels(v.shape, (v.rigid | new) - gone, v.parts)

