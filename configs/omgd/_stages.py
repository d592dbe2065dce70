"""What the runs of OMGD are made of: published ones by their tables, short ones on samples."""

from jaxgan_compress import config

UNET_TAPS = ('down2', 'down4', 'up3', 'up1')
RESNET_TAPS = ('stem', 'block3', 'block6', 'block9')


def adam(rate):
  return dict(name='adam', learning_rate=rate, b1=0.5, b2=0.999)


def linear(value, steps, stride=1, fall=(0.5, 1.), **epochs):
  """The rate `value`, then down in a line: between two shares of `steps` updates, or by epochs
  (epoch=, constant=, decay=)."""
  hundredth = max(1, steps // 100)
  start, end = (int(share * steps) // hundredth for share in fall)
  epochs = epochs or dict(epoch=hundredth, constant=max(1, start), decay=end - start)
  return adam(dict(name='linear_epochs', value=value, stride=stride, **epochs))


def adversary(ndf, tx, *, inputs=6, loss='hinge', **fields):
  return dict(name='Adversary', tx=tx, loss=loss,
              disc=dict(name='PatchGAN', ndf=ndf, inputs=inputs, **fields))


def distill_loss(*, ssim=10., feature=10., style=1e4, tv=1e-5, pixel=0., tap=0., taps=(),
                 similarity='channel_means', **fields):
  """A `DistillLoss` of the published weights but for those given; 0 leaves a term out."""
  weights = dict(ssim=('SSIM', ssim), feature=('Perceptual', feature), style=('Style', style),
                 tv=('TotalVariation', tv), pixel=('Pixel', pixel))
  terms = {key: dict(name=name, weight=weight) for key, (name, weight) in weights.items() if weight}
  if taps:
    terms['taps'] = dict(name='Taps', similarity=similarity, weight=tap, names=taps)
  return dict(name='DistillLoss', **terms, **fields)


# What made the best students from pairs (docs/results.md): half of the distance is to the teacher's
# image, half to the true one, and discriminators see through DiffAugment.
TO_TEACHER_AND_TARGET = dict(distill_loss(feature=0., style=0., pixel=50.),
                             target=dict(name='Target', weight=50.))
AUGMENT = dict(name='DiffAugment', policies=('translation', 'cutout'))

NETS = {'unet': ('unet', 'unet_deepest', 'batch', UNET_TAPS),
        'resnet': ('mobile_resnet', 'mobile_deepest_resnet', 'instance', RESNET_TAPS)}


def width(widths, arg):
  """The row of a student's width. Raises ValueError for a width that was not published."""
  net = arg.get('net', 'resnet')
  if net not in NETS:
    raise ValueError(f'net={net!r}; one of {", ".join(NETS)}')
  possible = [w for w in widths if not (w == 24 and net == 'unet')]
  if arg.student not in possible:
    raise ValueError(f'student={arg.student}; published with {net} are '
                     f'{", ".join(map(str, possible))}')
  return widths[arg.student]


def evaluation(c, arg, *, test, every):
  """Compared with `test`, as published; chosen on it too, which flatters: see docs/howto.md."""
  # Published runs log every 100 steps.
  c.log_every, c.checkpoint.every = 100, every
  extractor = dict(name='inception', path=arg.fid) if arg.fid else dict(name='random_vgg')
  c.evaluate.update(extractor=extractor, real=test, every=every,
                    select='fid' if arg.fid else 'fd')


def domains(arg, name):
  """The two sets of images, of a folder or of the catalogue."""
  where = dict(name=f'tfds:cycle_gan/{name}') if arg.path == 'tfds' else \
      dict(name='unpaired', path=arg.path)
  return dict(**where, size=256, load=286)


def vgg_file(arg):
  return dict(features=arg.vgg) if arg.vgg else {}


def smoke(c, arg):
  """With arg.smoke the same networks, two channels wide, on images of 32 pixels."""
  if not arg.smoke:
    return c
  config.smoke(c)
  c.data.update(size=32, load=36)
  method = c.stages.omgd.method
  method.distill.feature_net = FEATURE_NET
  cycle = method.get('cycle') or {}
  for role in ('student', 'wide', 'deep'):
    if role in method:
      method[role].update(ngf=2, **({'depth': 5} if arg.get('net') == 'unet' else {}))
  if cycle:
    cycle.generator.ngf = 2
  (cycle or method).adversary.disc.ndf = 2
  return c


def paired(c, arg, *, wide, deep, ndf, n_share, teacher_every, tap, epoch, constant, decay):
  """Fills `c` with one published run of pix2pix: a wide and a deep teacher, a head for each, and
  their student. Epochs are counted in whole batches."""
  network, deeper, norm, taps = NETS[arg.net]
  net = lambda name, ngf: dict(name=name, ngf=ngf, norm=norm)

  def tx(every):  # of an optimiser that moves every so many steps
    return linear(2e-4, 0, epoch=max(1, epoch // every), constant=constant, decay=decay)

  fill(c, {'omgd': config.stage(
      title=f'OMGD {network} {arg.student}', steps=epoch * (constant + decay),
      init_from=vgg_file(arg), method=dict(
          name='OMGD', student=net(network, arg.student), wide=net(network, wide),
          deep=net(deeper, deep), tx=tx(1), teacher_tx=tx(teacher_every),
          teacher_every=teacher_every,
          distill=distill_loss(tap=tap, taps=taps),
          adversary=adversary(ndf, tx(teacher_every), heads=('wide', 'deep'), shared=n_share,
                              norm=norm)))})


def published_unpaired(arg, folder, *, catalogue, widths, tap, epoch, epochs=200,
                       teacher_every=4):
  """One published run of CycleGAN: blocks of epochs of the teachers, n_dis times as many of the
  student after each; or, with `:online`, all in every step of the same epochs.

  widths: {student: (teachers, epochs of a block)}. epoch: its steps.
  """
  arg = config.parse_arg(arg, smoke=False, student=16, path=folder, vgg='', fid='', online=False)
  wide, block = width(widths, arg)
  c = config.base()
  c.batch = 1
  c.data = domains(arg, catalogue)
  evaluation(c, arg, test=dict(split=('train', 'test')), every=20_000)
  total, teach, learn = epoch * epochs, epoch * block, epoch * block * teacher_every
  half = dict(constant=epochs // 2, decay=epochs - epochs // 2)
  teachers = linear(2e-4, 0, epoch=epoch, **half)
  net = lambda ngf: dict(name='mobile_resnet', ngf=ngf)
  method = dict(
      name='OMGDCycle', student=net(arg.student), tx=teachers,
      distill=distill_loss(tap=tap, taps=RESNET_TAPS),
      cycle=dict(name='CycleGAN', generator=net(wide), tx=teachers, pool=50,
                 adversary=adversary(64, teachers, inputs=3, loss='lsgan')))
  steps = total
  if not arg.online:
    # The student's rate follows the teachers' epochs.
    method |= dict(tx=linear(2e-4, 0, stride=block, epoch=learn, **half),
                   schedule=dict(name='AlternatingSchedule', teacher_steps=teach,
                                 student_steps=learn, total=total))
    steps += -(-epochs // block) * learn
  fill(c, {'omgd': config.stage(title=f'OMGD mobile_resnet {arg.student}', steps=steps,
                                init_from=vgg_file(arg), method=method)})
  return smoke(c, arg)


def fill(c, run):
  """The stages, in order."""
  c.stages, c.run = run, tuple(run)


# A VGG of random weights has no meaning high up, and most of its cost there.
FEATURE_NET = dict(name='VGG', depth=16, layers=('relu1_2', 'relu2_2'))


def sample_run(c, task, *, size, batch, steps):
  """The data and the measures of a short run: chosen on 'validation', reported on 'test'."""
  c.data = dict(name=f'samples:{task}', size=size)
  c.batch = batch
  c.evaluate.update(extractor=dict(name='random_vgg'), real=dict(split='validation'),
                    test=dict(split='test'), select='mmd', every=max(1, steps // 200) * 50)
  c.checkpoint.every = c.evaluate.every


def sample_pairs(c, arg, task, *, wide, student, distill, norm, extra_students=None, disc=24,
                 size=64):
  """A student online with its teacher, alone, and after it.

  `alone` learns from the data with a discriminator of its own, at two rates; with arg.rivals there
  is `teacher`, the same network that teaches in `omgd`, by itself, and `offline`, the student that
  learns from it when it has finished. All are averaged, and the average teaches: in training mode
  a teacher's images have the batch norm statistics of four images. Online it comes to rest before
  its student does, which then learns its last images longest.
  """
  steps, ema = arg.steps, 0.99
  sample_run(c, task, size=size, batch=4, steps=steps)
  disc_tx, slow, fast, student_tx = (linear(rate, steps) for rate in (2e-4, 1e-3, 3e-3, 4e-3))
  early, late = dict(fall=(0.25, 0.65)), dict(fall=(0.6, 1.))
  pix2pix = lambda title, generator, tx: config.stage(title=title, steps=steps, method=dict(
      name='Pix2Pix', generator=generator, tx=tx, ema=ema,
      adversary=adversary(disc, disc_tx, norm=norm)))
  distill = dict(distill, feature_net=FEATURE_NET)
  run = {'omgd': config.stage(title='Online', steps=steps, method=dict(
      name='OMGD', student=student, wide=wide, tx=linear(4e-3, steps, **late),
      teacher_tx=linear(1e-3, steps, **early), distill=distill, ema=ema, teacher_params='ema',
      extra_students=extra_students or {},
      adversary=adversary(disc, linear(2e-4, steps, **early), heads=('wide',), norm=norm)))}
  run['alone'] = pix2pix('Alone, rate 0.003', student, fast)
  if arg.rivals:
    run['alone_slow'] = pix2pix('Alone, rate 0.001', student, slow)
    run['teacher'] = pix2pix('Teacher by itself', wide, slow)
    run['offline'] = config.stage(title='Offline', steps=steps, teacher=('teacher',), method=dict(
        name='Offline', student=student, tx=student_tx, distill=distill, ema=ema))
  fill(c, run)


def paired_folder(arg):
  """The section of the data of the folder arg.path, in crops of arg.size."""
  # A tenth larger, so that crops differ, as published runs have it.
  return dict(name='paired', path=arg.path, size=arg.size, load=arg.size * 286 // 256,
              direction=arg.direction)


def emoji(c, arg):
  """The run on `samples:emoji` as arg has it, measured by trained features; with arg.smoke on icons
  and by features that need no download."""
  if not arg.smoke:
    trained = 'efficientnet_lite0'
    c.evaluate.update(extractor=dict(name=trained), select=f'mmd_{trained}')
  name = 'samples:icons' if arg.smoke else 'samples:emoji'
  c.data = dict(name=name, size=arg.size, pair=arg.pair,
                **({'path': arg.path} if arg.path and not arg.smoke else {}))
  return c


def sample_sets(c, arg, task, *, teacher, student, distill, disc=24, size=48):
  """The same without pairs: the student of a CycleGAN online, a CycleGAN of its own size alone, and
  after a finished CycleGAN.

  Online the teachers come to rest before their student does, as in `sample_pairs`.
  """
  steps = arg.steps
  sample_run(c, task, size=size, batch=4, steps=steps)
  slow, fast, student_tx = (linear(rate, steps) for rate in (5e-4, 1e-3, 4e-3))
  early, late = linear(1e-3, steps, fall=(0.25, 0.7)), linear(4e-3, steps, fall=(0.67, 1.))

  def cycle(generator, tx, disc_tx=fast):
    return dict(name='CycleGAN', generator=generator, tx=tx,
                adversary=adversary(disc, disc_tx, inputs=3, loss='lsgan', layers=2))

  distill = dict(distill, feature_net=FEATURE_NET)
  run = {'omgd': config.stage(title='Online', steps=steps, method=dict(
      name='OMGDCycle', student=student, tx=late, distill=distill,
      cycle=cycle(teacher, early, early)))}
  run['alone'] = config.stage(title='Alone, rate 0.001', steps=steps, method=cycle(student, fast))
  if arg.rivals:
    run['alone_slow'] = config.stage(title='Alone, rate 0.0005', steps=steps,
                                     method=cycle(student, slow))
    run['teacher'] = config.stage(title='Teacher by itself', steps=steps,
                                  method=cycle(teacher, fast))
    run['offline'] = config.stage(title='Offline', steps=steps, teacher=('teacher',), method=dict(
        name='Offline', student=student, tx=student_tx, distill=distill))
  fill(c, run)
