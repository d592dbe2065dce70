"""One stage of a run: what it trains, from what, and what it has left in its folder."""

from __future__ import annotations

import dataclasses
import functools
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
from flax import linen

from jaxgan_compress import config as configs
from jaxgan_compress import convert, data, nn, pruning
from jaxgan_compress.config import CALIBRATION_BATCHES, CHECKPOINTS, SELECT, build
from jaxgan_compress.core import Method, Net, TrainState, normalise, paths
from jaxgan_compress.experiment.generators import TrainedGenerator
from jaxgan_compress.nn.files import network, realesrgan
from jaxgan_compress.train import Checkpointer, log_files

if TYPE_CHECKING:
  from jaxgan_compress.experiment.workdir import Run


class PrunedFiles:
  """The networks that pruning left for the students of a stage, one file each."""

  def __init__(self, folder: Path, roles):
    first = next(iter(roles), '')
    self.paths = {role: folder / f'pruned{role.removeprefix(first)}.safetensors' for role in roles}
    self._networks: dict[str, tuple] = {}

  @property
  def written(self) -> bool:
    """Whether all are there: a run that continues never prunes again."""
    return bool(self.paths) and all(path.is_file() for path in self.paths.values())

  def load(self, like: linen.Module) -> dict[str, tuple[linen.Module, Mapping]]:
    """{role: (module, variables)}; {} while they are not written. They are read once."""
    if not self._networks and self.written:
      self._networks = {role: nn.load(path, like) for role, path in self.paths.items()}
    return self._networks


class Stage:
  """A stage of a run, built once for each run.

  name, spec: its name and its section of the config. folder: where its files are. key: of all that
  is random in it. candidates: the stages that may be its teacher.
  """

  def __init__(self, run: Run, name: str):
    self.run, self.name, self.spec = run, name, run.config.stages[name]
    self.folder: Path = run.workdir / name
    self.key = jax.random.fold_in(jax.random.key(run.config.seed), zlib.crc32(name.encode()))
    self.batch: int = self.spec.batch or run.config.batch
    self.recipe = build.resolve(self.spec.method.name, build.HOMES['method'])
    self.pruned = PrunedFiles(self.folder, build.budgets(run.config, name))
    self._methods: dict[tuple, Method] = {}
    self._shapes: dict[tuple, TrainState] = {}

  @property
  def candidates(self) -> tuple[Stage, ...]:
    return tuple(self.run.stages[teacher] for teacher in self.spec.teacher)

  @functools.cached_property
  def teacher(self) -> Stage | None:
    """The stage that this one learns from: of several candidates, the best measured."""
    if len(self.candidates) < 2:
      return self.candidates[0] if self.candidates else None
    metric = self.run.config.evaluate.select
    values = {}
    for candidate in self.candidates:
      measured = candidate.measured()
      if not measured:
        raise ValueError(f'stage {candidate.name!r} in {self.run.workdir} is not measured yet, so '
                         f'the teacher of {self.name!r} cannot be chosen; continue training first')
      values[candidate] = measured[self.spec.teacher_checkpoint]['measures'][metric]['value']
    return (min if SELECT[metric] == 'min' else max)(values, key=lambda stage: values[stage])

  def method_with(self, teacher: Stage | None,
                  pruned: Mapping[str, linen.Module] | None = None,
                  whole: linen.Module | None = None) -> Method:
    """The method with this teacher, and with these students in place of whole networks.

    whole: the teacher's generator, where pruning has left another than the config says; None: what
    is in its folder.
    """
    if whole is None and teacher and teacher.pruned.written:
      whole = teacher.module
    key = (teacher, repr(whole),
           tuple((role, repr(module)) for role, module in (pruned or {}).items()))
    if key not in self._methods:
      self._methods[key] = build.method(self.run.config, self.name, teacher and teacher.name,
                                        pruned, whole)
    return self._methods[key]

  @property
  def whole(self) -> linen.Module:
    """The network that the stage is for, before anything is pruned."""
    method = self.method_with(next(iter(self.candidates), None))
    return method.modules[method.main]

  @property
  def method(self) -> Method:
    """The method, its students as they were pruned."""
    networks = self.pruned.load(self.whole) if self.pruned.paths else {}
    return self.method_with(self.teacher, {role: module for role, (module, _) in networks.items()})

  @property
  def module(self) -> linen.Module:
    """The network that the stage is for."""
    return self.method.modules[self.method.main]

  @property
  def taught_by(self) -> Stage | None:
    """The teacher, if the stage learns from it or continues with its teachers, and is not only
    pruned from it."""
    teacher = self.teacher
    return teacher if teacher and learns_from_teacher(self.method, self.spec) else None

  def source(self):
    """The data that the stage trains on."""
    return self.run.source(**self.spec.data)

  def pipeline(self) -> data.Pipeline:
    """The batches that the stage trains on."""
    return self.pipeline_of(self.method)

  def pipeline_of(self, method: Method) -> data.Pipeline:
    """The batches that a method of this stage trains on."""
    return self._pipeline(self.batch * method.updates)

  def _pipeline(self, batch: int, **share) -> data.Pipeline:
    config = self.run.config
    return data.Pipeline(
        self.source(), seed=config.seed, batch=batch, workers=config.workers,
        augment=data.random_shift(self.spec.shift) if self.spec.shift else None, **share)

  def calibration(self, module: linen.Module, count: int, reverse: bool = False) -> Iterator:
    """The first `count` batches of inputs that a generator trains on here, float32: the same on
    every host and whenever they are read. reverse: it translates targets to sources."""
    if nn.input_kind(module) == 'latent':
      key = self._pruning_key()
      for i in range(count):
        yield jax.random.normal(jax.random.fold_in(key, i), (self.batch, module.latent))
      return
    batches = self._pipeline(self.batch, host=0, hosts=1)
    for i in range(count):
      yield normalise(batches.prepare(batches[i]))['target' if reverse else 'source']

  def _pruning_key(self):
    return jax.random.fold_in(jax.random.key(self.run.config.seed),
                              zlib.crc32(f'{self.name}.prune'.encode()))

  def example(self, method: Method):
    """One element of the data as a batch, {} for a method that needs none."""
    return data.prepared_batch(self.source(), [0]) if method.needs_data else {}

  # What it starts from.

  def init_from(self) -> dict[str, Net] | None:
    """The networks that the stage starts from: of its teacher's checkpoint, of pruning, of files.
    """
    nets = self.files() | self.of_stages(lambda stage: stage.nets(self.spec.teacher_checkpoint))
    if teacher := self.taught_by:
      nets = teacher.as_teacher(teacher.nets(self.spec.teacher_checkpoint)) | nets
    return nets or None

  def files(self) -> dict[str, Net]:
    """{role: Net} of what pruning left, and of the files that `init_from` names."""
    networks = self.pruned.load(self.whole) if self.pruned.paths else {}
    return {role: Net.of(variables) for role, (_, variables) in networks.items()} | \
        self.named_files(self.method)

  def named_files(self, method: Method) -> dict[str, Net]:
    """{role: Net} of the section `init_from`, whose files hold the networks that the method has.
    """
    nets = {}
    for role, path in self.spec.init_from.items():
      if configs.stage_of(path):
        continue
      with build.blaming(f'stages.{self.name}.init_from.{role}'), self.run.placed():
        module, variables = convert.open_network(path, method.modules.get(role))
        if role not in method.modules:
          raise ValueError(f'{type(method).__name__} has no network of this role; it has '
                           f'{", ".join(method.modules)}')
        wanted = method.modules[role]
        if not isinstance(module, nn.LowRank):  # it may be the base of one
          wanted = nn.plain(wanted)
        if differing := _differences(module, wanted, role):
          raise ValueError(f'{path} is of another network, with {differing}; change the method, or '
                           'give the file of its network')
      nets[role] = Net.of(variables)
    return nets

  def of_stages(self, nets: Callable[[Stage], Mapping[str, Net]]) -> dict[str, Net]:
    """{role: Net} of the earlier stages that the section `init_from` names: of each the network
    that it is for, averaged where it has an average. nets: of a stage, or their shapes."""
    return {role: Net.of(nets(stage)[stage.recipe.main].averaged)
            for role, stage in self.begins_from.items()}

  @property
  def begins_from(self) -> dict[str, Stage]:
    """{role: the earlier stage whose network it starts as}."""
    return {role: self.run.stages[name] for role, path in self.spec.init_from.items()
            if (name := configs.stage_of(path))}

  @property
  def notice(self) -> str:
    """What whoever passes on its networks has to say of the files and stages that it starts or
    learns from. It is kept in the folder once the stage has started, for the files may go."""
    if self.notice_file.is_file():
      return self.notice_file.read_text().strip()
    texts = [network.notice_of(path) for path in self.spec.init_from.values()
             if realesrgan.is_name(path) or paths.expand(path).is_file()]
    texts += [stage.notice for stage in (*self.candidates, *self.begins_from.values())]
    return '\n'.join(dict.fromkeys(line for text in texts for line in text.splitlines()))

  @property
  def notice_file(self) -> Path:
    return self.folder / 'notice.txt'

  def as_teacher(self, nets: Mapping[str, Net]) -> dict[str, Net]:
    """This stage's networks under the roles that its student's method gives them."""
    main = self.recipe.main
    # Its adapters are of another pair of networks.
    return {'teacher': nets[main], **{role: net for role, net in nets.items()
                                      if role != main and not role.endswith('_adapters')}}

  def prune(self, module: linen.Module, variables, own=lambda role: None, *, trial: bool = False
            ) -> dict[str, pruning.PruneResult]:
    """{role: what is left} of a network, for the stage's students, each of which holds the smaller
    ones.

    own: role -> variables of another network of this kind, which is pruned instead, or None.
    trial: of weights that mean nothing, whose activations are not looked at. Raises ValueError for
    a budget that cannot be met.
    """
    shape = module.example().shape if nn.input_kind(module) == 'latent' else (
        1, *data.prepared_batch(self.source(), [0])['source'].shape[1:])
    with build.blaming(f'stages.{self.name}.prune'):
      if not hasattr(module, 'plan'):  # networks of users' own may have none
        raise ValueError(f'a {type(module).__name__} has no plan() of what may be pruned; see '
                         'docs/howto.md')
      settings, shared, results = self.spec.prune.to_dict(), None, {}
      count = settings.pop('calibration_batches', CALIBRATION_BATCHES)
      by_activation = settings.get('criterion') == 'activation'
      if by_activation and trial:
        settings['criterion'], by_activation = 'random', False

      def statistics(weights):
        return pruning.activation_statistics(module, weights, self.calibration(module, count))

      for role, budget in build.budgets(self.run.config, self.name).items():
        mine = own(role)
        if by_activation:
          shared = shared if mine or shared else statistics(variables)
          settings['batches'] = statistics(mine) if mine else shared
        results[role] = pruning.prune(module, mine or variables, shape, key=self._pruning_key(),
                                      **{**settings, 'budget': budget})
      for result in results.values():
        network.describe(result.module, like=module)  # it will have to be saved
      return results

  # What it has left in its folder.

  @property
  def done_file(self) -> Path:
    """There as soon as the stage is complete."""
    return self.folder / 'done.json'

  @property
  def is_done(self) -> bool:
    return self.done_file.is_file()

  @property
  def accuracy(self) -> float | None:
    """The share of held-out images that a finished classifier gets right."""
    return json.loads(self.done_file.read_text()).get('accuracy')

  def measured(self) -> dict[str, dict[str, Any]]:
    """{'last': line, 'best': line} of the recorded evaluations; {} if there are none."""
    lines = log_files.read_lines(self.folder / 'evaluations.jsonl')
    with self.checkpointer(read_only=True) as checkpointer:
      best = checkpointer.best_step()
    kept = [line for line in lines if line['step'] == best]
    return {'last': lines[-1], 'best': kept[0]} if kept else {}

  def checkpointer(self, read_only: bool = False) -> Checkpointer:
    """The checkpoints, kept as the config says."""
    config = self.run.config
    measured = configs.measures(config) and self.recipe.is_generator
    return Checkpointer(
        self.folder / 'checkpoints', keep=config.checkpoint.keep, read_only=read_only,
        best={metric: SELECT[metric] for metric in (config.evaluate.select, *config.evaluate.best)}
        if measured else None)

  def state(self, checkpoint: str = 'last') -> TrainState:
    """The state at the 'best' or 'last' checkpoint, or at 'best:METRIC'. Raises FileNotFoundError
    if there is none."""
    kind, _, metric = checkpoint.partition(':')
    if kind not in CHECKPOINTS or (':' in checkpoint and (kind != 'best' or not metric)):
      raise ValueError(f'checkpoint={checkpoint!r}; best, last, or best:METRIC')
    with self.checkpointer(read_only=True) as checkpointer:
      step = checkpointer.best_step(metric or None) if kind == 'best' else None
      state = checkpointer.restore(self.shapes(), step)
    if state is None:
      raise FileNotFoundError(f'stage {self.name!r} in {self.run.workdir} has no checkpoint; train '
                              'it first')
    return state

  def nets(self, checkpoint: str = 'last') -> dict[str, Net]:
    """The networks at a checkpoint, see `state`."""
    return self.state(checkpoint).nets

  def shapes(self) -> TrainState:
    """The shapes of the state, without reading or making any."""
    key = self.teacher, self.pruned.written  # a whole network until it is pruned
    if key not in self._shapes:  # tracing takes seconds, and each generator asks
      init_from = self.files() | self.of_stages(lambda stage: stage.shapes().nets)
      if teacher := self.taught_by:
        init_from = teacher.as_teacher(teacher.shapes().nets) | init_from
      self._shapes[key] = jax.eval_shape(self.method.init, self.key, self.example(self.method),
                                         init_from or None)
    return self._shapes[key]

  def remember_shapes(self, teacher: Stage | None, state: TrainState):
    """Keeps shapes that another has traced, of the stage with this teacher before pruning."""
    self._shapes[teacher, False] = state

  @functools.cached_property
  def generators(self) -> tuple[TrainedGenerator, ...]:
    """The generators that learn in the stage, its own first, students then."""
    method, shapes = self.method, self.shapes()
    learning = jax.eval_shape(method.generators, shapes).keys() & shapes.nets.keys()
    return tuple(TrainedGenerator(self, role) for role in sorted(learning, key=lambda role: (
        role != method.main, role not in method.roles.students, role)))


def learns_from_teacher(method: Method, spec) -> bool:
  """Whether a method takes networks of its teacher's stage, and not only what pruning left."""
  return not spec.prune or bool(method.roles.teachers)


def _differences(ours, theirs, role):
  """In words, the fields in which two networks differ, but for those that change no image; a
  feature network may have further layers."""
  if type(ours) is not type(theirs):
    return f'a {type(ours).__name__} where a {type(theirs).__name__} is needed'
  free = {'name', 'parent', 'dtype', 'dropout'} | ({'layers'} if role == 'features' else set())
  spell = network.spell
  pairs = {field.name: (vars(ours)[field.name], vars(theirs)[field.name])
           for field in dataclasses.fields(ours) if field.name not in free}
  return ', '.join(f'{key}={spell(a)} where {spell(b)} is needed'
                   for key, (a, b) in pairs.items() if a != b)
