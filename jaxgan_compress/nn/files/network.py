"""A network in one file: safetensors whose metadata says what to build."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen, traverse_util

from jaxgan_compress.nn.files import arrays as files
from jaxgan_compress.nn.files import ncnn, realesrgan
from jaxgan_compress.nn.init import flat, shapes
from jaxgan_compress.nn.layers.inputs import example

FORMAT = 'jaxgan_compress network 1'
FACTORS = 'jaxgan_compress factors'  # which need a base, see `files.factors`
# Fields that files of older versions name otherwise: {old name: (new name, {old value: new})}.
LISTED = 32  # whole numbers in a row that `spell` writes out: widths are fewer, channels more
RENAMED = {'form': ('implementation', {'plain': 'reference', 'fast': 'optimized'})}


# Classes of users' own that files may name in this process, see `allow`.
_allowed: set[type] = set()


def allow(*kinds: type):
  """Lets files name these classes of your own, besides those of `jaxgan_compress.nn`, in this
  process: then `load` needs no `like`. A file never says what is imported."""
  _allowed.update(kinds)


def save(path: str | Path, module: linen.Module, variables: Mapping, *, overwrite: bool = False,
         like: linen.Module | None = None, notice: str = ''):
  """Writes module and variables, to be opened by `load`.

  Arrays are named 'params/block1/conv1/kernel'. The metadata holds the architecture as JSON and a
  checksum. like: see `load`. notice: what whoever passes the weights on has to say, see
  `notice_of`. Raises FileExistsError if the file is there and may not be
  overwritten, and ValueError for a module that `describe` cannot describe, or variables that are
  not those of the module.
  """
  arrays = {name: np.asarray(x) for name, x in flat(variables).items()}
  check(module, arrays, 'these variables')
  files.write(path, arrays, {
      'format': FORMAT, 'architecture': json.dumps(describe(module, like=like)),
      'crc32': str(checksum(arrays)), **({'notice': notice} if notice else {})},
      overwrite=overwrite)


def load(path: str | Path, like: linen.Module | None = None) -> tuple[linen.Module, dict]:
  """The module and its variables (NumPy arrays) from a file that `save` wrote, from files of ncnn
  (see `nn.files.ncnn`), or of the name of a published upscaler, 'realesrgan:x4plus'.

  like: a network of your own, whose classes the file may name besides those of
  `jaxgan_compress.nn`. A file never says what is imported.

  Raises FileNotFoundError, and ValueError for a file of another kind, a damaged one, or one whose
  arrays are not those of its architecture. No code of the file runs: it can only name networks of
  `jaxgan_compress.nn`.
  """
  if realesrgan.is_name(path):
    return realesrgan.published(str(path))
  if ncnn.is_ncnn(path):
    return ncnn.read(path)
  metadata = files.metadata(path)
  if is_network(path) and metadata['format'] != FORMAT:
    raise ValueError(f'{path} is of the format {metadata["format"]!r} and this version reads '
                     f'{FORMAT!r}; update jaxgan_compress')
  if metadata.get('format', '').startswith(FACTORS):
    raise ValueError(f'{path} holds factors alone, and no network; merge them with their base: '
                     f'jaxgan-compress merge --base=BASE.safetensors --factors={path} '
                     '--output=NETWORK.safetensors')
  if not is_network(path):
    files.read(path)  # its own complaint, if it is no such file at all
    raise ValueError(f'{path} holds weights without an architecture; convert it first: '
                     f'jaxgan-compress convert --input {path} --output NETWORK.safetensors')
  arrays = undamaged(path, metadata)
  with describing(path):
    module = build(json.loads(metadata['architecture']), like=like)
    check(module, arrays, 'its arrays')
  return module, traverse_util.unflatten_dict(arrays, sep='/')


def undamaged(path: str | Path, metadata: Mapping) -> dict[str, np.ndarray]:
  """The arrays of a file. Raises ValueError where they are not those that were written."""
  arrays = files.read(path)
  if str(checksum(arrays)) != metadata.get('crc32'):
    raise ValueError(f'{path} is damaged: its checksum does not match; copy it again')
  return arrays


@contextlib.contextmanager
def describing(path: str | Path):
  """Whatever a network of the fields of this file may raise is a ValueError that names it."""
  try:
    yield
  except MemoryError:
    raise
  except Exception as e:
    kind = '' if isinstance(e, ValueError) else f'{type(e).__name__}, '
    raise ValueError(f'{path} describes no network of this version: {kind}{e}. Update '
                     'jaxgan_compress, or make the file again') from e


def fit(module: linen.Module, given: Mapping[str, np.ndarray], source: str | Path) -> dict:
  """Variables of a module from arrays by name, 'params/conv/kernel'; 'conv/kernel' will do. Raises
  ValueError for arrays of another network."""
  if not any(name.startswith('params/') for name in given):
    given = {f'params/{name}': x for name, x in given.items()}
  check(module, given, str(source))
  return traverse_util.unflatten_dict(dict(given), sep='/')


def notice_of(*sources: str | Path) -> str:
  """What whoever passes on weights that derive from these files has to say, a line for each notice:
  of the metadata of `save`, and of what `load` takes besides; '' where there is nothing."""
  lines: dict[str, None] = {}
  for path in sources:
    known = realesrgan.is_name(path) or ncnn.is_ncnn(path)
    text = realesrgan.notice(path) if known else files.metadata(path).get('notice', '')
    lines |= dict.fromkeys(text.splitlines())
  return '\n'.join(lines)


def is_network(path: str | Path) -> bool:
  """Whether a file was written by `save`, of this version or another."""
  return not realesrgan.is_name(path) and files.metadata(path).get('format', '').startswith(
      FORMAT.rstrip('0123456789'))


def describe(value: Any, field: str = '', like: linen.Module | None = None) -> Any:
  """A module as JSON: its class's name and its fields, nested values likewise. like: see `load`.

  Raises ValueError for a class that is not public in `jaxgan_compress.nn`, or any other object.
  """
  if dataclasses.is_dataclass(value):
    names = {kind: name for name, kind in _classes(like).items()}
    if type(value) not in names:
      raise ValueError(f'{_qualified(type(value))} is not one of jaxgan_compress.nn; a file of '
                       'another class is saved and loaded with like=, a network of that class')
    return {'name': names[type(value)], **{
        name: describe(x, name, like) for name, x, _ in _fields(value)}}
  if isinstance(value, tuple | list):
    return [describe(x, field, like) for x in value]
  if isinstance(value, np.generic):
    value = value.item()  # widths that were computed
  if value is None or isinstance(value, str | bool | int | float):
    return value
  if field == 'dtype':
    return np.dtype(value).name
  raise ValueError(f'{field}={value!r} cannot be written as JSON')


def build(description: Any, field: str = '', like: linen.Module | None = None) -> Any:
  """What `describe` described. Raises ValueError for an unknown name or field."""
  if isinstance(description, dict):
    name = description.get('name')
    target = _classes(like).get(str(name))
    if target is None:
      raise ValueError(f'no network {name!r} in jaxgan_compress.nn' + (
          '; a file of another class is loaded with like=, a network of that class (in commands '
          f'--like={name}), or in a run whose config names it' if ':' in str(name) else '')
                       + (f'; allowed here: {", ".join(sorted(map(_qualified, _allowed)))}'
                          if _allowed else ''))
    known = {field.name for field in dataclasses.fields(target)} - {'parent'}
    fields = {}
    for key, value in description.items():
      if key in RENAMED and key not in known:
        key, values = RENAMED[key]
        value = values.get(value, value)
      fields[key] = build(value, key, like)
    del fields['name']
    if unknown := fields.keys() - known:
      raise ValueError(f'{name} has no field {", ".join(sorted(unknown))}')
    return target(**fields)
  if isinstance(description, list):
    return tuple(build(x, like=like) for x in description)
  if field == 'dtype':
    if description not in ('float16', 'bfloat16', 'float32', 'float64'):
      raise ValueError(f'dtype {description!r}; a floating-point one')
    return getattr(jnp, description)
  return description


def _classes(like) -> dict[str, type]:
  """{name in a file: class} of all that a file may name."""
  home = importlib.import_module('jaxgan_compress.nn')
  public = {name: getattr(home, name) for name in home.__all__}
  public = {name: kind for name, kind in public.items()
            if isinstance(kind, type) and dataclasses.is_dataclass(kind)}
  own = (_within(like) | _allowed) - set(public.values())
  return public | {_qualified(kind): kind for kind in own}


def _fields(value) -> list[tuple[str, Any, Any]]:
  """(name, value, default) of each field that a network was made with."""
  return [(field.name, getattr(value, field.name), field.default)
          for field in dataclasses.fields(value) if field.name not in ('parent', 'name')]


def _within(value) -> set[type]:
  """The classes of a network and of all that its fields hold."""
  if isinstance(value, tuple | list):
    return set().union(*map(_within, value))
  if not dataclasses.is_dataclass(value):
    return set()
  return {type(value)}.union(*(_within(x) for _, x, _ in _fields(value)))


def _qualified(kind):
  return f'{kind.__module__}:{kind.__qualname__}'


def spell(value: Any) -> str:
  """A module as the expression that makes it, fields at their defaults left out but the norm; for
  a long row of numbers stands how many they are."""
  if dataclasses.is_dataclass(value):
    fields = ', '.join(f'{name}={spell(x)}' for name, x, default in _fields(value)
                       if x != default or name == 'norm')
    return f'{type(value).__name__}({fields})'
  if isinstance(value, tuple):
    if len(value) > LISTED and all(isinstance(x, int) for x in value):
      return f'<{len(value)} numbers>'
    if len(value) > 2 and len(set(value)) == 1:
      return f'({spell(value[0])},) * {len(value)}'
    return f'({", ".join(map(spell, value))}{"," * (len(value) == 1)})'
  return value.__name__ if isinstance(value, type) else repr(value)


def check(module, arrays, what):
  """Raises ValueError unless the arrays are those that the module has."""
  for field in ('layers', 'scales'):  # depths, which a walk over the module is as long as
    count = getattr(module, field, 0)
    if isinstance(count, int) and count > len(arrays):
      raise ValueError(f'{what}: {len(arrays)}, too few for {field}={count}')
  example(module)  # raises where it does not say what its input is
  expected = {name: x.shape for name, x in flat(shapes(module)).items()}
  given = {name: x.shape for name, x in arrays.items() if not name.startswith('unused/')}
  wrong = sorted(name for name in {*given, *expected} if given.get(name) != expected.get(name))
  if wrong:
    raise ValueError(f'{what}: not the arrays of this {type(module).__name__}; missing, unknown or '
                     f'of another shape: {", ".join(wrong[:6])}')


def checksum(arrays: Mapping[str, np.ndarray]) -> int:
  """A number that differs where a name, a type or a value of the arrays does (CRC-32)."""
  crc = 0
  for name in sorted(arrays):
    x = np.ascontiguousarray(arrays[name])
    crc = zlib.crc32(f'{name} {x.dtype}'.encode(), crc)
    crc = zlib.crc32(x.reshape(-1).view(np.uint8).data, crc)
  return crc
