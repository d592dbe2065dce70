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
from jaxgan_compress.configs.omgd import _stages as common


def get_config(arg=''):
  arg = config.parse_arg(arg, smoke=False, steps=600, shares=(8, 20), rivals=False)
  c = config.base()

  def adversary(tx, **fields):
    return common.adversary(24, tx(2e-4), norm='batch', **fields)

  def train(generator, tx):
    return dict(name='Pix2Pix', tx=tx, ema=stages.EMA, adversary=adversary(whole),
                **({'generator': generator} if generator else {}))

  def online(student, tx, others):
    return dict(name='OMGD', tx=tx, teacher_tx=others(stages.SLOW), wide=teacher, ema=stages.EMA,
                teacher_params='ema', distill=stages.DISTILL,
                adversary=adversary(others, heads=('wide',)),
                **({'student': student} if student else {}))

  whole = lambda rate: common.linear(rate, arg.steps)
  teacher = dict(name='inception', ngf=16, blocks=4, norm='batch')
  return stages.sample_students(
      c, arg, 'colorize', size=64, teacher=teacher, taps=('stem', 'block2', 'block4'),
      train=train, learn=dict(adversary=adversary(whole)), online=online)
