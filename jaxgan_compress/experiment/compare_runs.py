"""Several runs side by side: quality against cost, and pictures of the same inputs."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxgan_compress import config as configs
from jaxgan_compress.config import SELECT
from jaxgan_compress.core import paths
from jaxgan_compress.core.arguments import typed
from jaxgan_compress.experiment import comparison
from jaxgan_compress.experiment.comparison import Family, Group, Point
from jaxgan_compress.experiment.export import latents
from jaxgan_compress.experiment.lock import HARMLESS
from jaxgan_compress.experiment.workdir import Run, open_run
from jaxgan_compress.train import CheckpointError, log_files

COLUMNS, MOST_ROWS = 6, 30


@typed
def compare(workdirs: Sequence[str | Path], out: str | Path | None = None,
            metric: str | None = None, *, moved: Mapping[str, str] | None = None) -> Path:
  """Writes one page over finished runs and returns its path: quality against multiply-accumulates
  and milliseconds with the Pareto front, a table, and drawings of the same inputs.

  Runs whose configs differ in the seed alone are seeds of one: their means and spreads are shown,
  and the pictures of the first. What was asked or measured in another way stands apart.

  out: default `comparison.html` in the folder that holds all of them.
  moved: of `open_run`, for each.
  metric: of `config.SELECT`, for the charts; default: by which the runs chose their checkpoints.

  Raises FileNotFoundError for a folder without a run or without results, ValueError for fewer than
  two runs, runs that measured nothing and metrics that nothing was measured by, and FileExistsError
  if `out` is a file that is no such page.
  """
  runs = {run.workdir.resolve(): run
          for run in (open_run(workdir, moved=moved) for workdir in workdirs)}
  if len(runs) < 2:
    raise ValueError(f'{len(runs)} run to compare; give two or more folders')
  out = paths.expand(out) if out else Path(os.path.commonpath([path.parent for path in runs])) / \
      'comparison.html'
  if out.is_dir():
    raise IsADirectoryError(f'{out} is a folder; give a file')
  if out.exists() and comparison.MARK.encode() not in out.read_bytes()[:1000]:
    raise FileExistsError(f'{out} is there and is no comparison; use another --output')
  groups = _groups(runs)
  families = _families(groups, runs, metric)
  out.parent.mkdir(parents=True, exist_ok=True)
  log_files.write_whole(out, comparison.render(groups, families, out.resolve()))
  return out


def _results(run: Run):
  path = run.workdir / 'results.json'
  if not path.is_file():
    raise FileNotFoundError(f'{run.workdir} has no results yet; let its training end first')
  found = json.loads(path.read_text())
  if not all('best' in row for row in found['generators'].values()):
    raise ValueError(f'{run.workdir} measured nothing (no evaluate.classifier or '
                     'evaluate.extractor in its config), so that there is nothing to compare')
  return found


def _groups(runs) -> list[Group]:
  """Runs of one config are one, whatever their seed; named by what their folders have in common."""
  kinds = {}
  for path, run in runs.items():
    asked = _flat(configs.to_json(run.config))
    seed = asked.pop('seed')
    # A stage is what it is, whichever others are trained.
    asked = {key: value for key, value in asked.items() if key not in {'run', *HARMLESS}}
    kinds.setdefault(json.dumps(asked, sort_keys=True), []).append((path, seed, _results(run)))
  settings = [json.loads(kind) for kind in kinds]
  differing = sorted(key for key in set().union(*settings)
                     if any(each.get(key) != settings[0].get(key) for each in settings))
  names = [_name([path for path, _, _ in members]) for members in kinds.values()]
  if len(set(names)) < len(names):
    names = [str(members[0][0]) for members in kinds.values()]
  return [Group(name, sorted(members, key=lambda m: m[1]),
                {key: each[key] for key in differing if key in each})
          for name, members, each in zip(names, kinds.values(), settings, strict=True)]


def _flat(tree, prefix=''):
  """{dotted key: value} of nested dicts."""
  found = {}
  for key, value in tree.items():
    nested = isinstance(value, dict) and value
    found.update(_flat(value, f'{prefix}{key}.') if nested else {prefix + key: value})
  return found


def _name(paths):
  names = {path.name for path in paths}
  if len(names) > 1:
    names = {re.sub(r'[-_=. ]*(seed)?[-_=. ]*\d+$', '', name) for name in names}
  return names.pop() if len(names) == 1 and all(names) else paths[0].parent.name


def _families(groups, runs, metric) -> list[Family]:
  points = []
  for i, group in enumerate(groups):
    tables = [results['generators'] for _, _, results in group.members]
    points += [Point(i, name, [table[name] for table in tables if name in table])
               for name in dict.fromkeys(name for table in tables for name in table)]
  tasks = {}
  for point in points:
    tasks.setdefault(comparison.task(point.rows[0]), []).append(point)
  families = []
  for task, members in tasks.items():
    there = [key for key in SELECT if all(
        key in row['best']['measures'] for point in members for row in point.rows)]
    if metric is not None and metric not in there:
      raise ValueError(f'metric {metric!r} was not measured everywhere; there is '
                       f'{", ".join(there) or "none in common"} ({task})')
    chosen = {runs[groups[p.group].members[0][0]].config.evaluate.select for p in members}
    by = metric or next((key for key in (*chosen, *there) if key in there), None)
    if by is None:
      raise ValueError(f'no metric was measured everywhere ({task})')
    families.append(Family(task, members, by, _pictures(groups, runs, members)))
  return families


def _pictures(groups, runs, points):
  """Rows of drawings of the same inputs: of each point the first seed's."""
  rows, missing, inputs = [], [], None
  for point in sorted(points, key=lambda p: (p.cost('macs'), p.group))[:MOST_ROWS]:
    group = groups[point.group]
    path = next(path for path, _, results in group.members if point.name in results['generators'])
    run, target = runs[path], None
    try:
      draw = run.drawer(point.name)
    except (CheckpointError, FileNotFoundError):  # what was measured is in results.json
      missing.append(point.title)
      continue
    if point.rows[0]['from'] == 'latents':
      x, picture = latents(draw.module, run.config.evaluate.seed, COLUMNS)[0], None
    else:
      shown = run.shown(point.name, COLUMNS)
      x, picture, target = shown['source'], shown['picture'], shown.get('target')
    if inputs is None and picture is not None:
      inputs = np.asarray(x)
      rows.append(('Input', 'what every generator is given', np.asarray(picture)))
      if target is not None:
        rows.append(('Target', 'what should come out', np.asarray(target)))
    elif inputs is not None and not np.array_equal(inputs, x):
      continue  # says the same of itself, and is another folder
    note = f'{point.rows[0]["params"]:,} parameters' + (
        f', {group.name}' if len(groups) > 1 else '')
    rows.append((point.title, note, np.asarray(draw(x))))
  if missing and rows:
    rows[0] = (rows[0][0], f'{rows[0][1]}; no checkpoint can be read of {", ".join(missing)}',
               rows[0][2])
  left = len(points) - MOST_ROWS
  return rows if left <= 0 else [*rows[:-1], (
      rows[-1][0], f'{rows[-1][1]}; {left} larger ones are left out', rows[-1][2])]
