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
# # Write your own method
#
# A *method* says who learns what from whom. Here you write one: a loss that the library does not
# have, a network that it does not know, and a teacher, its discriminator and a student that learn
# together in one step. Nothing is registered and nothing inherited. At the end a table of gradients
# checks that every network learns from the losses that you meant, and from no other.

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
STEPS = 800          # more give better images
SIZE = 48            # pixels of an image
TEACHER_WIDTH = 48   # channels inside the teacher
STUDENT_WIDTH = 8    # and inside the student

# %%
import dataclasses

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import linen

import jaxgan_compress as jgc
from jaxgan_compress import core, nn
from jaxgan_compress.analysis import gallery
from jaxgan_compress.core import Axes, Roles, stop_gradient
from jaxgan_compress.losses import gan
from jaxgan_compress.losses.image import l1

# %% [markdown]
# ## The task
#
# Colours for grey images. A batch is a dictionary of arrays [batch, height, width, channels], 0
# to 255; a method gets the same between -1 and 1.

# %%
data = jgc.data.Pipeline(jgc.data.samples('colorize', size=SIZE), batch=8)
batch = core.normalise(data[0])
test = jgc.data.samples('colorize', 'test', size=SIZE, count=8)
pairs = {side: np.stack([pair[side] for pair in test]) / np.float32(127.5) - 1
         for side in ('source', 'target')}
gallery({'source': pairs['source'], 'target': pairs['target']}, pixels=96)

# %% [markdown]
# ## A loss: arrays in, a number out
#
# Small networks blur. This loss compares not pixels but the steps from each pixel to its
# neighbours, so that an edge in the wrong place, or none, costs something.

# %%
def edges(image, target):
  """Mean absolute difference between the steps to the right and down of two images [B,H,W,C]."""
  return sum(l1(jnp.diff(image, axis=axis), jnp.diff(target, axis=axis)) for axis in (1, 2))


steps = np.abs(np.diff(pairs['target'], axis=2))
gallery({'an image': pairs['target'], 'its steps to the right': steps * 2 - 1}, pixels=96)

# %% [markdown]
# ## A network: any Flax module that returns an image and its taps
#
# *Taps* are activations on the way that losses may compare, by name; `{}` will do. `train` and
# `axes` are for layers that behave otherwise in training or speak with other devices. This one
# works at half the resolution and folds every four channels of its result back into two by two
# pixels. A wide one is the teacher, a narrow one the student; any other pair would do, such as
# `nn.resnet(32)` for the teacher.

# %%
class Folded(linen.Module):
  width: int

  @linen.compact
  def __call__(self, x, train=False, axes=None):
    first = linen.relu(linen.Conv(self.width, (5, 5), strides=2)(x))
    y = linen.relu(linen.Conv(self.width, (3, 3))(first))
    y = linen.relu(linen.Conv(self.width, (3, 3), kernel_dilation=2)(y))
    y = linen.Conv(12, (3, 3))(jnp.concatenate([y, first], -1))
    B, h, w, _ = y.shape
    y = y.reshape(B, h, w, 2, 2, 3).transpose(0, 1, 3, 2, 4, 5).reshape(B, 2 * h, 2 * w, 3)
    return jnp.tanh(y), {'first': first}


teacher, student = Folded(TEACHER_WIDTH), Folded(STUDENT_WIDTH)
shape = (1, SIZE, SIZE, 3)
for name, module in {'teacher': teacher, 'student': student}.items():
  print(f'{name}: {jgc.macs(module, shape) / 1e6:.1f} million multiply-accumulates an image')

# %% [markdown]
# ## The method: a frozen value with three functions
#
# * `init` makes the state, which holds arrays and nothing else: weights, optimisers, a random key.
# * `step` takes a state and a batch and returns the next state and what is to be logged. It is a
#   pure function, so JAX compiles it.
# * `generators` are the networks that make images; `roles` says which network is for what.
#
# The heart is `losses`: one number for each network. `stop_gradient` marks what a loss may not
# change: the discriminator sees the teacher's image and does not improve it, the teacher deceives
# the discriminator and does not corrupt it, the student copies the teacher and does not pull it
# down. So one gradient of the sum moves all three, each by its own loss.

# %%
@dataclasses.dataclass(frozen=True)
class Together:
  """Teacher and discriminator learn from pairs, the student from the teacher's image and edges."""
  teacher: linen.Module
  student: linen.Module
  disc: linen.Module
  tx: dict  # an optimiser for each of them
  edges_weight: float = 1.

  main, is_generator, needs_data, updates = 'student', True, True, 1  # see core.Method
  roles = Roles('student', ('student',), ('teacher',), {'student': 'teacher'}, disc=('disc',))

  @property
  def modules(self):
    return {'teacher': self.teacher, 'student': self.student, 'disc': self.disc}

  def init(self, rng, batch, init_from=None):
    keys, source, target = jax.random.split(rng, 4), batch['source'], batch['target']
    nets = {'teacher': nn.initialise(self.teacher, keys[0], source, scheme='he'),
            'student': nn.initialise(self.student, keys[1], source, scheme='he'),
            'disc': nn.initialise(self.disc, keys[2], target, source, scheme='normal')}
    return core.create(keys[3], {role: (net, self.tx[role]) for role, net in nets.items()})

  def losses(self, params, batch):
    source, target = batch['source'], batch['target']
    generate = lambda role: self.modules[role].apply({'params': params[role]}, source)[0]
    logits = lambda disc, image: self.disc.apply({'params': disc}, image, source)[0]['real']
    disc, taught, image = params['disc'], generate('teacher'), generate('student')
    fixed_disc, fixed_taught = stop_gradient((disc, taught))
    return {
        'disc': gan.hinge_d(logits(disc, target), logits(disc, fixed_taught)),
        'teacher': gan.hinge_g(logits(fixed_disc, taught)) + 100 * l1(taught, target),
        'student': l1(image, fixed_taught) + self.edges_weight * edges(image, fixed_taught)}

  def step(self, state, batch, axes=Axes()):
    def total(params):
      losses = self.losses(params, batch)
      return sum(losses.values()), losses

    grads, losses = jax.grad(total, has_aux=True)(state.params)
    state, norms = core.advance(state, grads, self.tx, axes)
    logs = {role: {'loss': loss} for role, loss in losses.items()}
    return state.tick(), {**axes.mean(logs), **norms}  # means over devices, if there are several

  def generators(self, state):
    return {role: jgc.BoundGenerator(state.nets[role].averaged, self.modules[role])
            for role in ('teacher', 'student')}


# A discriminator that learns fast wins, and is no help.
rates = {'teacher': 1e-3, 'student': 2e-3, 'disc': 1e-4}
method = Together(teacher, student, nn.PatchGAN(16, inputs=6),
                  {role: optax.adam(rate, b1=.5) for role, rate in rates.items()})
state = method.init(jax.random.key(0), batch)

# %% [markdown]
# ## Who learns from whom?
#
# Before you train: take the gradient of each loss by each network. Where it is 0, the network does
# not learn from that loss.

# %%
def teaching_graph(losses, params):
  """{loss: {network: norm of the gradient}}."""
  slopes = jgc.core.xla.jit(jax.jacrev(losses))(params)
  return {loss: {role: float(optax.global_norm(grad)) for role, grad in by_role.items()}
          for loss, by_role in slopes.items()}


def show(graph, title):
  """A table: dark where the network below learns from the loss at the left."""
  values = np.array([list(row.values()) for row in graph.values()])
  plt.figure(figsize=(4, 2.6))
  plt.imshow(values > 0, cmap='Blues', vmin=0, vmax=1.5)
  for (i, j), value in np.ndenumerate(values):
    plt.text(j, i, f'{value:.3g}' if value else '0', ha='center', va='center')
  networks = list(next(iter(graph.values())))
  plt.xticks(range(len(networks)), networks)
  plt.yticks(range(len(graph)), [f'loss of the {loss}' for loss in graph])
  plt.xlabel('moves the')
  plt.title(title)
  plt.show()


graph = teaching_graph(lambda params: method.losses(params, batch), state.params)
show(graph, 'As it should be')
assert all((slope > 0) == (loss == role) for loss, row in graph.items()
           for role, slope in row.items())

# %% [markdown]
# And if you forget one `stop_gradient`? Then the student's loss moves the teacher too, towards what
# the student can generate. Training would still run, and nothing would tell.

# %%
def careless(params):
  image = {role: method.modules[role].apply({'params': params[role]}, batch['source'])[0]
           for role in ('teacher', 'student')}
  return {**method.losses(params, batch), 'student': l1(image['student'], image['teacher'])}


show(teaching_graph(careless, state.params), 'Without one "stop_gradient"')

# %% [markdown]
# ## Train it
#
# `fit` takes your method like any other.

# %%
generate = jgc.core.xla.jit(lambda generator, source: generator(source))
images, logs = {}, []
for state, now in jgc.fit(method, state, data, steps=STEPS, every=max(1, STEPS // 20)):
  logs.append(jax.tree.map(float, now))
  if len(logs) in (1, 4) or now['step'] == STEPS:
    for role, generator in method.generators(state).items():
      images[f'{role}, step {now["step"]}'] = np.asarray(generate(generator, pairs['source']))
gallery({'source': pairs['source'], **images, 'target': pairs['target']},
        'They learn at the same time', pixels=96)

# %%
plt.figure(figsize=(7, 2.6))
for role, times in (('disc', 1), ('teacher', .01), ('student', 1)):
  plt.plot([now['step'] for now in logs], [times * now[role]['loss'] for now in logs],
           label=f'{role}' + (f' x {times}' if times != 1 else ''))
plt.xlabel('step')
plt.ylabel('loss')
plt.legend()
plt.show()

# %%
one = jnp.asarray(pairs['source'][:1])
generators = method.generators(state)
for role, time in jgc.latency({role: lambda generator=generator: generate(generator, one)
                               for role, generator in generators.items()}).items():
  print(f'{role}: {jgc.count_params(generators[role].variables):,} parameters, '
        f'{1e3 * time.median:.1f} ms an image')

# %% [markdown]
# ## From here
#
# * `edges_weight=0.` in `Together(...)`: does the loss do anything? Compare with several seeds.
# * Layers with running statistics, as batch norm, keep them in `state.nets[role].collections`;
#   `jaxgan_compress/methods/omgd.py` shows how they go through a step.
# * In a file `my_lab.py` the same classes work in runs with checkpoints and reports: a config says
#   `method=dict(name='my_lab:Together', ...)`, see "Write a config" in `docs/howto.md`.
# * The teaching graph is a good test of your method: it fails when a `stop_gradient` is lost.
