"""The factors of a network of low rank in a file of their own, apart from its base."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from flax import linen, traverse_util

from jaxgan_compress.nn.files import arrays as files
from jaxgan_compress.nn.files import network
from jaxgan_compress.nn.generators.low_rank import BASE, LowRank
from jaxgan_compress.nn.init import flat, shapes

FORMAT = f'{network.FACTORS} 1'


def save_factors(path: str | Path, module: linen.Module, variables: Mapping, *,
                 overwrite: bool = False, like: linen.Module | None = None, notice: str = ''):
  """Writes what an effect adds to its base: factors, parameters that learned whole, statistics.

  module, variables: of an `nn.LowRank`. The metadata holds the architecture and a checksum of the
  base, of which the file holds nothing. like, notice: as of `nn.save`. Raises FileExistsError if
  the file is there and may not be overwritten, and ValueError for another module.
  """
  if not isinstance(module, LowRank):
    raise ValueError(f'a {type(module).__name__} has no factors; they are of an nn.LowRank. Save '
                     'it by nn.save')
  arrays = {name: np.asarray(x) for name, x in flat(variables).items()}
  network.check(module, arrays, 'these variables')
  base = {name: arrays.pop(name) for name in sorted(arrays) if name.startswith(f'{BASE}/')}
  files.write(path, arrays, {
      'format': FORMAT, 'architecture': json.dumps(network.describe(module, like=like)),
      'crc32': str(network.checksum(arrays)), 'base_crc32': str(network.checksum(base)),
      **({'notice': notice} if notice else {})}, overwrite=overwrite)


def load_factors(path: str | Path, variables: Mapping, like: linen.Module | None = None
                 ) -> tuple[LowRank, dict]:
  """The `nn.LowRank` of a file that `save_factors` wrote, and its variables (NumPy arrays), beside
  these variables of its base; `nn.merged` makes a plain network of both.

  like: as of `nn.load`. Raises FileNotFoundError, and ValueError for a file of another kind, a
  damaged one, and for variables of another base.
  """
  metadata = files.metadata(path)
  if metadata.get('format') != FORMAT:
    raise ValueError(f'{path} is of the format {metadata.get("format", "unknown")!r}, and factors '
                     f'are of {FORMAT!r}; give a file that jaxgan-compress factors wrote')
  arrays = network.undamaged(path, metadata)
  with network.describing(path):
    module = network.build(json.loads(metadata['architecture']), like=like)
  if not isinstance(module, LowRank):
    raise ValueError(f'{path} is of a {type(module).__name__}, which has no factors; make it again')
  given = {name: np.asarray(x) for name, x in flat(variables['params']).items()}
  expected = flat(shapes(module)[BASE])
  base = {f'{BASE}/{name}': given[name] for name in expected if name in given}
  if len(base) < len(expected) or str(network.checksum(base)) != metadata.get('base_crc32'):
    raise ValueError(f'{path} belongs to another base: the kernels of the one that is given are '
                     'not those beside which the factors learned; give the file of their base')
  found = {**arrays, **base}
  network.check(module, found, 'its arrays')
  return module, traverse_util.unflatten_dict(found, sep='/')
