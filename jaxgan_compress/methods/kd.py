"""Knowledge distillation of GANs, Aguinaldo et al. 2019: a student mimics its teacher's pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
from flax import linen

from jaxgan_compress import core
from jaxgan_compress.core import Axes, Drawer, Net, TrainState, fixed
from jaxgan_compress.losses import image as image_losses
from jaxgan_compress.methods.gan import (
  BN_SYNC,
  Adversary,
  check_batch,
  choose,
  draw_training,
  start,
)


@dataclasses.dataclass(frozen=True)
class KD:
  """distill_weight * |teacher(z) - student(z)|^2 + adv_weight * (what deceives the judge).

  With adv_weight = 0 this is the MSE scheme: no discriminator, no real image. With both it is the
  joint scheme; the paper's formula writes alpha for adv_weight and 1 - alpha for distill_weight.
  The discriminator minimises its ordinary, unweighted loss.

  teacher: frozen; its variables come to `init` as `given['teacher']`. None: a teacher that is known
    by its pictures alone; the batch has them as 'target' and what they were drawn from as 'z' (see
    `data.record`), and with a judge they are what is real.
  mse_reduction: 'sum_pixels', the paper's squared norm, or 'mean', H*W*C times smaller.
  adversary: the discriminator, needed if adv_weight > 0.
  disc_from: 'teacher' goes on with `given['disc']`, 'fresh' starts anew, 'frozen' judges with
    `given['disc']` and never trains it.
  real_from: what the discriminator learns to call real: 'data', the teacher's drawings
    ('teacher', which makes the joint scheme data-free), or 'both'.
  fresh_z: the student's update draws new latents; False reuses the last of the discriminator's.
  teacher_mode: 'inference' makes the lesson a function of z alone; 'batch' lets the rest of the
    batch into it through batch norm, for ablations only.
  ema, init_scheme, bn_sync: as in `GAN`. given['student'], if any, is where the student starts.

  Roles: 'student', 'disc', frozen 'teacher'. Raises ValueError for contradictory fields.
  """
  student: linen.Module
  teacher: linen.Module | None
  tx: optax.GradientTransformation
  adv_weight: float = 0.
  distill_weight: float = 1.
  mse_reduction: str = 'sum_pixels'
  adversary: Adversary | None = None
  disc_from: str = 'teacher'
  real_from: str = 'data'
  fresh_z: bool = True
  teacher_mode: str = 'inference'
  ema: float = 0.
  init_scheme: str = 'dcgan'
  bn_sync: str = 'global'

  product = 'student'
  draws = True

  def __post_init__(self):
    choose('mse_reduction', self.mse_reduction, image_losses.REDUCTIONS)
    choose('disc_from', self.disc_from, ('teacher', 'fresh', 'frozen'))
    choose('real_from', self.real_from, ('data', 'teacher', 'both'))
    choose('teacher_mode', self.teacher_mode, ('inference', 'batch'))
    choose('bn_sync', self.bn_sync, BN_SYNC)
    if min(self.adv_weight, self.distill_weight) < 0 or not self.adv_weight + self.distill_weight:
      raise ValueError(f'adv_weight={self.adv_weight}, distill_weight={self.distill_weight}; '
                       'weights are at least 0 and not both 0')
    if self.adv_weight and self.adversary is None:
      raise ValueError(f'adv_weight={self.adv_weight} needs an adversary; give one, or '
                       'adv_weight=0')
    if self.adversary and self.adversary.relativistic:
      raise ValueError(f'loss={self.adversary.loss!r} compares drawings with real images, which a '
                       "student's update does not read; take another, as 'ns'")
    if self.teacher is None:
      for field, wanted in (('real_from', 'data'), ('fresh_z', True), ('teacher_mode', 'inference'),
                            *((('disc_from', 'fresh'),) if self.judged else ())):
        if getattr(self, field) != wanted:
          raise ValueError(f'teacher=None and {field}={getattr(self, field)!r}: of such a teacher '
                           f'there is nothing but its pictures; give {field}={wanted!r}')
    for field in ('latent', 'size', 'channels') if self.teacher else ():
      ours, theirs = getattr(self.student, field, None), getattr(self.teacher, field, None)
      if ours != theirs:
        raise ValueError(f'the student has {field}={ours} and the teacher {field}={theirs}; '
                         'a student draws the same images from the same latents')

  @property
  def needs_data(self) -> bool:
    return self.teacher is None or (
        self.judged and self.disc_from != 'frozen' and self.real_from != 'teacher')

  @property
  def updates(self) -> int:
    return self.adversary.n_critic if self.judged and self.disc_from != 'frozen' else 1

  @property
  def judged(self) -> bool:
    """Whether there is a discriminator at all."""
    return self.adv_weight > 0

  def init(self, rng, batch, given: Mapping[str, Net] | None = None) -> TrainState:
    given = dict(given or {})
    wanted = ({'teacher'} if self.teacher else set()) | (
        {'disc'} if self.judged and self.disc_from != 'fresh' else set())
    if missing := sorted(wanted - set(given)):
      raise ValueError(f'KD.init wants given={{role: Net}} with {missing}, got {sorted(given)}')
    s_key, d_key, rng = jax.random.split(rng, 3)
    student = start('student', self.student, s_key, self.student.example(),
                    scheme=self.init_scheme, given=given)
    nets = {'student': (student, self.tx)}
    frozen = {'teacher': given['teacher'].averaged} if self.teacher else {}
    if self.judged and self.disc_from == 'frozen':
      frozen['disc'] = given['disc'].variables
    elif self.judged:
      image = jax.eval_shape(lambda: self.student.apply(student, self.student.example())[0])
      disc = start('disc', self.adversary.disc, d_key, image, scheme=self.init_scheme,
                   given=given if self.disc_from == 'teacher' else None)
      nets['disc'] = disc, self.adversary.tx
    return core.create(rng, nets, frozen=frozen, ema=('student',) if self.ema else ())

  def step(self, state: TrainState, batch, axes: Axes = Axes()):
    if self.needs_data:
      check_batch(self, batch, 'target', *(() if self.teacher else ('z',)))
    size = core.rows(batch) // self.updates
    bn_axes = axes if self.bn_sync == 'global' else Axes()
    params, stats = state.nets['student'].params, state.nets['student'].stats
    logs = {}

    def latents(name):
      return axes.draw(jax.random.normal, state.key(name), (size, self.student.latent))

    def draw(params, z):
      return draw_training(self.student, {'params': params, **stats}, z, bn_axes)

    def real(i):
      images = []
      if self.real_from != 'teacher':
        images.append(batch['target'][i::self.updates])
      if self.real_from != 'data':
        images.append(self.lesson(state, latents(f'z_real{i}'), bn_axes))
      return jnp.concatenate(images)

    if self.judged and self.disc_from != 'frozen':
      state, logs = self.adversary.train(
          state, real, lambda i: draw(params, latents(f'z_disc{i}'))[0], axes, bn_axes)
    if self.teacher:
      z = latents('z' if self.fresh_z or not self.judged else f'z_disc{self.updates - 1}')
      lesson = self.lesson(state, z, bn_axes)
    else:
      z, lesson = batch['z'][:size], batch['target'][:size]

    def loss(params):
      image, stats = draw(params, z)
      mse = image_losses.mse(image, lesson, self.mse_reduction)
      total = self.distill_weight * mse
      terms = {'mse_per_pixel': image_losses.mse(image, lesson, 'mean')}
      moved = {'student': stats}
      if self.judged:
        terms['adv'], seen = self.adversary.deceived(self.disc_variables(state), image, None, None,
                                                     bn_axes)
        total += self.adv_weight * terms['adv']
        moved |= {'disc': seen} if 'disc' in state.nets else {}
      return total, ({'loss': total, **terms}, moved)

    grads, (terms, stats) = jax.grad(loss, has_aux=True)(params)
    state, norms = core.advance(state, {'student': grads}, {'student': self.tx}, axes,
                                ema=self.ema)
    for name, new in axes.mean(stats).items():
      state = state.with_stats(name, new)
    return state.tick(), {**terms, **logs, **norms}

  def lesson(self, state: TrainState, z, bn_axes: Axes = Axes()):
    """The teacher's drawing of z, [B,H,W,C]; nothing learns through it."""
    teacher = state.frozen['teacher']
    if self.teacher_mode == 'batch':
      return fixed(draw_training(self.teacher, teacher, z, bn_axes)[0])
    return fixed(self.teacher.apply(teacher, z, train=False)[0])

  def disc_variables(self, state: TrainState):
    """The judge where it now stands."""
    return state.frozen['disc'] if self.disc_from == 'frozen' else state.nets['disc'].variables

  def generators(self, state: TrainState) -> dict[str, Drawer]:
    return {'student': Drawer(state.nets['student'].averaged, self.student),
            **({'teacher': Drawer(state.frozen['teacher'], self.teacher)} if self.teacher else {})}
