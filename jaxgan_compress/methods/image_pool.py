"""The pool of earlier generated images that CycleGAN's discriminators learn from."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def empty_pool(size: int, shape: tuple[int, ...]):
  """A pool of one replica that holds `size` images [H,W,C]; leaves `[1, ...]`."""
  return {'images': jnp.zeros((1, size, *shape)), 'count': jnp.zeros((1,), jnp.int32)}


def from_pool(pool, images, key):
  """(pool, images [B,H,W,C] for the discriminator): one by one, while the pool fills, the new
  image; later, with probability 1/2, an old one, whose place the new one takes. Shrivastava et al.
  2017, as CycleGAN has it."""
  size = len(pool['images'])

  def one(pool, image_and_key):
    image, key = image_and_key
    stored, count = pool['images'], pool['count']
    coin, place = jax.random.split(key)
    full = count >= size
    slot = jnp.where(full, jax.random.randint(place, (), 0, size), count)
    swap = full & jax.random.bernoulli(coin)
    old = stored[slot]
    kept = jnp.where(swap | ~full, image, old)
    return ({'images': stored.at[slot].set(kept), 'count': jnp.minimum(count + 1, size)},
            jnp.where(swap, old, image))

  return jax.lax.scan(one, pool, (images, jax.random.split(key, len(images))))
