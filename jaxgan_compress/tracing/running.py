"""The same module with smaller arrays."""

from __future__ import annotations

import functools
from typing import Any

import jax
from flax import linen
from flax.core import meta


def with_arrays_as_given(axis_name: Any = None):
  """A context in which modules of linen take parameters of other shapes than their fields say, and
  layers whose fields repeat a size follow their arrays. What depends on a size reads it off them.

  axis_name: of mapped axes, over which batch norms that name none then average.
  """
  return linen.intercept_methods(functools.partial(_fitted, axis_name))


def _fitted(axis_name, call, args, kwargs, context):
  module = context.module
  scope = module.scope
  if scope is not None and 'param' not in vars(scope):
    # Scope.param is the one place where Flax compares shapes.
    scope.param = functools.partial(_param, scope)
  if context.method_name == '__call__' and scope is not None:
    changed = {name: value for name, value in _sizes(module, axis_name, args).items()
               if vars(module)[name] != value}
    if changed:
      return module.clone(parent=scope, name=None, **changed)(*args, **kwargs)
  return call(*args, **kwargs)


def _param(scope, name, *args, **kwargs):
  if not scope.has_variable('params', name):
    return type(scope).param(scope, name, *args, **kwargs)
  scope.reserve(name, 'params')
  value = scope.get_variable('params', name)
  return meta.unbox(value) if kwargs.get('unbox', True) else value


def _sizes(module: Any, axis_name, args) -> dict[str, Any]:
  """Fields of a layer that its arrays decide."""
  if isinstance(module, linen.BatchNorm):
    return {'axis_name': axis_name} if axis_name and module.axis_name is None else {}
  scope = module.scope
  if not isinstance(module, linen.Conv | linen.DenseGeneral) or \
      not scope.has_variable('params', 'kernel'):
    return {}
  shape = jax.typeof(meta.unbox(scope.get_variable('params', 'kernel'))).shape
  if isinstance(module, linen.Conv):
    if module.feature_group_count == 1:
      return {}
    return {'feature_group_count': args[0].shape[-1] // shape[-2], 'features': shape[-1]}
  axis = module.axis if isinstance(module.axis, tuple) else (module.axis,)
  batch = module.batch_dims
  features = shape[len(batch) + len(axis):]
  return {'features': features if isinstance(module.features, tuple) else features[0]}
