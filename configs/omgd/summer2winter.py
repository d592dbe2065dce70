"""OMGD on summer2winter (CycleGAN): 40x fewer MACs. Published FID 74.4, 75.0, 75.5 at 1.0x to 0.5x.

    jaxgan-compress train --config=configs/omgd/summer2winter.py:path=DATA --workdir=runs/winter

DATA holds trainA, trainB, testA and testB; `:path=tfds` takes the catalogue's set. `:student=` is
16, 12 or 8; `:vgg=` and `:fid=` as of edges2shoes.py. Blocks of 6 epochs of the teachers are
each followed by four times as many of the student, from the best teacher so far; `:online` moves
all in every step instead. Compared with train and test images, as published. About 1.25 million
steps at batch 1.
"""

from jaxgan_compress.configs.omgd import _stages as stages

# student: (teachers, epochs of a block)
WIDTHS = {16: (64, 6), 12: (48, 6), 8: (48, 6)}


def get_config(arg=''):
  return stages.published_unpaired(arg, 'summer2winter', catalogue='summer2winter_yosemite',
                                   widths=WIDTHS, tap=100., epoch=1231)
