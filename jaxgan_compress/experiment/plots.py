"""Charts of the HTML pages: inline SVG whose colours are variables of the page, light or dark."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from jaxgan_compress.config import SELECT

TRADED = {'macs': 'multiply-accumulate operations for one image',
          'ms_per_image_batch1': 'milliseconds per image, generated alone'}
SERIES = 8  # colours of a page: --c0 to --c7 for series, --c8 for text, --c9 for grids
DASHES = ('-', '--', ':')  # of the first eight series, the next, ...; CSS has the same three
TEXT, GRID = '#00ff08', '#00ff09'  # stand for the variables until the SVG is written
STYLE: dict[Any, Any] = {
    **dict.fromkeys(('text.color', 'axes.labelcolor', 'xtick.color', 'ytick.color'), TEXT),
    **dict.fromkeys(('axes.edgecolor', 'grid.color'), GRID), 'figure.facecolor': 'none',
    'axes.facecolor': 'none', 'axes.grid': True, 'axes.spines.top': False,
    'axes.spines.right': False, 'svg.fonttype': 'none', 'svg.hashsalt': 'jaxgan_compress',
    'text.parse_math': False,
}


def learning_curves(curves: Sequence[tuple[str, Sequence[tuple[int, float]]]]) -> str:
  """An SVG of values against training steps, on a logarithmic scale; '' without points.

  curves: (name, [(step, value)]) of each series. Values of 0 and less are left out.
  """
  positive = [[(step, value) for step, value in points if value > 0] for _, points in curves]
  if not any(positive):
    return ''
  with _axes(3.7, 2.6) as axes:
    _scale(axes.yaxis, axes.set_yscale, [value for points in positive for _, value in points])
    for i, ((name, _), points) in enumerate(zip(curves, positive, strict=True)):
      if points:
        note = '\n'.join([name, *(f'step {step}: {value:.4g}' for step, value in points)])
        axes.plot(*zip(*points, strict=True), DASHES[i // SERIES % 3], color=_colour(i),
                  marker='o', markersize=4, gid=f'note:{note}')
    axes.set_xlim(left=0)
    axes.set_xlabel('training step')
    return _svg(axes)


def tradeoff(dots: Sequence[Mapping[str, Any]], front: Sequence[tuple[float, float]], cost: str,
             quality: str) -> str:
  """An SVG of quality against cost, logarithmic where all values are positive; '' without dots.

  dots: 'label', 'note', 'series', 'role', 'at' (cost and mean value) and 'values', one for each
  seed: a line goes from the lowest to the highest. front: those of 'at' that stairs join, cheapest
  first. cost, quality: labels of the axes.
  """
  if not dots:
    return ''
  with _axes(5.2, 3.6) as axes:
    _scale(axes.xaxis, axes.set_xscale, [dot['at'][0] for dot in dots])
    _scale(axes.yaxis, axes.set_yscale, [value for dot in dots for value in dot['values']])
    for dot in dots:
      colour = _colour(dot['series'])
      axes.vlines(dot['at'][0], min(dot['values']), max(dot['values']), colour, alpha=.5)
      axes.plot(*dot['at'], 'o', color=colour, gid=f'note:{dot["note"]}',
                fillstyle='none' if dot['role'] == 'teacher' else 'full')
      axes.annotate(dot['label'], dot['at'], (5, 4), textcoords='offset points')
    axes.margins(x=.08)
    stairs = [*front, (axes.get_xlim()[1], front[-1][1])]
    axes.plot(*zip(*stairs, strict=True), color=TEXT, alpha=.5, drawstyle='steps-post', zorder=1,
              scalex=False)
    axes.set(xlabel=cost, ylabel=quality)
    return _svg(axes)


def tradeoffs(dots: Sequence[dict[str, Any]], metric: str, label: str = '') -> dict[str, str]:
  """{cost: an SVG of a measure against it, with the Pareto front}, of the costs in `TRADED`.

  dots: as of `tradeoff`, and 'costs', the 'mean' of the measure, and 'best', a list to which the
  costs are added in which no other dot beats it. metric: of `config.SELECT`. label: of the measure.
  """
  charts = {}
  for cost, axis in TRADED.items():
    known = [{**dot, 'at': (dot['costs'][cost], dot['mean'])}
             for dot in dots if cost in dot['costs']]
    unbeaten = front([dot['at'] for dot in known], metric)
    for dot in known:
      dot['best'] += [cost] * (dot['at'] in unbeaten)
    charts[cost] = tradeoff(known, unbeaten, axis, label or metric.upper())
  return charts


def front(points: Sequence[tuple[float, float]], metric: str) -> list[tuple[float, float]]:
  """The (cost, value) that no other beats in both, cheapest first."""
  sign = 1 if SELECT[metric] == 'min' else -1
  best, unbeaten = math.inf, []
  for cost, value in sorted(points, key=lambda point: (point[0], sign * point[1])):
    if sign * value < best:
      best = sign * value
      unbeaten.append((cost, value))
  return unbeaten


def si(number: float, digits: int = 3) -> str:
  """With the letter for thousands, millions, 10^9 or 10^12: '1.22 M'."""
  for factor, letter in ((1e12, ' T'), (1e9, ' G'), (1e6, ' M'), (1e3, ' k')):
    if abs(number) >= factor * (1 - .5 * 10 ** -digits):  # what is rounded up to the next letter
      return f'{number / factor:.{digits}g}{letter}'
  return f'{number:.{digits}g}'


@contextlib.contextmanager
def _axes(width: float, height: float) -> Iterator[Any]:
  """Axes of a figure of so many inches, in our style, whatever that of the user is.

  Matplotlib takes half a second to import, and so waits for the first chart. It would complain
  about a home where it cannot keep its list of fonts, and would say that it makes the list.
  """
  logger = logging.getLogger('matplotlib')
  level = logger.level
  logger.setLevel(logging.ERROR)
  try:
    import matplotlib
    from matplotlib.figure import Figure
    with matplotlib.rc_context():
      matplotlib.rcdefaults()
      matplotlib.rcParams.update(STYLE)
      yield Figure((width, height), layout='constrained').add_subplot()
  finally:
    logger.setLevel(level)


def _colour(series: int) -> str:
  return f'#00ff0{series % SERIES}'


def _scale(axis, set_scale: Callable[[str], None], values: Sequence[float]):
  """A logarithmic axis with round numbers on it; a linear one where a value has no logarithm."""
  from matplotlib import ticker
  if min(values) > 0:
    set_scale('log')
    many = max(values) > 300 * min(values)
    axis.set_major_locator(ticker.LogLocator(subs=(1,) if many else (1, 2, 5)))
    axis.set_minor_locator(ticker.NullLocator())
  axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: si(value, 4)))


def _svg(axes) -> str:
  """The plot, without Matplotlib's head (a style and addresses that a page has no use for)."""
  buffer = io.StringIO()
  axes.figure.savefig(buffer, format='svg', metadata={'Date': None})
  head, body = buffer.getvalue().split('<g id="figure_1">')
  size = head.split('viewBox="')[1].split('"')[0]
  for pattern, text in ((r'<g id="note:([^"]*)">', r'<g><title>\1</title>'),  # shown on hovering
                        (r'<g id="[^"]*">', '<g>'), ('font-family: [^;]*; ', ''),
                        (r'#00ff0(\d)', r'var(--c\1)')):
    body = re.sub(pattern, text, body)
  return f'<svg role="img" viewBox="{size}"><g>{body}'
