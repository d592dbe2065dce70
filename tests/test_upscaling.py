"""Super-resolution: patches of photographs, recorded upscalers, measures and students."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image
from scipy import ndimage

from jaxgan_compress import config, core, data, experiment, inference, methods, metrics, nn
from jaxgan_compress.analysis.details import busiest, enlarged
from jaxgan_compress.cli import main as cli
from jaxgan_compress.core import BoundGenerator, Net
from jaxgan_compress.data import upscaling as patches
from jaxgan_compress.data.decode import ImageError
from jaxgan_compress.losses import image as image_losses
from jaxgan_compress.metrics import upscaling
from jaxgan_compress.train.optimizers import clipped

rng = np.random.default_rng(0)


def picture(height, width):
  """Something with edges at every scale, uint8."""
  y, x = np.mgrid[:height, :width]
  waves = [np.sin(x / k + y / (k + 2)) for k in (2.5, 7, 40)]
  return ((np.stack(waves, -1) + 1) * 127.5).astype(np.uint8)


@pytest.fixture(scope='module')
def photographs(tmp_path_factory):
  """Two for training, one of each other split."""
  root = tmp_path_factory.mktemp('photographs')
  for split, names in (('train', 'ab'), ('validation', 'c'), ('test', 'd')):
    (root / split).mkdir()
    for i, name in enumerate(names):
      Image.fromarray(picture(70 + 10 * i, 90)).save(root / split / f'{name}_1.png')
  return root


def nearest(x):
  return np.asarray(x).repeat(2, 1).repeat(2, 2)


@pytest.fixture(scope='module')
def recorded(photographs, tmp_path_factory):
  """What a teacher that doubles every pixel makes of them."""
  root = tmp_path_factory.mktemp('recorded')
  for split in patches.SPLITS:
    source = data.photographs(photographs, split, size=24, scale=2, each=4)
    data.record(nearest, source, root, split, batch=3, about={'network': 'double', 'macs': 7})
  return root


def test_a_patch_is_a_function_of_its_number_and_of_the_random_generator(photographs):
  source = data.photographs(photographs, size=24, scale=2, each=4)
  assert source.names == tuple(f'{name}_1_{j}' for name in 'ab' for j in range(4))
  assert source.groups == ('a_1',) * 4 + ('b_1',) * 4
  again = data.photographs(photographs, size=24, scale=2, each=4)
  for i in (0, 5):
    assert {name: x.shape for name, x in source[i].items()} == {
        'source': (24, 24, 3), 'target': (48, 48, 3)}
    jax.tree.map(np.testing.assert_array_equal, source[i], again[i])
  drawn = [source.augmented(0, np.random.default_rng(seed))['target'] for seed in (1, 1, 2)]
  assert (drawn[0] == drawn[1]).all() and (drawn[0] != drawn[2]).any()
  assert (drawn[0] != source[0]['target']).any()


def test_degradations_are_what_they_say():
  patch = picture(64, 64)
  small = np.asarray(Image.fromarray(patch).resize((16, 16), Image.Resampling.BICUBIC))
  np.testing.assert_array_equal(patches.degrade(patch, 4, np.random.default_rng(0), 'none'), small)
  # Of many, an eighth is neither blurred nor noisy nor compressed.
  clean = [(patches.degrade(patch, 4, np.random.default_rng(seed)) == small).all()
           for seed in range(200)]
  assert 10 < sum(clean) < 45
  errors = [abs(patches.degrade(patch, 4, np.random.default_rng(seed)) - small.astype(int)).mean()
            for seed in range(50)]
  assert 1 < max(errors) < 40


def test_photographs_without_splits_are_dealt_by_their_names(tmp_path):
  for i in range(30):
    Image.fromarray(picture(20, 20)).save(tmp_path / f'{i}.png')
  names = {split: set(data.photographs(tmp_path, split, size=8, scale=2).groups)
           for split in patches.SPLITS}
  assert sum(map(len, names.values())) == len(set.union(*names.values())) == 30
  assert len(names['train']) > 15 and min(map(len, names.values())) >= 2


@pytest.mark.parametrize('fields, said', [
    ({'split': 'all'}, 'split'), ({'size': 4}, 'size=4; 8 to 1024'),
    ({'scale': 2.5}, 'scale=2.5; 1 to 8'), ({'each': 0}, 'each=0; 1 to 10000'),
    ({'degradation': 'strong'}, 'degradation'), ({'size': 64}, r'b_1|a_1\.png \(70x90\)')])
def test_wrong_photographs_are_refused(photographs, fields, said):
  with pytest.raises(ValueError, match=said):
    data.photographs(photographs, **{'size': 24, 'scale': 2, **fields})


def test_folders_without_photographs_are_refused(tmp_path):
  with pytest.raises(FileNotFoundError, match='no folder'):
    data.photographs(tmp_path / 'none')
  (tmp_path / 'train').mkdir()
  with pytest.raises(FileNotFoundError, match=r"no photograph for 'test'; put some into .*test"):
    data.photographs(tmp_path, 'test')


def test_what_is_recorded_is_the_teacher_and_the_original(photographs, recorded):
  source = data.photographs(photographs, size=24, scale=2, each=4)
  kept = data.upscaled(recorded)
  assert (len(kept), kept.scale, kept.groups, kept.names[5]) == (8, 2, source.groups, '5_b_1_1')
  assert kept.teacher == {'network': 'double', 'macs': 7}
  for i in (0, 7):
    np.testing.assert_array_equal(kept[i]['source'], source[i]['source'])
    np.testing.assert_array_equal(kept[i]['original'], source[i]['target'])
    np.testing.assert_array_equal(kept[i]['target'], nearest(source[i]['source'][None])[0])


def test_cuts_move_on_both_grids(recorded):
  source = data.upscaled(recorded, crop=10)
  seen = set()
  for seed in range(40):
    element = source.augmented(seed % 8, np.random.default_rng(seed))
    assert element.keys() == {'source', 'target'} and element['source'].shape == (10, 10, 3)
    np.testing.assert_array_equal(element['target'], nearest(element['source'][None])[0])
    seen.add(element['source'].tobytes())
  assert len(seen) > 35


def test_turns_are_the_eight_of_a_square():
  x = np.arange(9).reshape(3, 3, 1)
  turns = {patches.turned(x, flip, turn).tobytes() for flip in (0, 1) for turn in range(4)}
  assert len(turns) == 8


def test_wrong_recordings_are_refused(recorded, tmp_path):
  with pytest.raises(FileNotFoundError, match='make them with jaxgan-compress record'):
    data.upscaled(tmp_path)
  with pytest.raises(ValueError, match='crop=25; inputs in .* have 24x24'):
    data.upscaled(recorded, crop=25)
  with pytest.raises(ValueError, match='border=24; targets in .* have 48x48'):
    data.upscaled(recorded, border=24)
  broken = tmp_path / 'broken/train'
  for side in 'AB':
    (broken / side).mkdir(parents=True)
    Image.fromarray(picture(8, 8)).save(broken / side / f'{side}.png')
  (broken / 'recorded.json').write_text('{}')
  with pytest.raises(ImageError, match='A is not in all of A, B and original; record it again'):
    data.upscaled(broken.parent)
  (broken / 'A/A.png').rename(broken / 'A/B.png')
  Image.fromarray(picture(12, 12)).save(broken / 'B/B.png')
  with pytest.raises(ImageError, match='a whole number of times larger'):
    data.upscaled(broken.parent)


def test_a_source_of_another_scale_is_not_recorded(photographs, tmp_path):
  source = data.photographs(photographs, size=8, scale=4)
  with pytest.raises(ValueError, match='give the source the scale of the teacher'):
    data.record(nearest, source, tmp_path)


@pytest.fixture(scope='module')
def double():
  """A tiny upscaler by 2."""
  module = nn.srvgg(features=4, convs=1, scale=2)
  return BoundGenerator(nn.initialise(module, jax.random.key(0)), module)


def test_an_upscaler_is_recorded_once(photographs, double, tmp_path):
  record = lambda bound=double, **more: inference.record_upscaler(
      bound, photographs, tmp_path, size=24, each=1, each_held_out=1, engine='jax', **more)
  first = record()
  assert [(each.folder.name, each.pairs, each.made) for each in first] == [
      ('train', 2, True), ('validation', 1, True), ('test', 1, True)]
  kept = data.upscaled(tmp_path)
  assert (kept.teacher['params'], kept.teacher['macs']) == (
      core_params(double), 24 * 24 * (27 * 4 + 9 * 4 * 4 + 9 * 4 * 12))
  fresh = double(core.normalise({'x': kept[0]['source'][None]})['x'])[0]
  np.testing.assert_allclose(kept[0]['target'] / 127.5 - 1, np.clip(fresh, -1, 1), atol=1 / 250)
  assert not any(each.made for each in record())
  other = BoundGenerator(jax.tree.map(lambda x: x + 1, double.variables), double.module)
  with pytest.raises(FileExistsError, match='holds 2 images of generator for photographs'):
    record(other)
  with pytest.raises(ValueError, match='1 times as large as its inputs; record is for'):
    record(BoundGenerator({'params': {}}, nn.Resize(scale=1)))


def core_params(bound):
  return sum(x.size for x in jax.tree.leaves(bound.variables))


# Measures ----------------------------------------------------------------------------------------

def smooth(count=3, side=48):
  return jnp.asarray(np.stack([picture(side, side) for _ in range(count)]) / 127.5 - 1, jnp.float32)


def test_visible_is_clipped_and_in_8_bits_without_its_border():
  x = jnp.full((1, 8, 8, 3), 1.5).at[:, 3, 3].set(.0041)
  seen = upscaling.visible(x, 2)
  assert seen.shape == (1, 4, 4, 3) and float(seen[0, 0, 0, 0]) == 1
  np.testing.assert_allclose(seen[0, 1, 1], 128 / 127.5 - 1, atol=1e-6)


def test_sharpness_is_relative_to_the_target():
  x = smooth()
  np.testing.assert_allclose(upscaling.sharpness(x, x), 1, rtol=1e-5)
  np.testing.assert_allclose(upscaling.sharpness(x / 2, x), .5, rtol=1e-4)
  assert float(upscaling.sharpness(jnp.zeros_like(x), x)[0]) == 0


def test_the_grid_ratio_sees_grids_and_no_others():
  x = smooth(1)
  y, column = np.mgrid[:48, :48]
  waves = {period: .2 * np.cos(2 * np.pi * (y / period[0] + column / period[1]))[None, ..., None]
           for period in ((4, 4), (2, 4), (2, 2), (5, 3), (6, 6))}
  ratios = {period: float(upscaling.grid_ratio(x + wave, x)[0]) for period, wave in waves.items()}
  np.testing.assert_allclose(upscaling.grid_ratio(x, x), 1, rtol=1e-5)
  assert min(ratios[4, 4], ratios[2, 4], ratios[2, 2]) > 100
  assert max(ratios[5, 3], ratios[6, 6]) < 3


def test_pairs_of_an_upscaler_are_measured_without_their_border(recorded):
  """A generator that is the teacher but for the border is equal to it, 106 dB; intervals are over
  photographs."""
  class Bordered(nn.Resize):
    def __call__(self, x, train=False, axes=None):
      image = nearest_jax(x)
      inner = image[:, 8:-8, 8:-8]
      return jnp.pad(inner, ((0, 0), (8, 8), (8, 8), (0, 0)), constant_values=1.), {}

  source = data.upscaled(recorded, border=8)
  evaluator = metrics.Evaluator(metrics.random_vgg(), source, inputs=source)
  assert {'psnr', 'sharpness', 'grid_ratio', 'psnr_original'} <= set(evaluator.names)
  same = evaluator(BoundGenerator({'params': {}}, Bordered(scale=2)), intervals=20)
  np.testing.assert_allclose([same[name].value for name in ('ssim', 'sharpness', 'grid_ratio')], 1,
                             atol=1e-4)
  assert same['psnr'].value > 105 and 5 < same['psnr_original'].value < 40
  assert same['psnr'].protocol['compared'] == '8 bits, without 8 pixels on each side'
  # Two photographs are too few for an interval, however many patches there are.
  assert same['psnr_original'].interval is None
  other = evaluator(BoundGenerator({'params': {}}, nn.Resize(scale=2)))
  assert other['psnr'].value < 60 and other['sharpness'].value < 1


def nearest_jax(x):
  return x.repeat(2, 1).repeat(2, 2)


def test_a_local_spectrum_sees_blur_and_no_shift():
  x = jnp.asarray(rng.normal(size=(1, 43, 43, 3)) / 3, jnp.float32)
  distance = lambda a, b: float(image_losses.local_spectrum(a, b))
  assert distance(x, x) == 0
  blurred = (x[:, :-1] + x[:, 1:]) / 2
  shifted = distance(x[:, :-8], x[:, 8:])
  assert distance(blurred, x[:, :-1]) > 1.5 * shifted
  # By hand: a flat image has no wave but the smoothing, a checkerboard has some.
  board = jnp.asarray((-1.) ** np.indices((11, 11)).sum(0)[None, ..., None].repeat(3, -1))
  waves = np.abs(np.einsum('ijck,ij->k', image_losses.WAVES, np.asarray(board[0, :4, :4, 0])))
  expected = (np.sqrt(waves ** 2 + 1e-6) - 1e-3).mean()
  np.testing.assert_allclose(distance(board, 0 * board), expected, rtol=1e-5)
  np.testing.assert_allclose(np.square(waves).sum(), 16, rtol=1e-5)  # the transform is orthonormal


def test_a_grid_is_what_repeats():
  x = smooth(1, 64)
  difference = lambda a: float(image_losses.grid_difference(a, x))
  grid = np.zeros((64, 64))
  grid[::4, ::4] = .16
  # Of its own tile's mean, .01, one pixel of 16 differs by .15 and 15 by .01.
  expected = (.15 + 15 * .01) / 16
  np.testing.assert_allclose(difference(x + grid[None, ..., None]), expected, rtol=1e-3)
  assert difference(x + .3) < 1e-6
  noise = rng.normal(size=x.shape)
  assert difference(x + .16 * noise) < .2 * .16


def test_sharpening_is_what_a_blur_takes_away():
  x = smooth(2, 16)
  blurred = ndimage.gaussian_filter(np.asarray(x), (0, .8, .8, 0), mode='nearest', radius=3)
  np.testing.assert_allclose(image_losses.unsharp(x, .5, .8), x + .5 * (x - blurred), atol=2e-6)
  output = lambda image: methods.Output(image)
  term = methods.Pixel(2., sharpen=.5)
  np.testing.assert_allclose(term.distance(output(x), output(x)), .5 * np.abs(x - blurred).mean(),
                             rtol=1e-5)
  with pytest.raises(ValueError, match='sharpen=-1'):
    methods.Pixel(1., sharpen=-1)


def test_details_are_where_the_edges_are():
  images = np.zeros((2, 40, 40, 3))
  images[0, 20:28, 8:16] = rng.normal(size=(8, 8, 3))
  images[1, :8, 32:] = rng.normal(size=(8, 8, 3))
  corners = busiest(images, 8, 4)
  np.testing.assert_array_equal(corners, [[20, 8], [0, 32]])
  cut = enlarged(images, corners, 8, 3)
  assert cut.shape == (2, 24, 24, 3)
  np.testing.assert_array_equal(cut[0, ::3, ::3], images[0, 20:28, 8:16])
  np.testing.assert_array_equal(busiest(images, 99), [[0, 0], [0, 0]])


# Methods -----------------------------------------------------------------------------------------

def batch_of(recorded):
  return data.prepared_batch(data.upscaled(recorded, border=0), range(2))


def test_a_border_is_no_part_of_a_loss():
  loss = methods.DistillLoss(methods.Pixel(1.), methods.SSIM(1., window=5), border=3)
  image, target = smooth(2, 16), smooth(2, 16)[::-1] + .1

  def value(x):
    of = lambda y: loss.output({}, y)
    return loss.loss('student', of(x), {'teacher': of(target)})[0]

  slopes = np.abs(jax.grad(value)(image)).max((0, 3))
  assert slopes[3:-3, 3:-3].all() and not slopes[:3].any() and not slopes[:, -3:].any()
  with pytest.raises(ValueError, match='border=-1; at least 0'):
    methods.DistillLoss(methods.Pixel(1.), border=-1)


def test_a_pretrained_generator_stays_as_it_is(recorded, double):
  batch = batch_of(recorded)
  method = methods.Pretrained(double.module)
  state = method.init(jax.random.key(0), batch, {'generator': Net.of(double.variables)})
  moved, _ = method.step(state, batch)
  jax.tree.map(np.testing.assert_array_equal, moved.nets['generator'].params,
               double.variables['params'])
  assert int(moved.step) == 1
  with pytest.raises(ValueError, match='a generator that has learned'):
    method.init(jax.random.key(0), batch)
  resize = methods.Pretrained(nn.Resize(scale=2))
  image = resize.generators(resize.init(jax.random.key(0), batch))['generator'](batch['source'])
  assert image.shape == batch['target'].shape


@pytest.fixture(scope='module')
def adversarial(recorded, double):
  """(states, logs) of three steps with an adversary that weighs 0, with one, and without any."""
  batch, runs = batch_of(recorded), {}
  disc = nn.UNetDiscriminator(ndf=2, inputs=6)
  for name, fields in (('without', {}), ('weightless', {'adv_weight': 0.}), ('with', {
      'adv_weight': .1, 'adv_rise': 4})):
    adversary = methods.Adversary(disc, optax.sgd(.01), loss='hinge') if fields else None
    method = methods.Offline(
        double.module, None, clipped(optax.adam(1e-3), 1.), adversary=adversary,
        distill=methods.DistillLoss(methods.Pixel(1.), border=2), **fields)
    state = method.init(jax.random.key(0), batch, {'student': Net.of(double.variables)})
    step, logs = jax.jit(method.step), []
    for _ in range(3):
      state, log = step(state, batch)
      logs.append(log)
    runs[name] = state, logs
  return runs


def test_an_adversary_without_weight_changes_no_student(adversarial):
  (alone, _), (beside, _) = adversarial['without'], adversarial['weightless']
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6),
               alone.nets['student'].params, beside.nets['student'].params)
  assert beside.nets['disc'].params.keys() >= {'stem', 'down1', 'logits'}


def test_an_adversary_rises(adversarial):
  state, logs = adversarial['with']
  assert float(state.nets['disc'].collections['spectral']['down1']['u'].sum()) != 0
  # At first the discriminator has hardly moved, so its loss is proportional to the rise.
  shares = np.array([float(log['student']['adv']) for log in logs])
  np.testing.assert_allclose(shares / shares[0], [1, 2, 3], rtol=.3)
  assert {'pixel_teacher', 'adv', 'loss'} <= logs[0]['student'].keys()
  assert any((a != b).any() for a, b in zip(
      jax.tree.leaves(adversarial['weightless'][0].nets['student'].params),
      jax.tree.leaves(state.nets['student'].params), strict=True))


def test_contradictory_adversaries_are_refused(double):
  adversary = methods.Adversary(nn.UNetDiscriminator(ndf=2, inputs=6), optax.sgd(.1), loss='hinge')
  with pytest.raises(ValueError, match='an adversary is for one student'):
    methods.Offline(double.module, None, optax.sgd(.1), adversary=adversary,
                    distill=methods.DistillLoss(methods.Pixel(1.)),
                    extra_students={'other': double.module})
  with pytest.raises(ValueError, match='max_norm=0; above 0'):
    clipped(optax.sgd(.1), 0)


def test_a_u_net_gives_every_pixel_a_logit():
  disc = nn.UNetDiscriminator(ndf=2, inputs=6)
  image, condition = jnp.ones((2, 16, 24, 3)), jnp.ones((2, 4, 6, 3))
  variables = disc.init(jax.random.key(0), image, condition)
  logits, taps = disc.apply(variables, image, condition)
  assert logits['real'].shape == (2, 16, 24, 1)
  assert {name: tap.shape[1:3] for name, tap in taps.items()} == {
      'stem': (16, 24), 'down1': (8, 12), 'down2': (4, 6), 'down3': (2, 3), 'up3': (4, 6),
      'up2': (8, 12), 'up1': (16, 24)}
  same = disc.apply(variables, image, jnp.ones_like(image))[0]['real']
  np.testing.assert_allclose(logits['real'], same, rtol=1e-3)  # a constant, enlarged
  with pytest.raises(ValueError, match='multiples of 8'):
    disc.apply(variables, jnp.ones((1, 12, 16, 3)), condition[:1])


def test_the_recording_says_what_it_is_of(recorded):
  about = json.loads((recorded / 'train/recorded.json').read_text())
  assert about['source'].endswith('train 24x2 mild') and about['count'] == 8


# A run -------------------------------------------------------------------------------------------

NARROW = 24 * 24 * (27 * 2 + 9 * 2 * 2 + 9 * 12 * 2)  # MACs of two channels


def recipe(folder, network):
  """Interpolation, a published network and what is cut from it, on few steps."""
  c = config.base()
  c.data = dict(name='upscaled', path=str(folder), crop=12, border=4)
  c.batch, c.log_every, c.cache = 4, 1, False
  c.evaluate.update(extractor=dict(name='random_vgg'), real=dict(split='train'),
                    test=dict(split='train'), select='psnr', every=2)
  c.checkpoint.every = 2
  pretrained = lambda title, **method: dict(
      title=title, steps=1, method=dict(name='Pretrained', **method))
  c.stages = {
      'bicubic': config.stage(**pretrained('Bicubic', generator=dict(name='Resize', scale=2))),
      'whole': config.stage(init_from=dict(generator=str(network)), **pretrained(
          'Whole', generator=dict(name='srvgg', features=4, convs=1, scale=2))),
      'cut': config.stage(
          title='Cut', steps=2, teacher=('whole',), method=dict(
              name='Offline', teacher=None, tx=dict(name='adam', learning_rate=1e-3),
              distill=dict(name='DistillLoss', border=2, pixel=dict(name='Pixel', weight=1.),
                           spectrum=dict(name='Spectrum'), grid=dict(name='Grid', window=4))),
          prune=dict(budget=NARROW, scope='group', criterion='activation',
                     calibration_batches=1)),
      # From one that was pruned itself, all of which stays.
      'sharp': config.stage(
          title='Sharp', steps=1, teacher=('cut',), method=dict(
              name='Offline', tx=dict(name='adam', learning_rate=1e-3),
              distill=dict(name='DistillLoss', pixel=dict(name='Pixel', weight=1., sharpen=.5))),
          prune=dict(budget=NARROW, scope='group', criterion='l1'))}
  c.run = 'bicubic', 'whole', 'cut', 'sharp'
  return c


def test_a_run_compares_students_with_published_networks(recorded, double, tmp_path):
  network = tmp_path / 'published.safetensors'
  nn.save(network, double.module, double.variables)
  c = recipe(recorded, network)
  results = experiment.run(c, tmp_path / 'run', quiet=True)
  rows = results['generators']
  assert {name: row['role'] for name, row in rows.items()} == {
      'bicubic': 'baseline', 'whole': 'baseline', 'cut': 'teacher', 'sharp': 'student'}
  assert not any(rows[name]['from_scratch'] for name in ('whole', 'cut', 'sharp'))
  assert rows['cut']['macs'] == rows['sharp']['macs'] == NARROW
  # The recorded teacher, whose MACs the recording says, is what all are compared with.
  assert results['recorded_teacher']['network'] == 'double'
  assert rows['cut']['ratio_macs'] == 7 / rows['cut']['macs'] and 'ratio' not in rows['bicubic']
  assert rows['whole']['best']['step'] == 1
  page = (tmp_path / 'run/report.html').read_text()
  assert 'recorded images of <b>double</b>' in page and 'details of 48x48 pixels' in page
  assert page.count('multiply-accumulate operations for one image') == 1  # the axis of the chart
  assert page.count('dB to the images of double') == 4
  assert 'PSNR to the original' in page and 'Original' in page
  # What was published is unchanged, and what follows from it is measured the same again.
  again = experiment.evaluate(tmp_path / 'run')
  assert again['whole']['psnr'].value == rows['whole']['best']['measures']['psnr']['value']


def test_the_verb_records(photographs, double, tmp_path, capsys):
  network = tmp_path / 'double.safetensors'
  nn.save(network, double.module, double.variables)
  flags = ['record', f'--network={network}', f'--input={photographs}', '--size=24', '--each=1',
           '--each_held_out=1', '--engine=jax']
  assert cli.main([*flags, f'--output={tmp_path / "out"}', '--splits=test']) == 0
  assert capsys.readouterr().out == f'{tmp_path}/out/test: 1 pairs, recorded on jax\n'
  assert cli.main([*flags, f'--output={tmp_path / "out"}', '--splits=train,test']) == 0
  assert capsys.readouterr().out.splitlines() == [
      f'{tmp_path}/out/train: 2 pairs, recorded on jax',
      f'{tmp_path}/out/test: 1 pairs, recorded before']
  for wrong, said in (('--splits=all', "split='all'"), ('--size=200', 'are smaller; take them out'),
                      ('--input=/nowhere', 'there is no folder /nowhere')):
    assert cli.main([*flags, f'--output={tmp_path / "new"}', wrong]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / 'new').exists()
