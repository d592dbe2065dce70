"""How fast are folders of pictures generated, and how near are tiles to the whole picture?

    python benchmarks/generate.py [--network=G.safetensors] [--pictures=200] [--rounds=5]
        [--batch=8]
    python benchmarks/generate.py --tiles=photographs/ [--network=G.safetensors] [--tile=512]

The first makes a folder of 256 px JPEGs of the built-in photographs and takes, in turn: the network
alone on pixels in memory, `generate` (reading and writing included), and the loop that a newcomer
would write (one picture after the other: open, jitted network, save). Prints images per second and
ratios, median and range of the rounds. The second compares images made in tiles with the image of
the whole picture, for both quick kinds of statistics of instance norms: levels of 255. Without
--network a mobile ResNet of ngf 16 with random weights is taken. Prints Markdown.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from PIL import Image

import jaxgan_compress as jgc
from jaxgan_compress import inference, nn
from jaxgan_compress.core import xla

SIDE = 256


def write_jpegs(folder, count):
  """Crops of the built-in photographs."""
  from skimage import data
  photographs = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]
  rng = np.random.default_rng(0)
  for i in range(count):
    picture = photographs[i % len(photographs)]
    y, x = (rng.integers(side - SIDE) for side in picture.shape[:2])
    Image.fromarray(picture[y:y + SIDE, x:x + SIDE]).save(folder / f'{i:04}.jpg', quality=92)


def newcomers_loop(bound, folder, out):
  """Seconds of one picture after the other."""
  out.mkdir()
  run = jax.jit(lambda x: bound(x))
  run(np.zeros((1, SIDE, SIDE, 3), np.float32)).block_until_ready()
  start = time.perf_counter()
  for file in sorted(folder.iterdir()):
    x = np.asarray(Image.open(file).convert('RGB'), np.float32) / 127.5 - 1
    y = np.asarray(run(x[None]))[0]
    Image.fromarray(((y + 1) * 127.5).round().clip(0, 255).astype(np.uint8)).save(out / file.name)
  return time.perf_counter() - start


def alone(network, count, engine, batch):
  """Seconds of the network on pixels in memory, in the batches of `generate`."""
  runner = inference.Runner(network, {(SIDE, SIDE): count}, engine, batch=batch)
  batch = runner.batch((SIDE, SIDE))
  x = np.random.default_rng(0).integers(0, 256, (batch, SIDE, SIDE, 3), np.uint8)
  runner(x)
  start = time.perf_counter()
  for _ in range(count // batch):
    runner(x)
  return (time.perf_counter() - start) * count / (count // batch * batch), runner.name


def throughput(bound, count, rounds, batch):
  network = inference.bind('it', bound)
  print('| engine | network alone, images/s | generate | of the network alone | '
        "newcomer's loop | generate / loop |\n|---|--:|--:|--:|--:|--:|")
  with tempfile.TemporaryDirectory() as root:
    folder = Path(root, 'in')
    folder.mkdir()
    write_jpegs(folder, count)
    for engine in ('jax', 'onnxruntime'):
      rows = []
      for _ in range(rounds):
        a, name = alone(network, count, engine, batch)
        done = jgc.generate(network, folder, Path(root, 'out'), engine=engine, batch=batch)
        # Each call compiles or builds the network anew, which is not charged to the loop either.
        b = done.seconds - preparing(network, count, engine, batch)
        c = newcomers_loop(bound, folder, Path(root, 'loop'))
        rows.append((count / a, count / b, a / b, count / c, c / b))
        shutil.rmtree(Path(root, 'out'))
        shutil.rmtree(Path(root, 'loop'))
      print(f'| {name} | ' + ' | '.join(map(spread, zip(*rows, strict=True))) + ' |')


def preparing(network, count, engine, batch):
  """Seconds until an engine is ready for the batches of a folder."""
  start = time.perf_counter()
  runner = inference.Runner(network, {(SIDE, SIDE): count}, engine, batch=batch)
  runner(np.zeros((runner.batch((SIDE, SIDE)), SIDE, SIDE, 3), np.uint8))
  first = time.perf_counter() - start
  start = time.perf_counter()
  runner(np.zeros((runner.batch((SIDE, SIDE)), SIDE, SIDE, 3), np.uint8))
  return first - (time.perf_counter() - start)


def spread(values):
  return f'{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})'


def tiles(bound, folder, tile):
  network = inference.bind('it', bound)
  field = inference.receptive_field(bound.module, bound.variables)
  whole = xla.jit(bound.__call__)
  print(f'{field.statistics} statistics, overlap {field.overlap} px\n\n| photograph | size | '
        'statistics | mean | 99 % below | largest | PSNR, dB |\n|---|---|---|--:|--:|--:|--:|')
  for file in sorted(folder.iterdir()):
    with Image.open(file) as opened:
      picture = np.asarray(opened.convert('RGB'))
    multiple = network.takes.multiple
    picture = picture[:picture.shape[0] // multiple * multiple,
                      :picture.shape[1] // multiple * multiple]
    image = (np.asarray(whole(picture[None].astype(np.float32) / 127.5 - 1))[0] + 1) * 127.5
    for kind in ('sampled', 'reduced'):
      made = inference.TiledGenerator(bound, network.takes, field, tile, kind)(picture)
      off = np.abs(made - image)
      psnr = 20 * np.log10(255 / np.sqrt(np.square(off).mean()))
      print(f'| {file.stem} | {picture.shape[1]}x{picture.shape[0]} | {kind} | {off.mean():.2f} | '
            f'{np.quantile(off, .99):.1f} | {off.max():.0f} | {psnr:.1f} |', flush=True)


def main():
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--network')
  parser.add_argument('--pictures', type=int, default=200)
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--batch', type=int, help='pictures at once; default: that of `generate`')
  parser.add_argument('--tiles', type=Path)
  parser.add_argument('--tile', type=int, default=512)
  args = parser.parse_args()
  if args.network:
    module, variables = nn.load(args.network)
  else:
    module = nn.mobile_resnet(ngf=16)
    variables = nn.initialise(module, jax.random.key(0), scheme='he')
  bound = jgc.BoundGenerator(jax.device_put(variables), module)
  if args.tiles:
    tiles(bound, args.tiles, args.tile)
  else:
    throughput(bound, args.pictures, args.rounds, args.batch)


if __name__ == '__main__':
  main()
