"""A folder of pictures through a generator: found, read, batched, written, resumed.

This file needs NumPy, Pillow, `decode` and `picture_files` alone, since exports carry a copy of all
three.
"""

from __future__ import annotations

import collections
import dataclasses
import glob
import hashlib
import itertools
import json
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jaxgan_compress.data import decode, picture_files

RECORD = '.generated.jsonl'  # in the output folder: which files are done, and with what
WORKERS = 4
# Suffixes of which the image could not be written, or not as what they promise.
RENAMED = {'.gif': '.png', '.apng': '.png', '.mpo': '.jpg', '.avifs': '.avif', '.pbm': '.pnm',
           '.pgm': '.pnm', '.j2c': '.jp2', '.jpc': '.jp2', '.jpf': '.jp2', '.jpx': '.jp2',
           '.j2k': '.jp2', '.dib': '.bmp'}


class Job(NamedTuple):
  """A picture to generate from: its file, the file to write, and the latter's name in `output`."""
  source: Path
  target: Path
  name: str


class Failure(NamedTuple):
  """A picture that was not generated, and why."""
  source: Path
  reason: str


@dataclasses.dataclass(frozen=True)
class Takes:
  """What a generator takes and makes; an export says the same in its `input.json`.

  kind: 'pictures' or 'labels'. channels: of its input. multiple, smallest: of height and width.
  classes, dont_care, edges: of label maps, see `decode.label_planes`. outputs: channels of its
  image. scale: how many times larger than the input the image is. colors: whether it paints grey
  pictures in colour ('rgb') or a grey picture stays grey ('input').
  """
  kind: str
  channels: int
  multiple: int = 1
  smallest: int = 1
  classes: int | None = None
  dont_care: bool = False
  edges: bool = False
  outputs: int = 3
  scale: float = 1.
  colors: str = 'input'

  def fit(self, height: int, width: int) -> tuple[int, int]:
    """The smallest size that it takes and that holds a picture of this size."""
    fit = lambda side: -(-max(side, self.smallest) // self.multiple) * self.multiple
    return fit(height), fit(width)


@dataclasses.dataclass(frozen=True)
class Options:
  """How pictures are read and written; see `generate` in `inference`."""
  size: tuple[int, int] | None = None
  max_side: int | None = None
  format: str | None = None
  quality: int | None = None
  colors: str = 'auto'

  def check(self):
    """Raises ValueError for what is out of range."""
    if self.size and self.max_side:
      raise ValueError('size and max_side both resize the pictures; give one of them')
    if self.format is not None and self.format.lower() not in picture_files.SUFFIXES:
      raise ValueError(f'format={self.format!r}; one of {", ".join(picture_files.SUFFIXES)}')
    if self.quality is not None and not 1 <= self.quality <= 100:
      raise ValueError(f'quality={self.quality}; 1 to 100')
    if self.colors not in picture_files.COLORS:
      raise ValueError(f'colors={self.colors!r}; one of {", ".join(picture_files.COLORS)}')

  def resized(self, height: int, width: int) -> tuple[int, int]:
    """The size to which a picture of this size is resized."""
    if self.size:
      return self.size
    if self.max_side and max(height, width) > self.max_side:
      share = self.max_side / max(height, width)
      return max(1, round(height * share)), max(1, round(width * share))
    return height, width


def find(source: str | Path, exclude: Path | None = None) -> list[tuple[Path, Path]]:
  """[(file, its name in the tree)] of a file, a folder with its subfolders, or a glob pattern.

  Hidden files and what lies in `exclude` do not count. Raises FileNotFoundError where nothing is
  there, and ValueError for a folder without images or a file of another suffix.
  """
  path = Path(source).expanduser()
  if path.is_dir():
    files = sorted(_walk(path, exclude))
    if not files:
      raise ValueError(f'{path} holds no image files ({" ".join(decode.SUFFIXES)})')
    return [(file, file.relative_to(path)) for file in files]
  if path.exists():
    return [(path, Path(path.name))]
  if not glob.has_magic(str(path)):
    raise FileNotFoundError(f'{path} is not there; give a file, a folder or a pattern as '
                            "'photos/*.jpg'")
  fixed = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts[:-1]))
  found = glob.glob(str(path), recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
  files = sorted(file for file in map(Path, found) if file.is_file() and _counts(file))
  if not files:
    raise FileNotFoundError(f'no image file is named {path}')
  return [(file, file.relative_to(fixed)) for file in files]


def _counts(file):
  return file.suffix.lower() in decode.SUFFIXES and not file.name.startswith('.')


def _walk(folder, exclude) -> Iterable[Path]:
  for here, folders, names in os.walk(folder):
    folders[:] = [name for name in folders if not name.startswith('.') and (
        exclude is None or not _same(Path(here, name), exclude))]
    yield from (file for file in (Path(here, name) for name in names) if _counts(file))


def _same(a, b):
  return b.exists() and a.samefile(b)


def plan(files: Sequence[tuple[Path, Path]], output: Path, options: Options,
         labels: bool = False) -> list[Job]:
  """Which file is written for each that was found.

  output: a folder, or for one file also a file. The names and the tree are kept; a suffix changes
  where a format is asked for, or the input's cannot hold the image. Where two inputs would be
  written to one file their whole names are kept, as a.gif.png. Raises ValueError where an output
  is an input.
  """
  if len(files) == 1 and output.suffix and not output.is_dir():
    _check_suffix(output)
    jobs = [Job(files[0][0], output, output.name)]
  else:
    suffix = picture_files.SUFFIXES[options.format.lower()][1] if options.format else None
    names = [name.with_suffix(suffix or _suffix(name, labels)) for _, name in files]
    count = collections.Counter(names)
    names = [name if count[name] == 1 else old.with_name(old.name + name.suffix)
             for name, (_, old) in zip(names, files, strict=True)]
    jobs = [Job(file, output / name, name.as_posix())
            for name, (file, _) in zip(names, files, strict=True)]
  inputs = {(stat.st_dev, stat.st_ino) for stat in (job.source.stat() for job in jobs)}
  for job in jobs:
    if job.target.exists() and (job.target.stat().st_dev, job.target.stat().st_ino) in inputs:
      raise ValueError(f'{job.target} is an input and would be overwritten; give another output '
                       'folder')
  return jobs


def _suffix(name, labels):
  return '.png' if labels else RENAMED.get(name.suffix.lower(), name.suffix)


def _check_suffix(file):
  if Image.registered_extensions().get(file.suffix.lower()) not in Image.SAVE:
    raise ValueError(f'{file} has no suffix of an image that can be written; use .png')


class Record:
  """Which files of an output folder are done, and with which network and options (`key`).

  A second call skips what was done with the same key from the same file.
  """

  def __init__(self, folder: Path, key: str):
    self.path, self.key, self._lock = folder / RECORD, key, threading.Lock()
    self._done: dict[str, dict] = {}
    if self.path.is_file():
      for line in self.path.read_text(errors='replace').splitlines():
        try:
          row = json.loads(line)
          self._done[row['name']] = row
        except (ValueError, KeyError, TypeError):
          continue  # a line that a killed process left unfinished

  def split(self, jobs: Sequence[Job], overwrite: bool) -> tuple[list[Job], int]:
    """(the jobs that are left, how many are done). Raises FileExistsError where a file is there
    that was made otherwise, unless it may be overwritten."""
    left = [job for job in jobs if not self._is_done(job)]
    there = [job.target for job in left if job.target.exists()]
    if there and not overwrite:
      raise FileExistsError(
          f'{len(there)} of {len(jobs)} output files exist and were not generated by this network '
          f'with these options from these inputs: {", ".join(map(str, there[:3]))}'
          f'{", ..." * (len(there) > 3)}; give another output folder, or overwrite them')
    return left, len(jobs) - len(left)

  def _is_done(self, job):
    row = self._done.get(job.name, {})
    return row.get('key') == self.key and job.target.is_file() and \
        row.get('bytes') == job.target.stat().st_size and row.get('source') == _stamp(job.source)

  def write(self, job: Job, content: bytes):
    """Writes a file whole, or not at all, and remembers it."""
    job.target.parent.mkdir(parents=True, exist_ok=True)
    part = job.target.with_name(f'.{job.target.name}.{uuid.uuid4().hex[:8]}.part')
    row = {'name': job.name, 'key': self.key, 'bytes': len(content), 'source': _stamp(job.source)}
    try:
      part.write_bytes(content)
      with self._lock, open(self.path, 'a') as file:
        file.write(json.dumps(row) + '\n')
      part.replace(job.target)
    finally:
      part.unlink(missing_ok=True)


def _stamp(file):
  stat = file.stat()
  return f'{stat.st_size}:{stat.st_mtime_ns}'


def key_of(*parts: Any) -> str:
  """A short text that differs where any of the parts does."""
  return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def size_of(file: Path) -> tuple[int, int]:
  """(height, width) of a picture as a viewer shows it, from its header. Raises ImageError."""
  try:
    with open(file, 'rb') as opened, Image.open(opened) as image:
      width, height = image.size
      turned = image.getexif().get(0x0112) in (5, 6, 7, 8)
  except Exception as e:  # Pillow raises whatever the damage leads to
    with decode.opened(file.read_bytes(), str(file)):  # its own words for it
      raise decode.ImageError(f'{file}: {e}') from e
  return (width, height) if turned else (height, width)


@dataclasses.dataclass(frozen=True)
class Reader:
  """How the file of a job becomes the input of a generator.

  instances: for label maps, the file or folder of instance maps, which have the inputs' names.
  """
  takes: Takes
  options: Options
  instances: Path | None = None

  def shape(self, job: Job) -> tuple[int, int]:
    """(height, width) of the input. Raises ImageError, OSError."""
    return self.takes.fit(*self.options.resized(*size_of(job.source)))

  def read(self, job: Job) -> tuple[np.ndarray, picture_files.Picture]:
    """(the input [H,W,C], uint8 or uint16 or float32 planes, padded by reflection; the picture as
    it was resized)."""
    if self.takes.kind == 'labels':
      return self._labels(job)
    picture = picture_files.read(job.source.read_bytes(), self.takes.channels, name=str(job.source))
    picture = picture.resized(*self.options.resized(*picture.pixels.shape[:2]))
    return pad(picture.pixels, *self.takes.fit(*picture.pixels.shape[:2])), picture

  def _labels(self, job):
    labels = decode.decode_labels(job.source.read_bytes(), name=str(job.source))
    instances = None
    if self.instances:
      file = self.instances / job.source.name if self.instances.is_dir() else self.instances
      if not self.takes.edges:
        raise ValueError(f'{file}: this network takes no instances')
      instances = decode.decode_labels(file.read_bytes(), name=str(file))
    planes = decode.label_planes(
        labels, instances, classes=self.takes.classes or self.takes.channels,
        dont_care=self.takes.dont_care, edges=self.takes.edges, name=str(job.source))
    size = self.options.resized(*labels.shape)
    rows, columns = (((np.arange(new) + .5) * old / new).astype(int)
                     for new, old in zip(size, labels.shape, strict=True))
    planes = planes[rows][:, columns]
    return pad(planes, *self.takes.fit(*size)), picture_files.Picture(
        np.zeros((*size, 1), np.uint8))

  def encode(self, image: np.ndarray, picture: picture_files.Picture, target: Path) -> bytes:
    """The file of what was generated: [h,w,c], float32 in [-1, 1] or pixels."""
    pixels = self.pixels(image, picture)
    form = Image.registered_extensions().get(target.suffix.lower(), 'PNG')
    options = picture.options if form == picture.format or (
        form == 'JPEG' and picture.format == 'MPO') else {
            'icc_profile': picture.options.get('icc_profile')}
    return picture_files.encode(pixels, form, alpha=picture.alpha, quality=self.options.quality,
                           options=options)

  def pixels(self, image: np.ndarray, picture: picture_files.Picture) -> np.ndarray:
    """uint8 or uint16 [h,w,1 or 3] of what was generated, without the padding."""
    height, width = (round(side * self.takes.scale) for side in picture.pixels.shape[:2])
    pixels = image[:height, :width]
    if pixels.dtype.kind == 'f':
      pixels = picture_files.to_pixels(pixels, picture.pixels.dtype == np.uint16)
    colors = self.options.colors if self.options.colors != 'auto' else self.takes.colors
    return picture_files.to_grey(pixels) if picture.grey and colors == 'input' else pixels


def pad(x: np.ndarray, height: int, width: int) -> np.ndarray:
  """[H,W,C] -> [height,width,C], reflected at the lower and right border."""
  rows, columns = height - x.shape[0], width - x.shape[1]
  return np.pad(x, ((0, rows), (0, columns), (0, 0)), 'reflect') if rows or columns else x


def by_size(jobs: Sequence[Job], reader: Reader
            ) -> tuple[dict[tuple[int, int], list[Job]], list[Failure]]:
  """({(height, width) of the input: its jobs}, the jobs whose file is no image), from headers."""
  sizes: dict[tuple[int, int], list[Job]] = {}
  failures = []
  with ThreadPoolExecutor(WORKERS) as pool:
    for job, size in zip(jobs, pool.map(lambda job: _try(reader.shape, job), jobs), strict=True):
      if isinstance(size, str):
        failures.append(Failure(job.source, size))
      else:
        sizes.setdefault(size, []).append(job)
  return sizes, failures


def process(sizes: Mapping[tuple[int, int], Sequence[Job]], reader: Reader,
            run: Callable[[np.ndarray], np.ndarray], record: Record, *,
            batch: Callable[[tuple[int, int]], int] = lambda size: 1,
            progress: Callable[..., Iterable] = lambda items, total, what: items) -> list[Failure]:
  """Generates and writes the image of every job; returns those that failed, and why.

  sizes: of `by_size`. run: [B,H,W,C] -> [B,h,w,c], called by this thread alone, while others decode
  the next inputs and encode the last images. batch: how many of a size it takes at once. A file
  that cannot be read does not stop the others. Raises OSError where an image cannot be written, and
  whatever `run` does; what was written before stays.
  """
  failures: list[Failure] = []
  chunks = [jobs[i:i + max(1, batch(size))] for size, jobs in sizes.items()
            for i in range(0, len(jobs), max(1, batch(size)))]
  total = sum(map(len, chunks))
  bar = iter(progress(range(total), total, 'generating'))
  reading, writing = collections.deque[list[Future]](), collections.deque[Future]()
  with ThreadPoolExecutor(WORKERS) as pool:
    read = lambda jobs: [pool.submit(_read, reader, job, failures) for job in jobs]
    try:
      reading.extend(map(read, chunks[:1]))
      for i, chunk in enumerate(chunks, 1):
        reading.extend(map(read, chunks[i:i + 1]))
        ready = [each for each in (future.result() for future in reading.popleft()) if each]
        images = run(np.stack([x for _, x, _ in ready])) if ready else ()
        writing.extend(pool.submit(_write, reader, record, job, image, picture, failures)
                       for (job, _, picture), image in zip(ready, images, strict=True))
        while len(writing) > 2 * WORKERS:
          writing.popleft().result()
        collections.deque(itertools.islice(bar, len(chunk)), 0)
      for future in writing:
        future.result()
    finally:
      for future in (*writing, *itertools.chain(*reading)):
        future.cancel()
      collections.deque(bar, 0)
  return failures


def _try(function, job) -> Any:
  """What the function returns, or as a text why it cannot."""
  try:
    return function(job)
  except (ValueError, OSError) as e:
    return _reason(e)


def _read(reader, job, failures):
  """(job, input, picture), or None for a file that cannot be read."""
  try:
    return job, *reader.read(job)
  except (ValueError, OSError) as e:
    failures.append(Failure(job.source, _reason(e)))
    return None


def _reason(e):
  return f'{e.filename}: {e.strerror}' if isinstance(e, OSError) and e.filename else str(e)


def _write(reader, record, job, image, picture, failures):
  try:
    content = reader.encode(image, picture, job.target)
  except ValueError as e:
    failures.append(Failure(job.source, str(e)))
  else:
    record.write(job, content)


def takes_of(description: Mapping[str, Any]) -> Takes:
  """Of an export, from its `input.json`."""
  names = {field.name for field in dataclasses.fields(Takes)}
  known = {name: x for name, x in description.items() if name in names and x is not None}
  return Takes(**known)

