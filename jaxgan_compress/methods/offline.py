"""Distillation after the teacher has finished: the classic order, by the terms of OMGD."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
from flax import linen

from jaxgan_compress import core
from jaxgan_compress.core import Axes, BoundGenerator, Net, Roles, TrainState, stop_gradient
from jaxgan_compress.methods.adversary import Adversary
from jaxgan_compress.methods.distillation import DistillLoss
from jaxgan_compress.methods.pix2pix import pix2pix_step
from jaxgan_compress.methods.setup import (
  check_batch,
  check_weights,
  init_net,
  need_disc,
  need_teacher,
  refuse_dropout,
)
from jaxgan_compress.methods.students import (
  check_extra,
  finished_discriminator,
  init_adapters,
  student_losses,
  teacher_output,
)


@dataclasses.dataclass(frozen=True)
class Offline:
  """A student learns by the terms of OMGD from a teacher that has finished.

  batch: `{'source'}`. teacher: frozen; its variables come to `init` as init_from['teacher'], and it
  generates in inference mode, once a step for all. None: a teacher that is known by its images
  alone, which the batch has as 'target' (see `data.record`), and without taps. distill, tx,
  extra_students, extra_distill, ema: as `OMGD`.
  adversary: a discriminator that learns to tell the teacher's images from those of the student,
  which minimises adv_weight times its GAN loss as well; the weight rises over `adv_rise` steps.
  teacher_adversary: the one that the teacher has learned against, for terms that ask its
  discriminator; the variables come as init_from['disc'] and stay.

  Roles: 'student', the extra students, each with '_adapters', frozen 'teacher', 'features'. Raises
  ValueError for contradictory fields.
  """
  student: linen.Module
  teacher: linen.Module | None
  tx: optax.GradientTransformation
  distill: DistillLoss = DistillLoss()
  extra_students: Mapping[str, linen.Module] = dataclasses.field(default_factory=dict)
  extra_distill: Mapping[str, DistillLoss] = dataclasses.field(default_factory=dict)
  ema: float = 0.
  init_scheme: str = 'normal'
  adversary: Adversary | None = None
  adv_weight: float = 1.
  adv_rise: int = 0
  teacher_adversary: Adversary | None = None

  main = 'student'
  is_generator = True
  needs_data = True
  updates = 1
  gradual_pruning = None

  def __post_init__(self):
    refuse_dropout(self.students)
    check_extra(self, ('student', 'teacher', 'disc'))
    check_weights(self, 'adv_weight', 'adv_rise')
    losses = (self.distill, *self.extra_distill.values())
    tap_terms = [term for loss in losses for term in loss.tap_terms]
    if self.teacher is None and tap_terms:
      raise ValueError(f'{tap_terms[0]} and teacher=None, whose images are all that is known '
                       f'of it; leave out {type(tap_terms[0]).__name__}')
    if any(loss.needs_disc for loss in losses) and not self.teacher_adversary:
      raise ValueError('a term asks the discriminator of the teacher, and there is none; give '
                       "teacher_adversary, and its variables as init_from['disc']")
    if self.teacher_adversary and self.teacher_adversary.relativistic:
      raise ValueError(f'teacher_adversary has loss={self.teacher_adversary.loss!r}, which '
                       'compares with real images, and a finished teacher teaches without them')
    if self.adversary and self.teacher_adversary:
      raise ValueError('adversary and teacher_adversary are both given; one scores the student')
    if self.adversary:
      self.adversary.check_translation()
      if self.extra_students or self.distill.adapted:
        raise ValueError('an adversary is for one student without adapters; leave out '
                         'extra_students, and take another similarity')

  @property
  def students(self) -> dict[str, linen.Module]:
    return {'student': self.student, **self.extra_students}

  @property
  def teachers(self) -> dict[str, linen.Module]:
    return {'teacher': self.teacher} if self.teacher else {}

  @property
  def roles(self) -> Roles:
    return Roles('student', tuple(self.students), tuple(self.teachers),
                 dict.fromkeys(self.students, 'teacher') if self.teacher else {},
                 disc=('disc',) if self.adversary else ())

  @property
  def modules(self) -> dict[str, linen.Module]:
    return {**self.students, **self.teachers, **self.distill.modules,
            **({'disc': given.disc} if (given := self.adversary or self.teacher_adversary)
               else {})}

  @property
  def _needed(self) -> tuple[str, ...]:
    """What a batch has to have."""
    return ('source',) if self.teacher else ('source', 'target')

  def init(self, rng, batch, init_from: Mapping[str, Net] | None = None) -> TrainState:
    check_batch(self, batch, *self._needed)
    source = batch['source'][:1]
    teacher = {'teacher': need_teacher(self, init_from)} if self.teacher else {}
    s_key, a_key, rng = jax.random.split(rng, 3)
    nets = {role: init_net(role, module, jax.random.fold_in(s_key, i) if i else s_key, source,
                           scheme=self.init_scheme, init_from=init_from)
            for i, (role, module) in enumerate(self.students.items())}
    adapters, frozen = init_adapters(self, {**nets, **teacher}, source, a_key, init_from)
    learning = {role: (net, self.tx) for role, net in {**nets, **adapters}.items()}
    if self.adversary:
      image = self._taught({'teacher': teacher['teacher']} if self.teacher else {}, batch)[0][:1]
      disc = init_net('disc', self.adversary.disc, jax.random.fold_in(rng, 0), image, source,
                      scheme=self.init_scheme, init_from=init_from)
      learning['disc'] = disc, self.adversary.tx
      frozen |= self.adversary.frozen()
    if self.teacher_adversary:
      image = jax.eval_shape(lambda: self._taught(teacher, batch)[0][:1])
      frozen['teacher_disc'] = need_disc(self, init_from, self.teacher_adversary.disc, image,
                                         source)
    return core.create(rng, learning,
                       frozen={**teacher, **self.distill.frozen(init_from), **frozen},
                       ema=nets if self.ema else ())

  def losses(self, params, state: TrainState, batch, axes: Axes = Axes()):
    """As of `OMGD`, for the students."""
    check_batch(self, batch, *self._needed)
    teachers = {'teacher': self._output(state, self._taught(state.frozen, batch), batch, axes)}
    losses, *rest, _ = student_losses(
        self, params, state, {role: (module, batch['source'], teachers)
                              for role, module in self.students.items()}, axes)
    return losses, (*rest, state.replica_state)

  def _output(self, state, taught, batch, axes):
    """The teacher's `Output`, with its discriminator where that was given."""
    return teacher_output(self, state, taught, self.teacher_adversary and finished_discriminator(
        self.teacher_adversary, state, batch['source'], axes))

  def _taught(self, frozen, batch):
    """(the teacher's images, its taps)."""
    return self.teacher.apply(frozen['teacher'], batch['source']) if self.teacher else (
        batch['target'], {})

  def step(self, state: TrainState, batch, axes: Axes = Axes()):
    if self.adversary:
      return self._adversarial_step(state, batch, axes)
    return core.update_together(
        state, lambda params: self.losses(params, state, batch, axes), state.nets,
        dict.fromkeys(state.nets, self.tx), axes, ema=self.ema)

  def _adversarial_step(self, state, batch, axes):
    check_batch(self, batch, *self._needed)
    taught = self._taught(state.frozen, batch)
    teachers = {'teacher': self._output(state, taught, batch, axes)}

    def terms(generated, taps, helpers):
      student = self.distill.output(state.frozen, generated, taps)
      return self.distill.loss('student', student, teachers, None, axes,
                               state.frozen.get('projections', {}).get('student'))[1]

    rise = jnp.minimum(1., (state.step + 1) / self.adv_rise) if self.adv_rise else 1.
    names = tuple(dict.fromkeys(
        name for term in self.distill.tap_terms for name in term.names))
    return pix2pix_step(self, state, {**batch, 'target': stop_gradient(taught[0])}, axes, terms,
                        batch['source'], taps=names, adv_weight=self.adv_weight * rise)

  def generators(self, state: TrainState) -> dict[str, BoundGenerator]:
    return {**{role: BoundGenerator(state.nets[role].averaged, module)
               for role, module in self.students.items()},
            **{role: BoundGenerator(state.frozen[role], module)
               for role, module in self.teachers.items()}}
