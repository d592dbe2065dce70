"""Adversarial losses on logits of any shape: `*_d(real, fake)` for the discriminator, `*_g(fake)`
for the generator.

A `_d` loss is the real term plus the fake term; a method that wants their mean halves it.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.nn import relu, softplus


def ns_d(real, fake):
  """-log s(real) - log(1 - s(fake)), s the sigmoid. Goodfellow et al. 2014."""
  return softplus(-real).mean() + softplus(fake).mean()


def ns_g(fake):
  """-log s(fake): the non-saturating form. Goodfellow et al. 2014."""
  return softplus(-fake).mean()


def hinge_d(real, fake):
  """max(0, 1 - real) + max(0, 1 + fake). Lim and Ye 2017."""
  return relu(1 - real).mean() + relu(1 + fake).mean()


def hinge_g(fake):
  """-fake."""
  return -fake.mean()


def lsgan_d(real, fake):
  """(real - 1)^2 + fake^2. Mao et al. 2017."""
  return jnp.square(real - 1).mean() + jnp.square(fake).mean()


def lsgan_g(fake):
  """(fake - 1)^2."""
  return jnp.square(fake - 1).mean()


def wgan_d(real, fake):
  """fake - real. Arjovsky et al. 2017; needs a penalty or clipped weights."""
  return fake.mean() - real.mean()


def wgan_g(fake):
  """-fake."""
  return -fake.mean()


def gradient_penalty(critic: Callable, real, fake, mix):
  """E (|grad_x critic(x)| - 1)^2 at x = mix * real + (1 - mix) * fake.

  critic: images [B,H,W,C] -> logits, one sample's independent of the others' (no batch norm).
  real, fake: [B,H,W,C]; mix: [B] in [0, 1]. The norm is over H, W, C. Gulrajani et al. 2017.
  """
  mix = mix.reshape(-1, 1, 1, 1)
  slope = jax.grad(lambda x: critic(x).sum())(mix * real + (1 - mix) * fake)
  norm = jnp.sqrt(jnp.square(slope).sum((1, 2, 3)) + 1e-12)  # the root's slope at 0 is infinite
  return jnp.square(norm - 1).mean()


def clip(params, bound: float):
  """Weights clipped to [-bound, bound], the first Lipschitz constraint. Arjovsky et al. 2017."""
  return jax.tree.map(lambda w: jnp.clip(w, -bound, bound), params)
