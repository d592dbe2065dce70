"""The generators of runs and of network files, exported."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxgan_compress import data, nn
from jaxgan_compress.core import BoundGenerator, paths
from jaxgan_compress.core.arguments import typed
from jaxgan_compress.experiment.workdir import open_run
from jaxgan_compress.export import DEFAULT, sides, write_folder
from jaxgan_compress.nn.files import network

BITS = {np.dtype(np.uint8): 8, np.dtype(np.uint16): 16}  # of pictures, by their type
CALIBRATION = 32  # inputs for the ranges of int8


@typed
def export_run(workdir: str | Path, name: str | None = None, out: str | Path | None = None, *,
               checkpoint: str = 'best', to: Sequence[str] = DEFAULT,
               layout: str = 'NHWC', int8: bool = False, moved: Mapping[str, str] | None = None,
               **more
               ) -> tuple[Path, dict[str, Any]]:
  """Exports a generator of a run, see `write_folder`; returns (the folder, the proof).

  name: as in the report (default: the first student, or the first generator). out: default
  `export/<name>` in the work directory. Compared on inputs of the final comparison, int8 with its
  ranges from images that it was trained on. moved: of `open_run`. more: as of `write_folder`.
  Raises ValueError for an unknown name, and as `open_run` and `write_folder`.
  """
  run = open_run(workdir, moved=moved)
  generator = run.measured_generator(name)
  bound = generator.bound(checkpoint)
  inputs, more_of_inputs = (_latent_inputs if generator.from_latents else _image_inputs)(
      generator, bound.module, int8)
  out = paths.expand(out) if out else run.workdir / 'export' / generator.name
  return out, write_folder(bound, out, inputs, to=to, layout=layout, **more_of_inputs,
                           facts=_facts(run, generator.name, checkpoint),
                           notice=generator.stage.notice, **more)


def _latent_inputs(generator, module, int8):
  """(latents to compare on, further arguments of `write_folder`)."""
  seed = generator.stage.run.config.evaluate.seed
  return latents(module, seed), {
      'calibration': np.concatenate(latents(module, seed + 1, CALIBRATION)) if int8 else None}


def _image_inputs(generator, module, int8):
  """As `_latent_inputs`, of a generator that generates from images or label maps."""
  examples, source = generator.examples(8), generator.stage.source()
  element = source[0]
  inputs = of_sizes(module, np.asarray(examples['source'], np.float32))
  labels, calibration = source.labels, None
  if labels and sum(labels.values()) != inputs[0].shape[-1]:
    labels = None  # it takes something else
  side = 'target' if generator.is_reverse else 'source'
  bits = None if labels or side not in element else BITS.get(element[side].dtype)
  if int8:
    rows = np.linspace(0, len(source) - 1, min(len(source), CALIBRATION)).astype(int)
    calibration = np.asarray(data.prepared_batch(source, rows)[side], np.float32)
  return inputs, {'calibration': calibration, 'labels': labels, 'bits': bits,
                  'colors': 'rgb' if generator.paints else 'input',
                  'pictures': np.asarray(examples['picture'])}


def _facts(run, name, checkpoint) -> dict[str, str]:
  """What is known of a generator's checkpoint, in words."""
  facts = {'run': f'{Path(run.workdir).name}, generator {name}, {checkpoint} checkpoint, seed '
                  f'{run.config.seed}'}
  results = run.workdir / 'results.json'
  row = json.loads(results.read_text())['generators'].get(name, {}) if results.is_file() else {}
  if 'ratio_macs' in row:
    facts['against its teacher'] = (f'{row["ratio"]:.1f} times fewer parameters, '
                                    f'{row["ratio_macs"]:.1f} times fewer multiply-accumulates')
  measures = row.get(checkpoint.partition(':')[0], {}).get('measures', {})
  measured = {key: each for key, each in measures.items() if isinstance(each['value'], float)}
  if measured:
    *_, protocol = (each['protocol'] for each in measured.values())
    values = ', '.join(f'{key} {each["value"]:.4g}' for key, each in measured.items())
    facts['measured'] = f'{values} (on {protocol["data"]}, by {protocol["feature_net"]})'
  return facts


@typed
def export_network(path: str | Path, out: str | Path, shape: Sequence[int], *,
                   to: Sequence[str] = DEFAULT, layout: str = 'NHWC', bits: int | None = None,
                   **more) -> dict[str, Any]:
  """Exports a file that `nn.save`, `convert` or `prune` wrote, see `write_folder`.

  shape: of an input. It is compared on noise; for int8 too little is known of its inputs. more: as
  of `write_folder`, above all `labels` for a network of label maps, and `bits` for one of pictures
  of other channels than 1 and 3. Raises ValueError for a network
  that generates nothing, and as `nn.load` and `write_folder`.
  """
  module, variables = nn.load(path)
  if not hasattr(module, 'plan'):  # of generators, a classifier has none
    raise ValueError(f'{path} is a {type(module).__name__}, which generates no images; export '
                     'takes '
                     'generators')
  rng = np.random.default_rng(0)
  if len(shape) == 2:
    inputs = latents(module, 0)
  elif bits or shape[-1] in (1, 3):
    inputs = of_sizes(module, rng.uniform(-1, 1, (3, *shape[1:])).astype(np.float32))
  else:
    inputs = of_sizes(module, np.eye(shape[-1], dtype=np.float32)[
        rng.integers(0, shape[-1], (3, *shape[1:3]))])
  pictures = None if len(shape) == 2 or bits or shape[-1] in (1, 3) else inputs[0][..., :3] * 2 - 1
  return write_folder(BoundGenerator(variables, module), out, inputs, to=to, layout=layout,
                      facts={'weights': Path(path).name}, pictures=pictures, bits=bits,
                      notice=network.notice_of(path), **more)


def latents(module, seed: int, count: int = 8) -> list[np.ndarray]:
  """Batches of `count`, and of 1; up to 16 are those that reports show."""
  z = np.asarray(jax.random.normal(jax.random.key(seed), (max(count, 16), module.latent)))[:count]
  return [z, z[:1]]


def of_sizes(module, x: np.ndarray) -> list[np.ndarray]:
  """Images [B,H,W,C] as they are, one of them alone, and three of the next larger height."""
  step, _ = sides(module)
  taller = np.concatenate([x[:3], x[:3, :step]], 1)
  return [x, x[:1], taller]
