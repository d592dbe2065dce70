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
# # A GAN, and a student ten times smaller
#
# A *generator* makes images from random numbers. Good ones are large, phones are small. Here a
# large generator learns to generate handwritten digits, and then teaches a small one to generate
# the same digits from the same random numbers. That is knowledge distillation of GANs, after
# Aguinaldo et al. 2019. The digits are real, no data set is downloaded, and two CPU cores take a
# few minutes.

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
STEPS = 1200        # of each network; more give better images
TEACHER_WIDTH = 16  # channels of the teacher's last layer; its other layers have 2 and 4 times more
STUDENT_WIDTH = 2   # the same of the student

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

import jaxgan_compress as jgc
from jaxgan_compress import methods, nn
from jaxgan_compress.analysis import gallery

# %% [markdown]
# ## The data
#
# 1797 scans of digits that people wrote, which come with scikit-learn. A `Pipeline` deals them out
# in batches: `data[7]` is the batch of step 7, always the same one.

# %%
data = jgc.data.Pipeline(jgc.data.digits(), batch=64)
gallery({'what people wrote': data[0]['target'][:12]})

# %% [markdown]
# ## The teacher
#
# Two networks learn against each other. The generator makes a digit of 100 random numbers, the
# discriminator tells real digits from made ones, and each gets better because the other does.
# `fit` trains; every so often it yields the state and the logs of that step, a dictionary of terms
# for each network. The random numbers below stay the same, so each row shows the same digits.

# %%
teacher = nn.DCGANGenerator(d=TEACHER_WIDTH, size=32)
discriminator = nn.DCGANDiscriminator(d=TEACHER_WIDTH, size=32)
adam = lambda rate: optax.adam(rate, b1=0.5)

latents = jax.random.normal(jax.random.key(2), (12, teacher.latent))
generate = jax.jit(lambda generator, latents: generator(latents))


def train(method, role, state, data):
  """The state after STEPS steps, images of `role` on the way, and everything that was logged."""
  images, logs = {}, []
  for state, now in jgc.fit(method, state, data, steps=STEPS, every=max(1, STEPS // 30)):
    logs.append(jax.tree.map(float, now))
    if len(logs) in (1, 4, 12) or now['step'] == STEPS:
      images[f'{role}, step {now["step"]}'] = np.asarray(
          generate(method.generators(state)[role], latents))
  return state, images, logs


gan = methods.GAN(teacher, methods.Adversary(discriminator, adam(1e-3)), adam(1e-3))
teacher_state, images, logs = train(gan, 'generator', gan.init(jax.random.key(0), data[0]), data)
gallery(images, 'The teacher learns from real digits')

# %% [markdown]
# The two losses of a GAN need not fall: each network makes the other's task harder. What matters is
# that neither wins. A discriminator whose loss goes to 0 is never in doubt, and a generator learns
# nothing from it.

# %%
def curves(logs, **labels):
  """The loss of each network by step."""
  plt.figure(figsize=(7, 2.6))
  for network, label in labels.items():
    plt.plot([now['step'] for now in logs], [now[network]['loss'] for now in logs], label=label)
  plt.xlabel('step')
  plt.legend()
  plt.show()


curves(logs, generator="the generator's loss", disc="the discriminator's loss")

# %% [markdown]
# ## The student
#
# It sees no real digit and no discriminator. It gets the random numbers that the teacher gets, and
# learns to generate the teacher's images, pixel by pixel. So it needs no data: the pipeline is
# replaced by one that only says how many digits a step has.

# %%
student = nn.DCGANGenerator(d=STUDENT_WIDTH, size=32)
kd = methods.KD(student=student, teacher=teacher, tx=adam(optax.cosine_decay_schedule(2e-2, STEPS)))
state = kd.init(jax.random.key(1), {}, init_from={'teacher': teacher_state.nets['generator']})
student_state, images, logs = train(kd, 'student', state, jgc.data.sizes_only(64))
gallery({**images, 'the teacher, from the same random numbers': generate(
    kd.generators(student_state)['teacher'], latents)}, 'The student learns from its teacher')

# %% [markdown]
# This loss does fall: the student's task stays as it is.

# %%
curves(logs, student='squared difference to the teacher, summed over pixels')

# %% [markdown]
# ## Could we not have trained the small one at once?
#
# The same small generator, with the same discriminator, on real digits, without a teacher.

# %%
alone = methods.GAN(student, methods.Adversary(discriminator, adam(1e-3)), adam(1e-3))
alone_state, _, _ = train(alone, 'generator', alone.init(jax.random.key(3), data[0]), data)
generators = {
    f'teacher, width {TEACHER_WIDTH}': gan.generators(teacher_state)['generator'],
    f'student, width {STUDENT_WIDTH}, taught': kd.generators(student_state)['student'],
    f'the same network, width {STUDENT_WIDTH}, alone': alone.generators(alone_state)['generator']}
gallery({name: generate(generator, latents) for name, generator in generators.items()},
        'Which are better? The third did not learn from the teacher, so its digits are others')

# %% [markdown]
# One run proves little; with three seeds, and measured, it comes out in the same way
# (`docs/results.md` of the repository).
#
# ## What was saved
#
# Parameters are what has to be stored. Multiply-accumulates (MACs) are the work that one image
# takes. Milliseconds depend on the device: networks as small as these are done before a computer
# has noticed, and a tenth of the work is not a tenth of the time.

# %%
image = jax.random.normal(jax.random.key(4), (1, teacher.latent))
run = jgc.core.xla.jit(lambda generator, latents: generator(latents))
timings = jgc.latency({name: lambda generator=generator: run(generator, image)
                       for name, generator in generators.items()}, rounds=50)
costs = {name: (jgc.count_params(generator.variables), jgc.macs(generator.module),
                1e3 * timings[name].median) for name, generator in list(generators.items())[:2]}
for name, (parameters, macs, milliseconds) in costs.items():
  print(f'{name:28} {parameters:8,} parameters {macs:10,} MACs {milliseconds:6.2f} ms an image')

figure, axes = plt.subplots(1, 3, figsize=(9, 2.2))
for axis, what, values in zip(axes, ('parameters', 'MACs', 'ms'), zip(*costs.values(), strict=True),
                              strict=True):
  bars = axis.barh(['teacher', 'student'], values, color=['#2a78b8', '#c8553d'])
  axis.set_title(f'{what}: 1/{values[0] / values[1]:.1f}')
  axis.invert_yaxis()
figure.tight_layout()
plt.show()

# %% [markdown]
# ## Keep it
#
# One file holds weights and architecture; `nn.load` needs nothing else.

# %%
small = kd.generators(student_state)['student']
nn.save('student.safetensors', small.module, small.variables, overwrite=True)
module, variables = nn.load('student.safetensors')
image, _ = module.apply(variables, latents)
print('loaded again, largest difference', float(abs(image - generate(small, latents)).max()))

# %% [markdown]
# ## From here
#
# * Set `STUDENT_WIDTH = 1` or `4`, or `STEPS = 5000`, and run all again.
# * `prune_and_distil`: a network that translates images, pruned to a budget.
# * `write_your_own_method`: your own loss, your own student.
# * `jgc.export.write_folder` makes ONNX and StableHLO of `small`, for phones and browsers.
