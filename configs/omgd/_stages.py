"""What the runs of OMGD are made of: published ones by their tables, short ones on samples."""

from jaxgan_compress import config

UNET_TAPS = ('down2', 'down4', 'up3', 'up1')
RESNET_TAPS = ('stem', 'block3', 'block6', 'block9')


def adam(rate):
  return dict(name='adam', learning_rate=rate, b1=0.5, b2=0.999)


def linear(value, steps, stride=1, **epochs):
  """The rate `value`, then down in a line: over the second half of `steps` updates, or by epochs
  (epoch=, constant=, decay=)."""
  hundredth = max(1, steps // 100)
  epochs = epochs or dict(epoch=hundredth, constant=50, decay=steps // hundredth - 50)
  return adam(dict(name='linear_epochs', value=value, stride=stride, **epochs))


def judge(ndf, tx, *, inputs=6, loss='hinge', **fields):
  return dict(name='Adversary', tx=tx, loss=loss,
              disc=dict(name='PatchGAN', ndf=ndf, inputs=inputs, **fields))


def paired(c, *, network, deeper, taps, sizes, ndf, n_share, n_dis, tap, epoch, constant, decay,
           norm):
  """Fills `c` with one published run of pix2pix: `sizes` are the widths of student, wide and deep
  teacher. A wide and a deep teacher, one head each, the student beside them."""
  student, wide, deep = sizes
  steps = epoch * (constant + decay)
  net = lambda name, ngf: dict(name=name, ngf=ngf, norm=norm)

  def tx(updates_each):  # of an optimiser that moves every so many steps
    return linear(2e-4, steps, epoch=max(1, epoch // updates_each), constant=constant, decay=decay)

  lessons = dict(name='Lessons', tap=tap, taps=taps if tap else ())
  c.stages = {'omgd': config.stage(
      title=f'OMGD {network} {student}', steps=steps, method=dict(
          name='OMGD', student=net(network, student), wide=net(network, wide),
          deep=net(deeper, deep), tx=tx(1), teacher_tx=tx(n_dis), n_dis=n_dis, lessons=lessons,
          adversary=judge(ndf, tx(n_dis), heads=('wide', 'deep'), shared=n_share, norm=norm)))}
  c.run = ('omgd',)


def unpaired(c, *, sizes, tap, epoch, epochs, block, n_dis=4):
  """Fills `c` with one published run of CycleGAN: blocks of `block` epochs of the teachers, each
  followed by n_dis times as many of the student. sizes: of student and teachers."""
  student, wide = sizes
  total, teach = epoch * epochs, epoch * block
  blocks = -(-epochs // block)
  learn = teach * n_dis
  half = dict(constant=epochs // 2, decay=epochs - epochs // 2)
  teachers = linear(2e-4, total, epoch=epoch, **half)
  net = lambda ngf: dict(name='mobile_resnet', ngf=ngf)
  c.stages = {'omgd': config.stage(
      title=f'OMGD mobile_resnet {student}', steps=total + blocks * learn, method=dict(
          name='OMGDCycle', student=net(student),
          tx=linear(2e-4, total, stride=block, epoch=learn, **half),
          clock=dict(name='Blocks', teach=teach, learn=learn, total=total),
          lessons=dict(name='Lessons', tap=tap, taps=RESNET_TAPS),
          cycle=dict(name='CycleGAN', generator=net(wide), tx=teachers, pool=50,
                     adversary=judge(64, teachers, inputs=3, loss='lsgan'))))}
  c.run = ('omgd',)


# A VGG of random weights has no meaning high up, and most of its cost there.
LOOK = dict(name='VGG', depth=16, layers=('relu1_2', 'relu2_2'))


def sample_run(c, task, *, size, batch, steps):
  """The data and the measures of a short run: chosen on 'validation', reported on 'test'."""
  c.data = dict(name=f'samples:{task}', size=size)
  c.batch = batch
  c.evaluate.update(extractor=dict(name='random_vgg'), real=dict(split='validation'),
                    test=dict(split='test'), select='mmd', every=max(1, steps // 200) * 50)
  c.checkpoint.every = c.evaluate.every


def sample_pairs(c, arg, task, *, wide, student, lessons, norm, others=None, disc=24, size=64):
  """A student beside its teacher, alone, and after it.

  `alone` learns from the data with a discriminator of its own, at two rates; with arg.rivals there
  is `teacher`, the same network that teaches in `omgd`, by itself, and `offline`, the student that
  learns from it when it has finished.
  """
  steps = arg.steps
  sample_run(c, task, size=size, batch=2, steps=steps)
  slow, fast = linear(2e-4, steps), linear(1e-3, steps)
  pix2pix = lambda title, generator, tx: config.stage(title=title, steps=steps, method=dict(
      name='Pix2Pix', generator=generator, tx=tx, adversary=judge(disc, slow, norm=norm)))
  lessons = dict(name='Lessons', look=LOOK, **lessons)
  run = {'omgd': config.stage(title='Online', steps=steps, method=dict(
      name='OMGD', student=student, wide=wide, tx=fast, teacher_tx=slow, lessons=lessons,
      others=others or {}, adversary=judge(disc, slow, heads=('wide',), norm=norm)))}
  run['alone'] = pix2pix('Alone, rate 0.001', student, fast)
  if arg.rivals:
    run['alone_slow'] = pix2pix('Alone, rate 0.0002', student, slow)
    run['teacher'] = pix2pix('Teacher by itself', wide, slow)
    run['offline'] = config.stage(title='Offline', steps=steps, teacher=('teacher',), method=dict(
        name='Offline', student=student, tx=fast, lessons=lessons))
  c.stages, c.run = run, tuple(run)


def sample_sets(c, arg, task, *, teacher, student, lessons, disc=24, size=48):
  """The same without pairs: the student beside a CycleGAN, a CycleGAN of its own size alone, and
  after a finished CycleGAN."""
  steps = arg.steps
  sample_run(c, task, size=size, batch=2, steps=steps)
  slow, fast = linear(2e-4, steps), linear(1e-3, steps)

  def cycle(generator, tx):
    return dict(name='CycleGAN', generator=generator, tx=tx,
                adversary=judge(disc, slow, inputs=3, loss='lsgan', layers=2))

  lessons = dict(name='Lessons', look=LOOK, **lessons)
  run = {'omgd': config.stage(title='Online', steps=steps, method=dict(
      name='OMGDCycle', student=student, tx=fast, lessons=lessons, cycle=cycle(teacher, slow)))}
  run['alone'] = config.stage(title='Alone, rate 0.001', steps=steps, method=cycle(student, fast))
  if arg.rivals:
    run['alone_slow'] = config.stage(title='Alone, rate 0.0002', steps=steps,
                                     method=cycle(student, slow))
    run['teacher'] = config.stage(title='Teacher by itself', steps=steps,
                                  method=cycle(teacher, slow))
    run['offline'] = config.stage(title='Offline', steps=steps, teacher=('teacher',), method=dict(
        name='Offline', student=student, tx=fast, lessons=lessons))
  c.stages, c.run = run, tuple(run)
