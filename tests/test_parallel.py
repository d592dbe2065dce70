"""One device equals many; the ways of mapping are the same; what cannot be seen is caught."""

import dataclasses
import functools
import socket
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgan_compress import core, methods, nn
from jaxgan_compress.core import Axes, xla
from jaxgan_compress.parallel import build_mesh, parallelize, put_state
from tests import forked, one_of_several
from tests import test_cat as cat
from tests import test_omgd as omgd
from tests.conftest import largest_difference, quick, small_kd
from tests.replicas import replica_disagreement


@pytest.fixture(scope='module')
def trained(sgd, init_from, images):
  """(state, logs of three steps) of the joint scheme on so many devices; each is run once."""
  method = small_kd(sgd, adv_weight=.5, distill_weight=.01, disc_steps=2, real_from='both',
                    augment=methods.DiffAugment(('cutout',)))
  start = method.init(jax.random.key(0), {}, init_from)

  @functools.cache
  def train(devices, via, replicas):
    run = parallelize(lambda s, b, axes: method.step(s, core.normalise(b), axes),
                      build_mesh(devices), replicas=replicas, via=via)
    state, logs = put_state(start, run.mesh), []
    for i in range(3):
      state, each = run(state, {'target': np.roll(images, -8 * i, 0)[:8]})
      logs.append(core.flatten_logs(jax.device_get(each)))
    return jax.device_get(state), logs

  return lambda devices, via, replicas=None: train(devices, via, replicas or devices)


@pytest.mark.parametrize('via, devices', [
    pytest.param('pmap', 1, marks=pytest.mark.gpu),
    pytest.param('shard_map', 1, marks=pytest.mark.gpu),
    ('pmap', 2), ('pmap', 4), ('shard_map', 2), ('shard_map', 4)])
def test_any_number_of_devices_gives_the_same_losses_and_parameters(trained, devices, via):
  """As one replica on one device: the plain step."""
  (state, logs), oracle = trained(devices, via), trained(1, 'vmap')
  assert largest_difference(state, oracle[0]) < 1e-5
  for ours, theirs in zip(logs, oracle[1], strict=True):
    for name in theirs:
      np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-6)


def test_virtual_replicas_do_not_depend_on_the_device_count(trained):
  for devices in (1, 2):
    found = trained(devices, 'pmap', replicas=4)
    assert largest_difference(found[0], trained(4, 'pmap')[0]) < 1e-5


@pytest.mark.parametrize('devices', [4, 2])
def test_pmap_and_shard_map_agree_bit_for_bit(trained, devices):
  """With one replica a device, and with two."""
  one, two = (trained(devices, via, replicas=4) for via in ('pmap', 'shard_map'))
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


@pytest.fixture
def for_tpus(monkeypatch):
  """Steps as TPUs get them, on this machine."""
  monkeypatch.setattr(xla, 'compiler_options', dict)  # which it does not know
  with xla.building_for('tpu'):
    yield


@pytest.mark.parametrize('devices', [1, 2])
@pytest.mark.parametrize('via', ['pmap', 'shard_map'])
def test_steps_for_tpus_have_no_virtual_replica_and_give_the_same(via, devices, for_tpus):
  tx = {'w': optax.sgd(1e-3)}  # which shows how large a gradient is

  def step(state, batch, axes):
    seen_axes.append(axes)
    noise = axes.sample(jax.random.normal, state.key('noise'), batch['x'].shape)
    every = axes.gather(batch['x'] + noise) + axes.index()
    grad = state.nets['w'].params * (batch['x'].sum() + every.std() + axes.count)
    state, logs = core.advance(state, {'w': grad}, tx, axes)
    seen = state.replica_state + batch['x'].sum() + noise.sum()
    return state.replace(replica_state=seen), {**logs, 'seen': seen.sum()}

  def run(via, mesh):
    seen_axes.clear()
    start = core.create(jax.random.key(0), {'w': ({'params': jnp.ones((2, 128))}, tx['w'])})
    start = start.replace(replica_state=jnp.zeros((devices, 3)))
    run = parallelize(step, build_mesh(mesh), replicas=devices, via=via)
    state, logs = run(run.put(start), {'x': np.arange(8, dtype=np.float32)})
    return jax.device_get((state.nets, state.replica_state, logs)), seen_axes[-1]

  seen_axes = []
  ours, compiled = run(via, devices)
  with xla.building_for('cpu'):
    reference, virtual = run('vmap', 1)
  assert compiled == Axes(('data',) if devices > 1 else ()) and virtual == Axes((), ('replica',))
  assert largest_difference(ours, reference) < 1e-5


def test_for_tpus_gradients_lie_as_parameters_do(for_tpus):
  tx = {'w': optax.sgd(1.)}
  params = {'wide': jnp.ones((2, 3, 128)), 'narrow': jnp.ones((2, 127)), 'bias': jnp.ones(128)}
  state = core.create(jax.random.key(0), {'w': ({'params': params}, tx['w'])})
  step = lambda: str(jax.make_jaxpr(lambda s: core.advance(s, s.params, tx)[0].params)(state))
  assert step().count('Layout(') == step().count('Layout(major_to_minor=(0, 1, 2)') == 1
  with xla.building_for('cpu'):
    assert 'Layout' not in step()


@pytest.mark.parametrize('via', ['pmap', 'shard_map'])
def test_a_forgotten_mean_cannot_ship_for_tpus(via, for_tpus):
  test_a_forgotten_mean_cannot_ship(via)


@pytest.mark.parametrize('via', ['pmap', 'shard_map'])
def test_donation_is_real(via):
  tx = {'w': optax.adam(1.)}

  def step(state, batch, axes):
    grad = {'w': jnp.full_like(state.nets['w'].params, batch['x'].mean())}
    return core.advance(state, grad, tx, axes)

  run = parallelize(step, build_mesh(2), via=via)
  state = put_state(core.create(jax.random.key(0), {
      'w': ({'params': jnp.zeros((64, 64))}, tx['w'])}), run.mesh)
  live = []
  for _ in range(4):
    old = state
    state, _ = run(state, {'x': np.arange(8, dtype=np.float32)})
    assert all(x.is_deleted() for x in jax.tree.leaves(old.nets))
    del old
    live.append(sum(x.nbytes for x in jax.live_arrays()))
  assert live[-1] <= live[1]


def test_memory_is_private_to_a_replica():
  def step(state, batch, axes):
    return state.replace(replica_state=state.replica_state + batch['x'].sum()).tick(), {}

  for via in ('pmap', 'shard_map', 'vmap'):
    run = parallelize(step, build_mesh(2), replicas=4, via=via)
    state = core.TrainState(jnp.int32(0), jax.random.key(0), {}, replica_state=jnp.zeros(4))
    state = put_state(state, run.mesh) if via != 'vmap' else state
    for _ in range(2):
      state, _ = run(state, {'x': np.arange(8, dtype=np.float32)})
    np.testing.assert_array_equal(state.replica_state, [2, 10, 18, 26])
    assert int(state.step) == 2


def test_rows_draw_the_same_numbers_on_any_number_of_replicas():
  key = jax.random.key(3)
  alone = Axes().sample(jax.random.normal, key, (8, 5))
  assert len(np.unique(alone)) == 40
  shared = jax.vmap(lambda _: Axes(inner=('r',)).sample(jax.random.normal, key, (2, 5)),
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


@pytest.fixture(scope='module')
def kinds():
  """{kind: (method, state, batch of four)} in float64: in float32 the kinks of L1 terms decide
  where a gradient goes. OMGD is in `test_omgd`."""
  pairs, textures, labels = (omgd.images_of(task, 4) for task in (
      'colorize', 'grass2gravel', 'shapes'))
  taught = {'teacher': core.Net(nn.initialise(cat.SMALL, jax.random.key(3))['params'])}
  found = {'pix2pix': (omgd.small_pix2pix(omgd.SMALL), pairs, None),
           'gaugan': (dataclasses.replace(omgd.small_gaugan(omgd.SMALL), feature_weight=0.), labels,
                      None),
           'cat': (cat.small_cat(omgd.SMALL), pairs, taught),
           'cat_unpaired': (cat.small_cat(omgd.SMALL, paired=False), textures, taught)}
  with jax.enable_x64(True):
    for name, (method, batch, init_from) in found.items():
      method = omgd.in_float64(method)
      batch = {key: x.astype(np.float64) for key, x in batch.items()}
      found[name] = method, method.init(jax.random.key(0), batch, init_from), batch
  return found


@pytest.fixture(scope='module')
def stepped(kinds):
  """(state, logs) of one step of a kind, on so many devices; each is run once."""
  @functools.cache
  def step(kind, via, devices):
    method, state, batch = kinds[kind]
    run = parallelize(lambda s, b, axes: method.step(s, b, axes), build_mesh(devices), via=via)
    state, logs = jax.device_get(run(run.put(state), batch))
    return state, core.flatten_logs(logs)

  return step


@pytest.mark.parametrize('kind', ['pix2pix', 'gaugan', 'cat', 'cat_unpaired'])
def test_every_method_agrees_with_itself(stepped, kind):
  """On one device, two and four."""
  with jax.enable_x64(True):
    (one, expected), *others = (stepped(kind, *way) for way in (
        ('vmap', 1), ('pmap', 2), ('shard_map', 4)))
  for state, logs in others:
    assert largest_difference(one, state) < 1e-9
    for name, value in expected.items():
      np.testing.assert_allclose(logs[name], value, rtol=1e-7, atol=1e-10, err_msg=name)


@pytest.mark.parametrize('kind', ['pix2pix', 'gaugan', 'cat', 'cat_unpaired'])
def test_both_ways_of_mapping_agree_bit_for_bit(stepped, kind):
  with jax.enable_x64(True):
    assert largest_difference(*(stepped(kind, via, 2) for via in ('pmap', 'shard_map'))) == 0


@pytest.fixture
def lowered(monkeypatch):
  """Steps that may be traced inside another program: JAX takes no compiler options there."""
  monkeypatch.setattr(xla, 'compiler_options', lambda: None)


@pytest.mark.parametrize('norm', ['instance', 'batch'])
def test_only_batch_norm_exchanges_before_the_gradients(lowered, norm):
  net = omgd.small_resnet(2, norm=norm)
  variables = nn.initialise(net, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))

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


def test_two_processes_train_and_measure_as_one_does(tmp_path):
  """Each loads its own share of every batch; both hold the same networks afterwards, and the
  measures of all images."""
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    port = s.getsockname()[1]
  files = [tmp_path / f'{i}.npz' for i in range(2)]
  running = [forked.Process('tests.one_of_several', [str(port), '2', str(i), str(file)], quick(),
                            Path(__file__).parents[1]) for i, file in enumerate(files)]
  alone = one_of_several.train_and_measure(2)
  assert [process.wait(240) for process in running] == [0, 0]
  first, second = (dict(np.load(file)) for file in files)
  assert alone['devices'] == first['devices'] == second['devices'] == 2
  assert {'measured_psnr', 'measured_fd', 'measured_mse'} <= alone.keys()
  for name, expected in alone.items():
    np.testing.assert_array_equal(first[name], second[name])
    np.testing.assert_allclose(first[name], expected, rtol=1e-5, atol=1e-6)


def test_rows_are_gathered_in_the_order_of_their_replicas():
  """Devices first, then the replicas on each."""
  axes = Axes(('devices',), ('here',))
  step = lambda x: (axes.gather(x), axes.index())
  inner = jax.vmap(step, axis_name='here')
  found, index = jax.vmap(inner, axis_name='devices')(jnp.arange(12).reshape(2, 3, 2))
  assert index.ravel().tolist() == list(range(6))
  np.testing.assert_array_equal(found, jnp.broadcast_to(jnp.arange(12), (2, 3, 12)))
