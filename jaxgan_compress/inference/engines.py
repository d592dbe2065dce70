"""What runs a generator: XLA on any device, or ONNX Runtime on the CPU, and which is faster."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Protocol

import jax
import numpy as np

from jaxgan_compress.core import paths
from jaxgan_compress.core.xla import jit
from jaxgan_compress.data.picture_folders import key_of
from jaxgan_compress.export import FORMATS, run_onnx, to_onnx
from jaxgan_compress.inference.networks import Network

ENGINES = ('auto', 'jax', 'onnxruntime')
ROUNDS = 3
PROGRAMS = 64  # that are kept: each holds memory maps, of which a process has few
MEASURED = 'engines.json'  # in the cache folder: seconds of each network and size


class Engine(Protocol):
  """Runs a generator: `engine(x) -> images`.

  x: uint8 or uint16 pictures or float32 planes [B,H,W,C], or latents [B,latent] -> float32 images
  [B,h,w,c] in [-1, 1].
  """
  name: str

  def __call__(self, x: np.ndarray) -> np.ndarray: ...


class JaxEngine:
  """XLA on the first device; each shape is compiled once. A smaller batch of a size that has been
  compiled is filled up, since compiling takes seconds."""
  name = 'jax'

  def __init__(self, network: Network):
    if network.bound is None:
      raise ValueError(f'{network.folder} is an export, which runs on onnxruntime; take that '
                       'engine, or network.safetensors in the folder')
    module = network.bound.module
    self._variables = jax.device_put(network.bound.variables)
    self._run = jit(lambda variables, x: module.apply(variables, to_float(x), train=False)[0])
    self._batches: dict[tuple[int, ...], int] = {}

  def __call__(self, x: np.ndarray) -> np.ndarray:
    count = len(x)
    if x.shape[1:] not in self._batches and len(self._batches) == PROGRAMS:
      self._batches.clear()
      self._run.clear_cache()  # pyright: ignore[reportAttributeAccessIssue] - of `jax.jit`
    batch = self._batches.setdefault(x.shape[1:], count)
    if count > batch:
      batch = self._batches[x.shape[1:]] = count
    if count < batch:
      x = np.concatenate([x, np.zeros((batch - count, *x.shape[1:]), x.dtype)])
    return np.asarray(self._run(self._variables, x))[:count]


class OnnxEngine:
  """ONNX Runtime on the CPU, for any size without compiling."""
  name = 'onnxruntime'

  def __init__(self, network: Network):
    self._first = network.layout == 'NCHW'
    if network.folder:
      self._run = run_onnx((network.folder / FORMATS['onnx']).read_bytes())
    else:
      assert network.bound
      module = network.bound.module
      if 'dtype' in vars(module):
        module = module.clone(dtype=np.float32)
      self._run = run_onnx(to_onnx(module, network.bound.variables, module.example().shape))

  def __call__(self, x: np.ndarray) -> np.ndarray:
    x = to_float(x)
    if self._first and x.ndim == 4:
      return self._run(np.ascontiguousarray(x.transpose(0, 3, 1, 2))).transpose(0, 2, 3, 1)
    return self._run(x)


def to_float(x):
  """uint8 or uint16 pictures become float32 in [-1, 1]; floats stay. NumPy or JAX."""
  if x.dtype in (np.uint8, np.uint16):
    return x.astype(np.float32) * np.float32(2 / np.iinfo(x.dtype).max) - 1
  return x


def choose_engine(network: Network, sizes: Mapping[tuple[int, ...], int], engine: str = 'auto'
                  ) -> Engine:
  """What runs the network: that of `ENGINES`, or with 'auto' the fastest that is installed.

  sizes: {shape of an input [H,W,C]: how many there are}. 'auto' runs the most frequent size on each
  engine once per network, size and machine, and remembers the seconds; what XLA takes to compile
  each size counts too. Off CPUs XLA is taken.

  Raises ValueError for an unknown engine, and ImportError for one that is not installed.
  """
  if engine not in ENGINES:
    raise ValueError(f'engine={engine!r}; one of {", ".join(ENGINES)}')
  if network.bound is None or engine == 'onnxruntime':
    if engine == 'jax':
      return JaxEngine(network)  # which says why not
    return OnnxEngine(network)
  if engine == 'jax' or jax.default_backend() != 'cpu' or not _installed() or not sizes:
    return JaxEngine(network)
  shape = max(sizes, key=lambda shape: sizes[shape])
  key = key_of(network.identity, shape, _machine())
  seconds = _remembered().get(key)
  if seconds is None:
    seconds = {name: list(_measure(kind, network, shape)) for name, kind in (
        ('jax', JaxEngine), ('onnxruntime', OnnxEngine))}
    _remember(key, seconds)
  total = {name: first * (len(sizes) if name == 'jax' else 1) + each * sum(sizes.values())
           for name, (first, each) in seconds.items()}
  return (JaxEngine if total['jax'] <= total['onnxruntime'] else OnnxEngine)(network)


def _installed() -> bool:
  try:
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401
  except ImportError:
    return False
  return True


def _measure(kind, network, shape) -> tuple[float, float]:
  """(seconds until an engine has run a shape for the first time, and each time after)."""
  start = time.perf_counter()
  x = np.zeros((1, *shape), np.float32)
  try:
    engine = kind(network)
    engine(x)
  except ValueError:  # an operation that has no counterpart in ONNX
    return float('inf'), float('inf')
  first, rounds = time.perf_counter() - start, []
  for _ in range(ROUNDS):
    start = time.perf_counter()
    engine(x)
    rounds.append(time.perf_counter() - start)
  return first, min(rounds)


def _machine() -> list:
  import onnxruntime
  return [jax.devices()[0].device_kind, os.cpu_count(), jax.__version__, onnxruntime.__version__]


def _remembered() -> dict:
  try:
    return json.loads(paths.cache_folder(MEASURED).read_text())
  except (OSError, ValueError):
    return {}


def _remember(key, seconds):
  file = paths.cache_folder(MEASURED)
  try:
    file.parent.mkdir(parents=True, exist_ok=True)
    paths.write_atomically(file, json.dumps({**_remembered(), key: seconds}))
  except OSError:
    pass  # it is measured again next time
