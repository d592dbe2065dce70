"""CAT, Jin et al. 2021: a student pruned from its teacher learns to have the teacher's features."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import jax
import optax
from flax import linen

from jaxgan_compress import core, nn
from jaxgan_compress.core import Axes, BoundGenerator, Net, Roles, TrainState, stop_gradient
from jaxgan_compress.losses import image
from jaxgan_compress.methods.adversary import Adversary
from jaxgan_compress.methods.distillation import DistillLoss
from jaxgan_compress.methods.gaugan import (
  VGG19_LAYERS,
  check_feature_net,
  check_label_adversary,
  feature_modules,
  frozen_features,
  gaugan_step,
)
from jaxgan_compress.methods.pix2pix import pix2pix_step
from jaxgan_compress.methods.setup import (
  check_batch,
  check_same,
  check_weights,
  choose,
  init_net,
  need_disc,
  need_teacher,
)
from jaxgan_compress.methods.students import finished_discriminator
from jaxgan_compress.methods.tap_terms import Taps
from jaxgan_compress.methods.terms import Output

TAPS = ('stem', 'block3', 'block6', 'block9')
LABEL_TAPS = ('head', 'middle1', 'up1')


class _Aligned:
  """What both methods of CAT share: a finished teacher, whose taps the student's are aligned with.
  """
  main = 'student'
  is_generator = True
  needs_data = True
  updates = 1
  roles = Roles('student', ('student',), ('teacher',), {'student': 'teacher'}, disc=('disc',))

  student: linen.Module
  teacher: linen.Module
  adversary: Adversary
  tx: optax.GradientTransformation
  align_weight: float
  similarity: str
  taps: tuple[str, ...]
  scope: str
  ema: float
  init_scheme: str
  distill: DistillLoss | None

  @property
  def alignment(self) -> Taps:
    """The term that aligns taps."""
    return Taps(self.similarity, self.align_weight, self.taps, scope=self.scope)

  @property
  def modules(self) -> dict[str, linen.Module]:
    return {'student': self.student, 'teacher': self.teacher, 'disc': self.adversary.disc,
            **(self.distill.modules if self.distill else {})}

  def _check_alignment(self):
    if self.align_weight and not self.taps:
      raise ValueError(f'align_weight={self.align_weight} compares taps; name them, or '
                       'align_weight=0')
    _ = self.alignment  # refuses an unknown similarity or scope
    if not self.distill:
      return
    if self.distill.taps:
      raise ValueError('distill has Taps; CAT compares them by align_weight, similarity and taps: '
                       'give these')
    if self.distill.needs_disc and self.adversary.relativistic:
      raise ValueError(f'a term asks the finished discriminator of the teacher, whose '
                       f'loss={self.adversary.loss!r} compares with real images; take another loss')

  def _teach(self, state, batch):
    """The teacher's (image, taps), which nothing learns through."""
    check_batch(self, batch, 'source', 'target')
    return stop_gradient(self.teacher.apply(state.frozen['teacher'], batch['source']))

  def _imitate(self, state, batch, taught, axes):
    """`more_terms` of a step: {term: value} of the alignment of each tap, and of `distill`.

    taught: the teacher's (image, taps). Its discriminator, for terms that ask it, is the one that
    the student's began from.
    """
    disc = finished_discriminator(self.adversary, state, batch['source'], axes) \
        if self.distill and self.distill.needs_disc else None

    def terms(generated, taps, helpers):
      nets = state.nets
      adapters = {'params': helpers['student_adapters'], **nets['student_adapters'].collections} \
          if 'student_adapters' in helpers else None
      found = self.alignment.values(Output(None, taps), {'teacher': Output(None, taught[1])}, axes,
                                    adapters)[0]
      if self.distill:
        output = functools.partial(self.distill.output, state.frozen)
        _, more, _, _ = self.distill.loss(
            'student', output(generated, taps), {'teacher': output(*taught, disc=disc)}, adapters,
            axes, state.frozen.get('projections', {}).get('student'))
        found |= more
      return found

    return terms

  def _helpers(self, state):
    """What a step needs for these terms."""
    names = (self.taps if self.align_weight else (), *(
        term.names for term in (self.distill.tap_terms if self.distill else ())))
    return {'taps': tuple(dict.fromkeys(name for several in names for name in several)),
            'helpers': tuple(role for role in state.nets if role == 'student_adapters')}

  def _init(self, rng, batch, init_from, *, conditional=True, fresh_disc=False, frozen=None):
    """The first state of a student, its discriminator and, where the similarity needs them, its
    adapters. fresh_disc: init_from['disc'] is asked by terms and is not where it starts."""
    teacher = need_teacher(self, init_from)
    check_batch(self, batch, 'source', 'target')
    source, target = batch['source'][:1], batch['target'][:1]
    s_key, d_key, a_key, rng = jax.random.split(rng, 4)
    scheme = {'scheme': self.init_scheme, 'init_from': init_from}
    nets = {'student': init_net('student', self.student, s_key, source, **scheme),
            'disc': init_net('disc', self.adversary.disc, d_key, target,
                             *((source,) if conditional else ()), scheme=self.init_scheme,
                             init_from=None if fresh_disc else init_from)}
    shapes = self.alignment.shapes(('student', 'teacher'), (self.student, nets['student']),
                                   (self.teacher, teacher), source) if self.align_weight else {}
    tx = {'student': self.tx, 'disc': self.adversary.tx, 'student_adapters': self.tx}
    adapters = self.alignment.init_adapters(shapes, a_key, 'he')
    frozen = {'teacher': teacher, **self.adversary.frozen(), **(frozen or {})}
    if self.distill:
      learning, fixed = self.distill.init_adapters(
          ('student', 'teacher'), (self.student, nets['student']), (self.teacher, teacher), source,
          jax.random.fold_in(a_key, 1), self.init_scheme, self.adversary.disc)
      for kind, variables in learning.items():
        adapters.setdefault(kind, {}).update(variables)
      frozen |= self.distill.frozen(init_from) | (
          {'projections': {'student': fixed}} if fixed else {})
      if self.distill.needs_disc:
        frozen['teacher_disc'] = need_disc(self, init_from, self.adversary.disc, target, source)
    if adapters:
      nets['student_adapters'] = check_same(
          'student_adapters', init_from, adapters, 'student with its teacher') \
          if 'student_adapters' in init_from else adapters
    return core.create(rng, {role: (net, tx[role]) for role, net in nets.items()},
                       frozen=frozen, ema=('student',) if self.ema else ())

  def generators(self, state: TrainState) -> dict[str, BoundGenerator]:
    return {'student': BoundGenerator(state.nets['student'].averaged, self.student),
            'teacher': BoundGenerator(state.frozen['teacher'], self.teacher)}


@dataclasses.dataclass(frozen=True)
class CAT(_Aligned):
  """adv_weight * (GAN loss) + recon_weight * |student - recon_target| + align_weight * sum over
  taps of the similarity's loss.

  The discriminator moves first; the teacher is finished and generates in inference mode.

  batch: `{'source', 'target'}`, [B,H,W,C] in [-1, 1]; without `paired` any real image of the target
    domain will do as 'target'.
  student, teacher: generators of one input and output, both with `taps`.
  paired: the discriminator sees source and image side by side; else the image alone.
  recon_target: 'target', or 'teacher' for the teacher's image; 'auto' for the first of pairs and
    the second without, as published.
  disc_init: 'teacher': the discriminator continues from the teacher's, as published; 'fresh': it
    starts anew.
  align_weight, similarity, taps, scope: as of `Taps`, 'ka' and its kind or 'mse', the published
    ones. Published code sums each replica's own alignment ('replica_sum').
  ema: decay of the moving average of the student, 0 for none.
  recon_loss: 'l1', 'l2' or 'smooth_l1', see `losses.image`.
  distill: further terms between the student and its teacher, see `DistillLoss`; those that ask a
    discriminator ask the teacher's, init_from['disc'], as it is.

  init_from['teacher'] is needed; init_from['student'], as `pruning.init_student` makes it,
  init_from['disc'], the teacher's discriminator, and init_from['student_adapters'] are where these
  start. Roles: 'student', 'student_adapters' (mse), 'disc', frozen 'teacher'. Raises ValueError for
  contradictory fields.
  """
  student: linen.Module
  teacher: linen.Module
  adversary: Adversary
  tx: optax.GradientTransformation
  paired: bool = True
  recon_target: str = 'auto'
  disc_init: str = 'teacher'
  adv_weight: float = 1.
  recon_weight: float = 100.
  align_weight: float = 1.
  similarity: str = 'ka'
  taps: tuple[str, ...] = TAPS
  scope: str = 'global'
  ema: float = 0.
  init_scheme: str = 'normal'
  recon_loss: str = 'l1'
  distill: DistillLoss | None = None

  def __post_init__(self):
    self.adversary.check_translation()
    check_weights(self, 'adv_weight', 'recon_weight', 'align_weight')
    self._check_alignment()
    choose('disc_init', self.disc_init, ('teacher', 'fresh'))
    choose('recon_target', self.recon_target, ('auto', 'target', 'teacher'))
    choose('recon_loss', self.recon_loss, image.RECONSTRUCTIONS)
    if self.recon_target == 'target' and not self.paired:
      raise ValueError("recon_target='target' needs paired=True: without pairs a target is any "
                       'image')

  def init(self, rng, batch, init_from: Mapping[str, Net] | None = None) -> TrainState:
    return self._init(rng, batch, init_from, conditional=self.paired,
                      fresh_disc=self.disc_init == 'fresh')

  def step(self, state: TrainState, batch, axes: Axes = Axes()):
    taught = self._teach(state, batch)
    imitate = self._imitate(state, batch, taught, axes)
    imitates = self.recon_target == 'teacher' or (self.recon_target == 'auto' and not self.paired)
    target = taught[0] if imitates else batch['target']

    def more_terms(generated, taps, helpers):
      loss = image.RECONSTRUCTIONS[self.recon_loss](generated, target)
      return {'recon': self.recon_weight * loss, **imitate(generated, taps, helpers)}

    return pix2pix_step(self, state, batch, axes, more_terms,
                        batch['source'] if self.paired else None, **self._helpers(state))


@dataclasses.dataclass(frozen=True)
class CATGauGAN(_Aligned):
  """Label maps to images: what `GauGAN` minimises + align_weight * sum over taps of the
  similarity's loss; generator first.

  The discriminator starts from the teacher's; the teacher is finished and generates in inference
  mode.

  batch, adversary, adv_weight, match_weight, feature_weight, feature_net: as of `GauGAN`. The rest:
  as of `CAT`, `distill` too; published runs align by 0.5 each replica's own samples ('replica').

  init_from['teacher'] is needed; init_from['student'], init_from['disc'] and
  init_from['student_adapters'] are where these start. Roles: 'student', 'student_adapters' (mse),
  'disc', frozen 'teacher', 'features'. Raises ValueError for contradictory fields. Jin et al. 2021.
  """
  student: linen.Module
  teacher: linen.Module
  adversary: Adversary
  tx: optax.GradientTransformation
  adv_weight: float = 1.
  match_weight: float = 10.
  feature_weight: float = 10.
  feature_net: linen.Module = nn.VGG(19, layers=tuple(VGG19_LAYERS))
  align_weight: float = 0.5
  similarity: str = 'ka'
  taps: tuple[str, ...] = LABEL_TAPS
  scope: str = 'global'
  ema: float = 0.
  init_scheme: str = 'xavier'
  distill: DistillLoss | None = None

  def __post_init__(self):
    check_label_adversary(self.adversary)
    check_weights(self, 'adv_weight', 'match_weight', 'feature_weight', 'align_weight')
    check_feature_net(self)
    self._check_alignment()
    theirs = self.distill.modules if self.distill else {}
    if self.feature_weight and theirs and theirs != feature_modules(self):
      raise ValueError('distill compares features of another network than feature_weight does; '
                       'give both one feature_net, or feature_weight=0')

  @property
  def modules(self) -> dict[str, linen.Module]:
    return {**super().modules, **feature_modules(self)}

  def init(self, rng, batch, init_from: Mapping[str, Net] | None = None) -> TrainState:
    return self._init(rng, batch, init_from, frozen=frozen_features(self, init_from))

  def step(self, state: TrainState, batch, axes: Axes = Axes()):
    imitate = self._imitate(state, batch, self._teach(state, batch), axes)
    return gaugan_step(self, state, batch, axes, imitate, **self._helpers(state))
