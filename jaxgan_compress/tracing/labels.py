"""Labels of arrays: which index of which axis lives and dies with which."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

STAYS = -1  # the label of an index that no cut removes
# Labels from here down are no atoms but a pattern: what equal ones stand at is equal.
PATTERN = -2


class Atoms:
  """A union-find of labels: a class of atoms is what must be removed together.

  An atom is one index of one axis of one leaf. A frozen class is never removed; `reason` says why.
  Of a mixed class only the sum over its members is known from somewhere on (a mean, a softmax), so
  a cut may change what is left.

  changes: how often something was joined or frozen; a program is understood when a walk through it
  adds none.
  """

  def __init__(self):
    self.changes = 0
    self._count = 0
    self._parent = np.zeros(0, np.int64)  # longer than the count, so that it seldom grows
    self._frozen = np.zeros(0, np.int64)  # 1 + index of a reason
    self._mixed = np.zeros(0, np.int64)
    self._reasons: list[Any] = []

  def __len__(self):
    return self._count

  def new(self, count: int) -> np.ndarray:
    """So many atoms, each a class of its own: int64 [count]."""
    atoms = np.arange(self._count, self._count + count)
    self._count += count
    if self._count > len(self._parent):
      more = np.zeros(self._count, np.int64)
      self._parent, self._frozen, self._mixed = (
          np.concatenate([x, more]) for x in (self._parent, self._frozen, self._mixed))
    self._parent[atoms] = atoms
    return atoms

  def find(self, labels: np.ndarray) -> np.ndarray:
    """The same labels, each atom replaced by the one that stands for its class."""
    inside = labels >= 0
    if not inside.all():
      found = labels.copy()
      found[inside] = self.find(labels[inside])
      return found
    root = self._parent[labels]
    if (self._parent[root] == root).all():
      return root
    while (further := self._parent[root] != root).any():
      root[further] = self._parent[root[further]]
    self._parent[labels] = root
    return root

  def unite(self, first: np.ndarray, second: np.ndarray, why: Any = None) -> None:
    """Joins labels elementwise, which are of one shape; against one that stays, freezes."""
    stays = (first < 0) | (second < 0)
    if stays.any():
      self.freeze(np.where(first < 0, second, first)[stays], why)
      first, second = first[~stays], second[~stays]
    first, second = self.find(first.reshape(-1)), self.find(second.reshape(-1))
    while (apart := first != second).any():
      low, high = np.minimum(first, second)[apart], np.maximum(first, second)[apart]
      high, place = np.unique(high, return_index=True)
      self._parent[high] = low[place]
      self.changes += len(high)
      roots = self.find(high)
      for marks in (self._frozen, self._mixed):
        marked = (marks[high] > 0) & (marks[roots] == 0)
        marks[roots[marked]] = marks[high[marked]]
      first, second = self.find(first), self.find(second)

  def freeze(self, labels: np.ndarray, why: Any) -> None:
    """Marks the classes of these atoms as never removed, because of `why`."""
    roots = self.find(labels[labels >= 0])
    roots = np.unique(roots[self._frozen[roots] == 0])
    if len(roots):
      self.changes += len(roots)
      self._frozen[roots] = self._reason(why)

  def mix(self, labels: np.ndarray, why: Any) -> None:
    """Marks the classes of these atoms as mixed at `why`."""
    roots = self.find(labels[labels >= 0])
    roots = roots[self._mixed[roots] == 0]
    if len(roots):
      self._mixed[roots] = self._reason(why)

  def frozen(self, roots: np.ndarray) -> np.ndarray:
    """Whether each class is frozen."""
    return self._frozen[roots] > 0

  def reason(self, root: int) -> Any:
    """Why a class is frozen, None where it is not."""
    return self._reasons[self._frozen[root] - 1] if self._frozen[root] else None

  def mixture(self, root: int) -> Any:
    """Where a class is mixed, None where it is not."""
    return self._reasons[self._mixed[root] - 1] if self._mixed[root] else None

  def _reason(self, why):
    if not self._reasons or self._reasons[-1] is not why:
      self._reasons.append(why)
    return len(self._reasons)


@dataclasses.dataclass(frozen=True)
class Labels:
  """What is known of an array: of each axis longer than 1 what its indices stand for.

  rigid: axes whose content differs by index and is nobody's channel (pixels, samples).
  parts: {axes: labels, of the sizes of these axes}: the element there is removed with its label. Of
    two axes or more it is a grid, as [heads, dim]. Labels from `PATTERN` down are content that
    repeats.
  All other axes are free: the same content at every index.
  """
  shape: tuple[int, ...]
  rigid: frozenset[int] = frozenset()
  parts: Mapping[tuple[int, ...], np.ndarray] = dataclasses.field(default_factory=dict)

  @classmethod
  def all_rigid(cls, shape: Sequence[int]) -> Labels:
    return cls(tuple(shape), frozenset(i for i, n in enumerate(shape) if n > 1))

  def part(self, axis: int) -> tuple[int, ...] | None:
    """The axes of the part that an axis is in, if any."""
    return next((axes for axes in self.parts if axis in axes), None)

  def kept(self, alive: np.ndarray) -> tuple[int, ...]:
    """The shape when only the atoms of `alive`, bool by atom, are left. Raises ValueError for a
    grid whose rows would differ in length."""
    shape = list(self.shape)
    for axes, labels in self.parts.items():
      if is_pattern(labels):
        continue
      left = living(labels, alive)
      for i, axis in enumerate(axes):
        counts = left.any(tuple(j for j in range(len(axes)) if j != i))
        shape[axis] = int(counts.sum())
      if left.sum() != math.prod(shape[axis] for axis in axes):
        raise ValueError(f'a grid of {labels.shape} channels would lose single elements')
    return tuple(shape)


def living(labels: np.ndarray, alive: np.ndarray) -> np.ndarray:
  """Which elements of these labels are left."""
  return (labels < 0) | alive[labels]


def is_pattern(labels: np.ndarray) -> bool:
  return bool(labels.size) and labels.item(0) <= PATTERN  # all labels are, or none


class Space:
  """Labels of arrays over one set of atoms. `why` is what all that is frozen meanwhile is given as
  the reason for; whoever walks a program sets it."""

  def __init__(self, atoms: Atoms):
    self.atoms = atoms
    self.why: Any = None

  def leaf(self, shape: Sequence[int]) -> Labels:
    """Of an array whose every index of every axis may be removed."""
    return Labels(tuple(shape), parts={
        (i,): self.atoms.new(n) for i, n in enumerate(shape) if n > 1})

  def normal(self, v: Labels) -> Labels:
    """The same, up to date: labels by class, axes that a grid does not depend on dropped."""
    rigid, parts = set(v.rigid), {}
    for axes, labels in v.parts.items():
      labels = self.atoms.find(labels)
      if is_pattern(labels):
        axes, labels, fixed = _plain_pattern(axes, labels)
        rigid |= fixed
      elif (labels < 0).all():
        rigid |= set(axes)
        continue
      else:
        while len(axes) > 1 and (i := _constant_along(labels)) is not None:
          rigid.add(axes[i])
          labels, axes = labels.take(0, i), axes[:i] + axes[i + 1:]
      if axes:
        parts[axes] = labels
    return Labels(v.shape, frozenset(rigid), parts)

  def pin(self, v: Labels, *pinned: int) -> Labels:
    """The same with these axes rigid: what lies along them alone is frozen, a grid is the same
    everywhere along them."""
    for axis in pinned:
      if v.shape[axis] == 1 or axis in v.rigid:
        continue
      axes, parts = v.part(axis), dict(v.parts)
      if axes:
        labels = parts.pop(axes)
        if len(axes) == 1:
          self.atoms.freeze(labels, self.why)
        else:
          i = axes.index(axis)
          first = np.broadcast_to(labels.take([0], i), labels.shape)
          if not is_pattern(labels):
            self.atoms.unite(labels, first, self.why)
          parts[axes[:i] + axes[i + 1:]] = labels.take(0, i)
      v = self.normal(Labels(v.shape, v.rigid | {axis}, parts))
    return v

  def pin_all(self, v: Labels) -> Labels:
    return self.pin(v, *range(len(v.shape)))

  def merge(self, *values: Labels) -> Labels:
    """Of an elementwise operation on these, of one rank: sizes 1 are broadcast."""
    if len(values) == 1:
      return self.normal(values[0])
    shape = tuple(np.broadcast_shapes(*(v.shape for v in values)))
    values = tuple(self.normal(v) for v in values)
    while (conflict := self._conflict(values)) is not None:
      i, axes = conflict
      values = tuple(self.pin(v, *axes) if i in (None, k) else v for k, v in enumerate(values))
    rigid = frozenset().union(*(v.rigid for v in values))
    parts = {}
    for block in _blocks(values):
      labels = [_spread(axes, v.parts[axes], block, shape) for v in values for axes in v.parts
                if axes[0] in block]
      joined = self._join(labels)
      if joined is None:
        rigid |= set(block)
      else:
        parts[block] = joined
    return self.normal(Labels(shape, rigid, parts))

  def _conflict(self, values):
    """(number of the value, or None for all; axes to pin) where values cannot be joined yet."""
    rigid = frozenset().union(*(v.rigid for v in values))
    for i, v in enumerate(values):
      if axes := [axis for part in v.parts for axis in part if axis in rigid]:
        return i, axes
    for block in _blocks(values):
      inside = [[axes for axes in v.parts if axes[0] in block] for v in values]
      patterned = any(is_pattern(v.parts[axes]) for v, own in zip(values, inside, strict=True)
                      for axes in own)
      if len(block) > 1 and (patterned or max(map(len, inside)) > 1):
        return None, block[:-1]
    return None

  def _join(self, labels):
    """One of labels of one shape, all of whose atoms are joined; None for patterns of which nothing
    is left."""
    atoms = [x for x in labels if not is_pattern(x)]
    patterns = [x.reshape(-1) for x in labels if is_pattern(x)]
    for other in atoms[1:]:
      self.atoms.unite(atoms[0], other, self.why)
    if not patterns:
      stays = np.logical_or.reduce([x == STAYS for x in atoms])
      return np.where(stays, STAYS, atoms[0])
    pattern = _refined(patterns)
    if not atoms:
      return pattern
    own = atoms[0].reshape(-1)
    places = [np.flatnonzero(pattern == code) for code in np.unique(pattern)]
    if len({len(each) for each in places}) > 1:  # no channel lies at the same place of each
      self.atoms.freeze(own, self.why)
      return None
    for each in places[1:]:
      self.atoms.unite(own[places[0]], own[each], self.why)
    return atoms[0]

  def drop(self, v: Labels, axes: Iterable[int], mixed: bool = False) -> Labels:
    """The same without these axes, which are of size 1 afterwards: reduced or contracted."""
    axes = set(axes)
    for part in list(v.parts):
      if axes & set(part):
        v = self.pin(v, *(axis for axis in part if axis not in axes))
    parts = {}
    for part, labels in v.parts.items():
      if not axes & set(part):
        parts[part] = labels
      elif mixed:
        self.atoms.mix(labels, self.why)
    return Labels(tuple(1 if i in axes else n for i, n in enumerate(v.shape)), v.rigid - axes,
                  parts)

  def move(self, v: Labels, places: Mapping[int, int], shape: Sequence[int]) -> Labels:
    """The same with axis i at `places[i]`, in an array of another shape; axes without a place were
    of size 1, new ones are free."""
    rigid = frozenset(places[i] for i in v.rigid)
    parts = {}
    for axes, labels in v.parts.items():
      order = sorted(range(len(axes)), key=lambda i, axes=axes: places[axes[i]])
      parts[tuple(places[axes[i]] for i in order)] = labels.transpose(order)
    return Labels(tuple(shape), rigid, parts)

  def transpose(self, v: Labels, order: Sequence[int]) -> Labels:
    return self.move(v, {axis: i for i, axis in enumerate(order)}, [v.shape[i] for i in order])

  def squeeze(self, v: Labels, axes: Iterable[int]) -> Labels:
    left = [i for i in range(len(v.shape)) if i not in set(axes)]
    return self.move(v, {axis: i for i, axis in enumerate(left)}, [v.shape[i] for i in left])

  def reshape(self, v: Labels, shape: Sequence[int]) -> Labels:
    """Of a reshape in row-major order."""
    v, blocks = self.normal(v), _matching(v.shape, shape)
    for old, _ in blocks:
      v = self._one_part(v, old) if len(old) > 1 else v
    rigid, parts = set(), {}
    for old, new in blocks:
      if len(old) == 1:
        rigid |= set(new) if old[0] in v.rigid else set()
      elif (labels := _flat(v, old)) is not None:
        parts[tuple(new)] = labels.reshape([shape[i] for i in new])
    split = {old[0]: new for old, new in blocks if len(old) == 1}
    for axes, labels in v.parts.items():
      if axes[0] in split:
        new = [i for axis in axes for i in split[axis]]
        order = np.argsort(new)
        parts[tuple(sorted(new))] = labels.reshape([shape[i] for i in new]).transpose(order)
    return self.normal(Labels(tuple(shape), frozenset(rigid), parts))

  def _one_part(self, v, block):
    """The same with at most one part on these axes, and that within them: the one that lies last.
    """
    for axes in list(v.parts):
      if set(axes) & set(block) and set(axes) - set(block):
        v = self.pin(v, *(axis for axis in axes if axis in block))
    while len(inside := [axes for axes in v.parts if axes[0] in block]) > 1:
      last = max(axis for axes in inside for axis in axes)
      v = self.pin(v, *(axis for axes in inside for axis in axes if axis != last))
    return v


def _flat(v, old):
  """Labels of axes that become one, flat: of the part that lies inside, repeated over all others;
  of rigid axes alone a pattern, equal where nothing but free axes differs; of free ones None."""
  inside = next((axes for axes in v.parts if axes[0] in old), None)
  if not inside and not v.rigid & set(old):
    return None
  sizes = [v.shape[axis] for axis in old]
  if inside and not is_pattern(v.parts[inside]):
    labels = _spread(inside, v.parts[inside], tuple(old), v.shape)
    return np.ascontiguousarray(np.broadcast_to(labels, sizes)).reshape(-1)
  codes = np.zeros(sizes, np.int64)
  for i, axis in enumerate(old):
    if axis in v.rigid:
      codes = codes * v.shape[axis] + np.arange(v.shape[axis]).reshape(
          [-1 if j == i else 1 for j in range(len(old))])
  if inside:
    own = np.unique(v.parts[inside], return_inverse=True)[1].reshape(v.parts[inside].shape)
    codes = codes * (own.max() + 1) + _spread(inside, own, tuple(old), v.shape)
  return PATTERN - codes.reshape(-1)


def _matching(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
  """The least groups of axes longer than 1 of two shapes that have the same product."""
  left = [i for i, n in enumerate(old) if n != 1]
  right = [i for i, n in enumerate(new) if n != 1]
  blocks = []
  while left or right:
    a, b = [left.pop(0)], [right.pop(0)]
    while (x := math.prod(old[i] for i in a)) != (y := math.prod(new[i] for i in b)):
      (a if x < y else b).append((left if x < y else right).pop(0))
    blocks.append((a, b))
  return blocks


def _blocks(values) -> list[tuple[int, ...]]:
  """Axes that the parts of the values have to do with each other, in order."""
  blocks: list[set[int]] = []
  for v in values:
    for axes in v.parts:
      touching = [block for block in blocks if block & set(axes)]
      blocks = [block for block in blocks if block not in touching]
      blocks.append(set(axes).union(*touching))
  return [tuple(sorted(block)) for block in blocks]


def _spread(axes, labels, block, shape):
  """Labels of `axes`, repeated over the other axes of a block."""
  if axes == block:
    return labels
  labels = labels.reshape([labels.shape[axes.index(axis)] if axis in axes else 1 for axis in block])
  return np.broadcast_to(labels, [shape[axis] for axis in block])


def _constant_along(labels) -> int | None:
  """The first axis along which nothing changes."""
  return next((i for i in range(labels.ndim) if (labels == labels.take([0], i)).all()), None)


def _plain_pattern(axes, labels):
  """(axes, labels, axes that are rigid) of a pattern: along one axis at most."""
  while axes and (i := _constant_along(labels)) is not None:
    labels, axes = labels.take(0, i), axes[:i] + axes[i + 1:]
  if len(axes) > 1 or np.unique(labels).size == labels.size:
    return (), labels, set(axes)
  return axes, labels, set()


def _refined(patterns):
  """The pattern that is equal where all of them are."""
  _, codes = np.unique(np.stack(patterns), axis=1, return_inverse=True)
  return PATTERN - codes.reshape(-1)

