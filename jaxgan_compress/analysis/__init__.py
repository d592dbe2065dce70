"""What a network costs and what a run came to."""

from jaxgan_compress.analysis.cost import count_params, latency, macs
from jaxgan_compress.analysis.images import contact_sheet, to_uint8

__all__ = ['contact_sheet', 'count_params', 'latency', 'macs', 'to_uint8']
