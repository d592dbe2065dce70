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
    yield f'PNG of {bits} bits', png(numbers(bits), bits), numbers(bits)
  for bits in (1, 2, 4, 8):
    colours = COLOURS[:2 ** bits].tobytes()
    yield f'PNG palette of {bits}', png(numbers(bits), bits, palette=colours), numbers(bits)
    yield f'Pillow PNG palette of {bits}', pillow(in_palette(bits)), numbers(bits)
  for suffix in ('png', 'bmp', 'tiff', 'ppm'):
    for x in (mask, few, small):
      yield f'Pillow {suffix} {x.dtype}', pillow(x, suffix), x
    for x in (few, small):
      yield f'OpenCV {suffix}', opencv(x, suffix.replace('ppm', 'pgm')), x
  for suffix in ('png', 'tiff', 'ppm'):
    yield f'Pillow {suffix} of 16 bits', pillow(large, suffix), large
    yield f'OpenCV {suffix} of 16', opencv(large, suffix.replace('ppm', 'pgm')), large
  for suffix in ('png', 'bmp', 'tiff'):
    yield f'imageio {suffix}', by_imageio(few, suffix), few
    yield f'Pillow {suffix} palette', pillow(in_palette(8), suffix), small
  for how in ('raw', 'packbits', 'tiff_lzw', 'tiff_adobe_deflate'):
    for x in (mask, few, small, large, large.astype(np.int32) - 9):
      yield f'Pillow TIFF {x.dtype} {how}', pillow(x, 'tiff', compression=how), x
    yield f'TIFF palette {how}', pillow(in_palette(8), 'tiff', compression=how), small
  for how in ('group3', 'group4', 'tiff_ccitt'):
    yield f'TIFF {how}', pillow(mask, 'tiff', compression=how), mask
  for x in (mask, few, large):
    yield f'tifffile, white is 0, {x.dtype}', by_tifffile(x, photometric='miniswhite'), x
  for how in (None, 'zlib'):
    signed = large.astype(np.int16), large.astype(np.int32) - 9, small.astype(np.int8)
    for x in (mask, few, large, *signed):
      if x is not mask or how is None:
        yield f'tifffile {x.dtype} {how}', by_tifffile(x, compression=how), x
    yield f'big endian {how}', by_tifffile(large, compression=how, byteorder='>'), large
  yield 'tifffile in tiles', by_tifffile(few, tile=(16, 16), compression='zlib'), few
  yield 'tifffile differences', by_tifffile(large, compression='zlib', predictor=2), large
  yield 'BigTIFF', by_tifffile(few, bigtiff=True), few
  yield 'two pages', by_tifffile(np.stack([few, few + 1]), photometric='minisblack'), few
  for big in (False, True):
    for bits in (1, 2, 4, 8, 16):
      yield f'TIFF of {bits} bits, {big}', tiff(numbers(bits), bits, big=big), numbers(bits)
    for bits in (1, 2, 4, 8):
      x = numbers(bits)
      palette = (COLOURS[:2 ** bits].T.astype(int) * 257).ravel()
      yield f'TIFF palette of {bits}', tiff(x, bits, big=big, palette=palette), x
  x = numbers(4)
  turned = np.packbits(np.unpackbits(np.frombuffer(packed(x, 4), np.uint8)),
                       bitorder='little').tobytes()
  yield 'TIFF of 4 bits from the right', tiff(x, 4, data=turned, tag_266=2), x
  yield 'TIFF of 32 bits', tiff(numbers(16), 32), large
  for bits in (1, 4, 8):
    x = numbers(bits)
    for width, header in ((4, 40), (3, 12)):
      palette = bmp_palette(COLOURS[:2 ** bits], width)
      yield f'BMP palette of {bits}', bmp(x, bits, palette, header), x
  for most in (1, 3, 34, 100, 255, 256, 1000, 4095, 65534, 65535):
    x = (np.arange(60).reshape(6, 10) * 1103 % (most + 1)).astype(np.uint16)
    for plain in (False, True):
      yield f'PGM up to {most}', pgm(x, most, plain), x
  for x in (few, small):
    yield 'grey GIF', pillow(x, 'gif'), x
  for x in (few, small, large, large.astype(np.int32) - 9, large.astype('>i2'), large.astype(int)):
    yield f'npy {x.dtype}', npy(x), x


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
    yield f'1 {suffix}', pillow(mask, suffix), grey(mask * 255), 0
    yield f'L {suffix}', pillow(levels, suffix), grey(levels), 0
  for suffix in ('png', 'bmp', 'tiff', 'ppm'):
    yield f'RGB {suffix}', pillow(rgb, suffix), PICTURE, 0
  for suffix in ('png', 'bmp', 'tiff', 'gif'):
    yield f'P {suffix}', pillow(palette, suffix), shown, 0
  yield 'RGB webp', pillow(rgb, 'webp', lossless=True), PICTURE, 0
  yield 'RGB webp of photographs', pillow(rgb, 'webp', quality=100), PICTURE, 16
  for name, options in (('JPEG', {}), ('progressive JPEG', {'progressive': True}),
                        ('JPEG of halves', {'subsampling': 2})):
    yield name, pillow(rgb, 'jpeg', **{'quality': 100, 'subsampling': 0, **options}), \
        PICTURE, 16
  yield 'grey JPEG', pillow(levels, 'jpeg', quality=100), grey(levels), 3
  cmyk = rgb.convert('CMYK')
  yield 'CMYK JPEG', pillow(cmyk, 'jpeg', quality=100), PICTURE, 12
  yield 'CMYK TIFF', pillow(cmyk, 'tiff'), PICTURE, 2
  yield 'MPO', pillow(rgb, 'mpo', quality=100, subsampling=0, save_all=True,
                            append_images=[rgb.rotate(180)]), PICTURE, 12
  yield 'YCbCr TIFF', pillow(rgb.convert('YCbCr'), 'tiff'), PICTURE, 4
  lab = rgb.convert('LAB')
  yield 'LAB TIFF', pillow(lab, 'tiff'), np.asarray(lab.convert('RGB')), 0
  for suffix in ('png', 'tiff', 'webp'):
    options = {'lossless': True} if suffix == 'webp' else {}
    yield f'RGBA {suffix}', pillow(with_alpha, suffix, **options), \
        on_white(PICTURE, ALPHA), 1
  for suffix in ('png', 'tiff'):
    yield f'LA {suffix}', pillow(Image.fromarray(grey_alpha, 'LA'), suffix), \
        on_white(grey(levels), ALPHA), 1
  pa = palette.convert('PA')
  pa.putalpha(Image.fromarray(ALPHA))
  yield 'PA TIFF', pillow(pa, 'tiff'), on_white(shown, ALPHA), 1
  for name, x in (('RGBa', PICTURE), ('La', levels[..., None])):
    part = (x.astype(int) * ALPHA[..., None] // 255).astype(np.uint8)
    yield f'{name} TIFF', by_tifffile(
        np.dstack([part, ALPHA]), extrasamples=['assocalpha'], planarconfig='contig',
        photometric='rgb' if len(name) == 4 else 'minisblack'), \
        on_white(np.broadcast_to(x, PICTURE.shape), ALPHA), 2
  holes = bytes(0 if i % 2 else 255 for i in range(64))
  yield 'P, bytes of transparency', pillow(palette, transparency=holes), \
      np.where(np.asarray(palette)[..., None] % 2, 255, shown), 0
  for suffix in ('png', 'gif'):
    yield f'P {suffix}, a clear colour', pillow(palette, suffix, transparency=7), \
        np.where(np.asarray(palette)[..., None] == 7, 255, shown), 0
  for bits in (1, 2, 4, 8, 16):
    x = levels.astype(np.uint16) * 257 >> 16 - bits
    light = np.round(x * (255 / (2 ** bits - 1))).astype(np.uint8)
    yield f'grey PNG of {bits} bits', png(x, bits), grey(light), 0
    yield f'grey PNG of {bits} bits, a clear level', png(x, bits, clear=[x[0, 9]]), \
        grey(np.where(x == x[0, 9], 255, light)), 0
  for bits in (8, 16):
    x = PICTURE.astype(np.uint16) * (257 if bits == 16 else 1)
    yield f'RGB PNG of {bits} bits', png(x, bits, 2), PICTURE, 0
    yield f'RGB PNG of {bits} bits, a clear colour', png(x, bits, 2, clear=x[3, 4]), \
        np.where((PICTURE[3, 4] == PICTURE).all(-1, keepdims=True), 255, PICTURE), 0
    yield f'RGBA PNG of {bits} bits', png(
        np.dstack([x, ALPHA.astype(np.uint16) * x.dtype.type(257 if bits == 16 else 1)]), bits,
        6), on_white(PICTURE, ALPHA), 1
  yield 'I;16 TIFF', pillow(wide, 'tiff'), grey(levels), 0
  yield 'I;16B TIFF', tiff(wide, 16, big=True), grey(levels), 0
  yield '16 bits, white is 0', tiff(65535 - wide, 16, photometric=0), grey(levels), 0
  yield '8 bits, white is 0', tiff(255 - levels, 8, photometric=0), grey(levels), 0
  twelve = np.round(levels * (4095 / 255)).astype(int).reshape(16, -1, 2)
  data = np.stack([twelve[..., 0] >> 4, (twelve[..., 0] & 15) << 4 | twelve[..., 1] >> 8,
                   twelve[..., 1] & 255], -1).astype(np.uint8).tobytes()
  yield 'I;12 TIFF', tiff(levels, 12, data=data), grey(levels), 0
  yield 'RGB TIFF of 16 bits', by_tifffile(PICTURE.astype(np.uint16) * 257), PICTURE, 0
  yield 'PGM of 16 bits', pillow(wide, 'ppm'), grey(levels), 0
  yield 'PGM of 10 bits', pgm(np.round(levels * (1023 / 255)).astype(int), 1023), \
      grey(levels), 0
  for how in ('packbits', 'tiff_lzw', 'tiff_adobe_deflate'):
    yield f'TIFF {how}', pillow(rgb, 'tiff', compression=how), PICTURE, 0
  yield 'TIFF jpeg', pillow(rgb, 'tiff', compression='jpeg', quality=100), PICTURE, 16
  yield 'TIFF group4', pillow(mask, 'tiff', compression='group4'), grey(mask * 255), 0
  yield 'BigTIFF', by_tifffile(PICTURE, bigtiff=True), PICTURE, 0
  more = {'save_all': True, 'append_images': [Image.new('RGB', (20, 16), 'red')]}
  yield 'moving PNG', pillow(rgb, 'png', **more), PICTURE, 0
  yield 'moving WebP', pillow(rgb, 'webp', lossless=True, **more), PICTURE, 0
  yield 'moving GIF', pillow(palette, 'gif', **{**more, 'append_images': [
      Image.new('P', (20, 16), 3)]}), shown, 0
  for turn, turned in TURNS.items():
    exif = Image.Exif()
    exif[274] = turn
    yield f'turned JPEG {turn}', pillow(rgb, 'jpeg', exif=exif, quality=100, subsampling=0), \
        turned(PICTURE), 12
    yield f'turned PNG {turn}', pillow(rgb, exif=exif), turned(PICTURE), 0
    yield f'turned 16 bits {turn}', pillow(wide, exif=exif), turned(grey(levels)), 0
    yield f'turned WebP {turn}', pillow(rgb, 'webp', exif=exif, lossless=True), \
        turned(PICTURE), 0
    yield f'turned TIFF {turn}', pillow(rgb, 'tiff', tiffinfo={274: turn}), \
        turned(PICTURE), 0


DEEP = np.random.default_rng(1).integers(0, 65536, (18, 21, 6)).astype(np.uint16)


def npy(array):
  out = io.BytesIO()
  np.save(out, array)
  return out.getvalue()


def interlaced(x):
  """A 16-bit PNG [H,W,3] in the seven passes of Adam7."""
  passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
            (1, 0, 2, 1))
  rows = b''.join(b'\0' + row.astype('>u2').tobytes() for top, left, down, right in passes
                  for row in x[top::down, left::right])
  head = struct.pack('>IIBBBBB', x.shape[1], x.shape[0], 16, 2, 0, 0, 1)
  return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(rows)) \
      + chunk(b'IEND', b'')


def deep_files():
  """(what it is, the file, its numbers [H,W,C] as stored) of every kind of pixels."""
  grey, two, rgb, rgba = (DEEP[..., :c] for c in (1, 2, 3, 4))
  small = (DEEP >> 8).astype(np.uint8)
  for x, colour in ((grey, 0), (two, 4), (rgb, 2), (rgba, 6)):
    yield f'PNG of 16 bits, {x.shape[-1]}', png(x, 16, colour), x
    y = small[..., :x.shape[-1]]
    yield f'PNG of 8 bits, {x.shape[-1]}', png(y, 8, colour), y
  for x in (rgb, rgba):
    order = [2, 1, 0, 3][:x.shape[-1]]
    for level in (1, 9):  # other filters of lines
      smooth = np.cumsum(x >> 11, 1, dtype=np.uint16)
      yield f'OpenCV PNG {x.shape[-1]}', opencv(
          np.ascontiguousarray(smooth[..., order]), 'png', cv2.IMWRITE_PNG_COMPRESSION, level), \
          smooth
    yield f'OpenCV TIFF {x.shape[-1]}', opencv(np.ascontiguousarray(x[..., order]), 'tiff'), x
  yield 'interlaced PNG', interlaced(rgb), rgb
  yield 'OpenCV PPM', opencv(np.ascontiguousarray(rgb[..., ::-1]), 'ppm'), rgb
  head = b'P3\n# a comment\n21 18\n65535\n'
  yield 'plain PPM', head + b' '.join(b'%d' % x for x in rgb.ravel()) + b'\n', rgb
  yield 'PGM', pgm(grey[..., 0], 65535), grey
  for x, y in ((grey, 0), (rgb, 2)):
    clear = x[3, 4]
    alpha = np.where((x == clear).all(-1, keepdims=True), 0, 65535).astype(np.uint16)
    yield f'PNG of 16 bits, a clear colour {y}', png(x, 16, y, clear=clear), np.dstack([x, alpha])
    z = small[..., :x.shape[-1]]
    alpha = np.where((z == z[3, 4]).all(-1, keepdims=True), 0, 255).astype(np.uint8)
    yield f'PNG of 8 bits, a clear colour {y}', png(z, 8, y, clear=z[3, 4]), np.dstack([z, alpha])
  for bits in (1, 2, 4):
    x = numbers(bits).astype(np.uint8)
    yield f'PNG of {bits} bits', png(x, bits), (x * (255 // (2 ** bits - 1)))[..., None]
  few = in_palette(8)
  yield 'palette', pillow(few), COLOURS[np.asarray(few)]
  holes = bytes(range(256))
  yield 'palette with alpha', pillow(few, transparency=holes), \
      np.column_stack([COLOURS, np.arange(256, dtype=np.uint8)])[np.asarray(few)]
  for dtype in ('u1', '<u2', '>u2'):
    for x in (DEEP, grey, grey[..., 0], np.asfortranarray(rgb)):
      x = x.astype(dtype)
      yield f'npy {dtype} {x.shape}', npy(x), x.reshape(18, 21, -1).astype(dtype[-2:])
  pages = np.moveaxis(DEEP, -1, 0)
  for order in '<>':
    for options in ({}, {'compression': 'zlib'}, {'compression': 'zlib', 'predictor': 2},
                    {'compression': 'zlib', 'predictor': 2, 'tile': (16, 16)},
                    {'tile': (16, 16)}, {'rowsperstrip': 5}, {'bigtiff': order == '<'}):
      for x in (DEEP, small):
        for kind, y in (('contig', x), ('separate', np.moveaxis(x, -1, 0))):
          yield f'TIFF {x.dtype} {kind} {order} {options}', by_tifffile(
              y, photometric='minisblack', planarconfig=kind, byteorder=order, **options), x
      yield f'TIFF RGB {order} {options}', by_tifffile(
          rgb, photometric='rgb', byteorder=order, **options), rgb
      yield f'pages {order} {options}', by_tifffile(
          pages, photometric='minisblack', byteorder=order, **options), DEEP
  yield 'TIFF RGBA', by_tifffile(rgba, photometric='rgb', extrasamples=['unassalpha']), rgba
  yield 'pages in colour', by_tifffile(np.stack([rgb, rgb[::-1]]), photometric='rgb'), \
      np.dstack([rgb, rgb[::-1]])
  yield 'TIFF, white is 0', by_tifffile(grey[..., 0], photometric='miniswhite'), 65535 - grey
  part = np.dstack([rgb // 2, np.full_like(grey, 32768)])
  yield 'TIFF, multiplied by alpha', by_tifffile(
      part, photometric='rgb', extrasamples=['assocalpha']), \
      np.dstack([np.minimum(np.rint((rgb // 2) * (65535 / 32768)), 65535), part[..., 3:]])
  preview = io.BytesIO()
  with tifffile.TiffWriter(preview) as writer:
    writer.write(rgb, photometric='rgb')
    writer.write(rgb[::2, ::2], photometric='rgb', subfiletype=1)
  yield 'TIFF with a smaller copy', preview.getvalue(), rgb
  for turn, turned in TURNS.items():
    exif = Image.Exif()
    exif[274] = turn
    yield f'turned TIFF {turn}', by_tifffile(
        rgb, photometric='rgb', extratags=[(274, 3, 1, turn, True)]), turned(rgb)
    yield f'turned PNG {turn}', png(rgb, 16, 2, extra=chunk(b'eXIf', exif.tobytes()[6:])), \
        turned(rgb)
