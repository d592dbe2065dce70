"""CAT, Jin et al. 2021: a student that was found inside its teacher learns to see as it does."""

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
from jaxgan_compress.losses import image
from jaxgan_compress.losses.alignment import LEAST, alignment
from jaxgan_compress.methods.gan import Adversary, choose, start
from jaxgan_compress.methods.lessons import shapes_of_taps
from jaxgan_compress.methods.paired import check_adversary, judged_step

TAPS = ('stem', 'block3', 'block6', 'block9')
SIMILARITIES = (*LEAST, 'mse')
BATCHES = ('global', 'replica', 'replica_sum')


@dataclasses.dataclass(frozen=True)
class CAT:
  """adv * (what deceives the judge) + recon * |student - wanted| - align * sum of alignments.

  The judge moves first, and starts where the teacher's stood; the teacher is finished and draws in
  inference mode.

  batch: `{'source', 'target'}`, [B,H,W,C] in [-1, 1]; without `paired` any real image of the target
    domain will do as 'target'.
  student, teacher: generators of one input and output, both with `taps`.
  paired: the judge sees source and image side by side and the student is drawn towards 'target';
    else it sees the image alone, and the student is drawn towards what its teacher draws.
  align, index: weight and kind of the similarity of each tap, see `losses.alignment`; 'mse' is a
    distance instead, of the student's taps through 1x1 convolutions that learn with it.
  per: which samples are compared. 'global': those of all replicas, whatever their number;
    'replica': each replica's own, mean over replicas; 'replica_sum': their sum, as published code
    has it, so that its weight grows with the number of devices.
  ema: decay of the moving average of the student, 0 for none.

  given['teacher'] is needed; given['student'], as `pruning.begin` makes it, and given['disc'], the
  teacher's judge, are where these start. Roles: 'student', 'student_adapters' (mse), 'disc', frozen
  'teacher'. Raises ValueError for contradictory fields.
  """
  student: linen.Module
  teacher: linen.Module
  adversary: Adversary
  tx: optax.GradientTransformation
  paired: bool = True
  adv: float = 1.
  recon: float = 100.
  align: float = 1.
  index: str = 'ka'
  taps: tuple[str, ...] = TAPS
  per: str = 'global'
  ema: float = 0.
  init_scheme: str = 'normal'

  product = 'student'
  draws = True
  needs_data = True
  updates = 1

  def __post_init__(self):
    check_adversary(self.adversary)
    choose('index', self.index, SIMILARITIES)
    choose('per', self.per, BATCHES)
    if min(self.adv, self.recon, self.align) < 0:
      raise ValueError(f'adv={self.adv}, recon={self.recon}, align={self.align}; at least 0')
    if self.align and not self.taps:
      raise ValueError(f'align={self.align} compares taps; name them, or align=0')

  @property
  def pupils(self) -> dict[str, str]:
    """{student: the teacher it is compared with}."""
    return {'student': 'teacher'}

  def init(self, rng, batch, given: Mapping[str, Net] | None = None) -> TrainState:
    if not given or 'teacher' not in given:
      raise ValueError('CAT.init wants given={"teacher": Net}, a teacher that has learned')
    source, target = batch['source'][:1], batch['target'][:1]
    s_key, d_key, a_key, rng = jax.random.split(rng, 4)
    scheme = {'scheme': self.init_scheme, 'given': given}
    teacher = given['teacher'].averaged
    nets = {'student': start('student', self.student, s_key, source, **scheme),
            'disc': start('disc', self.adversary.disc, d_key, target,
                          *((source,) if self.paired else ()), **scheme)}
    shapes = shapes_of_taps(self.taps, ('student', 'teacher'), (self.student, nets['student']),
                            (self.teacher, teacher), source)
    tx = dict.fromkeys(nets, self.tx) | {'disc': self.adversary.tx}
    if self.align and self.index == 'mse':
      nets['student_adapters'] = {'params': {tap: nn.initialise(
          nn.Adapter(ours[-1], theirs[-1], norm=False), jax.random.fold_in(a_key, i),
          scheme='he')['params'] for i, (tap, (ours, theirs)) in enumerate(shapes.items())}}
      tx['student_adapters'] = self.tx
    return core.create(rng, {role: (net, tx[role]) for role, net in nets.items()},
                       frozen={'teacher': teacher}, ema=('student',) if self.ema else ())

  def step(self, state: TrainState, batch, axes: Axes = Axes()):
    lesson, taught = fixed(self.teacher.apply(state.frozen['teacher'], batch['source']))
    aim = batch['target'] if self.paired else lesson

    def wanted(drawn, taps, helpers):
      terms = {'recon': self.recon * image.l1(drawn, aim)}
      for tap, x in taps.items():
        terms[f'align_{tap}'] = self.align * self._distance(x, taught[tap], helpers, tap, axes)
      return terms

    helpers = ('student_adapters',) if 'student_adapters' in state.nets else ()
    return judged_step(self, state, batch, axes, self.student, wanted,
                       batch['source'] if self.paired else None,
                       self.taps if self.align else (), helpers)

  def generators(self, state: TrainState) -> dict[str, Drawer]:
    return {'student': Drawer(state.nets['student'].averaged, self.student),
            'teacher': Drawer(state.frozen['teacher'], self.teacher)}

  def _distance(self, x, lesson, helpers, tap, axes):
    """What one tap adds to the student's loss, before its weight."""
    if self.index == 'mse':
      adapter = nn.Adapter(x.shape[-1], lesson.shape[-1], norm=False, dtype=x.dtype)
      mapped = adapter.apply({'params': helpers['student_adapters'][tap]}, x, axes)
      return jnp.square(mapped.astype(jnp.float32) - lesson).mean()
    if self.per == 'global':
      x, lesson = axes.gather(x), axes.gather(lesson)
    times = axes.count if self.per == 'replica_sum' else 1
    return -times * alignment(x, lesson, self.index)
