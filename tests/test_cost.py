"""Counts of parameters and multiply-accumulates, against published tables and closed forms."""

import importlib.util
import itertools
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxgan_compress as jgc
from jaxgan_compress import analysis, config, nn
from jaxgan_compress.cli import main
from jaxgan_compress.experiment import compilation
from jaxgan_compress.nn.init import remembered, shapes
from tests.test_convert import PRUNED, PRUNED_SPADE

ROOT = Path(__file__).parent.parent
SQUARE = (1, 256, 256, 3)


@pytest.fixture(scope='module', autouse=True)
def long_memory():
  """Several tests ask of the same large networks."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(analysis.model_cost, '_known', remembered(analysis.model_cost._trace, 100))
    yield


# As published, in G, three decimals: by torchprofile, and exact.
@pytest.mark.parametrize('module, torchprofile, exact', [
    (nn.resnet(64), 56.799, 49.552), (nn.mobile_resnet(96), 40.155, 23.848),
    (nn.mobile_resnet(64), 18.314, 11.067), (nn.mobile_resnet(48), 10.565, 6.488),
    (nn.mobile_resnet(24), 2.904, 1.885), (nn.mobile_resnet(16), 1.408, 0.955),
    (nn.mobile_resnet(12), 0.858, 0.603), (nn.mobile_resnet(8), 0.440, 0.326),
    (nn.mobile_deepest_resnet(24), 40.769, 39.750), (nn.mobile_deepest_resnet(16), 18.237, 17.784),
    (nn.mobile_deepest_resnet(12), 10.324, 10.069), (nn.unet(64), 18.143, 6.048),
    (nn.unet(48), 10.291, 3.430), (nn.unet(16), 1.219, 0.406), (nn.unet(12), 0.707, 0.236),
    (nn.unet(8), 0.333, 0.111), (nn.unet_deepest(16), 18.376, 17.532),
    (nn.unet_deepest(12), 10.364, 9.869)])
def test_published_macs(module, torchprofile, exact):
  assert round(jgc.macs(module, SQUARE, 'torchprofile') / 1e9, 3) == torchprofile
  assert round(jgc.macs(module, SQUARE) / 1e9, 3) == exact


def test_headline_ratios():
  big, small = nn.resnet(64), nn.mobile_resnet(16)
  assert round(jgc.macs(big, SQUARE, 'torchprofile')
               / jgc.macs(small, SQUARE, 'torchprofile'), 2) == 40.35
  params = [sum(layer.params for layer in analysis.layers(m, SQUARE)) for m in (big, small)]
  assert round(params[0] / params[1], 2) == 82.84
  assert round(jgc.macs(big, SQUARE) / jgc.macs(small, SQUARE), 2) == 51.90


@pytest.mark.parametrize('module, published', [(nn.resnet(64), 113.60),
                                               (nn.mobile_resnet(64), 36.63),
                                               (nn.mobile_resnet(16), 2.815),
                                               (nn.unet(64), 36.29), (nn.unet(16), 2.439)])
def test_twice_the_pixels_cost_twice_as_much(module, published):
  wide = jgc.macs(module, (1, 256, 512, 3), 'torchprofile')
  assert wide == 2 * jgc.macs(module, SQUARE, 'torchprofile')
  assert abs(wide / 1e9 - published) < 0.01


@pytest.mark.parametrize('module, published', [
    (nn.PatchGAN(128, inputs=6), 12.57), (nn.PatchGAN(96, inputs=6), 7.11),
    (nn.PatchGAN(64), 3.15)])
def test_published_macs_of_discriminators(module, published):
  assert round(jgc.macs(module, (1, 256, 256, module.inputs)) / 1e9, 2) == published


@pytest.mark.parametrize('norm, cat, exact, params', [
    ('instance_affine', 43_527_405_568, 36_242_644_992, 8_154_255),
    ('batch', 43_490_402_304, 36_242_644_992, 8_123_697),
    ('batch_stat', 43_527_405_568, 36_242_644_992, 8_136_389)])
def test_cats_profiler(norm, cat, exact, params):
  module = nn.inception(64, norm=norm)
  assert jgc.macs(module, SQUARE, 'cat') == cat and jgc.macs(module, SQUARE) == exact
  variables = shapes(module)
  assert jgc.count_params(variables, 'cat') == params


@pytest.mark.parametrize('norm, stem, blocks, up', [
    ('instance_affine', 3_039_821_824, 30_201_053_184, 10_286_530_560),
    ('batch', 3_032_481_792, 30_177_681_408, 10_280_239_104)])
def test_cats_profiler_by_part(norm, stem, blocks, up):
  parts = {'stem': 0, 'block': 0, 'up': 0}
  for layer in analysis.layers(nn.inception(64, norm=norm), SQUARE):
    part = 'up' if layer.path == 'to_image' else next(
        part for part in parts if layer.path.startswith(part))
    parts[part] += layer.macs['cat']
  assert parts == {'stem': stem, 'block': blocks, 'up': up}


def test_the_layers_of_inception_spade():
  published = {
      'fc': (332_800, 10_616_832), 'fc_norm': (2_048, 0), 'head': (14_922_366, 476_793_504),
      'middle0': (14_922_366, 1_907_174_016), 'middle1': (14_922_366, 7_628_696_064),
      'up0': (7_172_070, 14_647_930_880), 'up1': (2_215_038, 18_062_417_920),
      'up2': (783_334, 25_492_652_032), 'up3': (318_206, 41_320_841_216),
      'to_image': (1_731, 226_492_416)}
  module = nn.inception_spade(64)
  found = dict.fromkeys(published, (0, 0))
  for layer in analysis.layers(module, (1, 256, 512, 36)):
    name = layer.path.split('/')[0]
    found[name] = (found[name][0] + layer.params, found[name][1] + layer.macs['cat'])
  assert found == published
  assert jgc.macs(module, (1, 256, 512, 36), 'cat') == 109_773_614_880
  variables = shapes(module)
  assert jgc.count_params(variables, 'cat') == 55_575_775


@pytest.mark.parametrize('norm', ['instance_affine', 'batch', 'batch_stat'])
def test_closed_form_of_a_pruned_inception_generator(norm):
  (a, b, c), (u, v), N = PRUNED.stem, PRUNED.up, 64 * 96
  inside = norms = 0
  for block in filter(None, PRUNED.blocks):
    inside += sum(2 * c * r * k * k for k, r in block.dense)
    inside += sum(2 * c * d + d * k * k for k, d in block.depthwise)
    norms += sum(r for _, r in block.dense) + 2 * sum(d for _, d in block.depthwise) + c
  stems = 147 * a * N + 9 * a * b * N // 4 + 9 * b * c * N // 16 + 147 * v * N + inside * N // 16
  legacy = stems + 9 * c * u * N // 4 + 9 * u * v * N
  scaled = N * (a + v) + N // 4 * (b + u) + N // 16 * (c + norms)
  module, shape = PRUNED.clone(norm=norm), (1, 64, 96, 3)
  assert jgc.macs(module, shape) == stems + 9 * c * u * N // 16 + 9 * u * v * N // 4
  assert jgc.macs(module, shape, 'cat') == legacy + (0 if norm == 'batch' else scaled)
  assert jgc.macs(module, shape, 'torchprofile') == legacy + scaled


def test_closed_form_of_a_pruned_inception_spade_generator():
  H, W, labels, C = 64, 128, PRUNED_SPADE.labels, PRUNED_SPADE.fc
  total = 9 * labels * C * (H // 64) * (W // 64) + 27 * PRUNED_SPADE.blocks[-1].out * H * W
  into = C
  for block, scale in zip(PRUNED_SPADE.blocks, (64, 32, 16, 8, 4, 2, 1), strict=True):
    pixels, out = H * W // scale ** 2, block.out
    count = sum((into + out) * r * k * k for k, r in block.main.dense)
    count += sum(d * (into + out + k * k) for k, d in block.main.depthwise)
    if block.main:
      count += sum((labels + 2 * into) * r * k * k for k, r in block.spade.dense)
      count += sum(d * (labels + 2 * into + k * k) for k, d in block.spade.depthwise)
    total += pixels * (count + (into * out if into != out else 0))
    into = out
  assert jgc.macs(PRUNED_SPADE, (1, H, W, labels), 'cat') == total


def test_spade_agrees_with_its_published_costs():
  module, shape = nn.spade(64), (1, 256, 512, 36)
  variables = shapes(module)
  assert round(jgc.count_params(variables) / 1e6, 1) == 93.0
  assert jgc.macs(module, shape) == jgc.macs(module, shape, 'cat') == 281_276_612_608
  assert jgc.macs(module, shape, 'torchprofile') == 281_413_582_848


def test_torchprofile_counts_products_and_leaky_relus_of_spades_family():
  """And means over windows, but no leaky ReLU in place: those of all other families."""
  shape, last = (1, 256, 512, 36), 64 * 256 * 512
  ins, outs = (1024, 1024, 1024, 1024, 512, 256, 128), (1024, 1024, 1024, 512, 256, 128, 64)
  pixels = [32 * 4 ** i for i in range(7)]
  modulated = sum(n * (2 * (a + min(a, b)) + (a if a != b else 0))
                  for a, b, n in zip(ins, outs, pixels, strict=True)) + last
  separable = nn.mobile_spade(64)
  assert jgc.macs(separable, shape, 'torchprofile') == jgc.macs(separable, shape) + modulated
  inception = nn.inception_spade(64, slope=.01)
  norms = sum(layer.macs['torchprofile'] for layer in analysis.layers(inception, shape)
              if layer.kind == 'BatchNorm')
  products = sum(n * a for a, n in zip(ins, pixels, strict=True))
  assert jgc.macs(inception, shape, 'torchprofile') == jgc.macs(
      inception, shape) + norms + products + last
  adversary = nn.MultiScale(4, layers=2, inputs=5)
  maps = 4 * 17 * 33 + 8 * 18 * 34, 4 * 9 * 17 + 8 * 10 * 18  # after each leaky ReLU
  assert jgc.macs(adversary, (1, 32, 64, 5), 'torchprofile') == jgc.macs(
      adversary, (1, 32, 64, 5)) + sum(maps) + 5 * 16 * 32


def test_forms_do_not_change_what_is_counted():
  for implementation, convention in itertools.product(('reference', 'optimized'),
                                                      ('exact', 'torchprofile', 'cat')):
    assert jgc.macs(nn.mobile_resnet(8, implementation=implementation), SQUARE, convention) == \
        jgc.macs(nn.mobile_resnet(8), SQUARE, convention)


def test_macs_by_hand():
  # 4x6 input, 3x3 kernels: 24 outputs of 9 taps, 2 -> 5 channels; depthwise one tap a channel.
  conv = nn.Conv(5)
  assert jgc.macs(conv, (1, 4, 6, 2)) == 24 * 9 * 2 * 5
  assert jgc.macs(nn.Conv(2, depthwise=True), (1, 4, 6, 2)) == 24 * 9 * 2
  assert jgc.macs(nn.UpConv(5), (1, 4, 6, 2)) == 24 * 16 * 2 * 5
  assert jgc.macs(nn.UpConv(5), (1, 4, 6, 2), 'torchprofile') == 4 * 24 * 16 * 2 * 5
  assert jgc.macs(nn.UpConv(5, 3), (1, 4, 6, 2)) == 24 * 9 * 2 * 5
  # A transposed convolution of a 1x1 map has 16 outputs of 16 taps to torchprofile, 1 of them real.
  G = nn.DCGANGenerator(2, size=32)
  assert jgc.macs(G, convention='torchprofile') == 100 * 8 * 256 + 4 * (
      16 * 8 * 4 + 64 * 4 * 2 + 256 * 2) * 16 + 16 * 8 + 64 * 4 + 256 * 2


def test_macs_of_functions():
  W = jnp.ones((4, 5))
  assert jgc.macs(lambda x: jax.nn.relu(x @ W), (3, 4)) == 60
  assert jgc.macs(lambda x: jax.lax.scan(lambda c, _: (c @ W @ W.T, None), x, None, 7)[0],
                  (3, 4)) == 7 * 120
  module = nn.unet(2, 3)
  variables = nn.initialise(module, jax.random.key(0))
  for convention in ('exact', 'torchprofile', 'cat'):
    assert jgc.macs(lambda x: module.apply(variables, x)[0], (1, 8, 8, 3), convention) == \
        jgc.macs(module, (1, 8, 8, 3), convention)


@pytest.mark.parametrize('call, said', [
    (lambda: jgc.macs(nn.unet(4)), r'depends on the size.*\(1, 256, 256, 3\)'),
    (lambda: jgc.macs(lambda x: x), 'give the shape'),
    (lambda: jgc.macs(nn.unet(4), SQUARE, 'flops'), 'one of exact, torchprofile, cat'),
    (lambda: jgc.count_params({}, 'most'), 'one of all, paper, cat')])
def test_what_cannot_be_counted_is_said(call, said):
  with pytest.raises(ValueError, match=said):
    call()


def test_activation_bytes_by_hand():
  def f(x):          # [8] float32: 32 bytes
    y = x * 2        # x dies: in place, 32
    z = jnp.concatenate([y, y])  # 32 + 64; y dies
    return z.sum()   # 64 + 4
  assert analysis.activation_bytes(f, (8,)) == 96
  W = jnp.ones((8, 100))
  assert analysis.activation_bytes(lambda x: (x @ W).sum(), (8,)) == 32 + 400


def test_activation_bytes_grow_with_pixels_and_not_with_depth():
  count = analysis.activation_bytes
  assert count(nn.resnet(8), (1, 64, 64, 3)) == count(nn.resnet(8, 3), (1, 64, 64, 3))
  # A little less than 4 times: the padding of 3 pixels does not grow.
  assert 3.7 < count(nn.resnet(8), (1, 128, 128, 3)) / count(nn.resnet(8), (1, 64, 64, 3)) < 4


def test_latency_is_measured_in_turn():
  calls = []
  timings = jgc.latency({name: lambda name=name: calls.append(name) or jnp.zeros(1)
                         for name in 'ab'}, rounds=3, warmup=2)
  assert calls == ['a', 'a', 'b', 'b', 'a', 'b', 'a', 'b', 'a', 'b']
  assert all(0 < t.median <= t.p95 and t.rounds == 3 for t in timings.values())
  timings = analysis.network_latency(nn.mobile_resnet(2, 1), (1, 16, 16, 3), (1, 2), rounds=2)
  assert list(timings) == [1, 2]


def test_the_table_of_costs_is_up_to_date(monkeypatch):
  spec = importlib.util.spec_from_file_location('costs', ROOT / 'benchmarks' / 'costs.py')
  costs = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(costs)
  monkeypatch.setattr(sys, 'argv', ['costs.py', '--check'])
  assert costs.main() == 0
  monkeypatch.setattr(costs, 'page', lambda: 'another')
  assert costs.main() == 1


def test_info_prints_layers_and_totals(capsys, tmp_path):
  argv = ['info', '--network', 'mobile_resnet:ngf=4,blocks=2', '--size', '32x48']
  assert main.main(argv) == 0
  text = capsys.readouterr().out
  assert 'block2/conv2/pointwise' in text and 'ResNetGenerator(stem=(4, 8, 16)' in text
  assert main.main([*argv, '--json', '--latency', '--batch=2']) == 0
  found = json.loads(capsys.readouterr().out)
  module, shape = nn.mobile_resnet(4, 2), (1, 32, 48, 3)
  assert found['input'] == list(shape) and found['macs']['exact'] == jgc.macs(module, shape)
  assert sum(layer['params'] for layer in found['layers']) == found['params']
  assert set(found['latency']) == {'1', '2'}
  nn.save(tmp_path / 'G.safetensors', module, nn.initialise(module, jax.random.key(0)))
  assert main.main(['info', f'--network={tmp_path / "G.safetensors"}', '--size=32x48',
                   '--json']) == 0
  assert json.loads(capsys.readouterr().out)['layers'] == found['layers']
  assert main.main(['info', '--network=ResNetGenerator:stem=(4,8,16),hidden=(16,),up=(8,4)',
                   '--size=16', '--json']) == 0
  assert np.isclose(json.loads(capsys.readouterr().out)['macs']['exact'], jgc.macs(
      nn.resnet(4, 1), (1, 16, 16, 3)))
  assert main.main(['info', '--network', 'DCGANGenerator:d=2']) == 0


@pytest.mark.parametrize('argv, said', [
    (['--network=mobile_resnt', '--size=64'], "did you mean 'mobile_resnet'"),
    (['--network=resnet:ngf=4'], 'needs --size'),
    (['--network=resnet:ngf=4', '--size=big'], 'give 256, or 256x512'),
    (['--network=resnet:ngf=4', '--size=30'], 'multiples of 4'),
    (['--network=resnet:ngf', '--size=32'], 'name=value'),
    (['--network=resnet:nfg=4', '--size=32'], 'nfg'),
    (['--network=G.safetensors', '--size=32'], 'there is no file'),
    (['--network=SeparableConv:features=4', '--size=32'], 'does not say what its input'),
    (['--network=resnet:ngf=4.5', '--size=32'], 'ngf=4.5; it is a whole number'),
    (['--network=resnet:ngf=0', '--size=32'], 'ngf=0; at least 1'),
    (['--network=resnet:ngf=4,dtype=int8', '--size=32'], 'floating')])
def test_info_says_what_is_wrong(argv, said, capsys):
  assert main.main(['info', *argv]) == 2
  assert said in capsys.readouterr().err


def test_a_step_costs_its_products_and_what_replicas_exchange():
  """Two products forward and two of three back (the input needs none); 9 weights' gradients, as
  float32, and a logged scalar; each row of x once."""

  def step(w, x, axes):
    loss = lambda w: jnp.square(x @ w @ w).mean()
    return w - axes.mean(jax.grad(loss)(w)), axes.mean(loss(w)), axes.gather(x)

  found = analysis.step_cost(step, jnp.ones((3, 3)), jnp.ones((5, 3)))
  # The loss is taken once more for the log.
  assert found == (45 * (2 + 3 + 2), 4 * 9 + 4, 4 * 15)


def test_what_a_loop_sends_counts_as_often_as_it_is_sent():
  def step(x, axes):
    return lax.scan(lambda c, _: (axes.mean(c), None), x, None, 7)[0]

  assert analysis.step_cost(step, jnp.ones(3)).reduced == 7 * 3 * 4


def test_a_step_in_plain_flax_has_the_products_of_ours(monkeypatch):
  monkeypatch.syspath_prepend(ROOT / 'benchmarks')
  import plain_flax
  method, *args = compilation.untrained(config.load('kd/cifar10:smoke'), 'd1_joint', 4)
  plain = plain_flax.kd(batch=4, width=1 / 32, updates=1)
  macs = [analysis.step_cost(lambda *args, step=step: plain_flax.distinct(step)(*args[:-1]),
                             *args).macs for step, args in (plain, (method.step, args))]
  assert macs[0] == pytest.approx(macs[1], rel=0.005)


def test_what_stands_twice_or_is_unused_is_not_distinct(monkeypatch):
  monkeypatch.syspath_prepend(ROOT / 'benchmarks')
  import plain_flax
  twice = lambda x: (x @ x + lax.stop_gradient(x) @ x, (x.T @ x)[:0])
  step = lambda x: twice(x)[0] + jax.jit(lambda x: x @ x)(x)
  assert [analysis.step_cost(lambda x, axes, step=step: step(x), jnp.ones((3, 3))).macs
          for step in (step, plain_flax.distinct(step))] == [4 * 27, 27]
  x = jnp.arange(9.).reshape(3, 3)
  np.testing.assert_array_equal(plain_flax.distinct(step)(x)[0], step(x))


def test_a_picture_is_rounded():
  assert analysis.image_grid.to_uint8([-2, -1, -.5, 0, .999, 1, 2]).tolist() == [
      0, 0, 64, 128, 255, 255, 255]


@pytest.mark.parametrize('channels, shown, words', [
    (1, [[51] * 3], ''), (2, [[153] * 3], 'alpha on white'), (3, [[51, 102, 0]], ''),
    (4, [[153, 178, 128]], 'alpha on white'),
    (7, [[51, 102, 0]], 'channels 1 to 3 of 7 as red, green and blue')])
def test_every_number_of_channels_is_shown_and_said(channels, shown, words):
  pixel = {2: [-.6, 0], 4: [-.6, -.2, -1, 0]}.get(channels, [-.6, -.2, -1, 0, 0, 0, 0][:channels])
  images = np.tile(np.float32(pixel), (1, 2, 3, 1))
  sheet = analysis.contact_sheet([images])
  assert sheet.shape == (2, 3, 3) and np.abs(sheet.astype(int) - shown).max() <= 1
  deep = np.round((images + 1) * 32767.5).astype(np.uint16)
  large = np.asarray(analysis.gallery({'x': deep}, pixels=2))
  assert (np.abs(large.reshape(-1, 3).astype(int) - sheet[0, 0]) <= 1).all(1).any()
  assert analysis.image_grid.shown_as(channels) == words


def test_what_dies_is_written_over():
  assert analysis.activation_bytes(lambda x: x * 2 + 1, (8,)) == 32
  assert analysis.activation_bytes(lambda x: x * 2 + x, (8,)) == 64
