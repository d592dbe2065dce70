"""The command `jaxgan-compress`, whose verbs are thin functions around those of the library.

    jaxgan-compress train --config=configs/kd/digits.py --config.seed=1 --workdir=runs/digits
    jaxgan-compress evaluate --workdir=runs/digits --checkpoint=last
    jaxgan-compress report runs/seeds/* --output=comparison.html
    jaxgan-compress generate --workdir=runs/cat --input=photographs --output=generated
    jaxgan-compress compile --config=cat/maps --stage=teacher --target=tpu:v5e:2x2
    jaxgan-compress info --network=mobile_resnet:ngf=16 --size=256
    jaxgan-compress convert --input=latest_net_G.pth --output=G.safetensors
    jaxgan-compress prune --network=G.safetensors --size=256 --budget=2.6e9 --output=S.safetensors
    jaxgan-compress profile-latency --workdir=runs/cat --backend=onnx --output=latency.json
    jaxgan-compress prune --workdir=runs/cat --unit=ms --table=latency.json --budget=2.5
    jaxgan-compress export --workdir=runs/cat --to=stablehlo,onnx --int8
    jaxgan-compress fid generated/ photographs/ --weights=inception.safetensors
"""

from __future__ import annotations

import errno
import re
import sys
import traceback
from pathlib import Path

import jax
from absl import flags as absl_flags

from jaxgan_compress import __version__, config, distributed
from jaxgan_compress.cli import generation, images, models, output, runs
from jaxgan_compress.cli.flags import VERBS, Verb
from jaxgan_compress.experiment import Interrupted
from jaxgan_compress.train import CheckpointError, TermError

MODULES = (runs, generation, models, images)  # whose verbs register themselves
WRONG_PATHS = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError,
               PermissionError)


def main(argv: list[str] | None = None) -> int:
  """Runs one verb; returns the exit code: 0 done, 2 bad input, 1 failed, 75, 129 or 130
  stopped, and of several processes 70: a peer or the runtime failed."""
  argv = list(sys.argv[1:] if argv is None else argv)
  if not argv or argv[0] in ('-h', '--help', 'help'):
    print(_usage())
    return 0
  if argv[0] == '--version':
    print(f'jaxgan-compress {__version__}')
    return 0
  verb = VERBS.get(argv[0])
  if verb is None:
    return _fail(f'no verb {argv[0]!r}; {config.suggest(argv[0], VERBS)}')
  if {'-h', '-help', '--help'} & set(argv):
    print(verb.describe())
    return 0
  output.plain_warnings()
  # Networks of the user's own stand in this folder, for the installed command as for `python -m`.
  sys.path.append(str(Path.cwd()))
  try:
    code = _run(verb, argv[1:])
  except Exception:
    if not jax.distributed.is_initialized():
      raise
    traceback.print_exc()
    code = distributed.FAILED
  return distributed.finish(code)


def _run(verb: Verb, argv: list[str]) -> int:
  """Runs a verb; returns the exit code. Raises what is no mistake of the user's."""
  try:
    if verb.several_processes:
      distributed.initialize()  # before anything touches a device
    flags = verb.parse(argv)
    models.allow_class(flags)
    return verb.body(flags) or 0
  except (absl_flags.Error, ValueError, ImportError, *WRONG_PATHS) as e:
    if distributed.from_runtime(e):
      raise
    return _fail(e)
  except generation.PicturesError as e:
    return _fail(e, 1)
  except KeyboardInterrupt:
    print('\ninterrupted', file=sys.stderr)
    return 130
  except Interrupted as e:
    print(f'\n{e}', file=sys.stderr)
    return e.exit_code
  except Exception as e:
    if isinstance(e, MemoryError) or 'RESOURCE_EXHAUSTED' in str(e):
      if jax.distributed.is_initialized():
        raise
      return _fail('there is not enough memory; take a smaller batch, size or network '
                   f'({str(e).strip()[:200] or "MemoryError"})', 1)
    if isinstance(e, OSError) and e.errno in (errno.ENAMETOOLONG, errno.ELOOP):
      return _fail(e)
    if isinstance(e, CheckpointError | TermError | OSError):
      return _fail(e, 1)
    raise


def _fail(e: Exception | str, code: int = 2) -> int:
  """Prints what went wrong in the words of a user; returns the exit code."""
  text = str(e).strip()
  if isinstance(e, OSError) and e.strerror and e.filename is not None:
    text = f'{e.filename}: {e.strerror[:1].lower()}{e.strerror[1:]}; give another path'
  elif 'embedded null' in text:
    text = 'a path holds the character 0; give another'
  elif isinstance(e, UnicodeError):
    text = f'a text is not UTF-8: {text}; give another file, or write it anew'
  text = re.sub(r'\S{300,}', lambda word: f'{word[0][:100]}...{word[0][-10:]}', text)
  print(f'jaxgan-compress: {text}', file=sys.stderr)
  return code


def _usage() -> str:
  """The verbs under the titles of their modules, and examples."""
  blocks = ['jaxgan-compress VERB [flags]']
  for module in MODULES:
    verbs = [verb for verb in VERBS.values() if verb.body.__module__ == module.__name__]
    blocks.append('\n'.join((module.__doc__ or '', *(
        f'  {verb.name:16} {verb.summary}' for verb in verbs))))
  examples = (__doc__ or '').partition('\n\n')[2].rstrip()
  return '\n\n'.join((*blocks, f'Examples:\n{examples}',
                      'jaxgan-compress VERB --help describes the flags of one verb.'))


if __name__ == '__main__':
  sys.exit(main())
