"""Plain adversarial training of a noise-to-image generator: it makes teachers and baselines."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import flax
import jax
import jax.numpy as jnp
import optax
from flax import linen

from jaxgan_compress import core
from jaxgan_compress.core import Axes, Drawer, Net, TrainState, fixed
from jaxgan_compress.losses import gan
from jaxgan_compress.nn import initialise
from jaxgan_compress.nn.init import shapes

LOSSES = ('ns', 'hinge', 'lsgan', 'wgan_gp', 'wgan_clip', *gan.RELATIVISTIC)
BN_SYNC = ('global', 'replica')


@dataclasses.dataclass(frozen=True)
class Adversary:
  """A discriminator and how it is trained.

  loss: 'ns' non-saturating logistic, 'hinge', 'lsgan', 'wgan_gp' (Wasserstein with gradient
    penalty), 'wgan_clip' (Wasserstein with clipped weights; its paper takes RMSProp at 5e-5), 'rp'
    and 'ra' (relativistic, paired and average).
  n_critic: discriminator updates a step, each on its own minibatch.
  penalty, clip: the penalty's weight and the clipping bound of the two Wasserstein forms.
  r1, r2: weights of `losses.gan.slope_penalty` at real images and at drawings.

  Raises ValueError for an unknown loss, or batch norm under a gradient penalty.
  """
  disc: linen.Module
  tx: optax.GradientTransformation
  loss: str = 'ns'
  n_critic: int = 1
  penalty: float = 10.
  clip: float = 0.01
  r1: float = 0.
  r2: float = 0.

  def __post_init__(self):
    choose('loss', self.loss, LOSSES)
    if self.n_critic < 1:
      raise ValueError(f'n_critic={self.n_critic}; at least 1')
    if min(self.r1, self.r2) < 0:
      raise ValueError(f'r1={self.r1}, r2={self.r2}; at least 0')
    penalised = self.loss == 'wgan_gp' or self.r1 or self.r2
    if penalised and getattr(self.disc, 'norm', None) == 'batch':
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

  def judge(self, disc, image, axes: Axes):
    """Logits of `image` under the discriminator variables `disc`."""
    return self.disc.apply(disc, image, train=True, axes=axes)[0]['real']

  def logits(self, params, stats, image, condition, axes: Axes):
    """(`{head: logits}`, new statistics): one pass of a discriminator that moves on, as each does
    in PyTorch. stats: where the pass before left them."""
    (logits, _), stats = self.look({'params': params, **stats}, image, condition, axes)
    return logits, dict(stats)

  def look(self, disc, image, condition, axes: Axes):
    """((`{head: logits}`, taps), new statistics) of images beside what they were drawn from, or
    None."""
    inputs = (image,) if condition is None else (image, condition)
    return self.disc.apply(disc, *inputs, train=True, axes=axes,
                           mutable=[name for name in disc if name != 'params'])

  def deceived(self, disc, image, real, condition, axes: Axes):
    """(what a generator minimises, the discriminator's new statistics): it judges the image, then
    for a relativistic loss the real one; nothing learns through `disc`."""
    params, stats = fixed(disc['params']), {name: disc[name] for name in disc if name != 'params'}
    logits, stats = self.logits(params, stats, image, condition, axes)
    if not self.relativistic:
      return self.g_loss(logits['real']), stats
    of_real, stats = self.logits(params, stats, real, condition, axes)
    return self.g_loss(logits['real'], of_real['real']), stats

  def g_loss(self, logits, real=None):
    """What the generator minimises; `real`, logits of real images, for the relativistic losses."""
    return gan.generator_loss(self.family, logits, real)

  def sides(self, real, fake):
    """What the discriminator minimises of real images' logits and of drawings'."""
    return gan.sides(self.family, real, fake)

  def slopes(self, critic: Callable, real, fake):
    """The penalties r1 and r2, 0 without them. critic: images -> logits."""
    loss = jnp.zeros(())
    for weight, x in ((self.r1, real), (self.r2, fake)):
      if weight:
        loss += weight * gan.slope_penalty(critic, x)
    return loss

  def d_loss(self, disc, real, fake, mix, axes: Axes):
    """(what the discriminator minimises, with its penalty, its new statistics: of real images, then
    of drawings).

    real: a whole number of times as many as fake [B,H,W,C]; mix: [B] in [0, 1].
    """
    params, stats = disc['params'], {name: disc[name] for name in disc if name != 'params'}
    critic = lambda x: self.judge(disc, x, axes)
    # Of two kinds of real images, one after the other, every second one: as many as fakes.
    fewer = real[::len(real) // len(fake)]
    shown = fewer if self.relativistic else real
    on_real, stats = self.logits(params, stats, shown, None, axes)
    on_fake, stats = self.logits(params, stats, fake, None, axes)
    sides = self.sides(on_real['real'], on_fake['real'])
    # 'rp' is one term, which `sides` gives twice.
    loss = (sides[0] if self.loss == 'rp' else sum(sides)) + self.slopes(critic, real, fake)
    if self.loss == 'wgan_gp':
      loss += self.penalty * gan.gradient_penalty(critic, fewer, fake, mix)
    return loss, stats

  def train(self, state: TrainState, real: Callable, fake: Callable, axes: Axes, bn_axes: Axes):
    """`n_critic` updates of `state.nets['disc']`; `real(i)`, `fake(i)` are update i's images."""
    for i in range(self.n_critic):
      reals, fakes = real(i), fixed(fake(i))
      mix = axes.draw(jax.random.uniform, state.key(f'mix{i}'), (len(fakes),))
      disc = state.nets['disc']

      def loss(params, disc=disc, reals=reals, fakes=fakes, mix=mix):
        return self.d_loss({'params': params, **disc.stats}, reals, fakes, mix, bn_axes)

      (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(disc.params)
      state, norms = core.advance(state, {'disc': grads}, {'disc': self.tx}, axes)
      state = state.with_stats('disc', axes.mean(stats))
      if self.loss == 'wgan_clip':
        disc = state.nets['disc']
        clipped = disc.replace(params=gan.clip(disc.params, self.clip))
        state = state.replace(nets={**state.nets, 'disc': clipped})
    return state, {'disc': value, **norms}


@dataclasses.dataclass(frozen=True)
class GAN:
  """A generator learns to draw real images by deceiving a discriminator: discriminator first,
  then the generator on fresh noise.

  batch: `{'target': [B,H,W,C]}`. With n_critic > 1 the B rows are dealt to the critic updates and
  the generator's batch is B / n_critic.
  ema: decay of the moving average of the generator, 0 for none; with one, `generators` draws
  with the average. bn_sync: batch statistics over all replicas ('global') or each its own.

  Roles: 'generator', 'disc'. Goodfellow et al. 2014; Radford et al. 2016.
  """
  generator: linen.Module
  adversary: Adversary
  tx: optax.GradientTransformation
  ema: float = 0.
  init_scheme: str = 'dcgan'
  bn_sync: str = 'global'

  product = 'generator'
  draws = True
  needs_data = True

  def __post_init__(self):
    choose('bn_sync', self.bn_sync, BN_SYNC)

  @property
  def updates(self) -> int:
    return self.adversary.n_critic

  def init(self, rng, batch, given: Mapping[str, Net] | None = None) -> TrainState:
    check_batch(self, batch, 'target')
    g_key, d_key, rng = jax.random.split(rng, 3)
    generator = start('generator', self.generator, g_key, self.generator.example(),
                      scheme=self.init_scheme, given=given)
    disc = start('disc', self.adversary.disc, d_key, batch['target'][:1],
                 scheme=self.init_scheme, given=given)
    return core.create(
        rng, {'generator': (generator, self.tx), 'disc': (disc, self.adversary.tx)},
        ema=('generator',) if self.ema else ())

  def step(self, state: TrainState, batch, axes: Axes = Axes()):
    check_batch(self, batch, 'target')
    size = core.rows(batch) // self.updates
    bn_axes = axes if self.bn_sync == 'global' else Axes()

    def draw(params, name):
      z = axes.draw(jax.random.normal, state.key(name), (size, self.generator.latent))
      variables = {'params': params, **state.nets['generator'].stats}
      return draw_training(self.generator, variables, z, bn_axes)

    params = state.nets['generator'].params
    state, logs = self.adversary.train(
        state, lambda i: batch['target'][i::self.updates],
        lambda i: draw(params, f'z_disc{i}')[0], axes, bn_axes)

    def loss(params):
      image, stats = draw(params, 'z')
      adv, moved = self.adversary.deceived(state.nets['disc'].variables, image,
                                           batch['target'][:size], None, bn_axes)
      return adv, {'generator': stats, 'disc': moved}

    (adv, stats), grads = jax.value_and_grad(loss, has_aux=True)(params)
    state, norms = core.advance(state, {'generator': grads}, {'generator': self.tx}, axes,
                                ema=self.ema)
    for name, new in axes.mean(stats).items():
      state = state.with_stats(name, new)
    return state.tick(), {'adv': adv, **logs, **norms}

  def generators(self, state: TrainState) -> dict[str, Drawer]:
    return {'generator': Drawer(state.nets['generator'].averaged, self.generator)}


def choose(field: str, value: str, possible: tuple[str, ...]):
  """Raises ValueError unless the value is one of the possible."""
  if value not in possible:
    raise ValueError(f'{field}={value!r}; one of {", ".join(possible)}')


def check_batch(method, batch: Mapping, *wanted: str):
  """Raises ValueError for a batch without what the method learns from."""
  if missing := [name for name in wanted if name not in batch]:
    listed = lambda names: ', '.join(map(repr, names)) or 'nothing'
    raise ValueError(
        f'{type(method).__name__} learns from {listed(wanted)}, and the batch has '
        f'{listed(sorted(batch))}: {listed(missing)} is missing. Give data that has it, or take a '
        'method that learns without')


def start(role: str, module: linen.Module, key, *inputs, scheme: str, given):
  """The given network's variables if there is one of this role, else fresh ones.

  Raises ValueError for those of another network.
  """
  if not given or role not in given:
    return initialise(module, key, *inputs, scheme=scheme)
  return checked(role, given, shapes(module, *inputs), type(module).__name__)


def checked(role: str, given: Mapping[str, Net], fresh: Mapping, kind: str):
  """The given variables of this role, of the shapes of `fresh`. Raises ValueError for others."""
  named = lambda params: {'/'.join(path): leaf.shape for path, leaf in
                          flax.traverse_util.flatten_dict(params).items()}
  wanted, there = named(fresh['params']), named(given[role].params)
  for name in sorted(wanted.keys() | there.keys()):
    if wanted.get(name) != there.get(name):
      raise ValueError(f'given[{role!r}] is of another network than this {kind}: '
                       f'its {name} is {there.get(name, "missing")} and would be '
                       f'{wanted.get(name, "missing")} here')
  return given[role].variables


def draw_training(module: linen.Module, variables, z, bn_axes: Axes):
  """Image and new statistics of a generator in training mode."""
  (image, _), stats = draw_with_taps(module, variables, z, bn_axes)
  return image, stats


def draw_with_taps(module: linen.Module, variables, x, bn_axes: Axes, rngs=None):
  """((image, taps), new statistics) of a generator in training mode."""
  drawn, stats = module.apply(variables, x, train=True, axes=bn_axes, rngs=rngs,
                              mutable=[name for name in variables if name != 'params'])
  return drawn, dict(stats)
