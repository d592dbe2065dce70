"""The steps of the library beside tuned PyTorch on one GPU: `gpu.sh` says how to run it.

Equal outputs first: two steps of each method in true float32 (no TF32), beside PyTorch's eager
mode, at small widths; a method that differs is not timed. Meanwhile the GPU subset of the tests
runs.

Then the published sizes, two methods at once (one at the larger batch), in both precisions. Their
programs are compiled side by side, so a time of compilation is that of a busy machine, and XLA
tries its algorithms while others use the GPU; cuDNN of PyTorch tries them alone. Then, while
everyone else sleeps, one case after the other is timed, ours and PyTorch in turn.

PyTorch is tuned: channels_last, fused Adam, cudnn.benchmark, in bfloat16 under autocast; 'compiled'
with torch.compile around each network as well. float32 is TF32 inside convolutions and matrix
products on both sides, as XLA has it by itself. The ratio is our time over that of the faster of
PyTorch's two that were ready in time: below 1 we are faster.

On an H100 with 16 cores one group of two methods takes about 100 s. What 8 minutes do not hold is
named in the results; `--batches` and `--cases` take the rest to another command.

Memory: what our program needs by XLA's account, arguments included, and the peak of PyTorch's
tensors in one step. 'held' is the most that XLA's allocator held, which counts what trying
algorithms took. 'gap' is the largest relative difference of the losses of the first step.
"""

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax_vs_torch as base
import numpy as np
from jax_vs_torch import Case, Worker

HERE = Path(__file__).resolve().parent
# No process takes the GPU for itself; `prepare` bounds what XLA takes.
SHARED = {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false', 'TORCHINDUCTOR_COMPILE_THREADS': '4',
          'OMP_NUM_THREADS': '2', 'TF_CPP_MIN_LOG_LEVEL': '2'}
PRECISIONS = {'float32': 'tuned', 'bfloat16': 'tuned_half'}
# {who is timed: (side, prefix of the variant)}
SIDES = {'jax': ('jax', ''), 'torch': ('torch', 'eager_'), 'compiled': ('torch', '')}
# What ends of time are for: writing, and ending processes.
MARGIN = 12


def published(batch):
  """The networks of published runs, at 256 px."""
  # CAT's judge of pairs (configs/cat/_stages.py); the ResNet of nine blocks of Isola et al. 2017.
  yield Case('pix2pix', 'resnet', {'ngf': 64}, 256, batch, ndf=128)
  # The teacher of OMGD on horse2zebra is a separable ResNet; ndf of CAT (configs/cat/horse2zebra).
  yield Case('cyclegan', 'mobile_resnet', {'ngf': 64}, 256, batch, ndf=64)
  # configs/omgd/edges2shoes.py: wide 64, student 16, judge 128.
  yield Case('omgd', 'unet', {'ngf': 64}, 256, batch, student=16, ndf=128)
  # configs/cat/maps.py: 4.6 G multiply-accumulates, about a tenth of the teacher's.
  yield Case('cat', 'inception', {'ngf': 64}, 256, batch, ndf=128, budget=4.6e9)
  # configs/kd/celeba.py: 87:1, where these networks end: 64 px.
  yield Case('kd', 'dcgan', {'d': 128, 'channels': 3}, 64, batch, student=8)


def small(batch, width):
  yield Case('pix2pix', 'resnet', {'ngf': width}, 64, batch, ndf=width)
  yield Case('cyclegan', 'mobile_resnet', {'ngf': width}, 64, batch, ndf=width)
  yield Case('omgd', 'unet', {'ngf': width, 'depth': 6}, 64, batch, student=width // 2, ndf=width)
  yield Case('cat', 'inception', {'ngf': width}, 64, batch, ndf=width, budget=.1)
  yield Case('kd', 'dcgan', {'d': width, 'channels': 3}, 64, batch, student=width // 2)


def command(*words):
  """What a command prints, stripped; '' where there is none."""
  try:
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True)
    return done.stdout.strip()
  except (OSError, subprocess.SubprocessError):
    return ''


def last(error):
  """The last line that says something."""
  lines = [line.strip() for line in str(error).splitlines()
           if line.strip(' -') and 'JAX_TRACEBACK_FILTERING' not in line]
  return lines[-1][-300:] if lines else type(error).__name__


# Equal outputs and tests ------------------------------------------------------------------------


def same(case, folder, torch, until):
  """Two steps of both sides in float32: '' where they agree."""
  folder.mkdir(parents=True, exist_ok=True)
  workers = []
  try:
    looks = []
    for side, variant, python in (('jax', 'float32', sys.executable), ('torch', 'exact', torch)):
      worker = Worker(python, side, variant, case, folder,
                      more={**SHARED, 'JAX_DEFAULT_MATMUL_PRECISION': 'highest',
                            'XLA_FLAGS': '--xla_gpu_autotune_level=0'})  # of no use to a few steps
      workers.append(worker)
      worker.ask(until=until)
      looks.append([worker.look(i, until)[1] for i in range(2)])
    wrong = [text for a, b in zip(*looks, strict=True) if (text := base.differs(a, b))]
    return wrong[0] if wrong else ''
  except (RuntimeError, OSError, KeyError) as e:
    return last(e)
  finally:
    for worker in workers:
      worker.kill()


class Tests:
  """The GPU subset of the tests, in processes beside this one."""

  def __init__(self, out, on_gpu, seconds):
    self.path, self.seconds = out / 'tests.txt', seconds
    env = {**os.environ, **SHARED, 'JAX_DEFAULT_MATMUL_PRECISION': 'highest',
           'JAXGAN_TEST_PLATFORM': 'cuda' if on_gpu else 'cpu'}
    self._file = self.path.open('w')
    self._process = subprocess.Popen(
        [sys.executable, '-m', 'pytest', '-m', 'gpu', '-o', 'addopts=', '-v', '--durations=8',
         '-p', 'no:cacheprovider', '-n', '12' if on_gpu else '1', '--timeout=100', 'tests'],
        cwd=HERE.parent, env=env, stdout=self._file, stderr=subprocess.STDOUT,
        start_new_session=True)

  def wait(self, until):
    """Their last line, and those of what failed."""
    try:
      self._process.wait(max(0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
      self.end()
      return [f'stopped after {self.seconds:.0f} s: {self._count("PASSED")} passed, '
              f'{self._count("FAILED")} failed; see tests.txt']
    self._file.close()
    lines = self.path.read_text().splitlines()
    failed = [line for line in lines if line.startswith(('FAILED', 'ERROR'))]
    return [(lines or ['nothing'])[-1].strip('= '), *(line[:240] for line in failed)]

  def _count(self, word):
    return sum(word in line and '%]' in line for line in self.path.read_text().splitlines())

  def end(self):
    if self._process.poll() is None:
      os.killpg(self._process.pid, signal.SIGKILL)
      self._process.wait()


# Times ------------------------------------------------------------------------------------------


class Entry:
  """One case in one precision: two workers, and what is known of them."""

  def __init__(self, case, half, folder):
    self.case, self.half, self.folder = case, half, folder
    self.workers, self.row = {}, {'case': case.name, 'precision': half, 'batch': case.batch}

  def fails(self, side, error):
    self.row.setdefault('failed', {})[side] = last(error)
    self.row.setdefault('errors', {})[side] = str(error)

  def kill(self):
    for worker in self.workers.values():
      worker.kill()
    self.workers = {}


def prepare(entries, torch, until, at_once):
  """Starts and compiles every worker of a group, so many at once."""
  turn = threading.Semaphore(at_once)
  written = {entry.folder: threading.Event() for entry in entries}
  # XLA tries algorithms that take 50 GB of memory if there are; PyTorch takes what it needs.
  more = {**SHARED, 'XLA_PYTHON_CLIENT_MEM_FRACTION': f'{.75 / len(entries):.2f}'}

  def one(entry, name):
    side, prefix = SIDES[name]
    variant = entry.half if side == 'jax' else prefix + PRECISIONS[entry.half]
    first = side == 'jax' and entry.half == 'float32'  # which writes what the others start from
    try:
      if side == 'torch':
        written[entry.folder].wait(max(0, until - time.monotonic()))
      with turn:
        worker = Worker(sys.executable if side == 'jax' else torch, side, variant, entry.case,
                        entry.folder, ahead=True, more=more)
        entry.workers[name] = worker
        about = worker.ask(until=until)
        if first:
          written[entry.folder].set()
        ready = worker.ask('ready', until)
      entry.row[name] = {**about, **ready, 'compile': ready['seconds'] - 2 * ready.get('second', 0)}
    except (RuntimeError, OSError, ValueError) as e:
      entry.fails(name, e)
      if name in entry.workers:
        entry.workers.pop(name).kill()  # it may still compile
    finally:
      if first:
        written[entry.folder].set()

  jobs = [(entry, name) for name in SIDES for entry in entries]
  with ThreadPoolExecutor(len(jobs)) as pool:
    list(pool.map(lambda job: one(*job), jobs))


def measure(entry, rounds, seconds, until):
  """Times the prepared workers of a case in turn."""
  row, ways = entry.row, {}
  for name, worker in entry.workers.items():
    try:
      if name == 'jax':
        first, found = worker.look(0, until)
        row['jax'].update(first=first, found={k: float(x) for k, x in found.items() if not x.ndim})
        worker.ask('time 2', until)
        row['jax']['held'] = worker.ask('peak', until)['peak']
      else:
        row[name]['peak'] = worker.ask('tune', until)['peak']
      ways[name] = worker.ask('time 2', until)['seconds']
    except (RuntimeError, OSError) as e:
      entry.fails(name, e)
  losses = [row[name].get('found', {}) for name in ('jax', 'torch') if name in ways]
  if len(losses) == 2 and (shared := losses[0].keys() & losses[1].keys()):
    row['gap'] = max(abs(losses[0][k] - losses[1][k]) / max(1e-2, abs(losses[1][k]))
                     for k in shared)
  row['times'] = {name: [] for name in ways}
  try:
    for _ in range(rounds):
      for name, steady in ways.items():
        count = max(1, min(500, round(seconds / steady)))
        row['times'][name].append(
            entry.workers[name].ask(f'time {count}', until + 10)['seconds'])
  except (RuntimeError, OSError) as e:
    entry.fails('timing', e)


# Results ----------------------------------------------------------------------------------------


def middle(row, name):
  """Median seconds of a step; None where there are no times."""
  times = row.get('times', {}).get(name)
  return statistics.median(times) if times else None


def best(row):
  """Which of PyTorch's two is faster; None where neither was timed."""
  return min((name for name in ('torch', 'compiled') if middle(row, name)),
             key=lambda name: middle(row, name), default=None)


def ratio(row):
  """(median, lower, upper quartile) of our time over PyTorch's best; None where one is missing."""
  if not best(row) or not middle(row, 'jax'):
    return None
  times = row['times']
  each = [a / b for a, b in zip(times['jax'], times[best(row)], strict=False)]
  return tuple(np.quantile(each, (.5, .25, .75)))


def cells(row):
  rate = lambda name: f'{1 / middle(row, name):.2f}' if middle(row, name) else ''
  number = lambda side, key, by=1: f'{row[side][key] / by:.0f}' if row.get(side, {}).get(
      key) is not None else ''
  found = ratio(row)
  yield row['case']
  yield from map(rate, SIDES)
  yield f'**{found[0]:.2f}** ({found[1]:.2f} to {found[2]:.2f})' if found else ''
  yield number('jax', 'program', by=2**20)
  yield number('jax', 'held', by=2**20)
  yield number(best(row), 'peak', by=2**20)
  yield number('jax', 'compile')
  yield number('compiled', 'compile')
  yield f'{row["gap"]:.1e}' if 'gap' in row else ''


HEAD = ['case', 'ours, steps/s', 'PyTorch, steps/s', 'compiled, steps/s', 'ratio (quartiles)',
        'ours, MiB', 'held, MiB', 'PyTorch, MiB', 'ours compiles, s', 'PyTorch compiles, s', 'gap']


def report(results):
  about = results['about']
  lines = [f'# Steps on {about["device"]}', '', *(f'- {key}: {value}' for key, value in
                                                 about.items() if key != 'device' and value), '']
  if results.get('tests'):
    lines += ['## Tests', '', *(f'- {line}' for line in results['tests']), '']
  if results.get('same'):
    lines += ['## Equal outputs', '', 'Losses of two steps in true float32, within 2e-3, beside '
              "PyTorch's eager mode:", '']
    lines += [f'- {name}: {text or "equal"}' for name, text in results['same'].items()] + ['']
  for half in PRECISIONS:
    rows = [row for row in results['rows'] if row['precision'] == half]
    if not rows:
      continue
    lines += [f'## {half}' + (' (TF32 in products, both sides)' if half == 'float32' else
                              ' (PyTorch under autocast)'), '',
              '| ' + ' | '.join(HEAD) + ' |', '|---' + '|--:' * (len(HEAD) - 1) + '|',
              *('| ' + ' | '.join(cells(row)) + ' |' for row in rows), '']
    ratios = [found[0] for row in rows if (found := ratio(row))]
    if ratios:
      lines += [f'Of {len(ratios)} cases: geometric mean {statistics.geometric_mean(ratios):.2f}, '
                f'worst {max(ratios):.2f}.', '']
  failed = [f'- {row["case"]}, {row["precision"]}, {side}: {text}' for row in results['rows']
            for side, text in row.get('failed', {}).items()]
  failed += [f'- {text}' for text in results['left_out']]
  lines += ['## What failed or was left out', '', *failed, ''] if failed else []
  return '\n'.join(lines) + '\n'


def write(results, out):
  results['about']['seconds so far'] = round(time.monotonic() - results['start'])
  (out / 'speed.json').write_text(json.dumps(results, indent=1))
  (out / 'speed.md').write_text(report(results))


def main():
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--torch', default=sys.executable, help='the Python that has PyTorch')
  parser.add_argument('--out', type=lambda path: Path(path).expanduser(),
                      help='the folder of results; runs/gpu/DEVICE otherwise')
  parser.add_argument('--limit', type=float, default=475., help='seconds that all of it may take')
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--seconds', type=float, default=.2, help='of one timing, at least one step')
  parser.add_argument('--cases', default='', help='parts of names, separated by ;, one of which a '
                      'case must have; all without')
  parser.add_argument('--batches', default='4,16', help='of each case, in this order')
  parser.add_argument('--no_tests', action='store_true', help='leaves the tests out')
  parser.add_argument('--rehearse', action='store_true', help='tiny sizes, on CPUs')
  args = parser.parse_args()
  start = time.monotonic()
  end = start + args.limit - MARGIN
  gpu = command('nvidia-smi', '--query-gpu=name,driver_version,memory.total',
                '--format=csv,noheader')
  on_gpu = bool(gpu) and not args.rehearse
  if not on_gpu and not args.rehearse:
    parser.error('nvidia-smi names no GPU; --rehearse runs tiny sizes on CPUs')
  if args.rehearse:
    SHARED['JAX_PLATFORMS'], SHARED['CUDA_VISIBLE_DEVICES'] = 'cpu', ''
  device = gpu.split(',')[0].strip() if on_gpu else 'CPU (rehearsal)'
  slug = re.sub(r'[^a-z0-9]+', '-', device.lower()).strip('-')
  out = args.out or HERE.parent / 'runs' / 'gpu' / slug
  out.mkdir(parents=True, exist_ok=True)
  scratch = Path(tempfile.mkdtemp(prefix='jaxgan-gpu-'))
  SHARED['TORCHINDUCTOR_CACHE_DIR'] = str(scratch / 'inductor')
  SHARED['TRITON_CACHE_DIR'] = str(scratch / 'triton')
  results = {'about': {'device': device, 'GPU': gpu, 'CPU cores': os.cpu_count(),
                       'rounds': args.rounds, 'seconds of a timing': args.seconds},
             'same': {}, 'rows': [], 'left_out': [], 'start': start}
  chosen = lambda cases: [case for case in cases
                          if any(part in case.name for part in args.cases.split(';'))]
  batches = [2, 4] if args.rehearse else [int(n) for n in args.batches.split(',')]
  sized = (lambda n: small(n, 8)) if args.rehearse else published
  say = lambda *words: print(f'[{time.monotonic() - start:4.0f} s]', *words, flush=True)
  say(f'{device}; results go to {out}')
  entries, tests = [], None
  try:
    if not args.no_tests:
      tests = Tests(out, on_gpu, 120 if on_gpu else 240)
      results['tests'] = tests.wait(min(end, time.monotonic() + tests.seconds))
      say('tests:', *results['tests'])
    until = min(end, time.monotonic() + (75 if on_gpu else 240))
    cases = chosen(small(2, 16 if on_gpu else 8))
    with ThreadPoolExecutor(len(cases) if on_gpu else 1) as pool:
      found = pool.map(lambda case: same(case, scratch / f'same-{case.step}', args.torch, until),
                       cases)
      for case, text in zip(cases, found, strict=True):
        results['same'][case.name] = text
        say(f'{case.name}: {text or "equal"}')
    write(results, out)
    differing = {case.step for case in cases if results['same'][case.name]}
    groups = []
    for batch in batches:
      cases = chosen(sized(batch))
      together = 2 if on_gpu and batch < 8 else 1  # a CycleGAN of 16 images takes 30 GB
      groups += [cases[i:i + together] for i in range(0, len(cases), together)]
    for i, group in enumerate(groups):
      if time.monotonic() - start > .82 * args.limit:  # of 8 minutes 6.5
        results['left_out'] += [f'{case.name}: no time was left' for case in group]
        continue
      for case in [case for case in group if case.step in differing]:
        results['left_out'].append(f'{case.name}: see equal outputs')
      entries = []
      for case in [case for case in group if case.step not in differing]:
        folder = scratch / f'{case.step}-{case.batch}'
        folder.mkdir()
        entries += [Entry(case, half, folder) for half in PRECISIONS]
      if not entries:
        continue
      # Of its share of what time is left, all but what timing takes.
      now = time.monotonic()
      until = now + max(45, (end - now) / (len(groups) - i) - 7 * len(entries))
      prepare(entries, args.torch, min(until, end), len(entries) * 3 if on_gpu else 1)
      say(f'{len(entries)} cases are compiled')
      for entry in entries:
        if time.monotonic() < end:
          measure(entry, args.rounds, args.seconds, end)
        else:
          entry.fails('timing', 'no time was left')
        entry.kill()
        results['rows'].append(entry.row)
        for side in SIDES:
          if 'version' in entry.row.get(side, {}):
            results['about'][side] = entry.row[side]['version']
        say('| ' + ' | '.join(cells(entry.row)) + ' |',
            *(f'{side}: {text}' for side, text in entry.row.get('failed', {}).items()))
        write(results, out)
  finally:
    for entry in entries:
      entry.kill()
    if tests:
      tests.end()
    write(results, out)
    shutil.rmtree(scratch, ignore_errors=True)
  print('\n' + report(results))


if __name__ == '__main__':
  main()
