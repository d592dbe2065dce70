"""The stages that every knowledge distillation run is made of."""

from jaxgan_compress import config


def adam(learning_rate, b1=0.5):
  return dict(name='adam', learning_rate=learning_rate, b1=b1)


def cosine(learning_rate, steps):
  """From the rate to 0 over the run: what a regression likes and a game does not."""
  return dict(name='optax:cosine_decay_schedule', init_value=learning_rate, decay_steps=steps)


def per_update(lr, updates):
  """A discriminator's rate: its optimiser counts updates, of which a step has several."""
  return {**lr, 'at': tuple(updates * step for step in lr['at'])} if isinstance(lr, dict) else lr


def classifier(steps, **fields):
  """The network that metrics look through, trained on the 'train' split."""
  method = dict(name='Classifier', classifier=dict(name='SmallClassifier'), tx=adam(1e-3, 0.9))
  return config.stage(title='classifier', steps=steps, **{'method': method, **fields})


def gan(title, g, d, steps, *, lr, loss='ns', disc_steps=1, **fields):
  """A GAN: g and d are the keyword arguments of generator and discriminator."""
  return config.stage(title=title, steps=steps, **fields, method=dict(
      name='GAN', generator=dict(name='DCGANGenerator', **g), tx=adam(lr),
      adversary=dict(name='Adversary', disc=dict(name='DCGANDiscriminator', **d),
                     tx=adam(per_update(lr, disc_steps)), loss=loss, disc_steps=disc_steps)))


def mse_student(title, g, teacher, steps, *, lr):
  """A student by pixels alone: no discriminator, no real image."""
  return config.stage(title=title, steps=steps, teacher=teacher, method=dict(
      name='KD', student=dict(name='DCGANGenerator', **g), tx=adam(lr)))


def joint_student(title, g, teacher, steps, *, lr, d_lr, adv=0.5, loss='ns', disc_steps=1):
  """A student by pixels and by its teacher's discriminator, which goes on learning."""
  return config.stage(title=title, steps=steps, teacher=teacher, method=dict(
      name='KD', student=dict(name='DCGANGenerator', **g), tx=adam(lr), adv_weight=adv,
      distill_weight=1 - adv,
      adversary=dict(name='Adversary', tx=adam(per_update(d_lr, disc_steps)), loss=loss,
                     disc_steps=disc_steps)))


def paper(c, arg, *, channels, epoch, epochs, classifier_epochs, network, decay=()):
  """Fills `c` with the paper's protocol at 64 px: a Wasserstein teacher (or several, of which the
  best is taken), and for each d a pixel student, a joint student and two baselines.

  What the paper leaves open is chosen here: gradient penalty 10 with 5 critic updates for the
  teacher and 3 for the rest, Adam 2e-4 (0.5, 0.999), layer norm in the discriminator, equal
  weights in the joint loss, as many student steps as teacher steps. An epoch is counted in steps
  of one generator batch, though the critic updates of a step read a batch each.
  """
  steps = epochs * epoch
  lr = dict(name='step_decay', value=2e-4, at=decay) if decay else 2e-4
  sizes, teachers, critics, critic = arg.d, arg.teacher_d, 5, 3
  if arg.smoke:
    sizes, teachers, critics, critic = (1,), (2,), 2, 1

  def pair(d):
    return dict(d=d, channels=channels), dict(d=d, norm='layer')

  names = tuple(f'teacher_d{d}' for d in teachers)
  run = {'classifier': classifier(
      classifier_epochs * epoch, shift=2,
      method=dict(name='Classifier', tx=adam(1e-3, 0.9), classifier=network))}
  for name, d in zip(names, teachers, strict=True):
    run[name] = gan(f'Teacher (d={d})', *pair(d), steps, lr=lr, loss='wgan_gp', disc_steps=critics)
  for d in sizes:
    g, small = pair(d)
    run[f'd{d}_mse'] = mse_student(f'Student d={d}, pixels', g, names, steps,
                                   lr=cosine(1e-3, steps))
    run[f'd{d}_joint'] = joint_student(f'Student d={d}, pixels + D', g, names, steps, lr=lr,
                                       d_lr=lr, loss='wgan_gp', disc_steps=critic)
    for title, disc in (('small D', small), ("teacher's D", pair(max(teachers))[1])):
      run[f'd{d}_scratch_{"small" if disc is small else "wide"}'] = gan(
          f'Scratch d={d}, {title}', g, disc, steps, lr=lr, loss='wgan_gp', disc_steps=critic)
  c.stages, c.run = run, tuple(run)
