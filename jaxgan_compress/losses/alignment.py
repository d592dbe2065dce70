"""Kernel alignment of the activations of two networks: 1 when the batch looks alike to both."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

# Samples that each index needs: with fewer it is 1, or undefined, whatever the networks do.
LEAST = {'ka': 2, 'cka': 3, 'cka_debiased': 4, 'gka_pixel': 1}

# Samples that differ by a smaller part of what they share than this are alike, and tell nothing:
# their index is 0. Without such a bound its gradient grows without one.
ALIKE = 1e-4


def alignment(features, lesson, index: str = 'ka'):
  """How alike a student's and a teacher's activations arrange the same samples; a scalar.

  features [N,h,w,C], lesson [N,h',w',C'], of the same N samples; widths may differ, so no adapter
  is needed. K and M are the Gram matrices of samples (linear kernel):

    'ka': <K, M> / (|K| |M|), in [0, 1], as CAT's code has it.
    'cka': the same of K and M centred in rows and columns.
    'cka_debiased': of the unbiased estimate of HSIC, diagonals left out; about 0 for unrelated
      networks, where the others are already near 1.
    'gka_pixel': 'ka' with every position of every sample as a sample; sizes must agree.

  Each matrix is divided by its own norm before they meet, so nothing overflows in float32; where
  all samples are alike to one network, the centred indices are 0, without gradient. Jin et al.
  2021, CAT; Kornblith et al. 2019; Song et al. 2012. Raises ValueError for another index, or fewer
  samples than it needs.
  """
  if index not in LEAST:
    raise ValueError(f'index={index!r}; one of {", ".join(LEAST)}')
  if len(features) != len(lesson) or len(features) < LEAST[index]:
    raise ValueError(f'{index} compares at least {LEAST[index]} samples of both networks and got '
                     f'{len(features)} and {len(lesson)}; give a larger batch')
  if index == 'gka_pixel':
    if features.shape[:3] != lesson.shape[:3]:
      raise ValueError(f'activations of {features.shape[1:3]} and {lesson.shape[1:3]} pixels; '
                       'gka_pixel compares positions, so take taps of one size')
    x, y = (_unit(z.reshape(-1, z.shape[-1])) for z in (features, lesson))
    across, own, theirs = (jnp.square(_product(a.T, b)).sum() for a, b in ((x, y), (x, x), (y, y)))
    both = own * theirs
    return across * lax.rsqrt(jnp.where(both > 0, both, 1.))
  rows = (z.reshape(len(z), -1) for z in (features, lesson))
  # What all samples share cancels below: taken out here, it leaves no rounding behind.
  rows = (_unit(z) if index == 'ka' else _unit(_less_mean(z), ALIKE * _size(z)) for z in rows)
  k, m = (_product(x, x.T) for x in rows)
  if index == 'cka_debiased':
    k, m = _without_diagonal(k), _without_diagonal(m)
  return (_unit(k, ALIKE) * _unit(m, ALIKE)).sum()


def _unit(x, least=1e-30):
  """In float32 or wider, of length 1; 0, with no gradient, where nothing is above `least`."""
  x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  largest = _size(x)
  there = largest > least
  x = jnp.where(there, x / jnp.where(there, largest, 1.), 0.)  # whose squares can be added
  return x * lax.rsqrt(jnp.where(there, jnp.square(x).sum(), 1.))


def _size(x):
  return lax.stop_gradient(jnp.abs(x.astype(jnp.promote_types(x.dtype, jnp.float32))).max())


def _product(a, b):
  return jnp.matmul(a, b, precision='highest')


def _less_mean(x):
  x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  return x - x.mean(0, keepdims=True)


def _without_diagonal(k):
  """U-centred (Szekely and Rizzo 2014): two multiply to n (n - 3) times their unbiased HSIC."""
  n = len(k)
  off = 1 - jnp.eye(n, dtype=k.dtype)
  k = k * off
  rows = k.sum(0) / (n - 2)
  return off * (k - rows[None] - rows[:, None] + rows.sum() / (n - 1))
