"""Colour for grey photographs, 64x64 cuts: students cut from an inception teacher to a budget, CAT.

    jaxgan-compress train --config=configs/cat/colorize.py --workdir=runs/cat

The teacher learns first; then one threshold over the scales of its norms leaves what the budget
pays for, and the student starts from what is left, beside the teacher's discriminator. `fresh` is
the same student from fresh weights, as the paper has it; `alone` learns without the teacher.
Arguments: `:smoke` runs in a minute, `:share=0.1` is the budget as a share of the teacher's
multiply-accumulates, `:steps=5000` trains longer.
"""

from jaxgan_compress import config
from jaxgan_compress.configs.omgd import _stages as stages

TEACHER_MACS = 88_307_712  # of inception 16 with four blocks, at 64x64


def get_config(arg=''):
  arg = config.parse_arg(arg, smoke=False, steps=1000, share=0.05)
  c = config.base()
  steps = arg.steps
  stages.sample_run(c, 'colorize', size=64, batch=4, steps=steps)
  judges, slow, fast = (stages.linear(rate, steps) for rate in (2e-4, 1e-3, 3e-3))
  adversary = stages.judge(24, judges, norm='batch')
  prune = dict(budget=arg.share * TEACHER_MACS, floor=2)
  cat = lambda title, start: config.stage(
      title=title, steps=steps, teacher=('teacher',), prune=dict(prune, start=start),
      method=dict(name='CAT', tx=slow if start == 'inherit' else fast, index='cka_debiased',
                  taps=('stem', 'block2', 'block4'), adversary=adversary))
  stages.fill(c, {
      'teacher': config.stage(title='Inception teacher', steps=steps, method=dict(
          name='Pix2Pix', tx=slow, adversary=adversary,
          generator=dict(name='inception', ngf=16, blocks=4, norm='batch'))),
      'student': cat('CAT, what was left', 'inherit'),
      'fresh': cat('CAT, fresh weights', 'reinit'),
      'alone': config.stage(
          title='Alone, fresh weights', steps=steps, teacher=('teacher',),
          prune=dict(prune, start='reinit'),
          method=dict(name='Pix2Pix', tx=fast, adversary=adversary))})
  return config.smoke(c) if arg.smoke else c
