"""CAT on cityscapes (pix2pix, labels to photographs): 5.6 G MACs. Published mIoU 42.7 at 5.57 G.

    jaxgan-compress train --config=configs/cat/cityscapes.py:path=DATA --workdir=runs/city

DATA holds train/ and val/ of side-by-side pairs, photograph left and colour labels right,
translated BtoA. Published mIoU takes the full-size labels, which pairs do not have:
`metrics.cityscapes_scores` measures it afterwards. Arguments: `:fid=FILE` and `:exact`, as of
horse2zebra.py. 1250 epochs of the teacher at batch 32 and of the student at batch 80.
"""

from jaxgan_compress.configs.cat import _stages as stages


def get_config(arg=''):
  return stages.published_pairs(arg, 'cityscapes', budget=5.6e9, images=2975, decay=750,
                                recon_weight=100., align_weight=2.)
