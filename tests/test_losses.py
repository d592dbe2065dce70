"""Hand-worked losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan_compress.losses import gan, image

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
