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
# # Prune a network that colours photographs, and teach what is left
#
# A teacher learns to colour grey images. Then the channels that matter least are pruned until the
# rest costs a tenth, and that small network learns from the teacher. This is CAT
# ("Teachers Do More Than Teach", Jin et al. 2021) in small. The photographs come with scikit-image
# and scikit-learn; two CPU cores take a few minutes.

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
STEPS = 300  # of the teacher, and of each student
SIZE = 48    # pixels of an image
WIDTH = 16   # the teacher's narrowest layer; the paper's has 64
BLOCKS = 4   # of branches, see below; the paper's has 9
TESTED = 64  # images of the test
SHARE = 0.1  # of the teacher's multiply-accumulates that the student may take

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from PIL import Image

import jaxgan_compress as jgc
from jaxgan_compress import methods, nn, pruning
from jaxgan_compress.analysis import gallery

# %% [markdown]
# ## The task
#
# Pairs of a grey image, the *source*, and the same in colour, the *target*. Training sees the
# left three quarters of each photograph, the test a part of the right quarter.

# %%
data = jgc.data.Pipeline(jgc.data.samples('colorize', size=SIZE), batch=8)
test = jgc.data.samples('colorize', 'test', size=SIZE, count=TESTED)
pairs = {side: np.stack([pair[side] for pair in test]) / np.float32(127.5) - 1
         for side in ('source', 'target')}


def compare(title, outputs):
  """The same images of the test: source, output of each generator, target."""
  rows = {'source': pairs['source'], **outputs, 'target': pairs['target']}
  return gallery({name: images[:8] for name, images in rows.items()}, title, pixels=96)


compare('Images of the test', {})

# %% [markdown]
# ## The teacher
#
# CAT's generator is made of *inception blocks*: each has up to six branches side by side, with
# filters of 1, 3 and 5 pixels. It is meant to be pruned. A discriminator, `PatchGAN`, sees the
# grey image and a coloured one, and says whether the colours are real.

# %%
teacher = nn.inception(WIDTH, blocks=BLOCKS, norm='batch')
shape = (1, SIZE, SIZE, 3)


def rate(value):
  """Adam, whose rate stays for half of the steps and then falls in a line."""
  falling = optax.linear_schedule(value, 0., STEPS // 2, STEPS // 2)
  return optax.adam(falling, b1=0.5)


def adversary():
  return methods.Adversary(nn.PatchGAN(24, inputs=6, norm='batch'), rate(2e-4), loss='hinge')


# jax.jit, at its quickest on CPUs
generate = jgc.core.xla.jit(lambda generator, source: generator(source))


def train(method, state):
  """The last state, and what was logged on the way."""
  logs = []
  for state, now in jgc.fit(method, state, data, steps=STEPS, every=max(1, STEPS // 25)):
    logs.append(jax.tree.map(float, now))
  return state, logs


pix2pix = methods.Pix2Pix(teacher, adversary(), rate(1e-3), ema=.98)
batch = jgc.core.normalise(data[0])
teacher_state, _ = train(pix2pix, pix2pix.init(jax.random.key(0), batch))
generators = {'the teacher': pix2pix.generators(teacher_state)['generator']}
outputs = {'the teacher': generate(generators['the teacher'], pairs['source'])}
compare(f'The teacher after {STEPS} steps', outputs)

# %% [markdown]
# ## Prune it
#
# Each channel passes a norm that multiplies it by a number it has learned, its *scale*. A channel
# with a small scale says little, so one threshold for the whole network decides who stays. It is
# the lowest threshold that meets the budget, which is in multiply-accumulates (MACs), the work that
# one image takes. Whole branches may vanish, and whole blocks.
#
# All scales begin near 1. In a few hundred steps they do not get far, so the order is still partly
# luck here; the paper's teachers learn for hundreds of epochs.

# %%
whole = jgc.macs(teacher, shape)
variables = generators['the teacher'].variables
pruned = pruning.prune(teacher, variables, shape, budget=SHARE * whole, min_channels=4)
print(f'scales up to {pruned.threshold:.3f} went: {pruned.before / 1e6:.1f} million MACs before, '
      f'{pruned.cost / 1e6:.1f} after, {pruned.cost / pruned.before:.0%}')
Image.fromarray(pruning.plot_masks(pruned.masks))

# %% [markdown]
# Dark channels stay. `stem` are the layers before the blocks, `up` those after; `dense3` is a
# branch with filters of 3 pixels. By layers:

# %%
def costs(module):
  """{part of the network: million MACs}."""
  found = {}
  for layer in jgc.analysis.layers(module, shape):
    if macs := layer.macs['exact']:
      part = layer.path.split('/')[0]
      found[part] = found.get(part, 0) + macs / 1e6
  return found


before, after = costs(teacher), costs(pruned.module)
plt.figure(figsize=(7, 2.8))
plt.bar(np.arange(len(before)) - .2, before.values(), .4, label='teacher', color='#2a78b8')
plt.bar(np.arange(len(before)) + .2, [after.get(part, 0) for part in before], .4,
        label='what is left', color='#c8553d')
plt.xticks(range(len(before)), before, rotation=45)
plt.ylabel('million MACs')
plt.legend()
plt.show()

# %% [markdown]
# Most of the network is gone, and so is what it could do: the channels that stayed counted on those
# that went.

# %%
generators['what is left, untaught'] = jgc.BoundGenerator(pruned.variables, pruned.module)
outputs['what is left, untaught'] = generate(generators['what is left, untaught'], pairs['source'])
compare('Right after pruning', outputs)

# %% [markdown]
# ## Teach it
#
# `CAT` has the student generate the target, deceive the discriminator that the teacher had, and
# see a batch as the teacher does: of eight images, which are alike to it? *Kernel alignment*
# compares these two tables of likeness at a few places inside both networks. It is 1 where they
# agree, and the two need not have equally many channels. `cka_debiased` is about 0 for networks
# that have nothing in common.

# %%
cat = methods.CAT(pruned.module, teacher, adversary(), rate(3e-3), similarity='cka_debiased',
                  ema=.98, taps=('stem', f'block{BLOCKS // 2}', f'block{BLOCKS}'))
init_from = {'teacher': teacher_state.nets['generator'], 'disc': teacher_state.nets['disc'],
             'student': jgc.Net.of(pruned.variables)}
cat_state, logs = train(cat, cat.init(jax.random.key(1), batch, init_from))
generators['what is left, taught'] = cat.generators(cat_state)['student']
outputs['what is left, taught'] = generate(generators['what is left, taught'], pairs['source'])

plt.figure(figsize=(7, 2.6))
for tap in cat.taps:
  plt.plot([now['step'] for now in logs], [-now['student'][f'tap_{tap}'] for now in logs],
           label=tap)
plt.xlabel('step')
plt.ylabel('alignment with the teacher')
plt.ylim(0, 1.05)
plt.legend()
plt.show()

# %%
compare(f'Taught for {STEPS} steps', outputs)

# %% [markdown]
# ## Is it the teaching?
#
# The same small network, from fresh weights and with a fresh discriminator, learns alone for as
# many steps.

# %%
fresh = pruning.prune(teacher, variables, shape, budget=SHARE * whole, min_channels=4,
                      student_init='reinit', key=jax.random.key(2))
alone = methods.Pix2Pix(fresh.module, adversary(), rate(3e-3), ema=.98)
alone_state, _ = train(alone, alone.init(jax.random.key(3), batch,
                                         {'generator': jgc.Net.of(fresh.variables)}))
generators['the same network, alone'] = alone.generators(alone_state)['generator']
outputs['the same network, alone'] = generate(generators['the same network, alone'],
                                              pairs['source'])
compare('All of them', outputs)

# %%
one = jnp.asarray(pairs['source'][:1])
timings = jgc.latency({name: lambda generator=generator: generate(generator, one)
                       for name, generator in generators.items()}, rounds=20)
print(f'{"":24} parameters  million MACs   ms  mean difference to the target')
for name, generator in generators.items():
  off = float(jgc.losses.image.l1(outputs[name], pairs['target']))
  parameters, macs = jgc.count_params(generator.variables), jgc.macs(generator.module, shape)
  print(f'{name:24} {parameters:10,} {macs / 1e6:13.1f} {1e3 * timings[name].median:4.1f} '
        f'{off:30.3f}')
off = float(jgc.losses.image.l1(pairs['source'], pairs['target']))
print(f'{"the grey image itself":24} {off:60.3f}')

# %% [markdown]
# Read this with care. It is one run of a few minutes on parts of seven photographs, and colours
# that look right are not necessarily those of the photograph. The student learned after its
# teacher, from weights that had already learned, so it may well come out ahead. Whether teaching
# helps is a question for several seeds, more steps and better measures: `docs/results.md` of the
# repository has them, also where it did not help.
#
# ## From here
#
# * Other budgets: `SHARE = 0.3` or `0.05`; or in milliseconds, `pruning.prune_to_latency`.
# * Your own images: `jgc.data.paired('folder')` in place of `samples`.
# * With checkpoints and a report: `jgc.run(jgc.config.load('cat/colorize'), 'runs/cat')`.
# * `nn.save('student.safetensors', pruned.module, generators['what is left, taught'].variables)`
#   keeps the student in one file.
