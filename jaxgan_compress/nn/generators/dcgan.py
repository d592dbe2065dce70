"""The DCGAN pair of Aguinaldo et al. 2019 as a function of the depth scale d."""

from __future__ import annotations

import functools

import jax.numpy as jnp
from flax import linen as nn

from jaxgan_compress.core import Axes
from jaxgan_compress.nn import layers
from jaxgan_compress.nn.prunable import Group, Plan, Widths, make_plan, renewed

SIZES = (28, 32, 64)
NORMS = ('batch', 'layer', 'none')


class DCGANGenerator(nn.Module):
  """Noise to image: 4x4, then doubled until the size is reached, channels halving down to d.

  z: [B,latent], normally N(0, I) -> image [B,size,size,channels] in [-1, 1], and taps
  `{'layer1': [B,4,4,.], 'layer2': [B,8,8,.], ...}` after each ReLU.

  At 64 px: 8d, 4d, 2d, d channels, 672 d^2 + 12831 d + 1 parameters by the paper's count (one
  output channel, batch norm left out). At 32 px one layer fewer: 160 d^2 + 6423 d + 1. At 28 px
  it is the 32 px network without its outer two pixels.

  widths: channels of each layer, first to last, where they are not those of d.

  Raises ValueError for another size. Aguinaldo et al. 2019, section 3.
  """
  d: int
  channels: int = 1
  size: int = 64
  latent: int = 100
  widths: tuple[int, ...] | None = None
  implementation: str = 'auto'
  dtype: jnp.dtype = jnp.float32
  input_kind = 'latent'

  @nn.compact
  def __call__(self, z, train: bool = False, axes: Axes = Axes()):
    widths = self.layer_widths
    if z.ndim != 2 or z.shape[-1] != self.latent:
      raise ValueError(f'latents have shape {z.shape}; this generator takes [B, {self.latent}]')
    taps = {}
    x = z
    up = layers.layer_of(self, layers.UpConv)
    for i, width in enumerate(widths, 1):
      x = layers.LatentProjection(width, self.dtype, name='layer1')(x) if i == 1 else \
          up(width, name=f'layer{i}')(x)
      x = taps[f'layer{i}'] = nn.relu(layers.BatchNorm(name=f'norm{i}')(x, train, axes))
    x = up(self.channels, name='to_image')(x)
    crop = (x.shape[1] - self.size) // 2
    x = x[:, crop:crop + self.size, crop:crop + self.size]
    return jnp.tanh(x.astype(jnp.float32)), taps

  @property
  def layer_widths(self) -> tuple[int, ...]:
    """Channels of each layer, first to last."""
    by_depth = _widths(self.d, self.size)[::-1]
    if self.widths is not None and len(self.widths) != len(by_depth):
      raise ValueError(f'{len(self.widths)} widths; at {self.size} px there are {len(by_depth)}')
    return by_depth if self.widths is None else self.widths

  def plan(self) -> Plan:
    """Groups 'layer1', 'layer2', ..."""
    return make_plan(self, {f'layer{i}': Group(n, f'norm{i}')
                            for i, n in enumerate(self.layer_widths, 1)})

  def with_widths(self, widths: Widths) -> DCGANGenerator:
    """The same network with other widths, `{group: channels}`."""
    return self.clone(widths=renewed(widths, 'layer', self.layer_widths, 1))

  def example(self, size: int | tuple[int, int] | None = None):
    """A latent of batch 1, for counting and initialising. Raises ValueError for a size other than
    that of the images."""
    if size not in (None, self.size, (self.size, self.size)):
      raise ValueError(f'size={size}; this generator makes images of {self.size}x{self.size}')
    return jnp.zeros((1, self.latent))


class DCGANDiscriminator(nn.Module):
  """The mirror image: image to one logit; strided convolutions d, 2d, 4d, (8d), then 4x4 to 1.

  image: [B,size,size,channels] in [-1, 1] -> `{'real': [B,1]}` logits and taps `{'layer1': ...}`.

  The first layer has no norm. norm 'batch' takes the batch's own statistics whatever `train`
  says, which couples the samples: with a gradient penalty take 'layer' or 'none'. At 28 px the
  image is framed with two black pixels. Raises ValueError for another size or norm.
  """
  d: int
  size: int = 64
  norm: str = 'batch'
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, image, train: bool = False, axes: Axes = Axes()):
    if self.norm not in NORMS:
      raise ValueError(f'norm={self.norm!r}; one of {", ".join(NORMS)}')
    widths = _widths(self.d, self.size)
    if image.shape[1:3] != (self.size, self.size):
      raise ValueError(f'images are {image.shape[1]}x{image.shape[2]}; '
                       f'this discriminator takes {self.size}x{self.size}')
    frame = (4 * 2 ** len(widths) - self.size) // 2
    x = jnp.pad(image, ((0, 0), (frame, frame), (frame, frame), (0, 0)), constant_values=-1)
    conv = functools.partial(nn.Conv, kernel_size=(4, 4), dtype=self.dtype,
                             kernel_init=nn.initializers.normal(0.02))
    taps = {}
    for i, width in enumerate(widths, 1):
      x = conv(width, strides=(2, 2), padding=1, name=f'layer{i}')(x)
      if i > 1 and self.norm == 'batch':
        x = layers.BatchNorm(track=False, name=f'norm{i}')(x, True, axes)
      elif i > 1 and self.norm == 'layer':
        x = layers.LayerNorm(name=f'norm{i}')(x)
      x = taps[f'layer{i}'] = layers.leaky_relu(x)
    x = conv(1, padding='VALID', name='to_logit')(x)
    return {'real': x.reshape(-1, 1).astype(jnp.float32)}, taps


def _widths(d: int, size: int) -> tuple[int, ...]:
  """Channels from the image inwards: d, 2d, ... , one entry for each halving down to 4x4."""
  if size not in SIZES:
    raise ValueError(f'size={size}; the DCGAN family is built for {", ".join(map(str, SIZES))}')
  if d < 1:
    raise ValueError(f'd={d}; the depth scale is a whole number from 1')
  return tuple(d * 2 ** i for i in range(4 if size == 64 else 3))
