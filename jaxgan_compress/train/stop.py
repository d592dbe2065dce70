"""Ctrl-C and SIGTERM ask a run to stop; they do not kill it."""

from __future__ import annotations

import signal
import threading

# Exit codes are the interface to whatever started the run.
EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 75}  # 75: saved, start me again


class StopSignal:
  """A context that catches SIGINT and SIGTERM once; a second signal has its usual effect.

  `should_stop()` says whether one came, `exit_code` what to exit with. Outside the main thread
  (some notebooks) signals cannot be caught and nothing changes.
  """

  def __init__(self):
    self.caught: signal.Signals | None = None
    self._before = {}

  def should_stop(self) -> bool:
    return self.caught is not None

  @property
  def exit_code(self) -> int:
    return EXIT_CODES[self.caught] if self.caught else 0

  def __enter__(self):
    if threading.current_thread() is threading.main_thread():
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
