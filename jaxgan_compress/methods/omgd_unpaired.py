"""OMGD without pairs, Ren et al. 2021: students learn from the generators of a CycleGAN."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
from flax import linen

from jaxgan_compress import core
from jaxgan_compress.core import Axes, BoundGenerator, Net, Roles, TrainState, stop_gradient
from jaxgan_compress.methods.adversary import FixedDiscriminator
from jaxgan_compress.methods.cyclegan import DISC, OPPOSITE, CycleGAN, side_of
from jaxgan_compress.methods.distillation import DistillLoss
from jaxgan_compress.methods.setup import check_batch, init_net, refuse_dropout
from jaxgan_compress.methods.students import (
  check_extra,
  check_teacher_params,
  init_adapters,
  key_number,
  prune_students,
  pruned_students,
  student_losses,
  teacher_output,
)
from jaxgan_compress.pruning import GradualPruning

# A score that no teacher has: checkpoints hold finite numbers only.
UNKNOWN = float(jnp.finfo(jnp.float32).max)


@dataclasses.dataclass(frozen=True)
class AlternatingSchedule:
  """The order of published unpaired runs: `teacher_steps` steps of the teachers, `student_steps` of
  the students, and so on, until the teachers took `total` steps (None: for ever); the last block
  may be shorter.

  horse2zebra at batch 1: teacher_steps 10 epochs of 1334 steps, student_steps 40 epochs, total 200.
  Raises ValueError for numbers below 1.
  """
  teacher_steps: int
  student_steps: int
  total: int | None = None

  def __post_init__(self):
    for name, value in dataclasses.asdict(self).items():
      if value is not None and value < 1:
        raise ValueError(f'{name}={value}; at least 1 step')

  @property
  def steps(self) -> int | None:
    """The steps of the whole run, teachers' and students'."""
    return self.total and self.total + math.ceil(
        self.total / self.teacher_steps) * self.student_steps

  def teaching(self, step):
    """Whether the step that follows `step` steps is one of the teachers'."""
    length = self.teacher_steps + self.student_steps
    block, inside = step // length, step % length
    if self.total is None:
      return inside < self.teacher_steps
    last = math.ceil(self.total / self.teacher_steps) - 1
    short = self.total - last * self.teacher_steps
    return ((block < last) & (inside < self.teacher_steps)) | ((block == last) & (inside < short))


@dataclasses.dataclass(frozen=True)
class OMGDCycle:
  """Students of unpaired translation learn from the generators of a CycleGAN, by a `DistillLoss`.

  Without a schedule all learn at every step, each student from the image of its teacher in that
  step: truly online, as the paper's text has it. With `schedule=AlternatingSchedule(...)` teachers
  and students take turns, as its code does, and a student learns from the best teacher so far:
  `update_best_teachers` says which that is. Until it has been called the newest teaches.

  batch: as `CycleGAN`. cycle: the teachers and how they learn.
  student: A to B, as `generator` of the cycle. student_ba: B to A, or None. extra_students: more
    students from A to B, {role: generator}. extra_distill: what some of them minimise instead.
  tx: of students and their adapters. distill: what they minimise. teacher_params: 'current' or
    'ema', for runs without a schedule.
  gradual_pruning: as of `OMGD`, for the role 'student' and those of further budgets.
  Students are averaged if the teachers are, by cycle.ema.

  Networks that do not learn in a step have zeros in its log. Roles: those of `CycleGAN`, 'student',
  the extra students, 'student_ba', each with '_adapters'; frozen 'features', and with a schedule
  'best'. Ren et al. 2021. Raises ValueError for contradictory fields.
  """
  student: linen.Module
  cycle: CycleGAN
  tx: optax.GradientTransformation
  distill: DistillLoss = DistillLoss()
  schedule: AlternatingSchedule | None = None
  student_ba: linen.Module | None = None
  extra_students: Mapping[str, linen.Module] = dataclasses.field(default_factory=dict)
  extra_distill: Mapping[str, DistillLoss] = dataclasses.field(default_factory=dict)
  teacher_params: str = 'current'
  gradual_pruning: GradualPruning | None = None
  init_scheme: str = 'normal'

  main = 'student'
  is_generator = True
  needs_data = True
  updates = 1

  def __post_init__(self):
    check_teacher_params(self.teacher_params, self.cycle.ema)
    refuse_dropout(self.students)
    if self.schedule and self.teacher_params == 'ema':
      raise ValueError("teacher_params='ema' and a schedule exclude each other; the best teacher "
                       'is averaged anyhow where cycle.ema is given')
    check_extra(self, {*OPPOSITE, *DISC.values(), 'student', 'student_ba'})

  @property
  def adversary(self):
    return self.cycle.adversary

  @property
  def teachers(self) -> dict[str, linen.Module]:
    return self.cycle.translators

  @property
  def students(self) -> dict[str, linen.Module]:
    reverse = {'student_ba': self.student_ba} if self.student_ba else {}
    return {'student': self.student, **self.extra_students, **pruned_students(self), **reverse}

  @property
  def roles(self) -> Roles:
    teacher_of = {role: 'generator_ba' if role == 'student_ba' else 'generator'
                  for role in self.students}
    reverse = ('generator_ba',) + ('student_ba',) * (self.student_ba is not None)
    return Roles('student', tuple(self.students), tuple(self.teachers), teacher_of, reverse,
                 tuple(DISC.values()))

  @property
  def modules(self) -> dict[str, linen.Module]:
    return {**self.students, **self.cycle.modules, **self.distill.modules}

  def init(self, rng, batch, init_from: Mapping[str, Net] | None = None) -> TrainState:
    check_batch(self, batch, 'source', 'target')
    rng, s_key, a_key = jax.random.split(rng, 3)
    state = self.cycle.init(rng, batch, init_from)
    nets = {}
    for role, module in self.students.items():
      key = jax.random.fold_in(s_key, key_number(self, role, tuple(self.students)))
      x = side_of(batch, self.roles.teacher_of[role])[:1]
      nets[role] = init_net(role, module, key, x, scheme=self.init_scheme, init_from=init_from)
    known = {**nets, **{role: state.nets[role].variables for role in self.teachers}}
    adapters, frozen = init_adapters(self, known, batch['source'][:1], a_key, init_from)
    frozen |= self.distill.frozen(init_from) | state.frozen
    if self.schedule:
      frozen['best'] = {role: {'score': jnp.float32(UNKNOWN),
                               'variables': state.nets[role].averaged} for role in self.teachers}
    if self.gradual_pruning:
      frozen['masks'] = self.gradual_pruning.masks('student', self.student,
                                                   batch['source'][:1].shape)
    learners = core.create(
        state.rng, {role: (net, self.tx) for role, net in {**nets, **adapters}.items()},
        frozen=frozen, ema=nets if self.cycle.ema else ())
    return learners.replace(nets={**state.nets, **learners.nets},
                            replica_state=state.replica_state)

  def losses(self, params, state: TrainState, batch, axes: Axes = Axes()):
    """Those of all networks at once, see `CycleGAN.losses`; {learner: loss} has the students,
    too."""
    losses, (logs, collections, pools, outputs) = self.cycle.losses(params, state, batch, axes)
    if self.teacher_params == 'ema':
      outputs = self._generate(batch, lambda role: state.nets[role].averaged)
    student, student_logs, student_collections = self._student_losses(
        params, state, batch, outputs, axes)
    return {**losses, **student}, (core.merge_logs(logs, student_logs), {
        **collections, **student_collections}, pools)

  def step(self, state: TrainState, batch, axes: Axes = Axes()):
    check_batch(self, batch, 'source', 'target')
    teachers = (*self.teachers, *DISC.values())
    students = tuple(role for role in state.nets if role not in teachers)
    tx = {**dict.fromkeys(state.nets, self.tx), **self.cycle.optimisers}

    def move(losses, learners):
      return core.update_together(state, losses, learners, tx, axes, ema=self.cycle.ema)

    def teacher_turn(params):
      losses, (*rest, _) = self.cycle.losses(params, state, batch, axes)
      return losses, tuple(rest)

    def student_turn(params):
      outputs = self._generate(batch, lambda role: self._best(state, role))
      losses, *rest = self._student_losses(params, state, batch, outputs, axes)
      return losses, (*rest, state.replica_state)

    if self.schedule is None:
      moved, logs = self._adapted(*move(lambda params: self.losses(params, state, batch, axes),
                                        teachers + students), batch, axes)
    else:
      turns = [lambda: self._adapted(*move(teacher_turn, teachers), batch, axes),
               lambda: move(student_turn, students)]
      # Networks that rest log zeros, so that both branches have the same logs.
      zeros = core.merge_logs(*(jax.tree.map(lambda x: jnp.zeros(()), jax.eval_shape(turn)[1])
                                for turn in turns))
      both = [lambda turn=turn: (lambda new, logs: (new, core.merge_logs(zeros, logs)))(*turn())
              for turn in turns]
      moved, logs = jax.lax.cond(self.schedule.teaching(state.step), *both)
    return prune_students(self, moved, logs, batch)

  def _adapted(self, state, logs, batch, axes):
    return self.cycle.adversary.adapt(state, logs, len(batch['source']), axes)

  def update_best_teachers(self, state: TrainState, scores: Mapping[str, float]) -> TrainState:
    """The state in which each teacher that beats its best score (lower is better) is the best.

    scores: {'generator': its score, 'generator_ba': ...}, measured outside. Raises ValueError
    without a schedule.
    """
    if not self.schedule:
      raise ValueError('there is no best teacher without a schedule; all teach as they are')
    best = dict(state.frozen['best'])
    for role, score in scores.items():
      if score < float(best[role]['score']):
        best[role] = {'score': jnp.float32(score), 'variables': jax.tree.map(
            jnp.copy, state.nets[role].averaged)}
    return state.replace(frozen={**state.frozen, 'best': best})

  def generators(self, state: TrainState) -> dict[str, BoundGenerator]:
    """Students, and the teachers that they learn from: with a schedule, the best so far."""
    teachers = {role: BoundGenerator(self._best(state, role), module)
                for role, module in self.teachers.items()} if self.schedule else \
        self.cycle.generators(state)
    return {**{role: BoundGenerator(state.nets[role].averaged, module)
               for role, module in self.students.items()}, **teachers}

  def _student_losses(self, params, state, batch, outputs, axes):
    """What the students minimise, from `{teacher: (image, taps)}`."""
    teacher_of = self.roles.teacher_of
    adversary = self.cycle.adversary

    def disc_of(role):  # of the side that this teacher translates to
      disc, real = DISC[role], side_of(batch, OPPOSITE[role])
      variables = {'params': params[disc], **state.nets[disc].collections}
      view = adversary.view(state, axes, disc)
      of_real = stop_gradient(adversary.apply(variables, *view('of_real', real), axes)[0][0]) \
          if adversary.relativistic else {}
      return FixedDiscriminator(adversary, variables, None, view, axes, real=of_real)

    teachers = {role: teacher_output(self, state, outputs[role], disc_of(role))
                for role in dict.fromkeys(teacher_of.values())}
    return student_losses(self, params, state, {
        role: (module, side_of(batch, teacher_of[role]), {
            teacher_of[role]: teachers[teacher_of[role]]})
        for role, module in self.students.items()}, axes)[:3]

  def _generate(self, batch, variables):
    """{teacher: (image, taps)} in inference mode; variables: of a role."""
    return {role: module.apply(variables(role), side_of(batch, role))
            for role, module in self.teachers.items()}

  def _best(self, state, role):
    best, net = state.frozen['best'][role], state.nets[role]
    return jax.tree.map(lambda a, b: jnp.where(best['score'] < UNKNOWN, a, b), best['variables'],
                        net.averaged)
