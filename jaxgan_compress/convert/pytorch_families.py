"""How published PyTorch networks name their parameters: one `Family` for each of our classes.

A family tells a network from its state dict's keys and shapes, and lists where each layer of ours
lies in theirs. Sequential containers number every layer, also those without parameters.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from flax import linen

from jaxgan_compress import nn
from jaxgan_compress.nn.feature_nets import efficientnet
from jaxgan_compress.nn.feature_nets.drn import bilinear_kernel
from jaxgan_compress.nn.feature_nets.fid_inception import BLOCKS, CLASSES, STEM, stages
from jaxgan_compress.nn.feature_nets.vgg import VGG_STAGES, vgg_layers
from jaxgan_compress.nn.generators.spades import block_names
from jaxgan_compress.nn.generators.upscalers import DENSE, GROWING
from jaxgan_compress.nn.layers.norms import conv_bias

Shapes = Mapping[str, tuple[int, ...]]

_LEAF = r'(weight|bias|weight_orig|weight_u|weight_v|running_mean|running_var|num_batches_tracked)'


@dataclasses.dataclass(frozen=True)
class Row:
  """One layer: its prefix in PyTorch, its path of ours ('block1/conv1'), and its kernel's kind."""
  torch: str
  ours: str
  transposed: bool = False


@dataclasses.dataclass(frozen=True)
class Family:
  """One kind of network.

  pattern: a regular expression that each of its keys matches. recognizes: whether keys show the
  family. module: the network that keys and shapes describe. rows: its layers. overrides: fields of
  the module that keys may not tell. built_in: what they cannot tell either and no field can change.
  dead: prefixes of parameters that PyTorch keeps and this module never uses.
  beyond: keys that belong to more than the module and are left behind (VGG's classifier).
  fixed: float32 arrays that PyTorch keeps among the parameters and the module has built in.
  """
  name: str
  builds: type[linen.Module]
  pattern: str
  recognizes: Callable[[Shapes], bool]
  module: Callable[[Shapes, Mapping], linen.Module]
  rows: Callable[[linen.Module], Iterator[Row]]
  overrides: tuple[str, ...] = ()
  built_in: str = ''
  dead: Callable[[linen.Module], tuple[str, ...]] = lambda module: ()
  beyond: Callable[[str], bool] = lambda key: False
  fixed: Callable[[linen.Module], Mapping[str, np.ndarray]] = lambda module: {}


# ResNet and U-Net -------------------------------------------------------------------------------


def _resnet(shapes, overrides):
  weight = lambda index: shapes[f'model.{index}.weight']
  blocks = _numbers(shapes, r'model\.(\d+)\.conv_block\.')
  expansions = [i for i in blocks if len(_numbers(
      shapes, rf'model\.{i}\.conv_block\.(\d+)\.weight$', rank=4)) == 4]
  residual = [i for i in blocks if i not in expansions]
  convs = _numbers(shapes, r'model\.(\d+)\.weight$', rank=4)
  first = next(n for n, index in enumerate(convs) if index > residual[0])
  stem, up = convs[:first], convs[first:-1]
  if expansions:  # each change of resolution is followed by a convolution that changes none
    stem, up = [stem[0], *stem[1::2]], up[::2]
  inside = _numbers(shapes, rf'model\.{residual[0]}\.conv_block\.(\d+)\.', rank=4)
  separable = f'model.{residual[0]}.conv_block.{inside[0]}.conv.0.weight' in shapes
  conv = f'conv_block.{inside[0]}{".conv.2" if separable else ""}'
  return nn.ResNetGenerator(
      stem=tuple(weight(i)[0] for i in stem), hidden=tuple(weight(f'{i}.{conv}')[0]
                                                           for i in residual),
      up=tuple(weight(i)[1] for i in up), inputs=weight(1)[1], channels=weight(convs[-1])[0],
      **_norm(shapes, overrides, f'model.{stem[0]}', f'model.{stem[0] + 1}'),
      separable=separable, deeper=bool(expansions),
      padding='reflect' if inside[0] else 'zero',
      dropout=0. if inside[1] - inside[0] == (5 if inside[0] else 4) else None)


def _resnet_rows(m):
  index = 1

  def unit(name, transposed=False):
    nonlocal index
    yield Row(f'model.{index}', name, transposed)
    yield Row(f'model.{index + 1}', f'{name}_norm')
    index += 3

  def block(name, expansion=False):
    nonlocal index
    yield from (_expansion if expansion else _residual)(m, f'model.{index}', name)
    index += 1

  def deepen(name):
    if m.deeper:
      yield from block(f'{name}_expand', expansion=True)
      yield from unit(f'{name}_mix')

  yield from unit('stem0')
  for i in range(1, len(m.stem)):
    yield from unit(f'stem{i}')
    yield from deepen(f'stem{i}')
  for i in range(1, len(m.hidden) + 1):
    if m.deeper and i == len(m.hidden) // 2 + 1:
      yield from block('expand1', expansion=True)
      yield from block('expand2', expansion=True)
    yield from block(f'block{i}')
  for i in range(len(m.up)):
    yield from unit(f'up{i}', transposed=True)
    yield from deepen(f'up{i}')
  yield Row(f'model.{index + 1}', 'to_image')


def _residual(m, torch, ours):
  padded = int(m.padding != 'zero')
  second = 2 * padded + 3 + (m.dropout is not None)
  for i, index in ((1, padded), (2, second)):
    conv, name = f'{torch}.conv_block.{index}', f'{ours}/conv{i}'
    if m.separable:
      yield from _separable(conv, name)
    else:
      yield Row(conv, name)
    yield Row(f'{torch}.conv_block.{index + 1}', f'{ours}/norm{i}')


def _expansion(m, torch, ours):
  padded = int(not isinstance(m, nn.ResNetGenerator) or m.padding != 'zero')
  last = 2 * padded + 9 + (m.dropout is not None)
  for i, index in enumerate((padded, padded + 3, padded + 6, last), 1):
    yield Row(f'{torch}.conv_block.{index}', f'{ours}/conv{i}')
    yield Row(f'{torch}.conv_block.{index + 1}', f'{ours}/norm{i}')


def _separable(torch, ours):
  yield Row(f'{torch}.conv.0', f'{ours}/depthwise')
  yield Row(f'{torch}.conv.2', f'{ours}/pointwise')


def _unet_levels(depth, deeper):
  """(prefix, indices of down, its expansions, up, its expansions) of each level, outermost first;
  a norm follows its convolution directly."""
  prefix = 'model.model'
  for i in range(depth):
    if i == depth - 1:
      down, sub, up = 1, 0, 3  # nothing is inside
    elif deeper:
      down, sub, up = (1, 5, 7) if i else (0, 3, 7)
    else:
      down, sub, up = (1, 3, 5) if i else (0, 1, 3)
    expands = deeper and i < depth - 1
    yield (prefix, down, (sub - 2, sub - 1) if expands else (), up,
           ((up + 2, up + 3) if i else (up - 3, up - 2)) if expands else ())
    prefix += f'.{sub}.model'


def _unet(shapes, overrides):
  deeper = 'model.model.1.conv_block.1.weight' in shapes
  depth = 1 + max(key.count('.model.') - 1 for key in shapes)
  levels = [(f'{prefix}.{down}', f'{prefix}.{up}')
            for prefix, down, _, up, _ in _unet_levels(depth, deeper)]
  down, up = ([shapes[f'{level[i]}.weight'] for level in levels] for i in (0, 1))
  innermost = levels[-1][1].rsplit('.', 1)
  return nn.UNetGenerator(
      down=tuple(shape[0] for shape in down), up=tuple(shape[1] for shape in up[1:]),
      inputs=down[0][1], channels=up[0][1], deeper=deeper,
      **_norm(shapes, overrides, levels[0][0], f'{innermost[0]}.{int(innermost[1]) + 1}'))


def _unet_rows(m):
  depth = len(m.down)
  for i, (prefix, down, before, up, after) in enumerate(_unet_levels(depth, m.deeper)):
    yield Row(f'{prefix}.{down}', f'down{i}')
    yield Row(f'{prefix}.{down + 1}', f'down{i}_norm')
    yield Row(f'{prefix}.{up}', f'up{i}', transposed=True)
    yield Row(f'{prefix}.{up + 1}', f'up{i}_norm')
    for name, indices in (('down', before), ('up', after)):
      for j, index in enumerate(indices, 1):
        yield from _expansion(m, f'{prefix}.{index}', f'{name}{i}_expand{j}')


# CAT's inception generators ---------------------------------------------------------------------


def _inception(shapes, overrides):
  blocks = _count(shapes, r'features\.(\d+)\.')
  return nn.InceptionGenerator(
      stem=tuple(shapes[f'down_sampling.{i}.weight'][0] for i in (1, 4, 7)),
      blocks=tuple(_branches(shapes, f'features.{b}', '.1.0', '.2.0') for b in range(blocks)),
      up=tuple(shapes[f'up_sampling.{i}.weight'][1] for i in (0, 3)),
      inputs=shapes['down_sampling.1.weight'][1], channels=shapes['up_sampling.7.weight'][0],
      **_norm(shapes, overrides, 'down_sampling.1', 'down_sampling.2'))


def _inception_rows(m):
  for i, index in enumerate((1, 4, 7)):
    yield Row(f'down_sampling.{index}', f'stem{i}')
    yield Row(f'down_sampling.{index + 1}', f'stem{i}_norm')
  for b, branches in enumerate(m.blocks):
    # After a padding layer, so the first convolution and its norm sit in a container of their own.
    yield from _branch_rows(branches, f'features.{b}', f'block{b + 1}',
                            dense=('1.0', '1.1', '4'), depthwise=('0.0', '0.1', '2.0', '2.1', '4'))
    if branches:
      yield Row(f'features.{b}.pw_bn', f'block{b + 1}_norm')
  for i, index in enumerate((0, 3)):
    yield Row(f'up_sampling.{index}', f'up{i}', transposed=True)
    yield Row(f'up_sampling.{index + 1}', f'up{i}_norm')
  yield Row('up_sampling.7', 'to_image')


def _branches(shapes, prefix, dense, depthwise):
  """The branches of one block that pruning left; PyTorch's index counts these, and the shape shows
  the size of the kernel."""
  branches = []
  for kind, suffix in (('res_ops', dense), ('dw_ops', depthwise)):
    kernels = [shapes[f'{prefix}.{kind}.{j}{suffix}.weight']
               for j in range(_count(shapes, rf'{re.escape(prefix)}\.{kind}\.(\d+)\.'))]
    branches.append(tuple((shape[-1], shape[0]) for shape in kernels))
  return nn.Branches(*branches)


def _branch_rows(branches, torch, ours, dense, depthwise):
  names = {'res_ops': ('dense', branches.dense, dense, ('in', 'norm', 'out')),
           'dw_ops': ('depthwise', branches.depthwise, depthwise,
                      ('in', 'norm', 'filter', 'norm2', 'out'))}
  for kind, (name, widths, places, parts) in names.items():
    for j, (k, _) in enumerate(widths):
      for place, part in zip(places, parts, strict=True):
        yield Row(f'{torch}.{kind}.{j}.{place}', f'{ours}/{name}{k}_{part}')


def _torch_blocks(upsampling):
  """SPADE's blocks, their name and ours."""
  for name in block_names(upsampling):
    theirs = re.sub(r'(\d)', r'_\1', name).replace('middle', 'G_middle')
    yield ('head_0' if name == 'head' else theirs), name


def _upsampling(shapes, overrides):
  return 'most' if _starts(shapes, 'up_4.') else overrides.get('upsampling', 'more')


def _inception_spade(shapes, overrides):
  upsampling = _upsampling(shapes, overrides)
  blocks, out = [], shapes['fc.weight'][0]
  for theirs, _ in _torch_blocks(upsampling):
    main = _branches(shapes, theirs, '.0.conv', '.1.conv')
    spade = _branches(shapes, f'{theirs}.spade', '.0.conv', '.1.conv') if main else nn.Branches()
    for key in (f'{theirs}.shortcut.1.conv.weight', f'{theirs}.res_ops.0.1.conv.weight',
                f'{theirs}.dw_ops.0.2.conv.weight'):
      if key in shapes:
        out = shapes[key][0]
        break
    blocks.append(nn.InceptionSPADEBlock(out, main, spade))
  return nn.InceptionSPADEGenerator(
      shapes['fc.weight'][0], tuple(blocks), labels=shapes['fc.weight'][1],
      channels=shapes['conv_img.weight'][0], upsampling=upsampling)


def _inception_spade_rows(m):
  yield Row('fc', 'fc')
  yield Row('fc_norm', 'fc_norm')
  for (theirs, ours), block in zip(_torch_blocks(m.upsampling), m.blocks, strict=True):
    yield from _branch_rows(block.main, theirs, f'{ours}/main',
                            ('0.conv', '0.norm', '1.conv'),
                            ('0.conv', '0.norm', '1.conv', '1.norm', '2.conv'))
    yield from _branch_rows(block.spade, f'{theirs}.spade', f'{ours}/spade',
                            ('0.conv', '0.norm', '1'),
                            ('0.conv', '0.norm', '1.conv', '1.norm', '2'))
    yield Row(f'{theirs}.spade.param_free_norm', f'{ours}/norm')
    yield Row(f'{theirs}.shortcut.0', f'{ours}/shortcut_norm')
    yield Row(f'{theirs}.shortcut.1.conv', f'{ours}/shortcut')
  yield Row('conv_img', 'to_image')


# SPADE ------------------------------------------------------------------------------------------


def _spade(shapes, overrides):
  if len(shapes['fc.weight']) != 4:
    raise ValueError('fc.weight is a matrix: it starts from a latent vector '
                     '(trained with use_vae), which is not supported')
  upsampling = _upsampling(shapes, overrides)
  stats = _starts(shapes, 'head_0.norm_0.param_free_norm.')
  blocks = tuple(nn.SPADEBlock(
      shapes[f'{theirs}.conv_0.weight'][0], shapes[f'{theirs}.conv_1.weight'][0],
      shapes[f'{theirs}.norm_0.mlp_shared.0.weight'][0], _starts(shapes, f'{theirs}.conv_s.'))
      for theirs, _ in _torch_blocks(upsampling))
  return nn.SPADEGenerator(
      shapes['fc.weight'][0], blocks, labels=shapes['fc.weight'][1],
      channels=shapes['conv_img.weight'][0], upsampling=upsampling,
      spectral='head_0.conv_0.weight_orig' in shapes,
      norm=overrides.get('norm', 'batch' if stats else 'instance'),
      separable='head_0.norm_0.mlp_gamma.conv.0.weight' in shapes)


def _spade_rows(m):
  yield Row('fc', 'fc')
  for theirs, ours in _torch_blocks(m.upsampling):
    for suffix, conv, modulation in (('0', 'conv0', 'norm0'), ('1', 'conv1', 'norm1'),
                                     ('s', 'shortcut', 'shortcut_norm')):
      norm = f'{theirs}.norm_{suffix}'
      yield Row(f'{theirs}.conv_{suffix}', f'{ours}/{conv}')
      yield Row(f'{norm}.param_free_norm', f'{ours}/{modulation}/norm')
      yield Row(f'{norm}.mlp_shared.0', f'{ours}/{modulation}/shared')
      for name in ('gamma', 'beta'):
        if m.separable:
          yield from _separable(f'{norm}.mlp_{name}', f'{ours}/{modulation}/{name}')
        else:
          yield Row(f'{norm}.mlp_{name}', f'{ours}/{modulation}/{name}')
  yield Row('conv_img', 'to_image')


# Real-ESRGAN's upscalers ------------------------------------------------------------------------


def _rrdb(shapes, overrides):
  growth = tuple(
      tuple(shapes[f'body.{i}.rdb{j}.conv{k}.weight'][0] for j in range(1, DENSE + 1)
            for k in range(1, GROWING + 1)) for i in range(_count(shapes, r'body\.(\d+)\.')))
  (trunk, inputs), channels = shapes['conv_first.weight'][:2], shapes['conv_last.weight'][0]
  unshuffle = {4: 2, 16: 4}.get(inputs // channels, 1)  # squares of 2 and 4 pixels in channels
  return nn.RRDBGenerator(
      trunk=trunk, growth=growth, up=tuple(shapes[f'conv_up{i}.weight'][0] for i in (1, 2)),
      last=shapes['conv_hr.weight'][0], inputs=inputs // unshuffle ** 2, channels=channels,
      unshuffle=unshuffle)


def _rrdb_rows(m):
  yield Row('conv_first', 'stem')
  for i, j, k in itertools.product(range(len(m.growth)), range(1, DENSE + 1),
                                   range(1, GROWING + 2)):
    yield Row(f'body.{i}.rdb{j}.conv{k}', f'block{i + 1}/dense{j}/conv{k}')
  for torch, ours in (('body', 'body'), ('up1', 'up1'), ('up2', 'up2'), ('hr', 'last'),
                      ('last', 'to_image')):
    yield Row(f'conv_{torch}', ours)


def newer_names(state: Mapping) -> dict:
  """The names that Real-ESRGAN gives RRDBNet for those of ESRGAN's own files."""
  if not _starts(state, 'RRDB_trunk.'):
    return dict(state)
  names = ((r'^RRDB_trunk\.(\d+)\.RDB', r'body.\1.rdb'), (r'^trunk_conv\.', 'conv_body.'),
           (r'^upconv', 'conv_up'), (r'^HRconv\.', 'conv_hr.'))
  return {functools.reduce(lambda key, name: re.sub(*name, key), names, key): x
          for key, x in state.items()}


def _srvgg(shapes, overrides):
  convs = [shapes[f'body.{i}.weight'] for i in _numbers(shapes, r'body\.(\d+)\.weight$', rank=4)]
  inputs = convs[0][1]
  shuffle = math.isqrt(convs[-1][0] // inputs)
  return nn.SRVGGGenerator(hidden=tuple(shape[0] for shape in convs[:-1]), inputs=inputs,
                           channels=convs[-1][0] // shuffle ** 2, shuffle=shuffle)


def _srvgg_rows(m):
  for i in range(len(m.hidden)):
    yield Row(f'body.{2 * i}', f'layer{i + 1}')
    yield Row(f'body.{2 * i + 1}', f'prelu{i + 1}')
  yield Row(f'body.{2 * len(m.hidden)}', 'to_image')


# Discriminators ---------------------------------------------------------------------------------


def _patch(shapes, overrides):
  layers = sum(i % 3 == 2 for i in _numbers(shapes, r'model\.(\d+)\.weight')) - 1
  return nn.PatchGAN(ndf=shapes['model.0.weight'][0], layers=layers,
                     inputs=shapes['model.0.weight'][1],
                     **_norm(shapes, overrides, 'model.2', 'model.3'))


def _heads(shapes, overrides):
  if 'shared' not in overrides:
    raise ValueError('it stores every convolution twice, and its keys do not tell how many of the '
                     'five the heads share; pass shared=0 .. 5, --override=shared=5 '
                     '(n_share of the training script; 5: one discriminator)')
  return nn.PatchGAN(ndf=shapes['block1s.0.block.0.weight'][0],
                     inputs=shapes['block1s.0.block.0.weight'][1],
                     **_norm(shapes, overrides, 'block2s.0.block.0', 'block2s.0.block.1'),
                     heads=('wide', 'deep'), shared=overrides['shared'])


def _patch_rows(m):
  stages = m.layers + 2
  for k in range(1, stages + 1):
    if len(m.heads) == 1:
      index = 3 * k - 4 if k > 1 else 0
      places = [(f'model.{index}', f'model.{index + 1}', f'stage{k}')]
    elif k <= m.shared:
      places = [(f'block{k}s.1.block.0', f'block{k}s.1.block.1', f'stage{k}')]
    else:
      places = [(f'block{k}s.{i}.block.0', f'block{k}s.{i}.block.1', f'stage{k}_{head}')
                for i, head in enumerate(m.heads)]
    for conv, norm, name in places:
      yield Row(conv, name)
      yield Row(norm, f'{name}_norm')


def _dead_copies(m):
  return tuple(f'block{k}s.0.' for k in range(1, m.shared + 1)) if len(m.heads) > 1 else ()


def _pixel(shapes, overrides):
  return nn.PixelGAN(ndf=shapes['net.0.weight'][0], inputs=shapes['net.0.weight'][1],
                     **_norm(shapes, overrides, 'net.2', 'net.3'))


def _pixel_rows(m):
  for torch, ours in (('net.0', 'stage1'), ('net.2', 'stage2'), ('net.3', 'stage2_norm'),
                      ('net.5', 'stage3')):
    yield Row(torch, ours)


def _multi_scale(shapes, overrides):
  first = shapes['discriminator_0.model0.0.weight']
  return nn.MultiScale(ndf=first[0], inputs=first[1],
                       layers=_count(shapes, r'discriminator_0\.model(\d+)\.') - 1,
                       spectral='discriminator_0.model1.0.0.weight_orig' in shapes,
                       scales=_count(shapes, r'discriminator_(\d+)\.'))


def _multi_scale_rows(m):
  for scale, k in itertools.product(range(m.scales), range(m.layers + 1)):
    inside = '0.0' if 0 < k < m.layers else '0'
    yield Row(f'discriminator_{scale}.model{k}.{inside}', f'scale{scale}_stage{k + 1}')


# The others -------------------------------------------------------------------------------------


def _dcgan(shapes, overrides):
  layers = _count(shapes, r'deconv(\d+)\.')
  latent, *widths = (shapes[f'deconv{i}.weight'][0] for i in range(1, layers + 1))
  module = nn.DCGANGenerator(widths[-1], shapes[f'deconv{layers}.weight'][1], 2 ** (layers + 1),
                             latent)
  return module if module.layer_widths == tuple(widths) else module.clone(widths=tuple(widths))


def _dcgan_rows(m):
  layers = 5 if m.size == 64 else 4
  for i in range(1, layers + 1):
    yield Row(f'deconv{i}', f'layer{i}' if i < layers else 'to_image', transposed=True)
    yield Row(f'deconv{i}_bn', f'norm{i}')


def _vgg_convs(depth):
  """PyTorch's index of every convolution, and the name of its activation."""
  index, names = 0, iter(vgg_layers(depth))
  for convs in VGG_STAGES[depth]:
    for _ in range(convs):
      yield index, next(names)
      index += 2
    index += 1


def _vgg(shapes, overrides):
  # The third stage has a fourth convolution in VGG19; a trunk that ends before it is both.
  depth = 19 if 'features.16.weight' in shapes else 16
  return nn.VGG(depth, tuple(name for i, name in _vgg_convs(depth)
                             if f'features.{i}.weight' in shapes))


def _vgg_rows(m):
  for index, name in _vgg_convs(m.depth):
    yield Row(f'features.{index}', name.replace('relu', 'conv'))


def _above_vgg(key):
  """The classifier, and convolutions: which of them a trunk has not is what it was asked for."""
  convs = {index for depth in VGG_STAGES for index, _ in _vgg_convs(depth)}
  index = re.fullmatch(r'features\.(\d+)\.(weight|bias)', key)
  return key.startswith('classifier.') or bool(index and int(index[1]) in convs)


def _adapter(shapes, overrides):
  normed = '0.weight' in shapes
  features, inputs = shapes['0.weight' if normed else 'weight'][:2]
  return nn.Adapter(inputs, features, normed)


def _adapter_rows(m):
  yield Row('0' if m.norm else '', 'conv')
  yield Row('1', 'norm')


# Evaluation -------------------------------------------------------------------------------------


def _fid_inception(shapes, overrides):
  classes = shapes['fc.weight'][0]
  if classes != CLASSES:
    raise ValueError(f'it is an Inception v3 of {classes} classes, but that of FID has {CLASSES}: '
                     "the keys are the same, torchvision's network has other poolings and weights. "
                     'Take pt_inception-2015-12-05-6726825d.pth, the file of pytorch-fid')
  return nn.FIDInception()


def _fid_inception_rows(m):
  for name, (_, rows, columns) in STEM.items():
    yield from _conv_bn(f'Conv2d_{name}_{rows}x{columns}', f'conv{name}')
  for block, (_, branches) in BLOCKS.items():
    for branch, convs in branches.items():
      for name, *_ in itertools.chain(*stages(branch, convs)):
        yield from _conv_bn(f'Mixed_{block}.{name}', f'block{block}/{name}')
  yield Row('fc', 'fc')


def _conv_bn(torch, ours):
  yield Row(f'{torch}.conv', f'{ours}/conv')
  yield Row(f'{torch}.bn', f'{ours}/norm')


_LITE0_BLOCK = r'_blocks\.(\d+)\.'


def _lite0(shapes, overrides):
  blocks = _count(shapes, _LITE0_BLOCK)
  layers = [name for count, name in efficientnet.ENDS.items() if count <= blocks]
  layers += [name for name, key in (('pooled', '_conv_head.weight'), ('logits', '_fc.weight'))
             if key in shapes]
  return nn.EfficientNetLite0(tuple(layers))


def _lite0_rows(m=None):
  conv_bn = lambda ours, conv, bn: (Row(conv, f'{ours}/conv'), Row(bn, f'{ours}/norm'))
  yield from conv_bn('stem', '_conv_stem', '_bn0')
  for i, (_, _, expansion, _) in enumerate(efficientnet.BLOCKS):
    for bn, kind in enumerate(('expand', 'depthwise', 'project')):
      if bn or expansion > 1:
        yield from conv_bn(f'block{i + 1}/{kind}', f'_blocks.{i}._{kind}_conv',
                           f'_blocks.{i}._bn{bn}')
  yield from conv_bn('head', '_conv_head', '_bn1')
  yield Row('_fc', 'classifier')


def _of_lite0(key):
  """Whether it is of the whole network, of whose layers some were asked for."""
  return key.rpartition('.')[0] in {row.torch for row in _lite0_rows()}


def _drn(shapes, overrides):
  blocks = tuple(_count(shapes, rf'base\.{i}\.(\d+)\.conv1\.') for i in range(3, 7))
  return nn.DRN(
      stem=tuple(shapes[f'base.{i}.0.weight'][0] for i in range(3)), blocks=blocks,
      planes=tuple(shapes[f'base.{i}.0.conv3.weight'][1] for i in range(3, 7)),
      head=tuple(shapes[f'base.{i}.0.weight'][0] for i in (7, 8)), classes=shapes['seg.weight'][0])


def _drn_rows(m):
  for i in (0, 1, 2, 7, 8):
    yield Row(f'base.{i}.0', f'level{i}')
    yield Row(f'base.{i}.1', f'level{i}_norm')
  for i, count in enumerate(m.blocks, 3):
    for j in range(count):
      torch, ours = f'base.{i}.{j}', f'level{i}_block{j + 1}'
      for k in (1, 2, 3):
        yield Row(f'{torch}.conv{k}', f'{ours}/conv{k}')
        yield Row(f'{torch}.bn{k}', f'{ours}/conv{k}_norm')
      if not j:
        yield Row(f'{torch}.downsample.0', f'{ours}/shortcut')
        yield Row(f'{torch}.downsample.1', f'{ours}/shortcut_norm')
  yield Row('seg', 'seg')


_UNET = r'model\.model(\.\d+\.model)*\.\d+\.(conv_block\.\d+\.)?' + _LEAF
_SPADE_BLOCK = r'(head_0|G_middle_[01]|up_\d)\.'

_PUBLISHED = 'epsilon 1e-5 in norms'
_JUDGING = ('stride 2, at the last two convolutions 1 (1x1 convolutions: everywhere), zeros '
            f'around, leaky ReLUs of slope 0.2, logits without a sigmoid, {_PUBLISHED}')

FAMILIES = (
    Family('ResNet generator', nn.ResNetGenerator,
           r'model\.\d+\.(conv_block\.\d+\.)?(conv\.[02]\.)?' + _LEAF,
           lambda s: _any(s, r'model\.\d+\.conv_block\.'),
           _resnet, _resnet_rows, ('dropout', 'padding', 'clamp', 'norm'),
           'stride 2 between resolutions, 7x7 convolutions that reflect, ReLU, instance norms in '
           f'separable convolutions, tanh, {_PUBLISHED}'),
    Family('U-Net generator', nn.UNetGenerator, _UNET,
           lambda s: 'model.model.0.weight' in s or _any(s, r'model\.model\.\d+\.model\.'),
           _unet, _unet_rows, ('dropout', 'norm'),
           'stride 2, skips after their leaky ReLU of slope 0.2, expansion blocks that reflect, '
           f'tanh, {_PUBLISHED}'),
    Family('inception generator', nn.InceptionGenerator,
           r'(down_sampling|up_sampling|features)\.\d+\.((res|dw)_ops\.\d+\.\d(\.\d)?\.|pw_bn\.)?'
           + _LEAF, lambda s: _starts(s, 'down_sampling.') and _starts(s, 'up_sampling.'),
           _inception, _inception_rows, ('dropout', 'padding', 'slope', 'norm'),
           'stride 2 between resolutions, 7x7 convolutions that reflect, ReLU outside blocks, '
           f'tanh, {_PUBLISHED}',
           lambda m: tuple(f'features.{b}.pw_bn.' for b, block in enumerate(m.blocks)
                           if not block)),
    Family('inception SPADE generator', nn.InceptionSPADEGenerator,
           rf'(fc(_norm)?|conv_img|{_SPADE_BLOCK}(spade|shortcut|res_ops|dw_ops)\..*)\.?' + _LEAF,
           lambda s: 'fc_norm.weight' in s or _any(s, _SPADE_BLOCK + '(spade|res_ops|dw_ops)'),
           _inception_spade, _inception_spade_rows, ('slope', 'upsampling'),
           'convolutions padded with zeros, nearest pixels of the label map, ReLU in modulations, '
           f'a leaky ReLU of slope 0.2 before the image, tanh, {_PUBLISHED}',
           lambda m: tuple(f'{theirs}.spade.' for (theirs, _), block in zip(
               _torch_blocks(m.upsampling), m.blocks, strict=True) if not block.main)),
    Family('SPADE generator', nn.SPADEGenerator,
           rf'(fc|conv_img|{_SPADE_BLOCK}(conv|norm)_[01s](\..*)?)\.' + _LEAF,
           lambda s: _any(s, _SPADE_BLOCK + r'conv_[01]\.'), _spade, _spade_rows,
           ('separable_norm', 'upsampling', 'norm'),
           'convolutions padded with zeros, nearest pixels of the label map, ReLU in modulations, '
           f'leaky ReLUs of slope 0.2, tanh, {_PUBLISHED}'),
    Family('RRDBNet', nn.RRDBGenerator,
           r'(body\.\d+\.rdb[123]\.conv[1-5]|conv_(first|body|up[12]|hr|last))\.(weight|bias)',
           lambda s: _any(s, r'body\.\d+\.rdb\d\.') or {'conv_first.weight', 'conv_hr.weight'} <=
           s.keys(), _rrdb, _rrdb_rows,
           built_in='leaky ReLUs of slope 0.2, branches times 0.2, zeros around, nearest pixels of '
           'smaller maps, images in [0, 1] inside'),
    Family('SRVGGNetCompact', nn.SRVGGGenerator, r'body\.\d+\.(weight|bias)',
           lambda s: len(s.get('body.0.weight', ())) == 4 and len(s.get('body.1.weight', ())) == 1,
           _srvgg, _srvgg_rows,
           built_in='PReLUs, zeros around, nearest pixels of the input added, images in [0, 1] '
           'inside'),
    Family('PatchGAN discriminator', nn.PatchGAN, r'model\.\d+\.' + _LEAF,
           lambda s: (4, 4) in (s.get(f'model.{i}.weight', ())[2:] for i in (0, 2)),
           _patch, _patch_rows, ('norm',), _JUDGING),
    Family('discriminator of two heads', nn.PatchGAN, r'block\ds\.[01]\.block\.[01]\.' + _LEAF,
           lambda s: _any(s, r'block\ds\.[01]\.block\.'), _heads, _patch_rows,
           ('shared', 'heads', 'norm'), _JUDGING, _dead_copies),
    Family('pixel discriminator', nn.PixelGAN, r'net\.\d\.' + _LEAF,
           lambda s: (1, 1) in (s.get(f'net.{i}.weight', ())[2:] for i in (0, 2)),
           _pixel, _pixel_rows, ('norm',), _JUDGING),
    Family('multi-scale discriminator', nn.MultiScale,
           r'discriminator_\d\.model\d\.0\.(0\.)?' + _LEAF,
           lambda s: _any(s, r'discriminator_\d\.model\d\.'), _multi_scale, _multi_scale_rows,
           built_in='instance norms without parameters, smaller copies by 3x3 means, ' + _JUDGING),
    Family('DCGAN generator', nn.DCGANGenerator, r'deconv\d(_bn)?\.' + _LEAF,
           lambda s: _any(s, r'deconv\d\.'), _dcgan, _dcgan_rows, ('size',),
           f'stride 2, ReLU, tanh, {_PUBLISHED}'),
    Family('VGG trunk', nn.VGG, r'features\.\d+\.(weight|bias)',
           lambda s: (3, 3) in (s.get(f'features.{i}.weight', ())[2:] for i in (0, 2)),
           _vgg, _vgg_rows, ('depth', 'layers'), 'ReLU, maxima of 2x2 between stages',
           beyond=_above_vgg),
    Family('FID Inception', nn.FIDInception,
           r'(Conv2d_\d[ab]_\dx\d|Mixed_\d[a-e]\.branch\w+)\.(conv|bn)\.' + _LEAF
           + r'|fc\.(weight|bias)|AuxLogits\..*', lambda s: _any(s, r'(Conv2d_1a|Mixed_5b\.)'),
           _fid_inception, _fid_inception_rows, (),
           'poolings of the graph of 2015-12-05, ReLU, epsilon 1e-3 in norms',
           dead=lambda m: ('AuxLogits.',)),
    Family('EfficientNet-Lite0', nn.EfficientNetLite0,
           rf'({_LITE0_BLOCK}(_\w+_conv|_bn\d)|_conv_stem|_conv_head|_bn[01])\.' + _LEAF
           + r'|_fc\.(weight|bias)', lambda s: _any(s, _LITE0_BLOCK), _lite0, _lite0_rows,
           ('layers',), "strides, TensorFlow's SAME padding, ReLU6, epsilon 1e-3 in norms, inputs "
           'of (pixel - 127) / 128', beyond=_of_lite0),
    Family('DRN', nn.DRN,
           r'base\.\d\.\d+\.((conv|bn)\d\.|downsample\.[01]\.)?' + _LEAF
           + r'|seg\.(weight|bias)|up\.weight', lambda s: _any(s, r'base\.[03]\.0\.'),
           _drn, _drn_rows, (),
           f'strides and dilations of DRN-D, ReLU, log-softmax at 8 times the size, {_PUBLISHED}',
           fixed=lambda m: {'up.weight': bilinear_kernel(m.classes)}),
    Family('adapter', nn.Adapter, r'([01]\.)?' + _LEAF,
           lambda s: s.get('0.weight', s.get('weight', ()))[2:] == (1, 1), _adapter,
           _adapter_rows,
           built_in=f'with a norm, ReLU and the statistics of each batch, {_PUBLISHED}'),
)


def _starts(shapes, prefix):
  return any(key.startswith(prefix) for key in shapes)


def _any(shapes, pattern):
  return any(re.match(pattern, key) for key in shapes)


def _numbers(shapes, pattern, rank=None) -> list[int]:
  """The numbers, rising, that the pattern's group takes in keys (of arrays with so many axes)."""
  matches = (re.match(pattern, key) for key, shape in shapes.items() if len(shape) == (
      rank or len(shape)))
  return sorted({int(match[1]) for match in matches if match})


def _count(shapes, pattern) -> int:
  return len(_numbers(shapes, pattern))


def _norm(shapes, overrides, conv, norm):
  """{norm, bias}: the override, or else what published code has of such arrays, where convolutions
  are biased before an instance norm and before no other."""
  biased = f'{conv}.bias' in shapes
  if 'norm' in overrides:
    kind = overrides['norm']
  elif f'{norm}.weight' not in shapes:
    kind = 'instance' if biased else 'none'
  elif f'{norm}.running_mean' in shapes:
    kind = 'batch'
  else:
    kind = 'instance_affine' if biased else 'batch_stat'
  return {'norm': kind, 'bias': None if biased == conv_bias(kind) else biased}


# For each override, whether keys leave it open in this module.
OPEN = {
    'norm': lambda m: m.norm != 'batch' if isinstance(m, nn.SPADEGenerator) else
    m.norm != 'batch' or m.bias is not None,
    'padding': lambda m: m.padding != 'zero' or not isinstance(m, nn.ResNetGenerator),
    'dropout': lambda m: m.dropout is not None,
    'separable_norm': lambda m: m.separable,
    'upsampling': lambda m: m.upsampling != 'most',
    'size': lambda m: m.size != 64,
    'depth': lambda m: not {'relu3_4', 'relu4_1'} & set(m.layers),
}
