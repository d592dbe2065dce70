"""A discriminator and how it is trained: one value that every adversarial method takes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen

from jaxgan_compress import core
from jaxgan_compress.core import AnyArray, Axes, Logs, PyTree, TrainState, stop_gradient
from jaxgan_compress.losses import gan
from jaxgan_compress.methods.augment import ALWAYS, Adaptive, DiffAugment, View
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
  r1, r2: weights of `losses.gan.slope_penalty` at real and at generated images, before any
    augmentation.
  augment: random operations on whatever it sees, see `DiffAugment`; None: none. adaptive: how often
    they happen, or how often generated images are shown as real ones, see `Adaptive`.

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
  augment: DiffAugment | None = None
  adaptive: Adaptive | None = None

  def __post_init__(self):
    choose('loss', self.loss, LOSSES)
    if self.adaptive and (self.adaptive.kind == 'ada') != bool(self.augment):
      raise ValueError(
          "adaptive of kind 'ada' says how often the operations of augment happen: give one"
          if not self.augment else "adaptive of kind 'apa' takes no augment; leave it out")
    if self.adaptive and (self.family == 'wgan' or self.relativistic):
      raise ValueError(f'loss={self.loss!r} has logits of any size, whose sign tells nothing; '
                       'leave adaptive out, or take ns, hinge or lsgan')
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

  def check_translation(self, heads: Iterable[str] = ('real',)):
    """Raises ValueError for what a discriminator of image-to-image translation does not do, or
    without these heads."""
    if self.family == 'wgan':
      raise ValueError(f'loss={self.loss!r} is for generators that start from noise; here take '
                       'hinge, lsgan, ns, rp or ra')
    if self.disc_steps != 1:
      raise ValueError(f'disc_steps={self.disc_steps}; here the discriminator moves once a step, '
                       'disc_steps=1')
    if missing := sorted(set(heads) - set(vars(self.disc).get('heads', ('real',)))):
      raise ValueError(f'the discriminator, a {type(self.disc).__name__}, has no head for '
                       f'{", ".join(missing)}; give a PatchGAN with heads={tuple(heads)}')

  # What the discriminator sees.

  def view(self, state: TrainState, axes: Axes, role: str = 'disc') -> View:
    """view(name, image, condition=None, fake=None) -> (image, condition) as the discriminator of
    this role sees them in this step, [B,H,W,C] each; an image under another name has its own random
    numbers. fake: generated images, of which `Adaptive` may show some as real ones."""
    p = state.frozen['adaptive'][role]['p'] if self.adaptive else ALWAYS

    def view(name, image, condition=None, fake=None):
      # What 'rp' subtracts is seen alike.
      key = state.key(f'augment_{role}_{"pair" if self.loss == "rp" else name}')
      if self.adaptive and self.adaptive.kind == 'apa' and fake is not None:
        chance = axes.sample(jax.random.uniform, key, (len(image),))
        image = jnp.where((chance < p).reshape(-1, 1, 1, 1), stop_gradient(fake), image)
      return self.augment(key, image, condition, axes, p) if self.augment else (image, condition)

    return view

  def frozen(self, roles=('disc',)) -> dict:
    """What goes into `TrainState.frozen` for discriminators of these roles."""
    return {'adaptive': {role: self.adaptive.init() for role in roles}} if self.adaptive else {}

  def confidence(self, real: Iterable, role: str = 'disc') -> Logs:
    """{'real_sign': {role: mean sign of logits of real images, mean over heads}}, which `adapt`
    asks for; {} where it does not. real: logits of each head."""
    if not self.adaptive:
      return {}
    middle = .5 if self.loss == 'lsgan' else 0.
    signs = [jnp.sign(stop_gradient(logits) - middle).mean() for logits in real]
    return {'real_sign': {role: jnp.mean(jnp.stack(signs))}}

  def gaps(self, fake: Mapping[str, Any]) -> Logs:
    """{'gap': {generator: `losses.gan.gap`, of which `adapt` takes the absolute value}} from
    {generator: logits of its images}; {} for losses that have none."""
    if self.relativistic or self.family == 'wgan':
      return {}
    return {'gap': {role: gan.gap(self.loss, stop_gradient(logits))
                    for role, logits in fake.items()}}

  def adapt(self, state: TrainState, logs: Logs, rows: int, axes: Axes):
    """(state, logs) after a step: `adaptive` has seen `confidence` in `logs`, and `gaps` are of all
    replicas together. rows: real images of this replica."""
    if 'gap' in logs:
      logs = {**logs, 'gap': {role: jnp.abs(axes.mean(x)) for role, x in logs['gap'].items()}}
    if not self.adaptive:
      return state, logs
    before = state.frozen['adaptive']
    after = {role: self.adaptive.update(before[role], axes.mean(logs['real_sign'][role]),
                                        rows * axes.count) for role in before}
    return state.replace(frozen={**state.frozen, 'adaptive': after}), core.merge_logs(
        logs, {'augment_probability': {role: x['p'] for role, x in after.items()}})

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

  def generator_loss(self, variables, image, real, condition, view: View, axes: Axes):
    """(what a generator minimises, the discriminator's new collections): a pass of the image, then
    for a relativistic loss one of the real image; nothing learns through `variables`."""
    collections = {name: x for name, x in variables.items() if name != 'params'}
    params = stop_gradient(variables['params'])
    logits, collections = self.forward(params, collections, *view('generator', image, condition),
                                       axes)
    if not self.relativistic:
      return self.g_loss(logits['real']), collections
    of_real, collections = self.forward(params, collections, *view('of_real', real, condition),
                                        axes)
    return self.g_loss(logits['real'], of_real['real']), collections

  def g_loss(self, logits, real=None):
    """What the generator minimises; `real`, logits of real images, for the relativistic losses."""
    return gan.generator_loss(self.family, logits, real)

  def disc_losses(self, real, fake):
    """(loss on real, loss on generated images) of the discriminator, from logits."""
    return gan.sides(self.family, real, fake)

  def slope_penalties(self, critic: Callable, real, fake):
    """The penalties r1 and r2, 0 without them. critic: ('real' or 'fake', images) -> logits."""
    loss = jnp.zeros(())
    for weight, name, x in ((self.r1, 'real', real), (self.r2, 'fake', fake)):
      if weight:
        loss += weight * gan.slope_penalty(functools.partial(critic, name), x)
    return loss

  def d_loss(self, variables, real, fake, mix, view: View, axes: Axes, role: str = 'generator'):
    """(what the discriminator minimises, with its penalty, (its new collections: of real images,
    then of generated ones, further logs)).

    real: a whole number of times as many as fake [B,H,W,C]; mix: [B] in [0, 1]. role: whose images
    `fake` are.
    """
    params = variables['params']
    collections = {name: x for name, x in variables.items() if name != 'params'}
    critic = lambda x: self.logits(variables, x, axes)
    kinds = len(real) // len(fake)

    def see(name, x):
      # Of several kinds of real images, one after the other, each is seen by itself: rows have the
      # same random numbers on any number of devices.
      more, parts = ({'fake': fake}, jnp.split(x, kinds)) if name == 'real' else ({}, [x])
      return jnp.concatenate([view(f'{name}_{i}' if i else name, part, **more)[0]
                              for i, part in enumerate(parts)])

    shown, seen = see('real', real), see('fake', fake)
    # Every second one of two kinds: as many as fakes.
    shown = shown[::kinds] if self.relativistic else shown
    on_real, collections = self.forward(params, collections, shown, None, axes)
    on_fake, collections = self.forward(params, collections, seen, None, axes)
    losses = self.disc_losses(on_real['real'], on_fake['real'])
    # 'rp' is one term, which `disc_losses` gives twice.
    loss = (losses[0] if self.loss == 'rp' else sum(losses)) + self.slope_penalties(
        lambda name, x: critic(see(name, x)), real, fake)
    if self.loss == 'wgan_gp':
      loss += self.penalty * gan.gradient_penalty(
          critic, shown[::kinds], seen, mix)
    return loss, (collections, core.merge_logs(
        self.confidence([on_real['real']]), self.gaps({role: on_fake['real']})))

  def train(self, state: TrainState, real: Callable, fake: Callable, axes: Axes, bn_axes: Axes,
            role: str = 'generator'):
    """`disc_steps` updates of `state.nets['disc']`; `real(i)`, `fake(i)` are update i's images, the
    latter of the network `role`. Returns the state and its logs."""
    logs: list[Logs] = []
    rows = 0
    for i in range(self.disc_steps):
      reals, fakes = real(i), stop_gradient(fake(i))
      rows = len(reals)
      mix = axes.sample(jax.random.uniform, state.key(f'mix{i}'), (len(fakes),))
      disc = state.nets['disc']

      def view(name, *images, i=i, state=state, **fake):
        return self.view(state, axes)(f'{name}{i}', *images, **fake)

      def loss(params, disc=disc, reals=reals, fakes=fakes, mix=mix, view=view):
        return self.d_loss({'params': params, **disc.collections}, reals, fakes, mix, view,
                           bn_axes, role)

      (value, (collections, more)), grads = jax.value_and_grad(loss, has_aux=True)(disc.params)
      state, norms = core.advance(state, {'disc': grads}, {'disc': self.tx}, axes)
      state = state.with_collections({'disc': collections}, axes)
      if self.loss == 'wgan_clip':
        disc = state.nets['disc']
        clipped = disc.replace(params=gan.clip(disc.params, self.clip))
        state = state.replace(nets={**state.nets, 'disc': clipped})
      logs.append(core.merge_logs({'disc': {'loss': value}}, more, norms))
    # The signs of all updates, and of the rest the last one's.
    return self.adapt(state, core.merge_logs(*logs, *mean_of(logs, 'real_sign')),
                      rows * self.disc_steps, axes)


def mean_of(logs: list[Logs], name: str) -> list[Logs]:
  """[{name: the mean of an entry over several logs}], or [] where they have none."""
  entries = [each[name] for each in logs if name in each]
  return [{name: jax.tree.map(lambda *x: jnp.mean(jnp.stack(x)), *entries)}] if entries else []


@dataclasses.dataclass(frozen=True)
class FixedDiscriminator:
  """The discriminator of a teacher as it stands, which scores another network's images: nothing
  learns through its variables, and its collections stay.

  variables: its own. condition: what it sees next to an image, or None. view: see
  `Adversary.view`. heads: of the teacher; all where it is empty. real: its logits of real images,
  {head: logits}, which relativistic losses need.
  """
  adversary: Adversary
  variables: PyTree
  condition: AnyArray | None
  view: View
  axes: Axes = Axes()
  heads: tuple[str, ...] = ()
  real: Mapping[str, AnyArray] = dataclasses.field(default_factory=dict)

  def generator_loss(self, image, name: str):
    """What a generator of these images [B,H,W,C] minimises, the mean over heads. name: of the view,
    as 'student'."""
    logits, _ = self._apply(*self.view(name, image, self.condition))
    heads = self.heads or tuple(logits)
    return sum(self.adversary.g_loss(logits[head], self.real.get(head)) for head in heads) / len(
        heads)

  def activations(self, image, names, view: str = ''):
    """Its activations of images, `{name: [B,h,w,C]}`. view: images are seen under this name, next
    to their condition; '': they are all that it sees, as they are."""
    _, taps = self._apply(*(self.view(view, image, self.condition) if view else (image, None)))
    return {name: taps[self._tap(name, taps)] for name in names}

  def _tap(self, name, taps):
    """Behind what all heads share a layer has the name of its head."""
    possible = (name, *(f'{name}_{head}' for head in self.heads))
    if not (found := [each for each in possible if each in taps]):
      raise ValueError(f'the discriminator has no tap {name}; it has {", ".join(taps)}')
    return found[0]

  def _apply(self, image, condition):
    return self.adversary.apply(stop_gradient(self.variables), image, condition, self.axes)[0]
