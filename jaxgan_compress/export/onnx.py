"""Generators as ONNX graphs, made by tracing what they compute."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen
from jax.core import ShapedArray
from jax.extend import core

from jaxgan_compress.nn.layers import conv_dispatch
from jaxgan_compress.nn.layers.resample import CUBIC

LAYOUTS = ('NHWC', 'NCHW')
OPSET = 17
CHANNELS_FIRST = (0, 3, 1, 2)  # NHWC to NCHW, inside the graph always
CHANNELS_LAST = (0, 2, 3, 1)
END = np.iinfo(np.int64).max


def to_onnx(module: linen.Module, variables: Mapping, shape: Sequence[int], layout: str = 'NHWC'):
  """The network as an `onnx.ModelProto`: 'input' -> 'image', float32, of any batch and, where the
  network has it, any height and width that it takes.

  shape: of an input, [B,H,W,C] or [B,latent]. layout: of images that go in and come out.

  The network is traced, and each of its operations becomes one of ONNX: convolutions of every kind,
  norms, paddings, resizing, arithmetic per channel. Constants are computed during the export
  (spectral norms), and scales and shifts of a convolution's channels become part of its weights
  (batch norms). Your own networks are exported in the same way.

  Raises ValueError for another layout, and, with its name and where it is, for an operation that
  has no counterpart here; ImportError without the extra 'export'.
  """
  onnx = _package()
  if layout not in LAYOUTS:
    raise ValueError(f'layout={layout!r}; one of {", ".join(LAYOUTS)}')
  graph, image = read(module, variables, shape, layout)
  images = len(shape) == 4

  def info(name, shape):
    dims = ['batch', *shape[1:]]
    if len(shape) == 4:
      side = ['height', 'width'] if images else list(shape[1:3])
      dims = ['batch', *side, shape[3]] if layout == 'NHWC' else ['batch', shape[3], *side]
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, dims)

  graph.rename(image, 'image')
  model = onnx.helper.make_model(onnx.helper.make_graph(
      [onnx.helper.make_node(node.op, node.inputs, [node.output], name=node.output, **node.fields)
       for node in graph.nodes], type(module).__name__, [info('input', tuple(shape))],
      [info('image', image.shape)],
      [onnx.numpy_helper.from_array(x, name) for name, x in graph.used_constants()]),
      opset_imports=[onnx.helper.make_opsetid('', OPSET)], ir_version=8,
      producer_name='jaxgan_compress')
  onnx.checker.check_model(model, full_check=True)
  return model


def read(module: linen.Module, variables: Mapping, shape: Sequence[int], layout: str = 'NCHW',
         format: str = 'ONNX') -> tuple[_Graph, _Value]:
  """(the graph of what the network computes in inference, its image): ONNX's operations, without
  the package onnx. See `to_onnx`; format: of errors.
  """
  graph = _Graph(format)
  x = jax.ShapeDtypeStruct(tuple(shape), jnp.float32)
  variables = jax.device_get(variables)
  with conv_dispatch.reference(), conv_dispatch.recording(_record):
    traced = jax.make_jaxpr(
        lambda x: module.apply(variables, x, train=False)[0])(x)
  source = _Value('input', tuple(shape))
  if len(shape) == 4 and layout == 'NHWC':
    source = graph.add('Transpose', [source], shape, perm=CHANNELS_FIRST)
  image, = graph.walk(traced, [source])
  if not isinstance(image, _Value):
    raise ValueError(f'{type(module).__name__} gives the same image whatever its input')
  if layout == 'NHWC':
    image = graph.add('Transpose', [image], image.shape, perm=CHANNELS_LAST)
  graph.keep(image)
  graph.fold()
  return graph, image


def run_onnx(model) -> Callable[[np.ndarray], np.ndarray]:
  """A function that runs the network with ONNX Runtime on this CPU.

  model: what `to_onnx` returned, or its bytes. Raises ImportError without the extra 'export'.
  """
  try:
    import onnxruntime
  except ImportError as e:
    raise ImportError('running an ONNX network needs the extra: '
                      'pip install "jaxgan-compress[export]"') from e
  session = onnxruntime.InferenceSession(
      model if isinstance(model, bytes) else model.SerializeToString(),
      providers=['CPUExecutionProvider'])
  return lambda x: np.asarray(session.run(None, {'input': np.asarray(x, np.float32)})[0])


def _package():
  try:
    import onnx
    import onnx.numpy_helper
  except ImportError as e:
    raise ImportError('ONNX needs the extra: pip install "jaxgan-compress[export]"') from e
  return onnx


_operation = core.Primitive('operation')
_operation.def_impl(lambda *arrays, run, **_: run(*arrays))
_operation.def_abstract_eval(lambda *arrays, run, **_: ShapedArray(
    (y := jax.eval_shape(run, *arrays)).shape, y.dtype))


def _record(function, args, kwargs):
  """An `operation` of `nn.layers.conv_dispatch` as one equation: what is None or no array is fixed
  in it."""
  bound = inspect.signature(function).bind(*args, **kwargs)
  bound.apply_defaults()
  arrays = {name: x for name, x in bound.arguments.items()
            if isinstance(x, jax.Array | np.ndarray)}
  fixed = {name: x for name, x in bound.arguments.items() if name not in arrays}
  run = lambda *arrays_: function(**fixed, **dict(zip(arrays, arrays_, strict=True)))
  return _operation.bind(*arrays.values(), run=run, name=function.__name__,
                         arrays=tuple(arrays), fixed=fixed)


@dataclasses.dataclass(frozen=True)
class _Value:
  """A value of the graph: `shape` is that in Flax, but images are NCHW in the graph."""
  name: str
  shape: tuple[int, ...]


@dataclasses.dataclass
class _Node:
  op: str
  inputs: list[str]
  output: str
  fields: dict[str, Any]


class _Graph:

  def __init__(self, format):
    self.format, self.nodes, self.constants = format, [], {}

  def add(self, op, inputs, shape, **fields) -> _Value:
    """A node of inputs that are `_Value`s or constants as the graph has them, or '' for none."""
    name = f'{op.lower()}{len(self.nodes)}'
    self.nodes.append(_Node(op, [self._named(x) for x in inputs], name, fields))
    return _Value(name, tuple(shape))

  def _named(self, x) -> str:
    if isinstance(x, str):
      return x
    if isinstance(x, _Value):
      return x.name
    name = f'constant{len(self.constants)}'
    self.constants[name] = np.asarray(x)
    return name

  def rename(self, value, name):
    for node in self.nodes:
      node.output = name if node.output == value.name else node.output

  def used_constants(self):
    used = {name for node in self.nodes for name in node.inputs}
    return [(name, x) for name, x in self.constants.items() if name in used]

  def walk(self, traced: core.ClosedJaxpr, args, where='') -> list[_Value | np.ndarray]:
    """The outputs of a traced function: a NumPy array is one that depends on no input."""
    jaxpr = traced.jaxpr
    known = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*traced.consts, *args), strict=True))
    read = lambda v: np.asarray(v.val) if isinstance(v, core.Literal) else known[v]
    for eqn in jaxpr.eqns:
      outputs = self._apply(eqn, [read(v) for v in eqn.invars],
                            f'{where}/{eqn.source_info.name_stack}'.strip('/'))
      known.update(zip(eqn.outvars, outputs, strict=True))
    return [read(v) for v in jaxpr.outvars]

  def _apply(self, eqn, inputs, where):
    inner = _inner(eqn)
    if inner:
      return self.walk(inner, inputs, where)
    if not any(isinstance(x, _Value) for x in inputs):
      outputs = eqn.primitive.bind(*map(jnp.asarray, inputs), **eqn.params)
      return [np.asarray(x) for x in (outputs if eqn.primitive.multiple_results else [outputs])]
    name = eqn.params['name'] if eqn.primitive is _operation else eqn.primitive.name
    emit = _EMITTERS.get(name)
    output = emit and emit(self, eqn, *inputs)
    if output is None:
      shapes = ', '.join(str(v.aval.shape) for v in eqn.invars)
      raise ValueError(f'{name} of {shapes} in {where or "the network"} has no counterpart in '
                       f'{self.format} here; build the generator from the layers of '
                       'jaxgan_compress.nn, convolutions and arithmetic per channel, or export it '
                       'to stablehlo')
    return [output]

  def keep(self, value):
    """Removes nodes that `value` does not depend on, such as taps."""
    wanted = {value.name}
    for node in reversed(self.nodes):
      if node.output in wanted:
        wanted.update(node.inputs)
    self.nodes = [node for node in self.nodes if node.output in wanted]

  def fold(self):
    """Moves scales and shifts of a convolution's channels into its weights. Call `keep` first: a
    convolution with a second reader stays as it is."""
    while foldable := self._foldable():
      conv, node, x = foldable
      kernel = self.constants[conv.inputs[1]]
      out = 0 if conv.op == 'Conv' else 1
      bias = self.constants[conv.inputs[2]] if len(conv.inputs) > 2 else np.zeros(
          kernel.shape[out], np.float32)
      x = np.broadcast_to(x.reshape(-1), bias.shape)
      if node.op == 'Mul':
        kernel = kernel * x.reshape([-1 if i == out else 1 for i in range(4)])
        bias = bias * x
      else:
        bias = bias + x if node.op == 'Add' else bias - x
      conv.inputs = [conv.inputs[0], self._named(kernel.astype(np.float32)),
                     self._named(bias.astype(np.float32))]
      conv.output = node.output
      self.nodes.remove(node)

  def _foldable(self):
    """(a convolution, its only reader, the constant by which the reader scales or shifts)."""
    readers = {}
    for node in self.nodes:
      for name in node.inputs:
        readers.setdefault(name, []).append(node)
    for conv in self.nodes:
      if conv.op not in ('Conv', 'ConvTranspose') or len(readers.get(conv.output, ())) != 1:
        continue
      node, = readers[conv.output]
      if node.op not in ('Add', 'Sub', 'Mul') or (node.op == 'Sub' and
                                                  node.inputs[0] != conv.output):
        continue
      x = self.constants.get(node.inputs[node.inputs[0] == conv.output])
      kernel = self.constants.get(conv.inputs[1])
      if x is not None and kernel is not None and x.size in (
          1, kernel.shape[0 if conv.op == 'Conv' else 1]) and (x.ndim < 4 or x.shape[1] == x.size):
        return conv, node, x
    return None


def _inner(eqn) -> core.ClosedJaxpr | None:
  """The traced function inside a call, if the equation is one."""
  for key in ('jaxpr', 'call_jaxpr', 'fun_jaxpr'):
    if key in eqn.params:
      jaxpr = eqn.params[key]
      return jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else core.ClosedJaxpr(jaxpr, ())
  return None


def _constant(x, rank):
  """A constant with the axes of the graph, to combine with a value of rank `rank`."""
  x = np.asarray(x, np.float32)
  return x.transpose(CHANNELS_FIRST) if rank == 4 and x.ndim == 4 else x


def _shape(eqn):
  return eqn.outvars[0].aval.shape


def _pointwise(op):
  def emit(graph, eqn, *inputs):
    shape = _shape(eqn)
    return graph.add(op, [x if isinstance(x, _Value) else _constant(x, len(shape))
                          for x in inputs], shape)
  return emit


def _max(graph, eqn, a, b):
  shape = _shape(eqn)
  value, x = (a, b) if isinstance(a, _Value) else (b, a)
  if not isinstance(x, _Value) and not np.any(x):
    return graph.add('Relu', [value], shape)
  return _pointwise('Max')(graph, eqn, a, b)


def _same(graph, eqn, x):
  return x if jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.floating) else None


def _power(graph, eqn, x):
  return graph.add('Mul', [x, x], x.shape) if eqn.params.get('y', 2) == 2 else None


def _rsqrt(graph, eqn, x):
  return graph.add('Reciprocal', [graph.add('Sqrt', [x], x.shape)], x.shape)


def _conv(graph, eqn, x, kernel):
  p = eqn.params
  numbers = p['dimension_numbers']
  if isinstance(kernel, _Value) or not isinstance(x, _Value) or \
      numbers.lhs_spec != CHANNELS_FIRST or numbers.rhs_spec != (3, 2, 0, 1) or \
      numbers.out_spec != CHANNELS_FIRST or p['batch_group_count'] != 1:
    return None
  kernel = np.asarray(kernel, np.float32)
  low, high = zip(*p['padding'], strict=True)
  if tuple(p['lhs_dilation']) == (1, 1):
    return graph.add('Conv', [x, kernel.transpose(3, 2, 0, 1)], _shape(eqn),
                     strides=p['window_strides'], pads=(*low, *high),
                     dilations=p['rhs_dilation'], group=p['feature_group_count'])
  if tuple(p['window_strides']) != (1, 1) or p['feature_group_count'] != 1 or \
      tuple(p['rhs_dilation']) != (1, 1):
    return None
  # A transposed convolution slides its flipped kernel; it counts its padding from the other side.
  pads = [k - 1 - n for k, n in zip(kernel.shape, low, strict=False)]
  more = [b - a for a, b in zip(low, high, strict=True)]
  if min(pads) < 0 or min(more) < 0:
    return None
  return graph.add('ConvTranspose', [x, kernel[::-1, ::-1].transpose(2, 3, 0, 1)], _shape(eqn),
                   strides=p['lhs_dilation'], pads=(*pads, *pads), output_padding=more)


def _matmul(graph, eqn, x, y):
  contracted, batched = eqn.params['dimension_numbers']
  if contracted != ((1,), (0,)) or batched != ((), ()) or isinstance(y, _Value):
    return None
  return graph.add('MatMul', [x, np.asarray(y, np.float32)], _shape(eqn))


def _reshape(graph, eqn, x):
  before, after = x.shape, _shape(eqn)
  if len(before) == 1 and after == (1, 1, 1, *before):
    return _Value(x.name, after)  # of `channel_mean`, which has this shape in the graph
  if len(before) == 2 and len(after) == 4 and before[0] == after[0]:
    x = graph.add('Reshape', [x, np.array((-1, *after[1:]), np.int64)], after)
    return graph.add('Transpose', [x], after, perm=CHANNELS_FIRST)
  return x if before == after else None


def _slice(graph, eqn, x):
  p, rank = eqn.params, len(x.shape)
  place = CHANNELS_LAST if rank == 4 else range(rank)
  rows = [(start, end, place[i], step) for i, (start, end, step) in enumerate(zip(
      p['start_indices'], p['limit_indices'], p['strides'] or (1,) * rank, strict=True))
      if (start, end, step) != (0, x.shape[i], 1)]
  columns = np.array(rows, np.int64).T
  return graph.add('Slice', [x, *columns], _shape(eqn)) if rows else x


def _concatenate(graph, eqn, *parts):
  if not all(isinstance(x, _Value) for x in parts):
    return None
  axis = eqn.params['dimension']
  shape = _shape(eqn)
  return graph.add('Concat', parts, shape, axis=CHANNELS_LAST[axis] if len(shape) == 4 else axis)


def _pad(graph, eqn, x):
  fixed = eqn.params['fixed']
  n = fixed['amount']
  if not n:
    return x
  mode = {'zero': 'constant', 'replicate': 'edge'}.get(fixed['mode'], fixed['mode'])
  return graph.add('Pad', [x, np.array([0, 0, n, n] * 2, np.int64)], _shape(eqn), mode=mode)


def _upsample(graph, eqn, x):
  factor = eqn.params['fixed']['factor']
  return graph.add('Resize', [x, '', np.array([1, 1, factor, factor], np.float32)], _shape(eqn),
                   mode='nearest', coordinate_transformation_mode='asymmetric',
                   nearest_mode='floor')


def _bicubic(graph, eqn, x):
  factor = eqn.params['fixed']['factor']
  return graph.add('Resize', [x, '', np.array([1, 1, factor, factor], np.float32)], _shape(eqn),
                   mode='cubic', coordinate_transformation_mode='half_pixel',
                   cubic_coeff_a=CUBIC)


def _pixel_shuffle(graph, eqn, x):
  return graph.add('DepthToSpace', [x], _shape(eqn), blocksize=eqn.params['fixed']['factor'],
                   mode='CRD')


def _pixel_unshuffle(graph, eqn, x):
  # ONNX has the channels of one pixel of each square side by side.
  factor, shape = eqn.params['fixed']['factor'], _shape(eqn)
  x = graph.add('SpaceToDepth', [x], shape, blocksize=factor)
  order = np.arange(shape[-1]).reshape(factor ** 2, -1).T.reshape(-1)
  return graph.add('Gather', [x, order], shape, axis=1)


def _prelu(graph, eqn, x, slope):
  return graph.add('PRelu', [x, np.asarray(slope, np.float32)[:, None, None]], x.shape)


def _subsample(graph, eqn, x):
  # By a share of the sides, whatever they are when the graph runs.
  steps = [a // b for a, b in zip(x.shape[1:3], _shape(eqn)[1:3], strict=True)]
  columns = np.array([[0, 0], [END, END], [2, 3], steps], np.int64)
  return graph.add('Slice', [x, *columns], _shape(eqn)) if steps != [1, 1] else x


def _leaky_relu(graph, eqn, x):
  slope = eqn.params['fixed']['slope']
  return graph.add('LeakyRelu', [x], x.shape, alpha=float(slope)) if slope else \
      graph.add('Relu', [x], x.shape)


def _instance_norm(graph, eqn, x, *affine):
  scale, bias = affine or (np.ones(x.shape[-1]), np.zeros(x.shape[-1]))
  return graph.add('InstanceNormalization', [
      x, np.asarray(scale, np.float32), np.asarray(bias, np.float32)], x.shape,
      epsilon=float(eqn.params['fixed']['epsilon']))


def _channel_mean(graph, eqn, x):
  return graph.add('ReduceMean', [x], _shape(eqn), axes=(0, 2, 3), keepdims=1)


_EMITTERS = {
    'add': _pointwise('Add'), 'sub': _pointwise('Sub'), 'mul': _pointwise('Mul'),
    'div': _pointwise('Div'), 'min': _pointwise('Min'), 'max': _max, 'neg': _pointwise('Neg'),
    'tanh': _pointwise('Tanh'), 'exp': _pointwise('Exp'), 'abs': _pointwise('Abs'),
    'logistic': _pointwise('Sigmoid'), 'sqrt': _pointwise('Sqrt'), 'rsqrt': _rsqrt,
    'integer_pow': _power, 'square': _power, 'convert_element_type': _same, 'copy': _same,
    'conv_general_dilated': _conv, 'dot_general': _matmul, 'reshape': _reshape, 'slice': _slice,
    'concatenate': _concatenate, 'pad': _pad, 'upsample': _upsample, 'subsample': _subsample,
    'leaky_relu': _leaky_relu, 'instance_norm': _instance_norm, 'channel_mean': _channel_mean,
    'bicubic': _bicubic, 'pixel_shuffle': _pixel_shuffle, 'pixel_unshuffle': _pixel_unshuffle,
    'prelu': _prelu}
