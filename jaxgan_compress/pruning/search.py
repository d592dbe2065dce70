"""From scores and a budget to masks."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan_compress.nn.plans import Plan
from jaxgan_compress.pruning.arrays import numpy_for

Masks = Mapping[str, jax.Array]
PER = ('global', 'group')


class Pruned(NamedTuple):
  """masks: {group: bool [width]}, True stays. threshold: scores at most this went. cost: of what
  is left, in the unit of the cost."""
  masks: Masks
  threshold: float
  cost: float


def widths(masks: Masks) -> dict[str, int]:
  """How many channels of each group stay."""
  return {name: int(np.sum(mask)) for name, mask in masks.items()}


def keep(plan: Plan, scores: Mapping[str, jax.Array], threshold, *, floor: int = 1,
         multiple: int = 1) -> dict[str, jax.Array]:
  """Masks of what scores above `threshold`, and the next best where floor or multiple want more.

  floor: channels that stay in every group that may not vanish (16 in CAT's runs), times its step.
  multiple: widths are rounded up to it (8 suits many accelerators), at most to the whole group.
  Groups without scores stay whole. Jit-able, masks keep their shapes; outside a compiled function
  NumPy arrays.
  """
  xp = numpy_for(dict(scores), threshold)
  return _keep(plan, {name: xp.asarray(x) for name, x in scores.items()}, threshold, floor,
               multiple, xp)


def search(plan: Plan, scores: Mapping[str, jax.Array], cost: Callable[[Mapping[str, int]], float],
           budget: float, *, floor: int = 1, multiple: int = 1, per: str = 'global',
           legacy: bool = False) -> Pruned:
  """The least threshold whose network costs at most `budget`.

  cost: of `{group: width}`, never more for less, as `pruning.cost` makes them. per: 'global', one
  threshold for all scores; 'group', the same share of every group, the worst of each first.
  legacy: CAT's own search, which halves an interval of float32 thresholds and stops up to 1.6 %
  below the budget, for the published thresholds. See `keep` for floor and multiple.

  Host only. Raises ValueError for unknown groups, scores that are not numbers, a budget that is
  not positive, or one below what the floor costs.
  """
  scores = _checked(plan, scores, budget, per)
  if per == 'group':
    scores = {name: np.argsort(np.argsort(x, kind='stable'), kind='stable') / len(x)
              for name, x in scores.items()}

  def cheap(threshold):
    masks = _keep(plan, scores, threshold, floor, multiple, np)
    return masks, cost(widths(masks))

  values = np.unique(np.concatenate(list(scores.values())))
  masks, least = cheap(values[-1])
  if least > budget:
    form = ',.0f' if least >= 100 else '.3g'
    raise ValueError(f'a budget of {budget:,.12g} is below {least:{form}}, what the smallest '
                     f'network costs that keeps floor={floor}; give more, or a lower floor')
  if legacy:
    return _bisect(cheap, np.float32(values[0]), np.float32(values[-1]), budget)
  low, high = -1, len(values) - 1  # the index of a threshold: too dear at low, cheap at high
  found = Pruned(masks, float(values[-1]), least)
  masks, everything = cheap(-math.inf)
  if everything <= budget:
    return Pruned(masks, -math.inf, everything)
  while high - low > 1:
    middle = (low + high) // 2
    masks, price = cheap(values[middle])
    if price > budget:
      low = middle
    else:
      high, found = middle, Pruned(masks, float(values[middle]), price)
  return found


def tighten(plan: Plan, scores: Mapping[str, jax.Array], cost, budget, *, floor: int = 1,
            multiple: int = 1) -> dict[str, jax.Array]:
  """`search` by one global threshold inside a compiled step: masks alone, costs as floats.

  cost: a `pruning.Cost`. Where even the floor is too dear, the floor's masks.
  """
  values = jnp.sort(jnp.concatenate(list(scores.values())))

  def cheap(i):
    masks = keep(plan, scores, values[i], floor=floor, multiple=multiple)
    counts = jnp.stack([masks[name].sum() for name in cost.groups])
    return cost.total(counts.astype(jnp.float32)) <= budget

  def halve(_, between):
    low, high = between
    middle = (low + high) // 2
    fits = (middle > low) & cheap(middle)  # when they have met, nothing moves
    return jnp.where(fits, low, middle), jnp.where(fits, middle, high)

  ends = jnp.int32(-1), jnp.int32(len(values) - 1)
  _, high = jax.lax.fori_loop(0, len(values).bit_length(), halve, ends)
  whole = keep(plan, scores, -jnp.inf, floor=floor, multiple=multiple)
  counts = jnp.stack([whole[name].sum() for name in cost.groups]).astype(jnp.float32)
  return jax.tree.map(lambda all_, some: jnp.where(cost.total(counts) <= budget, all_, some), whole,
                      keep(plan, scores, values[high], floor=floor, multiple=multiple))


def _keep(plan, scores, threshold, floor, multiple, xp):
  masks = {}
  for name, group in plan.groups.items():
    if not group.follows:
      ranked = scores.get(name)
      masks[name] = xp.ones(group.width, bool) if ranked is None else _best(
          ranked, _allowed((ranked > threshold).sum(), group, floor, multiple, xp), xp)
  for name, group in plan.groups.items():
    if group.follows:
      leader, divisor = group.follows
      masks[name] = _best(scores.get(name, -xp.arange(group.width)),
                          masks[leader].sum() // divisor, xp)
  return {name: masks[name] for name in plan.groups}


def _allowed(count, group, floor, multiple, xp):
  """The width for so many channels above the threshold."""
  least = max(group.least, floor) * group.step if group.least else 0
  count = xp.maximum(count // group.step * group.step, least)
  multiple = math.lcm(multiple, group.step)
  return xp.minimum(-(-count // multiple) * multiple, group.width)


def _best(ranked, count, xp):
  """The `count` largest, the first of equals first."""
  place = xp.argsort(xp.argsort(-ranked, stable=True))
  return place < count


def _bisect(cheap, low, high, budget):
  # In float32, with the published order of tests, so that thresholds come out bit for bit.
  price = math.inf
  while abs(high - low) > np.float32(1e-3) * low or price > budget:
    threshold = (low + high) / np.float32(2)
    if threshold == low:  # neighbours: the published loop would never end
      threshold = low = high
    masks, price = cheap(threshold)
    low, high = (threshold, high) if price > budget else (low, threshold)
  return Pruned(masks, float(threshold), price)


def _checked(plan, scores, budget, per):
  if per not in PER:
    raise ValueError(f'per={per!r}; one of {", ".join(PER)}')
  if not budget > 0:
    raise ValueError(f'budget={budget}; a budget is above 0')
  if unknown := sorted(scores.keys() - plan.groups.keys()):
    raise ValueError(f'scores of {", ".join(unknown)}, which this network does not have; it has '
                     f'{", ".join(plan.groups)}')
  scores = {name: np.asarray(x) for name, x in scores.items()}
  for name, x in scores.items():
    if x.shape != (plan.groups[name].width,):
      raise ValueError(f'{name} has {x.shape} scores and {plan.groups[name].width} channels')
    if not np.isfinite(x).all():
      raise ValueError(f'{np.sum(~np.isfinite(x))} scores of {name} are not finite')
  return scores
