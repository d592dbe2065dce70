"""Images of label maps, 64x64 synthetic scenes: students pruned from an inception SPADE, CAT.

    jaxgan-compress train --config=configs/cat/shapes.py --workdir=runs/shapes

A segmenter learns first, on real images; mIoU says how much of the label map it reads back from a
generated one. Then the teacher, by the losses of GauGAN with a VGG19 of random weights, and the
students. Arguments: as of colorize.py, but no pruning online among the `:rivals`.
"""

from jaxgan_compress import config
from jaxgan_compress.configs.cat import _stages as stages
from jaxgan_compress.configs.omgd._stages import linear

PLANES = 7  # six classes and the edges between things
FEATURE_NET = dict(name='VGG', depth=19, layers=('relu1_1', 'relu2_1'))


def get_config(arg=''):
  arg = config.parse_arg(arg, smoke=False, steps=500, shares=(8, 20), rivals=False)
  c = config.base()
  disc_tx = dict(linear(1e-3, arg.steps), b1=0., b2=0.9)
  adversary = dict(name='Adversary', tx=disc_tx, loss='hinge', disc=dict(
      name='MultiScale', ndf=16, layers=3, inputs=PLANES + 3))
  both = dict(feature_net=FEATURE_NET, adversary=adversary)

  def train(generator, tx):
    return dict(name='GauGAN', tx=tx, ema=stages.EMA, **both,
                **({'generator': generator} if generator else {}))

  segmenter = config.stage(title='Segmenter', steps=arg.steps, batch=16, method=dict(
      name='Classifier', label='label_map', tx=dict(name='adam', learning_rate=4e-3),
      classifier=dict(name='SmallSegmenter', classes=PLANES - 1)))
  c = stages.sample_students(
      c, arg, 'shapes', size=64, taps=('head', 'middle1', 'up1'), train=train,
      teacher=dict(name='inception_spade', ngf=4, upsampling='normal', labels=PLANES, reduction=4,
                   hidden=24),
      learn=dict(name='CATGauGAN', **both), first={'segmenter': segmenter})
  c.evaluate.update(segmenter=dict(stage='segmenter'), select='miou')
  return c
