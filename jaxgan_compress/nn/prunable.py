"""Which channels of a network live and die together, found from what changes with its widths."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from flax import linen

from jaxgan_compress.nn import init
from jaxgan_compress.nn.layers.norms import scaled
from jaxgan_compress.tracing.plan import Group, Path, Plan, runs

Widths = Mapping[str, int]
# Along one axis: the groups whose channels lie there, and how many copies of each, one after
# another.
Axis = tuple[tuple[str, int], ...]


def voting(kind: str, width: int, norm: str, **fields) -> Group:
  """A group ranked by the norm at that path, if this kind of norm has scales."""
  return Group(width, norm if scaled(kind) else '', **fields)


def make_plan(module: linen.Module, groups: Mapping[str, Group],
              parts: Mapping[str, tuple[str, ...]] | None = None,
              joined: Sequence[tuple[str, ...]] = ()) -> Plan:
  """The plan of a module that has `with_widths`. Nothing runs: shapes are enough.

  Every group is given a width of its own, and how long an axis of a parameter has become tells
  whose channels lie along it: the widths are such that no two sums of them agree, and none is as
  short as an axis that stayed.

  joined: groups that lie one after another along an axis, where networks join any number of maps.
  Without it each two groups are thought to.

  Raises ValueError for an axis that is no sum of at most two groups, or not among `joined`.
  """
  wide, meaning = _telling(tuple(groups), tuple(joined))
  leaves: dict[Path, tuple] = {}
  shapes = {}
  for name, x in init.flat(init.shapes(module.with_widths(wide))).items():
    path = tuple(name.split('/'))
    axes = [meaning.get(length, () if length < LONG else None) for length in x.shape]
    if None in axes:
      raise ValueError(f'{name}: an axis is no sum of at most two widths, or none that is joined; '
                       'a network can be pruned where each axis is whole groups of channels')
    shapes[path] = tuple(sum(n * groups[name].width for name, n in axis) or length
                         for axis, length in zip(axes, x.shape, strict=True))
    leaves[path] = tuple(runs(groups, axis) for axis in axes)
  return Plan(dict(groups), dict(parts or {}), leaves, shapes)


def renewed(widths: Widths, name: str, current: tuple[int, ...], start: int = 0):
  """`current` with what `widths` says of 'name0', 'name1', ..."""
  return tuple(widths.get(f'{name}{i}', n) for i, n in enumerate(current, start))


TIMES = 1, 2, 4  # copies of a group along an axis that are looked for
LONG = 1 << 20  # no axis of a parameter is, but those with a share of a telling width


@functools.cache
def _telling(names: tuple[str, ...], joined: tuple[tuple[str, ...], ...]
             ) -> tuple[dict[str, int], dict[int, Axis]]:
  """(a width for each group, {length of an axis: what lies along it})."""
  rng = np.random.default_rng(0)
  while True:
    wide = {name: int(n) for name, n in zip(names, rng.integers(
        16 * LONG, 128 * LONG, len(names)), strict=True)}
    single = [(n * wide[name], (name, n)) for name in names for n in TIMES]
    sums = [(sum(wide[name] for name in each), tuple((name, 1) for name in each))
            for each in joined] if joined else [
        (a + b, (one, other)) for (a, one), (b, other) in itertools.combinations(single, 2)
        if one[0] != other[0]]
    meaning = {length: (term,) for length, term in single} | dict(sums)
    if len(meaning) == len(single) + len(sums):
      return wide, meaning


def narrowed(module: linen.Module, masks: Mapping[str, np.ndarray]) -> linen.Module:
  """The smaller module that masks leave, {group: bool [width]}: `with_widths` of a network that
  knows its widths, `with_masks` of one that knows its channels."""
  if 'with_masks' in dir(module):
    return module.with_masks(masks)
  return module.with_widths({name: int(np.sum(mask)) for name, mask in masks.items()})
