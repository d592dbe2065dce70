"""A trained generator that is applied to new pictures, wherever it is stored."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen

from jaxgan_compress import nn
from jaxgan_compress.core import BoundGenerator, paths
from jaxgan_compress.data.picture_folders import Takes, key_of, takes_of
from jaxgan_compress.experiment import open_run
from jaxgan_compress.experiment.generators import TrainedGenerator
from jaxgan_compress.export import FORMATS, sides
from jaxgan_compress.export.bundle import INPUT
from jaxgan_compress.nn.files.network import checksum
from jaxgan_compress.nn.init import flat


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
  """A generator, and what it takes and makes.

  name: for people. takes: see `Takes`; kind 'latents' is for generators of latents, of `channels`.
  identity: differs where the weights or the architecture do. bound: the generator, or None for an
  export, whose `folder` holds the network as ONNX in the layout `layout`.
  """
  name: str
  takes: Takes
  identity: str
  bound: BoundGenerator | None = None
  folder: Path | None = None
  layout: str = 'NHWC'

  @property
  def module(self) -> linen.Module:
    assert self.bound
    return self.bound.module


def open_network(source: str | Path | BoundGenerator, generator: str | None = None,
                 checkpoint: str = 'best', *, labels: Mapping[str, Any] | None = None) -> Network:
  """The generator in a run's folder, a file that `nn.save` wrote, or an export's folder.

  source: a path, or a generator. generator: of a run, as its report names it; default: the first
  student, or the first generator. checkpoint: of a run: 'best' or 'last'. labels: how label maps
  become planes, where the source does not say: {'dont_care': bool, 'edges': bool}.

  Raises FileNotFoundError, and ValueError for anything else, for a network that generates nothing,
  and for a generator that the run does not have.
  """
  if isinstance(source, BoundGenerator):
    return bind('generator', source, labels=labels)
  path = paths.expand(source)
  if generator and not (path / 'config.json').is_file():
    raise ValueError(f'generator={generator!r} is for the folder of a run, which {path} is not; '
                     'leave it out')
  if (path / INPUT).is_file():
    return _exported(path, labels)
  if path.is_dir():
    return _of_run(path, generator, checkpoint)
  if path.suffix == '.onnx':
    raise ValueError(f'{path} does not say what it takes; give the folder of the export, which '
                     f'holds {INPUT} beside it')
  module, variables = nn.load(path)
  if not hasattr(module, 'plan'):  # of generators; a classifier has none
    raise ValueError(f'{path} is a {type(module).__name__}, which generates no images; give a '
                     'generator')
  return bind(path.stem, BoundGenerator(variables, module), labels=labels)


def bind(name: str, bound: BoundGenerator, *, labels: Mapping[str, Any] | None = None,
         colors: str = 'input') -> Network:
  """A generator as a `Network`. labels: see `open_network`, and 'classes'. colors: of `Takes`.

  Raises ValueError for a network of label maps whose planes `labels` does not add up to.
  """
  module, variables = nn.merged(bound.module, bound.variables)
  bound, variables = BoundGenerator(variables, module), jax.device_get(variables)
  arrays = {path: np.asarray(x) for path, x in flat(variables).items()}
  takes = _takes(module, variables, labels, colors)
  return Network(name, takes, key_of(repr(module), checksum(arrays), dataclasses.asdict(takes)),
                 BoundGenerator(variables, module))


def _takes(module, variables, labels, colors) -> Takes:
  kind = nn.input_kind(module)
  example = jax.eval_shape(module.example)
  image = jax.eval_shape(lambda x: module.apply(variables, x, train=False)[0], example)
  takes = Takes('pictures', example.shape[-1], outputs=image.shape[-1], colors=colors)
  if kind == 'latent':
    return dataclasses.replace(takes, kind='latents')
  multiple, smallest = sides(module)
  takes = dataclasses.replace(takes, multiple=multiple, smallest=smallest,
                              scale=image.shape[1] / example.shape[1])
  return _of_labels(takes, labels) if kind == 'labels' else takes


def _of_labels(takes: Takes, labels: Mapping[str, Any] | None) -> Takes:
  known = {'dont_care': False, **(labels or {})}
  if known.get('edges') is None:
    raise ValueError('this network takes label maps, and its file does not say whether its last '
                     'plane is instance edges; give --edges or --noedges')
  extra = bool(known['edges']) + bool(known['dont_care'])
  classes = known.get('classes') or takes.channels - extra
  if classes + extra != takes.channels:
    raise ValueError(f'labels={known} make {classes + extra} planes, and the network takes '
                     f'{takes.channels}')
  return dataclasses.replace(takes, kind='labels', classes=classes, edges=bool(known['edges']),
                             dont_care=bool(known['dont_care']))


def _exported(folder: Path, labels) -> Network:
  """The ONNX network of an export."""
  file = folder / FORMATS['onnx']
  if not file.is_file():
    raise ValueError(f'{folder} holds no {file.name}; export to onnx, or give '
                     'network.safetensors')
  try:
    description = json.loads((folder / INPUT).read_text())
    takes = takes_of(description)
  except (ValueError, TypeError, AttributeError) as e:
    raise ValueError(f'{folder / INPUT} has been changed ({e}); export again') from e
  if takes.kind == 'labels' and description.get('classes') is None:
    takes = _of_labels(takes, labels)
  content = hashlib.sha256(file.read_bytes()).hexdigest()
  return Network(folder.name, takes, key_of(content, dataclasses.asdict(takes)), folder=folder,
                 layout=description.get('layout', 'NHWC'))


def _of_run(folder: Path, name: str | None, checkpoint: str) -> Network:
  generator = open_run(folder).measured_generator(name)
  return bind_trained(generator, generator.bound(checkpoint))


def bind_trained(generator: TrainedGenerator, bound: BoundGenerator) -> Network:
  """A generator of a run as a `Network`, with the weights given."""
  labels, colors = (None, 'input') if generator.from_latents else _of_data(generator)
  return bind(generator.name, bound, labels=labels, colors=colors)


def _of_data(generator) -> tuple[dict[str, Any] | None, str]:
  """(labels, colors) of the data that it learned from, or what the config says of them where they
  are not there any more."""
  try:
    return generator.stage.source().labels, 'rgb' if generator.paints else 'input'
  except (OSError, ValueError):
    section = generator.stage.run.config.data
    classes = section.get('classes')
    return classes and {'classes': classes, 'edges': True,
                        'dont_care': section.get('dont_care', False)}, 'input'
