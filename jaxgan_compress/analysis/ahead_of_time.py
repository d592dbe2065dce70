"""What a compiler says of a program for a machine that is not here: whether it fits, and its cost.

The cycles are the estimates by which XLA's compiler for TPUs schedules the program. They are no
measurement; compilers for other machines give none.
"""

from __future__ import annotations

import collections
import dataclasses
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxgan_compress.analysis import roofline
from jaxgan_compress.analysis.targets import Target, parse_target
from jaxgan_compress.core import xla

COLLECTIVES = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute')
# What operations do, by the name of JAX's primitive at the end of their place; all others are
# computed number by number.
_DOES = {'conv_general_dilated': 'convolution', 'dot_general': 'matrix product',
         'reduce_sum': 'sums', 'reduce_max': 'maxima', 'concatenate': 'concatenation',
         'pad': 'padding', 'gather': 'gathering', 'transpose': 'rearrangement in memory'}
_MOVES = ('copy', 'slice', 'pad', 'bitcast', 'reverse', 'reshape', 'transpose')
# Where an operation names the computations that it calls.
_CALLED = re.compile(r'(?:body|to_apply|true_computation|false_computation|branch_computations)='
                     r'(\{[^}]*\}|[^\s,]+)')
# Parts of a place that name no layer.
_FRAMES = ('shard_map', 'while', 'body', 'cond', 'closed_call', 'checkpoint',
           'rematted_computation')


@dataclasses.dataclass(frozen=True)
class Costly:
  """Operations of one place in the program.

  place: the layer, as 'generator/block1/conv1', and what is done there. count: the number of
  operations. result: the largest result, as 'f32[4,64,64,256]'. cycles: of all together.
  """
  place: str
  count: int
  result: str
  cycles: float


@dataclasses.dataclass(frozen=True)
class Program:
  """A program compiled for a machine.

  target: the machine's name. devices: how many of its devices the program runs on.
  error: why it could not be compiled; '' if it was.
  seconds: to compile. hbm: bytes on each device, {'arguments', 'outputs', 'temporaries',
    'reused' (outputs that take the place of arguments), 'code', 'total', 'available'}.
  flops: floating point operations of one device, two for a multiply-accumulate; None where the
    compiler does not say.
  cycles: the compiler's estimate of all operations, one after another; None where it gives none.
    Loops count as often as they turn, where the program says how often, else once; of a condition
    all branches count.
  share_of_peak: flops over what the chip computes in bfloat16 in these cycles, or None.
  collectives: {kind: (number, bytes)} of what devices exchange. costliest: places, most cycles
    first.
  """
  target: str
  devices: int
  error: str = ''
  seconds: float = 0.
  hbm: Mapping[str, float] = dataclasses.field(default_factory=dict)
  flops: float | None = None
  cycles: float | None = None
  share_of_peak: float | None = None
  collectives: Mapping[str, tuple[int, float]] = dataclasses.field(default_factory=dict)
  costliest: tuple[Costly, ...] = ()

  @property
  def fits(self) -> bool:
    """Whether it was compiled and needs no more memory than a device has."""
    return not self.error and self.hbm['total'] <= self.hbm['available']

  def to_dict(self) -> dict[str, Any]:
    """All of it as JSON has it."""
    return {**dataclasses.asdict(self), 'fits': self.fits}


def compile_for(function: Callable, *args, target: str, donate_argnums: tuple[int, ...] = (),
                options: Mapping[str, str] | None = None) -> Program:
  """Compiles `function(*args)` for one device of a machine that need not be here.

  args: arrays or `jax.ShapeDtypeStruct`s. target: 'tpu:v5e:2x2', 'tpu:v5p:2x2x2', 'gpu:h100' and
  the like. The layers of this library take the forms for that platform. options: of XLA; default,
  those with which this library compiles for that platform.

  Raises ValueError for an unknown target and ImportError where its compiler is not installed; what
  the compiler refuses is `error` of the result.
  """
  machine = parse_target(target)
  everywhere = NamedSharding(machine.mesh(1), P())
  with xla.building_for(machine.platform):
    # A function of its own, or the trace for another platform would be taken.
    lowered = jax.jit(lambda *args: function(*args), in_shardings=everywhere,
                      out_shardings=everywhere, donate_argnums=donate_argnums).lower(*args)
  return compile_lowered(lowered, machine, 1, options)


def compile_lowered(lowered: Any, target: Target, devices: int,
                    options: Mapping[str, str] | None = None) -> Program:
  """Compiles what `jax.jit(f).lower(...)` gave for `devices` devices of the target."""
  if options is None:
    with xla.building_for(target.platform):
      options = xla.compiler_options()
  began = time.monotonic()
  try:
    compiled = lowered.compile(compiler_options=dict(options))
  except jax.errors.JaxRuntimeError as error:
    return Program(target.name, devices, _reason(str(error)), time.monotonic() - began,
                   {'available': target.chip.memory})
  seconds = time.monotonic() - began
  lines, times = _executed(roofline.parse(compiled.as_text() or ''))
  cycles = _cycles(lines, times)
  flops = (compiled.cost_analysis() or {}).get('flops')
  share = None
  if cycles and flops and target.chip.clock:
    share = flops / (cycles * target.chip.flops / target.chip.clock)
  return Program(target.name, devices, '', seconds, _memory(compiled, target), flops, cycles, share,
                 _collectives(lines, times), _costliest(lines, times))


def _memory(compiled, target):
  found = compiled.memory_analysis()
  memory = {'arguments': found.argument_size_in_bytes, 'outputs': found.output_size_in_bytes,
            'temporaries': found.temp_size_in_bytes, 'reused': found.alias_size_in_bytes,
            'code': found.generated_code_size_in_bytes}
  total = sum(memory.values()) - 2 * memory['reused']
  return {**memory, 'total': total, 'available': target.chip.memory}


def _executed(bodies):
  """(lines of the program and of what its loops repeat, {line: how often})."""
  lines, times = [], {}

  def collect(body, often):
    for line in body:
      lines.append(line)
      times[line] = times.get(line, 0) + often
      if line.opcode in roofline.FRAMES:
        turns = _turns(bodies.get(line.group(r' condition=%?([\w.\-]+)'), ()))
        for names in _CALLED.findall(line.rest):
          for name in re.findall(r'[\w.\-]+', names):
            collect(bodies.get(name, ()), often * turns)

  collect(bodies.get('', ()), 1)
  return list(dict.fromkeys(lines)), times


def _turns(condition):
  """How often a loop turns: `lax.scan` and `fori_loop` compare their counter with a constant."""
  bounds = [line.rest for line in condition if line.opcode == 'constant' and
            line.kind.startswith('s32[]')]
  return int(bounds[0].split(')')[0]) if len(bounds) == 1 else 1


def _cycles(lines, times):
  found = [(line, line.group(r'"estimated_cycles":"(\d+)"')) for line in lines]
  return sum(int(n) * times[line] for line, n in found if n) if any(n for _, n in found) else None


def _costliest(lines, times):
  places = collections.defaultdict(list)
  for line in lines:
    if cycles := line.group(r'"estimated_cycles":"(\d+)"'):
      places[_place(line)].append((int(cycles) * times[line], line))
  found = [Costly(place, len(costs), _plain(max(costs, key=lambda cost: roofline.bytes_of(
               cost[1].kind))[1].kind), sum(cycles for cycles, _ in costs))
           for place, costs in places.items()]
  return tuple(sorted(found, key=lambda one: -one.cycles))


def _place(line):
  """'UNetGenerator/up1: convolution, gradient', from the operation's name in JAX, which is
  'jit(step)/transpose(jvp(UNetGenerator))/up1/conv_general_dilated'."""
  where = line.group(r'op_name="([^"]*)"')
  *parts, primitive = where.split('/')
  # Of 'transpose(jvp(UNetGenerator))' the class remains, of 'jit(relu)' nothing.
  names = [re.findall(r'\w+', part)[-1] if '(' in part else part for part in parts if part]
  layer = [name for name, part in zip(names, filter(None, parts), strict=True)
           if name not in _FRAMES and ('(' not in part or name[0].isupper())]
  moves = line.opcode in _MOVES or not primitive
  does = 'rearrangement in memory' if moves else _DOES.get(primitive, 'elementwise arithmetic')
  gradient = ', gradient' if 'transpose(' in where else ''
  return f'{"/".join(layer) or "outside networks"}: {does}{gradient}'


def _plain(kind):
  """The largest array of a type, without its layout."""
  arrays = re.findall(r'\w+\[[\d,]*\]', kind)
  return max(arrays, key=roofline.bytes_of, default='')


def _collectives(lines, times):
  numbers, sizes = collections.Counter(), collections.Counter()
  for line in lines:
    kind = line.opcode.removesuffix('-start')
    if kind in COLLECTIVES:
      numbers[kind] += times[line]
      sizes[kind] += roofline.bytes_of(line.kind) * times[line]
  return {kind: (numbers[kind], sizes[kind]) for kind in sorted(numbers)}


def _reason(message):
  """What a compiler's error says, in the first words that tell, with the places that it names."""
  first = next((line.strip() for line in message.splitlines() if line.strip()), 'no reason given')
  places = dict.fromkeys(filter(None, map(roofline.layer_of, re.findall(
      r'op_name="([^"]*)"', message))))
  return f'{first}; largest at {", ".join(list(places)[:3])}' if places else first
