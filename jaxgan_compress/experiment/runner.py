"""A whole run: every stage of a config trained, measured and reported in one work directory.

    workdir/config.json            what was asked for; another config is refused
    workdir/environment.jsonl      versions, device and git revision, a line for each start
    workdir/<stage>/checkpoints/   the newest two states and the best
    workdir/<stage>/log.jsonl      losses and speed; evaluations.jsonl: measures; events/: both
    workdir/results.json           the table; report.html: the same to look at
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxgan_compress import config as configs
from jaxgan_compress import distributed
from jaxgan_compress.config import build
from jaxgan_compress.core import paths
from jaxgan_compress.core.arguments import typed
from jaxgan_compress.experiment import dry_run, lock, results
from jaxgan_compress.experiment.training import train_stage
from jaxgan_compress.experiment.workdir import Run
from jaxgan_compress.train.progress import Reporter


@typed
def run(config: ConfigDict, workdir: str | Path, *, quiet: bool = False, extend: bool = False
        ) -> dict[str, Any]:
  """Trains every stage of the config, measures it and writes `report.html`; returns the results.

  Called again with the same arguments it continues where it was, and what is finished stays: of a
  run that is finished and reported, it returns the results.
  workdir: a folder, or 'gs://bucket/run', see `distributed.folder`.
  extend: the config may ask for more steps of a stage than the run in the folder did. The stage
  continues from its last state to what it would be if it had been asked for as many at first, bit
  for bit; whatever could not be so is refused: other changes, and a stage from which another
  learned.

  Raises ValueError for a config that cannot be built, FileExistsError for a work directory of
  another config, `train.TermError` for a loss that is no longer finite, `train.CheckpointError`
  for a disk that fails, and Interrupted after Ctrl-C, SIGTERM or SIGHUP.
  """
  config = configs.copied(config)
  build.validate(config)
  distributed.expect(config.devices)
  check_batches(config)
  if config.cache:
    compilation_cache()
  workdir = distributed.folder(workdir)
  this = Run(config, workdir, Reporter(quiet or not distributed.is_main()))
  dry_run.check(this)
  with lock.claimed(workdir, config, this.reporter.say, extend), distributed.StopSignal() as stop:
    was_finished = all(stage.is_done for stage in this.stages.values())
    for stage in this.stages.values():
      train_stage(stage, stop)
      # Programs of a stage that is over: twenty stages' would fill memory, and Linux grants a
      # process a limited number of mappings.
      jax.clear_caches()
    if distributed.from_main(was_finished and _is_reported(this)):
      this.reporter.say(f'{workdir} is finished and reported; `jaxgan-compress report` measures it '
                        'again')
      return _stored(this)
    table = results.tabulate(this)

    def write():
      results.write_report(this, table)
      paths.write_atomically(workdir / 'results.json', json.dumps(table, indent=1))

    distributed.by_main(write, 'the report')
  return table


def _is_reported(this: Run) -> bool:
  """Whether the work directory has a report, and results of as many steps as the config has."""
  files = [this.workdir / name for name in ('results.json', 'report.html')]
  return all(file.exists() for file in files) and _stored(this).get('steps') == results.steps(this)


def _stored(this: Run) -> dict[str, Any]:
  return json.loads((this.workdir / 'results.json').read_text())


def check_batches(config: ConfigDict):
  """Raises ValueError unless devices divide the replicas, and replicas the batch of each stage."""
  devices = jax.device_count()
  replicas = config.replicas or devices
  if replicas % devices:
    raise ValueError(f'replicas={replicas} does not divide over {devices} devices; use a multiple')
  for name in config.run:
    batch = config.stages[name].batch or config.batch
    if batch % replicas:
      raise ValueError(f'stage {name!r}: batch {batch} does not divide over {replicas} replicas; '
                       f'use {-(-batch // replicas) * replicas}')


def compilation_cache():
  """Keeps compiled programs of this user between runs, apart for each kind of processor (a
  program compiled for another CPU would be rejected or worse)."""
  home = Path(os.environ.get('XDG_CACHE_HOME', Path.home() / '.cache'))
  cpu = platform.processor() or platform.machine()
  with contextlib.suppress(OSError):
    cpu += next((line for line in Path('/proc/cpuinfo').read_text().splitlines()
                 if line.startswith('flags')), '')
  mark = hashlib.sha256(cpu.encode()).hexdigest()[:12]
  jax.config.update('jax_compilation_cache_dir', str(home / 'jaxgan_compress' / mark))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)
