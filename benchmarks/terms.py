"""Which terms make a better student, and what is augmentation worth? Several seeds.

    python benchmarks/terms.py --configs=omgd/colorize,omgd/emoji:pair=flat2shaded
    python benchmarks/terms.py --configs=omgd/emoji:pair=flat2shaded --part=pairs

The first: in one run several students learn online from one teacher, each by the terms of the
config and some more; then the same with a teacher whose discriminator sees everything through
DiffAugment, without pairs also one with APA; and the same student alone, with DiffAugment and
without. With `--part=others` those terms that did not help, and a discriminator that has heads for
the students as well. With `--part=pairs` a teacher and its students from 100, 400 and 1,600 pairs,
with and without DiffAugment, from the fewest also with ADA. With `--part=width` the student alone
with discriminators of several widths, and how far each is from the balance that the teacher by
itself has with its own.

All take the same batches and steps. Measured on the 'test' split. Run again, it goes on where it
was. Writes tables, every value, and plots.
"""

import argparse
import copy
import functools
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
# Runs here see 2,400 to 4,000 images.
ADAPTIVE = dict(name='Adaptive', images=2000)
# Weights chosen on seed 7 by their share of the student's gradient at a quarter of training, and
# after a first round on seed 0 (docs/results.md).
TERMS = {'wavelet': dict(name='Wavelet', weight=30., balance='orthonormal'),
         'detail': dict(name='Wavelet', weight=10.),
         'adv': dict(name='Discriminator', weight=.5),
         'own': dict(name='Discriminator', weight=1.),
         'strong': dict(name='Discriminator', weight=3.),
         'match': dict(name='FeatureMatching', weight=6.),
         'relation': dict(name='Relations', weight=12.),
         'pixel': dict(name='Pixel', weight=50.), 'target': dict(name='Target', weight=50.)}
# What each student minimises besides the terms of the config, in each run: of a teacher whose
# discriminator sees images as they are, or everything through DiffAugment, or sometimes a generated
# image as a real one, or also the images of the students.
ARMS = {'omgd': {'wavelet': ('wavelet',), 'target': ('pixel', 'target'),
                 'recipe': ('pixel', 'target', 'wavelet')},
        'omgd_augmented': {'wavelet': ('wavelet',), 'target': ('pixel', 'target'),
                           'recipe': ('pixel', 'target', 'wavelet')}}
UNPAIRED = {'omgd': {'wavelet': ('detail',), 'adv': ('own',)},
            'omgd_augmented': {'wavelet': ('detail',), 'adv': ('own',)}, 'omgd_apa': {}}
# What did not help in the first seeds, with --part=others.
OTHERS = {'omgd': {'adv': ('adv',), 'adv_strong': ('strong',), 'match': ('match',),
                   'relation': ('relation',)},
          'omgd_augmented': {'adv': ('adv',)},
          'own_head': {'own': ('own',), 'target': ('own', 'pixel', 'target')}}
PAIRS = 100, 400, 1600
WIDTHS = 8, 16, 32, 64


def online(stage, students, **adversary):
  """The stage of OMGD with more students, {name: names of their terms}, and fields of how its
  discriminators are trained."""
  stage = copy.deepcopy(stage)
  method = stage.method
  method.extra_students = {each: method.student.to_dict() for each in students}
  method.extra_distill = {each: with_terms(method, terms) for each, terms in students.items()}
  return trained(stage, **adversary)


def with_terms(method, terms):
  return {**method.distill.to_dict(), **{term: TERMS[term] for term in terms}}


def trained(stage, title='', **adversary):
  """The same stage with other fields of how its discriminators are trained."""
  stage = copy.deepcopy(stage)
  stage.title += title
  stage.method.get('cycle', stage.method).adversary.update(adversary)
  return stage


def augmented(stage, **fields):
  return trained(stage, ', DiffAugment', augment=AUGMENT, **fields)


def arms(name, seed, steps, every=None):
  """The config of one seed: students online with some kinds of discriminators, and alone."""
  c = recipe(name, seed, steps)
  every = every or (UNPAIRED if 'cycle' in c.stages.omgd.method else ARMS)
  stages = {}
  for run, students in every.items():
    stage = online(c.stages.omgd, students)
    if run == 'omgd_apa':
      stage = trained(stage, ', APA', adaptive=dict(ADAPTIVE, kind='apa'))
    elif run != 'omgd':
      stage = augmented(stage)
    if run == 'own_head':
      method, stage.title = stage.method, f'{stage.title}, own heads'
      method.distill = with_terms(method, ('own', 'pixel', 'target', 'wavelet'))
      method.adversary.disc.heads = ('wide', 'student', *students)
      method.adversary.disc.shared = 3
    stages[run] = stage
  for each in 'alone', 'alone_slow':
    stages[each] = c.stages[each]
    stages[f'{each}_augmented'] = augmented(c.stages[each])
  c.stages, c.run = stages, tuple(stages)
  return c


def fewer(name, seed, steps):
  """Teacher and students from fewer pairs, with and without DiffAugment."""
  c = recipe(name, seed, steps)
  stages = {}
  for pairs in PAIRS:
    stage = online(c.stages.omgd, {'recipe': ARMS['omgd']['recipe']})
    stage.title, stage.data = f'{pairs} pairs', dict(count=pairs)
    stages[f'pairs_{pairs}'], stages[f'pairs_{pairs}_augmented'] = stage, augmented(stage)
    if pairs == min(PAIRS):
      stages[f'pairs_{pairs}_ada'] = trained(stage, ', ADA', augment=AUGMENT, adaptive=ADAPTIVE)
  c.stages, c.run = stages, tuple(stages)
  return c


def widths(name, seed, steps):
  """The student alone with discriminators of several widths, and the teacher by itself."""
  c = recipe(name, seed, steps)
  stages = {'teacher': c.stages.teacher}
  for width in WIDTHS:
    stage = stages[f'disc_{width}'] = copy.deepcopy(c.stages.alone)
    stage.title, stage.method.adversary.disc.ndf = f'Alone, discriminator of width {width}', width
  c.stages, c.run = stages, tuple(stages)
  return c


def balance(folders, results, metrics):
  """Markdown: of each width the mean distance of its gap from the teacher's, over the second half
  of training (GCC), beside the measures; a seed each."""
  def gaps(folder, stage):
    rows = [json.loads(line) for line in (folder / stage / 'log.jsonl').read_text().splitlines()]
    found = [row['gap/generator'] for row in rows if 'gap/generator' in row]
    return np.array(found[len(found) // 2:])

  shown = metrics[1:3]
  lines = ['| width | from balance | ' + ' | '.join(NAMES[metric] for metric in shown) + ' |',
           '|--:|--:|--:|--:|']
  for width in WIDTHS:
    name = f'disc_{width}'
    apart = [np.abs(gaps(folder, name) - gaps(folder, 'teacher')).mean() for folder in folders]
    values = [[result['generators'][name]['last']['measures'][metric]['value']
               for result in results] for metric in shown]
    lines.append(f'| {width} | ' + ' | '.join(
        ' / '.join(f'{x:.3g}' for x in each) for each in (apart, *values)) + ' |')
  return '\n'.join(lines)


def detail(folder, levels=3, count=64):
  """{generator: E|H_j| of its images over that of the true ones, j = 1 ..}: below 1 is blur. {} of
  data without pairs."""
  size = lambda x: np.array([float(jnp.abs(high).mean())
                             for high in image.haar_levels(jnp.asarray(x), levels)])
  found = {}
  for generator in experiment.open_run(folder).measured_generators():
    examples = generator.examples(count)
    if 'target' in examples:
      generated = generator.bound('last')(examples['source'])
      found[generator.name] = (size(generated) / size(examples['target'])).round(3).tolist()
  return found


def details(seeds):
  """Markdown: the mean of what `detail` says of each seed."""
  lines = ['| detail, of true images | level 1 | level 2 | level 3 |', '|---|--:|--:|--:|']
  for name in seeds[0]:
    lines.append(f'| {name} | ' + ' | '.join(
        f'{statistics.mean(seed[name][j] for seed in seeds):.2f}' for j in range(3)) + ' |')
  return '\n'.join(lines) if seeds[0] else ''


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
  figure, axes = plt.subplots(1, 2, figsize=(7.5, 3.3), layout='constrained')
  lines = [(kind, suffix) for kind in ('wide', 'recipe') for suffix in ('', '_augmented')]
  for axis, metric in zip(axes, (metrics[1], 'psnr'), strict=True):
    for kind, suffix in lines:
      values = [[result['generators'][f'pairs_{n}{suffix}.{kind}']['last']['measures'][metric][
          'value'] for result in results] for n in PAIRS]
      means = [statistics.mean(each) for each in values]
      axis.errorbar(
          PAIRS, means, marker='o', capsize=3, linestyle='-' if suffix else '--',
          color={'wide': 'C0', 'recipe': 'C1'}[kind],
          label=('teacher' if kind == 'wide' else 'student') + (suffix and ', DiffAugment'),
          yerr=[[mean - min(each) for mean, each in zip(means, values, strict=True)],
                [max(each) - mean for mean, each in zip(means, values, strict=True)]])
    axis.set(xscale='log', xlabel='pairs', ylabel=NAMES[metric], xticks=PAIRS,
             xticklabels=[str(n) for n in PAIRS])
    axis.minorticks_off()
  figure.legend(*axes[0].get_legend_handles_labels(), loc='outside lower center', ncols=4)
  figure.savefig(path)


def main():
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--workdir', type=lambda path: Path(path).expanduser(),
                      default=Path('runs/terms'))
  parser.add_argument('--part', choices=('arms', 'others', 'pairs', 'width'), default='arms')
  parser.add_argument('--seeds', default='0,1,2')
  parser.add_argument('--configs', default='omgd/colorize,omgd/emoji:pair=flat2shaded')
  parser.add_argument('--steps', type=int, default=0)
  args = parser.parse_args()
  for name in re.split(r',(?=\w+/)', args.configs):  # commas part arguments of a config, too
    kind = name.partition(':')[0]
    metrics, stem = CONFIGS[kind], f'{args.part}_{kind.replace("/", "_")}'
    build = {'arms': arms, 'others': functools.partial(arms, every=OTHERS),
             'pairs': fewer, 'width': widths}[args.part]
    seeds = [int(seed) for seed in args.seeds.split(',')]
    folders = [args.workdir / f'{stem}_{seed}' for seed in seeds]
    results = [experiment.run(build(name, seed, args.steps), folder)
               for seed, folder in zip(seeds, folders, strict=True)]
    text = [table(results, metrics)]
    there = results[0]['generators']
    # What is not after a dot is the student of its stage, or learns alone.
    students = [each for each in there if there[each]['from'] == 'source'
                and each.partition('.')[2] not in ('wide', 'generator')]
    if args.part == 'pairs':
      text += [against(results, metrics, f'pairs_{n}{kind}', [f'pairs_{n}_{way}{kind}' for way in (
          'augmented', 'ada') if f'pairs_{n}_{way}' in there])
               for n in PAIRS for kind in ('.wide', '', '.recipe')]
      plot(results, metrics, args.workdir / f'{stem}.svg')
    elif args.part == 'width':
      text.append(balance(folders, results, metrics))
    else:
      text += [against(results, metrics, base, [name for name in students if name != base])
               for base in ('omgd', 'alone', 'alone_slow') if base in there]
    text.append(details([detail(folder) for folder in folders]))
    (args.workdir / f'{stem}.json').write_text(json.dumps(results))
    (args.workdir / f'{stem}.md').write_text('\n\n'.join(text) + '\n')
    if args.part != 'pairs':
      Image.fromarray(picture(folders[0], also=('omgd_augmented.target',))).save(
          args.workdir / f'{stem}.jpg', quality=92)
    print('\n\n'.join(text))


if __name__ == '__main__':
  main()
