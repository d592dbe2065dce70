"""Colour for grey photographs, 64x64 crops: students pruned from an inception teacher, CAT.

    jaxgan-compress train --config=configs/cat/colorize.py --workdir=runs/cat

The teacher learns first; then one threshold over the scales of its norms leaves what a budget pays
for. That network learns from the teacher's images, as CAT has it with the teacher's
discriminator, and alone. Arguments: `:smoke` takes a few minutes, `:shares=8+20` are the budgets in
per cent of the teacher's multiply-accumulates, `:steps=5000` trains longer, `:rivals` adds the
other ways to a small student, pruning during online distillation among them.
"""

from jaxgan_compress import config
from jaxgan_compress.configs.cat import _stages as stages


def get_config(arg=''):
  arg = config.parse_arg(arg, smoke=False, steps=600, shares=(8, 20), rivals=False)
  return stages.sample_pairs(config.base(), arg, 'colorize')
