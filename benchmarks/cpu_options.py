"""Which options of XLA:CPU make our steps and networks fastest? Measures the choice of `core.xla`.

    python benchmarks/cpu_options.py [--cases=unet,inference] [--rounds=7] [--out=runs/options]

Every set of options has a process for each case, which sleeps while another is timed; all are
called in turn. Prints a Markdown table of times over those of XLA's own choice, round by round:
medians with quartiles, below 1 where the options are faster.
"""

import argparse
import json
import sys
from pathlib import Path

import jax_vs_torch as race
import numpy as np

CASES = ('pix2pix: resnet 16, 1 x 128 px', 'pix2pix: unet 16, 1 x 256 px',
         'pix2pix: inception 16, 4 x 64 px', 'kd: dcgan', 'inference: resnet 64, 1 x 128 px',
         'inference: mobile_resnet 64, 4 x 128 px')


def fused(*kinds):
  """Options that leave these kinds of operations to XLA's library YNN."""
  return {'xla_cpu_experimental_ynn_fusion_type': ','.join(
      f'LIBRARY_FUSION_TYPE_{kind}' for kind in kinds)}


SETS = {"XLA's own": {}, 'ours: no convolutions by YNN': fused('DOT', 'INDIVIDUAL_DOT', 'REDUCE'),
        'no YNN': fused(), 'products by YNN alone': fused('DOT', 'INDIVIDUAL_DOT'),
        'sums by YNN alone': fused('REDUCE')}


def measure(case, folder, rounds, seconds):
  """{set: seconds of a call in each round} of one case."""
  workers, calls = {}, {}
  try:
    for i, (name, options) in enumerate(SETS.items()):
      (folder / str(i)).mkdir(parents=True, exist_ok=True)
      workers[name] = race.Worker(sys.executable, 'jax', 'float32', case, folder / str(i),
                                  more={race.OPTIONS: json.dumps(options)})
      about = workers[name].ask()
      workers[name].look(0)
      calls[name] = max(1, round(seconds / workers[name].ask('time 1')['seconds']))
    times = {name: [] for name in workers}
    for _ in range(rounds):
      for name, worker in workers.items():
        times[name].append(worker.ask(f'time {calls[name]}')['seconds'])
  finally:
    for worker in workers.values():
      worker.close()
  return about['version'], times


def main():
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--cases', default=';'.join(CASES), help='parts of names, separated by ;')
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument('--seconds', type=float, default=.5, help='of one timing, at least one call')
  parser.add_argument('--out', type=Path, default=Path('runs/options'))
  args = parser.parse_args()
  names = [name for name in race.CASES if any(part in name for part in args.cases.split(';'))]
  if not names:
    parser.error(f'no case has {args.cases!r} in its name; {", ".join(race.CASES)}')
  own, *others = SETS
  for i, name in enumerate(names):
    version, times = measure(race.CASES[name], args.out / str(i), args.rounds, args.seconds)
    if not i:
      print(f'{version}, {args.rounds} rounds\n\n| case | {own}, ms | {" | ".join(others)} |\n'
            f'|---|{"--:|" * len(SETS)}')
    cells = [f'{1e3 * np.median(times[own]):.1f}']
    for other in others:
      low, middle, high = np.quantile(np.divide(times[other], times[own]), (.25, .5, .75))
      cells.append(f'{middle:.2f} ({low:.2f} to {high:.2f})')
    print(f'| {name} | {" | ".join(cells)} |', flush=True)


if __name__ == '__main__':
  main()
