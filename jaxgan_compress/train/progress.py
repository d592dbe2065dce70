"""Reports of progress: a live bar on a terminal, plain lines in a file."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class Reporter:
  """Reports how a stage goes: stage, step, steps/s, images/s, losses, time left.

  On a terminal each stage has one live bar; otherwise a line is printed every `seconds`. quiet:
  nothing is printed.
  """

  def __init__(self, quiet: bool = False, seconds: float = 5.):
    self.console = Console(quiet=quiet, highlight=False, soft_wrap=True)
    self._seconds = seconds
    self._bar = None

  def say(self, text: str):
    self.console.print(text, markup=False)

  def begin(self, stage: str, step: int, steps: int, images: int):
    """Starts a stage that stands at `step` of `steps` and takes `images` each step."""
    self._stage, self._steps, self._images = stage, steps, images
    self._first = None  # the time and the step at which compiling had ended
    self._said = 0.
    if self.console.is_terminal:
      self._bar = Progress(
          TextColumn('{task.description}', justify='left'), BarColumn(bar_width=24),
          TextColumn('{task.completed:.0f}/{task.total:.0f}'), TextColumn('{task.fields[speed]}'),
          TextColumn('{task.fields[terms]}'), TimeRemainingColumn(compact=True),
          console=self.console)
      self._task = self._bar.add_task(stage, total=steps, completed=step, speed='compiling',
                                      terms='')
      self._bar.start()
    else:
      self.say(f'{stage}: from step {step} to {steps}, compiling')

  def compiled(self, step: int, seconds: float, memory: int):
    """Reports the seconds of the first step, compiling included, and the peak of bytes so far."""
    self._first = time.monotonic(), step
    self.say(f'{self._stage}: compiled in {seconds:.0f} s; peak memory {memory / 2**30:.1f} GiB')

  def update(self, step: int, logs: Mapping[str, Any]):
    """Reports that the stage has reached `step`."""
    now, rate = time.monotonic(), 0.
    if self._first and step > self._first[1]:
      rate = (step - self._first[1]) / max(now - self._first[0], 1e-9)
    # A network that rests logs 0.
    terms = ' '.join(f'{network} {entry["loss"]:.4g}' for network, entry in logs.items()
                     if isinstance(entry, Mapping) and entry.get('loss'))
    # Speed is that of the steps alone; the time left includes what comes between them.
    speed = logs.get('steps_per_second', rate)
    speed = f'{speed:.1f} steps/s {speed * self._images:.0f} images/s' if rate else ''
    if self._bar:
      self._bar.update(self._task, completed=step, speed=speed, terms=terms)
    elif now - self._said >= self._seconds or step == self._steps:
      self._said = now
      left = f', {(self._steps - step) / rate:.0f} s left' if rate and step < self._steps else ''
      self.say(f'{self._stage}: step {step}/{self._steps} {speed} {terms}{left}')

  def end(self):
    if self._bar:
      self._bar.stop()
      self._bar = None
