"""Pairs of emoji in two styles, of the pictures that launch/get_emoji.sh has rendered.

The pictures are Microsoft's Fluent emoji, from the npm package fluentui-emoji 1.3.0, under the MIT
licence: Copyright (c) Microsoft Corporation; of the package, Copyright (c) 2022 Mohammad Abu
Mattar. The licence lies with the pictures, which are no part of this library.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from jaxgan_compress.core import paths
from jaxgan_compress.data import image_checks
from jaxgan_compress.data.sources import Source
from jaxgan_compress.data.translation import Images, channels_of, two_domains
from jaxgan_compress.data.views import View

RECORD = 'emoji.json'  # in the folder, of launch/get_emoji.py
# 'mono' is black on white, 'flat' in plain colours, 'shaded' with light and shadow.
PAIRS = {'mono2flat': ('mono', 'flat'), 'flat2shaded': ('flat', 'shaded')}
# Words that name another picture of the same emoji, by skin, sex and age, hair, direction, colour,
# hour.
VARIANTS = {
    'default', 'light', 'medium', 'dark', 'man', 'woman', 'men', 'women', 'person', 'people', 'old',
    'older', 'blonde', 'red', 'white', 'curly', 'hair', 'bald', 'beard', 'left', 'right',
    'leftwards', 'rightwards', 'facing', 'up', 'down', 'orange', 'yellow', 'green', 'blue',
    'purple', 'brown', 'black', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight',
    'nine', 'ten', 'eleven', 'twelve'}
# Others that differ by less than 9 of 255, RMS at 32x32, as they are or mirrored.
TWINS = {'anger-bubble': 'speech-balloon', 'chart-increasing': 'chart-decreasing',
         'fast-reverse-button': 'fast-forward-button', 'full-moon': 'circle',
         'grinning-cat': 'cat-face', 'last-quarter-moon-face': 'first-quarter-moon-face',
         'multiply': 'cross-mark', 'optical-disk': 'dvd', 'pouting-face': 'angry-face',
         'raised-back-of-hand': 'raised-hand', 'reverse-button': 'play-button',
         'speech-bubble': 'speech-balloon', 'square-button': 'square',
         'star-of-david': 'dotted-pointed-star'}
SHARES = {'test': 10, 'validation': 20, 'train': 100}  # per cent of the emoji, below which


def pairs(split: str, pair: str, *, size: int, count: int | None, paired: bool,
          path: str | Path | None) -> Source:
  """`samples('emoji', ...)`, which checks the arguments.

  Raises FileNotFoundError, with the command to run, where the pictures are not there, or not all.
  """
  folder = paths.cache_folder('emoji') if path is None else paths.expand(path)
  styles, view = PAIRS[pair], View(size=size)
  names = in_split(set.intersection(*(names_of(folder, style) for style in styles)), split)
  name = f'samples:emoji/{pair}/{split}'
  channels = channels_of(3)
  if paired:
    records = [{role: folder / style / f'{each}.png'
                for role, style in zip(('source', 'target'), styles, strict=True)}
               for each in names[:count]]
    image_checks.check(records, view, channels=channels)
    return Images(records, view, name)
  domains = [[{'image': folder / style / f'{each}.png'} for each in names
              if part(emoji_of(each), 'domain') % 2 == side][:count]
             for side, style in enumerate(styles)]
  for records in domains:
    image_checks.check(records, view, channels=channels)
  return two_domains(domains, view, f'{name}/', f'{name} unpaired', 'AtoB', 3, 8)


def names_of(folder: Path, style: str) -> set[str]:
  """The names of the pictures of a style. Raises FileNotFoundError."""
  cure = f'; ./launch/get_emoji.sh {folder} renders them, in four minutes'
  try:
    count = json.loads((folder / RECORD).read_text())['pictures'][style]
  except (OSError, ValueError, LookupError, TypeError):
    raise FileNotFoundError(
        f'{folder} has no emoji of launch/get_emoji.sh (no whole {RECORD}){cure}') from None
  names = {file.stem for file in (folder / style).glob('[!.]*.png')}
  if len(names) < count:
    raise FileNotFoundError(f'{folder / style} has {len(names)} of {count} pictures{cure}')
  return names


def in_split(names: Iterable[str], split: str) -> list[str]:
  """The names that belong to a split, in an order that is as good as random, for any few to stand
  for all. Names of one emoji belong together, and every machine splits alike."""
  inside = (name for name in names if split == split_of(name))
  return sorted(inside, key=lambda name: part(name, 'order', whole=2 ** 64))


def split_of(name: str) -> str:
  """'train' for 80 of 100 emoji, else 'validation' or 'test'; by the name of the emoji alone."""
  share = part(emoji_of(name), 'split')
  return next(split for split, below in SHARES.items() if share < below)


def emoji_of(name: str) -> str:
  """The emoji of a name: what is left without `VARIANTS`; '' for those that are nothing else."""
  words = '-'.join(word for word in name.split('-') if word not in VARIANTS)
  return TWINS.get(words, words)


def part(name: str, purpose: str, whole: int = 100) -> int:
  """One of `whole` parts, evenly, by a hash."""
  return int(hashlib.sha256(f'{purpose}:{name}'.encode()).hexdigest()[:16], 16) % whole
