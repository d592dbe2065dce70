"""From a network and a budget to a smaller network with weights."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen, traverse_util

from jaxgan_compress.nn import initialise
from jaxgan_compress.nn.prunable import Plan
from jaxgan_compress.pruning.budget_search import search, widths
from jaxgan_compress.pruning.importance import scores
from jaxgan_compress.pruning.surgery import compact
from jaxgan_compress.pruning.width_cost import cost

STARTS = ('inherit', 'reinit', 'reinit_keep_norm')


class Cut(NamedTuple):
  """A smaller network, its first variables, and how it came about.

  masks: `{group: bool [width]}`, True stayed. threshold: see `Pruned`. before, cost: of the whole
  network and of the smaller one, in the unit of the budget.
  """
  module: linen.Module
  variables: dict[str, Any]
  masks: Mapping[str, np.ndarray]
  threshold: float
  before: float
  cost: float


def cut(module: linen.Module, variables: Mapping, shape=None, *, budget: float,
        unit: str | Callable[[Mapping[str, int]], float] = 'macs', how: str = 'norm',
        floor: int = 1, multiple: int = 1, per: str = 'global', legacy: bool = False,
        start: str = 'inherit', scheme: str = 'normal', key=None) -> Cut:
  """The largest network inside this one that costs at most `budget` by its scores: scores, search
  and a start.

  shape: of one input, as (1, 256, 256, 3). unit: see `cost`, or a cost of one's own, {group: width}
  -> number, as a `LatencyTable`; how: see `scores`; floor, multiple, per, legacy: see `search`;
  start, scheme: see `begin`. key: for fresh weights and random scores.

  Jin et al. 2021, CAT: unit='cat', floor=16, start='reinit'. Raises ValueError as these do.
  """
  plan = module.plan()
  price = cost(module, plan, shape, unit) if isinstance(unit, str) else unit
  found = search(plan, scores(plan, variables['params'], how, key=key), price, budget, floor=floor,
                 multiple=multiple, per=per, legacy=legacy)
  small, first = begin(module, plan, variables, found.masks, start, key=key, scheme=scheme)
  return Cut(small, first, found.masks, found.threshold, price(plan.widths), found.cost)


def begin(module: linen.Module, plan: Plan, variables: Mapping, masks: Mapping,
          how: str = 'inherit', *, key=None, scheme: str = 'normal'):
  """(the smaller module, its first variables).

  how:
    'inherit': what is left of the larger network.
    'reinit': fresh weights by `scheme`, drawn with `key`: the architecture alone is inherited, as
      CAT's paper says.
    'reinit_keep_norm': fresh convolutions, but the surviving scales and biases of the norms that
      belong to pruned channels, as the published horse2zebra run of CAT really did; the norm at the
      end of a block starts anew.

  Raises ValueError for another `how`, or fresh weights without a key.
  """
  if how not in STARTS:
    raise ValueError(f'how={how!r}; one of {", ".join(STARTS)}')
  small = module.with_widths(widths(masks))
  kept = compact(plan, variables, masks)
  if how == 'inherit':
    return small, kept
  if key is None:
    raise ValueError(f'how={how!r} draws fresh weights; give it a key')
  fresh = initialise(small, key, jax.eval_shape(module.example), scheme=scheme)
  flat = traverse_util.flatten_dict(dict(fresh))
  if how == 'reinit_keep_norm':
    flat |= {path: x for path, x in traverse_util.flatten_dict(kept).items()
             if _of_pruned_norm(plan, path)}
  return small, jax.tree.map(np.asarray, traverse_util.unflatten_dict(flat))


def _of_pruned_norm(plan, path):
  scaled = path[0] == 'params' and (*path[:-1], 'scale') in plan.leaves
  return scaled and all(len(groups) == 1 for groups in plan.feeders(path))
