"""Does the input pipeline keep up: with a loop written by hand, and with a training step?

    python benchmarks/data.py [--rounds 7] [--images 256]

Decodes 256x256 JPEGs (quality 90, cut from the sample photographs), resizes to 286, crops 256 and
flips, as uint8 batches of 8: by hand in a pool of two threads, and by `data.Pipeline` over a folder
with 0, 1 and 2 workers, by Pillow and by OpenCV, called in turn. Prints images/s (median) and the
ratio to the quickest loop by hand of the same round (median, quartiles) as Markdown; and images/s
of a training step to compare with.
"""

import argparse
import concurrent.futures
import contextlib
import io
import itertools
import os
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxgan_compress import data, nn
from jaxgan_compress.data.decode import opencv

BATCH = 8


def write_photographs(folder, count):
  source = data.samples('colorize', 'train', size=256, count=count)
  for i in range(count):
    Image.fromarray(source[i]['target']).save(folder / f'{i:04}.jpg', quality=90)


def by_pillow(file, rng):
  with Image.open(io.BytesIO(file.read_bytes())) as image:
    image = image.convert('RGB').resize((286, 286), Image.BICUBIC)
  top, left = (int(x) for x in rng.integers(0, 31, 2))
  image = image.crop((left, top, left + 256, top + 256))
  if rng.random() < .5:
    image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
  return np.asarray(image)


def by_opencv(file, rng):
  cv2 = opencv()
  x = cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), cv2.IMREAD_COLOR_RGB)
  x = cv2.resize(x, (286, 286), interpolation=cv2.INTER_CUBIC)
  top, left = rng.integers(0, 31, 2)
  x = x[top:top + 256, left:left + 256]
  return cv2.flip(x, 1) if rng.random() < .5 else x


def by_hand(load, files):
  """Endless batches by a pool of two threads, two batches ahead."""
  rng = np.random.default_rng(0)

  def batch(_):
    return np.stack([load(files[i], np.random.default_rng(i))
                     for i in rng.integers(len(files), size=BATCH)])

  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    waiting = [pool.submit(batch, i) for i in range(4)]
    for i in itertools.count(4):
      yield waiting.pop(0).result()
      waiting.append(pool.submit(batch, i))


def rate(batches, images):
  time.sleep(.5)  # the loop before this one fills its buffers
  for _ in range(12):  # what was prepared ahead while nobody asked
    next(batches)
  start = time.perf_counter()
  for _ in range(images // BATCH):
    next(batches)
  return images / (time.perf_counter() - start)


def step_rate():
  """Images/s of forward and backward of OMGD's 16-wide student, L1 alone, batch 8, 256 px."""
  G = nn.mobile_resnet(16)
  x = jnp.zeros((BATCH, 256, 256, 3))
  variables = jax.jit(G.init)(jax.random.key(0), x[:1])
  step = jax.jit(jax.grad(lambda v: jnp.abs(G.apply(v, x, train=True)[0]).mean()))
  jax.block_until_ready(step(variables))
  start = time.perf_counter()
  jax.block_until_ready([step(variables) for _ in range(3)])
  return 3 * BATCH / (time.perf_counter() - start)


def main():
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument('--images', type=int, default=256)
  args = parser.parse_args()
  backends = ['pillow']
  with contextlib.suppress(ImportError):
    opencv()
    backends.append('opencv')
  with tempfile.TemporaryDirectory() as folder:
    folder = Path(folder)
    write_photographs(folder, 1024)
    files = sorted(folder.iterdir())
    loops = {f'by hand, {name}': by_hand({'pillow': by_pillow, 'opencv': by_opencv}[name], files)
             for name in backends}
    for name in backends:
      for workers in (0, 1, 2):
        source = data.folder(folder, size=256, load=286, backend=name)
        loops[f'Pipeline, {name}, {workers} workers'] = data.Pipeline(
            source, batch=BATCH, workers=workers).batches()
    with contextlib.ExitStack() as stack:
      for loop in loops.values():
        stack.callback(loop.close)
        next(loop)  # starts it
      rates = np.array([[rate(loop, args.images) for loop in loops.values()]
                        for _ in range(args.rounds)])
  print(f'jax {jax.__version__}, {os.cpu_count()} CPUs, {args.rounds} rounds of {args.images} '
        f'images; a training step on {jax.devices()[0].device_kind} takes {step_rate():.1f} '
        'images/s\n\n| loop | images/s | of the quickest by hand, same library | quartiles |\n'
        '|---|--:|--:|--:|')
  names = list(loops)
  for i, name in enumerate(names):
    library = next(each for each in backends if each in name)
    ratio = rates[:, i] / rates[:, names.index(f'by hand, {library}')]
    low, middle, high = np.quantile(ratio, (.25, .5, .75))
    print(f'| {name} | {np.median(rates[:, i]):.0f} | {middle:.2f} | {low:.2f} to {high:.2f} |')


if __name__ == '__main__':
  main()
