"""OMGD on horse2zebra (CycleGAN): 40x fewer MACs. Published FID 52.0, 64.3, 71.3 at 1.0x to 0.5x.

    jaxgan-compress train --config=configs/omgd/horse2zebra.py:path=DATA --workdir=runs/zebra

DATA holds trainA, trainB, testA and testB; `:path=tfds` takes the catalogue's set. `:student=` is
16, 12 or 8; `:vgg=` and `:fid=` as of edges2shoes.py. Blocks of 10, 12 or 8 epochs of the teachers
are each followed by four times as many of the student, from the best teacher so far; `:online`
moves all in every step instead. Compared with train and test images, as published. About 1.3
million steps at batch 1.
"""

from jaxgan_compress.configs.omgd import _stages as stages

# student: (teachers, epochs of a block)
WIDTHS = {16: (64, 10), 12: (48, 12), 8: (48, 8)}


def get_config(arg=''):
  return stages.published_unpaired(arg, 'horse2zebra', catalogue='horse2zebra',
                                   widths=WIDTHS, tap=500., epoch=1334)
