"""Images: prepare data sets and compare folders."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path

from jaxgan_compress import convert, metrics
from jaxgan_compress.cli.flags import Flag, Verb
from jaxgan_compress.cli.output import check_output, format_measure, print_table, show_progress
from jaxgan_compress.cli.runs import INTERVALS, OVERWRITE
from jaxgan_compress.data import preprocess, translation


@Verb('prepare-data',
      Flag('layout', 'How the folder is laid out; docs/howto.md describes each layout.',
           choices=('paired', 'unpaired', 'labels'), required=True),
      Flag('path', 'The folder of images.', Path, required=True),
      Flag('name', "The name of the data set, which configs call 'tfds:NAME'.", required=True),
      Flag('output', 'The folder that holds the data sets.', Path, preprocess.DEFAULT),
      Flag('classes', 'The number of labels in the label maps.', int, low=1, high=256,
           needs=('layout=labels',)),
      Flag('dont_care', 'Label 255 of the label maps is a class of its own.', bool, False,
           needs=('layout=labels',)),
      Flag('channels', 'The channels of the images: 3 for RGB, which is also read as grey, 1 for '
           'grey, 4 and 2 for these with alpha, or the number of planes.', int, 3, low=1,
           high=translation.MOST_CHANNELS),
      Flag('bits', 'Set 16 to keep numbers of 16 bits.', int, 8, low=8, high=16))
def prepare_data(flags):
  """Make a TensorFlow Datasets data set of a folder, every image of which is checked."""
  folder = preprocess.prepare(flags.layout, flags.path, flags.name, out=flags.output,
                              classes=flags.classes, dont_care=flags.dont_care,
                              channels=flags.channels, bits=flags.bits,
                              progress=show_progress)
  manifest = json.loads((folder / preprocess.MANIFEST).read_text())
  size = sum(size for size, _ in manifest['shards'].values())
  print(f'{folder}: {len(manifest["sources"])} files, {size / 2 ** 20:.1f} MiB\n'
        f"data.name='tfds:{flags.name}'"
        + (f", data.data_dir='{flags.output}'" if flags.output != preprocess.DEFAULT else ''))


@Verb('fid',
      Flag('weights', 'The Inception network, a file that convert wrote; or efficientnet_lite0, '
           "which the extra 'features' brings and whose distance is not FID. Without it an "
           'untrained network measures, which is not FID.', Path),
      Flag('protocol', 'The way in which images are resized to 299 pixels.', default='fid_pytorch',
           choices=('fid_pytorch', 'fid_clean'), needs=('weights',)),
      Flag('save', 'The .npz file in which to keep the statistics of one folder, which can stand '
           'for the folder later.', Path),
      INTERVALS, Flag('json', 'Print JSON, which holds the protocols too.', bool, False), OVERWRITE,
      arguments='A [B]')
def fid(flags):
  """Measure the distance between two folders of images."""
  folders, save = flags.arguments, flags.save
  if not 1 <= len(folders) <= 2 or (len(folders) == 1 and not save):
    raise ValueError('fid takes two folders, A and B (or .npz files of statistics); or one, and '
                     f'--save=FILE.npz; got {" ".join(folders) or "none"}')
  if save:
    check_output(Path(save), ('.npz',), flags.overwrite)
  if flags.weights in convert.PACKAGED:
    if flags.protocol != 'fid_pytorch':
      raise ValueError(f'--protocol={flags.protocol} is of the Inception network; {flags.weights} '
                       'sees images in one way: leave it out')
    extractor = metrics.efficientnet_lite0(flags.weights)
  elif flags.weights:
    extractor = metrics.inception(flags.weights, flags.protocol)
  else:
    extractor = metrics.random_vgg()
    print('no --weights: measured through a VGG16 that was never trained. This is not FID.',
          file=sys.stderr)
  progress = functools.partial(show_progress, what='measuring')
  if len(folders) == 1:
    features = metrics.folder_features(folders[0], extractor, progress=progress)
    metrics.Moments.of(features, dict(extractor.protocol)).save(save, overwrite=flags.overwrite)
    print(f'{save}: statistics of {len(features)} images')
    return
  if save:
    raise ValueError('--save keeps the statistics of one folder; leave B out')
  measures = metrics.compare_folders(folders[0], folders[1], extractor, intervals=flags.intervals,
                                     progress=progress)
  if flags.json:
    print(json.dumps({name: measure.to_dict() for name, measure in measures.items()}, indent=1))
    return
  print_table(tuple(measures), [tuple(map(format_measure, measures.values()))])
  protocol = measures[extractor.distances[0]].protocol
  print(', '.join(f'{key} {value}' for key, value in protocol.items()))
