"""KD on MNIST at the paper's sizes: 64x64, d=256 teacher, up to 1669:1. For an accelerator.

    tfds build mnist --file_format=array_record          # once; needs the extra 'tf'
    jaxgan-compress train --config=configs/kd/mnist.py --workdir=runs/mnist

Aguinaldo et al. 2019 report, at d=2 (1669:1), IS 5.80 for the student and 1.86 from scratch; the
protocol of their score is not known, so compare orderings and not values. This recipe was never
run to its end by us. Arguments: `:smoke`, `:d=2+8`, `:teacher_d=64+128+256` searches the teacher.
"""

from jaxgan_compress import config
from jaxgan_compress.configs.kd import _stages as stages


def get_config(arg=''):
  arg = config.parse_arg(arg, smoke=False, d=(2, 4, 8, 16, 32, 64, 128), teacher_d=(256,))
  c = config.base()
  c.data = dict(name='tfds:mnist', split='train', size=64, channels=1)
  c.evaluate.update(classifier='classifier', held_out=dict(split='test'), count=50_000, every=2000)
  c.checkpoint.every = 1000
  c.batch = 128
  stages.paper(c, arg, channels=1, epoch=60_000 // 128, epochs=20, classifier_epochs=8,
               network=dict(name='LeNet5'))
  return config.smoke(c) if arg.smoke else c
