"""How a verb of the command declares its flags, and how a command line becomes their values.

    @Verb('greet', Flag('name', 'The name to greet.', required=True),
          Flag('times', 'The number of greetings.', int, 1, low=1))
    def greet(flags):
      \"\"\"Greet somebody.\"\"\"
      print(f'Hello {flags.name}! ' * flags.times)

A verb registers itself when its module is imported; `main.MODULES` lists the modules.
"""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from absl import flags as absl_flags
from ml_collections import ConfigDict, config_flags

from jaxgan_compress import config
from jaxgan_compress.core import paths

VERBS: dict[str, Verb] = {}

# --config.KEY, or --noconfig.KEY for a boolean.
OVERRIDE = re.compile(r'--?(?:no)?config\.(.*)')


@dataclasses.dataclass(frozen=True)
class Flag:
  """One flag of a verb.

  kind: str; Path, where a leading ~ is expanded; bool; int; float; list, whose items are separated
    by commas; or dict, for a flag that is repeated with one NAME=VALUE each.
  choices, low, high: the values that a string and a number may take.
  needs: the flags, or FLAG=VALUE, without any of which this one would change nothing.
  value: how the help writes the value, where kind and name do not tell.
  """
  name: str
  help: str
  kind: type = str
  default: Any = None
  choices: tuple[str, ...] = ()
  low: float | None = None
  high: float | None = None
  required: bool = False
  needs: tuple[str, ...] = ()
  value: str = ''

  def define(self, values: absl_flags.FlagValues):
    """Adds the flag to those that `values` parses."""
    define = {bool: absl_flags.DEFINE_bool, int: absl_flags.DEFINE_integer,
              float: absl_flags.DEFINE_float, list: absl_flags.DEFINE_list,
              dict: absl_flags.DEFINE_multi_string}.get(self.kind, absl_flags.DEFINE_string)
    options: dict[str, Any] = {'flag_values': values}
    if self.choices:
      define, options['enum_values'] = absl_flags.DEFINE_enum, self.choices
    elif self.kind in (int, float):
      options |= {'lower_bound': self.low, 'upper_bound': self.high}
    define(self.name, self.default, help=self.help, **options)

  def describe(self) -> str:
    """The flag, its values and its help, as `--help` prints them."""
    value = self.value or '|'.join(self.choices) or {
        int: 'N', float: 'X', Path: 'PATH', list: 'A,B'}.get(self.kind, self.name.upper())
    head = f'--[no]{self.name}' if self.kind is bool else f'--{self.name}={value}'
    notes = [] if self.default in (None, '', False) else [f'default: {self.default}']
    if self.low is not None:
      notes.append(f'at least {self.low}' if self.high is None else f'{self.low} to {self.high}')
    if self.needs:
      notes.append(f'with {self._needed()}')
    text = f'{self.help} ({"; ".join(notes)})' if notes else self.help
    return f'  {head}\n' + textwrap.indent(textwrap.fill(text, 90), ' ' * 6)

  def check_use(self, values: absl_flags.FlagValues):
    """Raises ValueError where the flag was given without any of those that it needs."""
    needs = [need.partition('=') for need in self.needs if values[self.name].present]
    if needs and not any(values[name].value == wanted if wanted else values[name].value
                         for name, _, wanted in needs):
      raise ValueError(f'--{self.name} is for {self._needed()} and would change nothing here; '
                       'leave it out, or give that too')

  def read(self, values: absl_flags.FlagValues):
    """The value after parsing, a path with its home, and pairs as a dict."""
    value: Any = values[self.name].value
    if self.kind is Path and values[self.name].present and value.startswith('~'):
      return str(paths.expand(value))
    if self.kind is dict:
      pairs = [text.partition('=') for text in value or ()]
      if wrong := [name for name, _, text in pairs if not (name and text)]:
        raise ValueError(f'--{self.name}={wrong[0]}; give {self.value}. {self.help}')
      return {name.strip(): text for name, _, text in pairs}
    return value

  def _needed(self) -> str:
    return ' or '.join(f'--{need}' for need in self.needs)


class Verb:
  """Registers the function that it decorates, which takes the values of the flags as attributes.

  arguments: how the help writes what is no flag, which the function gets as `arguments`; '' where
    the verb takes flags only.
  several_processes: the verb may be one process of a job, which it joins first.
  """

  def __init__(self, name: str, *flags: Flag, arguments: str = '', several_processes: bool = False):
    self.name, self.flags, self.arguments = name, flags, arguments
    self.several_processes = several_processes

  def __call__(self, body: Callable[[SimpleNamespace], int | None]):
    self.body, self.summary = body, (body.__doc__ or '').partition('\n')[0]
    VERBS[self.name] = self
    return body

  def describe(self) -> str:
    """The text of `--help`."""
    blocks = [f'jaxgan-compress {self.name} [flags] {self.arguments}'.rstrip(), self.summary]
    for title, required in (('Required flags:', True), ('Flags:', False)):
      if chosen := [flag.describe() for flag in self.flags if flag.required == required]:
        blocks.append('\n'.join((title, *chosen)))
    return '\n\n'.join((*blocks, '--flagfile=PATH reads more flags from a text file, one a line.'))

  def parse(self, argv: Sequence[str]) -> SimpleNamespace:
    """The values of the flags by name, and `arguments`.

    Raises ValueError, or absl's Error, for what is unknown, missing, out of range or of no effect.
    """
    values, argv = absl_flags.FlagValues(), _expand(argv)
    for flag in self.flags:
      if flag.name == 'config':
        argv = _define_config(flag, values, argv)
      else:
        flag.define(values)
    arguments = self._apply(values, argv)
    for flag in self.flags:
      flag.check_use(values)
    required = [flag.name for flag in self.flags if flag.required]
    if arguments and not self.arguments:
      raise ValueError(f'{self.name} takes flags only and got {arguments[0]!r}; did you mean '
                       f'{" or ".join(f"--{name}" for name in required or ["config"])}?')
    if missing := [name for name in required if values[name].value is None]:
      raise ValueError(f'{self.name} needs --{missing[0]}; see jaxgan-compress {self.name} --help')
    return SimpleNamespace(arguments=arguments,
                           **{flag.name: flag.read(values) for flag in self.flags})

  def _apply(self, values: absl_flags.FlagValues, argv: list[str]) -> list[str]:
    """Parses the flags; returns the arguments that are none."""
    try:
      return values([self.name, *argv])[1:]
    except absl_flags.UnrecognizedFlagError as e:
      names = [flag.name for flag in self.flags]
      raise ValueError(f'{self.name} has no flag --{e.flagname}; '
                       f'{config.suggest(e.flagname, names)}') from e
    except absl_flags.IllegalFlagValueError as e:
      raise ValueError(_explain(str(e))) from e
    except (AttributeError, KeyError, TypeError) as e:  # from overrides, which are applied in turn
      given = ', '.join(arg.partition('=')[0] for arg in argv if OVERRIDE.match(arg))
      raise ValueError(f'{given} cannot all be applied; give a section as a whole or what is '
                       'inside it, and not both') from e


def _expand(argv: Sequence[str]) -> list[str]:
  """The arguments with those of every --flagfile in its place, and `--config NAME` in one."""
  try:
    expanded = iter(absl_flags.FlagValues().read_flags_from_files(list(argv), force_gnu=False))
  except (absl_flags.Error, OSError, UnicodeError) as e:
    files = [arg for arg in argv if arg.lstrip('-').startswith('flagfile')]
    raise ValueError(f'{" or ".join(files)} cannot be read; it is a text file with one flag a '
                     'line, as --config=kd/digits') from e
  return [f'{arg}={next(expanded, "")}' if arg in ('--config', '-config') else arg
          for arg in expanded]


def _define_config(flag: Flag, values: absl_flags.FlagValues, argv: list[str]) -> list[str]:
  """Defines --config and its overrides; returns the arguments without --config=NAME, the last of
  which is loaded."""
  parts = [arg.partition('=') for arg in argv]
  names = [name for option, _, name in parts if option.lstrip('-') == 'config']
  overrides = [option for option, _, _ in parts if OVERRIDE.match(option)]
  if not names:
    if overrides:
      raise ValueError(f'{overrides[0]} changes a config; give --config=NAME, too')
    flag.define(values)
    return argv
  loaded = config.load(names[-1])
  for override in overrides:
    _check_override(loaded, override)
  rest = [arg for arg, (option, _, _) in zip(argv, parts, strict=True)
          if option.lstrip('-') != 'config']
  try:
    config_flags.DEFINE_config_dict('config', loaded, flag_values=values, sys_argv=rest)
  except (AttributeError, KeyError, TypeError) as e:
    raise ValueError(f'{", ".join(overrides)}: {e}') from e
  return rest


def _explain(text: str) -> str:
  """What is wrong with the value of a flag, in words."""
  flag = text.removeprefix('flag ').partition(': ')[0]
  for words, kind in (('invalid literal for int()', 'a whole number, as 8'),
                      ('could not convert string to float', 'a number, as 0.5'),
                      ('Non-boolean argument', 'true or false'),
                      ('as a ConfigDict', "a section, as \"{'name': 'adam'}\"")):
    if words in text:
      return f'{flag} is not {kind}; leave it out for the default'
  return text


def _check_override(section, override: str):
  """Raises ValueError, nearest key suggested, unless the config has what an override names."""
  keys = OVERRIDE.sub(r'\1', override).split('.')
  for i, part in enumerate(keys):
    key, path = part.partition('[')[0], '.'.join(['config', *keys[:i]])
    if '[' in part:
      raise ValueError(f'{override}: one entry cannot be changed; give all: '
                       f'--{path}.{key}="(1, 2)"')
    if not isinstance(section, Mapping | ConfigDict):
      raise ValueError(f'{override}: {path} is {section!r} and has no {key!r} inside')
    if key not in section:
      raise ValueError(f'{override}: {path} has no {key!r}; ' + (
          config.suggest(key, section) if len(section) else
          f'it is empty, and is given as a whole: --{path}="{{{key!r}: ...}}"'))
    section = section[key]
