"""The baseline: published training steps as a good newcomer to Flax would write them.

    python benchmarks/plain_flax.py [--only cat/maps] [--run]

Layers are those of `flax.linen`, losses and steps are written here in the plainest way; nothing of
this library's networks, layers, losses or methods is used, so none of its forms can help. Each of
`STEPS` is a builder: `(step, args) = STEPS[name](batch=, dtype=)`, with `step(state, batch) ->
(state, logs)` a pure function and `args` its arguments' shapes, or with `abstract=False` arrays.
`size` is the side of the images in pixels (the height of label maps), `width` a factor of all
channels, for small tries.

Each step has the networks, norms, paddings, losses, passes and optimisers of the library's method
at the published size. What it leaves out, and so need not compute: rates that fall (they are
constant), moments of running statistics of a discriminator between the passes of one step, logs
other than losses and norms of gradients (as the library's cosines of taps). Gram matrices are
products at the default precision, the library's at the highest.

Printed is a table of multiply-accumulates (G) of one step for each image, here and in the library.
`traced` counts the program as written, `distinct` without results that nothing uses and without
what stands there twice, as a compiler leaves it. `distinct` agrees within 1 %: SSIM is here windows
of 11 x 11, there matrices, and the library counts its norms of gradients as products. `traced`
differs by a fifth for OMGD's U-Nets alone, where the library writes the passes of its discriminator
once more, for the order in which they move its statistics.
"""

import argparse
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.extend.core import Literal
from jax.interpreters import partial_eval

INIT = nn.initializers.normal(0.02)
ADAM = optax.adam(2e-4, b1=0.5, b2=0.999)
TAPS = ('stem', 'block3', 'block6', 'block9')
leaky = functools.partial(nn.leaky_relu, negative_slope=0.2)


def conv(features, kernel=3, stride=1, padding=None, groups=1, bias=True, dtype=jnp.float32):
  """A convolution padded by kernel // 2 zeros unless told otherwise."""
  padding = kernel // 2 if padding is None else padding
  return nn.Conv(features, (kernel, kernel), stride, padding, feature_group_count=groups,
                 use_bias=bias, dtype=dtype, kernel_init=INIT)


def up(features, kernel=4, bias=True, dtype=jnp.float32):
  """A transposed convolution that doubles the image."""
  return nn.ConvTranspose(features, (kernel, kernel), (2, 2), use_bias=bias, dtype=dtype,
                          kernel_init=INIT)


def reflect(x, n):
  return jnp.pad(x, ((0, 0), (n, n), (n, n), (0, 0)), mode='reflect')


def tanh(x):
  return jnp.tanh(x.astype(jnp.float32))


class Norm(nn.Module):
  """'batch', 'batch_fixed' (no scale and bias), 'layer', 'instance' or 'instance_affine'."""
  kind: str
  dtype: Any

  @nn.compact
  def __call__(self, x, train=True):
    if self.kind.startswith('batch'):
      affine = self.kind == 'batch'
      return nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, dtype=self.dtype,
                          use_scale=affine, use_bias=affine)(x)
    if self.kind == 'layer':
      return nn.LayerNorm(1e-5, self.dtype, reduction_axes=(1, 2, 3), feature_axes=-1)(x)
    y = x.astype(jnp.float32)
    mean, var = jnp.mean(y, (1, 2), keepdims=True), jnp.var(y, (1, 2), keepdims=True)
    y = (y - mean) * jax.lax.rsqrt(var + 1e-5)
    if self.kind == 'instance_affine':
      y = y * self.param('scale', nn.initializers.ones, y.shape[-1:]) + self.param(
          'bias', nn.initializers.zeros, y.shape[-1:])
    return y.astype(self.dtype)


class Expand(nn.Module):
  """OMGD's expansion block: x + 1x1 to four times the channels, 3x3, 1x1 back, 3x3."""
  norm: str
  dtype: Any

  @nn.compact
  def __call__(self, x, train=True):
    c = x.shape[-1]
    layer = functools.partial(conv, padding=0, bias=self.norm != 'batch', dtype=self.dtype)
    normed = lambda y: Norm(self.norm, self.dtype)(y, train)
    y = nn.relu(normed(layer(4 * c, 1)(reflect(x, 1))))
    y = nn.relu(normed(layer(4 * c, 3)(y)))
    y = nn.relu(normed(layer(c, 1)(y)))
    return x + normed(layer(c, 3)(reflect(y, 1)))


class UNet(nn.Module):
  """The U-Net of pix2pix with batch norm, or OMGD's deeper one."""
  ngf: int
  depth: int
  deeper: bool
  dtype: Any

  @nn.compact
  def __call__(self, x, train=True):
    taps, widths = {}, [min(2 ** i, 8) * self.ngf for i in range(self.depth)]
    normed = lambda y: Norm('batch', self.dtype)(y, train)

    def deepen(y):
      for _ in range(2 if self.deeper else 0):
        y = Expand('batch', self.dtype)(y, train)
      return y

    def level(i, x):
      innermost = i == self.depth - 1
      if i:
        x = taps[f'down{i}'] = leaky(x)
      y = conv(widths[i], 4, 2, 1, bias=False, dtype=self.dtype)(x)
      if not innermost:
        y = level(i + 1, deepen(normed(y) if i else y))
      if not i:
        return up(3, dtype=self.dtype)(nn.relu(deepen(y)))
      y = taps[f'up{i}'] = nn.relu(y)
      y = normed(up(widths[i - 1], bias=False, dtype=self.dtype)(y))
      return jnp.concatenate([x, y if innermost else deepen(y)], -1)

    return tanh(level(0, x)), taps


class ResNet(nn.Module):
  """The separable ResNet of nine blocks with instance norm, or OMGD's deeper one."""
  ngf: int
  deeper: bool
  dtype: Any

  @nn.compact
  def __call__(self, x, train=True):
    layer, double = (functools.partial(f, dtype=self.dtype) for f in (conv, up))
    norm = Norm('instance', self.dtype)
    expand = lambda x: Expand('instance', self.dtype)(x)
    deepen = lambda x: nn.relu(norm(layer(x.shape[-1])(expand(x)))) if self.deeper else x

    def separable(x):
      c = x.shape[-1]
      return norm(layer(c, 1)(norm(layer(c, 3, padding=0, groups=c)(reflect(x, 1)))))

    x = nn.relu(norm(layer(self.ngf, 7, padding=0)(reflect(x, 3))))
    for n in (2, 4):
      x = deepen(nn.relu(norm(layer(n * self.ngf, stride=2)(x))))
    taps = {'stem': x}
    for i in range(1, 10):
      if self.deeper and i == 5:
        x = expand(expand(x))
      x = taps[f'block{i}'] = x + separable(nn.relu(separable(x)))
    for n in (2, 1):
      x = deepen(nn.relu(norm(double(n * self.ngf, 3)(x))))
    return tanh(layer(3, 7, padding=0)(reflect(x, 3))), taps


class Branches(nn.Module):
  """CAT's inception block: dense and depthwise branches of kernels 1, 3, 5, summed."""
  widths: tuple  # of the three dense ones, then of the three depthwise ones
  features: int
  norm: str
  norm2: str
  dtype: Any
  reflects: bool = False
  slope: float = 0.

  @nn.compact
  def __call__(self, x, train=True):
    def layer(y, features, k, groups=1):
      y = reflect(y, k // 2) if self.reflects and k > 1 else y
      bias = self.norm != 'batch' or not self.reflects
      return conv(features, k, 1, 0 if self.reflects else None, groups, bias, self.dtype)(y)

    act = lambda y, kind: nn.leaky_relu(Norm(kind, self.dtype)(y, train), self.slope)
    total = 0
    for i, width in enumerate(self.widths):
      k, depthwise = (1, 3, 5)[i % 3], i >= 3
      y = act(layer(x, width, 1 if depthwise else k), self.norm)
      if depthwise:
        y = act(layer(y, width, k, width), self.norm2)
      total += layer(y, self.features, 1 if depthwise else k)
    return total


class Inception(nn.Module):
  """CAT's generator for pix2pix and CycleGAN."""
  stem: tuple
  blocks: tuple
  up: tuple
  norm: str
  dtype: Any

  @nn.compact
  def __call__(self, x, train=True):
    bias = self.norm != 'batch'
    layer, double = (functools.partial(f, bias=bias, dtype=self.dtype) for f in (conv, up))
    norm = lambda x: Norm(self.norm, self.dtype)(x, train)
    x = nn.relu(norm(layer(self.stem[0], 7, padding=0)(reflect(x, 3))))
    for n in self.stem[1:]:
      x = nn.relu(norm(layer(n, stride=2)(x)))
    taps = {'stem': x}
    for i, widths in enumerate(self.blocks, 1):
      x = taps[f'block{i}'] = x + norm(Branches(
          widths, x.shape[-1], self.norm, self.norm, self.dtype, reflects=True)(x, train))
    for n in self.up:
      x = nn.relu(norm(double(n, 3)(x)))
    return tanh(conv(3, 7, padding=0, dtype=self.dtype)(reflect(x, 3))), taps


class InceptionSPADE(nn.Module):
  """CAT's generator for label maps: blocks (channels, main branches, modulation's branches)."""
  fc: int
  blocks: tuple
  dtype: Any

  @nn.compact
  def __call__(self, labels, train=True):
    norm = lambda x, kind='batch': Norm(kind, self.dtype)(x, train)
    x = norm(conv(self.fc, dtype=self.dtype)(labels[:, ::64, ::64]))
    taps = {}
    for i, (out, main, spade) in enumerate(self.blocks):
      x = x.repeat(2, 1).repeat(2, 2) if i else x
      step = labels.shape[1] // x.shape[1]
      gamma, beta = jnp.split(Branches(spade, 2 * x.shape[-1], 'batch', 'batch', self.dtype)(
          labels[:, ::step, ::step], train), 2, -1)
      y = nn.leaky_relu(norm(x, 'batch_fixed') * (1 + gamma) + beta, 0.01)
      y = Branches(main, out, 'batch', 'batch_fixed', self.dtype, slope=0.01)(y, train)
      if out != x.shape[-1]:
        x = conv(out, 1, bias=False, dtype=self.dtype)(norm(x))
      x = taps[('head', 'middle0', 'middle1', 'up0', 'up1', 'up2', 'up3')[i]] = x + y
    return tanh(conv(3, dtype=self.dtype)(leaky(x))), taps


class PatchGAN(nn.Module):
  """{head: logits} of patches; the first `shared` of five convolutions serve all heads."""
  ndf: int
  norm: str
  dtype: Any
  heads: tuple = ('real',)
  shared: int = 0

  @nn.compact
  def __call__(self, *images, train=True):
    def stage(k, x):
      width = 1 if k == 5 else min(2 ** (k - 1), 8) * self.ndf
      x = conv(width, 4, 2 if k < 4 else 1, 1, bias=self.norm != 'batch' or k in (1, 5),
               dtype=self.dtype)(x)
      return x.astype(jnp.float32) if k == 5 else leaky(
          Norm(self.norm, self.dtype)(x, train) if k > 1 else x)

    x = jnp.concatenate(images, -1)
    for k in range(1, self.shared + 1):
      x = stage(k, x)
    logits = {}
    for head in self.heads:
      y = x
      for k in range(self.shared + 1, 6):
        y = stage(k, y)
      logits[head] = y
    return logits


class MultiScale(nn.Module):
  """SPADE's discriminator of two scales: a list of activations for each, logits last."""
  ndf: int
  dtype: Any

  @nn.compact
  def __call__(self, image, labels, train=True):
    x, scales = jnp.concatenate([labels, image], -1), []
    layer = functools.partial(conv, kernel=4, padding=2, dtype=self.dtype)
    for scale in range(2):
      x = nn.avg_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)), False) if scale else x
      stages = [leaky(layer(self.ndf, stride=2)(x))]
      for n, stride in ((2, 2), (4, 2), (8, 1)):
        normed = nn.SpectralNorm(layer(n * self.ndf, stride=stride, bias=False))
        y = normed(stages[-1], update_stats=train)
        stages.append(leaky(Norm('instance', self.dtype)(y)))
      scales.append([*stages, layer(1)(stages[-1]).astype(jnp.float32)])
    return scales


class VGG(nn.Module):
  """Activations of a VGG by (stage, convolution): as many convolutions in each stage as given."""
  convs: tuple
  wanted: tuple
  ndf: int
  dtype: Any

  @nn.compact
  def __call__(self, x, train=False):
    taps = {}
    for stage, n in enumerate(self.convs, 1):
      x = nn.max_pool(x, (2, 2), (2, 2)) if stage > 1 else x
      for i in range(1, n + 1):
        x = nn.relu(conv(min(2 ** (stage - 1), 8) * self.ndf, dtype=self.dtype)(x))
        taps[stage, i] = x
    return {name: taps[name] for name in self.wanted}


class Adapters(nn.Module):
  """OMGD's connectors: each tap of a student with the channels of its teacher's."""

  @nn.compact
  def __call__(self, taps, teacher_taps, train=True):
    return {name: nn.relu(Norm('batch', x.dtype)(
        conv(teacher_taps[name].shape[-1], 1, bias=False, dtype=x.dtype)(x), train))
            for name, x in taps.items()}


class DCGAN(nn.Module):
  """Noise [B,100] to 64 px."""
  d: int
  dtype: Any

  @nn.compact
  def __call__(self, z, train=True):
    x = nn.Dense(16 * 8 * self.d, dtype=self.dtype, kernel_init=INIT)(z)
    x = x.reshape(-1, 4, 4, 8 * self.d)
    for n in (4, 2, 1):
      x = nn.relu(Norm('batch', self.dtype)(x, train))
      x = up(n * self.d, dtype=self.dtype)(x)
    return tanh(up(3, dtype=self.dtype)(nn.relu(Norm('batch', self.dtype)(x, train))))


class Critic(nn.Module):
  """64 px to a logit, with layer norm."""
  d: int
  dtype: Any

  @nn.compact
  def __call__(self, x, train=True):
    for i in range(4):
      x = conv(2 ** i * self.d, 4, 2, 1, dtype=self.dtype)(x)
      x = leaky(Norm('layer', self.dtype)(x) if i else x)
    return conv(1, 4, padding=0, dtype=self.dtype)(x).astype(jnp.float32)


class Net(NamedTuple):
  """A network while it trains; `opt` is () of one that does not."""
  params: Any
  stats: Any
  opt: Any = ()


def fresh(module, key, *inputs, tx=ADAM):
  variables = module.init(key, *inputs)
  params = variables['params']
  return Net(params, variables.get('batch_stats', {}), tx.init(params) if tx else ())


def apply(module, net, *inputs, params=None):
  """(output, new statistics) in training mode, with `params` instead of the network's own."""
  out, moved = module.apply({'params': net.params if params is None else params,
                             'batch_stats': net.stats}, *inputs, mutable=['batch_stats'])
  return out, moved.get('batch_stats', {})


def infer(module, net, *inputs):
  return module.apply({'params': net.params, 'batch_stats': net.stats}, *inputs, train=False)


def update(net, grads, stats=None, tx=ADAM):
  updates, opt = tx.update(grads, net.opt, net.params)
  return Net(optax.apply_updates(net.params, updates), net.stats if stats is None else stats, opt)


def norms(**grads):
  return {f'grad_norm_{role}': optax.tree.norm(grad) for role, grad in grads.items()}


def l1(x, y):
  return jnp.abs(x - y).mean()


def hinge(real, fake):
  return nn.relu(1 - real).mean() + nn.relu(1 + fake).mean()


def lsgan(real, fake):
  return jnp.square(real - 1).mean() + jnp.square(fake).mean()


def gram(x):
  x = x.reshape(len(x), -1, x.shape[-1]).astype(jnp.float32)
  return jnp.einsum('bnc,bnd->bcd', x, x) / (x.shape[1] * x.shape[2])


def total_variation(x):
  return jnp.abs(jnp.diff(x, axis=1)).sum() + jnp.abs(jnp.diff(x, axis=2)).sum()


def ssim(x, y):
  """Mean similarity in Gaussian windows of 11 x 11."""
  line = np.exp(-np.arange(-5, 6) ** 2 / (2 * 1.5 ** 2)).astype(np.float32)
  line /= line.sum()
  window = jnp.tile((line[:, None] * line)[:, :, None, None], (1, 1, 1, 3))
  blur = lambda z: jax.lax.conv_general_dilated(
      z, window, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=3)
  a, b = blur(x), blur(y)
  aa, bb, ab = blur(x * x) - a * a, blur(y * y) - b * b, blur(x * y) - a * b
  return ((2 * a * b + 1e-4) * (2 * ab + 9e-4) / (
      (a * a + b * b + 1e-4) * (aa + bb + 9e-4))).mean()


def alignment(x, y):
  """The kernel alignment of two networks' taps of the same samples. Jin et al. 2021."""
  x, y = (z.reshape(len(z), -1).astype(jnp.float32) for z in (x, y))
  k, m = x @ x.T, y @ y.T
  return (k * m).sum() / (jnp.linalg.norm(k) * jnp.linalg.norm(m))


def arguments(abstract, init, **shapes):
  """(state, batch), or their shapes."""
  def make(key):
    return init(key), {name: jax.random.uniform(key, shape, minval=-1.)
                       for name, shape in shapes.items()}

  return (jax.eval_shape if abstract else lambda f, x: jax.jit(f)(x))(make, jax.random.key(0))


def scaled(width, tree):
  """All numbers of channels times `width`, at least 1."""
  return jax.tree.map(lambda n: max(1, round(n * width)), tree)


def omgd(batch=4, dtype=jnp.float32, size=256, width=1., net='unet', abstract=True):
  """OMGD on edges2shoes: a wide and a deep teacher learn by pix2pix with a discriminator of two
  heads, a student from both by SSIM, VGG16 features, styles, total variation and, through adapters,
  the wide one's taps. All from the parameters before the step."""
  wide, deep, small, ndf, vgg_ndf = scaled(width, (64, 16, 16, 128, 64))
  if net == 'unet':
    names, norm, shared, tap_weight = ('down2', 'down4', 'up3', 'up1'), 'batch', 5, 10.
    make = lambda ngf, deeper: UNet(ngf, min(8, size.bit_length() - 1), deeper, dtype)
  else:
    names, norm, shared, tap_weight = TAPS, 'instance', 3, 100.
    make = lambda ngf, deeper: ResNet(ngf, deeper, dtype)
  teachers = {'wide': make(wide, False), 'deep': make(deep, True)}
  student, adapters = make(small, False), Adapters()
  disc = PatchGAN(ndf, norm, dtype, tuple(teachers), shared)
  vgg = VGG((2, 2, 3, 3), ((1, 2), (2, 2), (3, 3), (4, 3)), vgg_ndf, dtype)
  chosen = lambda taps: {name: taps[name] for name in names}

  def init(key):
    x = jnp.zeros((1, size, size, 3))
    nets = {role: fresh(module, key, x)
            for role, module in {**teachers, 'student': student}.items()}
    taps = [chosen(infer(module, nets[role], x)[1])
            for role, module in (('student', student), ('wide', teachers['wide']))]
    return {**nets, 'disc': fresh(disc, key, x, x), 'adapters': fresh(adapters, key, *taps),
            'vgg': fresh(vgg, key, x, tx=None)}

  def step(state, batch):
    source, target = batch['source'], batch['target']

    def teacher_loss(params):
      loss, outputs, stats = 0., {}, {}
      for role, module in teachers.items():
        outputs[role], stats[role] = apply(module, state[role], source, params=params[role])
        logits, _ = apply(disc, state['disc'], outputs[role][0], source)
        loss += -logits[role].mean() + 100. * l1(outputs[role][0], target)
      return loss, (outputs, stats)

    (t_loss, (outputs, stats)), t_grads = jax.value_and_grad(teacher_loss, has_aux=True)(
        {role: state[role].params for role in teachers})

    def disc_loss(params):
      real, moved = apply(disc, state['disc'], target, source, params=params)
      loss = 0.
      for role in teachers:
        fake, moved = apply(disc, state['disc']._replace(stats=moved), outputs[role][0], source,
                            params=params)
        loss += hinge(real[role], fake[role]) / 2
      return loss, moved

    (d_loss, d_stats), d_grads = jax.value_and_grad(disc_loss, has_aux=True)(state['disc'].params)

    def student_loss(params, adapter_params):
      (image, taps), moved = apply(student, state['student'], source, params=params)
      seen = infer(vgg, state['vgg'], (image + 1) / 2)
      loss = 2 * 1e-5 * total_variation(image)
      for teacher_image, _ in outputs.values():
        theirs = infer(vgg, state['vgg'], (teacher_image + 1) / 2)
        loss += 10. * (1 - ssim(image, teacher_image)) + 10. * l1(seen[2, 2], theirs[2, 2])
        loss += 1e4 * sum(l1(gram(seen[name]), gram(theirs[name])) for name in seen)
      wide_taps = chosen(outputs['wide'][1])
      adapted, adapter_stats = apply(adapters, state['adapters'], chosen(taps), wide_taps,
                                     params=adapter_params)
      for name, x in adapted.items():
        difference = x.mean((1, 2)) - wide_taps[name].mean((1, 2))
        loss += tap_weight * jnp.square(difference).mean()
      return loss, (moved, adapter_stats)

    (s_loss, (s_stats, a_stats)), (s_grads, a_grads) = jax.value_and_grad(
        student_loss, (0, 1), has_aux=True)(state['student'].params, state['adapters'].params)
    grads = {**t_grads, 'disc': d_grads, 'student': s_grads, 'adapters': a_grads}
    stats |= {'disc': d_stats, 'student': s_stats, 'adapters': a_stats}
    moved = {role: update(state[role], grad, stats[role]) for role, grad in grads.items()}
    return {**state, **moved}, {'teachers': t_loss, 'disc': d_loss, 'student': s_loss,
                                **norms(**grads)}

  shape = batch, size, size, 3
  return step, arguments(abstract, init, source=shape, target=shape)


TEACHER = (64, 128, 256), ((42,) * 6,) * 9, (128, 64)
# Of 4.6 G MACs, pruned from random weights as `compilation.untrained` does.
STUDENT = (27, 36, 81), (
    (16, 12, 21, 13, 16, 10), (15, 14, 14, 11, 20, 13), (11, 18, 15, 16, 17, 15),
    (8, 11, 17, 19, 13, 11), (9, 13, 13, 11, 12, 8), (10, 9, 7, 12, 11, 14),
    (18, 9, 11, 13, 17, 15), (15, 10, 15, 9, 13, 14), (16, 13, 11, 16, 10, 12)), (40, 17)


def maps(batch=None, dtype=jnp.float32, size=256, width=1., student=False, abstract=True):
  """CAT on maps: the discriminator moves first, by the image of the only forward pass, then the
  generator. A student is aligned with the taps of its finished teacher in addition."""
  batch = batch or (80 if student else 32)
  net = Inception(*scaled(width, STUDENT if student else TEACHER), 'batch', dtype)
  teacher = Inception(*scaled(width, TEACHER), 'batch', dtype)
  disc = PatchGAN(scaled(width, 128), 'batch', dtype)

  def init(key):
    x = jnp.zeros((1, size, size, 3))
    return {'generator': fresh(net, key, x), 'disc': fresh(disc, key, x, x),
            **({'teacher': fresh(teacher, key, x, tx=None)} if student else {})}

  def step(state, batch):
    source, target = batch['source'], batch['target']
    theirs = infer(teacher, state['teacher'], source)[1] if student else {}

    def generate(params):
      (image, taps), stats = apply(net, state['generator'], source, params=params)
      return (image, {name: taps[name] for name in TAPS} if student else {}), stats

    outputs, pull_back, g_stats = jax.vjp(generate, state['generator'].params, has_aux=True)

    def disc_loss(params):
      fake, moved = apply(disc, state['disc'], outputs[0], source, params=params)
      real, moved = apply(disc, state['disc']._replace(stats=moved), target, source, params=params)
      return hinge(real['real'], fake['real']) / 2, moved

    (d_loss, d_stats), d_grads = jax.value_and_grad(disc_loss, has_aux=True)(state['disc'].params)
    moved_disc = update(state['disc'], d_grads, d_stats)

    def generator_loss(outputs):
      image, taps = outputs
      logits, moved = apply(disc, moved_disc, image, source)
      loss = -logits['real'].mean() + (100. if student else 10.) * l1(image, target)
      return loss - 5.2 * sum(alignment(x, theirs[name]) for name, x in taps.items()), moved

    (g_loss, d_stats), slopes = jax.value_and_grad(generator_loss, has_aux=True)(outputs)
    g_grads, = pull_back(slopes)
    return {**state, 'disc': moved_disc._replace(stats=d_stats),
            'generator': update(state['generator'], g_grads, g_stats)}, {
                'generator': g_loss, 'disc': d_loss, **norms(generator=g_grads, disc=d_grads)}

  shape = batch, size, size, 3
  return step, arguments(abstract, init, source=shape, target=shape)


SPADE = 1024, tuple((out, (main,) * 6, (21,) * 6) for out, main in (
    (1024, 170), (1024, 170), (1024, 170), (512, 85), (256, 42), (128, 21), (64, 10)))
SPADE_STUDENT = 496, (  # of 30 G MACs, pruned likewise
    (496, (78, 87, 85, 83, 87, 98), (9, 6, 9, 10, 11, 8)),
    (496, (99, 92, 93, 84, 83, 100), (9, 15, 8, 9, 13, 11)),
    (496, (100, 88, 87, 86, 80, 92), (9, 10, 9, 8, 14, 10)),
    (248, (40, 48, 43, 42, 33, 42), (10, 9, 11, 12, 10, 11)),
    (124, (20, 24, 26, 21, 21, 27), (11, 16, 13, 15, 8, 11)),
    (62, (12, 17, 9, 13, 13, 11), (12, 15, 12, 13, 14, 15)),
    (31, (7, 6, 6, 6, 5, 7), (11, 6, 11, 10, 11, 10)))


def gaugan(batch=16, dtype=jnp.float32, size=256, width=1., student=False, abstract=True):
  """CAT on Cityscapes: the generator moves first, by hinge, features of the discriminator and of
  VGG19, then the discriminator by a fresh image; a student is aligned in addition."""
  net = InceptionSPADE(*scaled(width, SPADE_STUDENT if student else SPADE), dtype)
  teacher = InceptionSPADE(*scaled(width, SPADE), dtype)
  disc, vgg_ndf = MultiScale(scaled(width, 64), dtype), scaled(width, 64)
  vgg = VGG((2, 2, 4, 4, 1), tuple((stage, 1) for stage in range(1, 6)), vgg_ndf, dtype)
  g_tx, d_tx = (optax.adam(rate, b1=0., b2=0.9) for rate in (1e-4, 4e-4))

  def init(key):
    x, y = (jnp.zeros((1, size, 2 * size, c)) for c in (36, 3))
    return {'generator': fresh(net, key, x, tx=g_tx), 'disc': fresh(disc, key, y, x, tx=d_tx),
            'vgg': fresh(vgg, key, y, tx=None),
            **({'teacher': fresh(teacher, key, x, tx=None)} if student else {})}

  def step(state, batch):
    source, target = batch['source'], batch['target']
    theirs = infer(teacher, state['teacher'], source)[1] if student else {}

    def discriminate(net, image, params=None):
      scales, moved = apply(disc, net, jnp.concatenate([image, target]),
                            jnp.concatenate([source, source]), params=params)
      return [[jnp.split(x, 2) for x in stages] for stages in scales], moved

    def generator_loss(params):
      (image, taps), stats = apply(net, state['generator'], source, params=params)
      scales, moved = discriminate(state['disc'], image)
      loss = sum(-stages[-1][0].mean() for stages in scales) / 2
      loss += 10. * sum(l1(fake, jax.lax.stop_gradient(real))
                        for stages in scales for fake, real in stages[:-1]) / 2
      seen, real = infer(vgg, state['vgg'], image), infer(vgg, state['vgg'], target)
      loss += 10. * sum(l1(seen[stage, 1], real[stage, 1]) * weight for stage, weight in enumerate(
          (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.), 1))
      for name in ('head', 'middle1', 'up1') if student else ():
        loss -= 0.5 * alignment(taps[name], theirs[name])
      return loss, (stats, moved)

    (g_loss, (g_stats, d_stats)), g_grads = jax.value_and_grad(generator_loss, has_aux=True)(
        state['generator'].params)
    generator = update(state['generator'], g_grads, g_stats, g_tx)
    (image, _), g_stats = apply(net, generator, source)

    def disc_loss(params):
      scales, moved = discriminate(state['disc']._replace(stats=d_stats), image, params)
      return sum(hinge(real, fake) for *_, (fake, real) in scales) / 2, moved

    (d_loss, d_stats), d_grads = jax.value_and_grad(disc_loss, has_aux=True)(state['disc'].params)
    return {**state, 'generator': generator._replace(stats=g_stats),
            'disc': update(state['disc'], d_grads, d_stats, d_tx)}, {
                'generator': g_loss, 'disc': d_loss, **norms(generator=g_grads, disc=d_grads)}

  return step, arguments(abstract, init, source=(batch, size, 2 * size, 36),
                         target=(batch, size, 2 * size, 3))


def from_pool(pool, images, key):
  """CycleGAN's pool: an old image, whose place the new one takes, for every second new one."""
  def one(pool, image_and_key):
    (stored, count), (image, key) = pool, image_and_key
    coin, place = jax.random.split(key)
    full = count == len(stored)
    slot = jnp.where(full, jax.random.randint(place, (), 0, len(stored)), count)
    swap = full & jax.random.bernoulli(coin)
    old = stored[slot]
    stored = stored.at[slot].set(jnp.where(full & ~swap, old, image))
    return (stored, jnp.minimum(count + 1, len(stored))), jnp.where(swap, old, image)

  return jax.lax.scan(one, pool, (images, jax.random.split(key, len(images))))


def cyclegan(batch=32, dtype=jnp.float32, size=256, width=1., abstract=True):
  """CAT's teacher on horse2zebra: two inception generators, there and back, with cycle and identity
  losses, two discriminators and pools of 50; all from the parameters before the step."""
  net = Inception(*scaled(width, TEACHER), 'instance_affine', dtype)
  disc = PatchGAN(scaled(width, 64), 'instance_affine', dtype)
  sides = ('ab', 'ba')

  def init(key):
    x = jnp.zeros((1, size, size, 3))
    return {'key': key,
            **{side: fresh(net, jax.random.fold_in(key, i), x) for i, side in enumerate(sides)},
            **{f'disc_{side}': fresh(disc, key, x) for side in sides},
            **{f'pool_{side}': (jnp.zeros((50, size, size, 3)), jnp.int32(0)) for side in sides}}

  def step(state, batch):
    key, *pool_keys = jax.random.split(state['key'], 3)
    images = {'ab': (batch['source'], batch['target']), 'ba': (batch['target'], batch['source'])}

    def generator_loss(params):
      generate = lambda side, x: apply(net, state[side], x, params=params[side])[0][0]
      loss, fakes = 0., {}
      for side, back in (sides, sides[::-1]):
        x, y = images[side]
        fakes[side] = generate(side, x)
        logits, _ = apply(disc, state[f'disc_{side}'], fakes[side])
        loss += jnp.square(logits['real'] - 1).mean()
        loss += 10. * l1(generate(back, fakes[side]), x) + 5. * l1(generate(side, y), y)
      return loss, fakes

    (g_loss, fakes), grads = jax.value_and_grad(generator_loss, has_aux=True)(
        {side: state[side].params for side in sides})
    pools, logs = {}, {'generators': g_loss}
    for side, pool_key in zip(sides, pool_keys, strict=True):
      role = f'disc_{side}'
      pools[f'pool_{side}'], old = from_pool(state[f'pool_{side}'], fakes[side], pool_key)

      def disc_loss(params, role=role, real=images[side][1], old=old):
        on_real, on_fake = (apply(disc, state[role], x, params=params)[0]['real']
                            for x in (real, old))
        return lsgan(on_real, on_fake) / 2

      logs[role], grads[role] = jax.value_and_grad(disc_loss)(state[role].params)
    moved = {role: update(state[role], grad) for role, grad in grads.items()}
    return {'key': key, **moved, **pools}, {**logs, **norms(**grads)}

  shape = batch, size, size, 3
  return step, arguments(abstract, init, source=shape, target=shape)


def kd(batch=128, dtype=jnp.float32, size=64, width=1., updates=3, abstract=True):
  """KD on CIFAR-10, the joint scheme: three updates of the teacher's critic with gradient penalty,
  then a student of d = 8 learns from the pixels of a teacher of d = 64 and from the critic. A batch
  has the critic's three minibatches."""
  if size != 64:
    raise ValueError(f'size={size}; DCGAN makes images of 64')
  small, large = scaled(width, (8, 64))
  student, teacher, critic = DCGAN(small, dtype), DCGAN(large, dtype), Critic(large, dtype)

  def init(key):
    z, x = jnp.zeros((1, 100)), jnp.zeros((1, size, size, 3))
    return {'key': key, 'student': fresh(student, key, z),
            'teacher': fresh(teacher, key, z, tx=None), 'disc': fresh(critic, key, x)}

  def step(state, batch):
    key, z_key, *keys = jax.random.split(state['key'], 2 + updates)
    rows = len(batch['target']) // updates
    disc = state['disc']
    for i, k in enumerate(keys):
      real = batch['target'][i * rows:(i + 1) * rows]
      fake, _ = apply(student, state['student'], jax.random.normal(k, (rows, 100)))
      mix = jax.random.uniform(k, (rows, 1, 1, 1))

      def disc_loss(params, real=real, fake=fake, mixed=mix * real + (1 - mix) * fake):
        logits = lambda x: critic.apply({'params': params}, x)
        slope = jax.grad(lambda x: logits(x).sum())(mixed)
        length = jnp.sqrt(jnp.square(slope).sum((1, 2, 3)) + 1e-12)
        return logits(fake).mean() - logits(real).mean() + 10. * jnp.square(length - 1).mean()

      d_loss, d_grads = jax.value_and_grad(disc_loss)(disc.params)
      disc = update(disc, d_grads)
    z = jax.random.normal(z_key, (rows, 100))
    target = infer(teacher, state['teacher'], z)

    def student_loss(params):
      image, stats = apply(student, state['student'], z, params=params)
      adv = -critic.apply({'params': disc.params}, image).mean()
      return 0.5 * jnp.square(image - target).sum((1, 2, 3)).mean() + 0.5 * adv, stats

    (s_loss, stats), grads = jax.value_and_grad(student_loss, has_aux=True)(
        state['student'].params)
    return {**state, 'key': key, 'disc': disc,
            'student': update(state['student'], grads, stats)}, {
                'student': s_loss, 'disc': d_loss, **norms(student=grads, disc=d_grads)}

  return step, arguments(abstract, init, target=(updates * batch, size, size, 3))


STEPS = {  # by config, and stage where it has several
    'omgd/edges2shoes': omgd,
    'omgd/edges2shoes:net=resnet': functools.partial(omgd, net='resnet'),
    'cat/maps teacher': maps,
    'cat/maps student': functools.partial(maps, student=True),
    'cat/gaugan teacher': gaugan,
    'cat/gaugan student_30': functools.partial(gaugan, student=True),
    'cat/horse2zebra teacher': cyclegan,
    'kd/cifar10 d8_joint': kd}


def distinct(step):
  """`step` without results that nothing uses and operations that stand there twice."""
  def named(x):  # a number by its value
    return id(x) if isinstance(x, jax.core.Tracer) or np.ndim(x) else repr(x)

  def run(jaxpr, consts, args, seen):
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))
    read = lambda v: v.val if isinstance(v, Literal) else values[v]
    for eqn in jaxpr.eqns:
      inputs = [read(v) for v in eqn.invars]
      inner = eqn.params.get('call_jaxpr', eqn.params.get('jaxpr'))
      if eqn.primitive.name in ('jit', 'pjit', 'custom_jvp_call', 'custom_vjp_call'):
        outputs = run(inner.jaxpr, inner.consts, inputs, seen)
      elif eqn.primitive.name == 'stop_gradient':
        outputs = inputs
      else:
        key = eqn.primitive.name, str(eqn.params), *map(named, inputs)
        if key not in seen:
          found = eqn.primitive.bind(*inputs, **eqn.primitive.get_bind_params(eqn.params))
          # Inputs are kept, for an array that is gone may leave its id to another.
          seen[key] = found if eqn.primitive.multiple_results else [found], inputs
        outputs = seen[key][0]
      values.update(zip(eqn.outvars, outputs, strict=True))
    return [read(v) for v in jaxpr.outvars]

  def once(*args):
    program = jax.make_jaxpr(step)(*args)
    used, needed = partial_eval.dce_jaxpr(program.jaxpr, [True] * len(program.jaxpr.outvars))
    args = [x for x, need in zip(jax.tree.leaves(args), needed, strict=True) if need]
    return run(used, program.consts, args, {})

  return once


def check(only='', batch=4):
  """Prints the table of multiply-accumulates: G an image and step, of this file and the library."""
  from jaxgan_compress import config
  from jaxgan_compress.analysis import step_cost
  from jaxgan_compress.experiment.compilation import untrained
  from jaxgan_compress.nn.layers import conv_dispatch

  print('| step | batch | traced, plain | traced, ours | distinct, plain | distinct, ours | '
        'ratio |', '|---' * 7 + '|', sep='\n')
  for name, build in STEPS.items():
    if only not in name:
      continue
    where, _, stage = name.partition(' ')
    c = config.load(where)
    method, *ours = untrained(c, stage or c.run[0], batch)
    counts = []
    for count in (lambda step: step, distinct):
      for step, args in (build(batch=batch), (method.step, ours)):
        with conv_dispatch.reference():  # not the library's forms for CPUs
          cost = step_cost(lambda *args, step=count(step): step(*args[:-1]), *args)
        counts.append(cost.macs / batch / 1e9)
    print(f'| {name} | {batch} | ' + ' | '.join(f'{n:.4g}' for n in counts)
          + f' | {counts[2] / counts[3]:.3f} |', flush=True)


def run(only=''):
  """Two steps of tiny networks each, here: prints their logs, which must be finite."""
  for name, build in STEPS.items():
    if only in name:
      step, (state, batch) = build(batch=2, size=64, width=1 / 16, abstract=False)
      step = jax.jit(step)
      for _ in range(2):
        state, logs = step(state, batch)
      print(name, {term: round(float(x), 4) for term, x in logs.items()}, flush=True)
      assert all(np.isfinite(x).all() for x in logs.values())


def main():
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--only', default='', help='steps whose names have this')
  parser.add_argument('--run', action='store_true', help='two steps of tiny networks instead')
  args = parser.parse_args()
  (run if args.run else check)(args.only)


if __name__ == '__main__':
  main()
