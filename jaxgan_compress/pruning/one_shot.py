"""From a network and a budget to a smaller network with weights."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen, traverse_util

from jaxgan_compress.nn import initialise
from jaxgan_compress.nn.generators.wrapped import Wrapped
from jaxgan_compress.nn.prunable import Plan, narrowed
from jaxgan_compress.pruning.activation import (
  ActivationStatistics,
  activation_statistics,
  keep_means,
)
from jaxgan_compress.pruning.budget_search import Masks, search
from jaxgan_compress.pruning.importance import scores
from jaxgan_compress.pruning.surgery import compact
from jaxgan_compress.pruning.width_cost import cost

STUDENT_INITS = ('inherit', 'reinit', 'reinit_keep_norm')


class PruneResult(NamedTuple):
  """A smaller network, its first variables, and how it came about.

  masks: `{group: bool [width]}`, True stayed. threshold: see `SearchResult`. before, cost: of the
  whole network and of the smaller one, in the unit of the budget.
  """
  module: linen.Module
  variables: dict[str, Any]
  masks: Masks
  threshold: float
  before: float
  cost: float


def prune(module: linen.Module, variables: Mapping, shape=None, *, budget: float,
        unit: str | Callable[[Mapping[str, int]], float] = 'macs', criterion: str = 'norm',
        min_channels: int = 1, round_to: int = 1, scope: str = 'global', cat_search: bool = False,
        student_init: str = 'inherit', scheme: str = 'normal', key=None,
        batches: Iterable | ActivationStatistics | None = None) -> PruneResult:
  """The largest network inside this one that costs at most `budget` by its scores: scores, search
  and first weights.

  shape: of one input, as (1, 256, 256, 3). unit: see `cost`, or a cost of one's own, {group: width}
  -> number, as a `LatencyTable`; criterion: see `scores`; min_channels, round_to, scope,
  cat_search: see `search`; student_init, scheme: see `init_student`. key: for fresh weights and
  random scores.
  batches: for criterion='activation', inputs of the network, or what `activation_statistics` made
  of them, where several budgets are met; then biases take what removed channels gave on average,
  see `keep_means`, before `student_init='inherit'` keeps what is left.

  Jin et al. 2021, CAT: unit='cat', min_channels=16, student_init='reinit'. Raises ValueError as
  these do, and for a `Wrapped` network as its `prove`.
  """
  plan = module.plan()
  price = cost(module, plan, shape, unit) if isinstance(unit, str) else unit
  statistics = statistics_of(module, variables, criterion, batches)
  ranked = scores(plan, variables['params'], criterion, key=key, statistics=statistics)
  found = search(plan, ranked, price, budget, min_channels=min_channels, round_to=round_to,
                 scope=scope, cat_search=cat_search)
  if statistics and student_init == 'inherit':
    variables = keep_means(module, variables, found.masks, statistics)
  small, first = init_student(module, plan, variables, found.masks, student_init, key=key,
                              scheme=scheme)
  if isinstance(small, Wrapped):
    small.prove()
  return PruneResult(small, first, found.masks, found.threshold, price(plan.widths), found.cost)


def statistics_of(module: linen.Module, variables: Mapping, criterion: str,
                  batches: Iterable | ActivationStatistics | None) -> ActivationStatistics | None:
  """The statistics that a criterion takes, None for one that takes none. Raises ValueError for
  batches that are missing or would change nothing."""
  if (batches is None) == (criterion == 'activation'):
    raise ValueError("criterion='activation' takes batches=..., inputs of the network, a few of "
                     'those that it trained on' if batches is None else
                     f'criterion={criterion!r} takes no batches; leave them out')
  if batches is None or isinstance(batches, ActivationStatistics):
    return batches
  return activation_statistics(module, variables, batches)


def init_student(module: linen.Module, plan: Plan, variables: Mapping, masks: Mapping,
                 student_init: str = 'inherit', *, key=None, scheme: str = 'normal'):
  """(the smaller module, its first variables).

  student_init:
    'inherit': what is left of the larger network.
    'reinit': fresh weights by `scheme`, random by `key`: the architecture alone is inherited, as
      CAT's paper says.
    'reinit_keep_norm': fresh convolutions, but the surviving scales and biases of the norms that
      belong to pruned channels, as the published horse2zebra run of CAT really did; the norm at the
      end of a block starts anew.

  Raises ValueError for another `student_init`, or fresh weights without a key.
  """
  if student_init not in STUDENT_INITS:
    raise ValueError(f'student_init={student_init!r}; one of {", ".join(STUDENT_INITS)}')
  small = narrowed(module, masks)
  kept = compact(plan, variables, masks)
  if student_init == 'inherit':
    return small, kept
  if key is None:
    raise ValueError(f'student_init={student_init!r} makes fresh weights; give it a key')
  fresh = initialise(small, key, jax.eval_shape(module.example), scheme=scheme)
  flat = traverse_util.flatten_dict(dict(fresh))
  if student_init == 'reinit_keep_norm':
    flat |= {path: x for path, x in traverse_util.flatten_dict(kept).items()
             if _of_pruned_norm(plan, path)}
  return small, jax.tree.map(np.asarray, traverse_util.unflatten_dict(flat))


def _of_pruned_norm(plan, path):
  scaled = path[0] == 'params' and (*path[:-1], 'scale') in plan.leaves
  return scaled and all(len(groups) == 1 for groups in plan.feeders(path))
