"""The plan of any network, found in its programs and proved on random weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from jaxgan_compress.tracing import laws
from jaxgan_compress.tracing import network as networks
from jaxgan_compress.tracing.plan import Group, Path, Plan
from jaxgan_compress.tracing.program import Place, Understanding, understand

EXECUTIONS = 'auto', 'module', 'program'
ALLOWED = ('mixed',)
P = TypeVar('P', bound=Plan)
GONE = -2  # instead of the number of a channel that was cut


@dataclasses.dataclass(frozen=True, eq=False)
class TracedPlan(Plan):
  """A `Plan` that `trace_plan` found, and what it says of channels that cannot be cut.

  execution: 'module', the small network is the same module with smaller arrays; or 'program', it is
    the same program with other shapes. approximate: groups whose cut changes what is left (a mean,
    a norm, a scale takes their number in). notes: of groups that are not cut, a sentence each.
  whole: {(leaf, axis): why it stays whole}. terms: (factor, channels along each axis) of the
    multiply-accumulates of one call.
  """
  execution: str = 'module'
  approximate: frozenset[str] = frozenset()
  notes: tuple[str, ...] = ()
  whole: Mapping[tuple[Path, int], Any] = dataclasses.field(default_factory=dict)
  terms: tuple[tuple[int, tuple[np.ndarray, ...]], ...] = ()

  def __str__(self):
    how = 'the same module with smaller arrays' if self.execution == 'module' else \
        'the same program with other shapes'
    lines = [f'{len(self.groups)} groups of {sum(self.widths.values())} channels can be pruned; '
             f'what is left runs as {how}:']
    for name, group in self.groups.items():
      places = self.members[name]
      copies = places[0][2].shape[1]
      notes = [f'{copies} indices each'] * (copies > 1) + ['approximate'] * (
          name in self.approximate) + [f'ranked by {group.norm}'] * bool(group.norm)
      lines.append(f'  {", ".join([f"{name}: {group.width}", *notes])}; in '
                   + _listed(dict.fromkeys('/'.join(path[1:]) for path, _, _ in places)))
    reasons: dict[str, list[str]] = {}
    for (path, axis), why in self.whole.items():
      # Of a kernel's pixels everybody knows.
      if path[-1] != 'kernel' or axis >= len(self.shapes[path]) - 2:
        reasons.setdefault(_because(why), []).append(f'{"/".join(path[1:])}[{axis}]')
    if reasons:
      lines.append('What stays whole, and where it is decided:')
      lines += [f'  {_listed(axes)}: {why}' for why, axes in reasons.items()]
    return '\n'.join([*lines, *self.notes])

  def reason(self, path: Path, axis: int) -> str:
    """Why the channels along an axis of a leaf stay; '' where they do not."""
    return _because(self.whole[path, axis]) if (path, axis) in self.whole else ''


def _listed(names) -> str:
  names = list(names)
  return ', '.join(names) if len(names) < 5 else f'{", ".join(names[:3])} and {len(names) - 3} more'


def trace_plan(network: Any, variables: Any, *inputs: Any, calls: Sequence[tuple] | None = None,
               outputs: Callable[[Any], Any] | None = None, allow: Sequence[str] = (),
               execution: str = 'auto', seed: int = 0, prove: bool = True) -> TracedPlan:
  """The groups of channels that live and die together in a network, found by tracing it.

  network: a module of linen, a model of nnx, or a function (variables, *inputs) -> arrays.
    variables: its arrays, or their shapes; None for those of a module's `init`, and for those that
    a model of nnx holds, which itself stays as it is. inputs: arrays, or their shapes, best of
    batch 1 and the smallest size that the network takes: plans do not depend on it.
  calls: (args, kwargs) of several calls besides the arrays, which are understood together; default:
    in inference mode, and in training mode where the network has an argument `train`, or tells
    `model.train()` from `model.eval()`; an argument train=True of a call stands for the former.
  outputs: of what the network returns the part that must not change; default: all of it.
  allow: 'mixed' prunes channels, too, whose number a mean, a norm or a scale takes in, so that what
    is left changes. execution: 'module' or 'program', see `TracedPlan`; 'auto' takes the first
    where it serves all groups.

  Before it returns, groups are proved on random weights in float64: their channels change places,
  and some are removed, and the output must stay. What fails is not pruned, and is named.
  prove: False leaves that out.

  Raises ValueError where no channel can be pruned, or for another `execution` or `allow`.
  """
  if execution not in EXECUTIONS or set(allow) - set(ALLOWED):
    raise ValueError(f'execution={execution!r}, allow={tuple(allow)!r}; execution is one of '
                     f'{", ".join(EXECUTIONS)}, and allow has {", ".join(ALLOWED)} or nothing')
  shapes = networks.shapes_of(network, variables, inputs)
  functions = networks.functions(network, {path[0] for path in shapes}, calls)
  programs = [networks.traced_call(function, shapes, inputs, outputs) for function in functions]
  found = understand(programs, {path: x.shape for path, x in shapes.items()})
  plan = _plan(found)
  if not plan.groups:
    raise ValueError(f'no channel of this network can be pruned: {_commonest(plan)}')
  if not prove:
    return plan
  about = laws.subject(functions[0], shapes, inputs, outputs, seed)
  return laws.proved(plan, about, mixtures(found, plan), execution, allow, seed)


def narrowed(plan: P, masks: Mapping[str, np.ndarray]) -> P:
  """The plan of the network that `masks` leave, {group: bool [width]}."""
  alive = plan.alive(masks)
  number = np.where(alive, np.cumsum(alive) - 1, GONE)
  number[-1] = -1
  left = lambda channels: (kept := number[channels])[kept != GONE]
  groups = {name: dataclasses.replace(group, width=int(alive[list(plan.numbers[name])].sum()))
            for name, group in plan.groups.items()}
  more = {'terms': tuple((factor, tuple(map(left, parts))) for factor, parts in plan.terms)
          } if isinstance(plan, TracedPlan) else {}
  return dataclasses.replace(
      plan, **more, groups=groups,
      leaves={path: tuple(None if x is None else left(x) for x in axes)
              for path, axes in plan.leaves.items()},
      shapes={path: tuple(n if x is None else len(left(x)) for x, n in zip(
          axes, plan.shapes[path], strict=True)) for path, axes in plan.leaves.items()})


def terms_at(plan: TracedPlan, network: Any, variables: Any, *inputs: Any,
             calls: Sequence[tuple] | None = None, outputs: Callable | None = None) -> tuple:
  """`TracedPlan.terms` of inputs of other sizes; arguments as of `trace_plan`."""
  shapes = networks.shapes_of(network, variables, inputs)
  programs = [networks.traced_call(function, shapes, inputs, outputs)
              for function in networks.functions(network, {path[0] for path in shapes}, calls)]
  found = understand(programs, {path: x.shape for path, x in shapes.items()})
  number = np.full(len(found.atoms), -1)
  for path, labels in found.leaves.items():
    for axis, channels in enumerate(plan.leaves[path]):
      if channels is not None:
        number[labels.parts[axis,]] = channels
  return _numbered(found, number)


def _numbered(found, number):
  """Terms whose labels are numbers of channels, from numbers by class."""
  return tuple((term.factor, tuple(np.where(atoms < 0, -1, number[atoms])
                                   for atoms in map(found.atoms.find, term.parts)))
               for term in found.terms)


def _plan(found: Understanding) -> TracedPlan:
  """Of what was understood: classes that are not frozen are channels, and channels that lie at the
  same places equally often are a group."""
  kinds = _footprints(found)
  number = np.full(len(kinds), -1)
  groups: dict[str, Group] = {}
  norms = {path: labels for path, labels in found.leaves.items() if path[-1] == 'scale'
           and len(labels.shape) == 1}
  for path, labels in found.leaves.items():
    for _, atoms in sorted(labels.parts.items(), reverse=True):
      roots = atoms[np.sort(np.unique(atoms, return_index=True)[1])]
      roots = roots[(number[roots] < 0) & ~found.atoms.frozen(roots)]
      for kind in dict.fromkeys(kinds[roots].tolist()):
        own = roots[kinds[roots] == kind]
        number[own] = sum(group.width for group in groups.values()) + np.arange(len(own))
        norm = next((leaf[1:-1] for leaf, scale in norms.items()
                     if all(np.isin(own, x).all() for x in scale.parts.values())), ())
        groups[_name(path, groups)] = Group(len(own), '/'.join(norm))
  leaves, whole = {}, {}
  for path, labels in found.leaves.items():
    axes: list[Any] = [None] * len(labels.shape)
    for (axis,), atoms in labels.parts.items():
      channels = number[atoms]
      if (channels >= 0).any():
        axes[axis] = channels
      else:
        whole[path, axis] = found.atoms.reason(int(atoms[0]))
    leaves[path] = tuple(axes)
  notes = tuple(f'an operation whose axes are not known: {name} at {place}; all it touches stays '
                'whole' for name, place in found.unknown.items())
  return TracedPlan(groups, {}, leaves, {path: v.shape for path, v in found.leaves.items()},
                    notes=notes, whole=whole, terms=_numbered(found, number))


def _footprints(found):
  """[atoms] a number that is equal for classes that lie at the same places equally often."""
  kinds = np.zeros(len(found.atoms), np.uint64)
  random = np.random.default_rng(0).integers(1, 1 << 63, (1 << 20, 2), np.uint64)
  places = [atoms for labels in found.leaves.values() for atoms in labels.parts.values()]
  places += [found.atoms.find(part) for term in found.terms for part in term.parts]
  for atoms, (a, b) in zip(places, random, strict=False):
    roots, counts = np.unique(atoms[atoms >= 0], return_counts=True)
    kinds[roots] += a + b * counts.astype(np.uint64)
  return kinds


def mixtures(found: Understanding, plan: Plan) -> dict[str, Any]:
  """{group: where only the sum over its channels is known}."""
  mixed = {}
  for name, places in plan.members.items():
    path, axis, indices = places[0]
    root = found.leaves[path].parts[axis,][indices[0, 0]]
    if (place := found.atoms.mixture(int(root))) is not None:
      mixed[name] = place
  return mixed


def _name(path, taken):
  name = '/'.join(path[1:-1]) or path[-1]
  return next(each for each in (name, *(f'{name}#{i}' for i in range(2, 2 + len(taken))))
              if each not in taken)


def _because(why) -> str:
  if isinstance(why, Place):
    return f'{why.operation} at {why}'
  return str(why)


def _commonest(plan):
  reasons: dict[str, int] = {}
  for why in plan.whole.values():
    reasons[_because(why)] = reasons.get(_because(why), 0) + 1
  best = sorted(reasons, key=lambda why: -reasons[why])[:3]
  return '; '.join([*best, *plan.notes]) or 'it has no leaf with an axis longer than 1'
