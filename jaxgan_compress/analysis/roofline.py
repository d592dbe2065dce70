"""Where a compiled step spends its time, and how near each operation comes to what the device can.

The roofline (Williams et al. 2009): an operation takes at least its arithmetic over the device's
peak, and its bytes over the device's memory bandwidth, whichever is longer.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import re
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

BYTES = {'pred': 1, 's4': .5, 'u4': .5, 's8': 1, 'u8': 1, 's16': 2, 'u16': 2, 'bf16': 2, 'f16': 2,
         's32': 4, 'u32': 4, 'f32': 4, 's64': 8, 'u64': 8, 'f64': 8, 'c64': 8, 'c128': 16}
# Their time is that of what they call.
FRAMES = ('call', 'while', 'conditional')

_SHAPE = re.compile(r'(\w+)\[([\d,]*)\]')
_LINE = re.compile(r'^\s*(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$')


@dataclasses.dataclass(frozen=True)
class Operation:
  """One operation of a compiled program: opcode, its result's type, the layer it comes from,
  floating point operations of its convolutions and dot products (two a multiply-accumulate), bytes
  it reads and writes."""
  opcode: str
  result: str
  layer: str
  flops: float
  bytes: float


@dataclasses.dataclass(frozen=True)
class Spent:
  """One operation in one step: how often it runs, its seconds together, and the share of them that
  the roofline needs."""
  name: str
  operation: Operation
  calls: float
  seconds: float
  roofline: float


@dataclasses.dataclass(frozen=True)
class Device:
  """What a device can: floating point operations and bytes a second."""
  flops: float
  bandwidth: float

  def seconds(self, operation: Operation) -> float:
    return max(operation.flops / self.flops, operation.bytes / self.bandwidth)


def measure_device(dtype=jnp.float32, repeats: int = 5) -> Device:
  """The first device's peaks, as seen: the fastest of some large matrix products in `dtype`, and of
  some passes over an array that no cache holds."""
  wide = jax.default_backend() != 'cpu'
  n, length = (8192, 2 ** 29) if wide else (2048, 2 ** 26)
  matrix, long = jnp.ones((n, n), dtype), jnp.ones(length, jnp.float32)

  def fastest(f, x):
    f = jax.jit(f, donate_argnums=0)  # in place: fresh memory would be slow to come
    x = jax.block_until_ready(f(x))
    taken = []
    for _ in range(repeats):
      start = time.perf_counter()
      x = jax.block_until_ready(f(x))
      taken.append(time.perf_counter() - start)
    return min(taken)

  return Device(2 * n ** 3 / fastest(lambda x: x @ x / n, matrix),
                8 * length / fastest(lambda x: x + 1, long))


def operations(text: str) -> dict[str, Operation]:
  """{name: Operation} of a compiled program, from its text (`compiled.as_text()`)."""
  bodies, inside = collections.defaultdict(list), None
  for line in text.splitlines():
    if line.endswith('{') and ('(' in line) and ' = ' not in line.split('(')[0]:
      inside = line.split('(')[0].replace('ENTRY', '').strip().lstrip('%')
    elif found := _LINE.match(line):
      bodies[inside].append(found.groups())
  shapes = {name: kind for body in bodies.values() for name, kind, _, _ in body}

  def flops(opcode, kind, rest):
    if opcode in ('fusion', 'call'):
      body = re.search(r'(?:calls|to_apply)=%?([\w.\-]+)', rest)[1]
      return sum(flops(inner, result, more) for _, result, inner, more in bodies[body])
    operands = re.findall(r'%([\w.\-]+)', rest.split(')')[0])
    if opcode == 'dot':
      contracted = re.search(r'lhs_contracting_dims=\{([\d,]*)\}', rest)[1]
      sides = _sides(shapes[operands[0]])
      return 2 * _size(kind) * math.prod(sides[int(i)] for i in contracted.split(',') if i)
    if opcode == 'convolution':
      sides = _sides(shapes[operands[1]])
      features = re.search(r'dim_labels=\w+_(\w+)->', rest)[1].index('o')
      skipped = re.search(r'batch_group_count=(\d+)', rest)
      skipped = int(skipped[1]) if skipped else 1
      if zeros := re.search(r'lhs_dilate=([\dx]+)', rest):  # between pixels, which are skipped
        skipped *= math.prod(int(n) for n in zeros[1].split('x'))
      return 2 * _size(kind) * math.prod(sides) / sides[features] / skipped
    return 0

  found = {}
  for body in bodies.values():
    for name, kind, opcode, rest in body:
      operands = re.findall(r'%([\w.\-]+)', rest.split('), ')[0])
      layer = re.search(r'op_name="([^"]*)"', rest)
      moved = sum(_bytes(shapes.get(x, '')) for x in {*operands}) + _bytes(kind)
      found[name] = Operation(opcode, re.sub(r'\{[^}]*\}', '', kind),
                              _layer(layer[1]) if layer else '', flops(opcode, kind, rest), moved)
  return found


def profile(program: Callable, text: str, steps: int, folder: str | Path,
            device: Device) -> list[Spent]:
  """Runs `program()` some steps under the profiler; the costliest operations first.

  text: of the compiled program that it calls. The trace is left in `folder`:
  `perfetto_trace.json.gz` for ui.perfetto.dev, and events for TensorBoard.
  """
  known, taken, calls = operations(text), collections.Counter(), collections.Counter()
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
          calls[name] += 1 / steps
  return [Spent(name, known[name], calls[name], seconds,
                calls[name] * device.seconds(known[name]) / max(seconds, 1e-12))
          for name, seconds in taken.most_common()]


def _layer(op_name):
  """'generator/block1/dense3_in' of the long path that a program keeps of each operation."""
  parts = [part for part in op_name.split('/') if '(' not in part or part.startswith('transpose')]
  backward = 'transpose(' in op_name
  return ('gradient of ' if backward else '') + '/'.join(
      part for part in parts if not part.startswith('transpose'))


def _sides(kind):
  dims = _SHAPE.search(kind)[2]
  return [int(n) for n in dims.split(',')] if dims else []


def _size(kind):
  return math.prod(_sides(kind))


def _bytes(kind):
  return sum(BYTES.get(dtype, 0) * math.prod(int(n) for n in dims.split(',') if n)
             for dtype, dims in _SHAPE.findall(kind))
