"""Records evaluation.npz: torchvision's Inception v3, its poolings changed to those of FID, and a
small DRN-D, run by PyTorch on weights and images that `tests/published.py` computes.

    python -m tests.golden.record_evaluation   # with torch==2.13.0, torchvision==0.28.0, no JAX
"""

import types
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torchvision.models import inception

from tests import published

arrays = {}


def fill(module):
  state = {key: x if key == 'up.weight' else torch.tensor(published.hashed_fill(key, x.shape))
           for key, x in module.state_dict().items()}
  module.double().load_state_dict(state)
  return module.eval()


def record(name, y, step=1):
  """Two corners of a map [B,C,h,w], or a matrix: every so many channels."""
  y = y.detach().numpy().astype(np.float32)
  arrays[name] = (np.stack([y[0, :, 0, 0], y[-1, :, -1, -1]]) if y.ndim == 4 else y)[:, ::step]


# Inception --------------------------------------------------------------------------------------


def exclusive(x, kernel_size, stride, padding):
  return functional.avg_pool2d(x, kernel_size, stride, padding, count_include_pad=False)


inception.F = types.SimpleNamespace(**{**vars(functional), 'avg_pool2d': exclusive})
net = fill(inception.inception_v3(weights=None, num_classes=1008, aux_logits=False,
                                  init_weights=False, transform_input=False))
net.Mixed_7c.register_forward_pre_hook(
    lambda *_: setattr(inception.F, 'avg_pool2d', functional.max_pool2d))
for name, layer, step in (('64', net.maxpool1, 1), ('192', net.maxpool2, 1),
                          ('768', net.Mixed_6e, 4), ('2048', net.avgpool, 4)):
  layer.register_forward_hook(
      lambda layer, x, y, name=name, step=step: record(
          f'inception/{name}', y.flatten(1) if name == '2048' else y, step))
# The smallest image of which the last block sees more than a pixel.
record('inception/logits', net(torch.tensor(published.wave(1, 3, 107, 107, 0))), 4)


# DRN --------------------------------------------------------------------------------------------


def unit(inputs, features, kernel, stride=1, dilation=1):
  return [nn.Conv2d(inputs, features, kernel, stride, kernel // 2 * dilation, dilation, bias=False),
          nn.BatchNorm2d(features)]


class Bottleneck(nn.Module):
  def __init__(self, inputs, planes, stride, dilation):
    super().__init__()
    self.conv1, self.bn1 = unit(inputs, planes, 1)
    self.conv2, self.bn2 = unit(planes, planes, 3, stride, dilation)
    self.conv3, self.bn3 = unit(planes, 4 * planes, 1)
    self.downsample = None
    if inputs != 4 * planes:
      self.downsample = nn.Sequential(*unit(inputs, 4 * planes, 1, stride))

  def forward(self, x):
    y = torch.relu(self.bn1(self.conv1(x)))
    y = torch.relu(self.bn2(self.conv2(y)))
    y = self.bn3(self.conv3(y))
    return torch.relu(y + (self.downsample(x) if self.downsample else x))


class DRN(nn.Module):
  def __init__(self, stem, blocks, planes, head, classes):
    super().__init__()
    levels, inputs = [], 3
    for features, kernel, stride in zip(stem, (7, 3, 3), (1, 1, 2), strict=True):
      levels.append([*unit(inputs, features, kernel, stride), nn.ReLU()])
      inputs = features
    for count, width, stride, dilation in zip(blocks, planes, (2, 2, 1, 1), (1, 1, 2, 4),
                                              strict=True):
      levels.append([])
      for i in range(count):
        levels[-1].append(Bottleneck(inputs, width, stride if i == 0 else 1, dilation))
        inputs = 4 * width
    for features, dilation in zip(head, (2, 1), strict=True):
      levels.append([*unit(inputs, features, 3, 1, dilation), nn.ReLU()])
      inputs = features
    self.base = nn.Sequential(*(nn.Sequential(*level) for level in levels))
    self.seg = nn.Conv2d(inputs, classes, 1)
    self.up = nn.ConvTranspose2d(classes, classes, 16, 8, 4, groups=classes, bias=False)
    row = 1 - (torch.arange(16) / 8 - 15 / 16).abs()
    self.up.weight.data[:] = row[:, None] * row

  def forward(self, x):
    return torch.log_softmax(self.up(self.seg(self.base(x))), 1)


net = fill(DRN((4, 6, 8), (2, 1, 2, 1), (3, 4, 5, 6), (12, 10), 5))
for i, level in enumerate(net.base):
  level.register_forward_hook(lambda layer, x, y, i=i: record(f'drn/level{i}', y))
net.seg.register_forward_hook(lambda layer, x, y: record('drn/seg', y))
log_probs = net(torch.tensor(published.wave(2, 3, 40, 48, 0)))
arrays['drn/log_probs'] = log_probs.detach().numpy().astype(np.float32)[:, :, ::3, ::5]

np.savez_compressed(Path(__file__).with_name('evaluation.npz'), **arrays)
