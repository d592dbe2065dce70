"""Networks whose features sets of images are compared by, and the names of the distances."""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from jaxgan_compress import convert, core, nn
from jaxgan_compress.core.arguments import one_of
from jaxgan_compress.metrics import resize
from jaxgan_compress.nn.files import network as network_files

PROTOCOLS = {'fid_pytorch': resize.fid_pytorch, 'fid_clean': resize.fid_clean}
STRIP = 2 ** 21  # pixels that a network of convolutions is given at once
HALO = 48  # relu4_3 depends on 42 pixels around its own 8, which begin at multiples of 8
LITE0_SIDE = 224  # pixels of the images that it was trained on
INCEPTION_TAPS = ('64', '192', '768', '2048')


@dataclasses.dataclass(frozen=True, eq=False)
class Extractor:
  """Features of images: `apply(variables, images) -> {'features' [B,D], 'probs' [B,K] or none}`.

  apply takes float32 [B,H,W,C] in [-1, 1], or uint8 as in a file, and can be jitted. protocol holds
  everything that the features depend on, the weights as their CRC-32. `distances` are the names of
  the Frechet and of the kernel distance; only those of `inception` may be called FID and KID, and
  those of another published network bear its name.
  in_colour: the network knows RGB, and images of other channels become `core.in_colour`.
  """
  apply: Callable[[Any, jax.Array], Mapping[str, jax.Array]]
  variables: Any
  protocol: Mapping[str, Any]
  distances: tuple[str, str] = ('fd', 'mmd')
  in_colour: bool = False


def inception(path: str | Path, protocol: str = 'fid_pytorch', tap: str = '2048') -> Extractor:
  """The FID Inception network, from the file that `convert` made of the public weights.

  protocol: 'fid_pytorch', what CAT, OMGD and GAN Compression report (8 bits by truncation, bilinear
  resize without antialias), or 'fid_clean' (8 bits by rounding, bicubic with antialias). Values of
  the two differ by several points. tap: '2048' is the layer of FID; '64', '192' and '768' are
  earlier layers, averaged over the image, for few samples. Inception scores need the whole network.

  Raises ValueError for another network in the file, another protocol or tap.
  """
  one_of('protocol', protocol, PROTOCOLS)
  one_of('tap', tap, INCEPTION_TAPS)
  network, variables = nn.load(path)
  if not isinstance(network, nn.FIDInception):
    raise ValueError(f'{path} holds a {type(network).__name__}; FID takes the Inception network of '
                     '2015-12-05, made by: jaxgan-compress convert '
                     '--input=pt_inception-2015-12-05-6726825d.pth --output=inception.safetensors')

  def apply(variables, images):
    images = _colour(images)
    if images.dtype != jnp.uint8:
      images = resize.to_uint8(images, round=protocol == 'fid_clean')
    logits, taps = network.apply(variables, PROTOCOLS[protocol](images))
    features = jnp.asarray(taps[tap])
    features = features.mean((1, 2)) if features.ndim == 4 else features
    return {'features': features, 'probs': jax.nn.softmax(logits)}

  name = 'inception' if tap == '2048' else f'inception/{tap}'
  return Extractor(apply, variables, _protocol(name, variables, resize=protocol),
                   ('fid', 'kid') if tap == '2048' else ('fd', 'mmd'), in_colour=True)


def efficientnet_lite0(path: str | Path = 'efficientnet_lite0') -> Extractor:
  """EfficientNet-Lite0 with its ImageNet weights: trained features where Inception's are not at
  hand.

  1280 features, the means over the image before the classifier, each in [0, 6]. Images become 8
  bits by rounding and 224x224 as `resize.bicubic` does: all of the image is seen, whatever its
  shape, and one of 64 pixels is enlarged, by which it gains no detail. Distances are called
  fd_efficientnet_lite0 and mmd_efficientnet_lite0; they compare with themselves alone.

  path: weights that a package brings, the extra 'features', or a file that `convert` made. Raises
  ImportError, with what to install, where the package is missing, and ValueError for another
  network, or one without the layer 'pooled'.
  """
  network, variables = convert.open_network(path)
  if not isinstance(network, nn.EfficientNetLite0) or 'pooled' not in network.layers:
    raise ValueError(f'{path} holds {network_files.spell(network)}; these features take an '
                     "EfficientNetLite0 with its layer 'pooled': leave path out, or make it by "
                     'jaxgan-compress convert --input=efficientnet-lite0-57934424.pth '
                     '--output=efficientnet_lite0.safetensors')
  network = network.clone(layers=('pooled',))
  params = {name: x for name, x in variables['params'].items() if name != 'classifier'}
  variables = {**variables, 'params': params}

  def apply(variables, images):
    images = _colour(images)
    if images.dtype != jnp.uint8:
      images = resize.to_uint8(images, round=True)
    with jax.default_matmul_precision('highest'):  # on every accelerator the same
      seen: Any = network.apply(variables, resize.bicubic(images, LITE0_SIDE) / 127.5 - 1)
    return {'features': seen['pooled'][:, 0, 0]}

  return Extractor(apply, variables, _protocol(
      'efficientnet_lite0', variables, resize=f'bicubic_{LITE0_SIDE}'),
      ('fd_efficientnet_lite0', 'mmd_efficientnet_lite0'), in_colour=True)


@functools.lru_cache(maxsize=1)  # a run has several evaluators, and it is large
def random_vgg(seed: int = 0) -> Extractor:
  """A VGG16 that was never trained: a stand-in where no Inception weights are at hand.

  960 features, the means of relu1_2, relu2_2, relu3_3 and relu4_3 over the image, of He-normal
  kernels sampled by NumPy. Distances through it order images by colour and texture; they compare
  with themselves alone, and are never FID.
  """
  network = nn.VGG(16)
  rng = np.random.default_rng(seed)
  shapes = jax.eval_shape(network.init, jax.random.key(0), network.example())

  def random(x):
    fan_in = np.prod(x.shape[:-1])
    return jnp.asarray(rng.normal(0, np.sqrt(2 / fan_in), x.shape) if len(x.shape) == 4
                       else np.zeros(x.shape), jnp.float32)

  variables = jax.tree.map(random, shapes)

  def apply(variables, images):
    return {'features': _averages(lambda x: network.apply(variables, _colour(_floats(x))), images)}

  return Extractor(apply, variables, _protocol('random_vgg16', variables, feature_seed=seed),
                   in_colour=True)


def classifier(network: linen.Module, variables, accuracy: float | None = None) -> Extractor:
  """A stand-in trained on the data: `network(images) -> (logits, features)`.

  accuracy: on held-out images, for the protocol.
  """

  def apply(variables, images):
    logits, features = network.apply(variables, _floats(images))
    return {'features': features, 'probs': jax.nn.softmax(logits)}

  return Extractor(apply, variables, _protocol(type(network).__name__, variables,
                                              feature_net_accuracy=accuracy))


def _averages(layers, images):
  """The means over the image of all layers of a VGG16 up to relu4_3, [B,960].

  An image of more than STRIP pixels is cut into strips, one after another, which changes the means
  by rounding, so that memory does not grow with the image.
  """
  _, height, width, _ = images.shape
  if height * width <= STRIP:
    return jnp.concatenate([x.mean((1, 2)) for x in layers(images).values()], -1)
  along, long, short = (1, height, width) if height > width else (2, width, height)
  size = max(STRIP // 2 // short // 8 * 8, 4 * HALO)  # two may be in memory
  step = size - 2 * HALO
  full = -(-(long - size) // step)  # strips, and one that is left

  def sums(strip, start, end):
    # Rows from start to end are counted; the others are the surroundings that these depend on.
    parts = []
    for stage, x in enumerate(layers(strip).values()):
      row = jnp.arange(x.shape[along]) * 2 ** stage
      counted = ((row >= start) & (row < end)).astype(x.dtype)
      area = (height >> stage) * (width >> stage)
      parts.append(jnp.einsum('bhwc,h->bc' if along == 1 else 'bhwc,w->bc', x, counted,
                              precision='highest') / area)
    return jnp.concatenate(parts, -1)

  def add(total, i):
    strip = jax.lax.dynamic_slice_in_dim(images, i * step, size, along)
    return total + sums(strip, jnp.where(i == 0, 0, HALO), HALO + step), None

  total, _ = jax.lax.scan(add, jnp.zeros((len(images), 960)), jnp.arange(full))
  # The barrier lets the last strip wait for the others, whose memory it takes.
  total, rest = jax.lax.optimization_barrier(
      (total, jax.lax.slice_in_dim(images, full * step, long, axis=along)))
  return total + sums(rest, HALO, long)


def checksum(variables) -> str:
  """CRC-32 of all leaves, in order: it depends on the weights and not on their file."""
  crc = 0
  for leaf in jax.tree.leaves(variables):
    content: Any = np.ascontiguousarray(leaf)
    crc = zlib.crc32(content, crc)
  return f'{crc:08x}'


def _protocol(name, variables, **more):
  return {'feature_net': name, 'feature_crc32': checksum(variables), **more}


def _floats(images):
  return core.normalise({'x': images})['x']


def _colour(images):
  grey_or_rgb = images.shape[-1] in (1, 3)  # whose grey levels stay as in the file
  return core.in_colour(images if grey_or_rgb and images.dtype != jnp.uint16 else _floats(images))
