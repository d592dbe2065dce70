"""Built-in tasks: real images of installed packages, images made by code, and emoji.

Photographs and textures ship inside scikit-image and scikit-learn (the extra 'samples'); the label
maps come from a seeded procedure, so they are exact. No download but for 'emoji'.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from jaxgan_compress.core.arguments import one_of
from jaxgan_compress.data import emoji
from jaxgan_compress.data.decode import with_channels
from jaxgan_compress.data.icons import Icons
from jaxgan_compress.data.sources import Source, installed
from jaxgan_compress.data.translation import Unpaired, label_batch, label_element

PHOTOGRAPHS = ('astronaut.png', 'chelsea.png', 'coffee.png', 'rocket.jpg', 'motorcycle_left.png',
               'china.jpg', 'flower.jpg')
SPLITS = ('train', 'validation', 'test')
COUNTS = {'train': 2048, 'validation': 128, 'test': 256}
SIZES = 32, 256

# A colour for each class of `shapes`, and what the class is.
CLASSES = {'sky': (130, 180, 235), 'ground': (120, 100, 70), 'disc': (220, 60, 50),
           'box': (60, 90, 200), 'triangle': (240, 200, 60), 'ring': (70, 170, 90)}


class Crops(Source):
  """Random crops of a few large pictures, each made into an element.

  pictures: uint8 [H,W,C] each. make: a crop -> `{name: uint8 array}`. Element i is always the same
  crop; `augmented` crops anywhere and mirrors every second time.
  """

  def __init__(self, pictures, make: Callable, size: int, count: int, seed: int, name: str):
    self.pictures, self.size, self.name = pictures, size, name
    self._make, self.count, self._seed = make, count, seed
    # Every place is as likely as any other, so a large picture is cropped more often.
    places = np.array([(p.shape[0] - size + 1) * (p.shape[1] - size + 1) for p in pictures], float)
    self._chances = places / places.sum()

  def augmented(self, i, rng):
    if rng is None:
      return self._make(self._crop(np.random.default_rng([self._seed, i])))
    crop = self._crop(rng)
    return self._make(crop[:, ::-1] if rng.random() < 0.5 else crop)

  def _crop(self, rng):
    crop = None
    for _ in range(8):  # a few tries for more than bare sky
      picture = self.pictures[rng.choice(len(self.pictures), p=self._chances)]
      top, left = (rng.integers(side - self.size + 1) for side in picture.shape[:2])
      crop = picture[top:top + self.size, left:left + self.size]
      if crop.std() > 25:
        break
    return np.ascontiguousarray(crop)


class Scenes(Source):
  """Label maps of a procedure, and pictures of them; see `translation.Images` for an element.

  They show discs, boxes, triangles and rings in front of sky and ground, each an instance. Pictures
  have light, texture and grain that are not in the map.
  """

  def __init__(self, split: str, size: int, count: int):
    self.size, self.classes, self.name = size, len(CLASSES), f'samples:shapes/{split}'
    self.labels = {'classes': self.classes, 'dont_care': False, 'edges': True}
    self.count, self._seed = count, SPLITS.index(split)

  def augmented(self, i, rng):
    # Only the training split has scenes without end; the others have `count`.
    if rng is None or self._seed:
      rng = np.random.default_rng([7, self._seed, i])
    return label_element(scene(rng, self.size))

  def prepare(self, batch):
    return label_batch(batch, self.classes)


def samples(task: str, split: str = 'train', *, size: int = 64, count: int | None = None,
            pair: str | None = None, paired: bool | None = None, path: str | Path | None = None):
  """A built-in task: its source, for training or evaluation.

  task: 'colorize' (grey to colour) and 'edges2photo' (edges to colour) of photographs, paired, and
  effects on them, 'sepia', 'pencil' (grey strokes on white), 'neon' (bright edges on black) and
  'paint' (patches of few colours); 'grass2gravel' and 'brick2gravel' of textures, unpaired;
  'shapes', label maps; 'emoji', thousands of pictures in two styles, and 'icons', a dozen made by
  code in the same styles. All images have three channels. split: 'train', 'validation' or 'test',
  of disjoint parts of the pictures; of 'emoji' and 'icons' of disjoint names, of which those of one
  emoji belong together.
  size: 32 to 256 pixels; above 128 few photographs are large enough for all three splits.
  count: elements (default 2048, 128 and 256; of 'emoji' all, and at most those that there are).

  Of 'emoji' and 'icons' alone: pair is 'mono2flat' (black to plain colours, the default) or
  'flat2shaded' (to light and shadow); paired=False gives `Unpaired`, of 'emoji' with other emoji
  in A than in B. Of 'emoji' alone: path, the folder that launch/get_emoji.sh has filled (default:
  where it does so by itself, `~/.cache/jaxgan_compress/emoji`); see `data.emoji` for the licence.

  Raises ValueError for another task, split or size, or an argument that the task does not take,
  ImportError with the extra that is missing, and FileNotFoundError with the command that renders
  the emoji.
  """
  one_of('task', task, TASKS)
  one_of('split', split, SPLITS)
  if not isinstance(size, int) or not SIZES[0] <= size <= SIZES[1]:
    raise ValueError(f'size={size!r}; samples have {SIZES[0]} to {SIZES[1]} pixels')
  if count is not None and count < 1:
    raise ValueError(f'count={count}; at least 1')
  for key, value, takers in (('pair', pair, STYLED), ('paired', paired, STYLED),
                             ('path', path, ('emoji',))):
    if value is not None and task not in takers:
      raise ValueError(f'{key}={value!r}; samples:{task} has no {key}, '
                       f'{" and ".join(takers)} alone')
  if task in STYLED:
    pair, paired = pair or 'mono2flat', paired is not False
    one_of('pair', pair, emoji.PAIRS)
    if task == 'emoji':
      return emoji.pairs(split, pair, size=size, count=count, paired=paired, path=path)
    return _icons(split, pair, paired, size, count or COUNTS[split])
  count = COUNTS[split] if count is None else count
  if task == 'shapes':
    return Scenes(split, size, count)
  if task in PAIRS:
    return _crops(PHOTOGRAPHS, PAIRS[task], split, size, count, f'samples:{task}')
  a, b = (_crops((f'{texture}.png',), lambda crop: {'image': crop}, split, size, count,
                 f'samples:{texture}') for texture in task.split('2'))
  return Unpaired(a, b, f'samples:{task}/{split}')


def colorize(picture: np.ndarray) -> dict[str, np.ndarray]:
  """Grey (0.299 R + 0.587 G + 0.114 B, three times) and the picture."""
  return {'source': np.repeat(with_channels(picture, 1), 3, -1), 'target': picture}


def edges(picture: np.ndarray) -> dict[str, np.ndarray]:
  """Canny edges, black on white, and the picture."""
  from skimage.feature import canny
  lines = np.where(canny(with_channels(picture, 1)[..., 0], sigma=1.5), 0, 255).astype(np.uint8)
  return {'source': np.repeat(lines[..., None], 3, -1), 'target': picture}


def sepia(picture: np.ndarray) -> np.ndarray:
  """Brown tones, by the matrix that is usual for them."""
  tones = [[.393, .769, .189], [.349, .686, .168], [.272, .534, .131]]
  return (picture @ np.transpose(tones)).clip(0, 255).round().astype(np.uint8)


def pencil(picture: np.ndarray) -> np.ndarray:
  """Grey, divided by what a blur makes of it: strokes where it changes, on white."""
  grey = with_channels(picture, 1)[..., 0]
  near = np.asarray(Image.fromarray(grey).filter(ImageFilter.GaussianBlur(3)), float)
  strokes = (255 * (grey + 1.) / (near + 1)).clip(0, 255).round().astype(np.uint8)
  return np.repeat(strokes[..., None], 3, -1)


def neon(picture: np.ndarray) -> np.ndarray:
  """The slope of each colour, three times as bright."""
  down, right = np.gradient(picture.astype(float), axis=(0, 1))
  return (3 * np.hypot(down, right)).clip(0, 255).round().astype(np.uint8)


def paint(picture: np.ndarray) -> np.ndarray:
  """Medians of 7x7 pixels in eight shades of each colour."""
  smooth = Image.fromarray(picture).filter(ImageFilter.MedianFilter(7))
  return np.asarray(ImageOps.posterize(smooth, 3))


def _with_picture(effect):
  return lambda picture: {'source': picture, 'target': effect(picture)}


EFFECTS = {effect.__name__: effect for effect in (sepia, pencil, neon, paint)}
PAIRS = {'colorize': colorize, 'edges2photo': edges,
         **{name: _with_picture(effect) for name, effect in EFFECTS.items()}}
STYLED = 'emoji', 'icons'
TASKS = (*PAIRS, 'grass2gravel', 'brick2gravel', 'shapes', *STYLED)


def scene(rng: np.random.Generator, size: int) -> dict[str, np.ndarray]:
  """One scene: 'label_map' uint8, 'instances' int32 [size,size], 'target' uint8 [size,size,3]."""
  y, x = np.mgrid[:size, :size] / size
  horizon = rng.uniform(.35, .65) + rng.uniform(-.1, .1) * x
  label_map = (y > horizon).astype(np.uint8)
  instances = label_map.astype(np.int32)
  light = np.where(label_map, .8 + .2 * np.sin(rng.uniform(40, 70) * (y + .3 * x)), 1.15 - .4 * y)
  for instance in range(2, 2 + rng.integers(3, 7)):
    kind = int(rng.integers(2, len(CLASSES)))
    (row, column), radius = rng.uniform(.1, .9, 2), rng.uniform(.09, .2)
    turn = rng.uniform(0, 2 * np.pi)
    u = ((x - column) * np.cos(turn) + (y - row) * np.sin(turn)) / radius
    v = ((y - row) * np.cos(turn) - (x - column) * np.sin(turn)) / radius
    far = np.hypot(u, v)
    inside = {2: far < 1, 3: np.maximum(abs(u), abs(v)) < .85,
              4: (v > -.6) & (v < 1 - 1.8 * abs(u)), 5: (far > .55) & (far < 1.05)}[kind]
    label_map[inside], instances[inside] = kind, instance
    # Lit from above, each a little darker or lighter than its class.
    light[inside] = (rng.uniform(.8, 1.15) * (1 - .25 * (y - row) / radius))[inside]
  colours = np.array(list(CLASSES.values()), float)[label_map] * light[..., None]
  colours += rng.normal(0, 5, (size, size, 1))
  return {'label_map': label_map, 'instances': instances,
          'target': colours.clip(0, 255).round().astype(np.uint8)}


def region(picture: np.ndarray, split: str, size: int) -> np.ndarray | None:
  """The part of a picture that belongs to a split, or None where it is too small.

  'train' has the left, the other two the right quarter (at least `size` columns): 'validation' its
  upper half, 'test' its lower.
  """
  height, width = picture.shape[:2]
  right = max(size, width // 4)
  part = {'train': picture[:, :width - right], 'validation': picture[:height // 2, width - right:],
          'test': picture[height // 2:, width - right:]}[split]
  return part if min(part.shape[:2]) >= size else None


@functools.cache
def pictures(names: tuple[str, ...]) -> list[np.ndarray]:
  """Shipped pictures as uint8 [H,W,3], read from the installed packages and nowhere else."""
  folders = installed('skimage') / 'data', installed('sklearn') / 'datasets/images'
  shipped = []
  for name in names:
    file = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if file is None:
      raise FileNotFoundError(f'{name} is in neither {folders[0]} nor {folders[1]}; the tested '
                              'versions of scikit-image and scikit-learn are in constraints/')
    with Image.open(file) as image:
      shipped.append(np.asarray(image.convert('RGB')))
  return shipped


def _crops(names, make, split, size, count, name):
  parts = [part for part in (region(picture, split, size) for picture in pictures(names))
           if part is not None]
  if not parts:
    raise ValueError(f'{name}/{split}: no picture is large enough for size={size}; take less')
  return Crops(parts, make, size, count, SPLITS.index(split), f'{name}/{split}')


def _icons(split, pair, paired, size, count):
  styles, name = emoji.PAIRS[pair], f'samples:icons/{pair}/{split}'
  if paired:
    return Icons(dict(zip(('source', 'target'), styles, strict=True)), split, size, count, name)
  a, b = (Icons({'image': style}, split, size, count, f'{name}/{style}') for style in styles)
  return Unpaired(a, b, f'{name} unpaired')
