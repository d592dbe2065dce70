"""Sources of image translation: layouts, views, damage, order, preparation."""

import dataclasses
import functools
import io
import json
import logging
import os
import struct
import zlib

import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxgan_compress import core, data
from jaxgan_compress.data import (
  decode as images,
)
from jaxgan_compress.data import (
  folder_layouts,
  sample_images,
  translation,
)
from jaxgan_compress.data import (
  preprocess as prepare,
)
from jaxgan_compress.data.views import View
from tests import files


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))


@pytest.fixture
def photographs():
  """Pairs of real photographs, grey and colour, uint8 [6,40,48,3]."""
  source = data.samples('colorize', 'test', size=48)
  return [{name: x[:40] for name, x in source[i].items()} for i in range(6)]


def save(array, path, **options):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(array).save(path, **options)
  return path


def write(root, pairs, layout):
  """The pairs as files of one layout."""
  for i, pair in enumerate(pairs):
    if layout == 'side by side':
      save(np.concatenate([pair['source'], pair['target']], 1), root / 'train' / f'{i}.png')
    for domain, name in (('A', 'source'), ('B', 'target')):
      folder = {'split/A': f'train/{domain}', 'A/split': f'{domain}/train',
                'unpaired': f'train{domain}'}.get(layout)
      if folder:
        save(pair[name], root / folder / f'{i}.png')
  return root


AS_IT_IS = dict(preprocess='none', flip=False)


@pytest.mark.parametrize('layout', ['side by side', 'split/A', 'A/split'])
@pytest.mark.parametrize('via', ['folder', 'tfds'])
def test_pairs_come_back_to_the_pixel(layout, via, photographs, tmp_path):
  root = write(tmp_path / 'set', photographs, layout)
  if via == 'folder':
    source = data.paired(root, **AS_IT_IS)
  else:
    prepare.prepare('paired', root, 'mine', out=tmp_path / 'out')
    source = data.tfds('mine', data_dir=str(tmp_path / 'out'), **AS_IT_IS)
  assert len(source) == len(photographs)
  for i, pair in enumerate(photographs):
    for name, x in pair.items():
      np.testing.assert_array_equal(source[i][name], x)
  back = data.paired(root, direction='BtoA', **AS_IT_IS)[0]
  np.testing.assert_array_equal(back['source'], photographs[0]['target'])


@pytest.mark.parametrize('via', ['folder', 'tfds'])
def test_domains_come_back_to_the_pixel(via, photographs, tmp_path):
  root = write(tmp_path / 'set', photographs, 'unpaired')
  (root / 'trainB' / '5.png').unlink()
  if via == 'folder':
    source = data.unpaired(root, **AS_IT_IS)
  else:
    prepare.prepare('unpaired', root, 'mine', out=tmp_path / 'out')
    source = data.tfds('mine', data_dir=str(tmp_path / 'out'), **AS_IT_IS)
  assert (len(source.a), len(source.b), len(source)) == (6, 5, 6)
  for i in range(6):
    np.testing.assert_array_equal(source[i]['source'], photographs[i]['source'])
    np.testing.assert_array_equal(source[i]['target'], photographs[i % 5]['target'])


@pytest.mark.parametrize('via', ['spade', 'cityscapes', 'tfds'])
def test_labels_come_back_to_the_pixel(via, tmp_path):
  scenes = [sample_images.scene(np.random.default_rng(i), 32) for i in range(12)]
  root = tmp_path / 'set'
  for i, scene in enumerate(scenes):
    names = {'label_map': f'gtFine/train/aachen/aachen_{i}_gtFine_labelIds.png',
             'instances': f'gtFine/train/aachen/aachen_{i}_gtFine_instanceIds.png',
             'target': f'leftImg8bit/train/aachen/aachen_{i}_leftImg8bit.png'}
    if via != 'cityscapes':
      names = {'label_map': f'train_label/{i}.png', 'instances': f'train_inst/{i}.png',
               'target': f'train_img/{i}.png'}
    for name, file in names.items():
      save(scene[name].astype(np.uint16) if name == 'instances' else scene[name], root / file)
  if via == 'tfds':
    prepare.prepare('labels', root, 'mine', out=tmp_path / 'out', classes=6)
    source = data.tfds('mine', data_dir=str(tmp_path / 'out'), **AS_IT_IS)
  else:
    source = data.labels(root, classes=6, **AS_IT_IS)
  assert source.classes == 6 and len(source) == 12
  for i, scene in enumerate(scenes):  # 10 comes after 9
    np.testing.assert_array_equal(source[i]['label_map'], scene['label_map'])
    np.testing.assert_array_equal(source[i]['target'], scene['target'])
    np.testing.assert_array_equal(source[i]['edges'],
                                  images.instance_edges(scene['instances']))


@pytest.mark.parametrize('bits', [1, 2, 4, 8])
def test_small_label_maps_keep_their_numbers(bits):
  """Grey PNG of few bits: what is stored counts, not what a viewer would stretch it to."""
  labels = (np.arange(16).reshape(4, 4) % 2 ** bits).astype(np.uint8)
  packed = np.packbits(np.unpackbits(labels[..., None], -1)[..., 8 - bits:].reshape(4, -1), -1)
  raw = b''.join(b'\0' + row.tobytes() for row in packed)

  def chunk(kind, content):
    return (struct.pack('>I', len(content)) + kind + content
            + struct.pack('>I', zlib.crc32(kind + content)))

  png = (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', 4, 4, bits, 0, 0, 0, 0))
         + chunk(b'IDAT', zlib.compress(raw)) + chunk(b'IEND', b''))
  np.testing.assert_array_equal(images.decode_labels(png), labels)


def test_a_picture_that_passed_is_no_label_map(tmp_path):
  for i, folder in enumerate(('train_label', 'train_img')):
    save(np.full((8, 8), 100 * i + 100, np.uint8), tmp_path / folder / '0.png')
  data.folder(tmp_path / 'train_label', size=8)
  with pytest.raises(images.ImageError, match='labels 100 are not among 0 to 4'):
    data.labels(tmp_path, classes=5)


@pytest.mark.parametrize('backend', ['pillow', 'opencv'])
def test_labels_stay_on_their_pictures(backend):
  if backend == 'opencv' and not _has_opencv():
    pytest.skip('needs the extra fast')
  label_map = np.random.default_rng(0).integers(0, 9, (64, 64), dtype=np.uint8)
  view = View(size=16, backend=backend)
  out = view.apply({'label_map': label_map}, view.plan(64, 64, None))
  np.testing.assert_array_equal(out['label_map'], label_map[2::4, 2::4])  # the middle of each four


def test_edges_mark_both_sides():
  instances = np.array([[1, 1, 2], [1, 1, 2], [3, 3, 3]])
  np.testing.assert_array_equal(images.instance_edges(instances),
                                [[0, 1, 1], [1, 1, 1], [1, 1, 1]])


def test_planes_are_one_hot_and_edges():
  planes = data.planes(jnp.array([[[0, 2]]], jnp.uint8), jnp.array([[[0, 1]]], jnp.uint8), 3)
  np.testing.assert_array_equal(planes, [[[[1, 0, 0, 0], [0, 0, 1, 1]]]])


def test_255_is_a_label_of_its_own_only_on_demand(tmp_path):
  scene = sample_images.scene(np.random.default_rng(0), 32)
  scene['label_map'][0, :3] = 255
  for name, folder in (('label_map', 'train_label'), ('target', 'train_img')):
    save(scene[name], tmp_path / folder / '0.png')
  with pytest.raises(images.ImageError, match='labels 255 are not .*dont_care=True'):
    data.labels(tmp_path, classes=6, **AS_IT_IS)
  source = data.labels(tmp_path, classes=6, dont_care=True, **AS_IT_IS)
  assert source.classes == 7 and (source[0]['label_map'][0, :3] == 6).all()
  with pytest.raises(images.ImageError, match=r'labels 4, 5 .*0 to 3'):
    data.labels(tmp_path, classes=4, dont_care=True, **AS_IT_IS)


# Channels and bits.

DEEP = np.random.default_rng(2).integers(0, 65536, (2, 16, 20, 6)).astype(np.uint16)


def rgba(x):
  return files.png(x, 16, {1: 0, 2: 4, 3: 2, 4: 6}[x.shape[-1]])


KINDS_OF_FILES = {
    # (suffix, a file of [H,W,C], channels that it has, those it is read with, bits, what is read)
    'grey of 16 bits': ('png', rgba, 1, 1, 16, lambda x: x),
    'RGB of 16 bits': ('png', rgba, 3, 3, 16, lambda x: x),
    'RGBA of 16 bits': ('png', rgba, 4, 4, 16, lambda x: x),
    'RGBA': ('png', lambda x: files.png(x >> 8, 8, 6), 4, 4, 8, lambda x: x >> 8),
    'grey and alpha': ('png', lambda x: files.png(x >> 8, 8, 4), 2, 2, 8, lambda x: x >> 8),
    'no alpha': ('png', lambda x: files.png(x >> 8, 8, 2), 3, 4, 8,
                 lambda x: np.dstack([x >> 8, np.full(x.shape[:2], 255)])),
    'no alpha in grey': ('png', lambda x: files.png(x >> 8, 8, 0), 1, 2, 8,
                         lambda x: np.dstack([x >> 8, np.full(x.shape[:2], 255)])),
    '8 bits among 16': ('png', lambda x: files.png(x >> 8, 8, 2), 3, 3, 16,
                        lambda x: (x >> 8) * 257),
    'grey as RGB of 16 bits': ('png', rgba, 1, 3, 16, lambda x: x.repeat(3, -1)),
    '16 bits as 8': ('npy', files.npy, 5, 5, 8, lambda x: np.rint(x / 257)),
    'five planes': ('npy', files.npy, 5, 5, 16, lambda x: x),
    'five pages': ('tif', lambda x: files.by_tifffile(
        np.moveaxis(x, -1, 0), photometric='minisblack'), 5, 5, 16, lambda x: x),
    'six samples': ('tif', lambda x: files.by_tifffile(
        x, photometric='minisblack', planarconfig='contig'), 6, 6, 16, lambda x: x),
    'an array of one plane': ('npy', lambda x: files.npy(x[..., 0]), 1, 1, 16, lambda x: x)}


@pytest.mark.parametrize('kind', KINDS_OF_FILES)
def test_channels_and_bits_are_kept_in_every_layout(kind, tmp_path):
  suffix, write_file, stored, channels, bits, read = KINDS_OF_FILES[kind]
  images_of = {'source': DEEP[0][..., :stored], 'target': DEEP[1][..., :stored]}
  folders = {'train/A': 'source', 'train/B': 'target', 'trainA': 'source', 'trainB': 'target',
             'train_img': 'target'}
  for folder, side in folders.items():
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / f'0.{suffix}').write_bytes(write_file(images_of[side]))
  save(np.zeros((16, 20), np.uint8), tmp_path / 'train_label/0.png')
  both = np.concatenate([images_of['source'], images_of['target']], 1)
  (tmp_path / 'beside/train').mkdir(parents=True)
  (tmp_path / f'beside/train/0.{suffix}').write_bytes(write_file(both))
  fields = dict(channels=channels, bits=bits, **AS_IT_IS)
  sources = [data.paired(tmp_path, **fields), data.unpaired(tmp_path, **fields),
             data.paired(tmp_path / 'beside', **fields), data.labels(tmp_path, classes=1, **fields)]
  for source in sources:
    for side, x in source[0].items():
      if side in images_of:
        assert x.dtype == (np.uint16 if bits == 16 else np.uint8), source
        np.testing.assert_array_equal(x, read(images_of[side]), repr(source))
  back = data.paired(tmp_path, direction='BtoA', **fields)[0]
  np.testing.assert_array_equal(back['source'], read(images_of['target']))


def test_source_and_target_have_channels_of_their_own(tmp_path):
  for i, x in enumerate(DEEP):
    for folder, channels in (('train/A', 1), ('train/B', 4), ('trainA', 1), ('trainB', 4)):
      (tmp_path / folder).mkdir(parents=True, exist_ok=True)
      (tmp_path / folder / f'{i}.npy').write_bytes(files.npy(x[..., :channels]))
  for read in (data.paired, data.unpaired):
    for direction, channels in (('AtoB', (1, 4)), ('BtoA', (4, 1))):
      source = read(tmp_path, direction=direction, channels=channels, bits=16, **AS_IT_IS)
      for side, count in zip(('source', 'target'), channels, strict=True):
        np.testing.assert_array_equal(source[1][side], DEEP[1][..., :count])
      with pytest.raises(images.ImageError, match='npy holds . planes? and channels=.; planes are'):
        read(tmp_path, direction=direction, channels=channels[::-1], bits=16, **AS_IT_IS)
  (tmp_path / 'beside/train').mkdir(parents=True)
  (tmp_path / 'beside/train/0.png').write_bytes(rgba(np.concatenate(DEEP, 1)[..., :3]))
  source = data.paired(tmp_path / 'beside', channels=(3, 1), bits=16, **AS_IT_IS)
  np.testing.assert_array_equal(source[0]['source'], DEEP[0][..., :3])
  # Of a set of the catalogue there are arrays.
  arrays = translation.Images([{'source': DEEP[0][..., :1], 'target': DEEP[1][..., :4]}],
                              View(**AS_IT_IS), 'x', channels=(3, 4), bits=16)[0]
  np.testing.assert_array_equal(arrays['source'], DEEP[0][..., :1].repeat(3, -1))
  np.testing.assert_array_equal(arrays['target'], DEEP[1][..., :4])
  grey = DEEP[1][..., :3] @ np.array([.299, .587, .114])
  np.testing.assert_allclose(source[0]['target'][..., 0], grey, atol=1)


@pytest.mark.parametrize('content, channels, bits, message', [
    (files.npy(DEEP[0]), 4, 16, '0.npy holds 6 planes and channels=4; planes are taken as they'),
    (files.npy(DEEP[0]), 3, 8, 'holds 6 planes and channels=3; .* give channels=6'),
    (files.npy(DEEP[0][..., 0]), 3, 8, 'holds 1 plane and channels=3'),
    (files.npy(DEEP[0].astype(np.float32)), 6, 8, 'an array of float32; uint8 or uint16 is read')])
def test_planes_that_do_not_fit_are_named_before_training(content, channels, bits, message,
                                                          tmp_path):
  (tmp_path / '0.npy').write_bytes(content)
  with pytest.raises(images.ImageError, match=message):
    data.folder(tmp_path, channels=channels, bits=bits, **AS_IT_IS)


@pytest.mark.parametrize('suffix, content, channels, bits', [
    ('png', rgba, 4, 16), ('npy', files.npy, 6, 16)])
def test_prepared_sets_keep_the_channels_and_bits_they_were_checked_for(
    suffix, content, channels, bits, tmp_path):
  for side, x in zip('AB', DEEP, strict=True):
    (tmp_path / f'set/train{side}').mkdir(parents=True)
    (tmp_path / f'set/train{side}/0.{suffix}').write_bytes(content(x[..., :channels]))
  prepare.prepare('unpaired', tmp_path / 'set', 'mine', out=tmp_path, channels=channels, bits=bits)
  read = functools.partial(data.tfds, 'mine', data_dir=str(tmp_path), **AS_IT_IS)
  for source in (read(), read(channels=channels, bits=bits)):
    np.testing.assert_array_equal(source[0]['target'], DEEP[1][..., :channels])
  for wrong in (dict(bits=8), dict(channels=3), dict(channels=(channels, 3))):
    with pytest.raises(ValueError, match=f'was prepared, .*channels={channels}, bits=16; leave ch'):
      read(**wrong)


def test_a_set_that_was_prepared_in_colour_is_read_in_grey_alone(photographs, tmp_path):
  prepare.prepare('paired', write(tmp_path / 'set', photographs[:1], 'side by side'), 'mine',
                  out=tmp_path)
  read = functools.partial(data.tfds, 'mine', data_dir=str(tmp_path), **AS_IT_IS)
  assert [x.shape[-1] for x in read(channels=(1, 3))[0].values()] == [1, 3]
  for wrong in (dict(bits=16), dict(channels=4)):
    with pytest.raises(ValueError, match='prepare it again with --channels=. --bits='):
      read(**wrong)
  with pytest.raises(ValueError, match='channels=0'):
    prepare.prepare('paired', tmp_path / 'set', 'other', out=tmp_path, channels=0)


def test_pages_that_are_left_out_are_told(tmp_path, caplog):
  stack = np.moveaxis(DEEP[0] >> 8, -1, 0).astype(np.uint8)
  (tmp_path / '0.tif').write_bytes(files.by_tifffile(stack, photometric='minisblack'))
  (tmp_path / '1.tif').write_bytes(files.by_tifffile(stack[0], photometric='minisblack'))
  for _ in range(2):  # the second time from memory
    source = data.folder(tmp_path, channels=1, **AS_IT_IS)
    assert [record.getMessage() for record in caplog.records] == [
        f'{tmp_path}: 1 TIFFs have up to 6 pages, of which the first is used; to take all as '
        'planes, give channels (or bits=16)']
    caplog.clear()
    np.testing.assert_array_equal(source[0]['image'][..., 0], stack[0])
  (tmp_path / '1.tif').unlink()
  data.folder(tmp_path, channels=6, **AS_IT_IS)
  assert not caplog.records


def test_arrays_beside_pictures_are_left_out(tmp_path, caplog):
  save(np.zeros((8, 8, 3), np.uint8), tmp_path / '0.png')
  (tmp_path / '1.npy').write_bytes(files.npy(DEEP[0]))
  assert len(data.folder(tmp_path, size=8)) == 1
  assert '1 .npy (not listed)' in caplog.text


def test_what_passed_with_other_channels_is_checked_again(tmp_path):
  (tmp_path / '0.npy').write_bytes(files.npy(DEEP[0]))
  data.folder(tmp_path, channels=6, **AS_IT_IS)
  with pytest.raises(images.ImageError, match='holds 6 planes'):
    data.folder(tmp_path, channels=5, **AS_IT_IS)


def test_numbers_become_the_same_image_whatever_their_bits():
  levels = jnp.arange(256)
  found = core.normalise({'few': levels.astype(jnp.uint8).reshape(1, 16, 16, 1),
                          'many': (levels * 257).astype(jnp.uint16).reshape(1, 16, 16, 1),
                          'ends': jnp.array([0, 65535], jnp.uint16).reshape(1, 1, 2, 1),
                          'label_map': levels.astype(jnp.uint16).reshape(1, 16, 16)})
  np.testing.assert_allclose(found['few'], found['many'], atol=2e-7)
  np.testing.assert_array_equal(found['ends'].ravel(), [-1, 1])
  assert found['label_map'].dtype == jnp.uint16


# Views.

def test_evaluation_resizes_and_training_crops():
  view, picture = View(size=8, load=12), np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
  fixed = view.apply({'x': picture}, view.plan(20, 30, None))['x']
  np.testing.assert_array_equal(fixed, Image.fromarray(picture).resize((8, 8), Image.BICUBIC))
  large = np.asarray(Image.fromarray(picture).resize((12, 12), Image.BICUBIC))
  seen = set()
  for seed in range(200):
    plan = view.plan(20, 30, np.random.default_rng(seed))
    cut = large[plan.top:plan.top + 8, plan.left:plan.left + 8]
    cut = cut[:, ::-1] if plan.flip else cut
    np.testing.assert_array_equal(view.apply({'x': picture}, plan)['x'], cut)
    seen.add((plan.top, plan.left, plan.flip))
  assert {x[0] for x in seen} == {x[1] for x in seen} == {0, 1, 2, 3, 4}
  assert {x[2] for x in seen} == {False, True}


@pytest.mark.parametrize('preprocess, shape', [
    ('resize_and_crop', (8, 8)), ('scale_width', (5, 8)), ('crop', (8, 8)), ('none', (20, 30))])
def test_what_comes_out_is_what_was_said(preprocess, shape):
  view = View(size=8, preprocess=preprocess)
  assert view.shape(20, 30) == shape
  for rng in (None, np.random.default_rng(0)):
    x = view.apply({'x': np.zeros((20, 30, 3), np.uint8)}, view.plan(20, 30, rng))['x']
    assert x.shape == (*shape, 3)


def test_labels_are_never_mixed():
  view, label_map = View(size=7, load=9), np.random.default_rng(0).choice([0, 9], (20, 30))
  label_map = label_map.astype(np.uint8)
  for name in ('pillow', 'opencv') if _has_opencv() else ('pillow',):
    view = View(size=7, load=9, backend=name)
    out = view.apply({'label_map': label_map, 'instances': label_map.astype(np.int32) * 1000},
                     view.plan(20, 30, np.random.default_rng(1)))
    assert set(np.unique(out['label_map'])) <= {0, 9}
    np.testing.assert_array_equal(out['instances'], out['label_map'].astype(int) * 1000)


def _has_opencv():
  try:
    images.opencv()
  except ImportError:
    return False
  return True


@pytest.mark.parametrize('channels, deep', [(3, False), (1, True), (4, False), (5, True)])
@pytest.mark.parametrize('backend', ['opencv', 'device'])
def test_backends_agree_with_pillow(backend, channels, deep, photographs):
  if backend == 'opencv' and not _has_opencv():
    pytest.skip('needs the extra fast')
  unit = 257 if deep else 1
  arrays = {name: np.dstack([photographs[i][name] for i in (1, 2)])[..., :channels] * (
      np.uint16(257) if deep else np.uint8(1)) for name in ('source', 'target')}
  height, width = arrays['source'].shape[:2]
  large = 64 if backend == 'opencv' else 44  # OpenCV enlarges only
  reference = View(size=32, load=large)
  other = View(size=32, load=large, backend=backend)
  plan = reference.plan(height, width, np.random.default_rng(3))
  expected = reference.apply(arrays, plan)
  found = other.apply(arrays, plan)
  found = other.on_device({name: jnp.asarray(x)[None] for name, x in found.items()})
  for name, x in expected.items():
    y = np.asarray(found[name]).reshape(x.shape)
    assert x.dtype == arrays[name].dtype and x.shape == (32, 32, channels)
    y = (y + 1) * 127.5 if backend == 'device' else y / unit
    # Pillow rounds twice; OpenCV's cubic is another one.
    worst = np.abs(y - x / unit)
    assert worst.max() < (2.1 if backend == 'device' else 6) and worst.mean() < 1


@pytest.mark.parametrize('fields, message', [
    (dict(preprocess='zoom'), 'preprocess=.zoom.; one of resize_and_crop'),
    (dict(backend='gpu'), 'backend=.gpu.; one of pillow'),
    (dict(size=64, load=32), 'does not fit into load=32'), (dict(size=0), 'size=0; a whole'),
    (dict(size='32'), "size='32'; a whole number"), (dict(size=(8, 8, 3)), 'or .height, width.'),
    (dict(load=7.5), 'load=7.5; a whole'),
    (dict(size=(4, 8), preprocess='scale_width'), 'takes the width alone'),
    (dict(backend='device', preprocess='crop'), 'resize_and_crop')])
def test_contradicting_views_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    View(**fields)


# Damaged and unusual files.

def picture(mode='RGB', size=(20, 16)):
  rng = np.random.default_rng(0)
  if mode == 'I;16':
    return Image.fromarray(rng.integers(0, 65536, size[::-1], dtype=np.uint16))
  array = rng.integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
  image = Image.fromarray(array)
  return image.quantize(16) if mode == 'P' else image.convert(mode)


@pytest.mark.parametrize('mode, suffix', [
    ('L', 'png'), ('1', 'png'), ('P', 'png'), ('P', 'gif'), ('RGBA', 'png'), ('LA', 'png'),
    ('CMYK', 'jpg'), ('CMYK', 'tif'), ('I;16', 'png'), ('I;16', 'tif'), ('RGB', 'bmp'),
    ('RGB', 'webp'), ('YCbCr', 'jpg')])
@pytest.mark.parametrize('decoder', ['pillow', 'opencv'])
def test_every_kind_of_image_becomes_rgb(mode, suffix, decoder, tmp_path):
  if decoder == 'opencv' and not _has_opencv():
    pytest.skip('needs the extra fast')
  path = tmp_path / f'x.{suffix}'
  picture(mode).save(path)
  for channels in (1, 3):
    found = images.decode_image(path.read_bytes(), channels, decoder=decoder)
    assert found.shape == (16, 20, channels) and found.dtype == np.uint8
    assert found.std() > 20  # something is in it


def test_every_suffix_that_is_listed_is_read(tmp_path, caplog):
  formats = Image.registered_extensions()
  for i, suffix in enumerate(images.SUFFIXES):
    picture().save(tmp_path / f'{i}{suffix.upper() if i % 2 else suffix}', formats[suffix])
  found = data.folder(tmp_path, **AS_IT_IS)
  assert len(found) == len(images.SUFFIXES) and not caplog.records
  exact = np.asarray(picture())
  for i in range(len(found)):
    kind = formats[found.records[i]['image'].suffix.lower()]
    loss = np.abs(found[i]['image'].astype(int) - exact).mean()
    assert loss < (60 if kind in ('JPEG', 'MPO', 'WEBP', 'AVIF', 'GIF') else .01), (kind, loss)


def stray(folder):
  """What people have beside their pictures."""
  save(np.zeros((8, 8, 3), np.uint8), folder / 'more/deep/1.png')
  (folder / '2.HEIC').touch()
  (folder / '3.heic').touch()
  (folder / 'notes').touch()
  (folder / '.DS_Store').touch()
  save(np.zeros((8, 8, 3), np.uint8), folder / '.thumbnails/1.png')


SAID = ('1 in subfolders (more), 1 without a suffix (not listed), 2 .heic (not listed)')


@pytest.mark.parametrize('layout, read, places', [
    ('side by side', data.paired, ['train']),
    ('split/A', data.paired, ['train/A', 'train/B']),
    ('A/split', data.paired, ['A/train', 'B/train']),
    ('unpaired', data.unpaired, ['trainA', 'trainB']),
    ('unpaired', lambda root: data.folder(root / 'trainA'), ['trainA']),
    ('split/A', lambda root: folder_layouts.splits(root, 'paired'), ['train/A', 'train/B'])])
def test_what_is_left_out_of_a_folder_is_said(layout, read, places, photographs, tmp_path, caplog):
  write(tmp_path, photographs[:2], layout)
  read(tmp_path)
  assert not caplog.records
  for place in places:
    stray(tmp_path / place)
  read(tmp_path)
  said = sorted(record.getMessage() for record in caplog.records)
  assert len(said) == len(places)
  for text, place in zip(said, places, strict=True):
    head, rest = text.split('; left out: ')
    assert head == f'{tmp_path / place}: 6 files, 2 used'
    assert sorted(rest.split(', ')) == sorted(SAID.split(', '))


def test_pairs_in_a_second_layout_and_splits_of_other_names_are_said(photographs, tmp_path, caplog):
  for layout in ('side by side', 'split/A', 'A/split'):
    write(tmp_path, photographs[:2], layout)
  (tmp_path / 'extra').mkdir()
  (tmp_path / 'README').touch()
  assert len(data.paired(tmp_path)[0]) == 2
  used = f'images left out, for pairs are read from {tmp_path}/train/A and {tmp_path}/train/B'
  assert [record.getMessage() for record in caplog.records] == [
      f'{tmp_path}/A/train and {tmp_path}/B/train: 4 {used}', f'{tmp_path}/train: 2 {used}']
  caplog.clear()
  folder_layouts.splits(tmp_path, 'paired')
  assert caplog.records[-1].getMessage() == (
      f'{tmp_path}: of no split and left out: A/, B/, README, extra/')


def test_photographs_without_a_label_map_are_said(tmp_path, caplog):
  for i in range(3):
    for kind, name in (('gtFine', 'gtFine_labelIds'), ('gtFine', 'gtFine_instanceIds'),
                       ('leftImg8bit', 'leftImg8bit')):
      array = np.zeros((8, 16, 3) if kind == 'leftImg8bit' else (8, 16), np.uint8)
      if i < 2 or kind == 'leftImg8bit':
        save(array, tmp_path / kind / 'train/town' / f'town_{i}_{name}.png')
  assert len(data.labels(tmp_path, preprocess='none')) == 2
  said, = caplog.records
  assert said.getMessage() == (f'{tmp_path}/leftImg8bit/train: 1 left out, without a label map: '
                               'town_2_leftImg8bit.png')


@pytest.mark.parametrize('there', ['1.heic', 'more/1.png', '1.PNG.part/1.xyz'])
def test_a_missing_partner_is_named_where_it_may_be(there, photographs, tmp_path):
  root = write(tmp_path, photographs[:3], 'split/A')
  (root / 'train/B' / there).parent.mkdir(exist_ok=True)
  (root / 'train/B/1.png').rename(root / 'train/B' / there)
  with pytest.raises(images.ImageError, match=f'B has no 1; there is {there}, which does not'):
    data.paired(root)
  (root / 'train/B' / there).rename(root / 'train/B/elsewhere.heic')
  with pytest.raises(images.ImageError, match=r'train/B has no 1$'):
    data.paired(root)


def test_partners_differ_in_nothing_but_their_suffix(photographs, tmp_path):
  root = write(tmp_path, photographs[:2], 'split/A')
  save(photographs[0]['target'], root / 'train/A/Street.png')
  save(photographs[0]['target'], root / 'train/B/street.png')
  with pytest.raises(images.ImageError, match=r'B has no Street; there is street.png, which does'):
    data.paired(root)


def test_sixteen_bits_become_eight():
  grey = np.array([[0, 257, 65535, 32896]] * 4, np.uint16)
  path_bytes = _bytes(Image.fromarray(grey))
  np.testing.assert_array_equal(images.decode_image(path_bytes, 1)[0, :, 0], [0, 1, 255, 128])


def test_transparency_is_white():
  image = Image.new('RGBA', (4, 4), (10, 20, 30, 0))
  np.testing.assert_array_equal(images.decode_image(_bytes(image)), np.full((4, 4, 3), 255))


@pytest.mark.parametrize('decoder', ['pillow', 'opencv'])
def test_exif_turns_the_image(decoder):
  if decoder == 'opencv' and not _has_opencv():
    pytest.skip('needs the extra fast')
  image = picture()
  exif = Image.Exif()
  exif[274] = 6  # to be turned by 90 degrees clockwise
  found = images.decode_image(_bytes(image, exif=exif), decoder=decoder)
  np.testing.assert_array_equal(found, np.rot90(np.asarray(image), -1))


def _bytes(image, suffix='png', **options):
  import io
  out = io.BytesIO()
  image.save(out, suffix, **options)
  return out.getvalue()


DAMAGE = {
    'truncated.png': (lambda: _bytes(picture())[:-200], 'damaged'),
    'truncated.jpg': (lambda: _bytes(picture(), 'jpeg')[:300], 'damaged'),
    'empty.png': (lambda: b'', 'it is empty'), 'text.jpg': (lambda: b'hello', 'no image file'),
    'pixel.png': (lambda: _bytes(Image.new('RGB', (1, 1))), '1x1 pixels; at least 4'),
    'thin.png': (lambda: _bytes(Image.new('RGB', (500, 2))), '2x500 pixels; at least 4'),
    'huge.png': (lambda: _bytes(Image.new('1', (20_000, 20_000))), 'more than 89,478,485 pixels'),
    'bomb.png': (lambda: _bytes(Image.new('1', (10_000, 9_500))), '9500x10000 pixels; at most'),
    'float.tif': (lambda: _bytes(Image.fromarray(np.ones((8, 8), np.float32)), 'tiff'), 'mode F')}


@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
def test_damaged_files_are_all_named_before_training(tmp_path):
  save(np.asarray(picture()), tmp_path / 'good.png')
  for name, (content, _) in DAMAGE.items():
    (tmp_path / name).write_bytes(content())
  with pytest.raises(images.ImageError) as e:
    data.folder(tmp_path, size=8)
  assert f'{len(DAMAGE)} of {len(DAMAGE) + 1} files cannot be used' in str(e.value)
  lines = str(e.value).splitlines()[1:]
  for name, (_, reason) in DAMAGE.items():
    line, = (line for line in lines if f'/{name}' in line)
    assert reason in line


@pytest.mark.parametrize('break_it, message', [
    (lambda root: (root / 'train/A/0.png').unlink(), 'train/A has no 0'),
    (lambda root: save(np.zeros((9, 9, 3), np.uint8), root / 'train/B/0.png'),
     '0.png: 40x48 pixels, and its partner .*B/0.png has 9x9'),
    (lambda root: save(np.zeros((40, 48, 3), np.uint8), root / 'train/A/0.jpg'), 'has 0 twice'),
    (lambda root: [f.unlink() for f in (root / 'train/A').iterdir()], 'train/A holds no image')])
def test_mismatched_pairs_are_refused(break_it, message, photographs, tmp_path):
  root = write(tmp_path, photographs, 'split/A')
  break_it(root)
  with pytest.raises((images.ImageError, FileNotFoundError), match=message):
    data.paired(root)


@pytest.mark.parametrize('use, message', [
    (lambda root: data.paired(root / 'nothing'), 'there is no folder'),
    (lambda root: data.paired(''), "path='': name the folder"),
    (lambda root: data.paired(root, 'test'), "no split 'test'.*it holds train/"),
    (lambda root: data.unpaired(root), 'looked for trainA/ and trainB/; it holds train/'),
    (lambda root: data.labels(root), 'gtFine/train'),
    (lambda root: data.paired(root, direction='AtoC'), 'one of AtoB, BtoA'),
    (lambda root: data.paired(root, directoin='AtoB'), "no argument 'directoin'; did you mean"),
    (lambda root: data.paired(root, preprocess='crop', size=64), '40x48 pixels are fewer than'),
    (lambda root: data.samples('colourise'), "task='colourise'; one of colorize, "),
    (lambda root: data.samples('colorize', count=0), 'count=0; at least 1'),
    *((lambda root, channels=channels: data.paired(root, channels=channels), said)
      for channels, said in ((0, 'channels=0; 3 for RGB, 1 for grey, 4 and 2 for these with alpha'),
                             ((1, 2, 3), r'channels=\(1, 2, 3\); 3 for RGB'),
                             (True, 'channels=True'), (1025, 'up to 1024'))),
    (lambda root: data.paired(root, bits=12), 'bits=12; 8, or 16 to keep numbers of 16 bits'),
    (lambda root: data.labels(root, channels=(1, 3)), r'channels=\(1, 3\); 3 for RGB'),
    (lambda root: data.folder(root, channels=(1, 3)), r'channels=\(1, 3\); 3 for RGB'),
    (lambda root: data.labels(root, direction='AtoB'), "no argument 'direction'; there is size"),
    (lambda root: data.labels(root, classes=256, dont_care=True), 'gtFine/train'),
    (lambda root: data.samples('colorize', size=512), '32 to 256'),
    (lambda root: data.samples('colorize', 'all'), 'train, validation, test')])
def test_what_is_not_there_is_said(use, message, photographs, tmp_path):
  write(tmp_path, photographs, 'side by side')
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    use(tmp_path)


def test_an_odd_pair_cannot_be_parted(tmp_path):
  save(np.zeros((8, 17, 3), np.uint8), tmp_path / 'train' / 'x.png')
  with pytest.raises(images.ImageError, match='17 pixels of width do not part'):
    data.paired(tmp_path)


def test_images_of_several_shapes_need_resizing(tmp_path):
  for name, size in (('a', (8, 16)), ('b', (12, 16))):
    save(np.zeros((*size, 3), np.uint8), tmp_path / f'{name}.png')
  assert data.folder(tmp_path, size=8)[1]['image'].shape == (8, 8, 3)
  with pytest.raises(images.ImageError, match='a batch needs one size'):
    data.folder(tmp_path, size=8, preprocess='scale_width')
  with pytest.raises(images.ImageError, match='images of one size'):
    data.folder(tmp_path, size=8, backend='device')


def test_what_was_checked_is_remembered(photographs, tmp_path, monkeypatch):
  root, calls = write(tmp_path, photographs, 'side by side'), []
  decode = images.decode_image
  monkeypatch.setattr(images, 'decode_image', lambda *a, **k: calls.append(k) or decode(*a, **k))
  data.paired(root)
  data.paired(root)
  assert len(calls) == len(photographs)
  (root / 'train' / '0.png').write_bytes(b'changed')
  with pytest.raises(images.ImageError, match='1 of 6 files'):
    data.paired(root)


def test_what_was_checked_by_another_reading_is_checked_again(tmp_path, monkeypatch):
  for i, folder in enumerate(('train_label', 'train_img')):
    save(np.full((8, 8), 4 * i, np.uint8), tmp_path / folder / '0.png')
  monkeypatch.setattr(images, 'READING', images.READING - 1)
  data.labels(tmp_path, classes=1)
  decode = images.decode_labels
  monkeypatch.setattr(images, 'decode_labels', lambda *a, **k: decode(*a, **k) + 5)
  data.labels(tmp_path, classes=1)  # remembered
  monkeypatch.setattr(images, 'READING', images.READING + 1)
  with pytest.raises(images.ImageError, match='labels 5 are not among 0 to 0'):
    data.labels(tmp_path, classes=1)


def test_12_bit_data_in_16_bits_are_told_once(tmp_path, caplog):
  for name, most in (('dark', 4096), ('bright', 65536)):
    for i in range(3):
      grey = np.random.default_rng(i).integers(0, most, (8, 8), dtype=np.uint16)
      save(grey, tmp_path / name / f'{i}.png')
      save(np.zeros((8, 8, 3), np.uint8), tmp_path / name / f'black{i}.png')
  save(np.zeros((8, 8), np.uint16), tmp_path / 'bright' / 'night.png')
  for name in ('bright', 'dark', 'dark'):  # the second time from memory
    caplog.clear()
    data.folder(tmp_path / name, size=8)
    told = [r.message for r in caplog.records if 'below 4096' in r.message]
    assert [f'{tmp_path / name}: the 3 pictures of 16 bits' in m for m in told] == \
        [True] * (name == 'dark')


def test_labels_that_changed_after_the_check_are_not_drawn(tmp_path, caplog):
  for folder in ('train_label', 'train_img'):
    for i in range(2):
      save(np.full((8, 8), i, np.uint8), tmp_path / folder / f'{i}.png')
  source = data.labels(tmp_path, classes=2, **AS_IT_IS)
  save(np.full((8, 8), 7, np.uint8), tmp_path / 'train_label/0.png')
  assert source[0]['label_map'].max() == 1 and source.lost == 1
  assert '0.png: labels 7 are not among 0 to 1' in caplog.text


def test_a_file_lost_in_training_is_stood_in_for(photographs, tmp_path, caplog):
  root = write(tmp_path, photographs, 'side by side')
  source = data.paired(root, size=16)
  (root / 'train' / '1.png').unlink()
  (root / 'train' / '2.png').write_bytes(b'')
  batches = data.Pipeline(source, batch=6, seed=1)
  with caplog.at_level(logging.WARNING):
    assert batches[0]['target'].shape == (6, 16, 16, 3)
    np.testing.assert_array_equal(source[1]['target'], source[3]['target'])
  assert '1.png' in caplog.text and caplog.text.count('2.png') == 1
  for file in (root / 'train').iterdir():
    file.unlink()
  with pytest.raises(OSError, match='cannot be read any more'):
    source[0]


# Samples.

@pytest.mark.parametrize('task', ['colorize', 'edges2photo', 'grass2gravel', 'brick2gravel',
                                  'shapes', 'icons', 'sepia', 'pencil', 'neon', 'paint'])
@pytest.mark.parametrize('size', [32, 64])
def test_samples_are_whole(task, size):
  for split in ('train', 'validation', 'test'):
    source = data.samples(task, split, size=size, count=6)
    pipeline = data.Pipeline(source, batch=4)
    batch = core.normalise(pipeline.prepare(pipeline[0]))
    assert batch['target'].shape == (4, size, size, 3)
    assert batch['source'].shape == (4, size, size, 7 if task == 'shapes' else 3)
    for x in (batch['source'], batch['target']):
      assert x.min() >= -1 and x.max() <= 1 and x.std() > .1
    np.testing.assert_array_equal(source[3]['target'], source[3]['target'])
    with pytest.raises(IndexError):
      source[6]


def test_effects_by_hand():
  grey = np.full((16, 16, 3), 100, np.uint8)
  edge = grey.copy()
  edge[:, 8:] = 140
  of = lambda task, picture: data.sample_images.PAIRS[task](picture)
  assert (of('sepia', grey)['source'] == grey).all()
  assert of('sepia', grey)['target'][0, 0].tolist() == [135, 120, 94]  # sums of rows are 1.351, ...
  assert (of('pencil', grey)['target'] == 255).all() and (of('neon', grey)['target'] == 0).all()
  # Half the step of 40 on both sides of the edge, three times as bright; darker than its blur is
  # the left side.
  assert of('neon', edge)['target'][8, :, 0].tolist() == [0] * 7 + [60, 60] + [0] * 7
  strokes = of('pencil', edge)['target'][8, :, 0]
  assert strokes[7] < 240 and strokes[8] == 255 and strokes[0] > 250
  assert of('paint', edge)['target'][8, ::8, 1].tolist() == [96, 128]  # of 100 and 140 three bits


@pytest.mark.parametrize('size', [32, 128])
def test_splits_share_no_pixel(size):
  for name in sample_images.PHOTOGRAPHS:
    height, width = sample_images.pictures((name,))[0].shape[:2]
    marked = np.arange(height * width).reshape(height, width, 1)
    parts = [set(part.ravel()) for part in (sample_images.region(marked, split, size)
                                            for split in sample_images.SPLITS) if part is not None]
    assert len(parts) == 3 or size == 128
    assert sum(map(len, parts)) == len(set().union(*parts))


def test_a_scene_and_its_map_agree():
  scene = sample_images.scene(np.random.default_rng(3), 64)
  assert scene['instances'].max() >= 4 and set(np.unique(scene['label_map'])) <= set(range(6))
  colours = np.array(list(sample_images.CLASSES.values()), float)
  for kind in np.unique(scene['label_map']):
    mean = scene['target'][scene['label_map'] == kind].mean(0)
    assert np.argmin(np.abs(colours / colours.sum(1, keepdims=True) - mean / mean.sum()).sum(1)) \
        == kind
  for instance in np.unique(scene['instances'])[2:]:  # an instance is of one class
    assert len(np.unique(scene['label_map'][scene['instances'] == instance])) == 1


# Order.

SOURCES = {
    'paired': lambda root: data.paired(root, size=16),
    'unpaired': lambda root: data.unpaired(root, size=16),
    'samples': lambda root: data.samples('grass2gravel', size=32),
    'shapes': lambda root: data.samples('shapes', size=32),
    'icons': lambda root: data.samples('icons', size=32),
    'device': lambda root: data.unpaired(root, size=16, backend='device')}


@pytest.mark.parametrize('name', SOURCES)
def test_hosts_workers_and_resuming_change_nothing(name, photographs, tmp_path):
  for layout in ('side by side', 'unpaired'):
    write(tmp_path, photographs, layout)
  source = SOURCES[name](tmp_path)
  build = functools.partial(data.Pipeline, source, batch=8, seed=5)
  whole = [build()[step] for step in range(4)]
  for hosts in (2, 4):
    parts = [build(host=host, hosts=hosts) for host in range(hosts)]
    for step in range(4):
      for key, x in whole[step].items():
        united = np.concatenate([part[step][key] for part in parts])
        np.testing.assert_array_equal(united, x)
  # Each worker is a process that imports all; so one case has two of them.
  for workers, start in ((0, 0), (0, 3), *([(2, 3)] if name == 'unpaired' else [])):
    batches = build(workers=workers).batches(start)
    for step in range(start, 4):
      for key, x in next(batches).items():
        np.testing.assert_array_equal(x, whole[step][key])
    batches.close()
  assert any((whole[0][key] != whole[1][key]).any() for key in whole[0])


def test_the_partner_is_any_of_the_other_domain(photographs, tmp_path):
  source = data.unpaired(write(tmp_path, photographs, 'unpaired'), **AS_IT_IS)
  rng = np.random.default_rng(0)
  drawn = [source.augmented(2, rng) for _ in range(60)]
  assert all(np.array_equal(x['source'], photographs[2]['source']) for x in drawn)
  partners = {i for i, pair in enumerate(photographs) for x in drawn
              if np.array_equal(pair['target'], x['target'])}
  assert partners == set(range(6))


def test_both_domains_are_cut_on_their_own(photographs, tmp_path):
  pairs = [{'source': x['target'], 'target': x['target']} for x in photographs]
  root = write(tmp_path, pairs, 'unpaired')
  source = data.unpaired(root, size=16)
  rng = np.random.default_rng(0)
  drawn = [source.augmented(0, rng) for _ in range(40)]
  same = [np.array_equal(x['source'], x['target']) for x in drawn]
  assert not all(same)
  root = write(tmp_path, pairs, 'side by side')
  source = data.paired(root, size=16)
  assert all(np.array_equal(x['source'], x['target'])
             for x in (source.augmented(0, rng) for _ in range(10)))


# Prepared sets.

@pytest.mark.parametrize('name, split, fields, shapes', [
    ('cycle_gan/horse2zebra', 'test', dict(size=16, channels=1),
     {'source': (4, 16, 16, 1), 'target': (4, 16, 16, 1)}),
    ('cityscapes', 'train', dict(size=16, preprocess='resize_and_crop', classes=256),
     {'label_map': (4, 16, 16), 'edges': (4, 16, 16), 'target': (4, 16, 16, 3)})])
def test_sets_of_the_catalogue_are_read(name, split, fields, shapes):
  with tfds.testing.mock_data(num_examples=7):
    source = data.tfds(name, split, **fields)
    batch = data.Pipeline(source, batch=4)[0]
    assert {key: x.shape for key, x in batch.items()} == shapes and len(source) == 7
    ready = source.prepare({key: jnp.asarray(x) for key, x in batch.items()})
    assert 'classes' not in fields or ready['source'].shape == (4, 16, 16, 257)


def test_a_prepared_set_has_a_manifest_and_notices_damage(photographs, tmp_path):
  root = write(tmp_path / 'set', photographs, 'side by side')
  folder = prepare.prepare('paired', root, 'mine', out=tmp_path / 'out')
  manifest = json.loads((folder / prepare.MANIFEST).read_text())
  for name, (size, digest) in manifest['sources'].items():
    assert (root / name).stat().st_size == size and prepare.sha256(root / name) == digest
  assert len(manifest['sources']) == 6
  with pytest.raises(FileExistsError, match='is there already'):
    prepare.prepare('paired', root, 'mine', out=tmp_path / 'out')
  shard = folder / next(iter(manifest['shards']))
  shard.write_bytes(shard.read_bytes()[:-100])
  with pytest.raises(OSError, match='prepare the set again'):
    data.tfds('mine', data_dir=str(tmp_path / 'out'))


def test_splits_that_differ_are_refused(photographs, tmp_path):
  write(tmp_path, photographs, 'side by side')
  save(photographs[0]['source'], tmp_path / 'test' / 'A' / '0.png')
  save(photographs[0]['target'], tmp_path / 'test' / 'B' / '0.png')
  with pytest.raises(ValueError, match='train has pair, test has source and target; lay them out'):
    prepare.prepare('paired', tmp_path, 'mine', out=tmp_path / 'out')
  with pytest.raises(ValueError, match="'mnist' is a set of the TFDS catalogue"):
    prepare.prepare('paired', tmp_path, 'mnist', out=tmp_path / 'out')
  assert not (tmp_path / 'out').exists()


def test_preparing_refuses_damage_and_leaves_nothing(photographs, tmp_path):
  root = write(tmp_path / 'set', photographs, 'side by side')
  (root / 'train' / '3.png').write_bytes(b'')
  with pytest.raises(images.ImageError, match='3.png: it is empty'):
    prepare.prepare('paired', root, 'mine', out=tmp_path / 'out')
  assert not (tmp_path / 'out').exists()
  with pytest.raises(ValueError, match='small letters'):
    prepare.prepare('paired', root, 'My Set', out=tmp_path / 'out')


def test_an_interrupted_preparation_is_made_again(photographs, tmp_path):
  root, out = write(tmp_path / 'set', photographs, 'side by side'), tmp_path / 'out'

  def interrupted(items, total, what):
    yield from list(items)[:2]
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    prepare.prepare('paired', root, 'mine', out=out, progress=interrupted)
  with pytest.raises(ValueError, match="no data set 'mine'.*prepare-data"):
    data.tfds('mine', data_dir=str(out), **AS_IT_IS)
  (out / 'mine' / 'incomplete.ABC_1.0.0').mkdir(parents=True)  # as after kill -9
  prepare.prepare('paired', root, 'mine', out=out)
  assert len(data.tfds('mine', data_dir=str(out), **AS_IT_IS)) == 6
  assert [path.name for path in (out / 'mine').iterdir()] == ['1.0.0']


def test_splits_keep_their_names(photographs, tmp_path, caplog):
  write(tmp_path, photographs, 'side by side')
  (tmp_path / 'train').rename(tmp_path / 'val')
  assert folder_layouts.splits(tmp_path, 'paired').keys() == {'val'}
  source = data.paired(tmp_path, 'test')  # either word finds the other, and it is told
  assert len(source) == 6 and repr(source).endswith('/val')
  assert "'val' takes its place" in caplog.text


def test_a_device_mirrors_left_and_right():
  ramp = np.add.outer(np.arange(40), 4 * np.arange(48)).astype(np.uint8)
  arrays = {'x': np.stack([ramp] * 3, -1)}
  reference, device = (data.views.View(size=32, load=44, backend=b) for b in ('pillow', 'device'))
  plan = dataclasses.replace(reference.plan(40, 48, np.random.default_rng(0)), flip=True)
  found = device.on_device({k: jnp.asarray(x)[None] for k, x in device.apply(arrays, plan).items()})
  error = (np.asarray(found['x'])[0] + 1) * 127.5 - reference.apply(arrays, plan)['x']
  assert np.abs(error).max() < 2.1


def test_label_maps_are_turned_as_pictures_are():
  labels, exif, out = np.arange(24, dtype=np.uint8).reshape(4, 6), Image.Exif(), io.BytesIO()
  exif[274] = 6  # to be turned by 90 degrees clockwise
  Image.fromarray(labels).save(out, 'png', exif=exif)
  np.testing.assert_array_equal(images.decode_labels(out.getvalue()), np.rot90(labels, -1))


def test_a_file_that_changed_is_checked_again_whatever_its_size(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  path = tmp_path / 'images' / '0.png'
  path.parent.mkdir()
  Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
  data.folder(path.parent, size=8)
  path.write_bytes(b'x' * path.stat().st_size)
  os.utime(path, (1, 1))
  with pytest.raises(images.ImageError, match='1 of 1 files'):
    data.folder(path.parent, size=8)
