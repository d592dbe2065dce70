"""The data is a function of the step, whoever loads it; sources say what is wrong."""

import itertools

import numpy as np
import pytest
import tensorflow_datasets

from jaxgan_compress import data
from jaxgan_compress.config import build


@pytest.fixture(scope='module')
def numbered():
  """23 images, each filled with its own number."""
  return data.ArraySource(np.arange(23, dtype=np.uint8)[:, None, None, None] *
                          np.ones((1, 4, 4, 1), np.uint8), np.arange(23))


def noisy(element, rng):
  return {**element, 'noise': rng.integers(0, 1 << 30)}


def equal(a, b):
  return all(np.array_equal(a[key], b[key]) for key in a.keys() | b.keys())


@pytest.mark.parametrize('workers, start', [(0, 0), (0, 7), (0, 40), (2, 7)])
def test_a_stream_is_random_access_from_any_step(numbered, workers, start):
  pipeline = data.Pipeline(numbered, batch=4, seed=3, augment=noisy, workers=workers)
  stream = pipeline.batches(start)
  for step, batch in zip(range(start, start + 3), stream, strict=False):
    assert equal(batch, pipeline[step])
  stream.close()


def test_every_epoch_shows_every_image_once_in_another_order(numbered):
  pipeline = data.Pipeline(numbered, batch=1)
  seen = [int(batch['label'][0]) for batch in itertools.islice(pipeline, 46)]
  assert sorted(seen[:23]) == sorted(seen[23:]) == list(range(23)) and seen[:23] != seen[23:]
  other = data.Pipeline(numbered, batch=1, seed=1)
  assert [int(other[i]['label'][0]) for i in range(23)] != seen[:23]


@pytest.mark.parametrize('hosts', [1, 2, 4])
def test_hosts_share_a_batch_with_its_random_numbers(numbered, hosts):
  whole = data.Pipeline(numbered, batch=8, augment=noisy)
  shares = [data.Pipeline(numbered, batch=8, augment=noisy, host=host, hosts=hosts)
            for host in range(hosts)]
  for step in (0, 5):
    found = [(int(label), int(noise)) for share in shares
             for label, noise in zip(share[step]['label'], share[step]['noise'], strict=True)]
    expected = zip(whole[step]['label'].tolist(), whole[step]['noise'].tolist(), strict=True)
    assert sorted(found) == sorted(expected)


def test_digits_are_the_real_ones():
  everything, train, test = (data.digits(split) for split in ('all', 'train', 'test'))
  assert (len(everything), len(train), len(test)) == (1797, 1400, 397)
  assert everything.target.shape == (1797, 32, 32, 1) and everything.target.dtype == np.uint8
  assert np.bincount(everything.label).tolist() == [
      178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
  assert equal(everything[0], train[0]) and equal(everything[1400], test[0])
  assert data.digits('test', size=64).target.shape == (397, 64, 64, 1)
  with pytest.raises(ValueError, match='train, test, all'):
    data.digits('validation')


def test_shift_moves_and_keeps_the_picture():
  element = {'target': np.zeros((5, 5, 1), np.uint8), 'label': 1}
  element['target'][2, 2] = 9
  places = set()
  for seed in range(60):
    moved = data.random_shift(2)(element, np.random.default_rng(seed))
    assert moved['target'].shape == (5, 5, 1) and moved['target'].sum() == 9
    places.add(tuple(np.argwhere(moved['target'][..., 0])[0]))
  assert {place[0] for place in places} == {place[1] for place in places} == set(range(5))


def test_framing():
  image = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)
  np.testing.assert_array_equal(data.frame(image, 4), image[1:5])
  np.testing.assert_array_equal(data.frame(image, 2, crop=2), image[2:4, 1:3])
  padded = data.frame(image, 6, fit='pad')
  np.testing.assert_array_equal(padded[1:5, 1:5], image[1:5])
  assert padded.sum() == image[1:5].sum() and padded.shape == (6, 6, 3)
  assert data.frame(image, 8, channels=1).shape == (8, 8, 1)
  assert data.frame(np.full((3, 3, 1), 7, np.uint8), 3, channels=3).shape == (3, 3, 3)
  red = np.zeros((2, 2, 3), np.uint8)
  red[..., 0] = 200
  assert data.frame(red, 2, channels=1)[0, 0, 0] == round(200 * .299)
  deep = image.astype(np.uint16) * 257
  for channels in (None, 1, 3):
    np.testing.assert_allclose(data.frame(deep, 8, channels=channels, bits=16) / 257,
                               data.frame(image, 8, channels=channels), atol=1.6)  # rounds twice
  bright = np.where(np.indices((6, 6, 5)).sum(0) % 2, 65535, 0).astype(np.uint16)
  assert {0, 65535} < set(data.frame(bright, 9, bits=16).ravel().tolist())  # and no number wraps
  np.testing.assert_array_equal(data.frame(image, 4, channels=4)[..., 3], 255)
  assert data.frame(deep, 4).dtype == np.uint8
  for x, channels, said in ((bright, 3, 'holds 5 planes and channels=3'),
                            (image.astype(np.float32), 3, 'an array of float32; uint8 or uint16')):
    with pytest.raises(ValueError, match=said):
      data.frame(x, 4, channels=channels)
  for wrong, said in ((dict(crop=9), 'larger than an image of 6x4'),
                      (dict(fit='zoom'), 'resize, pad'),
                      (dict(fit='pad', size=2), "use fit='resize'")):
    with pytest.raises(ValueError, match=said):
      data.frame(image, **{'size': 4, **wrong})


@pytest.mark.parametrize('name, channels, label', [
    ('mnist', 1, 'label'), ('cifar10', 3, 'label'), ('celeb_a', 3, 'attributes/Male')])
def test_catalogue_sets_are_read_without_tensorflow(name, channels, label):
  with tensorflow_datasets.testing.mock_data(num_examples=5):
    source = build.source(dict(name=f'tfds:{name}', size=32, channels=channels, label=label))
    batch = data.Pipeline(source, batch=4)[0]
  assert batch['target'].shape == (4, 32, 32, channels) and batch['target'].dtype == np.uint8
  assert batch['label'].shape == (4,)
  with tensorflow_datasets.testing.mock_data(num_examples=5), \
       pytest.raises(ValueError, match="no feature 'klass'"):
    build.source(dict(name=f'tfds:{name}', size=32, channels=channels, label='klass'))[0]


@pytest.mark.parametrize('section, error, said', [
    (dict(name='digit'), ValueError, "did you mean 'digits'"),
    (dict(name='digits', sise=32), ValueError, "no argument 'sise'; did you mean 'size'"),
    (dict(name='tfds:mnits', size=32, channels=1), ValueError, "did you mean 'tfds:mnist'"),
    (dict(name='tfds:mnist', size=32, channels=1, data_dir='nowhere'), FileNotFoundError,
     'tfds build mnist --file_format=array_record'),
    (dict(name='tfds:mnist', size=32, channels=0), ValueError, 'channels=0; '),
    (dict(name='tfds:mnist', size=32, channels=1, bits=9), ValueError, 'bits=9; 8, or 16'),
    (dict(name='paired', path='.', channels='RGB'), ValueError,
     "channels='RGB'; it is a whole number, or two, as .1, 3."),
    (dict(name='no.such.module:thing'), ValueError, 'cannot import')])
def test_wrong_sources_say_what_is_right(section, error, said, tmp_path):
  if 'data_dir' in section:
    section = {**section, 'data_dir': str(tmp_path)}
  with pytest.raises(error, match=said):
    build.source(section)


def test_empty_sources_and_odd_batches_are_refused(numbered):
  with pytest.raises(ValueError, match='holds no image'):
    data.Pipeline(data.ArraySource(np.zeros((0, 4, 4, 1), np.uint8)), batch=2)
  with pytest.raises(ValueError, match='batch 3 does not divide over 2 hosts'):
    data.Pipeline(numbered, batch=3, host=0, hosts=2)
  with pytest.raises(ValueError, match='uint8'):
    data.ArraySource(np.zeros((1, 4, 4, 1), np.float32))
  assert data.ArraySource(np.zeros((1, 4, 4, 1), np.uint16))[0]['target'].dtype == np.uint16


class Shifted(data.Source):
  """A source of one's own: training sees each element with a random number, evaluation with 0."""
  name, count = 'shifted', 5

  def augmented(self, i, rng):
    return {'row': np.int32(i), 'shift': np.float64(0 if rng is None else rng.random())}

  def prepare(self, batch):
    return {'row': batch['row'], 'shift': 2 * batch['shift']}


def test_what_a_source_of_ones_own_leaves_out_has_a_default():
  source, plain = Shifted(), data.as_source([{'x': np.zeros(2)}, {'x': np.ones(2)}])
  batch = data.Pipeline(source, batch=5)[0]
  assert sorted(batch['row']) == list(range(5)) and batch['shift'].min() > 0
  assert [source[i]['shift'] for i in (0, -1)] == [0, 0] and source[-1]['row'] == 4
  with pytest.raises(IndexError):
    source[5]
  assert data.stack(plain, [1, 0, 1])['x'].tolist() == [[1, 1], [0, 0], [1, 1]]
  for each in (source, plain, data.ArraySource(np.zeros((2, 4, 4, 1), np.uint8)), data.Latents(2)):
    assert data.as_source(each) is each and each.a is each.b is each and repr(each)
    assert (each.view, each.labels, each.lost) == (None, None, 0)
  assert data.First(source, 2).prepare({'row': 0, 'shift': 1})['shift'] == 2
  assert data.prepared_batch(source, [3])['row'].tolist() == [3]


@pytest.mark.parametrize('name', ['a', 'augmented', 'b', 'draw', 'prepare'])
def test_a_sequence_whose_methods_would_be_ignored_is_refused(name):
  elements = type('Mine', (list,), {name: None})([{'x': np.zeros(2)}])
  with pytest.raises(ValueError, match=f'Mine has {name} and is no data.Source; derive it from'):
    data.Pipeline(elements, batch=1)


def test_who_wraps_a_source_counts_its_lost_files(numbered):
  class Lossy(data.ArraySource):
    lost = 3

  source = Lossy(numbered.target)
  assert data.First(source, 2).lost == data.swapped(source).lost == 3
