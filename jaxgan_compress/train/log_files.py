"""The logs of a run: JSON lines and TensorBoard events, in one folder for each stage."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tensorboardX import SummaryWriter

from jaxgan_compress.core import flatten_logs, paths

PACKAGES = ('jaxgan-compress', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain',
            'numpy', 'scipy')


class Recorder:
  """Writes one stage's `log.jsonl` and `evaluations.jsonl` and its TensorBoard events.

  Method names are those of `clu.metric_writers`. directory: the stage's folder. start: the step
  that the run goes on from; lines of later steps, written by a run that was killed before its
  next checkpoint, are dropped, since they are about to be written again.
  """

  def __init__(self, directory: str | Path, start: int = 0):
    self.directory, self._writes = paths.expand(directory), jax.process_index() == 0
    if self._writes:
      self.directory.mkdir(parents=True, exist_ok=True)
      of_roles = (path.name for path in self.directory.glob('evaluations_*.jsonl'))
      for name in ('log.jsonl', 'evaluations.jsonl', *of_roles):
        kept = [line for line in read_lines(self.directory / name) if line['step'] <= start]
        paths.write_atomically(self.directory / name,
                               ''.join(json.dumps(line) + '\n' for line in kept))
    self._events = SummaryWriter(str(self.directory / 'events'), purge_step=start + 1,
                                 write_to_disk=self._writes)

  def write_scalars(self, step: int, logs: Mapping[str, Any]):
    """Numbers by name, or by network and term: `{'student': {'loss': 1.}}` is 'student/loss'."""
    scalars = flatten_logs(logs)
    self._append('log.jsonl', {'step': step, **scalars})
    for name, value in scalars.items():
      self._events.add_scalar(name, value, step)

  def write_measures(self, step: int, measures: Mapping[str, Any], role: str | None = None):
    """Measures with their protocols; those that are one number also become events.

    role: of another generator than the stage's own, whose lines go to `evaluations_<role>.jsonl`.
    """
    of = f'_{role}' if role else ''
    self._append(f'evaluations{of}.jsonl',
                 {'step': step, 'measures': {k: m.to_dict() for k, m in measures.items()}})
    for name, measure in measures.items():
      if isinstance(measure.value, int | float):
        self._events.add_scalar(f'evaluation{of}/{name}', measure.value, step)

  def write_images(self, step: int, images: Mapping[str, np.ndarray]):
    """uint8 [H,W,C] pictures by name."""
    for name, image in images.items():
      self._events.add_image(name, image, step, dataformats='HWC')

  def close(self):
    self._events.close()

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.close()

  def _append(self, name, line):
    if not self._writes:
      return
    with open(self.directory / name, 'a') as f:
      f.write(json.dumps(line) + '\n')


def peak_memory() -> int:
  """The most bytes that this process has held: on its first device, or on CPUs altogether."""
  stats = jax.local_devices()[0].memory_stats() or {}
  return stats.get('peak_bytes_in_use',
                   resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def read_lines(path: str | Path) -> list[dict[str, Any]]:
  """The objects of a JSON-lines file; [] if there is none. A half-written last line is dropped."""
  path, lines = Path(path), []
  for line in path.read_text().splitlines() if path.is_file() else ():
    try:
      lines.append(json.loads(line))
    except json.JSONDecodeError:
      break
  return lines


def read_logs(path: str | Path) -> list[dict[str, Any]]:
  """What `Recorder.write_scalars` was given, a dict for each line, without the steps."""
  logs = []
  for line in read_lines(path):
    logs.append({})
    for name, value in line.items():
      network, _, term = name.partition('/')
      if term:
        logs[-1].setdefault(network, {})[term] = value
      elif name != 'step':
        logs[-1][name] = value
  return logs


def environment() -> dict[str, Any]:
  """Versions, device, command and git revision (None outside a checkout)."""
  device = jax.devices()[0]
  return {
      'time': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
      'python': platform.python_version(),
      'packages': {name: _version(name) for name in PACKAGES},
      'device': {'platform': device.platform, 'kind': device.device_kind,
                 'count': jax.device_count(), 'processes': jax.process_count(),
                 # macOS cannot tell on which CPUs a process may run.
                 'cpus': len(os.sched_getaffinity(0)) if sys.platform == 'linux'
                 else os.cpu_count()},
      'system': platform.platform(),
      'git': _revision(Path(__file__).parents[2]),
      'command': sys.argv,
  }


def _revision(folder):
  """The git revision of a checkout, marked if it has changes; None for any other folder."""

  def git(*command):
    return subprocess.run(['git', *command], cwd=folder, capture_output=True, text=True,
                          check=True).stdout.strip()

  try:
    if Path(git('rev-parse', '--show-toplevel')) != folder:
      return None  # an environment inside somebody else's checkout
    return git('describe', '--always', '--dirty', '--abbrev=40')
  except (OSError, subprocess.CalledProcessError):
    return None


def _version(name):
  try:
    return importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    return None
