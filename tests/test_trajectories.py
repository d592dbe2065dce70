"""Losses and whole training steps of OMGD, recorded from the published PyTorch code, float64.

A wrong gradient, norm, loss or running statistic anywhere shows within two steps.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan_compress import convert, core, methods, nn
from jaxgan_compress.core import Net
from jaxgan_compress.losses import features, gan, image
from tests import published
from tests.conftest import PUBLISHED_ADAM
from tests.published import hashed, hashed_fill, nhwc

pytestmark = pytest.mark.usefixtures('convolutions_as_matmuls')
VGG = nn.VGG(16, dtype=jnp.float64)
TX = PUBLISHED_ADAM


@pytest.fixture(scope='module')
def vgg():
  with jax.enable_x64(True):
    state = {key: x.astype(np.float32).astype(np.float64)
             for key, x in published.state_dict(VGG, hashed_fill).items()}
    return convert.from_torch(state, layers=VGG.layers)[1]


def start(module, prefix):
  """A network's variables, 4-D weights halved."""
  state = published.state_dict(module, hashed_fill, prefix=prefix)
  state = {key: x / 2 if x.ndim == 4 else x for key, x in state.items()}
  if len(getattr(module, 'heads', 'x')) > 1:
    state |= {key.replace('s.1.', 's.0.'): x for key, x in state.items()
              if key.replace('s.1.', 's.0.') not in state}
    return convert.from_torch(state, shared=module.shared)[1]
  return convert.from_torch(state)[1]


def test_losses_between_images():
  with jax.enable_x64(True):
    a, b = (nhwc(published.wave(2, 3, 32, 32, phase)) for phase in (0, 0.4))
    ssim, variation = jax.jit(image.ssim), jax.jit(image.total_variation)
    np.testing.assert_allclose(ssim(a, b), (0.60635313, 0.58851166), atol=1e-8)
    np.testing.assert_allclose(10 * (1 - ssim(a, b).mean()), 4.0256760, atol=1e-7)
    np.testing.assert_allclose(ssim(a, a), 1, atol=1e-12)
    np.testing.assert_allclose(variation(a), 831.871365, atol=1e-6)
    np.testing.assert_allclose(np.abs(np.diff(a, axis=2)).sum(), 248.711676, atol=1e-6)
    line = image._windows(11, 0)[0]
    np.testing.assert_allclose(np.outer(line, line)[5, :6], (
        0.00027356, 0.00202136, 0.00957663, 0.02909122, 0.05666197, 0.07076223), atol=1e-8)


@pytest.mark.parametrize('name, real, fake, g', [
    ('lsgan', 1.72879196, 0.72170645, 1.72879196), ('hinge', 1.04561580, 1.03757157, 0.00354275),
    ('ns', 0.78046436, 0.77692160, 0.78046436), ('wgan', 0.00354275, -0.00354275, 0.00354275)])
def test_adversarial_losses_of_omgd(name, real, fake, g):
  # A logit that adds nothing to its side of the loss, so that each side shows alone.
  nothing = {'lsgan': (1., 0.), 'hinge': (9., -9.), 'ns': (99., -99.), 'wgan': (0., 0.)}[name]
  with jax.enable_x64(True):
    p = jnp.asarray(1.5 * hashed('pred', 72))
    d_loss = getattr(gan, f'{name}_d')
    np.testing.assert_allclose(p.mean(), -0.00354275, atol=1e-8)
    np.testing.assert_allclose(d_loss(p, jnp.array([nothing[1]])), real, atol=1e-8)
    np.testing.assert_allclose(d_loss(jnp.array([nothing[0]]), p), fake, atol=1e-8)
    np.testing.assert_allclose(getattr(gan, f'{name}_g')(p), g, atol=1e-8)


@pytest.mark.parametrize('name, real, fake, g', [
    ('lsgan', 2.6666667, 1.6666666, 2.6666667), ('ns', 0.8805007, 0.8805007, 0.8805007),
    ('hinge', 1.1666666, 1.1666666, 0.)])
def test_adversarial_losses_of_cat(name, real, fake, g):
  p = jnp.linspace(-2, 2, 9)
  nothing = {'lsgan': (1., 0.), 'hinge': (9., -9.), 'ns': (99., -99.)}[name]
  d_loss = getattr(gan, f'{name}_d')
  np.testing.assert_allclose(d_loss(p, jnp.array([nothing[1]])), real, rtol=1e-6)
  np.testing.assert_allclose(d_loss(jnp.array([nothing[0]]), p), fake, rtol=1e-6)
  np.testing.assert_allclose(getattr(gan, f'{name}_g')(p), g, atol=1e-6)


@pytest.mark.gpu
def test_features_of_vgg(vgg):
  @jax.jit
  def look(vgg, *images):
    t, s = (VGG.apply(vgg, (x + 1) / 2) for x in images)
    return t, {name: (t[name].mean(), features.gram(t[name]).mean(), features.style(
        {name: s[name]}, t), features.perceptual(s[name], t[name])) for name in t}, features.style(
            s, t), features.perceptual(s['relu2_2'], t['relu2_2'])

  with jax.enable_x64(True):
    t, each, style, perceptual = look(vgg, *(
        nhwc(published.wave(2, 3, 64, 64, phase)) for phase in (0, 0.4)))
    golden = {'relu1_2': ((64, 64), 0.19381189, 6.204537e-4, 3.676612e-5, 0.04833297),
              'relu2_2': ((128, 32), 0.25771394, 5.449063e-4, 2.625203e-5, 0.05580267),
              'relu3_3': ((256, 16), 0.24082013, 2.362321e-4, 1.154890e-5, 0.04820755),
              'relu4_3': ((512, 8), 0.23776646, 1.154661e-4, 6.702038e-6, 0.03959215)}
    assert t.keys() == golden.keys()
    for name, ((channels, side), mean, gram_mean, gram_l1, l1) in golden.items():
      assert t[name].shape == (2, side, side, channels)
      found = each[name]
      np.testing.assert_allclose(found[0], mean, atol=1e-8)
      np.testing.assert_allclose(found[1:3], (gram_mean, gram_l1), rtol=1e-6)
      np.testing.assert_allclose(found[3], l1, atol=1e-8)
    np.testing.assert_allclose(1e4 * style, 0.81269085, atol=1e-7)
    np.testing.assert_allclose(10 * perceptual, 0.55802669, atol=1e-7)


def test_channel_distillation():
  adapter = nn.Adapter(4, 6, dtype=jnp.float64)
  losses = []

  @jax.jit
  def look(variables, s, t):
    seen, _ = adapter.apply(variables, s, mutable=['batch_stats'])
    return seen, features.channel_means(seen, t)

  with jax.enable_x64(True):
    for i, golden in enumerate((0.13825522, 0.22895734)):
      s, t = (nhwc(hashed(f'{key}{i}', 50 * c).reshape(2, c, 5, 5))
              for key, c in (('S', 4), ('T', 6)))
      state = published.state_dict(adapter, hashed_fill, prefix=f'A{i}.')
      seen, loss = look(convert.from_torch(state)[1], s, t)
      losses.append(loss)
      np.testing.assert_allclose(losses[i], golden, atol=1e-8)
      if not i:
        np.testing.assert_allclose(seen[0].mean((0, 1)), (
            0.35700405, 0.49455744, 0.43107949, 0.42564404, 0.30153072, 0.44392739), atol=1e-8)
        np.testing.assert_allclose(t[0].mean((0, 1)), (
            0.13275359, -0.07445883, 0.08795576, 0.17535983, -0.09289751, 0.06870002), atol=1e-8)
    np.testing.assert_allclose(sum(losses), 0.36721256, atol=1e-8)


def as_net(variables):
  return Net(variables['params'], collections={'batch_stats': variables['batch_stats']}
             if 'batch_stats' in variables else {})


def started_adapters(taps, widths):
  each = [start(nn.Adapter(s, w), f'A{i}.') for i, (s, w) in enumerate(widths)]
  return {kind: {tap: x[kind] for tap, x in zip(taps, each, strict=True)}
          for kind in ('params', 'batch_stats')}


def run(method, init_from, batches):
  """The logs of every step, and the states before the first and after each."""
  init_from = {role: as_net(x) for role, x in init_from.items()}
  state, step, logs = method.init(jax.random.key(0), batches[0],
                                  init_from), jax.jit(method.step), []
  # The memory of one replica.
  states = [state.replace(replica_state=jax.tree.map(lambda x: x[0], state.replica_state))]
  for batch in batches:
    state, log = step(states[-1], batch)
    states.append(state)
    logs.append({key: float(x) for key, x in core.flatten_logs(log).items()})
  return logs, states


def waves(rows, size, steps):
  return [dict(zip(('source', 'target'), (jnp.asarray(nhwc(published.wave(
      rows, 3, size, size, 0.3 * s + more))) for more in (0, 1.1)), strict=True)) for s in steps]


ROLES = {'student': 'S', 'wide': 'W', 'deep': 'D', 'disc': 'C'}


def omgd(modules, taps, weight, teacher_every=1, dtype=jnp.float64):
  nets = {role: modules[key].clone(dtype=dtype) for role, key in ROLES.items()}
  return methods.OMGD(
      adversary=methods.Adversary(nets.pop('disc'), TX, 'hinge'), **nets, tx=TX,
      teacher_every=teacher_every,
      distill=methods.DistillLoss(
          *methods.PUBLISHED, methods.Taps('channel_means', weight, taps),
          feature_net=VGG.clone(dtype=dtype)))


def trajectory(vgg, modules, taps, widths, weight, steps, size, teacher_every=1):
  """Of `methods.OMGD`."""
  init_from = {role: start(modules[key], f'{key}.') for role, key in ROLES.items()}
  return run(omgd(modules, taps, weight, teacher_every),
             {**init_from, 'student_adapters': started_adapters(taps, widths), 'features': vgg},
             waves(2, size, range(1, steps + 1)))


NAMES = {'G_gan_w': 'wide/adv', 'G_rec_w': 'wide/recon', 'G_gan_d': 'deep/adv',
         'G_rec_d': 'deep/recon', 'ssim': 'student/ssim_deep', 'feat': 'student/feature_deep',
         'style': 'student/style_deep', 'S_total': 'student/loss',
         'D_fake_w': 'disc/fake_wide', 'D_real_w': 'disc/real_wide',
         'D_fake_d': 'disc/fake_deep', 'D_real_d': 'disc/real_deep',
         'D_A': 'disc/loss', 'G_A': 'generator/adv', 'cyc_A': 'generator/cycle',
         'idt_A': 'generator/identity', 'D_B': 'disc_ba/loss', 'G_B': 'generator_ba/adv',
         'cyc_B': 'generator_ba/cycle', 'idt_B': 'generator_ba/identity'}


def taps(log):
  return sum(value for name, value in log.items() if name.startswith('student/tap_'))


def check(logs, columns, golden):
  for log, row in zip(logs, golden, strict=True):
    # Total variation is recorded for one teacher, and logged for both; taps are recorded together.
    log = {**log, 'tv': log['student/tv'] / (2 if 'deep/adv' in log else 1), 'CD': taps(log)} \
        if 'student/tv' in log else log
    found = [log[NAMES.get(column, column)] for column in columns.split()]
    np.testing.assert_allclose(found, row, atol=2e-6)


RESNETS = {'W': nn.mobile_resnet(8), 'D': nn.mobile_deepest_resnet(4), 'S': nn.mobile_resnet(4)}
RESNET_TAPS = ('stem', 'block3', 'block6', 'block9')
HEADS = {'inputs': 6, 'heads': ('wide', 'deep')}


COLUMNS = 'G_gan_w G_rec_w G_gan_d G_rec_d ssim feat style tv CD S_total'
STEPS = [
    (-0.170912, 50.389316, -0.145322, 50.381350, 10.086858, 1.288186, 6.479203, 0.210521,
     0.764504, 32.749765),
    (-0.178391, 49.574795, -0.162921, 49.961158, 10.198374, 1.284651, 6.161512, 0.210908,
     0.699997, 32.449969),
    (-0.151918, 48.896702, -0.177032, 49.491652, 10.117124, 1.267079, 5.917942, 0.207889,
     0.709334, 32.144204),
    (-0.144026, 48.101429, -0.142634, 49.562364, 10.061654, 1.250249, 5.594024, 0.206527,
     0.678442, 31.745996)]


@pytest.mark.gpu
def test_steps_of_omgd_with_resnets(vgg):
  modules = {**RESNETS, 'C': nn.PatchGAN(8, shared=3, **HEADS)}
  with jax.enable_x64(True):
    logs, states = trajectory(vgg, modules, RESNET_TAPS, [(16, 32)] * 4, 100, 4, 64)
    batches = waves(2, 64, range(1, 5))
  check(logs, COLUMNS, STEPS)
  check(logs, 'D_fake_w D_real_w D_fake_d D_real_d', [
                   (1.170912, 0.863992, 1.147037, 0.727149),
                    (1.178391, 0.793652, 1.162921, 0.684409),
                    (1.151918, 0.731945, 1.177032, 0.650158),
                    (1.144026, 0.710954, 1.142634, 0.604281)])
  # In float32 each step starts where the float64 one did: on a course of its own Adam would enlarge
  # the rounding of either machine from step to step.
  step = jax.jit(omgd(modules, RESNET_TAPS, 100, dtype=jnp.float32).step)
  for log, state, batch in zip(logs, states, batches, strict=False):
    single = jax.tree.map(lambda x: np.asarray(x).astype(np.float32)
                          if x.dtype == np.float64 else x, (state, batch))
    for name, found in core.flatten_logs(step(*single)[1]).items():
      # The kinks of ReLU and of absolute differences turn rounding into jumps of single gradients.
      rtol = 5e-3 if name.startswith('grad_norm/') else 1e-5
      np.testing.assert_allclose(found, log[name], rtol=rtol, atol=1e-6, err_msg=name)


def test_steps_of_omgd_where_teachers_move_every_second(vgg):
  with jax.enable_x64(True):
    logs, _ = trajectory(vgg, {**RESNETS, 'C': nn.PatchGAN(8, shared=4, **HEADS)}, RESNET_TAPS,
                         [(16, 32)] * 4, 0, 4, 64, teacher_every=2)
  check(logs, 'S_total', [(31.985261,), (31.561713,), (31.030669,), (30.415031,)])
  check(logs[1::2], 'G_gan_w G_rec_w G_gan_d G_rec_d', [
      (-0.252767, 50.453259, -0.148833, 50.193850), (-0.210983, 49.240591, -0.132766, 49.929603)])


@pytest.mark.gpu
def test_steps_of_omgd_with_unets(vgg):
  modules = {'W': nn.unet(4), 'D': nn.unet_deepest(2), 'S': nn.unet(2),
             'C': nn.PatchGAN(4, shared=5, norm='batch', **HEADS)}
  with jax.enable_x64(True):
    logs, states = trajectory(vgg, modules, ('down2', 'down4', 'up3', 'up1'),
                                 [(4, 8), (16, 32), (32, 64), (8, 16)], 50, 2, 256)
  check(logs, 'G_gan_w G_rec_w G_gan_d G_rec_d ssim tv CD', [
      (-0.083685, 47.125400, -0.092787, 53.046799, 9.889959, 1.622949, 0.982277),
      (-0.090904, 46.932207, -0.093496, 53.011871, 9.881524, 1.620866, 0.980518)])
  check(logs, 'D_fake_w D_real_w D_fake_d', [(1.084197, 0.913478, 1.093013),
                                             (1.091193, 0.903228, 1.093865)])
  check(logs, 'feat style S_total', [(1.384669, 9.024885, 40.535221),
                                     (1.375280, 8.894267, 40.278581)])
  stats = states[-1].nets['student'].collections['batch_stats']['down1_norm']
  np.testing.assert_allclose(stats['mean'], (-0.02097654, -0.03578489, 0.05957951, 0.01655518),
                             atol=1e-8)
  np.testing.assert_allclose(stats['var'], (0.61000834, 0.86141418, 0.72581103, 0.70154441),
                             atol=1e-8)
  assert int(stats['count']) == 2


@pytest.mark.gpu
def test_steps_of_omgd_with_cycles(vgg):
  """Three steps of the teachers, then three of the student, on images that the teachers saw."""
  f64 = {'dtype': jnp.float64}
  G, D, S = nn.mobile_resnet(8, **f64), nn.PatchGAN(8, **f64), nn.mobile_resnet(4, **f64)
  method = methods.OMGDCycle(
      S, methods.CycleGAN(G, methods.Adversary(D, TX, 'lsgan'), TX), TX,
      methods.DistillLoss(*methods.PUBLISHED, methods.Taps('channel_means', 500., RESNET_TAPS),
                          feature_net=VGG),
      schedule=methods.AlternatingSchedule(3, 3))
  with jax.enable_x64(True):
    init_from = {'generator': start(G, 'GA.'), 'generator_ba': start(G, 'GB.'),
                 'disc': start(D, 'DA.'),
             'disc_ba': start(D, 'DB.'), 'student': start(S, 'S.'), 'features': vgg,
             'student_adapters': started_adapters(RESNET_TAPS, [(16, 32)] * 4)}
    logs, _ = run(method, init_from, waves(1, 64, (1, 2, 3, 1, 2, 3)))
  check(logs[:3], 'D_A G_A cyc_A idt_A D_B G_B cyc_B idt_B', [
      (0.595966, 1.064792, 5.024392, 2.598250, 1.176054, 2.174073, 5.090320, 2.513031),
      (0.503953, 0.823703, 4.987781, 2.545870, 1.041364, 2.129810, 5.013468, 2.497688),
      (0.427031, 0.804941, 4.984403, 2.517383, 0.981495, 2.093491, 4.991710, 2.481937)])
  found = [[*(log[f'student/{term}'] for term in (
      'ssim_generator', 'style_generator', 'feature_generator', 'tv')), taps(log),
            log['student/loss']] for log in logs[3:]]
  np.testing.assert_allclose(found, [
      (9.659446, 5.918248, 1.271192, 0.105499, 3.355601, 20.309987),
      (9.756246, 5.601877, 1.252248, 0.105820, 3.025964, 19.742155),
      (9.717276, 5.503179, 1.254272, 0.104892, 3.056783, 19.636401)], atol=2e-6)
