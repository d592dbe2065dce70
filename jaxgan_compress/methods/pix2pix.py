"""Plain training of image-to-image generators on pairs: it makes teachers and baselines."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
from flax import linen

from jaxgan_compress import core, nn
from jaxgan_compress.core import Axes, Drawer, Net, TrainState, fixed
from jaxgan_compress.losses import features, image
from jaxgan_compress.methods.distillation import looking_glass
from jaxgan_compress.methods.gan import Adversary, check_batch, choose, draw_with_taps, start

VGG19_LAYERS = {'relu1_1': 1 / 32, 'relu2_1': 1 / 16, 'relu3_1': 1 / 8, 'relu4_1': 1 / 4,
                'relu5_1': 1.}


def check_adversary(adversary: Adversary, updates: int = 1):
  """Raises ValueError for what a discriminator of image pairs does not do."""
  if adversary.family == 'wgan':
    raise ValueError(f'loss={adversary.loss!r} is for generators that draw from noise; here take '
                     'hinge, lsgan, ns, rp or ra')
  if adversary.n_critic != updates:
    raise ValueError(f'n_critic={adversary.n_critic}; here the discriminator moves once a step, '
                     'n_critic=1')


def check_label_adversary(adversary: Adversary):
  """Raises ValueError for what a discriminator of label maps does not do."""
  check_adversary(adversary)
  if adversary.relativistic or adversary.r1 or adversary.r2:
    raise ValueError('GauGAN takes loss hinge, lsgan or ns, and no slope penalty: its '
                     'discriminator is spectrally normalised')


@dataclasses.dataclass(frozen=True)
class Pix2Pix:
  """adv * (what deceives the judge) + recon * |G(source) - target|: discriminator first.

  recon_loss: 'l1', 'l2' or 'smooth_l1' between drawing and target, see `losses.image`.

  The generator draws once; the discriminator learns from the drawing, and then, where it now
  stands, judges the same drawing for the generator. The discriminator minimises half the sum of
  its two sides.

  batch: `{'source', 'target'}`, [B,H,W,C] in [-1, 1].
  adversary: sees source and image side by side: `nn.PatchGAN(inputs=6)`.
  ema: decay of the moving average of the generator, 0 for none. given['generator'],
  given['disc']: where to start from.

  Roles: 'generator', 'disc'. Isola et al. 2017; the order of updates and hinge are CAT's (Jin et
  al. 2021). Raises ValueError for an adversary of another kind.
  """
  generator: linen.Module
  adversary: Adversary
  tx: optax.GradientTransformation
  adv: float = 1.
  recon: float = 100.
  ema: float = 0.
  init_scheme: str = 'normal'
  recon_loss: str = 'l1'

  product = 'generator'
  draws = True
  needs_data = True
  updates = 1

  def __post_init__(self):
    check_adversary(self.adversary)
    choose('recon_loss', self.recon_loss, tuple(image.RECONSTRUCTIONS))

  def init(self, rng, batch, given: Mapping[str, Net] | None = None) -> TrainState:
    return _start_both(self, rng, batch, given)

  def step(self, state: TrainState, batch, axes: Axes = Axes()):
    def wanted(drawn, taps, helpers):
      recon = image.RECONSTRUCTIONS[self.recon_loss](drawn, batch['target'])
      return {'recon': self.recon * recon}

    return judged_step(self, state, batch, axes, self.generator, wanted, batch['source'])

  def generators(self, state: TrainState) -> dict[str, Drawer]:
    return {'generator': Drawer(state.nets['generator'].averaged, self.generator)}


def judged_step(method, state: TrainState, batch, axes: Axes, module: linen.Module, wanted,
                condition, taps=(), helpers=()):
  """A step of a judge, then of the one generator of `method`, its role `method.product`.

  wanted: (drawing, its taps, {helper: params}) -> {term: value} that the generator minimises
  besides `method.adv` times what deceives the judge; the helpers learn with it.
  condition: what the judge sees beside an image, or None. taps: those that `wanted` reads.
  The judge's statistics move with each of its passes: drawing, target, drawing for the generator.
  """
  check_batch(method, batch, 'source', 'target')
  role, source, target, adversary = (method.product, batch['source'], batch['target'],
                                     method.adversary)
  net, disc = state.nets[role], state.nets['disc']
  noise = {'dropout': jax.random.fold_in(state.key('dropout'), axes.index())}

  def draw(params):
    (drawn, all_taps), stats = draw_with_taps(module, {'params': params, **net.stats}, source, axes,
                                              noise)
    return (drawn, {tap: all_taps[tap] for tap in taps}), stats

  outputs, pull_back, stats = jax.vjp(draw, net.params, has_aux=True)
  drawn = fixed(outputs[0])

  def d_loss(params):
    judge = lambda x, stats=disc.stats: adversary.logits(params, stats, x, condition, axes)
    of_fake, moved = judge(drawn)
    of_real, moved = judge(target, moved)
    on_real, on_fake = adversary.sides(of_real['real'], of_fake['real'])
    loss = (on_real + on_fake) / 2 + adversary.slopes(
        lambda x: judge(x)[0]['real'], target, drawn)
    return loss, ({'disc_real': on_real, 'disc_fake': on_fake, 'disc_loss': loss}, moved)

  grads, (d_terms, moved) = jax.grad(d_loss, has_aux=True)(disc.params)
  state, d_norms = core.advance(state, {'disc': grads}, {'disc': adversary.tx}, axes)
  judged = {'params': state.nets['disc'].params, **moved}

  def g_loss(outputs, helpers):
    adv, seen = adversary.deceived(judged, outputs[0], target, condition, axes)
    terms = {'adv': method.adv * adv, **wanted(*outputs, helpers)}
    return sum(terms.values()), ({f'{role}_{name}': value for name, value in terms.items()}, seen)

  (loss, (terms, d_stats)), (slopes, more) = jax.value_and_grad(g_loss, (0, 1), has_aux=True)(
      outputs, {name: state.nets[name].params for name in helpers})
  grads = {role: pull_back(slopes)[0], **more}
  state, g_norms = core.advance(state, grads, dict.fromkeys(grads, method.tx), axes,
                                ema=method.ema)
  for name, new in axes.mean({role: stats, 'disc': d_stats}).items():
    state = state.with_stats(name, new)
  return state.tick(), {**terms, f'{role}_loss': loss, **d_terms, **d_norms, **g_norms}


@dataclasses.dataclass(frozen=True)
class GauGAN:
  """Label maps to images: adv * (what deceives the judge) + match * (features of the judge)
  + feature * (features of a VGG19), generator first.

  Then the discriminator learns from a fresh drawing of the moved generator, so that batch
  statistics and spectral vectors move twice a step. It minimises the sum of its two sides.

  match compares every activation of the discriminator for drawing and target, mean over scales;
  feature weighs relu1_1 .. relu5_1 by 1/32 .. 1, of images in [-1, 1] as they are.

  batch: `{'source': labels as planes, 'target'}`, as `data.labels` has them.
  adversary: `nn.MultiScale(inputs=planes + 3)`. look: of the features, see `OMGD`.
  ema, given: as `Pix2Pix`.

  Roles: 'generator', 'disc', frozen 'features'. Park et al. 2019, SPADE. Raises ValueError for an
  adversary of another kind.
  """
  generator: linen.Module
  adversary: Adversary
  tx: optax.GradientTransformation
  adv: float = 1.
  match: float = 10.
  feature: float = 10.
  look: linen.Module = nn.VGG(19, layers=tuple(VGG19_LAYERS))
  ema: float = 0.
  init_scheme: str = 'xavier'

  product = 'generator'
  draws = True
  needs_data = True
  updates = 1

  def __post_init__(self):
    check_label_adversary(self.adversary)

  def init(self, rng, batch, given: Mapping[str, Net] | None = None) -> TrainState:
    look = {'features': looking_glass(self.look, given)} if self.feature else {}
    return _start_both(self, rng, batch, given, look)

  def step(self, state: TrainState, batch, axes: Axes = Axes()):
    return label_step(self, state, batch, axes, self.generator)

  def generators(self, state: TrainState) -> dict[str, Drawer]:
    return {'generator': Drawer(state.nets['generator'].averaged, self.generator)}


def label_step(method, state: TrainState, batch, axes: Axes, module: linen.Module,
               wanted=lambda taps, helpers: {}, taps=(), helpers=()):
  """A step of the one generator of `method`, its role `method.product`, then of a judge, which sees
  a fresh drawing of the moved generator, as `GauGAN` has it.

  wanted: (taps, {helper: params}) -> {term: value} that the generator minimises besides; the
  helpers learn with it. taps: those that `wanted` reads.
  """
  check_batch(method, batch, 'source', 'target')
  role, source, target, adversary = (method.product, batch['source'], batch['target'],
                                     method.adversary)

  def draw(params, stats):
    (drawn, found), stats = draw_with_taps(module, {'params': params, **stats}, source, axes)
    return drawn, {tap: found[tap] for tap in taps}, stats

  def judge(variables, drawn):
    """Of drawing and target at once, so that spectral vectors move once."""
    (logits, seen), stats = adversary.look(
        variables, jnp.concatenate([drawn, target]), jnp.concatenate([source, source]), axes)
    halves = jax.tree.map(lambda x: jnp.split(x, 2), (logits, seen))
    return *jax.tree.transpose(jax.tree.structure((logits, seen)), None, halves), stats

  def g_loss(params):
    drawn, found, stats = draw(params[role], state.nets[role].stats)
    (logits, seen), (_, real), d_stats = judge(fixed(state.nets['disc'].variables), drawn)
    terms = {'adv': method.adv * _mean(map(adversary.g_loss, logits.values())),
             'match': method.match * sum(
                 image.l1(x, fixed(real[name])) for name, x in seen.items()) / len(logits)}
    if method.feature:
      looks, aims = (method.look.apply(state.frozen['features'], x)
                     for x in (drawn, fixed(target)))
      terms['feature'] = method.feature * sum(
          weight * features.perceptual(looks[name], aims[name])
          for name, weight in VGG19_LAYERS.items() if name in looks)
    terms |= wanted(found, params)
    return sum(terms.values()), (
        {f'{role}_{name}': value for name, value in terms.items()}, stats, d_stats)

  (loss, (terms, stats, d_stats)), grads = jax.value_and_grad(g_loss, has_aux=True)(
      {name: state.nets[name].params for name in (role, *helpers)})
  state, g_norms = core.advance(state, grads, dict.fromkeys(grads, method.tx), axes,
                                ema=method.ema)
  again, _, stats = draw(state.nets[role].params, stats)

  def d_loss(params):
    (fake, _), (real, _), new = judge({'params': params, **d_stats}, fixed(again))
    on = [adversary.sides(real[scale], fake[scale]) for scale in real]
    terms = {'disc_real': _mean(a for a, _ in on), 'disc_fake': _mean(b for _, b in on)}
    loss = sum(terms.values())
    return loss, ({**terms, 'disc_loss': loss}, new)

  grads, (d_terms, d_stats) = jax.grad(d_loss, has_aux=True)(state.nets['disc'].params)
  state, d_norms = core.advance(state, {'disc': grads}, {'disc': adversary.tx}, axes)
  for name, new in axes.mean({role: stats, 'disc': d_stats}).items():
    state = state.with_stats(name, new)
  return state.tick(), {**terms, f'{role}_loss': loss, **d_terms, **g_norms, **d_norms}


def _start_both(method, rng, batch, given, frozen=None):
  """The state of a generator and of a discriminator that sees source and image."""
  check_batch(method, batch, 'source', 'target')
  source, target = batch['source'][:1], batch['target'][:1]
  g_key, d_key, rng = jax.random.split(rng, 3)
  scheme = {'scheme': method.init_scheme, 'given': given}
  return core.create(rng, {
      'generator': (start('generator', method.generator, g_key, source, **scheme), method.tx),
      'disc': (start('disc', method.adversary.disc, d_key, target, source, **scheme),
               method.adversary.tx)}, frozen=frozen, ema=('generator',) if method.ema else ())


def _mean(values):
  values = list(values)
  return sum(values) / len(values)
