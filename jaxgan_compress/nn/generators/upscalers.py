"""Super-resolution generators as Real-ESRGAN publishes them: of dense blocks, and a compact one."""

from __future__ import annotations

from collections.abc import Iterator

import jax.numpy as jnp
from flax import linen as nn

from jaxgan_compress.core import Axes
from jaxgan_compress.core.arguments import one_of, typed
from jaxgan_compress.nn import layers
from jaxgan_compress.nn.layers.inputs import ImageNetwork, Images
from jaxgan_compress.nn.layers.norms import at_least_float32
from jaxgan_compress.nn.prunable import Group, Plan, Widths, make_plan, renewed

GROWING = 4  # convolutions of a dense block whose outputs are joined to its input
DENSE = 3  # dense blocks of a residual block
RESIDUAL = 0.2  # what a branch is multiplied with before it is added
RESIZE = 1., 0.75, 0.5


@typed
def rrdbnet(features: int = 64, growth: int = 32, blocks: int = 23, scale: int = 4,
            **fields) -> RRDBGenerator:
  """The generator of ESRGAN and Real-ESRGAN (Wang et al. 2018, 2021): `realesrgan-x4plus`, and with
  `blocks=6` `-x4plus-anime`.

  scale: 4; 2 or 1, where the input is unshuffled first, as published; 3, whose image is that of 4,
  resized. Other fields as of the class.
  """
  one_of('scale', scale, (1, 2, 3, 4))
  return RRDBGenerator(**{
      'trunk': features, 'growth': ((growth,) * (DENSE * GROWING),) * blocks,
      'up': (features, features), 'last': features, 'unshuffle': {2: 2, 1: 4}.get(scale, 1),
      'resize': 0.75 if scale == 3 else 1., **fields})


@typed
def srvgg(features: int = 64, convs: int = 16, scale: int = 4, **fields) -> SRVGGGenerator:
  """The compact network of Real-ESRGAN, SRVGGNetCompact: `realesr-animevideov3`, and with
  `convs=32` `-general-x4v3`. scale: 1 to 4. Fields as of the class."""
  one_of('scale', scale, (1, 2, 3, 4))
  return SRVGGGenerator(**{'hidden': (features,) * (convs + 1), 'shuffle': scale, **fields})


class RRDBGenerator(ImageNetwork):
  """Residual blocks of three dense blocks each, then two nearest-neighbour upsamplings: RRDBNet.

  x: [B,H,W,inputs] in [-1, 1], of any size (H and W multiples of `unshuffle`) -> image
  [B,scale H,scale W,channels], nominally in [-1, 1] and not clipped, and taps 'stem', 'block1' ..,
  'body'.

  trunk: channels of the stem, of every residual sum and of the body, which are one group. growth:
    of each block the channels of the convolutions of its dense blocks, four each, whose inputs are
    the dense block's and all before. up: of the convolutions after each upsampling. last: of the
    one before the image.
  unshuffle: 1; 2 or 4: squares of so many pixels become channels first (x2plus, x1).
  resize: 1, or 0.75 or 0.5: the image is resized at the end, bicubic.
  remat: as of the ResNet. implementation: of the replaceable operations, see
    `nn.layers.conv_dispatch`. dtype: of convolutions; the residual sums are in float32.

  Raises ValueError for other sizes. Wang et al. 2018, ESRGAN; Wang et al. 2021, Real-ESRGAN.
  """
  trunk: int = 64
  growth: tuple[tuple[int, ...], ...] = ((32,) * (DENSE * GROWING),) * 23
  up: tuple[int, int] = (64, 64)
  last: int = 64
  inputs: int = 3
  channels: int = 3
  unshuffle: int = 1
  resize: float = 1.
  remat: bool = False
  implementation: str = 'auto'
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, train: bool = False, axes: Axes = Axes()):
    if self.unshuffle not in (1, 2, 4) or len(self.up) != 2 or any(
        len(widths) != DENSE * GROWING for widths in self.growth):
      raise ValueError(f'unshuffle={self.unshuffle}, {len(self.up)} up widths and growth widths of '
                       f'{sorted({len(widths) for widths in self.growth})}; unshuffle is 1, 2 or '
                       f'4, there are 2 up widths, and {DENSE * GROWING} of each block')
    conv = layers.layer_of(self, layers.Conv)
    x = _in_0_1(self, x)
    x = layers.pixel_unshuffle(x, self.unshuffle) if self.unshuffle > 1 else x
    x = stem = at_least_float32(conv(self.trunk, name='stem')(x))
    taps = {'stem': x}
    for i, widths in enumerate(self.growth, 1):
      x = taps[f'block{i}'] = layers.maybe_remat(RRDB, self.remat)(
          widths, self.implementation, self.dtype, name=f'block{i}')(x, train, axes)
    x = taps['body'] = stem + conv(self.trunk, name='body')(x)
    for i, width in enumerate(self.up, 1):
      x = layers.leaky_relu(conv(width, name=f'up{i}')(layers.upsample(x)))
    x = layers.leaky_relu(conv(self.last, name='last')(x))
    return _image(self, conv(self.channels, name='to_image')(x)), taps

  @property
  def scale(self) -> int:
    """How many times larger than the input the image is."""
    return _scale(4 // self.unshuffle, self.resize)

  def plan(self) -> Plan:
    """Groups 'trunk', 'block1/dense1/conv1' .. (growing), 'up1', 'up2', 'last'."""
    growing = {name: Group(n) for name, n in self._growing()}
    return make_plan(self, {
        'trunk': Group(self.trunk, layers=('stem',)), **growing,
        **{f'up{i}': Group(n) for i, n in enumerate(self.up, 1)}, 'last': Group(self.last)})

  def with_widths(self, widths: Widths) -> RRDBGenerator:
    """The same network with other widths, `{group: channels}`."""
    growth = [widths.get(name, n) for name, n in self._growing()]
    size = DENSE * GROWING
    return self.clone(
        trunk=widths.get('trunk', self.trunk), last=widths.get('last', self.last),
        up=renewed(widths, 'up', self.up, 1),
        growth=tuple(tuple(growth[i:i + size]) for i in range(0, len(growth), size)))

  def _growing(self) -> Iterator[tuple[str, int]]:
    for i, widths in enumerate(self.growth, 1):
      for j, width in enumerate(widths):
        yield f'block{i}/dense{j // GROWING + 1}/conv{j % GROWING + 1}', width

  @property
  def takes(self) -> Images:
    return Images(self.inputs, self.unshuffle, self.unshuffle)


class SRVGGGenerator(ImageNetwork):
  """Plain 3x3 convolutions with PReLUs at the size of the input, then pixels shuffled out of
  channels, onto the nearest pixels of the input: SRVGGNetCompact.

  x: [B,H,W,inputs] in [-1, 1], of any size -> image [B,scale H,scale W,channels], nominally in
  [-1, 1] and not clipped, and taps 'layer1' .. after each PReLU.

  hidden: channels of each convolution but the last. shuffle: the factor of the pixel shuffle, 1 to
    4. resize: 1, or 0.75 or 0.5: the image is resized at the end, bicubic, as animevideov3-x3 and
    -x2 are animevideov3-x4.
  implementation: of the replaceable operations, see `nn.layers.conv_dispatch`. dtype: of
    convolutions; the sum with the input is in float32.

  Raises ValueError where `inputs` differs from `channels`. Wang et al. 2021, Real-ESRGAN.
  """
  hidden: tuple[int, ...] = (64,) * 17
  inputs: int = 3
  channels: int = 3
  shuffle: int = 4
  resize: float = 1.
  implementation: str = 'auto'
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, train: bool = False, axes: Axes = Axes()):
    if self.shuffle not in (1, 2, 3, 4) or not self.hidden or self.inputs != self.channels:
      raise ValueError(f'shuffle={self.shuffle}, {len(self.hidden)} hidden widths, '
                       f'inputs={self.inputs} and channels={self.channels}; shuffle is 1 to 4, '
                       'there is a hidden layer, and the input is part of the image')
    conv = layers.layer_of(self, layers.Conv)
    x, taps = _in_0_1(self, x), {}
    y = x
    for i, width in enumerate(self.hidden, 1):
      y = conv(width, name=f'layer{i}')(y)
      y = taps[f'layer{i}'] = layers.PReLU(name=f'prelu{i}')(y)
    y = at_least_float32(conv(self.channels * self.shuffle ** 2, name='to_image')(y))
    if self.shuffle > 1:
      y, x = layers.pixel_shuffle(y, self.shuffle), layers.upsample(x, self.shuffle)
    return _image(self, y + x), taps

  @property
  def scale(self) -> int:
    """How many times larger than the input the image is."""
    return _scale(self.shuffle, self.resize)

  def plan(self) -> Plan:
    """Groups 'layer1', 'layer2', ..., each with the slopes of its PReLU."""
    return make_plan(self, {f'layer{i}': Group(n) for i, n in enumerate(self.hidden, 1)})

  def with_widths(self, widths: Widths) -> SRVGGGenerator:
    """The same network with other widths, `{group: channels}`."""
    return self.clone(hidden=renewed(widths, 'layer', self.hidden, 1))

  @property
  def takes(self) -> Images:
    return Images(self.inputs)


class RRDB(nn.Module):
  """x + 0.2 dense(dense(dense(x))), where dense(x) = x + 0.2 (its last convolution).

  x: [B,h,w,C] -> the same shape. widths: of the growing convolutions, of one dense block after
  another.
  """
  widths: tuple[int, ...]
  implementation: str
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x, train: bool, axes: Axes):
    y = x
    for i in range(DENSE):
      y = DenseBlock(self.widths[i * GROWING:(i + 1) * GROWING], self.implementation, self.dtype,
                     name=f'dense{i + 1}')(y)
    return x + RESIDUAL * y


class DenseBlock(nn.Module):
  """x + 0.2 (the last of five 3x3 convolutions, each of x and of what those before it made).

  x: [B,h,w,C] -> the same shape.
  """
  widths: tuple[int, ...]
  implementation: str
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x):
    # The maps are copied side by side. Of a residual block of published widths on 64x64 pixels this
    # took 34 ms (86 GMAC/s), the sum of the convolutions of each map 41 ms, and one convolution of
    # each map to all that read it 30 ms, but 2.6 times as long to compile; ncnn 42 GMAC/s on one
    # thread. Least of 8 calls in turn, jax 0.10.2, two CPU cores at a load of 10.
    conv = layers.layer_of(self, layers.Conv)
    parts = [x.astype(self.dtype)]
    for i, width in enumerate(self.widths, 1):
      parts.append(layers.leaky_relu(conv(width, name=f'conv{i}')(jnp.concatenate(parts, -1))))
    y = conv(x.shape[-1], name=f'conv{len(self.widths) + 1}')(jnp.concatenate(parts, -1))
    return x + RESIDUAL * y


def _scale(factor, resize) -> int:
  if resize not in RESIZE or factor * resize % 1:
    raise ValueError(f'resize={resize!r} of an image {factor} times as large; one of '
                     f'{", ".join(map(str, RESIZE))}, and the scale is a whole number')
  return int(factor * resize)


def _in_0_1(network, x):
  """The input [B,H,W,C] in [0, 1], as inside published networks. That it is moved there cannot be
  part of the first convolution, around which zeros mean black."""
  assert network.scale  # which raises for an impossible one
  network.takes.check(x, f'this {type(network).__name__}')
  return (x + 1) / 2


def _image(network, y):
  """The image of y [B,h,w,C] in [0, 1]: resized and in [-1, 1], not clipped."""
  y = at_least_float32(y)
  return 2 * (layers.bicubic(y, network.resize) if network.resize != 1 else y) - 1
