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
# # Prune a network of your own
#
# A U-Net with attention gates, written as anybody would write it in Flax, learns to colour grey
# photographs. Then its channels are found in its program, proved to be removable, and pruned to a
# quarter of its multiply-accumulates; what is left learns from the whole. The network imports
# nothing of this library.

# %%
# Installs the library where it is missing, on Colab; elsewhere this cell does nothing.
import shutil
import subprocess
import sys

extras = 'samples,cuda12' if shutil.which('nvidia-smi') else 'samples'
PACKAGE = f'jaxgan-compress[{extras}]'  # whatever pip understands: a name, a path, a repository
if 'google.colab' in sys.modules:
  subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', PACKAGE], check=True)

# %% tags=["parameters"]
STEPS = 300  # of the teacher, and of the student
SIZE = 48    # pixels of an image
WIDTH = 8    # of the network's first layer
TESTED = 64  # images of the test
SHARE = 0.25  # of the teacher's multiply-accumulates that the student may take

# %%
import flax.linen as linen
import jax
import jax.numpy as jnp
import optax
from PIL import Image

import jaxgan_compress as jgc
from jaxgan_compress import analysis, methods, nn, pruning
from jaxgan_compress.analysis import gallery

# %% [markdown]
# ## The network

# %%
class Block(linen.Module):
  width: int

  @linen.compact
  def __call__(self, x, train):
    x = linen.Conv(self.width, (3, 3), use_bias=False)(x)
    return linen.relu(linen.BatchNorm(use_running_average=not train)(x))


class Gate(linen.Module):
  """A skip connection, weighted pixel by pixel by what comes from below."""
  width: int

  @linen.compact
  def __call__(self, skip, below):
    both = linen.Conv(self.width, (1, 1))(skip) + linen.Conv(self.width, (1, 1))(below)
    return skip * linen.sigmoid(linen.Conv(1, (1, 1))(linen.relu(both)))


class Generator(linen.Module):
  width: int
  depth: int = 3

  @linen.compact
  def __call__(self, x, train=False):
    widths = [self.width * 2 ** i for i in range(self.depth)]
    skips = []
    for i, width in enumerate(widths):
      x = Block(width, name=f'down{i}')(x, train)
      skips.append(x)
      x = linen.max_pool(x, (2, 2), (2, 2))
    x = Block(2 * widths[-1], name='middle')(x, train)
    for i, width in reversed(list(enumerate(widths))):
      x = Block(width, name=f'rise{i}')(x.repeat(2, 1).repeat(2, 2), train)
      x = jnp.concatenate([x, Gate(width // 2, name=f'gate{i}')(skips[i], x)], -1)
      x = Block(width, name=f'up{i}')(x, train)
    return linen.tanh(linen.Conv(3, (1, 1), name='to_image')(x))


# %% [markdown]
# `nn.Wrapped` makes a generator of the library of it: methods train it, and outputs of its layers
# are compared with a teacher's. The first look at its plan traces the network and proves on random
# weights that the groups of channels may be removed.

# %%
teacher = nn.Wrapped(Generator(WIDTH))
print(teacher.plan())
print('layers that are compared:', ', '.join(teacher.tap_names))

# %% [markdown]
# ## The whole network learns
#
# As in pix2pix: the grey image is the *source*, the same in colour the *target*.

# %%
pairs = jgc.data.Pipeline(jgc.data.samples('colorize', size=SIZE), batch=8)
test = jgc.data.samples('colorize', 'test', size=SIZE, count=TESTED)
batch = jgc.core.normalise(jgc.data.stack(test, range(len(test))))
gallery({'grey': batch['source'][:8], 'in colour': batch['target'][:8]}, 'Test parts')

# %%
adam = lambda rate: optax.adam(rate, b1=0.5)
adversary = methods.Adversary(nn.PatchGAN(16, inputs=6, norm='batch'), adam(2e-4), 'hinge')
pix2pix = methods.Pix2Pix(teacher, adversary, adam(1e-3))


def learn(method, init_from=None):
  state = method.init(jax.random.key(0), pairs[0], init_from=init_from)
  for state, logs in jgc.fit(method, state, pairs, steps=STEPS, every=max(1, STEPS // 3)):
    print(logs['step'], {name: round(float(x), 3) for name, x in logs[method.main].items()})
  return state


trained = learn(pix2pix)

# %% [markdown]
# ## Prune it
#
# One threshold over the scales of its norms leaves what the budget pays for. The cost of any widths
# is exact, from one trace.

# %%
shape = 1, SIZE, SIZE, 3
whole = analysis.macs(teacher, shape)
found = pruning.prune(teacher, jax.device_get(trained.nets['generator'].variables), shape,
                      budget=SHARE * whole)
student = found.module
print(f'{whole:,} MACs to {found.cost:,}:', pruning.widths(found.masks))
print('counted again in the small network:', analysis.macs(student, shape))
Image.fromarray(pruning.plot_masks(found.masks, 'channels that stay (dark), in their order'))

# %% [markdown]
# ## What is left learns from the whole

# %%
teach = methods.Offline(student, teacher, adam(2e-3),
                        distill=methods.DistillLoss(methods.Pixel(100.), methods.SSIM(10.)))
taught = learn(teach, {'teacher': trained.nets['generator'],
                       'student': jgc.core.Net.of(found.variables)})

# %%
generators = {'the whole network': pix2pix.generators(trained)['generator'],
              f'{SHARE:.0%} of it, taught': teach.generators(taught)['student']}
rows = {'grey': batch['source'][:8]}
for name, generator in generators.items():
  images = generator(jnp.asarray(batch['source']))
  rows[name] = images[:8]
  off = float(jgc.losses.image.l1(images, batch['target']))
  print(f'{name:24} {jgc.macs(generator.module, shape) / 1e6:8.1f} million MACs, '
        f'{off:.3f} from the target on average')
rows['in colour'] = batch['target'][:8]
gallery(rows, 'Colour for grey photographs, test parts')

# %% [markdown]
# ## From here
#
# * Your own network in place of `Generator`: any module of linen; `print(nn.Wrapped(...).plan())`
#   says what can be pruned and what cannot, and why.
# * Networks of nnx, and functions: `pruning.prune_traced(network, variables, (x,), budget=...)`.
# * With checkpoints, a report and exports: `docs/any_network.md` of the repository.
