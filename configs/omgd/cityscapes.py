"""OMGD on cityscapes (pix2pix, labels to photographs). Published mIoU 48.9 (U-Net), 45.2 (ResNet).

    jaxgan-compress train --config=configs/omgd/cityscapes.py:path=DATA --workdir=runs/city

DATA holds train/ and val/ of side-by-side pairs, photograph left and colour labels right,
translated BtoA. Arguments as of edges2shoes.py. Published mIoU takes the full-size labels, which
pairs do not have: `metrics.cityscapes_scores` measures it afterwards. Teachers move every third
step.
"""

from jaxgan_compress import config
from jaxgan_compress.configs.omgd import _stages as stages

# student: (wide, deep, discriminator's ndf)
WIDTHS = {16: (64, 16, 128), 12: (48, 12, 96), 8: (48, 12, 96), 24: (96, 24, 128)}
SHARED = {('unet', 16): 5, ('unet', 12): 5, ('unet', 8): 3, ('resnet', 16): 4}


def get_config(arg=''):
  arg = config.parse_arg(arg, smoke=False, net='unet', student=16, path='cityscapes', vgg='',
                         fid='')
  wide, deep, ndf = stages.width(WIDTHS, arg)
  c = config.base()
  c.batch = 4 if arg.net == 'unet' else 1
  c.data = dict(name='paired', path=arg.path, size=256, load=286, direction='BtoA')
  stages.evaluation(c, arg, test=dict(split='val'), every=25_000)
  stages.paired(c, arg, wide=wide, deep=deep, ndf=ndf, tap=50. if arg.net == 'unet' else 0.,
                teacher_every=3, n_share=SHARED.get((arg.net, arg.student), 3),
                epoch=2975 // c.batch, constant=300, decay=450)
  return stages.smoke(c, arg)
