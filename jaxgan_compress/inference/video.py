"""A generator applied to videos, frame by frame.

Every frame keeps its time, sound is copied, and what was generated before a process was killed is
kept: segments of frames lie in a hidden folder beside the output until they are put together.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import heapq
import importlib
import io
import itertools
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image
from scipy import ndimage

from jaxgan_compress.core import BoundGenerator, paths
from jaxgan_compress.core.xla import jit
from jaxgan_compress.data import decode, picture_files, picture_folders
from jaxgan_compress.data.picture_folders import Failure, Job, Reader, Record, key_of
from jaxgan_compress.inference.memory import memory_limit, needed_bytes
from jaxgan_compress.inference.networks import Network
from jaxgan_compress.inference.norm_statistics import Sums, apply_with, measure, sums_over

# FFmpeg's format of each suffix, and the codec that it gets where the input's cannot be written.
FORMATS = {'.mp4': 'mp4', '.m4v': 'mp4', '.mov': 'mov', '.webm': 'webm', '.mkv': 'matroska',
           '.avi': 'avi', '.gif': 'gif'}
DEFAULTS = {'mp4': 'h264', 'mov': 'h264', 'webm': 'vp9', 'matroska': 'h264', 'avi': 'mpeg4'}
SEGMENT = 120   # frames that a killed process loses at most
CUT = 0.1       # of white: the mean difference of two thumbnails at a scene cut
THUMBNAIL = 16  # pixels of a side
STILL = 2       # grey levels by which a pixel may change and stand still all the same
AROUND = 9      # pixels of a side around a pixel, all of which stand still
QUALITY = 66    # crf 18 of H.264, at which a loss is hardly seen
LEAST = 0.25    # of a frame: where less stands still, the camera moves
SAMPLED = 8, 32  # flicker is measured on so many of so many frames


@dataclasses.dataclass(frozen=True)
class Encoder:
  """An encoder of FFmpeg. worst, best: of its scale of quality `option`; geometric: where equal
  steps are equal ratios. even: whether it refuses odd sides where chroma is halved."""
  name: str
  option: str = ''
  worst: float = 0
  best: float = 0
  geometric: bool = False
  even: bool = False
  options: Mapping[str, str] = dataclasses.field(default_factory=dict)

  @property
  def container(self) -> str:
    """FFmpeg's format of its segments: NUT keeps packets as they are, but neither ProRes nor what
    comes beside a packet, as the alpha of VP8 and VP9."""
    return 'matroska' if self.name == 'prores_ks' or 'vpx' in self.name else 'nut'

  def settings(self, quality: int | None) -> dict[str, str]:
    """Its options for a quality of 1 to 100."""
    if not self.option:
      return dict(self.options)
    share = (quality or QUALITY) / 100
    if self.geometric:
      value = self.worst ** (1 - share) * self.best ** share
      return {**self.options, 'flags': '+qscale', self.option: f'{118 * value:.0f}'}
    return {**self.options, self.option: f'{self.worst + (self.best - self.worst) * share:.0f}'}


VP = {'b': '0', 'deadline': 'good', 'cpu-used': '4', 'row-mt': '1'}
_scale = functools.partial(Encoder, option='global_quality', worst=31, best=1, geometric=True)
ENCODERS = {
    'h264': Encoder('libx264', 'crf', 51, 1, even=True),  # 0 is a profile that few players know
    'hevc': Encoder('libx265', 'crf', 51, 1, even=True, options={'x265-params': 'log-level=none'}),
    'vp9': Encoder('libvpx-vp9', 'crf', 63, 1, options=VP),
    # Hidden frames would be packets of their own; alpha allows none either.
    'vp8': Encoder('libvpx', 'crf', 63, 4, options={
        'b': '20M', 'deadline': 'good', 'cpu-used': '4', 'auto-alt-ref': '0'}),
    'av1': Encoder('libsvtav1', 'crf', 63, 1, even=True, options={'preset': '8'}),
    'mpeg4': _scale('mpeg4'), 'mjpeg': _scale('mjpeg'), 'mpeg2video': _scale('mpeg2video'),
    'prores': Encoder('prores_ks'), 'ffv1': Encoder('ffv1'), 'png': Encoder('png'),
    'qtrle': Encoder('qtrle'), 'huffyuv': Encoder('huffyuv'),
}
BY_NAME = {each.name: each for each in ENCODERS.values()}
WITH_ALPHA = ('yuva420p', 'yuva444p', 'yuva444p10le', 'bgra', 'rgba', 'argb')
# swscale's numbers of the matrices between RGB and YUV, by FFmpeg's numbers of colour spaces.
MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
BT709, BT601 = (1, 1), (6, 5)  # (FFmpeg's number, swscale's)
UNKNOWN, LIMITED, FULL = 2, 1, 2  # a colour space, and two ranges
EXACT = 4 | 0x40000 | 0x2000 | 0x4000  # bicubic, accurate rounding, chroma of full resolution


class DamagedError(ValueError):
  """A video of which a frame cannot be read, however often it is tried."""


def library() -> Any:
  """PyAV. Raises ImportError, which says what to install."""
  try:
    av: Any = importlib.import_module('av')
  except ImportError as e:
    raise ImportError("videos need PyAV; pip install 'jaxgan-compress[video]'") from e
  os.environ.setdefault('SVT_LOG', '1')  # errors alone
  av.logging.set_level(av.logging.PANIC)  # its errors are raised, with the same words
  return av


def find(source: Path, output: Path, left_out: list[Failure]
         ) -> tuple[list[tuple[Path, Path]], list[tuple[Path, Path]]]:
  """(videos, pictures), each [(file, its name in the tree)], see `picture_folders.find`.

  A file counts by its suffix, a GIF if it has several frames; or by the suffix of its `output`.
  """
  files = picture_folders.find(source, output, (*decode.SUFFIXES, *FORMATS), left_out)
  videos = [each for each in files if is_video(each[0])]
  still = source.suffix.lower() in decode.SUFFIXES and source.suffix.lower() != '.gif'
  if not videos and source.is_file() and output.suffix.lower() in FORMATS and not still:
    videos = files
  return videos, [each for each in files if each not in videos]


def is_video(file: Path) -> bool:
  """Whether a file has the suffix of a video, and if that is .gif, several frames."""
  suffix = file.suffix.lower()
  if suffix != '.gif':
    return suffix in FORMATS
  # Pillow raises whatever the damage leads to.
  with contextlib.suppress(Exception), Image.open(file) as image:
    return image.n_frames > 1  # pyright: ignore[reportAttributeAccessIssue]
  return False


def plan(files: Sequence[tuple[Path, Path]], output: Path, single: bool) -> list[Job]:
  """Which video is written for each. single: of one file, for which the output may be a file.

  Raises ValueError for an output of a suffix that holds no video, or that is an input.
  """
  if single and output.suffix and not output.is_dir():
    if output.suffix.lower() not in FORMATS:
      raise ValueError(f'{output}: {files[0][0].name} is a video, and {output.suffix} holds none; '
                       f'take {", ".join(FORMATS)}, or a folder')
    jobs = [Job(files[0][0], output, output.name)]
  else:
    jobs = [Job(file, output / name, name.as_posix()) for file, name in files]
  for job in jobs:
    if job.target.exists() and any(job.target.samefile(file) for file, _ in files):
      raise ValueError(f'{job.target} is an input and would be overwritten; give another output')
  return jobs


@dataclasses.dataclass(frozen=True, eq=False)
class Clip:
  """What is known of a video before its frames are decoded.

  size: (height, width) upright. times: when its packets are shown, sorted, and end: when the last
  frame ends, in units of `base` seconds. turn: of `_upright`. alpha, transparent, deep, grey:
  whether it may be transparent, is so from the start, has more than 8 bits, has no colours. space,
  range, colors: FFmpeg's numbers of its colours. aspect: of a pixel. sounds: streams of sound and
  subtitles, as (index, codec).
  """
  source: Path
  size: tuple[int, int]
  codec: str
  format: str
  rate: Fraction
  base: Fraction
  times: list[int]
  end: int
  turn: tuple[bool, bool, bool]
  alpha: bool
  transparent: bool
  deep: bool
  grey: bool
  space: int
  range: int
  colors: tuple[int, int]
  aspect: Fraction
  sounds: list[tuple[int, str]]

  @property
  def matrix(self) -> int:
    """swscale's number of the matrix; where the file names none, what players take."""
    return MATRICES.get(self.space, guess(self.size)[1])

  @property
  def is_rgb(self) -> bool:
    return library().VideoFormat(self.format).is_rgb or self.format == 'pal8'


def guess(size: tuple[int, int]) -> tuple[int, int]:
  """The colour space that players take where a file names none."""
  return BT709 if min(size) >= 720 else BT601


@contextlib.contextmanager
def _opened(file: Path):
  """(container, video stream). Raises ValueError where there is none, OSError."""
  av = library()
  file.open('rb').close()  # raises the errors that have the file's name
  try:
    # A frame of a GIF that lasts 0 is shown for 0.1 s, as browsers do.
    options = {'min_delay': '1'} if file.suffix.lower() == '.gif' else {}
    container = av.open(str(file), options=options)
  except av.FFmpegError as e:
    raise ValueError(f'{file} is no video, or damaged ({e.strerror})') from e
  with container:
    stream = container.streams.best('video')
    if stream is None or stream.disposition & av.stream.Disposition.attached_pic:
      raise ValueError(f'{file} holds no video, only {_kinds(container)}')
    yield container, stream


def _kinds(container):
  return ', '.join(sorted({stream.type for stream in container.streams})) or 'nothing'


def probe(file: Path) -> Clip:
  """What is known of a video: its first frame is decoded, and its packets are read.

  Raises ValueError for a file without frames, or that ends too early, and OSError.
  """
  with _opened(file) as (container, stream):
    frame = next(_decoded(file, container, stream), None)
    if frame is None:
      raise ValueError(f'{file} holds no frames')
    turn, size = _turn(frame), (frame.height, frame.width)
    known = {**_of_stream(stream, turn), **_of_frame(frame, _has_alpha_beside(stream)),
             'size': size[::-1] if turn[0] else size}
  with _opened(file) as (container, stream):
    times, packets, end = _timing(file, container, stream, known['rate'])
    _check_whole(file, container, stream, packets, end, known['rate'])
    sounds = [(each.index, each.codec_context.codec.canonical_name) for each in container.streams
              if each.type in ('audio', 'subtitle') and each.codec_context]
    return Clip(file, times=[shown for shown, _ in times], end=sum(times[-1]),
                base=stream.time_base, sounds=sounds, **known)


def _of_stream(stream, turn) -> dict[str, Any]:
  aspect = stream.sample_aspect_ratio or Fraction(1)
  return {'codec': stream.codec.canonical_name, 'turn': turn,
          'aspect': 1 / aspect if turn[0] else aspect,
          'rate': stream.average_rate or stream.guessed_rate or Fraction(25)}


def _of_frame(frame, beside) -> dict[str, Any]:
  parts, name = frame.format.components, frame.format.name
  alpha = beside or any(part.is_alpha for part in parts)
  clear = alpha and bool(frame.to_ndarray(format='rgba')[..., 3].min() < 255)
  return {'format': name, 'alpha': alpha, 'transparent': clear,
          'deep': max(part.bits for part in parts) > 8, 'grey': name.startswith('gray'),
          'space': int(frame.colorspace),
          'range': FULL if name.startswith('yuvj') else int(frame.color_range),
          'colors': (int(frame.color_primaries), int(frame.color_trc))}


def _timing(file, container, stream, rate):
  """([(when a packet of the video is shown, for how long)], how many packets, when all end)."""
  times, end, count = [], Fraction(0), 0
  step = round(1 / rate / stream.time_base)
  try:
    for packet in container.demux():
      shown = packet.pts if packet.pts is not None else packet.dts
      if shown is None:
        continue
      end = max(end, (shown + (packet.duration or 0)) * packet.time_base)
      if packet.stream.index == stream.index:
        count += 1
        times += [(shown, packet.duration or step)] * bool(packet.size)
  except library().FFmpegError as e:
    raise ValueError(f'{file} is damaged ({e.strerror})') from e
  return sorted(times), count, end


def _check_whole(file, container, stream, packets, end, rate):
  """Raises ValueError for a file of which the end is missing."""
  missing = ''
  if container.format.name == 'avi' and packets < stream.frames:
    missing = f'{packets} of {stream.frames} frames are there'
  elif container.format.name == 'gif':
    with open(file, 'rb') as opened:
      opened.seek(-min(64, file.stat().st_size), io.SEEK_END)
      if not opened.read().rstrip(b'\0\r\n').endswith(b';'):
        missing = 'its last block is not there'
  elif container.duration:
    whole = Fraction(container.duration, 1_000_000) + Fraction(max(container.start_time or 0, 0),
                                                               1_000_000)
    if end + whole / 100 + 2 / rate < whole:
      missing = f'{float(end):.2f} of {float(whole):.2f} seconds are there'
  if missing:
    raise ValueError(f'{file} is damaged: {missing}; copy or download it again')


def _decoded(file, container, stream) -> Iterator[Any]:
  """The frames. Raises DamagedError for one that is damaged."""
  av = library()
  # One thread: those that decode whole frames may wait for Python's lock while it waits for them.
  stream.thread_type = 'NONE'
  decoder = stream.codec_context
  if _has_alpha_beside(stream):  # FFmpeg's own decoders leave it out
    decoder = av.CodecContext.create(
        {'vp8': 'libvpx', 'vp9': 'libvpx-vp9'}[stream.codec.canonical_name], 'r')
  count = 0
  try:
    for packet in container.demux(stream):
      for frame in decoder.decode(packet if packet.size else None):
        if frame.is_corrupt:
          raise DamagedError(f'{file}: frame {count} is damaged')
        yield frame
        count += 1
      if not packet.size and packet.pts is None:
        return
  except av.FFmpegError as e:
    raise DamagedError(f'{file}: frame {count} is damaged ({e.strerror})') from e


def _has_alpha_beside(stream) -> bool:
  """Whether VP8 or VP9 has alpha, which is a second picture beside each packet."""
  return stream.codec.canonical_name in ('vp8', 'vp9') and \
      any(key.lower() == 'alpha_mode' and x == '1' for key, x in stream.metadata.items())


def _turn(frame) -> tuple[bool, bool, bool]:
  """How a frame is turned upright: (transposed, then rows reversed, columns reversed)."""
  av = library()
  data = frame.side_data.get(av.sidedata.sidedata.Type.DISPLAYMATRIX)
  if data is None:
    return False, False, False
  a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
  if abs(a) + abs(d) >= abs(b) + abs(c):
    return False, d < 0, a < 0
  return True, b < 0, c < 0


def _upright(pixels, turn):
  transposed, rows, columns = turn
  if transposed:
    pixels = pixels.swapaxes(0, 1)
  return np.ascontiguousarray(pixels[::-1 if rows else 1, ::-1 if columns else 1])


class Input(NamedTuple):
  """A frame as a network takes it, when it is shown, and the picture that it is."""
  time: int
  x: np.ndarray
  picture: picture_files.Picture


def _read(clip: Clip, reader: Reader, first: int) -> Iterator[Input]:
  """The frames from `first` on. Raises ValueError for damage, and where times do not increase."""
  with _opened(clip.source) as (container, stream):
    before = None
    for i, frame in enumerate(_decoded(clip.source, container, stream)):
      shown = frame.pts if frame.pts is not None else round(i / clip.rate / clip.base)
      if before is not None and shown <= before:
        raise DamagedError(f'{clip.source}: frame {i} is shown at {shown} and the one before at '
                           f'{before}; times must increase')
      before = shown
      if i >= first:
        picture = _picture(clip, frame, reader)
        x = picture_folders.pad(picture.pixels, *reader.takes.fit(*picture.pixels.shape[:2]))
        yield Input(shown, x, picture)


def _picture(clip, frame, reader) -> picture_files.Picture:
  form = 'rgba' if clip.alpha else 'rgb48le' if clip.deep else 'rgb24'
  # Of RGB there is no matrix, and its range is full.
  frame = frame.reformat(format=form, src_colorspace=clip.matrix, dst_colorspace=clip.matrix,
                         src_color_range=FULL if clip.is_rgb else clip.range or LIMITED,
                         dst_color_range=FULL, interpolation=EXACT)
  pixels = _upright(frame.to_ndarray(), clip.turn)
  alpha = None
  if clip.alpha:
    pixels, share = pixels[..., :3], pixels[..., 3:]
    if share.min() < 255:
      alpha = share[..., 0]
      white = pixels * (share / 255) + (255. - share)
      pixels = np.rint(white).astype(np.uint8)
  if reader.takes.channels == 1:
    pixels = picture_files.to_grey(pixels)
  picture = picture_files.Picture(np.ascontiguousarray(pixels), alpha, clip.grey)
  return picture.resized(*reader.options.resized(*pixels.shape[:2]))


@dataclasses.dataclass(frozen=True)
class Target:
  """How a video is written.

  container: FFmpeg's format. encoder, options, format: of its frames. size: (height, width). alpha:
  whether it keeps it. space, matrix, range: of its colours. sounds: indices of streams that are
  copied. times: of every packet, in units of `base`, where they are not the input's. notes: what is
  to be said.
  """
  container: str
  encoder: str
  options: Mapping[str, str]
  format: str
  size: tuple[int, int]
  alpha: bool
  space: int
  matrix: int
  range: int
  sounds: tuple[int, ...]
  notes: tuple[str, ...] = ()


def target_of(clip: Clip, job: Job, reader: Reader) -> Target:
  """How the video of a job is written. Raises ValueError for what its format cannot hold."""
  container = FORMATS.get(job.target.suffix.lower())
  if container is None:
    raise ValueError(f'{job.target} has no suffix of a video; take {", ".join(FORMATS)}')
  _check_times(clip, container, job.target)
  height, width = (round(side * reader.takes.scale) for side in reader.options.resized(*clip.size))
  codec = _codec(clip, container)
  encoder = ENCODERS[codec]
  form, kept = _pixel_format(clip, codec, container)
  left_out = _lost(clip, codec, form, kept)
  size, border = _even((height, width), encoder, form)
  sounds, silent = _sounds(clip, container, job.target)
  options = encoder.settings(reader.options.quality)
  if container == 'avi':
    options['bf'] = '0'  # it has no times of its own, only the order
  space = clip.space
  if space not in MATRICES and (clip.is_rgb or guess(size) != guess(clip.size)):
    space = guess(clip.size)[0]
  target = Target(container, encoder.name, options, form, size, kept, space, clip.matrix,
                  FULL if 'yuvj' in form or (clip.range == FULL and not clip.is_rgb) else LIMITED,
                  sounds, (*left_out, *border, *silent))
  _rehearse(clip, target)
  return target


def _lost(clip, codec, form, kept) -> list[str]:
  """What is said of alpha and depth that the output cannot hold."""
  alpha = clip.alpha and not kept and (clip.transparent or not clip.is_rgb)
  depth = clip.deep and max(part.bits for part in library().VideoFormat(form).components) < 9
  return [f'the alpha of {clip.codec} is composed on white'] * alpha + [
      f'{ENCODERS[codec].name} has 8 bits, the input more'] * depth


def _even(size, encoder, form) -> tuple[tuple[int, int], list[str]]:
  """(the size that the encoder takes, what is said of it)."""
  if not encoder.even:
    return size, []
  chroma = library().VideoFormat(form)
  steps = 2 // chroma.chroma_height(2), 2 // chroma.chroma_width(2)
  even = tuple(-(-side // step) * step for side, step in zip(size, steps, strict=True))
  return even, [f'{size[1]}x{size[0]} becomes {even[1]}x{even[0]}, its border repeated: '
                f'{encoder.name} takes even sides'] * (even != size)


def _codec(clip, container) -> str:
  """The input's codec where it can be written into the container, else the container's own."""
  if container == 'gif':
    return 'ffv1'  # until the segments are put together
  with library().open(io.BytesIO(), 'w', format=container) as empty:
    usable = clip.codec in ENCODERS and clip.codec in empty.supported_codecs
  return clip.codec if usable else DEFAULTS[container]


def _pixel_format(clip, codec, container) -> tuple[str, bool]:
  """(the encoder's format nearest to the input's, whether it has alpha)."""
  known = [each.name for each in library().Codec(ENCODERS[codec].name, 'w').video_formats
           if each.name not in ('pal8', 'nv12')]
  if clip.alpha and (clear := _with_alpha(clip, codec, container, known)):
    return clear, True
  deep = ('yuv420p10le', 'yuv422p10le', 'yuv444p10le') if clip.deep else ()
  same = [] if clip.alpha or clip.grey else [clip.format]
  wanted = (*same, *deep, 'yuvj420p' if codec == 'mjpeg' else 'yuv420p', 'yuv422p', 'rgb24',
            'bgr0', 'yuv422p10le')
  return next(name for name in wanted if name in known), False


def _with_alpha(clip, codec, container, known) -> str | None:
  """The first of the formats that has alpha, or None where the container cannot hold it."""
  if codec in ('vp8', 'vp9') and container not in ('webm', 'matroska'):
    return None  # it is beside the packets
  # Most GIFs that may be transparent are not.
  opaque = clip.is_rgb and not clip.transparent
  return next((name for name in known if name in WITH_ALPHA and not (opaque and 'yuva' in name)),
              None)


def _check_times(clip, container, target):
  """Raises ValueError for times that the format cannot hold."""
  seconds = np.diff([float(shown * clip.base) for shown in clip.times])
  if container == 'gif' and len(seconds) and seconds.min() < 0.0185:
    raise ValueError(f'{target}: {clip.source.name} has {float(clip.rate):.4g} frames a second, '
                     'and a GIF at most 50; take .mp4 or .webm')
  if container == 'avi' and len(seconds) and (
      np.abs(seconds * float(clip.rate) - 1) > .1).any():
    raise ValueError(f'{target}: frames of {clip.source.name} come at varying intervals, and AVI '
                     'has one rate; take .mkv or .mp4')


def _sounds(clip, container, target) -> tuple[tuple[int, ...], list[str]]:
  """(the streams that are copied, what is said of those that are not)."""
  if container == 'gif':
    return (), ['a GIF holds no sound; it is left out'] * bool(clip.sounds)
  kept, left_out = [], []
  with _opened(clip.source) as (source, _):
    for index, codec in clip.sounds:
      if _holds(container, source.streams[index]):
        kept.append(index)
      elif source.streams[index].type == 'subtitle':
        left_out.append(f'{target.suffix} holds no subtitles as {codec}; they are left out')
      else:
        fitting = [suffix for suffix, name in FORMATS.items()
                   if name != 'gif' and _holds(name, source.streams[index])]
        raise ValueError(f'{target}: {target.suffix} cannot hold the {codec} sound of '
                         f'{clip.source.name}, which is copied as it is; take '
                         f'{" or ".join(fitting) or "another input"}')
  return tuple(kept), left_out


def _holds(container, stream):
  with library().open(io.BytesIO(), 'w', format=container) as empty:
    try:
      empty.add_stream_from_template(stream)
    except ValueError:
      return False
  return True


def _rehearse(clip, target):
  """Raises ValueError, before time is spent, where the encoder refuses such frames."""
  av = library()
  file = io.BytesIO()
  try:
    writer = Segment(file, clip, target)
    writer.add(np.zeros((*target.size, 3), np.uint8), None)
    writer.close()
  except (av.FFmpegError, ValueError) as e:
    raise ValueError(f'{clip.source}: {target.encoder} cannot encode frames of '
                     f'{target.size[1]}x{target.size[0]} ({e}); take another suffix for the '
                     'output, or another size') from e


class Segment:
  """Writes frames into a file of their own, in which they are counted, not timed."""

  def __init__(self, file: Path | io.BytesIO, clip: Clip, target: Target):
    self._target, self._count = target, 0
    rate = clip.rate.limit_denominator(1001)  # MPEG-4 takes no large numbers
    if rate.numerator > 65535 or not rate:
      rate = Fraction(25)
    self._file = library().open(file if isinstance(file, io.BytesIO) else str(file), 'w',
                                format=BY_NAME[target.encoder].container)
    self._stream = self._file.add_stream(target.encoder, rate=rate, options=dict(target.options))
    self._stream.height, self._stream.width = target.size
    self._stream.pix_fmt = target.format
    self._base = 1 / rate
    _describe(self._stream.codec_context, clip, target)

  def add(self, pixels: np.ndarray, alpha: np.ndarray | None):
    """A frame [h,w,1 or 3], uint8 or uint16, which may be smaller than the video by a border."""
    frame = _frame(pixels, alpha, self._target)
    frame.pts, frame.time_base = self._count, self._base
    self._count += 1
    self._file.mux(self._stream.encode(frame))

  def close(self):
    self._file.mux(self._stream.encode(None))
    self._file.close()

  def abandon(self):
    """Closes a file that is not needed."""
    with contextlib.suppress(Exception):
      self._file.close()


def _describe(context, clip, target):
  """What players need to know."""
  context.sample_aspect_ratio = clip.aspect
  context.colorspace, context.color_range = target.space, target.range
  context.color_primaries, context.color_trc = clip.colors


def _frame(pixels, alpha, target):
  rows, columns = (new - old for new, old in zip(target.size, pixels.shape[:2], strict=True))
  if rows or columns:
    pixels = np.pad(pixels, ((0, rows), (0, columns), (0, 0)), 'edge')
  pixels = np.repeat(pixels, 3, -1) if pixels.shape[-1] == 1 else pixels
  form = 'rgb48le' if pixels.dtype == np.uint16 else 'rgb24'
  if target.alpha:
    height, width = pixels.shape[:2]
    share = np.full((height, width), 255, np.uint8)
    if alpha is not None:
      inside = picture_files.resize(alpha[..., None], height - rows, width - columns)[..., 0]
      share = np.pad(inside, ((0, rows), (0, columns)), 'edge')
    pixels, form = np.dstack([pixels, share]), 'rgba'
  frame = library().VideoFrame.from_ndarray(np.ascontiguousarray(pixels), form)
  return frame.reformat(format=target.format, src_colorspace=target.matrix,
                        dst_colorspace=target.matrix, src_color_range=FULL,
                        dst_color_range=target.range, interpolation=EXACT)


def join(clip: Clip, target: Target, files: Sequence[Path], times: Sequence[int], part: Path):
  """Puts segments together: their packets, and those of the sound, are copied as they are.

  times: when each frame is shown. Raises RuntimeError where a frame is missing in the end.
  """
  if target.container == 'gif':
    _join_gif(clip, target, files, times, part)
  else:
    _join_packets(clip, target, files, times, part)
  with _opened(part.absolute()) as (container, stream):
    count = sum(bool(packet.size) for packet in container.demux(stream))
  if count != len(times):
    raise RuntimeError(f'{part} has {count} frames of {len(times)}: this is a bug; please report')


def _join_packets(clip, target, files, times, part):
  av = library()
  options = {'movflags': 'faststart'} if target.container in ('mp4', 'mov') else {}
  base = clip.base
  if target.container == 'avi':  # it counts frames
    base, times = 1 / clip.rate, range(len(times))
  ends = [*times[1:], clip.end if base == clip.base else len(times)]
  with _opened(clip.source) as (source, _), av.open(str(files[0])) as first, \
      av.open(str(part), 'w', format=target.container, options=options) as out:
    stream = out.add_stream_from_template(first.streams.video[0], opaque=True)
    context = stream.codec_context
    context.framerate = clip.rate
    stream.time_base = base
    if target.alpha and 'vpx' in target.encoder:
      context.pix_fmt = target.format  # of the packets FFmpeg tells the colours alone
    _describe(context, clip, target)
    if context.codec.canonical_name == 'hevc' and target.container in ('mp4', 'mov'):
      context.codec_tag = 'hvc1'  # Apple's players know no other
    copies = {index: out.add_stream_from_template(source.streams[index])
              for index in target.sounds}
    for index, copy in copies.items():
      copy.metadata.update(source.streams[index].metadata)
    out.metadata.update({key: x for key, x in source.metadata.items() if key not in (
        'major_brand', 'minor_version', 'compatible_brands', 'encoder', 'ENCODER')})
    packets = heapq.merge(_frames_of(files, times, ends, base, stream), _copied(source, copies),
                          key=lambda packet: packet.dts * packet.time_base)
    for packet in packets:
      out.mux(packet)


def _frames_of(files, times, ends, base, stream) -> Iterator[Any]:
  """The packets of all segments in the order of decoding, with their times.

  Encoders write frames in another order than they are shown; dts must increase, and never be after
  pts. So dts is the time of the frame that is shown so many places before, as for one long video.
  """
  av = library()
  order: list[int] = []
  for file in files:
    with av.open(str(file)) as segment:
      shown = [packet.pts for packet in segment.demux(video=0) if packet.size]
    order += (len(order) + np.argsort(np.argsort(shown))).tolist()
  if len(order) != len(times):
    raise RuntimeError(f'{files[0].parent} holds {len(order)} frames of {len(times)}; remove it')
  delay = max(i - place for i, place in enumerate(order))
  step = times[1] - times[0] if len(times) > 1 else 1
  decoded = [*(times[0] - (delay - i) * step for i in range(delay)), *times]
  place = iter(order)
  for i, packet in enumerate(packet for file in files for packet in _packets(file)):
    at = next(place)
    packet.stream, packet.time_base = stream, base
    packet.pts, packet.dts, packet.duration = times[at], decoded[i], ends[at] - times[at]
    yield packet


def _packets(file) -> Iterator[Any]:
  with library().open(str(file)) as segment:
    yield from (packet for packet in segment.demux(video=0) if packet.size)


def _copied(source, copies) -> Iterator[Any]:
  """The packets of the streams that are copied."""
  for packet in source.demux([source.streams[index] for index in copies]) if copies else ():
    if packet.dts is None:
      packet.dts = packet.pts
    if packet.dts is not None and packet.size:
      packet.stream = copies[packet.stream.index]
      yield packet


def _join_gif(clip, target, files, times, part):
  """Frames with a palette each."""
  av = library()
  loop = -1
  if clip.codec == 'gif':
    with Image.open(clip.source) as image:
      loop = image.info.get('loop', -1)
  else:
    loop = 0
  hundredth = Fraction(1, 100)
  shown = [round(x * clip.base / hundredth) for x in [*times, clip.end]]
  with av.open(str(part), 'w', format='gif', options={
      'loop': str(loop), 'final_delay': str(shown[-1] - shown[-2])}) as out:
    # Whole frames: what differs from the last frame cannot be told apart from what is transparent.
    stream = out.add_stream('gif', rate=clip.rate.limit_denominator(100),
                            options={'gifflags': '-offsetting-transdiff'})
    stream.time_base = stream.codec_context.time_base = hundredth
    stream.pix_fmt = 'pal8'
    stream.height, stream.width = target.size
    frames = (frame for file in files for frame in _stored(file))
    for time_, frame in zip(shown[:-1], frames, strict=True):
      indexed = _indexed(frame.to_ndarray(format='rgba'))
      indexed.pts, indexed.time_base = time_ - shown[0], hundredth
      out.mux(stream.encode(indexed))
    out.mux(stream.encode(None))


def _stored(file) -> Iterator[Any]:
  with library().open(str(file)) as segment:
    yield from segment.decode(video=0)


def _indexed(pixels):
  """A frame of 255 colours, and a transparent one where there is alpha."""
  image = Image.fromarray(np.ascontiguousarray(pixels[..., :3])).quantize(
      255, dither=Image.Dither.FLOYDSTEINBERG)
  colors = np.array(image.getpalette('RGB'), np.uint8).reshape(-1, 3)
  palette = np.zeros((256, 4), np.uint8)  # alpha first
  palette[:255, 0] = 255
  palette[:len(colors), 1:] = colors
  places = np.array(image)
  if (pixels[..., 3] < 128).any():
    places[pixels[..., 3] < 128] = 255
  else:
    palette[255, 0] = 255
  return library().VideoFrame.from_ndarray((places, palette), 'pal8')


@dataclasses.dataclass(frozen=True)
class Flicker:
  """How much images change from frame to frame where the input stands still, in grey levels of 255.

  The mean absolute difference of a pixel over pairs of frames: the warping error of Lai et al.
  (Learning Blind Video Temporal Consistency, ECCV 2018) on the pixels whose motion is known to be
  none, which needs no estimate of motion, and no allowance for what is uncovered. A pixel counts if
  it and all around it (9x9) change by at most 2 grey levels in the input, and a pair of frames if
  a quarter of them does: so there is no measure of a moving camera. A network that is a function
  of a pixel's surroundings alone has next to none; what it has comes from further away.

  pairs, pixels: how many were measured. source: of the input. output: of what was written. plain:
  of the same frames without `steady`.
  """
  pairs: int = 0
  pixels: int = 0
  source: float = 0.
  output: float = 0.
  plain: float = 0.

  def __add__(self, more: Flicker) -> Flicker:
    pixels = self.pixels + more.pixels
    mean = lambda a, b: (a * self.pixels + b * more.pixels) / max(pixels, 1)
    return Flicker(self.pairs + more.pairs, pixels, mean(self.source, more.source),
                   mean(self.output, more.output), mean(self.plain, more.plain))

  def describe(self, steady: bool) -> str:
    """For people."""
    if not self.pixels:
      return 'flicker: not measured, since too little of the input stands still'
    before = f'{self.plain:.2f} without steady, ' if steady else ''
    return (f'flicker {self.output:.2f} grey levels ({before}{self.source:.2f} in the input; where '
            f'it stands still in {self.pairs} pairs of frames)')


class Seen(NamedTuple):
  """A frame that the next is compared with: uint8 or uint16 [H,W,C], and images in [-1, 1]."""
  pixels: np.ndarray
  image: np.ndarray
  plain: np.ndarray


def flicker_between(a: Seen, b: Seen) -> Flicker:
  """Of two frames that follow each other."""
  level = lambda x: x.astype(np.float32) * (255 / np.iinfo(x.dtype).max)
  change = np.abs(level(a.pixels) - level(b.pixels)).max(-1)
  still = ndimage.maximum_filter(change, AROUND, mode='nearest') <= STILL
  height, width = a.image.shape[:2]
  rows, columns = ((np.arange(new) * old // new) for new, old in zip(
      (height, width), still.shape, strict=True))
  inside = still[rows][:, columns]
  if inside.mean() < LEAST:
    return Flicker()
  moved = lambda x, y: float(np.abs(x[inside] - y[inside]).mean()) * 127.5
  return Flicker(1, int(inside.sum()), float(change[rows][:, columns][inside].mean()),
                 moved(a.image, b.image), moved(a.plain, b.plain))


def thumbnail(pixels: np.ndarray) -> np.ndarray:
  """uint8 or uint16 [H,W,C] -> float32 [16,16,C] in [0, 1]: what a scene cut is seen in."""
  share = pixels.astype(np.float32) / np.iinfo(pixels.dtype).max
  planes = [Image.fromarray(share[..., i]).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
            for i in range(share.shape[-1])]
  return np.stack([np.asarray(plane) for plane in planes], -1)


def is_scene_cut(before: np.ndarray | None, now: np.ndarray) -> bool:
  """Whether a scene begins: two thumbnails differ by a tenth of white on average, or there is none
  before."""
  return before is None or float(np.abs(now - before).mean()) > CUT


class Steady:
  """Generates frame after frame, with statistics of the norms that move slowly.

  Each norm normalises by `share` of the mean and variance that it took for the frame before plus
  the rest of this frame's own, as batch norms average theirs (Ioffe and Szegedy 2015); at a scene
  cut by its own. `state` is all that the next frame depends on. It steadies an image against what
  comes and goes elsewhere; where the input itself gets brighter and darker, own statistics level
  that out, and averages do not.
  """

  def __init__(self, bound: BoundGenerator, share: float):
    self._bound, self._share = jax.device_put(bound), share
    self._step = jit(_steady_step)
    self.state: list[Sums] | None = None

  def __call__(self, x: np.ndarray, cuts: Sequence[bool]) -> np.ndarray:
    """[B,H,W,C], and whether a scene begins with each -> images [B,h,w,c]."""
    images = []
    for each, is_cut in zip(x, cuts, strict=True):
      before = self._blank(x) if self.state is None else self.state
      share = 0. if is_cut or self.state is None else self._share
      image, self.state = self._step(self._bound, each[None], before, np.float32(share))
      images.append(image)
    return np.concatenate(jax.device_get(images))

  def plain(self, x: np.ndarray) -> np.ndarray:
    """The same without: each frame by its own statistics."""
    blank = self._blank(x)
    return np.concatenate(jax.device_get([
        self._step(self._bound, each[None], blank, np.float32(0))[0] for each in x]))

  def _blank(self, x):
    shapes = jax.eval_shape(measure, self._bound, x[:1])
    return jax.tree.map(lambda each: np.zeros(each.shape, each.dtype), shapes)


def _steady_step(bound, x, before, share):
  """(image [1,h,w,c], the statistics of every norm)."""
  found, last = [], iter(before)

  def norm(y):
    own, old = sums_over(y), next(last)
    found.append(Sums(own.count, *(share * a + (1 - share) * b for a, b in zip(
        old[1:], own[1:], strict=True))))
    return found[-1]

  return apply_with(bound, x, norm), found


@dataclasses.dataclass(frozen=True)
class Video:
  """A video that was written: its file, how many frames it has and how many were generated now,
  seconds, flicker, and what is to be said of it."""
  target: Path
  frames: int
  generated: int
  seconds: float
  flicker: Flicker
  notes: tuple[str, ...] = ()

  @property
  def rate(self) -> float:
    """Frames per second, reading and writing included."""
    return self.generated / self.seconds if self.seconds else 0.


@dataclasses.dataclass(frozen=True, eq=False)
class Videos:
  """The videos of one call, of which nothing is known to be wrong: `for each in videos.run(...)`.

  jobs: what is to be done, with what is known of each. skipped: how many were done before.
  """
  network: Network
  reader: Reader
  steady: float
  record: Record
  jobs: list[tuple[Job, Clip, Target]]
  skipped: int
  failures: list[Failure]

  @property
  def sizes(self) -> dict[tuple[int, int], int]:
    """{(height, width) of the network's input: how many frames}."""
    sizes: collections.Counter = collections.Counter()
    for _, clip, _ in self.jobs:
      sizes[self.size(clip)] += len(clip.times)
    return dict(sizes)

  def size(self, clip: Clip) -> tuple[int, int]:
    """(height, width) of the network's input."""
    return self.reader.takes.fit(*self.reader.options.resized(*clip.size))


def prepare(network: Network, files: Sequence[tuple[Path, Path]], output: Path, reader: Reader,
            *, single: bool, steady: float = 0., engine: str = 'auto', tile: int | None = None,
            norm_statistics: str = 'sampled', overwrite: bool = False) -> Videos:
  """Looks at every video, before time is spent on any.

  files: of `find`. single: whether the input is one file. steady: see `generate`.

  Raises ValueError, FileExistsError and ImportError for whatever is known to be wrong; in a folder,
  a file that cannot be read is a failure of its own.
  """
  if network.takes.kind != 'pictures':
    raise ValueError(f'{network.name} generates from {network.takes.kind}, which a video does not '
                     'hold; give a network of pictures')
  jobs = plan(files, output, single)
  folder = output if jobs[0].target != output else output.parent
  if single:
    library()
  folder.mkdir(parents=True, exist_ok=True)
  record = Record(folder, key_of('video', network.identity, dataclasses.asdict(reader.options),
                                 tile, norm_statistics, steady))
  left, skipped = record.split(jobs, overwrite)
  ready, failures = [], []
  for job in left:
    try:
      clip = probe(job.source)
      ready.append((job, clip, target_of(clip, job, reader)))
    except (ValueError, OSError, ImportError) as e:
      if single:
        raise
      failures.append(_failure(job, e))
  videos = Videos(network, reader, steady, record, ready, skipped, failures)
  if steady:
    _check_steady(videos, engine, tile)
  return videos


def _failure(job, e) -> Failure:
  """What went wrong, without the name of the file."""
  return Failure(job.source, str(e).removeprefix(str(job.source)).lstrip(': '))


def _check_steady(videos, engine, tile):
  bound = videos.network.bound
  if bound is None or engine == 'onnxruntime':
    raise ValueError('steady carries statistics of norms, which runs on jax alone; leave it out, '
                     'or give engine=jax and a network that is no export')
  for size in videos.sizes:
    x = jax.ShapeDtypeStruct((1, *size, videos.network.takes.channels), np.uint8)
    if not jax.eval_shape(measure, bound, x):
      raise ValueError(f'{videos.network.name} has no norm that takes statistics of the whole '
                       'picture, so steady would change nothing; leave it out')
    if 0 < (tile or 0) < max(size) or (
        tile is None and memory_limit() < needed_bytes(
            videos.network.module, videos.network.takes, size)):
      raise ValueError(f'steady runs frames in one piece, and {size[1]}x{size[0]} is cut into '
                       'tiles; give max_side, or tile=0')


def run(videos: Videos, runner: Callable[[np.ndarray], np.ndarray] | None,
        batch: Callable[[tuple[int, int]], int],
        progress: Callable[..., Iterable] = lambda items, total, what: items) -> list[Video]:
  """Generates all; appends to `videos.failures` what turns out to be damaged.

  runner: [B,H,W,C] -> images, None with `steady`. batch: how many of a size it takes at once.
  Raises ValueError where the only video is damaged.
  """
  done = []
  for job, clip, target in videos.jobs:
    try:
      done.append(_Work(videos, job, clip, target).run(runner, batch(videos.size(clip)), progress))
    except ValueError as e:
      if len(videos.jobs) + len(videos.failures) + videos.skipped == 1:
        raise
      videos.failures.append(_failure(job, e))
  return done


class _Work:
  """One video: frames of the input become segments in a hidden folder, and these the output."""

  def __init__(self, videos: Videos, job: Job, clip: Clip, target: Target):
    self.videos, self.job, self.clip, self.target = videos, job, clip, target
    stat = job.source.stat()
    self.key = key_of(videos.record.key, dataclasses.asdict(target), library().__version__,
                      SEGMENT, stat.st_size, stat.st_mtime_ns)
    self.folder = job.target.with_name(f'.{job.target.name}.{self.key}.segments')
    self.rows = self._rows()

  def run(self, runner, batch, progress) -> Video:
    start, before = time.perf_counter(), self._count()
    self.folder.mkdir(parents=True, exist_ok=True)
    if not (self.rows and self.rows[-1]['last']):
      try:
        self._generate(runner, batch, progress)
      except DamagedError:  # no other run can go on from here
        shutil.rmtree(self.folder, ignore_errors=True)
        raise
    part = self.job.target.with_name(f'.{self.job.target.name}.{uuid.uuid4().hex[:8]}.part')
    try:
      join(self.clip, self.target, [self._file(i) for i in range(len(self.rows))],
           [x for row in self.rows for x in row['times']], part)
      self.videos.record.adopt(self.job, part)
    finally:
      part.unlink(missing_ok=True)
    for folder in self.folder.parent.glob(f'.{_literal(self.job.target.name)}.*.segments'):
      shutil.rmtree(folder, ignore_errors=True)  # those of other options, too
    flicker = sum((Flicker(**row['flicker']) for row in self.rows), Flicker())
    return Video(self.job.target, self._count(), self._count() - before,
                 time.perf_counter() - start, flicker, self.target.notes)

  def _count(self):
    return sum(len(row['times']) for row in self.rows)

  def _file(self, i: int, suffix: str = '.segment') -> Path:
    return self.folder / f'{i:06}{suffix}'

  def _rows(self) -> list[dict[str, Any]]:
    """Of the segments that are whole: their frames' times, flicker, and whether it is the last."""
    rows: list[dict[str, Any]] = []
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
      while not (rows and rows[-1]['last']):
        row = json.loads(self._file(len(rows), '.json').read_text())
        if row['bytes'] != self._file(len(rows)).stat().st_size:
          break
        rows.append(row)
    return rows

  def _generate(self, runner, batch, progress):
    count = self._count()
    bar = iter(progress(range(len(self.clip.times)), len(self.clip.times), self.job.target.name))
    collections.deque(itertools.islice(bar, count), 0)
    maker = _Maker(self.videos, runner)
    if self.rows:
      maker.restore(self._file(len(self.rows) - 1, '.npz'))
    inputs: Any = _ahead(_read(self.clip, self.videos.reader, count), 2 * batch)
    following = next(inputs, None)
    try:
      with ThreadPoolExecutor(1) as pool:
        while following is not None:
          following = self._segment(following, inputs, maker, batch, pool, bar)
    finally:
      inputs.close()
      collections.deque(bar, 0)
    if not self._count():
      raise ValueError(f'{self.clip.source} holds no frames')

  def _segment(self, following, inputs, maker, batch, pool, bar):
    """Writes the frames of one segment; returns the frame after it, or None."""
    number, times = len(self.rows), []
    part = self._file(number, '.part')
    writer, flicker = Segment(part, self.clip, self.target), Flicker()
    writing = collections.deque[Future]()
    try:
      while following is not None and len(times) < SEGMENT:
        most = min(batch, SEGMENT - len(times))
        chunk = [following, *itertools.islice(inputs, most - 1)]
        following = next(inputs, None)
        images, more = maker(chunk, len(times))
        flicker += more
        writing.append(pool.submit(self._write, writer, images, chunk))
        while len(writing) > 2:
          writing.popleft().result()
        times += [each.time for each in chunk]
        collections.deque(itertools.islice(bar, len(chunk)), 0)
      for future in writing:
        future.result()
      writer.close()
    except BaseException:
      for future in writing:
        future.cancel()
      pool.submit(writer.abandon).result()
      raise
    part.replace(self._file(number))
    maker.save(self._file(number, '.npz'))
    row = {'times': times, 'bytes': self._file(number).stat().st_size, 'last': following is None,
           'flicker': dataclasses.asdict(flicker)}
    paths.write_atomically(self._file(number, '.json'), json.dumps(row))
    self.rows.append(row)
    return following

  def _write(self, writer, images, chunk):
    for image, each in zip(images, chunk, strict=True):
      writer.add(self.videos.reader.pixels(image, each.picture), each.picture.alpha)


def _literal(name):
  return ''.join(f'[{x}]' if x in '[*?' else x for x in name)


class _Maker:
  """Makes the images of frames, sees scene cuts, and measures flicker on some."""

  def __init__(self, videos: Videos, runner):
    self._runner, self._takes = runner, videos.reader.takes
    self._steady = None
    if videos.steady:
      assert videos.network.bound
      self._steady = Steady(videos.network.bound, videos.steady)
    self._thumbnail: np.ndarray | None = None

  def __call__(self, chunk: Sequence[Input], count: int) -> tuple[np.ndarray, Flicker]:
    """(the images of frames that follow `count` others of their segment, their flicker)."""
    cuts = []
    for each in chunk:
      now = thumbnail(each.picture.pixels)
      cuts.append(is_scene_cut(self._thumbnail, now))
      self._thumbnail = now
    x = np.stack([each.x for each in chunk])
    images = plain = self._steady(x, cuts) if self._steady else self._runner(x)
    if count == 0:
      self._seen: Seen | None = None
    if count % SAMPLED[1] >= SAMPLED[0]:
      self._seen = None
      return images, Flicker()
    if self._steady:
      plain = self._steady.plain(x)
    return images, self._flicker(chunk, cuts, images, plain)

  def _flicker(self, chunk, cuts, images, plain) -> Flicker:
    total = Flicker()
    for each, is_cut, image, own in zip(chunk, cuts, images, plain, strict=True):
      pixels = each.picture.pixels
      height, width = (round(side * self._takes.scale) for side in pixels.shape[:2])
      seen = Seen(pixels, image[:height, :width], own[:height, :width])
      if self._seen is not None and not is_cut:
        total += flicker_between(self._seen, seen)
      self._seen = seen
    return total

  def save(self, file: Path):
    """Writes what the next segment depends on."""
    arrays: dict[str, Any] = {'thumbnail': self._thumbnail}
    if self._steady and self._steady.state is not None:
      arrays |= {f'{i}.{name}': np.asarray(x) for i, sums in enumerate(self._steady.state)
                 for name, x in sums._asdict().items()}
    content = io.BytesIO()
    np.savez(content, **arrays)
    paths.write_atomically(file, content.getvalue())

  def restore(self, file: Path):
    """Reads what `save` wrote."""
    with np.load(file, allow_pickle=False) as stored:
      arrays = dict(stored)
    self._thumbnail = arrays.pop('thumbnail')
    if self._steady:
      self._steady.state = [Sums(*(arrays[f'{i}.{name}'] for name in Sums._fields))
                            for i in range(len(arrays) // len(Sums._fields))]


def _ahead(items: Iterator, depth: int) -> Iterator:
  """The items, of which a thread makes up to `depth` ahead."""
  end = object()
  with ThreadPoolExecutor(1) as pool:
    ready = collections.deque(pool.submit(next, items, end) for _ in range(depth))
    try:
      while (item := ready.popleft().result()) is not end:
        ready.append(pool.submit(next, items, end))
        yield item
    finally:
      for future in ready:
        future.cancel()
