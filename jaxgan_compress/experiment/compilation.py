"""The training step of a stage, compiled for a machine that is not here."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen
from ml_collections import ConfigDict

from jaxgan_compress import config as configs
from jaxgan_compress import nn, pruning
from jaxgan_compress.analysis.ahead_of_time import Program, compile_lowered
from jaxgan_compress.analysis.targets import parse_target
from jaxgan_compress.config import build
from jaxgan_compress.core import Method, Net, TrainState, xla
from jaxgan_compress.core.arguments import typed
from jaxgan_compress.experiment.stage import learns_from_teacher
from jaxgan_compress.nn.init import shapes
from jaxgan_compress.parallel import lower_step

DTYPES = ('float32', 'bfloat16')
RECORDED = 64  # pixels of a side of an input in a recording, unless `record` was told otherwise


@typed
def compile_stage(config: ConfigDict, target: str, stage: str | None = None, *,
                  devices: int | None = None, batch: int | None = None, dtype: str | None = None
                  ) -> Program:
  """Compiles one training step of a stage for a machine that need not be here.

  No data is read and nothing is trained: shapes suffice. target: see `analysis.compile_for`.
  stage: default, the last that trains a generator. devices: how many of the target's train
  together, each on its rows; default: all. batch: images of each device; default: the batch of the
  config, so that several devices train on several times as many. dtype: 'float32' or 'bfloat16'
  for all networks; default: as the config has it.

  Raises ValueError for what does not exist and ImportError where the target's compiler is not
  installed; what the compiler refuses is `error` of the result.
  """
  machine = parse_target(target)
  lowered = lower_stage(config, target, stage, devices=devices, batch=batch, dtype=dtype)
  return compile_lowered(lowered, machine, machine.mesh(devices).size)


def lower_stage(config: ConfigDict, target: str, stage: str | None = None, *,
                devices: int | None = None, batch: int | None = None, dtype: str | None = None
                ) -> jax.stages.Lowered:
  """The program that `compile_stage` compiles, of the same arguments."""
  machine = parse_target(target)
  mesh = machine.mesh(devices)
  name = stage or next(name for name in reversed(config.run) if build.resolve(
      config.stages[name].method.name, build.HOMES['method']).is_generator)
  if name not in config.run:
    raise ValueError(f'no stage {name!r}; {configs.suggest(name, config.run)}')
  if dtype not in (None, *DTYPES):
    raise ValueError(f'dtype={dtype!r}; one of {", ".join(DTYPES)}')
  rows = (batch or config.stages[name].batch or config.batch) * mesh.size
  with build.blaming(f'stages.{name}'), xla.building_for(machine.platform):
    method, state, images = untrained(config, name, rows, dtype)
    return lower_step(method.step, mesh, state, images)


def untrained(config: ConfigDict, name: str, rows: int, dtype: str | None = None
              ) -> tuple[Method, TrainState, dict[str, Any]]:
  """(method, shapes of its state as one replica sees it, shapes of a batch of so many rows an
  update) of a stage where nothing has been trained. Students are pruned from networks of random
  weights, and neither files of weights nor data are read."""
  stage = config.stages[name]
  teacher, init_from, pruned = next(iter(stage.teacher), None), {}, None
  method = build.method(config, name, teacher)
  if teacher:
    theirs, state, batch = untrained(config, teacher, rows, dtype)
    if learns_from_teacher(method, stage):
      init_from = {'teacher': state.nets[theirs.main],
                   **{role: net for role, net in state.nets.items()
                      if role != theirs.main and not role.endswith('_adapters')}}
    if stage.prune:
      results = _pruned(config, name, theirs)
      pruned = {role: result.module for role, result in results.items()}
      init_from |= {role: Net.of(result.variables) for role, result in results.items()}
      method = build.method(config, name, teacher, pruned)
  for role in stage.init_from:
    if role not in method.modules:
      raise ValueError(f'init_from.{role}: {type(method).__name__} has no network of this role; it '
                       f'has {", ".join(method.modules)}')
    init_from[role] = Net.of(shapes(method.modules[role]))
  method = computing_in(method, dtype) if dtype else method
  batch = batch_shapes(config, name, method, rows * method.updates)
  state = jax.eval_shape(functools.partial(method.init, jax.random.key(0)), batch,
                         init_from or None)
  return method, state.replace(replica_state=jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), state.replica_state)), batch


def _pruned(config, name, theirs):
  whole = theirs.modules[theirs.main]
  shape = whole.example().shape if nn.input_kind(whole) == 'latent' else \
      (1, *input_size(config, name)[1], whole.example().shape[-1])
  key = jax.random.key(0)
  with xla.building_for('cpu'):  # these weights are made here
    weights = nn.initialise(whole, key)
    # Scales that nothing has trained yet are all alike.
    settings = {**config.stages[name].prune.to_dict(), 'criterion': 'random'}
    settings.pop('calibration_batches', None)
    return {role: pruning.prune(whole, weights, shape, key=key, **{**settings, 'budget': budget})
            for role, budget in build.budgets(config, name).items()}


def computing_in(value: Any, dtype: str) -> Any:
  """A method, or whatever holds networks, with all networks computing in another type."""
  if isinstance(value, linen.Module):
    return value.clone(dtype=jnp.dtype(dtype).type) if 'dtype' in vars(value) else value
  if isinstance(value, Mapping):
    return {key: computing_in(item, dtype) for key, item in value.items()}
  if type(value) in (tuple, list):
    return type(value)(computing_in(item, dtype) for item in value)
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    return dataclasses.replace(value, **{
        field.name: computing_in(getattr(value, field.name), dtype)
        for field in dataclasses.fields(value) if field.init})
  return value


def batch_shapes(config: ConfigDict, name: str, method: Method, rows: int) -> dict[str, Any]:
  """The shapes of so many rows of what a stage trains on."""
  module = method.modules[method.main]
  shaped = lambda shape: jax.ShapeDtypeStruct((rows, *shape), jnp.float32)
  if not method.needs_data:
    return {'row': jax.ShapeDtypeStruct((rows,), jnp.int32)}
  generated = lambda x: jax.eval_shape(
      module.init_with_output, jax.random.key(0), x)[0][0].shape[1:]
  if nn.input_kind(module) == 'latent':
    return {'target': shaped(generated(module.example()))}
  source = shaped((*input_size(config, name)[0], module.example().shape[-1]))
  return {'source': source, 'target': shaped(generated(
      jax.ShapeDtypeStruct((1, *source.shape[1:]), jnp.float32)))}


def input_size(config: ConfigDict, name: str) -> tuple[tuple[int, int], tuple[int, int]]:
  """((height, width) of an input in training, the same in evaluation) in pixels."""
  section = {**config.data.to_dict(), **config.stages[name].data}
  if section.get('name') == 'upscaled':
    whole, crop = RECORDED, section.get('crop') or RECORDED
    return (crop, crop), (whole, whole)
  size = section.get('size', 256)
  height, width = (size, size) if isinstance(size, int) else size
  if section.get('name') == 'labels' and section.get('preprocess', 'scale_width') == 'scale_width':
    height = width // 2  # as of Cityscapes
  return (height, width), (height, width)
