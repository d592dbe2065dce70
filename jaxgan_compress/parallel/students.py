"""Students of one kind, each on devices of its own, beside one teacher on all.

In a state they stand by role, as everywhere; inside a step each place sees its own one alone, under
the first role.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxgan_compress.core import TrainState


def stack(state: TrainState, roles: Sequence[str]) -> tuple[TrainState, dict]:
  """(the state without the students, theirs with leaves `[students, ...]`)."""
  parts = [_of(state, role) for role in roles]
  rest = state
  for role in roles:
    rest = _without(rest, role)
  return rest, jax.tree.map(lambda *x: jnp.stack(x), *parts)


def unstack(rest: TrainState, stacked: dict, roles: Sequence[str]) -> TrainState:
  """The state whose students these are; of one role, leaves `[1, ...]`."""
  for i, role in enumerate(roles):
    rest = _with(rest, role, jax.tree.map(lambda x, i=i: x[i], stacked))
  return rest


def of_student(name: str, role: str) -> bool:
  """Whether a logged term is of a role: 'grad_student', 'student_loss', 'similar_student_stem'."""
  return re.search(rf'(^|_){role}(_|$)', name) is not None


def renamed(logs: dict, roles: Sequence[str]) -> dict:
  """The logs of all, of those of the first with leaves `[students]`."""
  return {re.sub(rf'(^|_){roles[0]}(?=_|$)', rf'\1{role}', name): value[i]
          for i, role in enumerate(roles) for name, value in logs.items()}


def _of(state, role):
  nets = {kind: state.nets[role + kind] for kind in ('', '_adapters') if role + kind in state.nets}
  masks = state.frozen.get('masks', {})
  return {'nets': nets, 'masks': masks.get(role, {})}


def _without(state, role):
  frozen = dict(state.frozen)
  if 'masks' in frozen:
    frozen['masks'] = {other: x for other, x in frozen['masks'].items() if other != role}
  return state.replace(frozen=frozen, nets={
      name: net for name, net in state.nets.items() if name not in (role, f'{role}_adapters')})


def _with(state, role, part):
  frozen = dict(state.frozen)
  if 'masks' in frozen:
    frozen['masks'] = {**frozen['masks'], role: part['masks']}
  return state.replace(frozen=frozen, nets={
      **state.nets, **{role + kind: net for kind, net in part['nets'].items()}})
