"""Whether all replicas leave a step with the same state, which tracing cannot tell."""

import jax
import jax.numpy as jnp

from jaxgan_compress.core import Axes


def replica_disagreement(step, state, batch, replicas=2):
  """Names of the leaves of the new shared state that differ between replicas; [] is right.

  It finds an `axes.mean` that was taken over too few axes or of the wrong value. `replica_state`,
  which may differ, is left out.
  """

  def one(memory, batch):
    new, _ = step(state.replace(replica_state=memory), batch, Axes(inner=('replica',)))
    return new.replace(replica_state=(), rng=jax.random.key_data(new.rng))

  batch = jax.tree.map(lambda x: x.reshape(replicas, -1, *x.shape[1:]), batch)
  new = jax.jit(jax.vmap(one, axis_name='replica'))(state.replica_state, batch)
  return [jax.tree_util.keystr(path) for path, x in jax.tree_util.tree_leaves_with_path(new)
          if not bool(jnp.all(x == x[:1]))]
