"""Emoji in colour from black pictures, or shaded from flat ones, 64x64: a U-Net learns online.

    ./launch/get_emoji.sh
    pip install -e '.[features]'
    jaxgan-compress train --config=configs/omgd/emoji.py --workdir=runs/emoji

The first command fetches and renders the pictures once, see `data.emoji` for their licence; the
second brings the trained network that measures. The
student has 44 times fewer multiply-accumulates than its teacher. Nobody has published a run.
Arguments: `:pair=flat2shaded` (default: mono2flat), `:size=128`, `:path=FOLDER` of the pictures
where it is not the default one; `:smoke` runs in a minute, on a dozen icons made by code; others
as of colorize.py.
"""

from jaxgan_compress import config
from jaxgan_compress.configs.omgd import _stages as stages


def get_config(arg=''):
  arg = config.parse_arg(arg, smoke=False, size=64, pair='mono2flat', path='', steps=3000,
                         student=4, wide=32, rivals=False)
  c = config.base()
  # Down to 4x4, as in colorize.py.
  net = lambda ngf: dict(name='unet', ngf=ngf, depth=arg.size.bit_length() - 3)
  stages.sample_pairs(c, arg, 'emoji', size=arg.size, student=net(arg.student), wide=net(arg.wide),
                      norm='batch',
                      distill=stages.distill_loss(feature=0., style=0., pixel=100.))
  stages.emoji(c, arg)
  return config.smoke(c) if arg.smoke else c
