"""Ctrl-C and SIGTERM ask a run to stop; they do not kill it."""

from __future__ import annotations

import signal
import threading

import jax
from jax.experimental import multihost_utils

AGAIN = 75  # exit code: saved, start me again
EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: AGAIN}


class StopSignal:
  """A context that catches SIGINT and SIGTERM once; a second signal has its usual effect.

  `ask()` before every step, `should_stop()` at any time, `exit_code` what to exit with. Of several
  processes, one that is told to stop stops all at one step, which JAX's runtime finds. Outside the
  main thread (some notebooks) signals cannot be caught and nothing changes.
  """

  def __init__(self):
    self.caught: signal.Signals | None = None
    self._before = {}
    self._several = jax.process_count() > 1
    self._asked = 0

  def ask(self) -> bool:
    """Whether to stop before the next step. Of several processes each asks as often."""
    if self._several and self.caught is None:
      self._asked += 1  # not the step, which a run that goes on or another stage would repeat
      if multihost_utils.reached_preemption_sync_point(self._asked):
        self.caught = signal.SIGTERM
    return self.should_stop()

  def should_stop(self) -> bool:
    """Whether to stop as soon as the state is saved."""
    return self.caught is not None

  @property
  def exit_code(self) -> int:
    return EXIT_CODES[self.caught] if self.caught else 0

  def __enter__(self):
    # Of several processes JAX's runtime listens, and spreads what it hears.
    if threading.current_thread() is threading.main_thread() and not self._several:
      self._before = {number: signal.signal(number, self._catch) for number in EXIT_CODES}
    return self

  def __exit__(self, *_):
    self._restore()

  def _catch(self, number, _):
    self.caught = signal.Signals(number)
    self._restore()

  def _restore(self):
    for number, handler in self._before.items():
      signal.signal(number, handler)
    self._before = {}
