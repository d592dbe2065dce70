"""What compilers for TPUs and GPUs say of published training steps: writes docs/accelerators.md.

    python benchmarks/accelerators.py [--only=omgd/edges2shoes]
        [--machines=tpu:v5e:2x2/1,gpu:h100/1] [--dtypes=float32] [--plain] [--timeout=30]
        [--quick] [--alone] [--page]

Compiles each stage of each shipped config at its published size, every device with the batch of the
config, for the --machines (target/devices), and with --plain also the same step in plain Flax
(`plain_flax.py`). Nothing runs, no chip is needed; `jaxgan-compress[tpu]` and `[cuda13]` bring the
compilers. A large step takes minutes and up to 9 GB; small images come first, and after --timeout
minutes the row says that its step was not compiled in that time. --alone says that nothing else
keeps the machine busy: only then the page shows how long compiling took. What is in
docs/accelerators.jsonl already is not compiled again, so the command goes on where it stopped. Nor
is a step that differs from one there only in arithmetic on single numbers, such as learning rates:
its row has the figures of that one. --quick compiles with XLA's least effort, in a tenth of the
time: it says whether a step compiles and fits, but has no cycles; the command without --quick
compiles such a step again. --page only writes the page.
"""

import argparse
import datetime
import hashlib
import itertools
import json
import math
import re
import signal
import subprocess
import sys
from pathlib import Path

import jax

from jaxgan_compress import config
from jaxgan_compress.analysis import Program
from jaxgan_compress.config import build

DOCS = Path(__file__).parent.parent / 'docs'
ROWS, PAGE = DOCS / 'accelerators.jsonl', DOCS / 'accelerators.md'
MACHINES = ('tpu:v5e:2x2/1', 'tpu:v5e:4x4/16', 'tpu:v5e:16x16/256', 'tpu:v5p:2x2x2/8', 'gpu:h100/1')
KEY = ('config', 'stage', 'machine', 'dtype', 'plain')
PROGRAM = ('fingerprint', 'machine', 'dtype', 'plain', 'jax')
# Of a program's text: lines with arrays, and names of values and of functions.
ARRAY = re.compile(r'tensor<\d')
NAME = re.compile(r'%\w+(?:[:#]\d+)?|(?<=[ .]call )@\w+')


def work(row, timeout):
  """The row with what the compiler says, at the published batch and, where that does not fit, at
  the largest half, quarter or so on of it that does; or with what it said of an equal program."""
  jax.config.update('jax_platforms', 'cpu')
  if row['quick']:
    jax.config.update('jax_exec_time_optimization_effort', -1.)
  c = config.load(row['config'])
  lowered, batch = None, row['published_batch']
  if not row['plain']:
    lowered = lower(row, c, batch)
    row['fingerprint'] = fingerprint(lowered.as_text())
    if equal := equal_row(row, timeout):
      return {**equal, **{key: row[key] for key in (*KEY, 'date')},
              'same_as': f'{equal["config"]} {equal["stage"]}'}
    print(json.dumps(row), flush=True)  # what remains if the time is over
  found = compiled(row, c, batch, lowered)
  published_needs = needed = memory_needed(found)
  while needed and batch > 1:
    fitting = batch * found.hbm['available'] / needed
    batch = max(1, min(batch // 2, 2 ** int(math.log2(fitting))))
    found = compiled(row, c, batch)
    needed = memory_needed(found)
  found = found.to_dict()
  found['costliest'] = found['costliest'][:5]
  if row['quick']:  # the estimates are those of code that nobody would run
    found |= {'cycles': None, 'share_of_peak': None, 'costliest': []}
  return {**row, 'published_needs': published_needs, 'batch': batch, **found}


def lower(row, c, batch):
  """The program of a row of ours, as the compiler gets it."""
  from jaxgan_compress.experiment import compilation
  target, devices = machine_of(row)
  return compilation.lower_stage(c, target, row['stage'], devices=devices, batch=batch,
                                 dtype=row['dtype'])


def compiled(row, c, batch, lowered=None):
  """The `analysis.Program` of a row; `lowered` saves lowering it again."""
  import plain_flax

  from jaxgan_compress import analysis
  from jaxgan_compress.analysis import ahead_of_time, targets
  target, devices = machine_of(row)
  if row['plain']:
    step, args = plain_flax.STEPS[plain_name(row)](batch=batch, dtype=row['dtype'])
    return analysis.compile_for(step, *args, target=target, donate_argnums=(0,))
  return ahead_of_time.compile_lowered(lowered or lower(row, c, batch),
                                       targets.parse_target(target), devices)


def machine_of(row):
  target, _, devices = row['machine'].rpartition('/')
  return target, int(devices)


def fingerprint(text):
  """What programs (StableHLO) have in common that differ only in names and in arithmetic on single
  numbers, as of learning rates and weights of losses: their operations on arrays, in order, and the
  conditions of loops, which say how often they turn."""
  kept, condition = [], False
  for line in text.splitlines():
    condition = (condition or line.endswith(' cond {')) and '} do {' not in line
    if condition or (ARRAY.search(line) and not re.search(r'func\.func|return', line)):
      kept.append(NAME.sub('', line).strip())
  return hashlib.sha256('\n'.join(kept).encode()).hexdigest()[:16]


def equal_row(row, timeout):
  """The row of a program with this fingerprint that was compiled, or None."""
  wanted = [row[key] for key in PROGRAM]
  return next((one for one in known().values() if [one.get(key) for key in PROGRAM] == wanted
               and 'same_as' not in one and finished(one, timeout, row['quick'])), None)


def finished(row, timeout, quick):
  """Whether a row was compiled, or given up after no less than so many minutes; a `quick` one is
  enough only where that is asked."""
  return row.get('given_up_after', timeout) >= timeout and (quick or not row.get('quick'))


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
  """{key: row} of all that was compiled; of several, the newest that is not `quick`."""
  rows = map(json.loads, ROWS.read_text().splitlines() if ROWS.exists() else [])
  return {tuple(row[key] for key in KEY): row
          for row in sorted(rows, key=lambda row: not row.get('quick'))}


def size(where):
  """(side of an image, images): large images take large networks, whatever the batch."""
  c = config.load(where[0])
  side = c.data.get('size', 256)
  return side if isinstance(side, int) else max(side), c.stages[where[1]].batch or c.batch


def missing(args):
  """Rows that have not been compiled, small images first."""
  import plain_flax
  for where, *rest in itertools.product(
      sorted(stages(), key=size), args.machines.split(','), args.dtypes.split(','),
      (False, True)[:1 + args.plain]):
    row = dict(zip(KEY, (*where, *rest), strict=True))
    before = known().get(tuple(row.values()))
    if args.only in ' '.join(where) and not (
        before and finished(before, args.timeout, args.quick)) and (
            not row['plain'] or plain_name(row) in plain_flax.STEPS):
      batch = size(where)[1]
      yield {**row, 'alone': args.alone, 'quick': args.quick, 'published_batch': batch,
             'batch': batch, 'jax': jax.__version__, 'date': datetime.date.today().isoformat()}


def compile_row(row, timeout):
  """Compiles a row in a process of its own and appends what came of it."""
  try:
    done = subprocess.run(
        [sys.executable, __file__, f'--work={json.dumps(row)}', f'--timeout={timeout}'],
        stdout=subprocess.PIPE, timeout=60 * timeout)
  except subprocess.TimeoutExpired as late:
    found = {**failed(row, late.stdout, f'not compiled within {timeout:g} minutes'),
             'given_up_after': timeout}
  else:
    if done.returncode > 0:
      print(f'{" ".join(map(str, row.values()))} ended with {done.returncode}', flush=True)
      return
    found = json.loads(done.stdout.splitlines()[-1]) if not done.returncode else failed(
        row, done.stdout, f'the compiler ended with {signal.Signals(-done.returncode).name}')
  line = json.dumps(found)
  with ROWS.open('a') as file:
    file.write(line + '\n')
  print(line[:300], flush=True)


def failed(row, said, error):
  """The row of a process that ended before it could say more than this."""
  return {**Program(*machine_of(row), error).to_dict(), **row,
          **json.loads((said or b'{}').splitlines()[-1])}


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
  equal = {}
  for row in sorted(rows.values(), key=lambda row: [str(row[key]) for key in KEY]):
    name = f'{row["config"]} {row["stage"]}'
    if not row['plain']:
      equal.setdefault((row.get('same_as', name), row['machine'], row['dtype']), []).append(row)
  yield from map(described, equal.values())


def figures(row):
  if row['error']:
    needs = re.search(r'\(([\d.]+G)\)', row['error'])
    return f'does not fit: needs {needs[1]} | | |' if needs else f'{row["error"]} | | |'
  cycles = f'{row["cycles"] / 1e6:.1f} M' if row['cycles'] else \
      'least effort' if row.get('quick') else ''
  share = f'{row["share_of_peak"]:.1%}' if row['share_of_peak'] else ''
  code = f'{row["hbm"]["code"] / 1e6:.0f} MB' if row['hbm']['code'] else ''
  seconds = f'{row["seconds"]:.0f} s' if row.get('alone') else ''
  return f'{cycles} | {share} | {seconds} | {code}'


def ratio(ours, plain):
  if not ours['cycles'] or not plain['cycles']:
    return ''
  return f'**{ours["cycles"] / ours["batch"] / (plain["cycles"] / plain["batch"]):.2f}**'


def described(rows):
  """The line of rows of one program."""
  row = next((row for row in rows if 'same_as' not in row), rows[0])
  names = ', '.join(f'{one["config"]} {one["stage"]}' for one in rows)
  target, devices = machine_of(row)
  size = ''
  if not row['error']:
    size = f'{row["hbm"]["total"] / 2**30:.2f}' + ('' if row['fits'] else ', too much')
  exchanged = sum(size for _, size in row['collectives'].values()) / 2**20
  batch = str(row['batch'])
  if row.get('published_needs'):
    batch += f' (at {row["published_batch"]} it needs {row["published_needs"] / 2**30:.0f} GiB)'
  return (f'| {names} | {batch} | {target} | {devices} | '
          f'{row["dtype"]} | {size} | {figures(row)} | {exchanged:.1f} |')


PAGE_HEAD = '''# Training steps through the compilers of TPUs and GPUs

Written by `python benchmarks/accelerators.py` (JAX {jax}). No chip took part: XLA's compilers ran
on CPUs. **Cycles are the compiler's estimates, by which it schedules a program; nothing was
measured.** Every device has the batch of the config, or where that does not fit, the largest half,
quarter or so on that does. "Of peak" is the arithmetic of the step over what the chip computes in
bfloat16 in these cycles. "Program" is the size of the compiled code. Compilers for GPUs give memory
alone. How long compiling takes depends on what else the machine does, so it stands only where that
was nothing (on two cores). KD's step took 60 s alone before its norms were changed as below, and
89 s after the first of these changes. Steps in one line are one program but for arithmetic on
single numbers, such as learning rates and weights of losses, and were compiled once.

Programs are compiled with the options of `core.xla`, which halve the time to compile for 1 to 2 %
more cycles; the plain ones of kd/cifar10 and omgd/edges2shoes, which are older, with XLA's own.
Where cycles read "least effort", only the fit was asked (`--quick`), and memory is more than the
step would take: 5 % for kd/cifar10 d8_joint.

OMGD's U-Net step took 147.6 M cycles as long as it was compiled under a `vmap` of one replica,
111.2 M without, 107.3 M with gradients in the layout of their parameters, and 98.0 M with few
channels one behind the other and Gram matrices of three products of maps as they lie
([tpu_forms.md](tpu_forms.md)). The ResNet step took 279.6 M, then 183.4 M and takes 187.4 M: with
the gradients of narrow kernels in that layout too it would take 171.7 M, but they are left to XLA,
for KD's students of digits take 10 % more otherwise. Of 107.3 M of the U-Net step
43 % were in the generators, 23 % in VGG, whose first maps have 64 channels, half a register, and
20 % in the discriminator; no layer was more than 8 % of it. It took 683 s to compile where KD's
step took 267 s, and 253 s under the `vmap` where KD's took 92 s.

From 16 images a chip on, the library takes XLA's own convolutions (`nn/layers/conv_tpu.py`), so
that what is left between KD's two steps are their norms: with the variance in a pass of its own and
the gradient that JAX derives, ours was 19.8 M; with the closed gradient 18.5 M; with the variance
in the pass of the mean, as Flax has it, 16.4 M, without the `vmap` 16.7 M. At 41 % of the
peak, half of the plain step would be 83 %.

The step of CAT's teacher of maps takes what plain Flax's does: at 32 images both are XLA's own
convolutions. Its blocks are 66 % of it: six branches of 42 channels, a third of a register each,
whose maps of 256 channels are read and written for every branch in float32. Its row was compiled
before 1x1 convolutions of several branches were merged, which saves 7 % of a block.

The rows of cat/gaugan, cat/horse2zebra, kd/celeba and kd/cifar10 d8_scratch_small are older and
were compiled under that `vmap`; those of least effort of fewer than 16 images before few channels
lay one behind the other. Without their lines in accelerators.jsonl they are compiled again. Steps
that are not in the tables have not been compiled yet.
'''


def main():
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--only', default='')
  parser.add_argument('--machines', default=','.join(MACHINES))
  parser.add_argument('--dtypes', default='float32,bfloat16')
  parser.add_argument('--plain', action='store_true')
  parser.add_argument('--timeout', type=float, default=30)
  parser.add_argument('--quick', action='store_true')
  parser.add_argument('--alone', action='store_true')
  parser.add_argument('--page', action='store_true')
  parser.add_argument('--work', help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.work:
    print(json.dumps(work(json.loads(args.work), args.timeout)))
    return
  if not args.page:
    for row in missing(args):
      compile_row(row, args.timeout)
  PAGE.write_text('\n'.join(page()) + '\n')


if __name__ == '__main__':
  main()
