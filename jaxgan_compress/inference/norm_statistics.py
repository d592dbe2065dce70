"""What norms take from the whole picture, as instance norms do: measured, and given instead.

An instance norm ties every pixel of an image to all others. Whoever has the statistics (mean and
variance of each channel at each norm) can generate a picture in tiles, or a video without flicker.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxgan_compress.core import BoundGenerator
from jaxgan_compress.inference.engines import to_float
from jaxgan_compress.nn.layers import conv_dispatch, norms


class Sums(NamedTuple):
  """Of one norm over some pixels: how many, mean [C], and sum of squared deviations [C]."""
  count: Any
  mean: Any
  squares: Any


def apply_with(bound: BoundGenerator, x, norm: Callable[[Any], Sums]):
  """The image of a batch, where `norm(map)` gives the statistics of each norm."""

  def record(function, args, kwargs):
    if function.__name__ == 'instance_norm':
      return normed(*args, **kwargs)
    if function.__name__ == 'channel_mean':
      return norm(args[0]).mean.astype(args[0].dtype)
    return function(*args, **kwargs)

  def normed(x, scale=None, bias=None, epsilon=1e-5):
    y = norms.at_least_float32(x)
    sums = norm(y)
    inverse = lax.rsqrt(sums.squares / sums.count + epsilon)
    y = (y - norms.per_channel(sums.mean)) * norms.per_channel(inverse)
    if scale is not None:
      y = y * norms.per_channel(scale) + norms.per_channel(bias)
    return y.astype(x.dtype)

  with conv_dispatch.recording(record):
    return bound.module.apply(bound.variables, to_float(x), train=False)[0]


def merged(a: Sums, b: Sums) -> Sums:
  """The sums over the pixels of both."""
  count = a.count + b.count
  apart = b.mean - a.mean
  share = np.where(count > 0, b.count / np.maximum(count, 1), 0)
  return Sums(count, a.mean + apart * share,
              a.squares + b.squares + np.square(apart) * a.count * share)


def sums_over(y) -> Sums:
  """Of a map [B,h,w,C] over all samples together."""
  mean = y.mean((0, 1, 2))
  squares = jnp.square(y - norms.per_channel(mean)).sum((0, 1, 2))
  return Sums(jnp.float32(y.size // y.shape[-1]), mean, squares)


def of_batches(bound: BoundGenerator) -> bool:
  """Whether the images of a batch depend on each other, as with norms that always take the batch's
  own statistics."""
  names = set()

  def record(function, args, kwargs):
    names.add(function.__name__)
    return function(*args, **kwargs)

  with conv_dispatch.recording(record):
    jax.eval_shape(lambda x: bound.module.apply(bound.variables, x, train=False)[0],
                   bound.module.example())
  return 'channel_mean' in names


def measure(bound: BoundGenerator, x) -> list[Sums]:
  """The statistics of every norm over all samples of a batch together."""
  found = []

  def norm(y):
    found.append(sums_over(y))
    return found[-1]

  apply_with(bound, x, norm)
  return found
