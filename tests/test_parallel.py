"""One device equals many; the ways of mapping are the same; what cannot be seen is caught."""

import dataclasses
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan_compress import core, cpu, nn
from jaxgan_compress.axes import Axes
from jaxgan_compress.parallel import build_mesh, parallelize, put_state, replica_disagreement
from tests import test_cat as cat
from tests import test_omgd as omgd
from tests.conftest import largest_difference, small_kd


def train(method, given, images, *, devices, via, replicas=None, steps=3, batch=8):
  run = parallelize(lambda s, b, axes: method.step(s, core.normalise(b), axes),
                    build_mesh(devices), replicas=replicas, via=via)
  state = put_state(method.init(jax.random.key(0), {}, given), run.mesh)
  logs = []
  for i in range(steps):
    state, each = run(state, {'target': np.roll(images, -batch * i, 0)[:batch]})
    logs.append(jax.device_get(each))
  return jax.device_get(state), logs


@pytest.fixture(scope='module')
def joint(sgd):
  return small_kd(sgd, adv_weight=.5, distill_weight=.01, n_critic=2, real_from='both')


@pytest.fixture(scope='module')
def oracle(joint, given, images):
  """One replica on one device: the plain step."""
  return train(joint, given, images, devices=1, via='vmap')


@pytest.mark.parametrize('devices', [1, 2, 4])
@pytest.mark.parametrize('via', ['pmap', 'shard_map'])
def test_any_number_of_devices_gives_the_same_losses_and_parameters(
    joint, given, images, oracle, devices, via):
  state, logs = train(joint, given, images, devices=devices, via=via)
  assert largest_difference(state, oracle[0]) < 1e-5
  for ours, theirs in zip(logs, oracle[1], strict=True):
    for name in theirs:
      np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-6)


def test_virtual_replicas_do_not_depend_on_the_device_count(joint, given, images):
  runs = [train(joint, given, images, devices=devices, via='pmap', replicas=4)
          for devices in (1, 2, 4)]
  for state, _ in runs[1:]:
    assert largest_difference(state, runs[0][0]) < 1e-5


@pytest.mark.parametrize('replicas', [4, 8])
def test_pmap_and_shard_map_agree_bit_for_bit(joint, given, images, replicas):
  one, two = (train(joint, given, images, devices=4, via=via, replicas=replicas, steps=5, batch=16)
              for via in ('pmap', 'shard_map'))
  assert largest_difference(one, two) == 0


def quadratic(state, batch, axes):
  """loss = (w - mean of the batch)^2 / 2, whose gradient is w - mean."""
  w = state.nets['w'].params
  grad = jax.grad(lambda w: jnp.square(w - batch['x']).mean() / 2)(w)
  moved = core.Net(w - axes.mean(grad))
  return state.replace(nets={'w': moved}).tick(), {'grad': grad}


@pytest.mark.parametrize('via', ['pmap', 'shard_map', 'vmap'])
def test_gradients_are_averaged_and_not_summed(via):
  run = parallelize(quadratic, build_mesh(4), via=via)
  state = core.TrainState(jnp.int32(0), jax.random.key(0), {'w': core.Net(jnp.float32(5))})
  if via != 'vmap':
    state = put_state(state, run.mesh)
  state, logs = run(state, {'x': np.arange(8, dtype=np.float32)})
  assert float(logs['grad']) == pytest.approx(5 - 3.5)
  assert float(state.nets['w'].params) == pytest.approx(3.5)


@pytest.mark.parametrize('via', ['pmap', 'shard_map', 'vmap'])
def test_a_forgotten_mean_cannot_ship(via):
  def forgets(state, batch, axes):
    w = state.nets['w'].params
    return state.replace(nets={'w': core.Net(w - (w - batch['x'].mean()))}), {}

  run = parallelize(forgets, build_mesh(2), via=via)
  state = core.TrainState(jnp.int32(0), jax.random.key(0), {'w': core.Net(jnp.float32(5))})
  with pytest.raises(ValueError, match='vmap has mapped output'):
    run(put_state(state, run.mesh) if via != 'vmap' else state,
        {'x': np.arange(8, dtype=np.float32)})
  assert replica_disagreement(forgets, state, {'x': jnp.arange(8.)}) == [".nets['w'].params"]
  assert replica_disagreement(quadratic, state, {'x': jnp.arange(8.)}) == []


@pytest.mark.parametrize('via', ['pmap', 'shard_map'])
def test_donation_is_real(joint, given, images, via):
  run = parallelize(lambda s, b, axes: joint.step(s, core.normalise(b), axes), build_mesh(2),
                    via=via)
  state = put_state(joint.init(jax.random.key(0), {}, given), run.mesh)
  live = []
  for _ in range(4):
    old = state
    state, _ = run(state, {'target': images[:8]})
    assert jax.tree.leaves(old.nets)[0].is_deleted()
    del old
    live.append(sum(x.nbytes for x in jax.live_arrays()))
  assert live[-1] <= live[1]


def test_memory_is_private_to_a_replica():
  def step(state, batch, axes):
    return state.replace(memory=state.memory + batch['x'].sum()).tick(), {}

  for via in ('pmap', 'shard_map', 'vmap'):
    run = parallelize(step, build_mesh(2), replicas=4, via=via)
    state = core.TrainState(jnp.int32(0), jax.random.key(0), {}, memory=jnp.zeros(4))
    state = put_state(state, run.mesh) if via != 'vmap' else state
    for _ in range(2):
      state, _ = run(state, {'x': np.arange(8, dtype=np.float32)})
    np.testing.assert_array_equal(state.memory, [2, 10, 18, 26])
    assert int(state.step) == 2


def test_rows_draw_the_same_numbers_on_any_number_of_replicas():
  key = jax.random.key(3)
  alone = Axes().draw(jax.random.normal, key, (8, 5))
  assert len(np.unique(alone)) == 40
  shared = jax.vmap(lambda _: Axes(inner=('r',)).draw(jax.random.normal, key, (2, 5)),
                    axis_name='r', axis_size=4, in_axes=None)(0)
  np.testing.assert_array_equal(shared.reshape(8, 5), alone)


def test_impossible_divisions_say_what_is_possible():
  with pytest.raises(ValueError, match='batch 6 does not divide over 4 replicas; use 4 or 8'):
    parallelize(quadratic, build_mesh(4)).place({'x': np.zeros(6)})
  with pytest.raises(ValueError, match='3 replicas do not divide over 2 devices'):
    parallelize(quadratic, build_mesh(2), replicas=3)
  with pytest.raises(ValueError, match='9 devices were asked for and 4 cpu devices are here'):
    build_mesh(9)
  with pytest.raises(ValueError, match='pmap, shard_map, vmap'):
    parallelize(quadratic, via='xmap')


def small_methods(tx):
  """A method of every kind with a state and a batch of four."""
  pairs, textures, labels = (omgd.images_of(task, 4) for task in (
      'colorize', 'grass2gravel', 'shapes'))
  # To the first layers, which see a pixel of each, four label maps are one: without variance a
  # batch norm is rounding times 300, and the slope of a leaky ReLU hangs on its sign.
  noise = np.random.default_rng(0).uniform(0, .5, labels['source'].shape)
  labels = {**labels, 'source': labels['source'] + noise.astype(np.float32)}
  yield 'omgd', omgd.small_omgd(tx, lessons=omgd.UNPERCEIVED), pairs, None
  yield 'omgd_cycle', omgd.small_unpaired(tx, lessons=omgd.UNPERCEIVED), textures, None
  yield 'pix2pix', omgd.small_pix2pix(tx), pairs, None
  yield 'gaugan', dataclasses.replace(omgd.small_gaugan(tx), feature=0.), labels, None
  yield 'cat', cat.small_cat(tx), {name: x[..., :3] for name, x in textures.items()}, {
      'teacher': core.Net(nn.initialise(cat.SMALL, jax.random.key(3))['params'])}


@pytest.fixture(scope='module')
def kinds(sgd):
  return {name: (method, method.init(jax.random.key(0), batch, taught), batch)
          for name, method, batch, taught in small_methods(sgd)}


@pytest.mark.parametrize('kind', ['omgd', 'omgd_cycle', 'pix2pix', 'gaugan', 'cat'])
def test_every_method_agrees_with_itself(kinds, kind):
  """pmap and shard_map to the bit, one device and two, and all replicas among each other."""
  method, state, batch = kinds[kind]
  step, found = lambda s, b, axes: method.step(s, b, axes), []
  for via, devices in (('pmap', 2), ('shard_map', 2), ('vmap', 1)):
    run = parallelize(step, build_mesh(devices), replicas=2, via=via, donate=False)
    found.append(jax.device_get(run(run.put(state), batch)))
  assert largest_difference(found[0][0], found[1][0]) == 0
  assert largest_difference(found[0][0], found[2][0]) < 1e-5
  for name, value in found[0][1].items():
    assert value == found[1][1][name], name
    np.testing.assert_allclose(value, found[2][1][name], rtol=1e-5, atol=1e-6, err_msg=name)
  spread_out = put_state(state, build_mesh(2), 2)
  assert replica_disagreement(method.step, jax.device_get(spread_out), batch) == []


@pytest.fixture
def lowered(monkeypatch):
  """Steps that may be traced inside another program: JAX takes no compiler options there."""
  monkeypatch.setattr(cpu, 'compiler_options', lambda: None)


def test_devices_may_share_the_height_of_an_image(lowered, kinds):
  """Two replicas, each on two devices; the halves talk to each other."""
  method, state, batch = kinds['pix2pix']
  step = lambda s, b, axes: method.step(s, b, axes)
  one = parallelize(step, build_mesh(1), replicas=2, via='vmap', donate=False)
  expected, _ = one(state, batch)
  run = parallelize(step, build_mesh(4, space=2), via='shard_map', donate=False)
  placed = run.place(batch)
  b, h, w, c = batch['source'].shape
  assert {x.data.shape for x in placed['source'].addressable_shards} == {(b // 2, h // 2, w, c)}
  program = jax.jit(run.compiled).lower(run.put(state), placed).compile()
  assert 'collective-permute' in program.as_text()
  found, _ = program(run.put(state), placed)
  assert largest_difference(jax.device_get(found.params), jax.device_get(expected.params)) < 1e-5


@pytest.mark.parametrize('norm', ['instance', 'batch'])
def test_only_batch_norm_exchanges_before_the_gradients(lowered, norm):
  net = nn.resnet(2, 1, norm=norm, dropout=0., form='plain')
  variables = nn.initialise(net, jax.random.key(0))

  def step(state, batch, axes):
    def loss(params):
      drawn, _ = net.apply({**variables, 'params': params}, batch['x'], train=True, axes=axes,
                           mutable=['batch_stats'])
      return jnp.square(drawn[0]).mean()

    grads = axes.mean(jax.grad(loss)(state.nets['g'].params))
    moved = jax.tree.map(lambda p, g: p - g, state.nets['g'].params, grads)
    return state.replace(nets={'g': core.Net(moved)}).tick(), {}

  run = parallelize(step, build_mesh(2), via='shard_map', donate=False)
  state = run.put(core.TrainState(jnp.int32(0), jax.random.key(0), {
      'g': core.Net(variables['params'])}))
  batch = run.place({'x': np.zeros((4, 16, 16, 3), np.float32)})
  exchanges = str(jax.make_jaxpr(run.compiled)(state, batch)).count(" psum[axes=('data',)")
  # One for each gradient, which XLA sends as one; batch norm has its statistics besides.
  gradients = len(jax.tree.leaves(variables['params']))
  assert exchanges == gradients if norm == 'instance' else exchanges > gradients


def processes(count, devices, out):
  """Runs `one_of_several` in so many processes; what each of them came to."""
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    port = s.getsockname()[1]
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': str(devices),
                 'XLA_FLAGS': '--xla_backend_optimization_level=0'}
  running = [subprocess.Popen(
      [sys.executable, '-m', 'tests.one_of_several', str(port), str(count), str(i),
       str(out / f'{count}_{i}.npz')], env=environment, cwd=Path(__file__).parents[1])
      for i in range(count)]
  assert [process.wait(timeout=240) for process in running] == [0] * count
  return [dict(np.load(out / f'{count}_{i}.npz')) for i in range(count)]


def test_two_processes_train_and_measure_as_one_does(tmp_path):
  """Each loads its own share of every batch; both hold the same networks afterwards, and the
  measures of all images."""
  alone, = processes(1, 2, tmp_path)
  first, second = processes(2, 1, tmp_path)
  assert alone['devices'] == first['devices'] == second['devices'] == 2
  assert {'measured_psnr', 'measured_fd', 'measured_mse'} <= alone.keys()
  for name, expected in alone.items():
    np.testing.assert_array_equal(first[name], second[name])
    np.testing.assert_allclose(first[name], expected, rtol=1e-5, atol=1e-6)
