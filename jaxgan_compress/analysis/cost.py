"""Parameters, multiply-accumulates, milliseconds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

import jax
import numpy as np
from flax import linen

from jaxgan_compress.nn import forms

CONVENTIONS = ('paper', 'all')


def count_params(variables: Mapping, convention: str = 'all') -> int:
  """Parameters of a network, from its variables (or their shapes).

  'all': every entry of 'params'. 'paper': as Aguinaldo et al. 2019 counted, weights and biases of
  convolutions only, norms left out, and the last layer (`to_image`) with one output channel even
  where it draws colour. Running statistics are never parameters.

  Raises ValueError for another convention.
  """
  if convention not in CONVENTIONS:
    raise ValueError(f'convention={convention!r}; one of {", ".join(CONVENTIONS)}')
  count = 0

  def walk(tree, path=()):
    nonlocal count
    if convention == 'paper' and 'scale' in tree:  # a norm
      return
    for name, x in tree.items():
      if isinstance(x, Mapping):
        walk(x, (*path, name))
      else:
        one_channel = convention == 'paper' and 'to_image' in path
        count += x.size // x.shape[-1] if one_channel else x.size

  walk(variables.get('params', variables))
  return count


def macs(module: linen.Module, shape: tuple[int, ...] | None = None) -> int:
  """Multiply-accumulates of one forward pass of convolutions and matmuls, exact.

  shape: of the input, batch 1 (default: what `module.example()` gives). A transposed convolution
  is counted on its input, the work that is done; norms and activations are not counted. Nothing
  runs: the program is traced and walked.
  """
  x = jax.ShapeDtypeStruct(shape, np.float32) if shape else module.example()
  with forms.plain():
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    program = jax.make_jaxpr(module.apply)(variables, x)
  return _walk(program.jaxpr)


def latency(functions: Mapping[str, Callable[[], object]], rounds: int = 30) -> dict[str, float]:
  """Median seconds of each function, which returns arrays; called in turn, so that they share
  whatever else the machine does."""
  for function in functions.values():
    jax.block_until_ready(function())
  taken = {name: [] for name in functions}
  for _ in range(rounds):
    for name, function in functions.items():
      start = time.perf_counter()
      jax.block_until_ready(function())
      taken[name].append(time.perf_counter() - start)
  return {name: float(np.median(seconds)) for name, seconds in taken.items()}


def _walk(jaxpr) -> int:
  total = 0
  for eqn in jaxpr.eqns:
    shapes = [v.aval.shape for v in (*eqn.invars, *eqn.outvars)]
    if eqn.primitive.name == 'conv_general_dilated':
      _, kernel, out = shapes
      spec = eqn.params['dimension_numbers'].rhs_spec
      per_output = math.prod(kernel) // kernel[spec[0]]
      total += math.prod(out) * per_output // math.prod(eqn.params['lhs_dilation'])
    elif eqn.primitive.name == 'dot_general':
      left, _, out = shapes
      contracted = eqn.params['dimension_numbers'][0][0]
      total += math.prod(out) * math.prod(left[i] for i in contracted)
    times = eqn.params.get('length', 1) if eqn.primitive.name == 'scan' else 1
    for value in eqn.params.values():
      for inner in value if isinstance(value, tuple | list) else (value,):
        inner = getattr(inner, 'jaxpr', inner)
        if hasattr(inner, 'eqns'):
          total += times * _walk(inner)
  return total
