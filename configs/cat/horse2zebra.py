"""CAT on horse2zebra (CycleGAN): a student of 2.6 G MACs. Published FID 53.5 at 2.56 G.

    jaxgan-compress train --config=configs/cat/horse2zebra.py:path=DATA --workdir=runs/zebra

DATA holds trainA, trainB, testA and testB; `:path=tfds` takes the catalogue's set. `:reverse` is
zebra2horse, aligned by a tenth; its published norm depends on who else is in the batch, so here it
is the instance norm of the other direction (`:batch_stat` for the published one). `:fid=FILE` of
the Inception network; `:exact` counts the budget in true MACs and keeps as much as it pays for.
Compared with train and test images, as published: with test images alone FID is about 4 higher.
1000 epochs of the teachers at batch 32 and of the student at batch 80.
"""

from jaxgan_compress import config
from jaxgan_compress.configs.cat import _stages as stages
from jaxgan_compress.configs.omgd import _stages as common


def get_config(arg=''):
  arg = config.parse_arg(arg, smoke=False, path='horse2zebra', fid='', reverse=False,
                         batch_stat=False, exact=False)
  c = config.base()
  c.data = dict(**common.domains(arg, 'horse2zebra'),
                **({'direction': 'BtoA'} if arg.reverse else {}))
  common.evaluation(c, arg, test=dict(split=('train', 'test')), every=2000)
  norm = 'batch_stat' if arg.batch_stat else 'instance_affine'
  adversary = lambda tx: common.adversary(64, tx, inputs=3, loss='lsgan', norm=norm)
  return stages.published(
      c, arg, budget=2.6e9, images=1334, decay=500, norm=norm,
      # What the published run of horse2zebra really did, see `pruning.init_student`.
      student_init='reinit' if arg.batch_stat else 'reinit_keep_norm',
      train=lambda tx: dict(name='CycleGAN', tx=tx, pool=50, adversary=adversary(tx)),
      learn=lambda tx: dict(paired=False, recon_weight=5., align_weight=0.4 if arg.reverse else 4.,
                            adversary=adversary(tx)))
