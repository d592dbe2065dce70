"""A whole run: every stage of a config trained, measured and reported in one work directory.

    workdir/config.json            what was asked for; another config is refused
    workdir/environment.jsonl      versions, device and git revision, a line a session
    workdir/<stage>/checkpoints/   the newest two states and the best
    workdir/<stage>/log.jsonl      losses and speed; evaluations.jsonl: measures; events/: both
    workdir/results.json           the table; report.html: the same to look at
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import platform
import re
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxgan_compress import config as configs
from jaxgan_compress import data, distributed
from jaxgan_compress.analysis import captioned, colour_labels, model_cost, roofline
from jaxgan_compress.config import build
from jaxgan_compress.core import Net, normalise, paths
from jaxgan_compress.core.arguments import typed
from jaxgan_compress.core.xla import jit
from jaxgan_compress.experiment import report
from jaxgan_compress.experiment.stage import Interrupted, train_stage  # noqa: F401 - raised by `run`
from jaxgan_compress.experiment.workdir import Run, named_paths, open_run
from jaxgan_compress.metrics import Measure
from jaxgan_compress.parallel import build_mesh
from jaxgan_compress.train import log_files
from jaxgan_compress.train.progress import Reporter

SHOWN = 1024  # pixels of a side: a sheet of photographs as they are would take the memory
# Keys that change how a run is watched and not what it computes.
HARMLESS = {'log_every', 'checkpoint.every', 'checkpoint.keep', 'workers', 'cache', 'via',
            'replicas', 'steps_per_call', 'devices', 'mesh.student', 'mesh.space'}


@typed
def run(config: ConfigDict, workdir: str | Path, *, quiet: bool = False, extend: bool = False
        ) -> dict[str, Any]:
  """Trains every stage of the config, measures it and writes `report.html`; returns the results.

  Called again with the same arguments it goes on where it was, and what is finished stays.
  workdir: a folder, or 'gs://bucket/run', see `distributed.folder`.
  extend: the config may ask for more steps of a stage than the run in the folder did. The stage
  goes on from its last state to what it would be if it had been asked for as many at first, bit for
  bit; whatever could not be so is refused: other changes, and a stage from which another learned.

  Raises ValueError for a config that cannot be built, FileExistsError for a work directory of
  another config, `train.TermError` for a loss that is no longer finite, `train.CheckpointError`
  for a disk that fails, and Interrupted after Ctrl-C, SIGTERM or SIGHUP.
  """
  config = configs.copied(config)
  build.validate(config)
  distributed.expect(config.devices)
  devices = build_mesh(**config.mesh).size // config.mesh.space
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
  workdir = distributed.folder(workdir)
  this = Run(config, workdir, Reporter(quiet or not distributed.is_main()))
  this.open_sources()
  with _claimed(workdir, config, this.reporter.say, extend), distributed.StopSignal() as stop:
    for name in config.run:
      train_stage(this, name, stop)
      # Programs of a stage that is over: twenty stages' would fill memory, and Linux grants a
      # process a limited number of mappings.
      jax.clear_caches()
    results = tabulate(this)

    def write():
      log_files.write_whole(workdir / 'results.json', json.dumps(results, indent=1))
      write_report(this, results)

    distributed.by_main(write, 'the report')
  return results


@typed
def evaluate(workdir: str | Path, checkpoint: str = 'best', count: int | None = None,
             intervals: int = 0, *, moved: Mapping[str, str] | None = None
             ) -> dict[str, dict[str, Measure]]:
  """Measures every generator of a run again: `{stage: {measure: Measure}}`, 'real' included.

  checkpoint: 'best', 'last', or 'best:is' for the best by another measure of evaluate.best.
  count: images for each generator (default: the config's). intervals: halvings of the samples for
  the 95 % interval of each value, see `metrics.bootstrap`; 0: no intervals. moved: of `open_run`.
  Raises FileNotFoundError for a folder without a run or a stage without a checkpoint.
  """
  this = open_run(workdir, moved=moved)
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


@typed
def describe(config: ConfigDict) -> list[dict[str, Any]]:
  """Every generator and discriminator of a config: stage, role, name, parameters, MACs, the shapes
  of its variables, and the budget to which it will be cut: till then it stands there whole. Trains
  nothing."""
  build.validate(config)
  rows, known = [], {}
  for name in config.run:
    teachers = tuple(config.stages[name].teacher)
    method = build.method(config, name, teachers[0] if teachers else None)
    for role, network, x in _networks(config, name, method):
      if (seen := repr((network, x.shape))) not in known:  # stages share networks
        with build.blaming(f'stages.{name}.method: its {role}'):
          variables = jax.eval_shape(network.init, jax.random.key(0), x)
        known[seen] = {'params': model_cost.count_params(variables),
                       'params_paper': model_cost.count_params(variables, 'paper'),
                       'macs': model_cost.macs(network, x.shape), 'variables': variables}
      rows.append({'stage': name, 'role': role, 'network': type(network).__name__,
                   'budget': build.budgets(config, name).get(role), **known[seen]})
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


@typed
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
  source = this.source(**config.stages[name].data)
  pipeline = data.Pipeline(source, batch=columns, seed=config.seed, augment=data.random_shift(
      config.stages[name].shift) if config.stages[name].shift else None)
  fixed = data.stack(source, range(min(columns, len(source))))
  rows = []
  for caption, batch in (('training, step 0', pipeline[0]), ('training, step 1', pipeline[1]),
                         ('as evaluation sees them', fixed)):
    ready = pipeline.prepare(batch)
    for role in ('source', 'target', 'image'):
      if role == 'source' and 'label_map' in batch:
        rows.append((f'{caption}: source, a colour for each label, instance edges white',
                     colour_labels(*(_thinned(batch[name])[0] for name in ('label_map', 'edges')))))
      elif role in ready:
        x, every = _thinned(ready[role])
        ends = np.stack([ready[role].min(), ready[role].max()]).reshape(2, 1, 1, 1)
        low, high = normalise({'x': ends})['x'].ravel()
        size = 'x'.join(map(str, ready[role].shape[1:])) + every
        rows.append((f'{caption}: {role}, {size}, {low:.2f} to {high:.2f}',
                     normalise({'x': x})['x']))
  return captioned(rows, f'{name}: {source!r}, {len(source)} images an epoch' + (
      f'\n{source.a.view}' if source.a.view else ''))


def _thinned(images):
  """Images [B,H,W,...] of at most SHOWN pixels a side, and how many of theirs these are."""
  step = -(-max(images.shape[1:3]) // SHOWN)
  return images[:, ::step, ::step], f', one pixel of {step} each way' if step > 1 else ''


@typed
def profile(config: ConfigDict, folder: str | Path, stage: str | None = None, steps: int = 5
            ) -> dict[str, Any]:
  """Runs some training steps of one stage on one device and says where their time goes.

  stage: default, the first that learns from another, or the first. Nothing needs to have been
  trained: teachers have fresh weights and students are cut from them. -> 'stage', 'operations',
  each a `roofline.Spent`, 'device', 'seconds' of a step, 'compile_seconds', 'bytes' that the
  program holds, and 'flops' of its convolutions and dot products. The trace is left in `folder`.

  Raises ValueError for an unknown stage, FileExistsError if the folder is not empty.
  """
  build.validate(config)
  stage = stage or next((name for name in config.run if config.stages[name].teacher),
                        config.run[0])
  if stage not in config.run:
    raise ValueError(f'no stage {stage!r}; {configs.suggest(stage, config.run)}')
  folder = paths.expand(folder)
  if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
    raise FileExistsError(f'{folder} is not empty; give another folder')
  if config.cache:
    compilation_cache()
  this = Run(config, folder, Reporter(quiet=True))
  with build.blaming(f'stages.{stage}'):
    method, prepare, batch, state = _untrained(this, stage)
  began = time.monotonic()
  program = jit(lambda state, batch: method.step(state, normalise(prepare(batch)))).lower(
      state, batch).compile()
  compiled = time.monotonic() - began
  device = roofline.measure_device(jnp.dtype(getattr(
      getattr(method, method.product), 'dtype', jnp.float32)))
  text = program.as_text()
  found = roofline.profile(lambda: program(state, batch)[1], text, steps, folder, device)
  taken = []
  for _ in range(steps):
    began = time.monotonic()
    jax.block_until_ready(program(state, batch)[1])
    taken.append(time.monotonic() - began)
  memory = program.memory_analysis()
  return {'stage': stage, 'operations': found, 'device': device, 'seconds': min(taken),
          'compile_seconds': compiled,
          'flops': sum(spent.operation.flops * spent.calls for spent in found),
          'bytes': memory.argument_size_in_bytes + memory.temp_size_in_bytes
          + memory.output_size_in_bytes}


def _untrained(this, name):
  """(method, what prepares a batch, a batch, state) of a stage where nothing has been trained."""
  stage, given = this.config.stages[name], {}
  teacher = next(iter(stage.teacher), None)
  method = build.method(this.config, name, teacher)
  if teacher:
    theirs, _, _, state = _untrained(this, teacher)
    nets = jax.device_get(state.nets)
    given = this.as_given(teacher, nets) if this.is_taught(name) else {}
    if stage.prune:
      cuts = this.cut(name, getattr(theirs, theirs.product), nets[theirs.product].averaged)
      method = build.method(this.config, name, teacher,
                            {role: cut.module for role, cut in cuts.items()})
      given |= {role: Net.of(cut.variables) for role, cut in cuts.items()}
  prepare, first = dict, {}
  if method.needs_data:
    batches = this.pipeline(name)
    prepare, batch = batches.prepare, batches[0]
    first = normalise(prepare(batch))
  else:
    batch = next(iter(data.sizes_only((stage.batch or this.config.batch) * method.updates)))
  state = method.init(this.root_key(name), first, given or None)
  # The memory of one replica, as a step sees it.
  return method, prepare, batch, state.replace(memory=jax.tree.map(lambda x: x[0], state.memory))


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


def tabulate(this: Run) -> dict[str, Any]:
  """The table of the run: each generator's cost, quality (last and best) and speed."""
  table, drawers = {}, {}
  names = this.measured_generators()
  taught_by = {name: this.taught_by(name) for name in names}
  teachers = [name for name in names if name in taught_by.values()]
  for name in names:
    draw = drawers[name] = this.drawer(name)
    stage, role = this.role(name)
    lines = log_files.read_lines(this.folder(stage) / 'log.jsonl')
    table[name] = {
        'title': (this.config.stages[stage].title or stage) + (
            f': {role.replace("_", " ")}' if name != stage else ''),
        'from': 'latents' if hasattr(draw.module, 'latent') else
                'target' if this.is_back(name) else 'source',
        'role': 'teacher' if name in teachers else 'student' if taught_by[name] or
                role in getattr(this.method(stage), 'pupils', {}) else 'baseline',
        'teacher': taught_by[name],
        'params_paper': model_cost.count_params(draw.variables, 'paper'),
        'params': model_cost.count_params(draw.variables, 'all'),
        'macs': model_cost.macs(draw.module, this.input_shape(name)),
        'seconds': sum(line['seconds'] for line in lines),
        **_final(this, name),
    }
  for row in table.values():
    base = table.get(row['teacher'] or next(iter(teachers), None))
    if base:
      row['ratio_macs'] = base['macs'] / row['macs']
      row['ratio_paper'] = base['params_paper'] / row['params_paper']
      row['ratio'] = base['params'] / row['params']
  apply = jit(lambda draw, z: draw(z))
  for size in (1, 64) if 'latents' in (row['from'] for row in table.values()) else (1, 4):
    seconds = model_cost.latency({
        name: functools.partial(apply, draw, jnp.zeros(this.input_shape(name, size)))
        for name, draw in drawers.items()})
    for name, timing in seconds.items():
      table[name][f'ms_per_image_batch{size}'] = 1e3 * timing.median / size
  real = {'real': {}}
  if configs.measures(this.config):
    real = {which: {key: measure.to_dict() for key, measure in found.items()}
            for which, found in this.real().items()}
  return {'generators': table, **real, 'environment': log_files.environment()}


def _final(this, name):
  """What was measured while training. Measured anew: what is reported against `evaluate.test`,
  and the other generators of a stage, at the checkpoints that were chosen by its own."""
  stage, _ = this.role(name)
  found = this.measured(stage)
  if not this.config.evaluate.test and name == stage:
    return found
  chosen = bool(this.config.evaluate.test)

  measures = {}  # by step: the best is often the last
  for checkpoint, line in found.items():
    if line['step'] not in measures:
      again = this.final_evaluator(name)(this.drawer(name, checkpoint),
                                         this.lesson(name, checkpoint))
      measures[line['step']] = {key: measure.to_dict() for key, measure in again.items()}
  return {checkpoint: {**line, **({'chosen_by': line['measures']} if chosen else {}),
                       'measures': measures[line['step']]}
          for checkpoint, line in found.items()}


def write_report(this: Run, results: Mapping[str, Any]) -> Path:
  """Writes `report.html`; returns its path."""
  columns, groups = 16, {}
  for name, row in results['generators'].items():
    draw = this.drawer(name)
    group = groups.setdefault(row['from'], {'drawings': [], 'pictures': None, 'targets': None})
    if row['from'] == 'latents':
      x = jax.random.normal(jax.random.key(this.config.evaluate.seed),
                            (columns, draw.module.latent))
    else:
      shown = this.shown(name, columns // 2)
      x, group['pictures'] = shown['source'], np.asarray(shown['picture'])
      group['targets'] = np.asarray(shown['target']) if 'target' in shown else None
    group['drawings'].append((name, np.asarray(draw(x))))
  for kind, group in groups.items():
    source = this.sides(this.config.evaluate.test or this.config.evaluate.real,
                        kind == 'target')[-1]
    source = source.b
    count = len(group['drawings'][0][1])
    chosen = np.random.default_rng(this.config.evaluate.seed).permutation(len(source))[:count]
    batch = data.prepared_batch(source, chosen)
    group['real'] = np.asarray(batch['target'] if 'target' in batch else batch['image'])
  curves = {name: log_files.read_lines(this.folder(name) / 'evaluations.jsonl')
            for name in results['generators'] if '.' not in name}
  path = this.workdir / 'report.html'
  log_files.write_whole(path, report.render(results, groups, curves, configs.to_json(this.config)))
  return path


def _mark(workdir):
  """A number that tells whether a process sees what another has just written here."""
  path = workdir / 'environment.jsonl'
  return zlib.crc32(path.read_bytes()) >> 1 if path.is_file() else -1


@contextlib.contextmanager
def _claimed(workdir: Path, config: ConfigDict, say: Callable[[str], None] = print,
             extend: bool = False):
  """The work directory is this config's, and this process's alone (or this job's)."""
  if not distributed.is_main():
    if distributed.from_main(0) != _mark(workdir):
      raise FileNotFoundError(f'process {jax.process_index()} does not see what process 0 wrote to '
                              f'{workdir.absolute()}; --workdir is a folder that all hosts share')
    yield
    return
  mine = configs.to_json(config)
  stored = workdir / 'config.json'
  started, longer = any(workdir.glob('*/checkpoints/*')), {}
  if extend and not started:
    raise FileNotFoundError(f'{workdir} holds no run to extend; leave out --extend')
  if stored.is_file() and started:
    before = configs.read(stored)
    differing = {key: pair for key, pair in
                 configs.differences(configs.to_json(before), mine).items()
                 if key not in HARMLESS and not _moved(key, *pair, before, say)}
    if extend:
      longer, differing = _longer(workdir, config, differing), {}
    if differing:
      listed = '; '.join(f'{key}: {a} there, {b} asked for'
                         for key, (a, b) in list(differing.items())[:4])
      raise FileExistsError(f'{workdir} holds a run of another config ({listed}); use another '
                            '--workdir, or the config that is there' + (
                             ', or --extend' if any(map(_steps_of, differing)) else ''))
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
    for name, (done, steps) in longer.items():
      say(f'{name}: extended from {done} to {steps} steps')
      _say_rates(config, name, done, say)
      (workdir / name / 'done.json').unlink(missing_ok=True)  # first: a stage is done or is not
    log_files.write_whole(stored, json.dumps(mine, indent=1, sort_keys=True))
    with open(workdir / 'environment.jsonl', 'a') as f:
      f.write(json.dumps(log_files.environment()) + '\n')
    distributed.from_main(_mark(workdir))
    yield


def _moved(key, there, asked, before, say):
  """Whether a key of two configs differs for a file or folder that has been moved."""
  if named_paths(before).get(key) != there or asked == 'absent' or paths.expand(there).exists():
    return False
  say(f'{key}: {there} is not there any more, as seen from {Path.cwd()}; goes on with {asked}')
  return True


def _steps_of(key):
  """The stage whose steps a dotted key is, or None."""
  found = re.fullmatch(r'stages\.(.+)\.steps', key)
  return found and found.group(1)


def _longer(workdir, config, differing):
  """{stage: (steps, more steps)}. Raises ValueError for what extending would not make as if it had
  been asked for at first."""
  others = [key for key in differing if not _steps_of(key)]
  if others:
    raise ValueError(f'--extend takes more steps and nothing else, and {", ".join(others)} differ '
                     f'from the run in {workdir}, which would have been another from its first '
                     'step; use another --workdir')
  longer = {_steps_of(key): pair for key, pair in differing.items()}
  for name, (done, steps) in longer.items():
    if steps < done:
      raise ValueError(f'stages.{name}.steps={steps}: the run in {workdir} has {done}, and '
                       '--extend makes it longer')
    after = [later for later in config.run[config.run.index(name) + 1:]
             if any((workdir / later / 'checkpoints').glob('*'))] if name in config.run else []
    looks = name in (config.evaluate.classifier, config.evaluate.segmenter.get('stage'))
    stale = [later for later in after if looks or name in config.stages[later].teacher]
    if stale:
      raise ValueError(f'stages.{name}.steps={steps}: {", ".join(stale)} '
                       f'{"was measured by" if looks else "learned from"} {name} as it was after '
                       f'{done} steps; extend a stage that no later one needs, or use another '
                       '--workdir')
  return longer


def _say_rates(config, name, done, say):
  """Says of each learning rate that follows a schedule what it is from here on: a schedule made
  for fewer steps has come to its end."""

  def rates(section, where):
    for key, value in section.items():
      if key == 'learning_rate' and isinstance(value, Mapping):
        yield f'{where}.{key}', build.make(value, build.HOMES[key], f'{where}.{key}')
      elif isinstance(value, Mapping):
        yield from rates(value, f'{where}.{key}')

  stage = config.stages[name].to_dict()
  for where, rate in rates(stage['method'], f'stages.{name}.method'):
    now, end = float(rate(done)), float(rate(stage['steps']))
    said = 'learns nothing more' if not (now or end) else f'goes from {now:.3g} to {end:.3g}'
    say(f'{where}: {said}, by its schedule, which --extend leaves as it is')
