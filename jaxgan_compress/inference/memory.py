"""How much memory a picture needs, and how much there is."""

from __future__ import annotations

import contextlib
from pathlib import Path

import jax
from flax import linen

from jaxgan_compress import analysis
from jaxgan_compress.data.picture_folders import Takes

# XLA:CPU's working memory over the estimate of `analysis.activation_bytes`: padded copies and
# patches of convolutions.
OVERHEAD = 2.
SHARE = 0.5  # of the memory that is free
MEASURED = 512  # pixels of a side
UNKNOWN = 4 * 2**30


def needed_bytes(module: linen.Module, takes: Takes, size: tuple[int, int]) -> int:
  """An estimate of the memory that a picture of a size (height, width) takes in one piece."""
  # Of one size, since to trace a network takes up to a second, and the rest is in proportion.
  height, width = takes.fit(MEASURED, MEASURED)
  each = analysis.activation_bytes(module, (1, height, width, takes.channels)) / (height * width)
  return int(OVERHEAD * each * size[0] * size[1])


def memory_limit() -> int:
  """The bytes that one picture may take: half of what is free, on the device or this machine."""
  stats = jax.devices()[0].memory_stats() or {}
  if 'bytes_limit' in stats:
    return int(SHARE * (stats['bytes_limit'] - stats.get('bytes_in_use', 0)))
  return int(SHARE * _free())


def _free() -> int:
  """Of the machine, or of the container that this process runs in."""
  free = UNKNOWN
  with contextlib.suppress(OSError, ValueError, StopIteration):
    free = 1024 * next(int(line.split()[1]) for line in
                       Path('/proc/meminfo').read_text().splitlines()
                       if line.startswith('MemAvailable'))
  with contextlib.suppress(OSError, ValueError):
    group = Path('/sys/fs/cgroup')
    free = min(free, int((group / 'memory.max').read_text())
               - int((group / 'memory.current').read_text()))
  return max(free, 0)
