"""Runs a generator with ONNX Runtime, without JAX: pip install numpy pillow onnxruntime

`python run_onnx.py --help` describes the input, and so does `input.json` for other programs.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
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
  """Generates what the arguments ask for; an error is told in one line, and the exit code is 2."""
  takes = json.loads((HERE / 'input.json').read_text())
  parser = _parser(takes)
  args = parser.parse_args(argv)
  try:
    import onnxruntime
    _check_output(args)
    x = {'latents': _latents, 'pictures': _picture, 'labels': _labels}[takes['kind']](args, takes)
    session = onnxruntime.InferenceSession(str(HERE / 'network.onnx'))
    _save(_generate(session, x, takes['layout']), args.output)
  except ImportError as e:
    parser.error(f'{e.name} is not installed; pip install numpy pillow onnxruntime')
  except OSError as e:
    parser.error(f'{e.filename}: {e.strerror}' if e.filename and e.strerror else str(e))
  except ValueError as e:
    parser.error(str(e))
  return 0


def _parser(takes):
  parser = argparse.ArgumentParser('run_onnx.py', description='Generates images with ONNX Runtime.',
                                   allow_abbrev=False)
  if takes['kind'] == 'latents':
    parser.add_argument('seed', type=int, help='a whole number from 0; each gives another image')
  elif takes['kind'] == 'pictures':
    parser.add_argument('picture', type=Path, help=f'an image file, {_sizes(takes)}')
  else:
    parser.add_argument('labels', type=Path, help='a grey or palette PNG that holds the label of '
                        f'each pixel, {_labels_of(takes)}, {_sizes(takes)}')
  parser.add_argument('output', type=Path, help='the image file to write')
  if takes['kind'] == 'labels' and takes['classes'] is None:
    parser.add_argument('--edges', action=argparse.BooleanOptionalAction, required=True,
                        help='whether the last plane of this network is instance edges')
    parser.add_argument('--dont_care', action='store_true',
                        help='the last label is for what has 255 in the file')
  if takes['kind'] == 'labels' and takes['edges'] is not False:
    parser.add_argument('--instances', type=Path, help='a file of the same size with a number for '
                        'each instance (default: edges are between labels)')
  return parser


def _sizes(takes):
  return (f'heights and widths that are multiples of {takes["multiple"]} from {takes["smallest"]} '
          f'(it was shown {takes["shown"][0]}x{takes["shown"][1]})')


def _labels_of(takes):
  if takes['classes'] is None:
    return f'below {takes["channels"]}'
  return f'0 to {takes["classes"] - 1}' + (', or 255 for void' if takes['dont_care'] else '')


def _check_output(args):
  if Image.registered_extensions().get(args.output.suffix.lower()) not in Image.SAVE:
    raise ValueError(f'{args.output} has no suffix of an image that can be written; use .png')
  if not args.output.parent.is_dir():
    raise ValueError(f'there is no folder {args.output.parent}')
  for name in ('picture', 'labels', 'instances'):
    source = vars(args).get(name)
    if source and source.exists() and args.output.exists() and source.samefile(args.output):
      raise ValueError(f'{args.output} would be overwritten by the output; give it another name')


def _latents(args, takes):
  if args.seed < 0:
    raise ValueError(f'seed {args.seed}; a whole number from 0')
  return np.random.default_rng(args.seed).standard_normal((1, takes['channels']), np.float32)


def _reading():
  """The module with which training reads files; a copy of it lies next to this file."""
  spec = importlib.util.spec_from_file_location('images', HERE / 'images.py')
  assert spec and spec.loader
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def _picture(args, takes):
  pixels = _reading().decode_image(args.picture.read_bytes(), takes['channels'],
                             name=str(args.picture))
  _check_size(pixels, args.picture, takes)
  return pixels[None].astype(np.float32) / 127.5 - 1


def _labels(args, takes):
  images = _reading()
  edges, dont_care = (vars(args).get(name, takes[name]) for name in ('edges', 'dont_care'))
  read = lambda file: images.decode_labels(file.read_bytes(), name=str(file))
  labels, instances = read(args.labels), vars(args).get('instances')
  if instances and not edges:
    raise ValueError(f'{instances}: this network takes no instances')
  _check_size(labels, args.labels, takes)
  return images.label_planes(
      labels, instances and read(instances), classes=takes['channels'] - edges - dont_care,
      dont_care=dont_care, edges=edges, name=str(args.labels))[None]


def _check_size(x, file, takes):
  step, least = takes['multiple'], takes['smallest']
  if any(side % step or side < least for side in x.shape[:2]):
    best = [max(-(-least // step), round(side / step)) * step for side in x.shape[:2]]
    raise ValueError(f'{file} has {x.shape[0]}x{x.shape[1]} pixels, and the network takes '
                     f'{_sizes(takes)}; resize or crop it, to {best[0]}x{best[1]} for example')


def _generate(session, x, layout):
  """float32 [1,H,W,C] or [1,latent] -> the image [h,w,c] in [-1, 1]."""
  swapped = layout == 'NCHW'
  x = np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if swapped and x.ndim == 4 else x
  try:
    image, = session.run(None, {'input': x})
  except Exception as e:  # ONNX Runtime has many, all RuntimeError or its own
    raise ValueError(f'ONNX Runtime cannot run this: {e}') from e
  return image[0].transpose(1, 2, 0) if swapped else image[0]


def _save(image, file):
  pixels = np.round((image + 1) * 127.5).clip(0, 255).astype(np.uint8)
  Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file)


if __name__ == '__main__':
  sys.exit(main())
