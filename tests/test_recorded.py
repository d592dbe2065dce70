"""Teachers that are functions or folders: what is recorded, and that it teaches as the live one."""

import runpy

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

import jaxgan_compress as jgc
from jaxgan_compress import core, data, experiment, methods, nn
from tests.conftest import largest_difference
from tests.test_omgd import FEATURE_NET, STUDENT, WIDE, small_pix2pix
from tests.test_translation_runs import ADAM, base, net, with_stages

pytestmark = pytest.mark.usefixtures('kept_programs')

GREY = data.samples('colorize', size=32, count=6)
UNTAPPED = methods.DistillLoss(feature_net=FEATURE_NET)


def mirror(x):
  """A teacher that no one trained."""
  return x[:, :, ::-1] / 2


def batch_of(source, rows=4):
  return core.normalise({name: jnp.asarray(np.stack([source[i][name] for i in range(rows)]))
                         for name in source[0]})


def drawer(module, variables):
  return jax.jit(lambda x: module.apply(variables, x)[0])


def test_a_recorded_folder_is_one_of_pairs(tmp_path):
  asked = []

  def teacher(x):
    asked.append(len(x))
    return mirror(x)

  folder = data.record(teacher, GREY, tmp_path, batch=4)
  assert folder == tmp_path / 'train' and asked == [4, 2]
  pairs = data.paired(tmp_path, size=32)
  assert len(pairs) == 6
  for i in range(6):
    assert (pairs[i]['source'] == GREY[i]['source']).all()
    exact = mirror(GREY[i]['source'][None].astype(np.float32) / 127.5 - 1)[0]
    np.testing.assert_allclose(pairs[i]['target'] / 127.5 - 1, exact, atol=.5001 / 127.5)
  with pytest.raises(FileExistsError, match='take another split, or remove it'):
    data.record(teacher, GREY, tmp_path)


def test_a_folder_of_pictures_teaches_what_their_network_would(tmp_path, sgd):
  batch = batch_of(GREY)
  teacher = small_pix2pix(sgd).init(jax.random.key(1), batch).nets['generator']
  data.record(drawer(WIDE, teacher.variables), GREY, tmp_path)
  live, known = (methods.Offline(STUDENT, module, sgd, UNTAPPED) for module in (WIDE, None))
  state = live.init(jax.random.key(0), batch, {'teacher': teacher})
  alone = known.init(jax.random.key(0), batch)
  assert 'teacher' not in alone.frozen and set(known.generators(alone)) == {'student'}
  after, logs = jax.jit(live.step)(state, {'source': batch['source']})
  recorded, seen = jax.jit(known.step)(alone, batch_of(data.paired(tmp_path, size=32)))
  for term, value in seen['student'].items():
    np.testing.assert_allclose(value, logs['student'][term], rtol=.01, err_msg=term)
  # 8 bits round; what is learned is the same but for that.
  step = largest_difference(after.nets['student'].params, state.nets['student'].params)
  assert 0 < largest_difference(recorded.nets['student'].params,
                                after.nets['student'].params) < .02 * step


def test_latents_and_what_came_of_them_teach_what_their_network_would(tmp_path, sgd):
  teacher, student = (nn.DCGANGenerator(d=d, size=32) for d in (2, 1))
  variables = nn.initialise(teacher, jax.random.key(1))
  latents = data.Latents(5, seed=3)
  data.record(drawer(teacher, variables), latents, tmp_path, batch=2)
  source = data.recorded(tmp_path, channels=1)
  assert len(source) == 5 and all((source[i]['z'] == latents[i]['z']).all() for i in range(5))
  batch = batch_of(source)
  np.testing.assert_allclose(batch['target'], drawer(teacher, variables)(batch['z']),
                             atol=.5001 / 127.5)
  method = methods.KD(student, None, sgd)
  assert method.needs_data
  state = method.init(jax.random.key(0), batch)
  after, logs = jax.jit(method.step)(state, batch)
  drawn = jax.jit(lambda variables, z: student.apply(
      variables, z, train=True, mutable=['batch_stats'])[0][0])(
          state.nets['student'].variables, batch['z'])
  np.testing.assert_allclose(logs['mse_per_pixel']['student'],
                             jnp.square(drawn - batch['target']).mean(), rtol=1e-4)
  assert largest_difference(after.nets['student'].params, state.nets['student'].params) > 0
  with pytest.raises(FileNotFoundError, match=r'data\.record\(teacher'):
    data.recorded(tmp_path, 'test')


def test_a_judge_takes_recorded_pictures_for_real(tmp_path, sgd):
  generator, disc = nn.DCGANGenerator(d=1, size=32), nn.DCGANDiscriminator(d=1, size=32)
  data.record(drawer(generator, nn.initialise(generator, jax.random.key(1))), data.Latents(4),
              tmp_path)
  batch = batch_of(data.recorded(tmp_path, channels=1))
  method = methods.KD(generator, None, sgd, adv_weight=.5, disc_init='fresh',
                      adversary=methods.Adversary(disc, sgd))
  state = method.init(jax.random.key(0), batch)
  step = jax.jit(method.step)
  after, _ = step(state, batch)
  other, _ = step(state, {**batch, 'target': -batch['target']})
  assert largest_difference(after.nets['disc'].params, other.nets['disc'].params) > 0


def test_recording_goes_on_where_it_was(tmp_path):
  def dies(x):
    if len(list((tmp_path / 'incomplete.train/B').glob('*.png'))) == 4:
      raise KeyboardInterrupt
    return mirror(x)

  with pytest.raises(KeyboardInterrupt):
    data.record(dies, GREY, tmp_path, batch=2)
  assert not (tmp_path / 'train').exists()
  with pytest.raises(ValueError, match='was begun with 6 of'):
    data.record(mirror, data.First(GREY, 5), tmp_path)
  asked = []
  data.record(lambda x: asked.append(len(x)) or mirror(x), GREY, tmp_path, batch=2)
  assert asked == [2] and len(data.paired(tmp_path, size=32)) == 6


@pytest.mark.parametrize('teacher, said', [
    (lambda x: x[:, :16],
     r'the teacher made \[6, 16, 32, 3\] from \[6, 32, 32, 3\]; pictures are \[6,32,32'),
    (lambda x: np.moveaxis(x, -1, 1), 'channels last'),
    (lambda x: np.zeros((len(x), 32, 32, 0)), 'channels last'),
    (lambda x: (x + 1) * 127.5, r'values from .* they are in \[-1, 1\]'),
    (lambda x: x * np.nan, 'values from nan')])
def test_pictures_that_are_none_are_refused(tmp_path, teacher, said):
  with pytest.raises(ValueError, match=said):
    data.record(teacher, GREY, tmp_path)
  assert not (tmp_path / 'train').exists()


def test_channels_before_height_are_no_picture_of_latents(tmp_path):
  with pytest.raises(ValueError, match='channels last'):
    data.record(lambda z: np.zeros((len(z), 3, 32, 32)), data.Latents(3), tmp_path)


@pytest.mark.parametrize('make, said', [
    (lambda tx: methods.Offline(STUDENT, None, tx,
                                methods.DistillLoss(methods.Taps('ka', 1., ('stem',)))),
     'leave out Taps'),
    (lambda tx: methods.KD(nn.DCGANGenerator(d=1), None, tx, real_from='teacher'),
     "give real_from='data'"),
    (lambda tx: methods.KD(nn.DCGANGenerator(d=1), None, tx, adv_weight=1.,
                           adversary=methods.Adversary(nn.DCGANDiscriminator(d=1), tx)),
     "give disc_init='fresh'")])
def test_a_teacher_without_a_network_has_pictures_alone(make, said):
  with pytest.raises(ValueError, match=said):
    make(optax.sgd(.1))


def test_a_run_learns_from_a_folder_of_grey_and_rgba_of_16_bits(tmp_path):
  source = [{'source': GREY[i]['source'][..., :1] * np.uint16(257)} for i in range(6)]
  data.record(lambda x: np.concatenate([mirror(x)] * 4, -1), source, tmp_path / 'distill')
  c = with_stages(base('colorize', test={}, real={}), student=dict(steps=2, method=dict(
      name='Offline', student=net(2, inputs=1, channels=4), teacher=None, tx=ADAM,
      distill=dict(name='DistillLoss', ssim=dict(name='SSIM')))))
  c.data = dict(name='paired', path=str(tmp_path / 'distill'), size=32, channels=(1, 4), bits=16)
  results = jgc.run(c, tmp_path / 'run', quiet=True)
  measures = results['generators']['student']['last']['measures']
  assert measures['psnr']['value'] > 0
  assert measures['mmd']['protocol'].items() >= {
      'images': '32x32x4', 'feature_channels': 'RGB on white'}.items()
  page = (tmp_path / 'run/report.html').read_text()
  assert page.count('; alpha on white<') == 2 and 'it sees RGB on white.' in page
  out, _ = experiment.export_run(tmp_path / 'run', to=('onnx',))
  picture, generated = tmp_path / 'picture.npy', tmp_path / 'generated.npy'
  np.save(picture, source[0]['source'])
  assert runpy.run_path(str(out / 'run_onnx.py'))['main']([str(picture), str(generated)]) == 0
  image = experiment.open_run(tmp_path / 'run').generator('student').bound()(
      jnp.asarray(source[0]['source'][None] / np.float32(32767.5) - 1))[0]
  np.testing.assert_allclose(np.load(generated) / 32767.5 - 1, image, atol=1e-4)
  # 8 bits, which convert to any channels: what does not fit the network is said before training.
  data.record(lambda x: x, [GREY[0]], tmp_path / 'pictures')
  c.data = dict(name='paired', path=str(tmp_path / 'pictures'), size=32)
  for channels, said in (
      ((4, 4), r'student: this ResNet takes \[B,H,W,1\] and got \(1, 32, 32, 4\); give it 4 in'),
      ((1, 3), '32x32x4 .height x width x channels. and its data has 32x32x3; change one')):
    c.data.channels = channels
    with pytest.raises(ValueError, match=said):
      jgc.run(c, tmp_path / 'wrong', quiet=True)


DEEP = data.ArraySource(np.random.default_rng(0).integers(0, 65536, (5, 8, 8, 5)).astype('u2'))


@pytest.mark.parametrize('channels, bits, given', [
    (5, 16, None), (2, 16, None), (1, 16, None), (5, 8, 8), (4, 8, 8), (2, 8, 8)])
def test_recorded_pictures_keep_their_channels_and_bits(channels, bits, given, tmp_path):
  source = [{'source': x['target']} for x in DEEP]
  data.record(lambda x: -x[..., :channels], source, tmp_path, bits=given)
  pairs = data.paired(tmp_path, channels=(5, channels), bits=bits, preprocess='none', flip=False)
  for i, pair in enumerate(pairs):
    assert {x.dtype for x in pair.values()} == {np.dtype(f'u{bits // 8}')}
    exact = source[i]['source'] / 32767.5 - 1
    most = 2 ** bits - 1
    np.testing.assert_allclose(pair['source'] / (most / 2) - 1, exact, atol=1.02 / most)
    np.testing.assert_allclose(pair['target'] / (most / 2) - 1, -exact[..., :channels],
                               atol=1.02 / most)


def test_pictures_of_latents_are_recorded_with_16_bits_on_demand(tmp_path):
  draw = lambda z: np.tanh(z[:, :80]).reshape(-1, 4, 4, 5)
  data.record(draw, data.Latents(3), tmp_path, bits=16)
  source = data.recorded(tmp_path, channels=5, bits=16)
  for x in source:
    np.testing.assert_allclose(x['target'] / 32767.5 - 1, draw(x['z'][None])[0], atol=2e-5)
  with pytest.raises(data.ImageError, match='holds 5 planes and channels=3'):
    data.recorded(tmp_path)
  with pytest.raises(ValueError, match='bits=12; 8, or 16'):
    data.record(draw, data.Latents(3), tmp_path, 'test', bits=12)


def test_grey_pictures_stay_grey(tmp_path):
  data.record(lambda x: x[..., :1], GREY, tmp_path)
  with Image.open(next((tmp_path / 'train/B').iterdir())) as image:
    assert image.mode == 'L'
