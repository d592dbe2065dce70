"""Checkpoint files changed at random: a value or a clear refusal, never anything else.

    python -m tests.fuzz_checkpoints --count=500 --seed=0
    python -m tests.fuzz_checkpoints --only=137 --seed=0       # one case again, with its traceback

Every case writes a file, changes it, and opens it as users do. What may come of it: a network or
arrays, or a ValueError that names the file. A failure is any other exception, code that ran, more
than LIMIT seconds, or more than 4 GiB of memory.
"""

import argparse
import collections
import io
import json
import pickle
import resource
import signal
import sys
import tempfile
import traceback
import warnings
import zipfile
from pathlib import Path

import jax
import numpy as np

from jaxgan_compress import convert, nn
from jaxgan_compress.nn.files import arrays as files
from tests import published
from tests.test_checkpoint_files import call, mapping, name, saved, several, storage, tensor, text

LIMIT = 20  # seconds a case
NETWORKS = (nn.resnet(2, 1, dropout=0.), nn.unet(1, 2), nn.PatchGAN(1, 2, norm='batch'),
            nn.DCGANGenerator(1, size=32), nn.MultiScale(1, 2, 1), nn.PixelGAN(2),
            nn.InceptionGenerator((1, 2, 2), (nn.Branches(((3, 2),), ((5, 1),)),), (2, 1)))
KINDS = ('safetensors', 'npz', 'zip', 'stream', 'network')
STRANGE = (None, True, 0, -1, 3, 2 ** 31, 2 ** 63, 10 ** 9, 10 ** 30, 1e309, 0.5, '', 'float32',
           'os', [], [[]], [3, 3, 3], {}, {'name': 'Branches'}, {'name': 'ResNetGenerator'})
TORCH = {'f4': 'Float', 'f8': 'Double', 'f2': 'Half', 'i8': 'Long', 'i4': 'Int', 'u1': 'Byte'}


def state_of(module, rng):
  state = published.state_dict(module, published.normal_fill)
  for _ in range(int(rng.integers(0, 3))):  # half of all are as they were
    key = str(rng.choice(list(state)))
    x, change = state[key], rng.integers(0, 10)
    with np.errstate(all='ignore'):
      if change < 2:
        del state[key]
      elif change == 2:
        state[f'{rng.choice(["x", "model.", "a.b.c."])}{key}'] = state.pop(key)
      elif change == 3:
        state[key] = x * np.float32(rng.choice([np.nan, np.inf, 0]))
      elif change == 4:
        state[key] = x.astype(rng.choice(['f2', 'f8', 'i4', 'u1']))
      elif change == 5:
        state[key] = x.reshape(rng.choice([-1, 1]), *x.shape) if x.ndim else x[None]
      elif change == 6:
        state[key] = x[:0] if x.ndim else x
      elif change == 7:
        state[f'{key}_orig'] = state.pop(key)
      elif change == 8:
        state[key] = x.swapaxes(0, -1) if x.ndim else x
      else:
        state[f'{key.rpartition(".")[0]}.{rng.choice(["bias", "weight", "weight_g", "scale"])}'] = x
  return state


def pickled(state, rng, mark):
  """(pickle of the state, its storages)."""
  items, storages = {}, {}
  for i, (key, x) in enumerate(state.items()):
    x = np.ascontiguousarray(x)
    kind = x.dtype.str[1:]
    storages[str(i)] = x.reshape(-1)
    strides = [s // x.itemsize for s in x.strides]
    items[key] = tensor(x.shape, strides, 0, storage(str(i), TORCH[kind], x.size))
  body = mapping(**items)
  extra = rng.integers(0, 8)
  if extra == 0:
    evil = call(name('posix', 'system'), text(f'touch {mark}'))
    body = mapping(**items, step=evil) if rng.integers(2) else evil + b'0' + body
  elif extra == 1:  # a NumPy number, as any pickler writes it
    body = mapping(state_dict=body, best=pickle.dumps(np.float64(3), 2)[2:-1])
  elif extra == 2:
    body = mapping(state_dict=body, device=call(name('torch', 'device'), text('cuda')))
  elif extra == 3:
    for _ in range(int(rng.choice([3, 3000]))):
      body = mapping(deeper=body) if rng.integers(2) else several(body)
  return body, storages


def written(path, kind, state, module, rng, mark):
  if kind == 'network':
    variables = convert.from_torch(published.state_dict(module, published.normal_fill))[1]
    nn.save(path, module, variables)
  elif kind == 'safetensors':
    files.write(path, state)
  elif kind == 'npz':
    stream = io.BytesIO()
    np.savez(stream, **state)
    path.write_bytes(stream.getvalue())
  else:
    saved(path, kind, *pickled(state, rng, mark))


def strange(tree, rng):
  """The tree of JSON with one leaf or branch replaced."""
  if not isinstance(tree, dict | list) or not tree or rng.random() < 0.15:
    return STRANGE[rng.integers(len(STRANGE))]
  at = list(tree)[rng.integers(len(tree))] if isinstance(tree, dict) else int(
      rng.integers(len(tree)))
  copy = tree.copy()
  copy[at] = strange(tree[at], rng)
  if isinstance(copy, dict) and rng.random() < 0.1:
    copy[f'{at}x'] = copy.pop(at)
  return copy


def edited_header(data, rng):
  """A safetensors file with a strange header."""
  size = int.from_bytes(data[:8], 'little')
  header = strange(json.loads(data[8:8 + size]), rng)
  text = json.dumps(header).encode()
  return len(text).to_bytes(8, 'little') + text + data[8 + size:]


def edited_architecture(path, rng):
  arrays, metadata = files.read(path), files.metadata(path)
  described = strange(json.loads(metadata['architecture']), rng)
  files.write(path, arrays, {**metadata, 'architecture': json.dumps(described)}, overwrite=True)


def edited_archive(data, rng):
  """A zip archive, its checksums right, with an entry changed, lost, doubled or added."""
  stream = io.BytesIO()
  with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(stream, 'w') as target:
    names = source.namelist()
    chosen = names[rng.integers(len(names))] if rng.integers(2) else names[0]
    for each in names:
      content = source.read(each)
      change = rng.integers(0, 4) if each == chosen else 9
      if change == 0:
        continue
      target.writestr(each, flipped(content, rng) if change == 1 else content)
      if change == 2:
        target.writestr(f'{each}x', content)
      elif change == 3:
        target.writestr(f'{each}.npy', bytes(10 ** 6), zipfile.ZIP_DEFLATED)
  return stream.getvalue()


def flipped(data, rng):
  data = bytearray(data)
  for _ in range(int(rng.integers(1, 9))):
    if data:
      data[rng.integers(len(data))] = rng.integers(256)
  return bytes(data)


def changed(data, rng):
  """Bytes cut, overwritten, doubled, or a number somewhere become huge."""
  change, at = rng.integers(0, 6), int(rng.integers(len(data)))
  early = int(rng.integers(min(300, len(data))))
  if change == 0:
    return data[:at]
  if change == 1:
    return data + data[at:]
  if change == 2:
    return data[:at] + bytes(200) + data[at + 200:]
  if change == 3:
    return data[:early] + int(rng.choice([2 ** 31 - 1, 2 ** 40, 2 ** 62])).to_bytes(
        8, 'little') + data[early + 8:]
  return flipped(data[:400], rng) + data[400:] if change == 4 else flipped(data, rng)


def opened(path):
  """What a user gets."""
  if files.metadata(path).get('format', '').startswith('jaxgan_compress'):
    return nn.load(path)
  try:
    state = convert.load(path)
  except ValueError as e:
    if 'state_dict' not in str(e):
      raise
    state = convert.load(path, 'state_dict')
  try:
    return convert.from_torch(state)
  except ValueError as e:  # of arrays, not of a file: the command puts its name before
    raise ValueError(f'{path}: {e}') from e


def case(i, seed, folder):
  """What came of case i, in a word; raises what must not be."""
  rng = np.random.default_rng((seed, i))
  module, kind = NETWORKS[rng.integers(len(NETWORKS))], KINDS[i % len(KINDS)]
  path, mark = folder / f'case{i}.pth', folder / 'ran'
  written(path, kind, state_of(module, rng), module, rng, mark)
  how = rng.integers(0, 4)
  if how == 0:
    path.write_bytes(changed(path.read_bytes(), rng))
  elif kind == 'network' and how < 3:
    edited_architecture(path, rng)
  elif kind in ('safetensors', 'network') and how == 1:
    path.write_bytes(edited_header(path.read_bytes(), rng))
  elif kind in ('npz', 'zip') and how == 1:
    path.write_bytes(edited_archive(path.read_bytes(), rng))
  try:
    with warnings.catch_warnings(action='ignore'):
      opened(path)
  except ValueError as e:
    if path.name not in str(e) or len(str(e)) < len(str(path)) + 20:
      raise AssertionError(f'the file is not named, or no reason: {e}') from e
    return 'refused'
  finally:
    path.unlink()
    if mark.exists():
      raise AssertionError('code of the file ran')
  return 'opened'


def _too_long(*_):
  raise TimeoutError(f'more than {LIMIT} seconds')


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument('--count', type=int, default=500)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--only', type=int)
  options = parser.parse_args()
  jax.config.update('jax_platforms', 'cpu')
  signal.signal(signal.SIGALRM, _too_long)
  with open('/proc/self/statm') as statm:
    held = int(statm.read().split()[0]) * resource.getpagesize()
  resource.setrlimit(resource.RLIMIT_AS, (held + 2 ** 32,) * 2)
  outcomes, failures = collections.Counter(), []
  with tempfile.TemporaryDirectory() as folder:
    for i in range(options.count) if options.only is None else (options.only,):
      signal.alarm(LIMIT)
      try:
        outcomes[case(i, options.seed, Path(folder))] += 1
      except Exception as e:
        failures.append(i)
        print(f'case {i}: {type(e).__name__}: {str(e)[:300]}', flush=True)
        if options.only is not None:
          traceback.print_exc()
      finally:
        signal.alarm(0)
  print(f'{dict(outcomes)}, {len(failures)} failures {failures}')
  return bool(failures)


if __name__ == '__main__':
  sys.exit(main())
