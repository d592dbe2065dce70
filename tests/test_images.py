"""Files become pictures and numbers, equally for training and for what runs an exported network."""

import numpy as np
import pytest
from PIL import Image

from jaxgan_compress.data import images
from tests import files

COLOURS = np.random.default_rng(0).integers(0, 256, (256, 3)).astype(np.uint8)


def numbers(bits):
  """Labels of so many bits [6,10], the largest and the smallest among them."""
  found = np.random.default_rng(bits).integers(0, 2 ** bits, (6, 10))
  found[0, :2] = 0, 2 ** bits - 1
  return found.astype({1: bool, 16: np.uint16, 32: np.int64}.get(bits, np.uint8))


def in_palette(bits):
  image = Image.fromarray(numbers(bits).astype(np.uint8), 'L')
  image.putpalette(COLOURS[:2 ** bits].tobytes())
  return image


def bmp_palette(colours, width=4):
  return b''.join(bytes(c).ljust(width, b'\0') for c in colours)


def label_files():
  """(what it is, the file, its numbers) of every way to keep labels without loss."""
  small, large, mask = numbers(8), numbers(16), numbers(1)
  few = np.choose(numbers(2), [0, 3, 19, 34]).astype(np.uint8)
  for bits in (1, 2, 4, 8, 16):
    yield f'PNG of {bits} bits', files.png(numbers(bits), bits), numbers(bits)
  for bits in (1, 2, 4, 8):
    colours = COLOURS[:2 ** bits].tobytes()
    yield f'PNG palette of {bits}', files.png(numbers(bits), bits, palette=colours), numbers(bits)
    yield f'Pillow PNG palette of {bits}', files.pillow(in_palette(bits)), numbers(bits)
  for suffix in ('png', 'bmp', 'tiff', 'ppm'):
    for x in (mask, few, small):
      yield f'Pillow {suffix} {x.dtype}', files.pillow(x, suffix), x
    for x in (few, small):
      yield f'OpenCV {suffix}', files.opencv(x, suffix.replace('ppm', 'pgm')), x
  for suffix in ('png', 'tiff', 'ppm'):
    yield f'Pillow {suffix} of 16 bits', files.pillow(large, suffix), large
    yield f'OpenCV {suffix} of 16', files.opencv(large, suffix.replace('ppm', 'pgm')), large
  for suffix in ('png', 'bmp', 'tiff'):
    yield f'imageio {suffix}', files.by_imageio(few, suffix), few
    yield f'Pillow {suffix} palette', files.pillow(in_palette(8), suffix), small
  for how in ('raw', 'packbits', 'tiff_lzw', 'tiff_adobe_deflate'):
    for x in (mask, few, small, large, large.astype(np.int32) - 9):
      yield f'Pillow TIFF {x.dtype} {how}', files.pillow(x, 'tiff', compression=how), x
    yield f'TIFF palette {how}', files.pillow(in_palette(8), 'tiff', compression=how), small
  for how in ('group3', 'group4', 'tiff_ccitt'):
    yield f'TIFF {how}', files.pillow(mask, 'tiff', compression=how), mask
  for x in (mask, few, large):
    yield f'tifffile, white is 0, {x.dtype}', files.by_tifffile(x, photometric='miniswhite'), x
  for how in (None, 'zlib'):
    for x in (mask, few, large, large.astype(np.int16), large.astype(np.int32), small.astype(np.int8)):
      if x is not mask or how is None:
        yield f'tifffile {x.dtype} {how}', files.by_tifffile(x, compression=how), x
    yield f'tifffile big endian {how}', files.by_tifffile(large, compression=how, byteorder='>'), large
  yield 'tifffile in tiles', files.by_tifffile(few, tile=(16, 16), compression='zlib'), few
  yield 'tifffile differences', files.by_tifffile(large, compression='zlib', predictor=2), large
  yield 'BigTIFF', files.by_tifffile(few, bigtiff=True), few
  yield 'two pages', files.by_tifffile(np.stack([few, few + 1]), photometric='minisblack'), few
  for big in (False, True):
    for bits in (1, 2, 4, 8, 16):
      yield f'TIFF of {bits} bits, {big}', files.tiff(numbers(bits), bits, big=big), numbers(bits)
    for bits in (1, 2, 4, 8):
      x = numbers(bits)
      palette = (COLOURS[:2 ** bits].T.astype(int) * 257).ravel()
      yield f'TIFF palette of {bits}', files.tiff(x, bits, big=big, palette=palette), x
  x = numbers(4)
  turned = np.packbits(np.unpackbits(np.frombuffer(files.packed(x, 4), np.uint8)),
                       bitorder='little').tobytes()
  yield 'TIFF of 4 bits from the right', files.tiff(x, 4, data=turned, tag_266=2), x
  yield 'TIFF of 32 bits', files.tiff(numbers(16), 32), large
  for bits in (1, 4, 8):
    x = numbers(bits)
    for width, header in ((4, 40), (3, 12)):
      palette = bmp_palette(COLOURS[:2 ** bits], width)
      yield f'BMP palette of {bits}', files.bmp(x, bits, palette, header), x
  for most in (1, 3, 34, 100, 255, 256, 1000, 4095, 65534, 65535):
    x = (np.arange(60).reshape(6, 10) * 1103 % (most + 1)).astype(np.uint16)
    for plain in (False, True):
      yield f'PGM up to {most}', files.pgm(x, most, plain), x
  for x in (few, small):
    yield 'grey GIF', files.pillow(x, 'gif'), x


@pytest.mark.essential
def test_labels_keep_their_numbers_in_every_kind_of_file():
  wrong = []
  for kind, content, expected in label_files():
    found = images.decode_labels(content, name=kind)
    if found.dtype not in (np.uint8, np.int32) or not np.array_equal(found, expected):
      wrong.append(kind)
  assert not wrong


def ramp(bits):
  """The palette of a BMP whose colour i is the grey i."""
  return bmp_palette(np.arange(2 ** bits)[:, None].repeat(3, 1).astype(np.uint8))


@pytest.mark.parametrize('content, message', [
    (lambda x: files.pillow(x, 'jpeg', quality=100), 'is a JPEG, whose compression changes labels'),
    (lambda x: files.pillow(x, 'webp', lossless=True), 'is a WEBP, whose compression'),
    (lambda x: files.pillow(x, 'tiff', compression='jpeg'), 'is a TIFF, whose compression'),
    (lambda x: files.pillow(in_palette(4), 'gif'), 'a GIF in colour, whose writers number'),
    (lambda x: files.pillow(x > 7, 'gif'), 'white can be label 1 or 255'),
    (lambda x: files.pillow(x > 7, 'tiff', compression='group4', tiffinfo={262: 0}),
     'in which white is 0'),
    (lambda x: files.tiff(x, 4, photometric=0), 'in which white is 0'),
    (lambda x: files.bmp(x, 4, ramp(4)), 'a BMP of 4 bits with a grey palette'),
    (lambda x: files.bmp(x, 8, bmp_palette([(0, 0, 0), (255, 255, 255)])), 'a BMP of 8 bits with'),
    (lambda x: files.pillow(np.stack([x] * 3, -1)), 'a picture of mode RGB'),
    (lambda x: files.pillow(Image.fromarray(x).convert('LA')), 'a picture of mode LA'),
    (lambda x: files.pillow(x.astype(np.float32), 'tiff'), 'a picture of mode F'),
    (lambda x: files.by_tifffile(x.astype(np.uint64)), 'damaged')])
def test_what_may_have_changed_labels_is_refused(content, message):
  with pytest.raises(images.ImageError, match=message):
    images.decode_labels(content(numbers(4)))
