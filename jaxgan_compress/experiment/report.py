"""The report of a run: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import html
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from jaxgan_compress.analysis.image_grid import contact_sheet

COLOURS = ('#1b6ca8', '#c2410c', '#15803d', '#7e22ce', '#a16207', '#0e7490', '#be123c', '#4d4d4d')

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 74rem; padding: 0 1rem;
       color: #1f2328; background: #fff; }
h1 { font-size: 1.5rem; margin-bottom: .2rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
p, li { max-width: 52rem } .muted { color: #59636e; font-size: 13px }
.row { display: grid; grid-template-columns: 17rem 1fr; gap: 1rem; align-items: center;
       margin: 3px 0 }
.row img { width: 100%; image-rendering: pixelated; display: block }
.row b { display: block; font-weight: 600 } .row.real { margin-top: 12px }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-size: 13.5px; white-space: nowrap }
th, td { padding: 4px 10px; text-align: right; border-bottom: 1px solid #d8dee4 }
th:first-child, td:first-child { text-align: left } th { font-weight: 600; vertical-align: bottom }
tr.student td { background: #f0f7ff } .charts { display: flex; flex-wrap: wrap; gap: 2rem }
.dot { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .4em }
@media (max-width: 40rem) { .row { grid-template-columns: 1fr; gap: .2rem } }
details { margin-top: .6rem; font-size: 13px; color: #59636e }
pre { font-size: 12px; overflow-x: auto; background: #f6f8fa;
       padding: 1rem }
"""

# (heading, explanation, what to print): costs from a generator's row, quality from its measures
COSTS = (
    ('parameters', 'all weights, biases and norms', lambda r: f'{r["params"]:,}'),
    ('ratio', 'teacher / this', lambda r: _ratio(r.get('ratio'))),
    ('paper parameters', 'as the KD paper counts: convolutions only, one output channel',
     lambda r: f'{r["params_paper"]:,}'),
    ('paper ratio', 'teacher / this by that count', lambda r: _ratio(r.get('ratio_paper'))),
    ('MACs', 'multiply-accumulates per image, exact', lambda r: si(r['macs'])),
    ('MACs ratio', 'teacher / this', lambda r: _ratio(r.get('ratio_macs'))),
    *((f'ms/image, batch {size}', 'median time on this device, so many images at once',
       lambda r, key=f'ms_per_image_batch{size}': f'{r[key]:.3f}' if key in r else '')
      for size in (1, 4, 64)),
    ('training', 'seconds, without measuring and saving', lambda r: f'{r["seconds"]:.0f} s'),
)
QUALITY = (
    ('FID ↓', 'Frechet distance to the real images through the FID Inception network',
     lambda m: _value(m, 'fid')),
    ('FD ↓', 'Frechet distance to the real images through another network, see evaluate',
     lambda m: _value(m, 'fd')),
    ('KID ↓', 'kernel distance through the FID Inception network; ± over its subsets',
     lambda m: _value(m, 'kid', '.4f')),
    ('MMD ↓', 'kernel distance through another network, see evaluate; ± over its subsets',
     lambda m: _value(m, 'mmd', '.4f')),
    ('IS ↑', 'inception score through the classifier: clear and varied; ± over its splits',
     lambda m: _value(m, 'is')),
    ('VoL', 'variance of the Laplacian (sharpness): best near the real images’; noise scores high',
     lambda m: _value(m, 'vol', '.0f')),
    ('PSNR ↑', 'to the target of each pair, in dB', lambda m: _value(m, 'psnr', '.2f')
     if 'psnr' in m and 'unit' in m['psnr']['protocol'] and 'mean over images'
     in m['psnr']['protocol']['unit'] else ''),
    ('SSIM ↑', 'structural similarity to the target of each pair',
     lambda m: _value(m, 'ssim', '.4f')),
    ('L1 ↓', 'mean absolute difference to the target of each pair, images in [-1, 1]',
     lambda m: _value(m, 'l1', '.4f')),
    ('mIoU ↑', 'of the labels that a trained network reads back',
     lambda m: _value(m, 'miou', '.3f')),
    ('MSE to teacher ↓', 'mean squared difference per pixel on the same inputs, images in [-1, 1]',
     lambda m: _value(m, 'mse', '.4f')),
    ('PSNR to teacher ↑', 'the same in dB', lambda m: _value(m, 'psnr_teacher', '.1f')
     or (_value(m, 'psnr', '.1f') if 'mse_on_paths' in m else '')),
    ('MSE on paths ↓', 'the same along straight paths between latents: was the function copied, '
     'or only its samples?', lambda m: _value(m, 'mse_on_paths', '.4f')),
)


INTROS = {
    'latents': ('Same latents, every generator', """Each column is one random latent vector z, given
to every generator (best checkpoint). A student that copies its teacher draws the same picture in
the same column. A generator trained from scratch knows no teacher and draws its own. D is the
discriminator that a generator was trained against."""),
    'source': ('Same inputs, every generator', """Each column is one input, the top row, given to
every generator (best checkpoint)."""),
    'target': ('The other direction', """The same, for the generators that draw source from
target."""),
}


def render(results: Mapping[str, Any], groups: Mapping[str, Mapping[str, Any]],
           curves: Mapping[str, Sequence[Mapping]], config: Mapping[str, Any]) -> str:
  """The page.

  results: as `experiment.Run.results`. groups: by what is drawn from, 'latents', 'source' or
  'target': 'drawings', [(generator, [B,H,W,C] in [-1, 1])] of the same inputs; 'pictures', these
  inputs or None; 'targets', what should come out or None; 'real', real images. curves: {stage:
  lines of evaluations.jsonl}.
  """
  table = results['generators']
  colour = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(table)}
  environment = results['environment']
  drawings = ''.join(_group(kind, group, table, colour) for kind, group in groups.items())
  return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>GAN compression report</title><style>{STYLE}</style>
<h1>GAN compression report</h1>
<p>{_summary(results)}</p>
{drawings}
{_quality(results, table, colour)}
{_costs(table, colour)}
{_charts(table, curves, colour)}
<h2>How it was made</h2>
<p class="muted">{environment_line(environment)}</p>
<details><summary>Config</summary><pre>{html.escape(json.dumps(config, indent=1))}</pre></details>
</html>
"""


def _group(kind, group, table, colour):
  heading, intro = INTROS[kind]
  rows = ''
  if group['pictures'] is not None:
    rows += _plain('Input', 'what every generator is given', group['pictures'])
  rows += ''.join(_row(table[name], images, colour[name]) for name, images in group['drawings'])
  if group['targets'] is not None:
    rows += _plain('Target', 'what should come out', group['targets'], 'real')
  else:
    rows += _plain('Real images', 'from the data; not matched to the columns', group['real'],
                   'real')
  return f'<h2>{heading}</h2><p class="muted">{intro}</p>{rows}'


def _plain(title, note, images, kind=''):
  return (f'<div class="row {kind}"><div><b>{title}</b><span class="muted">{note}</span></div>'
          f'{picture(images)}</div>')


def _summary(results):
  table = results['generators']
  sentences = []
  for row in table.values():
    if row['role'] != 'student' or not row['teacher'] or 'best' not in row:
      continue
    mine = row['best']['measures']
    teacher = table[row['teacher']]
    theirs = teacher['best']['measures']
    text = (f'<b>{_title(row)}</b> is {row["ratio"]:.1f} times smaller than '
            f'{_title(teacher)}')
    if row['from'] != 'latents':
      text += f' and takes {row["ratio_macs"]:.1f} times fewer multiply-accumulates'
    if 'is' in mine:
      text += (f' and keeps {mine["is"]["value"] / theirs["is"]["value"]:.0%} of its inception '
               'score')
    key = 'fid' if 'fid' in mine else 'fd'
    text += f' ({key.upper()} {mine[key]["value"]:.1f} against {theirs[key]["value"]:.1f}).'
    rivals = [other['best']['measures'][key]['value'] for other in table.values()
              if other['role'] == 'baseline' and other['params'] == row['params']
              and 'best' in other and other['from'] == row['from']]
    if rivals:
      text += (f' The same network trained from scratch reaches {key.upper()} {min(rivals):.1f} '
               'at best.')
    sentences.append(text)
  return ' '.join(sentences) or 'Generators trained in this run.'


def _row(row, images, colour):
  ratio = f', {row["ratio"]:.1f} times smaller' if row['role'] != 'teacher' and 'ratio' in row \
      else ''
  return (f'<div class="row"><div><b><span class="dot" style="background:{colour}"></span>'
          f'{_title(row)}</b><span class="muted">{row["params"]:,} parameters{ratio}</span></div>'
          f'{picture(images)}</div>')


def _costs(table, colour):
  images = all(row['from'] != 'latents' for row in table.values())
  columns = [column for column in COSTS if any(column[2](row) for row in table.values())
             and not (images and column[0].startswith('paper'))]
  body = ''.join(_line(row, colour[name], '', [read(row) for _, _, read in columns])
                 for name, row in table.items())
  return f'<h2>Cost</h2>{_table(columns, body)}'


def _quality(results, table, colour):
  found = ''
  for key, heading, kinds in (('real', 'Quality', ('latents', 'source')),
                              ('real_back', 'Quality, the other direction', ('target',))):
    rows = {name: row for name, row in table.items() if row['from'] in kinds}
    if results.get(key) and rows:
      found += _quality_table(heading, results[key], rows, colour)
  return found


def _quality_table(heading, real, table, colour):
  body = ''
  measured = [real, *(row['best']['measures'] for row in table.values())]
  columns = [column for column in QUALITY if any(column[2](each) for each in measured)]
  for name, row in table.items():
    last, best = row['last'], row['best']
    one = last['step'] == best['step']
    for note, line in [('last and best', last)] if one else [('last', last), ('best', best)]:
      body += _line(row, colour[name], f'{note}, step {line["step"]}',
                    [read(line['measures']) for _, _, read in columns])
  body += '<tr><td>Real images</td>' + ''.join(
      f'<td>{read(real)}</td>' for _, _, read in columns) + '</tr>'
  protocol = real['vol']['protocol']
  accuracy = protocol.get('feature_net_accuracy')
  chosen = next((row['best']['chosen_by'] for row in table.values() if 'chosen_by' in row['best']),
                None)
  hindsight = 'picked with hindsight; it flatters a generator that oscillates' if chosen is None \
      else f'picked on other images ({html.escape(chosen["vol"]["protocol"]["data"])})'
  inputs = f'latents (seed {protocol["seed"]})' if 'inputs' not in protocol \
      else f'inputs ({html.escape(protocol["inputs"])})'
  distance = next((name.upper() for name in ('fid', 'fd') if name in real), 'distance')
  return f"""<h2>{heading}</h2>{_table(columns, body)}
<p class="muted">↓ lower is better, ↑ higher. Best is the checkpoint that evaluate.select chose for
the stage, {hindsight}. {protocol['count']:,} images from the same
{inputs} are compared with {protocol['real_count']:,} real ones
({html.escape(protocol['data'])}). Features are those of a {protocol['feature_net']}
{f'that is right on {accuracy:.1%} of held-out images' if accuracy else ''} (CRC
{protocol['feature_crc32']}). The {distance} of the real images is that of a random half of them
against all: the floor of this measure. These values compare with others of this protocol only.</p>
"""


def _table(columns, body):
  head = ''.join(f'<th>{name}</th>' for name, _, _ in columns)
  explained = ''.join(f'<li><b>{name}</b>: {why}</li>' for name, why, _ in columns)
  return (f'<div class="scroll"><table><tr><th>generator</th>{head}</tr>{body}</table></div>'
          f'<details><summary>What the columns mean</summary><ul>{explained}</ul></details>')


def _line(row, colour, note, cells):
  return (f'<tr class="{row["role"]}"><td><span class="dot" style="background:{colour}"></span>'
          f'{_title(row)} <span class="muted">{note}</span></td>'
          + ''.join(f'<td>{cell}</td>' for cell in cells) + '</tr>')


def _charts(table, curves, colour):
  def series(key):
    return [(_title(table[name]), colour[name],
             [(line['step'], line['measures'][key]['value']) for line in lines
              if key in line['measures']]) for name, lines in curves.items()]

  charts = ''.join(_chart(title, series(key)) for key, title in (
      ('fid', 'FID (lower is better)'), ('fd', 'FD to real images (lower is better)'),
      ('is', 'Inception score (higher is better)'),
      ('ssim', 'SSIM to the target (higher is better)'),
      ('mse', 'MSE to the teacher (lower is better)')))
  return f'<h2>Learning curves</h2><div class="charts">{charts}</div>' if charts else ''


def _chart(title, series, width=340, height=230):
  """An SVG of lines on a logarithmic scale, labelled; '' without points."""
  series = [(name, colour, [(x, y) for x, y in points if y > 0])
            for name, colour, points in series]
  series = [each for each in series if each[2]]
  if not series:
    return ''
  left, right, top, bottom = 44, 8, 8, 34
  xs = [x for _, _, points in series for x, _ in points]
  ys = [math.log10(y) for _, _, points in series for _, y in points]
  low, high = min(ys), max(ys)
  low, high = low - .06 * (high - low) - .01, high + .06 * (high - low) + .01
  x_low, x_high = (0, max(xs))

  def at(x, log_y):
    return (left + (x - x_low) / (x_high - x_low) * (width - left - right),
            top + (high - log_y) / (high - low) * (height - top - bottom))

  parts = []
  for y in ticks(low, high):
    _, v = at(0, math.log10(y))
    parts.append(f'<line x1="{left}" x2="{width - right}" y1="{v:.1f}" y2="{v:.1f}" '
                 f'stroke="#e5e8eb"/><text x="{left - 6}" y="{v + 4:.1f}" text-anchor="end">'
                 f'{y:.4g}</text>')
  for x, anchor in {min(xs): 'middle', max(xs): 'end'}.items():
    h, _ = at(x, low)
    parts.append(f'<text x="{h:.1f}" y="{height - bottom + 16}" text-anchor="{anchor}">{x}</text>')
  parts.append(f'<text x="{(left + width) / 2}" y="{height - 4}" text-anchor="middle">training '
               'step</text>')
  for name, colour, points in series:
    path = ' '.join('{:.1f},{:.1f}'.format(*at(x, math.log10(y))) for x, y in points)
    parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2">'
                 f'<title>{name}</title></polyline>')
    parts += [f'<circle cx="{at(x, math.log10(y))[0]:.1f}" cy="{at(x, math.log10(y))[1]:.1f}" '
              f'r="3" fill="{colour}"><title>{name}, step {x}: {y:.4g}</title></circle>'
              for x, y in points]
  legend = '<br>'.join(f'<span class="dot" style="background:{colour}"></span>{name}'
                       for name, colour, _ in series)
  return (f'<div><b>{title}</b><br><svg width="{width}" height="{height}" font-size="11" '
          f'fill="#59636e" font-family="system-ui, sans-serif">{"".join(parts)}</svg>'
          f'<div class="muted">{legend}</div></div>')


def ticks(low: float, high: float, most: int = 8) -> list[float]:
  """Round numbers between 10^low and 10^high, as many as an axis has room for."""
  found = []
  for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), [i / 10 for i in range(10, 100)]):
    if len(found) < 3:
      found = [m * 10 ** e for e in range(math.floor(low), math.ceil(high) + 1)
               for m in steps if low <= math.log10(m * 10 ** e) <= high]
  return found[::max(1, -(-len(found) // most))]


def environment_line(found: Mapping[str, Any]) -> str:
  """Device, versions and time of a line of environment.jsonl."""
  device = found['device']
  packages = ', '.join(f'{name} {version}' for name, version in found['packages'].items()
                       if version)
  return html.escape(
      f'{device["count"]} {device["platform"]} device(s) ({device["kind"]}), {device["cpus"]} CPU '
      f'cores; Python {found["python"]}; {packages}; revision {found["git"] or "unknown"}; '
      f'{found["time"]}.')


def picture(images) -> str:
  """A row of images as an inline PNG."""
  buffer = io.BytesIO()
  Image.fromarray(contact_sheet([images])).save(buffer, 'PNG', optimize=True)
  data = base64.b64encode(buffer.getvalue()).decode()
  return f'<img alt="{len(images)} images" src="data:image/png;base64,{data}">'


def _title(row):
  return html.escape(row['title'])


def _ratio(ratio):
  return f'{ratio:.1f}:1' if ratio else ''


def _value(measures, key, form='.2f'):
  if key not in measures:
    return ''
  spread = measures[key].get('spread')
  return format(measures[key]['value'], form) + (f' ± {spread:.2f}' if spread is not None else '')


def si(number: float) -> str:
  """With the letter for thousands, millions or thousands of millions."""
  for factor, letter in ((1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
    if number >= factor:
      return f'{number / factor:.3g} {letter}'
  return f'{number:.3g}'
