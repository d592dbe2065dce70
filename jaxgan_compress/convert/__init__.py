"""Converts weights of PyTorch networks to ours and back; PyTorch is not needed.

    module, variables = convert.from_torch(convert.load('latest_net_G.pth'))
    convert.save('G.safetensors', module, variables)   # opened by nn.load
"""

from jaxgan_compress.convert.pytorch import assumed, built_in, from_torch, load, to_torch
from jaxgan_compress.nn.files.network import save

__all__ = ['assumed', 'built_in', 'from_torch', 'load', 'save', 'to_torch']
