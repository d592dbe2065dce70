"""Generators as StableHLO, in an artefact of `jax.export`: for any program with JAX, without Flax
and without this package."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
from flax import linen
from jaxlib.version import __version__ as jaxlib_version

from jaxgan_compress.nn.layers import conv_dispatch

PLATFORMS = ('cpu', 'cuda', 'tpu')
# Releases of JAX that promise to run what another one has exported, by the days on which the
# jaxlib of each was built (docs.jax.dev, export/export.html#compatibility-guarantees).
MONTHS_NEWER, WEEKS_OLDER = 6, 3


def to_stablehlo(module: linen.Module, variables: Mapping, shape: Sequence[int]) -> bytes:
  """The network with its weights, for CPUs, GPUs and TPUs, of any batch, and of any height and
  width that it takes, where it takes images: `jax.export.deserialize(artefact).call(x)`.

  shape: of an input, [B,H,W,C] or [B,latent]; the last stays. JAX promises to read the artefact for
  a while, see `lifetime`. Raises ImportError without the extra 'export'.
  """
  try:
    import flatbuffers  # noqa: F401 - which jax.export writes with, and jax does not require
  except ImportError as e:
    raise ImportError('StableHLO needs the extra: pip install "jaxgan-compress[export]"') from e
  dims = f'b, {shape[-1]}'
  constraints = ()
  if len(shape) == 4:
    step, least = sides(module)
    dims = f'b, {step}*h, {step}*w, {shape[-1]}'
    constraints = tuple(f'{name} >= {-(-least // step)}' for name in 'hw')
  x = jax.ShapeDtypeStruct(jax.export.symbolic_shape(dims, constraints=constraints), jnp.float32)
  variables = jax.tree.map(jnp.asarray, variables)  # arrays of NumPy take no traced indices
  generate = jax.jit(lambda x: module.apply(variables, x, train=False)[0])
  with conv_dispatch.reference():
    return bytes(jax.export.export(generate, platforms=PLATFORMS)(x).serialize())


def lifetime(written: datetime.date) -> dict[str, Any]:
  """Who promises to read what this version of JAX writes on a day, as JSON.

  jax, jaxlib: the versions that wrote it, which read it for good. months_newer, weeks_older: how
  far other releases may be from this jaxlib, by the days on which they were built.
  no_promise_after: no release after this day promises to, for this jaxlib was built before
  `written`.
  """
  until = written + datetime.timedelta(days=184)  # as long as six months can be
  return {'jax': jax.__version__, 'jaxlib': jaxlib_version, 'months_newer': MONTHS_NEWER,
          'weeks_older': WEEKS_OLDER, 'no_promise_after': until.isoformat()}


def sides(module: linen.Module) -> tuple[int, int]:
  """(step, least) of the heights and widths that a generator takes: least is its example's, and
  (1, 1) is for a network without an example."""
  if not hasattr(module, 'example'):  # a module from outside this package
    return 1, 1
  least = module.example().shape[1]
  powers = (2 ** i for i in range(least.bit_length()))
  return next((step for step in powers if _takes(module, least + step)), least), least


def _takes(module, side):
  x = module.example()
  x = jax.ShapeDtypeStruct((1, side, side, x.shape[-1]), x.dtype)
  try:
    jax.eval_shape(module.init, jax.random.key(0), x)
  except ValueError:
    return False
  return True
