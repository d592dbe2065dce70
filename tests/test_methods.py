"""Laws of the methods: who learns from whom, what a step touches, every option takes a step."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen

import jaxgan_compress as jgc
from jaxgan_compress import core, data, methods, nn
from jaxgan_compress.core import Axes, Net
from jaxgan_compress.losses import gan as gan_losses
from jaxgan_compress.losses import image as image_losses
from tests.conftest import largest_difference, small_gan, small_kd
from tests.replicas import replica_disagreement


def batch_of(images, size=8):
  return core.normalise({'target': images[:size]})


@functools.cache
def step_of(method):
  return jax.jit(method.step)


def moved(before, after):
  """The networks whose parameters a step changed."""
  return {name for name in before.nets
          if largest_difference(before.nets[name].params, after.nets[name].params)}


def test_mse_scheme_has_no_discriminator_and_touches_no_image(sgd, init_from):
  method = small_kd(sgd, adv_weight=0)
  assert not method.needs_data

  class Forbidden(dict):
    def __getitem__(self, key):
      raise AssertionError(f'read {key}')

  state = method.init(jax.random.key(0), Forbidden(), init_from)
  assert set(state.nets) == {'student'} and set(state.frozen) == {'teacher'}
  after, logs = jax.jit(lambda state: method.step(state, Forbidden(row=np.arange(4))))(state)
  assert moved(state, after) == {'student'} and int(after.step) == 1
  assert set(core.flatten_logs(logs)) == {
      'student/loss', 'student/mse', 'mse_per_pixel/student', 'grad_norm/student'}

  def raises():
    raise AssertionError('the data was read')
    yield

  with pytest.raises(AssertionError, match='the data was read'):
    next(jgc.fit(method, state, raises(), steps=1))  # it reads a batch for its size ...
  final, _ = list(jgc.fit(method, state, data.sizes_only(4), steps=1))[-1]  # ... and no image
  assert int(final.step) == 1


@pytest.mark.parametrize('disc_init, expected', [
    ('teacher', {'student', 'disc'}), ('fresh', {'student', 'disc'}), ('frozen', {'student'})])
def test_who_moves_in_a_joint_step(sgd, init_from, images, disc_init, expected):
  method = small_kd(sgd, adv_weight=.5, distill_weight=.5, disc_init=disc_init)
  state = method.init(jax.random.key(0), {}, init_from)
  after, logs = step_of(method)(state, batch_of(images))
  assert moved(state, after) == expected
  assert largest_difference(after.frozen, state.frozen) == 0  # no teacher feels its pupil
  if disc_init == 'teacher':
    assert largest_difference(state.nets['disc'].params, init_from['disc'].params) == 0
  if disc_init == 'fresh':
    assert largest_difference(state.nets['disc'].params, init_from['disc'].params) > 0
  assert all(np.isfinite(float(x)) for x in jax.tree.leaves(logs))


def test_weights_weigh_what_they_say(sgd, init_from, images):
  """Only the distilled term: the loss is distill_weight * MSE; alpha = 1 is a plain GAN."""
  pixels = small_kd(sgd, adv_weight=0, distill_weight=.25)
  plain = small_kd(sgd, adv_weight=1, distill_weight=0)
  states = [method.init(jax.random.key(0), {}, init_from) for method in (pixels, plain)]
  distilled, adversarial = jax.jit(lambda states, batch: [
      method.step(state, batch)[1] for method, state in zip((pixels, plain), states, strict=True)])(
          states, batch_of(images))
  np.testing.assert_allclose(distilled['student']['loss'],
                             .25 * 1024 * distilled['mse_per_pixel']['student'], rtol=1e-5)
  np.testing.assert_allclose(adversarial['student']['loss'], adversarial['student']['adv'],
                             rtol=1e-6)


def test_student_equal_to_its_teacher_has_nothing_to_learn(init_from):
  """In inference mode; `test_student_and_teacher_draw_from_the_same_latents` trains."""
  G = nn.DCGANGenerator(d=2, size=32)
  z = np.random.default_rng(3).standard_normal((4, 100), np.float32)

  def loss(params, lesson):
    image, _ = G.apply({'params': params, **init_from['teacher'].collections}, z)
    return image_losses.mse(image, lesson)

  @jax.jit
  def learned(teacher):
    lesson, _ = G.apply(teacher, z)
    value, grads = jax.value_and_grad(loss)(teacher['params'], lesson)
    return value, optax.tree.norm(grads)

  assert learned(init_from['teacher'].variables) == (0, 0)


def test_a_teachers_image_is_a_function_of_z_alone(sgd, init_from):
  z = np.random.default_rng(3).standard_normal((4, 100), np.float32)
  method = small_kd(sgd)
  state = method.init(jax.random.key(0), {}, init_from)
  all_four, alone = jax.jit(lambda state: (
      method.teach(state, z)[0], method.teach(state, z[1:2])[0]))(state)
  assert np.abs(all_four[1:2] - alone).max() < 1e-6


def test_student_and_teacher_generate_from_the_same_latents(sgd):
  """With the teacher's weights the student has nothing to learn."""
  teacher = Net(Spots().init(jax.random.key(3), jnp.zeros((1, 5)))['params'])
  method = methods.KD(Spots(), Spots(), sgd)
  state = method.init(jax.random.key(0), {}, {'teacher': teacher, 'student': teacher})
  _, logs = step_of(method)(state, {'row': np.arange(8)})
  assert float(logs['student']['loss']) < 1e-6 and float(logs['grad_norm']['student']) < 1e-3


def test_further_terms_distil_noise_to_image_students(sgd, init_from, images):
  """Terms on pixels and on taps add to what KD minimises."""
  distill = methods.DistillLoss(methods.Pixel(2.), methods.Taps('ka', 3., ('layer1',)))
  method = small_kd(sgd, adv_weight=0., distill=distill)
  state = method.init(jax.random.key(0), {}, init_from)
  _, logs = step_of(method)(state, {'row': np.arange(4)})
  assert set(logs['student']) == {'loss', 'mse', 'pixel_teacher', 'tap_layer1'}
  np.testing.assert_allclose(logs['student']['loss'], sum(
      value for term, value in logs['student'].items() if term != 'loss'), rtol=1e-6)
  with pytest.raises(ValueError, match='KD takes no adapters'):
    small_kd(sgd, distill=methods.DistillLoss(methods.Taps('mse', 1., ('layer1',))))


def test_real_from_teacher_is_free_of_data(sgd, init_from, images):
  of = {source: small_kd(sgd, adv_weight=.5, real_from=source)
        for source in ('data', 'teacher', 'both')}
  assert [method.needs_data for method in of.values()] == [True, False, True]
  state = of['data'].init(jax.random.key(0), {}, init_from)

  @jax.jit
  def judged(state, batch):
    return [method.step(state, {'row': np.arange(8)} if source == 'teacher' else batch)[1]
            ['disc']['loss']
            for source, method in of.items()]

  assert len(set(map(float, judged(state, batch_of(images))))) == 3


def test_critic_updates_see_different_images_and_all_of_them(sgd, images, monkeypatch):
  """n_critic = 2 deals the rows a b a b of the batch as a a and b b."""
  seen = []
  judge = methods.Adversary.d_loss

  def watched(self, disc, real, *rest):
    seen.append(real)
    return judge(self, disc, real, *rest)

  monkeypatch.setattr(methods.Adversary, 'd_loss', watched)
  method = small_gan(sgd, disc_steps=2)
  batch = batch_of(images)

  @jax.jit
  def shown(state, batch):
    method.step(state, batch)
    return seen

  first, second = shown(method.init(jax.random.key(0), batch), batch)
  np.testing.assert_array_equal(first, batch['target'][0::2])
  np.testing.assert_array_equal(second, batch['target'][1::2])


@pytest.mark.parametrize('loss', [
    loss for loss in methods.adversary.LOSSES if loss not in gan_losses.RELATIVISTIC])
def test_every_loss_takes_twice_as_many_real_images(sgd, init_from, images, loss):
  method = methods.KD(
      nn.DCGANGenerator(d=1, size=32), nn.DCGANGenerator(d=2, size=32), sgd, adv_weight=.5,
      distill_weight=.01, disc_init='fresh', real_from='both', adversary=methods.Adversary(
          nn.DCGANDiscriminator(1, 32, 'none'), sgd, loss))
  state = method.init(jax.random.key(0), {}, init_from)
  logs = jax.eval_shape(method.step, state, batch_of(images))[1]
  assert logs['disc']['loss'].shape == ()


@pytest.mark.parametrize('loss', methods.adversary.LOSSES)
def test_every_loss_trains_both_networks(sgd, images, loss):
  # Relativistic ones compare drawings with as many real images, of those of several updates.
  method = small_gan(sgd, loss=loss, disc_steps=1 + (loss in gan_losses.RELATIVISTIC))
  state = method.init(jax.random.key(0), batch_of(images))
  after, logs = step_of(method)(state, batch_of(images))
  assert moved(state, after) == {'generator', 'disc'}
  assert all(np.isfinite(float(x)) for x in jax.tree.leaves(logs))
  if loss == 'wgan_clip':
    assert max(np.abs(x).max() for x in jax.tree.leaves(after.nets['disc'].params)) <= .01


@pytest.mark.gpu
@pytest.mark.essential
def test_jit_equals_eager_and_traces_once(sgd):
  # Eagerly every operation is a program of its own for each shape: networks of few of them.
  method = methods.KD(Spots(), Spots(), sgd, .5, .5, disc_init='fresh',
                      adversary=methods.Adversary(Watcher(), sgd))
  teacher = Net(Spots().init(jax.random.key(3), jnp.zeros((1, 5)))['params'])
  batch = {'target': np.random.default_rng(0).uniform(-1, 1, (8, 4, 4, 3)).astype(np.float32)}
  state = method.init(jax.random.key(0), batch, {'teacher': teacher})
  traces = []

  def step(state, batch):
    traces.append(1)
    return method.step(state, batch)

  jitted = jax.jit(step)
  with jax.disable_jit():
    expected, _ = method.step(state, batch)
  found, _ = jitted(state, batch)
  assert moved(state, found) == {'student', 'disc'}
  assert largest_difference(found, expected) < 1e-4
  jitted(found, batch)
  assert len(traces) == 1


def test_average_follows_and_is_drawn_and_taught_with(images):
  tx = optax.sgd(.1)
  method = methods.GAN(nn.DCGANGenerator(d=1, size=32), methods.Adversary(
      nn.DCGANDiscriminator(1, 32), tx), tx, ema=.75)
  state = method.init(jax.random.key(0), batch_of(images))
  after, _ = step_of(method)(state, batch_of(images))
  net, before = after.nets['generator'], state.nets['generator'].params
  expected = jax.tree.map(lambda old, new: .75 * np.asarray(old) + .25 * np.asarray(new), before,
                          net.params)
  assert largest_difference(net.ema, expected) < 1e-7
  assert method.generators(after)['generator'].variables['params'] is net.ema
  student = methods.KD(nn.DCGANGenerator(d=1, size=32), nn.DCGANGenerator(d=1, size=32), tx)
  taught = student.init(jax.random.key(0), {}, {'teacher': net})
  assert largest_difference(taught.frozen['teacher']['params'], net.ema) == 0


@pytest.mark.parametrize('fields', [
    dict(adv_weight=0), dict(adv_weight=.5, disc_steps=2, real_from='both')])
def test_replicas_agree_after_a_step(sgd, init_from, images, fields):
  method = small_kd(sgd, **fields)
  state = method.init(jax.random.key(0), {}, init_from)
  assert replica_disagreement(method.step, state, batch_of(images), 2) == []


def test_statistics_per_replica_or_global(sgd, init_from, images):
  def stats(sync, replicas):
    method = small_kd(sgd, bn_sync=sync)
    state = method.init(jax.random.key(0), {}, init_from)
    run = jgc.parallel.parallelize(method.step, replicas=replicas, via='vmap', donate=False)
    return run(state, batch_of(images))[0].nets['student'].collections

  alone = stats('replica', 1)
  assert largest_difference(stats('global', 2), alone) < 1e-6
  assert largest_difference(stats('replica', 2), alone) > 1e-6


@pytest.mark.parametrize('make, said', [
    (lambda tx: small_kd(tx, adv_weight=0, distill_weight=0), 'not both 0'),
    (lambda tx: small_kd(tx, disc_init='student'), 'teacher, fresh, frozen'),
    (lambda tx: small_kd(tx, mse_reduction='sum'), 'sum_pixels, mean'),
    (lambda tx: methods.KD(nn.DCGANGenerator(d=1), nn.DCGANGenerator(d=2), tx, adv_weight=.1),
     'needs an adversary'),
    (lambda tx: methods.KD(nn.DCGANGenerator(d=1), nn.DCGANGenerator(d=2, size=32), tx),
     'student has size=64 and the teacher size=32'),
    (lambda tx: methods.Adversary(nn.DCGANDiscriminator(2), tx, 'wgan_gp'), "norm='layer'"),
    (lambda tx: methods.Adversary(nn.DCGANDiscriminator(2), tx, 'wasserstein'), 'wgan_gp'),
    (lambda tx: methods.Adversary(nn.DCGANDiscriminator(2), tx, disc_steps=0), 'at least 1')])
def test_contradictions_are_refused_before_training(sgd, make, said):
  with pytest.raises(ValueError, match=said):
    make(sgd)


def test_missing_teacher_is_named(sgd, init_from):
  with pytest.raises(ValueError, match=r"with \['disc', 'teacher'\], got \[\]"):
    small_kd(sgd, adv_weight=.5).init(jax.random.key(0), {})
  with pytest.raises(ValueError, match=r"\['disc'\]"):
    small_kd(sgd, adv_weight=.5).init(jax.random.key(0), {}, {'teacher': init_from['teacher']})
  taps = methods.DistillLoss(methods.Taps('ka', 1., ('up9',)))
  with pytest.raises(ValueError, match='student has no tap up9; it has'):
    small_kd(sgd, distill=taps).init(jax.random.key(0), {}, init_from)


@pytest.mark.gpu
@pytest.mark.essential
def test_pixels_alone_teach_the_student(init_from):
  """Forty steps more than halve the distance to the teacher."""
  method = methods.KD(nn.DCGANGenerator(d=2, size=32), nn.DCGANGenerator(d=2, size=32),
                      optax.adam(1e-2))
  state = method.init(jax.random.key(0), {}, init_from)
  run = jgc.fit(method, state, data.sizes_only(16), steps=60, every=20,
                mesh=jgc.parallel.build_mesh(1))
  logs = [float(logs['mse_per_pixel']['student']) for _, logs in run]
  assert logs[-1] < logs[0] / 2


def test_a_step_in_bfloat16_keeps_float32_weights_and_losses(sgd, init_from, images):
  method = methods.KD(
      nn.DCGANGenerator(d=1, size=32, dtype='bfloat16'), nn.DCGANGenerator(d=2, size=32), sgd,
      adv_weight=.5, distill_weight=.01, adversary=methods.Adversary(
          nn.DCGANDiscriminator(2, 32, dtype='bfloat16'), sgd))
  state = method.init(jax.random.key(0), {}, init_from)
  after, logs = step_of(method)(state, batch_of(images))
  assert {x.dtype for x in jax.tree.leaves(after.params)} == {np.dtype('float32')}
  assert all(x.dtype == np.float32 and np.isfinite(x)
             for x in jax.tree.leaves(jax.device_get(logs)))


def two_layers():
  """A state of two matrices, the gradients of both, and the optimiser."""
  tx = {'net': optax.adam(1e-3)}
  params = {'first': jnp.full((96, 96), .1), 'second': jnp.full((96, 96), .2),
            'scale': jnp.ones((1, 96))}
  state = core.create(jax.random.key(0), {'net': ({'params': params}, tx['net'])}, ema=('net',))

  def grads(state, x):
    def loss(params):
      return jnp.square(jnp.tanh(x @ params['first']) @ params['second'] * params['scale']).sum()
    return {'net': jax.grad(loss)(state.nets['net'].params)}

  return state, grads, tx


def test_an_update_is_that_of_its_optimiser_and_its_norm_that_of_all_gradients(monkeypatch):
  monkeypatch.setattr(core.update, 'SMALL', 1000)  # the matrices are large, the scale is not
  state, grads, tx = two_layers()
  x = np.random.default_rng(1).standard_normal((4, 96), np.float32)
  moved, logs = jax.jit(lambda state, x: core.advance(state, grads(state, x), tx, ema=.9))(state, x)

  @jax.jit
  def by_hand(state, x):
    grad, net = grads(state, x)['net'], state.nets['net']
    updates, opt_state = tx['net'].update(grad, net.opt_state, net.params)
    params = optax.apply_updates(net.params, updates)
    average = jax.tree.map(lambda old, new: .9 * old + .1 * new, net.ema, params)
    return (params, opt_state, average), optax.tree.norm(grad)

  expected, norm = by_hand(state, x)
  assert largest_difference(expected, (
      moved.nets['net'].params, moved.nets['net'].opt_state, moved.nets['net'].ema)) < 1e-6
  np.testing.assert_allclose(logs['grad_norm']['net'], norm, rtol=1e-6)


def test_a_step_updates_its_parameters_in_place():
  state, grads, tx = two_layers()
  step = jax.jit(lambda state, x: core.advance(state, grads(state, x), tx), donate_argnums=0)
  program = step.lower(state.replace(nets={'net': state.nets['net'].replace(ema=())}),
                       jnp.ones((4, 96))).compile().as_text()
  assert not re.findall(r'f32\[96,96\]\S* copy\(', program)


class Brightness(linen.Module):
  """A critic whose logit is the mean of an image."""
  norm = 'none'

  @linen.compact
  def __call__(self, image, train=False, axes=None):
    return {'real': self.param('w', linen.initializers.ones_init(), ()) * image.mean((1, 2, 3))}, {}


def test_pairing_is_one_term_and_sees_both_kinds_of_real_images():
  """Of four real images, two of each kind, the first of each is paired."""
  adversary = methods.Adversary(Brightness(), optax.sgd(1.), 'rp')
  shade = lambda *x: jnp.array(x).reshape(-1, 1, 1, 1)
  found, _ = adversary.d_loss({'params': {'w': jnp.float32(1)}}, shade(1., 9., 3., 9.),
                              shade(0., 0.), None, lambda name, *seen, **_: (*seen, None), Axes())
  np.testing.assert_allclose(found, np.log1p(np.exp([-1, -3])).mean(), rtol=1e-6)


def test_images_alone_teach_the_same_rows_on_any_number_of_replicas(sgd, images):
  method = methods.KD(nn.DCGANGenerator(d=1, size=32), None, sgd, adv_weight=.5, disc_init='fresh',
                      adversary=methods.Adversary(nn.DCGANDiscriminator(1, 32), sgd, disc_steps=2))
  state = method.init(jax.random.key(0), {})
  batch = {**batch_of(images), 'z': jax.random.normal(jax.random.key(1), (8, 100))}
  one, two = (jgc.parallel.parallelize(method.step, replicas=replicas, via='vmap', donate=False)(
      state, batch)[0] for replicas in (1, 2))
  assert largest_difference(one.params, two.params) < 1e-5


def test_the_students_update_has_latents_of_its_own(sgd, init_from, images):
  method = small_kd(sgd, adv_weight=.5, disc_steps=2)
  state = method.init(jax.random.key(0), {}, init_from)
  _, logs = step_of(method)(state, batch_of(images))

  @jax.jit
  def expected(state):
    z = Axes().sample(jax.random.normal, state.key('z'), (4, 100))
    drawn, _ = method.student.apply(state.nets['student'].variables, z, train=True,
                                    mutable=['batch_stats'])[0]
    return jnp.square(drawn - method.teach(state, z)[0]).mean()

  np.testing.assert_allclose(logs['mse_per_pixel']['student'], expected(state), rtol=1e-5)


def test_a_key_is_of_its_step_and_its_name():
  state = core.TrainState(jnp.int32(0), jax.random.key(0), {})
  keys = [state.key('z'), state.key('mix'), state.tick().key('z')]
  assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == 3


def test_logs_of_one_network_are_put_together():
  logs = core.merge_logs({'a': {'x': 1}, 'b': {'x': 2}}, {'a': {'y': 3}})
  assert logs == {'a': {'x': 1, 'y': 3}, 'b': {'x': 2}}
  assert core.flatten_logs({'step': 4, **logs}) == {'step': 4, 'a/x': 1, 'a/y': 3, 'b/x': 2}


def test_a_norm_counts_arrays_of_any_size(monkeypatch):
  monkeypatch.setattr(core.update, 'SMALL', 4)
  found = core.update._norm([jnp.ones(n) for n in (3, 4, 5)])
  np.testing.assert_allclose(found, np.sqrt(12), rtol=1e-6)


def test_cross_entropy_is_a_mean(sgd):
  method = methods.Classifier(nn.SmallClassifier(), sgd)
  batch = {'target': jnp.zeros((6, 32, 32, 1)), 'label': jnp.arange(6)}
  state = method.init(jax.random.key(0), batch)
  zeros = jax.tree.map(jnp.zeros_like, state.nets['classifier'].params)
  state = state.replace(nets={'classifier': state.nets['classifier'].replace(params=zeros)})
  np.testing.assert_allclose(step_of(method)(state, batch)[1]['classifier']['loss'], np.log(10),
                             rtol=1e-6)


# --- statistics of discriminators ---


class Tint(linen.Module):
  """A generator of three weights a colour."""
  @linen.compact
  def __call__(self, x, train=False, axes=Axes()):
    return jnp.tanh(linen.Dense(3)(x)), {}


class Spots(linen.Module):
  """A generator from noise, as small."""
  latent: int = 5

  @linen.compact
  def __call__(self, z, train=False, axes=Axes()):
    return jnp.tanh(linen.Dense(48)(z)).reshape(-1, 4, 4, 3), {}

  def example(self):
    return jnp.zeros((1, self.latent))


class Watcher(linen.Module):
  """A discriminator whose batch norms see the image itself, each head's after one of all."""
  heads: tuple[str, ...] = ('real',)

  @linen.compact
  def __call__(self, image, condition=None, train=False, axes=Axes()):
    x = nn.BatchNorm(name='stage1_norm')(image, train, axes)
    several = len(self.heads) > 1
    return {head: (nn.BatchNorm(name=f'stage2_{head}_norm')(image, train, axes) if several else x
                   ) + x for head in self.heads}, {}


PASSES = {  # of each method: {its discriminator's statistics: what they see in one step}
    'Pix2Pix': ('disc', {'stage1_norm': 'generator target generator'}),
    'CAT': ('disc', {'stage1_norm': 'student target student'}),
    'CAT unpaired': ('disc', {'stage1_norm': 'student target student'}),
    'OMGD': ('disc', {'stage1_norm': 'wide target deep target wide deep',
                      'stage2_wide_norm': 'wide target wide',
                      'stage2_deep_norm': 'deep target deep'}),
    'OMGD, every second': ('disc', {'stage1_norm': 'wide target deep target wide deep'}),
    'CycleGAN': ('disc', {'stage1_norm': 'generator target generator'}),
    'CycleGAN, reverse': ('disc_ba', {'stage1_norm': 'generator_ba source generator_ba'}),
    'OMGDCycle': ('disc', {'stage1_norm': 'generator target generator'}),
    'OMGDCycle in turns': ('disc', {'stage1_norm': 'generator target generator'}),
    'GauGAN': ('disc', {'stage1_norm': 'generator+target moved+target'}),
    'CATGauGAN': ('disc', {'stage1_norm': 'student+target moved+target'}),
    'GAN': ('disc', {'stage1_norm': 'target z_disc0 z'}),
    'GAN, relativistic': ('disc', {'stage1_norm': 'target z_disc0 z target'}),
    'KD': ('disc', {'stage1_norm': 'target z_disc0 z'}),
}


def watched(name, tx):
  """(the method, what `init` is given)."""
  judge = lambda loss='hinge', **fields: methods.Adversary(Watcher(**fields), tx, loss)
  taught = {'teacher': Net(Tint().init(jax.random.key(3), jnp.zeros((1, 4, 4, 3)))['params'])}
  pixels = methods.DistillLoss(methods.Pixel(1.))
  name, _, more = name.partition(' ')
  if name in ('CAT', 'CATGauGAN'):
    fields = {'feature_weight': 0.} if name == 'CATGauGAN' else {'paired': more != 'unpaired'}
    return getattr(methods, name)(Tint(), Tint(), judge(), tx, align_weight=0., taps=(),
                                  **fields), taught
  if name in ('OMGD', 'OMGD,'):
    return methods.OMGD(Tint(), tx, judge(heads=('wide', 'deep')), Tint(), Tint(), pixels,
                        teacher_every=2 if more else 1), None
  if name in ('CycleGAN', 'CycleGAN,'):
    return methods.CycleGAN(Tint(), judge('lsgan'), tx, pool=0), None
  if name == 'OMGDCycle':
    cycle = methods.CycleGAN(Tint(), judge('lsgan'), tx, pool=0)
    return methods.OMGDCycle(Tint(), cycle, tx, pixels,
                             methods.AlternatingSchedule(1, 1) if more else None), None
  if name == 'KD':
    teacher = Net(Spots().init(jax.random.key(3), jnp.zeros((1, 5)))['params'])
    return methods.KD(Spots(), Spots(), tx, .5, adversary=judge(), disc_init='fresh'), {
        'teacher': teacher}
  if name in ('GAN', 'GAN,'):
    return methods.GAN(Spots(), judge('rp' if more else 'ns'), tx), None
  fields = {'feature_weight': 0.} if name == 'GauGAN' else {}
  return getattr(methods, name)(Tint(), judge(), tx, **fields), None


@pytest.mark.parametrize('name', PASSES)
def test_a_discriminators_statistics_move_with_each_of_its_passes(sgd, name):
  """In the order of the published code, for two steps, of one device as of two."""
  method, init_from = watched(name, sgd)
  role, passes = PASSES[name]
  rng = np.random.default_rng(0)
  batch = {side: rng.uniform(-1, 1, (4, 4, 4, 3)).astype(np.float32)
           for side in ('source', 'target')}
  state = method.init(jax.random.key(0), batch, init_from)

  def image(kind, before, after):
    if kind in batch:
      return batch[kind]
    if kind.startswith('z'):
      z = Axes().sample(jax.random.normal, before.key(kind), (4, 5))
      return method.generators(before)[method.main](z)
    state, kind = (after, method.main) if kind == 'moved' else (before, kind)
    return method.generators(state)[kind](batch['target' if kind == 'generator_ba' else 'source'])

  step = jax.jit(method.step)
  expected = {norm: (np.zeros(3), np.ones(3), 0) for norm in passes}
  for i in range(2):
    before, (state, _) = state, step(state, batch)
    rests = {'OMGD, every second': 0, 'OMGDCycle in turns': 1}.get(name) == i
    for norm, seen in passes.items():
      for each in () if rests else seen.split():
        x = np.concatenate([image(kind, before, state) for kind in each.split('+')], dtype=float)
        mean, var, count = expected[norm]
        expected[norm] = (.9 * mean + .1 * x.mean((0, 1, 2)),
                          .9 * var + .1 * x.var((0, 1, 2), ddof=1), count + 1)
  found = state.nets[role].collections['batch_stats']
  for norm, (mean, var, count) in expected.items():
    np.testing.assert_allclose(found[norm]['mean'], mean, atol=1e-6, err_msg=norm)
    np.testing.assert_allclose(found[norm]['var'], var, rtol=1e-5, err_msg=norm)
    assert found[norm]['count'] == count
  if name in ('Pix2Pix', 'OMGD'):
    two = jgc.parallel.parallelize(method.step, replicas=2, via='vmap', donate=False)
    both = method.init(jax.random.key(0), batch, init_from)
    for _ in range(2):
      both, _ = two(both, batch)
    assert largest_difference(both.nets[role].collections, state.nets[role].collections) < 1e-5


@pytest.mark.parametrize('name', ['Pix2Pix', 'GauGAN', 'CAT', 'CATGauGAN', 'OMGD', 'CycleGAN',
                                  'OMGDCycle', 'GAN', 'KD'])
def test_data_without_what_a_method_learns_from_is_refused(sgd, name):
  method, init_from = watched(name, sgd)
  whole = {side: np.zeros((4, 4, 4, 3), np.float32) for side in ('source', 'target')}
  lacking = {'source': whole['source'], 'label': np.zeros(4, int)}
  said = (f"{name} learns from ('source', )?'target', and the batch has 'label', 'source': "
          "'target' is missing")
  state = jax.eval_shape(lambda: method.init(jax.random.key(0), whole, init_from))
  with pytest.raises(ValueError, match=said):
    jax.eval_shape(method.step, state, lacking)
  if name != 'KD':  # which looks at no image there
    with pytest.raises(ValueError, match=said):
      method.init(jax.random.key(0), lacking, init_from)


@pytest.mark.parametrize('name, role', [('Pix2Pix', 'generator'), ('CAT', 'student'),
                                        ('OMGD', 'wide')])
def test_reconstruction_may_be_l1_l2_or_smooth_l1(sgd, name, role):
  """Each drawing against a target that is 1/4 and 2 away from it."""
  method, init_from = watched(name, sgd)
  x = np.random.default_rng(0).uniform(-1, 1, (2, 4, 4, 3)).astype(np.float32)
  state = method.init(jax.random.key(0), {'source': x, 'target': x}, init_from)
  away = np.where(np.arange(4).reshape(1, 4, 1, 1) % 2, .25, -2).astype(np.float32)

  @jax.jit
  def terms(state):
    batch = {'source': x, 'target': away + method.generators(state)[role](x)}
    return {loss: dataclasses.replace(method, recon_loss=loss).step(state, batch)[1][role]['recon']
            for loss in ('l1', 'l2', 'smooth_l1')}

  found = terms(state)
  for loss, value in (('l1', 2.25), ('l2', 4 + 1 / 16), ('smooth_l1', 1.5 + 1 / 32)):
    np.testing.assert_allclose(found[loss], 100 * value / 2, rtol=1e-5)
  with pytest.raises(ValueError, match="recon_loss='vgg'; one of l1, l2, smooth_l1"):
    dataclasses.replace(method, recon_loss='vgg')


def test_offline_students_and_classifiers_name_what_they_miss(sgd):
  tint = Net(Tint().init(jax.random.key(3), jnp.zeros((1, 4, 4, 3)))['params'])
  for teacher, wanted in ((Tint(), "'source'"), (None, "'source', 'target'")):
    with pytest.raises(ValueError, match=f"Offline learns from {wanted}, and the batch has 'im"):
      methods.Offline(Tint(), teacher, sgd).init(jax.random.key(0), {'image': 0}, {'teacher': tint})
  with pytest.raises(ValueError, match="Classifier learns from 'target', 'label', and the batch"):
    methods.Classifier(Tint(), sgd).init(jax.random.key(0), {'target': 0})
