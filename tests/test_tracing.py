"""Channels that belong together, as walks through programs find them: against what is known by
hand, and against networks whose channels change places."""

from __future__ import annotations

import collections
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util
from jax import lax

from jaxgan_compress import analysis
from jaxgan_compress.tracing import laws, program, traced_plan
from jaxgan_compress.tracing import network as networks
from jaxgan_compress.tracing.labels import Atoms
from tests.real_networks import REAL
from tests.traced_networks import IMAGE, NETWORKS, conv_of, layer, shapes

CASES = {**NETWORKS, **REAL}


@pytest.fixture(autouse=True)
def as_users_do():
  with jax.numpy_rank_promotion('allow'):
    yield


def understood(network, x, variables=None, calls=None):
  """What is known of a network after its calls, by default those of inference and training."""
  x = jax.ShapeDtypeStruct(*x) if isinstance(x, tuple) else x
  leaves = networks.shapes_of(network, variables, [x])
  calls = calls or networks.functions(network, {path[0] for path in leaves})
  return program.understand([networks.traced_call(call, leaves, [x]) for call in calls],
                            {path: leaf.shape for path, leaf in leaves.items()})


def groups(known):
  """{footprint: channels}, a footprint being ((leaf, axis, how often), ...)."""
  feet = collections.defaultdict(list)
  for path, labels in known.leaves.items():
    for (axis,), atoms in sorted(labels.parts.items(), reverse=True):
      for atom, count in zip(*np.unique(atoms, return_counts=True), strict=True):
        if not known.atoms.frozen(np.array([atom])).any():
          feet[int(atom)].append(('/'.join(path), axis, int(count)))
  found = collections.defaultdict(list)
  for atom, foot in feet.items():
    found[tuple(foot)].append(atom)
  return dict(found)


def count(known):
  found = groups(known)
  return len(found), sum(map(len, found.values()))


@functools.cache
def of_case(name, batch=1):
  case = CASES[name]
  network, variables = case.make()
  return understood(network, ((batch, *case.shape[1:]), case.dtype), variables)


def names(known):
  """Of groups, by the layer of the first leaf."""
  kinds = 'params/', 'batch_stats/'
  return {next((path.removeprefix(kind) for kind in kinds if path.startswith(kind)), path).rsplit(
      '/', 1)[0] for (path, *_), *_ in groups(known)}


def random_weights(leaves, seed=0):
  """On which laws are not true by chance, as a zero gamma makes them."""
  rng = np.random.default_rng(seed)

  def one(path, shape):
    x = rng.normal(size=shape)
    if path[-1] in ('scale', 'var', 'sigma'):
      return np.abs(x) + 0.5
    return x * (0.5 if len(shape) == 1 else np.prod(shape[:-1]) ** -0.5)

  return {path: one(path, labels.shape) for path, labels in leaves.items()}


def permuted(known, weights, found=None, seed=1):
  """The weights with the channels of each group in another order, in all leaves at once."""
  rng = np.random.default_rng(seed)
  moved = {atom: other for atoms in (groups(known) if found is None else found).values()
           for atom, other in zip(atoms, np.roll(rng.permutation(atoms), 1), strict=True)}
  out = {}
  for path, labels in known.leaves.items():
    x = weights[path]
    for (axis,), atoms in labels.parts.items():
      places = {atom: np.flatnonzero(atoms == atom) for atom in set(atoms.tolist())}
      order = np.arange(len(atoms))
      for atom, at in places.items():
        order[at] = places[moved.get(atom, atom)]
      x = x.take(order, axis)
    out[path] = x
  return out


def change(network, x, known, weights, others):
  """How far the outputs of two sets of weights are apart, of the largest output."""
  call = networks.function_of(network)

  @jax.jit
  def run(weights):
    return call(traverse_util.unflatten_dict(weights), x)[0]

  a, b = run(weights), run(others)
  return float(jnp.abs(a - b).max() / jnp.abs(a).max())


def an_input(case):
  rng = np.random.default_rng(2)
  shape = (2, *case.shape[1:])
  return rng.integers(0, 8, shape) if case.dtype == jnp.int32 else rng.normal(size=shape)


@pytest.mark.parametrize('name', CASES)
def test_channels_are_found_as_known_by_hand(name):
  case = CASES[name]
  known = of_case(name)
  assert count(known) == (case.groups, case.channels)
  assert groups(known) == groups(of_case(name, batch=2))  # which does not depend on the batch
  assert not known.unknown
  assert {*case.approximate, *case.refused, *case.never_exact} <= names(known)


# 23 residual-in-residual dense blocks take half a minute, and two of them are here.
@pytest.mark.parametrize('name', [name for name in CASES if name != '23 rrdbs'])
def test_what_is_left_computes_what_the_whole_does(name):
  """Groups may change places; without some of their channels the rewritten program, and where it
  can the module with smaller arrays, computes what the whole one does with them at 0, at the cost
  that was told."""
  case = CASES[name]
  (network, variables), x = case.make(), jax.ShapeDtypeStruct(case.shape, case.dtype)
  plan = traced_plan.trace_plan(network, variables, x, prove=False)
  known, functions = of_case(name), networks.functions(network, {path[0] for path in plan.leaves})
  about = laws.subject(functions[0], networks.shapes_of(network, variables, [x]), [x])
  mixed = traced_plan.mixtures(known, plan)
  assert laws.permutes(plan, about, list(plan.groups))
  by_program = laws.outcomes(plan, about, list(plan.groups), 'program', mixed)
  assert {group for group, outcome in by_program.items() if outcome.kind != 'exact'} == {
      *case.never_exact}
  told, counted = laws.costs(plan, about, laws.random_masks(plan, list(plan.groups)), 'program')
  assert told == counted
  by_module = laws.outcomes(plan, about, list(plan.groups), 'module', mixed)
  kinds = {group: outcome.kind for group, outcome in by_module.items()}
  named = lambda groups: {group for group in kinds if group.partition('#')[0] in groups}
  refused = named(case.refused)
  approximate = (named(case.approximate) or set(kinds)) - refused if (
      case.kind == 'approximate') else set()
  assert {group for group, kind in kinds.items() if kind == 'fails'} <= refused
  assert {group for group, kind in kinds.items() if kind != 'exact'} <= refused | approximate | (
      named(case.never_exact))
  assert any(kind != 'exact' for kind in kinds.values()) == bool(
      refused or approximate or case.never_exact)


def test_a_forgotten_leaf_is_seen():
  """By the law of permutation, which would be void if it were true of anything."""
  case = CASES['batch norms']
  known, (network, _) = of_case('batch norms'), case.make()
  with jax.enable_x64(True):
    weights = random_weights(known.leaves)
    moved = permuted(known, weights)
    for path in moved:
      if path[1] != 'Conv_2' or path[2] != 'bias':
        forgotten = {**moved, path: weights[path]}
        assert change(network, an_input(case), known, weights, forgotten) > 1e-4, path


def test_multiply_accumulates_of_whole_networks():
  """4,589,273,088 are known of 23 blocks of 64 channels at 16 px."""
  terms = {name: sum(term.factor * math.prod(part.size for part in term.parts)
                     for term in of_case(name).terms) for name in (
                         '23 rrdbs', 'scan', 'attention', 'grouped', 'unet', 'vmap', 'stylegan2')}
  assert terms.pop('23 rrdbs') == 4_589_273_088
  with jax.numpy_rank_promotion('allow'):
    for name, macs in terms.items():
      assert macs == analysis.macs(CASES[name].make()[0], CASES[name].shape), name


def test_states_of_a_norm_follow_when_only_inference_is_known():
  case = CASES['spectral norm']
  network, _ = case.make()
  known = understood(network, (case.shape, case.dtype), calls=[networks.function_of(network)])
  assert count(known) == (2, 20)
  assert sum('/u' in path for foot in groups(known) for path, *_ in foot) == 2


def test_what_no_call_reads_stays():
  network = lambda v, x: conv_of(v['b'], conv_of(v['a'], x))
  known = understood(network, (IMAGE, jnp.float32), shapes({
      'a': layer(3, 8), 'b': layer(8, 3), 'unread': {'mean': (8,)}}))
  atoms = known.leaves['unread', 'mean'].parts[0,]
  assert {known.atoms.reason(int(atom)) for atom in known.atoms.find(atoms)} == {
      'no call reads it, so it is unknown what it belongs to; also trace the call that does '
      '(calls=...)'}
  assert count(known) == (1, 8)


def test_what_is_known_of_a_class_survives_its_joining():
  atoms = Atoms()
  a, b, c = atoms.new(3)[:, None]
  atoms.freeze(c, 'frozen')
  atoms.mix(b, 'mixed')
  atoms.unite(a, b)
  atoms.unite(a, c)
  (root,) = {int(x) for each in (a, b, c) for x in atoms.find(each)}
  assert (atoms.reason(root), atoms.mixture(root)) == ('frozen', 'mixed')


def test_leaves_come_in_the_order_of_use():
  """Within what is compiled, too; of a dictionary they come in the order of its keys."""
  variables = shapes({'b': layer(3, 8), 'c': layer(8, 6), 'a': layer(6, 3)})
  network = lambda v, x: conv_of(v['a'], conv_of(v['c'], conv_of(v['b'], x)))
  for each in (network, jax.jit(network), jax.checkpoint(jax.jit(network))):
    known = understood(each, (IMAGE, jnp.float32), variables)
    assert [f'{a}/{b}' for a, b in known.leaves] == [
        'b/kernel', 'b/bias', 'c/kernel', 'c/bias', 'a/kernel', 'a/bias']


def test_equal_sizes_mean_nothing():
  """As many channels as samples, rows, columns, inputs and outputs."""
  variables = {'a': layer(4, 4), 'b': layer(4, 4), 'c': layer(4, 4)}

  def network(v, x):
    x = conv_of(v['b'], conv_of(v['a'], x))
    return conv_of(v['c'], x + x.mean((1, 2), keepdims=True))

  known = understood(network, ((4, 4, 4, 4), jnp.float32), shapes(variables))
  assert sorted(groups(known)) == [
      (('a/kernel', 3, 1), ('a/bias', 0, 1), ('b/kernel', 2, 1)),
      (('b/kernel', 3, 1), ('b/bias', 0, 1), ('c/kernel', 2, 1))]


class Fourier(nn.Module):
  @nn.compact
  def __call__(self, x):
    return jnp.fft.fft(nn.Conv(8, (1, 1))(x)).real


class WithFourier(nn.Module):
  @nn.compact
  def __call__(self, x):
    return nn.Dense(3)(nn.Dense(6)(Fourier(name='fourier')(x)))


def test_an_unknown_operation_keeps_what_it_touches():
  """It is in a function that JAX compiles, which says where in the network it is called."""
  known = understood(WithFourier(), (IMAGE, jnp.float32))
  assert count(known) == (1, 6)
  assert list(known.unknown) == ['fft']
  assert known.unknown['fft'].line.startswith('test_tracing.py:')
  assert known.unknown['fft'].path.endswith('fourier')


def through(body, **variables):
  """A function of 8 channels between two convolutions, and the shapes of its leaves."""
  def call(variables, x):
    return conv_of(variables['last'], body(variables, conv_of(variables['first'], x)))
  inner = jax.eval_shape(lambda v, x: body(v, conv_of(v['first'], x)),
                         shapes({'first': layer(3, 8), **variables}),
                         jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)).shape[-1]
  return call, shapes({'first': layer(3, 8), 'last': layer(inner, 3), **variables})


def unfolded(v, x):
  """As many channels by the kernel's taps, which lie before its outputs: two axes with labels of
  their own become one, and the axis after them is no part of it."""
  return x @ v['w'].reshape(-1, v['w'].shape[-1]).T


def scanned(v, x):
  """Constants, what is carried, rows and results."""
  def step(carry, row):
    return jax.nn.relu(carry * row['gain'] + v['shift']), carry
  x, rows = lax.scan(step, x, v['rows'])
  return x + rows.sum(0)


def looped(v, x):
  def body(state):
    i, y = state
    return i + 1, jax.nn.relu(y @ v['w'] + v['b'])
  return lax.while_loop(lambda state: state[0] < 3, body, (0, x))[1]


def chosen(v, x):
  return lax.cond(x.sum() > 0, lambda x: x + v['b'], lambda x: x * v['a'], x)


@jax.custom_vjp
def clipped(x):
  return jnp.clip(x, -1, 1)


clipped.defvjp(lambda x: (clipped(x), None), lambda _, g: (g,))

# {name: (body, its leaves, groups, channels)} of 8 channels between two convolutions.
BODIES = {
    'a bias of sizes 1': (lambda v, x: lax.add(x, v['b'].reshape(1, 1, 1, -1)), {'b': (8,)}, 1, 8),
    'a leaf of sizes 1': (lambda v, x: lax.add(x, v['b']), {'b': (1, 1, 1, 8)}, 1, 8),
    'a pixel of sizes 1': (lambda v, x: lax.mul(x, x.sum(3, keepdims=True)), {}, 1, 8),
    'reshape with a transpose': (
        lambda v, x: lax.reshape(x, (1, 8, 8, 8), (0, 3, 1, 2)).transpose(0, 2, 3, 1), {}, 1, 8),
    'pieces of size 0': (lambda v, x: jnp.concatenate([x[..., :0], x, x[..., 8:]], -1), {}, 1, 8),
    'edge padding of none': (lambda v, x: jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0)), 'edge'),
                             {}, 1, 8),
    'tile': (lambda v, x: jnp.tile(x, (1, 1, 1, 2)), {}, 1, 8),
    'repeat': (lambda v, x: jnp.repeat(x, 2, -1), {}, 1, 8),
    'tile pixels': (lambda v, x: jnp.tile(x, (1, 2, 1, 1)), {}, 1, 8),
    'stack': (lambda v, x: jnp.stack([x, 2 * x], -1).reshape(1, 8, 8, -1), {}, 1, 8),
    'stack of others': (
        lambda v, x: jnp.stack([x, jnp.broadcast_to(v['b'], x.shape)]).sum(0), {'b': (8,)}, 1, 8),
    'stack before': (lambda v, x: jnp.stack([x, 2 * x], 3).reshape(1, 8, 8, -1), {}, 1, 8),
    'stack of channels': (  # one by one, so each of them stays
        lambda v, x: jnp.stack([x[..., i] for i in range(8)], -1), {}, 0, 0),
    'unstack pixels': (lambda v, x: sum(jnp.unstack(x, axis=1))[:, None], {}, 1, 8),
    'unstack halves': (lambda v, x: sum(jnp.unstack(x.reshape(1, 8, 8, 2, -1), axis=3)), {}, 1, 4),
    'split': (lambda v, x: jnp.prod(jnp.array(jnp.split(x, 2, -1)), 0), {}, 1, 4),
    'split apart': (lambda v, x: jnp.concatenate(jnp.split(x, [2, 4], -1)[::2], -1), {}, 2, 8),
    'one channel': (lambda v, x: x * x[..., :1], {}, 1, 7),
    'kernel unfolded': (unfolded, {'w': (2, 12, 8)}, 2, 20),
    'scan': (scanned, {'rows': {'gain': (3, 8)}, 'shift': (8,)}, 1, 8),
    'scan of channels': (  # their order matters
        lambda v, x: jnp.moveaxis(lax.scan(lambda c, y: (c + y, c * y), x[..., 0],
                                           jnp.moveaxis(x, -1, 0))[1], 0, -1), {}, 0, 0),
    'while': (looped, {'w': (8, 8), 'b': (8,)}, 1, 8),
    'fori_loop': (lambda v, x: lax.fori_loop(0, 3, lambda i, x: x * v['b'], x), {'b': (8,)}, 1, 8),
    'exchanged in a loop': (
        lambda v, x: lax.fori_loop(0, 3, lambda i, xy: xy[::-1], (
            x, jnp.broadcast_to(v['b'], x.shape)))[0], {'b': (8,)}, 1, 8),
    'cond': (chosen, {'a': (8,), 'b': (8,)}, 1, 8),
    'custom gradient': (lambda v, x: clipped(x), {}, 1, 8),
    'remat': (lambda v, x: jax.checkpoint(lambda x: jnp.sin(x) * v['b'])(x), {'b': (8,)}, 1, 8),
    'sharding': (lambda v, x: lax.with_sharding_constraint(x, jax.sharding.NamedSharding(
        jax.make_mesh((1,), ('data',)), jax.sharding.PartitionSpec())), {}, 1, 8),
    'device': (lambda v, x: jax.device_put(x), {}, 1, 8),
    'two windows at once': (
        lambda v, x: sum(lax.reduce_window(
            (x, jnp.broadcast_to(v['b'], x.shape)), (0., 0.),
            lambda a, b: (a[0] + b[0], a[1] * b[0]), (1, 2, 2, 1), (1, 2, 2, 1), 'SAME')),
        {'b': (8,)}, 1, 8),
    'a window of 1 that moves': (
        lambda v, x: lax.reduce_window(x, 0., lax.add, (1, 1, 1, 1), (1, 1, 1, 1),
                                       ((0, 0), (0, 0), (0, 0), (1, -1))), {}, 0, 0),
    'bits': (lambda v, x: lax.bitcast_convert_type(
        lax.bitcast_convert_type(x, jnp.uint8), jnp.float32), {}, 0, 0),
    'a reduction by hand': (
        lambda v, x: x * lax.reduce(x, 1., lambda a, b: a * b + a, (3,))[..., None], {}, 0, 0),
    'argmax of pixels': (lambda v, x: x + jnp.argmax(x, 1, keepdims=True), {}, 1, 8),
    'argmax of channels': (lambda v, x: x * jnp.argmax(x, 3, keepdims=True), {}, 0, 0),
    'flipped': (lambda v, x: x * x[..., ::-1], {}, 1, 4),
    'tile and repeat': (  # neighbours are united until all are
        lambda v, x: jnp.tile(x, (1, 1, 1, 2)) * jnp.repeat(x, 2, -1), {}, 1, 1),
    'numbered': (lambda v, x: x * jnp.arange(8.), {}, 0, 0),
    'numbered in groups': (lambda v, x: x * jnp.tile(jnp.arange(4.), 2), {}, 1, 2),
    'numbered in unequal groups': (lambda v, x: x * jnp.tile(jnp.arange(3.), 3)[:8], {}, 0, 0),
    'scaled by two axes': (  # of which the last stays
        lambda v, x: (x.reshape(1, 8, 8, 2, -1) * v['w']).reshape(x.shape), {'w': (2, 4)}, 1, 4),
    'cumsum of channels': (lambda v, x: jnp.cumsum(x, 3), {}, 0, 0),
    'cumsum of rows': (lambda v, x: jnp.cumsum(x, 1), {}, 1, 8),
    'sorted channels': (lambda v, x: jnp.sort(x, 3), {}, 0, 0),
    'sorted rows': (lambda v, x: jnp.sort(x, 1), {}, 1, 8),
    'a slice of channels by a number': (
        lambda v, x: lax.dynamic_slice_in_dim(x, 2, 4, 3), {}, 0, 0),
    'a slice of rows by a number': (lambda v, x: lax.dynamic_slice_in_dim(x, 2, 4, 1), {}, 1, 8),
    'a slice of channels for each sample': (
        lambda v, x: jax.vmap(lambda x, i: lax.dynamic_slice_in_dim(x, i, 4, 2))(x, jnp.array([1])),
        {}, 0, 0),
    'a pixel written': (
        lambda v, x: lax.dynamic_update_slice(x, v['b'], (0, 2, 3, 0)), {'b': (1, 1, 1, 8)}, 1, 8),
    'channels written': (
        lambda v, x: lax.dynamic_update_slice(x, v['b'], (0, 0, 0, 2)), {'b': (1, 8, 8, 4)}, 0, 0),
    'beside other rows': (
        lambda v, x: jnp.concatenate([x, jnp.broadcast_to(v['b'], x.shape)], 1), {'b': (8,)}, 1, 8),
    'some by a gather': (lambda v, x: x[..., jnp.array([1, 4, 5])] * x.sum(), {}, 0, 0),
    'shuffled by a gather': (lambda v, x: x[..., jnp.array([1, 0, 3, 2, 5, 4, 7, 6])], {}, 0, 0),
}


@pytest.mark.parametrize('name', BODIES)
def test_what_operations_do_to_channels(name):
  body, variables, *expected = BODIES[name]
  function, variables = through(body, **variables)
  x = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
  assert list(count(understood(function, x, variables))) == expected


@pytest.mark.parametrize('name', [name for name, (*_, groups, _) in BODIES.items() if groups])
def test_laws_hold_of_operations(name):
  """Of whatever groups are found."""
  body, variables, *_ = BODIES[name]
  function, variables = through(body, **variables)
  x = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
  plan = traced_plan.trace_plan(function, variables, x, prove=False)
  about = laws.subject(networks.functions(function, ())[0], networks.shapes_of(
      function, variables, [x]), [x])
  assert laws.permutes(plan, about, list(plan.groups))
  masks = laws.random_masks(plan, list(plan.groups))
  assert laws.removes(plan, about, masks, 'program')


def test_channels_of_random_programs_may_change_places():
  """A few of `fuzz_programs`."""
  from tests import fuzz_programs  # which needs the laws of this module
  found = [fuzz_programs.check(seed) for seed in range(10)]
  assert max(moved for moved, *_ in found) < 1e-9
  assert sum(channels for *_, channels in found) > 50


@pytest.mark.parametrize(('path', 'dtype', 'low', 'high'), [
    (('params', 'conv', 'kernel'), jnp.float32, -np.inf, -1e-3),
    (('params', 'norm', 'scale'), jnp.bfloat16, 0.5, 0.51),
    (('masks', 'conv', 'mask'), bool, False, False), (('counts', 'seen'), jnp.int32, 0, 0)])
def test_laws_are_proved_on_leaves_that_make_them_true_by_no_chance(path, dtype, low, high):
  x = laws.random_leaf(np.random.default_rng(0), path, jax.ShapeDtypeStruct((64, 64), dtype))
  assert low <= x.min() <= high
  assert x.any() == (dtype != jnp.int32)  # a mask of False alone would hide all
