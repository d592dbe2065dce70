"""One protocol for the measures of many generators."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan_compress import core, data
from jaxgan_compress.core import BoundGenerator
from jaxgan_compress.losses import image as image_losses
from jaxgan_compress.metrics import feature_distances, formulas, segmentation, upscaling
from jaxgan_compress.metrics.confidence import bootstrap
from jaxgan_compress.metrics.extractors import Extractor
from jaxgan_compress.metrics.segmenters import Segmenter
from jaxgan_compress.parallel import RowMap

# The 256 grey levels as PyTorch's pipelines make them, to the bit: a compiled division rounds
# otherwise, and the truncation of the FID protocols of the papers would show it.
LEVELS = (np.arange(256, dtype=np.float32) / 255 - np.float32(0.5)) / np.float32(0.5)

Elements = data.Source | Sequence

# Protocol entries that comment on a value and do not change it.
REMARKS = ('feature_net_accuracy', 'feature_channels', 'vol_channels')

# What a network of RGB, and the sharpness of grey levels, see of images, by their channels.
SEEN = {1: 'grey, repeated', 2: 'grey on white, repeated', 3: 'RGB', 4: 'RGB on white'}

# Measures that are the mean of one number for each image, and their protocol.
MEANS: dict[str, dict[str, Any]] = {
    'vol': {}, 'psnr': {'unit': 'dB, mean over images'}, 'l1': {'unit': 'of [-1, 1]'},
    'ssim': {'window': '11x11 Gaussian, inside the image'},
    'sharpness': {'of': 'mean |Laplacian| over that of the target, mean over images'}}
MEANS |= {f'{name}_original': MEANS[name] for name in ('psnr', 'ssim')}
# And the one that is their median: of a flat target it may be any number.
MEDIANS: dict[str, dict[str, Any]] = {'grid_ratio': {
    'of': 'energy at periods of 4 and 2 pixels over that of the target, median over images'}}


@dataclasses.dataclass(frozen=True)
class Measure:
  """A value, its spread and its 95 % interval where it has them, and how it was made.

  `a - b` is the difference of two values of one protocol, and `a < b` compares them. Both raise
  ValueError for different protocols, whose values do not compare.
  """
  value: Any
  protocol: Mapping[str, Any]
  spread: float | None = None
  interval: tuple[float, float] | None = None

  @classmethod
  def of(cls, statistic: Callable, *arrays: np.ndarray, protocol: Mapping[str, Any],
         intervals: int = 0, seed: int = 0) -> Measure:
    """`statistic(*arrays)`, a value or a value and its spread, with its interval by `bootstrap`.

    intervals: halvings for the interval; it is left out for 0, and for fewer than 4 rows.
    """
    parts = lambda *arrays: np.atleast_1d(statistic(*arrays)).tolist()
    interval = None
    if intervals and min(map(len, arrays), default=0) >= 4:
      interval = bootstrap(lambda *arrays: parts(*arrays)[0], *arrays, samples=intervals, seed=seed)
    value, *spread = parts(*arrays)
    return cls(value, protocol, spread[0] if spread else None, interval)

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


def set_distances(fake: np.ndarray, real: np.ndarray, names: tuple[str, str],
                  measure: Callable[..., Measure], seed: int = 0, **protocol) -> dict[str, Measure]:
  """Frechet and kernel distance, called as `names` says, precision and recall of features [N,D].

  measure: (statistic, *arrays, **protocol) -> Measure. protocol: of the Frechet distance. What
  takes more samples than there are is left out.
  """
  frechet, kernel = names
  measures = {frechet: measure(formulas.frechet_distance, fake, real, **protocol)}
  size = min(100, len(fake) // 2, len(real) // 2)
  if size >= 2:
    measures[kernel] = measure(
        functools.partial(feature_distances.kernel_distance, subset_size=size, seed=seed),
        fake, real, subsets=100, subset_size=size)
  if min(len(fake), len(real)) > 3:
    # Without intervals: radii depend on the count, so halves say nothing about the whole.
    for name, value in zip(('precision', 'recall'), feature_distances.precision_recall(real, fake),
                           strict=True):
      measures[name] = measure(lambda value=value: value, neighbours=3)
  return measures


class Evaluator:
  """Measures generators on the same inputs, through the same network, against the same images.

  extractor: see `extractors`. real: a source of the real images ('target' or 'image' of its
  elements; B of an unpaired source), or several, taken together: CycleGANs are measured against
  train + test, paired tasks against test.
  inputs: a source of the generators' inputs, used once each, in order ('source' or 'image' of its
  elements; A of an unpaired source); None: `count` latents of `seed`. If its elements have a
  'target', too, PSNR, SSIM and L1 compare the generated images with it; where targets are larger
  than inputs, as of `data.upscaled`, as files of 8 bits and without the source's border, and so are
  sharpness and grid ratio, and PSNR and SSIM to an 'original'.
  splits: of the inception score. batch: images at once (default: 2 megapixels).
  segmenter: predicts label maps from generated images, for mIoU.

  Raises ValueError for fewer than 4 images of a side, or a segmenter without label maps.
  """

  def __init__(self, extractor: Extractor, real: Elements | tuple[Elements, ...], *,
               inputs: Elements | None = None, count: int = 5000, seed: int = 1, splits: int = 10,
               batch: int | None = None, segmenter: Segmenter | None = None):
    sources = [data.as_source(source).b for source in (real if isinstance(real, tuple | list)
                                                       else (real,))]
    self.extractor, self.segmenter = extractor, segmenter
    self.inputs = None if inputs is None else data.as_source(inputs).a
    self.count = count if self.inputs is None else len(self.inputs)
    self.seed, self.splits = seed, splits
    real_count = sum(map(len, sources))
    if min(self.count, real_count) < 4:
      raise ValueError(f'{self.count} generated images against {real_count} real images; '
                       'distances between sets take at least 4 of each')
    if batch is not None and batch < 1:
      raise ValueError(f'batch={batch}; at least 1')
    if segmenter is not None and not self._inputs_have('label_map'):
      raise ValueError('a segmenter needs inputs with label maps to compare with, as '
                       "data.labels and data.samples('shapes') have them")
    shape = jax.eval_shape(sources[0].prepare, data.stack(sources[0], [0]))
    shape = _picture(shape).shape[1:]
    self._rows = RowMap()
    self.batch = self._rows.whole(min(batch or max(1, 2 ** 21 // (shape[0] * shape[1])),
                                      self.count))
    prepare, self._all, described = dict, sources, {}
    if self.inputs is not None:
      prepare, self._all = self.inputs.prepare, [*sources, self.inputs]
      described = {'inputs': repr(self.inputs), **_compared(self.inputs)}
    views = dict.fromkeys(repr(source.view) for source in self._all if source.view)
    self.protocol = {'data': ' + '.join(map(repr, sources)), 'real_count': real_count,
                     'images': 'x'.join(map(str, shape)), 'view': ', '.join(views) or 'as they are',
                     **described, 'count': self.count, 'seed': seed, **extractor.protocol,
                     **self._seen(shape[-1])}
    # Programs of their own, so that equal networks generate equal images to the bit.
    self._prepare = self._rows.jit(lambda batch: core.normalise(prepare(batch)))
    self._generate = self._rows.jit(lambda x, generator: generator(x))
    self._compare = self._rows.jit(self._per_image, rows=3)
    self._squares = self._rows.jit(lambda z, a, b: jnp.square(a(z) - b(z)).mean((1, 2, 3)))
    self._real = jax.tree.map(lambda *x: np.concatenate(x), *map(self._of_real, sources))

  @property
  def names(self) -> tuple[str, ...]:
    """The measures of any generator that can choose a checkpoint."""
    return (*self.extractor.distances, 'precision', 'recall', 'vol',
            *(('is',) if 'probs' in self._real else ()),
            *(('psnr', 'ssim', 'l1') if self._inputs_have('target') else ()),
            *(('sharpness', 'grid_ratio') if self._upscales else ()),
            *(('psnr_original', 'ssim_original') if self._inputs_have('original') else ()),
            *(('miou', 'pixel_accuracy') if self.segmenter else ()))

  def latents(self, latent: int, count: int | None = None):
    """The fixed latents [count, latent] on which every generator is measured."""
    return jax.random.normal(jax.random.key(self.seed), (count or self.count, latent))

  def real(self, intervals: int = 0) -> dict[str, Measure]:
    """The same measures of the real images, and the distance between a random half and all."""
    features = self._real['features']
    half = np.random.default_rng(self.seed).permutation(len(features))[::2]
    floor = formulas.frechet_distance(features[half], features)
    return {**self._measures(self._real, intervals), self.extractor.distances[0]: self._measure(
        lambda: floor, of='a random half against all')}

  def __call__(self, generator: BoundGenerator, teacher: BoundGenerator | None = None, *,
               intervals: int = 0
               ) -> dict[str, Measure]:
    """Every measure that extractor and inputs allow, by name.

    Of sets: 'fid' and 'kid' ('fd' and 'mmd' through a stand-in), 'precision' and 'recall', 'is' and
    'classes' where the extractor classifies, 'vol'. Of pairs: 'psnr', 'ssim', 'l1'.
    Of labels: 'miou', 'pixel_accuracy', 'iou'. With a teacher, 'mse' to it on the same inputs, its
    'psnr_teacher' ('psnr' for latents), and for latents 'mse_on_paths' between them.
    intervals: halvings for the 95 % interval of each value; 0: none, and no time for it.
    """
    arrays = self._of_generated(generator, teacher)
    measure = functools.partial(self._measure, intervals=intervals)
    measures = set_distances(
        arrays['features'], self._real['features'], self.extractor.distances, measure, self.seed,
        features=arrays['features'].shape[1]) | self._measures(arrays, intervals)
    if teacher is not None:
      squares = arrays['teacher']
      measures['mse'] = measure(_mean, squares, unit='per pixel, images in [-1, 1]')
      measures['psnr' if self.inputs is None else 'psnr_teacher'] = self._measure(
          lambda x: formulas.psnr(_mean(x)), squares,
          intervals=intervals if squares.any() else 0, unit='dB')
      if self.inputs is None:
        measures['mse_on_paths'] = self._mse_on_paths(generator, teacher)
    return measures

  def _seen(self, channels):
    # Psnr, ssim, l1 and mse take all channels.
    seen = SEEN.get(channels, f'channels 1 to 3 of {channels}, as RGB')
    keys = {'feature_channels': self.extractor.in_colour and channels != 3,
            'vol_channels': channels not in (1, 3)}
    return {key: seen for key, is_other in keys.items() if is_other}

  @property
  def _upscales(self) -> bool:
    return self.inputs is not None and self.inputs.scale > 1

  def _inputs_have(self, name):
    return self.inputs is not None and name in self.inputs[0]

  def _of_real(self, source):
    """{name: array} with a row for each real image of a source."""

    def per_image(batch, variables):
      images = _picture(source.prepare(batch))
      images = jnp.asarray(LEVELS)[images] if images.dtype == jnp.uint8 else \
          core.normalise({'x': images})['x']
      return self._extracted(images, variables)

    return self._map(self._rows.jit(per_image), len(source), functools.partial(data.stack, source),
                     self.extractor.variables)

  def _of_generated(self, generator, teacher):
    """{name: array} with a row for each input."""
    if self.inputs is None:
      z = self.latents(generator.module.latent)
      load = lambda rows: {'source': z[rows.start:rows.stop]}
    else:
      load = functools.partial(data.stack, self.inputs)

    def generate_and_compare(batch, generator, teacher, *variables):
      batch = self._prepare(batch)
      x = batch.get('source', batch.get('image'))
      return self._compare(batch, self._generate(x, generator),
                           teacher and self._generate(x, teacher), *variables)

    return self._map(generate_and_compare, self.count, load, generator, teacher,
                     self.extractor.variables, self.segmenter and self.segmenter.variables)

  def _map(self, function, count, load, *args):
    return self._rows.map(function, count, self.batch, load, *args)

  def _extracted(self, images, variables) -> dict[str, jax.Array]:
    return {**self.extractor.apply(variables, images),
            'vol': formulas.variance_of_laplacian(images)}

  def _per_image(self, batch, images, taught, variables, segmenter_variables):
    values = self._extracted(images, variables)
    if taught is not None:
      values['teacher'] = jnp.square(images - taught).mean((1, 2, 3))
    if 'target' in batch:
      values |= self._of_pairs(images, batch['target'])
    if 'original' in batch:
      values |= {f'{name}_original': value
                 for name, value in self._of_pairs(images, batch['original']).items()
                 if f'{name}_original' in MEANS}
    if self.segmenter is not None:
      labels = self.segmenter.apply(segmenter_variables, images).argmax(-1)
      count = functools.partial(segmentation.count, classes=self.segmenter.classes)
      values['confusion'] = jax.vmap(count)(labels, batch['label_map'])
    return values

  def _of_pairs(self, images, target) -> dict[str, jax.Array]:
    values = {}
    if self.inputs is not None and self._upscales:
      images, target = (upscaling.visible(x, self.inputs.border) for x in (images, target))
      values = {'sharpness': upscaling.sharpness(images, target),
                'grid_ratio': upscaling.grid_ratio(images, target)}
    # 106 dB and no more: an image that is its target would make every mean infinite.
    mse = jnp.square(images - target).mean((1, 2, 3)).clip(1e-10)
    return {**values, 'psnr': 10 * jnp.log10(4 / mse),
            'l1': jnp.abs(images - target).mean((1, 2, 3)),
            'ssim': jnp.asarray(image_losses.ssim((images + 1) / 2, (target + 1) / 2, padding=0))}

  def _mse_on_paths(self, generator, teacher):
    # Eight points on the straight path between each of 64 pairs of latents.
    share = jnp.linspace(0, 1, 8)[:, None, None]
    start, end = jnp.split(self.latents(generator.module.latent, 128), 2)
    path = (share * start[None] + (1 - share) * end[None]).reshape(-1, start.shape[-1])
    squares = self._map(self._squares, len(path), lambda rows: path[rows.start:rows.stop],
                        generator, teacher)
    return self._measure(lambda: _mean(squares), pairs=64, points=8)

  def _measures(self, arrays, intervals) -> dict[str, Measure]:
    """The measures of images alone, and of images with their targets or label maps."""
    measures, measure = {}, functools.partial(self._measure, intervals=intervals)
    if 'probs' in arrays:
      splits = min(self.splits, len(arrays['probs']) // 2)
      measures['is'] = measure(functools.partial(formulas.inception_score, splits=splits),
                               arrays['probs'], splits=splits)
      measures['classes'] = self._constant(formulas.class_histogram(arrays['probs']).tolist())
    for kinds, statistic in ((MEANS, _mean), (MEDIANS, _median)):
      for name, protocol in kinds.items():
        if name in arrays:
          by_group, values = self._by_group(statistic, arrays[name])
          measures[name] = measure(by_group, values, **protocol)
    if self.segmenter is not None and 'confusion' in arrays:
      scores = lambda counts: segmentation.scores(segmentation.table(
          counts.astype(np.int64).sum(0)))
      for name in ('miou', 'pixel_accuracy'):
        measures[name] = measure(lambda x, name=name: scores(x)[name], arrays['confusion'],
                                 **self.segmenter.protocol)
      measures['iou'] = self._constant(np.asarray(scores(arrays['confusion'])['iou']).tolist(),
                                       **self.segmenter.protocol)
    return measures

  def _by_group(self, statistic, values):
    """(statistic, array) of one number for each image; where images belong to groups, as patches
    of one photograph, the array has a row for each group, so that intervals are over groups."""
    groups = self.inputs.groups if self.inputs is not None else ()
    if len(groups) != len(values):
      return statistic, values
    _, number = np.unique(groups, return_inverse=True)
    members = [values[number == i] for i in range(number.max() + 1)]
    return lambda rows: statistic(np.concatenate([members[i] for i in rows])), \
        np.arange(len(members))

  def _measure(self, statistic, *arrays, intervals=0, **more) -> Measure:
    more |= {'intervals': intervals} if intervals and arrays else {}
    return Measure.of(statistic, *arrays, protocol=self._protocol(more), intervals=intervals,
                      seed=self.seed)

  def _constant(self, value, **more) -> Measure:
    return Measure(value, self._protocol(more))

  def _protocol(self, more):
    # A protocol counts files that vanished since they were checked and were replaced.
    lost = sum(source.lost for source in {id(source): source for source in self._all}.values())
    return {**self.protocol, **more, **({'files_replaced': lost} if lost else {})}


def _picture(element):
  return element['target'] if 'target' in element else element['image']


def _compared(inputs) -> dict[str, str]:
  """What the protocol says of comparisons with targets that are larger than inputs."""
  return {'compared': f'8 bits, without {inputs.border} pixels on each side'} \
      if inputs.scale > 1 else {}


def _mean(x):
  return float(x.astype(np.float64).mean())


def _median(x):
  return float(np.median(x.astype(np.float64)))
