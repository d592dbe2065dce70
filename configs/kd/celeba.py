"""KD on CelebA at the paper's sizes: centre crop 108, 64x64, d=128 teacher, 87:1 at d=8.

    tfds build celeb_a --file_format=array_record        # once; needs the extra 'tf'
    jaxgan-compress train --config=configs/kd/celeba.py --workdir=runs/celeb_a

Aguinaldo et al. 2019 report, at d=8 (87:1), FID 8.78 for the student and 11.06 from scratch, on a
scale of their own. Here FD is taken in the features of a classifier of the attribute 'Male', and
IS means little with two classes. This recipe was never run to its end by us. The crop is our
choice: the paper does not say. Learning rates fall tenfold at epochs 11 and 16 of 20, as in the
DCGAN code that the paper seems to build on. Arguments: as for mnist.py.
"""

from jaxgan_compress import config
from jaxgan_compress.configs.kd import _stages as stages


def get_config(arg=''):
  arg = config.parse_arg(arg, smoke=False, d=(2, 4, 8, 16, 32, 48), teacher_d=(128,))
  c = config.base()
  c.data = dict(name='tfds:celeb_a', split='train', size=64, channels=3, crop=108,
                label='attributes/Male')
  c.evaluate.update(classifier='classifier', held_out=dict(split='test'), count=50_000, every=2000,
                    real=dict(split='test'))
  c.checkpoint.every = 1000
  c.batch = 128
  epoch = 162_770 // 128
  stages.paper(c, arg, channels=3, epoch=epoch, epochs=20, classifier_epochs=3,
               network=dict(name='SmallClassifier', classes=2, widths=(32, 64, 128, 256),
                            features=128), decay=(11 * epoch, 16 * epoch))
  return config.smoke(c) if arg.smoke else c
