"""Data sets as sequences of elements, and elements as batches."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxgan_compress.core import Batch, normalise
from jaxgan_compress.core.arguments import one_of


class Source:
  """A data set. Element i is `{name: array}` of one image, one pair or one latent.

  A class of your own has `name`, `count` (of elements), and `__getitem__` or `augmented` or both.

  view: how images are resized and cropped, if they are. labels: how label maps are encoded, as
  arguments of `decode.label_planes`. lost: how many unreadable files a neighbour stands in for.
  a, b: the domains that inputs and targets come from: the whole source, unless it is unpaired.
  names: of the elements, where they have any. groups: what each element is a part of, as the
  photograph of a patch: intervals are over groups. border: pixels on each side of a target that
  comparisons leave out; scale: how many times larger it is than its input. teacher: what is known
  of the network whose images the targets are.
  """
  name: str = ''
  count: int = 0
  view: Any = None
  labels: Mapping[str, Any] | None = None
  lost: Any = 0
  names: Sequence[str] = ()
  groups: Sequence[str] = ()
  border: int = 0
  teacher: Mapping[str, Any] = {}
  scale: int = 1
  a: Any = property(lambda self: self)
  b: Any = property(lambda self: self)

  def __len__(self) -> int:
    return self.count

  def __getitem__(self, i: int) -> dict[str, np.ndarray]:
    """Element i as evaluation sees it."""
    return self.augmented(range(len(self))[i], None)

  def augmented(self, i: int, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
    """Element i as training sees it, at random; without rng as evaluation does."""
    return self[i]

  def prepare(self, batch: Mapping[str, Any]) -> Batch:
    """Finishes a batch inside the training step (jax)."""
    return dict(batch)

  def __repr__(self):
    return self.name


class _Elements(Source):
  """A plain sequence of elements."""

  def __init__(self, elements: Sequence):
    self._elements, self.count = elements, len(elements)

  def __getitem__(self, i):
    return self._elements[i]

  def __repr__(self):
    return repr(self._elements)


def as_source(elements: Source | Sequence) -> Source:
  """A `Source` as it is, and any other sequence of elements as one.

  Raises ValueError for an object that has methods of a `Source` and is none: they would be ignored.
  """
  if isinstance(elements, Source):
    return elements
  # 'draw' is what `augmented` was called. A plain array has a 'view', which changes no image.
  ignored = [name for name in ('a', 'augmented', 'b', 'draw', 'prepare') if hasattr(elements, name)]
  if ignored:
    raise ValueError(f'{type(elements).__name__} has {", ".join(ignored)} and is no data.Source; '
                     'derive it from data.Source')
  return _Elements(elements)


def stack(source: Source | Sequence, indices: Iterable[int]) -> dict[str, np.ndarray]:
  """The elements at `indices` as one batch, `{name: [B, ...]}`."""
  elements = [source[int(i)] for i in indices]
  return {name: np.stack([element[name] for element in elements]) for name in elements[0]}


def prepared_batch(source: Source, indices: Iterable[int]) -> Batch:
  """The elements at `indices` as a training step takes them: finished, images in [-1, 1]."""
  return normalise(source.prepare(stack(source, indices)))


class First(Source):
  """The first `count` elements of a source, for evaluation."""

  def __init__(self, source: Source | Sequence, count: int):
    self.source = as_source(source)
    self.count = min(count, len(source))
    self.view, self.prepare = self.source.view, self.source.prepare
    self.border, self.scale = self.source.border, self.source.scale
    self.names, self.groups = (kept[:self.count] for kept in (self.source.names,
                                                              self.source.groups))
    self.name = f'{self.source!r}[:{self.count}]'

  def __getitem__(self, i):
    return self.source[range(self.count)[i]]

  lost = property(lambda self: self.source.lost)


class ArraySource(Source):
  """Images and labels that fit in memory.

  target: uint8 or uint16 [N,H,W,C]. label: int [N], or None.
  """

  def __init__(self, target: np.ndarray, label: np.ndarray | None = None, name: str = 'arrays'):
    if target.dtype not in (np.uint8, np.uint16) or target.ndim != 4:
      raise ValueError(f'images are {target.dtype} {target.shape}; uint8 or uint16 [N,H,W,C] is '
                       'expected')
    self.target, self.name, self.count = target, name, len(target)
    self.label = np.zeros(len(target), np.int32) if label is None else label.astype(np.int32)

  def __getitem__(self, i):
    return {'target': self.target[i], 'label': self.label[i]}


def installed(package: str) -> Path:
  """The folder of scikit-learn or scikit-image, whose import would take seconds.

  Raises ImportError with the extra that brings both.
  """
  spec = importlib.util.find_spec(package)
  if spec is None or spec.origin is None:
    raise ImportError(f'the sample images ship with scikit-learn and scikit-image; there is no '
                      f"{package}: pip install 'jaxgan-compress[samples]'")
  return Path(spec.origin).parent


def digits(split: str = 'all', *, size: int = 32) -> ArraySource:
  """The 1797 handwritten digits inside scikit-learn: 8x8 scans resized (bicubic), one channel.

  split: 'train' (1400), 'test' (397) or 'all'; dealt by a fixed permutation, since the file is
  ordered by writer. size: 1 to 256 pixels. Needs scikit-learn (the extra 'samples'). Raises
  ValueError for another split or size.
  """
  splits = {'train': slice(0, 1400), 'test': slice(1400, None), 'all': slice(None)}
  one_of('split', split, splits)
  if not isinstance(size, int) or not 1 <= size <= 256:
    raise ValueError(f'size={size!r}; digits are 1 to 256 pixels wide, for all are kept in memory')
  table = np.loadtxt(installed('sklearn') / 'datasets/data/digits.csv.gz', delimiter=',')
  scans, labels = table[:, :-1].reshape(-1, 8, 8), table[:, -1]
  chosen = np.random.default_rng(0).permutation(len(scans))[splits[split]]

  def enlarge(scan):
    image = Image.fromarray((scan / 16).astype(np.float32))
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)).clip(0, 1)

  images = np.stack([enlarge(scans[i]) for i in chosen])[..., None]
  return ArraySource((images * 255).round().astype(np.uint8), labels[chosen],
                     f'digits/{split}')
