"""Sources for image translation: folders of pairs, of two domains, of label maps, or of images."""

from __future__ import annotations

import dataclasses
import difflib
import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan_compress.core.arguments import one_of
from jaxgan_compress.data import decode, folder_layouts, image_checks
from jaxgan_compress.data.sources import Source, as_source
from jaxgan_compress.data.views import NEAREST, View

DIRECTIONS = ('AtoB', 'BtoA')
CITYSCAPES = 35  # label ids 0..34
Channels = int | tuple[int, int]  # of source and target alike, or of each
MOST_CHANNELS = 1024
BIT_DEPTHS = (8, 16)
FILES = ('pair', 'source', 'target', 'image', 'label_map', 'instances')  # what a record may hold
TRIES = 10  # neighbours that may stand in for an unreadable file

log = logging.getLogger(__name__)


class Images(Source):
  """Records of files and how they are shown: the source of every folder and prepared set.

  records: a sequence of `{name: file, its bytes, or its array}`, of the names in `FILES`. Pictures
  become uint8 or, with bits=16, uint16 [H,W,channels], see `decode.decode_image`; channels may be
  two numbers, of source and target. A 'pair' has A in its left half and B in its right one;
  direction 'BtoA' exchanges source and target.
  classes, dont_care: of label maps, kept in `labels` for whoever encodes other maps as these; the
  source's `classes` then counts a plane for 255, and an element is
  `{'label_map': uint8 [H,W], 'edges': uint8 [H,W], 'target': [H,W,channels]}`, and on the device it
  gains 'source', see `planes`.
  features: {name in a record: the name of `FILES` that it stands for}.
  sizes: (height, width) of each file of a `folder`.
  A file that cannot be read any more after it was checked does not end a run: its neighbour takes
  its place, with a warning, and `lost` counts it; ten such neighbours in a row do end it.
  """

  def __init__(self, records: Sequence, view: View, name: str, *, channels: Channels = 3,
               bits: int = 8, direction: str = 'AtoB', classes: int | None = None,
               dont_care: bool = False, features: Mapping[str, str] | None = None):
    if classes is not None and view.backend == 'device':
      raise ValueError("backend='device' is for pictures; label maps take 'pillow' or 'opencv'")
    if classes is not None and not 0 < classes + dont_care <= 256:
      raise ValueError(f'classes={classes}, dont_care={dont_care}; labels are bytes, so 1 to 256 '
                       'in all')
    self.records, self.count, self.view = records, len(records), view
    self.name = name_of(name, direction, bits)
    self.classes = None if classes is None else classes + dont_care
    self._numbering: dict[str, Any] = {'classes': classes, 'dont_care': dont_care}
    self.labels = None if classes is None else {**self._numbering, 'edges': True}
    self.sizes: Sequence[tuple[int, int]] = ()
    self._channels, self._bits = channels_of(channels, direction), bits
    self._direction, self._features = direction, features or {}
    self._decoder = 'opencv' if view.backend == 'opencv' else 'pillow'
    self._lost, self._lock = set(), threading.Lock()

  def augmented(self, i: int, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
    arrays = self._load(i)
    height, width = next(iter(arrays.values())).shape[:2]
    arrays = self.view.apply(arrays, self.view.plan(height, width, rng))
    return arrays if self.classes is None else label_element(arrays)

  def prepare(self, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    return self.view.on_device(batch) if self.classes is None else \
        label_batch(batch, self.classes)

  lost = property(lambda self: len(self._lost))

  def _load(self, i):
    error = None
    for row in ((i + k) % len(self) for k in range(TRIES)):
      try:
        return self._read(self.records[row])
      except (OSError, decode.ImageError) as e:
        error = e
        with self._lock:
          if row not in self._lost:
            self._lost.add(row)
            log.warning('%s: %s; the next image takes its place', self.name, e)
    raise OSError(f'{self.name}: {TRIES} images in a row cannot be read any more; the last: '
                  f'{error}')

  def _read(self, record) -> dict[str, np.ndarray]:
    record = {self._features.get(name, name): file for name, file in record.items()}
    arrays = {name: self._array(name, record[name]) for name in FILES if name in record}
    if 'pair' in arrays:
      left = right = arrays.pop('pair')
      if len(self._channels['pair']) > 1:
        right = self._array('target', record['pair'])
      half = left.shape[1] // 2
      arrays = {'source': left[:, :half], 'target': right[:, half:]}
    return arrays if self._direction == 'AtoB' else _exchanged(arrays)

  def _array(self, name, file):
    content, where = (file.read_bytes(), str(file)) if isinstance(file, Path) else \
        (file, 'a record')
    stored = isinstance(content, np.ndarray)
    if name not in NEAREST:
      channels = self._channels[name][0]
      return decode.with_channels(content, channels, self._bits, name=where) if stored else \
          decode.decode_image(content, channels, bits=self._bits, name=where,
                              decoder=self._decoder)
    numbers = content[..., 0] if stored else decode.decode_labels(content, name=where)
    return numbers if name == 'instances' else decode.label_numbers(numbers, **self._numbering,
                                                                    name=where)

  # Locks do not travel to worker processes.
  def __getstate__(self):
    return {**self.__dict__, '_lock': None}

  def __setstate__(self, state):
    self.__dict__.update(state, _lock=threading.Lock())


class Unpaired(Source):
  """Two sets of images without partners: source is A's i-th, target any of B's.

  For evaluation target is B's i-th; `a` and `b` are the two sets, as `Images` of 'image'.
  """

  def __init__(self, a: Source, b: Source, name: str):
    self._domains, self.name, self.count = (a, b), name, max(len(a), len(b))

  a = property(lambda self: self._domains[0])
  b = property(lambda self: self._domains[1])

  def augmented(self, i, rng):
    j = i % len(self.b) if rng is None else int(rng.integers(len(self.b)))
    elements = {'source': self.a.augmented(i % len(self.a), rng),
                'target': self.b.augmented(j, rng)}
    return {role if name == 'image' else f'{role}_{name}': x
            for role, element in elements.items() for name, x in element.items()}

  def prepare(self, batch):
    if 'source_plan' not in batch:
      return batch
    return {role: self.a.prepare({'image': batch[role], 'plan': batch[f'{role}_plan']})['image']
            for role in ('source', 'target')}


class Swapped(Source):
  """A source of pairs the other way round."""

  def __init__(self, pairs: Source | Sequence):
    self._pairs = as_source(pairs)
    self.view, self.name = self._pairs.view, f'{self._pairs!r} BtoA'
    self.count = len(pairs)

  def __getitem__(self, i):
    return _exchanged(self._pairs[i])

  lost = property(lambda self: self._pairs.lost)

  def prepare(self, batch):
    # Files are prepared as what they are.
    return _exchanged(self._pairs.prepare(_exchanged(batch)))


def _exchanged(element):
  names = {'source': 'target', 'target': 'source'}
  return {names.get(name, name): x for name, x in element.items()}


def swapped(source: Source | Sequence) -> Source:
  """The same images with source and target exchanged, to evaluate generators from B to A."""
  return Unpaired(source.b, source.a, f'{source.name} BtoA') if isinstance(source, Unpaired) else \
      Swapped(source)


def paired(path: str | Path, split: str = 'train', *, direction: str = 'AtoB',
           channels: Channels = 3, bits: int = 8, **view) -> Images:
  """A folder of pairs, as of pix2pix: `{'source', 'target'}`, uint8 or uint16 [H,W,channels].

  Layouts: `folder_layouts.read`. direction: with 'BtoA', B is the source and A the target.
  channels: 3 for RGB, 1 for grey, 4 and 2 for these with alpha, or the number of planes in `.npy`
  and TIFF files; (1, 3) for a source of 1 and a target of 3. bits: 16 keeps numbers of 16 bits, as
  uint16; see `decode.decode_image`. view: the fields of `View` (size, load, flip, preprocess,
  backend). Both images of a pair are resized, cropped and mirrored alike.

  Every image is read once before this returns, and a mistake in any is an ImageError that names
  the file; what passed is remembered. Raises ValueError for any other argument out of range.
  """
  settings = view_of(view, direction=direction, channels=channels, bits=bits)
  records, split = folder_layouts.read('paired', path, split)
  image_checks.check(records, settings, channels=channels_of(channels, direction), bits=bits)
  return Images(records, settings, f'paired:{path}/{split}', channels=channels, bits=bits,
                direction=direction)


def unpaired(path: str | Path, split: str = 'train', *, direction: str = 'AtoB',
             channels: Channels = 3, bits: int = 8, **view) -> Unpaired:
  """A folder of two domains, as of CycleGAN: `{'source', 'target'}`, uint8 or uint16
  [H,W,channels].

  Layout: `folder_layouts.read`. An epoch is as long as the larger set. Arguments and checks as
  in `paired`; the two images of an element are cropped and mirrored independently.
  """
  settings = view_of(view, direction=direction, channels=channels, bits=bits)
  domains, split = folder_layouts.read('unpaired', path, split)
  of_sides = channels_of(channels, direction)
  for records, side in zip(domains, ('source', 'target'), strict=True):
    image_checks.check(records, settings, channels={'image': of_sides[side]}, bits=bits)
  return two_domains(domains, settings, f'{path}/{split}', f'unpaired:{path}/{split}', direction,
                     channels, bits)


def two_domains(domains: Sequence[Sequence], view: View, name: str, whole: str, direction: str,
                channels: Channels, bits: int) -> Unpaired:
  """`Unpaired` of the records of A and B. name: of each, before its letter; whole: of both."""
  of_sides = channels_of(channels, direction)
  a, b = (Images(records, view, f'{name}{letter}', channels=of_sides[side][0], bits=bits)
          for letter, side, records in zip('AB', ('source', 'target'), domains, strict=True))
  sides = (a, b) if direction == 'AtoB' else (b, a)
  return Unpaired(*sides, name_of(whole, direction, bits))


def folder(path: str | Path, *, channels: int = 3, bits: int = 8, same_size: bool = True,
           **view) -> Images:
  """All images in one folder: `{'image': uint8 or uint16 [H,W,channels]}`, for a quick look or a
  metric.

  same_size: refuse images that `view` would show in different sizes, as a batch needs. `sizes` of
  the result has (height, width) of each file. Other arguments and checks as in `paired`.
  """
  settings = view_of(view, channels=channels, bits=bits)
  records = folder_layouts.folder(path)
  sizes = image_checks.check(records, settings if same_size else None,
                             channels=channels_of(channels), bits=bits)
  images = Images(records, settings, str(path), channels=channels, bits=bits)
  images.sizes = sizes
  return images


def labels(path: str | Path, split: str = 'train', *, classes: int = CITYSCAPES,
           dont_care: bool = False, channels: int = 3, bits: int = 8,
           preprocess: str = 'scale_width', size: int = 512, **view) -> Images:
  """A folder of label maps, as of GauGAN, see `Images`; pictures are the targets.

  Layouts: `folder_layouts.read` (Cityscapes and SPADE). classes: labels are 0..classes-1.
  dont_care: let 255 be one label more, for unlabelled pixels. channels, bits: of the pictures, as
  in `paired`. Pictures are resized bicubic, maps nearest. view: the other fields of `View`. Checks
  as in `paired`, and every label.
  """
  settings = view_of({'preprocess': preprocess, 'size': size, **view}, classes=classes,
                     dont_care=dont_care, channels=channels, bits=bits)
  records, split = folder_layouts.read('labels', path, split)
  image_checks.check(records, settings, classes=classes, dont_care=dont_care,
                     channels=channels_of(channels), bits=bits)
  return Images(records, settings, f'labels:{path}/{split}', classes=classes, dont_care=dont_care,
                channels=channels, bits=bits)


def name_of(name: str, direction: str, bits: int) -> str:
  """How protocols call images of these settings: what is 8 bits is not what is 16."""
  return name + f' {direction}' * (direction != 'AtoB') + ' in 16 bits' * (bits == 16)


def channels_of(channels: Channels, direction: str = 'AtoB') -> dict[str, tuple[int, ...]]:
  """{name in `FILES`: how many channels its pictures get}; two of a pair with different halves.

  channels: of all, or of source and target; with 'BtoA', B is the source.
  """
  a, b = channels if isinstance(channels, tuple | list) else (channels, channels)
  a, b = (a, b) if direction == 'AtoB' else (b, a)
  return {'source': (a,), 'image': (a,), 'target': (b,), 'pair': tuple(dict.fromkeys((a, b)))}


def view_of(fields: Mapping, **others) -> View:
  """The `View` of these fields. others: the function's other arguments, which are checked too.

  Raises ValueError for a field that there is not, a direction, or a number of channels or bits.
  """
  one_of('direction', others.get('direction', 'AtoB'), DIRECTIONS)
  check_channels(others.get('channels', 3), others.get('bits', 8), sides='direction' in others)
  known = [*(field.name for field in dataclasses.fields(View)), *others]
  for name in [name for name in fields if name not in known]:
    near = difflib.get_close_matches(name, known, 1)
    raise ValueError(f'no argument {name!r}; ' + (
        f'did you mean {near[0]!r}?' if near else f'there is {", ".join(known)}'))
  return View(**fields)


def check_channels(channels: Channels, bits: int = 8, *, sides: bool = False):
  """Raises ValueError unless files can be read with so many channels and bits. sides: channels may
  be two numbers, of source and target."""
  two = sides and isinstance(channels, tuple | list) and len(channels) == 2
  counts: Any = channels if two else (channels,)
  for count in counts:
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST_CHANNELS:
      raise ValueError(f'channels={channels!r}; 3 for RGB, 1 for grey, 4 and 2 for these with '
                       f'alpha, or the number of planes, up to {MOST_CHANNELS}'
                       + '; (1, 3) for a source of 1 and a target of 3' * sides)
  if bits not in BIT_DEPTHS:
    raise ValueError(f'bits={bits!r}; 8, or 16 to keep numbers of 16 bits')


def planes(label_map, edges, classes: int):
  """The input of a SPADE generator, as `decode.label_planes`, but in the step (jax).

  label_map, edges: integers [B,H,W] -> float32 [B,H,W,classes + 1], 0 and 1.
  """
  return jnp.concatenate([jax.nn.one_hot(label_map, classes),
                          edges[..., None].astype(jnp.float32)], -1)


def label_element(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """'label_map', 'instances' (or none) and 'target' as they travel: labels and edges as uint8."""
  return {'label_map': arrays['label_map'].astype(np.uint8),
          'edges': decode.instance_edges(arrays.get('instances', arrays['label_map'])),
          'target': arrays['target']}


def label_batch(batch: Mapping[str, jax.Array], classes: int) -> dict[str, jax.Array]:
  """A batch of label elements with its 'source', the planes."""
  return {**batch, 'source': planes(batch['label_map'], batch['edges'], classes)}
