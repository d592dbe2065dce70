"""The proof of a plan: what a network computes must not depend on the order of channels, nor on
whether dead ones are there."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.core import ShapedArray

from jaxgan_compress.tracing import rewriting
from jaxgan_compress.tracing.plan import Path, living, masked
from jaxgan_compress.tracing.program import (
  Place,
  equations,
  is_library,
  multiply_accumulates,
)
from jaxgan_compress.tracing.running import with_arrays_as_given

if TYPE_CHECKING:
  from jaxgan_compress.tracing.traced_plan import TracedPlan

# Largest difference by the largest output. Noise of float64 stays below 1e-13; where a network
# computes in float32 it came to 1e-6 in 23 residual-in-residual dense blocks, and the least change
# when an axis was forgotten was 1.6e-4. Half precision sees gross mistakes alone.
TOLERANCES = {8: 1e-10, 4: 1e-5, 2: 3e-2}
POSITIVE = 'scale', 'var', 'sigma'
MIXED = "allow=('mixed',) prunes it all the same"


@dataclasses.dataclass(frozen=True)
class Subject:
  """A network on random weights.

  function: (variables, inputs) -> (output, states). compiled: (leaves, inputs) -> arrays of its
  output, in the network's own sizes. flat: its leaves. inputs: arrays. outputs: see `trace_plan`.
  whole: the arrays of its output. tolerance: see `TOLERANCES`.
  """
  function: Callable
  compiled: Callable
  flat: Mapping[Path, np.ndarray]
  inputs: Sequence[np.ndarray]
  outputs: Callable | None
  whole: list[np.ndarray]
  tolerance: float

  def same(self, out: Sequence[np.ndarray]) -> bool:
    return len(out) == len(self.whole) and all(
        _near(a, b, self.tolerance) for a, b in zip(self.whole, out, strict=True))


def subject(function: Callable, shapes: Mapping[Path, Any], inputs: Sequence, outputs=None,
            seed: int = 0) -> Subject:
  """Weights and inputs, as random as weights of trained networks need not be: a norm whose scales
  are 0 makes every law true. Under float64, but for what the network fixes itself; in the types of
  its own where it runs in these alone, as loops do that begin with zeros of float32."""
  rng = np.random.default_rng(seed)
  flat = {path: random_leaf(rng, path, x) for path, x in shapes.items()}
  arrays = [_random_input(rng, x) for x in inputs]
  compiled = _compiled(function, outputs)
  try:
    out = _run(compiled, flat, arrays)
  except TypeError:
    flat = {path: x.astype(shapes[path].dtype) for path, x in flat.items()}
    arrays = [x.astype(like.dtype) for x, like in zip(arrays, inputs, strict=True)]
    out = _run(compiled, flat, arrays)
  with jax.enable_x64(True):
    narrowest = _narrowest(jax.make_jaxpr(compiled)(flat, *arrays).jaxpr)
  return Subject(function, compiled, flat, arrays, outputs, out, TOLERANCES[narrowest])


def random_leaf(rng: np.random.Generator, path: Path, leaf: Any) -> np.ndarray:
  """Kernels N(0, 1 / fan_in), vectors N(0, 1/4), scales and variances |N| + 1/2, in float64; masks
  of which half is True, other integers 0."""
  if leaf.dtype == bool:
    return rng.random(leaf.shape) < 0.5
  if not jnp.issubdtype(leaf.dtype, jnp.floating):
    return np.zeros(leaf.shape, leaf.dtype)
  x = rng.standard_normal(leaf.shape)
  if path[-1] in POSITIVE:
    return np.abs(x) + 0.5
  if len(leaf.shape) < 2:
    return x / 2
  return x / math.sqrt(max(1, math.prod(leaf.shape[:-1])))


def _random_input(rng, x):
  if jnp.issubdtype(x.dtype, jnp.floating):
    return rng.standard_normal(x.shape)
  return np.zeros(x.shape, x.dtype) if isinstance(x, jax.ShapeDtypeStruct) else np.asarray(x)


def _compiled(function, outputs, small=False):

  @jax.jit
  def run(flat, *inputs):
    variables = traverse_util.unflatten_dict(flat)
    with with_arrays_as_given() if small else contextlib.nullcontext():
      out = function(variables, *inputs)[0]
    return jax.tree.leaves(outputs(out) if outputs else out)

  return run


def _run(compiled, flat, inputs):
  with jax.enable_x64(True):
    return [np.asarray(x) for x in compiled(dict(flat), *inputs)]


def _narrowest(jaxpr) -> int:
  """Bytes of the narrowest float that an equation makes, 8 where all is in float64."""
  return min((v.aval.dtype.itemsize for eqn, *_ in equations(jaxpr) for v in eqn.outvars
              if isinstance(v.aval, ShapedArray) and jnp.issubdtype(v.aval.dtype, jnp.floating)
              and math.prod(v.aval.shape) > 1), default=8)


def _near(a, b, tolerance):
  largest = max(np.abs(a).max(initial=0), 1e-30)
  return a.shape == b.shape and bool(np.isfinite(b).all()) and bool(
      np.abs(a - b).max(initial=0) <= tolerance * largest)


def permutes(plan: TracedPlan, about: Subject, names: Sequence[str], seed: int = 0) -> bool:
  """Whether the output stays when the channels of these groups change places in all leaves."""
  rng = np.random.default_rng(seed)
  flat = dict(about.flat)
  for name in names:
    order = rng.permutation(plan.groups[name].width)
    order = np.roll(order, 1) if (order == np.arange(len(order))).all() else order
    for path, axis, indices in plan.members[name]:
      places = np.arange(plan.shapes[path][axis])
      places[indices.reshape(-1)] = indices[order].reshape(-1)
      flat[path] = flat[path].take(places, axis)
  return about.same(_run(about.compiled, flat, about.inputs))


def random_masks(plan: TracedPlan, names: Sequence[str], seed: int = 0) -> dict[str, np.ndarray]:
  """Some of each group's channels, at random places, so that only what reads the right ones can be
  right: half, and of further groups as wide another number each, for they may have to agree."""
  rng = np.random.default_rng(seed)
  masks = {name: np.ones(group.width, bool) for name, group in plan.groups.items()}
  seen: collections.Counter[int] = collections.Counter()
  for name in names:
    width = plan.groups[name].width
    count = 1 + (max(1, width // 2) - 1 + seen[width]) % max(1, width - 1)
    seen[width] += 1
    masks[name] = rng.permutation(width) < count
  return masks


def removes(plan: TracedPlan, about: Subject, masks: Mapping[str, np.ndarray],
            execution: str) -> bool:
  """Whether the small network computes what the large one does with the channels that are not in
  the masks at 0. Raises whatever the small network raises."""
  run, small = _small(plan, about, masks, execution)
  out = _run(run, small, about.inputs)
  alive = plan.alive(masks)
  large = {path: masked(x, plan.leaves[path], alive) for path, x in about.flat.items()}
  reference = _run(about.compiled, large, about.inputs)
  return dataclasses.replace(about, whole=reference).same(out)


def costs(plan: TracedPlan, about: Subject, masks: Mapping[str, np.ndarray], execution: str
          ) -> tuple[int, int]:
  """Multiply-accumulates of the small network: as its terms say, and counted in its program."""
  run, small = _small(plan, about, masks, execution)
  with jax.enable_x64(True):
    program = jax.make_jaxpr(run)(small, *about.inputs)
  alive = plan.alive(masks)
  told = sum(factor * math.prod(int(alive[part].sum()) for part in parts)
             for factor, parts in plan.terms)
  return told, multiply_accumulates(program)


def _small(plan, about, masks, execution):
  """(a compiled function of leaves and inputs, the leaves) of the small network."""
  alive = plan.alive(masks)
  small = {path: x[living(plan.leaves[path], x.shape, alive)] for path, x in about.flat.items()}
  if execution == 'module':
    return _compiled(about.function, about.outputs, small=True), small
  function = rewriting.function(plan, about.function, masks, about.outputs)

  @jax.jit
  def run(flat, *inputs):
    out, _ = function(flat, *inputs)
    return jax.tree.leaves(about.outputs(out) if about.outputs else out)

  return run, small


@dataclasses.dataclass(frozen=True)
class Outcome:
  """kind: 'exact', 'mixed' (removing changes what is left), 'fails' (the small network cannot run)
  or 'wrong'. why: a sentence for the last two."""
  kind: str
  why: str = ''


def outcomes(plan: TracedPlan, about: Subject, names: Sequence[str], execution: str,
             mixed: Mapping[str, Any], seed: int = 0) -> dict[str, Outcome]:
  """What removing does to each group: all at once; where that fails, half of them and the others.
  """
  masks = random_masks(plan, names, seed)
  try:
    if removes(plan, about, masks, execution):
      return {name: Outcome('exact') for name in names}
  except Exception as e:  # whatever a network of other widths raises
    if len(names) == 1:
      return {names[0]: Outcome('fails', _failure(plan, names[0], masks, e))}
  if len(names) > 1:
    half = len(names) // 2
    return {name: outcome for some in (names[:half], names[half:]) for name, outcome in
            outcomes(plan, about, some, execution, mixed, seed).items()}
  return {names[0]: Outcome('mixed' if names[0] in mixed else 'wrong')}


def _failure(plan, name, masks, error):
  text = str(error).strip().split('\n')[0]
  place = next((f'{frame.filename.rsplit("/", 1)[-1]}:{frame.lineno}' for frame in reversed(
      traceback.extract_tb(error.__traceback__)) if not is_library(frame.filename)), 'the network')
  return (f'{name} is not pruned: {place} cannot run with {int(masks[name].sum())} of its '
          f'{plan.groups[name].width} channels ({text[:100]}); it repeats a width by number. Take '
          "-1 or x.shape[-1] // 2, or execution='program'")


def proved(plan: TracedPlan, about: Subject, mixed: Mapping[str, Any], execution: str = 'auto',
           allow: Sequence[str] = (), seed: int = 0) -> TracedPlan:
  """The plan of those groups for which the laws hold, executed in a way for which they do.

  mixed: {group: where only the sum over its channels is known}. Raises ValueError where none is
  left.
  """
  names, notes = _movable(plan, about, seed)
  found = {}
  for way in ('module', 'program') if execution == 'auto' else (execution,):
    found[way] = _together(plan, about, outcomes(plan, about, names, way, mixed, seed), way, seed)
    if all(_serves(outcome, allow) for outcome in found[way].values()):
      break
  best = max(found, key=lambda way: sum(_serves(x, allow) for x in found[way].values()))
  kept = [name for name in names if _serves(found[best][name], allow)]
  notes = [*plan.notes, *notes, *(found[best][name].why or _sentence(
      name, found[best][name], mixed.get(name)) for name in names if name not in kept)]
  if not kept:
    raise ValueError('no channel of this network can be pruned: ' + '; '.join(notes[:3]))
  told, counted = costs(plan, about, random_masks(plan, kept, seed), best)
  if told != counted:
    raise ValueError(f'a smaller network would take {counted:,} multiply-accumulates and not '
                     f'{told:,}, as was reckoned; please report this network')
  return dataclasses.replace(
      _only(plan, kept), execution=best, notes=tuple(notes),
      approximate=frozenset(name for name in kept if found[best][name].kind == 'mixed'))


def _together(plan, about, found, execution, seed):
  """The outcomes, once those groups that are exact have been proved in one network. Where that
  fails none is."""
  exact = [name for name, outcome in found.items() if outcome.kind == 'exact']
  if len(exact) == len(found):
    return found
  with contextlib.suppress(Exception):  # whatever a network of other widths raises
    if not exact or removes(plan, about, random_masks(plan, exact, seed), execution):
      return found
  why = ('{} is not pruned: with other groups smaller, too, the network does not run or its '
         "output changes; execution='program' may prune it")
  return {name: Outcome('wrong', why.format(name)) if name in exact else outcome
          for name, outcome in found.items()}


def _movable(plan, about, seed):
  """(groups whose channels may change places, a sentence on each other)."""
  names = list(plan.groups)
  if permutes(plan, about, names, seed):
    return names, []
  fixed = [name for name in names if not permutes(plan, about, [name], seed)]
  return [name for name in names if name not in fixed], [
      f'{name} ({plan.groups[name].width} channels) is not pruned: the output changes when its '
      f'channels change places; please report this network' for name in fixed]


def _serves(outcome, allow):
  return outcome.kind == 'exact' or (outcome.kind == 'mixed' and 'mixed' in allow)


def _sentence(name, outcome, place):
  if outcome.kind == 'mixed':
    what = f'{place} takes its channels together ({place.operation})' if isinstance(
        place, Place) else 'its channels are taken together'
    return f'{name} is not pruned: {what}, so what is left would change; {MIXED}'
  return (f'{name} is not pruned: the output changes when some of its channels are removed, as '
          "where a network takes channels by number; execution='program' may prune it")


def _only(plan, names):
  """The same plan without the other groups, whose channels stay."""
  groups = {name: group for name, group in plan.groups.items() if name in names}
  number = np.full(sum(plan.widths.values()) + 1, -1)
  start = 0
  for name in groups:
    numbers = plan.numbers[name]
    number[numbers.start:numbers.stop] = start + np.arange(len(numbers))
    start += len(numbers)
  renumbered = {path: tuple(None if x is None or (number[x] < 0).all() else number[x] for x in axes)
                for path, axes in plan.leaves.items()}
  terms = tuple((factor, tuple(number[part] for part in parts)) for factor, parts in plan.terms)
  return dataclasses.replace(plan, groups=groups, leaves=renumbered, terms=terms)
