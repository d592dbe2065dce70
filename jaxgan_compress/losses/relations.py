"""How the parts of an image lie to each other: distances and angles between its rows, columns and
patches."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxgan_compress.losses.image import smooth_l1

SETS = ('rows', 'columns', 'patches')
# Two vectors nearer than the root of this have no direction between them.
COINCIDE = 1e-12
# Angles at once, of one image: 64 vertices of 64 vectors fit, 256 take turns of 4.
AT_ONCE = 2 ** 18


def vectors(image, kind: str, patch: int = 8):
  """The vectors of each image, [B,n,m]: its `rows` (n = H), `columns` (n = W), or its `patches` of
  patch x patch pixels, side by side, what is left at the right and the bottom being dropped.

  image: [B,H,W,C]. Raises ValueError for another kind, and for fewer than four patches, between
  which there are no angles but 0 and 1.
  """
  B, H, W, C = image.shape
  if kind == 'rows':
    return image.reshape(B, H, W * C)
  if kind == 'columns':
    return image.swapaxes(1, 2).reshape(B, W, H * C)
  if kind != 'patches':
    raise ValueError(f'set {kind!r}; one of {", ".join(SETS)}')
  rows, columns = H // patch, W // patch
  if rows * columns < 4:
    raise ValueError(f'images of {H}x{W} hold {rows * columns} patches of {patch}x{patch} pixels; '
                     f'at least 4: give patch={max(1, min(H, W) // 8)}')
  x = image[:, :rows * patch, :columns * patch].reshape(B, rows, patch, columns, patch, C)
  return x.swapaxes(2, 3).reshape(B, rows * columns, patch * patch * C)


def content_relations(image, target, kind: str, patch: int = 8):
  """Mean over images of (distance loss + 2 * angle loss) between the `vectors` of image and target.

  With d_ij the distance of vectors i and j over the mean of all distances, and a_ijk the cosine at
  vertex i of the triangle with j and k, these are means over i, j (and k) of smooth L1 between
  image and target. image, target: [B,H,W,C].

  Blind to the sign, the contrast and the brightness of the whole image, and to one vector added to
  all: it needs a pixel or perceptual term beside it. Vectors that coincide have no angles, and
  nothing learns from them. Computed from inner products, one n x n matrix a vertex, with gradients
  that are bounded: the paper's form has 3m times the memory and a gradient of 1e12 where two
  vectors coincide. In float32 or wider. After Park et al. 2019 (relational distillation); You et
  al. 2022, CRD.
  """
  both = [vectors(x, kind, patch) for x in (image, target)]
  return jax.vmap(_one_image)(*both).mean()


def _one_image(x, y):
  products = [_products(each) for each in (x, y)]
  n = len(x)

  # A vertex's angles are computed anew for the gradient: kept, they would be n^3 numbers.
  @jax.checkpoint
  def at_vertex(i):
    return smooth_l1(*(_cosines(i, *each) for each in products))

  angles = jax.lax.map(at_vertex, jnp.arange(n), batch_size=max(1, min(n, AT_ONCE // n ** 2)))
  distances = smooth_l1(*(d / (d.sum() / (n * (n - 1))) for _, d, _ in products))
  return distances + 2 * angles.mean()


def _products(x):
  """(inner products G [n,n], distances d, 1 / d or 0 where vectors coincide) of [n,m]."""
  x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  # No distance or angle knows a vector that all share, and float32 does.
  x = x - x.mean(0, keepdims=True)
  products = jnp.matmul(x, x.T, precision='highest')
  lengths = jnp.diagonal(products)
  squares = lengths[:, None] + lengths[None] - 2 * products
  other = ~jnp.eye(len(x), dtype=bool)
  # What is below the rounding of the products has no direction.
  rounding = 8 * jnp.finfo(products.dtype).eps * (lengths[:, None] + lengths[None])
  apart = other & (squares > jnp.maximum(COINCIDE, jax.lax.stop_gradient(rounding)))
  distances = jnp.sqrt(jnp.where(apart, squares, 1))
  return (products, jnp.where(apart, distances, jnp.where(other, COINCIDE ** .5, 0)),
          jnp.where(apart, 1 / distances, 0))


def _cosines(i, products, _, inverse):
  """[n,n]: the cosine between j and k as seen from vertex i."""
  row = products[i]
  return (products - row[:, None] - row[None] + row[i]) * inverse[i][:, None] * inverse[i][None]
