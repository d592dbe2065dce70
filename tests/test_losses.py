"""Hand-worked losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan_compress.core import xla
from jaxgan_compress.losses import features, gan, image, similarity
from jaxgan_compress.losses.similarity import SIMILARITIES
from jaxgan_compress.nn.layers.conv import leaky_relu

REAL, FAKE = jnp.array([[2.], [-1.]]), jnp.array([[0.], [1.]])


def log_sigmoid(x):
  return -np.log1p(np.exp(-x))


@pytest.mark.parametrize('name, d, g', [
    # hinge: (0 + 2)/2 + (1 + 2)/2; -1/2.  lsgan: (1 + 4)/2 + (0 + 1)/2; (1 + 0)/2.
    ('hinge', 2.5, -0.5), ('lsgan', 3.0, 0.5), ('wgan', 0.5 - 0.5, -0.5),
    ('ns', -(log_sigmoid(2) + log_sigmoid(-1)) / 2 - (log_sigmoid(0) + log_sigmoid(-1)) / 2,
     -(log_sigmoid(0) + log_sigmoid(1)) / 2)])
def test_adversarial_losses_by_hand(name, d, g):
  assert float(getattr(gan, f'{name}_d')(REAL, FAKE)) == pytest.approx(d, rel=1e-6)
  assert float(getattr(gan, f'{name}_g')(FAKE)) == pytest.approx(g, rel=1e-6)


def test_logistic_loss_is_finite_for_any_logit():
  for sign in (1e4, -1e4):
    value, slope = jax.value_and_grad(lambda x: gan.ns_d(x, -x) + gan.ns_g(x))(jnp.array([sign]))
    assert np.isfinite([float(value), float(slope[0])]).all()


def test_gradient_penalty_of_a_linear_critic():
  w = jnp.arange(1., 5.).reshape(1, 2, 2, 1)  # |w| = sqrt(30)
  real, fake = jnp.ones((3, 2, 2, 1)), jnp.zeros((3, 2, 2, 1))
  penalty = gan.gradient_penalty(lambda x: (x * w).sum((1, 2, 3)), real, fake,
                                 jnp.array([0, .5, 1]))
  assert float(penalty) == pytest.approx((30 ** .5 - 1) ** 2, rel=1e-5)


def test_gradient_penalty_is_taken_between_real_and_fake():
  """The critic x^2/2 has slope x, so the penalty sees where it was taken."""
  real, fake = jnp.full((1, 1, 1, 1), 3.), jnp.full((1, 1, 1, 1), 1.)
  for mix, x in ((0., 1.), (.25, 1.5), (1., 3.)):
    penalty = gan.gradient_penalty(lambda x: (x ** 2 / 2).sum((1, 2, 3)), real, fake,
                                   jnp.array([mix]))
    assert float(penalty) == pytest.approx((x - 1) ** 2, rel=1e-4, abs=1e-6)


def test_gradient_penalty_has_a_gradient_where_the_slope_is_zero():
  zero = jnp.zeros((2, 2, 2, 1))
  slope = jax.grad(lambda a: gan.gradient_penalty(
      lambda x: (a * x).sum((1, 2, 3)), zero, zero, jnp.zeros(2)))(0.)
  assert np.isfinite(float(slope))


def test_gram_matrices_for_tpus_are_the_same_and_never_of_single_products():
  x = jax.random.normal(jax.random.key(0), (2, 3, 4, 5))
  with xla.building_for('tpu'):
    ours = features.gram(x)
    traced = jax.make_jaxpr(features.gram)(x.astype(jnp.bfloat16))
  product, = (found for found in traced.eqns if found.primitive.name == 'dot_general')
  assert set(product.params['precision']) == {jax.lax.Precision.HIGH}
  assert product.outvars[0].aval.dtype == jnp.float32
  np.testing.assert_allclose(ours, features.gram(x), rtol=1e-6, atol=1e-7)


def test_three_products_of_short_numbers_are_near_a_gram_matrix():
  x = np.asarray(jax.nn.relu(jax.random.normal(jax.random.key(0), (4096, 64))))
  short = lambda x: np.asarray(jnp.asarray(x, jnp.bfloat16).astype(jnp.float32), np.float64)
  high, low = short(x), short(x - short(x))
  exact = x.astype(np.float64).T @ x
  # Of numbers that are not negative: low low is left out, and low is rounded twice, 2^-18 each.
  bound = 3 * 2 ** -18
  np.testing.assert_allclose(high.T @ high + high.T @ low + low.T @ high, exact, rtol=bound)
  assert np.abs(high.T @ high / exact - 1).max() > 10 * bound  # a single product


def test_clipping():
  clipped = gan.clip({'w': jnp.array([-3., .005, 3.])}, 0.01)['w']
  np.testing.assert_allclose(clipped, [-.01, .005, .01], rtol=1e-6)


def test_mse_reductions_differ_by_the_number_of_pixels():
  a, b = jnp.zeros((2, 3, 5, 1)), jnp.full((2, 3, 5, 1), 2.)
  assert float(image.mse(a, b, 'mean')) == 4
  assert float(image.mse(a, b)) == 4 * 15
  with pytest.raises(ValueError, match='sum_pixels, mean'):
    image.mse(a, b, 'sum')


def test_smooth_l1_is_that_of_pytorch():
  """Differences 0, 1/2, 1 and 3, either way: squares below 1, lines above."""
  d = jnp.array([0., .5, -.5, 1., -1., 3., -3.])
  value, slope = jax.jit(jax.value_and_grad(image.smooth_l1))(d, jnp.zeros(7))
  np.testing.assert_allclose(value, (2 * .125 + 2 * .5 + 2 * 2.5) / 7, rtol=1e-6)
  np.testing.assert_allclose(7 * slope, [0, .5, -.5, 1, -1, 1, -1], rtol=1e-6)


# What PyTorch has where a slope is not one number: what is differentiated, where, the slope there.
KINKS = {
    'absolute': (image.absolute, 0., 0.), 'leaky_relu': (leaky_relu, 0., .2),
    'relu': (lambda x: leaky_relu(x, 0.), 0., 0.),
    'hinge_d, real': (lambda x: gan.hinge_d(x, -3 + 0 * x), 1., 0.),
    'hinge_d, fake': (lambda x: gan.hinge_d(3 + 0 * x, x), -1., 0.),
    **{name: (lambda x, loss=loss: loss(x, jnp.ones((1, 4, 4, 2))), 1., 0.)
       for name, loss in image.RECONSTRUCTIONS.items()},
    'mse': (lambda x: image.mse(x, jnp.ones((1, 4, 4, 2))), 1., 0.),
    'total_variation': (image.total_variation, 1., 0.),
    'perceptual': (lambda x: features.perceptual(x, jnp.ones((1, 4, 4, 2))), 1., 0.),
    'weighted': (lambda x: features.weighted({'a': x, 'b': x}, {'a': jnp.ones((1, 4, 4, 2))},
                                             {'a': 1., 'c': 9.}), 1., 0.),
    'style': (lambda x: features.style({'a': x}, {'a': jnp.ones((1, 4, 4, 2))}), 1., 0.),
    'channel_means': (lambda x: features.channel_means(x, jnp.ones((1, 4, 4, 2))), 1., 0.),
}


def test_slopes_where_a_loss_has_a_kink():
  """A student equal to its teacher stays where it is: |x| has no slope at 0, nor -0."""
  slope = lambda loss, where: jax.grad(lambda x: loss(x).sum())(jnp.full((1, 4, 4, 2), where))
  slopes = jax.jit(lambda: {name: slope(loss, where)
                            for name, (loss, where, _) in KINKS.items()})()
  for name, (_, _, wanted) in KINKS.items():
    np.testing.assert_array_equal(slopes[name], np.float32(wanted), name)
  assert jax.grad(image.absolute)(-0.) == 0


def test_windows_of_ssim():
  """Against windows one by one, zeros around and inside the image."""
  window = 7
  a, b = (np.random.default_rng(i).uniform(-1, 1, (1, 12, 13, 1)) for i in (0, 1))
  line = np.exp(-(np.arange(window) - window // 2) ** 2 / 4.5)
  weights = np.outer(line, line) / line.sum() ** 2

  def by_hand(padding):
    x, y = (np.pad(z[0, ..., 0], padding) for z in (a, b))
    found = []
    for i, j in np.ndindex(x.shape[0] - window + 1, x.shape[1] - window + 1):
      p, q = (z[i:i + window, j:j + window] for z in (x, y))
      mean = lambda z: (weights * z).sum()
      mp, mq = mean(p), mean(q)
      vp, vq, both = mean(p * p) - mp ** 2, mean(q * q) - mq ** 2, mean(p * q) - mp * mq
      found.append((2 * mp * mq + 1e-4) * (2 * both + 9e-4)
                   / ((mp ** 2 + mq ** 2 + 1e-4) * (vp + vq + 9e-4)))
    return np.mean(found)

  with jax.enable_x64(True):
    for given, padding in ((None, window // 2), (0, 0)):
      np.testing.assert_allclose(image.ssim(a, b, given, window), by_hand(padding), rtol=1e-6)


@pytest.mark.parametrize('fields, said', [
    (dict(window=8), 'window=8; windows of SSIM have an odd'), (dict(window=0), 'window=0'),
    (dict(padding=0), '8x9 with 0 zeros around hold no window of 11x11'),
    (dict(padding=1), '8x9 with 1 zeros around hold no window of 11x11')])
def test_windows_that_do_not_fit_are_refused(fields, said):
  with pytest.raises(ValueError, match=said):
    image.ssim(jnp.zeros((1, 8, 9, 3)), jnp.zeros((1, 8, 9, 3)), **fields)


# --- distances between taps ---


def taps(seed, channels, rows=2, side=4):
  rng = np.random.default_rng(seed)
  return rng.standard_normal((rows, side, side, channels)).astype(np.float32)


DISTANCES = {name: SIMILARITIES[name].loss for name in (
    'mse', 'channel_means', 'normalised', 'attention', 'cka_pixel')}


@pytest.mark.parametrize('name', DISTANCES)
def test_a_distance_to_oneself_is_nothing(name):
  x, distance = taps(0, 5), jax.jit(DISTANCES[name])
  np.testing.assert_allclose(distance(x, x), 0, atol=2e-6)
  assert distance(x, taps(1, 5) + 1) > .01
  slope = np.asarray(jax.jit(jax.grad(distance))(x, taps(1, 5)))
  assert np.isfinite(slope).all() and np.abs(slope).max() > 0


@pytest.mark.parametrize('name', ['attention', 'cka_pixel', 'normalised'])
def test_scale_says_nothing_of_them(name):
  distance, x, y = jax.jit(DISTANCES[name]), taps(0, 5), taps(1, 5)
  np.testing.assert_allclose(distance(3 * x, y), distance(x, 7 * y), rtol=1e-4)
  assert np.isfinite(jax.jit(jax.grad(distance))(0 * x, y)).all()


def test_attention_by_hand():
  """Two pixels: squares (1, 4) and (9, 16) of one and two channels."""
  x = jnp.array([1., 2.]).reshape(1, 1, 2, 1)
  y = jnp.array([[3., 3.], [4., 4.]]).reshape(1, 1, 2, 2)
  a, b = np.array([1, 4]) / np.sqrt(17), np.array([9, 16]) / np.sqrt(337)
  np.testing.assert_allclose(similarity.attention(x, y), ((a - b) ** 2).sum(), rtol=1e-5)
  np.testing.assert_allclose(similarity.attention_cosine(x, y), a @ b, rtol=1e-6)


def test_normalised_by_hand():
  """Directions (1, 0) and (0, 1) at one pixel, equal ones at the other."""
  x = jnp.array([[2., 0.], [3., 4.]]).reshape(1, 1, 2, 2)
  y = jnp.array([[0., 5.], [6., 8.]]).reshape(1, 1, 2, 2)
  np.testing.assert_allclose(similarity.normalised(x, y), (2 + 0) / 2, rtol=1e-6)


def test_cka_is_its_definition():
  """The unbiased estimate written out with n x n matrices."""
  x, y = taps(0, 5), taps(1, 3) + taps(0, 3)

  def hsic(k, l_):
    n = len(k)
    k, l_ = k - np.diag(np.diag(k)), l_ - np.diag(np.diag(l_))
    return (np.trace(k @ l_) + k.sum() * l_.sum() / ((n - 1) * (n - 2))
            - 2 / (n - 2) * (k @ l_).sum()) / (n * (n - 3))

  a, b = (np.asarray(z, np.float64).reshape(-1, z.shape[-1]) for z in (x, y))
  k, l_ = a @ a.T, b @ b.T
  expected = 1 - hsic(k, l_) / np.sqrt(hsic(k, k) * hsic(l_, l_))
  np.testing.assert_allclose(similarity.cka_pixel(x, y), expected, rtol=1e-5)
  turn = np.linalg.qr(np.random.default_rng(2).standard_normal((5, 5)))[0].astype(np.float32)
  np.testing.assert_allclose(similarity.cka_pixel(x @ turn, y), expected, rtol=1e-4)


def test_cka_does_not_mistake_many_channels_for_agreement():
  """Noise of more channels than positions: the biased estimate says 'alike', this one does not."""
  cka = jax.jit(similarity.cka_pixel)
  distances = [float(cka(taps(2 * s, 200), taps(2 * s + 1, 200))) for s in range(5)]
  assert abs(np.mean(distances) - 1) < .1
  with pytest.raises(ValueError, match='taps of one size'):
    similarity.cka_pixel(taps(0, 3), taps(0, 3, side=2))


# --- adversarial losses ---


@pytest.mark.parametrize('name', ['ns', 'hinge', 'lsgan', 'wgan'])
def test_the_sides_make_the_loss(name):
  real, fake = jnp.linspace(-2, 1, 7), jnp.linspace(-1, 3, 7)
  np.testing.assert_allclose(sum(gan.sides(name, real, fake)),
                             getattr(gan, f'{name}_d')(real, fake), rtol=1e-6)
  assert gan.generator_loss(name, fake) == getattr(gan, f'{name}_g')(fake)


def test_relative_losses_by_hand():
  real, fake = jnp.array([1., 3.]), jnp.array([0., 4.])
  log1p = lambda x: np.log1p(np.exp(x))
  paired = (log1p(-1) + log1p(1)) / 2
  np.testing.assert_allclose(gan.sides('rp', real, fake), (paired, paired), rtol=1e-6)
  np.testing.assert_allclose(gan.generator_loss('rp', fake, real), (log1p(1) + log1p(-1)) / 2,
                             rtol=1e-6)
  # Means 2 and 2.
  np.testing.assert_allclose(gan.sides('ra', real, fake), (
      (log1p(1) + log1p(-1)) / 2, (log1p(-2) + log1p(2)) / 2), rtol=1e-6)
  np.testing.assert_allclose(gan.generator_loss('ra', fake, real), (
      log1p(2) + log1p(-2)) / 2 + (log1p(-1) + log1p(1)) / 2, rtol=1e-6)


def test_a_slope_penalty_is_half_the_squared_slope():
  """critic = 3 x + 4 y of a pixel's two channels, on a map of equal logits."""
  critic = lambda x: jnp.broadcast_to((x * jnp.array([3., 4.]).reshape(1, 1, 1, 2)).sum(
      (1, 2, 3)).reshape(-1, 1, 1, 1), (len(x), 5, 5, 1))
  np.testing.assert_allclose(gan.slope_penalty(critic, jnp.ones((2, 1, 1, 2))), 25 / 2, rtol=1e-6)


def test_relative_averages_are_those_of_the_other_side():
  """Means that differ, so that neither stands for the other."""
  real, fake = jnp.array([1., 3.]), jnp.array([0., 6.])  # means 2 and 3
  rise = lambda *x: np.log1p(np.exp(x)).mean()
  np.testing.assert_allclose(gan.sides('ra', real, fake), (rise(3 - 1, 3 - 3), rise(0 - 2, 6 - 2)),
                             rtol=1e-6)
  np.testing.assert_allclose(gan.generator_loss('ra', fake, real),
                             rise(2 - 0, 2 - 6) + rise(1 - 3, 3 - 3), rtol=1e-6)
