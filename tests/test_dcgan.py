"""The DCGAN family: counts of the paper, equal implementations, PyTorch's numbers."""

import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

import jaxgan_compress as jgc
from jaxgan_compress import convert, nn
from jaxgan_compress.nn import layers
from jaxgan_compress.nn.init import shapes
from tests.conftest import largest_difference

PUBLISHED = {2: 28351, 4: 62077, 8: 145657, 16: 377329, 32: 1098721, 48: 2164177, 64: 3573697,
             128: 12652417}


def count(d, convention, channels=1, size=64):
  return jgc.count_params(shapes(nn.DCGANGenerator(d=d, channels=channels, size=size)), convention)


def run(module, variables, x, **more):
  return jax.jit(lambda variables, x: module.apply(variables, x, **more))(variables, x)


@pytest.mark.parametrize('d, published', PUBLISHED.items())
def test_paper_count_is_the_published_one(d, published):
  assert count(d, 'paper') == published
  assert count(d, 'paper', channels=3) == published  # the paper counts one channel for colour too


def test_published_ratios():
  def ratios(teacher, ds):
    return [round(count(teacher, 'paper') / count(d, 'paper')) for d in ds]

  assert ratios(256, (2, 4, 8, 16, 32, 64, 128)) == [1669, 762, 325, 125, 43, 13, 4]
  assert ratios(64, (2, 4, 8, 16, 32, 48)) == [126, 58, 25, 9, 3, 2]
  assert ratios(128, (2, 4, 8, 16, 32, 48)) == [446, 204, 87, 34, 12, 6]


def test_true_count_adds_norms_and_colour():
  d = 4
  assert count(d, 'all') == PUBLISHED[d] + 30 * d
  assert count(d, 'all', channels=3) == PUBLISHED[d] + 30 * d + 32 * d + 2
  assert [count(d, 'paper', size=32) for d in (16, 4, 2)] == [143729, 28253, 13487]
  with pytest.raises(ValueError, match='one of all, paper, cat'):
    count(d, 'papr')


def test_discriminator_counts():
  for d, published in {2: 3007, 4: 11389, 16: 174577, 64: 2762689}.items():
    assert jgc.count_params(shapes(nn.DCGANDiscriminator(d=d), jnp.zeros((1, 64, 64, 1))),
                            'paper') == published


def test_macs_count_transposed_convolutions_on_their_input():
  # By hand: 100*64*16 + 16*16*64*32 + 64*16*32*16 + 256*16*16
  assert jgc.macs(nn.DCGANGenerator(d=16, size=32)) == 102400 + 524288 + 524288 + 65536
  reference = jgc.macs(nn.DCGANGenerator(d=16, size=32, implementation='transpose'))
  assert reference == jgc.macs(nn.DCGANGenerator(d=16, size=32, implementation='subpixel'))


@pytest.mark.parametrize('size', [28, 32, 64])
@pytest.mark.parametrize('channels', [1, 3])
def test_shapes_and_range(size, channels):
  G = nn.DCGANGenerator(d=1, channels=channels, size=size)
  D = nn.DCGANDiscriminator(d=1, size=size)
  z = np.random.default_rng(0).standard_normal((2, 100), np.float32)
  image, taps = run(G, nn.initialise(G, jax.random.key(1), z), z)
  assert image.shape == (2, size, size, channels) and image.dtype == jnp.float32
  assert float(jnp.abs(image).max()) <= 1
  assert taps['layer1'].shape == (2, 4, 4, 8 if size == 64 else 4)
  logits, taps = jax.eval_shape(D.apply, shapes(D, image), image)
  assert logits['real'].shape == (2, 1) and taps['layer1'].shape == (2, *(image.shape[1] // 2 + (
      2 if size == 28 else 0),) * 2, 1)


def test_upsample_parameters_are_those_of_flax():
  rng = np.random.default_rng(0)
  x = rng.standard_normal((2, 4, 4, 3), np.float32)
  theirs = linen.ConvTranspose(5, (4, 4), (2, 2), 'SAME')
  variables = jax.tree.map(lambda x: rng.standard_normal(x.shape, np.float32) / 8,
                           shapes(theirs, x))
  np.testing.assert_allclose(run(theirs, variables, x), run(layers.UpConv(5), variables, x),
                             atol=1e-5)


def torch_conv_transpose(x, weight, bias, stride, padding):
  """PyTorch's ConvTranspose2d by its definition: every input pixel scatters a scaled kernel."""
  H, W = x.shape[2:]
  out = np.zeros((len(x), weight.shape[1], stride * (H - 1) + 4, stride * (W - 1) + 4))
  for i in range(H):
    for j in range(W):
      out[:, :, stride * i:stride * i + 4, stride * j:stride * j + 4] += np.einsum(
          'bc,cokl->bokl', x[:, :, i, j], weight)
  end = -padding or None
  return out[:, :, padding:end, padding:end] + bias[None, :, None, None]


def torch_generator(state, z):
  """PyTorch's DCGAN generator in inference mode, in NumPy."""
  x = z[:, :, None, None]
  last = sum('_bn' not in name and name.endswith('weight') for name in state)
  for i in range(1, last + 1):
    x = torch_conv_transpose(x, state[f'deconv{i}.weight'], state[f'deconv{i}.bias'],
                             *((1, 0) if i == 1 else (2, 1)))
    if i < last:
      norm = {key: state[f'deconv{i}_bn.{key}'][None, :, None, None]
              for key in ('weight', 'bias', 'running_mean', 'running_var')}
      x = (x - norm['running_mean']) / np.sqrt(norm['running_var'] + 1e-5)
      x = np.maximum(x * norm['weight'] + norm['bias'], 0)
  return np.tanh(x).transpose(0, 2, 3, 1)


@pytest.mark.gpu
@pytest.mark.parametrize('impl', ['transpose', 'subpixel'])
def test_pytorch_weights_give_pytorch_images(impl):
  rng = np.random.default_rng(0)
  d, state = 2, {}
  widths = [100, 8 * d, 4 * d, 2 * d, d, 1]
  for i, (c_in, c_out) in enumerate(itertools.pairwise(widths), 1):
    state[f'deconv{i}.weight'] = 0.2 * rng.standard_normal((c_in, c_out, 4, 4))
    state[f'deconv{i}.bias'] = rng.standard_normal(c_out)
    if i < 5:
      for key in ('weight', 'bias', 'running_mean'):
        state[f'deconv{i}_bn.{key}'] = rng.standard_normal(c_out)
      state[f'deconv{i}_bn.running_var'] = rng.random(c_out) + 0.5
  z = rng.standard_normal((3, 100))
  module, variables = convert.from_torch(state)
  assert module == nn.DCGANGenerator(d=d)
  draw = jax.jit(nn.DCGANGenerator(d=d, implementation=impl).apply)
  image, _ = draw(variables, z.astype(np.float32))
  np.testing.assert_allclose(image, torch_generator(state, z), atol=1e-5)
  state['deconv2.weight'] = state['deconv2.weight'][..., ::-1]  # the test sees a mirrored kernel
  wrong, _ = draw(convert.from_torch(state)[1], z.astype(np.float32))
  assert np.abs(wrong - image).max() > 0.01


def test_batch_norm_has_pytorch_semantics():
  x = np.random.default_rng(0).standard_normal((6, 3, 3, 2)).astype(np.float32) + 5
  norm = nn.BatchNorm()
  variables = {'params': {'scale': np.ones(2, np.float32), 'bias': np.zeros(2, np.float32)},
               'batch_stats': {'mean': np.zeros(2, np.float32), 'var': np.ones(2, np.float32),
                               'count': np.zeros((), np.int32)}}
  assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, jax.eval_shape(
      lambda: norm.init(jax.random.key(0), x, True)))
  y, new = run(norm, variables, x, train=True, mutable=['batch_stats'])
  flat = x.reshape(-1, 2).astype(np.float64)
  np.testing.assert_allclose(y.reshape(-1, 2), (flat - flat.mean(0)) / np.sqrt(
      flat.var(0) + 1e-5), atol=1e-5)
  stats = new['batch_stats']
  np.testing.assert_allclose(stats['mean'], 0.1 * flat.mean(0), rtol=1e-5)
  np.testing.assert_allclose(stats['var'], 0.9 + 0.1 * flat.var(0, ddof=1), rtol=1e-5)
  stats = jax.tree.map(np.asarray, stats)
  inferred = run(norm, {'params': variables['params'], **new}, x, train=False)
  np.testing.assert_allclose(inferred.reshape(-1, 2), (flat - stats['mean']) / np.sqrt(
      stats['var'] + np.float64(1e-5)), rtol=1e-4)


def test_drawing_does_not_depend_on_the_rest_of_the_batch(init_from):
  G = nn.DCGANGenerator(d=2, size=32)
  z, variables = np.random.default_rng(0).standard_normal((4, 100), np.float32), \
      init_from['teacher'].variables
  together, alone = (run(G, variables, x)[0] for x in (z, z[2:3]))
  np.testing.assert_allclose(together[2:3], alone, atol=1e-6)
  trained = [np.asarray(run(G, variables, x, train=True, mutable=['batch_stats'])[0][0])
             for x in (z, z[2:3])]
  assert np.abs(trained[0][2:3] - trained[1]).max() > 1e-3


@pytest.mark.gpu
def test_bfloat16_computes_in_bfloat16_and_keeps_float32_weights():
  z = np.random.default_rng(0).standard_normal((2, 100), np.float32)
  low, full = (nn.DCGANGenerator(d=2, size=32, dtype=dtype) for dtype in ('bfloat16', 'float32'))
  variables = nn.initialise(low, jax.random.key(1), z)
  assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(variables['params']))
  image, taps = run(low, variables, z)
  assert taps['layer2'].dtype == jnp.bfloat16 and image.dtype == jnp.float32
  reference, _ = run(full, variables, z)
  assert 0 < np.abs(image - reference).max() < 0.05


def test_initialise_matches_the_modules_own_distribution():
  G = nn.DCGANGenerator(d=4, size=32)
  ours = nn.initialise(G, jax.random.key(0), G.example())
  theirs = jax.jit(G.init)(jax.random.key(0), G.example())
  assert jax.tree.structure(ours) == jax.tree.structure(theirs)
  kernel = ours['params']['layer1']['kernel']
  assert abs(float(kernel.std()) - 0.02) < 1e-3 and abs(float(kernel.mean())) < 1e-3
  assert float(jnp.abs(ours['params']['layer2']['kernel'].std() - 0.02)) < 1e-3
  untrained = jax.tree.map(lambda x: x[..., 0] if x.ndim > 1 else x, (
      ours['params']['norm1'], ours['batch_stats'], ours['params']['layer1']['bias']))
  expected = (theirs['params']['norm1'], theirs['batch_stats'], theirs['params']['layer1']['bias'])
  assert largest_difference(untrained, expected) == 0
  with pytest.raises(ValueError, match='init scheme'):
    nn.initialise(G, jax.random.key(0), G.example(), scheme='magic')


@pytest.mark.parametrize('make, said', [
    (lambda: nn.DCGANGenerator(d=2, size=48), '28, 32, 64'),
    (lambda: nn.DCGANGenerator(d=0), 'from 1'),
    (lambda: nn.DCGANDiscriminator(d=2, norm='batsh'), 'batch, layer, none')])
def test_impossible_networks_say_what_is_possible(make, said):
  module = make()
  x = jnp.zeros((1, 100)) if isinstance(module, nn.DCGANGenerator) else jnp.zeros((1, 64, 64, 1))
  with pytest.raises(ValueError, match=said):
    shapes(module, x)


@pytest.mark.gpu
@pytest.mark.parametrize('impl', ['transpose', 'subpixel'])
@pytest.mark.essential
def test_images_recorded_from_pytorch(impl):
  golden = np.load(Path(__file__).parent / 'golden' / 'dcgan_d1.npz')
  state = {name.removeprefix('state/'): golden[name] for name in golden if '/' in name}
  state |= {f'deconv{i}_bn.num_batches_tracked': np.array(1) for i in range(1, 5)}
  G, variables = convert.from_torch(state, implementation=impl)
  image, _ = run(G, variables, golden['z'])
  np.testing.assert_allclose(image, golden['images'].transpose(0, 2, 3, 1), atol=1e-5)
  # The running statistics were moved once, from 0 and 1, by the batch that `trained` shows.
  fresh = jax.tree.map(np.zeros_like, variables['batch_stats'])
  fresh = {name: {**each, 'var': each['var'] + 1} for name, each in fresh.items()}
  (image, _), new = run(G, {**variables, 'batch_stats': fresh}, golden['z'], train=True,
                        mutable=['batch_stats'])
  np.testing.assert_allclose(image, golden['trained'].transpose(0, 2, 3, 1), atol=1e-5)
  assert largest_difference(new['batch_stats'], variables['batch_stats']) < 1e-5


def test_the_frame_of_28_pixels_is_black():
  image = jax.random.uniform(jax.random.key(0), (2, 28, 28, 1), minval=-1)
  small, large = (nn.DCGANDiscriminator(1, size) for size in (28, 32))
  variables = nn.initialise(small, jax.random.key(1), image)
  framed = jnp.pad(image, ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=-1)
  np.testing.assert_array_equal(small.apply(variables, image)[0]['real'],
                                large.apply(variables, framed)[0]['real'])
