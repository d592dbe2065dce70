"""What a network costs and what a run came to."""

from jaxgan_compress.analysis.cost import (
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
)
from jaxgan_compress.analysis.images import (
  captioned,
  colour_labels,
  contact_sheet,
  gallery,
  to_uint8,
)

__all__ = ['Layer', 'StepCost', 'Timing', 'activation_bytes', 'captioned', 'colour_labels',
           'contact_sheet', 'count_params', 'gallery', 'latency', 'layers', 'macs',
           'network_latency', 'step_cost', 'to_uint8']
