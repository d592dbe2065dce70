"""Which terms make a better student, and what augmentation does for its teacher? Several seeds.

    python benchmarks/terms.py --configs=omgd/colorize,omgd/emoji:pair=flat2shaded
    python benchmarks/terms.py --configs=omgd/emoji:pair=flat2shaded --part=pairs

The first: in one run several students learn online from one teacher, each by the terms of the
config and some more; then the same with a teacher whose discriminator sees everything through
DiffAugment; then one that has heads for the students as well; and the same student alone, with
DiffAugment and without. The second: the teacher by itself from
100, 400 and 1,600 pairs, with and without DiffAugment. All take the same batches and steps.
Measured on the 'test' split. Run again, it goes on where it was. Writes tables, every value, and
plots.
"""

import argparse
import copy
import json
import re
import statistics
from pathlib import Path

import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from samples import BETTER, CONFIGS, NAMES, picture, recipe, table

from jaxgan_compress import experiment
from jaxgan_compress.losses import image

matplotlib.use('svg')
AUGMENT = dict(name='DiffAugment', policies=('translation', 'cutout'))
# Weights chosen on seed 7 by their share of the student's gradient at a quarter of training, and
# after a first round on seed 0 (docs/results.md).
TERMS = {'wavelet': dict(name='Wavelet', weight=30., balance='orthonormal'),
         'adv': dict(name='Discriminator', weight=.5),
         'own': dict(name='Discriminator', weight=1.),
         'strong': dict(name='Discriminator', weight=3.),
         'match': dict(name='FeatureMatching', weight=6.),
         'relation': dict(name='Relations', weight=12.),
         'pixel': dict(name='Pixel', weight=50.), 'target': dict(name='Target', weight=50.)}
# What each student minimises besides the terms of the config, in each run: by the teacher's
# discriminator, by one that sees everything through DiffAugment, and by one that also learns from
# the student's images.
ARMS = {'omgd': {'wavelet': ('wavelet',), 'adv': ('adv',), 'adv_strong': ('strong',),
                 'match': ('match',), 'relation': ('relation',)},
        'omgd_augmented': {'wavelet': ('wavelet',), 'adv': ('adv',),
                           'target': ('pixel', 'target'),
                           'recipe': ('pixel', 'target', 'wavelet')},
        'own_head': {'own': ('own',), 'target': ('own', 'pixel', 'target')}}
PAIRS = 100, 400, 1600


def arms(name, seed, steps):
  """The config of one seed: students online with three kinds of discriminators, and alone."""
  c = recipe(name, seed, steps)
  stages = {}

  def with_terms(method, terms):
    return {**method.distill.to_dict(), **{term: TERMS[term] for term in terms}}

  for run, students in ARMS.items():
    stage = stages[run] = copy.deepcopy(c.stages.omgd)
    method = stage.method
    stage.title = {'omgd': 'Online', 'omgd_augmented': 'Online, DiffAugment',
                   'own_head': 'Online, DiffAugment, own heads'}[run]
    method.extra_students = {each: method.student.to_dict() for each in students}
    method.extra_distill = {each: with_terms(method, terms) for each, terms in students.items()}
    if run != 'omgd':
      method.adversary.augment = AUGMENT
    if run == 'own_head':
      method.distill = with_terms(method, ('own', 'pixel', 'target', 'wavelet'))
      method.adversary.disc.heads = ('wide', 'student', *students)
      method.adversary.disc.shared = 3
  for each in 'alone', 'alone_slow':
    stages[each] = c.stages[each]
    stages[f'{each}_augmented'] = augmented(c.stages[each])
  c.stages, c.run = stages, tuple(stages)
  return c


def augmented(stage):
  """The same stage with DiffAugment."""
  stage = copy.deepcopy(stage)
  stage.title = f'{stage.title}, DiffAugment'
  stage.method.adversary.augment = AUGMENT
  return stage


def fewer(name, seed, steps):
  """The teacher by itself from fewer pairs, with and without DiffAugment."""
  c = recipe(name, seed, steps)
  stages = {}
  for pairs in PAIRS:
    for suffix in ('', '_augmented'):
      stage = copy.deepcopy(c.stages.teacher)
      stage.title, stage.data = f'{pairs} pairs', dict(count=pairs)
      stage = augmented(stage) if suffix else stage
      stages[f'pairs_{pairs}{suffix}'] = stage
  c.stages, c.run = stages, tuple(stages)
  return c


def detail(folder, levels=3, count=64):
  """{generator: E|H_j| of its images over that of real ones, j = 1 ..}: below 1 is blur."""
  found = {}
  for generator in experiment.open_run(folder).measured_generators():
    examples = generator.examples(count)
    size = lambda x: np.array([float(jnp.abs(high).mean())
                               for high in image.haar_levels(jnp.asarray(x), levels)])
    real = examples['target'].astype(np.float32) / 127.5 - 1
    generated = np.asarray(generator.bound('last')(examples['source']), np.float32)
    if generated.dtype == np.uint8 or np.abs(generated).max() > 2:
      generated = generated / 127.5 - 1
    found[generator.name] = (size(generated) / size(real)).round(3).tolist()
  return found


def against(results, metrics, base, names):
  """Markdown: how many seeds each of `names` beats `base` in, and the differences."""
  shown = [metric for metric in metrics if metric in BETTER]
  lines = ['| against ' + base + ' | ' + ' | '.join(NAMES[metric] for metric in shown) + ' |',
           '|---|' + '--:|' * len(shown)]
  for name in names:
    cells = []
    for metric in shown:
      scale = 1e3 if metric.startswith('mmd') else 1
      differences = [scale * (result['generators'][name]['last']['measures'][metric]['value']
                              - result['generators'][base]['last']['measures'][metric]['value'])
                     for result in results]
      wins = sum((d < 0) == (BETTER[metric] is min) and d != 0 for d in differences)
      cells.append(f'**{wins} of {len(differences)}** ' + ', '.join(
          f'{d:+.3g}' for d in differences))
    lines.append(f'| {name} | ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def plot(results, metrics, path):
  """Mean and range over seeds against the number of pairs."""
  figure, axes = plt.subplots(1, 2, figsize=(7, 2.8), layout='constrained')
  for axis, metric in zip(axes, (metrics[1], 'psnr'), strict=True):
    for suffix, label in (('', 'as it is'), ('_augmented', 'DiffAugment')):
      values = [[result['generators'][f'pairs_{n}{suffix}']['last']['measures'][metric]['value']
                 for result in results] for n in PAIRS]
      means = [statistics.mean(each) for each in values]
      axis.errorbar(PAIRS, means, marker='o', capsize=3, label=label, yerr=[
          [mean - min(each) for mean, each in zip(means, values, strict=True)],
          [max(each) - mean for mean, each in zip(means, values, strict=True)]])
    axis.set(xscale='log', xlabel='pairs', ylabel=NAMES[metric], xticks=PAIRS,
             xticklabels=[str(n) for n in PAIRS])
    axis.minorticks_off()
  axes[0].legend()
  figure.savefig(path)


def main():
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--workdir', type=lambda path: Path(path).expanduser(),
                      default=Path('runs/terms'))
  parser.add_argument('--part', choices=('arms', 'pairs'), default='arms')
  parser.add_argument('--seeds', default='0,1,2')
  parser.add_argument('--configs', default='omgd/colorize,omgd/emoji:pair=flat2shaded')
  parser.add_argument('--steps', type=int, default=0)
  args = parser.parse_args()
  for name in re.split(r',(?=\w+/)', args.configs):  # commas part arguments of a config, too
    kind = name.partition(':')[0]
    metrics, stem = CONFIGS[kind], f'{args.part}_{kind.replace("/", "_")}'
    build = {'arms': arms, 'pairs': fewer}[args.part]
    seeds = [int(seed) for seed in args.seeds.split(',')]
    folders = [args.workdir / f'{stem}_{seed}' for seed in seeds]
    results = [experiment.run(build(name, seed, args.steps), folder)
               for seed, folder in zip(seeds, folders, strict=True)]
    text = [table(results, metrics)]
    there = results[0]['generators']
    students = [each for each in there if each.partition('.')[2] not in ('wide', '')
                or each.startswith('alone') or each in ARMS]
    if args.part == 'arms':
      text += [against(results, metrics, base, [name for name in students if name != base])
               for base in ('omgd', 'alone', 'alone_slow')]
    else:
      text += [against(results, metrics, f'pairs_{n}', [f'pairs_{n}_augmented']) for n in PAIRS]
      plot(results, metrics, args.workdir / f'{stem}.svg')
    sharp = [detail(folder) for folder in folders]
    text.append('\n'.join(['| detail, of real images | level 1 | level 2 | level 3 |',
                           '|---|--:|--:|--:|'] + [
        f'| {each} | ' + ' | '.join(f'{statistics.mean(one[each][j] for one in sharp):.2f}'
                                    for j in range(3)) + ' |' for each in sharp[0]]))
    (args.workdir / f'{stem}.json').write_text(json.dumps(results))
    (args.workdir / f'{stem}.md').write_text('\n\n'.join(text) + '\n')
    if args.part == 'arms':
      Image.fromarray(picture(folders[0])).save(args.workdir / f'{stem}.jpg', quality=92)
    print('\n\n'.join(text))


if __name__ == '__main__':
  main()
