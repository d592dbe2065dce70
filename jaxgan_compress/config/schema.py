"""Configs: an `ml_collections.ConfigDict` that `get_config(arg)` of a file returns.

A section holds the keyword arguments of the thing it builds; `name` says what that is. Every key
that a run reads, and its default, is in `base`.
"""

from __future__ import annotations

import copy
import difflib
import importlib
import json
import re
import runpy
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict, config_dict

from jaxgan_compress.config import old_keys
from jaxgan_compress.core import paths
from jaxgan_compress.core.arguments import KINDS, shown, typed

# Measures that can decide, and which way is better.
SELECT = {'fd': 'min', 'fid': 'min', 'fd_efficientnet_lite0': 'min', 'mmd': 'min', 'kid': 'min',
          'mmd_efficientnet_lite0': 'min', 'is': 'max', 'precision': 'max', 'recall': 'max',
          'psnr': 'max', 'ssim': 'max', 'l1': 'min', 'miou': 'max', 'pixel_accuracy': 'max'}
MANY = 48  # names that a message lists
CHECKPOINTS = ('best', 'last')
STARTS = 'stage:'  # of an entry of `init_from` that names an earlier stage
CALIBRATION_BATCHES = 8  # in which pruning looks at activations, by default

# How a stage spreads over devices, see `parallel.parallelize`.
VIA = ('pmap', 'shard_map')
SEEDS = 2 ** 32 - 1  # the largest: JAX keeps 32 bits

STAGE = {
    'title': '',               # what reports call it; '' takes the stage's name
    'method': {},              # dict(name=..., **fields), see `methods`
    'steps': 0,
    'batch': 0,                # 0 takes the run's
    'teacher': (),             # stages to learn from; of several, the best by evaluate.select
    'teacher_checkpoint': 'best',  # or 'last'
    'data': {},                # what differs from the run's `data`, for this stage
    'shift': 0,                # augmentation: pixels of random shift
    'prune': {},               # dict(budget=...): the student is pruned from the teacher's
                               # generator,
                               # see `pruning.prune` for what else it takes;
                               # criterion='activation' looks at calibration_batches=8 of the
                               # stage's training batches; several budgets give extra students,
                               # where a method has them
    'init_from': {},               # {role: file of `convert`}: networks to start or learn from, as
                               # features='vgg16.safetensors' for perceptual terms, or the
                               # name of weights of a package, 'efficientnet_lite0';
                               # 'stage:NAME': the network of an earlier stage
}


class Config(ConfigDict):
  """A ConfigDict in which no section and no list stands in two places: what is assigned is copied,
  so that a change of one changes one. A `FieldReference` stays what it is: shared on purpose.

  Raises ValueError for a section that contains itself.
  """

  def __setitem__(self, key, value):
    super().__setitem__(key, _apart(value))


def copied(config: ConfigDict) -> Config:
  """A copy that shares nothing with the config, and whose references link what they linked."""
  return _apart(config, references={})


def _apart(value, within=(), references=None) -> Any:
  """A copy of sections, lists and tuples, whatever is shared inside. references: copies of those
  already met; None: they stay."""
  if id(value) in within:
    raise ValueError('a section of the config contains itself')
  within = (*within, id(value))
  if isinstance(value, ConfigDict | dict):
    found = Config()
    refs = {'preserve_field_references': True} if isinstance(value, ConfigDict) else {}
    for key, x in value.items(**refs):
      ConfigDict.__setitem__(found, key, _apart(x, within, references))
    # A plain dict has no lock.
    return found.lock() if getattr(value, 'is_locked', False) else found
  if type(value) in (list, tuple):
    return type(value)(_apart(x, within, references) for x in value)
  if isinstance(value, config_dict.FieldReference) and references is not None:
    return copy.deepcopy(value, references)
  return value.item() if isinstance(value, np.generic) else value


def base() -> Config:
  """A config with every key that a run reads and no stage."""
  return Config({
      'seed': 0,
      'batch': 64,             # images an update, over all devices
      'data': {},              # name of a source and its arguments, see `data`
      'run': (),               # stages, in order
      'stages': {},            # {stage: dict like STAGE}
      'evaluate': {
          'classifier': '',    # the stage whose network measures
          'extractor': {},     # or a network of `metrics`: dict(name='inception', path=...),
                               # dict(name='efficientnet_lite0'), dict(name='random_vgg');
                               # neither: nothing is measured
          'every': 500,
          'segmenter': {},     # reads labels back: dict(stage=...) or dict(name='drn', path=...)
          'count': 5000,       # images of each generator; of translations, at most all of `real`
          'seed': 1,           # of the latents, the same for all generators
          'splits': 10,
          'select': 'fd',      # the measure that decides on best checkpoints and teachers
          'best': (),          # more measures whose best checkpoint is kept: ('is', 'mmd')
          'real': {},          # what differs from `data` for the real images of comparison, by
                               # which the best checkpoints and teachers are chosen, and which are
                               # translated. split=('train', 'test') compares with both and
                               # translates the last
          'test': {},          # the same for the final results; {}: those of `real`
          'held_out': {},      # the same for the images that test the classifier; {}: no test
      },
      'checkpoint': {'every': 500, 'keep': 2},
      'log_every': 50,
      'steps_per_call': 1,     # more for small networks on a GPU or TPU, see train.fit
      'via': 'pmap',           # or 'shard_map', see parallel.parallelize
      'replicas': config_dict.placeholder(int),  # default: one a device
      'devices': config_dict.placeholder(int),   # how many there must be altogether, if given
      'workers': 0,            # data processes; 0 uses threads
      'cache': True,           # keep compiled programs between runs
  })


def stage(**fields) -> dict[str, Any]:
  """One entry of `config.stages`. Raises ValueError for an unknown field, nearest one suggested."""
  for field in fields:
    if field not in STAGE:
      raise ValueError(f'a stage has no field {field!r}; {suggest(field, STAGE)}')
  return _apart({**STAGE, **fields}).to_dict()


# Numbers of a config and the least and the largest they may be.
LIMITS = {
    'seed': (0, SEEDS), 'batch': (1, 2 ** 20), 'log_every': (1,), 'steps_per_call': (1,),
    'workers': (0, 256), 'replicas': (1,), 'devices': (1,),
    'checkpoint.every': (1,), 'checkpoint.keep': (1,), 'evaluate.every': (1,),
    'evaluate.count': (4,), 'evaluate.splits': (1,), 'evaluate.seed': (0, SEEDS),
}
STAGE_LIMITS = {'steps': (1, 2 ** 31 - 1), 'batch': (0, 2 ** 20), 'shift': (0, 64)}


def check(config: ConfigDict) -> None:
  """Raises ValueError, with the key, for one that no run reads, one that is missing, a value of
  another kind, one out of range, and one that cannot be stored with a run."""
  _check_keys(config, base(), 'the config', '')
  _check_limits(config, LIMITS, '')
  for name, each in config.stages.items():
    _check_keys(each, STAGE, f'stages.{name}', f'stages.{name}.')
    if name in config.run:
      _check_limits(each, STAGE_LIMITS, f'stages.{name}.')
  for key in ('run', 'evaluate.best', *(f'stages.{name}.teacher' for name in config.stages)):
    for each in value_of(config, key):
      if not isinstance(each, str):
        raise ValueError(f'{key}={shown(value_of(config, key))}; every entry is {KINDS[str]}, and '
                         f'{shown(each)} is not')
  _check_storable(config, '')


def value_of(config: ConfigDict, key: str):
  """What stands under a dotted key."""
  value: Any = config
  for part in key.split('.'):
    value = value[part]
  return value


def _check_keys(ours, known, what, prefix):
  check_kind(ours, dict, what)
  for key in ours:
    if key not in known:
      raise ValueError(f'{what} has no field {key!r}; {suggest(str(key), known)}')
  for key, default in known.items():
    if key not in ours:
      raise ValueError(f'{what} lacks {key!r}; start from config.base(), and each stage with '
                       'config.stage()')
    if default is None:  # a placeholder
      if ours[key] is not None:
        check_kind(ours[key], int, prefix + key)
    elif isinstance(default, Mapping | ConfigDict) and len(default):
      _check_keys(ours[key], default, prefix + key, f'{prefix}{key}.')
    else:
      check_kind(ours[key], type(default), prefix + key)


def check_kind(value, kind: type, where: str):
  """Raises ValueError unless the value of a key is of a kind: one of `KINDS`."""
  several = {dict: Mapping | ConfigDict, Config: Mapping | ConfigDict, tuple: tuple | list,
             float: int | float}
  if not isinstance(value, several.get(kind, kind)) or (
      isinstance(value, bool) and kind in (int, float)):
    words = KINDS[dict if kind is Config else kind]
    raise ValueError(f'{where}={shown(value)}; it is {words}')


def _check_limits(config, limits, prefix):
  for key, (low, *high) in limits.items():
    value = value_of(config, key)
    if value is not None and not low <= value <= (high[0] if high else value):
      raise ValueError(f'{prefix}{key}={value}; at least {low}'
                       + (f' and at most {high[0]}' if high else ''))


def _check_storable(value, where):
  if isinstance(value, Mapping | ConfigDict):
    for key, x in value.items():
      _check_storable(x, f'{where}.{key}' if where else str(key))
  elif isinstance(value, tuple | list):
    for i, x in enumerate(value):
      _check_storable(x, f'{where}[{i}]')
  elif value is not None and not isinstance(value, bool | int | float | str):
    raise ValueError(f'{where} is {value!r}; a config is stored with its run, and holds numbers, '
                     "words, tuples and sections: name what you mean, as 'package.module:name'")
  elif value != value:
    raise ValueError(f'{where} is nan; give a number')


def stage_of(path: Any) -> str:
  """The stage that an entry of `init_from` names, as 'base' of 'stage:base'; '' for a file."""
  return path.removeprefix(STARTS) if isinstance(path, str) and path.startswith(STARTS) else ''


def measures(config: ConfigDict) -> bool:
  """Whether anything measures the generators of a run."""
  return bool(config.evaluate.classifier or config.evaluate.extractor)


def parse_arg(arg: str, **defaults) -> ConfigDict:
  """The string after the colon of `--config=file.py:smoke,d=4`, typed by `defaults`.

  A bare name switches a bool on. Tuples are written `2+4+8`. Raises ValueError for an unknown
  name, nearest one suggested, or a value of another type.
  """
  found = ConfigDict(defaults)
  for part in filter(None, (arg or '').split(',')):
    name, _, text = part.partition('=')
    if name not in defaults:
      raise ValueError(f'config argument {name!r} is unknown; {suggest(name, defaults)}')
    kind = type(defaults[name])
    try:
      if kind is bool:
        value = {'': True, 'true': True, '1': True, 'false': False, '0': False}[text.lower()]
      elif kind is tuple:
        value = tuple(int(item) for item in text.split('+'))
      else:
        value = kind(text)
    except (KeyError, ValueError):
      raise ValueError(f'config argument {part!r}: it is {KINDS[kind]}, '
                       f'as in {name}={_example(defaults[name])}') from None
    found[name] = value
  return found


def smoke(config: ConfigDict, steps: int = 4) -> ConfigDict:
  """The same run shrunk to seconds: few steps, few images, nothing left out."""
  for each in config.stages.values():
    each.update(steps=steps, batch=0)
    if each.method.get('schedule'):
      each.method.schedule.update(teacher_steps=1, student_steps=1, total=steps // 2)
  config.batch = 8
  config.log_every = 2
  config.evaluate.update({'every': steps, 'count': 40, 'splits': 2})
  config.checkpoint.every = 2
  return config


@typed
def load(name: str) -> Config:
  """The config of `file.py:arg`: a path, or a shipped config such as `kd/digits:smoke`.

  The file is run as Python. Raises FileNotFoundError, with the shipped ones, if there is none, and
  ValueError, with the line, for a mistake in it.
  """
  path, arg = locate(name)
  try:
    made = _ran(path, arg)
  except Exception as e:
    lines = [frame.lineno for frame in traceback.extract_tb(e.__traceback__)
             if frame.filename == str(path)]
    if not lines and isinstance(e, SyntaxError):
      lines = [e.lineno]
    if isinstance(e, ValueError | OSError) and len(str(e)) > 20:
      raise  # ours, or as clear
    raise ValueError(f'{path}, line {lines[-1] if lines else "?"}: {type(e).__name__}: {e}') from e
  if not isinstance(made, ConfigDict):
    raise ValueError(f'{path}: get_config(arg) returns {shown(made)}; a config is wanted, as '
                     'config.base() makes')
  return copied(made)


def _ran(path, arg):
  defined = runpy.run_path(str(path))
  if not callable(defined.get('get_config')):
    raise ValueError(f'{path} has no get_config(arg), which a config file defines')
  return defined['get_config'](arg)


@typed
def locate(name: str) -> tuple[Path, str]:
  """The file and the argument that `load` reads."""
  path, _, arg = name.partition(':')
  shipped = Path(importlib.import_module('jaxgan_compress.configs').__path__[0])
  inside = path.removeprefix('configs/').removesuffix('.py') + '.py'
  for candidate in (paths.expand(path), shipped / inside):
    if candidate.is_file():
      return candidate, arg
  names = [str(found.relative_to(shipped)) for found in sorted(shipped.glob('*/*.py'))
           if not found.name.startswith('_')]
  raise FileNotFoundError(f'no config file {path!r}; shipped are '
                          f'{", ".join("configs/" + found for found in names)}')


def to_json(config: ConfigDict) -> dict[str, Any]:
  """Plain values, tuples as lists: what is stored with a run."""
  return json.loads(config.to_json())


def from_json(stored: Mapping[str, Any]) -> Config:
  """The config that `to_json` wrote; keys that are younger than it have their defaults, and older
  names of keys become those of today."""

  def revive(value):
    if isinstance(value, Mapping):
      return {key: revive(x) for key, x in value.items()}
    return tuple(map(revive, value)) if isinstance(value, list) else value

  config = base()
  config.update(revive(old_keys.upgraded(stored)))
  for name, each in config.stages.items():
    config.stages[name] = {**STAGE, **each.to_dict()}
  return config


def read(path: Path) -> Config:
  """The config that is stored with a run. Raises ValueError for a file that was changed."""
  try:
    return from_json(json.loads(path.read_text()))
  except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as e:
    said = re.sub(r"<class '(\w+)'>", r'\1', str(e).strip() or type(e).__name__)
    raise ValueError(f'{path} is no config of a run: {said}; '
                     'take it from a copy of the run') from e


def differences(ours: Mapping, theirs: Mapping, prefix: str = '') -> dict[str, tuple[Any, Any]]:
  """`{dotted key: (ours, theirs)}` for every key in which two stored configs differ."""
  found = {}
  for key in sorted(ours.keys() | theirs.keys()):
    a, b = ours.get(key, 'absent'), theirs.get(key, 'absent')
    if isinstance(a, Mapping) and isinstance(b, Mapping):
      found.update(differences(a, b, f'{prefix}{key}.'))
    elif a != b:
      found[prefix + key] = a, b
  return found


def suggest(name: str, possible) -> str:
  """'did you mean ...?' if something is near, else everything there is."""
  possible = sorted(possible)
  near = difflib.get_close_matches(name, possible, 1)
  listed = ', '.join(possible[:MANY]) + (f' and {len(possible) - MANY} more' if len(
      possible) > MANY else '')
  return f'did you mean {near[0]!r}?' if near else f'there is {listed}'


def _example(value):
  return '+'.join(map(str, value)) if isinstance(value, tuple) else value
