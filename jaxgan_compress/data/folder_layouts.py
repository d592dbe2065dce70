"""Folders as people have them, read as lists of `{name: file}`. What is left out is said."""

from __future__ import annotations

import collections
import logging
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from jaxgan_compress.core import paths
from jaxgan_compress.data import decode

Record = Mapping[str, Path]
log = logging.getLogger(__name__)
SPLITS = ('train', 'val', 'validation', 'test')
# The CycleGAN and pix2pix sets call the test split 'val' or 'test'; either word finds the other.
SYNONYMS = {'test': ('test', 'val'), 'val': ('val', 'test'), 'validation': ('validation', 'val')}


def paired(path: str | Path, split: str) -> tuple[list[Record], str]:
  """Files of pairs, `{'pair': file}` of A and B side by side or `{'source': A, 'target': B}`, and
  what the split is called there.

  Looked for in this order: `split/A` and `split/B`, `A/split` and `B/split` (equal stems in both),
  then images in `split` itself, each holding A on the left and B on the right.
  Raises FileNotFoundError, with what is there, for none of them, and ImageError for a file without
  its partner.
  """
  return _first(_paired, path, split, f'{split}/ (A|B side by side), {split}/A and {split}/B, or '
                                      f'A/{split} and B/{split}')


def unpaired(path: str | Path, split: str) -> tuple[tuple[list[Record], list[Record]], str]:
  """Files of two domains, `[{'image': file}]` of each in `<split>A` and `<split>B`, and what the
  split is called there.

  Raises FileNotFoundError, with what is there, if there are none.
  """
  return _first(_unpaired, path, split, f'{split}A/ and {split}B/')


def labels(path: str | Path, split: str) -> tuple[list[Record], str]:
  """Files of label maps, `{'label_map', 'instances' (where there are any), 'target'}`, and what the
  split is called there.

  Either Cityscapes' own layout, `gtFine/<split>/<city>/*_labelIds.png`, `*_instanceIds.png` and
  `leftImg8bit/<split>/<city>/*_leftImg8bit.png`, or that of pix2pixHD and SPADE, `<split>_label`,
  `<split>_inst` (optional) and `<split>_img` with equal stems. In natural order.
  Raises FileNotFoundError, with what is there, for neither, and ImageError for a file without its
  partner.
  """
  return _first(_labels, path, split, f'gtFine/{split} and leftImg8bit/{split}, or {split}_label '
                                      f'and {split}_img')


def splits(path: str | Path, layout: str) -> dict[str, list[Record]]:
  """Every split of a folder, by its own name: `{split: records}`; of 'unpaired', `{'trainA': ...}`.

  layout: 'paired', 'unpaired' or 'labels'. Raises ValueError for another, FileNotFoundError if
  there is no split.
  """
  readers = {'paired': _paired, 'unpaired': _unpaired, 'labels': _labels}
  if layout not in readers:
    raise ValueError(f'layout={layout!r}; one of {", ".join(readers)}')
  root, found = _root(path), {}
  for split in SPLITS:
    records = readers[layout](root, split)
    if records:
      found |= dict(zip((f'{split}A', f'{split}B'), records, strict=True)) \
          if layout == 'unpaired' else {split: records}
  if not found:
    raise _missing(root, 'train', f'{layout} images of {", ".join(SPLITS)}')
  used = {file.relative_to(root).parts[0] for records in found.values() for record in records
          for file in record.values()}
  rest = sorted(path.name + '/' * path.is_dir() for path in root.iterdir()
                if path.name not in used and path.name[0] != '.')
  if rest:
    log.warning('%s: of no split and left out: %s', root, _few(rest))
  return found


def pictures(folder: Path) -> list[Path]:
  """The image files in a folder, by name; what else it holds is left out and said in a warning.

  Subfolders are not read: in one layout they are classes, in another copies of other sizes.
  Raises FileNotFoundError, with what is there, if there is none.
  """
  found = decode.files(folder)
  rest = _left_out(folder, found)
  if not found:
    raise FileNotFoundError(f'{folder} holds no image ({", ".join(decode.SUFFIXES)})'
                            + (f'; it holds {rest}' if rest else '; it is empty'))
  if rest:
    log.warning('%s: %d files, %d used; left out: %s', folder, sum(1 for _ in _below(folder)),
                len(found), rest)
  return found


def _paired(root, split):
  places = ((root / split / 'A', root / split / 'B'), (root / 'A' / split, root / 'B' / split),
            (root / split,))
  there = [place for place in places if all(folder.is_dir() for folder in place)]
  for place in there[1:]:
    count = sum(len(decode.files(folder)) for folder in place)
    if count:
      log.warning('%s: %d images left out, for pairs are read from %s',
                  ' and '.join(map(str, place)), count, ' and '.join(map(str, there[0])))
  if not there:
    return None
  if len(there[0]) == 2:
    return [{'source': left, 'target': right} for left, right in _match(*there[0])]
  return [{'pair': file} for file in pictures(*there[0])]


def _unpaired(root, split):
  folders = root / f'{split}A', root / f'{split}B'
  if all(folder.is_dir() for folder in folders):
    return tuple([{'image': file} for file in pictures(folder)] for folder in folders)
  return None


def _labels(root, split):
  if (root / 'gtFine' / split).is_dir():
    return _cityscapes(root, split)
  maps, instances, photos = (root / f'{split}_{which}' for which in ('label', 'inst', 'img'))
  if not (maps.is_dir() and photos.is_dir()):
    return None
  others = {'target': dict(_match(maps, photos))}
  if instances.is_dir():
    others['instances'] = dict(_match(maps, instances))
  return [{'label_map': file, **{name: found[file] for name, found in others.items()}}
          for file in sorted(others['target'], key=natural)]


def natural(path: Path) -> list:
  """A sorting key by which 10 comes after 9."""
  return [int(part) if part.isdigit() else part for part in re.split(r'(\d+)', str(path))]


def _cityscapes(root, split):
  records, lost = [], []
  for labels in sorted((root / 'gtFine' / split).glob('*/[!.]*_labelIds.png'), key=natural):
    photo = labels.name.replace('gtFine_labelIds', 'leftImg8bit')
    record = {'label_map': labels,
              'instances': labels.with_name(labels.name.replace('labelIds', 'instanceIds')),
              'target': root / 'leftImg8bit' / split / labels.parent.name / photo}
    lost += [f'{labels}: {file} is missing{_near(file.parent, file)}' for file in record.values()
             if not file.is_file()]
    records.append(record)
  if lost:
    raise decode.ImageError(decode.listed(lost, len(records)))
  if not records:
    raise FileNotFoundError(f'{root / "gtFine" / split} holds no <city>/*_labelIds.png')
  photos = root / 'leftImg8bit' / split
  alone = {path for path in _below(photos) if path.stem.endswith('_leftImg8bit')} - {
      record['target'] for record in records}
  if alone:
    log.warning('%s: %d left out, without a label map: %s', photos, len(alone),
                _few(sorted(path.name for path in alone)))
  return records


def _root(path):
  root = paths.expand(path)
  if not root.is_dir():
    raise FileNotFoundError(f'{root} is no folder' if root.exists() else
                            f'there is no folder {root} (seen from {Path.cwd()})')
  return root


def _first(reader, path, split, wanted):
  root = _root(path)
  for name in SYNONYMS.get(split, (split,)):
    found = reader(root, name)
    if found:
      if name != split:
        log.warning('%s has no split %r; %r takes its place', root, split, name)
      return found, name
  raise _missing(root, split, wanted)


def _below(folder: Path) -> Iterator[Path]:
  """Every file in a folder and the folders inside; nothing that is hidden."""
  for where, folders, names in os.walk(folder):
    folders[:] = sorted(name for name in folders if name[0] != '.')
    yield from (Path(where, name) for name in sorted(names) if name[0] != '.')


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
  """What in a folder may be meant where a file of that stem is missing."""
  found = [path.relative_to(folder) for path in _below(folder)
           if _stem(path).casefold() == _stem(file).casefold()]
  return f'; there is {_few(map(str, found))}, which does not count: partners have equal names ' \
         'and a listed suffix' if found else ''


def _match(a, b):
  both = [pictures(folder) for folder in (a, b)]
  left, right = ({_stem(file): file for file in files} for files in both)
  for folder, files, found in ((a, both[0], left), (b, both[1], right)):
    twice = [file for file in files if found[_stem(file)] != file]
    if twice:
      raise decode.ImageError(f'{folder} has {twice[0].stem} twice ({twice[0].name} and '
                              f'{found[_stem(twice[0])].name}); keep one')
  lost = [f'{files[name]}: {folder} has no {name}{_near(folder, files[name])}'
          for files, other, folder in ((left, right, b), (right, left, a))
          for name in files.keys() - other.keys()]
  if lost:
    raise decode.ImageError(decode.listed(sorted(lost), len(left) + len(right)))
  return [(left[name], right[name]) for name in sorted(left)]


def _missing(root, split, wanted):
  there = sorted(path.name + '/' * path.is_dir() for path in root.iterdir())[:12]
  return FileNotFoundError(f'{root} has no split {split!r}: looked for {wanted}; it holds '
                           f'{", ".join(there) or "nothing"}')
