"""Checks of arguments, of configs and public functions: their types and the ranges of numbers."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import numbers
import os
import re
import types
import typing
from collections import abc
from collections.abc import Callable, Collection, Mapping
from typing import Any

import optax
from flax import linen
from ml_collections import ConfigDict

KINDS = {bool: 'True or False', int: 'a whole number', float: 'a number', str: 'a word',
         tuple: "several, as ('a', 'b')", dict: "a section, as dict(name='adam')",
         int | tuple[int, int]: 'a whole number, or two, as (1, 3)'}

# The range of numbers by the name of the argument, also of a user's own classes: [low, high).
RANGES = {
    **dict.fromkeys(('d', 'ngf', 'ndf', 'channels', 'size', 'load', 'latent', 'features', 'width',
                     'widths', 'classes', 'inputs', 'hidden', 'stem', 'up', 'down', 'labels',
                     'growth'),
                    (1, 2 ** 16)),
    **dict.fromkeys(('layers', 'scales', 'depth', 'kernel', 'disc_steps', 'teacher_every',
                     'reduction'),
                    (1, 2 ** 8)),
    **dict.fromkeys(('blocks', 'shared', 'convs'), (0, 2 ** 8)),
    **dict.fromkeys(('teacher_steps', 'student_steps', 'total', 'every', 'round_to'), (1, 2 ** 31)),
    **dict.fromkeys(('pool', 'epoch', 'constant', 'decay', 'stride', 'decay_steps', 'at',
                     'transition_steps', 'warmup_steps'), (0, 2 ** 31)),
    **dict.fromkeys(('adv_weight', 'recon_weight', 'align_weight', 'match_weight', 'feature_weight',
                     'style_weight', 'ssim_weight', 'tv_weight', 'tap_weight',
                     'pixel_weight', 'cycle_weight', 'identity_weight', 'penalty', 'r1', 'r2',
                     'learning_rate', 'value', 'init_value', 'slope'), (0, math.inf)),
    **dict.fromkeys(('ema', 'dropout', 'b1', 'b2', 'momentum'), (0, 1)),
}


def typed(function: Callable) -> Callable:
  """The function, which raises ValueError with its name for an argument that `check` refuses."""
  signature = inspect.signature(function)

  @functools.wraps(function)
  def checked(*args, **kwargs):
    for key, value in signature.bind(*args, **kwargs).arguments.items():
      if value is not signature.parameters[key].default:
        check(key, value, hints(function).get(key, Any))
    return function(*args, **kwargs)

  return checked


def one_of(key: str, value, choices: Collection):
  """Raises ValueError for a value that is none of the choices."""
  if value not in choices:
    raise ValueError(f'{key}={value!r}; one of {", ".join(map(str, choices))}')


def check(key: str, value, hint=Any):
  """Raises ValueError for a value that is not what the argument's annotation says, or out of the
  range of its name."""
  if not _fits(value, hint):
    name = hint.__name__ if isinstance(hint, type) else str(hint)
    words = KINDS.get(hint) or re.sub(r'\b(\w+\.)+', '', name)
    raise ValueError(f'{key}={shown(value)}; it is {words}')
  low, high = RANGES.get(key, (-math.inf, math.inf))
  for x in value if isinstance(value, tuple | list) else (value,):
    if _is_number(x) and key in RANGES and not low <= x < high:
      raise ValueError(f'{key}={shown(value)}; at least {low}' + (
          f' and below {high}' if high < math.inf else ', and finite' if x > low else ''))


def shown(value) -> str:
  """A value as messages show it: in one line, which is cut in its middle if it is long."""
  text = ' '.join(repr(value.to_dict() if isinstance(value, ConfigDict) else value).split())
  return text if len(text) <= 120 else f'{text[:100]}...{text[-10:]}'


@functools.cache
def hints(target) -> Mapping[str, Any]:
  """{argument: annotation} of what is called, as far as they can be read."""
  try:
    return typing.get_type_hints(target if inspect.isfunction(target) or dataclasses.is_dataclass(
        target) else target.__init__)
  except (NameError, TypeError, AttributeError):
    return {}


def _is_number(value):
  return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_sequence(value) -> bool:
  # A data source need not inherit from Sequence: it is indexed, and that is all.
  return not isinstance(value, str | bytes | Mapping) and hasattr(value, '__getitem__')


_CHECKS = {
    Any: lambda value: True,
    int: lambda value: _is_number(value) and isinstance(value, numbers.Integral),
    float: _is_number,
    **{kind: functools.partial(lambda kind, value: isinstance(value, kind), kind)
       for kind in (bool, str, type(None))},
    abc.Callable: callable,
    abc.Sequence: _is_sequence,
}


def _fits(value, hint) -> bool:
  """Whether a value is what an annotation says; arrays and classes of others fit always."""
  origin, parts = typing.get_origin(hint), typing.get_args(hint)
  if origin in (typing.Union, types.UnionType):
    return any(_fits(value, part) for part in parts)
  if origin is tuple:
    hints = parts[:1] * len(value) if parts[1:] == (...,) else parts
    return isinstance(value, tuple | list) and len(value) == len(hints) and all(
        map(_fits, value, hints))
  kind = origin or hint
  if kind in _CHECKS:
    return _CHECKS[kind](value)
  # Python has `typing.is_protocol` from 3.13 on.
  if not isinstance(kind, type) or getattr(kind, '_is_protocol', False):
    return True
  if issubclass(kind, os.PathLike):  # pyright: ignore[reportGeneralTypeIssues]
    return isinstance(value, str | os.PathLike)
  ours = (linen.Module, optax.GradientTransformation, ConfigDict)
  known = isinstance(value, str | bytes | tuple | list | Mapping | ConfigDict)
  if known or issubclass(kind, ours) or kind.__module__.startswith('jaxgan_compress'):
    return isinstance(value, kind | ConfigDict if kind is abc.Mapping else kind)
  return True
