"""The nouns of the library: a network in motion, the state of a run, a method.

Whatever changes during training lives in `TrainState` and is an array; behaviour lives in frozen
values (modules, methods, optimisers) that are never stored.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Mapping
from typing import Any, Protocol

import flax
import jax
import jax.numpy as jnp
import optax
from flax import linen

from jaxgan_compress.core import xla
from jaxgan_compress.core.axes import Axes

Array = jax.Array
PyTree = Any
Batch = Mapping[str, Array]
Logs = Mapping[str, Array]

SMALL = 2 ** 14  # numbers of an array


@flax.struct.dataclass
class Net:
  """One network in motion.

  params: what gradients move. opt_state: its optimiser's. stats: every other collection of the
  module, by name (`{'batch_stats': ...}`). ema: a moving average of params, or ().
  """
  params: PyTree
  opt_state: PyTree = ()
  stats: PyTree = flax.struct.field(default_factory=dict)
  ema: PyTree = ()

  @classmethod
  def of(cls, variables: Mapping[str, PyTree]) -> Net:
    """A network at rest, of what `module.apply` takes."""
    return cls(variables['params'], stats={
        kind: leaves for kind, leaves in variables.items() if kind != 'params'})

  @property
  def variables(self) -> dict[str, PyTree]:
    """What `module.apply` takes, with the weights as trained."""
    return {'params': self.params, **self.stats}

  @property
  def averaged(self) -> dict[str, PyTree]:
    """What `module.apply` takes, with the moving average where there is one: for evaluation."""
    return {'params': self.ema or self.params, **self.stats}


@flax.struct.dataclass
class TrainState:
  """Arrays only: save it, donate it, print it. Building one anew never retraces a step.

  step: int32 [], how many steps were taken; also the position in the data.
  rng: the root key of the run (a typed key), never changed.
  nets: who learns, by role. frozen: who only teaches, as module variables, by role.
  memory: per-replica arrays `[replicas, ...]` (image pools); all else is equal on every replica.
  """
  step: Array
  rng: Array
  nets: dict[str, Net]
  frozen: dict[str, PyTree] = flax.struct.field(default_factory=dict)
  memory: PyTree = ()

  def key(self, name: str) -> Array:
    """This step's key for one named purpose, the same on every replica (rows: `Axes.draw`)."""
    key = jax.random.fold_in(self.rng, self.step)
    return jax.random.fold_in(key, zlib.crc32(name.encode()))

  @property
  def params(self) -> dict[str, PyTree]:
    return {name: net.params for name, net in self.nets.items()}

  def with_stats(self, name: str, stats: PyTree) -> TrainState:
    """The state with another set of statistics in one network."""
    return self.replace(nets={**self.nets, name: self.nets[name].replace(stats=stats)})

  def tick(self) -> TrainState:
    return self.replace(step=self.step + 1)


@functools.partial(flax.struct.dataclass, eq=False)
class Drawer:
  """A generator bound to its variables: `drawer(x) -> image`, in inference mode.

  A pytree, so a jitted function takes it as an argument and no weight becomes a constant. It is
  equal to itself alone, and so has a hash: `jax.jit(drawer)` works too, with constant weights.
  """
  variables: PyTree
  module: linen.Module = flax.struct.field(pytree_node=False)

  def __call__(self, x: Array) -> Array:
    return _drawn(self, x)


@functools.partial(jax.jit, inline=True)
def _drawn(drawer, x):
  # One program, where each operation on each shape would be compiled alone.
  return drawer.module.apply(drawer.variables, x, train=False)[0]


class Method(Protocol):
  """A frozen recipe. See `methods/` for the ones that ship; any object of this shape will do.

  product: the role of the network that the method is for, and the name of its module's field.
  draws: whether that network is a generator.
  needs_data: False if a step looks at no image; only the batch's size is then used.
  updates: minibatches that one step takes from its batch (critic updates), normally 1.

  A method may have, besides: `pupils`, {student: teacher} among the roles of its generators;
  `backwards`, the roles that draw source from target; and with `clock` a `promote(state, scores)`
  that is told how good the teachers are (see `methods.OMGDCycle`).
  """
  product: str
  draws: bool
  needs_data: bool
  updates: int

  def init(self, rng: Array, batch: Batch, given: Mapping[str, Net] | None = None) -> TrainState:
    """A fresh state; `given` holds trained networks to start or learn from, by role."""

  def step(self, state: TrainState, batch: Batch, axes: Axes = Axes()) -> tuple[TrainState, Logs]:
    """Every due learner moves once. `batch` holds float32 images in [-1, 1]."""

  def generators(self, state: TrainState) -> dict[str, Drawer]:
    """Who can draw, by role."""


def create(rng: Array, nets: Mapping[str, tuple[PyTree, optax.GradientTransformation]], *,
           frozen: Mapping[str, PyTree] | None = None, ema: tuple[str, ...] = ()) -> TrainState:
  """The state at step 0 of `{role: (variables, optimiser)}`; roles in `ema` get an average."""

  def net(name, variables, tx):
    # Own copies: a step donates its state, and no buffer may be donated twice.
    stats, params = flax.core.pop(jax.tree.map(jnp.array, dict(variables)), 'params')
    average = jax.tree.map(jnp.array, params) if name in ema else ()
    return Net(params, tx.init(params), dict(stats), average)

  return TrainState(
      jnp.zeros((), jnp.int32), rng, {name: net(name, *given) for name, given in nets.items()},
      jax.tree.map(jnp.array, dict(frozen or {})))


def advance(state: TrainState, grads: Mapping[str, PyTree],
            tx: Mapping[str, optax.GradientTransformation], axes: Axes = Axes(), *,
            ema: float = 0.) -> tuple[TrainState, dict[str, Array]]:
  """Moves the networks named in `grads`; returns the state and each gradient's norm.

  The one place where gradients of different replicas meet. `ema` is the decay of the moving
  averages that the state keeps (networks without one are not given one).
  """
  nets, norms = dict(state.nets), {}
  for name, grad in axes.mean(dict(grads)).items():
    net = nets[name]
    params, opt_state, average = _update(tx[name], ema)(grad, net.params, net.opt_state, net.ema)
    nets[name] = net.replace(params=params, opt_state=opt_state, ema=average)
    norms[f'grad_{name}'] = _norm(grad)
  return state.replace(nets=nets), norms


def _update(tx, ema):
  # Whole, it waits for all gradients, so XLA:CPU need not copy old parameters for the last ones.
  @xla.kept_whole
  def update(grad, params, opt_state, average):
    updates, opt_state = tx.update(grad, opt_state, params)
    params = optax.apply_updates(params, updates)
    if average:
      average = jax.tree.map(lambda old, new: ema * old + (1 - ema) * new, average, params)
    return params, opt_state, average

  return update


def _norm(tree):
  """The Euclidean norm of all leaves together. The small ones are laid end to end, for sums of
  each would be one in twelve of all operations of OMGD's step."""
  leaves = [x.ravel() for x in jax.tree.leaves(tree)]
  large = [x for x in leaves if x.size >= SMALL]
  small = [x for x in leaves if x.size < SMALL]
  squares = (jnp.vdot(x, x, precision='highest')
             for x in large + ([jnp.concatenate(small)] if small else []))
  return jnp.sqrt(sum(squares))


def fixed(x: PyTree) -> PyTree:
  """`jax.lax.stop_gradient`: a value that this learner may not change."""
  return jax.lax.stop_gradient(x)


def normalise(batch: Batch) -> Batch:
  """uint8 images [B,H,W,C] of the wire, 0..255, become float32 in [-1, 1]; other leaves stay."""
  return {name: x.astype(jnp.float32) / 127.5 - 1 if x.dtype == jnp.uint8 and x.ndim == 4 else x
          for name, x in batch.items()}


def rows(batch: Batch) -> int:
  """How many samples a batch holds."""
  return len(next(iter(batch.values())))
