"""One replica's step becomes a step on every device."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxgan_compress import core
from jaxgan_compress.core import Axes, xla
from jaxgan_compress.parallel.mesh import build_mesh, processes, put_state

VIAS = ('pmap', 'shard_map', 'vmap')


@dataclasses.dataclass(frozen=True)
class ParallelStep:
  """`step(state, batch) -> (state, logs)` on a mesh. The state given is donated.

  `put` puts a state where steps expect it, `place` moves a host batch ahead of time, `run` takes
  what `place` returned.
  """
  mesh: Mesh
  replicas: int
  compiled: Callable
  put: Callable
  place: Callable

  def __call__(self, state, batch):
    return self.run(state, self.place(batch))

  def run(self, state, placed):
    return self.compiled(state, placed)


def parallelize(step: Callable, mesh: Mesh | None = None, *, replicas: int | None = None,
                via: str = 'pmap', donate: bool = True) -> ParallelStep:
  """Maps `step(state, batch, axes) -> (state, logs)` over replicas, each with its share of rows.

  mesh: default, all devices; see `build_mesh`.
  replicas: default, one a device; with a number that the device count divides, each device runs
    several under `vmap`, and the run does not depend on the device count (1.3 to 1.6 times the cost
    of one replica a device).
  via: 'pmap' (default) or 'shard_map', which are bitwise equal; 'vmap' puts all replicas on the
    first device and is the reference that the other two are tested against.

  The inner `vmap` stays with one replica a device: a step that forgets an `axes.mean` then fails
  while it is traced, where bare pmap would silently return the first device's value. On TPUs such a
  step is only traced under `vmap`, and compiled without.

  With several processes each places its own share of the rows; the state is of global arrays.

  Raises ValueError if the devices do not divide the replicas, or the replicas the batch.
  """
  if via not in VIAS:
    raise ValueError(f'via={via!r}; one of {", ".join(VIAS)}')
  mesh = mesh or build_mesh()
  devices = 1 if via == 'vmap' else mesh.size
  replicas = replicas or mesh.size
  if replicas % devices:
    raise ValueError(f'{replicas} replicas do not divide over {devices} devices; use a multiple')
  several = processes(mesh)
  if several > 1 and via == 'vmap':
    raise ValueError(f"via='vmap' and {several} processes; it is for one, take pmap or shard_map")
  axes = Axes(() if via == 'vmap' else ('data',), ('replica',))
  inner = {'vmap': _on_one, 'shard_map': _on_shards, 'pmap': _on_all}[via](
      _on_device(step, axes, replicas // devices), mesh, (0, 1) if donate else ())

  def compiled(state, batch):
    shared, local, logs = inner(state.replace(replica_state=()), state.replica_state, batch)
    return shared.replace(replica_state=local), logs

  put = lambda state: put_state(state, mesh, replicas)
  return ParallelStep(mesh, replicas, compiled, put,
                      lambda batch: _place(batch, mesh, several, replicas, via))


def lower_step(step: Callable, mesh: Mesh, state, batch) -> jax.stages.Lowered:
  """The program of `parallelize(step, mesh, via='shard_map')`, one replica a device, for a
  state as one replica sees it and a whole batch, of which shapes suffice, on devices that need not
  be here."""
  everywhere, split = NamedSharding(mesh, P()), NamedSharding(mesh, P('data'))

  def placed(tree, sharding):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

  memory = jax.tree.map(lambda x: jax.ShapeDtypeStruct((mesh.size, *x.shape), x.dtype),
                        state.replica_state)
  inner = _on_shards(_on_device(step, Axes(('data',), ('replica',)), 1), mesh, (0, 1))
  return inner.lower(placed(state.replace(replica_state=()), everywhere), placed(memory, split),
                     placed(batch, split))


def _on_device(step, axes, replicas):
  """(shared, local, batch) of one device's replicas -> (shared, local, logs): leaves `[rows, ...]`
  become `[replicas, rows / replicas, ...]`."""

  def one(shared, local, batch, axes=axes):
    state, logs = step(shared.replace(replica_state=local), batch, axes)
    return state.replace(replica_state=()), state.replica_state, axes.mean(logs)

  def virtual(shared, local, batch):
    batch = jax.tree.map(lambda x: x.reshape(replicas, -1, *x.shape[1:]), batch)
    return jax.vmap(one, in_axes=(None, 0, 0), out_axes=(None, 0, None),
                    axis_name='replica')(shared, local, batch)

  def on_device(shared, local, batch):
    if replicas > 1 or xla.platform() != 'tpu':
      return virtual(shared, local, batch)
    # XLA:TPU lays products out worse that have a dimension of one more: a convolution of 128
    # channels, forward and backward, takes 1.7 times the cycles.
    jax.eval_shape(virtual, shared, local, batch)  # refuses a step that forgets a mean
    alone = jax.tree.map(lambda x: x[0], local)
    # A mean over one device may stay in the program, where XLA:TPU's least effort crashes at it.
    several = tuple(name for name in axes.mesh if jax.lax.axis_size(name) > 1)
    shared, alone, logs = one(shared, alone, batch, Axes(several))
    return shared, jax.tree.map(lambda x: x[None], alone), logs

  return on_device


# Three ways to map `on_device` over the devices of a mesh: (shared, local, batch) -> (shared,
# local, logs), compiled; `local` holds the memory of all replicas.


def _on_one(on_device, mesh, donated):
  return xla.jit(on_device, donate_argnums=donated)


def _on_shards(on_device, mesh, donated):
  rows = P('data')
  # check_vma=True would hand back gradients already summed over devices, and our mean would
  # make them `devices` times too large.
  return xla.jit(jax.shard_map(
      on_device, mesh=mesh, in_specs=(P(), rows, rows), out_specs=(P(), rows, P()),
      check_vma=False), donate_argnums=donated)


def _on_all(on_device, mesh, donated):
  mapped = jax.pmap(on_device, axis_name='data', in_axes=(None, 0, 0), out_axes=(None, 0, None),
                    devices=list(mesh.devices.flat), donate_argnums=donated)
  options, programs = xla.compiler_options(), {}

  def run(*args):
    # pmap takes no compiler options, and of several processes gives each its own arrays, which
    # nothing can save; a program compiled ahead of time takes them, and gives global arrays.
    kind = tuple((x.shape, x.dtype) for x in jax.tree.leaves(args))
    if kind not in programs:
      programs[kind] = mapped.lower(*args).compile(compiler_options=options)
    return programs[kind](*args)

  call = run if options or processes(mesh) > 1 else mapped

  def inner(shared, local, batch):
    local = jax.tree.map(lambda x: x.reshape(mesh.size, -1, *x.shape[1:]), local)
    shared, local, logs = call(shared, local, batch)
    return shared, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), local), logs

  return inner


def _place(batch, mesh, several, replicas, via):
  """A host batch, on the devices of its rows. Raises ValueError for one that does not divide."""
  size = core.rows(batch) * several
  if size % replicas:
    below = size // replicas * replicas
    fits = ' or '.join(str(n) for n in (below, below + replicas) if n)
    raise ValueError(f'batch {size} does not divide over {replicas} replicas; use {fits}')
  if via == 'pmap':
    batch = jax.tree.map(lambda x: x.reshape(mesh.size // several, -1, *x.shape[1:]), batch)
  sharding = jax.sharding.SingleDeviceSharding(mesh.devices.flat[0]) if via == 'vmap' \
      else NamedSharding(mesh, P('data'))
  if several > 1:  # each brings its rows
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(
        sharding, np.asarray(x)), batch)
  return jax.device_put(batch, sharding)
