"""Generators as LiteRT (TensorFlow Lite) networks, for telephones and other small computers."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from flax import linen

from jaxgan_compress.export import onnx

_LAST = (0, 2, 3, 1)  # NCHW, as the graph has constants, to NHWC
_PLACE = (0, 3, 1, 2)  # where NHWC has the axes of NCHW


def to_litert(module: linen.Module, variables: Mapping, shape: Sequence[int]) -> bytes:
  """The network as a .tflite file's bytes: one input and one image, float32, NHWC.

  shape: of an input, [B,H,W,C] or [B,latent]; the file has batch 1 and this size until its user
  resizes the input (`resize_tensor_input`), to any batch, and any height and width that the
  network takes. All of it is LiteRT's builtin operations.

  It is the graph of `to_onnx`, its operations in TensorFlow. No shape is written in it: LiteRT
  would keep those of a transposed convolution when the input is resized. That is therefore a
  convolution to the four pixels of each output square, and `depth_to_space`.

  Raises ValueError, with its name and where it is, for an operation that has no counterpart here;
  ImportError without the extra 'tf'.
  """
  tf = package()
  graph, found = onnx.read(module, variables, shape, format='LiteRT')

  def draw(x):
    known = {'input': x}
    for node in graph.nodes:
      given = [known.get(name, graph.constants.get(name)) for name in node.inputs]
      known[node.output] = _OPERATIONS[node.op](tf, *given, **node.fields)
    return known[found.name]

  given = tf.TensorSpec((1, *shape[1:]), tf.float32, 'input')
  traced = tf.function(draw, [given], autograph=False).get_concrete_function()
  return tf.lite.TFLiteConverter.from_concrete_functions([traced]).convert()


def run_litert(model: bytes) -> Callable[[np.ndarray], np.ndarray]:
  """Inputs to images, by LiteRT or TensorFlow on this CPU, of whatever batch and size. Raises
  ImportError without the extra 'tf'."""
  try:
    from ai_edge_litert.interpreter import Interpreter
  except ImportError:
    Interpreter = package().lite.Interpreter  # noqa: N806 - a class
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # that TensorFlow's will be gone
    interpreter = Interpreter(model_content=model, num_threads=os.cpu_count())
  given, = interpreter.get_input_details()
  drawn, = interpreter.get_output_details()
  shape = None

  def draw(x):
    nonlocal shape
    if x.shape != shape:
      interpreter.resize_tensor_input(given['index'], x.shape)
      interpreter.allocate_tensors()
      shape = x.shape
    interpreter.set_tensor(given['index'], np.asarray(x, np.float32))
    interpreter.invoke()
    return interpreter.get_tensor(drawn['index'])

  return draw


def package():
  """TensorFlow; raises ImportError without the extra 'tf'."""
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  try:
    import tensorflow
  except ImportError as e:
    raise ImportError('LiteRT needs the extra: pip install "jaxgan-compress[tf]"') from e
  return tensorflow


def _pointwise(name):
  def emit(tf, *given):
    for scope in (tf.math, tf.nn):
      if hasattr(scope, name):
        return getattr(scope, name)(*map(_constant, given))
    raise AssertionError(name)
  return emit


def _constant(x):
  return x.transpose(_LAST) if isinstance(x, np.ndarray) and x.ndim == 4 else x


def _conv(tf, x, kernel, bias=None, *, strides, pads, dilations, group):
  strides, dilations = list(strides), list(dilations)
  kernel = kernel.transpose(2, 3, 1, 0)
  top, left, bottom, right = pads
  span = [(k - 1) * d for k, d in zip(kernel.shape, dilations, strict=False)]
  if strides == [1, 1] and [2 * top, 2 * left] == span == [2 * bottom, 2 * right]:
    padding = 'SAME'
  else:
    padding = 'VALID'
    x = tf.pad(x, [(0, 0), (top, bottom), (left, right), (0, 0)]) if any(pads) else x
  if group > 1 and group == x.shape[-1]:
    kernel = kernel.reshape(*kernel.shape[:2], group, -1)
    y = tf.nn.depthwise_conv2d(x, kernel, [1, *strides, 1], padding, dilations=dilations)
  else:
    y = tf.nn.conv2d(x, kernel, strides, padding, dilations=dilations)
  return y if bias is None else tf.nn.bias_add(y, bias)


def _conv_transpose(tf, x, kernel, bias=None, *, strides, pads, output_padding):
  """Output row s m + p, before the padding is cut off, sees input rows m - j through kernel rows
  s j + p: a convolution to s * s pixels at once."""
  s, = set(strides)
  top, left, *_ = pads
  inputs, features, *sides = kernel.shape
  # Rows of zeros make the kernel a multiple of s, and reach what output_padding adds.
  taps = [-(-(k + max(0, more - n)) // s)
          for k, n, more in zip(sides, pads, output_padding, strict=False)]
  ends = [s * t - k + n - more
          for t, k, n, more in zip(taps, sides, pads, output_padding, strict=False)]
  (rows, columns), (k, l) = taps, sides
  kernel = np.pad(kernel, ((0, 0), (0, 0), (0, s * rows - k), (0, s * columns - l)))
  kernel = kernel.reshape(inputs, features, rows, s, columns, s)[:, :, ::-1, :, ::-1]
  kernel = kernel.transpose(2, 4, 0, 3, 5, 1).reshape(rows, columns, inputs, s * s * features)
  around = [(n - 1, n - 1) for n in taps]
  y = tf.nn.conv2d(tf.pad(x, [(0, 0), *around, (0, 0)]), kernel, 1, 'VALID')
  if bias is not None:
    y = tf.nn.bias_add(y, np.tile(bias, s * s))
  y = tf.nn.depth_to_space(y, s)
  return y[:, top:-ends[0] or None, left:-ends[1] or None]


def _pad(tf, x, amounts, *, mode):
  n = int(amounts[2])
  if mode == 'edge':  # n times its border, of which there is no operation but this
    for _ in range(n):
      x = tf.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], 'SYMMETRIC')
    return x
  return tf.pad(x, [(0, 0), (n, n), (n, n), (0, 0)], mode)


def _upsample(tf, x, *_, **__):
  return tf.nn.depth_to_space(tf.concat([x] * 4, -1), 2)


def _slice(tf, x, starts, ends, axes, steps):
  where = [slice(None)] * len(x.shape)
  for start, end, axis, step in zip(*map(np.ndarray.tolist, (starts, ends, axes, steps)),
                                    strict=True):
    where[_axis(x, axis)] = slice(start, None if end == onnx.END else end, step)
  return x[tuple(where)]


def _axis(x, axis):
  return _PLACE[axis] if len(x.shape) == 4 else axis


def _instance_norm(tf, x, scale, bias, *, epsilon):
  y = x - tf.reduce_mean(x, (1, 2), keepdims=True)
  inverse = tf.math.rsqrt(tf.reduce_mean(tf.square(y), (1, 2), keepdims=True) + epsilon)
  if np.any(scale != 1):
    inverse = inverse * scale
  y = y * inverse
  return y + bias if np.any(bias) else y


_OPERATIONS = {
    'Add': _pointwise('add'), 'Sub': _pointwise('subtract'), 'Mul': _pointwise('multiply'),
    'Div': _pointwise('divide'), 'Min': _pointwise('minimum'), 'Max': _pointwise('maximum'),
    'Neg': _pointwise('negative'), 'Tanh': _pointwise('tanh'), 'Exp': _pointwise('exp'),
    'Abs': _pointwise('abs'), 'Sigmoid': _pointwise('sigmoid'), 'Sqrt': _pointwise('sqrt'),
    'Reciprocal': _pointwise('reciprocal'), 'Relu': _pointwise('relu'),
    'LeakyRelu': lambda tf, x, alpha: tf.nn.leaky_relu(x, alpha),
    'MatMul': lambda tf, x, y: tf.matmul(x, y), 'Reshape': lambda tf, x, to: tf.reshape(x, to),
    'Transpose': lambda tf, x, perm: x,  # to NCHW, which is nowhere here
    'Concat': lambda tf, *parts, axis: tf.concat(parts, _axis(parts[0], axis)),
    'ReduceMean': lambda tf, x, axes, keepdims: tf.reduce_mean(
        x, [_axis(x, axis) for axis in axes], keepdims=bool(keepdims)),
    'Conv': _conv, 'ConvTranspose': _conv_transpose, 'Pad': _pad, 'Resize': _upsample,
    'Slice': _slice, 'InstanceNormalization': _instance_norm}
