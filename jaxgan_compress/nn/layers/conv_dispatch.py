"""Which of several exact implementations of an operation runs, chosen in one place.

Implementations share one parameter tree and agree to float rounding, forward and gradient; they
differ in speed only (`benchmarks/forms.py`).
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable

from jaxgan_compress.core import xla

# The reference of each operation, then its optimized implementation, then others.
IMPLEMENTATIONS: dict[str, tuple[str, ...]] = {
    'upsample': ('transpose', 'subpixel'),  # transposed convolutions of stride 2
    'depthwise': ('grouped', 'taps'),
    'reflect': ('pad', 'gather', 'pieces'),  # reflection padding
    'pointwise': ('conv', 'matmul'),        # convolutions of 1x1
    'strided': ('conv', 'rows'),            # weight gradients of strided convolutions
    'few': ('conv', 'spread'),              # convolutions of many channels to few
    'small': ('conv', 'patches'),           # convolutions of few pixels
    'border': ('conv', 'padded'),           # zeros around convolutions, for their weight gradients
    'dense': ('conv', 'winograd'),          # 3x3 convolutions of many channels to many
    'branches': ('apart', 'merged'),        # convolutions of one input, or into one sum
    'rows': ('conv', 'products'),           # convolutions of few images
    'norm': ('parts', 'closed'),            # gradients of instance norms
}
# What 'auto' takes on each platform, where it is not the reference. XLA:CPU's gradients of
# transposed, grouped, 1x1 and strided convolutions are several times slower, its convolutions of
# many channels to few ten times, and it compiles every operation by itself. A gather exports where
# a reflecting pad does not, and is as fast. XLA:TPU rearranges maps of few images for every
# convolution and gather (docs/tpu_forms.md). Elsewhere each maps to one library call.
CHOSEN: dict[str, dict[str, str]] = {
    op: {'cpu': optimized} for op, (_, optimized, *_) in IMPLEMENTATIONS.items()} | {
    'reflect': {'cpu': 'gather', 'gpu': 'gather', 'tpu': 'pieces'}, 'rows': {'tpu': 'products'},
    'norm': {'tpu': 'closed'}, 'branches': {'cpu': 'merged', 'tpu': 'merged'}}

_reference = contextvars.ContextVar('reference', default=False)
_recorder: contextvars.ContextVar[Callable | None] = contextvars.ContextVar(
    'recorder', default=None)


def choose(op: str, implementation: str = 'auto') -> str:
  """The implementation of one operation: one of `IMPLEMENTATIONS[op]`.

  implementation: 'auto' chooses by platform, 'reference' and 'optimized' the first and the second
  of them, and a name of `IMPLEMENTATIONS` the operation that has it, while all others are chosen by
  platform: so a network can be built with one of them forced.

  Raises ValueError for anything else.
  """
  reference, optimized, *_ = IMPLEMENTATIONS[op]
  names = {'reference': reference, 'optimized': optimized} | {
      name: name for name in IMPLEMENTATIONS[op]}
  others = {name for names in IMPLEMENTATIONS.values() for name in names} - names.keys()
  if implementation not in ('auto', *names, *others):
    raise ValueError(f'implementation {implementation!r} of {op}; one of auto, '
                     f'{", ".join((*names, *sorted(others)))}')
  if _reference.get():
    return reference
  if implementation in names:
    return names[implementation]
  return CHOSEN[op].get(xla.platform(), reference)


def is_optimized(op: str, implementation: str = 'auto') -> bool:
  """Whether `choose` takes the optimized implementation."""
  return choose(op, implementation) == IMPLEMENTATIONS[op][1]


def counting() -> bool:
  """Whether this is inside `reference()`."""
  return _reference.get()


@contextlib.contextmanager
def reference():
  """Inside, every operation has its reference implementation: what counting MACs must see."""
  token = _reference.set(True)
  try:
    yield
  finally:
    _reference.reset(token)


def operation(function: Callable) -> Callable:
  """Marks a function of arrays that other formats have as one operation, whatever it is made of
  here: inside `recording`, the recorder is called instead, with the function and its arguments."""

  @functools.wraps(function)
  def call(*args, **kwargs):
    recorder = _recorder.get()
    return recorder(function, args, kwargs) if recorder else function(*args, **kwargs)

  return call


def recorded() -> bool:
  """Whether this is inside `recording`, where nothing is differentiated."""
  return _recorder.get() is not None


@contextlib.contextmanager
def recording(recorder: Callable):
  """Inside, every `operation` is what `recorder(function, args, kwargs)` makes of it."""
  token = _recorder.set(recorder)
  try:
    yield
  finally:
    _recorder.reset(token)
