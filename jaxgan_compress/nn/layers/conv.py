"""Convolutions and padding with PyTorch's geometry, NHWC and HWIO."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from jaxgan_compress.core import xla
from jaxgan_compress.nn.layers import conv_dispatch
from jaxgan_compress.nn.layers.norms import InstanceNorm, per_channel

PADDINGS = ('zero', 'reflect', 'replicate')
# XLA:CPU is slow in convolutions of NARROW channels or more to at most FEW, in those on a SMALL
# map, and in gradients of strided and transposed ones. Forward it is quick in transposed ones from
# WIDE channels (of 4x4 on a LARGE map), and to FEW. From BROAD channels to as many, in at least
# MANY pixels, fewer multiplications pay for the sums that they take.
FEW, NARROW, WIDE, BROAD, SMALL, MANY, LARGE = 4, 16, 64, 128, 64, 512, 1024

_LAYOUT = ('NHWC', 'HWIO', 'NHWC')

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

  def __call__(self, x, train: bool = False):
    kernel, bias = self.weights(x.shape[-1], train)
    amount = self.kernel // 2 if self.padding is None else self.padding
    return convolve(x.astype(self.dtype), kernel, bias, self.stride, amount, self.mode, self.form)

  @nn.compact
  def weights(self, inputs: int, train: bool = False):
    """(kernel, bias or None) as they apply to so many channels, for who merges convolutions."""
    _check_width(self)
    if self.depthwise and (self.features != inputs or self.stride != 1):
      raise ValueError(f'a depthwise convolution of {inputs} channels has as many features '
                       f'and stride 1; got {self.features} and {self.stride}')
    shape = (self.kernel, self.kernel, 1 if self.depthwise else inputs, self.features)
    kernel = self.param('kernel', normal(0.02), shape)
    if self.spectral:
      kernel = kernel / self._norm(kernel, train)
    return kernel.astype(self.dtype), _bias(self) if self.bias else None

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
    return y.reshape(-1, 4, 4, self.features) + per_channel(_bias(self))


class UpConv(nn.Module):
  """A transposed convolution of stride 2 that doubles the image: PyTorch's k4 s2 p1, or k3 s2 p1
  with output_padding 1.

  x: [B,h,w,C] -> [B,2h,2w,features]. The kernel `[k,k,C,features]` is that of
  `nn.ConvTranspose`: PyTorch's with both spatial axes flipped.

  The 'subpixel' form is exact. Output rows of one parity see the input through some of the
  kernel's rows only, so the four output phases are ordinary convolutions, here matmuls on shifted
  slices, interleaved. No tap is wasted on zeros, and the gradients are matmuls too. Of wide layers
  it is for the gradient alone.

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
    if conv_dispatch.choose('upsample', self.form) == 'transpose':
      run = _transposed
    else:
      pixels, depth = x.shape[1] * x.shape[2], x.shape[3]
      wide = depth >= WIDE and pixels > (LARGE if k == 4 else SMALL)
      few = depth > NARROW and self.features <= FEW and pixels > SMALL
      # The kernel is larger than all that it is applied to.
      heavy = k == 4 and pixels <= SMALL and len(x) * pixels <= depth
      run = _scattered if heavy else functools.partial(
          _upsampled, 'transpose' if wide or few else 'subpixel')
    y = run(x, kernel)
    return y + per_channel(_bias(self)) if self.bias else y


def convolve(x, kernel, bias=None, stride: int = 1, amount: int = 0, mode: str = 'zero',
             form: str = 'auto'):
  """x [B,H,W,C], padded by `amount` on every side, convolved with kernel [k,k,C,features], or
  [k,k,1,C] one filter a channel, plus bias [features]. -> [B,H',W',features].

  mode: of the padding, see `pad`. form: see `nn.layers.conv_dispatch`.
  """
  k, _, depth, features = kernel.shape
  chosen = functools.partial(conv_dispatch.choose, form=form)
  if depth < x.shape[-1] and k > 1 and chosen('depthwise') == 'taps':
    y = _taps(pad(x, amount, mode, form), kernel[:, :, 0])
  elif depth < x.shape[-1] and k == 1 and chosen('depthwise') == 'taps':
    y = pad(x, amount, mode, form) * kernel[:, :, 0][None]
  elif k == stride == 1 and depth == x.shape[-1] and chosen('pointwise') == 'matmul':
    x = pad(x, amount, mode, form)
    # Of two axes: the gradient of a product of four is slow.
    y = (x.reshape(-1, depth) @ kernel[0, 0]).reshape(*x.shape[:3], features)
  elif k > stride == 1 and depth >= NARROW and features <= FEW and chosen('few') == 'spread':
    y = _spread(pad(x, amount, mode, form), kernel)
  else:
    around = ((amount,) * 2,) * 2
    if mode != 'zero':
      x, around = pad(x, amount, mode, form), ((0, 0),) * 2
    if k == 3 and stride == 1 and _is_broad(x, kernel, around) and chosen('dense') == 'winograd':
      x = jnp.pad(x, ((0, 0), *around, (0, 0)))
      return _winograd(x, kernel) + (0 if bias is None else per_channel(bias))
    run = _convolution
    if depth == x.shape[-1] and chosen('small') == 'patches' and \
        x.shape[1] * x.shape[2] <= SMALL * stride ** 2:
      run = _by_patches
    elif stride > 1 and depth == x.shape[-1] and chosen('strided') == 'rows':
      run = _by_rows
    elif stride == 1 and mode == 'zero' and chosen('border') == 'padded':
      x, around = pad(x, amount), ((0, 0),) * 2
    y = run(x, kernel, stride, around)
  return y if bias is None else y + per_channel(bias)


@conv_dispatch.operation
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
  if any(side <= amount for side in x.shape[1:3]):  # sides may be symbols of an export
    raise ValueError(f'a map of {x.shape[1]}x{x.shape[2]} cannot be reflected by {amount} pixels; '
                     'give a larger image')
  if conv_dispatch.choose('reflect', form) == 'pad':
    return jnp.pad(x, widths, 'reflect')
  return _reflect(x, amount)


@conv_dispatch.operation
def upsample(x):
  """[B,h,w,C] -> [B,2h,2w,C], every pixel four times."""
  return x.repeat(2, 1).repeat(2, 2)


@conv_dispatch.operation
def subsample(x, height: int, width: int):
  """Nearest pixels of x [B,H,W,C] at a size that divides its own: strided, as PyTorch has it.

  `jax.image.resize` would take half-pixel centres. Raises ValueError where it does not divide.
  """
  rows, columns = x.shape[1] // height, x.shape[2] // width
  if (rows * height, columns * width) != x.shape[1:3]:
    raise ValueError(f'{height}x{width} does not divide {x.shape[1]}x{x.shape[2]}')
  return x[:, ::rows, ::columns]


def remembering(block: type[nn.Module], remat: bool, inputs: int = 1) -> type[nn.Module]:
  """A block that is called with so many arrays, `train` and `axes`; with `remat` it remembers its
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


def _bias(module):
  bias = module.param('bias', nn.initializers.zeros_init(), (module.features,))
  return bias.astype(module.dtype)


def _unit(x):
  return x / jnp.maximum(jnp.linalg.norm(x), 1e-12)


def _transposed(x, kernel):
  padding = ((2, 2),) * 2 if len(kernel) == 4 else ((1, 2),) * 2
  return lax.conv_transpose(x, kernel, (2, 2), padding, dimension_numbers=_LAYOUT)


def _subpixel(x, kernel):
  return (_subpixel4 if len(kernel) == 4 else _subpixel3)(x, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _upsampled(form, x, kernel):
  """A transposed convolution in either form, whose gradient is that of the strided convolution
  that it transposes."""
  return (_transposed if form == 'transpose' else _subpixel)(x, kernel)


def _upsampled_backward(form, saved, dy):
  x, kernel = saved
  turned = lambda kernel: kernel[::-1, ::-1].swapaxes(2, 3)
  around = ((1, 1),) * 2
  dx = _convolution(dy, turned(kernel), 2, around)
  return dx, turned(_weights_by_rows(dy, x, len(kernel), 2, around))


_upsampled.defvjp(lambda form, x, kernel: (_upsampled(form, x, kernel), (x, kernel)),
                  _upsampled_backward)


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


def _scattered(x, kernel):
  # Of few pixels most of the time would go to rearranging the kernel: here it is read as it lies,
  # one product a tap, and what came of it is put in its place.
  B, h, w, C = x.shape
  pixels = jnp.broadcast_to(x.reshape(1, -1, C), (16, B * h * w, C))
  y = jnp.einsum('tnc,tcf->tnf', pixels, kernel.reshape(16, C, -1))
  y = y.reshape(2, 2, 2, 2, B, h, w, -1)  # (tap, phase) of rows, of columns, both from the last

  def met(near, far):  # along axis 4: row m of one with row m - 1 of the other
    after, before = ([(0, 0)] * 4 + [side] + [(0, 0)] * (near.ndim - 5)
                     for side in ((0, 1), (1, 0)))
    return jnp.pad(near, after) + jnp.pad(far, before)

  y = met(y[1], y[0])[::-1]
  y = met(y[:, 1], y[:, 0])[:, ::-1]
  y = y.transpose(2, 3, 0, 4, 1, 5).reshape(B, 2 * h + 2, 2 * w + 2, -1)
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _reflect(x, amount):
  """Reflection by gathers: one operation an axis, where pieces would each compile whatever made
  x once more."""
  for axis in (1, 2):
    n = x.shape[axis]
    x = jnp.take(x, np.pad(np.arange(n), amount, 'reflect'), axis, mode='clip')
  return x


def _reflect_backward(amount, _, dy):
  # Left to itself, the gradient of a gather would be a scatter, one row after another.
  for axis in (2, 1):
    n = dy.shape[axis] - 2 * amount
    at = np.arange(n)
    inner = lax.slice_in_dim(dy, amount, n + amount, axis=axis)
    for there, source in (((at > 0) & (at <= amount), amount - at),
                          ((at >= n - 1 - amount) & (at < n - 1), 2 * (n - 1) + amount - at)):
      mirrored = jnp.take(dy, np.where(there, source, 0), axis, mode='clip')
      there = np.expand_dims(there, tuple(i for i in range(dy.ndim) if i != axis))
      inner = inner + jnp.where(there, mirrored, 0)
    dy = inner
  return (dy,)


_reflect.defvjp(lambda x, amount: (_reflect(x, amount), None), _reflect_backward)


def _convolution(x, kernel, stride, around):
  return lax.conv_general_dilated(x, kernel, (stride,) * 2, around, dimension_numbers=_LAYOUT,
                                  feature_group_count=x.shape[-1] // kernel.shape[2])


def _by_patches(x, kernel, stride, around):
  """A convolution as one matmul of what lies under the kernel: quick where pixels are few, as is
  its gradient."""
  k, _, depth, features = kernel.shape
  x = jnp.pad(x, ((0, 0), *around, (0, 0)))
  h, w = ((side - k) // stride + 1 for side in x.shape[1:3])
  seen = jnp.concatenate([x[:, i:i + stride * (h - 1) + 1:stride, j:j + stride * (w - 1) + 1:stride]
                          for i in range(k) for j in range(k)], -1)
  y = seen.reshape(-1, k * k * depth) @ kernel.reshape(-1, features)
  return y.reshape(len(x), h, w, features)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _by_rows(x, kernel, stride, around):
  """A convolution whose weight gradient is one matmul for each row of the kernel."""
  return _convolution(x, kernel, stride, around)


def _by_rows_backward(stride, around, saved, dy):
  x, kernel = saved
  dx, = jax.linear_transpose(lambda x: _convolution(x, kernel, stride, around), x)(dy)
  return dx, _weights_by_rows(x, dy, len(kernel), stride, around)


def _weights_by_rows(x, dy, k, stride, around):
  x = jnp.pad(x, ((0, 0), *around, (0, 0)))
  (h, w, features), depth = dy.shape[1:], x.shape[-1]
  wide = jnp.concatenate([x[:, :, j:j + stride * (w - 1) + 1:stride] for j in range(k)], -1)
  dy = dy.reshape(-1, features)
  rows = [wide[:, i:i + stride * (h - 1) + 1:stride].reshape(-1, k * depth).T @ dy
          for i in range(k)]
  return jnp.stack(rows).reshape(k, k, depth, features)


_by_rows.defvjp(lambda x, kernel, stride, around: (
    _convolution(x, kernel, stride, around), (x, kernel)), _by_rows_backward)


@jax.custom_vjp
def _spread(x, kernel):
  """A valid convolution to few channels: one matmul of each pixel with all taps, then the sum of
  what lies k*k pixels apart; of a large kernel one convolution by its columns, then the sum of
  what lies k pixels apart. Its gradient is quick as it is."""
  k, _, depth, features = kernel.shape
  h, w = x.shape[1] - k + 1, x.shape[2] - k + 1
  if k > 4:
    columns = kernel.transpose(0, 2, 1, 3).reshape(k, 1, depth, -1)
    y = _convolution(x, columns, 1, ((0, 0),) * 2).reshape(len(x), h, x.shape[2], k, features)
    return sum(y[:, :, j:j + w, j] for j in range(k))
  y = x @ kernel.transpose(2, 0, 1, 3).reshape(depth, -1)
  y = y.reshape(*y.shape[:3], k * k, features)
  return sum(y[:, i:i + h, j:j + w, i * k + j] for i in range(k) for j in range(k))


_spread.defvjp(
    lambda x, kernel: (_spread(x, kernel), (x, kernel)), lambda saved, dy: jax.vjp(
        lambda x, kernel: _convolution(x, kernel, 1, ((0, 0),) * 2), *saved)[1](dy))


def _is_broad(x, kernel, around):
  h, w = (side + sum(more) - 2 for side, more in zip(x.shape[1:3], around, strict=True))
  return (min(kernel.shape[2:]) >= BROAD and x.shape[-1] == kernel.shape[2] and
          not h % 2 and not w % 2 and len(x) * h * w >= MANY and jnp.finfo(x.dtype).bits >= 32)


@xla.kept_whole
def _by_tiles(x, kernel):
  """F(2x2, 3x3) of Lavin and Gray 2016: 16 products for the four outputs of a tile, not 36."""
  def into(d):
    return d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]

  def spread(g):
    return g[0], (g[0] + g[1] + g[2]) / 2, (g[0] - g[1] + g[2]) / 2, g[2]

  def back(m):
    return m[0] + m[1] + m[2], m[1] - m[2] - m[3]

  B, h, w = len(x), (x.shape[1] - 2) // 2, (x.shape[2] - 2) // 2
  taps = [spread(row) for row in spread(kernel)]
  tiles = [into([row[:, :, j:j + 2 * w - 1:2] for j in range(4)])
           for row in into([x[:, i:i + 2 * h - 1:2] for i in range(4)])]
  found = [[(d.reshape(-1, d.shape[-1]) @ g).reshape(B, h, w, -1)
            for d, g in zip(*both, strict=True)] for both in zip(tiles, taps, strict=True)]
  columns = [back([found[i][j] for i in range(4)]) for j in range(4)]
  y = jnp.stack([jnp.stack(back([column[p] for column in columns]), 3) for p in range(2)], 2)
  return y.reshape(B, 2 * h, 2 * w, -1)


@jax.custom_vjp
def _winograd(x, kernel):
  """A valid 3x3 convolution to an even height and width."""
  return _by_tiles(x, kernel)


def _winograd_backward(saved, dy):
  x, kernel = saved
  dkernel, = jax.linear_transpose(lambda k: _convolution(x, k, 1, ((0, 0),) * 2), kernel)(dy)
  return _by_tiles(pad(dy, 2), kernel[::-1, ::-1].swapaxes(2, 3)), dkernel


_winograd.defvjp(lambda x, kernel: (_winograd(x, kernel), (x, kernel)), _winograd_backward)


@xla.kept_whole
def _weighted_shifts(x, kernel):
  return functools.reduce(jnp.add, (part * per_channel(tap) for part, tap in _shifts(x, kernel)))


@xla.kept_whole
def _sums_of_shifts(x, kernel, dy):
  wide = jnp.promote_types(x.dtype, jnp.float32)
  products, k = [part * dy for part, _ in _shifts(x, kernel)], len(kernel)
  rows = [jnp.stack(products[i:i + k]) for i in range(0, k * k, k)]  # a reduction each
  return jnp.stack([row.sum((1, 2, 3), dtype=wide) for row in rows]).astype(kernel.dtype)


@jax.custom_vjp
def _taps(x, kernel):
  """A valid depthwise convolution as k*k shifted multiply-adds. x [B,H,W,C], kernel [k,k,C]."""
  return _weighted_shifts(x, kernel)


def _shifts(x, kernel):
  k = len(kernel)
  h, w = x.shape[1] - k + 1, x.shape[2] - k + 1
  return [(x[:, i:i + h, j:j + w], kernel[i, j]) for i in range(k) for j in range(k)]


def _taps_backward(saved, dy):
  # Left to itself, the gradient of every slice would be a padded copy of the whole map.
  x, kernel = saved
  dx = _weighted_shifts(pad(dy, len(kernel) - 1), kernel[::-1, ::-1])
  return dx, _sums_of_shifts(x, kernel, dy)


_taps.defvjp(lambda x, kernel: (_taps(x, kernel), (x, kernel)), _taps_backward)
