"""Pairs of images of your own, as icons or line art: a U-Net learns online by the recipe that won.

    jaxgan-compress train --config=omgd/pairs:path=FOLDER --workdir=runs/mine

FOLDER has `train/`, `validation/` and `test/`, each with A and B side by side in every image, or
with folders `A` and `B` of equal names; `val/` stands in where one of the last two is missing. The
student makes B from A, with 44 times fewer multiply-accumulates than its teacher. Its loss is SSIM
to the teacher and, with equal weights, L1 to the teacher's image and to the true one;
discriminators see through DiffAugment; on shaded emoji of 64 pixels that was better than the
published terms and than the student alone (docs/results.md). A run that is to be used takes more
steps.

Arguments: `:size=128`, of the crops, a power of two; `:direction=BtoA`; `:steps=20000`;
`:student=8` and `:wide=64`, widths of student and teacher; `:rivals` adds the student alone at
another rate, the teacher by itself, and the student after it; `:smoke` takes a few minutes.
"""

from jaxgan_compress import config
from jaxgan_compress.configs.omgd import _stages as stages


def get_config(arg=''):
  arg = config.parse_arg(arg, smoke=False, path='', size=64, direction='AtoB', steps=3000,
                         student=4, wide=32, rivals=False)
  if arg.size < 16 or arg.size & (arg.size - 1):
    raise ValueError(f'size={arg.size}; a power of two from 16 on, which a U-Net halves to 4')
  c = config.base()
  net = lambda ngf: dict(name='unet', ngf=ngf, depth=arg.size.bit_length() - 3)
  stages.sample_pairs(c, arg, 'colorize', size=arg.size, student=net(arg.student),
                      wide=net(arg.wide), norm='batch', distill=stages.TO_TEACHER_AND_TARGET)
  for stage in c.stages.values():
    if 'adversary' in stage.method:
      stage.method.adversary.augment = stages.AUGMENT
  c.data = stages.paired_folder(arg)
  return config.smoke(c) if arg.smoke else c
