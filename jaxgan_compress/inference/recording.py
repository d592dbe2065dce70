"""The images of an upscaler, recorded once for students that learn without it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxgan_compress import analysis, data
from jaxgan_compress.core import BoundGenerator, paths
from jaxgan_compress.data.teacher_outputs import ABOUT
from jaxgan_compress.inference.engines import choose_engine
from jaxgan_compress.inference.networks import Network, open_network


@dataclasses.dataclass(frozen=True)
class Recording:
  """What `record_upscaler` left in a folder. made: whether it was made now, or lay there before."""
  folder: Path
  pairs: int
  made: bool
  engine: str = ''


def record_upscaler(source: str | Path | BoundGenerator | Network, photographs: str | Path,
                    path: str | Path, splits: Sequence[str] = ('train', 'validation', 'test'), *,
                    size: int = 64, each: int = 8, each_held_out: int = 3,
                    degradation: str = 'mild', engine: str = 'auto', batch: int = 4,
                    generator: str | None = None, checkpoint: str = 'best',
                    progress: Callable[..., Iterable] = lambda items, total, what: items
                    ) -> list[Recording]:
  """Records what a network makes of patches of photographs, for `data.upscaled`.

  source, generator, checkpoint: as of `open_network`. photographs: see `data.photographs`; patches
  of `size` pixels, `each` of a photograph of 'train' and `each_held_out` of the others. path: the
  folder to write, a folder for each split. engine: as of `choose_engine`. Interrupted, it goes on
  where it was; what is whole stays.

  Raises ValueError for a network that does not upscale, FileExistsError for a folder that holds
  another recording, and as `data.photographs`.
  """
  network = source if isinstance(source, Network) else open_network(source, generator, checkpoint)
  if network.takes.kind != 'pictures' or network.takes.scale not in range(2, 9):
    raise ValueError(f'{network.name} makes images {network.takes.scale:g} times as large as its '
                     'inputs; record is for networks that make them 2 to 8 times as large, and '
                     'data.record keeps the images of any other teacher')
  about = {'network': network.name, 'identity': network.identity, **_costs(network, size)}
  sources = {split: data.photographs(
      photographs, split, size=size, scale=int(network.takes.scale), degradation=degradation,
      each=each if split == 'train' else each_held_out) for split in splits}
  todo = {split: source for split, source in sources.items()
          if not _recorded(paths.expand(path) / split, source, about)}
  run = choose_engine(network, {(size, size, 3): sum(map(len, todo.values()))}, engine) \
      if todo else None
  made = []
  for split, patches in sources.items():
    folder = paths.expand(path) / split
    if split in todo and run is not None:
      teacher = lambda x: np.concatenate([run(x[i:i + 1]) for i in range(len(x))]).clip(-1, 1)
      data.record(teacher, patches, path, split, batch=batch, about=about,
                  progress=lambda batches, split=split: progress(
                      batches := list(batches), len(batches), split))
    made.append(Recording(folder, len(patches), split in todo, run.name if run else ''))
  return made


def _costs(network: Network, size: int) -> dict[str, Any]:
  """MACs for an input of so many pixels, and parameters, where the network is not an export."""
  if network.bound is None:
    return {}
  return {'macs': analysis.macs(network.module, (1, size, size, network.takes.channels)),
          'params': analysis.count_params(network.bound.variables)}


def _recorded(folder: Path, source, about) -> bool:
  """Whether a folder holds this recording. Raises FileExistsError if it holds anything else."""
  if not folder.exists():
    return False
  stored = folder / ABOUT
  known = json.loads(stored.read_text()) if stored.is_file() else {}
  if known.get('teacher', {}).get('identity') == about['identity'] and known.get(
      'source') == repr(source) and known.get('count') == len(source):
    return True
  raise FileExistsError(f'{folder} holds '
                        + (f'{known["count"]} images of {known.get("teacher", {}).get("network")} '
                           f'for {known["source"]}' if known else 'something else')
                        + '; give another folder, or remove it')
