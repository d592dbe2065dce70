"""Distances between two sets of features that fit no Gaussian to them."""

from __future__ import annotations

import numpy as np

from jaxgan_compress.metrics.moments import check_features


def kernel_distance(a: np.ndarray, b: np.ndarray, *, subsets: int = 100, subset_size: int = 100,
                    seed: int) -> tuple[float, float]:
  """KID: mean and standard deviation of `squared_mmd` over random subsets of features [N,D], [M,D].

  Each subset is sampled without replacement, first of a, then of b. The mean is unbiased whatever
  the size, and may be below 0; the deviation says how much subsets differ and is no error of the
  mean (`bootstrap` gives one). CAT and Binkowski et al. 2018 use 100 subsets, of 100 and of 1000.

  Raises ValueError if a set has fewer samples than `subset_size`, which is never reduced silently:
  the deviation depends on it.
  """
  a, b = _pair(a, b)
  if not 2 <= subset_size <= min(len(a), len(b)) or subsets < 1:
    raise ValueError(f'{subsets} subsets of {subset_size} of {len(a)} and {len(b)} samples; '
                     f'pass a size of 2 to {min(len(a), len(b))}, and at least one subset')
  rng = np.random.default_rng(seed)
  values = [squared_mmd(*(x[rng.choice(len(x), subset_size, replace=False)] for x in (a, b)))
            for _ in range(subsets)]
  return float(np.mean(values)), float(np.std(values))


def squared_mmd(a: np.ndarray, b: np.ndarray) -> float:
  """mean k(x, x') + mean k(y, y') - 2 mean k(x, y) with k(x, y) = (x.y / D + 1)^3.

  a, b: features [N,D], [M,D], all of them used; x and x' are different samples, which makes the
  estimate unbiased, and below 0 at times. Raises ValueError for fewer than two samples, different
  D, or values that are not finite. Binkowski et al. 2018.
  """
  a, b = _pair(a, b)
  if min(len(a), len(b)) < 2:
    raise ValueError(f'pairs need at least 2 samples; got {len(a)} and {len(b)}')

  def total(x, y):
    return sum(_kernel(x[rows] @ y.T, x.shape[1]).sum() for rows in _blocks(x, y))

  def within(x):
    alone = _kernel(np.einsum('nd,nd->n', x, x), x.shape[1]).sum()
    return (total(x, x) - alone) / (len(x) * (len(x) - 1))

  return float(within(a) + within(b) - 2 * total(a, b) / (len(a) * len(b)))


def precision_recall(real: np.ndarray, fake: np.ndarray, k: int = 3) -> tuple[float, float]:
  """The share of fake samples near a real one, and of real samples near a fake one; each in [0, 1].

  real, fake: features [N,D], [M,D]. Near means within the distance of that neighbour to its own
  k-th nearest, itself not counted. Both depend on N and M: compare equal counts. Duplicates have
  no extent, and an outlier has a large one. Raises ValueError unless 1 <= k < N, M, for different
  D, or values that are not finite. Kynkaanniemi et al. 2019.
  """
  real, fake = _pair(real, fake)
  return (float(_near(real, _radii(real, k), fake).mean()),
          float(_near(fake, _radii(fake, k), real).mean()))


def _pair(a, b):
  a, b = check_features(a), check_features(b)
  if a.shape[1] != b.shape[1]:
    raise ValueError(f'{a.shape[1]} features against {b.shape[1]}; both must be of one network')
  return a, b


def _kernel(products, size):
  x = products / size + 1
  return x * x * x  # NumPy's power takes a hundred times as long


def _blocks(x, y):
  """Slices of the rows of x, such that rows against all of y take 64 MiB."""
  step = max(1, 2 ** 23 // max(len(y), 1))
  return [slice(i, i + step) for i in range(0, len(x), step)]


def _squares(x, y, slack=0.):
  """|x - y|^2 - slack (|x|^2 + |y|^2) of all pairs, [N,M]; rounding is about 1e-15 (|x|^2 + |y|^2).
  """
  norms = [(1 - slack) * (z * z).sum(1) for z in (x, y)]
  return norms[0][:, None] + norms[1] - 2 * (x @ y.T)


def _radii(x, k):
  """The squared distance of each row to its k-th nearest other, [N]."""
  if not 1 <= k < len(x):
    raise ValueError(f'k={k} nearest of {len(x)} samples; k must be at least 1 and less than the '
                     'samples')
  x = x - x.mean(0)
  # Its own distance, about 0, takes the first place.
  return np.concatenate([np.partition(_squares(x[rows], x), k, 1)[:, k] for rows in _blocks(x, x)])


def _near(centres, radii, points):
  """Whether each point [M] is in any ball of squared radii [N], its surface included."""
  # About 0, where the products lose least. What remains must not decide about the surface.
  mean = centres.mean(0)
  centres, points = centres - mean, points - mean
  return np.concatenate([(_squares(points[rows], centres, 1e-12) <= radii).any(1)
                         for rows in _blocks(points, centres)])
