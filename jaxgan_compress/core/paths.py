"""Paths as people write them."""

from __future__ import annotations

import os
from pathlib import Path


def expand(path: str | Path) -> Path:
  """The path, with `~` and `~user` at its start as the home folders that they are in a shell.

  A shell expands neither within `--workdir=~/run`. './~' is a folder of that name. Raises
  ValueError for a user that is not there, whose name would become a folder.
  """
  text, found = os.fspath(path), Path(path)
  if not text.startswith('~'):
    # Path('./~') is '~', which the next to expand it would not know from a home.
    return found.absolute() if str(found).startswith('~') else found
  try:
    return found.expanduser()
  except RuntimeError:
    user = found.parts[0]
    raise ValueError(f'{text}: there is no user {user[1:]!r} here; write ./{user} for a folder of '
                     'that name') from None
