"""What pruning knows of a network, as data."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Group:
  """Channels that are one width of a network: channel c is pruned wherever it appears, or nowhere.

  norm: path of the norm whose scales rank the channels, as 'block1/dense3_norm'; '' where there is
    none, or none with scales.
  least: channels that must stay; 0 where all may go, and what only they feed with them.
  step: the width is a multiple of it. follows: (group, k), where the width is always that group's
    divided by k.
  layers: that make the channels, as 'block1/conv1', see `nn.make_plan`.
  """
  width: int
  norm: str = ''
  least: int = 1
  step: int = 1
  follows: tuple[str, int] | None = None
  layers: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
  """The channels of a network, and where each lies.

  Channels are numbered through, one group after another.

  groups: by name, in the order of their numbers. parts: {start of a path: groups}; leaves whose
    path begins so die when all of these are empty.
  leaves: {(collection, ..., name): for each of its dimensions the number of the channel at each
    index, -1 where one stays; None where all do}. A channel may lie there several times.
  shapes: of the leaves.
  """
  groups: Mapping[str, Group]
  parts: Mapping[str, tuple[str, ...]]
  leaves: Mapping[Path, tuple[np.ndarray | None, ...]]
  shapes: Mapping[Path, tuple[int, ...]]

  @property
  def widths(self) -> dict[str, int]:
    return {name: group.width for name, group in self.groups.items()}

  @functools.cached_property
  def numbers(self) -> dict[str, range]:
    """The numbers of each group's channels."""
    ends = np.cumsum([0, *self.widths.values()]).tolist()
    return {name: range(*ends[i:i + 2]) for i, name in enumerate(self.groups)}

  @functools.cached_property
  def members(self) -> dict[str, list[tuple[Path, int, np.ndarray]]]:
    """{group: (leaf, axis, indices [width, copies] along it) of each place where it lies}."""
    found: dict[str, list] = {name: [] for name in self.groups}
    of = np.repeat(np.arange(len(self.groups)), list(self.widths.values()))
    names = list(self.groups)
    for path, axes in self.leaves.items():
      for axis, channels in enumerate(axes):
        if channels is not None:
          there = channels >= 0
          for i in np.unique(of[channels[there]]).tolist():
            own = np.flatnonzero(there & (of[np.where(there, channels, 0)] == i))
            ordered = own[np.argsort(channels[own], kind='stable')]
            found[names[i]].append((path, axis, ordered.reshape(self.groups[names[i]].width, -1)))
    return found

  @property
  def readers(self) -> list[Path]:
    """Paths of the layers that mix the channels of groups: these lie along the input axis of their
    kernel."""
    return [path[1:-1] for path, axes in self.leaves.items()
            if path[0] == 'params' and path[-1] == 'kernel' and len(axes) > 1
            and axes[-2] is not None]

  def feeders(self, path: Path) -> list[tuple[str, ...]]:
    """Sets of groups: the leaf at `path` dies when all of any one set are empty."""
    inside = '/'.join(path[1:])
    return [groups for start, groups in self.parts.items() if inside.startswith(start)]

  def alive(self, masks: Mapping[str, Any], xp: Any = np) -> Any:
    """bool [channels + 1] by number, from `{group: bool [width]}`; what lies at -1 is True.

    Groups without a mask stay whole."""
    whole = [xp.asarray(masks[name]) if name in masks else xp.ones(group.width, bool)
             for name, group in self.groups.items()]
    return xp.concatenate([*whole, xp.ones(1, bool)])

  def copies(self, channels: np.ndarray) -> np.ndarray:
    """int64 [groups + 1]: how often each group's channels lie along such numbers of channels, and
    how many indices stay. Raises ValueError where some of a group lie there more often."""
    counts = np.bincount(channels.reshape(-1) + 1, minlength=sum(self.widths.values()) + 1)
    rows = []
    for name, numbers in self.numbers.items():
      own = counts[1:][numbers.start:numbers.stop]
      if own.size and (own != own[0]).any():
        raise ValueError(f'{name}: its channels lie {sorted(set(own.tolist()))} times along one '
                         'axis; they are no one group')
      rows.append(own[0] if own.size else 0)
    return np.array([*rows, counts[0]], np.int64)


def runs(groups: Mapping[str, Group], axis: Sequence[tuple[str, int]]) -> np.ndarray | None:
  """The numbers along an axis where groups lie one after another, each so many times; None for an
  axis of none."""
  starts = dict(zip(groups, np.cumsum([0, *(g.width for g in groups.values())]), strict=False))
  return np.concatenate([np.tile(starts[name] + np.arange(groups[name].width), times)
                         for name, times in axis]) if axis else None


def masked(x: Any, axes: Sequence[np.ndarray | None], alive: Any, xp: Any = np) -> Any:
  """A leaf with 0 where a channel that is not alive lies, see `Plan.alive`."""
  for i, channels in enumerate(axes):
    if channels is not None:
      x = x * alive[channels].astype(x.dtype).reshape([-1 if j == i else 1 for j in range(x.ndim)])
  return xp.asarray(x)


def living(axes: Sequence[np.ndarray | None], shape: Sequence[int], alive: np.ndarray) -> tuple:
  """The open mesh of a leaf's indices at which no channel lies that is not alive."""
  return np.ix_(*(np.arange(size) if channels is None else np.flatnonzero(alive[channels])
                  for channels, size in zip(axes, shape, strict=True)))
