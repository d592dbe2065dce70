"""The report of a run: one HTML file that needs no other file, no network and no script."""

from __future__ import annotations

import base64
import functools
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from jaxgan_compress.analysis.image_grid import contact_sheet, shown_as
from jaxgan_compress.experiment import plots

CURVES = ('fid', 'fd', 'fd_efficientnet_lite0', 'is', 'psnr', 'ssim', 'mse')
FEWEST = 3  # generators that a chart of quality against cost is worth


def render(results: Mapping[str, Any], groups: Mapping[str, Mapping[str, Any]],
           curves: Mapping[str, Sequence[Mapping]], config: Mapping[str, Any]) -> str:
  """The page.

  results: as `experiment.Run.results`. groups: by what is generated from, 'latents', 'source' or
  'target': 'images', [(generator, [B,H,W,C] in [-1, 1])] of the same inputs; 'pictures', these
  inputs or None; 'targets', what should come out or None, and 'originals', what a recorded teacher
  was given in full size, or None; 'detail', which part of them is shown, or ''; 'real', real
  images. curves: {stage: lines of evaluations.jsonl}.
  """
  rows = {}
  for series, (name, row) in enumerate(results['generators'].items()):
    # The KD paper counts parameters of its own networks, which generate from latents.
    cells = {key: text(row[key]) for key, text in COSTS.items()
             if key in row and not (key.endswith('_paper') and row['from'] != 'latents')}
    rows[name] = {**row, 'series': series, 'cells': cells, 'leads': [row['title'], row['role']]}
  charts = {key: plots.learning_curves([
      (row['title'], [(line['step'], line['measures'][key]['value'])
                      for line in curves.get(name, ()) if _is_curve(key, line['measures'])])
      for name, row in rows.items()]) for key in CURVES}
  return page('report.html.jinja2', rows=rows, groups=groups, quality=_quality(results, rows),
              recorded=results.get('recorded_teacher'), metric=config['evaluate']['select'],
              tradeoffs=_tradeoffs(rows, config['evaluate']['select']), charts=charts,
              environment=results['environment'], config=config,
              config_text=json.dumps(config, indent=1))


def _is_curve(key: str, measures: Mapping[str, Any]) -> bool:
  """Whether a measure has a curve. Of latents 'psnr' is to the teacher, as 'mse' says already."""
  return key in measures and not (key == 'psnr' and 'mse_on_paths' in measures)


def _tradeoffs(rows: Mapping[str, Mapping[str, Any]], metric: str) -> list[dict[str, str]]:
  """Of each kind of input, {cost: chart} of the measure that chose checkpoints against it."""
  charts = []
  for source in dict.fromkeys(row['from'] for row in rows.values()):
    dots = [{'label': name, 'series': row['series'], 'role': row['role'], 'best': [],
             'costs': {cost: row[cost] for cost in plots.TRADED if cost in row},
             'mean': (value := row['best']['measures'][metric]['value']), 'values': [value],
             'note': f'{row["title"]}: {rounded(value)}'}
            for name, row in rows.items()
            if row['from'] == source and metric in row.get('best', {'measures': ()})['measures']]
    if len(dots) >= FEWEST:
      charts.append(plots.tradeoffs(dots, metric))
  return charts


def _quality(results, rows) -> Iterator[tuple[str, Mapping[str, Any], str | None, list]]:
  """(heading, protocol, data that checkpoints were chosen on, lines) of each direction."""
  for key, heading, sources in (('real', 'Quality', ('latents', 'source')),
                                ('real_ba', 'Quality: the other direction', ('target',))):
    measured = [row for row in rows.values() if row['from'] in sources]
    if not results.get(key) or not measured:
      continue
    lines = []
    for row in measured:
      kinds = {'last': row['last'], 'best': row['best']}
      if row['last']['step'] == row['best']['step']:
        kinds = {'last and best': row['best']}
      lines += [{**row, 'cells': quality_cells([checkpoint]),
                 'leads': [*row['leads'], f'{kind}, step {checkpoint["step"]}']}
                for kind, checkpoint in kinds.items()]
    lines.append({'role': 'real', 'series': None, 'leads': ['Real images', '', ''],
                  'cells': quality_cells([{'measures': results[key]}])})
    chosen = [row['best']['chosen_by'] for row in measured if 'chosen_by' in row['best']]
    yield (heading, results[key]['vol']['protocol'],
           chosen[0]['vol']['protocol']['data'] if chosen else None, lines)


def quality_cells(checkpoints: Sequence[Mapping[str, Any]], over_seeds: bool = False
                  ) -> dict[str, str]:
  """The measures of a checkpoint, each ± its own spread; over seeds the means ± their standard
  deviations. Latents have no targets: 'psnr' next to 'mse_on_paths' is to the teacher."""
  cells = {}
  for key in dict.fromkeys(key for each in checkpoints for key in each['measures']):
    measures = [each['measures'][key] for each in checkpoints if key in each['measures']]
    values = [measure['value'] for measure in measures]
    if isinstance(values[0], list):  # one for each class
      continue
    spread = measures[0].get('spread')
    if over_seeds:
      spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    to_teacher = key == 'psnr' and 'mse_on_paths' in checkpoints[0]['measures']
    cells['psnr_teacher' if to_teacher else key] = rounded(float(np.mean(values)), spread)
  return cells


def rounded(value: float, spread: float | None = None, digits: int = 4) -> str:
  """'value ± spread' with two significant digits of the spread; without one, `digits` of the value.

  At most six digits of the value are written, however small its spread is.
  """
  if not math.isfinite(value):
    return str(value)
  places = lambda x, digits: digits - 1 - int(f'{x:.{digits - 1}e}'.split('e')[1])
  decimals = places(value, 6 if spread else digits)
  if spread:
    decimals = min(decimals, places(spread, 2))
  text = lambda x: f'{round(x, decimals):,.{max(decimals, 0)}f}'
  return text(value) + ('' if spread is None else f' ± {text(spread)}')


# How costs are written. What they and the measures mean is in templates/parts.html.jinja2.
COSTS = {
    **dict.fromkeys(('params', 'params_paper'), '{:,.0f}'.format),
    **dict.fromkeys(('ratio', 'ratio_paper', 'ratio_macs'), '{:.1f}:1'.format),
    **dict.fromkeys((f'ms_per_image_batch{size}' for size in (1, 4, 64)),
                    functools.partial(rounded, digits=3)),
    'macs': plots.si, 'seconds': '{:,.0f} s'.format,
}


def page(template: str, **values: Any) -> str:
  """The HTML of one of our templates, which escapes every value that it does not call safe."""
  return _environment().get_template(template).render(values)


@functools.cache
def _environment():
  import jinja2  # at the first page, so that no other command waits for it
  environment = jinja2.Environment(
      loader=jinja2.PackageLoader('jaxgan_compress.experiment'), autoescape=True,
      trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
  environment.filters['data_url'] = _data_url
  environment.filters['shown_as'] = lambda images: shown_as(np.shape(images)[-1])
  return environment


def _data_url(images: np.ndarray) -> str:
  """A row of images [B,H,W,C] in [-1, 1] as a PNG in an address, with transparent gaps."""
  gaps = contact_sheet([np.full((*np.shape(images)[:3], 1), -1)])[..., :1]
  buffer = io.BytesIO()
  Image.fromarray(np.dstack([contact_sheet([images]), 255 - gaps])).save(
      buffer, 'PNG', optimize=True)
  return 'data:image/png;base64,' + base64.b64encode(buffer.getvalue()).decode()
