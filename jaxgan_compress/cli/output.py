"""What the verbs write: tables, progress and warnings on the terminal, and files."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.measure import Measurement
from rich.progress import track
from rich.table import Table

from jaxgan_compress.metrics import Measure


class _Plain(logging.Formatter):
  def format(self, record: logging.LogRecord) -> str:
    return f'{record.levelname.lower()}: {record.getMessage()}'


def plain_warnings():
  """Lets warnings be one line, `warning: ...`, and those of Orbax and grain be silent."""
  logging.getLogger('absl').setLevel(logging.ERROR)
  logging.basicConfig()
  for handler in logging.root.handlers:
    if type(handler) is logging.StreamHandler:  # of a terminal; a subclass is somebody's own
      handler.setFormatter(_Plain())


def format_measure(measure: Measure) -> str:
  """4.21, or 4.21 [3.9, 4.6] with its interval."""
  if measure.interval is None:
    return f'{measure.value:.4g}'
  low, high = measure.interval
  return f'{measure.value:.4g} [{low:.3g}, {high:.3g}]'


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]):
  """Prints a table, columns of numbers flush right."""
  table = Table(box=None, pad_edge=False)
  for i, column in enumerate(columns):
    table.add_column(column, justify='right' if rows and rows[0][i][:1].isdigit() else 'left',
                     no_wrap=True)
  for row in rows:
    table.add_row(*row)
  # As wide as the table, whatever the terminal: a number that is cut off is another number.
  console = Console(width=2 ** 16)
  console.width = max(1, Measurement.get(console, console.options, table).maximum)
  console.print(table)


def show_progress(items: Iterable, total: int, what: str) -> Iterable:
  """The items, with a bar while they last where standard error is a terminal."""
  console = Console(stderr=True)
  return track(items, what, total, console=console, transient=True,
               disable=not console.is_terminal)


def check_output(out: Path, suffixes: Collection[str], overwrite: bool):
  """Raises ValueError or FileExistsError, before time is spent, where a file cannot be written."""
  if out.suffix.lower() not in suffixes:
    raise ValueError(f'{out}: the name must end in {" or ".join(suffixes)}')
  if out.exists() and not overwrite:
    raise FileExistsError(f'{out} exists; give another name, or --overwrite')
  if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
    raise ValueError(f'{out}: the folder {out.parent} is not there or not writable')
