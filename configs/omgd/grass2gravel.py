"""Gravel from grass, without pairs, 48x48 crops of photographs: a student of a CycleGAN, online.

    jaxgan-compress train --config=configs/omgd/grass2gravel.py --workdir=runs/gravel

Teachers and student move in every step. `:blocks=250` lets them take turns as published code does:
so many steps of the teachers, then four times as many of the student, from the best teacher so
far. The student has 21 times fewer multiply-accumulates than its teacher. What it came to:
docs/results.md. Other arguments: as of colorize.py.
"""

from jaxgan_compress import config
from jaxgan_compress.configs.omgd import _stages as stages


def get_config(arg=''):
  arg = config.parse_arg(arg, smoke=False, steps=600, student=4, teacher=16, blocks=0,
                         rivals=False)
  c = config.base()
  stages.sample_sets(
      c, arg, 'grass2gravel', teacher=dict(name='resnet', ngf=arg.teacher, blocks=6),
      student=dict(name='mobile_resnet', ngf=arg.student, blocks=6),
      # Ten times the published weight: features of random weights differ less than trained ones.
      distill=stages.distill_loss(feature=100., tap=1., taps=('stem', 'block3', 'block6'),
                   similarity='attention'))
  if arg.blocks:
    turns = -(-arg.steps // arg.blocks)
    c.stages.omgd.steps = arg.steps + turns * 4 * arg.blocks
    method = c.stages.omgd.method
    method.tx = stages.linear(4e-3, turns * 4 * arg.blocks)
    method.cycle.tx = method.cycle.adversary.tx = stages.linear(1e-3, arg.steps)
    method.schedule = dict(name='AlternatingSchedule', teacher_steps=arg.blocks,
                           student_steps=4 * arg.blocks, total=arg.steps)
  return config.smoke(c) if arg.smoke else c
