"""A page of pictures and what each of several generators makes of them, side by side."""

from __future__ import annotations

import base64
import collections
import dataclasses
import functools
import io
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jaxgan_compress.core import BoundGenerator, paths
from jaxgan_compress.core.arguments import typed
from jaxgan_compress.data import picture_files, picture_folders
from jaxgan_compress.data.picture_folders import Failure, Job, Options
from jaxgan_compress.inference import comparison
from jaxgan_compress.inference.engines import choose_engine
from jaxgan_compress.inference.folders import Runner
from jaxgan_compress.inference.networks import Network

PICTURES = 24        # on a page: more are slow to open on a phone
SIDE = 512           # of a picture on the page
LOSSLESS = 100_000   # bytes up to which a picture is a PNG; larger ones are JPEGs
NAME = 'gallery.html'
Progress = Callable[[Iterable, int, str], Iterable]


class View(NamedTuple):
  """A picture on the page: whose it is, its address, its pixels there, and its text."""
  caption: str
  url: str
  width: int
  height: int
  alt: str


@dataclasses.dataclass(frozen=True)
class Gallery:
  """What `gallery` did: its file, how many pictures of how many are shown, those that could not be
  read, the bytes of the file, and whether it was there already, made of the same."""
  file: Path
  shown: int
  total: int
  failures: list[Failure]
  bytes: int
  skipped: bool = False


@typed
def gallery(networks: Mapping[str, str | Path | BoundGenerator | Network],
            input: str | Path | None = None, output: str | Path = NAME, *,
            labels: Mapping[str, Any] | None = None, instances: str | Path | None = None,
            size: tuple[int, int] | None = None, max_side: int | None = None,
            colors: str = 'auto', count: int = PICTURES, side: int = SIDE, seed: int = 0,
            engine: str = 'auto', tile: int | None = None, norm_statistics: str = 'sampled',
            overwrite: bool = False,
            progress: Progress = lambda items, total, what: items) -> Gallery:
  """Writes one HTML page: pictures, and beside each what every network makes of it.

  The page holds all that it shows; a reader zooms into the pictures of a row together. Its table
  says what each network costs: milliseconds on this machine, MACs, parameters, size.

  networks: {caption: network}, each as `generate` takes it; the first is what the others are
    compared with, so a teacher comes first. They take the same pictures, labels or latents.
  input, labels, instances, size, max_side, colors, engine, tile, norm_statistics: see `generate`.
  output: the file, whose name ends in .html.
  count: at most so many pictures, spread over all of them. side: no side of a picture on the page
    is longer; it was generated in full size. seed: of latents, which are those of `generate`.
  overwrite: the file is replaced. Without it a page made of the same is left, and any other
    refused.

  A file that cannot be read is left out and named. Raises ValueError, FileNotFoundError and
  FileExistsError for whatever is known to be wrong before.
  """
  return prepare(networks, input, output, labels=labels, instances=instances, size=size,
                 max_side=max_side, colors=colors, count=count, side=side, seed=seed,
                 engine=engine, tile=tile, norm_statistics=norm_statistics, overwrite=overwrite,
                 progress=progress)()


def prepare(networks, input=None, output: str | Path = NAME, *, labels=None, instances=None,
            size=None, max_side=None, colors='auto', count=PICTURES, side=SIDE, seed=0,
            engine='auto', tile=None, norm_statistics='sampled', overwrite=False,
            progress: Progress = lambda items, total, what: items) -> Callable[[], Gallery]:
  """Checks all that `gallery` refuses, and returns what then writes the page."""
  options = Options(size, max_side, colors=colors)
  options.check()
  if count < 1 or side < 16:
    raise ValueError(f'count={count}, side={side}; at least 1 and 16')
  opened = comparison.as_networks(networks, labels)
  output = paths.expand(output)
  if output.suffix.lower() not in ('.html', '.htm'):
    raise ValueError(f'{output}: the name must end in .html')
  kind = next(iter(opened.values())).takes.kind
  if (kind == 'latents') != (input is None):
    raise ValueError(f'these networks generate from {kind}; '
                     + ('leave the input out' if input is not None else 'give an input'))
  if kind == 'latents':
    rows, total = _Latents(opened, min(count, PICTURES), seed, engine), count
  else:
    files = picture_folders.find(paths.expand(input or ''), exclude=output.parent)
    total = len(files)
    rows = _Pictures(opened, comparison.evenly(files, count), comparison.readers(
        opened, options, None if instances is None else paths.expand(instances)),
        engine, dict(tile=tile, norm_statistics=norm_statistics))
  key = picture_folders.key_of([*opened], [each.identity for each in opened.values()],
                               dataclasses.asdict(options), rows.stamp, side, tile, norm_statistics)
  if made := _made(output, key, overwrite):
    there = Gallery(output, made[0], total, [], made[1], skipped=True)
    return lambda: there
  return lambda: _write(output, opened, rows, total, side, key, progress)


def beside(input: str | Path | None, output: str | Path) -> Path:
  """The page in the folder to which `generate` writes."""
  output = paths.expand(output)
  is_file = input is not None and output.suffix and not output.is_dir() and \
      len(picture_folders.find(paths.expand(input))) == 1
  return (output.parent if is_file else output) / NAME


def _made(output, key, overwrite) -> tuple[int, int] | None:
  """(pictures, bytes) of a page that is there and made of the same. Raises FileExistsError."""
  if overwrite or not output.exists():
    return None
  text = output.read_text(errors='replace') if output.is_file() else ''
  if match := re.search(rf'<meta name="made-of" content="{key} (\d+)">', text[:2000]):
    return int(match[1]), output.stat().st_size
  raise FileExistsError(f'{output} exists and was made of other networks, options or inputs; '
                        'remove it, write elsewhere, or overwrite it')


def _write(output, networks, rows, total, side, key, progress) -> Gallery:
  pictures: dict[str, list[View]] = collections.defaultdict(list)
  reduced = False
  for caption, name, pixels in rows.views(progress):
    view = _view(caption, name, pixels, side)
    reduced |= max(pixels.shape[:2]) > side
    pictures[name].append(view)
  if not pictures:
    raise ValueError('; '.join(f'{each.source}: {each.reason}' for each in rows.failures[:3])
                     + ' - no picture is left to show')
  text = page('gallery.html.jinja2', key=key, pictures=pictures, networks=networks, total=total,
              names=comparison.listed(networks),
              side=side, reduced=reduced, kind=rows.kind,
              failures=[plain(each) for each in rows.failures],
              **costs_on_page(rows.costs(), 'the machine that wrote this page, the median of a '
                              'few runs'))
  output.parent.mkdir(parents=True, exist_ok=True)
  paths.write_atomically(output, text)
  return Gallery(output, len(pictures), total, rows.failures, len(text.encode()))


class _Latents:
  """The images of latents, the same for every network."""
  kind = 'latents'

  def __init__(self, networks, count, seed, engine):
    self.networks, self.failures = networks, []
    length = next(iter(networks.values())).takes.channels
    self._z = comparison.latents(count, length, seed)
    self.stamp = count, seed
    self._engines = comparison.on_one_engine(
        networks, engine, lambda caption, engine: choose_engine(
            networks[caption], {(length,): count}, engine))

  def views(self, progress):
    """(caption, name of the picture, uint8 [h,w,1 or 3])."""
    runs = self._engines.items()
    images = {caption: comparison.one_by_one(run, self._z)
              for caption, run in progress(runs, len(runs), 'gallery')}
    for i in range(len(self._z)):
      for caption, made in images.items():
        yield caption, f'latents {i}', picture_files.to_pixels(made[i])

  def costs(self):
    calls = {caption: functools.partial(run, self._z[:1]) for caption, run in self._engines.items()}
    return {caption: comparison.cost(self.networks[caption], None, spent,
                                     self._engines[caption].name)
            for caption, spent in comparison.seconds(calls).items()}


class _Pictures:
  """The images of pictures or label maps, each read for every network as it takes it."""

  def __init__(self, networks, files, readers, engine, options):
    self.networks, self._readers = networks, readers
    self._engine, self._options = engine, options
    self._jobs = [Job(file, file, name.as_posix()) for file, name in files]
    self.kind = next(iter(readers.values())).takes.kind
    self.stamp = [[job.name, job.source.stat().st_size, job.source.stat().st_mtime_ns]
                  for job in self._jobs]
    self.failures: list[Failure] = []
    self._runners: dict[str, Runner] = {}
    self._sizes = collections.Counter[tuple[int, int]]()
    self._inputs: dict[tuple[int, int], dict[str, np.ndarray]] = {}  # the first of each size

  def views(self, progress):
    """(caption, name of the picture, its pixels [h,w,1 or 3]), picture by picture."""
    jobs, counts = self._jobs, {}
    for caption, reader in self._readers.items():
      sizes, failures = picture_folders.by_size(jobs, reader)
      self.failures += failures
      jobs = [job for job in jobs if any(job in group for group in sizes.values())]
      counts[caption] = {size: len(group) for size, group in sizes.items()}
    self._runners = comparison.on_one_engine(
        self.networks, self._engine, lambda caption, engine: Runner(
            self.networks[caption], counts[caption], engine, batch=1, **self._options))
    for job in progress(jobs, len(jobs), 'gallery'):
      try:
        inputs = {caption: reader.read(job) for caption, reader in self._readers.items()}
      except (ValueError, OSError) as e:
        self.failures.append(Failure(job.source, str(e)))
      else:
        yield from self._views(job.name, inputs)

  def _views(self, name, inputs):
    caption, (x, picture) = [*inputs.items()][-1]
    self._sizes[x.shape[:2]] += 1
    self._inputs.setdefault(x.shape[:2], {caption: x[None] for caption, (x, _) in inputs.items()})
    yield 'input', name, comparison.shown_input(self._readers[caption], x, picture)
    for caption, (x, picture) in inputs.items():
      image = self._runners[caption](x[None])[0]
      yield caption, name, self._readers[caption].pixels(image, picture)

  def costs(self):
    """Of the size that most pictures have."""
    [(size, _)] = self._sizes.most_common(1)
    inputs = self._inputs[size]
    spent = comparison.seconds({caption: functools.partial(run, inputs[caption])
                                for caption, run in self._runners.items()})
    return {caption: comparison.cost(self.networks[caption], inputs[caption].shape[1:3],
                                     spent[caption], self._runners[caption].name)
            for caption in inputs}


def _view(caption, name, pixels, side) -> View:
  """A picture as it is on the page: 8 bits, no side longer than `side`."""
  if pixels.dtype == np.uint16:
    pixels = (pixels / 257).round().astype(np.uint8)
  image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
  image.thumbnail((side, side), Image.Resampling.LANCZOS)
  alt = f'{name}, the input' if caption == 'input' else f'{name}, generated by {caption}'
  return View(caption, data_url(image), image.width, image.height, alt)


def plain(failure: Failure) -> str:
  """What is wrong with a file, which is named without its folder: a page may travel."""
  name = failure.source.name
  reason = failure.reason.replace(str(failure.source), name)
  return reason if name in reason else f'{name}: {reason}'


def data_url(image: Image.Image) -> str:
  """A picture as an address: a PNG where that is small, else a JPEG of high quality."""
  file = io.BytesIO()
  image.save(file, 'PNG')
  form = 'png'
  if len(file.getvalue()) > LOSSLESS:
    form, file = 'jpeg', io.BytesIO()
    image.save(file, 'JPEG', quality=92, subsampling=0)
  return f'data:image/{form};base64,' + base64.b64encode(file.getvalue()).decode()


def costs_on_page(costs: Mapping[str, comparison.Cost], machine: str) -> dict[str, Any]:
  """What the template of the table of costs takes."""
  return {'costs': comparison.cost_rows(costs), 'cost': next(iter(costs.values())),
          'columns': comparison.COLUMNS, 'machine': machine,
          'engines': list(dict.fromkeys(each.engine for each in costs.values()))}


def page(template: str, **values: Any) -> str:
  """The HTML of one of our templates, which escapes every value that it does not call safe."""
  return _environment().get_template(template).render(values)


@functools.cache
def _environment():
  import jinja2  # at the first page, so that no other command waits for it
  return jinja2.Environment(
      loader=jinja2.ChoiceLoader([jinja2.PackageLoader('jaxgan_compress.inference'),
                                  jinja2.PackageLoader('jaxgan_compress.experiment')]),
      autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
