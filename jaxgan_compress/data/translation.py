"""Sources for image translation. `source[i]` is an element as evaluation sees it, `source.draw(i,
rng)` as training does, and `source.prepare(batch)` finishes a batch on the device."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan_compress.core import paths
from jaxgan_compress.data import decode, folder_layouts, image_checks
from jaxgan_compress.data.preprocess import check_shards
from jaxgan_compress.data.views import View

DIRECTIONS = ('AtoB', 'BtoA')
CITYSCAPES = 35  # label ids 0..34
# Sets of the TFDS catalogue that are for image translation.
CATALOGUE = {'cycle_gan': {'layout': 'unpaired'}, 'cityscapes': {'layout': 'labels'}}

log = logging.getLogger(__name__)


class Images:
  """Records, how one is read, and how it is shown: what every source of files is.

  records: a sequence of `{name: file or its bytes}`. read: one of them -> `{name: uint8 array}`.
  classes, dont_care: of label maps, kept in `labels` for whoever encodes other maps as these; the
  source's `classes` then counts a plane for 255, and an element is
  `{'label_map': uint8 [H,W], 'edges': uint8 [H,W], 'target': uint8 [H,W,3]}`, and on the device it
  gains 'source', see `planes`.
  A file that cannot be read any more after it was checked does not end a run: its neighbour takes
  its place, with a warning, and `lost` counts it; ten such neighbours in a row do end it.
  """

  def __init__(self, records: Sequence, read: Callable, view: View, name: str,
               classes: int | None = None, dont_care: bool = False):
    if classes is not None and view.backend == 'device':
      raise ValueError("backend='device' is for pictures; label maps take 'pillow' or 'opencv'")
    if classes is not None and not 0 < classes + dont_care <= 256:
      raise ValueError(f'classes={classes}, dont_care={dont_care}; labels are bytes, so 1 to 256 '
                       'in all')
    self.records, self.view, self.name = records, view, name
    self.classes = None if classes is None else classes + dont_care
    self.labels = None if classes is None else {'classes': classes, 'dont_care': dont_care,
                                                'edges': True}
    self._read = read
    self._lost, self._lock = set(), threading.Lock()

  def __len__(self):
    return len(self.records)

  def __getitem__(self, i: int) -> dict[str, np.ndarray]:
    return self.draw(range(len(self))[i], None)

  def draw(self, i: int, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
    arrays = self._load(i)
    height, width = next(iter(arrays.values())).shape[:2]
    arrays = self.view.apply(arrays, self.view.plan(height, width, rng))
    return arrays if self.classes is None else label_element(arrays)

  def prepare(self, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    return self.view.on_device(batch) if self.classes is None else \
        label_batch(batch, self.classes)

  @property
  def lost(self) -> int:
    """How many files a neighbour stands in for."""
    return len(self._lost)

  def __repr__(self):
    return self.name

  def _load(self, i, tries=10):
    for k in range(tries):
      record = self.records[(i + k) % len(self)]
      try:
        return self._read(record)
      except (OSError, decode.ImageError) as e:
        last = e
        with self._lock:
          if (i + k) % len(self) not in self._lost:
            self._lost.add((i + k) % len(self))
            log.warning('%s: %s; the next image takes its place', self.name, e)
    raise OSError(f'{self.name}: {tries} images in a row cannot be read any more; the last: {last}')

  # Locks do not travel to worker processes.
  def __getstate__(self):
    return {**self.__dict__, '_lock': None}

  def __setstate__(self, state):
    self.__dict__.update(state, _lock=threading.Lock())


class Unpaired:
  """Two sets of images without partners: source is A's i-th, target any of B's.

  For evaluation target is B's i-th; `a` and `b` are the two sets, as `Images` of 'image'.
  """

  def __init__(self, a, b, name: str):
    self.a, self.b, self.name = a, b, name

  def __len__(self):
    return max(len(self.a), len(self.b))

  def __getitem__(self, i):
    return self.draw(range(len(self))[i], None)

  def draw(self, i, rng):
    j = i % len(self.b) if rng is None else int(rng.integers(len(self.b)))
    first, second = self.a.draw(i % len(self.a), rng), self.b.draw(j, rng)
    return {role if name == 'image' else f'{role}_{name}': x
            for role, found in (('source', first), ('target', second))
            for name, x in found.items()}

  def prepare(self, batch):
    if 'source_plan' not in batch:
      return batch
    return {role: self.a.prepare({'image': batch[role], 'plan': batch[f'{role}_plan']})['image']
            for role in ('source', 'target')}

  def __repr__(self):
    return self.name


class Swapped:
  """A source of pairs the other way round."""

  def __init__(self, pairs):
    self.pairs, self.view = pairs, getattr(pairs, 'view', None)

  def __len__(self):
    return len(self.pairs)

  def __getitem__(self, i):
    return self._turn(self.pairs[i])

  def prepare(self, batch):
    # Files are prepared as what they are.
    return self._turn(getattr(self.pairs, 'prepare', dict)(self._turn(batch)))

  def __repr__(self):
    return f'{self.pairs!r} BtoA'

  @staticmethod
  def _turn(element):
    names = {'source': 'target', 'target': 'source'}
    return {names.get(name, name): x for name, x in element.items()}


def swapped(source):
  """The same images with source and target exchanged, for evaluation of what draws A from B."""
  return Unpaired(source.b, source.a, _directed(source.name, 'BtoA')) \
      if isinstance(source, Unpaired) else Swapped(source)


class First:
  """The first `count` elements of a source, for evaluation."""

  def __init__(self, source, count: int):
    self.source, self.count = source, min(count, len(source))
    self.prepare = getattr(source, 'prepare', dict)
    self.view = getattr(source, 'view', None)

  def __len__(self):
    return self.count

  def __getitem__(self, i):
    return self.source[range(self.count)[i]]

  def __repr__(self):
    return f'{self.source!r}[:{self.count}]'


def paired(path: str | Path, split: str = 'train', *, direction: str = 'AtoB', channels: int = 3,
           **view) -> Images:
  """A folder of pairs, as of pix2pix: `{'source', 'target'}`, uint8 [H,W,channels].

  Layouts: `folder_layouts.paired`. direction: 'BtoA' draws A from B. channels: 3, or 1 for grey.
  view: the fields of `View` (size, load, flip, preprocess, backend). Both images of a pair are
  resized, cut and mirrored alike.

  Every image is read once before this returns, and a mistake in any is an ImageError that names
  the file; what passed is remembered. Raises ValueError for anything else that cannot be.
  """
  _check(direction, channels)
  view = _view(view, 'direction', 'channels')
  records, split = folder_layouts.paired(path, split)
  image_checks.check(records, view)
  return Images(records, functools.partial(read_pair, direction=direction, channels=channels,
                                           decoder=_decoder(view)), view,
                _directed(f'paired:{path}/{split}', direction))


def unpaired(path: str | Path, split: str = 'train', *, direction: str = 'AtoB', channels: int = 3,
             **view) -> Unpaired:
  """A folder of two domains, as of CycleGAN: `{'source', 'target'}`, uint8 [H,W,channels].

  Layout: `folder_layouts.unpaired`. An epoch is as long as the larger set. Arguments and checks as
  in `paired`; the two images of an element are cut and mirrored independently.
  """
  _check(direction, channels)
  view = _view(view, 'direction', 'channels')
  domains, split = folder_layouts.unpaired(path, split)
  sets = []
  for domain, records in zip('AB', domains, strict=True):
    sets.append(_single(records, view, channels, f'{path}/{split}{domain}'))
  a, b = sets if direction == 'AtoB' else reversed(sets)
  return Unpaired(a, b, _directed(f'unpaired:{path}/{split}', direction))


def folder(path: str | Path, *, channels: int = 3, same_size: bool = True, **view) -> Images:
  """All images in one folder: `{'image': uint8 [H,W,channels]}`, for a quick look or a metric.

  same_size: refuse images that `view` would show in different sizes, as a batch needs. `sizes` of
  the result has (height, width) of each file. Other arguments and checks as in `paired`.
  """
  _check('AtoB', channels)
  root = paths.expand(path)
  if not root.is_dir():
    raise FileNotFoundError(f'there is no folder {root} (seen from {Path.cwd()})')
  view = _view(view, 'channels')
  return _single([{'image': file} for file in folder_layouts.pictures(root)], view, channels,
                 str(path), same_size)


def labels(path: str | Path, split: str = 'train', *, classes: int = CITYSCAPES,
           dont_care: bool = False, preprocess: str = 'scale_width', size: int = 512,
           **view) -> Images:
  """A folder of label maps, as of GauGAN, see `Images`; pictures are the targets.

  Layouts: `folder_layouts.labels` (Cityscapes and SPADE). classes: labels are 0..classes-1.
  dont_care: let 255 be one label more, for what nobody named. Pictures are resized bicubic, maps
  nearest. view: the other fields of `View`. Checks as in `paired`, and every label.
  """
  view = _view({'preprocess': preprocess, 'size': size, **view}, 'classes', 'dont_care')
  records, split = folder_layouts.labels(path, split)
  image_checks.check(records, view, classes=classes, dont_care=dont_care)
  read = functools.partial(read_labels, decoder=_decoder(view), classes=classes,
                           dont_care=dont_care)
  return Images(records, read, view, f'labels:{path}/{split}', classes, dont_care)


def layout(builder) -> dict | None:
  """What a TFDS builder holds, if it is for image translation: {'layout': 'paired', 'unpaired' or
  'labels', and for our own sets 'names' of the features and what was checked}."""
  # The file, for `builder.info` may look for it in the network.
  file = Path(builder.data_dir) / 'metadata.json'
  if file.is_file():
    ours = json.loads(file.read_text()).get('jaxgan_compress')
    if ours:
      return ours
  return CATALOGUE.get(builder.name)


def prepared(builder, facts: Mapping, split: str, records: Sequence, **arguments):
  """The source of a prepared TFDS set: records hold files' bytes, or arrays. facts: of `layout`.

  See `paired` and the others for the arguments; images of our own sets were checked when made.
  """
  check_shards(Path(builder.data_dir))
  kind, name = facts['layout'], f'tfds:{builder.name}/{split}'
  sizes = facts.get('sizes', {})
  if kind == 'labels':
    arguments = {'preprocess': 'scale_width', 'size': 512, 'classes': facts.get('classes')
                 or CITYSCAPES, 'dont_care': facts.get('dont_care', False), **arguments}
    classes, dont_care = arguments.pop('classes'), arguments.pop('dont_care')
    if 'classes' in facts and (classes, dont_care) != (facts['classes'], facts['dont_care']):
      raise ValueError(f'{name} was prepared with classes={facts["classes"]}, '
                       f'dont_care={facts["dont_care"]}; leave them out')
    view = _view(arguments, 'classes', 'dont_care')
  else:
    direction, channels = arguments.pop('direction', 'AtoB'), arguments.pop('channels', 3)
    _check(direction, channels)
    view = _view(arguments, 'direction', 'channels')
  for part in (split, f'{split}A', f'{split}B'):
    image_checks.check_sizes(view, {tuple(size): f'an image of {size[0]}x{size[1]}'
                              for size in sizes.get(part, ())})
  decoder = _decoder(view)
  if kind == 'labels':
    read = functools.partial(read_labels, decoder=decoder, classes=classes, dont_care=dont_care)
    rename = {'image_left': 'target', 'segmentation_label': 'label_map'}
    return Images(records[0], lambda r: read({rename.get(k, k): x for k, x in r.items()}),
                  view, name, classes, dont_care)
  if kind == 'unpaired':
    read = functools.partial(read_image, channels=channels, decoder=decoder)
    a, b = (Images(domain, read, view, f'{name}{letter}')
            for domain, letter in zip(records, 'AB', strict=True))
    return Unpaired(*((a, b) if direction == 'AtoB' else (b, a)), _directed(name, direction))
  return Images(records[0], functools.partial(read_pair, direction=direction, channels=channels,
                                              decoder=decoder), view, _directed(name, direction))


def planes(label_map, edges, classes: int):
  """What a SPADE generator sees, as `decode.label_planes`, but in the step (jax).

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
  return {**batch, 'source': planes(batch['label_map'], batch['edges'], classes)}


def read_pair(record, *, direction: str, channels: int, decoder: str) -> dict[str, np.ndarray]:
  """`{'pair'}` or `{'source', 'target'}` of files as arrays, in the direction asked for."""
  if 'pair' in record:
    both = _decode(record['pair'], channels, decoder)
    half = both.shape[1] // 2
    a, b = both[:, :half], both[:, half:]
  else:
    a, b = (_decode(record[role], channels, decoder) for role in ('source', 'target'))
  return dict(zip(('source', 'target') if direction == 'AtoB' else ('target', 'source'), (a, b),
                  strict=True))


def read_image(record, *, channels: int, decoder: str) -> dict[str, np.ndarray]:
  return {'image': _decode(record['image'], channels, decoder)}


def read_labels(record, *, decoder: str, classes: int, dont_care: bool) -> dict[str, np.ndarray]:
  """'target', 'label_map' as `decode.label_numbers` has it, and 'instances' where there are."""
  found = {'target': _decode(record['target'], 3, decoder)}
  for key in ('label_map', 'instances'):
    if key in record:
      content, name = _content(record[key])
      found[key] = content[..., 0] if isinstance(content, np.ndarray) else \
          decode.decode_labels(content, name=name)
      if key == 'label_map':
        found[key] = decode.label_numbers(found[key], classes, dont_care, name=name)
  return found


def _single(records, view, channels, name, same_size=True):
  image_checks.check(records, view if same_size else None)
  found = Images(records, functools.partial(read_image, channels=channels, decoder=_decoder(view)),
                 view, name)
  found.sizes = [size for size, _ in image_checks.verify([('image', r['image']) for r in records])]
  return found


def _decode(file, channels, decoder):
  content, name = _content(file)
  if isinstance(content, np.ndarray):
    return decode.with_channels(content, channels)
  return decode.decode(content, channels, name=name, decoder=decoder)


def _content(file):
  return (file.read_bytes(), str(file)) if isinstance(file, Path) else (file, 'a record')


def _decoder(view):
  return 'opencv' if view.backend == 'opencv' else 'pillow'


def _directed(name, direction):
  return name if direction == 'AtoB' else f'{name} {direction}'


def _view(fields, *others):
  known = [field.name for field in dataclasses.fields(View)]
  for name in fields:
    if name not in known:
      near = difflib.get_close_matches(name, [*known, *others], 1)
      raise ValueError(f'no argument {name!r}; ' + (
          f'did you mean {near[0]!r}?' if near else f'there is {", ".join([*known, *others])}'))
  return View(**fields)


def _check(direction, channels):
  if direction not in DIRECTIONS:
    raise ValueError(f'direction={direction!r}; one of {", ".join(DIRECTIONS)}')
  if channels not in (1, 3):
    raise ValueError(f'channels={channels!r}; 3, or 1 for grey')
