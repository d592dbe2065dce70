"""A U-Net with attention gates (Oktay et al. 2018), as a user's own file has it."""

import jax.numpy as jnp
from flax import linen as nn


class Block(nn.Module):
  width: int

  @nn.compact
  def __call__(self, x, train):
    x = nn.Conv(self.width, (3, 3), use_bias=False)(x)
    return nn.relu(nn.BatchNorm(use_running_average=not train)(x))


class Gate(nn.Module):
  """A skip connection, weighted pixel by pixel by what comes from below."""
  width: int

  @nn.compact
  def __call__(self, skip, below):
    both = nn.Conv(self.width, (1, 1))(skip) + nn.Conv(self.width, (1, 1))(below)
    return skip * nn.sigmoid(nn.Conv(1, (1, 1))(nn.relu(both)))


class Generator(nn.Module):
  width: int = 16
  depth: int = 3

  @nn.compact
  def __call__(self, x, train=False):
    widths = [self.width * 2 ** i for i in range(self.depth)]
    skips = []
    for i, width in enumerate(widths):
      x = Block(width, name=f'down{i}')(x, train)
      skips.append(x)
      x = nn.max_pool(x, (2, 2), (2, 2))
    x = Block(2 * widths[-1], name='middle')(x, train)
    for i, width in reversed(list(enumerate(widths))):
      x = Block(width, name=f'rise{i}')(x.repeat(2, 1).repeat(2, 2), train)
      x = jnp.concatenate([x, Gate(width // 2, name=f'gate{i}')(skips[i], x)], -1)
      x = Block(width, name=f'up{i}')(x, train)
    return nn.tanh(nn.Conv(3, (1, 1), name='to_image')(x))
