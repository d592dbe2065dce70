"""What the runs of CAT are made of: published ones by their tables, short ones on samples."""

from jaxgan_compress import analysis, build, config
from jaxgan_compress.configs.omgd import _stages as common

ONLINE = dict(name='Lessons', look=common.LOOK, feature=0., style=0., pixel=100.)


def sample_students(c, arg, task, *, size, teacher, taps, train, learn, online):
  """Students of every share of a teacher's multiply-accumulates, cut in several ways.

  For a share of 5 (per cent): `cat_5`, what was left of the teacher; `fresh_5`, the same network
  from fresh weights, as the paper has it; `alone_5`, that network without a teacher. With
  arg.rivals also `blind_5`, fresh and taught without alignment; `narrow_5`, taught like `fresh_5`
  and narrowed by the same factor everywhere; and `online_5`, which goes on from `shrink_5`, a whole
  network that lost its channels while its teacher was learning beside it.

  teacher: its network. train: (network or {}, its rate) -> method of the teacher and of `alone`.
  learn: (rate) -> fields of the method CAT. online: (student, rate, steps) -> method of `shrink`.
  """
  steps = arg.steps
  common.sample_run(c, task, size=size, batch=4, steps=steps)
  whole = analysis.macs(build.make(teacher, build.HOMES['generator'], 'teacher'),
                        (1, size, size, 3))
  slow, fast = 1e-3, 3e-3
  run = {'teacher': config.stage(title='Inception teacher', steps=steps,
                                 method=train(teacher, common.linear(slow, steps)))}
  for share in arg.shares:
    prune = dict(budget=share / 100 * whole, floor=2)

    def add(name, title, start, method, share=share, prune=prune, **more):
      run[f'{name}_{share}'] = config.stage(
          title=f'{share} %: {title}', **{'steps': steps, 'teacher': ('teacher',), **more},
          prune=dict(prune, start=start, **({'per': 'group'} if name == 'narrow' else {})),
          method=method)

    cat = lambda rate, **fields: dict(
        name='CAT', tx=common.linear(rate, steps), index='cka_debiased', taps=taps, ema=.99,
        **learn(), **fields)
    add('cat', 'CAT, what was left', 'inherit', cat(slow))
    add('fresh', 'CAT, fresh weights', 'reinit', cat(fast))
    add('alone', 'alone, fresh weights', 'reinit', train({}, common.linear(fast, steps)))
    if arg.rivals:
      add('blind', 'CAT, fresh weights, no alignment', 'reinit', cat(fast, align=0.))
      add('narrow', 'CAT, fresh weights, narrowed evenly', 'reinit', cat(fast))
      half = steps // 2
      shrink = dict(name='Shrink', budget=prune['budget'], floor=2, start=half // 4,
                    end=half - half // 8)
      run[f'shrink_{share}'] = config.stage(
          title=f'{share} %: online, losing channels', steps=half,
          method=dict(online(teacher, slow, half), shrink=shrink))
      rest = steps - half
      add('online', 'online, compact', 'inherit', online({}, slow, rest), steps=rest,
          teacher=(f'shrink_{share}',), teacher_checkpoint='last')
  common.fill(c, run)
  return smoke(c) if arg.smoke else c


def smoke(c):
  config.smoke(c)
  for stage in c.stages.values():
    if stage.method.get('shrink'):
      stage.method.shrink.update(start=0, end=3, every=1)
  return c
