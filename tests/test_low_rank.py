"""Factors beside a base network: their arithmetic, training by every method, and files."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, traverse_util
from PIL import Image

from jaxgan_compress import config, data, experiment, methods, nn, pruning
from jaxgan_compress.cli import main
from jaxgan_compress.config import build
from jaxgan_compress.core import Axes, BoundGenerator, Net
from jaxgan_compress.experiment import Run
from jaxgan_compress.export import write_folder
from jaxgan_compress.nn.files import arrays
from jaxgan_compress.nn.files import network as files
from jaxgan_compress.train.progress import Reporter
from tests.conftest import largest_difference
from tests.published import hashed, hashed_fill, nhwc, wave
from tests.test_omgd import FEATURE_NET, crops, images_of, resumes, small_resnet, two_steps

NETWORK = nn.unet(4, depth=2, implementation='reference')
STUDENT = nn.LowRank(NETWORK, rank=2)
TX = optax.adam(1e-2)


class One(linen.Module):
  """A single convolution, biased."""
  features: int = 6

  @linen.compact
  def __call__(self, x, train=False, axes=Axes()):
    return nn.Conv(self.features, name='conv')(x), {}

  def example(self):
    return jnp.zeros((1, 8, 8, 4))


@pytest.fixture(scope='module')
def base():
  """Variables of a base, statistics of its norms not the initial ones."""
  variables = jax.device_get(nn.initialise(NETWORK, jax.random.key(0), scheme='he'))
  rng = np.random.default_rng(0)
  return {**variables, 'batch_stats': jax.tree.map(
      lambda x: x + rng.random(x.shape, np.float32), variables['batch_stats'])}


@pytest.fixture(scope='module')
def learned(base):
  """Variables whose factors and free parameters are not the initial ones."""
  variables = STUDENT.adapted(base, jax.random.key(1))
  rng = np.random.default_rng(1)
  return {**variables, 'params': jax.tree.map(
      lambda x: x + .1 * rng.standard_normal(x.shape, np.float32), variables['params'])}


@pytest.fixture(scope='module')
def batch():
  return images_of('sepia')


def pix2pix(generator=STUDENT, tx=TX, **fields):
  disc = nn.PatchGAN(2, layers=1, inputs=6)
  return methods.Pix2Pix(generator, methods.Adversary(disc, tx, 'hinge'), tx, **fields)


def equal(a, b):
  return largest_difference(a, b) == 0


# Arithmetic ---------------------------------------------------------------------------------------


def golden(alpha=4.):
  """(a network of one convolution, its variables) of the recorded numbers; kernels were OIHW."""
  module = nn.LowRank(One(), 2, alpha, layers=('conv',))
  kernel = hashed_fill('lora.weight', (6, 4, 3, 3)).transpose(2, 3, 1, 0)
  return module, {'base': {'conv': {'kernel': kernel}}, 'params': {
      'free': {'conv': {'bias': np.zeros(6)}}, 'lora': {'conv': {
          'A': hashed('lora.A', 72).reshape(36, 2), 'B': hashed('lora.B', 12).reshape(2, 6)}}}}


def test_the_recorded_numbers():
  with jax.enable_x64(True):
    module, variables = golden()
    kernel = np.asarray(module.merge(variables)['params']['conv']['kernel'])
    x = nhwc(wave(1, 4, 8, 8, .4))
    image = np.asarray(jax.lax.conv_general_dilated(
        x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))).transpose(
            0, 3, 1, 2)
  found = [abs(kernel).sum(), kernel.ravel() @ hashed('g', kernel.size), image.sum(),
           abs(image).sum(), image.ravel() @ hashed('g', image.size)]
  np.testing.assert_allclose(found, [
      176.7674566800, 4.1158023266, 129.9030338544, 750.4591920163, 38.0245555430], rtol=1e-10)


def test_by_hand():
  """Rank 1, A = 0, 1, 2, ... and B = 3, 4, ...: row 13 of A is row 1, column 0, channel 1 of K."""
  module = nn.LowRank(One(), 1, 2., layers=('conv',))
  merged = module.merge({'base': {'conv': {'kernel': jnp.ones((3, 3, 4, 6))}}, 'params': {
      'free': {'conv': {'bias': jnp.arange(6.)}}, 'lora': {'conv': {
          'A': jnp.arange(36.)[:, None], 'B': jnp.arange(3., 9)[None]}}}})['params']['conv']
  assert merged['kernel'].shape == (3, 3, 4, 6) and merged['bias'].tolist() == [0, 1, 2, 3, 4, 5]
  assert merged['kernel'][1, 0, 1].tolist() == [1 + 2 * 13 * b for b in (3, 4, 5, 6, 7, 8)]


def test_it_is_a_convolution_by_a_then_one_by_b():
  with jax.enable_x64(True):
    module, variables = golden(alpha=3.)
    x = nhwc(wave(2, 4, 8, 8, .1))
    (image, _), factors = module.apply(variables, x), variables['params']['lora']['conv']
    as_float64 = module.clone(network=One()).merge(variables)['params']['conv']['kernel']

    def convolve(x, kernel):
      return jax.lax.conv_general_dilated(x, kernel, (1, 1), 'SAME',
                                          dimension_numbers=('NHWC', 'HWIO', 'NHWC'))

    beside = convolve(convolve(x, factors['A'].reshape(3, 3, 4, 2)), factors['B'][None, None])
    expected = convolve(x, variables['base']['conv']['kernel']) + 3. / 2 * beside
    np.testing.assert_allclose(convolve(x, as_float64), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(image, expected, atol=1e-5)  # nn.Conv computes in float32


def test_gradients_are_those_of_the_kernel_by_the_chain_rule(base, learned):
  """dA = (alpha / r) dK B', dB = (alpha / r) A' dK, and whole parameters have the base's own."""
  x = np.random.default_rng(2).uniform(-1, 1, (2, 8, 8, 3)).astype('f')

  def loss(module, variables):
    return lambda params: (module.apply({**variables, 'params': params}, x)[0] ** 2).sum()

  merged = STUDENT.merge(learned)
  ours = jax.grad(loss(STUDENT, learned))(learned['params'])
  plain = traverse_util.flatten_dict(jax.grad(loss(NETWORK, merged))(merged['params']))
  for path in STUDENT.kernels:
    a, b = (learned['params']['lora'][path[0]][name] for name in 'AB')
    slope = plain[path].reshape(len(a), -1)
    np.testing.assert_allclose(ours['lora'][path[0]]['A'], slope @ b.T, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(ours['lora'][path[0]]['B'], a.T @ slope, rtol=1e-3, atol=1e-4)
  for path, slope in traverse_util.flatten_dict(ours['free']).items():
    np.testing.assert_allclose(slope, plain[path], rtol=1e-3, atol=1e-4)


# Which layers -------------------------------------------------------------------------------------


@pytest.mark.parametrize('network, layers', [
    (nn.unet(8, depth=3), ['down1', 'down2', 'up1', 'up2']),
    (nn.ResNetGenerator((8, 16), (16,), (8,)), ['block1/conv1', 'block1/conv2', 'stem1', 'up0']),
    (nn.ResNetGenerator((8, 16), (16,), (8,), separable=True),
     ['block1/conv1/pointwise', 'block1/conv2/pointwise', 'stem1', 'up0']),
    (nn.DCGANGenerator(d=4), ['layer2', 'layer3', 'layer4'])])
def test_all_layers_but_the_ends_and_depthwise_ones_have_factors(network, layers):
  module = nn.LowRank(network, rank=1)
  assert sorted('/'.join(path[:-1]) for path in module.kernels) == layers
  assert module.input_kind == nn.input_kind(network)
  assert module.example().shape == network.example().shape


def test_layers_and_what_learns_whole_are_named_by_patterns():
  network = nn.ResNetGenerator((8, 16), (16,), (8,), separable=True)
  module = nn.LowRank(network, rank=1, layers=('block*/pointwise', 'to_image'),
                      train=('bias', 'depthwise/kernel'))
  assert sorted('/'.join(path[:-1]) for path in module.kernels) == [
      'block1/conv1/pointwise', 'block1/conv2/pointwise', 'to_image']
  variables = jax.eval_shape(module.init, jax.random.key(0), network.example())
  free = {'/'.join(path) for path in traverse_util.flatten_dict(variables['params']['free'])}
  assert {name for name in free if name.endswith('kernel')} == {
      'block1/conv1/depthwise/kernel', 'block1/conv2/depthwise/kernel'}
  whole = set(traverse_util.flatten_dict(
      jax.eval_shape(network.init, jax.random.key(0), network.example())['params'], sep='/'))
  assert free | set(traverse_util.flatten_dict(variables['base'], sep='/')) == whole


@pytest.mark.parametrize('fields, said', [
    ({'rank': 0}, 'rank=0, alpha=None; a rank is at least 1'),
    ({'alpha': 0.}, 'alpha above 0'),
    ({'rank': 4}, r'rank=4: the factors of up1 are 528 numbers and its kernel 512; take a rank up '
     'to 3, or name other layers'),
    ({'layers': ('middle*',)}, "no layer 'middle.' of this UNetGenerator may have factors; there "
     'are down0, down1, up1, up0'),
    ({'train': ('kernel',)}, 'no layer of this UNetGenerator has factors'),
    ({'network': STUDENT}, 'of low rank itself'),
    ({'network': linen.Dense(3)}, r'network=nn.wrap\(...\) of it')])
def test_wrong_fields_are_refused(fields, said):
  with pytest.raises(ValueError, match=said):
    nn.LowRank(**{'network': NETWORK, **fields})


def test_it_is_not_pruned():
  with pytest.raises(ValueError, match='is not pruned: prune its base first'):
    STUDENT.plan()


class Theirs(linen.Module):
  """As users write one."""

  @linen.compact
  def __call__(self, x, train=False):
    x = linen.Conv(8, (3, 3), name='first')(x)
    x = linen.relu(linen.BatchNorm(use_running_average=not train, name='norm')(x))
    return linen.Conv(3, (3, 3), name='last')(linen.Conv(8, (3, 3), name='middle')(x))


def test_a_wrapped_network_of_the_users_is_a_base():
  with jax.numpy_rank_promotion('allow'):
    network = nn.wrap(Theirs())
    module = nn.LowRank(network, rank=1)
    assert list(module.kernels) == [('middle', 'kernel')]
    variables = nn.initialise(module, jax.random.key(0), scheme='he')
    variables['params']['lora']['middle']['B'] += 1
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    plain, merged = nn.merged(module, variables)
    ((ours, _), states), ((theirs, _), expected) = jax.jit(lambda: [each.apply(
        given, x, train=True, mutable=['batch_stats']) for each, given in (
            (module, variables), (network, merged))])()
  assert plain == network and largest_difference([ours, states], [theirs, expected]) < 1e-5


def test_a_rank_is_doubled_until_that_gains_little():
  distances = {1: 10., 2: 8., 4: 6., 8: 5.9, 16: 1.}
  assert nn.search_rank(distances.get) == (4, {k: distances[k] for k in (1, 2, 4, 8)})
  assert nn.search_rank(distances.get, most=2) == (2, {1: 10., 2: 8.})
  assert nn.search_rank(lambda rank: 1.) == (1, {1: 1., 2: 1.})
  assert nn.search_rank(distances.get, most=16, gain=.01)[0] == 16


# Training -----------------------------------------------------------------------------------------


def test_the_start_is_the_base_exactly(base, batch, caplog):
  start = {'generator': Net.of(base)}
  with caplog.at_level(logging.WARNING):
    state = pix2pix(ema=.9).init(jax.random.key(0), batch, start)
    assert not caplog.records
    _ = jax.eval_shape(lambda: pix2pix().init(jax.random.key(0), batch))
    assert 'its base is random' in caplog.text
  net = state.nets['generator']
  assert equal(STUDENT.merge(net.variables), base) and equal(STUDENT.merge(net.averaged), base)
  assert equal(pix2pix().generators(state)['generator'](batch['source']),
               BoundGenerator(base, NETWORK)(batch['source']))
  # Its own variables are taken as they are; those of another network are refused.
  again = pix2pix().init(jax.random.key(1), batch, {'generator': net})
  assert equal(again.nets['generator'].variables, net.variables)
  with pytest.raises(ValueError, match=r'another network than this UNetGenerator: .* missing'):
    pix2pix().init(jax.random.key(0), batch, {'generator': Net.of(nn.initialise(
        nn.unet(4, depth=3), jax.random.key(0)))})
  with pytest.raises(ValueError, match=r"init_from\['generator'\] is of another network"):
    pix2pix(nn.LowRank(NETWORK, rank=1)).init(jax.random.key(0), batch, {'generator': net})
  deeper = nn.LowRank(nn.unet(4, depth=2, inputs=6), rank=2)  # in a kernel without factors
  with pytest.raises(ValueError, match=r'its down0/kernel is \(4, 4, 6, 4\) and would be'):
    pix2pix().init(jax.random.key(0), batch, {'generator': Net.of(
        nn.initialise(deeper, jax.random.key(0)))})


def test_all_learns_but_the_base_which_keeps_its_bits(base, batch):
  method = pix2pix(ema=.5)
  state = method.init(jax.random.key(0), batch, {'generator': Net.of(base)})
  before = state.nets['generator']
  after = two_steps(method, state, batch, 1, 'vmap', 2)[0].nets['generator']
  assert equal(after.collections['base'], before.collections['base'])
  leaves = traverse_util.flatten_dict(jax.tree.map(
      lambda a, b: float(abs(a - b).max()), {**after.variables, 'ema': after.ema},
      {**before.variables, 'ema': before.ema}))
  still = {path for path, difference in leaves.items() if not difference}
  assert {path[0] for path in still} == {'base'}
  assert {'A', 'B', 'bias', 'scale', 'mean', 'var'} <= {path[-1] for path in leaves}


def test_devices_change_nothing(base, batch):
  with jax.enable_x64(True):
    network = NETWORK.clone(dtype=jnp.float64)
    disc = nn.PatchGAN(2, layers=1, inputs=6, dtype=jnp.float64)
    method = methods.Pix2Pix(nn.LowRank(network, rank=2), methods.Adversary(
        disc, optax.sgd(1e-2), 'hinge'), optax.sgd(1e-2))
    rows = {name: np.asarray(x, np.float64) for name, x in batch.items()}
    start = {'generator': Net.of(jax.tree.map(np.float64, base))}
    state = method.init(jax.random.key(0), rows, start)
    one, logs = two_steps(method, state, rows, 1, 'vmap')
    for way in ((2, 'pmap'), (4, 'shard_map')):
      several, other = two_steps(method, state, rows, *way)
      assert largest_difference(several, one) < 1e-9
      np.testing.assert_allclose([other[k] for k in logs], [*logs.values()], rtol=1e-7)


def test_going_on_is_not_stopping():
  resumes(methods.Offline(STUDENT, None, TX, methods.DistillLoss(methods.Pixel(10.)), ema=.9),
          crops('sepia'), 6, [2])


RESNET = small_resnet(8)
LOW_RANK = nn.LowRank(RESNET, rank=2)
TAPS = methods.Taps('ka', 1., ('stem', 'block1'))


def terms(*more):
  return methods.DistillLoss(
      methods.SSIM(), methods.Perceptual(), methods.Style(), methods.TotalVariation(),
      methods.Pixel(1.), *more, feature_net=FEATURE_NET)


def adversary(inputs, **fields):
  return methods.Adversary(nn.PatchGAN(2, layers=1, inputs=inputs, **fields), TX, 'hinge')


WIDE = small_resnet(4)
CYCLE = methods.CycleGAN(WIDE, adversary(3), TX, pool=0)
OF_LATENTS = nn.LowRank(nn.DCGANGenerator(d=4, size=32), rank=1)
OF_DIGITS = methods.Adversary(nn.DCGANDiscriminator(2, 32), TX)


def omgd(**fields):
  return methods.OMGD(student=LOW_RANK, wide=WIDE, tx=TX, teacher_tx=TX, ema=.9,
                      adversary=adversary(6, heads=('wide',)), distill=terms(TAPS), **fields)


@pytest.mark.parametrize('make', [
    lambda: methods.CycleGAN(LOW_RANK, adversary(3), TX, pool=2, identity_weight=1.),
    omgd,
    lambda: methods.OMGDCycle(LOW_RANK, CYCLE, TX, distill=terms()),
    lambda: methods.Offline(LOW_RANK, WIDE, TX, terms(TAPS)),
    lambda: methods.Offline(LOW_RANK, None, TX, terms(), adversary=adversary(6)),
    lambda: methods.CAT(LOW_RANK, WIDE, adversary(6), TX, taps=('stem', 'block1')),
    lambda: methods.KD(OF_LATENTS, nn.DCGANGenerator(d=4, size=32), TX, adversary=OF_DIGITS,
                       disc_init='fresh'),
    lambda: methods.GAN(OF_LATENTS, OF_DIGITS, TX)],
    ids=['CycleGAN', 'OMGD', 'OMGDCycle', 'Offline', 'Offline, recorded', 'CAT', 'KD', 'GAN'])
def test_every_method_takes_it(make, batch):
  """A step of one of seven replicas leaves a state of the same kind, whose base is the input's."""
  method = make()
  main = method.modules[method.main]
  base = nn.initialise(main.network, jax.random.key(0))
  digits = {'target': np.zeros((8, 32, 32, 1), np.float32)}
  rows = digits if nn.input_kind(main) == 'latent' else batch
  start = {method.main: Net.of(base)}
  if 'teacher' in method.modules:
    start['teacher'] = Net.of(nn.initialise(method.modules['teacher'], jax.random.key(1)))
  shapes = jax.eval_shape(lambda: method.init(jax.random.key(2), rows, start))
  shapes = shapes.replace(replica_state=jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), shapes.replica_state))
  step = jax.make_jaxpr(lambda *args: method.step(*args, Axes(('replica',))), return_shape=True,
                        axis_env=[('replica', 7)])
  program, (after, _) = step(shapes, rows)
  kind = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
  assert kind(after) == kind(shapes)
  # A base that no operation makes is the one that came in, bit for bit, and no mean over replicas.
  place = {jax.tree_util.keystr(path): i for i, (path, _) in enumerate(
      jax.tree_util.tree_leaves_with_path(shapes))}
  kernels = [i for where, i in place.items() if f"'{method.main}'" in where and "'base'" in where]
  assert kernels and all(
      program.jaxpr.outvars[i] is program.jaxpr.invars[i] for i in kernels)
  assert set(jax.eval_shape(method.generators, shapes)) >= {method.main}


def test_a_pruning_method_is_told_to_prune_the_base(batch):
  with pytest.raises(ValueError, match='prune its base first'):
    omgd(gradual_pruning=pruning.GradualPruning(1e5, 0, 10)).init(jax.random.key(0), batch)


def test_dropout_of_a_base_is_seen():
  with pytest.raises(ValueError, match='student has dropout=0.5'):
    methods.Offline(nn.LowRank(nn.unet(4, depth=2, dropout=.5), rank=2), None, TX)


# Files and runs -----------------------------------------------------------------------------------


def test_factors_and_base_are_the_merged_network(base, learned, tmp_path):
  file = tmp_path / 'sepia.safetensors'
  nn.save_factors(file, STUDENT, learned, notice='by nobody')
  assert not any(name.startswith('base/') for name in arrays.read(file))
  assert file.stat().st_size < 8_000
  module, variables = nn.load_factors(file, base)
  assert module == STUDENT and equal(variables, learned) and files.notice_of(file) == 'by nobody'
  plain, merged = nn.merged(module, variables)
  assert plain == NETWORK and nn.plain(module) == NETWORK and nn.plain(NETWORK) is NETWORK
  assert nn.merged(NETWORK, base) == (NETWORK, base)
  x = np.random.default_rng(0).uniform(-1, 1, (2, 8, 8, 3)).astype('f')
  assert equal(NETWORK.apply(merged, x)[0], STUDENT.apply(learned, x)[0])


def test_other_files_and_bases_are_refused(base, learned, tmp_path):
  file, whole = tmp_path / 'sepia.safetensors', tmp_path / 'base.safetensors'
  nn.save_factors(file, STUDENT, learned)
  nn.save(whole, NETWORK, base)
  with pytest.raises(FileExistsError, match='overwrite=True'):
    nn.save_factors(file, STUDENT, learned)
  with pytest.raises(ValueError, match='has no factors; they are of an nn.LowRank'):
    nn.save_factors(file, NETWORK, base, overwrite=True)
  with pytest.raises(ValueError, match='these variables'):
    nn.save_factors(file, STUDENT, base, overwrite=True)
  other = jax.tree.map(np.copy, base)
  other['params']['down0']['kernel'][0, 0, 0, 0] += 1e-7
  for wrong in (other, nn.initialise(nn.unet(4, depth=3), jax.random.key(0)), {'params': {}}):
    with pytest.raises(ValueError, match='belongs to another base'):
      nn.load_factors(file, wrong)
  # Whatever learns whole is not taken from the base.
  other = jax.tree.map(np.copy, base)
  other['params']['up0']['bias'][:] = 7
  assert equal(nn.load_factors(file, other)[1], learned)
  with pytest.raises(ValueError, match='holds factors alone, .* jaxgan-compress merge --base'):
    nn.load(file)
  with pytest.raises(ValueError, match='a file that jaxgan-compress factors wrote'):
    nn.load_factors(whole, base)
  content = bytearray(file.read_bytes())
  content[-1] ^= 1
  file.write_bytes(content)
  with pytest.raises(ValueError, match='damaged: its checksum'):
    nn.load_factors(file, base)


def test_a_file_with_its_base_is_saved_too(learned, tmp_path):
  nn.save(tmp_path / 'both.safetensors', STUDENT, learned)
  module, variables = nn.load(tmp_path / 'both.safetensors')
  assert module == STUDENT and equal(variables, learned)


def test_an_export_has_no_factors(learned, tmp_path):
  x = np.random.default_rng(0).uniform(-1, 1, (2, 8, 8, 3)).astype('f')
  write_folder(BoundGenerator(learned, STUDENT), tmp_path / 'out', [x], to=('stablehlo',))
  module, variables = nn.load(tmp_path / 'out/network.safetensors')
  assert module == NETWORK and equal(variables, STUDENT.merge(learned))
  with np.load(tmp_path / 'out/examples.npz') as examples:
    np.testing.assert_allclose(examples['image0'], STUDENT.apply(learned, x)[0], atol=1e-6)


def tiny(**fields):
  """A base that takes two steps, and an effect beside it."""
  c = config.base()
  c.data = dict(name='samples:sepia', size=32, count=8)
  c.batch, c.log_every, c.checkpoint.every, c.cache = 4, 1, 1, False
  network = dict(name='unet', ngf=4, depth=2, implementation='reference')
  tx = dict(name='sgd', learning_rate=.01)
  stage = lambda generator, **more: config.stage(steps=2, **more, method=dict(
      name='Pix2Pix', generator=generator, tx=tx, ema=.5, adversary=dict(
          name='Adversary', tx=tx, loss='hinge', disc=dict(
              name='PatchGAN', ndf=2, layers=1, inputs=6))))
  c.stages = {'base': stage(network, data=dict(name='samples:paint')), 'sepia': stage(
      dict(name='LowRank', network=network, rank=2), **{
          'init_from': dict(generator='stage:base'), 'teacher_checkpoint': 'last', **fields})}
  c.run = ('base', 'sepia')
  return c


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('lora') / 'run'
  results = experiment.run(tiny(), workdir, quiet=True)
  return workdir, results


def command(capsys, *args):
  code = main.main(list(args))
  return code, ''.join(capsys.readouterr())


def test_a_run_begins_beside_its_base_and_reports_a_plain_network(run):
  workdir, results = run
  opened = experiment.open_run(workdir)
  base, effect = (opened.stages[name].state('last') for name in ('base', 'sepia'))
  assert equal(effect.nets['generator'].collections['base'], {
      layer: {'kernel': leaves['kernel']} for layer, leaves in
      base.nets['generator'].ema.items() if 'kernel' in leaves})
  row, other = results['generators']['sepia'], results['generators']['base']
  assert (row['params'], row['macs']) == (other['params'], other['macs'])
  bound = opened.generator('sepia').bound('last')
  assert bound.module == NETWORK and equal(
      bound.variables, STUDENT.merge(effect.nets['generator'].averaged))


def test_a_config_is_described_by_what_is_deployed(run):
  rows = {row['stage']: row for row in experiment.describe(tiny()) if row['role'] == 'generator'}
  assert rows['sepia']['network'] == 'LowRank'
  assert {(row['params'], row['macs']) for row in rows.values()} == {
      tuple(run[1]['generators']['sepia'][cost] for cost in ('params', 'macs'))}


def test_commands_write_factors_and_merge_them(run, tmp_path, capsys):
  workdir, file = run[0], tmp_path / 'sepia.safetensors'
  code, said = command(capsys, 'factors', f'--workdir={workdir}', f'--output={file}')
  assert code == 0 and 'sepia, ' in said and 'kB' in said
  assert command(capsys, 'factors', f'--workdir={workdir}', '--generator=base',
                 f'--output={tmp_path / "x.safetensors"}') == (
                     2, "jaxgan-compress: --generator=base; there is sepia\n")
  run_of = experiment.open_run(workdir)
  base, effect = (run_of.generator(name).bound('best') for name in ('base', 'sepia'))
  nn.save(tmp_path / 'base.safetensors', base.module, base.variables)
  nn.save(tmp_path / 'wrong.safetensors', effect.module, effect.variables)
  merge = ['merge', f'--factors={file}', f'--output={tmp_path / "full.safetensors"}']
  code, said = command(capsys, *merge, f'--base={tmp_path / "wrong.safetensors"}')
  assert code == 2 and 'belongs to another base' in said
  code, said = command(capsys, *merge, f'--base={tmp_path / "base.safetensors"}')
  assert code == 0 and 'UNetGenerator' in said
  module, variables = nn.load(tmp_path / 'full.safetensors')
  assert module == effect.module and equal(variables, effect.variables)
  x = data.samples('sepia', 'test', size=32, count=1)[0]['source']
  Image.fromarray(x).save(tmp_path / 'in.png')
  for name, source in (('run', f'--workdir={workdir}'), (
      'file', f'--network={tmp_path / "full.safetensors"}')):
    more = ['--generator=sepia'] if name == 'run' else []
    assert command(capsys, 'generate', source, *more, f'--input={tmp_path / "in.png"}',
                   '--engine=jax', f'--output={tmp_path / name}.png')[0] == 0
  assert (tmp_path / 'run.png').read_bytes() == (tmp_path / 'file.png').read_bytes()


def test_a_base_may_be_a_file_and_has_to_be_there(base, tmp_path):
  nn.save(tmp_path / 'base.safetensors', NETWORK, base)
  nn.save(tmp_path / 'other.safetensors', nn.unet(2, depth=2), nn.initialise(
      nn.unet(2, depth=2), jax.random.key(0)))
  c = tiny(init_from={'generator': str(tmp_path / 'base.safetensors')})
  build.validate(c)
  stage = Run(c, tmp_path / 'run', Reporter(quiet=True)).stages['sepia']
  assert equal(stage.named_files(stage.method)['generator'].variables, base)
  c.stages.sepia.init_from.generator = str(tmp_path / 'other.safetensors')
  stage = Run(c, tmp_path / 'run', Reporter(quiet=True)).stages['sepia']
  with pytest.raises(ValueError, match=r'is of another network, with down=\(2, 4\) where'):
    stage.named_files(stage.method)


@pytest.mark.parametrize('fields, said', [
    ({'init_from': {}}, 'stages.sepia.init_from has no generator, which is of low rank'),
    ({'init_from': {'generator': 'stage:bass'}}, "run has no stage 'bass' before it; one of base"),
    ({'init_from': {'generator': 'stage:sepia'}}, "run has no stage 'sepia' before it"),
    ({'init_from': {'generator': 'nowhere.safetensors'}}, 'there is no file nowhere')])
def test_a_base_that_is_not_there_is_told(fields, said):
  with pytest.raises(ValueError, match=said):
    build.validate(tiny(**fields))


def test_a_stage_that_began_as_another_keeps_it_from_growing(run):
  c = tiny()
  c.stages.base.steps = 3
  with pytest.raises(ValueError, match='sepia learned from base as it was after 2 steps'):
    experiment.run(c, run[0], quiet=True, extend=True)
