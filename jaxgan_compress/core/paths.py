"""Paths as people write them, and files that are written whole."""

from __future__ import annotations

import os
import uuid
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


def write_atomically(path: str | Path, data: bytes | str, *, sync: bool = True):
  """Writes a file so that a reader, or a run that was killed, finds the old or the new one.

  sync: return only once the disk holds it, which takes milliseconds.
  """
  path = Path(path)
  temporary = path.with_name(f'{path.name}.{uuid.uuid4().hex[:8]}.part')
  try:
    with open(temporary, 'xb') as file:
      file.write(data.encode() if isinstance(data, str) else data)
      if sync:
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)
