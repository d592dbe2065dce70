"""The usual folder layouts of image data sets, read as lists of `{name: file}`.

What a folder holds and is not used is named in a warning.
"""

from __future__ import annotations

import collections
import logging
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxgan_compress.core import paths
from jaxgan_compress.core.arguments import one_of
from jaxgan_compress.data import decode

Record = Mapping[str, Path]
log = logging.getLogger(__name__)
SPLITS = ('train', 'val', 'validation', 'test')
# The CycleGAN and pix2pix sets call the test split 'val' or 'test'; either word finds the other.
SYNONYMS = {'test': ('test', 'val'), 'val': ('val', 'test'), 'validation': ('validation', 'val')}


def read(layout: str, path: str | Path, split: str) -> tuple[Any, str]:
  """The records of one split of a folder, and the name that the split has there.

  layout: 'paired' for `{'pair': file}` of A and B side by side or `{'source': A, 'target': B}`,
  looked for in this order: `split/A` and `split/B`, `A/split` and `B/split` (equal stems in both),
  then images in `split` itself, each holding A on the left and B on the right.
  'unpaired' for two lists of `{'image': file}`, from `<split>A` and `<split>B`.
  'labels' for `{'label_map', 'instances' (where there are any), 'target'}` in natural order, either
  in Cityscapes' own layout, `gtFine/<split>/<city>/*_labelIds.png`, `*_instanceIds.png` and
  `leftImg8bit/<split>/<city>/*_leftImg8bit.png`, or in that of pix2pixHD and SPADE,
  `<split>_label`, `<split>_inst` (optional) and `<split>_img` with equal stems.

  Raises FileNotFoundError, listing the folder, if there are none, and ImageError for a file without
  its partner.
  """
  root, (records_of, expected) = _root(path), LAYOUTS[layout]
  for name in SYNONYMS.get(split, (split,)):
    records = records_of(root, name)
    if records:
      if name != split:
        log.warning('%s has no split %r; %r takes its place', root, split, name)
      return records, name
  raise _missing(root, split, expected.format(split))


def folder(path: str | Path) -> list[Record]:
  """The images of one folder, `{'image': file}`, by name; see `pictures`."""
  return [{'image': file} for file in pictures(_root(path))]


def splits(path: str | Path, layout: str) -> dict[str, list[Record]]:
  """Every split of a folder, by its own name: `{split: records}`; of 'unpaired', `{'trainA': ...}`.

  layout: 'paired', 'unpaired' or 'labels'. Raises ValueError for another, FileNotFoundError if
  there is no split.
  """
  one_of('layout', layout, LAYOUTS)
  root, records_of = _root(path), {}
  for split in SPLITS:
    records = LAYOUTS[layout][0](root, split)
    if records:
      records_of |= dict(zip((f'{split}A', f'{split}B'), records, strict=True)) \
          if layout == 'unpaired' else {split: records}
  if not records_of:
    raise _missing(root, 'train', f'{layout} images of {", ".join(SPLITS)}')
  used = {file.relative_to(root).parts[0] for records in records_of.values() for record in records
          for file in record.values()}
  rest = sorted(path.name + '/' * path.is_dir() for path in root.iterdir()
                if path.name not in used and path.name[0] != '.')
  if rest:
    log.warning('%s: of no split and left out: %s', root, _few(rest))
  return records_of


def pictures(folder: Path) -> list[Path]:
  """The image files in a folder, by name; a warning names the rest of it, which is left out.

  Subfolders are not read: in one layout they are classes, in another copies of other sizes.
  Raises FileNotFoundError, listing the folder, if there is none.
  """
  images = decode.list_images(folder)
  rest = _left_out(folder, images)
  if not images:
    raise FileNotFoundError(f'{folder} holds no image ({", ".join(decode.SUFFIXES)})'
                            + (f'; it holds {rest}' if rest else '; it is empty'))
  if rest:
    log.warning('%s: %d files, %d used; left out: %s', folder, sum(1 for _ in _below(folder)),
                len(images), rest)
  return images


def natural(path: Path) -> list:
  """A sorting key by which 10 comes after 9."""
  return [int(part) if part.isdigit() else part for part in re.split(r'(\d+)', str(path))]


def _paired(root, split):
  places = [place for place in ((root / split / 'A', root / split / 'B'),
                                (root / 'A' / split, root / 'B' / split), (root / split,))
            if all(folder.is_dir() for folder in place)]
  for place in places[1:]:
    count = sum(len(decode.list_images(folder)) for folder in place)
    if count:
      log.warning('%s: %d images left out, for pairs are read from %s',
                  ' and '.join(map(str, place)), count, ' and '.join(map(str, places[0])))
  if not places:
    return None
  if len(places[0]) == 2:
    return [{'source': left, 'target': right} for left, right in _match(*places[0])]
  return [{'pair': file} for file in pictures(*places[0])]


def _unpaired(root, split):
  folders = root / f'{split}A', root / f'{split}B'
  return [[{'image': file} for file in pictures(folder)] for folder in folders] \
      if all(folder.is_dir() for folder in folders) else None


def _labels(root, split):
  if (root / 'gtFine' / split).is_dir():
    return _cityscapes(root, split)
  maps, instances, photos = (root / f'{split}_{kind}' for kind in ('label', 'inst', 'img'))
  if not (maps.is_dir() and photos.is_dir()):
    return None
  partners = {'target': dict(_match(maps, photos))}
  if instances.is_dir():
    partners['instances'] = dict(_match(maps, instances))
  return [{'label_map': file, **{name: of_map[file] for name, of_map in partners.items()}}
          for file in sorted(partners['target'], key=natural)]


def _cityscapes(root, split):
  maps, photos = root / 'gtFine' / split, root / 'leftImg8bit' / split
  records = [{
      'label_map': file,
      'instances': file.with_name(file.name.replace('labelIds', 'instanceIds')),
      'target': photos / file.parent.name / file.name.replace('gtFine_labelIds', 'leftImg8bit'),
  } for file in sorted(maps.glob('*/[!.]*_labelIds.png'), key=natural)]
  if not records:
    raise FileNotFoundError(f'{maps} holds no <city>/*_labelIds.png')
  lost = [f'{record["label_map"]}: {file} is missing{_near(file.parent, file)}'
          for record in records for file in record.values() if not file.is_file()]
  if lost:
    raise decode.ImageError(decode.listed(lost, len(records)))
  alone = {path for path in _below(photos) if path.stem.endswith('_leftImg8bit')} - {
      record['target'] for record in records}
  if alone:
    log.warning('%s: %d left out, without a label map: %s', photos, len(alone),
                _few(sorted(path.name for path in alone)))
  return records


# How a layout is read, and what is looked for.
LAYOUTS: dict[str, tuple[Callable, str]] = {
    'paired': (_paired, '{0}/ (A|B side by side), {0}/A and {0}/B, or A/{0} and B/{0}'),
    'unpaired': (_unpaired, '{0}A/ and {0}B/'),
    'labels': (_labels, 'gtFine/{0} and leftImg8bit/{0}, or {0}_label and {0}_img')}


def _root(path):
  if not str(path):  # which would be the folder that one is in
    raise FileNotFoundError("path='': name the folder of the images, as "
                            '--config.data.path=FOLDER of a run')
  root = paths.expand(path)
  if not root.is_dir():
    raise FileNotFoundError(f'{root} is no folder' if root.exists() else
                            f'there is no folder {root} (seen from {Path.cwd()})')
  return root


def _missing(root, split, wanted):
  entries = sorted(path.name + '/' * path.is_dir() for path in root.iterdir())[:12]
  return FileNotFoundError(f'{root} has no split {split!r}: looked for {wanted}; it holds '
                           f'{", ".join(entries) or "nothing"}')


def _below(folder: Path) -> Iterator[Path]:
  """Every file in a folder and the folders inside; nothing that is hidden."""
  for place, folders, names in os.walk(folder):
    folders[:] = sorted(name for name in folders if name[0] != '.')
    yield from (Path(place, name) for name in sorted(names) if name[0] != '.')


def _left_out(folder, used):
  """'10 in subfolders (a, b), 2 .heic (not listed)': what a folder holds besides what is used."""
  used, kinds, inside = set(used), collections.Counter(), {}
  for path in _below(folder):
    if path.parent != folder:
      inside[path.relative_to(folder).parts[0]] = None
      kinds['in subfolders'] += 1
    elif path not in used:
      kinds[f'{path.suffix.lower() or "without a suffix"} (not listed)'] += 1
  names = {'in subfolders': f' ({_few(inside)})'}
  return ', '.join(f'{count} {kind}{names.get(kind, "")}' for kind, count in kinds.items())


def _few(names: Iterable[str], most: int = 5) -> str:
  names = list(names)
  return ', '.join(names[:most]) + f' and {len(names) - most} more' * (len(names) > most)


def _stem(file):
  # Letters with accents are written in two ways, which look the same.
  return unicodedata.normalize('NFC', file.stem)


def _near(folder, file):
  """The files of a folder that may be meant where one of this stem is missing."""
  near = [path.relative_to(folder) for path in _below(folder)
          if _stem(path).casefold() == _stem(file).casefold()]
  return f'; there is {_few(map(str, near))}, which does not count: partners have equal names ' \
         'and a listed suffix' if near else ''


def _match(a, b):
  """The pairs of files with equal stems in two folders. Raises ImageError for a file without one.
  """
  left, right = _by_stem(a), _by_stem(b)
  lost = [f'{files[stem]}: {folder} has no {stem}{_near(folder, files[stem])}'
          for files, other, folder in ((left, right, b), (right, left, a))
          for stem in files.keys() - other.keys()]
  if lost:
    raise decode.ImageError(decode.listed(sorted(lost), len(left) + len(right)))
  return [(left[stem], right[stem]) for stem in sorted(left)]


def _by_stem(folder):
  files = {}
  for file in pictures(folder):
    first = files.setdefault(_stem(file), file)
    if first is not file:
      raise decode.ImageError(f'{folder} has {file.stem} twice ({first.name} and {file.name}); '
                              'keep one')
  return files
