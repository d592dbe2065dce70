"""CAT on Cityscapes (GauGAN): 30 and 5.6 G MACs. Published mIoU 62.4 at 29.9 G and 54.7 at 5.52 G.

    jaxgan-compress train --config=configs/cat/gaugan.py:path=DATA --workdir=runs/gaugan

DATA holds gtFine/ and leftImg8bit/, each with train/ and val/. `:vgg=FILE` of ImageNet's VGG19,
`:drn=FILE` of DRN-D-105, which then chooses by mIoU, and `:fid=FILE`: files of `jaxgan-compress
convert`, see docs/howto.md. `:exact` counts budgets in true MACs. Both students are pruned from one
teacher; 200 epochs each at batch 16.
"""

from jaxgan_compress import config
from jaxgan_compress.configs.cat import _stages as stages
from jaxgan_compress.configs.omgd import _stages as common

EPOCH = 2975 // 16


def get_config(arg=''):
  arg = config.parse_arg(arg, smoke=False, path='cityscapes', vgg='', drn='', fid='', exact=False)
  c = config.base()
  c.batch = 16
  c.data = dict(name='labels', path=arg.path, size=512)
  common.evaluation(c, arg, test=dict(split='val'), every=2000)
  if arg.drn:
    c.evaluate.update(segmenter=dict(name='drn', path=arg.drn), select='miou')

  def tx(rate):
    return dict(common.linear(rate, 0, epoch=EPOCH, constant=100, decay=100), b1=0., b2=0.9)

  both = dict(tx=tx(1e-4), adversary=dict(name='Adversary', tx=tx(4e-4), loss='hinge',
                                          disc=dict(name='MultiScale')))
  if arg.smoke:
    c.data.size = 128
    both['adversary']['disc'].update(ndf=2, layers=2)
    both['feature_net'] = dict(name='VGG', depth=19, layers=('relu1_1', 'relu2_1'))
  stage = lambda **fields: config.stage(steps=200 * EPOCH, init_from=common.vgg_file(arg),
                                        **fields)
  run = {'teacher': stage(title='Inception SPADE', method=dict(
      name='GauGAN', generator=dict(name='inception_spade', slope=0.01, **(
          dict(ngf=2, reduction=4) if arg.smoke else {})), **both))}
  for name, budget in (('student_30', 3e10), ('student_5', 5.6e9)):
    prune = stages.pruned(arg, budget, 'reinit')
    if arg.smoke:
      prune.update(budget=budget / 1000, min_channels=1, cat_search=False)
    run[name] = stage(title=f'CAT, {budget:.2g} MACs', teacher=('teacher',), prune=prune,
                      method=dict(name='CATGauGAN', align_weight=0.5, **both))
  common.fill(c, run)
  return config.smoke(c) if arg.smoke else c
