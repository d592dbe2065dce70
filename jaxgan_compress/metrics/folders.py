"""Distances between folders of images, or the statistics of folders."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from jaxgan_compress import data
from jaxgan_compress.core import xla
from jaxgan_compress.metrics import feature_distances, formulas
from jaxgan_compress.metrics.confidence import bootstrap
from jaxgan_compress.metrics.evaluator import Measure
from jaxgan_compress.metrics.extractors import Extractor
from jaxgan_compress.metrics.moments import Moments


def folder_features(path: str | Path, extractor: Extractor, *, batch: int | None = None,
                    progress: Callable[[Iterable, int], Iterable] = lambda items, total: items
                    ) -> np.ndarray:
  """Features [N,D] of every image in a folder, in the order of their names, at their own sizes.

  batch: images at once (default: 2 megapixels). progress: wraps the loop over batches.
  Raises ImageError naming files that are no images, and
  FileNotFoundError for a folder without any.
  """
  source = data.folder(path, preprocess='none', flip=False, same_size=False)
  look = xla.jit(lambda v, images: extractor.look(v, images)['features'])
  by_size = {}
  for i, (height, width) in enumerate(source.sizes):
    by_size.setdefault((height, width), []).append(i)
  parts = []
  for (height, width), rows in by_size.items():
    size = min(batch or max(1, 2 ** 21 // (height * width)), len(rows))
    parts += [(rows[i:i + size], size) for i in range(0, len(rows), size)]
  found = {}
  for rows, size in progress(parts, len(parts)):
    # The last one is filled up, so that each size is compiled once.
    images = np.stack([source[i]['image'] for i in rows] + [source[rows[0]]['image']]
                      * (size - len(rows)))
    features = np.asarray(look(extractor.variables, images))
    found |= dict(zip(rows, features, strict=False))
  if source.lost:
    raise data.ImageError(f'{source.lost} files of {path} vanished while they were read; run again')
  return np.stack([found[i] for i in range(len(source))])


def compare_folders(a: str | Path, b: str | Path, extractor: Extractor, *, intervals: int = 0,
                    **options) -> dict[str, Measure]:
  """Distances between two folders, `{'fid', 'kid', 'precision', 'recall'}` or a stand-in's.

  Either may be an `.npz` file of statistics, of pytorch-fid or of `Moments.save`; then there is the
  Frechet distance alone. Precision and recall take b as real. intervals: halvings for the 95 %
  interval of the first two. options: of `folder_features`.

  Files' own levels are used, as by pytorch-fid; CAT and OMGD truncate those of real images once
  more, which `Evaluator` does. Raises ValueError for statistics of another protocol, or too few
  images.
  """
  # Files first: they may be refused before any time is spent.
  kept = {path: _statistics(path, extractor) for path in (a, b) if Path(path).suffix == '.npz'}
  sides = [kept[path] if path in kept else folder_features(path, extractor, **options)
           for path in (a, b)]
  for path, side in zip((a, b), sides, strict=True):
    if isinstance(side, np.ndarray) and len(side) < 2:
      raise ValueError(f'{path} holds one image; a distance between sets takes at least two')
  counts = [side.count if isinstance(side, Moments) else len(side) for side in sides]
  foreign = [str(path) for path, moments in kept.items() if moments.protocol is None]
  known = any(str(path) not in foreign for path in (a, b))
  protocol = {'a': str(a), 'b': str(b), 'counts': counts, **(extractor.protocol if known else {}),
              **({'measured_elsewhere': foreign} if foreign else {}),
              'levels': 'of the files'}
  features = all(isinstance(side, np.ndarray) for side in sides)
  arrays = [side for side in sides if isinstance(side, np.ndarray)]

  def measure(statistic, spread=None, **more):
    interval = None
    if intervals and min(map(len, arrays), default=0) >= 4:
      interval = bootstrap(statistic, *arrays, samples=intervals, seed=0)
    return Measure(statistic(*arrays), {**protocol, **more}, spread, interval)

  def frechet(*found):
    found = iter(found)
    return formulas.frechet_distance(*(next(found) if isinstance(side, np.ndarray) else side
                                     for side in sides))

  names = extractor.distances
  result = {names[0]: measure(frechet)}
  if features:
    size = min(100, *(len(side) // 2 for side in sides))
    if size >= 2:
      kernel = functools.partial(feature_distances.kernel_distance, subset_size=size, seed=0)
      result[names[1]] = measure(lambda x, y: kernel(x, y)[0], kernel(*sides)[1], subsets=100,
                                 subset_size=size)
    if min(map(len, sides)) > 3:
      for name, value in zip(('precision', 'recall'),
                             feature_distances.precision_recall(sides[1], sides[0]), strict=True):
        result[name] = Measure(value, {**protocol, 'neighbours': 3})
  return result


def _statistics(path, extractor):
  moments = Moments.load(path)
  if moments.protocol is not None and dict(moments.protocol) != dict(extractor.protocol):
    raise ValueError(f'{path} was measured as {dict(moments.protocol)}, and this is '
                     f'{dict(extractor.protocol)}; such numbers do not compare')
  return moments
