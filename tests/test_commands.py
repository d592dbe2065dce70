"""The command line told something wrong: it says what, what is possible and what to do."""

import functools
import io
import json
import logging
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import jaxgan_compress as jgc
from jaxgan_compress import config, experiment, nn
from jaxgan_compress.cli import flags, main, output
from jaxgan_compress.experiment import dry_run
from tests import fuzz_commands

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def network(tmp_path_factory):
  path = tmp_path_factory.mktemp('networks') / 'digits.safetensors'
  net = nn.DCGANGenerator(d=1, size=32)
  nn.save(path, net, nn.initialise(net, jax.random.key(0)))
  return path


TABLES = {'words': {'macs': ['a', 'b'], 'ms': [1, 2]}, 'nested': {'macs': [[1], [2]], 'ms': [1, 2]},
          'negative': {'macs': [1, 2], 'ms': [-1, 2]}, 'text': {'macs': 'ab', 'ms': [1, 2]},
          'list': [1, 2], 'short': {'macs': [1], 'ms': [1]},
          'nan': {'macs': [0, float('nan')], 'ms': [1, 2]}}


@pytest.mark.parametrize('command, said', [
    *((f'prune --network=NET --output=x.safetensors --budget=2 --unit=ms --table={name}.json', said)
      for name, said in (('words', "'macs' is ['a', 'b']; a list of numbers"),
                         ('nested', "'macs' is [[1], [2]]; a list"),
                         ('negative', "'ms' is [-1, 2]; a list of numbers, at least 0"),
                         ('text', "'macs' is ab; a list"), ('list', 'a table is {"macs"'),
                         ('short', 'a table has two or more'), ('nan', 'a list of numbers'))),
    ('prune --network=NET --output=x.safetensors --budget=0.5', 'a budget of 0.5 is below'),
    ('prune --network=NET --output=x.safetensors --budget=-1', '--budget=-1; give numbers above 0'),
    ('prune --network=NET --output=x.safetensors --budget=nan', '--budget=nan; give numbers'),
    ('prune --network=NET --output=x.safetensors --budget=1e5,1.0001e5',
     'x_1e05.safetensors and x_1e05.safetensors would be one'),
    ('prune --network=NET --output=x.safetensors --budget=1e5 --seed=-1', '--seed=-1'),
    ('prune --network=NET --output=x.safetensors', 'prune needs --budget, as 2.6e9, or --plan'),
    ('prune --network=NET --weights=w.safetensors --budget=1e5 --output=x.safetensors',
     'holds its weights; leave it out'),
    ('prune --network=nowhere:Net --size=32 --plan', 'cannot import nowhere'),
    ('prune --network=jaxgan_compress.configs.cat.any_network:Net --size=32 --plan',
     "no 'Net' in jaxgan_compress.configs.cat.any_network; there is"),
    ('prune --network=jaxgan_compress.configs.cat.any_network:Generator:width=x --size=32 --plan',
     "width='x'; it is a whole number"),
    ('prune --network=jaxgan_compress.configs.cat.any_network:Generator --size=32 --budget=1e5 '
     '--output=x.safetensors', 'has no weights; give --weights=FILE.safetensors'),
    ('prune --network=jaxgan_compress.configs.cat.any_network:Generator --size=32 --budget=1e5 '
     '--output=x.safetensors --weights=NET', 'is of DCGANGenerator(d=1'),
    ('generate --network=NET --like=Net --output=x', '--like=Net; give module:Class'),
    ('prune --network=NET --output=x.safetensors --budget=1e5 --size=32',
     '--size=32: a DCGANGenerator takes 100 latents'),
    ('prune --network=NET --output=x.safetensors --budget=1 --criterion=activation --input=photos',
     '--input is for networks of pictures, and a DCGANGenerator takes latents'),
    *((f'info --network=mobile_resnet:ngf=4,blocks=1 --size={size}', f'--size={size}; give 256')
      for size in ('-4', '0', '8x-8', '1x2x3', '8.', 'x', '1' * 9, '٣')),
    ('export --network=NET --output=x --tolerance=nan', '--tolerance=nan; give a number'),
    ('export --network=NET --output=x --tolerance=-1', '--tolerance=-1'),
    *((f'{command} {flag}', f'{flag.partition("=")[0]} is for --{other} and would change nothing')
      for command, other, some in (
          *(('prune --network=NET --output=x.safetensors --budget=1e5', other, flag)
            for other, flag in (('workdir', '--stage=x'), ('workdir', '--checkpoint=last'),
                                ('workdir', '--moved=data.path=x'), ('unit=ms', '--backend=onnx'),
                                ('unit=ms', '--table=words.json'),
                                *(('criterion=activation', flag) for flag in (
                                    '--input=photos', '--calibration_batches=2')))),
          ('profile-latency --network=NET --output=x.json', 'workdir', '--stage=x'),
          ('export --network=NET --output=x', 'workdir', '--generator=x'),
          ('export --network=NET --output=x', 'workdir', '--int8'),
          *(('export --verify=x', 'workdir or --network', flag)
            for flag in ('--to=onnx', '--layout=NCHW', '--tolerance=1', '--output=y')),
          ('export --workdir=x', 'network', '--size=32'),
          ('info --network=NET', 'config', '--layers'), ('info', 'network', '--size=32'),
          ('info --network=NET', 'latency', '--batch=3'), ('fid A B', 'weights',
                                                           '--protocol=fid_clean'),
          ('prepare-data --layout=paired --path=A --name=b', 'layout=labels', '--classes=3'))
      for flag in (some,)),
    ('train --config=kd/digits --workdir=x --config.evaluate.test.split=test',
     'has no \'split\'; it is empty, and is given as a whole: --config.evaluate.test="'),
    ('train --config=kd/digits --workdir=x --config.evaluate.tset.split=test',
     "config.evaluate has no 'tset'; did you mean 'test'"),
    ('train --config=kd/digits --workdir=x --config.seed.x=1', 'config.seed is 0 and has no'),
    ('train --config=kd/digits --workdir=x --config.run[0]=teacher', 'one entry cannot be changed'),
    ('train --config=kd/digits --workdir=x --config.replicas=None',
     '--config.replicas=None is not a whole number, as 8; leave it out for the default'),
    ('train --config=kd/digits --workdir=x --config.batch=0.5', 'is not a whole number'),
    ('train --config=kd/digits --workdir=x --config.cache=maybe', 'is not true or false'),
    ('train --config=kd/digits --workdir=x --config.data=3', 'is not a section, as "{'),
    ('train --workdir=x --config.seed=1', '--config.seed changes a config; give --config=NAME'),
    ('train --workdir=x --flagfile=nowhere', '--flagfile=nowhere cannot be read; it is a text'),
    ('train --workdir=x --config=syntax.py', 'syntax.py, line 2: SyntaxError'),
    ('train --workdir=x --config=error.py', "error.py, line 2: NameError: name 'x' is not defined"),
    ('train --workdir=x --config=none.py', 'get_config(arg) returns None; a config is'),
    ('train --workdir=error.py/x --config=kd/digits:smoke', 'error.py/x: not a directory'),
    ('evaluate --workdir=' + 'a' * 300, 'file name too long; give another path'),
    ('evaluate --workdir=a\0b', 'holds no run (no config.json)')])
def test_what_is_wrong_is_said(command, said, network, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  for name, table in TABLES.items():
    Path(f'{name}.json').write_text(json.dumps(table))
  Path('syntax.py').write_text('def get_config(arg):\n  return (')
  Path('error.py').write_text('def get_config(arg):\n  return x')
  Path('none.py').write_text('def get_config(arg):\n  pass')
  before = set(tmp_path.iterdir())
  assert main.main(command.replace('NET', str(network)).split(' ')) == 2
  error = capsys.readouterr().err
  assert said in error and not fuzz_commands.wrong_words(error), error
  assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize('lines', [
    '--config=kd/digits:smoke\n--config.seed=3\n--workdir=x', '--config.seed=3\n--workdir=x'])
def test_a_flag_file_may_hold_any_flag(lines, tmp_path):
  (tmp_path / 'flags').write_text(lines)
  more = [] if '--config=' in lines else ['--config', 'kd/digits:smoke']
  values = main.VERBS['train'].parse([f'--flagfile={tmp_path / "flags"}', *more])
  assert (values.config.seed, values.config.batch, values.workdir) == (3, 8, 'x')


@pytest.mark.parametrize('terminal', [False, True])
def test_no_number_of_a_table_is_cut_off(terminal, capsys, monkeypatch):
  monkeypatch.setenv('COLUMNS', '40')
  monkeypatch.setattr(sys.stdout, 'isatty', lambda: terminal)
  rows = [[f'{1.2345e6 * i:.4f} [{i:.3g}, {i + 1:.3g}]' for i in range(1, 30)]] * 2
  output.print_table([f'measure{i}' for i in range(29)], [('name', *row[1:]) for row in rows])
  printed = capsys.readouterr().out
  assert len(printed.strip().splitlines()) == 3 and '…' not in printed
  assert all(printed.count(cell) == 2 for cell in rows[0][1:])


@pytest.mark.parametrize('command', [['-m', 'jaxgan_compress'], ['jaxgan-compress']])
def test_ctrl_c_while_jax_is_imported_is_one_line(command, tmp_path):
  """A JAX that is interrupted as soon as it is imported stands in for a slow one."""
  (tmp_path / 'jax.py').write_text('import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n'
                                   'import time\ntime.sleep(9)\n')
  (tmp_path / 'jaxgan-compress').write_text('from jaxgan_compress.cli.main import main\n')
  environment = {**os.environ, 'PYTHONPATH': f'{tmp_path}{os.pathsep}{ROOT}'}
  done = subprocess.run([sys.executable, *command, 'info'], cwd=tmp_path, env=environment,
                        text=True, capture_output=True, check=False)
  assert (done.returncode, done.stderr.strip()) == (130, 'interrupted')


@pytest.mark.parametrize('argv, code', [(['trian'], 2), (['--version'], 0)])
def test_the_module_ends_with_the_code_of_its_command(argv, code, monkeypatch):
  monkeypatch.setattr(sys, 'argv', ['jaxgan-compress', *argv])
  with pytest.raises(SystemExit) as ended:
    runpy.run_module('jaxgan_compress', run_name='__main__')
  assert ended.value.code == code


@pytest.mark.parametrize('function, argument', [
    *((build, name) for build, names in (
        (nn.resnet, 'ngf blocks'), (nn.mobile_resnet, 'ngf blocks'), (nn.unet, 'ngf depth'),
        (nn.mobile_deepest_resnet, 'ngf blocks'), (nn.unet_deepest, 'ngf depth'), (nn.spade, 'ngf'),
        (nn.inception, 'ngf blocks reduction'), (nn.mobile_spade, 'ngf hidden'),
        (nn.inception_spade, 'ngf reduction hidden')) for name in names.split()),
    (config.load, 'name'), (config.locate, 'name'), (jgc.open_run, 'workdir'),
    (functools.partial(jgc.run, config.base()), 'workdir'),
    (functools.partial(jgc.run, workdir='x'), 'config'), (experiment.describe, 'config'),
    (functools.partial(experiment.evaluate, 'x'), 'checkpoint'),
    (functools.partial(experiment.evaluate, 'x'), 'count'), (jgc.compare, 'workdirs'),
    (functools.partial(jgc.export_run, 'x'), 'to'), (jgc.export_run, 'workdir')])
def test_a_wrong_argument_is_named(function, argument):
  fits = {'count': (-1, 10 ** 12, None), 'workdirs': ([],), 'to': ([],), 'blocks': (0,)}
  words = ('name', 'workdir', 'checkpoint')
  for wrong in (None, 'x', -1, 1.5, float('nan'), float('inf'), 10 ** 12, [], {}, object(), b'x'):
    if wrong not in fits.get(argument, ()) and not (wrong == 'x' and argument in words):
      with pytest.raises(ValueError, match=rf'^{argument}='):
        function(**{argument: wrong})


def test_random_commands_end_with_a_message(tmp_path_factory, monkeypatch):
  """A few of `fuzz_commands`: those that look at no image."""
  home = tmp_path_factory.mktemp('fuzz')
  monkeypatch.chdir(home)
  monkeypatch.setenv('HOME', str(home))
  monkeypatch.setattr(dry_run, 'check', fuzz_commands._begin)
  commands, wrong = fuzz_commands.Commands(home, seed=0), []
  with fuzz_commands.begins():
    for _ in range(80):
      argv = commands.command()
      if argv[0] in ('train', 'evaluate', 'report', 'convert'):
        why, said = fuzz_commands.wrong_with(argv)
        wrong += [(argv, why, said)] if why else []
  assert not wrong


def test_helps_are_sentences_and_name_every_flag(capsys):
  assert main.main([]) == 0
  usage = capsys.readouterr().out
  for name, verb in main.VERBS.items():
    assert main.main([name, '--help']) == 0
    printed, texts = capsys.readouterr().out, [verb.summary, *(flag.help for flag in verb.flags)]
    assert name in usage and verb.summary in usage and verb.summary in printed
    assert all(text[0].isupper() and text[-1] == '.' for text in texts), texts
    assert all(re.search(rf'--(\[no\])?{flag.name}\b', printed) for flag in verb.flags)
    assert max(map(len, printed.splitlines())) <= 100


def test_a_verb_is_one_function(monkeypatch, capsys):
  monkeypatch.setattr(flags, 'VERBS', {})
  monkeypatch.setattr(main, 'VERBS', flags.VERBS)

  @flags.Verb('greet', flags.Flag('name', 'The name.', required=True),
              flags.Flag('times', 'The number of greetings.', int, 2, low=1, high=3),
              flags.Flag('of', 'Where from.', dict, value='NAME=PLACE'), arguments='[MORE]')
  def greet(values):
    """Greet somebody."""
    print(values.name * values.times, values.of, values.arguments)

  assert main.main(['greet', '--name=x', 'y', '--of=a=b', '--of= c=d=e']) == 0
  assert capsys.readouterr().out == "xx {'a': 'b', 'c': 'd=e'} ['y']\n"
  for wrong, said in ((['--times=4', '--name=x'], '--times=4'), ([], 'greet needs --name'),
                      (['--nme=x'], "greet has no flag --nme; did you mean 'name'?"),
                      (['--how=x'], 'greet has no flag --how; there is name, of, times'),
                      (['--name=x', '--of=a'], '--of=a; give NAME=PLACE. Where from.')):
    assert main.main(['greet', *wrong]) == 2 and said in capsys.readouterr().err
  assert greet.__name__ == 'greet'


def test_a_warning_is_one_line_in_plain_words(monkeypatch, network):
  handler = logging.StreamHandler(io.StringIO())
  monkeypatch.setattr(logging.root, 'handlers', [handler])
  assert main.main(['info', f'--network={network}']) == 0
  logging.getLogger('jaxgan_compress.data').warning('%d of 3 files are left out', 2)
  assert handler.stream.getvalue() == 'warning: 2 of 3 files are left out\n'
