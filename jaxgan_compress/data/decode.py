"""Image files become uint8 arrays, or are refused by name.

This file needs NumPy and Pillow alone, since exports carry a copy of it: training and an exported
network read a file equally.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

SUFFIXES = ('.jpg', '.jpeg', '.jpe', '.jfif', '.mpo', '.png', '.apng', '.bmp', '.dib', '.webp',
            '.avif', '.avifs', '.jp2', '.j2k', '.j2c', '.jpc', '.jpf', '.jpx', '.tif', '.tiff',
            '.ppm', '.pgm', '.pbm', '.pnm', '.gif')
# The formats that Pillow may open. Not TGA, which has no mark: damaged files can look like it.
FORMATS = ('JPEG', 'PNG', 'BMP', 'DIB', 'WEBP', 'AVIF', 'JPEG2000', 'TIFF', 'PPM', 'GIF')
READING = 3                   # increased whenever another array is read from some file
DECODERS = ('pillow', 'opencv')
SIDES = 4, 32_768             # the fewest and the most pixels of a side
MOST_PIXELS = 89_478_485      # Pillow's own guard: beyond it a small file can fill the memory
WHITE_IS_ZERO, PHOTOMETRIC, SOFTWARE, SAMPLE_FORMAT = 0, 262, 305, 339  # of TIFF


def quiet():
  """Silences Pillow about damaged files, since `ImageError` says what is wrong with them."""
  warnings.filterwarnings('ignore', module=r'PIL\.')
  logging.getLogger('PIL.TiffImagePlugin').setLevel(logging.CRITICAL)


quiet()


class ImageError(ValueError):
  """A file that cannot serve as an image; the message names it."""


def decode_image(content: bytes, channels: int = 3, *, name: str = 'the image',
                 decoder: str = 'pillow') -> np.ndarray:
  """The picture in an image file as a viewer shows it: uint8 [H,W,channels].

  It is turned as its EXIF says; CMYK and palettes become RGB, 16 and 12 bits 8, transparency white,
  and of several frames the first is taken. channels: 3, or 1 for grey (0.299 R + 0.587 G + 0.114
  B). decoder: 'pillow', or 'opencv' for plain RGB and grey files (faster; extra 'fast').

  Raises ImageError for anything that is no whole image of 8 to 16 bits.
  """
  # Looking at the headers of a JPEG ourselves is a tenth quicker than asking Pillow.
  if decoder == 'opencv' and (_is_plain_jpeg(content) or _is_plain(content, name)):
    picture = _opencv(content, channels)
    if picture is not None:
      _check_size(picture.shape[1::-1], name)
      return picture
  with opened(content, name) as (image, raw):
    return _channels(_rgb(image, raw, name), channels)


def decode_labels(content: bytes, *, name: str = 'the label map') -> np.ndarray:
  """The numbers in a label or instance map, [H,W] uint8 or int32, as they are stored.

  A palette's numbers are taken, not its colours; of a grey GIF, whose writers number its colours
  anew, the grey levels. Raises ImageError for a colour picture, which holds no numbers, for what
  may have changed them, and for anything that is no whole image.
  """
  with opened(content, name) as (image, raw):
    _check_labels(image, name)
    numbers = np.asarray(ImageOps.exif_transpose(image))
    if _white_is_zero(image) and image.mode in '1L':
      numbers = ~numbers  # as stored: Pillow has inverted them, 16 bits aside
    if image.mode == 'L' and (bits := _bits(raw)) < 8:
      numbers = numbers // (255 // (2 ** bits - 1))  # Pillow stretches 2 and 4 bits to 8
    elif image.format == 'PPM' and isinstance(raw, tuple):
      most = 255 if image.mode == 'L' else 65535  # and the white of a PGM to these
      numbers = np.rint(numbers * (raw[1] / most))
    elif image.format == 'GIF':
      numbers = _grey_levels(image, numbers, name)
    elif _tag(image, SAMPLE_FORMAT) == (2,) and image.mode == 'L':
      numbers = numbers.view(np.int8)
    small = numbers.dtype != np.int8 and image.mode in 'LP1'
    return numbers.astype(np.uint8 if small else np.int32)


def stored_bits(content: bytes, *, name: str = 'the image') -> int:
  """The bits of a number in an image file: 16, 8 or fewer. Raises ImageError as `decode_image`."""
  with opened(content, name, whole=False) as (_, raw):
    return 16 if isinstance(raw, tuple) and raw[1] == 65535 else _bits(raw)


def wrong_labels(values: Iterable[int], classes: int, dont_care: bool = False) -> str | None:
  """What is wrong with the labels of a map, or None if they are right: 0 to classes - 1, and 255 if
  dont_care."""
  wrong = sorted({int(x) for x in values if not (0 <= x < classes or (dont_care and x == 255))})
  if not wrong:
    return None
  listed = ', '.join(map(str, wrong[:5])) + ', ...' * (len(wrong) > 5)
  return f'labels {listed} are not among 0 to {classes - 1}' + ' or 255' * dont_care


def label_numbers(label_map: np.ndarray, classes: int, dont_care: bool = False, *,
                  name: str = 'the label map') -> np.ndarray:
  """A map with consecutive labels, uint8 of the same shape: 255 becomes `classes` if dont_care.

  Raises ImageError for labels that `wrong_labels` names.
  """
  inside = label_map < classes if label_map.dtype == np.uint8 else \
      (label_map >= 0) & (label_map < classes)
  if inside.all():
    return label_map.astype(np.uint8, copy=False)
  wrong = wrong_labels(np.unique(label_map[~inside]), classes, dont_care)
  if wrong:
    raise ImageError(f'{name}: {wrong}')
  return np.where(inside, label_map, classes).astype(np.uint8)


def label_planes(label_map: np.ndarray, instances: np.ndarray | None = None, *, classes: int,
                 dont_care: bool = False, edges: bool = True,
                 name: str = 'the label map') -> np.ndarray:
  """The input of a SPADE generator for one label map: float32 [H,W,C], 0 and 1.

  There is one plane for each of `classes` labels, one for 255 if dont_care, and, if edges, one of
  the edges of the instances, integers [H,W]; without instances, of the labels themselves. Raises
  ImageError for labels outside, and for instances of another size.
  """
  if instances is not None and instances.shape != label_map.shape:
    height, width = label_map.shape
    raise ImageError(f'{name} has {height}x{width} pixels, and its instance map '
                     f'{instances.shape[0]}x{instances.shape[1]}; they must be of one size')
  numbers = label_numbers(label_map, classes, dont_care, name=name)
  planes = numbers[..., None] == np.arange(classes + dont_care)
  if edges:
    outlines = instance_edges(label_map if instances is None else instances)
    planes = np.concatenate([planes, outlines[..., None]], -1)
  return planes.astype(np.float32)


def instance_edges(instances: np.ndarray) -> np.ndarray:
  """1 where a pixel's instance differs from its left, right, upper or lower neighbour's.

  instances: integers [H,W] -> uint8 [H,W]. Both pixels of a differing pair are marked.
  """
  edges = np.zeros(instances.shape, np.uint8)
  rows = instances[1:] != instances[:-1]
  columns = instances[:, 1:] != instances[:, :-1]
  edges[1:] |= rows
  edges[:-1] |= rows
  edges[:, 1:] |= columns
  edges[:, :-1] |= columns
  return edges


def with_channels(picture: np.ndarray, channels: int) -> np.ndarray:
  """uint8 [H,W,1 or 3] -> [H,W,channels]."""
  plane = picture[..., 0] if picture.shape[-1] == 1 else picture
  return _channels(Image.fromarray(plane), channels)


def list_images(folder: Path, *, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
  """The image files in a folder, by name. Hidden files and folders inside do not count."""
  return sorted(path for path in folder.iterdir()
                if path.suffix.lower() in suffixes and path.name[0] != '.' and not path.is_dir())


def listed(wrong: Sequence[str], total: int) -> str:
  """A message about `wrong` of `total` files, the first ten in full."""
  first = '\n  '.join(wrong[:10])
  more = f'\n  and {len(wrong) - 10} more' if len(wrong) > 10 else ''
  return f'{len(wrong)} of {total} files cannot be used; mend or remove them:\n  {first}{more}'


def _check_size(size, name):
  width, height = size
  if min(width, height) < SIDES[0]:
    raise ImageError(f'{name} is {height}x{width} pixels; at least {SIDES[0]} each way are needed')
  if max(width, height) > SIDES[1] or width * height > MOST_PIXELS:
    raise ImageError(f'{name} is {height}x{width} pixels; at most {MOST_PIXELS:,} in all and '
                     f'{SIDES[1]:,} each way; crop or resize it')


@contextlib.contextmanager
def opened(content: bytes, name: str, *, whole: bool = True):
  """The image in a file, and how its numbers are stored: Pillow's raw mode, as 'L;4', and for PPM
  also its white. An exception, in here or in the body, becomes an ImageError."""
  try:
    with Image.open(io.BytesIO(content), formats=_formats()) as image:
      _check_size(image.size, name)
      raw = _raw_mode(image)
      _check_bmp(image, name)
      if whole:
        image.load()  # raises for a truncated file, which Pillow otherwise would only find later
      yield image, raw
  except ImageError:
    raise
  except Exception as e:  # Pillow raises whatever the damage leads to: struct.error, KeyError, ...
    raise ImageError(f'{name}: {_reason(e, content)}') from e


@functools.cache
def _formats():
  """Those of FORMATS that this Pillow knows."""
  Image.init()
  return tuple(name for name in FORMATS if name in Image.OPEN)


def _raw_mode(image):
  arguments = image.tile[0][3] if image.tile else ''
  if image.format == 'PPM' and isinstance(arguments, tuple) and isinstance(arguments[1], int):
    return arguments[:2]
  first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
  return first if isinstance(first, str) else ''


def _bits(raw):
  bits = re.search(r';(\d+)', raw if isinstance(raw, str) else '')
  return int(bits[1]) if bits else 8


def _check_bmp(image, name):
  # Where such a palette is a ramp of greys Pillow forgets how many bits a pixel has.
  if image.format in ('BMP', 'DIB') and image.tile[0][0] == 'raw' and image.mode in '1L':
    image.fp.seek(14 if image.format == 'BMP' else 0)
    head = image.fp.read(16)
    bits = int.from_bytes(head[10:12] if head[0] == 12 else head[14:16], 'little')
    if bits != {'1': 1, 'L': 8}[image.mode]:
      raise ImageError(f'{name} is a {image.format} of {bits} bits with a grey palette, which '
                       'Pillow cannot read; save it as PNG')


def _check_labels(image, name):
  if image.format in ('JPEG', 'MPO', 'WEBP', 'AVIF', 'JPEG2000') or \
      'jpeg' in str(image.info.get('compression')):
    raise ImageError(f'{name} is a {image.format}, whose compression changes labels; save '
                     'label maps as PNG')
  if image.mode not in ('L', 'P', '1', 'I') and not image.mode.startswith('I;16'):
    raise ImageError(f'{name} is a picture of mode {image.mode}, and a label map holds one '
                     'number a pixel; save it as an 8- or 16-bit grey or palette PNG')
  # tifffile says so of every mask, and means what is stored; other writers mean what is shown.
  if _white_is_zero(image) and not str(_tag(image, SOFTWARE)).startswith('tifffile'):
    raise ImageError(f'{name} is a TIFF in which white is 0, so that its labels can be meant as '
                     'stored or as shown; save label maps as PNG')


def _tag(image, code):
  return image.tag_v2.get(code) if image.format == 'TIFF' else None


def _white_is_zero(image):
  return _tag(image, PHOTOMETRIC) == WHITE_IS_ZERO


def _grey_levels(image, numbers, name):
  """The grey levels of a GIF's numbers. Raises ImageError where they can mean something else."""
  if image.mode == 'P':
    palette = np.zeros((256, 3), np.uint8)
    colours = np.reshape(image.getpalette(), (-1, 3))
    palette[:len(colours)] = colours
    if (palette != palette[:, :1]).any():
      raise ImageError(f'{name} is a GIF in colour, whose writers number the colours anew; save '
                       'label maps as PNG')
    numbers = palette[:, 0][numbers]
  if set(np.unique(numbers)) <= {0, 255} and numbers.any():
    raise ImageError(f'{name} is a GIF in black and white, whose white can be label 1 or 255; save '
                     'label maps as PNG')
  return numbers


def _rgb(image, raw, name):
  """An image as RGB or L, on white and the right way up. raw: how its numbers were stored."""
  if image.mode == 'F' or (image.mode == 'I' and image.format not in ('PNG', 'PPM')):
    raise ImageError(f'{name} holds numbers of mode {image.mode}, not 8- or 16-bit pixels; save '
                     'it as an 8-bit image')
  upright = ImageOps.exif_transpose(image)
  if upright.mode.startswith('I'):  # 16-bit grey, or 12
    return _grey_of_16_bits(upright, raw, _white_is_zero(image))
  if upright.has_transparency_data:
    return _on_white(upright, raw, image.format)
  return upright if upright.mode in ('RGB', 'L') else upright.convert('RGB')


def _grey_of_16_bits(image, raw, white_is_zero):
  white = 4095 if _bits(raw) == 12 else 65535
  levels = np.minimum(np.arange(65536) * 255 / white, 255).round().astype(np.uint8)
  levels = levels[::-1] if white_is_zero else levels  # Pillow forgets it in 16 bits
  clear = image.info.get('transparency')
  if isinstance(clear, int):
    levels[clear] = 255
  return Image.fromarray(levels[np.asarray(image)])


def _on_white(image, raw, file_format):
  clear = image.info.get('transparency')
  if file_format == 'PNG':  # which has the clear colour as stored, not as Pillow stretches it
    if image.mode == 'L' and isinstance(clear, int):
      image.info['transparency'] = clear * (255 // (2 ** _bits(raw) - 1))
    elif image.mode == 'RGB' and isinstance(clear, tuple) and _bits(raw) == 16:
      image.info['transparency'] = tuple(x >> 8 for x in clear)
  image = (image.convert('LA') if image.mode == 'La' else image).convert('RGBA')
  white = Image.new('RGBA', image.size, 'white')
  return Image.alpha_composite(white, image).convert('RGB')


def _channels(image, channels):
  return np.asarray(image.convert('L'))[..., None] if channels == 1 else \
      np.asarray(image.convert('RGB'))


def _is_plain(content, name):
  """Whether OpenCV reads it as Pillow does: opaque RGB or grey of 8 bits, not a JPEG."""
  with opened(content, name, whole=False) as (image, raw):
    plain = image.format in ('PNG', 'BMP', 'WEBP') and image.mode in ('RGB', 'L') \
        and _bits(raw) == 8 and 'transparency' not in image.info
    return plain and (image.format != 'PNG' or _is_whole_png(content))


def _is_whole_png(content):
  """Whether its chunks end with the file: OpenCV 5 can spend half a minute on others."""
  at, kind = 8, b''
  while at + 12 <= len(content):
    size, kind = int.from_bytes(content[at:at + 4], 'big'), content[at + 4:at + 8]
    at += 12 + size
  return at == len(content) and kind == b'IEND'


def _is_plain_jpeg(content):
  """Whether this is a whole JPEG of one or three channels of 8 bits, by its headers."""
  # OpenCV fills up with grey what is cut off.
  whole = content[:2] == b'\xff\xd8' and content[-2:] == b'\xff\xd9'
  at = 2 if whole else len(content)
  while at + 9 < len(content) and content[at] == 0xFF:
    if 0xC0 <= content[at + 1] <= 0xCF and content[at + 1] not in (0xC4, 0xC8, 0xCC):
      return content[at + 4] == 8 and content[at + 9] in (1, 3)
    at += 2 + int.from_bytes(content[at + 2:at + 4], 'big')
  return False


def _opencv(content, channels):
  cv2 = opencv()
  picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
  # Grey by our own weights: a JPEG's own brightness is another.
  return None if picture is None else with_channels(picture, channels)


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
    return 'it is empty' if not content else \
        f'it is no image file ({", ".join(FORMATS)}), or its beginning is damaged'
  if isinstance(e, Image.DecompressionBombError):
    return f'it has more than {MOST_PIXELS:,} pixels; crop or resize it'
  return f'it is damaged ({type(e).__name__}: {e})'
