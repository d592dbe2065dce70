"""Which channels of a network live and die together, found from what changes with its widths."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Mapping

import jax
import numpy as np
from flax import linen, traverse_util

from jaxgan_compress.nn.norms import scaled

Widths = Mapping[str, int]
Path = tuple[str, ...]
# Along one axis: the groups whose channels lie there, and how many copies of each, one after
# another.
Axis = tuple[tuple[str, int], ...]


@dataclasses.dataclass(frozen=True)
class Group:
  """Channels that are one width of a network: channel c is cut wherever it appears, or nowhere.

  norm: path of the norm whose scales rank the channels, as 'block1/dense3_norm'; '' where there is
    none, or none with scales.
  least: channels that must stay; 0 where all may go, and what only they feed with them.
  step: the width is a multiple of it. follows: (group, k), where the width is always that group's
    divided by k.
  """
  width: int
  norm: str = ''
  least: int = 1
  step: int = 1
  follows: tuple[str, int] | None = None

  @classmethod
  def voting(cls, kind: str, width: int, norm: str, **fields) -> Group:
    """A group ranked by the norm at that path, if this kind of norm has scales."""
    return cls(width, norm if scaled(kind) else '', **fields)


@dataclasses.dataclass(frozen=True)
class Plan:
  """What pruning knows of a network, as data.

  groups: by name, in the order in which they lie on an axis that several share.
  parts: {start of a path: groups}; leaves whose path begins so die when all of these are empty.
  leaves: {(collection, ..., name): an `Axis` for each of its dimensions}, empty where none is cut.
  shapes: of the leaves.
  """
  groups: Mapping[str, Group]
  parts: Mapping[str, tuple[str, ...]]
  leaves: Mapping[Path, tuple[Axis, ...]]
  shapes: Mapping[Path, tuple[int, ...]]

  @property
  def widths(self) -> dict[str, int]:
    return {name: group.width for name, group in self.groups.items()}

  def feeders(self, path: Path) -> list[tuple[str, ...]]:
    """Sets of groups: the leaf at `path` dies when all of any one set are empty."""
    inside = '/'.join(path[1:])
    return [groups for start, groups in self.parts.items() if inside.startswith(start)]


def make_plan(module: linen.Module, groups: Mapping[str, Group],
              parts: Mapping[str, tuple[str, ...]] | None = None) -> Plan:
  """The plan of a module that has `with_widths`. Nothing runs: shapes are enough.

  Every group is widened by a number of its own, and what an axis of a parameter gains tells whose
  channels lie along it: the numbers are such that no two sums of them agree.

  Raises ValueError for an axis that is no sum of at most two groups.
  """
  gains = dict(zip(groups, _telling(len(groups)), strict=True))
  order = {name: i for i, name in enumerate(groups)}
  single = {n * gains[name]: (name, n) for name in groups for n in TIMES}
  meaning = {0: (), **{gain: (term,) for gain, term in single.items()}}
  for (a, one), (b, other) in itertools.combinations(single.items(), 2):
    meaning[a + b] = tuple(sorted((one, other), key=lambda term: order[term[0]]))
  shapes = _shapes(module)
  wider = _shapes(module.with_widths({name: group.width + gains[name]
                                      for name, group in groups.items()}))
  leaves = {}
  for path, shape in shapes.items():
    leaves[path] = tuple(meaning.get(after - before)
                         for before, after in zip(shape, wider[path], strict=True))
    for axis, before in zip(leaves[path], shape, strict=True):
      if axis is None or (axis and before != sum(n * groups[name].width for name, n in axis)):
        raise ValueError(f'{"/".join(path)} {shape}: an axis is no sum of at most two widths; a '
                         'network can be pruned where each axis is whole groups of channels')
  return Plan(dict(groups), dict(parts or {}), leaves, shapes)


def renewed(widths: Widths, name: str, current: tuple[int, ...], start: int = 0):
  """`current` with what `widths` says of 'name0', 'name1', ..."""
  return tuple(widths.get(f'{name}{i}', n) for i, n in enumerate(current, start))


TIMES = 1, 2, 4  # copies of a group along an axis that are looked for


@functools.cache
def _telling(count: int) -> tuple[int, ...]:
  rng = np.random.default_rng(0)
  while True:
    numbers = [int(n) for n in rng.integers(1 << 24, 1 << 27, count)]
    single = [(n * k, n) for n in numbers for k in TIMES]
    sums = [a for a, _ in single] + [a + b for (a, n), (b, m) in itertools.combinations(single, 2)
                                     if n != m]
    if len(set(sums)) == len(sums):
      return tuple(numbers)


def _shapes(module):
  tree = jax.eval_shape(module.init, jax.random.key(0), jax.eval_shape(module.example))
  return {path: x.shape for path, x in traverse_util.flatten_dict(dict(tree)).items()}
