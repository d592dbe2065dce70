"""Where a compiled step spends its time, and how near each operation comes to the device's peak.

The roofline (Williams et al. 2009): an operation takes at least its arithmetic over the device's
peak, and its bytes over the device's memory bandwidth, whichever is longer.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgan_compress.analysis.model_cost import time_calls

BYTES = {'pred': 1, 's4': .5, 'u4': .5, 's8': 1, 'u8': 1, 's16': 2, 'u16': 2, 'bf16': 2, 'f16': 2,
         's32': 4, 'u32': 4, 'f32': 4, 's64': 8, 'u64': 8, 'f64': 8, 'c64': 8, 'c128': 16}
# Operations whose time is that of the operations that they call.
FRAMES = ('call', 'while', 'conditional')

_SHAPE = re.compile(r'(\w+)\[([\d,]*)\]')
_LINE = re.compile(r'^\s*(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$')


@dataclasses.dataclass(frozen=True)
class Operation:
  """One operation of a compiled program.

  result: the type of its result. layer: where it comes from. flops: floating point operations of
  convolutions and dot products, two for a multiply-accumulate. bytes: what it reads and writes.
  """
  opcode: str
  result: str
  layer: str
  flops: float
  bytes: float


@dataclasses.dataclass(frozen=True)
class Spent:
  """One operation in one step: the number of its calls, the seconds of all together, and the share
  of these seconds that the roofline needs."""
  name: str
  operation: Operation
  calls: float
  seconds: float
  roofline: float


@dataclasses.dataclass(frozen=True)
class Device:
  """The peaks of a device: floating point operations and bytes per second."""
  flops: float
  bandwidth: float

  def seconds(self, operation: Operation) -> float:
    return max(operation.flops / self.flops, operation.bytes / self.bandwidth)


def measure_device(dtype=jnp.float32, repeats: int = 5) -> Device:
  """The first device's peaks as measured: the fastest of some large matrix products in `dtype`, and
  of some passes over an array that no cache holds."""
  wide = jax.default_backend() != 'cpu'
  n, length = (8192, 2 ** 29) if wide else (2048, 2 ** 26)

  def fastest(f, x):
    f = jax.jit(f, donate_argnums=0)  # in place: fresh memory would be slow to come

    def call():
      nonlocal x
      x = f(x)
      return x

    return time_calls({'': call}, repeats, warmup=1)[''].min()

  return Device(2 * n ** 3 / fastest(lambda x: x @ x / n, jnp.ones((n, n), dtype)),
                8 * length / fastest(lambda x: x + 1, jnp.ones(length, jnp.float32)))


def operations(text: str) -> dict[str, Operation]:
  """{name: Operation} of a compiled program, from its text (`compiled.as_text()`)."""
  bodies = parse(text)
  lines = [line for body in bodies.values() for line in body]
  shapes = {line.name: line.kind for line in lines}
  return {line.name: Operation(
      line.opcode, re.sub(r'\{[^}]*\}', '', line.kind),
      layer_of(line.group(r'op_name="([^"]*)"')),
      _flops(line, bodies, shapes),
      sum(bytes_of(shapes.get(x, '')) for x in set(line.operands('), '))) + bytes_of(line.kind))
      for line in lines}


class Line(NamedTuple):
  """One operation in the text of a program: `name = kind opcode(rest`."""
  name: str
  kind: str
  opcode: str
  rest: str

  def operands(self, end: str = ')') -> list[str]:
    return re.findall(r'%([\w.\-]+)', self.rest.split(end)[0])

  def group(self, pattern: str, default: str = '') -> str:
    """What the first group of the pattern matches in the rest of the line."""
    match = re.search(pattern, self.rest)
    return match[1] if match else default


def parse(text: str) -> dict[str, list[Line]]:
  """The lines of each computation in the text of a program, by the computation's name; that of the
  program itself is ''."""
  bodies, body = collections.defaultdict(list), ''
  for line in text.splitlines():
    if line.endswith('{') and '(' in line and ' = ' not in line.split('(')[0]:
      head = line.split('(')[0].strip()
      body = '' if head.startswith('ENTRY') else head.lstrip('%').strip()
    elif match := _LINE.match(line):
      bodies[body].append(Line(*match.groups()))
  return bodies


def _flops(line: Line, bodies, shapes) -> float:
  if line.opcode in ('fusion', 'call'):
    return sum(_flops(inner, bodies, shapes)
               for inner in bodies[line.group(r'(?:calls|to_apply)=%?([\w.\-]+)')])
  if line.opcode == 'dot':
    sides = _sides(shapes[line.operands()[0]])
    contracted = line.group(r'lhs_contracting_dims=\{([\d,]*)\}')
    return 2 * _size(line.kind) * math.prod(sides[i] for i in _numbers(contracted))
  if line.opcode == 'convolution':
    sides = _sides(shapes[line.operands()[1]])
    features = line.group(r'dim_labels=\w+_(\w+)->').index('o')
    # Zeros between pixels are skipped, as are the other groups.
    skipped = int(line.group(r'batch_group_count=(\d+)', '1')) * math.prod(
        _numbers(line.group(r'lhs_dilate=([\dx]+)')))
    return 2 * _size(line.kind) * math.prod(sides) / sides[features] / skipped
  return 0


def profile(program: Callable, text: str, steps: int, folder: str | Path,
            device: Device) -> list[Spent]:
  """Runs `program()` under the profiler, `steps` times; returns the costliest operations first.

  text: the text of the compiled program that it calls. The trace is left in `folder`:
  `perfetto_trace.json.gz` for ui.perfetto.dev, and events for TensorBoard.
  """
  known, calls = operations(text), collections.Counter()
  taken = collections.defaultdict(float)
  jax.block_until_ready(program())
  with jax.profiler.trace(str(folder), create_perfetto_trace=True):
    for _ in range(steps):
      jax.block_until_ready(program())
  newest = max(Path(folder).glob('**/*.xplane.pb'), key=lambda path: path.stat().st_mtime)
  for plane in jax.profiler.ProfileData.from_file(str(newest)).planes:
    for line in plane.lines:
      for event in line.events:
        name = dict(event.stats).get('hlo_op', event.name)
        if name in known and known[name].opcode not in FRAMES:
          taken[name] += event.duration_ns / 1e9 / steps
          calls[name] += 1
  return [Spent(name, known[name], calls[name] / steps, seconds,
                calls[name] / steps * device.seconds(known[name]) / max(seconds, 1e-12))
          for name, seconds in sorted(taken.items(), key=lambda item: -item[1])]


def layer_of(op_name: str) -> str:
  """The layer's path, as 'generator/block1/dense3_in', in an operation's longer one."""
  parts = [part for part in op_name.split('/') if '(' not in part or part.startswith('transpose')]
  backward = 'transpose(' in op_name
  return ('gradient of ' if backward else '') + '/'.join(
      part for part in parts if not part.startswith('transpose'))


def _numbers(text: str) -> list[int]:
  return [int(digits) for digits in re.findall(r'\d+', text)]


def _sides(kind: str) -> list[int]:
  return _numbers(_SHAPE.findall(kind)[0][1])


def _size(kind: str) -> int:
  return math.prod(_sides(kind))


def bytes_of(kind: str) -> float:
  return sum(BYTES.get(dtype, 0) * math.prod(_numbers(dims))
             for dtype, dims in _SHAPE.findall(kind))
