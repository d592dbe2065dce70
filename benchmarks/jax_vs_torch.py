"""How fast are our steps and our drawings beside PyTorch's? On this machine's CPUs, or one GPU.

    python benchmarks/jax_vs_torch.py --torch=/path/to/python/with/torch [--cases=unet,inference]
        [--rounds=7] [--runs=3] [--out=runs/speed]

For each case both sides start from the same weights and take the same batch: first two steps must
log equal losses, or drawings must be equal; else the case is refused, and a variant of PyTorch that
differs from its own eager mode is left out. Then both are called in turn, each in a process of its
own that sleeps while another is timed. PyTorch runs plain, in channels_last, compiled and, with
--half, under autocast to bfloat16; ours in float32 and, with --half, bfloat16. The ratio is our
time over that of PyTorch's fastest variant of the same precision, round by round: below 1 we are
faster. Ratios depend on the machine and the hour: --runs repeats all of it with new processes, one
run of all cases after the other, and prints the lowest and the highest ratio of a run. Compilation
and the peak of memory stand apart. Both sides inherit the environment, as with
LD_PRELOAD=libjemalloc.so.2 in front of the command, which our large images want on CPUs.

Writes a table (Markdown), every time (JSON) and a plot. PyTorch may live in another environment
(--torch); the library never needs it. A case of yours is one more line of `_cases`.
"""

import argparse
import dataclasses
import json
import os
import resource
import select
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

TORCH = ('eager', 'channels_last', 'compile')
RATE = 2e-4
OPTIONS = 'CPU_OPTIONS'  # of the environment: options of XLA:CPU as JSON, in place of ours
# As `core.xla.keep_memory` has it for ours, for both sides; of glibc, and of jemalloc.
MEMORY = {'MALLOC_MMAP_MAX_': '0', 'MALLOC_TRIM_THRESHOLD_': str(2**31 - 1),
          'MALLOC_CONF': 'dirty_decay_ms:-1,muzzy_decay_ms:-1'}


@dataclasses.dataclass(frozen=True)
class Case:
  """step: 'inference', 'pix2pix', 'cyclegan', 'omgd', 'cat' or 'kd'. network: name and fields of
  the generator; of OMGD, CAT and KD the teacher; `ngf` or `d` of the student. size: pixels. ndf: of
  the PatchGAN. budget: multiply-accumulates that channels drawn at random leave of it, below 1
  their share; with CAT, of the student."""
  step: str
  network: str
  fields: dict
  size: int
  batch: int = 1
  student: int = 0
  ndf: int = 16
  budget: float = 0.

  @property
  def name(self):
    width = next(iter(self.fields.values()))
    to = f' to {self.student}' if self.student else ''
    if self.budget:
      to += f' cut to {self.budget:.0%}' if self.budget < 1 else \
          f' cut to {self.budget / 1e9:.3g} G'
    return f'{self.step}: {self.network} {width}{to}, {self.batch} x {self.size} px'


def _cases():
  for size, batch in ((64, 4), (128, 1)):
    for network, width in (('resnet', 16), ('mobile_resnet', 16), ('inception', 16)):
      yield Case('pix2pix', network, {'ngf': width}, size, batch)
  yield Case('pix2pix', 'unet', {'ngf': 16, 'depth': 6}, 64, 4)
  yield Case('pix2pix', 'unet', {'ngf': 16}, 256)
  yield Case('pix2pix', 'spade', {'ngf': 8, 'labels': 12}, 64, 4)
  yield Case('pix2pix', 'spade', {'ngf': 8, 'labels': 12}, 128)
  yield Case('cyclegan', 'mobile_resnet', {'ngf': 16}, 128)
  yield Case('omgd', 'unet', {'ngf': 16, 'depth': 7}, 128, student=4)
  yield Case('cat', 'inception', {'ngf': 16}, 64, 4, budget=.1)
  yield Case('kd', 'dcgan', {'d': 16}, 64, 16, student=4)
  for network, width, size in (('resnet', 64, 128), ('mobile_resnet', 64, 128),
                               ('inception', 16, 256), ('unet', 64, 256), ('spade', 16, 128)):
    for batch in (1, 4):
      fields = {'ngf': width} | ({'labels': 12} if network == 'spade' else {})
      yield Case('inference', network, fields, size, batch)
  yield Case('inference', 'dcgan', {'d': 64}, 64, 16)


CASES = {case.name: case for case in _cases()}

# The JAX side -----------------------------------------------------------------------------------


def networks(case, dtype):
  """{role: module} of a case."""
  import jax

  from jaxgan_compress import analysis, nn, pruning
  make = {'dcgan': nn.DCGANGenerator}.get(case.network) or getattr(nn, case.network)
  plain = {'spectral': False} if case.network == 'spade' else {}
  norm = {'norm': 'batch'} if case.network in ('inception', 'unet') else {}
  build = lambda **more: make(**{**case.fields, **plain, **norm, **more}, dtype=dtype)
  disc = lambda inputs: nn.PatchGAN(
      ndf=case.ndf, inputs=inputs, norm='batch', dtype=dtype,
      **({'heads': ('wide',)} if case.step == 'omgd' else {}))
  width = next(iter(case.fields))
  if case.budget:
    whole = build()
    shape = (1, case.size, case.size, whole.example().shape[-1])
    share = 1 if case.budget >= 1 else analysis.macs(whole, shape)
    small = pruning.prune(whole, nn.initialise(whole, jax.random.key(0)), shape,
                        budget=case.budget * share, criterion='random', key=jax.random.key(1),
                        min_channels=16 if case.budget >= 1 else 1).module
    return {'generator': small} if case.step == 'inference' else {
        'teacher': whole, 'student': small, 'disc': disc(6)}
  if case.step == 'inference':
    return {'generator': build()}
  if case.step == 'pix2pix':
    return {'generator': build(), 'disc': disc(3 + case.fields.get('labels', 3))}
  if case.step == 'cyclegan':
    return {'generator': build(), 'generator_ba': build(), 'disc': disc(3), 'disc_ba': disc(3)}
  if case.step == 'kd':
    return {'teacher': build(), 'student': build(**{width: case.student})}
  return {'wide': build(), 'student': build(**{width: case.student}), 'disc': disc(6),
          'features': nn.VGG(16, dtype=dtype)}


def twin(module):
  """What `torch_twins` builds beside a module: its name and its fields."""
  from jaxgan_compress import nn
  fields = lambda *names: {name: getattr(module, name) for name in names}
  if isinstance(module, nn.ResNetGenerator):
    return 'resnet', fields('stem', 'hidden', 'up', 'inputs', 'channels', 'norm', 'separable',
                            'dropout')
  if isinstance(module, nn.UNetGenerator):
    return 'unet', fields('down', 'up', 'inputs', 'channels', 'norm')
  if isinstance(module, nn.InceptionGenerator):
    return 'inception', fields('stem', 'up', 'inputs', 'channels', 'norm') | {
        'blocks': [(each.dense, each.depthwise) for each in module.blocks]}
  if isinstance(module, nn.SPADEGenerator):
    names = ['head_0', 'G_middle_0', 'G_middle_1', *(f'up_{i}' for i in range(4))]
    return 'spade', fields('fc', 'labels', 'channels') | {
        'names': names, 'scale': {'normal': 32, 'more': 64}[module.upsampling],
        'blocks': [dataclasses.astuple(block) for block in module.blocks]}
  if isinstance(module, nn.DCGANGenerator):
    return 'dcgan', {'widths': module.layer_widths, **fields('latent', 'channels')}
  if isinstance(module, nn.PatchGAN):
    return 'patch', fields('ndf', 'layers', 'inputs', 'norm')
  return 'vgg', {}


def batch_of(case):
  """One random batch, {name: NHWC}."""
  rng = np.random.default_rng(0)
  if case.network == 'dcgan':
    return {'z': rng.standard_normal((case.batch, 100), np.float32)}
  image = lambda: rng.uniform(-1, 1, (case.batch, case.size, case.size, 3)).astype(np.float32)
  source = image()
  if labels := case.fields.get('labels'):
    coarse = rng.integers(0, labels, (case.batch, case.size // 8, case.size // 8))
    source = np.eye(labels, dtype=np.float32)[coarse.repeat(8, 1).repeat(8, 2)]
  return {'source': source, 'target': image()}


def method_of(case, modules):
  import optax

  from jaxgan_compress import methods, nn
  tx = optax.adam(RATE, b1=.5, b2=.999)
  if case.step == 'kd':
    return methods.KD(**modules, tx=tx)
  adversary = lambda loss: methods.Adversary(modules['disc'], tx, loss)
  if case.step == 'pix2pix':
    return methods.Pix2Pix(modules['generator'], adversary('hinge'), tx)
  if case.step == 'cyclegan':
    return methods.CycleGAN(modules['generator'], adversary('lsgan'), tx, pool=0)
  if case.step == 'cat':  # aligned as published for maps
    return methods.CAT(modules['student'], modules['teacher'], adversary('hinge'), tx,
                       align_weight=5.2)
  return methods.OMGD(modules['student'], tx, adversary('hinge'), wide=modules['wide'],
                      distill=methods.DistillLoss(
                          feature_net=nn.VGG(16, dtype=modules['features'].dtype)))


def jax_worker(case, variant, folder, ahead=False):
  """A call that takes one step, or draws once, and returns {name: array}, its device's name and
  functions that answer orders: 'peak' says how many bytes its device held at most, 'ready', with
  `ahead`, compiles the step and runs nothing. Writes what PyTorch starts from."""
  import jax
  import jax.numpy as jnp

  from jaxgan_compress import convert, core, nn
  from jaxgan_compress.core import Axes, xla
  from jaxgan_compress.parallel import parallelize, put_state
  if OPTIONS in os.environ:
    xla._OPTIONS['cpu'] = json.loads(os.environ[OPTIONS])
  modules = networks(case, jnp.dtype(variant))
  batch = batch_of(case)
  variables = {role: nn.initialise(module, jax.random.key(i))
               for i, (role, module) in enumerate(modules.items())}
  plan = {'step': case.step, 'rate': RATE, 'loss': 'lsgan' if case.step == 'cyclegan' else 'hinge',
          'nets': {role: twin(module) for role, module in modules.items()}}
  if variant == 'float32':
    (folder / 'plan.json').write_text(json.dumps(plan))
    for role, module in modules.items():
      np.savez(folder / f'{role}.npz', **convert.to_torch(module, variables[role]))
    save = lambda **batch: np.savez(folder / 'batch.npz', **batch)
    save(**{name: np.moveaxis(x, -1, 1) if x.ndim == 4 else x for name, x in batch.items()})
  device = jax.devices()[0]
  orders = {'peak': lambda: {'peak': (device.memory_stats() or {}).get('peak_bytes_in_use')}}
  if case.step == 'inference':
    x = jax.device_put(next(iter(batch.values())))
    draw = xla.jit(lambda variables, x: modules['generator'].apply(variables, x)[0])
    placed = jax.device_put(variables['generator'])
    return lambda: {'drawn': jnp.moveaxis(draw(placed, x), -1, 1)}, device.device_kind, orders
  method = method_of(case, modules)
  init_from = {role: core.Net(**{'params': v['params'], 'collections': {
      kind: x for kind, x in v.items() if kind != 'params'}}) for role, v in variables.items()}
  state = method.init(jax.random.key(0), batch, init_from)
  if case.step == 'kd' and variant == 'float32':  # the latents of the first two steps
    save(z=np.stack([Axes().sample(jax.random.normal, state.replace(step=jnp.int32(i)).key('z'),
                                 batch['z'].shape) for i in range(2)]))
  if ahead:
    xla._OPTIONS.clear()  # a program within one takes none
  # Of the two, which are bitwise equal, the one that can be compiled without being run.
  step = parallelize(method.step, via='shard_map' if ahead else 'pmap')
  states, placed = [put_state(state, step.mesh, step.replicas)], step.place(batch)
  run = [step.run]

  def call():
    states[0], logs = run[0](states[0], placed)
    return core.flatten_logs(logs)

  def ready():
    jitted = jax.jit(step.compiled, donate_argnums=0)
    run[0] = jitted.lower(states[0], placed).compile()
    needs = run[0].memory_analysis()
    return {'program': needs.argument_size_in_bytes + needs.output_size_in_bytes
            + needs.temp_size_in_bytes - needs.alias_size_in_bytes}

  return call, device.device_kind, orders | ({'ready': ready} if ahead else {})


def torch_worker(variant, folder):
  """As `jax_worker`. 'ready' compiles, which takes steps; 'tune' tries the algorithms of cuDNN and
  says the peak of memory of one step."""
  import torch
  import torch_twins

  plan = json.loads((folder / 'plan.json').read_text())
  arrays = {role: dict(np.load(folder / f'{role}.npz')) for role in plan['nets']}
  inputs = list(np.load(folder / 'batch.npz').values())
  call = torch_twins.build(plan, arrays, inputs if plan['step'] != 'inference' else inputs[:1],
                           variant)
  there = torch.cuda.is_available()
  device = torch.cuda.get_device_name() if there else 'cpu'
  peak = lambda: {'peak': torch.cuda.max_memory_allocated() if there else None}

  def ready():
    found = {name: float(x) for name, x in call().items()}
    start = time.perf_counter()
    call()
    if there:
      torch.cuda.synchronize()
    return {'found': found, 'second': time.perf_counter() - start}

  def tune():
    if there:
      torch.backends.cudnn.benchmark = True
      for _ in range(3):
        call()
      torch.cuda.synchronize()
      torch.cuda.reset_peak_memory_stats()
    call()
    return peak()

  return call, device, {'peak': peak, 'ready': ready, 'tune': tune}


def work(side, variant, case, folder, ahead):
  """Answers lines of stdin: 'look' by losses or drawing, 'time N' by seconds of N calls; and those
  of its side."""
  answers = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)  # what libraries print is not an answer
  say = lambda **answer: print(json.dumps(answer), file=answers, flush=True)
  if side == 'jax':
    import jax
    call, device, orders = jax_worker(case, variant, folder, ahead)
    wait, version = jax.block_until_ready, f'jax {jax.__version__}'
    numbers = lambda found: {name: np.asarray(x, np.float32) for name, x in found.items()}
  else:
    import torch
    call, device, orders = torch_worker(variant, folder)
    wait = lambda _: torch.cuda.synchronize() if device != 'cpu' else None
    numbers = lambda found: {name: x.detach().float().cpu().numpy() for name, x in found.items()}
    version = f'torch {torch.__version__}'
    if torch.cuda.is_available():
      version += f' (CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()})'
  say(device=device, version=version)
  for line in sys.stdin:
    order, *rest = line.split()
    start = time.perf_counter()
    if order == 'look':
      found = call()
      wait(found)
      took, found = time.perf_counter() - start, numbers(found)
      path = folder / f'{side}_{variant}_{rest[0]}.npz'
      np.savez(path, **found)
      say(seconds=took)
    elif order == 'time':
      for _ in range(int(rest[0])):
        found = call()
      wait(found)
      say(seconds=(time.perf_counter() - start) / int(rest[0]))
    else:
      answer = orders[order](*rest)
      if 'peak' in answer:  # of CPUs, that of the process
        answer['peak'] = answer['peak'] or resource.getrusage(
            resource.RUSAGE_SELF).ru_maxrss * 1024
      say(**{'seconds': time.perf_counter() - start, **answer})


# The judge --------------------------------------------------------------------------------------


class Worker:
  """A process that holds one side of a case, asleep until it is asked.

  ahead: it compiles when it is asked to be 'ready'. more: of its environment."""

  def __init__(self, python, side, variant, case, folder, ahead=False, more=None):
    self.name = variant if side == 'torch' else f'ours {variant}'
    self.side, self.variant, self.folder = side, variant, folder
    self._process = subprocess.Popen(
        [python, __file__, f'--work={side}', f'--variant={variant}',
         f'--cases={json.dumps(dataclasses.asdict(case))}', *(['--ahead'] if ahead else []),
         f'--out={folder}'], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, **MEMORY, **(more or {})},
        stderr=open(folder / f'{side}_{variant}.log', 'w'))  # noqa: SIM115 - the child's

  def ask(self, order='', until=None):
    """The answer. Raises RuntimeError if the process ends, or does not answer until a time of
    `time.monotonic`."""
    if order:
      print(order, file=self._process.stdin, flush=True)
    if until and not select.select([self._process.stdout], [], [],
                                   max(0, until - time.monotonic()))[0]:
      raise RuntimeError(f'{self.name}: no time was left for {order or "its start"}')
    line = self._process.stdout.readline()
    if not line:
      text = (self.folder / f'{self.side}_{self.variant}.log').read_text()
      raise RuntimeError(f'{self.name} ended: {text[-2000:]}')
    return json.loads(line)

  def look(self, i, until=None):
    seconds = self.ask(f'look {i}', until)['seconds']
    return seconds, dict(np.load(self.folder / f'{self.side}_{self.variant}_{i}.npz'))

  def close(self):
    self._process.stdin.close()
    self._process.wait()

  def kill(self):
    self._process.kill()
    self._process.wait()


def differs(ours, theirs, tolerance=2e-3):
  """What both logged and is not equal, as text; '' where all is well."""
  shared = ours.keys() & theirs.keys()
  bad = [f'{name}: ours {ours[name].ravel()[:3]}, PyTorch {theirs[name].ravel()[:3]}'
         for name in sorted(shared) if not np.abs(ours[name] - theirs[name]).max()
         <= tolerance * max(1e-2, np.abs(theirs[name]).max())]
  return '; '.join(bad) if shared else 'they have no term in common'


def compare(case, folder, torch, variants, precisions, rounds, seconds):
  """{variant: times and costs} of one case. Raises RuntimeError if the sides do not agree."""
  folder.mkdir(parents=True, exist_ok=True)
  workers, found = [], {}
  try:
    for side, names, python in (('jax', precisions, sys.executable), ('torch', variants, torch)):
      for variant in names:
        worker = Worker(python, side, variant, case, folder)
        try:
          about = worker.ask()
          looks = [worker.look(i) for i in range(2)]
        except RuntimeError as e:
          if side == 'jax' or variant == 'eager':
            raise
          print(f'  {variant} left out: {str(e).strip().splitlines()[-1]}', flush=True)
          continue
        workers.append(worker)
        exact = variant not in ('bfloat16', 'autocast')
        if side == 'jax' and variant == 'float32':
          ours = looks
        wrong = [text for (_, a), (_, b) in zip(ours, looks, strict=True)
                 if exact and (text := differs(a, b))]
        if wrong:
          if variant in ('eager', 'float32'):
            raise RuntimeError(f'{worker.name} and we do not compute the same: {wrong[0]}')
          # We agree with PyTorch as it is written, so it is this variant that is off.
          print(f'  {variant} left out, for it is not what eager computes: {wrong[0]}', flush=True)
          workers.pop().close()
          continue
        steady = worker.ask('time 1')['seconds']
        found[worker.name] = {**about, 'first': looks[0][0], 'compile': looks[0][0] - steady,
                              'times': [], 'calls': max(1, round(seconds / steady))}
    for _ in range(rounds):
      for worker in workers:
        row = found[worker.name]
        row['times'].append(worker.ask(f'time {row["calls"]}')['seconds'])
    for worker in workers:
      found[worker.name]['peak'] = worker.ask('peak')['peak']
  finally:
    for worker in workers:
      worker.close()
  return found


def merged(before, found):
  """Two runs of a case as one, with the variants that both have; 'runs' are the rounds of each."""
  if not before:
    return {name: {**row, 'runs': [len(row['times'])]} for name, row in found.items()}
  return {name: {**row, 'times': before[name]['times'] + row['times'],
                 'runs': [*before[name]['runs'], len(row['times'])],
                 'peak': max(before[name]['peak'], row['peak'])}
          for name, row in found.items() if name in before}


def median(found, name):
  """Seconds of a call of one variant."""
  return statistics.median(found[name]['times'])


def ratio(found, ours, theirs):
  """(median, lower, upper quartile) of our time over theirs, round by round, and who is fastest."""
  there = [name for name in theirs if name in found]
  best = min(there, key=lambda name: median(found, name))
  pairs = [a / b for a, b in zip(found[ours]['times'], found[best]['times'], strict=True)]
  return (*np.quantile(pairs, (.5, .25, .75)), best)


def spread(found, ours, best):
  """'; runs 0.81 to 0.95': the lowest and the highest median ratio of a run, of several."""
  edges = np.cumsum(found[ours].get('runs', ()))
  if len(edges) < 2:
    return ''
  pairs = np.divide(found[ours]['times'], found[best]['times'])
  medians = [np.median(part) for part in np.split(pairs, edges[:-1])]
  return f'; runs {min(medians):.2f} to {max(medians):.2f}'


def row(name, found, half):
  ms = lambda key: f'{1e3 * median(found, key):.1f}' if key in found else ''
  middle, low, high, best = ratio(found, 'ours float32', TORCH)
  us, them = found['ours float32'], found[best]
  cells = [name, ms('ours float32'), *map(ms, TORCH),
           f'**{middle:.2f}** ({low:.2f} to {high:.2f}{spread(found, "ours float32", best)})',
           f'{us["compile"]:.0f}', f'{us["peak"] / 2**20:.0f}', f'{them["peak"] / 2**20:.0f}']
  if half:
    middle, low, high, best = ratio(found, 'ours bfloat16', (*TORCH, 'autocast'))
    cells += [ms('ours bfloat16'), ms('autocast'), f'**{middle:.2f}** ({low:.2f} to {high:.2f})']
  return '| ' + ' | '.join(cells) + ' |'


def table(results, half):
  head = ['case', 'ours, ms', *(f'PyTorch {name}, ms' for name in TORCH), 'ratio (quartiles)',
          'ours compiles, s', 'ours, MiB', 'PyTorch, MiB']
  head += ['ours bfloat16, ms', 'autocast, ms', 'ratio to the best (quartiles)'] if half else []
  lines = ['| ' + ' | '.join(head) + ' |', '|---' + '|--:' * (len(head) - 1) + '|']
  lines += [row(name, found, half) for name, found in results.items()]
  for kind, inside in (('training steps', False), ('inference', True)):
    ratios = [ratio(found, 'ours float32', TORCH)[0] for name, found in results.items()
              if name.startswith('inference') == inside]
    if ratios:
      lines += ['', f'Of {len(ratios)} cases of {kind}: geometric mean '
                f'{statistics.geometric_mean(ratios):.2f}, worst {max(ratios):.2f}.']
  return '\n'.join(lines)


def plot(results, path):
  """Bars of our time over PyTorch's best, one a case; saved as a PNG."""
  from PIL import Image, ImageDraw, ImageFont
  font = ImageFont.load_default(16)
  wide, high, left = 900, 26, 420
  picture = Image.new('RGB', (wide, high * (len(results) + 2)), 'white')
  draw = ImageDraw.Draw(picture)
  draw.text((8, 4), 'our time / time of the fastest PyTorch variant (float32); shorter is better',
            'black', font)
  scale = (wide - left - 70) / max(1.5, *(ratio(found, 'ours float32', TORCH)[0]
                                          for found in results.values()))
  for i, (name, found) in enumerate(results.items(), 1):
    value = ratio(found, 'ours float32', TORCH)[0]
    y = i * high + 6
    draw.text((8, y), name, 'black', font)
    draw.rectangle((left, y, left + scale * value, y + high - 8),
                   '#2a78b8' if value <= 1 else '#c8553d')
    draw.text((left + scale * value + 6, y), f'{value:.2f}', 'black', font)
  draw.line((left + scale, high, left + scale, high * (len(results) + 1) + 6), 'black')
  draw.text((left + scale - 4, high * (len(results) + 1) + 4), '1', 'black', font)
  picture.save(path)


def main():
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--torch', default=sys.executable, help='the Python that has PyTorch')
  parser.add_argument('--cases', default='', help='parts of names, one of which a case must have; '
                      'separated by commas, or by ; where names have commas')
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument('--runs', type=int, default=1, help='of all cases, one after the other')
  parser.add_argument('--seconds', type=float, default=1., help='of one timing, at least one call')
  parser.add_argument('--half', action='store_true', help='bfloat16 and autocast too')
  parser.add_argument('--out', type=lambda path: Path(path).expanduser(),
                      default=Path('runs/speed'))
  parser.add_argument('--list', action='store_true', help='names the cases and ends')
  parser.add_argument('--work', choices=('jax', 'torch'), help=argparse.SUPPRESS)
  parser.add_argument('--variant', help=argparse.SUPPRESS)
  parser.add_argument('--ahead', action='store_true', help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.work:
    return work(args.work, args.variant, Case(**json.loads(args.cases)), args.out, args.ahead)
  parts = args.cases.split(';' if ';' in args.cases else ',')
  names = [name for name in CASES if any(part in name for part in parts)]
  if not names:
    parser.error(f'no case has {args.cases!r} in its name; --list names them')
  if args.list:
    print('\n'.join(names))
    return None
  results = {}
  for i, name in enumerate(args.runs * names):
    found = compare(CASES[name], args.out / f'case{list(CASES).index(name)}', args.torch,
                    TORCH + (('autocast',) if args.half else ()),
                    ('float32', *(('bfloat16',) if args.half else ())), args.rounds, args.seconds)
    results[name] = found = merged(results.get(name), found)
    if not i:
      about = {(each['version'], each['device']) for each in found.values()}
      print('; '.join(f'{version} on {device}' for version, device in sorted(about)),
            f'{os.cpu_count()} CPU cores, {args.rounds} rounds', sep='; ')
    print(row(name, found, args.half), flush=True)
    (args.out / 'speed.json').write_text(json.dumps(results))
  text = table(results, args.half)
  (args.out / 'speed.md').write_text(text + '\n')
  plot(results, args.out / 'speed.png')
  print('\n' + text)
  return None


if __name__ == '__main__':
  main()
