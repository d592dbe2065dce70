"""What the runs of CAT are made of: published ones by their tables, short ones on samples."""

from jaxgan_compress import analysis, config
from jaxgan_compress.config import build
from jaxgan_compress.configs.omgd import _stages as common

TEACHER_BATCH, STUDENT_BATCH = 32, 80  # of published CycleGAN and pix2pix runs
EMA = .98  # of runs on samples: nothing is left of where a run of 300 steps began


def published(c, arg, *, budget, images, decay, norm, student_init, train, learn):
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
          teacher=('teacher',), prune=pruned(arg, budget, student_init),
          method=dict(name='CAT', tx=tx(STUDENT_BATCH), **learn(tx(STUDENT_BATCH))))})
  if arg.smoke:
    c.data.update(size=32, load=36)
    c.stages.teacher.method.generator.update(ngf=4, reduction=4)
    c.stages.student.prune.update(budget=1e6, min_channels=1, cat_search=False)
    for stage in c.stages.values():
      stage.method.adversary.disc.ndf = 2
  return smoke(c) if arg.smoke else c


def published_pairs(arg, folder, *, recon_weight, align_weight, **fields):
  """The same of pix2pix, translated from the right half of each pair to the left."""
  arg = config.parse_arg(arg, smoke=False, path=folder, fid='', exact=False)
  c = config.base()
  c.data = dict(name='paired', path=arg.path, size=256, load=286, direction='BtoA')
  common.evaluation(c, arg, test=dict(split='val'), every=2000)
  adversary = lambda tx: common.adversary(128, tx, norm='batch')
  return published(
      c, arg, norm='batch', student_init='reinit', **fields,
      train=lambda tx: dict(name='Pix2Pix', tx=tx, recon_weight=recon_weight,
                            adversary=adversary(tx)),
      learn=lambda tx: dict(recon_weight=100., align_weight=align_weight, adversary=adversary(tx)))


def pruned(arg, budget, student_init):
  """As published code counts and searches; with arg.exact true MACs and the largest network."""
  return dict(budget=budget, unit='macs' if arg.exact else 'cat', min_channels=16,
              cat_search=not arg.exact, student_init=student_init)


DISTILL = common.distill_loss(feature=0., style=0., pixel=100., feature_net=common.FEATURE_NET)
SLOW, FAST = 1e-3, 3e-3  # rates of whole networks and of students
MIN_CHANNELS = 4  # of the teacher's narrowest, as published; less chokes stem and last layers


def sample_students(c, arg, task, *, size, teacher, taps, train, learn, online=None, rest=None,
                    first=None, batch=8):
  """Students of every share of a teacher's multiply-accumulates.

  For a share of 8 (per cent): `taught_8`, what was left of the teacher, learns by the terms of
  OMGD; `cat_8`, the same network from fresh weights, learns as the paper has it, with the
  teacher's discriminator; `alone_8`, fresh again, without a teacher.

  With arg.rivals also `fresh_8` and `narrow_8`, as `taught_8` from fresh weights, the second
  narrowed by the same factor everywhere; `online_8`, which continues from `gradual_8`, a whole
  network that lost its channels while its teacher was learning, too; and of the first share
  `kept_8` and `blind_8`, as `cat_8`, the first from what was left, the second without alignment.

  teacher: its network. train: (network or {}, its rate) -> method of the teacher and of `alone`.
  learn: fields of the method CAT. online: (student, its rate, what makes rates of its teachers and
  discriminator) -> method of `gradual_pruning`. rest: steps of `online`, half of arg.steps if None.
  first: stages before the teacher. batch: of four images, batch norm has poor statistics, and
  alignment little to compare.
  """
  steps = arg.steps
  common.sample_run(c, task, size=size, batch=batch, steps=steps)
  network = build.generator(teacher, 'teacher')
  taps = taps or network.tap_names  # of a network of the user's own
  whole = analysis.macs(network, (1, size, size, network.example().shape[-1]))
  run = {**(first or {}), 'teacher': config.stage(
      title='Inception teacher' if teacher['name'] == 'inception' else 'Teacher', steps=steps,
      method=train(teacher, common.linear(SLOW, steps)))}
  for share in arg.shares:
    prune = dict(budget=share / 100 * whole, min_channels=MIN_CHANNELS)

    def add(name, title, student_init, method, share=share, prune=prune, **more):
      run[f'{name}_{share}'] = config.stage(
          title=f'{share} %: {title}', **{'steps': steps, 'teacher': ('teacher',), **more},
          prune=dict(prune, student_init=student_init,
                     **({'scope': 'group'} if name == 'narrow' else {})),
          method=method)

    tx = common.linear(FAST, steps)
    cat = lambda tx=tx, **fields: {'name': 'CAT', 'tx': tx, 'similarity': 'cka_debiased',
                                   'taps': taps, 'ema': EMA, **learn, **fields}
    taught = dict(name='Offline', tx=tx, distill=DISTILL, ema=EMA)
    add('taught', 'what was left, taught', 'inherit', taught)
    add('cat', 'CAT', 'reinit', cat())
    add('alone', 'alone', 'reinit', train({}, tx))
    if arg.rivals:
      add('fresh', 'fresh weights, taught', 'reinit', taught)
      add('narrow', 'fresh weights, narrowed evenly, taught', 'reinit', taught)
    if arg.rivals and share == arg.shares[0]:
      add('kept', 'CAT from what was left', 'inherit', cat())
      add('blind', 'CAT without alignment', 'reinit', cat(align_weight=0.))
    if arg.rivals and online:
      half = steps // 2
      rest = rest or steps - half
      gradual_pruning = dict(name='GradualPruning', budget=prune['budget'],
                             min_channels=MIN_CHANNELS, start=half // 4,
                             end=half - half // 8)
      run[f'gradual_{share}'] = config.stage(
          title=f'{share} %: online, losing channels', steps=half,
          method=dict(online(teacher, common.adam(SLOW), common.adam),
                      gradual_pruning=gradual_pruning))
      # The teacher comes to rest before its student does.
      early = lambda rate, rest=rest: common.linear(rate, rest, fall=(0., .6))
      add('online', 'online, compact', 'inherit',
          online({}, common.linear(FAST, rest, fall=(.4, 1.)), early), steps=rest,
          teacher=(f'gradual_{share}',), teacher_checkpoint='last')
  common.fill(c, run)
  return smoke(c) if arg.smoke else c


def sample_pairs(c, arg, task, *, size=64, teacher=None, taps=('stem', 'block2', 'block4'),
                 rest=None, batch=8, disc=24, ngf=16):
  """`sample_students` of pairs of images: the teacher, inception blocks of width ngf unless said,
  learns as pix2pix. disc: the width of its discriminator."""

  def adversary(tx, **fields):
    return common.adversary(disc, tx(2e-4), norm='batch', **fields)

  def train(generator, tx):
    return dict(name='Pix2Pix', tx=tx, ema=EMA, adversary=adversary(whole),
                **({'generator': generator} if generator else {}))

  def online(student, tx, others):
    return dict(name='OMGD', tx=tx, teacher_tx=others(SLOW), wide=teacher, ema=EMA,
                teacher_params='ema', distill=DISTILL,
                adversary=adversary(others, heads=('wide',)),
                **({'student': student} if student else {}))

  whole = lambda rate: common.linear(rate, arg.steps)
  teacher = teacher or dict(name='inception', ngf=ngf, blocks=4, norm='batch')
  return sample_students(
      c, arg, task, size=size, teacher=teacher, taps=taps, batch=batch,
      train=train, learn=dict(adversary=adversary(whole)), online=online, rest=rest)


def smoke(c):
  config.smoke(c)
  for stage in c.stages.values():
    if stage.method.get('gradual_pruning'):
      stage.method.gradual_pruning.update(start=0, end=3, every=1)
  return c
