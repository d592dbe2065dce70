"""Hand-worked losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan_compress.losses import distill, gan, image

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


def test_clipping():
  clipped = gan.clip({'w': jnp.array([-3., .005, 3.])}, 0.01)['w']
  np.testing.assert_allclose(clipped, [-.01, .005, .01], rtol=1e-6)


def test_mse_reductions_differ_by_the_number_of_pixels():
  a, b = jnp.zeros((2, 3, 5, 1)), jnp.full((2, 3, 5, 1), 2.)
  assert float(image.mse(a, b, 'mean')) == 4
  assert float(image.mse(a, b)) == 4 * 15
  with pytest.raises(ValueError, match='sum_pixels, mean'):
    image.mse(a, b, 'sum')


# --- distances between taps ---


def taps(seed, channels, rows=2, side=4):
  rng = np.random.default_rng(seed)
  return rng.standard_normal((rows, side, side, channels)).astype(np.float32)


@pytest.mark.parametrize('name', distill.DISTANCES)
def test_a_distance_to_oneself_is_nothing(name):
  x, distance = taps(0, 5), jax.jit(distill.DISTANCES[name])
  np.testing.assert_allclose(distance(x, x), 0, atol=2e-6)
  assert distance(x, taps(1, 5) + 1) > .01
  slope = np.asarray(jax.jit(jax.grad(distance))(x, taps(1, 5)))
  assert np.isfinite(slope).all() and np.abs(slope).max() > 0


@pytest.mark.parametrize('name', ['attention', 'cka', 'normalised'])
def test_scale_says_nothing_of_them(name):
  distance, x, y = jax.jit(distill.DISTANCES[name]), taps(0, 5), taps(1, 5)
  np.testing.assert_allclose(distance(3 * x, y), distance(x, 7 * y), rtol=1e-4)
  assert np.isfinite(jax.jit(jax.grad(distance))(0 * x, y)).all()


def test_attention_by_hand():
  """Two pixels: squares (1, 4) and (9, 16) of one and two channels."""
  x = jnp.array([1., 2.]).reshape(1, 1, 2, 1)
  y = jnp.array([[3., 3.], [4., 4.]]).reshape(1, 1, 2, 2)
  a, b = np.array([1, 4]) / np.sqrt(17), np.array([9, 16]) / np.sqrt(337)
  np.testing.assert_allclose(distill.attention(x, y), ((a - b) ** 2).sum(), rtol=1e-5)
  np.testing.assert_allclose(distill.similarity(x, y), a @ b, rtol=1e-6)


def test_normalised_by_hand():
  """Directions (1, 0) and (0, 1) at one pixel, equal ones at the other."""
  x = jnp.array([[2., 0.], [3., 4.]]).reshape(1, 1, 2, 2)
  y = jnp.array([[0., 5.], [6., 8.]]).reshape(1, 1, 2, 2)
  np.testing.assert_allclose(distill.normalised(x, y), (2 + 0) / 2, rtol=1e-6)


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
  np.testing.assert_allclose(distill.cka(x, y), expected, rtol=1e-5)
  turn = np.linalg.qr(np.random.default_rng(2).standard_normal((5, 5)))[0].astype(np.float32)
  np.testing.assert_allclose(distill.cka(x @ turn, y), expected, rtol=1e-4)


def test_cka_does_not_mistake_many_channels_for_agreement():
  """Noise of more channels than positions: the biased estimate says 'alike', this one does not."""
  cka = jax.jit(distill.cka)
  distances = [float(cka(taps(2 * s, 200), taps(2 * s + 1, 200))) for s in range(5)]
  assert abs(np.mean(distances) - 1) < .1
  with pytest.raises(ValueError, match='taps of one size'):
    distill.cka(taps(0, 3), taps(0, 3, side=2))


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
