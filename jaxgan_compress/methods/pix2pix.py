"""Plain training of image-to-image generators on pairs: it makes teachers and baselines."""

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
from jaxgan_compress.methods.setup import check_batch, choose, forward_train, init_net


@dataclasses.dataclass(frozen=True)
class Pix2Pix:
  """adv_weight * (GAN loss) + recon_weight * |G(source) - target|: discriminator first.

  recon_loss: 'l1', 'l2' or 'smooth_l1' between generated image and target, see `losses.image`.

  The generator runs once; the discriminator learns from its image, and then, as it now stands,
  gives the GAN loss of the same image. The discriminator minimises half the sum of its two losses.

  batch: `{'source', 'target'}`, [B,H,W,C] in [-1, 1].
  adversary: sees source and image side by side: `nn.PatchGAN(inputs=6)`.
  ema: decay of the moving average of the generator, 0 for none. init_from['generator'],
  init_from['disc']: where to start from.

  Roles: 'generator', 'disc'. Isola et al. 2017; the order of updates and hinge are CAT's (Jin et
  al. 2021). Raises ValueError for an adversary of another kind.
  """
  generator: linen.Module
  adversary: Adversary
  tx: optax.GradientTransformation
  adv_weight: float = 1.
  recon_weight: float = 100.
  ema: float = 0.
  init_scheme: str = 'normal'
  recon_loss: str = 'l1'

  main = 'generator'
  is_generator = True
  needs_data = True
  updates = 1
  roles = Roles('generator', disc=('disc',))

  def __post_init__(self):
    self.adversary.check_translation()
    choose('recon_loss', self.recon_loss, image.RECONSTRUCTIONS)

  @property
  def modules(self) -> dict[str, linen.Module]:
    return {'generator': self.generator, 'disc': self.adversary.disc}

  def init(self, rng, batch, init_from: Mapping[str, Net] | None = None) -> TrainState:
    return init_generator(self, rng, batch, init_from)

  def step(self, state: TrainState, batch, axes: Axes = Axes()):
    def recon(generated, taps, helpers):
      loss = image.RECONSTRUCTIONS[self.recon_loss](generated, batch['target'])
      return {'recon': self.recon_weight * loss}

    return pix2pix_step(self, state, batch, axes, recon, batch['source'])

  def generators(self, state: TrainState) -> dict[str, BoundGenerator]:
    return {'generator': BoundGenerator(state.nets['generator'].averaged, self.generator)}


def pix2pix_step(method, state: TrainState, batch, axes: Axes, more_terms, condition, taps=(),
                 helpers=(), adv_weight=None):
  """A step of a discriminator, then of the main generator of `method`.

  more_terms: (generated image, its taps, {helper: params}) -> {term: value} that the generator
  minimises in addition to `adv_weight` (default: the method's) times its GAN loss; helpers are
  networks that learn with it. condition: what the discriminator sees next to an image, or None.
  taps: those that `more_terms` reads. The discriminator's statistics move with each of its passes:
  generated image, target, generated image for the generator.
  """
  check_batch(method, batch, 'source', 'target')
  role, module, adversary = method.main, method.modules[method.main], method.adversary
  source, target = batch['source'], batch['target']
  net, disc = state.nets[role], state.nets['disc']
  noise = {'dropout': jax.random.fold_in(state.key('dropout'), axes.index())}

  def generate(params):
    (image, all_taps), collections = forward_train(
        module, {'params': params, **net.collections}, source, axes, noise)
    return (image, {tap: all_taps[tap] for tap in taps}), collections

  outputs, pull_back, collections = jax.vjp(generate, net.params, has_aux=True)
  generated = stop_gradient(outputs[0])

  view = adversary.view(state, axes)

  def d_loss(params):
    forward = lambda name, x, collections=disc.collections, **fake: adversary.forward(
        params, collections, *view(name, x, condition, **fake), axes)
    of_fake, moved = forward('fake', generated)
    of_real, moved = forward('real', target, moved, fake=generated)
    on_real, on_fake = adversary.disc_losses(of_real['real'], of_fake['real'])
    loss = (on_real + on_fake) / 2 + adversary.slope_penalties(
        lambda name, x: forward(name, x)[0]['real'], target, generated)
    logs = {'disc': {'real': on_real, 'fake': on_fake, 'loss': loss}}
    return loss, (core.merge_logs(logs, adversary.confidence([of_real['real']]),
                                  adversary.gaps({role: of_fake['real']})), moved)

  grads, (d_logs, moved) = jax.grad(d_loss, has_aux=True)(disc.params)
  state, d_norms = core.advance(state, {'disc': grads}, {'disc': adversary.tx}, axes)
  moved_disc = {'params': state.nets['disc'].params, **moved}

  def g_loss(outputs, helpers):
    adv, disc_collections = adversary.generator_loss(moved_disc, outputs[0], target, condition,
                                                     view, axes)
    weight = method.adv_weight if adv_weight is None else adv_weight
    terms = {'adv': weight * adv, **more_terms(*outputs, helpers)}
    return sum(terms.values()), (terms, disc_collections)

  (loss, (terms, disc_collections)), (slopes, helper_grads) = jax.value_and_grad(
      g_loss, (0, 1), has_aux=True)(outputs, {name: state.nets[name].params for name in helpers})
  grads = {role: pull_back(slopes)[0], **helper_grads}
  state, g_norms = core.advance(state, grads, dict.fromkeys(grads, method.tx), axes,
                                ema=method.ema)
  state = state.with_collections({role: collections, 'disc': disc_collections}, axes)
  state, logs = adversary.adapt(state, core.merge_logs(
      {role: {**terms, 'loss': loss}}, d_logs, d_norms, g_norms), len(target), axes)
  return state.tick(), logs


def init_generator(method, rng, batch, init_from, frozen=None) -> TrainState:
  """The first state of a generator and of a discriminator that sees source and image."""
  check_batch(method, batch, 'source', 'target')
  source, target = batch['source'][:1], batch['target'][:1]
  g_key, d_key, rng = jax.random.split(rng, 3)
  scheme = {'scheme': method.init_scheme, 'init_from': init_from}
  generator = init_net('generator', method.generator, g_key, source, **scheme)
  disc = init_net('disc', method.adversary.disc, d_key, target, source, **scheme)
  return core.create(
      rng, {'generator': (generator, method.tx), 'disc': (disc, method.adversary.tx)},
      frozen={**(frozen or {}), **method.adversary.frozen()},
      ema=('generator',) if method.ema else ())
