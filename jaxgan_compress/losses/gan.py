"""Adversarial losses on logits of any shape: `*_d(real, fake)` for the discriminator, `*_g(fake)`
for the generator.

A `_d` loss is the real term plus the fake term; a method that wants their mean halves it.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.nn import relu, softplus

# What is minimised where a logit belongs to a real image, and where to a generated one.
SIDES = {
    'ns': (lambda x: softplus(-x), softplus),
    'hinge': (lambda x: relu(1 - x), lambda x: relu(1 + x)),
    'lsgan': (lambda x: jnp.square(x - 1), jnp.square),
    'wgan': (lambda x: -x, lambda x: x),
}
RELATIVISTIC = ('rp', 'ra')


def sides(loss: str, real, fake):
  """(real term, fake term) of a discriminator's loss by name; both are means over all logits.

  real, fake: logits; for the relativistic losses of as many images each. 'rp' is one term, given
  twice, so that half the sum is what was published; 'ra' couples the batch of a replica.
  """
  if loss == 'rp':
    return (softplus(fake - real).mean(),) * 2
  if loss == 'ra':
    return softplus(fake.mean() - real).mean(), softplus(fake - real.mean()).mean()
  on_real, on_fake = SIDES[loss]
  return on_real(real).mean(), on_fake(fake).mean()


def generator_loss(loss: str, fake, real=None):
  """What a generator minimises under the loss of that name; the relativistic ones need `real`."""
  if loss == 'rp':
    return rp_g(fake, real)
  if loss == 'ra':
    return ra_g(fake, real)
  return {'ns': ns_g, 'hinge': hinge_g, 'lsgan': lsgan_g, 'wgan': wgan_g}[loss](fake)


def gap(loss: str, fake):
  """What the generator minimises - what the discriminator minimises on generated images, from its
  logits: how far they are from balance is the absolute value, of a whole batch.

  A discriminator that cannot tell images apart gives 0 under 'ns' and 'lsgan' and 1 under 'hinge',
  so that a gap says something next to that of the teacher alone. Li et al. 2021, GCC.
  """
  return generator_loss(loss, fake) - SIDES[loss][1](fake).mean()


def ns_d(real, fake):
  """-log s(real) - log(1 - s(fake)), s the sigmoid. Goodfellow et al. 2014."""
  return sum(sides('ns', real, fake))


def ns_g(fake):
  """-log s(fake): the non-saturating form. Goodfellow et al. 2014."""
  return softplus(-fake).mean()


def hinge_d(real, fake):
  """max(0, 1 - real) + max(0, 1 + fake). Lim and Ye 2017."""
  return sum(sides('hinge', real, fake))


def hinge_g(fake):
  """-fake."""
  return -fake.mean()


def lsgan_d(real, fake):
  """(real - 1)^2 + fake^2. Mao et al. 2017."""
  return sum(sides('lsgan', real, fake))


def lsgan_g(fake):
  """(fake - 1)^2."""
  return jnp.square(fake - 1).mean()


def wgan_d(real, fake):
  """fake - real. Arjovsky et al. 2017; needs a penalty or clipped weights."""
  return sum(sides('wgan', real, fake))


def wgan_g(fake):
  """-fake."""
  return -fake.mean()


def rp_g(fake, real):
  """-log s(fake - real), row by row: relativistic pairing. Jolicoeur-Martineau 2018."""
  return softplus(real - fake).mean()


def ra_g(fake, real):
  """-log s(fake - E real) - log(1 - s(real - E fake)): relativistic average, the same paper."""
  return softplus(real.mean() - fake).mean() + softplus(real - fake.mean()).mean()


def slope_penalty(critic: Callable, x):
  """E |grad_x critic(x)|^2 / 2: R1 at real images, R2 at generated ones.

  critic: images [B,H,W,C] -> logits [B,...], of which each image's mean is taken, so that a weight
  means the same for one logit and for a map of them. Mescheder et al. 2018.
  """
  def mean_logit(x):
    logits = critic(x)
    return logits.reshape(len(x), -1).mean(-1).sum()

  return jnp.square(jax.grad(mean_logit)(x)).sum((1, 2, 3)).mean() / 2


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
