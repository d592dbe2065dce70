"""Generates images with ONNX Runtime, without JAX: pip install numpy pillow onnxruntime

`python run_onnx.py --help` describes the input, and so does `input.json` for other programs.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import sys
import time
from pathlib import Path

try:
  import numpy as np
  from PIL import Image
except ImportError as e:
  print(f'run_onnx.py: {e.name} is not installed; pip install numpy pillow onnxruntime',
        file=sys.stderr)
  sys.exit(2)

HERE = Path(__file__).resolve().parent


def main(argv: list[str] | None = None) -> int:
  """Generates what the arguments ask for. An error is told in one line with the exit code 2; where
  some of several files cannot be read, they are named, and the exit code is 1."""
  description = json.loads((HERE / 'input.json').read_text())
  parser = _parser(description)
  args = parser.parse_args(argv)
  try:
    import onnxruntime
    run = _Session(onnxruntime, description['layout'])
    return (_from_latents if description['kind'] == 'latents' else _from_files)(
        args, description, run)
  except ImportError as e:
    parser.error(f'{e.name} is not installed; pip install numpy pillow onnxruntime')
  except OSError as e:
    parser.error(f'{e.filename}: {e.strerror}' if e.filename and e.strerror else str(e))
  except ValueError as e:
    parser.error(str(e))
  return 0


def _parser(description):
  parser = argparse.ArgumentParser('run_onnx.py', description='Generates images with ONNX Runtime.',
                                   allow_abbrev=False)
  add = parser.add_argument
  if description['kind'] == 'latents':
    add('seed', type=int, help='a whole number from 0; each gives another image')
    add('output', type=Path, help='the image file to write')
    return parser
  labels = description['kind'] == 'labels'
  add('input', help="a file, a folder with its subfolders, or a pattern as 'photos/*.jpg'"
      + f'; label maps, grey or palette PNGs of {_labels_of(description)}' * labels)
  add('output', type=Path, help='the folder to write, or for one file also a file')
  add('--size', type=_size, help='resize to 256, or to 256x512 (height x width)')
  add('--max-side', type=int, help='make pictures smaller until no side has more pixels')
  add('--format', help='the format of the files, as png (default: that of the input)')
  add('--quality', type=int, help='of lossy formats, 1 to 100 (default: that of the input)')
  add('--overwrite', action='store_true', help='replace files that are there')
  if not labels:
    add('--colors', default='auto', help='input: grey pictures give grey images; rgb: colour')
  if labels and description.get('classes') is None:
    add('--edges', action=argparse.BooleanOptionalAction, required=True,
        help='whether the last plane of this network is instance edges')
    add('--dont_care', action='store_true', help='the last label is for what has 255 in the file')
  if labels and description.get('edges') is not False:
    add('--instances', type=Path, help='a file, or a folder of files with the names of the label '
        'maps, with a number for each instance (default: edges are between labels)')
  return parser


def _size(text):
  sides = [int(side) for side in text.split('x')]
  if len(sides) > 2 or min(sides) < 1:
    raise ValueError
  return sides[0], sides[-1]


def _labels_of(description):
  if description.get('classes') is None:
    return f'labels below {description["channels"]}'
  return f'labels 0 to {description["classes"] - 1}' + ' and 255 for void' * bool(
      description.get('dont_care'))


class _Session:
  """The network: `run(x) -> images`, of uint8, uint16 or float32 [B,H,W,C] or latents."""

  def __init__(self, onnxruntime, layout):
    self._session = onnxruntime.InferenceSession(str(HERE / 'network.onnx'))
    self._first = layout == 'NCHW'

  def __call__(self, x):
    if x.dtype != np.float32:
      x = x.astype(np.float32) * np.float32(2 / np.iinfo(x.dtype).max) - 1
    swapped = self._first and x.ndim == 4
    x = np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if swapped else x
    try:
      images, = self._session.run(None, {'input': x})
    except Exception as e:  # ONNX Runtime has many, all RuntimeError or its own
      raise ValueError(f'ONNX Runtime cannot run this: {e}') from e
    return images.transpose(0, 2, 3, 1) if self._first else images


def _from_files(args, description, run) -> int:
  """Generates from pictures or label maps by the code that trained networks are applied with."""
  folders = _module('picture_folders')
  takes, instances = folders.takes_of(description), vars(args).get('instances')
  if takes.kind == 'labels' and takes.classes is None:
    takes = dataclasses.replace(takes, edges=args.edges, dont_care=args.dont_care,
                                classes=takes.channels - args.edges - args.dont_care)
  if instances and not takes.edges:
    raise ValueError(f'{instances}: this network takes no instances')
  options = folders.Options(args.size, args.max_side, args.format, args.quality,
                            vars(args).get('colors', 'auto'))
  options.check()
  start = time.perf_counter()
  reader, left_out = folders.Reader(takes, options, instances), []
  files = folders.find(args.input, args.output, left_out=left_out)
  folders.check_output(args.input, args.output)
  jobs = folders.plan(files, args.output, options, takes)
  reader.check(jobs)
  folder = args.output if jobs[0].target != args.output else args.output.parent
  folder.mkdir(parents=True, exist_ok=True)
  record = folders.Record(folder, folders.key_of(description, dataclasses.asdict(options)),
                          reader.inputs)
  jobs, skipped = record.split(jobs, args.overwrite)
  sizes, failures = folders.by_size(jobs, reader)
  failures += folders.process(sizes, reader, run, record, left_out=left_out)
  if failures and Path(args.input).is_file():
    raise ValueError(failures[0].reason)
  seconds = time.perf_counter() - start
  print(f'{args.output}: {len(jobs) - len(failures)} images in {seconds:.1f} s'
        + f', {skipped} skipped that were done before' * bool(skipped)
        + f'; other files left out: {len(left_out)}' * bool(left_out))
  for failure in failures:
    print(f'{failure.source}: {failure.reason}', file=sys.stderr)
  return 1 if failures else 0


def _module(name):
  """A module next to this file, by which trained networks are applied to files, too."""
  sys.path.insert(0, str(HERE))
  try:
    return importlib.import_module(name)
  finally:
    sys.path.remove(str(HERE))


def _from_latents(args, description, run) -> int:
  if args.seed < 0:
    raise ValueError(f'seed {args.seed}; a whole number from 0')
  if Image.registered_extensions().get(args.output.suffix.lower()) not in Image.SAVE:
    raise ValueError(f'{args.output} has no suffix of an image that can be written; use .png')
  if not args.output.parent.is_dir():
    raise ValueError(f'there is no folder {args.output.parent}')
  z = np.random.default_rng(args.seed).standard_normal((1, description['channels']), np.float32)
  pixels = np.rint((run(z)[0] + 1) * 127.5).clip(0, 255).astype(np.uint8)
  Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(args.output)
  return 0


if __name__ == '__main__':
  sys.exit(main())
