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
import struct
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import ImageFileDirectory_v2

SUFFIXES = ('.jpg', '.jpeg', '.jpe', '.jfif', '.mpo', '.png', '.apng', '.bmp', '.dib', '.webp',
            '.avif', '.avifs', '.jp2', '.j2k', '.j2c', '.jpc', '.jpf', '.jpx', '.tif', '.tiff',
            '.ppm', '.pgm', '.pbm', '.pnm', '.gif')
# The formats that Pillow may open. Not TGA, which has no mark: damaged files can look like it.
FORMATS = ('JPEG', 'PNG', 'BMP', 'DIB', 'WEBP', 'AVIF', 'JPEG2000', 'TIFF', 'PPM', 'GIF')
READING = 3                   # increased whenever another array is read from some file
DECODERS = ('pillow', 'opencv')
INTEGERS = np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.int64  # of label maps
SIDES = 4, 32_768             # the fewest and the most pixels of a side
MOST_PIXELS = 89_478_485      # Pillow's own guard: beyond it a small file can fill the memory
ARRAY, NPY = '.npy', b'\x93NUMPY'  # an array that NumPy saved, and the first bytes of one
TIFF = b'II*\0', b'MM\0*', b'II+\0'  # the first bytes of one; the last of a large one
# Tags of TIFF, and what stands for white is 0.
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, TURN = 256, 257, 258, 259, 262, 274
SAMPLES, ROWS, PLANAR, SOFTWARE, PREDICTOR, EXTRA = 277, 278, 284, 305, 317, 338
SAMPLE_FORMAT, KIND, WHITE_IS_ZERO = 339, 254, 0
STRIPS, TILES = (273, 279), (324, 325)     # where they are, and how long
UNPACKED = 1, 5, 8, 32773, 32946, 50000, 34925  # compressions that know of no colours


def quiet():
  """Silences Pillow about damaged files, since `ImageError` says what is wrong with them."""
  warnings.filterwarnings('ignore', module=r'PIL\.')
  logging.getLogger('PIL.TiffImagePlugin').setLevel(logging.CRITICAL)


quiet()


class ImageError(ValueError):
  """A file that cannot serve as an image; the message names it."""


def decode_image(content: bytes, channels: int = 3, *, bits: int = 8, name: str = 'the image',
                 decoder: str = 'pillow') -> np.ndarray:
  """The picture in an image file: uint8 [H,W,channels], or uint16 with bits=16.

  channels: 3 is the picture as a viewer shows it, and 1 the same in grey (0.299 R + 0.587 G + 0.114
  B): turned as its EXIF says, CMYK and palettes become RGB, transparency white, and of several
  frames the first is taken. 4 is RGB with its alpha as stored, and 2 grey with alpha; a picture
  without is opaque. Any number of planes comes from `.npy` and TIFF, see `decode_deep`, which are
  taken as they are and must hold as many.
  bits: 8, to which 12 and 16 are rounded, or 16, where 8-bit numbers are multiplied by 257.
  decoder: 'pillow', or 'opencv' for plain RGB and grey files of 8 bits (faster; extra 'fast').

  Raises ImageError for anything that is no whole image of 8 to 16 bits.
  """
  if bits != 8 or channels not in (1, 3) or content.startswith(NPY):
    numbers, is_picture = _stored(content, name)
    return _fitted(numbers, channels, bits, is_picture, name)
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
  anew, the grey levels; of `.npy` the integers. Raises ImageError for a colour picture, which holds
  no numbers, for what may have changed them, and for anything that is no whole image.
  """
  if content.startswith(NPY):
    return _npy_labels(content, name)
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


def decode_deep(content: bytes, *, name: str = 'the image') -> np.ndarray:
  """The numbers of an image file as stored, the right way up: uint8 or uint16 [H,W,C].

  C is 1 for grey, 2 with alpha, 3 for colour and 4 with alpha, which is neither premultiplied nor
  shown on white; palettes and other colour spaces become RGB. Of a TIFF the samples of a pixel are
  channels, and so are its pages if there are several: [page 0's, page 1's, ...]. An array of `.npy`
  is [H,W] or [H,W,C]. Of other files with several frames the first is taken. 1 to 7 bits become 8,
  and 9 to 15 bits 16, white staying white.

  Raises ImageError for numbers that are not of 8 or 16 bits without sign, and as `decode_image`.
  """
  return _stored(content, name)[0]


def stored_bits(content: bytes, *, name: str = 'the image') -> int:
  """The bits of a number in an image file: 16, 8 or fewer. Raises ImageError as `decode_image`."""
  with opened(content, name, whole=False) as (_, raw):
    return 16 if isinstance(raw, tuple) and raw[1] == 65535 else _bits(raw)


def stored_pages(content: bytes) -> int:
  """The pages of a TIFF, smaller copies and masks aside, and 1 for other files."""
  try:
    return len(_tiff_pages(content)) if content[:4] in TIFF else 1
  except Exception:  # damage after the first page, which alone is read
    return 1


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


def with_channels(picture: np.ndarray, channels: int, bits: int = 8, *, name: str = 'the image'
                  ) -> np.ndarray:
  """uint8 or uint16 [H,W,C] -> [H,W,channels] of `bits` bits, by the rules of `decode_image`.

  C of 1 to 4 is a picture: grey or RGB, and perhaps alpha. Raises ImageError for another type, and
  for other planes that are not `channels`.
  """
  if picture.dtype not in (np.uint8, np.uint16):
    raise ImageError(f'{name} is an array of {picture.dtype}; uint8 or uint16 is read')
  if picture.dtype == np.uint8 and bits == 8 and {picture.shape[-1], channels} == {1, 3}:
    plane = picture[..., 0] if picture.shape[-1] == 1 else picture
    return _channels(Image.fromarray(plane), channels)  # the same, and quicker
  return _fitted(picture, channels, bits, picture.shape[-1] <= 4, name)


def list_images(folder: Path, *, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
  """The image files in a folder, by name; where there is none, its `.npy` arrays. Hidden files and
  folders inside do not count."""
  files = sorted(path for path in folder.iterdir() if path.name[0] != '.' and not path.is_dir())
  return [path for path in files if path.suffix.lower() in suffixes] or \
      [path for path in files if path.suffix.lower() == ARRAY]


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
def opened(content, name, *, whole=True):
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
  _check_numbers(image, name)
  upright = ImageOps.exif_transpose(image)
  if upright.mode.startswith('I'):  # 16-bit grey, or 12
    return _grey_of_16_bits(upright, raw, _white_is_zero(image))
  if upright.has_transparency_data:
    return _on_white(upright, raw, image.format)
  return upright if upright.mode in ('RGB', 'L') else upright.convert('RGB')


def _check_numbers(image, name):
  if image.mode == 'F' or (image.mode == 'I' and image.format not in ('PNG', 'PPM')):
    raise ImageError(f'{name} holds numbers of mode {image.mode}, not 8- or 16-bit pixels; save '
                     'it as an 8-bit image')


def _grey_of_16_bits(image, raw, white_is_zero):
  white = 4095 if _bits(raw) == 12 else 65535
  levels = np.minimum(np.arange(65536) * 255 / white, 255).round().astype(np.uint8)
  levels = levels[::-1] if white_is_zero else levels  # Pillow forgets it in 16 bits
  clear = image.info.get('transparency')
  if isinstance(clear, int):
    levels[clear] = 255
  return Image.fromarray(levels[np.asarray(image)])


def _on_white(image, raw, file_format):
  white = Image.new('RGBA', image.size, 'white')
  return Image.alpha_composite(white, _rgba(image, raw, file_format)).convert('RGB')


def _rgba(image, raw, file_format):
  clear = image.info.get('transparency')
  if file_format == 'PNG':  # which has the clear colour as stored, not as Pillow stretches it
    if image.mode == 'L' and isinstance(clear, int):
      image.info['transparency'] = clear * (255 // (2 ** _bits(raw) - 1))
    elif image.mode == 'RGB' and isinstance(clear, tuple) and _bits(raw) == 16:
      image.info['transparency'] = tuple(x >> 8 for x in clear)
  return (image.convert('LA') if image.mode == 'La' else image).convert('RGBA')


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


def _stored(content, name):
  """What `decode_deep` returns, and whether it is a picture: grey or RGB, perhaps with alpha."""
  if content.startswith(NPY):
    return _npy(content, name), False
  if content[:4] in TIFF:
    try:
      found = _tiff_planes(content, name)
    except ImageError:
      raise
    except Exception as e:  # Pillow raises whatever the damage leads to
      raise ImageError(f'{name}: {_reason(e, content)}') from e
    if found:
      return found
  with opened(content, name, whole=False) as (image, raw):  # each kind is decoded its own way
    return _picture(image, raw, content, name), True


def _fitted(x, channels, bits, is_picture, name):
  """uint8 or uint16 [H,W,C] with other channels and bits. is_picture: C is grey or RGB, and alpha.
  """
  if bits == 16:
    x = x if x.dtype == np.uint16 else x * np.uint16(257)
  elif x.dtype != np.uint8:
    x = np.rint(x / np.float32(257)).astype(np.uint8)
  count, most = x.shape[-1], np.iinfo(x.dtype).max
  if count == channels:
    return x
  if not is_picture or not 1 <= channels <= 4:
    raise ImageError(f'{name} holds {count} plane{"s" * (count > 1)} and channels={channels}; '
                     f'planes are taken as they are: give channels={count}, or files of {channels}')
  colours, alpha = (x, None) if count % 2 else (x[..., :-1], x[..., -1:])
  if channels % 2 and alpha is not None:
    share = alpha / np.float32(most)
    colours = np.rint(colours * share + most * (1 - share)).astype(x.dtype)
  if channels < 3 <= colours.shape[-1]:  # rounded as by Pillow
    grey = colours @ np.array([19595, 38470, 7471], np.uint32)
    colours = ((grey + 2 ** 15) >> 16)[..., None].astype(x.dtype)
  elif channels >= 3 > colours.shape[-1]:
    colours = colours.repeat(3, -1)
  if channels % 2:
    return colours
  alpha = np.full_like(colours[..., :1], most) if alpha is None else alpha
  return np.concatenate([colours, alpha], -1)


def _npy_labels(content, name):
  numbers = _npy(content, name, INTEGERS)
  if numbers.shape[-1] > 1:
    raise ImageError(f'{name} is an array {list(numbers.shape)}, and a label map holds one number '
                     'a pixel: [H,W]')
  small = numbers[..., 0] if numbers.dtype == np.uint8 else numbers[..., 0].astype(np.int32)
  if (small != numbers[..., 0]).any():
    raise ImageError(f'{name} holds {numbers.max()}, and a label or instance fits into int32')
  return small


def _npy(content, name, types=(np.uint8, np.uint16)):
  """The array [H,W,C] in a `.npy` file. Its header is checked before memory is taken."""
  file = io.BytesIO(content)
  try:
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else \
        np.lib.format.read_array_header_2_0
    shape, by_columns, dtype = header(file)
  except Exception as e:
    raise ImageError(f'{name}: {_reason(e, content)}') from e
  if dtype.newbyteorder('=') not in types:
    raise ImageError(f'{name} is an array of {dtype}; a label map is one of integers'
                     if types == INTEGERS else
                     f'{name} is an array of {dtype}; uint8 or uint16 is read: save x in [-1, 1] '
                     'as np.round((x + 1) * 32767.5).astype(np.uint16)')
  if len(shape) not in (2, 3) or not all(shape):
    raise ImageError(f'{name} is an array {list(shape)}; an image is [H,W] or [H,W,C]')
  _check_size((shape[1], shape[0]), name)
  rest = content[file.tell():]
  if len(rest) != dtype.itemsize * np.prod(shape, dtype=object):
    raise ImageError(f'{name}: it is damaged: {len(rest)} bytes of an array {list(shape)}')
  array = np.frombuffer(rest, dtype).reshape(shape, order='F' if by_columns else 'C')
  return np.ascontiguousarray(array.reshape(*shape[:2], -1), dtype.newbyteorder('='))


def _picture(image, raw, content, name):
  """An opened image as stored."""
  _check_numbers(image, name)
  clear = image.info.get('transparency')
  if image.mode.startswith('I'):
    levels = np.asarray(ImageOps.exif_transpose(image)).astype(np.uint16)[..., None]
    levels = np.rint(levels * (65535 / 4095)).astype(np.uint16) if _bits(raw) == 12 else levels
    levels = ~levels if _white_is_zero(image) else levels
    return _with_clear(levels, clear) if isinstance(clear, int) else levels
  if image.format == 'PNG' and _bits(raw) == 16:
    colours = _deep_png(content, raw)
    return _with_clear(colours, clear) if isinstance(clear, tuple) else colours
  if image.format == 'PPM' and isinstance(raw, tuple) and raw[1] > 255:
    return _deep_ppm(content)
  if image.format == 'JPEG2000' and _jpeg2000_bits(content) > 8:
    raise ImageError(f'{name} is a JPEG 2000 in colour of more than 8 bits, of which Pillow reads '
                     '8; save it as PNG or TIFF')
  return _picture_of_8_bits(ImageOps.exif_transpose(image), raw, image.format)


def _picture_of_8_bits(upright, raw, file_format):
  if upright.mode in ('1', 'L') and upright.info.get('transparency') is None:
    return np.asarray(upright.convert('L'))[..., None]
  if upright.has_transparency_data:
    colours = np.asarray(_rgba(upright, raw, file_format))
    return colours[..., ::3] if upright.mode in ('1', 'L', 'LA', 'La') else colours
  return np.asarray(upright.convert('RGB'))


def _with_clear(x, clear):
  """[H,W,C] -> [H,W,C+1]: 0 in the last channel where a pixel is `clear`, and else the most."""
  opaque = (x != np.asarray(clear, x.dtype)).any(-1, keepdims=True)
  return np.concatenate([x, (opaque * np.iinfo(x.dtype).max).astype(x.dtype)], -1)


def _deep_png(content, raw):
  # Pillow has no mode of 16 bits in colour. It takes one byte of each number, which the raw mode
  # chooses; a raw mode of as many bits a pixel changes nothing else.
  read = lambda raw: np.asarray(_decoded_as(content, raw)).astype(np.uint16)
  if raw == 'LA;16B':  # two bytes each of grey and alpha
    x = read('RGBA')
    return x[..., ::2] << 8 | x[..., 1::2]
  return read(raw) << 8 | read(raw.replace('16B', '16L'))


def _decoded_as(content, raw):
  """The PNG in a file, the right way up, where `raw` says what its bytes are."""
  with Image.open(io.BytesIO(content), formats=('PNG',)) as image:
    image.tile = [tile._replace(args=raw) for tile in image.tile]
    return ImageOps.exif_transpose(image)


def _deep_ppm(content):
  # Read as a grey picture of three times the width, of which Pillow reads 16 bits.
  with Image.open(io.BytesIO(content), formats=('PPM',)) as image:
    (width, height), tile = image.size, image.tile[0]
    white = tile.args[1] if tile.args else 65535
  head = b'P%d %d %d %d\n' % (2 if tile.codec_name == 'ppm_plain' else 5, 3 * width, height,
                              white)
  with Image.open(io.BytesIO(head + content[tile.offset:]), formats=('PPM',)) as image:
    return np.asarray(image).astype(np.uint16).reshape(height, width, 3)


def _jpeg2000_bits(content):
  """The most bits of a component, by the codestream's marker SIZ."""
  at = content.find(b'\xff\x4f\xff\x51')
  count = int.from_bytes(content[at + 40:at + 42], 'big')
  return 1 + max((x & 127 for x in content[at + 42:at + 42 + 3 * count:3]), default=0)


def _tiff_planes(content, name):
  """What `_stored` returns of a TIFF; None if its pixels are not plain numbers of 8 or 16 bits."""
  pages = _tiff_pages(content)
  for page in pages:
    if {*page.get(SAMPLE_FORMAT, (1,))} - {1, 4} or max(page.get(BITS, (1,))) > 16:
      raise ImageError(f'{name} holds signed, floating-point or 32-bit numbers; 8 or 16 bits '
                       'without sign are read: save it so')
  if not pages or not all(map(_is_plain_tiff, pages)):
    return None
  _check_pages(pages, name)
  planes = np.concatenate([_tiff_page(content, page, name) for page in pages], -1)
  extra, colours = pages[0].get(EXTRA, ()), 3 if pages[0][PHOTOMETRIC] == 2 else 1
  is_picture = planes.shape[-1] == colours + len(extra) and extra in ((), (1,), (2,))
  if is_picture and extra == (1,):  # colours were multiplied by alpha
    most, alpha = np.iinfo(planes.dtype).max, planes[..., -1:]
    whole = np.rint(planes[..., :-1] * np.float64(most) / np.maximum(alpha, 1)).clip(0, most)
    planes = np.concatenate([whole.astype(planes.dtype), alpha], -1)
  return np.ascontiguousarray(planes), is_picture


def _check_pages(pages, name):
  sizes = list(dict.fromkeys((page[WIDTH], page[HEIGHT]) for page in pages))
  if len(sizes) > 1:
    raise ImageError(f'{name} has pages of {sizes[0][1]}x{sizes[0][0]} and {sizes[1][1]}x'
                     f'{sizes[1][0]} pixels; pages of one size are read as channels: keep one page')
  _check_size(sizes[0], name)
  numbers = sizes[0][0] * sizes[0][1] * sum(page.get(SAMPLES, 1) for page in pages)
  if numbers > 4 * MOST_PIXELS:
    raise ImageError(f'{name} holds {numbers:,} numbers; at most {4 * MOST_PIXELS:,}: crop or '
                     'resize it')
  if len({page[BITS][0] for page in pages}) > 1:
    raise ImageError(f'{name} has pages of 8 and of 16 bits; save all with 16')


def _tiff_pages(content):
  """The directories of a TIFF's pages, without smaller copies and masks."""
  file, pages, seen = io.BytesIO(content), [], set()
  header = content[:16 if content[2:3] == b'+' else 8]
  at = ImageFileDirectory_v2(header).next
  while at and at not in seen:
    seen.add(at)
    page = ImageFileDirectory_v2(header)
    file.seek(at)
    page.load(file)
    at = page.next
    if not pages or not page.get(KIND, 0) & 5:
      pages.append(page)
  return pages


def _is_plain_tiff(page):
  bits = page.get(BITS, (1,))
  return set(bits) in ({8}, {16}) and page.get(COMPRESSION, 1) in UNPACKED \
      and page.get(PHOTOMETRIC) in (0, 1, 2) and page.get(PREDICTOR, 1) in (1, 2) \
      and {WIDTH, HEIGHT} <= {*page}


def _tiff_page(content, page, name):
  """The samples of one page, uint8 or uint16 [H,W,C], the right way up."""
  width, height, count = page[WIDTH], page[HEIGHT], page.get(SAMPLES, 1)
  apart = page.get(PLANAR, 1) == 2 and count > 1
  offsets, lengths = (page[tag] for tag in (TILES if TILES[0] in page else STRIPS))
  if len(offsets) != len(lengths) or sum(lengths) > len(content):
    raise ImageError(f'{name}: it is damaged: its parts do not fit into the file')
  parts = [content[at:at + length] for at, length in zip(offsets, lengths, strict=True)]
  # Pillow knows few numbers of samples. A pixel of C samples is C pixels of a grey picture.
  each = len(parts) // count if apart else len(parts)
  wide = 1 if apart else count
  found = np.concatenate([
      _grey_tiff(page, width * wide, wide, parts[i * each:(i + 1) * each]).reshape(
          height, width, wide) for i in range(count if apart else 1)], -1)
  found = ~found if page[PHOTOMETRIC] == WHITE_IS_ZERO else found
  return _turned(found, page.get(TURN, 1))


def _grey_tiff(page, width, wide, parts):
  """A grey picture [H,width] of a TIFF's strips or tiles; its pixels lie in groups of `wide`."""
  tags = {tag: page[tag] for tag in (HEIGHT, COMPRESSION, 266, ROWS, 323) if tag in page}
  tags |= {WIDTH: width, BITS: page[BITS][0], PHOTOMETRIC: 1, SAMPLES: 1}
  places = TILES if TILES[0] in page else STRIPS
  if places is TILES:
    tags[322] = page[322] * wide
  ends = np.cumsum([0, *map(len, parts)]).tolist()
  lists = {places[0]: [8 + end for end in ends[:-1]], places[1]: [*map(len, parts)]}
  order, at, more, entries = page.prefix, 8 + ends[-1], b'', b''
  end = '<' if order == b'II' else '>'
  after = at + 2 + 12 * (len(tags) + 2) + 4
  for tag, value in sorted({**tags, **lists}.items()):
    values = value if isinstance(value, list) else [value]
    packed = struct.pack(f'{end}{len(values)}I', *values)
    entries += struct.pack(f'{end}HHI', tag, 4, len(values))
    if len(values) > 1:
      packed, more = struct.pack(f'{end}I', after + len(more)), more + packed
    entries += packed
  file = (order + struct.pack(f'{end}HI', 42, at) + b''.join(parts)
          + struct.pack(f'{end}H', len(tags) + 2) + entries + bytes(4) + more)
  with Image.open(io.BytesIO(file), formats=('TIFF',)) as image:
    numbers = np.asarray(image)
  numbers = numbers.astype(numbers.dtype.newbyteorder('='))
  if page.get(PREDICTOR, 1) == 2:  # of differences to the pixel on the left, in each tile
    grouped, step = numbers.reshape(len(numbers), -1, wide), page.get(322, width // wide)
    numbers = np.concatenate([
        grouped[:, x:x + step].cumsum(1, dtype=grouped.dtype)
        for x in range(0, grouped.shape[1], step)], 1)
  return numbers


def _turned(x, turn):
  """[H,W,C] as a viewer turns it, by the orientation of its EXIF."""
  x = x.swapaxes(0, 1) if turn in (5, 6, 7, 8) else x
  x = x[:, ::-1] if turn in (2, 3, 6, 7) else x
  return x[::-1] if turn in (3, 4, 7, 8) else x
