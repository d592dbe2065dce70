"""A discriminator and how it is trained: one value that every adversarial method takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import linen

from jaxgan_compress import core
from jaxgan_compress.core import Axes, TrainState, stop_gradient
from jaxgan_compress.losses import gan
from jaxgan_compress.methods.setup import choose

LOSSES = ('ns', 'hinge', 'lsgan', 'wgan_gp', 'wgan_clip', *gan.RELATIVISTIC)


@dataclasses.dataclass(frozen=True)
class Adversary:
  """A discriminator and how it is trained.

  loss: 'ns' non-saturating logistic, 'hinge', 'lsgan', 'wgan_gp' (Wasserstein with gradient
    penalty), 'wgan_clip' (Wasserstein with clipped weights; its paper takes RMSProp at 5e-5), 'rp'
    and 'ra' (relativistic, paired and average).
  disc_steps: discriminator updates a step, each on its own minibatch.
  penalty, clip: the penalty's weight and the clipping bound of the two Wasserstein losses.
  r1, r2: weights of `losses.gan.slope_penalty` at real and at generated images.

  Raises ValueError for an unknown loss, or batch norm under a gradient penalty.
  """
  disc: linen.Module
  tx: optax.GradientTransformation
  loss: str = 'ns'
  disc_steps: int = 1
  penalty: float = 10.
  clip: float = 0.01
  r1: float = 0.
  r2: float = 0.

  def __post_init__(self):
    choose('loss', self.loss, LOSSES)
    if self.disc_steps < 1:
      raise ValueError(f'disc_steps={self.disc_steps}; at least 1')
    if min(self.r1, self.r2) < 0:
      raise ValueError(f'r1={self.r1}, r2={self.r2}; at least 0')
    penalised = self.loss == 'wgan_gp' or self.r1 or self.r2
    if penalised and vars(self.disc).get('norm') == 'batch':
      raise ValueError('a gradient penalty is defined per sample and batch norm couples samples; '
                       "give the discriminator norm='layer' or norm='none' (a PatchGAN "
                       "norm='instance')")

  @property
  def family(self) -> str:
    """The name of the loss in `losses.gan`."""
    return self.loss.split('_')[0]

  @property
  def relativistic(self) -> bool:
    return self.loss in gan.RELATIVISTIC

  def check_translation(self):
    """Raises ValueError for what a discriminator of image-to-image translation does not do."""
    if self.family == 'wgan':
      raise ValueError(f'loss={self.loss!r} is for generators that start from noise; here take '
                       'hinge, lsgan, ns, rp or ra')
    if self.disc_steps != 1:
      raise ValueError(f'disc_steps={self.disc_steps}; here the discriminator moves once a step, '
                       'disc_steps=1')

  def logits(self, variables, image, axes: Axes):
    """Logits of images under the discriminator's `variables`, whose collections stay."""
    return self.disc.apply(variables, image, train=True, axes=axes)[0]['real']

  def apply(self, variables, image, condition, axes: Axes):
    """((`{head: logits}`, taps), new collections) of images next to what they were generated from,
    or None."""
    inputs = (image,) if condition is None else (image, condition)
    return self.disc.apply(variables, *inputs, train=True, axes=axes,
                           mutable=[name for name in variables if name != 'params'])

  def forward(self, params, collections, image, condition, axes: Axes):
    """(`{head: logits}`, new collections): one pass of a discriminator whose statistics move, as
    each pass moves them in PyTorch. collections: where the pass before left them."""
    (logits, _), new = self.apply({'params': params, **collections}, image, condition, axes)
    return logits, dict(new)

  def generator_loss(self, variables, image, real, condition, axes: Axes):
    """(what a generator minimises, the discriminator's new collections): a pass of the image, then
    for a relativistic loss one of the real image; nothing learns through `variables`."""
    collections = {name: x for name, x in variables.items() if name != 'params'}
    params = stop_gradient(variables['params'])
    logits, collections = self.forward(params, collections, image, condition, axes)
    if not self.relativistic:
      return self.g_loss(logits['real']), collections
    of_real, collections = self.forward(params, collections, real, condition, axes)
    return self.g_loss(logits['real'], of_real['real']), collections

  def g_loss(self, logits, real=None):
    """What the generator minimises; `real`, logits of real images, for the relativistic losses."""
    return gan.generator_loss(self.family, logits, real)

  def disc_losses(self, real, fake):
    """(loss on real, loss on generated images) of the discriminator, from logits."""
    return gan.sides(self.family, real, fake)

  def slope_penalties(self, critic: Callable, real, fake):
    """The penalties r1 and r2, 0 without them. critic: images -> logits."""
    loss = jnp.zeros(())
    for weight, x in ((self.r1, real), (self.r2, fake)):
      if weight:
        loss += weight * gan.slope_penalty(critic, x)
    return loss

  def d_loss(self, variables, real, fake, mix, axes: Axes):
    """(what the discriminator minimises, with its penalty, its new collections: of real images,
    then of generated ones).

    real: a whole number of times as many as fake [B,H,W,C]; mix: [B] in [0, 1].
    """
    params = variables['params']
    collections = {name: x for name, x in variables.items() if name != 'params'}
    critic = lambda x: self.logits(variables, x, axes)
    # Of two kinds of real images, one after the other, every second one: as many as fakes.
    fewer = real[::len(real) // len(fake)]
    on_real, collections = self.forward(params, collections, fewer if self.relativistic else real,
                                        None, axes)
    on_fake, collections = self.forward(params, collections, fake, None, axes)
    losses = self.disc_losses(on_real['real'], on_fake['real'])
    # 'rp' is one term, which `disc_losses` gives twice.
    loss = (losses[0] if self.loss == 'rp' else sum(losses)) + self.slope_penalties(
        critic, real, fake)
    if self.loss == 'wgan_gp':
      loss += self.penalty * gan.gradient_penalty(critic, fewer, fake, mix)
    return loss, collections

  def train(self, state: TrainState, real: Callable, fake: Callable, axes: Axes, bn_axes: Axes):
    """`disc_steps` updates of `state.nets['disc']`; `real(i)`, `fake(i)` are update i's images.
    Returns the state and its logs."""
    for i in range(self.disc_steps):
      reals, fakes = real(i), stop_gradient(fake(i))
      mix = axes.sample(jax.random.uniform, state.key(f'mix{i}'), (len(fakes),))
      disc = state.nets['disc']

      def loss(params, disc=disc, reals=reals, fakes=fakes, mix=mix):
        return self.d_loss({'params': params, **disc.collections}, reals, fakes, mix, bn_axes)

      (value, collections), grads = jax.value_and_grad(loss, has_aux=True)(disc.params)
      state, norms = core.advance(state, {'disc': grads}, {'disc': self.tx}, axes)
      state = state.with_collections({'disc': collections}, axes)
      if self.loss == 'wgan_clip':
        disc = state.nets['disc']
        clipped = disc.replace(params=gan.clip(disc.params, self.clip))
        state = state.replace(nets={**state.nets, 'disc': clipped})
    return state, core.merge_logs({'disc': {'loss': value}}, norms)
