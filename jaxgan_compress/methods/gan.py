"""Plain adversarial training of a noise-to-image generator: it makes teachers and baselines."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import jax
import optax
from flax import linen

from jaxgan_compress import core
from jaxgan_compress.axes import Axes
from jaxgan_compress.core import Drawer, Net, TrainState, fixed
from jaxgan_compress.losses import gan
from jaxgan_compress.nn import initialise

LOSSES = ('ns', 'hinge', 'lsgan', 'wgan_gp', 'wgan_clip')
BN_SYNC = ('global', 'replica')


@dataclasses.dataclass(frozen=True)
class Adversary:
  """A discriminator and how it is trained.

  loss: 'ns' non-saturating logistic, 'hinge', 'lsgan', 'wgan_gp' (Wasserstein with gradient
    penalty), 'wgan_clip' (Wasserstein with clipped weights; its paper takes RMSProp at 5e-5).
  n_critic: discriminator updates a step, each on its own minibatch.
  penalty, clip: the penalty's weight and the clipping bound of the two Wasserstein forms.

  Raises ValueError for an unknown loss, or batch norm under a gradient penalty.
  """
  disc: linen.Module
  tx: optax.GradientTransformation
  loss: str = 'ns'
  n_critic: int = 1
  penalty: float = 10.
  clip: float = 0.01

  def __post_init__(self):
    choose('loss', self.loss, LOSSES)
    if self.n_critic < 1:
      raise ValueError(f'n_critic={self.n_critic}; at least 1')
    if self.loss == 'wgan_gp' and getattr(self.disc, 'norm', None) == 'batch':
      raise ValueError('a gradient penalty is defined per sample and batch norm couples samples; '
                       "give the discriminator norm='layer' or norm='none'")

  def judge(self, disc, image, axes: Axes):
    """Logits of `image` under the discriminator variables `disc`."""
    return self.disc.apply(disc, image, train=True, axes=axes)[0]['real']

  def g_loss(self, logits):
    """What the generator minimises."""
    return getattr(gan, self.loss.split('_')[0] + '_g')(logits)

  def d_loss(self, disc, real, fake, mix, axes: Axes):
    """What the discriminator minimises, with its penalty.

    real: a whole number of times as many as fake [B,H,W,C]; mix: [B] in [0, 1].
    """
    d_loss = getattr(gan, self.loss.split('_')[0] + '_d')
    loss = d_loss(self.judge(disc, real, axes), self.judge(disc, fake, axes))
    if self.loss == 'wgan_gp':
      # Of two kinds of real images, one after the other, every second one: as many as fakes.
      real = real[::len(real) // len(fake)]
      loss += self.penalty * gan.gradient_penalty(
          lambda x: self.judge(disc, x, axes), real, fake, mix)
    return loss

  def train(self, state: TrainState, real: Callable, fake: Callable, axes: Axes, bn_axes: Axes):
    """`n_critic` updates of `state.nets['disc']`; `real(i)`, `fake(i)` are update i's images."""
    for i in range(self.n_critic):
      reals, fakes = real(i), fixed(fake(i))
      mix = axes.draw(jax.random.uniform, state.key(f'mix{i}'), (len(fakes),))

      def loss(params, reals=reals, fakes=fakes, mix=mix):
        return self.d_loss({'params': params}, reals, fakes, mix, bn_axes)

      value, grads = jax.value_and_grad(loss)(state.nets['disc'].params)
      state, norms = core.advance(state, {'disc': grads}, {'disc': self.tx}, axes)
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
    g_key, d_key, rng = jax.random.split(rng, 3)
    generator = start('generator', self.generator, g_key, self.generator.example(),
                      scheme=self.init_scheme, given=given)
    disc = start('disc', self.adversary.disc, d_key, batch['target'][:1],
                 scheme=self.init_scheme, given=given)
    return core.create(
        rng, {'generator': (generator, self.tx), 'disc': (disc, self.adversary.tx)},
        ema=('generator',) if self.ema else ())

  def step(self, state: TrainState, batch, axes: Axes = Axes()):
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
      logits = self.adversary.judge(fixed(state.nets['disc'].variables), image, bn_axes)
      return self.adversary.g_loss(logits), stats

    (adv, stats), grads = jax.value_and_grad(loss, has_aux=True)(params)
    state, norms = core.advance(state, {'generator': grads}, {'generator': self.tx}, axes,
                                ema=self.ema)
    state = state.with_stats('generator', axes.mean(stats))
    return state.tick(), {'adv': adv, **logs, **norms}

  def generators(self, state: TrainState) -> dict[str, Drawer]:
    return {'generator': Drawer(state.nets['generator'].averaged, self.generator)}


def choose(field: str, value: str, possible: tuple[str, ...]):
  """Raises ValueError unless the value is one of the possible."""
  if value not in possible:
    raise ValueError(f'{field}={value!r}; one of {", ".join(possible)}')


def start(role: str, module: linen.Module, key, *inputs, scheme: str, given):
  """The given network's variables if there is one of this role, else fresh ones."""
  if given and role in given:
    return given[role].variables
  return initialise(module, key, *inputs, scheme=scheme)


def draw_training(module: linen.Module, variables, z, bn_axes: Axes):
  """Image and new statistics of a generator in training mode."""
  (image, _), stats = draw_with_taps(module, variables, z, bn_axes)
  return image, stats


def draw_with_taps(module: linen.Module, variables, x, bn_axes: Axes):
  """((image, taps), new statistics) of a generator in training mode."""
  drawn, stats = module.apply(variables, x, train=True, axes=bn_axes,
                              mutable=[name for name in variables if name != 'params'])
  return drawn, dict(stats)
