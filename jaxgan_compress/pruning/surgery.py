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


def apply_masks(plan: Plan, params, masks: Mapping[str, AnyArray]):
  """Parameters with dead channels at 0 wherever they appear; shapes stay, so it is jit-able.

  A dead channel's bias and scale die with it, and so does what only dead channels feed (the bias
  after an empty branch, the norm after an empty block): then the network generates what
  `compact`'s would. Outside a compiled function NumPy arrays.
  """
  xp = numpy_for(params, dict(masks))
  masks = {name: xp.asarray(mask) for name, mask in masks.items()}

  def masked(path, x):
    path, x = ('params', *path), xp.asarray(x)
    for i, axis in enumerate(plan.leaves[path]):
      if axis:
        alive = mask_along(axis, masks, xp).astype(x.dtype)
        x = x * alive.reshape([-1 if j == i else 1 for j in range(x.ndim)])
    for groups in plan.feeders(path):
      x = x * functools.reduce(operator.or_, (masks[name].any() for name in groups)).astype(x.dtype)
    return x

  flat = traverse_util.flatten_dict(dict(params))
  return traverse_util.unflatten_dict({path: masked(path, x) for path, x in flat.items()})


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
  return np.ix_(*(np.flatnonzero(mask_along(axis, masks, np)) if axis else np.arange(size)
                  for axis, size in zip(plan.leaves[path], plan.shapes[path], strict=True)))


def _lives(plan, path, masks):
  return all(any(np.any(masks[name]) for name in groups) for groups in plan.feeders(path))


def mask_along(axis, masks, xp):
  """The masks of the groups that lie along an axis, one after another."""
  return xp.concatenate([xp.tile(xp.asarray(masks[name]), times) for name, times in axis])
