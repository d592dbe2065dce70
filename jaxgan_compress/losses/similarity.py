"""How alike the features of a student and of its teacher are: one registry for every method.

`SIMILARITIES[name].loss(student, teacher)` is what a student minimises. The kernel alignments are
similarities, near 1 for networks that agree, and enter with a minus sign, as CAT has them; the
others are distances, 0 for networks that agree. Names that end in `_pixel` take every position of
every sample as a sample of its own; `ka`, `cka` and `cka_debiased` compare whole samples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxgan_compress.losses.features import channel_means, gram_root_mse, root_mse

# Samples that each alignment needs: with fewer it is 1, or undefined, whatever the networks do.
LEAST = {'ka': 2, 'cka': 3, 'cka_debiased': 4, 'gka_pixel': 1}

# Samples that differ by a smaller part of what they share than this are alike, and tell nothing:
# their alignment is 0. Without such a bound its gradient grows without one.
ALIKE = 1e-4


def alignment(student, teacher, kind: str = 'ka'):
  """How alike the features of a student and of a teacher arrange the same samples; a scalar.

  student [N,h,w,C], teacher [N,h',w',C'], of the same N samples; widths may differ, so no adapter
  is needed. K and M are the Gram matrices of samples (linear kernel):

    'ka': <K, M> / (|K| |M|), in [0, 1], as CAT's code has it.
    'cka': the same of K and M centred in rows and columns.
    'cka_debiased': of the unbiased estimate of HSIC, diagonals left out; about 0 for unrelated
      networks, where the others are already near 1.
    'gka_pixel': 'ka' with every position of every sample as a sample; sizes must agree.

  Each matrix is divided by its own norm before they meet, so nothing overflows in float32; where
  all samples are alike to one network, the centred kinds are 0, without gradient. Jin et al. 2021,
  CAT; Kornblith et al. 2019; Song et al. 2012. Raises ValueError for another kind, or fewer samples
  than it needs.
  """
  if kind not in LEAST:
    raise ValueError(f'alignment {kind!r}; one of {", ".join(LEAST)}')
  if len(student) != len(teacher) or len(student) < LEAST[kind]:
    raise ValueError(f'{kind} compares at least {LEAST[kind]} samples of both networks and got '
                     f'{len(student)} and {len(teacher)}; give a larger batch')
  if kind == 'gka_pixel':
    _check_positions(student, teacher, kind)
    x, y = (_unit(z.reshape(-1, z.shape[-1])) for z in (student, teacher))
    across, own, other = (jnp.square(_product(a.T, b)).sum() for a, b in ((x, y), (x, x), (y, y)))
    both = own * other
    return across * lax.rsqrt(jnp.where(both > 0, both, 1.))
  rows = (z.reshape(len(z), -1) for z in (student, teacher))
  # What all samples share cancels below: taken out here, it leaves no rounding behind.
  rows = (_unit(z) if kind == 'ka' else _unit(_less_mean(z), ALIKE * _size(z)) for z in rows)
  k, m = (_product(x, x.T) for x in rows)
  if kind == 'cka_debiased':
    k, m = _without_diagonal(k), _without_diagonal(m)
  return (_unit(k, ALIKE) * _unit(m, ALIKE)).sum()


def attention(student, teacher):
  """|a / |a| - b / |b||^2 of the attention maps a, b = mean over channels of features^2, mean
  over B.

  Where the networks are active, whatever their widths: [B,h,w,C] and [B,h,w,C']. Twice 1 minus the
  cosine of the maps. Zagoruyko and Komodakis 2017.
  """
  return 2 - 2 * attention_cosine(student, teacher)


def attention_cosine(student, teacher):
  """The cosine of two attention maps (see `attention`), mean over B, in [0, 1]."""
  def unit_map(x):
    heat = jnp.square(_wide(x)).mean(-1).reshape(len(x), -1)
    return heat * lax.rsqrt(jnp.square(heat).sum(-1, keepdims=True) + 1e-20)

  return (unit_map(student) * unit_map(teacher)).sum(-1).mean()


def normalised(student, teacher):
  """Mean over positions of |x / |x| - y / |y||^2, x and y the channels at one position.

  [B,h,w,C] both. A mean square that no scale can shrink and every channel shares, as the features
  of LPIPS (Zhang et al. 2018).
  """
  unit = lambda x: x * lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + 1e-10)
  return jnp.square(unit(_wide(student)) - unit(_wide(teacher))).sum(-1).mean()


def mse(student, teacher):
  """Mean (student - teacher)^2, [B,h,w,C] both, in float32 or wider."""
  return jnp.square(_wide(student) - teacher).mean()


def region_contrast(student, projected, teacher, count: int = 64):
  """How well each of the student's features is told apart by its place: a cross entropy, about log
  `count` for features that know nothing of it.

  student, projected: [B,h,w,C], `projected` being the teacher's features in the student's channels;
  teacher: [B,h,w,C'], its own. Of each image the `count` places where the teacher is most active
  (mean |.| over channels) are compared, at a temperature of 0.07, by cosine; the mean over places
  and images. In float32 or wider. Zhang et al. 2022, region-aware distillation (ReKo); after Oord
  et al. 2018.
  """
  _check_positions(student, teacher, 'region_contrast')
  flat = lambda x: _wide(x).reshape(len(x), -1, x.shape[-1])
  heat = jnp.abs(flat(teacher)).mean(-1)
  places = lax.stop_gradient(lax.top_k(heat, min(count, heat.shape[1]))[1])

  def unit(x):
    x = jnp.take_along_axis(flat(x), places[..., None], 1)
    squares = jnp.square(x).sum(-1, keepdims=True)
    length = jnp.sqrt(jnp.where(squares > 0, squares, 1.))  # a flat place has no direction: 0
    return jnp.where(squares > 0, x / (length + 1e-7), 0.)

  logits = jnp.einsum('bic,bjc->bij', unit(student), unit(projected), precision='highest') / .07
  return (jax.nn.logsumexp(logits, -1) - jnp.diagonal(logits, axis1=1, axis2=2)).mean()


def cka_pixel(student, teacher):
  """1 - debiased linear CKA; rows are all positions of the batch, n = B h w, at least 4.

  CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with K = X X', L = Y Y' and the unbiased estimate

    HSIC = [tr(K L) + sum(K) sum(L) / ((n - 1)(n - 2)) - 2 / (n - 2) sum(K L)] / (n (n - 3)),

  diagonals of K and L set to 0. Without that correction features of more channels than rows agree
  with anything. Computed from the products of features, never an n x n matrix, which is why
  `alignment` of whole samples has another form. Blind to rotation and scale of the channels,
  [B,h,w,C] and [B,h,w,C']. Song et al. 2012; Kornblith et al. 2019; Murphy et al. 2024.
  """
  _check_positions(student, teacher, 'cka_pixel')
  x, y = (_centred(_wide(z).reshape(-1, z.shape[-1])) for z in (student, teacher))
  both = _hsic(x, y)
  return 1 - both * lax.rsqrt(jnp.maximum(_hsic(x, x) * _hsic(y, y), 1e-20))


@dataclasses.dataclass(frozen=True)
class Similarity:
  """One way to compare features.

  loss: (student, teacher), [B,h,w,C] each -> scalar that the student minimises.
  adapter: what maps the student's channels to the teacher's first: '' nothing, 'linear' a 1x1
  convolution (CAT's), 'projection' one without bias (GCC's), 'norm_relu' one with batch norm and
  ReLU (OMGD's). positions: whether both
  need the same height and width. couples: whether a sample's loss depends on the others, so that
  it matters which replicas' samples are compared.
  """
  loss: Callable
  adapter: str = ''
  positions: bool = False
  couples: bool = False


def _aligned(kind):
  return Similarity(lambda student, teacher: -alignment(student, teacher, kind), couples=True,
                    positions=kind == 'gka_pixel')


SIMILARITIES = {
    **{kind: _aligned(kind) for kind in LEAST},
    'mse': Similarity(mse, adapter='linear', positions=True),
    'channel_means': Similarity(channel_means, adapter='norm_relu'),
    'root_mse': Similarity(root_mse, adapter='projection', positions=True, couples=True),
    'gram_root_mse': Similarity(gram_root_mse, adapter='projection', couples=True),
    'normalised': Similarity(normalised, adapter='linear', positions=True),
    'attention': Similarity(attention, positions=True),
    'cka_pixel': Similarity(cka_pixel, positions=True, couples=True),
}


def _check_positions(student, teacher, kind):
  if student.shape[:3] != teacher.shape[:3]:
    raise ValueError(f'taps of {student.shape[1:3]} and {teacher.shape[1:3]} pixels; {kind} '
                     'compares positions, so take taps of one size')


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


def _unit(x, least: float | jax.Array = 1e-30):
  """In float32 or wider, of length 1; 0, with no gradient, where nothing is above `least`."""
  x = _wide(x)
  largest = _size(x)
  above = largest > least
  x = jnp.where(above, x / jnp.where(above, largest, 1.), 0.)  # whose squares can be added
  return x * lax.rsqrt(jnp.where(above, jnp.square(x).sum(), 1.))


def _size(x):
  return lax.stop_gradient(jnp.abs(_wide(x)).max())


def _product(a, b):
  return jnp.matmul(a, b, precision='highest')


def _wide(x):
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _less_mean(x):
  x = _wide(x)
  return x - x.mean(0, keepdims=True)


def _without_diagonal(k):
  """U-centred (Szekely and Rizzo 2014): two multiply to n (n - 3) times their unbiased HSIC."""
  n = len(k)
  off = 1 - jnp.eye(n, dtype=k.dtype)
  k = k * off
  rows = k.sum(0) / (n - 2)
  return off * (k - rows[None] - rows[:, None] + rows.sum() / (n - 1))
