"""What is said about the terms of a loss, and the rates of published runs."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgan_compress.train import Terms, schedules

FINE = {'student': {'loss': 3., 'ssim': 1., 'tv': 2.},
        'student_ba': {'loss': 0., 'ssim': 0., 'tv': 0.}, 'grad_norm': {'student': 1e-9},
        'seconds': 1.}


def with_term(name, value):
  return {**FINE, 'student': {**FINE['student'], name: value}}


def said(*logs):
  terms = Terms()
  return [text for each in logs for text in terms.see(each)]


def test_balanced_and_resting_terms_are_silent():
  assert said(*[FINE] * 9) == []


def test_a_term_that_vanishes_is_told_once_and_only_if_it_lasts():
  bad = with_term('tv', 1e-6)
  assert said(*[bad, bad, FINE] * 5) == []
  told = sorted(said(*[bad] * 9), reverse=True)
  assert len(told) == 2  # what is left then dominates
  assert 'student/tv vanishes: 1e-06 of the terms of student' in told[0]
  assert 'student/ssim dominates: 100.00%' in told[1]


def test_a_term_that_is_off_is_no_worry():
  assert not any('vanishes' in text for text in said(*[with_term('tv', 0.)] * 5))


def test_the_terms_of_a_reverse_student_are_its_own():
  bad = {**FINE, 'student_ba': {'loss': 2., 'ssim': 2., 'tv': 1e-9}}
  assert any('student_ba/tv vanishes' in text and 'of student_ba;' in text
             for text in said(*[bad] * 5))


def test_a_discriminator_that_won_is_told():
  start = {'disc': {'loss': 1., 'real_wide': 1., 'fake_wide': 1.}}
  won = {'disc': {'loss': .01, 'real_wide': .01, 'fake_wide': .01}}
  told = said(start, *[won] * 5)
  assert len(told) == 1 and 'disc has won: its loss is 1.0% of the first' in told[0]
  assert said(start, *[{'disc': {**won['disc'], 'fake_wide': .5}}] * 5) == []


@pytest.mark.parametrize('constant, decay, epoch, rate', [
    (500, 500, 500, 2e-4), (500, 500, 501, 1.9960080e-4), (500, 500, 1000, 3.992016e-7),
    (500, 750, 1250, 2.663116e-7), (500, 1000, 1500, 1.998002e-7), (100, 100, 200, 1.980198e-6)])
def test_rates_of_published_epochs(constant, decay, epoch, rate):
  """The values that CAT's specification lists."""
  schedule = schedules.linear_epochs(2e-4, 7, constant, decay)
  for count in (7 * (epoch - 1), 7 * epoch - 1):  # the first and the last update of the epoch
    np.testing.assert_allclose(schedule(count), rate, rtol=1e-6)
  np.testing.assert_allclose(schedule(10 ** 9), schedule(7 * (constant + decay)), rtol=1e-6)


def test_a_students_rate_follows_its_teachers_epochs():
  """Blocks after epochs 10, 20, ..: the student's first block has the rate of epoch 10."""
  teacher = schedules.linear_epochs(2e-4, 1334, 100, 100)
  student = schedules.linear_epochs(2e-4, 4 * 13340, 100, 100, stride=10)
  for block, epoch in ((0, 10), (9, 100), (10, 110), (19, 200)):
    np.testing.assert_allclose(student(block * 4 * 13340), teacher(1334 * epoch - 1), rtol=1e-6)
  with pytest.raises(ValueError, match='epoch=0, .*at least 1'):
    schedules.linear_epochs(1., 0, 1, 1)


def test_a_rate_works_inside_an_optimiser():
  tx, weight = optax.sgd(schedules.linear_epochs(1., 1, 1, 1)), jnp.zeros(())
  state, rates = tx.init(weight), []
  for _ in range(3):
    update, state = tx.update(weight + 1, state)
    rates.append(-float(update))
  np.testing.assert_allclose(rates, [1, .5, .5])


def test_three_looks_in_a_row_are_enough():
  bad = with_term('tv', 1e-6)
  assert said(*[bad] * 2) == [] and len(said(*[bad] * 3)) == 2
