"""Unpaired translation by two generators, there and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import optax
from flax import linen

from jaxgan_compress import core
from jaxgan_compress.core import Axes, BoundGenerator, Net, Roles, TrainState, stop_gradient
from jaxgan_compress.losses import image
from jaxgan_compress.methods.adversary import Adversary
from jaxgan_compress.methods.image_pool import empty_pool, from_pool
from jaxgan_compress.methods.setup import check_batch, forward_train, init_net, refuse_dropout

OPPOSITE = {'generator': 'generator_ba', 'generator_ba': 'generator'}
DISC = {'generator': 'disc', 'generator_ba': 'disc_ba'}
GENERATOR = {disc: generator for generator, disc in DISC.items()}


@dataclasses.dataclass(frozen=True)
class CycleGAN:
  """Two generators learn to translate both ways between sets without pairs.

    L = adv_weight (g(D(G(A))) + g(D'(G'(B)))) + cycle_weight (|G'(G(A)) - A| + |G(G'(B)) - B|)
      + identity_weight (|G(B) - B| + |G'(A) - A|)

  moves both generators; each discriminator minimises half the sum of its losses, its fakes from a
  pool of earlier images. Everything is taken at the parameters before the step.

  batch: `{'source': A, 'target': B}`, [B,H,W,C] in [-1, 1], C alike, without partners.
  generator: A to B; generator_ba: B to A, default the same network.
  adversary: `Adversary(nn.PatchGAN(64), tx, 'lsgan')`; one discriminator for each side.
  pool: images that each replica keeps for each discriminator, 0 for none.
  ema: decay of moving averages of both generators, 0 for none.

  Roles: 'generator', 'generator_ba', 'disc' (of B), 'disc_ba' (of A). `TrainState.replica_state`
  holds the pools. Zhu et al. 2017. Raises ValueError for contradictory fields.
  """
  generator: linen.Module
  adversary: Adversary
  tx: optax.GradientTransformation
  generator_ba: linen.Module | None = None
  adv_weight: float = 1.
  cycle_weight: float = 10.
  identity_weight: float = 5.
  pool: int = 50
  ema: float = 0.
  init_scheme: str = 'normal'

  main = 'generator'
  is_generator = True
  needs_data = True
  updates = 1
  roles = Roles('generator', reverse=('generator_ba',), disc=tuple(DISC.values()))

  def __post_init__(self):
    self.adversary.check_translation()
    refuse_dropout(self.translators)
    if self.pool < 0:
      raise ValueError(f'pool={self.pool}; at least 0')

  @property
  def translators(self) -> dict[str, linen.Module]:
    """Both generators, by role."""
    return {'generator': self.generator, 'generator_ba': self.generator_ba or self.generator}

  @property
  def modules(self) -> dict[str, linen.Module]:
    return {**self.translators, **dict.fromkeys(DISC.values(), self.adversary.disc)}

  @property
  def optimisers(self) -> dict[str, optax.GradientTransformation]:
    return {**dict.fromkeys(self.translators, self.tx),
            **dict.fromkeys(DISC.values(), self.adversary.tx)}

  def init(self, rng, batch, init_from: Mapping[str, Net] | None = None) -> TrainState:
    check_batch(self, batch, 'source', 'target')
    a, b = (batch[side].shape[-1] for side in ('source', 'target'))
    if a != b:
      raise ValueError(f'source has {a} channels and target {b}; {type(self).__name__} gives its '
                       'generators and discriminators images of both kinds: read source and target '
                       'with equal channels')
    keys = jax.random.split(rng, 5)
    scheme = {'scheme': self.init_scheme, 'init_from': init_from}
    nets, pools = {}, {}
    for i, (role, module) in enumerate(self.translators.items()):
      disc, output_side = DISC[role], OPPOSITE[role]
      x, y = (side_of(batch, side)[:1] for side in (role, output_side))
      nets[role] = init_net(role, module, keys[i], x, **scheme), self.tx
      nets[disc] = (init_net(disc, self.adversary.disc, keys[2 + i], y, **scheme),
                    self.adversary.tx)
      if self.pool:
        pools[disc] = empty_pool(self.pool, y.shape[1:])
    return core.create(
        keys[4], nets, frozen=self.adversary.frozen(DISC.values()),
        ema=self.translators if self.ema else ()).replace(replica_state=pools)

  def losses(self, params, state: TrainState, batch, axes: Axes = Axes()):
    """({learner: what it minimises}, (logs, {role: new collections}, replica_state, outputs)).

    'generators' is what both generators minimise. outputs: {role: (image, taps) of its input}.
    """
    check_batch(self, batch, 'source', 'target')
    collections = {role: state.nets[role].collections for role in self.translators}

    def generate(role, x):
      output, collections[role] = forward_train(
          self.translators[role], {'params': params[role], **collections[role]}, x, axes)
      return output

    outputs, again, losses, pools = {}, {}, {}, {}
    logs: dict[str, dict] = {role: {} for role in self.translators}
    for role, opposite in OPPOSITE.items():
      outputs[role] = generate(role, side_of(batch, role))
      again[role] = generate(opposite, outputs[role][0])[0]
    for role, opposite in OPPOSITE.items():
      disc, x, real = DISC[role], side_of(batch, role), side_of(batch, opposite)
      losses[disc], adv, d_logs, collections[disc], pool = self._adversarial(
          params, state, disc, outputs[role][0], real, axes)
      pools |= pool
      logs = core.merge_logs(logs, d_logs)
      logs[role]['adv'] = self.adv_weight * adv
      logs[role]['cycle'] = self.cycle_weight * image.l1(again[role], x)
      if self.identity_weight:
        logs[role]['identity'] = self.identity_weight * image.l1(generate(role, real)[0], real)
    for role in self.translators:
      logs[role]['loss'] = sum(logs[role].values())
    losses['generators'] = sum(logs[role]['loss'] for role in self.translators)
    return losses, (logs, collections, pools, outputs)

  def _adversarial(self, params, state, disc, generated, real, axes):
    """(loss of a discriminator, GAN loss of its generator, logs, new collections, {disc: pool})."""
    fake, pool = stop_gradient(generated), {}
    if self.pool:
      key = jax.random.fold_in(state.key(f'pool_{disc}'), axes.index())
      pool[disc], fake = from_pool(state.replica_state[disc], fake, key)
    variables = {'params': params[disc], **state.nets[disc].collections}
    # The generators move first: a discriminator's statistics see the image for them, then the real
    # images, then those from the pool.
    view = self.adversary.view(state, axes, disc)
    adv, collections = self.adversary.generator_loss(variables, generated, real, None, view, axes)
    of_real, collections = self.adversary.forward(
        params[disc], collections, *view('real', real, fake=generated), axes)
    of_fake, collections = self.adversary.forward(params[disc], collections, *view('fake', fake),
                                                  axes)
    on_real, on_fake = self.adversary.disc_losses(of_real['real'], of_fake['real'])
    loss = (on_real + on_fake) / 2 + self.adversary.slope_penalties(
        lambda name, x: self.adversary.logits(variables, view(name, x)[0], axes), real, fake)
    logs = core.merge_logs({disc: {'real': on_real, 'fake': on_fake, 'loss': loss}},
                           self.adversary.confidence([of_real['real']], disc),
                           self.adversary.gaps({GENERATOR[disc]: of_fake['real']}))
    return loss, adv, logs, collections, pool

  def step(self, state: TrainState, batch, axes: Axes = Axes()):
    def losses(params):
      losses, (*rest, _) = self.losses(params, state, batch, axes)
      return losses, tuple(rest)

    state, logs = core.update_together(state, losses, state.nets, self.optimisers, axes,
                                       ema=self.ema)
    return self.adversary.adapt(state, logs, len(batch['source']), axes)

  def generators(self, state: TrainState) -> dict[str, BoundGenerator]:
    return {role: BoundGenerator(state.nets[role].averaged, module)
            for role, module in self.translators.items()}


def side_of(batch, role: str):
  """The images that a role of CycleGAN translates."""
  return batch['target' if role == 'generator_ba' else 'source']
