"""Convolutions and padding with PyTorch's geometry, NHWC and HWIO."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from jaxgan_compress.nn import forms
from jaxgan_compress.nn.norms import InstanceNorm, per_channel

PADDINGS = ('zero', 'reflect', 'replicate')

normal = nn.initializers.normal


class Conv(nn.Module):
  """A k x k convolution, padded by k // 2 on every side unless told otherwise: Conv2d.

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
  form: str = 'auto'
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, train: bool = False):
    _check_width(self)
    if self.depthwise and (self.features != x.shape[-1] or self.stride != 1):
      raise ValueError(f'a depthwise convolution of {x.shape[-1]} channels has as many features '
                       f'and stride 1; got {self.features} and {self.stride}')
    inputs = 1 if self.depthwise else x.shape[-1]
    kernel = self.param('kernel', normal(0.02), (self.kernel, self.kernel, inputs, self.features))
    if self.spectral:
      kernel = kernel / self._norm(kernel, train)
    amount = self.kernel // 2 if self.padding is None else self.padding
    x = pad(x.astype(self.dtype), amount, self.mode, self.form)
    kernel = kernel.astype(self.dtype)
    if self.depthwise:
      y = _depthwise(x, kernel, self.form)
    else:
      y = lax.conv_general_dilated(x, kernel, (self.stride,) * 2, 'VALID',
                                   dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
    return _biased(self, y)

  def _norm(self, kernel, train):
    matrix = kernel.reshape(-1, self.features)
    u = self.variable('spectral', 'u', self._vector, (self.features,))
    v = self.variable('spectral', 'v', self._vector, kernel.shape[:-1])
    left, right = v.value.reshape(-1), u.value
    if train and not self.is_initializing():
      fixed = lax.stop_gradient(matrix)
      left = _unit(fixed @ right)
      right = _unit(fixed.T @ left)
      if self.is_mutable_collection('spectral'):
        u.value, v.value = right, left.reshape(v.value.shape)
    # No matmul, for it is none of the network's own: at rest sigma is a constant.
    return (matrix * jnp.outer(left, right)).sum()

  def _vector(self, shape):
    return _unit(jax.random.normal(self.make_rng('params'), shape))


class SeparableConv(nn.Module):
  """A depthwise k x k convolution, a norm without parameters, a 1x1 convolution; all biased.

  x: [B,H,W,C] -> [B,H,W,features]. `norm` False leaves the norm out. The separable convolution of
  GAN Compression (Li et al. 2020) and OMGD.
  """
  features: int
  kernel: int = 3
  mode: str = 'zero'
  norm: bool = True
  form: str = 'auto'
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x):
    conv = functools.partial(Conv, form=self.form, dtype=self.dtype)
    x = conv(x.shape[-1], self.kernel, mode=self.mode, depthwise=True, name='depthwise')(x)
    x = InstanceNorm()(x) if self.norm else x
    return conv(self.features, 1, name='pointwise')(x)


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
    matrix = kernel[::-1, ::-1].astype(self.dtype).transpose(2, 0, 1, 3)
    y = z.astype(self.dtype) @ matrix.reshape(z.shape[-1], -1)
    return _biased(self, y.reshape(-1, 4, 4, self.features), bias=True)


class UpConv(nn.Module):
  """A transposed convolution of stride 2 that doubles the image: PyTorch's k4 s2 p1, or k3 s2 p1
  with output_padding 1.

  x: [B,h,w,C] -> [B,2h,2w,features]. The kernel `[k,k,C,features]` is that of
  `nn.ConvTranspose`: PyTorch's with both spatial axes flipped.

  The 'subpixel' form is exact. Output rows of one parity see the input through some of the
  kernel's rows only, so the four output phases are ordinary convolutions, here matmuls on shifted
  slices, interleaved. No tap is wasted on zeros, and the gradients are matmuls too.

  Raises ValueError for another kernel size.
  """
  features: int
  kernel: int = 4
  bias: bool = True
  form: str = 'auto'
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x):
    if self.kernel not in (3, 4):
      raise ValueError(f'kernel={self.kernel}; a transposed convolution here has 3 or 4')
    _check_width(self)
    k = self.kernel
    kernel = self.param('kernel', normal(0.02), (k, k, x.shape[-1], self.features))
    x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
    if forms.choose('upsample', self.form) == 'subpixel':
      y = (_subpixel4 if k == 4 else _subpixel3)(x, kernel)
    else:
      padding = ((2, 2),) * 2 if k == 4 else ((1, 2),) * 2
      y = lax.conv_transpose(x, kernel, (2, 2), padding,
                             dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
    return _biased(self, y)


def pad(x, amount: int, mode: str = 'zero', form: str = 'auto'):
  """x [B,H,W,C] with `amount` more rows and columns on each side.

  mode: 'zero', 'reflect' (the border is not repeated) or 'replicate'. Raises ValueError for
  another mode, or a map too small to reflect.
  """
  if mode not in PADDINGS:
    raise ValueError(f'padding={mode!r}; one of {", ".join(PADDINGS)}')
  if not amount:
    return x
  widths = ((0, 0), (amount, amount), (amount, amount), (0, 0))
  if mode == 'zero':
    return jnp.pad(x, widths)
  if mode == 'replicate':
    return jnp.pad(x, widths, 'edge')
  if min(x.shape[1:3]) <= amount:
    raise ValueError(f'a map of {x.shape[1]}x{x.shape[2]} cannot be reflected by {amount} pixels; '
                     'give a larger image')
  if forms.choose('reflect', form) == 'pad':
    return jnp.pad(x, widths, 'reflect')
  for axis in (1, 2):
    size = x.shape[axis]
    order = (*range(amount, 0, -1), None, *range(size - 2, size - 2 - amount, -1))
    x = lax.concatenate([x if i is None else lax.slice_in_dim(x, i, i + 1, axis=axis)
                         for i in order], axis)
  return x


def upsample(x):
  """[B,h,w,C] -> [B,2h,2w,C], every pixel four times."""
  return x.repeat(2, 1).repeat(2, 2)


def subsample(x, height: int, width: int):
  """Nearest pixels of x [B,H,W,C] at a size that divides its own: strided, as PyTorch has it.

  `jax.image.resize` would take half-pixel centres. Raises ValueError where it does not divide.
  """
  rows, columns = x.shape[1] // height, x.shape[2] // width
  if (rows * height, columns * width) != x.shape[1:3]:
    raise ValueError(f'{height}x{width} does not divide {x.shape[1]}x{x.shape[2]}')
  return x[:, ::rows, ::columns]


def leaky_relu(x, slope: float = 0.2):
  """max(x, slope x); ReLU, with its zero gradient at 0, for slope 0."""
  return jax.nn.leaky_relu(x, slope) if slope else jax.nn.relu(x)


def to_range(x):
  """tanh in float32 or wider: an image in [-1, 1]."""
  return jnp.tanh(x.astype(jnp.promote_types(x.dtype, jnp.float32)))


def check_images(x, channels: int, multiple: int, least: int, who: str):
  """Raises ValueError unless x is [B,H,W,channels], H and W multiples and at least `least`."""
  if x.ndim != 4 or x.shape[-1] != channels:
    raise ValueError(f'{who} takes [B,H,W,{channels}] and got {tuple(x.shape)}')
  size = x.shape[1:3]
  if any(side % multiple or side < least for side in size):
    fits = [max(least, round(side / multiple) * multiple) for side in size]
    fits = [-(-side // multiple) * multiple for side in fits]
    rule = f'multiples of {multiple}' if multiple > 1 else 'sides'
    raise ValueError(f'{who} takes {rule} from {-(-least // multiple) * multiple} and got '
                     f'{size[0]}x{size[1]}; resize or crop to {fits[0]}x{fits[1]}, for example')


def _check_width(module):
  if not isinstance(module.features, int | np.integer) or module.features < 1:
    raise ValueError(f'{"/".join(module.path) or "a convolution"} would have {module.features!r} '
                     'channels; widths are whole numbers from 1')


def _biased(module, y, bias=None):
  if module.bias if bias is None else bias:
    bias = module.param('bias', nn.initializers.zeros_init(), (module.features,))
    y = y + per_channel(bias.astype(module.dtype))
  return y


def _unit(x):
  return x / jnp.maximum(jnp.linalg.norm(x), 1e-12)


def _subpixel4(x, kernel):
  # Row 2m+p of the uncropped output gathers input rows m and m-1 through kernel rows p and 2+p:
  # all four phases are one 2x2 convolution to 4*features channels, cropped by one pixel.
  B, h, w, C = x.shape
  features = kernel.shape[-1]
  taps = kernel.reshape(2, 2, 2, 2, C, features)[:, ::-1, :, ::-1]  # (tap, phase) of rows, columns
  taps = taps.transpose(0, 2, 4, 1, 3, 5).reshape(4 * C, 4 * features)
  x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  x = jnp.concatenate([x[:, :-1, :-1], x[:, :-1, 1:], x[:, 1:, :-1], x[:, 1:, 1:]], -1)
  y = (x @ taps).reshape(B, h + 1, w + 1, 2, 2, features)
  y = y.transpose(0, 1, 3, 2, 4, 5).reshape(B, 2 * h + 2, 2 * w + 2, features)
  return y[:, 1:-1, 1:-1]


def _subpixel3(x, kernel):
  # Even rows see kernel row 1 at input row m; odd rows see rows 0 and 2 at m and m+1.
  B, h, w, _ = x.shape
  features = kernel.shape[-1]
  x = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
  rows = []
  for vertical in (((1, 0),), ((0, 0), (2, 1))):
    row = []
    for horizontal in (((1, 0),), ((0, 0), (2, 1))):
      taps = [(i, m, j, n) for i, m in vertical for j, n in horizontal]
      seen = jnp.concatenate([x[:, m:m + h, n:n + w] for _, m, _, n in taps], -1)
      row.append(seen @ jnp.concatenate([kernel[i, j] for i, _, j, _ in taps]))
    rows.append(jnp.stack(row, 3))
  return jnp.stack(rows, 2).reshape(B, 2 * h, 2 * w, features)


def _depthwise(x, kernel, form):
  if forms.choose('depthwise', form) == 'taps':
    return _taps(x, kernel[:, :, 0])
  return lax.conv_general_dilated(x, kernel, (1, 1), 'VALID', feature_group_count=x.shape[-1],
                                  dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


@jax.custom_vjp
def _taps(x, kernel):
  """A valid depthwise convolution as k*k shifted multiply-adds. x [B,H,W,C], kernel [k,k,C]."""
  return functools.reduce(jnp.add, (part * per_channel(tap) for part, tap in _shifts(x, kernel)))


def _shifts(x, kernel):
  k = len(kernel)
  h, w = x.shape[1] - k + 1, x.shape[2] - k + 1
  return [(x[:, i:i + h, j:j + w], kernel[i, j]) for i in range(k) for j in range(k)]


def _taps_forward(x, kernel):
  return _taps(x, kernel), (x, kernel)


def _taps_backward(saved, dy):
  # Left to itself, the gradient of every slice would be a padded copy of the whole map.
  x, kernel = saved
  dx = _taps(pad(dy, len(kernel) - 1), kernel[::-1, ::-1])
  wide = jnp.promote_types(x.dtype, jnp.float32)
  dk = jnp.stack([(part * dy).sum((0, 1, 2), dtype=wide) for part, _ in _shifts(x, kernel)])
  return dx, dk.reshape(kernel.shape).astype(kernel.dtype)


_taps.defvjp(_taps_forward, _taps_backward)
