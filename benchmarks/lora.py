"""What factors of low rank come to beside full fine-tuning and a student that starts afresh.

    python benchmarks/lora.py --workdir=runs/lora --seeds=0,1,2

A U-Net of width 16 learns three effects on photographs at 64 pixels, told apart by planes beside
the picture, and is the base. A fourth effect, whose planes are empty, follows with 100 and with 400
pairs: factors of rank 1, 2, 4 and 8, all weights at two rates, and the same network afresh, each
for as many steps. About half an hour a seed on two idle cores; run again, it goes on where it was.
Prints a Markdown table of means and spreads over the seeds: FD and PSNR on test images at the last
checkpoint, what the effect takes on a disk beside its base, and seconds of training; and writes it
with every value to the work directory. --smoke takes a minute or two.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import jax
import numpy as np

from jaxgan_compress import config, data, experiment, nn
from jaxgan_compress.configs.omgd import _stages as stages
from jaxgan_compress.data.sample_images import EFFECTS

PAIRS, RANKS, WIDTH, SIZE = (100, 400), (1, 2, 4, 8), 16, 64
# Of factors, chosen on seed 7 (docs/results.md): less is too slow, and at 3e-2 rank 1 loses 2 dB.
RATE = 1e-2


class Effects(data.Source):
  """Photographs with planes that say which effect is wanted, and what it makes of them.

  names: of the effects, that take turns. known: those that have a plane, in order. Element i is
  always the same crop, mirrored at random, so that there are no more than `count` pairs.
  """

  def __init__(self, names, known, split='train', size=SIZE, count=2048):
    self.parts = [data.samples(name, split, size=size, count=-(-count // len(names)))
                  for name in names]
    self.planes = [[255 * (name == other) for other in known] for name in names]
    self.count, self.size, self.name = count, size, f'lora:{"+".join(names)}/{split}[:{count}]'

  def augmented(self, i, rng):
    k, i = i % len(self.parts), i // len(self.parts)
    pair = self.parts[k][i]
    planes = np.broadcast_to(np.uint8(self.planes[k]), (self.size, self.size, len(self.planes[k])))
    pair = {**pair, 'source': np.concatenate([pair['source'], planes], -1)}
    mirrored = rng is not None and rng.random() < .5
    return {name: np.ascontiguousarray(x[:, ::-1]) if mirrored else x for name, x in pair.items()}


def recipe(seed, effect, steps, pairs=PAIRS, ranks=RANKS, width=WIDTH, size=SIZE, rate=RATE):
  """One seed's run."""
  known = tuple(name for name in EFFECTS if name != effect)
  c = config.base()
  stages.sample_run(c, effect, size=size, batch=4, steps=steps)
  c.seed = seed
  c.data = dict(name='lora:Effects', names=(effect,), known=known, size=size)
  for images in (c.evaluate.real, c.evaluate.test):
    images.count = 128
  c.evaluate.every = c.checkpoint.every = max(1, steps // 100) * 50
  network = dict(name='unet', ngf=width, depth=4, inputs=3 + len(known))

  def stage(title, rate, generator, **fields):
    return config.stage(title=title, steps=steps, **fields, method=dict(
        name='Pix2Pix', generator=generator, tx=stages.linear(rate, steps), ema=0.99,
        adversary=stages.adversary(24, stages.linear(2e-4, steps), norm='batch',
                                   inputs=6 + len(known))))

  run = {'base': stage('base', 1e-3, network, data=dict(names=known))}
  for count in pairs:
    few = dict(data=dict(count=count))
    known_start = dict(init_from=dict(generator='stage:base'), teacher_checkpoint='last', **few)
    for rank in ranks:
      run[f'rank{rank}_{count}'] = stage(f'factors, rank {rank}', rate, dict(
          name='LowRank', network=network, rank=rank), **known_start)
    for whole in (1e-4, 1e-3):
      run[f'whole{whole:.0e}_{count}'] = stage(f'all weights, rate {whole:g}', whole, network,
                                               **known_start)
    run[f'afresh_{count}'] = stage('afresh, rate 0.001', 1e-3, network, **few)
  stages.fill(c, run)
  return c


def stored(generator):
  """Kilobytes that the effect takes beside its base."""
  bound = generator.as_trained('last')
  with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / 'network.safetensors'
    save = nn.save_factors if isinstance(bound.module, nn.LowRank) else nn.save
    save(file, bound.module, jax.device_get(bound.variables))
    return file.stat().st_size / 1e3


def measured(workdir):
  """{stage: {'title', 'pairs', 'fd', 'psnr', 'kB', 'seconds'}} of a finished run."""
  run = experiment.open_run(workdir)
  results = json.loads((Path(workdir) / 'results.json').read_text())['generators']
  return {name: {
      'title': row['title'], 'pairs': name.partition('_')[2], 'seconds': row['seconds'],
      'kB': stored(run.generator(name)), **{
          key: row['last']['measures'][key]['value'] for key in ('fd', 'psnr')}}
      for name, row in results.items()}


def cell(numbers):
  spread = statistics.stdev(numbers) if len(numbers) > 1 else 0
  return f'{statistics.mean(numbers):.4g} ± {spread:.2g}'


def table(seeds):
  """Markdown: a row a student and number of pairs. seeds: what `measured` says of each."""
  keys = {'fd': 'FD', 'psnr': 'PSNR, dB', 'kB': 'stored, kB', 'seconds': 's'}
  lines = [f'| student | pairs | {" | ".join(keys.values())} |', '|---|--:|' + '--:|' * len(keys)]
  for name, row in seeds[0].items():
    cells = [cell([seed[name][key] for seed in seeds]) for key in keys]
    lines.append(f'| {row["title"]} | {row["pairs"]} | {" | ".join(cells)} |')
  return '\n'.join(lines)


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--workdir', required=True, type=Path)
  parser.add_argument('--seeds', default='0,1,2')
  parser.add_argument('--effect', default='neon', choices=tuple(EFFECTS))
  parser.add_argument('--steps', type=int, default=1000)
  parser.add_argument('--rate', type=float, default=RATE, help='of factors')
  parser.add_argument('--smoke', action='store_true', help='a few steps of a narrow network')
  args = parser.parse_args()
  seeds = []
  for seed in map(int, args.seeds.split(',')):
    workdir = args.workdir / f'seed{seed}'
    if args.smoke:
      c = config.smoke(recipe(seed, args.effect, 4, (8,), (1, 2), 4, 32, args.rate))
    else:
      c = recipe(seed, args.effect, args.steps, rate=args.rate)
    experiment.run(c, workdir)
    seeds.append(measured(workdir))
  text = table(seeds)
  print(text)
  (args.workdir / 'table.md').write_text(f'{text}\n')
  (args.workdir / 'values.json').write_text(json.dumps(seeds, indent=1))


if __name__ == '__main__':
  main()
