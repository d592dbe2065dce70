"""Whose a work directory is: one config's, and one process's at a time."""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
from ml_collections import ConfigDict

from jaxgan_compress import config as configs
from jaxgan_compress import distributed
from jaxgan_compress.config import build
from jaxgan_compress.core import paths
from jaxgan_compress.experiment.workdir import named_paths
from jaxgan_compress.train import log_files

# Keys that change how a run is watched and not what it computes.
HARMLESS = {'log_every', 'checkpoint.every', 'checkpoint.keep', 'workers', 'cache', 'via',
            'replicas', 'steps_per_call', 'devices'}


@contextlib.contextmanager
def claimed(workdir: Path, config: ConfigDict, say: Callable[[str], None] = print,
            extend: bool = False):
  """Makes the work directory this config's, and this process's alone (or this job's), while it is
  open.

  Raises FileExistsError for the directory of another config or of a process that is training in it,
  ValueError for an extension that would not be the same run, and FileNotFoundError for one of no
  run, or for a process that does not see what the first of its job writes.
  """
  if not distributed.is_main():
    if distributed.from_main(0) != _mark(workdir):
      raise FileNotFoundError(f'process {jax.process_index()} does not see what process 0 wrote to '
                              f'{workdir.absolute()}; --workdir is a folder that all hosts share')
    yield
    return
  extended = _extensions(workdir, config, say, extend)
  workdir.mkdir(parents=True, exist_ok=True)
  with open(workdir / '.lock', 'w') as lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise FileExistsError(f'another process is training in {workdir}; wait for it, or use '
                            'another --workdir') from None
    for name, (done, steps) in extended.items():
      say(f'{name}: extended from {done} to {steps} steps')
      _say_rates(config, name, done, say)
      (workdir / name / 'done.json').unlink(missing_ok=True)  # first: a stage is done or is not
    paths.write_atomically(workdir / 'config.json',
                           json.dumps(configs.to_json(config), indent=1, sort_keys=True))
    with open(workdir / 'environment.jsonl', 'a') as f:
      f.write(json.dumps(log_files.environment()) + '\n')
    distributed.from_main(_mark(workdir))
    yield


def _extensions(workdir, config, say, extend) -> dict[str, tuple[int, int]]:
  """{stage: (steps, more steps)}, after the config of the work directory has been compared."""
  stored, started = workdir / 'config.json', any(workdir.glob('*/checkpoints/*'))
  if extend and not started:
    raise FileNotFoundError(f'{workdir} holds no run to extend; leave out --extend')
  if not stored.is_file():
    if workdir.exists() and (not workdir.is_dir() or any(
        path.name != '.lock' for path in workdir.iterdir())):
      raise FileExistsError(f'{workdir} is not empty and holds no run; use another --workdir')
    return {}
  if not started:
    return {}
  before = configs.read(stored)
  differing = {key: pair for key, pair in
               configs.differences(configs.to_json(before), configs.to_json(config)).items()
               if key not in HARMLESS and not _is_moved(key, *pair, before, say)}
  if extend:
    return _longer(workdir, config, differing)
  if differing:
    listed = '; '.join(f'{key}: {a} there, {b} asked for'
                       for key, (a, b) in list(differing.items())[:4])
    raise FileExistsError(f'{workdir} holds a run of another config ({listed}); use another '
                          '--workdir, or the config that is there' + (
                           ', or --extend' if any(map(_steps_of, differing)) else ''))
  return {}


def _mark(workdir):
  """A number that tells whether a process sees what another has just written here."""
  path = workdir / 'environment.jsonl'
  return zlib.crc32(path.read_bytes()) >> 1 if path.is_file() else -1


def _is_moved(key, stored, asked, before, say):
  """Whether a key of two configs differs for a file or folder that has been moved."""
  if named_paths(before).get(key) != stored or asked == 'absent' or paths.expand(stored).exists():
    return False
  say(f'{key}: {stored} is not there any more, as seen from {Path.cwd()}; continues with {asked}')
  return True


def _steps_of(key):
  """The stage whose steps a dotted key is, or None."""
  match = re.fullmatch(r'stages\.(.+)\.steps', key)
  return match and match.group(1)


def _longer(workdir, config, differing):
  """{stage: (steps, more steps)}. Raises ValueError for what extending would not make as if it had
  been asked for at first."""
  if not_steps := [key for key in differing if not _steps_of(key)]:
    raise ValueError(f'--extend takes more steps and nothing else, and {", ".join(not_steps)} '
                     f'differ from the run in {workdir}, which would have been another from its '
                     'first step; use another --workdir')
  longer = {name: pair for key, pair in differing.items() if (name := _steps_of(key))}
  for name, (done, steps) in longer.items():
    if steps < done:
      raise ValueError(f'stages.{name}.steps={steps}: the run in {workdir} has {done}, and '
                       '--extend makes it longer')
    after = [later for later in config.run[config.run.index(name) + 1:]
             if any((workdir / later / 'checkpoints').glob('*'))] if name in config.run else []
    measures = name in (config.evaluate.classifier, config.evaluate.segmenter.get('stage'))
    stale = [later for later in after if measures or name in (
        *config.stages[later].teacher,
        *map(configs.stage_of, config.stages[later].init_from.values()))]
    if stale:
      raise ValueError(f'stages.{name}.steps={steps}: {", ".join(stale)} '
                       f'{"was measured by" if measures else "learned from"} {name} as it was '
                       f'after {done} steps; extend a stage that no later one needs, or use '
                       'another --workdir')
  return longer


def _say_rates(config, name, done, say):
  """Says of each learning rate that follows a schedule what it is from here on: a schedule made
  for fewer steps has come to its end."""

  def rates(section, where):
    for key, value in section.items():
      if key == 'learning_rate' and isinstance(value, Mapping):
        yield f'{where}.{key}', build.make(value, build.HOMES[key], f'{where}.{key}')
      elif isinstance(value, Mapping):
        yield from rates(value, f'{where}.{key}')

  stage = config.stages[name].to_dict()
  for where, rate in rates(stage['method'], f'stages.{name}.method'):
    now, end = float(rate(done)), float(rate(stage['steps']))
    change = 'learns nothing more' if not (now or end) else f'goes from {now:.3g} to {end:.3g}'
    say(f'{where}: {change}, by its schedule, which --extend leaves as it is')
