"""Networks that do the same, side by side: which they are, what each costs, how fast each is."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxgan_compress import analysis, config, nn
from jaxgan_compress.core import BoundGenerator, paths
from jaxgan_compress.data.picture_folders import Options, Reader
from jaxgan_compress.experiment import open_run
from jaxgan_compress.experiment.plots import si
from jaxgan_compress.export import FORMATS
from jaxgan_compress.inference.networks import Network, bind_trained, open_network
from jaxgan_compress.nn.init import flat

SECONDS, ROUNDS = 3., 9  # for timing: about so long, at most so often


def open_networks(source: str | Path, generator: str | None = None, checkpoint: str = 'best', *,
                  teacher: str | Path | None = None, more: Sequence[str | Path] = (),
                  labels: Mapping[str, Any] | None = None
                  ) -> tuple[Network, dict[str, Network]]:
  """A generator; and {caption: network} of it and what it is compared with, the teacher first.

  source, generator, checkpoint, labels: of the generator, see `open_network`. teacher, more: paths
  as `source`, or generators of the same run by their names. Without `teacher` a generator of a run
  has the one that it learned from. Raises what `open_network` does.
  """
  folder = paths.expand(source)
  if not (folder / 'config.json').is_file():
    opened = [('', source, open_network(source, generator, checkpoint, labels=labels))]
    named = {}
  else:
    run = open_run(folder)
    chosen = run.measured_generator(generator)
    named = {each.name: each for each in run.measured_generators()}
    opened = [('', source, bind_trained(chosen, chosen.bound(checkpoint)))]
    reference = chosen.reference(checkpoint)
    if teacher is None and reference is not None and chosen.teacher is not None:
      opened.append(('teacher', source, bind_trained(chosen.teacher, reference)))
  for given, role in ((teacher, 'teacher'), *((each, '') for each in more)):
    theirs = named.get(str(given))
    if theirs is not None:
      opened.append((role, source, bind_trained(theirs, theirs.bound(checkpoint))))
    elif given is not None:
      opened.append((role, given, _open_other(given, named, labels)))
  return opened[0][2], _captioned(sorted(opened, key=lambda each: each[0] != 'teacher'))


def _open_other(given, named, labels) -> Network:
  if named and not paths.expand(given).exists():
    raise FileNotFoundError(f'{given} is neither a path nor a generator of the run; '
                            f'{config.suggest(str(given), named)}')
  return open_network(given, labels=labels)


def _captioned(opened) -> dict[str, Network]:
  """Captions say which is the teacher, and where networks of one name come from."""
  count = collections.Counter(network.name for _, _, network in opened)
  captioned: dict[str, Network] = {}
  for role, source, network in opened:
    name = network.name if count[network.name] == 1 else \
        f'{paths.expand(source).absolute().parent.name}/{network.name}'
    caption = f'{name} (teacher)' if role and name != role else name
    number = 2
    while caption in captioned:
      caption, number = f'{name} ({number})', number + 1
    captioned[caption] = network
  return captioned


def as_networks(networks: Mapping[str, str | Path | BoundGenerator | Network],
                labels: Mapping[str, Any] | None = None) -> dict[str, Network]:
  """{caption: `Network`}, each opened. Raises ValueError where they do not take the same."""
  if not networks:
    raise ValueError('networks={}; give at least one')
  opened = {caption: network if isinstance(network, Network) else
            open_network(network, labels=labels) for caption, network in networks.items()}
  taken = {caption: _taken(network) for caption, network in opened.items()}
  if len({*taken.values()}) > 1:
    listed = ', '.join(f'{caption} {what}' for caption, what in taken.items())
    raise ValueError(f'these networks do not generate from the same: {listed}; compare networks '
                     'of one task')
  return opened


def _taken(network) -> str:
  takes = network.takes
  if takes.kind == 'latents':
    return f'latents of {takes.channels} numbers'
  return f'label maps of {takes.classes} classes' if takes.kind == 'labels' else takes.kind


def readers(networks: Mapping[str, Network], options: Options, instances: Path | None = None
            ) -> dict[str, Reader]:
  """What reads the files for each network. If one has learned to paint grey pictures, all do."""
  if options.colors == 'auto' and any(each.takes.colors == 'rgb' for each in networks.values()):
    options = dataclasses.replace(options, colors='rgb')
  return {caption: Reader(network.takes, options, instances)
          for caption, network in networks.items()}


def shown_input(reader: Reader, x: np.ndarray, picture) -> np.ndarray:
  """uint8 or uint16 [H,W,1 or 3] of what a generator was given: the picture, or labels in colour.

  x, picture: of `Reader.read`.
  """
  takes = reader.takes
  if takes.kind != 'labels':
    return picture.pixels
  height, width = picture.pixels.shape[:2]
  planes = x[:height, :width]
  edges = planes[..., -1] if takes.edges else None
  labels = planes[..., :takes.channels - takes.edges].argmax(-1)
  return analysis.to_uint8(analysis.colour_labels(labels, edges))


@dataclasses.dataclass(frozen=True)
class Cost:
  """What one image takes: multiply-accumulates at `size` (height, width of the input, or None for
  latents), parameters, bytes of the weights, and seconds. None: not known, as of an export whose
  network is gone."""
  size: tuple[int, int] | None
  macs: int | None
  params: int | None
  bytes: int
  seconds: float | None = None
  engine: str = ''


def cost(network: Network, size: tuple[int, int] | None, seconds: float | None = None,
         engine: str = '') -> Cost:
  """Of one network, for one input of a size."""
  bound = network.bound or _exported(network)
  if bound is None:
    return Cost(size, None, None, _bytes(network), seconds, engine)
  shape = (1, *size, network.takes.channels) if size else (1, network.takes.channels)
  return Cost(size, analysis.macs(bound.module, shape), analysis.count_params(bound.variables),
              _bytes(network), seconds, engine)


def _bytes(network) -> int:
  if network.folder:
    return (network.folder / FORMATS['onnx']).stat().st_size
  return sum(np.asarray(x).nbytes for x in flat(network.bound.variables).values())


def _exported(network) -> BoundGenerator | None:
  """The network beside an export, which says what it costs."""
  try:
    module, variables = nn.load(network.folder / 'network.safetensors')
  except (ValueError, OSError):
    return None
  return BoundGenerator(variables, module)


def on_one_engine(networks: Mapping[str, Network], engine: str,
                  make: Callable[[str, str], Any]) -> dict[str, Any]:
  """{caption: make(caption, engine)}, what runs each network; on the same engine where 'auto' chose
  several, since milliseconds of different engines do not compare."""
  made = {caption: make(caption, engine) for caption in networks}
  if engine == 'auto' and len({each.name for each in made.values()}) > 1:
    exported = any(network.bound is None for network in networks.values())
    engine = 'onnxruntime' if exported else 'jax'
    made = {caption: each if each.name == engine else make(caption, engine)
            for caption, each in made.items()}
  return made


def seconds(calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
  """The median of each of several calls that have been made before, made in turn."""
  once = sum(timing.median for timing in analysis.latency(calls, rounds=1, warmup=0).values())
  rounds = int(np.clip(SECONDS / max(once, 1e-6), 1, ROUNDS))
  return {caption: timing.median
          for caption, timing in analysis.latency(calls, rounds, warmup=0).items()}


COLUMNS = ('ms', 'MACs', 'parameters', 'weights')


def cost_rows(costs: Mapping[str, Cost]) -> list[tuple[str, list[tuple[str, str]]]]:
  """[(caption, [(value, how it compares with the first network's) of `COLUMNS`])]."""
  values = {caption: (each.seconds, each.macs, each.params, each.bytes)
            for caption, each in costs.items()}
  first = next(iter(values.values()))
  write = (milliseconds, si, si, lambda x: f'{si(x)}B' if x >= 1000 else f'{x} B')
  return [(caption, [('unknown' if x is None else text(x), _compared(x, base))
                     for x, base, text in zip(row, first, write, strict=True)])
          for caption, row in values.items()]


def milliseconds(seconds: float) -> str:
  """'8.25', or '1,234'."""
  return f'{seconds * 1000:.3g}' if seconds < 1 else f'{seconds * 1000:,.0f}'


def _compared(x, base) -> str:
  """'3.2× less', or '' for equal or unknown numbers."""
  if not x or not base:
    return ''
  less, more = base / x, x / base
  if max(less, more) < 1.05:
    return '' if x == base else 'about the same'
  times = max(less, more)
  return f'{times:.{1 if times < 100 else 0}f}× {"less" if less > 1 else "more"}'


def listed(names: Iterable[str]) -> str:
  """'a', 'a and b', or 'a, b and c'."""
  *first, last = names
  return f'{", ".join(first)} and {last}' if first else last


def latents(count: int, length: int, seed: int) -> np.ndarray:
  """[count,length] of N(0, 1), the same that `generate` takes."""
  return np.asarray(jax.random.normal(jax.random.key(seed), (count, length)))


def one_by_one(run: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
  """The images of inputs [B, ...], each generated alone: `JaxEngine` fills a smaller batch than it
  has seen up, and one image would then take the time of many."""
  return np.concatenate([run(x[i:i + 1]) for i in range(len(x))])


def evenly(files: Sequence, count: int) -> list:
  """At most so many, spread over all of them."""
  rows = np.unique(np.linspace(0, len(files) - 1, min(count, len(files))).astype(int))
  return [files[i] for i in rows]
