"""Gravel from grass, without pairs, 48x48 crops: students pruned from a CycleGAN, CAT.

    jaxgan-compress train --config=configs/cat/grass2gravel.py --workdir=runs/cat_gravel

Arguments: as of colorize.py.
"""

from jaxgan_compress import config
from jaxgan_compress.configs.cat import _stages as stages
from jaxgan_compress.configs.omgd import _stages as common


def get_config(arg=''):
  arg = config.parse_arg(arg, smoke=False, steps=400, shares=(8, 20), rivals=False)
  c = config.base()

  def adversary(tx):
    return common.adversary(24, tx(1e-3), inputs=3, loss='lsgan', layers=2)

  def train(generator, tx, disc_tx=None):
    return dict(name='CycleGAN', tx=tx, ema=stages.EMA, adversary=adversary(disc_tx or whole),
                **({'generator': generator} if generator else {}))

  def online(student, tx, others):
    return dict(name='OMGDCycle', tx=tx, teacher_params='ema', distill=stages.DISTILL,
                cycle=train(teacher, others(stages.SLOW), others),
                **({'student': student} if student else {}))

  whole = lambda rate: common.linear(rate, arg.steps)
  teacher = dict(name='inception', ngf=16, blocks=3, norm='instance_affine')
  return stages.sample_students(
      c, arg, 'grass2gravel', size=48, teacher=teacher, taps=('stem', 'block1', 'block3'),
      train=train, learn=dict(adversary=adversary(whole), paired=False, recon_weight=5.),
      online=online, batch=4)
