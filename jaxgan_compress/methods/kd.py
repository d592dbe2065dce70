"""Knowledge distillation of GANs, Aguinaldo et al. 2019: a student mimics its teacher's pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
from flax import linen

from jaxgan_compress import core, nn
from jaxgan_compress.core import Axes, BoundGenerator, Net, Roles, TrainState, stop_gradient
from jaxgan_compress.losses import image as image_losses
from jaxgan_compress.methods.adversary import Adversary
from jaxgan_compress.methods.distillation import DistillLoss
from jaxgan_compress.methods.gan import BN_SYNC
from jaxgan_compress.methods.setup import check_batch, choose, forward_train, init_net
from jaxgan_compress.methods.tap_terms import Taps


@dataclasses.dataclass(frozen=True)
class KD:
  """distill_weight * |teacher(z) - student(z)|^2 + adv_weight * (the student's GAN loss).

  With adv_weight = 0 this is the MSE scheme: no discriminator, no real image. With both it is the
  joint scheme; the paper's formula writes alpha for adv_weight and 1 - alpha for distill_weight.
  The discriminator minimises its ordinary, unweighted loss.

  teacher: frozen; its variables come to `init` as `init_from['teacher']`. None: a teacher that is
    known by its images alone; the batch has them as 'target' and what they were generated from as
    'z' (see `data.record`), and for a discriminator they are what is real.
  mse_reduction: 'sum_pixels', the paper's squared norm, or 'mean', H*W*C times smaller.
  adversary: the discriminator, needed if adv_weight > 0.
  disc_init: 'teacher' continues from `init_from['disc']`, 'fresh' starts anew, 'frozen' uses
    `init_from['disc']` and never trains it.
  real_from: what the discriminator learns to call real: 'data', the teacher's images ('teacher',
    which makes the joint scheme data-free), or 'both'.
  distill: further terms between the student's and the teacher's images, see `DistillLoss`; terms
    with adapters are for image-to-image methods.
  ema, init_scheme, bn_sync: as in `GAN`. init_from['student'], if any, is where the student starts.

  Roles: 'student', 'disc', frozen 'teacher' and 'features'. Raises ValueError for contradictory
  fields.
  """
  student: linen.Module
  teacher: linen.Module | None
  tx: optax.GradientTransformation
  adv_weight: float = 0.
  distill_weight: float = 1.
  mse_reduction: str = 'sum_pixels'
  adversary: Adversary | None = None
  disc_init: str = 'teacher'
  real_from: str = 'data'
  distill: DistillLoss | None = None
  ema: float = 0.
  init_scheme: str = 'dcgan'
  bn_sync: str = 'global'

  main = 'student'
  is_generator = True

  def __post_init__(self):
    choose('mse_reduction', self.mse_reduction, image_losses.REDUCTIONS)
    choose('disc_init', self.disc_init, ('teacher', 'fresh', 'frozen'))
    choose('real_from', self.real_from, ('data', 'teacher', 'both'))
    choose('bn_sync', self.bn_sync, BN_SYNC)
    if min(self.adv_weight, self.distill_weight) < 0 or not self.adv_weight + self.distill_weight:
      raise ValueError(f'adv_weight={self.adv_weight}, distill_weight={self.distill_weight}; '
                       'weights are at least 0 and not both 0')
    if self.adv_weight and self.adversary is None:
      raise ValueError(f'adv_weight={self.adv_weight} needs an adversary; give one, or '
                       'adv_weight=0')
    if self.adversary and self.adversary.relativistic:
      raise ValueError(f'loss={self.adversary.loss!r} compares generated images with real ones, '
                       "which a student's update does not read; take another, as 'ns'")
    if self.distill:
      self._check_distill(self.distill)
    if self.teacher is None:
      self._check_images_only()
    else:
      self._check_same_images()

  def _check_distill(self, distill: DistillLoss):
    for term in distill.tap_terms:
      if not isinstance(term, Taps):
        raise ValueError(f'KD takes no {type(term).__name__}, which is for image-to-image methods; '
                         'leave it out')
      if term.adapted:
        raise ValueError(f'KD takes no adapters, and similarity={term.similarity!r} '
                         "needs them; take another, as 'ka'")
    if distill.needs_disc:
      raise ValueError('a term of distill asks the discriminator of a teacher; KD scores its '
                       "student by adv_weight and adversary, the teacher's with "
                       "disc_init='frozen'")

  def _check_images_only(self):
    for field, needed in (('real_from', 'data'),
                          *((('disc_init', 'fresh'),) if self.uses_disc else ())):
      if getattr(self, field) != needed:
        raise ValueError(f'teacher=None and {field}={getattr(self, field)!r}: of such a teacher '
                         f'there is nothing but its images; give {field}={needed!r}')
    if self.distill and self.distill.taps:
      raise ValueError('teacher=None and Taps: of such a teacher there is nothing but its images; '
                       'leave Taps out of distill')

  def _check_same_images(self):
    for field in ('latent', 'size', 'channels'):
      ours, theirs = (vars(nn.plain(module)).get(field)
                      for module in (self.student, self.modules['teacher']))
      if ours != theirs:
        raise ValueError(f'the student has {field}={ours} and the teacher {field}={theirs}; '
                         'a student generates the same images from the same latents')

  @property
  def needs_data(self) -> bool:
    return self.teacher is None or (self.trains_disc and self.real_from != 'teacher')

  @property
  def updates(self) -> int:
    return self.adversary.disc_steps if self.adversary and self.trains_disc else 1

  @property
  def uses_disc(self) -> bool:
    """Whether there is a discriminator at all."""
    return self.adv_weight > 0

  @property
  def trains_disc(self) -> bool:
    return self.uses_disc and self.disc_init != 'frozen'

  @property
  def roles(self) -> Roles:
    return Roles('student', ('student',), ('teacher',) if self.teacher else (),
                 {'student': 'teacher'} if self.teacher else {},
                 disc=('disc',) if self.trains_disc else ())

  @property
  def modules(self) -> dict[str, linen.Module]:
    return {'student': self.student, **({'teacher': self.teacher} if self.teacher else {}),
            **({'disc': self.adversary.disc} if self.adversary else {}),
            **(self.distill.modules if self.distill else {})}

  def init(self, rng, batch, init_from: Mapping[str, Net] | None = None) -> TrainState:
    init_from = dict(init_from or {})
    needed = ({'teacher'} if self.teacher else set()) | (
        {'disc'} if self.uses_disc and self.disc_init != 'fresh' else set())
    if missing := sorted(needed - set(init_from)):
      raise ValueError(f'KD.init needs init_from={{role: Net}} with {missing}, got '
                       f'{sorted(init_from)}')
    s_key, d_key, rng = jax.random.split(rng, 3)
    student = init_net('student', self.student, s_key, self.student.example(),
                       scheme=self.init_scheme, init_from=init_from)
    nets = {'student': (student, self.tx)}
    frozen = {'teacher': init_from['teacher'].averaged} if self.teacher else {}
    if self.distill:
      frozen |= self.distill.frozen(init_from)
      # There are no adapters, and taps that do not fit are refused.
      self.distill.init_adapters(('student', 'teacher'), (self.student, student),
                                 (self.teacher, frozen.get('teacher')), self.student.example(),
                                 rng, self.init_scheme)
    if self.adversary and self.uses_disc:
      frozen |= self.adversary.frozen()
    if self.uses_disc and self.disc_init == 'frozen':
      frozen['disc'] = init_from['disc'].variables
    elif self.adversary and self.uses_disc:
      image = jax.eval_shape(lambda: self.student.apply(student, self.student.example())[0])
      disc = init_net('disc', self.adversary.disc, d_key, image, scheme=self.init_scheme,
                      init_from=init_from if self.disc_init == 'teacher' else None)
      nets['disc'] = disc, self.adversary.tx
    return core.create(rng, nets, frozen=frozen, ema=('student',) if self.ema else ())

  def step(self, state: TrainState, batch, axes: Axes = Axes()):
    if self.needs_data:
      check_batch(self, batch, 'target', *(() if self.teacher else ('z',)))
    size = core.rows(batch) // self.updates
    bn_axes = axes if self.bn_sync == 'global' else Axes()
    params, collections = state.nets['student'].params, state.nets['student'].collections
    logs = {}

    def latents(name):
      return axes.sample(jax.random.normal, state.key(name), (size, self.student.latent))

    def generate(params, z):
      return forward_train(self.student, {'params': params, **collections}, z, bn_axes)

    def real(i):
      images = []
      if self.real_from != 'teacher':
        images.append(batch['target'][i::self.updates])
      if self.real_from != 'data':
        images.append(self.teach(state, latents(f'z_real{i}'))[0])
      return jnp.concatenate(images)

    if self.adversary and self.trains_disc:
      state, logs = self.adversary.train(
          state, real, lambda i: generate(params, latents(f'z_disc{i}'))[0][0], axes, bn_axes,
          'student')
    # Every so many rows, so that they are the same ones on any number of devices.
    z = latents('z') if self.teacher else batch['z'][::self.updates]
    target, taps = self.teach(state, z) if self.teacher else (batch['target'][::self.updates], {})

    def loss(params):
      (image, student_taps), moved = generate(params, z)
      terms, moved, more_logs = {}, {'student': moved}, {}
      terms['mse'] = self.distill_weight * image_losses.mse(image, target, self.mse_reduction)
      if self.adversary and self.uses_disc:
        adv, disc_collections = self.adversary.generator_loss(
            self.disc_variables(state), image, None, None, self.adversary.view(state, axes),
            bn_axes)
        terms['adv'] = self.adv_weight * adv
        moved |= {'disc': disc_collections} if 'disc' in state.nets else {}
      if distill := self.distill:
        output = lambda *generated: distill.output(state.frozen, *generated)
        _, distill_terms, more_logs, _ = distill.loss(
            'student', output(image, student_taps), {'teacher': output(target, taps)}, axes=axes)
        terms |= distill_terms
      total = sum(terms.values())
      return total, ({'student': {**terms, 'loss': total}, **more_logs, 'mse_per_pixel': {
          'student': image_losses.mse(image, target, 'mean')}}, moved)

    grads, (student_logs, moved) = jax.grad(loss, has_aux=True)(params)
    state, norms = core.advance(state, {'student': grads}, {'student': self.tx}, axes,
                                ema=self.ema)
    return (state.with_collections(moved, axes).tick(),
            core.merge_logs(student_logs, logs, norms))

  def teach(self, state: TrainState, z):
    """The teacher's (image [B,H,W,C], taps) of z in inference mode; nothing learns through it."""
    return stop_gradient(self.modules['teacher'].apply(state.frozen['teacher'], z, train=False))

  def disc_variables(self, state: TrainState):
    """The discriminator as it now stands."""
    return state.frozen['disc'] if self.disc_init == 'frozen' else state.nets['disc'].variables

  def generators(self, state: TrainState) -> dict[str, BoundGenerator]:
    teacher = {'teacher': BoundGenerator(state.frozen['teacher'], self.teacher)} \
        if self.teacher else {}
    return {'student': BoundGenerator(state.nets['student'].averaged, self.student), **teacher}
