"""Any function as a teacher: its images are recorded once, and students learn from the folder."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxgan_compress.core import paths
from jaxgan_compress.data import decode
from jaxgan_compress.data.sources import Source, as_source, prepared_batch, stack

LATENTS, ABOUT = 'z.npy', 'recorded.json'


class Latents(Source):
  """`count` latents from N(0, I) as a source, `{'z': float32 [size]}`; a function of `seed`."""

  def __init__(self, count: int, size: int = 100, seed: int = 0):
    if min(count, size) < 1:
      raise ValueError(f'{count} latents of {size} numbers; at least 1 of 1')
    self.z = np.random.default_rng(seed).standard_normal((count, size), np.float32)
    self.count, self.name = count, f'{count} latents of {size}, seed {seed}'

  def __getitem__(self, i):
    return {'z': self.z[i]}


class Recorded(Source):
  """Latents and a teacher's images of them: `{'z': float32 [size], 'target': uint8 [H,W,C]}`."""

  def __init__(self, folder: Path, channels: int):
    self.folder, self.channels, self.name = folder, channels, f'recorded:{folder}'
    self.z = np.load(folder / LATENTS, allow_pickle=False)
    self.files = decode.list_images(folder / 'B')
    self.count = len(self.files)
    if len(self.z) != self.count:
      raise decode.ImageError(f'{folder} has {len(self.z)} latents and {self.count} pictures; '
                              'record it again')

  def __getitem__(self, i):
    file = self.files[i]
    return {'z': self.z[i],
            'target': decode.decode_image(file.read_bytes(), self.channels, name=str(file))}


def record(teacher: Callable[[np.ndarray], Any], source: Sequence, path: str | Path,
           split: str = 'train', *, batch: int = 16,
           progress: Callable[[Iterable], Iterable] = lambda batches: batches) -> Path:
  """Keeps the image of `teacher` for every element of a source; returns `path/split`.

  teacher: any function of float32 [B,H,W,C] in [-1, 1] (or latents [B,size]) to pictures
    [B,H,W,1 or 3] in [-1, 1], in any type that NumPy can read. It is called once for each image.
  source: of images, as evaluation sees them, or `Latents`. progress: wraps the loop.

  From images it makes the layout of `paired`, `A` the source and `B` the teacher's image, both
  of 8 bits, to be read by `data.paired(path, split)`; from latents what `data.recorded` reads.
  Interrupted, it goes on where it was; the folder appears when it is whole.

  Raises FileExistsError if the folder is there, ValueError for pictures of another size, not
  finite, or outside [-1, 1] (by more than rounding), and for a source other than the one that an
  interrupted call began with.
  """
  target = paths.expand(path) / split
  if target.exists():
    raise FileExistsError(f'{target} is there already; take another split, or remove it')
  if batch < 1 or not len(source):
    raise ValueError(f'{len(source)} elements in batches of {batch}; at least 1 of 1')
  unfinished = target.with_name(f'incomplete.{split}')
  _same_source(unfinished / ABOUT, {'source': repr(source), 'count': len(source)})
  (unfinished / 'B').mkdir(exist_ok=True)
  digits, latents = len(str(len(source) - 1)), 'z' in source[0]
  file = lambda side, i: unfinished / side / f'{i:0{digits}}.png'
  todo = [i for i in range(len(source)) if not file('B', i).is_file()]
  for rows in progress([todo[i:i + batch] for i in range(0, len(todo), batch)]):
    x = stack(source, rows)['z'] if latents else _pictures(as_source(source), rows)
    images = _checked(np.asarray(teacher(x)), x)
    for i, given, image in zip(rows, x, images, strict=True):
      if not latents:
        _write(file('A', i), given)
      _write(file('B', i), image)  # last: with it the pair is whole
  if latents:
    np.save(unfinished / LATENTS, stack(source, range(len(source)))['z'])
  os.replace(unfinished, target)
  return target


def recorded(path: str | Path, split: str = 'train', *, channels: int = 3) -> Recorded:
  """The source that `record` made from latents. channels: 3, or 1 for grey.

  Raises FileNotFoundError if it is not there or not whole.
  """
  folder = paths.expand(path) / split
  if not (folder / LATENTS).is_file():
    half = folder.with_name(f'incomplete.{split}').is_dir()
    pairs = (folder / 'A').is_dir()
    raise FileNotFoundError(f'{folder} holds no latents ({LATENTS}); ' + (
        'recording was interrupted: call data.record again' if half else
        'it was recorded from images: read it with data.paired' if pairs else
        'data.record(teacher, data.Latents(...), ...) makes them'))
  return Recorded(folder, channels)


def _same_source(file, about):
  if file.is_file():
    before = json.loads(file.read_text())
    if before != about:
      raise ValueError(f'{file.parent} was begun with {before["count"]} of {before["source"]}, '
                       f'and now there are {about["count"]} of {about["source"]}; go on with the '
                       'same, or remove it')
  else:
    file.parent.mkdir(parents=True, exist_ok=True)
    paths.write_atomically(file, json.dumps(about))


def _pictures(source, rows):
  """The images float32 [B,H,W,C] in [-1, 1] that a teacher is given."""
  batch = prepared_batch(source, rows)
  name = next((name for name in ('source', 'image') if name in batch), None)
  if name is None or batch[name].shape[-1] not in (1, 3):
    raise ValueError(f'{source!r} has {", ".join(batch)}; a teacher generates from latents, or '
                     "from pictures of 1 or 3 channels called 'source' or 'image'")
  return np.asarray(batch[name], np.float32)


def _checked(images, x):
  size = x.shape[1:3] if x.ndim == 4 else images.shape[1:3]
  if images.ndim != 4 or images.shape[:3] != (len(x), *size) or images.shape[3] not in (1, 3):
    expected = ','.join(map(str, (len(x), *size))) if x.ndim == 4 else f'{len(x)},H,W'
    raise ValueError(f'the teacher made {list(images.shape)} from {list(x.shape)}; pictures are '
                     f'[{expected},1 or 3], channels last')
  images = images.astype(np.float32)
  low, high = images.min(), images.max()
  if not (low >= -1.01 and high <= 1.01):  # NaN, too
    raise ValueError(f"the teacher's pictures have values from {low:.4g} to {high:.4g}; they are "
                     'in [-1, 1]: give a function that scales them')
  return images


def _write(file, image):
  file.parent.mkdir(exist_ok=True)
  levels = ((image.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8)
  content = io.BytesIO()
  Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels).save(content, 'PNG')
  paths.write_atomically(file, content.getvalue())
