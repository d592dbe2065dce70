"""From a config to values: methods, networks, optimisers, data."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import re
from collections.abc import Mapping
from typing import Any

import jax
from flax import linen
from ml_collections import ConfigDict

from jaxgan_compress import config as configs
from jaxgan_compress import convert, nn, pruning
from jaxgan_compress.core import arguments

# Where a bare name in a section of this key is looked up.
HOMES = {
    'method': 'jaxgan_compress.methods', 'adversary': 'jaxgan_compress.methods',
    'generator': 'jaxgan_compress.nn', 'student': 'jaxgan_compress.nn',
    'wide': 'jaxgan_compress.nn', 'deep': 'jaxgan_compress.nn',
    'generator_ba': 'jaxgan_compress.nn',
    'student_ba': 'jaxgan_compress.nn', 'extra_students': 'jaxgan_compress.nn',
    'teacher': 'jaxgan_compress.nn',
    'feature_net': 'jaxgan_compress.nn', 'distill': 'jaxgan_compress.methods',
    'extra_distill': 'jaxgan_compress.methods', 'teacher_adversary': 'jaxgan_compress.methods',
    'cycle': 'jaxgan_compress.methods', 'schedule': 'jaxgan_compress.methods',
    'teacher_tx': 'optax',
    'gradual_pruning': 'jaxgan_compress.pruning', 'disc': 'jaxgan_compress.nn',
    'extractor': 'jaxgan_compress.metrics', 'classifier': 'jaxgan_compress.nn', 'tx': 'optax',
    'learning_rate': 'jaxgan_compress.train.schedules',
}
# Terms of a `DistillLoss` that ask the discriminator of a teacher, those of
# `methods.distillation.DISC_TERMS`.
DISC_TERMS = 'Discriminator', 'FeatureMatching', 'DiscriminatorFeatures'
# Keys of sections that say generators.
GENERATORS = ('generator', 'student', 'wide', 'deep', 'generator_ba', 'student_ba', 'teacher',
              'extra_students')


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
    # A user's own module need not have it: then what is made there.
    public = getattr(found, '__all__', None) or [
        name for name, x in vars(found).items() if not name.startswith('_') and callable(x)
        and x.__module__ == found.__name__]
    raise ValueError(f'no {attribute!r} in {found.__name__}; {configs.suggest(attribute, public)}')
  return getattr(found, attribute)


def make(section: Mapping[str, Any], home: str, where: str, **injected) -> Any:
  """Calls what `section.name` names with the section's other entries; sections inside are made
  first. Raises ValueError that says where, for an unknown name or argument.
  """
  with blaming(where):
    target = resolve(_named(section, home), home)
  given = dict(injected)
  for key, value in section.items():
    if isinstance(value, ConfigDict | dict):
      value = _made(value, _home(key, value, home), f'{where}.{key}')
      if key in GENERATORS:  # a module of the user's own becomes one that methods can train
        value = nn.wrap(value) if isinstance(value, linen.Module) else jax.tree.map(
            nn.wrap, value, is_leaf=lambda x: isinstance(x, linen.Module))
    if key != 'name':
      given[key] = value
  with blaming(where):
    signature, hints = inspect.signature(target), arguments.hints(target)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    for key, value in given.items():
      known = signature.parameters.get(key)
      if known is None and not open_ended:
        raise ValueError(f'{section["name"]} has no argument {key!r}; '
                         f'{configs.suggest(key, signature.parameters)}')
      if known is None or value is not known.default:
        arguments.check(key, value, hints.get(key, Any))
    return target(**given)


def generator(section: Mapping[str, Any], where: str = 'generator') -> linen.Module:
  """The generator that a section says; a module of the user's own wrapped, see `nn.Wrapped`."""
  return nn.wrap(make(section, HOMES['generator'], where))


def _named(section, home=HOMES['method']):
  name = section.get('name')
  if not name or not isinstance(name, str):
    raise ValueError(f'it has no name ({arguments.shown(name)}), which says what to build, from '
                     f'{home}')
  return name


@contextlib.contextmanager
def blaming(where: str):
  """What goes wrong inside becomes a ValueError that begins with `where`, a place in the config;
  files and modules that are missing say so themselves."""
  try:
    yield
  except (OSError, ImportError):
    raise
  except Exception as e:
    text = str(e).strip().split('\n\n')[0]
    if text.startswith(where):  # a place inside this one
      raise
    for said, better in REWORDED:
      text = re.sub(said, better, text)
    kind = '' if isinstance(e, TypeError | ValueError) else f'{type(e).__name__}: '
    raise ValueError(f'{where}: {kind}{text}') from e


# What Python says of calls, in a user's words.
REWORDED = (
    (r"^\S*?([A-Z]\w*)?(\.__init__)?\(\) got an unexpected keyword argument ('\w+')",
     r'there is no argument \3'),
    (r'^\S+ missing \d+ required (positional|keyword-only) arguments?: (.*)', r'it lacks \2'),
    (r"^missing a required argument: ('\w+')", r'it lacks \1'),
)


def _made(section, home, where):
  if 'name' in section:
    return make(section, home, where)
  # Several of a kind, by name, as students of other widths.
  return {key: _made(value, _home(key, value, home), f'{where}.{key}')
          if isinstance(value, ConfigDict | dict)
          else value for key, value in section.items()}


def _home(key, section, home):
  """Where the name of a section under this key is looked up: where the key says, else where its
  parent's name is, else among the networks."""
  if key in HOMES:
    return HOMES[key]
  name = section.get('name')
  known = isinstance(name, str) and name in dir(importlib.import_module(home))
  return home if known or not name else 'jaxgan_compress.nn'


def method(config: ConfigDict, name: str, teacher: str | None = None,
           pruned: Mapping[str, Any] | None = None, whole: Any = None):
  """The method of one stage; `teacher` names the stage it learns from, if any.

  The teacher's generator, and its discriminator unless the stage has its own, are filled in; so is
  what pruning left of it, `pruned`, {role: generator}. While that is not known the whole generator
  stands for each. whole: the teacher's generator, where it was pruned itself.
  """
  section, where = config.stages[name].method, f'stages.{name}.method'
  with blaming(where):
    target = resolve(_named(section), HOMES['method'])
  if 'main' not in dir(target):  # a class of the user's own may be anything
    raise ValueError(f'{where}: {section.name} is no method; methods are GAN, KD, Pix2Pix, and '
                     'more in jaxgan_compress.methods')
  if teacher is None:
    return make(section, HOMES['method'], where)
  # Who taught the teacher matters for its weights and not for its networks.
  source = method(config, teacher, next(iter(config.stages[teacher].teacher), None))
  learned = config.stages[teacher].method
  section = section.copy_and_resolve_references()
  section.unlock()
  with blaming(where):
    _fill_in_adversary(section, learned, inspect.signature(target).parameters, teacher)
  whole = whole or source.modules[source.main]
  found = {'teacher': whole}
  if config.stages[name].prune:
    first, *more = budgets(config, name)
    pruned = pruned or dict.fromkeys((first, *more), whole)
    students = {first: pruned[first],
                **({'extra_students': {role: pruned[role] for role in more}} if more else {})}
    if 'teacher' not in inspect.signature(target).parameters:  # only pruned from it
      return make(section, HOMES['method'], where, **students)
    found |= students
  built = make(section, HOMES['method'], where, **found)
  fresh = 'disc_init' in inspect.signature(target).parameters
  if 'adversary' in section and section.get('disc_init', 'teacher') != 'fresh':
    theirs = source.modules.get('disc')
    if theirs != built.adversary.disc:
      raise ValueError(f"{where}: it continues from the discriminator of {teacher!r} ("
                       f"{arguments.shown(theirs)}) and names another ("
                       f"{arguments.shown(built.adversary.disc)}); leave out adversary.disc"
                       + (", or set disc_init='fresh'" if fresh else ''))
  return built


def _fill_in_adversary(section, learned, fields, teacher):
  """What a method takes of the adversary of the stage `teacher` that it learns from, whose method
  is `learned`."""
  if 'adversary' in section and 'disc' not in section.adversary and 'adversary' in learned:
    section.adversary.disc = learned.adversary.disc.to_dict()
  if 'teacher_adversary' in fields and 'teacher_adversary' not in section and _asks_disc(section):
    adversary = learned.get('cycle', learned).get('adversary')
    if not adversary:
      raise ValueError(f'a term asks the discriminator of {teacher!r}, which has none; learn from '
                       'a stage that has one, or leave the term out')
    section.teacher_adversary = adversary.to_dict()


def _asks_disc(section) -> bool:
  """Whether a term of a method's students asks the discriminator of their teacher."""
  losses = [section.get('distill') or {}, *(section.get('extra_distill') or {}).values()]
  return any(isinstance(term, ConfigDict) and term.get('name') in DISC_TERMS
             and term.get('weight', 1.)
             for loss in losses for term in loss.values())


def budgets(config: ConfigDict, name: str) -> dict[str, float]:
  """{role: what it may cost} of the students that a stage prunes: the method's main network
  and, where there are several budgets, others that are named by theirs."""
  stage = config.stages[name]
  if not stage.prune:
    return {}
  main = resolve(stage.method.name, HOMES['method']).main
  return pruning.roles(main, stage.prune.budget)


def source(section: Mapping[str, Any]):
  """The data source of a `data` section: a name in `data` ('paired'), 'tfds:<name>',
  'samples:<task>' or 'package.module:function'."""
  from jaxgan_compress.data import as_source  # brings readers that no other section needs
  given = {key: value for key, value in section.items() if key != 'name'}
  with blaming('data'):
    name = _named(section, 'jaxgan_compress.data')
  for prefix, argument in (('tfds', 'catalogue'), ('samples', 'task')):
    if name.startswith(f'{prefix}:'):
      given[argument], name = name.removeprefix(f'{prefix}:'), prefix
  made = make({**given, 'name': name}, 'jaxgan_compress.data', 'data')
  with blaming('data'):
    return as_source(made)


def validate(config: ConfigDict) -> None:
  """Builds everything but the data, so that a mistake costs no training. Raises ValueError."""
  configs.check(config)
  for refuses, key, message in RULES:
    if refuses(config):
      raise ValueError(f'{key}={arguments.shown(configs.value_of(config, key))}{message(config)}')
  for i, name in enumerate(config.run):
    stage = config.stages[name]
    for refuses, key, message in STAGE_RULES:
      if refuses(config, stage, config.run[:i]):
        raise ValueError(f'stages.{name}.{key}={arguments.shown(configs.value_of(stage, key))}'
                         f'{message(config, stage, config.run[:i])}')
    for role, path in stage.init_from.items():
      if (earlier := configs.stage_of(path)) and earlier not in config.run[:i]:
        raise ValueError(f'stages.{name}.init_from.{role}={path}: run has no stage {earlier!r} '
                         f'before it; {_one_of(config.run[:i])}')
      if earlier:
        continue
      if not isinstance(path, str) or not convert.is_there(path):
        raise ValueError(f'stages.{name}.init_from.{role}: there is no file {path}; make one by '
                         'jaxgan-compress convert, or name weights that a package brings: '
                         f'{", ".join(convert.brought())}')
    for teacher in tuple(stage.teacher) or (None,):
      built = method(config, name, teacher)
      _check_order(config, name, built, config.run[:i])


def _first(found):
  return next(iter(found), None)


def _unknown_metric(c):
  return _first(metric for metric in (c.evaluate.select, *c.evaluate.best)
                if metric not in configs.SELECT)


def _is_count(x):
  return isinstance(x, int) and not isinstance(x, bool) and x >= 1


def _one_of(names):
  return f'one of {", ".join(names)}' if names else 'there is none'


# (whether a config is refused, the key that is shown, what is said of it): of a run ...
RULES = (
    (lambda c: not c.run, 'run', lambda c: '; run names no stage; give at least one'),
    (lambda c: set(c.run) - set(c.stages.keys()), 'run', lambda c: '; run names the stage ' + next(
        f'{name!r}; {configs.suggest(name, c.stages)}' for name in c.run if name not in c.stages)),
    (lambda c: len(set(c.run)) < len(c.run), 'run', lambda c: ' names a stage twice; once is all'),
    (lambda c: c.via not in configs.VIA, 'via', lambda c: f'; {_one_of(configs.VIA)}'),
    (lambda c: c.evaluate.classifier and c.evaluate.classifier not in c.run,
     'evaluate.classifier', lambda c: f" is not in run; {_one_of(c.run)}, or ''"),
    (lambda c: c.evaluate.classifier and c.evaluate.extractor, 'evaluate.classifier',
     lambda c: ' and evaluate.extractor are both given; one measures'),
    (_unknown_metric, 'evaluate.select', lambda c: (
        f': evaluate.select and evaluate.best know no {_unknown_metric(c)!r}; '
        f'{_one_of(configs.SELECT)}')),
    (lambda c: c.evaluate.count < c.evaluate.splits, 'evaluate.count',
     lambda c: f'; at least evaluate.splits={c.evaluate.splits}'),
    *((lambda c, key=key: configs.value_of(c, key) % c.log_every, key, lambda c: (
        f' is not a multiple of log_every={c.log_every}; make it one'))
      for key in ('evaluate.every', 'checkpoint.every')),
    (lambda c: c.log_every % c.steps_per_call, 'log_every', lambda c: (
        f' is not a multiple of steps_per_call={c.steps_per_call}; make it one')),
    (lambda c: c.evaluate.segmenter.get('stage') not in (None, '', *c.run),
     'evaluate.segmenter.stage', lambda c: f' is not in run; {_one_of(c.run)}'),
)
# ... and of a stage, with those before it.
STAGE_RULES = (
    (lambda c, s, before: not s.method, 'method', lambda c, s, before: (
        "; it is empty: give the section of a method, as dict(name='GAN', ...)")),
    (lambda c, s, before: s.steps % c.steps_per_call, 'steps', lambda c, s, before: (
        f' is not a multiple of steps_per_call={c.steps_per_call}; make it one')),
    (lambda c, s, before: c.steps_per_call > 1 and s.method.get('schedule'), 'method.schedule',
     lambda c, s, before: ' measures its teachers between steps; give steps_per_call=1'),
    (lambda c, s, before: s.teacher_checkpoint not in configs.CHECKPOINTS, 'teacher_checkpoint',
     lambda c, s, before: f'; {_one_of(configs.CHECKPOINTS)}'),
    (lambda c, s, before: set(s.teacher) - set(before), 'teacher', lambda c, s, before: (
        f': it learns from {_first(set(s.teacher) - set(before))!r}, which run does not have '
        f'before it; {_one_of(before)}')),
    (lambda c, s, before: len(s.teacher) > 1 and not configs.measures(c), 'teacher',
     lambda c, s, before: (f': it chooses among {len(s.teacher)} teachers, which needs '
                           'evaluate.classifier or evaluate.extractor')),
    (lambda c, s, before: s.prune and not s.teacher, 'prune', lambda c, s, before: (
        ' is of the generator of a teacher and there is none; give teacher')),
    (lambda c, s, before: s.prune and not s.prune.get('budget'), 'prune', lambda c, s, before: (
        ': prune has no budget; give what the student may cost, as budget=2.6e9')),
    (lambda c, s, before: 'calibration_batches' in s.prune and s.prune.get('criterion') !=
     'activation', 'prune', lambda c, s, before: (
         ": calibration_batches are for criterion='activation'; leave them out, or give that too")),
    (lambda c, s, before: not _is_count(s.prune.get('calibration_batches', 1)), 'prune',
     lambda c, s, before: f': calibration_batches={s.prune.calibration_batches!r} is no whole '
                          f'number from 1; default: {configs.CALIBRATION_BATCHES}'),
    (lambda c, s, before: 'teacher' in s.init_from and s.teacher, 'init_from.teacher',
     lambda c, s, before: f' and teacher={tuple(s.teacher)} both say who teaches; give one'),
)


def _check_order(config, name, built, before):
  """What only the method of a stage knows: its data, what measures it, its schedule."""
  stage, settings = config.stages[name], config.evaluate
  if built.is_generator and 'direction' in stage.data:
    raise ValueError(f'stages.{name}.data.direction={stage.data.direction!r}: give it as '
                     'data.direction, which evaluation follows, too')
  for looking in filter(None, (settings.classifier, settings.segmenter.get('stage'))):
    if built.is_generator and looking not in before:
      raise ValueError(f'run has {name!r} before {looking!r}, which measures it; put '
                       f'{looking!r} first')
  schedule = getattr(built, 'schedule', None)  # of OMGD without pairs
  if schedule and schedule.steps and schedule.steps != stage.steps:
    raise ValueError(f'stages.{name}.steps={stage.steps} and its schedule takes '
                     f'{schedule.steps} (total={schedule.total} of the teachers, and '
                     f'student_steps={schedule.student_steps} of the students after every '
                     f'teacher_steps={schedule.teacher_steps}); give steps={schedule.steps}')
  if isinstance(built.modules.get('features'), nn.EfficientNetLite0) and \
      'features' not in stage.init_from:
    raise ValueError(f'stages.{name}.init_from has no features, and without its trained weights an '
                     "EfficientNetLite0 is no measure; give features='efficientnet_lite0', which "
                     'the package of the extra \'features\' brings, or take a VGG, which may be '
                     'random')
  for role, module in built.modules.items():
    if isinstance(module, nn.LowRank) and role not in stage.init_from and \
        role not in built.roles.teachers:
      raise ValueError(f'stages.{name}.init_from has no {role}, which is of low rank and learns '
                       f'beside a base that has learned; give its file, or {configs.STARTS}NAME '
                       'for that of an earlier stage')
  for role in budgets(config, name).keys() & set(stage.init_from):
    raise ValueError(f'stages.{name}.init_from.{role} and stages.{name}.prune both say where '
                     f'{role} '
                     'starts; give one')
