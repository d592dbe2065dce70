"""Initial weights without compiling a random program for every layer."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import linen

SCHEMES = {
    # Standard deviation of a kernel's zero-mean normal entries, from its fan-in.
    'normal': lambda fan_in: 0.02,                   # DCGAN
    'he': lambda fan_in: math.sqrt(2 / fan_in),      # ReLU classifiers
}


def initialise(module: linen.Module, key: jax.Array, *inputs, scheme: str = 'normal'):
  """The variables of `module`: kernels by `scheme`, biases 0, scales 1, other collections as is.

  One draw serves all kernels, which starts a run in a fraction of the time of `module.init`
  (one compiled random program per shape). `inputs` may be `jax.ShapeDtypeStruct`.

  Raises ValueError for an unknown scheme or a parameter that no rule covers.
  """
  if scheme not in SCHEMES:
    raise ValueError(f'init scheme {scheme!r}; one of {", ".join(SCHEMES)}')
  shapes = jax.eval_shape(module.init, key, *inputs)
  leaves = jax.tree_util.tree_leaves_with_path(shapes['params'])
  kernels = sum(x.size for path, x in leaves if path[-1].key == 'kernel')
  # Powers of two: few distinct programs, so that the compilation cache nearly always hits.
  noise = jax.random.normal(key, (1 << max(kernels - 1, 1).bit_length(),))
  used = 0

  def fill(path, x):
    nonlocal used
    name = path[-1].key
    if name == 'kernel':
      used += x.size
      std = SCHEMES[scheme](math.prod(x.shape[:-1]))
      return (std * noise[used - x.size:used].reshape(x.shape)).astype(x.dtype)
    if name in ('bias', 'mean'):
      return jnp.zeros(x.shape, x.dtype)
    if name in ('scale', 'var'):
      return jnp.ones(x.shape, x.dtype)
    raise ValueError(f'no initial value for {jax.tree_util.keystr(path)}; call module.init instead')

  return jax.tree_util.tree_map_with_path(fill, shapes)
