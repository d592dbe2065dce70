"""A dozen icons of our own in the styles of `samples:emoji`, made by code: no download."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from jaxgan_compress.data.sources import Source

INK, PAPER = (33, 33, 33), (255, 255, 255)
FINER = 4  # times as many pixels as come out, for smooth borders
RED, ORANGE, YELLOW, GREEN, BLUE, VIOLET, BROWN, SAND, GREY = (
    (222, 56, 49), (255, 124, 35), (252, 213, 63), (60, 170, 80), (32, 140, 226), (140, 80, 200),
    (125, 75, 55), (235, 190, 130), (150, 155, 165))


def polygon(*numbers: float) -> np.ndarray:
  """Corners [N,2] of x, y, x, y, ...; an icon fills x and y from 0 to 1, y downwards."""
  return np.array(numbers, float).reshape(-1, 2)


def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
  return polygon(left, top, right, top, right, bottom, left, bottom)


def disc(x: float, y: float, across: float, down: float | None = None) -> np.ndarray:
  """An ellipse around x, y with these radii."""
  angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
  return np.stack([x + across * np.cos(angles), y + (down or across) * np.sin(angles)], -1)


def star(x: float, y: float, outer: float, inner: float, points: int) -> np.ndarray:
  """A star around x, y; its first point is above."""
  angles = np.pi * np.arange(2 * points) / points - np.pi / 2
  radii = np.where(np.arange(2 * points) % 2, inner, outer)
  return np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], -1)


# {name: parts from behind to the front: (corners, colour, what it is in 'mono')}.
ICONS = {
    'sun': ((star(.5, .5, .45, .33, 12), ORANGE, INK), (disc(.5, .5, .26), YELLOW, PAPER)),
    'moon': ((disc(.45, .5, .4), YELLOW, INK), (disc(.62, .42, .32), PAPER, PAPER)),
    'star': ((star(.5, .54, .47, .21, 5), YELLOW, INK),
             (star(.5, .54, .25, .11, 5), ORANGE, PAPER)),
    'house': ((box(.2, .45, .8, .92), SAND, INK), (polygon(.5, .08, .95, .5, .05, .5), RED, INK),
              (box(.42, .62, .6, .92), BROWN, PAPER), (box(.25, .55, .37, .68), BLUE, PAPER)),
    'tree': ((box(.43, .6, .57, .95), BROWN, INK), (disc(.5, .35, .35, .3), GREEN, INK),
             (disc(.38, .33, .06), RED, PAPER), (disc(.6, .42, .06), RED, PAPER)),
    'fish': ((polygon(.6, .5, .95, .25, .95, .75), ORANGE, INK),
             (disc(.4, .5, .33, .22), BLUE, INK), (disc(.24, .45, .05), PAPER, PAPER)),
    'flower': ((box(.47, .5, .53, .95), GREEN, INK), (star(.5, .38, .36, .14, 6), VIOLET, INK),
               (disc(.5, .38, .11), YELLOW, PAPER)),
    'boat': ((polygon(.08, .65, .92, .65, .75, .88, .25, .88), BROWN, INK),
             (polygon(.5, .08, .5, .6, .15, .6), RED, INK),
             (polygon(.56, .2, .85, .6, .56, .6), SAND, PAPER)),
    'mushroom': ((box(.38, .5, .62, .92), SAND, INK), (disc(.5, .38, .42, .28), RED, INK),
                 (disc(.35, .35, .07), PAPER, PAPER), (disc(.63, .3, .08), PAPER, PAPER)),
    'cup': ((disc(.75, .5, .18), GREY, INK), (disc(.75, .5, .1), PAPER, PAPER),
            (polygon(.15, .2, .75, .2, .66, .88, .24, .88), BLUE, INK)),
    'face': ((disc(.5, .5, .43), YELLOW, INK), (disc(.35, .4, .06, .09), BROWN, PAPER),
             (disc(.65, .4, .06, .09), BROWN, PAPER), (disc(.5, .67, .2, .1), RED, PAPER)),
    'balloon': ((box(.485, .6, .515, .97), GREY, INK), (disc(.5, .35, .3, .32), VIOLET, INK),
                (disc(.39, .25, .06, .1), PAPER, PAPER))}
SPLITS = {'train': tuple(ICONS)[:8], 'validation': tuple(ICONS)[8:10],
          'test': tuple(ICONS)[10:]}


class Icons(Source):
  """Icons of a split, each time placed and coloured a little otherwise.

  styles: {name in an element: 'mono', 'flat' or 'shaded'}. An element is `{name: uint8
  [size,size,3]}` of one icon; element i is always the same.
  """

  def __init__(self, styles: dict[str, str], split: str, size: int, count: int, name: str):
    self.styles, self.names, self.size, self.count = styles, SPLITS[split], size, count
    self.name, self._seed = name, tuple(SPLITS).index(split)

  def augmented(self, i, rng):
    if rng is None or self._seed:  # only the training split has icons without end
      rng = np.random.default_rng([11, self._seed, i])
    parts = varied(ICONS[self.names[i % len(self.names)]], rng)
    return {name: paint(parts, style, self.size) for name, style in self.styles.items()}


def varied(parts, rng: np.random.Generator):
  """The parts turned, moved, made smaller and mirrored, and with other colours, at random."""
  turn, scale = rng.uniform(-.2, .2), rng.uniform(.7, .95) * np.array([rng.choice((-1, 1)), 1])
  rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
  middle = .5 + rng.uniform(-.04, .04, 2)
  place = lambda corners: (corners - .5) * scale @ rotation + middle
  colour = lambda rgb: rgb if rgb == PAPER else tuple(rng.normal(rgb, 10))
  return [(place(corners), colour(rgb), mono) for corners, rgb, mono in parts]


def paint(parts, style: str, size: int) -> np.ndarray:
  """uint8 [size,size,3], on white: 'mono' in black, 'flat' in plain colours, 'shaded' lit from
  above."""
  y = (np.mgrid[:size, :size][0][..., None] + .5) / size
  image = np.full((size, size, 3), 255.)
  for corners, rgb, mono in parts:
    mask = Image.new('L', (size * FINER, size * FINER))
    ImageDraw.Draw(mask).polygon([*map(tuple, corners * size * FINER)], fill=255)
    covered = np.asarray(mask.reduce(FINER), float)[..., None] / 255
    top, bottom = corners[:, 1].min(), corners[:, 1].max()
    light = 1.2 - .5 * (y - top) / (bottom - top) if style == 'shaded' and rgb != PAPER else 1.
    image += covered * (np.multiply(mono if style == 'mono' else rgb, light) - image)
  return image.clip(0, 255).round().astype(np.uint8)
