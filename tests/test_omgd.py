"""Laws of online distillation: who learns from whom, when, and on how many devices. The numbers of
the paper's code are in test_trajectories.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgan_compress import core, data, methods, nn, train
from jaxgan_compress.parallel import build_mesh, parallelize, put_state
from tests.conftest import largest_difference

LOOK = nn.VGG(16, layers=('relu1_2', 'relu2_2'))
STUDENT, WIDE = nn.mobile_resnet(2, 1), nn.mobile_resnet(4, 1)
DEEP = nn.resnet(2, 2, dropout=0.)
DISC = functools.partial(nn.PatchGAN, 2, layers=1, inputs=6, heads=('wide', 'deep'))


def small_omgd(tx, **fields):
  return methods.OMGD(**{
      'student': STUDENT, 'wide': WIDE, 'deep': DEEP, 'disc': DISC(shared=1), 'tx': tx,
      'look': LOOK, 'taps': ('stem', 'block1'), 'weights': methods.Weights(channel=10.), **fields})


@pytest.fixture(scope='module')
def batch():
  source = data.samples('colorize', size=32, count=8)
  stacked = {name: np.stack([source[i][name] for i in range(8)]) for name in source[0]}
  return {name: np.asarray(x) for name, x in core.normalise(
      {name: jnp.asarray(x) for name, x in stacked.items()}).items()}


@pytest.fixture(scope='module')
def method(sgd):
  return small_omgd(sgd)


@pytest.fixture(scope='module')
def state(method, batch):
  return jax.device_get(method.init(jax.random.key(0), batch))


def test_teaching_graph(method, state, batch):
  """Each loss moves exactly its own learners."""
  shown = {'disc': {'disc'}, 'wide': {'wide'}, 'deep': {'deep'}, 'student': {'student', 'adapters'}}

  @jax.jit
  def every_gradient(params):
    return {loss: jax.grad(lambda p, loss=loss: method.losses(p, state, batch)[0][loss])(params)
            for loss in shown}

  for loss, grads in every_gradient(state.params).items():
    assert {name for name, g in grads.items() if optax.tree.norm(g) > 0} == shown[loss]


@pytest.mark.parametrize('step, moving', [
    (0, {'student', 'adapters'}), (1, {'student', 'adapters', 'wide', 'deep', 'disc'}),
    (2, {'student', 'adapters'})])
def test_teachers_move_when_they_are_due(sgd, state, batch, step, moving):
  method = small_omgd(sgd, n_dis=2)
  before = state.replace(step=jnp.int32(step))
  after, logs = jax.jit(method.step)(before, batch)
  assert {name for name in before.nets if largest_difference(
      before.nets[name].params, after.nets[name].params)} == moving
  assert all((logs[f'grad_{name}'] > 0) == (name in moving) for name in before.nets)
  assert largest_difference(before.frozen, after.frozen) == 0 and int(after.step) == step + 1


def two_steps(state, batch, devices, via):
  # Small steps: L1 terms have kinks, at which rounding decides where a large one goes.
  method = small_omgd(optax.sgd(1e-4))
  step = parallelize(lambda s, b, axes: method.step(s, b, axes), build_mesh(devices), via=via,
                     donate=False)
  found = put_state(state, step.mesh)
  for _ in range(2):
    found, logs = step(found, batch)
  return jax.device_get(found), jax.device_get(logs)


@pytest.fixture(scope='module')
def oracle(state, batch):
  return two_steps(state, batch, 1, 'vmap')


@pytest.mark.parametrize('devices, via', [(2, 'pmap'), (4, 'shard_map')])
def test_devices_change_nothing(state, batch, oracle, devices, via):
  """Batch statistics of the adapters and the summed total variation among it."""
  ours, logs = two_steps(state, batch, devices, via)
  assert largest_difference(ours, oracle[0]) < 1e-5
  for name, value in oracle[1].items():
    np.testing.assert_allclose(logs[name], value, rtol=1e-4, atol=1e-6)


def test_a_single_teacher_will_do(sgd, batch):
  method = small_omgd(sgd, deep=None, weights=methods.Weights())
  state = method.init(jax.random.key(0), batch)
  assert set(state.nets) == {'student', 'wide', 'disc'}
  _, logs = jax.jit(method.step)(state, batch)
  assert 'student_tv_wide' in logs and not any('deep' in name for name in logs)


def test_it_learns_and_stops_and_goes_on_to_the_same_bits(batch):
  source = data.samples('colorize', size=32)
  pipeline = data.Pipeline(source, batch=4)
  method = small_omgd(optax.adam(2e-3, b1=0.5), deep=None)
  first = core.normalise(pipeline[0])

  def go(state, steps):
    state, logs = list(train.fit(method, state, pipeline, steps=steps, every=steps))[-1]
    return jax.device_get(state), logs

  whole, logs = go(method.init(jax.random.key(0), first), 12)
  half, early = go(method.init(jax.random.key(0), first), 4)
  rest, _ = go(half, 12)
  assert largest_difference(whole, rest) == 0
  assert logs['wide_recon'] < early['wide_recon']
  drawn = method.generators(whole)['student'](jnp.asarray(batch['source']))
  assert drawn.shape == batch['target'].shape


@pytest.mark.parametrize('fields, message', [
    (dict(wide=None, deep=None), 'wide, deep or both'), (dict(n_dis=0), 'n_dis=0; at least 1'),
    (dict(deep=nn.resnet(2, 2, dropout=.5)), 'deep has dropout=0.5; OMGD trains without'),
    (dict(loss='wgan'), 'one of hinge, lsgan, ns'),
    (dict(disc=nn.PatchGAN(2, inputs=6)), 'no head for deep, wide'),
    (dict(wide=None), 'compares taps with the wide'), (dict(taps=()), 'give both, or channel=0')])
def test_contradictions_are_refused(sgd, fields, message):
  with pytest.raises(ValueError, match=message):
    small_omgd(sgd, **fields)


def test_an_unknown_tap_is_named(sgd, batch):
  with pytest.raises(ValueError, match='student has no tap block7; it has block1, stem'):
    small_omgd(sgd, taps=('block7',)).init(jax.random.key(0), batch)
