"""Generators as LiteRT (TensorFlow Lite) networks, for telephones and other small computers."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from flax import linen

from jaxgan_compress.export import onnx
from jaxgan_compress.export.onnx import CHANNELS_FIRST, CHANNELS_LAST
from jaxgan_compress.nn.layers import resample


def to_litert(module: linen.Module, variables: Mapping, shape: Sequence[int],
              int8: bool = False) -> bytes:
  """The network as the bytes of a .tflite file: one input and one image, float32, NHWC.

  shape: of an input, [B,H,W,C] or [B,latent]. The file says batch 1 and this size, and takes any
  batch, and any height and width that the network takes, when its user resizes the input
  (`resize_tensor_input`). It has LiteRT's builtin operations alone. int8: weights in 8 bits, and
  products of 8 bits, with ranges of the activations of each call: the converter's dynamic range.

  The graph is that of `to_onnx`, in TensorFlow, for jax2tf would write the traced shapes into it.
  So would transposed convolutions, which LiteRT besides gets wrong where their padding is uneven:
  each is a convolution to the pixels of an output square, and `depth_to_space`.

  Raises ValueError, with its name and where it is, for an operation that has no counterpart here;
  ImportError without the extra 'tf'.
  """
  tf = package()
  graph, image = onnx.read(module, variables, shape, format='LiteRT')
  _check(graph)

  def generate(x):
    known = {**graph.constants, 'input': x}
    for node in graph.nodes:
      inputs = [known.get(name) for name in node.inputs]
      known[node.output] = _OPERATIONS[node.op](tf, *inputs, **node.fields)
    return known[image.name]

  source = tf.TensorSpec((1, *shape[1:]), tf.float32, 'input')
  traced = tf.function(generate, [source], autograph=False).get_concrete_function()
  converter = tf.lite.TFLiteConverter.from_concrete_functions([traced], tf.Module())
  converter.optimizations = [tf.lite.Optimize.DEFAULT] if int8 else []
  return converter.convert()


def _check(graph):
  """Raises ValueError for a node that is not here, or whose axes are: all images are NHWC, and what
  has four axes in another order is theirs on the way to or from another shape alone."""
  orders = {'input': graph.layout, **{node.output: node.order for node in graph.nodes}}
  for node in graph.nodes:
    others = node.inputs[1:]
    mixed = [len(orders.get(name, ())) == 4 and orders[name] != CHANNELS_FIRST
             for name in (*node.inputs, node.output)]
    known = node.op in _OPERATIONS and (node.op not in _FIXED or not any(
        name in orders for name in others)) and not (node.op not in ('Reshape', 'Transpose') and
                                                     any(mixed))
    if node.op == 'Transpose':
      known = node.fields['perm'] in (CHANNELS_FIRST, CHANNELS_LAST)
    if not known or node.fields.keys() & _UNKNOWN.get(node.op, set()):
      raise ValueError(onnx.no_counterpart(node.source, 'LiteRT'))


def run_litert(model: bytes) -> Callable[[np.ndarray], np.ndarray]:
  """A function that runs LiteRT, or TensorFlow's copy of it, on this CPU, from inputs of
  whatever batch and size. model: of `to_litert`. Raises ImportError without ai-edge-litert and
  without the extra 'tf'."""
  try:
    # Optional, and not in any extra of ours.
    from ai_edge_litert.interpreter import Interpreter  # pyright: ignore[reportMissingImports]
  except ImportError:
    Interpreter = package().lite.Interpreter
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # of TensorFlow's: that it will be gone
    interpreter = Interpreter(model_content=model, num_threads=os.cpu_count())
  source, = interpreter.get_input_details()
  image, = interpreter.get_output_details()
  allocated = None

  def run(x):
    nonlocal allocated
    x = np.asarray(x, np.float32)
    if x.shape != allocated:
      interpreter.resize_tensor_input(source['index'], x.shape)
      interpreter.allocate_tensors()
      allocated = x.shape
    interpreter.set_tensor(source['index'], x)
    interpreter.invoke()
    return interpreter.get_tensor(image['index'])

  return run


def package():
  """TensorFlow; raises ImportError without the extra 'tf'."""
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # or it tells of GPUs that it does not have
  try:
    import tensorflow
  except ImportError as e:
    raise ImportError('LiteRT needs the extra: pip install "jaxgan-compress[tf]"; to run a '
                      'network, ai-edge-litert is enough') from e
  return tensorflow


def _math(name):
  def operation(tf, *inputs):
    return getattr(tf.math, name)(*(
        x.transpose(CHANNELS_LAST) if isinstance(x, np.ndarray) and x.ndim == 4 else x
        for x in inputs))
  return operation


def _conv(tf, x, kernel, bias=None, *, strides, pads, dilations, group):
  kernel = kernel.transpose(2, 3, 1, 0)
  top, left, bottom, right = pads
  reach = [(k - 1) * n for k, n in zip(kernel.shape, dilations, strict=False)]
  padding = 'VALID'
  if max(strides) == 1 and [2 * top, 2 * left] == [2 * bottom, 2 * right] == reach:
    padding = 'SAME'
  elif any(pads):
    x = tf.pad(x, [(0, 0), (top, bottom), (left, right), (0, 0)])
  if group > 1 and group == x.shape[-1]:
    kernel = kernel.reshape(*kernel.shape[:2], group, -1)
    y = tf.nn.depthwise_conv2d(x, kernel, [1, *strides, 1], padding, dilations=dilations)
  else:
    y = tf.nn.conv2d(x, kernel, strides, padding, dilations=dilations)
  return y if bias is None else tf.nn.bias_add(y, bias)


def _conv_transpose(tf, x, kernel, bias=None, *, strides, pads, output_padding):
  """Row s m + p of the whole output is the sum over j of input rows m - j times kernel rows
  s j + p: the rows of one m are one convolution to s times the channels. Padding is cut off."""
  s = strides[0]
  if s != strides[1]:
    raise ValueError(f'a transposed convolution of strides {tuple(strides)} has no counterpart in '
                     'LiteRT here; give both axes the same, or export it to stablehlo')
  inputs, features, *sides = kernel.shape
  # The kernel rows that meet an output row: as many for each, and for what output_padding adds.
  taps = [-(-(k + max(0, more - n)) // s)
          for k, n, more in zip(sides, pads, output_padding, strict=False)]
  zeros = [s * n - k for n, k in zip(taps, sides, strict=True)]
  kernel = np.pad(kernel, ((0, 0), (0, 0), *((0, n) for n in zeros)))
  kernel = kernel.reshape(inputs, features, taps[0], s, taps[1], s)[:, :, ::-1, :, ::-1]
  kernel = kernel.transpose(2, 4, 0, 3, 5, 1).reshape(*taps, inputs, s * s * features)
  x = tf.pad(x, [(0, 0), *((n - 1, n - 1) for n in taps), (0, 0)])
  y = tf.nn.conv2d(x, kernel, 1, 'VALID')
  if bias is not None:
    y = tf.nn.bias_add(y, np.tile(bias, s * s))
  # From the end, since sides are known when the network runs.
  kept = [slice(n, -(extra + n - more) or None)
          for n, extra, more in zip(pads, zeros, output_padding, strict=False)]
  return tf.nn.depth_to_space(y, s)[:, kept[0], kept[1]]


def _pad(tf, x, amounts, value=0., *, mode):
  n = int(amounts[2])
  if mode == 'constant':
    pairs = np.reshape(amounts, (2, -1)).T
    pairs = pairs[list(CHANNELS_LAST)] if len(x.shape) == 4 else pairs
    return tf.pad(x, pairs, constant_values=float(value))
  # Not MIRROR_PAD: with slices a ResNet of 9 blocks takes half the time.
  before, after = [slice(0, 1)] * n, [slice(-1, None)] * n
  if mode == 'reflect':
    before = [slice(i, i + 1) for i in range(n, 0, -1)]
    after = [slice(-i - 1, -i) for i in range(1, n + 1)]
  x = tf.concat([*(x[:, at] for at in before), x, *(x[:, at] for at in after)], 1)
  return tf.concat([*(x[:, :, at] for at in before), x, *(x[:, :, at] for at in after)], 2)


def _slice(tf, x, starts, ends, axes, steps):
  where = [slice(None)] * len(x.shape)
  for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
    where[_axis(x, axis)] = slice(int(start), None if end == onnx.END else int(end), int(step))
  return x[tuple(where)]


def _axis(x, axis):
  return CHANNELS_FIRST[axis] if len(x.shape) == 4 else axis


def _resize(tf, x, _, scales, *, mode, **__):
  if mode == 'cubic':
    return _bicubic(tf, x, float(scales[2]))
  factor = int(scales[2])
  return tf.nn.depth_to_space(tf.concat([x] * factor ** 2, -1), factor)


def _bicubic(tf, x, factor):
  phases, period = resample.BICUBIC[factor]
  border = 2
  x = _pad(tf, x, [0, 0, border, border], mode='edge')

  def pixels(x, axis):
    """For each phase, its pixels along an axis. Ends count from the end, as in `_conv_transpose`.
    """
    for phase in range(phases):
      first, weights = resample.cubic_taps(phase, period / phases)
      taps = [slice(first + i + border, first + i - 1 - period, period) for i in range(4)]
      yield sum(weight * x[(slice(None),) * axis + (tap,)]
                for weight, tap in zip(weights, taps, strict=True))

  parts = [y for rows in pixels(x, 1) for y in pixels(rows, 2)]
  return tf.nn.depth_to_space(tf.concat(parts, -1), phases) if phases > 1 else parts[0]


def _depth_to_space(tf, x, *, blocksize, mode):
  # TensorFlow has the channels of one pixel of each square side by side.
  order = np.arange(x.shape[-1]).reshape(-1, blocksize ** 2).T.reshape(-1)
  return tf.nn.depth_to_space(tf.gather(x, order, axis=-1), blocksize)


def _prelu(tf, x, slope):
  # Not tf.where, whose branches LiteRT would compute apart.
  return tf.nn.relu(x) + slope.reshape(-1) * tf.minimum(x, 0.)


def _instance_norm(tf, x, scale, bias, *, epsilon):
  # An axis after the other: LiteRT adds a whole map up one by one, and rounds as often.
  mean = lambda x: tf.reduce_mean(tf.reduce_mean(x, 1, keepdims=True), 2, keepdims=True)
  y = x - mean(x)
  inverse = tf.math.rsqrt(mean(tf.square(y)) + epsilon)
  y = y * (inverse * scale if np.any(scale != 1) else inverse)
  return y + bias if np.any(bias) else y


_OPERATIONS = {
    'Add': _math('add'), 'Sub': _math('subtract'), 'Mul': _math('multiply'),
    'Div': _math('divide'), 'Min': _math('minimum'), 'Max': _math('maximum'),
    'Neg': _math('negative'), 'Tanh': _math('tanh'), 'Exp': _math('exp'), 'Abs': _math('abs'),
    'Sigmoid': _math('sigmoid'), 'Sqrt': _math('sqrt'), 'Reciprocal': _math('reciprocal'),
    'Relu': lambda tf, x: tf.nn.relu(x),
    'LeakyRelu': lambda tf, x, alpha: tf.nn.leaky_relu(x, alpha),
    'MatMul': lambda tf, x, y: tf.matmul(x, y),
    'Reshape': lambda tf, x, shape: tf.reshape(x, shape),
    'Transpose': lambda tf, x, perm: x,  # to NCHW, where the graph has images
    'Concat': lambda tf, *parts, axis: tf.concat(parts, _axis(parts[0], axis)),
    'ReduceMean': lambda tf, x, axes, keepdims: tf.reduce_mean(
        x, [_axis(x, axis) for axis in axes], keepdims=bool(keepdims)),
    'Conv': _conv, 'ConvTranspose': _conv_transpose, 'Pad': _pad, 'Slice': _slice,
    'Resize': _resize, 'DepthToSpace': _depth_to_space, 'PRelu': _prelu,
    'SpaceToDepth': lambda tf, x, blocksize: tf.nn.space_to_depth(x, blocksize),
    'Gather': lambda tf, x, order, axis: tf.gather(x, order, axis=_axis(x, axis)),
    'InstanceNormalization': _instance_norm}
# Operations whose other inputs are constants, and fields of nodes that are not here.
_FIXED = ('Conv', 'ConvTranspose', 'Slice', 'Gather', 'Pad', 'Reshape')
_UNKNOWN = {'Conv': {'auto_pad'}, 'ConvTranspose': {'group', 'dilations'}}
