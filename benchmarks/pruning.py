"""How long it takes to prune CAT's teacher of 2,908 ranked channels to its published budget.

    taskset -c 0 python benchmarks/pruning.py

All of `pruning.prune` and each of its steps, on one core, nothing compiled: the median and the
range of several rounds, the first apart, in which Python reads and JAX looks up for the first time.
"""

import argparse
import time

import jax
import numpy as np

from jaxgan_compress import nn, pruning

SHAPE = (1, 256, 256, 3)


def main():
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--rounds', type=int, default=5)
  rounds = parser.parse_args().rounds
  teacher = nn.inception(64)
  shapes = jax.eval_shape(teacher.init, jax.random.key(0), jax.eval_shape(teacher.example))
  rng = np.random.default_rng(0)
  variables = jax.tree.map(lambda x: rng.normal(1, .3, x.shape).astype(np.float32), shapes)
  taken = []
  for _ in range(rounds + 1):
    marks = [time.perf_counter()]
    plan = teacher.plan()
    marks.append(time.perf_counter())
    price = pruning.cost(teacher, plan, SHAPE, 'cat')
    marks.append(time.perf_counter())
    scores = jax.device_get(pruning.scores(plan, variables['params']))
    marks.append(time.perf_counter())
    found = pruning.search(plan, scores, price, 2.6e9, min_channels=16)
    marks.append(time.perf_counter())
    pruning.compact(plan, variables, found.masks)
    marks.append(time.perf_counter())
    taken.append(np.diff(marks))
  print(f'{sum(map(len, scores.values())):,} scores, {found.cost:,} MACs as CAT counts left\n\n'
        '| step | first round s | median of the others s | range |\n|---|--:|--:|--:|')
  steps = np.array(taken)
  for name, times in (*zip(('plan', 'cost', 'scores', 'search', 'compact'), steps.T, strict=True),
                      ('all', steps.sum(1))):
    print(f'| {name} | {times[0]:.3f} | {np.median(times[1:]):.3f} | {times[1:].min():.3f} to '
          f'{times[1:].max():.3f} |')


if __name__ == '__main__':
  main()
