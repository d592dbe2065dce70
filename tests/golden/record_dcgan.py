"""Records dcgan_d1.npz: weights, latents and images of a 64 px DCGAN generator run by PyTorch.

    python tests/golden/record_dcgan.py       # in an environment of its own with torch==2.13.0
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn


class Generator(nn.Module):
  def __init__(self, d):
    super().__init__()
    widths = [100, 8 * d, 4 * d, 2 * d, d, 1]
    for i in range(1, 6):
      stride, padding = (1, 0) if i == 1 else (2, 1)
      setattr(self, f'deconv{i}', nn.ConvTranspose2d(widths[i - 1], widths[i], 4, stride, padding))
      if i < 5:
        setattr(self, f'deconv{i}_bn', nn.BatchNorm2d(widths[i]))

  def forward(self, z):
    x = z[:, :, None, None]
    for i in range(1, 5):
      x = torch.relu(getattr(self, f'deconv{i}_bn')(getattr(self, f'deconv{i}')(x)))
    return torch.tanh(self.deconv5(x))


torch.manual_seed(0)
G = Generator(1)
with torch.no_grad():
  for weight in G.parameters():
    weight.copy_(torch.randn_like(weight) * (0.2 if weight.ndim == 4 else 1))
  z = torch.randn(5, 100)
  G.train()
  trained = G(z)  # one pass in training mode: its images, and running statistics that it moved
  G.eval()
  images = G(z)
arrays = {f'state/{name}': x.numpy() for name, x in G.state_dict().items() if x.ndim}
np.savez(Path(__file__).with_name('dcgan_d1.npz'), z=z.numpy(), images=images.numpy(),
         trained=trained.numpy(), **arrays)
