"""What makes XLA quick on CPUs: how it compiles, and how it holds its memory."""

from __future__ import annotations

import ctypes
import functools

import jax
from jax.experimental.xla_metadata import set_xla_metadata

# What XLA:CPU leaves to its library YNN: all that it does by itself but convolutions, of which
# XLA's own take a half of the time forward, and a half by weights where the stride is 1.
_CPU = {'xla_cpu_experimental_ynn_fusion_type': ','.join(
    f'LIBRARY_FUSION_TYPE_{kind}' for kind in ('DOT', 'INDIVIDUAL_DOT', 'REDUCE'))}
# Of malloc.h.
M_MMAP_MAX, M_TRIM_THRESHOLD = -4, -1


def compiler_options() -> dict[str, str]:
  """Those of XLA with which networks are quickest on this platform, for
  `jax.jit(f, compiler_options=...)`; none off CPUs, nor where this XLA does not know them."""
  return dict(_CPU) if jax.default_backend() == 'cpu' and _known() else {}


def jit(function, **keywords):
  """`jax.jit` with `compiler_options`."""
  return jax.jit(function, compiler_options=compiler_options(), **keywords)


def kept_whole(function):
  """A call that XLA:CPU does not open; elsewhere the function itself.

  Opened, what is inside is computed and compiled once more within each operation that reads the
  result. And as nothing of it begins before all arguments are there, what it replaces can be
  written over in place.
  """
  called = jax.jit(function, inline=False)

  @functools.wraps(function)
  def call(*args):
    if jax.default_backend() != 'cpu':
      return function(*args)
    with set_xla_metadata(inlineable='false'):
      return called(*args)

  return call


@functools.cache
def _known():
  try:
    jax.jit(lambda: 0, compiler_options=_CPU)()
  except jax.errors.JaxRuntimeError:  # experimental, and gone
    return False
  return True


@functools.cache
def keep_memory() -> bool:
  """Has glibc keep freed memory for the next allocation; False where there is no glibc.

  XLA:CPU allocates the working memory of a program anew at each call. By itself glibc takes a block
  of more than 32 MiB from the system and gives it back every time, and the system clears each page:
  a fifth of a training step. Holds for the whole process, whose size then stays at its peak.

  Not for blocks of 64 MiB and more: XLA's threads allocate them, and only the first thread of a
  process has a heap that large. `LD_PRELOAD=libjemalloc.so.2` in front of the command, with
  `MALLOC_CONF=dirty_decay_ms:-1,muzzy_decay_ms:-1`, keeps those as well.
  """
  try:
    mallopt = ctypes.CDLL(None).mallopt
  except (AttributeError, OSError, TypeError):
    return False
  return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
