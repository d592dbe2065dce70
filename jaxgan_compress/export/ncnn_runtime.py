"""Upscalers in the two files of ncnn, run by ncnn itself or by what they are read as."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxgan_compress.core import BoundGenerator
from jaxgan_compress.nn.files import ncnn as files

# Options of ncnn that round or rearrange, and move images by up to 8e-3; off, they agree to 1e-5.
ROUNDING = ('use_winograd_convolution', 'use_sgemm_convolution', 'use_fp16_packed',
            'use_fp16_storage', 'use_fp16_arithmetic', 'use_bf16_storage', 'use_int8_inference',
            'use_packing_layout')


def run_ncnn(path: str | Path) -> Callable[[np.ndarray], np.ndarray]:
  """A function that runs NAME.param, beside which NAME.bin is, on images [B,H,W,C] in [-1, 1].

  It is run by the package ncnn where that is installed, in float32 on one thread; without it by
  JAX, as the network that the files are read as. Raises ValueError as `nn.files.ncnn.read`.
  """
  module, variables = files.read(path)
  if importlib.util.find_spec('ncnn') is None:
    generator = BoundGenerator(variables, module)
    return lambda x: np.asarray(generator(jax.numpy.asarray(x, np.float32)))
  return functools.partial(_by_ncnn, Path(path))


def _by_ncnn(path, x):
  ncnn: Any = importlib.import_module('ncnn')  # optional, and in no extra of ours
  net = ncnn.Net()
  for option in ROUNDING:
    setattr(net.opt, option, False)
  net.opt.num_threads = 1
  net.load_param(str(path))
  net.load_model(str(path.with_suffix('.bin')))
  images = []
  for picture in np.asarray(x, np.float32):
    with net.create_extractor() as extractor:
      planes = np.ascontiguousarray((picture.transpose(2, 0, 1) + 1) / 2)
      extractor.input(files.INPUT, ncnn.Mat(planes))  # which borrows the planes: they must live on
      code, image = extractor.extract(files.OUTPUT)
      if code:
        raise ValueError(f'ncnn cannot run {path} on {picture.shape}: it returned {code}')
      images.append(2 * np.array(image).transpose(1, 2, 0) - 1)
      del planes
  return np.stack(images)
