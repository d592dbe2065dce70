"""Configs: an `ml_collections.ConfigDict` that `get_config(arg)` of a file returns.

A section holds the keyword arguments of the thing it builds; `name` says what that is. Every key
that a run reads, and its default, is in `base`.
"""

from __future__ import annotations

import difflib
import importlib
import json
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, config_dict

from jaxgan_compress import paths

# Measures that can decide, and which way is better.
SELECT = {'fd': 'min', 'fid': 'min', 'mmd': 'min', 'kid': 'min', 'is': 'max', 'precision': 'max',
          'recall': 'max', 'psnr': 'max', 'ssim': 'max', 'l1': 'min', 'perceptual': 'min',
          'miou': 'max', 'pixel_accuracy': 'max'}
CHECKPOINTS = ('best', 'last')

STAGE = {
    'title': '',               # what reports call it; '' takes the stage's name
    'method': {},              # dict(name=..., **fields), see `methods`
    'steps': 0,
    'batch': 0,                # 0 takes the run's
    'teacher': (),             # stages to learn from; of several, the best by evaluate.select
    'teacher_checkpoint': 'best',  # or 'last'
    'data': {},                # what differs from the run's `data`, for this stage
    'shift': 0,                # augmentation: pixels of random shift
    'prune': {},               # dict(budget=...): the student is cut from the teacher's generator,
                               # see `pruning.cut` for what else it takes; budget=(1e9, 4e9) cuts
                               # others, too, where a method has them, and all learn in one step
    'given': {},               # {role: file of `convert`}: networks to start or learn from, as
                               # features='vgg16.safetensors' for perceptual terms
}


def base() -> ConfigDict:
  """A config with every key that a run reads and no stage."""
  return ConfigDict({
      'seed': 0,
      'batch': 64,             # images an update, over all devices
      'data': {},              # name of a source and its arguments, see `data`
      'run': (),               # stages, in order
      'stages': {},            # {stage: dict like STAGE}
      'evaluate': {
          'classifier': '',    # the stage whose network measures
          'extractor': {},     # or a network of `metrics`: dict(name='inception', path=...),
                               # dict(name='random_vgg'); neither: nothing is measured
          'every': 500,
          'segmenter': {},     # reads labels back: dict(stage=...) or dict(name='drn', path=...)
          'count': 5000,       # images drawn for each generator; of images, at most all of `real`
          'seed': 1,           # of the latents, the same for all generators
          'splits': 10,
          'select': 'fd',      # the measure that decides on best checkpoints and teachers
          'best': (),          # more measures whose best checkpoint is kept: ('is', 'mmd')
          'real': {},          # what differs from `data` for the real images of comparison, by
                               # which the best checkpoints and teachers are chosen; where images
                               # are drawn from images, these. split=('train', 'test') compares
                               # with both and draws from the last
          'test': {},          # the same for the final results; {}: those of `real`
          'held_out': {},      # the same for the images that test the classifier; {}: no test
      },
      'checkpoint': {'every': 500, 'keep': 2},
      'log_every': 50,
      'steps_per_call': 1,     # more for small networks on a GPU or TPU, see train.fit
      'via': 'pmap',           # or 'shard_map', see parallel.parallelize
      'mesh': {
          'student': 1,        # places for students of different budgets, see the how-to
          'space': 1,          # devices that share the height of an image
      },
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
  return {**STAGE, **fields}


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
      raise ValueError(f'config argument {part!r}: a {kind.__name__} is expected, '
                       f'as in {name}={_example(defaults[name])}') from None
    found[name] = value
  return found


def smoke(config: ConfigDict, steps: int = 4) -> ConfigDict:
  """The same run shrunk to seconds: few steps, few images, nothing left out."""
  for each in config.stages.values():
    each.update(steps=steps, batch=0)
    if each.method.get('clock'):
      each.method.clock.update(teach=1, learn=1, total=steps // 2)
  config.batch = 8
  config.log_every = 2
  config.evaluate.update({'every': steps, 'count': 40, 'splits': 2})
  config.checkpoint.every = 2
  return config


def load(name: str) -> ConfigDict:
  """The config of `file.py:arg`: a path, or a shipped config such as `kd/digits:smoke`.

  The file is run as Python. Raises FileNotFoundError, with the shipped ones, if there is none.
  """
  path, arg = locate(name)
  defined = runpy.run_path(str(path))
  if 'get_config' not in defined:
    raise ValueError(f'{path} has no get_config(arg), which a config file defines')
  return defined['get_config'](arg)


def locate(name: str) -> tuple[Path, str]:
  """The file and the argument that `load` reads."""
  path, _, arg = name.partition(':')
  shipped = Path(importlib.import_module('jaxgan_compress.configs').__file__).parent
  inside = path.removeprefix('configs/').removesuffix('.py') + '.py'
  for candidate in (paths.expand(path), shipped / inside):
    if candidate.is_file():
      return candidate, arg
  names = [str(found.relative_to(shipped)) for found in sorted(shipped.glob('*/*.py'))
           if not found.name.startswith('_')]
  raise FileNotFoundError(f'no config file {path!r}; shipped are '
                          f'{", ".join("configs/" + found for found in names)}')


def to_json(config: ConfigDict) -> dict[str, Any]:
  """Plain values, tuples as lists: what is stored beside a run."""
  return json.loads(config.to_json())


def from_json(stored: Mapping[str, Any]) -> ConfigDict:
  """The config that `to_json` wrote; keys that are younger than it have their defaults."""

  def revive(value):
    if isinstance(value, Mapping):
      return {key: revive(x) for key, x in value.items()}
    return tuple(map(revive, value)) if isinstance(value, list) else value

  config = base()
  config.update(revive(stored))
  for name, each in config.stages.items():
    config.stages[name] = {**STAGE, **each.to_dict()}
  return config


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
  return f'did you mean {near[0]!r}?' if near else f'there is {", ".join(possible)}'


def _example(value):
  return '+'.join(map(str, value)) if isinstance(value, tuple) else value
