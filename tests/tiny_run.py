"""A config that trains in seconds: one DCGAN of a few weights on the digits, nothing measured."""

from jaxgan_compress import config, data


def get_config(arg=''):
  arg = config.parse_arg(arg, steps=12, every=3, via='pmap')
  c = config.base()
  c.data = dict(name='digits')
  c.batch, c.via, c.log_every, c.checkpoint.every = 8, arg.via, 1, arg.every
  c.cache = False
  tx = dict(name='sgd', learning_rate=0.01)
  c.stages = {'gan': config.stage(steps=arg.steps, method=dict(
      name='GAN', generator=dict(name='DCGANGenerator', d=1, size=32), tx=tx,
      adversary=dict(name='Adversary', disc=dict(name='DCGANDiscriminator', d=1, size=32), tx=tx)))}
  c.run = ('gan',)
  return c


def sweep():
  return [{'seed': seed} for seed in range(2)]


def few_digits(split='all', size=32):
  whole = data.digits(split, size=size)
  return data.ArraySource(whole.target[:24], whole.label[:24], repr(whole))
