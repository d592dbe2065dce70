"""A config inspected before anything is trained: its networks, its data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxgan_compress import config as configs
from jaxgan_compress import data, nn
from jaxgan_compress.analysis import captioned, colour_labels, model_cost
from jaxgan_compress.analysis.image_grid import shown_as
from jaxgan_compress.config import build
from jaxgan_compress.core import normalise
from jaxgan_compress.core.arguments import typed
from jaxgan_compress.experiment.stage import Stage
from jaxgan_compress.experiment.workdir import Run
from jaxgan_compress.train.progress import Reporter

SIDE = 1024  # pixels: a sheet of photographs in full size would take the memory


@typed
def describe(config: ConfigDict) -> list[dict[str, Any]]:
  """Every generator and discriminator of a config: stage, role, name, parameters, MACs, the shapes
  of its variables, and the budget to which it will be pruned, until when it is whole. Trains
  nothing."""
  build.validate(config)
  table, costs = [], {}
  for stage in Run(config, Path(), Reporter(quiet=True)).stages.values():
    for role, network, x in _networks(stage):
      name, network = type(network).__name__, nn.plain(network)
      if (key := repr((network, x.shape))) not in costs:  # stages share networks
        with build.blaming(f'stages.{stage.name}.method: its {role}'):
          variables = jax.eval_shape(network.init, jax.random.key(0), x)
        costs[key] = {'params': model_cost.count_params(variables),
                      'params_paper': model_cost.count_params(variables, 'paper'),
                      'macs': model_cost.macs(network, x.shape), 'variables': variables}
      table.append({'stage': stage.name, 'role': role, 'network': name,
                    'budget': build.budgets(config, stage.name).get(role), **costs[key]})
  return table


def _networks(stage: Stage):
  """[(role, module, an input)] of all generators and discriminators that learn in a stage."""
  method = stage.method_with(next(iter(stage.candidates), None))
  if not method.is_generator:
    return []
  main, roles = method.modules[method.main], method.roles
  discs = [('disc', method.modules['disc'])] if 'disc' in method.modules else []
  if nn.input_kind(main) == 'latent':
    image = jax.eval_shape(main.init_with_output, jax.random.key(0), main.example())[0][0]
    return [(method.main, main, main.example()),
            *((role, network, image) for role, network in discs)]
  aside = {*roles.disc, 'disc', 'features', *(['teacher'] if stage.candidates else [])}
  networks = [(role, network) for role, network in method.modules.items() if role not in aside]
  section = {**stage.run.config.data.to_dict(), **stage.spec.data}
  size = section.get('size', 256)
  height, width = (size, size) if isinstance(size, int) else size
  if section.get('name') == 'labels' and section.get('preprocess', 'scale_width') == 'scale_width':
    height = width // 2  # as of Cityscapes; what the folder's are, only its files know
  return [(role, network, jax.ShapeDtypeStruct(
      (1, height, width, network.example().shape[-1]), jnp.float32))
      for role, network in (*networks, *discs)]


@typed
def show_data(config: ConfigDict, stage: str | None = None, *, columns: int = 8) -> np.ndarray:
  """An image of what a stage trains on: two batches as it gets them, and the set as evaluation
  sees it.

  stage: its name (default: the first that takes data). Returns uint8 [h,w,3]. Raises ValueError
  for a stage that is not there or takes no data.
  """
  build.validate(config)
  run = Run(config, Path(), Reporter(quiet=True))
  reading = {name: each for name, each in run.stages.items()
             if each.recipe.needs_data is not False}
  if stage is not None and stage not in reading:
    raise ValueError(f'no stage {stage!r} takes data; {configs.suggest(stage, reading)}')
  name = stage or next(iter(reading))
  source, spec = reading[name].source(), reading[name].spec
  pipeline = data.Pipeline(source, batch=columns, seed=config.seed,
                           augment=data.random_shift(spec.shift) if spec.shift else None)
  first = data.stack(source, range(min(columns, len(source))))
  rows = [row for caption, batch in (
      ('training, step 0', pipeline[0]), ('training, step 1', pipeline[1]),
      ('as evaluation sees them', first)) for row in _rows(caption, batch, pipeline)]
  view = source.a.view
  return captioned(rows, f'{name}: {source!r}, {len(source)} images an epoch' + (
      f'\n{view}' if view else ''))


def _rows(caption, batch, pipeline):
  """[(caption with sizes and range, images in [-1, 1])] of a batch."""
  prepared, rows = pipeline.prepare(batch), []
  for role in ('source', 'target', 'image'):
    if role == 'source' and 'label_map' in batch:
      rows.append((f'{caption}: source, a colour for each label, instance edges white',
                   colour_labels(*(_thinned(batch[name])[0] for name in ('label_map', 'edges')))))
    elif role in prepared:
      images, every = _thinned(prepared[role])
      ends = np.stack([prepared[role].min(), prepared[role].max()]).reshape(2, 1, 1, 1)
      low, high = normalise({'x': ends})['x'].ravel()
      size = 'x'.join(map(str, prepared[role].shape[1:])) + every
      notes = [f'{low:.2f} to {high:.2f}',
               *(['16 bits'] if batch[role].dtype == np.uint16 else []),
               *filter(None, [shown_as(images.shape[-1])])]
      rows.append((f'{caption}: {role}, {size}, {", ".join(notes)}',
                   normalise({'x': images})['x']))
  return rows


def _thinned(images):
  """Images [B,H,W,...] of at most SIDE pixels a side, and how many of theirs these are."""
  step = -(-max(images.shape[1:3]) // SIDE)
  return images[:, ::step, ::step], f', one pixel of {step} each way' if step > 1 else ''
