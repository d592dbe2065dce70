"""One protocol, many generators."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan_compress import core
from jaxgan_compress.core import Drawer
from jaxgan_compress.losses import image as image_losses
from jaxgan_compress.metrics import feature_distances, formulas, segmentation
from jaxgan_compress.metrics.confidence import bootstrap
from jaxgan_compress.metrics.extractors import Extractor
from jaxgan_compress.metrics.segmenters import Segmenter
from jaxgan_compress.parallel import RowMap

# The 256 grey levels as PyTorch's pipelines make them, to the bit: a compiled division rounds
# otherwise, and the truncation of the FID protocols of the papers would show it.
LEVELS = (np.arange(256, dtype=np.float32) / 255 - np.float32(0.5)) / np.float32(0.5)

# Protocol entries that say something about a value and do not change it.
REMARKS = ('feature_net_accuracy',)


@dataclasses.dataclass(frozen=True)
class Measure:
  """A value, its spread and its 95 % interval where it has them, and how it was made.

  `a - b` is the difference of two values of one protocol, and `a < b` compares them. Both raise
  ValueError for different protocols: such numbers say nothing about each other.
  """
  value: Any
  protocol: Mapping[str, Any]
  spread: float | None = None
  interval: tuple[float, float] | None = None

  def to_dict(self):
    return {key: x for key, x in dataclasses.asdict(self).items() if x is not None}

  def __sub__(self, other: Measure) -> float:
    differing = [key for key in sorted({*self.protocol, *other.protocol})
                 if key not in REMARKS and self.protocol.get(key) != other.protocol.get(key)]
    if differing:
      listed = ', '.join(f'{key} {self.protocol.get(key)} and {other.protocol.get(key)}'
                         for key in differing)
      raise ValueError(f'{self.value:.4g} and {other.value:.4g} were measured differently and do '
                       f'not compare: {listed}; measure both in one way')
    return self.value - other.value

  def __lt__(self, other: Measure) -> bool:
    return (self - other) < 0


class Evaluator:
  """Measures generators on the same inputs, through the same network, against the same images.

  extractor: see `extractors`. real: a source of the images that drawings should look like ('target'
  or 'image' of its elements; B of an unpaired source), or several, taken together: CycleGANs are
  measured against train + test, paired tasks against test.
  inputs: a source whose elements are drawn from, once each, in order ('source' or 'image'; A of an
  unpaired source); None: `count` latents of `seed`. Elements with a 'target' of their own are
  pairs, which PSNR, SSIM and the rest compare.
  splits: of the inception score. batch: images at once (default: 2 megapixels).
  segmenter: reads labels back, for mIoU.

  Raises ValueError for fewer than 4 images of a side, or a segmenter without label maps.
  """

  def __init__(self, extractor: Extractor, real: Sequence | tuple[Sequence, ...], *,
               inputs: Sequence | None = None, count: int = 5000, seed: int = 1, splits: int = 10,
               batch: int | None = None, segmenter: Segmenter | None = None):
    sources = [getattr(source, 'b', source) for source in (real if isinstance(real, tuple | list)
                                                           else (real,))]
    self.extractor, self.segmenter = extractor, segmenter
    self.inputs = getattr(inputs, 'a', inputs)
    self.count = count if inputs is None else len(self.inputs)
    self.seed, self.splits = seed, splits
    real_count = sum(map(len, sources))
    if min(self.count, real_count) < 4:
      raise ValueError(f'{self.count} drawings against {real_count} real images; distances between '
                       'sets take at least 4 of each')
    if batch is not None and batch < 1:
      raise ValueError(f'batch={batch}; at least 1')
    if segmenter is not None and (inputs is None or 'label_map' not in self.inputs[0]):
      raise ValueError('a segmenter needs inputs with label maps to compare with, as '
                       "data.labels and data.samples('shapes') have them")
    shape = jax.eval_shape(_prepared(sources[0]), _stack(sources[0], [0]))
    shape = _picture(shape).shape[1:]
    self._rows = RowMap()
    self.batch = self._rows.whole(min(batch or max(1, 2 ** 21 // (shape[0] * shape[1])),
                                      self.count))
    self.protocol = {
        'data': ' + '.join(map(repr, sources)), 'real_count': real_count,
        'images': 'x'.join(map(str, shape)), 'view': _views(*sources, self.inputs),
        **({} if inputs is None else {'inputs': repr(self.inputs)}),
        'count': self.count, 'seed': seed, **extractor.protocol}
    self.sources = sources
    prepare = _prepared(self.inputs)
    # Programs of their own, so that equal networks draw equal images to the bit.
    self._prepare = self._rows.jit(lambda batch: core.normalise(prepare(batch)))
    self._draw = self._rows.jit(lambda x, draw: draw(x))
    self._compare = self._rows.jit(self._compared, rows=3)
    self._squares = self._rows.jit(lambda z, a, b: jnp.square(a(z) - b(z)).mean((1, 2, 3)))
    self._real = _joined([self._looks(source) for source in sources])

  @property
  def names(self) -> tuple[str, ...]:
    """The measures of any generator that can decide, by name."""
    found = (*self.extractor.distances, 'precision', 'recall', 'vol')
    found += ('is',) * ('probs' in self._real)
    if self.inputs is not None and 'target' in self.inputs[0]:
      found += ('psnr', 'ssim', 'l1')
    return found + ('miou', 'pixel_accuracy') * (self.segmenter is not None)

  def latents(self, latent: int, count: int | None = None):
    """The fixed latents [count, latent] on which every generator is measured."""
    return jax.random.normal(jax.random.key(self.seed), (count or self.count, latent))

  def real(self, intervals: int = 0) -> dict[str, Measure]:
    """The same measures of the real images, and the distance between a random half and all."""
    found = self._measures(self._real, intervals, floor=True)
    half = np.random.default_rng(self.seed).permutation(len(self._real['features']))[::2]
    floor = formulas.frechet_distance(self._real['features'][half], self._real['features'])
    return {**found, self.extractor.distances[0]: self._measure(
        floor, of='a random half against all')}

  def __call__(self, draw: Drawer, teacher: Drawer | None = None, *, intervals: int = 0
               ) -> dict[str, Measure]:
    """Every measure that extractor and inputs allow, by name.

    Of sets: 'fid' and 'kid' ('fd' and 'mmd' through a stand-in), 'precision' and 'recall', 'is' and
    'classes' where the extractor classifies, 'vol'. Of pairs: 'psnr', 'ssim', 'l1'.
    Of labels: 'miou', 'pixel_accuracy', 'iou'. With a teacher, 'mse' to it on the same inputs, its
    'psnr_teacher' ('psnr' for latents), and for latents 'mse_on_paths' between them.
    intervals: halvings for the 95 % interval of each value; 0: none, and no time for it.
    """
    looks = self._drawings(draw, teacher)
    found = self._measures(looks, intervals)
    if teacher is not None:
      squares = looks['teacher']
      found['mse'] = self._summary(_mean, squares, intervals=intervals,
                                   unit='per pixel, images in [-1, 1]')
      found['psnr' if self.inputs is None else 'psnr_teacher'] = self._summary(
          lambda x: formulas.psnr(_mean(x)), squares,
          intervals=intervals if squares.any() else 0, unit='dB')
      if self.inputs is None:
        found['mse_on_paths'] = self._mse_on_paths(draw, teacher)
    return found

  def _drawings(self, draw, teacher):
    if self.inputs is None:
      z = self.latents(draw.module.latent)
      load = lambda rows: {'source': z[rows.start:rows.stop]}
    else:
      load = functools.partial(_stack, self.inputs)
    return self._map(self._see, self.count, load, draw, teacher, self.extractor.variables,
                     self.segmenter and self.segmenter.variables)

  def _map(self, function, count, load, *args):
    return self._rows.map(function, count, self.batch, load, *args)

  def _looks(self, source):
    """What the extractor sees in the real images of a source."""
    prepare = _prepared(source)

    def look(batch, variables):
      images = _picture(prepare(batch))
      if images.dtype == jnp.uint8:
        images = jnp.asarray(LEVELS)[images]
      return {**self.extractor.look(variables, images),
              'vol': formulas.variance_of_laplacian(images)}

    return self._map(self._rows.jit(look), len(source), functools.partial(_stack, source),
                     self.extractor.variables)

  def _see(self, batch, draw, teacher, *variables):
    batch = self._prepare(batch)
    x = batch.get('source', batch.get('image'))
    return self._compare(batch, self._draw(x, draw), teacher and self._draw(x, teacher),
                         *variables)

  def _compared(self, batch, images, lesson, variables, segmenter):
    found = {**self.extractor.look(variables, images),
             'vol': formulas.variance_of_laplacian(images)}
    if lesson is not None:
      found['teacher'] = jnp.square(images - lesson).mean((1, 2, 3))
    if 'target' in batch:
      target = batch['target']
      # 106 dB and no more: an image that is its target would make every mean infinite.
      mse = jnp.square(images - target).mean((1, 2, 3)).clip(1e-10)
      found |= {'psnr': 10 * jnp.log10(4 / mse), 'l1': jnp.abs(images - target).mean((1, 2, 3)),
                'ssim': image_losses.ssim((images + 1) / 2, (target + 1) / 2, padding=0)}
    if self.segmenter is not None:
      labels = self.segmenter.look(segmenter, images).argmax(-1)
      found['confusion'] = jax.vmap(lambda found, truth: segmentation.count(
          found, truth, self.segmenter.classes))(labels, batch['label_map'])
    return found

  def _mse_on_paths(self, draw, teacher):
    # Eight points on the straight path between each of 64 pairs of latents.
    share = jnp.linspace(0, 1, 8)[:, None, None]
    start, end = jnp.split(self.latents(draw.module.latent, 128), 2)
    path = (share * start[None] + (1 - share) * end[None]).reshape(-1, start.shape[-1])
    squares = self._map(self._squares, len(path), lambda rows: path[rows.start:rows.stop], draw,
                        teacher)
    return self._measure(_mean(squares), pairs=64, points=8)

  def _measures(self, looks, intervals, floor=False):
    found, summary = {}, functools.partial(self._summary, intervals=intervals)
    mine, real = looks['features'], self._real['features']
    if not floor:
      frechet, kernel = self.extractor.distances
      found[frechet] = summary(formulas.frechet_distance, mine, real, features=mine.shape[1])
      size = min(100, len(mine) // 2, len(real) // 2)
      found[kernel] = summary(
          functools.partial(feature_distances.kernel_distance, subset_size=size, seed=self.seed),
          mine, real, subsets=100, subset_size=size)
      # Without intervals: radii depend on the count, so halves say nothing about the whole.
      for name, value in zip(('precision', 'recall'),
                             feature_distances.precision_recall(real, mine), strict=True):
        found[name] = self._measure(value, neighbours=3)
    if 'probs' in looks:
      splits = min(self.splits, len(mine) // 2)
      found['is'] = summary(functools.partial(formulas.inception_score, splits=splits),
                            looks['probs'], splits=splits)
      found['classes'] = self._measure(formulas.class_histogram(looks['probs']).tolist())
    for name, protocol in {
        'vol': {}, 'psnr': {'unit': 'dB, mean over images'}, 'l1': {'unit': 'of [-1, 1]'},
        'ssim': {'window': '11x11 Gaussian, inside the image'}}.items():
      if name in looks:
        found[name] = summary(_mean, looks[name], **protocol)
    if 'confusion' in looks:
      read = lambda counts: segmentation.scores(segmentation.table(
          counts.astype(np.int64).sum(0)))
      for name in ('miou', 'pixel_accuracy'):
        found[name] = summary(lambda x, name=name: read(x)[name], looks['confusion'],
                              **self.segmenter.protocol)
      found['iou'] = self._measure(read(looks['confusion'])['iou'].tolist(),
                                   **self.segmenter.protocol)
    return found

  def _summary(self, statistic, *arrays, intervals, **more):
    """statistic: arrays -> a value, or a value and its spread."""
    parts = lambda *arrays: np.atleast_1d(statistic(*arrays)).tolist()
    interval = bootstrap(lambda *arrays: parts(*arrays)[0], *arrays, samples=intervals,
                         seed=self.seed) if intervals else None
    more |= {'intervals': intervals} if intervals else {}
    value, *spread = parts(*arrays)
    return self._measure(value, *(spread or [None]), interval, **more)

  def _measure(self, value, spread=None, interval=None, **more):
    # Files that vanished since they were checked, with neighbours in their place, are told.
    sources = {id(source): source for source in (*self.sources, self.inputs)}.values()
    lost = sum(getattr(source, 'lost', 0) for source in sources)
    more |= {'files_replaced': lost} if lost else {}
    return Measure(value, {**self.protocol, **more}, spread, interval)


def _prepared(source):
  return getattr(source, 'prepare', dict)


def _stack(source, rows):
  items = [source[i] for i in rows]
  return {name: np.stack([item[name] for item in items]) for name in items[0]}


def _views(*sources):
  """How the images of all sources are shown, where they say it."""
  found = dict.fromkeys(repr(source.view) for source in sources if getattr(source, 'view', None))
  return ', '.join(found) or 'as they are'


def _picture(element):
  return element['target'] if 'target' in element else element['image']


def _mean(x):
  return float(x.astype(np.float64).mean())


def _joined(parts):
  return jax.tree.map(lambda *x: np.concatenate(x), *parts)
