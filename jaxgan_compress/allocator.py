"""How this process holds the memory that XLA works in on CPUs."""

from __future__ import annotations

import ctypes
import functools

# Of malloc.h.
M_MMAP_MAX, M_TRIM_THRESHOLD = -4, -1


@functools.cache
def keep_memory() -> bool:
  """Has glibc keep freed memory for the next allocation; False where there is no glibc.

  XLA:CPU allocates the working memory of a program anew at each call. By itself glibc takes a block
  of more than 32 MiB from the system and gives it back every time, and the system clears each page:
  a fifth of a training step. Holds for the whole process, whose size then stays at its peak.
  """
  try:
    mallopt = ctypes.CDLL(None).mallopt
  except (AttributeError, OSError, TypeError):
    return False
  return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
