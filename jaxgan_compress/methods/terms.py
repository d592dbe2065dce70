"""The terms that compare a student's image with those of its teachers, or have its discriminator
score it.

A term is a frozen value with `weight` and `values(student, teachers, axes)`, and with `layers`
where it compares some of the feature network; to add one, write such a class here and export it
from `methods`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxgan_compress.core import Axes, in_colour
from jaxgan_compress.losses import features, image, relations
from jaxgan_compress.losses.similarity import SIMILARITIES
from jaxgan_compress.methods.adversary import FixedDiscriminator
from jaxgan_compress.methods.setup import choose

# Of an `nn.EfficientNetLite0`: with these shares each map adds a fifth to a sum of about 1 for two
# photographs that have nothing in common (mean |difference| of 64 to 224 pixels: 6.4, 8.8, 8.1,
# 7.1, 3.0).
LITE0_SHARES = {'stride2': .03, 'stride4': .023, 'stride8': .025, 'stride16': .028,
                'stride32': .065}


@dataclasses.dataclass(frozen=True)
class Output:
  """What a generator gives, as terms see it.

  image: [B,H,W,C] in [-1, 1]. taps: {name: activations [B,h,w,C]}. features: {layer: [B,h,w,C]} of
  the image in the feature network, {} where no term asks for them. disc: of a teacher, the
  discriminator that it has learned against; target: beside a teacher's, the true image of the
  pair; where there are such.
  """
  image: Any
  taps: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  features: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  disc: FixedDiscriminator | None = None
  target: Any = None


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
class Target(_ImageTerm):
  """weight * mean |student - the true image| of the pair, which the student of a paper on
  distillation does not meet: what a teacher cannot say is in it. For `OMGD`."""
  weight: float
  label = 'target'

  def values(self, student: Output, teachers: Mapping[str, Output], axes: Axes) -> dict:
    target = next(iter(teachers.values())).target
    if target is None:
      raise ValueError('Target compares with the true image of a pair, which this method does not '
                       'give its student; leave it out')
    return {self.label: self.weight * image.l1(student.image, target)}


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
class Wavelet(_ImageTerm):
  """weight * the difference of detail, see `losses.image.wavelet`, in levels from the finest.

  levels: None for those whose coarsest block is a sixteenth of the image's side, at least one.
  balance: 'mean', by which each level counts alike, or 'orthonormal', the published one, which is
  mostly the coarsest level. Blind to a constant difference; it copies the teacher's noise as
  faithfully as its detail. Zhang et al. 2022.
  """
  weight: float = 10.
  levels: int | None = None
  balance: str = 'mean'
  label = 'wavelet'

  def __post_init__(self):
    super().__post_init__()
    choose('balance', self.balance, ('mean', 'orthonormal'))
    if self.levels is not None and self.levels < 1:
      raise ValueError(f'levels={self.levels}; at least 1, or None')

  def distance(self, student: Output, teacher: Output):
    side = min(student.image.shape[1:3])
    levels = self.levels or max(1, round(math.log2(side)) - 4)
    return image.wavelet(student.image, teacher.image, levels, self.balance)


@dataclasses.dataclass(frozen=True)
class Relations(_ImageTerm):
  """weight * the sum over `sets` of how differently the rows, columns or patches of an image lie to
  each other, see `losses.relations.content_relations`. It takes a pixel or perceptual term
  beside it.

  patch: the side of a patch in pixels; None for an eighth of the image's. You et al. 2022, CRD,
  whose weight is 25 for batches of one. Raises ValueError for an unknown set.
  """
  weight: float = 25.
  sets: tuple[str, ...] = relations.SETS
  patch: int | None = None
  label = 'relation'

  def __post_init__(self):
    super().__post_init__()
    for kind in self.sets or ('',):
      choose('sets', kind, relations.SETS)
    if self.patch is not None and self.patch < 1:
      raise ValueError(f'patch={self.patch}; at least 1 pixel, or None')

  def distance(self, student: Output, teacher: Output):
    patch = self.patch or max(1, min(student.image.shape[1:3]) // 8)
    return sum((relations.content_relations(student.image, teacher.image, kind, patch)
                for kind in self.sets), start=jnp.zeros(()))


@dataclasses.dataclass(frozen=True)
class Discriminator(_ImageTerm):
  """weight * the GAN loss of the student's image, scored by the discriminator of its teacher, which
  does not learn from it; the mean over teachers.

  Such a discriminator has never met what a student does wrong, and a finished one is easily fooled:
  it takes a pixel or perceptual term beside it. Hinge and Wasserstein losses have no bound; keep
  their share of the gradient at 10 to 30 %, see `term_gradients`. You et al. 2022, CRD.
  """
  weight: float = 1.
  label = 'adv'

  def values(self, student: Output, teachers: Mapping[str, Output], axes: Axes) -> dict:
    return {f'{self.label}_{role}': self.weight / len(teachers) * discriminator_of(
        teacher).generator_loss(student.image, 'student') for role, teacher in teachers.items()}


@dataclasses.dataclass(frozen=True)
class FeatureMatching(_ImageTerm):
  """weight * the sum over taps of the teacher's discriminator of what `similarity` says of its
  activations for the student's image and for the teacher's, the mean over teachers.

  names: of its taps. similarity: of `losses.similarity.SIMILARITIES`, no adapter being needed;
  'root_mse' and 'gram_root_mse' are those of Li et al. 2021, GCC.
  """
  weight: float = 1.
  names: tuple[str, ...] = ('stage2', 'stage4')
  similarity: str = 'root_mse'
  label = 'match'

  def __post_init__(self):
    super().__post_init__()
    choose('similarity', self.similarity, tuple(SIMILARITIES))
    if not self.names:
      raise ValueError("FeatureMatching compares activations; name some, as names=('stage2',)")

  def values(self, student: Output, teachers: Mapping[str, Output], axes: Axes) -> dict:
    return {f'{self.label}_{role}': self.weight / len(teachers) * self._distance(
        student, teacher, axes) for role, teacher in teachers.items()}

  def _distance(self, student, teacher, axes):
    disc, spec = discriminator_of(teacher), SIMILARITIES[self.similarity]
    both = [disc.activations(each.image, self.names, 'student') for each in (student, teacher)]
    if spec.couples:  # of all replicas, whatever their number
      both = jax.tree.map(axes.gather, both)
    ours, theirs = both
    return sum((spec.loss(ours[name], theirs[name]) for name in self.names), start=jnp.zeros(()))


def discriminator_of(teacher: Output) -> FixedDiscriminator:
  """Raises ValueError for a teacher without one."""
  if teacher.disc is None:
    raise ValueError('a term asks the discriminator of a teacher and this method has none; take '
                     'another term')
  return teacher.disc
