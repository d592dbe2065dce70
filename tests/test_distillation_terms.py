"""Terms that came after OMGD and CAT: golden numbers, laws, and what each one moves.

The golden numbers were made by other code, in PyTorch's layout and float64, from inputs that anyone
can compute (tests/published.py): of each gradient the sum of |g| and its product with a hash.
"""

import dataclasses
import math
from decimal import Decimal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgan_compress import config, core, methods, nn
from jaxgan_compress.config import build
from jaxgan_compress.core import Axes
from jaxgan_compress.losses import features, gan, image, relations, similarity
from jaxgan_compress.methods import augment, distillation
from jaxgan_compress.methods.adversary import FixedDiscriminator
from jaxgan_compress.methods.tap_terms import Projection
from tests.conftest import largest_difference
from tests.published import hashed, hashed_fill, nhwc, wave
from tests.test_networks import loaded
from tests.test_omgd import (
  SMALL,
  UNPERCEIVED,
  OneBlock,
  agree,
  alone,
  crops,
  images_of,
  moved_by,
  paired_disc,
  resumes,
  small_cycle,
  small_gaugan,
  small_omgd,
  small_resnet,
)

SEEN = lambda name, image, condition=None, fake=None: (image, condition)


@pytest.fixture(autouse=True, scope='module')
def precise():
  with jax.enable_x64(True):
    yield


def images(*args):
  return jnp.asarray(nhwc(wave(*args)))


def hashed_images(key, *shape):
  """A hash of [N,C,H,W], as [N,H,W,C]."""
  return jnp.asarray(nhwc(hashed(key, math.prod(shape)).reshape(shape)))


def summed(grad):
  """(A, P) of a gradient [N,H,W,C], a kernel [h,w,I,O] being given as such."""
  grad = np.asarray(grad)
  flat = np.moveaxis(grad, -1, 1).ravel() if grad.ndim == 4 else grad.ravel()
  return np.abs(flat).sum(), flat @ hashed('g', flat.size)


def of_kernel(grad):
  """(A, P) of the gradient of a kernel [kh,kw,I,O], which is [O,I,kh,kw] there."""
  flat = np.transpose(np.asarray(grad), (3, 2, 0, 1)).ravel()
  return np.abs(flat).sum(), flat @ hashed('g', flat.size)


def close(found, expected):
  """To 1e-9 of the value and half of the last digit that it was recorded with."""
  for x, y in zip(np.ravel(found).tolist(), np.ravel(expected).tolist(), strict=True):
    recorded = 10. ** Decimal(repr(y)).as_tuple().exponent
    assert abs(x - y) <= 1e-9 * abs(y) + .51 * recorded, (x, y)


def value_and_sums(loss, x):
  value, grad = jax.jit(jax.value_and_grad(loss))(x)
  return value, *summed(grad)


@pytest.fixture(scope='module')
def both():
  """(student's images, teacher's)."""
  return images(2, 3, 64, 64, .4), images(2, 3, 64, 64, 0)


def discriminator(module, condition=None):
  variables = loaded(module, hashed_fill, **(
      {'shared': module.shared} if len(module.heads) > 1 else {}))[1]
  return FixedDiscriminator(methods.Adversary(module, optax.sgd(1.), 'hinge'), jax.tree.map(
      jnp.asarray, variables), condition, SEEN)


@pytest.fixture(scope='module')
def judge():
  return discriminator(nn.PatchGAN(8, inputs=3, dtype='float64'))


# Golden numbers.


@pytest.mark.parametrize('loss, expected', [
    ('lsgan', (2.0027408952, 106.7903639286, -0.0206354625)),
    ('hinge', (0.2328576143, 32.3330383006, 0.0591834881)),
    ('ns', (0.8730208113, 19.8076517403, 0.0181875767))])
def test_scores_of_a_discriminator(judge, both, loss, expected):
  adversary = dataclasses.replace(judge.adversary, loss=loss)
  disc = dataclasses.replace(judge, adversary=adversary)
  close(value_and_sums(lambda s: disc.generator_loss(s, 'student'), both[0]), expected)


def test_scores_are_a_mean_over_heads(both):
  condition = images(2, 3, 64, 64, 1.1)
  module = nn.PatchGAN(8, inputs=6, heads=('wide', 'deep'), shared=3, dtype='float64')
  disc = discriminator(module, condition)
  teachers = {head: methods.Output(both[1], disc=dataclasses.replace(disc, heads=(head,)))
              for head in module.heads}
  term = methods.Discriminator(1.)
  loss = lambda s: term.values(methods.Output(s), teachers, Axes())
  found = loss(both[0])
  close([2 * found['adv_wide'], 2 * found['adv_deep']], [-0.5715350916, -0.9955950227])
  expected = -0.7835650571, 16.0417431512, 0.0599035537
  close(value_and_sums(lambda s: sum(loss(s).values()), both[0]), expected)
  close(value_and_sums(lambda s: disc.generator_loss(s, 'student'), both[0]), expected)


@pytest.mark.parametrize('kind, patch, expected, images', [
    ('rows', 8, (2.846907825e-3, 0.1961749363, -1.690924958e-4), (2.825179935e-3, 2.868635715e-3)),
    ('columns', 8, (1.586588156e-3, 0.1408575961, 3.736705539e-4),
     (1.672762563e-3, 1.500413748e-3)),
    ('patches', 32, (1.175593086e-4, 0.0258705796, 1.640216537e-4),
     (1.683052988e-4, 6.681331853e-5)),
    ('patches', 8, (4.420073099e-2, 0.4656260765, 1.079107159e-3),
     (4.380173556e-2, 4.459972641e-2))])
def test_relations(both, kind, patch, expected, images):
  s, t = both
  loss = lambda s: relations.content_relations(s, t, kind, patch)
  close(value_and_sums(loss, s), expected)
  for i, of_one in enumerate(images):
    close(relations.content_relations(s[i:i + 1], t[i:i + 1], kind, patch), of_one)


@pytest.mark.parametrize('kind, patch, distance, angle', [
    ('rows', 8, 5.830782486e-4, 1.121050843e-3), ('columns', 8, 3.898156638e-4, 6.414734497e-4),
    ('patches', 32, 6.699814932e-5, 5.065357472e-5),
    ('patches', 8, 1.136087961e-2, 1.622042798e-2)])
def test_relations_have_two_parts(both, kind, patch, distance, angle):
  """Written out, with n^3 differences."""
  def parts(x):
    x = relations.vectors(x[:1], kind, patch)[0]
    apart = x[None] - x[:, None]
    length = jnp.sqrt(jnp.square(apart).sum(-1))
    units = apart / jnp.maximum(length, 1e-12)[..., None]
    return length / (length.sum() / (len(x) * (len(x) - 1))), jnp.einsum(
        'ijm,ikm->ijk', units, units)

  ours, theirs = (parts(x) for x in both)
  close([image.smooth_l1(a, b) for a, b in zip(ours, theirs, strict=True)], [distance, angle])


def test_what_relations_are_blind_to(both):
  _, t = both
  t = t[:1]
  stripe = t + hashed('stripe', 64).reshape(1, 1, 64, 1)
  found = lambda s, kind, patch=8: float(relations.content_relations(s, t, kind, patch))
  for kind in relations.SETS:
    assert found(-t, kind) < 1e-25 and found(.3 * t - .2, kind) < 1e-25
  assert found(t[:, :, ::-1], 'rows') < 1e-25 and found(stripe, 'rows') < 1e-25
  close([found(t[:, :, ::-1], 'columns'), found(t[:, :, ::-1], 'patches')],
        [7.677617106e-3, 0.2210912460])
  close([found(stripe, 'columns'), found(stripe, 'patches')], [0.2974957841, 7.728166364e-2])


def test_vectors_that_coincide_have_a_bounded_gradient(both):
  s, t = (x[:1] for x in both)
  s = s.at[:, 10].set(s[:, 11])
  value, grad = jax.value_and_grad(lambda s: relations.content_relations(s, t, 'rows'))(s)
  close(value, 3.281289889e-3)
  largest = np.abs(grad).max((0, 2, 3))
  np.testing.assert_allclose(np.delete(largest, (10, 11)).max(), 8.03e-5, rtol=1e-3)
  assert np.isfinite(grad).all() and largest.max() < 1e-2


def test_a_constant_image_has_no_relations_and_no_gradient(both):
  loss = lambda s: relations.content_relations(s, both[1], 'patches')
  value, grad = jax.value_and_grad(loss)(jnp.zeros_like(both[0]))
  assert np.isfinite(value) and not np.any(grad)


def test_relations_take_turns_where_they_are_many(both, monkeypatch):
  s, t = both
  loss = lambda s: relations.content_relations(s, t, 'rows')
  whole = jax.value_and_grad(loss)(s)
  monkeypatch.setattr(relations, 'AT_ONCE', 5 * 64 ** 2)
  for a, b in zip(whole, jax.value_and_grad(loss)(s), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-18)


def test_wavelets(both):
  s, t = both
  close([jnp.abs(x).mean() for x in image.haar_levels(s - t, 4)],
        [0.0214417176, 0.0857181922, 0.3220685328, 0.8500442280])
  close(value_and_sums(lambda s: image.wavelet(s, t, 4), s),
        [1.2792726705, 8.6103515625, -0.0262564072])
  s, t = (images(2, 3, 20, 28, phase) for phase in (.4, 0))
  bands = image.haar_levels(s - t, 4)
  assert [x.shape[1:3] for x in bands] == [(10, 14), (5, 7), (3, 4), (2, 2)]
  close([jnp.abs(x).mean() for x in bands],
        [0.0213483279, 0.0851259411, 0.3253053628, 0.5471802691])
  close(value_and_sums(lambda s: image.wavelet(s, t, 4), s),
        [0.9789599009, 6.0811342593, -0.2404108046])


def test_wavelets_by_hand():
  low, high = image.haar(jnp.arange(16.).reshape(1, 4, 4, 1))
  np.testing.assert_array_equal(high.reshape(4, 3), np.tile([-4, -1, 0], (4, 1)))
  low, high = image.haar(low)
  np.testing.assert_array_equal([*high.ravel(), *low.ravel()], [-16, -4, 0, 30])
  # A level less each, of block means; a constant is seen by none.
  x = jnp.arange(16.).reshape(1, 4, 4, 1)
  assert float(image.wavelet(x, 0 * x, 2, 'mean')) == 5 / 3 + 20 / 3 / 2
  assert float(image.wavelet(x + 3, x, 2)) == 0


def test_features_that_a_discriminator_sees(judge):
  """One tap, 8 channels in the student and 16 in the teacher."""
  x, y = hashed_images('dcd.s', 2, 8, 32, 32), hashed_images('dcd.t', 2, 16, 32, 32)

  def adapter(name, inputs):
    kernel = hashed_fill(f'dcd.{name}.0.weight', (3, inputs, 1, 1))
    norm = {leaf: jnp.asarray(hashed_fill(f'dcd.{name}.1.{theirs}', (3,)))
            for leaf, theirs in (('scale', 'weight'), ('bias', 'bias'))}
    return {'params': {'conv': {'kernel': jnp.asarray(kernel.transpose(2, 3, 1, 0))},
                       'norm': norm},
            'batch_stats': {'norm': {'mean': jnp.zeros(3), 'var': jnp.ones(3),
                                     'count': jnp.zeros((), jnp.int32)}}}

  term = methods.DiscriminatorFeatures(1., ('stem',))
  named = lambda variables: {kind: {term.key('stem'): x} for kind, x in variables.items()}
  fixed = named(adapter('T', 16))
  teachers = {'teacher': methods.Output(None, {'stem': y}, disc=judge)}
  found = term.init_adapters({'stem': (x.shape, y.shape)}, jax.random.key(0), 'normal',
                             judge.adversary.disc)
  assert jax.tree.map(jnp.shape, found)['params'] == jax.tree.map(
      jnp.shape, named(adapter('S', 8)))['params']

  @jax.jit
  def loss(x, params):
    variables = {**adapter('S', 8), 'params': params}
    terms, _ = term.values(methods.Output(None, {'stem': x}), teachers, Axes(), named(variables),
                           fixed)
    return terms['disc_tap_stem']

  value, (of_x, of_params) = jax.value_and_grad(loss, (0, 1))(x, adapter('S', 8)['params'])
  close(value, 0.6362965301)
  close(summed(of_x), [6.6302444289, 0.0991131257])
  close(of_kernel(of_params['conv']['kernel']), [0.3683535616, -0.0139486878])
  close(summed(of_params['norm']['scale']), [0.0463384096, -0.0387792579])
  close(summed(of_params['norm']['bias']), [0.0472423547, -0.0373162562])
  moved = nn.Adapter(8, 3, dtype='float64').apply(adapter('S', 8), x, mutable=['batch_stats'])[0]
  still = nn.Adapter(16, 3, dtype='float64').apply(adapter('T', 16), y, train=False)
  close([moved.mean(), still.mean()], [0.3912486830, 0.2973480419])
  close([judge.activations(z, ('stage4',))['stage4'].mean() for z in (moved, still)],
        [0.3300090227, 0.3274260579])


@pytest.mark.parametrize('loss, plain, value, of_x, of_kernel_', [
    (features.root_mse, 0.8976782707, 0.9474588491, (1.1716363860, 0.0088227890),
     (1.1168006051, 0.0089157764)),
    (features.gram_root_mse, 2.887286473e-4, 0.0169920172, (0.0839421931, 6.656637933e-4),
     (0.0812585684, 0.0081816766))])
def test_roots_of_features(loss, plain, value, of_x, of_kernel_):
  x, y = hashed_images('gcc.s', 2, 8, 16, 16), hashed_images('gcc.t', 2, 12, 16, 16)
  kernel = jnp.asarray(hashed_fill('gcc.0.weight', (12, 8, 1, 1)).transpose(2, 3, 1, 0))

  def of(x, kernel):
    return loss(nn.Adapter(8, 12, norm=False, bias=False, dtype='float64').apply(
        {'params': {'conv': {'kernel': kernel}}}, x), y)

  found, grads = jax.value_and_grad(of, (0, 1))(x, kernel)
  close([found, found ** 2], [value, plain])
  close([summed(grads[0]), of_kernel(grads[1])], [of_x, of_kernel_])


@pytest.mark.parametrize('layer, kind, expected', [
    ('stage2', 'root_mse', (0.3043560298, 3.9326641743, 0.0071807877)),
    ('stage2', 'gram_root_mse', (6.541290237e-4, 0.0685182579, -1.829140072e-4)),
    ('stage4', 'root_mse', (0.3570070164, 8.8744102232, 0.0743731850)),
    ('stage4', 'gram_root_mse', (5.558127427e-4, 0.0216069633, 5.889172576e-5))])
def test_a_discriminator_compares_images(judge, both, layer, kind, expected):
  term = methods.FeatureMatching(1., (layer,), kind)
  teachers = {'teacher': methods.Output(both[1], disc=judge)}
  close(value_and_sums(lambda s: term.values(
      methods.Output(s), teachers, Axes())['match_teacher'], both[0]), expected)


def test_the_gap_between_discriminator_and_generator():
  ours, theirs = (jnp.asarray(1.5 * hashed(key, 72)) for key in ('pS', 'pT'))
  close([abs(gan.gap(loss, x)) for loss in ('hinge', 'lsgan') for x in (ours, theirs)],
        [1.0657455692, 0.8852545595, 0.9707234324, 1.1852885863])


def test_contrast_of_regions():
  x, y = hashed_images('reko.s', 1, 8, 16, 16), hashed_images('reko.t', 1, 12, 16, 16)
  matrix = lambda name, *shape: hashed(f'reko.{name}.weight', math.prod(shape)).reshape(
      shape) * np.sqrt(6 / shape[1])
  params = {layer: {'kernel': jnp.asarray(matrix(i, 8, inputs).T),
                    'bias': jnp.asarray(.1 * hashed(f'reko.{i}.bias', 8))}
            for layer, i, inputs in (('hidden', 0, 12), ('out', 2, 8))}
  term = methods.RegionContrast(1., ('stem',))
  teachers = {'teacher': methods.Output(None, {'stem': y})}
  loss = lambda x: term.values(methods.Output(None, {'stem': x}), teachers, Axes(), None, {
      'params': {term.key('stem'): params}})[0]['contrast_stem']
  close(value_and_sums(loss, x), [8.8534089769, 19.7181298446, 0.2129467820])
  heat = jnp.abs(y).mean(-1).reshape(-1)
  places = jax.lax.top_k(heat, 64)[1]
  assert places[:6].tolist() == [63, 101, 215, 41, 160, 196] and int(places.sum()) == 8050


def test_features_that_know_nothing_of_their_place():
  """Equal ones everywhere: chance. Fewer positions than asked for: all. Zeros: finite."""
  y = hashed_images('t', 2, 5, 3, 3)
  same = jnp.ones((2, 3, 3, 4))
  assert float(similarity.region_contrast(same, same, y)) == pytest.approx(np.log(9), rel=1e-6)
  value, grad = jax.value_and_grad(similarity.region_contrast)(0 * same, same, y)
  assert float(value) == pytest.approx(np.log(9)) and np.isfinite(grad).all()


AUGMENTED = {
    'brightness': ([.1, .8], 131.7676040010, 850.0710936335, -10.7364758947),
    'saturation': ([.3, .9], 208.5676040010, 822.3492009789, -12.2791332107),
    'contrast': ([.6, .2], 208.5676040010, 676.4901980186, -14.8715395793),
    'translation': ([[1, -2], [-2, 0]], 172.8285632690, 648.2550491156, -19.1084995596),
    'cutout': ([[0, 5], [16, 9]], 163.8803857831, 650.5657199131, -5.2792952698)}


@pytest.mark.parametrize('name', AUGMENTED)
def test_operations(name):
  values, *expected = AUGMENTED[name]
  found = getattr(augment, name)(images(2, 3, 16, 16, .4), jnp.array(values))
  close([found.sum(), *summed(found)], expected)


def test_operations_in_their_order():
  x, weight = images(2, 3, 16, 16, .4), hashed_images('aug.w', 2, 3, 16, 16)

  def all_of(x):
    for name, (values, *_) in AUGMENTED.items():
      x = getattr(augment, name)(x, jnp.array(values))
    return x

  found, grad = all_of(x), jax.grad(lambda x: (all_of(x) * weight).sum())(x)
  close([(found * weight).sum(), *summed(found)],
        [-0.5438116885, 695.5315731544, -12.3915481729])
  close(summed(grad), [535.3222865554, 2.7403769835])


def test_the_probability_follows_the_signs():
  adaptive = methods.Adaptive(images=50, every=4)
  state, seen = adaptive.init(), []
  for r in (.9, .7, .5, .8):
    for _ in range(4):
      state = adaptive.update(state, r, 4)
    seen.append(float(state['p']))
  np.testing.assert_allclose(seen, [.32, .64, .32, .64], rtol=1e-6)
  for _ in range(40):
    state = adaptive.update(state, 1., 4)
  assert float(state['p']) == pytest.approx(.9)


# What they move.

NEW = (methods.Discriminator(1.), methods.FeatureMatching(1., ('stage1',)),
       methods.Relations(1., patch=4), methods.Wavelet(1.),
       methods.DiscriminatorFeatures(1., ('stem',), layer='stage1'),
       methods.RegionContrast(1., ('block1',)))
EVERY = methods.DistillLoss(*UNPERCEIVED.terms, *NEW)
LABELS = 'adv', 'match', 'relation', 'wavelet', 'disc_tap', 'contrast'


@pytest.fixture(scope='module')
def batch():
  with jax.enable_x64(False):
    return images_of('colorize')


@pytest.fixture(scope='module')
def textures():
  with jax.enable_x64(False):
    return images_of('grass2gravel')


def test_each_term_moves_the_student_alone(sgd, batch):
  """And its adapters, where it has some: no teacher, no discriminator, nothing that is frozen."""
  with jax.enable_x64(False):
    method = small_omgd(sgd, deep=None, distill=EVERY, extra_students={
        'other': small_resnet(1)}, extra_distill={'other': methods.DistillLoss(NEW[0])})
    state = method.init(jax.random.key(0), batch)
    reached, terms = moved_by(method, state, batch)
  assert reached['student'] == {'student', 'student_adapters'} and reached['other'] == {'other'}
  assert reached['wide'] == {'wide'} and reached['disc'] == {'disc'}
  assert set(terms['other']) == {'adv_wide', 'loss'}
  found = {name.rsplit('_', 1)[0] for name in terms['student']}
  assert {*LABELS} <= found and all(np.isfinite(x) for x in terms['student'].values())
  assert set(state.nets['student_adapters'].params) == {'stem', 'block1', 'disc_tap_stem'}
  assert set(state.frozen['projections']['student']['params']) == {'disc_tap_stem',
                                                                   'contrast_block1'}


@pytest.mark.parametrize('kind', ['ada', 'apa'])
def test_devices_change_nothing_of_terms_and_augmentation(batch, kind):
  """Rows have their own random numbers, signs are of all rows."""
  augmented = {'augment': methods.DiffAugment()} if kind == 'ada' else {}
  distill = methods.DistillLoss(*NEW) if kind == 'ada' else UNPERCEIVED
  state = agree(small_omgd(SMALL, {
      **augmented, 'adaptive': methods.Adaptive(kind, images=16, every=1, target=-.99)},
      deep=None, distill=distill), batch, (2, 'pmap'))
  assert state.frozen['adaptive']['disc']['p'] == .9


def test_a_run_goes_on_where_its_probability_was():
  with jax.enable_x64(False):
    method = small_omgd(optax.adam(2e-3), {
        'augment': methods.DiffAugment(('cutout',)),
        'adaptive': methods.Adaptive(images=64, every=2, target=-.99)}, deep=None,
        distill=methods.DistillLoss(*NEW[:1]))
    state, _, logs = resumes(method, crops('colorize'), 5, [3])
  assert state.frozen['adaptive']['disc']['steps'] == 1
  assert logs['augment_probability']['disc'] == state.frozen['adaptive']['disc']['p'] > 0


def test_both_discriminators_of_a_cycle_adapt(sgd, textures):
  with jax.enable_x64(False):
    method = small_cycle(sgd, augment=methods.DiffAugment(('cutout',)),
                         adaptive=methods.Adaptive(images=64, every=1, target=.99))
    state = alone(method.init(jax.random.key(0), textures))
    _, logs = jax.jit(method.step)(state, textures)
  # Every logit is below 1/2 at first.
  assert logs['real_sign'] == {'disc': -1, 'disc_ba': -1}
  assert logs['augment_probability'] == {'disc': 0, 'disc_ba': 0}


def test_a_pair_is_seen_alike():
  """Translated and cut out together; colours change in the image alone; by chance 0 nothing."""
  x = jnp.asarray(np.random.default_rng(0).uniform(.5, 1, (8, 16, 16, 3)))
  view = methods.DiffAugment(('translation', 'cutout'))
  image, condition = view(jax.random.key(0), x, x)
  np.testing.assert_array_equal(image, condition)
  assert (image != x).any((1, 2, 3)).all()
  assert (image == 0).all(-1).mean() > .15
  image, condition = methods.DiffAugment(('color',))(jax.random.key(0), x, x)
  assert (condition == x).all() and (image != x).any((1, 2, 3)).all()
  image, _ = methods.DiffAugment()(jax.random.key(0), x, None, probability=0.)
  assert (image == x).all()
  half, _ = methods.DiffAugment(('cutout',))(jax.random.key(0), x, None, probability=.5)
  assert 0 < (half != x).any((1, 2, 3)).sum() < 8
  # A smaller condition, as of an upscaler, is enlarged first.
  assert view(jax.random.key(0), x, x[:, ::4, ::4])[1].shape == x.shape


def test_every_position_is_sampled():
  numbers = jax.random.uniform(jax.random.key(0), (4000, 2))
  shifts = np.asarray(augment._shift(numbers, (16, 24)))
  assert [set(column) for column in shifts.T] == [set(range(-2, 3)), set(range(-3, 4))]
  even, odd = (np.asarray(augment._centre(numbers, (side, side))) for side in (16, 10))
  assert set(even[:, 0]) == set(range(17)) and set(odd[:, 0]) == set(range(10))


def test_generated_images_are_shown_as_real_ones():
  x = jnp.zeros((64, 4, 4, 3))
  adversary = methods.Adversary(nn.PatchGAN(2), optax.sgd(1.), 'lsgan',
                                adaptive=methods.Adaptive('apa'))
  state = core.TrainState(jnp.int32(0), jax.random.key(0), {}, adversary.frozen())
  state.frozen['adaptive']['disc']['p'] = jnp.float32(.5)
  view = adversary.view(state, Axes())
  shown = np.asarray(view('real', x, fake=x + 1)[0])[:, 0, 0, 0]
  assert 15 < shown.sum() < 49 and set(shown) == {0, 1}
  assert (view('real', x)[0] == x).all()
  # Half way between its two targets 'lsgan' does not know.
  signs = adversary.confidence([jnp.array([.4, .6, 2.])])['real_sign']
  assert signs == {'disc': pytest.approx(1 / 3)}


def test_what_rp_subtracts_is_seen_alike():
  x = jnp.asarray(np.random.default_rng(0).uniform(.5, 1, (4, 16, 16, 3)))
  state = core.TrainState(jnp.int32(0), jax.random.key(0), {})
  for loss, same in (('rp', True), ('ra', False)):
    view = methods.Adversary(nn.PatchGAN(2), optax.sgd(1.), loss,
                             augment=methods.DiffAugment()).view(state, Axes())
    assert bool((view('real', x)[0] == view('fake', x)[0]).all()) == same


FINISHED = methods.DistillLoss(methods.Pixel(1.), *NEW)


def test_a_finished_teacher_brings_its_discriminator(sgd, batch):
  """Offline and CAT: the discriminator that the terms ask stays; CAT's own goes on from it."""
  with jax.enable_x64(False):
    teacher = small_resnet(4)
    pix2pix = methods.Pix2Pix(teacher, methods.Adversary(
        paired_disc(heads=('real',)), sgd, 'hinge', augment=methods.DiffAugment(('cutout',)),
        adaptive=methods.Adaptive()), sgd)
    finished = pix2pix.init(jax.random.key(0), batch)
    init_from = {'teacher': finished.nets['generator'], 'disc': finished.nets['disc']}
    offline = methods.Offline(small_resnet(2), teacher, sgd, FINISHED,
                              teacher_adversary=pix2pix.adversary)
    cat = methods.CAT(small_resnet(2), teacher, pix2pix.adversary, sgd, taps=('stem',),
                      similarity='mse', distill=FINISHED)
    for method in offline, cat:
      with pytest.raises(ValueError, match='disc'):
        method.init(jax.random.key(1), batch, {'teacher': init_from['teacher']})
      state = method.init(jax.random.key(1), batch, init_from)
      after, logs = jax.jit(method.step)(state, batch)
      assert {*LABELS} <= {name.rsplit('_', 1)[0] for name in logs['student']}
      assert float(logs['student']['adv_teacher']) != 0
      for role in 'teacher', 'teacher_disc':
        assert largest_difference(state.frozen[role], after.frozen[role]) == 0
      for role in 'student', 'student_adapters':
        assert largest_difference(state.params[role], after.params[role]) > 0
    assert set(state.params['student_adapters']) == {'stem', 'disc_tap_stem'}


def test_a_fresh_discriminator_is_not_the_one_that_is_asked(sgd, batch):
  """CAT: and without alignment no tap needs to exist."""
  adversary = methods.Adversary(paired_disc(heads=('real',)), sgd, 'hinge')
  method = methods.CAT(small_resnet(2), small_resnet(4), adversary, sgd, taps=('nowhere',),
                       align_weight=0., disc_init='fresh',
                       distill=methods.DistillLoss(methods.Discriminator()))
  with jax.enable_x64(False):
    finished = methods.Pix2Pix(small_resnet(4), adversary, sgd).init(jax.random.key(0), batch)
    disc = finished.nets['disc']
    state = method.init(jax.random.key(1), batch, {
        'teacher': finished.nets['generator'], 'disc': disc})
  assert largest_difference(state.frozen['teacher_disc']['params'], disc.params) == 0
  assert largest_difference(state.nets['disc'].params, disc.params) > 0


def test_two_terms_of_one_kind_add_up(both):
  s, t = (methods.Output(x) for x in both)
  coarse, fine = methods.Wavelet(1., 2), methods.Wavelet(3., 1)
  alone = [term.values(s, {'wide': t}, Axes())['wavelet_wide'] for term in (coarse, fine)]
  total, terms, _, _ = methods.DistillLoss(coarse, fine).loss('student', s, {'wide': t})
  assert terms == {'wavelet_wide': total} and float(total) == pytest.approx(float(sum(alone)))


@pytest.mark.parametrize('make, message', [
    (lambda: methods.Wavelet(balance='level'), "balance='level'; one of mean, orthonormal"),
    (lambda: methods.Wavelet(levels=0), 'levels=0; at least 1'),
    (lambda: methods.Relations(sets=('lines',)), "sets='lines'; one of rows, columns, patches"),
    (lambda: methods.Relations(sets=()), 'sets='),
    (lambda: methods.Relations(patch=0), 'patch=0; at least 1'),
    (lambda: methods.Discriminator(-1.), 'weight=-1.0; at least 0'),
    (lambda: methods.FeatureMatching(names=()), 'name some'),
    (lambda: methods.FeatureMatching(similarity='rmse'), "similarity='rmse'; one of"),
    (lambda: methods.RegionContrast(), 'RegionContrast with weight=1.0 compares taps'),
    (lambda: methods.RegionContrast(names=('stem',), count=1), 'count=1; at least 2'),
    (lambda: methods.DistillLoss(*[methods.RegionContrast(names=('stem',))] * 2),
     'several RegionContrast'),
    (lambda: methods.DistillLoss(methods.Pixel(1.), methods.Discriminator(), border=4),
     'border=4, and a term asks a discriminator'),
    (lambda: methods.DiffAugment(('colour',)), "policies='colour'; one of color, translation"),
    (lambda: methods.DiffAugment(()), 'policies='),
    (lambda: methods.Adaptive('ADA'), "kind='ADA'; one of ada, apa"),
    (lambda: methods.Adaptive(images=0), 'images=0'),
    (lambda: methods.Adaptive(target=1.), 'target=1.0; between -1 and 1'),
    (lambda: methods.Adversary(nn.PatchGAN(2), None, adaptive=methods.Adaptive()),
     "'ada' says how often the operations of augment happen: give one"),
    (lambda: methods.Adversary(nn.PatchGAN(2), None, augment=methods.DiffAugment(),
                               adaptive=methods.Adaptive('apa')), "'apa' takes no augment"),
    *((lambda loss=loss: methods.Adversary(nn.PatchGAN(2), None, loss, adaptive=methods.Adaptive(
        'apa')), 'whose sign tells nothing') for loss in ('wgan_clip', 'rp', 'ra')),
    (lambda: small_omgd(None, {'disc': nn.PixelGAN()}), 'a PixelGAN, has no head for deep, wide'),
    (lambda: methods.CAT(small_resnet(2), small_resnet(4), methods.Adversary(
        paired_disc(heads=('wide',)), None, 'hinge'), None), 'has no head for real'),
    (lambda: methods.Offline(small_resnet(2), None, None, adv_rise=-5), 'adv_rise=-5; at least 0'),
    (lambda: methods.Offline(small_resnet(2), None, None, extra_students={
        'disc': small_resnet(1)}), 'disc'),
    (lambda: small_omgd(None, extra_distill={'half': EVERY}), 'extra_distill has half'),
    (lambda: methods.Offline(small_resnet(2), small_resnet(4), None, FINISHED),
     'give teacher_adversary'),
    (lambda: methods.Offline(small_resnet(2), None, None, methods.DistillLoss(
        methods.RegionContrast(names=('stem',)))), 'leave out RegionContrast'),
    (lambda: methods.KD(nn.DCGANGenerator(1, 32), nn.DCGANGenerator(2, 32), None,
                        distill=methods.DistillLoss(methods.Discriminator())),
     "disc_init='frozen'"),
    (lambda: methods.CAT(small_resnet(2), small_resnet(4), methods.Adversary(
        paired_disc(heads=('real',)), None, 'hinge'), None, distill=UNPERCEIVED),
     'distill has Taps'),
    (lambda: relations.vectors(jnp.zeros((1, 8, 8, 3)), 'patches', 8), 'hold 1 patches of 8x8'),
    (lambda: relations.vectors(jnp.zeros((1, 8, 8, 3)), 'lines'), "set 'lines'; one of rows"),
])
def test_what_makes_no_sense_is_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def test_a_tap_too_small_for_a_discriminator_is_refused(sgd, batch):
  method = small_omgd(sgd, deep=None, distill=methods.DistillLoss(
      methods.DiscriminatorFeatures(1., ('stem',), layer='stage9')))
  with jax.enable_x64(False), pytest.raises(ValueError, match="layer='stage9'; the disc.* stage1"):
    method.init(jax.random.key(0), batch)
  shapes = {'stem': ((1, 16, 16, 8),) * 2}
  term = methods.DiscriminatorFeatures(1., ('stem',))
  with pytest.raises(ValueError, match='stem of 16x16 pixels is too small .*or compare larger'):
    term.init_adapters(shapes, jax.random.key(0), 'normal', nn.PatchGAN(8))
  with pytest.raises(ValueError, match='this method has none'):
    term.init_adapters(shapes, jax.random.key(0), 'normal')


def test_a_projection_that_learns_is_an_adapter():
  term = methods.RegionContrast(1., ('stem',), learns=True)
  shapes = {'stem': ((1, 4, 4, 2), (1, 4, 4, 3))}
  assert term.adapted and not term.init_projections(shapes, jax.random.key(0))
  found = term.init_adapters(shapes, jax.random.key(0), 'normal')['params']['contrast_stem']
  assert jax.tree.map(jnp.shape, found) == jax.tree.map(
      jnp.shape, dict(Projection(2, 3).init(jax.random.key(0), jnp.zeros((1, 1, 1, 3)))['params']))


def test_a_student_may_meet_the_discriminator(sgd, batch):
  """By a head of its own, which learns from its images and scores it; no one else feels it."""
  terms = methods.DistillLoss(methods.Discriminator(2.), methods.Target(3.))
  method = small_omgd(sgd, {'disc': paired_disc(heads=('wide', 'student'))}, deep=None,
                      distill=terms, extra_students={'other': small_resnet(1)})
  with jax.enable_x64(False):
    state = method.init(jax.random.key(0), batch)
    reached, logs = moved_by(method, state, batch)
    student = method.student.apply(state.nets['student'].variables, batch['source'], train=True)[0]
    adversary = method.adversary
    logits = adversary.apply(state.nets['disc'].variables, student, batch['source'], Axes())[0][0]
  assert reached == {role: {role} for role in ('student', 'other', 'wide', 'disc')}
  assert {'real_student', 'fake_student'} <= set(logs['disc']) and set(logs['gap']) == {
      'wide', 'student'}
  np.testing.assert_allclose(logs['student']['adv_wide'], -2 * logits['student'].mean(), rtol=1e-4)
  np.testing.assert_allclose(logs['student']['target'],
                             3 * np.abs(student - batch['target']).mean(), rtol=1e-4)
  np.testing.assert_allclose(logs['gap']['student'], -logits['student'].mean() - np.maximum(
      0, 1 + logits['student']).mean(), rtol=1e-4)


def test_label_maps_have_one_feature_network(sgd):
  with pytest.raises(ValueError, match='another network than feature_weight'):
    methods.CATGauGAN(OneBlock(2), OneBlock(4), small_gaugan(sgd).adversary, sgd, taps=('head',),
                      distill=methods.DistillLoss(methods.Perceptual()))


def test_terms_beside_label_maps(sgd):
  """CATGauGAN takes them as CAT does."""
  with jax.enable_x64(False):
    teacher = small_gaugan(sgd)
    labels = {'source': jnp.eye(7)[np.arange(2 * 64).reshape(2, 8, 8) % 7],
              'target': jnp.zeros((2, 8, 8, 3))}
    finished = teacher.init(jax.random.key(0), labels)
    method = methods.CATGauGAN(
        OneBlock(2), OneBlock(4), teacher.adversary, sgd, feature_net=teacher.feature_net,
        taps=('head',), distill=methods.DistillLoss(methods.Wavelet(), methods.Discriminator()))
    init_from = {'teacher': finished.nets['generator'], 'disc': finished.nets['disc']}
    state = jax.eval_shape(method.init, jax.random.key(1), labels, init_from)
    _, logs = jax.eval_shape(method.step, state, labels)
  assert {'wavelet_teacher', 'adv_teacher', 'tap_head', 'match'} <= set(logs['student'])


def test_a_config_hands_on_the_discriminator_of_a_teacher():
  assert tuple(kind.__name__ for kind in distillation.DISC_TERMS) == build.DISC_TERMS
  c = config.load('omgd/colorize:rivals')
  assert build.method(c, 'offline', 'teacher').teacher_adversary is None
  with c.unlocked():
    c.stages.offline.method.distill.adv = dict(name='Discriminator', weight=1.)
  method = build.method(c, 'offline', 'teacher')
  assert method.teacher_adversary.disc == build.method(c, 'teacher').adversary.disc
  assert method.teacher_adversary.loss == 'hinge' and method.adversary is None
  with c.unlocked():
    c.stages.offline.method.distill.adv.weight = 0.
    assert build.method(c, 'offline', 'teacher').teacher_adversary is None
    c.stages.offline.method.distill.adv.weight = 1.
    c.stages.again = c.stages.offline
  with pytest.raises(ValueError, match="discriminator of 'offline', which has none; learn from"):
    build.method(c, 'again', 'offline')
