"""`~` is the home folder in every path of every verb, config and function."""

import errno
import re
from pathlib import Path

import numpy as np
import pytest

from jaxgan_compress import config, data, distributed, experiment, export, metrics, nn, train
from jaxgan_compress.cli.main import VERBS
from jaxgan_compress.config import build
from jaxgan_compress.core import paths
from jaxgan_compress.data import preprocess
from jaxgan_compress.train import log_files


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
  """A home of the test's own, and beside it an empty folder where it works."""
  for name in ('home', 'work', 'cache'):
    (tmp_path / name).mkdir()
  monkeypatch.setenv('HOME', str(tmp_path / 'home'))
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  monkeypatch.chdir(tmp_path / 'work')
  yield tmp_path / 'home'
  assert not list((tmp_path / 'work').iterdir())


def test_only_the_start_of_a_path_is_a_home(home):
  assert paths.expand('~') == home and paths.expand('~/a') == home / 'a'
  assert paths.expand('~root') == Path('~root').expanduser()
  assert paths.expand('a/~/b') == Path('a/~/b')
  twice = paths.expand(paths.expand('./~a'))
  assert twice == Path.cwd() / '~a'
  with pytest.raises(ValueError, match="no user 'nobody_here' here; write ./~nobody_here for"):
    paths.expand('~nobody_here/run')


@pytest.mark.parametrize('content', ['text of 2 bytes: \xe9', b'\x00\xff'])
def test_a_file_is_the_old_or_the_new_one_and_nothing_beside_it(content, home):
  expected = content if isinstance(content, bytes) else content.encode()
  for text in (b'old', content):
    paths.write_atomically('~/file', text)
  with pytest.raises(TypeError):
    paths.write_atomically('~/file', 3)
  assert (home / 'file').read_bytes() == expected
  assert [path.name for path in home.iterdir()] == ['file']
  with pytest.raises(OSError, match=f'cannot be written .*{home}/none/file'):
    paths.write_atomically('~/none/file', content)


@pytest.mark.parametrize('verb', VERBS.values(), ids=VERBS)
def test_every_flag_that_is_a_path_is_expanded(verb, home):
  places = [flag.name for flag in verb.flags if flag.kind is Path]
  described = {flag.name for flag in verb.flags if flag.name not in ('config', 'layout', 'metric')
               and flag.kind is not int and not flag.choices
               and re.search(r'[Ff]older|\bfiles?\b|FILE|picture', flag.help)}
  assert described <= set(places), 'a flag that is new: is it a path?'
  required = {'config': 'kd/digits', 'name': 'x', 'budget': '1', 'layout': 'paired',
              'target': 'gpu:h100'}
  needed = ['--unit=ms', '--criterion=activation'] * (verb.name == 'prune') + [
      f'--{flag.name}={required[flag.name]}' for flag in verb.flags
      if flag.required and flag.name in required]
  for value, meant in (('~/a', str(home / 'a')), ('gs://bucket/a', 'gs://bucket/a')):
    values = verb.parse([*needed, *(f'--{name}={value}' for name in places)])
    assert {name: vars(values)[name] for name in places} == dict.fromkeys(places, meant)


def test_functions_of_python_take_a_home(home):
  pictures = np.zeros((2, 8, 8, 3), np.uint8)
  x = data.ArraySource(pictures)
  data.record(lambda z: np.zeros((len(z), 8, 8, 1)), data.Latents(2, 3), '~/latents')
  assert len(data.recorded('~/latents')) == 2
  data.record(lambda x: x, data.paired(_pairs(home / 'pairs'), size=8), '~/drawn')
  assert len(data.paired('~/pairs', size=8)) == len(data.folder('~/drawn/train/B', size=8)) == 2
  assert len(data.unpaired('~/pairs', size=8)) == len(x)
  nn.save('~/net.safetensors', nn.VGG(16, ('relu1_1',)), {'params': {'conv1_1': {
      'kernel': np.zeros((3, 3, 3, 64), np.float32), 'bias': np.zeros(64, np.float32)}}})
  assert nn.load('~/net.safetensors')[0].depth == 16
  moments = metrics.Moments.of(np.random.default_rng(0).normal(size=(8, 2)))
  moments.save('~/m.npz')
  assert metrics.Moments.load('~/m.npz').count == 8
  (home / 'mine.py').write_text('from jaxgan_compress import config\n'
                                'def get_config(arg): return config.base()\n')
  assert config.load('~/mine.py').batch == 64
  assert distributed.folder('~/run') == home / 'run'
  assert train.Checkpointer('~/run/c').directory == home / 'run/c'
  assert log_files.Recorder('~/run').directory == home / 'run'
  for missing in (lambda: experiment.open_run('~/run'), lambda: export.verify('~/run'),
                  lambda: data.labels('~/maps'), lambda: metrics.inception('~/none'),
                  lambda: preprocess.prepare('paired', '~/none', 'x', out='~/sets'),
                  lambda: data.tfds('mnist', data_dir='~/sets', size=32, channels=1)):
    with pytest.raises(FileNotFoundError, match=str(home)):
      missing()
  (home / 'painter').mkdir()
  with pytest.raises(FileExistsError, match=f'{home}/painter is there'):
    export.write_folder(None, '~/painter', [])
  with pytest.raises(FileExistsError, match=f'{home}/painter is not empty|{home}/run is not empty'):
    experiment.profile(config.load('kd/digits:smoke'), '~/run')


def _pairs(root):
  data.record(lambda x: x, data.samples('colorize', 'test', size=32, count=2), root)
  for side in 'AB':
    (root / f'train{side}').symlink_to(root / 'train' / side)
  return root


def test_files_that_a_config_names_are_looked_for_at_home(home):
  c = config.load('kd/digits:smoke')
  c.stages.teacher.init_from = {'features': '~/vgg.safetensors'}
  with pytest.raises(ValueError, match=r'there is no file ~/vgg.safetensors'):
    build.validate(c)
  (home / 'vgg.safetensors').touch()
  build.validate(c)
  with pytest.raises(FileNotFoundError, match=f'no folder {home}/maps'):
    build.source(dict(name='paired', path='~/maps'))


def test_a_full_disk_leaves_a_file_as_it_was(home, monkeypatch):
  file, plain = home / 'a.json', home / 'plain'
  paths.write_atomically(file, 'old')
  plain.write_text('')
  assert file.stat().st_mode == plain.stat().st_mode

  def full(_):
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(paths.os, 'fsync', full)
  with pytest.raises(OSError, match=r'cannot be written \(No space left on device\).*a\.json'):
    paths.write_atomically(file, 'new')
  assert file.read_text() == 'old' and sorted(home.iterdir()) == [file, plain]
