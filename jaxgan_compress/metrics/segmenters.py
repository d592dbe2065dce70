"""Networks that predict label maps from images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from jaxgan_compress import nn
from jaxgan_compress.core import in_colour, xla
from jaxgan_compress.metrics import segmentation
from jaxgan_compress.metrics.extractors import checksum
from jaxgan_compress.nn.feature_nets.drn import CITYSCAPES_MEAN, CITYSCAPES_STD


@dataclasses.dataclass(frozen=True, eq=False)
class Segmenter:
  """`apply(variables, images) -> scores [B,H,W,classes]`, whose argmax is the label; can be jitted.

  images: float32 [B,H,W,3] in [-1, 1]. protocol: its name, checksum and quality on real images.
  """
  apply: Callable[[Any, jax.Array], jax.Array]
  variables: Any
  classes: int
  protocol: Mapping[str, Any]


def segmenter(network: linen.Module, variables, accuracy: float | None = None) -> Segmenter:
  """One trained on the data: `network(images) -> (logits [B,H,W,classes], features)`.

  accuracy: on held-out images, for the protocol.
  """
  return Segmenter(lambda v, images: network.apply(v, images)[0], variables, network.classes,
                   {'segmenter': type(network).__name__, 'segmenter_crc32': checksum(variables),
                    'segmenter_accuracy': accuracy})


def drn(path: str | Path) -> Segmenter:
  """DRN-D-105 of Cityscapes, from the file that `convert` made of `drn-d-105_ms_cityscapes.pth`.

  Images become `core.in_colour`, are brought to 8 bits by truncation and normalised as GAN
  Compression, OMGD and CAT do.
  Classes are Cityscapes' 19 trainIds. Raises ValueError for another network in the file.
  """
  network, variables = nn.load(path)
  if not isinstance(network, nn.DRN):
    raise ValueError(f'{path} holds a {type(network).__name__}; mIoU of Cityscapes takes a DRN, '
                     'made by: jaxgan-compress convert --input=drn-d-105_ms_cityscapes.pth '
                     '--output=drn.safetensors')

  def apply(variables, images):
    # The arithmetic of metrics.resize.to_uint8, kept in floats.
    pixels = jnp.floor(jnp.clip((in_colour(images) + 1) / 2 * 255, 0, 255)) / 255
    mean, std = (jnp.array(x).reshape(1, 1, 1, 3) for x in (CITYSCAPES_MEAN, CITYSCAPES_STD))
    return network.apply(variables, (pixels - mean) / std)[0]

  return Segmenter(apply, variables, network.classes,
                   {'segmenter': 'DRN-D-105', 'segmenter_crc32': checksum(variables)})


def cityscapes_scores(reader: Segmenter, images: Iterable[np.ndarray],
                      truths: Iterable[np.ndarray]) -> dict[str, Any]:
  """mIoU as the papers report it: `segmentation.scores` over pairs of image and truth.

  images: float32 [H,W,3] in [-1, 1] each, at the generated size (256x256). truths: trainIds of the
  whole picture each, integers [1024,2048], 255 where nothing counts. Scores are resized to the
  truth by Pillow (bilinear) before the argmax. Papers print 100 times 'miou'.

  Raises ValueError for fewer images than truths, or the other way round.
  """
  apply = xla.jit(reader.apply)
  total = np.zeros((reader.classes, reader.classes), np.int64)
  for image, truth in zip(images, truths, strict=True):
    scores = np.asarray(apply(reader.variables, image[None])[0])
    labels = segmentation.resize_log_probs(scores, *truth.shape).argmax(-1)
    total += segmentation.confusion(labels, truth, reader.classes)
  return segmentation.scores(total)
