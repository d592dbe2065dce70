"""Image files of every kind, written by Pillow, OpenCV, imageio, tifffile and by hand."""

import io
import struct
import zlib

import cv2
import imageio.v3 as imageio
import numpy as np
import tifffile
from PIL import Image


def pillow(image, suffix='png', **options):
  """A file of a Pillow image or an array."""
  out = io.BytesIO()
  image = image if isinstance(image, Image.Image) else Image.fromarray(image)
  image.save(out, suffix, **options)
  return out.getvalue()


def opencv(array, suffix, *options):
  return cv2.imencode(f'.{suffix}', array, options)[1].tobytes()


def by_imageio(array, suffix):
  return imageio.imwrite('<bytes>', array, extension=f'.{suffix}')


def by_tifffile(array, **options):
  out = io.BytesIO()
  tifffile.imwrite(out, array, **options)
  return out.getvalue()


def packed(numbers, bits, order='big'):
  """Rows of numbers as bytes, each row from a byte of its own."""
  if bits > 8:
    return numbers.astype(f'{">" if order == "big" else "<"}u{bits // 8}').tobytes()
  rows = np.unpackbits(numbers.astype(np.uint8)[..., None], -1)[..., 8 - bits:]
  return np.packbits(rows.reshape(len(rows), -1), -1).tobytes()


def chunk(kind, content):
  return (struct.pack('>I', len(content)) + kind + content
          + struct.pack('>I', zlib.crc32(kind + content)))


def png(numbers, bits=8, colour=0, palette=None, clear=None, extra=b''):
  """A PNG of integers [H,W] or, in colour, [H,W,C]. palette: bytes. clear: numbers of tRNS."""
  height, width = numbers.shape[:2]
  data = packed(numbers.reshape(height, -1), bits)
  step = len(data) // height
  rows = b''.join(b'\0' + data[i:i + step] for i in range(0, len(data), step))
  head = struct.pack('>IIBBBBB', width, height, bits, 3 if palette else colour, 0, 0, 0)
  return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head)
          + (chunk(b'PLTE', palette) if palette else b'')
          + (chunk(b'tRNS', np.array(clear, '>u2').tobytes()) if clear is not None else b'') + extra
          + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b''))


def tiff(numbers, bits=8, *, big=False, photometric=1, sample_format=1, palette=None, data=None,
         **tags):
  """A TIFF of integers [H,W], in one strip, not compressed. tags: `tag_NUMBER`, shorts."""
  order, height, width = '>' if big else '<', *numbers.shape[:2]
  data = packed(numbers, bits, 'big' if big else 'little') if data is None else data
  entries = {256: [width], 257: [height], 258: [bits], 259: [1],
             262: [3 if palette is not None else photometric], 273: [0], 277: [1], 278: [height],
             279: [len(data)], 339: [sample_format],
             **{int(name[4:]): [value] for name, value in tags.items()}}
  if palette is not None:
    entries[320] = palette
  after, extra, table = 8 + 2 + 12 * len(entries) + 4, b'', b''
  for tag, values in sorted(entries.items()):
    body = struct.pack(f'{order}{len(values)}H', *values)
    if len(body) > 4:
      body, extra = struct.pack(f'{order}I', after + len(extra)), extra + body
    if tag == 273:
      place = len(table)
    table += struct.pack(f'{order}HHI', tag, 3, len(values)) + body.ljust(4, b'\0')
  table = table[:place] + struct.pack(f'{order}HHII', 273, 4, 1, after + len(extra)) \
      + table[place + 12:]
  return ((b'MM' if big else b'II') + struct.pack(f'{order}HIH', 42, 8, len(entries)) + table
          + bytes(4) + extra + data)


def bmp(numbers, bits, palette, header=40):
  """A BMP of integers [H,W] below 2 ** bits; palette: bytes, 4 a colour (3 with header=12)."""
  height, width = numbers.shape
  data = packed(numbers[::-1], bits)
  step = len(data) // height
  rows = b''.join(data[i:i + step].ljust(-(-step // 4) * 4, b'\0')
                  for i in range(0, len(data), step))
  head = struct.pack('<IHHHH', 12, width, height, 1, bits) if header == 12 else struct.pack(
      '<IiiHHIIiiII', 40, width, height, 1, bits, 0, len(rows), 0, 0, len(palette) // 4, 0)
  offset = 14 + len(head) + len(palette)
  return (b'BM' + struct.pack('<IHHI', offset + len(rows), 0, 0, offset) + head + palette + rows)


def pgm(numbers, most, plain=False):
  head = b'P%d\n# a comment\n%d %d\n%d\n' % (2 if plain else 5, *numbers.shape[::-1], most)
  return head + (b' '.join(b'%d' % x for x in numbers.ravel()) + b'\n' if plain else
                 packed(numbers, 8 if most < 256 else 16))
