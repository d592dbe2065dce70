"""EfficientNet-Lite0, a small classifier of ImageNet whose trained features compare images."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxgan_compress.nn.layers.conv import Conv, layer_of
from jaxgan_compress.nn.layers.inputs import ImageNetwork, Images
from jaxgan_compress.nn.layers.norms import BatchNorm, at_least_float32

# (kernel, stride, expansion, features, blocks) of each stage.
STAGES = ((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3),
          (5, 2, 6, 192, 4), (3, 1, 6, 320, 1))
# (kernel, stride, expansion, features) of each block.
BLOCKS = tuple((kernel, 1 if i else stride, expansion, features)
               for kernel, stride, expansion, features, count in STAGES for i in range(count))
STEM, HEAD, CLASSES = 32, 1280, 1000
# The last block at each stride, and what is above all of them.
ENDS = {1: 'stride2', 3: 'stride4', 5: 'stride8', 11: 'stride16', 16: 'stride32'}
MAPS = tuple(ENDS.values())
LAYERS = (*MAPS, 'pooled', 'logits')


class EfficientNetLite0(ImageNetwork):
  """EfficientNet-Lite0 in inference mode as features by name: MBConv blocks of ReLU6, without
  squeeze-and-excitation.

  image: [B,H,W,3] in [-1, 1], H and W at least the stride of the last layer (32 for all but the
  first maps) -> `{name: [B,h,w,C]}` for the names in `layers`; nothing above the last of them is
  computed or has parameters. 'stride2' (16 channels), 'stride4' (24), 'stride8' (40), 'stride16'
  (112) and 'stride32' (320) are the ends of the last blocks of ceil(H / stride) x ceil(W / stride)
  pixels, without an activation. 'pooled' [B,1,1,1280] are means over the image, in [0, 6], and
  'logits' [B,1,1,1000] are of ImageNet's classes in their order, both float32 or wider.

  The published weights are TensorFlow's, also in PyTorch's files: convolutions pad as its SAME
  does, at strides after the image before they do so before it, norms have epsilon 1e-3, and the
  network sees (pixel - 127) / 128 of pixels from 0 to 255. It was trained at 224x224.

  Raises ValueError for another name or size. Tan and Le 2019.
  """
  layers: tuple[str, ...] = MAPS
  implementation: str = 'auto'
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, image):
    self.takes.check(image, 'this EfficientNet-Lite0')
    layer, top = layer_of(self, ConvNorm), max(map(LAYERS.index, self.layers))
    taps, x = {}, (image * 127.5 + .5) / 128
    x = layer(STEM, 3, 2, name='stem')(x)
    for i, (kernel, stride, expansion, features) in enumerate(BLOCKS, 1):
      x = layer_of(self, MBConv)(features, kernel, stride, expansion, name=f'block{i}')(x)
      if i in ENDS:
        taps[ENDS[i]] = x
      if top == len(taps) - 1:
        break
    if top >= LAYERS.index('pooled'):
      x = at_least_float32(layer(HEAD, 1, name='head')(x)).mean((1, 2), keepdims=True)
      taps['pooled'] = x
    if top == LAYERS.index('logits'):
      taps['logits'] = nn.Dense(CLASSES, name='classifier')(x)
    return {name: x for name, x in taps.items() if name in self.layers}

  @property
  def takes(self) -> Images:
    if unknown := [name for name in self.layers if name not in LAYERS] or not self.layers:
      raise ValueError(f'EfficientNet-Lite0 has no layers {unknown!r}; it has {", ".join(LAYERS)}')
    return Images(3, least=2 ** min(5, 1 + max(map(LAYERS.index, self.layers))))


class MBConv(nn.Module):
  """A 1x1 convolution to `expansion` times the width (without it for 1), a depthwise one, and a 1x1
  one without an activation; x is added where it has the shape. x: [B,H,W,C] ->
  [B,ceil(H / stride),ceil(W / stride),features]. Sandler et al. 2018."""
  features: int
  kernel: int
  stride: int
  expansion: int
  implementation: str = 'auto'
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x):
    layer, y = layer_of(self, ConvNorm), x
    width = x.shape[-1] * self.expansion
    if self.expansion > 1:
      y = layer(width, 1, name='expand')(y)
    y = layer(width, self.kernel, self.stride, depthwise=True, name='depthwise')(y)
    y = layer(self.features, 1, activated=False, name='project')(y)
    return x + y if x.shape == y.shape else y


class ConvNorm(nn.Module):
  """ReLU6 of the norm of a convolution that pads as TensorFlow's SAME does. x: [B,H,W,C] ->
  [B,ceil(H / stride),ceil(W / stride),features]."""
  features: int
  kernel: int
  stride: int = 1
  depthwise: bool = False
  activated: bool = True
  implementation: str = 'auto'
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x):
    conv = functools.partial(layer_of(self, Conv), self.features, self.kernel, bias=False,
                             name='conv')
    # At stride 2 the windows of SAME begin at the first pixel of an even side, one before an odd's.
    odd = [side % 2 for side in x.shape[1:3]]
    if self.depthwise:
      y = conv(depthwise=True)(x)
      if self.stride == 2:
        # Quicker by ten times than XLA:CPU's own of stride 2, though it leaves three of four out.
        y = y[:, 1 - odd[0]::2, 1 - odd[1]::2]
    elif self.stride == 2:
      y = conv(stride=2, padding=0)(jnp.pad(x, ((0, 0), *((side, 1) for side in odd), (0, 0))))
    else:
      y = conv()(x)
    y = BatchNorm(epsilon=1e-3, name='norm')(y, False)
    return jax.nn.relu6(y) if self.activated else y
