"""Published networks as their authors would write them in Flax, and how many channels of each may
go, counted by hand. Nothing here knows of this package."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from tests.traced_networks import Case, module


class ResNetBlock(nn.Module):
  filters: int
  conv: Callable
  norm: Callable
  strides: tuple[int, int] = (1, 1)

  @nn.compact
  def __call__(self, x):
    residual = x
    y = self.conv(self.filters, (3, 3), self.strides)(x)
    y = nn.relu(self.norm()(y))
    y = self.conv(self.filters, (3, 3))(y)
    y = self.norm(scale_init=nn.initializers.zeros_init())(y)
    if residual.shape != y.shape:
      residual = self.conv(self.filters, (1, 1), self.strides, name='conv_proj')(residual)
      residual = self.norm(name='norm_proj')(residual)
    return nn.relu(residual + y)


class ResNet(nn.Module):
  """Deep residual learning (He et al. 2016) as an ImageNet classifier of basic blocks."""
  stage_sizes: Sequence[int] = (1, 2, 1)
  num_filters: int = 8
  num_classes: int = 10

  @nn.compact
  def __call__(self, x, train: bool = True):
    conv = functools.partial(nn.Conv, use_bias=False)
    norm = functools.partial(nn.BatchNorm, use_running_average=not train, momentum=0.9)
    x = conv(self.num_filters, (7, 7), (2, 2), padding=[(3, 3), (3, 3)], name='conv_init')(x)
    x = nn.relu(norm(name='bn_init')(x))
    x = nn.max_pool(x, (3, 3), strides=(2, 2), padding='SAME')
    for i, blocks in enumerate(self.stage_sizes):
      for j in range(blocks):
        strides = (2, 2) if i > 0 and j == 0 else (1, 1)
        x = ResNetBlock(self.num_filters * 2 ** i, conv, norm, strides)(x)
    x = jnp.mean(x, axis=(1, 2))
    return jnp.asarray(nn.Dense(self.num_classes)(x), jnp.float32)


class VAEDecoder(nn.Module):
  """Auto-encoding variational Bayes (Kingma and Welling 2014), with convolutions."""
  features: int = 8

  def setup(self):
    self.fc = nn.Dense(4 * 4 * self.features)
    self.ups = [nn.ConvTranspose(width, (3, 3), (2, 2)) for width in (10, 6)]
    self.out = nn.Conv(3, (3, 3))

  def __call__(self, z):
    x = nn.relu(self.fc(z))
    x = x.reshape((x.shape[0], 4, 4, self.features))
    for up in self.ups:
      x = nn.relu(up(x))
    return nn.sigmoid(self.out(x))


def pixel_shuffle(x, scale):
  n, h, w, c = x.shape
  x = x.reshape(n, h, w, scale, scale, c // scale ** 2)
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(n, h * scale, w * scale, c // scale ** 2)


class EDSR(nn.Module):
  """Enhanced deep residual networks (Lim et al. 2017)."""
  features: int = 8
  blocks: int = 3
  scale: int = 4

  @nn.compact
  def __call__(self, x):
    mean = jnp.array([0.4488, 0.4371, 0.4040])
    x = nn.Conv(self.features, (3, 3), name='head')(x - mean)
    y = x
    for i in range(self.blocks):
      z = nn.relu(nn.Conv(self.features, (3, 3), name=f'block{i}_conv1')(y))
      y = y + 0.1 * nn.Conv(self.features, (3, 3), name=f'block{i}_conv2')(z)
    x = x + nn.Conv(self.features, (3, 3), name='body_end')(y)
    for i in range(self.scale // 2):
      x = pixel_shuffle(nn.Conv(4 * self.features, (3, 3), name=f'up{i}')(x), 2)
    return nn.Conv(3, (3, 3), name='tail')(x) + mean


class ConvBlock(nn.Module):
  features: int

  @nn.compact
  def __call__(self, x, train):
    for _ in range(2):
      x = nn.Conv(self.features, (3, 3), use_bias=False)(x)
      x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
    return x


class AttentionGate(nn.Module):
  inner: int

  @nn.compact
  def __call__(self, gate, skip, train):
    norm = functools.partial(nn.BatchNorm, use_running_average=not train)
    g = norm()(nn.Conv(self.inner, (1, 1), name='w_gate')(gate))
    s = norm()(nn.Conv(self.inner, (1, 1), name='w_skip')(skip))
    psi = norm()(nn.Conv(1, (1, 1), name='psi')(nn.relu(g + s)))
    return skip * nn.sigmoid(psi)


class AttentionUNet(nn.Module):
  """Attention U-Net (Oktay et al. 2018)."""
  widths: Sequence[int] = (4, 6, 8)
  classes: int = 2

  @nn.compact
  def __call__(self, x, train: bool = False):
    skips = []
    for width in self.widths[:-1]:
      x = ConvBlock(width)(x, train)
      skips.append(x)
      x = nn.max_pool(x, (2, 2), (2, 2))
    x = ConvBlock(self.widths[-1])(x, train)
    for width, skip in zip(reversed(self.widths[:-1]), reversed(skips), strict=True):
      n, h, w, c = x.shape
      x = jax.image.resize(x, (n, 2 * h, 2 * w, c), 'nearest')
      x = nn.Conv(width, (3, 3))(x)
      x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
      skip = AttentionGate(width // 2)(x, skip, train)
      x = ConvBlock(width)(jnp.concatenate([skip, x], axis=-1), train)
    return nn.Conv(self.classes, (1, 1))(x)


class EqualDense(nn.Module):
  features: int
  bias: float = 0.0

  @nn.compact
  def __call__(self, x):
    w = self.param('weight', nn.initializers.normal(1.0), (x.shape[-1], self.features))
    b = self.param('bias', nn.initializers.constant(self.bias), (self.features,))
    return x @ (w / jnp.sqrt(x.shape[-1])) + b


class ModulatedConv(nn.Module):
  features: int
  kernel: int = 3
  demodulate: bool = True
  up: bool = False

  @nn.compact
  def __call__(self, x, w):
    n, height, width, c = x.shape
    style = EqualDense(c, 1.0, name='affine')(w)
    weight = self.param('weight', nn.initializers.normal(1.0),
                        (self.kernel, self.kernel, c, self.features))
    weight = weight[None] * style[:, None, None, :, None]  # [N, k, k, I, O]
    if self.demodulate:
      weight = weight * lax.rsqrt(jnp.sum(weight ** 2, axis=(1, 2, 3), keepdims=True) + 1e-8)
    # One convolution whose groups are the samples.
    x = x.transpose(1, 2, 0, 3).reshape(1, height, width, n * c)
    weight = weight.transpose(1, 2, 3, 0, 4).reshape(self.kernel, self.kernel, c, -1)
    y = lax.conv_general_dilated(
        x, weight, (1, 1), ((1, 2), (1, 2)) if self.up else 'SAME',
        lhs_dilation=(2, 2) if self.up else None, feature_group_count=n,
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
    _, height, width, _ = y.shape
    return y.reshape(height, width, n, self.features).transpose(2, 0, 1, 3)


class StyledConv(nn.Module):
  features: int
  up: bool = False

  @nn.compact
  def __call__(self, x, w):
    x = ModulatedConv(self.features, up=self.up)(x, w)
    noise = self.variable('noise', 'const', lambda: jnp.zeros((*x.shape[1:3], 1))).value
    x = x + noise * self.param('noise_strength', nn.initializers.zeros, ())
    x = x + self.param('bias', nn.initializers.zeros, (self.features,))
    return nn.leaky_relu(x, 0.2) * jnp.sqrt(2.0)


class StyleGAN2(nn.Module):
  """StyleGAN2 (Karras et al. 2020): a mapping network, and a synthesis network with skips."""
  channels: Sequence[int] = (10, 8, 6)
  latent: int = 8

  @nn.compact
  def __call__(self, z):
    w = z * lax.rsqrt(jnp.mean(z ** 2, axis=-1, keepdims=True) + 1e-8)
    for i in range(3):
      w = nn.leaky_relu(EqualDense(self.latent, name=f'mapping{i}')(w), 0.2)
    x = self.param('const', nn.initializers.normal(1.0), (4, 4, self.channels[0]))
    x = jnp.broadcast_to(x, (z.shape[0], *x.shape))
    x = StyledConv(self.channels[0], name='conv4')(x, w)
    image = ModulatedConv(3, 1, False, name='rgb4')(x, w)
    for i, width in enumerate(self.channels[1:]):
      x = StyledConv(width, up=True, name=f'conv{8 << i}_up')(x, w)
      x = StyledConv(width, name=f'conv{8 << i}')(x, w)
      n, h, height, c = image.shape
      image = jax.image.resize(image, (n, 2 * h, 2 * height, c), 'bilinear')
      image = image + ModulatedConv(3, 1, False, name=f'rgb{8 << i}')(x, w)
    return image


class SRResNet(nn.Module):
  """The generator of SRGAN (Ledig et al. 2017)."""
  features: int = 8

  @nn.compact
  def __call__(self, x, train: bool = False):
    norm = functools.partial(nn.BatchNorm, use_running_average=not train, momentum=0.8)
    x = first = nn.PReLU()(nn.Conv(self.features, (9, 9))(x))
    for _ in range(2):
      y = nn.PReLU()(norm()(nn.Conv(self.features, (3, 3))(x)))
      x = x + norm()(nn.Conv(self.features, (3, 3))(y))
    x = first + norm()(nn.Conv(self.features, (3, 3))(x))
    for _ in range(2):
      x = nn.PReLU()(pixel_shuffle(nn.Conv(4 * self.features, (3, 3))(x), 2))
    return nn.tanh(nn.Conv(3, (9, 9))(x))


class InstanceNorm(nn.Module):
  """As PyTorch writes it."""
  epsilon: float = 1e-5

  @nn.compact
  def __call__(self, x):
    mean, var = jnp.mean(x, (1, 2), keepdims=True), jnp.var(x, (1, 2), keepdims=True)
    return (x - mean) / jnp.sqrt(var + self.epsilon)


class CycleGAN(nn.Module):
  """The generator of CycleGAN (Zhu et al. 2017), with reflection padding."""
  features: int = 6
  blocks: int = 2

  @nn.compact
  def __call__(self, x):
    pad = lambda x, n: jnp.pad(x, ((0, 0), (n, n), (n, n), (0, 0)), mode='reflect')
    x = nn.relu(InstanceNorm()(nn.Conv(self.features, (7, 7), padding='VALID')(pad(x, 3))))
    for i in (2, 4):
      x = nn.relu(InstanceNorm()(nn.Conv(i * self.features, (3, 3), (2, 2))(x)))
    for _ in range(self.blocks):
      y = nn.relu(InstanceNorm()(nn.Conv(x.shape[-1], (3, 3), padding='VALID')(pad(x, 1))))
      x = x + InstanceNorm()(nn.Conv(x.shape[-1], (3, 3), padding='VALID')(pad(y, 1)))
    for i in (2, 1):
      x = nn.ConvTranspose(i * self.features, (3, 3), (2, 2))(x)
      x = nn.relu(InstanceNorm()(x))
    return nn.tanh(nn.Conv(3, (7, 7), padding='VALID')(pad(x, 3)))


def adain(x, gamma, beta):
  mean, var = jnp.mean(x, (1, 2), keepdims=True), jnp.var(x, (1, 2), keepdims=True)
  return (x - mean) * lax.rsqrt(var + 1e-5) * gamma[:, None, None] + beta[:, None, None]


class FUNIT(nn.Module):
  """FUNIT (Liu et al. 2019): one MLP gives the AdaIN parameters of all blocks, which take their
  share by number."""
  features: int = 6
  blocks: int = 2

  @nn.compact
  def __call__(self, x):
    style = x
    for i in (1, 2):
      style = nn.relu(nn.Conv(i * self.features, (4, 4), (2, 2), name=f'style{i}')(style))
    style = nn.Conv(5, (1, 1), name='code')(style.mean((1, 2), keepdims=True)).reshape(
        x.shape[0], -1)
    for i in (1, 2):
      x = nn.Conv(i * self.features, (4, 4), (2, 2), name=f'content{i}')(x)
      x = nn.relu(InstanceNorm()(x))
    c = x.shape[-1]
    style = nn.relu(nn.Dense(14, name='mlp1')(style))
    parameters = nn.Dense(4 * c * self.blocks, name='mlp2')(style)
    taken = 0
    for i in range(self.blocks):
      y = x
      for j in range(2):
        y = nn.Conv(c, (3, 3), name=f'block{i}_conv{j}')(y)
        gamma, beta = parameters[:, taken:taken + c], parameters[:, taken + c:taken + 2 * c]
        y = adain(y, gamma, beta)
        y = y if j else nn.relu(y)
        taken += 2 * c
      x = x + y
    for i in (2, 1):
      x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
      x = nn.Conv(x.shape[-1] // 2, (5, 5), name=f'up{i}')(x)
      x = nn.relu(nn.LayerNorm(reduction_axes=(1, 2, 3), name=f'norm{i}')(x))
    return nn.tanh(nn.Conv(3, (7, 7), name='image')(x))


class MobileStyleBlock(nn.Module):
  """Of MobileStyleGAN: a modulated input, depthwise, 1x1, demodulated by the whole kernel."""
  features: int

  @nn.compact
  def __call__(self, x, w):
    c = x.shape[-1]
    style = 1 + nn.Dense(c, name='style')(w)
    depthwise = self.param('depthwise', nn.initializers.lecun_normal(), (3, 3, 1, c))
    pointwise = self.param('pointwise', nn.initializers.lecun_normal(), (1, 1, c, self.features))
    x = x * style[:, None, None]
    x = lax.conv_general_dilated(x, depthwise, (1, 1), 'SAME', feature_group_count=c,
                                 dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
    x = lax.conv_general_dilated(x, pointwise, (1, 1), 'SAME',
                                 dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
    whole = depthwise[:, :, 0, :, None] * pointwise[0]  # [3, 3, I, O]
    energy = jnp.einsum('ni,hwio->no', style ** 2, whole ** 2)
    x = x * lax.rsqrt(energy + 1e-8)[:, None, None]
    return nn.leaky_relu(x + self.param('bias', nn.initializers.zeros, (self.features,)), 0.2)


def inverse_haar(x):
  """[N, H, W, 4 C] of wavelets -> [N, 2 H, 2 W, C]."""
  a, b, c, d = jnp.split(x, 4, axis=-1)
  n, h, w, channels = a.shape
  top = jnp.stack([a + b + c + d, a - b + c - d], axis=3)
  bottom = jnp.stack([a + b - c - d, a - b - c + d], axis=3)
  x = jnp.stack([top, bottom], axis=2)  # [N, H, 2, W, 2, C]
  return x.reshape(n, 2 * h, 2 * w, channels) / 2


class MobileStyleGAN(nn.Module):
  """MobileStyleGAN (Belousov 2021): depthwise separable, grows by inverse wavelets."""
  channels: Sequence[int] = (12, 8)

  @nn.compact
  def __call__(self, z):
    w = nn.leaky_relu(nn.Dense(7, name='mapping')(z), 0.2)
    x = self.param('const', nn.initializers.normal(), (1, 4, 4, self.channels[0]))
    x = jnp.tile(x, (z.shape[0], 1, 1, 1))
    for i, width in enumerate(self.channels):
      x = MobileStyleBlock(4 * width, name=f'up{i}')(x, w)
      x = inverse_haar(x)
      x = MobileStyleBlock(width, name=f'block{i}')(x, w)
    return inverse_haar(nn.Conv(12, (1, 1), name='wavelets')(x))


def windows(x, size):
  n, h, w, c = x.shape
  x = x.reshape(n, h // size, size, w // size, size, c).transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(-1, size * size, c)


def joined(x, size, h, w):
  c = x.shape[-1]
  x = x.reshape(-1, h // size, w // size, size, size, c).transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(-1, h, w, c)


class WindowAttention(nn.Module):
  heads: int
  size: int

  @nn.compact
  def __call__(self, x):
    n, tokens, c = x.shape
    dim = c // self.heads
    qkv = nn.Dense(3 * c, name='qkv')(x).reshape(n, tokens, 3, self.heads, dim)
    q, k, v = qkv.transpose(2, 0, 3, 1, 4)
    table = self.param('bias_table', nn.initializers.truncated_normal(0.02),
                       ((2 * self.size - 1) ** 2, self.heads))
    place = jnp.stack(jnp.meshgrid(*[jnp.arange(self.size)] * 2, indexing='ij')).reshape(2, -1)
    apart = place[:, :, None] - place[:, None] + self.size - 1
    bias = table[apart[0] * (2 * self.size - 1) + apart[1]].transpose(2, 0, 1)
    weights = nn.softmax(q @ k.swapaxes(-2, -1) * dim ** -0.5 + bias)
    y = (weights @ v).transpose(0, 2, 1, 3).reshape(n, tokens, c)
    return nn.Dense(c, name='proj')(y)


class SwinBlock(nn.Module):
  heads: int
  size: int
  shift: int

  @nn.compact
  def __call__(self, x):
    _, h, w, c = x.shape
    y = nn.LayerNorm()(x)
    y = jnp.roll(y, (-self.shift, -self.shift), (1, 2))
    y = joined(WindowAttention(self.heads, self.size)(windows(y, self.size)), self.size, h, w)
    x = x + jnp.roll(y, (self.shift, self.shift), (1, 2))
    y = nn.gelu(nn.Dense(2 * c, name='fc1')(nn.LayerNorm()(x)))
    return x + nn.Dense(c, name='fc2')(y)


class SwinIR(nn.Module):
  """SwinIR (Liang et al. 2021), after Swin (Liu et al. 2021)."""
  features: int = 12

  @nn.compact
  def __call__(self, x):
    x = first = nn.Conv(self.features, (3, 3), name='first')(x)
    for i in range(2):
      x = SwinBlock(3, 4, 2 * (i % 2), name=f'block{i}')(x)
    x = first + nn.Conv(self.features, (3, 3), name='after')(nn.LayerNorm()(x))
    x = nn.leaky_relu(nn.Conv(8, (3, 3), name='before_up')(x))
    return pixel_shuffle(nn.Conv(3 * 4, (3, 3), name='up')(x), 2)


REAL = {
    # Streams of 8, 16, 32, and the inner channels of each of 4 blocks: 8, 16, 16, 32.
    'resnet': Case(module(ResNet), 7, 128),
    # 8 with 16 copies, 10, 6.
    'vae decoder': Case(module(VAEDecoder), 3, 24, refused=('fc',), shape=(1, 5)),
    # The stream from head to body_end, 3 blocks' inner channels, 8 with 4 copies at each of 2
    # upsamplers.
    'edsr': Case(module(EDSR), 6, 48),
    # Down 4, 4, 6, 6, 8, 8, of which every other is a skip; up to 6: 6 of the resized, 3 of the
    # gate, 6, 6; up to 4: 4, 2, 4, 4. What a gate multiplies by is one channel.
    'attention unet': Case(module(AttentionUNet), 14, 71),
    # Three times 8 of the mapping network, 10 of the constant, 10 after it, 8, 8, 6, 6. A style has
    # the channels that it scales. Weights are divided by the root of a width, which is read off.
    'stylegan2': Case(module(StyleGAN2), 9, 72, 'approximate',
                      ('mapping0', 'mapping1', 'mapping2'), refused=tuple(
                          f'{name}/ModulatedConv_0' for name in (
                              'conv4', 'conv8_up', 'conv8', 'conv16_up', 'conv16')), shape=(1, 8)),
    # The stream, 2 blocks' inner channels, twice 8 with 4 copies. A slope is one number.
    'srresnet': Case(module(SRResNet), 5, 40),
    # 6, 12, the stream of 24, 2 blocks' inner 24, 12, 6.
    'cyclegan': Case(module(CycleGAN), 7, 108),
    # Style 6, 12, 5, MLP 14; content 6, the stream of 12, 2 blocks' inner 12, 6, 3. By the code
    # all shares of the parameters are as wide as the stream, so it runs if blocks are, too.
    'funit': Case(module(FUNIT), 10, 88, 'approximate', ('up1', 'up2'),
                  refused=('content2', 'mlp2')),
    # 7 of the mapping network, 12 of the constant, 12 with 4 copies, 12, 8 with 4 copies, 8.
    'mobilestylegan': Case(module(MobileStyleGAN), 6, 59, shape=(1, 8)),
    # The stream of 12; in each of 2 blocks 24 of the MLP and 4 dims of queries, keys and values,
    # which are one array of 3 times 3 heads times dims; 8. The colours of the pixel shuffle stay.
    # The dims are the stream's by the code.
    'swinir': Case(module(SwinIR), 6, 76, 'approximate', ('first',), refused=(
        'first', 'block0/WindowAttention_0/qkv', 'block1/WindowAttention_0/qkv')),
}
