"""Files become pictures and numbers, equally for training and for what runs an exported network."""

import ast
import sys
import warnings
from pathlib import Path

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
    signed = large.astype(np.int16), large.astype(np.int32) - 9, small.astype(np.int8)
    for x in (mask, few, large, *signed):
      if x is not mask or how is None:
        yield f'tifffile {x.dtype} {how}', files.by_tifffile(x, compression=how), x
    yield f'big endian {how}', files.by_tifffile(large, compression=how, byteorder='>'), large
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


Y, X = np.mgrid[:16, :20]
PICTURE = np.stack([X * 12, Y * 15, 255 - X * 6 - Y * 8], -1).astype(np.uint8)
ALPHA = (X * 13).astype(np.uint8)
TURNS = {1: lambda x: x, 2: lambda x: x[:, ::-1], 3: lambda x: x[::-1, ::-1], 4: lambda x: x[::-1],
         5: lambda x: x.swapaxes(0, 1), 6: lambda x: np.rot90(x, -1),
         7: lambda x: np.rot90(x, 2).swapaxes(0, 1), 8: np.rot90}


def on_white(x, alpha):
  share = alpha[..., None] / 255
  return np.round(x * share + 255 * (1 - share)).astype(np.uint8)


def grey(x):
  return np.repeat(np.asarray(x)[..., None], 3, -1)


def picture_files():
  """(what it is, the file, what a viewer shows of it, how far off we may be)."""
  rgb, levels = Image.fromarray(PICTURE), PICTURE[..., 0]
  wide, mask = levels.astype(np.uint16) * 257, levels > 100
  with_alpha, grey_alpha = np.dstack([PICTURE, ALPHA]), np.dstack([levels, ALPHA])
  palette = rgb.quantize(64)
  shown = np.asarray(palette.convert('RGB'))
  for suffix in ('png', 'bmp', 'tiff', 'ppm', 'gif'):
    yield f'1 {suffix}', files.pillow(mask, suffix), grey(mask * 255), 0
    yield f'L {suffix}', files.pillow(levels, suffix), grey(levels), 0
  for suffix in ('png', 'bmp', 'tiff', 'ppm'):
    yield f'RGB {suffix}', files.pillow(rgb, suffix), PICTURE, 0
  for suffix in ('png', 'bmp', 'tiff', 'gif'):
    yield f'P {suffix}', files.pillow(palette, suffix), shown, 0
  yield 'RGB webp', files.pillow(rgb, 'webp', lossless=True), PICTURE, 0
  yield 'RGB webp of photographs', files.pillow(rgb, 'webp', quality=100), PICTURE, 16
  for name, options in (('JPEG', {}), ('progressive JPEG', {'progressive': True}),
                        ('JPEG of halves', {'subsampling': 2})):
    yield name, files.pillow(rgb, 'jpeg', **{'quality': 100, 'subsampling': 0, **options}), \
        PICTURE, 16
  yield 'grey JPEG', files.pillow(levels, 'jpeg', quality=100), grey(levels), 3
  cmyk = rgb.convert('CMYK')
  yield 'CMYK JPEG', files.pillow(cmyk, 'jpeg', quality=100), PICTURE, 12
  yield 'CMYK TIFF', files.pillow(cmyk, 'tiff'), PICTURE, 2
  yield 'MPO', files.pillow(rgb, 'mpo', quality=100, subsampling=0, save_all=True,
                            append_images=[rgb.rotate(180)]), PICTURE, 12
  yield 'YCbCr TIFF', files.pillow(rgb.convert('YCbCr'), 'tiff'), PICTURE, 4
  lab = rgb.convert('LAB')
  yield 'LAB TIFF', files.pillow(lab, 'tiff'), np.asarray(lab.convert('RGB')), 0
  for suffix in ('png', 'tiff', 'webp'):
    options = {'lossless': True} if suffix == 'webp' else {}
    yield f'RGBA {suffix}', files.pillow(with_alpha, suffix, **options), \
        on_white(PICTURE, ALPHA), 1
  for suffix in ('png', 'tiff'):
    yield f'LA {suffix}', files.pillow(Image.fromarray(grey_alpha, 'LA'), suffix), \
        on_white(grey(levels), ALPHA), 1
  pa = palette.convert('PA')
  pa.putalpha(Image.fromarray(ALPHA))
  yield 'PA TIFF', files.pillow(pa, 'tiff'), on_white(shown, ALPHA), 1
  for name, x in (('RGBa', PICTURE), ('La', levels[..., None])):
    part = (x.astype(int) * ALPHA[..., None] // 255).astype(np.uint8)
    yield f'{name} TIFF', files.by_tifffile(
        np.dstack([part, ALPHA]), extrasamples=['assocalpha'], planarconfig='contig',
        photometric='rgb' if len(name) == 4 else 'minisblack'), \
        on_white(np.broadcast_to(x, PICTURE.shape), ALPHA), 2
  holes = bytes(0 if i % 2 else 255 for i in range(64))
  yield 'P, bytes of transparency', files.pillow(palette, transparency=holes), \
      np.where(np.asarray(palette)[..., None] % 2, 255, shown), 0
  for suffix in ('png', 'gif'):
    yield f'P {suffix}, a clear colour', files.pillow(palette, suffix, transparency=7), \
        np.where(np.asarray(palette)[..., None] == 7, 255, shown), 0
  for bits in (1, 2, 4, 8, 16):
    x = levels.astype(np.uint16) * 257 >> 16 - bits
    light = np.round(x * (255 / (2 ** bits - 1))).astype(np.uint8)
    yield f'grey PNG of {bits} bits', files.png(x, bits), grey(light), 0
    yield f'grey PNG of {bits} bits, a clear level', files.png(x, bits, clear=[x[0, 9]]), \
        grey(np.where(x == x[0, 9], 255, light)), 0
  for bits in (8, 16):
    x = PICTURE.astype(np.uint16) * (257 if bits == 16 else 1)
    yield f'RGB PNG of {bits} bits', files.png(x, bits, 2), PICTURE, 0
    yield f'RGB PNG of {bits} bits, a clear colour', files.png(x, bits, 2, clear=x[3, 4]), \
        np.where((PICTURE[3, 4] == PICTURE).all(-1, keepdims=True), 255, PICTURE), 0
    yield f'RGBA PNG of {bits} bits', files.png(
        np.dstack([x, ALPHA.astype(np.uint16) * x.dtype.type(257 if bits == 16 else 1)]), bits,
        6), on_white(PICTURE, ALPHA), 1
  yield 'I;16 TIFF', files.pillow(wide, 'tiff'), grey(levels), 0
  yield 'I;16B TIFF', files.tiff(wide, 16, big=True), grey(levels), 0
  yield '16 bits, white is 0', files.tiff(65535 - wide, 16, photometric=0), grey(levels), 0
  yield '8 bits, white is 0', files.tiff(255 - levels, 8, photometric=0), grey(levels), 0
  twelve = np.round(levels * (4095 / 255)).astype(int).reshape(16, -1, 2)
  data = np.stack([twelve[..., 0] >> 4, (twelve[..., 0] & 15) << 4 | twelve[..., 1] >> 8,
                   twelve[..., 1] & 255], -1).astype(np.uint8).tobytes()
  yield 'I;12 TIFF', files.tiff(levels, 12, data=data), grey(levels), 0
  yield 'RGB TIFF of 16 bits', files.by_tifffile(PICTURE.astype(np.uint16) * 257), PICTURE, 0
  yield 'PGM of 16 bits', files.pillow(wide, 'ppm'), grey(levels), 0
  yield 'PGM of 10 bits', files.pgm(np.round(levels * (1023 / 255)).astype(int), 1023), \
      grey(levels), 0
  for how in ('packbits', 'tiff_lzw', 'tiff_adobe_deflate'):
    yield f'TIFF {how}', files.pillow(rgb, 'tiff', compression=how), PICTURE, 0
  yield 'TIFF jpeg', files.pillow(rgb, 'tiff', compression='jpeg', quality=100), PICTURE, 16
  yield 'TIFF group4', files.pillow(mask, 'tiff', compression='group4'), grey(mask * 255), 0
  yield 'BigTIFF', files.by_tifffile(PICTURE, bigtiff=True), PICTURE, 0
  more = {'save_all': True, 'append_images': [Image.new('RGB', (20, 16), 'red')]}
  yield 'moving PNG', files.pillow(rgb, 'png', **more), PICTURE, 0
  yield 'moving WebP', files.pillow(rgb, 'webp', lossless=True, **more), PICTURE, 0
  yield 'moving GIF', files.pillow(palette, 'gif', **{**more, 'append_images': [
      Image.new('P', (20, 16), 3)]}), shown, 0
  for turn, turned in TURNS.items():
    exif = Image.Exif()
    exif[274] = turn
    yield f'turned JPEG {turn}', files.pillow(rgb, 'jpeg', exif=exif, quality=100, subsampling=0), \
        turned(PICTURE), 12
    yield f'turned PNG {turn}', files.pillow(rgb, exif=exif), turned(PICTURE), 0
    yield f'turned 16 bits {turn}', files.pillow(wide, exif=exif), turned(grey(levels)), 0
    yield f'turned WebP {turn}', files.pillow(rgb, 'webp', exif=exif, lossless=True), \
        turned(PICTURE), 0
    yield f'turned TIFF {turn}', files.pillow(rgb, 'tiff', tiffinfo={274: turn}), \
        turned(PICTURE), 0


@pytest.mark.parametrize('decoder', images.DECODERS)
def test_pictures_are_what_a_viewer_shows(decoder):
  wrong = {}
  for kind, content, shown, tolerance in picture_files():
    found = images.decode(content, name=kind, decoder=decoder)
    off = np.abs(found.astype(int) - shown).max() if found.shape == shown.shape else found.shape
    if found.dtype != np.uint8 or found.shape != shown.shape or off > tolerance:
      wrong[kind] = off
    levels = images.decode(content, 1, name=kind, decoder=decoder)
    weighed = np.asarray(Image.fromarray(found).convert('L'))
    np.testing.assert_array_equal(levels[..., 0], weighed, kind)
  assert not wrong


MODES = (*Image.MODES, 'La', 'RGBa', 'PA', 'I;16', 'I;16B', 'I;16L', 'RGBX')


@pytest.mark.parametrize('mode', dict.fromkeys(MODES))
def test_every_mode_of_pillow_is_a_picture_or_refused(mode):
  image = Image.new(mode, (6, 4))
  if mode in ('F', 'I'):
    with pytest.raises(images.ImageError, match=f'holds numbers of mode {mode}'):
      images._rgb(image, '', 'x')
  else:
    assert images._rgb(image, '', 'x').mode in ('RGB', 'L')


def test_what_is_no_picture_of_8_to_16_bits_is_refused():
  for content in (files.by_tifffile(PICTURE[..., 0].astype(np.float32)),
                  files.by_tifffile(PICTURE[..., 0].astype(np.int32)),
                  files.by_tifffile(PICTURE[..., 0].astype(np.int16)),
                  files.pillow(np.ones((8, 8), np.float32), 'ppm')):
    with pytest.raises(images.ImageError, match='holds numbers of mode [FI], not 8'):
      images.decode(content)


def test_every_suffix_has_its_format_and_no_other_is_opened():
  Image.init()
  formats = {Image.EXTENSION[suffix] for suffix in images.SUFFIXES}
  assert formats == set(images.FORMATS)
  for content in (files.pillow(PICTURE, 'tga'), files.pillow(PICTURE, 'ico'),
                  b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n'):
    with pytest.raises(images.ImageError, match='no image file .JPEG, PNG'):
      images.decode(content)


def test_reading_needs_numpy_and_pillow_alone():
  found = {name.split('.')[0] for node in ast.walk(ast.parse(Path(images.__file__).read_text()))
           for name in ([each.name for each in node.names] if isinstance(node, ast.Import) else
                        [node.module] if isinstance(node, ast.ImportFrom) else [])}
  assert found - set(sys.stdlib_module_names) == {'numpy', 'PIL', 'cv2'}  # the last on demand


def test_what_pillow_warns_of_is_not_said_twice():
  bomb = files.pillow(Image.new('1', (10_000, 9_500)))
  with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter('always')
    images.quiet()
    with pytest.raises(images.ImageError, match='9500x10000 pixels; at most'):
      images.decode(bomb)
  assert not told
