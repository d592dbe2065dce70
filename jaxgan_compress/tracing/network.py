"""Networks of any kind as programs: modules of linen and nnx, and functions of arrays."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
from flax import linen, nnx, traverse_util

from jaxgan_compress.tracing import nnx_modules
from jaxgan_compress.tracing.plan import Path
from jaxgan_compress.tracing.program import Call

# How networks call the argument that says whether they train, and its value where they do.
TRAINING = {'train': True, 'training': True, 'is_training': True, 'deterministic': False}
STREAMS = 'params', 'dropout'


def training_argument(network: linen.Module | nnx.Module) -> str | None:
  """The name of the argument that says whether a network trains, if it has one."""
  known = inspect.signature(type(network).__call__).parameters
  return next((name for name in TRAINING if name in known), None)


def mode(network: linen.Module | nnx.Module, train: bool) -> dict[str, Any]:
  """The argument that says whether a network trains, for a call; {} of one that has none."""
  name = training_argument(network)
  return {name: TRAINING[name] is train} if name else {}


def function_of(network: Any, *args, train: bool = False, mutable: Any = (), **kwargs) -> Callable:
  """(variables, inputs) -> (output, new states) of one call of a network.

  args, kwargs: besides the arrays. mutable: collections that the call may change.
  """
  if not isinstance(network, linen.Module | nnx.Module):
    return lambda variables, *inputs: (network(variables, *inputs, *args, **kwargs), {})
  kwargs = mode(network, train) | kwargs
  if isinstance(network, nnx.Module):
    return nnx_modules.function_of(network, args, kwargs, train)

  def call(variables, *inputs):
    out = network.apply(variables, *inputs, *args, **kwargs,
                        rngs=dict.fromkeys(STREAMS, jax.random.key(0)),
                        mutable=list(mutable) or False)
    return out if mutable else (out, {})

  return call


def shapes_of(network: Any, variables: Any, inputs: Sequence) -> dict[Path, jax.ShapeDtypeStruct]:
  """The shapes of a network's leaves by path; without variables those of a model of nnx itself, or
  of a module's `init`."""
  if isinstance(network, nnx.Module):
    variables = nnx_modules.variables_of(network) if variables is None else (
        nnx_modules.checked(network, variables))
  elif variables is None:
    variables = jax.eval_shape(network.init, jax.random.key(0), *inputs)
  flat: dict[Path, Any] = traverse_util.flatten_dict(linen.meta.unbox(dict(variables)))
  return {path: jax.ShapeDtypeStruct(x.shape, x.dtype) for path, x in flat.items()}


def functions(network: Any, collections: Iterable[str], calls: Sequence[tuple] | None = None
              ) -> list[Callable]:
  """The calls of a network as functions: those of `calls`, (args, kwargs) each; else in inference
  mode, and in training mode where the network tells the two apart."""
  states = tuple(kind for kind in sorted(collections) if kind != 'params')
  if calls is not None:
    return [function_of(network, *args, mutable=states, **kwargs) for args, kwargs in calls]
  found = [function_of(network)]
  if _trains_otherwise(network):
    found.append(function_of(network, train=True, mutable=states))
  return found


def _trains_otherwise(network):
  if isinstance(network, linen.Module | nnx.Module) and training_argument(network):
    return True
  return isinstance(network, nnx.Module) and nnx_modules.trains_otherwise(network)


def traced_call(call: Callable, shapes: Mapping[Path, jax.ShapeDtypeStruct], inputs: Sequence,
                outputs: Callable[[Any], Any] | None = None) -> Call:
  """A call of a network as a program.

  outputs: of what the network returns those that must not change; default: all.
  """
  paths = tuple(shapes)

  def flat(leaves, *inputs):
    variables = traverse_util.unflatten_dict(dict(zip(paths, leaves, strict=True)))
    out, states = call(variables, *inputs)
    return outputs(out) if outputs else (), out, traverse_util.flatten_dict(
        linen.meta.unbox(dict(states)))

  jaxpr, (pinned, out, states) = jax.make_jaxpr(flat, return_shape=True)(
      list(shapes.values()), *inputs)
  first = len(jax.tree.leaves(pinned))
  count = first + len(jax.tree.leaves(out))
  # Leaves of a dictionary come in the order of their keys.
  names = jax.tree.leaves(jax.tree_util.tree_map_with_path(lambda path, _: path[0].key, states),
                          is_leaf=lambda x: isinstance(x, tuple))
  numbered = list(enumerate(names, count))
  return Call(jaxpr, paths, tuple(range(first) if outputs else range(first, count)),
              tuple(range(first, count)), jax.tree.structure(out),
              {i: path for i, path in numbered if path in shapes},
              {i: path for i, path in numbered if path not in shapes})
