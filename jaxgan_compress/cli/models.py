"""Networks: what they cost, and how to convert, prune and export them."""

from __future__ import annotations

import ast
import dataclasses
import json
import math
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from flax import linen
from PIL import Image

from jaxgan_compress import analysis, config, convert, experiment, export, nn, pruning
from jaxgan_compress.cli.flags import Flag, Verb
from jaxgan_compress.cli.output import check_output, print_table
from jaxgan_compress.cli.runs import CONFIG, MOVED, OVERWRITE
from jaxgan_compress.config import build
from jaxgan_compress.data import picture_files, picture_folders
from jaxgan_compress.experiment.generators import TrainedGenerator
from jaxgan_compress.nn.files import arrays, network, realesrgan
from jaxgan_compress.train import log_files

# A class of the user's own, with fields or without: my_net:Generator:width=8.
OWN = re.compile(r'(?P<name>[A-Za-z_][\w.]*:[A-Za-z_]\w*)(:(?P<fields>.*))?')
LARGEST = 8192  # pixels of a side
CALIBRATION_BATCH = 8  # pictures, where no config says more
OF_A_RUN = ('workdir',)
WORKDIR = Flag('workdir', 'Instead of --network: the folder of a run, or gs://BUCKET/RUN.', Path)
NETWORK = Flag('network', 'The file of the network, which convert, prune or nn.save wrote.', Path)
LIKE = Flag('like', 'The class of your own that --network holds, as my_net:Generator.',
            needs=('network',))
WEIGHTS = Flag('weights', 'The .safetensors file of the weights of a class of your own, which '
               '--network=module:Class names.', Path, needs=('network',))
CHECKPOINT = Flag('checkpoint', 'The checkpoint of the run: best or last.', default='best',
                  needs=OF_A_RUN)
SIZE = Flag('size', "The size of the network's input: 256, or 256x512 (height x width); default "
            'with --workdir: the size of the data of the run.')
NETWORK_SIZE = Flag('size', "The size of the network's input: 256, or 256x512 (height x width).",
                    needs=('network',))
RUN_MOVED = dataclasses.replace(MOVED, needs=OF_A_RUN)


@runtime_checkable
class TakesExample(Protocol):
  """A network that says what its input is."""
  def example(self) -> Any: ...


@Verb('info', LIKE, dataclasses.replace(CONFIG, required=False),
      Flag('network', 'A network of jaxgan_compress.nn with its arguments, as in '
           'mobile_resnet:ngf=16, or a file that convert wrote.', Path, value='NAME|PATH'),
      NETWORK_SIZE,
      Flag('layers', 'Also list every parameter of the networks of the config.', bool, False,
           needs=('config',)),
      Flag('latency', 'Also time the forward pass of the network on this device.', bool, False,
           needs=('network',)),
      Flag('batch', 'The batch size to time besides 1.', int, 8, low=1, high=4096,
           needs=('latency',)),
      Flag('json', 'Print JSON.', bool, False))
def info(flags):
  """Print what a config or a network costs, or this machine's versions and devices."""
  if flags.network and flags.config is not None:
    raise ValueError('info takes --network or --config; give one')
  if flags.json and flags.config is not None:
    raise ValueError('--json is for --network; leave it out, a config is printed as a table only')
  if flags.network:
    _print_network(flags)
  elif flags.config is None:
    print(json.dumps(log_files.environment(), indent=1))
  else:
    _print_networks(experiment.describe(flags.config), flags.layers)


def _print_networks(rows: Sequence[Mapping[str, Any]], layers: bool):
  """A table of the networks of a config, and perhaps one of each network's parameters."""
  print_table(('stage', 'role', 'network', 'parameters', 'parameters as published', 'MACs'), [
      (row['stage'], row['role'], row['network'] + (
          f', to be pruned to {row["budget"]:.3g}' if row['budget'] else ''),
       f'{row["params"]:,}', f'{row["params_paper"]:,}', f'{row["macs"]:,}') for row in rows])
  if layers:
    from clu import parameter_overview
    for row in rows:
      print(f'\n{row["stage"]}: {row["role"]}')
      print(parameter_overview.get_parameter_overview(
          row['variables']['params'], include_stats=False))


def _print_network(flags: SimpleNamespace):
  """A table of one network's layers, and their totals."""
  stored = Path(flags.network).is_file() or realesrgan.is_name(flags.network)
  module = nn.load(flags.network)[0] if stored else build_network(flags.network)
  shape = _input_shape(module, flags.size, 'info')
  layers = analysis.layers(module, shape)
  macs = {convention: sum(layer.macs[convention] for layer in layers)
          for convention in ('exact', 'torchprofile', 'cat')}
  total = {'network': network.spell(module), 'input': list(shape),
           'params': sum(layer.params for layer in layers), 'macs': macs,
           'activation_bytes': analysis.activation_bytes(module, shape)}
  pixels, scale = math.prod(shape[:-1]), nn.output_scale(module)
  if scale > 1:
    total['macs_per_input_pixel'] = macs['exact'] / pixels
    total['macs_per_output_pixel'] = macs['exact'] / pixels / scale ** 2
  if flags.latency:
    timings = analysis.network_latency(module, shape, sorted({1, flags.batch}))
    total['latency'] = {str(batch): timing._asdict() for batch, timing in timings.items()}
  if flags.json:
    print(json.dumps({**total, 'layers': [dataclasses.asdict(layer) for layer in layers]},
                     indent=1))
    return
  print_table(('layer', 'kind', 'output', 'parameters', 'MACs', 'MACs (torchprofile)',
               'output, KiB'), [
      (layer.path, layer.kind, 'x'.join(map(str, layer.shape[1:])), f'{layer.params:,}',
       f'{layer.macs["exact"]:,}', f'{layer.macs["torchprofile"]:,}',
       f'{layer.bytes / 1024:,.0f}') for layer in layers])
  print(f'\n{total["network"]}\n'
        f'input {"x".join(map(str, shape))}: {total["params"]:,} parameters; '
        f'{macs["exact"]:,} MACs, {macs["torchprofile"]:,} as torchprofile counts, '
        f'{macs["cat"]:,} as CAT counts; about {total["activation_bytes"] / 2 ** 20:,.1f} MiB of '
        'activations at once')
  if scale > 1:
    print(f'images {scale} times larger: {total["macs_per_input_pixel"]:,.0f} MACs for each pixel '
          f'of the input, {total["macs_per_output_pixel"]:,.0f} for each of the image')
  for batch, timing in total.get('latency', {}).items():
    print(f'batch {batch}: {1e3 * timing["median"]:.2f} ms median, {1e3 * timing["p95"]:.2f} ms '
          f'95th percentile of {timing["rounds"]} calls, '
          f'{int(batch) / timing["median"]:,.1f} images/s')


@Verb('convert',
      Flag('input', 'The file to read: .pth, .safetensors, .npz, or the .param of ncnn, beside '
           'which the .bin is; or the name of an upscaler of the extra superres, as in '
           'realesrgan:x4plus.', Path, required=True, value='PATH|NAME'),
      Flag('output', 'The .safetensors file to write, or the .param of ncnn.', Path,
           required=True),
      Flag('to', "Whose names and layout the written weights have: this library's, PyTorch's, or "
           "ncnn's, in float16.", default='ours', choices=('ours', 'torch', 'ncnn')),
      Flag('override', 'Overrides a field that the keys of a state dict cannot tell, as in '
           'shared=5, dropout=0.5, slope=0.01 or upsampling=normal; repeatable.', dict,
           value='NAME=VALUE'),
      Flag('prefix', "The prefix of the keys to read, which is removed, as in 'module.'.",
           default=''),
      Flag('key', 'The key of the state dict to read, of a checkpoint that holds several.',
           default=''),
      OVERWRITE)
def convert_weights(flags):
  """Convert the weights of a network from PyTorch or ncnn, or to them."""
  source, out = flags.input, Path(flags.output)
  ends = ('.param', '.bin') if flags.to == 'ncnn' else ('.safetensors',)
  check_output(out, ends, flags.overwrite)
  for end in ends:
    check_output(out.with_suffix(end), ends, flags.overwrite)
  notes, ours = [], network.is_network(source)
  if ours or realesrgan.is_name(source) or convert.is_ncnn(source):
    if flags.override or flags.prefix or flags.key:
      kind = 'network of this library, which records its own fields' if ours else \
          'network of ncnn, whose graph says all'
      raise ValueError(f'{source} is a {kind}; leave out --override, --prefix and --key')
    module, variables = nn.load(source)
  else:
    module, variables, notes = _recognise(flags)
  unused, notice = variables.get('unused', {}), network.notice_of(source)
  print(f'{source}: {network.spell(module)}\n{analysis.count_params(variables):,} parameters'
        + (f'; kept and unused: {", ".join(unused)}' if unused else ''), *notes,
        *notice.splitlines(), sep='\n')
  if flags.to == 'torch':
    arrays.write(out, convert.to_torch(module, variables), {
        'format': 'pt', **({'notice': notice} if notice else {})}, overwrite=flags.overwrite)
    print(f'{out}: a state dict for PyTorch, safetensors.torch.load_file({str(out)!r})')
  elif flags.to == 'ncnn':
    convert.to_ncnn(out, module, variables, overwrite=flags.overwrite)
    print(f'{out.with_suffix(".param")} and {out.with_suffix(".bin").name}: for ncnn, images in '
          '[0, 1]')
  else:
    convert.save(out, module, variables, overwrite=flags.overwrite, notice=notice)
    print(f'{out}: jaxgan_compress.nn.load({str(out)!r})')


def _recognise(flags: SimpleNamespace):
  """(module, variables, notes) of the state dict that --input holds."""
  overrides = {name: _literal(value) for name, value in flags.override.items()}
  state = convert.load(flags.input, flags.key or None)
  try:
    with warnings.catch_warnings(record=True, action='always', category=UserWarning) as caught:
      module, variables = convert.from_torch(state, prefix=flags.prefix, **overrides)
  except ValueError as e:
    raise ValueError(f'{flags.input}: {e}') from e
  for warning in caught:
    print(f'warning: {warning.message}', file=sys.stderr)
  assumed = [f'{name}={value!r}' for name, value in convert.assumed(module).items()
             if name not in overrides]
  notes = [f'assumed, since keys cannot tell: {", ".join(assumed)}; change with --override'
           ] if assumed else []
  return module, variables, [*notes, f'built in, as published: {convert.built_in(module)}']


@Verb('prune', dataclasses.replace(
    NETWORK, help='The file of the network, which convert, prune or nn.save wrote; or a class of '
    'your own, module:Class, with fields as in my_net:Generator:width=8.', value='PATH|NAME'),
      WEIGHTS, LIKE, WORKDIR,
      Flag('budget', 'The largest cost of the pruned network, as in 2.6e9. Several budgets, as in '
           '1e9,2e9, make students of which each contains the smaller ones.',
           value='COST[,COST...]'),
      Flag('plan', 'Print the groups of channels that can be pruned, and what stays whole and why, '
           'and stop.', bool, False),
      Flag('allow', 'With mixed, also prune channels whose number a mean, a norm or a scale takes '
           'in, so that what is left changes, of a class of your own.', choices=('mixed',),
           needs=('network',)),
      Flag('unit', 'The unit of the budget: exact MACs, MACs as torchprofile or CAT counts them, '
           'parameters, or milliseconds of one input.', default='macs',
           choices=('macs', 'torchprofile', 'cat', 'params', 'ms')),
      Flag('table', 'The .json file of the latency table of another device, which profile-latency '
           'wrote; default: this device is measured.', Path, needs=('unit=ms',)),
      Flag('backend', 'What measures milliseconds: JAX on this device, or ONNX Runtime on this '
           'CPU.', default='jax', choices=pruning.BACKENDS, needs=('unit=ms',)),
      Flag('criterion', 'Channel importance criterion.', default='norm',
           choices=('norm', 'l1', 'l2', 'activation', 'random')),
      Flag('input', 'The picture, or the folder or pattern of pictures, in which activations are '
           'looked at; default with --workdir: the data that the stage trained on.', Path,
           needs=('criterion=activation',)),
      Flag('calibration_batches', f'The number of batches in which activations are looked at: of '
           f'the training data, or of {CALIBRATION_BATCH} pictures or latents.', int,
           config.CALIBRATION_BATCHES, low=1, needs=('criterion=activation',)),
      Flag('scope', 'The scope of the threshold: one for all layers, or the same share of the '
           'channels of every group.', default='global', choices=('global', 'group')),
      Flag('min_channels', 'The smallest number of channels of every layer that cannot vanish.',
           int, 1, low=1),
      Flag('round_to', 'Widths are rounded up to a multiple of this number.', int, 1, low=1),
      Flag('cat_search', "Search the threshold as CAT's published code does.", bool, False),
      Flag('student_init', 'The weights of the pruned network: inherited, fresh, or fresh except '
           'for the norms.', default='inherit',
           choices=('inherit', 'reinit', 'reinit_keep_norm')),
      Flag('seed', 'The seed of fresh weights and of random scores.', int, 0, low=0,
           high=config.SEEDS),
      Flag('stage', "Which stage's generator to prune; default: the first.", needs=OF_A_RUN),
      CHECKPOINT, RUN_MOVED, SIZE,
      Flag('output', 'The .safetensors file to write, next to which a .png shows the channels that '
           'stay; default with --workdir: student.safetensors in that folder.', Path), OVERWRITE)
def prune(flags):
  """Prune a network to a budget; print and plot the channels that stay."""
  run = _open_run(flags, 'prune')
  if flags.plan:
    module, _, shape = _load_generator(run, flags, 'prune')
    print(describe_plan(module, shape))
    return
  if not flags.budget:
    raise ValueError('prune needs --budget, as 2.6e9, or --plan')
  budgets = _read_budgets(flags.budget)
  out = flags.output or (run and run.workdir / 'student.safetensors')
  if not out:
    raise ValueError('prune needs --output, as student.safetensors')
  outs = _outputs(Path(out), budgets, flags)
  module, variables, shape = _load_generator(run, flags, 'prune')
  notice = _notice(run, flags)
  network.describe(module, like=module)  # before time is spent: what is left will be saved
  batches = _calibration(run, flags, module, variables, shape) if \
      flags.criterion == 'activation' else None
  table, backend = _latency_table(flags, module, shape) if flags.unit == 'ms' else (None, '')
  options: dict[str, Any] = {
      'criterion': flags.criterion, 'min_channels': flags.min_channels,
      'round_to': flags.round_to, 'scope': flags.scope, 'cat_search': flags.cat_search,
      'student_init': flags.student_init, 'key': jax.random.key(flags.seed),
      'batches': batches}
  if table and not flags.table:
    results = [pruning.prune_to_latency(module, variables, shape, budget=budget, table=table,
                                        backend=backend, **options)[0] for budget in budgets]
  else:
    results = [pruning.prune(module, variables, shape, budget=budget, unit=table or flags.unit,
                             **options) for budget in budgets]
  print_table(('channels', 'before', *(f'budget {budget:,.12g}' for budget in budgets)),
              _compare_costs([(module, variables), *((each.module, each.variables)
                                                     for each in results)],
                             results, shape, flags.unit, backend))
  for out, each in zip(outs, results, strict=True):
    nn.save(out, each.module, each.variables, overwrite=flags.overwrite, like=module,
            notice=notice)
    title = f'{out.name}: channels that stay (dark), in their order'
    Image.fromarray(pruning.plot_masks(each.masks, title)).save(out.with_suffix('.png'))
    print(f'{out} and {out.with_suffix(".png").name}: {network.spell(each.module)}')


def _calibration(run: experiment.Run | None, flags: SimpleNamespace, module: linen.Module,
                 variables: Mapping, shape: Sequence[int]) -> pruning.ActivationStatistics:
  """Statistics of activations: in --input, in the data of the run, or in latents."""
  count, kind = flags.calibration_batches, nn.input_kind(module)
  if flags.input and kind != 'image':
    raise ValueError(f'--input is for networks of pictures, and a {type(module).__name__} takes '
                     + ('latents, which --seed makes; leave it out' if kind == 'latent' else
                        'label maps; leave it out, and give its run as --workdir'))
  if flags.input:
    batches = _pictures(flags.input, shape, count)
  elif run:
    generator = _find_generator(run, flags)
    batches = generator.stage.calibration(module, count, generator.is_reverse)
  elif kind == 'latent':
    key = jax.random.key(flags.seed)
    batches = (jax.random.normal(jax.random.fold_in(key, i), (CALIBRATION_BATCH, *shape[1:]))
               for i in range(count))
  else:
    raise ValueError('--criterion=activation looks at what the network does with its inputs: give '
                     + ('pictures as --input=FOLDER, like those that it trained on' if
                        kind == 'image' else 'the run of this network of label maps as --workdir'))
  return pruning.activation_statistics(module, variables, batches)


def _pictures(path: str, shape: Sequence[int], count: int) -> Iterator[np.ndarray]:
  """Batches of pictures at this size, float32 in [-1, 1]: of more than there may be, evenly many
  of all. A last batch may have fewer."""
  files = [file for file, _ in picture_folders.find(path)]
  chosen = np.linspace(0, len(files) - 1, min(len(files), count * CALIBRATION_BATCH)).astype(int)
  for first in range(0, len(chosen), CALIBRATION_BATCH):
    pictures = [picture_files.read(files[i].read_bytes(), shape[-1], name=str(files[i])).resized(
        *shape[1:3]).pixels for i in chosen[first:first + CALIBRATION_BATCH]]
    yield np.stack([x / np.float32(np.iinfo(x.dtype).max / 2) - 1 for x in pictures])


def _compare_costs(nets, results: Sequence[pruning.PruneResult], shape: Sequence[int], unit: str,
                   backend: str) -> list[tuple[str, ...]]:
  """Rows of channels and costs: of the network before, and of every pruned one."""
  rows: list[tuple[str, ...]] = [
      (name, f'{len(mask):,}', *(f'{int(each.masks[name].sum()):,}' for each in results))
      for name, mask in results[0].masks.items()]
  rows.append(('MACs', *(f'{analysis.macs(net, shape):,}' for net, _ in nets)))
  rows.append(('parameters', *(f'{analysis.count_params(variables):,}' for _, variables in nets)))
  if unit == 'ms':
    rows.append(('latency of the table, ms', f'{results[0].before:.3f}',
                 *(f'{each.cost:.3f}' for each in results)))
    rows.append(('measured latency, ms', *(f'{ms:.3f}' for ms in pruning.milliseconds(
        [net for net, _ in nets], shape, backend=backend))))
  elif unit not in ('macs', 'params'):
    rows.append((f'MACs ({unit})', f'{results[0].before:,}',
                 *(f'{each.cost:,}' for each in results)))
  rows.append(('threshold', '', *(f'{each.threshold:.6g}' for each in results)))
  return rows


def _read_budgets(text: str) -> list[float]:
  try:
    budgets = [float(part) for part in text.split(',')]
  except ValueError:
    budgets = [0.]
  if not all(0 < budget < math.inf for budget in budgets):
    raise ValueError(f'--budget={text}; give numbers above 0, as 2.6e9 or 1e9,2e9,4e9')
  return budgets


def _outputs(out: Path, budgets: Sequence[float], flags: SimpleNamespace) -> list[Path]:
  """The file of each budget, student_1e09.safetensors where there are several; all are checked."""
  outs = [out] if len(budgets) == 1 else [
      out.with_name(f'{out.stem}_{budget:.3g}{out.suffix}'.replace('+', '')) for budget in budgets]
  if len(set(outs)) < len(outs):
    raise ValueError(f'--budget={flags.budget}: {" and ".join(out.name for out in outs)} would be '
                     'one file; give budgets that differ in three digits')
  for out in outs:
    check_output(out, ('.safetensors',), flags.overwrite)
    check_output(out.with_suffix('.png'), ('.png',), flags.overwrite)
  return outs


def _open_run(flags: SimpleNamespace, verb: str) -> experiment.Run | None:
  """The run of --workdir, or None where --network is given."""
  if bool(flags.network) == bool(flags.workdir):
    raise ValueError(f'{verb} takes --network=FILE, or the generator of a run with '
                     '--workdir=FOLDER; give one of them')
  return experiment.open_run(flags.workdir, moved=flags.moved) if flags.workdir else None


def _find_generator(run: experiment.Run, flags: SimpleNamespace) -> TrainedGenerator:
  generators = {generator.name: generator for generator in run.measured_generators()}
  name = flags.stage or next(iter(generators))
  if name not in generators:
    raise ValueError(f'--stage={name}: {config.suggest(name, generators)}')
  return generators[name]


def _load_generator(run: experiment.Run | None, flags: SimpleNamespace, verb: str):
  """(module, variables, shape of an input) of the generator of a run, or of --network."""
  if run is None:
    module, variables = _load_network(flags)
    shape = _input_shape(module, flags.size, verb)
  else:
    generator = _find_generator(run, flags)
    bound = generator.bound(flags.checkpoint)
    module, variables = bound.module, jax.device_get(bound.variables)
    shape = _input_shape(module, flags.size, verb) if flags.size else generator.input_shape()
    print(f'{generator.name}, {flags.checkpoint} checkpoint, {"x".join(map(str, shape))}')
  if not hasattr(module, 'plan'):  # any network that has one can be pruned, see nn.prunable
    raise ValueError(f'a {type(module).__name__} has no plan and cannot be pruned; generators can')
  return module, variables, shape


def _load_network(flags: SimpleNamespace):
  """(module, variables) of --network, a file or a class of the user's own with --weights."""
  if not OWN.fullmatch(flags.network):
    if vars(flags).get('weights'):
      raise ValueError(f'--weights is for a class of your own, --network=module:Class, and '
                       f'--network={flags.network} holds its weights; leave it out')
    return nn.load(flags.network)
  allow = (flags.allow,) if vars(flags).get('allow') else ()
  module = nn.wrap(build_network(flags.network), **({'allow': allow} if allow else {}))
  if flags.weights and network.is_network(flags.weights):  # it may have been pruned before
    loaded, variables = nn.load(flags.weights, like=module)
    if not isinstance(loaded, nn.Wrapped) or loaded.network != module.network:
      raise ValueError(f'--weights={flags.weights} is of {network.spell(loaded)}, and --network='
                       f'{flags.network} is another network')
    return loaded, variables
  if flags.weights:
    return module, network.fit(module, arrays.read(flags.weights), flags.weights)
  if vars(flags).get('plan'):
    return module, {}
  raise ValueError(f'--network={flags.network} has no weights; give --weights=FILE.safetensors')


def allow_class(flags: SimpleNamespace):
  """Lets files name the class of --like, which the user has written, in this process."""
  if vars(flags).get('like'):
    if not OWN.fullmatch(flags.like):
      raise ValueError(f'--like={flags.like}; give module:Class, as my_net:Generator')
    nn.allow(build.resolve(flags.like, 'jaxgan_compress.nn'))


def describe_plan(module: linen.Module, shape: Sequence[int]) -> str:
  """What can be pruned of a network, group by group, and what it costs whole."""
  plan = module.plan()
  price = pruning.cost(module, plan, shape)
  least = {name: group.least for name, group in plan.groups.items()}
  text = str(plan) if isinstance(plan, pruning.TracedPlan) else '\n'.join(
      f'  {name}: {group.width}' + (f', ranked by {group.norm}' if group.norm else '')
      for name, group in plan.groups.items())
  return (f'{text}\n{price(plan.widths):,} MACs of {"x".join(map(str, shape))}, '
          f'{price(least):,} with each group at its least')


def _notice(run: experiment.Run | None, flags: SimpleNamespace) -> str:
  """What has to be said of the generator that `_load_generator` loads."""
  if run is None:
    return '' if OWN.fullmatch(flags.network) else network.notice_of(flags.network)
  return _find_generator(run, flags).stage.notice


def _latency_table(flags: SimpleNamespace, module: linen.Module, shape: Sequence[int]
                   ) -> tuple[pruning.LatencyTable, str]:
  """The table of --table, or one measured on this device now, and its backend."""
  if flags.table:
    points = _read_points(flags.table)
    price = pruning.cost(module, module.plan(), shape)
    return (pruning.LatencyTable(price, tuple(points['macs']), tuple(points['ms'])),
            points.get('backend', flags.backend))
  table = pruning.latency_table(module, shape, backend=flags.backend)
  print('measured on this device: '
        + json.dumps({'macs': table.macs, 'ms': [round(x, 4) for x in table.ms]}))
  return table, flags.backend


def _read_points(path: str) -> dict[str, Any]:
  """{'macs': [...], 'ms': [...]} of a latency table, and what else it says."""
  try:
    points = json.loads(Path(path).read_text())
  except (ValueError, RecursionError):  # no text, or no JSON
    points = None
  if not isinstance(points, dict) or not points.keys() >= {'macs', 'ms'}:
    raise ValueError(f'--table={path}: a table is {{"macs": [...], "ms": [...]}}')
  for name in ('macs', 'ms'):
    if not isinstance(points[name], list) or any(
        isinstance(x, bool) or not isinstance(x, int | float) or not 0 <= x < math.inf
        for x in points[name]):
      raise ValueError(f'--table={path}: {name!r} is {str(points[name])[:60]}; a list of numbers, '
                       'at least 0')
  return points


@Verb('profile-latency', NETWORK, LIKE, WORKDIR,
      Flag('output', 'The .json file to write.', Path, required=True),
      Flag('backend', 'What runs the network: JAX on this device, or ONNX Runtime on this CPU.',
           default='jax', choices=pruning.BACKENDS),
      Flag('rounds', 'The number of calls of each network, in turn.', int, 20, low=3, high=10_000),
      Flag('stage', "Which stage's generator to measure; default: the first.", needs=OF_A_RUN),
      CHECKPOINT, RUN_MOVED, SIZE, OVERWRITE)
def profile_latency(flags):
  """Measure the latency of a network, whole and narrowed, for budgets of time."""
  run = _open_run(flags, 'profile-latency')
  out = Path(flags.output)
  check_output(out, ('.json',), flags.overwrite)
  module, _, shape = _load_generator(run, flags, 'profile-latency')
  table = pruning.latency_table(module, shape, rounds=flags.rounds, backend=flags.backend)
  device = jax.devices()[0]
  out.write_text(json.dumps({
      'macs': table.macs, 'ms': table.ms, 'backend': flags.backend, 'shape': shape,
      'device': f'{device.platform} {device.device_kind}' if flags.backend == 'jax' else
                f'cpu, {os.cpu_count()} cores',
      'network': network.spell(module)}, indent=1))
  macs, ms = table.macs[-1], table.ms[-1]
  # In proportion a network with a tenth of the MACs would take a tenth of the time.
  print_table(('MACs', 'share of MACs', 'latency, ms', 'share of latency', 'latency / MACs'), [
      (f'{a:,}', f'{a / macs:.0%}', f'{b:.3f}', f'{b / ms:.0%}', f'{b / ms * macs / a:.2f}')
      for a, b in zip(table.macs, table.ms, strict=True)])
  print(f'{out}: for prune --unit=ms --table={out}')


@Verb('factors', dataclasses.replace(WORKDIR, help='The folder of a run, or gs://BUCKET/RUN.',
                                     required=True),
      Flag('generator', 'The generator of the run, as its report names it; default: the first '
           'that is of low rank.'),
      dataclasses.replace(CHECKPOINT, needs=()), dataclasses.replace(RUN_MOVED, needs=()),
      Flag('output', 'The .safetensors file to write.', Path, required=True), OVERWRITE)
def write_factors(flags):
  """Write the low-rank factors (LoRA) that a run has trained, without the base network."""
  out = Path(flags.output)
  check_output(out, ('.safetensors',), flags.overwrite)
  run = experiment.open_run(flags.workdir, moved=flags.moved)
  found = {each.name: each for each in run.measured_generators()}
  of_low_rank = [name for name, each in found.items()
                 if isinstance(each.stage.method.modules[each.role], nn.LowRank)]
  if not of_low_rank:
    raise ValueError(f'{flags.workdir} has no generator of low rank, but {", ".join(found)}; '
                     'export writes these')
  name = flags.generator or of_low_rank[0]
  if name not in of_low_rank:
    raise ValueError(f'--generator={name}; {config.suggest(name, of_low_rank)}')
  trained = found[name].as_trained(flags.checkpoint)
  nn.save_factors(out, trained.module, jax.device_get(trained.variables),
                  overwrite=flags.overwrite, like=trained.module, notice=found[name].stage.notice)
  print(f'{out}: {name}, {out.stat().st_size / 1e3:,.1f} kB; for merge --factors={out}')


@Verb('merge',
      Flag('base', 'The file of the base network, as export writes it as network.safetensors.',
           Path, required=True),
      Flag('factors', 'The file that factors wrote.', Path, required=True),
      Flag('like', 'The class of your own that --base holds, as my_net:Generator.',
           needs=('base',)),
      Flag('output', 'The .safetensors file to write, of a network like the base.', Path,
           required=True), OVERWRITE)
def merge(flags):
  """Add low-rank factors (LoRA) to the kernels of their base network: a plain network."""
  out = Path(flags.output)
  check_output(out, ('.safetensors',), flags.overwrite)
  base, variables = nn.load(flags.base)
  module, variables = nn.merged(*nn.load_factors(flags.factors, variables, like=base))
  nn.save(out, module, jax.device_get(variables), overwrite=flags.overwrite, like=base,
          notice=network.notice_of(flags.base, flags.factors))
  print(f'{out}: {network.spell(module)}')


@Verb('export', NETWORK, LIKE, WORKDIR,
      Flag('verify', 'Instead of both: the folder of an export, which is proved again.', Path),
      Flag('generator', 'The generator of the run, as its report names it; default: the first '
           'student.', needs=OF_A_RUN),
      CHECKPOINT, RUN_MOVED, NETWORK_SIZE,
      Flag('to', 'The formats to write: stablehlo, onnx, litert, which needs the extra tf, and for '
           'upscalers ncnn.',
           list, 'stablehlo,onnx', needs=('workdir', 'network')),
      Flag('int8', 'Also write ONNX and LiteRT networks that are quantised to 8 bits.', bool, False,
           needs=OF_A_RUN),
      Flag('bits', 'The bits of the images that the network takes, 8 or 16; default: images of 8 '
           'bits for 1 and 3 input channels, and label maps for others.', int, low=8, high=16,
           needs=('network',)),
      Flag('layout', 'The layout of images in ONNX.', default='NHWC', choices=('NHWC', 'NCHW'),
           needs=('workdir', 'network')),
      Flag('tolerance', 'The largest error that counts as rounding, for images in [-1, 1].', float,
           1e-4, low=0, high=2, needs=('workdir', 'network')),
      Flag('output', 'The folder to write; default with --workdir: export/GENERATOR in that '
           'folder.', Path, needs=('workdir', 'network')),
      OVERWRITE)
def export_generator(flags):
  """Export a generator for other programs and prove that its images are the same."""
  if math.isnan(flags.tolerance):
    raise ValueError('--tolerance=nan; give a number, as 1e-4')
  if sum(map(bool, (flags.network, flags.workdir, flags.verify))) != 1:
    raise ValueError('export takes --workdir=FOLDER of a run, --network=FILE, or --verify=FOLDER '
                     'of an export; give one of them')
  options = {'to': flags.to, 'layout': flags.layout, 'tolerance': flags.tolerance,
             'overwrite': flags.overwrite}
  if flags.verify:
    folder, artefacts = Path(flags.verify), export.verify(flags.verify)
  elif flags.workdir:
    folder, proof = experiment.export_run(
        flags.workdir, flags.generator, flags.output, checkpoint=flags.checkpoint,
        int8=flags.int8, moved=flags.moved, **options)
    artefacts = proof['artefacts']
  else:
    if not flags.output:
      raise ValueError('export of a --network needs --output, as student')
    folder, shape = Path(flags.output), _input_shape(nn.load(flags.network)[0], flags.size,
                                                     'export')
    artefacts = experiment.export_network(flags.network, folder, shape, bits=flags.bits,
                                          **options)['artefacts']
  print_table(('artefact', 'size, MB', 'largest error', 'mean error', 'latency, ms'), [
      (name, f'{artefact["bytes"] / 1e6:.2f}', f'{artefact["max_error"]:.1e}',
       f'{artefact["mean_error"]:.1e}', f'{artefact["ms"]:.2f}')
      for name, artefact in artefacts.items()])
  print(f'{folder.absolute()}: '
        + ('the same as when it was exported' if flags.verify else 'README.md says how to use it'))


def build_network(text: str) -> linen.Module:
  """A network by its name in `jaxgan_compress.nn` and arguments: 'mobile_resnet:ngf=16'.

  Raises ValueError for an unknown name or argument.
  """
  own = text.partition(':')[0] not in nn.__all__ and OWN.fullmatch(text)
  name, arguments = (own['name'], own['fields'] or '') if own else text.partition(':')[::2]
  if name.endswith(('.safetensors', '.pth', '.pt')):
    raise ValueError(f'there is no file {text}; give one that `convert` wrote, or the name of a '
                     'network')
  given = {}
  for argument in filter(None, re.split(r',(?=\s*\w+\s*=)', arguments)):
    key, equals, value = argument.partition('=')
    if not equals:
      raise ValueError(f'--network takes name=value and got {argument!r}')
    given[key.strip()] = _literal(value)
  if 'dtype' in given:
    given['dtype'] = network.build(given['dtype'], 'dtype')
  return build.make({'name': name, **given}, 'jaxgan_compress.nn', '--network')


def _literal(text: str):
  """'16' -> 16; a word that is no Python literal stays a word."""
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text


def _input_shape(module: linen.Module, size: str | None, verb: str) -> tuple[int, ...]:
  """The shape of one input, of --size where the network takes images of any."""
  if not isinstance(module, TakesExample):
    raise ValueError(f'{type(module).__name__} does not say what its input is; {verb} takes '
                     'generators and image discriminators')
  shape = module.example().shape
  if len(shape) != 4:
    if size:
      raise ValueError(f'--size={size}: a {type(module).__name__} takes {shape[-1]} latents and '
                       'has one size; leave --size out')
    return shape
  if not size:
    raise ValueError(f'{verb} --network needs --size for networks on images, as 256 or 256x512 '
                     '(height x width)')
  sides = size.lower().split('x')
  if len(sides) > 2 or not all(side.isascii() and side.isdecimal() and 1 <= int(side) <= LARGEST
                               for side in sides):
    raise ValueError(f'--size={size}; give 256, or 256x512 (height x width), 1 to {LARGEST}')
  return (1, int(sides[0]), int(sides[-1]), shape[-1])
