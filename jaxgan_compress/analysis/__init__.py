"""What a network costs and what a run came to."""

from jaxgan_compress.analysis.cost import (
  Layer,
  Timing,
  activation_bytes,
  count_params,
  latency,
  layers,
  macs,
  network_latency,
)
from jaxgan_compress.analysis.images import captioned, colour_labels, contact_sheet, to_uint8

__all__ = ['Layer', 'Timing', 'activation_bytes', 'captioned', 'colour_labels', 'contact_sheet',
           'count_params', 'latency', 'layers', 'macs', 'network_latency', 'to_uint8']
