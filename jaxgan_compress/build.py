"""From a config to values: methods, networks, optimisers, data."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxgan_compress import config as configs
from jaxgan_compress import paths, pruning

# Where a bare name in a section of this key is looked up.
HOMES = {
    'method': 'jaxgan_compress.methods', 'adversary': 'jaxgan_compress.methods',
    'generator': 'jaxgan_compress.nn', 'student': 'jaxgan_compress.nn',
    'wide': 'jaxgan_compress.nn', 'deep': 'jaxgan_compress.nn', 'back': 'jaxgan_compress.nn',
    'student_back': 'jaxgan_compress.nn', 'others': 'jaxgan_compress.nn',
    'teacher': 'jaxgan_compress.nn',
    'look': 'jaxgan_compress.nn', 'lessons': 'jaxgan_compress.methods',
    'cycle': 'jaxgan_compress.methods', 'clock': 'jaxgan_compress.methods', 'teacher_tx': 'optax',
    'shrink': 'jaxgan_compress.pruning', 'disc': 'jaxgan_compress.nn',
    'extractor': 'jaxgan_compress.metrics', 'classifier': 'jaxgan_compress.nn', 'tx': 'optax',
    'learning_rate': 'jaxgan_compress.train.schedules',
}


def resolve(name: str, home: str) -> Any:
  """`Name` in the module `home`, or `package.module:Name` anywhere: the namespace is the registry.

  Raises ValueError for a name that is not there, nearest one suggested.
  """
  module, _, attribute = name.rpartition(':')
  try:
    found = importlib.import_module(module or home)
  except ImportError as e:
    raise ValueError(f'{name!r}: cannot import {module or home} ({e})') from e
  if not hasattr(found, attribute) or attribute.startswith('_'):
    public = getattr(found, '__all__', None) or [x for x in dir(found) if not x.startswith('_')]
    raise ValueError(f'no {attribute!r} in {found.__name__}; {configs.suggest(attribute, public)}')
  return getattr(found, attribute)


def make(section: Mapping[str, Any], home: str, where: str, **injected) -> Any:
  """Calls what `section.name` names with the section's other entries; sections inside are made
  first. Raises ValueError that says where, for an unknown name or argument.
  """
  if not section.get('name'):
    raise ValueError(f'{where} has no name; it says what to build, from {home}')
  target = resolve(section['name'], home)
  given = dict(injected)
  for key, value in section.items():
    if isinstance(value, ConfigDict | dict):
      value = _made(value, HOMES.get(key, home), f'{where}.{key}')
    if key != 'name':
      given[key] = value
  try:
    signature = inspect.signature(target)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    for key in given:
      if key not in signature.parameters and not open_ended:
        raise ValueError(f'{section["name"]} has no argument {key!r}; '
                         f'{configs.suggest(key, signature.parameters)}')
    return target(**given)
  except (TypeError, ValueError) as e:
    raise ValueError(f'{where}: {e}') from e


def _made(section, home, where):
  if 'name' in section:
    return make(section, home, where)
  # Several of a kind, by name, as students of other widths.
  return {key: _made(value, home, f'{where}.{key}') if isinstance(value, ConfigDict | dict)
          else value for key, value in section.items()}


def method(config: ConfigDict, name: str, teacher: str | None = None,
           cut: Mapping[str, Any] | None = None):
  """The method of one stage; `teacher` names the stage it learns from, if any.

  The teacher's generator, and its discriminator unless the stage has its own, are filled in; so is
  what pruning left of it, `cut`, {role: generator}. While that is not known the whole generator
  stands for each.
  """
  section, where = config.stages[name].method, f'stages.{name}.method'
  if teacher is None:
    return make(section, HOMES['method'], where)
  # Who taught the teacher matters for its weights and not for its networks.
  source = method(config, teacher, next(iter(config.stages[teacher].teacher), None))
  learned = config.stages[teacher].method
  section = section.copy_and_resolve_references()
  section.unlock()
  if 'adversary' in section and 'disc' not in section.adversary and 'adversary' in learned:
    section.adversary.disc = learned.adversary.disc.to_dict()
  whole, target = getattr(source, source.product), resolve(section.name, HOMES['method'])
  found = {'teacher': whole}
  if config.stages[name].prune:
    first, *more = budgets(config, name)
    cut = cut or dict.fromkeys((first, *more), whole)
    pruned = {first: cut[first], **({'others': {role: cut[role] for role in more}} if more else {})}
    if 'teacher' not in inspect.signature(target).parameters:  # only cut from it
      return make(section, HOMES['method'], where, **pruned)
    found |= pruned
  built = make(section, HOMES['method'], where, **found)
  if 'adversary' in section and section.get('disc_from', 'teacher') != 'fresh':
    theirs = getattr(getattr(source, 'adversary', None), 'disc', None)
    if theirs != built.adversary.disc:
      raise ValueError(f"{where}: it goes on with the discriminator of {teacher!r} ({theirs}) and "
                       f"names another ({built.adversary.disc}); leave out adversary.disc, or set "
                       "disc_from='fresh'")
  return built


def budgets(config: ConfigDict, name: str) -> dict[str, float]:
  """{role: what it may cost} of the students that a stage cuts: the method's product and, where
  there are several budgets, others that are named by theirs."""
  stage = config.stages[name]
  if not stage.prune:
    return {}
  product = resolve(stage.method.name, HOMES['method']).product
  return pruning.roles(product, stage.prune.budget)


def source(section: Mapping[str, Any]):
  """The data source of a `data` section: a name in `data` ('paired'), 'tfds:<name>',
  'samples:<task>' or 'package.module:function'."""
  arguments = {key: value for key, value in section.items() if key != 'name'}
  name = section['name']
  for prefix, argument in (('tfds', 'catalogue'), ('samples', 'task')):
    if name.startswith(f'{prefix}:'):
      arguments[argument], name = name.removeprefix(f'{prefix}:'), prefix
  return make({**arguments, 'name': name}, 'jaxgan_compress.data', 'data')


def validate(config: ConfigDict) -> None:
  """Builds everything but the data, so that a mistake costs no training. Raises ValueError."""
  for name in config.run:
    if name not in config.stages:
      raise ValueError(f'run names the stage {name!r}; {configs.suggest(name, config.stages)}')
  if not config.run:
    raise ValueError('run names no stage; give at least one')
  if config.evaluate.classifier and config.evaluate.classifier not in config.run:
    raise ValueError(f'evaluate.classifier={config.evaluate.classifier!r} is not in run; '
                     f"one of {', '.join(config.run)}, or ''")
  settings = config.evaluate
  if settings.classifier and settings.extractor:
    raise ValueError('evaluate.classifier and evaluate.extractor are both given; one measures')
  for metric in (settings.select, *settings.best):
    if metric not in configs.SELECT:
      raise ValueError(f'evaluate.select and evaluate.best know no {metric!r}; one of '
                       f'{", ".join(configs.SELECT)}')
  for name, value in (('batch', config.batch), ('log_every', config.log_every),
                      ('steps_per_call', config.steps_per_call),
                      ('evaluate.every', settings.every), ('checkpoint.every',
                                                           config.checkpoint.every),
                      ('checkpoint.keep', config.checkpoint.keep)):
    if value < 1:
      raise ValueError(f'{name}={value}; at least 1')
  if settings.count < max(2, settings.splits):
    raise ValueError(f'evaluate.count={settings.count}; at least 2, and evaluate.splits='
                     f'{settings.splits}')
  for key in ('evaluate', 'checkpoint'):
    if config[key].every % config.log_every:
      raise ValueError(f'{key}.every={config[key].every} is not a multiple of '
                       f'log_every={config.log_every}; make it one')
  if config.log_every % config.steps_per_call:
    raise ValueError(f'log_every={config.log_every} is not a multiple of steps_per_call='
                     f'{config.steps_per_call}; make it one')
  reader = settings.segmenter.get('stage')
  if reader and reader not in config.run:
    raise ValueError(f'evaluate.segmenter.stage={reader!r} is not in run; one of '
                     f'{", ".join(config.run)}')
  if config.steps_per_call > 1 and config.mesh.space > 1:
    raise ValueError(f'mesh.space={config.mesh.space} takes steps_per_call=1')
  places, beside = config.mesh.student, [0]
  for i, name in enumerate(config.run):
    stage = config.stages[name]
    if '.' in name:
      raise ValueError(f'stages.{name}: a stage has no point in its name; use _')
    for role, path in stage.given.items():
      if not paths.expand(path).is_file():
        raise ValueError(f'stages.{name}.given.{role}: there is no file {path}; make one by '
                         'jaxgan-compress convert')
    for field in stage:
      if field not in configs.STAGE:
        raise ValueError(f'stages.{name} has no field {field!r}; '
                         f'{configs.suggest(field, configs.STAGE)}')
    if stage.steps < 1:
      raise ValueError(f'stages.{name}.steps={stage.steps}; at least 1')
    if stage.steps % config.steps_per_call:
      raise ValueError(f'stages.{name}.steps={stage.steps} is not a multiple of steps_per_call='
                       f'{config.steps_per_call}; make it one')
    if config.steps_per_call > 1 and stage.method.get('clock'):
      raise ValueError(f'stages.{name} looks at its teachers between steps; give steps_per_call=1')
    if stage.batch < 0:
      raise ValueError(f"stages.{name}.batch={stage.batch}; at least 1, or 0 for the run's")
    if stage.teacher_checkpoint not in configs.CHECKPOINTS:
      raise ValueError(f'stages.{name}.teacher_checkpoint={stage.teacher_checkpoint!r}; one of '
                       f'{", ".join(configs.CHECKPOINTS)}')
    for teacher in stage.teacher:
      if teacher not in config.run[:i]:
        raise ValueError(f'stages.{name} learns from {teacher!r}, which run does not have before '
                         f'it; it has {", ".join(config.run[:i]) or "nothing"}')
    if stage.prune and not stage.teacher:
      raise ValueError(f'stages.{name}.prune cuts the generator of a teacher and there is none; '
                       'give teacher')
    if stage.prune and not stage.prune.get('budget'):
      raise ValueError(f'stages.{name}.prune has no budget; give what the student may cost, as '
                       'budget=2.6e9')
    if len(stage.teacher) > 1 and not configs.measures(config):
      raise ValueError(f'stages.{name} chooses among {len(stage.teacher)} teachers, which needs '
                       'evaluate.classifier or evaluate.extractor')
    for teacher in tuple(stage.teacher) or (None,):
      built = method(config, name, teacher)
      beside.append(len(getattr(built, 'beside', ())))
      if built.draws and 'direction' in stage.data:
        raise ValueError(f'stages.{name}.data.direction={stage.data.direction!r}: give it as '
                         'data.direction, which evaluation follows, too')
      for looking in filter(None, (settings.classifier, reader)):
        if built.draws and looking not in config.run[:i]:
          raise ValueError(f'run has {name!r} before {looking!r}, which measures it; put '
                           f'{looking!r} first')
      clock = getattr(built, 'clock', None)
      if clock and clock.steps and clock.steps != stage.steps:
        raise ValueError(f'stages.{name}.steps={stage.steps} and its clock takes {clock.steps} '
                         f'(total={clock.total} of the teachers, and learn={clock.learn} of the '
                         f'students after every teach={clock.teach}); give steps={clock.steps}')
  if places > 1 and places not in beside:
    raise ValueError(f'mesh.student={places} and no stage has as many students that shrink to '
                     f'budgets of their own; there are {max(beside)}')
