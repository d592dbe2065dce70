"""What networks and training steps cost, and plots of images and masks."""

from jaxgan_compress.analysis.ahead_of_time import Costly, Program, compile_for
from jaxgan_compress.analysis.image_grid import (
  captioned,
  colour_labels,
  contact_sheet,
  gallery,
  to_uint8,
)
from jaxgan_compress.analysis.model_cost import (
  Layer,
  StepCost,
  Timing,
  activation_bytes,
  count_params,
  latency,
  layers,
  macs,
  network_latency,
  step_cost,
  time_calls,
)

__all__ = ['Costly', 'Layer', 'Program', 'StepCost', 'Timing', 'activation_bytes', 'captioned',
           'colour_labels', 'compile_for', 'contact_sheet', 'count_params', 'gallery', 'latency',
           'layers', 'macs', 'network_latency', 'step_cost', 'time_calls', 'to_uint8']
