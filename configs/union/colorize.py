"""Colour for grey photographs, 64x64 crops: a student pruned online by the union of all methods.

    jaxgan-compress train --config=configs/union/colorize.py --workdir=runs/union

A whole inception network loses channels while its teacher learns in the same steps, and what a
budget pays for goes on: it minimises the distance to its teacher's and to the true image, and that
of detail; the teacher's discriminator sees everything through DiffAugment. That is our own method.
Arguments: `:smoke` takes a few minutes, `:shares=8+20` are budgets in per cent of the
teacher's multiply-accumulates, `:steps=5000` trains longer, `:rivals` adds CAT, OMGD and others at
the same budgets.
"""

from jaxgan_compress import config
from jaxgan_compress.configs.union import _stages as stages


def get_config(arg=''):
  arg = config.parse_arg(arg, smoke=False, steps=600, shares=(8,), rivals=False)
  return stages.sample_pairs(arg, 'colorize')
