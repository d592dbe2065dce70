"""Ctrl-C, SIGTERM and a terminal that closes (SIGHUP) ask a run to stop; they do not kill it."""

from __future__ import annotations

import os
import signal
import stat
import threading

import jax
from jax.experimental import multihost_utils

AGAIN = 75  # exit code: saved, start me again
EXIT_CODES = {signal.SIGINT: 130, signal.SIGHUP: 129, signal.SIGTERM: AGAIN}


class StopSignal:
  """A context that catches SIGINT and SIGTERM once, where a second has its usual effect, and
  SIGHUP, which kernel and shell may both send. Under `nohup`, which ignores it, it stays ignored.

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
    if threading.current_thread() is threading.main_thread():
      # Of several processes JAX's runtime listens to SIGTERM, and spreads what it hears.
      numbers = [signal.SIGHUP] if self._several else EXIT_CODES
      self._before = {number: signal.signal(number, self._catch) for number in numbers
                      if number != signal.SIGHUP
                      or signal.getsignal(number) is not signal.SIG_IGN}
    return self

  def __exit__(self, *_):
    self._restore(self._before)

  def _catch(self, number, _):
    if number == signal.SIGHUP:
      _leave_terminal()
    if self._several:
      os.kill(os.getpid(), signal.SIGTERM)
      return
    self.caught = self.caught or signal.Signals(number)
    self._restore(self._before.keys() - {signal.SIGHUP})

  def _restore(self, numbers):
    for number in list(numbers):
      signal.signal(number, self._before.pop(number))


def _leave_terminal(streams=(1, 2)):
  """What is written to a terminal that is gone, or to a pipe whose reader went with it, would end
  the run before it is saved."""
  for number in streams:
    if not stat.S_ISREG(os.fstat(number).st_mode):
      nowhere = os.open(os.devnull, os.O_WRONLY)
      os.dup2(nowhere, number)
      os.close(nowhere)
