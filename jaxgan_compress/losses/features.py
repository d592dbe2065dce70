"""Losses between features: they take arrays, never networks."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp

from jaxgan_compress.core import xla
from jaxgan_compress.losses.image import absolute

# Under a root: its slope at 0 has no bound.
SMOOTH = 1e-20


def gram(features):
  """F F' / (C H W) of each image, F its features as [C, H W].

  features: [B,H,W,C] -> [B,C,C]. In float32 or wider, on TPUs of products that are within 1.2e-5
  of it. Gatys et al. 2016.
  """
  B, H, W, C = features.shape
  x = features.astype(jnp.promote_types(features.dtype, jnp.float32))
  if xla.platform() == 'tpu':
    # Three products of bfloat16 numbers, 'highest' are six. Flattened maps would be turned round.
    return jnp.einsum('bhwc,bhwd->bcd', x, x, precision='high') / (C * H * W)
  flat = x.reshape(B, H * W, C)
  return jnp.einsum('bnc,bnd->bcd', flat, flat, precision='highest') / (C * H * W)


def style(features: Mapping, target: Mapping):
  """The sum over layers of mean |gram(features) - gram(target)|.

  features, target: `{layer: [B,H,W,C]}` of the same layers. Johnson et al. 2016, with absolute
  differences as OMGD has it.
  """
  return sum(absolute(gram(x) - gram(target[name])).mean() for name, x in features.items())


def perceptual(features, target):
  """mean |features - target| of one layer, [B,H,W,C]. Johnson et al. 2016; OMGD's feature loss."""
  return absolute(features - target).mean()


def weighted(features: Mapping, target: Mapping, shares: Mapping[str, float]):
  """The sum of share * `perceptual` over those layers of `features` that `shares` has.

  features, target: `{layer: [B,H,W,C]}` of the same layers. shares: {layer: its share}, also of
  layers that are not there. Raises ValueError where none is, which would compare nothing.
  """
  if not (there := [name for name in features if name in shares]):
    raise ValueError(f'of {", ".join(features) or "no layers"} none has a share; there are shares '
                     f'of {", ".join(shares)}')
  return sum(shares[name] * perceptual(features[name], target[name]) for name in there)


def root_mse(features, target):
  """The root of the mean (features - target)^2, [B,h,w,C] both: GCC's content term of one tap, Li
  et al. 2021. Its slope at equality, without bound, is none here."""
  return jnp.sqrt(jnp.square(features - target).mean() + SMOOTH)


def gram_root_mse(features, target):
  """`root_mse` of the Gram matrices, see `gram`, of [B,h,w,C] both: GCC's style term of one tap."""
  return root_mse(gram(features), gram(target))


def channel_means(features, target):
  """mean over B and C of (mean over H, W of features - mean over H, W of target)^2.

  features, target: [B,h,w,C], spatial sizes may differ; channels agree by way of an adapter.
  OMGD's channel distillation of one tap (Ren et al. 2021); its code sums the taps, its paper takes
  their mean. Nearly uninformative after an instance norm, which fixes these means.
  """
  return jnp.square(features.mean((1, 2)) - target.mean((1, 2))).mean()
