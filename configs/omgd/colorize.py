"""Colour for grey photographs, 64x64 cuts of real ones: a U-Net learns online from a wider U-Net.

    jaxgan-compress train --config=configs/omgd/colorize.py --workdir=runs/colorize

The student has 47 times fewer multiply-accumulates than its teacher and never sees a coloured
photograph. What it came to, and did not: docs/results.md. Arguments: `:smoke` runs in a
minute, `:steps=5000` trains longer, `:student=8` is another width, `:rivals` adds the same student
trained offline and by itself in other ways.
"""

from jaxgan_compress import config
from jaxgan_compress.configs.omgd import _stages as stages


def get_config(arg=''):
  arg = config.parse_arg(arg, smoke=False, steps=1000, student=4, wide=32, rivals=False)
  c = config.base()
  net = lambda ngf: dict(name='unet', ngf=ngf, depth=6)
  stages.sample_pairs(c, arg, 'colorize', student=net(arg.student), wide=net(arg.wide),
                      norm='batch', lessons=dict(tap=10., taps=stages.UNET_TAPS))
  return config.smoke(c) if arg.smoke else c
