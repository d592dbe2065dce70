"""What a student of images minimises: the same terms whether its teachers still learn or not."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Mapping

import jax
from flax import linen

from jaxgan_compress import nn
from jaxgan_compress.core import Axes, fixed
from jaxgan_compress.losses import features, image, similarity
from jaxgan_compress.methods.gan import choose

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Lessons:
  """ssim (1 - SSIM) + feature |VGG relu2_2| + style |Gram| + pixel |difference| for each teacher's
  drawing, tv * total variation of the student's own, and tap * (distance of taps from the first
  teacher's).

  The defaults are those of every published run of OMGD but for tap: 0, 10, 50, 100, 500 or 1000.
  pixel: 0 in all of them; without ImageNet's features nothing else says which colour is meant.
  look: the features of the perceptual terms, given['features'] or drawn from a seed that no one
    trained, which is said in the log; say it in what you publish, too.
  taps: names that student and teacher both have, see their classes. distance: 'channel_means', the
    published one, which is nearly blind after an instance norm; 'attention', 'cka' or
    'normalised', which are not. See `losses.similarity`.
  tap_reduction: 'sum' over taps, as published code, or 'mean', as the paper's text.
  tv_reduction: 'sum' over the whole batch and once for each teacher, as published, so that the
    weight depends on the batch; or 'image', mean over the batch and once.

  ssim_window: pixels along a side of the windows of SSIM, odd.

  Ren et al. 2021. Raises ValueError for contradictory fields.
  """
  ssim: float = 10.
  feature: float = 10.
  style: float = 1e4
  tv: float = 1e-5
  tap: float = 0.
  pixel: float = 0.
  taps: tuple[str, ...] = ()
  distance: str = 'channel_means'
  tap_reduction: str = 'sum'
  tv_reduction: str = 'sum'
  look: linen.Module = nn.VGG(16)
  ssim_window: int = 11

  def __post_init__(self):
    choose('distance', self.distance, tuple(similarity.DISTANCES))
    choose('tap_reduction', self.tap_reduction, ('sum', 'mean'))
    choose('tv_reduction', self.tv_reduction, ('sum', 'image'))
    image.check_window(self.ssim_window)
    weights = {name: getattr(self, name)
               for name in ('ssim', 'feature', 'style', 'tv', 'tap', 'pixel')}
    if min(weights.values()) < 0 or not sum(weights.values()):
      raise ValueError(f'{weights}; weights are at least 0 and not all 0')
    if self.tap and not self.taps:
      raise ValueError(f"tap={self.tap} compares taps with the teacher's; name them, or tap=0")
    if self.feature and 'relu2_2' not in self.look.layers:
      raise ValueError(f'feature={self.feature} compares relu2_2, which look leaves out; it has '
                       f'{", ".join(self.look.layers)}')

  @property
  def perceptual(self) -> bool:
    return bool(self.feature or self.style)

  @property
  def adapted(self) -> bool:
    """Whether adapters learn beside the student."""
    return bool(self.tap) and self.distance in similarity.ADAPTED

  def frozen(self, given) -> dict:
    """What goes into `TrainState.frozen`."""
    return {'features': looking_glass(self.look, given)} if self.perceptual else {}

  def see(self, frozen, x):
    """The features of images [B,H,W,3] in [-1, 1]."""
    # Without ImageNet's mean, as published.
    return self.look.apply(frozen['features'], (x + 1) / 2) if self.perceptual else {}

  def tap_shapes(self, roles: tuple[str, str], pupil, teacher, source):
    """`{tap: (shape of the pupil's, of the teacher's)}` for images like `source`.

    pupil, teacher: (module, its variables). Raises ValueError for a tap that one does not have, or
    two of different sizes where the distance compares positions.
    """
    both = shapes_of_taps(self.taps, roles, pupil, teacher, source)
    for tap, (ours, theirs) in both.items():
      if self.tap and self.distance != 'channel_means' and ours[1:3] != theirs[1:3]:
        raise ValueError(f'{tap} has {ours[1]}x{ours[2]} pixels in {roles[0]} and '
                         f'{theirs[1]}x{theirs[2]} in {roles[1]}; {self.distance} compares '
                         "positions: take other taps, or distance='channel_means'")
    return both

  def start_adapters(self, shapes: Mapping, key, scheme: str):
    """Variables of the adapters for `tap_shapes`, `{collection: {tap: ...}}`."""
    found = {}
    for i, tap in enumerate(self.taps):
      fresh = nn.initialise(self._adapter(*(shape[-1] for shape in shapes[tap])),
                            jax.random.fold_in(key, i), scheme=scheme)
      for kind, variables in fresh.items():
        found.setdefault(kind, {})[tap] = variables
    return found

  def loss(self, frozen, adapters, drawn, lessons: Mapping, taught: Mapping, axes: Axes = Axes()):
    """(what the student minimises, {term: value}, {tap: similarity}, new adapter statistics).

    drawn: the student's (image, taps). lessons: {teacher: (image, its features)}, nothing learns
    through them. taught: the taps of the first teacher. adapters: their variables, or None.
    """
    picture, taps = drawn
    seen = self.see(frozen, picture)
    terms = {}
    for name, (lesson, wanted) in lessons.items():
      terms[f'ssim_{name}'] = self.ssim * (
          1 - image.ssim(picture, lesson, window=self.ssim_window).mean())
      if self.pixel:
        terms[f'pixel_{name}'] = self.pixel * image.l1(picture, lesson)
      if self.feature:
        terms[f'feature_{name}'] = self.feature * features.perceptual(seen['relu2_2'],
                                                                      wanted['relu2_2'])
      if self.style:
        terms[f'style_{name}'] = self.style * features.style(seen, wanted)
    # The mean over replicas makes a sum over the batch one again.
    share, times = (axes.count, len(lessons)) if self.tv_reduction == 'sum' else \
        (1 / len(picture), 1)
    terms['tv'] = self.tv * times * share * image.total_variation(picture)
    similar = {tap: similarity.similarity(fixed(taps[tap]), fixed(taught[tap])) for tap in self.taps
               if taps[tap].shape[1:3] == taught[tap].shape[1:3]}
    moved = {}
    if self.tap:
      distances = []
      for tap in self.taps:
        mapped, new = self._adapted(adapters, tap, taps[tap], taught[tap].shape[-1], axes)
        distances.append(similarity.DISTANCES[self.distance](mapped, fixed(taught[tap])))
        for kind, variables in new.items():
          moved.setdefault(kind, {})[tap] = variables
      times = 1 if self.tap_reduction == 'sum' else 1 / len(distances)
      terms['tap'] = self.tap * times * sum(distances)
    return sum(terms.values()), terms, similar, moved

  def _adapted(self, adapters, tap, x, features, axes):
    if not self.adapted:
      return x, {}
    variables = {kind: each[tap] for kind, each in adapters.items()}
    return self._adapter(x.shape[-1], features, dtype=x.dtype).apply(
        variables, x, axes, mutable=[kind for kind in variables if kind != 'params'])

  def _adapter(self, inputs, features, **fields):
    return nn.Adapter(inputs, features, norm=similarity.ADAPTED[self.distance], **fields)


def shapes_of_taps(taps, roles: tuple[str, str], pupil, teacher, source):
  """`{tap: (shape in the pupil, in the teacher)}`, each given as (module, its variables).

  Raises ValueError for a tap that one of them does not have.
  """
  shapes = []
  for role, (module, variables) in zip(roles, (pupil, teacher), strict=True):
    found = jax.eval_shape(module.apply, variables, source)[1]
    if missing := sorted(set(taps) - found.keys()):
      raise ValueError(f'{role} has no tap {", ".join(missing)}; it has {", ".join(found)}')
    shapes.append(found)
  return {tap: tuple(found[tap].shape for found in shapes) for tap in taps}


def looking_glass(look: linen.Module, given):
  """given['features'], the variables of a feature network, else random ones and a warning.

  Raises ValueError for those of another network; one that goes further up will do.
  """
  if given and 'features' in given:
    found = given['features'].variables
    wanted = jax.eval_shape(look.init, jax.random.key(0), look.example())['params']
    for layer, arrays in wanted.items():
      there = jax.tree.map(lambda x: x.shape, found['params'].get(layer, {}))
      if there != jax.tree.map(lambda x: x.shape, arrays):
        raise ValueError(f"given['features'] is no VGG{look.depth} up to {look.layers[-1]}: its "
                         f'{layer} is {there or "missing"}; convert the file of that network')
    return found
  _warn(f'VGG{look.depth}')
  return nn.initialise(look, jax.random.key(0), scheme='he')


@functools.cache
def _warn(name):
  log.warning('perceptual terms look through a %s of random weights (seed 0), which no one '
              "trained; give ImageNet's as given={'features': ...}", name)
