"""The loop that trains every method."""

from __future__ import annotations

import collections
import contextlib
import itertools
import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from jaxgan_compress import core
from jaxgan_compress.core import Method, TrainState, xla
from jaxgan_compress.data import Pipeline
from jaxgan_compress.parallel import parallelize

RUN_AHEAD = 8  # more would only hold more batches in device memory


class TermError(ArithmeticError):
  """A logged term of the step is NaN or infinite."""


def fit(method: Method, state: TrainState, data: Pipeline | Iterable, *, steps: int,
        every: int = 50, mesh: Mesh | None = None, via: str = 'pmap',
        replicas: int | None = None,
        stop: Callable[[], bool] = lambda: False,
        hook: Callable[[TrainState, int], TrainState | None] | None = None,
        compiled: Callable[[float], None] = lambda seconds: None, per_call: int = 1,
        copies: bool = True) -> Iterator[tuple[TrainState, dict[str, Any]]]:
  """Trains until `state.step` is `steps`; yields (state, logs) every `every` steps and at the end.

  A state that already stands at `steps` yields nothing. A `Pipeline` is entered at the state's
  step, so stopping and going on equals not stopping; any other iterable is read from its start,
  and ValueError is raised if it ends too early.

  The logs are device scalars of the step just taken, and its number under 'step': reading one
  waits for it, passing them on does not. The host runs ahead of the device by at most
  RUN_AHEAD steps. On CPUs the process keeps its memory from here on, see `core.xla.keep_memory`.

  Every state that is yielded stays whole, so after a `break` the caller holds one to go on from.
  Ctrl-C while this works on ends the step, yields once more, (newest state, its logs), and is
  raised when asked for the next; a second Ctrl-C has its usual effect at once.

  mesh, via, replicas: see `parallel.parallelize`. stop: asked before every step; True
  ends the loop after one last yield. hook: called with the state and its step after every step, and
  may return another state to go on with; looking at the state waits for the device, the step does
  not.
  compiled: called once, with the seconds that the first step took, most of which went to compiling.
  per_call: steps in one call of the compiled program, with as many batches sent at once: of small
  networks on a GPU or TPU the calls themselves take longest. CPUs run loops slowly.
  copies: False saves the memory of one state: the yielded one is donated to the step after it, so
  use it before asking for the next.

  Raises ValueError if per_call does not divide `steps`, `every` and the state's step, or with a
  hook, which looks after each step.
  """
  at = first = yielded = int(state.step)
  _check_per_call(per_call, hook, steps, every, at)
  if jax.default_backend() == 'cpu':
    xla.keep_memory()
  run = parallelize(_program(method, data, per_call), mesh, replicas=replicas, via=via)
  if at >= steps:
    return
  state = run.put(state)
  logs, in_flight = {}, collections.deque()
  with _batches(data, at) as batches:
    calls = _together(itertools.islice(batches, steps - at), per_call)
    try:
      for placed in _ahead(map(run.place, calls)):
        if stop():
          break
        began = time.monotonic()
        with _finished():
          state, logs = run.run(state, placed)
          at += per_call
        if at == first + per_call:
          jax.block_until_ready(logs)
          compiled(time.monotonic() - began)
        state = _changed(hook, run, state, at)
        in_flight.append(logs)
        if len(in_flight) > RUN_AHEAD:
          jax.block_until_ready(in_flight.popleft())
        if at % every == 0 or at == steps:
          yielded = at
          kept = _copied(state) if copies and at < steps else state
          yield kept, {'step': at, **logs}
      else:
        if at < steps:
          raise ValueError(f'the data ended at step {at} of {steps}; give an endless iterable')
    except KeyboardInterrupt:
      if yielded != at:
        yield state, {'step': at, **logs}
      raise
  if yielded != at:
    yield state, {'step': at, **logs}


def _check_per_call(per_call, hook, steps, every, at):
  if per_call > 1 and (hook or any(n % per_call for n in (steps, every, at))):
    raise ValueError(f'per_call={per_call} does not divide steps={steps}, every={every} and the '
                     f"state's step {at}, or there is a hook, which takes per_call=1")


def _program(method: Method, data: Pipeline | Iterable, per_call: int) -> Callable:
  """One step on a batch `[rows, ...]`, or several on `[rows, per_call, ...]`."""
  prepare = data.prepare if isinstance(data, Pipeline) else dict

  def step(state, batch, axes):
    return method.step(state, core.normalise(prepare(batch)), axes)

  def several(state, batch, axes):
    batches = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), batch)
    state, logs = lax.scan(lambda state, batch: step(state, batch, axes), state, batches)
    return state, jax.tree.map(lambda x: x[-1], logs)

  return step if per_call == 1 else several


@contextlib.contextmanager
def _batches(data: Pipeline | Iterable, at: int) -> Iterator[Iterator]:
  """A pipeline's batches from step `at` on, whose workers end with the context, or all of data."""
  own = isinstance(data, Pipeline)
  batches: Any = data.batches(at) if own else iter(data)
  with contextlib.closing(batches) if own else contextlib.nullcontext():
    yield batches


def _changed(hook, run, state, at):
  other = hook and hook(state, at)
  return run.put(other) if other else state


def _copied(state):
  # Ready before and after: copies under way hold threads that, on CPUs, a step's devices wait for.
  return jax.block_until_ready(jax.tree.map(lambda x: x.copy(), jax.block_until_ready(state)))


@contextlib.contextmanager
def _finished():
  """Delays Ctrl-C to its end: a step has donated its state and has not yet returned the next.
  Where other code handles Ctrl-C, and outside the main thread, nothing changes."""
  if threading.current_thread() is not threading.main_thread() or \
      signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
    yield
    return
  caught = []

  def note(*_):
    caught.append(True)
    signal.signal(signal.SIGINT, signal.default_int_handler)

  signal.signal(signal.SIGINT, note)
  try:
    yield
  finally:
    signal.signal(signal.SIGINT, signal.default_int_handler)
  if caught:
    raise KeyboardInterrupt


def check_finite(logs: Mapping[str, float], step: int):
  """Raises TermError that names every term which is not finite."""
  bad = [f'{name} = {value}' for name, value in logs.items() if not math.isfinite(value)]
  if bad:
    raise TermError(f'step {step}: {", ".join(bad)}')


def _together(batches: Iterator, count: int) -> Iterator:
  """Batches whose leaves `[rows, ...]` become `[rows, count, ...]`; a short rest is left out."""
  if count == 1:
    yield from batches
    return
  while len(group := list(itertools.islice(batches, count))) == count:
    yield jax.tree.map(lambda *leaves: np.stack(leaves, 1), *group)


def _ahead(placed: Iterator, size: int = 2) -> Iterator:
  """Items in order, `size` of them already on their way to the device."""
  queue = collections.deque(itertools.islice(placed, size))
  while queue:
    yield queue.popleft()
    queue.extend(itertools.islice(placed, 1))
