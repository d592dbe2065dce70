"""What a network takes: the kind of its input, and sizes of images that fit."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

KINDS = ('image', 'labels', 'latent')


class Images(NamedTuple):
  """Images of so many channels, whose sides are multiples of `multiple`, and at least `least`."""
  channels: int
  multiple: int = 1
  least: int = 1

  def check(self, x, network: str):
    """Raises ValueError unless x is [B,H,W,channels] of such sides."""
    channels, multiple, least = self
    if x.ndim != 4 or x.shape[-1] != channels:
      advice = f'; give it {x.shape[-1]} input channels, or images of {channels}' \
          if x.ndim == 4 else ''
      raise ValueError(f'{network} takes [B,H,W,{channels}] and got {tuple(x.shape)}{advice}')
    size = x.shape[1:3]
    if any(side % multiple or side < least for side in size):
      fits = [self.fit(round(side / multiple) * multiple) for side in size]
      rule = f'multiples of {multiple}' if multiple > 1 else 'sides'
      raise ValueError(f'{network} takes {rule} from {self.fit(least)} and got '
                       f'{size[0]}x{size[1]}; resize or crop to {fits[0]}x{fits[1]}, for example')

  def fit(self, side: int) -> int:
    """The smallest side that fits and is not below this one."""
    return -(-max(side, self.least) // self.multiple) * self.multiple


class ImageNetwork(nn.Module):
  """A network of images, which `takes` says more of. `input_kind` is 'labels' for one-hot maps."""
  input_kind = 'image'
  example_side = 1

  @property
  def takes(self) -> Images:
    raise NotImplementedError

  def example(self, size: int | tuple[int, int] | None = None):
    """Zeros of batch 1, for counting and initialising. size: (height, width) or both in one; None
    for the smallest."""
    height, width = np.broadcast_to(size or self.takes.fit(self.example_side), 2).tolist()
    return jnp.zeros((1, height, width, self.takes.channels))


def input_kind(network: nn.Module) -> str:
  """'image', 'labels' or 'latent', as the network's `input_kind` says; a network of your own that
  has none takes latents if it has a field `latent`, and images otherwise.

  Raises ValueError for another kind.
  """
  fields = {field.name for field in dataclasses.fields(network)}
  # A network of another class need not have it.
  kind = getattr(network, 'input_kind', 'latent' if 'latent' in fields else 'image')
  if kind not in KINDS:
    raise ValueError(f'{type(network).__name__}.input_kind={kind!r}; one of {", ".join(KINDS)}')
  return kind


def output_scale(network: Any) -> int:
  """How many times larger than its input a network's image is: its property `scale`, of upscalers,
  and 1 for networks without one."""
  return network.scale if 'scale' in dir(network) else 1


def example(network: nn.Module) -> jax.ShapeDtypeStruct:
  """The shape of the network's `example()`. Raises ValueError where the network has none."""
  if 'example' not in dir(network):
    raise ValueError(f'{type(network).__name__} does not say what its input is; give it a method '
                     'example(), which returns an input of batch 1, as networks of the library '
                     'have it, or pass an input')
  return jax.eval_shape(network.example)
