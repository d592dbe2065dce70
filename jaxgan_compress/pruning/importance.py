"""How much each channel matters: {group: [channels]}, larger is dearer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from flax import traverse_util

from jaxgan_compress.core import AnyArray
from jaxgan_compress.nn.prunable import Plan
from jaxgan_compress.pruning.arrays import numpy_for

if TYPE_CHECKING:
  from jaxgan_compress.pruning.activation import ActivationStatistics

CRITERIA = ('norm', 'l1', 'l2', 'taylor', 'activation', 'random')


def scores(plan: Plan, params, criterion: str = 'norm', *, grads=None,
           key: jax.Array | None = None, statistics: ActivationStatistics | None = None
           ) -> dict[str, AnyArray]:
  """Scores of the channels of each group that can be ranked, float32 [width].

  criterion:
    'norm': |scale| of the norm after the channel, as CAT; groups without one are left out, so a
      search keeps them whole. Jin et al. 2021; Liu et al. 2017, network slimming.
    'l1', 'l2': mean |w|, root mean w^2, of the kernels that make the channel (its last axis), else
      of all that it lies in. Li et al. 2017.
    'taylor': |sum of gradient * w| over everything of the channel, with `grads` like `params`: what
      the loss would change by, to first order. Molchanov et al. 2019.
    'activation': standard deviation of the activation times L2 norm of the weights that read it, by
      the `statistics` of `activation_statistics`: what varies less where the channel is replaced by
      its mean. Of several readers, which may see the channel after different norms, and of copies,
      the root of the sum of squares: where all see the same, that is its deviation times the L2
      norm of all weights together. Also of groups whose width follows another's, whose best
      channels then stay. Not inside a compiled function.
    'random': uniform, from `key`.

  Jit-able; outside a compiled function NumPy arrays. Raises ValueError for another `criterion`, or
  one whose gradient, statistics, key or scales are missing or of another network.
  """
  if criterion not in CRITERIA:
    raise ValueError(f'criterion={criterion!r}; one of {", ".join(CRITERIA)}')
  if criterion == 'taylor' and grads is None:
    raise ValueError("criterion='taylor' takes the gradient of a loss, grads=..., like params")
  if criterion == 'activation':
    if statistics is None:
      raise ValueError("criterion='activation' takes statistics=..., which activation_statistics "
                       'collects from a few batches')
    return _of_activations(plan, statistics)
  ranked = {name: group for name, group in plan.groups.items() if not group.follows}
  if criterion == 'random':
    if key is None:
      raise ValueError("criterion='random' takes a key")
    return {name: jax.random.uniform(jax.random.fold_in(key, i), (group.width,))
            for i, (name, group) in enumerate(ranked.items())}
  xp = numpy_for(params, grads)
  flat = _flat(params, xp)
  if criterion == 'norm':
    return _of_scales(plan, ranked, flat, xp)
  if criterion == 'taylor':
    slopes = _flat(grads, xp)
    flat = {path: x * slopes[path] for path, x in flat.items()}
  return {name: _of_leaves(plan, flat, name, criterion, xp) for name in ranked}


def _flat(tree, xp) -> dict[tuple[str, ...], Any]:
  return {('params', *path): xp.asarray(x)
          for path, x in traverse_util.flatten_dict(dict(tree)).items()}


def _of_scales(plan, ranked, flat, xp):
  found = {}
  for name, group in ranked.items():
    path = 'params', *group.norm.split('/'), 'scale'
    places = [indices for leaf, _, indices in plan.members[name] if group.norm and leaf == path]
    if places:
      found[name] = xp.abs(flat[path])[places[0]].mean(1)
  if not found:
    raise ValueError("no norm of this network has scales to rank channels by; take criterion='l1'")
  return found


def _of_activations(plan, statistics):
  squares: dict[str, Any] = {}
  for reader in plan.readers:
    path, of = ('params', *reader, 'kernel'), statistics.readers.get(reader)
    if of is None or len(of.std) != plan.shapes[path][-2]:
      raise ValueError(f'the statistics are of another network: {"/".join(reader)} reads '
                       f'{plan.shapes[path][-2]} channels here')
    square = np.square(of.std * of.weight)[:, None]
    axis = len(plan.shapes[path]) - 2
    for name, places in plan.members.items():
      for indices in (own for *place, own in places if place == [path, axis]):
        squares[name] = squares.get(name, 0) + square[indices].sum((1, 2))
  return {name: np.sqrt(squares[name]).astype(np.float32) for name in plan.groups
          if name in squares}


def _of_leaves(plan, flat, name, criterion, xp):
  """[width] of one group, of the kernels that make it ('l1', 'l2') or all leaves ('taylor')."""
  places = [place for place in plan.members[name] if place[0] in flat]
  if criterion != 'taylor':  # heads of an attention lie along no last axis
    places = [place for place in places if _makes(plan, *place[:2])] or places
  seen = [_of_group(flat[path], axis, indices, xp) for path, axis, indices in places]
  if criterion == 'taylor':
    return xp.abs(sum(x.sum(-1) for x in seen))
  power = 1 if criterion == 'l1' else 2
  total = sum((xp.abs(x) ** power).sum(-1) for x in seen)
  return (total / sum(x.shape[-1] for x in seen)) ** (1 / power)


def _makes(plan, path, axis):
  return path[-1] in ('kernel', 'embedding') and axis == len(plan.shapes[path]) - 1


def _of_group(x, axis, indices, xp):
  """[width, everything else] of a group along one axis, its copies next to each other."""
  return xp.moveaxis(x, axis, 0)[indices].reshape(len(indices), -1)
