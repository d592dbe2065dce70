"""What a network costs and what a run came to."""

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
)

__all__ = ['Layer', 'StepCost', 'Timing', 'activation_bytes', 'captioned', 'colour_labels',
           'contact_sheet', 'count_params', 'gallery', 'latency', 'layers', 'macs',
           'network_latency', 'step_cost', 'to_uint8']
