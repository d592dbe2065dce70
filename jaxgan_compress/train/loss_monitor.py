"""Does every term of a loss still say something?"""

from __future__ import annotations

from collections.abc import Mapping

VANISHED, DOMINATES, WON = 1e-4, 0.999, 0.98
LOOKS = 3  # in a row, before anything is said


class Terms:
  """Watches logs of the shape `<learner>_loss` and `<learner>_<term>`, once for each worry.

  A term vanishes below VANISHED of its learner's terms together and dominates above DOMINATES of
  them; where all are 0 the learner rests. Of a discriminator's two sides the loss of one against
  the other tells who wins: below 1 - WON of the fakes' and of the reals' first loss, nothing is
  left to learn from.
  """

  def __init__(self):
    self._counts, self._told, self._first = {}, set(), {}

  def see(self, logs: Mapping[str, float]) -> list[str]:
    """What has to be said about these logs."""
    worries = {}
    learners = [name.removesuffix('_loss') for name in logs if name.endswith('_loss')]
    for learner in learners:
      # Of 'student' and 'student_back' each has its own.
      longer = tuple(f'{other}_' for other in learners if other.startswith(f'{learner}_'))
      terms = {name: abs(value) for name, value in logs.items()
               if name.startswith(f'{learner}_') and name != f'{learner}_loss'
               and not (longer and name.startswith(longer))}
      total = sum(terms.values())
      if not total or len(terms) < 2:
        continue
      if learner.startswith('disc'):
        first = self._first.setdefault(learner, total)
        if total < (1 - WON) * first:
          worries[learner] = (f'{learner} has won: its loss is {total / first:.1%} of the first; '
                              'what it teaches is little, try a smaller one or a lower rate')
        continue
      for name, value in terms.items():
        share = value / total
        if 0 < share < VANISHED:
          worries[name] = (f'{name} vanishes: {share:.2g} of the terms of {learner}; its weight '
                           'or what it compares may be wrong')
        elif share > DOMINATES:
          worries[name] = (f'{name} dominates: {share:.2%} of the terms of {learner}; the others '
                           'are hardly heard')
    self._counts = {name: self._counts.get(name, 0) + 1 for name in worries}
    due = [name for name, count in self._counts.items()
           if count >= LOOKS and name not in self._told]
    self._told.update(due)
    return [worries[name] for name in due]
