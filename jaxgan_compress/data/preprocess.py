"""Folders become TensorFlow Datasets sets, without TensorFlow: original bytes in array_record."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from jaxgan_compress.core import paths
from jaxgan_compress.data import folder_layouts, image_checks
from jaxgan_compress.data.translation import channels_of, check_channels

MANIFEST = 'manifest.json'
DEFAULT = '~/tensorflow_datasets'


def prepare(layout: str, path: str | Path, name: str, *, out: str | Path = DEFAULT,
            classes: int | None = None, dont_care: bool = False, channels: int = 3, bits: int = 8,
            progress: Callable[[Iterable, int, str], Iterable] = lambda items, total, what: items
            ) -> Path:
  """Writes every split of a folder as the set `tfds:<name>`; returns its folder.

  layout: 'paired', 'unpaired' or 'labels', see `folder_layouts`. out: where TFDS keeps its sets.
  classes, dont_care: of label maps, as in `labels`. channels, bits: of the pictures, as in
  `paired`; the set is read with these. progress: wraps the loops.

  Every image is decoded first, and a mistake in any is an ImageError. The files' own bytes are
  kept; `manifest.json` holds size and SHA-256 of every source file and of every shard. Called
  again after an interruption it goes on: what was checked is remembered, and the set appears only
  when it is whole. Raises FileExistsError if the set exists, ValueError for another layout or name.
  """
  import tensorflow_datasets as tfds  # slow to import, and only needed here
  if not re.fullmatch('[a-z_][a-z0-9_]*', name):
    raise ValueError(f'name={name!r}; small letters, digits and _ only, as in maps_256')
  if name in tfds.list_builders(with_community_datasets=False):
    raise ValueError(f'name={name!r} is a set of the TFDS catalogue; take another, as my_{name}')
  if layout == 'labels' and (classes is None or not 0 < classes + dont_care <= 256):
    raise ValueError(f'classes={classes}: label maps need the number of labels, at most 256 with '
                     'dont_care (Cityscapes: 35)')
  check_channels(channels, bits)
  splits = folder_layouts.splits(path, layout)
  target = paths.expand(out) / name / '1.0.0'
  if target.exists():
    raise FileExistsError(f'{target} is there already; take another name, or remove it')
  _check_alike(splits)
  facts = {'layout': layout, 'names': list(next(iter(splits.values()))[0]), 'sizes': {
      split: sorted(set(image_checks.check(records, None, classes=classes, dont_care=dont_care,
                                           channels=channels_of(channels), bits=bits)))
      for split, records in splits.items()}, 'classes': classes, 'dont_care': dont_care,
           'channels': channels, 'bits': bits}
  for unfinished in target.parent.glob('incomplete.*'):
    shutil.rmtree(unfinished)  # of an interrupted call
  sources = _write(tfds, name, paths.expand(out), paths.expand(path), splits, facts, progress)
  shards = {file.name: [file.stat().st_size, sha256(file)]
            for file in sorted(target.glob('*.array_record*'))}
  paths.write_atomically(target / MANIFEST,
                         json.dumps({'shards': shards, 'sources': sources}, indent=1))
  return target


def _check_alike(splits):
  names = {split: sorted(records[0]) for split, records in splits.items()}
  if len(set(map(tuple, names.values()))) > 1:
    raise ValueError('the splits do not hold the same: ' + ', '.join(
        f'{split} has {" and ".join(files)}' for split, files in names.items())
        + '; lay them out alike')


def _write(tfds, name, out, root, splits, facts, progress):
  """Builds the set; returns {file: [size, SHA-256]} of the source files."""
  hashes = {}

  with tfds.core.registered.skip_registration():  # its name is this set's alone
    class Builder(tfds.core.GeneratorBasedBuilder):
      VERSION = tfds.core.Version('1.0.0')

      def _info(self):
        image = {key: tfds.features.Image() for key in facts['names']}
        return tfds.core.DatasetInfo(
            builder=self, description=f'{facts["layout"]} images of {root.name}',
            features=tfds.features.FeaturesDict({**image, 'filename': tfds.features.Text()}),
            disable_shuffling=True, metadata=tfds.core.MetadataDict(jaxgan_compress=facts))

      def _split_generators(self, manager):
        return {split: self._generate_examples(split) for split in splits}

      def _generate_examples(self, split):
        records = splits[split]
        for i, record in enumerate(progress(records, len(records), f'writing {split}')):
          for file in record.values():
            hashes[str(file.relative_to(root))] = [file.stat().st_size, sha256(file)]
          first = next(iter(record.values()))
          yield i, {**{key: str(file) for key, file in record.items()},
                    'filename': str(first.relative_to(root))}

  Builder.name = name
  tfds.disable_progress_bar()
  logging.getLogger('absl').setLevel(logging.ERROR)
  try:
    # Nothing is downloaded, whatever it prints.
    with tempfile.TemporaryDirectory() as nowhere, contextlib.redirect_stdout(io.StringIO()):
      Builder(data_dir=str(out), file_format='array_record'
              ).download_and_prepare(download_dir=nowhere)
  finally:
    tfds.enable_progress_bar()
  return hashes


def check_shards(folder: Path):
  """Raises OSError if a shard of a set that we prepared is not as long as it was written."""
  manifest = folder / MANIFEST
  if manifest.is_file():
    for name, (size, _) in json.loads(manifest.read_text())['shards'].items():
      file = folder / name
      length = file.stat().st_size if file.is_file() else None
      if length != size:
        now = 'is gone' if length is None else f'has {length} bytes'
        raise OSError(f'{file} {now} and had {size}; prepare the set again (jaxgan-compress '
                      'prepare-data)')


def sha256(file: Path) -> str:
  with open(file, 'rb') as f:
    return hashlib.file_digest(f, 'sha256').hexdigest()
