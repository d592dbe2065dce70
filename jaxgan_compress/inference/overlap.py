"""How far the pixels of an image look in the input, computed from the network's operations."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

from flax import linen

from jaxgan_compress.export import onnx, sides

POINTWISE = {'Add', 'Sub', 'Mul', 'Div', 'Min', 'Max', 'Neg', 'Tanh', 'Exp', 'Abs', 'Sigmoid',
             'Sqrt', 'Reciprocal', 'Relu', 'LeakyRelu', 'Transpose', 'Concat'}
STATISTICS = {'InstanceNormalization', 'ReduceMean'}


@dataclasses.dataclass(frozen=True)
class Field:
  """The pixels of the input that a pixel of the image depends on.

  overlap: the largest distance, in pixels of the input. statistics: how many means over the whole
  picture the network takes besides, as instance norms do.
  """
  overlap: int
  statistics: int


@dataclasses.dataclass(frozen=True)
class _Reach:
  """Pixel i of a map reads the input from step * i + low to step * i + high."""
  step: Fraction
  low: Fraction
  high: Fraction

  def moved(self, step, low, high) -> _Reach:
    """Of a map whose pixel i reads this one from step * i + low to step * i + high."""
    return _Reach(self.step * step, self.low + self.step * low, self.high + self.step * high)


def receptive_field(module: linen.Module, variables) -> Field:
  """The receptive field of a generator of pictures or label maps.

  Raises ValueError for an operation that reads the whole picture, or whose reach is not known here,
  as ONNX's are not known to `export.to_onnx`.
  """
  _, least = sides(module)
  shape = (1, 2 * least, 2 * least, module.example().shape[-1])
  graph, image = onnx.read(module, variables, shape)
  start = _Reach(Fraction(1), Fraction(0), Fraction(0))
  reach: dict[str, _Reach] = {'input': start}
  statistics = 0
  for node in graph.nodes:
    inputs = [reach[name] for name in node.inputs if name in reach]
    if node.op in STATISTICS:
      statistics += 1
    if node.op == 'ReduceMean':  # of the whole map: it is the same for every pixel
      continue
    if inputs:
      reach[node.output] = _through(node, inputs, graph)
  end = reach[image.name]
  return Field(max(math.ceil(-end.low), math.ceil(end.high), 0), statistics)


def _through(node, inputs, graph) -> _Reach:
  """The reach of a node's output, of those of its inputs."""
  first, fields = inputs[0], node.fields
  if node.op == 'Conv':
    size = graph.constants[node.inputs[1]].shape[2] - 1
    low = fields['pads'][0]
    return first.moved(fields['strides'][0], -low, size * fields['dilations'][0] - low)
  if node.op == 'ConvTranspose':
    stride, low = fields['strides'][0], fields['pads'][0]
    size = graph.constants[node.inputs[1]].shape[2] - 1
    return first.moved(Fraction(1, stride), Fraction(low - size, stride), Fraction(low, stride))
  if node.op == 'Pad':
    amount = int(graph.constants[node.inputs[1]][2])
    return first.moved(1, -amount, -amount)
  if node.op == 'Resize':  # nearest, twice as large
    return first.moved(Fraction(1, 2), Fraction(-1, 2), 0)
  if node.op == 'Slice':
    return _sliced(node, first, graph)
  if node.op in POINTWISE | STATISTICS:
    if len({each.step for each in inputs}) > 1:
      raise ValueError('maps of different sizes are added')
    return _Reach(first.step, min(each.low for each in inputs), max(each.high for each in inputs))
  raise ValueError(f'{node.op} reads the whole picture, or its reach is not known')


def _sliced(node, first, graph) -> _Reach:
  starts, _, axes, *steps = (graph.constants[name] for name in node.inputs[1:])
  rows = [i for i, axis in enumerate(axes) if axis == 2]
  if not rows:
    return first
  return first.moved(int(steps[0][rows[0]]) if steps else 1, int(starts[rows[0]]),
                     int(starts[rows[0]]))
