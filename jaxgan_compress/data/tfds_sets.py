"""Prepared TensorFlow Datasets sets, read without TensorFlow."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxgan_compress.core import paths
from jaxgan_compress.data import folder_layouts, image_checks, transforms
from jaxgan_compress.data.preprocess import check_shards
from jaxgan_compress.data.sources import Source
from jaxgan_compress.data.translation import (
  CITYSCAPES,
  Images,
  channels_of,
  check_channels,
  two_domains,
  view_of,
)

# Sets of the TFDS catalogue that are for image translation.
CATALOGUE = {'cycle_gan': {'layout': 'unpaired'}, 'cityscapes': {'layout': 'labels'}}
FEATURES = {'image_left': 'target', 'segmentation_label': 'label_map'}  # of Cityscapes' set


def tfds(catalogue: str, split: str = 'train', *, data_dir: str | None = None, **arguments
         ) -> Source:
  """A prepared TensorFlow Datasets set, read without TensorFlow.

  catalogue: its name ('mnist', 'cycle_gan/horse2zebra', or one of `prepare-data`). A set for image
  translation takes the arguments of `paired`, `unpaired` or `labels` but the path, and gives what
  they give; any other takes those of `Classified`.

  Raises FileNotFoundError with the command that prepares the set if it is not prepared, and
  ValueError for an unknown name (nearest one suggested), split or argument.
  """
  import tensorflow_datasets as library  # slow to import, and only needed here
  from tensorflow_datasets.core.registered import DatasetNotFoundError
  check_channels(arguments.get('channels', 3), arguments.get('bits', 8), sides=True)
  data_dir = data_dir and str(paths.expand(data_dir))
  try:
    builder = library.builder(catalogue, data_dir=data_dir)
  except DatasetNotFoundError as e:
    raise _unknown(library, catalogue, data_dir) from e
  facts = _facts(builder)
  if 'sizes' in facts:
    split = next((name for name in folder_layouts.SYNONYMS.get(split, ())
                  for part in facts['sizes'] if part.removesuffix('A') == name), split)
  splits = (f'{split}A', f'{split}B') if facts.get('layout') == 'unpaired' else (split,)
  # Of our own sets the files' bytes, for our decoder knows more kinds of images.
  raw = {name: library.decode.SkipDecoding() for name in facts.get('names', ())} or None
  try:
    # download=False: it would otherwise fetch and prepare the set, and without TensorFlow fail.
    records = [library.data_source(catalogue, split=part, data_dir=data_dir, decoders=raw,
                                   download=False) for part in splits]
  except (AssertionError, KeyError, NotImplementedError, OSError, ValueError) as e:
    if builder.info.splits and isinstance(e, KeyError | ValueError):
      raise ValueError(f'{catalogue} has no split {split!r}; one of '
                       f'{", ".join(builder.info.splits)}') from e
    raise FileNotFoundError(
        f'data set {catalogue!r} is not prepared as array_record in {builder.data_dir}; prepare it '
        f"once: pip install 'jaxgan-compress[tf]' && tfds build {catalogue} "
        '--file_format=array_record') from e
  if not facts:
    return Classified(records[0], f'tfds:{catalogue}/{split}', **arguments)
  check_shards(Path(builder.data_dir))
  return _translation(facts, split, records, f'tfds:{builder.name}/{split}', **arguments)


def _unknown(library, name, data_dir):
  near = difflib.get_close_matches(
      name, library.list_builders(with_community_datasets=False), 1)
  hint = f"; did you mean 'tfds:{near[0]}'?" if near else ''
  return ValueError(f'TFDS has no data set {name!r}{hint}; {data_dir or "~/tensorflow_datasets"} '
                    'holds none of that name either, which jaxgan-compress prepare-data would make '
                    '(data_dir: its --output)')


def _facts(builder) -> dict:
  """{'layout': 'paired', 'unpaired' or 'labels'} of a set for image translation, {} of another.

  Our own sets have the 'names' of the features, too, and what was checked when they were made.
  """
  # The file, for `builder.info` may look for it in the network.
  file = Path(builder.data_dir) / 'metadata.json'
  ours = json.loads(file.read_text()).get('jaxgan_compress') if file.is_file() else None
  return ours or CATALOGUE.get(builder.name, {})


def _translation(facts: Mapping, split: str, records: Sequence, name: str, **arguments) -> Source:
  """The source of a set for image translation: records hold files' bytes, or arrays."""
  kind = facts['layout']
  if kind == 'labels':
    arguments = {'preprocess': 'scale_width', 'size': 512, **arguments}
    encoding = {'classes': facts.get('classes') or CITYSCAPES,
                'dont_care': facts.get('dont_care', False)}
    wanted = {key: arguments.pop(key, x) for key, x in encoding.items()}
    if 'classes' in facts and wanted != encoding:
      raise ValueError(f'{name} was prepared with classes={encoding["classes"]}, '
                       f'dont_care={encoding["dont_care"]}; leave them out')
  else:
    wanted = {'direction': arguments.pop('direction', 'AtoB')}
  planes = {key: arguments.pop(key, facts.get(key, x))
            for key, x in (('channels', 3), ('bits', 8))}
  wanted |= planes
  view = view_of(arguments, **wanted)
  _check_prepared(facts, name, **planes)
  for part in (split, f'{split}A', f'{split}B'):
    image_checks.check_sizes(view, {tuple(size): f'an image of {size[0]}x{size[1]}'
                                    for size in facts.get('sizes', {}).get(part, ())})
  if kind == 'unpaired':
    return two_domains(records, view, name, name, **wanted)
  return Images(records[0], view, name, features=FEATURES, **wanted)


def _check_prepared(facts, name, channels, bits):
  """Raises ValueError for channels with which the files of a set of ours were not checked."""
  of_all = channels_of(channels)
  checked = {'channels': facts.get('channels', 3), 'bits': facts.get('bits', 8)}
  # Whatever picture is shown in colour is shown in grey.
  shown = bits == 8 and {*of_all['source'], *of_all['target']} <= {1, 3}
  if 'names' in facts and not (shown and checked == {'channels': 3, 'bits': 8}) and (
      checked['bits'] != bits or channels_of(checked['channels']) != of_all):
    raise ValueError(f'{name} was prepared, and its files checked, with channels='
                     f'{checked["channels"]}, bits={checked["bits"]}; leave channels and bits out, '
                     f'or prepare it again with --channels={channels} --bits={bits}')


class Classified(Source):
  """Images with a class, of a TFDS set. size, crop, fit, channels, bits: see `transforms.frame`.

  label: the feature that holds the class, '/' between levels, or None. Raises ValueError for a
  feature that is not there.
  """

  def __init__(self, records, name: str, *, size: int, channels: int, crop: int | None = None,
               bits: int = 8, fit: str = 'resize', label: str | None = 'label'):
    self.records, self.name, self.label, self.count = records, name, label, len(records)
    self.frame = {'size': size, 'channels': channels, 'bits': bits, 'crop': crop, 'fit': fit}

  def __getitem__(self, i):
    record = self.records[i]
    value = record
    for level in self.label.split('/') if self.label else ():
      if level not in value:
        raise ValueError(f'{self.name} has no feature {self.label!r}; there is '
                         f'{", ".join(value)}')
      value = value[level]
    return {'target': transforms.frame(record['image'], **self.frame),
            'label': np.int32(value if self.label else 0)}
