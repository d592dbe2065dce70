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
# The format of what is written to files of each suffix, and the names of formats in options.
FORMATS = {**dict.fromkeys(('.jpg', '.jpeg', '.jpe', '.jfif'), 'JPEG'), '.png': 'PNG',
           '.bmp': 'BMP', '.webp': 'WEBP', '.avif': 'AVIF', '.jp2': 'JPEG2000', '.tif': 'TIFF',
           '.tiff': 'TIFF', '.ppm': 'PPM', '.pnm': 'PPM', decode.ARRAY: 'NPY'}
SUFFIXES = {name: (FORMATS[f'.{name}'], {'jpeg': '.jpg', 'tiff': '.tif'}.get(name, f'.{name}'))
            for name in ('png', 'jpg', 'jpeg', 'webp', 'avif', 'tif', 'tiff', 'bmp', 'jp2', 'ppm',
                         'npy')}
WITH_ALPHA = ('PNG', 'WEBP', 'AVIF', 'TIFF', 'JPEG2000')
WITH_16_BITS = ('PNG', 'TIFF', 'PPM', 'NPY')
LOSSY = ('JPEG', 'WEBP', 'AVIF')
LOSSLESS_TIFF = ('tiff_lzw', 'tiff_adobe_deflate', 'packbits')
COLOUR_SPACES = {1: b'GRAY', 3: b'RGB '}  # bytes 16 to 20 of the ICC profile of an image


@dataclasses.dataclass(frozen=True)
class Picture:
  """What a generator reads of a picture file, and what its image takes over from the file.

  pixels: uint8 or uint16 [H,W,channels], upright, on white where it is transparent. alpha: uint8 or
  uint16 [H,W], or None for an opaque picture. grey: whether the file is grey. format: Pillow's
  name. options: for Pillow's `save`, as the tables of a JPEG. frames: how many the file holds, of
  which this is the first.
  """
  pixels: np.ndarray
  alpha: np.ndarray | None = None
  grey: bool = False
  format: str = 'PNG'
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  frames: int = 1

  def resized(self, height: int, width: int) -> Picture:
    """The picture at another size, bicubic with antialiasing, its alpha likewise."""
    alpha = None if self.alpha is None else resize(self.alpha[..., None], height, width)[..., 0]
    return dataclasses.replace(self, pixels=resize(self.pixels, height, width), alpha=alpha)


def read(content: bytes, channels: int = 3, *, name: str = 'the picture') -> Picture:
  """The picture in an image file, read as `decode.decode_image` does, but 16 bits stay.

  Raises ImageError for anything that is no whole image.
  """
  form, mode, options, frames = _header(content, name)
  stored, is_picture = decode._stored(content, name)
  if mode in ('RGB', 'RGBA') and frames == 1 and not is_picture:
    stored, is_picture = stored[..., :len(mode)], True  # of a TIFF, as Pillow understands it
  deep, has_alpha = stored.dtype == np.uint16, is_picture and stored.shape[-1] in (2, 4)
  if is_picture and not (has_alpha and channels % 2 and not deep):
    pixels = decode.with_channels(stored, channels, 16 if deep else 8, name=name)
  else:  # which lays it on white as in training, and shows of a TIFF's pages the first
    bits = 16 if deep and (form == 'NPY' or channels not in (1, 3)) else 8
    pixels = decode.decode_image(content, channels, bits=bits, name=name)
  return Picture(pixels, stored[..., -1] if has_alpha else None, _is_grey(stored, is_picture, mode),
                 form, options, frames)


def _is_grey(stored, is_picture, mode) -> bool:
  return (is_picture and stored.shape[-1] < 3) or (mode == 'P' and bool(
      (stored[..., :1] == stored[..., 1:3]).all()))  # a palette of greys, as of a GIF


def to_pixels(image: np.ndarray, deep: bool = False) -> np.ndarray:
  """float [...] in [-1, 1] -> uint8, or uint16 if deep, of the same shape."""
  dtype = np.uint16 if deep else np.uint8
  half = np.iinfo(dtype).max / 2
  levels = np.asarray(image, np.float32) + 1
  levels *= half  # in place: large images are many at once
  return np.rint(levels, out=levels).clip(0, 2 * half, out=levels).astype(dtype)


def to_grey(pixels: np.ndarray) -> np.ndarray:
  """uint8 or uint16 [H,W,3] -> [H,W,1]: 0.299 R + 0.587 G + 0.114 B."""
  if pixels.shape[-1] == 1:
    return pixels
  return np.rint(pixels[..., :3] @ np.array([.299, .587, .114])).astype(pixels.dtype)[..., None]


def encode(pixels: np.ndarray, format: str, *, alpha: np.ndarray | None = None,
           quality: int | None = None, options: Mapping[str, Any] | None = None) -> bytes:
  """The bytes of an image file.

  pixels: uint8 or uint16 [h,w,c]: grey, RGB, or these with alpha, and any planes for 'NPY', which
  is an array that NumPy saved. alpha: of grey or RGB, uint8 or uint16 [H,W], resized to the pixels;
  it is left out where the format has none, and 16 bits become 8 where the format has 8. format: a
  value of `FORMATS`. quality: of lossy formats, 1 to 100; default: that of the input, or 92.
  options: of the input's `Picture`. Raises ValueError for a format that this Pillow cannot write.
  """
  channels, profile = pixels.shape[-1], (options or {}).get('icc_profile')
  profile = profile if profile and profile[16:20] == COLOUR_SPACES.get(channels) else None
  if format == 'NPY':
    file = io.BytesIO()
    np.save(file, pixels)
    return file.getvalue()
  if channels not in (1, 3) and (channels not in (2, 4) or format not in WITH_ALPHA):
    raise ValueError(f'{format} cannot hold {channels} planes; write them as npy')
  if format not in WITH_16_BITS:
    pixels = as_type(pixels, np.uint8)
  if alpha is not None and format in WITH_ALPHA:
    alpha = resize(alpha[..., None], *pixels.shape[:2])
    pixels = np.concatenate([pixels, as_type(alpha, pixels.dtype)], -1)
  if pixels.dtype == np.uint16:
    write = {'TIFF': _tiff_16_bits, 'PNG': _png_16_bits, 'PPM': _ppm_16_bits}[format]
    return write(pixels, profile)
  image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
  file = io.BytesIO()
  try:
    image.save(file, format, **_saving(format, options or {}, quality, channels == 1),
               **({'icc_profile': profile} if profile else {}))
  except (KeyError, OSError, ValueError, RuntimeError) as e:  # as the plugin likes
    raise ValueError(f'this Pillow cannot write {image.height}x{image.width} pixels as {format} '
                     f'({e}); take another format') from e
  return file.getvalue()


def _saving(format, options, quality, grey) -> dict[str, Any]:
  """The arguments of Pillow's `save`, of the options of the input."""
  if format not in LOSSY:
    return {key: options[key] for key in ('compression',) if key in options}
  if quality is not None:
    return {'quality': quality}
  kept = {key: options[key] for key in ('lossless', 'qtables', 'subsampling') if key in options}
  if grey and 'qtables' in kept:
    kept = {'qtables': {0: kept['qtables'][0]}}
  return kept or {'quality': QUALITY}


def _header(content, name) -> tuple[str, str, dict[str, Any], int]:
  """(format, mode, what the image that is made of it is to be saved with, how many frames)."""
  if content.startswith(decode.NPY):
    return 'NPY', '', {}, 1
  try:
    with decode.opened(content, name, whole=False) as (image, _):
      return image.format or 'PNG', image.mode, _options(image, content), _frames(image, content)
  except decode.ImageError:
    return 'TIFF', '', {}, 1  # Pillow knows not all that `decode` does


def _frames(image, content):
  if image.format == 'TIFF':
    return decode.stored_pages(content)
  # The further frames of an MPO are other views of the first, for other displays.
  return 1 if image.format == 'MPO' else getattr(image, 'n_frames', 1)


def _options(image, content):
  options = {key: image.info[key] for key in ('icc_profile',) if image.info.get(key)}
  if image.format in ('JPEG', 'MPO') and image.mode in ('RGB', 'L') and 0 in image.quantization:
    sampling = JpegImagePlugin.get_sampling(image)
    options |= {'qtables': image.quantization, 'subsampling': max(sampling, 0)}
  if image.format == 'WEBP' and _is_lossless(content):
    options['lossless'] = True
  if image.info.get('compression') in LOSSLESS_TIFF:
    options['compression'] = image.info['compression']
  return options


def _is_lossless(webp):
  """Whether the first frame of a WebP is."""
  at = 12
  while at + 8 <= len(webp) and webp[at:at + 4] not in (b'VP8 ', b'VP8L'):
    size = int.from_bytes(webp[at + 4:at + 8], 'little')
    at += 24 if webp[at:at + 4] == b'ANMF' else 8 + size + size % 2  # a frame holds chunks
  return webp[at:at + 4] == b'VP8L'


def as_type(pixels: np.ndarray, dtype) -> np.ndarray:
  """uint8 or uint16 as the other: white stays white."""
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
  tags = TiffImagePlugin.ImageFileDirectory_v2(prefix=b'II')
  values = {256: width, 257: height, 258: (16,) * channels, 259: 8, 262: 1 if channels < 3 else 2,
            273: 0, 277: channels, 278: height, 279: len(data), 284: 1}
  if channels in (2, 4):
    values[338] = 2  # the last sample is alpha, not multiplied in
  for tag, value in sorted(values.items()):
    tags[tag] = value
  if icc_profile:
    tags.tagtype[34675] = 7
    tags[34675] = icc_profile
  # 273, the place of the data, counts from the end of the tags.
  return struct.pack('<2sHI', b'II', 42, 8) + tags.tobytes(8) + data


def _ppm_16_bits(pixels, _):
  """A PGM or PPM of 16 bits, which Pillow writes of grey only."""
  height, width, channels = pixels.shape
  return b'P%d %d %d 65535\n' % ({1: 5, 3: 6}[channels], width, height) + \
      pixels.astype('>u2').tobytes()
