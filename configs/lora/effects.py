"""A new effect for a base student: factors of a few kB beside its kernels, on 64x64 photographs.

    jaxgan-compress train --config=configs/lora/effects.py --workdir=runs/sepia
    jaxgan-compress factors --workdir=runs/sepia --output=sepia.safetensors

A U-Net of width 16 first learns one effect, `:base=paint`, and is the base of all others; then
factors of rank 4 beside its kernels learn another, `:effect=sepia`, from a few hundred pairs. The
next effect takes the same base, and the run trains that alone:

    jaxgan-compress export --workdir=runs/sepia --generator=base --output=base
    jaxgan-compress train --config=lora/effects:effect=neon,file=base/network.safetensors \\
        --workdir=runs/neon

Nobody has published a run. The row `base` of the report says how far the base is from the new
effect, on whose images it is measured. Arguments: `:smoke` runs in a minute, `:steps=5000` trains
longer, `:pairs=100` has fewer pairs, `:rank=1`, `:rivals` adds full fine-tuning of the base and a
student that starts afresh.
"""

from jaxgan_compress import config
from jaxgan_compress.configs.omgd import _stages as stages


def get_config(arg=''):
  arg = config.parse_arg(arg, smoke=False, effect='sepia', base='paint', file='', pairs=400,
                         rank=4, width=16, steps=1000, rivals=False)
  c = config.base()
  stages.sample_run(c, arg.effect, size=64, batch=4, steps=arg.steps)
  c.data.count = arg.pairs
  for images in (c.evaluate.real, c.evaluate.test):
    images.count = 128
  network = dict(name='unet', ngf=arg.width, depth=4)
  start = arg.file or 'stage:base'

  def stage(title, rate, generator, **fields):
    return config.stage(title=title, steps=arg.steps, **fields, method=dict(
        name='Pix2Pix', generator=generator, tx=stages.linear(rate, arg.steps), ema=0.99,
        adversary=stages.adversary(24, stages.linear(2e-4, arg.steps))))

  run = {} if arg.file else {'base': stage('Base', 1e-3, network, data=dict(
      name=f'samples:{arg.base}', count=2048))}
  # Its images are compared with those of the new effect, which say nothing of its checkpoints.
  known = dict(init_from=dict(generator=start), teacher_checkpoint='last')
  # Ten times the rate of full fine-tuning, for B starts at 0.
  run['factors'] = stage(f'Factors of rank {arg.rank}', 2e-3, dict(
      name='LowRank', network=network, rank=arg.rank), **known)
  if arg.rivals:
    run['whole'] = stage('Full fine-tuning', 2e-4, network, **known)
    run['afresh'] = stage('Afresh', 1e-3, network)
  stages.fill(c, run)
  return config.smoke(c) if arg.smoke else c
