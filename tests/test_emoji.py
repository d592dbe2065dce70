"""The pairs of emoji: what is fetched and rendered, how they are paired and split."""

import functools
import hashlib
import importlib.util
import io
import json
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxgan_compress import data
from jaxgan_compress.core import paths
from jaxgan_compress.data import emoji, icons

spec = importlib.util.spec_from_file_location(
    'get_emoji', Path(__file__).parents[1] / 'launch' / 'get_emoji.py')
get_emoji = importlib.util.module_from_spec(spec)
spec.loader.exec_module(get_emoji)

SPLITS = 'train', 'validation', 'test'
TONES = 'default', 'light', 'medium-light', 'medium', 'medium-dark', 'dark'
THINGS = [f'thing-{i}' for i in range(60)]
TONED = [f'{who}-waving-{tone}' for who in ('man', 'woman') for tone in TONES]
# As in the package: black pictures have one tone, and one name is spelled in two ways.
TREE = {'high-contrast': [*THINGS, 'man-waving-default', 'bread'],
        'flat': [*THINGS, *TONED, 'bread-flat'], 'modern': [*THINGS, *TONED, 'bread']}
NAMES = sorted(set().union(*TREE.values()))
SVG = '<svg xmlns="http://www.w3.org/2000/svg" fill="none" viewBox="0 0 32 {}">{}</svg>'


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


def shade(style, name):
  """The level of grey by which a picture is known again."""
  return 80 * list(TREE).index(style) + NAMES.index(name)


def shown(source, role='image'):
  """What the pictures of a source are, by their grey: [(style, name)]."""
  levels = [int(source[i][role].flat[0]) for i in range(len(source))]
  return [(list(TREE)[level // 80], NAMES[level % 80]) for level in levels]


def render(svg, size):
  """Stands in for resvg-py: a square of the level that the text says."""
  png = io.BytesIO()
  Image.new('RGB', (size, size), (int(svg),) * 3).save(png, 'PNG')
  return png.getvalue()


@pytest.fixture(scope='module')
def tarball(tmp_path_factory):
  path = tmp_path_factory.mktemp('package') / 'fluentui-emoji-1.3.0.tgz'
  members = {'LICENSE': 'MIT License', 'package.json': '{}', **{
      f'icons/{style}/{name}.svg': str(shade(style, name)) for style, names in TREE.items()
      for name in names}}
  with tarfile.open(path, 'w:gz') as archive:
    for name, text in members.items():
      member = tarfile.TarInfo(f'package/{name}')
      member.size = len(text)
      archive.addfile(member, io.BytesIO(text.encode()))
  return path


@pytest.fixture(scope='module')
def get(tarball):
  sha256 = hashlib.sha256(tarball.read_bytes()).hexdigest()
  return functools.partial(get_emoji.get, tarball=tarball, render=render, sha256=sha256, size=32)


@pytest.fixture(scope='module')
def folder(get, tmp_path_factory):
  path = tmp_path_factory.mktemp('pictures') / 'emoji'
  get(path)
  return path


# Data.

@pytest.mark.parametrize(('pair', 'styles', 'names'), [
    ('mono2flat', ('high-contrast', 'flat'), {*THINGS, 'man-waving-default'}),
    ('flat2shaded', ('flat', 'modern'), {*THINGS, *TONED})])
def test_pairs_are_two_styles_of_one_name(pair, styles, names, folder):
  seen = []
  for split in SPLITS:
    source = data.samples('emoji', split, pair=pair, path=folder, size=40)
    inside = emoji.in_split(names, split)
    for role, style in zip(('source', 'target'), styles, strict=True):
      assert shown(source, role) == [(style, name) for name in inside]
      assert source[0][role].shape == (40, 40, 3) and source[0][role].std() == 0
    assert len(data.samples('emoji', split, pair=pair, path=folder, count=2)) == min(2, len(inside))
    seen += inside
    # Without pairs no emoji is in both domains.
    parted = data.samples('emoji', split, pair=pair, path=folder, size=40, paired=False)
    inputs, targets = shown(parted.a), shown(parted.b)
    assert {style for style, _ in inputs} == {styles[0]}
    assert {style for style, _ in targets} == {styles[1]}
    assert sorted(name for _, name in inputs + targets) == sorted(inside)
    assert not {emoji.emoji_of(name) for _, name in inputs} & {
        emoji.emoji_of(name) for _, name in targets}
  assert sorted(seen) == sorted(names)


@pytest.mark.parametrize(('names', 'of'), [
    ('waving-hand-default waving-hand-light waving-hand-medium-light waving-hand-medium '
     'waving-hand-medium-dark waving-hand-dark', 'waving-hand'),
    ('woman-running-facing-right-dark man-running person-running-light', 'running'),
    ('artist-dark man-artist woman-artist-medium-light', 'artist'),
    ('leftwards-pushing-hand-dark rightwards-pushing-hand', 'pushing-hand'),
    ('red-heart black-heart light-blue-heart', 'heart'),
    ('police-car police-car-light', 'police-car'), ('one-oclock eleven-oclock', 'oclock'),
    ('cross-mark multiply', 'cross-mark'), ('full-moon blue-circle', 'circle'),
    ('woman man-red-hair person-beard-dark', ''), ('flashlight', 'flashlight'),
    ('thing-12', 'thing-12'), ('speaker-medium-volume', 'speaker-volume')])
def test_pictures_of_one_emoji_stay_together(names, of):
  assert [emoji.emoji_of(name) for name in names.split()] == [of] * len(names.split())
  assert len({emoji.split_of(name) for name in names.split()}) == 1


def test_every_machine_splits_alike():
  names = [f'thing-{i}' for i in range(1000)]
  splits = {split: emoji.in_split(names, split) for split in SPLITS}
  assert {split: len(inside) for split, inside in splits.items()} == {
      'train': 789, 'validation': 115, 'test': 96}
  assert [inside[:2] for inside in splits.values()] == [
      ['thing-269', 'thing-938'], ['thing-247', 'thing-606'], ['thing-684', 'thing-672']]
  assert [emoji.split_of(name) for name in ('abacus', 'rocket', 'pig-nose')] == [
      'test', 'validation', 'train']
  assert emoji.in_split(names[::-1], 'test') == splits['test']


def unlink(name):
  return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(('change', 'said'), [
    (unlink('emoji.json'), r'has no emoji of launch/get_emoji.sh \(no whole emoji.json\); '
                           './launch/get_emoji.sh {folder} renders them'),
    (lambda folder: (folder / 'emoji.json').write_text('{"pictures": 3}'), 'no whole emoji.json'),
    (lambda folder: (folder / 'emoji.json').write_text('{"pict'), 'no whole emoji.json'),
    (unlink('flat/thing-3.png'), 'flat has 72 of 73 pictures; ./launch/get_emoji.sh {folder} re'),
    (lambda folder: shutil.rmtree(folder / 'mono'), 'mono has 0 of 62 pictures; ./launch/get_emo'),
    (lambda folder: shutil.rmtree(folder), 'has no emoji of launch/get_emoji.sh')])
def test_pictures_that_are_missing_name_the_command(change, said, folder, tmp_path, monkeypatch):
  copy = shutil.copytree(folder, tmp_path / 'cache/jaxgan_compress/emoji')
  data.samples('emoji')
  change(copy)
  for path in (None, copy):
    with pytest.raises(FileNotFoundError, match=said.format(folder=copy)):
      data.samples('emoji', path=path)


@pytest.mark.parametrize(('arguments', 'said'), [
    (dict(task='emoji', pair='flat2mono'), "pair='flat2mono'; one of mono2flat, flat2shaded"),
    (dict(task='icons', pair='mono'), "pair='mono'; one of mono2flat"),
    (dict(task='emoji', size=16), 'size=16; samples have 32 to 256'),
    (dict(task='emoji', count=0), 'count=0; at least 1'),
    (dict(task='emoji', split='val'), "split='val'; one of train, validation, test"),
    (dict(task='colorize', pair='mono2flat'),
     "pair='mono2flat'; samples:colorize has no pair, emoji and icons alone"),
    (dict(task='shapes', paired=True), 'samples:shapes has no paired, emoji and icons alone'),
    (dict(task='icons', path='x'), "path='x'; samples:icons has no path, emoji alone")])
def test_arguments_of_another_task_are_refused(arguments, said):
  with pytest.raises(ValueError, match=said):
    data.samples(**arguments)


# What fetches and renders them.

def files_of(folder):
  return {path.relative_to(folder): path.read_bytes() for path in folder.rglob('*')
          if path.is_file()}


def test_all_is_rendered_once_and_goes_on_where_it_was(get, folder, tarball, tmp_path):
  pictures = {'mono': 62, 'flat': 73, 'shaded': 73}
  assert json.loads((folder / 'emoji.json').read_text())['pictures'] == pictures
  assert sorted(path.name for path in folder.iterdir()) == sorted(
      ['LICENSE', 'emoji.json', *pictures])
  assert (folder / 'LICENSE').read_text() == 'MIT License'
  rendered, told = [], []

  def render_ten(svg, size):
    if len(rendered) == 10:
      raise KeyboardInterrupt
    rendered.append(svg)
    return render(svg, size)

  again = tmp_path / 'again'
  (again / '.fetching_killed').mkdir(parents=True)
  with pytest.raises(KeyboardInterrupt):
    get(again, render=render_ten)
  with pytest.raises(FileNotFoundError, match='get_emoji.sh'):
    data.samples('emoji', path=again)
  mark = next(again.rglob('*.png')).stat().st_mtime_ns
  mine = shutil.copy(tarball, again)
  get(again, tarball=mine, say=told.append)
  Path(mine).unlink()  # a tarball that was given stays
  assert 'Rendering 198 pictures of 32x32; 10 are there ...' in told
  assert min(path.stat().st_mtime_ns for path in again.rglob('*.png')) <= mark
  assert files_of(again) == files_of(folder)
  get(again, render=None, tarball='no such file', say=told.append)
  assert told[-1] == f'{again} has all 208 pictures; nothing is left to do'


@pytest.mark.parametrize(('before', 'arguments', 'said'), [
    (dict(photo='mine'), {}, r'emoji holds other things \(photo\) and no emoji.json; nothing was '),
    ({'emoji.json': '{"package": "mine"}'}, {}, 'emoji.json is not of fluentui-emoji@1.3.0 at 32'),
    ({'emoji.json': '[1]'}, {}, 'emoji.json is not of fluentui-emoji@1.3.0 at 32 pixels; nothing'),
    ({'emoji.json': '{'}, {}, 'Give another folder, or remove this one'),
    ({}, dict(sha256='0' * 64), r'1.3.0.tgz is not fluentui-emoji@1.3.0: its SHA-256 is [0-9a-f]+'),
    ({}, dict(tarball='nowhere.tgz'), 'there is no file nowhere.tgz'),
    ({}, dict(tarball=None), 'npm was not found, .*apt-get install npm.*fluentui-emoji-1.3.0.tgz'),
    ({}, dict(render=lambda svg, size: int('x')), 'mono/thing-0.svg cannot be rendered: inv'),
    ({}, dict(render=None), "has no resvg_py; .* pip install 'resvg-py>=0.5,<1'")])
def test_what_is_in_the_way_is_said_and_left_alone(before, arguments, said, get, tmp_path,
                                                   monkeypatch):
  monkeypatch.setenv('PATH', str(tmp_path))
  monkeypatch.setitem(sys.modules, 'resvg_py', None)
  place = tmp_path / 'emoji'
  place.mkdir()
  for name, text in before.items():
    (place / name).write_text(text)
  with pytest.raises(get_emoji.FetchError, match=said):
    get(place, **arguments)
  for name, text in before.items():
    assert (place / name).read_text() == text
  if before or 'render' not in arguments or not arguments['render']:
    assert {path.name for path in place.iterdir()} == before.keys()


def test_npm_fetches_and_what_it_fetched_is_checked(get, folder, tarball, tmp_path, monkeypatch):
  npm = tmp_path / 'npm'
  npm.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n/bin/cp {tarball} .\n')
  npm.chmod(0o755)
  monkeypatch.setenv('PATH', str(tmp_path))

  def stop(svg, size):
    raise KeyboardInterrupt

  for sha256, error in (('0' * 64, get_emoji.FetchError),
                        (get.keywords['sha256'], KeyboardInterrupt)):
    with pytest.raises(error):
      get(tmp_path / 'fetched', tarball=None, render=stop, sha256=sha256)
  get(tmp_path / 'fetched', tarball=None)  # of the tarball that is there
  assert (tmp_path / 'calls').read_text() == 'pack fluentui-emoji@1.3.0 --silent\n' * 2
  assert files_of(tmp_path / 'fetched') == files_of(folder)
  npm.write_text('#!/bin/sh\necho no network >&2; exit 1\n')
  with pytest.raises(get_emoji.FetchError, match='failed: no network\nIt needs a network'):
    get(tmp_path / 'other', tarball=None)


def test_the_script_ends_with_one_line(tmp_path, capsys):
  with pytest.raises(SystemExit, match='^get_emoji.sh: there is no file nowhere'):
    get_emoji.main([str(tmp_path / 'x'), 'nowhere'])
  assert get_emoji.default() == paths.cache_folder('emoji')
  assert get_emoji.RECORD == emoji.RECORD
  assert {*get_emoji.STYLES.values()} == {style for pair in emoji.PAIRS.values() for style in pair}


@pytest.mark.parametrize('height', [32, 33])
def test_a_picture_becomes_a_square_on_white(height):
  pytest.importorskip('resvg_py')
  circle = f'<circle cx="16" cy="{height / 2}" r="8" fill="#f00"/>'
  with Image.open(io.BytesIO(get_emoji._resvg()(SVG.format(height, circle), 64))) as image:
    assert image.mode == 'RGB'
    pixels = np.asarray(image).astype(int)
  assert pixels.shape == (64, 64, 3)
  assert (pixels[[0, 0, -1, -1], [0, -1, 0, -1]] == 255).all()
  assert (pixels[32, 32] == (255, 0, 0)).all()
  red = 255 - pixels[..., 1]
  for weights in (red.sum(0), red.sum(1)):
    assert abs((weights * np.arange(64)).sum() / red.sum() - 31.5) < .05
  assert abs(red.sum() / 255 - np.pi * (16 * 32 / height) ** 2) < 8


# Icons of our own.

def test_our_icons_are_a_dozen_parted_by_name():
  assert [len(names) for names in icons.SPLITS.values()] == [8, 2, 2]
  assert tuple(icons.SPLITS) == SPLITS
  assert [name for names in icons.SPLITS.values() for name in names] == [*icons.ICONS]


def test_our_icons_are_one_shape_in_three_styles():
  rng = np.random.default_rng(0)
  for parts in icons.ICONS.values():
    parts = icons.varied(parts, rng)
    mono, flat, shaded = (icons.paint(parts, style, 64) for style in ('mono', 'flat', 'shaded'))
    assert (mono == mono[..., :1]).all() and mono.min() == 33
    assert flat.std(-1).max() > 30 and (flat != shaded).any()
    white = (flat == 255).all(-1)
    assert .3 < white.mean() < .95 and white[[0, 0, -1, -1], [0, -1, 0, -1]].all()
    assert (white == (shaded == 255).all(-1)).mean() > .99 and (mono[white] == 255).all()


def test_our_icons_are_read_as_emoji_are():
  for paired in (True, False):
    source = data.samples('icons', 'test', pair='flat2shaded', paired=paired, size=32, count=6)
    assert (source[3]['source'] != source[3]['target']).any()
    for name, x in source[3].items():
      np.testing.assert_array_equal(x, source[3][name])
    assert len(source) == 6 and 'samples:icons/flat2shaded/test' in repr(source)
  train = data.samples('icons')
  one, two = (train.augmented(3, np.random.default_rng(seed))['target'] for seed in (0, 1))
  assert (one != two).any() and len(train) == 2048
