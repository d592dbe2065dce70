"""Batches addressed by step: the batch of step s depends on the seed and s, and on nothing else."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain
import jax
import numpy as np

from jaxgan_compress.data.sources import Source, as_source


class Pipeline:
  """An endless, shuffled, repeatable sequence of batches: `pipeline[step]` or `batches(start)`.

  The step is the whole position, so a run resumes by asking for its next step; threads, worker
  processes and the number of hosts change the speed and not the batches.

  source: a `Source`, or a sequence of `{'target': uint8 or uint16 [H,W,C], ...}`, one dict
    an image.
  batch: images a step over all hosts. seed: of the order, of `source.augmented` and of
    `augment(element, rng)`, which may change an element after that.
  workers: processes that prepare batches; 0 works in threads of this one.
  host, hosts: which share of each batch this process loads (default: the numbers of JAX).

  Raises ValueError for an empty source or a batch that the hosts do not divide.
  """

  def __init__(self, source: Source | Sequence, *, batch: int, seed: int = 0,
               augment: Callable | None = None, workers: int = 0,
               host: int | None = None, hosts: int | None = None):
    host = jax.process_index() if host is None else host
    hosts = jax.process_count() if hosts is None else hosts
    if not len(source):
      raise ValueError(f'{source!r} holds no image; check the data set and its split')
    if batch < 1 or batch % hosts:
      raise ValueError(f'batch {batch} does not divide over {hosts} hosts; use a multiple')
    self.source, self.batch, self.workers = as_source(source), batch, workers
    self.prepare = self.source.prepare
    changes: list[Any] = [augment] if augment else []
    elements: Any = self.source
    if type(self.source).augmented is not Source.augmented:
      changes, elements = [self.source.augmented, *changes], range(len(source))
    dataset = grain.MapDataset.source(elements).seed(seed).shuffle().repeat()
    # Before the hosts' shares are taken: otherwise hosts would use the same random numbers.
    for change in changes:
      dataset = dataset.random_map(change)
    # A host's rows lie together in the batch, as those of a device do, whatever host it is on.
    self._dataset: Any = dataset.batch(batch // hosts, drop_remainder=True)[host::hosts]

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


def sizes_only(batch: int) -> Iterator[dict[str, np.ndarray]]:
  """Endless batches without images, which only have a size: for methods that need no data."""
  return itertools.repeat({'row': np.arange(batch, dtype=np.int32)})
