"""Which term of a loss moves which network how much."""

from __future__ import annotations

import jax
import optax

from jaxgan_compress.core import Batch, Method, TrainState, flatten_logs


def term_gradients(method: Method, state: TrainState, batch: Batch) -> dict[str, dict[str, float]]:
  """{'student/ssim_wide': {role: norm of its gradient}} of every term of `method.losses`, at this
  state.

  method: one that has `losses(params, state, batch)`: OMGD, OMGDCycle, Offline, CycleGAN. batch: as
  of its step, float32 images in [-1, 1]; state as `init` makes it or `fit` yields it (of several
  replicas, the first one's image pools count). It takes one forward pass and a backward pass a
  term. Roles that a term does not reach are left out. Raises ValueError for another method.
  """
  losses = getattr(method, 'losses', None)  # methods of image-to-image translation have it
  if losses is None:
    raise ValueError(f'{type(method).__name__} has no losses(params, state, batch) to ask; '
                     'OMGD, OMGDCycle, Offline and CycleGAN have')
  one = state.replace(replica_state=jax.tree.map(lambda x: x[0], state.replica_state))

  @jax.jit
  def norms(params, state, batch):
    terms, pull = jax.vjp(lambda p: flatten_logs(losses(p, state, batch)[1][0]), params)
    zeros = jax.tree.map(lambda x: 0 * x, terms)
    return {name: {role: optax.tree.norm(grad) for role, grad in pull(
        {**zeros, name: 1 + 0 * terms[name]})[0].items()} for name in terms}

  return {name: {role: float(norm) for role, norm in by_role.items() if norm}
          for name, by_role in norms(one.params, one, batch).items()}
