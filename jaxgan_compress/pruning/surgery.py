"""Masking, compacting and expanding: pure functions of variables."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from jaxgan_compress.core import AnyArray
from jaxgan_compress.nn.prunable import Plan
from jaxgan_compress.pruning.arrays import numpy_for
from jaxgan_compress.tracing.plan import living, masked


def apply_masks(plan: Plan, params, masks: Mapping[str, AnyArray]):
  """Parameters with dead channels at 0 wherever they appear; shapes stay, so it is jit-able.

  A dead channel's bias and scale die with it, and so does what only dead channels feed (the bias
  after an empty branch, the norm after an empty block): then the network generates what
  `compact`'s would. Outside a compiled function NumPy arrays.
  """
  xp = numpy_for(params, dict(masks))
  alive = plan.alive(masks, xp)

  def pruned(path, x):
    path, x = ('params', *path), xp.asarray(x)
    x = masked(x, plan.leaves[path], alive, xp)
    for groups in plan.feeders(path):
      there = [xp.any(masks[name]) for name in groups]
      x = x * functools.reduce(operator.or_, there).astype(x.dtype)
    return x

  flat = traverse_util.flatten_dict(dict(params))
  return traverse_util.unflatten_dict({path: pruned(path, x) for path, x in flat.items()})


def compact(plan: Plan, variables: Mapping, masks: Mapping[str, AnyArray]) -> dict:
  """The variables of the smaller network `module.with_widths(widths(masks))`, NumPy arrays.

  variables: 'params' and whatever other collections the module has (running statistics, spectral
  vectors), compacted alike. Raises ValueError for those of another network than the plan's.
  """
  flat: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(dict(variables))
  for path, x in flat.items():
    if plan.shapes.get(path) != np.shape(x):
      raise ValueError(f'{"/".join(path)} is {np.shape(x)} and the plan has '
                       f'{plan.shapes.get(path, "no such leaf")}; it is of another network')
  return traverse_util.unflatten_dict({path: np.asarray(x)[_where(plan, path, masks)]
                                       for path, x in flat.items() if _lives(plan, path, masks)})


def expand(plan: Plan, small: Mapping, masks: Mapping[str, AnyArray]) -> dict:
  """The inverse: the larger network's variables, 0 where `compact` took channels away."""
  flat = traverse_util.flatten_dict(dict(small))

  def grown(path):
    out = np.zeros(plan.shapes[path], np.asarray(flat.get(path, 0.)).dtype)
    if path in flat:
      out[_where(plan, path, masks)] = flat[path]
    return out

  wanted = {path[0] for path in flat}
  return traverse_util.unflatten_dict({path: grown(path) for path in plan.leaves
                                       if path[0] in wanted})


def _where(plan, path, masks):
  """The open mesh of indices that stay of a leaf."""
  return living(plan.leaves[path], plan.shapes[path], plan.alive(masks))


def _lives(plan, path, masks):
  return all(any(np.any(masks[name]) for name in groups) for groups in plan.feeders(path))
