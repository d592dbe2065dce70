"""Picture files for a generator, and what it generated in files of the same kind.

This file needs NumPy, Pillow and `decode` alone, since exports carry a copy of both.
"""

from __future__ import annotations

import dataclasses
import io
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, JpegImagePlugin, TiffImagePlugin

from jaxgan_compress.data import decode

COLORS = ('auto', 'input', 'rgb')
QUALITY = 92  # of lossy formats where the input has none to take over
# The format and the suffix in which a picture of each format is written.
WRITTEN = {'JPEG': ('JPEG', '.jpg'), 'MPO': ('JPEG', '.jpg'), 'PNG': ('PNG', '.png'),
           'BMP': ('BMP', '.bmp'), 'DIB': ('BMP', '.bmp'), 'WEBP': ('WEBP', '.webp'),
           'AVIF': ('AVIF', '.avif'), 'JPEG2000': ('JPEG2000', '.jp2'), 'TIFF': ('TIFF', '.tif'),
           'PPM': ('PPM', '.ppm'), 'GIF': ('PNG', '.png')}  # a GIF has too few colours
SUFFIXES = {'png': ('PNG', '.png'), 'jpg': ('JPEG', '.jpg'), 'jpeg': ('JPEG', '.jpg'),
            'webp': ('WEBP', '.webp'), 'avif': ('AVIF', '.avif'), 'tif': ('TIFF', '.tif'),
            'tiff': ('TIFF', '.tif'), 'bmp': ('BMP', '.bmp'), 'jp2': ('JPEG2000', '.jp2'),
            'ppm': ('PPM', '.ppm')}
WITH_ALPHA = ('PNG', 'WEBP', 'AVIF', 'TIFF', 'JPEG2000')
WITH_16_BITS = ('PNG', 'TIFF')
LOSSY = ('JPEG', 'WEBP', 'AVIF')
DEEP = 65535


@dataclasses.dataclass(frozen=True)
class Picture:
  """What a generator reads of a picture file, and what its image takes over from the file.

  pixels: uint8 or uint16 [H,W,channels], upright, on white where it is transparent. alpha: uint8 or
  uint16 [H,W], or None for an opaque picture. grey: whether the file is grey. format: Pillow's
  name. options: for Pillow's `save`, as the tables of a JPEG.
  """
  pixels: np.ndarray
  alpha: np.ndarray | None = None
  grey: bool = False
  format: str = 'PNG'
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def array(self) -> np.ndarray:
    """What the generator takes: float32 [H,W,channels] in [-1, 1]."""
    return self.pixels.astype(np.float32) / (np.iinfo(self.pixels.dtype).max / 2) - 1

  def resized(self, height: int, width: int) -> Picture:
    """The picture at another size, bicubic with antialiasing, its alpha likewise."""
    alpha = None if self.alpha is None else resize(self.alpha[..., None], height, width)[..., 0]
    return dataclasses.replace(self, pixels=resize(self.pixels, height, width), alpha=alpha)


def read(content: bytes, channels: int = 3, *, name: str = 'the picture') -> Picture:
  """The picture in an image file, read as `decode.decode_image` does, but 16 bits stay.

  Raises ImageError for anything that is no whole image.
  """
  with decode.opened(content, name, whole=False) as (image, _):
    form, options = image.format or 'PNG', _options(image)
    grey = image.mode in ('1', 'L', 'LA', 'La', 'I') or image.mode.startswith('I;16')
  stored, alpha = decode.decode_deep(content, name=name), None
  if stored.dtype == np.uint8:
    pixels = decode.decode_image(content, channels, name=name)
  else:
    pixels = _composed(stored, channels)
  if stored.shape[-1] in (2, 4) and stored[..., -1].min() < np.iinfo(stored.dtype).max:
    alpha = stored[..., -1]
  return Picture(pixels, alpha, grey, form, options)


def to_pixels(image: np.ndarray, deep: bool = False) -> np.ndarray:
  """float [...] in [-1, 1] -> uint8, or uint16 if deep, of the same shape."""
  dtype = np.uint16 if deep else np.uint8
  half = np.iinfo(dtype).max / 2
  return np.rint((np.asarray(image, np.float32) + 1) * half).clip(0, 2 * half).astype(dtype)


def to_grey(pixels: np.ndarray) -> np.ndarray:
  """uint8 or uint16 [H,W,3] -> [H,W,1]: 0.299 R + 0.587 G + 0.114 B."""
  if pixels.shape[-1] == 1:
    return pixels
  return np.rint(pixels[..., :3] @ np.array([.299, .587, .114])).astype(pixels.dtype)[..., None]


def encode(pixels: np.ndarray, format: str, *, alpha: np.ndarray | None = None,
           quality: int | None = None, options: Mapping[str, Any] | None = None) -> bytes:
  """The bytes of an image file.

  pixels: uint8 or uint16 [h,w,1 or 3]. alpha: of the same type, [H,W], resized to the pixels; it
  is left out where the format has none, and 16 bits become 8 where the format has 8. format: of
  `WRITTEN`. quality: of lossy formats, 1 to 100; default: that of the input, or 92. options: of the
  input's `Picture`. Raises ValueError for a format that this Pillow cannot write.
  """
  if pixels.dtype == np.uint16 and format not in WITH_16_BITS:
    pixels = (pixels / 257).round().astype(np.uint8)
  if alpha is not None and format in WITH_ALPHA:
    alpha = resize(alpha[..., None], *pixels.shape[:2])
    pixels = np.concatenate([pixels, _as_type(alpha, pixels.dtype)], -1)
  options = dict(options or {})
  if pixels.dtype == np.uint16:
    write = _tiff_16_bits if format == 'TIFF' else _png_16_bits
    return write(pixels, options.get('icc_profile'))
  grey = pixels.shape[-1] == 1
  image = Image.fromarray(pixels[..., 0] if grey else pixels)
  file = io.BytesIO()
  try:
    image.save(file, format, **_saving(format, options, quality, grey))
  except (KeyError, OSError) as e:
    raise ValueError(f'this Pillow cannot write {format} ({e}); take another format') from e
  return file.getvalue()


def _saving(format, options, quality, grey) -> dict[str, Any]:
  """The arguments of Pillow's `save`, of the options of the input."""
  profile = {key: options[key] for key in ('icc_profile',) if options.get(key)}
  if format not in LOSSY:
    return profile
  if quality is not None:
    return {**profile, 'quality': quality}
  tables = () if grey else ('qtables', 'subsampling')  # a grey JPEG has one table
  kept = {key: options[key] for key in ('lossless', *tables) if key in options}
  return {**profile, **(kept or {'quality': QUALITY})}


def _options(image) -> dict[str, Any]:
  """What the image that is made of this one is to be saved with."""
  options: dict[str, Any] = {}
  if image.mode != 'CMYK' and image.info.get('icc_profile'):
    options['icc_profile'] = image.info['icc_profile']
  if image.format in ('JPEG', 'MPO') and image.mode == 'RGB':
    sampling = JpegImagePlugin.get_sampling(image)
    options |= {'qtables': image.quantization, 'subsampling': sampling if sampling >= 0 else 0}
  if image.format == 'WEBP':
    image.fp.seek(0)
    if b'VP8L' in image.fp.read(64):
      options['lossless'] = True
  return options


def _composed(stored, channels):
  """uint16 [H,W,1..4] as stored -> [H,W,channels], on white."""
  colours = stored[..., :3] if stored.shape[-1] > 2 else stored[..., :1]
  if stored.shape[-1] in (2, 4):
    share = stored[..., -1:] / DEEP
    colours = np.rint(colours * share + DEEP * (1 - share)).astype(np.uint16)
  if channels == 1:
    return to_grey(colours)
  return colours if colours.shape[-1] == channels else np.repeat(colours, channels, -1)


def _as_type(pixels, dtype):
  if pixels.dtype == dtype:
    return pixels
  return pixels.astype(np.uint16) * 257 if dtype == np.uint16 else \
      (pixels / 257).round().astype(np.uint8)


def resize(pixels, height, width):
  """[H,W,C] of uint8 or uint16 -> [height,width,C], bicubic; nothing where it has that size."""
  if pixels.shape[:2] == (height, width):
    return pixels
  most = np.iinfo(pixels.dtype).max
  planes = [np.asarray(Image.fromarray(pixels[..., i].astype(np.float32)).resize(
      (width, height), Image.Resampling.BICUBIC)) for i in range(pixels.shape[-1])]
  return np.rint(np.stack(planes, -1)).clip(0, most).astype(pixels.dtype)


def _png_16_bits(pixels, icc_profile):
  """A PNG of 16 bits, which Pillow writes of grey only; rows are stored as differences upwards."""
  height, width, channels = pixels.shape
  rows = np.ascontiguousarray(pixels.astype('>u2')).view(np.uint8).reshape(height, -1)
  rows = np.concatenate([rows[:1], np.diff(rows, axis=0)])  # modulo 256, filter 2
  filtered = np.concatenate([np.full((height, 1), 2, np.uint8), rows], 1)
  kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
  chunk = lambda name, data: struct.pack('>I', len(data)) + name + data + struct.pack(
      '>I', zlib.crc32(name + data))
  profile = chunk(b'iCCP', b'icc\0\0' + zlib.compress(icc_profile)) if icc_profile else b''
  return (b'\x89PNG\r\n\x1a\n'
          + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 16, kind, 0, 0, 0)) + profile
          + chunk(b'IDAT', zlib.compress(filtered.tobytes(), 6)) + chunk(b'IEND', b''))


def _tiff_16_bits(pixels, icc_profile):
  """A TIFF of 16 bits in one deflated strip, which Pillow writes of grey only."""
  height, width, channels = pixels.shape
  data = zlib.compress(np.ascontiguousarray(pixels.astype('<u2')).tobytes(), 6)
  head, tags = 8, TiffImagePlugin.ImageFileDirectory_v2(prefix=b'II')
  values = {256: width, 257: height, 258: (16,) * channels, 259: 8, 262: 1 if channels < 3 else 2,
            273: head, 277: channels, 278: height, 279: len(data), 284: 1}
  if channels in (2, 4):
    values[338] = 2  # the last sample is alpha, not multiplied in
  for tag, value in sorted(values.items()):
    tags[tag] = value
  if icc_profile:
    tags.tagtype[34675] = 7
    tags[34675] = icc_profile
  at = head + len(data) + len(data) % 2
  return struct.pack('<2sHI', b'II', 42, at) + data + b'\0' * (len(data) % 2) + tags.tobytes(at)
