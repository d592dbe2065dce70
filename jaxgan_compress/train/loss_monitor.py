"""Does every term of a loss still matter?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

VANISHED, DOMINATES, WON = 1e-4, 0.999, 0.98
TIMES = 3  # in a row, before anything is said


class Terms:
  """Watches logs `{network: {term: value, 'loss': their sum}}` and says each worry once.

  A term vanishes below VANISHED of its network's terms together and dominates above DOMINATES of
  them; where all are 0 the network rests. Of a discriminator's two losses the sum tells who wins:
  below 1 - WON of the first sum, nothing is left to learn from.
  """

  def __init__(self):
    self._counts: dict[str, int] = {}
    self._said: set[str] = set()
    self._first: dict[str, float] = {}

  def see(self, logs: Mapping[str, Any]) -> list[str]:
    """What has to be said about these logs."""
    worries = {}
    for network, entry in logs.items():
      if not isinstance(entry, Mapping) or 'loss' not in entry:
        continue
      terms = {name: abs(value) for name, value in entry.items() if name != 'loss'}
      if (total := sum(terms.values())) and len(terms) > 1:
        worries |= self._disc_worry(network, total) if network.startswith('disc') else \
            _term_worries(network, terms, total)
    self._counts = {name: self._counts.get(name, 0) + 1 for name in worries}
    due = [name for name, count in self._counts.items()
           if count >= TIMES and name not in self._said]
    self._said.update(due)
    return [worries[name] for name in due]

  def _disc_worry(self, disc, total):
    first = self._first.setdefault(disc, total)
    return {disc: f'{disc} has won: its loss is {total / first:.1%} of the first; what it teaches '
                  'is little, try a smaller one or a lower rate'} \
        if total < (1 - WON) * first else {}


def _term_worries(network, terms, total):
  worries = {}
  for name, value in terms.items():
    share = value / total
    if 0 < share < VANISHED:
      worries[f'{network}/{name}'] = (f'{network}/{name} vanishes: {share:.2g} of the terms of '
                                      f'{network}; its weight or what it compares may be wrong')
    elif share > DOMINATES:
      worries[f'{network}/{name}'] = (f'{network}/{name} dominates: {share:.2%} of the terms of '
                                      f'{network}; the others hardly matter')
  return worries
