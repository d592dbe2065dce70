"""Weights and inputs that anyone can compute, of which published code gave the recorded outputs."""

import zlib

import numpy as np


def hashed(key, count):
  """Uniform in [-1, 1): a hash of the key and the position."""
  u = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(2654435761)
  u = (u + np.uint64(zlib.crc32(key.encode()))) % np.uint64(2 ** 32)
  for shift, factor in ((16, 2246822519), (13, 3266489917), (16, 1)):
    u ^= u >> np.uint64(shift)
    u = u * np.uint64(factor) % np.uint64(2 ** 32)
  return u / 2 ** 31 - 1


def hashed_fill(key, shape, prefix=''):
  """The fill rule of the OMGD goldens, float64, by state-dict key."""
  if key.endswith('num_batches_tracked'):
    return np.zeros(shape, np.int64)
  h = hashed(prefix + key, int(np.prod(shape))).reshape(shape)
  if len(shape) == 4:
    return h * np.sqrt(6 / np.prod(shape[1:]))
  leaf = key.rsplit('.', 1)[-1]
  return {'bias': 0.1 * h, 'weight': 1 + 0.1 * h, 'running_mean': 0.1 * h,
          'running_var': 1 + 0.25 * h}[leaf]


def normal_fill(key, shape):
  """The fill rule of the CAT goldens, float32, by state-dict key."""
  if key.endswith('num_batches_tracked'):
    return np.zeros(shape, np.int64)
  z = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(size=shape)
  leaf = key.rsplit('.', 1)[-1]
  if len(shape) == 4:
    z = z / np.sqrt(np.prod(shape[1:]))
  else:
    z = {'weight': 1 + 0.3 * z, 'bias': 0.1 * z, 'running_mean': 0.1 * z,
         'running_var': 1 + 0.3 * np.abs(z), 'weight_u': z / np.linalg.norm(z),
         'weight_v': z / np.linalg.norm(z)}[leaf]
  return z.astype(np.float32)


def state_dict(module, fill, **rule):
  """A state dict of the module's published counterpart."""
  import jax  # here, so that scripts can record where there is PyTorch and no JAX

  from jaxgan_compress import convert
  from jaxgan_compress.nn.init import shapes
  empty = convert.to_torch(module, jax.tree.map(
      lambda x: np.zeros(x.shape, x.dtype), shapes(module)))
  return {key: fill(key, x.shape, **rule) for key, x in empty.items()}


def wave(batch, channels, height, width, phase):
  """Smooth images, NCHW float64."""
  n, c, i, j = np.ogrid[:batch, :channels, :height, :width]
  return np.sin(0.05 * j * (c + 1) + 0.07 * i + 0.3 * n + phase) * np.cos(
      0.11 * i * (c + 1) + 0.2 * phase)


def uniform(seed, *shape):
  """Uniform noise images, float32."""
  return np.random.RandomState(seed).uniform(-1, 1, size=shape).astype(np.float32)


def blocky_labels():
  """One-hot label maps with an edge channel, (2, 36, 64, 128) float32."""
  r = np.random.RandomState(1)
  labels = r.randint(0, 35, (2, 8, 16)).repeat(8, 1).repeat(8, 2)
  ids = r.randint(0, 50, (2, 16, 32)).repeat(4, 1).repeat(4, 2)
  edges = np.zeros(ids.shape, bool)
  for axis in (1, 2):
    here, there = ([slice(None)] * 3 for _ in range(2))
    here[axis], there[axis] = slice(1, None), slice(None, -1)
    differs = ids[tuple(here)] != ids[tuple(there)]
    edges[tuple(here)] |= differs
    edges[tuple(there)] |= differs
  return np.concatenate([np.eye(35)[labels].transpose(0, 3, 1, 2), edges[:, None]],
                        1).astype(np.float32)


def nhwc(x):
  return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def nchw(x):
  return np.asarray(x).transpose(0, 3, 1, 2)
