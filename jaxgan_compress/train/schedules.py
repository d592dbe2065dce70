"""Learning rates as functions of the step."""

from __future__ import annotations

import jax.numpy as jnp
import optax
from jax import lax


def step_decay(value: float, at: tuple[int, ...], factor: float = 0.1) -> optax.Schedule:
  """`value`, multiplied by `factor` from each step in `at` on."""
  return optax.piecewise_constant_schedule(value, dict.fromkeys(at, factor))


def linear_epochs(value: float, epoch: int, constant: int, decay: int, stride: int = 1
                  ) -> optax.Schedule:
  """pix2pix's policy: `value` for `constant` epochs, then down in a line over `decay` epochs, in
  steps of an epoch, by 1 - (E - constant) / (decay + 1) in epoch E, which never is 0.

  epoch: updates in one. stride: epochs that pass between two changes, each `epoch` updates long; so
  students that learn in blocks follow their teachers' epochs: epoch=updates of a block, stride=
  teachers' epochs between two. Raises ValueError for numbers below 1 (decay: 0).
  """
  if min(epoch, constant, stride) < 1 or decay < 0:
    raise ValueError(f'epoch={epoch}, constant={constant}, decay={decay}, stride={stride}; at '
                     'least 1, decay 0')
  last = constant + decay

  def rate(count):
    count = jnp.asarray(count)
    # Not //: its cases for numbers below 0 would be compiled into the update of each parameter.
    epochs = lax.div(count, jnp.asarray(epoch, count.dtype))
    reached = jnp.minimum((epochs + 1) * stride, last)
    return value * ((decay + 1 - jnp.maximum(0, reached - constant)) / (decay + 1))

  return rate
