"""Renders the emoji of `samples:emoji` as PNG; see get_emoji.sh, which starts this.

    python launch/get_emoji.py [FOLDER] [TARBALL]

Needs resvg-py, Pillow and, without a tarball, npm; nothing of jaxgan_compress.
"""

import argparse
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

PACKAGE = 'fluentui-emoji@1.3.0'
SHA256 = 'ec892e607e854859b812c7d827801756adc19955b0ef56d4ae8afcddd19492c5'
STYLES = {'high-contrast': 'mono', 'flat': 'flat', 'modern': 'shaded'}  # the package's words, ours
SIZE = 256
RECORD = 'emoji.json'  # in the folder: what it holds, whether or not all is rendered
FETCHED = '.fetched.tgz'  # in the folder until all is rendered


class FetchError(Exception):
  """Something that the user has to put right."""


def default() -> Path:
  """Where `samples:emoji` looks; as `core.paths.cache_folder`."""
  home = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
  return Path(home, 'jaxgan_compress', 'emoji')


def get(folder, tarball=None, *, render=None, sha256=SHA256, size=SIZE, say=print):
  """Fills the folder with `STYLE/NAME.png`; what is there already stays as it is.

  render: (SVG text, pixels) -> bytes of a square PNG on white; default: by resvg-py. Raises
  FetchError.
  """
  folder = Path(folder).expanduser()
  record = {'package': PACKAGE, 'sha256': sha256, 'size': size}
  there = _look(folder, record)
  if there and there.get('pictures') == {style: len(_rendered(folder / style))
                                         for style in STYLES.values()}:
    say(f'{folder} has all {sum(there["pictures"].values())} pictures; nothing is left to do')
    return
  given = _checked(Path(tarball).expanduser(), sha256) if tarball else None
  render = render or _resvg()
  folder.mkdir(parents=True, exist_ok=True)
  for unfinished in folder.glob('.fetching*'):
    shutil.rmtree(unfinished)
  with tempfile.TemporaryDirectory(prefix='.fetching', dir=folder) as fetched:
    tarball = given or _fetch(folder, Path(fetched), sha256, say)
  with tarfile.open(tarball) as package:
    svg_files, licence = _svg_files(package)
    pictures = {style: sum(of == style for of, _ in svg_files) for style in STYLES.values()}
    _write(folder / RECORD, json.dumps({**record, 'pictures': pictures}, indent=1).encode())
    _write(folder / 'LICENSE', licence)
    _render_all(folder, package, svg_files, render, size, say)
  (folder / FETCHED).unlink(missing_ok=True)
  say(f'{folder}: ' + ', '.join(f'{count} {style}' for style, count in pictures.items()))


def _look(folder, record):
  """What the record of the folder says, or None where there is none. Raises FetchError for a folder
  of something else, which stays as it is."""
  if not folder.exists():
    return None
  if not folder.is_dir():
    raise FetchError(f'{folder} is a file; give a folder')
  # A killed call leaves hidden parts.
  others = [each.name for each in folder.iterdir()
            if not each.name.startswith('.fetch') and each.suffix != '.part']
  if RECORD not in others:
    if others:
      raise FetchError(f'{folder} holds other things ({", ".join(sorted(others)[:3])}) and no '
                       f'{RECORD}; nothing was changed. Give a new or empty folder')
    return None
  try:
    there = json.loads((folder / RECORD).read_text())
    same = {key: there.get(key) for key in record} == record
  except (ValueError, AttributeError):
    same = False
  if not same:
    raise FetchError(f'{folder / RECORD} is not of {record["package"]} at {record["size"]} pixels; '
                     'nothing was changed. Give another folder, or remove this one')
  return there


def _resvg():
  try:
    import resvg_py
    from PIL import Image
  except ImportError as e:
    raise FetchError(
        f'{sys.executable} has no {e.name}; resvg-py renders SVG files, and Pillow writes them: '
        f"{sys.executable} -m pip install 'resvg-py>=0.5,<1' pillow  (or the extra: pip install -e "
        "'.[emoji]'), or name another interpreter in JAXGAN_PYTHON") from None

  def render(svg, size):
    png = resvg_py.svg_to_bytes(svg_string=square(svg, size), background='white',
                                skip_system_fonts=True)
    rgb = io.BytesIO()  # without the alpha that white has filled, it is read twice as fast
    Image.open(io.BytesIO(png)).convert('RGB').save(rgb, 'PNG', compress_level=3)
    return rgb.getvalue()

  return render


def square(svg, size):
  """The SVG as a square of so many pixels; a few pictures have 32x33 units and are centred."""
  return svg.replace('<svg ', f'<svg width="{size}" height="{size}" ', 1)


def _tarball_name():
  return PACKAGE.replace('@', '-') + '.tgz'


def _fetch(folder, fetched, sha256, say):
  """The package's tarball from npm, kept in the folder until all is rendered."""
  kept = folder / FETCHED
  if kept.is_file() and _digest(kept) == sha256:
    return kept
  name = _tarball_name()
  npm = shutil.which('npm')
  if npm is None:
    raise FetchError(
        f'npm was not found, which fetches {PACKAGE}; install it (on Debian: apt-get install npm), '
        f'or fetch https://registry.npmjs.org/fluentui-emoji/-/{name} and give it: get_emoji.sh '
        f'{folder} {name}')
  say(f'Fetching {PACKAGE} (24 MB) ...')
  done = subprocess.run([npm, 'pack', PACKAGE, '--silent'], cwd=fetched, text=True,
                        capture_output=True, check=False)
  if done.returncode or not (fetched / name).is_file():
    raise FetchError(f'npm pack {PACKAGE} failed: {(done.stderr or done.stdout).strip()[-500:]}\n'
                     'It needs a network that reaches the registry of npm; run this again to go on')
  os.replace(_checked(fetched / name, sha256), kept)
  return kept


def _checked(tarball, sha256):
  if not tarball.is_file():
    raise FetchError(f'there is no file {tarball}')
  found = _digest(tarball)
  if found != sha256:
    raise FetchError(f'{tarball} is not {PACKAGE}: its SHA-256 is {found}, and {sha256} is '
                     'expected; fetch it again')
  return tarball


def _digest(file):
  with open(file, 'rb') as content:
    return hashlib.file_digest(content, 'sha256').hexdigest()


def _svg_files(package):
  """({(style, name): member} of the SVG files, the licence) of an open tarball."""
  svg_files, licence = {}, b''
  for member in package:
    *_, kind, file = '', *Path(member.name).parts
    if member.isfile() and file.endswith('.svg') and kind in STYLES:
      svg_files[STYLES[kind], file.removesuffix('.svg')] = member
    elif member.isfile() and file == 'LICENSE':
      licence = package.extractfile(member).read()
  return svg_files, licence


def _render_all(folder, package, svg_files, render, size, say):
  there = {(style, name) for style in STYLES.values() for name in _rendered(folder / style)}
  left = [svg_file for svg_file in svg_files if svg_file not in there]
  say(f'Rendering {len(left)} pictures of {size}x{size}'
      + (f'; {len(there)} are there' if there else '') + ' ...')
  start = told = time.monotonic()
  for i, (style, name) in enumerate(left):
    (folder / style).mkdir(exist_ok=True)
    svg = package.extractfile(svg_files[style, name]).read().decode()
    try:
      png = render(svg, size)
    except ValueError as e:
      raise FetchError(f'{style}/{name}.svg cannot be rendered: {e}') from e
    _write(folder / style / f'{name}.png', png)
    now = time.monotonic()
    if now - told > 10:
      told, rest = now, (now - start) / (i + 1) * (len(left) - i - 1)
      say(f'  {i + 1} of {len(left)}, {rest:.0f} s left')


def _rendered(folder):
  """The names of the pictures in a folder."""
  return {file.stem for file in folder.glob('[!.]*.png')}


def _write(path, content):
  """The file whole, or not at all."""
  part = path.with_name(f'.{path.name}.{os.getpid()}.part')
  part.write_bytes(content)
  os.replace(part, path)


def main(argv=None):
  parser = argparse.ArgumentParser(prog='get_emoji.sh', description=__doc__.split(';')[0])
  parser.add_argument('folder', nargs='?', default=default(),
                      help='where the pictures go; default: %(default)s, where samples:emoji looks')
  parser.add_argument('tarball', nargs='?', help=f'{_tarball_name()}; default: npm fetches it')
  flags = parser.parse_args(argv)
  try:
    get(flags.folder, flags.tarball, say=lambda text: print(text, flush=True))
  except (FetchError, OSError) as e:
    sys.exit(f'get_emoji.sh: {e}')
  except KeyboardInterrupt:
    sys.exit('get_emoji.sh: interrupted; run it again to go on')


if __name__ == '__main__':
  main()
