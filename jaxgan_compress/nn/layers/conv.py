"""Convolutions with PyTorch's geometry, NHWC and HWIO, and what networks end and begin with."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from jaxgan_compress.nn.layers import (
  conv_cpu,
  conv_dispatch,
  conv_tpu,
  few_channels_tpu,
  upsample_cpu,
)
from jaxgan_compress.nn.layers.norms import (
  InstanceNorm,
  at_least_float32,
  parameter,
  per_channel,
)
from jaxgan_compress.nn.layers.resample import pad

Layer = TypeVar('Layer', bound=nn.Module)


class Conv(nn.Module):
  """A k x k convolution, padded by k // 2 on every side unless `padding` says otherwise: Conv2d.

  x: [B,H,W,C] -> [B,H',W',features]. The kernel is `[k,k,C,features]`, with `depthwise`
  `[k,k,1,C]`, one filter a channel (`features` must be C, stride 1).

  With `spectral` the kernel is divided by an estimate of its largest singular value, with PyTorch's
  state: vectors u `[features]` and v `[k,k,C]` in the collection 'spectral'. Each call in training
  takes one power iteration, v = unit(W u), u = unit(W' v), before the estimate v' W u; no gradient
  flows through u and v. Miyato et al. 2018.
  """
  features: int
  kernel: int = 3
  stride: int = 1
  padding: int | None = None
  mode: str = 'zero'
  bias: bool = True
  depthwise: bool = False
  spectral: bool = False
  implementation: str = 'auto'
  dtype: jnp.dtype = jnp.float32

  def __call__(self, x, train: bool = False):
    kernel, bias = self.weights(x.shape[-1], train)
    amount = self.kernel // 2 if self.padding is None else self.padding
    return convolve(x.astype(self.dtype), kernel, bias, self.stride, amount, self.mode,
                    self.implementation)

  @nn.compact
  def weights(self, inputs: int, train: bool = False):
    """(kernel, bias or None) as they apply to so many channels, for merged convolutions."""
    _check_width(self)
    if self.depthwise and (self.features != inputs or self.stride != 1):
      raise ValueError(f'a depthwise convolution of {inputs} channels has as many features '
                       f'and stride 1; got {self.features} and {self.stride}')
    shape = (self.kernel, self.kernel, 1 if self.depthwise else inputs, self.features)
    kernel = _kernel(self, shape)
    if self.spectral:
      kernel = kernel / self._norm(kernel, train)
    return kernel.astype(self.dtype), _bias(self) if self.bias else None

  def _norm(self, kernel, train):
    matrix = kernel.reshape(-1, self.features)
    u = self.variable('spectral', 'u', self._vector, (self.features,))
    v = self.variable('spectral', 'v', self._vector, kernel.shape[:-1])
    left, right = v.value.reshape(-1), u.value
    if train and not self.is_initializing():
      constant = lax.stop_gradient(matrix)
      left = _unit(constant @ right)
      right = _unit(constant.T @ left)
      if self.is_mutable_collection('spectral'):
        u.value, v.value = right, left.reshape(v.value.shape)
    # No matmul, for it is none of the network's own: at rest sigma is a constant.
    return (matrix * jnp.outer(left, right)).sum()

  def _vector(self, shape):
    return _unit(jax.random.normal(self.make_rng('params'), shape))


class PReLU(nn.Module):
  """x where it is not negative, and slope x elsewhere: one slope a channel. He et al. 2015.

  x: [B,H,W,C] -> the same shape. Slopes, `[C]`, start at 0.25; published ones may be negative or
  above 1.
  """

  @nn.compact
  def __call__(self, x):
    slope = parameter(self, 'slope', nn.initializers.constant(0.25), (x.shape[-1],))
    return prelu(x, slope.astype(x.dtype))


class SeparableConv(nn.Module):
  """A depthwise k x k convolution, a norm without parameters, a 1x1 convolution; all biased.

  x: [B,H,W,C] -> [B,H,W,features]. `norm` False leaves the norm out. The separable convolution of
  GAN Compression (Li et al. 2020) and OMGD.
  """
  features: int
  kernel: int = 3
  mode: str = 'zero'
  norm: bool = True
  implementation: str = 'auto'
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x):
    conv = layer_of(self, Conv)
    x = conv(x.shape[-1], self.kernel, mode=self.mode, depthwise=True, name='depthwise')(x)
    x = InstanceNorm()(x) if self.norm else x
    return conv(self.features, 1, name='pointwise')(x)


class LatentProjection(nn.Module):
  """A 4x4 transposed convolution of a 1x1 map, as the one matmul that it is.

  z: [B,D] -> [B,4,4,features]. The kernel `[4,4,D,features]` is that of a stride-1
  `nn.ConvTranspose`, which reads it with both spatial axes flipped.
  """
  features: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, z):
    kernel = _kernel(self, (4, 4, z.shape[-1], self.features))
    matrix = kernel[::-1, ::-1].astype(self.dtype).transpose(2, 0, 1, 3)
    y = z.astype(self.dtype) @ matrix.reshape(z.shape[-1], -1)
    return y.reshape(-1, 4, 4, self.features) + per_channel(_bias(self))


class UpConv(nn.Module):
  """A transposed convolution of stride 2 that doubles the image: PyTorch's k4 s2 p1, or k3 s2 p1
  with output_padding 1.

  x: [B,h,w,C] -> [B,2h,2w,features]. The kernel `[k,k,C,features]` is that of
  `nn.ConvTranspose`: PyTorch's with both spatial axes flipped.

  The 'subpixel' implementation is exact. Output rows of one parity see the input through some of
  the kernel's rows only, so the four output phases are ordinary convolutions, here matmuls on
  shifted slices, interleaved. No tap is wasted on zeros, and the gradients are matmuls too. Of wide
  layers it is for the gradient alone.

  Raises ValueError for another kernel size.
  """
  features: int
  kernel: int = 4
  bias: bool = True
  implementation: str = 'auto'
  dtype: jnp.dtype = jnp.float32

  def __call__(self, x):
    (kernel, bias), x = self.weights(x.shape[-1]), x.astype(self.dtype)
    run = upsample_cpu.choose(x, kernel, self.implementation)
    if run is upsample_cpu.transposed:
      run = few_channels_tpu.choose_transposed(x, kernel, self.implementation) or \
          conv_tpu.choose_transposed(x, kernel, self.implementation) or run
    y = run(x, kernel)
    return y if bias is None else y + per_channel(bias)

  @nn.compact
  def weights(self, inputs: int):
    """(kernel, bias or None) as they apply to so many channels."""
    if self.kernel not in (3, 4):
      raise ValueError(f'kernel={self.kernel}; a transposed convolution here has 3 or 4')
    _check_width(self)
    kernel = _kernel(self, (self.kernel, self.kernel, inputs, self.features))
    return kernel.astype(self.dtype), _bias(self) if self.bias else None


def convolve(x, kernel, bias=None, stride: int = 1, amount: int = 0, mode: str = 'zero',
             implementation: str = 'auto'):
  """x [B,H,W,C], padded by `amount` on every side, convolved with kernel [k,k,C,features], or
  [k,k,1,C] one filter a channel, plus bias [features]. -> [B,H',W',features].

  mode: of the padding, see `pad`. implementation: see `nn.layers.conv_dispatch`.
  """
  if of_few := few_channels_tpu.choose(x, kernel, stride, amount, mode, implementation):
    y = of_few(x, kernel)
  else:
    if mode != 'zero':
      x, amount = pad(x, amount, mode, implementation), 0
    run = conv_cpu.choose(x, kernel, stride, amount, implementation)
    if run is conv_cpu.convolution:
      run = conv_tpu.choose(x, kernel, stride, amount, implementation) or run
    y = run(x, kernel, stride, amount)
  return y if bias is None else y + per_channel(bias)


def merges(x, implementation: str = 'auto') -> bool:
  """Whether convolutions of x, and those whose results are summed, are better computed as one. A
  TPU's products of few images gain nothing by it."""
  return conv_dispatch.is_optimized('branches', implementation) and not conv_tpu.few_images(
      x, implementation)


def convolve_together(convs: Sequence[Conv], x, train: bool = False):
  """What each of several `Conv`s, alike but in width, makes of x: one convolution, then split."""
  kernels, bias, conv = *_weights(convs, [x] * len(convs), train), convs[0]
  y = convolve(x.astype(conv.dtype), jnp.concatenate(kernels, -1),
               jnp.concatenate(bias) if conv.bias else None, amount=conv.kernel // 2,
               mode=conv.mode, implementation=conv.implementation)
  return jnp.split(y, np.cumsum([conv.features for conv in convs])[:-1], -1)


def convolve_sum(convs: Sequence[Conv], inputs: Sequence, train: bool = False):
  """The sum of what 1x1 `Conv`s to one width make, each of its input, as one convolution."""
  kernels, bias, conv = *_weights(convs, inputs, train), convs[0]
  return convolve(jnp.concatenate(inputs, -1).astype(conv.dtype), jnp.concatenate(kernels, 2),
                  sum(bias) if conv.bias else None, implementation=conv.implementation)


def _weights(convs, inputs, train):
  return zip(*(conv.weights(x.shape[-1], train) for conv, x in zip(convs, inputs, strict=True)),
             strict=True)


def layer_of(network: Any, layer: type[Layer], **fields) -> Callable[..., Layer]:
  """`layer` with these fields, and the implementation and dtype of the network that it is of."""
  return functools.partial(layer, implementation=network.implementation, dtype=network.dtype,
                           **fields)


def maybe_remat(block: type[nn.Module], remat: bool, inputs: int = 1) -> type[nn.Module]:
  """A block that is called with so many arrays, `train` and `axes`. With `remat` it stores its
  inputs alone and computes the rest again for its gradient: `jax.checkpoint`."""
  if not remat or conv_dispatch.counting():
    return block
  return nn.remat(block, static_argnums=(inputs + 1, inputs + 2))


@conv_dispatch.operation
def leaky_relu(x, slope: float = 0.2):
  """max(x, slope x), ReLU for slope 0; its gradient at 0 is `slope`, as in PyTorch."""
  return _leaky_relu(x, slope) if slope else jax.nn.relu(x)


@functools.partial(jax.jit, static_argnums=1)  # one operation, as jax.nn.leaky_relu
def _leaky_relu(x, slope):
  return jnp.where(x > 0, x, slope * x)  # whose gradient at 0 is 1 in jax.nn.leaky_relu


@conv_dispatch.operation
def prelu(x, slope):
  """x [B,H,W,C] where it is not negative, and slope [C] times x elsewhere."""
  return jnp.where(x >= 0, x, per_channel(slope) * x)


def to_tanh_float32(x):
  """tanh in float32 or wider: an image in [-1, 1]."""
  return jnp.tanh(at_least_float32(x))


def _check_width(module):
  if not isinstance(module.features, int | np.integer) or module.features < 1:
    raise ValueError(f'{"/".join(module.path) or "a convolution"} would have {module.features!r} '
                     'channels; widths are whole numbers from 1')


def _kernel(module, shape):
  return parameter(module, 'kernel', nn.initializers.normal(0.02), shape)


def _bias(module):
  bias = parameter(module, 'bias', nn.initializers.zeros_init(), (module.features,))
  return bias.astype(module.dtype)


def _unit(x):
  return x / jnp.maximum(jnp.linalg.norm(x), 1e-12)
