"""Scores of predicted label maps."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image


def count(predicted, truth, classes: int, ignore: int | None = 255):
  """Pixels by true and predicted class, int32 [K+1,K+1], in JAX; tables of batches add up.

  predicted, truth: integers of one shape, whatever it is. The last row counts the pixels that do
  not matter: truth `ignore`, or outside 0..K-1. The last column counts predictions outside 0..K-1.
  A sum over batches must stay below 2^31 pixels; `table` turns one into int64.

  Raises ValueError for different shapes, values that are no integers, or 2^31 pixels and more.
  """
  _check(predicted, truth, classes)

  def clean(x, ignore=None):
    x = jnp.asarray(x)
    x = x.astype(jnp.promote_types(x.dtype, jnp.int32))  # uint8 could not hold `classes`
    inside = (x >= 0) & (x < classes)
    return jnp.where(inside if ignore is None else inside & (x != ignore), x, classes)

  index = clean(truth, ignore) * (classes + 1) + clean(predicted)
  counts = jnp.bincount(index.ravel(), length=(classes + 1) ** 2)
  return counts.astype(jnp.int32).reshape(classes + 1, classes + 1)


def table(counts) -> np.ndarray:
  """The confusion matrix, int64 [K,K], of what `count` counted [K+1,K+1].

  Raises ValueError if any prediction, of an ignored pixel too, is outside 0..K-1.
  """
  counts = np.asarray(counts).astype(np.int64)
  strays, classes = int(counts[:, -1].sum()), len(counts) - 1
  if strays:
    raise ValueError(f'{strays} predictions are outside 0..{classes - 1}; the network must have '
                     f'{classes} classes, or pass its number of classes')
  return counts[:-1, :-1]


def confusion(predicted, truth, classes: int, ignore: int | None = 255) -> np.ndarray:
  """Pixels of true class i that are predicted as j, int64 [K,K]; matrices of images add up.

  predicted, truth: integers of one shape. Pixels whose truth is `ignore`, or outside 0..K-1, do
  not count. Computed by `count`, on the device. Raises ValueError for different shapes, values
  that are no integers, or predictions outside 0..K-1.
  """

  def narrow(x):
    # Of wider labels, JAX would keep the lower 32 bits.
    wide = isinstance(x, np.ndarray) and x.dtype.itemsize > 4
    return x.astype(np.int64).clip(-1, 2 ** 31 - 1).astype(np.int32) if wide else x

  predicted, truth = (x if isinstance(x, jax.Array) else np.asarray(x) for x in (predicted, truth))
  _check(predicted, truth, classes)
  return table(_counted(narrow(predicted), narrow(truth), classes, ignore))


def scores(confusion: np.ndarray) -> dict[str, float | np.ndarray]:
  """{'miou', 'pixel_accuracy', 'iou' [K]} of a confusion matrix [K,K], rows truth; all in [0, 1].

  iou is right / (true + predicted - right) pixels, nan for a class with neither; miou is the mean
  of the others. A class that is predicted but never true counts with 0. Papers print 100 times
  miou. Raises ValueError unless the matrix is square, and counts at least one pixel.
  """
  confusion = np.asarray(confusion)
  if confusion.ndim != 2 or len(set(confusion.shape)) > 1 or (confusion < 0).any():
    raise ValueError(f'a confusion matrix of shape {confusion.shape}; it must be [K,K] counts')
  if not confusion.sum():
    raise ValueError('the confusion matrix counts no pixel; is every true label ignored?')
  right = confusion.diagonal()
  union = confusion.sum(0) + confusion.sum(1) - right
  iou = np.divide(right, union, out=np.full(len(right), np.nan), where=union > 0)
  return {'miou': float(np.nanmean(iou)), 'pixel_accuracy': float(right.sum() / confusion.sum()),
          'iou': iou}


def resize_log_probs(log_probs, height: int, width: int) -> np.ndarray:
  """log p of each class [h,w,K] at another size, float32 [height,width,K], by Pillow.

  Bilinear, each class alone, as the Cityscapes protocol of GAN Compression, CAT and OMGD has it:
  to 1024 x 2048, and only then the argmax over K. Where it shrinks, Pillow averages. Raises
  ValueError for another shape. Li et al. 2020.
  """
  log_probs = np.asarray(log_probs, np.float32)
  if log_probs.ndim != 3 or not log_probs.size:
    raise ValueError(f'log_probs of shape {log_probs.shape}; pass one image [h,w,K] at a time')
  planes = [np.asarray(Image.fromarray(np.ascontiguousarray(x)).resize(
      (width, height), Image.Resampling.BILINEAR)) for x in np.moveaxis(log_probs, -1, 0)]
  return np.moveaxis(np.stack(planes), 0, -1)  # a view: one copy of 160 MB is enough


_counted = functools.partial(jax.jit, static_argnums=(2, 3))(count)


def _check(predicted, truth, classes):
  if predicted.shape != truth.shape:
    raise ValueError(f'predictions of shape {predicted.shape} for labels of shape {truth.shape}; '
                     'resize the predictions first')
  for x in (predicted, truth):
    if x.dtype.kind not in 'iub':
      raise ValueError(f'labels of {x.dtype}; they must be integers (an argmax, not its scores)')
  if classes < 1 or truth.size >= 2 ** 31:
    raise ValueError(f'{classes} classes, {truth.size} pixels; pass at least one class, and fewer '
                     'than 2^31 pixels at once')
