"""Mean and covariance of features, collected in parts and kept in files."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import json
import operator
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy  # whose `linalg` is imported at its first use: it takes a sixth of our own import

from jaxgan_compress.core import paths


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
  """Mean [D] and covariance [D,D] (ddof 1) of `count` samples, in float64, from parts that add up.

  mean: zeros for no sample. cov: nan for fewer than two samples, which may still be added.
  count: None where a file does not say; such moments can be compared, but not added.
  protocol: how the features were made, as JSON holds it; parts that differ in it do not add up.

    total = sum((Moments.of(batch) for batch in rest), Moments.of(first))

  Raises ValueError for shapes that do not fit, values that are not finite, or a negative count.
  Chan, Golub and LeVeque 1983.
  """
  mean: np.ndarray
  cov: np.ndarray
  count: int | None = None
  protocol: Mapping[str, Any] | None = None

  def __post_init__(self):
    mean, cov = np.asarray(self.mean, np.float64), np.asarray(self.cov, np.float64)
    if mean.ndim != 1 or not mean.size or cov.shape != 2 * mean.shape:
      raise ValueError(f'a mean of shape {mean.shape} and a covariance of shape {cov.shape}; they '
                       'must be [D] and [D,D] of one D')
    if self.count is not None and (self.count != int(self.count) or self.count < 0):
      raise ValueError(f'count={self.count}; it must be a number of samples, or None')
    few = self.count is not None and self.count < 2
    if not (np.isfinite(mean).all() and (few or np.isfinite(cov).all())):
      raise ValueError('the mean or the covariance is not finite; look for the sample that is not')
    if not few and (cov.diagonal() < 0).any():
      raise ValueError(f'a variance of {cov.diagonal().min():.3g}; none can be below 0. Is this a '
                       'covariance?')
    for name, x in (('mean', mean), ('cov', cov)):
      object.__setattr__(self, name, x)

  @classmethod
  def of(cls, features: np.ndarray, protocol: Mapping[str, Any] | None = None) -> Moments:
    """The moments of features [N,D]; N may be 0 or 1, as a last batch or a host's share may be.

    Raises ValueError for another shape, or features that are not finite.
    """
    x = check_features(features)
    if not len(x):
      return cls(np.zeros(x.shape[1]), np.full(2 * x.shape[1:], np.nan), 0, protocol)
    mean = x.mean(0)
    centred = x - mean
    cov = (centred.T @ centred / (len(x) - 1) if len(x) > 1
           else np.full(2 * mean.shape, np.nan))
    return cls(mean, cov, len(x), protocol)

  def __add__(self, other: Moments) -> Moments:
    """The moments of both sets of samples together, to rounding whatever the parts.

    Raises ValueError for different D or protocols, or if a count is unknown.
    """
    n, m = self.count, other.count
    if n is None or m is None:
      raise ValueError('moments whose count is unknown cannot be added; collect them again')
    if self.mean.shape != other.mean.shape:
      raise ValueError(f'moments of {len(self.mean)} and of {len(other.mean)} features cannot be '
                       'added; they must be of the same network')
    if self.protocol != other.protocol:
      raise ValueError(f'moments made by different protocols cannot be added: {self.protocol} and '
                       f'{other.protocol}')
    if not (n and m):
      return self if n else other
    shift = other.mean - self.mean
    scatter = np.outer(shift, shift) * (n * m / (n + m))
    for cov, count in ((self.cov, n), (other.cov, m)):
      if count > 1:
        scatter += cov * (count - 1)
    return Moments(self.mean + shift * (m / (n + m)), scatter / (n + m - 1), n + m, self.protocol)

  @functools.cached_property
  def root(self) -> np.ndarray:
    """The symmetric square root of the covariance, [D,D]; kept once it is computed.

    Raises ValueError for fewer than two samples.
    """
    return square_root(self.known().cov)

  def known(self) -> Moments:
    """These moments. Raises ValueError if they are of fewer than two samples."""
    if self.count is not None and self.count < 2:
      raise ValueError(f'a covariance needs at least 2 samples; got {self.count}')
    return self

  def save(self, path: str | Path, *, overwrite: bool = False):
    """Writes an .npz file with `mu` and `sigma` as pytorch-fid has them, `count` and `protocol`.

    Whole or not at all. Raises FileExistsError if the file is there and may not be overwritten,
    FileNotFoundError if its folder is not, ValueError for fewer than two samples, another ending
    than .npz, or a protocol that JSON does not hold.
    """
    path = paths.expand(path)
    if path.suffix != '.npz':
      raise ValueError(f'{path} does not end with .npz; give it that ending')
    if not path.parent.is_dir():
      raise FileNotFoundError(f'there is no folder {path.parent} for {path.name}; make it')
    if path.exists() and not overwrite:
      raise FileExistsError(f'{path} exists; pass overwrite=True to replace it, or another name')
    arrays: dict[str, Any] = {'mu': self.known().mean, 'sigma': self.cov}
    if self.count is not None:
      arrays['count'] = np.int64(self.count)
    if self.protocol is not None:
      try:
        arrays['protocol'] = np.str_(json.dumps(dict(self.protocol), allow_nan=False))
      except (TypeError, ValueError) as e:
        raise ValueError(f'JSON does not hold the protocol ({e}); pass text, finite numbers, lists '
                         'and dicts of them') from e
    content = io.BytesIO()
    np.savez(content, **arrays)
    paths.write_atomically(path, content.getvalue())

  @classmethod
  def load(cls, path: str | Path) -> Moments:
    """Reads `mu` and `sigma` from an .npz file of pytorch-fid, clean-fid, TTUR or `save`.

    Pickled objects are never loaded; other entries are left alone. Raises FileNotFoundError or
    IsADirectoryError if there is no such file, ValueError, saying why, if it holds something else.
    """
    path = paths.expand(path)
    if path.is_dir():
      raise IsADirectoryError(f'{path} is a folder; name an .npz file in it')
    if not path.exists():
      raise FileNotFoundError(f'{path} does not exist; check the path')
    arrays = _entries(path, ('mu', 'sigma', 'count', 'protocol'))
    lacking = [name for name in ('mu', 'sigma') if name not in arrays]
    if lacking:
      raise ValueError(f'{path} has no {" and no ".join(lacking)}; an .npz file of pytorch-fid has '
                       'mu and sigma. Name another')
    try:
      count, protocol = arrays.get('count'), arrays.get('protocol')
      for name in arrays.keys() - {'protocol'}:
        if arrays[name].dtype.kind not in 'fiu':
          raise ValueError(f'{name} is of {arrays[name].dtype}; it must be numbers')
      if protocol is not None:
        protocol = json.loads(str(protocol))
        if not isinstance(protocol, dict):
          raise ValueError('the protocol is no JSON object')
      moments = cls(arrays['mu'], arrays['sigma'],
                    None if count is None else operator.index(count), protocol).known()
      largest = np.abs(moments.cov - moments.cov.T).max()
      if largest > 1e-5 * np.abs(moments.cov).max():
        raise ValueError(f'sigma is not symmetric, by {largest:.3g}; a covariance is')
      return moments
    except (TypeError, ValueError) as e:
      raise ValueError(f'{path} holds no moments: {e}') from e


def check_features(features: np.ndarray) -> np.ndarray:
  """Features as float64 [N,D]. Raises ValueError for another shape, or values that are not finite.
  """
  x = np.asarray(features, np.float64)
  if x.ndim != 2 or not x.shape[1]:
    raise ValueError(f'features of shape {x.shape}; they must be [N,D], one row for each sample')
  if not np.isfinite(x).all():
    row = int(np.argmin(np.isfinite(x).all(1)))
    raise ValueError(f'the features of sample {row} are not finite; look at its image and at the '
                     'network')
  return x


def square_root(cov: np.ndarray) -> np.ndarray:
  """The symmetric square root of a covariance [D,D]; what rounding left below 0 counts as 0."""
  values, vectors = scipy.linalg.eigh(cov)
  return (vectors * np.sqrt(values.clip(0))) @ vectors.T


def _entries(path, names):
  reason = 'is no .npz file; one that numpy.savez or pytorch-fid wrote is read'
  if not zipfile.is_zipfile(path):
    raise ValueError(f'{path} {reason}')
  try:
    with contextlib.closing(np.load(path, allow_pickle=False)) as file:
      return {name: file[name] for name in names if name in file}
  except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as e:
    if 'Object arrays' in str(e):
      raise ValueError(f'{path} holds pickled objects, which are never loaded. Save mu and sigma '
                       'as arrays of numbers') from e
    raise ValueError(f'{path} is damaged ({e}). Copy it again, or make it again') from e
