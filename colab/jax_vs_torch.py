# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The same generator in JAX and in PyTorch
#
# One set of weights, two frameworks: first both must generate the same image and take the same
# steps of training, then they are timed, in turn, so that they share whatever else the machine
# does.
#
# PyTorch is not needed by the library. Where it is missing, this notebook says so, runs the JAX
# half and skips the rest.

# %%
# Installs the library where it is missing, on Colab; elsewhere this cell does nothing.
import importlib.util
import shutil
import subprocess
import sys

extras = 'samples,cuda12' if shutil.which('nvidia-smi') else 'samples'
PACKAGE = f'jaxgan-compress[{extras}]'  # whatever pip understands: a name, a path, a repository
if 'google.colab' in sys.modules:
  subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', PACKAGE], check=True)
  if not importlib.util.find_spec('torch'):  # Colab normally has it
    subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', 'torch'], check=True)

# %% tags=["parameters"]
SIZE = 128    # pixels
WIDTH = 32    # of the generator's first layer; CycleGAN's has 64
BLOCKS = 9    # residual blocks
BATCH = 1     # of a step of training
ROUNDS = 10   # how often each side is timed

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import jaxgan_compress as jgc
from jaxgan_compress import convert, nn
from jaxgan_compress.analysis import gallery
from jaxgan_compress.losses.image import l1

try:
  import torch
except ImportError:
  torch = None
  print('PyTorch is not installed: what needs it is skipped below. To have it: pip install torch')
else:
  print(f'PyTorch {torch.__version__}, {"GPU" if torch.cuda.is_available() else "CPU"}')
print(f'JAX {jax.__version__}, {jax.devices()[0].device_kind}')

# %% [markdown]
# ## In JAX
#
# CycleGAN's generator, untrained: its images mean nothing, and take as long as good ones.

# %%
module = nn.resnet(WIDTH, blocks=BLOCKS)
variables = nn.initialise(module, jax.random.key(0), scheme='he')
pairs = jgc.data.samples('colorize', size=SIZE, count=4)
photographs = np.stack([pair['target'] for pair in pairs]) / np.float32(127.5) - 1
generate = jgc.core.xla.jit(lambda variables, x: module.apply(variables, x)[0])
generated = np.asarray(generate(variables, photographs))
print(f'{jgc.count_params(variables):,} parameters, '
      f'{jgc.macs(module, (1, SIZE, SIZE, 3)) / 1e9:.2f} billion multiply-accumulates an image')
gallery({'photographs': photographs, 'what the untrained generator makes of them': generated},
        pixels=SIZE)

# %% [markdown]
# ## In PyTorch
#
# The generator as it is written there. Its parameters get the names of the published code
# (`model.1.weight`, ...), so `convert.to_torch` can fill them; the other way round, `from_torch`
# reads published checkpoints, without PyTorch.

# %%
if torch:
  from torch import nn as layers

  class Block(layers.Module):
    def __init__(self, channels):
      super().__init__()
      self.conv_block = layers.Sequential(
          layers.ReflectionPad2d(1), layers.Conv2d(channels, channels, 3),
          layers.InstanceNorm2d(channels), layers.ReLU(True),
          layers.ReflectionPad2d(1), layers.Conv2d(channels, channels, 3),
          layers.InstanceNorm2d(channels))

    def forward(self, x):
      return x + self.conv_block(x)

  class ResNet(layers.Module):
    def __init__(self, width, blocks):
      super().__init__()
      unit = lambda layer: [layer, layers.InstanceNorm2d(layer.out_channels), layers.ReLU(True)]
      self.model = layers.Sequential(
          layers.ReflectionPad2d(3), *unit(layers.Conv2d(3, width, 7)),
          *unit(layers.Conv2d(width, 2 * width, 3, 2, 1)),
          *unit(layers.Conv2d(2 * width, 4 * width, 3, 2, 1)),
          *(Block(4 * width) for _ in range(blocks)),
          *unit(layers.ConvTranspose2d(4 * width, 2 * width, 3, 2, 1, 1)),
          *unit(layers.ConvTranspose2d(2 * width, width, 3, 2, 1, 1)),
          layers.ReflectionPad2d(3), layers.Conv2d(width, 3, 7), layers.Tanh())

    def forward(self, x):
      return self.model(x)

  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  twin = ResNet(WIDTH, BLOCKS).to(device)
  state = convert.to_torch(module, variables)
  twin.load_state_dict({name: torch.from_numpy(np.array(x)) for name, x in state.items()})
  to_torch = lambda x: torch.from_numpy(np.moveaxis(x, -1, 1).copy()).to(device)
  to_numpy = lambda x: np.moveaxis(x.detach().cpu().numpy(), 1, -1)
  print(*list(state)[:4], '...', sep='\n')
else:
  print('skipped: PyTorch is not installed')

# %% [markdown]
# ## Do they generate the same?

# %%
rows = {'JAX': generated}
if torch:
  with torch.inference_mode():
    rows['PyTorch'] = to_numpy(twin(to_torch(photographs)))
  off = np.abs(rows['PyTorch'] - generated).max()
  print(f'largest difference of a pixel between -1 and 1: {off:.1e}')
  # A GPU may multiply with fewer bits by default, in either framework.
  assert off < (2e-2 if jax.default_backend() == 'gpu' or device == 'cuda' else 1e-3)
gallery(rows, '' if torch else 'PyTorch is not installed', pixels=SIZE)

# %% [markdown]
# ## A step of training
#
# The mean absolute difference to a target, its gradient, and Adam: a plain step without a
# discriminator, so that both sides fit on a page. Both start from the same weights; three steps
# must give the same losses.

# %%
source, target = photographs[:BATCH].mean(-1, keepdims=True).repeat(3, -1), photographs[:BATCH]
tx = optax.adam(2e-4, b1=.5)


def step(params, opt_state, source, target):
  loss, grads = jax.value_and_grad(
      lambda params: l1(module.apply({'params': params}, source)[0], target))(params)
  updates, opt_state = tx.update(grads, opt_state, params)
  return optax.apply_updates(params, updates), opt_state, loss


jgc.core.xla.keep_memory()  # `jgc.fit` does this by itself
compiled = jgc.core.xla.jit(step, donate_argnums=(0, 1))
learning = [jax.tree.map(jnp.array, variables['params']), tx.init(variables['params'])]
batch = jax.device_put((source, target))


def jax_step():
  learning[0], learning[1], loss = compiled(*learning, *batch)
  return loss


losses = {'JAX': [float(jax_step()) for _ in range(3)]}
if torch:
  adam = torch.optim.Adam(twin.parameters(), 2e-4, betas=(.5, .999))
  pair = to_torch(source), to_torch(target)

  def torch_step():
    loss = (twin(pair[0]) - pair[1]).abs().mean()
    adam.zero_grad()
    loss.backward()
    adam.step()
    if device == 'cuda':
      torch.cuda.synchronize()
    return loss.detach()

  losses['PyTorch'] = [float(torch_step()) for _ in range(3)]
  np.testing.assert_allclose(losses['JAX'], losses['PyTorch'], rtol=1e-2)
for name, values in losses.items():
  print(f'{name:8}', *(f'{value:.6f}' for value in values))

# %% [markdown]
# ## How long do they take?
#
# First calls compile and are not counted. A bar is the median; the line ends at the 95th
# percentile. PyTorch runs as written, without `torch.compile`.

# %%
one = jax.device_put(photographs[:1])
placed = jax.device_put(variables)
calls = {'generate one image': {'JAX': lambda: generate(placed, one)},
         f'training step, batch {BATCH}': {'JAX': jax_step}}
if torch:
  first = to_torch(photographs[:1])

  def torch_generate():
    with torch.inference_mode():
      images = twin(first)
    if device == 'cuda':
      torch.cuda.synchronize()
    return images

  calls['generate one image']['PyTorch'] = torch_generate
  calls[f'training step, batch {BATCH}']['PyTorch'] = torch_step

figure, axes = plt.subplots(1, 2, figsize=(9, 2))
for axis, (what, sides) in zip(axes, calls.items(), strict=True):
  timings = jgc.latency(sides, rounds=ROUNDS)
  middle = np.array([1e3 * timing.median for timing in timings.values()])
  late = np.array([1e3 * timing.p95 for timing in timings.values()])
  axis.barh(list(timings), middle, xerr=[0 * middle, late - middle],
            color=['#2a78b8', '#c8553d'][:len(timings)])
  axis.invert_yaxis()
  axis.set_title(f'{what}, ms')
  for name, ms in zip(timings, middle, strict=True):
    print(f'{what}: {name} {ms:.1f} ms')
  if torch:
    print(f'{what}: JAX takes {middle[0] / middle[1]:.2f} times as long as PyTorch')
figure.tight_layout()
plt.show()

# %% [markdown]
# What this says holds for this machine, this network and this size. Both sides live in one process
# and share its cores. `benchmarks/jax_vs_torch.py` of the repository is the careful version: every
# network, a process for each side, `channels_last` and `torch.compile`, many rounds, quartiles.
