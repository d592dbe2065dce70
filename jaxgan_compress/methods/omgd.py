"""OMGD, Ren et al. 2021: a student learns online from a wider and a deeper teacher."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
from flax import linen

from jaxgan_compress import core, nn
from jaxgan_compress.axes import Axes
from jaxgan_compress.core import Drawer, Net, TrainState, fixed
from jaxgan_compress.losses import features, gan, image
from jaxgan_compress.methods.gan import choose, draw_with_taps, start

LOSSES = ('hinge', 'lsgan', 'ns')


@dataclasses.dataclass(frozen=True)
class Weights:
  """Of the terms of `OMGD`, the paper's: teachers minimise adv and recon, the student the rest.

  channel is 0 unless asked for; published runs take 10 to 1000 of it, see the configs of the paper.
  """
  adv: float = 1.
  recon: float = 100.
  ssim: float = 10.
  feature: float = 10.
  style: float = 1e4
  tv: float = 1e-5
  channel: float = 0.


@dataclasses.dataclass(frozen=True)
class OMGD:
  """Teachers learn to draw from pairs; the student learns to draw from its teachers, at once.

  The student never meets the discriminator or the ground truth, and no teacher feels its pupil. All
  losses are taken at the parameters before the step, so one gradient of one sum moves everybody.

  batch: `{'source', 'target'}`, [B,H,W,C] in [-1, 1].
  student; wide, deep: generators of one input and output; either teacher may be None.
  disc: sees source and image side by side, one head a teacher: `nn.PatchGAN(inputs=6,
    heads=('wide', 'deep'), shared=5)`.
  tx: of the student and its adapters. teacher_tx, disc_tx: default, the same.
  look: the features of the perceptual terms, given['features'] or drawn from a seed that no one
    trained; say which in what you publish.
  taps: the student's and the wide teacher's, compared by channel means if weights.channel.
  n_dis: teachers and discriminator move every n_dis-th step, the student at each.
  loss: 'hinge', 'lsgan' or 'ns'.

  Total variation is a sum over the whole batch, and counts once for each teacher, as published:
  its weight depends on batch and size. Roles: 'student', 'adapters', 'wide', 'deep', 'disc', frozen
  'features'. Raises ValueError for contradictory fields.
  """
  student: linen.Module
  tx: optax.GradientTransformation
  wide: linen.Module | None = None
  deep: linen.Module | None = None
  disc: linen.Module = nn.PatchGAN(128, inputs=6, heads=('wide', 'deep'), shared=5)
  teacher_tx: optax.GradientTransformation | None = None
  disc_tx: optax.GradientTransformation | None = None
  weights: Weights = Weights()
  look: linen.Module = nn.VGG(16)
  taps: tuple[str, ...] = ()
  n_dis: int = 1
  loss: str = 'hinge'
  init_scheme: str = 'normal'

  product = 'student'
  draws = True
  needs_data = True
  updates = 1

  def __post_init__(self):
    choose('loss', self.loss, LOSSES)
    if not self.teachers:
      raise ValueError('no teacher is given; OMGD takes wide, deep or both')
    if missing := sorted(self.teachers.keys() - set(self.disc.heads)):
      raise ValueError(f'the discriminator has no head for {", ".join(missing)}; give it '
                       f'heads={tuple(self.teachers)}')
    for name, module in {'student': self.student, **self.teachers}.items():
      if getattr(module, 'dropout', 0):
        raise ValueError(f'{name} has dropout={module.dropout}; OMGD trains without: dropout=0.')
    if self.n_dis < 1:
      raise ValueError(f'n_dis={self.n_dis}; at least 1')
    if self.weights.channel and not (self.taps and self.wide):
      raise ValueError(f'weights.channel={self.weights.channel} compares taps with the wide '
                       "teacher's; give both, or channel=0")

  @property
  def teachers(self) -> dict[str, linen.Module]:
    return {name: module for name, module in (('wide', self.wide), ('deep', self.deep)) if module}

  def init(self, rng, batch, given: Mapping[str, Net] | None = None) -> TrainState:
    source, target = batch['source'][:1], batch['target'][:1]
    s_key, t_key, d_key, a_key, rng = jax.random.split(rng, 5)
    scheme = {'scheme': self.init_scheme, 'given': given}
    teacher_tx = self.teacher_tx or self.tx
    student = start('student', self.student, s_key, source, **scheme)
    nets = {'student': (student, self.tx)}
    for name, module in self.teachers.items():
      key, t_key = jax.random.split(t_key)
      nets[name] = start(name, module, key, source, **scheme), teacher_tx
    nets['disc'] = (start('disc', self.disc, d_key, target, source, **scheme),
                    self.disc_tx or teacher_tx)
    if self.weights.channel:
      nets['adapters'] = self._start_adapters(nets, source, a_key, given), self.tx
    look = given['features'].variables if given and 'features' in given else \
        nn.initialise(self.look, jax.random.key(0), scheme='he')
    return core.create(rng, nets, frozen={'features': look})

  def losses(self, params, state: TrainState, batch, axes: Axes = Axes()):
    """({learner: what it minimises}, (terms, {role: new statistics})).

    `fixed` marks what a learner may not change: learner 'student' moves its adapters too.
    """
    source, target, w = batch['source'], batch['target'], self.weights
    drawn, stats = {}, {}
    for name, module in {'student': self.student, **self.teachers}.items():
      variables = {'params': params[name], **state.nets[name].stats}
      drawn[name], stats[name] = draw_with_taps(module, variables, source, axes)

    def judge(disc, x):
      variables = {'params': disc, **state.nets['disc'].stats}
      return self.disc.apply(variables, x, source, train=True, axes=axes,
                             mutable=list(state.nets['disc'].stats))[0][0]

    real = judge(params['disc'], target)
    losses, terms = {'disc': 0.}, {}
    for name in self.teachers:
      lesson = drawn[name][0]
      judged = judge(params['disc'], fixed(lesson))[name]
      d_loss = getattr(gan, f'{self.loss}_d')(real[name], judged) / 2
      adv = getattr(gan, f'{self.loss}_g')(judge(fixed(params['disc']), lesson)[name])
      recon = image.l1(lesson, target)
      losses['disc'] += d_loss
      losses[name] = w.adv * adv + w.recon * recon
      terms |= {f'{name}_disc': d_loss, f'{name}_adv': w.adv * adv,
                f'{name}_recon': w.recon * recon}

    picture, taps = drawn['student']
    seen = self._look(state, picture)
    # A sum over the batch: the mean over replicas makes it one again.
    tv = w.tv * image.total_variation(picture) * axes.count
    losses['student'] = 0.
    for name in self.teachers:
      lesson = fixed(drawn[name][0])
      taught = self._look(state, lesson)
      found = {'ssim': w.ssim * (1 - image.ssim(picture, lesson).mean()),
               'feature': w.feature * features.perceptual(seen['relu2_2'], taught['relu2_2']),
               'style': w.style * features.style(seen, taught), 'tv': tv}
      losses['student'] += sum(found.values())
      terms |= {f'student_{term}_{name}': value for term, value in found.items()}
    if w.channel:
      distance, stats['adapters'] = self._channel(params, state, taps, drawn['wide'][1], axes)
      terms['student_channel'] = w.channel * distance
      losses['student'] += terms['student_channel']
    return losses, (terms | {f'{name}_loss': value for name, value in losses.items()}, stats)

  def step(self, state: TrainState, batch, axes: Axes = Axes()):
    everybody = tuple(state.nets)
    if self.n_dis == 1:
      return self._move(state, batch, axes, everybody)
    pupils = tuple(name for name in ('student', 'adapters') if name in state.nets)
    return jax.lax.cond((state.step + 1) % self.n_dis == 0,
                        lambda: self._move(state, batch, axes, everybody),
                        lambda: self._move(state, batch, axes, pupils))

  def generators(self, state: TrainState) -> dict[str, Drawer]:
    return {name: Drawer(state.nets[name].averaged, module)
            for name, module in {'student': self.student, **self.teachers}.items()}

  def _move(self, state, batch, axes, learners):
    def total(params):
      losses, more = self.losses({**state.params, **params}, state, batch, axes)
      return sum(losses.values()), more

    grads, (terms, stats) = jax.grad(total, has_aux=True)(
        {name: state.params[name] for name in learners})
    teacher_tx = self.teacher_tx or self.tx
    tx = {**dict.fromkeys(state.nets, teacher_tx), 'student': self.tx, 'adapters': self.tx,
          'disc': self.disc_tx or teacher_tx}
    state, norms = core.advance(state, grads, tx, axes)
    for name, new in axes.mean(stats).items():
      state = state.with_stats(name, new)
    resting = {f'grad_{name}': jnp.zeros(()) for name in state.nets if name not in learners}
    return state.tick(), {**axes.mean(terms), **norms, **resting}

  def _look(self, state, x):
    # Without ImageNet's mean, as published.
    return self.look.apply(state.frozen['features'], (x + 1) / 2)

  def _channel(self, params, state, taps, taught, axes):
    total, moved = 0., {}
    for tap in self.taps:
      adapter = nn.Adapter(taps[tap].shape[-1], taught[tap].shape[-1], dtype=taps[tap].dtype)
      variables = {'params': params['adapters'][tap],
                   'batch_stats': state.nets['adapters'].stats['batch_stats'][tap]}
      mapped, new = adapter.apply(variables, taps[tap], axes, mutable=['batch_stats'])
      total += features.channel_means(mapped, fixed(taught[tap]))
      moved[tap] = new['batch_stats']
    return total, {'batch_stats': moved}

  def _start_adapters(self, nets, source, key, given):
    if given and 'adapters' in given:
      return given['adapters'].variables
    widths = {}
    for role, module in (('student', self.student), ('wide', self.wide)):
      taps = jax.eval_shape(module.apply, nets[role][0], source)[1]
      if missing := sorted(set(self.taps) - taps.keys()):
        raise ValueError(f'{role} has no tap {", ".join(missing)}; it has {", ".join(taps)}')
      widths[role] = {tap: taps[tap].shape[-1] for tap in self.taps}
    found = {'params': {}, 'batch_stats': {}}
    for i, tap in enumerate(self.taps):
      adapter = nn.Adapter(widths['student'][tap], widths['wide'][tap])
      fresh = nn.initialise(adapter, jax.random.fold_in(key, i), scheme=self.init_scheme)
      for kind, variables in found.items():
        variables[tap] = fresh[kind]
    return found
