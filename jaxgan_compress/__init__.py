"""Make GANs small: train big generators and the tiny students that replace them."""

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
from jaxgan_compress.compare import compare
from jaxgan_compress.core import Drawer, Method, Net, TrainState
from jaxgan_compress.experiment import Interrupted, open_run, run
from jaxgan_compress.ship import export_run
from jaxgan_compress.train import Checkpointer, fit

__all__ = [
  'Checkpointer', 'Drawer', 'Interrupted', 'Method', 'Net', 'TrainState', '__version__', 'analysis',
  'compare', 'config', 'convert', 'count_params', 'data', 'export', 'export_run', 'fit', 'latency',
  'losses', 'macs', 'methods', 'metrics', 'nn', 'open_run', 'parallel', 'pruning', 'run', 'train']
