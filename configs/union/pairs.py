"""Pairs of images of your own: a student by the union of OMGD, CAT and what came later.

    jaxgan-compress train --config=union/pairs:path=FOLDER --workdir=runs/mine

FOLDER has `train/`, `validation/` and `test/`, each with A and B side by side in every image, or
with folders `A` and `B` of equal names; `val/` stands in where one of the last two is missing. The
student makes B from A, at 8 % of its teacher's multiply-accumulates. The method is that of
colorize.py, measured at 64 pixels and some hundred steps; a run that is to be used takes more.

Arguments: `:size=128`, of the crops; `:direction=BtoA`; `:steps=20000`; `:shares=8+20`, budgets in
per cent; `:ngf=32`, width of the teacher, and `:disc=64`, of its discriminator; `:rivals` adds CAT,
OMGD and others at the same budgets; `:smoke` takes a few minutes.
"""

from jaxgan_compress import config
from jaxgan_compress.configs.omgd import _stages as common
from jaxgan_compress.configs.union import _stages as stages


def get_config(arg=''):
  arg = config.parse_arg(arg, smoke=False, path='', size=64, direction='AtoB', steps=2000, ngf=16,
                         disc=24, shares=(8,), rivals=False)
  c = stages.sample_pairs(arg, 'colorize', size=arg.size, disc=arg.disc, ngf=arg.ngf)
  c.data = common.paired_folder(arg)
  return c
