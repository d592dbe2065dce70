"""CAT, Jin et al. 2021: a student that was found inside its teacher learns to see as it does."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
from flax import linen

from jaxgan_compress import core, nn
from jaxgan_compress.core import Axes, Drawer, Net, TrainState, fixed
from jaxgan_compress.losses import image
from jaxgan_compress.losses.alignment import LEAST, alignment
from jaxgan_compress.methods.distillation import looking_glass, shapes_of_taps
from jaxgan_compress.methods.gan import Adversary, check_batch, checked, choose, start
from jaxgan_compress.methods.pix2pix import (
  VGG19_LAYERS,
  check_adversary,
  check_label_adversary,
  judged_step,
  label_step,
)

TAPS = ('stem', 'block3', 'block6', 'block9')
LABEL_TAPS = ('head', 'middle1', 'up1')
SIMILARITIES = (*LEAST, 'mse')
BATCHES = ('global', 'replica', 'replica_sum')


@dataclasses.dataclass(frozen=True)
class CAT:
  """adv * (what deceives the judge) + recon * |student - wanted| - align * sum of alignments.

  The judge moves first; the teacher is finished and draws in inference mode.

  batch: `{'source', 'target'}`, [B,H,W,C] in [-1, 1]; without `paired` any real image of the target
    domain will do as 'target'.
  student, teacher: generators of one input and output, both with `taps`.
  paired: the judge sees source and image side by side; else the image alone.
  aim: what the student is drawn towards: 'target', or 'teacher' for what its teacher draws; 'auto'
    for the first of pairs and the second without, as published.
  going_on: the judge starts where the teacher's stood, as published; else afresh.
  align, index: weight and kind of the similarity of each tap, see `losses.alignment`; 'mse' is a
    distance instead, of the student's taps through 1x1 convolutions that learn with it.
  per: which samples are compared. 'global': those of all replicas, whatever their number;
    'replica': each replica's own, mean over replicas; 'replica_sum': their sum, as published code
    has it, so that its weight grows with the number of devices.
  ema: decay of the moving average of the student, 0 for none.
  recon_loss: 'l1', 'l2' or 'smooth_l1', of student - wanted, see `losses.image`.

  given['teacher'] is needed; given['student'], as `pruning.begin` makes it, given['disc'], the
  teacher's judge, and given['student_adapters'] are where these start. Roles: 'student',
  'student_adapters' (mse), 'disc', frozen 'teacher'. Raises ValueError for contradictory fields.
  """
  student: linen.Module
  teacher: linen.Module
  adversary: Adversary
  tx: optax.GradientTransformation
  paired: bool = True
  aim: str = 'auto'
  going_on: bool = True
  adv: float = 1.
  recon: float = 100.
  align: float = 1.
  index: str = 'ka'
  taps: tuple[str, ...] = TAPS
  per: str = 'global'
  ema: float = 0.
  init_scheme: str = 'normal'
  recon_loss: str = 'l1'

  product = 'student'
  draws = True
  needs_data = True
  updates = 1

  def __post_init__(self):
    check_adversary(self.adversary)
    _check(self, ('adv', 'recon', 'align'))
    choose('aim', self.aim, ('auto', 'target', 'teacher'))
    choose('recon_loss', self.recon_loss, tuple(image.RECONSTRUCTIONS))
    if self.aim == 'target' and not self.paired:
      raise ValueError("aim='target' wants paired=True: without pairs a target is any image")

  @property
  def pupils(self) -> dict[str, str]:
    """{student: the teacher it is compared with}."""
    return {'student': 'teacher'}

  def init(self, rng, batch, given: Mapping[str, Net] | None = None) -> TrainState:
    if given and not self.going_on:
      given = {role: net for role, net in given.items() if role != 'disc'}
    return _start(self, rng, batch, given, conditional=self.paired)

  def step(self, state: TrainState, batch, axes: Axes = Axes()):
    check_batch(self, batch, 'source', 'target')
    lesson, taught = fixed(self.teacher.apply(state.frozen['teacher'], batch['source']))
    copies = self.aim == 'teacher' or (self.aim == 'auto' and not self.paired)
    aim = lesson if copies else batch['target']

    def wanted(drawn, taps, helpers):
      return {'recon': self.recon * image.RECONSTRUCTIONS[self.recon_loss](drawn, aim),
              **_alignments(self, taps, taught, helpers, axes)}

    return judged_step(self, state, batch, axes, self.student, wanted,
                       batch['source'] if self.paired else None, **_compared(self, state))

  def generators(self, state: TrainState) -> dict[str, Drawer]:
    return _generators(self, state)


@dataclasses.dataclass(frozen=True)
class CATGauGAN:
  """Label maps to images: what `GauGAN` minimises, - align * sum of alignments; generator first.

  The judge starts where the teacher's stood; the teacher is finished and draws in inference mode.

  batch, adversary, adv, match, feature, look: as of `GauGAN`. The rest: as of `CAT`; published runs
  align by 0.5 each replica's own samples ('replica').

  given['teacher'] is needed; given['student'], given['disc'] and given['student_adapters'] are
  where these start. Roles: 'student', 'student_adapters' (mse), 'disc', frozen 'teacher',
  'features'. Raises ValueError for
  contradictory fields. Jin et al. 2021.
  """
  student: linen.Module
  teacher: linen.Module
  adversary: Adversary
  tx: optax.GradientTransformation
  adv: float = 1.
  match: float = 10.
  feature: float = 10.
  look: linen.Module = nn.VGG(19, layers=tuple(VGG19_LAYERS))
  align: float = 0.5
  index: str = 'ka'
  taps: tuple[str, ...] = LABEL_TAPS
  per: str = 'global'
  ema: float = 0.
  init_scheme: str = 'xavier'

  product = 'student'
  draws = True
  needs_data = True
  updates = 1

  def __post_init__(self):
    check_label_adversary(self.adversary)
    _check(self, ('adv', 'match', 'feature', 'align'))

  @property
  def pupils(self) -> dict[str, str]:
    """{student: the teacher it is compared with}."""
    return {'student': 'teacher'}

  def init(self, rng, batch, given: Mapping[str, Net] | None = None) -> TrainState:
    look = {'features': looking_glass(self.look, given)} if self.feature else {}
    return _start(self, rng, batch, given, frozen=look)

  def step(self, state: TrainState, batch, axes: Axes = Axes()):
    check_batch(self, batch, 'source', 'target')
    _, taught = fixed(self.teacher.apply(state.frozen['teacher'], batch['source']))
    wanted = lambda taps, helpers: _alignments(self, taps, taught, helpers, axes)
    return label_step(self, state, batch, axes, self.student, wanted, **_compared(self, state))

  def generators(self, state: TrainState) -> dict[str, Drawer]:
    return _generators(self, state)


def _check(method, weights):
  choose('index', method.index, SIMILARITIES)
  choose('per', method.per, BATCHES)
  if min(getattr(method, name) for name in weights) < 0:
    raise ValueError(', '.join(f'{name}={getattr(method, name)}' for name in weights)
                     + '; at least 0')
  if method.align and not method.taps:
    raise ValueError(f'align={method.align} compares taps; name them, or align=0')


def _start(method, rng, batch, given, *, conditional=True, frozen=None):
  """The state of a student, its judge and, with index='mse', its adapters."""
  if not given or 'teacher' not in given:
    raise ValueError(f'{type(method).__name__}.init wants given={{"teacher": Net}}, a teacher that '
                     'has learned')
  check_batch(method, batch, 'source', 'target')
  source, target = batch['source'][:1], batch['target'][:1]
  s_key, d_key, a_key, rng = jax.random.split(rng, 4)
  scheme = {'scheme': method.init_scheme, 'given': given}
  teacher = given['teacher'].averaged
  nets = {'student': start('student', method.student, s_key, source, **scheme),
          'disc': start('disc', method.adversary.disc, d_key, target,
                        *((source,) if conditional else ()), **scheme)}
  shapes = shapes_of_taps(method.taps, ('student', 'teacher'), (method.student, nets['student']),
                          (method.teacher, teacher), source)
  tx = dict.fromkeys(nets, method.tx) | {'disc': method.adversary.tx}
  if method.align and method.index == 'mse':
    nets['student_adapters'] = {'params': {tap: nn.initialise(
        nn.Adapter(ours[-1], theirs[-1], norm=False), jax.random.fold_in(a_key, i),
        scheme='he')['params'] for i, (tap, (ours, theirs)) in enumerate(shapes.items())}}
    if 'student_adapters' in given:
      nets['student_adapters'] = checked('student_adapters', given, nets['student_adapters'],
                                         'student with its teacher')
    tx['student_adapters'] = method.tx
  return core.create(rng, {role: (net, tx[role]) for role, net in nets.items()},
                     frozen={'teacher': teacher, **(frozen or {})},
                     ema=('student',) if method.ema else ())


def _compared(method, state):
  """What a step has to look at for the alignments."""
  return {'taps': method.taps if method.align else (),
          'helpers': tuple(role for role in state.nets if role == 'student_adapters')}


def _alignments(method, taps, taught, helpers, axes):
  """{term: value} that the alignment of each tap adds to the student's loss."""
  return {f'align_{tap}': method.align * _distance(method, x, taught[tap], helpers, tap, axes)
          for tap, x in taps.items()}


def _distance(method, x, lesson, helpers, tap, axes):
  if method.index == 'mse':
    adapter = nn.Adapter(x.shape[-1], lesson.shape[-1], norm=False, dtype=x.dtype)
    mapped = adapter.apply({'params': helpers['student_adapters'][tap]}, x, axes)
    return jnp.square(mapped.astype(jnp.float32) - lesson).mean()
  if method.per == 'global':
    x, lesson = axes.gather(x), axes.gather(lesson)
  times = axes.count if method.per == 'replica_sum' else 1
  return -times * alignment(x, lesson, method.index)


def _generators(method, state):
  return {'student': Drawer(state.nets['student'].averaged, method.student),
          'teacher': Drawer(state.frozen['teacher'], method.teacher)}
