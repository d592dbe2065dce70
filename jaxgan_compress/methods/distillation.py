"""What a student minimises to generate its teacher's images: a `DistillLoss` of terms.

A term is a frozen value with `label`, `weight` and `values(student, teachers, axes)`; to add one,
write such a class here and export it from `methods`.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Mapping
from typing import Any, cast

import jax
from flax import linen

from jaxgan_compress import nn
from jaxgan_compress.core import Axes, PyTree, in_colour, stop_gradient
from jaxgan_compress.losses import features, image
from jaxgan_compress.losses.similarity import SIMILARITIES, attention_cosine
from jaxgan_compress.methods.setup import choose

log = logging.getLogger(__name__)

SCOPES = ('global', 'replica', 'replica_sum')

# Of an `nn.EfficientNetLite0`: with these shares each map adds a fifth to a sum of about 1 for two
# photographs that have nothing in common (mean |difference| of 64 to 224 pixels: 6.4, 8.8, 8.1,
# 7.1, 3.0).
LITE0_SHARES = {'stride2': .03, 'stride4': .023, 'stride8': .025, 'stride16': .028,
                'stride32': .065}


@dataclasses.dataclass(frozen=True)
class Output:
  """What a generator gives, as terms see it.

  image: [B,H,W,C] in [-1, 1]. taps: {name: activations [B,h,w,C]}. features: {layer: [B,h,w,C]} of
  the image in the feature network, {} where no term asks for them.
  """
  image: Any
  taps: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  features: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class _ImageTerm:
  """A term that compares the student's image with that of every teacher."""
  weight: float
  label = ''
  # Of the feature network that the term needs; None: all it has.
  layers: tuple[str, ...] | None = ()

  def __post_init__(self):
    if self.weight < 0:
      raise ValueError(f'{type(self).__name__} has weight={self.weight}; at least 0')

  def values(self, student: Output, teachers: Mapping[str, Output], axes: Axes) -> dict:
    """{term: weighted scalar}, one for each teacher."""
    return {f'{self.label}_{role}': self.weight * self.distance(student, teacher)
            for role, teacher in teachers.items()}

  def distance(self, student: Output, teacher: Output) -> jax.Array:
    """How far the student's image is from the teacher's, a scalar."""
    raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Pixel(_ImageTerm):
  """weight * mean |student - teacher|. The only term that says which colour is meant where no
  feature network has learned from real images.

  sharpen, radius: the teacher's image is sharpened first, see `losses.image.unsharp`: what is least
  far from many sharp images is a blur, and this gives back the contrast of what is sure.
  """
  weight: float
  sharpen: float = 0.
  radius: float = .8
  label = 'pixel'

  def __post_init__(self):
    super().__post_init__()
    if self.sharpen < 0 or self.radius <= 0:
      raise ValueError(f'Pixel has sharpen={self.sharpen}, radius={self.radius}; at least 0, and '
                       'above 0')

  def distance(self, student: Output, teacher: Output):
    target = teacher.image
    if self.sharpen:
      target = image.unsharp(target, self.sharpen, self.radius)
    return image.l1(student.image, target)


@dataclasses.dataclass(frozen=True)
class SSIM(_ImageTerm):
  """weight * (1 - SSIM), in windows of `window` x `window` pixels, odd. Ren et al. 2021."""
  weight: float = 10.
  window: int = 11
  label = 'ssim'

  def __post_init__(self):
    super().__post_init__()
    image.check_window(self.window)

  def distance(self, student: Output, teacher: Output):
    return 1 - image.ssim(student.image, teacher.image, window=self.window).mean()


@dataclasses.dataclass(frozen=True)
class Perceptual(_ImageTerm):
  """weight * mean |difference| of relu2_2 of the feature network, a VGG. Johnson et al. 2016.

  Of an `nn.EfficientNetLite0` it is the sum over those of its layers that `LITE0_SHARES` has, each
  times its share.
  """
  weight: float = 10.
  label = 'feature'
  layers = ('relu2_2', *LITE0_SHARES)

  def distance(self, student: Output, teacher: Output):
    return features.weighted(student.features, teacher.features, {'relu2_2': 1., **LITE0_SHARES})


@dataclasses.dataclass(frozen=True)
class Style(_ImageTerm):
  """weight * sum over layers of the feature network of mean |difference| of Gram matrices.
  Johnson et al. 2016."""
  weight: float = 1e4
  label = 'style'
  layers = None

  def distance(self, student: Output, teacher: Output):
    return features.style(student.features, teacher.features)


@dataclasses.dataclass(frozen=True)
class Spectrum(_ImageTerm):
  """weight * the difference of local spectra, see `losses.image.local_spectrum`: sharp students of
  sharp teachers. Beside `Grid`, without which upscalers meet it by a grid."""
  weight: float = 1.
  window: int = 8
  label = 'spectrum'

  def distance(self, student: Output, teacher: Output):
    return image.local_spectrum(in_colour(student.image), in_colour(teacher.image), self.window)


@dataclasses.dataclass(frozen=True)
class Grid(_ImageTerm):
  """weight * the difference of what repeats every `period` pixels, see
  `losses.image.grid_difference`."""
  weight: float = 1.
  period: int = 4
  window: int = 8
  label = 'grid'

  def distance(self, student: Output, teacher: Output):
    return image.grid_difference(student.image, teacher.image, self.period, self.window)


@dataclasses.dataclass(frozen=True)
class TotalVariation(_ImageTerm):
  """weight * total variation of the student's own image.

  reduction: 'sum' over the whole batch and once for each teacher, as OMGD's code has it, so that
  the weight depends on the batch; or 'image', mean over the batch and once.
  """
  weight: float = 1e-5
  reduction: str = 'sum'
  label = 'tv'

  def __post_init__(self):
    super().__post_init__()
    choose('reduction', self.reduction, ('sum', 'image'))

  def values(self, student: Output, teachers: Mapping[str, Output], axes: Axes) -> dict:
    # The mean over replicas makes a sum over the batch one again.
    share, times = (axes.count, len(teachers)) if self.reduction == 'sum' else \
        (1 / len(student.image), 1)
    return {'tv': self.weight * times * share * image.total_variation(student.image)}


@dataclasses.dataclass(frozen=True)
class Taps:
  """weight * what `losses.similarity.SIMILARITIES[similarity]` says of each tap, activations inside
  the student and inside its first teacher.

  names: taps that both have, see their classes. similarity: 'channel_means' is OMGD's published
  one, which is nearly blind after an instance norm; 'ka' is CAT's.
  reduction: 'sum' over taps, as published code, or 'mean', as OMGD's text.
  scope: whose samples are compared, where a sample's loss depends on others. 'replica': each
    replica's own, mean over replicas; 'global': those of all replicas, whatever their number;
    'replica_sum': the sum over replicas, as CAT's code has it, so that the weight grows with the
    number of devices.

  Raises ValueError for an unknown similarity, or a weight and no names.
  """
  similarity: str
  weight: float
  names: tuple[str, ...] = ()
  reduction: str = 'sum'
  scope: str = 'replica'
  label = 'tap'
  layers = ()

  def __post_init__(self):
    choose('similarity', self.similarity, tuple(SIMILARITIES))
    choose('reduction', self.reduction, ('sum', 'mean'))
    choose('scope', self.scope, SCOPES)
    if self.weight < 0:
      raise ValueError(f'Taps has weight={self.weight}; at least 0')
    if self.weight and not self.names:
      raise ValueError(f'Taps with weight={self.weight} compares taps of student and teacher; name '
                       'them, or weight=0')

  @property
  def adapted(self) -> bool:
    """Whether adapters learn together with the student."""
    return bool(self.weight and SIMILARITIES[self.similarity].adapter)

  def shapes(self, roles: tuple[str, str], student, teacher, source) -> dict[str, tuple]:
    """`{tap: (shape in the student, in the teacher)}` for inputs like `source`.

    student, teacher: (module, its variables). Raises ValueError for a tap that one does not have,
    or two of different sizes where the similarity compares positions.
    """
    both = []
    for role, (module, variables) in zip(roles, (student, teacher), strict=True):
      taps = jax.eval_shape(module.apply, variables, source)[1]
      if missing := sorted(set(self.names) - taps.keys()):
        raise ValueError(f'{role} has no tap {", ".join(missing)}; it has {", ".join(taps)}')
      both.append(taps)
    shapes = {tap: tuple(taps[tap].shape for taps in both) for tap in self.names}
    for tap, (ours, theirs) in shapes.items():
      if self.weight and SIMILARITIES[self.similarity].positions and ours[1:3] != theirs[1:3]:
        raise ValueError(f'{tap} has {ours[1]}x{ours[2]} pixels in {roles[0]} and '
                         f'{theirs[1]}x{theirs[2]} in {roles[1]}; {self.similarity} compares '
                         "positions: take other taps, or similarity='channel_means'")
    return shapes

  def init_adapters(self, shapes: Mapping[str, tuple], key, scheme: str) -> dict:
    """Variables of the adapters of these `shapes`, `{collection: {tap: ...}}`."""
    adapters: dict = {}
    for i, (tap, (ours, theirs)) in enumerate(shapes.items()):
      fresh = nn.initialise(self._adapter(ours[-1], theirs[-1]), jax.random.fold_in(key, i),
                            scheme=scheme)
      for kind, variables in fresh.items():
        adapters.setdefault(kind, {})[tap] = variables
    return adapters

  def values(self, student: Output, teachers: Mapping[str, Output], axes: Axes,
             adapters: PyTree = None):
    """({term: weighted scalar of a tap}, new collections of the adapters).

    adapters: their variables, where there are any.
    """
    spec, teacher = SIMILARITIES[self.similarity], next(iter(teachers.values()))
    times = self.weight / (1 if self.reduction == 'sum' else len(self.names))
    if spec.couples and self.scope == 'replica_sum':
      times *= axes.count
    terms, collections = {}, {}
    for tap in self.names if self.weight else ():
      x, y = student.taps[tap], stop_gradient(teacher.taps[tap])
      if self.adapted:
        variables = {kind: by_tap[tap] for kind, by_tap in adapters.items()}
        x, moved = self._adapter(x.shape[-1], y.shape[-1], dtype=x.dtype).apply(
            variables, x, axes, mutable=[kind for kind in variables if kind != 'params'])
        for kind, new in moved.items():
          collections.setdefault(kind, {})[tap] = new
      if spec.couples and self.scope == 'global':
        x, y = axes.gather(x), axes.gather(y)
      terms[f'{self.label}_{tap}'] = times * spec.loss(x, y)
    return terms, collections

  def cosines(self, student: Output, teacher: Output) -> dict:
    """{tap: cosine of attention maps in [0, 1]}, where both have one size; to be logged only."""
    pairs = {tap: (stop_gradient(student.taps[tap]), stop_gradient(teacher.taps[tap]))
             for tap in self.names}
    return {tap: attention_cosine(x, y) for tap, (x, y) in pairs.items()
            if x.shape[1:3] == y.shape[1:3]}

  def _adapter(self, inputs, outputs, **fields):
    return nn.Adapter(inputs, outputs, norm=SIMILARITIES[self.similarity].adapter == 'norm_relu',
                      **fields)


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
  border: pixels on each side of an image that no term but `Taps` sees, where student and teacher
    saw different surroundings.

  Ren et al. 2021. Raises ValueError for terms of which none has a weight, several `Taps`, and a
  feature network without a layer that a term needs.
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
    for term in terms:
      # Terms may be of the user's own classes.
      if isinstance(term, type) or not callable(getattr(term, 'values', None)):
        raise ValueError(f'DistillLoss takes terms, as Pixel(100.), and got {term!r}')
    if not any(term.weight for term in terms):
      raise ValueError('DistillLoss has no term of a weight above 0; give one')
    if sum(isinstance(term, Taps) for term in terms) > 1:
      raise ValueError('DistillLoss has several Taps; give one, with all names')
    for term in self._perceptual:
      missing = sorted(set(term.layers or ()) - set(feature_net.layers))
      # `Perceptual` knows layers of two networks, and some of one will do.
      if missing and not (isinstance(term, Perceptual) and len(missing) < len(term.layers or ())):
        raise ValueError(f'{type(term).__name__} compares {", ".join(missing)}, which feature_net '
                         f'leaves out; it has {", ".join(feature_net.layers)}')

  @property
  def taps(self) -> Taps | None:
    """The term that compares taps, where there is one."""
    return next((term for term in self.terms if isinstance(term, Taps)), None)

  @property
  def adapted(self) -> bool:
    """Whether adapters learn together with the student."""
    return self.taps is not None and self.taps.adapted

  @property
  def modules(self) -> dict[str, linen.Module]:
    """{'features': the feature network}, where a term needs it."""
    return {'features': self.feature_net} if self._perceptual else {}

  @property
  def _perceptual(self):
    return [term for term in self.terms if term.weight and term.layers != ()]

  def frozen(self, init_from) -> dict:
    """What goes into `TrainState.frozen`."""
    return {role: feature_variables(network, init_from) for role, network in self.modules.items()}

  def output(self, frozen, generated, taps: Mapping = {}) -> Output:
    """The `Output` of a generated image [B,H,W,C] in [-1, 1], of which features see
    `core.in_colour`."""
    if self.border:
      inner = slice(self.border, -self.border)
      generated = generated[:, inner, inner]
    image, network = in_colour(generated), self.feature_net
    if not isinstance(network, nn.EfficientNetLite0):  # which knows the scale of its pixels
      image = (image + 1) / 2  # without ImageNet's mean, as published
    seen = network.apply(frozen['features'], image) if self._perceptual else {}
    return Output(generated, taps, cast(Mapping[str, Any], seen))

  def loss(self, role: str, student: Output, teachers: Mapping[str, Output], adapters=None,
           axes: Axes = Axes()):
    """(what the student minimises, {term: value}, further logs, new collections of its adapters).

    role: of the student. teachers: by role, the first being the one whose taps are compared;
    nothing learns through them. adapters: variables of the student's adapters, where it has any.
    """
    terms, collections = {}, {}
    for term in self.terms:
      if isinstance(term, Taps):
        values, collections = term.values(student, teachers, axes, adapters)
      else:
        values = term.values(student, teachers, axes) if term.weight else {}
      terms |= values
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
