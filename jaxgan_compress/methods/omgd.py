"""OMGD on pairs, Ren et al. 2021: a student learns online from a wider and a deeper teacher."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
from flax import linen

from jaxgan_compress import core
from jaxgan_compress.core import Axes, Drawer, Net, TrainState, fixed
from jaxgan_compress.losses import image
from jaxgan_compress.methods.distillation import Lessons
from jaxgan_compress.methods.gan import (
  Adversary,
  check_batch,
  checked,
  choose,
  draw_with_taps,
  start,
)
from jaxgan_compress.methods.pix2pix import check_adversary
from jaxgan_compress.pruning import Shrink


@dataclasses.dataclass(frozen=True)
class OMGD:
  """Teachers learn to draw from pairs; students learn to draw from their teachers, at once.

  A student never meets the discriminator or the ground truth, and no teacher feels its pupils. All
  losses are taken at the parameters before the step, so one gradient of one sum moves everybody.

  batch: `{'source', 'target'}`, [B,H,W,C] in [-1, 1].
  student; wide, deep: generators of one input and output; either teacher may be None. The taps of
    the wide teacher are those that lessons compare (of the deep one, where it is alone).
  adversary: of the teachers; its discriminator sees source and image side by side and has a head
    for each: `nn.PatchGAN(inputs=6, heads=('wide', 'deep'), shared=5)`.
  tx: of students and their adapters. teacher_tx: default, the same.
  others: more students, {role: generator}, each at the cost of its own forward and backward pass.
  n_dis: teachers and discriminator move every n_dis-th step, the students at each.
  ema: decay of moving averages of students and teachers, 0 for none. lesson: 'current' or
    'average', which teaches by another forward pass of the averaged teachers.
  shrink: the student loses channels while it learns, a `pruning.Shrink`; None: it stays as it is.
    With several budgets as many students of this network learn, each down to its own.
  recon_loss: 'l1', 'l2' or 'smooth_l1', of a teacher's drawing and the target, see `losses.image`.

  Roles: 'student', 'student_adapters', 'wide', 'deep', 'disc', the others with their adapters,
  frozen 'features'. Raises ValueError for contradictory fields.
  """
  student: linen.Module
  tx: optax.GradientTransformation
  adversary: Adversary
  wide: linen.Module | None = None
  deep: linen.Module | None = None
  lessons: Lessons = Lessons()
  teacher_tx: optax.GradientTransformation | None = None
  others: Mapping[str, linen.Module] = dataclasses.field(default_factory=dict)
  adv: float = 1.
  recon: float = 100.
  n_dis: int = 1
  ema: float = 0.
  lesson: str = 'current'
  shrink: Shrink | None = None
  init_scheme: str = 'normal'
  recon_loss: str = 'l1'

  product = 'student'
  draws = True
  needs_data = True
  updates = 1

  def __post_init__(self):
    check_adversary(self.adversary)
    check_lesson(self.lesson, self.ema)
    choose('recon_loss', self.recon_loss, tuple(image.RECONSTRUCTIONS))
    if not self.teachers:
      raise ValueError('no teacher is given; OMGD takes wide, deep or both')
    if missing := sorted(self.teachers.keys() - set(self.adversary.disc.heads)):
      raise ValueError(f'the discriminator has no head for {", ".join(missing)}; give it '
                       f'heads={tuple(self.teachers)}')
    if taken := sorted(set(self.others) & {'student', 'wide', 'deep', 'disc'}):
      raise ValueError(f'others has {", ".join(taken)}, which is taken; call it something else')
    refuse_dropout({**self.students, **self.teachers})
    if self.n_dis < 1:
      raise ValueError(f'n_dis={self.n_dis}; at least 1')

  @property
  def teachers(self) -> dict[str, linen.Module]:
    return {name: module for name, module in (('wide', self.wide), ('deep', self.deep)) if module}

  @property
  def students(self) -> dict[str, linen.Module]:
    return {'student': self.student, **self.others, **shrinking(self)}

  @property
  def pupils(self) -> dict[str, str]:
    """{student: the teacher it is compared with}."""
    return dict.fromkeys(self.students, next(iter(self.teachers)))

  def init(self, rng, batch, given: Mapping[str, Net] | None = None) -> TrainState:
    check_batch(self, batch, 'source', 'target')
    source, target = batch['source'][:1], batch['target'][:1]
    s_key, t_key, d_key, a_key, rng = jax.random.split(rng, 5)
    scheme = {'scheme': self.init_scheme, 'given': given}
    nets = {}
    everybody = {**self.teachers, **self.students}
    for name, module in everybody.items():
      key = jax.random.fold_in(t_key if name in self.teachers else s_key,
                               number(self, name, tuple(everybody)))
      nets[name] = start(name, module, key, source, **scheme)
    drawing = tuple(nets)
    nets['disc'] = start('disc', self.adversary.disc, d_key, target, source, **scheme)
    nets |= start_adapters(self, nets, source, a_key, given)
    tx = self._optimisers(nets)
    frozen = self.lessons.frozen(given)
    if self.shrink:
      frozen['masks'] = self.shrink.masks('student', self.student, source.shape)
    return core.create(rng, {name: (net, tx[name]) for name, net in nets.items()},
                       frozen=frozen, ema=drawing if self.ema else ())

  def losses(self, params, state: TrainState, batch, axes: Axes = Axes()):
    """({learner: what it minimises}, (terms, {role: new statistics})).

    `fixed` marks what a learner may not change: a student's loss moves its adapters, too.
    """
    check_batch(self, batch, 'source', 'target')
    source, target = batch['source'], batch['target']
    drawn, stats = {}, {}
    for name, module in {**self.teachers, **self.students}.items():
      variables = {'params': params[name], **state.nets[name].stats}
      drawn[name], stats[name] = draw_with_taps(module, variables, source, axes)

    def judge(disc):
      variables = {'params': disc, **state.nets['disc'].stats}
      return lambda x: self.adversary.look(variables, x, source, axes)[0][0]

    losses, terms, taught = {'disc': 0.}, {}, {}
    real, still = judge(params['disc'])(target), judge(fixed(params['disc']))
    for name, module in self.teachers.items():
      lesson = drawn[name][0]
      own = lambda x, name=name: judge(params['disc'])(x)[name]
      on_real, on_fake = self.adversary.sides(real[name], own(fixed(lesson)))
      losses['disc'] += (on_real + on_fake) / 2 + self.adversary.slopes(own, target, fixed(lesson))
      terms |= {f'disc_real_{name}': on_real, f'disc_fake_{name}': on_fake}
      adv = self.adversary.g_loss(still(lesson)[name], fixed(real[name]))
      recon = image.RECONSTRUCTIONS[self.recon_loss](lesson, target)
      mine = {'adv': self.adv * adv, 'recon': self.recon * recon}
      losses[name] = sum(mine.values())
      terms |= {f'{name}_{term}': value for term, value in mine.items()}
      taught[name] = fixed(drawn[name]) if self.lesson == 'current' else \
          module.apply(state.nets[name].averaged, source, train=False)
    stats['disc'] = self._seen(fixed(params['disc']), state.nets['disc'].stats, source, target,
                               {name: fixed(drawn[name][0]) for name in self.teachers}, axes)

    shown = {name: (x, self.lessons.see(state.frozen, x)) for name, (x, _) in taught.items()}
    taps = taught[self.pupils['student']][1]
    for name in self.students:
      losses[name] = learn(self, params, state, name, drawn[name], shown, taps, axes, terms, stats)
    return losses, (terms | {f'{name}_loss': value for name, value in losses.items()}, stats)

  def step(self, state: TrainState, batch, axes: Axes = Axes()):
    everybody = lambda: self._move(state, batch, axes, tuple(state.nets))
    if self.n_dis == 1:
      return shrunk(self, *everybody(), batch, axes)
    pupils = tuple(name for name in state.nets if name not in ('disc', *self.teachers))
    return shrunk(self, *jax.lax.cond((state.step + 1) % self.n_dis == 0, everybody,
                                      lambda: self._move(state, batch, axes, pupils)), batch,
                  axes)

  def generators(self, state: TrainState) -> dict[str, Drawer]:
    return {name: Drawer(state.nets[name].averaged, module)
            for name, module in {**self.students, **self.teachers}.items()}

  def _move(self, state, batch, axes, learners):
    def total(params):
      losses, more = self.losses({**state.params, **params}, state, batch, axes)
      return sum(losses.values()), more

    grads, (terms, stats) = jax.grad(total, has_aux=True)(
        {name: state.params[name] for name in learners})
    state, norms = core.advance(state, grads, self._optimisers(state.nets), axes, ema=self.ema)
    if 'disc' not in learners:  # which saw nothing then
      stats = {name: new for name, new in stats.items() if name != 'disc'}
    for name, new in axes.mean(stats).items():
      state = state.with_stats(name, new)
    resting = {f'grad_{name}': jnp.zeros(()) for name in state.nets if name not in learners}
    return state.tick(), {**axes.mean(terms), **norms, **resting}

  def _seen(self, disc, stats, source, target, lessons, axes):
    """The discriminator's statistics after the passes of the published code: for each teacher its
    drawing and the target, then the drawings for the teachers. A pass moves what all heads share,
    and its own teacher's; these are the passes of the losses, which XLA computes once."""
    if not stats:
      return stats
    passes = [(name, x) for name, lesson in lessons.items() for x in (lesson, target)]
    for name, x in (*passes, *lessons.items()):
      _, moved = self.adversary.logits(disc, stats, x, source, axes)
      stats = of_head(stats, moved, name, self.adversary.disc.heads)
    return stats

  def _optimisers(self, roles):
    teacher_tx = self.teacher_tx or self.tx
    return {**dict.fromkeys(roles, self.tx), **dict.fromkeys(self.teachers, teacher_tx),
            'disc': self.adversary.tx}


@dataclasses.dataclass(frozen=True)
class Offline:
  """A student learns by the terms of OMGD from a teacher that has finished: the classic order.

  batch: `{'source'}`. teacher: frozen; its variables come to `init` as given['teacher'], and it
  draws in inference mode, once a step for all. None: a teacher that is known by its pictures alone,
  which the batch has as 'target' (see `data.record`), and without taps. lessons, tx, others, ema:
  as `OMGD`.

  Roles: 'student', the others, each with '_adapters', frozen 'teacher', 'features'. Raises
  ValueError for contradictory fields.
  """
  student: linen.Module
  teacher: linen.Module | None
  tx: optax.GradientTransformation
  lessons: Lessons = Lessons()
  others: Mapping[str, linen.Module] = dataclasses.field(default_factory=dict)
  ema: float = 0.
  init_scheme: str = 'normal'

  product = 'student'
  draws = True
  needs_data = True
  updates = 1

  def __post_init__(self):
    refuse_dropout(self.students)
    if taken := sorted(set(self.others) & {'student', 'teacher'}):
      raise ValueError(f'others has {", ".join(taken)}, which is taken; call it something else')
    if self.teacher is None and self.lessons.taps:
      raise ValueError(f'taps={self.lessons.taps} and teacher=None, whose pictures are all that is '
                       'known of it; leave out the taps')

  @property
  def students(self) -> dict[str, linen.Module]:
    return {'student': self.student, **self.others}

  @property
  def teachers(self) -> dict[str, linen.Module]:
    return {'teacher': self.teacher} if self.teacher else {}

  @property
  def _wanted(self) -> tuple[str, ...]:
    """What a batch has to have."""
    return ('source',) if self.teacher else ('source', 'target')

  @property
  def pupils(self) -> dict[str, str]:
    return dict.fromkeys(self.students, 'teacher') if self.teacher else {}

  def init(self, rng, batch, given: Mapping[str, Net] | None = None) -> TrainState:
    check_batch(self, batch, *self._wanted)
    if self.teacher and 'teacher' not in (given or {}):
      raise ValueError('Offline.init wants given={"teacher": Net}, a teacher that has learned')
    source = batch['source'][:1]
    s_key, a_key, rng = jax.random.split(rng, 3)
    nets = {name: start(name, module, jax.random.fold_in(s_key, i) if i else s_key, source,
                        scheme=self.init_scheme, given=given)
            for i, (name, module) in enumerate(self.students.items())}
    teacher = {role: given[role].averaged for role in self.teachers}
    adapters = start_adapters(self, {**nets, **teacher}, source, a_key, given)
    return core.create(rng, {name: (net, self.tx) for name, net in {**nets, **adapters}.items()},
                       frozen={**teacher, **self.lessons.frozen(given)},
                       ema=tuple(nets) if self.ema else ())

  def losses(self, params, state: TrainState, batch, axes: Axes = Axes()):
    """As of `OMGD`, for the students."""
    check_batch(self, batch, *self._wanted)
    lesson, taught = fixed(self.teacher.apply(state.frozen['teacher'], batch['source'])) \
        if self.teacher else (batch['target'], {})
    shown = {'teacher': (lesson, self.lessons.see(state.frozen, lesson))}
    losses, terms, stats = {}, {}, {}
    for name, module in self.students.items():
      variables = {'params': params[name], **state.nets[name].stats}
      drawn, stats[name] = draw_with_taps(module, variables, batch['source'], axes)
      losses[name] = learn(self, params, state, name, drawn, shown, taught, axes, terms, stats)
    return losses, (terms | {f'{name}_loss': value for name, value in losses.items()}, stats)

  def step(self, state: TrainState, batch, axes: Axes = Axes()):
    def total(params):
      losses, more = self.losses(params, state, batch, axes)
      return sum(losses.values()), more

    grads, (terms, stats) = jax.grad(total, has_aux=True)(state.params)
    state, norms = core.advance(state, grads, dict.fromkeys(state.nets, self.tx), axes,
                                ema=self.ema)
    for name, new in axes.mean(stats).items():
      state = state.with_stats(name, new)
    return state.tick(), {**axes.mean(terms), **norms}

  def generators(self, state: TrainState) -> dict[str, Drawer]:
    return {**{name: Drawer(state.nets[name].averaged, module)
               for name, module in self.students.items()},
            **{role: Drawer(state.frozen[role], module)
               for role, module in self.teachers.items()}}


def learn(method, params, state, student, drawn, shown, taught, axes, terms, stats):
  """The loss of one student of a method; its terms and its adapters' statistics are noted."""
  adapters = f'{student}_adapters'
  variables = {'params': params[adapters], **state.nets[adapters].stats} \
      if adapters in state.nets else None
  loss, found, similar, moved = method.lessons.loss(
      state.frozen, variables, drawn, shown, taught, axes)
  terms |= {f'{student}_{term}': value for term, value in found.items()}
  terms |= {f'similar_{student}_{tap}': value for tap, value in similar.items()}
  if variables and moved:
    stats[adapters] = moved
  return loss


def start_adapters(method, nets, source, key, given):
  """{student_adapters: variables} of a method's students; {} where lessons need none.

  Raises ValueError for taps that do not fit, whatever compares them.
  """
  found, modules = {}, {**method.students, **method.teachers}
  for pair in method.pupils.items():
    i = number(method, pair[0], tuple(method.pupils))
    shapes = method.lessons.tap_shapes(
        pair, *((modules[role], nets[role]) for role in pair), source)
    name = f'{pair[0]}_adapters'
    if method.lessons.adapted:
      found[name] = method.lessons.start_adapters(shapes, jax.random.fold_in(key, i),
                                                  method.init_scheme)
      if given and name in given:
        found[name] = checked(name, given, found[name], f'{pair[0]} with its teacher')
  return found


def of_head(before: Mapping, after: Mapping, head: str, heads) -> dict:
  """A discriminator's statistics after a pass of one head: those of the other heads stay."""
  others = tuple(f'_{other}' for other in heads if other != head)

  def stays(layer):
    return layer.removesuffix('_norm').endswith(others)

  return {kind: {layer: before[kind][layer] if stays(layer) else new
                 for layer, new in layers.items()} for kind, layers in after.items()}


def shrinking(method) -> dict[str, linen.Module]:
  """The students of a method that lose channels, by role."""
  shrink = getattr(method, 'shrink', None)
  return dict.fromkeys(shrink.roles('student'), method.student) if shrink else {}


def number(method, role: str, among: tuple[str, ...]) -> int:
  """Of a role's random key: students that shrink to different budgets begin alike."""
  return among.index('student' if role in shrinking(method) else role)


def shrunk(method, state: TrainState, logs, batch, axes: Axes):
  """What a step comes to (state, logs) where the student may lose channels."""
  if not method.shrink:
    return state, logs
  shape = (1, *batch['source'].shape[1:])
  for role, budget in method.shrink.roles('student').items():
    state, left = method.shrink.advance(state, role, method.student, shape, budget)
    logs = {**logs, **left}
  return state, logs


def check_lesson(lesson: str, ema: float):
  """Raises ValueError for lessons of an average that is not kept."""
  choose('lesson', lesson, ('current', 'average'))
  if lesson == 'average' and not ema:
    raise ValueError("lesson='average' teaches by averaged teachers; give ema, as 0.999")


def refuse_dropout(modules: Mapping[str, linen.Module]):
  """Raises ValueError for a generator with dropout, which these methods train without."""
  for name, module in modules.items():
    if getattr(module, 'dropout', 0):
      raise ValueError(f'{name} has dropout={module.dropout}; OMGD trains without: dropout=0.')
