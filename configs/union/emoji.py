"""Emoji in colour from black pictures, or shaded from flat ones: a student by the union of methods.

    ./launch/get_emoji.sh
    pip install -e '.[features]'
    jaxgan-compress train --config=configs/union/emoji.py --workdir=runs/emoji_union

The method is that of colorize.py, the data are those of configs/omgd/emoji.py. Arguments:
`:pair=mono2flat` (default: flat2shaded), `:size=128`, `:path=FOLDER` of the pictures; `:smoke`
takes a few minutes, on a dozen icons made by code; others as of colorize.py.
"""

from jaxgan_compress import config
from jaxgan_compress.configs.omgd import _stages as common
from jaxgan_compress.configs.union import _stages as stages


def get_config(arg=''):
  arg = config.parse_arg(arg, smoke=False, size=64, pair='flat2shaded', path='', steps=2000,
                         shares=(8,), rivals=False)
  return common.emoji(stages.sample_pairs(arg, 'emoji', size=arg.size), arg)
