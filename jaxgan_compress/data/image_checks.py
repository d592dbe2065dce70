"""Every file is read before training starts, so that none can stop it later."""

from __future__ import annotations

import concurrent.futures
import functools
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from jaxgan_compress.data import decode
from jaxgan_compress.data.views import NEAREST, View

DARK = 16  # of 255: what 12-bit data, below 4096 of 65535, are at most

log = logging.getLogger(__name__)


def check(records: Sequence[Mapping[str, Path]], view: View | None, *, classes: int | None = None,
          dont_care: bool = False) -> set[tuple[int, int]]:
  """Decodes every file of `{name: file}` records; returns the sizes (height, width) there are.

  Raises ImageError naming up to ten wrong files. Wrong is what is no whole image; partners of
  different sizes; labels from `classes` upwards (255 aside if `dont_care`); what `view` cannot
  show, or would show in another size than the rest. Folders whose 16-bit pictures are all nearly
  black are named in a warning.
  """
  files = [(name, file) for record in records for name, file in record.items()]
  facts = dict(zip((file for _, file in files), _facts(files), strict=True))
  _warn_of_12_bits(facts)
  wrong, sizes = [], {}
  for record in records:
    first, *others = record.values()
    height, width = facts[first][0]
    try:
      if 'pair' in record:
        if width % 2:
          raise ValueError(f'{width} pixels of width do not part into A and B')
        width //= 2
      for other in others:
        if facts[other][0] != [height, width]:
          raise ValueError(f'{height}x{width} pixels, and its partner {other} has '
                           f'{facts[other][0][0]}x{facts[other][0][1]}')
      if 'label_map' in record:
        labels = facts[record['label_map']][1]
        wrong_labels = decode.wrong_labels(labels, classes, dont_care)
        if wrong_labels:
          more = '; 255 can be a label of its own: dont_care=True' \
              if 255 in labels and not dont_care and classes < 256 else ''
          raise ValueError(f'{wrong_labels} (classes={classes}){more}')
      if view is not None:
        view.shape(height, width)
      sizes.setdefault((height, width), first)
    except ValueError as e:
      wrong.append(f'{first}: {e}')
  if wrong:
    raise decode.ImageError(decode.listed(wrong, len(files)))
  if view is not None:
    check_sizes(view, sizes)
  return set(sizes)


def check_sizes(view: View, sizes: Mapping[tuple[int, int], object]):
  """Raises ImageError if images of these sizes, `{size: whose}`, do not fit into one batch."""
  shapes = {}
  for size, who in sizes.items():
    shapes.setdefault(view.shape(*size), who)
  if len(shapes) > 1:
    (one, a), (two, b), *_ = shapes.items()
    raise decode.ImageError(
        f'preprocess={view.preprocess!r} would make {one[0]}x{one[1]} of {a} and {two[0]}x{two[1]} '
        f"of {b}; a batch needs one size: use preprocess='resize_and_crop'")
  if view.backend == 'device' and len(sizes) > 1:
    (one, a), (two, b), *_ = sizes.items()
    raise decode.ImageError(
        f"backend='device' takes images of one size; {a} has {one[0]}x{one[1]} pixels and {b} "
        f"{two[0]}x{two[1]}; use 'pillow' or 'opencv'")


def verify(files: Sequence[tuple[str, Path]]) -> list[tuple[list[int], list[int]]]:
  """([height, width], labels) of every (name, file), decoded whole, in threads.

  labels: the different numbers of a 'label_map', [] for anything else. What passed is remembered
  in the user's cache by name, size and time; a second call only looks at files that changed.
  Raises ImageError naming up to ten files that cannot be decoded.
  """
  return [(size, labels) for size, labels, _ in _facts(files)]


def _facts(files):
  """As `verify`, and of a 16-bit picture the brightest of its levels, 0 to 255, or None."""
  memory = _memory(files)
  known = _remembered(memory)
  found, wrong, new = [], [], False
  console = Console(stderr=True)
  with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
    results = track(pool.map(functools.partial(_verify, dict(known)), files), 'checking images',
                    len(files), transient=True, console=console, disable=not console.is_terminal)
    try:
      for (_, file), (kept, error) in zip(files, results, strict=True):
        found.append(kept)
        if error:
          wrong.append(error)
        elif known.get(str(file)) != kept:
          known[str(file)], new = kept, True
    finally:  # an interrupted check goes on where it was
      if new:
        _remember(memory, known)
  if wrong:
    raise decode.ImageError(decode.listed(wrong, len(files)))
  return [tuple(kept[1:]) for kept in found]


def _verify(known, named):
  name, file = named
  try:
    stat = file.stat()
    # What passed as a picture has not passed as a label map.
    mark = [name if name in NEAREST else 'picture', decode.READING, stat.st_size, stat.st_mtime_ns]
    before = known.get(str(file))
    if before and before[0] == mark:
      return before, None
    content, values, brightest = file.read_bytes(), [], None
    if name in NEAREST:
      found = decode.decode_labels(content, name=str(file))
      values = np.unique(found).tolist() if name == 'label_map' else []
    else:
      found = decode.decode(content, name=str(file))
      brightest = int(found.max()) if decode.stored_bits(content) == 16 else None
    return [mark, list(found.shape[:2]), values, brightest], None
  except decode.ImageError as e:
    return None, str(e)
  except OSError as e:
    return None, f'{file}: {e.strerror or e}'


def _warn_of_12_bits(facts):
  folders = {}
  for file, (_, _, brightest) in facts.items():
    if brightest is not None:
      folders.setdefault(file.parent, []).append(brightest)
  for folder, brightest in folders.items():
    if max(brightest) <= DARK:
      log.warning(
          '%s: the %d pictures of 16 bits stay below 4096 of 65535, as 12-bit data do, and are '
          'nearly black; multiply them by 16 and save them anew', folder, len(brightest))


def _memory(files):
  home = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
  mark = hashlib.sha256(str(files[0][1].absolute().parent).encode()).hexdigest()[:24]
  return home / 'jaxgan_compress' / 'checked' / f'{mark}.json'


def _remembered(memory):
  try:
    found = json.loads(memory.read_text())
  except (OSError, ValueError):
    return {}  # nothing remembered, or nothing readable: everything is checked
  return found if isinstance(found, dict) else {}


def _remember(memory, entries):
  # Only a convenience: where it cannot be written, the next run checks again.
  try:
    memory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile('w', dir=memory.parent, delete=False) as f:
      json.dump(entries, f)
    os.replace(f.name, memory)
  except OSError:
    pass
