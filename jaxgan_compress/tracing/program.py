"""The program of a network, and a walk through it that finds which channels belong together."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax
import jax
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from jaxgan_compress.tracing.labels import Atoms, Labels, Space, is_pattern
from jaxgan_compress.tracing.plan import Path as LeafPath
from jaxgan_compress.tracing.rules import RULES

# Equations that only run another program on their inputs, and where they hold it. Others hold one
# as well, of other arrays: `reduce`, `shard_map`, `pallas_call`.
RUNNING = ('jit', 'pjit', 'closed_call', 'call', 'core_call', 'eval_jaxpr', 'checkpoint', 'remat',
           'remat2', 'custom_jvp_call', 'custom_vjp_call', 'custom_vjp_call_jaxpr')
INSIDE = 'jaxpr', 'call_jaxpr', 'fun_jaxpr'
WITH_SHAPE = {'conv_general_dilated', 'gather', 'random_bits', 'bitcast_convert_type'} | {
    name for name in RULES if name.startswith(('reduce_window', 'random_', 'threefry', 'empty'))}
MULTIPLYING = 'conv_general_dilated', 'dot_general'


@dataclasses.dataclass(frozen=True, eq=False)
class Place:
  """An equation of a program, as a place in a network and in its source.

  outer: the equation that runs the program it is in. What JAX itself compiles, as `jnp.fft.fft`,
    says of its equations no more than where in JAX they are.
  """
  eqn: Any
  outer: Place | None = None

  @property
  def operation(self) -> str:
    return self.eqn.primitive.name

  @functools.cached_property
  def path(self) -> str:
    """Of the layer: 'block1/conv2'."""
    parts = str(self.eqn.source_info.name_stack).split('/')
    own = [part for part in parts if part and '(' not in part]
    return '/'.join([*([self.outer.path] if self.outer and self.outer.path else []), *own])

  @functools.cached_property
  def line(self) -> str:
    """'net.py:52', the innermost line that is not of JAX or Flax; '' where there is none."""
    traceback = self.eqn.source_info.traceback
    for frame in traceback.frames if traceback else ():
      name = frame.file_name
      if not is_library(name):
        return f'{name.rsplit("/", 1)[-1]}:{frame.line_num}'
    return self.outer.line if self.outer else ''

  def __str__(self):
    return self.line or self.path or self.operation


def is_library(file: str) -> bool:
  """Whether a file is of JAX, of Flax, or of no network."""
  return file.startswith(_libraries()) or '<' in file


@functools.cache
def _libraries():
  folders = [Path(str(module.__file__)).parent for module in (jax, flax)] + [Path(__file__).parent]
  return (*(f'{folder}/' for folder in folders), f'{sysconfig.get_path("stdlib")}/contextlib')


@dataclasses.dataclass(frozen=True)
class Call:
  """One way in which a network runs, as a program.

  jaxpr: closed. leaves: path of each of its first inputs, the others are no leaves. outputs: the
  results that must not change. returned, tree: all that the network returns, and its structure.
  states: {number of a result: the leaf that it replaces}. others: of further results, which may
    lose channels, {number: path}.
  """
  jaxpr: Any
  leaves: tuple[LeafPath, ...]
  outputs: tuple[int, ...]
  returned: tuple[int, ...]
  tree: Any
  states: Mapping[int, LeafPath]
  others: Mapping[int, LeafPath]


@dataclasses.dataclass(frozen=True)
class Term:
  """The multiply-accumulates of a convolution or matmul: `factor` for each combination of indices
  of the parts, of each of which those with a living label count."""
  factor: int
  parts: tuple[np.ndarray, ...]


class Walk:
  """A walk through programs on labels.

  unknown: {operation: a place} of operations without a rule, whose inputs stay whole.
  terms: multiply-accumulates by the stack of equations around them, of the last walk.
  """

  def __init__(self, space: Space):
    self.space = space
    self.unknown: dict[str, Place] = {}
    self.terms: dict[tuple, Term] = {}
    self.place: Any = None  # the `Place` of the equation whose program is walked

  def run(self, jaxpr, consts: Sequence, inputs: Sequence, stack: tuple = (), times: int = 1
          ) -> list:
    """Values of the results of a program, from values of its constants and inputs."""
    env = dict(zip(jaxpr.constvars, consts, strict=True)) | dict(
        zip(jaxpr.invars, inputs, strict=True))

    def read(v):
      if isinstance(v, Literal):
        return self.constant(v.val)
      if v not in env and 0 in v.aval.shape:  # of an equation that was skipped
        return self.constant(np.zeros(v.aval.shape))
      return env[v]

    for eqn in _needed(jaxpr):
      results = self.equation(eqn, [read(v) for v in eqn.invars], (*stack, id(eqn)), times)
      env.update(zip(eqn.outvars, results, strict=True))
    return [read(v) for v in jaxpr.outvars]

  def constant(self, value):
    return Labels.all_rigid(np.shape(value))

  def equation(self, eqn, inputs, stack, times):
    outer = self.place
    self.space.why = self.place = Place(eqn, outer)
    results = self.entered(eqn, inputs, stack, times)
    self.place = outer
    return results

  def entered(self, eqn, inputs, stack, times):
    name = eqn.primitive.name
    control = {'scan': self.scan, 'while': self.while_, 'cond': self.cond}.get(name)
    if control:
      return control(eqn, inputs, stack, times)
    if name in RUNNING:
      jaxpr, consts = opened(_inside(eqn))
      return self.run(jaxpr, [self.constant(c) for c in consts], inputs, stack, times)
    return self.plain(eqn, inputs, stack, times)

  def plain(self, eqn, inputs, stack, times):
    """Of an equation that holds no program."""
    name = eqn.primitive.name
    shapes = [v.aval.shape for v in eqn.outvars]
    if name not in RULES:
      self.unknown.setdefault(name, self.place)
      for v in inputs:
        self.space.pin_all(v)
      return [Labels.all_rigid(shape) for shape in shapes]
    more = {'out': shapes[0]} if name in WITH_SHAPE else {}
    if name in MULTIPLYING:
      more['note'] = functools.partial(self.note, eqn, stack, times)
    results = RULES[name](self.space, eqn.params, *inputs, **more)
    results = [results] if isinstance(results, Labels) else list(results)
    if len(results) == 1:
      results *= len(eqn.outvars)
    for v, shape in zip(results, shapes, strict=True):
      assert v.shape == shape, f'{eqn}: {v.shape} for {shape}'
    return results

  def note(self, eqn, stack, times, merged):
    """Takes down the product of a convolution or matmul, whose axes are merged."""
    self.terms[stack] = _term(eqn, merged, times)

  def scan(self, eqn, inputs, stack, times):
    jaxpr, consts = opened(eqn.params['jaxpr'])
    constants, carried = scan_counts(eqn.params)
    consts = [self.constant(c) for c in consts]
    fixed, carry = inputs[:constants], inputs[constants:constants + carried]
    rows = [row(self.space, x) for x in inputs[constants + carried:]]
    length = eqn.params['length']
    carry, out = self._settled(carry, lambda carry: self.run(
        jaxpr, consts, [*fixed, *carry, *rows], stack, times * length), eqn)
    return [*carry, *(_stacked(self.space, y, length) for y in out[carried:])]

  def while_(self, eqn, inputs, stack, times):
    (test, test_consts), (body, body_consts) = (
        opened(eqn.params[key]) for key in ('cond_jaxpr', 'body_jaxpr'))
    n, m = eqn.params['cond_nconsts'], eqn.params['body_nconsts']
    of_test, of_body, carry = inputs[:n], inputs[n:n + m], inputs[n + m:]
    carry, _ = self._settled(carry, lambda carry: self.run(
        body, [self.constant(c) for c in body_consts], [*of_body, *carry], stack, times), eqn)
    self.run(test, [self.constant(c) for c in test_consts], [*of_test, *carry], stack, times)
    return carry

  def cond(self, eqn, inputs, stack, times):
    self.space.pin_all(inputs[0])
    branches = []
    for i, branch in enumerate(eqn.params['branches']):
      jaxpr, consts = opened(branch)
      branches.append(self.run(jaxpr, [self.constant(c) for c in consts], inputs[1:],
                               (*stack, i), times))
    self.space.why = self.place
    return [self.space.merge(*results) for results in zip(*branches, strict=True)]

  def _settled(self, carry, body, eqn):
    """(what is carried when a round changes nothing more, all results of that round)."""
    while True:
      before, out = self.space.atoms.changes, body(carry)
      self.space.why = self.place
      joined = [self.space.merge(a, b) for a, b in zip(carry, out[:len(carry)], strict=True)]
      settled = before == self.space.atoms.changes and all(
          a.rigid == b.rigid and a.parts.keys() == b.parts.keys()
          for a, b in zip(map(self.space.normal, carry), joined, strict=True))
      carry = joined
      if settled:
        return carry, out


def opened(jaxpr: Any) -> tuple[Any, Sequence]:
  """(program, its constants), closed or not."""
  return (jaxpr.jaxpr, jaxpr.consts) if isinstance(jaxpr, ClosedJaxpr) else (jaxpr, ())


def _inside(eqn):
  """The program that an equation of `RUNNING`, or a scan, runs on its inputs, one for one."""
  return next(eqn.params[key] for key in INSIDE if key in eqn.params)


def scan_counts(params) -> tuple[int, int]:
  """How many constants and carried values a scan has."""
  if 'num_consts' in params:
    return params['num_consts'], params['num_carry']
  constants, carried, _ = (len(list(tree)) for tree in params['ft_in'].unpack())  # jax 0.11
  return constants, carried


def _needed(jaxpr):
  """The equations whose results are used, of sizes above 0."""
  wanted = {v for v in jaxpr.outvars if not isinstance(v, Literal)}
  kept = []
  for eqn in reversed(jaxpr.eqns):
    empty = [isinstance(v.aval, ShapedArray) and 0 in v.aval.shape for v in eqn.outvars]
    if wanted.intersection(eqn.outvars) and not all(empty):
      kept.append(eqn)
      wanted.update(v for v in eqn.invars if not isinstance(v, Literal))
  return kept[::-1]


def row(space: Space, v: Labels) -> Labels:
  """Of one element along the first axis, over which a scan goes."""
  v = space.pin(v, 0)
  return space.squeeze(Labels((1, *v.shape[1:]), v.rigid - {0}, v.parts), (0,))


def _stacked(space, v, length):
  out = space.move(v, {i: i + 1 for i in range(len(v.shape))}, (length, *v.shape))
  return Labels(out.shape, out.rigid | ({0} if length > 1 else set()), out.parts)


def _term(eqn, merged, times):
  """The term of a convolution [G, I, N, O/G] or a matmul, whose axes are merged."""
  parts = {axes: labels for axes, labels in merged.parts.items() if not is_pattern(labels)}
  inside = {axis for axes in parts for axis in axes}
  factor = times * math.prod(n for axis, n in enumerate(merged.shape) if axis not in inside)
  if eqn.primitive.name == 'conv_general_dilated':
    numbers = eqn.params['dimension_numbers']
    kernel, out = eqn.invars[1].aval.shape, eqn.outvars[0].aval.shape
    factor *= math.prod(kernel[i] for i in numbers.rhs_spec[2:])
    factor *= math.prod(out[i] for i in numbers.out_spec[2:])
    factor //= math.prod(eqn.params['lhs_dilation'])
  return Term(factor, tuple(parts.values()))


@dataclasses.dataclass(frozen=True)
class Understanding:
  """What walks through the programs of a network found.

  leaves: {path: labels}, in the order of first use. atoms: their classes. terms: the
  multiply-accumulates of the first call. unknown: see `Walk`.
  """
  leaves: Mapping[LeafPath, Labels]
  atoms: Atoms
  terms: tuple[Term, ...]
  unknown: Mapping[str, Place]


def understand(calls: Sequence[Call], shapes: Mapping[LeafPath, tuple[int, ...]]) -> Understanding:
  """Walks through all calls until nothing new is found.

  shapes: of all leaves. Results of calls stay as they are, each state belongs to the leaf that it
  replaces, and leaves that no call reads stay whole.
  """
  space = Space(Atoms())
  leaves = {path: space.leaf(shape) for path, shape in shapes.items()}
  order = list(dict.fromkeys(path for call in calls for path in _first_used(call)))
  space.why = ('no call reads it, so it is unknown what it belongs to; also trace the call that '
               'does (calls=...)')
  for path in leaves.keys() - set(order):
    space.pin_all(leaves[path])
  walks = [Walk(space) for _ in calls]
  unchanged = 0  # walks in a row
  for walk, call in itertools.cycle(zip(walks, calls, strict=True)):
    before = space.atoms.changes
    _walk_call(walk, call, leaves)
    unchanged = unchanged + 1 if space.atoms.changes == before else 0
    if unchanged == len(calls):
      break
  ordered = {path: space.normal(leaves[path]) for path in dict.fromkeys((*order, *leaves))}
  unknown = {name: place for walk in walks for name, place in walk.unknown.items()}
  return Understanding(ordered, space.atoms, tuple(walks[0].terms.values()), unknown)


def _walk_call(walk, call, leaves):
  space, (jaxpr, consts) = walk.space, opened(call.jaxpr)
  inputs = [leaves[path] for path in call.leaves]
  inputs += [Labels.all_rigid(v.aval.shape) for v in jaxpr.invars[len(inputs):]]
  results = walk.run(jaxpr, [walk.constant(c) for c in consts], inputs)
  space.why = 'the output of the network'
  for i in call.outputs:
    space.pin_all(results[i])
  for i, path in call.states.items():
    space.why = f'what replaces {"/".join(path)}'
    space.merge(results[i], leaves[path])


def _first_used(call) -> list[LeafPath]:
  """Leaves in the order in which the program reads them."""
  jaxpr, _ = opened(call.jaxpr)
  number = {v: i for i, v in enumerate(jaxpr.invars[:len(call.leaves)])}
  used = [*_read(jaxpr, number),
          *(number[v] for v in jaxpr.outvars if not isinstance(v, Literal) and v in number)]
  return [call.leaves[i] for i in dict.fromkeys(used)]


def _read(jaxpr, number):
  """The numbers of the variables that a program reads, in this order."""
  for eqn in _needed(jaxpr):
    known = [None if isinstance(v, Literal) else number.get(v) for v in eqn.invars]
    if eqn.primitive.name in (*RUNNING, 'scan'):
      inner, _ = opened(_inside(eqn))
      yield from _read(inner, {v: i for v, i in zip(inner.invars, known, strict=True)
                               if i is not None})
    yield from (i for i in known if i is not None)


def equations(jaxpr: Any, scope: str = '', times: int = 1, needed: bool = False
              ) -> Iterator[tuple[Any, str, int]]:
  """(equation, its scope, how often it runs) of a program and of all inside it. needed: only of
  those whose results are used."""
  jaxpr, _ = opened(jaxpr)
  for eqn in _needed(jaxpr) if needed else jaxpr.eqns:
    inside = f'{scope}/{eqn.source_info.name_stack}'
    yield eqn, inside, times
    more = times * (eqn.params.get('length', 1) if eqn.primitive.name == 'scan' else 1)
    for value in eqn.params.values():
      for inner in value if isinstance(value, tuple | list) else (value,):
        if isinstance(inner, ClosedJaxpr | Jaxpr):
          yield from equations(inner, inside, more, needed)


def products(eqn: Any) -> tuple[int, int]:
  """Multiply-accumulates of a convolution or matmul, 0 of all else: exact, a transposed
  convolution's on its input; and on its output, as profilers count."""
  if eqn.primitive.name not in MULTIPLYING:
    return 0, 0
  left, right, out = (v.aval.shape for v in (*eqn.invars, *eqn.outvars))
  numbers = eqn.params['dimension_numbers']
  if eqn.primitive.name == 'dot_general':
    count = math.prod(out) * math.prod(left[i] for i in numbers[0][0])
    return count, count
  count = math.prod(out) * (math.prod(right) // right[numbers.rhs_spec[0]])
  return count // math.prod(eqn.params['lhs_dilation']), count


def multiply_accumulates(jaxpr: Any) -> int:
  """Those of all convolutions and matmuls of a program whose results are used."""
  return sum(times * products(eqn)[0] for eqn, _, times in equations(jaxpr, needed=True))
