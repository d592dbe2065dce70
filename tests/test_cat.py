"""CAT: kernel alignment and whole training steps, recorded from published code in float32."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan_compress import convert, core, methods, nn
from jaxgan_compress.core import Net
from jaxgan_compress.losses.similarity import alignment
from jaxgan_compress.parallel import build_mesh, parallelize, put_state
from tests.conftest import PUBLISHED_ADAM, largest_difference
from tests.published import nhwc, normal_fill, state_dict, uniform
from tests.test_omgd import OneBlock

TX = PUBLISHED_ADAM
TAPS = ('stem', 'block3', 'block6', 'block9')


def waves(rectify):
  x = np.sin(0.37 * np.arange(600)).reshape(4, 6, 5, 5).astype(np.float32)
  y = np.cos(0.23 * np.arange(300) + 0.5).reshape(4, 3, 5, 5).astype(np.float32)
  return [nhwc(np.maximum(z, 0) if rectify else z) for z in (x, y)]


aligned = jax.jit(alignment, static_argnums=2)
valued = jax.jit(jax.value_and_grad(alignment), static_argnums=2)


def normal(*shape):
  """An array of each shape."""
  rng = np.random.default_rng(0)
  return [rng.standard_normal(each, np.float32) for each in shape]


@pytest.mark.parametrize('rectify, values, norm, first', [
    (False, {'ka': 0.7129153362, 'cka': 0.80637124, 'gka_pixel': 0.16723016}, 0.04477260,
     (-0.00259504, -0.00204646, -0.00122091)),
    (True, {'ka': 0.9414712064, 'cka': 0.87979823, 'gka_pixel': 0.29991637}, 0.03094236,
     (-1.1749e-5, -1.0612e-6, -1.9788e-6))])
def test_alignment_of_two_waves(rectify, values, norm, first):
  x, y = waves(rectify)
  for similarity, value in values.items():
    np.testing.assert_allclose(aligned(x, y, similarity), value, atol=3e-7)
  slope = -valued(x, y)[1]
  np.testing.assert_allclose(np.linalg.norm(slope), norm, rtol=1e-5)
  np.testing.assert_allclose(slope[0, 0, :3, 0], first, rtol=2e-5, atol=1e-8)


def test_unrelated_features_agree_only_without_the_correction():
  x, y = normal((8, 4, 4, 16), (8, 4, 4, 16))
  assert aligned(x, y, 'ka') > .8 and aligned(x, y, 'cka') > .8
  assert abs(aligned(x, y, 'cka_debiased')) < .3
  for similarity in ('ka', 'cka', 'cka_debiased', 'gka_pixel'):
    np.testing.assert_allclose(aligned(x, 3 * x, similarity), 1, atol=1e-5)


def test_large_features_do_not_overflow():
  """At a hundred times unit size the published form is 0, with a gradient of 0, in float32."""
  x, y = (100 * np.maximum(z, 0) for z in normal((20, 32, 32, 64), (20, 32, 32, 40)))
  value, slope = valued(x, y)
  assert .9 < value <= 1 and 0 < np.linalg.norm(slope) < np.inf
  small, _ = valued(x / 100, y / 100)
  np.testing.assert_allclose(value, small, rtol=1e-6)


def test_samples_that_look_alike_have_an_alignment():
  """Activations that differ by a hundredth from sample to sample: what they share cancels, and
  the estimate of HSIC, written out in float32, would be the root of a negative number."""
  x, y = (1 + np.float32(.01) * z for z in normal((8, 8, 8, 16), (8, 8, 8, 16)))
  for similarity in ('cka', 'cka_debiased'):
    value, slope = valued(x, y, similarity)
    exact = written_out(*(np.asarray(z, np.float64).reshape(8, -1) for z in (x, y)), similarity)
    np.testing.assert_allclose(value, exact, atol=2e-3)
    assert np.isfinite(slope).all() and 0 < np.linalg.norm(slope) < 1e3


@pytest.mark.parametrize('similarity', ['ka', 'cka', 'cka_debiased', 'gka_pixel'])
def test_samples_that_are_alike_tell_nothing(similarity):
  """No activation at all, the same one four times, or two pairs of the same ones."""
  y, = normal((4, 2, 2, 8))
  for x in (np.zeros_like(y), np.broadcast_to(y[:1], y.shape), y[[0, 0, 1, 1]]):
    for pair in ((x, y), (y, x), (x, x)):
      value, slope = valued(*pair, similarity)
      assert np.isfinite(value) and np.isfinite(slope).all()
      assert np.linalg.norm(slope) < 10
    if similarity.startswith('cka') and (x == x[:1]).all():
      assert value == 0


def written_out(x, y, similarity):
  """As the papers write them, with NumPy in float64."""
  k, m = x @ x.T, y @ y.T
  n = len(k)
  if similarity == 'cka':
    h = np.eye(n) - 1 / n
    k, m = h @ k @ h, h @ m @ h
    hsic = lambda a, b: (a * b).sum()
  else:
    k, m = (z * (1 - np.eye(n)) for z in (k, m))
    one = np.ones(n)
    hsic = lambda a, b: (np.trace(a @ b) + a.sum() * b.sum() / ((n - 1) * (n - 2))
                         - 2 / (n - 2) * one @ a @ b @ one) / (n * (n - 3))
  return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


@pytest.mark.parametrize('similarity', ['cka', 'cka_debiased'])
def test_alignments_are_what_the_papers_write(similarity):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(8, 4, 4, 6)).astype(np.float32) + 1
  y = x[..., :3] + rng.normal(size=(8, 4, 4, 3)).astype(np.float32)
  exact = written_out(*(np.asarray(z, np.float64).reshape(8, -1) for z in (x, y)), similarity)
  np.testing.assert_allclose(aligned(x, y, similarity), exact, atol=1e-6)
  assert .3 < exact < .99


@pytest.mark.parametrize('similarity, rows', [('ka', 1), ('cka', 2), ('cka_debiased', 3)])
def test_too_few_samples_are_refused(similarity, rows):
  x = jnp.ones((rows, 2, 2, 3))
  with pytest.raises(ValueError, match=f'{similarity} compares at least'):
    alignment(x, x, similarity)


# D_fake, D_real, adversarial, reconstruction, minus the weighted alignments; alignments by tap.
ALIGNED = [
    (1.117708, 0.933377, -0.023303, 63.317795, -3.727345, (.939603, .711620, .623164, .592802)),
    (1.059650, 0.891077, 0.029453, 61.644562, -3.738326, (.939639, .712663, .626153, .597180)),
    (1.005919, 0.854539, 0.068281, 60.167549, -3.748193, (.939660, .713661, .628890, .601014))]
UNALIGNED = [
    (0.392143, 1.130254, 0.845989, 2.691618, -3.997026, (.999886, .998863, .999208, .999068)),
    (0.249620, 0.730091, 0.320326, 2.639299, -3.997115, (.999887, .998867, .999205, .999156)),
    (0.440503, 0.469556, 0.167285, 2.587564, -3.997214, (.999887, .998866, .999230, .999231))]


@pytest.mark.gpu
@pytest.mark.usefixtures('convolutions_as_matmuls')
@pytest.mark.parametrize('paired, norm, loss, recon_weight, align_weight, steps, image', [
    (True, 'batch', 'hinge', 100., 1.3, ALIGNED, (-0.058169, -0.007541)),
    (False, 'instance_affine', 'lsgan', 5., 1., UNALIGNED, (-0.059325, -0.008667))])
def test_published_steps(paired, norm, loss, recon_weight, align_weight, steps, image):
  """In float64: least squares enlarge what float32 rounds to a thousandth within three steps. The
  numbers were recorded in float32."""
  wide = {'dtype': jnp.float64, 'norm': norm}
  with jax.enable_x64(True):
    net = lambda module: Net(**split(convert.from_torch(state_dict(module, normal_fill))[1]))
    teacher, student = (nn.inception(ngf, **wide) for ngf in (16, 12))
    disc = nn.PatchGAN(16, inputs=6 if paired else 3, **wide)
    method = methods.CAT(student, teacher, methods.Adversary(disc, TX, loss), TX, paired=paired,
                         recon_weight=recon_weight, align_weight=align_weight)
    batch = {'source': nhwc(uniform(10, 4, 3, 64, 64)).astype(np.float64),
             'target': nhwc(uniform(11, 4, 3, 64, 64)).astype(np.float64)}
    state = method.init(jax.random.key(0), batch, {
        'teacher': net(teacher), 'student': net(student), 'disc': net(disc)})
    step = jax.jit(method.step)
    for i, (d_fake, d_real, adv, reconstruction, distance, by_tap) in enumerate(steps):
      state, logs = step(state, batch)
      # By the third step Adam has enlarged the recording's own rounding, where batches are normed.
      close = functools.partial(np.testing.assert_allclose, atol=2e-6,
                                rtol=1e-3 if paired and i == 2 else 5e-6)
      close((logs['disc']['fake'], logs['disc']['real'], logs['student']['adv']),
            (d_fake, d_real, adv))
      close(logs['student']['recon'], reconstruction)
      aligned = [-float(logs['student'][f'tap_{tap}']) / align_weight for tap in TAPS]
      close(aligned, by_tap)
      close(-align_weight * sum(aligned), distance)
    kernel = convert.to_torch(student, state.nets['student'].variables)['up_sampling.7.weight']
    np.testing.assert_allclose(kernel.ravel()[:2], image, atol=2e-5 if paired else 1e-6)


def split(variables):
  stats = jax.tree.map(lambda x: x.astype(np.float64) if x.dtype == np.float32 else x,
                       dict(variables))
  return {'params': stats.pop('params'), 'collections': stats}


def small_inception(ngf):
  """Without strided convolutions, of which a method knows nothing."""
  branches = nn.Branches(dense=((3, 2),), depthwise=((3, 2),))
  return nn.InceptionGenerator((ngf,), (branches,), (), implementation='reference')


SMALL = small_inception(6)


def small_cat(tx, **fields):
  disc = nn.PatchGAN(2, inputs=6 if fields.get('paired', True) else 3, layers=1)
  return methods.CAT(small_inception(4), SMALL, methods.Adversary(disc, tx, 'hinge'), tx,
                     **{'taps': ('stem', 'block1'), 'recon_weight': 1., **fields})


@pytest.fixture(scope='module')
def batch():
  rng = np.random.default_rng(0)
  return {name: rng.uniform(-1, 1, (8, 16, 16, 3)).astype(np.float32)
          for name in ('source', 'target')}


@pytest.fixture(scope='module')
def taught():
  return {'teacher': Net(nn.initialise(SMALL, jax.random.key(3))['params'])}


def test_published_code_sums_over_devices(sgd, batch, taught):
  of = {scope: small_cat(sgd, scope=scope) for scope in ('global', 'replica', 'replica_sum')}
  start = jax.device_get(of['global'].init(jax.random.key(0), batch, taught))

  def step(state, batch, axes):
    return state, {scope: method.step(state, batch, axes)[1]['student']['tap_stem']
                   for scope, method in of.items()}

  run = parallelize(step, build_mesh(2))
  logs = jax.device_get(run.run(put_state(start, run.mesh), run.place(batch))[1])
  np.testing.assert_allclose(logs['replica_sum'], 2 * logs['replica'], rtol=1e-5)
  assert abs(logs['replica'] - logs['global']) > 1e-6


@pytest.mark.essential
def test_adapters_learn_with_the_student(sgd, batch, taught):
  method = small_cat(sgd, similarity='mse')
  state = method.init(jax.random.key(0), batch, taught)
  after, logs = jax.jit(method.step)(state, batch)
  assert logs['student']['tap_stem'] > 0
  for role in ('student', 'student_adapters', 'disc'):
    assert largest_difference(state.nets[role].params, after.nets[role].params) > 0
  assert largest_difference(state.frozen, after.frozen) == 0
  adapters = after.nets['student_adapters']
  again = method.init(jax.random.key(1), batch, {**taught, 'student_adapters': adapters})
  assert largest_difference(again.nets['student_adapters'].params, adapters.params) == 0
  with pytest.raises(ValueError,
                     match=r"init_from\['student_adapters'\] is of another network than"):
    other = Net(jax.tree.map(lambda x: x[..., :1], adapters.params))
    method.init(jax.random.key(1), batch, {**taught, 'student_adapters': other})


def test_what_the_student_is_drawn_towards(sgd, batch, taught):
  """And who judges it: the teacher's judge as it stood, or one of its own."""
  disc = small_cat(sgd).init(jax.random.key(5), batch, taught).nets['disc']
  for fields, aim in (({}, batch['target']),
                      ({'recon_target': 'teacher', 'disc_init': 'fresh'}, None)):
    method = small_cat(sgd, align_weight=0., **fields)
    state = method.init(jax.random.key(0), batch, {**taught, 'disc': disc})
    stood = largest_difference(state.nets['disc'].params, disc.params) == 0
    assert stood == (method.disc_init == 'teacher')
    logs, drawn = jax.jit(lambda state, draw, method=method: (
        method.step(state, batch)[1], {role: each(batch['source']) for role, each in draw.items()})
    )(state, method.generators(state))
    if aim is None:
      aim = drawn['teacher']
    np.testing.assert_allclose(logs['student']['recon'], np.abs(drawn['student'] - aim).mean(),
                               rtol=1e-5)


@pytest.mark.parametrize('fields, message', [
    (dict(recon_target='data'), 'one of auto, target, teacher'),
    (dict(recon_target='target', paired=False), 'without pairs a target is any image'),
    (dict(similarity='gap'), 'one of ka, cka'), (dict(scope='device'), 'one of global'),
    (dict(align_weight=-1.), 'at least 0'), (dict(taps=()), 'name them, or align_weight=0')])
def test_contradictions_are_refused(sgd, fields, message):
  with pytest.raises(ValueError, match=message):
    small_cat(sgd, **fields)


def test_what_is_missing_is_named(sgd, batch, taught):
  with pytest.raises(ValueError, match='a teacher that has learned'):
    small_cat(sgd).init(jax.random.key(0), batch)
  with pytest.raises(ValueError, match='student has no tap block7'):
    small_cat(sgd, taps=('block7',)).init(jax.random.key(0), batch, taught)
  with pytest.raises(ValueError, match='ka compares at least 2 samples'):
    method = small_cat(sgd)
    one = core.normalise({name: x[:1] for name, x in batch.items()})
    jax.eval_shape(method.step, method.init(jax.random.key(0), batch, taught), one)


def test_a_given_network_of_other_shapes_is_refused(sgd, batch, taught):
  wider = Net(nn.initialise(nn.PatchGAN(3, inputs=6, layers=1), jax.random.key(0))['params'])
  with pytest.raises(ValueError,
                     match=r"init_from\['disc'\] is of another network than this PatchGAN: "
                                       r'its .* is \(.*\) and would be \(.*\) here'):
    small_cat(sgd).init(jax.random.key(0), batch, {**taught, 'disc': wider})


def small_labels(tx, method=methods.CATGauGAN, **fields):
  disc = nn.MultiScale(2, layers=1, inputs=8)
  both = {'student': OneBlock(2, labels=5), 'teacher': OneBlock(3, labels=5), 'taps': ('head',)} \
      if method is methods.CATGauGAN else {'generator': OneBlock(2, labels=5)}
  return method(**both, adversary=methods.Adversary(disc, tx, 'hinge'), tx=tx, feature_weight=0.,
                **fields)


@pytest.fixture(scope='module')
def labels():
  rng = np.random.default_rng(0)
  planes = np.eye(5, dtype=np.float32)[rng.integers(0, 5, (4, 16, 16))]
  return {'source': planes, 'target': rng.uniform(-1, 1, (4, 16, 16, 3)).astype(np.float32)}


@pytest.mark.essential
def test_students_of_label_maps(sgd, labels):
  """Without alignment a step is GauGAN's own; with it, that much more is minimised."""
  plain = small_labels(sgd, methods.GauGAN)
  begun = plain.init(jax.random.key(0), labels)
  init_from = {'student': begun.nets['generator'], 'disc': begun.nets['disc'], 'teacher': Net(
      **split_as_is(nn.initialise(small_labels(sgd).teacher, jax.random.key(1),
                                  labels['source'])))}
  oracle, expected = jax.jit(plain.step)(begun, labels)
  states, logs = {}, {}
  for align_weight in (0., 2.):
    method = small_labels(sgd, align_weight=align_weight)
    state = method.init(jax.random.key(0), labels, init_from)
    states[align_weight], logs[align_weight] = jax.jit(method.step)(state, labels)
  assert largest_difference(states[0.].nets['student'].params,
                            oracle.nets['generator'].params) == 0
  assert largest_difference(states[0.].nets['disc'], oracle.nets['disc']) == 0

  @jax.jit
  def alignments(student, teacher, x):
    (_, ours), _ = method.student.apply(student, x, train=True, mutable=[
        kind for kind in student if kind != 'params'])
    _, theirs = method.teacher.apply(teacher, x)
    return {tap: alignment(ours[tap], theirs[tap]) for tap in method.taps}

  total = float(expected['generator']['loss'])
  for tap, value in alignments(state.nets['student'].variables, state.frozen['teacher'],
                               labels['source']).items():
    value *= 2
    np.testing.assert_allclose(logs[2.]['student'][f'tap_{tap}'], -value, rtol=1e-5)
    total -= float(value)
  np.testing.assert_allclose(logs[2.]['student']['loss'], total, rtol=1e-5)
  assert largest_difference(*(state.nets['student'].params for state in states.values())) > 0
  assert largest_difference(states[2.].frozen, state.frozen) == 0


def split_as_is(variables):
  stats = dict(variables)
  return {'params': stats.pop('params'), 'collections': stats}
