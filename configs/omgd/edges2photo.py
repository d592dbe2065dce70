"""Photographs from their edges, 64x64 crops of real ones: two ResNets learn online from a third.

    jaxgan-compress train --config=configs/omgd/edges2photo.py --workdir=runs/edges

One step moves a teacher, a student with 21 times fewer multiply-accumulates, and a wider student,
which costs only its own passes. The task is hard for 1000 steps: look at the students
against their teacher. Arguments: as of colorize.py.
"""

from jaxgan_compress import config
from jaxgan_compress.configs.omgd import _stages as stages


def get_config(arg=''):
  arg = config.parse_arg(arg, smoke=False, steps=1000, student=4, other=8, wide=16, rivals=False)
  c = config.base()
  net = lambda ngf: dict(name='mobile_resnet', ngf=ngf, blocks=6)
  stages.sample_pairs(
      c, arg, 'edges2photo', student=net(arg.student), extra_students={'wider': net(arg.other)},
      wide=dict(name='resnet', ngf=arg.wide, blocks=6), norm='instance',
      distill=stages.distill_loss(tap=1., taps=('stem', 'block3', 'block6'),
                                  similarity='attention'))
  return config.smoke(c) if arg.smoke else c
