"""Emoji in colour from black pictures, or shaded from flat ones, 64x64: students pruned, CAT.

    ./launch/get_emoji.sh
    pip install -e '.[features]'
    jaxgan-compress train --config=configs/cat/emoji.py --workdir=runs/emoji_cat

Teacher and students are those of colorize.py, the data those of configs/omgd/emoji.py. Nobody has
published a run. Arguments: `:pair=flat2shaded` (default: mono2flat), `:size=128`, `:path=FOLDER`
of the pictures; `:smoke` takes a few minutes, on a dozen icons made by code; others as of
colorize.py.
"""

from jaxgan_compress import config
from jaxgan_compress.configs.cat import _stages as stages
from jaxgan_compress.configs.omgd import _stages as common


def get_config(arg=''):
  arg = config.parse_arg(arg, smoke=False, size=64, pair='mono2flat', path='', steps=2000,
                         shares=(8, 20), rivals=False)
  return common.emoji(stages.sample_pairs(config.base(), arg, 'emoji', size=arg.size), arg)
