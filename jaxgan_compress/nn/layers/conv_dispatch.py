"""Which of several exact forms of an operation runs, chosen in one place.

Forms share one parameter tree and agree to float rounding, forward and gradient; they differ in
speed only (`benchmarks/forms.py`).
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable

import jax

# Each operation's textbook form, then the other one.
FORMS = {
    'upsample': ('transpose', 'subpixel'),  # transposed convolutions of stride 2
    'depthwise': ('grouped', 'taps'),
    'reflect': ('pad', 'gather'),           # reflection padding
    'pointwise': ('conv', 'matmul'),        # convolutions of 1x1
    'strided': ('conv', 'rows'),            # weight gradients of strided convolutions
    'few': ('conv', 'spread'),              # convolutions of many channels to few
    'small': ('conv', 'patches'),           # convolutions of few pixels
    'border': ('conv', 'padded'),           # zeros around convolutions, for their weight gradients
    'dense': ('conv', 'winograd'),          # 3x3 convolutions of many channels to many
    'branches': ('apart', 'merged'),        # convolutions of one input, or into one sum
}
# Where 'auto' leaves the textbook form. XLA:CPU's gradients of transposed, grouped, 1x1 and
# strided convolutions are several times slower, its convolutions of many channels to few ten times,
# and it compiles every operation by itself; elsewhere each maps to one library call. A gather
# exports where a reflecting pad does not, and is as fast.
FAST = {op: ('cpu', 'gpu', 'tpu') if op == 'reflect' else ('cpu',) for op in FORMS}

_plain = contextvars.ContextVar('plain', default=False)
_recorder = contextvars.ContextVar('recorder', default=None)


def choose(op: str, form: str = 'auto') -> str:
  """The form of one operation: one of `FORMS[op]`.

  form: 'auto' by platform, 'plain' for the textbook, 'fast' for the other one, or a form's own
  name; the name of another operation's leaves this one to 'auto', so that a network can be built
  with one of them forced. Raises ValueError for anything else.
  """
  names = {'plain': FORMS[op][0], 'fast': FORMS[op][1], **{name: name for name in FORMS[op]}}
  others = {name for both in FORMS.values() for name in both} - names.keys()
  if form not in names and form not in others and form != 'auto':
    raise ValueError(f'form {form!r} of {op}; one of auto, {", ".join((*names, *sorted(others)))}')
  if _plain.get():
    return names['plain']
  if form not in names:
    return names['fast' if jax.default_backend() in FAST[op] else 'plain']
  return names[form]


def counting() -> bool:
  """Whether this is inside `plain()`."""
  return _plain.get()


@contextlib.contextmanager
def plain():
  """Inside, every operation has its textbook form: what counting MACs must see."""
  token = _plain.set(True)
  try:
    yield
  finally:
    _plain.reset(token)


def operation(function: Callable) -> Callable:
  """Marks a function of arrays that other formats have as one operation, whatever it is made of
  here: who is `recording` is called instead, with the function and its arguments."""

  @functools.wraps(function)
  def call(*args, **kwargs):
    recorder = _recorder.get()
    return recorder(function, args, kwargs) if recorder else function(*args, **kwargs)

  return call


@contextlib.contextmanager
def recording(recorder: Callable):
  """Inside, every `operation` is what `recorder(function, args, kwargs)` makes of it."""
  token = _recorder.set(recorder)
  try:
    yield
  finally:
    _recorder.reset(token)
