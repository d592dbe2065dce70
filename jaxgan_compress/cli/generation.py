"""Generated images: a trained generator applied to pictures."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from jaxgan_compress import inference
from jaxgan_compress.cli.flags import Flag, Verb
from jaxgan_compress.cli.models import CHECKPOINT, LIKE, NETWORK, WORKDIR
from jaxgan_compress.cli.output import show_progress
from jaxgan_compress.cli.runs import OVERWRITE
from jaxgan_compress.data import picture_files, upscaling
from jaxgan_compress.inference.demo import MAX_SIDE, check_demo, serve
from jaxgan_compress.inference.engines import ENGINES
from jaxgan_compress.inference.gallery_page import PICTURES, SIDE, beside, prepare
from jaxgan_compress.inference.tiles import STATISTICS

SHOWN = 10  # failures that are printed


class PicturesError(Exception):
  """Of some pictures or videos nothing could be generated; of the others it was."""


GENERATOR = Flag('generator', 'The generator of the run, as its report names it; default: the '
                 'first student.', needs=('workdir',))
EDGES = Flag('edges', 'For label maps of --network: the last plane is instance edges.', bool,
             needs=('network',))
DONT_CARE = Flag('dont_care', 'For label maps of --network: label 255 has a plane of its own.',
                 bool, False, needs=('network',))
TEACHER = Flag('teacher', 'What the generator learned from, to compare it with: a path as of '
               '--network, or a generator of the run; by default the one of the run.', Path)
MORE = Flag('compare', 'More networks to compare it with: paths, or generators of the run.', list)
EXPORT = Flag('export', 'Instead of both: the folder of an export, which runs on ONNX Runtime.',
              Path)


@Verb('generate', WORKDIR, NETWORK, LIKE, EXPORT, GENERATOR, CHECKPOINT,
      Flag('input', "The picture or video, the folder of both with its subfolders, or a pattern as "
           "'photos/*.jpg' to generate from; label maps for networks that take them.", Path),
      Flag('output', 'The folder to write, or for one picture or video the file.', Path,
           required=True),
      Flag('size', 'Pictures are resized to this size: 256, or 256x512 (height x width); by '
           'default nothing is resized.', needs=('input',)),
      Flag('max_side', 'Pictures with a longer side are made smaller until it has so many pixels.',
           int, low=1, needs=('input',)),
      Flag('format', 'The format of pictures; default: that of the input.',
           choices=tuple(picture_files.SUFFIXES)),
      Flag('quality', 'The quality of lossy formats; default: that of the input, for videos 66, '
           'which is crf 18 of H.264.', int, low=1, high=100),
      Flag('colors', 'Whether grey pictures give grey images (input) or images in colour (rgb); '
           'auto: rgb for a run that learned to paint grey pictures.', default='auto',
           choices=picture_files.COLORS, needs=('input',)),
      Flag('instances', 'For label maps: the file or folder of instance maps, which have the names '
           'of the label maps.', Path, needs=('input',)),
      EDGES, DONT_CARE,
      Flag('count', 'The number of images of a generator of latents; default: 16.', int, low=1,
           high=1_000_000),
      Flag('seed', 'The seed of the latents.', int, 0, low=0, high=2**32 - 1),
      Flag('grid', 'Also write one image of all, grid.png.', bool, False),
      Flag('batch', 'The number of pictures of a size that are run at once; default: 1 on '
           'CPUs, else 8 of 256x256; an export runs one at a time.', int, low=1),
      Flag('engine', 'What runs the network; auto: the faster one, measured once and remembered.',
           default='auto', choices=ENGINES),
      Flag('tile', 'Generate in tiles of so many pixels; default: only pictures that do not fit in '
           'memory; 0: none.', int, low=0, needs=('input',)),
      Flag('norm_statistics', 'Where tiles take the statistics of instance norms from: tiles '
           'sampled from the picture, a reduced copy of it, or all of it in several passes.',
           default='sampled', choices=STATISTICS, needs=('input',)),
      Flag('steady', 'Of videos, against flicker: the share that norms take over from their '
           'statistics for the frame before, as 0.9.', float, 0., low=0, high=1,
           needs=('input',)),
      Flag('gallery', 'Also write gallery.html: at most 24 of the inputs, and beside each what the '
           'network and its teacher make of it.', bool, False),
      TEACHER, MORE, OVERWRITE)
def generate_images(flags):
  """Apply a trained generator to pictures and videos, or sample images from latents."""
  source = the_source('generate', flags)
  options: dict[str, Any] = {
      name: getattr(flags, name)
      for name in ('generator', 'checkpoint', 'instances', 'max_side', 'format', 'quality',
                   'colors', 'count', 'seed', 'grid', 'batch', 'engine', 'tile', 'norm_statistics',
                   'steady', 'overwrite')}
  options |= {'size': read_size(flags.size), 'progress': show_progress,
              'labels': {'edges': flags.edges, 'dont_care': flags.dont_care}}
  network, write_gallery = source, None
  if flags.gallery:
    network, networks = inference.open_networks(
        source, flags.generator, flags.checkpoint, teacher=flags.teacher,
        more=flags.compare or (), labels=options['labels'])
    write_gallery = prepare_gallery(networks, flags, options)
  elif flags.teacher or flags.compare:
    raise ValueError('--teacher and --compare are for --gallery; give that too, or leave them out')
  done = inference.generate(network, flags.input, flags.output, **options)
  _print_generated(done, flags)
  if done.left_out:
    _list(f'left out: {len(done.left_out):,}', done.left_out, 3)
  if write_gallery and (done.written or done.skipped):
    print(describe_gallery(write_gallery()))
  if done.failures:
    _list(f'not generated: {len(done.failures):,}', done.failures, SHOWN)
    raise PicturesError(f'{len(done.failures):,} of the files could not be generated')


def _print_generated(done: inference.Generated, flags):
  skipped = f', {done.skipped:,} skipped that were done before' if done.skipped else ''
  if done.written or not done.videos:
    rate = f' in {done.seconds:.1f} s, {done.rate:.3g} images/s on {done.engine}'
    print(f'{flags.output}: {done.written:,} images{rate * bool(done.written)}{skipped}')
  for each in done.videos:
    print(*(f'{each.target}: {text}' for text in (
        f'{each.frames:,} frames, {each.generated:,} of them generated in {each.seconds:.1f} s, '
        f'{each.rate:.1f} frames/s on {done.engine}', each.flicker.describe(flags.steady > 0),
        *each.notes)), sep='\n')


def _list(title, found, shown):
  print(title, *map(str, found[:shown]), sep='\n  ', file=sys.stderr)
  if len(found) > shown:
    print(f'  and {len(found) - shown:,} more', file=sys.stderr)


@Verb('record', WORKDIR, NETWORK, GENERATOR, CHECKPOINT,
      Flag('input', 'The folder of photographs, with or without folders train, validation and test '
           'inside.', Path, required=True),
      Flag('output', 'The folder to write, to be read by data.upscaled.', Path, required=True),
      Flag('splits', 'The splits to record.', list, 'train,validation,test'),
      Flag('size', 'The pixels of a side of an input.', int, 64, low=8, high=1024),
      Flag('each', 'The patches of each photograph of train.', int, 8, low=1, high=10_000),
      Flag('each_held_out', 'The patches of each other photograph.', int, 3, low=1, high=10_000),
      Flag('degradation', 'What happens to a patch before the network sees it: mild blurs, adds '
           'noise and compresses; none makes it smaller and no more.', default='mild',
           choices=upscaling.DEGRADATIONS),
      Flag('engine', 'What runs the network; auto: the faster one, measured once and remembered.',
           default='auto', choices=ENGINES))
def record(flags):
  """Record what an upscaler makes of photographs, for students that learn without it."""
  made = inference.record_upscaler(
      the_source('record', flags), flags.input, flags.output, flags.splits, progress=show_progress,
      **{name: getattr(flags, name) for name in ('size', 'each', 'each_held_out', 'degradation',
                                                 'engine', 'generator', 'checkpoint')})
  for each in made:
    how = f'recorded on {each.engine}' if each.made else 'recorded before'
    print(f'{each.folder}: {each.pairs:,} pairs, {how}')


@Verb('demo', WORKDIR, NETWORK, LIKE, EXPORT, GENERATOR, CHECKPOINT, TEACHER, MORE, EDGES,
      DONT_CARE,
      Flag('max_side', 'What is given to the page is made smaller until no side has more pixels.',
           int, MAX_SIDE, low=16),
      Flag('engine', 'What runs the networks; auto: onnxruntime on CPUs, since it compiles nothing '
           'for another size, else jax.', default='auto', choices=ENGINES),
      Flag('host', 'The address to listen at: 127.0.0.1 for this machine alone, 0.0.0.0 for all '
           'that reach it.', default='127.0.0.1'),
      Flag('port', 'The port; 0: any that is free; default: the first that is free from 7860.',
           int, low=0, high=65535))
def show_demo(flags):
  """Show a page to play with: give a picture, see teacher and student side by side."""
  labels = {'edges': flags.edges, 'dont_care': flags.dont_care}
  check_demo(flags.host, flags.port)
  _, networks = inference.open_networks(
      the_source('demo', flags), flags.generator, flags.checkpoint, teacher=flags.teacher,
      more=flags.compare or (), labels=labels)
  serve(inference.Demo(networks, max_side=flags.max_side, engine=flags.engine), flags.host,
        flags.port)


def the_source(verb: str, flags) -> str:
  """The one of the three paths that was given. Raises ValueError for none or several."""
  sources = [source for source in (flags.workdir, flags.network, vars(flags).get('export'))
             if source]
  if len(sources) != 1:
    raise ValueError(f'{verb} takes --workdir=FOLDER of a run, --network=FILE, or '
                     '--export=FOLDER of an export; give one of them')
  return sources[0]


def prepare_gallery(networks, flags, options):
  """Checks what a gallery beside the images would be refused for; returns what writes it."""
  names = ('instances', 'size', 'max_side', 'colors', 'seed', 'engine', 'tile', 'norm_statistics',
           'overwrite', 'progress')
  return prepare(
      networks, flags.input, beside(flags.input, flags.output),
      count=min(flags.count or 16, PICTURES) if flags.input is None else PICTURES,
      **{name: options[name] for name in names})


def describe_gallery(made: inference.Gallery) -> str:
  """Its file, and how much of what was asked for it shows."""
  if made.skipped:
    return f'{made.file}: skipped, it was written before'
  some = f'{made.shown} of {made.total:,}' if made.shown < made.total else f'{made.shown}'
  return (f'{made.file}: {some} inputs, no side on the page above {SIDE} pixels, '
          f'{made.bytes / 2 ** 20:.1f} MiB')


def read_size(text: str | None) -> tuple[int, int] | None:
  """'256' or '256x512' as (height, width). Raises ValueError for anything else."""
  if text is None:
    return None
  match = re.fullmatch(r'([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?', text.lower())
  if not match:
    raise ValueError(f'--size={text}; give 256, or 256x512 (height x width)')
  return int(match[1]), int(match[2] or match[1])

