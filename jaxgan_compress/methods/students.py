"""Students of a method: their adapters, their losses, and pruning while they learn."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
from flax import linen

from jaxgan_compress.core import Axes, TrainState, merge_logs, stop_gradient
from jaxgan_compress.methods.adversary import Adversary, FixedDiscriminator
from jaxgan_compress.methods.distillation import DistillLoss
from jaxgan_compress.methods.setup import check_same, choose, forward_train, sees_source
from jaxgan_compress.methods.terms import Output


def init_adapters(method, variables: Mapping, source, key, init_from) -> tuple[dict, dict]:
  """({'<student>_adapters': variables that learn with a student}, {'projections': {student: those
  that do not}}) of a method's students; empty where no term needs them.

  variables: of its networks, by role. Raises ValueError for taps that do not fit.
  """
  adapters, projections = {}, {}
  for student, teacher in method.roles.teacher_of.items():
    number = key_number(method, student, tuple(method.roles.teacher_of))
    ours, theirs = ((method.modules[role], variables[role]) for role in (student, teacher))
    learning, fixed = loss_of(method, student).init_adapters(
        (student, teacher), ours, theirs, source, jax.random.fold_in(key, number),
        method.init_scheme, method.modules.get('disc'))
    role = f'{student}_adapters'
    if learning:
      adapters[role] = learning if not init_from or role not in init_from else check_same(
          role, init_from, learning, f'{student} with its teacher')
    if fixed:
      projections[student] = fixed
  return adapters, {'projections': projections} if projections else {}


def loss_of(method, student: str) -> DistillLoss:
  """What a student minimises."""
  return method.extra_distill.get(student, method.distill)


def student_losses(method, params, state: TrainState, students: Mapping[str, tuple], axes: Axes):
  """({student: loss}, logs, {role: new collections}, {student: image}) of students that learn by
  `method.distill`.

  students: {role: (its module, its input, {teacher: Output})}.
  """
  losses, logs, collections, images = {}, {}, {}, {}
  for role, (module, x, teachers) in students.items():
    variables = {'params': params[role], **state.nets[role].collections}
    (images[role], taps), collections[role] = forward_train(module, variables, x, axes)
    adapters = f'{role}_adapters'
    of_adapters = {'params': params[adapters], **state.nets[adapters].collections} \
        if adapters in state.nets else None
    losses[role], terms, more_logs, moved = loss_of(method, role).loss(
        role, method.distill.output(state.frozen, images[role], taps), teachers, of_adapters, axes,
        state.frozen.get('projections', {}).get(role))
    logs = merge_logs(logs, {role: {**terms, 'loss': losses[role]}}, more_logs)
    if moved:
      collections[adapters] = moved
  return losses, logs, collections, images


def teacher_output(method, state: TrainState, generated, disc=None, target=None) -> Output:
  """The `Output` of a teacher's (image, taps), which nothing learns through. disc: its
  discriminator, a `FixedDiscriminator`. target: the true images, of pairs."""
  return method.distill.output(state.frozen, *stop_gradient(generated), disc=disc, target=target)


def finished_discriminator(adversary: Adversary, state: TrainState, source, axes: Axes
                           ) -> FixedDiscriminator:
  """The discriminator of a teacher that has finished, which `setup.need_disc` put into the state.
  How often an adaptive augmentation happened in the end is not known: there it sees images as they
  are.
  """
  if adversary.adaptive:
    adversary = dataclasses.replace(adversary, adaptive=None, augment=None)
  return FixedDiscriminator(adversary, state.frozen['teacher_disc'],
                            source if sees_source(adversary.disc, source) else None,
                            adversary.view(state, axes), axes)


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


def check_extra(method, taken):
  """Raises ValueError for an extra student that bears the name of another role, and for a
  `DistillLoss` of no extra student, or one that needs other features than the first one's."""
  if both := sorted(set(method.extra_students) & set(taken)):
    raise ValueError(f'extra_students has {", ".join(both)}, which is taken; call it something '
                     'else')
  if unknown := sorted(method.extra_distill.keys() - method.extra_students.keys()):
    raise ValueError(f'extra_distill has {", ".join(unknown)}, and extra_students has '
                     f'{", ".join(method.extra_students) or "nobody"}; name students of it')
  for role, distill in method.extra_distill.items():
    if distill.border != method.distill.border or (
        distill.modules and distill.modules != method.distill.modules):
      raise ValueError(f'extra_distill[{role!r}] has another border or feature network than '
                       'distill; images and features are made once for all students: give the '
                       'same')
