"""Is a student better taught online than left alone or taught afterwards? Several seeds, two tasks.

    python benchmarks/omgd_samples.py --workdir=runs/omgd --seeds=0,1,2

For each seed, configs/omgd/colorize.py (pairs) and configs/omgd/grass2gravel.py (no pairs) with
`:rivals`: the student online; the same student alone with a discriminator of its own at two rates;
the same teacher by itself; and the student that learns from it when it has finished. All take the
same number of steps on the same batches. Measured on the 'test' split, at the last checkpoint and
at the one chosen on 'validation'. Run again, it goes on where it was. Writes the tables of
docs/results.md, every value, and a picture of each task.
"""

import argparse
import json
import statistics
from pathlib import Path

import numpy as np
from PIL import Image

from jaxgan_compress import analysis, config, experiment

TASKS = {'colorize': ('mmd', 'fd', 'psnr', 'ssim', 'psnr_teacher'),
         'grass2gravel': ('mmd', 'fd', 'precision', 'recall', 'psnr_teacher')}
NAMES = {'mmd': 'MMD x 1000 ↓', 'fd': 'FD ↓', 'psnr': 'PSNR ↑', 'ssim': 'SSIM ↑',
         'psnr_teacher': 'PSNR to teacher ↑', 'precision': 'precision ↑', 'recall': 'recall ↑'}
BETTER = {'mmd': min, 'fd': min, 'psnr': max, 'ssim': max, 'precision': max, 'recall': max}


def recipe(task, seed, steps):
  c = config.load(f'omgd/{task}:rivals' + (f',steps={steps}' if steps else ''))
  c.seed = seed
  # Two looks at each stage, in the middle and at the end, are enough to choose by.
  c.evaluate.every = c.checkpoint.every = max(1, c.stages.omgd.steps // 100) * 50
  return c


def cell(numbers, scale=1.):
  numbers = [x * scale for x in numbers]
  form = '.3f' if max(map(abs, numbers)) < 2 else '.2f'
  spread = statistics.stdev(numbers) if len(numbers) > 1 else 0
  return f'{statistics.mean(numbers):{form}} ± {spread:{form}}'


def table(results, metrics):
  """Markdown: mean and spread over seeds, last and best checkpoint."""
  lines = ['| generator | MACs | ' + ' | '.join(
      f'{NAMES[metric]} {moment}' for metric in metrics for moment in ('last', 'best')) + ' |',
      '|---|--:|' + '--:|' * 2 * len(metrics)]
  for name, row in results[0]['generators'].items():
    if row['from'] != 'source':
      continue
    cells = []
    for metric in metrics:
      for moment in ('last', 'best'):
        found = [result['generators'][name][moment]['measures'].get(metric) for result in results]
        cells.append(cell([each['value'] for each in found], 1e3 if metric == 'mmd' else 1)
                     if all(found) else '')
    lines.append(f'| {row["title"]} | {row["macs"] / 1e6:.1f} M | ' + ' | '.join(cells) + ' |')
  floor = [result['real']['fd']['value'] for result in results]
  return '\n'.join([*lines, '', f'A random half of the real images against all: FD {cell(floor)}.'])


def claims(results, metrics):
  """Markdown: online against each rival, a seed each, at the last checkpoint; of the two rates at
  which a student is alone the better one."""
  rivals = {'alone': ('alone', 'alone_slow'), 'offline': ('offline',)}
  lines = ['| measure | online / rival, a seed each, last checkpoint | online is better in |',
           '|---|---|---|']
  for rival, names in rivals.items():
    for metric in metrics:
      if metric not in BETTER:
        continue
      better, pairs = BETTER[metric], []
      for result in results:
        value = {name: row['last']['measures'].get(metric, {}).get('value')
                 for name, row in result['generators'].items()}
        pairs.append((value['omgd'], better(value[name] for name in names)))
      wins = sum(better(pair) == pair[0] and pair[0] != pair[1] for pair in pairs)
      shown = ', '.join(' / '.join(f'{x:.4g}' for x in pair) for pair in pairs)
      lines.append(f'| {metric} against {rival} | {shown} | {wins} of {len(pairs)} |')
  return '\n'.join(lines)


def intervals(workdir, names, metric, samples):
  """95 % intervals of one seed's measures, over random halves of its images."""
  run = experiment.open_run(workdir)
  found = {name: run.final_evaluator(name)(run.drawer(name, 'last'), intervals=samples)
           for name in names}
  return ', '.join(f'{name} {found[name][metric].value * 1e3:.2f} '
                   f'[{found[name][metric].interval[0] * 1e3:.2f}, '
                   f'{found[name][metric].interval[1] * 1e3:.2f}]' for name in names)


def picture(workdir, columns=8):
  """Inputs, drawings of every generator of one seed at its last checkpoint, targets."""
  run = experiment.open_run(workdir)
  names = [name for name in run.measured_generators()
           if name != 'alone_slow' and not name.endswith('.back')]
  shown = run.shown('omgd', columns)
  rows = [('input', shown['picture'])]
  for name in names:
    rows.append((name, np.asarray(run.drawer(name, 'last')(shown['source']))))
  if 'target' in shown:
    rows.append(('target', shown['target']))
  return analysis.captioned(rows, str(run.config.data.name) + ', test split, last checkpoints')


def main():
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--workdir', type=Path, default=Path('runs/omgd'))
  parser.add_argument('--seeds', default='0,1,2')
  parser.add_argument('--tasks', default=','.join(TASKS))
  parser.add_argument('--steps', type=int, default=0)
  args = parser.parse_args()
  for task in args.tasks.split(','):
    folders = [args.workdir / f'{task}_{seed}' for seed in args.seeds.split(',')]
    results = [experiment.run(recipe(task, int(folder.name.split('_')[-1]), args.steps), folder)
               for folder in folders]
    text = '\n\n'.join([table(results, TASKS[task]), claims(results, TASKS[task]),
                        'MMD x 1000 with 95 % intervals, first seed: ' + intervals(
                            folders[0], ('omgd', 'alone', 'offline'), 'mmd', 50)])
    (args.workdir / f'{task}.json').write_text(json.dumps(results))
    (args.workdir / f'{task}.md').write_text(text + '\n')
    Image.fromarray(picture(folders[0])).save(args.workdir / f'{task}.png')
    print(text)


if __name__ == '__main__':
  main()
