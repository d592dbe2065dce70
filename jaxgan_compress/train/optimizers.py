"""Optimisers that optax makes of several parts, as one value for a config."""

from __future__ import annotations

import optax


def clipped(tx: optax.GradientTransformation, max_norm: float = 1.) -> optax.GradientTransformation:
  """`tx` of gradients that are made shorter where their norm over all parameters is above
  `max_norm`. Raises ValueError for a norm that is not positive."""
  if not max_norm > 0:
    raise ValueError(f'max_norm={max_norm}; above 0')
  return optax.chain(optax.clip_by_global_norm(max_norm), tx)
