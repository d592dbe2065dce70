"""Pictures of every kind through a generator that is known exactly, and what is no picture."""

import io
import os
import resource
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from PIL import Image, ImageCms

import jaxgan_compress as jgc
from jaxgan_compress import inference, nn
from jaxgan_compress.cli.main import main
from jaxgan_compress.core import BoundGenerator
from jaxgan_compress.data import decode, picture_files, picture_folders
from jaxgan_compress.inference import JaxEngine, OnnxEngine, engines, folders
from tests import files

SUFFIXES = {'JPEG': '.jpg', 'TIFF': '.tif', 'JPEG2000': '.jp2', 'DIB': '.bmp'}


class Negative(linen.Module):
  """The negative of a picture, each pixel `scale` x `scale`; sides are multiples of `multiple`."""
  scale: int = 1
  multiple: int = 1
  inputs: int = 3
  input_kind: str = 'image'

  def example(self):
    return jnp.zeros((1, 4 * self.multiple, 4 * self.multiple, self.inputs))

  @linen.compact
  def __call__(self, x, train=False):
    if x.shape[1] % self.multiple:
      raise ValueError('no multiple')
    y = x * self.param('factor', lambda key: jnp.float32(-1))
    return jnp.repeat(jnp.repeat(y, self.scale, 1), self.scale, 2)[..., -3:], {}


def bind(module: linen.Module = Negative(), factor=-1., **keywords):
  return inference.bind('net', BoundGenerator({'params': {'factor': np.float32(factor)}}, module),
                        **keywords)


@pytest.fixture(scope='module')
def negative():
  return bind()


@pytest.fixture(autouse=True)
def compiled_once(monkeypatch, request):
  """Each network has one engine in this file, since compiling is most of the time."""
  def choose(network, sizes, engine='auto'):
    key = network.identity, engine
    if key not in ENGINES:
      ENGINES[key] = (OnnxEngine if engine == 'onnxruntime' else JaxEngine)(network)
    return ENGINES[key]
  monkeypatch.setattr(folders, 'choose_engine', choose)


ENGINES = {}


def picture(height=16, width=20, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


GREY, RGB = picture()[..., 0], picture()


def fill(folder, contents):
  """A folder of {name: bytes, or pixels of a file}."""
  for name, content in contents.items():
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else files.pillow(content))
  return folder


def tree(folder):
  """The names of all files, hidden ones too, but for the record."""
  return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*')
                if path.is_file() and path.name != picture_folders.RECORD)


def suffix_of(what, content):
  if 'TIFF' in what or 'pages' in what:
    return '.tif'
  form = Image.open(io.BytesIO(content)).format
  return SUFFIXES.get(form, f'.{form.lower()}')


def every_kind():
  """(what it is, its file, its pixels as stored [H,W,C], how far off an image may be)."""
  for what, content, _, far in files.picture_files():
    lossy = 'JPEG' in what or 'photographs' in what or what == 'MPO'
    yield what, content, decode.decode_deep(content), (far + 12) * lossy
  for what, content, stored in files.deep_files():
    if stored.shape[-1] <= 4 and 'npy' not in what and 'minisblack' not in what and (
        'TIFF uint' not in what):
      yield what, content, stored.astype(decode.decode_deep(content).dtype), 0


def on_white(x):
  """The colours [H,W,1 or 3] that a network is shown of pixels with or without alpha."""
  most = np.iinfo(x.dtype).max
  if x.shape[-1] % 2:
    return x
  share = x[..., -1:] / np.float64(most)
  return np.rint(x[..., :-1] * share + most * (1 - share)).astype(x.dtype)


def test_every_kind_of_picture_gives_the_right_pixels(tmp_path, negative):
  kinds = {f'{i:03}{suffix_of(what, content)}': (what, content, stored, far)
           for i, (what, content, stored, far) in enumerate(every_kind())
           if content[:3] != b'GIF' or not Image.open(io.BytesIO(content)).is_animated}  # a video
  fill(tmp_path / 'in', {name: content for name, (_, content, _, _) in kinds.items()})
  done = jgc.generate(negative, tmp_path / 'in', tmp_path / 'out', engine='jax')
  assert (done.written, done.failures) == (len(kinds), []) and len(kinds) > 140
  images = {path.stem: path for path in (tmp_path / 'out').iterdir() if path.name[0] != '.'}
  wrong = []
  for name, (what, _, stored, far) in kinds.items():
    path = images[name[:3]]
    image = decode.decode_deep(path.read_bytes())
    most = np.iinfo(stored.dtype).max
    grey = what in ('L gif', '1 gif')  # whose palettes hold greys alone
    colours = on_white(stored)[..., :1] if grey else on_white(stored)
    far = far + (stored.shape[-1] % 2 == 0)  # Pillow rounds what is laid on white otherwise
    same = image.dtype == stored.dtype and image.shape[-1] == (1 if grey else stored.shape[-1]) \
        and abs(image[..., :colours.shape[-1]].astype(int) - (most - colours)).max() <= far
    alpha = stored.shape[-1] % 2 or (image[..., -1] == stored[..., -1]).all()
    turned = Image.open(path).getexif().get(274, 1)
    if not (same and alpha and turned == 1):
      wrong.append((what, path.name, image.shape, image.dtype, stored.shape, stored.dtype))
  assert not wrong
  again = jgc.generate(negative, tmp_path / 'in/../in', tmp_path / 'out', engine='jax')
  assert (again.written, again.skipped) == (0, len(kinds))


def run(network, source, output, **options):
  return jgc.generate(network, source, output, engine='jax', **options)


@pytest.mark.parametrize('suffix', ['png', 'webp', 'jpg', 'tif'])
def test_an_image_of_another_size_keeps_alpha_and_is_cut_where_the_input_was_padded(
    tmp_path, suffix):
  pixels = np.dstack([picture(9, 13), np.arange(117).reshape(9, 13).astype(np.uint8) * 2])
  fill(tmp_path, {'a.png': pixels})
  network = bind(Negative(scale=2, multiple=8))
  assert (network.takes.multiple, network.takes.smallest, network.takes.scale) == (8, 32, 2)
  done = run(network, tmp_path / 'a.png', tmp_path / f'b.{suffix}', quality=100)
  image = Image.open(tmp_path / f'b.{suffix}')
  assert done.written == 1 and image.size == (26, 18)
  assert image.mode == ('RGB' if suffix == 'jpg' else 'RGBA')
  if suffix in ('png', 'tif'):
    wanted = 255 - on_white(pixels).repeat(2, 0).repeat(2, 1).astype(int)
    assert abs(np.asarray(image)[..., :3] - wanted).max() <= 1
    alpha = picture_files.resize(pixels[..., 3:], 18, 26)[..., 0]
    assert (np.asarray(image)[..., 3] == alpha).all()


@pytest.mark.parametrize(('inputs', 'options', 'modes'), [
    (3, {}, 'L RGB'), (3, {'colors': 'rgb'}, 'RGB RGB'), (1, {}, 'RGB RGB'),
    (1, {'colors': 'input'}, 'L RGB'), (4, {}, 'L RGB')])
def test_grey_pictures_stay_grey_unless_the_network_paints_them(tmp_path, inputs, options, modes):
  class Colours(Negative):
    def __call__(self, x, train=False):
      y = super().__call__(x)[0]
      return jnp.broadcast_to(y, (*y.shape[:3], 3)), {}

  fill(tmp_path / 'in', {'a.png': GREY, 'b.png': RGB})
  network = bind(Colours(inputs=inputs) if inputs == 1 else Negative(inputs=inputs))
  run(network, tmp_path / 'in', tmp_path / 'out', **options)
  images = [Image.open(tmp_path / f'out/{name}.png') for name in 'ab']
  assert ' '.join(image.mode for image in images) == modes
  if inputs < 4:
    assert (np.asarray(images[0].convert('L')) == 255 - GREY).all()


def test_a_network_of_many_planes_takes_them_with_all_their_bits(tmp_path):
  class Last(Negative):
    def __call__(self, x, train=False):
      return super().__call__(x[..., -3:])[0], {}

  planes = files.DEEP[..., :6]
  fill(tmp_path / 'in', {'a.tif': files.by_tifffile(planes, photometric='minisblack',
                                                    planarconfig='contig'), 'b.png': RGB})
  done = run(bind(Last(inputs=6)), tmp_path / 'in', tmp_path / 'out')
  image = decode.decode_deep((tmp_path / 'out/a.tif').read_bytes())
  assert (image == 65535 - planes[..., 3:]).all()
  assert len(done.failures) == 1 and 'give channels=3, or files of 6' in done.failures[0].reason


def test_small_pictures_are_reflected_to_what_the_network_takes():
  x = np.arange(20)[None, :, None].repeat(4, 0).astype(np.uint8)
  assert (picture_folders.pad(x, 8, 24)[7, :, 0] == [*range(20), 18, 17, 16, 15]).all()
  assert (picture_folders.pad(x, 8, 20)[:, 3, 0] == 3).all()
  assert picture_folders.pad(x, 40, 60).shape == (40, 60, 1)  # reflected more than once


def test_both_engines_run_a_real_network_on_what_is_padded_and_batched(tmp_path, monkeypatch):
  monkeypatch.undo()
  module = nn.mobile_resnet(ngf=4, blocks=1, norm='batch')
  example = np.zeros((1, 16, 16, 3), np.float32)
  bound = BoundGenerator(module.init(jax.random.key(0), example), module)
  pixels = [picture(14, 18, seed) for seed in range(3)]
  fill(tmp_path / 'in', {f'{i}.png': x for i, x in enumerate(pixels)})
  whole = np.stack([np.pad(x, ((0, 2), (0, 2), (0, 0)), 'reflect') for x in pixels])
  image = np.asarray(bound(whole / np.float32(127.5) - 1))[:, :14, :18]
  for engine in ('jax', 'onnxruntime'):
    done = jgc.generate(bound, tmp_path / 'in', tmp_path / engine, engine=engine, batch=2)
    assert (done.written, done.engine) == (3, engine)
    for i in range(3):
      found = np.asarray(Image.open(tmp_path / engine / f'{i}.png')).astype(int)
      assert abs(found - np.rint((image[i] + 1) * 127.5)).max() <= 1


def profile(space=b'RGB '):
  srgb = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes())
  srgb[16:20] = space
  return bytes(srgb)


def saved(x, form, **options):
  return files.pillow(x, form, **options)


def tables(content):
  image = Image.open(io.BytesIO(content))
  return image.quantization, image.layer[0][1:3] if image.mode == 'RGB' else None


def test_a_jpeg_keeps_its_quality_and_a_lossless_webp_stays_so(tmp_path, negative):
  many = {f'{quality}_{sampling}.jpg': saved(RGB, 'jpeg', quality=quality, subsampling=sampling)
          for quality in (5, 60, 98) for sampling in (0, 1, 2)}
  many['grey.jpg'] = saved(GREY, 'jpeg', quality=30)
  lossless = {'a.webp': saved(RGB, 'webp', lossless=True), 'b.webp': saved(
      RGB, 'webp', lossless=True, icc_profile=profile())}
  fill(tmp_path / 'in', {**many, **lossless, 'lzw.tif': saved(RGB, 'tiff', compression='tiff_lzw')})
  run(negative, tmp_path / 'in', tmp_path / 'out')
  for name, content in many.items():
    assert tables((tmp_path / 'out' / name).read_bytes()) == tables(content)
  fill(tmp_path, {'a.mpo': saved(RGB, 'mpo', quality=40, save_all=True,
                                 append_images=[Image.fromarray(RGB)]), 'a.png': RGB})
  for name, quality in (('a.mpo', 40), ('a.png', picture_files.QUALITY)):
    run(negative, tmp_path / name, tmp_path / f'{name}.jpg')
    assert tables((tmp_path / f'{name}.jpg').read_bytes())[0] == tables(
        saved(RGB, 'jpeg', quality=quality))[0]
  for name in lossless:
    assert (np.asarray(Image.open(tmp_path / 'out' / name)) == 255 - RGB).all()
  assert Image.open(tmp_path / 'out/lzw.tif').info['compression'] == 'tiff_lzw'
  run(negative, tmp_path / 'in', tmp_path / 'low', quality=7, colors='rgb')
  low = tables((tmp_path / 'low/98_0.jpg').read_bytes())[0]
  assert low == tables(saved(RGB, 'jpeg', quality=7))[0]
  assert Image.open(tmp_path / 'low/grey.jpg').mode == 'RGB'


@pytest.mark.parametrize(('content', 'options', 'kept'), [
    (saved(RGB, 'png', icc_profile=profile()), {}, b'RGB '),
    (saved(RGB, 'jpeg', icc_profile=profile()), {'format': 'png'}, b'RGB '),
    (saved(GREY, 'png', icc_profile=profile(b'GRAY')), {}, b'GRAY'),
    (saved(GREY, 'png', icc_profile=profile(b'GRAY')), {'colors': 'rgb'}, None),
    (saved(Image.fromarray(RGB).convert('CMYK'), 'jpeg', icc_profile=profile(b'CMYK')), {}, None),
    (files.png(RGB.astype(np.uint16) * 257, 16, 2, extra=files.chunk(
        b'iCCP', b'x\0\0' + files.zlib.compress(profile()))), {'format': 'tiff'}, b'RGB '),
    (files.png(RGB.astype(np.uint16) * 257, 16, 2, extra=files.chunk(
        b'iCCP', b'x\0\0' + files.zlib.compress(profile()))), {}, b'RGB ')])
def test_a_profile_is_kept_where_it_fits_the_colours(tmp_path, negative, content, options, kept):
  fill(tmp_path, {'in/a.png': content})
  run(negative, tmp_path / 'in', tmp_path / 'out', **options)
  image = next(Image.open(path) for path in (tmp_path / 'out').glob('a.*'))
  assert image.info.get('icc_profile', b'')[16:20] == (kept or b'')


@pytest.mark.parametrize('form', ['png', 'jpg', 'jpeg', 'webp', 'avif', 'tif', 'bmp', 'jp2', 'ppm'])
def test_a_format_is_what_was_asked_for(tmp_path, negative, form):
  deep = files.png(np.dstack([RGB, GREY]).astype(np.uint16) * 257, 16, 6)
  fill(tmp_path / 'in', {'a.gif': saved(GREY, 'gif'), 'b.JPG': saved(RGB, 'jpeg'), 'c.png': deep})
  done = run(negative, tmp_path / 'in', tmp_path / 'out', format=form)
  name, suffix = picture_files.SUFFIXES[form]
  assert done.written == 3
  assert tree(tmp_path / 'out') == ['a' + suffix, 'b' + '.JPG' if name == 'JPEG' else 'b' + suffix,
                                    'c' + suffix]
  image = decode.decode_deep((tmp_path / 'out' / f'c{suffix}').read_bytes())
  assert image.dtype == (np.uint16 if name in picture_files.WITH_16_BITS else np.uint8)
  assert image.shape[-1] == (4 if name in picture_files.WITH_ALPHA else 3)


@pytest.mark.parametrize(('channels', 'form', 'name'), [
    (2, 'tif', 'a.tif'), (4, 'jpg', 'a.png'), (4, 'png', 'a.png'), (5, 'png', 'a.npy'),
    (4, 'npy', 'a.npy')])
def test_images_of_other_channels_have_a_format_that_holds_them(channels, form, name):
  place = picture_folders.Path(f'a.{form}')
  takes = picture_folders.Takes('pictures', 3, outputs=channels)
  assert picture_folders._name(place, picture_folders.Options(), takes) == name
  pixels = np.arange(6 * 5 * channels, dtype=np.uint16).reshape(6, 5, channels) * 99
  content = picture_files.encode(pixels, picture_files.FORMATS[f'.{name[-3:]}'])
  np.testing.assert_array_equal(decode.decode_deep(content), pixels)
  if channels != 3:
    with pytest.raises(ValueError, match=f'JPEG cannot hold {channels} planes; write them as npy'):
      picture_files.encode(pixels, 'JPEG')


@pytest.mark.parametrize(('inputs', 'options', 'outputs'), [
    ('a.png a.gif', {}, 'a.png a.gif.png'),
    ('a.png a.gif a.gif.png', {}, 'a.png a.gif_.png a.gif.png'),
    ('a.gif a.apng', {}, 'a.gif.png a.apng.png'),
    ('a.gif a.png/b.png', {}, 'a.gif.png a.png/b.png'),
    ('x/a.JPEG y/a.jpe', {'format': 'jpg'}, 'x/a.JPEG y/a.jpe'),
    ('a.jpg a.jpeg a.bmp', {'format': 'png'}, 'a.jpg.png a.jpeg.png a.bmp.png'),
    ('photo photo.v2', {}, 'photo.png photo.v2.png'),
    ('a.pgm b.mpo c.j2k d.dib', {}, 'a.pnm b.jpg c.jp2 d.bmp'),
    ('Ünï ☃.PNG', {}, 'Ünï ☃.PNG')])
def test_names_are_kept_and_no_two_are_the_same(inputs, options, outputs):
  places = [picture_folders.Path(name) for name in inputs.split(' ' if '☃' not in inputs else '?')]
  names = picture_folders._names(places, picture_folders.Options(**options),
                                 picture_folders.Takes('pictures', 3))
  assert [name.as_posix() for name in names] == outputs.split(' ' if '☃' not in inputs else '?')


def test_a_folder_is_read_through_links_and_says_what_it_leaves_out(tmp_path, negative):
  content = saved(RGB, 'png')
  fill(tmp_path / 'elsewhere', {'c.png': content})
  fill(tmp_path / 'in', {'A.PNG': content, 'sub/b.png': content, '.hidden.png': content,
                         '.git/x.png': content, 'notes.txt': b'x', 'film.xyz': b'x',
                         'x.png/d.png': content, 'out/old.png': content})
  (tmp_path / 'in/link').symlink_to(tmp_path / 'elsewhere')
  (tmp_path / 'in/e.png').symlink_to(tmp_path / 'elsewhere/c.png')
  (tmp_path / 'in/sub/around').symlink_to(tmp_path / 'in')
  (tmp_path / 'in/broken.png').symlink_to(tmp_path / 'nowhere')
  os.mkfifo(tmp_path / 'in/pipe.png')
  done = run(negative, tmp_path / 'in', tmp_path / 'in/out')
  assert tree(tmp_path / 'in/out') == ['A.PNG', 'e.png', 'link/c.png', 'old.png', 'sub/b.png',
                                       'x.png/d.png']
  assert {each.source.name for each in done.failures} == {'broken.png', 'pipe.png'}
  assert {each.source.name for each in done.left_out} == {'notes.txt', 'film.xyz'}


@pytest.mark.parametrize(('pattern', 'names'), [
    ('*.png', ['a.png']), ('**/*.png', ['a.png', 'sub/b.png']), ('sub/*', ['b.png']),
    ('*', ['a.png']), ('[2020] x/*', ['c.png']), ('?.p*', ['a.png'])])
def test_a_pattern_finds_files_and_not_its_own_output(tmp_path, pattern, names):
  fill(tmp_path, dict.fromkeys(('a.png', 'sub/b.png', '[2020] x/c.png', 'out/o.png', 'a.txt',
                                '.h.png'), b''))
  found = picture_folders.find(tmp_path / pattern, tmp_path / 'out')
  assert {str(name) for _, name in found} >= set(names)
  assert not {str(name) for _, name in found} & {'out/o.png', 'a.txt', '.h.png', 'o.png'}


def bomb():
  return files.chunk(b'IHDR', files.struct.pack('>IIBBBBB', 40_000, 40_000, 8, 2, 0, 0, 0))


def exif_of(content):
  return saved(RGB, 'jpeg', exif=b'Exif\0\0' + content)


WRONG = {
    'empty.png': b'', 'text.png': b'no picture', 'cut.png': saved(RGB, 'png')[:300],
    'cut.jpg': saved(RGB, 'jpeg')[:400], 'tiny.png': saved(RGB[:1, :1], 'png'),
    'thin.png': saved(RGB[:1], 'png'), 'zeros.png': bytes(10_000),
    'bomb.png': b'\x89PNG\r\n\x1a\n' + bomb() + files.chunk(b'IEND', b''),
    'long.png': saved(np.zeros((4, 33_000), np.uint8), 'png'),
    'float.tif': saved(np.ones((16, 20), np.float32), 'tiff'),
    'signed.tif': files.by_tifffile(np.ones((16, 20), np.int16)),
    'many.tif': files.by_tifffile(np.ones((16, 20, 7), np.uint16), photometric='minisblack',
                                  planarconfig='contig'),
    'crc.png': saved(RGB, 'png').replace(b'IDAT', b'IDAX', 1),
    'film.gif': b'GIF89a' + bytes(20), 'web.webp': saved(RGB, 'webp')[:60],
    'film.png': b'\0\0\0 ftypisom' + bytes(100), 'script.svg.png': b'<svg/>',
    'pdf.jpg': b'%PDF-1.4', 'eps.png': b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n',
    'psd.png': b'8BPS\0\1' + bytes(6) + b'\0\3' + bytes([0, 0, 0, 9] * 2) + b'\0\10\0\3',
    'head.bmp': saved(RGB, 'bmp')[:54], 'head.jp2': b'\0\0\0\x0cjP  \r\n\x87\n',
    'no.ppm': b'P6 20 16 255\n', 'tags.tif': b'II*\0\xff\xff\xff\xff'}


def test_each_wrong_file_has_one_message_and_the_others_are_generated(
    tmp_path, negative, capsys):
  good = {'wrong suffix.png': saved(RGB, 'jpeg'), 'good.png': saved(RGB, 'png'),
          'film.webp': saved(RGB, 'webp', lossless=True, save_all=True,
                             append_images=[Image.fromarray(255 - RGB)]),
          'no exif.jpg': exif_of(b'nonsense'), 'n' * 251 + '.png': saved(RGB, 'png'),
          '\udcff.png': saved(RGB, 'png')}
  fill(tmp_path / 'in', {**WRONG, **good})
  done = run(negative, tmp_path / 'in', tmp_path / 'out')
  assert {each.source.name for each in done.failures} == {*WRONG}
  assert len(done.failures) == len(WRONG) and tree(tmp_path / 'out') == sorted(good)
  for each in done.failures:
    text = str(each)
    assert text.count(each.source.name) == 1 and '\n' not in text and len(text) < 400
  assert [str(each) for each in done.left_out] == [
      f'{tmp_path}/in/film.webp: of its 2 frames only the first is taken']
  for name, what in (('tiny', '1x1'), ('bomb', 'pixels'), ('empty', 'empty'), ('float', 'float')):
    assert [each for each in done.failures if each.source.stem == name and what in each.reason]


def labels_network(edges=True, **more):
  inputs = 4 + edges
  return bind(Negative(inputs=inputs, input_kind='labels'),
              labels={'edges': edges, 'dont_care': False, **more})


LABELS = np.arange(320).reshape(16, 20) // 60 % 4


def label_files():
  return {'a.png': saved(LABELS.astype(np.uint8), 'png'), 'sub/b.png': saved(
      np.rot90(LABELS, 2).astype(np.uint8), 'png')}


def test_label_maps_and_instances_of_the_same_place_are_read(tmp_path):
  instances = (np.arange(320).reshape(16, 20) % 20 // 7).astype(np.uint16)
  fill(tmp_path / 'in', label_files())
  fill(tmp_path / 'instances', {'a.png': instances, 'sub/b.png': instances[::-1]})
  network = labels_network()
  run(network, tmp_path / 'in', tmp_path / 'out', instances=tmp_path / 'instances')
  for name, numbers, each in (('a', LABELS, instances), ('sub/b', LABELS[::-1, ::-1],
                                                         instances[::-1])):
    planes = decode.label_planes(numbers, each.astype(int), classes=4)[..., -3:]
    image = np.asarray(Image.open(tmp_path / f'out/{name}.png'))
    assert (image == np.where(planes == 1, 0, 128)).all()  # -1 and -0
  # The record knows of the instances; a map of them that changes makes another image.
  fill(tmp_path / 'instances', {'a.png': instances * 0})
  again = run(network, tmp_path / 'in', tmp_path / 'out', instances=tmp_path / 'instances',
              overwrite=True)
  assert (again.written, again.skipped) == (1, 1)


def test_the_edges_of_a_resized_label_map_are_its_own(tmp_path):
  fill(tmp_path, {'a.png': LABELS.astype(np.uint8)})
  run(labels_network(), tmp_path / 'a.png', tmp_path / 'b.png', size=(8, 10))
  planes = decode.label_planes(LABELS[1::2, 1::2], classes=4)
  assert (np.asarray(Image.open(tmp_path / 'b.png')) == np.where(planes[..., -3:], 0, 128)).all()


def test_each_wrong_label_map_has_one_message(tmp_path):
  good, maps = label_files()['a.png'], LABELS.astype(np.uint8)
  fill(tmp_path / 'in', {'good.png': good, 'high.png': maps + 7, 'void.png': maps * 85,
                         'colour.png': RGB, 'lossy.jpg': saved(GREY, 'jpeg'), 'alone.png': good,
                         'size.png': good, 'text.png': b'x'})
  fill(tmp_path / 'instances', {'size.png': maps[:8], **dict.fromkeys(
      ('good.png', 'high.png', 'void.png', 'colour.png', 'lossy.jpg', 'text.png'), good)})
  done = run(labels_network(), tmp_path / 'in', tmp_path / 'out', instances=tmp_path / 'instances')
  assert tree(tmp_path / 'out') == ['good.png']
  assert {each.source.name for each in done.failures} == {
      'high.png', 'void.png', 'colour.png', 'lossy.jpg', 'alone.png', 'size.png', 'text.png'}
  text = '\n'.join(map(str, done.failures))
  assert 'labels 7, 8, 9, 10 are not among 0 to 3' in text and '8x20' in text
  assert 'compression changes labels' in text and 'No such file' in text


class Latents(linen.Module):
  latent: int = 6

  def example(self):
    return jnp.zeros((1, self.latent))

  @linen.compact
  def __call__(self, z, train=False):
    y = z * self.param('factor', lambda key: jnp.float32(-1))
    return jnp.tanh(y).reshape(-1, 1, 2, 3).repeat(8, 1).repeat(5, 2), {}


def test_latents_give_numbered_images_a_grid_and_are_gone_on_with(tmp_path):
  network = bind(Latents())
  done = run(network, None, tmp_path, count=5, seed=3, grid=True, batch=2)
  first = {name: (tmp_path / name).read_bytes() for name in tree(tmp_path)}
  assert done.written == 5 and [*first] == [f'000{i}.png' for i in range(5)] + ['grid.png']
  assert Image.open(tmp_path / 'grid.png').size == (3 * 10 + 4, 2 * 8 + 2)
  again = run(network, None, tmp_path, count=5, seed=3, grid=True)
  assert (again.written, again.skipped) == (0, 5)
  more = run(network, None, tmp_path, count=9, seed=3)
  assert (more.written, more.skipped) == (4, 5)
  assert {name: (tmp_path / name).read_bytes() for name in first} == first
  with pytest.raises(FileExistsError, match='exist and were not generated'):
    run(network, None, tmp_path, count=5, seed=4)
  other = run(network, None, tmp_path, count=5, seed=4, overwrite=True, format='png')
  assert other.written == 5 and (tmp_path / '0000.png').read_bytes() != first['0000.png']


def test_a_second_call_skips_what_is_done_and_overwrites_nothing(tmp_path, negative):
  source, out = fill(tmp_path / 'in', {'a.bmp': saved(RGB, 'bmp'), 'b.bmp': saved(RGB, 'bmp')}), \
      tmp_path / 'out'
  run(negative, source, out)
  assert run(negative, source, out).skipped == 2
  other = bind(factor=-.5)
  with pytest.raises(FileExistsError, match='2 of 2 output files exist'):
    run(other, source, out)
  assert (np.asarray(Image.open(out / 'a.bmp')) == 255 - RGB).all()
  # A killed call of another network has noted a file that it had not put in place.
  os.utime(out / 'b.bmp', (0, 0))
  assert run(negative, source, out).skipped == 2  # the time is another, the content is not
  before = (out / 'b.bmp').read_bytes()
  assert run(other, source, out, overwrite=True).written == 2
  (out / 'b.bmp').write_bytes(before)
  again = run(other, source, out, overwrite=True)
  assert (again.written, again.skipped) == (1, 1)
  # A line that was cut off spoils neither itself nor the next.
  with open(out / picture_folders.RECORD, 'a') as file:
    file.write('{"name": "a.b')
  fill(source, {'c.bmp': saved(RGB, 'bmp')})
  assert run(other, source, out).written == 1 and run(other, source, out).skipped == 3
  # Another file of the same name, size and time elsewhere is another file.
  elsewhere = fill(tmp_path / 'elsewhere', {name: saved(255 - RGB, 'bmp') for name in (
      'a.bmp', 'b.bmp', 'c.bmp')})
  for path in elsewhere.iterdir():
    stat = (source / path.name).stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
  with pytest.raises(FileExistsError, match='3 of 3'):
    run(other, elsewhere, out)


class Stopping:
  """An engine that runs so many batches."""
  name = 'jax'

  def __init__(self, batches, error):
    self.left, self.error = batches, error

  def __call__(self, x):
    if not self.left:
      raise self.error
    self.left -= 1
    return -(x.astype(np.float32) / 127.5 - 1)


def test_ctrl_c_leaves_no_half_file_and_the_next_call_goes_on(tmp_path, negative, monkeypatch):
  source = fill(tmp_path / 'in', {f'{i}.png': RGB for i in range(9)})
  monkeypatch.setattr(folders, 'choose_engine',
                      lambda *_: Stopping(3, KeyboardInterrupt()))
  with pytest.raises(KeyboardInterrupt):
    run(negative, source, tmp_path / 'out', batch=1)
  found = tree(tmp_path / 'out')
  assert len(found) <= 3 and not [name for name in found if name.endswith('.part')]
  (tmp_path / 'out' / f'.{picture_folders.key_of("8.png")}.part').write_bytes(b'of kill -9')
  monkeypatch.setattr(folders, 'choose_engine', lambda *_: Stopping(99, None))
  done = run(negative, source, tmp_path / 'out')
  assert (done.written, done.skipped) == (9 - len(found), len(found))
  assert tree(tmp_path / 'out') == [f'{i}.png' for i in range(9)]


def test_a_full_disk_stops_at_once_and_what_is_written_is_whole(tmp_path, negative):
  source = fill(tmp_path / 'in', {f'{i}.png': np.zeros((16, 20), np.uint8) for i in range(4)})
  fill(source, {'5.png': picture(64, 64), '6.png': picture(64, 64)})
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
  try:
    with pytest.raises(OSError, match='cannot be written') as caught:
      run(negative, source, tmp_path / 'out')
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  assert caught.value.filename.endswith('.png')
  assert tree(tmp_path / 'out') == [f'{i}.png' for i in range(4)]
  done = run(negative, source, tmp_path / 'out')
  assert (done.written, done.skipped) == (2, 4)


def test_few_pictures_wait_to_be_encoded_or_decoded(tmp_path, negative, monkeypatch):
  waiting, most, lock = [0], [0], threading.Lock()

  class Slow(picture_folders.Reader):
    def count(self, change):
      with lock:
        waiting[0] += change
        most[0] = max(most[0], waiting[0])

    def read(self, job):
      self.count(1)
      return super().read(job)

    def encode(self, *args):
      time.sleep(.01)
      content = super().encode(*args)
      self.count(-1)
      return content

  monkeypatch.setattr(picture_folders, 'WAITING', 3 * 16 * 20 * 3 * 4)
  monkeypatch.setattr(folders, 'Reader', Slow)
  source = fill(tmp_path / 'in', {f'{i:02}.png': RGB for i in range(60)})
  assert run(negative, source, tmp_path / 'out', batch=1).written == 60
  assert most[0] <= 3 + 2 + 1 + picture_folders.WORKERS


@pytest.mark.parametrize(('options', 'match'), [
    ({'size': (8, 8), 'max_side': 4}, 'size and max_side'), ({'max_side': 0}, 'at least 1'),
    ({'size': (30_000, 30_000)}, 'at most'), ({'format': 'gif'}, 'one of png'),
    ({'quality': 0}, '1 to 100'), ({'colors': 'grey'}, 'one of auto'), ({'batch': 0}, '1 to'),
    ({'engine': 'gpu'}, 'one of auto'), ({'tile': -1}, '0 to'), ({'count': 0}, '1 to'),
    ({'count': 3}, 'count would'), ({'seed': 3}, 'seed'), ({'grid': True}, 'grid would'),
    ({'seed': 2**40}, '0 to'), ({'instances': 'in'}, 'takes no instances'),
    ({'labels': {'edges': True}}, 'takes no label maps'), ({'input': None}, 'give an input'),
    ({'input': 'nowhere'}, 'not there'), ({'input': 'no*.png'}, 'no image file'),
    ({'input': 'empty'}, 'no image files'), ({'output': 'in'}, 'folder that is read'),
    ({'output': 'file'}, 'need a folder'),
    ({'input': 'a.png', 'output': 'file'}, 'is a file'), ({'output': 'o.png'}, 'need a folder'),
    ({'output': 'a.png'}, 'need a folder'), ({'input': 'a.png', 'output': '.'}, 'is an input'),
    ({'input': 'a.png', 'output': 'o.gif'}, 'no suffix'),
    ({'input': 'a.png', 'output': 'o.png', 'format': 'jpg'}, 'no name of a jpg'),
    ({'input': 'a.png', 'output': 'folders'}, 'is a folder'),
    ({'output': 'file/sub'}, 'is a file'),
    ({'input': 'a*', 'output': '.'}, 'is an input')])
def test_what_is_known_to_be_wrong_is_said_before(tmp_path, negative, monkeypatch, options, match):
  monkeypatch.chdir(fill(tmp_path, {'in/a.png': RGB, 'in/b.png': RGB, 'a.png': RGB, 'file': b'x',
                                    'empty/x.txt': b'x', 'folders/a.png/b.png': RGB}))
  before = tree(tmp_path)
  arguments = {'input': 'in', 'output': 'out', 'engine': 'jax', **options}
  with pytest.raises((ValueError, FileNotFoundError), match=match):
    jgc.generate(negative, **arguments)
  assert tree(tmp_path) == before


@pytest.mark.parametrize(('options', 'match'), [
    ({'instances': 'in/a.png'}, 'one file for 2 label maps'), ({'instances': 'no'}, 'not there')])
def test_wrong_instances_are_said_before(tmp_path, monkeypatch, options, match):
  monkeypatch.chdir(fill(tmp_path / 'x', {f'in/{name}': x for name, x in label_files().items()}))
  with pytest.raises((ValueError, FileNotFoundError), match=match):
    run(labels_network(), 'in', 'out', **options)
  with pytest.raises(ValueError, match='takes no instances'):
    run(labels_network(edges=False), 'in', 'out', instances='in')


def test_a_folder_of_one_picture_is_a_folder(tmp_path, negative):
  fill(tmp_path, {'in/a.png': RGB})
  run(negative, tmp_path / 'in', tmp_path / 'out.v2')
  assert tree(tmp_path / 'out.v2') == ['a.png']


def test_an_image_that_its_format_cannot_hold_is_named(tmp_path, negative):
  fill(tmp_path, {'in/a.png': picture(4, 17_000), 'in/b.png': picture(4, 17_000)[:, ::-1]})
  done = run(negative, tmp_path / 'in', tmp_path / 'out', format='webp')
  assert 'cannot write 4x17000 pixels as WEBP' in done.failures[0].reason


def test_a_folder_that_cannot_be_written_is_said_before(tmp_path, negative, monkeypatch):
  fill(tmp_path, {'in/a.png': RGB})
  monkeypatch.setattr(os, 'access', lambda path, mode: False)  # the user of tests may be root
  with pytest.raises(ValueError, match='not writable'):
    run(negative, tmp_path / 'in', tmp_path / 'new/out')


@pytest.mark.parametrize('late', [b'eXIf', b'tEXt'])
def test_a_png_is_turned_by_what_stands_behind_its_pixels(tmp_path, negative, late):
  exif = Image.Exif()
  exif[274] = 6
  content = exif.tobytes()[6:] if late == b'eXIf' else \
      b'Raw profile type exif\0\nexif\n%8d\n' % len(exif.tobytes()) + exif.tobytes().hex().encode()
  fill(tmp_path, {'a.png': saved(RGB, 'png')[:-12] + files.chunk(late, content)
                  + files.chunk(b'IEND', b'')})
  assert picture_folders.size_of(tmp_path / 'a.png') == (20, 16)
  run(negative, tmp_path / 'a.png', tmp_path / 'b.png')
  assert (np.asarray(Image.open(tmp_path / 'b.png')) == 255 - np.rot90(RGB, -1)).all()


def test_files_that_change_meanwhile_or_are_too_large_or_named_too_long_stop_no_others(
    tmp_path, negative, monkeypatch):
  fill(tmp_path / 'in', {'changed.png': RGB, 'large.bmp': saved(picture(64, 64), 'bmp'),
                         'n' * 251 + '.gif': saved(RGB, 'gif'), 'n' * 251 + '.png': RGB})
  size_of = picture_folders.size_of
  monkeypatch.setattr(picture_folders, 'size_of', lambda file: (
      (16, 24) if file.stem == 'changed' else size_of(file)))
  monkeypatch.setattr(picture_folders, 'MOST_BYTES', 10_000)
  done = run(negative, tmp_path / 'in', tmp_path / 'out')
  assert done.written == 1
  assert [each.reason.partition('out/')[0] for each in done.failures[:1]] == [
      'it has changed meanwhile; call again']
  assert 'bytes, more than a picture' in done.failures[1].reason
  assert 'name is too long' in done.failures[2].reason


def test_numbers_that_are_not_finite_are_no_image(tmp_path):
  fill(tmp_path, {'a.png': RGB})
  done = run(bind(factor=np.nan), tmp_path / 'a.png', tmp_path / 'b.png')
  assert 'not finite' in done.failures[0].reason and not (tmp_path / 'b.png').exists()


def test_many_sizes_are_said_and_few_programs_kept(tmp_path, negative, monkeypatch, caplog):
  monkeypatch.setattr(folders, 'MANY_SIZES', 2)
  monkeypatch.setattr(engines, 'PROGRAMS', 2)
  fill(tmp_path / 'in', {f'{i}.png': picture(8, 8 + i) for i in range(4)})
  network = bind(factor=-.25)
  done = run(network, tmp_path / 'in', tmp_path / 'out')
  assert done.written == 4 and 'have 4 sizes' in caplog.text
  assert ENGINES[network.identity, 'jax']._run._cache_size() == 2


def test_the_command_says_what_it_did_left_out_and_could_not(tmp_path, monkeypatch, capsys):
  folder = fill(tmp_path / 'in', {'a.png': RGB, 'b.png': b'x', 'c.txt': b'x', 'd.xyz': b'x'})
  network = tmp_path / 'G.safetensors'
  network.write_bytes(b'')
  monkeypatch.setattr(folders, 'open_network', lambda *_, **__: bind())
  flags = ['generate', f'--network={network}', f'--input={folder}', f'--output={tmp_path / "out"}',
           '--engine=jax']
  assert main(flags) == 1
  out, err = capsys.readouterr()
  assert '1 images in' in out and 'left out: 2' in err and 'not generated: 1' in err
  assert err.count('b.png') == 1 and 'no image file' in err
  (folder / 'b.png').unlink()
  assert main(flags) == 0 and '1 skipped' in capsys.readouterr()[0]
  monkeypatch.setattr(folders, 'choose_engine', lambda *_: Stopping(0, KeyboardInterrupt()))
  assert main([*flags[:3], f'--output={tmp_path / "other"}']) == 130
