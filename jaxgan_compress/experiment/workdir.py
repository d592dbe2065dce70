"""A config and its work directory: stages, data and measures, all read only."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxgan_compress import config as configs
from jaxgan_compress import convert, distributed
from jaxgan_compress.config import build
from jaxgan_compress.core import paths
from jaxgan_compress.core.arguments import typed
from jaxgan_compress.experiment.evaluation import Evaluation
from jaxgan_compress.experiment.generators import TrainedGenerator
from jaxgan_compress.experiment.stage import Stage
from jaxgan_compress.train.progress import Reporter


@typed
def open_run(workdir: str | Path, reporter: Reporter | None = None, *,
             moved: Mapping[str, str] | None = None) -> Run:
  """The run in a work directory. Raises FileNotFoundError if there is none.

  moved: {key of the config: where that file or folder is now}, as {'data.path': '/mnt/maps'}; what
  is stored stays as it is. Raises ValueError for a key that holds no path.
  """
  workdir = distributed.folder(workdir)
  stored = workdir / 'config.json'
  if not stored.is_file():
    raise FileNotFoundError(f'{workdir} holds no run (no config.json); '
                            'train one with jaxgan-compress train')
  config = configs.read(stored)
  keys = named_paths(config)
  for key, path in (moved or {}).items():
    if key not in keys:
      raise ValueError(f'{key!r} is no path in {stored}; {configs.suggest(key, keys)}')
    *sections, last = key.split('.')
    section: Any = config
    for name in sections:
      section = section[name]
    section[last] = str(path)
  return Run(config, workdir, reporter or Reporter(quiet=True), stored)


def named_paths(config: ConfigDict) -> dict[str, str]:
  """{dotted key: path} of the files and folders that a config names, not of weights of packages."""

  def walk(section, prefix, in_files):
    for key, value in section.items():
      if isinstance(value, Mapping):
        yield from walk(value, f'{prefix}{key}.', in_files or key == 'init_from')
      elif isinstance(value, str) and (in_files or key in ('path', 'data_dir')) \
          and value not in convert.brought() and not (in_files and configs.stage_of(value)):
        yield prefix + key, value

  return dict(walk(config.to_dict(), '', False))


class Run:
  """The stages of one config in one work directory.

  stages: {name: Stage}, in order. evaluation: what measures its generators. stored: the file that
  the config was read from, if it was.
  """

  def __init__(self, config: ConfigDict, workdir: Path, reporter: Reporter,
               stored: Path | None = None):
    self.config, self.workdir, self.reporter, self.stored = config, workdir, reporter, stored
    self.stages = {name: Stage(self, name) for name in config.run}
    self.evaluation = Evaluation(self)
    self.bound_generators: dict = {}
    self._sources: dict = {}

  def generator(self, name: str) -> TrainedGenerator:
    """The generator that a stage is for ('stage'), or another that learned in it ('stage.wide').

    Raises ValueError for a stage that is not there.
    """
    stage, _, role = name.partition('.')
    if stage not in self.stages:
      raise ValueError(f'no stage {stage!r}; {configs.suggest(stage, self.stages)}')
    return TrainedGenerator(self.stages[stage], role or self.stages[stage].recipe.main)

  def measured_generators(self) -> list[TrainedGenerator]:
    """Every generator that learned in a stage which measured its own (if anything measures), in
    order. Raises ValueError if there is none yet."""
    generators: list[TrainedGenerator] = []
    for stage in self.stages.values():
      if not stage.recipe.is_generator:
        continue
      if stage.measured() if configs.measures(self.config) else stage.is_done:
        generators += stage.generators
      else:
        self.reporter.say(f'{stage.name}: left out, it is not trained far enough to be measured')
    if not generators:
      raise ValueError(f'{self.workdir} has no measured generator yet; continue training first')
    return generators

  def measured_generator(self, name: str | None = None) -> TrainedGenerator:
    """The one of that name among `measured_generators`; by default the first student, or the first.

    Raises ValueError for a name that is not among them, and where there is none yet.
    """
    generators = {each.name: each for each in self.measured_generators()}
    name = name or next((name for name, each in generators.items() if each.teacher),
                        next(iter(generators)))
    if name not in generators:
      raise ValueError(f'no generator {name!r}; {configs.suggest(name, generators)}')
    return generators[name]

  def source(self, **more):
    """The data of the config, some fields given anew; opened once."""
    section = {**self.config.data.to_dict(), **more}
    key = json.dumps(section, sort_keys=True)
    if key not in self._sources:
      with self.placed():
        self._sources[key] = build.source(section)
    return self._sources[key]

  @contextlib.contextmanager
  def placed(self):
    """A file that is not found is named with its key in the config, and how to give another
    place."""
    try:
      yield
    except FileNotFoundError as e:
      missing = {key: path for key, path in named_paths(self.config).items()
                 if not paths.expand(path).exists()}
      if not missing:
        raise
      where, flag = (self.stored, 'moved=') if self.stored else ('the config', 'config.')
      raise FileNotFoundError(
          f'{e}. Not there, as seen from {Path.cwd()}: ' + ', '.join(
              f'{key}={path}' for key, path in missing.items())
          + f' of {where}; where it is now is given by ' + ' '.join(
              f'--{flag}{key}=PATH' for key in missing)) from e
