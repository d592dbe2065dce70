"""The report over several runs: one HTML file that needs nothing else, made for phones as well."""

from __future__ import annotations

import dataclasses
import html
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxgan_compress.config import SELECT
from jaxgan_compress.experiment import report

MARK = '<meta name="generator" content="jaxgan_compress comparison">'

STYLE = """
.numbers { width: 100%; height: auto; max-width: 34rem; display: block }
.chart { flex: 1 1 20rem; max-width: 34rem; min-width: 0 }
td.run { white-space: normal; min-width: 9rem }
td.front { font-weight: 700 }
"""


@dataclasses.dataclass(frozen=True)
class Group:
  """Runs of one config, whatever their seed. `members`: [(folder, seed, results)]."""
  name: str
  members: Sequence[tuple[Path, int, Mapping[str, Any]]]
  differs: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Point:
  """A generator in all runs of a group; `rows`: its entries of `results.json`, a run each."""
  group: int
  name: str
  rows: Sequence[Mapping[str, Any]]

  @property
  def title(self) -> str:
    return self.rows[0]['title']

  def cost(self, key: str) -> float:
    return float(np.mean([row[key] for row in self.rows]))

  def values(self, metric: str) -> list[float]:
    return [row['best']['measures'][metric]['value'] for row in self.rows]


@dataclasses.dataclass(frozen=True)
class Family:
  """Generators that were asked the same and measured the same way, and so can be compared.

  pictures: [(caption, note, images [B,H,W,C])] of the same inputs.
  """
  task: str
  points: Sequence[Point]
  metric: str
  pictures: Sequence[tuple[str, str, np.ndarray]] = ()


def task(row: Mapping[str, Any]) -> str:
  """What a row of results.json was asked and how its answers were measured, in words."""
  protocol = next(iter(row['best']['measures'].values()))['protocol']
  given = protocol.get('inputs', f'latents of seed {protocol["seed"]}')
  return (f'{given} against {protocol["data"]}, {protocol["images"]}, {protocol["count"]} drawn '
          f'and {protocol["real_count"]} real images, by {protocol["feature_net"]}')


def front(points: Sequence[Point], cost: str, metric: str) -> list[Point]:
  """Those that no other beats in both, cheapest first; of several seeds, by their means."""
  sign = 1 if SELECT[metric] == 'min' else -1
  best, found = math.inf, []
  for point in sorted(points, key=lambda p: (p.cost(cost), sign * np.mean(p.values(metric)))):
    value = sign * np.mean(point.values(metric))
    if value < best:
      best = value
      found.append(point)
  return found


def render(groups: Sequence[Group], families: Sequence[Family], out: Path) -> str:
  """The page, which lies at `out`: links are relative to it."""
  count = sum(len(group.members) for group in groups)
  runs = ''.join(f'<tr><td class="run">{_dot(i)}{html.escape(group.name)}</td>'
                 f'<td class="run" style="text-align:left">{_settings(group)}</td>'
                 f'<td class="run">{_links(group, out)}</td></tr>'
                 for i, group in enumerate(groups))
  note = '' if len(families) == 1 else (
      f'<p>The runs were not all asked the same, or not measured the same way: there are '
      f'{len(families)} parts below, and values compare within a part only.</p>')
  parts = ''.join(_family(family, groups) for family in families)
  return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">{MARK}
<title>GAN compression: {count} runs compared</title><style>{report.STYLE}{STYLE}</style>
<h1>{count} runs compared</h1>{note}
<div class="scroll"><table><tr><th>runs</th><th style="text-align:left">what differs</th>
<th>reports</th></tr>{runs}</table></div>
{parts}
<h2>How it was measured</h2>{_devices(groups)}
</html>
"""


def _family(family, groups):
  metric, several = family.metric, len({p.group for p in family.points}) > 1
  ordered = sorted(family.points, key=lambda p: (p.cost('macs'), p.group, p.name))
  number = {id(point): i + 1 for i, point in enumerate(ordered)}
  colour = {id(point): report.COLOURS[(point.group if several else i) % len(report.COLOURS)]
            for i, point in enumerate(ordered)}
  charts = ''.join(
      _chart(ordered, cost, metric, title, number, colour) for cost, title in (
          ('macs', 'multiply-accumulates per image'),
          ('ms_per_image_batch1', 'milliseconds per image, one at a time')))
  best = {cost: {id(p) for p in front(ordered, cost, metric)}
          for cost in ('macs', 'ms_per_image_batch1')}
  metrics = [(name, key) for name, key in HEADINGS.items() if any(
      key in measures and not (key == 'psnr' and 'mse_on_paths' in measures)  # to the teacher there
      for p in ordered for measures in (row['best']['measures'] for row in p.rows))]
  head = ''.join(f'<th>{name}</th>' for name, _ in metrics)
  body = ''.join(
      f'<tr class="{p.rows[0]["role"]}"><td class="run">{number[id(p)]}. '
      f'<span class="dot" style="background:{colour[id(p)]}"></span>{html.escape(p.title)}'
      + (f' <span class="muted">{html.escape(groups[p.group].name)}</span>' if several else '')
      + f'</td><td>{p.cost("params"):,.0f}</td>'
      f'<td class="{"front" * (id(p) in best["macs"])}">{report.si(p.cost("macs"))}</td>'
      f'<td class="{"front" * (id(p) in best["ms_per_image_batch1"])}">'
      f'{p.cost("ms_per_image_batch1"):.3g}</td>'
      + ''.join(f'<td>{_spread(p, key)}</td>' for _, key in metrics) + '</tr>' for p in ordered)
  pictures = ''.join(
      f'<div class="row"><div><b>{html.escape(caption)}</b><span class="muted">'
      f'{html.escape(note)}</span></div>{report.picture(images)}</div>'
      for caption, note, images in family.pictures)
  seeds = max(len(p.rows) for p in ordered)
  spread = (f' Of up to {seeds} seeds the mean stands, ± the standard deviation; a line in the '
            'charts goes from the lowest to the highest.' if seeds > 1 else '')
  sense = 'lower' if SELECT[metric] == 'min' else 'higher'
  return f"""<h2>{html.escape(family.task)}</h2>
<div class="charts">{charts}</div>
<p class="muted">A dot for every generator, at its best checkpoint, with its number in the table; a
ring is a teacher. No other generator beats those on the grey line in both; their cost is bold
below. {metric.upper()}: {sense} is better.{spread}{_weights(ordered)}</p>
<div class="scroll"><table><tr><th>generator</th><th>parameters</th><th>MACs</th><th>ms/image</th>
{head}</tr>{body}</table></div>
{'<h2>The same inputs, every generator</h2>' + pictures if pictures else ''}"""


HEADINGS = {'FID ↓': 'fid', 'FD ↓': 'fd', 'KID ↓': 'kid', 'MMD ↓': 'mmd', 'IS ↑': 'is',
            'PSNR ↑': 'psnr', 'SSIM ↑': 'ssim', 'L1 ↓': 'l1', 'mIoU ↑': 'miou',
            'MSE to teacher ↓': 'mse'}


def _spread(point, metric):
  found = [row['best']['measures'][metric]['value'] for row in point.rows
           if metric in row['best']['measures']]
  if not found:
    return ''
  mean = f'{np.mean(found):.3g}'
  return mean if len(found) < 2 else f'{mean} ± {np.std(found, ddof=1):.2g}'


def _weights(points):
  nets = {measure['protocol'].get('feature_crc32') for p in points for row in p.rows
          for measure in row['best']['measures'].values()}
  return '' if len(nets) < 2 else (
      ' Not all were measured through a network of the same weights (each run trained its own), '
      'which moves values, too.')


def _chart(points, cost, metric, title, number, colour, width=420, height=300):
  """An SVG of dots, both axes logarithmic where all values are positive."""
  points = [p for p in points if all(cost in row and metric in row['best']['measures']
                                     for row in p.rows)]
  if not points:
    return ''
  values = [v for p in points for v in p.values(metric)]
  bend = math.log10 if min(values) > 0 else float
  left, right, top, bottom = 48, 16, 10, 40
  axes = []
  for numbers in ([math.log10(p.cost(cost)) for p in points], [bend(v) for v in values]):
    room = .07 * (max(numbers) - min(numbers)) or .05
    axes.append((min(numbers) - room, max(numbers) + room))
  (x_low, x_high), (y_low, y_high) = axes
  across = lambda x: left + (math.log10(x) - x_low) / (x_high - x_low) * (width - left - right)
  down = lambda y: top + (y_high - bend(y)) / (y_high - y_low) * (height - top - bottom)
  parts = []
  for x in report.ticks(x_low, x_high, 5):
    parts.append(f'<line x1="{across(x):.1f}" x2="{across(x):.1f}" y1="{top}" '
                 f'y2="{height - bottom}" stroke="#e5e8eb"/><text x="{across(x):.1f}" '
                 f'y="{height - bottom + 15}" text-anchor="middle">{report.si(x)}</text>')
  rows = report.ticks(y_low, y_high) if bend is math.log10 else np.linspace(
      min(values), max(values), 4)
  for y in rows:
    parts.append(f'<line x1="{left}" x2="{width - right}" y1="{down(y):.1f}" y2="{down(y):.1f}" '
                 f'stroke="#e5e8eb"/><text x="{left - 6}" y="{down(y) + 4:.1f}" '
                 f'text-anchor="end">{y:.3g}</text>')
  path = ''
  for p in front(points, cost, metric):  # stairs: the best that so much can buy
    x, y = across(p.cost(cost)), down(np.mean(p.values(metric)))
    path += f'H{x:.1f} V{y:.1f} ' if path else f'M{x:.1f},{y:.1f} '
  parts.append(f'<path d="{path}H{width - right}" fill="none" stroke="#9aa4ae" '
               'stroke-width="1.5"/>')
  for p in points:
    ours, ink = p.values(metric), colour[id(p)]
    x, y = across(p.cost(cost)), down(np.mean(ours))
    if len(ours) > 1:
      parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{down(min(ours)):.1f}" '
                   f'y2="{down(max(ours)):.1f}" stroke="{ink}" stroke-opacity=".5"/>')
    fill = '#fff' if p.rows[0]['role'] == 'teacher' else ink
    parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{fill}" stroke="{ink}" '
                 f'stroke-width="1.5"><title>{html.escape(p.title)}: {np.mean(ours):.4g}</title>'
                 f'</circle><text x="{x + 6:.1f}" y="{y - 4:.1f}" fill="#1f2328">'
                 f'{number[id(p)]}</text>')
  parts.append(f'<text x="{(left + width - right) / 2}" y="{height - 6}" text-anchor="middle">'
               f'{title}</text>')
  return (f'<div class="chart"><b>{metric.upper()} against {title}</b>'
          f'<svg class="numbers" viewBox="0 0 {width} {height}" font-size="11" fill="#59636e" '
          f'font-family="system-ui, sans-serif">{"".join(parts)}</svg></div>')


def _settings(group):
  told = [f'{html.escape(key)}: {html.escape(str(value))}' for key, value in group.differs.items()]
  seeds = [seed for _, seed, _ in group.members]
  if len(seeds) > 1:
    told.append('seeds ' + ', '.join(str(seed) for seed in seeds))
  return '; '.join(told[:6]) + (f' and {len(told) - 6} more' if len(told) > 6 else '')


def _links(group, out):
  found = []
  for folder, seed, _ in group.members:
    page = folder / 'report.html'
    text = f'seed {seed}' if len(group.members) > 1 else 'report'
    to = os.path.relpath(page, out.parent)
    found.append(f'<a href="{html.escape(to)}">{text}</a>' if page.is_file() else f'{text} missing')
  return ', '.join(found)


def _devices(groups):
  told = dict.fromkeys(report.environment_line(results['environment'])
                       for group in groups for _, _, results in group.members)
  apart = ' The runs were made on different devices or at different times: milliseconds of ' \
      'different runs say little.' if len(told) > 1 else ''
  return ''.join(f'<p class="muted">{line}</p>' for line in told) + (
      f'<p class="muted">{apart}</p>' if apart else '')


def _dot(i):
  return f'<span class="dot" style="background:{report.COLOURS[i % len(report.COLOURS)]}"></span>'
