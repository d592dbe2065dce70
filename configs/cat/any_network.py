"""Small students of a generator of your own, any module of linen (x) -> image, on pairs of images.

    jaxgan-compress train --config=cat/any_network:network=my_net:Generator --workdir=runs/mine

`my_net.py` stands in this folder or anywhere on Python's path; by default the network is the U-Net
with attention gates below, which imports nothing of this library. It learns first, as in pix2pix;
then students that cost a share of its multiply-accumulates are pruned from it, whatever its layers
are, and learn from its images: see docs/any_network.md. Nobody has published a run.

Arguments: `:network=module:Name`; `:data=paired,path=FOLDER` for pairs of your own (default: colour
for grey photographs, `samples:colorize`); `:size=128` (default: 64); `:shares=8+20`, in per cent;
`:steps=5000`; `:rivals` adds other ways to small students, pruning during online distillation among
them; `:smoke` takes a minute or two.
"""

import jax.numpy as jnp
from flax import linen as nn

from jaxgan_compress import config
from jaxgan_compress.configs.cat import _stages as stages

EXAMPLE = 'jaxgan_compress.configs.cat.any_network:Generator'


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


def get_config(arg=''):
  arg = config.parse_arg(arg, smoke=False, network=EXAMPLE, data='samples:colorize', path='',
                         size=64, steps=600, shares=(25,), rivals=False)
  if ':' not in arg.network:
    raise ValueError(f'network={arg.network!r} is no class of yours; give network=module:Name, as '
                     'in --config=cat/any_network:network=my_net:Generator')
  c = stages.sample_pairs(config.base(), arg, 'colorize', size=arg.size, taps=(),
                          teacher=dict(name=arg.network))
  c.data = dict(name=arg.data, size=arg.size, **({'path': arg.path} if arg.path else {}))
  return c
