"""A whole run: every stage of a config trained, measured and reported in one work directory.

    workdir/config.json            what was asked for; another config is refused
    workdir/environment.jsonl      versions, device and git revision, a line a session
    workdir/<stage>/checkpoints/   the newest two states and the best
    workdir/<stage>/log.jsonl      losses and speed; evaluations.jsonl: measures; events/: both
    workdir/results.json           the table; report.html: the same to look at
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import json
import os
import platform
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from jaxgan_compress import build, data, metrics, nn, pruning
from jaxgan_compress import config as configs
from jaxgan_compress.analysis import captioned, colour_labels, contact_sheet, cost, report
from jaxgan_compress.core import Drawer, Net, normalise
from jaxgan_compress.metrics import Evaluator, Measure, classifier
from jaxgan_compress.parallel import build_mesh
from jaxgan_compress.train import Checkpointer, StopSignal, Terms, check_finite, fit, records
from jaxgan_compress.train.progress import Reporter

# Keys that change how a run is watched and not what it computes.
HARMLESS = {'log_every', 'checkpoint.every', 'checkpoint.keep', 'workers', 'cache', 'via',
            'replicas'}

CHECKPOINTS = configs.CHECKPOINTS
SELECT = configs.SELECT


class Interrupted(Exception):  # noqa: N818 - a request was met, nothing went wrong
  """A signal stopped the run and its state is saved; `exit_code` is for the process."""

  def __init__(self, text: str, exit_code: int):
    super().__init__(text)
    self.exit_code = exit_code


def run(config: ConfigDict, workdir: str | Path, *, quiet: bool = False) -> dict[str, Any]:
  """Trains every stage of the config, measures it and writes `report.html`; returns the results.

  Called again with the same arguments it goes on where it was, and what is finished stays.

  Raises ValueError for a config that cannot be built, FileExistsError for a work directory of
  another config, `train.TermError` for a loss that is no longer finite, `train.CheckpointError`
  for a disk that fails, and Interrupted after Ctrl-C or SIGTERM.
  """
  build.validate(config)
  if jax.process_count() > 1:
    raise ValueError(f'{jax.process_count()} processes were started; a run is one process')
  devices = build_mesh().size
  replicas = config.replicas or devices
  if replicas % devices:
    raise ValueError(f'replicas={replicas} does not divide over {devices} devices; use a multiple')
  for name in config.run:
    batch = config.stages[name].batch or config.batch
    if batch % replicas:
      raise ValueError(f'stage {name!r}: batch {batch} does not divide over {replicas} replicas; '
                       f'use {-(-batch // replicas) * replicas}')
  if config.cache:
    compilation_cache()
  workdir = Path(workdir)
  this = Run(config, workdir, Reporter(quiet))
  this.open_sources()
  with _claimed(workdir, config), StopSignal() as stop:
    for name in config.run:
      this.stage(name, stop)
    results = this.results()
    records.write_whole(workdir / 'results.json', json.dumps(results, indent=1))
    this.report(results)
  return results


def evaluate(workdir: str | Path, checkpoint: str = 'best', count: int | None = None,
             intervals: int = 0) -> dict[str, dict[str, Measure]]:
  """Measures every generator of a run again: `{stage: {measure: Measure}}`, 'real' included.

  checkpoint: 'best', 'last', or 'best:is' for the best by another measure of evaluate.best.
  count: images for each generator (default: the config's). intervals: halvings of the samples for
  the 95 % interval of each value, see `metrics.bootstrap`; 0: no intervals.
  Raises FileNotFoundError for a folder without a run or a stage without a checkpoint.
  """
  this = open_run(workdir)
  if count is not None:
    this.config.evaluate.count = count
  if not configs.measures(this.config):
    raise ValueError(f'{workdir} was run without evaluate.classifier and evaluate.extractor; '
                     'nothing can measure it')
  found = {}
  for name in this.measured_generators():
    found[name] = this.final_evaluator(name)(
        this.drawer(name, checkpoint), this.lesson(name, checkpoint), intervals=intervals)
  return {**found, **this.real(intervals)}


def describe(config: ConfigDict) -> list[dict[str, Any]]:
  """Every generator and discriminator of a config: stage, role, name, parameters, MACs, the shapes
  of its variables, and the budget to which it will be cut: till then it stands there whole. Trains
  nothing."""
  build.validate(config)
  rows = []
  for name in config.run:
    teachers = tuple(config.stages[name].teacher)
    method = build.method(config, name, teachers[0] if teachers else None)
    for role, network, x in _networks(config, name, method):
      variables = jax.eval_shape(network.init, jax.random.key(0), x)
      rows.append({'stage': name, 'role': role, 'network': type(network).__name__,
                   'budget': build.budgets(config, name).get(role),
                   'params': cost.count_params(variables),
                   'params_paper': cost.count_params(variables, 'paper'),
                   'macs': cost.macs(network, x.shape), 'variables': variables})
  return rows


def _networks(config, name, method):
  """[(role, module, an input)] of all networks of a stage that learn or judge."""
  module = getattr(method, method.product)
  adversary = getattr(method, 'adversary', None) or getattr(
      getattr(method, 'cycle', None), 'adversary', None)
  disc = [('disc', adversary.disc)] if adversary else []
  if not method.draws:
    return []
  if hasattr(module, 'latent'):
    image = jax.eval_shape(module.init_with_output, jax.random.key(0), module.example())[0][0]
    return [(method.product, module, module.example()),
            *((role, network, image) for role, network in disc)]
  found = {method.product: module}
  for several in ('students', 'teachers', 'modules'):
    found |= getattr(method, several, {})
  if config.stages[name].teacher:  # who is a stage of its own
    found.pop('teacher', None)
  section = {**config.data.to_dict(), **config.stages[name].data}
  size = section.get('size', 256)
  height, width = (size, size) if isinstance(size, int) else size
  if section.get('name') == 'labels' and section.get('preprocess', 'scale_width') == 'scale_width':
    height = width // 2  # as of Cityscapes; what the folder's are, only its files know
  return [(role, network, jax.ShapeDtypeStruct(
      (1, height, width, network.example().shape[-1]), jnp.float32))
      for role, network in (*found.items(), *disc)]


def show_data(config: ConfigDict, stage: str | None = None, *, columns: int = 8) -> np.ndarray:
  """A picture of what a stage trains on: two batches as drawn, and the set as evaluation sees it.

  stage: its name (default: the first that looks at data). Returns uint8 [h,w,3]. Raises ValueError
  for a stage that is not there or looks at no data.
  """
  build.validate(config)
  this = Run(config, Path(), Reporter(quiet=True))
  reading = [name for name in config.run if build.resolve(
      config.stages[name].method.name, build.HOMES['method']).needs_data is not False]
  if stage is not None and stage not in reading:
    raise ValueError(f'no stage {stage!r} looks at data; {configs.suggest(stage, reading)}')
  name = stage or reading[0]
  source = this._source(**config.stages[name].data)
  pipeline = data.Pipeline(source, batch=columns, seed=config.seed, augment=data.random_shift(
      config.stages[name].shift) if config.stages[name].shift else None)
  fixed = [source[i] for i in range(min(columns, len(source)))]
  fixed = {key: np.stack([item[key] for item in fixed]) for key in fixed[0]}
  rows = []
  for caption, batch in (('training, step 0', pipeline[0]), ('training, step 1', pipeline[1]),
                         ('as evaluation sees them', fixed)):
    ready = normalise(pipeline.prepare(batch))
    for role in ('source', 'target', 'image'):
      if role == 'source' and 'label_map' in batch:
        rows.append((f'{caption}: source, a colour for each label, instance edges white',
                     colour_labels(batch['label_map'], batch['edges'])))
      elif role in ready:
        low, high = float(ready[role].min()), float(ready[role].max())
        size = 'x'.join(map(str, ready[role].shape[1:]))
        rows.append((f'{caption}: {role}, {size}, {low:.2f} to {high:.2f}', ready[role]))
  view = getattr(source, 'view', getattr(getattr(source, 'a', None), 'view', None))
  return captioned(rows, f'{name}: {source!r}, {len(source)} images an epoch' + (
      f'\n{view}' if view else ''))


def compilation_cache():
  """Keeps compiled programs of this user between runs, apart for each kind of processor (a
  program compiled for another CPU would be rejected or worse)."""
  home = Path(os.environ.get('XDG_CACHE_HOME', Path.home() / '.cache'))
  cpu = platform.processor() or platform.machine()
  with contextlib.suppress(OSError):
    cpu += next((line for line in Path('/proc/cpuinfo').read_text().splitlines()
                 if line.startswith('flags')), '')
  mark = hashlib.sha256(cpu.encode()).hexdigest()[:12]
  jax.config.update('jax_compilation_cache_dir', str(home / 'jaxgan_compress' / mark))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)


def open_run(workdir: str | Path, reporter: Reporter | None = None) -> Run:
  """The run in a work directory. Raises FileNotFoundError if there is none."""
  stored = Path(workdir) / 'config.json'
  if not stored.is_file():
    raise FileNotFoundError(f'{workdir} holds no run (no config.json); '
                            'train one with jaxgan-compress train')
  config = configs.from_json(json.loads(stored.read_text()))
  return Run(config, Path(workdir), reporter or Reporter(quiet=True))


@dataclasses.dataclass
class Run:
  """The stages of one config in one work directory."""
  config: ConfigDict
  workdir: Path
  reporter: Reporter
  _sources: dict = dataclasses.field(default_factory=dict)
  _drawers: dict = dataclasses.field(default_factory=dict)
  _evaluators: dict = dataclasses.field(default_factory=dict)
  _known_learners: dict = dataclasses.field(default_factory=dict)

  def open_sources(self):
    """Opens all data that the run will need, so that a missing set costs no training."""
    for name in self.config.run:
      stage = self.config.stages[name]
      method = build.method(self.config, name, next(iter(stage.teacher), None))
      if method.needs_data:
        source = self._source(**stage.data)
        if stage.shift:
          data.random_shift(stage.shift)(source[0], np.random.default_rng(0))
        self._check_images(name, method, _ready(source, [0]))
      self._files(name)
      if stage.prune and not self._pruned(name):
        # A dry run on weights that mean nothing tells whether the budget can be met.
        module = getattr(method, method.product)
        self._cut(name, module, nn.initialise(module, jax.random.key(0)))
    if configs.measures(self.config):
      self._sides(self.config.evaluate.real)
      for section in (self.config.evaluate.test, self.config.evaluate.held_out):
        if section:
          self._sides(section)

  def _check_images(self, name, method, batch):
    module = getattr(method, method.product)
    if method.draws:
      latent = hasattr(module, 'latent')
      for role in ('target',) if latent else ('source', 'target'):
        if role not in batch:
          raise ValueError(f'stage {name!r} learns from {role!r}, and its data has '
                           f'{", ".join(batch)}')
      x = module.example() if latent else batch['source']
      drawn = jax.eval_shape(module.init_with_output, jax.random.key(0), x)[0][0]
      if drawn.shape[1:] != batch['target'].shape[1:]:
        ours, theirs = ('x'.join(map(str, x.shape[1:])) for x in (drawn, batch['target']))
        raise ValueError(f'stage {name!r}: its generator draws {ours} (height x width x channels) '
                         f'and its data has {theirs}; change one of them')

  def stage(self, name: str, stop: StopSignal):
    """Trains a stage to its end, from its newest checkpoint; returns at once if it is done."""
    config, stage = self.config, self.config.stages[name]
    if self._is_done(name):
      self.reporter.say(f'{name}: done before, {stage.steps} steps')
      return
    if stage.prune and not self._pruned(name):
      self._prune(name)
    method, rng = self.method(name), self._root_key(name)
    batch = stage.batch or config.batch
    batches, first = data.sizes_only(batch * method.updates), {}
    if method.needs_data:
      batches = self.pipeline(name)
      first = normalise(batches.prepare(batches[0]))
    start = functools.partial(method.init, rng, first, self._given(name))
    measuring = configs.measures(config) and method.draws
    if measuring:
      self.evaluator(name)  # made now, not in the middle of the stage

    with self._checkpointer(name) as checkpointer:
      state = checkpointer.restore(jax.eval_shape(start)) or start()
      at = saved = int(state.step)
      with records.Recorder(self._folder(name), at) as recorder:
        watch = _Watch(recorder, self.reporter, at, name, self._folder(name) / 'log.jsonl')
        hook = self._promoting(name, method, recorder, watch) if measuring and getattr(
            method, 'clock', None) else None
        self.reporter.begin(name, at, stage.steps, batch)
        try:
          training = fit(method, state, batches, steps=stage.steps, every=config.log_every,
                         via=config.via, replicas=config.replicas, stop=stop.should_stop,
                         hook=hook)
          for state, logs in training:
            at = logs['step']
            last = at == stage.steps or stop.should_stop()
            evaluate = measuring and (at % config.evaluate.every == 0 or at == stage.steps)
            save = last or evaluate or at % config.checkpoint.every == 0
            watch.see(logs, now=save)  # raises on a term that is not finite, before it is saved
            measures = self._evaluate(name, method, state, recorder) if evaluate else {}
            if save:
              checkpointer.save(state, config=configs.to_json(config), metrics={
                  key: m.value for key, m in measures.items() if isinstance(m.value, float)})
              saved = at
              watch.restart()  # evaluating and saving is not training
          if saved != at:  # a signal came after the last yield: fit had nothing more to say
            watch.flush()
            checkpointer.save(state, config=configs.to_json(config))
        finally:
          self.reporter.end()
        if stop.should_stop() and at < stage.steps:
          checkpointer.wait()
          raise Interrupted(f'stopped by {stop.caught.name} in stage {name!r}; step {at} of '
                            f'{stage.steps} is saved. The same command goes on from there.',
                            stop.exit_code)
      checkpointer.wait()
      done = {}
      if not method.draws and config.evaluate.held_out:
        done['accuracy'] = self._accuracy(method, state)
        self.reporter.say(f'{name}: {done["accuracy"]:.1%} of the held-out images classified right')
      records.write_whole(self._done(name), json.dumps(done))
    if stop.should_stop():
      raise Interrupted(f'stopped by {stop.caught.name} after stage {name!r}, which is complete. '
                        'The same command goes on from there.', stop.exit_code)

  def pipeline(self, name: str) -> data.Pipeline:
    """The batches that a stage trains on."""
    config, stage = self.config, self.config.stages[name]
    return data.Pipeline(
        self._source(**stage.data), seed=config.seed,
        batch=(stage.batch or config.batch) * self.method(name).updates, workers=config.workers,
        augment=data.random_shift(stage.shift) if stage.shift else None)

  def method(self, name: str):
    cut = {role: nn.load(path)[0] for role, path in self._pruned(name).items()}
    return build.method(self.config, name, self.teacher(name), cut)

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
    return self._state(name, checkpoint).nets

  def drawer(self, name: str, checkpoint: str = 'best') -> Drawer:
    """A generator: that a stage is for ('stage'), or another that learned in it ('stage.wide')."""
    if (name, checkpoint) not in self._drawers:
      stage, role = self._role(name)
      draw = self.method(stage).generators(self._state(stage, checkpoint))[role]
      self._drawers[name, checkpoint] = jax.device_put(draw)
    return self._drawers[name, checkpoint]

  def taught_by(self, name: str) -> str | None:
    """The generator that this one learned from, where there is one."""
    stage, role = self._role(name)
    method = self.method(stage)
    teacher = getattr(method, 'pupils', {}).get(role)
    if teacher and f'{stage}.{teacher}' in self._learners(stage):
      return f'{stage}.{teacher}'
    taught = (teacher or role == method.product) and self._is_taught(stage)
    return self.teacher(stage) if taught else None

  def lesson(self, name: str, checkpoint: str) -> Drawer | None:
    """What a generator is compared with: its teacher, as it stood or was chosen to teach."""
    teacher = self.taught_by(name)
    if teacher is None:
      return None
    stage, _ = self._role(name)
    return self.drawer(teacher, checkpoint if teacher.startswith(f'{stage}.')
                       else self.config.stages[stage].teacher_checkpoint)

  def measured_generators(self) -> list[str]:
    """Every generator that learned in a stage which measured its own (if anything measures), in
    order, see `drawer`. Raises ValueError if there is none yet."""
    found = []
    for name in self.config.run:
      section = self.config.stages[name].method
      draws = build.resolve(section.name, build.HOMES['method']).draws
      there = self.measured(name) if configs.measures(self.config) else self._is_done(name)
      if draws and there:
        found += self._learners(name)
      elif draws:
        self.reporter.say(f'{name}: left out, it is not trained far enough to be measured')
    if not found:
      raise ValueError(f'{self.workdir} has no measured generator yet; go on training first')
    return found

  def measured(self, name: str) -> dict[str, dict[str, Any]]:
    """{'last': line, 'best': line} of the stage's recorded evaluations; {} if it has none."""
    lines = records.read_lines(self._folder(name) / 'evaluations.jsonl')
    with self._checkpointer(name, read_only=True) as checkpointer:
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
      key = 'real_back' if self._is_back(name) else 'real'
      if key not in found:
        found[key] = self.final_evaluator(name).real(intervals)
    return found

  def _is_back(self, name):
    stage, role = self._role(name)
    return role in getattr(self.method(stage), 'backwards', ())

  def _evaluator(self, name, section):
    back = self._is_back(name)
    key = back, json.dumps(section.to_dict(), sort_keys=True)
    if key not in self._evaluators:
      self._evaluators[key] = self._make_evaluator(name, section, back)
    return self._evaluators[key]

  def _make_evaluator(self, name, section, back):
    settings = self.config.evaluate
    if settings.classifier:
      extractor = classifier(*self._trained(settings.classifier))
    else:
      extractor = build.make(settings.extractor, build.HOMES['extractor'], 'evaluate.extractor')
    sources = self._sides(section, back)
    images, segmenter = self._from_images(name), None
    if settings.segmenter.get('stage'):
      segmenter = metrics.segmenter(*self._trained(settings.segmenter.stage))
    elif settings.segmenter:
      segmenter = build.make(settings.segmenter, build.HOMES['extractor'], 'evaluate.segmenter')
    found = Evaluator(extractor, tuple(sources), count=settings.count, seed=settings.seed,
                      splits=settings.splits, segmenter=segmenter,
                      inputs=self._questions(section, back) if images else None)
    for metric in (settings.select, *settings.best):
      if metric not in found.names:
        raise ValueError(f'evaluate.select or evaluate.best names {metric!r}, which nothing here '
                         f'measures; there is {", ".join(found.names)}')
    return found

  def _trained(self, name):
    """Module, variables and accuracy of the network that a stage trained to look."""
    method = self.method(name)
    return (getattr(method, method.product), self.nets(name)[method.product].averaged,
            json.loads(self._done(name).read_text()).get('accuracy'))

  def _sides(self, section, back=False):
    """The sources of a section of `evaluate`: one for each of its splits."""
    section = section.to_dict()
    splits = section.get('split')
    several = splits if isinstance(splits, tuple | list) else (None,)
    found = [self._source(**(section if split is None else {**section, 'split': split}))
             for split in several]
    return [data.swapped(source) for source in found] if back else found

  def _questions(self, section, back=False):
    """What images are drawn from: the last of the section's sources, up to evaluate.count."""
    source = self._sides(section, back)[-1]
    return data.First(getattr(source, 'a', source), self.config.evaluate.count)

  def results(self) -> dict[str, Any]:
    """The table of the run: each generator's cost, quality (last and best) and speed."""
    table, drawers = {}, {}
    names = self.measured_generators()
    taught_by = {name: self.taught_by(name) for name in names}
    teachers = [name for name in names if name in taught_by.values()]
    for name in names:
      draw = drawers[name] = self.drawer(name)
      stage, role = self._role(name)
      lines = records.read_lines(self._folder(stage) / 'log.jsonl')
      table[name] = {
          'title': (self.config.stages[stage].title or stage) + (
              f': {role.replace("_", " ")}' if name != stage else ''),
          'from': 'latents' if hasattr(draw.module, 'latent') else
                  'target' if self._is_back(name) else 'source',
          'role': 'teacher' if name in teachers else 'student' if taught_by[name] or
                  role in getattr(self.method(stage), 'pupils', {}) else 'baseline',
          'teacher': taught_by[name],
          'params_paper': cost.count_params(draw.variables, 'paper'),
          'params': cost.count_params(draw.variables, 'all'),
          'macs': cost.macs(draw.module, self.input_shape(name)),
          'seconds': sum(line['seconds'] for line in lines),
          **self._final(name),
      }
    for row in table.values():
      base = table.get(row['teacher'] or next(iter(teachers), None))
      if base:
        row['ratio_macs'] = base['macs'] / row['macs']
        row['ratio_paper'] = base['params_paper'] / row['params_paper']
        row['ratio'] = base['params'] / row['params']
    apply = jax.jit(lambda draw, z: draw(z))
    for size in (1, 64) if 'latents' in (row['from'] for row in table.values()) else (1, 4):
      seconds = cost.latency({
          name: functools.partial(apply, draw, jnp.zeros(self.input_shape(name, size)))
          for name, draw in drawers.items()})
      for name, timing in seconds.items():
        table[name][f'ms_per_image_batch{size}'] = 1e3 * timing.median / size
    real = {'real': {}}
    if configs.measures(self.config):
      real = {which: {key: measure.to_dict() for key, measure in found.items()}
              for which, found in self.real().items()}
    return {'generators': table, **real, 'environment': records.environment()}

  def _final(self, name):
    """What was measured while training. Measured anew: what is reported against `evaluate.test`,
    and the other generators of a stage, at the checkpoints that were chosen by its own."""
    stage, _ = self._role(name)
    found = self.measured(stage)
    if not self.config.evaluate.test and name == stage:
      return found
    chosen = bool(self.config.evaluate.test)
    return {checkpoint: {**line, **({'chosen_by': line['measures']} if chosen else {}),
                         'measures': {key: measure.to_dict() for key, measure in
                                      self.final_evaluator(name)(
                                          self.drawer(name, checkpoint),
                                          self.lesson(name, checkpoint)).items()}}
            for checkpoint, line in found.items()}

  def input_shape(self, name: str, rows: int = 1) -> tuple[int, ...]:
    """Of what a generator draws from."""
    module = self.drawer(name).module
    return (rows, module.latent) if hasattr(module, 'latent') else (
        rows, *self.shown(name, 1)['source'].shape[1:])

  def shown(self, name, count):
    """Images [B,H,W,C] of the final comparison that a generator draws from ('source'), what should
    come out ('target', where there are pairs) and a way to show the first ('picture')."""
    questions = self._questions(self.config.evaluate.test or self.config.evaluate.real,
                                self._is_back(name))
    rows = np.linspace(0, len(questions) - 1, min(count, len(questions))).astype(int)
    batch = _ready(questions, rows)
    source = batch.get('source', batch.get('image'))
    picture = colour_labels(batch['label_map'], batch['edges']) if 'label_map' in batch else source
    return {**batch, 'source': source, 'picture': picture}

  def _from_images(self, name):
    stage, _ = self._role(name)
    method = self.method(stage)
    return not hasattr(getattr(method, method.product), 'latent')

  def report(self, results: Mapping[str, Any]) -> Path:
    """Writes `report.html`; returns its path."""
    columns, groups = 16, {}
    for name, row in results['generators'].items():
      draw = self.drawer(name)
      group = groups.setdefault(row['from'], {'drawings': [], 'pictures': None, 'targets': None})
      if row['from'] == 'latents':
        x = jax.random.normal(jax.random.key(self.config.evaluate.seed),
                              (columns, draw.module.latent))
      else:
        shown = self.shown(name, columns // 2)
        x, group['pictures'] = shown['source'], np.asarray(shown['picture'])
        group['targets'] = np.asarray(shown['target']) if 'target' in shown else None
      group['drawings'].append((name, np.asarray(draw(x))))
    for kind, group in groups.items():
      source = self._sides(self.config.evaluate.test or self.config.evaluate.real,
                           kind == 'target')[-1]
      source = getattr(source, 'b', source)
      count = len(group['drawings'][0][1])
      chosen = np.random.default_rng(self.config.evaluate.seed).permutation(len(source))[:count]
      batch = _ready(source, chosen)
      group['real'] = np.asarray(batch['target'] if 'target' in batch else batch['image'])
    curves = {name: records.read_lines(self._folder(name) / 'evaluations.jsonl')
              for name in results['generators'] if '.' not in name}
    path = self.workdir / 'report.html'
    records.write_whole(path, report.render(results, groups, curves,
                                            configs.to_json(self.config)))
    return path

  def _promoting(self, name, method, recorder, watch):
    """A hook of `fit` that measures the teachers of a method with a clock, at the end of their
    turns and at every evaluation within them, and tells it which are best so far."""
    metric = self.config.evaluate.select
    sign = 1 if SELECT[metric] == 'min' else -1

    def hook(state, step):
      began = time.monotonic()
      ends = not method.clock.teaching(step)
      due = ends or step % self.config.evaluate.every == 0
      if not due or not method.clock.teaching(step - 1):
        return None
      scores = {}
      for role in method.teachers:
        # The newest: `method.generators` has the best so far.
        measures = self.evaluator(f'{name}.{role}')(method.cycle.generators(state)[role])
        recorder.write_measures(step, {metric: measures[metric]}, role)
        scores[role] = sign * measures[metric].value
      before = {role: float(best['score']) for role, best in state.frozen['best'].items()}
      better = [role for role, score in scores.items() if score < before[role]]
      self.reporter.say(f'{name}: step {step}: teachers ' + ', '.join(
          f'{role} {metric} {sign * score:.4g}' + ' (best so far)' * (role in better)
          for role, score in scores.items()))
      watch.pause(time.monotonic() - began)  # measuring is not training
      return method.promote(state, scores)

    return hook

  def _evaluate(self, name, method, state, recorder):
    drawers = method.generators(state)
    draw = drawers[method.product]
    teacher = drawers.get(getattr(method, 'pupils', {}).get(method.product, 'teacher'))
    evaluator = self.evaluator(name)
    measures = evaluator(draw, teacher)
    step = int(state.step)
    recorder.write_measures(step, measures)
    rows = []
    if hasattr(draw.module, 'latent'):
      x = evaluator.latents(draw.module.latent)[:16]
    else:
      batch = _ready(evaluator.inputs, range(min(8, evaluator.count)))
      x = batch.get('source', batch.get('image'))
      rows = [colour_labels(batch['label_map'], batch['edges']) if 'label_map' in batch else x]
      rows += [batch['target']] if 'target' in batch else []
    rows += [np.asarray(each(x)) for each in ([teacher] if teacher else []) + [draw]]
    recorder.write_images(step, {'drawings': contact_sheet(rows)})
    short = ' '.join(f'{key} {m.value:.4g}' for key, m in measures.items()
                     if isinstance(m.value, float))
    self.reporter.say(f'{name}: step {step}: {short}')
    return measures

  def _accuracy(self, method, state):
    source = self._source(**self.config.evaluate.held_out)
    module = getattr(method, method.product)
    variables = state.nets[method.product].averaged
    look = jax.jit(lambda images: module.apply(variables, images)[0].argmax(-1))
    right = 0
    for i in range(0, len(source), 500):
      batch = _ready(source, range(i, min(i + 500, len(source))))
      truth = np.asarray(batch[method.label])
      right += (np.asarray(look(batch['target'])) == truth).mean() * len(truth)
    return float(right / len(source))

  def _given(self, name):
    """The networks that a stage starts from, from the teacher's checkpoint."""
    teacher, found = self.teacher(name), self._files(name)
    if teacher is not None and self._is_taught(name):
      found = self._as_given(
          teacher, self.nets(teacher, self.config.stages[name].teacher_checkpoint)) | found
    return found or None

  def _is_taught(self, name):
    """Whether a stage learns from its teacher or goes on with its teachers, and is not only cut
    from it."""
    method = self.method(name)
    return not self.config.stages[name].prune or hasattr(method, 'teacher') or hasattr(
        method, 'teachers')

  def _files(self, name):
    """{role: Net} of the stage's files."""
    found = {}
    given = {**self._pruned(name), **self.config.stages[name].given}
    for role, path in given.items():
      variables = dict(nn.load(path)[1])
      found[role] = Net(variables.pop('params'), stats=variables)
    return found

  def _pruned(self, name):
    """{role: file} of what pruning left, empty before: going on never prunes again."""
    files = self._cut_files(name)
    return files if all(path.is_file() for path in files.values()) else {}

  def _cut_files(self, name):
    roles = build.budgets(self.config, name)
    return {role: self._folder(name) / f'pruned{role.removeprefix(next(iter(roles)))}.safetensors'
            for role in roles}

  def _prune(self, name):
    stage, files = self.config.stages[name], self._cut_files(name)
    whole = self.drawer(self.teacher(name), stage.teacher_checkpoint)
    self._folder(name).mkdir(parents=True, exist_ok=True)
    title = f'{name}: channels that stay (dark), in their order'
    for role, cut in self._cut(name, whole.module, jax.device_get(whole.variables)).items():
      Image.fromarray(pruning.picture(cut.masks, title)).save(files[role].with_suffix('.png'))
      nn.save(files[role], cut.module, cut.variables, overwrite=True)
      self.reporter.say(f'{name}: cut from {cut.before:,} to {cut.cost:,} '
                        f'{stage.prune.get("unit", "macs")}')

  def _cut(self, name, module, variables):
    """{role: `pruning.Cut`} of a stage's students, which nest."""
    stage = self.config.stages[name]
    shape = module.example().shape if hasattr(module, 'latent') else (
        1, *_ready(self._source(**stage.data), [0])['source'].shape[1:])
    try:
      return {role: pruning.cut(module, variables, shape, key=self._root_key(f'{name}.prune'),
                                **{**stage.prune.to_dict(), 'budget': budget})
              for role, budget in build.budgets(self.config, name).items()}
    except (TypeError, ValueError) as e:
      raise ValueError(f'stages.{name}.prune: {e}') from e

  def _as_given(self, teacher, nets):
    product = self.method(teacher).product
    # Its adapters are of another pair of networks.
    return {'teacher': nets[product], **{role: net for role, net in nets.items()
                                         if role != product and not role.endswith('_adapters')}}

  def _state(self, name, checkpoint):
    kind, _, metric = checkpoint.partition(':')
    if kind not in CHECKPOINTS or (':' in checkpoint and (kind != 'best' or not metric)):
      raise ValueError(f'checkpoint={checkpoint!r}; best, last, or best:METRIC')
    with self._checkpointer(name, read_only=True) as checkpointer:
      step = checkpointer.best_step(metric or None) if kind == 'best' else None
      state = checkpointer.restore(self._shapes(name), step)
    if state is None:
      raise FileNotFoundError(f'stage {name!r} in {self.workdir} has no checkpoint; train it first')
    return state

  def _shapes(self, name):
    """The shapes of a stage's state, without reading or making any."""
    method, teacher, batch, given = self.method(name), self.teacher(name), {}, None
    if method.needs_data:
      source = self._source(**self.config.stages[name].data)
      batch = _ready(source, [0])
    given = self._files(name)
    if teacher is not None and self._is_taught(name):
      given = self._as_given(teacher, self._shapes(teacher).nets) | given
    return jax.eval_shape(method.init, self._root_key(name), batch, given or None)

  def _checkpointer(self, name, read_only=False):
    settings = self.config.evaluate
    measured = configs.measures(self.config) and self.method(name).draws
    return Checkpointer(
        self._folder(name) / 'checkpoints', keep=self.config.checkpoint.keep, read_only=read_only,
        best={metric: SELECT[metric] for metric in (settings.select, *settings.best)}
        if measured else None)

  def _role(self, name):
    """(stage, role) of a generator's name."""
    stage, _, role = name.partition('.')
    return stage, role or self.method(stage).product

  def _learners(self, stage):
    """The names of the generators that learn in a stage, its own first, students then."""
    if stage not in self._known_learners:
      method, shapes = self.method(stage), self._shapes(stage)
      pupils = getattr(method, 'pupils', {})
      learning = jax.eval_shape(method.generators, shapes).keys() & shapes.nets.keys()
      self._known_learners[stage] = [
          stage if role == method.product else f'{stage}.{role}'
          for role in sorted(learning, key=lambda role: (
              role != method.product, role not in pupils, role))]
    return self._known_learners[stage]

  def _root_key(self, name):
    return jax.random.fold_in(jax.random.key(self.config.seed), zlib.crc32(name.encode()))

  def _folder(self, name):
    return self.workdir / name

  def _done(self, name):
    return self._folder(name) / 'done.json'

  def _is_done(self, name):
    return self._done(name).is_file()

  def _source(self, **more):
    section = {**self.config.data.to_dict(), **more}
    key = json.dumps(section, sort_keys=True)
    if key not in self._sources:
      self._sources[key] = build.source(section)
    return self._sources[key]


class _Watch:
  """Turns device logs into records one interval late, so that the device never waits."""

  def __init__(self, recorder, reporter, step, stage, log):
    self._recorder, self._reporter, self._stage = recorder, reporter, stage
    self._terms = Terms()
    for line in records.read_lines(log):  # of a run that goes on: what was seen and said before
      self._terms.see({name: x for name, x in line.items() if name != 'step'})
    self._pending = None
    self._step, self._time = step, time.monotonic()

  def restart(self):
    self._time = time.monotonic()

  def pause(self, seconds):
    self._time += seconds

  def see(self, logs, now: bool):
    """Records the logs before these, and these too if `now`."""
    if now:
      jax.block_until_ready(logs)
    clock = time.monotonic()
    seconds, steps = clock - self._time, logs['step'] - self._step
    self._step, self._time = logs['step'], clock
    self.flush()
    self._pending = {**logs, 'seconds': seconds, 'steps_per_second': steps / max(seconds, 1e-9)}
    if now:
      self.flush()

  def flush(self):
    logs, self._pending = self._pending, None
    if logs is None:
      return
    scalars = {name: float(x) for name, x in logs.items() if name != 'step'}
    check_finite(scalars, logs['step'])
    for warning in self._terms.see(scalars):
      self._reporter.say(f'{self._stage}: step {logs["step"]}: {warning}')
    self._recorder.write_scalars(logs['step'], scalars)
    self._reporter.update(logs['step'], scalars)


def _ready(source, rows):
  """Elements of a source as a batch that a step could take."""
  items = [source[int(i)] for i in rows]
  stacked = {name: np.stack([item[name] for item in items]) for name in items[0]}
  return normalise(getattr(source, 'prepare', dict)(stacked))


@contextlib.contextmanager
def _claimed(workdir: Path, config: ConfigDict):
  """The work directory is this config's, and this process's alone."""
  mine = configs.to_json(config)
  stored = workdir / 'config.json'
  started = any(workdir.glob('*/checkpoints/*'))
  if stored.is_file() and started:
    differing = {key: pair for key, pair in
                 configs.differences(configs.to_json(configs.from_json(
                     json.loads(stored.read_text()))), mine).items()
                 if key not in HARMLESS}
    if differing:
      listed = '; '.join(f'{key}: {a} there, {b} asked for'
                         for key, (a, b) in list(differing.items())[:4])
      raise FileExistsError(f'{workdir} holds a run of another config ({listed}); use another '
                            '--workdir, or the config that is there')
  elif not stored.is_file() and workdir.exists() and (
      not workdir.is_dir() or any(path.name != '.lock' for path in workdir.iterdir())):
    raise FileExistsError(f'{workdir} is not empty and holds no run; use another --workdir')
  workdir.mkdir(parents=True, exist_ok=True)
  with open(workdir / '.lock', 'w') as lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise FileExistsError(f'another process is training in {workdir}; wait for it, or use '
                            'another --workdir') from None
    records.write_whole(stored, json.dumps(mine, indent=1, sort_keys=True))
    with open(workdir / 'environment.jsonl', 'a') as f:
      f.write(json.dumps(records.environment()) + '\n')
    yield
