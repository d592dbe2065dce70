"""A generator applied to folders of pictures and videos."""

from __future__ import annotations

import dataclasses
import functools
import io
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from jaxgan_compress import analysis
from jaxgan_compress.core import BoundGenerator, paths
from jaxgan_compress.core.arguments import typed
from jaxgan_compress.data import decode, picture_files, picture_folders
from jaxgan_compress.data.picture_folders import Failure, Job, Options, Reader, Record
from jaxgan_compress.inference import video
from jaxgan_compress.inference.engines import ENGINES, Engine, choose_engine
from jaxgan_compress.inference.memory import memory_limit, needed_bytes
from jaxgan_compress.inference.networks import Network, open_network
from jaxgan_compress.inference.norm_statistics import of_batches
from jaxgan_compress.inference.overlap import receptive_field
from jaxgan_compress.inference.tiles import STATISTICS, TiledGenerator

BATCH = 8                # of small pictures; on CPUs 1, where more are slower
PIXELS = BATCH * 256**2  # of one batch
TILE = 512
MANY_SIZES = 16          # of which XLA compiles a program each
MOST_IN_GRID = 1024

Progress = Callable[[Iterable, int, str], Iterable]


@dataclasses.dataclass(frozen=True)
class Generated:
  """What `generate` did: how many images it wrote and how many files were done before, the files of
  which it could not, seconds, what ran the network, what of the input is left out (files that are
  no pictures, and frames), and the videos that it wrote."""
  written: int
  skipped: int
  failures: list[Failure]
  seconds: float
  engine: str
  left_out: list[Failure] = dataclasses.field(default_factory=list)
  videos: tuple[video.Video, ...] = ()

  @property
  def rate(self) -> float:
    """Images per second, reading and writing included."""
    return self.written / self.seconds if self.seconds else 0.


@typed
def generate(network: str | Path | BoundGenerator | Network, input: str | Path | None = None,
             output: str | Path = 'generated', *, generator: str | None = None,
             checkpoint: str = 'best', labels: Mapping[str, Any] | None = None,
             instances: str | Path | None = None, size: tuple[int, int] | None = None,
             max_side: int | None = None, format: str | None = None, quality: int | None = None,
             colors: str = 'auto', count: int | None = None, seed: int = 0, grid: bool = False,
             batch: int | None = None, engine: str = 'auto', tile: int | None = None,
             norm_statistics: str = 'sampled', steady: float = 0.,
             overwrite: bool = False,
             progress: Progress = lambda items, total, what: items) -> Generated:
  """Applies a trained generator to pictures and videos, and writes its images.

  network: a run's folder, a file that `nn.save`, `convert` or `prune` wrote, an export's folder, or
    a generator. generator, checkpoint, labels: see `open_network`.
  input: a picture, a video, a folder with its subfolders, or a pattern as 'photos/*.jpg'; for
    networks of label maps their PNGs, and `instances` is the file or folder of their instance maps.
    Generators of latents have none.
  output: a folder, in which names and the tree are kept; for one picture or video also a file.
  size, max_side: pictures are resized to (height, width), or made smaller so that no side is
    longer; by default nothing is resized. What the network cannot take is padded by reflection, and
    cut off again.
  format, quality: of the files, as 'png' or 'jpg', and 1 to 100; by default those of the input. 16
    bits, alpha and the colour profile are kept where the format has them.
  colors: 'input': grey pictures give grey images; 'rgb': all images are in colour; 'auto': 'rgb'
    for a run that learned to paint grey pictures, else 'input'.
  count, seed, grid: for generators of latents, how many images, of which latents, and whether one
    image of all is written as well.
  batch: how many pictures of a size are run at once. engine: 'jax', 'onnxruntime', or 'auto', the
    faster. tile: pixels of a side of the tiles in which a picture is generated; by default pictures
    that do not fit in memory are cut into tiles, 0: none is. norm_statistics: of tiles, see
    `TiledGenerator`.
  steady: of videos, against flicker: the share, 0 to 1, that norms take over from their statistics
    for the frame before.
  overwrite: files that are there may be replaced. Without it a second call skips what the first has
    done, and refuses to touch anything else; hidden `.generated.jsonl` says what is done.

  Returns what was done; a file that cannot be read does not stop the others. Raises ValueError,
  FileNotFoundError and FileExistsError for whatever is known to be wrong before.
  """
  options = Options(size, max_side, format, quality, colors)
  options.check()
  _check(engine, tile, norm_statistics, batch, count, seed, steady)
  output, left_out = paths.expand(output), []
  source = None if input is None else paths.expand(input)
  clips, files = ([], []) if source is None else video.find(source, output, left_out)
  if not isinstance(network, Network):
    network = open_network(network, generator, checkpoint, labels=labels)
  _check_network(network, labels)
  _check_use(network, {'input': input, 'instances': instances, 'size': size, 'max_side': max_side,
                       'colors': colors, 'tile': tile, 'steady': steady},
             {'count': count, 'seed': seed, 'grid': grid})
  if source is None:
    return _from_latents(network, output, options, count or 16, seed, grid, batch or BATCH, engine,
                         overwrite, progress)
  reader = Reader(network.takes, options, None if instances is None else paths.expand(instances))
  run = batch, engine, tile, norm_statistics
  return _from_source(network, source, clips, files, output, reader, steady, run, overwrite,
                      progress, left_out)


def _from_source(network, source, clips, files, output, reader, steady,
                 run: tuple[int | None, str, int | None, str], overwrite, progress,
                 left_out) -> Generated:
  """Of videos, pictures, or both."""
  start, (_, engine, tile, norm_statistics) = time.perf_counter(), run
  if steady and not clips:
    raise ValueError(f'steady is for videos, and {source} holds none; leave it out')
  jobs, videos = [], None
  if files:
    picture_folders.check_output(source, output)
    jobs = picture_folders.plan(files, output, reader.options, network.takes, source.is_file())
    reader.check(jobs)
  if clips:
    videos = video.prepare(network, clips, output, reader, single=source.is_file(), steady=steady,
                           engine=engine, tile=tile, norm_statistics=norm_statistics,
                           overwrite=overwrite)
  done = _from_files(network, jobs, output, reader, *run, overwrite, progress, left_out) if jobs \
      else Generated(0, 0, [], 0., '', sorted(left_out))
  return _with_videos(done, videos, run, start, progress) if videos else done


def _with_videos(done, videos, run, start, progress) -> Generated:
  """Generates videos after pictures."""
  batch, engine, tile, norm_statistics = run
  runner = None
  if videos.jobs and not videos.steady:
    runner = Runner(videos.network, videos.sizes, engine, tile, norm_statistics, batch)
  written = video.run(videos, runner, runner.batch if runner else lambda size: batch or 1, progress)
  return dataclasses.replace(
      done, skipped=done.skipped + videos.skipped, failures=done.failures + videos.failures,
      seconds=time.perf_counter() - start, engine=runner.name if runner else 'jax',
      videos=tuple(written))


def _check(engine, tile, norm_statistics, batch, count, seed, steady):
  for name, value, known in (('engine', engine, ENGINES),
                             ('norm_statistics', norm_statistics, STATISTICS)):
    if value not in known:
      raise ValueError(f'{name}={value!r}; one of {", ".join(known)}')
  for name, value, low, high in (('tile', tile, 0, 2**16), ('batch', batch, 1, 2**16),
                                 ('count', count, 1, 1_000_000), ('seed', seed, 0, 2**32 - 1)):
    if value is not None and not low <= value <= high:
      raise ValueError(f'{name}={value}; {low} to {high:,}')
  if not 0 <= steady < 1:
    raise ValueError(f'steady={steady}; a share from 0, which is none, to below 1')


def _check_network(network, labels):
  if network.takes.kind != 'labels' and any((labels or {}).values()):
    raise ValueError(f'{network.name} takes no label maps; leave {", ".join(labels)} out')


def _check_use(network, of_pictures, of_latents):
  kind = network.takes.kind
  others = of_pictures if kind == 'latents' else of_latents
  wrong = [name for name, value in others.items() if value not in (None, False, 0, 'auto')]
  if wrong:
    raise ValueError(f'{network.name} generates from {kind}, where {", ".join(wrong)} would change '
                     'nothing; leave that out')
  if kind != 'latents' and of_pictures['input'] is None:
    raise ValueError(f'{network.name} generates from {kind}; give an input')
  if kind == 'pictures' and of_pictures['instances'] is not None:
    raise ValueError(f'{network.name} takes no instances; leave them out')


def _from_files(network, jobs, output, reader, batch, engine, tile, norm_statistics, overwrite,
                progress, left_out) -> Generated:
  start = time.perf_counter()
  folder = output if jobs[0].target != output else output.parent
  folder.mkdir(parents=True, exist_ok=True)
  record = Record(folder, picture_folders.key_of(
      network.identity, dataclasses.asdict(reader.options), tile, norm_statistics), reader.inputs)
  jobs, skipped = record.split(jobs, overwrite)
  sizes, failures = picture_folders.by_size(jobs, reader, progress)
  runner = Runner(network, {size: len(group) for size, group in sizes.items()}, engine, tile,
                  norm_statistics, batch)
  if runner.name == 'jax' and len(sizes) > MANY_SIZES:
    logging.getLogger(__name__).warning(
        'the pictures have %d sizes, and XLA compiles the network for each, which takes seconds; '
        'onnxruntime compiles none, and size or max_side make them fewer', len(sizes))
  failures += picture_folders.process(sizes, reader, runner, record, batch=runner.batch,
                                      progress=progress, left_out=left_out)
  return Generated(len(jobs) - len(failures), skipped, sorted(failures),
                   time.perf_counter() - start, runner.name, sorted(left_out))


class Runner:
  """Runs a network on batches of pictures of any size, whole or in tiles: `runner(x) -> images`.

  sizes: {(height, width): how many pictures of it there will be}.
  """

  def __init__(self, network: Network, sizes: Mapping[tuple[int, int], int],
               engine: str = 'auto', tile: int | None = None, norm_statistics: str = 'sampled',
               batch: int | None = None):
    self.network, self._tile, self._norm_statistics = network, tile, norm_statistics
    self._batch, self._engine = batch, engine
    channels = network.takes.channels
    self._tiled = {size for size in sizes if self._needs_tiles(size)}
    if self._tiled and network.bound is None:
      raise ValueError(f'{network.folder} is an export, which is not run in tiles; take '
                       'network.safetensors in that folder')
    whole = {(*size, channels): count for size, count in sizes.items() if size not in self._tiled}
    self._whole: Engine | None = choose_engine(network, whole, engine) if whole else None
    self._pieces: TiledGenerator | None = None
    self.name = self._whole.name if self._whole else 'jax'

  def batch(self, size: tuple[int, int]) -> int:
    """How many pictures of a size are run at once."""
    if size in self._tiled:
      return 1
    small = BATCH if self.name == 'jax' and jax.default_backend() != 'cpu' else 1
    count = self._batch or max(1, min(small, PIXELS // (size[0] * size[1])))
    return 1 if count > 1 and self._of_batches else count

  @functools.cached_property
  def _of_batches(self) -> bool:
    # An export does not say so, and on CPUs single pictures are as quick.
    return self.network.bound is None or of_batches(self.network.bound)

  def __call__(self, x: np.ndarray) -> np.ndarray:
    if x.shape[1:3] in self._tiled:
      return np.stack([self._in_tiles(each) for each in x])
    assert self._whole
    return self._whole(x)

  def _needs_tiles(self, size) -> bool:
    if self._tile is not None:
      return 0 < self._tile < max(size)
    return self.network.bound is not None and \
        needed_bytes(self.network.module, self.network.takes, size) > memory_limit()

  def _in_tiles(self, picture):
    if self._pieces is None:
      bound = self.network.bound
      assert bound
      self._pieces = TiledGenerator(
          jax.device_put(bound), self.network.takes,
          receptive_field(bound.module, bound.variables), self._tile or TILE,
          self._norm_statistics)
    return self._pieces(picture)


@dataclasses.dataclass(frozen=True)
class _Latents(Reader):
  """Latents [N,latent] in the place of files; a job's place is the row, or the grid's `images`."""
  z: np.ndarray | None = None
  images: tuple[Path, ...] = ()

  def inputs(self, job: Job) -> tuple[Path, ...]:
    return self.images if job.name == 'grid.png' else ()

  def read(self, job: Job):
    assert self.z is not None
    return self.z[int(job.place.name)], picture_files.Picture(np.zeros((1, 1, 1), np.uint8))

  def pixels(self, image, picture):
    whole = dataclasses.replace(picture, pixels=np.zeros((*image.shape[:2], 1), np.uint8))
    return super().pixels(image, whole)


def _from_latents(network, output, options, count, seed, grid, batch, engine, overwrite, progress
                  ) -> Generated:
  """Images 0000.png ..., of N(0, 1) by `seed`; the first are those that reports show."""
  start = time.perf_counter()
  if grid and count > MOST_IN_GRID:
    raise ValueError(f'a grid shows at most {MOST_IN_GRID:,} images, and count={count:,}; leave '
                     'the grid out')
  if output.exists() and not output.is_dir():
    raise ValueError(f'{output} is a file, and the images need a folder; give another output')
  suffix = picture_files.SUFFIXES[(options.format or 'png').lower()][1]
  names = [f'{i:04}{suffix}' for i in range(count)]
  jobs = [Job(Path(f'latent {i}'), output / name, name, Path(str(i)))
          for i, name in enumerate(names)]
  z = np.asarray(jax.random.normal(jax.random.key(seed), (count, network.takes.channels)))
  reader = _Latents(network.takes, options, z=z, images=tuple(job.target for job in jobs))
  output.mkdir(parents=True, exist_ok=True)
  record = Record(output, picture_folders.key_of(network.identity, options.quality, seed),
                  reader.inputs)
  sheet = Job(Path('grid'), output / 'grid.png', 'grid.png')
  left, skipped = record.split(jobs + [sheet] * grid, overwrite)
  jobs = [job for job in left if job is not sheet]
  run = choose_engine(network, {z.shape[1:]: len(jobs)} if jobs else {}, engine)
  failures = picture_folders.process({z.shape[1:]: jobs}, reader, run, record,
                                     batch=lambda size: batch, progress=progress)
  if sheet in left and not failures:
    record.write(sheet, _grid(reader.images))
  return Generated(len(jobs) - len(failures), skipped - (grid and sheet not in left), failures,
                   time.perf_counter() - start, run.name)


def _grid(files) -> bytes:
  """A PNG of all images in rows, as square as it gets."""
  images = np.stack([decode.decode_image(file.read_bytes()) for file in files])
  columns = int(np.ceil(len(images) ** .5))
  blank = np.full((-len(images) % columns, *images.shape[1:]), 255, np.uint8)
  rows = np.concatenate([images, blank]).reshape(-1, columns, *images.shape[1:])
  content = io.BytesIO()
  Image.fromarray(analysis.contact_sheet(rows / np.float32(127.5) - 1)).save(content, 'PNG')
  return content.getvalue()
