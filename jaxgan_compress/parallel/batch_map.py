"""Work that rows do not share, over all devices of all processes: evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxgan_compress.core import xla
from jaxgan_compress.parallel.mesh import local


class RowMap:
  """Maps functions of batches: a process takes every n-th batch, and deals it to its devices.

  What comes back is whole and the same in every process, which all call alike. All processes have
  as many devices.
  """

  def __init__(self):
    self._mesh = Mesh(np.array(jax.local_devices()), ('data',))

  def whole(self, batch: int) -> int:
    """The least number of rows, no less than these, that the devices of a process divide."""
    return -(-batch // self._mesh.size) * self._mesh.size

  def jit(self, function: Callable, rows: int = 1) -> Callable:
    """The compiled function, each device at its own rows; the first `rows` arguments have them."""

    def run(*args):
      specs = (P('data'),) * rows + (P(),) * (len(args) - rows)
      return jax.shard_map(function, mesh=self._mesh, in_specs=specs, out_specs=P('data'),
                           check_vma=False)(*args)

    return xla.jit(run)

  def map(self, function: Callable, count: int, batch: int, load: Callable[[range], Any], *args):
    """`function(load(rows), *args)` of `count` rows, a batch at a time, as host arrays.

    function: of functions made by `jit`. The last batch is filled up and what it gives cut again.
    """
    args = jax.device_put(local(args), NamedSharding(self._mesh, P()))
    starts, processes = range(0, count, batch), jax.process_count()
    # As many for each process: who has none left takes the last again.
    mine = [starts[min(i, len(starts) - 1)] for i in range(
        jax.process_index(), -(-len(starts) // processes) * processes, processes)]
    parts = []
    for start in mine:
      rows = range(start, min(start + batch, count))
      fill = lambda x, n=len(rows): np.pad(x, [(0, batch - n)] + [(0, 0)] * (np.ndim(x) - 1))
      placed = jax.device_put(jax.tree.map(fill, load(rows)), NamedSharding(self._mesh, P('data')))
      parts.append(jax.device_get(function(placed, *args)))
    if processes > 1:
      every = multihost_utils.process_allgather(jax.tree.map(lambda *x: np.stack(x), *parts))
      parts = [jax.tree.map(lambda x, i=i: x[i % processes, i // processes], every)
               for i in range(len(starts))]
    return jax.tree.map(lambda *x: np.concatenate(x)[:count], *parts)
