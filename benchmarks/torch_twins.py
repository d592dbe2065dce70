"""PyTorch twins of the library's networks and steps, for `jax_vs_torch.py`; written for it alone.

Parameter names are those of the published networks, so that `convert.to_torch` fills them. Needs
PyTorch and NumPy, nothing of ours.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import nn

# Networks ---------------------------------------------------------------------------------------


def normed(kind, channels):
  if kind == 'instance':
    return nn.InstanceNorm2d(channels)
  if kind == 'instance_affine':
    return nn.InstanceNorm2d(channels, affine=True)
  return nn.BatchNorm2d(channels, track_running_stats=kind == 'batch')


def named(pairs):
  """A Sequential whose layers have the indices of published code; None is left out."""
  found = nn.Sequential()
  for index, layer in pairs:
    if layer is not None:
      found.add_module(str(index), layer)
  return found


class Separable(nn.Module):
  def __init__(self, inputs, outputs, kernel=3):
    super().__init__()
    self.conv = nn.Sequential(
        nn.Conv2d(inputs, inputs, kernel, padding=0, groups=inputs), nn.InstanceNorm2d(inputs),
        nn.Conv2d(inputs, outputs, 1))

  def forward(self, x):
    return self.conv(x)


class Residual(nn.Module):
  def __init__(self, channels, hidden, norm, separable, dropout):
    super().__init__()
    bias = norm.startswith('instance')
    conv = lambda a, b: Separable(a, b) if separable else nn.Conv2d(a, b, 3, bias=bias)
    layers = [nn.ReflectionPad2d(1), conv(channels, hidden), normed(norm, hidden),
              nn.ReLU(inplace=True), *([nn.Dropout(dropout)] if dropout is not None else []),
              nn.ReflectionPad2d(1), conv(hidden, channels), normed(norm, channels)]
    self.conv_block = nn.Sequential(*layers)

  def forward(self, x):
    return x + self.conv_block(x)


class ResNet(nn.Module):
  def __init__(self, stem, hidden, up, inputs, channels, norm, separable, dropout):
    super().__init__()
    bias = norm.startswith('instance')
    layers, width = [nn.ReflectionPad2d(3)], inputs
    for i, n in enumerate(stem):
      layers += [nn.Conv2d(width, n, 3 if i else 7, 2 if i else 1, 1 if i else 0, bias=bias),
                 normed(norm, n), nn.ReLU(inplace=True)]
      width = n
    layers += [Residual(width, n, norm, separable, dropout) for n in hidden]
    for n in up:
      layers += [nn.ConvTranspose2d(width, n, 3, 2, 1, 1, bias=bias), normed(norm, n),
                 nn.ReLU(inplace=True)]
      width = n
    layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, channels, 7), nn.Tanh()]
    self.model = nn.Sequential(*layers)

  def forward(self, x):
    return self.model(x)


class Level(nn.Module):
  """One level of a U-Net and all below it."""

  def __init__(self, i, down, up, inputs, channels, norm):
    super().__init__()
    bias, last = norm.startswith('instance'), i == len(down) - 1
    self.outermost = i == 0
    before = down[i - 1] if i else inputs
    conv = nn.Conv2d(before, down[i], 4, 2, 1, bias=bias)
    below = down[i] if last else 2 * up[i]
    lift = nn.ConvTranspose2d(below, up[i - 1] if i else channels, 4, 2, 1,
                              bias=bias or not i)
    inner = None if last else Level(i + 1, down, up, inputs, channels, norm)
    if not i:
      self.model = nn.Sequential(conv, inner, nn.ReLU(), lift, nn.Tanh())
    elif last:
      self.model = nn.Sequential(nn.LeakyReLU(.2), conv, nn.ReLU(), lift, normed(norm, up[i - 1]))
    else:
      self.model = nn.Sequential(nn.LeakyReLU(.2), conv, normed(norm, down[i]), inner, nn.ReLU(),
                                 lift, normed(norm, up[i - 1]))

  def forward(self, x):
    if self.outermost:
      return self.model(x)
    seen = self.model[0](x)
    return torch.cat([seen, self.model[1:](seen)], 1)


class UNet(nn.Module):
  def __init__(self, down, up, inputs, channels, norm):
    super().__init__()
    self.model = Level(0, down, up, inputs, channels, norm)

  def forward(self, x):
    return self.model(x)


class Branches(nn.Module):
  """A block of dense and depthwise branches with a norm of their sum."""

  def __init__(self, dense, depthwise, features, norm):
    super().__init__()
    bias = norm.startswith('instance')
    conv = lambda a, b, k, **more: nn.Conv2d(a, b, k, padding=k // 2, padding_mode='reflect',
                                             bias=bias, **more)
    unit = lambda layer, n: nn.Sequential(layer, normed(norm, n))
    self.res_ops = nn.ModuleList(
        named([(1, unit(conv(features, n, k), n)), (2, nn.ReLU()), (4, conv(n, features, k))])
        for k, n in dense)
    self.dw_ops = nn.ModuleList(
        named([(0, unit(conv(features, n, 1), n)), (1, nn.ReLU()),
               (2, unit(conv(n, n, k, groups=n), n)), (3, nn.ReLU()), (4, conv(n, features, 1))])
        for k, n in depthwise)
    self.pw_bn = normed(norm, features)

  def forward(self, x):
    return x + self.pw_bn(sum(op(x) for op in itertools.chain(self.res_ops, self.dw_ops)))


class Inception(nn.Module):
  def __init__(self, stem, blocks, up, inputs, channels, norm):
    super().__init__()
    bias = norm.startswith('instance')
    layers, width = [nn.ReflectionPad2d(3)], inputs
    for i, n in enumerate(stem):
      layers += [nn.Conv2d(width, n, 3 if i else 7, 2 if i else 1, 1 if i else 0, bias=bias),
                 normed(norm, n), nn.ReLU()]
      width = n
    self.down_sampling = nn.Sequential(*layers)
    self.features = nn.Sequential(*(Branches(*block, width, norm) for block in blocks))
    layers = []
    for n in up:
      layers += [nn.ConvTranspose2d(width, n, 3, 2, 1, 1, bias=bias), normed(norm, n), nn.ReLU()]
      width = n
    self.up_sampling = nn.Sequential(*layers, nn.ReflectionPad2d(3),
                                     nn.Conv2d(width, channels, 7), nn.Tanh())

  def forward(self, x, taps=()):
    """The image; with `taps`, as many blocks each, what came before and after them as well."""
    x = self.down_sampling(x)
    seen = [x]
    for block in self.features:
      x = block(x)
      seen.append(x)
    image = self.up_sampling(x)
    return (image, [seen[i] for i in taps]) if taps else image


class Modulation(nn.Module):
  def __init__(self, channels, hidden, labels):
    super().__init__()
    self.param_free_norm = nn.BatchNorm2d(channels, affine=False)
    self.mlp_shared = nn.Sequential(nn.Conv2d(labels, hidden, 3, padding=1), nn.ReLU())
    self.mlp_gamma = nn.Conv2d(hidden, channels, 3, padding=1)
    self.mlp_beta = nn.Conv2d(hidden, channels, 3, padding=1)

  def forward(self, x, labels):
    seen = self.mlp_shared(F.interpolate(labels, size=x.shape[2:], mode='nearest'))
    return self.param_free_norm(x) * (1 + self.mlp_gamma(seen)) + self.mlp_beta(seen)


class SPADEBlock(nn.Module):
  def __init__(self, inputs, middle, out, hidden, shortcut, labels):
    super().__init__()
    self.conv_0 = nn.Conv2d(inputs, middle, 3, padding=1)
    self.conv_1 = nn.Conv2d(middle, out, 3, padding=1)
    self.norm_0 = Modulation(inputs, hidden, labels)
    self.norm_1 = Modulation(middle, hidden, labels)
    self.shortcut = shortcut
    if shortcut:
      self.conv_s = nn.Conv2d(inputs, out, 1, bias=False)
      self.norm_s = Modulation(inputs, hidden, labels)

  def forward(self, x, labels):
    y = self.conv_0(F.leaky_relu(self.norm_0(x, labels), .2))
    y = self.conv_1(F.leaky_relu(self.norm_1(y, labels), .2))
    return y + (self.conv_s(self.norm_s(x, labels)) if self.shortcut else x)


class SPADE(nn.Module):
  def __init__(self, fc, blocks, labels, channels, names, scale):
    super().__init__()
    self.fc = nn.Conv2d(labels, fc, 3, padding=1)
    self.names, self.scale, width = names, scale, fc
    for name, (middle, out, hidden, shortcut) in zip(names, blocks, strict=True):
      setattr(self, name, SPADEBlock(width, middle, out, hidden, shortcut, labels))
      width = out
    self.conv_img = nn.Conv2d(width, channels, 3, padding=1)

  def forward(self, labels):
    x = self.fc(F.interpolate(labels, size=[n // self.scale for n in labels.shape[2:]]))
    for name in self.names:
      still = name == 'head_0' or (name == 'G_middle_1' and self.scale == 32)
      x = x if still else F.interpolate(x, scale_factor=2)
      x = getattr(self, name)(x, labels)
    return torch.tanh(self.conv_img(F.leaky_relu(x, .2)))


class DCGAN(nn.Module):
  def __init__(self, widths, latent, channels):
    super().__init__()
    self.layers = len(widths)
    for i, n in enumerate(widths, 1):
      before = widths[i - 2] if i > 1 else latent
      setattr(self, f'deconv{i}', nn.ConvTranspose2d(before, n, 4, 2 if i > 1 else 1,
                                                     1 if i > 1 else 0))
      setattr(self, f'deconv{i}_bn', nn.BatchNorm2d(n))
    setattr(self, f'deconv{self.layers + 1}', nn.ConvTranspose2d(widths[-1], channels, 4, 2, 1))

  def forward(self, z):
    x = z[:, :, None, None]
    for i in range(1, self.layers + 1):
      x = F.relu(getattr(self, f'deconv{i}_bn')(getattr(self, f'deconv{i}')(x)))
    return torch.tanh(getattr(self, f'deconv{self.layers + 1}')(x))


class PatchGAN(nn.Module):
  def __init__(self, ndf, layers, inputs, norm):
    super().__init__()
    bias, width = norm.startswith('instance'), ndf
    parts = [nn.Conv2d(inputs, ndf, 4, 2, 1), nn.LeakyReLU(.2, True)]
    for i in range(1, layers + 1):
      n = ndf * min(2 ** i, 8)
      parts += [nn.Conv2d(width, n, 4, 2 if i < layers else 1, 1, bias=bias), normed(norm, n),
                nn.LeakyReLU(.2, True)]
      width = n
    self.model = nn.Sequential(*parts, nn.Conv2d(width, 1, 4, 1, 1))

  def forward(self, x):
    return self.model(x)


class VGG(nn.Module):
  """VGG16 up to relu4_3, its four features."""
  TAPS = (3, 8, 15, 22)

  def __init__(self):
    super().__init__()
    layers, width = [], 3
    for n, convs in ((64, 2), (128, 2), (256, 3), (512, 3)):
      layers += [] if width == 3 else [nn.MaxPool2d(2)]
      for _ in range(convs):
        layers += [nn.Conv2d(width, n, 3, padding=1), nn.ReLU()]
        width = n
    self.features = nn.Sequential(*layers)

  def forward(self, x):
    found = []
    for i, layer in enumerate(self.features):
      x = layer(x)
      if i in self.TAPS:
        found.append(x)
    return found


NETWORKS = {'resnet': ResNet, 'unet': UNet, 'inception': Inception, 'spade': SPADE, 'dcgan': DCGAN,
            'patch': PatchGAN, 'vgg': VGG}

# Steps ------------------------------------------------------------------------------------------


def sides(loss, real, fake):
  if loss == 'hinge':
    return F.relu(1 - real).mean(), F.relu(1 + fake).mean()
  return (real - 1).square().mean(), fake.square().mean()


def deceive(loss, fake):
  return -fake.mean() if loss == 'hinge' else (fake - 1).square().mean()


def adam(networks, rate):
  params = [p for network in networks for p in network.parameters()]
  return torch.optim.Adam(params, rate, betas=(.5, .999), fused=True)


def frozen(networks, on):
  for network in networks:
    network.requires_grad_(not on)


class Paired:
  """The discriminator's step, then the generator's, on one drawing."""

  def __init__(self, generator, disc, loss, rate):
    self.d, self.loss = disc, loss
    self.g_tx, self.d_tx = adam([generator], rate), adam([disc], rate)

  def __call__(self, source, target, drawn, more=0.):
    look = lambda x: self.d(torch.cat([source, x], 1))
    frozen([self.d], False)
    disc = sum(sides(self.loss, look(target), look(drawn.detach()))) / 2
    self.d_tx.zero_grad()
    disc.backward()
    self.d_tx.step()
    frozen([self.d], True)
    loss = deceive(self.loss, look(drawn)) + 100 * F.l1_loss(drawn, target) + more
    self.g_tx.zero_grad()
    loss.backward()
    self.g_tx.step()
    return disc, loss


class Pix2Pix:
  def __init__(self, nets, loss, rate):
    self.g, self.step = nets['generator'], Paired(nets['generator'], nets['disc'], loss, rate)

  def __call__(self, source, target):
    disc, loss = self.step(source, target, self.g(source))
    return {'disc/loss': disc, 'generator/loss': loss}


class CycleGAN:
  """Both generators together, then both discriminators; no pools."""

  def __init__(self, nets, loss, rate):
    self.nets, self.loss = nets, loss
    self.g_tx = adam([nets['generator'], nets['generator_ba']], rate)
    self.d_tx = adam([nets['disc'], nets['disc_ba']], rate)

  def __call__(self, source, target):
    ways = (('generator', 'generator_ba', 'disc', source, target),
            ('generator_ba', 'generator', 'disc_ba', target, source))
    discs = [self.nets['disc'], self.nets['disc_ba']]
    frozen(discs, True)
    losses, drawn = {}, {}
    for g, other, d, own, wanted in ways:
      drawn[d] = self.nets[g](own)
      losses[f'{g}/loss'] = (deceive(self.loss, self.nets[d](drawn[d]))
                             + 10 * F.l1_loss(self.nets[other](drawn[d]), own)
                             + 5 * F.l1_loss(self.nets[g](wanted), wanted))
    self.g_tx.zero_grad()
    sum(losses.values()).backward()
    frozen(discs, False)
    judged = {f'{d}/loss': sum(sides(self.loss, self.nets[d](wanted),
                                     self.nets[d](drawn[d].detach()))) / 2
              for _, _, d, _, wanted in ways}
    self.d_tx.zero_grad()
    sum(judged.values()).backward()
    self.g_tx.step()
    self.d_tx.step()
    return losses | judged


class OMGD:
  """A teacher that learns from pairs, its discriminator, and the student that copies it."""

  def __init__(self, nets, loss, rate):
    self.nets, self.loss = nets, loss
    self.tx = {name: adam([nets[name]], rate) for name in ('wide', 'disc', 'student')}
    nets['features'].requires_grad_(False)
    line = np.exp(-np.arange(-5, 6) ** 2 / 4.5).astype(np.float32)
    line /= line.sum(dtype=np.float64)
    device = next(nets['student'].parameters()).device
    self.window = torch.tensor(np.outer(line, line)).expand(3, 1, 11, 11).to(device)

  def ssim(self, a, b):
    a, b = a.float(), b.float()
    blur = lambda x: F.conv2d(x, self.window, padding=5, groups=3)
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a ** 2, blur(b * b) - mean_b ** 2
    both = blur(a * b) - mean_a * mean_b
    return ((2 * mean_a * mean_b + 1e-4) * (2 * both + 9e-4) / (
        (mean_a ** 2 + mean_b ** 2 + 1e-4) * (var_a + var_b + 9e-4))).mean()

  def gram(self, x):
    flat = x.float().flatten(2)
    return flat @ flat.mT / flat[0].numel()

  def __call__(self, source, target):
    wide, disc, student, vgg = (self.nets[name] for name in ('wide', 'disc', 'student', 'features'))
    lesson = wide(source)
    look = lambda x: disc(torch.cat([source, x], 1))
    frozen([disc], True)
    loss = deceive(self.loss, look(lesson)) + 100 * F.l1_loss(lesson, target)
    self.tx['wide'].zero_grad()
    loss.backward()
    frozen([disc], False)
    judged = sum(sides(self.loss, look(target), look(lesson.detach()))) / 2
    self.tx['disc'].zero_grad()
    judged.backward()
    drawn, lesson = student(source), lesson.detach()
    with torch.no_grad():
      aims = vgg((lesson + 1) / 2)
      grams = [self.gram(x) for x in aims]
    seen = vgg((drawn + 1) / 2)
    style = sum(F.l1_loss(self.gram(x), g) for x, g in zip(seen, grams, strict=True))
    tv = drawn.diff(dim=2).abs().sum() + drawn.diff(dim=3).abs().sum()
    mine = (10 * (1 - self.ssim(drawn, lesson)) + 10 * F.l1_loss(seen[1], aims[1]) + 1e4 * style
            + 1e-5 * tv)
    self.tx['student'].zero_grad()
    mine.backward()
    for tx in self.tx.values():
      tx.step()
    return {'wide/loss': loss, 'disc/loss': judged, 'student/loss': mine}


class KD:
  """The student's pixels follow a finished teacher's: sum of squares of each image. The first
  latents are given, so that losses can be compared."""

  def __init__(self, nets, loss, rate):
    self.teacher, self.student = nets['teacher'].eval(), nets['student']
    self.teacher.requires_grad_(False)
    self.tx, self.at = adam([self.student], rate), 0

  def __call__(self, given):
    z = given[self.at] if self.at < len(given) else torch.randn_like(given[0])
    self.at += 1
    with torch.no_grad():
      lesson = self.teacher(z)
    loss = (self.student(z) - lesson).square().sum((1, 2, 3)).mean()
    self.tx.zero_grad()
    loss.backward()
    self.tx.step()
    return {'student/loss': loss}


class CAT:
  """Pix2Pix of a student that sees as its finished teacher does: kernel alignment of four taps."""
  TAPS = (0, 3, 6, 9)  # stem, block3, block6, block9

  def __init__(self, nets, loss, rate, align=5.2):  # as published for maps
    self.teacher, self.g, self.align = nets['teacher'].eval(), nets['student'], align
    self.teacher.requires_grad_(False)
    self.step = Paired(self.g, nets['disc'], loss, rate)

  def alignment(self, a, b):
    grams = []
    with torch.autocast(a.device.type, enabled=False):
      for x in (a, b):
        x = x.float().flatten(1)
        x = x / x.norm()
        gram = x @ x.T
        grams.append(gram / gram.norm())
      return (grams[0] * grams[1]).sum()

  def __call__(self, source, target):
    with torch.no_grad():
      _, taught = self.teacher(source, self.TAPS)
    drawn, seen = self.g(source, self.TAPS)
    aligned = sum(self.alignment(a, b) for a, b in zip(seen, taught, strict=True))
    disc, loss = self.step(source, target, drawn, -self.align * aligned)
    return {'disc/loss': disc, 'student/loss': loss}


STEPS = {'pix2pix': Pix2Pix, 'cyclegan': CycleGAN, 'omgd': OMGD, 'cat': CAT, 'kd': KD}
# 'exact': eager in true float32. 'tuned': channels_last and compiled, 'eager_tuned': not compiled;
# with '_half' under autocast.
TUNED = ('tuned', 'tuned_half', 'eager_tuned', 'eager_tuned_half')
VARIANTS = ('eager', 'channels_last', 'compile', 'autocast', 'onnx', 'exact', *TUNED)


def precision(variant):
  """Products of float32 on a GPU: as PyTorch and XLA do them by themselves, which for convolutions
  is TF32 with both; XLA takes it for matrix products as well, so 'tuned' does."""
  if variant == 'exact':
    torch.backends.cudnn.allow_tf32 = False
  elif variant in TUNED:
    torch.set_float32_matmul_precision('high')


def onnx_session(network, inputs):
  """What `build` returns, by ONNX Runtime. Raises ImportError without it."""
  import tempfile

  import onnxruntime
  with tempfile.TemporaryDirectory() as folder:
    path = f'{folder}/network.onnx'
    torch.onnx.export(network, tuple(inputs), dynamo=True, verbose=False).save(path)
    session = onnxruntime.InferenceSession(path, providers=onnxruntime.get_available_providers())
  names = [given.name for given in session.get_inputs()]
  feed = dict(zip(names, (x.cpu().numpy() for x in inputs), strict=True))
  return lambda: {'drawn': torch.from_numpy(session.run(None, feed)[0])}


def build(plan, arrays, inputs, variant):
  """A call that takes one step, or draws once, and returns {name: tensor}.

  plan: {'step', 'loss', 'rate', 'nets': {role: (network, fields)}}. arrays: {role: state dict}.
  inputs: NumPy arrays, NCHW. variant: one of VARIANTS.
  """
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  precision(variant)
  layout = {'memory_format': torch.channels_last} if variant in ('channels_last', *TUNED) else {}
  nets = {}
  for role, (network, fields) in plan['nets'].items():
    nets[role] = NETWORKS[network](**fields)
    state = {key: torch.from_numpy(np.array(x)) for key, x in arrays[role].items()}
    nets[role].load_state_dict(state)
    nets[role].to(device, **layout)
  inputs = [torch.from_numpy(x).to(device, **(layout if x.ndim == 4 else {})) for x in inputs]
  if plan['step'] == 'inference':
    network = nets['generator'].eval()
    if variant == 'onnx':
      return onnx_session(network, inputs)
    network = torch.compile(network) if variant in ('compile', 'tuned', 'tuned_half') else network

    def call():
      with torch.inference_mode():
        return {'drawn': network(*inputs)}
  else:
    if variant in ('compile', 'tuned', 'tuned_half'):
      nets = {role: torch.compile(network) for role, network in nets.items()}
    step = STEPS[plan['step']](nets, plan['loss'], plan['rate'])
    call = lambda: step(*inputs)
  if variant != 'autocast' and not variant.endswith('_half'):
    return call

  def mixed():
    with torch.autocast(device, torch.bfloat16):
      return call()

  return mixed
