"""Videos through a generator: every frame in its time, sound as it was, resumed, steady."""

import dataclasses
import json
import sys
from fractions import Fraction

import av
import jax
import numpy as np
import pytest
from PIL import Image

from jaxgan_compress import inference, nn
from jaxgan_compress.cli import main as cli
from jaxgan_compress.core import BoundGenerator
from jaxgan_compress.inference import engines, norm_statistics, video

HEIGHT, WIDTH, FRAMES = 48, 64, 12


@pytest.fixture(scope='module')
def network():
  """An instance-norm generator, whose sides are multiples of 4."""
  module = nn.mobile_resnet(ngf=2, blocks=1)
  return inference.bind('tiny', BoundGenerator(
      nn.initialise(module, jax.random.key(0)), module))


def picture(i, height=HEIGHT, width=WIDTH):
  """A smooth frame on which a square moves."""
  y, x = np.mgrid[:height, :width]
  pixels = np.stack([x * 2 + 40, y * 3 + 30, (x + y) + 20], -1).clip(0, 255).astype(np.uint8)
  pixels[8:20, 3 * i % width:3 * i % width + 10] = (230, 30, 60)
  return pixels


def write(path, codec='libx264', sound=None, *, frames=FRAMES, rate=Fraction(30000, 1001),
          size=(HEIGHT, WIDTH), form='yuv420p', times=None, base=None, options=None, image=picture,
          turn=None, **fields):
  """A video file. times: of frames in units of `base`; fields: of the encoder."""
  base = base or 1 / rate
  with av.open(str(path), 'w') as file:
    stream = file.add_stream(codec, rate=rate, options=options or {})
    stream.height, stream.width, stream.pix_fmt = *size, form
    stream.time_base = stream.codec_context.time_base = base
    for name, value in fields.items():
      setattr(stream.codec_context, name, value)
    if turn:
      stream.set_display_rotation(turn)
    voice = sound and file.add_stream(sound, rate=48000, layout='mono')
    for i in range(frames):
      pixels = image(i, *size)
      frame = av.VideoFrame.from_ndarray(pixels, 'rgba' if pixels.shape[-1] == 4 else 'rgb24')
      frame.pts, frame.time_base = times[i] if times else i, base
      file.mux(stream.encode(frame))
    file.mux(stream.encode(None))
    if sound:
      wave = (np.sin(np.arange(int(48000 * frames / rate)) / 20) * 9000).astype(np.int16)[None]
      samples = av.AudioFrame.from_ndarray(wave, 's16', 'mono')
      samples.sample_rate = 48000
      resampler = av.AudioResampler(voice.codec_context.format.name, 'mono', 48000,
                                    voice.codec_context.frame_size or 1024)
      parts = [*resampler.resample(samples), *resampler.resample(None)]
      for i, part in enumerate(parts):
        part.pts = i * parts[0].samples
        file.mux(voice.encode(part))
      file.mux(voice.encode(None))
  return path


def seen(path):
  """What a player sees: (times in seconds, when the last frame ends, rate, size, aspect)."""
  with av.open(str(path), options={'min_delay': '1'} if path.suffix == '.gif' else {}) as file:
    stream = file.streams.best('video')
    frames = [*file.decode(stream)]
    times = [frame.pts * frame.time_base for frame in frames]
    return (times, times[-1] + frames[-1].duration * frames[-1].time_base, stream.average_rate,
            (frames[0].height, frames[0].width), stream.sample_aspect_ratio or Fraction(1))


def heard(path):
  """The packets of the sound: (time, duration, content)."""
  with av.open(str(path)) as file:
    if not file.streams.audio:
      return []
    return [(packet.pts * packet.time_base, packet.duration * packet.time_base, bytes(packet))
            for packet in file.demux(audio=0) if packet.size]


def pixels(path, form='rgb24'):
  with av.open(str(path)) as file:
    return np.stack([frame.to_ndarray(format=form) for frame in file.decode(video=0)])


CONTAINERS = [
    ('a.mp4', 'libx264', 'aac'), ('a.mov', 'libx264', 'aac'), ('a.webm', 'libvpx-vp9', 'libopus'),
    ('a.mkv', 'libx264', 'flac'), ('a.avi', 'mpeg4', 'pcm_s16le')]


@pytest.mark.parametrize('name, codec, sound', CONTAINERS)
def test_frames_times_and_sound_stay(name, codec, sound, network, tmp_path):
  rate = Fraction(25) if name == 'a.avi' else Fraction(30000, 1001)
  source, target = write(tmp_path / name, codec, sound, rate=rate), tmp_path / f'out{name[1:]}'
  inference.generate(network, source, target, engine='jax')
  assert seen(target) == seen(source)
  assert heard(target) == heard(source)
  assert len(seen(target)[0]) == FRAMES


VARYING = [0, 1000, 1500, 4000, 4100, 5000, 7000, 7333, 8000, 9000, 9900, 12000]


@pytest.mark.parametrize('name, codec', [('a.mp4', 'libx264'), ('a.mkv', 'libx264'),
                                         ('a.webm', 'libvpx')])
def test_varying_times_stay(name, codec, network, tmp_path, monkeypatch):
  """Over segments of frames that are decoded in another order than they are shown."""
  monkeypatch.setattr(video, 'SEGMENT', 5)
  source = write(tmp_path / name, codec, times=VARYING, base=Fraction(1, 30000))
  inference.generate(network, source, tmp_path / f'out{name[1:]}', engine='jax')
  assert seen(tmp_path / f'out{name[1:]}')[:2] == seen(source)[:2]
  assert len({b - a for a, b in zip(seen(source)[0], seen(source)[0][1:], strict=False)}) > 5


def identity(x):
  return np.float32(2 / np.iinfo(x.dtype).max) * x - 1


@pytest.fixture
def copying(network, monkeypatch):
  """A network that returns its input, so that colours and places can be compared."""
  monkeypatch.setattr(inference.folders.Runner, '__call__', lambda self, x: identity(x))
  return network


def corners(path):
  """The mean colours of the corners of the first frame, as a player shows them."""
  with av.open(str(path)) as file:
    frame = next(file.decode(video=0))
    shown = np.rot90(frame.to_ndarray(format='rgb24'), frame.rotation // 90)
  height, width = (side // 4 for side in shown.shape[:2])
  ends = lambda side: (slice(side), slice(-side, None))
  return np.stack([shown[rows, columns].mean((0, 1)) for rows in ends(height)
                   for columns in ends(width)])


@pytest.mark.parametrize('turn', [90, 180, -90])
def test_rotation_is_applied(turn, copying, tmp_path):
  source = write(tmp_path / 'a.mp4', turn=turn, sample_aspect_ratio=Fraction(4, 3))
  inference.generate(copying, source, tmp_path / 'out.mp4', engine='jax')
  np.testing.assert_allclose(corners(tmp_path / 'out.mp4'), corners(source), atol=6)
  *_, size, aspect = seen(tmp_path / 'out.mp4')
  assert (size, aspect) == (((HEIGHT, WIDTH), Fraction(4, 3)) if turn == 180 else
                            ((WIDTH, HEIGHT), Fraction(3, 4)))
  with av.open(str(tmp_path / 'out.mp4')) as file:
    assert next(file.decode(video=0)).rotation == 0


@pytest.mark.parametrize('name, codec, form, size, expected, note', [
    ('a.mp4', 'libx264', 'yuv444p', (33, 51), (33, 51, 'yuv444p'), None),
    ('a.webm', 'libvpx-vp9', 'yuv420p', (33, 51), (33, 51, 'yuv420p'), None),
    ('a.mp4', 'libx265', 'yuv420p10le', (48, 64), (48, 64, 'yuv420p10le'), None),
    ('a.mov', 'prores_ks', 'yuv422p10le', (48, 64), (48, 64, 'yuv422p10le'), None),
    ('a.avi', 'mjpeg', 'yuvj420p', (33, 51), (33, 51, 'yuvj420p'), None),
    ('a.mkv', 'ffv1', 'bgr0', (33, 51), (33, 51, 'bgr0'), None),
    ('a.avi', 'wmv2', 'yuv420p', (48, 64), (48, 64, 'yuv420p'), None),
    ('a.mp4', 'libx264', 'gray', (48, 64), (48, 64, 'yuv420p'), None),
    ('a.mp4', 'libsvtav1', 'yuv420p10le', (64, 64), (64, 64, 'yuv420p10le'), None)])
def test_sizes_depth_and_codec_stay(name, codec, form, size, expected, note, copying, tmp_path):
  source, target = write(tmp_path / name, codec, form=form, size=size, rate=Fraction(25),
                         frames=4), tmp_path / f'out{name[1:]}'
  done = inference.generate(copying, source, target, engine='jax', quality=95)
  with av.open(str(source)) as a, av.open(str(target)) as b:
    known, made = a.streams.video[0].codec.canonical_name, b.streams.video[0]
    assert made.codec.canonical_name == ('mpeg4' if known == 'wmv2' else known)
    assert (made.height, made.width, made.format.name) == expected
  assert done.videos[0].notes == (() if note is None else (note,))
  assert np.abs(pixels(source).astype(int) - pixels(target)).mean() < 5


def test_odd_sides_get_a_border_where_the_encoder_takes_none(copying, tmp_path):
  source = write_gif(tmp_path / 'a.gif', size=(33, 51))
  done = inference.generate(copying, source, tmp_path / 'out.mp4', engine='jax')
  assert seen(tmp_path / 'out.mp4')[3] == (34, 52)
  assert done.videos[0].notes == ('51x33 becomes 52x34, its border repeated: libx264 takes even '
                                  'sides',)
  made = pixels(tmp_path / 'out.mp4').astype(int)
  assert np.abs(made[:, -1] - made[:, -2]).mean() < 4
  assert seen(tmp_path / 'out.mp4')[:2] == seen(source)[:2]  # durations of 100, 30, 270, 70 ms


@pytest.mark.parametrize('space, full', [(1, False), (5, False), (1, True), (2, False), (9, False)])
def test_colours_stay(space, full, copying, tmp_path):
  def flat(i, height, width):
    return np.broadcast_to(np.uint8([200, 60, 30]), (height, width, 3)).copy()

  source = write(tmp_path / 'a.mp4', image=flat, frames=3, colorspace=space,
                 color_range=2 if full else 1, color_primaries=9, color_trc=13)
  inference.generate(copying, source, tmp_path / 'out.mp4', engine='jax', quality=95)
  frames = []
  for path in (source, tmp_path / 'out.mp4'):
    with av.open(str(path)) as file:
      frames.append(next(file.decode(video=0)))
  a, b = frames
  fields = ('colorspace', 'color_range', 'color_primaries', 'color_trc')
  assert [getattr(a, field) for field in fields] == [getattr(b, field) for field in fields]
  for plane, made in zip(a.to_ndarray(format='yuv444p'), b.to_ndarray(format='yuv444p'),
                         strict=True):
    np.testing.assert_allclose(made.astype(int), plane, atol=2)


def test_colours_change_by_rounding_alone(copying, tmp_path):
  """Between YUV of halved chroma and RGB, there and back; swscale's default loses 6 levels."""
  def smooth(i, height, width):
    few = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(few).resize((width, height), Image.Resampling.BICUBIC))

  source = write(tmp_path / 'a.mkv', 'ffv1', image=smooth, frames=1)
  inference.generate(copying, source, tmp_path / 'out.mkv', engine='jax')
  planes = [pixels(path, 'yuv420p').astype(int) for path in (source, tmp_path / 'out.mkv')]
  assert np.abs(planes[0] - planes[1]).mean() < .5


@pytest.mark.parametrize('level, full, expected', [(16, False, 0), (235, False, 255),
                                                   (16, True, 16), (235, True, 235)])
def test_levels_are_read_in_their_range(level, full, expected, network, tmp_path):
  source = write(tmp_path / 'a.mp4', frames=2, color_range=2 if full else 1)
  clip = video.probe(source)
  stored = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
  stored[:HEIGHT] = level
  frame = av.VideoFrame.from_ndarray(stored, 'yuv420p')
  found = video._picture(clip, frame, reader(network)).pixels
  np.testing.assert_allclose(found, expected, atol=1)


def test_alpha_stays_in_webm(copying, tmp_path):
  def clear(i, height, width):
    alpha = np.full((height, width, 1), 255, np.uint8)
    alpha[:, :20] = 0
    return np.dstack([picture(i, height, width), alpha])

  source = write(tmp_path / 'a.webm', 'libvpx-vp9', form='yuva420p', image=clear, frames=4)
  done = inference.generate(copying, source, tmp_path / 'out.webm', engine='jax')
  clip = video.probe(tmp_path / 'out.webm')
  assert clip.alpha and clip.transparent and not done.videos[0].notes
  done = inference.generate(copying, source, tmp_path / 'out.mp4', engine='jax')
  assert 'composed on white' in done.videos[0].notes[0]
  assert pixels(tmp_path / 'out.mp4')[:, :, :16].min() > 240


def write_gif(path, durations=(100, 30, 270, 70), loop=3, clear=False, size=(HEIGHT, WIDTH)):
  images = [Image.fromarray(picture(i, *size)).quantize(200) for i in range(len(durations))]
  extra = {'transparency': 255} if clear else {}
  for image in images if clear else ():
    image.paste(255, (44, 0, 64, HEIGHT))
  images[0].save(path, save_all=True, append_images=images[1:], duration=list(durations), loop=loop,
                 disposal=2 if clear else 0, **extra)
  return path


@pytest.mark.parametrize('clear', [False, True])
def test_gif_keeps_its_durations_loop_and_transparency(clear, copying, tmp_path):
  source = write_gif(tmp_path / 'a.gif', clear=clear)
  inference.generate(copying, source, tmp_path / 'out.gif', engine='jax')
  with Image.open(source) as a, Image.open(tmp_path / 'out.gif') as b:
    assert b.info['loop'] == a.info['loop'] == 3 and b.n_frames == a.n_frames == 4
    for i in range(4):
      a.seek(i), b.seek(i)
      assert a.info['duration'] == b.info['duration']
      one, two = (np.asarray(x.convert('RGBA')).astype(int) for x in (a, b))
      assert (one[..., 3] == two[..., 3]).all() and (one[..., 3].min() == 0) == clear
      assert np.abs(one - two)[one[..., 3] > 0].mean() < 4


def frames_of(path):
  return {frame.pts: frame.to_ndarray(format='rgb24') for frame in decoded(path)}


def decoded(path):
  with av.open(str(path)) as file:
    return [*file.decode(video=0)]


class Killed(BaseException):
  """As if the process ended here."""


@pytest.mark.parametrize('steady', [0., .8])
def test_a_killed_run_goes_on(steady, network, tmp_path, monkeypatch):
  """And what comes out is what a run that nobody stopped writes; seen without loss, since the
  macroblock tree of x264 does not always weigh such small frames the same."""
  monkeypatch.setattr(video, 'SEGMENT', 4)
  source = write(tmp_path / 'a.mkv', 'ffv1', 'flac', form='bgr0')
  options = {'engine': 'jax', 'steady': steady, 'batch': 2}
  whole = inference.generate(network, source, tmp_path / 'whole.mkv', **options)

  calls, made = [], video._Maker.__call__

  def dies(self, chunk, count):
    calls.append(len(chunk))
    if sum(calls) > 6:
      raise Killed
    return made(self, chunk, count)

  monkeypatch.setattr(video._Maker, '__call__', dies)
  with pytest.raises(Killed):
    inference.generate(network, source, tmp_path / 'out.mkv', **options)
  assert not (tmp_path / 'out.mkv').exists()
  [folder] = tmp_path.glob('.out.mkv.*.segments')
  assert (folder / '000000.json').exists() and not (folder / '000001.json').exists()
  (folder / '000001.json').write_text('{"times": [1, 2], "byt')  # as a crash may leave it
  calls.clear()
  monkeypatch.setattr(video._Maker, '__call__', lambda *args: (calls.append(1), made(*args))[1])
  shown = []
  done = inference.generate(network, source, tmp_path / 'out.mkv', **options,
                            progress=lambda items, total, what: shown.append(total) or items)
  assert (done.videos[0].generated, done.videos[0].frames, shown) == (8, 12, [12])
  assert len(calls) == 4 and not folder.exists()
  assert done.videos[0].flicker == whole.videos[0].flicker
  one, two = frames_of(tmp_path / 'whole.mkv'), frames_of(tmp_path / 'out.mkv')
  assert one.keys() == two.keys() and all((one[key] == two[key]).all() for key in one)
  assert heard(tmp_path / 'out.mkv') == heard(source)

  again = inference.generate(network, source, tmp_path / 'out.mkv', **options)
  assert (again.skipped, again.videos) == (1, ())
  with pytest.raises(FileExistsError, match='give another output'):
    inference.generate(network, source, tmp_path / 'out.mkv', engine='jax', quality=20)


def test_a_segment_that_is_not_whole_is_made_anew(network, tmp_path):
  source = write(tmp_path / 'a.mp4', frames=2)
  videos = video.prepare(network, [(source, source)], tmp_path / 'o.mp4', reader(network),
                         single=True)
  work = video._Work(videos, *videos.jobs[0])
  work.folder.mkdir()
  row = {'times': [0, 1001], 'bytes': 10, 'last': True, 'flicker': {}}
  (work.folder / '000000.json').write_text(json.dumps(row))
  for size, rows in ((10, [row]), (9, [])):
    (work.folder / '000000.segment').write_bytes(bytes(size))
    assert video._Work(videos, *videos.jobs[0]).rows == rows


def test_a_segment_of_other_options_is_not_taken(network, tmp_path, monkeypatch):
  source = write(tmp_path / 'a.mp4', frames=2)
  [first] = video.prepare(network, [(source, source)], tmp_path / 'o.mp4', reader(network),
                          single=True).jobs
  keys = set()
  for options in ({}, {'quality': 30}, {'max_side': 32}):
    for steady in (0., .5):
      videos = video.prepare(network, [(source, source)], tmp_path / 'o.mp4',
                             reader(network, **options), single=True, steady=steady)
      keys.add(video._Work(videos, *videos.jobs[0]).key)
  assert len(keys) == 6 and first[0].target == tmp_path / 'o.mp4'


def reader(network, **options):
  return inference.folders.Reader(network.takes, inference.folders.Options(**options))


def flashing(i, height, width):
  """A still scene in which a large bright thing comes and goes at the side."""
  pixels = picture(0, height, width)
  pixels[:, 44:] = np.uint8([90, 150][i % 2])
  return pixels


def test_steady_lessens_flicker(network, tmp_path):
  source = write(tmp_path / 'a.mkv', 'ffv1', form='bgr0', image=flashing)
  found = [inference.generate(network, source, tmp_path / f'{steady}.mkv', steady=steady,
                              engine='jax').videos[0].flicker for steady in (0., .9)]
  assert found[0].plain == found[0].output == pytest.approx(found[1].plain, rel=1e-3)
  assert found[0].source < .1 and found[0].pairs == found[1].pairs == 7
  assert found[1].output < .5 * found[1].plain


def test_steady_averages_the_statistics_of_norms(network):
  """By hand for the first norm: share * before + (1 - share) * own; a scene cut starts anew."""
  frames = np.stack([picture(i) for i in (0, 5)])
  steady = video.Steady(network.bound, .75)
  images = steady(frames, [True, False])
  own = [jax.device_get(norm_statistics.measure(network.bound, x[None])) for x in frames]
  np.testing.assert_allclose(steady.state[0].mean, .75 * own[0][0].mean + .25 * own[1][0].mean,
                             rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(steady.state[0].squares,
                             .75 * own[0][0].squares + .25 * own[1][0].squares, rtol=1e-4)
  plain = network.bound(engines.to_float(frames))
  np.testing.assert_allclose(images[0], plain[0], atol=2e-4)
  assert np.abs(images[1] - plain[1]).max() > 1e-3
  np.testing.assert_allclose(steady(frames[1:], [True])[0], plain[1], atol=2e-4)


def test_scene_cuts_are_seen():
  smooth = video.thumbnail(picture(0))
  assert smooth.shape == (16, 16, 3) and smooth.max() <= 1
  assert video.is_scene_cut(None, smooth)
  assert not video.is_scene_cut(smooth, video.thumbnail(picture(6)))
  assert video.is_scene_cut(smooth, video.thumbnail(255 - picture(0)))
  deep = video.thumbnail(picture(0).astype(np.uint16) * 257)
  np.testing.assert_allclose(deep, smooth, atol=1e-6)


def test_flicker_counts_what_stands_still():
  one, two = np.full((32, 32, 3), 100, np.uint8), np.full((32, 32, 3), 101, np.uint8)
  two[:, :8] = 200  # moves, and with it what is within 4 pixels
  image = np.zeros((32, 32, 3), np.float32)
  later = image + np.float32(4 / 127.5)
  later[:, :8] = 1
  found = video.flicker_between(video.Seen(one, image, image), video.Seen(two, later, image))
  assert found.pixels == 32 * (32 - 8 - 4) and found.pairs == 1
  np.testing.assert_allclose([found.output, found.plain, found.source], [4, 0, 1], atol=1e-4)
  moving = one.copy()
  moving[:, :21] = 200
  assert video.flicker_between(video.Seen(one, image, image),
                               video.Seen(moving, image, image)) == video.Flicker()
  still = video.flicker_between(video.Seen(one, image, image), video.Seen(255 - one, image, image))
  assert still == video.Flicker()
  assert (found + still) == found
  assert 'not measured' in still.describe(False) and 'without steady' in found.describe(True)


def sound_alone(path):
  with av.open(str(path), 'w') as file:
    voice = file.add_stream('aac', rate=48000, layout='mono')
    samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), 'fltp', 'mono')
    samples.sample_rate, samples.pts = 48000, 0
    file.mux([*voice.encode(samples), *voice.encode(None)])
  return path


def without(path, share):
  content = path.read_bytes()
  path.write_bytes(content[:int(len(content) * share)])
  return path


def spoilt(path):
  """Bytes of some frames are others."""
  content = bytearray(path.read_bytes())
  start = content.find(b'mdat') + 1500
  content[start:start + 400] = bytes(x ^ 0x55 for x in content[start:start + 400])
  path.write_bytes(content)
  return path


def blank(path):
  path.write_bytes(b'')
  return path


WRONG = {
    'sound alone': (lambda d: sound_alone(d / 'a.mp4'), 'out.mp4', 'holds no video, only audio'),
    'empty': (lambda d: blank(d / 'a.mp4'), 'out.mp4', 'is no video, or damaged'),
    'half an mp4': (lambda d: without(write(d / 'a.mp4'), .5), 'out.mp4', 'or damaged'),
    'half an mkv': (lambda d: without(write(d / 'a.mkv', options={'crf': '5', 'bf': '0'}), .75),
                    'out.mkv', 'seconds are there'),
    'half a webm': (lambda d: without(write(d / 'a.webm', 'libvpx'), .75), 'out.webm',
                    'seconds are there'),
    'half an avi': (lambda d: without(write(d / 'a.avi', 'mpeg4', 'pcm_s16le',
                                            rate=Fraction(25)), .6),
                    'out.avi', 'of 12 frames are there'),
    'half a gif': (lambda d: without(write_gif(d / 'a.gif'), .7), 'out.gif', 'last block'),
    'spoilt': (lambda d: spoilt(write(d / 'a.mp4', options={'crf': '1'})), 'out.mp4', 'is damaged'),
    'a picture': (lambda d: write(d / 'a.mp4'), 'out.png', '.png holds none; take .mp4'),
    'its sound': (lambda d: write(d / 'a.mp4', sound='aac'), 'out.webm',
                  'cannot hold the aac sound'),
    'its rate': (lambda d: write(d / 'a.mp4', rate=Fraction(60)), 'out.gif', 'a GIF at most 50'),
    'its times': (lambda d: write(d / 'a.mp4', times=VARYING, base=Fraction(1, 30000)), 'out.avi',
                  'AVI has one rate'),
    'itself': (lambda d: write(d / 'a.mp4'), 'a.mp4', 'is an input and would be overwritten'),
}


@pytest.mark.parametrize('make, output, message', WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said(make, output, message, network, tmp_path):
  source = make(tmp_path)
  with pytest.raises(ValueError, match=message) as caught:
    inference.generate(network, source, tmp_path / output, engine='jax')
  assert '\n' not in str(caught.value) and not (
      (tmp_path / output).exists() and output != source.name)
  assert not [*tmp_path.glob('.*')]


@pytest.mark.parametrize('options, message', [
    ({'steady': 1.}, 'steady=1.0; a share from 0'), ({'steady': -.1}, 'steady=-0.1'),
    ({'steady': .5, 'engine': 'onnxruntime'}, 'runs on jax alone'),
    ({'steady': .5, 'tile': 32}, 'in one piece')])
def test_steady_is_checked(options, message, network, tmp_path):
  with pytest.raises(ValueError, match=message):
    inference.generate(network, write(tmp_path / 'a.mp4', frames=2), tmp_path / 'o.mp4', **options)


def test_networks_that_take_no_video(tmp_path):
  source = write(tmp_path / 'a.mp4', frames=2)
  bind = lambda module, **more: inference.bind('G', BoundGenerator(
      nn.initialise(module, jax.random.key(0)), module), **more)
  labels = bind(nn.mobile_resnet(ngf=1, blocks=0, inputs=3))
  still = dataclasses.replace(labels, takes=dataclasses.replace(
      labels.takes, kind='labels'))
  with pytest.raises(ValueError, match='generates from labels, which a video does not hold'):
    inference.generate(still, source, tmp_path / 'o.mp4')
  plain = bind(nn.mobile_resnet(ngf=1, blocks=0, norm='batch'))
  with pytest.raises(ValueError, match='no norm that takes statistics'):
    inference.generate(plain, source, tmp_path / 'o.mp4', steady=.5)
  latent = dataclasses.replace(labels, takes=dataclasses.replace(
      labels.takes, kind='latents'))
  with pytest.raises(ValueError, match='latents, where input would change nothing'):
    inference.generate(latent, source, tmp_path / 'o.mp4')


def test_a_folder_of_pictures_and_videos(network, tmp_path, capsys):
  folder = tmp_path / 'in'
  (folder / 'sub').mkdir(parents=True)
  write(folder / 'a.mp4', frames=3)
  write_gif(folder / 'sub' / 'b.gif', (100, 50))
  Image.fromarray(picture(0)).save(folder / 'c.png')
  Image.fromarray(picture(0)).quantize(99).save(folder / 'still.gif')
  nn.save(tmp_path / 'G.safetensors', network.module, network.bound.variables)
  arguments = ['generate', f'--network={tmp_path}/G.safetensors', f'--input={folder}',
               f'--output={tmp_path}/out', '--engine=jax']
  assert cli.main(arguments) == 0
  printed = capsys.readouterr().out.splitlines()
  assert sorted(str(x.relative_to(tmp_path / 'out')) for x in (tmp_path / 'out').rglob('*')
                if x.is_file() and x.name[0] != '.') == ['a.mp4', 'c.png', 'still.png', 'sub/b.gif']
  assert printed[0].startswith(f'{tmp_path}/out: 2 images in')
  assert '3 frames, 3 of them generated in' in printed[1] and 'frames/s on jax' in printed[1]
  assert 'flicker' in printed[2]
  assert cli.main(arguments) == 0
  assert '4 skipped that were done before' in capsys.readouterr().out
  without(write(folder / 'broken.mp4'), .5)
  assert cli.main(arguments) == 1
  said = capsys.readouterr().err.splitlines()
  assert said[0] == 'not generated: 1' and 'is no video, or damaged' in said[1]
  assert '1 of the files could not be generated' in said[2]
  assert cli.main([*arguments[:2], f'--input={folder}/broken.mp4', f'--output={tmp_path}/x.mp4',
                   '--engine=jax']) == 2
  assert len(capsys.readouterr().err.splitlines()) == 1
  assert cli.main([*arguments[:2], f'--input={folder}/c.png', f'--output={tmp_path}/x.png',
                   '--steady=0.9']) == 2
  assert 'steady is for videos' in capsys.readouterr().err


def test_pyav_is_asked_for(network, tmp_path, monkeypatch):
  source = write(tmp_path / 'a.mp4', frames=2)
  monkeypatch.setitem(sys.modules, 'av', None)
  with pytest.raises(ImportError, match=r"pip install 'jaxgan-compress\[video\]'"):
    inference.generate(network, source, tmp_path / 'o.mp4')


def test_crf_of_a_quality():
  crf = {quality: video.ENCODERS['h264'].settings(quality)['crf'] for quality in (None, 1, 100)}
  assert crf == {None: '18', 1: '50', 100: '1'}
  assert video.ENCODERS['mpeg4'].settings(100)['global_quality'] == '118'
