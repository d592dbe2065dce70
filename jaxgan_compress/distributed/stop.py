"""Signals that ask a run to stop: Ctrl-C, SIGTERM, and SIGHUP of a terminal that closes."""

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
  """A context that catches SIGINT and SIGTERM once (a second one has its usual effect), and SIGHUP
  always, since kernel and shell may both send it. `nohup` ignores SIGHUP, and so does this then.

  Call `ask()` before every step and `should_stop()` at any time; exit with `exit_code`. When one of
  several processes is asked to stop, all stop at one step, which JAX's runtime chooses. Outside
  the main thread (some notebooks) signals cannot be caught and nothing changes.
  """

  def __init__(self):
    self.caught: signal.Signals | None = None
    self._before = {}
    self._several = jax.process_count() > 1
    self._asked = 0

  def ask(self) -> bool:
    """Whether to stop before the next step. All processes must call it equally often."""
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
    """0 if no signal came."""
    return EXIT_CODES[self.caught] if self.caught else 0

  def __enter__(self):
    if threading.current_thread() is threading.main_thread():
      # Of several processes JAX's runtime listens to SIGTERM, and spreads what it hears.
      signums = [signal.SIGHUP] if self._several else EXIT_CODES
      self._before = {signum: signal.signal(signum, self._catch) for signum in signums
                      if signum != signal.SIGHUP
                      or signal.getsignal(signum) is not signal.SIG_IGN}
    return self

  def __exit__(self, *_):
    self._restore(self._before)

  def _catch(self, signum, _):
    if signum == signal.SIGHUP:
      _leave_terminal()
    if self._several:
      os.kill(os.getpid(), signal.SIGTERM)
      return
    self.caught = self.caught or signal.Signals(signum)
    self._restore(self._before.keys() - {signal.SIGHUP})

  def _restore(self, signums):
    for signum in list(signums):
      signal.signal(signum, self._before.pop(signum))


def _leave_terminal(streams=(1, 2)):
  """Sends output to nowhere: writing to a terminal that is gone, or to a pipe whose reader went
  with it, would end the run before it is saved."""
  for stream in streams:
    if not stat.S_ISREG(os.fstat(stream).st_mode):
      nowhere = os.open(os.devnull, os.O_WRONLY)
      os.dup2(nowhere, stream)
      os.close(nowhere)
