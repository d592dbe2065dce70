"""Metrics on cases that can be worked by hand, and one evaluator on real digits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan_compress import data, metrics, nn
from jaxgan_compress.core import BoundGenerator


def test_inception_score_of_certain_and_of_constant_predictions():
  assert metrics.inception_score(np.tile(np.eye(10), (50, 1)))[0] == pytest.approx(10)
  assert metrics.inception_score(np.full((500, 10), .1))[0] == pytest.approx(1)
  mean, spread = metrics.inception_score(np.eye(2)[[0, 0, 0, 1]], splits=2)
  assert (mean, spread) == pytest.approx((1.5, .5))  # a part with one class, a part with two
  with pytest.raises(ValueError, match='3 samples cannot make 10 splits'):
    metrics.inception_score(np.eye(3))


def test_frechet_distance():
  rng = np.random.default_rng(0)
  a = rng.standard_normal((500, 6)) @ rng.standard_normal((6, 6))
  assert metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
  assert metrics.frechet_distance(a, a + 2) == pytest.approx(4 * 6)
  # Commuting covariances: |m|^2 + sum (sqrt(a) - sqrt(b))^2.
  closed = 1 + 4 + (3 - 1) ** 2 + (2 - 5) ** 2
  assert metrics.gaussian_frechet_distance(
      [0, 0], np.diag([9., 4.]), [1, 2], np.diag([1., 25.])) == pytest.approx(closed)
  # Rank deficient: fewer samples than features.
  few = rng.standard_normal((5, 40))
  assert metrics.frechet_distance(few, few) == pytest.approx(0, abs=1e-5)
  with pytest.raises(ValueError, match='at least 2 samples; got 1 and 5'):
    metrics.frechet_distance(few[:1], few)


def test_frechet_distance_of_covariances_that_do_not_commute():
  a, b = np.array([[2., 1.], [1., 2.]]), np.array([[1., 0.], [0., 4.]])
  # 2x2: tr sqrt(M) = sqrt(tr M + 2 sqrt(det M)) for M = ab.
  m = a @ b
  expected = np.trace(a) + np.trace(b) - 2 * np.sqrt(np.trace(m) + 2 * np.sqrt(np.linalg.det(m)))
  assert metrics.gaussian_frechet_distance([0, 0], a, [0, 0], b) == pytest.approx(expected)


def test_sharpness():
  assert float(metrics.variance_of_laplacian(jnp.full((1, 8, 8, 1), .3))[0]) < 1e-4
  board = jnp.asarray((np.indices((8, 8)).sum(0) % 2) * 2 - 1, jnp.float32)[None, ..., None]
  # Every valid pixel is +-4 * 255, half of each sign.
  assert float(metrics.variance_of_laplacian(board)[0]) == pytest.approx(1020 ** 2)
  colours = jnp.stack([board[..., 0]] + [jnp.full((1, 8, 8), -1.)] * 2, -1)
  assert float(metrics.variance_of_laplacian(colours)[0]) == pytest.approx(
      (.299 * 1020) ** 2, rel=1e-4)


def test_psnr_and_histogram():
  assert metrics.psnr(4.) == 0 and metrics.psnr(.04) == pytest.approx(20)
  assert metrics.psnr(0.) == float('inf')
  np.testing.assert_allclose(metrics.class_histogram(np.eye(3)[[0, 0, 2, 2]]), [.5, 0, .5])


@pytest.fixture(scope='module')
def evaluator(images):
  network = nn.SmallClassifier()
  variables = nn.initialise(network, jax.random.key(0), jnp.zeros((1, 32, 32, 1)), scheme='he')
  return metrics.Evaluator(metrics.classifier(network, variables),
                           data.ArraySource(images, name='few'), count=30, splits=2, batch=16)


def drawer(seed, d=1):
  G = nn.DCGANGenerator(d=d, size=32)
  return BoundGenerator(nn.initialise(G, jax.random.key(seed), G.example(), scheme='he'), G)


def test_an_evaluator_measures_a_copy_as_a_copy(evaluator):
  one, other = drawer(0), drawer(1)
  copy, alien = evaluator(one, one), evaluator(other, one)
  assert copy['mse'].value == copy['mse_on_paths'].value == 0
  assert alien['mse'].value > 0 and alien['mse_on_paths'].value > 0
  assert alien['psnr'].value == pytest.approx(10 * np.log10(4 / alien['mse'].value))
  assert 'mse' not in evaluator(one)
  assert evaluator(one)['fd'] == copy['fd']  # the same latents every time


def test_a_part_batch_counts_like_any_other(images):
  """30 images in batches of 16 are measured as in one batch of 30."""
  network = nn.SmallClassifier()
  variables = nn.initialise(network, jax.random.key(0), jnp.zeros((1, 32, 32, 1)), scheme='he')
  extractor = metrics.classifier(network, variables)
  found = [metrics.Evaluator(extractor, data.ArraySource(images), count=30, splits=2,
                             batch=batch)(drawer(0), drawer(1)) for batch in (16, 30)]
  for name in ('is', 'fd', 'vol', 'mse'):
    assert found[0][name].value == pytest.approx(found[1][name].value, rel=1e-4)


def test_a_measure_carries_its_protocol(evaluator):
  measure = evaluator(drawer(0))['fd'].to_dict()
  assert measure['protocol'] | {'feature_crc32': ''} == {
      'data': 'few', 'real_count': 24, 'images': '32x32x1', 'view': 'as they are', 'count': 30,
      'seed': 1, 'feature_net': 'SmallClassifier', 'feature_crc32': '',
      'feature_net_accuracy': None, 'features': 64}
  real = evaluator.real()
  assert real['fd'].protocol['of'] == 'a random half against all' and real['fd'].value > 0
