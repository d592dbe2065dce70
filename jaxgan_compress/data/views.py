"""How images are resized, cropped and flipped for a network, on the host or on the device."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxgan_compress.core.arguments import one_of
from jaxgan_compress.data.decode import opencv

PREPROCESS = ('resize_and_crop', 'scale_width', 'scale_width_and_crop', 'crop', 'none')
BACKENDS = ('pillow', 'opencv', 'device')
NEAREST = ('label_map', 'instances')  # resized without interpolation: they hold numbers


@dataclasses.dataclass(frozen=True)
class View:
  """Images of any size become images of one size, with the options of the pix2pix code.

  size: pixels that come out, one number or (height, width). load: pixels before the random crop
  (default: `size` + 12 %, as 286 for 256), one number or (height, width).
  flip: mirror every second training image. preprocess:

  * 'resize_and_crop': to `load`, whatever the shape; a random crop of `size`.
  * 'scale_width': to `size` pixels of width, keeping the shape. No crop: `size` is one number, and
    all images must have one shape.
  * 'scale_width_and_crop': to `load` pixels of width; a random crop of `size`.
  * 'crop': a random crop of the image as it is. 'none': the image as it is.

  For evaluation nothing is random: the whole image at `size` where the first two resize it, the
  centre where the next two crop.

  backend: what resizes, bicubic (label maps: nearest). 'pillow' is the reference; 'opencv' enlarges
  and mirrors three times as fast, and differs by a few grey levels (up to 5 seen, 0.4 on average);
  where it would shrink, Pillow does; 'device' sends the image as it is and resizes
  inside the training step, in one operation, to float precision, for images of one size.

  Raises ValueError for settings that contradict each other.
  """
  size: int | tuple[int, int] = 256
  load: int | tuple[int, int] | None = None
  flip: bool = True
  preprocess: str = 'resize_and_crop'
  backend: str = 'pillow'

  def __post_init__(self):
    one_of('preprocess', self.preprocess, PREPROCESS)
    one_of('backend', self.backend, BACKENDS)
    _check_pixels('size', self.size)
    if self.load is not None:
      _check_pixels('load', self.load)
    # 'scale_width_and_crop' takes the height of `load` from the image.
    sides = {'resize_and_crop': (0, 1), 'scale_width_and_crop': (1,)}.get(self.preprocess, ())
    if any(self._load[side] < self._size[side] for side in sides):
      raise ValueError(f'a crop of size={self.size} does not fit into load={self.load}; make load '
                       'at least as large')
    if self.preprocess == 'scale_width' and isinstance(self.size, tuple):
      raise ValueError(f"size={self.size}: preprocess='scale_width' takes the width alone")
    if self.backend == 'opencv':
      opencv()
    if self.backend == 'device' and self.preprocess != 'resize_and_crop':
      raise ValueError("backend='device' does preprocess='resize_and_crop' only; use 'pillow'")

  @property
  def _size(self) -> tuple[int, int]:
    return _pair(self.size)

  @property
  def _load(self) -> tuple[int, int]:
    height, width = self._size
    return (round(height * 286 / 256), round(width * 286 / 256)) if self.load is None \
        else _pair(self.load)

  def shape(self, height: int, width: int) -> tuple[int, int]:
    """The size in training of an image of height x width. Raises ValueError if it is too small."""
    resized = self._resized(height, width, training=True)
    if 'crop' not in self.preprocess:
      return self._resized(height, width, training=False)
    if resized[0] < self._size[0] or resized[1] < self._size[1]:
      scaled = f', {resized[0]}x{resized[1]} as resized,' if resized != (height, width) else ''
      raise ValueError(f'{height}x{width} pixels{scaled} are fewer than the crop of '
                       f'{self._size[0]}x{self._size[1]}; make size smaller'
                       + (', load larger' if self.preprocess == 'scale_width_and_crop' else '')
                       + ", or use preprocess='resize_and_crop'")
    return self._size

  def plan(self, height: int, width: int, rng: np.random.Generator | None) -> Plan:
    """How to resize, crop and flip an image of height x width: at random, or as evaluation if rng
    is None."""
    resized = self._resized(height, width, training=rng is not None)
    top = left = 0
    out = resized
    if 'crop' in self.preprocess and resized != self._size:
      out = self._size
      room = resized[0] - out[0], resized[1] - out[1]
      # From 0 to room in each direction, both included, as in the original code.
      top, left = (side // 2 for side in room) if rng is None else \
          (int(rng.integers(0, side + 1)) for side in room)
    flip = self.flip and rng is not None and bool(rng.random() < 0.5)
    return Plan(resized, top, left, out, flip)

  def apply(self, arrays: Mapping[str, np.ndarray], plan: Plan) -> dict[str, np.ndarray]:
    """Every array [H,W] or [H,W,C] of one element, resized, cropped and flipped alike."""
    if self.backend == 'device':
      return {**arrays, 'plan': np.array([plan.top, plan.left, *plan.resized, plan.flip],
                                         np.int32)}
    return {name: self._apply(x, plan, name in NEAREST) for name, x in arrays.items()}

  def on_device(self, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Carries out the plans of a batch: uint8 or uint16 [B,H,W,C] -> float32 [B,h,w,C] in [-1, 1].
    """
    if self.backend != 'device':
      return dict(batch)
    return {name: jax.vmap(self._scale)(x, batch['plan']) if x.ndim == 4 else x
            for name, x in batch.items() if name != 'plan'}

  def _resized(self, height, width, *, training) -> tuple[int, int]:
    if self.preprocess == 'resize_and_crop':
      return self._load if training else self._size
    if self.preprocess in ('scale_width', 'scale_width_and_crop'):
      scaled = self._load[1] if self.preprocess == 'scale_width_and_crop' else self._size[1]
      return round(height * scaled / width), scaled
    return height, width

  def _apply(self, x, plan, nearest):
    (h, w), top, left = plan.out, plan.top, plan.left
    height, width = plan.resized
    # OpenCV's cubic does not average what it skips, and its nearest is off by half a step.
    shrinks = height < x.shape[0] or width < x.shape[1]
    if self.backend == 'opencv' and not nearest and not shrinks:
      cv2 = opencv()
      if x.shape[:2] != plan.resized:
        x = cv2.resize(x, (width, height), interpolation=cv2.INTER_CUBIC).reshape(
            height, width, *x.shape[2:])
      x = x[top:top + h, left:left + w]
      return cv2.flip(x, 1).reshape(x.shape) if plan.flip else x  # NumPy would take 5 times as long
    return _with_pillow(x, plan, nearest)

  def _scale(self, x, plan):
    top, left, height, width, flip = plan
    y = jax.image.scale_and_translate(
        x.astype(jnp.float32), (*self._size, x.shape[-1]), (0, 1),
        jnp.array([height / x.shape[0], width / x.shape[1]], jnp.float32),
        -jnp.array([top, left], jnp.float32), 'cubic', antialias=True)
    most = jnp.iinfo(x.dtype).max
    return jnp.where(flip, y[:, ::-1], y).clip(0, most) / (most / 2) - 1


@dataclasses.dataclass(frozen=True)
class Plan:
  """Resize to `resized`, crop `out` (both height, width) at (top, left), mirror if `flip`."""
  resized: tuple[int, int]
  top: int
  left: int
  out: tuple[int, int]
  flip: bool


def _with_pillow(x, plan, nearest):
  (h, w), top, left = plan.out, plan.top, plan.left
  height, width = plan.resized
  if not nearest and (x.dtype == np.uint16 or x.shape[2:] not in ((), (1,), (3,))):
    x = x if x.shape[:2] == plan.resized else resized(x, height, width)
    x = x[top:top + h, left:left + w]
    return np.ascontiguousarray(x[:, ::-1] if plan.flip else x)
  flat = x.reshape(x.shape[:2]) if x.shape[2:] in ((), (1,)) else x
  image = Image.fromarray(flat if x.dtype == np.uint8 else flat.astype(np.int32))
  if x.shape[:2] != plan.resized:
    image = image.resize((width, height), Image.Resampling.NEAREST if nearest else
                         Image.Resampling.BICUBIC)
  if plan.out != plan.resized:
    image = image.crop((left, top, left + w, top + h))
  if plan.flip:
    image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
  return np.asarray(image).astype(x.dtype, copy=False).reshape(h, w, *x.shape[2:])


def resized(x: np.ndarray, height: int, width: int) -> np.ndarray:
  """uint8 or uint16 [H,W,C], resized bicubic by Pillow: each plane on its own, alpha too."""
  deep = x.dtype == np.uint16  # which Pillow resizes in floats
  planes = [np.asarray(Image.fromarray(plane.astype(np.float32) if deep else plane).resize(
      (width, height), Image.Resampling.BICUBIC)) for plane in np.moveaxis(x, -1, 0)]
  x = np.stack(planes, -1)
  return np.rint(x).clip(0, 65535).astype(np.uint16) if deep else x


def _pair(value) -> Any:
  return value if isinstance(value, tuple) else (value, value)


def _check_pixels(name, value):
  sides = _pair(value)
  if len(sides) != 2 or not all(isinstance(side, int | np.integer) and side > 0 for side in sides):
    raise ValueError(f'{name}={value!r}; a whole number of pixels from 1, or (height, width)')
