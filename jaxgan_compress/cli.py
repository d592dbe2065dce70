"""The command `jaxgan-compress`: thin verbs around functions of the same power. The only flags.

    jaxgan-compress train --config=configs/kd/digits.py --workdir=runs/digits
    jaxgan-compress train --config=configs/kd/digits.py:smoke --config.seed=1 --workdir=runs/smoke
    jaxgan-compress evaluate --workdir=runs/digits --checkpoint=last
    jaxgan-compress report --workdir=runs/digits
    jaxgan-compress info --config=configs/kd/digits.py
"""

from __future__ import annotations

import contextlib
import json
import logging
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
  except (flags.Error, ValueError, FileNotFoundError, FileExistsError, ImportError) as e:
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
  """Networks, parameters and MACs of a config; without one, versions and devices."""
  values = _flags(verb, argv, config=None, layers=True)
  from clu import parameter_overview

  from jaxgan_compress import experiment
  from jaxgan_compress.train import records
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


VERBS = {'train': train, 'evaluate': evaluate, 'report': report, 'info': info}


def _flags(verb, argv, *, config: bool | None = False, workdir=False, evaluate=False,
           layers=False):
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
  if layers:
    flags.DEFINE_bool('layers', False, 'Also list every parameter.', flag_values=values)
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
    raise ValueError(f'{verb} takes flags only and got {left[0]!r}; did you mean --workdir or '
                     '--config?')
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
