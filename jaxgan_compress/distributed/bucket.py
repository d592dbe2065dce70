"""Work directories in a bucket."""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

from jaxgan_compress.core import paths


def folder(path: str | Path) -> Path:
  """The folder on this host for `path`; for 'gs://bucket/run' it lies where the bucket is mounted.

  Cloud Storage FUSE (`gcsfuse`) mounts a bucket once on each host, in
  `~/.cache/jaxgan_compress/buckets` (or below $XDG_CACHE_HOME), where it stays mounted. Everything
  that writes to a run thus writes to files, and all hosts see the same.

  Raises ValueError for a bucket alone, an address of another kind, or if the bucket cannot be
  mounted.
  """
  scheme, colon, rest = os.fspath(path).partition(':')
  # Path('gs://bucket/run') is 'gs:/bucket/run': a relative folder that nobody wanted.
  if not colon or not rest.startswith('/') or len(scheme) < 2 or not scheme.isalnum():
    return paths.expand(path)
  bucket, _, inside = rest.lstrip('/').partition('/')
  if scheme != 'gs':
    raise ValueError(f'{path}: only gs:// addresses are known; mount that storage on every host '
                     'and give the folder')
  if not bucket or not inside.strip('/'):
    raise ValueError(f'{path} is a bucket and no folder in it; give gs://{bucket or "BUCKET"}/RUN')
  mounted = paths.cache_folder('buckets', bucket)
  mounted.parent.mkdir(parents=True, exist_ok=True)
  with open(mounted.with_name(f'.{bucket}.lock'), 'w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)  # the processes of a host come here at once
    if not mounted.is_mount():
      _mount(bucket, mounted)
  return mounted / inside


def _mount(bucket, where):
  program = shutil.which('gcsfuse')
  if program is None:
    raise ValueError(f'gs://{bucket} is mounted by gcsfuse, which is not installed here; see '
                     'https://cloud.google.com/storage/docs/gcsfuse-install, or mount it yourself '
                     'and give the folder')
  where.mkdir(exist_ok=True)
  # Orbax renames whole folders when a checkpoint is complete.
  done = subprocess.run([program, '--implicit-dirs', '--rename-dir-limit=100000', bucket, where],
                        capture_output=True, text=True, check=False)
  if done.returncode or not where.is_mount():
    last = (done.stderr or done.stdout).strip().splitlines()[-1:]
    raise ValueError(f'gs://{bucket} cannot be mounted: {"".join(last) or "gcsfuse failed"}')
