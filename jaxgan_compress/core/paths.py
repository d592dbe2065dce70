"""Paths as people write them, and files that are whole."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def expand(path: str | Path) -> Path:
  """The path, with `~` and `~user` at its start as the home folders that they are in a shell.

  A shell expands neither within `--workdir=~/run`. './~' is a folder of that name. Raises
  ValueError for a user that is not there, whose name would become a folder.
  """
  text, path = os.fspath(path), Path(path)
  if not text.startswith('~'):
    # Path('./~') is '~', which the next to expand it would not know from a home.
    return path.absolute() if str(path).startswith('~') else path
  try:
    return path.expanduser()
  except RuntimeError:
    user = path.parts[0]
    raise ValueError(f'{text}: there is no user {user[1:]!r} here; write ./{user} for a folder of '
                     'that name') from None


def cache_folder(*parts: str) -> Path:
  """This package's folder below `$XDG_CACHE_HOME`, or `~/.cache` where that is unset or empty."""
  home = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
  return Path(home, 'jaxgan_compress', *parts)


def write_atomically(path: str | Path, data: bytes | str):
  """Writes a file so that a reader, or a process that is killed, finds the old or the new one.

  The data goes to a file next to it, is synchronized with the disk, and then takes the name; text
  is UTF-8. Raises OSError, which names the file, where it cannot be written: the old file stays.
  """
  path = expand(path)
  part = path.with_name(f'{path.name}.{uuid.uuid4().hex[:8]}.part')
  try:
    with open(part, 'xb') as file:
      file.write(data.encode() if isinstance(data, str) else data)
      file.flush()
      os.fsync(file.fileno())
    os.replace(part, path)
  except OSError as e:
    raise OSError(e.errno, f'cannot be written ({e.strerror or e})', str(path)) from e
  finally:
    part.unlink(missing_ok=True)
