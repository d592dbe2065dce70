"""What a pruned student starts from."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np
from flax import linen, traverse_util

from jaxgan_compress.nn import initialise
from jaxgan_compress.nn.plans import Plan
from jaxgan_compress.pruning.search import widths
from jaxgan_compress.pruning.surgery import compact

STARTS = ('inherit', 'reinit', 'reinit_keep_norm')


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
