"""How one replica's step talks to its peers."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Axes:
  """The mapped axes around a step; `Axes()` is a replica that is alone.

  mesh: axes of devices, outermost first. inner: axes of virtual replicas on one device.
  """
  mesh: tuple[str, ...] = ()
  inner: tuple[str, ...] = ()

  def mean(self, tree):
    """The mean over all replicas, of the same dtypes; identity when alone."""
    mean = tree
    for names in (self.inner, self.mesh):
      if names:
        mean = jax.lax.pmean(mean, names)
    # A count stays an integer; another dtype would compile the step anew.
    return jax.tree.map(lambda x, new: jnp.asarray(new, jnp.result_type(x)), tree, mean)

  def gather(self, x):
    """x [rows, ...] of all replicas, in the order of their numbers: [count * rows, ...].

    Gradients flow back to the replica that each row came from, the sum of what every replica made
    of it, so `mean` of them is the gradient of one loss of the whole.
    """
    for name in reversed(self.mesh + self.inner):
      x = jax.lax.all_gather(x, name, tiled=True)
    return x

  @property
  def count(self) -> int:
    """How many replicas there are."""
    return math.prod(jax.lax.axis_size(name) for name in self.mesh + self.inner)

  def index(self):
    """This replica's number, 0 .. count-1, devices first (int32 [])."""
    number = jnp.int32(0)
    for name in self.mesh + self.inner:
      number = number * jax.lax.axis_size(name) + jax.lax.axis_index(name)
    return number

  def sample(self, sampler, key, shape):
    """`sampler(key, shape[1:])` for each of this replica's `shape[0]` rows.

    A row's key depends on its number in the whole batch, so the random numbers do not depend on
    how many replicas share the batch.
    """
    numbers = self.index() * shape[0] + jnp.arange(shape[0])
    return jax.vmap(lambda row: sampler(jax.random.fold_in(key, row), shape[1:]))(numbers)
