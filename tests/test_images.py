"""Files become pictures and numbers, equally for training and for what runs an exported network."""

import ast
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxgan_compress.data import decode
from tests import files, fuzz_files


@pytest.mark.essential
def test_labels_keep_their_numbers_in_every_kind_of_file():
  wrong = []
  for kind, content, expected in files.label_files():
    found = decode.decode_labels(content, name=kind)
    if found.dtype not in (np.uint8, np.int32) or not np.array_equal(found, expected):
      wrong.append(kind)
  assert not wrong


def ramp(bits):
  """The palette of a BMP whose colour i is the grey i."""
  return files.bmp_palette(np.arange(2 ** bits)[:, None].repeat(3, 1).astype(np.uint8))


@pytest.mark.parametrize('content, message', [
    (lambda x: files.pillow(x, 'jpeg', quality=100), 'is a JPEG, whose compression changes labels'),
    (lambda x: files.pillow(x, 'webp', lossless=True), 'is a WEBP, whose compression'),
    (lambda x: files.pillow(x, 'tiff', compression='jpeg'), 'is a TIFF, whose compression'),
    (lambda x: files.pillow(files.in_palette(4), 'gif'), 'a GIF in colour, whose writers number'),
    (lambda x: files.pillow(x > 7, 'gif'), 'white can be label 1 or 255'),
    (lambda x: files.pillow(x > 7, 'tiff', compression='group4', tiffinfo={262: 0}),
     'in which white is 0'),
    (lambda x: files.tiff(x, 4, photometric=0), 'in which white is 0'),
    (lambda x: files.bmp(x, 4, ramp(4)), 'a BMP of 4 bits with a grey palette'),
    (lambda x: files.bmp(x, 8, files.bmp_palette([(0, 0, 0), (255, 255, 255)])),
     'a BMP of 8 bits with'),
    (lambda x: files.pillow(np.stack([x] * 3, -1)), 'a picture of mode RGB'),
    (lambda x: files.pillow(Image.fromarray(x).convert('LA')), 'a picture of mode LA'),
    (lambda x: files.pillow(x.astype(np.float32), 'tiff'), 'a picture of mode F'),
    (lambda x: files.npy(x.astype(np.float32)), 'an array of float32; a label map is one of integ'),
    (lambda x: files.npy(x.astype(int) + 2 ** 40), 'holds 10995116277.., and a label or instance'),
    (lambda x: files.npy(np.stack([x] * 3, -1)), r'\[6, 10, 3\], and a label map holds one number'),
    (lambda x: files.by_tifffile(x.astype(np.uint64)), 'damaged')])
def test_what_may_have_changed_labels_is_refused(content, message):
  with pytest.raises(decode.ImageError, match=message):
    decode.decode_labels(content(files.numbers(4)))


@pytest.mark.parametrize('decoder', decode.DECODERS)
def test_pictures_are_what_a_viewer_shows(decoder):
  wrong = {}
  for kind, content, shown, tolerance in files.picture_files():
    found = decode.decode_image(content, name=kind, decoder=decoder)
    off = np.abs(found.astype(int) - shown).max() if found.shape == shown.shape else found.shape
    if found.dtype != np.uint8 or found.shape != shown.shape or off > tolerance:
      wrong[kind] = off
    levels = decode.decode_image(content, 1, name=kind, decoder=decoder)
    weighed = np.asarray(Image.fromarray(found).convert('L'))
    np.testing.assert_array_equal(levels[..., 0], weighed, kind)
  assert not wrong


def test_numbers_are_what_is_stored_in_every_kind_of_file():
  wrong = {}
  for kind, content, stored in files.deep_files():
    found = decode.decode_deep(content, name=kind)
    if found.dtype not in (np.uint8, np.uint16) or not np.array_equal(found, stored):
      wrong[kind] = found.dtype, found.shape
  assert not wrong


@pytest.mark.filterwarnings('ignore:Corrupt EXIF data')
@pytest.mark.parametrize('content, message', [
    (files.npy(np.zeros((8, 8), np.float32)), 'an array of float32; uint8 or uint16 is read: save'),
    (files.npy(np.zeros((8, 8), np.int16)), 'an array of int16'),
    (files.npy(np.array([[None] * 8] * 8)), 'an array of object'),
    (files.npy(np.zeros((8, 8, 3), np.uint8))[:-1], 'damaged: 191 bytes of an array .8, 8, 3'),
    (files.npy(np.zeros(64, np.uint8)), r'an array \[64\]; an image is .H,W. or .H,W,C'),
    (files.npy(np.zeros((2, 8, 8, 3), np.uint8)), r'an array \[2, 8, 8, 3\]'),
    (files.npy(np.zeros((2, 8, 3), np.uint8)), '2x8 pixels; at least 4'),
    (files.npy(np.zeros((8, 8), np.uint8)).replace(b'(8, 8)', b'(9**9,'), 'damaged'),
    (files.by_tifffile(files.PICTURE.astype(np.float32), photometric='rgb'), 'signed, floating'),
    (files.by_tifffile(files.PICTURE[..., 0].astype(np.int16)), 'signed, floating'),
    (files.by_tifffile(files.PICTURE[..., 0].astype(np.uint32)), 'signed, floating'),
    (files.opencv(np.zeros((64, 64, 3), np.uint16), 'jp2'),
     'a JPEG 2000 in colour of more than 8 bits'),
    (files.by_tifffile(files.DEEP, photometric='minisblack')[:300], 'damaged')])
def test_what_is_no_array_of_8_or_16_bits_is_refused(content, message):
  with pytest.raises(decode.ImageError, match=message):
    decode.decode_deep(content)


MODES = (*Image.MODES, 'La', 'RGBa', 'PA', 'I;16', 'I;16B', 'I;16L', 'RGBX')


@pytest.mark.parametrize('mode', dict.fromkeys(MODES))
def test_every_mode_of_pillow_is_a_picture_or_refused(mode):
  image = Image.new(mode, (6, 4))
  if mode in ('F', 'I'):
    with pytest.raises(decode.ImageError, match=f'holds numbers of mode {mode}'):
      decode._rgb(image, '', 'x')
  else:
    assert decode._rgb(image, '', 'x').mode in ('RGB', 'L')


def test_what_is_no_picture_of_8_to_16_bits_is_refused():
  for content in (files.by_tifffile(files.PICTURE[..., 0].astype(np.float32)),
                  files.by_tifffile(files.PICTURE[..., 0].astype(np.int32)),
                  files.by_tifffile(files.PICTURE[..., 0].astype(np.int16)),
                  files.pillow(np.ones((8, 8), np.float32), 'ppm')):
    with pytest.raises(decode.ImageError, match='holds numbers of mode [FI], not 8'):
      decode.decode_image(content)


def test_every_suffix_has_its_format_and_no_other_is_opened():
  Image.init()
  formats = {Image.EXTENSION[suffix] for suffix in decode.SUFFIXES}
  assert formats == {*decode.FORMATS, 'MPO'}  # which the reader of JPEG takes
  for content in (files.pillow(files.PICTURE, 'tga'), files.pillow(files.PICTURE, 'ico'),
                  b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n'):
    with pytest.raises(decode.ImageError, match='no image file .JPEG, PNG'):
      decode.decode_image(content)


def test_reading_needs_numpy_and_pillow_alone():
  found = {name.split('.')[0] for node in ast.walk(ast.parse(Path(decode.__file__).read_text()))
           for name in ([each.name for each in node.names] if isinstance(node, ast.Import) else
                        [node.module] if isinstance(node, ast.ImportFrom) else [])}
  assert found - set(sys.stdlib_module_names) == {'numpy', 'PIL', 'cv2'}  # the last on demand


@pytest.mark.parametrize('cut', [
    files.pillow(files.PICTURE, 'jpeg')[:400],  # OpenCV would fill up with grey
    files.pillow(files.PICTURE)[:-12] + b'\x7f\0\0\0junkjunk'])  # OpenCV 5 waits half a minute
def test_opencv_is_asked_for_whole_files_only(cut, monkeypatch):
  monkeypatch.setattr(decode, '_opencv', lambda *_: pytest.fail('OpenCV was asked'))
  with pytest.raises(decode.ImageError, match='[Tt]runcated'):
    decode.decode_image(cut, decoder='opencv')


def test_damaged_files_are_read_or_refused():
  """A part of what `python -m tests.fuzz_files --images=500` does."""
  seeds, small = fuzz_files.image_files(), fuzz_files.bombs(2 ** 22)
  damaged = {f'{i}': fuzz_files.damaged(seeds, np.random.default_rng([1, i])) for i in range(300)}
  with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter('always')
    decode.quiet()
    found = [finding for name, content in {**damaged, **small}.items()
             for finding in fuzz_files.findings(name, content)]
  assert not found and not told


def test_what_pillow_warns_of_is_not_said_twice():
  bomb = files.pillow(Image.new('1', (10_000, 9_500)))
  with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter('always')
    decode.quiet()
    with pytest.raises(decode.ImageError, match='9500x10000 pixels; at most'):
      decode.decode_image(bomb)
  assert not told
