"""What the runs of the union are made of."""

import copy

from ml_collections import ConfigDict

from jaxgan_compress import config
from jaxgan_compress.configs.cat import _stages as cat
from jaxgan_compress.configs.omgd import _stages as common

# And detail as the teacher has it. What else was tried, and did not help: docs/results.md.
DISTILL = dict(common.TO_TEACHER_AND_TARGET, feature_net=common.FEATURE_NET,
               wavelet=dict(name='Wavelet', weight=30., balance='orthonormal'))
RIVALS = 'taught', 'kd', 'cat', 'alone', 'augmented', 'gradual', 'online'


def sample_pairs(arg, task, **fields):
  """Three stages for each share of the teacher's MACs. `whole_8`: an inception network as large as
  its teacher loses channels while both learn, for half of arg.steps. `compact_8`: what is left
  goes on with that teacher, for a half. `union_8`: it goes on alone, with a discriminator of its
  own, for a half.

  arg.rivals adds, at the same budget and with arg.steps steps of the compact network, too: `taught`
  (terms of OMGD, a finished teacher), `kd` (its pixels alone, fresh weights), `cat`, `alone`,
  `augmented` (alone, with DiffAugment), and `online` (pruned online by the terms of OMGD, from
  `gradual`). fields: of configs/cat's `sample_pairs`.
  """
  every = ConfigDict({**arg.to_dict(), 'rivals': True, 'smoke': False})
  half = arg.steps // 2
  c, short = (cat.sample_pairs(config.base(), every, task, rest=rest, **fields)
              for rest in (arg.steps, half))
  run = {}
  for share in arg.shares:
    for name, other in ('whole', 'gradual'), ('compact', 'online'), ('union', 'alone'):
      stage = copy.deepcopy(short.stages[f'{other}_{share}'])
      stage.title = f'{share} %: union' + {
          'whole': ', losing channels', 'compact': ', online', 'union': ''}[name]
      stage.method.adversary.augment = common.AUGMENT
      if name != 'union':
        stage.method.distill = DISTILL
      run[f'{name}_{share}'] = stage
    run[f'compact_{share}'].teacher = (f'whole_{share}',)
    last = run[f'union_{share}']
    last.update(teacher=(f'compact_{share}',), teacher_checkpoint='last', steps=half)
    last.prune.student_init = 'inherit'
    last.method.tx = common.linear(cat.SLOW, half)
    # This discriminator has less time than those that learn from the start.
    last.method.adversary.tx = common.linear(5e-4, half)
  if arg.rivals:
    run['teacher'] = c.stages.teacher
    for share in arg.shares:
      kd, augmented = (copy.deepcopy(c.stages[f'{name}_{share}']) for name in ('taught', 'alone'))
      kd.title, kd.prune.student_init = f'{share} %: fresh weights, pixels alone', 'reinit'
      kd.method.distill = dict(name='DistillLoss', pixel=DISTILL['pixel'])
      augmented.title += ', DiffAugment'
      augmented.method.adversary.augment = common.AUGMENT
      c.stages.update({f'kd_{share}': kd, f'augmented_{share}': augmented})
    run |= {f'{name}_{share}': c.stages[f'{name}_{share}']
            for share in arg.shares for name in RIVALS}
  c.stages, c.run = run, tuple(run)
  return cat.smoke(c) if arg.smoke else c
