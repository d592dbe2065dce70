"""What one config and its work directory hold: data, methods, networks, measures, all read only."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxgan_compress import config as configs
from jaxgan_compress import data, distributed, metrics, nn, pruning
from jaxgan_compress.analysis import colour_labels, count_params
from jaxgan_compress.config import CHECKPOINTS, SELECT, build
from jaxgan_compress.core import Drawer, Method, Net, TrainState, paths
from jaxgan_compress.core.arguments import typed
from jaxgan_compress.metrics import Evaluator, Measure, classifier
from jaxgan_compress.train import Checkpointer, log_files
from jaxgan_compress.train.progress import Reporter

# Steps of earlier stages from which on the step of a later one is traced before they are taken.
LONG = 200
MOST = 2 ** 30  # parameters of a network that is cut


@typed
def open_run(workdir: str | Path, reporter: Reporter | None = None, *,
             moved: Mapping[str, str] | None = None) -> Run:
  """The run in a work directory. Raises FileNotFoundError if there is none.

  moved: {key of the config: where that file or folder is now}, as {'data.path': '/mnt/maps'}; what
  is stored stays as it is. Raises ValueError for a key that holds no path.
  """
  workdir = distributed.folder(workdir)
  stored = workdir / 'config.json'
  if not stored.is_file():
    raise FileNotFoundError(f'{workdir} holds no run (no config.json); '
                            'train one with jaxgan-compress train')
  config = configs.read(stored)
  there = named_paths(config)
  for key, path in (moved or {}).items():
    if key not in there:
      raise ValueError(f'{key!r} is no path in {stored}; {configs.suggest(key, there)}')
    *sections, last = key.split('.')
    functools.reduce(lambda section, name: section[name], sections, config)[last] = str(path)
  return Run(config, workdir, reporter or Reporter(quiet=True), stored)


def named_paths(config: ConfigDict) -> dict[str, str]:
  """{dotted key: path} of the files and folders that a config names."""

  def found(section, prefix, given):
    for key, value in section.items():
      if isinstance(value, Mapping):
        yield from found(value, f'{prefix}{key}.', given or key == 'given')
      elif isinstance(value, str) and (given or key in ('path', 'data_dir')):
        yield prefix + key, value

  return dict(found(config.to_dict(), '', False))


@dataclasses.dataclass
class Run:
  """The stages of one config in one work directory."""
  config: ConfigDict
  workdir: Path
  reporter: Reporter
  stored: Path | None = None  # the file that the config was read from
  _sources: dict = dataclasses.field(default_factory=dict)
  _drawers: dict = dataclasses.field(default_factory=dict)
  _evaluators: dict = dataclasses.field(default_factory=dict)
  _known_drawings: dict = dataclasses.field(default_factory=dict)
  _known_learners: dict = dataclasses.field(default_factory=dict)
  _known_shapes: dict = dataclasses.field(default_factory=dict)
  _cuts: dict = dataclasses.field(default_factory=dict)
  _begun: dict = dataclasses.field(default_factory=dict)
  _looking: dict = dataclasses.field(default_factory=dict)

  def open_sources(self):
    """Opens all that the run will need and begins every stage on shapes alone, so that a missing
    set, a wrong file or a network that does not fit costs no training."""
    cuts, spent = {}, 0
    for name in self.config.run:
      stage = self.config.stages[name]
      for teacher in tuple(stage.teacher) or (None,):
        method, batch = build.method(self.config, name, teacher), {}
        if method.needs_data:
          source = self.source(**stage.data)
          if stage.shift:
            data.random_shift(stage.shift)(source[0], np.random.default_rng(0))
          batch = data.prepared_batch(source, [0])
          self._check_images(name, method, batch)
        if stage.prune and not self.pruned(name):
          # A dry run on weights that mean nothing tells whether the budget can be met.
          module = getattr(method, method.product)
          trial = repr((module, stage.prune.to_dict(), stage.data.to_dict()))
          if trial not in cuts:
            if (count := count_params(nn.init.shapes(module))) > MOST:
              raise ValueError(f'stages.{name} is cut from a network of {count:,} parameters; at '
                               f'most {MOST:,} can be: give a narrower one')
            cuts[trial] = self.cut(name, module, nn.initialise(module, jax.random.key(0)))
          self._cuts[name, teacher] = cuts[trial]
        if not self.is_done(name):
          with build.blaming(f'stages.{name}'):
            self._begin(name, teacher, spent > LONG)
      spent += stage.steps * (not self.is_done(name))
    if configs.measures(self.config):
      self._check_evaluation()

  def _begin(self, name, teacher, step=False):
    """The shapes of a stage's first state, with its teacher's as that begins; step: of the next
    state, too."""
    if (name, teacher) in self._begun and not step:
      return self._begun[name, teacher]
    stage, cut = self.config.stages[name], self._cuts.get((name, teacher)) or {
        role: pruning.Cut(*nn.load(path, self._whole(name)), {}, 0, 0, 0)
        for role, path in self.pruned(name).items()}
    method = build.method(self.config, name, teacher, {
        role: each.module for role, each in cut.items()})
    batch = data.prepared_batch(self.source(**stage.data), [0]) if method.needs_data else {}
    files = self._given(name, method)
    given = {role: Net.of(each.variables) for role, each in cut.items()} | files
    if teacher is not None and _is_taught(method, stage):
      theirs = self._begin(teacher, next(iter(self.config.stages[teacher].teacher), None))
      given = self.as_given(teacher, theirs.nets) | given
    start = lambda given: method.init(self.root_key(name), batch, given or None)
    if files:
      traced, state = jax.make_jaxpr(start, return_shape=True)(given)
      _check_all_used(traced.jaxpr, given, files, state)
    else:
      state = jax.eval_shape(start, given)
    if step:
      rows = (stage.batch or self.config.batch) * method.updates
      many = {key: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype) for key, x in batch.items()}
      jax.eval_shape(method.step, state.replace(memory=jax.tree.map(
          lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), state.memory)),
          many or {'row': jax.ShapeDtypeStruct((rows,), np.int32)})
    self._begun[name, teacher] = state
    if not stage.prune:  # what is cut later may have other widths than what is cut now
      self._known_shapes[name, teacher, False] = state
    return state

  def _check_evaluation(self):
    """Whether what measures can be opened, knows the measures that decide, and takes the images
    that are drawn. What a stage trains to measure is known only then."""
    settings, probs = self.config.evaluate, True
    for key in ('held_out', 'real', 'test'):
      section = settings[key]
      if not section and key != 'real':
        continue
      with build.blaming(f'evaluate.{key}'):
        sources = self.sides(section)
        if key == 'held_out':
          continue
        if sum(len(each.b) for each in sources) < 4:
          raise ValueError('distances between sets take at least 4 images')
        shown = data.prepared_batch(sources[-1].a, [0])
        self._check_drawings(shown, data.prepared_batch(sources[0].b, [0]))
    distances, images = ('fd', 'mmd'), 'source' in shown or 'image' in shown
    if settings.extractor:
      extractor, distances = self._extractor(), self._extractor().distances
      with build.blaming('evaluate.extractor'):
        picture = shown.get('target', shown.get('image'))
        probs = 'probs' in jax.eval_shape(extractor.apply, extractor.variables, picture)
    if settings.segmenter:
      if 'label_map' not in shown:
        raise ValueError(f'evaluate.segmenter compares label maps and the data has '
                         f'{", ".join(shown)}; take data that has them, or leave it out')
      if not settings.segmenter.get('stage'):
        self._segmenter()
    names = (*distances, 'precision', 'recall', *(('is',) if probs else ()),
             *(('psnr', 'ssim', 'l1') if images and 'target' in shown else ()),
             *(('miou', 'pixel_accuracy') if settings.segmenter else ()))
    _check_deciding(settings, names)

  def _check_drawings(self, shown, real):
    """That every stage draws images like the real ones it is compared with."""
    for name in self.config.run:
      stage = self.config.stages[name]
      method = build.method(self.config, name, next(iter(stage.teacher), None))
      if not method.draws:
        continue
      module = getattr(method, method.product)
      x = module.example() if hasattr(module, 'latent') else shown.get('source', shown.get('image'))
      if x is None:
        raise ValueError(f'stage {name!r} draws from images, and the data has {", ".join(shown)}')
      drawn, picture = self._drawing(module, x), real.get('target', real.get('image'))
      if drawn.shape[1:] != picture.shape[1:]:
        ours, theirs = ('x'.join(map(str, x.shape[1:])) for x in (drawn, picture))
        raise ValueError(f'stage {name!r} draws {ours} (height x width x channels) and is compared '
                         f'with images of {theirs}; give both the same size')

  def _drawing(self, module, x):
    """The shape of what a generator draws; stages share networks, and tracing one takes seconds."""
    seen = repr((module, x.shape))
    if seen not in self._known_drawings:
      self._known_drawings[seen] = jax.eval_shape(
          module.init_with_output, jax.random.key(0), x)[0][0]
    return self._known_drawings[seen]

  def _check_images(self, name, method, batch):
    module = getattr(method, method.product)
    if method.draws:
      latent = hasattr(module, 'latent')
      for role in ('target',) if latent else ('source', 'target'):
        if role not in batch:
          raise ValueError(f'stage {name!r} learns from {role!r}, and its data has '
                           f'{", ".join(batch)}')
      x = module.example() if latent else batch['source']
      with build.blaming(f'stages.{name}.method.{method.product}'):
        drawn = self._drawing(module, x)
      if drawn.shape[1:] != batch['target'].shape[1:]:
        ours, theirs = ('x'.join(map(str, x.shape[1:])) for x in (drawn, batch['target']))
        raise ValueError(f'stage {name!r}: its generator draws {ours} (height x width x channels) '
                         f'and its data has {theirs}; change one of them')

  def pipeline(self, name: str) -> data.Pipeline:
    """The batches that a stage trains on."""
    config, stage = self.config, self.config.stages[name]
    return data.Pipeline(
        self.source(**stage.data), seed=config.seed,
        batch=(stage.batch or config.batch) * self.method(name).updates, workers=config.workers,
        augment=data.random_shift(stage.shift) if stage.shift else None)

  def method(self, name: str) -> Method:
    """A stage's method, its students as they were cut."""
    cut = {role: nn.load(path, self._whole(name))[0] for role, path in self.pruned(name).items()}
    return build.method(self.config, name, self.teacher(name), cut)

  def _whole(self, name):
    """The network that a stage is cut from."""
    method = build.method(self.config, name, next(iter(self.config.stages[name].teacher), None))
    return getattr(method, method.product)

  def teacher(self, name: str) -> str | None:
    """The stage that this one learns from: of several candidates, the best measured."""
    stage = self.config.stages[name]
    candidates = tuple(stage.teacher)
    if len(candidates) < 2:
      return candidates[0] if candidates else None
    metric = self.config.evaluate.select
    values = {}
    for candidate in candidates:
      measured = self.measured(candidate)
      if not measured:
        raise ValueError(f'stage {candidate!r} in {self.workdir} is not measured yet, so the '
                         f'teacher of {name!r} cannot be chosen; go on training first')
      values[candidate] = measured[stage.teacher_checkpoint]['measures'][metric]['value']
    return (min if SELECT[metric] == 'min' else max)(values, key=values.get)

  def nets(self, name: str, checkpoint: str = 'last') -> dict[str, Net]:
    """The networks of a stage at its 'best' or 'last' checkpoint."""
    return self.state(name, checkpoint).nets

  def drawer(self, name: str, checkpoint: str = 'best') -> Drawer:
    """A generator: that a stage is for ('stage'), or another that learned in it ('stage.wide')."""
    if (name, checkpoint) not in self._drawers:
      stage, role = self.role(name)
      draw = self.method(stage).generators(self.state(stage, checkpoint))[role]
      self._drawers[name, checkpoint] = jax.device_put(draw)
    return self._drawers[name, checkpoint]

  def taught_by(self, name: str) -> str | None:
    """The generator that this one learned from, where there is one."""
    stage, role = self.role(name)
    method = self.method(stage)
    teacher = getattr(method, 'pupils', {}).get(role)
    if teacher and f'{stage}.{teacher}' in self._learners(stage):
      return f'{stage}.{teacher}'
    taught = (teacher or role == method.product) and self.is_taught(stage)
    return self.teacher(stage) if taught else None

  def lesson(self, name: str, checkpoint: str) -> Drawer | None:
    """What a generator is compared with: its teacher, as it stood or was chosen to teach."""
    teacher = self.taught_by(name)
    if teacher is None:
      return None
    stage, _ = self.role(name)
    return self.drawer(teacher, checkpoint if teacher.startswith(f'{stage}.')
                       else self.config.stages[stage].teacher_checkpoint)

  def measured_generators(self) -> list[str]:
    """Every generator that learned in a stage which measured its own (if anything measures), in
    order, see `drawer`. Raises ValueError if there is none yet."""
    found = []
    for name in self.config.run:
      section = self.config.stages[name].method
      draws = build.resolve(section.name, build.HOMES['method']).draws
      there = self.measured(name) if configs.measures(self.config) else self.is_done(name)
      if draws and there:
        found += self._learners(name)
      elif draws:
        self.reporter.say(f'{name}: left out, it is not trained far enough to be measured')
    if not found:
      raise ValueError(f'{self.workdir} has no measured generator yet; go on training first')
    return found

  def measured(self, name: str) -> dict[str, dict[str, Any]]:
    """{'last': line, 'best': line} of the stage's recorded evaluations; {} if it has none."""
    lines = log_files.read_lines(self.folder(name) / 'evaluations.jsonl')
    with self.checkpointer(name, read_only=True) as checkpointer:
      best = checkpointer.best_step()
    kept = [line for line in lines if line['step'] == best]
    return {'last': lines[-1], 'best': kept[0]} if kept else {}

  def evaluator(self, name: str) -> Evaluator:
    """Measures every generator of this run in the same way, to choose by; what draws source from
    target is measured the other way round."""
    return self._evaluator(name, self.config.evaluate.real)

  def final_evaluator(self, name: str) -> Evaluator:
    """The same for what is reported: against `evaluate.test`, where that is given."""
    return self._evaluator(name, self.config.evaluate.test or self.config.evaluate.real)

  def real(self, intervals: int = 0) -> dict[str, dict[str, Measure]]:
    """The measures of the real images: {'real': ...}, and 'real_back' of the other direction."""
    found = {}
    for name in self.measured_generators():
      key = 'real_back' if self.is_back(name) else 'real'
      if key not in found:
        found[key] = self.final_evaluator(name).real(intervals)
    return found

  def is_back(self, name: str) -> bool:
    """Whether a generator draws sources from targets."""
    stage, role = self.role(name)
    return role in getattr(self.method(stage), 'backwards', ())

  def _evaluator(self, name, section):
    back = self.is_back(name)
    key = back, json.dumps(section.to_dict(), sort_keys=True)
    if key not in self._evaluators:
      self._evaluators[key] = self._make_evaluator(name, section, back)
    return self._evaluators[key]

  def _make_evaluator(self, name, section, back):
    settings = self.config.evaluate
    if settings.classifier:
      extractor = classifier(*self._trained(settings.classifier))
    else:
      extractor = self._extractor()
    sources = self.sides(section, back)
    images, segmenter = self._from_images(name), None
    if settings.segmenter.get('stage'):
      segmenter = metrics.segmenter(*self._trained(settings.segmenter.stage))
    elif settings.segmenter:
      segmenter = self._segmenter()
    found = Evaluator(extractor, tuple(sources), count=settings.count, seed=settings.seed,
                      splits=settings.splits, segmenter=segmenter,
                      inputs=self._questions(section, back) if images else None)
    _check_deciding(settings, found.names)
    return found

  def _extractor(self):
    return self._looks_by('extractor')

  def _segmenter(self):
    return self._looks_by('segmenter')

  def _looks_by(self, key):
    """A network of `metrics` that measures, opened once."""
    if key not in self._looking:
      with self._placed():
        self._looking[key] = build.make(self.config.evaluate[key], build.HOMES['extractor'],
                                        f'evaluate.{key}')
    return self._looking[key]

  def _trained(self, name):
    """Module, variables and accuracy of the network that a stage trained to look."""
    method = self.method(name)
    return (getattr(method, method.product), self.nets(name)[method.product].averaged,
            json.loads(self.done_file(name).read_text()).get('accuracy'))

  def sides(self, section: ConfigDict, back: bool = False) -> list:
    """The sources of a section of `evaluate`: one for each of its splits. back: swapped."""
    section = section.to_dict()
    splits = section.get('split')
    several = splits if isinstance(splits, tuple | list) else (None,)
    found = [self.source(**(section if split is None else {**section, 'split': split}))
             for split in several]
    return [data.swapped(source) for source in found] if back else found

  def _questions(self, section, back=False):
    """What images are drawn from: the last of the section's sources, up to evaluate.count."""
    source = self.sides(section, back)[-1]
    return data.First(source.a, self.config.evaluate.count)

  def input_shape(self, name: str, rows: int = 1) -> tuple[int, ...]:
    """Of what a generator draws from."""
    module = self.drawer(name).module
    return (rows, module.latent) if hasattr(module, 'latent') else (
        rows, *self.shown(name, 1)['source'].shape[1:])

  def shown(self, name: str, count: int) -> dict[str, Any]:
    """Images [B,H,W,C] of the final comparison that a generator draws from ('source'), what should
    come out ('target', where there are pairs) and a way to show the first ('picture')."""
    questions = self._questions(self.config.evaluate.test or self.config.evaluate.real,
                                self.is_back(name))
    rows = np.linspace(0, len(questions) - 1, min(count, len(questions))).astype(int)
    batch = data.prepared_batch(questions, rows)
    source = batch.get('source', batch.get('image'))
    picture = colour_labels(batch['label_map'], batch['edges']) if 'label_map' in batch else source
    return {**batch, 'source': source, 'picture': picture}

  def _from_images(self, name):
    stage, _ = self.role(name)
    method = self.method(stage)
    return not hasattr(getattr(method, method.product), 'latent')

  def given(self, name: str) -> dict[str, Net] | None:
    """The networks that a stage starts from, from the teacher's checkpoint."""
    teacher, found = self.teacher(name), self._files(name)
    if teacher is not None and self.is_taught(name):
      found = self.as_given(
          teacher, self.nets(teacher, self.config.stages[name].teacher_checkpoint)) | found
    return found or None

  def is_taught(self, name):
    """Whether a stage learns from its teacher or goes on with its teachers, and is not only cut
    from it."""
    return _is_taught(self.method(name), self.config.stages[name])

  def _files(self, name):
    """{role: Net} of the stage's files."""
    return {role: Net.of(nn.load(path, self._whole(name))[1])
            for role, path in self.pruned(name).items()} | self._given(name, self.method(name))

  def _given(self, name, method):
    """{role: Net} of `given`, whose files are of the networks that the method has there."""
    found, there = {}, networks(method)
    for role, path in self.config.stages[name].given.items():
      where = f'stages.{name}.given.{role}'
      with build.blaming(where), self._placed():
        module, variables = nn.load(path, there.get(role))
        if role not in there:
          raise ValueError(f'{type(method).__name__} has no network of this role; it has '
                           f'{", ".join(there)}')
        if differing := _differences(module, there[role], role):
          raise ValueError(f'{path} is of another network, with {differing}; change the method, or '
                           'give the file of its network')
      found[role] = Net.of(variables)
    return found

  def pruned(self, name: str) -> dict[str, Path]:
    """{role: file} of what pruning left, empty before: going on never prunes again."""
    files = self.cut_files(name)
    return files if all(path.is_file() for path in files.values()) else {}

  def cut_files(self, name: str) -> dict[str, Path]:
    """{role: file} where a stage keeps what pruning leaves."""
    roles = build.budgets(self.config, name)
    return {role: self.folder(name) / f'pruned{role.removeprefix(next(iter(roles)))}.safetensors'
            for role in roles}

  def cut(self, name: str, module, variables, others=lambda role: None) -> dict[str, pruning.Cut]:
    """{role: what is left} of a network, for a stage's students, which nest.

    others: role -> variables of another network of this kind, which it is cut from instead, or
    None. Raises ValueError for a budget that cannot be met."""
    stage = self.config.stages[name]
    shape = module.example().shape if hasattr(module, 'latent') else (
        1, *data.prepared_batch(self.source(**stage.data), [0])['source'].shape[1:])
    with build.blaming(f'stages.{name}.prune'):
      if not hasattr(module, 'plan'):
        raise ValueError(f'a {type(module).__name__} has no plan() of what may be cut; see '
                         'docs/howto.md')
      found = {role: pruning.cut(
          module, others(role) or variables, shape, key=self.root_key(f'{name}.prune'),
          **{**stage.prune.to_dict(), 'budget': budget})
          for role, budget in build.budgets(self.config, name).items()}
      for each in found.values():
        nn.files.network.describe(each.module, like=module)  # it will have to be saved
      return found

  def as_given(self, teacher: str, nets: Mapping[str, Net]) -> dict[str, Net]:
    """The networks of a teacher's stage under the roles that its student's method gives them."""
    product = build.resolve(self.config.stages[teacher].method.name, build.HOMES['method']).product
    # Its adapters are of another pair of networks.
    return {'teacher': nets[product], **{role: net for role, net in nets.items()
                                         if role != product and not role.endswith('_adapters')}}

  def state(self, name: str, checkpoint: str) -> TrainState:
    """The state of a stage at its 'best' or 'last' checkpoint, or at 'best:METRIC'. Raises
    FileNotFoundError if there is none."""
    kind, _, metric = checkpoint.partition(':')
    if kind not in CHECKPOINTS or (':' in checkpoint and (kind != 'best' or not metric)):
      raise ValueError(f'checkpoint={checkpoint!r}; best, last, or best:METRIC')
    with self.checkpointer(name, read_only=True) as checkpointer:
      step = checkpointer.best_step(metric or None) if kind == 'best' else None
      state = checkpointer.restore(self.shapes(name), step)
    if state is None:
      raise FileNotFoundError(f'stage {name!r} in {self.workdir} has no checkpoint; train it first')
    return state

  def shapes(self, name: str) -> TrainState:
    """The shapes of a stage's state, without reading or making any."""
    teacher, given = self.teacher(name), self._files(name)
    seen = name, teacher, bool(self.pruned(name))  # a whole network until it is cut
    if seen not in self._known_shapes:  # tracing takes seconds, and each generator asks
      method, batch = self.method(name), {}
      if method.needs_data:
        source = self.source(**self.config.stages[name].data)
        batch = data.prepared_batch(source, [0])
      if teacher is not None and self.is_taught(name):
        given = self.as_given(teacher, self.shapes(teacher).nets) | given
      self._known_shapes[seen] = jax.eval_shape(method.init, self.root_key(name), batch,
                                                given or None)
    return self._known_shapes[seen]

  def checkpointer(self, name: str, read_only: bool = False) -> Checkpointer:
    """The checkpoints of a stage, kept as the config says."""
    settings = self.config.evaluate
    measured = configs.measures(self.config) and self.method(name).draws
    return Checkpointer(
        self.folder(name) / 'checkpoints', keep=self.config.checkpoint.keep, read_only=read_only,
        best={metric: SELECT[metric] for metric in (settings.select, *settings.best)}
        if measured else None)

  def role(self, name: str) -> tuple[str, str]:
    """(stage, role) of a generator's name."""
    stage, _, role = name.partition('.')
    return stage, role or self.method(stage).product

  def _learners(self, stage):
    """The names of the generators that learn in a stage, its own first, students then."""
    if stage not in self._known_learners:
      method, shapes = self.method(stage), self.shapes(stage)
      pupils = getattr(method, 'pupils', {})
      learning = jax.eval_shape(method.generators, shapes).keys() & shapes.nets.keys()
      self._known_learners[stage] = [
          stage if role == method.product else f'{stage}.{role}'
          for role in sorted(learning, key=lambda role: (
              role != method.product, role not in pupils, role))]
    return self._known_learners[stage]

  def root_key(self, name: str) -> jax.Array:
    """The key of all that is random in a stage."""
    return jax.random.fold_in(jax.random.key(self.config.seed), zlib.crc32(name.encode()))

  def folder(self, name: str) -> Path:
    """Of a stage."""
    return self.workdir / name

  def done_file(self, name: str) -> Path:
    """There as soon as a stage is complete."""
    return self.folder(name) / 'done.json'

  def is_done(self, name: str) -> bool:
    """Whether a stage is complete."""
    return self.done_file(name).is_file()

  def source(self, **more):
    """The data of the config, some fields given anew; opened once."""
    section = {**self.config.data.to_dict(), **more}
    key = json.dumps(section, sort_keys=True)
    if key not in self._sources:
      with self._placed():
        self._sources[key] = build.source(section)
    return self._sources[key]

  @contextlib.contextmanager
  def _placed(self):
    """What is not found is said with its key in the config, and how to give another place."""
    try:
      yield
    except FileNotFoundError as e:
      gone = {key: path for key, path in named_paths(self.config).items()
              if not paths.expand(path).exists()}
      if not gone:
        raise
      where, flag = (self.stored, 'moved=') if self.stored else ('the config', 'config.')
      raise FileNotFoundError(
          f'{e}. Not there, as seen from {Path.cwd()}: ' + ', '.join(
              f'{key}={path}' for key, path in gone.items())
          + f' of {where}; where it is now is given by ' + ' '.join(
              f'--{flag}{key}=PATH' for key in gone)) from e


def networks(method: Method) -> dict[str, Any]:
  """{role: module} of all that a method may be given: who draws, judges, teaches and looks."""
  found = {}
  for part in filter(None, (method, getattr(method, 'cycle', None))):
    adversary = getattr(part, 'adversary', None)
    found |= {'disc': adversary.disc} if adversary else {}
    for several in ('modules', 'students', 'teachers'):
      found |= getattr(part, several, None) or {}
    if adversary and getattr(part, 'backwards', ()):
      found['disc_back'] = adversary.disc
  for role in (method.product, 'teacher'):
    found |= {role: getattr(method, role)} if getattr(method, role, None) else {}
  look = getattr(method, 'look', None) or getattr(getattr(method, 'lessons', None), 'look', None)
  return found | ({'features': look} if look else {})


def _differences(ours, theirs, role):
  """In words, the fields in which two networks differ, but for those that change no drawing; what
  looks at features may go further up."""
  if type(ours) is not type(theirs):
    return f'a {type(ours).__name__} where a {type(theirs).__name__} is wanted'
  free = {'name', 'parent', 'dtype', 'dropout'} | ({'layers'} if role == 'features' else set())
  pairs = {field.name: (getattr(ours, field.name), getattr(theirs, field.name))
           for field in dataclasses.fields(ours) if field.name not in free}
  return ', '.join(f'{key}={nn.files.network.spell(a)} where {nn.files.network.spell(b)} is wanted'
                   for key, (a, b) in pairs.items() if a != b)


def _is_taught(method, stage):
  return not stage.prune or hasattr(method, 'teacher') or hasattr(method, 'teachers')


def _check_all_used(jaxpr, given, files, state):
  """Raises ValueError for a file that a stage begins without looking at."""
  read = {id(x) for part in (jaxpr, *jaxpr.eqns) for x in (
      part.outvars if part is jaxpr else part.invars)}
  leaves = [role for role in sorted(given) for _ in jax.tree.leaves(given[role])]
  used = {role for role, x in zip(leaves, jaxpr.invars, strict=True) if id(x) in read}
  if unused := sorted(files.keys() - used):
    raise ValueError(f'given.{unused[0]} is not used: this method, with its fields, begins without '
                     f'it and has {", ".join(sorted({*state.nets, *state.frozen}))}; leave it out')


def _check_deciding(settings, names):
  for metric in (settings.select, *settings.best):
    if metric not in names:
      raise ValueError(f'evaluate.select or evaluate.best names {metric!r}, which nothing here '
                       f'measures; there is {", ".join(names)}')


