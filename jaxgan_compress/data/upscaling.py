"""Pairs for super-resolution, whose targets are several times as large as their inputs."""

from __future__ import annotations

import functools
import io
import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from jaxgan_compress.core import paths
from jaxgan_compress.core.arguments import one_of
from jaxgan_compress.data import decode, folder_layouts, image_checks
from jaxgan_compress.data.sources import Source
from jaxgan_compress.data.teacher_outputs import ABOUT, ORIGINAL

SPLITS = ('train', 'validation', 'test')
DEGRADATIONS = ('mild', 'none')
SHORTER = 500, 1100  # pixels of the shorter side that a photograph is shrunk to before it is cut
TRIES = 6            # cuts of which the one with the strongest edges is taken
IN_MEMORY = 1024     # pairs of 64 and 256 pixels that are kept: 0.2 MB each


class Photographs(Source):
  """Patches of photographs and their degraded copies:
  `{'source': uint8 [size,size,3], 'target': uint8 [scale*size,scale*size,3]}`.

  files: of the photographs. each: patches of one photograph; element i is always the same patch of
  the photograph i // each, and `augmented` takes another one, degraded otherwise.
  """

  def __init__(self, files: Sequence[Path], name: str, *, size: int, scale: int, each: int,
               degradation: str, seed: int):
    self._files, self._each, self._seed, self._degradation = tuple(files), each, seed, degradation
    self.size, self.scale, self.name, self.count = size, scale, name, len(files) * each
    self.names = tuple(f'{file.stem}_{j}' for file in files for j in range(each))
    self.groups = tuple(file.stem for file in files for _ in range(each))

  def augmented(self, i, rng):
    rng = np.random.default_rng([self._seed, i]) if rng is None else rng
    patch = _cut(_decoded(self._files[i // self._each]), self.size * self.scale, rng)
    return {'source': degrade(patch, self.scale, rng, self._degradation), 'target': patch}


class Upscaled(Source):
  """What `record` kept of a teacher that upscales: `{'source', 'target'}` as `Photographs`, and for
  evaluation 'original', where the recorded source had one.

  teacher: what is known of it, see `record`. border: pixels on each side of a target that
  comparisons leave out. crop: pixels of a side of what training sees, a part that is mirrored and
  turned at random; None: all.
  """

  def __init__(self, folder: Path, name: str, *, crop: int | None, border: int):
    self._pairs = _pairs(folder)
    self.count, self.name = len(self._pairs), name
    (height, width), self.scale = _sizes(self._pairs)
    if crop is not None and not 1 <= crop <= min(height, width):
      raise ValueError(f'crop={crop}; inputs in {folder} have {height}x{width} pixels')
    if not 0 <= 2 * border < self.scale * min(height, width):
      raise ValueError(f'border={border}; targets in {folder} have '
                       f'{self.scale * height}x{self.scale * width} pixels')
    self.border, self._crop = border, crop
    self.teacher = json.loads((folder / ABOUT).read_text()).get('teacher', {})
    self.names = tuple(source.stem for source, _, _ in self._pairs)
    # The number of the patch stands before and behind the name of its photograph.
    self.groups = tuple(name.split('_', 1)[-1].rpartition('_')[0] or name for name in self.names)

  def augmented(self, i, rng):
    source, target, original = self._pairs[i]
    if rng is None:
      more = {'original': _read(original)} if original else {}
      return {'source': _read(source), 'target': _read(target), **more}
    arrays = {'source': _kept(source), 'target': _kept(target)}
    height, width = arrays['source'].shape[:2]
    crop = self._crop or min(height, width)
    top, left = rng.integers(height - crop + 1), rng.integers(width - crop + 1)
    flip, turn = int(rng.integers(2)), int(rng.integers(4))
    return {name: turned(x[k * top:k * (top + crop), k * left:k * (left + crop)], flip, turn)
            for name, x, k in zip(arrays, arrays.values(), (1, self.scale), strict=True)}


def photographs(path: str | Path, split: str = 'train', *, size: int = 64, scale: int = 4,
                each: int = 8, degradation: str = 'mild') -> Photographs:
  """Patches of the photographs in `path/train`, `path/validation` and `path/test`, or of those in
  `path` itself, which are then dealt to the splits by their names: see `Photographs`.

  size: pixels of an input. scale: how many times larger its target is. each: patches of one
  photograph. degradation: 'mild' blurs, adds noise and compresses, see `degrade`; 'none' shrinks
  alone. A photograph is first shrunk at random so that its shorter side has 500 to 1100 pixels,
  which removes traces of compression.

  Raises ValueError for values out of range, FileNotFoundError for a split without photographs, and
  ImageError for files that are no images or smaller than a target.
  """
  one_of('split', split, SPLITS)
  one_of('degradation', degradation, DEGRADATIONS)
  for name, value, low, high in (('size', size, 8, 1024), ('scale', scale, 1, 8),
                                 ('each', each, 1, 10_000)):
    if not isinstance(value, int) or not low <= value <= high:
      raise ValueError(f'{name}={value!r}; {low} to {high}')
  root = paths.expand(path)
  files = _of_split(root, split)
  sizes = image_checks.check([{'image': file} for file in files], None,
                             channels={'image': (3,)}, bits=8)
  small = [f'{file.name} ({height}x{width})'
           for file, (height, width) in zip(files, sizes, strict=True)
           if min(height, width) < size * scale]
  if small:
    raise decode.ImageError(f'{root}: targets have {size * scale} pixels, and '
                            f'{decode.listed(small, len(files))} are smaller; take them out, or a '
                            'smaller size')
  return Photographs(files, f'photographs:{path}/{split} {size}x{scale} {degradation}', size=size,
                     scale=scale, each=each, degradation=degradation, seed=SPLITS.index(split))


def upscaled(path: str | Path, split: str = 'train', *, crop: int | None = None,
             border: int = 16) -> Upscaled:
  """The pairs that `record` kept in `path/split` of a teacher that upscales, see `Upscaled`.

  Raises FileNotFoundError if they are not there or not whole, ImageError for files that do not
  belong together, and ValueError for values out of range.
  """
  folder = paths.expand(path) / split
  if not (folder / ABOUT).is_file():
    raise FileNotFoundError(f'{folder} holds no recorded images ({ABOUT}); ' + (
        'recording was interrupted: the same command goes on'
        if folder.with_name(f'incomplete.{split}').is_dir() else
        'make them with jaxgan-compress record'))
  return Upscaled(folder, f'upscaled:{path}/{split}', crop=crop, border=border)


def degrade(patch: np.ndarray, scale: int, rng: np.random.Generator,
            degradation: str = 'mild') -> np.ndarray:
  """A patch uint8 [H,W,3] `scale` times smaller, by bicubic interpolation with antialiasing.

  'mild', each with probability 1/2: a Gaussian blur of up to 1.6 pixels before that, and after it
  noise of up to 3/255 and JPEG of quality 60 to 95.
  """
  blurs, noisy, compressed = rng.random(3) < (.5 if degradation == 'mild' else 0)
  sigma, noise, quality = rng.uniform(0, 1.6), rng.uniform(0, 3), int(rng.integers(60, 96))
  if blurs:
    from scipy import ndimage
    blurred = ndimage.gaussian_filter(patch.astype(np.float32), (sigma, sigma, 0))
    patch = np.rint(blurred).astype(np.uint8)
  height, width = (side // scale for side in patch.shape[:2])
  small = np.asarray(Image.fromarray(patch).resize((width, height), Image.Resampling.BICUBIC))
  if noisy:
    small = np.rint(small + rng.normal(0, noise, small.shape)).clip(0, 255).astype(np.uint8)
  if compressed:
    buffer = io.BytesIO()
    Image.fromarray(small).save(buffer, 'JPEG', quality=quality)
    small = np.asarray(Image.open(buffer))
  return small


def turned(x: np.ndarray, flip: int, turn: int) -> np.ndarray:
  """[H,W,C] mirrored if `flip`, then turned by `turn` quarters."""
  return np.ascontiguousarray(np.rot90(x[:, ::-1] if flip else x, turn))


def _of_split(root: Path, split: str) -> list[Path]:
  """The photographs of a split, in the order of their names."""
  folder = root / split
  if folder.is_dir() or any((root / other).is_dir() for other in SPLITS):
    files = folder_layouts.pictures(folder) if folder.is_dir() else []
  else:
    if not root.is_dir():
      raise FileNotFoundError(f'there is no folder {root} of photographs')
    # Of ten names two are of the test and one is of the validation, on every machine.
    dealt = {0: 'test', 1: 'test', 2: 'validation'}
    files = [file for file in folder_layouts.pictures(root)
             if dealt.get(zlib.crc32(file.stem.encode()) % 10, 'train') == split]
  if not files:
    raise FileNotFoundError(f'{root} has no photograph for {split!r}; put some into {folder}')
  return files


@functools.lru_cache(maxsize=4)  # elements that lie together are of one photograph
def _decoded(file: Path) -> np.ndarray:
  return decode.decode_image(file.read_bytes(), 3, name=str(file))


def _cut(photograph: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
  """A square of `side` pixels of a photograph that was shrunk at random."""
  image = Image.fromarray(photograph)
  low, high = (max(bound, side) for bound in SHORTER)
  shorter = min(image.width, image.height)
  factor = min(1., int(rng.integers(low, high + 1)) / shorter)
  width, height = (max(side, round(each * factor)) for each in (image.width, image.height))
  shrunk = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
  cuts = []
  for _ in range(TRIES):
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    cut = shrunk[top:top + side, left:left + side]
    cuts.append((np.abs(np.diff(cut.astype(np.int16), axis=0)).mean(), cut))
  return np.ascontiguousarray(max(cuts, key=lambda each: each[0])[1])


def _pairs(folder: Path) -> list[tuple[Path, Path, Path | None]]:
  """(input, target, original or None) of every recorded element."""
  by_side = {side: {file.stem: file for file in decode.list_images(folder / side)}
             for side in ('A', 'B', ORIGINAL) if (folder / side).is_dir()}
  a, b, originals = (by_side.get(side, {}) for side in ('A', 'B', ORIGINAL))
  lonely = sorted(a.keys() ^ b.keys()) + (sorted(a.keys() ^ originals.keys()) if originals else [])
  if lonely or not a:
    raise decode.ImageError(f'{folder}: {lonely[0] if lonely else "nothing"} is not in all of A, B '
                            f'and {ORIGINAL}; record it again')
  return [(a[stem], b[stem], originals.get(stem)) for stem in a]


def _sizes(pairs) -> tuple[tuple[int, int], int]:
  """((height, width) of all inputs, how many times larger all targets are)."""
  sizes = set()
  for files in pairs:
    shapes = []
    for file in filter(None, files):
      with Image.open(file) as image:
        shapes.append((image.height, image.width))
    sizes.add(tuple(shapes))
  (source, target, *_), *others = sizes
  if others or target[0] % source[0] or target != (
      target[0] // source[0] * source[0], target[0] // source[0] * source[1]):
    raise decode.ImageError(f'{pairs[0][0].parent.parent}: inputs of one size and targets a whole '
                            'number of times larger are expected; record it again')
  return source, target[0] // source[0]


def _read(file: Path) -> np.ndarray:
  return decode.decode_image(file.read_bytes(), 3, name=str(file))


_kept = functools.lru_cache(maxsize=2 * IN_MEMORY)(_read)
