"""Weights in files of PyTorch, safetensors or NumPy are read, and safetensors are written."""

from __future__ import annotations

import contextlib
import io
import math
import pickle
import pickletools
import zipfile
from collections import OrderedDict, namedtuple
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from jaxgan_compress.core import paths


def read(path: str | Path, part: str | None = None) -> dict[str, np.ndarray]:
  """Arrays by name from a .pth, .pt, .safetensors or .npz file; its content decides which it is.

  part: the state dict to take from a checkpoint of several, dotted where they are nested.

  Needs no PyTorch and runs no pickled code. The arrays are C-contiguous, of the dtype that was
  saved. PyTorch's older format and safetensors have no checksums: there a flipped value stays.

  Raises FileNotFoundError or IsADirectoryError if there is no such file, and ValueError, saying
  why, if it is damaged, if it is something else, or if `part` is missing or not in it.
  """
  path = _existing(path)
  data = path.read_bytes()
  with _explained(path):
    if _is_safetensors(data):
      return _whole(_from_safetensors(data), part)
    if data.startswith((b'PK\3\4', b'PK\5\6')):
      return _from_zip(data, part)
    if data[:1] == b'\x80':
      return _from_stream(data, part)
    raise _Refused(_no_checkpoint(data))


def metadata(path: str | Path) -> dict[str, str]:
  """What a safetensors file says of itself; {} if that is nothing, or for another kind of file.

  Raises FileNotFoundError or IsADirectoryError if there is no such file, and ValueError if it is
  damaged.
  """
  path = _existing(path)
  with open(path, 'rb') as file:
    if not _is_safetensors(file.read(9)):
      return {}
  with _explained(path), safetensors.safe_open(path, 'np') as file:
    return file.metadata() or {}


def write(path: str | Path, arrays: Mapping[str, np.ndarray],
          metadata: Mapping[str, str] | None = None, *, overwrite: bool = False):
  """Writes a safetensors file, whole or not at all.

  Raises FileExistsError if the file is there and may not be overwritten, FileNotFoundError if its
  folder is not, and ValueError for names, arrays or metadata that the format does not hold.
  """
  path, metadata = paths.expand(path), dict(metadata or {})
  if not path.parent.is_dir():
    raise FileNotFoundError(f'{path} cannot be written: there is no folder {path.parent}; make it')
  if path.is_dir():
    raise IsADirectoryError(f'{path} is a folder; name a file in it')
  if path.exists() and not overwrite:
    raise FileExistsError(f'{path} exists; pass overwrite=True to replace it, or another name')
  for text in (*arrays, *metadata, *metadata.values()):
    if not isinstance(text, str) or (text in arrays and text == '__metadata__'):
      raise ValueError(f'{path} cannot hold {text!r}: names and metadata are text, and no array '
                       'is named __metadata__; rename it')
  arrays = {name: np.asarray(x) for name, x in arrays.items()}
  with _explained(path):
    content = safetensors.numpy.save({k: _own(k, x) for k, x in arrays.items()}, metadata or None)
  paths.write_atomically(path, content)


_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_STORAGES = {f'torch.{name}Storage': np.dtype(dtype) for name, dtype in {
    'Float': 'f4', 'Double': 'f8', 'Half': 'f2', 'BFloat16': _BFLOAT16, 'Long': 'i8', 'Int': 'i4',
    'Short': 'i2', 'Char': 'i1', 'Byte': 'u1', 'Bool': '?'}.items()}
_SAFETENSORS = {'BF16': _BFLOAT16, 'BOOL': np.dtype('?')} | {
    f'{kind}{8 * size}': np.dtype(f'{kind.lower()}{size}')
    for kind in 'FIU' for size in (1, 2, 4, 8) if kind + str(size) != 'F1'}
_ONLY = 'dense arrays of floats, integers or booleans are what it may hold'
_SAVE = 'Save the state dict alone: torch.save(model.state_dict(), path)'

# Tuples, since no opcode can change one: they have no __dict__ and no __setstate__.
_Storage = namedtuple('_Storage', 'key dtype count')
_Tensor = namedtuple('_Tensor', 'storage offset shape strides')


# What a checkpoint has besides weights and is no code: kept as a name alone.
_HARMLESS = {
    'argparse.Namespace', 'types.SimpleNamespace', 'copyreg._reconstructor', '_codecs.encode',
    'collections.Counter', 'collections.deque', 'numpy.dtype', 'numpy.ndarray', 'torch.device',
    *(f'builtins.{name}' for name in (
        'bool', 'bytearray', 'bytes', 'complex', 'dict', 'float', 'frozenset', 'int', 'list',
        'long', 'object', 'range', 'set', 'slice', 'str', 'tuple', 'xrange')),
    *(f'datetime.{name}' for name in ('date', 'datetime', 'time', 'timedelta')),
    *(f'numpy.{core}.multiarray.{name}' for core in ('core', '_core')
      for name in ('scalar', '_reconstruct')),
    *(f'numpy.{core}.numeric._frombuffer' for core in ('core', '_core')),
    *(f'pathlib.{local}{kind}{name}' for local in ('', '_local.') for kind in ('', 'Pure')
      for name in ('Path', 'PosixPath', 'WindowsPath')),
    *(f'torch.{name}' for name in (
        'bfloat16', 'bool', 'complex128', 'complex64', 'float16', 'float32', 'float64', 'int16',
        'int32', 'int64', 'int8', 'uint8'))}
_PYTHON_2 = {'__builtin__': 'builtins', 'copy_reg': 'copyreg'}  # as protocol 2 writes them


class _Refused(Exception):  # noqa: N818
  """Why a file is not read, its name left out; any other exception means that it is damaged."""


@contextlib.contextmanager
def _explained(path):
  try:
    yield
  except _Refused as e:
    raise ValueError(f'{path} {e}') from None
  except MemoryError as e:  # which says nothing of the file
    raise MemoryError(f'{path} is larger than the memory that is left; free some') from e
  except Exception as e:
    reason = (str(e).strip().splitlines() or [type(e).__name__])[0][:300]
    raise ValueError(f'{path} is damaged or incomplete ({reason}). Copy or download it again, or '
                     'save it again') from e


def _existing(path):
  path = paths.expand(path)
  if path.is_dir():
    raise IsADirectoryError(f'{path} is a folder; name a file in it')
  if not path.exists():
    raise FileNotFoundError(f'{path} does not exist; check the path')
  return path


def _is_safetensors(start):
  # The size of a header of at most 100 MB, and its brace. No other kind looks like it, whereas the
  # size may look like the start of a pickle.
  return 2 <= int.from_bytes(start[:8], 'little') <= 10 ** 8 and start[8:9] == b'{'


def _no_checkpoint(data):
  start = data[:200].lstrip().lower()
  if not data:
    return 'is empty. Copy or download it again'
  if start.startswith(b'version https://git-lfs'):
    return 'is a Git LFS pointer, not the file it points to. Run git lfs pull'
  if start.startswith((b'<!doctype', b'<html', b'<?xml')):
    return 'is a web page, saved in place of the file. Download the file itself'
  return (f'is no checkpoint: it starts with {data[:8]!r}. Files of PyTorch (.pth, .pt), '
          'safetensors and NumPy (.npz) are read; convert it to one of them')


def _whole(arrays, part):
  if part is not None:
    raise _Refused(f'is one state dict and has no part {part!r}. Leave part= out')
  return arrays


def _own(name, array):
  dtype = array.dtype.newbyteorder('=')
  if dtype not in _SAFETENSORS.values():
    raise _Refused(f'holds {name} as {array.dtype}; {_ONLY}. Convert it first')
  return np.array(array, dtype, order='C')


def _from_safetensors(data):
  arrays = {}
  for name, spec in safetensors.deserialize(data):
    if spec['dtype'] not in _SAFETENSORS:
      raise _Refused(f'holds {name} as {spec["dtype"]}; {_ONLY}. Convert it first')
    arrays[name] = np.ndarray(spec['shape'], _SAFETENSORS[spec['dtype']], spec['data']).copy()
  return arrays


def _from_zip(data, part):
  if not zipfile.is_zipfile(io.BytesIO(data)):
    raise ValueError('a zip archive without its end')
  with zipfile.ZipFile(io.BytesIO(data)) as archive:
    entries = archive.infolist()
    listed = int.from_bytes(data[-12:-10], 'little')
    if data[-22:-18] == b'PK\5\6' and listed not in (len(entries), 0xffff):
      raise ValueError(f'a zip archive of {listed} entries lists {len(entries)}')
    _check_room(sum(entry.file_size for entry in entries), data)
    names = [entry.filename for entry in entries]
    if names and all(name.endswith('.npy') for name in names):
      return _whole({name[:-4]: _from_npy(name[:-4], archive.read(name)) for name in names}, part)
    return _from_torch_zip(archive, data, part)


def _from_torch_zip(archive, data, part):
  sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
  if any(name.endswith('constants.pkl') or '/code/' in name for name in sizes):
    raise _Refused(f'is a TorchScript archive, a program; only weights are read. {_SAVE}')
  roots = [name.removesuffix('data.pkl') for name in sizes
           if name.split('/')[-1] == 'data.pkl' and name.count('/') < 2]
  if len(roots) != 1:
    raise _Refused('is a zip archive, but not of torch.save or numpy.savez. Unpack it, or save '
                   'the weights with one of these')
  if f'{roots[0]}byteorder' in sizes:
    _check_order(archive.read(f'{roots[0]}byteorder') == b'little')
  tree, storages, _ = _unpickled(archive.read(f'{roots[0]}data.pkl'))
  state, raw = _chosen(tree, part), {}
  for key in {tensor.storage.key for tensor in state.values()}:
    name, size = f'{roots[0]}data/{key}', storages[key].count * storages[key].dtype.itemsize
    if sizes.get(name) != size:
      raise ValueError(f'{name} has {sizes.get(name, "no")} bytes, not {size}')
    raw[key] = archive.read(name)
  return _arrays(state, raw, data)


def _from_npy(name, raw):
  try:
    return _own(name, np.lib.format.read_array(io.BytesIO(raw), allow_pickle=False))
  except ValueError as e:
    if 'Object arrays' in str(e):
      raise _Refused(f'holds {name} as pickled objects, which are never loaded; {_ONLY}. Save '
                     'arrays of numbers') from e
    raise


def _from_stream(data, part):
  """Pickles one after the other, then the storages in the order of the last pickle."""
  magic, _, at = _unpickled(data)
  if magic != 0x1950a86a20f9469cfc6c:
    raise _Refused(f'is a pickle, but not of torch.save. {_SAVE}')
  version, _, at = _unpickled(data, at)
  if version != 1001:
    raise ValueError(f'version {version!s:.20} of a format that has 1001 alone')
  system, _, at = _unpickled(data, at)
  _check_order(system['little_endian'] is True)
  tree, storages, at = _unpickled(data, at)
  keys, _, at = _unpickled(data, at)
  if sorted(keys) != sorted(storages):
    raise ValueError('the storages that are listed are not those that are used')
  raw = {}
  for key in keys:
    count, start = int.from_bytes(data[at:at + 8], 'little'), at + 8
    at = start + count * storages[key].dtype.itemsize
    if count != storages[key].count or at > len(data):
      raise ValueError(f'storage {key} of {storages[key].count} values has {count} and ends at '
                       f'byte {at} of {len(data)}')
    raw[key] = memoryview(data)[start:at]
  if at != len(data):
    raise ValueError(f'{len(data) - at} bytes follow the last storage')
  return _arrays(_chosen(tree, part), raw, data)


def _check_order(little):
  if not little:
    raise _Refused('is in big-endian byte order; only little-endian is read. Save it on another '
                   'machine')


def _check_room(size, data):
  # Weights hardly compress and are hardly ever repeated.
  if size > 2 ** 28 + 16 * len(data):
    raise _Refused(f'would take {size / 2 ** 20:.0f} MiB of memory, and is a file of only '
                   f'{len(data) / 2 ** 20:.1f} MiB; 16 times as much is read. Save it uncompressed')


def _unpickled(data, start=0):
  """(object, its storages by key, where the pickle ends); tensors are descriptions as yet."""
  stream = io.BytesIO(data)
  stream.seek(start)
  # The unpickler itself would take extensions from a cache unasked, and memory for any memo.
  highest = 0
  for opcode, arg, _ in pickletools.genops(stream):
    if opcode.name.startswith('EXT'):
      raise _Refused(_pickled_code(f'extension {arg}'))
    if opcode.name in ('PUT', 'LONG_BINPUT'):
      highest = max(highest, arg or 0)
  end = stream.tell()
  if highest > end - start:
    raise ValueError(f'a pickle of {end - start} bytes with {highest} objects')
  unpickler = _Unpickler(io.BytesIO(data[start:end]), encoding='utf-8')
  return unpickler.load(), unpickler.storages, end


class _Unpickler(pickle.Unpickler):
  """Imports nothing and calls nothing but what is listed here."""

  def __init__(self, file, **options):
    super().__init__(file, **options)
    self.storages = {}

  def find_class(self, module, name):
    # Texts and fresh functions: BUILD could set attributes on a function that stays.
    admitted = {
        **dict.fromkeys(_STORAGES, f'{module}.{name}'),
        'collections.OrderedDict': OrderedDict,
        'collections.defaultdict': lambda *_: {},
        'torch.Size': tuple,
        'torch._utils._rebuild_tensor': lambda *args: _tensor(*args),
        'torch._utils._rebuild_tensor_v2': lambda *args: _tensor(*args),
        'torch._utils._rebuild_parameter': lambda data, *_: data}
    harmless = f'{_PYTHON_2.get(module, module)}.{name}'
    if harmless in _HARMLESS:
      return _inert(harmless)
    if f'{module}.{name}' not in admitted:
      raise _Refused(_pickled_code(f'{module}.{name}'))
    return admitted[f'{module}.{name}']

  def persistent_load(self, pid):
    kind, storage, key, _, count, *view = pid
    if kind != 'storage' or not isinstance(key, str) or not _natural(count) or any(view):
      raise ValueError('a storage without key or size, or a view of another')
    made = _Storage(key, _STORAGES[storage], count)
    if self.storages.setdefault(key, made) != made:
      raise ValueError(f'storage {key} has two sizes or types')
    return made


def _inert(name):
  """A class of that name whose making, and whatever a pickle does to it, does nothing: a fresh one,
  since BUILD could set attributes."""

  nothing = dict.fromkeys(('__init__', '__call__', '__setstate__', '__setitem__', 'append',
                           'extend', 'add'), lambda *_: None)
  return type(name, (), {
      '__slots__': (), '__new__': lambda cls, *_args, **_options: object.__new__(cls), **nothing})


def _pickled_code(name):
  module, _, last = name.rpartition('.')
  if module in ('torch', 'torch.storage', 'torch._utils') and \
      (last.startswith('_rebuild_') or last.endswith('Storage')):
    return f'holds tensors of a kind that is not read ({name}); {_ONLY}. Convert them first'
  model = 'is a whole model: it ' if name.startswith('torch.nn.') else ''
  return (f'{model}holds pickled code ({name}), which is never run; only tensors and plain '
          f'containers are read. {_SAVE}')


def _tensor(storage, offset, shape, strides, requires_grad=False, hooks=None, bits=None):
  if bits:
    raise _Refused(f'holds a tensor that is conjugated or negated; {_ONLY}. Clone it first')
  if not (isinstance(storage, _Storage) and all(map(_natural, (offset, *shape, *strides)))):
    raise ValueError('a tensor without storage, or of a negative size')
  last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
  if math.prod(shape) and last >= storage.count:
    raise ValueError(f'a tensor reaches to value {last} of storage {storage.key}, which has '
                     f'{storage.count}')
  return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _natural(n):
  return type(n) is int and n >= 0


def _chosen(tree, part):
  """The state dict of that name. dict.items, since BUILD may have set an attribute `items`."""
  if not isinstance(tree, dict):
    kind = 'one tensor' if isinstance(tree, _Tensor) else f'a {type(tree).__name__}'
    raise _Refused(f'holds {kind}; a dict of tensors is read. {_SAVE}')
  parts = dict(_parts(tree, set()))
  if part in parts:
    tree = parts[part]
  elif parts:
    lacks = '' if part is None else f' but {part!r}'
    raise _Refused(f'is a checkpoint of several parts{lacks}; name one with part= (--key): '
                   f'{", ".join(parts)}')
  else:
    _whole(tree, part)
  strange = [f'{key} ({type(x).__name__})' if isinstance(key, str) else type(key).__name__
             for key, x in dict.items(tree)
             if not isinstance(key, str) or not isinstance(x, _Tensor)]
  if strange:
    raise _Refused(f'holds more than tensors named by text: {", ".join(strange[:5])}; a dict of '
                   f'these is read. {_SAVE}')
  return dict(dict.items(tree))


def _parts(tree, visited, prefix=''):
  visited.add(id(tree))
  for key, value in dict.items(tree):
    if isinstance(key, str) and isinstance(value, dict) and value:
      if all(isinstance(x, _Tensor) for x in dict.values(value)):
        yield prefix + key, value
      elif id(value) not in visited:
        yield from _parts(value, visited, f'{prefix}{key}.')


def _arrays(state, raw, data):
  _check_room(sum(math.prod(x.shape) * x.storage.dtype.itemsize for x in state.values()), data)
  arrays = {}
  for name, (storage, offset, shape, strides) in state.items():
    if math.prod(shape):  # the bounds are checked once more
      size = storage.dtype.itemsize
      arrays[name] = np.array(np.ndarray(shape, storage.dtype, raw[storage.key], offset * size,
                                         [size * stride for stride in strides]), order='C')
    else:
      arrays[name] = np.empty(shape, storage.dtype)
  return arrays
