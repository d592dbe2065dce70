"""The command `jaxgan-compress`: thin verbs around functions of the same power. The only flags.

    jaxgan-compress train --config=configs/kd/digits.py --workdir=runs/digits
    jaxgan-compress train --config=configs/kd/digits.py:smoke --config.seed=1 --workdir=runs/smoke
    jaxgan-compress train --config=configs/kd/digits.py --workdir=runs/digits \
        --config.stages.student_mse.steps=40000 --extend
    jaxgan-compress evaluate --workdir=runs/digits --checkpoint=last
    jaxgan-compress report --workdir=runs/digits
    jaxgan-compress report runs/seeds/* --out=comparison.html
    jaxgan-compress info --config=configs/kd/digits.py
    jaxgan-compress info --network=mobile_resnet:ngf=16 --size=256
    jaxgan-compress show-data --config=configs/kd/digits.py --out=sheet.png
    jaxgan-compress prepare-data --layout=paired --path=maps --name=maps
    jaxgan-compress fid drawings/ photographs/ --weights=inception.safetensors
    jaxgan-compress convert --in=latest_net_G.pth --out=G.safetensors
    jaxgan-compress prune --network=G.safetensors --size=256 --budget=2.6e9,5.6e9 --min_channels=16
    \
        --out=student.safetensors
    jaxgan-compress prune --workdir=runs/cat --budget=5e6
    jaxgan-compress export --workdir=runs/cat --to=stablehlo,onnx --int8
    jaxgan-compress profile-latency --workdir=runs/cat --backend=onnx --out=here.json
    jaxgan-compress prune --workdir=runs/cat --unit=ms --table=here.json --budget=2.5
    jaxgan-compress profile --config=configs/kd/digits.py --out=runs/profile
"""

from __future__ import annotations

import ast
import dataclasses
import errno
import json
import logging
import math
import os
import re
import sys
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from jaxgan_compress import config as configs
from jaxgan_compress import distributed
from jaxgan_compress.core import paths

ANY = ()
# {verb: {flag: the flag without which it means nothing, and that one's values}}
NEEDS = {
    'info': {'layers': ('config', ANY), 'size': ('network', ANY), 'latency': ('network', ANY),
             'batch': ('latency', ANY)},
    'prune': {'stage': ('workdir', ANY), 'checkpoint': ('workdir', ANY), 'table': ('unit', ('ms',)),
              'backend': ('unit', ('ms',))},
    'profile-latency': {'stage': ('workdir', ANY), 'checkpoint': ('workdir', ANY)},
    'export': {'generator': ('workdir', ANY), 'checkpoint': ('workdir', ANY),
               'int8': ('workdir', ANY), 'size': ('network', ANY)},
    'fid': {'protocol': ('weights', ANY)},
    'prepare-data': {'classes': ('layout', ('labels',)), 'dont_care': ('layout', ('labels',))},
}
WRONG_PATHS = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError,
               PermissionError)
LARGEST = 8192  # pixels of a side

# --config.KEY, or --noconfig.KEY of what is true or false.
OVERRIDE = re.compile(r'--?(?:no)?config\.(.*)')


def main(argv: list[str] | None = None) -> int:
  """Runs one verb; returns the exit code: 0 done, 2 bad input, 1 failed, 75, 129 or 130
  stopped, and of several processes 70: a peer or the runtime failed."""
  argv = list(sys.argv[1:] if argv is None else argv)
  if not argv or argv[0] in ('-h', '--help', 'help'):
    print(_usage())
    return 0
  if argv[0] == '--version':
    from jaxgan_compress import __version__
    print(f'jaxgan-compress {__version__}')
    return 0
  verb = VERBS.get(argv[0])
  if verb is None:
    return _fail(f'no verb {argv[0]!r}; {configs.suggest(argv[0], VERBS)}')
  logging.getLogger('absl').setLevel(logging.ERROR)  # Orbax and grain talk to their developers
  try:
    code = _run(verb, argv)
  except Exception:
    if not jax.distributed.is_initialized():
      raise
    traceback.print_exc()
    code = distributed.FAILED
  return distributed.finish(code)


def _run(verb, argv):
  try:
    return verb(argv[0], argv[1:])
  except _Help as e:
    print(e)
    return 0
  except (flags.Error, ValueError, ImportError, *WRONG_PATHS) as e:
    if distributed.from_runtime(e):
      raise
    return _fail(e)
  except KeyboardInterrupt:
    print('\ninterrupted', file=sys.stderr)
    return 130
  except Exception as e:
    if isinstance(e, MemoryError) or 'RESOURCE_EXHAUSTED' in str(e):
      if jax.distributed.is_initialized():
        raise
      return _fail('there is not enough memory; take a smaller batch, size or network '
                   f'({str(e).strip()[:200] or "MemoryError"})', 1)
    from jaxgan_compress.experiment import Interrupted
    from jaxgan_compress.train import CheckpointError, TermError
    if isinstance(e, Interrupted):
      print(f'\n{e}', file=sys.stderr)
      return e.exit_code
    if isinstance(e, CheckpointError | TermError | OSError):
      return _fail(e, 2 if getattr(e, 'errno', None) in (errno.ENAMETOOLONG, errno.ELOOP) else 1)
    raise


def train(verb: str, argv: list[str]) -> int:
  """Train every stage of a config, measure it, write report.html."""
  distributed.initialize()  # before anything touches a device
  values = _flags(verb, argv, config=True, workdir=True, train=True)
  from jaxgan_compress import experiment
  experiment.run(values.config, values.workdir, extend=values.extend)
  if distributed.is_main():
    print(f'report: {distributed.folder(values.workdir).absolute() / "report.html"}')
  return 0


def evaluate(verb: str, argv: list[str]) -> int:
  """Measure the generators of a finished run again, and print a table."""
  values = _flags(verb, argv, workdir=True, evaluate=True)
  from jaxgan_compress import experiment
  found = experiment.evaluate(values.workdir, values.checkpoint.replace('latest', 'last'),
                              values.count, values.intervals, moved=_moved(values))
  if values.json:
    print(json.dumps({name: {key: m.to_dict() for key, m in measures.items()}
                      for name, measures in found.items()}, indent=1))
    return 0
  keys = [key for key in dict.fromkeys(key for measures in found.values() for key in measures)
          if isinstance(next(m[key] for m in found.values() if key in m).value, float)]
  _print_table(('generator', *keys), [
      (name, *(_number(measures[key]) if key in measures else '' for key in keys))
      for name, measures in found.items()])
  protocol = found['real']['vol'].protocol
  print(f'{values.checkpoint} checkpoint; ' + ', '.join(f'{k} {v}' for k, v in protocol.items()))
  return 0


def report(verb: str, argv: list[str]) -> int:
  """Write report.html of a finished run again, or compare the runs in several folders."""
  values, folders = _flags(verb, argv, report=True)
  from jaxgan_compress import experiment
  folders = [values.workdir, *folders] if values.workdir else folders
  if len(folders) > 1:
    from jaxgan_compress.experiment.compare_runs import compare
    print(f'report: {compare(folders, values.out, values.metric, moved=_moved(values)).absolute()}')
    return 0
  if not folders or values.out or values.metric:
    raise ValueError('report takes --workdir=FOLDER; --out and --metric are for two folders or '
                     'more, which it compares')
  run = experiment.open_run(folders[0], moved=_moved(values))
  print(f'report: {experiment.write_report(run, experiment.tabulate(run)).absolute()}')
  return 0


def info(verb: str, argv: list[str]) -> int:
  """What a config's networks or one network cost; without either, versions and devices."""
  values = _flags(verb, argv, config=None, info=True)
  from clu import parameter_overview

  from jaxgan_compress import experiment
  from jaxgan_compress.train import log_files
  if values.network and values.config is not None:
    raise ValueError('info takes --network or --config; give one')
  if values.json and values.config is not None:
    raise ValueError('--json is for --network; leave it out, for a config has a table alone')
  if values.network:
    return _network_info(values)
  if values.config is None:
    print(json.dumps(log_files.environment(), indent=1))
  else:
    _print_table(('stage', 'role', 'network', 'parameters', 'by the paper', 'MACs'), [
        (row['stage'], row['role'], row['network'] + (
            f', to be cut to {row["budget"]:.3g}' if row['budget'] else ''), f'{row["params"]:,}',
         f'{row["params_paper"]:,}', f'{row["macs"]:,}')
        for row in experiment.describe(values.config)])
    if values.layers:
      for row in experiment.describe(values.config):
        print(f'\n{row["stage"]}: {row["role"]}')
        print(parameter_overview.get_parameter_overview(
            row['variables']['params'], include_stats=False))
  return 0


def _network_info(values) -> int:
  """A table of one network's layers, and what they come to."""
  from jaxgan_compress import analysis, nn
  from jaxgan_compress.nn.files import network
  module = nn.load(values.network)[0] if Path(values.network).is_file() else \
      build_network(values.network)
  shape = _input_shape(module, values.size)
  layers = analysis.layers(module, shape)
  totals = {convention: sum(layer.macs[convention] for layer in layers)
            for convention in ('exact', 'torchprofile', 'cat')}
  total = {'network': network.spell(module), 'input': list(shape),
           'params': sum(layer.params for layer in layers), 'macs': totals,
           'activation_bytes': analysis.activation_bytes(module, shape)}
  if values.latency:
    timings = analysis.network_latency(module, shape, sorted({1, values.batch}))
    total['latency'] = {str(batch): timing._asdict() for batch, timing in timings.items()}
  if values.json:
    print(json.dumps({**total, 'layers': [dataclasses.asdict(layer) for layer in layers]},
                     indent=1))
    return 0
  _print_table(('layer', 'kind', 'output', 'parameters', 'MACs', 'MACs by torchprofile', 'KiB'), [
      (layer.path, layer.kind, 'x'.join(map(str, layer.shape[1:])), f'{layer.params:,}',
       f'{layer.macs["exact"]:,}', f'{layer.macs["torchprofile"]:,}',
       f'{layer.bytes / 1024:,.0f}') for layer in layers])
  print(f'\n{total["network"]}\n'
        f'input {"x".join(map(str, shape))}: {total["params"]:,} parameters; '
        f'{totals["exact"]:,} MACs, {totals["torchprofile"]:,} as torchprofile counts, '
        f'{totals["cat"]:,} as CAT counts; about {total["activation_bytes"] / 2 ** 20:,.1f} MiB of '
        'activations at once')
  for batch, timing in total.get('latency', {}).items():
    print(f'batch {batch}: {1e3 * timing["median"]:.2f} ms median, {1e3 * timing["p95"]:.2f} ms '
          f'95th percentile of {timing["rounds"]} calls, '
          f'{int(batch) / timing["median"]:,.1f} images/s')
  return 0


def convert(verb: str, argv: list[str]) -> int:
  """Make a network's weights of PyTorch ours, or ours PyTorch's, and say what they are."""
  values = _flags(verb, argv, convert=True)
  from jaxgan_compress import analysis, nn
  from jaxgan_compress import convert as converter
  from jaxgan_compress.nn.files import arrays
  source, out = values['in'].value, Path(values.out)
  _check_output(out, ('.safetensors',), values.overwrite)
  hints = {}
  if nn.files.network.is_network(source):
    if values.hint or values.prefix or values.part:
      raise ValueError(f'{source} is a network of this library and says all of itself; leave out '
                       '--hint, --prefix and --part')
    module, variables = nn.load(source)
  else:
    hints = dict(_assignment(hint, '--hint') for hint in values.hint)
    state = converter.load(source, values.part or None)
    try:
      with warnings.catch_warnings(record=True, action='always', category=UserWarning) as said:
        module, variables = converter.from_torch(state, prefix=values.prefix, **hints)
    except ValueError as e:
      raise ValueError(f'{source}: {e}') from e
  unused = variables.get('unused', {})
  print(f'{source}: {nn.files.network.spell(module)}\n'
        f'{analysis.count_params(variables):,} parameters'
        + (f'; kept and unused: {", ".join(unused)}' if unused else ''))
  if not nn.files.network.is_network(source):
    for warning in said:
      print(warning.message)
    guessed = [f'{name}={value!r}' for name, value in converter.assumed(module).items()
               if name not in hints]
    if guessed:
      print(f'assumed, since keys cannot tell: {", ".join(guessed)}; change with --hint')
    print(f'built in, as published: {converter.built_in(module)}')
  if values.to == 'torch':
    arrays.write(out, converter.to_torch(module, variables), {'format': 'pt'},
                overwrite=values.overwrite)
    print(f'{out}: a state dict for PyTorch, safetensors.torch.load_file({str(out)!r})')
  else:
    converter.save(out, module, variables, overwrite=values.overwrite)
    print(f'{out}: jaxgan_compress.nn.load({str(out)!r})')
  return 0


def prune(verb: str, argv: list[str]) -> int:
  """Cut a network to a budget: the smaller network, what is left of each layer, a picture."""
  values = _flags(verb, argv, prune=True)
  import jax
  from PIL import Image

  from jaxgan_compress import analysis, experiment, nn, pruning
  budgets = _budgets(values.budget)
  if bool(values.network) == bool(values.workdir):
    raise ValueError('prune cuts --network=FILE or the generator of a run, --workdir=FOLDER; give '
                     'one of them')
  if not values.out and not values.workdir:
    raise ValueError('prune needs --out, as student.safetensors')
  run = experiment.open_run(values.workdir, moved=_moved(values)) if values.workdir else None
  out = Path(values.out or run.workdir / 'student.safetensors')
  outs = [_named_after(out, budget, len(budgets)) for budget in budgets]
  if len(set(outs)) < len(outs):
    raise ValueError(f'--budget={values.budget}: {" and ".join(out.name for out in outs)} would be '
                     'one file; give budgets that differ in three digits')
  for out in outs:
    _check_output(out, ('.safetensors',), values.overwrite)
    _check_output(out.with_suffix('.png'), ('.png',), values.overwrite)
  module, variables, shape = _whole(run, values, verb)
  if not hasattr(module, 'plan'):
    raise ValueError(f'a {type(module).__name__} has no plan of what may be cut; generators have')
  nn.files.network.describe(module, like=module)  # before time is spent: what is left will be saved
  unit, backend = _latencies(values, module, shape) if values.unit == 'ms' else (values.unit, '')
  more = dict(criterion=values.how, min_channels=values.floor, round_to=values.multiple,
              scope=values.per,
              cat_search=values.legacy, student_init=values.start, key=jax.random.key(values.seed))
  if values.unit == 'ms' and not values.table:
    cuts = [pruning.prune_to_latency(module, variables, shape, budget=budget, table=unit,
                                backend=backend, **more)[0] for budget in budgets]
  else:
    cuts = [pruning.prune(module, variables, shape, budget=budget, unit=unit, **more)
            for budget in budgets]
  rows = [(name, f'{len(mask):,}', *(f'{int(cut.masks[name].sum()):,}' for cut in cuts))
          for name, mask in cuts[0].masks.items()]
  nets = [(module, variables), *((cut.module, cut.variables) for cut in cuts)]
  rows.append(('MACs', *(f'{analysis.macs(net, shape):,}' for net, _ in nets)))
  rows.append(('parameters', *(f'{analysis.count_params(each):,}' for _, each in nets)))
  if values.unit == 'ms':
    rows.append(('ms by the table', f'{cuts[0].before:.3f}', *(f'{cut.cost:.3f}' for cut in cuts)))
    rows.append(('ms measured here', *(f'{ms:.3f}' for ms in pruning.milliseconds(
        [net for net, _ in nets], shape, backend=backend))))
  elif values.unit not in ('macs', 'params'):
    rows.append((f'MACs as {values.unit} counts', f'{cuts[0].before:,}',
                 *(f'{cut.cost:,}' for cut in cuts)))
  rows.append(('threshold', '', *(f'{cut.threshold:.6g}' for cut in cuts)))
  _print_table(('channels', 'before', *(f'budget {budget:,.12g}' for budget in budgets)), rows)
  for out, cut in zip(outs, cuts, strict=True):
    nn.save(out, cut.module, cut.variables, overwrite=values.overwrite, like=module)
    title = f'{out.name}: channels that stay (dark), in their order'
    Image.fromarray(pruning.plot_masks(cut.masks, title)).save(out.with_suffix('.png'))
    print(f'{out} and {out.with_suffix(".png").name}: {nn.files.network.spell(cut.module)}')
  return 0


def _whole(run, values, verb):
  """(module, variables, shape of an input) of what is to be cut."""
  import jax

  from jaxgan_compress import nn
  if run is None:
    module, variables = nn.load(values.network)
    return module, variables, _input_shape(module, values.size, verb)
  there = run.measured_generators()
  name = values.stage or there[0]
  if name not in there:
    raise ValueError(f'--stage={name}: {configs.suggest(name, there)}')
  draw = run.drawer(name, values.checkpoint)
  shape = run.input_shape(name) if not values.size else _input_shape(
      draw.module, values.size, verb)
  print(f'{name}, {values.checkpoint} checkpoint, {"x".join(map(str, shape))}')
  return draw.module, jax.device_get(draw.variables), shape


def _latencies(values, module, shape):
  """The table of --table, or one measured on this device now, and of which backend it is."""
  from jaxgan_compress import pruning
  if values.table:
    points = _points(values.table)
    price = pruning.cost(module, module.plan(), shape)
    return (pruning.LatencyTable(price, tuple(points['macs']), tuple(points['ms'])),
            points.get('backend', values.backend))
  table = pruning.latency_table(module, shape, backend=values.backend)
  print('measured here: ' + json.dumps({'macs': table.macs, 'ms': [round(x, 4) for x in table.ms]}))
  return table, values.backend


def _points(path):
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


def profile_latency(verb: str, argv: list[str]) -> int:
  """Measure what a network takes on this device, whole and narrowed, for budgets of time."""
  values = _flags(verb, argv, latency=True)
  import jax

  from jaxgan_compress import experiment, nn, pruning
  if bool(values.network) == bool(values.workdir):
    raise ValueError('profile-latency measures --network=FILE or the generator of a run, '
                     '--workdir=FOLDER; give one of them')
  out = Path(values.out)
  _check_output(out, ('.json',), values.overwrite)
  run = experiment.open_run(values.workdir, moved=_moved(values)) if values.workdir else None
  module, _, shape = _whole(run, values, verb)
  if not hasattr(module, 'plan'):
    raise ValueError(f'a {type(module).__name__} has no plan of what may be cut; generators have')
  table = pruning.latency_table(module, shape, rounds=values.rounds, backend=values.backend)
  device = jax.devices()[0]
  out.write_text(json.dumps({
      'macs': table.macs, 'ms': table.ms, 'backend': values.backend, 'shape': shape,
      'device': f'{device.platform} {device.device_kind}' if values.backend == 'jax' else
                f'cpu, {os.cpu_count()} cores',
      'network': nn.files.network.spell(module)}, indent=1))
  macs, ms = table.macs[-1], table.ms[-1]
  # In proportion a network of a tenth of the MACs would take a tenth of the time.
  _print_table(('MACs', 'of all', 'ms', 'of all', 'as much as its MACs say, times'), [
      (f'{a:,}', f'{a / macs:.0%}', f'{b:.3f}', f'{b / ms:.0%}', f'{b / ms * macs / a:.2f}')
      for a, b in zip(table.macs, table.ms, strict=True)])
  print(f'{out}: for prune --unit=ms --table={out}')
  return 0


def _moved(values):
  pairs = [text.partition('=') for text in values.moved]
  wrong = [key for key, equals, path in pairs if not (equals and path)]
  if wrong:
    raise ValueError(f'--moved={wrong[0]}; give KEY=PATH, as data.path=/mnt/maps')
  return {key: path for key, _, path in pairs}


def _budgets(text):
  try:
    found = [float(part) for part in text.split(',')]
  except ValueError:
    found = [0]
  if not all(0 < budget < math.inf for budget in found):
    raise ValueError(f'--budget={text}; give numbers above 0, as 2.6e9 or 1e9,2e9,4e9')
  return found


def _named_after(out, budget, count):
  return out if count == 1 else out.with_name(f'{out.stem}_{budget:.3g}{out.suffix}'.replace(
      '+', ''))


def export(verb: str, argv: list[str]) -> int:
  """Write a generator for other programs, proved to draw the same; or --verify such a folder."""
  values = _flags(verb, argv, export=True)
  if math.isnan(values.tolerance):
    raise ValueError('--tolerance=nan; give a number, as 1e-4')
  if sum(map(bool, (values.network, values.workdir, values.verify))) != 1:
    raise ValueError('export takes --workdir=FOLDER of a run, --network=FILE, or --verify=FOLDER '
                     'of an export; give one of them')
  from jaxgan_compress import export as exporting
  from jaxgan_compress import nn
  from jaxgan_compress.experiment import export as ship
  if values.verify:
    folder, found = Path(values.verify), exporting.verify(values.verify)
  else:
    given = {'to': values.to, 'layout': values.layout, 'tolerance': values.tolerance,
             'overwrite': values.overwrite}
    if values.workdir:
      folder, proof = ship.export_run(
          values.workdir, values.generator, values.out, checkpoint=values.checkpoint,
          int8=values.int8, moved=_moved(values), **given)
    else:
      if not values.out:
        raise ValueError('export of a --network needs --out, as student')
      module, _ = nn.load(values.network)
      folder = Path(values.out)
      proof = ship.export_network(values.network, folder,
                                  _input_shape(module, values.size, verb), **given)
    found = proof['artefacts']
  _print_table(('artefact', 'MB', 'largest error', 'mean error', 'ms'), [
      (name, f'{each["bytes"] / 1e6:.2f}', f'{each["max_error"]:.1e}',
       f'{each["mean_error"]:.1e}', f'{each["ms"]:.2f}') for name, each in found.items()])
  print(f'{folder.absolute()}: ' + ('as it was exported' if values.verify else 'see README.md'))
  return 0


def show_data(verb: str, argv: list[str]) -> int:
  """Draw a contact sheet of what a config trains on, augmented, before anything is trained."""
  values = _flags(verb, argv, config=True, show=True)
  out = Path(values.out)
  _check_output(out, ('.png', '.jpg', '.jpeg'), values.overwrite)
  from PIL import Image

  from jaxgan_compress import experiment
  Image.fromarray(experiment.show_data(values.config, values.stage, columns=values.columns)
                  ).save(out)
  print(f'{out.absolute()}: look at it')
  return 0


def prepare_data(verb: str, argv: list[str]) -> int:
  """Make a TensorFlow Datasets set of a folder, every image checked; no TensorFlow needed."""
  values = _flags(verb, argv, prepare=True)
  from jaxgan_compress.data import preprocess as prepare
  folder = prepare.prepare(values.layout, values.path, values.name, out=values.out,
                           classes=values.classes, dont_care=values.dont_care, progress=_progress)
  manifest = json.loads((folder / prepare.MANIFEST).read_text())
  size = sum(size for size, _ in manifest['shards'].values())
  print(f'{folder}: {len(manifest["sources"])} files, {size / 2 ** 20:.1f} MiB\n'
        f"data.name='tfds:{values.name}'"
        + (f", data.data_dir='{values.out}'" if values.out != prepare.DEFAULT else ''))
  return 0


def fid(verb: str, argv: list[str]) -> int:
  """Measure the distance between two folders of images, or statistics of them (.npz)."""
  values, paths = _flags(verb, argv, fid=True)
  if not 1 <= len(paths) <= 2 or (len(paths) == 1 and not values.save):
    raise ValueError('fid takes two folders, A and B (or .npz files of statistics); or one, and '
                     f'--save=FILE.npz; got {" ".join(paths) or "none"}')
  from jaxgan_compress import metrics
  if values.save:
    _check_output(Path(values.save), ('.npz',), values.overwrite)
  extractor = metrics.inception(values.weights, values.protocol) if values.weights else \
      metrics.random_vgg()
  if not values.weights:
    print('no --weights: measured through a VGG16 that was never trained. This is not FID.',
          file=sys.stderr)
  progress = lambda items, total: _progress(items, total, 'looking')
  if len(paths) == 1:
    features = metrics.folder_features(paths[0], extractor, progress=progress)
    metrics.Moments.of(features, dict(extractor.protocol)).save(values.save,
                                                                overwrite=values.overwrite)
    print(f'{values.save}: statistics of {len(features)} images')
    return 0
  if values.save:
    raise ValueError('--save keeps the statistics of one folder; leave B out')
  found = metrics.compare_folders(*paths, extractor, intervals=values.intervals, progress=progress)
  if values.json:
    print(json.dumps({name: measure.to_dict() for name, measure in found.items()}, indent=1))
    return 0
  _print_table(tuple(found), [tuple(_number(measure) for measure in found.values())])
  protocol = found[extractor.distances[0]].protocol
  print(', '.join(f'{key} {value}' for key, value in protocol.items()))
  return 0


def _progress(items, total, what):
  from rich.progress import track
  console = Console(stderr=True)
  return track(items, what, total, console=console, transient=True,
               disable=not console.is_terminal)


def _check_output(out, suffixes, overwrite):
  if out.suffix.lower() not in suffixes:
    raise ValueError(f'{out}: the name must end in {" or ".join(suffixes)}')
  if out.exists() and not overwrite:
    raise FileExistsError(f'{out} exists; give another name, or --overwrite')
  if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
    raise ValueError(f'{out}: the folder {out.parent} is not there or not writable')


def build_network(text: str):
  """A network by its name in `jaxgan_compress.nn` and arguments: 'mobile_resnet:ngf=16'.

  Raises ValueError for an unknown name or argument, or a value that is no Python literal.
  """
  from jaxgan_compress.config import build
  name, _, arguments = text.partition(':')
  if name.endswith(('.safetensors', '.pth', '.pt')):
    raise ValueError(f'there is no file {text}; give one that `convert` wrote, or the name of a '
                     'network')
  given = dict(_assignment(each, '--network') for each in _split(arguments))
  if 'dtype' in given:
    from jaxgan_compress.nn.files import network
    given['dtype'] = network.build(given['dtype'], 'dtype')
  return build.make({'name': name, **given}, 'jaxgan_compress.nn', '--network')


def _split(text):
  """At commas outside brackets."""
  parts, depth = [''], 0
  for letter in text:
    depth += (letter in '([') - (letter in ')]')
    if letter == ',' and not depth:
      parts.append('')
    else:
      parts[-1] += letter
  return [part for part in parts if part]


def _assignment(text, where):
  """'ngf=16' -> ('ngf', 16); a word that is no literal stays a word."""
  name, equals, value = text.partition('=')
  if not equals:
    raise ValueError(f'{where} takes name=value and got {text!r}')
  try:
    return name.strip(), ast.literal_eval(value)
  except (ValueError, SyntaxError):
    return name.strip(), value


def _input_shape(module, size, verb='info'):
  if not hasattr(module, 'example'):
    raise ValueError(f'{type(module).__name__} does not say what its input is; {verb} takes '
                     'generators and image discriminators')
  shape = module.example().shape
  if len(shape) != 4:
    if size:
      raise ValueError(f'--size={size}: a {type(module).__name__} draws from {shape[-1]} latents '
                       'and is of one size; leave --size out')
    return shape
  if not size:
    raise ValueError(f'{verb} --network needs --size for networks on images, as 256 or 256x512 '
                     '(height x width)')
  sides = size.lower().split('x')
  if len(sides) > 2 or not all(side.isascii() and side.isdecimal() and 1 <= int(side) <= LARGEST
                               for side in sides):
    raise ValueError(f'--size={size}; give 256, or 256x512 (height x width), 1 to {LARGEST}')
  return (1, int(sides[0]), int(sides[-1]), shape[-1])


def profile(verb: str, argv: list[str]) -> int:
  """Run some training steps and say which operations take the time; the trace opens in Perfetto."""
  values = _flags(verb, argv, config=True, profile=True)
  from jaxgan_compress import experiment
  found = experiment.profile(values.config, values.out, values.stage, values.steps)
  device, spent = found['device'], found['operations']
  total = sum(each.seconds for each in spent)
  _print_table(
      ('operation', 'of', 'result', 'ms a step', 'of all', 'GFLOP/s', 'GB/s', 'of the roofline'),
      [(each.name, each.operation.layer, each.operation.result,
        f'{1e3 * each.seconds:.3f}', f'{each.seconds / total:.1%}',
        f'{each.calls * each.operation.flops / each.seconds / 1e9:.1f}',
        f'{each.calls * each.operation.bytes / each.seconds / 1e9:.1f}', f'{each.roofline:.0%}')
       for each in spent[:values.top]])
  needed = sum(each.seconds * each.roofline for each in spent)
  print(f'stage {found["stage"]}: a step takes {1e3 * found["seconds"]:.1f} ms, compiled in '
        f'{found["compile_seconds"]:.0f} s, and holds {found["bytes"] / 2**20:.0f} MiB. '
        f'{len(spent)} operations, {1e3 * total:.1f} ms together; the roofline needs '
        f'{needed / total:.0%} of that, for {found["flops"] / 1e9:.2f} GFLOP at '
        f'{device.flops / 1e9:.0f} GFLOP/s and {device.bandwidth / 1e9:.0f} GB/s, as measured '
        'on this device.')
  trace = max(Path(values.out).glob('**/perfetto_trace.json.gz'))
  print(f'{trace} opens in ui.perfetto.dev, {values.out} in TensorBoard')
  return 0


VERBS = {'train': train, 'evaluate': evaluate, 'report': report, 'info': info,
         'convert': convert, 'prune': prune, 'show-data': show_data,
         'prepare-data': prepare_data, 'fid': fid, 'profile': profile, 'export': export,
         'profile-latency': profile_latency}


# The flags that are files and folders.
PATHS = ('in', 'network', 'out', 'path', 'save', 'table', 'verify', 'weights', 'workdir')


def _flags(verb, argv, *, config: bool | None = False, workdir=False, evaluate=False,
           info=False, convert=False, show=False, prepare=False, fid=False,
           prune=False, profile=False, report=False, export=False,
           latency=False, train=False):
  """Parsed flags of one verb; of `fid` and `report` also what is left. `config` None: optional."""
  values = flags.FlagValues()
  required = []
  argv = _expanded(argv)
  helps = any(arg in ('-h', '--help', '-help') for arg in argv)
  if config is not False:
    argv = _define_config(values, argv, helps)
    required += ['config'] if config else []
  if workdir:
    flags.DEFINE_string('workdir', None, 'Folder of the run, or gs://BUCKET/RUN.',
                        flag_values=values)
    required += ['workdir']
  if train:
    flags.DEFINE_bool('extend', False, 'The config asks for more steps than the run in the folder '
                      'did (--config.stages.STAGE.steps=N); it goes on to them.',
                      flag_values=values)
  if evaluate or report or prune or latency or export:
    flags.DEFINE_multi_string('moved', [], 'Of the run: KEY=PATH, a path of its config that is '
                              'elsewhere now, as data.path=/mnt/maps.', flag_values=values)
  if evaluate:
    flags.DEFINE_string('checkpoint', 'best', 'best, last, or best:METRIC for a metric of '
                        'evaluate.best.', flag_values=values)
    flags.DEFINE_integer('intervals', 0, 'Halvings of the samples for 95 % intervals, as 100.',
                         lower_bound=0, upper_bound=10_000, flag_values=values)
    flags.DEFINE_integer('count', None, 'Images for each generator (default: the config\'s).',
                         lower_bound=10, flag_values=values)
    flags.DEFINE_bool('json', False, 'Print JSON with protocols.', flag_values=values)
  if info:
    flags.DEFINE_bool('layers', False, 'Of a config: also list every parameter.',
                      flag_values=values)
    flags.DEFINE_string('network', None, 'A network of jaxgan_compress.nn with its arguments, '
                        'mobile_resnet:ngf=16, or a file that convert wrote.', flag_values=values)
    flags.DEFINE_string('size', None, 'Of its input: 256, or 256x512 (height x width).',
                        flag_values=values)
    flags.DEFINE_bool('json', False, 'Print JSON.', flag_values=values)
    flags.DEFINE_bool('latency', False, 'Also time its forward pass on this machine.',
                      flag_values=values)
    flags.DEFINE_integer('batch', 8, 'The batch to time besides 1.', lower_bound=1,
                         upper_bound=4096, flag_values=values)
  if convert:
    flags.DEFINE_string('in', None, 'The file: .pth, .safetensors or .npz.', flag_values=values)
    flags.DEFINE_string('out', None, 'The .safetensors file to write.', flag_values=values)
    flags.DEFINE_enum('to', 'ours', ('ours', 'torch'), 'Whose names and layout to write.',
                      flag_values=values)
    flags.DEFINE_multi_string('hint', [], 'What keys cannot tell, as name=value: shared=5, '
                              'dropout=0.5, slope=0.01, upsampling=normal.', flag_values=values)
    flags.DEFINE_string('prefix', '', "Of the keys to take, removed: 'module.'.",
                        flag_values=values)
    flags.DEFINE_string('part', '', 'Which state dict of a checkpoint that holds several.',
                        flag_values=values)
    required += ['in', 'out']
  if show:
    flags.DEFINE_string('out', 'data.png', 'The picture to write.', flag_values=values)
    flags.DEFINE_string('stage', None, 'Whose data (default: the first that looks at any).',
                        flag_values=values)
    flags.DEFINE_integer('columns', 8, 'Images side by side.', lower_bound=1, upper_bound=64,
                         flag_values=values)
  if prepare:
    flags.DEFINE_enum('layout', None, ('paired', 'unpaired', 'labels'), 'How the folder is laid '
                      'out, see docs/howto.md.', flag_values=values)
    flags.DEFINE_string('path', None, 'The folder.', flag_values=values)
    flags.DEFINE_string('name', None, "What the set is called: 'tfds:NAME' in configs.",
                        flag_values=values)
    flags.DEFINE_string('out', '~/tensorflow_datasets', 'Where sets are kept.',
                        flag_values=values)
    flags.DEFINE_integer('classes', None, 'Of label maps: how many labels.', lower_bound=1,
                         upper_bound=256, flag_values=values)
    flags.DEFINE_bool('dont_care', False, 'Of label maps: 255 is a label of its own.',
                      flag_values=values)
    required += ['layout', 'path', 'name']
  if report:
    flags.DEFINE_string('workdir', None, 'Folder of the run; its report.html is written again.',
                        flag_values=values)
    flags.DEFINE_string('out', None, 'Of several folders: the .html file to write (default: '
                        'comparison.html in the folder that holds them).', flag_values=values)
    flags.DEFINE_string('metric', None, 'Of several folders: what the charts show against cost '
                        '(default: by which the runs chose their checkpoints).',
                        flag_values=values)
  if fid:
    flags.DEFINE_string('weights', None, 'The Inception network, as convert wrote it; without it '
                        'a stand-in measures, which is not FID.', flag_values=values)
    flags.DEFINE_enum('protocol', 'fid_pytorch', ('fid_pytorch', 'fid_clean'), 'How images are '
                      'brought to 299 pixels.', flag_values=values)
    flags.DEFINE_string('save', None, 'Keep the statistics of one folder in this .npz file.',
                        flag_values=values)
    flags.DEFINE_integer('intervals', 0, 'Halvings of the samples for 95 % intervals, as 100.',
                         lower_bound=0, upper_bound=10_000, flag_values=values)
    flags.DEFINE_bool('json', False, 'Print JSON with protocols.', flag_values=values)
  if prune:
    flags.DEFINE_string('budget', None, 'What the network may cost, 2.6e9; several, 1e9,2e9, make '
                        'students of which each holds the smaller ones.', flag_values=values)
    flags.DEFINE_enum('unit', 'macs', ('macs', 'torchprofile', 'cat', 'params', 'ms'), 'Of the '
                      'budget: exact MACs, or as published profilers count, parameters, or '
                      'milliseconds of one input.', flag_values=values)
    flags.DEFINE_string('table', None, 'Of ms: a .json file, {"macs": [...], "ms": [...]}, of '
                        'another device; without it this one is measured.', flag_values=values)
    flags.DEFINE_enum('how', 'norm', ('norm', 'l1', 'l2', 'random'), 'What makes a channel dear.',
                      flag_values=values)
    flags.DEFINE_enum('per', 'global', ('global', 'group'), 'One threshold for all, or the same '
                      'share of every layer.', flag_values=values)
    flags.DEFINE_integer('floor', 1, 'Channels that stay in every layer that cannot vanish.',
                         lower_bound=1, flag_values=values)
    flags.DEFINE_integer('multiple', 1, 'Widths are rounded up to it.', lower_bound=1,
                         flag_values=values)
    flags.DEFINE_bool('legacy', False, "CAT's own search, for its published thresholds.",
                      flag_values=values)
    flags.DEFINE_enum('start', 'inherit', ('inherit', 'reinit', 'reinit_keep_norm'), 'The weights '
                      'to write: what is left of the old ones, or fresh.', flag_values=values)
    flags.DEFINE_integer('seed', 0, 'Of fresh weights and random scores.', lower_bound=0,
                         upper_bound=configs.SEEDS, flag_values=values)
    flags.DEFINE_string('out', None, 'The .safetensors file to write; a .png goes beside it '
                        '(default with --workdir: student.safetensors there).',
                        flag_values=values)
    required += ['budget']
  if latency:
    flags.DEFINE_integer('rounds', 20, 'Calls of each network, in turn.', lower_bound=3,
                         upper_bound=10_000, flag_values=values)
    flags.DEFINE_string('out', None, 'The .json file to write.', flag_values=values)
    required += ['out']
  if latency or prune:
    flags.DEFINE_string('network', None, 'A file that convert or prune wrote, or nn.save.',
                        flag_values=values)
    flags.DEFINE_string('workdir', None, 'Or the folder of a run.', flag_values=values)
    flags.DEFINE_string('stage', None, 'Of the run: whose generator (default: the first).',
                        flag_values=values)
    flags.DEFINE_string('checkpoint', 'best', 'Of the run: best or last.', flag_values=values)
    flags.DEFINE_string('size', None, "Of its input: 256, or 256x512 (height x width); a run's is "
                        'known.', flag_values=values)
    flags.DEFINE_enum('backend', 'jax', ('jax', 'onnx'), 'Of milliseconds: compiled here, or ONNX '
                      'Runtime on this CPU.', flag_values=values)
  if export:
    flags.DEFINE_string('workdir', None, 'The folder of a run, or gs://BUCKET/RUN.',
                        flag_values=values)
    flags.DEFINE_string('generator', None, 'Of the run, as in its report (default: the first '
                        'student).', flag_values=values)
    flags.DEFINE_string('checkpoint', 'best', 'Of the run: best or last.', flag_values=values)
    flags.DEFINE_string('network', None, 'Or a file that convert or prune wrote, or nn.save.',
                        flag_values=values)
    flags.DEFINE_string('size', None, 'Of its input: 256, or 256x512 (height x width).',
                        flag_values=values)
    flags.DEFINE_string('verify', None, 'Or the folder of an export: proves it again.',
                        flag_values=values)
    flags.DEFINE_list('to', 'stablehlo,onnx', 'What to write: stablehlo, onnx, and litert, which '
                      'needs the extra tf.', flag_values=values)
    flags.DEFINE_bool('int8', False, 'Of a run: also an ONNX network in 8 bits, and a LiteRT one.',
                      flag_values=values)
    flags.DEFINE_float('tolerance', 1e-4, 'The largest error that is rounding, images in [-1, 1].',
                       lower_bound=0, upper_bound=2, flag_values=values)
    flags.DEFINE_enum('layout', 'NHWC', ('NHWC', 'NCHW'), 'Of images in ONNX.',
                      flag_values=values)
    flags.DEFINE_string('out', None, 'The folder to write (default: export/GENERATOR in the '
                        'folder of the run).', flag_values=values)
  if profile:
    flags.DEFINE_string('out', None, 'The folder for the trace.', flag_values=values)
    flags.DEFINE_string('stage', None, 'Whose step (default: the first that learns from another); '
                        'nothing needs to have been trained.', flag_values=values)
    flags.DEFINE_integer('steps', 5, 'Steps to look at.', lower_bound=1, upper_bound=1000,
                         flag_values=values)
    flags.DEFINE_integer('top', 10, 'Operations to print.', lower_bound=1, flag_values=values)
    required += ['out']
  if convert or show or fid or prune or export or latency:
    flags.DEFINE_bool('overwrite', False, 'Replace the output if it is there.',
                      flag_values=values)
  flags.DEFINE_bool('help', False, 'This text.', short_name='h', flag_values=values)
  if helps:
    raise _Help(f'jaxgan-compress {verb}: {VERBS[verb].__doc__}\n'
                f'{values.main_module_help() or values.get_help()}')
  try:
    left = values([verb, *argv])[1:]
  except flags.IllegalFlagValueError as e:
    raise ValueError(_explained(str(e))) from e
  except (AttributeError, KeyError, TypeError) as e:  # of overrides, one by one
    given = ', '.join(arg.partition('=')[0] for arg in argv if OVERRIDE.match(arg))
    raise ValueError(f'{given} cannot all be applied; give a section as a whole or what is inside '
                     'it, and not both') from e
  for flag, (other, wanted) in NEEDS.get(verb, {}).items():
    found = values[other].value
    if values[flag].present and (found not in wanted if wanted else not found):
      raise ValueError(f'--{flag} is for --{"=".join((other, *wanted))} and would change nothing '
                       'here; leave it out, or give both')
  for name in PATHS:
    if name in values and str(values[name].value).startswith('~') and values[name].present:
      values[name].value = str(paths.expand(values[name].value))
  if fid or report:
    return values, left
  if left:
    raise ValueError(f'{verb} takes flags only and got {left[0]!r}; did you mean '
                     f'{" or ".join(f"--{name}" for name in required or ["config"])}?')
  for name in required:
    if values[name].value is None:
      raise ValueError(f'{verb} needs --{name}; see jaxgan-compress {verb} --help')
  return values


def _expanded(argv):
  """The arguments, those of every --flagfile in its place, `--config NAME` as `--config=NAME`."""
  try:
    argv = iter(flags.FlagValues().read_flags_from_files(argv, force_gnu=False))
  except (flags.Error, OSError, UnicodeError) as e:
    named = [arg for arg in argv if arg.lstrip('-').startswith('flagfile')]
    raise ValueError(f'{" or ".join(named)} cannot be read; it is a text file with one flag a '
                     'line, as --config=kd/digits') from e
  return [f'{arg}={next(argv, "")}' if arg in ('--config', '-config') else arg for arg in argv]


def _define_config(values, argv, helps):
  """Defines --config and its overrides; returns the arguments without --config=NAME, the last of
  which is loaded."""
  parts = [arg.partition('=') for arg in argv]
  names = [name for flag, _, name in parts if flag.lstrip('-') == 'config']
  overrides = [flag for flag, _, _ in parts if OVERRIDE.match(flag)]
  if helps or not names:
    if overrides and not helps:
      raise ValueError(f'{overrides[0]} changes a config; give --config=NAME, too')
    flags.DEFINE_string('config', None, 'Config file, with its argument after a colon; '
                        '--config.key=value overrides.', flag_values=values)
    return argv
  config = configs.load(names[-1])
  for flag in overrides:
    _check_override(config, flag)
  rest = [arg for arg, (flag, _, _) in zip(argv, parts, strict=True)
          if flag.lstrip('-') != 'config']
  try:
    config_flags.DEFINE_config_dict('config', config, flag_values=values, sys_argv=rest)
  except (AttributeError, KeyError, TypeError) as e:
    raise ValueError(f'{", ".join(overrides)}: {e}') from e
  return rest


def _explained(text):
  """What is wrong with the value of a flag, in words."""
  flag = text.removeprefix('flag ').partition(': ')[0]
  for words, kind in (('invalid literal for int()', 'a whole number, as 8'),
                      ('could not convert string to float', 'a number, as 0.5'),
                      ('Non-boolean argument', 'true or false'),
                      ('as a ConfigDict', "a section, as \"{'name': 'adam'}\"")):
    if words in text:
      return f'{flag} is not {kind}; leave it out for the default'
  return text


def _check_override(config, flag):
  """Raises ValueError, nearest key suggested, unless the config has what an override names."""
  path = OVERRIDE.match(flag)[1].split('.')
  for i, part in enumerate(path):
    key, there = part.partition('[')[0], '.'.join(['config', *path[:i]])
    if '[' in part:
      raise ValueError(f'{flag}: one entry cannot be changed; give all: --{there}.{key}="(1, 2)"')
    if not isinstance(config, Mapping | ConfigDict):
      raise ValueError(f'{flag}: {there} is {config!r} and has no {key!r} inside')
    if key not in config:
      raise ValueError(f'{flag}: {there} has no {key!r}; ' + (
          configs.suggest(key, config) if len(config) else
          f'it is empty, and is given as a whole: --{there}="{{{key!r}: ...}}"'))
    config = config[key]


class _Help(Exception):  # noqa: N818
  """The text asked for by --help."""


def _number(measure):
  """4.21, or 4.21 [3.9, 4.6] with its interval."""
  if measure.interval is None:
    return f'{measure.value:.4g}'
  low, high = measure.interval
  return f'{measure.value:.4g} [{low:.3g}, {high:.3g}]'


def _print_table(columns, rows):
  table = Table(box=None, pad_edge=False)
  for i, column in enumerate(columns):
    table.add_column(column, justify='right' if rows and rows[0][i][:1].isdigit() else 'left',
                     no_wrap=True)
  for row in rows:
    table.add_row(*row)
  # As wide as the table, whatever the terminal: a number that is cut off is another number.
  console = Console(width=2 ** 16)
  console.width = max(1, Measurement.get(console, console.options, table).maximum)
  console.print(table)


def _fail(e, code=2):
  text = str(e).strip()
  if isinstance(e, OSError) and e.strerror and e.filename is not None:
    text = f'{e.filename}: {e.strerror[:1].lower()}{e.strerror[1:]}; give another path'
  elif 'embedded null' in text:
    text = 'a path holds the character 0; give another'
  elif isinstance(e, UnicodeError):
    text = f'a text is not UTF-8: {text}; give another file, or write it anew'
  text = re.sub(r'\S{300,}', lambda word: f'{word[0][:100]}...{word[0][-10:]}', text)
  print(f'jaxgan-compress: {text}', file=sys.stderr)
  return code


def _usage():
  verbs = '\n'.join(f'  {name:12} {verb.__doc__}' for name, verb in VERBS.items())
  return (f'jaxgan-compress VERB [flags]\n\n{verbs}\n\n'
          f'{__doc__.split(chr(10), 2)[2].rstrip()}\n\n'
          'jaxgan-compress VERB --help lists the flags of one verb.')


if __name__ == '__main__':
  sys.exit(main())
