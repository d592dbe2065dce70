"""OMGD on edges2shoes-r (pix2pix): 40x fewer MACs. Published FID 25.0 (U-Net), 25.9 (ResNet).

    jaxgan-compress train --config=configs/omgd/edges2shoes.py:path=DATA --workdir=runs/shoes

DATA holds train/ and val/ of side-by-side pairs. `:net=resnet` takes separable ResNets, and
`:student=` one of the published widths: 16 (1.0x), 12, 8, with ResNets also 24. Published students
were compared by ImageNet's VGG16: convert torchvision's file and give it as `:vgg=FILE`; and by
FID: `:fid=FILE` of the Inception network. Without the two a seeded random VGG16 stands in, which
compares with nothing published. About 2.4 million steps at batch 4.
"""

from jaxgan_compress import config
from jaxgan_compress.configs.omgd import _stages as stages

# student: (wide, deep, discriminator's ndf, weight of the taps with U-Nets, with ResNets)
WIDTHS = {16: (64, 16, 128, 10., 100.), 12: (48, 12, 96, 10., 1000.), 8: (48, 12, 96, 10., 1000.),
          24: (96, 24, 128, None, 100.)}
EPOCH = 11_994  # steps: 47,977 pairs by 4, the last one left out


def get_config(arg=''):
  arg = config.parse_arg(arg, smoke=False, net='unet', student=16, path='edges2shoes-r', vgg='',
                         fid='')
  wide, deep, ndf, *taps = stages.width(WIDTHS, arg)
  c = config.base()
  c.batch = 4
  c.data = dict(name='paired', path=arg.path, size=256, load=286)
  stages.evaluation(c, arg, test=dict(split='val'), every=20_000)
  stages.paired(c, arg, wide=wide, deep=deep, ndf=ndf, tap=taps[arg.net == 'resnet'],
                teacher_every=1,
                n_share=5 if arg.net == 'unet' else 3, epoch=EPOCH, constant=100, decay=100)
  return stages.smoke(c, arg)
