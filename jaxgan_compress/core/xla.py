"""The platform that programs are built for, and options of XLA for it."""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import functools

import jax
from jax.experimental.layout import Layout, with_layout_constraint
from jax.experimental.xla_metadata import set_xla_metadata

_OPTIONS = {
    # The operations that XLA:CPU passes to its library YNN: all of the default but convolutions,
    # since XLA's own take half the time forward, and half for the gradient by weights where the
    # stride is 1.
    'cpu': {'xla_cpu_experimental_ynn_fusion_type': ','.join(
        f'LIBRARY_FUSION_TYPE_{kind}' for kind in ('DOT', 'INDIVIDUAL_DOT', 'REDUCE'))},
    # For TPUs XLA unrolls an operation as far as 16 MiB of on-chip memory hold its blocks. With
    # three quarters of that, networks compile in half the time to half the code, and cost 1 to 3 %
    # more cycles by the compiler's estimate; with half, 7 to 9 % more (docs/tpu_forms.md). Equal
    # operations become one function: a third of the code of a U-Net with many blocks.
    'tpu': {'xla_tpu_scoped_vmem_limit_kib': '12288', 'xla_tpu_enable_deduplicated_calls': 'true'},
}
_TPU_LANES = 128  # numbers side by side in a register
# Of malloc.h.
M_MMAP_MAX, M_TRIM_THRESHOLD = -4, -1

_target: contextvars.ContextVar[str | None] = contextvars.ContextVar('target', default=None)


def platform() -> str:
  """The platform that programs are built for, on which forms and options depend: 'cpu', 'gpu' or
  'tpu'. JAX's own unless this is inside `building_for`."""
  return _target.get() or jax.default_backend()


@contextlib.contextmanager
def building_for(platform: str):
  """Inside, what is traced and lowered is for a machine of this platform, which need not be here:
  'cpu', 'gpu' or 'tpu'."""
  token = _target.set(platform)
  try:
    yield
  finally:
    _target.reset(token)


def compiler_options() -> dict[str, str]:
  """The options for `jax.jit(f, compiler_options=...)` with which networks are fastest on CPUs and
  compile soonest for TPUs; empty for GPUs, and where this XLA does not know them."""
  # Only the XLA of this machine can be asked.
  known = platform() != jax.default_backend() or _known(platform())
  return dict(_OPTIONS.get(platform(), {})) if known else {}


def jit(function, **keywords):
  """`jax.jit` with `compiler_options`."""
  return jax.jit(function, compiler_options=compiler_options(), **keywords)


def kept_whole(function):
  """The function as a call that XLA:CPU does not inline; on other platforms the function itself.

  When it is inlined, its operations are compiled and computed again within each operation that
  reads the result. A call also begins only when all its arguments are ready, so that XLA can write
  its result over an argument in place.
  """
  called = jax.jit(function, inline=False)

  @functools.wraps(function)
  def call(*args):
    if platform() != 'cpu':
      return function(*args)
    with set_xla_metadata(inlineable='false'):
      return called(*args)

  return call


def in_order(tree):
  """The arrays of a tree; on TPUs wide ones are laid out in the order of their axes, as a program
  gets and leaves its arguments.

  XLA:TPU leaves the gradient of a wide kernel with two axes swapped, and would swap those of the
  parameters and of all that an optimiser remembers, before it moves them and after: six copies.
  Arrays of fewer numbers side by side than a register holds may come in another order.
  """
  if platform() != 'tpu':
    return tree
  return jax.tree.map(
      lambda x: with_layout_constraint(x, Layout(tuple(range(x.ndim))))
      if x.ndim > 1 and x.shape[-1] >= _TPU_LANES else x, tree)


@functools.cache
def _known(platform):
  try:
    jax.jit(lambda: 0, compiler_options=_OPTIONS.get(platform))()
  except jax.errors.JaxRuntimeError:  # experimental, and gone
    return False
  return True


@functools.cache
def keep_memory() -> bool:
  """Makes glibc keep freed memory for the next allocation; returns False where there is no glibc.

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
