"""The nouns of the library: a network while it trains, the state of a run, a method.

Whatever changes during training lives in `TrainState` and is an array; behaviour lives in frozen
values (modules, methods, optimisers) that are never stored.
"""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, struct

from jaxgan_compress.core.axes import Axes

Array = jax.Array
AnyArray = jax.Array | np.ndarray  # on the device or the host
PyTree = Any
Batch = Mapping[str, AnyArray]
# {network: {term: value}}, 'loss' being their sum; and {measure: {network: value}}, as 'grad_norm'.
Logs = Mapping[str, Mapping[str, Array]]
# Collections that no step moves, so that all replicas hold the same bits for good.
FIXED = ('base',)


class Net(struct.PyTreeNode):
  """One network while it trains.

  params: what gradients move. opt_state: its optimiser's. collections: every other collection of
  the module, by name (`{'batch_stats': ...}`). ema: a moving average of params, or ().
  """
  params: PyTree
  opt_state: PyTree = ()
  collections: PyTree = struct.field(default_factory=dict)
  ema: PyTree = ()

  @classmethod
  def of(cls, variables: Mapping[str, PyTree]) -> Net:
    """A network that does not train, from what `module.apply` takes."""
    return cls(variables['params'], collections={
        kind: leaves for kind, leaves in variables.items() if kind != 'params'})

  @property
  def variables(self) -> dict[str, PyTree]:
    """What `module.apply` takes, with the weights as trained."""
    return {'params': self.params, **self.collections}

  @property
  def averaged(self) -> dict[str, PyTree]:
    """What `module.apply` takes, with the moving average where there is one: for evaluation."""
    return {'params': self.ema or self.params, **self.collections}


class TrainState(struct.PyTreeNode):
  """Arrays only: save it, donate it, print it. Building one anew never retraces a step.

  step: int32 [], how many steps were taken; also the position in the data.
  rng: the root key of the run (a typed key), never changed.
  nets: the networks that learn, by role. frozen: those that only teach or measure, as module
    variables, by role.
  replica_state: per-replica arrays `[replicas, ...]` (image pools); all else is equal on every
    replica.
  """
  step: Array
  rng: Array
  nets: dict[str, Net]
  frozen: dict[str, PyTree] = struct.field(default_factory=dict)
  replica_state: PyTree = ()

  def key(self, name: str) -> Array:
    """This step's key for one named purpose, the same on every replica (rows: `Axes.sample`)."""
    key = jax.random.fold_in(self.rng, self.step)
    return jax.random.fold_in(key, zlib.crc32(name.encode()))

  @property
  def params(self) -> dict[str, PyTree]:
    return {name: net.params for name, net in self.nets.items()}

  def with_collections(self, collections: Mapping[str, PyTree], axes: Axes = Axes()) -> TrainState:
    """The state with other collections in the networks of these roles, their mean over all
    replicas; those in `FIXED` stay as they are."""
    moved = axes.mean({role: {kind: x for kind, x in new.items() if kind not in FIXED}
                       for role, new in collections.items()})
    return self.replace(nets={**self.nets, **{role: self.nets[role].replace(
        collections={**self.nets[role].collections, **new}) for role, new in moved.items()}})

  def tick(self) -> TrainState:
    return self.replace(step=self.step + 1)


class BoundGenerator(struct.PyTreeNode, eq=False):
  """A generator bound to its variables: `generator(x) -> image`, in inference mode.

  A pytree, so a jitted function takes it as an argument and no weight becomes a constant. It is
  equal to itself alone, and so has a hash: `jax.jit(generator)` works too, with constant weights.
  """
  variables: PyTree
  module: linen.Module = struct.field(pytree_node=False)

  def __call__(self, x: Array) -> Array:
    return _generate(self, x)


@functools.partial(jax.jit, inline=True)
def _generate(generator, x):
  # One program, where each operation on each shape would be compiled alone.
  return generator.module.apply(generator.variables, x, train=False)[0]


@dataclasses.dataclass(frozen=True)
class Roles:
  """Which network of a method is for what, by role.

  main: the network that the method is for. students: those that learn from a teacher. teachers:
  those that students learn from. teacher_of: {student: the teacher whose features it is compared
  with}. reverse: generators that translate target to source. disc: discriminators that learn.
  """
  main: str
  students: tuple[str, ...] = ()
  teachers: tuple[str, ...] = ()
  teacher_of: Mapping[str, str] = dataclasses.field(default_factory=dict)
  reverse: tuple[str, ...] = ()
  disc: tuple[str, ...] = ()


class Method(Protocol):
  """A frozen recipe. See `methods/` for the ones that ship; any object of this shape will do.

  main: the role of the network that the method is for.
  is_generator: whether that network is a generator.
  needs_data: False if a step uses no image of the batch but only its size.
  updates: minibatches that one step takes from its batch (discriminator updates), normally 1.
  roles: see `Roles`. modules: every network that the method has, by role.
  """
  main: str
  is_generator: bool
  needs_data: bool
  updates: int

  @property
  def roles(self) -> Roles: ...

  @property
  def modules(self) -> dict[str, linen.Module]: ...

  def init(self, rng: Array, batch: Batch,
           init_from: Mapping[str, Net] | None = None) -> TrainState:
    """A fresh state; `init_from` holds trained networks to start or learn from, by role."""
    ...

  def step(self, state: TrainState, batch: Batch, axes: Axes = Axes()) -> tuple[TrainState, Logs]:
    """Moves every network whose turn it is once. `batch` holds float32 images in [-1, 1]."""
    ...

  def generators(self, state: TrainState) -> dict[str, BoundGenerator]:
    """The generators, by role."""
    ...


def stop_gradient(x: PyTree) -> PyTree:
  """`jax.lax.stop_gradient`: a value that this loss may not change."""
  return jax.lax.stop_gradient(x)


def normalise(batch: Batch) -> Batch:
  """uint8 images [B,H,W,C] of the wire, 0..255, become float32 in [-1, 1], and so do uint16 ones,
  0..65535; other leaves stay."""
  return {name: x.astype(jnp.float32) / (jnp.iinfo(x.dtype).max / 2) - 1
          if x.dtype in (jnp.uint8, jnp.uint16) and x.ndim == 4 else x for name, x in batch.items()}


def in_colour(images):
  """What people, and networks that know RGB, are shown of images [B,H,W,C] in [-1, 1]: [B,H,W,3].

  Grey is repeated; of 2 and 4 channels the last is alpha, on white; of more the first three are
  taken. NumPy or jax.
  """
  channels = images.shape[-1]
  if channels == 3:
    return images
  if channels in (2, 4):
    alpha = (images[..., -1:] + 1) / 2
    images = images[..., :-1] * alpha + (1 - alpha)
  return images[..., :3] if channels >= 3 else images.repeat(3, -1)


def rows(batch: Batch) -> int:
  """How many samples a batch holds."""
  return len(next(iter(batch.values())))
