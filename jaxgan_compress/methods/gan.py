"""Plain adversarial training of a noise-to-image generator: it makes teachers and baselines."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import optax
from flax import linen

from jaxgan_compress import core
from jaxgan_compress.core import Axes, BoundGenerator, Net, Roles, TrainState
from jaxgan_compress.methods.adversary import Adversary
from jaxgan_compress.methods.setup import check_batch, choose, forward_train, init_net

BN_SYNC = ('global', 'replica')


@dataclasses.dataclass(frozen=True)
class GAN:
  """A generator learns to generate real images against a discriminator: discriminator first, then
  the generator on fresh noise.

  batch: `{'target': [B,H,W,C]}`. With disc_steps > 1 the B rows are dealt to the discriminator's
  updates and the generator's batch is B / disc_steps.
  ema: decay of the moving average of the generator, 0 for none; with one, `generators` has the
  average. bn_sync: batch statistics over all replicas ('global') or each its own.

  Roles: 'generator', 'disc'. Goodfellow et al. 2014; Radford et al. 2016.
  """
  generator: linen.Module
  adversary: Adversary
  tx: optax.GradientTransformation
  ema: float = 0.
  init_scheme: str = 'dcgan'
  bn_sync: str = 'global'

  main = 'generator'
  is_generator = True
  needs_data = True
  roles = Roles('generator', disc=('disc',))

  def __post_init__(self):
    choose('bn_sync', self.bn_sync, BN_SYNC)

  @property
  def updates(self) -> int:
    return self.adversary.disc_steps

  @property
  def modules(self) -> dict[str, linen.Module]:
    return {'generator': self.generator, 'disc': self.adversary.disc}

  def init(self, rng, batch, init_from: Mapping[str, Net] | None = None) -> TrainState:
    check_batch(self, batch, 'target')
    g_key, d_key, rng = jax.random.split(rng, 3)
    source = {'scheme': self.init_scheme, 'init_from': init_from}
    generator = init_net('generator', self.generator, g_key, self.generator.example(), **source)
    disc = init_net('disc', self.adversary.disc, d_key, batch['target'][:1], **source)
    return core.create(
        rng, {'generator': (generator, self.tx), 'disc': (disc, self.adversary.tx)},
        frozen=self.adversary.frozen(), ema=('generator',) if self.ema else ())

  def step(self, state: TrainState, batch, axes: Axes = Axes()):
    check_batch(self, batch, 'target')
    size = core.rows(batch) // self.updates
    bn_axes = axes if self.bn_sync == 'global' else Axes()

    def generate(params, name):
      z = axes.sample(jax.random.normal, state.key(name), (size, self.generator.latent))
      variables = {'params': params, **state.nets['generator'].collections}
      (image, _), collections = forward_train(self.generator, variables, z, bn_axes)
      return image, collections

    params = state.nets['generator'].params
    state, disc_logs = self.adversary.train(
        state, lambda i: batch['target'][i::self.updates],
        lambda i: generate(params, f'z_disc{i}')[0], axes, bn_axes)

    def generator_loss(params):
      image, collections = generate(params, 'z')
      loss, disc_collections = self.adversary.generator_loss(
          state.nets['disc'].variables, image, batch['target'][::self.updates], None,
          self.adversary.view(state, axes), bn_axes)
      return loss, {'generator': collections, 'disc': disc_collections}

    (loss, collections), grads = jax.value_and_grad(generator_loss, has_aux=True)(params)
    state, norms = core.advance(state, {'generator': grads}, {'generator': self.tx}, axes,
                                ema=self.ema)
    state = state.with_collections(collections, axes)
    return state.tick(), core.merge_logs({'generator': {'loss': loss}}, disc_logs, norms)

  def generators(self, state: TrainState) -> dict[str, BoundGenerator]:
    return {'generator': BoundGenerator(state.nets['generator'].averaged, self.generator)}
