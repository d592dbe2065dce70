"""Colour for grey photographs, 64x64 crops, by the union of OMGD, CAT and what came later.

    jaxgan-compress train --config=configs/union/colorize.py --workdir=runs/union

A whole inception network loses channels while its teacher learns in the same steps; what a budget
pays for goes on with that teacher, then alone with a discriminator of its own. With its teacher it
minimises the distance to the teacher's and to the true image, and that of detail; every
discriminator sees everything through DiffAugment. That is our own method, of parts of OMGD, CAT's
pruning and what came later.

Arguments: `:smoke` takes a few minutes, `:shares=8+20` are budgets in per cent of the teacher's
multiply-accumulates, `:steps=5000` trains longer (a half in each of three stages), `:rivals` adds
CAT, OMGD, KD and students alone at the same budgets.
"""

from jaxgan_compress import config
from jaxgan_compress.configs.union import _stages as stages


def get_config(arg=''):
  arg = config.parse_arg(arg, smoke=False, steps=600, shares=(8,), rivals=False)
  return stages.sample_pairs(arg, 'colorize')
