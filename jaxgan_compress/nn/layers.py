"""Layers with PyTorch's semantics, NHWC and HWIO."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from jaxgan_compress.axes import Axes
from jaxgan_compress.nn import forms

normal = nn.initializers.normal


class BatchNorm(nn.Module):
  """(x - mean) / sqrt(var + epsilon) * scale + bias over B, H, W, as PyTorch's BatchNorm2d.

  Training takes the batch's statistics (biased variance, centred before squaring, float32), over
  all replicas of `axes`, and moves the running ones, variance from the unbiased estimate.
  Inference takes the running ones, so each image is a function of its own input alone. With
  `track=False` there are none and the batch's are always used.

  x: [B,H,W,C] -> the same shape and dtype.
  """
  momentum: float = 0.9  # PyTorch's momentum is one minus this
  epsilon: float = 1e-5
  track: bool = True

  @nn.compact
  def __call__(self, x, train: bool, axes: Axes = Axes()):
    channels = x.shape[-1]
    scale = self.param('scale', nn.initializers.ones_init(), (channels,))
    bias = self.param('bias', nn.initializers.zeros_init(), (channels,))
    if self.track:
      running_mean = self.variable('batch_stats', 'mean', jnp.zeros, (channels,))
      running_var = self.variable('batch_stats', 'var', jnp.ones, (channels,))
    y = x.astype(jnp.float32)
    if self.track and not train:
      mean, var = running_mean.value, running_var.value
    else:
      mean = axes.mean(y.mean((0, 1, 2)))
      var = axes.mean(jnp.square(y - _channels(mean)).mean((0, 1, 2)))
      if self.track and self.is_mutable_collection('batch_stats') and not self.is_initializing():
        count = y.size // channels * axes.count
        unbiased = var * (count / max(count - 1, 1))
        running_mean.value += (1 - self.momentum) * (mean - running_mean.value)
        running_var.value += (1 - self.momentum) * (unbiased - running_var.value)
    y = (y - _channels(mean)) * _channels(lax.rsqrt(var + self.epsilon) * scale)
    return (y + _channels(bias)).astype(x.dtype)


class LayerNorm(nn.Module):
  """The same with mean and variance of each sample over H, W, C: safe with a gradient penalty.

  x: [B,H,W,C] -> the same shape and dtype; `scale` and `bias` are per channel.
  """
  epsilon: float = 1e-5

  @nn.compact
  def __call__(self, x):
    scale = self.param('scale', nn.initializers.ones_init(), x.shape[-1:])
    bias = self.param('bias', nn.initializers.zeros_init(), x.shape[-1:])
    y = x.astype(jnp.float32)
    y = y - y.mean((1, 2, 3), keepdims=True)
    y = y * lax.rsqrt(jnp.square(y).mean((1, 2, 3), keepdims=True) + self.epsilon)
    return (y * _channels(scale) + _channels(bias)).astype(x.dtype)


class Project(nn.Module):
  """A 4x4 transposed convolution of a 1x1 map, as the one matmul that it is.

  z: [B,D] -> [B,4,4,features]. The kernel `[4,4,D,features]` is that of a stride-1
  `nn.ConvTranspose`, which reads it with both spatial axes flipped.
  """
  features: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, z):
    kernel = self.param('kernel', normal(0.02), (4, 4, z.shape[-1], self.features))
    bias = self.param('bias', nn.initializers.zeros_init(), (self.features,))
    kernel = kernel[::-1, ::-1].astype(self.dtype).transpose(2, 0, 1, 3)
    y = z.astype(self.dtype) @ kernel.reshape(z.shape[-1], -1)
    return y.reshape(-1, 4, 4, self.features) + _channels(bias.astype(self.dtype))


class UpConv(nn.Module):
  """A 4x4, stride-2 transposed convolution that doubles the image: PyTorch's k4 s2 p1.

  x: [B,h,w,C] -> [B,2h,2w,features]. The kernel `[4,4,C,features]` is that of
  `nn.ConvTranspose(..., padding='SAME')`: PyTorch's with both spatial axes flipped.

  The 'subpixel' form is exact. Row 2m+p of the uncropped output gathers input rows m and m-1
  through kernel rows p and 2+p, so all four output phases are one 2x2 convolution to
  4*features channels, here a matmul on shifted slices, followed by depth-to-space and a crop
  of one pixel. No tap is wasted on zeros, and its gradients are matmuls too.
  """
  features: int
  impl: str = 'auto'  # 'auto' | 'transpose' | 'subpixel'
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x):
    kernel = self.param('kernel', normal(0.02), (4, 4, x.shape[-1], self.features))
    bias = self.param('bias', nn.initializers.zeros_init(), (self.features,))
    x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
    if forms.upsample(self.impl) == 'subpixel':
      y = _subpixel(x, kernel)
    else:
      y = lax.conv_transpose(x, kernel, (2, 2), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
    return y + _channels(bias.astype(self.dtype))


def leaky_relu(x):
  """max(x, 0.2 x), the slope of DCGAN's discriminator."""
  return jax.nn.leaky_relu(x, 0.2)


def _channels(x):
  return x.reshape(1, 1, 1, -1)


def _subpixel(x, kernel):
  B, h, w, C = x.shape
  features = kernel.shape[-1]
  taps = kernel.reshape(2, 2, 2, 2, C, features)[:, ::-1, :, ::-1]  # (tap, phase) of rows, columns
  taps = taps.transpose(0, 2, 4, 1, 3, 5).reshape(4 * C, 4 * features)
  x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  x = jnp.concatenate([x[:, :-1, :-1], x[:, :-1, 1:], x[:, 1:, :-1], x[:, 1:, 1:]], -1)
  y = (x @ taps).reshape(B, h + 1, w + 1, 2, 2, features)
  y = y.transpose(0, 1, 3, 2, 4, 5).reshape(B, 2 * h + 2, 2 * w + 2, features)
  return y[:, 1:-1, 1:-1]
