"""One protocol, many generators."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from jaxgan_compress import core
from jaxgan_compress.core import Drawer
from jaxgan_compress.metrics import scores


@dataclasses.dataclass(frozen=True)
class Measure:
  """A value, its spread where it has one, and how it was made."""
  value: Any
  protocol: Mapping[str, Any]
  spread: float | None = None

  def to_dict(self):
    return {key: x for key, x in dataclasses.asdict(self).items() if x is not None}


class Evaluator:
  """Measures generators on the same latents, through the same classifier, against the same data.

  network, variables: `image -> (logits, features)`. source: the real images, all of them used.
  count: images drawn for each generator. seed: of the latents. splits: of the inception score.
  batch: images at once. accuracy: the classifier's on held-out images, for the record.
  """

  def __init__(self, network: linen.Module, variables, source: Sequence, *, count: int = 5000,
               seed: int = 1, splits: int = 10, batch: int = 500, accuracy: float | None = None):
    self.count, self.seed, self.splits, self.batch = count, seed, splits, min(batch, count)
    leaves = jax.tree.leaves(variables)
    crc = 0
    for leaf in leaves:
      crc = zlib.crc32(np.ascontiguousarray(leaf), crc)
    self.protocol = {
        'data': repr(source), 'real_count': len(source), 'count': count, 'seed': seed,
        'feature_net': type(network).__name__, 'feature_crc32': f'{crc:08x}',
        'feature_net_accuracy': accuracy}

    def look(images):
      logits, features = network.apply(variables, images)
      return {'probs': jax.nn.softmax(logits), 'features': features,
              'vol': scores.variance_of_laplacian(images)}

    # The feature network is small and used for the whole run: it may be a constant.
    self._look_at_real = jax.jit(lambda images: look(core.normalise({'x': images})['x']))
    self._look_at_drawn = jax.jit(lambda z, draw: look(draw(z)))
    self._squares = jax.jit(lambda z, a, b: jnp.square(a(z) - b(z)).mean((1, 2, 3)))
    images = np.stack([source[i]['target'] for i in range(len(source))])
    self._real = self._map(self._look_at_real, images)

  def latents(self, latent: int, count: int | None = None):
    """The fixed latents [count, latent] on which every generator is measured."""
    return jax.random.normal(jax.random.key(self.seed), (count or self.count, latent))

  def real(self) -> dict[str, Measure]:
    """The same measures of the real images, and the distance between a random half and all."""
    found = self._measures(self._real)
    half = np.random.default_rng(self.seed).permutation(len(self._real['features']))[::2]
    floor = scores.frechet_distance(self._real['features'][half], self._real['features'])
    return {**found, 'fd': self._measure(floor, of='a random half against all')}

  def __call__(self, draw: Drawer, teacher: Drawer | None = None) -> dict[str, Measure]:
    """IS, Frechet distance, VoL and class histogram; with a teacher, MSE and PSNR to it on the
    same latents and along paths between latents."""
    z = self.latents(draw.module.latent)
    found = self._measures(self._map(self._look_at_drawn, z, draw))
    if teacher is not None:
      mse = self._mse(z, draw, teacher)
      found['mse'] = self._measure(mse, unit='per pixel, images in [-1, 1]')
      found['psnr'] = self._measure(scores.psnr(mse), unit='dB')
      # Eight points on the straight path between each of 64 pairs of latents.
      share = jnp.linspace(0, 1, 8)[:, None, None]
      start, end = jnp.split(self.latents(z.shape[-1], 128), 2)
      path = (share * start[None] + (1 - share) * end[None]).reshape(-1, z.shape[-1])
      found['mse_on_paths'] = self._measure(self._mse(path, draw, teacher), pairs=64, points=8)
    return found

  def _mse(self, z, draw, teacher):
    return float(self._map(self._squares, z, draw, teacher).astype(np.float64).mean())

  def _measures(self, looks):
    mean, spread = scores.inception_score(looks['probs'], self.splits)
    return {
        'is': self._measure(mean, spread, splits=self.splits),
        'fd': self._measure(
            scores.frechet_distance(looks['features'], self._real['features']),
            features=looks['features'].shape[1]),
        'vol': self._measure(float(looks['vol'].astype(np.float64).mean())),
        'classes': self._measure(scores.class_histogram(looks['probs']).tolist()),
    }

  def _measure(self, value, spread=None, **more):
    return Measure(value, {**self.protocol, **more}, spread)

  def _map(self, function, rows, *args):
    """`function(rows, *args)` in batches of one shape; the last is filled up and cut again."""
    parts = []
    for i in range(0, len(rows), self.batch):
      part = rows[i:i + self.batch]
      fill = [(0, self.batch - len(part))] + [(0, 0)] * (part.ndim - 1)
      out = jax.device_get(function(jnp.pad(part, fill), *args))
      parts.append(jax.tree.map(lambda x, n=len(part): x[:n], out))
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)
