"""Learning rates as functions of the step."""

from __future__ import annotations

import optax


def step_decay(value: float, at: tuple[int, ...], factor: float = 0.1) -> optax.Schedule:
  """`value`, multiplied by `factor` from each step in `at` on."""
  return optax.piecewise_constant_schedule(value, dict.fromkeys(at, factor))
