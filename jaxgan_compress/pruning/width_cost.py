"""What a network costs as a function of its widths, without building it."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, traverse_util

from jaxgan_compress import analysis
from jaxgan_compress.nn.generators.wrapped import Wrapped
from jaxgan_compress.nn.prunable import Plan

# Leaves of a layer that its amount is proportional to, the first that there is: of a convolution, a
# norm, a modulation, and a modulated block, whose norm has no parameters.
LEAVES = (('params', 'kernel'), ('params', 'scale'), ('params', 'gamma', 'bias'),
          ('params', 'gamma', 'pointwise', 'bias'), ('batch_stats', 'norm', 'mean'))

# What a budget may be counted in, and the convention of `analysis.macs` that it is.
UNITS = {'macs': 'exact', 'torchprofile': 'torchprofile', 'cat': 'cat', 'params': ''}


@dataclasses.dataclass(frozen=True, eq=False)
class Cost:
  """A sum of terms, each a factor times widths along a few axes; 0 once its part has died.

  `cost({group: width})` is exact, in whole numbers. `cost.total(widths)` takes a float array
  [groups] in the order of `groups`, also inside a compiled step, and rounds as floats do.
  """
  unit: str
  groups: tuple[str, ...]
  factors: np.ndarray  # int64 [terms]
  axes: np.ndarray  # int64 [axes, terms, groups + 1]; the last column is what never changes
  feeders: np.ndarray  # int64 [sets, groups]
  fed: np.ndarray  # int64 [terms, sets]

  def __call__(self, widths: Mapping[str, int]) -> int:
    if missing := [name for name in self.groups if name not in widths]:
      raise ValueError(f'no width for {", ".join(missing)}')
    return int(self._sum(np.array([widths[name] for name in self.groups], np.int64), np))

  def total(self, widths):
    return self._sum(widths, jnp)

  def _sum(self, widths, xp):
    with_one = xp.concatenate([widths, xp.ones(1, widths.dtype)])
    dead = (xp.asarray(self.feeders, widths.dtype) @ widths == 0).astype(widths.dtype)
    alive = xp.asarray(self.fed, widths.dtype) @ dead == 0
    lengths = (xp.asarray(axis, widths.dtype) @ with_one for axis in self.axes)
    terms: Any = math.prod(lengths, start=xp.asarray(self.factors, widths.dtype) * alive)
    return terms.sum()


def cost(module: linen.Module, plan: Plan, shape: Sequence[int] | None = None,
         unit: str = 'macs') -> Cost:
  """The cost of `module` at any widths, from one trace of it; equal to `analysis.macs` (or
  `count_params`) of the module built with those widths.

  shape: of one input, as (1, 256, 256, 3). unit: 'macs' (exact), 'torchprofile' or 'cat' (as these
    count them), or 'params'.

  Raises ValueError for another unit.
  """
  if unit not in UNITS:
    raise ValueError(f'unit={unit!r}; one of {", ".join(UNITS)}')
  if unit != 'params' and isinstance(module, Wrapped):
    if unit != 'macs':
      raise ValueError(f'unit={unit!r} counts layers of this library as others do; of a network of '
                       "your own take 'macs' or 'params'")
    return cost_of_terms(plan, unit, module.terms(shape))
  return _of_leaves(plan, unit, _params(plan) if unit == 'params' else
                    _macs(module, plan, shape, UNITS[unit]))


def cost_of_params(plan: Plan) -> Cost:
  """How many parameters a network has, as a function of its widths."""
  return _of_leaves(plan, 'params', _params(plan))


def _params(plan):
  return {path: math.prod(shape) for path, shape in plan.shapes.items() if path[0] == 'params'}


def _of_leaves(plan, unit, amounts):
  """The cost of amounts that are proportional to leaves."""
  feeders = {path: plan.feeders(path) for path in amounts}
  sets = list(dict.fromkeys(itertools.chain(*feeders.values())))
  terms = [_term(plan, path, amount) for path, amount in amounts.items()]
  return cost_of_terms(plan, unit, terms, sets, [[each in feeders[path] for each in sets]
                                            for path in amounts])


def cost_of_terms(plan: Plan, unit: str, terms: Sequence[tuple[int, Sequence[np.ndarray]]],
                  sets: Sequence[tuple[str, ...]] = (), fed: Sequence[Sequence[bool]] = ()
                  ) -> Cost:
  """The cost of terms, (factor, the numbers of channels along each axis that changes).

  sets: of groups; a term that is fed by one (fed: [terms][sets]) is 0 where all of it are empty.
  """
  names = tuple(plan.groups)
  whole = np.array([*[0] * len(names), 1], np.int64)
  rank = max((len(parts) for _, parts in terms), default=0)
  rows = [[plan.copies(part) for part in parts] + [whole] * (rank - len(parts))
          for _, parts in terms]
  return Cost(unit, names, np.array([factor for factor, _ in terms], np.int64),
              np.array(rows, np.int64).reshape(-1, rank, len(names) + 1).transpose(1, 0, 2),
              np.array([[name in each for name in names] for each in sets],
                       np.int64).reshape(-1, len(names)),
              np.array(fed, np.int64).reshape(len(terms), len(sets)))


def _term(plan, path, amount):
  """(factor, channels along the axes of a leaf). Raises ValueError for no whole factor."""
  cut = [channels for channels in plan.leaves[path] if channels is not None]
  full = math.prod(map(len, cut))
  if amount % full:
    raise ValueError(f'{"/".join(path)}: {amount} is no multiple of its widths, {full}')
  return amount // full, cut


def _macs(module, plan, shape, convention):
  """{path of the leaf that a layer's amount is proportional to: that amount}."""
  amounts = {}
  for layer in _layers(module, shape and tuple(shape), tuple(plan.shapes.items())):
    if layer.macs[convention]:
      inside = layer.path.split('/')
      path = next(p for kind, *names in LEAVES if (p := (kind, *inside, *names)) in plan.leaves)
      amounts[path] = amounts.get(path, 0) + layer.macs[convention]
  return amounts


@functools.lru_cache(maxsize=16)
def _layers(module, shape, shapes):
  return analysis.layers(module, shape, traverse_util.unflatten_dict(
      {path: jax.ShapeDtypeStruct(of_leaf, np.float32) for path, of_leaf in shapes}))
