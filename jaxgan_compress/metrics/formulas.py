"""The formulas of measures, in float64 on the host, except for those marked (jax)."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import scipy  # whose `linalg` is imported at its first use: it takes a sixth of our own import

from jaxgan_compress.core import in_colour
from jaxgan_compress.metrics.moments import Moments, check_features, square_root


def inception_score(probs: np.ndarray, splits: int = 10) -> tuple[float, float]:
  """exp(E_x KL(p(y|x) || p(y))): mean and standard deviation over `splits` parts.

  probs: [N,K] rows that sum to 1. Between 1 and K; its meaning is the classifier's. Smaller parts
  score a little lower. Raises ValueError for fewer rows than splits. Salimans et al. 2016.
  """
  probs = np.asarray(probs, np.float64)
  if len(probs) < splits:
    raise ValueError(f'{len(probs)} samples cannot make {splits} splits')

  def log(p):
    return np.log(np.maximum(p, 1e-300))

  scores = []
  for part in np.array_split(probs, splits):
    divergence = (part * (log(part) - log(part.mean(0)))).sum(1)
    scores.append(np.exp(divergence.mean()))
  return float(np.mean(scores)), float(np.std(scores))


def frechet_distance(a: np.ndarray | Moments, b: np.ndarray | Moments) -> float:
  """Frechet distance between Gaussians fitted to two sets of samples: features [N,D] or Moments.

  With Inception's 2048 features this is FID. It grows as samples get fewer, so only distances of
  equal counts compare. Where a set of features has N <= D, tr (A B)^(1/2) is the sum of the
  singular values of X Y', where A = X' X and B = Y' Y: quicker than with D x D matrices, and exact
  for covariances without full rank. Raises ValueError for fewer than two samples, different D, or
  values that are not finite. Heusel et al. 2017.
  """
  a, b = (x.known() if isinstance(x, Moments) else check_features(x) for x in (a, b))
  sizes = [len(x.mean) if isinstance(x, Moments) else x.shape[1] for x in (a, b)]
  if sizes[0] != sizes[1]:
    raise ValueError(f'{sizes[0]} features against {sizes[1]}; both must be of the same network')
  counts = [x.count if isinstance(x, Moments) else len(x) for x in (a, b)]
  if any(n is not None and n < 2 for n in counts):
    raise ValueError(f'a covariance needs at least 2 samples; got {counts[0]} and {counts[1]}')
  if not any(isinstance(x, np.ndarray) and len(x) <= sizes[0] for x in (a, b)):
    a, b = (x if isinstance(x, Moments) else Moments.of(x) for x in (a, b))
    return gaussian_frechet_distance(a.mean, a.cov, b.mean, b.cov)
  (mean_a, x), (mean_b, y) = _factor(a), _factor(b)
  cross = scipy.linalg.svdvals(x @ y.T).sum()
  distance = (np.square(mean_a - mean_b).sum() + np.square(x).sum() + np.square(y).sum()
              - 2 * cross)
  return float(max(distance, 0.))


def gaussian_frechet_distance(mean_a, cov_a, mean_b, cov_b) -> float:
  """|mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)) for covariances A, B [D,D].

  tr (A B)^(1/2) is the sum of the square roots of the eigenvalues of A^(1/2) B A^(1/2), which is
  symmetric: no matrix square root, no imaginary part.
  """
  cov_a, cov_b = np.atleast_2d(cov_a), np.atleast_2d(cov_b)
  root = square_root(cov_a)
  cross = np.sqrt(scipy.linalg.eigvalsh(root @ cov_b @ root).clip(0)).sum()
  shift = np.square(np.subtract(mean_a, mean_b)).sum()
  return float(max(shift + np.trace(cov_a) + np.trace(cov_b) - 2 * cross, 0.))


def variance_of_laplacian(images):
  """Sharpness: the variance of the Laplacian of each grey image, on the 0..255 scale.

  images: [B,H,W,C] in [-1, 1] -> [B] (jax, float32). Kernel [[0,1,0],[1,-4,1],[0,1,0]] over the
  valid region; grey is 0.299 R + 0.587 G + 0.114 B of the image, which for other channels than 1
  and 3 is `core.in_colour`. Noise scores high: compare with real images.
  """
  return jnp.var(laplacian(grey_levels(images)), (1, 2))


def grey_levels(images):
  """Grey, 0..255, of images [B,H,W,C] in [-1, 1]: [B,H,W] (jax). See `variance_of_laplacian`."""
  x = ((images if images.shape[-1] in (1, 3) else in_colour(images)) + 1) * 127.5
  return x[..., 0] if x.shape[-1] == 1 else x @ jnp.array([0.299, 0.587, 0.114], x.dtype)


def laplacian(grey):
  """[B,H,W] -> [B,H-2,W-2] (jax): the four neighbours of each pixel less four times itself."""
  return (grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
          - 4 * grey[:, 1:-1, 1:-1])


def psnr(mse: float) -> float:
  """10 log10(4 / mse) dB: peak signal-to-noise ratio of images in [-1, 1]; inf for mse 0."""
  return float(10 * np.log10(4 / mse)) if mse else float('inf')


def class_histogram(probs: np.ndarray) -> np.ndarray:
  """The share of samples in each class by the classifier's first choice: [N,K] -> [K]."""
  return np.bincount(np.argmax(probs, 1), minlength=probs.shape[1]) / len(probs)


def _factor(x):
  """(mean [D], X [n,D]) with X' X the covariance."""
  if isinstance(x, Moments):
    return x.mean, x.root
  mean, scale = x.mean(0), (len(x) - 1) ** -.5
  centred = (x - mean) * scale
  return mean, np.asarray(np.linalg.qr(centred, 'r')) if len(x) > x.shape[1] else centred
