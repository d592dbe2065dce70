"""Evaluation of image translation: extractors, pairs, labels, folders, protocols."""

import dataclasses
import json
import shutil

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen
from PIL import Image

from jaxgan_compress import core, data, methods, metrics, nn, train
from jaxgan_compress.cli import main
from jaxgan_compress.config import SELECT
from jaxgan_compress.core import BoundGenerator


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))


class Copy(linen.Module):
  """Draws its source, shifted by a constant."""

  @linen.compact
  def __call__(self, x, train=False):
    return (x + self.param('shift', linen.initializers.zeros_init(), ())).clip(-1, 1), {}


def copy(shift):
  return BoundGenerator({'params': {'shift': jnp.float32(shift)}}, Copy())


@pytest.fixture(scope='module')
def vgg():
  return metrics.random_vgg()


@pytest.fixture(scope='module')
def paired(vgg):
  source = data.samples('colorize', 'test', size=32, count=20)
  return source, metrics.Evaluator(vgg, source, inputs=source, batch=8)


def test_pairs_are_compared_image_by_image(paired):
  source, evaluator = paired
  found = evaluator(copy(0.), copy(.1))
  grey, colour = (np.stack([source[i][name] for i in range(20)]) / 255.
                  for name in ('source', 'target'))
  mse = np.square(grey - colour).mean((1, 2, 3))
  assert found['psnr'].value == pytest.approx((10 * np.log10(1 / mse)).mean(), rel=1e-4)
  assert found['l1'].value == pytest.approx(2 * np.abs(grey - colour).mean(), rel=1e-4)
  structural_similarity = pytest.importorskip('skimage.metrics').structural_similarity
  ssim = [structural_similarity(a, b, gaussian_weights=True, use_sample_covariance=False, sigma=1.5,
                                data_range=1, channel_axis=-1, truncate=10 / 3)
          for a, b in zip(grey, colour, strict=True)]
  assert found['ssim'].value == pytest.approx(np.mean(ssim), abs=1e-3)
  shifted = np.clip(2 * grey - 1 + .1, -1, 1) - (2 * grey - 1)
  assert found['mse'].value == pytest.approx(np.square(shifted).mean(), rel=1e-4)
  assert found['psnr_teacher'].value == pytest.approx(metrics.psnr(found['mse'].value))
  assert 'mse_on_paths' not in found and evaluator.count == 20


def test_a_perfect_copy_scores_perfectly(vgg):
  class Same:
    """Pairs whose target is the source."""

    def __init__(self, source):
      self.source = source

    def __len__(self):
      return len(self.source)

    def __getitem__(self, i):
      return {'source': self.source[i]['target'], 'target': self.source[i]['target']}

  source = Same(data.samples('colorize', 'test', size=32, count=12))
  found = metrics.Evaluator(vgg, source, inputs=source)(copy(0.))
  assert found['fd'].value == pytest.approx(0, abs=1e-6) and found['l1'].value == 0
  assert found['psnr'].value == pytest.approx(106, abs=.1)
  assert found['ssim'].value == pytest.approx(1, abs=1e-5)
  assert found['precision'].value == found['recall'].value == 1


def test_unpaired_inputs_are_all_of_a_against_all_of_b(vgg):
  source = data.samples('grass2gravel', 'test', size=32, count=10)
  more = data.samples('grass2gravel', 'train', size=32, count=6)
  evaluator = metrics.Evaluator(vgg, (source, more), inputs=source)
  grass = evaluator(copy(0.))
  assert 'psnr' not in grass and evaluator.protocol['real_count'] == 16
  assert 'gravel' in evaluator.protocol['data'] and 'grass' in evaluator.protocol['inputs']
  gravel = evaluator.real()
  assert gravel['fd'].value < grass['fd'].value


@pytest.mark.parametrize('backend', ['pillow', 'device'])
def test_views_are_prepared_for_evaluation(backend, vgg, tmp_path):
  for i in range(4):
    picture = np.random.default_rng(i).integers(0, 255, (20, 24, 3), dtype=np.uint8)
    (tmp_path / 'test').mkdir(exist_ok=True)
    Image.fromarray(np.concatenate([picture, picture], 1)).save(tmp_path / 'test' / f'{i}.png')
  source = data.paired(tmp_path, 'test', size=16, backend=backend)
  found = metrics.Evaluator(vgg, source, inputs=source)(copy(0.))
  assert found['l1'].value < 1e-6


def test_labels_are_read_back():
  """A segmenter trained on the spot finds the exact truth in real pictures, and not in others."""
  source = data.samples('shapes', 'train', size=32)
  pipeline = data.Pipeline(source, batch=16)
  method = methods.Classifier(nn.SmallSegmenter(classes=6), optax.adam(4e-3), label='label_map')
  state = method.init(jax.random.key(0), core.normalise(pipeline.prepare(pipeline[0])))
  (state, _), = train.fit(method, state, pipeline, steps=120, every=120)
  reader = metrics.segmenter(method.classifier, state.nets['classifier'].variables)
  test = data.samples('shapes', 'test', size=32, count=16)

  class Painter(linen.Module):
    """Draws a flat colour for each class, or one colour for all of them."""
    blind: bool

    def __call__(self, x, train=False):
      from jaxgan_compress.data.sample_images import CLASSES
      colours = jnp.array(list(CLASSES.values())) / 127.5 - 1
      planes = jnp.zeros_like(x).at[..., 0].set(1) if self.blind else x
      return planes[..., :6] @ colours, {}

  vgg = metrics.random_vgg()
  evaluator = metrics.Evaluator(vgg, test, inputs=test, segmenter=reader)
  sees, blind = (evaluator(BoundGenerator({}, Painter(b)), intervals=10) for b in (False, True))
  assert sees['miou'].value > .6 and sees['pixel_accuracy'].value > .9
  assert blind['miou'].value < .25
  assert sees['miou'].interval[0] <= sees['miou'].value <= sees['miou'].interval[1]
  assert len(sees['iou'].value) == 6
  # A run can choose by what something measures, and by nothing else; sharpness has no better side.
  others = {'fid', 'kid', 'fd_efficientnet_lite0', 'mmd_efficientnet_lite0', 'is'}
  assert {*evaluator.names, *others} == {*SELECT, 'vol'}
  truth = np.stack([test[i]['label_map'] for i in range(16)])
  assert blind['pixel_accuracy'].value == pytest.approx((truth == 0).mean(), abs=.05)


def test_values_of_other_protocols_do_not_compare(paired):
  source, evaluator = paired
  one, two = evaluator(copy(0.)), evaluator(copy(.3))
  assert two['l1'] - one['l1'] > 0 and one['l1'] < two['l1']
  other = metrics.Evaluator(metrics.random_vgg(seed=1), source, inputs=source, batch=8)(copy(0.))
  with pytest.raises(ValueError, match='do not compare: feature_crc32'):
    other['fd'] - one['fd']
  with pytest.raises(ValueError, match='do not compare'):
    assert one['fd'] < one['l1']


def test_intervals_hold_the_value(paired):
  _, evaluator = paired
  found = evaluator(copy(.1), intervals=20)
  for name in ('fd', 'mmd', 'psnr', 'ssim', 'l1', 'vol'):
    low, high = found[name].interval
    assert low < found[name].value < high
    assert found[name].protocol['intervals'] == 20
  assert found['precision'].interval is None


# The FID network.

@pytest.fixture(scope='module')
def inception(tmp_path_factory):
  """A file of random weights that keep their size through the layers."""
  network = nn.FIDInception()
  shapes = jax.eval_shape(network.init, jax.random.key(0), network.example())
  rng = np.random.default_rng(0)

  def fill(path, x):
    name = jax.tree_util.keystr(path, simple=True, separator='/').rsplit('/', 1)[-1]
    if name == 'kernel':
      return jnp.asarray(rng.normal(0, np.sqrt(2 / np.prod(x.shape[:-1])), x.shape), jnp.float32)
    return jnp.ones(x.shape, x.dtype) if name in ('scale', 'var') else jnp.zeros(x.shape, x.dtype)

  path = tmp_path_factory.mktemp('weights') / 'inception.safetensors'
  nn.save(path, network, jax.tree_util.tree_map_with_path(fill, flax.core.unfreeze(shapes)))
  return path


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
  root = tmp_path_factory.mktemp('folders')
  source = data.samples('colorize', 'test', size=40, count=8)
  for name in ('source', 'target'):
    (root / name).mkdir()
    for i in range(8):
      image = source[i][name][:36 if i == 3 else 40]  # folders hold many sizes
      Image.fromarray(image).save(root / name / f'{i}.png')
  return root


def test_fid_is_made_by_inception_alone(inception, folders):
  flat = folders / 'one size'
  flat.mkdir()
  for i in (0, 1, 2):
    shutil.copy(folders / 'source' / f'{i}.png', flat)
  found = metrics.compare_folders(flat, flat, metrics.inception(inception), batch=3)
  assert found.keys() == {'fid'} and found['fid'].value == pytest.approx(0, abs=1e-3)
  assert found['fid'].protocol['resize'] == 'fid_pytorch'
  assert found['fid'].protocol['levels'] == 'of the files'
  assert metrics.inception(inception, tap='768').distances == ('fd', 'mmd')


def test_statistics_stand_for_a_folder(inception, folders, capsys, tmp_path):
  def run(*arguments):
    code = main.main(['fid', *map(str, arguments)])
    return code, capsys.readouterr()

  a, b, kept = folders / 'source', folders / 'target', tmp_path / 'b.npz'
  code, printed = run(a, b, '--json')
  found = json.loads(printed.out)
  assert code == 0 and found.keys() == {'fd', 'mmd', 'precision', 'recall'}
  assert run(b, f'--save={kept}')[0] == 0
  code, printed = run(a, kept, '--json')
  assert json.loads(printed.out)['fd']['value'] == pytest.approx(found['fd']['value'], rel=1e-4)
  # Only where they were measured alike, which is said before anything is looked at.
  code, printed = run('nowhere', kept, f'--weights={inception}')
  assert code == 2 and 'such numbers do not compare' in printed.err
  code, printed = run(b, f'--save={kept}')
  assert code == 2 and 'exists' in printed.err


@pytest.mark.parametrize('height, width', [(421, 43), (36, 389), (16, 193)])
def test_large_images_are_looked_at_in_strips_and_measured_as_whole_ones(
    height, width, vgg, monkeypatch):
  picture = np.random.default_rng(0).integers(0, 255, (2, height, width, 3), dtype=np.uint8)
  picture[:, :height // 2, :width // 2] //= 8  # of strips that count twice or not at all
  extract = lambda: jax.jit(lambda v, x: vgg.apply(v, x)['features'])(vgg.variables, picture)
  whole = extract()
  monkeypatch.setattr(metrics.extractors, 'STRIP', 1)
  np.testing.assert_allclose(extract(), whole, rtol=2e-5, atol=1e-6)


def test_foreign_statistics_are_not_given_a_protocol(folders, tmp_path):
  features = np.random.default_rng(0).normal(size=(40, 960))
  np.savez(tmp_path / 'foreign.npz', mu=features.mean(0), sigma=np.cov(features.T))
  foreign = tmp_path / 'foreign.npz'
  both = metrics.compare_folders(foreign, foreign, metrics.random_vgg())['fd'].protocol
  assert 'feature_net' not in both and both['measured_elsewhere'] == [str(foreign)]
  one = metrics.compare_folders(folders / 'source', foreign, metrics.random_vgg())['fd'].protocol
  assert one['feature_net'] == 'random_vgg16' and one['measured_elsewhere'] == [str(foreign)]


@pytest.mark.parametrize('arguments, message', [
    (dict(real=2), '12 generated images against 2 real images; .* at least 4'),
    (dict(batch=0), 'batch=0'), (dict(segmenter=1), 'a segmenter needs inputs with label maps')])
def test_an_evaluator_that_cannot_measure_is_refused(arguments, message, vgg):
  source = data.samples('colorize', 'test', size=32, count=12)
  real = data.samples('colorize', 'test', size=32, count=arguments.pop('real', 12))
  with pytest.raises(ValueError, match=message):
    metrics.Evaluator(vgg, real, inputs=source, **arguments)


def test_files_that_vanish_are_told(vgg, tmp_path):
  for i in range(6):
    picture = np.random.default_rng(i).integers(0, 255, (16, 32, 3), dtype=np.uint8)
    (tmp_path / 'test').mkdir(exist_ok=True)
    Image.fromarray(picture).save(tmp_path / 'test' / f'{i}.png')
  source = data.paired(tmp_path, 'test', size=16)
  evaluator = metrics.Evaluator(vgg, source, inputs=source)
  before = evaluator(copy(0.))
  (tmp_path / 'test' / '2.png').unlink()
  after = evaluator(copy(0.))
  assert after['l1'].protocol['files_replaced'] == 1
  with pytest.raises(ValueError, match='files_replaced None and 1'):
    before['l1'] - after['l1']


def test_sizes_and_views_are_part_of_the_protocol(vgg):
  found = []
  for size in (32, 48):
    source = data.samples('colorize', 'test', size=size, count=5)
    found.append(metrics.Evaluator(vgg, source, inputs=source)(copy(0.))['l1'])
  with pytest.raises(ValueError, match='images 32x32x3 and 48x48x3'):
    found[0] - found[1]


def test_a_stand_in_is_never_called_fid(folders, capsys):
  assert main.main(['fid', str(folders / 'source'), str(folders / 'target'), '--intervals=8']) == 0
  printed = capsys.readouterr()
  assert 'This is not FID' in printed.err and 'fd ' in printed.out and 'fid' not in printed.out
  assert main.main(['fid', str(folders / 'source'), str(folders / 'source'), '--json']) == 0
  found = json.loads(capsys.readouterr().out)
  assert found['fd']['value'] == pytest.approx(0, abs=1e-6) and found['precision']['value'] == 1


@pytest.mark.parametrize('arguments, message', [
    (['one'], 'two folders'), (['nowhere', 'nowhere'], 'there is no folder nowhere'),
    (['a', 'b', '--weights=none.safetensors'], 'none.safetensors'),
    (['a.npz', 'b.npz'], 'a.npz does not exist')])
def test_what_fid_cannot_measure_is_said(arguments, message, capsys):
  assert main.main(['fid', *arguments]) == 2
  assert message in capsys.readouterr().err


def test_real_images_are_truncated_as_the_papers_do(vgg):
  """Of 256 levels 63 come back one lower; the evaluator hands over what makes them do so."""
  levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
  apply = lambda variables, images: {
      'features': metrics.resize.to_uint8(images).reshape(len(images), -1)}
  extractor = metrics.Extractor(apply, {}, {})
  evaluator = metrics.Evaluator(extractor, data.ArraySource(levels.repeat(4, 0)), count=4)
  lower = levels.ravel() - evaluator._real['features'][0]
  assert sorted(set(lower.tolist())) == [0, 1] and lower.sum() == 63


# Of a pixel: what is in it, what a network of RGB sees, and how the protocol calls it.
SEEN = {1: ([.2], [.2, .2, .2], 'grey, repeated'),
        2: ([.2, 0.], [.6, .6, .6], 'grey on white, repeated'),
        3: ([.2, .4, -1.], [.2, .4, -1.], None),
        4: ([.2, .4, -1., 0.], [.6, .7, 0.], 'RGB on white'),
        5: ([.2, .4, -1., 0., 1.], [.2, .4, -1.], 'channels 1 to 3 of 5, as RGB')}


@pytest.mark.parametrize('channels', SEEN)
def test_networks_of_rgb_see_other_channels_as_the_protocol_says(channels, vgg):
  pixel, seen, words = SEEN[channels]
  images = np.tile(np.float32(pixel), (4, 32, 32, 1))
  for array in (images, jnp.asarray(images)):
    np.testing.assert_allclose(core.in_colour(array), np.tile(np.float32(seen), (4, 32, 32, 1)),
                               atol=1e-6)
  sharp = images + np.eye(32, dtype=np.float32)[..., None] / 9
  np.testing.assert_allclose(metrics.variance_of_laplacian(sharp),
                             metrics.variance_of_laplacian(core.in_colour(sharp)), rtol=1e-4)
  deep = np.round((images + 1) * 32767.5).astype(np.uint16)
  asked = []
  spy = metrics.Extractor(lambda _, x: asked.append((x.dtype, x.shape)) or {
      'features': x.mean((1, 2))}, {}, vgg.protocol, in_colour=True)
  evaluator = metrics.Evaluator(spy, data.ArraySource(deep), count=4)
  assert asked == [(jnp.float32, (1, 32, 32, channels))]  # on each of four devices
  np.testing.assert_allclose(evaluator._real['features'][0], pixel, atol=1e-4)
  assert evaluator.protocol.get('feature_channels') == words
  assert evaluator.protocol['images'] == f'32x32x{channels}'
  shape = jax.eval_shape(vgg.apply, vgg.variables, deep)['features'].shape
  assert shape == (4, 960)
  alone = metrics.Evaluator(metrics.Extractor(spy.apply, {}, {}), data.ArraySource(deep), count=4)
  assert 'feature_channels' not in alone.protocol  # of a classifier, which takes them as they are


def test_all_channels_are_compared_with_targets_in_16_bits():
  x = np.zeros((4, 16, 16, 5), np.uint16) + np.uint16(32768)
  y = x.copy()
  y[..., 4] += 100
  pairs = data.as_source([{'source': a, 'target': b} for a, b in zip(x, y, strict=True)])
  extractor = metrics.Extractor(lambda _, images: {'features': images.mean((1, 2))}, {}, {})
  measures = metrics.Evaluator(extractor, pairs, inputs=pairs)(copy(0.))
  assert measures['l1'].value == pytest.approx(100 / 32767.5 / 5, rel=1e-4)
  assert measures['psnr'].value == pytest.approx(
      10 * np.log10(4 / ((100 / 32767.5) ** 2 / 5)), rel=1e-4)


def test_measures_do_not_depend_on_batches_and_devices(vgg, paired, monkeypatch):
  """Rows are dealt to four devices, the last batch is filled up, and nobody sees it."""
  (source, spread), devices = paired, jax.local_devices()
  assert len(devices) == 4 and spread.batch == 8
  assert metrics.Evaluator(vgg, source, inputs=source, batch=1).batch == 4
  monkeypatch.setattr(jax, 'local_devices', lambda: devices[:1])
  alone = metrics.Evaluator(vgg, source, inputs=source, batch=3)
  assert alone.batch == 3
  ours, theirs = (each(copy(0.), copy(.1)) for each in (spread, alone))
  for name, measure in theirs.items():
    np.testing.assert_allclose(ours[name].value, measure.value, rtol=1e-3, atol=1e-5, err_msg=name)


def test_another_network_is_refused(tmp_path):
  network = nn.mobile_resnet(4)
  nn.save(tmp_path / 'G.safetensors', network,
          nn.initialise(network, jax.random.key(0), jnp.zeros((1, 32, 32, 3))))
  for build in (metrics.inception, metrics.drn):
    with pytest.raises(ValueError, match='holds a ResNetGenerator; .* convert --input='):
      build(tmp_path / 'G.safetensors')
  with pytest.raises(ValueError, match='one of fid_pytorch, fid_clean'):
    metrics.inception(tmp_path / 'G.safetensors', 'legacy')


def test_cityscapes_scores_resize_before_they_choose():
  """Two classes, 2x2 to 4x4: where the resized scores cross decides, not the nearest label."""
  scores = jnp.array([[0., 1.], [0., 3.]])  # of class 1; class 0 always has 1.2
  apply = lambda variables, images: jnp.stack([jnp.full((1, 2, 2), 1.2), scores[None]], -1)
  reader = metrics.Segmenter(apply, {}, 2, {})
  found = metrics.cityscapes_scores(reader, [np.zeros((2, 2, 3))], [np.array(
      [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 1], [0, 0, 1, 1]])])
  assert found['miou'] == found['pixel_accuracy'] == 1


def test_precision_is_of_the_first_folder_and_recall_of_the_second(tmp_path):
  """Eight equal greys lie among many colours, and not the other way round."""
  rng = np.random.default_rng(0)
  apply = lambda _, x: {'features': x.astype(jnp.float32).mean((1, 2))}
  extractor = metrics.Extractor(apply, {}, {})
  for name, spread in (('dull', 3), ('varied', 100)):
    (tmp_path / name).mkdir()
    for i in range(8):
      colour = 128 + rng.integers(-spread, spread + 1, 3)
      Image.fromarray(np.full((8, 8, 3), colour, np.uint8)).save(tmp_path / name / f'{i}.png')
  found = metrics.compare_folders(tmp_path / 'dull', tmp_path / 'varied', extractor)
  dull, varied = (metrics.folder_features(tmp_path / name, extractor) for name in (
      'dull', 'varied'))
  wanted = metrics.precision_recall(varied, dull)
  assert wanted[0] != wanted[1]
  assert (found['precision'].value, found['recall'].value) == wanted


@pytest.fixture(scope='module')
def lite0(tmp_path_factory):
  """A file of EfficientNet-Lite0 with random weights."""
  network = nn.EfficientNetLite0(('stride4', 'pooled'))
  path = tmp_path_factory.mktemp('weights') / 'lite0.safetensors'
  nn.save(path, network, nn.initialise(network, jax.random.key(0), scheme='he'))
  return path


def test_features_of_a_published_network_bear_its_name(lite0, folders, monkeypatch, capsys):
  extractor = metrics.efficientnet_lite0(lite0)
  network, variables = nn.load(lite0)
  assert extractor.protocol == {
      'feature_net': 'efficientnet_lite0', 'resize': 'bicubic_224',
      'feature_crc32': metrics.extractors.checksum(extractor.variables)}
  # Whatever the size, the whole image is seen at one.
  monkeypatch.setattr(metrics.extractors, 'LITE0_SIDE', 32)
  levels = np.random.default_rng(0).integers(0, 256, (1, 64, 40, 3), np.uint8)
  apply = jax.jit(extractor.apply)
  found = apply(extractor.variables, levels)
  assert list(found) == ['features'] and found['features'].shape == (1, 1280)
  seen = metrics.resize.bicubic(levels, 32) / 127.5 - 1
  pooled = jax.jit(network.apply)(variables, seen)['pooled'].ravel()
  np.testing.assert_allclose(found['features'][0], pooled, atol=1e-5)
  floats = (levels / 127.5 - 1 + 1e-3).astype(np.float32)  # they become the same 8 bits
  np.testing.assert_array_equal(apply(extractor.variables, floats)['features'], found['features'])
  means = dataclasses.replace(extractor, apply=lambda _, x: {'features': x.mean((1, 2))})
  monkeypatch.setattr(metrics, 'efficientnet_lite0', lambda path: means)
  assert main.main(['fid', str(folders / 'source'), str(folders / 'target'), '--json',
                    '--weights=efficientnet_lite0']) == 0
  measures = json.loads(capsys.readouterr().out)
  assert measures.keys() == {'fd_efficientnet_lite0', 'mmd_efficientnet_lite0', 'precision',
                             'recall'}
  assert main.main(['fid', 'a', 'b', '--weights=efficientnet_lite0', '--protocol=fid_clean']) == 2
  assert '--protocol=fid_clean is of the Inception network' in capsys.readouterr().err


def test_other_weights_than_its_own_are_refused(lite0, inception, tmp_path):
  with pytest.raises(ValueError, match='holds a EfficientNetLite0; FID takes the Inception'):
    metrics.inception(lite0)
  few = nn.EfficientNetLite0(('stride2',))
  nn.save(tmp_path / 'few.safetensors', few, nn.initialise(few, jax.random.key(0)))
  for path, said in ((inception, r'holds FIDInception\(\)'), (
      tmp_path / 'few.safetensors', r"holds EfficientNetLite0\(layers=\('stride2',\)\)")):
    with pytest.raises(ValueError, match=said + "; these features take .* layer 'pooled'"):
      metrics.efficientnet_lite0(path)


@pytest.mark.parametrize('size', [(64, 64), (300, 451)])
def test_bicubic_resizing_is_that_of_pillow(size):
  levels = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)
  channel = Image.fromarray(levels[0, ..., 1].astype(np.float32))
  theirs = np.asarray(channel.resize((224, 224), Image.Resampling.BICUBIC)).clip(0, 255)
  np.testing.assert_allclose(metrics.resize.bicubic(levels, 224)[0, ..., 1], theirs, atol=1e-3)


@pytest.mark.parametrize('protocol, rounds', [('fid_pytorch', False), ('fid_clean', True)])
def test_drawings_become_bytes_as_their_protocol_says(protocol, rounds, monkeypatch):
  network = nn.FIDInception()
  variables = jax.eval_shape(network.init, jax.random.key(0), network.example())
  asked, to_uint8 = [], metrics.resize.to_uint8
  monkeypatch.setattr(nn, 'load', lambda path: (network, variables))
  monkeypatch.setattr(metrics.extractors, 'checksum', lambda variables: '')
  monkeypatch.setattr(metrics.resize, 'to_uint8', lambda images, round: asked.append(
      round) or to_uint8(images, round))
  extractor = metrics.inception('weights', protocol)
  jax.eval_shape(extractor.apply, variables, jnp.zeros((1, 80, 80, 3)))
  assert asked == [rounds]


def test_drn_sees_bytes_less_the_mean_over_the_deviation(tmp_path):
  network = nn.DRN((4, 6, 8), (2, 1, 2, 1), (3, 4, 5, 6), (12, 10), 5)
  variables = nn.initialise(network, jax.random.key(0), scheme='he')
  nn.save(tmp_path / 'drn.safetensors', network, variables)
  reader = metrics.drn(tmp_path / 'drn.safetensors')
  image = jax.random.uniform(jax.random.key(1), (1, 16, 16, 3), minval=-1)
  pixels = np.floor((np.asarray(image) + 1) / 2 * 255) / 255
  mean, std = nn.feature_nets.drn.CITYSCAPES_MEAN, nn.feature_nets.drn.CITYSCAPES_STD
  seen = (pixels - np.array(mean)) / np.array(std)
  expected = jax.jit(network.apply)(variables, seen.astype(np.float32))[0]
  np.testing.assert_allclose(jax.jit(reader.apply)(reader.variables, image), expected, atol=1e-4)
