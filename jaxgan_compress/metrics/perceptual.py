"""How different two images look, by the features of a network."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp


def perceptual_distance(a: Mapping[str, jax.Array], b: Mapping[str, jax.Array],
                        weights: Mapping[str, jax.Array] | None = None):
  """sum_layers mean_pixels sum_c w_c (a_c / |a| - b_c / |b|)^2: LPIPS from features, [B] (jax).

  a, b: {layer: [B,h,w,C]} of two batches of images; the distance is 0 for equal features, and
  without weights at most 4 for each layer. |a| is the norm over channels at each pixel, plus
  1e-10. weights: {layer: [C]}, not negative, for every layer; None weighs each channel by 1.

  LPIPS itself needs its own networks, their input scale, and its trained weights. Float32 inside.
  Raises ValueError for layers or shapes that do not fit, or a negative weight where its value is
  known (not under jit). Zhang et al. 2018.
  """
  if not a or a.keys() != b.keys() or (weights is not None and a.keys() != weights.keys()):
    given = [sorted(x) for x in (a, b, weights) if x is not None]
    raise ValueError(f'layers {", ".join(map(str, given))}; both images, and weights, must have '
                     'the same')
  return sum(_distance(name, a[name], b[name], None if weights is None else weights[name])
             for name in a)


def _distance(name, a, b, weights):
  if a.shape != b.shape or a.ndim != 4:
    raise ValueError(f'{name} of shapes {a.shape} and {b.shape}; both must be [B,h,w,C]')
  squares = jnp.square(_unit(a) - _unit(b))
  if weights is not None:
    weights = jnp.asarray(weights)
    if weights.shape != a.shape[-1:]:
      raise ValueError(f'weights of shape {weights.shape} for {a.shape[-1]} channels of {name}; '
                       'they must be [C]')
    if not isinstance(weights, jax.core.Tracer) and not bool((weights >= 0).all()):
      raise ValueError(f'the weights of {name} go down to {float(weights.min()):.3g}; a distance '
                       'needs weights of 0 or more')
    squares = squares * weights.reshape(1, 1, 1, -1)
  return squares.sum(-1).mean((1, 2))


def _unit(x):
  x = x.astype(jnp.float32)
  squares = jnp.square(x).sum(-1, keepdims=True)
  # A vector of zeros stays one; its norm has no slope, which must not reach the gradient.
  return x / (jnp.sqrt(jnp.where(squares > 0, squares, 1)) + 1e-10)
