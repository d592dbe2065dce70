"""Which of several exact forms of an operation runs, chosen in one place.

Forms share one parameter tree and agree to float rounding; they differ in speed only
(`benchmarks/upsample.py`).
"""

from __future__ import annotations

import contextlib
import contextvars

import jax

UPSAMPLE = ('auto', 'transpose', 'subpixel')

_plain = contextvars.ContextVar('plain', default=False)


def upsample(impl: str) -> str:
  """'transpose' or 'subpixel' for a 4x4, stride-2 transposed convolution.

  'auto' takes 'subpixel' on CPUs, where XLA's gradient of a transposed convolution is 3 to 6
  times slower, and 'transpose' elsewhere, where it maps to one library call. Raises ValueError
  for another name.
  """
  if impl not in UPSAMPLE:
    raise ValueError(f'upsample_impl={impl!r}; one of {", ".join(UPSAMPLE)}')
  if _plain.get():
    return 'transpose'
  if impl == 'auto':
    return 'subpixel' if jax.default_backend() == 'cpu' else 'transpose'
  return impl


@contextlib.contextmanager
def plain():
  """Inside, every operation has its textbook form: what counting MACs must see."""
  token = _plain.set(True)
  try:
    yield
  finally:
    _plain.reset(token)
