"""Upscalers in files of ncnn: a graph as text, `.param`, and the weights beside it, `.bin`.

What is written for a network is the graph that Real-ESRGAN publishes for it, line for line, so a
published file that is read and written again is the same. Reading takes nothing else: the graph in
a file must be the one that would be written for the network that its convolutions describe.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import linen, traverse_util

from jaxgan_compress.core import paths
from jaxgan_compress.nn.generators.upscalers import (
  DENSE,
  GROWING,
  RESIDUAL,
  RRDBGenerator,
  SRVGGGenerator,
)
from jaxgan_compress.nn.init import flat, shapes

MAGIC = '7767517'
FLOAT16, FLOAT32 = 0x01306B47, 0  # what stands before weights
QUANTISED = {0x000D4B38: '8-bit weights', 0x0002C056: 'weights for 8-bit arithmetic'}
INPUT, OUTPUT = 'data', 'output'
WIDEST = 2 ** 16  # channels of a layer are fewer
# {type of a layer: {parameter: what it is where the file leaves it out, or the parameter that it
# is equal to then}}
DEFAULTS: dict[str, dict[str, str | tuple[str]]] = {
    'Input': {'0': '0', '1': '0', '2': '0'}, 'Concat': {'0': '0'},
    'Convolution': {'2': '1', '3': '1', '7': '1', '8': '0', '9': '0', '18': '0', '11': ('1',),
                    '12': ('2',), '13': ('3',), '14': ('4',), '15': ('4',), '16': ('4',)},
    'PReLU': {}, 'Eltwise': {}, 'BinaryOp': {'0': '0', '1': '0', '2': '0'},
    'Interp': {'3': '0', '4': '0', '5': '0', '6': '0'}, 'PixelShuffle': {'1': '0'},
    'Reorg': {'1': '0'}, 'Split': {}}


@dataclasses.dataclass(frozen=True)
class Layer:
  """A line of a `.param`. weights: the path of its parameters in ours, where the network is known.
  """
  kind: str
  name: str
  inputs: tuple[str, ...]
  outputs: tuple[str, ...]
  parameters: Mapping[str, str] = dataclasses.field(default_factory=dict)
  weights: str = ''

  def __str__(self):
    fields = [f'{key}={value}' for key, value in self.parameters.items()]
    return ' '.join([f'{self.kind:<24}', f'{self.name:<24}', str(len(self.inputs)),
                     str(len(self.outputs)), *self.inputs, *self.outputs, *fields])


def read(path: str | Path) -> tuple[linen.Module, dict[str, Any]]:
  """The upscaler in `NAME.param` and `NAME.bin`, and its variables (float32 NumPy arrays).

  path: of either file. The network takes and makes images in [-1, 1], those of the file in [0, 1].

  Raises FileNotFoundError where one of both is missing, and ValueError, with the name of the first
  layer that does not fit, for another graph, for quantised weights, for NaN or infinity, and for
  files that are damaged.
  """
  text, weights = _both(path)
  for file in (text, weights):
    if not file.is_file():
      raise FileNotFoundError(f'{file} does not exist; ncnn has a network in two files, '
                              f'{text.name} and {weights.name}, side by side')
  try:
    layers = _parse(text.read_bytes())
    module = _recognise(layers)
  except ValueError as e:
    raise ValueError(f'{text}: {e}') from e
  try:
    variables = _unpack(graph(module), weights.read_bytes())
  except ValueError as e:
    raise ValueError(f'{weights}: {e}') from e
  return module, variables


def write(path: str | Path, module: linen.Module, variables: Mapping, *, overwrite: bool = False):
  """Writes an upscaler as `NAME.param` and `NAME.bin`, with weights in float16, for images in
  [0, 1].

  path: of either file. Raises FileExistsError where one of both is there and may not be
  overwritten, and ValueError for a network of another class, variables of another network, and
  weights that are not finite or exceed float16, which programs would read as infinity.
  """
  text, weights = _both(path)
  if (there := [str(file) for file in (text, weights) if file.exists()]) and not overwrite:
    raise FileExistsError(f'{" and ".join(there)}: there already; overwrite, or take another name')
  layers = graph(module)
  packed = _pack(layers, variables)
  paths.write_atomically(weights, packed)
  paths.write_atomically(text, '\n'.join([MAGIC, f'{len(layers)} {_blobs(layers)}',
                                          *map(str, layers)]) + '\n')


def is_ncnn(path: str | Path) -> bool:
  """Whether a path is of a file of ncnn, by its suffix; other programs have .bin files, too."""
  path = paths.expand(path)
  return path.suffix == '.param' or (path.suffix == '.bin' and
                                     path.with_suffix('.param').is_file())


def graph(module: linen.Module) -> list[Layer]:
  """The layers that Real-ESRGAN publishes for such a network, of any widths.

  Raises ValueError for a network of another class.
  """
  if not isinstance(module, RRDBGenerator | SRVGGGenerator):
    raise ValueError(f'a {type(module).__name__} is not written for ncnn; '
                     f'{RRDBGenerator.__name__} and {SRVGGGenerator.__name__} are')
  writer = _Writer(module)
  y = (_rrdb if isinstance(module, RRDBGenerator) else _srvgg)(module, writer)
  if module.resize != 1:
    y = writer.resize(y, module.resize, mode=3)
  return writer.layers(y)


def _both(path) -> tuple[Path, Path]:
  path = paths.expand(path)
  if path.suffix not in ('.param', '.bin'):
    raise ValueError(f'{path} is no name of a file of ncnn; give NAME.param, beside which NAME.bin '
                     'is')
  return path.with_suffix('.param'), path.with_suffix('.bin')


def _blobs(layers) -> int:
  return sum(len(layer.outputs) for layer in layers)


# The two graphs ---------------------------------------------------------------------------------


class _Writer:
  """Layers in the order in which they run, with the names that published files give them.

  These come from ONNX, where a layer has the number of its node and a blob that of its value, after
  one for each array of weights: a fused leaky ReLU, a constant and a product were nodes of their
  own.
  """

  def __init__(self, module):
    self._shapes = {name.removeprefix('params/'): x.shape
                    for name, x in flat(shapes(module)).items()}
    self._node, self._blob = 0, 1 + len(self._shapes)
    self._layers = [Layer('Input', 'input.1', (), (INPUT,))]

  def add(self, kind, op, inputs, parameters=(), nodes=(0, 0), blobs=(0, 0), weights='') -> str:
    """The blob of a new layer. nodes, blobs: how many ONNX had before it and has after it."""
    self._node += nodes[0]
    self._blob += blobs[0]
    blob = str(self._blob + blobs[1])
    self._layers.append(Layer(kind, f'{op}_{self._node}', tuple(inputs), (blob,),
                              dict(parameters), weights))
    self._node += 1 + nodes[1]
    self._blob += 1 + blobs[1]
    return blob

  def conv(self, x, path, leaky=False) -> str:
    shape = self._shapes[f'{path}/kernel']
    parameters = {'0': str(shape[-1]), '1': '3', '4': '1', '5': '1', '6': str(int(np.prod(shape)))}
    if leaky:
      parameters |= {'9': '2', '-23310': _numbers(0.2)}
    return self.add('Convolution', 'Conv', [x], parameters, (0, leaky), (0, leaky), path)

  def prelu(self, x, path) -> str:
    slopes, = self._shapes[f'{path}/slope']
    return self.add('PReLU', 'PRelu', [x], {'0': str(slopes)}, blobs=(1, 0), weights=path)

  def concat(self, *parts) -> str:
    return self.add('Concat', 'Concat', parts)

  def residual(self, y, x) -> str:
    """0.2 y + x."""
    return self.add('Eltwise', 'Add', [y, x], {'0': '1', '-23301': _numbers(RESIDUAL, 1)}, (2, 0),
                    (2, 0))

  def sum(self, a, b) -> str:
    return self.add('BinaryOp', 'Add', [a, b])

  def resize(self, x, scale, mode=1) -> str:
    number = _number(scale)
    return self.add('Interp', 'Resize', [x], {'0': str(mode), '1': number, '2': number}, (1, 0),
                    (4, 0))

  def layers(self, last: str) -> list[Layer]:
    """All of them, with splits where blobs are read several times, until `last`, the output."""
    readers = collections.Counter(x for layer in self._layers for x in layer.inputs)
    left, count, result = dict(readers), 0, []
    for layer in self._layers:
      inputs = []
      for x in layer.inputs:
        left[x] -= 1
        inputs.append(_part(x, left[x]) if readers[x] > 1 else x)
      blob, = layer.outputs
      result.append(dataclasses.replace(layer, inputs=tuple(inputs), outputs=(
          OUTPUT if blob == last else blob,)))
      if readers[blob] > 1:
        name = 'splitncnn_input0' if blob == INPUT else f'splitncnn_{count}'
        count += blob != INPUT
        result.append(Layer('Split', name, (blob,), tuple(
            _part(blob, i) for i in range(readers[blob]))))
    return result


def _part(blob, i):
  return f'{"input.1" if blob == INPUT else blob}_splitncnn_{i}'


def _number(x) -> str:
  return f'{x:.6e}'


def _numbers(*values) -> str:
  return ','.join([str(len(values)), *map(_number, values)])


def _rrdb(module, writer) -> str:
  x = INPUT
  if module.unshuffle > 1:
    x = writer.add('Reorg', 'SpaceToDepth', [x], {'0': str(module.unshuffle)})
  stem = x = writer.conv(x, 'stem')
  for i in range(1, len(module.growth) + 1):
    block = x
    for j in range(1, DENSE + 1):
      parts = [x]
      for k in range(1, GROWING + 2):
        joined = writer.concat(*parts) if k > 1 else x
        parts.append(writer.conv(joined, f'block{i}/dense{j}/conv{k}', leaky=k <= GROWING))
      x = writer.residual(parts[-1], x)
    x = writer.residual(x, block)
  x = writer.sum(stem, writer.conv(x, 'body'))
  for name in ('up1', 'up2'):
    x = writer.conv(writer.resize(x, 2), name, leaky=True)
  return writer.conv(writer.conv(x, 'last', leaky=True), 'to_image')


def _srvgg(module, writer) -> str:
  y = INPUT
  for i in range(1, len(module.hidden) + 1):
    y = writer.prelu(writer.conv(y, f'layer{i}'), f'prelu{i}')
  y, x = writer.conv(y, 'to_image'), INPUT
  if module.shuffle > 1:
    y = writer.add('PixelShuffle', 'DepthToSpace', [y], {'0': str(module.shuffle)})
    x = writer.resize(x, module.shuffle)
  return writer.sum(y, x)


# Reading ----------------------------------------------------------------------------------------


def _parse(data: bytes) -> list[Layer]:
  try:
    magic, *lines = data.decode('ascii').splitlines() or ['']
  except UnicodeDecodeError as e:
    raise ValueError('no text; it is damaged, or a binary .param.bin, which is not read') from e
  if magic.strip() != MAGIC:
    raise ValueError(f'starts with {magic.strip()[:20]!r} and not with {MAGIC}; it is no .param of '
                     'ncnn')
  counts, *lines = [line for line in lines if line.strip()] or ['']
  if not re.fullmatch(r'\s*\d+\s+\d+\s*', counts):
    raise ValueError(f'{counts[:40]!r} should be the numbers of layers and blobs')
  layers = [_layer(line) for line in lines]
  for what, said, found in zip(('layers', 'blobs'), map(int, counts.split()),
                               (len(layers), _blobs(layers)), strict=True):
    if said != found:
      raise ValueError(f'says that it has {said} {what} and has {found}; it is damaged or '
                       'incomplete')
  return layers


def _layer(line: str) -> Layer:
  words = line.split()
  try:
    (kind, name), (reads, writes) = words[:2], map(int, words[2:4])
    if min(reads, writes) < 0 or len(words) < 4 + reads + writes:
      raise ValueError
    fields = dict(word.split('=') for word in words[4 + reads + writes:])
  except ValueError:
    raise ValueError(f'{line.strip()[:80]!r} is no layer: a type, a name, numbers of inputs and '
                     'outputs, their names, and parameters as 0=64') from None
  return Layer(kind, name, tuple(words[4:4 + reads]), tuple(words[4 + reads:4 + reads + writes]),
               fields)


def _recognise(layers: list[Layer]) -> linen.Module:
  """The network that these layers are. Raises ValueError with the first layer that does not fit."""
  for layer in layers:
    if layer.kind not in DEFAULTS:
      raise ValueError(f'{_where(layer)} is not of a type that is read, {", ".join(DEFAULTS)}. '
                       'RRDBNet and the compact SRVGGNet are read, as Real-ESRGAN publishes them')
    if layer.kind == 'Convolution' and layer.parameters.get('8', '0') != '0':
      raise ValueError(f'{_where(layer)} is quantised to int8 (8={layer.parameters["8"]}); give '
                       'the file with floating-point weights')
  for layer, ends in zip(layers[:1] + layers[-1:], (INPUT, OUTPUT), strict=False):
    if layer.outputs != (ends,):
      raise ValueError(f'{_where(layer)} makes {", ".join(layer.outputs) or "nothing"}; the first '
                       f'layer makes {INPUT!r} and the last {OUTPUT!r}, unless a line is missing')
  compact = any(layer.kind == 'PReLU' for layer in layers)
  module = (_srvgg_of if compact else _rrdb_of)(layers)
  expected = graph(module)
  name = f'{"compact SRVGGNet" if compact else "RRDBNet"} that its convolutions describe'
  wanted = list(_canonical(expected))
  for (layer, form), (other, wanted_form) in zip(_canonical(layers), wanted, strict=False):
    if form != wanted_form:
      raise ValueError(f'{_where(layer)} does not belong to the {name}, which has {other.kind} '
                       f'{_spelled(other)} there')
  found = sum(layer.kind != 'Split' for layer in layers)
  if found != len(wanted):
    raise ValueError(f'{found} layers without splits, and the {name} has {len(wanted)}')
  return module


def _where(layer):
  return f'layer {layer.name!r} ({layer.kind})'


def _spelled(layer):
  return ' '.join(f'{key}={value}' for key, value in layer.parameters.items())


def _canonical(layers) -> Iterator[tuple[Layer, tuple]]:
  """(layer, what it computes of which layers before it): splits and names are left out."""
  made: dict[str, int] = {}
  count = 0
  for layer in layers:
    if missing := [x for x in layer.inputs if x not in made]:
      raise ValueError(f'{_where(layer)} reads {missing[0]!r}, which no layer before it makes')
    inputs = tuple(made[x] for x in layer.inputs)
    if layer.kind == 'Split' and len(inputs) == 1:
      made.update(dict.fromkeys(layer.outputs, inputs[0]))
      continue
    made.update(dict.fromkeys(layer.outputs, count))
    count += 1
    yield layer, (layer.kind, inputs, len(layer.outputs), _parameters(layer))


def _parameters(layer) -> dict[str, tuple[float, ...]]:
  """The parameters as numbers, without those that are what they would be if left out."""
  numbers = {}
  for key, value in layer.parameters.items():
    try:
      numbers[key] = tuple(float(x) for x in value.split(','))
    except ValueError:
      raise ValueError(f'{_where(layer)} has {key}={value}, which is no number') from None
  defaults = DEFAULTS[layer.kind]

  def implied(key):
    default = defaults.get(key)
    if isinstance(default, tuple):
      return numbers.get(default[0], implied(default[0]))
    return None if default is None else (float(default),)

  return {key: value for key, value in numbers.items() if value != implied(key)}


def _convs(layers) -> list[tuple[int, int]]:
  """(inputs, outputs) of each convolution of 3x3."""
  sizes = []
  for layer in layers:
    if layer.kind == 'Convolution':
      outputs, weights = (layer.parameters.get(key, '') for key in '06')
      if not (outputs.isdecimal() and weights.isdecimal() and 0 < int(outputs) < WIDEST and
              0 < int(weights) < WIDEST ** 2) or int(weights) % (9 * int(outputs)):
        raise ValueError(f'{_where(layer)} has {_spelled(layer)}; 0=OUTPUTS and 6=WEIGHTS, which '
                         'are 9 for each input and output')
      sizes.append((int(weights) // (9 * int(outputs)), int(outputs)))
  return sizes


def _resize_of(layers) -> float:
  return next((_parameters(layer).get('1', (1.,))[0] for layer in layers
               if layer.kind == 'Interp' and layer.parameters.get('0') == '3'), 1.)


def _stride_of(layers, kind) -> int:
  for layer in layers:
    if layer.kind == kind:
      stride = layer.parameters.get('0', '')
      if stride not in ('1', '2', '3', '4'):
        raise ValueError(f'{_where(layer)} has {_spelled(layer)}; 0=1, 2, 3 or 4')
      return int(stride)
  return 1


def _rrdb_of(layers) -> RRDBGenerator:
  convs = _convs(layers)
  blocks, rest = divmod(len(convs) - 6, DENSE * (GROWING + 1))
  if rest or blocks < 0:
    raise ValueError(f'{len(convs)} convolutions and no PReLU; RRDBNet has {DENSE * (GROWING + 1)} '
                     'for each block and 6 more, and the compact SRVGGNet has PReLUs')
  outputs = [n for _, n in convs]
  growing = [n for i, n in enumerate(outputs[1:-5]) if i % (GROWING + 1) < GROWING]
  size, unshuffle = DENSE * GROWING, _stride_of(layers, 'Reorg')
  return RRDBGenerator(
      trunk=outputs[0], growth=tuple(tuple(growing[i * size:(i + 1) * size])
                                     for i in range(blocks)),
      up=(outputs[-4], outputs[-3]), last=outputs[-2], inputs=convs[0][0] // unshuffle ** 2,
      channels=outputs[-1], unshuffle=unshuffle, resize=_resize_of(layers))


def _srvgg_of(layers) -> SRVGGGenerator:
  convs, shuffle = _convs(layers), _stride_of(layers, 'PixelShuffle')
  if len(convs) < 2:
    raise ValueError(f'{len(convs)} convolutions; the compact SRVGGNet has at least 2')
  return SRVGGGenerator(
      hidden=tuple(n for _, n in convs[:-1]), inputs=convs[0][0],
      channels=convs[-1][1] // shuffle ** 2, shuffle=shuffle, resize=_resize_of(layers))


# Weights ----------------------------------------------------------------------------------------


def _unpack(layers, data: bytes) -> dict[str, Any]:
  """The variables, once all bytes are accounted for."""
  at, leaves = 0, {}

  def take(layer, count, dtype):
    nonlocal at
    size = count * np.dtype(dtype).itemsize
    if at + size > len(data):
      raise ValueError(f'ends within {_where(layer)}, after {len(data):,} bytes; it is incomplete '
                       'or of another .param')
    x = np.frombuffer(data, dtype, count, at).astype(np.float32)
    if not np.isfinite(x).all():
      raise ValueError(f'{_where(layer)} holds NaN or infinity; it is damaged, or of another '
                       '.param')
    at += size
    return x

  for layer in layers:
    if layer.kind == 'PReLU':
      leaves[f'{layer.weights}/slope'] = take(layer, int(layer.parameters['0']), '<f4')
    elif layer.kind == 'Convolution':
      outputs, weights = (int(layer.parameters[key]) for key in '06')
      flag = int.from_bytes(data[at:at + 4], 'little')
      if at + 4 <= len(data) and flag not in (FLOAT16, FLOAT32):
        kind = QUANTISED.get(flag, 'weights of a table, or no weights at all')
        raise ValueError(f'{_where(layer)} has the flag {flag:#010x}, {kind}; float16 '
                         f'({FLOAT16:#010x}) and float32 (0) are read')
      at += 4
      kernel = take(layer, weights, '<f2' if flag == FLOAT16 else '<f4')
      at += -at % 4
      kernel = kernel.reshape(outputs, -1, 3, 3).transpose(2, 3, 1, 0)
      leaves[f'{layer.weights}/kernel'] = np.ascontiguousarray(kernel)
      leaves[f'{layer.weights}/bias'] = take(layer, outputs, '<f4')
  if at != len(data):
    raise ValueError(f'{len(data) - at:,} bytes follow the weights of the last layer; it is '
                     'damaged, or of another .param')
  return {'params': traverse_util.unflatten_dict(leaves, sep='/')}


def _pack(layers, variables) -> bytes:
  leaves = {name: np.asarray(x, np.float32) for name, x in flat(variables).items()}
  parts = []

  def array(layer, name, shape):
    x = leaves.pop(f'params/{layer.weights}/{name}', None)
    if x is None or x.shape != shape:
      given = None if x is None else x.shape
      raise ValueError(f'{layer.weights}/{name} is {given} and the network has {shape}; these are '
                       'the variables of another')
    if not np.isfinite(x).all():
      raise ValueError(f'{layer.weights}/{name} holds NaN or infinity; take an earlier checkpoint')
    return x

  for layer in layers:
    if layer.kind == 'PReLU':
      parts.append(array(layer, 'slope', (int(layer.parameters['0']),)).astype('<f4').tobytes())
    elif layer.kind == 'Convolution':
      outputs, weights = (int(layer.parameters[key]) for key in '06')
      kernel = array(layer, 'kernel', (3, 3, weights // (9 * outputs), outputs))
      if (largest := np.abs(kernel).max()) > np.finfo(np.float16).max:
        raise ValueError(f'{layer.weights}/kernel holds {largest:.6g}, and float16, in which ncnn '
                         'stores weights, ends at 65504; a network with such weights has diverged')
      half = kernel.transpose(3, 2, 0, 1).astype('<f2').tobytes()
      parts += [FLOAT16.to_bytes(4, 'little'), half, bytes(-len(half) % 4),
                array(layer, 'bias', (outputs,)).astype('<f4').tobytes()]
  if leaves:
    raise ValueError(f'{", ".join(sorted(leaves)[:6])}: not of this network')
  return b''.join(parts)
