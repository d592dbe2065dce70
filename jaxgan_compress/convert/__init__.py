"""Converts weights of PyTorch networks to ours and back, and upscalers of ncnn; neither is needed.

    module, variables = convert.from_torch(convert.load('latest_net_G.pth'))
    convert.save('G.safetensors', module, variables)   # opened by nn.load
    module, variables = convert.from_ncnn('realesrgan-x4plus.param')   # the .bin is beside it
    module, variables = convert.published('realesrgan:x4plus')         # with the extra 'superres'
"""

from jaxgan_compress.convert.packaged import (
  PACKAGED,
  Package,
  brought,
  is_there,
  open_network,
  packaged_file,
)
from jaxgan_compress.convert.pytorch import assumed, built_in, from_torch, load, to_torch
from jaxgan_compress.nn.files.ncnn import is_ncnn
from jaxgan_compress.nn.files.ncnn import read as from_ncnn
from jaxgan_compress.nn.files.ncnn import write as to_ncnn
from jaxgan_compress.nn.files.network import save
from jaxgan_compress.nn.files.realesrgan import published

__all__ = ['PACKAGED', 'Package', 'assumed', 'brought', 'built_in', 'from_ncnn', 'from_torch',
           'is_ncnn', 'is_there', 'load', 'open_network', 'packaged_file', 'published', 'save',
           'to_ncnn', 'to_torch']
