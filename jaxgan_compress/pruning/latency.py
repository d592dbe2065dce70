"""What a network takes instead of what it counts: a budget in milliseconds."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from flax import linen

from jaxgan_compress import analysis, export, nn
from jaxgan_compress.core import xla
from jaxgan_compress.nn.prunable import narrowed
from jaxgan_compress.pruning.budget_search import find
from jaxgan_compress.pruning.one_shot import PruneResult, prune, statistics_of
from jaxgan_compress.pruning.width_cost import Cost, cost

log = logging.getLogger(__name__)

BACKENDS = 'jax', 'onnx'
SECONDS = 3.  # of measuring
SHARES = 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 1.


@dataclasses.dataclass(frozen=True, eq=False)
class LatencyTable:
  """Milliseconds by multiply-accumulates of one architecture on one device, between which a network
  of any widths is read off in a straight line: `table({group: width})`. Never less than the first.

  price: MACs of widths. macs, ms: the points, both rising. It knows no more than that: two networks
  of the same MACs cost the same here, and on a device not quite. Measure what comes out.
  """
  price: Cost
  macs: tuple[int, ...]
  ms: tuple[float, ...]

  unit = 'ms'

  def __post_init__(self):
    if len(self.macs) != len(self.ms) or len(self.macs) < 2:
      raise ValueError(f'{len(self.macs)} MACs and {len(self.ms)} times; a table has two or more '
                       'points, each with both')
    for name, values in (('macs', self.macs), ('ms', self.ms)):
      if any(b < a for a, b in itertools.pairwise(values)) or values[0] < 0:
        raise ValueError(f'{name}={values}; a table rises')

  def __call__(self, widths: Mapping[str, int]) -> float:
    count = self.price(widths)
    # Above the last point in proportion. Below the first nothing is known to be faster: what a call
    # costs whatever it computes is in that point.
    if count >= self.macs[-1]:
      return self.ms[-1] * count / self.macs[-1]
    return float(np.interp(count, self.macs, self.ms))

  def scaled(self, factor: float) -> LatencyTable:
    """The table of something that takes so many times as long."""
    return dataclasses.replace(self, ms=tuple(factor * ms for ms in self.ms))


def latency_table(module: linen.Module, shape: Sequence[int], *, shares: Sequence[float] = SHARES,
                  rounds: int | None = None, backend: str = 'jax') -> LatencyTable:
  """Measures the table on this device: the network narrowed evenly to `shares` of its MACs, a
  forward pass of `shape` each, in turn, the median of `rounds`, see `milliseconds`.

  Shares below the smallest network are left out. Times that fall with size, as noise makes them,
  are raised to the one before.
  """
  plan = module.plan()
  price = cost(module, plan, shape)
  whole = price(plan.widths)
  ranked = {name: np.arange(group.width, dtype=float) for name, group in plan.groups.items()
            if not group.follows}
  nets = {}
  for share in shares:
    try:
      found, _ = find(plan, ranked, price, max(share * whole, 1), scope='group')
    except ValueError:  # below the smallest
      continue
    nets[found.cost] = narrowed(module, found.masks)
  found = milliseconds([nets[macs] for macs in sorted(nets)], shape, rounds, backend)
  return LatencyTable(price, tuple(sorted(nets)), tuple(np.maximum.accumulate(found).tolist()))


def prune_to_latency(module: linen.Module, variables: Mapping, shape: Sequence[int], *,
                     budget: float,
                table: LatencyTable, backend: str = 'jax', near: float = 0.05, tries: int = 4,
                **more) -> tuple[PruneResult, float]:
  """(a network that takes `budget` milliseconds on this device, what it takes as measured).

  A network pruned by the table is measured, and the table corrected by it, since a threshold leaves
  other shapes than even narrowing does; again, until one is within `near` of the budget, as a share
  of it, until nothing changes or `tries` are over. The nearest counts; the log tells where that is
  not `near`.
  more: as of `prune`, which says what is raised.
  """
  if (batches := more.get('batches')) is not None:  # which may be read once
    more['batches'] = statistics_of(module, variables, more.get('criterion', 'norm'), batches)
  found = []
  for _ in range(tries):
    try:
      one = prune(module, variables, shape, budget=budget, unit=table, **more)
    except ValueError:  # the smallest network takes longer, by a table that was set right
      if not found:
        raise
      break
    if found and one.module == found[-1][0].module:
      break
    # In turn with the whole network, as the table was: alone it would stay in the caches.
    found.append((one, milliseconds([module, one.module], shape, backend=backend)[1]))
    if abs(found[-1][1] / budget - 1) <= near:
      break
    table = table.scaled(found[-1][1] / one.cost)
  one, taken = min(found, key=lambda each: abs(each[1] / budget - 1))
  if abs(taken / budget - 1) > near:
    log.warning('after %d of %d tries the nearest network takes %.3g ms, %.0f %% of its budget of '
                '%.3g ms', len(found), tries, taken, 100 * taken / budget, budget)
  return one, taken


def milliseconds(modules: Sequence[linen.Module], shape: Sequence[int], rounds: int | None = None,
                 backend: str = 'jax') -> list[float]:
  """The median time of a forward pass of each network, called in turn, with fresh weights.

  rounds: by default as many as take SECONDS, for what else a machine does lasts longer than a few
  calls of a small network; at least 10.
  backend: 'jax', compiled for this device, or 'onnx', ONNX Runtime on this CPU (needs the extra
  'export'). Raises ValueError for another.
  """
  if backend not in BACKENDS:
    raise ValueError(f'backend={backend!r}; one of {", ".join(BACKENDS)}')
  x = jax.random.normal(jax.random.key(0), shape)
  run = xla.jit(lambda variables, x, module: module.apply(variables, x)[0], static_argnums=2)
  calls = {}
  for i, module in enumerate(modules):
    variables = nn.initialise(module, jax.random.key(0), x)
    if backend == 'jax':
      calls[str(i)] = functools.partial(run, variables, x, module)
    else:
      calls[str(i)] = functools.partial(export.run_onnx(
          export.to_onnx(module, variables, shape)), np.asarray(x))
  if rounds is None:
    once = sum(timing.median for timing in analysis.latency(calls, 3).values())
    rounds = max(10, round(SECONDS / once))
  return [1e3 * timing.median for timing in analysis.latency(calls, rounds).values()]
