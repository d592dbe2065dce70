"""Generators as ONNX graphs, made by tracing what they compute."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from flax import linen
from jax.core import ShapedArray
from jax.extend import core

from jaxgan_compress.export.stablehlo import sides
from jaxgan_compress.nn.layers import conv_dispatch
from jaxgan_compress.nn.layers.resample import CUBIC
from jaxgan_compress.tracing.program import scan_counts

LAYOUTS = ('NHWC', 'NCHW')
OPSET = 17
CHANNELS_FIRST = (0, 3, 1, 2)  # NHWC to NCHW, inside the graph always
CHANNELS_LAST = (0, 2, 3, 1)
END = np.iinfo(np.int64).max
UNROLLED = 128  # iterations of a scan, at most: each is written out


def to_onnx(module: linen.Module, variables: Mapping, shape: Sequence[int], layout: str = 'NHWC'):
  """The network as an `onnx.ModelProto`: 'input' -> 'image', float32, of any batch and any height
  and width that it takes.

  shape: of an input, [B,H,W,C] or [B,latent]. layout: of images that go in and come out.

  The network is traced, and each of its operations becomes some of ONNX: convolutions of every
  kind, pooling, norms, attention, paddings, resizing, arithmetic. Constants are computed during the
  export (spectral norms), and scales and shifts of a convolution's channels become part of its
  weights (batch norms). Your own networks are exported in the same way.

  A network whose code needs to know numbers of pixels is of this height and width alone, and one
  whose code needs to know the batch takes batches of 1; the file says so.

  Raises ValueError for another layout, and, with its name and where it is, for an operation that
  has no counterpart here; ImportError without the extra 'export'.
  """
  onnx = _package()
  if layout not in LAYOUTS:
    raise ValueError(f'layout={layout!r}; one of {", ".join(LAYOUTS)}')
  graph, image = read(module, variables, shape, layout)

  def info(name, shape, order):
    return onnx.helper.make_tensor_value_info(
        name, onnx.TensorProto.FLOAT, [graph.side(shape[axis], f'{name}{axis}') for axis in order])

  graph.rename(image, 'image')
  model = onnx.helper.make_model(onnx.helper.make_graph(
      [onnx.helper.make_node(node.op, node.inputs, [node.output], name=node.output, **node.fields)
       for node in graph.nodes], type(module).__name__,
      [info('input', graph.shape, _order(layout, len(shape)))],
      [info('image', image.shape, image.order)],
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
  variables = jax.tree.map(jnp.asarray, variables)  # arrays of NumPy take no traced indices
  *free, fixed = _sizes(module, shape)
  for sizes in free:
    try:
      return _read(module, variables, sizes, layout, format)
    except _UnknownError:
      break  # of whatever sizes
    except Exception:  # whatever code raises that needs to know numbers
      continue
  return _read(module, variables, fixed, layout, format)


class _UnknownError(ValueError):
  """An operation that a format does not have, of whatever sizes."""


def _sizes(module, shape):
  """Shapes of an input, from those with most that is free to the given one, each with what its
  sides are multiples of."""
  if len(shape) == 4:
    step, least = sides(module)
    for batch in ('b', '1'):
      yield jax.export.symbolic_shape(
          f'{batch}, {step}*h, {step}*w, {shape[-1]}',
          constraints=[f'{name} >= {-(-least // step)}' for name in 'hw']), step
  yield (*jax.export.symbolic_shape('b'), *shape[1:]), 1
  if shape[0] != 1:
    yield (1, *shape[1:]), 1
  yield tuple(shape), 1


def _read(module, variables, sizes, layout, format):
  shape, step = sizes
  graph = _Graph(format, shape, step, _order(layout, len(shape)))
  with conv_dispatch.reference(), conv_dispatch.recording(_record):
    traced = jax.make_jaxpr(lambda x: module.apply(variables, x, train=False)[0])(
        jax.ShapeDtypeStruct(shape, jnp.float32))
  image, = graph.walk(traced, [graph.ordered(_Value('input', shape, graph.layout))])
  if not isinstance(image, _Value):
    raise ValueError(f'{type(module).__name__} gives the same image whatever its input')
  image = graph.ordered(image, _order(layout, len(image.shape)))
  if image.name == 'input':
    image = graph.add('Identity', [image], shape, image.order)
  graph.keep(image)
  graph.fold()
  return graph, image


def _order(layout, rank):
  return _usual(rank) if layout == 'NCHW' else tuple(range(rank))


def _usual(rank) -> tuple[int, ...]:
  """The order of the axes in the graph, where nothing asks for another."""
  return CHANNELS_FIRST if rank == 4 else tuple(range(rank))


def run_onnx(model) -> Callable[[np.ndarray], np.ndarray]:
  """A function that runs the network with ONNX Runtime on this CPU.

  model: what `to_onnx` returned, or its bytes. Raises ImportError without the extra 'export'.
  """
  try:
    import onnxruntime
  except ImportError as e:
    raise ImportError('running an ONNX network needs the extra: '
                      'pip install "jaxgan-compress[export]"') from e
  session: Any = onnxruntime.InferenceSession(
      model if isinstance(model, bytes) else model.SerializeToString(),
      providers=['CPUExecutionProvider'])
  batch, *sizes = session.get_inputs()[0].shape

  def run(x):
    x = np.asarray(x, np.float32)
    if any(isinstance(n, int) and n != given for n, given in zip(sizes, x.shape[1:], strict=True)):
      raise ValueError(f'this ONNX network takes {[batch, *sizes]} and got {list(x.shape)}: its '
                       'code needs to know these sizes; export it for others anew')
    parts = [x[i:i + 1] for i in range(len(x))] if batch == 1 else [x]
    return np.concatenate([session.run(None, {'input': part})[0] for part in parts])

  return run


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
  """A value of the graph: axis i there is axis `order[i]` of `shape`, which is that in Flax."""
  name: str
  shape: tuple[Any, ...]
  order: tuple[int, ...]


@dataclasses.dataclass
class _Node:
  op: str
  inputs: list[str]
  output: str
  fields: dict[str, Any]
  order: tuple[int, ...]
  source: str  # the operation in the network


_OUTPUT_AXES = {'Conv': 0, 'ConvTranspose': 1}  # of kernels


class _Graph:

  def __init__(self, format, shape, step, layout):
    self.format, self.shape, self.layout, self.step = format, shape, layout, step
    self.nodes, self.constants, self.source = [], {}, ''
    self.transposed: dict[str, tuple[str, tuple[int, ...]]] = {}  # name -> (of what, perm)
    self.spread: dict[str, _Value | np.ndarray] = {}  # name -> what is repeated along axes of 1
    self.computed: dict[Any, _Value] = {}

  def add(self, op, inputs, shape, order=None, **fields) -> _Value:
    """A node of inputs that are `_Value`s or constants as the graph has them, or '' for none."""
    name = f'{op.lower()}{len(self.nodes)}'
    order = _usual(len(shape)) if order is None else tuple(order)
    self.nodes.append(_Node(op, [self._named(x) for x in inputs], name, fields, order, self.source))
    return _Value(name, tuple(shape), order)

  def _named(self, x) -> str:
    if isinstance(x, str):
      return x
    if isinstance(x, _Value):
      return x.name
    name = f'constant{len(self.constants)}'
    self.constants[name] = np.asarray(x)
    return name

  def value(self, x) -> _Value:
    """A value, or a constant as one."""
    if isinstance(x, _Value):
      return x
    return _Value(self._named(_typed(x)), np.shape(x), tuple(range(np.ndim(x))))

  def ordered(self, x, order=None) -> Any:
    """A value with its axes in this order in the graph, or a constant as the graph has it."""
    order = _usual(len(_shape_of(x))) if order is None else tuple(order)
    if not isinstance(x, _Value):
      return _typed(x).transpose(order)
    if x.order == order:
      return x
    of, perm = self.transposed.get(x.name, (x.name, tuple(range(len(order)))))
    before = [x.order[perm.index(i)] for i in range(len(order))]
    perm = tuple(before.index(axis) for axis in order)
    if perm == tuple(range(len(order))):
      return _Value(of, x.shape, order)
    if (of, perm) not in self.computed:
      y = self.computed[of, perm] = self.add('Transpose', [of], x.shape, order, perm=perm)
      self.transposed[y.name] = of, perm
    return _Value(self.computed[of, perm].name, x.shape, order)

  def side(self, size, name: str) -> int | str:
    """What a file says of an axis: its size, or its name."""
    names = 'batch', 'height', 'width'
    named: dict[str, str] = dict(zip(map(str, self.shape), names, strict=False))
    return size if _known(size) else named.get(str(size), name)

  def number(self, size) -> np.int64 | _Value:
    """A size as a scalar, computed where the graph runs if it depends on the input's."""
    if _known(size):
      return np.int64(size)
    if str(size) not in self.computed:
      self.computed[str(size)] = _evaluated(size, self._symbol, self._operate)
    return self.computed[str(size)]

  def _symbol(self, name):
    if name not in self.computed:
      axis = 'bhw'.index(name)
      shape = self.add('Shape', ['input'], (len(self.shape),))
      at = np.int64(self.layout.index(axis))
      self.computed[name] = self.add('Gather', [shape, at], (), axis=0)
      if axis and self.step > 1:  # by a reshape, which fails for a side that is no multiple
        pixels = self.add('Range', [np.int64(0), self.computed[name], np.int64(1)], (axis,))
        rows = self.add('Reshape', [pixels, np.array([-1, self.step], np.int64)], (axis, self.step))
        shape = self.add('Shape', [rows], (2,))
        self.computed[name] = self.add('Gather', [shape, np.int64(0)], (), axis=0)
    return self.computed[name]

  def _operate(self, op, a, b):
    if op == 'floordiv':  # ONNX rounds towards zero
      a, op = self._operate('Sub', a, self._operate('Mod', a, b)), 'Div'
    return self.add(op, [a, b], ())

  def sizes(self, sizes) -> np.ndarray | _Value:
    """Sizes as a vector."""
    if all(map(_known, sizes)):
      return np.array(sizes, np.int64)
    one = np.array([1], np.int64)
    parts = [np.array([size], np.int64) if _known(size) else
             self.add('Reshape', [self.number(size), one], (1,)) for size in sizes]
    return self.add('Concat', parts, (len(sizes),), axis=0)

  def reshape(self, x, shape) -> _Value | np.ndarray:
    """A reshape, without a transposition where axes that are joined or parted lie side by side."""
    if not isinstance(x, _Value):
      return np.reshape(x, shape)
    if x.shape == tuple(shape):
      return x
    groups = _groups(x.shape, shape)
    if _side_by_side(x, groups) is None:
      x = self.ordered(x, range(len(x.shape)))
    order = _with_ones(_side_by_side(x, groups), len(shape))
    target = [shape[axis] for axis in order]
    # 0 is the input's size at the same place, and -1 what is left.
    target = [0 if not _known(n) and i < len(x.order) and n == x.shape[x.order[i]] else n
              for i, n in enumerate(target)]
    if sum(not _known(n) for n in target) > 1:
      target = [shape[axis] for axis in order]
      vector = self.sizes(target)
    else:
      vector = np.array([n if _known(n) else -1 for n in target], np.int64)
    y = self.add('Reshape', [x, vector], shape, order)
    return self.ordered(y) if order == tuple(range(4)) else y

  def repeat(self, x, shape) -> _Value:
    """A value or constant along axes where it has size 1."""
    if isinstance(x, _Value) and x.shape == tuple(shape):
      return x
    order = x.order if isinstance(x, _Value) else _usual(len(shape))
    before = _shape_of(x)
    sizes = [1 if before[axis] == shape[axis] else shape[axis] for axis in order]
    y = self.add('Expand', [self.ordered(x, order), self.sizes(sizes)], shape, order)
    self.spread[y.name] = x
    return y

  def cut(self, x, rows) -> _Value:
    """A slice of (start, end, step) along each axis."""
    starts, ends, places, steps = [], [], [], []
    shape = [_length(*row) for row in rows]
    for place, axis in enumerate(x.order):
      size, (start, end, step) = x.shape[axis], rows[axis]
      if (start, end, step) != (0, size, 1):
        from_end = lambda n, size=size: n if _known(n) or not _known(n - size) else n - size
        starts.append(from_end(start))
        ends.append(END if end == size else -END if end == -1 else from_end(end))
        places.append(place)
        steps.append(step)
    if not places:
      return x
    return self.add('Slice', [x, self.sizes(starts), self.sizes(ends), np.array(places, np.int64),
                              np.array(steps, np.int64)], shape, x.order)

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
    outputs = self._inlined(eqn, inputs, where)
    if outputs is not None:
      return outputs
    shapes = [v.aval.shape for v in eqn.outvars]
    if any(0 in shape for shape in shapes):  # as of a padding by 0
      return [_Value('', shape, tuple(range(len(shape)))) for shape in shapes]
    if not any(isinstance(x, _Value) for x in inputs) and eqn.primitive.name != 'dim_as_value' and \
        all(_known(n) for shape in shapes for n in shape):
      outputs = eqn.primitive.bind(*map(jnp.asarray, inputs), **eqn.params)
      return [np.asarray(x) for x in (outputs if eqn.primitive.multiple_results else [outputs])]
    return self._emitted(eqn, inputs, where)

  def _inlined(self, eqn, inputs, where):
    """The outputs of the traced function that an equation calls, or None if it calls none."""
    inner = _inner(eqn)
    if inner:
      return self.walk(inner, inputs, where)
    if eqn.primitive.name == 'scan':
      return self._unrolled(eqn, inputs, where)
    if eqn.primitive.name == 'cond' and not isinstance(inputs[0], _Value):
      branches = eqn.params['branches']
      return self.walk(branches[np.clip(int(inputs[0]), 0, len(branches) - 1)], inputs[1:], where)
    return None

  def _emitted(self, eqn, inputs, where):
    ours = eqn.primitive is _operation
    name = eqn.params['name'] if ours else eqn.primitive.name
    given = ', '.join(str(v.aval.shape) for v in eqn.invars)
    self.source = f'{name} of {given} in {where or "the network"}'
    emit = (_OPERATIONS if ours else _EMITTERS).get(name)
    if emit is None:
      raise _UnknownError(no_counterpart(self.source, self.format))
    if ours:
      inputs = [self.ordered(x) if isinstance(x, _Value) else x for x in inputs]
    output = emit(self, eqn, *inputs)
    if output is None:
      raise ValueError(no_counterpart(self.source, self.format))
    return output if isinstance(output, list) else [output]

  def _unrolled(self, eqn, inputs, where):
    p = eqn.params
    if not _known(p['length']) or p['length'] > UNROLLED:
      raise ValueError(f'a scan of {p["length"]} iterations in {where or "the network"} is not '
                       f'written out here, which is done up to {UNROLLED}; export the network to '
                       'stablehlo')
    before, carried = scan_counts(p)
    fixed, carry, rows = inputs[:before], inputs[before:before + carried], inputs[before + carried:]
    taken = []
    for i in range(p['length'])[::-1 if p['reverse'] else 1]:
      outputs = self.walk(p['jaxpr'], [*fixed, *carry, *(self._row(x, i) for x in rows)], where)
      carry = outputs[:carried]
      taken.append(outputs[carried:])
    return [*carry, *(_stacked(self, column, 0) for column in zip(
        *(taken[::-1] if p['reverse'] else taken), strict=True))]

  def _row(self, x, i):
    if not isinstance(x, _Value):
      return x[i]
    return self.reshape(self.cut(x, [(i, i + 1, 1), *((0, n, 1) for n in x.shape[1:])]),
                        x.shape[1:])

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
      out = _OUTPUT_AXES[conv.op]
      bias = self.constants[conv.inputs[2]] if len(conv.inputs) > 2 else np.zeros(
          kernel.shape[out], np.float32)
      x = np.broadcast_to(x.reshape(-1), bias.shape)
      if node.op == 'Mul':
        kernel = kernel * x.reshape([-1 if i == out else 1 for i in range(kernel.ndim)])
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
      if conv.op in _OUTPUT_AXES and len(readers.get(conv.output, ())) == 1:
        node, = readers[conv.output]
        x = self._moved(conv, node)
        if x is not None:
          return conv, node, x
    return None

  def _moved(self, conv, node) -> np.ndarray | None:
    """The constant by which a convolution's reader scales or shifts its channels, if it does."""
    if node.op not in ('Add', 'Sub', 'Mul') or (
        node.op == 'Sub' and node.inputs[0] != conv.output) or (
            conv.op == 'ConvTranspose' and 'group' in conv.fields):
      return None
    x = self.constants.get(node.inputs[node.inputs[0] == conv.output])
    kernel = self.constants.get(conv.inputs[1])
    if x is None or kernel is None:
      return None
    of_channels = x.ndim == kernel.ndim and \
        x.shape[1] == x.size == kernel.shape[_OUTPUT_AXES[conv.op]]
    return x if x.size == 1 or of_channels else None


def no_counterpart(source: str, format: str) -> str:
  """What is said of an operation that a format does not have."""
  return (f'{source} has no counterpart in {format} here; build the generator from the layers of '
          'jaxgan_compress.nn and ordinary operations of image networks, or export it to stablehlo')


def _inner(eqn) -> core.ClosedJaxpr | None:
  """The traced function inside a call, if the equation is one."""
  if eqn.primitive.name in ('scan', 'reduce', 'reduce_window', 'while', 'cond'):
    return None
  for key in ('jaxpr', 'call_jaxpr', 'fun_jaxpr'):
    if key in eqn.params:
      jaxpr = eqn.params[key]
      return jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else core.ClosedJaxpr(jaxpr, ())
  return None


def _known(size) -> bool:
  return isinstance(size, int | np.integer)


_CALLS = {'floordiv': 'floordiv', 'mod': 'Mod', 'max': 'Max', 'min': 'Min'}
_SIGNS = {ast.Add: 'Add', ast.Sub: 'Sub', ast.Mult: 'Mul'}


def _evaluated(size, symbol, operate):
  """A size from its symbols, by the syntax of `jax.export.symbolic_shape`."""

  def value(node):
    match node:
      case ast.Constant(int(n)):
        return np.int64(n)
      case ast.Name():
        return symbol(node.id)
      case ast.UnaryOp():
        return operate('Mul', np.int64(-1), value(node.operand))
      case ast.BinOp(left, ast.Pow(), ast.Constant(int(n))):
        return functools.reduce(functools.partial(operate, 'Mul'), [value(left)] * n)
      case ast.BinOp():
        return operate(_SIGNS[type(node.op)], value(node.left), value(node.right))
      case ast.Call(ast.Name(name), args):
        return operate(_CALLS[name], *map(value, args))
    raise ValueError(f'a size of {size} has no counterpart here')

  return value(ast.parse(str(size).replace('^', '**'), mode='eval').body)


_NUMBERS = {'floordiv': operator.floordiv, 'Mod': operator.mod, 'Max': max, 'Min': min,
            'Add': operator.add, 'Sub': operator.sub, 'Mul': operator.mul}
_PRIMES = {'b': 10007, 'h': 10037, 'w': 10061}  # sizes whose products are equal only by design


def _sample(size) -> int:
  return int(size) if _known(size) else int(_evaluated(
      size, lambda name: _PRIMES[name], lambda op, a, b: _NUMBERS[op](int(a), int(b))))


def _groups(before, after) -> list[tuple[list[int], list[int]]]:
  """The fewest axes of two shapes that have as many elements, side by side, without those of 1."""
  axes = [[i for i, n in enumerate(shape) if _sample(n) != 1] for shape in (before, after)]
  groups = []
  while axes[0]:
    group = [axes[0].pop(0)], [axes[1].pop(0)]
    while (sizes := [math.prod(_sample(shape[i]) for i in part) for shape, part in zip(
        (before, after), group, strict=True)])[0] != sizes[1]:
      shorter = int(sizes[0] > sizes[1])
      group[shorter].append(axes[shorter].pop(0))
    groups.append(group)
  return groups


def _side_by_side(x, groups) -> list[int] | None:
  """The axes after a reshape in the graph's order, where those of each group are in a row."""
  order = [axis for axis in x.order if any(axis in before for before, _ in groups)]
  result = []
  while order:
    before, after = next(group for group in groups if order[0] in group[0])
    if order[:len(before)] != before:
      return None
    result += after
    order = order[len(before):]
  return result


def _with_ones(axes, rank) -> tuple[int, ...]:
  """An order of all axes, from that of those whose size is not 1."""
  for order in (_usual(rank), tuple(range(rank))):
    if [axis for axis in order if axis in axes] == axes:
      return order
  axes = list(axes)
  for axis in range(rank):
    if axis not in axes:
      axes.insert(axes.index(axis - 1) + 1 if axis else 0, axis)
  return tuple(axes)


def _length(start, end, step):
  return end - start if step == 1 else -(-(end - start) // step) if step > 0 else start - end


def _typed(x) -> np.ndarray:
  """A constant of the type that the graph has of its kind."""
  x = np.asarray(x)
  if x.dtype == bool:
    return x
  return x.astype(np.int64 if jnp.issubdtype(x.dtype, jnp.integer) else np.float32)


def _shape_of(x) -> tuple:
  """The shape of a value or constant in Flax."""
  return x.shape if isinstance(x, _Value) else np.shape(x)


def _shape(eqn):
  return eqn.outvars[0].aval.shape


def _is_float(v) -> bool:
  return jnp.issubdtype(v.aval.dtype, jnp.floating)


def _aligned(graph, shape, inputs):
  """(order, inputs in it) of an operation that broadcasts."""
  full = [x for x in inputs if isinstance(x, _Value) and x.shape == shape]
  whole = [x for x in full if x.name not in graph.spread]
  if whole:  # ONNX repeats the others
    inputs = [graph.spread.get(x.name, x) if isinstance(x, _Value) else x for x in inputs]
  order = (whole or full)[0].order if full else _usual(len(shape))
  return order, [graph.ordered(x, order if _shape_of(x) else ()) for x in inputs]


def _pointwise(op, **fields):
  def emit(graph, eqn, *inputs):
    order, inputs = _aligned(graph, _shape(eqn), inputs)
    return graph.add(op, inputs, _shape(eqn), order, **fields)
  return emit


def _chain(*steps):
  """Operations one after the other, each (name, constants that come after its input)."""
  def emit(graph, eqn, x):
    for op, *constants in steps:
      x = graph.add(op, [x, *(np.float32(c) for c in constants)], x.shape, x.order)
    return x
  return emit


def _negated(emit_of):
  """The negative of what an operation makes of the negative."""
  def emit(graph, eqn, x):
    y = emit_of(graph, eqn, graph.add('Neg', [x], x.shape, x.order))
    return y and graph.add('Neg', [y], y.shape, y.order)
  return emit


def _max(graph, eqn, a, b):
  shape = _shape(eqn)
  value, x = (a, b) if isinstance(a, _Value) else (b, a)
  if not isinstance(x, _Value) and not np.any(x) and _is_float(eqn.outvars[0]) and \
      value.shape == shape:
    return graph.add('Relu', [value], shape, value.order)
  return _pointwise('Max')(graph, eqn, a, b)


def _same(graph, eqn, *inputs):
  return list(inputs)


def _cast(graph, eqn, x):
  kinds = [jnp.bool_, jnp.integer, jnp.floating]
  kind = lambda v: next((i for i, each in enumerate(kinds)
                         if jnp.issubdtype(v.aval.dtype, each)), None)
  before, after = kind(eqn.invars[0]), kind(eqn.outvars[0])
  if before is None or after is None:
    return None
  return x if before == after else graph.add('Cast', [x], x.shape, x.order, to=(9, 7, 1)[after])


def _power(graph, eqn, x):
  y = eqn.params.get('y', 2)
  exponent = np.float32(y) if _is_float(eqn.outvars[0]) else np.int64(y)
  return graph.add('Mul', [x, x], x.shape, x.order) if y == 2 else graph.add(
      'Pow', [x, exponent], x.shape, x.order)


def _where(graph, eqn, which, *cases):
  if len(cases) != 2 or eqn.invars[0].aval.dtype != bool:
    return None
  return _pointwise('Where')(graph, eqn, which, *cases[::-1])


def _clamp(graph, eqn, low, x, high):
  x = _pointwise('Max')(graph, eqn, x, low)
  return _pointwise('Min')(graph, eqn, x, high)


def _logical(op):
  def emit(graph, eqn, *inputs):
    return _pointwise(op)(graph, eqn, *inputs) if eqn.outvars[0].aval.dtype == bool else None
  return emit


def _unequal(graph, eqn, a, b):
  y = _pointwise('Equal')(graph, eqn, a, b)
  return graph.add('Not', [y], y.shape, y.order)


def _is_finite(graph, eqn, x):
  bad = [graph.add(op, [x], x.shape, x.order) for op in ('IsInf', 'IsNaN')]
  return graph.add('Not', [graph.add('Or', bad, x.shape, x.order)], x.shape, x.order)


def _round(graph, eqn, x):
  even = jax.lax.RoundingMethod.TO_NEAREST_EVEN
  return _pointwise('Round')(graph, eqn, x) if eqn.params['rounding_method'] == even else None


def _reduce(op):
  def emit(graph, eqn, x):
    axes = eqn.params['axes']
    left = [axis for axis in x.order if axis not in axes]
    order = [sorted(left).index(axis) for axis in left]
    places = [x.order.index(axis) for axis in axes]
    if op == 'ReduceSum':
      return graph.add(op, [x, np.array(places, np.int64)], _shape(eqn), order, keepdims=0)
    if op == 'ArgMax':
      return graph.add(op, [x], _shape(eqn), order, axis=places[0], keepdims=0)
    return graph.add(op, [x], _shape(eqn), order, axes=places, keepdims=0)
  return emit


def _same_padding(p, shape, window, stride):
  """Whether a padding that depends on sizes is SAME, which ONNX computes."""
  return tuple(map(tuple, p)) == tuple(map(tuple, jax.lax.padtype_to_pads(
      shape, window, stride, 'SAME')))


def _padding(pairs, sides, size, strides, dilations) -> dict[str, Any] | None:
  """Paddings of windows along spatial axes as fields of a node, if ONNX has them."""
  if all(_known(n) for pair in pairs for n in pair):
    low, high = zip(*pairs, strict=True)
    return {'pads': (*low, *high)} if min(*low, *high) >= 0 else None
  same = set(dilations) == {1} and _same_padding(pairs, sides, size, strides)
  return {'auto_pad': 'SAME_UPPER'} if same else None


def _dilated(dilations) -> dict[str, Any]:
  return {'dilations': dilations} if set(dilations) != {1} else {}


def _pooling(p, shape) -> tuple[tuple[int, ...], dict[str, Any]] | None:
  """(the order of axes, fields of a node) of windows along all axes but two, if ONNX has them."""
  rank = len(shape)
  fixed = [i for i in range(rank) if p['window_dimensions'][i] == p['window_strides'][i] == 1
           and tuple(p['padding'][i]) == (0, 0)]
  if len(fixed) < 2 or rank < 3 or set(p['base_dilation']) != {1}:
    return None
  order = (fixed[0], fixed[-1], *(i for i in range(rank) if i not in (fixed[0], fixed[-1])))
  size, strides, dilations, pairs, sides = ([of[i] for i in order[2:]] for of in (
      p['window_dimensions'], p['window_strides'], p['window_dilation'], p['padding'], shape))
  pads = _padding(pairs, sides, size, strides, dilations)
  # A window that is wider than its padding only: ONNX allows no other.
  if pads is None or any(n >= k for n, k in zip(pads.get('pads', ()), [*size, *size],
                                                strict=False)):
    return None
  return order, {'kernel_shape': size, 'strides': strides, **pads, **_dilated(dilations)}


def _max_pool(graph, eqn, x):
  pooling = _pooling(eqn.params, x.shape)
  if pooling is None:
    return None
  order, fields = pooling
  return graph.add('MaxPool', [graph.ordered(x, order)], _shape(eqn), order, **fields)


def _sum_pool(graph, eqn, x):
  """Sums in windows: ONNX has their mean."""
  pooling = _pooling(eqn.params, x.shape)
  # With auto_pad ONNX Runtime would count no padding: every window is whole.
  if pooling is None or pooling[1].keys() & {'auto_pad', 'dilations'} or not _is_float(
      eqn.outvars[0]):
    return None
  order, fields = pooling
  y = graph.add('AveragePool', [graph.ordered(x, order)], _shape(eqn), order, count_include_pad=1,
                **fields)
  return graph.add('Mul', [y, np.float32(math.prod(fields['kernel_shape']))], y.shape, y.order)


def _conv(graph, eqn, x, kernel):
  p = eqn.params
  if p['batch_group_count'] != 1 or not _known(p['feature_group_count']):
    return None
  x = graph.ordered(x, p['dimension_numbers'].lhs_spec)
  emit = _sliding_conv if set(p['lhs_dilation']) == {1} else _transposed_conv
  return emit(graph, eqn, x, kernel)


def _sliding_conv(graph, eqn, x, kernel):
  p, numbers = eqn.params, eqn.params['dimension_numbers']
  sides, size = ([v.aval.shape[i] for i in spec[2:]] for v, spec in zip(
      eqn.invars, (numbers.lhs_spec, numbers.rhs_spec), strict=True))
  strides, dilations = tuple(p['window_strides']), tuple(p['rhs_dilation'])
  pads = _padding(p['padding'], sides, size, strides, dilations)
  return None if pads is None else graph.add(
      'Conv', [x, graph.ordered(kernel, numbers.rhs_spec)], _shape(eqn), numbers.out_spec,
      strides=strides, **pads, dilations=dilations, group=p['feature_group_count'])


def _transposed_conv(graph, eqn, x, kernel):
  """A convolution of pixels with zeros between them: ONNX slides its flipped kernel."""
  p, numbers = eqn.params, eqn.params['dimension_numbers']
  if not all(_known(n) for pair in p['padding'] for n in pair):
    return None
  groups, dilations = p['feature_group_count'], tuple(p['rhs_dilation'])
  kernel = _flipped(graph, kernel, numbers.rhs_spec, groups)
  if kernel is None:
    return None
  size = [eqn.invars[1].aval.shape[i] for i in numbers.rhs_spec[2:]]
  reach = [(k - 1) * n for k, n in zip(size, dilations, strict=True)]
  fields, beyond = _transposed_padding(p['padding'], reach, p['lhs_dilation'])
  if groups != 1:
    fields['group'] = groups
  y = graph.add('ConvTranspose', [x, kernel], _shape(eqn), numbers.out_spec,
                strides=p['lhs_dilation'], **fields, **_dilated(dilations))
  if any(map(any, beyond)):
    y = graph.add('Pad', [y, np.array([0, 0, *beyond[0], 0, 0, *beyond[1]], np.int64)], y.shape,
                  y.order, mode='constant')
  return _every(graph, y, p['window_strides'])


def _transposed_padding(pairs, reach, strides):
  """(paddings as fields of ConvTranspose, zeros that come before and after what it computes).

  It counts its padding from the other side: as pixels that are cut off.
  """
  starts, ends = ([r - n for r, n in zip(reach, side, strict=True)]
                  for side in zip(*pairs, strict=True))
  more = [high - low for low, high in pairs]
  if min(starts) >= 0 and all(0 <= m < s for m, s in zip(more, strides, strict=True)):
    return {'output_padding': more, 'pads': (*starts, *starts)}, ([], [])
  cut, beyond = ([[max(sign * n, 0) for n in side] for side in (starts, ends)] for sign in (1, -1))
  return {'output_padding': [0] * len(more), 'pads': (*cut[0], *cut[1])}, beyond


def _every(graph, y, strides):
  """Every so many pixels of what has the shape of these pixels already."""
  if set(strides) == {1}:
    return y
  steps = np.array(strides, np.int64)
  places = np.arange(2, 2 + len(steps))
  return graph.add('Slice', [y, np.zeros_like(steps), np.full_like(steps, END), places, steps],
                   y.shape, y.order)


def _flipped(graph, kernel, spec, groups):
  """A kernel as ConvTranspose has it: inputs, outputs of a group, and turned by 180 degrees."""
  if isinstance(kernel, _Value):
    if groups != 1:
      return None
    turned = graph.cut(kernel, [(n - 1, -1, -1) if i in spec[2:] else (0, n, 1)
                                for i, n in enumerate(kernel.shape)])
    turned = dataclasses.replace(turned, shape=kernel.shape)
    return graph.ordered(turned, (spec[1], spec[0], *spec[2:]))
  kernel = _typed(kernel).transpose(spec)
  out, inputs, *size = kernel.shape
  kernel = kernel.reshape(groups, out // groups, inputs, *size).swapaxes(1, 2)
  return np.flip(kernel.reshape(groups * inputs, out // groups, *size),
                 tuple(range(2, 2 + len(size))))


def _dot(graph, eqn, x, y):
  (contracted, other), (batched, beside) = eqn.params['dimension_numbers']
  free = [[i for i in range(len(v.aval.shape)) if i not in (*c, *b)] for v, c, b in zip(
      eqn.invars, (contracted, other), (batched, beside), strict=True)]
  if not isinstance(y, _Value) and not batched and np.ndim(y) == 2 and len(contracted) == 1:
    weights = _typed(y) if tuple(other) == (0,) else _typed(y).T
    return _dense(graph, eqn, x, weights, (*free[0], *contracted))
  if len(free[0]) == len(free[1]) == len(contracted) == 1:
    x = graph.ordered(x, (*batched, *free[0], *contracted))
    y = graph.ordered(y, (*beside, *other, *free[1]))
    return graph.add('MatMul', [x, y], _shape(eqn), range(len(_shape(eqn))))
  return _einsum(graph, eqn, x, y, free)


def _dense(graph, eqn, x, weights, order):
  """A product of the last axis of `order` with a matrix; of channels of images, a convolution."""
  if len(order) == 4 and x.order == CHANNELS_FIRST and order[-1] == 3:
    return graph.add('Conv', [x, weights.T[:, :, None, None]], _shape(eqn), strides=(1, 1),
                     pads=(0,) * 4, dilations=(1, 1), group=1)
  return graph.add('MatMul', [graph.ordered(x, order), weights], _shape(eqn), range(len(order)))


def _einsum(graph, eqn, x, y, free):
  """A product of whatever axes. free: those of x and of y that are neither contracted nor batched.
  """
  (contracted, other), (batched, beside) = eqn.params['dimension_numbers']
  letters = iter('abcdefghijklmnopqrstuvwxyz')
  left = [next(letters) for _ in _shape_of(x)]
  right = dict(zip((*beside, *other), (left[i] for i in (*batched, *contracted)), strict=True))
  right.update({i: next(letters) for i in free[1]})
  orders = [v.order if isinstance(v, _Value) else tuple(range(np.ndim(v))) for v in (x, y)]
  terms = [''.join(left[i] for i in orders[0]), ''.join(right[i] for i in orders[1])]
  result = ''.join([*(left[i] for i in (*batched, *free[0])), *(right[i] for i in free[1])])
  return graph.add('Einsum', [graph.ordered(x, orders[0]), graph.ordered(y, orders[1])],
                   _shape(eqn), range(len(_shape(eqn))), equation=f'{",".join(terms)}->{result}')


def _transpose(graph, eqn, x):
  perm = tuple(eqn.params['permutation'])
  return _Value(x.name, _shape(eqn), tuple(perm.index(axis) for axis in x.order))


def _reshape(graph, eqn, x, *_):
  return graph.reshape(x, _shape(eqn))


def _broadcast(graph, eqn, x, *_):
  shape, places = _shape(eqn), eqn.params['broadcast_dimensions']
  before = _shape_of(x)
  sizes = [1] * len(shape)
  for n, place in zip(before, places, strict=True):
    sizes[place] = n
  if isinstance(x, _Value) and len(before) == len(shape):
    return graph.repeat(x, shape)
  return graph.repeat(graph.reshape(x, tuple(sizes)), shape)


def _slice(graph, eqn, x):
  p = eqn.params
  return dataclasses.replace(graph.cut(x, list(zip(
      p['start_indices'], p['limit_indices'], p['strides'] or (1,) * len(x.shape), strict=True))),
      shape=_shape(eqn))


def _dynamic_slice(graph, eqn, x, *starts):
  if any(isinstance(start, _Value) for start in starts):
    return None
  return _at(graph, x, range(len(x.shape)), starts, eqn.params['slice_sizes'])


def _at(graph, x, axes, starts, sizes):
  """A slice of these sizes, whose starts along some axes JAX moves inside."""
  rows = [(0, n, 1) for n in sizes]
  for axis, start in zip(axes, map(int, starts), strict=True):
    if _known(x.shape[axis]):
      start = min(max(start, 0), x.shape[axis] - sizes[axis])
    elif sizes[axis] == x.shape[axis]:
      start = 0
    rows[axis] = (start, start + sizes[axis], 1)
  return graph.cut(x, rows)


def _rev(graph, eqn, x):
  rows = [(n - 1, -1, -1) if i in eqn.params['dimensions'] else (0, n, 1)
          for i, n in enumerate(x.shape)]
  return dataclasses.replace(graph.cut(x, rows), shape=x.shape)


def _concatenate(graph, eqn, *parts):
  axis, shape = eqn.params['dimension'], _shape(eqn)
  parts = [x for x in parts if not (isinstance(x, _Value) and x.name == '')]
  order = next(x.order for x in parts if isinstance(x, _Value))
  return graph.add('Concat', [graph.ordered(x, order) for x in parts], shape, order,
                   axis=order.index(axis)) if len(parts) > 1 else parts[0]


def _stacked(graph, parts, axis):
  if not any(isinstance(x, _Value) for x in parts):
    return np.stack(parts, axis)
  shape = list(_shape_of(parts[0]))
  shape.insert(axis, 1)
  parts = [graph.reshape(x, tuple(shape)) for x in parts]
  order = next(x.order for x in parts if isinstance(x, _Value))
  shape[axis] = len(parts)
  return graph.add('Concat', [graph.ordered(x, order) for x in parts], shape, order,
                   axis=order.index(axis))


def _unstack(graph, eqn, x):
  axis = eqn.params['axis']
  return [graph.reshape(graph.cut(x, [(i, i + 1, 1) if j == axis else (0, n, 1)
                                      for j, n in enumerate(x.shape)]), v.aval.shape)
          for i, v in enumerate(eqn.outvars)]


def _split(graph, eqn, x):
  axis, ends = eqn.params['axis'], np.cumsum(eqn.params['sizes'])
  return [graph.cut(x, [(int(end - size), int(end), 1) if j == axis else (0, n, 1)
                        for j, n in enumerate(x.shape)])
          for end, size in zip(ends, eqn.params['sizes'], strict=True)]


def _tile(graph, eqn, x):
  x = graph.value(x)
  return graph.add('Tile', [x, graph.sizes([eqn.params['reps'][i] for i in x.order])], _shape(eqn),
                   x.order)


def _pad_by(graph, eqn, x, value):
  config = eqn.params['padding_config']
  if isinstance(value, _Value) or not all(_known(n) for row in config for n in row) or any(
      between for *_, between in config):
    return None
  x = graph.cut(x, [(max(-low, 0), n - max(-high, 0), 1) for n, (low, high, _) in zip(
      x.shape, config, strict=True)])
  amounts = np.array([[max(n, 0) for n in config[i][:2]] for i in x.order], np.int64).T.reshape(-1)
  return graph.add('Pad', [x, amounts, *([_typed(value)] if np.any(value) else [])], _shape(eqn),
                   x.order, mode='constant') if amounts.any() else x


def _gather(graph, eqn, x, at):
  numbers, sizes = eqn.params['dimension_numbers'], eqn.params['slice_sizes']
  mapped, shape = tuple(numbers.start_index_map), _shape_of(x)
  if numbers.operand_batching_dims:
    return None
  if not isinstance(at, _Value) and np.ndim(at) == 1 and isinstance(x, _Value):
    return graph.reshape(_at(graph, x, mapped, at, sizes), _shape(eqn))
  others = [i for i in range(len(shape)) if i not in mapped]
  if sorted(numbers.collapsed_slice_dims) != sorted(mapped) or any(
      sizes[i] != shape[i] for i in others):
    return None
  beside = [i for i in range(len(_shape(eqn))) if i not in numbers.offset_dims]
  emit = _gather_points if len(mapped) > 1 else _gather_rows
  return emit(graph, eqn, x, at, others, beside)


def _gather_points(graph, eqn, x, at, others, beside):
  """Elements at indices along several axes. others: x's other axes; beside: the result's axes of
  indices."""
  numbers, shape = eqn.params['dimension_numbers'], _shape_of(x)
  mapped = tuple(numbers.start_index_map)
  if not isinstance(at, _Value):
    at = np.clip(at, 0, [shape[i] - 1 if _known(shape[i]) else END for i in mapped])
  return graph.add('GatherND', [graph.ordered(x, (*mapped, *others)),
                                graph.ordered(at, range(len(_shape_of(at))))],
                   _shape(eqn), [*beside, *numbers.offset_dims])


def _gather_rows(graph, eqn, x, at, others, beside):
  """Elements at indices along one axis, as `_gather_points`."""
  numbers, size = eqn.params['dimension_numbers'], _shape_of(x)
  axis, = numbers.start_index_map
  if not isinstance(at, _Value) and _known(size[axis]):
    at = np.clip(at, 0, size[axis] - 1)
  at = graph.value(graph.reshape(at, _shape_of(at)[:-1]))
  x = graph.value(x)
  place = x.order.index(axis)
  before, after = ([numbers.offset_dims[others.index(i)] for i in part]
                   for part in (x.order[:place], x.order[place + 1:]))
  return graph.add('Gather', [x, at], _shape(eqn), [*before, *(beside[i] for i in at.order),
                                                    *after], axis=place)


def _iota(graph, eqn, *_):
  p, shape = eqn.params, _shape(eqn)
  axis = p['dimension']
  x = graph.add('Range', [np.int64(0), graph.number(shape[axis]), np.int64(1)], (shape[axis],))
  x = graph.add('Cast', [x], x.shape, to=1) if _is_float(eqn.outvars[0]) else x
  sizes = [n if i == axis else 1 for i, n in enumerate(shape)]
  return graph.repeat(graph.reshape(x, tuple(sizes)), shape)


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
  return graph.add('ReduceMean', [x], _shape(eqn), axes=(0, 2, 3), keepdims=0)


_OPERATIONS = {  # of `nn.layers`
    'pad': _pad, 'upsample': _upsample, 'subsample': _subsample, 'leaky_relu': _leaky_relu,
    'instance_norm': _instance_norm, 'channel_mean': _channel_mean, 'bicubic': _bicubic,
    'pixel_shuffle': _pixel_shuffle, 'pixel_unshuffle': _pixel_unshuffle, 'prelu': _prelu}
_EMITTERS = {
    **{name: _pointwise(op) for name, op in {
        'add': 'Add', 'sub': 'Sub', 'mul': 'Mul', 'div': 'Div', 'min': 'Min', 'neg': 'Neg',
        'pow': 'Pow', 'tanh': 'Tanh', 'exp': 'Exp', 'log': 'Log', 'abs': 'Abs', 'erf': 'Erf',
        'logistic': 'Sigmoid', 'sqrt': 'Sqrt', 'sign': 'Sign', 'floor': 'Floor', 'ceil': 'Ceil',
        'sin': 'Sin', 'cos': 'Cos', 'tan': 'Tan', 'sinh': 'Sinh', 'cosh': 'Cosh', 'asin': 'Asin',
        'acos': 'Acos', 'atan': 'Atan', 'eq': 'Equal', 'lt': 'Less', 'le': 'LessOrEqual',
        'gt': 'Greater', 'ge': 'GreaterOrEqual'}.items()},
    **{name: _logical(op) for name, op in {
        'and': 'And', 'or': 'Or', 'xor': 'Xor', 'not': 'Not'}.items()},
    **{name: _reduce(op) for name, op in {
        'reduce_max': 'ReduceMax', 'reduce_min': 'ReduceMin', 'reduce_sum': 'ReduceSum',
        'reduce_prod': 'ReduceProd', 'argmax': 'ArgMax'}.items()},
    **dict.fromkeys(('copy', 'copy_p', 'stop_gradient', 'optimization_barrier', 'name',
                     'reduce_precision'), _same),
    **dict.fromkeys(('reshape', 'squeeze', 'expand_dims'), _reshape),
    'max': _max, 'ne': _unequal, 'rem': _pointwise('Mod', fmod=1), 'round': _round,
    'rsqrt': _chain(('Sqrt',), ('Reciprocal',)), 'log1p': _chain(('Add', 1), ('Log',)),
    'expm1': _chain(('Exp',), ('Sub', 1)), 'erfc': _chain(('Erf',), ('Neg',), ('Add', 1)),
    'exp2': lambda graph, eqn, x: graph.add('Pow', [np.float32(2), x], x.shape, x.order),
    'integer_pow': _power, 'square': _power, 'is_finite': _is_finite, 'select_n': _where,
    'clamp': _clamp, 'convert_element_type': _cast,
    'conv_general_dilated': _conv, 'dot_general': _dot,
    'reduce_window_max': _max_pool, 'reduce_window_sum': _sum_pool,
    'reduce_window_min': _negated(_max_pool),
    'transpose': _transpose, 'broadcast_in_dim': _broadcast, 'slice': _slice,
    'dynamic_slice': _dynamic_slice, 'rev': _rev, 'concatenate': _concatenate,
    'stack': lambda graph, eqn, *parts: _stacked(graph, parts, eqn.params['axis']),
    'unstack': _unstack, 'split': _split, 'tile': _tile, 'pad': _pad_by, 'gather': _gather,
    'iota': _iota,
    'dim_as_value': lambda graph, eqn: graph.number(eqn.params['dim'])}
