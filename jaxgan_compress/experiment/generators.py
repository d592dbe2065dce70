"""The generators that a run has trained: their weights, their teachers, their measures."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxgan_compress import data, nn
from jaxgan_compress.analysis import colour_labels
from jaxgan_compress.core import BoundGenerator
from jaxgan_compress.metrics import Evaluator

if TYPE_CHECKING:
  from jaxgan_compress.experiment.stage import Stage


@dataclasses.dataclass(frozen=True)
class TrainedGenerator:
  """A generator that learned in a stage: the one that it is for, or another, as 'wide'."""
  stage: Stage
  role: str

  @property
  def name(self) -> str:
    """As reports and commands call it: 'stage', or 'stage.wide'."""
    return self.stage.name if self.role == self.stage.recipe.main else \
        f'{self.stage.name}.{self.role}'

  @property
  def module(self):
    """The network, factors merged into it where it is of low rank."""
    return nn.plain(self.stage.method.modules[self.role])

  @property
  def from_latents(self) -> bool:
    """Whether it generates from latents; else it does from images or label maps."""
    return nn.input_kind(self.module) == 'latent'

  @property
  def is_reverse(self) -> bool:
    """Whether it translates targets to sources."""
    return self.role in self.stage.method.roles.reverse

  @property
  def is_student(self) -> bool:
    return self.role in self.stage.method.roles.students or self.teacher is not None

  @property
  def is_fresh(self) -> bool:
    """Whether it started from random weights, and not from those of a stage or a file."""
    spec = self.stage.spec
    return not spec.init_from and (
        not spec.prune or spec.prune.get('student_init', 'inherit') != 'inherit')

  @property
  def paints(self) -> bool:
    """Whether it learned to paint grey pictures in colour: its inputs are grey, its targets not."""
    if self.from_latents:
      return False
    examples = self.examples(4)
    grey = lambda x: x.shape[-1] == 1 or bool((x[..., 1:3] == x[..., :1]).all())
    source, target = (examples.get(key) for key in ('source', 'target'))
    return source is not None and target is not None and grey(np.asarray(source)) \
        and not grey(np.asarray(target))

  @property
  def teacher(self) -> TrainedGenerator | None:
    """The generator that this one learned from, where there is one."""
    stage, method = self.stage, self.stage.method
    teacher = method.roles.teacher_of.get(self.role)
    if teacher and any(generator.role == teacher for generator in stage.generators):
      return TrainedGenerator(stage, teacher)
    theirs = stage.taught_by if teacher or self.role == method.main else None
    return TrainedGenerator(theirs, theirs.recipe.main) if theirs else None

  def bound(self, checkpoint: str = 'best') -> BoundGenerator:
    """With its weights at a checkpoint, see `Stage.state`, and without factors; read once."""
    cache = self.stage.run.bound_generators
    if (self, checkpoint) not in cache:
      trained = self.as_trained(checkpoint)
      module, variables = nn.merged(trained.module, trained.variables)
      cache[self, checkpoint] = jax.device_put(BoundGenerator(variables, module))
    return cache[self, checkpoint]

  def as_trained(self, checkpoint: str = 'best') -> BoundGenerator:
    """The same with its factors apart, where it is of low rank."""
    return self.stage.method.generators(self.stage.state(checkpoint))[self.role]

  def reference(self, checkpoint: str) -> BoundGenerator | None:
    """What it is compared with: its teacher, as it stood or was chosen to teach."""
    if (teacher := self.teacher) is None:
      return None
    return teacher.bound(checkpoint if teacher.stage is self.stage
                         else self.stage.spec.teacher_checkpoint)

  def evaluator(self, *, final: bool = False) -> Evaluator:
    """What measures it. final: against `evaluate.test`, where that is given, as reports do; else
    against the images that checkpoints are chosen by."""
    evaluation = self.stage.run.evaluation
    return evaluation.evaluator(evaluation.final if final else evaluation.settings.real,
                                reverse=self.is_reverse, from_latents=self.from_latents)

  def input_shape(self, rows: int = 1) -> tuple[int, ...]:
    """The shape of a batch of its inputs."""
    return (rows, self.module.latent) if self.from_latents else (
        rows, *self.examples(1)['source'].shape[1:])

  def examples(self, count: int) -> dict[str, Any]:
    """Images [B,H,W,C] of the final comparison that it generates from ('source'), what should come
    out ('target', where there are pairs) and a way to show the first ('picture')."""
    run = self.stage.run
    source = run.evaluation.inputs(run.evaluation.final, self.is_reverse)
    rows = np.linspace(0, len(source) - 1, min(count, len(source))).astype(int)
    batch = data.prepared_batch(source, rows)
    images = batch.get('source', batch.get('image'))
    picture = colour_labels(batch['label_map'], batch['edges']) if 'label_map' in batch else images
    return {**batch, 'source': images, 'picture': picture}
