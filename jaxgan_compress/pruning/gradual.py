"""Pruning a little at a time, while the network learns: what runs inside a compiled step."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from jaxgan_compress.core import Array, TrainState
from jaxgan_compress.nn.init import shapes
from jaxgan_compress.nn.prunable import Plan
from jaxgan_compress.pruning.budget_search import search, tighten
from jaxgan_compress.pruning.importance import scores
from jaxgan_compress.pruning.surgery import apply_masks
from jaxgan_compress.pruning.width_cost import Cost, cost


def roles(role: str, budget: float | tuple[float, ...] | list[float]) -> dict[str, float]:
  """{role: budget}; of several the others are named by theirs, as 'student_1e09'."""
  first, *more = budget if isinstance(budget, tuple | list) else (budget,)
  return {role: first, **{f'{role}_{each:.3g}'.replace('+', ''): each for each in more}}


def schedule(step, whole: float, budget: float | Array, start: int, end: int) -> Array:
  """The budget at `step`: `whole` up to `start`, `budget` from `end` on, fast at first between.

    budget + (whole - budget) (1 - (step - start) / (end - start))^3

  Zhu and Gupta 2017, of costs instead of shares. Works on numbers and on arrays in a step.
  """
  left = 1 - jnp.clip((step - start) / (end - start), 0, 1)
  return budget + (whole - budget) * left ** 3


@dataclasses.dataclass(frozen=True)
class GradualPruning:
  """A network that loses channels while it learns, until it costs at most `budget`.

  It learns whole for `start` steps. Then, each `every` steps, the channels that score highest stay,
  as many as `schedule` pays for; at step `end` that is the budget. What is dead stays dead: its
  parameters are held at 0, so the network generates what the small one would, at the price of the
  whole one, and `pruning.prune` with the same budget, unit and min_channels finds just what is
  left.

  budget: or several: then as many networks start alike and each comes to its own, see `roles`.
  criterion: 'norm', 'l1' or 'l2', see `pruning.scores`; unit: see `pruning.cost`; min_channels,
  round_to: see `pruning.keep`. Raises ValueError for contradictory numbers.
  """
  budget: float | tuple[float, ...]
  start: int
  end: int
  every: int = 10
  unit: str = 'macs'
  criterion: str = 'norm'
  min_channels: int = 1
  round_to: int = 1

  def __post_init__(self):
    budgets = self.roles('').values()
    if not all(budget > 0 for budget in budgets):
      raise ValueError(f'budget={self.budget}; a budget is above 0')
    if not 0 <= self.start < self.end or self.every < 1:
      raise ValueError(f'start={self.start}, end={self.end}, every={self.every}; 0 <= start < end '
                       'and every at least 1')
    if self.criterion not in ('norm', 'l1', 'l2'):
      raise ValueError(f'criterion={self.criterion!r}; one of norm, l1, l2: the others want more '
                       'than weights')

  def roles(self, role: str) -> dict[str, float]:
    """{role: budget} of the networks that are pruned, see `pruning.roles`."""
    return roles(role, self.budget)

  def masks(self, role: str, module: linen.Module, shape: Sequence[int]
            ) -> dict[str, dict[str, Array]]:
    """{role: its first masks: every channel lives}.

    shape: of one input, as (1, 256, 256, 3). Raises ValueError for a network without a plan, one
    that cannot be ranked, or a budget that even `min_channels` exceed.
    """
    plan, price = _known(module, tuple(shape), self.unit)
    params = shapes(module)['params']
    ranked = jax.eval_shape(lambda params: scores(plan, params, self.criterion), params)
    for budget in self.roles(role).values():
      search(plan, {name: np.zeros(x.shape) for name, x in ranked.items()}, price, budget,
             min_channels=self.min_channels, round_to=self.round_to)
    return {each: {name: jnp.ones(group.width, bool) for name, group in plan.groups.items()}
            for each in self.roles(role)}

  def advance(self, state: TrainState, role: str, module: linen.Module, shape: Sequence[int],
              budget: float | Array):
    """(the state, {'cost': of what is left, 'budget'}) after its step: the dead
    channels of `role` at 0, its masks in `state.frozen['masks']`. Jit-able, `budget` (what it
    comes to in the end) may be an array; every replica finds the same."""
    plan, price = _known(module, tuple(shape), self.unit)
    net, masks, step = state.nets[role], state.frozen['masks'][role], state.step
    budget = schedule(step, price(plan.widths), budget, self.start, self.end)
    due = ((step - self.start) % self.every == 0) | (step == self.end)
    due &= (step > self.start) & (step <= self.end)

    def fewer():
      # A dead channel scores least, so none comes back.
      ranked = {name: jnp.where(masks[name], x, -1.)
                for name, x in scores(plan, net.params, self.criterion).items()}
      return tighten(plan, ranked, price, budget, min_channels=self.min_channels,
                     round_to=self.round_to)

    masks = jax.lax.cond(due, fewer, lambda: dict(masks))
    held = functools.partial(apply_masks, plan, masks=masks)
    net = net.replace(params=held(net.params), ema=held(net.ema) if net.ema else ())
    left = price.total(jnp.stack([masks[name].sum() for name in price.groups]).astype(jnp.float32))
    kept = {**state.frozen['masks'], role: masks}
    return state.replace(nets={**state.nets, role: net}, frozen={**state.frozen, 'masks': kept}), {
        'cost': left, 'budget': budget}


@functools.lru_cache(maxsize=64)
def _known(module, shape, unit) -> tuple[Plan, Cost]:
  plan = module.plan()
  return plan, cost(module, plan, shape, unit)

