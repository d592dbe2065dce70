"""The results of a run: its generators measured again, its table, its report."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan_compress import config as configs
from jaxgan_compress import data
from jaxgan_compress.analysis import model_cost
from jaxgan_compress.analysis.details import busiest, enlarged
from jaxgan_compress.core import paths
from jaxgan_compress.core.arguments import typed
from jaxgan_compress.core.xla import jit
from jaxgan_compress.experiment import report
from jaxgan_compress.experiment.generators import TrainedGenerator
from jaxgan_compress.experiment.workdir import Run, open_run
from jaxgan_compress.metrics import Measure
from jaxgan_compress.train import log_files

COLUMNS = 16  # generated images that the report shows of each generator
DETAIL, ZOOM = 64, 3  # pixels of a side that it shows of an upscaled image, and how much larger


@typed
def evaluate(workdir: str | Path, checkpoint: str = 'best', count: int | None = None,
             intervals: int = 0, *, moved: Mapping[str, str] | None = None
             ) -> dict[str, dict[str, Measure]]:
  """Measures every generator of a run again: `{generator: {measure: Measure}}`, 'real' included.

  checkpoint: 'best', 'last', or 'best:is' for the best by another measure of evaluate.best.
  count: images for each generator (default: the config's). intervals: halvings of the samples for
  the 95 % interval of each value, see `metrics.bootstrap`; 0: no intervals. moved: of `open_run`.
  Raises FileNotFoundError for a folder without a run or a stage without a checkpoint.
  """
  run = open_run(workdir, moved=moved)
  if count is not None:
    run.config.evaluate.count = count
  if not configs.measures(run.config):
    raise ValueError(f'{workdir} was run without evaluate.classifier and evaluate.extractor; '
                     'nothing can measure it')
  measures = {generator.name: generator.evaluator(final=True)(
      generator.bound(checkpoint), generator.reference(checkpoint), intervals=intervals)
      for generator in run.measured_generators()}
  return {**measures, **run.evaluation.real(intervals)}


def tabulate(run: Run) -> dict[str, Any]:
  """The table of the run: each generator's cost, quality (last and best) and speed; and of what
  environment and numbers of steps it is."""
  generators = run.measured_generators()
  teachers = {generator.teacher for generator in generators}
  table = {generator.name: _row(run, generator, generator in teachers)
           for generator in generators}
  recorded = recorded_teacher(run)
  _add_ratios(table, recorded, next((g.name for g in generators if g in teachers), ''))
  apply = jit(lambda generator, x: generator(x))
  for size in (1, 64 if any(g.from_latents for g in generators) else 4):
    seconds = model_cost.latency({
        g.name: functools.partial(apply, g.bound(), jnp.zeros(g.input_shape(size)))
        for g in generators})
    for name, timing in seconds.items():
      table[name][f'ms_per_image_batch{size}'] = 1e3 * timing.median / size
  real = run.evaluation.real() if configs.measures(run.config) else {'real': {}}
  return {'generators': table, **({'recorded_teacher': recorded} if recorded else {}), **{
      which: {key: measure.to_dict() for key, measure in measures.items()}
      for which, measures in real.items()}, 'environment': log_files.environment(),
      'steps': steps(run)}


def steps(run: Run) -> dict[str, int]:
  """{stage: how many steps the config asks for}."""
  return {name: stage.spec.steps for name, stage in run.stages.items()}


def _add_ratios(table: Mapping[str, dict[str, Any]], recorded: Mapping[str, Any], teacher: str):
  """How many times less each generator costs than the recorded teacher, its own, or this one."""
  for row in table.values():
    if base := recorded or table.get(row['teacher'] or teacher):
      row |= {ratio: base[cost] / row[cost] for ratio, cost in (
          ('ratio_macs', 'macs'), ('ratio_paper', 'params_paper'), ('ratio', 'params'))
          if base.get(cost) and row[cost]}


def recorded_teacher(run: Run) -> dict[str, Any]:
  """What is known of the teacher whose images the run's data are, see `data.record`; {} where they
  are none: 'network', and its 'macs' for an input as of the data and 'params'."""
  return dict(run.source().teacher) if run.config.data else {}


def _row(run, generator: TrainedGenerator, is_teacher: bool) -> dict[str, Any]:
  stage, bound, teacher = generator.stage, generator.bound(), generator.teacher
  lines = log_files.read_lines(stage.folder / 'log.jsonl')
  return {
      'title': (stage.spec.title or stage.name) + (
          '' if generator.name == stage.name else f': {generator.role.replace("_", " ")}'),
      'from': 'latents' if generator.from_latents else
              'target' if generator.is_reverse else 'source',
      'role': 'teacher' if is_teacher else 'student' if generator.is_student else 'baseline',
      'teacher': teacher and teacher.name,
      'from_scratch': generator.is_fresh,
      'params_paper': model_cost.count_params(bound.variables, 'paper'),
      'params': model_cost.count_params(bound.variables, 'all'),
      'macs': model_cost.macs(bound.module, generator.input_shape()),
      'seconds': sum(line['seconds'] for line in lines),
      **_final(run, generator),
  }


def _final(run, generator: TrainedGenerator):
  """What was measured while training. Measured anew: what is reported against `evaluate.test`,
  and the other generators of a stage, at the checkpoints that were chosen by its own."""
  recorded, chosen = generator.stage.measured(), bool(run.config.evaluate.test)
  if not chosen and generator.name == generator.stage.name:
    return recorded
  measures = {}  # by step: the best is often the last
  for checkpoint, line in recorded.items():
    if line['step'] not in measures:
      again = generator.evaluator(final=True)(generator.bound(checkpoint),
                                              generator.reference(checkpoint))
      measures[line['step']] = {key: measure.to_dict() for key, measure in again.items()}
  return {checkpoint: {**line, **({'chosen_by': line['measures']} if chosen else {}),
                       'measures': measures[line['step']]}
          for checkpoint, line in recorded.items()}


def write_report(run: Run, results: Mapping[str, Any]) -> Path:
  """Writes `report.html`; returns its path."""
  groups: dict[str, dict[str, Any]] = {}
  for name, row in results['generators'].items():
    generator = run.generator(name)
    group = groups.setdefault(row['from'], {'images': [], 'pictures': None, 'targets': None,
                                            'originals': None, 'detail': ''})
    if generator.from_latents:
      x = jax.random.normal(jax.random.key(run.config.evaluate.seed),
                            (COLUMNS, generator.module.latent))
    else:
      examples = generator.examples(COLUMNS // 2)
      x, group['pictures'] = examples['source'], np.asarray(examples['picture'])
      group['targets'] = np.asarray(examples['target']) if 'target' in examples else None
      group['originals'] = examples.get('original')
    group['images'].append((name, np.asarray(generator.bound()(x))))
  for group in groups.values():
    _show_details(group)
  for kind, group in groups.items():
    source = run.evaluation.sides(run.evaluation.final, kind == 'target')[-1]
    source = source.b
    count = len(group['images'][0][1])
    rows = np.random.default_rng(run.config.evaluate.seed).permutation(len(source))[:count]
    batch = data.prepared_batch(source, rows)
    group['real'] = np.asarray(batch['target'] if 'target' in batch else batch['image'])
  curves = {name: log_files.read_lines(stage.folder / 'evaluations.jsonl')
            for name, stage in run.stages.items() if name in results['generators']}
  path = run.workdir / 'report.html'
  paths.write_atomically(path, report.render(results, groups, curves,
                                             configs.to_json(run.config)))
  return path


def _show_details(group: dict[str, Any]):
  """Puts the enlarged square with the strongest edges in place of images that are larger than their
  inputs; says so under 'detail'."""
  targets, pictures = group['targets'], group['pictures']
  if targets is None or targets.shape[1] <= pictures.shape[1]:
    return
  scale = targets.shape[1] // pictures.shape[1]
  side = min(DETAIL, *targets.shape[1:3]) // scale * scale
  corners = busiest(targets, side, scale)
  show = lambda images: enlarged(images, corners, side, ZOOM)
  group['detail'] = f'details of {side}x{side} pixels, {ZOOM} times as large'
  group['pictures'] = enlarged(pictures, corners // scale, side // scale, ZOOM * scale)
  group['images'] = [(name, show(images)) for name, images in group['images']]
  group['targets'] = show(targets)
  if group['originals'] is not None:
    group['originals'] = show(group['originals'])
