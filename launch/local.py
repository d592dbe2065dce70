#!/usr/bin/env python3
"""Several processes on this host as one job, or independent runs of one config at the same time.

    python launch/local.py --processes 2 --cpu 1 -- train --config=kd/digits --workdir=runs/two
    python launch/local.py --processes 8 --gpus -- \\
        train --config=omgd/horse2zebra:path=DATA --workdir=runs/8
    python launch/local.py --sweep seed=0,1,2 --at-once 2 -- \\
        train --config=cat/colorize --workdir=runs/seeds
    python launch/local.py --sweep -- train --config=my_config.py --workdir=runs/sweep

What stands after `--` goes to `jaxgan-compress`. The exit code of a job decides what happens next:
all 0: done. 75 (saved, start me again): it starts again. 70, an abort or a kill: it starts again
from its last checkpoint, --retries times, a little later each time; who then runs for ten minutes
has all retries again. Any other code is a mistake that would come again: the job ends with it.
Ctrl-C, SIGTERM and a closed terminal (SIGHUP, but under nohup) are passed on as SIGTERM; the job
saves and ends, and the same command goes on from there.

A sweep runs WORKDIR/<settings> for every combination of values; alone, `--sweep` takes the
settings from `sweep()` of the config file, a list of dicts such as {'seed': 1, 'batch': 16}. Each
run is started and judged by itself.

Needs only Python; --sweep without values needs the package, to read the config.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

AGAIN, FAILED = 75, (70, 134, -signal.SIGABRT, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGSEGV,
                     -signal.SIGBUS)
GRACE = 30  # seconds for peers to end by themselves when one has ended
WELL = 600  # seconds after which what failed before is forgiven


def verdict(codes: list[int]) -> str:
  """'done', 'again', 'failed' (start again, but not forever) or 'stop', of one job's exit codes."""
  if any(code not in (0, AGAIN, *FAILED) for code in codes):
    return 'stop'
  if any(code in FAILED for code in codes):
    return 'failed'
  return 'again' if AGAIN in codes else 'done'


def free_port() -> int:
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    return s.getsockname()[1]


class Job:
  """The processes of one run, started together, ended together, started again."""

  def __init__(self, command: list[str], processes: int, logs: Path, *, retries: int,
               backoff: float, show: bool, environment=lambda i: {}):
    self.command, self.processes, self.logs, self.retries = command, processes, logs, retries
    self.backoff, self.show, self.environment = backoff, show, environment
    self.running: list[subprocess.Popen] = []
    self.told_to_stop = False

  def run(self) -> int:
    """Runs the job to its end; returns its exit code."""
    failures = 0
    while True:
      began = time.monotonic()
      codes = self._attempt()
      failures = 0 if time.monotonic() - began > WELL else failures
      found = verdict(codes)
      worst = next((code for code in codes if code not in (0, AGAIN)), max(codes))
      self._say(f'exit codes {", ".join(map(str, codes))}: {found}')
      if found in ('done', 'stop') or self.told_to_stop:
        return worst if worst >= 0 else 128 - worst
      if found == 'failed':
        failures += 1
        if failures > self.retries:
          self._say(f'failed {failures} times; see {self.logs}')
          return worst if worst >= 0 else 128 - worst
        time.sleep(min(60, self.backoff * 2 ** (failures - 1)))

  def stop(self):
    """Asks all processes to save and end."""
    self.told_to_stop = True
    for process in self.running:
      if process.poll() is None:
        process.send_signal(signal.SIGTERM)

  def _attempt(self):
    self.logs.mkdir(parents=True, exist_ok=True)
    port, readers = free_port(), []
    self.running = []
    for i in range(self.processes):
      log = (self.logs / f'process_{i}.log').open('ab')  # the process holds it
      log.write(f'# {datetime.datetime.now():%Y-%m-%d %H:%M:%S} {" ".join(self.command)}\n'
                .encode())
      log.flush()
      job = {} if self.processes == 1 else {
          'JAXGAN_COORDINATOR': f'127.0.0.1:{port}', 'JAXGAN_PROCESSES': str(self.processes),
          'JAXGAN_PROCESS': str(i)}
      both = self.show and i == 0
      process = subprocess.Popen(
          [*_with_me(), *self.command], env={**os.environ, **self.environment(i), **job},
          start_new_session=True, stdout=subprocess.PIPE if both else log, stderr=subprocess.STDOUT)
      if both:
        readers.append(threading.Thread(target=_tee, args=(process.stdout, log), daemon=True))
        readers[-1].start()
      self.running.append(process)
    codes = self._wait()
    for reader in readers:
      reader.join(timeout=5)
    return codes

  def _wait(self):
    """Exit codes once all have ended; what had to be killed counts as ended by its peers."""
    first = None
    while any(process.poll() is None for process in self.running):
      bad = [p for p in self.running if p.poll() not in (None, 0, AGAIN)]
      if bad and first is None:
        first = time.monotonic()
      if first is not None and time.monotonic() - first > GRACE:
        for process in self.running:
          if process.poll() is None:
            process.kill()
      time.sleep(0.1)
    return [process.returncode for process in self.running]

  def _say(self, text):
    print(f'{Path(__file__).name}: {self.logs}: {text}', file=sys.stderr, flush=True)


def _tee(pipe, log):
  for line in pipe:
    log.write(line)
    log.flush()
    sys.stdout.buffer.write(line)
    sys.stdout.flush()


def _with_me():
  """What starts a command on Linux so that it is told to stop if this launcher is killed."""
  return ['setpriv', '--pdeathsig', 'TERM'] if shutil.which('setpriv') else []


def settings_of(sweep: list[str], config: str) -> list[dict[str, str]]:
  """Every combination of `key=v1,v2`; of none, what `sweep()` of the config file lists."""
  if sweep != ['']:
    pairs = []
    for text in sweep:
      key, _, values = text.partition('=')
      if not re.fullmatch(r'[\w.]+', key) or not values:
        raise ValueError(f'--sweep {text!r}; as in --sweep seed=0,1,2')
      pairs.append([(key, value) for value in values.split(',')])
    return [dict(each) for each in itertools.product(*pairs)]
  import runpy

  from jaxgan_compress import config as configs
  path, _ = configs.locate(config)
  listed = runpy.run_path(str(path)).get('sweep')
  if listed is None:
    raise ValueError(f'{path} has no sweep(), which lists settings such as {{"seed": 1}}; add it, '
                     'or say --sweep seed=0,1,2')
  return [{key: str(value) for key, value in each.items()} for each in listed()]


def flag(command: list[str], name: str) -> str:
  """The value of --name in a command."""
  for i, text in enumerate(command):
    if text.startswith(f'--{name}='):
      return text.partition('=')[2]
    if text == f'--{name}' and i + 1 < len(command):
      return command[i + 1]
  raise ValueError(f'a sweep needs --{name} after `--`')


def without(command: list[str], name: str) -> list[str]:
  """A command without --name and its value."""
  if f'--{name}' in command:
    i = command.index(f'--{name}')
    return command[:i] + command[i + 2:]
  return [text for text in command if not text.startswith(f'--{name}=')]


def sweep_jobs(values, program, verb) -> list[Job]:
  workdir, jobs = flag(verb, 'workdir'), []
  for each in settings_of(values.sweep, flag(verb, 'config')):
    name = '_'.join(f'{key.rpartition(".")[2]}{value}' for key, value in each.items())
    name = re.sub(r'[^\w.+-]', '-', name)
    folder = f'{workdir}/{name}'
    command = [*program, *without(verb, 'workdir'), f'--workdir={folder}',
               *(f'--config.{key}={value}' for key, value in each.items())]
    jobs.append(Job(command, 1, values.logs / name, retries=values.retries,
                    backoff=values.backoff, show=False))
  if len({job.logs for job in jobs}) < len(jobs):
    raise ValueError('two runs of the sweep have the same settings; leave one out')
  return jobs


def run_sweep(jobs: list[Job], at_once: int, pin) -> int:
  """Runs the jobs, so many at once, each at a place of its own; returns the worst exit code."""
  places, codes, lock = list(range(at_once)), [], threading.Lock()
  waiting = iter(jobs)

  def worker(place):
    while True:
      with lock:
        job = next(waiting, None)
      if job is None or any(each.told_to_stop for each in jobs):
        return
      job.environment = lambda _: pin(place)
      codes.append(job.run())

  threads = [threading.Thread(target=worker, args=(place,)) for place in places]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  return next((code for code in codes if code not in (0, AGAIN)), max(codes, default=AGAIN))


def main(argv: list[str]) -> int:
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
      usage='local.py [options] -- train --config=... --workdir=...')
  parser.add_argument('--processes', type=int, default=1, help='of one job')
  parser.add_argument('--cpu', type=int, metavar='N', help='run on the CPU, N devices a process')
  parser.add_argument('--gpus', action='store_true', help='the i-th process takes the i-th GPU')
  parser.add_argument('--sweep', nargs='?', const='', action='append', metavar='KEY=V1,V2',
                      help='independent runs; alone: those of sweep() in the config file')
  parser.add_argument('--at-once', type=int, default=1, help='runs of a sweep at the same time')
  parser.add_argument('--retries', type=int, default=3, help='after failures')
  parser.add_argument('--backoff', type=float, default=1., help='seconds before the first of them')
  parser.add_argument('--logs', type=lambda path: Path(path).expanduser(), default=Path('logs'),
                      help='folder of process_<i>.log')
  parser.add_argument('--program', help='default: the jaxgan-compress of this Python')
  split = argv.index('--') if '--' in argv else len(argv)
  values, verb = parser.parse_args(argv[:split]), argv[split + 1:]
  if not verb:
    parser.error('nothing to run; give `-- train --config=... --workdir=...`')
  if values.processes < 1 or values.at_once < 1 or values.retries < 0:
    parser.error('--processes and --at-once are at least 1, --retries at least 0')
  if values.sweep and values.processes > 1:
    parser.error('--sweep starts single processes; leave out --processes')
  here = Path(sys.executable).with_name('jaxgan-compress')
  program = values.program.split() if values.program else [
      str(here) if here.exists() else shutil.which('jaxgan-compress')
      or parser.error('jaxgan-compress is not installed with this Python; give --program')]

  def place(i):
    found = {'CUDA_VISIBLE_DEVICES': str(i)} if values.gpus else {}
    if values.cpu:
      flags = re.sub(r'--xla_force_host_platform_device_count=\d+', '',
                     os.environ.get('XLA_FLAGS', ''))
      found |= {'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': str(values.cpu), 'XLA_FLAGS': flags}
    return found

  try:
    jobs = sweep_jobs(values, program, verb) if values.sweep else [
        Job([*program, *verb], values.processes, values.logs, retries=values.retries,
            backoff=values.backoff, show=True, environment=place)]
  except (ValueError, FileNotFoundError) as e:
    parser.error(str(e))

  caught = []

  def stop(number, _):
    caught.append(number)
    for stream in (1, 2) if number == signal.SIGHUP else ():
      if not stat.S_ISREG(os.fstat(stream).st_mode):  # a terminal that is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    for job in jobs:
      job.stop()

  signal.signal(signal.SIGTERM, stop)
  signal.signal(signal.SIGINT, stop)
  if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
    signal.signal(signal.SIGHUP, stop)
  code = run_sweep(jobs, values.at_once, place) if values.sweep else jobs[0].run()
  interrupted = {signal.SIGINT: 130, signal.SIGHUP: 129}.get(next(iter(caught), None))
  return interrupted if interrupted and code in (0, AGAIN) else code


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
