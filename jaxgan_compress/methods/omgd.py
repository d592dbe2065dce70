"""OMGD on pairs, Ren et al. 2021: a student learns online from a wider and a deeper teacher."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen

from jaxgan_compress import core
from jaxgan_compress.core import Axes, BoundGenerator, Net, Roles, TrainState, stop_gradient
from jaxgan_compress.losses import image
from jaxgan_compress.methods.adversary import Adversary, FixedDiscriminator
from jaxgan_compress.methods.augment import View
from jaxgan_compress.methods.distillation import DistillLoss
from jaxgan_compress.methods.setup import (
  check_batch,
  choose,
  forward_train,
  init_net,
  refuse_dropout,
)
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


@dataclasses.dataclass(frozen=True)
class OMGD:
  """Teachers learn from pairs; students learn from their teachers, in the same steps.

  A student never meets the discriminator or the ground truth, unless terms say so, and no teacher
  is moved by its students. All losses are taken at the parameters before the step, so one gradient
  of one sum moves every network.

  batch: `{'source', 'target'}`, [B,H,W,C] in [-1, 1].
  student; wide, deep: generators of one input and output; either teacher may be None. The wide
    teacher's taps are compared (the deep one's, where it is alone).
  adversary: of the teachers; its discriminator sees source and image side by side and has a head
    for each: `nn.PatchGAN(inputs=6, heads=('wide', 'deep'), shared=5)`. A student of which it has a
    head as well is met by it: that head learns to tell the student's images from real ones, and
    scores it where a term of its loss asks a discriminator. That is ours and not OMGD.
  tx: of students and their adapters. teacher_tx: default, the same.
  distill: what the students minimise.
  extra_students: more students, {role: generator}, each at the cost of its own forward and backward
    pass. extra_distill: what some of them minimise instead, {role: DistillLoss}.
  teacher_every: teachers and discriminator move every so many steps, the students at each.
  ema: decay of moving averages of students and teachers, 0 for none. teacher_params: 'current' or
    'ema', which teaches by another forward pass of the averaged teachers.
  gradual_pruning: the student loses channels while it learns; None: it stays as it is. With several
    budgets as many students of this network learn, each down to its own.
  recon_loss: 'l1', 'l2' or 'smooth_l1', of a teacher's image and the target, see `losses.image`.

  Roles: 'student', 'student_adapters', 'wide', 'deep', 'disc', the extra students with their
  adapters, frozen 'features'. Raises ValueError for contradictory fields.
  """
  student: linen.Module
  tx: optax.GradientTransformation
  adversary: Adversary
  wide: linen.Module | None = None
  deep: linen.Module | None = None
  distill: DistillLoss = DistillLoss()
  teacher_tx: optax.GradientTransformation | None = None
  extra_students: Mapping[str, linen.Module] = dataclasses.field(default_factory=dict)
  extra_distill: Mapping[str, DistillLoss] = dataclasses.field(default_factory=dict)
  adv_weight: float = 1.
  recon_weight: float = 100.
  teacher_every: int = 1
  ema: float = 0.
  teacher_params: str = 'current'
  gradual_pruning: GradualPruning | None = None
  init_scheme: str = 'normal'
  recon_loss: str = 'l1'

  main = 'student'
  is_generator = True
  needs_data = True
  updates = 1

  def __post_init__(self):
    self.adversary.check_translation(self.teachers)
    check_teacher_params(self.teacher_params, self.ema)
    choose('recon_loss', self.recon_loss, image.RECONSTRUCTIONS)
    if not self.teachers:
      raise ValueError('no teacher is given; OMGD takes wide, deep or both')
    check_extra(self, ('student', 'wide', 'deep', 'disc'))
    refuse_dropout({**self.students, **self.teachers})
    if self.teacher_every < 1:
      raise ValueError(f'teacher_every={self.teacher_every}; at least 1')

  @property
  def teachers(self) -> dict[str, linen.Module]:
    return {role: module for role, module in (('wide', self.wide), ('deep', self.deep)) if module}

  @property
  def students(self) -> dict[str, linen.Module]:
    return {'student': self.student, **self.extra_students, **pruned_students(self)}

  @property
  def roles(self) -> Roles:
    return Roles('student', tuple(self.students), tuple(self.teachers),
                 dict.fromkeys(self.students, next(iter(self.teachers))), disc=('disc',))

  @property
  def modules(self) -> dict[str, linen.Module]:
    return {**self.students, **self.teachers, 'disc': self.adversary.disc, **self.distill.modules}

  def init(self, rng, batch, init_from: Mapping[str, Net] | None = None) -> TrainState:
    check_batch(self, batch, 'source', 'target')
    source, target = batch['source'][:1], batch['target'][:1]
    s_key, t_key, d_key, a_key, rng = jax.random.split(rng, 5)
    scheme = {'scheme': self.init_scheme, 'init_from': init_from}
    nets, generators = {}, {**self.teachers, **self.students}
    for role, module in generators.items():
      key = jax.random.fold_in(t_key if role in self.teachers else s_key,
                               key_number(self, role, tuple(generators)))
      nets[role] = init_net(role, module, key, source, **scheme)
    nets['disc'] = init_net('disc', self.adversary.disc, d_key, target, source, **scheme)
    adapters, frozen = init_adapters(self, nets, source, a_key, init_from)
    nets |= adapters
    frozen |= self.distill.frozen(init_from) | self.adversary.frozen()
    if self.gradual_pruning:
      frozen['masks'] = self.gradual_pruning.masks('student', self.student, source.shape)
    tx = self._optimisers(nets)
    return core.create(rng, {role: (net, tx[role]) for role, net in nets.items()}, frozen=frozen,
                       ema=generators if self.ema else ())

  def losses(self, params, state: TrainState, batch, axes: Axes = Axes()):
    """({learner: what it minimises}, (logs, {role: new collections}, replica_state)).

    `stop_gradient` marks what a learner may not change: a student's loss moves its adapters, too.
    """
    check_batch(self, batch, 'source', 'target')
    outputs, collections = {}, {}
    for role, module in self.teachers.items():
      variables = {'params': params[role], **state.nets[role].collections}
      outputs[role], collections[role] = forward_train(module, variables, batch['source'], axes)
    view = self.adversary.view(state, axes)
    real = self._logits(params['disc'], state, batch, view, axes)(
        'real', batch['target'], fake=next(iter(outputs.values()))[0])
    disc = {'params': params['disc'], **state.nets['disc'].collections}

    def scored_by(head, output):
      return dataclasses.replace(output, disc=FixedDiscriminator(
          self.adversary, disc, batch['source'], view, axes, (head,), stop_gradient(real)))

    teachers = {role: teacher_output(
        self, state, outputs[role] if self.teacher_params == 'current'
        else module.apply(state.nets[role].averaged, batch['source'], train=False),
        target=batch['target']) for role, module in self.teachers.items()}
    student_loss, student_logs, moved, images = student_losses(
        self, params, state, {role: (module, batch['source'], {
            teacher: scored_by(role if role in self.adversary.disc.heads else teacher, output)
            for teacher, output in teachers.items()}) for role, module in self.students.items()},
        axes)
    images = {**{role: image for role, (image, _) in outputs.items()}, **{
        role: image for role, image in images.items() if role in self.adversary.disc.heads}}
    losses, logs = self._teacher_losses(params, state, batch, images, real, view, axes)
    collections['disc'] = self._disc_collections(
        stop_gradient(params['disc']), state.nets['disc'].collections, batch,
        {role: stop_gradient(image) for role, image in images.items()}, view, axes)
    return {**losses, **student_loss}, (core.merge_logs(logs, student_logs), {
        **collections, **moved}, state.replica_state)

  def step(self, state: TrainState, batch, axes: Axes = Axes()):
    def move(learners):
      losses = lambda params: self._of_learners(learners, params, state, batch, axes)
      moved, logs = core.update_together(state, losses, learners, self._optimisers(state.nets),
                                         axes, ema=self.ema)
      if 'disc' in learners:
        moved, logs = self.adversary.adapt(moved, logs, len(batch['target']), axes)
      elif self.adversary.adaptive:
        logs = core.merge_logs(logs, {'augment_probability': {
            role: x['p'] for role, x in state.frozen['adaptive'].items()}})
      resting = {role: jnp.zeros(()) for role in state.nets if role not in learners}
      return moved, core.merge_logs(logs, {'grad_norm': resting})

    every = tuple(state.nets)
    students = tuple(role for role in state.nets if role not in ('disc', *self.teachers))
    if self.teacher_every == 1:
      moved, logs = move(every)
    else:
      moved, logs = jax.lax.cond((state.step + 1) % self.teacher_every == 0, lambda: move(every),
                                 lambda: move(students))
    return prune_students(self, moved, logs, batch)

  def generators(self, state: TrainState) -> dict[str, BoundGenerator]:
    return {role: BoundGenerator(state.nets[role].averaged, module)
            for role, module in {**self.students, **self.teachers}.items()}

  def _logits(self, disc, state, batch, view: View, axes):
    """(name of a view, images) -> {head: logits} of a discriminator of these parameters."""
    variables = {'params': disc, **state.nets['disc'].collections}
    return lambda name, x, **fake: self.adversary.apply(
        variables, *view(name, x, batch['source'], **fake), axes)[0][0]

  def _teacher_losses(self, params, state, batch, images, real, view: View, axes):
    """({'disc', 'wide', 'deep': loss}, logs) of the teachers and their discriminator.

    images: {head: generated images}, of teachers and of students that it meets. real: {head: logits
    of real images}, which are seen once, whatever the number of heads.
    """
    target = batch['target']
    live, fixed = (self._logits(each, state, batch, view, axes)
                   for each in (params['disc'], stop_gradient(params['disc'])))
    losses: dict[str, Any] = {'disc': jnp.zeros(())}
    logs: dict[str, dict[str, Any]] = {'disc': {}}
    fakes = {}
    for role, generated in images.items():
      head = lambda name, x, role=role: live(name if name == 'real' else f'fake_{role}', x)[role]
      fake = stop_gradient(generated)
      fakes[role] = head('fake', fake)
      on_real, on_fake = self.adversary.disc_losses(real[role], fakes[role])
      losses['disc'] += (on_real + on_fake) / 2 + self.adversary.slope_penalties(
          head, target, fake)
      logs['disc'] |= {f'real_{role}': on_real, f'fake_{role}': on_fake}
      if role not in self.teachers:
        continue
      adv = self.adversary.g_loss(fixed(f'generator_{role}', generated)[role],
                                  stop_gradient(real[role]))
      recon = image.RECONSTRUCTIONS[self.recon_loss](generated, target)
      logs[role] = {'adv': self.adv_weight * adv, 'recon': self.recon_weight * recon}
      losses[role] = sum(logs[role].values())
    for role, loss in losses.items():
      logs[role]['loss'] = loss
    return losses, core.merge_logs(logs, self.adversary.gaps(fakes), self.adversary.confidence(
        real[role] for role in self.teachers))

  def _of_learners(self, learners, *args):
    """`losses`, without new collections of a discriminator that did not take part."""
    losses, (logs, collections, replica_state) = self.losses(*args)
    if 'disc' not in learners:
      collections = {role: new for role, new in collections.items() if role != 'disc'}
    return losses, (logs, collections, replica_state)

  def _disc_collections(self, params, collections, batch, generated, view: View, axes):
    """The discriminator's collections after the passes of the published code: for each teacher its
    image and the target, then the images for the teachers. A pass moves what all heads share, and
    its own teacher's; these are the passes of the losses, which XLA computes once."""
    if not collections:
      return collections
    shown = {'fake': next(iter(generated.values()))}
    passes = [(role, each) for role, fake in generated.items() for each in (
        view(f'fake_{role}', fake, batch['source']),
        view('real', batch['target'], batch['source'], **shown))]
    passes += [(role, view(f'generator_{role}', x, batch['source']))
               for role, x in generated.items() if role in self.teachers]
    for role, seen in passes:
      _, moved = self.adversary.forward(params, collections, *seen, axes)
      collections = of_head(collections, moved, role, self.adversary.disc.heads)
    return collections

  def _optimisers(self, roles):
    teacher_tx = self.teacher_tx or self.tx
    return {**dict.fromkeys(roles, self.tx), **dict.fromkeys(self.teachers, teacher_tx),
            'disc': self.adversary.tx}


def of_head(before: Mapping, after: Mapping, head: str, heads) -> dict:
  """A discriminator's collections after a pass of one head: those of the other heads stay."""
  other_heads = tuple(f'_{other}' for other in heads if other != head)

  def stays(layer):
    return layer.removesuffix('_norm').endswith(other_heads)

  return {kind: {layer: before[kind][layer] if stays(layer) else new
                 for layer, new in layers.items()} for kind, layers in after.items()}
