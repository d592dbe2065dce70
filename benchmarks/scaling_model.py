"""Predicts how steps scale over many chips: writes docs/scaling.md.

    python benchmarks/scaling_model.py [--only cat/maps]

Nothing is measured and nothing runs. The steps of every shipped config are traced as one replica
sees them; counted are their multiply-accumulates and the bytes that replicas exchange, from which
a simple model makes seconds. Students are cut from networks of random weights. For steps that
`accelerators.py` has compiled, seconds of computing are also those of the compiler's estimate.
"""

import argparse
from pathlib import Path

import accelerators

from jaxgan_compress import config
from jaxgan_compress.analysis import step_cost
from jaxgan_compress.analysis.targets import parse_target
from jaxgan_compress.config import build
from jaxgan_compress.experiment import compilation

PAGE = Path(__file__).parent.parent / 'docs' / 'scaling.md'
SHARE = 0.25  # of the peak, which small networks reach at best
# Peak operations a second in bfloat16, bytes a second that a ring all-reduce moves, chips.
CHIPS = {
    'v5e, 256 chips': (197e12, 90e9, 256), 'H100, one node of 8': (989e12, 350e9, 8),
    'H100, 64 over InfiniBand': (989e12, 40e9, 64)}
BATCHES = (1, 4, 16)  # images of one chip
ROWS = 4  # traced at once: alignment compares samples


def predict(cost, images, peak, bandwidth, chips):
  """(seconds that chips compute in a step, seconds that they exchange) with so many images each."""
  compute = 2 * cost.macs / ROWS * images / (SHARE * peak)
  return compute, exchange(cost, images, bandwidth, chips)


def exchange(cost, images, bandwidth, chips):
  """Seconds that chips exchange in a step, with so many images each."""
  ring = (chips - 1) / chips / bandwidth
  return 2 * cost.reduced * ring + cost.gathered / ROWS * images * (chips - 1) / bandwidth


def tables(only):
  """(lines of the table of all stages, lines of that of the stages that were compiled)."""
  heads = [f'{chip}, {n}' for chip in CHIPS for n in BATCHES]
  lines = ['| config | stage | G MACs an image | MB reduced | MB gathered an image | '
           + ' | '.join(heads) + ' |', '|---' * (5 + len(heads)) + '|']
  _, bandwidth, _ = CHIPS['v5e, 256 chips']
  compiled = ['| config | stage | images a chip | ms computing | of peak | ms exchanging, 16 chips '
              '| 256 chips | share computing, 16 chips | 256 chips | with the assumed '
              f'{SHARE:.0%}, 256 chips |', '|---|---' + '|--:' * 8 + '|']
  estimates = {tuple(row[key] for key in accelerators.KEY[:2]): row
               for row in accelerators.known().values() if row['cycles'] and not row['plain']
               and row['dtype'] == 'float32' and row['machine'] == 'tpu:v5e:2x2/1'}
  shipped = Path(config.locate('kd/digits')[0]).parent.parent
  for path in sorted(shipped.glob('*/*.py')):
    name = f'{path.parent.name}/{path.stem}'
    if path.stem.startswith('_') or (only and name != only):
      continue
    c, seen = config.load(name), {}
    for stage in c.run:
      section = c.stages[stage].method
      if not build.resolve(section.name, build.HOMES['method']).is_generator:
        continue
      method, state, batch = compilation.untrained(c, stage, ROWS)
      cost = step_cost(lambda state, batch, axes, method=method: method.step(state, batch, axes),
                       state, batch)
      print(name, stage, cost, flush=True)
      if cost in seen.values():
        continue  # as another stage of this config
      seen[stage] = cost
      shares = []
      for peak, bandwidth, chips in CHIPS.values():
        for n in BATCHES:
          compute, exchange = predict(cost, n, peak, bandwidth, chips)
          shares.append(f'{compute / (compute + exchange):.2f}')
      if row := estimates.get((name, stage)):
        compiled.append(f'| {name} | {stage} | {described(row, cost, bandwidth)} |')
      numbers = cost.macs / ROWS / 1e9, cost.reduced / 1e6, cost.gathered / ROWS / 1e6
      lines.append(f'| {name} | {stage} | ' + ' | '.join(
          [f'{number:.3g}' for number in numbers] + shares) + ' |')
  return lines, compiled


def described(row, cost, bandwidth):
  """The cells of a stage that was compiled for one chip of a v5e."""
  seconds = row['cycles'] / parse_target(row['target']).chip.clock
  exchanged = [exchange(cost, row['batch'], bandwidth, chips) for chips in (16, 256)]
  assumed, _ = predict(cost, row['batch'], *CHIPS['v5e, 256 chips'])
  return ' | '.join([str(row['batch']), f'{1e3 * seconds:.1f}', f'{row["share_of_peak"]:.0%}',
                     *(f'{1e3 * each:.1f}' for each in exchanged),
                     *(f'{seconds / (seconds + each):.2f}' for each in exchanged),
                     f'{assumed / (assumed + exchanged[-1]):.2f}'])


def main():
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--only', help='one config, printed and not written')
  only = parser.parse_args().only
  lines, compiled = tables(only)
  text = HEAD + '\n'.join(compiled) + COUNTED + '\n'.join(lines) + '\n'
  print(text) if only else PAGE.write_text(text)


HEAD = """# How steps scale

Written by `python benchmarks/scaling_model.py`. **Predictions: no step was run on these chips.**

Counted for every stage of every shipped config, as its default: multiply-accumulates of a whole
training step (every network, forward and backward, feature networks too) for each image; bytes of
gradients, batch statistics and logs that are averaged over all replicas in a step, and bytes of
samples that alignment shows to every replica. Stages of one config with the same cost stand once;
students are pruned to their budgets at random.

The share of a step in which a chip computes is compute / (compute + exchange). Assumed are ring
all-reduces of float32 at 90 GB/s (v5e), 350 GB/s (NVLink) and 40 GB/s for each GPU (InfiniBand), no
overlap of the two, no latency of small messages, data that arrives in time.

Reading it: images a chip are the lever. Where the share is low, take more of them, or use the
chips for what exchanges nothing: seeds and settings as independent runs (`launch/local.py --sweep`,
an array job), several students of one teacher in one step.

CAT's students compare all samples of the batch by default, so every chip is shown every sample, and
more images a chip do not help: beyond a few chips take `scope='replica'`, which compares each
chip's own and gathers nothing.

## Steps that were compiled for a v5e

Milliseconds of computing are the cycles that XLA's compiler estimates for one chip
([accelerators.md](accelerators.md)), at the published batch in float32; no chip was there.

"""
COUNTED = f"""

## All steps, at an assumed share of the peak

The last columns are the share for 1, 4 and 16 images a chip, at {SHARE:.0%} of the bfloat16 peak
(v5e 197, H100 989 TFLOP/s). Small images keep no chip at a quarter of its peak, so for networks of
a few million multiply-accumulates true shares are higher and true speeds far lower than this says.

"""

if __name__ == '__main__':
  main()
