"""The command `jaxgan-compress`: thin verbs around functions of the same power. The only flags.

    jaxgan-compress train --config=configs/kd/digits.py --workdir=runs/digits
    jaxgan-compress train --config=configs/kd/digits.py:smoke --config.seed=1 --workdir=runs/smoke
    jaxgan-compress evaluate --workdir=runs/digits --checkpoint=last
    jaxgan-compress report --workdir=runs/digits
    jaxgan-compress info --config=configs/kd/digits.py
    jaxgan-compress info --network=mobile_resnet:ngf=16 --size=256
    jaxgan-compress convert --in=latest_net_G.pth --out=G.safetensors
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import json
import logging
import os
import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags
from rich.console import Console
from rich.table import Table

from jaxgan_compress import config as configs


def main(argv: list[str] | None = None) -> int:
  """Runs one verb; returns the exit code: 0 done, 2 bad input, 1 failed, 75 or 130 stopped."""
  argv = list(sys.argv[1:] if argv is None else argv)
  if not argv or argv[0] in ('-h', '--help', 'help'):
    print(_usage())
    return 0
  if argv[0] == '--version':
    from jaxgan_compress import __version__
    print(f'jaxgan-compress {__version__}')
    return 0
  verb = VERBS.get(argv[0])
  if verb is None:
    return _fail(f'no verb {argv[0]!r}; {configs.suggest(argv[0], VERBS)}')
  logging.getLogger('absl').setLevel(logging.ERROR)  # Orbax and grain talk to their developers
  try:
    return verb(argv[0], argv[1:])
  except _Help as e:
    print(e)
    return 0
  except (flags.Error, ValueError, FileNotFoundError, FileExistsError, IsADirectoryError,
          ImportError) as e:
    return _fail(e)
  except KeyboardInterrupt:
    print('\ninterrupted', file=sys.stderr)
    return 130
  except Exception as e:
    from jaxgan_compress.experiment import Interrupted
    from jaxgan_compress.train import CheckpointError, TermError
    if isinstance(e, Interrupted):
      print(f'\n{e}', file=sys.stderr)
      return e.exit_code
    if isinstance(e, CheckpointError | TermError | OSError):
      return _fail(e, 1)
    raise


def train(verb: str, argv: list[str]) -> int:
  """Train every stage of a config, measure it, write report.html."""
  values = _flags(verb, argv, config=True, workdir=True)
  from jaxgan_compress import experiment
  experiment.run(values.config, values.workdir)
  print(f'report: {Path(values.workdir).absolute() / "report.html"}')
  return 0


def evaluate(verb: str, argv: list[str]) -> int:
  """Measure the generators of a finished run again, and print a table."""
  values = _flags(verb, argv, workdir=True, evaluate=True)
  from jaxgan_compress import experiment
  found = experiment.evaluate(values.workdir, values.checkpoint, values.count)
  if values.json:
    print(json.dumps({name: {key: m.to_dict() for key, m in measures.items()}
                      for name, measures in found.items()}, indent=1))
    return 0
  keys = ('fd', 'is', 'vol', 'mse', 'psnr', 'mse_on_paths')
  _print_table(('generator', *keys), [
      (name, *(f'{measures[key].value:.4g}' if key in measures else '' for key in keys))
      for name, measures in found.items()])
  protocol = found['real']['is'].protocol
  print(f'{values.checkpoint} checkpoint; ' + ', '.join(f'{k} {v}' for k, v in protocol.items()))
  return 0


def report(verb: str, argv: list[str]) -> int:
  """Write report.html of a finished run again."""
  values = _flags(verb, argv, workdir=True)
  from jaxgan_compress import experiment
  run = experiment.open_run(values.workdir)
  print(f'report: {run.report(run.results()).absolute()}')
  return 0


def info(verb: str, argv: list[str]) -> int:
  """What a config's networks or one network cost; without either, versions and devices."""
  values = _flags(verb, argv, config=None, info=True)
  from clu import parameter_overview

  from jaxgan_compress import experiment
  from jaxgan_compress.train import records
  if values.network and values.config is not None:
    raise ValueError('info takes --network or --config; give one')
  if values.network:
    return _network_info(values)
  if values.config is None:
    print(json.dumps(records.environment(), indent=1))
  else:
    _print_table(('stage', 'role', 'network', 'parameters', 'by the paper', 'MACs'), [
        (row['stage'], row['role'], row['network'], f'{row["params"]:,}',
         f'{row["params_paper"]:,}', f'{row["macs"]:,}')
        for row in experiment.describe(values.config)])
    if values.layers:
      for row in experiment.describe(values.config):
        print(f'\n{row["stage"]}: {row["role"]}')
        print(parameter_overview.get_parameter_overview(
            row['variables']['params'], include_stats=False))
  return 0


def _network_info(values) -> int:
  """A table of one network's layers, and what they come to."""
  from jaxgan_compress import analysis, nn
  from jaxgan_compress.nn import storage
  module = nn.load(values.network)[0] if Path(values.network).is_file() else \
      build_network(values.network)
  shape = _input_shape(module, values.size)
  layers = analysis.layers(module, shape)
  totals = {convention: sum(layer.macs[convention] for layer in layers)
            for convention in ('exact', 'torchprofile', 'cat')}
  total = {'network': storage.spell(module), 'input': list(shape),
           'params': sum(layer.params for layer in layers), 'macs': totals,
           'activation_bytes': analysis.activation_bytes(module, shape)}
  if values.latency:
    timings = analysis.network_latency(module, shape, sorted({1, values.batch}))
    total['latency'] = {str(batch): timing._asdict() for batch, timing in timings.items()}
  if values.json:
    print(json.dumps({**total, 'layers': [dataclasses.asdict(layer) for layer in layers]},
                     indent=1))
    return 0
  _print_table(('layer', 'kind', 'output', 'parameters', 'MACs', 'MACs by torchprofile', 'KiB'), [
      (layer.path, layer.kind, 'x'.join(map(str, layer.shape[1:])), f'{layer.params:,}',
       f'{layer.macs["exact"]:,}', f'{layer.macs["torchprofile"]:,}',
       f'{layer.bytes / 1024:,.0f}') for layer in layers])
  print(f'\n{total["network"]}\n'
        f'input {"x".join(map(str, shape))}: {total["params"]:,} parameters; '
        f'{totals["exact"]:,} MACs, {totals["torchprofile"]:,} as torchprofile counts, '
        f'{totals["cat"]:,} as CAT counts; about {total["activation_bytes"] / 2 ** 20:,.1f} MiB of '
        'activations at once')
  for batch, timing in total.get('latency', {}).items():
    print(f'batch {batch}: {1e3 * timing["median"]:.2f} ms median, {1e3 * timing["p95"]:.2f} ms '
          f'95th percentile of {timing["rounds"]} calls, '
          f'{int(batch) / timing["median"]:,.1f} images/s')
  return 0


def convert(verb: str, argv: list[str]) -> int:
  """Make a network's weights of PyTorch ours, or ours PyTorch's, and say what they are."""
  values = _flags(verb, argv, convert=True)
  from jaxgan_compress import analysis, files, nn
  from jaxgan_compress import convert as converter
  source, out = values['in'].value, Path(values.out)
  if out.suffix != '.safetensors':
    raise ValueError(f'--out={out}: what is written is safetensors; end the name in .safetensors')
  if out.exists() and not values.overwrite:
    raise FileExistsError(f'{out} exists; give another name, or --overwrite')
  if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
    raise ValueError(f'--out={out}: the folder {out.parent} is not there or not writable')
  hints = {}
  if nn.storage.is_network(source):
    if values.hint or values.prefix or values.part:
      raise ValueError(f'{source} is a network of this library and says all of itself; leave out '
                       '--hint, --prefix and --part')
    module, variables = nn.load(source)
  else:
    hints = dict(_assignment(hint, '--hint') for hint in values.hint)
    module, variables = converter.from_torch(converter.load(source, values.part or None),
                                             prefix=values.prefix, **hints)
  unused = variables.get('unused', {})
  print(f'{source}: {nn.storage.spell(module)}\n'
        f'{analysis.count_params(variables):,} parameters'
        + (f'; kept and unused: {", ".join(unused)}' if unused else ''))
  guessed = [f'{name}={getattr(module, name)!r}' for name in converter.torch.assumed(module)
             if name not in hints]
  if guessed and not nn.storage.is_network(source):
    print(f'assumed, since keys cannot tell: {", ".join(guessed)}; change with --hint')
  if values.to == 'torch':
    files.write(out, converter.to_torch(module, variables), {'format': 'pt'},
                overwrite=values.overwrite)
    print(f'{out}: a state dict for PyTorch, safetensors.torch.load_file({str(out)!r})')
  else:
    converter.save(out, module, variables, overwrite=values.overwrite)
    print(f'{out}: jaxgan_compress.nn.load({str(out)!r})')
  return 0


def build_network(text: str):
  """A network by its name in `jaxgan_compress.nn` and arguments: 'mobile_resnet:ngf=16'.

  Raises ValueError for an unknown name or argument, or a value that is no Python literal.
  """
  from jaxgan_compress import build
  name, _, arguments = text.partition(':')
  if name.endswith(('.safetensors', '.pth', '.pt')):
    raise ValueError(f'there is no file {text}; give one that `convert` wrote, or the name of a '
                     'network')
  given = dict(_assignment(each, '--network') for each in _split(arguments))
  if 'dtype' in given:
    from jaxgan_compress.nn import storage
    given['dtype'] = storage.build(given['dtype'], 'dtype')
  return build.make({'name': name, **given}, 'jaxgan_compress.nn', '--network')


def _split(text):
  """At commas outside brackets."""
  parts, depth = [''], 0
  for letter in text:
    depth += (letter in '([') - (letter in ')]')
    if letter == ',' and not depth:
      parts.append('')
    else:
      parts[-1] += letter
  return [part for part in parts if part]


def _assignment(text, where):
  """'ngf=16' -> ('ngf', 16); a word that is no literal stays a word."""
  name, equals, value = text.partition('=')
  if not equals:
    raise ValueError(f'{where} takes name=value and got {text!r}')
  try:
    return name.strip(), ast.literal_eval(value)
  except (ValueError, SyntaxError):
    return name.strip(), value


def _input_shape(module, size):
  if not hasattr(module, 'example'):
    raise ValueError(f'{type(module).__name__} does not say what its input is; info takes '
                     'generators and image discriminators')
  shape = module.example().shape
  if len(shape) != 4:
    return shape
  if not size:
    raise ValueError('info --network needs --size for networks on images, as 256 or 256x512 '
                     '(height x width)')
  try:
    sides = [int(side) for side in size.lower().split('x')]
    height, width = sides * 2 if len(sides) == 1 else sides
  except ValueError:
    raise ValueError(f'--size={size}; give 256, or 256x512 (height x width)') from None
  return (1, height, width, shape[-1])


VERBS = {'train': train, 'evaluate': evaluate, 'report': report, 'info': info,
         'convert': convert}


def _flags(verb, argv, *, config: bool | None = False, workdir=False, evaluate=False,
           info=False, convert=False):
  """Parsed flags of one verb. `config` None: optional."""
  values = flags.FlagValues()
  required = []
  if config is not False:
    config_flags.DEFINE_config_file(
        'config', help_string='Config file, with its argument after a colon; '
        '--config.key=value overrides.', flag_values=values)
    required += ['config'] if config else []
  if workdir:
    flags.DEFINE_string('workdir', None, 'Folder of the run.', flag_values=values)
    required += ['workdir']
  if evaluate:
    flags.DEFINE_enum('checkpoint', 'best', ('best', 'last'), 'Which one.', flag_values=values)
    flags.DEFINE_integer('count', None, 'Images for each generator (default: the config\'s).',
                         lower_bound=10, flag_values=values)
    flags.DEFINE_bool('json', False, 'Print JSON with protocols.', flag_values=values)
  if info:
    flags.DEFINE_bool('layers', False, 'Of a config: also list every parameter.',
                      flag_values=values)
    flags.DEFINE_string('network', None, 'A network of jaxgan_compress.nn with its arguments, '
                        'mobile_resnet:ngf=16, or a file that convert wrote.', flag_values=values)
    flags.DEFINE_string('size', None, 'Of its input: 256, or 256x512 (height x width).',
                        flag_values=values)
    flags.DEFINE_bool('json', False, 'Print JSON.', flag_values=values)
    flags.DEFINE_bool('latency', False, 'Also time its forward pass on this machine.',
                      flag_values=values)
    flags.DEFINE_integer('batch', 8, 'The batch to time besides 1.', lower_bound=1,
                         flag_values=values)
  if convert:
    flags.DEFINE_string('in', None, 'The file: .pth, .safetensors or .npz.', flag_values=values)
    flags.DEFINE_string('out', None, 'The .safetensors file to write.', flag_values=values)
    flags.DEFINE_enum('to', 'ours', ('ours', 'torch'), 'Whose names and layout to write.',
                      flag_values=values)
    flags.DEFINE_multi_string('hint', [], 'What keys cannot tell, as name=value: shared=5, '
                              'dropout=0.5, slope=0.01, upsampling=normal.', flag_values=values)
    flags.DEFINE_string('prefix', '', "Of the keys to take, removed: 'module.'.",
                        flag_values=values)
    flags.DEFINE_string('part', '', 'Which state dict of a checkpoint that holds several.',
                        flag_values=values)
    flags.DEFINE_bool('overwrite', False, 'Replace the output file if it is there.',
                      flag_values=values)
    required += ['in', 'out']
  flags.DEFINE_bool('help', False, 'This text.', short_name='h', flag_values=values)
  if any(arg in ('-h', '--help', '-help') for arg in argv):
    raise _Help(f'jaxgan-compress {verb}: {VERBS[verb].__doc__}\n'
                f'{values.main_module_help() or values.get_help()}')
  argv = [verb, *map(_located, _joined(argv))]
  try:
    with _as_command_line(argv):
      left = values(argv)[1:]
  except (AttributeError, KeyError, TypeError) as e:  # of an override
    raise ValueError(e.args[0] if e.args else str(e)) from e
  if left:
    raise ValueError(f'{verb} takes flags only and got {left[0]!r}; did you mean '
                     f'{" or ".join(f"--{name}" for name in required or ["config"])}?')
  for name in required:
    if values[name].value is None:
      raise ValueError(f'{verb} needs --{name}; see jaxgan-compress {verb} --help')
  return values


@contextlib.contextmanager
def _as_command_line(argv):
  """config_flags looks for --config.key=value in sys.argv, whatever it is asked to parse."""
  before, sys.argv = sys.argv, argv
  try:
    yield
  finally:
    sys.argv = before


def _joined(argv):
  """`--config NAME` as `--config=NAME`."""
  argv = iter(argv)
  return [f'{arg}={next(argv, "")}' if arg in ('--config', '-config') else arg for arg in argv]


def _located(arg):
  """--config=NAME with NAME as a path that exists, so that shipped configs are found anywhere."""
  head, equals, name = arg.partition('=')
  if head.lstrip('-') != 'config' or not equals:
    return arg
  configs.load(name)  # its own complaint is clearer than the flag's about it
  path, argument = configs.locate(name)
  return f'--config={path}' + (f':{argument}' if argument else '')


class _Help(Exception):  # noqa: N818
  """The text asked for by --help."""


def _print_table(columns, rows):
  table = Table(box=None, pad_edge=False)
  for i, column in enumerate(columns):
    table.add_column(column, justify='right' if rows and rows[0][i][:1].isdigit() else 'left',
                     no_wrap=True)
  for row in rows:
    table.add_row(*row)
  Console(width=None if sys.stdout.isatty() else 160).print(table)


def _fail(e, code=2):
  print(f'jaxgan-compress: {str(e).strip()}', file=sys.stderr)
  return code


def _usage():
  verbs = '\n'.join(f'  {name:9} {verb.__doc__}' for name, verb in VERBS.items())
  return (f'jaxgan-compress VERB [flags]\n\n{verbs}\n\n'
          f'{__doc__.split(chr(10), 2)[2].rstrip()}\n\n'
          'jaxgan-compress VERB --help lists the flags of one verb.')


if __name__ == '__main__':
  sys.exit(main())
