"""Make GANs small: train big generators and the tiny students that replace them.

    import jax, optax, jaxgan_compress as jgc
    from jaxgan_compress import methods, nn
    data = jgc.data.Pipeline(jgc.data.digits(), batch=64)
    adam = optax.adam(1e-3, b1=0.5)
    adversary = methods.Adversary(nn.DCGANDiscriminator(d=16, size=32), adam)
    gan = methods.GAN(nn.DCGANGenerator(d=16, size=32), adversary, adam)
    state = gan.init(jax.random.key(0), data[0])
    for state, logs in jgc.fit(gan, state, data, steps=2000, every=200):
      print(logs['step'], float(logs['generator']['loss']))
    images = gan.generators(state)['generator'](jax.random.normal(jax.random.key(2), (16, 100)))

| to | look at |
|---|---|
| train and distil | `fit`, `jaxgan_compress.methods`; what a method is: `Method`, `TrainState` |
| choose or build a network | `jaxgan_compress.nn` |
| prune one to a budget | `jaxgan_compress.pruning` |
| read images | `jaxgan_compress.data` |
| write a loss or a method | `jaxgan_compress.losses`, `jaxgan_compress.core` |
| know what a network costs, see images | `jaxgan_compress.analysis` |
| measure generated images | `jaxgan_compress.metrics` |
| take weights from PyTorch, and back | `jaxgan_compress.convert` |
| generate images of your own pictures | `generate`, `jaxgan_compress.inference` |
| export a student | `jaxgan_compress.export` |
| run by config, with checkpoints and a report | `run`, `jaxgan_compress.config` |
| use many devices and processes | `jaxgan_compress.parallel`, `jaxgan_compress.distributed` |
"""

import jaxgan_compress.cli.interrupt  # noqa: F401 - first: hears Ctrl-C while others are imported
from jaxgan_compress import (
  analysis,
  config,
  convert,
  data,
  export,
  losses,
  methods,
  metrics,
  nn,
  parallel,
  pruning,
  train,
)
from jaxgan_compress._version import __version__
from jaxgan_compress.analysis import count_params, latency, macs
from jaxgan_compress.core import BoundGenerator, Method, Net, TrainState
from jaxgan_compress.experiment import Interrupted, open_run, run
from jaxgan_compress.experiment.compare_runs import compare
from jaxgan_compress.experiment.export import export_run
from jaxgan_compress.inference import generate
from jaxgan_compress.train import Checkpointer, fit

__all__ = [
  'BoundGenerator',
  'Checkpointer',
  'Interrupted',
  'Method',
  'Net',
  'TrainState',
  '__version__',
  'analysis',
  'compare',
  'config',
  'convert',
  'count_params',
  'data',
  'export',
  'export_run',
  'fit',
  'generate',
  'latency',
  'losses',
  'macs',
  'methods',
  'metrics',
  'nn',
  'open_run',
  'parallel',
  'pruning',
  'run',
  'train',
]
