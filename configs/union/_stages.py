"""What the runs of the union are made of."""

import copy

from ml_collections import ConfigDict

from jaxgan_compress import config
from jaxgan_compress.configs.cat import _stages as cat

# Half of the distance is to the teacher's image, half to the true one; and detail as the teacher
# has it. What else was tried, and did not help: docs/results.md.
DISTILL = dict(cat.DISTILL, pixel=dict(name='Pixel', weight=50.),
               target=dict(name='Target', weight=50.),
               wavelet=dict(name='Wavelet', weight=30., balance='orthonormal'))
AUGMENT = dict(name='DiffAugment', policies=('translation', 'cutout'))
RIVALS = 'taught', 'kd', 'cat', 'alone', 'gradual', 'online'


def sample_pairs(arg, task, size=64):
  """A student of each share of an inception teacher's multiply-accumulates: `whole_8`, the whole
  network, loses channels while its teacher learns; what is left goes on as `union_8`.

  With arg.rivals also those of configs/cat of the same budget: by the terms of OMGD and, as KD, by
  pixels alone from the finished teacher, CAT, alone, and pruned online by the terms of OMGD. Each
  trains the compact network for as many steps.
  """
  every = ConfigDict({**arg.to_dict(), 'rivals': True, 'smoke': False})
  c = cat.sample_pairs(config.base(), every, task, size=size, rest=arg.steps)
  run = {}
  for share in arg.shares:
    for name, other in ('whole', 'gradual'), ('union', 'online'):
      stage = run[f'{name}_{share}'] = copy.deepcopy(c.stages[f'{other}_{share}'])
      stage.title = f'{share} %: union' + (', losing channels' if name == 'whole' else '')
      stage.method.distill = DISTILL
      stage.method.adversary.augment = AUGMENT
    run[f'union_{share}'].teacher = (f'whole_{share}',)
  if arg.rivals:
    run['teacher'] = c.stages.teacher
    for share in arg.shares:
      kd = c.stages[f'kd_{share}'] = copy.deepcopy(c.stages[f'taught_{share}'])
      kd.title, kd.prune.student_init = f'{share} %: KD, pixels', 'reinit'
      kd.method.distill = dict(name='DistillLoss', pixel=DISTILL['pixel'])
    run |= {f'{name}_{share}': c.stages[f'{name}_{share}']
            for share in arg.shares for name in RIVALS}
  c.stages, c.run = run, tuple(run)
  return cat.smoke(c) if arg.smoke else c
