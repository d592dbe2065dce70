"""Where the arithmetic of pruning runs."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def numpy_for(*trees):
  """jax.numpy inside a compiled function, which one of the arrays shows; else NumPy, for JAX would
  compile a program for every operation on every shape that a network has."""
  traced = any(isinstance(x, Tracer) for x in jax.tree.leaves(trees))
  return jnp if traced else np
