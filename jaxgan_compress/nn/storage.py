"""A network in one file: safetensors whose metadata says what to build."""

from __future__ import annotations

import dataclasses
import importlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, traverse_util

from jaxgan_compress import files

FORMAT = 'jaxgan_compress network 1'


def save(path: str | Path, module: linen.Module, variables: Mapping, *, overwrite: bool = False):
  """Writes module and variables, to be opened by `load`.

  Arrays are named 'params/block1/conv1/kernel'. The metadata holds the architecture as JSON and a
  checksum. Raises FileExistsError if the file is there and may not be overwritten, and ValueError
  for a module that `describe` cannot describe.
  """
  arrays = {name: np.asarray(x) for name, x in _flat(variables).items()}
  files.write(path, arrays, {
      'format': FORMAT, 'architecture': json.dumps(describe(module)),
      'crc32': str(_checksum(arrays))}, overwrite=overwrite)


def load(path: str | Path) -> tuple[linen.Module, dict]:
  """The module and its variables (NumPy arrays) from a file that `save` wrote, and that alone.

  Raises FileNotFoundError, and ValueError for a file of another kind, a damaged one, or one whose
  arrays are not those of its architecture. No code of the file runs: it can only name networks of
  `jaxgan_compress.nn`.
  """
  metadata = files.metadata(path)
  if metadata.get('format') != FORMAT:
    files.read(path)  # its own complaint, if it is no such file at all
    raise ValueError(f'{path} holds weights without an architecture; convert it first: '
                     f'jaxgan-compress convert --in {path} --out NETWORK.safetensors')
  arrays = files.read(path)
  if str(_checksum(arrays)) != metadata.get('crc32'):
    raise ValueError(f'{path} is damaged: its checksum does not match; copy it again')
  try:
    module = build(json.loads(metadata['architecture']))
    shapes = jax.eval_shape(module.init, jax.random.key(0), module.example())
  except (ValueError, TypeError, KeyError) as e:
    raise ValueError(f'{path} describes no network of this version: {e}') from e
  expected = {name: x.shape for name, x in _flat(shapes).items()}
  found = {name: x.shape for name, x in arrays.items() if not name.startswith('unused/')}
  if found != expected:
    wrong = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
    raise ValueError(f'{path} holds other arrays than its {type(module).__name__} has: '
                     f'{", ".join(wrong[:6])}; save it again')
  return module, traverse_util.unflatten_dict(arrays, sep='/')


def describe(value: Any) -> Any:
  """A module as JSON: its class's name and its fields, nested values likewise.

  Raises ValueError for a class that is not public in `jaxgan_compress.nn`.
  """
  if dataclasses.is_dataclass(value):
    name = type(value).__name__
    if getattr(_home(), name, None) is not type(value):
      raise ValueError(f'{type(value).__module__}.{name} is not one of jaxgan_compress.nn; only '
                       'these can be rebuilt from a file')
    return {'name': name, **{field.name: describe(getattr(value, field.name))
                             for field in dataclasses.fields(value)
                             if field.name not in ('parent', 'name')}}
  if isinstance(value, tuple | list):
    return [describe(each) for each in value]
  if value is None or isinstance(value, str | bool | int | float):
    return value
  return np.dtype(value).name


def build(description: Any, field: str = '') -> Any:
  """What `describe` described. Raises ValueError for an unknown name or field."""
  if isinstance(description, dict):
    name = description.get('name')
    if name not in _home().__all__ or not dataclasses.is_dataclass(getattr(_home(), name)):
      raise ValueError(f'no network {name!r} in jaxgan_compress.nn')
    target = getattr(_home(), name)
    given = {key: build(value, key) for key, value in description.items() if key != 'name'}
    unknown = given.keys() - {each.name for each in dataclasses.fields(target)} | \
        given.keys() & {'parent'}
    if unknown:
      raise ValueError(f'{name} has no field {", ".join(sorted(unknown))}')
    return target(**given)
  if isinstance(description, list):
    return tuple(build(each) for each in description)
  if field == 'dtype':
    if description not in ('float16', 'bfloat16', 'float32', 'float64'):
      raise ValueError(f'dtype {description!r}; a floating-point one')
    return getattr(jnp, description)
  return description


def spell(value: Any) -> str:
  """A module as the expression that makes it, fields at their defaults left out."""
  if dataclasses.is_dataclass(value):
    fields = [(field.name, getattr(value, field.name), field.default)
              for field in dataclasses.fields(value) if field.name not in ('parent', 'name')]
    given = ', '.join(f'{name}={spell(x)}' for name, x, default in fields if x != default)
    return f'{type(value).__name__}({given})'
  if isinstance(value, tuple):
    if len(value) > 2 and len(set(value)) == 1:
      return f'({spell(value[0])},) * {len(value)}'
    return f'({", ".join(map(spell, value))}{"," * (len(value) == 1)})'
  return getattr(value, '__name__', None) or repr(value)


def _home():
  return importlib.import_module('jaxgan_compress.nn')


def _flat(variables):
  return traverse_util.flatten_dict(dict(variables), sep='/')


def _checksum(arrays):
  crc = 0
  for name in sorted(arrays):
    x = np.ascontiguousarray(arrays[name])
    crc = zlib.crc32(x.reshape(-1).view(np.uint8), zlib.crc32(f'{name} {x.dtype}'.encode(), crc))
  return crc
