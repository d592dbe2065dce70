"""Which of several exact forms of an operation runs, chosen in one place.

Forms share one parameter tree and agree to float rounding, forward and gradient; they differ in
speed only (`benchmarks/forms.py`).
"""

from __future__ import annotations

import contextlib
import contextvars

import jax

# Each operation's textbook form, then the other one.
FORMS = {
    'upsample': ('transpose', 'subpixel'),  # transposed convolutions of stride 2
    'depthwise': ('grouped', 'taps'),
    'reflect': ('pad', 'slices'),           # reflection padding
}
# Where 'auto' leaves the textbook form. XLA:CPU's gradients of transposed and of grouped
# convolutions are several times slower; elsewhere each maps to one library call. Slices export
# where a reflecting pad does not, and are as fast.
FAST = {'upsample': ('cpu',), 'depthwise': ('cpu',), 'reflect': ('cpu', 'gpu', 'tpu')}

_plain = contextvars.ContextVar('plain', default=False)


def choose(op: str, form: str = 'auto') -> str:
  """The form of one operation: one of `FORMS[op]`.

  form: 'auto' by platform, 'plain' for the textbook, 'fast' for the other one, or a form's own
  name. Raises ValueError for anything else.
  """
  names = {'plain': FORMS[op][0], 'fast': FORMS[op][1], **{name: name for name in FORMS[op]}}
  if form != 'auto' and form not in names:
    raise ValueError(f'form {form!r} of {op}; one of auto, {", ".join(names)}')
  if _plain.get():
    return names['plain']
  if form == 'auto':
    return names['fast' if jax.default_backend() in FAST[op] else 'plain']
  return names[form]


@contextlib.contextmanager
def plain():
  """Inside, every operation has its textbook form: what counting MACs must see."""
  token = _plain.set(True)
  try:
    yield
  finally:
    _plain.reset(token)
