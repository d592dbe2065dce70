"""Students of a method: their adapters, their losses, and pruning while they learn."""

from __future__ import annotations

from collections.abc import Mapping

import jax
from flax import linen

from jaxgan_compress.core import Axes, TrainState, merge_logs, stop_gradient
from jaxgan_compress.methods.distillation import Output
from jaxgan_compress.methods.setup import check_same, choose, forward_train


def init_adapters(method, variables: Mapping, source, key, init_from) -> dict:
  """{'<student>_adapters': variables} of a method's students; {} where no term needs them.

  variables: of its networks, by role. Raises ValueError for taps that do not fit.
  """
  taps, adapters = method.distill.taps, {}
  for student, teacher in method.roles.teacher_of.items() if taps else ():
    shapes = taps.shapes((student, teacher), *(
        (method.modules[role], variables[role]) for role in (student, teacher)), source)
    role = f'{student}_adapters'
    if taps.adapted:
      number = key_number(method, student, tuple(method.roles.teacher_of))
      adapters[role] = taps.init_adapters(shapes, jax.random.fold_in(key, number),
                                          method.init_scheme)
      if init_from and role in init_from:
        adapters[role] = check_same(role, init_from, adapters[role], f'{student} with its teacher')
  return adapters


def student_losses(method, params, state: TrainState, students: Mapping[str, tuple], axes: Axes):
  """({student: loss}, logs, {role: new collections}) of students that learn by `method.distill`.

  students: {role: (its module, its input, {teacher: Output})}.
  """
  losses, logs, collections = {}, {}, {}
  for role, (module, x, teachers) in students.items():
    variables = {'params': params[role], **state.nets[role].collections}
    (image, taps), collections[role] = forward_train(module, variables, x, axes)
    adapters = f'{role}_adapters'
    of_adapters = {'params': params[adapters], **state.nets[adapters].collections} \
        if adapters in state.nets else None
    losses[role], terms, more_logs, moved = method.distill.loss(
        role, method.distill.output(state.frozen, image, taps), teachers, of_adapters, axes)
    logs = merge_logs(logs, {role: {**terms, 'loss': losses[role]}}, more_logs)
    if moved:
      collections[adapters] = moved
  return losses, logs, collections


def teacher_output(method, state: TrainState, generated) -> Output:
  """The `Output` of a teacher's (image, taps), which nothing learns through."""
  return method.distill.output(state.frozen, *stop_gradient(generated))


def pruned_students(method) -> dict[str, linen.Module]:
  """The students of a method that lose channels while they learn, by role."""
  student: linen.Module = method.student
  return dict.fromkeys(method.gradual_pruning.roles('student'), student) \
      if method.gradual_pruning else {}


def key_number(method, role: str, roles: tuple[str, ...]) -> int:
  """The number of a role's random key: students that are pruned to different budgets start from the
  same weights."""
  return roles.index('student' if role in pruned_students(method) else role)


def prune_students(method, state: TrainState, logs, batch):
  """(state, logs) of a step, after the channels that are due have been pruned."""
  shape = (1, *batch['source'].shape[1:])
  for role, budget in method.gradual_pruning.roles('student').items() \
      if method.gradual_pruning else ():
    state, costs = method.gradual_pruning.advance(state, role, method.student, shape, budget)
    logs = merge_logs(logs, {name: {role: value} for name, value in costs.items()})
  return state, logs


def check_teacher_params(teacher_params: str, ema: float):
  """Raises ValueError for teachers of averaged weights where no average is kept."""
  choose('teacher_params', teacher_params, ('current', 'ema'))
  if teacher_params == 'ema' and not ema:
    raise ValueError("teacher_params='ema' teaches by averaged teachers; give ema, as 0.999")


def check_extra(extra_students: Mapping, taken):
  """Raises ValueError for an extra student that bears the name of another role."""
  if both := sorted(set(extra_students) & set(taken)):
    raise ValueError(f'extra_students has {", ".join(both)}, which is taken; call it something '
                     'else')
