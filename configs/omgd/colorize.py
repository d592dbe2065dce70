"""Colour for grey photographs, 64x64 crops of real ones: a U-Net learns online from a wider U-Net.

    jaxgan-compress train --config=configs/omgd/colorize.py --workdir=runs/colorize

The student has 44 times fewer multiply-accumulates than its teacher and never sees a coloured
photograph: docs/results.md has what it came to. Arguments: `:smoke` runs in a minute,
`:steps=5000` trains longer, `:student=2` is another width, `:rivals` adds the same student trained
offline and by itself in other ways.
"""

from jaxgan_compress import config
from jaxgan_compress.configs.omgd import _stages as stages


def get_config(arg=''):
  arg = config.parse_arg(arg, smoke=False, steps=1000, student=4, wide=32, rivals=False)
  c = config.base()
  # Down to 4x4 and no further: of four images, batch norm has no statistics at one pixel each.
  net = lambda ngf: dict(name='unet', ngf=ngf, depth=4)
  # Features of random weights do not say which colour is meant; pixels do, at half the time.
  stages.sample_pairs(c, arg, 'colorize', student=net(arg.student), wide=net(arg.wide),
                      norm='batch',
                      distill=stages.distill_loss(feature=0., style=0., pixel=100.))
  return config.smoke(c) if arg.smoke else c
