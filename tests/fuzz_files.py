"""Damages files at random, and looks for what the readers of the package make of them.

    python -m tests.fuzz_files --images=500 --seed=0

prints every finding with the command that shows it again, and returns 1 if there is any. A reader
either refuses a file with its own error, or returns a valid value: in time, within 4 GiB, and
without a warning. `FUZZERS` names what can be damaged; each takes a number of files
and a seed and yields findings.
"""

import argparse
import contextlib
import faulthandler
import functools
import os
import resource
import struct
import sys
import tempfile
import time
import zlib

import numpy as np
from PIL import Image

from jaxgan_compress.data import decode
from tests import files

SECONDS, BYTES = 10, 4 * 2 ** 30  # that a reader may take of one file


def fuzz_images(count, seed=0):
  """Findings of `count` damaged image files, and of every bomb. As label maps, too."""
  seeds = image_files()
  for i in range(count):
    rng = np.random.default_rng([seed, i])
    yield from findings(f'image {i} of --seed={seed}', damaged(seeds, rng), rng.random() < .2)
  for name, content in {**bombs(), **large_bombs()}.items():
    yield from findings(name, content)


@functools.cache
def image_files():
  """Whole files of every kind, once each."""
  kinds = [*files.picture_files(), *files.label_files(), *files.deep_files()]
  return [*dict.fromkeys(content for _, content, *_ in kinds)]


def findings(name, content, opencv=False):
  for reader in ('picture', 'labels', 'numbers', *['opencv'] * opencv):
    began = time.perf_counter()
    try:
      wrong = _read(reader, content)
    except decode.ImageError as e:
      wrong = 'it fills the memory' if 'MemoryError' in str(e) else None
    except Exception as e:
      wrong = f'{type(e).__name__}: {e}'
    if time.perf_counter() - began > SECONDS / 2:
      wrong = f'{time.perf_counter() - began:.0f} seconds'
    if wrong:
      yield f'{name}, read as {reader}: {wrong}'


def _read(reader, content):
  if reader == 'labels':
    found = decode.decode_labels(content)
    valid = found.ndim == 2 and found.dtype in (np.uint8, np.int32)
  elif reader == 'numbers':
    found = decode.decode_deep(content)
    valid = found.ndim == 3 and found.shape[2] and found.dtype in (np.uint8, np.uint16)
  else:
    found = decode.decode_image(content, decoder='opencv' if reader == 'opencv' else 'pillow')
    valid = found.ndim == 3 and found.shape[2] == 3 and found.dtype == np.uint8
  least, most = decode.SIDES
  valid = valid and all(least <= side <= most for side in found.shape[:2])
  return None if valid else f'an array {found.dtype} {found.shape}'


def damaged(seeds, rng):
  """One of the files after one to four accidents."""
  content = bytearray(seeds[rng.integers(len(seeds))])
  for _ in range(rng.integers(1, 5)):
    size = len(content)
    if size < 8:
      break
    at = int(rng.integers(size) if rng.random() < .5 else rng.integers(min(size, 200)))
    match rng.integers(8):
      case 0:
        content[at] ^= 1 << int(rng.integers(8))
      case 1:
        content = content[:at]
      case 2:  # a number that is as large, as small or as odd as can be
        number = int(rng.choice([0, 1, 2 ** 15, 2 ** 16 - 1, 2 ** 31 - 1, 2 ** 32 - 1, 20_000]))
        content[at:at + 4] = struct.pack('<I' if rng.random() < .5 else '>I', number)
      case 3:
        content[at:at + int(rng.integers(1, 5))] = rng.bytes(int(rng.integers(0, 9)))
      case 4:
        other = seeds[rng.integers(len(seeds))]
        begin = int(rng.integers(len(other)))
        content[at:at + int(rng.integers(64))] = other[begin:begin + int(rng.integers(256))]
      case 5:
        content[at:at] = content[at:at + int(rng.integers(64))]
      case 6:
        content += rng.bytes(int(rng.integers(64)))
      case 7:
        content[at:at + int(rng.integers(32))] = bytes(int(rng.integers(32)))
  return bytes(sealed(content)) if rng.random() < .7 else bytes(content)


def sealed(content):
  """A PNG with the checksums that its chunks should have, since a wrong one ends the reading."""
  if content[:4] != b'\x89PNG':
    return content
  at, out = 8, bytearray(content[:8])
  while at + 12 <= len(content):
    size, kind = int.from_bytes(content[at:at + 4], 'big'), content[at + 4:at + 8]
    body = content[at + 8:at + 8 + size]
    out += content[at:at + 8] + body + struct.pack('>I', zlib.crc32(kind + body))
    at += 12 + size
  return out


def bombs(size=200 * 2 ** 20):
  """{name: content} of small files that say they are large, or unpack `size` bytes."""
  grey, large, nothing = np.zeros((8, 8), np.uint8), 2 ** 31 - 1, zlib.compress(bytes(size), 9)
  extra = lambda kind, content: files.png(grey, extra=files.chunk(kind, content))
  found = {f'PNG of {w}x{h}': _large_png(w, h, 8, nothing)
           for w, h in ((large, large), (30_000, 30_000), (40_000, 2_000))}
  return found | {
      'PNG with much text': extra(b'zTXt', b'x\0\0' + nothing),
      'PNG with much international text': extra(b'iTXt', b'x\0\1\0\0\0' + nothing),
      'PNG with a large profile': extra(b'iCCP', b'x\0\0' + nothing),
      'PNG with many texts': files.png(grey, extra=files.chunk(
          b'zTXt', b'x\0\0' + zlib.compress(bytes(2 ** 20 - 9))) * 200),
      'PNG with odd orientation': extra(b'eXIf', b'II*\0\xff\xff\xff\xff' + bytes(20)),
      'PNG of many frames': extra(b'acTL', struct.pack('>II', large, large)),
      'TIFF with a giant tag': _changed(files.tiff(grey, tag_270=1), struct.pack(
          '<HHI', 270, 3, 1), struct.pack('<HHI', 270, 12, large)),
      'TIFF of giant strips': _changed(files.tiff(grey), struct.pack('<HHI', 279, 3, 1),
                                       struct.pack('<HHI', 279, 4, large)),
      'TIFF without directory': _changed(files.tiff(grey), struct.pack('<HI', 42, 8),
                                         struct.pack('<HI', 42, 2 ** 32 - 8)),
      'TIFF of 65000x8': _changed(files.tiff(grey), struct.pack('<HHIHH', 256, 3, 1, 8, 0),
                                  struct.pack('<HHIHH', 256, 3, 1, 65000, 0)),
      'huge PGM': b'P5 9999999999 9999999999 255\n',
      'JPEG of 65500x1300': _changed(files.pillow(grey, 'jpeg'), b'\x08\0\x08\0\x08',
                                     b'\x08' + struct.pack('>HH', 1300, 65500)),
      'JPEG with a large profile': files.pillow(grey, 'jpeg', icc_profile=bytes(10 ** 6)),
      'GIF of 65535x1300': _large_gif(65535, 1300)}


def large_bombs():
  """{name: content} of small files that are as large as can be: these take a second each."""
  grey, nothing = np.zeros((8, 8), np.uint8), zlib.compress(bytes(200 * 2 ** 20), 9)
  found = {f'PNG of {w}x{h}, {bits} bits': _large_png(w, h, bits, nothing)
           for w, h in ((32_768, 2_730), (8_000, 8_000)) for bits in (8, 16)}
  return found | {
      'TIFF that deflates': files.by_tifffile(np.zeros((9000, 9000), np.uint8),
                                              compression='zlib'),
      'large PGM': b'P5 32768 2730 65535\n' + bytes(99),
      'PGM of text': b'P2 9000 9000 255\n' + b'1 ' * 99,
      'PBM of text': b'P1 9000 9000\n#' + b'1' * 99,
      'large BMP': _changed(files.bmp(grey, 8, bytes(1024)), struct.pack('<ii', 8, 8),
                            struct.pack('<ii', 32_000, 2_700)),
      'BMP of runs': b'BM' + struct.pack('<IHHIIiiHHIIiiII', 99, 0, 0, 1078, 40, 32_000, 2_700, 1,
                                         8, 1, 0, 0, 0, 256, 0) + bytes(1024) + b'\0\2\0\0' * 99,
      'GIF of 9000x9000': _large_gif(9000, 9000),
      'JPEG of 9000x9000': _changed(
          files.pillow(grey, 'jpeg', progressive=True), b'\x08\0\x08\0\x08',
          b'\x08' + struct.pack('>HH', 9000, 9000)),
      'WebP of 16383x5400': files.pillow(Image.new('RGBA', (16383, 5400)), 'webp', lossless=True,
                                         method=0, quality=0)}


def _large_png(width, height, bits, data):
  head = struct.pack('>IIBBBBB', width, height, bits, 2, 0, 0, 0)
  return (b'\x89PNG\r\n\x1a\n' + files.chunk(b'IHDR', head) + files.chunk(b'IDAT', data)
          + files.chunk(b'IEND', b''))


def _large_gif(width, height):
  return (b'GIF89a' + struct.pack('<HHBBB', width, height, 0x80, 0, 0) + bytes(6)
          + b',' + struct.pack('<HHHHB', 0, 0, 1, 1, 0) + b'\2\2\x4c\1\0;')


def _changed(content, old, new):
  assert content.count(old) == 1
  return content.replace(old, new)


FUZZERS = {'images': fuzz_images}


@contextlib.contextmanager
def _watched(log):
  """At most `BYTES` more memory; a reader that hangs ends the program, telling where; what is
  written to the terminal goes into the file `log`."""
  with open('/proc/self/statm') as f:
    now = int(f.read().split()[0]) * resource.getpagesize()
  before = resource.getrlimit(resource.RLIMIT_AS)
  resource.setrlimit(resource.RLIMIT_AS, (now + BYTES, before[1]))
  terminal = os.dup(2)
  os.dup2(log.fileno(), 2)
  try:
    yield lambda: faulthandler.dump_traceback_later(SECONDS * 6, exit=True, file=terminal)
  finally:
    faulthandler.cancel_dump_traceback_later()
    os.dup2(terminal, 2)
    os.close(terminal)
    resource.setrlimit(resource.RLIMIT_AS, before)


def main(argv=None):
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  for name in FUZZERS:
    parser.add_argument(f'--{name}', type=int, default=0, help=f'damaged {name} to read')
  parser.add_argument('--seed', type=int, default=0)
  given = vars(parser.parse_args(argv))
  if not any(given[name] for name in FUZZERS):
    parser.error(f'give the number of {" or ".join(f"--{name}" for name in FUZZERS)}')
  decode.opencv()  # loaded before memory is counted
  total = 0
  for name, fuzz in FUZZERS.items():
    if given[name]:
      with tempfile.TemporaryFile() as log:
        with _watched(log) as watch:
          watch()
          for finding in fuzz(given[name], given['seed']):
            total += 1
            print(finding, flush=True)
            watch()
        log.seek(0)
        # libtiff and libpng, in C, write there whatever one does; Python need not.
        said = [line for line in log.read().decode(errors='replace').splitlines()
                if '.py' in line or 'Error' in line]
      for line in sorted(set(said)):
        total += 1
        print(f'{name}: said on the terminal: {line}')
      print(f'{name}: {given[name]} files read, {total} findings')
  return int(total > 0)


if __name__ == '__main__':
  sys.exit(main())
