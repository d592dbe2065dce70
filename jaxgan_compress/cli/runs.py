"""Runs: train a config, and look at what it does."""

from __future__ import annotations

import json
from pathlib import Path

import jax
from PIL import Image

from jaxgan_compress import distributed, experiment
from jaxgan_compress.cli.flags import Flag, Verb
from jaxgan_compress.cli.output import check_output, format_measure, print_table
from jaxgan_compress.core import paths

CONFIG = Flag('config', 'The config: the name of one that ships, or a Python file. Its argument '
              'follows a colon, as in kd/digits:smoke, and --config.KEY=VALUE changes one of its '
              'values.', required=True, value='NAME[:ARGUMENT]')
WORKDIR = Flag('workdir', 'The folder of the run, or gs://BUCKET/RUN.', Path)
MOVED = Flag('moved', 'Another place of a path that the config of the run names, as in '
             'data.path=/mnt/maps; repeatable.', dict, value='KEY=PATH')
OVERWRITE = Flag('overwrite', 'Replace the output if it exists.', bool, False)
INTERVALS = Flag('intervals', 'The number of halvings of the samples from which 95 % intervals are '
                 'computed, as in 100; 0 computes none.', int, 0, low=0, high=10_000)


@Verb('train', CONFIG,
      Flag('workdir', 'The folder to write the run to, or gs://BUCKET/RUN; a run that stopped '
           'there goes on.', Path, required=True),
      Flag('extend', 'Let a finished run go on to the larger number of steps that '
           '--config.stages.STAGE.steps=N asks for.', bool, False),
      several_processes=True)
def train(flags):
  """Train every stage of a config, measure its generators and write report.html."""
  experiment.run(flags.config, flags.workdir, extend=flags.extend)
  if distributed.is_main():
    print(f'report: {distributed.folder(flags.workdir).absolute() / "report.html"}')


@Verb('evaluate', Flag('workdir', WORKDIR.help, Path, required=True),
      Flag('checkpoint', 'The checkpoint to measure: best, last, or best:METRIC for a metric of '
           'evaluate.best in the config.', default='best'),
      Flag('count', "The number of images of each generator; default: the config's.", int, low=10,
           value='N'),
      INTERVALS, MOVED, Flag('json', 'Print JSON, which holds the protocols too.', bool, False))
def evaluate(flags):
  """Measure the generators of a finished run again and print a table."""
  measured = experiment.evaluate(flags.workdir, flags.checkpoint.replace('latest', 'last'),
                                 flags.count, flags.intervals, moved=flags.moved)
  if flags.json:
    print(json.dumps({name: {key: measure.to_dict() for key, measure in measures.items()}
                      for name, measures in measured.items()}, indent=1))
    return
  keys = dict.fromkeys(key for measures in measured.values()
                       for key, measure in measures.items() if isinstance(measure.value, float))
  print_table(('generator', *keys), [
      (name, *(format_measure(measures[key]) if key in measures else '' for key in keys))
      for name, measures in measured.items()])
  protocol = measured['real']['vol'].protocol
  print(f'{flags.checkpoint} checkpoint; ' + ', '.join(f'{k} {v}' for k, v in protocol.items()))


@Verb('report', WORKDIR, MOVED,
      Flag('output', 'With several folders: the .html file to write; default: comparison.html in '
           'the folder that holds them.', Path),
      Flag('metric', 'With several folders: the metric that the charts show against cost; default: '
           'the one by which the runs chose their checkpoints.'),
      arguments='[FOLDER ...]')
def report(flags):
  """Write the report of a finished run again, or a page that compares several runs."""
  folders = [flags.workdir, *flags.arguments] if flags.workdir else flags.arguments
  if len(folders) > 1:
    page = experiment.compare(folders, flags.output, flags.metric, moved=flags.moved)
  elif not folders or flags.output or flags.metric:
    raise ValueError('report takes --workdir=FOLDER; --output and --metric are for two folders or '
                     'more, which it compares')
  else:
    run = experiment.open_run(folders[0], moved=flags.moved)
    page = experiment.write_report(run, experiment.tabulate(run))
  print(f'report: {page.absolute()}')


@Verb('profile', CONFIG,
      Flag('output', 'The folder to write the trace to.', Path, required=True),
      Flag('stage', 'The stage whose training step is profiled; default: the first that has a '
           'teacher. Nothing needs to be trained before.'),
      Flag('steps', 'The number of training steps to profile.', int, 5, low=1, high=1000),
      Flag('top', 'The number of operations to print.', int, 10, low=1))
def profile(flags):
  """Run some training steps and print which operations take the time."""
  profiled = experiment.profile(flags.config, flags.output, flags.stage, flags.steps)
  device, operations = profiled['device'], profiled['operations']
  total = sum(spent.seconds for spent in operations)
  print_table(
      ('operation', 'layer', 'result', 'ms per step', 'share', 'GFLOP/s', 'GB/s', 'of roofline'),
      [(spent.name, spent.operation.layer, spent.operation.result,
        f'{1e3 * spent.seconds:.3f}', f'{spent.seconds / total:.1%}',
        f'{spent.calls * spent.operation.flops / spent.seconds / 1e9:.1f}',
        f'{spent.calls * spent.operation.bytes / spent.seconds / 1e9:.1f}', f'{spent.roofline:.0%}')
       for spent in operations[:flags.top]])
  needed = sum(spent.seconds * spent.roofline for spent in operations)
  print(f'stage {profiled["stage"]}: a step takes {1e3 * profiled["seconds"]:.1f} ms, compiled in '
        f'{profiled["compile_seconds"]:.0f} s, and holds {profiled["bytes"] / 2**20:.0f} MiB. '
        f'{len(operations)} operations take {1e3 * total:.1f} ms together; the roofline needs '
        f'{needed / total:.0%} of that, for {profiled["flops"] / 1e9:.2f} GFLOP at '
        f'{device.flops / 1e9:.0f} GFLOP/s and {device.bandwidth / 1e9:.0f} GB/s, as measured '
        'on this device.')
  trace = max(Path(flags.output).glob('**/perfetto_trace.json.gz'))
  print(f'{trace} opens in ui.perfetto.dev, {flags.output} in TensorBoard')


@Verb('compile', CONFIG,
      Flag('target', 'The machine to compile for, which need not be here: tpu:v5e:2x2, '
           'tpu:v5e:16x16, tpu:v5p:2x2x2, gpu:h100, ...', required=True,
           value='tpu:CHIP:TOPOLOGY|gpu:CHIP'),
      Flag('stage', 'The stage whose training step is compiled; default: the last that trains a '
           'generator. Nothing needs to be trained before, and no data is read.'),
      Flag('devices', 'The number of its devices that train together; default: all of them.', int,
           low=1),
      Flag('batch', "The number of images of each device; default: the config's batch, so that "
           'several devices train on several times as many.', int, low=1, value='N'),
      Flag('dtype', 'The type that all networks compute in; default: as the config has it.',
           choices=experiment.DTYPES),
      Flag('top', 'The number of places to print.', int, 10, low=1),
      Flag('output', 'A .json file to write all of it to.', Path), OVERWRITE)
def compile_step(flags):
  """Compile a training step for a machine that is not here; print what its compiler says."""
  if flags.output:
    check_output(Path(flags.output), ('.json',), flags.overwrite)
  jax.config.update('jax_platforms', 'cpu')  # a chip that is here is left to whoever trains
  print(f'compiling for {flags.target}; large steps take minutes', flush=True)
  program = experiment.compile_stage(
      flags.config, flags.target, flags.stage, devices=flags.devices, batch=flags.batch,
      dtype=flags.dtype)
  if flags.output:
    paths.write_atomically(Path(flags.output), json.dumps(program.to_dict(), indent=1) + '\n')
  for line in _said_of(program):
    print(line)
  if program.costliest:
    print('The costliest places:')
    print_table(
        ('cycles', 'share', 'operations', 'largest result', 'place'),
        [(f'{one.cycles:,.0f}', f'{one.cycles / program.cycles:.1%}', str(one.count), one.result,
          one.place) for one in program.costliest[:flags.top]])
  return 0 if program.fits else 1


def _said_of(program):
  """What is printed of a compiled program, for readers who have never seen one."""
  if program.error:
    yield f'It could not be compiled, after {program.seconds:.0f} s: {program.error}'
    return
  memory = {key: f'{value / 2**20:,.1f} MiB' for key, value in program.hbm.items()}
  yield (f'Compiled in {program.seconds:.0f} s for {program.devices} '
         f'device{"s" * (program.devices > 1)} of {program.target}.')
  yield (f'Memory of each device: {memory["total"]} of {memory["available"]}'
         f'{"" if program.fits else ", which is too little"}; {memory["arguments"]} for the '
         f'state and the batch, {memory["temporaries"]} for what is computed between, '
         f'{memory["code"]} for the program itself.')
  if program.flops:
    yield f'Arithmetic of each device: {program.flops / 1e9:,.1f} GFLOP.'
  if program.cycles is None:
    yield 'The compiler gives no cycles for this machine.'
  else:
    share = program.share_of_peak
    yield (f'Estimated by the compiler, not measured: {program.cycles:,.0f} cycles a step'
           + (f', {share:.1%} of the peak in bfloat16.' if share else '.'))
  for kind, (count, size) in program.collectives.items():
    yield f'Devices exchange by {kind}: {count} times, {size / 2**20:.1f} MiB together.'
  if program.devices > 1 and not program.collectives:
    yield 'Devices exchange nothing.'


@Verb('show-data', CONFIG,
      Flag('output', 'The picture to write, .png or .jpg.', Path, 'data.png'),
      Flag('stage', 'The stage whose data is shown; default: the first that trains on images.'),
      Flag('columns', 'The number of images side by side.', int, 8, low=1, high=64), OVERWRITE)
def show_data(flags):
  """Write a contact sheet of the augmented images that a config trains on."""
  out = Path(flags.output)
  check_output(out, ('.png', '.jpg', '.jpeg'), flags.overwrite)
  Image.fromarray(experiment.show_data(flags.config, flags.stage, columns=flags.columns)).save(out)
  print(f'{out.absolute()} shows the data')
