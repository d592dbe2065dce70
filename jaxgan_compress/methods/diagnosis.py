"""Which term of a loss pulls how hard at which network."""

from __future__ import annotations

import jax
import optax

from jaxgan_compress.core import Batch, Method, TrainState


def term_gradients(method: Method, state: TrainState, batch: Batch) -> dict[str, dict[str, float]]:
  """{term: {role: norm of its gradient}} of every term of `method.losses`, at this state.

  method: one that has `losses(params, state, batch)`: OMGD, OMGDCycle, Offline, CycleGAN. batch: as
  of its step, float32 images in [-1, 1]; state as `init` makes it or `fit` yields it (of several
  replicas, the first one's memory counts). One forward pass and a backward pass a term: for a look
  now and then. Roles that a term does not reach are left out. Raises ValueError for another method.
  """
  if not hasattr(method, 'losses'):
    raise ValueError(f'{type(method).__name__} has no losses(params, state, batch) to ask; '
                     'OMGD, OMGDCycle, Offline and CycleGAN have')
  one = state.replace(memory=jax.tree.map(lambda x: x[0], state.memory))

  @jax.jit
  def norms(params, state, batch):
    terms, pull = jax.vjp(lambda p: method.losses(p, state, batch)[1][0], params)
    zeros = jax.tree.map(lambda x: 0 * x, terms)
    return {name: {role: optax.tree.norm(grad) for role, grad in pull(
        {**zeros, name: 1 + 0 * terms[name]})[0].items()} for name in terms}

  return {name: {role: float(norm) for role, norm in found.items() if norm}
          for name, found in norms(one.params, one, batch).items()}
