"""Data sets as sequences of `{'target': uint8 [H,W,C], 'label': int32}`."""

from __future__ import annotations

import difflib
import importlib.util
from pathlib import Path

import numpy as np
from PIL import Image

from jaxgan_compress.core import paths
from jaxgan_compress.data import folder_layouts, transforms, translation


class ArraySource:
  """Images and labels that fit in memory.

  target: uint8 [N,H,W,C]. label: int [N], or None.
  """

  def __init__(self, target: np.ndarray, label: np.ndarray | None = None, name: str = 'arrays'):
    if target.dtype != np.uint8 or target.ndim != 4:
      raise ValueError(f'images are {target.dtype} {target.shape}; uint8 [N,H,W,C] is expected')
    self.target, self.name = target, name
    self.label = np.zeros(len(target), np.int32) if label is None else label.astype(np.int32)

  def __len__(self):
    return len(self.target)

  def __getitem__(self, i):
    return {'target': self.target[i], 'label': self.label[i]}

  def __repr__(self):
    return self.name


def digits(split: str = 'all', *, size: int = 32) -> ArraySource:
  """The 1797 handwritten digits inside scikit-learn: 8x8 scans resized (bicubic), one channel.

  split: 'train' (1400), 'test' (397) or 'all'; dealt by a fixed permutation, since the file is
  ordered by writer. size: 1 to 256 pixels. Needs scikit-learn (the extra 'samples'). Raises
  ValueError for another split or size.
  """
  splits = {'train': slice(0, 1400), 'test': slice(1400, None), 'all': slice(None)}
  if split not in splits:
    raise ValueError(f'digits has no split {split!r}; one of {", ".join(splits)}')
  if not isinstance(size, int) or not 1 <= size <= 256:
    raise ValueError(f'size={size!r}; digits are 1 to 256 pixels wide, for all are kept in memory')
  # The file alone: to import scikit-learn takes seconds.
  library = importlib.util.find_spec('sklearn')
  if library is None:
    raise ImportError("the digits ship with scikit-learn; pip install 'jaxgan-compress[samples]'")
  table = np.loadtxt(Path(library.origin).parent / 'datasets/data/digits.csv.gz', delimiter=',')
  scans, labels = table[:, :-1].reshape(-1, 8, 8), table[:, -1]
  chosen = np.random.default_rng(0).permutation(len(scans))[splits[split]]

  def enlarge(scan):
    image = Image.fromarray((scan / 16).astype(np.float32))
    return np.asarray(image.resize((size, size), Image.BICUBIC)).clip(0, 1)

  images = np.stack([enlarge(scans[i]) for i in chosen])[..., None]
  return ArraySource((images * 255).round().astype(np.uint8), labels[chosen],
                     f'digits/{split}')


def tfds(catalogue: str, split: str = 'train', *, data_dir: str | None = None, **arguments):
  """A prepared TensorFlow Datasets set, read without TensorFlow.

  catalogue: its name ('mnist', 'cycle_gan/horse2zebra', or one of `prepare-data`). A set for image
  translation takes the arguments of `paired`, `unpaired` or `labels` but the path, and gives what
  they give; any other takes those of `Classified`.

  Raises FileNotFoundError with the command that prepares the set if it is not prepared, and
  ValueError for an unknown name (nearest one suggested), split or argument.
  """
  import tensorflow_datasets as library  # slow to import, and only needed here
  name, data_dir = catalogue, data_dir and str(paths.expand(data_dir))
  try:
    builder = library.builder(name, data_dir=data_dir)
  except library.core.registered.DatasetNotFoundError as e:
    known = library.list_builders(with_community_datasets=False)
    near = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean 'tfds:{near[0]}'?" if near else ''
    where = data_dir or '~/tensorflow_datasets'
    raise ValueError(f'TFDS has no data set {name!r}{hint}; {where} holds none of that name '
                     'either, which jaxgan-compress prepare-data would make (data_dir: its '
                     '--output)') from e
  facts = translation.layout(builder) or {}
  if 'sizes' in facts:
    split = next((found for found in folder_layouts.SYNONYMS.get(split, ())
                  for part in facts['sizes'] if part.removesuffix('A') == found), split)
  splits = (f'{split}A', f'{split}B') if facts.get('layout') == 'unpaired' else (split,)
  # Of our own sets the files' bytes, for our decoder knows more kinds of images.
  raw = {name: library.decode.SkipDecoding() for name in facts.get('names', ())} or None
  try:
    # download=False: it would otherwise fetch and prepare the set, and without TensorFlow fail.
    records = [library.data_source(name, split=part, data_dir=data_dir, decoders=raw,
                                   download=False) for part in splits]
  except (AssertionError, KeyError, NotImplementedError, OSError, ValueError) as e:
    if builder.info.splits and isinstance(e, KeyError | ValueError):
      raise ValueError(f'{name} has no split {split!r}; one of {", ".join(builder.info.splits)}'
                       ) from e
    raise FileNotFoundError(
        f'data set {name!r} is not prepared as array_record in {builder.data_dir}; prepare it '
        f"once: pip install 'jaxgan-compress[tf]' && tfds build {name} "
        '--file_format=array_record') from e
  if facts:
    return translation.prepared(builder, facts, split, records, **arguments)
  return Classified(records[0], f'tfds:{name}/{split}', **arguments)


class Classified:
  """Images with a class, of a TFDS set. size, crop, fit, channels: see `transforms.frame`.

  label: the feature that holds the class, '/' between levels, or None. Raises ValueError for a
  feature that is not there.
  """

  def __init__(self, records, name: str, *, size: int, channels: int, crop: int | None = None,
               fit: str = 'resize', label: str | None = 'label'):
    self.records, self.name, self.label = records, name, label
    self.frame = {'size': size, 'channels': channels, 'crop': crop, 'fit': fit}

  def __len__(self):
    return len(self.records)

  def __getitem__(self, i):
    record = self.records[i]
    found = record
    for level in self.label.split('/') if self.label else ():
      if level not in found:
        raise ValueError(f'{self.name} has no feature {self.label!r}; there is '
                         f'{", ".join(found)}')
      found = found[level]
    label = np.int32(found if self.label else 0)
    return {'target': transforms.frame(record['image'], **self.frame), 'label': label}

  def __repr__(self):
    return self.name
