"""The formulas, in float64 on the host unless said otherwise."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import scipy.linalg


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


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
  """Frechet distance between Gaussians fitted to two sets of features [N,D], [M,D].

  With Inception's 2048 features this is FID. Raises ValueError for fewer than two samples.
  Heusel et al. 2017.
  """
  a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
  if min(len(a), len(b)) < 2:
    raise ValueError(f'a covariance needs at least 2 samples; got {len(a)} and {len(b)}')
  return gaussian_frechet_distance(a.mean(0), np.cov(a, rowvar=False), b.mean(0),
                                   np.cov(b, rowvar=False))


def gaussian_frechet_distance(mean_a, cov_a, mean_b, cov_b) -> float:
  """|mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)) for covariances A, B [D,D].

  tr (A B)^(1/2) is the sum of the square roots of the eigenvalues of A^(1/2) B A^(1/2), which is
  symmetric: no matrix square root, no imaginary part.
  """
  cov_a, cov_b = np.atleast_2d(cov_a), np.atleast_2d(cov_b)
  values, vectors = scipy.linalg.eigh(cov_a)
  root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
  cross = np.sqrt(scipy.linalg.eigvalsh(root @ cov_b @ root).clip(0)).sum()
  shift = np.square(np.subtract(mean_a, mean_b)).sum()
  return float(max(shift + np.trace(cov_a) + np.trace(cov_b) - 2 * cross, 0.))


def variance_of_laplacian(images):
  """Sharpness: the variance of the Laplacian of each grey image, on the 0..255 scale.

  images: [B,H,W,C] in [-1, 1] -> [B] (jax, float32). Kernel [[0,1,0],[1,-4,1],[0,1,0]] over the
  valid region; grey is 0.299 R + 0.587 G + 0.114 B. Noise scores high: compare with real images.
  """
  x = (images + 1) * 127.5
  grey = x[..., 0] if x.shape[-1] == 1 else x @ jnp.array([0.299, 0.587, 0.114], x.dtype)
  laplacian = (grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
               - 4 * grey[:, 1:-1, 1:-1])
  return jnp.var(laplacian, (1, 2))


def psnr(mse: float) -> float:
  """10 log10(4 / mse) dB: peak signal-to-noise ratio of images in [-1, 1]; inf for mse 0."""
  return float(10 * np.log10(4 / mse)) if mse else float('inf')


def class_histogram(probs: np.ndarray) -> np.ndarray:
  """The share of samples in each class by the classifier's first choice: [N,K] -> [K]."""
  return np.bincount(np.argmax(probs, 1), minlength=probs.shape[1]) / len(probs)
