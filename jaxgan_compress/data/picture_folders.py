"""A folder of pictures through a generator: found, read, batched, written, resumed.

This file needs NumPy, Pillow, `decode` and `picture_files` alone, since exports carry a copy of all
three.
"""

from __future__ import annotations

import collections
import dataclasses
import errno
import glob
import hashlib
import itertools
import json
import math
import os
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, TiffImagePlugin

from jaxgan_compress.data import decode, picture_files

RECORD = '.generated.jsonl'  # in the output folder: which files are done, and with what
WORKERS = max(1, min(4, (os.cpu_count() or 1) // 2))  # more wait for each other
WAITING = 2**30  # bytes of pictures that wait for the network, and of images for the disk
MOST_BYTES = 2**31  # of a file; larger ones are no pictures of `decode.MOST_PIXELS`
# Suffixes of which the image could not be written, or not as what they promise.
RENAMED = {'.gif': '.png', '.apng': '.png', '.mpo': '.jpg', '.avifs': '.avif', '.pbm': '.pnm',
           '.pgm': '.pnm', '.j2c': '.jp2', '.jpc': '.jp2', '.jpf': '.jp2', '.jpx': '.jp2',
           '.j2k': '.jp2', '.dib': '.bmp'}


class Job(NamedTuple):
  """A picture to generate from: its file, the file to write, the latter's name in `output`, and the
  source's in the tree that is read."""
  source: Path
  target: Path
  name: str
  place: Path = Path()


class Failure(NamedTuple):
  """A picture that was not generated, or what was left out, and why."""
  source: Path
  reason: str

  def __str__(self):
    return self.reason if str(self.source) in self.reason else f'{self.source}: {self.reason}'


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
    """Raises ValueError for what is out of range, and for a format that this Pillow lacks."""
    if self.size and self.max_side is not None:
      raise ValueError('size and max_side both resize the pictures; give one of them')
    if self.max_side is not None and self.max_side < 1:
      raise ValueError(f'max_side={self.max_side}; at least 1')
    if self.size and self.size[0] * self.size[1] > decode.MOST_PIXELS:
      raise ValueError(f'size={self.size}; at most {decode.MOST_PIXELS:,} pixels')
    if self.format is not None and self.format.lower() not in picture_files.SUFFIXES:
      raise ValueError(f'format={self.format!r}; one of {", ".join(picture_files.SUFFIXES)}')
    if self.format is not None:
      check_format(picture_files.SUFFIXES[self.format.lower()][1])
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


def check_format(suffix: str):
  """Raises ValueError for a suffix of no format that is written, or that this Pillow cannot."""
  form = picture_files.FORMATS.get(suffix.lower())
  Image.init()
  if form not in (*Image.SAVE, 'NPY'):
    raise ValueError(f'{suffix or "a file without a suffix"} is no suffix of an image that can be '
                     'written' + ' by this Pillow' * bool(form) + '; use .png')


def find(source: str | Path, exclude: Path | None = None,
         suffixes: Sequence[str] = decode.SUFFIXES, left_out: list[Failure] | None = None
         ) -> list[tuple[Path, Path]]:
  """[(file, its name in the tree)] of a file, a folder with its subfolders, or a glob pattern.

  Hidden files and what lies in `exclude` do not count. What else is no image file, and folders that
  cannot be read, are added to `left_out`. A folder without images is one of `.npy` arrays. Raises
  FileNotFoundError where nothing is there, and ValueError for a folder without either.
  """
  left_out = [] if left_out is None else left_out
  path = Path(source).expanduser()
  if path.is_dir():
    files = sorted(_walk(path, exclude, suffixes, left_out))
    if not files and (files := sorted(_walk(path, exclude, (decode.ARRAY,), []))):
      left_out[:] = [each for each in left_out if each.source not in files]
    if not files:
      raise ValueError(f'{path} holds no image files ({" ".join(suffixes)})')
    return [(file, file.relative_to(path)) for file in files]
  if os.path.lexists(path):
    return [(path, Path(path.name))]
  if not glob.has_magic(str(path)):
    raise FileNotFoundError(f'{path} is not there; give a file, a folder or a pattern as '
                            "'photos/*.jpg'")
  files = _matching(path, exclude, suffixes, left_out)
  if not files:
    raise FileNotFoundError(f'no image file is named {path}')
  return files


def _matching(path, exclude, suffixes, left_out) -> list[tuple[Path, Path]]:
  """What a pattern finds; names are below the folders in which no part is a pattern."""
  fixed = Path()  # as long a part as is a folder, which may be named 'a[1]'
  for part in path.parts[:-1]:
    if glob.has_magic(part) and not (fixed / part).is_dir():
      break
    fixed /= part
  pattern = os.path.join(glob.escape(str(fixed)), *path.parts[len(fixed.parts):])  # noqa: PTH118
  exclude = exclude if exclude is not None and _inside(exclude, fixed) else None
  found = map(Path, sorted(glob.glob(pattern, recursive=True)))  # noqa: PTH207 - may be absolute
  return [(file, file.relative_to(fixed)) for file in found if not file.is_dir()
          and not _inside(file, exclude) and _counts(file, suffixes, left_out)]


def _counts(file, suffixes, left_out):
  counts = file.suffix.lower() in suffixes
  if not file.name.startswith('.') and not counts:
    left_out.append(Failure(file, 'it has no suffix of an image'))
  return counts and not file.name.startswith('.')


def _walk(folder, exclude, suffixes, left_out) -> Iterable[Path]:
  failed = lambda e: left_out.append(Failure(Path(e.filename), f'{e.strerror}'))
  seen = set()  # folders, since links may lead around
  for here, folders, names in os.walk(folder, onerror=failed, followlinks=True):
    identity = _identity(Path(here))
    if identity in seen:
      folders.clear()
      continue
    seen.add(identity)
    folders[:] = sorted(name for name in folders if not name.startswith('.') and (
        exclude is None or not _same(Path(here, name), exclude)))
    yield from (file for file in (Path(here, name) for name in sorted(names))
                if _counts(file, suffixes, left_out))


def _same(a, b):
  return a.exists() and b.exists() and a.samefile(b)


def _inside(file, folder):
  return folder is not None and folder.is_dir() and any(
      _same(parent, folder) for parent in file.absolute().parents)


def check_output(source: str | Path, output: Path):
  """Raises ValueError where the output cannot take what is made of the source: a file for a folder,
  the folder that is read, or a folder that cannot be written."""
  path, is_file = Path(source).expanduser(), output.suffix.lower() in decode.SUFFIXES
  if (output.exists() and not output.is_dir()) or (is_file and not output.exists()):
    if not path.is_file():
      raise ValueError(f'{output} is the name of a file, and images of several pictures need a '
                       'folder; give another output')
    if not is_file:
      raise ValueError(f'{output} is a file and no image; give another output')
  elif _same(path, output):
    raise ValueError(f'{output} is the folder that is read; give another output folder')
  place = output
  while not place.exists() and place != place.parent:
    place = place.parent
  if place != output and not place.is_dir():
    raise ValueError(f'{place} is a file, and {output} would lie in it; give another output')
  if place.is_dir() and not os.access(place, os.W_OK | os.X_OK):
    raise ValueError(f'the folder {place} is not writable; give another output')


def plan(files: Sequence[tuple[Path, Path]], output: Path, options: Options,
         takes: Takes, single: bool | None = None) -> list[Job]:
  """Which file is written for each that was found.

  single: whether a file was asked for, and no folder that holds one; default: if there is one.
  output: a folder, or for a single file also a file. The names and the tree are kept; a suffix
  changes where a format is asked for, or the input's cannot hold the image. Where that name is
  another input's as well, the whole name is kept, as a.gif.png. Raises ValueError where an output
  is an input or a folder, and for an output file that is of another format than asked for.
  """
  single = len(files) == 1 if single is None else single
  if single and output.suffix and not output.is_dir():
    _check_file(output, options)
    jobs = [Job(files[0][0], output, output.name, files[0][1])]
  else:
    names = _names([name for _, name in files], options, takes)
    jobs = [Job(file, output / name, name.as_posix(), place)
            for name, (file, place) in zip(names, files, strict=True)]
  inputs = {_identity(job.source) for job in jobs} - {None}
  for job in jobs:
    if _identity(job.target) in inputs:
      raise ValueError(f'{job.target} is an input and would be overwritten; give another output '
                       'folder')
    if os.path.isdir(job.target):  # noqa: PTH112 - its name may be too long
      raise ValueError(f'{job.target} is a folder, and an image would have its name; give another '
                       'output folder')
  return jobs


def _identity(file) -> tuple[int, int] | None:
  try:
    stat = file.stat()
  except OSError:  # it is not there, or its name is too long to be
    return None
  return stat.st_dev, stat.st_ino


def _check_file(output, options):
  try:
    check_format(output.suffix)
  except ValueError as e:
    raise ValueError(f'{output}: {e}') from None
  form = picture_files.SUFFIXES[options.format.lower()][0] if options.format else None
  if form and picture_files.FORMATS[output.suffix.lower()] != form:
    raise ValueError(f'{output} is no name of a {options.format}; leave the format out, or give a '
                     'folder')


def _names(places, options, takes) -> list[Path]:
  """The names of the images of these files; no two are the same, and none is another's folder."""
  wanted = [place.with_name(_name(place, options, takes)) for place in places]
  count = collections.Counter(wanted)
  taken = {name for name, place in zip(wanted, places, strict=True) if name == place}
  taken |= {folder for name in wanted for folder in name.parents}
  names = []
  for name, place in zip(wanted, places, strict=True):
    if name != place and (count[name] > 1 or name in taken):
      name = place.with_name(place.name + name.suffix)
      while name in taken:
        name = place.with_name(f'{name.stem}_{name.suffix}')
      taken.add(name)
    names.append(name)
  return names


def _name(place, options, takes) -> str:
  """The name of a file with a suffix of its image's format."""
  suffix, labels = place.suffix.lower(), takes.kind == 'labels'
  if takes.outputs not in (1, 3) and not options.format:
    holds = suffix == decode.ARRAY or (
        takes.outputs in (2, 4) and picture_files.FORMATS.get(suffix) in picture_files.WITH_ALPHA)
    wanted = '.png' if takes.outputs in (2, 4) else decode.ARRAY
    return place.name if holds else place.stem + wanted
  form, wanted = picture_files.SUFFIXES[(options.format or 'png').lower()]
  if options.format or labels:
    kept = picture_files.FORMATS.get(suffix) == form
  else:
    wanted, kept = RENAMED.get(suffix, '.png'), suffix in picture_files.FORMATS
  if kept:
    return place.name
  return (place.stem if suffix in (*decode.SUFFIXES, decode.ARRAY) else place.name) + wanted


class Record:
  """Which files of an output folder are done, and with which network and options (`key`).

  A second call skips what was done with the same key from the same files. inputs: those of a job.
  """

  def __init__(self, folder: Path, key: str,
               inputs: Callable[[Job], Iterable[Path]] = lambda job: (job.source,)):
    self.path, self.key, self._inputs = folder / RECORD, key, inputs
    self._lock = threading.Lock()
    self._done: dict[str, dict] = {}
    if self.path.is_file():
      for line in self.path.read_text(errors='replace').splitlines():
        try:
          row = json.loads(line)
          self._done[row['name']] = row
        except (ValueError, KeyError, TypeError):
          continue  # a line that a killed process or a full disk left unfinished

  def split(self, jobs: Sequence[Job], overwrite: bool) -> tuple[list[Job], int]:
    """(the jobs that are left, how many are done). Raises FileExistsError where a file is there
    that was made otherwise, unless it may be overwritten."""
    left = [job for job in jobs if not self._is_done(job)]
    there = [job.target for job in left if os.path.lexists(job.target)]
    if there and not overwrite:
      raise FileExistsError(
          f'{len(there)} of {len(jobs)} output files exist and were not generated by this network '
          f'with these options from these inputs: {", ".join(map(str, there[:3]))}'
          f'{", ..." * (len(there) > 3)}; give another output folder, or overwrite them')
    return left, len(jobs) - len(left)

  def _is_done(self, job):
    row = self._done.get(job.name, {})
    if row.get('key') != self.key or row.get('source') != self._stamp(job):
      return False
    try:
      found = job.target.stat()
      # A copy has another time; what a killed process did not replace, another content.
      return found.st_size == row.get('bytes') and (
          found.st_mtime_ns == row.get('time')
          or _checksum(job.target) == row.get('crc'))
    except OSError:
      return False

  def _stamp(self, job):
    stats = [(str(file.resolve()), stat.st_size, stat.st_mtime_ns)
             for file in self._inputs(job) for stat in [file.stat()] if file.exists()]
    return key_of(stats)

  def write(self, job: Job, content: bytes):
    """Writes a file whole, or not at all, and remembers it. Raises OSError that names the file."""
    # The next call writes the file of a killed process anew.
    part = job.target.with_name(f'.{key_of(job.target.name)}.part')
    try:
      job.target.parent.mkdir(parents=True, exist_ok=True)
      part.write_bytes(content)
      self.adopt(job, part)
    except OSError as e:
      raise OSError(e.errno, f'cannot be written ({e.strerror or e})', str(job.target)) from e
    finally:
      part.unlink(missing_ok=True)

  def adopt(self, job: Job, part: Path):
    """Gives a file that is whole the name of the job's, and remembers it."""
    found = part.stat()
    row = {'name': job.name, 'key': self.key, 'bytes': found.st_size, 'time': found.st_mtime_ns,
           'crc': _checksum(part), 'source': self._stamp(job)}
    with self._lock, open(self.path, 'a') as file:
      file.write(f'\n{json.dumps(row)}\n')  # not behind a line that a full disk cut off
    part.replace(job.target)


def _checksum(file) -> int:
  total = 0
  with open(file, 'rb') as content:
    while block := content.read(2**24):
      total = zlib.crc32(block, total)
  return total


def key_of(*parts: Any) -> str:
  """A short text that differs where any of the parts does."""
  return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def size_of(file: Path) -> tuple[int, int]:
  """(height, width) of a picture as a viewer shows it, from its header. Raises ImageError for what
  is no image, and OSError."""
  if not file.is_file():
    raise decode.ImageError(f'{file} is no file, or a link to one that is not there')
  if file.stat().st_size > MOST_BYTES:
    raise decode.ImageError(f'{file} has {file.stat().st_size:,} bytes, more than a picture of '
                            f'{decode.MOST_PIXELS:,} pixels; crop or resize it')
  try:
    with open(file, 'rb') as content, Image.open(content, formats=decode._formats()) as image:
      width, height = image.size
      if isinstance(image, TiffImagePlugin.TiffImageFile):
        width, height = (image.tag_v2[tag] for tag in (256, 257))  # newer Pillow has turned `size`
      # Pillow decodes a whole PNG for what may stand at its end.
      quick = image.format == 'PNG' and not _says_more(content)
      exif = Image.Image.getexif(image) if quick else image.getexif()
      turned = exif.get(0x0112) in (5, 6, 7, 8)
  except Exception:  # Pillow raises whatever the damage leads to
    width = height = turned = 0
  low, high = decode.SIDES
  if low <= min(height, width) <= max(height, width) <= high and \
      height * width <= decode.MOST_PIXELS:
    return (width, height) if turned else (height, width)
  # Pillow knows not all that `decode` does, and `decode` says what is wrong.
  return decode.decode_deep(file.read_bytes(), name=str(file)).shape[:2]


def _says_more(png) -> bool:
  """Whether a chunk that can say how a PNG is turned stands behind its pixels."""
  before, seen, kind = png.tell(), set(), b''
  png.seek(8)
  while kind != b'IEND' and len(head := png.read(8)) == 8:
    size, kind = int.from_bytes(head[:4], 'big'), head[4:]
    if seen or kind == b'IDAT':
      seen.add(kind)
    png.seek(size + 4, os.SEEK_CUR)
  png.seek(before)
  return bool(seen & {b'eXIf', b'tEXt', b'zTXt', b'iTXt'})


@dataclasses.dataclass(frozen=True)
class Reader:
  """How the file of a job becomes the input of a generator.

  instances: for label maps, the file or folder of instance maps, which have the inputs' names.
  """
  takes: Takes
  options: Options
  instances: Path | None = None

  def inputs(self, job: Job) -> tuple[Path, ...]:
    """The files that are read for a job: its own, and its instance map."""
    if self.instances is None:
      return job.source,
    return job.source, self.instances / job.place if self.instances.is_dir() else self.instances

  def check(self, jobs: Sequence[Job]):
    """Raises ValueError or FileNotFoundError for what no job can be read with."""
    if self.instances is None:
      return
    if not self.takes.edges:
      raise ValueError('this network takes no instances; leave them out')
    if not self.instances.exists():
      raise FileNotFoundError(f'{self.instances} is not there; give the folder of the instance '
                              'maps, or for one label map its file')
    if len(jobs) > 1 and not self.instances.is_dir():
      raise ValueError(f'{self.instances} is one file for {len(jobs)} label maps; give the folder '
                       'of their instance maps')

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
    maps = [decode.decode_labels(file.read_bytes(), name=str(file)) for file in self.inputs(job)]
    shapes = [x.shape for x in maps]
    if shapes[0] != shapes[-1]:
      raise decode.ImageError(
          f'{job.source} has {shapes[0][0]}x{shapes[0][1]} pixels, and its instance map '
          f'{shapes[1][0]}x{shapes[1][1]}; they must be of one size')
    size = self.options.resized(*shapes[0])
    rows, columns = (((np.arange(new) + .5) * old / new).astype(int)
                     for new, old in zip(size, shapes[0], strict=True))
    planes = decode.label_planes(  # whose edges are those of the resized map
        *(x[rows][:, columns] for x in maps), classes=self.takes.classes or self.takes.channels,
        dont_care=self.takes.dont_care, edges=self.takes.edges, name=str(job.source))
    return pad(planes, *self.takes.fit(*size)), picture_files.Picture(
        np.zeros((*size, 1), np.uint8))

  def encode(self, image: np.ndarray, picture: picture_files.Picture, target: Path) -> bytes:
    """The file of what was generated: [h,w,c], float32 in [-1, 1] or pixels."""
    form = picture_files.FORMATS[target.suffix.lower()]
    same = form == picture.format or (form, picture.format) == ('JPEG', 'MPO')
    options = {key: x for key, x in picture.options.items() if same or key == 'icc_profile'}
    return picture_files.encode(self.pixels(image, picture), form, alpha=picture.alpha,
                                quality=self.options.quality, options=options)

  def pixels(self, image: np.ndarray, picture: picture_files.Picture) -> np.ndarray:
    """uint8 or uint16 [h,w,c] of what was generated, without the padding. Raises ValueError
    for numbers that are not finite."""
    height, width = (round(side * self.takes.scale) for side in picture.pixels.shape[:2])
    pixels = image[:height, :width]
    if pixels.dtype.kind == 'f':
      if not np.isfinite(pixels).all():
        raise ValueError('the network computed numbers that are not finite')
      pixels = picture_files.to_pixels(pixels, picture.pixels.dtype == np.uint16)
    if self.takes.outputs not in (1, 3):
      return pixels
    paints = self.takes.colors == 'rgb' or self.takes.channels == 1 < self.takes.outputs
    if self.options.colors == 'rgb' or (self.options.colors == 'auto' and paints):
      return np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    return picture_files.to_grey(pixels) if picture.grey else pixels


def pad(x: np.ndarray, height: int, width: int) -> np.ndarray:
  """[H,W,C] -> [height,width,C], reflected at the lower and right border."""
  rows, columns = height - x.shape[0], width - x.shape[1]
  return np.pad(x, ((0, rows), (0, columns), (0, 0)), 'reflect') if rows or columns else x


def by_size(jobs: Sequence[Job], reader: Reader,
            progress: Callable[..., Iterable] = lambda items, total, what: items) -> tuple[
                dict[tuple[int, int], list[Job]], list[Failure]]:
  """({(height, width) of the input: its jobs}, the jobs whose file is no image), from headers."""
  sizes: dict[tuple[int, int], list[Job]] = {}
  failures = []
  with ThreadPoolExecutor(WORKERS) as pool:
    found = pool.map(lambda job: _try(reader.shape, job), jobs)
    for job, size in zip(progress(jobs, len(jobs), 'headers'), found, strict=True):
      if isinstance(size, str):
        failures.append(Failure(job.source, size))
      else:
        sizes.setdefault(size, []).append(job)
  return sizes, failures


def process(sizes: Mapping[tuple[int, int], Sequence[Job]], reader: Reader,
            run: Callable[[np.ndarray], np.ndarray], record: Record, *,
            batch: Callable[[tuple[int, int]], int] = lambda size: 1,
            progress: Callable[..., Iterable] = lambda items, total, what: items,
            left_out: list[Failure] | None = None) -> list[Failure]:
  """Generates and writes the image of every job; returns those that failed, and why.

  sizes: of `by_size`. run: [B,H,W,C] -> [B,h,w,c], called by this thread alone, while others decode
  the next inputs and encode the last images, of which few wait. batch: how many of a size it takes
  at once. left_out: gets the pictures of which frames were. A file that cannot be read does not
  stop the others. Raises OSError where an image cannot be written, and whatever `run` does; what
  was written before stays.
  """
  failures: list[Failure] = []
  left_out = [] if left_out is None else left_out
  chunks = list(_chunks(sizes, batch))
  total = sum(map(len, sizes.values()))
  bar = iter(progress(range(total), total, 'generating'))
  reading, writing = collections.deque[list[Future]](), collections.deque[Future]()
  unread = iter(chunks)
  with ThreadPoolExecutor(WORKERS) as pool:
    read = lambda chunk: [pool.submit(_read, reader, job, chunk[0], failures, left_out)
                          for job in chunk[1]]
    try:
      for size, chunk in chunks:
        more = 1 + _ahead(len(chunk), size, reader.takes.channels) - len(reading)
        reading.extend(map(read, itertools.islice(unread, max(0, more))))
        ready = [each for each in (future.result() for future in reading.popleft()) if each]
        images = run(_stack([x for _, x, _ in ready])) if ready else ()
        for (job, _, picture), image in zip(ready, images, strict=True):
          writing.append(pool.submit(_write, reader, record, job, image, picture, failures))
          while len(writing) > min(2 * WORKERS, max(1, WAITING // image.nbytes)):
            writing.popleft().result()
        collections.deque(itertools.islice(bar, len(chunk)), 0)
      for future in writing:
        future.result()
    finally:
      for future in (*writing, *itertools.chain(*reading)):
        future.cancel()
      collections.deque(bar, 0)
  return failures


def _chunks(sizes, batch):
  """(size, its jobs that are run at once)."""
  for size, jobs in sizes.items():
    step = max(1, batch(size))
    yield from ((size, jobs[i:i + step]) for i in range(0, len(jobs), step))


def _ahead(count, size, channels) -> int:
  """How many batches of a size are decoded ahead: those that keep the workers busy, as far as
  memory allows."""
  return max(1, min(-(-WORKERS // count), WAITING // (4 * channels * count * math.prod(size))))


def _stack(inputs):
  deep = {x.dtype for x in inputs} == {np.dtype(np.uint8), np.dtype(np.uint16)}
  return np.stack([picture_files.as_type(x, np.uint16) if deep else x for x in inputs])


def _try(function, job) -> Any:
  """What the function returns, or as a text why it cannot."""
  try:
    return function(job)
  except (ValueError, OSError) as e:
    return _reason(e)


def _read(reader, job, size, failures, left_out):
  """(job, input, picture), or None for a file that cannot be read."""
  try:
    x, picture = reader.read(job)
    if x.shape[:2] != size:
      raise ValueError('it has changed meanwhile; call again')
    if picture.frames > 1:
      reason = f'of its {picture.frames} frames only the first is taken'
      left_out.append(Failure(job.source, reason))
    return job, x, picture
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
    return
  try:
    record.write(job, content)
  except OSError as e:
    if e.errno != errno.ENAMETOOLONG:
      raise
    failures.append(Failure(job.source, f'{job.target}: its name is too long'))


def takes_of(description: Mapping[str, Any]) -> Takes:
  """Of an export, from its `input.json`."""
  names = {field.name for field in dataclasses.fields(Takes)}
  known = {name: x for name, x in description.items() if name in names and x is not None}
  return Takes(**known)

