"""Records torch_zip.pth and torch_stream.pth: one state dict in both formats of PyTorch.

    python tests/golden/record_torch_files.py   # in an environment of its own with torch==2.13.0
"""

from pathlib import Path

import torch
from torch import nn

net = nn.Sequential()
net.add_module('conv', nn.Conv2d(2, 3, 2))
net.add_module('bn', nn.BatchNorm2d(3))
net.bn.num_batches_tracked += 7
state = net.state_dict()  # an OrderedDict with _metadata
for i, x in enumerate(state.values()):
  if x.is_floating_point():
    x.copy_((torch.arange(x.numel()) / 8 - i).view(x.shape))
base = torch.arange(24.)
state['transposed'] = base.view(4, 6).t()
state['sliced'] = base.view(4, 6)[1:3, 2:6:2]  # the same storage from value 8 on
state['half'] = (torch.arange(5) / 4).half()
state['bfloat16'] = (torch.arange(6) / 2 - 1).view(2, 3).bfloat16()
state['double'] = torch.arange(3).double() / 3
state['bool'] = torch.arange(4) % 2 == 0
state['uint8'] = torch.arange(3, dtype=torch.uint8)
state['parameter'] = nn.Parameter(torch.arange(2.))
state['expanded'] = torch.full((1,), 2.5).expand(3, 2)
state['empty'] = torch.zeros(0, 3)
here = Path(__file__).parent
torch.save(state, here / 'torch_zip.pth')
torch.save(state, here / 'torch_stream.pth', _use_new_zipfile_serialization=False)
