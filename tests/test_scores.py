"""The formulas of metrics on cases that can be worked by hand, and on known Gaussians."""

import functools
import json
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxgan_compress.metrics import (
    Moments,
    bootstrap,
    frechet_distance,
    gaussian_frechet_distance,
    kernel_distance,
    precision_recall,
    resize,
    segmentation,
    squared_mmd,
)


@pytest.fixture
def rng():
  return np.random.default_rng(0)


# --- moments


def test_moments_by_hand():
  found = Moments.of([[0., 1.], [2., 1.], [4., 7.]])
  np.testing.assert_allclose(found.mean, [2, 3])
  np.testing.assert_allclose(found.cov, [[4, 6], [6, 12]])  # (4+0+4, 4+0+8; .., 4+4+16) / 2
  assert found.count == 3


@pytest.mark.parametrize('cuts', [[1], [0, 1, 1, 2, 40], [30, 60, 99], range(1, 100)])
def test_moments_do_not_depend_on_the_parts(rng, cuts):
  """Far from 0, where sums of squares would have lost all digits; parts of 0 and 1 included."""
  x = 1e8 + rng.standard_normal((100, 5)) @ rng.standard_normal((5, 5))
  parts = [Moments.of(part) for part in np.split(x, cuts)]
  for order in (parts, parts[::-1]):
    total = functools.reduce(operator.add, order)
    assert total.count == 100
    np.testing.assert_allclose(total.mean, x.mean(0), rtol=1e-14)
    np.testing.assert_allclose(total.cov, np.cov(x, rowvar=False), rtol=1e-6, atol=1e-7)


def test_moments_that_cannot_be_used_are_refused(rng):
  one, two = Moments.of(np.zeros((1, 2))), Moments.of(np.eye(2), {'size': 1})
  for use in (lambda: one.root, one.known, lambda: frechet_distance(one, two),
              lambda: frechet_distance(two, one)):
    with pytest.raises(ValueError, match='at least 2 samples; got 1'):
      use()
  for other, match in [
      (Moments.of(np.eye(3), {'size': 1}), '2 and of 3 features cannot be added'),
      (Moments.of(np.eye(2)), 'different protocols'),
      (Moments(two.mean, two.cov, None, two.protocol), 'count is unknown')]:
    with pytest.raises(ValueError, match=match):
      two + other
  for mean, cov, count, match in [
      ([0, 0], np.eye(3), 5, r'shape \(2,\) and a covariance of shape \(3, 3\)'),
      ([0, np.inf], np.eye(2), 5, 'not finite'), ([0, 0], np.full((2, 2), np.nan), 5, 'not finite'),
      ([0, 0], np.full((2, 2), np.nan), None, 'not finite'), ([0, 0], -np.eye(2), 5, 'below 0'),
      ([0, 0], np.eye(2), -1, 'count=-1'), ([0, 0], np.eye(2), 2.5, 'count=2.5')]:
    with pytest.raises(ValueError, match=match):
      Moments(mean, cov, count)
  with pytest.raises(ValueError, match='features of sample 1 are not finite'):
    Moments.of([[0.], [np.nan]])
  with pytest.raises(ValueError, match=r'features of shape \(3,\); they must be \[N,D\]'):
    Moments.of([0., 1., 2.])


def test_moments_are_kept_in_files_that_pytorch_fid_reads(rng, tmp_path):
  x = rng.standard_normal((9, 4))
  path = tmp_path / 'real.npz'
  Moments.of(x, {'resize': 'fid_clean', 'size': [299, 299]}).save(path)
  with np.load(path) as file:  # as pytorch-fid does
    np.testing.assert_array_equal(file['mu'], x.mean(0))
    np.testing.assert_allclose(file['sigma'], np.cov(x, rowvar=False), atol=1e-15)
  found = Moments.load(path)
  assert found.count == 9 and found.protocol == {'resize': 'fid_clean', 'size': [299, 299]}
  assert frechet_distance(found, x) == pytest.approx(0, abs=1e-12)
  with pytest.raises(FileExistsError, match='overwrite=True'):
    Moments.of(x + 1).save(path)
  assert Moments.load(path).mean[0] == x.mean(0)[0]
  Moments.of(x + 1).save(path, overwrite=True)
  assert Moments.load(path).mean[0] == pytest.approx(x.mean(0)[0] + 1)
  assert [each.name for each in tmp_path.iterdir()] == ['real.npz']


def test_files_of_pytorch_fid_are_read(rng, tmp_path):
  x = rng.standard_normal((9, 4))
  np.savez_compressed(tmp_path / 'a.npz', mu=x.mean(0), sigma=np.cov(x, rowvar=False))
  found = Moments.load(tmp_path / 'a.npz')
  assert found.count is None and found.protocol is None
  assert frechet_distance(found, Moments.of(x)) == pytest.approx(0, abs=1e-6)
  found.save(tmp_path / 'b.npz')  # nothing is made up
  with np.load(tmp_path / 'b.npz') as file:
    assert sorted(file) == ['mu', 'sigma']


class Bomb:
  """Says so when it is unpickled."""

  def __reduce__(self):
    return exec, ('raise SystemExit("unpickled")',)


@pytest.mark.parametrize('arrays, match', [
    ({'images': np.zeros(3)}, 'has no mu and no sigma'),
    ({'mu': np.zeros(3)}, 'has no sigma'),
    ({'mu': np.zeros(3), 'sigma': np.eye(4)}, r'\(3,\) and a covariance of shape \(4, 4\)'),
    ({'mu': np.zeros((1, 3)), 'sigma': np.eye(3)}, r'shape \(1, 3\)'),
    ({'mu': np.zeros(0), 'sigma': np.zeros((0, 0))}, r'shape \(0,\)'),
    ({'mu': np.array([np.nan, 0]), 'sigma': np.eye(2)}, 'not finite'),
    ({'mu': np.zeros(2), 'sigma': np.diag([1, np.inf])}, 'not finite'),
    ({'mu': np.zeros(2), 'sigma': np.array([[1., 0], [.1, 1]])}, 'not symmetric, by 0.1'),
    ({'mu': np.zeros(2), 'sigma': np.array([[1, 'x'], [0, 1]])}, 'must be numbers'),
    ({'mu': np.zeros(2), 'sigma': np.eye(2), 'count': 1}, 'at least 2 samples; got 1'),
    ({'mu': np.zeros(2), 'sigma': np.eye(2), 'count': 2.5}, 'holds no moments'),
    ({'mu': np.zeros(2), 'sigma': np.eye(2), 'count': [2, 3]}, 'holds no moments'),
    ({'mu': np.zeros(2), 'sigma': np.eye(2), 'protocol': '{'}, 'holds no moments'),
    ({'mu': np.zeros(2), 'sigma': np.eye(2), 'protocol': '[1]'}, 'no JSON object'),
    ({'mu': np.array([Bomb()]), 'sigma': np.eye(1)}, 'pickled objects, which are never loaded'),
    ({'mu': np.zeros(1), 'sigma': np.eye(1), 'protocol': np.array(Bomb())}, 'pickled objects')])
def test_files_that_hold_something_else_are_refused(tmp_path, arrays, match):
  np.savez(tmp_path / 'a.npz', **arrays)
  with pytest.raises(ValueError, match=match) as e:
    Moments.load(tmp_path / 'a.npz')
  assert str(tmp_path / 'a.npz') in str(e.value)


def test_damaged_and_missing_files_are_refused(rng, tmp_path):
  path = tmp_path / 'a.npz'
  Moments.of(rng.standard_normal((9, 40))).save(path)
  whole = path.read_bytes()
  flipped = bytearray(whole)
  flipped[5000] ^= 1
  for content, match in [(whole[:5000], 'is no .npz file'), (flipped, 'is damaged'),
                         (b'', 'is no .npz file'), (b'\x80\x04K\x01.', 'is no .npz file')]:
    path.write_bytes(content)
    with pytest.raises(ValueError, match=match):
      Moments.load(path)
  with pytest.raises(FileNotFoundError, match='does not exist'):
    Moments.load(tmp_path / 'b.npz')
  with pytest.raises(IsADirectoryError, match='is a folder'):
    Moments.load(tmp_path)


def test_moments_that_a_file_cannot_hold_are_refused(tmp_path):
  x = np.eye(3)
  for moments, name, error, match in [
      (Moments.of(x), 'a', ValueError, 'does not end with .npz'),
      (Moments.of(x), 'no/a.npz', FileNotFoundError, 'there is no folder'),
      (Moments.of(x[:1]), 'a.npz', ValueError, 'at least 2 samples; got 1'),
      (Moments.of(x, {'net': x}), 'a.npz', ValueError, 'JSON does not hold the protocol'),
      (Moments.of(x, {'floor': np.nan}), 'a.npz', ValueError, 'JSON does not hold the protocol')]:
    with pytest.raises(error, match=match):
      moments.save(tmp_path / name)
  assert not list(tmp_path.iterdir())


# --- Frechet distance


@pytest.mark.parametrize('n, m', [(12, 12), (12, 500), (500, 12), (40, 40), (41, 90), (2, 2)])
def test_all_forms_of_the_frechet_distance_agree(rng, n, m):
  """Features, moments or one of each; less, as many and more samples than the 40 features."""
  mix = rng.standard_normal((40, 40))
  a, b = rng.standard_normal((n, 40)) @ mix, 2 * rng.standard_normal((m, 40)) @ mix + 1
  expected = gaussian_frechet_distance(a.mean(0), np.cov(a, rowvar=False), b.mean(0),
                                       np.cov(b, rowvar=False))
  for x in (a, Moments.of(a)):
    for y in (b, Moments.of(b)):
      assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)
      assert frechet_distance(y, x) == pytest.approx(expected, rel=1e-6)


def test_few_samples_are_compared_without_loss(rng):
  """Where covariances have no full rank, the form in features is exact."""
  few = 100 * rng.standard_normal((5, 40))
  assert frechet_distance(few, few) == pytest.approx(0, abs=1e-9)
  assert frechet_distance(few, few[::-1] + 1) == pytest.approx(40, rel=1e-10)
  scale = 1.5  # sqrt(A)(1.5 - 1), squared: a quarter of the trace
  centred = few - few.mean(0)
  assert frechet_distance(centred, scale * centred) == pytest.approx(
      np.square(centred).sum() / 4 * .25, rel=1e-12)


def test_frechet_distance_of_nearly_singular_covariances(rng):
  scales = np.logspace(0, -12, 20)
  a = rng.standard_normal((300, 20)) * scales
  assert frechet_distance(a, a) == pytest.approx(0, abs=1e-7)
  # Diagonal covariances: sum (sqrt(a) - sqrt(b))^2.
  found = gaussian_frechet_distance(np.zeros(20), np.diag(scales), np.zeros(20),
                                    np.diag(scales[::-1]))
  assert found == pytest.approx(np.square(np.sqrt(scales) - np.sqrt(scales[::-1])).sum(), rel=1e-9)
  constant = np.ones((300, 20))
  assert frechet_distance(constant, constant) == 0
  assert frechet_distance(constant, constant + 2) == pytest.approx(80)
  # A constant set is as far from another as that one's variance.
  assert frechet_distance(constant[:5] * a.mean(0), a) == pytest.approx(a.var(0, ddof=1).sum())


def test_sets_that_do_not_compare_are_refused(rng):
  x = rng.standard_normal((30, 3))
  for measure in (frechet_distance, squared_mmd, precision_recall,
                  functools.partial(kernel_distance, subset_size=5, seed=0)):
    with pytest.raises(ValueError, match='3 features against 2; both must be of'):
      measure(x, x[:, :2])
    with pytest.raises(ValueError, match='features of sample 4 are not finite'):
      measure(x, np.where(np.arange(30)[:, None] == 4, np.inf, x))
    with pytest.raises(ValueError, match=r'they must be \[N,D\]'):
      measure(x[0], x)


# --- kernel distance


def test_squared_mmd_by_hand():
  a, b = np.array([[1., 1.], [2., 0.], [0., 2.]]), np.array([[0., 0.], [2., 2.]])
  # x.y/2 + 1 -- in a: 2, 2, 1 (pairs); in b: 1; across: 1, 3, 1, 3, 1, 3. All cubed.
  expected = (8 + 8 + 1) / 3 + 1 - 2 * (1 + 27) / 2
  assert squared_mmd(a, b) == pytest.approx(expected)
  assert squared_mmd(b, a) == pytest.approx(expected)
  with pytest.raises(ValueError, match='pairs need at least 2 samples; got 1 and 3'):
    squared_mmd(a[:1], a)


def test_squared_mmd_in_blocks_is_that_of_all_at_once(rng, monkeypatch):
  a, b = rng.standard_normal((57, 4)), rng.standard_normal((31, 4)) + 1
  whole = squared_mmd(a, b), precision_recall(a, b)
  monkeypatch.setattr('jaxgan_compress.metrics.feature_distances._blocks',
                      lambda x, y: [slice(i, i + 10) for i in range(0, len(x), 10)])
  assert (squared_mmd(a, b), precision_recall(a, b)) == (pytest.approx(whole[0]), whole[1])


def test_kernel_distance_is_unbiased(rng):
  """Half of the distances between equal distributions are below 0; 1000 of them average to 0."""
  values = [squared_mmd(*rng.standard_normal((2, 20, 4))) for _ in range(1000)]
  assert abs(np.mean(values)) < 4 * np.std(values) / 1000 ** .5
  assert .4 < np.mean(np.less(values, 0)) < .75


def test_kernel_distance_over_subsets(rng):
  a, b = rng.standard_normal((40, 3)), rng.standard_normal((30, 3)) + .5
  # Subsets of everything are all the same.
  mean, spread = kernel_distance(a[:30], b, subsets=3, subset_size=30, seed=0)
  assert (mean, spread) == pytest.approx((squared_mmd(a[:30], b), 0))
  mean, spread = kernel_distance(a, b, subsets=2000, subset_size=10, seed=0)
  assert mean == pytest.approx(squared_mmd(a, b), abs=4 * spread / 2000 ** .5)
  assert spread > 0 and kernel_distance(a, b, subset_size=10, seed=1) != (mean, spread)
  assert (kernel_distance(a, b, subset_size=10, seed=1) ==
          kernel_distance(a, b, subset_size=10, seed=1))
  with pytest.raises(ValueError, match='subsets of 100 of 40 and 30 samples; pass a size of 2 to '):
    kernel_distance(a, b, seed=0)


# --- precision and recall


def test_precision_and_recall_by_hand():
  real, fake = np.array([[0.], [1.], [3.]]), np.array([[1.5], [4.], [4.5], [20.]])
  # k=1: real radii 1, 1, 2 hold 0..2 and 1..5: three of four. Fake radii 2.5, .5, .5, 15.5 hold
  # -1..4, 3.5..4.5, 4..5, 4.5..35.5: all three.
  assert precision_recall(real, fake, k=1) == (.75, 1)
  assert precision_recall(fake, real, k=1) == (1, .75)
  # k=2: real radii 3, 2, 3 hold up to 6; fake ones 3, 2.5, 3, 16 the same.
  assert precision_recall(real, fake, k=2) == (.75, 1)
  for k in (0, 3):
    with pytest.raises(ValueError, match=f'k={k} nearest of 3 samples'):
      precision_recall(real, fake, k=k)


def test_precision_and_recall_of_equal_and_of_separate_sets(rng):
  a = rng.standard_normal((200, 16))
  assert precision_recall(a, a) == (1, 1)
  assert precision_recall(a, a + 100) == (0, 0)
  inner = .1 * rng.standard_normal((200, 16))  # plausible, but not varied
  precision, recall = precision_recall(a, inner)
  assert precision > .95 and recall < .05


@pytest.mark.parametrize('offset', [0, 1e3, 1e6])
def test_precision_and_recall_do_not_depend_on_rounding(rng, offset):
  """Balls without extent hold what lies on them, wherever they are, and one far away too."""
  x = rng.standard_normal((3, 50)).repeat(6, 0) + offset
  assert precision_recall(x, x) == (1, 1)
  far = np.concatenate([x, np.full((1, 50), 1e9)])
  assert precision_recall(x, far, k=3) == (18 / 19, 1)
  near = x + 1e-3 * max(offset ** .5, 1)
  assert precision_recall(x, np.concatenate([near, far[-1:]]))[0] == 0


# --- intervals


def test_an_interval_of_a_mean(rng):
  """Against theory: 1.96 standard errors on both sides."""
  x = rng.standard_normal(400) + 3
  low, high = bootstrap(np.mean, x, samples=4000, seed=0)
  error = x.std(ddof=1) / 20
  assert low == pytest.approx(x.mean() - 1.96 * error, abs=.1 * error)
  assert high == pytest.approx(x.mean() + 1.96 * error, abs=.1 * error)
  low, high = bootstrap(np.mean, x, samples=4000, seed=0, level=.5)
  assert high - low == pytest.approx(2 * .6745 * error, rel=.06)
  assert bootstrap(np.mean, x, seed=5) == bootstrap(np.mean, x, seed=5)


def test_halves_repeat_no_row():
  """As nearest neighbours need; a row that came twice would leave fewer of ten."""
  assert bootstrap(lambda x: len(set(x)) * (len(x) in (5, 10)), np.arange(10), seed=0) == (10, 10)


def test_pairs_share_their_rows(rng):
  x = rng.standard_normal(100)
  gap = lambda a, b: (a - b).mean() if len(a) == len(b) else np.nan
  assert bootstrap(gap, x, x - 1, seed=0, paired=True) == pytest.approx((1, 1))
  low, high = bootstrap(gap, x, x - 1, seed=0)
  assert high - low > .3
  for arrays, options, match in [
      ((), {}, r'arrays of \[\] rows'), ((x, x[:3]), {}, 'each of at least 4 rows'),
      ((x, x[:9]), {'paired': True}, r'paired arrays of \[100, 9\] rows'),
      ((x,), {'level': 1.}, 'level=1.0'), ((x,), {'samples': 1}, 'samples=1')]:
    with pytest.raises(ValueError, match=match):
      bootstrap(gap, *arrays, seed=0, **options)
  with pytest.raises(ValueError, match='is not finite'):
    bootstrap(lambda a: np.nan, x, seed=0)


@pytest.mark.parametrize('size, count', [(8, 100), (32, 100), (64, 40)])
def test_intervals_of_the_frechet_distance_hold_what_they_claim(size, count):
  """Known Gaussians: about 95 % of the intervals hold the expected distance at this count, and
  always the value itself. Percentiles of rows drawn with replacement hold it in 71 %, or none."""
  rng = np.random.default_rng(1)
  scale = np.arange(1, size + 1) ** -.5
  real = Moments(np.zeros(size), np.diag(scale ** 2))
  measure = lambda fake: frechet_distance(fake, real)
  draw = lambda: (1.3 * rng.standard_normal((count, size)) + .5) * scale
  expected = np.mean([measure(draw()) for _ in range(500)])
  held, trials = 0, 100
  for trial in range(trials):
    fake = draw()
    low, high = bootstrap(measure, fake, samples=60, seed=trial)
    assert low < measure(fake) < high
    held += low <= expected <= high
  assert held >= 86  # 94 of 100 less three standard deviations


# --- segmentation

TRUTH = np.array([[0, 0, 1, 1], [2, 2, 255, 7]], np.uint8)
PREDICTED = np.array([[0, 1, 1, 1], [2, 0, 2, 0]], np.uint8)
CONFUSION = [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]


def test_confusion_and_scores_by_hand():
  found = segmentation.confusion(PREDICTED, TRUTH, 4)
  assert found.dtype == np.int64
  np.testing.assert_array_equal(found, CONFUSION)
  scores = segmentation.scores(found)
  np.testing.assert_allclose(scores['iou'], [1 / 3, 2 / 3, 1 / 2, np.nan])
  assert scores['miou'] == pytest.approx(.5)  # class 3 is nowhere
  assert scores['pixel_accuracy'] == pytest.approx(4 / 6)
  twice = segmentation.scores(found + found)
  assert twice['miou'] == scores['miou']


@pytest.mark.parametrize('kind', [np.uint8, np.int16, np.int32, np.uint32, np.int64, np.uint64])
@pytest.mark.parametrize('put', [np.asarray, jnp.asarray])
def test_labels_of_any_integer_type_are_counted(kind, put):
  if put is jnp.asarray and np.dtype(kind).itemsize > 4:
    return  # JAX has no such type here
  truth = TRUTH.astype(kind)
  if kind in (np.int64, np.uint64):
    truth[1, 3] = 2 ** 32  # its lower half is class 0
  if kind in (np.int16, np.int32, np.int64):
    truth[1, 2] = -1
  found = segmentation.confusion(put(PREDICTED.astype(kind)), put(truth), 4)
  np.testing.assert_array_equal(found, CONFUSION)
  np.testing.assert_array_equal(segmentation.confusion(PREDICTED, truth, 300)[:4, :4], CONFUSION)


def test_confusion_under_jit_and_in_batches(rng):
  truth, predicted = rng.integers(0, 25, (2, 3, 50, 60)).astype(np.uint8)
  predicted %= 19
  slow = np.zeros((19, 19), int)
  for t, p in zip(truth.ravel(), predicted.ravel(), strict=True):
    if t < 19:
      slow[t, p] += 1
  count = jax.jit(segmentation.count, static_argnums=(2, 3))
  np.testing.assert_array_equal(segmentation.table(count(predicted, truth, 19)), slow)
  parts = sum(count(p, t, 19) for p, t in zip(predicted, truth, strict=True))
  np.testing.assert_array_equal(segmentation.table(parts), slow)
  assert int(parts.sum()) == truth.size


def test_an_ignored_label_may_be_a_class():
  assert segmentation.confusion(PREDICTED, TRUTH, 4, ignore=0).tolist() == [[0] * 4, *CONFUSION[1:]]
  # Without, 255 of 256 classes counts.
  assert segmentation.confusion(PREDICTED, TRUTH, 256, ignore=None)[255, 2] == 1
  assert segmentation.confusion(PREDICTED, TRUTH, 256)[255].sum() == 0


def test_constant_and_perfect_predictions():
  truth = np.repeat(np.arange(4), [10, 20, 30, 40])
  perfect = segmentation.scores(segmentation.confusion(truth, truth, 4))
  assert perfect['miou'] == perfect['pixel_accuracy'] == 1
  constant = segmentation.scores(segmentation.confusion(np.full(100, 3), truth, 4))
  assert constant['miou'] == pytest.approx(.4 / 4) and constant['pixel_accuracy'] == .4
  # A class that is predicted but never true is in the mean, with 0.
  strange = segmentation.scores(segmentation.confusion([0, 0, 1], [0, 0, 0], 3))
  assert strange['miou'] == pytest.approx((2 / 3 + 0) / 2) and np.isnan(strange['iou'][2])
  one_hot = np.eye(4)[truth]
  again = segmentation.confusion(one_hot.argmax(-1), truth, 4)
  np.testing.assert_array_equal(again, np.diag([10, 20, 30, 40]))


def test_labels_that_do_not_fit_are_refused():
  for predicted, truth, match in [
      ([4, 0], [0, 0], '1 predictions are outside 0..3'),
      ([-1, 2 ** 32], [0, 0], '2 predictions are outside 0..3'),
      ([4, 0], [255, 0], '1 predictions are outside 0..3'),  # even where nothing counts
      ([0], [0, 0], r'shape \(1,\) for labels of shape \(2,\)'),
      ([0., 1.], [0, 0], 'labels of float64; they must be integers')]:
    with pytest.raises(ValueError, match=match):
      segmentation.confusion(np.array(predicted), np.array(truth), 4)
  with pytest.raises(ValueError, match='counts no pixel'):
    segmentation.scores(np.zeros((3, 3), int))
  with pytest.raises(ValueError, match=r'shape \(2, 3\); it must be \[K,K\]'):
    segmentation.scores(np.ones((2, 3), int))


def test_log_probabilities_are_resized_before_the_argmax(rng):
  log_probs = np.log(rng.dirichlet(np.ones(3), (4, 6))).astype(np.float32)
  found = segmentation.resize_log_probs(log_probs, 8, 18)
  assert found.shape == (8, 18, 3) and found.dtype == np.float32
  # Height times 2, width times 3, half-pixel centres: row 3 is 3/4 row 1 + 1/4 row 2 and column 6
  # is 1/3 column 1 + 2/3 column 2.
  rows = .75 * log_probs[1] + .25 * log_probs[2]
  np.testing.assert_allclose(found[3, 6], rows[1] / 3 + 2 * rows[2] / 3, rtol=1e-5)
  np.testing.assert_allclose(found[0, 0], log_probs[0, 0])
  # Two sure neighbours: where they meet, the third class, second to both, wins.
  pair = np.log([[[.9, .001, .099], [.001, .9, .099]]])
  assert segmentation.resize_log_probs(pair, 1, 8).argmax(-1).tolist() == [[0, 0, 0, 2, 2, 1, 1, 1]]
  with pytest.raises(ValueError, match=r'pass one image \[h,w,K\]'):
    segmentation.resize_log_probs(log_probs[None], 8, 8)


# --- images for FID


def test_images_become_bytes_as_the_papers_truncate_them():
  x = jnp.array([-1.2, -1., -.9999, 0., .9999, 1., 1.2])
  assert resize.to_uint8(x).tolist() == [0, 0, 0, 127, 254, 255, 255]
  assert resize.to_uint8(x, round=True).tolist() == [0, 0, 0, 128, 255, 255, 255]
  assert resize.to_uint8(x).dtype == jnp.uint8


@pytest.mark.parametrize('wrap', [lambda f: f, jax.jit])
def test_truncation_moves_63_of_256_grey_levels(wrap):
  levels = np.arange(256, dtype=np.float32)
  real = (levels / np.float32(255) - np.float32(.5)) / np.float32(.5)
  found = np.asarray(wrap(resize.to_uint8)(real)).astype(int)
  assert (found == levels).sum() == 256 - 63 and (found == levels - 1).sum() == 63
  np.testing.assert_array_equal(wrap(lambda x: resize.to_uint8(x, round=True))(real), levels)


def pillow(image, size, method):
  return np.stack([np.asarray(Image.fromarray(plane.astype(np.float32)).resize(size, method))
                   for plane in np.moveaxis(image, -1, 0)], -1)


@pytest.mark.parametrize('height, width', [(256, 256), (128, 512), (400, 64), (299, 299)])
def test_fid_clean_is_the_bicubic_of_pillow(rng, height, width):
  images = rng.integers(0, 256, (2, height, width, 3), np.uint8)
  images[1] = 255 * (images[1] > 127)  # overshoots beyond 0..255
  found = np.asarray(jax.jit(resize.fid_clean)(images), np.float64) * 128 + 128
  for image, each in zip(images, found, strict=True):
    expected = pillow(image, (299, 299), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(each, expected.clip(0, 255), atol=2e-4)


@pytest.mark.parametrize('height, width', [(256, 256), (32, 700), (299, 299)])
def test_fid_pytorch_is_bilinear_between_the_nearest_pixels(rng, height, width):
  images = rng.integers(0, 256, (2, height, width, 3), np.uint8)

  def line(size):
    at = np.clip((np.arange(299) + .5) * size / 299 - .5, 0, size - 1)  # align_corners=False
    low = np.minimum(at.astype(int), size - 2)
    return low, (at - low)

  (row, down), (column, right) = line(height), line(width)
  x = images / 255
  x = x[:, row] * (1 - down)[:, None, None] + x[:, row + 1] * down[:, None, None]
  x = x[:, :, column] * (1 - right)[:, None] + x[:, :, column + 1] * right[:, None]
  np.testing.assert_allclose(jax.jit(resize.fid_pytorch)(images), 2 * x - 1, atol=2e-6)


def test_protocols_keep_black_and_white():
  for level, pytorch, clean in [(0, -1, -1), (255, 1, 127 / 128)]:
    images = jnp.full((1, 40, 50, 3), level, jnp.uint8)
    np.testing.assert_allclose(resize.fid_pytorch(images), pytorch, atol=1e-5)
    np.testing.assert_allclose(resize.fid_clean(images), clean, atol=1e-5)


def test_images_that_are_no_bytes_in_colour_are_refused():
  for protocol in (resize.fid_pytorch, resize.fid_clean):
    for images in (jnp.zeros((1, 8, 8, 3)), jnp.zeros((1, 8, 8, 1), jnp.uint8),
                   jnp.zeros((8, 8, 3), jnp.uint8)):
      with pytest.raises(ValueError, match=r'pass uint8 \[B,H,W,3\]'):
        protocol(images)


def test_protocols_are_written_as_json(tmp_path):
  Moments.of(np.eye(2), {'name': 'é'}).save(tmp_path / 'a.npz')
  with np.load(tmp_path / 'a.npz') as file:
    assert json.loads(str(file['protocol'])) == {'name': 'é'}
