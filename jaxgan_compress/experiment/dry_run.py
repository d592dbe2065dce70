"""Everything that a run needs, checked on shapes alone before a step is taken."""

from __future__ import annotations

import jax
import numpy as np
from flax import linen

from jaxgan_compress import config as configs
from jaxgan_compress import data, nn, pruning
from jaxgan_compress.analysis import count_params
from jaxgan_compress.config import build
from jaxgan_compress.core import Net, TrainState
from jaxgan_compress.experiment.evaluation import check_selection
from jaxgan_compress.experiment.stage import Stage, learns_from_teacher
from jaxgan_compress.experiment.workdir import Run
from jaxgan_compress.nn.init import shapes

# Steps of earlier stages from which on the step of a later one is traced before they are taken.
LONG = 200
MOST = 2 ** 30  # parameters of a network that is pruned


def check(run: Run):
  """Opens all data and files that a run needs and begins every stage on shapes alone, so that a
  missing set, a wrong file or a network that does not fit costs no training."""
  DryRun(run).check()


class DryRun:
  """The shapes of a run, traced once: stages share networks, and tracing one takes seconds."""

  def __init__(self, run: Run):
    self.run = run
    self._pruned: dict[tuple, dict[str, pruning.PruneResult]] = {}
    self._trials: dict[str, tuple[pruning.PruneResult, ...]] = {}
    self._begun: dict[tuple, TrainState] = {}
    self._images: dict[str, jax.ShapeDtypeStruct] = {}

  def check(self):
    steps_before = 0
    for stage in self.run.stages.values():
      for teacher in stage.candidates or (None,):
        self._check_data(stage, teacher)
        if stage.spec.prune and not stage.pruned.written:
          self._pruned[stage, teacher] = self._try_pruning(stage, teacher)
        if not stage.is_done:
          with build.blaming(f'stages.{stage.name}'):
            self._begin(stage, teacher, step=steps_before > LONG)
      steps_before += stage.spec.steps * (not stage.is_done)
    if configs.measures(self.run.config):
      self._check_evaluation()

  def _check_data(self, stage: Stage, teacher: Stage | None):
    method = stage.method_with(teacher)
    if method.needs_data:
      source = stage.source()
      if stage.spec.shift:
        data.random_shift(stage.spec.shift)(source[0], np.random.default_rng(0))
      if method.is_generator:
        self._check_images(stage, method, data.prepared_batch(source, [0]))

  def _check_images(self, stage, method, batch):
    module = method.modules[method.main]
    latent = nn.input_kind(module) == 'latent'
    for role in ('target',) if latent else ('source', 'target'):
      if role not in batch:
        raise ValueError(f'stage {stage.name!r} learns from {role!r}, and its data has '
                         f'{", ".join(batch)}')
    with build.blaming(f'stages.{stage.name}.method.{method.main}'):
      image = self._image(module, module.example() if latent else batch['source'])
    if image.shape[1:] != batch['target'].shape[1:]:
      ours, theirs = (_sides(x) for x in (image, batch['target']))
      raise ValueError(f'stage {stage.name!r}: its generator gives {ours} (height x width x '
                       f'channels) and its data has {theirs}; change one of them')

  def _image(self, module, x):
    """The shape of what a generator generates."""
    key = repr((module, x.shape))
    if key not in self._images:
      self._images[key] = jax.eval_shape(module.init_with_output, jax.random.key(0), x)[0][0]
    return self._images[key]

  def _try_pruning(self, stage: Stage, teacher: Stage | None):
    """Prunes weights that mean nothing, which tells whether the budget can be met."""
    method = stage.method_with(teacher, whole=self._left_of(teacher))
    module = method.modules[method.main]
    trial = repr((module, stage.spec.prune.to_dict(), stage.spec.data.to_dict()))
    if trial not in self._trials:
      if (count := count_params(shapes(module))) > MOST:
        raise ValueError(f'stages.{stage.name} is pruned from a network of {count:,} parameters; '
                         f'at most {MOST:,} can be: give a narrower one')
      self._trials[trial] = tuple(
          stage.prune(module, nn.initialise(module, jax.random.key(0)), trial=True).values())
    # Stages with equal budgets may call their networks differently.
    return dict(zip(stage.pruned.paths, self._trials[trial], strict=True))

  def _left_of(self, stage: Stage | None) -> linen.Module | None:
    """What the trial has left of a stage's generator, if it has pruned it."""
    results = [found for (each, _), found in self._pruned.items() if each is stage and found]
    return next(iter(results[0].values())).module if results else None

  def _begin(self, stage: Stage, teacher: Stage | None, step: bool = False) -> TrainState:
    """The shapes of a stage's first state, with its teacher's as that begins; step: of the next
    state, too."""
    if (stage, teacher) in self._begun and not step:
      return self._begun[stage, teacher]
    networks = {role: (result.module, result.variables)
                for role, result in self._pruned.get((stage, teacher), {}).items()} or \
        (stage.pruned.load(stage.whole) if stage.pruned.paths else {})
    method = stage.method_with(teacher, {role: module for role, (module, _) in networks.items()},
                               self._left_of(teacher))
    batch = stage.example(method)
    files = stage.named_files(method) | stage.of_stages(
        lambda earlier: self._begin(earlier, next(iter(earlier.candidates), None)).nets)
    init_from = {role: Net.of(variables) for role, (_, variables) in networks.items()} | files
    if teacher is not None and learns_from_teacher(method, stage.spec):
      theirs = self._begin(teacher, next(iter(teacher.candidates), None))
      init_from = teacher.as_teacher(theirs.nets) | init_from
    init = lambda init_from: method.init(stage.key, batch, init_from or None)
    if files:
      traced, state = jax.make_jaxpr(init, return_shape=True)(init_from)
      _check_all_used(traced.jaxpr, init_from, files, state)
    else:
      state = jax.eval_shape(init, init_from)
    if step:
      rows = stage.batch * method.updates
      many = {key: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype) for key, x in batch.items()}
      jax.eval_shape(method.step, state.replace(replica_state=jax.tree.map(
          lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), state.replica_state)),
          many or {'row': jax.ShapeDtypeStruct((rows,), np.int32)})
    self._begun[stage, teacher] = state
    if not stage.spec.prune:  # what is pruned later may have other widths than what is pruned now
      stage.remember_shapes(teacher, state)
    return state

  def _check_evaluation(self):
    """Whether what measures can be opened, knows the measures that decide, and takes the images
    that are generated. What a stage trains to measure is known only then."""
    evaluation, settings = self.run.evaluation, self.run.config.evaluate
    batch = {}
    for key in ('held_out', 'real', 'test'):
      if settings[key] or key == 'real':
        with build.blaming(f'evaluate.{key}'):
          batch = self._check_comparison(evaluation.sides(settings[key]), key) or batch
    distances, probs = ('fd', 'mmd'), True
    if settings.extractor:
      extractor = evaluation.network('extractor')
      distances = extractor.distances
      with build.blaming('evaluate.extractor'):
        images = batch.get('target', batch.get('image'))
        probs = 'probs' in jax.eval_shape(extractor.apply, extractor.variables, images)
    if settings.segmenter:
      if 'label_map' not in batch:
        raise ValueError(f'evaluate.segmenter compares label maps and the data has '
                         f'{", ".join(batch)}; take data that has them, or leave it out')
      if not settings.segmenter.get('stage'):
        evaluation.network('segmenter')
    paired = ('source' in batch or 'image' in batch) and 'target' in batch
    check_selection(settings, (
        *distances, 'precision', 'recall', *(('is',) if probs else ()),
        *(('psnr', 'ssim', 'l1') if paired else ()),
        *(('miou', 'pixel_accuracy') if settings.segmenter else ())))

  def _check_comparison(self, sources, key):
    """A batch of what generators start from, of sources that can be compared with."""
    if key == 'held_out':
      return None
    if sum(len(source.b) for source in sources) < 4:
      raise ValueError('distances between sets take at least 4 images')
    batch = data.prepared_batch(sources[-1].a, [0])
    self._check_generated(batch, data.prepared_batch(sources[0].b, [0]))
    return batch

  def _check_generated(self, batch, real):
    """That every stage generates images like the real ones it is compared with."""
    for stage in self.run.stages.values():
      if not stage.recipe.is_generator:
        continue
      module = stage.whole
      x = module.example() if nn.input_kind(module) == 'latent' else batch.get(
          'source', batch.get('image'))
      if x is None:
        raise ValueError(f'stage {stage.name!r} generates from images, and the data has '
                         f'{", ".join(batch)}')
      image, compared = self._image(module, x), real.get('target', real.get('image'))
      if image.shape[1:] != compared.shape[1:]:
        raise ValueError(f'stage {stage.name!r} generates {_sides(image)} (height x width x '
                         f'channels) and is compared with images of {_sides(compared)}; give both '
                         'the same size')


def _sides(x):
  return 'x'.join(map(str, x.shape[1:]))


def _check_all_used(jaxpr, init_from, files, state):
  """Raises ValueError for a file that a stage begins without reading."""
  read = {id(x) for part in (jaxpr, *jaxpr.eqns) for x in (
      part.outvars if part is jaxpr else part.invars)}
  leaves = [role for role in sorted(init_from) for _ in jax.tree.leaves(init_from[role])]
  used = {role for role, x in zip(leaves, jaxpr.invars, strict=True) if id(x) in read}
  if unused := sorted(files.keys() - used):
    raise ValueError(f'init_from.{unused[0]} is not used: this method, with its fields, begins '
                     f'without it and has {", ".join(sorted({*state.nets, *state.frozen}))}; '
                     'leave it out')
