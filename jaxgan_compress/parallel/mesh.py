"""Meshes of devices and where arrays live on them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxgan_compress.core import TrainState


def build_mesh(devices: int | None = None) -> Mesh:
  """A mesh over the first `devices` devices (default: all) with the one axis 'data'.

  The axis is Auto: `jax.make_mesh` now defaults to Explicit axes, which pmap's results and host
  batches do not fit. Raises ValueError if there are fewer devices than asked for.
  """
  found = jax.devices()
  if devices is not None and not 1 <= devices <= len(found):
    raise ValueError(
        f'{devices} devices were asked for and {len(found)} {found[0].platform} devices are here; '
        'ask for at most that many (on a CPU, JAX_NUM_CPU_DEVICES=N makes more)')
  return Mesh(np.array(found[:devices]), ('data',))


def spread(state: TrainState, replicas: int) -> TrainState:
  """The state with a `replica_state` for each of so many replicas, where `init` made it for one.

  Raises ValueError for a memory of another number of replicas than these or 1.
  """
  there = {len(x) for x in jax.tree.leaves(state.replica_state)}
  if there - {1, replicas}:
    raise ValueError(f'the state remembers images for {max(there)} replicas and {replicas} are to '
                     f'go on; give replicas={max(there)}, which any number of devices that divides '
                     'it can run')
  return state.replace(replica_state=jax.tree.map(
      lambda x: x if len(x) == replicas else jnp.repeat(x, replicas, 0), state.replica_state))


def put_state(state: TrainState, mesh: Mesh, replicas: int | None = None) -> TrainState:
  """The state on the mesh: one copy on every device, `replica_state` split over them.

  replicas: how many it is to remember for, see `spread`; None: as many as it does.

  Its arrays are new ones, so that a step may donate them and the caller's stay.
  """

  def put(tree, spec):
    sharding = NamedSharding(mesh, spec)
    if processes(mesh) > 1:
      return jax.tree.map(lambda x: _put_everywhere(x, sharding), tree)
    # device_put alone may share a buffer with its input, even with may_alias=False.
    return jax.device_put(jax.tree.map(lambda x: x.copy(), tree), sharding)

  state = spread(state, replicas) if replicas else state
  return put(state.replace(replica_state=()),
             P()).replace(replica_state=put(state.replica_state, P('data')))


def fetch(state: TrainState) -> TrainState:
  """A state that a step returned, as host arrays: of several processes, the memory of all."""
  rng = jax.random.key_data(state.rng)
  memory = state.replica_state if jax.process_count() == 1 else \
      multihost_utils.process_allgather(state.replica_state, tiled=True)
  # All copies at once, where a loop would wait for each.
  return jax.device_get(local(state.replace(rng=rng, replica_state=memory)))


def local(tree):
  """Arrays that are the same on all devices, as this process has them."""
  return jax.tree.map(lambda x: x if not isinstance(x, jax.Array) or x.is_fully_addressable
                      else x.addressable_data(0), tree)


def processes(mesh: Mesh) -> int:
  """How many processes share a mesh."""
  return len({device.process_index for device in mesh.devices.flat})


def _put_everywhere(x, sharding):
  """An array that every process has, as one array of all; raises if the processes differ."""
  if isinstance(x, jax.Array) and not x.is_fully_addressable:
    return x.copy()
  if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
    return jax.random.wrap_key_data(_put_everywhere(jax.random.key_data(x), sharding))
  return jax.device_put(np.asarray(x), sharding)
