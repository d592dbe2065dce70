"""Every network against numbers recorded from the published PyTorch code (see `published.py`)."""

import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import errors, linen, nnx, traverse_util

import jaxgan_compress as jgc
from jaxgan_compress import convert, nn
from jaxgan_compress.core import Axes, BoundGenerator, xla
from jaxgan_compress.nn import layers
from jaxgan_compress.nn.generators.inceptions import Branches, InceptionBranches
from jaxgan_compress.nn.generators.spades import InceptionModulatedBlock, Modulation
from jaxgan_compress.nn.init import shapes
from jaxgan_compress.nn.layers import (
  blocks_tpu,
  conv_cpu,
  conv_dispatch,
  conv_tpu,
  few_channels_tpu,
  norms,
  upsample_cpu,
)
from tests import published
from tests.conftest import largest_difference
from tests.published import nchw, nhwc
from tests.test_convert import PRUNED_SPADE

HEADS = {'inputs': 6, 'heads': ('wide', 'deep')}


def forward(module, variables, x, train=False, **options):
  """(output, taps), new statistics."""
  run = functools.partial(module.apply, train=train, mutable=['batch_stats', 'spectral'], **options)
  return jax.jit(run)(variables, x)


def loaded(module, fill, **hints):
  """The module and its variables by way of a state dict, as a published file would come."""
  state = published.state_dict(module, fill)
  if len(getattr(module, 'heads', 'x')) > 1:  # the file also has copies that are never used
    every = {key.replace('s.1.', 's.0.') for key in state} | set(state)
    state = {key: fill(key, state.get(key, state[key.replace('s.0.', 's.1.')]).shape)
             for key in every}
  return convert.from_torch(state, **hints)


def normal(*shape, seed=0):
  return np.random.default_rng(seed).standard_normal(shape, np.float32)


def noise(module, *inputs, share=1.):
  """Variables of noise, without the initialisers, each of which would be compiled."""
  rng = np.random.default_rng(1)
  shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs))
  return jax.tree.map(lambda x: np.float32(share) * rng.standard_normal(x.shape, np.float32),
                      shapes)


# Smooth images, hashed weights, float64: deep stacks of norms lose digits in float32.
@pytest.mark.gpu
@pytest.mark.parametrize('module, shape, train, golden', [
    (nn.resnet(4, dropout=0.), (1, 3, 64, 64), False,
     (-0.035736, 0.563783, -0.805970, -0.204861, 0.234194)),
    (nn.mobile_resnet(4), (1, 3, 64, 64), False,
     (-0.028247, 0.560475, -0.930507, 0.902423, 0.115494)),
    (nn.mobile_deepest_resnet(4), (1, 3, 64, 64), False,
     (0.049288, 0.577629, -0.103486, -0.145910, 0.495870)),
    (nn.unet(4), (2, 3, 256, 256), False, (-0.055189, 0.403640, 0.016300, -0.068331, 0.173566)),
    (nn.unet(4), (2, 3, 256, 256), True, (-0.084283, 0.486980, 0.013744, -0.403047, 0.015205)),
    (nn.unet_deepest(2), (2, 3, 256, 256), True,
     (-0.158254, 0.639038, -0.534752, 0.123070, 0.000663)),
], ids=['resnet', 'mobile', 'deepest', 'unet', 'unet training', 'unet deepest training'])
def test_generators_of_omgd(module, shape, train, golden):
  with jax.enable_x64(True):
    found, variables = loaded(module, published.hashed_fill, dtype=jnp.float64)
    assert found.clone(dtype=jnp.float32) == module
    (image, _), _ = forward(found, variables, nhwc(published.wave(*shape, 0)), train)
  y = nchw(image)
  assert y.shape == shape
  np.testing.assert_allclose(
      (y.mean(), y.std(), y[0, 0, 0, 0], y[0, 1, 5, 7], y[-1, -1, -1, -1]), golden, atol=6e-7)


@pytest.mark.gpu
@pytest.mark.parametrize('module, batch, train, head, golden', [
    (nn.PatchGAN(8), 1, False, 'real', (-0.345587, 0.756228, -1.178500, -0.787675)),
    (nn.PatchGAN(8, shared=3, **HEADS), 1, False, 'wide',
     (0.586604, 0.821035, -0.138053, -0.632786)),
    (nn.PatchGAN(8, shared=3, **HEADS), 1, False, 'deep', (0.921084, 0.748229, 1.014276, 1.237622)),
    (nn.PatchGAN(8, shared=5, **HEADS), 1, False, 'wide', (0.921084, 0.748229, 1.014276, 1.237622)),
    (nn.PatchGAN(8, shared=5, **HEADS), 1, False, 'deep', (0.921084, 0.748229, 1.014276, 1.237622)),
    (nn.PatchGAN(8, shared=3, norm='batch', **HEADS), 2, True, 'wide',
     (0.588120, 0.774935, -0.153819, -0.131489)),
])
def test_discriminators_of_omgd(module, batch, train, head, golden):
  hints = {'shared': module.shared} if len(module.heads) > 1 else {}
  with jax.enable_x64(True):
    found, variables = loaded(module, published.hashed_fill, dtype=jnp.float64, **hints)
    assert found.clone(dtype=jnp.float32) == module
    x = nhwc(published.wave(batch, module.inputs, 64, 64, 0))
    (logits, _), _ = forward(found, variables, x, train)
    if module.inputs == 6:
      (beside, _), _ = forward(found, variables, x[..., 3:], train, condition=x[..., :3])
      np.testing.assert_array_equal(beside[head], logits[head])
  y = nchw(logits[head])
  assert y.shape == (batch, 1, 6, 6)
  np.testing.assert_allclose((y.mean(), y.std(), y[0, 0, 0, 0], y[-1, -1, -1, -1]), golden,
                             atol=6e-7)


def summary(y):
  y = nchw(y)
  return (y.mean(), y.std(), np.abs(y).mean(), *y.ravel()[:4])


# Noise images, normal weights, float32.
@pytest.mark.gpu
@pytest.mark.parametrize('norm, train, entries, golden', [
    ('instance_affine', False, 472,
     (0.1164826, 0.5597384, 0.5001437, 0.419299, -0.280739, 0.169608, 0.025584)),
    ('instance_affine', True, 472,
     (0.1164826, 0.5597384, 0.5001437, 0.419299, -0.280739, 0.169608, 0.025584)),
    ('batch', False, 617,
     (0.3153478, 0.8428186, 0.8669577, -0.992153, -0.999995, -0.964593, -0.996924)),
    ('batch', True, 617,
     (0.1174789, 0.5605451, 0.5011763, 0.424783, -0.181116, 0.052753, 0.250856)),
    ('batch_stat', False, 332,
     (0.1174789, 0.5605451, 0.5011763, 0.424783, -0.181116, 0.052753, 0.250856)),
    ('batch_stat', True, 332,
     (0.1174789, 0.5605451, 0.5011763, 0.424783, -0.181116, 0.052753, 0.250856)),
])
def test_inception_generator_of_cat(norm, train, entries, golden):
  module = nn.inception(16, norm=norm)
  found, variables = loaded(module, published.normal_fill)
  assert found == module and len(convert.to_torch(found, variables)) == entries
  (image, taps), new = forward(module, variables, nhwc(published.uniform(0, 2, 3, 64, 64)), train)
  np.testing.assert_allclose(summary(image), golden, atol=1e-4)
  if norm == 'instance_affine':
    for tap, mean, std in (('stem', 0.4125153, 0.6404024), ('block3', 0.377891, 1.8773211),
                           ('block6', 0.3608, 2.6190459), ('block9', 0.3378533, 3.1662901)):
      np.testing.assert_allclose((taps[tap].mean(), taps[tap].std()), (mean, std), atol=1e-4)
  if norm == 'batch' and train:
    stats = new['batch_stats']['stem0_norm']
    np.testing.assert_allclose(stats['var'].mean(), 1.1745431, atol=1e-5)
    np.testing.assert_allclose(stats['var'][:2], (1.229311, 1.05398), atol=1e-5)
    np.testing.assert_allclose(stats['mean'].mean(), 0.0074608, atol=1e-6)
    assert int(stats['count']) == 1


@pytest.mark.gpu
@pytest.mark.parametrize('slope, train, golden', [
    (0.01, False, (0.0711233, 0.8476401, 0.800797, -0.01598, 0.857943, 0.894898, 0.944306)),
    (0., False, (0.0702224, 0.8471439, 0.8001789, -0.003303, 0.860233, 0.897523, 0.941141)),
    (0., True, (0.1948271, 0.6358706, 0.5924288, -0.408087, 0.243244, 0.593111, 0.451483))])
def test_inception_spade_generator_of_cat(slope, train, golden):
  module = nn.inception_spade(16, slope=slope)
  found, variables = loaded(module, published.normal_fill, slope=slope)
  labels = published.blocky_labels()
  assert found == module and abs(labels.mean() - 0.0476091) < 1e-7
  (image, taps), _ = forward(module, variables, nhwc(labels), train)
  np.testing.assert_allclose(summary(image), golden, atol=2e-4 if train else 1e-4)
  if slope:
    inside = {'fc': (-0.0010188, 0.1793307), 'head': (-0.0153777, 0.4479375),
              'middle0': (-0.0026049, 0.6614458), 'middle1': (0.0175169, 1.0136845),
              'up0': (0.0661552, 1.5200763), 'up1': (0.2993742, 2.5191636),
              'up2': (0.698835, 3.4782697), 'up3': (0.8998745, 4.4220577)}
    assert taps.keys() == inside.keys()
    for name, golden in inside.items():
      np.testing.assert_allclose((taps[name].mean(), taps[name].std()), golden, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize('module, golden', [
    (nn.PatchGAN(64, norm='instance_affine'),
     (0.1806097, 0.7000344, 1.237504, 0.282411, 0.453283)),
    (nn.PatchGAN(128, inputs=6, norm='batch'),
     (0.0559554, 0.1024531, 0.118067, 0.165538, 0.127935))])
@pytest.mark.essential
def test_discriminators_of_cat(module, golden):
  found, variables = loaded(module, published.normal_fill)
  assert found == module
  x = nhwc(published.uniform(2, 2, module.inputs, 64, 64))
  y = nchw(forward(module, variables, x)[0][0]['real'])
  np.testing.assert_allclose((y.mean(), y.std(), *y.ravel()[:3]), golden, atol=1e-5)


def test_spectral_vectors_move_in_training_only():
  module = nn.MultiScale()
  found, variables = loaded(module, published.normal_fill)
  assert found == module
  x = nhwc(published.uniform(4, 2, 39, 64, 128))
  (still, taps), new = forward(module, variables, x)
  assert largest_difference(new['spectral'], variables['spectral']) == 0
  assert [len([t for t in taps if t.startswith(f'scale{i}')]) for i in (0, 1)] == [4, 4]
  for sigma, mean in ((1.0333107, -0.0363904), (1.1185207, -0.0363908)):
    (logits, _), new = forward(module, variables, x, train=True)
    variables = {**variables, **new}
    kernel = variables['params']['scale0_stage2']['kernel'].reshape(-1, 128)
    uv = variables['spectral']['scale0_stage2']
    np.testing.assert_allclose(uv['v'].reshape(-1) @ kernel @ uv['u'], sigma, atol=1e-6)
    y = nchw(logits['scale0'])
    np.testing.assert_allclose((y.mean(), *y.ravel()[:3]),
                               (mean, -0.124081, -0.180913, 0.322385), atol=1e-5)
  assert np.abs(logits['scale0'] - still['scale0']).max() > 1e-4


def test_spectral_norm_of_inception_spade_is_in_main_branches_and_shortcut():
  """There kernels are divided by u W v, nowhere else; training moves u and v."""
  three = nn.Branches(dense=((1, 2), (3, 2)), depthwise=((3, 2),))
  block = InceptionModulatedBlock(nn.InceptionSPADEBlock(3, three, three), 0., 'optimized',
                                  jnp.float32, True)
  rng = np.random.default_rng(0)
  inputs = rng.standard_normal((1, 4, 4, 2)), rng.standard_normal((1, 4, 4, 3))
  inputs = tuple(x.astype(np.float32) for x in inputs)
  call = jax.jit(lambda module, variables, train: module.apply(
      variables, *inputs, train, Axes(), mutable=['spectral', 'batch_stats']),
                 static_argnums=(0, 2))
  variables = jax.jit(block.init, static_argnums=(3, 4))(jax.random.key(0), *inputs, False, Axes())
  flat = traverse_util.flatten_dict(variables)
  normed = {path[1:-1] for path in flat if path[0] == 'spectral'}
  assert normed == {path[1:-1] for path in flat if path[-1] == 'kernel' and (
      path[1] in ('main', 'shortcut'))}
  divided = {path: x for path, x in flat.items() if path[0] != 'spectral'}
  for path in normed:
    u, v = (np.ravel(flat['spectral', *path, name]) for name in 'uv')
    kernel = flat['params', *path, 'kernel']
    divided['params', *path, 'kernel'] = kernel / (v @ kernel.reshape(-1, len(u)) @ u)
  expected, _ = call(block.clone(spectral=False), traverse_util.unflatten_dict(divided), False)
  found, rested = call(block, variables, False)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
  moved = call(block, variables, True)[1]['spectral']
  for before, still, after in zip(*map(jax.tree.leaves, (
      variables['spectral'], rested['spectral'], moved)), strict=True):
    assert (before == still).all() and ((before != after).any() or before.size == 1)


def test_no_gradient_flows_through_spectral_vectors():
  conv = layers.Conv(3, 1, spectral=True)
  x, weights = normal(1, 2, 2, 2), normal(1, 2, 2, 3, seed=2)
  variables = noise(conv, x)
  u, v = (x / np.linalg.norm(x) for x in (variables['spectral']['u'],
                                          variables['spectral']['v'].reshape(-1)))
  variables = {**variables, 'spectral': {'u': u, 'v': v.reshape(1, 1, 2)}}
  kernel = variables['params']['kernel'].reshape(2, 3)
  v = kernel @ u / np.linalg.norm(kernel @ u)
  u = kernel.T @ v / np.linalg.norm(kernel.T @ v)

  def ours(kernel):
    params = {**variables['params'], 'kernel': kernel.reshape(1, 1, 2, 3)}
    return (conv.apply({**variables, 'params': params}, x, train=True) * weights).sum()

  def by_hand(kernel):
    return (x @ (kernel / (v @ kernel @ u)) * weights).sum()

  # `apply` without the collection mutable still takes its step, as PyTorch's training mode does.
  np.testing.assert_allclose(*jax.jit(lambda kernel: (
      jax.grad(ours)(kernel), jax.grad(by_hand)(kernel)))(kernel), rtol=1e-5)


PARAMETERS = [
    (nn.resnet(64), 11_378_179), (nn.mobile_resnet(96), 4_418_307),
    (nn.mobile_resnet(64), 1_987_075), (nn.mobile_resnet(48), 1_130_883),
    (nn.mobile_resnet(24), 295_875), (nn.mobile_resnet(16), 137_347),
    (nn.mobile_resnet(12), 80_547), (nn.mobile_resnet(8), 38_723),
    (nn.mobile_deepest_resnet(24), 5_715_723), (nn.mobile_deepest_resnet(16), 2_547_123),
    (nn.mobile_deepest_resnet(12), 1_436_583), (nn.unet(64), 54_413_955),
    (nn.unet(48), 30_611_427), (nn.unet(16), 3_404_451), (nn.unet(12), 1_915_899),
    (nn.unet(8), 852_307), (nn.unet_deepest(16), 44_171_939), (nn.unet_deepest(12), 24_856_251),
    (nn.inception(64), 8_154_255), (nn.inception(64, norm='batch'), 8_136_389),
    (nn.inception(64, norm='batch_stat'), 8_136_389), (nn.inception_spade(64), 55_592_325),
    (nn.PatchGAN(64), 2_764_737), (nn.PatchGAN(64, norm='instance_affine'), 2_766_529),
    (nn.PatchGAN(128, inputs=6), 11_040_641), (nn.PatchGAN(96, inputs=6), 6_216_097),
    (nn.PatchGAN(128, inputs=6, norm='batch'), 11_042_433),
    (nn.PatchGAN(128, shared=3, **HEADS), 19_446_658),
    (nn.PatchGAN(128, shared=4, **HEADS), 11_057_026),
    (nn.PatchGAN(96, shared=3, **HEADS), 10_947_746),
    (nn.PatchGAN(96, shared=4, **HEADS), 6_228_386),
    (nn.PatchGAN(128, shared=3, norm='batch', **HEADS), 19_449_474),
    (nn.PatchGAN(128, shared=4, norm='batch', **HEADS), 11_058_818),
    (nn.PatchGAN(128, shared=0, **HEADS), 22_081_282),
    (nn.MultiScale(), 5_601_410), (nn.rrdbnet(), 16_697_987), (nn.rrdbnet(blocks=6), 4_467_779),
    (nn.srvgg(), 621_424)]


@pytest.mark.parametrize('module, published', PARAMETERS)
def test_parameters_are_as_many_as_published(module, published):
  assert jgc.count_params(shapes(module)) == published


GENERATORS = [  # and whether to draw, of each kind of block once
    (nn.resnet(4), (40, 52), False), (nn.mobile_resnet(4), (40, 52), False),
    (nn.mobile_deepest_resnet(4, 1), (40, 52), True), (nn.unet(4, depth=4), (32, 48), False),
    (nn.unet_deepest(2, depth=3, norm='instance'), (16, 24), True),
    (nn.inception(8, 1), (40, 52), True), (nn.spade(2, labels=5), (64, 128), False),
    (nn.spade(2, 'normal', labels=5), (32, 96), True),
    (nn.mobile_spade(2, 'most', labels=5), (128, 256), False),
    (nn.mobile_spade(2, 'normal', labels=5), (64, 32), True), (PRUNED_SPADE, (64, 128), True)]


@pytest.mark.parametrize('module, size, drawn', GENERATORS)
def test_generators_draw_any_valid_size_in_either_precision(module, size, drawn):
  x = normal(2, *size, module.example().shape[-1])
  variables = nn.initialise(module, jax.random.key(1), scheme='normal')
  assert all(leaf.dtype in (jnp.float32, jnp.int32) for leaf in jax.tree.leaves(variables))
  images = []
  for dtype in (jnp.float32, jnp.bfloat16):
    run = lambda variables, x, module=module.clone(dtype=dtype): module.apply(
        variables, x, train=True, mutable=['batch_stats', 'spectral'])[0]
    image, taps = (jax.jit(run) if drawn else functools.partial(jax.eval_shape, run))(variables, x)
    assert image.shape == (2, *size, 3) and image.dtype == jnp.float32
    assert taps and all(tap.dtype == dtype for tap in taps.values())
    images.append(image)
  if drawn:
    assert all(np.abs(image).max() <= 1 and np.isfinite(image).all() for image in images)
    assert 0 < np.abs(np.subtract(*images)).mean() < 0.05


@pytest.mark.parametrize('modules', [
    [nn.ResNetGenerator((2,) * (n + 1), (2,), (2,) * n, padding=mode)
     for n in (0, 1, 3) for mode in layers.PADDINGS] + [nn.ResNetGenerator(
         (2,), (2, 2), (), deeper=True, separable=True)],
    [nn.InceptionGenerator((1, 1, 1), (Branches(), Branches.even(1, kernels)), (1, 1), padding=mode)
     for kernels, mode in (((3, 5, 7), 'reflect'), ((1,), 'reflect'), ((11,), 'reflect'),
                           ((11,), 'zero'), ((9,), 'replicate'))],
    [nn.unet(1, 2), nn.unet(1, 6), nn.unet(1, 3, deeper=True)],
    [nn.PatchGAN(1, 1), nn.PatchGAN(1, 6), nn.MultiScale(1, 1, 1), nn.MultiScale(1, 2, 4)],
    [nn.SPADEGenerator(1, (nn.SPADEBlock(1, 1, 1),) * 7, 2, upsampling='normal'),
     nn.InceptionSPADEGenerator(16, tuple(
         nn.InceptionSPADEBlock(n, Branches.even(1, (11,)), Branches(((9, 1),)))
         for n in (16, 16, 16, 8, 4, 2, 1)), 2, upsampling='normal')],
], ids=lambda modules: type(modules[0]).__name__)
def test_the_example_is_large_enough_for_whatever_a_network_is_made_of(modules):
  """Sized by its kernels, paddings and depths, so that plans and initial values can be made."""
  for module in modules:
    x = jax.eval_shape(module.example)
    jax.eval_shape(module.apply, shapes(module), x)
    if isinstance(module, nn.ResNetGenerator | nn.InceptionGenerator):
      less = jax.ShapeDtypeStruct((1, *(np.subtract(x.shape[1:3], 1)), x.shape[3]), x.dtype)
      with pytest.raises(ValueError, match=f'from {x.shape[1]} and got'):
        jax.eval_shape(module.apply, shapes(module), less)
  assert not hasattr(module, 'plan') or module.plan().groups


def test_networks_say_what_they_take():
  class Own(linen.Module):
    latent: int = 3

  class Wrong(Own):
    input_kind = 'noise'

  class Bare(linen.Module):
    pass

  labels = nn.SPADEGenerator(1, (nn.SPADEBlock(1, 1, 1),) * 7, 2)
  for network, kind, channels in (
      (nn.resnet(2), 'image', 3), (nn.unet(2, 2, inputs=1), 'image', 1),
      (nn.inception(6), 'image', 3), (nn.PatchGAN(2, inputs=5), 'image', 5),
      (labels, 'labels', 2), (nn.InceptionSPADEGenerator(1, (), 4), 'labels', 4)):
    assert nn.input_kind(network) == network.input_kind == kind
    assert network.example(64).shape == (1, 64, 64, channels)
    assert network.example((64, 128)).shape == (1, 64, 128, channels)
  noise = nn.DCGANGenerator(1, size=32, latent=7)
  assert nn.input_kind(noise) == 'latent'
  assert noise.example().shape == noise.example(32).shape == (1, 7)
  with pytest.raises(ValueError, match='size=64; this generator makes images of 32x32'):
    noise.example(64)
  # A network of one's own need not say it.
  assert nn.input_kind(Own()) == 'latent' and nn.input_kind(Bare()) == 'image'
  with pytest.raises(ValueError, match="Wrong.input_kind='noise'; one of image, labels, latent"):
    nn.input_kind(Wrong())
  with pytest.raises(ValueError, match='Bare does not say what its input is; give it a method exa'):
    nn.initialise(Bare(), jax.random.key(0))


def test_a_drawer_can_be_jitted_with_its_weights():
  for module in (nn.DCGANGenerator(1, size=28, widths=(2, 3, 4)), nn.resnet(2, 1), nn.unet(1, 2),
                 nn.inception(6, 1), nn.spade(1, 'normal'), nn.inception_spade(16, 'normal')):
    draw = BoundGenerator({'params': {'kernel': np.ones(2)}}, module)
    assert hash(draw) == hash(draw) and draw == draw and draw != draw.replace(module=module)
    jax.jit(draw)  # of other weights: it could not be called
  module = nn.ResNetGenerator((1,), (1,), ())
  draw = BoundGenerator(nn.initialise(module, jax.random.key(0)), module)
  x = normal(2, 4, 4, 3)
  np.testing.assert_allclose(jax.jit(draw)(x), draw(x), atol=1e-6)
  assert jax.tree.structure(draw) == jax.tree.structure(jax.tree.map(jnp.copy, draw))


@pytest.mark.parametrize('module, shape, said', [
    (nn.resnet(4), (1, 30, 32, 3), 'multiples of 4 from 8 and got 30x32'),
    (nn.resnet(4), (1, 4, 8, 3), 'resize or crop to 8x8'),
    (nn.resnet(4), (1, 32, 32, 4), r'\[B,H,W,3\]'),
    (nn.unet(4), (1, 256, 300, 3), 'multiples of 256 from 256 and got 256x300'),
    (nn.inception(8), (1, 8, 8, 3), 'from 12'),
    (nn.spade(2), (1, 64, 100, 36), 'multiples of 64'),
    (nn.spade(2, 'most'), (1, 64, 128, 36), 'multiples of 128'),
    (nn.PatchGAN(4), (1, 20, 64, 3), 'from 24'),
    (nn.MultiScale(4), (1, 16, 64, 39), 'from 32'),
    (nn.VGG(16), (1, 4, 16, 3), 'from 8')])
def test_impossible_sizes_say_what_is_possible(module, shape, said):
  with pytest.raises(ValueError, match=said):
    jax.eval_shape(module.init, jax.random.key(0), jnp.zeros(shape))


@pytest.mark.parametrize('make, said', [
    (lambda: nn.resnet(4, norm='batsh'), 'instance_affine'),
    (lambda: nn.resnet(4, padding='mirror'), 'reflect, replicate'),
    (lambda: nn.resnet(4, implementation='quick'), 'reference, optimized'),
    (lambda: nn.ResNetGenerator((4, 8), (8,), (4, 4)), 'one more'),
    (lambda: nn.UNetGenerator((4, 8), (4, 4)), 'one fewer'),
    (lambda: nn.Branches(((3, 4), (3, 5))), 'each odd kernel'),
    (lambda: nn.Branches(((3, 0),)), 'leave a removed branch out'),
    (lambda: nn.spade(2, 'much'), 'normal, more, most'),
    (lambda: nn.PatchGAN(4, shared=6, **HEADS), 'from 0 to 5'),
    (lambda: nn.MultiScale(scales=0), 'at least one'),
    (lambda: nn.PatchGAN(heads=()), 'at least one'),
    (lambda: nn.ResNetGenerator((4, 8, 0), (8,), (4, 4)), 'stem2 would have 0 channels'),
    (lambda: nn.VGG(17), '16 or 19'),
    (lambda: nn.VGG(16, ('relu3_4',)), "no 'relu3_4'")])
def test_impossible_networks_say_what_is_possible(make, said):
  with pytest.raises(ValueError, match=said):
    shapes(make())


def test_an_empty_block_is_the_identity():
  blocks = (nn.Branches(), nn.Branches(((3, 4),)))
  module = nn.InceptionGenerator((4, 4, 4), blocks, (4, 4))
  variables = nn.initialise(module, jax.random.key(0))
  assert not any(name.startswith('block1') for name in variables['params'])
  (_, taps), _ = forward(module, variables, jnp.ones((1, 12, 12, 3)))
  np.testing.assert_array_equal(taps['block1'], taps['stem'])
  assert np.abs(taps['block2'] - taps['stem']).max() > 0


def test_statistics_of_all_replicas_are_one_batch():
  module = nn.unet(4, depth=3)
  variables = nn.initialise(module, jax.random.key(0), scheme='he')
  x = normal(4, 8, 8, 3)
  (together, _), stats = forward(module, variables, x, train=True)
  run = functools.partial(module.apply, train=True, axes=jgc.core.Axes(inner=('replica',)),
                          mutable=['batch_stats'])
  (apart, _), shared = jax.jit(jax.vmap(run, (None, 0), axis_name='replica'))(
      variables, x.reshape(2, 2, 8, 8, 3))
  np.testing.assert_allclose(apart.reshape(together.shape), together, atol=1e-5)
  assert largest_difference(jax.tree.map(lambda s: s[0], shared), stats) < 1e-5


# Forms -------------------------------------------------------------------------------------------


def both(run, *args, more=None, names=('reference', 'optimized')):
  """Outputs and gradients of `run(implementation, *args)` in both implementations, and
  `more(implementation, *args)`."""
  weights = normal(*jax.eval_shape(functools.partial(run, names[0]), *args).shape, seed=9)

  def one(implementation, *args):
    def loss(*args):
      y = run(implementation, *args)
      return (y * weights).sum(), y

    (_, y), slopes = jax.value_and_grad(loss, tuple(range(len(args))), has_aux=True)(*args)
    return y, slopes, more(implementation, *args) if more else ()

  return jax.jit(lambda *args: tuple(one(name, *args) for name in names))(*args)


@pytest.mark.gpu
@pytest.mark.parametrize('size', [(5, 6, 3), (1, 4, 3), (2, 3, 12), (5, 6, 60), (8, 9, 17),
                                  (8, 9, 64), (8, 9, 65)])
@pytest.mark.parametrize('kernel', [3, 4])
def test_implementations_of_transposed_convolution_agree(kernel, size, monkeypatch):
  height, width, depth = size
  features = 3 if depth == 17 else 5
  if depth == 65:  # what large maps take
    monkeypatch.setattr(upsample_cpu, 'LARGE', conv_cpu.SMALL)
  x = normal(2, *size)
  params = noise(layers.UpConv(features, kernel), x, share=(features * depth)**-.5)
  reference, optimized = both(lambda implementation, params, x: layers.UpConv(
      features, kernel, implementation=implementation).apply(params, x), params, x)
  assert reference[0].shape == (2, 2 * height, 2 * width, features)
  assert largest_difference(reference, optimized) < 3e-5


@pytest.mark.gpu
@pytest.mark.parametrize('conv', [
    *(layers.Conv(4, kernel, depthwise=True) for kernel in (1, 3, 5)),
    layers.Conv(5, 1), *(layers.Conv(features, 4, 2, 1) for features in (5, 6)),
    *(layers.Conv(features, 3, 2, mode='reflect') for features in (5, 6)),
    layers.Conv(3, 3, mode='reflect'), layers.Conv(3, 7, mode='reflect'), layers.Conv(1, 4, 1, 1),
    layers.Conv(5, 3, mode='reflect'),
    layers.Conv(conv_cpu.BROAD, 3, mode='reflect'), layers.Conv(conv_cpu.BROAD, 3)], ids=str)
def test_implementations_of_convolution_agree(conv):
  broad, few = conv.features >= conv_cpu.BROAD, conv.features <= conv_cpu.FEW and not conv.depthwise
  depth = conv_cpu.BROAD if broad else conv_cpu.NARROW + 1 if few else 4
  size = (16, 16) if broad else (17, 18) if conv.features == 6 else (7, 6)  # few pixels, and more
  x = normal(2, *size, depth)
  params = noise(conv, x, share=1 / (9 * depth if broad else conv.kernel ** 2 if few else 1))

  def slope_of_slope(implementation, params, x):
    """The gradient of a gradient, as a penalty on it needs."""
    loss = lambda x: jnp.square(conv.clone(implementation=implementation).apply(params, x)).sum()
    return jax.grad(lambda x: jnp.square(jax.grad(loss)(x)).sum())(x)

  run = lambda name, params, x: conv.clone(implementation=name).apply(params, x)
  reference, optimized = both(run, params, x, more=slope_of_slope)
  assert largest_difference(reference[:2], optimized[:2]) < 3e-5
  np.testing.assert_allclose(reference[2], optimized[2], rtol=1e-3, atol=1e-2)


def for_tpus(layer, params, x):
  """What `both` gives of the reference and of what the layer is on TPUs, and gradients by x of
  gradients."""
  def run(platform, params, x):
    with xla.building_for(platform) if platform else conv_dispatch.reference():
      return layer.apply(params, x)

  def slope_of_slope(platform, params, x):
    loss = lambda x: jnp.square(weighted(run(platform, params, x))).sum()
    return jax.grad(lambda x: jnp.square(jax.grad(loss)(x)).sum())(x)

  weighted = lambda y: normal(*y.shape, seed=8) * y  # norms keep the sum of squares
  return both(run, params, x, more=slope_of_slope, names=('', 'tpu'))


@pytest.mark.parametrize('layer, size', [
    *((layers.Conv(9, *sides), (2, 8, 9, 8)) for sides in (
        (1, 1, 0), (3, 1, 1), (4, 1, 1), (4, 1, 2), (7, 1, 3), (3, 2, 1), (4, 2, 1), (4, 2, 2))),
    (layers.Conv(8, 3, 2, 1), (1, 7, 6, conv_tpu.THIN)), (layers.Conv(5, 1), (2, 8, 9, 3)),
    *((layers.UpConv(9, kernel), (2, 5, 6, 3)) for kernel in (3, 4))], ids=str)
def test_products_for_tpus_equal_convolutions(layer, size, monkeypatch):
  equal_for_tpus(layer, size, monkeypatch, ('product',))


@pytest.mark.parametrize('layer, size', [
    *((layers.Conv(features, *sides, mode=mode), (2, 8, 9, depth))
      for depth, features in ((3, 9), (9, 2)) for mode in ('zero', 'reflect') for sides in (
          (3, 1, 1), (4, 2, 1), (7, 1, 3))),
    (layers.Conv(1, 4, 1, 1), (2, 8, 9, 9)), (layers.Conv(1, 1), (2, 8, 9, 9)),
    (layers.Conv(2, 3), (1, 7, 6, 3)), (layers.Conv(9, 4, padding=0), (2, 4, 4, 3)),
    *((layers.UpConv(3, kernel), (2, 5, 6, 9)) for kernel in (3, 4))], ids=str)
def test_few_channels_for_tpus_equal_convolutions(layer, size, monkeypatch):
  equal_for_tpus(layer, size, monkeypatch, ('_from_maps', '_to_maps'))


def equal_for_tpus(layer, size, monkeypatch, through):
  """Checks that a layer is the same on TPUs, where it takes one of these functions."""
  x, taken = normal(*size), []
  params = noise(layer, x, share=.2)
  # Of any kernel, for these maps are small.
  monkeypatch.setattr(conv_tpu, 'applies', lambda x, kernel, implementation, *larger: (
      conv_tpu.few_images(x, implementation)))
  for module in (few_channels_tpu, conv_tpu):
    for name in set(through) & vars(module).keys():
      monkeypatch.setattr(module, name, lambda *args, ours=getattr(module, name): (
          taken.append(True) or ours(*args)))

  reference, ours = for_tpus(layer, params, x)
  assert taken
  assert largest_difference(reference[:2], ours[:2]) < 3e-5
  np.testing.assert_allclose(reference[2], ours[2], rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize('layer, size', [
    (layers.Conv(3, 3, mode='replicate'), (2, 8, 9, 9)),
    (layers.Conv(3), (1, 2, few_channels_tpu.SIDE + 1, 9)),
    (layers.UpConv(3), (1, 2, few_channels_tpu.SIDE // 2 + 1, 9)),
    (layers.Conv(9), (conv_tpu.FEW_IMAGES, 4, 4, 3)),
    (layers.Conv(3, depthwise=True), (2, 8, 9, 3))], ids=str)
def test_few_channels_that_are_computed_otherwise(layer, size, monkeypatch):
  x = normal(*size)
  params = noise(layer, x, share=.2)
  monkeypatch.setattr(few_channels_tpu, '_reads', None)
  with xla.building_for('tpu'):
    ours = layer.apply(params, x)
  assert largest_difference(layer.apply(params, x), ours) < 3e-5


@pytest.mark.parametrize('module', [
    nn.resnet(4, 1, norm='batch'), nn.resnet(4, 1, bias=False), nn.inception(4, 1, bias=False)],
    ids=['batch', 'instance', 'inception'])
def test_networks_for_tpus_are_the_same(module, monkeypatch):
  variables = nn.initialise(module, jax.random.key(0), scheme='he')
  x, blocks = normal(2, 24, 32, 3), []
  monkeypatch.setattr(blocks_tpu, 'to_image', lambda *args, ours=blocks_tpu.to_image: (
      blocks.append(True) or ours(*args)))

  def loss(params, x):
    (y, _), moved = module.apply({**variables, 'params': params}, x, True,
                                 mutable=['batch_stats'])
    return jnp.square(y - .3).sum(), moved

  def run(platform):
    with xla.building_for(platform):
      return jax.jit(lambda params, x: (jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x),
                                        module.apply(variables, x)[0]))(variables['params'], x)

  plain, forms = run('gpu'), run('tpu')
  assert len(blocks) == 2  # in training and at rest, for the TPU alone
  for ours, theirs in zip(jax.tree.leaves(forms), jax.tree.leaves(plain), strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-3,
                               atol=2e-5 * max(1, float(jnp.abs(theirs).max())))


@pytest.mark.parametrize('layer, spread', [
    (layers.InstanceNorm(), 0), (layers.InstanceNorm(), 3), (layers.InstanceNorm(affine=True), 0),
    (layers.InstanceNorm(affine=True), 3), (layers.LayerNorm(), 1), (layers.LayerNorm(), 3)])
def test_norms_of_samples_for_tpus_equal_their_parts(layer, spread, monkeypatch):
  x = spread * normal(2, 5, 6, 4) + 1
  closed = []
  monkeypatch.setattr(norms, '_closed_by_sample', lambda *args, ours=(
      norms._closed_by_sample): closed.append(args) or ours(*args))
  reference, ours = for_tpus(layer, noise(layer, x), x)
  assert closed
  np.testing.assert_allclose(reference[0], ours[0], rtol=1e-5, atol=1e-5)
  for one, other in zip(*map(jax.tree.leaves, (reference[1:], ours[1:])), strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * float(jnp.abs(one).max()))


@pytest.mark.parametrize('images', [1, conv_tpu.FEW_IMAGES])
def test_branches_are_merged_on_tpus_where_images_are_many(images):
  with xla.building_for('tpu'):
    assert layers.merges(jnp.zeros((images, 4, 4, 8))) == (images > 1)
    assert not layers.merges(jnp.zeros((images, 4, 4, 8)), 'reference')


def test_products_of_short_numbers_are_summed_in_long_ones():
  x, kernel = normal(1, 8, 8, 64).astype(jnp.bfloat16), normal(3, 3, 64, 2).astype(jnp.bfloat16)
  exact = conv_cpu.convolution(*(value.astype(jnp.float32) for value in (x, kernel)), 1, 1)
  np.testing.assert_array_equal(conv_tpu.products(x, kernel, 1, 1),
                                exact.astype(jnp.bfloat16))


@pytest.mark.gpu
@pytest.mark.parametrize('branches, norm', [
    (Branches.even(3), 'batch'), (Branches.even(2), 'instance_affine'),
    (Branches(((3, 2),), ((1, 3), (5, 1))), 'batch'),
    (Branches(((1, 2),)), 'instance_affine'), (Branches(((5, 2),)), 'batch')])
def test_implementations_of_branches_agree(branches, norm):
  x = normal(2, 5, 6, 4)
  block = InceptionBranches(branches, 5, norm, norm, 'reflect', norm != 'batch')
  run = lambda implementation, params, x: block.clone(implementation=implementation).apply(
      {'params': params}, x, True, Axes(), mutable=['batch_stats'])[0]
  params = noise(block, x, True, Axes())['params']
  reference, optimized = both(run, params, x)
  assert largest_difference(reference, optimized) < 2e-4


@pytest.mark.gpu
@pytest.mark.parametrize('amount', [1, 2, 3])
def test_implementations_of_reflection_agree(amount):
  x = normal(2, 4, 7, 3)
  reference, optimized = both(lambda name, x: layers.pad(x, amount, 'reflect', name), x)
  assert largest_difference(reference, optimized) < 1e-6
  np.testing.assert_array_equal(reference[0][0, 0], reference[0][0, 2 * amount])  # the mirror
  np.testing.assert_array_equal(reference[0], optimized[0])
  with pytest.raises(ValueError, match='cannot be reflected'):
    layers.pad(x, 4, 'reflect')


@pytest.mark.gpu
@pytest.mark.parametrize('module', [nn.mobile_resnet(4, 2), nn.inception(8, 2), nn.unet(4, 3),
                                    nn.spade(2, labels=3, upsampling='normal', hidden=5)])
@pytest.mark.essential
def test_implementations_of_whole_networks_agree(module):
  variables = nn.initialise(module, jax.random.key(0), scheme='he')
  x = normal(1, 32, 32, 3)
  images = [forward(module.clone(implementation=name), variables, x)[0][0]
            for name in ('reference', 'optimized')]
  np.testing.assert_allclose(*images, atol=2e-5)


def test_forms_are_chosen_in_one_place():
  for op, (textbook, other, *_) in conv_dispatch.IMPLEMENTATIONS.items():
    assert conv_dispatch.choose(op, 'reference') == conv_dispatch.choose(op, textbook) == textbook
    assert conv_dispatch.choose(op, 'optimized') == conv_dispatch.choose(op, other) == other
    with conv_dispatch.reference():
      assert conv_dispatch.choose(op, 'optimized') == conv_dispatch.choose(op) == textbook
  with pytest.raises(ValueError, match='one of auto, reference, optimized, transpose, subpixel'):
    conv_dispatch.choose('upsample', 'magic')
  assert conv_dispatch.choose('reflect', 'grouped') == conv_dispatch.choose('reflect')


# Features, adapters, initial weights ------------------------------------------------------------


@pytest.mark.parametrize('depth', [16, 19])
def test_vgg_computes_what_is_asked_for_and_nothing_above(depth):
  names = nn.feature_nets.vgg.vgg_layers(depth)
  assert len(names) == depth - 3
  module = nn.VGG(depth, ('relu1_2', 'relu3_1'))
  variables = nn.initialise(module, jax.random.key(0), scheme='he')
  taps = module.apply(variables, jnp.ones((1, 16, 24, 3)))
  assert {name: tap.shape for name, tap in taps.items()} == {
      'relu1_2': (1, 16, 24, 64), 'relu3_1': (1, 4, 6, 256)}
  assert list(variables['params']) == ['conv1_1', 'conv1_2', 'conv2_1', 'conv2_2', 'conv3_1']


def test_what_is_remembered_of_a_network_is_of_one_precision():
  module, x = nn.Conv(2), normal(1, 3, 3, 1)
  for wide in (False, True, False):
    with jax.enable_x64(wide):
      assert {leaf.dtype for leaf in jax.tree.leaves(shapes(module, x))} == {
          np.dtype('float64' if wide else 'float32')}


def test_schemes_are_those_of_the_papers():
  module = nn.PatchGAN(64, norm='batch')
  normal, xavier = (nn.initialise(module, jax.random.key(0), scheme=scheme)['params']
                    for scheme in ('normal', 'xavier'))
  assert abs(float(normal['stage3']['kernel'].std()) - 0.02) < 1e-3
  # 64 -> 128 channels, 4x4: 0.02 sqrt(2 / (64 * 16 + 128 * 16))
  assert abs(float(xavier['stage2']['kernel'].std()) / 5.103e-4 - 1) < 0.02
  for params in (normal, xavier):
    scale = params['stage4_norm']['scale']
    assert abs(float(scale.std()) - 0.02) < 3e-3 and abs(float(scale.mean()) - 1) < 4e-3
    assert not params['stage2_norm']['bias'].any() and not params['stage1']['bias'].any()
  affine = nn.initialise(nn.PatchGAN(4, norm='instance_affine'), jax.random.key(0),
                         scheme='normal')['params']
  assert (affine['stage2_norm']['scale'] == 1).all()  # the published rule knows batch norm only
  spectral = nn.initialise(nn.MultiScale(4), jax.random.key(0), scheme='xavier')['spectral']
  for vector in jax.tree.leaves(spectral):
    assert abs(float(jnp.linalg.norm(vector)) - 1) < 1e-5


@pytest.mark.parametrize('affine', [True, False])
@pytest.mark.parametrize('replicas', [1, 2])
def test_gradients_of_batch_norm_are_those_of_its_parts(affine, replicas):
  """In closed form and by automatic differentiation of the plain formula, twice, over replicas."""
  random = np.random.default_rng(0)
  with jax.enable_x64(True):
    x, weight = (random.normal(size=(4, 3, 5, 2)) * 2 + 1 for _ in range(2))
    params = {'scale': np.array([.5, 2.]), 'bias': np.array([1., -1.])} if affine else {}
    module = nn.BatchNorm(track=False, affine=affine)

    def ours(params, x):
      return module.apply({'params': params}, x, True, Axes(inner=('replica',)))

    def reference(params, x):
      centred = x - x.mean((0, 1, 2))
      y = centred / jnp.sqrt(jnp.square(centred).mean((0, 1, 2)) + 1e-5)
      return y * params['scale'] + params['bias'] if affine else y

    def gradients(function, params, x, weight):
      loss = lambda params, x: jnp.sum(jnp.sin(function(params, x)) * weight)
      penalty = lambda params, x: jnp.sum(jnp.square(jax.grad(loss, 1)(params, x)))
      return jax.grad(loss, (0, 1))(params, x), jax.grad(penalty, (0, 1))(params, x)

    split = lambda x: x.reshape(replicas, -1, *x.shape[1:])
    found = jax.jit(jax.vmap(lambda *values: gradients(ours, params, *values),
                             axis_name='replica'))(split(x), split(weight))
    found = [(jax.tree.map(lambda each: each.sum(0), of_params), of_x.reshape(x.shape))
             for of_params, of_x in found]
    with jax.numpy_rank_promotion('allow'):
      wanted = list(jax.jit(functools.partial(gradients, reference))(params, x, weight))
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-11), found, wanted)


@pytest.mark.parametrize('module, more', [(nn.Conv(3), ()), (nn.UpConv(3), ()),
                                          (nn.BatchNorm(), (False,)), (nn.LayerNorm(), ())],
                         ids=str)
def test_a_weight_of_another_shape_is_refused(module, more):
  apply = lambda variables: module.apply(variables, normal(1, 4, 4, 3), *more)
  whole = jax.eval_shape(lambda: module.init(jax.random.key(0), normal(1, 4, 4, 3), *more))
  for name, leaf in whole['params'].items():
    wrong = jax.ShapeDtypeStruct((*leaf.shape[:-1], 4), leaf.dtype)
    with pytest.raises(errors.ScopeParamShapeError, match=f'"{name}"'):
      jax.eval_shape(apply, {**whole, 'params': {**whole['params'], name: wrong}})


def test_statistics_of_the_caller_stay_as_they_are():
  module = nn.BatchNorm()
  x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 4, 3)), jnp.float32)
  variables = jax.tree.map(np.array, module.init(jax.random.key(0), x, True))
  kept = jax.tree.map(np.array, variables)
  _, moved = module.apply(variables, x, True, mutable=['batch_stats'])
  jax.tree.map(np.testing.assert_array_equal, variables, kept)
  assert int(moved['batch_stats']['count']) == 1


def test_programs_are_compiled_with_what_this_platform_likes(monkeypatch):
  options = xla.compiler_options()
  assert 'LIBRARY_FUSION_TYPE_DOT' in options['xla_cpu_experimental_ynn_fusion_type']
  with monkeypatch.context() as patch:
    patch.setattr(jax, 'default_backend', lambda: 'gpu')
    assert xla.compiler_options() == {}
  monkeypatch.setitem(xla._OPTIONS, 'cpu', {'xla_cpu_of_another_release': '1'})
  xla._known.cache_clear()
  assert xla.compiler_options() == {} and xla.jit(lambda x: x + 1)(1) == 2
  monkeypatch.undo()
  xla._known.cache_clear()
  assert xla.compiler_options() == options


@pytest.mark.parametrize('build', [
    functools.partial(nn.resnet, 2, 6, norm='batch'), functools.partial(nn.rrdbnet, 4, 2, 1),
    functools.partial(nn.mobile_deepest_resnet, 2, 1), functools.partial(nn.inception, 4, 5),
    functools.partial(nn.spade, 2, labels=3, upsampling='normal'),
    functools.partial(PRUNED_SPADE.clone, upsampling='normal')])
def test_blocks_that_remember_less_have_the_same_gradients(build):
  whole, small = build(), build(remat=True)
  variables = nn.initialise(whole, jax.random.key(0), scheme='he')
  again = jax.eval_shape(small.init, jax.random.key(0), small.example())
  assert jax.tree.map(jnp.shape, again) == jax.tree.map(jnp.shape, variables)
  x = normal(2, 32, 32, whole.example().shape[-1])

  def loss(module, params):
    (image, _), new = module.apply({**variables, 'params': params}, x, True,
                                   mutable=['batch_stats', 'spectral'])
    return jnp.square(image - .3).sum(), new

  def remembered(module):
    backward = jax.eval_shape(lambda params: jax.vjp(
        lambda params: loss(module, params)[0], params)[1], variables['params'])
    return sum(x.size for x in jax.tree.leaves(backward))

  assert remembered(small) < .75 * remembered(whole)
  assert jgc.analysis.macs(small, x.shape) == jgc.analysis.macs(whole, x.shape)
  if isinstance(whole, nn.ResNetGenerator) and not whole.deeper:  # the quickest to compile
    assert largest_difference(*(jax.jit(jax.grad(
        functools.partial(loss, module), has_aux=True))(variables['params'])
        for module in (whole, small))) < 2e-3


def test_smaller_copies_leave_padding_out():
  x = jnp.arange(16.).reshape(1, 4, 4, 1)
  found = nn.discriminators._halved(x)[0, ..., 0]
  np.testing.assert_allclose(found, [[2.5, 4], [8.5, 10]])  # of 4, 6, 6 and 9 pixels


def test_dropout_of_the_unet_begins_at_level_4():
  """Its innermost level has none; what leaves level 4 is seen by level 3 and all above."""
  module = nn.unet(1, 6, dropout=.5)
  x = jax.random.normal(jax.random.key(0), (2, 64, 64, 3))
  variables = nn.initialise(module, jax.random.key(1))
  taps = jax.jit(lambda key: module.apply(variables, x, True, mutable=['batch_stats'],
                                          rngs={'dropout': key})[0][1])
  one, other = taps(jax.random.key(0)), taps(jax.random.key(1))
  assert {tap for tap in one if largest_difference(one[tap], other[tap])} == {
      'up3', 'up2', 'up1', 'up0'}


@pytest.mark.parametrize('implementation', ['reference', 'optimized'])
def test_a_modulation_scales_by_one_more_and_shifts(implementation):
  module = Modulation(2, 'instance', False, True, implementation, jnp.float32)
  x, labels = jax.random.normal(jax.random.key(0), (1, 4, 4, 3)), jnp.zeros((1, 8, 8, 5))
  zeros = jax.tree.map(jnp.zeros_like, module.init(jax.random.key(1), x, labels, True, Axes()))
  normed = nn.InstanceNorm().apply({}, x)
  params = zeros['params']
  for gamma, beta in ((0., 0.), (1., .5)):
    given = {**params, 'gamma': {**params['gamma'], 'bias': jnp.full(3, gamma)},
             'beta': {**params['beta'], 'bias': jnp.full(3, beta)}}
    found = module.apply({'params': given}, x, labels, True, Axes())
    np.testing.assert_allclose(found, (1 + gamma) * normed + beta, atol=1e-6)


def test_every_kernel_is_drawn_anew():
  params = nn.initialise(nn.resnet(4, 2), jax.random.key(0))['params']
  assert params['block1']['conv1']['kernel'].shape == params['block2']['conv1']['kernel'].shape
  assert not np.isclose(params['block1']['conv1']['kernel'],
                        params['block2']['conv1']['kernel']).any()


def test_he_is_for_relu():
  kernel = nn.initialise(nn.resnet(16, 1), jax.random.key(0), scheme='he')['params']['block1'][
      'conv1']['kernel']
  assert abs(float(kernel.std()) / np.sqrt(2 / (9 * 64)) - 1) < .02


class SpectralPainter(linen.Module):
  """The smallest generator with spectral vectors and running averages."""

  @linen.compact
  def __call__(self, x, train: bool = False):
    x = nn.BatchNorm(name='norm')(nn.Conv(4, 3, spectral=True, name='conv')(x, train), train)
    return jnp.tanh(nn.Conv(3, 1, name='to_image')(x, train)), {}

  def example(self):
    return jnp.zeros((1, 8, 8, 3))


@pytest.mark.parametrize('module, collections', [
    (None, {'params', 'batch_stats'}), (nn.resnet(2, 1), {'params'}),
    (SpectralPainter(), {'params', 'batch_stats', 'spectral'})])
def test_a_network_is_the_same_in_nnx(module, collections, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  section = (Path(__file__).parents[1] / 'docs/howto.md').read_text().split('## In Flax NNX')[1]
  code = re.search(r'```python\n(.*?)```', section, re.DOTALL).group(1)
  found = {'given': module}
  if module is not None:
    code = code.replace('module, trained)', 'module, trained, like=given)')
    code, count = re.subn(r'module = nn\.unet\(.*\)', 'module = given', code)
    assert count == 1
  exec(compile(code, 'howto.md', 'exec'), found)
  module, variables, trained, x = (found[name] for name in (
      'module', 'variables', 'trained', 'x'))
  assert set(variables) == collections

  @jax.jit  # the same step in Linen
  def step(variables, moments, x, key):
    params, states = variables['params'], {k: v for k, v in variables.items() if k != 'params'}

    def loss(params):
      (image, _), new = module.apply({'params': params, **states}, x, train=True,
                                     mutable=list(states), rngs={'dropout': key})
      return jnp.abs(image + x).mean(), new

    gradients, new = jax.grad(loss, has_aux=True)(params)
    updates, _ = adam.update(gradients, moments)
    return {'params': optax.apply_updates(params, updates), **new}

  adam = optax.adam(2e-4, b1=.5)
  expected = step(variables, adam.init(variables['params']), x, nnx.Rngs(dropout=0).dropout())
  assert jax.tree.structure(trained) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, trained, expected)
  for name in collections:  # the step reached every collection
    assert largest_difference(trained[name], variables[name]) > 0
  np.testing.assert_array_equal(found['image'], jax.jit(module.apply)(trained, x)[0])
  if 'spectral' in collections:  # without `mutable` they stay, as the section says
    model = found['model']
    model(x, train=True)
    for name in ('batch_stats', 'spectral'):
      state = nnx.state(model, nnx.variable_type_from_name(name))
      assert largest_difference(nnx.to_pure_dict(state), trained[name]) == 0
  again, written = nn.load('unet.safetensors', like=module)
  assert again == module
  jax.tree.map(np.testing.assert_array_equal, written, expected)
