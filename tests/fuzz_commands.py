"""Random command lines, overrides and arguments: none may end in a traceback, or without saying
what is wrong and what to do.

    python -m tests.fuzz_commands --count=2000 --seed=0

Everything runs in this process up to where training, or a measurement, would begin; `begins` lists
these places. A few are part of the suite.
"""

import argparse
import collections
import contextlib
import faulthandler
import io
import json
import os
import random
import re
import resource
import signal
import sys
import tempfile
from pathlib import Path
from unittest import mock

import jax
import numpy as np
from PIL import Image

from jaxgan_compress import analysis, config, export, metrics, nn, pruning
from jaxgan_compress.cli import main as cli
from jaxgan_compress.experiment import runner, step_profile

CODES = {0, 1, 2, 75, 130}
SECONDS, BYTES = 60, 4 * 2 ** 30
# What Python, NumPy, JAX and absl say to programmers.
BARE = re.compile('|'.join((
    r"^'[^']*'$", r"^\('[^']*', .*\)$", 'NoneType', 'has no attribute', 'not supported between',
    'keyword argument', 'must be real number', 'invalid literal', 'could not convert', '<class',
    ' at 0x', 'Traceback', 'unhashable', 'not iterable', 'not subscriptable', 'positional argument',
    'unsupported operand', 'Errno', 'division by zero', 'out of range$', 'cannot be interpreted',
    r'^\w+Error', 'Tracer', 'takes no arguments', 'object is not callable', 'must be str',
    'expected str', 'codec can')))
WORDS = ['', ' ', '0', '-1', '1', '2', '3', '7', '64', '1e9', '-4', '0.5', 'nan', 'inf', '-inf',
         '1e400', '99999999999999999999', 'None', 'True', 'false', 'x', 'é😀', "'", '"', '()',
         "('a',)", '(1,2', '[]', '{}', "{'name': 'adam'}", "{'name': 3}", "{'stage': 'x'}", 'a,b',
         'best', 'best:', 'best:fd', '..', '/', '/dev/null',
         'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',
         '%s', '-', '--', '=', 'a=b', 'stablehlo', '1,2', '1e3,2e3', '256', '16', '32x', '8x8x8',
         '-4x4', '10000000', 'teacher', 'gan', 'adam', "('teacher',)", '(4, 8)', 'fid',
         'DCGANGenerator', 'mobile_resnet:ngf=2', 'onnx', 'nowhere:X', 'mobile_resnet:ngf=',
         'VGG:layers=3', 'jaxgan_compress.nn:VGG', 'a\x00b', 'os:getcwd']
NAMES = ['', 'adam', 'sgd', 'GAN', 'KD', 'CAT', 'Offline', 'Pix2Pix', 'CycleGAN', 'OMGD',
         'Classifier', 'DCGANGenerator', 'mobile_resnet', 'unet', 'inception', 'PatchGAN',
         'PixelGAN', 'VGG', 'DistillLoss', 'Adversary', 'digits', 'samples:colorize',
         'samples:shapes',
         'samples:x', 'paired', 'unpaired', 'tfds:mnist', 'random_vgg', 'classifier',
         'cosine_decay_schedule', 'step_decay', 'test', 'train', 'all', 'fd', 'fid', 'mmd', 'miou',
         'last', 'best', 'teacher', 'student', 'wgan_gp', 'hinge', 'ns', 'rp', 'batch', 'none',
         'instance', 'shard_map', 'pmap', 'l1', 'norm', 'BtoA', 'ka', 'mse', 'os:getcwd',
         'builtins:exit', 'jaxgan_compress.nn:Adapter', 'numpy:ones']
SHIPPED = ('kd/digits:smoke', 'kd/mnist:smoke', 'omgd/colorize:smoke', 'omgd/grass2gravel:smoke',
           'omgd/horse2zebra:smoke', 'omgd/edges2shoes:smoke', 'cat/colorize:smoke',
           'cat/maps:smoke', 'cat/gaugan:smoke', 'cat/shapes:smoke')
TINY = '''"""A teacher and students of every kind of field, on the digits and on pairs."""
from jaxgan_compress import config


def get_config(arg=''):
  arg = config.parse_arg(arg, pairs=False, d=1, wrong='')
  c = config.base()
  c.update(batch=4, log_every=1, cache=False, evaluate={'every': 1, 'count': 8, 'splits': 2},
           checkpoint={'every': 1})
  tx = dict(name='adam', learning_rate=1e-3, b1=.5)
  if arg.wrong:
    return {'none': lambda: None, 'name': lambda: nothing, 'list': list}.get(
        arg.wrong, lambda: 1 / 0)()
  net = dict(name='DCGANGenerator', d=arg.d, size=32)
  judge = dict(name='Adversary', disc=dict(name='DCGANDiscriminator', d=1, size=32), tx=tx)
  c.data = dict(name='digits', size=32, split='all')
  c.evaluate.extractor = dict(name='random_vgg')
  c.stages = {
      'teacher': config.stage(steps=2, method=dict(
          name='GAN', generator=net, tx=tx, adversary=judge, ema=.5)),
      'student': config.stage(steps=2, teacher=('teacher',), shift=1, batch=2, method=dict(
          name='KD', student=net, tx=tx, adv_weight=.5,
          adversary=dict(name='Adversary', tx=tx, loss='ns', disc_steps=1)))}
  if arg.pairs:
    net = dict(name='mobile_resnet', ngf=4, blocks=1, implementation='reference')
    judge = dict(name='Adversary', tx=tx, loss='hinge', disc=dict(
        name='PatchGAN', ndf=2, layers=1, inputs=6))
    c.data = dict(name='samples:colorize', size=32)
    c.evaluate.update(real=dict(split='validation', count=6), test=dict(split='test'))
    c.stages = {
        'teacher': config.stage(steps=2, method=dict(name='Pix2Pix', generator=net, adversary=judge,
                                                     tx=tx)),
        'student': config.stage(
            steps=2, teacher=('teacher',), prune=dict(budget=2e6, min_channels=1, criterion='l1'),
            method=dict(name='Offline', tx=tx, distill=dict(
                name='DistillLoss', ssim=dict(name='SSIM'), taps=dict(
                    name='Taps', similarity='attention', weight=1., names=('stem',)))))}
  c.run = ('teacher', 'student')
  return c
'''


class Begun(BaseException):
  """A command got so far that it would take time."""


def _begin(*args, **more):
  raise Begun


@contextlib.contextmanager
def begins():
  """Nothing trains, and nothing is measured."""
  extractor = metrics.Extractor(
      lambda v, x: {'features': x.mean((1, 2)).repeat(2, -1)}, {}, {'feature_net': 'means'})
  with contextlib.ExitStack() as stack:
    for where, name, instead in (
        (runner, 'train_stage', _begin), (step_profile, 'untrained', _begin),
        (runner, 'compilation_cache', lambda: None),
        (step_profile, 'compilation_cache', lambda: None), (analysis, 'network_latency', _begin),
        (export.bundle, '_whole', _begin), (metrics, 'random_vgg', lambda seed=0: extractor),
        (pruning.latency, 'milliseconds', lambda nets, *a, **k: [1. + i for i in range(len(nets))]),
        (pruning, 'milliseconds', lambda nets, *a, **k: [1. + i for i in range(len(nets))])):
      stack.enter_context(mock.patch.object(where, name, instead))
    yield


def make_folder(home: Path):
  """Files of every kind that a flag may name; {name: path}."""
  (home / 'images').mkdir()
  for i in range(3):
    Image.fromarray(np.full((16, 32, 3), 40 * i, np.uint8)).save(home / 'images' / f'{i}.png')
  (home / 'pairs/train').mkdir(parents=True)
  for i in range(2):
    Image.fromarray(np.full((32, 64, 3), 90 * i, np.uint8)).save(home / f'pairs/train/{i}.png')
  for name, net in (('digits', nn.DCGANGenerator(d=1, size=32)),
                    ('feature_net', nn.VGG(16, ('relu1_1',))),
                    ('photos', nn.mobile_resnet(ngf=4, blocks=1))):
    nn.save(home / f'{name}.safetensors', net, nn.initialise(net, jax.random.key(0)))
  whole = (home / 'photos.safetensors').read_bytes()
  (home / 'broken.safetensors').write_bytes(whole[:-100])
  (home / 'text.json').write_text('{"macs": ["a", "b"], "ms": [1, 2]}')
  (home / 'table.json').write_text(json.dumps({'macs': [0, 10 ** 7], 'ms': [0, 5.]}))
  (home / 'deep.json').write_text('[' * 100_000)
  (home / 'bytes.npz').write_bytes(bytes(range(256)))
  (home / 'flags').write_text('--config=kd/digits:smoke\n--config.seed=3\n')
  (home / 'tiny.py').write_text(TINY)
  (home / 'syntax.py').write_text('def get_config(arg):\n  return (')
  (home / 'empty.py').write_text('')
  (home / 'run').mkdir()
  (home / 'run/config.json').write_text(json.dumps(config.to_json(config.load(
      f'{home / "tiny.py"}'))))
  (home / 'bad_run').mkdir()
  (home / 'bad_run/config.json').write_text('{"seed": [')
  (home / 'strange_run').mkdir()
  (home / 'strange_run/config.json').write_text('{"seed": "x", "stages": {"a": {"steps": "b"}}}')
  (home / 'unreadable').write_text('')
  (home / 'unreadable').chmod(0)
  return [str(path) for path in sorted(home.iterdir())] + [str(home / 'missing/x.png')]


class Commands:
  """Command lines, the same for the same seed."""

  def __init__(self, home: Path, seed: int):
    self.home, self.random, self.made = home, random.Random(seed), 0
    self.paths = make_folder(home)
    self.flags = {name: sorted([*(flag.name for flag in verb.flags), 'help'])
                  for name, verb in cli.VERBS.items()}
    self.keys = {}

  def value(self):
    pick = self.random.random()
    return self.random.choice(self.paths if pick < .3 else WORDS)

  def configs(self):
    tiny = self.home / 'tiny.py'
    return self.random.choice([
        *SHIPPED, *[str(tiny), f'{tiny}:pairs'] * 8, f'{tiny}:wrong=name', f'{tiny}:wrong=list',
        f'{tiny}:wrong=zero', f'{tiny}:d={self.value()}'])

  def out(self, suffix=''):
    self.made += 1
    return str(self.home / f'out{self.made}{suffix}')

  def usual(self, verb):
    """A command line with which little is wrong."""
    network = str(self.home / self.random.choice(('digits.safetensors', 'photos.safetensors')))
    size = [] if 'digits' in network else ['--size=32']
    run = str(self.home / 'run')
    return {
        'train': [f'--config={self.configs()}', f'--workdir={self.out()}'],
        'evaluate': [f'--workdir={run}'], 'report': [f'--workdir={run}'],
        'info': self.random.choice([[f'--config={self.home / "tiny.py"}'],
                                    [f'--network={network}', *size]]),
        'convert': [f'--input={network}', f'--output={self.out(".safetensors")}'],
        'prune': [f'--network={network}', *size, '--budget=5e5', '--criterion=l1',
                  f'--output={self.out(".safetensors")}'],
        'show-data': [f'--config={self.home / "tiny.py"}', f'--output={self.out(".png")}'],
        'prepare-data': ['--layout=paired', f'--path={self.home / "pairs"}', f'--name=a{self.made}',
                         f'--output={self.out()}'],
        'fid': [str(self.home / 'images')] * 2,
        'profile': [f'--config={self.home / "tiny.py"}', f'--output={self.out()}'],
        'compile': [f'--config={self.home / "tiny.py"}',
                    '--target=tpu:v5e:3x3'],  # which no compiler knows: a real one takes long
        'generate': [f'--network={network}', f'--output={self.out()}', *(
            ['--count=3'] if 'digits' in network else [f'--input={self.home / "images"}'])],
        'record': [f'--network={network}', f'--input={self.home / "images"}',
                   f'--output={self.out()}', '--size=8'],
        'export': [f'--network={network}', *size, f'--output={self.out()}'],
        'factors': [f'--workdir={run}', f'--output={self.out(".safetensors")}'],
        'merge': [f'--base={network}', f'--factors={network}',
                  f'--output={self.out(".safetensors")}'],
        'profile-latency': [f'--network={network}', *size, f'--output={self.out(".json")}'],
    }[verb]

  def override(self, args):
    """One more argument, that changes a key of the config that the others name."""
    name = next((arg.partition('=')[2] for arg in args if arg.startswith('--config=')), None)
    if name not in self.keys:
      try:
        self.keys[name] = dict(dotted(config.load(name)))
      except Exception:  # a wrong one is another case
        self.keys[name] = {'seed': 0, 'x.y': None}
    key = self.random.choice(list(self.keys[name]))
    value = self.like(self.keys[name][key]) if self.random.random() < .7 else self.value()
    if self.random.random() < .05:
      key += self.random.choice(('x', '.x', '[0]', '[9]', '.', '..name'))
    return f'--config.{key}={value}'

  def like(self, value):
    """A value of the same kind, or nearly."""
    numbers = ['0', '-1', '1', '2', '3', '5', '8', '16', '100', '4096', '10' * 9]
    if isinstance(value, bool):
      return self.random.choice(('true', 'false'))
    if isinstance(value, int) or value is None:
      return self.random.choice(numbers)
    if isinstance(value, float):
      return self.random.choice([*numbers, '-0.5', '1e-30', '1e30', 'nan', 'inf', '0.999'])
    if isinstance(value, str):
      return self.random.choice(NAMES)
    if isinstance(value, tuple | list):
      return self.random.choice(("()", "('teacher',)", "('x','y')", '(1,)', "('student','teacher')",
                                 '(4,8,16)', "('teacher','student','student')", '(-1,2)'))
    return str(self.random.choice((
        {}, {'name': 'adam', 'learning_rate': 1e-3}, {'budget': 1e3}, {'budget': (1e5, 2e5)},
        {'split': 'test'}, {'split': ('train', 'x')}, {'name': 'random_vgg'}, {'x': 1},
        {'name': 'digits', 'size': 16}, {'name': 'inception', 'path': 'x'}, {'size': 64},
        {'name': 'DCGANGenerator', 'd': 2}, {'teacher': self.random.choice(self.paths)},
        {'generator': str(self.home / 'photos.safetensors')}, {'name': 'PatchGAN', 'ndf': 2})))

  def command(self):
    served = [verb for verb in cli.VERBS if verb != 'demo']  # which ends by Ctrl-C alone
    verb = self.random.choice([*served, *['train'] * 12])
    args = self.usual(verb)
    for _ in range(self.random.choice((1, 1, 1, 2, 3))):
      pick = self.random.random()
      if 'config' in self.flags[verb] and pick < .7:
        args.append(self.override(args))
      elif pick < .85:
        args.append(f'--{self.random.choice(self.flags[verb])}={self.value()}')
      elif pick < .9 and args:
        args.pop(self.random.randrange(len(args)))
      elif pick < .95 and args:
        i = self.random.randrange(len(args))
        args[i] = f'{args[i].partition("=")[0]}={self.value()}'
      elif pick < .97:
        args.append(f'--flagfile={self.random.choice(self.paths)}')
      else:
        args.insert(self.random.randrange(len(args) + 1), self.value())
    # What is written by default goes beside us.
    return [verb, *args]


def dotted(section, prefix=''):
  """Every key of a config and what it holds, whole sections among them."""
  for key in section:
    yield prefix + key, section[key]
    if isinstance(section[key], config.schema.ConfigDict):
      yield from dotted(section[key], f'{prefix}{key}.')


def wrong_with(argv) -> tuple[str, str]:
  """(what is wrong with how a command ends, or '', what it said)."""
  out, err, code = io.StringIO(), io.StringIO(), 0

  def late(*_):
    raise TimeoutError(f'more than {SECONDS} s')

  before, held = signal.signal(signal.SIGALRM, late), peak()
  signal.alarm(SECONDS)
  faulthandler.dump_traceback_later(2 * SECONDS, exit=True)  # what hears no alarm
  try:
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
      code = cli.main(argv)
  except Begun:
    return '', 'begun'
  except BaseException as e:
    where = e.__traceback__
    while where.tb_next:
      where = where.tb_next
    return f'{type(e).__name__} at {where.tb_frame.f_code.co_filename}:{where.tb_lineno}', str(e)
  finally:
    signal.alarm(0)
    faulthandler.cancel_dump_traceback_later()
    signal.signal(signal.SIGALRM, before)
  said = err.getvalue().strip()
  if code not in CODES:
    return f'exit code {code}', said
  if peak() > max(held, BYTES):
    return 'more than 4 GiB', said
  return (wrong_words(said) if code else ''), said if code else 'done'


def peak() -> int:
  """The most bytes that this process has held."""
  return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def wrong_words(said: str) -> str:
  """Why a message is none for a user, or ''."""
  text = said.rpartition('jaxgan-compress: ')[2]
  if 'jaxgan-compress: ' not in said or len(text.split()) < 3:
    return 'bare'
  if len(text) > 7000 or text.count('\n') > 12:
    return 'long'
  found = BARE.search(text) if not re.search(r'\.py, line \d+: ', text) else None  # one's own
  return f'words of programmers: {found[0]!r}' if found else ''


def main(argv=None) -> int:
  parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
  parser.add_argument('--count', type=int, default=2000)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--first', type=int, default=0, help='skip so many')
  parser.add_argument('--show', action='store_true', help='print every command and its message')
  values = parser.parse_args(argv)
  failed, ends = collections.defaultdict(list), collections.Counter()
  with tempfile.TemporaryDirectory() as home, begins():
    os.environ.update(HOME=home, COLUMNS='100')
    os.chdir(home)
    commands = Commands(Path(home), values.seed)
    for i in range(values.count):
      argv = commands.command()
      if i < values.first:
        continue
      if values.show:
        print(i, *(arg[:120].replace(home, '~') for arg in argv), flush=True)
      why, said = wrong_with(argv)
      ends[said if said in ('begun', 'done') else 'refused'] += 1
      if why:
        failed[why].append((i, argv, said))
      if values.show:
        print('   ->', why, said[:1500].replace(home, '~'), flush=True)
  for why, cases in sorted(failed.items(), key=lambda item: -len(item[1])):
    print(f'\n{len(cases)} x {why}')
    for i, argv, said in cases[:6]:
      print(f'  {i}: {" ".join(arg[:120] for arg in argv)}\n     {said[-700:]}')
  print(f'\n{dict(ends)}; {sum(map(len, failed.values()))} of {values.count} are wrong; at most '
        f'{peak() / 2 ** 30:.2f} GiB')
  return bool(failed)


if __name__ == '__main__':
  sys.exit(main())
