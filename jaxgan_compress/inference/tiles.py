"""Pictures that do not fit in memory, tile by tile, with no seam.

Tiles overlap by the receptive field of the network, so that a pixel is what the whole picture
gives. What a norm takes from the whole picture, as an instance norm does its mean and variance, is
measured before and the same for every tile.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxgan_compress.core import BoundGenerator
from jaxgan_compress.core.xla import jit
from jaxgan_compress.data import picture_files
from jaxgan_compress.data.picture_folders import Takes
from jaxgan_compress.inference.memory import needed_bytes
from jaxgan_compress.inference.norm_statistics import Sums, apply_with, measure, merged
from jaxgan_compress.inference.overlap import Field
from jaxgan_compress.nn.layers import norms

STATISTICS = ('reduced', 'sampled', 'exact')
REDUCED = 1024    # pixels of the longer side of the copy that statistics are taken from
SAMPLES = 4       # tiles that statistics are sampled from, at least
SAMPLED_BYTES = 3 * 2**29  # that these tiles may take; more of them come nearer to the picture
GROUP = 8         # norms of each program that measures exact statistics by a part of the network


class Tile(NamedTuple):
  """Where a tile lies in the input: it reads from `start`, and `core` is what it is for."""
  start: tuple[int, int]
  core: tuple[int, int, int, int]  # top, left, bottom, right


def layout(height: int, width: int, tile: int, overlap: int, multiple: int) -> list[Tile]:
  """Tiles of one size, [tile,tile] or as small as the picture, whose cores cover it once."""
  overlap = -(-overlap // multiple) * multiple
  rows, columns = (_cores(side, tile, overlap, multiple) for side in (height, width))
  return [Tile((top, left), (a, c, b, d)) for top, a, b in rows for left, c, d in columns]


def _cores(side, tile, overlap, multiple) -> list[tuple[int, int, int]]:
  """[(start, begin of the core, end of the core)] along one side."""
  if side <= tile:
    return [(0, 0, side)]
  step = (tile - 2 * overlap) // multiple * multiple
  if step < multiple:
    raise ValueError(f'tile={tile} is too small: a pixel of this network depends on pixels '
                     f'{overlap} away; take at least {2 * overlap + 4 * multiple}')
  cores, begin = [], 0
  while begin < side:
    end = min(begin + step + (overlap if begin == 0 else 0), side)
    if side - end <= overlap:  # the last tile has no neighbour below
      end = side
    start = min(max(begin - overlap, 0), side - tile)
    cores.append((start, begin, end))
    begin = end
  return cores


@dataclasses.dataclass(frozen=True, eq=False)
class TiledGenerator:
  """A generator that makes an image tile by tile: `tiled(picture)`.

  tile: pixels of a side in the input; rounded down to what the network takes. statistics: where the
  norms take what they need of the whole picture from: a 'reduced' copy, tiles that are 'sampled'
  from it, or 'exact' of all tiles, in as many passes as it takes until they stay the same.
  """
  bound: BoundGenerator
  takes: Takes
  field: Field
  tile: int
  statistics: str = 'sampled'

  def __post_init__(self):
    if self.statistics not in STATISTICS:
      raise ValueError(f'norm_statistics={self.statistics!r}; one of {", ".join(STATISTICS)}')

  def __call__(self, picture: np.ndarray,
               progress: Callable[..., Iterable] = lambda items, total, what: items, *,
               floats: bool = False) -> np.ndarray:
    """A picture uint8 or uint16, or planes, [H,W,C] -> an image [h,w,c], uint16 for uint16, else
    uint8; floats: float32 in [-1, 1].

    Raises ValueError for tiles that are too small.
    """
    height, width = picture.shape[:2]
    side = max(self.tile // self.takes.multiple * self.takes.multiple, self.takes.multiple)
    tiles = layout(height, width, side, self.field.overlap, self.takes.multiple)
    shape = min(side, height), min(side, width)
    statistics = self._statistics(picture, tiles, shape, progress) if self.field.statistics else ()
    scale = self.takes.scale
    deep = picture.dtype == np.uint16
    out = np.empty((round(height * scale), round(width * scale), self.takes.outputs),
                   np.float32 if floats else np.uint16 if deep else np.uint8)
    for tile in progress(tiles, len(tiles), 'tiles'):
      image, _ = self._run(_cut(picture, tile, shape), statistics, tile, picture.shape[:2])
      top, left, bottom, right = (round(x * scale) for x in tile.core)
      y, x = (round(each * scale) for each in tile.start)
      inside = np.asarray(image[0, top - y:bottom - y, left - x:right - x])
      out[top:bottom, left:right] = inside if floats else picture_files.to_pixels(inside, deep)
    return out

  def _statistics(self, picture, tiles, shape, progress) -> list[Sums]:
    """Of every norm, as the first passes measure them."""
    if self.statistics == 'reduced':
      return self._measure(_reduced(picture, self.takes)[None])
    count = max(SAMPLES, SAMPLED_BYTES // needed_bytes(self.bound.module, self.takes, shape))
    statistics = self._measure(_samples(picture, shape, count, self.takes.multiple))
    if self.statistics == 'sampled':
      return statistics
    for i in range(len(statistics)):  # each needs those before it to be exact
      statistics[i] = self._pass(picture, tiles, shape, statistics, i, progress)
    return statistics

  def _pass(self, picture, tiles, shape, statistics, i, progress) -> Sums:
    """The statistics of norm i over all tiles, where the norms before it use those given."""
    upto = min(len(statistics), (i // GROUP + 1) * GROUP)
    total = Sums(*np.zeros(3))
    for tile in progress(tiles, len(tiles), f'statistics {i + 1} of {len(statistics)}'):
      _, sums = self._run(_cut(picture, tile, shape), statistics, tile, picture.shape[:2], upto)
      total = merged(total, Sums(*(np.asarray(x, np.float64) for x in sums[i])))
    return Sums(*(np.asarray(x, np.float32) for x in total))

  def _run(self, x, statistics, tile, size, upto=None):
    """(the image of a tile, None); with `upto`, (None, the sums of so many norms over its core)."""
    return self._compiled[0](self.bound, x, tuple(statistics), *map(np.array, (*tile, size)),
                             upto=upto)

  def _measure(self, x) -> list[Sums]:
    """The statistics of every norm over all samples of a batch together."""
    return jax.device_get(self._compiled[1](self.bound, x))

  @functools.cached_property
  def _compiled(self):
    return jit(_tile, static_argnames='upto'), jit(measure)


def _cut(picture, tile, shape):
  top, left = tile.start
  return picture[None, top:top + shape[0], left:left + shape[1]]


def _samples(picture, shape, count, multiple) -> np.ndarray:
  """About so many tiles, spread evenly over a picture: [count,*shape,C]."""
  height, width = picture.shape[:2]
  rows = min(max(1, round((count * height / width) ** .5)), -(-height // shape[0]))
  columns = min(max(1, count // rows), -(-width // shape[1]))
  starts = [np.linspace(0, whole - side, n + 2 if n < 2 else n).astype(int)[n < 2:][:n]
            // multiple * multiple
            for n, whole, side in ((rows, height, shape[0]), (columns, width, shape[1]))]
  return np.stack([picture[y:y + shape[0], x:x + shape[1]] for y in starts[0] for x in starts[1]])


def _reduced(picture, takes):
  """A smaller copy of a picture, of a size that the network takes."""
  share = min(1, REDUCED / max(picture.shape[:2]))
  height, width = (max(round(side * share / takes.multiple), 1) * takes.multiple
                   for side in picture.shape[:2])
  height, width = takes.fit(height, width)
  if picture.dtype.kind == 'f':
    rows, columns = (((np.arange(new) + .5) * old / new).astype(int)
                     for new, old in zip((height, width), picture.shape[:2], strict=True))
    return picture[rows][:, columns]
  if picture.shape[-1] == 3 and picture.dtype == np.uint8:
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BOX))
  return picture_files.resize(picture, height, width)


def _tile(bound, x, statistics, start, core, size, upto):
  """What `TiledGenerator._run` returns; norms use the statistics given."""
  found, given = [], iter(statistics)

  def norm(y):
    found.append(_sums(y, x.shape[1:3], start, core, size))
    return next(given)

  image = apply_with(bound, x, norm)
  return (image, None) if upto is None else (None, found[:upto])  # the rest is never computed


def _sums(y, tile, start, core, size) -> Sums:
  """The sums of a map [1,h,w,C] over the part of a tile that is its core."""
  inside = [_inside(n, side, start[i], core[i], core[i + 2], size[i])
            for i, (n, side) in enumerate(zip(y.shape[1:3], tile, strict=True))]
  weight = (inside[0][:, None] * inside[1][None])[None, :, :, None]
  count = weight.sum()
  mean = (y * weight).sum((0, 1, 2)) / jnp.maximum(count, 1)
  return Sums(count, mean, (jnp.square(y - norms.per_channel(mean)) * weight).sum((0, 1, 2)))


def _inside(n, side, start, begin, end, whole):
  """1 for rows of a map of n rows, over a tile of `side` rows, that belong to its core, else 0.

  A map may have more rows than the tile has on its scale, where it is padded; at the border of the
  picture they belong to the core.
  """
  step = 2. ** round(math.log2(side / n))
  row = (jnp.arange(n) - (n - side / step) / 2) * step + start
  return (((row >= begin) | (begin == 0)) & ((row < end) | (end == whole))).astype(jnp.float32)
