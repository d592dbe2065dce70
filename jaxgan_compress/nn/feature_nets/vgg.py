"""VGG trunks, whose features perceptual losses compare, and adapters between widths."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from jaxgan_compress.core import Axes
from jaxgan_compress.nn.layers.conv import Conv
from jaxgan_compress.nn.layers.inputs import ImageNetwork, Images
from jaxgan_compress.nn.layers.norms import BatchNorm

# Convolutions in each of the five stages between poolings.
VGG_STAGES = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_WIDTHS = (64, 128, 256, 512, 512)


class VGG(ImageNetwork):
  """The convolutions of VGG16 or VGG19 as features by name: 'relu1_1', 'relu1_2', 'relu2_1' ..

  image: [B,H,W,3] -> `{name: [B,h,w,C]}` for the names in `layers`; nothing above the last of them
  is computed or has parameters. `image` is used as it is: OMGD gives (x + 1) / 2 of images in
  [-1, 1], CAT and SPADE give x itself, neither subtracts ImageNet's mean.

  Raises ValueError for another depth, name or size. Simonyan and Zisserman 2015.
  """
  depth: int = 16
  layers: tuple[str, ...] = ('relu1_2', 'relu2_2', 'relu3_3', 'relu4_3')
  dtype: jnp.dtype = jnp.float32
  example_side = 32

  @nn.compact
  def __call__(self, image):
    self.takes.check(image, f'this VGG{self.depth}')
    x, taps = image, {}
    for name in self.computed:
      stage, conv = map(int, name[4:].split('_'))
      if conv == 1 and stage > 1:
        x = nn.max_pool(x, (2, 2), (2, 2))
      x = nn.relu(Conv(_WIDTHS[stage - 1], dtype=self.dtype, name=f'conv{stage}_{conv}')(x))
      if name in self.layers:
        taps[name] = x
    return taps

  @property
  def computed(self) -> tuple[str, ...]:
    """The names of all activations up to the last of `layers`."""
    names = vgg_layers(self.depth)
    for name in self.layers:
      if name not in names:
        raise ValueError(f'VGG{self.depth} has no {name!r}; it has {", ".join(names)}')
    return names[:max(map(names.index, self.layers)) + 1]

  @property
  def takes(self) -> Images:
    return Images(3, least=2 ** (int(self.computed[-1][4]) - 1))


def vgg_layers(depth: int) -> tuple[str, ...]:
  """The names of all activations, first to last. Raises ValueError unless depth is 16 or 19."""
  if depth not in VGG_STAGES:
    raise ValueError(f'depth={depth}; VGG has 16 or 19')
  return tuple(f'relu{stage}_{conv}' for stage, convs in enumerate(VGG_STAGES[depth], 1)
               for conv in range(1, convs + 1))


class Adapter(ImageNetwork):
  """A 1x1 map from one width to another, so that features of two networks can be compared.

  x: [B,h,w,C] -> [B,h,w,features]. With `norm`, OMGD's connector: no bias, batch norm that always
  takes the batch's statistics (and moves its running ones; without `train` it takes those), ReLU.
  Without, CAT's adaptor: a biased convolution alone. bias: None for these.
  """
  inputs: int
  features: int
  norm: bool = True
  bias: bool | None = None
  dtype: jnp.dtype = jnp.float32
  example_side = 4

  @nn.compact
  def __call__(self, x, axes: Axes = Axes(), train: bool = True):
    self.takes.check(x, 'this adapter')
    bias = not self.norm if self.bias is None else self.bias
    x = Conv(self.features, 1, bias=bias, dtype=self.dtype, name='conv')(x)
    return nn.relu(BatchNorm(name='norm')(x, train, axes)) if self.norm else x

  @property
  def takes(self) -> Images:
    return Images(self.inputs)
