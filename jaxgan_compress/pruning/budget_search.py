"""From scores and a budget to masks."""

import logging
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan_compress.core import AnyArray
from jaxgan_compress.nn.prunable import Plan
from jaxgan_compress.pruning.arrays import numpy_for

log = logging.getLogger(__name__)

Masks = Mapping[str, AnyArray]
SCOPES = ('global', 'group')
FAR = 0.9  # a network that costs a smaller share of its budget is told of


class SearchResult(NamedTuple):
  """masks: {group: bool [width]}, True stays. threshold: scores below it went, and of those equal
  to it as many as had to. cost: of what is left, in the unit of the cost."""
  masks: Masks
  threshold: float
  cost: float


def widths(masks: Masks) -> dict[str, int]:
  """How many channels of each group stay."""
  return {name: int(np.sum(mask)) for name, mask in masks.items()}


def keep(plan: Plan, scores: Mapping[str, AnyArray], threshold, *, min_channels: int = 1,
         round_to: int = 1) -> dict[str, AnyArray]:
  """Masks of what scores above `threshold`, and the next best where `min_channels` or
  `round_to` want more.

  min_channels: channels that stay in every group that may not vanish (16 in CAT's runs), times its
  step. round_to: widths are rounded up to a multiple of it (8 suits many accelerators), at most to
  the whole group.
  Groups without scores stay whole. Jit-able, masks keep their shapes; outside a compiled function
  NumPy arrays.
  """
  xp = numpy_for(dict(scores), threshold)
  return _keep(plan, {name: xp.asarray(x) for name, x in scores.items()}, threshold, min_channels,
               round_to, xp)


def search(plan: Plan, scores: Mapping[str, AnyArray], cost: Callable[[Mapping[str, int]], float],
           budget: float, *, min_channels: int = 1, round_to: int = 1, scope: str = 'global',
           cat_search: bool = False) -> SearchResult:
  """The network of the least threshold that costs at most `budget`.

  Of channels that score the same as many go as have to, evenly from all groups: the i-th of a
  group's n when (i - 1/2) / n of all such have gone, its last one first. Channels of score 0 are
  dead and go together, unless all are. The log warns of a network that costs less than 0.9 of its
  budget, the whole network included.

  cost: of `{group: width}`, never more for less, as `pruning.cost` makes them. scope: 'global', one
  threshold for all scores; 'group', the same share of every group, the worst of each first.
  cat_search: CAT's own search, which halves an interval of float32 thresholds and stops up to 1.6 %
  below the budget, for the published thresholds; equal scores go together there. See `keep` for
  min_channels and round_to.

  Host only. Raises ValueError for unknown groups, scores that are not numbers, a budget that is
  not positive, or one below what `min_channels` cost.
  """
  found, larger = find(plan, scores, cost, budget, min_channels=min_channels, round_to=round_to,
                       scope=scope, cat_search=cat_search)
  form = _form(budget)
  if found.threshold == -math.inf and found.cost < budget:
    # A network that was pruned to this budget before is as near to it as networks get.
    log.log(logging.WARNING if found.cost < FAR * budget else logging.INFO,
            'a budget of %s is above %s, what the whole network costs: nothing was pruned',
            format(budget, form), format(found.cost, form))
  elif found.cost < FAR * budget:
    log.warning('the network found costs %s, %.0f %% of its budget of %s%s', format(
        found.cost, form), 100 * found.cost / budget, format(budget, form),
        f'; the next larger one costs {larger:{form}}' if larger else
        '; cat_search=False finds a larger one where there is one')
  return found


def find(plan: Plan, scores: Mapping[str, AnyArray], cost: Callable[[Mapping[str, int]], float],
         budget: float, *, min_channels: int = 1, round_to: int = 1, scope: str = 'global',
         cat_search: bool = False) -> tuple[SearchResult, float | None]:
  """What `search` finds, which tells of it, and what the next larger network costs, if known."""
  scores = _checked(plan, scores, budget, scope)
  if scope == 'group':
    scores = {name: _order(x, -np.arange(len(x)), np) / len(x) for name, x in scores.items()}
  ranks = scores if cat_search or scope == 'group' else ranked(scores)

  def cheap(threshold):
    masks = _keep(plan, ranks, threshold, min_channels, round_to, np)
    return masks, cost(widths(masks))

  values = np.unique(np.concatenate(list(ranks.values())))
  masks, least = cheap(values[-1])
  if least > budget:
    form = _form(least)
    raise ValueError(f'a budget of {budget:,.12g} is below {least:{form}}, what the smallest '
                     f'network costs that keeps min_channels={min_channels}; give more, or a lower '
                     'min_channels')
  if cat_search:
    return _bisect(cheap, np.float32(values[0]), np.float32(values[-1]), budget), None
  everything, larger = cheap(-math.inf)
  if larger <= budget:
    return SearchResult(everything, -math.inf, larger), None
  shown = np.sort(np.concatenate(list(scores.values()))) if ranks is not scores else values
  # The index of a threshold: the cost exceeds the budget at low, and does not at high.
  low, high = _below(shown, np) if ranks is not scores else -1, len(values) - 1
  found = SearchResult(masks, float(shown[-1]), least)
  while high - low > 1:
    middle = (low + high) // 2
    masks, price = cheap(values[middle])
    if price > budget:
      low, larger = middle, price
    else:
      high, found = middle, SearchResult(masks, float(shown[middle]), price)
  return found, larger


def tighten(plan: Plan, scores: Mapping[str, AnyArray], cost, budget, *, min_channels: int = 1,
            round_to: int = 1) -> dict[str, AnyArray]:
  """`search` by one global threshold inside a compiled step: masks alone, costs as floats.

  cost: a `pruning.Cost`. Where even `min_channels` everywhere exceed the budget, their masks.
  """
  ranks, flat = ranked(scores), jnp.concatenate(list(scores.values()))

  def cheap(i):
    masks = keep(plan, ranks, i, min_channels=min_channels, round_to=round_to)
    counts = jnp.stack([masks[name].sum() for name in cost.groups])
    return cost.total(counts.astype(jnp.float32)) <= budget

  def halve(_, between):
    low, high = between
    middle = (low + high) // 2
    fits = (middle > low) & cheap(middle)  # when they have met, nothing moves
    return jnp.where(fits, low, middle), jnp.where(fits, middle, high)

  ends = _below(flat, jnp).astype(jnp.int32), jnp.int32(len(flat) - 1)
  _, high = jax.lax.fori_loop(0, len(flat).bit_length(), halve, ends)
  whole = keep(plan, ranks, -1, min_channels=min_channels, round_to=round_to)
  counts = jnp.stack([whole[name].sum() for name in cost.groups]).astype(jnp.float32)
  return jax.tree.map(lambda all_, some: jnp.where(cost.total(counts) <= budget, all_, some), whole,
                      keep(plan, ranks, high, min_channels=min_channels, round_to=round_to))


def ranked(scores: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
  """{group: int [width]}: in which place each channel goes, 0 first, no two in the same; see
  `search`. Jit-able."""
  xp = numpy_for(dict(scores))
  scores = {name: xp.asarray(x) for name, x in scores.items()}

  def turns(x):
    """When each goes among its group's equals, in (0, 1): the last of them first."""
    ascending = xp.sort(x)
    first, end = (xp.searchsorted(ascending, x, side=side) for side in ('left', 'right'))
    before = _order(x, xp.arange(len(x)), xp) - first
    left, all_ = (n.astype(np.float32) for n in (end - first - before, end - first))
    return (left - np.float32(.5)) / all_  # in float32 everywhere, for the same order everywhere

  flat, shares = (xp.concatenate(parts) for parts in (
      list(scores.values()), [turns(x) for x in scores.values()]))
  places = _order(flat, shares, xp)
  ends = np.cumsum([len(x) for x in scores.values()])[:-1]
  return dict(zip(scores, xp.split(places, ends), strict=True))


def _order(first, then, xp):
  """The place of each in ascending order, equals by a second key and then as they come."""
  return xp.argsort(xp.lexsort((then, first)))


def _below(scores, xp):
  """The place before the first at which pruning may end: all that score 0 or less are dead and go
  together, unless all do."""
  dead = (scores <= 0).sum()
  return xp.where(dead == len(scores), -1, xp.maximum(dead - 2, -1))


def _form(cost):
  return ',.0f' if cost >= 100 else '.3g'


def _keep(plan, scores, threshold, min_channels, round_to, xp):
  masks = {}
  for name, group in plan.groups.items():
    if not group.follows:
      ranked = scores.get(name)
      masks[name] = xp.ones(group.width, bool) if ranked is None else _best(
          ranked, _allowed((ranked > threshold).sum(), group, min_channels, round_to, xp), xp)
  for name, group in plan.groups.items():
    if group.follows:
      leader, divisor = group.follows
      masks[name] = _best(scores.get(name, -xp.arange(group.width)),
                          masks[leader].sum() // divisor, xp)
  return {name: masks[name] for name in plan.groups}


def _allowed(count, group, min_channels, round_to, xp):
  """The width for so many channels above the threshold."""
  least = max(group.least, min_channels) * group.step if group.least else 0
  count = xp.maximum(count // group.step * group.step, least)
  round_to = math.lcm(round_to, group.step)
  return xp.minimum(-(-count // round_to) * round_to, group.width)


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
  return SearchResult(masks, float(threshold), price)


def _checked(plan, scores, budget, scope):
  if scope not in SCOPES:
    raise ValueError(f'scope={scope!r}; one of {", ".join(SCOPES)}')
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
