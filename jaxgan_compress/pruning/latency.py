"""What a network takes instead of what it counts: a budget in milliseconds."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from flax import linen

from jaxgan_compress import analysis, cpu, nn
from jaxgan_compress.pruning.cost import Cost, cost
from jaxgan_compress.pruning.search import search, widths

SHARES = 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 1.


@dataclasses.dataclass(frozen=True, eq=False)
class LatencyTable:
  """Milliseconds by multiply-accumulates of one architecture on one device, between which a network
  of any widths is read off in a straight line: `table({group: width})`.

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
    # Above the last point and below the first: in proportion.
    if count <= self.macs[0]:
      return self.ms[0] * count / max(self.macs[0], 1)
    if count >= self.macs[-1]:
      return self.ms[-1] * count / self.macs[-1]
    return float(np.interp(count, self.macs, self.ms))


def latency_table(module: linen.Module, shape: Sequence[int], *, shares: Sequence[float] = SHARES,
                  rounds: int = 10) -> LatencyTable:
  """Measures the table on this device: the network narrowed evenly to `shares` of its MACs, a
  compiled forward pass of `shape` each, in turn, the median of `rounds`; compiling takes longest.

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
      found = search(plan, ranked, price, max(share * whole, 1), per='group')
    except ValueError:  # below the smallest
      continue
    nets[found.cost] = module.with_widths(widths(found.masks))
  x = jax.random.normal(jax.random.key(0), shape)
  run = cpu.jit(lambda variables, x, module: module.apply(variables, x)[0], static_argnums=2)
  calls = {str(macs): (lambda each=each, variables=nn.initialise(each, jax.random.key(0), x):
                       run(variables, x, each)) for macs, each in sorted(nets.items())}
  timings = analysis.latency(calls, rounds)
  ms = np.maximum.accumulate([1e3 * timing.median for timing in timings.values()])
  return LatencyTable(price, tuple(sorted(nets)), tuple(map(float, ms)))
