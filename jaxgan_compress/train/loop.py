"""The loop that trains every method."""

from __future__ import annotations

import collections.abc
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping

import jax
from jax.sharding import Mesh

from jaxgan_compress import core
from jaxgan_compress.core import Logs, Method, TrainState
from jaxgan_compress.data import Pipeline
from jaxgan_compress.parallel import parallelize, put_state


class TermError(ArithmeticError):
  """A logged term of the step is NaN or infinite."""


def fit(method: Method, state: TrainState, data: Pipeline | Iterable, *, steps: int,
        every: int = 50, mesh: Mesh | None = None, via: str = 'pmap',
        replicas: int | None = None, stop: Callable[[], bool] = lambda: False
        ) -> Iterator[tuple[TrainState, Logs]]:
  """Trains until `state.step` is `steps`; yields (state, logs) every `every` steps and at the end.

  A state that already stands at `steps` yields nothing. A `Pipeline` is entered at the state's
  step, so stopping and going on equals not stopping; any other iterable is read from its start.

  The logs are device scalars of the step just taken, and its number under 'step': reading one
  waits for it, passing them on does not. The loop waits only for logs one interval old, so the host runs ahead of the device by
  two intervals at most. A state that was yielded is donated to the step after it: use it before
  asking for the next, or copy it.

  mesh, via, replicas: see `parallel.parallelize`. stop: asked before every step; True ends the
  loop after one last yield.
  """

  def step(state, batch, axes):
    return method.step(state, core.normalise(batch), axes)

  run = parallelize(step, mesh, replicas=replicas, via=via)
  at = int(state.step)
  if at >= steps:
    return
  state = put_state(state, run.mesh)
  batches = data.batches(at) if isinstance(data, Pipeline) else iter(data)
  previous, logs, yielded = None, None, at
  with _closing(batches):
    for placed in _ahead(map(run.place, itertools.islice(batches, steps - at))):
      if stop():
        break
      state, logs = run.run(state, placed)
      at += 1
      if at % every == 0 or at == steps:
        yield state, {'step': at, **logs}
        jax.block_until_ready(previous)
        previous, yielded = logs, at
  if yielded != at:
    yield state, {'step': at, **logs}


def check_finite(logs: Mapping[str, float], step: int):
  """Raises TermError that names every term which is not finite."""
  bad = [f'{name} = {value}' for name, value in logs.items() if not math.isfinite(value)]
  if bad:
    raise TermError(f'step {step}: {", ".join(bad)}')


def _ahead(placed: Iterator, size: int = 2) -> Iterator:
  """Items in order, `size` of them already on their way to the device."""
  queue = collections.deque(itertools.islice(placed, size))
  while queue:
    yield queue.popleft()
    queue.extend(itertools.islice(placed, 1))


class _closing:
  """Closes a generator on leaving, and leaves other iterators alone."""

  def __init__(self, iterator):
    self.iterator = iterator

  def __enter__(self):
    return self.iterator

  def __exit__(self, *_):
    if isinstance(self.iterator, collections.abc.Generator):
      self.iterator.close()
