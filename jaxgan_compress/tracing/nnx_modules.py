"""Models of nnx as functions of their arrays, and the same models with smaller arrays."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util
from flax.nnx import bridge

from jaxgan_compress.tracing.plan import Path


def _stays(path, x) -> bool:
  """Whether an array is no leaf but kept with the model: random state, counts, masks and other
  integers, Python's numbers, and arrays of NumPy, which code may take for numbers that it knows."""
  return isinstance(x, np.ndarray) or not all(
      isinstance(leaf, jax.Array | np.ndarray | jax.ShapeDtypeStruct)
      and jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(x))


# What a call leaves behind is no leaf, either.
RESTING = _stays, nnx.Intermediate


def variables_of(model: nnx.Module) -> dict[str, Any]:
  """{collection: nested dict of arrays} of a model, as linen has them: 'params', 'batch_stats', and
  other kinds of Variable by their class ('cache' of `nnx.Cache`); 'arrays' are those that are no
  Variable. Keys are strings. An array used twice is one leaf, where it is found first. Floats alone
  are leaves; random state, counts and masks stay with the model.
  """
  return traverse_util.unflatten_dict(_named(nnx.state(model, nnx.Not(RESTING))))


def function_of(model: nnx.Module, args: tuple, kwargs: Mapping[str, Any], train: bool = False
                ) -> Callable:
  """(variables, inputs) -> (output, new states) of a call in inference or in training mode.

  variables: see `variables_of`; of other shapes, too. The states are those that the call changed.
  The model itself stays as it is.
  """

  def call(variables, *inputs):
    made = _with(model, variables)
    made.train() if train else made.eval()
    out = made(*inputs, *args, **kwargs)
    given = traverse_util.flatten_dict(dict(variables))
    now = _named(nnx.state(made, nnx.Not(RESTING)))
    return out, traverse_util.unflatten_dict(
        {path: x for path, x in now.items() if path in given and x is not given[path]})

  return call


def trains_otherwise(model: nnx.Module) -> bool:
  """Whether a model tells inference and training apart."""
  made = _with(model, variables_of(model))
  made.train()
  training = nnx.graphdef(made)
  made.eval()
  return training != nnx.graphdef(made)


def small_model(model: nnx.Module, variables: Mapping[str, Any]) -> nnx.Module:
  """A model of the same code with these arrays, which may be smaller, ready to train and to call.

  variables: all of `variables_of(model)`. Attributes of the layers of nnx that repeat a size follow
  the arrays; the mode and the state of random numbers are the model's, which stays as it is.

  Raises ValueError where leaves are missing or unknown, and where a module of linen that the model
  holds would have to have other sizes than its fields say.
  """
  return _with(model, jax.tree.map(
      lambda x: x if isinstance(x, jax.ShapeDtypeStruct) else jnp.asarray(x),
      checked(model, variables)))


def checked(model: nnx.Module, variables: Mapping[str, Any]) -> dict[str, Any]:
  """The variables, if they are the leaves of a model; else raises ValueError."""
  known = set(traverse_util.flatten_dict(variables_of(model)))
  given = set(traverse_util.flatten_dict(dict(variables)))
  if given != known:
    said = [f'{what} {", ".join("/".join(map(str, path)) for path in sorted(paths)[:3])}'
            for what, paths in (('without', known - given), ('with unknown', given - known))
            if paths]
    raise ValueError(f'variables {" and ".join(said)}: take those of nnx_modules.variables_of(model'
                     f'), which has {len(known)} leaves')
  return dict(variables)


def _with(model, variables):
  """A new model with other arrays, its layers' sizes set to them."""
  definition, rest, state = nnx.split(model, RESTING, ...)
  own = _named(state)
  given: dict[Path, Any] = traverse_util.flatten_dict(dict(variables))
  # Variables made anew: those that split and merge hand on are the user's own.
  state = jax.tree.unflatten(jax.tree.structure(state), [given[path] for path in own])
  made = nnx.merge(definition, jax.tree.map(_concrete, rest), state)
  changed = {path[1:] for path, x in own.items() if x.shape != given[path].shape}
  for place, layer in nnx.iter_modules(made):
    if isinstance(layer, bridge.ToNNX) and any(
        path[:len(place)] == tuple(map(str, place)) for path in changed):
      raise ValueError('a module of linen inside a model of nnx has the sizes of its fields alone')
    for kind, sizes in _SIZES.items():
      if isinstance(layer, kind):
        for name, value in sizes(layer).items():
          if vars(layer).get(name, value) != value:
            setattr(layer, name, value)
  return made


def _concrete(x):
  """Random state of a model that was made of shapes alone."""
  if not isinstance(x, jax.ShapeDtypeStruct):
    return x
  if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
    return jnp.broadcast_to(jax.random.key(0), x.shape)
  return jnp.zeros(x.shape, x.dtype)


def _named(state) -> dict[Path, Any]:
  """{(collection, ..., name): array} of a state, in the order of its leaves."""
  found = {}
  variables = jax.tree_util.tree_flatten_with_path(
      state, is_leaf=lambda x: isinstance(x, nnx.Variable))[0]
  for path, variable in variables:
    inside = jax.tree_util.tree_flatten_with_path(variable)[0]
    for place, x in inside:
      # A Variable may hold a tree: its first key is that of its value.
      keys = [part for key in (*path, *place[1:]) for part in _parts(key)]
      found[_collection(variable), *keys] = x
  return found


def _parts(key):
  key = next(getattr(key, name) for name in ('key', 'idx', 'name') if hasattr(key, name))
  return [str(part) for part in (key if isinstance(key, tuple) else (key,))]


def _collection(variable):
  if isinstance(variable, nnx.Param):
    return 'params'
  if isinstance(variable, nnx.BatchStat):
    return 'batch_stats'
  if not isinstance(variable, nnx.Variable):
    return 'arrays'
  return re.sub('(?<=[a-z0-9])(?=[A-Z])', '_', type(variable).__name__).lower()


# Arrays may have further axes in front, as `nnx.vmap` stacks them.
def _linear(layer) -> dict[str, Any]:
  return dict(zip(('in_features', 'out_features'), layer.kernel.shape[-2:], strict=True))


def _linear_general(layer):
  *before, last = len(layer.batch_axis), len(layer.in_features), len(layer.out_features)
  shape = layer.kernel.shape[-sum(before) - last:]
  return {'in_features': shape[before[0]:-last], 'out_features': shape[-last:],
          'batch_axis': type(layer.batch_axis)(zip(layer.batch_axis, shape, strict=False))}


def _einsum(layer):
  sizes = {'kernel_shape': layer.kernel.shape[-len(layer.kernel_shape):]}
  if layer.bias is not None:
    sizes['bias_shape'] = layer.bias.shape[-len(layer.bias_shape):]
  return sizes


def _conv(layer):
  shape = layer.kernel.shape[-len(layer.kernel_shape):]
  groups = layer.feature_group_count
  if groups > 1 and layer.kernel_shape[-2] == 1:  # depthwise: a group is a channel
    groups = shape[-1] * groups // layer.out_features
  return {'kernel_shape': shape, 'feature_group_count': groups, 'in_features': groups * shape[-2],
          'out_features': shape[-1]}


def _conv_transpose(layer):
  shape = layer.kernel.shape[-len(layer.kernel_shape):]
  sizes = shape[:-3:-1] if layer.transpose_kernel else shape[-2:]
  return {'kernel_shape': shape, 'in_features': sizes[0], 'out_features': sizes[1]}


def _embed(layer) -> dict[str, Any]:
  return dict(zip(('num_embeddings', 'features'), layer.embedding.shape[-2:], strict=True))


def _norm(layer):
  features = next((x.shape[-1] for name in ('scale', 'bias', 'mean')
                   if (x := getattr(layer, name, None)) is not None), None)
  return {} if features is None else {'num_features': features}


def _group_norm(layer):
  sizes = _norm(layer)
  if sizes and layer.group_size == 1:
    sizes['num_groups'] = sizes['num_features']
  elif sizes:
    sizes['group_size'] = sizes['num_features'] // layer.num_groups
  return sizes


def _attention(layer):
  features, *heads = layer.query.kernel.shape[-3:]
  others, kv_heads, _ = layer.key.kernel.shape[-3:]
  return {'in_features': features, 'num_heads': heads[0], 'head_dim': heads[1],
          'qkv_features': math.prod(heads), 'in_kv_features': others, 'num_kv_heads': kv_heads,
          'out_features': layer.out.kernel.shape[-1]}


def _lora(layer):
  return {'in_features': layer.lora_a.shape[-2], 'out_features': layer.lora_b.shape[-1]}


def _cell(layer):
  hidden = layer.hi if isinstance(layer, nnx.LSTMCell) else layer.dense_h
  inputs = layer.ii if isinstance(layer, nnx.LSTMCell) else layer.dense_i
  return {'in_features': inputs.kernel.shape[-2], 'hidden_features': hidden.kernel.shape[-2]}


# {layer: the sizes that its attributes repeat, off its arrays}.
_SIZES: dict[Any, Callable[[Any], dict[str, Any]]] = {
    nnx.Linear: _linear, nnx.LinearGeneral: _linear_general, nnx.Einsum: _einsum, nnx.Conv: _conv,
    nnx.ConvTranspose: _conv_transpose, nnx.Embed: _embed, nnx.GroupNorm: _group_norm,
    (nnx.BatchNorm, nnx.LayerNorm, nnx.RMSNorm, nnx.InstanceNorm): _norm,
    nnx.MultiHeadAttention: _attention, nnx.LoRA: _lora,
    (nnx.LSTMCell, nnx.OptimizedLSTMCell, nnx.GRUCell, nnx.SimpleCell): _cell,
}
