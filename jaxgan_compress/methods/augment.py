"""Differentiable augmentation of what a discriminator sees, always or as it needs it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxgan_compress.core import Array, Axes
from jaxgan_compress.methods.setup import choose
from jaxgan_compress.nn import discriminators


def brightness(x, u):
  """x + (u - 1/2). x: [B,H,W,C] in [-1, 1], here as below; u: [B] in [0, 1)."""
  return x + (_each(u) - .5)


def saturation(x, u):
  """m + 2u (x - m), m the mean over the channels of each pixel."""
  mean = x.mean(-1, keepdims=True)
  return mean + 2 * _each(u) * (x - mean)


def contrast(x, u):
  """m + (u + 1/2) (x - m), m the mean over the whole image."""
  mean = x.mean((1, 2, 3), keepdims=True)
  return mean + (_each(u) + .5) * (x - mean)


def translation(x, shift):
  """y[i, j] = x[i + a, j + b], 0 outside, (a, b) = shift [B,2], at most an eighth of the sides."""
  reach = tuple(side // 8 for side in x.shape[1:3])
  padded = jnp.pad(x, ((0, 0), *((r, r) for r in reach), (0, 0)))

  def one(image, shift):
    return lax.dynamic_slice(image, (shift[0] + reach[0], shift[1] + reach[1], 0), x.shape[1:])

  return jax.vmap(one)(padded, shift)


def cutout(x, centre):
  """0 in a rectangle of half the sides around `centre` [B,2], which may reach beyond the image."""
  keep = None
  for axis in (1, 2):
    size = x.shape[axis] // 2
    distance = jnp.arange(x.shape[axis])[None] - (centre[:, axis - 1, None] - size // 2)
    inside = (distance >= 0) & (distance < size)
    inside = inside[:, :, None] if axis == 1 else inside[:, None]
    keep = inside if keep is None else keep & inside
  return jnp.where(keep[..., None], 0., x)


def _first(u, sides):
  return u[:, 0]


def _shift(u, sides):
  reach = jnp.array([[side // 8 for side in sides]])
  return _whole(u, 2 * reach + 1) - reach


def _centre(u, sides):
  # An even rectangle may also be centred behind the last pixel.
  return _whole(u, jnp.array([[side + 1 - side // 2 % 2 for side in sides]]))


def _whole(u, below):
  """Whole numbers from 0, each below `below` [1,2] as likely. u: [B,2] in [0, 1)."""
  # Rounded, the product may reach the end.
  return jnp.minimum((u * below).astype(jnp.int32), below - 1)


ALWAYS = 1.
# {policy: (operation, what it makes of two random numbers for an image of these sides)}.
POLICIES = {'color': ((brightness, _first), (saturation, _first), (contrast, _first)),
            'translation': ((translation, _shift),), 'cutout': ((cutout, _centre),)}


@dataclasses.dataclass(frozen=True)
class DiffAugment:
  """Random operations on whatever a discriminator sees, real or generated, through which its
  generator learns.

  policies: some of 'color' (brightness, saturation, contrast), 'translation' and 'cutout', in the
    order in which they happen. Leave out 'color' where colours are the task. An image's condition
    moves with it and keeps its colours.

  Every image has its own random numbers in every pass. Zhao et al. 2020, whose authors take all
  three policies for some hundreds of images. Raises ValueError for an unknown policy.
  """
  policies: tuple[str, ...] = tuple(POLICIES)

  def __post_init__(self):
    if not self.policies:
      raise ValueError(f'policies=(); some of {", ".join(POLICIES)}, or no DiffAugment')
    for policy in self.policies:
      choose('policies', policy, POLICIES)

  def __call__(self, key, image, condition=None, axes: Axes = Axes(),
               probability: Array | float = ALWAYS):
    """(image, condition) as the discriminator sees them, [B,H,W,C] each; condition may be None.

    probability: that an operation happens to an image, each by its own chance.
    """
    rows = len(image)
    if condition is not None:
      condition = discriminators.fitted(condition, image)
    operations = [(policy, *each) for policy in self.policies for each in POLICIES[policy]]
    # All random numbers at once: a call of their generator is hundreds of operations to compile.
    numbers = axes.sample(jax.random.uniform, key, (rows, len(operations), 3))
    for i, (policy, operation, sampled) in enumerate(operations):
      values = sampled(numbers[:, i, :2], image.shape[1:3])
      happens = None if probability is ALWAYS else numbers[:, i, 2] < probability
      image = _where(happens, operation(image, values), image)
      if condition is not None and policy != 'color':
        condition = _where(happens, operation(condition, values), condition)
    return image, condition


@dataclasses.dataclass(frozen=True)
class Adaptive:
  """A probability that rises while a discriminator is sure of real images, and falls when it is
  not: for sets so small that a discriminator learns them by heart.

  r is the mean sign of its logits of real images (of logit - 1/2 for 'lsgan') over the last `every`
  steps; then p moves by every * batch / images, up where r is above `target`, else down, between 0
  and `limit`.

  kind: 'ada': the operations of `Adversary.augment` happen with probability p each, Karras et al.
    2020. 'apa': with probability p the discriminator is shown a generated image as a real one; for
    tasks where any operation would change what is to be learned, Jiang et al. 2021.
  images: real images after which p has come from 0 to 1.

  Raises ValueError for contradictory fields.
  """
  kind: str = 'ada'
  images: int = 500_000
  target: float = 0.6
  every: int = 4
  limit: float = 0.9

  def __post_init__(self):
    choose('kind', self.kind, ('ada', 'apa'))
    if self.images < 1 or self.every < 1 or not 0 < self.limit <= 1:
      raise ValueError(f'images={self.images}, every={self.every}, limit={self.limit}; at least 1, '
                       'at least 1, and above 0 up to 1')
    if not -1 < self.target < 1:
      raise ValueError(f'target={self.target}; between -1 and 1, as a mean of signs is')

  def init(self) -> dict[str, Array]:
    """{'p', 'sign': sum of r, 'steps' that it is of}."""
    return {'p': jnp.zeros(()), 'sign': jnp.zeros(()), 'steps': jnp.zeros((), jnp.int32)}

  def update(self, state: dict[str, Array], sign, rows: int | Array) -> dict[str, Array]:
    """The state after a step of which r is `sign`, of `rows` real images on all replicas."""
    steps, total = state['steps'] + 1, state['sign'] + sign
    due = steps >= self.every
    move = jnp.sign(total / steps - self.target) * (self.every * rows / self.images)
    p = jnp.where(due, jnp.clip(state['p'] + move, 0, self.limit), state['p'])
    return {'p': p, 'sign': jnp.where(due, 0., total), 'steps': jnp.where(due, 0, steps)}


# What a discriminator sees of an image: (what for, image, condition, generated image) -> (image,
# condition).
View = Callable[..., tuple[Any, Any]]


def _where(happens, changed, image):
  return changed if happens is None else jnp.where(_each(happens), changed, image)


def _each(values):
  return values.reshape(-1, 1, 1, 1)
