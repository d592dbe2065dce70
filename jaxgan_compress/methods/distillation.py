"""What a student minimises to generate its teacher's images: a `DistillLoss` of terms."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Mapping
from typing import Any, cast

import jax
from flax import linen

from jaxgan_compress import nn
from jaxgan_compress.core import Axes, PyTree, in_colour
from jaxgan_compress.methods.tap_terms import DiscriminatorFeatures, Taps, TapTerm
from jaxgan_compress.methods.terms import (
  SSIM,
  Discriminator,
  FeatureMatching,
  Output,
  Perceptual,
  Style,
  TotalVariation,
)

log = logging.getLogger(__name__)

DISC_TERMS = Discriminator, FeatureMatching, DiscriminatorFeatures

PUBLISHED = (SSIM(), Perceptual(), Style(), TotalVariation())


@dataclasses.dataclass(frozen=True, init=False)
class DistillLoss:
  """The sum of some terms: `DistillLoss(SSIM(10.), Pixel(100.), Taps('cka_pixel', 1., ('stem',)))`.

  terms: without any, those of every published run of OMGD, weights included (but for `Taps`, whose
    weight is 10, 50, 100, 500 or 1000 there). In a config terms have names of the user's choice:
    dict(name='DistillLoss', ssim=dict(name='SSIM', weight=10.), ...).
  feature_net: what `Perceptual` and `Style` compare images in, an `nn.VGG` (of images in [0, 1]) or
    an `nn.EfficientNetLite0`, with the weights init_from['features'] or random ones of a fixed
    seed, which is said in the log; say it in what you publish, too.
  border: pixels on each side of an image that no term sees but those of taps, where student and
    teacher saw different surroundings.

  Ren et al. 2021. Raises ValueError for terms of which none has a weight, several of one kind that
  compare taps, a border beside a term that asks a discriminator, and a feature network without a
  layer that a term needs.
  """
  terms: tuple
  feature_net: linen.Module
  border: int

  def __init__(self, *several, terms: tuple = (), feature_net: linen.Module = nn.VGG(16),
               border: int = 0, **named):
    terms = (*several, *terms, *named.values()) or PUBLISHED
    object.__setattr__(self, 'terms', terms)
    object.__setattr__(self, 'feature_net', feature_net)
    object.__setattr__(self, 'border', border)
    if border < 0:
      raise ValueError(f'border={border}; at least 0')
    self._check_terms()
    for term in self._perceptual:
      missing = sorted(set(term.layers or ()) - set(feature_net.layers))
      # `Perceptual` knows layers of two networks, and some of one will do.
      if missing and not (isinstance(term, Perceptual) and len(missing) < len(term.layers or ())):
        raise ValueError(f'{type(term).__name__} compares {", ".join(missing)}, which feature_net '
                         f'leaves out; it has {", ".join(feature_net.layers)}')

  def _check_terms(self):
    for term in self.terms:
      # Terms may be of the user's own classes.
      if isinstance(term, type) or not callable(getattr(term, 'values', None)):
        raise ValueError(f'DistillLoss takes terms, as Pixel(100.), and got {term!r}')
    if not any(term.weight for term in self.terms):
      raise ValueError('DistillLoss has no term of a weight above 0; give one')
    kinds = [type(term).__name__ for term in self.terms if isinstance(term, TapTerm)]
    if twice := [kind for kind in kinds if kinds.count(kind) > 1]:
      raise ValueError(f'DistillLoss has several {twice[0]}; give one, with all names')
    if self.border and self.needs_disc:
      raise ValueError(f'border={self.border}, and a term asks a discriminator, which sees whole '
                       'images only; leave one out')

  @property
  def taps(self) -> Taps | None:
    """The term that compares taps, where there is one."""
    return next((term for term in self.terms if isinstance(term, Taps)), None)

  @property
  def tap_terms(self) -> list[TapTerm]:
    """The terms that compare taps and have a weight, and `taps`, whose cosines are logged."""
    return [term for term in self.terms if isinstance(term, TapTerm)
            and (term.weight or term is self.taps)]

  @property
  def adapted(self) -> bool:
    """Whether adapters learn together with the student."""
    return any(term.adapted for term in self.tap_terms)

  @property
  def needs_disc(self) -> bool:
    """Whether a term asks the discriminator of a teacher."""
    return any(isinstance(term, DISC_TERMS) and term.weight for term in self.terms)

  @property
  def modules(self) -> dict[str, linen.Module]:
    """{'features': the feature network}, where a term needs it."""
    return {'features': self.feature_net} if self._perceptual else {}

  @property
  def _perceptual(self):
    # A class of the user's own need not name layers.
    return [term for term in self.terms
            if term.weight and 'layers' in dir(term) and term.layers != ()]

  def frozen(self, init_from) -> dict:
    """What goes into `TrainState.frozen`."""
    return {role: feature_variables(network, init_from) for role, network in self.modules.items()}

  def init_adapters(self, roles: tuple[str, str], student, teacher, source, key, scheme: str,
                    disc: linen.Module | None = None) -> tuple[dict, dict]:
    """(variables that learn with a student, those that do not) of what its taps pass on their way
    to be compared, `{collection: {term and tap: ...}}`, or {}.

    student, teacher: (module, its variables), of these roles. disc: the teacher's. Raises
    ValueError for taps that do not fit.
    """
    learning: dict = {}
    fixed: dict = {}
    for term in self.tap_terms:
      shapes = term.shapes(roles, student, teacher, source)
      for into, new in ((learning, term.init_adapters(shapes, key, scheme, disc)),
                        (fixed, term.init_projections(shapes, key, disc))):
        for kind, variables in new.items():
          into.setdefault(kind, {}).update(variables)
    return learning, fixed

  def output(self, frozen, generated, taps: Mapping = {}, disc=None, target=None) -> Output:
    """The `Output` of a generated image [B,H,W,C] in [-1, 1], of which features see
    `core.in_colour`. disc, target: of a teacher, its `FixedDiscriminator` and the true image."""
    if self.border:
      inner = slice(self.border, -self.border)
      generated = generated[:, inner, inner]
      target = None if target is None else target[:, inner, inner]
    image, network = in_colour(generated), self.feature_net
    if not isinstance(network, nn.EfficientNetLite0):  # which knows the scale of its pixels
      image = (image + 1) / 2  # without ImageNet's mean, as published
    seen = network.apply(frozen['features'], image) if self._perceptual else {}
    return Output(generated, taps, cast(Mapping[str, Any], seen), disc, target)

  def loss(self, role: str, student: Output, teachers: Mapping[str, Output], adapters=None,
           axes: Axes = Axes(), projections: PyTree = None):
    """(what the student minimises, {term: value}, further logs, new collections of its adapters).

    role: of the student. teachers: by role, the first being the one whose taps are compared;
    nothing learns through them. adapters, projections: variables that `init_adapters` made, where
    it did.
    """
    terms, collections = {}, {}
    for term in self.terms:
      if isinstance(term, TapTerm):
        values, moved = term.values(student, teachers, axes, adapters, projections)
        for kind, new in moved.items():
          collections.setdefault(kind, {}).update(new)
      else:
        values = term.values(student, teachers, axes) if term.weight else {}
      # Several terms of one kind, as two of `FeatureMatching`, share an entry of the log.
      terms |= {key: terms[key] + value if key in terms else value
                for key, value in values.items()}
    cosines = self.taps.cosines(student, next(iter(teachers.values()))) if self.taps else {}
    return sum(terms.values()), terms, {'tap_cosine': {
        f'{role}_{tap}': value for tap, value in cosines.items()}} if cosines else {}, collections


def feature_variables(network: linen.Module, init_from):
  """init_from['features'], the variables of a feature network, else random ones and a warning.

  Raises ValueError for those of another network; one that has further layers will do.
  """
  if init_from and 'features' in init_from:
    variables = init_from['features'].variables
    expected = jax.eval_shape(network.init, jax.random.key(0), network.example())['params']
    for layer, arrays in expected.items():
      shapes = jax.tree.map(lambda x: x.shape, variables['params'].get(layer, {}))
      if shapes != jax.tree.map(lambda x: x.shape, arrays):
        raise ValueError(f"init_from['features'] is no {_title(network)} up to "
                         f'{network.layers[-1]}: its {layer} is {shapes or "missing"}; convert the '
                         'file of that network')
    return variables
  _warn(_title(network))
  return nn.initialise(network, jax.random.key(0), scheme='he')


def _title(network):
  return f'VGG{network.depth}' if isinstance(network, nn.VGG) else type(network).__name__


@functools.cache
def _warn(name):
  log.warning('perceptual terms use a %s of random weights (seed 0), which no one trained; give '
              "ImageNet's as init_from={'features': ...}", name)
