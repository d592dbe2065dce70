"""Initial weights without compiling a random program for every layer."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, traverse_util
from jax.core import Tracer

from jaxgan_compress.nn.layers import conv_dispatch
from jaxgan_compress.nn.layers.inputs import example
from jaxgan_compress.nn.layers.norms import BatchNorm, shapes_alone


@dataclasses.dataclass(frozen=True)
class Scheme:
  """Kernels are N(0, std(fan_in, fan_out)^2), scales of batch norms N(1, norm_std^2)."""
  std: Callable[[int, int], float]
  norm_std: float = 0.


SCHEMES = {
    'dcgan': Scheme(lambda fan_in, fan_out: 0.02),  # scales 1, as in our KD runs
    'normal': Scheme(lambda fan_in, fan_out: 0.02, 0.02),  # pix2pix, CycleGAN, OMGD, CAT
    'xavier': Scheme(lambda fan_in, fan_out: 0.02 * math.sqrt(2 / (fan_in + fan_out)), 0.02),
    'he': Scheme(lambda fan_in, fan_out: math.sqrt(2 / fan_in)),  # ReLU classifiers
}


def remembered(function: Callable, count: int = 64) -> Callable:
  """A function of networks that keeps its last `count` results: networks are values, and to trace
  one takes up to seconds. Results for a network with a field that has no hash are not kept."""

  @functools.lru_cache(maxsize=count)
  def cached(float_dtype, *args):
    return function(*args)

  @functools.wraps(function)
  def call(*args):
    try:
      hash(args)
    except TypeError:
      return function(*args)
    return cached(jnp.result_type(float), *args)

  return call


def flat(variables, sep: str = '/') -> dict[str, Any]:
  """The leaves of variables by path: {'params/conv1/kernel': leaf}."""
  return traverse_util.flatten_dict(dict(variables), sep=sep)


def shapes(module: linen.Module, *inputs):
  """The variables of `module` as `jax.ShapeDtypeStruct`s, which are shared: not to be changed.

  inputs: as of `initialise`.
  """
  return _look(module, *_specs(module, inputs))[0]


def _specs(module, inputs):
  return jax.eval_shape(lambda *x: x, *(inputs or (example(module),)))


@remembered
def _look(module, *inputs):
  """(shapes of the variables, paths of batch norms)."""
  batch_norms = set()

  def note(call, args, kwargs, context):
    if isinstance(context.module, BatchNorm | linen.BatchNorm):
      batch_norms.add(context.module.path)
    return call(*args, **kwargs)

  # Fewer operations, the same parameters.
  with conv_dispatch.reference(), shapes_alone(), linen.intercept_methods(note):
    return jax.eval_shape(module.init, jax.random.key(0), *inputs), batch_norms


def initialise(module: linen.Module, key: jax.Array, *inputs, scheme: str = 'dcgan'):
  """The variables of `module`: kernels by `scheme`, biases 0, other collections as is.

  'normal' and 'xavier' are the 0.02-gain schemes of the image-to-image papers: they draw the scales
  of batch norms too, while instance norms start at 1, as published code has it. SPADE takes
  'xavier', whose kernels start 50 times smaller than Glorot's. Spectral vectors are random and of
  length 1.

  One draw serves all kernels, which starts a run in a fraction of the time of `module.init`
  (one compiled random program per shape). `inputs` may be `jax.ShapeDtypeStruct`; without any,
  `module.example()` is taken.

  Raises ValueError for an unknown scheme or a parameter that no rule covers; in a `Wrapped` network
  such a parameter starts as the network has it.
  """
  if scheme not in SCHEMES:
    raise ValueError(f'init scheme {scheme!r}; one of {", ".join(SCHEMES)}')
  if 'adapted' in dir(module):  # of low rank: the scheme is that of its base
    return module.adapted(initialise(module.network, key, *inputs, scheme=scheme), key)
  rule = SCHEMES[scheme]
  specs = _specs(module, inputs)
  shapes, batch_norms = _look(module, *specs)

  def std(path, x):
    """The deviation of the noise in this leaf; None where it has none."""
    collection, *inside, name = (part.key for part in path)
    if name == 'kernel':
      receptive = math.prod(x.shape[:-2])
      return rule.std(receptive * x.shape[-2], receptive * x.shape[-1])
    if name == 'scale' and tuple(inside) in batch_norms and rule.norm_std:
      return rule.norm_std
    return 1. if collection == 'spectral' else None

  leaves = jax.tree_util.tree_leaves_with_path(shapes)
  total = sum(x.size for path, x in leaves if std(path, x) is not None)
  # Powers of two: few distinct programs, so that the compilation cache nearly always hits.
  noise = jax.random.normal(key, (1 << max(total - 1, 1).bit_length(),))
  traced = isinstance(noise, Tracer)
  # On the host, for JAX would compile a slice and a product for every shape that there is.
  xp, noise = (jnp, noise) if traced else (np, np.asarray(noise))
  used = 0
  uncovered = _uncovered(module, key, specs)

  def fill(path, x):
    nonlocal used
    name, scale = path[-1].key, std(path, x)
    start = {'bias': 0, 'mean': 0, 'count': 0, 'scale': 1, 'var': 1, 'slope': 0.25}.get(name)
    if scale is None:
      return uncovered(path) if start is None else xp.full(x.shape, start, x.dtype)
    used += x.size
    sample = noise[used - x.size:used].reshape(x.shape)
    if name in ('u', 'v'):
      return (sample / xp.linalg.norm(sample)).astype(x.dtype)
    return ((start or 0) + scale * sample).astype(x.dtype)

  return jax.tree.map(jnp.asarray, jax.tree_util.tree_map_with_path(fill, shapes))


def _uncovered(module, key, specs) -> Callable:
  """path -> the first value of a leaf that no rule covers: as a `Wrapped` network has it."""

  @functools.cache
  def own():
    return traverse_util.flatten_dict(module.first(
        *(jnp.zeros(spec.shape, spec.dtype) for spec in specs), key))

  def value(path):
    if 'first' not in dir(module):
      raise ValueError(f'no initial value for {jax.tree_util.keystr(path)}; call module.init '
                       'instead')
    return own()[tuple(part.key for part in path)]

  return value
