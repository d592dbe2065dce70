"""Image files become uint8 arrays, or are refused by name."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

SUFFIXES = ('.jpg', '.jpeg', '.jpe', '.jfif', '.mpo', '.png', '.apng', '.bmp', '.dib', '.webp',
            '.avif', '.avifs', '.jp2', '.j2k', '.j2c', '.jpc', '.jpf', '.jpx', '.tif', '.tiff',
            '.ppm', '.pgm', '.pbm', '.pnm', '.tga', '.gif')
DECODERS = ('pillow', 'opencv')
SIDES = 4, 32_768             # the fewest and the most pixels of a side
MOST_PIXELS = 89_478_485      # Pillow's own guard: beyond it a small file can fill the memory


class ImageError(ValueError):
  """A file that cannot serve as an image; the message names it."""


def decode(content: bytes, channels: int = 3, *, name: str = 'the image',
           decoder: str = 'pillow') -> np.ndarray:
  """The picture in an image file as a viewer shows it: uint8 [H,W,channels].

  Turned as its EXIF says; CMYK and palettes become RGB, 16 bits 8, transparency white, and of
  several frames the first is taken. channels: 3, or 1 for grey (0.299 R + 0.587 G + 0.114 B).
  decoder: 'pillow', or 'opencv' for plain RGB and grey files (faster; extra 'fast').

  Raises ImageError for anything that is no whole image of 8 or 16 bits.
  """
  try:
    if decoder == 'opencv' and _is_plain_jpeg(content):
      found = _opencv(content, channels)  # a tenth quicker than asking Pillow first
      if found is not None:
        _check_size(*found.shape[1::-1], name)
        return found
    with Image.open(io.BytesIO(content)) as image:
      _check_size(*image.size, name)
      if decoder == 'opencv' and image.mode in ('RGB', 'L') and 'transparency' not in image.info:
        found = _opencv(content, channels)
        if found is not None:
          return found
      kind = image.format
      image = ImageOps.exif_transpose(_whole(image))
      return _channels(_rgb(image, kind, name), channels)
  except ImageError:
    raise
  except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as e:
    raise ImageError(f'{name}: {_reason(e, content)}') from e


def decode_labels(content: bytes, *, name: str = 'the label map') -> np.ndarray:
  """The numbers in a label or instance map, [H,W] uint8 or int32, as they are stored.

  A palette's numbers are taken, not its colours. Raises ImageError for a colour picture, which
  holds no numbers, and for anything that is no whole image.
  """
  try:
    with Image.open(io.BytesIO(content)) as image:
      _check_size(*image.size, name)
      if image.mode not in ('L', 'P', '1', 'I') and not image.mode.startswith('I;16'):
        raise ImageError(f'{name} is a picture of mode {image.mode}, and a label map holds one '
                         'number a pixel; save it as an 8- or 16-bit grey or palette PNG')
      if image.format in ('JPEG', 'MPO', 'WEBP'):
        raise ImageError(f'{name} is a {image.format}, whose compression changes labels; save '
                         'label maps as PNG')
      found = np.asarray(ImageOps.exif_transpose(_whole(image)))
      if image.mode == 'L' and content[25:26] == b'\0' and content[24] in (2, 4):
        found = found // (255 // (2 ** content[24] - 1))  # Pillow stretches 2 and 4 bits to 8
      return found.astype(np.uint8 if image.mode in 'LP1' else np.int32)
  except ImageError:
    raise
  except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as e:
    raise ImageError(f'{name}: {_reason(e, content)}') from e


def with_channels(picture: np.ndarray, channels: int) -> np.ndarray:
  """uint8 [H,W,1 or 3] -> [H,W,channels]."""
  plane = picture[..., 0] if picture.shape[-1] == 1 else picture
  return _channels(Image.fromarray(plane), channels)


def files(folder: Path, *, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
  """The image files in a folder, by name. Hidden files and folders inside do not count."""
  return sorted(path for path in folder.iterdir()
                if path.suffix.lower() in suffixes and path.name[0] != '.' and not path.is_dir())


def listed(wrong: Sequence[str], total: int) -> str:
  """A message about `wrong` of `total` files, the first ten in full."""
  shown = '\n  '.join(wrong[:10])
  more = f'\n  and {len(wrong) - 10} more' if len(wrong) > 10 else ''
  return f'{len(wrong)} of {total} files cannot be used; mend or remove them:\n  {shown}{more}'


def _check_size(width, height, name):
  if min(width, height) < SIDES[0]:
    raise ImageError(f'{name} is {height}x{width} pixels; at least {SIDES[0]} each way are needed')
  if max(width, height) > SIDES[1] or width * height > MOST_PIXELS:
    raise ImageError(f'{name} is {height}x{width} pixels; at most {MOST_PIXELS:,} in all and '
                     f'{SIDES[1]:,} each way; cut or shrink it')


def _whole(image):
  image.load()  # raises for a truncated file, which Pillow otherwise would only find later
  return image


def _rgb(image, kind, name):
  if image.mode == 'F' or (image.mode == 'I' and kind != 'PNG'):
    raise ImageError(f'{name} holds numbers of mode {image.mode}, not 8- or 16-bit pixels; save '
                     'it as an 8-bit image')
  if image.mode.startswith('I'):  # 16-bit grey
    return Image.fromarray((np.asarray(image).astype(np.uint32) / 257).round().astype(np.uint8))
  if image.mode in ('RGBA', 'LA', 'PA', 'La', 'RGBa') or 'transparency' in image.info:
    image = image.convert('RGBA')
    white = Image.new('RGBA', image.size, 'white')
    return Image.alpha_composite(white, image).convert('RGB')
  return image if image.mode in ('RGB', 'L') else image.convert('RGB')


def _channels(image, channels):
  return np.asarray(image.convert('L'))[..., None] if channels == 1 else \
      np.asarray(image.convert('RGB'))


def _is_plain_jpeg(content):
  """Whether this is a JPEG of one or three channels of 8 bits, by its frame header."""
  at = 2 if content[:2] == b'\xff\xd8' else len(content)
  while at + 9 < len(content) and content[at] == 0xFF:
    if 0xC0 <= content[at + 1] <= 0xCF and content[at + 1] not in (0xC4, 0xC8, 0xCC):
      return content[at + 4] == 8 and content[at + 9] in (1, 3)
    at += 2 + int.from_bytes(content[at + 2:at + 4], 'big')
  return False


def _opencv(content, channels):
  cv2 = opencv()
  found = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
  # Grey by our own weights: a JPEG's own brightness is another.
  return found if found is None else with_channels(found, channels)


@functools.cache
def opencv():
  """The module `cv2`, kept to one thread. Raises ImportError with the extra that brings it."""
  try:
    import cv2
  except ImportError as e:
    raise ImportError("OpenCV is not installed; pip install 'jaxgan-compress[fast]', or use "
                      "'pillow'") from e
  cv2.setNumThreads(0)  # the pipeline has threads of its own
  return cv2


def _reason(e, content):
  if isinstance(e, Image.UnidentifiedImageError):
    return 'it is empty' if not content else 'it is no image file, or its beginning is damaged'
  if isinstance(e, Image.DecompressionBombError):
    return f'it has more than {MOST_PIXELS:,} pixels; cut or shrink it'
  return f'it is damaged ({e})'
