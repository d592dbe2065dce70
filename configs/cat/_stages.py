"""What the runs of CAT are made of: published ones by their tables, short ones on samples."""

from jaxgan_compress import analysis, config
from jaxgan_compress.config import build
from jaxgan_compress.configs.omgd import _stages as common

TEACHER_BATCH, STUDENT_BATCH = 32, 80  # of published CycleGAN and pix2pix runs
EMA = .98  # of runs on samples: nothing is left of where a run of 300 steps began


def published(c, arg, *, budget, images, decay, norm, start, train, learn):
  """A teacher of inception blocks and the student of one published run of CycleGAN or pix2pix.

  images: of an epoch, counted in whole batches. decay: epochs, after 500. train, learn:
  (optimiser) -> method of the teacher without its network, and fields of the student's `CAT`.
  Published code sums the alignments of four devices with 20 samples each; here all 80 are compared
  at once, whatever the devices, by four times the published weight.
  """
  steps = lambda batch: images // batch * (500 + decay)
  tx = lambda batch: common.linear(2e-4, 0, epoch=images // batch, constant=500, decay=decay)
  common.fill(c, {
      'teacher': config.stage(
          title='Inception teacher', steps=steps(TEACHER_BATCH), batch=TEACHER_BATCH,
          method=dict(train(tx(TEACHER_BATCH)), generator=dict(name='inception', norm=norm))),
      'student': config.stage(
          title=f'CAT, {budget:.2g} MACs', steps=steps(STUDENT_BATCH), batch=STUDENT_BATCH,
          teacher=('teacher',), prune=pruned(arg, budget, start),
          method=dict(name='CAT', tx=tx(STUDENT_BATCH), **learn(tx(STUDENT_BATCH))))})
  if arg.smoke:
    c.data.update(size=32, load=36)
    c.stages.teacher.method.generator.update(ngf=4, reduction=4)
    c.stages.student.prune.update(budget=1e6, floor=1, legacy=False)
    for stage in c.stages.values():
      stage.method.adversary.disc.ndf = 2
  return smoke(c) if arg.smoke else c


def published_pairs(arg, folder, *, recon, align, **fields):
  """The same of pix2pix, drawn from the right half of each pair to the left."""
  arg = config.parse_arg(arg, smoke=False, path=folder, fid='', exact=False)
  c = config.base()
  c.data = dict(name='paired', path=arg.path, size=256, load=286, direction='BtoA')
  common.evaluation(c, arg, test=dict(split='val'), every=2000)
  judge = lambda tx: common.judge(128, tx, norm='batch')
  return published(
      c, arg, norm='batch', start='reinit', **fields,
      train=lambda tx: dict(name='Pix2Pix', tx=tx, recon=recon, adversary=judge(tx)),
      learn=lambda tx: dict(recon=100., align=align, adversary=judge(tx)))


def pruned(arg, budget, start):
  """As published code counts and searches; with arg.exact true MACs and the largest network."""
  return dict(budget=budget, unit='macs' if arg.exact else 'cat', floor=16, legacy=not arg.exact,
              start=start)


LESSONS = dict(name='Lessons', look=common.LOOK, feature=0., style=0., pixel=100.)
SLOW, FAST = 1e-3, 3e-3  # rates of whole networks and of students
FLOOR = 4  # a quarter of the teacher's narrowest, as published; less chokes stem and last layers


def sample_students(c, arg, task, *, size, teacher, taps, train, learn, online=None, first=None,
                    batch=8):
  """Students of every share of a teacher's multiply-accumulates.

  For a share of 8 (per cent): `taught_8`, what was left of the teacher, learns by the lessons of
  OMGD; `cat_8`, the same network from fresh weights, learns as the paper has it, beside the
  teacher's judge; `alone_8`, fresh again, without a teacher.

  With arg.rivals also `fresh_8` and `narrow_8`, as `taught_8` from fresh weights, the second
  narrowed by the same factor everywhere; `online_8`, which goes on from `shrink_8`, a whole network
  that lost its channels while its teacher was learning beside it; and of the first share `kept_8`
  and `blind_8`, as `cat_8`, the first from what was left, the second without alignment.

  teacher: its network. train: (network or {}, its rate) -> method of the teacher and of `alone`.
  learn: fields of the method CAT. online: (student, its rate, what makes rates of its teachers and
  judge) -> method of `shrink`. first: stages before the teacher. batch: of four images, batch norm
  has poor statistics, and alignment little to compare.
  """
  steps = arg.steps
  common.sample_run(c, task, size=size, batch=batch, steps=steps)
  network = build.make(teacher, build.HOMES['generator'], 'teacher')
  whole = analysis.macs(network, (1, size, size, network.example().shape[-1]))
  run = {**(first or {}), 'teacher': config.stage(
      title='Inception teacher', steps=steps, method=train(teacher, common.linear(SLOW, steps)))}
  for share in arg.shares:
    prune = dict(budget=share / 100 * whole, floor=FLOOR)

    def add(name, title, start, method, share=share, prune=prune, **more):
      run[f'{name}_{share}'] = config.stage(
          title=f'{share} %: {title}', **{'steps': steps, 'teacher': ('teacher',), **more},
          prune=dict(prune, start=start, **({'per': 'group'} if name == 'narrow' else {})),
          method=method)

    tx = common.linear(FAST, steps)
    cat = lambda tx=tx, **fields: {'name': 'CAT', 'tx': tx, 'index': 'cka_debiased', 'taps': taps,
                                   'ema': EMA, **learn, **fields}
    taught = dict(name='Offline', tx=tx, lessons=LESSONS, ema=EMA)
    add('taught', 'what was left, taught', 'inherit', taught)
    add('cat', 'CAT', 'reinit', cat())
    add('alone', 'alone', 'reinit', train({}, tx))
    if arg.rivals:
      add('fresh', 'fresh weights, taught', 'reinit', taught)
      add('narrow', 'fresh weights, narrowed evenly, taught', 'reinit', taught)
    if arg.rivals and share == arg.shares[0]:
      add('kept', 'CAT from what was left', 'inherit', cat())
      add('blind', 'CAT without alignment', 'reinit', cat(align=0.))
    if arg.rivals and online:
      half = steps // 2
      shrink = dict(name='Shrink', budget=prune['budget'], floor=FLOOR, start=half // 4,
                    end=half - half // 8)
      run[f'shrink_{share}'] = config.stage(
          title=f'{share} %: online, losing channels', steps=half,
          method=dict(online(teacher, common.adam(SLOW), common.adam), shrink=shrink))
      # The teacher comes to rest before its student does.
      early = lambda rate, rest=steps - half: common.linear(rate, rest, fall=(0., .6))
      add('online', 'online, compact', 'inherit',
          online({}, common.linear(FAST, steps - half, fall=(.4, 1.)), early), steps=steps - half,
          teacher=(f'shrink_{share}',), teacher_checkpoint='last')
  common.fill(c, run)
  return smoke(c) if arg.smoke else c


def smoke(c):
  config.smoke(c)
  for stage in c.stages.values():
    if stage.method.get('shrink'):
      stage.method.shrink.update(start=0, end=3, every=1)
  return c
