"""A new effect for a base student: factors beside its kernels, on 64x64 crops of photographs.

    jaxgan-compress train --config=configs/lora/effects.py --workdir=runs/sepia
    jaxgan-compress factors --workdir=runs/sepia --output=sepia.safetensors

A U-Net of width 16 first learns one effect, `:base=paint`, and is the base of all others. Factors
of rank 4 beside its kernels, a twelfth of its numbers, then learn another, `:effect=sepia`. The
next effect takes the same base, and its run trains nothing else:

    jaxgan-compress export --workdir=runs/sepia --generator=base --checkpoint=last --output=base
    jaxgan-compress train --config=lora/effects:effect=neon,file=base/network.safetensors \\
        --workdir=runs/neon

Nobody has published a run. The report also measures the base on images of the new effect: this is
where factors start. Arguments: `:smoke` runs in a minute or two, `:steps=5000` trains longer,
`:rank=1` has smaller factors, `:rivals` adds full fine-tuning of the base and a student that starts
afresh.
"""

from jaxgan_compress import config
from jaxgan_compress.configs.omgd import _stages as stages


def get_config(arg=''):
  arg = config.parse_arg(arg, smoke=False, effect='sepia', base='paint', file='', rank=4, width=16,
                         steps=1000, rivals=False)
  c = config.base()
  stages.sample_run(c, arg.effect, size=64, batch=4, steps=arg.steps)
  network = dict(name='unet', ngf=arg.width, depth=4)

  def stage(title, rate, generator, **fields):
    return config.stage(title=title, steps=arg.steps, **fields, method=dict(
        name='Pix2Pix', generator=generator, tx=stages.linear(rate, arg.steps), ema=0.99,
        adversary=stages.adversary(24, stages.linear(2e-4, arg.steps), norm='batch')))

  run = {} if arg.file else {'base': stage('Base', 1e-3, network, data=dict(
      name=f'samples:{arg.base}'))}
  # Which checkpoint of the base is best, images of another effect cannot tell.
  known = dict(init_from=dict(generator=arg.file or 'stage:base'), teacher_checkpoint='last')
  # Ten times the base's rate, for the numbers of A, which scale what B learns, are small. On
  # validation images of seed 7: FD 3.2, 1.8, 1.4 and 1.5 at 0.001, 0.003, 0.01 and 0.03 after 500
  # steps (docs/results.md, also of test images, where PSNR alone says so).
  run['factors'] = stage(f'Factors of rank {arg.rank}', 1e-2, dict(
      name='LowRank', network=network, rank=arg.rank), **known)
  if arg.rivals:
    run['whole'] = stage('Full fine-tuning', 1e-4, network, **known)
    run['afresh'] = stage('Afresh', 1e-3, network)
  stages.fill(c, run)
  return config.smoke(c) if arg.smoke else c
