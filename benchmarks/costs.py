"""What the published networks cost: writes docs/costs.md.

    python benchmarks/costs.py [--check]

Counts, no measurement: the same on every machine. With --check nothing is written, and the exit
code is 1 if the file differs.
"""

import argparse
import sys
from pathlib import Path

from jaxgan_compress import nn
from jaxgan_compress.analysis import activation_bytes, count_params, layers
from jaxgan_compress.analysis.model_cost import CONVENTIONS
from jaxgan_compress.nn.init import shapes

PAGE = Path(__file__).parent.parent / 'docs' / 'costs.md'
SQUARE, WIDE = (256, 256), (256, 512)

GENERATORS = [
    ('ResNet, 9 blocks, 64', 'CycleGAN: the uncompressed reference', nn.resnet(64), SQUARE),
    *((f'separable ResNet {n}', role, nn.mobile_resnet(n), SQUARE) for n, role in (
        (96, "OMGD: wider teacher of 24"), (64, 'OMGD: wider teacher of 16'),
        (48, 'OMGD: wider teacher of 12 and 8'), (24, 'OMGD student 1.5x'),
        (16, 'OMGD student 1.0x'), (12, 'OMGD student 0.75x'), (8, 'OMGD student 0.5x'))),
    *((f'deepest separable ResNet {n}', 'OMGD: deeper teacher', nn.mobile_deepest_resnet(n), SQUARE)
      for n in (24, 16, 12)),
    *((f'U-Net {n}', role, nn.unet(n), SQUARE) for n, role in (
        (64, 'pix2pix; OMGD: wider teacher of 16'), (48, 'OMGD: wider teacher of 12 and 8'),
        (16, 'OMGD student 1.0x'), (12, 'OMGD student 0.75x'), (8, 'OMGD student 0.5x'))),
    *((f'deepest U-Net {n}', 'OMGD: deeper teacher', nn.unet_deepest(n), SQUARE)
      for n in (16, 12)),
    ('inception 64, instance norm', 'CAT teacher: horse2zebra', nn.inception(64), SQUARE),
    ('inception 64, batch norm', 'CAT teacher: paired tasks', nn.inception(64, norm='batch'),
     SQUARE),
    ('inception 64, untracked batch norm', 'CAT teacher: zebra2horse',
     nn.inception(64, norm='batch_stat'), SQUARE),
    ('SPADE 64', 'GauGAN: the uncompressed reference', nn.spade(64), WIDE),
    ('separable SPADE 64', 'GAN Compression teacher', nn.mobile_spade(64), WIDE),
    ('inception SPADE 64', 'CAT teacher: GauGAN', nn.inception_spade(64), WIDE),
]
DISCRIMINATORS = [
    ('PatchGAN 64', 'CycleGAN', nn.PatchGAN(64), SQUARE),
    ('PatchGAN 64, affine', 'CAT: CycleGAN', nn.PatchGAN(64, norm='instance_affine'), SQUARE),
    ('PatchGAN 128', 'pix2pix, instance norm', nn.PatchGAN(128, inputs=6), SQUARE),
    ('PatchGAN 128, batch norm', 'pix2pix, batch norm', nn.PatchGAN(128, inputs=6, norm='batch'),
     SQUARE),
    ('PatchGAN 96', 'pix2pix with students below 16', nn.PatchGAN(96, inputs=6), SQUARE),
    *((f'two heads 128, {n} shared', 'OMGD', nn.PatchGAN(
        128, inputs=6, heads=('wide', 'deep'), shared=n), SQUARE) for n in (3, 4, 5)),
    ('multi-scale 64', 'SPADE', nn.MultiScale(64), WIDE),
]
RATIOS = [
    ('ResNet, 9 blocks, 64', 'separable ResNet 16', 'OMGD: 40x, 82.5x'),
    ('ResNet, 9 blocks, 64', 'separable ResNet 12', ''),
    ('ResNet, 9 blocks, 64', 'separable ResNet 8', ''),
    ('ResNet, 9 blocks, 64', 'U-Net 16', 'OMGD: up to 46x'),
    ('U-Net 64', 'U-Net 16', ''),
    ('U-Net 64', 'U-Net 8', ''),
    ('ResNet, 9 blocks, 64', 'inception 64, instance norm', ''),
    ('SPADE 64', 'inception SPADE 64', ''),
]


def cost(module, size):
  """A network's counts at (height, width) and batch 1."""
  shape = (1, *size, module.example().shape[-1])
  variables = shapes(module)
  rows = layers(module, shape)
  return {'params': count_params(variables), 'params_cat': count_params(variables, 'cat'),
          **{convention: sum(row.macs[convention] for row in rows) for convention in CONVENTIONS},
          'bytes': activation_bytes(module, shape)}


def table(rows, costs):
  yield '| network | what it is | input | parameters | MACs | by torchprofile | by CAT | MiB |'
  yield '|---|---|---|---:|---:|---:|---:|---:|'
  for name, role, _, size in rows:
    c = costs[name]
    yield (f'| {name} | {role} | {size[0]}x{size[1]} | {c["params"]:,} | {c["exact"]:,} | '
           f'{c["torchprofile"]:,} | {c["cat"]:,} | {c["bytes"] / 2 ** 20:.1f} |')


def page():
  """The text of docs/costs.md."""
  costs = {name: cost(module, size) for name, _, module, size in (*GENERATORS, *DISCRIMINATORS)}
  lines = [
      '# Costs', '',
      'Written by `python benchmarks/costs.py`; counts, so the same everywhere. For one network, '
      'layer by layer: `jaxgan-compress info --network mobile_resnet:ngf=16 --size 256`.', '',
      '- **MACs**: multiply-accumulates of convolutions and matmuls, one image. A transposed '
      'convolution is counted on its input, the work that is done (`macs(module, shape)`).',
      '- **by torchprofile**: as GAN Compression and OMGD publish them '
      "(`convention='torchprofile'`): a transposed convolution of stride 2 counts 4 times what it "
      'does, and norms with a scale one for each element of their output; in the family of SPADE '
      'also the products of modulation, the leaky ReLUs that are not in place and the means over '
      'windows. So the published 56.8G of the ResNet are 49.6G of work.',
      "- **by CAT**: CAT's own profiler (`convention='cat'`): the same, but norms that keep "
      'running statistics count nothing.',
      '- **MiB**: input and intermediate arrays alive at once in a float32 forward pass, '
      'estimated from the order of the program (`analysis.activation_bytes`).', '',
      '## Generators', '', *table(GENERATORS, costs), '',
      "CAT's profiler also leaves the scales and biases of tracked norms out of its parameter "
      "count (`count_params(variables, 'cat')`): "
      f'{costs["inception 64, batch norm"]["params_cat"]:,} for the inception teacher with batch '
      f'norm, {costs["inception SPADE 64"]["params_cat"]:,} for the inception SPADE teacher.', '',
      '## Ratios', '',
      '| from | to | parameters | MACs | by torchprofile | published |',
      '|---|---|---:|---:|---:|---|']
  for big, small, published in RATIOS:
    ratios = ' | '.join(f'{costs[big][key] / costs[small][key]:.2f}x'
                        for key in ('params', 'exact', 'torchprofile'))
    lines.append(f'| {big} | {small} | {ratios} | {published} |')
  lines += ['', '## Discriminators', '',
            'Inputs of conditional ones hold the condition too; spectral vectors are no '
            'parameters. The multi-scale one sees 36 label channels and an image at two scales.',
            '', *table(DISCRIMINATORS, costs), '']
  return '\n'.join(lines)


def main():
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--check', action='store_true')
  args = parser.parse_args()
  text = page()
  if args.check:
    return int(PAGE.read_text() != text)
  PAGE.write_text(text)
  return 0


if __name__ == '__main__':
  sys.exit(main())
