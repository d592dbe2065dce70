"""Distances between folders of images, or the statistics of folders."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from jaxgan_compress import data
from jaxgan_compress.core import xla
from jaxgan_compress.metrics import formulas
from jaxgan_compress.metrics.evaluator import Measure, set_distances
from jaxgan_compress.metrics.extractors import Extractor
from jaxgan_compress.metrics.moments import Moments


def folder_features(path: str | Path, extractor: Extractor, *, batch: int | None = None,
                    progress: Callable[[Iterable, int], Iterable] = lambda items, total: items
                    ) -> np.ndarray:
  """Features [N,D] of every image in a folder, in the order of their names, at their own sizes.

  batch: images at once (default: 2 megapixels). progress: wraps the loop over batches.
  Raises ImageError naming files that are no images, and FileNotFoundError for a folder without any.
  """
  source = data.folder(path, preprocess='none', flip=False, same_size=False)
  extract = xla.jit(lambda v, images: extractor.apply(v, images)['features'])
  by_size = {}
  for i, size in enumerate(source.sizes):
    by_size.setdefault(size, []).append(i)
  batches = []
  for (height, width), rows in by_size.items():
    size = min(batch or max(1, 2 ** 21 // (height * width)), len(rows))
    batches += [(rows[i:i + size], size) for i in range(0, len(rows), size)]
  features = {}
  for rows, size in progress(batches, len(batches)):
    images = data.stack(source, rows)['image']
    # The last batch is filled up, so that each size is compiled once.
    images = np.pad(images, ((0, size - len(rows)), (0, 0), (0, 0), (0, 0)), mode='edge')
    features |= dict(zip(rows, np.asarray(extract(extractor.variables, images)), strict=False))
  if source.lost:
    raise data.ImageError(f'{source.lost} files of {path} vanished while they were read; run again')
  return np.stack([features[i] for i in range(len(source))])


def compare_folders(a: str | Path, b: str | Path, extractor: Extractor, *, intervals: int = 0,
                    **options) -> dict[str, Measure]:
  """Distances between two folders, `{'fid', 'kid', 'precision', 'recall'}` or a stand-in's.

  Either may be an `.npz` file of statistics, of pytorch-fid or of `Moments.save`; then there is the
  Frechet distance alone. Precision and recall take b as real. intervals: halvings for the 95 %
  interval of the first two. options: of `folder_features`.

  The grey levels of the files are used, as by pytorch-fid; CAT and OMGD truncate those of real
  images once more, which `Evaluator` does. Raises ValueError for statistics of another protocol, or
  too few images.
  """
  # The statistics first: they may be refused before any time is spent.
  moments = {path: _statistics(path, extractor) for path in (a, b) if Path(path).suffix == '.npz'}
  features = {path: folder_features(path, extractor, **options)
              for path in dict.fromkeys((a, b)) if path not in moments}
  for path, rows in features.items():
    if len(rows) < 2:
      raise ValueError(f'{path} holds one image; a distance between sets takes at least two')
  foreign = [str(path) for path, x in moments.items() if x.protocol is None]
  protocol = {
      'a': str(a), 'b': str(b),
      'counts': [moments[path].count if path in moments else len(features[path])
                 for path in (a, b)],
      **(extractor.protocol if {str(a), str(b)} - {*foreign} else {}),
      **({'measured_elsewhere': foreign} if foreign else {}), 'levels': 'of the files'}

  def measure(statistic, *arrays, **more):
    return Measure.of(statistic, *arrays, protocol={**protocol, **more}, intervals=intervals)

  if not moments:
    return set_distances(features[a], features[b], extractor.distances, measure)

  def frechet(*arrays):
    rows = iter(arrays)
    return formulas.frechet_distance(*(moments[path] if path in moments else next(rows)
                                       for path in (a, b)))

  return {extractor.distances[0]: measure(frechet, *features.values())}


def _statistics(path, extractor):
  moments = Moments.load(path)
  if moments.protocol is not None and dict(moments.protocol) != dict(extractor.protocol):
    raise ValueError(f'{path} was measured as {dict(moments.protocol)}, and this is '
                     f'{dict(extractor.protocol)}; such numbers do not compare')
  return moments
