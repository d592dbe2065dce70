"""Several runs on one page: quality against cost, and generated images of the same inputs."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util

from jaxgan_compress import config as configs
from jaxgan_compress.config import SELECT
from jaxgan_compress.core import paths
from jaxgan_compress.core.arguments import typed
from jaxgan_compress.experiment import plots, report
from jaxgan_compress.experiment.export import latents
from jaxgan_compress.experiment.lock import HARMLESS
from jaxgan_compress.experiment.workdir import Run, open_run
from jaxgan_compress.train import CheckpointError

COLUMNS, MAX_ROWS = 6, 30  # of the sheet of generated images
MARK = '<meta name="generator" content="jaxgan_compress comparison">'


@typed
def compare(workdirs: Sequence[str | Path], out: str | Path | None = None,
            metric: str | None = None, *, moved: Mapping[str, str] | None = None) -> Path:
  """Writes one page over finished runs and returns its path: quality against multiply-accumulates
  and milliseconds with the Pareto front, a table, and images generated from the same inputs.

  Runs whose configs differ in the seed alone are seeds of one: the page has their means and
  spreads, and the images of the first. Runs with other inputs, or measured in another way, stand
  apart.

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
  out = _writable(paths.expand(out) if out else Path(os.path.commonpath(
      [path.parent for path in runs])) / 'comparison.html')
  groups = _groups(list(runs.values()), out.resolve().parent)
  families = {}
  for group in groups:
    tables = [results['generators'] for _, _, results in group['members']]
    for name in dict.fromkeys(name for table in tables for name in table):
      rows = [table[name] for table in tables if name in table]
      families.setdefault(_task(rows[0]), []).append((group, name, rows))
  environments = {json.dumps(results['environment']): results['environment']
                  for group in groups for _, _, results in group['members']}
  page = report.page(
      'comparison.html.jinja2', mark=MARK, count=len(runs), groups=groups,
      families=[_family(task, generators, metric) for task, generators in families.items()],
      environments=list(environments.values()))
  out.parent.mkdir(parents=True, exist_ok=True)
  paths.write_atomically(out, page)
  return out


def _writable(out: Path) -> Path:
  if out.is_dir():
    raise IsADirectoryError(f'{out} is a folder; give a file')
  if out.exists() and MARK.encode() not in out.read_bytes()[:1000]:
    raise FileExistsError(f'{out} is there and is no comparison; use another --output')
  return out


def _task(row) -> str:
  """What a row of results.json was generated from and how it was measured, in words."""
  protocol = next(iter(row['best']['measures'].values()))['protocol']
  inputs = protocol.get('inputs', f'Latents (seed {protocol["seed"]})')
  return (f'{inputs}: {protocol["count"]} generated against {protocol["real_count"]} real images '
          f'({protocol["data"]}, {protocol["images"]}), features of {protocol["feature_net"]}')


def _results(run: Run) -> dict[str, Any]:
  path = run.workdir / 'results.json'
  if not path.is_file():
    raise FileNotFoundError(f'{run.workdir} has no results yet; let its training end first')
  results = json.loads(path.read_text())
  if not all('best' in row for row in results['generators'].values()):
    raise ValueError(f'{run.workdir} measured nothing (no evaluate.classifier or '
                     'evaluate.extractor in its config), so that there is nothing to compare')
  return results


def _groups(runs: Sequence[Run], folder: Path) -> list[dict[str, Any]]:
  """Runs of one config are one, whatever their seed. Links are as seen from the folder."""
  kinds = {}
  for run in runs:
    settings = traverse_util.flatten_dict(
        configs.to_json(run.config), is_leaf=lambda _, tree: not tree, sep='.')
    seed = settings.pop('seed')
    # A stage is what it is, whichever others are trained.
    settings = frozenset((key, json.dumps(value)) for key, value in settings.items()
                         if key not in {'run', *HARMLESS})
    kinds.setdefault(settings, []).append((run, seed, _results(run)))
  shared, groups = frozenset.intersection(*kinds), []
  for settings, members in kinds.items():
    members.sort(key=lambda member: member[1])
    seeds = [str(seed) for _, seed, _ in members]
    several = len(members) > 1
    pages = [run.workdir.resolve() / 'report.html' for run, _, _ in members]
    differs = [f'{key}: {json.loads(value)}' for key, value in sorted(settings - shared)]
    groups.append({
        'series': len(groups), 'members': members, 'name': _name([page.parent for page in pages]),
        'differs': differs + [f'seeds {", ".join(seeds)}'] * several,
        'links': [(f'seed {seed}' if several else 'report',
                   os.path.relpath(page, folder) if page.is_file() else None)
                  for seed, page in zip(seeds, pages, strict=True)]})
  names = [group['name'] for group in groups]
  for group in groups:
    if names.count(group['name']) > 1:
      group['name'] = str(group['members'][0][0].workdir.resolve())
  return groups


def _name(folders: Sequence[Path]) -> str:
  """What the names of folders have in common but for the seed, or the folder that holds them."""
  names = {re.sub(r'[-_=. ]*(seed)?[-_=. ]*\d+$', '', folder.name) if len(folders) > 1 else
           folder.name for folder in folders}
  return names.pop() if len(names) == 1 and all(names) else folders[0].parent.name


def _family(task: str, generators: list[tuple[dict, str, list[dict]]], metric: str | None
            ) -> dict[str, Any]:
  """The part of the page about generators of the same inputs that were measured the same way.

  generators: (group, name, entries of results.json of all seeds).
  """
  metric = _metric(task, generators, metric)
  generators.sort(key=lambda g: (_mean(g[2], 'macs'), g[0]['series'], g[1]))
  dots = _dots(generators, metric)
  charts = plots.tradeoffs(dots, metric)
  nets = {measure['protocol'].get('feature_crc32') for _, _, rows in generators for row in rows
          for measure in row['best']['measures'].values()}
  return {'task': task, 'charts': charts, 'rows': dots, 'feature_nets': len(nets),
          'metric': metric if metric in dots[0]['cells'] else f'{metric}_teacher',
          'seeds': max(len(dot['values']) for dot in dots), 'images': _images(generators, dots)}


def _mean(rows, key) -> float:
  return float(np.mean([row[key] for row in rows]))


def _dots(generators, metric) -> list[dict[str, Any]]:
  """Each generator as charts and tables have it, with its number."""
  several = len({group['series'] for group, _, _ in generators}) > 1
  dots = []
  for i, (group, _, rows) in enumerate(generators):
    costs = {key: _mean(rows, key) for key in ('params', *plots.TRADED)
             if all(key in row for row in rows)}
    values = [row['best']['measures'][metric]['value'] for row in rows]
    mean = float(np.mean(values))
    title, role = f'{i + 1}. {rows[0]["title"]}', rows[0]['role']
    dots.append({
        'label': str(i + 1), 'title': title, 'role': role, 'leads': [title, role, group['name']],
        'series': group['series'] if several else i, 'costs': costs, 'values': values, 'best': [],
        'mean': mean, 'note': f'{title}: {report.rounded(mean)}',
        'cells': {key: report.COSTS[key](cost) for key, cost in costs.items()}
        | report.quality_cells([row['best'] for row in rows], over_seeds=True)})
  return dots


def _metric(task, generators, metric) -> str:
  """The measure of the charts: what was asked for, or by which the runs chose checkpoints."""
  measured = [row['best']['measures'] for _, _, rows in generators for row in rows]
  common = [key for key in SELECT if all(key in measures for measures in measured)]
  if metric is not None and metric not in common:
    raise ValueError(f'metric {metric!r} was not measured everywhere; there is '
                     f'{", ".join(common) or "none in common"} ({task})')
  if not common:
    raise ValueError(f'no metric was measured everywhere ({task})')
  selected = [group['members'][0][0].config.evaluate.select for group, _, _ in generators]
  return metric or next(key for key in (*selected, *common) if key in common)


def _images(generators, dots) -> list[list]:
  """[title, note, images] of the inputs, of the targets and of each generator's first seed."""
  sheet, unreadable, inputs = [], [], None
  for (group, name, rows), dot in zip(generators[:MAX_ROWS], dots, strict=False):
    run = next(run for run, _, results in group['members'] if name in results['generators'])
    try:
      generator = run.generator(name)
      bound = generator.bound()
    except (CheckpointError, FileNotFoundError):  # what was measured is in results.json
      unreadable.append(dot['title'])
      continue
    if rows[0]['from'] == 'latents':
      x = latents(generator.module, run.config.evaluate.seed, COLUMNS)[0]
    else:
      batch = generator.examples(COLUMNS)
      x = batch['source']
      if inputs is None:
        inputs = np.asarray(x)
        sheet.append(['Input', 'what every generator receives', np.asarray(batch['picture'])])
        if 'target' in batch:
          sheet.append(['Target', 'what they should produce', np.asarray(batch['target'])])
      elif not np.array_equal(inputs, x):
        continue  # its data have the same name and lie in another folder
    sheet.append([dot['title'], f'{rows[0]["params"]:,} parameters, {group["name"]}',
                  np.asarray(bound(x))])
  if sheet and unreadable:
    sheet[0][1] += f'; no checkpoint can be read of {", ".join(unreadable)}'
  if sheet and len(generators) > MAX_ROWS:
    sheet[-1][1] += f'; {len(generators) - MAX_ROWS} larger ones are left out'
  return sheet
