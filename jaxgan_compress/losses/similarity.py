"""Distances between taps of a student and of its teacher, [B,h,w,C] each; 0 when they agree.

`channel_means` and `normalised` compare channel by channel, so an adapter maps the student's to the
teacher's number first (`ADAPTED`); `attention` and `cka` do without.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from jaxgan_compress.losses.features import channel_means

__all__ = ['ADAPTED', 'DISTANCES', 'attention', 'channel_means', 'cka', 'normalised', 'similarity']


def attention(features, lesson):
  """|a / |a| - b / |b||^2 of the attention maps a, b = mean over channels of features^2, mean
  over B.

  Where the networks are active, whatever their widths: [B,h,w,C] and [B,h,w,C']. Twice 1 minus the
  cosine of the maps. Zagoruyko and Komodakis 2017.
  """
  return 2 - 2 * similarity(features, lesson)


def similarity(features, lesson):
  """The cosine of two attention maps (see `attention`), mean over B, in [0, 1]."""
  def mark(x):
    heat = jnp.square(_wide(x)).mean(-1).reshape(len(x), -1)
    return heat * lax.rsqrt(jnp.square(heat).sum(-1, keepdims=True) + 1e-20)

  return (mark(features) * mark(lesson)).sum(-1).mean()


def normalised(features, lesson):
  """Mean over positions of |x / |x| - y / |y||^2, x and y the channels at one position.

  [B,h,w,C] both. A mean square that no scale can shrink and every channel shares, as the features
  of LPIPS (Zhang et al. 2018).
  """
  unit = lambda x: x * lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + 1e-10)
  return jnp.square(unit(_wide(features)) - unit(_wide(lesson))).sum(-1).mean()


def cka(features, lesson):
  """1 - debiased linear CKA; rows are all positions of the batch, n = B h w, at least 4.

  CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with K = X X', L = Y Y' and the unbiased estimate

    HSIC = [tr(K L) + sum(K) sum(L) / ((n - 1)(n - 2)) - 2 / (n - 2) sum(K L)] / (n (n - 3)),

  diagonals of K and L set to 0. Without that correction features of more channels than rows agree
  with anything. Computed from the products of features, never an n x n matrix. Blind to rotation
  and scale of the channels, [B,h,w,C] and [B,h,w,C']. Couples the batch of a replica. Song et al.
  2012; Kornblith et al. 2019; Murphy et al. 2024.
  """
  if features.shape[:3] != lesson.shape[:3]:
    raise ValueError(f'taps of {features.shape[1:3]} and {lesson.shape[1:3]} pixels; CKA compares '
                     'positions, so take taps of one size')
  x, y = (_centred(_wide(z).reshape(-1, z.shape[-1])) for z in (features, lesson))
  both = _hsic(x, y)
  return 1 - both * lax.rsqrt(jnp.maximum(_hsic(x, x) * _hsic(y, y), 1e-20))


def _hsic(x, y):
  n = len(x)
  diagonal_k, diagonal_l = jnp.square(x).sum(-1), jnp.square(y).sum(-1)
  sum_x, sum_y = x.sum(0), y.sum(0)
  # Sums of the rows of K and L without their diagonals.
  rows_k, rows_l = _product(x, sum_x) - diagonal_k, _product(y, sum_y) - diagonal_l
  trace = jnp.square(_product(x.T, y)).sum() - (diagonal_k * diagonal_l).sum()
  total = rows_k.sum() * rows_l.sum() / ((n - 1) * (n - 2))
  return (trace + total - 2 / (n - 2) * (rows_k * rows_l).sum()) / (n * (n - 3))


def _centred(x):
  # HSIC does not mind a shift, and float32 does: large sums would cancel.
  x = x - x.mean(0, keepdims=True)
  return x * lax.rsqrt(jnp.square(x).sum(-1).mean() + 1e-20)


def _product(a, b):
  return jnp.matmul(a, b, precision='highest')


def _wide(x):
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


DISTANCES = {'channel_means': channel_means, 'attention': attention, 'cka': cka,
             'normalised': normalised}
# Which of them an adapter precedes, and whether that adapter has OMGD's batch norm and ReLU.
ADAPTED = {'channel_means': True, 'normalised': False}
