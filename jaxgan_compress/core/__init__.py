"""The nouns of the library: a network while it trains, the state of a run, a method, devices."""

from jaxgan_compress.core.axes import Axes
from jaxgan_compress.core.state import (
  AnyArray,
  Array,
  Batch,
  BoundGenerator,
  Logs,
  Method,
  Net,
  PyTree,
  Roles,
  TrainState,
  in_colour,
  normalise,
  rows,
  stop_gradient,
)
from jaxgan_compress.core.update import (
  advance,
  create,
  flatten_logs,
  merge_logs,
  update_together,
)

__all__ = ['AnyArray', 'Array', 'Axes', 'Batch', 'BoundGenerator', 'Logs', 'Method', 'Net',
           'PyTree', 'Roles', 'TrainState', 'advance', 'create', 'flatten_logs', 'in_colour',
           'merge_logs', 'normalise', 'rows', 'stop_gradient', 'update_together']
