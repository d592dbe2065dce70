"""Kills processes of a run at random, and asks whether it ends as if nothing had been.

    python benchmarks/soak.py [--kills 30] [--out runs/soak]

Two processes train on this machine's CPU, started again by launch/local.py. One of them, at random,
gets SIGKILL at a random moment, also while it starts, compiles or writes. The final state is
compared bit for bit with that of an undisturbed run. Writes OUT/soak.json.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np

from jaxgan_compress import open_run

ROOT = Path(__file__).parent.parent
STEPS = 1600


def start(folder, retries):
  """The launcher of two processes that train in a folder."""
  return subprocess.Popen(
      [sys.executable, ROOT / 'launch' / 'local.py', '--processes', '2', '--cpu', '1',
       '--retries', str(retries), '--backoff', '0', '--logs', folder / 'logs', '--', 'train',
       f'--config=tests/tiny_run.py:steps={STEPS},every=10', f'--workdir={folder / "run"}'],
      cwd=ROOT, env={**os.environ, 'XLA_FLAGS': '--xla_backend_optimization_level=0'},
      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def processes(launcher):
  """Process numbers of what the launcher started."""
  found = subprocess.run(['pgrep', '-P', str(launcher.pid)], capture_output=True, text=True,
                         check=False)
  return [int(line) for line in found.stdout.split()]


def step(folder):
  log = folder / 'run' / 'gan' / 'log.jsonl'
  lines = log.read_text().splitlines() if log.is_file() else []
  return len(lines)


def disturbed(folder, kills, rng):
  """Runs to the end; returns [(step reached, which of two)] of every kill."""
  launcher, done = start(folder, retries=2 * kills), []
  while launcher.poll() is None and len(done) < kills:
    # One in five dies while it starts or compiles, the others up to eighty steps later.
    early, wait, aim = rng.random() < 0.2, rng.uniform(0, 8), step(folder) + rng.randint(1, 80)
    while launcher.poll() is None and (len(processes(launcher)) < 2 or (
        not early and step(folder) < aim)):
      time.sleep(0.01)
    time.sleep(wait if early else 0)
    there, which = processes(launcher), rng.randrange(2)
    if len(there) == 2:
      done.append((step(folder), which))
      os.kill(there[which], signal.SIGKILL)
      print(f'kill {len(done)} of process {which} at step {done[-1][0]}', flush=True)
      while set(there) & set(processes(launcher)):  # new ones may come at once
        time.sleep(0.05)
  return launcher.wait(), done


def final(folder):
  state = open_run(folder / 'run').stages['gan'].state()
  return [np.asarray(x) for x in jax.tree.leaves(state.replace(
      rng=jax.random.key_data(state.rng)))]


def main():
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--kills', type=int, default=30)
  parser.add_argument('--out', type=lambda path: Path(path).expanduser(),
                      default=Path('runs/soak'))
  parser.add_argument('--seed', type=int, default=0)
  values = parser.parse_args()
  out = values.out.absolute()
  if out.exists() and any(out.iterdir()):
    parser.error(f'{out} is not empty; give another --out')
  whole = start(out / 'whole', 0).wait()
  began = time.monotonic()
  code, kills = disturbed(out / 'killed', values.kills, random.Random(values.seed))
  same = all(np.array_equal(a, b) for a, b in zip(
      final(out / 'whole'), final(out / 'killed'), strict=True))
  found = {'codes': [whole, code], 'kills': len(kills), 'by_process': [
      sum(which == i for _, which in kills) for i in (0, 1)],
      'before_the_first_step': sum(not at for at, _ in kills),
      'seconds': time.monotonic() - began, 'identical': same, 'steps': STEPS, 'at': kills,
      'jax': jax.__version__}
  (out / 'soak.json').write_text(json.dumps(found, indent=1))
  print(json.dumps({key: x for key, x in found.items() if key != 'at'}, indent=1))
  return 0 if same and len(kills) == values.kills else 1


if __name__ == '__main__':
  sys.exit(main())
