"""Does a distilled student beat the same network trained from scratch? Several seeds and sizes.

    python benchmarks/kd_digits.py --workdir=runs/kd_digits --seeds=0,1,2

For each seed: a d=16 teacher and, at d = 2, 4 and 8, students by pixels and by pixels plus
discriminator, and four baselines of the same size and number of generator updates (small and
teacher-sized discriminator, learning rates 4e-4 and 1e-3); at d = 2 one baseline more with the
teacher's updates added. About 12 minutes a seed on two idle cores; run again, it goes on where it
was. Prints the tables of docs/results.md and writes them, with every value, to the work directory.
"""

import argparse
import json
import statistics
from pathlib import Path

from jaxgan_compress import config, experiment
from jaxgan_compress.configs.kd import _stages as stages

STEPS, TEACHER, SIZES, RATES = 2000, 16, (2, 4, 8), (4e-4, 1e-3)
METRICS = ('fd', 'is', 'vol', 'mse')


def recipe(seed, steps=STEPS):
  """One seed's run: teacher and students of configs/kd/digits.py, which was tuned on seed 7."""

  def net(d):
    return dict(d=d, size=32)

  run = {}
  for d in SIZES:
    c = config.load(f'kd/digits:d={d},teacher_d={TEACHER},steps={steps}')
    run.update({name: c.stages[name].to_dict() for name in ('classifier', 'teacher')})
    run[f'd{d}_mse'] = c.stages.student_mse.to_dict()
    run[f'd{d}_joint'] = c.stages.student_joint.to_dict()
    for width in (d, TEACHER):
      for rate in RATES:
        run[f'd{d}_scratch_D{width}_{rate:.0e}'] = stages.gan(
            f'scratch, D({width}), {rate:g}', net(d), net(width), steps, lr=rate)
  run['d2_scratch_D2_1e-03_long'] = stages.gan(
      'scratch, D(2), 0.001, twice the steps', net(2), net(2), 2 * steps, lr=1e-3)
  c.seed, c.stages, c.run = seed, run, tuple(run)
  return c


def values(results, names, which, metric):
  """One value a seed of the metric: of several stages the one with the lowest FD."""
  found = []
  for result in results:
    rows = [result['generators'][name][which]['measures'] for name in names]
    best = min(rows, key=lambda row: row['fd']['value'])
    if metric in best:
      found.append(best[metric]['value'])
  return found


def cell(numbers):
  if not numbers:
    return ''
  form = '.4f' if max(numbers) < 1 else '.2f' if max(numbers) < 12 else \
      '.1f' if max(numbers) < 300 else '.0f'
  spread = statistics.stdev(numbers) if len(numbers) > 1 else 0
  return f'{statistics.mean(numbers):{form}} ± {spread:{form}}'


def tables(results):
  """Markdown: every generator, then the claims."""
  lines = ['| generator | FD last | FD best | IS last | IS best | VoL last | MSE to teacher |',
           '|---|--:|--:|--:|--:|--:|--:|']
  names = list(results[0]['generators'])

  def row(title, which):
    cells = [cell(values(results, which, moment, metric)) for metric, moment in (
        ('fd', 'last'), ('fd', 'best'), ('is', 'last'), ('is', 'best'), ('vol', 'last'),
        ('mse', 'last'))]
    lines.append(f'| {title} | ' + ' | '.join(cells) + ' |')

  row(f'teacher d={TEACHER}', ['teacher'])
  for d in SIZES:
    for name in names:
      if name.startswith(f'd{d}_'):
        row(f'd={d} {results[0]["generators"][name]["title"]}', [name])
  lines += ['', '| claim | values, a seed each | holds |', '|---|---|---|']

  def claim(text, pairs, test):
    shown = ', '.join(' / '.join(f'{x:.4g}' for x in pair) for pair in pairs)
    lines.append(f'| {text} | {shown} | {"yes" if all(test(*p) for p in pairs) else "**no**"} |')

  def one(name, metric, moment='last'):
    return values(results, [name], moment, metric)

  claim('teacher FD < 25', [(x,) for x in one('teacher', 'fd')], lambda x: x < 25)
  claim('teacher IS > 6.2', [(x,) for x in one('teacher', 'is')], lambda x: x > 6.2)
  claim('pixel student d=2 FD < 45', [(x,) for x in one('d2_mse', 'fd')], lambda x: x < 45)
  claim('pixel student d=2 IS > 5.9', [(x,) for x in one('d2_mse', 'is')], lambda x: x > 5.9)
  claim('pixel student d=2 VoL / teacher VoL within a factor 3',
        [(a / b,) for a, b in zip(one('d2_mse', 'vol'), one('teacher', 'vol'), strict=True)],
        lambda x: 1 / 3 < x < 3)
  for d in SIZES:
    scratch = [name for name in names if name.startswith(f'd{d}_scratch')]
    for kind in ('mse', 'joint'):
      student = one(f'd{d}_{kind}', 'fd')
      if kind == 'mse' and d == 2:
        claim('pixel student d=2 FD < 0.8 of final scratch FD (best of the baselines)',
              list(zip(student, values(results, scratch, 'last', 'fd'), strict=True)),
              lambda a, b: a < .8 * b)
      best = values(results, scratch, 'best', 'fd')
      for moment, mine in (('best', one(f'd{d}_{kind}', 'fd', 'best')), ('last', student)):
        claim(f'{kind} student d={d} at its {moment} checkpoint beats every scratch baseline at '
              'its best (FD)', list(zip(mine, best, strict=True)), lambda a, b: a < b)
  return '\n'.join(lines)


def main():
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--workdir', type=lambda path: Path(path).expanduser(),
                      default=Path('runs/kd_digits'))
  parser.add_argument('--seeds', default='0,1,2')
  parser.add_argument('--steps', type=int, default=STEPS)
  args = parser.parse_args()
  results = [experiment.run(recipe(int(seed), args.steps), args.workdir / f'seed{seed}')
             for seed in args.seeds.split(',')]
  text = tables(results)
  (args.workdir / 'results.json').write_text(json.dumps(results))
  (args.workdir / 'tables.md').write_text(text + '\n')
  print(text)


if __name__ == '__main__':
  main()
