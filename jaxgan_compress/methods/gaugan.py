"""Plain training of generators of label maps: it makes teachers and baselines."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen

from jaxgan_compress import core, nn
from jaxgan_compress.core import Axes, BoundGenerator, Net, Roles, TrainState, stop_gradient
from jaxgan_compress.losses import features, image
from jaxgan_compress.methods.adversary import Adversary, mean_of
from jaxgan_compress.methods.distillation import feature_variables
from jaxgan_compress.methods.pix2pix import init_generator
from jaxgan_compress.methods.setup import check_batch, forward_train
from jaxgan_compress.methods.terms import LITE0_SHARES

VGG19_LAYERS = {'relu1_1': 1 / 32, 'relu2_1': 1 / 16, 'relu3_1': 1 / 8, 'relu4_1': 1 / 4,
                'relu5_1': 1.}
SHARES = VGG19_LAYERS | LITE0_SHARES


def check_label_adversary(adversary: Adversary):
  """Raises ValueError for what a discriminator of label maps does not do."""
  adversary.check_translation()
  if adversary.relativistic or adversary.r1 or adversary.r2:
    raise ValueError('GauGAN takes loss hinge, lsgan or ns, and no slope penalty: its '
                     'discriminator is spectrally normalised')


@dataclasses.dataclass(frozen=True)
class GauGAN:
  """Label maps to images: adv_weight * (GAN loss) + match_weight * (discriminator features)
  + feature_weight * (features of a VGG19), generator first.

  Then the discriminator learns from a fresh image of the moved generator, so that batch statistics
  and spectral vectors move twice a step. It minimises the sum of its two losses.

  match_weight compares every activation of the discriminator for generated image and target, mean
  over scales; feature_weight weighs relu1_1 .. relu5_1 by 1/32 .. 1, of images in [-1, 1] as they
  are, or the layers of an `nn.EfficientNetLite0` by `LITE0_SHARES`.

  batch: `{'source': labels as planes, 'target'}`, as `data.labels` has them.
  adversary: `nn.MultiScale(inputs=planes + 3)`. feature_net: see `DistillLoss`.
  ema, init_from: as `Pix2Pix`.

  Roles: 'generator', 'disc', frozen 'features'. Park et al. 2019, SPADE. Raises ValueError for an
  adversary of another kind, and a feature network of whose layers none has a weight.
  """
  generator: linen.Module
  adversary: Adversary
  tx: optax.GradientTransformation
  adv_weight: float = 1.
  match_weight: float = 10.
  feature_weight: float = 10.
  feature_net: linen.Module = nn.VGG(19, layers=tuple(VGG19_LAYERS))
  ema: float = 0.
  init_scheme: str = 'xavier'

  main = 'generator'
  is_generator = True
  needs_data = True
  updates = 1
  roles = Roles('generator', disc=('disc',))

  def __post_init__(self):
    check_label_adversary(self.adversary)
    check_feature_net(self)

  @property
  def modules(self) -> dict[str, linen.Module]:
    return {'generator': self.generator, 'disc': self.adversary.disc, **feature_modules(self)}

  def init(self, rng, batch, init_from: Mapping[str, Net] | None = None) -> TrainState:
    return init_generator(self, rng, batch, init_from, frozen_features(self, init_from))

  def step(self, state: TrainState, batch, axes: Axes = Axes()):
    return gaugan_step(self, state, batch, axes)

  def generators(self, state: TrainState) -> dict[str, BoundGenerator]:
    return {'generator': BoundGenerator(state.nets['generator'].averaged, self.generator)}


def check_feature_net(method):
  """Raises ValueError where `feature_weight` would weigh nothing."""
  layers = method.feature_net.layers
  if method.feature_weight and not SHARES.keys() & set(layers):
    raise ValueError(f'feature_weight={method.feature_weight} weighs {", ".join(SHARES)}, and '
                     f'feature_net has {", ".join(layers)}; name some of the former in its '
                     'layers, or give feature_weight=0')


def feature_modules(method) -> dict[str, linen.Module]:
  """{'features': the feature network} of a method with `feature_weight`."""
  return {'features': method.feature_net} if method.feature_weight else {}


def frozen_features(method, init_from) -> dict:
  """{'features': variables} of a method with `feature_weight`."""
  return {role: feature_variables(network, init_from)
          for role, network in feature_modules(method).items()}


def gaugan_step(method, state: TrainState, batch, axes: Axes,
                more_terms=lambda generated, taps, helpers: {}, taps=(), helpers=()):
  """A step of the main generator of `method`, then of a discriminator, which sees a fresh image of
  the moved generator, as `GauGAN` has it.

  more_terms: (generated image, taps, {helper: params}) -> {term: value} that the generator
  minimises in addition; helpers are networks that learn with it. taps: those that `more_terms`
  reads.
  """
  check_batch(method, batch, 'source', 'target')
  role, module, adversary = method.main, method.modules[method.main], method.adversary
  tx: optax.GradientTransformation = method.tx
  source, target = batch['source'], batch['target']

  def generate(params, collections):
    (generated, all_taps), collections = forward_train(
        module, {'params': params, **collections}, source, axes)
    return generated, {tap: all_taps[tap] for tap in taps}, collections

  view = adversary.view(state, axes)

  def discriminate(variables, *pairs):
    """Generated images and targets in one pass, so that spectral vectors move once."""
    both, collections = adversary.apply(
        variables, *(jnp.concatenate(each) for each in zip(*pairs, strict=True)), axes)
    halves = jax.tree.map(lambda x: jnp.split(x, 2), both)
    return *jax.tree.transpose(jax.tree.structure(both), None, halves), collections

  def feature_term(generated):
    fake, real = (method.feature_net.apply(state.frozen['features'], core.in_colour(x))
                  for x in (generated, stop_gradient(target)))
    return method.feature_weight * features.weighted(fake, real, SHARES)

  def g_loss(params):
    generated, student_taps, collections = generate(params[role], state.nets[role].collections)
    (logits, fake), (_, real), d_collections = discriminate(
        stop_gradient(state.nets['disc'].variables),
        # Their features are compared, so both are seen alike.
        view('generator', generated, source), view('generator', target, source))
    terms = {'adv': method.adv_weight * _mean(map(adversary.g_loss, logits.values())),
             'match': method.match_weight * sum(
                 image.l1(x, stop_gradient(real[name])) for name, x in fake.items()) / len(logits)}
    if method.feature_weight:
      terms['feature'] = feature_term(generated)
    terms |= more_terms(generated, student_taps, params)
    return sum(terms.values()), (terms, collections, d_collections)

  (loss, (terms, collections, d_collections)), grads = jax.value_and_grad(g_loss, has_aux=True)(
      {name: state.nets[name].params for name in (role, *helpers)})
  state, g_norms = core.advance(state, grads, dict.fromkeys(grads, tx), axes, ema=method.ema)
  again, _, collections = generate(state.nets[role].params, collections)

  def d_loss(params):
    (fake, _), (real, _), moved = discriminate(
        {'params': params, **d_collections}, view('fake', stop_gradient(again), source),
        view('real', target, source, fake=again))
    on = [adversary.disc_losses(real[scale], fake[scale]) for scale in real]
    terms: dict[str, Any] = {'real': _mean(a for a, _ in on), 'fake': _mean(b for _, b in on)}
    loss: Any = sum(terms.values())
    gaps = mean_of([adversary.gaps({role: logits}) for logits in fake.values()], 'gap')
    return loss, (core.merge_logs({'disc': {**terms, 'loss': loss}}, *gaps,
                                  adversary.confidence(real.values())), moved)

  grads, (d_logs, d_collections) = jax.grad(d_loss, has_aux=True)(state.nets['disc'].params)
  state, d_norms = core.advance(state, {'disc': grads}, {'disc': adversary.tx}, axes)
  state = state.with_collections({role: collections, 'disc': d_collections}, axes)
  state, logs = adversary.adapt(state, core.merge_logs(
      {role: {**terms, 'loss': loss}}, d_logs, g_norms, d_norms), len(target), axes)
  return state.tick(), logs


def _mean(values):
  values = list(values)
  return sum(values) / len(values)
