"""Unpaired translation: CycleGAN, and OMGD from its generators."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
from flax import linen

from jaxgan_compress import core
from jaxgan_compress.core import Axes, Drawer, Net, TrainState, fixed
from jaxgan_compress.losses import image
from jaxgan_compress.methods.distillation import Lessons
from jaxgan_compress.methods.gan import Adversary, check_batch, draw_with_taps, start
from jaxgan_compress.methods.omgd import (
  check_lesson,
  learn,
  number,
  refuse_dropout,
  shrinking,
  shrunk,
  start_adapters,
)
from jaxgan_compress.methods.pix2pix import check_adversary
from jaxgan_compress.pruning import Shrink

# A score that no teacher has: checkpoints hold finite numbers only.
UNKNOWN = float(jnp.finfo(jnp.float32).max)


@dataclasses.dataclass(frozen=True)
class CycleGAN:
  """Two generators learn to translate both ways between sets without pairs.

    L = adv (g(D(G(A))) + g(D'(G'(B)))) + cycle (|G'(G(A)) - A| + |G(G'(B)) - B|)
      + identity (|G(B) - B| + |G'(A) - A|)

  moves both generators; each discriminator minimises half the sum of its sides, its fakes from a
  pool of earlier drawings. Everything is taken at the parameters before the step.

  batch: `{'source': A, 'target': B}`, [B,H,W,C] in [-1, 1], without partners.
  generator: A to B; back: B to A, default the same network.
  adversary: `Adversary(nn.PatchGAN(64), tx, 'lsgan')`; one discriminator for each side.
  pool: drawings remembered for each discriminator by each replica, 0 for none.
  ema: decay of moving averages of both generators, 0 for none.

  Roles: 'generator', 'back', 'disc' (judges B), 'disc_back'. `TrainState.memory` holds the pools.
  Zhu et al. 2017. Raises ValueError for contradictory fields.
  """
  generator: linen.Module
  adversary: Adversary
  tx: optax.GradientTransformation
  back: linen.Module | None = None
  adv: float = 1.
  cycle: float = 10.
  identity: float = 5.
  pool: int = 50
  ema: float = 0.
  init_scheme: str = 'normal'

  product = 'generator'
  backwards = ('back',)
  draws = True
  needs_data = True
  updates = 1

  def __post_init__(self):
    check_adversary(self.adversary)
    refuse_dropout(self.modules)
    if self.pool < 0:
      raise ValueError(f'pool={self.pool}; at least 0')

  @property
  def modules(self) -> dict[str, linen.Module]:
    return {'generator': self.generator, 'back': self.back or self.generator}

  def init(self, rng, batch, given: Mapping[str, Net] | None = None) -> TrainState:
    check_batch(self, batch, 'source', 'target')
    keys = jax.random.split(rng, 5)
    scheme = {'scheme': self.init_scheme, 'given': given}
    nets, memory = {}, {}
    for i, (name, module) in enumerate(self.modules.items()):
      own, other = (batch[side][:1] for side in (('source', 'target'), ('target', 'source'))[i])
      nets[name] = start(name, module, keys[i], own, **scheme), self.tx
      disc = DISC[name]
      nets[disc] = (start(disc, self.adversary.disc, keys[2 + i], other, **scheme),
                    self.adversary.tx)
      if self.pool:
        memory[disc] = empty_pool(self.pool, other.shape[1:])
    return core.create(keys[4], nets, ema=tuple(self.modules) if self.ema else ()).replace(
        memory=memory)

  def losses(self, params, state: TrainState, batch, axes: Axes = Axes()):
    """({learner: what it minimises}, (terms, {role: new statistics}, memory, drawn)).

    'generators' is what both generators minimise. drawn: the generator's (image, taps) of source.
    """
    check_batch(self, batch, 'source', 'target')
    real = {'generator': batch['target'], 'back': batch['source']}
    source = {'generator': batch['source'], 'back': batch['target']}
    stats = {name: state.nets[name].stats for name in self.modules}

    def draw(name, x):
      drawn, stats[name] = draw_with_taps(
          self.modules[name], {'params': params[name], **stats[name]}, x, axes)
      return drawn

    def judge(name, params, x):
      logits, stats[name] = self.adversary.logits(params, stats[name], x, None, axes)
      return logits['real']

    drawn, again, losses, terms, memory = {}, {}, {}, {}, {}
    for name, other in OTHER.items():
      drawn[name] = draw(name, source[name])
      again[name] = draw(other, drawn[name][0])[0]
    for name in self.modules:
      disc, fake = DISC[name], drawn[name][0]
      shown = fixed(fake)
      if self.pool:
        key = jax.random.fold_in(state.key(f'pool_{disc}'), axes.index())
        memory[disc], shown = from_pool(state.memory[disc], shown, key)
      # The generators move first: a discriminator's statistics see the drawing for them, then the
      # real images, then what the pool shows.
      adv, stats[disc] = self.adversary.deceived(
          {'params': params[disc], **state.nets[disc].stats}, fake, real[name], None, axes)
      of_real, of_fake = (judge(disc, params[disc], x) for x in (real[name], shown))
      on_real, on_fake = self.adversary.sides(of_real, of_fake)
      own = lambda x, disc=disc: self.adversary.judge(
          {'params': params[disc], **state.nets[disc].stats}, x, axes)
      losses[disc] = (on_real + on_fake) / 2 + self.adversary.slopes(own, real[name], shown)
      terms |= {f'{disc}_real': on_real, f'{disc}_fake': on_fake}
      terms[f'{name}_adv'] = self.adv * adv
      terms[f'{name}_cycle'] = self.cycle * image.l1(again[name], source[name])
      if self.identity:
        terms[f'{name}_identity'] = self.identity * image.l1(draw(name, real[name])[0], real[name])
    for name in self.modules:
      terms[f'{name}_loss'] = sum(value for term, value in terms.items()
                                  if term.startswith(f'{name}_'))
    losses['generators'] = sum(terms[f'{name}_loss'] for name in self.modules)
    terms |= {f'{disc}_loss': losses[disc] for disc in DISC.values()}
    return losses, (terms, stats, memory, drawn)

  def step(self, state: TrainState, batch, axes: Axes = Axes()):
    def total(params):
      losses, more = self.losses(params, state, batch, axes)
      return sum(losses.values()), more

    grads, (terms, stats, memory, _) = jax.grad(total, has_aux=True)(state.params)
    state, norms = core.advance(state, grads, self.optimisers, axes, ema=self.ema)
    for name, new in axes.mean(stats).items():
      state = state.with_stats(name, new)
    return state.replace(memory=memory).tick(), {**axes.mean(terms), **norms}

  def generators(self, state: TrainState) -> dict[str, Drawer]:
    return {name: Drawer(state.nets[name].averaged, module)
            for name, module in self.modules.items()}

  @property
  def optimisers(self) -> dict[str, optax.GradientTransformation]:
    return {**dict.fromkeys(self.modules, self.tx),
            **dict.fromkeys(DISC.values(), self.adversary.tx)}


OTHER = {'generator': 'back', 'back': 'generator'}
DISC = {'generator': 'disc', 'back': 'disc_back'}


@dataclasses.dataclass(frozen=True)
class Blocks:
  """The clock of published unpaired runs: `teach` steps of the teachers, `learn` of the students,
  and so on, until the teachers took `total` steps (None: for ever); the last block may be shorter.

  horse2zebra at batch 1: teach 10 epochs of 1334 steps, learn 40 epochs, total 200.
  Raises ValueError for numbers below 1.
  """
  teach: int
  learn: int
  total: int | None = None

  def __post_init__(self):
    for name, value in dataclasses.asdict(self).items():
      if value is not None and value < 1:
        raise ValueError(f'{name}={value}; at least 1 step')

  @property
  def steps(self) -> int | None:
    """Of the whole run, teachers' and students'."""
    return self.total and self.total + math.ceil(self.total / self.teach) * self.learn

  def teaching(self, step):
    """Whether the step after `step` of them is the teachers'."""
    block, inside = step // (self.teach + self.learn), step % (self.teach + self.learn)
    if self.total is None:
      return inside < self.teach
    last = math.ceil(self.total / self.teach) - 1
    short = self.total - last * self.teach
    return ((block < last) & (inside < self.teach)) | ((block == last) & (inside < short))


@dataclasses.dataclass(frozen=True)
class OMGDCycle:
  """Students of unpaired translation learn from the generators of a CycleGAN, by `Lessons`.

  Without a clock all learn at every step, each from what its teacher drew in it: truly online, as
  the paper's text has it. With `clock=Blocks(...)` teachers and students take turns, as its code
  does, and a student learns from the best teacher so far: `promote` says which that is. While
  none was promoted the newest teaches.

  batch: as `CycleGAN`. cycle: the teachers and how they learn.
  student: draws B from A, as `generator` of the cycle. student_back: A from B, or None. others:
    more students of the first direction, {role: generator}.
  tx: of students and their adapters. lesson: 'current' or 'average', for runs without a clock.
  shrink: as of `OMGD`, for the role 'student' and those of more budgets.
  Students are averaged if the teachers are, by cycle.ema.

  A resting learner's terms are 0 in the log. Roles: those of `CycleGAN`, 'student', the others,
  'student_back', each with '_adapters'; frozen 'features', and with a clock 'best'.
  Ren et al. 2021. Raises ValueError for contradictory fields.
  """
  student: linen.Module
  cycle: CycleGAN
  tx: optax.GradientTransformation
  lessons: Lessons = Lessons()
  clock: Blocks | None = None
  student_back: linen.Module | None = None
  others: Mapping[str, linen.Module] = dataclasses.field(default_factory=dict)
  lesson: str = 'current'
  shrink: Shrink | None = None
  init_scheme: str = 'normal'

  product = 'student'
  draws = True
  needs_data = True
  updates = 1

  def __post_init__(self):
    check_lesson(self.lesson, self.cycle.ema)
    refuse_dropout(self.students)
    if self.clock and self.lesson == 'average':
      raise ValueError("lesson='average' and a clock exclude each other; the best teacher is "
                       'averaged anyhow where cycle.ema is given')
    if taken := sorted(set(self.others) & {*OTHER, *DISC.values(), 'student', 'student_back'}):
      raise ValueError(f'others has {", ".join(taken)}, which is taken; call it something else')

  @property
  def teachers(self) -> dict[str, linen.Module]:
    return self.cycle.modules

  @property
  def students(self) -> dict[str, linen.Module]:
    back = {'student_back': self.student_back} if self.student_back else {}
    return {'student': self.student, **self.others, **shrinking(self), **back}

  @property
  def pupils(self) -> dict[str, str]:
    return {name: 'back' if name == 'student_back' else 'generator' for name in self.students}

  @property
  def backwards(self) -> tuple[str, ...]:
    return ('back',) + ('student_back',) * (self.student_back is not None)

  def init(self, rng, batch, given: Mapping[str, Net] | None = None) -> TrainState:
    check_batch(self, batch, 'source', 'target')
    rng, s_key, a_key = jax.random.split(rng, 3)
    state = self.cycle.init(rng, batch, given)
    nets = {}
    for name, module in self.students.items():
      i = number(self, name, tuple(self.students))
      x = batch['target' if name in self.backwards else 'source'][:1]
      nets[name] = start(name, module, jax.random.fold_in(s_key, i), x, scheme=self.init_scheme,
                         given=given)
    known = {**nets, **{name: state.nets[name].variables for name in self.teachers}}
    adapters = start_adapters(self, known, batch['source'][:1], a_key, given)
    frozen = self.lessons.frozen(given)
    if self.clock:
      frozen['best'] = {name: {'score': jnp.float32(UNKNOWN),
                               'variables': state.nets[name].averaged} for name in self.teachers}
    if self.shrink:
      frozen['masks'] = self.shrink.masks('student', self.student, batch['source'][:1].shape)
    learners = core.create(state.rng, {
        name: (net, self.tx) for name, net in {**nets, **adapters}.items()}, frozen=frozen,
        ema=tuple(nets) if self.cycle.ema else ())
    return learners.replace(nets={**state.nets, **learners.nets}, memory=state.memory)

  def losses(self, params, state: TrainState, batch, axes: Axes = Axes()):
    """Of everybody at once, see `CycleGAN.losses`; {learner: loss} has the students, too."""
    losses, (terms, stats, memory, drawn) = self.cycle.losses(params, state, batch, axes)
    lessons = fixed(drawn)
    if self.lesson == 'average':
      lessons = {name: module.apply(state.nets[name].averaged, _side(batch, name))
                 for name, module in self.teachers.items()}
    mine, (own_terms, own_stats) = self.student_losses(params, state, batch, lessons, axes)
    return {**losses, **mine}, ({**terms, **own_terms}, {**stats, **own_stats}, memory)

  def student_losses(self, params, state, batch, lessons, axes):
    """What the students minimise, given `{teacher: (image, taps)}`."""
    losses, terms, stats = {}, {}, {}
    shown = {name: self.lessons.see(state.frozen, lessons[name][0])
             for name in dict.fromkeys(self.pupils.values())}
    for name, module in self.students.items():
      teacher = self.pupils[name]
      lesson, taught = lessons[teacher]
      variables = {'params': params[name], **state.nets[name].stats}
      drawn, stats[name] = draw_with_taps(module, variables, _side(batch, teacher), axes)
      losses[name] = learn(self, params, state, name, drawn, {teacher: (lesson, shown[teacher])},
                           taught, axes, terms, stats)
    return losses, (terms | {f'{name}_loss': value for name, value in losses.items()}, stats)

  def step(self, state: TrainState, batch, axes: Axes = Axes()):
    check_batch(self, batch, 'source', 'target')
    teachers = (*self.teachers, *DISC.values())
    students = tuple(name for name in state.nets if name not in teachers)
    if self.clock is None:
      return shrunk(self, *self._move(state, self.losses, teachers + students, batch, axes), batch,
                    axes)

    def learn(params, state, batch, axes):
      lessons = {name: module.apply(self._best(state, name), _side(batch, name))
                 for name, module in self.teachers.items()}
      losses, (terms, stats) = self.student_losses(params, state, batch, lessons, axes)
      return losses, (terms, stats, state.memory)

    def teach(params, state, batch, axes):
      losses, (terms, stats, memory, _) = self.cycle.losses(params, state, batch, axes)
      return losses, (terms, stats, memory)

    branches = [lambda turn=turn: self._move(state, *turn, batch, axes)
                for turn in ((teach, teachers), (learn, students))]
    # A resting learner logs zeros, so that both branches have the same logs.
    silent = {name: jnp.zeros(()) for branch in branches for name in jax.eval_shape(branch)[1]}
    both = [lambda branch=branch: (lambda new, logs: (new, {**silent, **logs}))(*branch())
            for branch in branches]
    return shrunk(self, *jax.lax.cond(self.clock.teaching(state.step), *both), batch, axes)

  def promote(self, state: TrainState, scores: Mapping[str, float], either: bool = False
              ) -> TrainState:
    """The state in which each teacher that beats its best score (lower is better) is the best.

    scores: {'generator': its score, 'back': ...}, measured outside. either: the newest of both
    are taken when one of them improves, as the published code did by mistake. Raises ValueError
    without a clock, or for too few scores.
    """
    if not self.clock:
      raise ValueError('there is no best teacher without a clock; all teach as they are')
    if either and scores.keys() != self.teachers.keys():
      raise ValueError(f'either=True takes scores of {", ".join(self.teachers)}, got '
                       f'{", ".join(scores) or "none"}')
    best = dict(state.frozen['best'])
    better = {name for name, score in scores.items() if score < float(best[name]['score'])}
    for name in self.teachers if better and either else better:
      score = min(scores.get(name, UNKNOWN), float(best[name]['score']))
      best[name] = {'score': jnp.float32(score), 'variables': jax.tree.map(
          jnp.copy, state.nets[name].averaged)}
    return state.replace(frozen={**state.frozen, 'best': best})

  def generators(self, state: TrainState) -> dict[str, Drawer]:
    """Students, and the teachers that they learn from: with a clock, the best so far."""
    teaching = {name: Drawer(self._best(state, name), module)
                for name, module in self.teachers.items()} if self.clock else \
        self.cycle.generators(state)
    return {**{name: Drawer(state.nets[name].averaged, module)
               for name, module in self.students.items()}, **teaching}

  def _best(self, state, name):
    best, net = state.frozen['best'][name], state.nets[name]
    return jax.tree.map(lambda a, b: jnp.where(best['score'] < UNKNOWN, a, b), best['variables'],
                        net.averaged)

  def _move(self, state, losses, learners, batch, axes):
    def total(params):
      found, more = losses({**state.params, **params}, state, batch, axes)
      return sum(found.values()), more

    grads, (terms, stats, memory) = jax.grad(total, has_aux=True)(
        {name: state.params[name] for name in learners})
    tx = {**dict.fromkeys(state.nets, self.tx), **self.cycle.optimisers}
    state, norms = core.advance(state, grads, tx, axes, ema=self.cycle.ema)
    for name, new in axes.mean(stats).items():
      state = state.with_stats(name, new)
    return state.replace(memory=memory).tick(), {**axes.mean(terms), **norms}


def empty_pool(size: int, shape: tuple[int, ...]):
  """A pool of one replica that remembers `size` images [H,W,C]; leaves `[1, ...]`."""
  return {'images': jnp.zeros((1, size, *shape)), 'count': jnp.zeros((1,), jnp.int32)}


def from_pool(pool, images, key):
  """(pool, images [B,H,W,C] to judge): one by one, while the pool fills, the new image; later, with
  probability 1/2, an old one, whose place the new one takes. Shrivastava et al. 2017, as CycleGAN
  has it."""
  size = len(pool['images'])

  def one(pool, each):
    image, key = each
    stored, count = pool['images'], pool['count']
    coin, place = jax.random.split(key)
    full = count >= size
    slot = jnp.where(full, jax.random.randint(place, (), 0, size), count)
    swap = full & jax.random.bernoulli(coin)
    old = stored[slot]
    kept = jnp.where(swap | ~full, image, old)
    return ({'images': stored.at[slot].set(kept), 'count': jnp.minimum(count + 1, size)},
            jnp.where(swap, old, image))

  return jax.lax.scan(one, pool, (images, jax.random.split(key, len(images))))


def _side(batch, teacher):
  return batch['target' if teacher == 'back' else 'source']
