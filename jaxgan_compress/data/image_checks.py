"""Every file is read before training starts, so that none can stop it later."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import track

from jaxgan_compress.core import paths
from jaxgan_compress.data import decode
from jaxgan_compress.data.views import NEAREST, View

DARK = 16  # of 255: what 12-bit data, below 4096 of 65535, are at most

log = logging.getLogger(__name__)


class Facts(NamedTuple):
  """What one file was found to be: [height, width]; the labels in it, if it is a label map; if it
  is a 16-bit picture, its brightest level from 0 to 255; and its pages, of which one is used."""
  size: list[int]
  labels: list[int]
  brightest: int | None
  pages: int = 1


def check(records: Sequence[Mapping[str, Path]], view: View | None, *, classes: int | None = None,
          dont_care: bool = False, channels: Mapping[str, tuple[int, ...]] | None = None,
          bits: int = 8) -> list[tuple[int, int]]:
  """Decodes every file of `{name: file}` records; returns the size (height, width) of each record.

  channels, bits: {name: the numbers of channels that its pictures get}, see `decode.decode_image`.

  Raises ImageError naming up to ten wrong files: those that are no whole image, or have another
  number of planes; partners of different sizes; labels from `classes` upwards (255 aside if
  `dont_care`); images that `view` cannot show, or would show in another size than the rest. Folders
  whose 16-bit pictures are all nearly black, or with pages that are left out, are named in a
  warning.
  """
  files = [(name, file) for record in records for name, file in record.items()]
  facts = dict(zip((file for _, file in files), _facts(files, channels or {}, bits), strict=True))
  _warn_of_12_bits(facts)
  _warn_of_pages(facts)
  wrong, sizes, first_of_size = [], [], {}
  for record in records:
    first = next(iter(record.values()))
    try:
      _check_record(record, facts, classes, dont_care)
      height, width = facts[first].size
      size = height, width // 2 if 'pair' in record else width
      if view is not None:
        view.shape(*size)
      sizes.append(size)
      first_of_size.setdefault(size, first)
    except ValueError as e:
      wrong.append(f'{first}: {e}')
  if wrong:
    raise decode.ImageError(decode.listed(wrong, len(files)))
  if view is not None:
    check_sizes(view, first_of_size)
  return sizes


def check_sizes(view: View, sizes: Mapping[tuple[int, int], object]):
  """Raises ImageError if images of these `{size: name of one}` do not fit into one batch."""
  shapes = {}
  for size, image in sizes.items():
    shapes.setdefault(size if view.backend == 'device' else view.shape(*size), image)
  if len(shapes) > 1:
    (one, a), (two, b), *_ = shapes.items()
    reason = "backend='device' takes images of one size: use 'pillow' or 'opencv'" \
        if view.backend == 'device' else f'a batch needs one size, which ' \
        f"preprocess={view.preprocess!r} does not make: use preprocess='resize_and_crop'"
    raise decode.ImageError(f'{a} would be {one[0]}x{one[1]} pixels and {b} {two[0]}x{two[1]}; '
                            f'{reason}')


def _check_record(record, facts, classes, dont_care):
  """Raises ValueError for files that do not go together, or labels outside."""
  first, *partners = record.values()
  height, width = facts[first].size
  if 'pair' in record and width % 2:
    raise ValueError(f'{width} pixels of width do not part into A and B')
  for partner in partners:
    if facts[partner].size != [height, width]:
      raise ValueError(f'{height}x{width} pixels, and its partner {partner} has '
                       f'{facts[partner].size[0]}x{facts[partner].size[1]}')
  if 'label_map' in record:
    labels = facts[record['label_map']].labels
    wrong = decode.wrong_labels(labels, classes, dont_care)
    if wrong:
      advice = '; 255 can be a label of its own: dont_care=True' \
          if 255 in labels and not dont_care and classes < 256 else ''
      raise ValueError(f'{wrong} (classes={classes}){advice}')


def _facts(files: Sequence[tuple[str, Path]], channels, bits) -> list[Facts]:
  """The facts of every (name, file), decoded whole, in threads.

  What passed is remembered in the user's cache by name, size and time; a second call only decodes
  files that changed. Raises ImageError naming up to ten files that cannot be decoded.
  """
  folder = str(files[0][1].absolute().parent)
  cache = paths.cache_folder('checked', f'{hashlib.sha256(folder.encode()).hexdigest()[:24]}.json')
  known = _remembered(cache)
  entries, wrong, changed = [], [], False
  console = Console(stderr=True)
  with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
    verify = functools.partial(_verify, dict(known), channels, bits)
    results = track(pool.map(verify, files), 'checking images', len(files), transient=True,
                    console=console, disable=not console.is_terminal)
    try:
      for (_, file), (entry, error) in zip(files, results, strict=True):
        entries.append(entry)
        if error:
          wrong.append(error)
        elif known.get(str(file)) != entry:
          known[str(file)], changed = entry, True
    finally:  # an interrupted check goes on where it was
      if changed:
        with contextlib.suppress(OSError):  # where it cannot be written, the next run checks again
          cache.parent.mkdir(parents=True, exist_ok=True)
          paths.write_atomically(cache, json.dumps(known))
  if wrong:
    raise decode.ImageError(decode.listed(wrong, len(files)))
  return [Facts(*facts) for _, *facts in entries]


def _verify(known, channels, bits, named):
  """([mark, *facts], None) of a (name, file), or (None, why it cannot be used)."""
  name, file = named
  counts = channels.get(name, (3,))
  # Whatever picture is shown in colour is shown in grey.
  shown = bits == 8 and {*counts} <= {1, 3} and file.suffix.lower() != decode.ARRAY
  kind = name if name in NEAREST else 'picture' if shown else f'{counts} of {bits} bits'
  try:
    stat = file.stat()
    # What passed as a picture has not passed as a label map.
    mark = [kind, decode.READING, stat.st_size, stat.st_mtime_ns]
    entry = known.get(str(file))
    if entry and entry[0] == mark:
      return entry, None
    content, labels, brightest, pages = file.read_bytes(), [], None, 1
    if name in NEAREST:
      pixels = decode.decode_labels(content, name=str(file))
      labels = np.unique(pixels).tolist() if name == 'label_map' else []
    else:
      pixels, *_ = [decode.decode_image(content, count, bits=bits, name=str(file))
                    for count in ((3,) if shown else counts)]
      brightest = _brightest(content, pixels if shown else None)
      pages = decode.stored_pages(content) if shown else 1
    return [mark, list(pixels.shape[:2]), labels, brightest, pages], None
  except decode.ImageError as e:
    return None, str(e)
  except OSError as e:
    return None, f'{file}: {e.strerror or e}'


def _brightest(content, shown):
  """The brightest level of a 16-bit picture, from 0 to 255; None of others. shown: what
  `decode_image` made of it, or None where other numbers than shown are used."""
  if shown is not None:
    return int(shown.max()) if decode.stored_bits(content) == 16 else None
  stored = decode.decode_deep(content)
  return int(stored.max()) // 257 if stored.dtype == np.uint16 else None


def _warn_of_12_bits(facts):
  folders = {}
  for file, fact in facts.items():
    if fact.brightest is not None:
      folders.setdefault(file.parent, []).append(fact.brightest)
  for folder, brightest in folders.items():
    if max(brightest) <= DARK:
      log.warning(
          '%s: the %d pictures of 16 bits stay below 4096 of 65535, as 12-bit data do, and are '
          'nearly black; multiply them by 16 and save them anew', folder, len(brightest))


def _warn_of_pages(facts):
  folders = {}
  for file, fact in facts.items():
    if fact.pages > 1:
      folders.setdefault(file.parent, []).append(fact.pages)
  for folder, pages in folders.items():
    log.warning('%s: %d TIFFs have up to %d pages, of which the first is used; to take all as '
                'planes, give channels (or bits=16)', folder, len(pages), max(pages))


def _remembered(cache):
  try:
    known = json.loads(cache.read_text())
  except (OSError, ValueError):
    return {}  # nothing is remembered, or nothing readable: everything is checked
  return known if isinstance(known, dict) else {}
