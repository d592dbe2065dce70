"""How much does a still background flicker in a generated video, with `steady` and without?

    python benchmarks/flicker.py [--network=G.safetensors] [--shares=0,0.5,0.9,0.97]

Three clips of a photograph in which an object passes: the camera stands still; it pans by 4 pixels
a frame; it stands still and the exposure changes by 2 % at random. Prints the mean change in levels
of 255 from a frame to the next, moved by the known motion, of pixels that no object is near (the
warping error of Lai et al. 2018), and how far the images are from those without `steady`. Without
--network an untrained mobile ResNet with instance norms is taken. Needs the extra `video`.
"""

import argparse
import tempfile
from pathlib import Path

import av
import jax
import numpy as np
from PIL import Image
from skimage import data

from jaxgan_compress import inference, nn
from jaxgan_compress.core import BoundGenerator

HEIGHT, WIDTH, FRAMES, PAN = 192, 256, 60, 4
STEP = 6.2           # pixels that the object moves in a frame
REACH = 36           # pixels around it that do not count: the network's field, and its path


def clips():
  """(name, [frames], pixels that the camera moves in a frame)."""
  resized = lambda x, width, height: np.asarray(Image.fromarray(x).resize((width, height)))
  photograph = resized(np.concatenate([data.astronaut(), data.astronaut()[:, ::-1]], 1), 840, 420)
  thing = resized(data.coffee(), 90, 60)

  def frame(i, pan):
    pixels = photograph[100:100 + HEIGHT, 60 + pan * i:60 + pan * i + WIDTH].copy()
    left = -90 + int(STEP * i)
    a, b = max(left, 0), min(left + 90, WIDTH)
    if a < b:
      pixels[70:130, a:b] = thing[:, a - left:b - left]
    return pixels

  light = np.random.default_rng(0).normal(1, .02, FRAMES)
  still = [frame(i, 0) for i in range(FRAMES)]
  return (('camera stands still', still, 0),
          ('camera pans', [frame(i, PAN) for i in range(FRAMES)], PAN),
          ('camera stands still, exposure flickers by 2 %',
           [(x * share).clip(0, 255).astype(np.uint8)
            for x, share in zip(still, light, strict=True)], 0))


def write(file, frames):
  with av.open(str(file), 'w') as container:
    stream = container.add_stream('ffv1', rate=25, options={'strict': '-2'})
    stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, 'bgr0'
    for pixels in frames:
      container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, 'rgb24')))
    container.mux(stream.encode())


def read(file):
  with av.open(str(file)) as container:
    return np.stack([frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)]
                    ).astype(np.float32)


def flicker(images, pan):
  """The mean change of pixels that no object is near, moved by the camera's motion."""
  changes = []
  for i in range(1, len(images)):
    before, now = (images[i - 1][:, pan:], images[i][:, :WIDTH - pan])
    counts = np.ones(now.shape[:2], bool)
    left = -90 + int(STEP * i)
    counts[70 - REACH:130 + REACH, max(left - REACH, 0):max(left + 90 + REACH, 0)] = False
    changes.append(np.abs(before - now)[counts].mean())
  return np.mean(changes)


def main():
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--network')
  parser.add_argument('--shares', default='0,0.5,0.9,0.97')
  args = parser.parse_args()
  if args.network:
    module, variables = nn.load(args.network)
  else:
    module = nn.mobile_resnet(ngf=16, blocks=3)
    variables = nn.initialise(module, jax.random.key(1), scheme='he')
  network = inference.bind('it', BoundGenerator(variables, module))
  shares = [float(share) for share in args.shares.split(',')]
  print('| clip | ' + ' | '.join(f'{share:g}: flicker, away' for share in shares) + ' |\n|---|'
        + '--:|' * len(shares))
  with tempfile.TemporaryDirectory() as root:
    for name, frames, pan in clips():
      write(Path(root, 'in.mkv'), frames)
      cells, plain = [], None
      for share in shares:
        inference.generate(network, Path(root, 'in.mkv'), Path(root, 'out.mkv'), steady=share,
                           engine='jax', overwrite=True)
        images = read(Path(root, 'out.mkv'))
        plain = images if plain is None else plain
        cells.append(f'{flicker(images, pan):.2f}, {np.abs(images - plain).mean():.1f}')
      print(f'| {name} | ' + ' | '.join(cells) + ' |', flush=True)


if __name__ == '__main__':
  main()
