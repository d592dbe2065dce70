"""Which way to a small student is best on the built-in samples? Several seeds.

    python benchmarks/samples.py --configs=omgd/colorize,omgd/grass2gravel --workdir=runs/omgd
    python benchmarks/samples.py --configs=cat/colorize,cat/grass2gravel,cat/shapes \
        --workdir=runs/cat
    python benchmarks/samples.py --configs=superres/real_esrgan:path=runs/superres/recorded

For each seed, a config with `:rivals`. Of OMGD: the student online; the same student alone with a
discriminator of its own at two rates; the same teacher by itself; and the student that learns from
it when it has finished. Of CAT: students of two budgets cut, started and taught in several ways,
see configs/cat/_stages.py. Of the union: it and those of CAT, at one budget. Of upscalers: cut from
a published network or at random, or trained from scratch. All take the same number of steps on the
same batches. Measured on the 'test' split, at the last checkpoint and at the one chosen on
'validation'. Run again, it goes on where it was. Writes the tables of docs/results.md, every value,
and a picture of each config.
"""

import argparse
import json
import re
import statistics
from pathlib import Path

import numpy as np
from PIL import Image

from jaxgan_compress import analysis, config, experiment
from jaxgan_compress.analysis import details

PAIRS, SETS, LABELS = (('mmd', 'fd', 'psnr', 'ssim', 'psnr_teacher'),
                       ('mmd', 'fd', 'precision', 'recall', 'psnr_teacher'),
                       ('miou', 'mmd', 'fd', 'psnr'))
EMOJI = 'mmd_efficientnet_lite0', 'fd_efficientnet_lite0', 'psnr', 'ssim', 'psnr_teacher'
UPSCALED = 'psnr', 'ssim', 'sharpness', 'grid_ratio', 'psnr_original'
CONFIGS = {'omgd/colorize': PAIRS, 'omgd/grass2gravel': SETS, 'cat/colorize': PAIRS,
           'cat/grass2gravel': SETS, 'cat/shapes': LABELS,
           'superres/real_esrgan': UPSCALED, 'omgd/emoji': EMOJI, 'cat/emoji': EMOJI,
           'cat/any_network': PAIRS, 'union/colorize': PAIRS, 'union/emoji': EMOJI}
# Of CAT: what is compared with what, and what the difference of the two is.
PARTS = {'CAT against alone': ('cat', 'alone'),
         'cut and taught against alone': ('taught', 'alone'),
         'cut and taught against CAT': ('taught', 'cat'),
         'CAT with alignment against without': ('cat', 'blind'),
         'CAT from weights kept against fresh': ('kept', 'cat'),
         'taught from weights kept against fresh': ('taught', 'fresh'),
         'cut by norms against narrowed evenly': ('fresh', 'narrow'),
         'pruned online against cut and taught': ('online', 'taught'),
         **{f'union against {title}': ('union', name) for title, name in (
             ('CAT', 'cat'), ('OMGD, pruned online', 'online'), ('OMGD, offline', 'taught'),
             ('KD', 'kd'), ('alone', 'alone'), ('alone, DiffAugment', 'augmented'))}}
NAMES = {'mmd': 'MMD x 1000 ↓', 'mmd_efficientnet_lite0': 'MMD lite0 x 1000 ↓', 'fd': 'FD ↓',
         'fd_efficientnet_lite0': 'FD lite0 ↓', 'psnr': 'PSNR ↑', 'ssim': 'SSIM ↑',
         'psnr_teacher': 'PSNR to teacher ↑', 'precision': 'precision ↑', 'recall': 'recall ↑',
         'miou': 'mIoU ↑', 'sharpness': 'sharpness', 'grid_ratio': 'grid ratio',
         'psnr_original': 'PSNR to original'}
BETTER = {'mmd': min, 'fd': min, 'mmd_efficientnet_lite0': min, 'fd_efficientnet_lite0': min,
          'psnr': max, 'ssim': max, 'precision': max, 'recall': max, 'miou': max}


def recipe(name, seed, steps):
  name, _, more = name.partition(':')
  c = config.load(f'{name}:rivals' + (f',{more}' if more else '')
                  + (f',steps={steps}' if steps else ''))
  c.seed = seed
  # Two looks at each whole stage, in the middle and at the end, are enough to choose by.
  longest = max(stage.steps for stage in c.stages.values())
  c.evaluate.every = c.checkpoint.every = max(1, longest // 100) * 50
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
        cells.append(cell([each['value'] for each in found], 1e3 if metric.startswith('mmd') else 1)
                     if all(found) else '')
    lines.append(f'| {row["title"]} | {row["macs"] / 1e6:.1f} M | ' + ' | '.join(cells) + ' |')
  distance = next(metric for metric in results[0]['real'] if metric.startswith('fd'))
  floor = [result['real'][distance]['value'] for result in results]
  return '\n'.join([*lines, '', 'A random half of the real images against all: '
                    f'{NAMES[distance]} {cell(floor)}.'])


def claims(name, results, metrics):
  """Markdown: one way against another, a seed each, at the last checkpoint; of two rates at which a
  student is alone the better one."""
  if name.startswith('superres/'):
    pairs = {f'{ours} against {theirs}': (ours, (theirs,)) for ours, theirs in (
        ('w32', 'bicubic'), ('w32', 'animevideov3'), ('w32', 'anime'), ('w32', 'random32'),
        ('w32', 'scratch32'), ('w32', 'scratch32_8'), ('w16', 'bicubic'), ('w16', 'animevideov3'),
        ('w16', 'random16'), ('w16', 'scratch16_4'))}
  elif name.startswith('omgd/'):
    pairs = {'online against alone': ('omgd', ('alone', 'alone_slow')),
             'online against offline': ('omgd', ('offline',))}
  else:
    there = results[0]['generators']
    pairs = {f'{share} %: {text}': (f'{a}_{share}', (f'{b}_{share}',))
             for share in sorted({int(x.split('_')[1].split('.')[0]) for x in there if '_' in x})
             for text, (a, b) in PARTS.items() if {f'{a}_{share}', f'{b}_{share}'} <= there.keys()}
  lines = ['| | ' + ' | '.join(NAMES[metric] for metric in metrics if metric in BETTER) + ' |',
           '|---|' + '--:|' * sum(metric in BETTER for metric in metrics)]
  for text, (ours, theirs) in pairs.items():
    cells = []
    for metric in metrics:
      if metric in BETTER:
        better, wins, scale = BETTER[metric], 0, 1e3 if metric.startswith('mmd') else 1
        both = []
        for result in results:
          value = {each: result['generators'][each]['last']['measures'][metric]['value'] * scale
                   for each in (ours, *theirs)}
          both.append((value[ours], better(value[each] for each in theirs)))
          wins += better(both[-1]) == both[-1][0] != both[-1][1]
        cells.append(f'**{wins} of {len(both)}** ' + ', '.join(f'{a:.3g}/{b:.3g}' for a, b in both))
    lines.append(f'| {text} | ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def intervals(workdir, names, metric, samples):
  """95 % intervals of one seed's measures, over random halves of its images."""
  run = experiment.open_run(workdir)
  generators = {name: run.generator(name) for name in names}
  found = {name: generator.evaluator(final=True)(generator.bound('last'), intervals=samples)
           for name, generator in generators.items()}
  return ', '.join(f'{name} {found[name][metric].value * 1e3:.2f} '
                   f'[{found[name][metric].interval[0] * 1e3:.2f}, '
                   f'{found[name][metric].interval[1] * 1e3:.2f}]' for name in names)


def picture(workdir, columns=8, also=()):
  """Inputs, images of the main generators of one seed, and of those named in `also`, at their last
  checkpoints, targets; of upscalers the enlarged squares of 48 pixels with the strongest edges."""
  run = experiment.open_run(workdir)
  left_out = 'alone_slow', 'gradual_', 'random', 'scratch'
  generators = [generator for generator in run.measured_generators() if generator.name in also or (
      '.' not in generator.name and not generator.name.startswith(left_out))]
  examples = generators[0].examples(columns)
  rows = [('input', examples['picture'])]
  for generator in generators:
    rows.append((generator.name, np.asarray(generator.bound('last')(examples['source']))))
  if 'target' in examples:
    rows.append(('target', examples['target']))
    scale = len(examples['target'][0]) // len(examples['source'][0])
    if scale > 1:
      corners = details.busiest(examples['target'], 48, scale)
      rows = [(f'{columns} test photographs', details.enlarged(
          examples['source'], corners // scale, 48 // scale, 3 * scale)), *(
              (name, details.enlarged(images, corners, 48, 3)) for name, images in rows[1:])]
  return analysis.captioned(rows, str(run.config.data.name) + ', test split, last checkpoints')


def main():
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--workdir', type=lambda path: Path(path).expanduser(),
                      default=Path('runs/samples'))
  parser.add_argument('--seeds', default='0,1,2')
  parser.add_argument('--configs', default=','.join(CONFIGS))
  parser.add_argument('--steps', type=int, default=0)
  args = parser.parse_args()
  for name in re.split(r',(?=\w+/)', args.configs):  # commas part arguments of a config, too
    kind = name.partition(':')[0]
    metrics, stem = CONFIGS[kind], kind.replace('/', '_')
    folders = [args.workdir / f'{stem}_{seed}' for seed in args.seeds.split(',')]
    results = [experiment.run(recipe(name, int(folder.name.split('_')[-1]), args.steps), folder)
               for folder in folders]
    text = [table(results, metrics), claims(name, results, metrics)]
    if name.startswith('omgd/'):
      text.append('MMD x 1000 with 95 % intervals, first seed: ' + intervals(
          folders[0], ('omgd', 'alone', 'offline'), metrics[0], 20))
    (args.workdir / f'{stem}.json').write_text(json.dumps(results))
    (args.workdir / f'{stem}.md').write_text('\n\n'.join(text) + '\n')
    Image.fromarray(picture(folders[0])).save(args.workdir / f'{stem}.jpg', quality=92)
    print('\n\n'.join(text))


if __name__ == '__main__':
  main()
