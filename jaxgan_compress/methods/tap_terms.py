"""The terms that compare activations inside a student with those inside its first teacher."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen

from jaxgan_compress import nn
from jaxgan_compress.core import Axes, PyTree, stop_gradient
from jaxgan_compress.losses import image
from jaxgan_compress.losses.similarity import SIMILARITIES, attention_cosine, region_contrast
from jaxgan_compress.methods.setup import choose
from jaxgan_compress.methods.terms import Output, discriminator_of

SCOPES = ('global', 'replica', 'replica_sum')


class TapTerm:
  """A term that compares activations inside the student with those inside its first teacher.

  `values` gives ({term: weighted scalar of a tap}, new collections of the adapters). What the
  activations pass on their way learns with the student (adapters) or not (projections); both are
  `{collection: {`key(tap)`: variables}}`.
  """
  weight: float
  names: tuple[str, ...]
  label = ''
  adapted = False
  layers = ()  # of no feature network
  otherwise = ''  # what else may be done where taps have different sizes, for messages

  def __post_init__(self):
    if self.weight < 0:
      raise ValueError(f'{type(self).__name__} has weight={self.weight}; at least 0')
    if self.weight and not self.names:
      raise ValueError(f'{type(self).__name__} with weight={self.weight} compares taps of student '
                       'and teacher; name them, or weight=0')

  @property
  def compares_positions(self) -> bool:
    """Whether both need the same height and width."""
    return True

  def shapes(self, roles: tuple[str, str], student, teacher, source) -> dict[str, tuple]:
    """`{tap: (shape in the student, in the teacher)}` for inputs like `source`.

    student, teacher: (module, its variables). Raises ValueError for a tap that one does not have,
    or two of different sizes where the term compares positions.
    """
    both = []
    for role, (module, variables) in zip(roles, (student, teacher), strict=True):
      taps = jax.eval_shape(module.apply, variables, source)[1]
      if missing := sorted(set(self.names) - taps.keys()):
        raise ValueError(f'{role} has no tap {", ".join(missing)}; it has {", ".join(taps)}')
      both.append(taps)
    shapes = {tap: tuple(taps[tap].shape for taps in both) for tap in self.names}
    for tap, (ours, theirs) in shapes.items():
      if self.weight and self.compares_positions and ours[1:3] != theirs[1:3]:
        raise ValueError(f'{tap} has {ours[1]}x{ours[2]} pixels in {roles[0]} and '
                         f'{theirs[1]}x{theirs[2]} in {roles[1]}; {self.compares} compares '
                         f'positions: take other taps{self.otherwise}')
    return shapes

  @property
  def compares(self) -> str:
    """What compares them, for messages."""
    return type(self).__name__

  def init_adapters(self, shapes: Mapping[str, tuple], key, scheme: str,
                    disc: linen.Module | None = None) -> dict:
    """Variables of the adapters of these `shapes`. disc: the teacher's discriminator."""
    return {}

  def init_projections(self, shapes: Mapping[str, tuple], key,
                       disc: linen.Module | None = None) -> dict:
    """Variables that no one trains, of these `shapes`."""
    return {}

  def key(self, tap: str) -> str:
    """The name of a tap's variables."""
    return f'{self.label}_{tap}'

  def values(self, student: Output, teachers: Mapping[str, Output], axes: Axes,
             adapters: PyTree = None, projections: PyTree = None) -> tuple[dict, dict]:
    """adapters, projections: variables, where there are any."""
    raise NotImplementedError

  def _initial(self, modules: Mapping[str, linen.Module], key, scheme):
    """Variables of `{tap: module}`."""
    initial: dict = {}
    for i, (tap, module) in enumerate(modules.items()):
      fresh = nn.initialise(module, jax.random.fold_in(key, i), scheme=scheme)
      for kind, variables in fresh.items():
        initial.setdefault(kind, {})[self.key(tap)] = variables
    return initial

  def _of(self, tap, variables):
    return {kind: by_tap[self.key(tap)] for kind, by_tap in variables.items()
            if self.key(tap) in by_tap}

  def _moving(self, module, tap, adapters, x, axes, collections):
    """What a learning module makes of x; its new collections go into `collections`."""
    variables = self._of(tap, adapters)
    x, moved = module.apply(variables, x, axes,
                            mutable=[kind for kind in variables if kind != 'params'])
    for kind, new in moved.items():
      collections.setdefault(kind, {})[self.key(tap)] = new
    return x


@dataclasses.dataclass(frozen=True)
class Taps(TapTerm):
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
  otherwise = ", or similarity='channel_means'"

  def __post_init__(self):
    choose('similarity', self.similarity, tuple(SIMILARITIES))
    choose('reduction', self.reduction, ('sum', 'mean'))
    choose('scope', self.scope, SCOPES)
    super().__post_init__()

  @property
  def adapted(self) -> bool:
    """Whether adapters learn together with the student."""
    return bool(self.weight and SIMILARITIES[self.similarity].adapter)

  @property
  def compares_positions(self) -> bool:
    return SIMILARITIES[self.similarity].positions

  @property
  def compares(self) -> str:
    return self.similarity

  def key(self, tap: str) -> str:
    return tap

  def init_adapters(self, shapes: Mapping[str, tuple], key, scheme: str,
                    disc: linen.Module | None = None) -> dict:
    return self._initial({tap: self._adapter(ours[-1], theirs[-1])
                          for tap, (ours, theirs) in shapes.items()}, key, scheme) \
        if self.adapted else {}

  def values(self, student: Output, teachers: Mapping[str, Output], axes: Axes,
             adapters: PyTree = None, projections: PyTree = None) -> tuple[dict, dict]:
    spec, teacher = SIMILARITIES[self.similarity], next(iter(teachers.values()))
    times = self.weight / (1 if self.reduction == 'sum' else len(self.names))
    if spec.couples and self.scope == 'replica_sum':
      times *= axes.count
    terms, collections = {}, {}
    for tap in self.names if self.weight else ():
      x, y = student.taps[tap], stop_gradient(teacher.taps[tap])
      if self.adapted:
        adapter = self._adapter(x.shape[-1], y.shape[-1], dtype=x.dtype)
        x = self._moving(adapter, tap, adapters, x, axes, collections)
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
    kind = SIMILARITIES[self.similarity].adapter
    return nn.Adapter(inputs, outputs, norm=kind == 'norm_relu', bias=kind == 'linear', **fields)


@dataclasses.dataclass(frozen=True)
class DiscriminatorFeatures(TapTerm):
  """weight * the sum over taps of mean |difference| of what the teacher's discriminator makes of
  them, at its tap `layer`.

  A tap of each network passes a 1x1 convolution, batch norm and ReLU into as many channels as the
  discriminator takes: the student's learns and takes the batch's statistics, the teacher's stays as
  random as it began. Taps are at least as large as images of the discriminator. layer: default, the
  last hidden one of a `PatchGAN(layers=3)`. Hu et al. 2023, DCD, in the form that the paper
  describes.
  """
  weight: float = 1.
  names: tuple[str, ...] = ()
  layer: str = 'stage4'
  label = 'disc_tap'

  @property
  def adapted(self) -> bool:
    return bool(self.weight)

  def init_adapters(self, shapes: Mapping[str, tuple], key, scheme: str,
                    disc: linen.Module | None = None) -> dict:
    channels = self._check(shapes, disc)
    return self._initial({tap: nn.Adapter(ours[-1], channels)
                          for tap, (ours, _) in shapes.items()}, key, scheme)

  def init_projections(self, shapes: Mapping[str, tuple], key,
                       disc: linen.Module | None = None) -> dict:
    channels = self._check(shapes, disc)
    return self._initial({tap: nn.Adapter(theirs[-1], channels) for tap, (_, theirs) in
                          shapes.items()}, jax.random.fold_in(key, len(shapes)), 'normal')

  def _check(self, shapes, disc):
    """The channels that the discriminator takes. Raises ValueError for a layer that it lacks, and a
    tap that is too small for it."""
    if disc is None:
      raise ValueError('DiscriminatorFeatures asks the discriminator of a teacher and this method '
                       'has none; take another term')
    channels = vars(disc)['inputs']
    for tap, (_, (_, h, w, _)) in shapes.items():
      image = jax.ShapeDtypeStruct((1, h, w, channels), jnp.float32)
      try:
        taps = jax.eval_shape(lambda x: disc.init_with_output(jax.random.key(0), x)[0][1], image)
      except ValueError as e:
        raise ValueError(f'{tap} of {h}x{w} pixels is too small for the discriminator: '
                         f'{str(e).splitlines()[0]}; or compare larger taps') from e
      if not any(name.startswith(self.layer) for name in taps):
        raise ValueError(f'layer={self.layer!r}; the discriminator has {", ".join(taps)}')
    return channels

  def values(self, student: Output, teachers: Mapping[str, Output], axes: Axes,
             adapters: PyTree = None, projections: PyTree = None) -> tuple[dict, dict]:
    teacher = next(iter(teachers.values()))
    disc, terms, collections = discriminator_of(teacher), {}, {}
    for tap in self.names if self.weight else ():
      x, y = student.taps[tap], stop_gradient(teacher.taps[tap])
      channels = vars(disc.adversary.disc)['inputs']
      x = self._moving(nn.Adapter(x.shape[-1], channels, dtype=x.dtype), tap, adapters, x, axes,
                       collections)
      y = nn.Adapter(y.shape[-1], channels, dtype=y.dtype).apply(
          self._of(tap, projections), y, axes, train=False)
      ours, theirs = (disc.activations(each, (self.layer,))[self.layer] for each in (x, y))
      terms[f'{self.label}_{tap}'] = self.weight * image.l1(ours, theirs)
    return terms, collections


class Projection(linen.Module):
  """Two layers of as many channels as the student's, at each position: [B,h,w,C'] -> [B,h,w,C]."""
  features: int
  inputs: int
  dtype: jnp.dtype = jnp.float32

  @linen.compact
  def __call__(self, x, axes: Axes = Axes()):
    dense = functools.partial(linen.Dense, self.features, dtype=self.dtype)
    return dense(name='out')(linen.relu(dense(name='hidden')(x)))

  def example(self):
    return jax.ShapeDtypeStruct((1, 4, 4, self.inputs), jnp.float32)


@dataclasses.dataclass(frozen=True)
class RegionContrast(TapTerm):
  """weight * the mean over taps of how well each of the student's features where the teacher is
  most active is told apart from the others by the teacher's, see
  `losses.similarity.region_contrast`.

  The teacher's features pass two layers into the student's channels, which stay as random as they
  began, as in the published code, or learn with the student (`learns`). count: positions of an
  image. Zhang et al. 2022, ReKo.
  """
  weight: float = 1.
  names: tuple[str, ...] = ()
  count: int = 64
  learns: bool = False
  label = 'contrast'

  def __post_init__(self):
    super().__post_init__()
    if self.count < 2:
      raise ValueError(f'count={self.count}; at least 2 positions, to tell apart')

  @property
  def adapted(self) -> bool:
    return bool(self.weight and self.learns)

  def init_adapters(self, shapes: Mapping[str, tuple], key, scheme: str,
                    disc: linen.Module | None = None) -> dict:
    return self._layers(shapes, key) if self.learns else {}

  def init_projections(self, shapes: Mapping[str, tuple], key,
                       disc: linen.Module | None = None) -> dict:
    return {} if self.learns else self._layers(shapes, key)

  def _layers(self, shapes, key):
    return self._initial({tap: Projection(ours[-1], theirs[-1])
                          for tap, (ours, theirs) in shapes.items()}, key, 'normal')

  def values(self, student: Output, teachers: Mapping[str, Output], axes: Axes,
             adapters: PyTree = None, projections: PyTree = None) -> tuple[dict, dict]:
    teacher, terms = next(iter(teachers.values())), {}
    for tap in self.names if self.weight else ():
      x, y = student.taps[tap], stop_gradient(teacher.taps[tap])
      layers = Projection(x.shape[-1], y.shape[-1], dtype=x.dtype)
      projected = layers.apply(self._of(tap, adapters if self.learns else projections), y)
      terms[f'{self.label}_{tap}'] = self.weight / len(self.names) * region_contrast(
          x, projected, y, self.count)
    return terms, {}
