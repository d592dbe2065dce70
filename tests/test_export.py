"""Exported generators draw what the networks draw, wherever they run, or are not there."""

import datetime
import functools
import hashlib
import json
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import jaxlib
import numpy as np
import onnxruntime
import pytest
from flax import linen, traverse_util
from PIL import Image

from jaxgan_compress import core, data, export, nn, pruning
from jaxgan_compress.cli import main
from jaxgan_compress.core import BoundGenerator
from jaxgan_compress.data import decode
from jaxgan_compress.experiment.export import latents, of_sizes
from jaxgan_compress.export import bundle as folders
from jaxgan_compress.export import stablehlo
from tests import files
from tests.test_convert import PRUNED_SPADE

INCEPTION = nn.InceptionGenerator(
    (4, 6, 8), (nn.Branches(((1, 2), (5, 3)), ((3, 2),)), nn.Branches(), nn.Branches(((3, 2),))),
    (6, 4), slope=.1)
NETWORKS = {
    'resnet': (nn.resnet(4, 2, dropout=.5), 32),
    'resnet, batch norm': (nn.resnet(4, 1, norm='batch', clamp=True, padding='zero'), 32),
    'separable resnet': (nn.mobile_resnet(4, 2, padding='replicate'), 32),
    'deeper resnet': (nn.mobile_deepest_resnet(2, 1, norm='batch'), 32),
    'unet': (nn.unet(4, 5, dropout=.5), 64),
    'deeper unet': (nn.unet_deepest(2, 4), 64),
    'unet, instance norm': (nn.unet(4, 4, norm='instance'), 64),
    'inception with removed branches': (INCEPTION, 32),
    'inception, batch norm': (INCEPTION.clone(norm='batch'), 32),
    'inception, statistics of the batch': (INCEPTION.clone(norm='batch_stat'), 32),
    'spade': (nn.spade(2, hidden=4, labels=5), 64),
    'spade, instance norm, normal': (nn.spade(2, 'normal', 4, labels=5, norm='instance'), 64),
    'separable spade': (nn.mobile_spade(2, hidden=4, labels=5), 64),
    'inception spade': (PRUNED_SPADE, 64),
    'rrdbnet to twice the size': (nn.rrdbnet(5, 3, blocks=1, scale=2), 6),
    'srvgg to three times the size, resized': (nn.srvgg(5, 2, resize=.75), 6),
    'srvgg to its size, resized': (nn.srvgg(5, 2, scale=2, resize=.5), 7),
    'dcgan of 28 px': (nn.DCGANGenerator(2, size=28), 0),
    'dcgan of 64 px': (nn.DCGANGenerator(2, channels=3, size=64), 0),
}


def learnt(module, seed=0):
  """Variables as though the network had learnt, statistics and all."""
  rng = np.random.default_rng(seed)
  variables = jax.device_get(nn.initialise(module, jax.random.key(seed)))

  def moved(path, x):
    name = path[-1].key
    if name in ('scale', 'var'):
      return rng.uniform(.5, 1.5, x.shape).astype(np.float32)
    if name == 'kernel':
      return (x * 2).astype(np.float32)
    if name == 'slope':
      return rng.uniform(-1.5, 1.5, x.shape).astype(np.float32)
    return x + rng.normal(0, .1, x.shape).astype(np.float32) if name in ('bias', 'mean') else x

  variables = jax.tree_util.tree_map_with_path(moved, variables)
  flat = traverse_util.flatten_dict(variables)
  for path in [path for path in flat if path[0] == 'spectral' and path[-1] == 'u']:
    kernel = flat['params', *path[1:-1], 'kernel']  # or they would draw black or white
    left, _, right = np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), full_matrices=False)
    flat[path], flat[*path[:-1], 'v'] = right[0], left[:, 0].reshape(kernel.shape[:-1])
  return traverse_util.unflatten_dict(flat)


def draw(module, variables, x):
  return jax.jit(lambda variables, x: module.apply(variables, x)[0])(variables, x)


def inputs_of(module, side, seed=1):
  if not side:
    return [*latents(module, seed, 3), latents(module, seed + 1, 3)[0]]
  rng, channels = np.random.default_rng(seed), module.example().shape[-1]
  x = rng.uniform(-1, 1, (3, side, side, channels)).astype(np.float32)
  return of_sizes(module, x if channels == 3 else (x == x.max(-1, keepdims=True)).astype(
      np.float32))


@pytest.mark.parametrize('name', NETWORKS)
@pytest.mark.essential
def test_every_family_draws_the_same_in_every_format(name):
  module, side = NETWORKS[name]
  variables, inputs = learnt(module), inputs_of(module, side)
  shape = inputs[0].shape
  apply = jax.jit(lambda x: module.apply(variables, x)[0])
  graph = export.to_onnx(module, variables, shape)
  session = onnxruntime.InferenceSession(graph.SerializeToString())
  turned = onnxruntime.InferenceSession(
      export.to_onnx(module, variables, shape, 'NCHW').SerializeToString())
  exported = jax.export.deserialize(bytearray(export.to_stablehlo(module, variables, shape)))
  assert set(exported.platforms) == {'cpu', 'cuda', 'tpu'}
  for x in inputs[1:]:  # one, and three: taller where the family allows it
    expected = np.asarray(apply(x))
    assert expected.std() > .01
    np.testing.assert_allclose(exported.call(x), expected, atol=1e-5)
    found, = session.run(None, {'input': x})
    np.testing.assert_allclose(found, expected, atol=1e-4)
    found, = turned.run(None, {'input': x.transpose(0, 3, 1, 2) if side else x})
    np.testing.assert_allclose(found.transpose(0, 2, 3, 1), expected, atol=1e-4)


@pytest.fixture(scope='module')
def tensorflow():
  return pytest.importorskip('tensorflow', reason='LiteRT needs the extra: tf')


@pytest.mark.parametrize('name', NETWORKS)
def test_every_family_draws_the_same_in_litert(name, tensorflow):
  """In one file: of the size that it was made for, of others, and of that again."""
  module, side = NETWORKS[name]
  variables, inputs = learnt(module), inputs_of(module, side)
  run = export.run_litert(export.to_litert(module, variables, inputs[0].shape))
  apply = jax.jit(lambda x: module.apply(variables, x)[0])
  for x in (*inputs[1:], inputs[1]):
    np.testing.assert_allclose(run(x), apply(x), atol=2e-5)


class Layer(linen.Module):
  draw: Callable

  @linen.compact
  def __call__(self, x, train=False, axes=None):
    return self.draw(x), {}


def functions(x):
  """Functions of each pixel, side by side."""
  positive = abs(x) + .1
  return jnp.concatenate([
      jnp.exp(x), jnp.log(positive), jax.lax.erf(x), jax.lax.erfc(x), jnp.sqrt(positive),
      jax.lax.rsqrt(positive), positive ** 1.7, x ** 3, x ** -2, jnp.sign(x), jnp.floor(x * 3),
      jnp.ceil(x * 3), jnp.round(x * 3), jnp.exp2(x), jnp.log1p(positive), jnp.expm1(x),
      jnp.clip(x, -.5, .7), jnp.minimum(x, .2), jnp.maximum(x, x[..., ::-1]), jnp.sin(x),
      jnp.cos(x), jnp.where(x > .1, x, 2.), jnp.where((x >= 0) & (x < .5) | (x <= -1), x, -x),
      (x != 0) * x, jnp.where(~(x == 0), x, 1), jnp.fmod(x, .3), (x * 4).astype(int) * .5,
      jax.nn.softmax(x), jax.nn.log_softmax(x), linen.gelu(x), linen.gelu(x, approximate=False),
      linen.silu(x), linen.leaky_relu(x, .3), linen.elu(x), linen.softplus(x), linen.selu(x),
      linen.hard_swish(x), linen.glu(x), jnp.where(jnp.isfinite(x), x, 0)], -1)


def statistics(x):
  """Of axes, as maps."""
  whole = jnp.concatenate([x.max((1, 2)), x.min((1, 2)), x.sum((1, 2)), x.mean((1, 2)),
                           x.var((1, 2)), x[:, 0, 1], x[:, -1, -2],
                           x[:, jnp.array([1, 2]), jnp.array([3, 0])].sum(1)], -1)
  rows = jnp.concatenate([f(x, -1, keepdims=True) for f in (
      jnp.max, jnp.min, jnp.prod, jnp.std)] + [jnp.argmax(x, -1)[..., None] * .1], -1)
  return jnp.concatenate([rows, jnp.broadcast_to(
      whole[:, None, None], (*x.shape[:3], whole.shape[-1]))], -1)


def places(x):
  """What moves pixels."""
  b, h, w, c = x.shape
  sides = (0, 0), (2, 1), (1, 3), (0, 0)
  moved = [jnp.pad(x, sides, mode) for mode in ('reflect', 'edge', 'symmetric')]
  moved.append(jnp.pad(x, sides, constant_values=.5))
  moved = [x[:, 2:2 + h, 1:1 + w] for x in (jnp.roll(y, (1, -2), (1, 2)) for y in moved)]
  first, *others = jnp.split(x, 4, -1)
  moved += [x[:, ::-1], x.transpose(0, 1, 3, 2).swapaxes(2, 3), x[..., ::2], x[..., 1],
            jnp.stack([first[..., 0], others[1][..., 0]], -1), x[..., jnp.array([3, 0, 1])],
            jnp.tile(x[:, :1], (1, h, 1, 2)), jnp.stack(jnp.unstack(x, axis=-1)[::-1], -1),
            jnp.repeat(x[:, ::2, ::2], 2, 1).repeat(2, 2), jnp.arange(h)[None, :, None, None] + x,
            x.reshape(b, h // 2, 2, w, c).swapaxes(2, 3).reshape(b, h // 2, w, -1).repeat(2, 1)]
  return jnp.concatenate([x if x.ndim == 4 else x[..., None] for x in moved], -1)


def attention(x):
  """Heads by hand, as linen has them, and a sum of products that is none of matrices."""
  b, h, w, c = x.shape
  tokens = linen.LayerNorm()(x.reshape(b, h * w, c))
  q, k, v = (linen.Dense(6)(tokens).reshape(b, -1, 2, 3).swapaxes(1, 2) for _ in range(3))
  by_hand = (jax.nn.softmax(q @ k.swapaxes(2, 3)) @ v).swapaxes(1, 2).reshape(b, h, w, 6)
  whole = linen.MultiHeadDotProductAttention(2, qkv_features=4)(tokens).reshape(x.shape)
  gram = jnp.einsum('bhwc,bhwd->bcd', x, by_hand).mean(1)
  return jnp.concatenate([by_hand, whole, x * linen.Dense(c)(gram)[:, None, None]], -1)


class Step(linen.Module):

  @linen.compact
  def __call__(self, x, _):
    y = linen.Conv(4, (3, 3))(x)
    return jnp.tanh(y), y.mean((1, 2))


def inside(x):
  """What functions are called through."""
  x = linen.remat(linen.Conv)(4, (3, 3))(x)
  scan = linen.scan(Step, variable_axes={'params': 0}, split_rngs={'params': True}, length=3)
  x, means = scan()(x, None)
  x = jax.jit(jax.checkpoint(jnp.cos))(x) + means.transpose(1, 0, 2).reshape(-1, 1, 1, 12)[..., :4]
  both = linen.vmap(linen.Conv, variable_axes={'params': 0}, split_rngs={'params': True},
                    in_axes=None, axis_size=2)(3, (3, 3))
  return linen.Dropout(.5, deterministic=True)(both(x).sum(0)).astype(jnp.bfloat16) * 0 + both(x)[1]


def pools(x):
  same = [linen.avg_pool(x, (3, 3), (1, 1), 'SAME', count_include_pad=count)
          for count in (True, False)]
  return jnp.concatenate([linen.max_pool(x, (2, 2), (1, 1), 'SAME'), linen.pooling.pool(
      x, jnp.inf, jax.lax.min, (3, 5), (1, 1), 'SAME'),
      linen.max_pool(x, (3, 2), (2, 2), 'SAME').repeat(2, 1).repeat(2, 2),
      linen.avg_pool(x, (2, 4), (2, 4)).repeat(2, 1).repeat(4, 2),
      linen.max_pool(x, (3, 3), (1, 1), ((1, 1), (2, 0))), *same], -1)


def norms(x):
  kinds = (linen.GroupNorm(2), linen.LayerNorm(), linen.InstanceNorm(), linen.RMSNorm(),
           linen.BatchNorm(use_running_average=True), linen.LayerNorm(reduction_axes=(1, 2, 3)))
  return jnp.concatenate([norm(linen.Conv(4, (3, 3))(x)) for norm in kinds], -1)


def convolutions(x):
  conv, double = functools.partial(linen.Conv, 8), lambda x: x.repeat(2, 1).repeat(2, 2)
  up = functools.partial(linen.ConvTranspose, 4, strides=(2, 2))
  big = [up((4, 4))(x), up((3, 3))(x), up((5, 2), padding=((1, 2), (1, 1)))(x)[:, :, :-1],
         up((3, 3), kernel_dilation=2)(x), double(conv((3, 3), feature_group_count=2)(x)),
         up((2, 2), padding=((3, 1), (2, 2)))(x)[:, 2:, 2:],
         double(conv((3, 3), feature_group_count=4)(x)), double(linen.Dense(5)(x)),
         double(conv((3, 3), kernel_dilation=(1, 2))(x)),
         double(linen.Conv(4, (5,))(x.reshape(x.shape[0], -1, 4)).reshape(x.shape))]
  return jnp.concatenate([jnp.pad(y, ((0, 0), (0, 3), (0, 3), (0, 0)))[
      :, :2 * x.shape[1], :2 * x.shape[2]] for y in big], -1)


def resized(x):
  b, h, w, c = x.shape
  return jnp.concatenate([jax.image.resize(x, (b, 2 * h, 3 * w, c), method) for method in (
      'nearest', 'bilinear', 'cubic', 'lanczos3')] + [jax.image.resize(
          x[:, ::2], (b, 2 * h, 3 * w, c), 'bilinear')], -1)


class Fours(Layer):
  """A layer of images in multiples of 4."""

  def __call__(self, x, train=False, axes=None):
    if x.shape[1] % 4 or x.shape[2] % 4:
      raise ValueError('multiples of 4')
    return super().__call__(x)

  def example(self):
    return jnp.zeros((1, 8, 8, 4))


@pytest.mark.parametrize('layer', [
    functions, statistics, places, attention, inside, pools, norms, convolutions, resized])
def test_operations_of_any_network_are_exact_in_onnx(layer):
  """Of images of another batch, height and width than it was exported with, and both layouts."""
  rng, module = np.random.default_rng(0), Fours(layer)
  x = rng.normal(size=(2, 12, 16, 4)).astype(np.float32)
  with jax.numpy_rank_promotion('allow'):
    variables = jax.tree.map(lambda x: rng.uniform(.05, .5, x.shape).astype(np.float32),
                             jax.eval_shape(module.init, jax.random.key(0), module.example()))
    run = export.run_onnx(export.to_onnx(module, variables, (1, 8, 8, 4)))
    expected = draw(module, variables, x)
  np.testing.assert_allclose(run(x), expected, atol=1e-5 * abs(expected).max())
  if layer is pools:
    turned = export.run_onnx(export.to_onnx(module, variables, (1, 8, 8, 4), 'NCHW'))
    np.testing.assert_allclose(turned(x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1), expected,
                               atol=1e-5)


def test_what_code_needs_to_know_is_fixed_in_onnx_and_said():
  x = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype(np.float32)
  rows = Fours(lambda x: x * np.arange(1., 1 + int(x.shape[1]))[None, :, None, None])
  run = export.run_onnx(export.to_onnx(rows, {}, x.shape))
  np.testing.assert_allclose(run(x), rows.apply({}, x)[0], rtol=1e-6)
  with pytest.raises(ValueError, match=r"takes \['batch', 8, 8, 4\] and got \[2, 12, 8, 4\]"):
    run(np.zeros((2, 12, 8, 4)))
  # Its convolution has as many groups as the batch has images.
  each = Fours(lambda x: jax.lax.conv_general_dilated(
      x.transpose(1, 2, 0, 3).reshape(1, *x.shape[1:3], -1), jnp.tile(
          jnp.arange(4.).reshape(1, 1, 4, 1), x.shape[0]), (1, 1), 'SAME',
      feature_group_count=x.shape[0], dimension_numbers=('NHWC', 'HWIO', 'NHWC')).transpose(
          3, 1, 2, 0))
  run = export.run_onnx(export.to_onnx(each, {}, x.shape))
  for images in (x, np.concatenate([x, x], 1)[:, :12]):
    np.testing.assert_allclose(run(images), each.apply({}, images)[0], rtol=1e-5, atol=1e-6)
  fours = export.run_onnx(export.to_onnx(Fours(lambda x: x - x.mean((1, 2), keepdims=True)), {},
                                         x.shape))
  with pytest.raises(Exception, match='reshape'):  # a mean of so many pixels would be wrong
    fours(np.zeros((1, 10, 8, 4)))


@pytest.mark.parametrize('layer', [
    *(lambda x, given=given: linen.ConvTranspose(3, *given)(x)
      for given in (((2, 2), (2, 2), 'VALID'), ((3, 3), (2, 2), ((1, 2),) * 2),
                    ((3, 4), (2, 2), 'VALID'), ((4, 4), (2, 2), 'SAME'), ((5, 5), (2, 2), 'VALID'),
                    ((2, 2), (2, 2), ((1, 2),) * 2), ((3, 3), (3, 3), 'SAME'))),
    lambda x: linen.Conv(6, (3, 5), (2, 1), kernel_dilation=(1, 2))(x),
    lambda x: linen.Conv(6, (3, 3), padding='VALID', feature_group_count=2)(x),
    lambda x: linen.Conv(8, (4, 4), feature_group_count=4)(x),
    lambda x: nn.layers.pad(x, 3, 'replicate') * nn.layers.pad(x, 3, 'reflect'),
    lambda x: jnp.concatenate([x[..., 1:3], nn.layers.subsample(nn.layers.upsample(x), 8, 8)], -1),
    lambda x: x - jnp.arange(4.).reshape(1, 1, 1, 4) / (1 + jnp.exp(-abs(x))),
    lambda x: jnp.minimum(jax.nn.sigmoid(x), .5) + jnp.sqrt(x ** 2 + 1) + jax.lax.rsqrt(x ** 2 + 1),
    lambda x: nn.InstanceNorm(affine=True)(nn.BatchNorm(track=False)(x, True))])
def test_layers_are_exact_in_litert(layer, tensorflow):
  rng, module = np.random.default_rng(0), Layer(layer)
  x = rng.normal(size=(3, 8, 8, 4)).astype(np.float32)
  variables = jax.tree.map(lambda x: x + rng.normal(0, .1, x.shape).astype(np.float32),
                           module.init(jax.random.key(0), x))
  run = export.run_litert(export.to_litert(module, variables, (1, 8, 8, 4)))
  np.testing.assert_allclose(run(x), draw(module, variables, x), atol=2e-6)


def test_what_litert_does_not_have_is_named(tensorflow):
  sort = Own(odd=True)
  variables = sort.init(jax.random.key(0), sort.example())
  with pytest.raises(ValueError, match=r'sort of \(1, 8, 8, 4\) in Own has no counterpart in Lite'):
    export.to_litert(sort, variables, (1, 8, 8, 3))
  uneven = Layer(lambda x: linen.ConvTranspose(3, (3, 3), (2, 1), 'VALID')(x))
  variables = uneven.init(jax.random.key(0), sort.example())
  with pytest.raises(ValueError, match=r'of strides \(2, 1\) has no counterpart in LiteRT'):
    export.to_litert(uneven, variables, (1, 8, 8, 3))


def test_a_folder_has_litert_on_request(tensorflow, tmp_path, capsys, monkeypatch):
  module = nn.resnet(8, 1)  # weights of a few hundred numbers stay in 32 bits
  proof = write(tmp_path / 'out', module, to=('litert',),
                calibration=inputs_of(module, 16, 2)[0])
  names = ['network.tflite', 'network.int8.tflite']
  assert list(proof['artefacts']) == names and proof['versions']['tensorflow-cpu']
  exact, coarse = (proof['artefacts'][name] for name in names)
  assert 0 < exact['max_error'] < 1e-5 < coarse['mean_error'] < .1
  assert coarse['bytes'] < exact['bytes'] / 2
  assert exact['shapes'] == [[3, 16, 16, 3], [1, 16, 16, 3], [3, 20, 16, 3]]
  card = (tmp_path / 'out/README.md').read_text()
  assert all(f'`{name}`' in card for name in names) and 'run_onnx' not in card
  assert proof['expires'] == {} and 'expires' not in card
  assert main.main(['export', f'--verify={tmp_path}/out']) == 0
  assert all(name in capsys.readouterr().out for name in names[:1])
  # What the card says to do, with TensorFlow, where LiteRT alone is not installed.
  lines = card.split('# LiteRT alone, images as NHWC\n')[1].partition('```')[0]
  monkeypatch.chdir(tmp_path / 'out')
  with np.load('examples.npz') as stored:
    known = {'x': stored['input2'], 'Interpreter': tensorflow.lite.Interpreter}
    exec(lines, known)
    np.testing.assert_allclose(known['image'], stored['image2'], atol=1e-5)
  other = export.to_litert(module, learnt(module, 1), (1, 16, 16, 3))
  monkeypatch.setattr(folders.litert, 'to_litert', lambda *_, **__: other)
  with pytest.raises(export.ExportError, match='network.tflite generates something else'):
    write(tmp_path / 'other', module, to=('litert',))
  assert [path.name for path in tmp_path.iterdir()] == ['out']


def test_litert_without_its_extra_is_refused_before_the_work(tmp_path, monkeypatch, capsys):
  nn.save(tmp_path / 'net.safetensors', SMALL, learnt(SMALL))
  for name in ('tensorflow', 'ai_edge_litert', 'ai_edge_litert.interpreter'):
    monkeypatch.setitem(sys.modules, name, None)
  monkeypatch.setattr(folders, 'jit', None)  # as though nothing could be drawn
  assert main.main(['export', f'--network={tmp_path}/net.safetensors', '--size=16', '--to=litert',
                   f'--output={tmp_path}/out']) == 2
  assert 'LiteRT needs the extra: pip install "jaxgan-compress[tf]"' in capsys.readouterr().err
  assert [path.name for path in tmp_path.iterdir()] == ['net.safetensors']
  with pytest.raises(ImportError, match='LiteRT needs the extra'):
    export.run_litert(b'')


def test_a_graph_has_no_more_nodes_than_the_network_has_layers():
  """Norms with tracked statistics and biases are inside the convolutions."""
  module = nn.resnet(4, 2, norm='batch')
  graph = export.to_onnx(module, learnt(module), (1, 32, 32, 3), 'NCHW').graph
  count = lambda op: sum(node.op_type == op for node in graph.node)
  assert {node.op_type for node in graph.node} == {
      'Conv', 'ConvTranspose', 'Pad', 'Relu', 'Add', 'Tanh'}
  assert (count('Conv'), count('ConvTranspose'), count('Add')) == (8, 2, 2)
  module = nn.resnet(4, 2)
  graph = export.to_onnx(module, learnt(module), (1, 32, 32, 3), 'NCHW').graph
  assert count('InstanceNormalization') == 9 and len(graph.node) == 35


def test_a_student_that_was_cut_is_exported():
  teacher = nn.inception(4, 2, 4)
  cut = pruning.prune(teacher, learnt(teacher), (1, 32, 32, 3), budget=3.3e5)
  assert any(len(branches.depthwise) < 3 for branches in cut.module.blocks)
  session = onnxruntime.InferenceSession(export.to_onnx(
      cut.module, cut.variables, (1, 32, 32, 3)).SerializeToString())
  x, = inputs_of(teacher, 32)[1:2]
  np.testing.assert_allclose(session.run(None, {'input': x})[0],
                             draw(cut.module, cut.variables, x), atol=1e-5)


class Tapped(linen.Module):
  """Draws a bare convolution; a tap reads it, too."""

  @linen.compact
  def __call__(self, x, train=False, axes=None):
    y = nn.Conv(3)(x)
    return y, {'shifted': y + 1}


def test_what_only_a_tap_reads_is_not_in_the_picture():
  module = Tapped()
  variables = module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
  graph = export.to_onnx(module, variables, (1, 8, 8, 3), 'NCHW')
  assert [node.op_type for node in graph.graph.node] == ['Conv']
  x = inputs_of(SMALL, 8)[1]
  np.testing.assert_allclose(export.run_onnx(graph)(x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1),
                             draw(module, variables, x), atol=1e-6)


class Own(linen.Module):
  """A generator as a user writes it."""
  odd: bool = False

  @linen.compact
  def __call__(self, x, train=False, axes=None):
    y = nn.InstanceNorm(affine=True)(linen.Conv(4, (3, 3), name='first')(x))
    y = jax.nn.sigmoid(y) * 2 - jnp.clip(y, -1, 1)
    y = jnp.sort(y, -1) if self.odd else y
    return jnp.tanh(nn.UpConv(3)(linen.relu(y))), {}

  def example(self):
    return jnp.zeros((1, 8, 8, 3))


def expired(_):
  raise ValueError('Exported being deserialized seems to be older than the 6-month window')


def test_networks_of_its_user_are_exported_and_what_cannot_be_is_named(tmp_path, monkeypatch):
  module = Own()
  variables = module.init(jax.random.key(0), module.example())
  write(tmp_path / 'own', module, variables)
  assert not (tmp_path / 'own/architecture.json').exists()
  with pytest.raises(ValueError, match=r'sort of \(3, 16, 16, 4\) in Own has no counterpart in ON'):
    write(tmp_path / 'odd', Own(odd=True), variables)
  assert not list(tmp_path.glob('*odd*'))
  assert write(tmp_path / 'odd', Own(odd=True), variables, to=('stablehlo',))
  card = ' '.join((tmp_path / 'odd/README.md').read_text().split())
  assert 'expire: `network.safetensors`. From these weights `export.write_folder` writes' in card
  monkeypatch.setattr(jax.export, 'deserialize', expired)
  with pytest.raises(export.ExportError, match=r'export\.write_folder\(\.\.\.\) of your network'):
    export.verify(tmp_path / 'odd')


SMALL = nn.resnet(2, 1)


def write(out, module=SMALL, variables=None, **more):
  variables = learnt(module) if variables is None else variables
  return export.write_folder(BoundGenerator(variables, module), out, inputs_of(module, 16), **more)


@pytest.mark.essential
def test_a_folder_holds_all_that_its_user_needs(tmp_path, capsys):
  calibration = inputs_of(SMALL, 16, 2)[0]
  proof = write(tmp_path / 'out', facts={'run': 'mine'}, calibration=calibration)
  assert {path.name for path in (tmp_path / 'out').iterdir()} == {
      'network.safetensors', 'architecture.json', 'network.stablehlo', 'network.onnx',
      'network.int8.onnx', 'examples.npz', 'samples.png', 'run_onnx.py', 'README.md',
      'proof.json', 'input.json', 'decode.py', 'picture_files.py', 'picture_folders.py'}
  assert [path.name for path in tmp_path.iterdir()] == ['out']
  for name, each in proof['artefacts'].items():
    assert each['ms'] > 0 and each['bytes'] == (tmp_path / 'out' / name).stat().st_size
    assert 0 < each['max_error'] < (2 if 'int8' in name else 1e-5)
    assert each['shapes'] == [[3, 16, 16, 3], [1, 16, 16, 3], [3, 20, 16, 3]]
  module, variables = nn.load(tmp_path / 'out/network.safetensors')
  assert module == SMALL
  with np.load(tmp_path / 'out/examples.npz') as stored:
    np.testing.assert_allclose(draw(module, variables, stored['input2']), stored['image2'],
                               atol=1e-5)
  card = (tmp_path / 'out/README.md').read_text()
  assert 'run: mine' in card and '`network.int8.onnx`' in card
  expires = proof['expires'].pop('network.stablehlo')
  assert proof['expires'] == {} and (expires['months_newer'], expires['weeks_older']) == (6, 3)
  said = ' '.join(card.split())
  for words in (f'`network.stablehlo` expires. jax {jax.__version__} with jaxlib '
                f'{jaxlib.__version__} wrote it on {proof["written"]}',
                f'so none after {expires["no_promise_after"]} promises',
                'does not expire: `network.safetensors` with `architecture.json`; `network.onnx` '
                '(operator set 17; ONNX'):
    assert words in said
  assert main.main(['export', f'--verify={tmp_path}/out']) == 0
  assert 'network.stablehlo' in capsys.readouterr().out
  # Without JAX and this package, from a photograph.
  with np.load(tmp_path / 'out/examples.npz') as stored:
    pixels = np.round((stored['input1'][0] + 1) * 127.5).astype(np.uint8)
  Image.fromarray(pixels).save(tmp_path / 'photograph.png')
  expected = draw(module, variables, pixels[None].astype(np.float32) / 127.5 - 1)[0]
  program = ('import runpy, sys; sys.modules.update(jax=None, flax=None, jaxgan_compress=None); '
             "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')")
  subprocess.run([sys.executable, '-c', program, tmp_path / 'out/run_onnx.py',
                  tmp_path / 'photograph.png', tmp_path / 'generated.png'], check=True)
  drawn = np.asarray(Image.open(tmp_path / 'generated.png'), np.float32)
  assert np.abs(drawn - (np.asarray(expected) + 1) * 127.5).max() < .51


class Tiny(linen.Module):
  """The smallest generator of pictures, in multiples of 4 from 8."""
  channels: int

  @linen.compact
  def __call__(self, x, train=False, axes=None):
    if x.shape[1] % 4 or x.shape[2] % 4:
      raise ValueError('multiples of 4')
    return jnp.tanh(linen.Conv(3, (3, 3))(x)), {}

  def example(self):
    return jnp.zeros((1, 8, 8, self.channels))


def runner(out):
  return runpy.run_path(str(out / 'run_onnx.py'))


@pytest.mark.parametrize('name, layout', [
    ('labels', 'NCHW'), ('dcgan of 28 px', 'NCHW'), ('resnet', 'NCHW')])
def test_the_program_of_every_kind_of_input_runs(name, layout, tmp_path):
  module, side = (Tiny(5), 12) if name == 'labels' else NETWORKS[name]
  variables, inputs = learnt(module), inputs_of(module, side)
  export.write_folder(BoundGenerator(variables, module), tmp_path / 'out', inputs[:1], to=('onnx',),
                      layout=layout)
  given, more = str(tmp_path / 'given.png'), []
  if name == 'labels':
    Image.fromarray(inputs[0][0].argmax(-1).astype(np.uint8)).save(given)
    expected, more = draw(module, variables, inputs[0][:1])[0], ['--no-edges']
  elif side:
    pixels = np.round((inputs[0][0] + 1) * 127.5).astype(np.uint8)
    Image.fromarray(pixels).save(given)
    expected = draw(module, variables, pixels[None].astype(np.float32) / 127.5 - 1)[0]
  else:
    given = '7'
    z = np.random.default_rng(7).standard_normal((1, 100), np.float32)
    expected = draw(module, variables, z)[0]
  assert runner(tmp_path / 'out')['main']([given, str(tmp_path / 'generated.png'), *more]) == 0
  drawn = np.asarray(Image.open(tmp_path / 'generated.png'), np.float32).reshape(expected.shape)
  assert np.abs(drawn - (np.asarray(expected) + 1) * 127.5).max() < .51
  assert (tmp_path / 'out/decode.py').is_file() == bool(side)
  assert side or '100 numbers, N(0, 1)' in (tmp_path / 'out/README.md').read_text()


@pytest.fixture(scope='module')
def exports(tmp_path_factory):
  """Networks that take pictures, known labels, unknown labels and latents: their folders."""
  root, found = tmp_path_factory.mktemp('exports'), {}
  for kind, channels, labels, bits in (
      ('pictures', 3, None, None), ('unknown', 5, None, None), ('planes', 5, None, 16),
      ('labels', 5, {'classes': 3, 'dont_care': True}, None)):
    module, found[kind] = Tiny(channels), root / kind
    export.write_folder(BoundGenerator(learnt(module), module), root / kind,
                        inputs_of(module, 32)[:1], to=('onnx',), labels=labels, bits=bits)
  found['latents'] = shutil.copytree(root / 'pictures', root / 'latents')
  (root / 'latents/input.json').write_text('{"kind": "latents", "channels": 9, "layout": "NHWC"}')
  return found


def read_by(out, monkeypatch):
  """How the code next to an export's runner reads a file: (file, takes, instances) -> input."""
  folders = runner(out)['_module']('picture_folders')

  def read(file, takes, instances=None):
    reader = folders.Reader(folders.Takes(**takes), folders.Options(), instances)
    return reader.read(folders.Job(Path(file), Path(file), 'it'))[0]
  return read


@pytest.mark.essential
def test_the_exported_runner_and_training_read_every_kind_of_file_equally(
    exports, tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  read_file, takes = read_by(exports['pictures'], monkeypatch), {'kind': 'pictures', 'channels': 3}
  read = [*files.picture_files()]
  assert len(read) > 40
  for i, (_, content, *_) in enumerate(read):
    file = tmp_path / 'all' / f'{i:03}.png'
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
  source = data.folder(file.parent, same_size=False, preprocess='none', flip=False)
  for i, (kind, *_) in enumerate(read):
    trained = np.asarray(core.normalise({'image': jnp.asarray(source[i]['image'])[None]})['image'])
    found = read_file(source.records[i]['image'], takes)
    if found.dtype == np.uint8:
      np.testing.assert_allclose(found[None] / 127.5 - 1, trained, atol=1e-6, err_msg=kind)
    else:  # 16 bits stay
      np.testing.assert_allclose(found[None] / 32767.5 - 1, trained, atol=1 / 255, err_msg=kind)


def test_the_exported_runner_and_training_see_the_same_planes(exports, tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  read_file = read_by(exports['labels'], monkeypatch)
  takes = {'kind': 'labels', 'channels': 257, 'classes': 255, 'edges': True, 'dont_care': True}
  read = [(kind, content) for kind, content, expected in files.label_files()
          if expected.min() >= 0 and expected.max() < 256]
  instances = files.numbers(16)
  for i, (_, content) in enumerate(read):
    for folder, what in (('label', content), ('inst', files.pillow(instances)),
                         ('img', files.pillow(np.zeros((6, 10, 3), np.uint8)))):
      file = tmp_path / f'train_{folder}' / f'{i:03}.png'
      file.parent.mkdir(exist_ok=True)
      file.write_bytes(what)
  arguments = {'preprocess': 'none', 'flip': False, 'classes': 255, 'dont_care': True}
  for given in (file.parent.with_name('train_inst'), None):
    source = data.labels(tmp_path, **arguments)
    for i, (kind, _) in enumerate(read):
      element = {name: x[None] for name, x in source[i].items()}
      trained = np.asarray(source.prepare(element)['source'])
      found = read_file(source.records[i]['label_map'], takes, given and given / f'{i:03}.png')
      np.testing.assert_array_equal(found[None], trained, kind)
    shutil.rmtree(tmp_path / 'train_inst', ignore_errors=True)


def test_edges_and_void_reach_the_exported_network(exports, tmp_path):
  module = Tiny(5)
  rng, drawing = np.random.default_rng(0), tmp_path / 'generated.png'
  labels = rng.choice([0, 1, 2, 255], (12, 16)).astype(np.uint8)
  instances = rng.integers(0, 70_000, (3, 4)).repeat(4, 0).repeat(4, 1).astype(np.int32)
  Image.fromarray(labels).save(tmp_path / 'labels.png')
  Image.fromarray(instances).save(tmp_path / 'instances.tif')
  seen = {}
  for name, whose, more in (('instances', instances, [f'--instances={tmp_path}/instances.tif']),
                            ('labels', labels, [])):
    planes = np.asarray(data.planes(np.where(labels == 255, 3, labels)[None],
                                    decode.instance_edges(whose)[None], 4))
    expected = (np.asarray(draw(module, learnt(module), planes))[0] + 1) * 127.5
    assert not runner(exports['labels'])['main'](
        [f'{tmp_path}/labels.png', str(drawing), '--overwrite', *more])
    seen[name] = np.asarray(Image.open(drawing), np.float32)
    assert np.abs(seen[name] - expected).max() < .51
  assert np.abs(seen['instances'] - seen['labels']).max() > 10


@pytest.mark.parametrize('kind, arguments, said', [
    ('pictures', 'nowhere.png out.png', 'nowhere.png is not there; give a file'),
    ('pictures', 'good.png out.png --size=0', 'invalid _size value'),
    ('pictures', 'good.png out.png --format=psd', "format='psd'; one of png"),
    ('pictures', 'good.png out.png --quality=0', 'quality=0; 1 to 100'),
    ('pictures', 'good.png small.png', 'output files exist and were not generated'),
    ('pictures', 'text.png out.png', 'text.png: it is no image file (JPEG, PNG'),
    ('pictures', 'half.png out.png', 'half.png: it is damaged'),
    ('pictures', 'good.png', 'required: output'),
    ('pictures', 'good.png out.png more.png', 'unrecognized arguments: more.png'),
    ('pictures', 'good.png out.psd', '.psd is no suffix of an image that can be written'),
    ('pictures', 'good.png good.png', 'good.png is an input and would be'),
    ('labels', 'labels.png labels.png', 'labels.png is an input and would be'),
    ('labels', 'labels.png out.png --instances=good.png', 'good.png is a picture of mode RGB'),
    ('labels', 'labels.png out.png --instances=odd_labels.png', 'labels.png has 32x32 pixels, and '
     'its instance map 30x34'),
    ('labels', 'labels.png instances.png out.png', 'unrecognized arguments: out.png'),
    ('labels', 'three.png out.png', 'three.png: labels 3 are not among 0 to 2 or 255'),
    ('labels', 'good.png out.png', 'good.png is a picture of mode RGB'),
    ('unknown', 'labels.png out.png', 'required: --edges/--no-edges'),
    ('unknown', 'labels.png out.png --no-edges --instances=labels.png', 'takes no instances'),
    ('unknown', 'void.png out.png --edges', 'void.png: labels 255 are not among 0 to 3'),
    ('labels', 'void.png out.png --no-edges', 'unrecognized arguments: --no-edges'),
    ('latents', 'x out.png', "invalid int value: 'x'"),
    ('latents', '-1 out.png', 'seed -1; a whole number from 0')])
def test_the_runner_says_what_it_takes(kind, arguments, said, exports, tmp_path, monkeypatch,
                                       capsys):
  monkeypatch.chdir(tmp_path)
  for name, x in (('good', np.zeros((32, 32, 3), np.uint8)), ('small', np.zeros((4, 4), np.uint8)),
                  ('odd', np.zeros((30, 34, 3), np.uint8)), ('three', np.full((32, 32), 3, 'u1')),
                  ('labels', np.zeros((32, 32), np.uint8)), ('void', np.full((32, 32), 255, 'u1')),
                  ('odd_labels', np.zeros((30, 34), np.uint8))):
    Image.fromarray(x).save(f'{name}.png')
  Path('text.png').write_text('hello')
  Path('half.png').write_bytes(Path('good.png').read_bytes()[:60])
  before = {path: path.read_bytes() for path in tmp_path.iterdir()}
  with pytest.raises(SystemExit, match='2'):
    runner(exports[kind])['main'](arguments.split())
  told = capsys.readouterr().err
  assert said in told.splitlines()[-1] and 'usage: run_onnx.py' in told
  assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_runner_generates_from_a_folder(exports, tmp_path, capsys):
  folder = tmp_path / 'in'
  (folder / 'sub').mkdir(parents=True)
  picture = np.random.default_rng(0).integers(0, 256, (30, 34, 3), np.uint8)
  for name in ('a.png', 'sub/b.png'):
    Image.fromarray(picture).save(folder / name)
  (folder / 'notes.txt').write_text('hello')
  main_of, arguments = runner(exports['pictures'])['main'], [str(folder), str(tmp_path / 'out')]
  assert main_of(arguments) == 0
  assert '2 images in' in (said := capsys.readouterr().out) and 'other files left out: 1' in said
  module = Tiny(3)
  padded = np.pad(picture, ((0, 2), (0, 2), (0, 0)), 'reflect')[None] / np.float32(127.5) - 1
  expected = (np.asarray(draw(module, learnt(module), padded))[0, :30, :34] + 1) * 127.5
  for name in ('a.png', 'sub/b.png'):
    assert np.abs(np.asarray(Image.open(tmp_path / 'out' / name)) - expected).max() < .51
  (folder / 'c.png').write_bytes(b'x')
  assert main_of(arguments) == 1
  said = capsys.readouterr()
  assert '0 images in' in said.out and '2 skipped' in said.out
  assert 'c.png: it is no image file' in said.err


@pytest.mark.parametrize('package', ['numpy', 'PIL', 'onnxruntime'])
def test_the_runner_says_what_is_not_installed(package, exports, monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, package, None)
  with pytest.raises(SystemExit, match='2'):
    runner(exports['latents'])['main'](['1', 'out.png'])
  assert f'{package} is not installed; pip install numpy' in capsys.readouterr().err


def test_an_export_says_what_it_takes(exports, tmp_path, monkeypatch):
  card = {kind: (out / 'README.md').read_text() for kind, out in exports.items()}
  assert 'RGB pictures in [-1, 1]' in card['pictures']
  assert 'one for each label from 0 to 2, one for 255' in card['labels']
  assert '`python run_onnx.py labels.png generated.png --instances=instances.png`' in card['labels']
  assert '`--no-edges` that it is a label' in card['unknown']
  for out in exports.values():
    assert (out / 'decode.py').read_text() == Path(decode.__file__).read_text()
  monkeypatch.syspath_prepend(exports['labels'])
  assert '5 planes in [-1, 1] (a number of 16 bits / 32767.5 - 1)' in card['planes']
  for kind, shape in (('pictures', (1, 8, 8, 3)), ('labels', (1, 8, 8, 5)),
                      ('planes', (1, 8, 8, 5))):
    Image.new('L', (8, 8)).save(tmp_path / 'labels.png')
    np.save(tmp_path / 'planes.npy', np.full((8, 8, 5), 65535, np.uint16))
    for name in ('photograph.png', 'instances.png'):
      shutil.copy(tmp_path / 'labels.png', tmp_path / name)
    monkeypatch.chdir(tmp_path)
    names, lines = {}, card[kind].split('```python\n')[1].partition('\n\n')[0]
    exec(lines, names)
    assert names['x'].shape == shape and names['x'].dtype == np.float32
    assert kind != 'planes' or (names['x'] == 1).all()
  with pytest.raises(ValueError, match='make 4 planes, and the network takes 3'):
    write(exports['labels'].with_name('wrong'), labels={'classes': 3})
  with pytest.raises(ValueError, match='bits=12; 8 or 16, of the pictures'):
    write(exports['labels'].with_name('wrong'), bits=12)


def test_what_draws_something_else_is_not_kept(tmp_path, monkeypatch):
  other = export.to_onnx(SMALL, learnt(SMALL, 1), (1, 16, 16, 3))
  monkeypatch.setattr(folders.onnx, 'to_onnx', lambda *_: other)
  with pytest.raises(export.ExportError, match='network.onnx generates something else'):
    write(tmp_path / 'out')
  assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
  write(tmp_path / 'out', to=('stablehlo',))
  before = (tmp_path / 'out/proof.json').read_text()

  def full(*_):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(Path, 'write_bytes', full)
  with pytest.raises(OSError, match='No space left'):
    write(tmp_path / 'out', overwrite=True)
  assert [path.name for path in tmp_path.iterdir()] == ['out']
  assert (tmp_path / 'out/proof.json').read_text() == before


def test_an_artefact_that_was_edited_is_noticed(tmp_path):
  write(tmp_path / 'out')
  path = tmp_path / 'out/network.onnx'
  path.write_bytes(path.read_bytes()[:-1] + b'x')
  with pytest.raises(export.ExportError, match='network.onnx is not what was exported'):
    export.verify(tmp_path / 'out')
  path.unlink()
  with pytest.raises(export.ExportError, match='network.onnx is missing'):
    export.verify(tmp_path / 'out')
  proof = tmp_path / 'out/proof.json'
  proof.write_text(proof.read_text()[:100])
  with pytest.raises(export.ExportError, match='has been changed'):
    export.verify(tmp_path / 'out')
  with pytest.raises(FileNotFoundError, match='holds no export'):
    export.verify(tmp_path)


def test_what_jax_promises_is_counted_from_its_release():
  life = stablehlo.lifetime(datetime.date(2026, 3, 1))  # 184 days until 1 September
  assert life == {'jax': jax.__version__, 'jaxlib': jaxlib.__version__, 'months_newer': 6,
                  'weeks_older': 3, 'no_promise_after': '2026-09-01'}
  proof = {'written': '2026-03-01', 'expires': {'network.stablehlo': life},
           'artefacts': {'network.stablehlo': {}, 'network.tflite': {}}}
  card = ' '.join(folders._expiry(proof, True).split())
  assert '`network.tflite` (new versions of LiteRT read old files)' in card and 'ONNX' not in card


def test_an_artefact_that_expired_says_what_to_do(tmp_path, monkeypatch, capsys):
  folder = tmp_path / 'an export'
  proof = write(folder, to=('stablehlo',))
  path = folder / 'network.stablehlo'
  written = path.read_bytes()
  wrong = {'empty': b'', 'of another program': b'hello', 'half': written[:len(written) // 2],
           'zeros': bytes(1000), 'unknown StableHLO': written.replace(b'ML\xefR', b'MLxx')}
  for name, artefact in wrong.items():
    assert artefact != written, name
    path.write_bytes(artefact)
    proof['sha256'][path.name] = hashlib.sha256(artefact).hexdigest()
    (folder / 'proof.json').write_text(json.dumps(proof))
    with pytest.raises(export.ExportError, match=f'cannot be read by jax {jax.__version__}'):
      export.verify(folder)

  monkeypatch.setitem(sys.modules, 'jax._src.export.serialization', None)
  with pytest.raises(ImportError):  # which is no reason to export again
    export.verify(folder)
  monkeypatch.undo()
  monkeypatch.setattr(jax.export, 'deserialize', expired)
  proof['versions']['jax'] = '0.4.30'
  (folder / 'proof.json').write_text(json.dumps(proof))
  assert main.main(['export', f'--verify={folder}']) == 2
  said = capsys.readouterr().err
  monkeypatch.undo()
  assert '--size=16x16 --bits=8 --to=stablehlo --output=' in said
  for words in ('network.stablehlo cannot be read by jax', 'older than the 6-month window',
                'was written by jax 0.4.30', 'up to 6 months older or 3 weeks newer',
                'Install jax 0.4.30, or export again', 'do not expire'):
    assert words in said
  command = said.strip().split('jaxgan-compress ')[-1].replace('NEW_FOLDER', f'{tmp_path}/new')
  assert main.main(shlex.split(command)) == 0  # the advice can be followed
  assert export.verify(tmp_path / 'new').keys() == {'network.stablehlo'}


def test_bad_input_is_refused(tmp_path, monkeypatch, capsys):
  def refused(*args):
    assert main.main(['export', *map(str, args)]) == 2
    return capsys.readouterr().err

  nn.save(tmp_path / 'net.safetensors', SMALL, learnt(SMALL))
  network, out = f'--network={tmp_path}/net.safetensors', f'--output={tmp_path}/out'
  assert 'give one of them' in refused()
  assert 'needs --output' in refused(network, '--size=16')
  assert '--int8 is for --workdir' in refused(network, '--size=16', out, '--int8')
  assert 'needs --size' in refused(network, out)
  assert 'takes multiples of 4 from 8 and got 17x17' in refused(network, out, '--size=17')
  assert 'to=coreml; some of stablehlo, onnx' in refused(network, out, '--size=16', '--to=coreml')
  (tmp_path / 'out').mkdir()
  assert 'is there; use another folder' in refused(network, out, '--size=16')
  assert 'is no export' in refused(network, out, '--size=16', '--overwrite')
  (tmp_path / 'out').rmdir()
  disc = nn.PatchGAN(2, layers=1)
  nn.save(tmp_path / 'disc.safetensors', disc, nn.initialise(disc, jax.random.key(0)))
  assert 'generates no images' in refused(
      f'--network={tmp_path}/disc.safetensors', '--size=16', out)
  for package, extra in (('onnx', 'ONNX needs the extra'), ('flatbuffers', 'StableHLO needs'),
                         ('onnxruntime', 'running an ONNX network needs')):
    monkeypatch.setitem(sys.modules, package, None)
    assert extra in refused(network, out, '--size=16')
    monkeypatch.undo()
  assert not (tmp_path / 'out').exists()
  assert main.main(['export', network, out, '--size=16', '--layout=NCHW']) == 0
  assert json.loads((tmp_path / 'out/proof.json').read_text())['layout'] == 'NCHW'


def test_one_pixel_that_is_off_is_too_many(tmp_path, monkeypatch):
  load = export.bundle._load
  spike = lambda y: y + .01 * (np.arange(y.size).reshape(y.shape) == 0)
  monkeypatch.setattr(export.bundle, '_load', lambda path, layout: (
      lambda x, run=load(path, layout): spike(run(x))))
  with pytest.raises(export.ExportError, match='off by 0.01 at most'):
    export.write_folder(BoundGenerator(learnt(SMALL), SMALL), tmp_path / 'out',
                        inputs_of(SMALL, 16), to=('stablehlo',))
