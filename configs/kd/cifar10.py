"""KD on CIFAR-10 at the paper's sizes: 64x64 colour, d=64 teacher, 58:1 at d=4. Accelerator.

    tfds build cifar10 --file_format=array_record        # once; needs the extra 'tf'
    jaxgan-compress train --config=configs/kd/cifar10.py --workdir=runs/cifar10

Aguinaldo et al. 2019 report, at d=4 (58:1), FID 11.00 for the student and 14.28 from scratch, on
a scale that pool3 FID does not share. Here FD is taken in the features of a classifier trained on
the same data. This recipe was never run to its end by us. Arguments: as for mnist.py.
"""

from jaxgan_compress import config
from jaxgan_compress.configs.kd import _stages as stages


def get_config(arg=''):
  arg = config.parse_arg(arg, smoke=False, d=(2, 4, 8, 16, 32, 48), teacher_d=(64,))
  c = config.base()
  c.data = dict(name='tfds:cifar10', split='train', size=64, channels=3)
  c.evaluate.update(classifier='classifier', held_out=dict(split='test'), count=50_000, every=2000)
  c.checkpoint.every = 1000
  c.batch = 128
  stages.paper(c, arg, channels=3, epoch=50_000 // 128, epochs=100, classifier_epochs=30,
               network=dict(name='SmallClassifier', widths=(32, 64, 128, 256), features=128))
  return config.smoke(c) if arg.smoke else c
