"""How a step changes a state: gradients meet, networks move, logs are put together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.core import pop

from jaxgan_compress.core import xla
from jaxgan_compress.core.axes import Axes
from jaxgan_compress.core.state import Array, Logs, Net, PyTree, TrainState

SMALL = 2 ** 14  # numbers in an array
Transformations = Mapping[str, optax.GradientTransformation]


def create(rng: Array, nets: Mapping[str, tuple[PyTree, optax.GradientTransformation]], *,
           frozen: Mapping[str, PyTree] | None = None, ema: Iterable[str] = ()) -> TrainState:
  """The state at step 0 of `{role: (variables, optimiser)}`; roles in `ema` get an average."""
  averaged = set(ema)

  def net(role, variables, tx):
    # Own copies: a step donates its state, and no buffer may be donated twice.
    collections, params = pop(jax.tree.map(jnp.array, dict(variables)), 'params')
    average = jax.tree.map(jnp.array, params) if role in averaged else ()
    return Net(params, tx.init(params), dict(collections), average)

  return TrainState(
      jnp.zeros((), jnp.int32), rng, {role: net(role, *pair) for role, pair in nets.items()},
      jax.tree.map(jnp.array, dict(frozen or {})))


def advance(state: TrainState, grads: Mapping[str, PyTree], tx: Transformations,
            axes: Axes = Axes(), *, ema: float = 0.) -> tuple[TrainState, Logs]:
  """Moves the networks named in `grads`; returns the state and `{'grad_norm': {network: value}}`.

  The one place where gradients of different replicas meet. `ema` is the decay of the moving
  averages that the state keeps (networks without one are not given one).
  """
  nets, norms = dict(state.nets), {}
  for role, grad in xla.in_order(axes.mean(dict(grads))).items():
    net = nets[role]
    params, opt_state, average = _update(tx[role], ema)(grad, net.params, net.opt_state, net.ema)
    nets[role] = net.replace(params=params, opt_state=opt_state, ema=average)
    norms[role] = _norm(grad)
  return state.replace(nets=nets), {'grad_norm': norms}


def update_together(state: TrainState, losses: Callable[[Mapping[str, PyTree]], tuple[Any, Any]],
                    learners: Iterable[str], tx: Transformations, axes: Axes = Axes(), *,
                    ema: float = 0.) -> tuple[TrainState, Logs]:
  """One step in which every learner moves by the gradient of one sum of losses, all taken at the
  parameters before the step.

  losses: {role: params} of all networks -> ({learner: loss}, (logs, {role: new collections},
  replica_state)). Each loss stops the gradients to what it may not change, so the gradient of the
  sum is each learner's own.
  """
  def total(params):
    values, rest = losses({**state.params, **params})
    return sum(values.values()), rest

  grads, (logs, collections, replica_state) = jax.grad(total, has_aux=True)(
      {role: state.params[role] for role in learners})
  state, norms = advance(state, grads, tx, axes, ema=ema)
  state = state.with_collections(collections, axes).replace(replica_state=replica_state)
  return state.tick(), merge_logs(axes.mean(logs), norms)


def merge_logs(*logs: Logs) -> dict[str, dict[str, Array]]:
  """All entries of several logs in one."""
  merged: dict[str, dict[str, Array]] = {}
  for each in logs:
    for role, terms in each.items():
      merged.setdefault(role, {}).update(terms)
  return merged


def flatten_logs(logs: Mapping[str, Any]) -> dict[str, Any]:
  """{'student/loss': value} of `{'student': {'loss': value}}`; other entries stay."""
  flat = {}
  for name, value in logs.items():
    flat |= {f'{name}/{term}': x for term, x in value.items()} if isinstance(value, Mapping) \
        else {name: value}
  return flat


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
