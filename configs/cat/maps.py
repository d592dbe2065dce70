"""CAT on maps (pix2pix, map to aerial photograph): 4.6 G MACs. Published FID 45.6 at 4.59 G.

    jaxgan-compress train --config=configs/cat/maps.py:path=DATA --workdir=runs/maps

DATA holds train/ and val/ of side-by-side pairs, photograph left and map right, translated BtoA.
Arguments: `:fid=FILE` and `:exact`, as of horse2zebra.py. 1500 epochs of the teacher at batch 32
and of the student at batch 80; the weight of the target is 10 for the teacher and 100 for the
student, as published.
"""

from jaxgan_compress.configs.cat import _stages as stages


def get_config(arg=''):
  return stages.published_pairs(arg, 'maps', budget=4.6e9, images=1096, decay=1000,
                                recon_weight=10., align_weight=5.2)
