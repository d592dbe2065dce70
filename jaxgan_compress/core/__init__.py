"""The nouns of the library: a network in motion, the state of a run, a method, the devices."""

from jaxgan_compress.core.axes import Axes
from jaxgan_compress.core.state import (
  Array,
  Batch,
  Drawer,
  Logs,
  Method,
  Net,
  PyTree,
  TrainState,
  advance,
  create,
  fixed,
  normalise,
  rows,
)

__all__ = ['Array', 'Axes', 'Batch', 'Drawer', 'Logs', 'Method', 'Net', 'PyTree', 'TrainState',
           'advance', 'create', 'fixed', 'normalise', 'rows']
