"""What compilers for TPUs and GPUs say of published training steps: writes docs/accelerators.md.

    python benchmarks/accelerators.py [--only=omgd/edges2shoes]
        [--machines=tpu:v5e:2x2/1,gpu:h100/1] [--dtypes=float32] [--plain] [--page]

Compiles each stage of each shipped config at its published size, every device with the batch of the
config, for the --machines (target/devices), and with --plain also the same step in plain Flax
(`plain_flax.py`). Nothing runs, no chip is needed; `jaxgan-compress[tpu]` and `[cuda13]` bring the
compilers. A large step takes minutes and up to 9 GB. What is in docs/accelerators.jsonl already is
not compiled again, so the command goes on where it stopped; --page only writes the page from it.
"""

import argparse
import datetime
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import jax

from jaxgan_compress import config
from jaxgan_compress.config import build

DOCS = Path(__file__).parent.parent / 'docs'
ROWS, PAGE = DOCS / 'accelerators.jsonl', DOCS / 'accelerators.md'
MACHINES = ('tpu:v5e:2x2/1', 'tpu:v5e:4x4/16', 'tpu:v5e:16x16/256', 'tpu:v5p:2x2x2/8', 'gpu:h100/1')
KEY = ('config', 'stage', 'machine', 'dtype', 'plain')


def work(row):
  """The row with what the compiler says, at the published batch and, where that does not fit, at
  the largest half, quarter or so on of it that does."""
  jax.config.update('jax_platforms', 'cpu')
  c = config.load(row['config'])
  published = batch = c.stages[row['stage']].batch or c.batch
  found = compiled(row, c, batch)
  published_needs = needed = memory_needed(found)
  while needed and batch > 1:
    fitting = batch * found.hbm['available'] / needed
    batch = max(1, min(batch // 2, 2 ** int(math.log2(fitting))))
    found = compiled(row, c, batch)
    needed = memory_needed(found)
  found = found.to_dict()
  found['costliest'] = found['costliest'][:5]
  return {**row, 'published_batch': published, 'published_needs': published_needs, 'batch': batch,
          'jax': jax.__version__, 'date': datetime.date.today().isoformat(), **found}


def compiled(row, c, batch):
  """The `analysis.Program` of a row."""
  import plain_flax

  from jaxgan_compress import analysis, experiment
  target, _, devices = row['machine'].rpartition('/')
  if row['plain']:
    step, args = plain_flax.STEPS[plain_name(row)](batch=batch, dtype=row['dtype'])
    return analysis.compile_for(step, *args, target=target, donate_argnums=(0,), options={})
  return experiment.compile_stage(c, target, row['stage'], devices=int(devices), batch=batch,
                                  dtype=row['dtype'])


def memory_needed(program):
  """Bytes that a program needs which does not fit, as the compiler says; None if it fits, or was
  refused for another reason."""
  if not program.error:
    return None if program.fits else program.hbm['total']
  size = re.search(r'([\d.]+)([GM])', program.error)
  return float(size[1]) * {'G': 2**30, 'M': 2**20}[size[2]] if size else None


def plain_name(row):
  """The key of the same step in plain Flax."""
  several = f'{row["config"]} {row["stage"]}'
  return row['config'] if row['config'].startswith('omgd/') else several


def stages():
  """(config, stage) of all that are shipped and train a generator."""
  shipped = Path(config.locate('kd/digits')[0]).parent.parent
  names = [f'{path.parent.name}/{path.stem}' for path in sorted(shipped.glob('*/*.py'))
           if not path.stem.startswith('_')]
  for name in (*names, 'omgd/edges2shoes:net=resnet'):
    c = config.load(name)
    for stage in c.run:
      if build.resolve(c.stages[stage].method.name, build.HOMES['method']).is_generator:
        yield name, stage


def known():
  """{key: row} of all that was compiled; of several, the newest."""
  lines = ROWS.read_text().splitlines() if ROWS.exists() else []
  return {tuple(row[key] for key in KEY): row for row in map(json.loads, lines)}


def compile_missing(args):
  """Compiles one row after the other, each in a process of its own, and appends what came of it."""
  import plain_flax
  for name, stage in stages():
    for machine in args.machines.split(','):
      for dtype in args.dtypes.split(','):
        for plain in (False, True)[:1 + args.plain]:
          row = dict(zip(KEY, (name, stage, machine, dtype, plain), strict=True))
          if args.only not in f'{name} {stage}' or tuple(row.values()) in known() or (
              plain and plain_name(row) not in plain_flax.STEPS):
            continue
          done = subprocess.run([sys.executable, __file__, f'--work={json.dumps(row)}'],
                                stdout=subprocess.PIPE, text=True)
          if done.returncode:
            print(f'{" ".join(map(str, row.values()))} ended with {done.returncode}', flush=True)
            continue
          line = done.stdout.splitlines()[-1]
          with ROWS.open('a') as file:
            file.write(line + '\n')
          print(line[:300], flush=True)


def page():
  """Lines of the page."""
  rows = known()
  versions = sorted({row['jax'] for row in rows.values()})
  yield (PAGE_HEAD.format(jax=', '.join(versions)))
  yield '## Beside plain Flax\n'
  yield ('| step | type | batch | cycles | of peak | compiling | program | plain: batch | cycles | '
         'of peak | compiling | program | cycles an image, ours / plain |\n|---|---|' + '--:|' * 11)
  for key, row in rows.items():
    if row['plain'] and (ours := rows.get((*key[:-1], False))):
      sides = (f'{side["batch"]} | {figures(side)}' for side in (ours, row))
      yield (f'| {row["config"]} {row["stage"]} | {row["dtype"]} | {" | ".join(sides)} | '
             f'{ratio(ours, row)} |')
  yield '\n## All steps\n'
  yield ('| step | batch | machine | devices | type | memory, GiB | cycles | of peak | compiling '
         '| program | exchanged, MiB |\n|---|---|---|--:|---|' + '--:|' * 6)
  for row in sorted(rows.values(), key=lambda row: [str(row[key]) for key in KEY]):
    if not row['plain']:
      yield described(row)


def figures(row):
  if row['error']:
    needs = re.search(r'\(([\d.]+G)\)', row['error'])
    return f'does not fit: needs {needs[1]} | | |' if needs else f'{row["error"]} | | |'
  cycles = f'{row["cycles"] / 1e6:.1f} M' if row['cycles'] else ''
  share = f'{row["share_of_peak"]:.1%}' if row['share_of_peak'] else ''
  code = f'{row["hbm"]["code"] / 1e6:.0f} MB' if row['hbm']['code'] else ''
  return f'{cycles} | {share} | {row["seconds"]:.0f} s | {code}'


def ratio(ours, plain):
  if not ours['cycles'] or not plain['cycles']:
    return ''
  return f'**{ours["cycles"] / ours["batch"] / (plain["cycles"] / plain["batch"]):.2f}**'


def described(row):
  target, _, devices = row['machine'].rpartition('/')
  size = ''
  if not row['error']:
    size = f'{row["hbm"]["total"] / 2**30:.2f}' + ('' if row['fits'] else ', too much')
  exchanged = sum(size for _, size in row['collectives'].values()) / 2**20
  batch = str(row['batch'])
  if row.get('published_needs'):
    batch += f' (at {row["published_batch"]} it needs {row["published_needs"] / 2**30:.0f} GiB)'
  return (f'| {row["config"]} {row["stage"]} | {batch} | {target} | {devices} | '
          f'{row["dtype"]} | {size} | {figures(row)} | {exchanged:.1f} |')


PAGE_HEAD = '''# Training steps through the compilers of TPUs and GPUs

Written by `python benchmarks/accelerators.py` (JAX {jax}). No chip took part: XLA's compilers ran
on CPUs. **Cycles are the compiler's estimates, by which it schedules a program; nothing was
measured.** Every device has the batch of the config, or where that does not fit, the largest half,
quarter or so on that does. "Of peak" is the arithmetic of the step over what the chip computes in
bfloat16 in these cycles. "Program" is the size of the compiled code. Compilers for GPUs give memory
alone. How long compiling takes depends on what else the machine does: OMGD's U-Net step took its
253 s nearly alone on two cores, others were compiled beside other work. KD's step took 60 s alone
before its norms were changed as below, and 89 s after the first of these changes.

Programs of ours are compiled with the options of `core.xla`, which halve the time to compile for 1
to 2 % more cycles (with XLA's own, an earlier version of OMGD's U-Net step took 995 s beside other
work, 552 MB and 144.8 M cycles; with ours 256 s alone, 220 MB, 147.1 M); the plain ones with XLA's
own, as a newcomer would, and so are the rows of cat/maps and cat/horse2zebra, which are older than
the options. From 16 images a chip on, the library takes XLA's own convolutions
(`nn/layers/conv_tpu.py`), so that what is left between KD's two steps are their norms: with the
variance in a pass of its own and the gradient that JAX derives, ours was 19.8 M; with the closed
gradient 18.5 M; with the variance in the pass of the mean, as Flax has it, 16.4 M. At 42 % of the
peak, half of the plain step would be 83 %. Within OMGD's U-Net step no place stands out any more:
the costliest, 331 rearrangements between operations, is 5 % of it. Image layers of 7x7 cost half
since the row of edges2shoes:net=resnet was compiled. Steps that are not in the tables have not been
compiled yet.
'''


def main():
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--only', default='')
  parser.add_argument('--machines', default=','.join(MACHINES))
  parser.add_argument('--dtypes', default='float32,bfloat16')
  parser.add_argument('--plain', action='store_true')
  parser.add_argument('--page', action='store_true')
  parser.add_argument('--work', help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.work:
    print(json.dumps(work(json.loads(args.work))))
    return
  if not args.page:
    compile_missing(args)
  PAGE.write_text('\n'.join(page()) + '\n')


if __name__ == '__main__':
  main()
