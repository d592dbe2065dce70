"""The stages that every knowledge distillation run is made of."""

from jaxgan_compress import config


def adam(learning_rate, b1=0.5):
  return dict(name='adam', learning_rate=learning_rate, b1=b1)


def cosine(learning_rate, steps):
  """From the rate to 0 over the run: what a regression likes and a game does not."""
  return dict(name='optax:cosine_decay_schedule', init_value=learning_rate, decay_steps=steps)


def classifier(steps, **fields):
  """The network that metrics look through, trained on the 'train' split."""
  method = dict(name='Classifier', classifier=dict(name='SmallClassifier'), tx=adam(1e-3, 0.9))
  return config.stage(title='classifier', steps=steps, **{'method': method, **fields})


def gan(title, g, d, steps, *, lr, loss='ns', n_critic=1, **fields):
  """A GAN: g and d are the keyword arguments of generator and discriminator."""
  return config.stage(title=title, steps=steps, **fields, method=dict(
      name='GAN', generator=dict(name='DCGANGenerator', **g), tx=adam(lr),
      adversary=dict(name='Adversary', disc=dict(name='DCGANDiscriminator', **d), tx=adam(lr),
                     loss=loss, n_critic=n_critic)))


def mse_student(title, g, teacher, steps, *, lr):
  """A student by pixels alone: no discriminator, no real image."""
  return config.stage(title=title, steps=steps, teacher=teacher, method=dict(
      name='KD', student=dict(name='DCGANGenerator', **g), tx=adam(lr)))


def joint_student(title, g, teacher, steps, *, lr, d_lr=2e-4, loss='ns', n_critic=1):
  """A student by pixels and by its teacher's discriminator, which goes on learning."""
  return config.stage(title=title, steps=steps, teacher=teacher, method=dict(
      name='KD', student=dict(name='DCGANGenerator', **g), tx=adam(lr), adv_weight=0.5,
      distill_weight=0.5,
      adversary=dict(name='Adversary', tx=adam(d_lr), loss=loss, n_critic=n_critic)))
