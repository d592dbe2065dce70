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
RIVALS = 'taught', 'kd', 'cat', 'alone', 'augmented', 'gradual', 'online'


def sample_pairs(arg, task, **fields):
  """Two stages for each share of the teacher's MACs. `whole_8`: an inception network
  as large as its teacher loses channels while both learn, arg.steps / 2 steps. `union_8`: the
  compact network continues with that teacher, arg.steps steps.

  arg.rivals adds, at the same budget and with as many steps of the compact network: `taught` (terms
  of OMGD, a finished teacher), `kd` (its pixels alone, fresh weights), `cat`, `alone`, `augmented`
  (alone, with DiffAugment), and `online` (pruned online by the terms of OMGD, from `gradual`).
  fields: of configs/cat's `sample_pairs`.
  """
  every = ConfigDict({**arg.to_dict(), 'rivals': True, 'smoke': False})
  c = cat.sample_pairs(config.base(), every, task, rest=arg.steps, **fields)
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
      kd, augmented = (copy.deepcopy(c.stages[f'{name}_{share}']) for name in ('taught', 'alone'))
      kd.title, kd.prune.student_init = f'{share} %: fresh weights, pixels alone', 'reinit'
      kd.method.distill = dict(name='DistillLoss', pixel=DISTILL['pixel'])
      augmented.title += ', DiffAugment'
      augmented.method.adversary.augment = AUGMENT
      c.stages.update({f'kd_{share}': kd, f'augmented_{share}': augmented})
    run |= {f'{name}_{share}': c.stages[f'{name}_{share}']
            for share in arg.shares for name in RIVALS}
  c.stages, c.run = run, tuple(run)
  return cat.smoke(c) if arg.smoke else c
