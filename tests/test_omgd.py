"""Laws of the methods on images: who learns from whom, when, and on how many devices. The numbers
of published code are in test_trajectories.py."""

import dataclasses
import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen

from jaxgan_compress import core, data, methods, nn, train
from jaxgan_compress.core import Axes, Net
from jaxgan_compress.losses import image
from jaxgan_compress.losses.similarity import SIMILARITIES
from jaxgan_compress.methods import distillation, image_pool
from jaxgan_compress.nn.generators.spades import ModulatedBlock
from jaxgan_compress.nn.layers.conv import to_tanh_float32
from jaxgan_compress.parallel import build_mesh, parallelize, put_state
from jaxgan_compress.train import loop
from tests.conftest import largest_difference

FEATURE_NET = nn.VGG(16, layers=('relu1_2', 'relu2_2'))


def small_resnet(ngf, blocks=1, **fields):
  """Without strided convolutions, of which methods know nothing. The reference compiles in half the
  time, and the others are held equal to it elsewhere."""
  return nn.ResNetGenerator((ngf,), (ngf,) * blocks, (), implementation='reference', **fields)


STUDENT, WIDE, DEEP = small_resnet(2), small_resnet(4), small_resnet(2, 2)
DISC = functools.partial(nn.PatchGAN, 2, layers=1)
TAPS = methods.Taps('channel_means', 10., ('stem', 'block1'))
DISTILL = methods.DistillLoss(*methods.PUBLISHED, TAPS, feature_net=FEATURE_NET)
UNPERCEIVED = methods.DistillLoss(methods.SSIM(), methods.TotalVariation(), TAPS)
# Small steps: L1 terms have kinks, at which rounding decides where a large one goes.
SMALL = optax.sgd(1e-4)
# One compiled step for several rates.
RATED = optax.inject_hyperparams(optax.sgd)(learning_rate=.01)


def at_rate(state, role, rate):
  """The state whose network of this role learns by another rate, of a method by `RATED`."""
  net = state.nets[role]
  rated = net.opt_state._replace(hyperparams={'learning_rate': jnp.float32(rate)})
  return state.replace(nets={**state.nets, role: net.replace(opt_state=rated)})


def paired_disc(**fields):
  return DISC(inputs=6, **{'heads': ('wide', 'deep'), 'shared': 1, **fields})


def small_omgd(tx, adversary=None, **fields):
  adversary = {'disc': paired_disc(), 'tx': tx, 'loss': 'hinge', **(adversary or {})}
  return methods.OMGD(**{'student': STUDENT, 'wide': WIDE, 'deep': DEEP, 'tx': tx,
                         'adversary': methods.Adversary(**adversary), 'distill': DISTILL, **fields})


def small_pix2pix(tx, generator=WIDE, **adversary):
  return methods.Pix2Pix(generator, methods.Adversary(
      **{'disc': paired_disc(heads=('real',)), 'tx': tx, 'loss': 'hinge', **adversary}), tx)


def small_cycle(tx, pool=3, **adversary):
  return methods.CycleGAN(STUDENT, methods.Adversary(DISC(), tx, 'lsgan', **adversary), tx,
                          pool=pool)


def small_unpaired(tx, **fields):
  return methods.OMGDCycle(STUDENT, small_cycle(tx), tx, **{'distill': DISTILL, **fields})


class OneBlock(linen.Module):
  """A SPADE generator of one block, with all that the seven of the smallest whole one have."""
  width: int
  labels: int = 7
  channels: int = 3
  dtype: jnp.dtype = jnp.float32

  @linen.compact
  def __call__(self, labels, train: bool = False, axes: Axes = Axes()):
    x = nn.Conv(self.width, dtype=self.dtype, name='fc')(labels)
    block = nn.SPADEBlock(self.width, self.width, hidden=2)
    x = ModulatedBlock(block, 'batch', True, False, False, 'reference', self.dtype, name='head')(
        x, labels, train, axes)
    return to_tanh_float32(
        nn.Conv(self.channels, dtype=self.dtype, name='to_image')(x)), {'head': x}

  def example(self):
    return jnp.zeros((1, 8, 8, self.labels))


def small_gaugan(tx, channels=3):
  return methods.GauGAN(OneBlock(4, channels=channels), methods.Adversary(
      nn.MultiScale(2, layers=2, inputs=7 + channels), tx, 'hinge'), tx,
      feature_net=nn.VGG(19, layers=('relu1_1', 'relu2_1')))


def images_of(task, rows=8):
  source = data.samples(task, size=32, count=rows)
  stacked = {name: np.stack([source[i][name][:16, :16] for i in range(rows)])
             for name in source[0]}
  prepared = getattr(source, 'prepare', dict)({k: jnp.asarray(x) for k, x in stacked.items()})
  return {name: np.asarray(x) for name, x in core.normalise(prepared).items()}


@pytest.fixture(scope='module')
def batch():
  return images_of('colorize')


@pytest.fixture(scope='module')
def textures():
  return images_of('grass2gravel')


@pytest.fixture(scope='module')
def method(sgd):
  return small_omgd(sgd, extra_students={'half': small_resnet(1)})


@pytest.fixture(scope='module')
def state(method, batch):
  return jax.device_get(method.init(jax.random.key(0), batch))


def alone(state):
  """As one replica sees it: its own memory without the axis of replicas."""
  return state.replace(replica_state=jax.tree.map(lambda x: x[0], state.replica_state))


def moved_by(method, state, batch):
  """({loss: the networks that it moves}, the terms)."""
  @jax.jit
  def every_gradient(params):
    losses, pull, (terms, *_) = jax.vjp(lambda p: method.losses(p, state, batch), params,
                                        has_aux=True)
    one_each = dict(zip(losses, jnp.eye(len(losses)), strict=True))
    grads, = jax.vmap(pull)(one_each)
    norms = jax.vmap(lambda grads: {name: optax.tree.norm(grad) for name, grad in grads.items()})
    return dict.fromkeys(losses, 0), norms(grads), terms

  losses, norms, terms = every_gradient(state.params)
  return {loss: {name for name, each in norms.items() if each[i] > 0}
          for i, loss in enumerate(losses)}, terms


def test_teaching_graph(method, state, batch):
  """Each loss moves exactly its own learners."""
  assert moved_by(method, state, batch)[0] == {
      'disc': {'disc'}, 'wide': {'wide'}, 'deep': {'deep'},
      'student': {'student', 'student_adapters'}, 'half': {'half', 'half_adapters'}}


def test_teaching_graph_of_cycles(sgd, textures):
  """Without a clock students learn from what their teachers drew in the step."""
  method = small_unpaired(sgd, student_ba=small_resnet(1))
  state = alone(method.init(jax.random.key(0), textures))
  moved, terms = moved_by(method, state, textures)
  assert moved == {
      'generators': {'generator', 'generator_ba'}, 'disc': {'disc'}, 'disc_ba': {'disc_ba'},
      'student': {'student', 'student_adapters'},
      'student_ba': {'student_ba', 'student_ba_adapters'}}
  similarity = jax.jit(lambda draw, x: image.ssim(draw['student'](x), draw['generator'](x)))
  np.testing.assert_allclose(terms['student']['ssim_generator'], 10 * (1 - similarity(
      method.generators(state), textures['source']).mean()), rtol=1e-5)


def test_students_do_not_feel_each_other(method, sgd, state, batch):
  """A student learns the same with others beside it and without."""
  without = small_omgd(sgd)
  fewer = state.replace(nets={name: net for name, net in state.nets.items()
                              if not name.startswith('half')})
  many, few = jax.jit(lambda batch: [m.step(s, batch)[0] for m, s in (
      (method, state), (without, fewer))])(batch)
  for name in few.nets:
    assert largest_difference(many.nets[name], few.nets[name]) < 1e-7
  assert largest_difference(many.frozen, state.frozen) == 0


@pytest.mark.essential
def test_teachers_move_when_they_are_due(sgd, batch):
  method = small_omgd(sgd, deep=None, teacher_every=2, distill=UNPERCEIVED)
  pupils = {'student', 'student_adapters'}
  state, move = method.init(jax.random.key(0), batch), jax.jit(method.step)
  for step, moving in ((0, pupils), (1, pupils | {'wide', 'disc'}), (2, pupils)):
    before = state.replace(step=jnp.int32(step))
    after, logs = move(before, batch)
    assert {name for name in before.nets if largest_difference(
        before.nets[name].params, after.nets[name].params)} == moving
    assert all((logs['grad_norm'][name] > 0) == (name in moving) for name in before.nets)
    assert int(after.step) == step + 1


@pytest.mark.essential
def test_the_discriminator_moves_before_the_generator(batch):
  """pix2pix: the generator answers to the judge where it now stands."""
  method = small_pix2pix(RATED)
  state, step = method.init(jax.random.key(0), batch), jax.jit(method.step)
  (after, logs), (_, other) = (step(s, batch) for s in (state, at_rate(state, 'disc', 10.)))
  assert logs['disc']['real'] == other['disc']['real']
  assert abs(logs['generator']['adv'] - other['generator']['adv']) > 1e-3
  np.testing.assert_allclose(logs['disc']['loss'],
                             (logs['disc']['real'] + logs['disc']['fake']) / 2, rtol=1e-6)

  @jax.jit
  def adv(generator, disc):
    """By hand: the judge after its step, on the drawing before the generator's."""
    drawn = method.generator.apply(generator, batch['source'], train=True)[0]
    return -method.adversary.disc.apply(disc, drawn, batch['source'])[0]['real'].mean()

  np.testing.assert_allclose(logs['generator']['adv'], adv(
      state.nets['generator'].variables, after.nets['disc'].variables), rtol=1e-4)


@pytest.mark.essential
def test_a_label_map_generator_moves_before_its_discriminator():
  shapes = images_of('shapes', 2)
  method = small_gaugan(RATED)
  state, step = method.init(jax.random.key(0), shapes), jax.jit(method.step)
  (after, one), (_, other) = (step(s, shapes) for s in (state, at_rate(state, 'generator', 1.)))
  assert one['generator']['adv'] == other['generator']['adv']
  assert one['disc']['fake'] != other['disc']['fake']
  assert one['disc']['real'] == other['disc']['real']
  norm = lambda s: jax.tree_util.tree_leaves_with_path(s.nets['generator'].collections)
  counts = [int(x) for path, x in norm(after) if path[-1].key == 'count']
  assert counts and set(counts) == {2}  # two drawings a step
  terms = [one['generator'][term] for term in ('adv', 'match', 'feature')]
  np.testing.assert_allclose(sum(terms), one['generator']['loss'], rtol=1e-6)
  assert min(terms[1:]) > 0


def two_steps(method, state, batch, devices, via, replicas=None):
  step = parallelize(
      lambda s, b, axes: method.step(s, b, axes), build_mesh(devices), via=via,
      replicas=replicas, donate=False)
  found = put_state(state, step.mesh, step.replicas)
  for i in range(2):
    found, logs = step(found, {name: np.roll(x, i, 0) for name, x in batch.items()})
  return jax.device_get(found), core.flatten_logs(jax.device_get(logs))


def in_float64(value):
  """The same method, computing in float64: what is left of a difference is then no rounding."""
  if isinstance(value, nn.VGG) or hasattr(value, 'clone'):
    return value.clone(dtype=jnp.float64)
  if dataclasses.is_dataclass(value):
    return dataclasses.replace(value, **{
        field.name: in_float64(getattr(value, field.name)) for field in dataclasses.fields(value)})
  return value


def agree(method, batch, *ways, replicas=None):
  """Two steps come to the same in every way, after `(devices, via)`, as on one device.

  In float64: L1 terms have kinks, at which float32 would decide where a gradient goes. Without
  perceptual terms, which couple no rows and take minutes in float64.
  """
  with jax.enable_x64(True):
    rows = {name: np.asarray(x, np.float64) if x.dtype == np.float32 else x
            for name, x in batch.items()}
    method = in_float64(method)
    state = method.init(jax.random.key(0), rows)
    oracle = two_steps(method, state, rows, 1, 'vmap', replicas)
    for way in ways:
      found = two_steps(method, state, rows, *way, replicas)
      assert largest_difference(found[0], oracle[0]) < 1e-9
      for name, value in oracle[1].items():
        np.testing.assert_allclose(found[1][name], value, rtol=1e-7, atol=1e-10)
  return oracle[0]


def test_devices_change_nothing(batch):
  """Batch statistics of the adapters and the summed total variation among it."""
  agree(small_omgd(SMALL, distill=UNPERCEIVED), batch, (2, 'pmap'), (4, 'shard_map'))


@pytest.mark.parametrize('schedule', [None, methods.AlternatingSchedule(1, 1)])
def test_devices_change_nothing_of_pools(textures, schedule):
  """Teachers and student in each step, or one step of the teachers and one of the student."""
  state = agree(small_unpaired(SMALL, schedule=schedule, distill=UNPERCEIVED), textures,
                (2, 'pmap'), (4, 'shard_map'), replicas=4)
  assert state.replica_state['disc']['images'].shape == (4, 3, 16, 16, 3)


def test_a_memory_of_other_replicas_is_refused(textures):
  method = small_cycle(SMALL)
  state = put_state(method.init(jax.random.key(0), textures), build_mesh(2), 2)
  with pytest.raises(ValueError, match='remembers images for 2 replicas and 4 .* replicas=2'):
    put_state(state, build_mesh(4), 4)


def test_the_pool_is_what_cyclegan_has():
  """Fills first; then swaps half of the time, with every place; the same as plain Python."""
  pool = jax.tree.map(lambda x: x[0], image_pool.empty_pool(4, (1, 1, 1)))
  ask = jax.jit(image_pool.from_pool)
  stored, swaps, places = [], 0, set()
  for i in range(200):
    image = np.float32(2 * i) + np.arange(2, dtype=np.float32).reshape(2, 1, 1, 1)
    pool, shown = ask(pool, image, jax.random.key(i))
    for new, out in zip(image.ravel().tolist(), shown.ravel().tolist(), strict=True):
      if len(stored) < 4:
        assert out == new
        stored.append(new)
      elif out != new:
        place = stored.index(out)
        stored[place] = new
        swaps += 1
        places.add(place)
    np.testing.assert_array_equal(np.ravel(pool['images'])[:len(stored)], stored)
  assert 150 < swaps < 246 and places == {0, 1, 2, 3}  # 198 of 396 expected, 5 sigma


def test_the_clock_is_the_published_schedule():
  """summer2winter and horse2zebra at 0.75x: the last teacher block may be shorter."""
  schedule = methods.AlternatingSchedule(teacher_steps=12, student_steps=48, total=200)
  turns = np.asarray(schedule.teaching(jnp.arange(schedule.steps)))
  assert turns.sum() == 200 and (~turns).sum() == 816 == 17 * 48
  assert turns[:12].all() and not turns[12:60].any() and turns[60]
  assert not turns[-48:].any() and turns[-56:-48].all() and not turns[-57]
  assert not schedule.teaching(schedule.steps)
  assert methods.AlternatingSchedule(2,
      3).steps is None and bool(methods.AlternatingSchedule(2, 3).teaching(5_000_001))
  with pytest.raises(ValueError, match='student_steps=0; at least 1 step'):
    methods.AlternatingSchedule(2, 0)


@pytest.fixture(scope='module')
def turns(sgd, textures):
  """A method whose learners take turns, its step, and a state where the teachers are due."""
  method = small_unpaired(sgd, schedule=methods.AlternatingSchedule(1, 1), student_ba=STUDENT,
                          distill=UNPERCEIVED)
  return method, jax.jit(method.step), alone(method.init(jax.random.key(0), textures))


@pytest.mark.essential
def test_turns_move_one_side_only(turns, textures):
  _, move, state = turns
  teachers = {'generator', 'generator_ba', 'disc', 'disc_ba'}
  for step, moving in ((0, teachers), (1, set(state.nets) - teachers)):
    after, logs = move(state.replace(step=jnp.int32(step)), textures)
    assert {name for name in state.nets if largest_difference(
        state.nets[name].params, after.nets[name].params)} == moving
    assert (logs['student']['loss'] == 0) == (step == 0) == bool(logs['generator']['loss'] > 0)
    assert (largest_difference(state.replica_state, after.replica_state) > 0) == (step == 0)


def test_the_best_teacher_of_each_direction_teaches(sgd, turns, textures):
  method, step, state = turns
  state = state.replace(step=jnp.int32(1))
  other = jax.tree.map(lambda x: np.asarray(x) + np.float32(.1), state.nets['generator'].params)
  newer = state.replace(nets={**state.nets, 'generator': state.nets['generator'].replace(
      params=other)})

  def loss(state, role='student'):
    return float(step(state, textures)[1][role]['loss'])

  assert loss(state) != loss(newer)  # while none was promoted, the newest teaches
  promoted = method.update_best_teachers(state, {'generator': 5., 'generator_ba': 5.})
  stays = promoted.replace(nets=newer.nets)
  assert loss(stays) == loss(state)
  assert loss(method.update_best_teachers(stays, {'generator': 6.})) == loss(state)
  better = method.update_best_teachers(stays, {'generator': 4., 'generator_ba': 6.})
  assert loss(better) == loss(newer) and float(better.frozen['best']['generator_ba']['score']) == 5
  assert loss(better, 'student_ba') == loss(state, 'student_ba')
  # Who teaches is what is drawn with and measured.
  assert largest_difference(method.generators(stays)['generator'].variables['params'],
                            state.nets['generator'].params) == 0
  with pytest.raises(ValueError, match='no best teacher without a schedule'):
    small_unpaired(sgd).update_best_teachers(state, {})


def test_averages_follow_and_may_teach(sgd, batch):
  method = small_omgd(sgd, ema=.9, deep=None, distill=UNPERCEIVED)
  state, step = method.init(jax.random.key(0), batch), jax.jit(method.step)
  after, logs = step(state, batch)
  for name in ('student', 'wide'):
    old, new = state.nets[name], after.nets[name]
    expected = jax.tree.map(lambda a, b: .9 * np.asarray(a) + .1 * np.asarray(b), old.params,
                            new.params)
    assert largest_difference(new.ema, expected) < 1e-7
    assert method.generators(after)[name].variables['params'] is new.ema
  assert after.nets['disc'].ema == ()
  # Two steps on, averaged and current teachers differ, and so do their lessons.
  averaged = dataclasses.replace(method, teacher_params='ema')
  ours, theirs = jax.jit(lambda state: [m.losses(state.params, state, batch)[1][0]
                                        for m in (averaged, method)])(after)
  assert ours['wide']['loss'] == theirs['wide']['loss'] != logs['wide']['loss']
  assert ours['student']['ssim_wide'] != theirs['student']['ssim_wide']


def test_penalties_and_relative_losses_reach_the_discriminator_alone(sgd, batch):
  variants = [dict(r1=2.), dict(r2=2.), dict(loss='rp'), dict(loss='ra')]
  plain, *others = (small_omgd(sgd, deep=None, adversary=adversary, distill=UNPERCEIVED)
                    for adversary in [{}, *variants])
  state = plain.init(jax.random.key(0), batch)

  @jax.jit
  def found(params):
    def disc(params, method):
      losses = method.losses(params, state, batch)[0]
      return losses['disc'], losses

    each = [jax.grad(disc, has_aux=True)(params, method) for method in (plain, *others)]
    return [(losses, optax.tree.norm(grads['wide'])) for grads, losses in each]

  (before, _), *after = found(state.params)
  for adversary, (losses, on_teacher) in zip(variants, after, strict=True):
    assert losses['disc'] != before['disc'] and on_teacher == 0
    if 'loss' not in adversary:
      assert losses['wide'] == before['wide']


def test_every_similarity_moves_the_student(sgd, batch):
  adapted = {name: bool(one.adapter) for name, one in SIMILARITIES.items()}
  assert sum(adapted.values()) == 5 and len(adapted) == 11
  of = lambda similarity: small_omgd(sgd, deep=None, distill=methods.DistillLoss(
      dataclasses.replace(TAPS, similarity=similarity)))
  states = {similarity: of(similarity).init(jax.random.key(0), batch) for similarity in adapted}

  @jax.jit
  def norms(states):
    return {distance: {name: optax.tree.norm(grad) for name, grad in jax.grad(
        lambda params, state=state, method=of(distance): method.losses(
            params, state, batch)[0]['student'])(state.params).items()}
            for distance, state in states.items()}

  for distance, found in norms(states).items():
    assert ('student_adapters' in found) == adapted[distance]
    assert {name for name, norm in found.items() if norm} == {'student'} | (
        {'student_adapters'} if adapted[distance] else set())


def test_taps_of_a_teacher_are_not_moved_by_themselves():
  term, x = methods.Taps('attention', 1., ('a',)), jnp.arange(1., 17.).reshape(1, 4, 4, 1)
  output = lambda taps: methods.Output(jnp.zeros(()), {'a': taps})

  def loss(student, teacher):
    return term.values(output(student), {'wide': output(teacher)}, Axes())[0]['tap_a']

  of_student, of_teacher = jax.jit(jax.grad(loss, (0, 1)))(x, x[:, ::-1])
  assert np.abs(of_student).max() > 0 and not of_teacher.any()


def test_reductions_of_paper_and_code(sgd, batch):
  code, paper = (small_omgd(sgd, distill=methods.DistillLoss(
      methods.TotalVariation(reduction=of_image), dataclasses.replace(TAPS, reduction=of_taps)))
                 for of_image, of_taps in (('sum', 'sum'), ('image', 'mean')))
  state = code.init(jax.random.key(0), batch)
  code, paper = jax.jit(lambda state, batch: [
      method.losses(state.params, state, batch)[1][0] for method in (code, paper)])(
          state, {name: x[:4] for name, x in batch.items()})
  for tap in ('tap_stem', 'tap_block1'):
    np.testing.assert_allclose(code['student'][tap], 2 * paper['student'][tap], rtol=1e-5)
  # Two teachers and four images, against one mean over images.
  np.testing.assert_allclose(code['student']['tv'], 8 * paper['student']['tv'], rtol=1e-5)


@pytest.mark.essential
def test_an_offline_student_learns_from_a_finished_teacher(sgd, batch):
  teacher = small_pix2pix(sgd).init(jax.random.key(1), batch).nets['generator']
  method = methods.Offline(STUDENT, WIDE, sgd, DISTILL)
  state = method.init(jax.random.key(0), batch, {'teacher': teacher})
  after, logs = jax.jit(method.step)(state, {'source': batch['source']})
  assert largest_difference(after.frozen, state.frozen) == 0
  assert set(after.nets) == {'student', 'student_adapters'} and logs['student']['loss'] > 0
  with pytest.raises(ValueError, match='a teacher that has learned'):
    method.init(jax.random.key(0), batch)


def test_pixels_may_be_compared_too(sgd, batch):
  method = small_omgd(sgd, distill=methods.DistillLoss(methods.Pixel(3.)))
  state = method.init(jax.random.key(0), batch)
  logs = jax.jit(lambda state: method.losses(state.params, state, batch)[1][0])(state)
  drawn = jax.jit(lambda draw, x: {name: each(x) for name, each in draw.items()})(
      method.generators(state), batch['source'])
  drawn = {name: np.asarray(x) for name, x in drawn.items()}
  for teacher in ('wide', 'deep'):
    np.testing.assert_allclose(logs['student'][f'pixel_{teacher}'], 3 * np.abs(
        drawn['student'] - drawn[teacher]).mean(), rtol=1e-4)
  np.testing.assert_allclose(logs['student']['loss'], logs['student']['pixel_wide'] +
                             logs['student']['pixel_deep'], rtol=1e-5)


def test_a_single_teacher_will_do(sgd, batch):
  method = small_omgd(sgd, deep=None, distill=methods.DistillLoss(feature_net=FEATURE_NET))
  state = method.init(jax.random.key(0), batch)
  assert set(state.nets) == {'student', 'wide', 'disc'}
  _, logs = jax.eval_shape(method.step, state, batch)
  assert 'ssim_wide' in logs['student'] and 'deep' not in logs
  assert not any('deep' in term for terms in logs.values() for term in terms)


def crops(task):
  cut = lambda element, rng: {name: x[:16, :16] for name, x in element.items()}
  return data.Pipeline(data.samples(task, size=32), batch=4, augment=cut)


def resumes(method, pipeline, steps, at, hook=None):
  """Going on from each of the steps `at` gives the same bits as not stopping; returns the last
  state, the logs of the first stop and the last logs. All by one compiled step, traced once."""
  fresh = method.init(jax.random.key(0), core.normalise(pipeline[0]))
  seen, runs, traces = {}, [], []

  def once(step, *args, **kwargs):
    def counted(*args):
      traces.append(1)
      return step(*args)

    runs.append(runs[0] if runs else parallelize(counted, *args, **kwargs))
    return runs[0]

  with pytest.MonkeyPatch.context() as patched:
    patched.setattr(loop, 'parallelize', once)
    for state, logs in train.fit(method, fresh, pipeline, steps=steps, every=1, hook=hook):
      seen[logs['step']] = jax.device_get((state, logs))
    whole, logs = seen[steps]
    for stop in at:
      *_, (state, _) = train.fit(method, seen[stop][0], pipeline, steps=steps, every=steps,
                                 hook=hook)
      assert largest_difference(whole, jax.device_get(state)) == 0
  assert len(traces) == 1
  return whole, seen[at[0]][1], logs


def test_it_learns_and_stops_and_goes_on_to_the_same_bits(batch):
  method = small_omgd(optax.adam(2e-3, b1=0.5), deep=None, teacher_every=2, distill=UNPERCEIVED)
  whole, early, logs = resumes(method, crops('colorize'), 12, [4])
  assert logs['wide']['recon'] < early['wide']['recon']
  drawn = method.generators(whole)['student'](jnp.asarray(batch['source']))
  assert drawn.shape == batch['target'].shape


def test_turns_resume_in_the_middle_of_every_phase():
  method = small_unpaired(optax.adam(2e-3, b1=0.5), schedule=methods.AlternatingSchedule(2, 2, 4),
                          distill=UNPERCEIVED)

  def hook(state, step):  # at the end of each block of the teachers
    if step in (2, 6):
      return method.update_best_teachers(state, {'generator': 1. / step, 'generator_ba': 1.})
    return None

  # In the first block of the teachers, of the student, and in the second of the teachers.
  whole, _, _ = resumes(method, crops('grass2gravel'), 8, [1, 3, 5], hook)
  np.testing.assert_allclose(whole.frozen['best']['generator']['score'], 1 / 6)


def test_gradients_of_terms_add_up(sgd, batch):
  """Each term reaches its learner alone, and those of one term and one network are its norm."""
  method = small_omgd(sgd, deep=None, adv_weight=0., distill=methods.DistillLoss(
      methods.Taps('attention', 1., ('stem',))))
  state = method.init(jax.random.key(0), batch)
  found = methods.term_gradients(method, state, batch)
  _, logs = jax.jit(method.step)(state, batch)
  for role, term in (('student', 'student/tap_stem'), ('wide', 'wide/recon')):
    assert set(found[term]) == {role}
    np.testing.assert_allclose(found[term][role], logs['grad_norm'][role], rtol=1e-5)
  with pytest.raises(ValueError, match='Pix2Pix has no losses'):
    methods.term_gradients(small_pix2pix(sgd), state, batch)


def test_random_features_are_told_once(batch, caplog):
  distillation._warn.cache_clear()
  method = small_omgd(SMALL, deep=None)
  with caplog.at_level(logging.WARNING):
    state = method.init(jax.random.key(0), batch)
    method.init(jax.random.key(0), batch)
  assert caplog.text.count('VGG16 of random weights') == 1
  distillation._warn.cache_clear()
  caplog.clear()
  method.init(jax.random.key(0), batch, {'features': Net(state.frozen['features']['params'])})
  assert not caplog.text


@pytest.mark.parametrize('fields, message', [
    (dict(wide=None, deep=None), 'wide, deep or both'),
    (dict(teacher_every=0), 'teacher_every=0; at least 1'),
    (dict(deep=nn.resnet(2, 2, dropout=.5)), 'deep has dropout=0.5; OMGD trains without'),
    (dict(adversary=dict(loss='wgan_gp', disc=DISC(inputs=6))),
     'for generators that start from noise'),
    (dict(adversary=dict(disc_steps=2)), 'moves once a step'),
    (dict(adversary=dict(r1=-1.)), 'at least 0'),
    (dict(adversary=dict(r1=1., disc=paired_disc(norm='batch'))), "norm='instance'"),
    (dict(adversary=dict(disc=DISC(inputs=6))), 'no head for deep, wide'),
    (dict(extra_students={'wide': STUDENT}), 'extra_students has wide, which is taken'),
    (dict(teacher_params='ema'), 'give ema'), (dict(teacher_params='old'), 'one of current, ema')])
def test_contradictions_are_refused(sgd, fields, message):
  with pytest.raises(ValueError, match=message):
    small_omgd(sgd, **fields)


@pytest.mark.parametrize('make, message', [
    (lambda tx: methods.Taps('ka', 1.), 'name them, or weight=0'),
    (lambda tx: methods.Taps('gap', 1., ('stem',)), 'one of ka, cka, cka_debiased'),
    (lambda tx: methods.DistillLoss(methods.Pixel(0.)), 'no term of a weight above 0'),
    (lambda tx: methods.DistillLoss(methods.Pixel), r"takes terms, as Pixel\(100\.\)"),
    (lambda tx: methods.DistillLoss(TAPS, TAPS), 'has several Taps'),
    (lambda tx: methods.SSIM(-1.), 'at least 0'),
    (lambda tx: methods.DistillLoss(feature_net=nn.VGG(16, layers=('relu1_2',))),
     'feature_net leaves out'),
    (lambda tx: small_cycle(tx, pool=-1), 'pool=-1; at least 0'),
    (lambda tx: small_cycle(tx).init(jax.random.key(0), {
        'source': jnp.zeros((1, 16, 16, 1)), 'target': jnp.zeros((1, 16, 16, 3))}),
     'source has 1 channels and target 3; CycleGAN gives .* with equal channels'),
    (lambda tx: small_unpaired(tx, extra_students={'generator_ba': STUDENT}),
     'extra_students has generator_ba'),
    (lambda tx: small_unpaired(tx, teacher_params='ema'), 'give ema'),
    (lambda tx: methods.GauGAN(STUDENT, methods.Adversary(DISC(), tx, 'ra'), tx), 'takes loss'),
    (lambda tx: methods.KD(nn.DCGANGenerator(1), nn.DCGANGenerator(2), tx, adv_weight=1.,
                           adversary=methods.Adversary(nn.DCGANDiscriminator(2), tx, 'rp')),
     'does not read')])
def test_contradictions_of_the_others_are_refused(sgd, make, message):
  with pytest.raises(ValueError, match=message):
    make(sgd)


@pytest.mark.parametrize('fields', [{}, {'similarity': 'cka_pixel'}, {'weight': 0.}])
def test_an_unknown_tap_is_named(sgd, batch, fields):
  method = small_omgd(sgd, distill=methods.DistillLoss(
      methods.SSIM(), dataclasses.replace(TAPS, names=('block7',), **fields)))
  with pytest.raises(ValueError, match='student has no tap block7; it has block1, stem'):
    method.init(jax.random.key(0), batch)


def test_taps_of_other_sizes_take_the_distance_that_compares_no_positions(sgd, batch):
  deeper = nn.ResNetGenerator(stem=(2, 4), hidden=(4,), up=(2,))
  distill = methods.DistillLoss(dataclasses.replace(TAPS, similarity='attention'))
  with pytest.raises(ValueError, match='stem has 8x8 pixels in student and 16x16 in wide; atten'):
    small_omgd(sgd, student=deeper, distill=distill).init(jax.random.key(0), batch)
  small_omgd(sgd, student=deeper).init(jax.random.key(0), batch)


@pytest.mark.parametrize('channels', [1, 2, 4, 5])
def test_perceptual_terms_see_other_channels_as_rgb(channels):
  loss = methods.DistillLoss(methods.Perceptual(), feature_net=FEATURE_NET)
  x = jax.random.uniform(jax.random.key(0), (1, 8, 8, channels), minval=-1)
  frozen = loss.frozen(None)
  features = jax.jit(lambda x: loss.output(frozen, x).features)
  for name, taps in features(core.in_colour(x)).items():
    np.testing.assert_allclose(features(x)[name], taps, atol=1e-6)


def lite0(*layers):
  return nn.EfficientNetLite0(layers or ('stride2', 'stride4'))


def test_perceptual_terms_compare_maps_of_lite0_by_their_shares(sgd, caplog):
  """Of images in [-1, 1], which it scales itself, and of those layers that it has."""
  loss = methods.DistillLoss(methods.Perceptual(10.), feature_net=lite0('stride4', 'stride2'))
  variables = nn.initialise(loss.feature_net, jax.random.key(1), scheme='he')
  frozen = loss.frozen({'features': Net.of(variables)})
  assert not caplog.text
  x, y = jax.random.uniform(jax.random.key(0), (2, 1, 8, 8, 3), minval=-1)
  a, b = (loss.output(frozen, image) for image in (x, y))
  look = jax.jit(loss.feature_net.apply)
  one, two = (look(variables, image) for image in (x, y))
  differ = {name: float(np.abs(one[name] - two[name]).mean()) for name in one}
  _, terms, _, _ = loss.loss('student', a, {'teacher': b})
  np.testing.assert_allclose(terms['feature_teacher'], 10 * (
      .03 * differ['stride2'] + .023 * differ['stride4']), rtol=1e-4)
  with pytest.raises(ValueError, match='compares .* which feature_net leaves out; it has pooled'):
    methods.DistillLoss(methods.Perceptual(), feature_net=lite0('pooled'))
  gaugan = dataclasses.replace(small_gaugan(sgd), feature_net=lite0())
  shapes = images_of('shapes', 1)
  state = jax.eval_shape(gaugan.init, jax.random.key(0), shapes)
  assert 'feature' in jax.eval_shape(gaugan.step, state, shapes)[1]['generator']
  assert 'EfficientNetLite0 of random weights' in caplog.text


@pytest.mark.parametrize('kind', [methods.GauGAN, methods.CATGauGAN])
def test_a_weight_of_no_features_is_refused(sgd, kind):
  adversary = methods.Adversary(nn.MultiScale(2, layers=2, inputs=10), sgd, 'hinge')
  generators = (STUDENT,) * (1 + (kind is methods.CATGauGAN))
  for network in (nn.VGG(19, ('relu1_2',)), lite0('pooled')):
    with pytest.raises(ValueError, match=f'feature_net has {network.layers[0]}; name some of the'):
      kind(*generators, adversary, sgd, feature_net=network)


def test_label_maps_are_turned_into_other_channels_than_rgb(sgd):
  method = small_gaugan(sgd, 4)
  batch = {'source': jnp.zeros((1, 8, 8, 7)), 'target': jnp.zeros((1, 8, 8, 4))}
  state = jax.eval_shape(method.init, jax.random.key(0), batch)
  after, logs = jax.eval_shape(method.step, state, batch)
  assert 'feature' in logs['generator'] and after.step.shape == ()


def test_other_features_are_refused(sgd, batch):
  other = nn.initialise(nn.VGG(16, layers=('relu1_2',)), jax.random.key(0))
  with pytest.raises(ValueError, match='is no VGG16 up to relu2_2: its conv2_1 is missing'):
    small_omgd(sgd).init(jax.random.key(0), batch, {'features': Net(other['params'])})
  with pytest.raises(ValueError, match='is no EfficientNetLite0 up to stride4: its block1 is miss'):
    distillation.feature_variables(lite0(), {'features': Net(other['params'])})


@pytest.fixture(scope='module')
def pairs(batch):
  return {name: x[:4] for name, x in batch.items()}


def test_a_discriminator_minimises_half_of_both_sides(sgd, pairs):
  pix2pix, omgd = small_pix2pix(sgd), small_omgd(sgd, deep=None, distill=UNPERCEIVED)
  _, logs = jax.jit(pix2pix.step)(pix2pix.init(jax.random.key(0), pairs), pairs)
  np.testing.assert_allclose(logs['disc']['loss'],
                             (logs['disc']['real'] + logs['disc']['fake']) / 2, rtol=1e-6)
  _, logs = jax.jit(omgd.step)(omgd.init(jax.random.key(0), pairs), pairs)
  np.testing.assert_allclose(logs['disc']['loss'], (
      logs['disc']['real_wide'] + logs['disc']['fake_wide']) / 2, rtol=1e-6)


def test_features_of_the_judge_are_a_mean_over_scales(sgd):
  shapes = images_of('shapes', 2)
  method = small_gaugan(sgd)
  state = method.init(jax.random.key(0), shapes)
  _, logs = jax.jit(method.step)(state, shapes)

  @jax.jit
  def expected(state):
    drawn = method.generator.apply(state.nets['generator'].variables, shapes['source'], train=True,
                                   mutable=list(state.nets['generator'].collections))[0][0]
    (logits, taps), _ = method.adversary.apply(
        state.nets['disc'].variables, jnp.concatenate([drawn, shapes['target']]),
        jnp.concatenate([shapes['source']] * 2), Axes())
    assert len(logits) == 2
    return sum(jnp.abs(jnp.subtract(*jnp.split(x, 2))).mean() for x in taps.values())

  total = expected(state)
  np.testing.assert_allclose(logs['generator']['match'], 10 * total / 2, rtol=1e-4)


def test_a_teacher_that_is_only_as_good_does_not_replace_the_best(sgd):
  method = small_unpaired(sgd, schedule=methods.AlternatingSchedule(1, 1))
  textures = images_of('grass2gravel', 2)
  state = method.update_best_teachers(method.init(jax.random.key(0), textures), {'generator': 5.})
  moved = state.replace(nets={**state.nets, 'generator': state.nets['generator'].replace(
      params=jax.tree.map(lambda x: x + 1, state.nets['generator'].params))})
  again = method.update_best_teachers(moved, {'generator': 5.})
  assert largest_difference(again.frozen['best'], state.frozen['best']) == 0


@pytest.mark.parametrize('loss', ['rp', 'ra'])
def test_a_relative_loss_of_a_teacher_moves_the_teacher_alone(sgd, pairs, loss):
  method = small_omgd(sgd, deep=None, adversary=dict(loss=loss), distill=UNPERCEIVED)
  state = method.init(jax.random.key(0), pairs)
  grads = jax.jit(jax.grad(lambda p: method.losses(p, state, pairs)[0]['wide']))(state.params)
  assert {name for name, grad in grads.items() if optax.tree.norm(grad)} == {'wide'}


def test_a_finished_teacher_teaches_by_its_average(sgd, pairs):
  params = nn.initialise(WIDE, jax.random.key(1), pairs['source'])['params']
  average = jax.tree.map(lambda x: x / 2, params)
  method = methods.Offline(STUDENT, WIDE, sgd, UNPERCEIVED)
  state = method.init(jax.random.key(0), pairs, {'teacher': Net(params, ema=average)})
  assert largest_difference(state.frozen['teacher']['params'], average) == 0
