"""Batches addressed by step: what step s sees depends on the seed and s, and on nothing else."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterator, Sequence

import grain
import jax
import numpy as np


class Pipeline:
  """An endless, shuffled, repeatable sequence of batches: `pipeline[step]` or `batches(start)`.

  The step is the whole position, so a run resumes by asking for its next step; threads, worker
  processes and the number of hosts change the speed and not the batches.

  source: a sequence of `{'target': uint8 [H,W,C], ...}`, one dict an image. What it may have
    besides: `draw(i, rng)`, its i-th element as training sees it, else `source[i]` is taken; and
    `prepare(batch)`, jax, which finishes a batch inside the step.
  batch: images a step over all hosts. seed: of the order, of `draw` and of
    `augment(element, rng)`, which may change what came.
  workers: processes that prepare batches; 0 works in threads of this one.
  host, hosts: which share of each batch this process loads (default: JAX's own numbers).

  Raises ValueError for an empty source or a batch that the hosts do not divide.
  """

  def __init__(self, source: Sequence, *, batch: int, seed: int = 0,
               augment: Callable | None = None, workers: int = 0,
               host: int | None = None, hosts: int | None = None):
    host = jax.process_index() if host is None else host
    hosts = jax.process_count() if hosts is None else hosts
    if not len(source):
      raise ValueError(f'{source!r} holds no image; check the data set and its split')
    if batch < 1 or batch % hosts:
      raise ValueError(f'batch {batch} does not divide over {hosts} hosts; use a multiple')
    self.source, self.batch, self.workers = source, batch, workers
    self.prepare = getattr(source, 'prepare', _as_it_is)
    draw = getattr(source, 'draw', None)
    dataset = grain.MapDataset.range(len(source)) if draw else grain.MapDataset.source(source)
    dataset = dataset.seed(seed).shuffle().repeat()
    # Before the hosts' shares are cut: otherwise hosts would draw the same random numbers.
    for change in filter(None, (draw, augment)):
      dataset = dataset.random_map(change)
    # A host's rows lie together in the batch, as those of a device do, whatever host it is on.
    self._dataset = dataset.batch(batch // hosts, drop_remainder=True)[host::hosts]

  def __getitem__(self, step: int) -> dict[str, np.ndarray]:
    """The batch of one step."""
    return self._dataset[step]

  def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
    return self.batches()

  def batches(self, start: int = 0) -> Iterator[dict[str, np.ndarray]]:
    """The batches of steps `start`, `start + 1`, ... prepared ahead in the background."""
    dataset = self._dataset[start:].to_iter_dataset(
        grain.ReadOptions(num_threads=2, prefetch_buffer_size=4))
    if self.workers:
      from absl import flags  # grain's workers read absl's flags, which Colab never parses
      if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
      dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=self.workers))
    iterator = iter(dataset)
    try:
      yield from iterator
    finally:
      if self.workers:  # they leave shared memory behind unless closed and dropped now
        iterator.close()
        del iterator
        gc.collect()


def _as_it_is(batch):
  return batch


class sizes_only:  # noqa: N801 - used like a function
  """Endless batches that hold no image and only say how many: for methods that need no data."""

  def __init__(self, batch: int):
    self.batch = batch

  def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
    return itertools.repeat({'row': np.arange(self.batch, dtype=np.int32)})
