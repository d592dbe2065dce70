"""Work directories in a bucket, with a stand-in for the program that mounts it."""

import fcntl
import json
import threading
from pathlib import Path

import pytest

from jaxgan_compress import config, distributed
from jaxgan_compress.experiment.workdir import open_run

# Notes its arguments; a folder counts as mounted with a file of this name in it.
GCSFUSE = '''#!/bin/sh
echo "$@" >> {notes}
[ "$3" != stolen ] || {{ echo "noise"; echo "permission denied" >&2; exit 1; }}
touch "$4/.mounted"
'''


@pytest.fixture
def notes(tmp_path, monkeypatch):
  program, notes = tmp_path / 'bin' / 'gcsfuse', tmp_path / 'notes'
  program.parent.mkdir()
  program.write_text(GCSFUSE.format(notes=notes))
  program.chmod(0o755)
  monkeypatch.setenv('PATH', f'{program.parent}:/usr/bin:/bin')
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  monkeypatch.setattr(Path, 'is_mount', lambda self: (self / '.mounted').exists())
  return notes


def test_a_bucket_is_mounted_once_and_a_run_in_it_opened(notes, tmp_path):
  where = tmp_path / 'cache/jaxgan_compress/buckets/mine'
  assert distributed.folder('gs://mine/runs/zebra') == where / 'runs/zebra'
  assert distributed.folder('gs://mine/runs/horse/') == where / 'runs/horse'
  assert notes.read_text() == f'--implicit-dirs --rename-dir-limit=100000 mine {where}\n'
  asked = config.load('kd/digits:smoke')
  (where / 'runs/zebra').mkdir(parents=True)
  (where / 'runs/zebra/config.json').write_text(json.dumps(config.to_json(asked)))
  assert open_run('gs://mine/runs/zebra').workdir == where / 'runs/zebra'


@pytest.mark.parametrize('path', ['runs/zebra', '/data/a:b/c', 'a:b', 'C:/runs'])
def test_folders_stay_what_they_are(path):
  assert distributed.folder(path) == Path(path)


@pytest.mark.parametrize('path, match', [
    ('gs://mine', 'give gs://mine/RUN'), ('gs://', 'give gs://BUCKET/RUN'),
    ('s3://mine/runs', 'only gs:// addresses are known'),
    ('gs://stolen/runs', 'gs://stolen cannot be mounted: permission denied')])
def test_what_cannot_be_mounted_is_refused(notes, path, match):
  with pytest.raises(ValueError, match=match):
    distributed.folder(path)


def test_without_the_program_it_is_named(notes, monkeypatch, tmp_path):
  monkeypatch.setenv('PATH', str(tmp_path))
  with pytest.raises(ValueError, match='gcsfuse, which is not installed'):
    distributed.folder('gs://mine/runs')


def test_a_bucket_that_is_no_longer_mounted_is_mounted_again(notes, tmp_path):
  distributed.folder('gs://mine/runs')
  (tmp_path / 'cache/jaxgan_compress/buckets/mine/.mounted').unlink()  # as after a restart
  distributed.folder('gs://mine/runs')
  assert len(notes.read_text().splitlines()) == 2


def test_processes_of_a_host_mount_one_after_the_other(notes, tmp_path):
  lock = tmp_path / 'cache/jaxgan_compress/buckets/.mine.lock'
  lock.parent.mkdir(parents=True)
  second = threading.Thread(target=distributed.folder, args=('gs://mine/runs',))
  with open(lock, 'w') as first:
    fcntl.flock(first, fcntl.LOCK_EX)
    second.start()
    second.join(.5)
    assert second.is_alive() and not notes.exists()
  second.join(30)
  assert notes.exists()
