"""Where the time of a training step goes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxgan_compress import config as configs
from jaxgan_compress import data
from jaxgan_compress.analysis import roofline
from jaxgan_compress.config import build
from jaxgan_compress.core import Net, normalise, paths
from jaxgan_compress.core.arguments import typed
from jaxgan_compress.core.xla import jit
from jaxgan_compress.experiment.runner import compilation_cache
from jaxgan_compress.experiment.stage import Stage, learns_from_teacher
from jaxgan_compress.experiment.workdir import Run
from jaxgan_compress.train.progress import Reporter


@typed
def profile(config: ConfigDict, folder: str | Path, stage: str | None = None, steps: int = 5
            ) -> dict[str, Any]:
  """Runs some training steps of one stage on one device and says where their time goes.

  stage: default, the first that learns from another, or the first. Nothing needs to have been
  trained: teachers have fresh weights and students are pruned from them. -> 'stage', 'operations',
  each a `roofline.Spent`, 'device', 'seconds' of a step, 'compile_seconds', 'bytes' that the
  program holds, and 'flops' of its convolutions and dot products. The trace is left in `folder`.

  Raises ValueError for an unknown stage and for a device that cannot be profiled, FileExistsError
  if the folder is not empty.
  """
  build.validate(config)
  name = stage or next((name for name in config.run if config.stages[name].teacher),
                       config.run[0])
  if name not in config.run:
    raise ValueError(f'no stage {name!r}; {configs.suggest(name, config.run)}')
  folder = paths.expand(folder)
  if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
    raise FileExistsError(f'{folder} is not empty; give another folder')
  if config.cache:
    compilation_cache()
  with build.blaming(f'stages.{name}'):
    method, prepare, batch, state = untrained(
        Run(config, folder, Reporter(quiet=True)).stages[name])
  began = time.monotonic()
  program = jit(lambda state, batch: method.step(state, normalise(prepare(batch)))).lower(
      state, batch).compile()
  compiled = time.monotonic() - began
  device = roofline.measure_device(jnp.dtype(
      vars(method.modules[method.main]).get('dtype', jnp.float32)))
  text, memory = program.as_text(), program.memory_analysis()
  if text is None or memory is None:
    raise ValueError(f'JAX does not say what programs on {jax.default_backend()} consist of; '
                     'profile on another device')
  operations = roofline.profile(lambda: program(state, batch)[1], text, steps, folder, device)
  seconds = []
  for _ in range(steps):
    began = time.monotonic()
    jax.block_until_ready(program(state, batch)[1])
    seconds.append(time.monotonic() - began)
  return {'stage': name, 'operations': operations, 'device': device, 'seconds': min(seconds),
          'compile_seconds': compiled,
          'flops': sum(spent.operation.flops * spent.calls for spent in operations),
          'bytes': memory.argument_size_in_bytes + memory.temp_size_in_bytes
          + memory.output_size_in_bytes}


def untrained(stage: Stage):
  """(method, what prepares a batch, a batch, state) of a stage where nothing has been trained."""
  teacher = next(iter(stage.candidates), None)
  method, init_from = stage.method_with(teacher), {}
  if teacher:
    theirs, _, _, state = untrained(teacher)
    nets = jax.device_get(state.nets)
    init_from = teacher.as_teacher(nets) if learns_from_teacher(method, stage.spec) else {}
    if stage.spec.prune:
      results = stage.prune(theirs.modules[theirs.main], nets[theirs.main].averaged)
      method = stage.method_with(teacher, {role: one.module for role, one in results.items()})
      init_from |= {role: Net.of(one.variables) for role, one in results.items()}
  prepare, first = dict, {}
  if method.needs_data:
    batches = stage.pipeline_of(method)
    prepare, batch = batches.prepare, batches[0]
    first = normalise(prepare(batch))
  else:
    batch = next(iter(data.sizes_only(stage.batch * method.updates)))
  state = method.init(stage.key, first, init_from or None)
  # The state of one replica, as a step sees it.
  return method, prepare, batch, state.replace(
      replica_state=jax.tree.map(lambda x: x[0], state.replica_state))
