"""Any function as a teacher: its images are recorded once, and students learn from the folder."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxgan_compress.core import paths
from jaxgan_compress.data import decode
from jaxgan_compress.data.sources import Source, as_source, prepared_batch, stack
from jaxgan_compress.data.translation import check_channels, name_of

LATENTS, ABOUT, ORIGINAL = 'z.npy', 'recorded.json', 'original'


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
  """Latents and a teacher's images of them: `{'z': float32 [size], 'target': [H,W,C]}`, uint8 or,
  with bits=16, uint16."""

  def __init__(self, folder: Path, channels: int, bits: int = 8):
    self.folder, self.channels, self.bits = folder, channels, bits
    self.name = name_of(f'recorded:{folder}', 'AtoB', bits)
    self.z = np.load(folder / LATENTS, allow_pickle=False)
    self.files = decode.list_images(folder / 'B')
    self.count = len(self.files)
    if len(self.z) != self.count:
      raise decode.ImageError(f'{folder} has {len(self.z)} latents and {self.count} pictures; '
                              'record it again')

  def __getitem__(self, i):
    file = self.files[i]
    return {'z': self.z[i],
            'target': decode.decode_image(file.read_bytes(), self.channels, bits=self.bits,
                                          name=str(file))}


def record(teacher: Callable[[np.ndarray], Any], source: Source | Sequence, path: str | Path,
           split: str = 'train', *, batch: int = 16, bits: int | None = None,
           about: Mapping[str, Any] | None = None,
           progress: Callable[[Iterable], Iterable] = lambda batches: batches) -> Path:
  """Keeps the image of `teacher` for every element of a source; returns `path/split`.

  teacher: any function of float32 [B,H,W,C] in [-1, 1] (or latents [B,size]) to pictures
    [B,H,W,C] in [-1, 1], in any type that NumPy can read. It is called once for each image. Its
    pictures may be a whole number of times larger, as an upscaler's are.
  source: of images, as evaluation sees them, or `Latents`. bits: 8 or 16, of what is kept; None:
    those of the source. about: what to keep with the images of the teacher, a value of JSON.
    progress: wraps the loop.

  From images it makes the layout of `paired`, `A` the source and `B` the teacher's image, to be
  read by `data.paired(path, split)`; from latents what `data.recorded` reads. Both are PNGs, and
  `.npy` arrays if they have 16 bits or more than 4 channels; reading takes `channels` and `bits`.
  Of larger pictures the targets of the source are kept, too, in `original`, and `data.upscaled`
  reads all. Files are numbered, and have the source's `names` where it has any. Interrupted, it
  goes on where it was; the folder appears when it is whole.

  Raises FileExistsError if the folder is there, ValueError for pictures of another size, not
  finite, or outside [-1, 1] (by more than rounding), and for a source other than the one that an
  interrupted call began with.
  """
  target = paths.expand(path) / split
  if target.exists():
    raise FileExistsError(f'{target} is there already; take another split, or remove it')
  if batch < 1 or not len(source):
    raise ValueError(f'{len(source)} elements in batches of {batch}; at least 1 of 1')
  first = source[0]
  deep = (bits or _bits(first)) == 16
  check_channels(3, bits or 8)
  unfinished = target.with_name(f'incomplete.{split}')
  _same_source(unfinished / ABOUT, _describe(source, deep, about))
  (unfinished / 'B').mkdir(exist_ok=True)
  latents, names = 'z' in first, _file_names(source)
  made = {path.stem for path in decode.list_images(unfinished / 'B')}
  todo = [i for i, name in enumerate(names) if name not in made]
  for rows in progress([todo[i:i + batch] for i in range(0, len(todo), batch)]):
    x = stack(source, rows)['z'] if latents else _pictures(as_source(source), rows)
    images = _checked(np.asarray(teacher(x)), x)
    for i, given, image in zip(rows, x, images, strict=True):
      for side, each in _kept_of(source, i, given, image).items():
        _write(unfinished / side / names[i], each, deep)
  if latents:
    np.save(unfinished / LATENTS, stack(source, range(len(source)))['z'])
  os.replace(unfinished, target)
  return target


def recorded(path: str | Path, split: str = 'train', *, channels: int = 3, bits: int = 8
             ) -> Recorded:
  """The source that `record` made from latents. channels, bits: see `decode.decode_image`.

  Raises FileNotFoundError if it is not there or not whole, and ImageError for other channels.
  """
  check_channels(channels, bits)
  folder = paths.expand(path) / split
  if not (folder / LATENTS).is_file():
    half = folder.with_name(f'incomplete.{split}').is_dir()
    pairs = (folder / 'A').is_dir()
    raise FileNotFoundError(f'{folder} holds no latents ({LATENTS}); ' + (
        'recording was interrupted: call data.record again' if half else
        'it was recorded from images: read it with data.paired' if pairs else
        'data.record(teacher, data.Latents(...), ...) makes them'))
  source = Recorded(folder, channels, bits)
  if source.count:
    source[0]  # all are of one kind
  return source


def _bits(element):
  return 16 if any(x.dtype == np.uint16 for x in element.values()) else 8


def _describe(source, deep, about) -> dict[str, Any]:
  described = {'source': repr(source), 'count': len(source)}
  if deep:
    described['bits'] = 16
  if about:
    described['teacher'] = dict(about)
  return described


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
  if name is None or 'label_map' in batch:
    raise ValueError(f'{source!r} has {", ".join(batch)}; a teacher generates from latents, or '
                     "from pictures called 'source' or 'image'")
  return np.asarray(batch[name], np.float32)


def _file_names(source) -> list[str]:
  """Numbers of one length, and the source's names behind them."""
  digits, names = len(str(len(source) - 1)), as_source(source).names
  return [f'{i:0{digits}}' + (f'_{names[i]}' if names else '') for i in range(len(source))]


def _kept_of(source, i, given, image) -> dict[str, np.ndarray]:
  """{folder: picture} of an element, the teacher's image last: with it the element is whole."""
  if given.ndim == 1:
    return {'B': image}
  upscaled = image.shape[0] > given.shape[0] and 'target' in source[i]
  return {'A': given, **({ORIGINAL: _original(source, i, image.shape)} if upscaled else {}),
          'B': image}


def _original(source, i, shape) -> np.ndarray:
  """The target of an element in [-1, 1]. Raises ValueError unless it has the teacher's size."""
  original = np.asarray(prepared_batch(as_source(source), [i])['target'][0], np.float32)
  if original.shape != shape:
    raise ValueError(f'the teacher made {list(shape)} where the target of {source!r} is '
                     f'{list(original.shape)}; give the source the scale of the teacher')
  return original


def _checked(images, x):
  size = x.shape[1:3] if x.ndim == 4 else images.shape[1:3]
  if x.ndim == 4 and images.ndim == 4:  # of an upscaler
    size = tuple(max(1, images.shape[1] // x.shape[1]) * side for side in size)
  if images.ndim != 4 or images.shape[:3] != (len(x), *size) or not images.shape[3] or \
      min(size) < decode.SIDES[0]:  # as of channels before height
    expected = ','.join(map(str, x.shape[:3])) if x.ndim == 4 else f'{len(x)},H,W'
    raise ValueError(f'the teacher made {list(images.shape)} from {list(x.shape)}; pictures are '
                     f'[{expected},C], channels last')
  images = images.astype(np.float32)
  low, high = images.min(), images.max()
  if not (low >= -1.01 and high <= 1.01):  # NaN, too
    raise ValueError(f"the teacher's pictures have values from {low:.4g} to {high:.4g}; they are "
                     'in [-1, 1]: give a function that scales them')
  return images


def _write(file, image, deep):
  file.parent.mkdir(exist_ok=True)
  content, unit = io.BytesIO(), image.clip(-1, 1)
  if deep:
    levels = ((unit.astype(np.float64) + 1) * 32767.5).round().astype(np.uint16)
  else:
    levels = ((unit + 1) * 127.5).round().astype(np.uint8)
  if deep or levels.shape[-1] > 4:
    np.save(content, levels)
    file = file.with_suffix(decode.ARRAY)
  else:
    Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels).save(content, 'PNG')
    file = file.with_suffix('.png')
  paths.write_atomically(file, content.getvalue())
