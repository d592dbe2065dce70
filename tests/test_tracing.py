"""Channels that belong together, as walks through programs find them: against what is known by
hand, and against networks whose channels change places."""

from __future__ import annotations

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from jaxgan_compress.tracing import network as networks
from jaxgan_compress.tracing import program
from tests.traced_networks import NETWORKS


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


def of_case(case, batch=1):
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


def permuted(known, weights, seed=1):
  """The weights with the channels of each group in another order, in all leaves at once."""
  rng = np.random.default_rng(seed)
  moved = {atom: other for atoms in groups(known).values()
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


@pytest.mark.parametrize('name', NETWORKS)
def test_channels_are_found_as_known_by_hand(name):
  case = NETWORKS[name]
  known = of_case(case)
  assert count(known) == (case.groups, case.channels)
  assert not known.unknown
  assert {*case.approximate, *case.refused, *case.never_exact} <= names(known)


@pytest.mark.parametrize('name', [name for name in NETWORKS if name != '23 rrdbs'])
def test_channels_may_change_places(name):
  case = NETWORKS[name]
  known, (network, _) = of_case(case, batch=2), case.make()
  assert groups(known) == groups(of_case(case))  # which does not depend on the batch
  with jax.enable_x64(True):
    weights = random_weights(known.leaves)
    assert change(network, an_input(case), known, weights, permuted(known, weights)) < 1e-10
