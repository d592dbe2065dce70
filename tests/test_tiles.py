"""Pictures in tiles are the whole picture's image; the receptive field is that of the network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage import data as photographs

import jaxgan_compress as jgc
from jaxgan_compress import inference, nn
from jaxgan_compress.inference import folders, tiles
from jaxgan_compress.inference.engines import to_float

RESNET = {'stem': (4, 4, 6), 'hidden': (4,), 'up': (4, 4)}
PICTURE = photographs.astronaut()[20:164, 180:300]


def generator(module, seed=0):
  """With weights under which nothing is dead, nor the image flat."""
  return jgc.BoundGenerator(nn.initialise(module, jax.random.key(seed), scheme='he'), module)


def whole_and_tiled(bound, statistics, tile=96):
  field = inference.receptive_field(bound.module, bound.variables)
  tiled = inference.TiledGenerator(bound, inference.bind('it', bound).takes, field, tile,
                                   statistics)
  whole = np.asarray(bound(to_float(PICTURE[None])))[0]
  assert whole.std() > .05
  return whole, tiled


@pytest.mark.parametrize('module', [nn.ResNetGenerator(**RESNET, norm='batch'),
                                    nn.unet(ngf=3, depth=3, norm='batch')], ids=['resnet', 'unet'])
def test_with_batch_norm_tiles_are_the_whole_picture(module):
  whole, tiled = whole_and_tiled(generator(module), 'sampled')
  assert tiled.field.statistics == 0
  np.testing.assert_allclose(tiled(PICTURE, floats=True), whole, atol=1e-5)
  off = np.abs(tiled(PICTURE).astype(float) - (whole + 1) * 127.5)
  assert tiled(PICTURE).dtype == np.uint8 and off.max() < .51


@pytest.mark.parametrize('module', [
    nn.ResNetGenerator(**RESNET, separable=True),
    nn.ResNetGenerator(**RESNET, norm='instance_affine', deeper=True),
    nn.ResNetGenerator(**RESNET, norm='batch_stat'),
    nn.unet(ngf=3, depth=3, norm='instance')], ids=['separable', 'deeper', 'batch_stat', 'unet'])
def test_with_exact_statistics_tiles_are_the_whole_picture(module, monkeypatch):
  """The statistics of each norm are the whole picture's, of padded maps too."""
  if isinstance(module, nn.ResNetGenerator) and module.deeper:
    monkeypatch.setattr(tiles, 'GROUP', 99)  # one program is compiled in less time than four
  tile = 140 if module.norm == 'instance_affine' else 96  # which looks farther
  whole, tiled = whole_and_tiled(generator(module), 'exact', tile)
  assert tiled.field.statistics > 0
  np.testing.assert_allclose(tiled(PICTURE, floats=True), whole, atol=1e-4)


def test_a_copy_of_the_same_size_has_the_same_statistics():
  whole, tiled = whole_and_tiled(generator(nn.ResNetGenerator(**RESNET)), 'reduced')
  np.testing.assert_allclose(tiled(PICTURE, floats=True), whole, atol=1e-5)


@pytest.mark.parametrize('module', [
    nn.ResNetGenerator(**RESNET, norm='batch'), nn.unet(ngf=2, depth=3),
    nn.InceptionGenerator(stem=(2, 2, 2), up=(2, 2), norm='batch',
                          blocks=(nn.Branches(((1, 1), (5, 1)), ((3, 1),)),)),
], ids=['resnet', 'unet', 'inception'])
def test_the_receptive_field_is_as_far_as_a_pixel_matters(module):
  """No pixel farther away changes the image, and one that far does, up to the network's stride."""
  bound = generator(module)
  field = inference.receptive_field(module, bound.variables)
  multiple = inference.bind('it', bound).takes.multiple
  side = 2 * (field.overlap // 16 + 2) * 16
  x = to_float(np.resize(PICTURE, (1, 16, side, 3)))
  rows = jax.vjp(bound, x)[1]
  middle = np.zeros(x.shape, np.float32)
  middle[:, :, side // 2:side // 2 + multiple] = 1
  reach = np.flatnonzero(np.abs(rows(jnp.asarray(middle))[0]).max((0, 1, 3)))
  left, right = side // 2 - reach[0], reach[-1] - (side // 2 + multiple - 1)
  assert max(left, right) <= field.overlap
  assert max(left, right) > field.overlap - 2 * multiple


@pytest.mark.parametrize(('height', 'width'), [(96, 96), (97, 500), (1000, 60), (513, 771)])
def test_cores_cover_a_picture_once(height, width):
  fit = lambda side: -(-side // 4) * 4
  height, width = fit(height), fit(width)
  count = np.zeros((height, width), int)
  for tile in tiles.layout(height, width, 96, 17, 4):
    top, left, bottom, right = tile.core
    count[top:bottom, left:right] += 1
    for start, begin, end, side in zip(tile.start, (top, left), (bottom, right), (height, width),
                                       strict=True):
      assert start % 4 == 0 and 0 <= start <= side - min(96, side)
      assert begin == 0 or begin - start >= 17
      assert end == side or start + 96 - end >= 17
  assert (count == 1).all()


def test_tiles_that_are_too_small_are_refused():
  with pytest.raises(ValueError, match=r'tile=96 is too small.*take at least'):
    tiles.layout(500, 500, 96, 60, 4)


def test_a_picture_larger_than_the_memory_is_cut_into_tiles(monkeypatch):
  bound = generator(nn.ResNetGenerator(**RESNET, norm='batch'))
  network = inference.bind('it', bound)
  size = PICTURE.shape[:2]
  whole = folders.Runner(network, {size: 1}, 'jax')
  expected = whole(PICTURE[None])[0]
  assert whole.batch(size) == 1  # on CPUs
  monkeypatch.setattr(folders, 'memory_limit', lambda: 10**6)
  monkeypatch.setattr(folders, 'TILE', 96)
  pieces = folders.Runner(network, {size: 1})
  assert pieces.batch(size) == 1
  off = np.abs(pieces(PICTURE[None])[0].astype(float) - (expected + 1) * 127.5)
  assert off.max() < .51


@pytest.mark.parametrize(('norm', 'count'), [('batch_stat', 1), ('batch', 4), ('instance', 4)])
def test_images_that_depend_on_each_other_are_made_one_by_one(norm, count):
  network = inference.bind('it', generator(nn.ResNetGenerator(**RESNET, norm=norm)))
  assert folders.Runner(network, {(8, 8): 4}, 'jax', batch=4).batch((8, 8)) == count
