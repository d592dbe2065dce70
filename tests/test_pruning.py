"""Pruning: compacting is invisible, budgets are met exactly, published thresholds come out."""

import dataclasses
import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from PIL import Image

from jaxgan_compress import analysis, convert, nn, pruning
from jaxgan_compress.cli import main as cli
from jaxgan_compress.nn import prunable
from tests.published import normal_fill, state_dict

# Few branches, but of every kind in some block.
_BRANCHES = [nn.Branches(((dense, 3),), ((depthwise, 3),)) for dense, depthwise in
             ((3, 1), (1, 5), (5, 3), (3, 5), (1, 1), (5, 1), (3, 3))]
_BLOCKS = tuple(nn.InceptionSPADEBlock(out, branches, branches)
                for out, branches in zip((32, 32, 32, 16, 8, 4, 2), _BRANCHES, strict=True))

NETWORKS = {
    'resnet': nn.resnet(4, 1), 'affine': nn.mobile_resnet(4, 2, norm='instance_affine'),
    'batch': nn.resnet(4, 1, norm='batch_stat', dropout=0.),
    'deeper': nn.mobile_deepest_resnet(3, 1),
    'unet': nn.unet(4, 4), 'unet_deeper': nn.unet_deepest(2, 3), 'inception': nn.inception(6, 1),
    'inception_batch': nn.inception(6, 1, norm='batch'),
    'spade': nn.spade(2, 'normal', hidden=4, labels=5),
    'mobile_spade': nn.mobile_spade(2, 'normal', hidden=4, labels=5),
    'inception_spade': nn.InceptionSPADEGenerator(32, _BLOCKS, labels=5, upsampling='normal'),
    'rrdbnet': nn.RRDBGenerator(4, ((1, 2, 3, 4) * 3,), (5, 6), 7, unshuffle=2),
    'srvgg': nn.srvgg(6, 2, scale=2),
    'dcgan': nn.DCGANGenerator(2, size=32)}


def filled(module):
  """Variables that hide nothing: no scale is 1, no bias and no running mean 0."""
  rng = np.random.default_rng(0)

  def fill(path, x):
    name = path[-1].key
    noise = .3 * rng.standard_normal(x.shape) + (name in ('scale', 'var'))
    return (0 * noise if name == 'count' else abs(noise) if name == 'var' else noise).astype(
        x.dtype)

  # Without the initialisers, each of which would be compiled for every shape.
  shapes = jax.eval_shape(module.init, jax.random.key(0), jax.eval_shape(module.example))
  return jax.tree_util.tree_map_with_path(fill, dict(shapes))


def inputs(module):
  shape = module.example().shape[1:]
  side = max(16, shape[0])
  shape = shape if len(shape) == 1 else (side, side, shape[-1])
  return np.random.default_rng(1).uniform(-1, 1, (2, *shape)).astype(np.float32)


def draw(module, variables, x, train=False):
  run = lambda variables, x: module.apply(variables, x, train=train, mutable=list(variables))[0][0]
  return jax.jit(run)(variables, x)


def half(plan, variables, criterion='l1', **fields):
  scores = pruning.scores(plan, variables['params'], criterion, **fields)
  middle = np.median(np.concatenate([np.asarray(x) for x in scores.values()]))
  return pruning.keep(plan, scores, middle)


@pytest.fixture(scope='module', params=NETWORKS)
def cut(request):
  module = NETWORKS[request.param]
  plan, variables = module.plan(), filled(module)
  return module, plan, variables, half(plan, variables)


def test_compacting_is_invisible(cut):
  """In float64: norms of few channels enlarge what float32 rounds."""
  module, plan, variables, masks = cut
  assert sum(pruning.widths(masks).values()) < .7 * sum(plan.widths.values())
  with jax.enable_x64(True):
    module = module.clone(dtype=jnp.float64)
    variables = jax.tree.map(lambda x: x.astype(np.float64) if x.ndim else x, variables)
    small = module.with_widths(pruning.widths(masks))
    masked = {**variables, 'params': pruning.apply_masks(plan, variables['params'], masks)}
    x = inputs(module).astype(np.float64)
    # Norms without statistics of their own do the same in both modes.
    for train in ((False, True) if len(variables) > 1 else (True,)):
      wanted = draw(module, masked, x, train)
      found = draw(small, pruning.compact(plan, variables, masks), x, train)
      np.testing.assert_allclose(found, wanted, atol=1e-9)
      assert np.std(wanted) > .05


def test_what_is_put_back_was_there(cut):
  _, plan, variables, masks = cut
  small = pruning.compact(plan, variables, masks)
  again = pruning.compact(plan, pruning.expand(plan, small, masks), masks)
  jax.tree.map(np.testing.assert_array_equal, again, small)
  masked = pruning.apply_masks(plan, variables['params'], masks)
  jax.tree.map(np.testing.assert_array_equal, pruning.expand(plan, small, masks)['params'], masked)


def test_a_compiled_function_ranks_and_masks_alike():
  module = NETWORKS['inception_batch']
  plan, params = module.plan(), filled(module)['params']

  @jax.jit
  def compiled(params):
    ranked = {criterion: pruning.scores(plan, params, criterion, grads=params)
              for criterion in ('norm', 'l1', 'l2', 'taylor')}
    masks = pruning.keep(plan, ranked['norm'], .9, min_channels=2)
    return ranked, masks, pruning.apply_masks(plan, params, masks)

  ranked, masks, masked = jax.device_get(compiled(params))
  for criterion, found in ranked.items():
    wanted = pruning.scores(plan, params, criterion, grads=params)
    assert all(isinstance(x, np.ndarray) for x in wanted.values())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, wanted)
  wanted = pruning.keep(plan, ranked['norm'], .9, min_channels=2)
  jax.tree.map(np.testing.assert_array_equal, masks, wanted)
  assert 0 < sum(pruning.widths(masks).values()) < sum(plan.widths.values())
  jax.tree.map(np.testing.assert_array_equal, masked, pruning.apply_masks(plan, params, masks))


def test_the_cost_is_that_of_the_network_built(cut):
  module, plan, variables, masks = cut
  shape = (1, *inputs(module).shape[1:])
  widths = pruning.widths(masks)
  small = module.with_widths(widths)
  for unit in ('macs', 'torchprofile', 'cat', 'params'):
    cost = pruning.cost(module, plan, shape, unit)
    if unit == 'params':
      wanted = analysis.count_params(pruning.compact(plan, variables, masks))
    else:
      wanted = analysis.macs(small, shape, 'exact' if unit == 'macs' else unit)
    assert cost(widths) == wanted, unit
    counts = np.array([widths[name] for name in cost.groups], np.float32)
    np.testing.assert_allclose(jax.jit(cost.total)(counts), wanted, rtol=1e-6)


def test_branches_and_blocks_vanish():
  module = nn.inception(6, 2)
  plan, variables = module.plan(), filled(module)
  gone = [name for name in plan.groups if name.startswith('block1/') or name == 'block2/dense3']
  masks = {name: np.full(group.width, name not in gone) for name, group in plan.groups.items()}
  small = module.with_widths(pruning.widths(masks))
  assert not small.blocks[0] and [k for k, _ in small.blocks[1].dense] == [1, 5]
  found = pruning.compact(plan, variables, masks)
  assert 'block1' not in found['params'] and 'block1_norm' not in found['params']
  masked = {'params': pruning.apply_masks(plan, variables['params'], masks)}
  x = inputs(module)
  np.testing.assert_allclose(draw(small, found, x), draw(module, masked, x), atol=2e-5)
  cost = pruning.cost(module, plan, (1, 16, 16, 3), 'cat')
  assert cost(pruning.widths(masks)) == analysis.macs(small, (1, 16, 16, 3), 'cat')


def test_hidden_channels_die_after_their_activation():
  """Inheriting keeps the teacher's function but for what the removed channels had said."""
  module = nn.inception(6, 1)
  plan, variables = module.plan(), filled(module)
  masks = {name: np.ones(group.width, bool) for name, group in plan.groups.items()}
  masks['block1/dense3'] = np.array([True, False, True, False])
  silent = jax.tree.map(np.array, variables)
  silent['params']['block1']['dense3_out']['kernel'][:, :, ~masks['block1/dense3']] = 0
  small = module.with_widths(pruning.widths(masks))
  x = inputs(module)
  np.testing.assert_allclose(draw(small, pruning.compact(plan, variables, masks), x),
                             draw(module, silent, x), atol=1e-5)


# Recorded from published code: 3.8 of CAT's specification; weights by the rule of its goldens.
PUBLISHED = [
    ('instance_affine', 2.6e9, 1.246541142, 2_584_883_200, 431_213, (16, 24, 59), (33, 16),
     {1: (8, 13, 9, 5, 13, 10), 2: (14, 3, 11, 7, 15, 7), 9: (11, 9, 6, 9, 9, 15)}),
    ('batch', 4.6e9, 1.167340994, 4_578_504_704, 834_575, (22, 35, 85), (41, 16),
     {1: (12, 17, 13, 9, 17, 13)}),
    ('batch', 5.6e9, 1.127740979, 5_589_782_528, 1_019_575, (24, 46, 92), (48, 17),
     {1: (14, 18, 14, 11, 20, 14)})]


@pytest.mark.parametrize('norm, budget, threshold, macs, params, stem, up, blocks', PUBLISHED)
def test_published_thresholds(norm, budget, threshold, macs, params, stem, up, blocks):
  module = nn.inception(64, norm=norm)
  scores, cost, plan = searched(module, (1, 256, 256, 3))
  assert sum(len(x) for x in scores.values()) == 2908
  cat_search = pruning.search(plan, scores, cost, budget, min_channels=16, cat_search=True)
  assert cat_search.threshold == pytest.approx(threshold, abs=1e-6) and cat_search.cost == macs
  small = module.with_widths(pruning.widths(cat_search.masks))
  assert (small.stem, small.up) == (stem, up)
  for block, widths in blocks.items():
    branches = small.blocks[block - 1]
    assert tuple(n for _, n in (*branches.dense, *branches.depthwise)) == widths
  assert pruning.cost(module, plan, unit='params')(pruning.widths(cat_search.masks)) == params
  exact = pruning.search(plan, scores, cost, budget, min_channels=16)
  assert cat_search.cost <= exact.cost <= budget


@pytest.fixture(scope='module')
def label_maps():
  return nn.inception_spade(64), *searched(nn.inception_spade(64), (1, 256, 512, 36))


@pytest.mark.parametrize('budget, threshold, macs, params, fc, block, main, spade', [
    (3e10, 0.970583439, 29_890_344_256, 15_704_306, 528, 0, (93, 108, 89, 97, 95, 86),
     (8, 9, 13, 13, 12, 11)),
    (5.6e9, 1.332797289, 5_510_211_072, 2_160_800, 256, 6, (1, 2, 1, 3), (2, 6, 5, 5, 3))])
def test_published_thresholds_of_label_maps(label_maps, budget, threshold, macs, params, fc, block,
                                            main, spade):
  module, scores, cost, plan = label_maps
  assert sum(len(x) for x in scores.values()) == 5914
  cat_search = pruning.search(plan, scores, cost, budget, min_channels=16, cat_search=True)
  assert cat_search.threshold == pytest.approx(threshold, abs=1e-6) and cat_search.cost == macs
  small = module.with_widths(pruning.widths(cat_search.masks))
  named = lambda branches: tuple(n for _, n in (*branches.dense, *branches.depthwise))
  assert small.fc == fc and small.blocks[-1].out == fc // 16
  assert named(small.blocks[block].main) == main and named(small.blocks[block].spade) == spade
  assert pruning.cost(module, plan, unit='params')(pruning.widths(cat_search.masks)) == params
  exact = pruning.search(plan, scores, cost, budget, min_channels=16)
  assert cat_search.cost <= exact.cost <= budget


@functools.cache
def searched(module, shape):
  """Scores, the published cost and the plan of a network with the goldens' scales, all that
  scores read."""
  plan = module.plan()
  fill = lambda key, shape: (normal_fill(key, shape) if len(shape) < 4 else
                             np.zeros(shape, np.float32))
  params = convert.from_torch(state_dict(module, fill))[1]['params']
  return pruning.scores(plan, params), pruning.cost(module, plan, shape, 'cat'), plan


@pytest.fixture(scope='module')
def small_search():
  module = nn.inception(8, 2)
  plan, variables = module.plan(), filled(module)
  return (plan, pruning.scores(plan, variables['params']),
          pruning.cost(module, plan, (1, 64, 64, 3)))


@pytest.mark.parametrize('fields', [{}, {'round_to': 4}, {'scope': 'group'}, {'min_channels': 3}])
def test_masks_nest_as_budgets_fall(small_search, fields):
  plan, scores, cost = small_search
  everything = cost(plan.widths)
  previous = {name: np.ones(group.width, bool) for name, group in plan.groups.items()}
  for share in np.linspace(.95, .45, 11):
    found = pruning.search(plan, scores, cost, share * everything, **fields)
    assert found.cost == cost(pruning.widths(found.masks)) <= share * everything
    assert all((found.masks[name] <= previous[name]).all() for name in plan.groups)
    previous = found.masks


def test_no_threshold_would_have_kept_more(small_search):
  plan, scores, cost = small_search
  budget = .5 * cost(plan.widths)
  found = pruning.search(plan, scores, cost, budget, min_channels=2)
  values = np.unique(np.concatenate(list(scores.values())))
  below = values[values < found.threshold].max()
  masks = pruning.keep(plan, scores, below, min_channels=2)
  assert cost(pruning.widths(masks)) > budget >= found.cost


def test_the_search_of_a_compiled_step_is_the_same(small_search):
  plan, scores, cost = small_search
  tighten = jax.jit(lambda scores,
                    budget: pruning.tighten(plan, scores, cost, budget, min_channels=2))
  for share in (2., .8, .5, .3):
    budget = share * cost(plan.widths)
    wanted = pruning.search(plan, scores, cost, budget, min_channels=2).masks
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(tighten(scores, budget)),
                 dict(wanted))


EQUAL = {  # scores of the groups of `small_search`: what is the same in which of them
    'all': lambda x, rng: np.ones_like(x), 'all 0': lambda x, rng: np.zeros_like(x),
    'two values': lambda x, rng: rng.integers(1, 3, x.shape).astype(x.dtype)}


@pytest.mark.parametrize('equal', EQUAL)
@pytest.mark.parametrize('fields', [{}, {'round_to': 2}, {'min_channels': 2}, {'scope': 'group'}])
def test_equal_scores_are_cut_evenly(small_search, equal, fields, caplog):
  """As many as have to go: a network that was just initialised is cut to its budget, and budgets
  nest."""
  plan, scores, cost = small_search
  rng = np.random.default_rng(0)
  scores = {name: EQUAL[equal](np.asarray(x), rng) for name, x in scores.items()}
  whole, previous, coarse = cost(plan.widths), None, 'round_to' in fields
  for share in (.8, .5):
    found = pruning.search(plan, scores, cost, share * whole, **fields)
    assert found.cost == cost(pruning.widths(found.masks)) <= share * whole
    assert found.cost > (.85 if coarse else .9) * share * whole
    assert previous is None or all((found.masks[name] <= previous[name]).all() for name in previous)
    previous = found.masks
  if equal != 'two values':  # the first of each stay, the same share of each
    assert all((np.diff(mask.astype(int)) <= 0).all() for mask in found.masks.values())
    shares = [mask.mean() for name, mask in found.masks.items() if len(mask) > 4]
    assert max(shares) - min(shares) <= (.35 if fields else .2)
  assert coarse or not caplog.records
  if not fields:
    same = jax.jit(lambda scores, budget: pruning.tighten(plan, scores, cost, budget))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(same(scores, share * whole)),
                 dict(found.masks))


def test_dead_channels_go_before_any_other(small_search):
  """Those of score 0 together, however much the budget would pay for."""
  plan, scores, cost = small_search
  found = pruning.search(plan, scores, cost, .5 * cost(plan.widths))
  dead = {name: np.where(found.masks[name], x, 0.) for name, x in scores.items()}
  for more in (1.01, 1.4):
    again = pruning.search(plan, dead, cost, more * found.cost)
    jax.tree.map(np.testing.assert_array_equal, dict(again.masks), dict(found.masks))


@pytest.mark.parametrize('share, fields, said', [
    (1.5, {}, 'above .*, what the whole network costs: nothing was pruned'),
    (1.5, {'scope': 'group'}, 'nothing was pruned'),
    (.5, {'cat_search': True}, r'\d+ % of its budget of .*; cat_search=False finds'),
    (1.05, {}, None), (1., {}, None), (.5, {}, None)])
def test_a_budget_that_is_not_used_is_told(small_search, share, fields, said, caplog):
  plan, scores, cost = small_search
  if fields.get('cat_search'):
    scores = {name: np.ones(len(x), np.float32) for name, x in scores.items()}
  pruning.search(plan, scores, cost, share * cost(plan.widths), **fields)
  assert (re.search(said, caplog.text) is not None) if said else not caplog.records


def test_what_the_next_larger_network_would_cost_is_told(caplog):
  plan, scores = prunable.Plan({'a': prunable.Group(4)}, {}, {}, {}), {'a': np.arange(1., 5.)}
  assert pruning.search(plan, scores, lambda widths: widths['a'], 3, round_to=2).cost == 2
  assert 'costs 2, 67 % of its budget of 3; the next larger one costs 4' in caplog.text


@pytest.mark.parametrize('more', [1., 1.01])
def test_a_compiled_step_leaves_alone_what_the_budget_pays_for(small_search, more):
  plan, scores, cost = small_search
  found = pruning.search(plan, scores, cost, .5 * cost(plan.widths), min_channels=2)
  living = {name: np.where(found.masks[name], x, -1) for name, x in scores.items()}
  tighten = jax.jit(lambda scores,
                    budget: pruning.tighten(plan, scores, cost, budget, min_channels=2))
  jax.tree.map(np.testing.assert_array_equal,
               jax.device_get(tighten(living, more * found.cost)), dict(found.masks))


def test_widths_are_rounded_up_to_a_multiple(small_search):
  plan, scores, cost = small_search
  found = pruning.search(plan, scores, cost, .6 * cost(plan.widths), round_to=4)
  for name, width in pruning.widths(found.masks).items():
    assert width % 4 == 0 or width == plan.groups[name].width


def test_scores_by_hand():
  module = nn.ResNetGenerator(stem=(1, 2), hidden=(2,), up=(1,), norm='batch', dropout=0.)
  plan, variables = module.plan(), filled(module)
  params = variables['params']
  by = lambda criterion, **fields: pruning.scores(plan, params, criterion, **fields)
  np.testing.assert_allclose(by('norm')['block1'], np.abs(params['block1']['norm1']['scale']))
  kernel = params['block1']['conv1']['kernel']
  np.testing.assert_allclose(by('l1')['block1'], np.abs(kernel).mean((0, 1, 2)), rtol=1e-6)
  np.testing.assert_allclose(by('l2')['block1'], np.sqrt(np.square(kernel).mean((0, 1, 2))),
                             rtol=1e-6)
  # The residual stream is made by the stem and by the block.
  makers = np.concatenate([params[a][b]['kernel'].reshape(-1, 2) if b else
                           params[a]['kernel'].reshape(-1, 2)
                           for a, b in (('stem1', ''), ('block1', 'conv2'))])
  np.testing.assert_allclose(by('l1')['stem1'], np.abs(makers).mean(0), rtol=1e-6)
  ones = jax.tree.map(np.ones_like, params)
  hidden = kernel.sum((0, 1, 2)) + params['block1']['conv2']['kernel'].sum((0, 1, 3)) + \
      params['block1']['norm1']['scale'] + params['block1']['norm1']['bias']
  np.testing.assert_allclose(by('taylor', grads=ones)['block1'], np.abs(hidden), rtol=1e-5)
  drawn = by('random', key=jax.random.key(0))
  assert drawn.keys() == plan.groups.keys() and len(set(np.concatenate(
      list(drawn.values())).tolist())) == sum(plan.widths.values())


def test_copies_of_a_group_are_counted():
  """A modulation makes gamma and beta, two values for each channel that it modulates."""
  plan = NETWORKS['inception_spade'].plan()
  *pixels, read, made = plan.leaves['params', 'head', 'spade', 'dense3_out', 'kernel']
  numbers = plan.numbers
  assert pixels == [None, None] and read.tolist() == [*numbers['head/spade/dense3']]
  assert made.tolist() == [*numbers['fc'], *numbers['fc']]
  plan = nn.unet(4, 4).plan()
  *_, read, made = plan.leaves['params', 'up2', 'kernel']
  assert read.tolist() == [*plan.numbers['down2'], *plan.numbers['up3']]
  assert made.tolist() == [*plan.numbers['up2']]
  plan = prunable.Plan({'both': prunable.Group(3)}, {},
                       {('params', 'x'): (np.array([0, 1, 2, 0, 1, 2]),)}, {('params', 'x'): (6,)})
  x = np.array([0., 1, 2, 30, 40, 50])
  assert pruning.scores(plan, {'x': x}, 'taylor', grads={'x': x ** 0})['both'].tolist() == [
      30, 41, 52]


@pytest.mark.parametrize('change, message', [
    (dict(budget=0), 'a budget is above 0'), (dict(budget=-5.), 'a budget is above 0'),
    (dict(budget=float('nan')), 'a budget is above 0'), (dict(budget=1e3), 'below .* smallest'),
    (dict(scope='layer'), 'one of global, group'),
    (dict(scores={'block7': np.ones(3)}), 'block7, which this network does not have'),
    (dict(scores={'stem0': np.ones(3)}), r'stem0 has \(3,\) scores and 8 channels'),
    (dict(scores={'stem0': np.full(8, np.nan)}), '8 scores of stem0 are not finite')])
def test_what_cannot_be_pruned_is_refused(small_search, change, message):
  plan, scores, cost = small_search
  with pytest.raises(ValueError, match=message):
    pruning.search(plan, **{'scores': scores, 'cost': cost, 'budget': 1e6, **change})


def test_the_floor_is_named():
  module = nn.inception(64)
  scores, cost, plan = searched(module, (1, 256, 256, 3))
  for cat_search in (False, True):
    with pytest.raises(ValueError, match='546,897,920'):
      pruning.search(plan, scores, cost, 5e8, min_channels=16, cat_search=cat_search)


def test_the_published_search_ends_where_only_the_floor_fits(small_search):
  plan, scores, cost = small_search
  min_channels = pruning.keep(plan, scores, np.inf)
  least = cost(pruning.widths(min_channels))
  # Neighbours in float32, of which only the upper one is cheap enough.
  close = {name: np.full(len(x), np.float32(1)) for name, x in scores.items()}
  close['block1/dense3'] = np.full(len(close['block1/dense3']), np.nextafter(np.float32(1), 2),
                                   np.float32)
  found = pruning.search(plan, close, cost, least, cat_search=True)
  assert found.cost == least


@pytest.mark.parametrize('fields, message', [
    (dict(criterion='best'), 'one of norm, l1'), (dict(criterion='taylor'), 'grads=...'),
    (dict(criterion='random'), 'takes a key'), ({}, 'no norm of this network has scales'),
    (dict(criterion='activation'), 'takes statistics=')])
def test_scores_that_cannot_be_had_are_refused(fields, message):
  module = nn.resnet(2, 1)
  with pytest.raises(ValueError, match=message):
    pruning.scores(module.plan(), filled(module)['params'], **fields)


def test_variables_of_another_network_are_refused():
  small, large = nn.unet(2, 2), nn.unet(3, 2)
  masks = {name: np.ones(group.width, bool) for name, group in small.plan().groups.items()}
  with pytest.raises(ValueError, match=r'is \(.*\) and the plan has \(.*another network'):
    pruning.compact(small.plan(), filled(large), masks)


@pytest.mark.parametrize('criterion', ['inherit', 'reinit', 'reinit_keep_norm'])
def test_what_a_student_starts_from(criterion):
  module = nn.inception(6, 2)
  plan, variables = module.plan(), filled(module)
  masks = half(plan, variables)
  small, start = pruning.init_student(module, plan, variables, masks, criterion,
                                      key=jax.random.key(1))
  kept = pruning.compact(plan, variables, masks)
  assert jax.tree.map(np.shape, start) == jax.tree.map(np.shape, kept)
  same = {path: np.array_equal(x, y) for (path, x), y in zip(
      jax.tree_util.tree_leaves_with_path(kept), jax.tree.leaves(start), strict=True)}
  if criterion == 'inherit':
    assert all(same.values())
  else:
    norms = {path: equal for path, equal in same.items()
             if 'scale' in jax.tree_util.keystr(path)}
    # Three of the stem, two on the way up, three and twice three a block of all its branches.
    ends = 'block1_norm', 'block2_norm'
    ended = [equal for path, equal in norms.items() if path[1].key in ends]
    assert sum(same.values()) == (0 if criterion == 'reinit' else 2 * (len(norms) - len(ended)))
    assert not any(ended)
  jax.eval_shape(small.apply, start, inputs(small))


def test_starts_that_cannot_be_had_are_refused():
  module = nn.inception(6, 1)
  plan, variables = module.plan(), filled(module)
  masks = half(plan, variables)
  with pytest.raises(ValueError, match='one of inherit, reinit'):
    pruning.init_student(module, plan, variables, masks, 'copy')
  with pytest.raises(ValueError, match='give it a key'):
    pruning.init_student(module, plan, variables, masks, 'reinit')


def test_a_multiple_keeps_a_step():
  """A width of SPADE that is halved four times stays divisible by 16, rounded up to 24 or not."""
  plan = prunable.Plan({'fc': prunable.Group(256, step=16)}, {}, {}, {})
  ranked = {'fc': np.arange(256.)}
  kept = lambda above, **more: int(pruning.keep(plan, ranked, 255. - above, **more)['fc'].sum())
  assert [kept(50), kept(50, round_to=24), kept(50, round_to=8)] == [48, 48, 48]
  assert kept(100, round_to=24) == 96 and kept(110, round_to=24) == 96 and kept(
      130, round_to=24) == 144


def test_the_picture_shows_what_stays():
  masks = {'stem0': np.array([True, False]), 'block1/dense3': np.arange(1024) < 512}
  page = pruning.plot_masks(masks)
  rows = page[(24, 40), 190:702].astype(int)
  for row in rows:
    assert (row[:250] == (40, 90, 160)).all() and (row[262:] == (222, 222, 222)).all()


def test_the_verb_writes_students_that_nest(tmp_path, capsys):
  module = nn.inception(6, 2)
  nn.save(tmp_path / 'teacher.safetensors', module, filled(module))
  run = lambda *more: cli.main(['prune', f'--network={tmp_path / "teacher.safetensors"}',
                                '--size=32', f'--output={tmp_path / "student.safetensors"}', *more])
  assert run('--budget=1e6,2e6') == 0
  shown = capsys.readouterr().out
  small, large = (nn.load(tmp_path / f'student_{budget}.safetensors')[0]
                  for budget in ('1e06', '2e06'))
  for net, budget in ((small, 1e6), (large, 2e6)):
    macs = analysis.macs(net, (1, 32, 32, 3))
    assert .8 * budget < macs <= budget and f'{macs:,}' in shown
  assert all(a <= b for a, b in zip(small.stem, large.stem, strict=True))
  assert (tmp_path / 'student_1e06.png').stat().st_size > 1000
  assert run('--budget=1e6,2e6') == 2 and 'exists' in capsys.readouterr().err
  assert run('--budget=1') == 2 and 'is below' in capsys.readouterr().err
  assert run('--budget=lots') == 2 and 'give numbers' in capsys.readouterr().err


def test_the_verb_looks_at_activations(tmp_path, capsys):
  module, file, photos = nn.resnet(2, 1), tmp_path / 'net.safetensors', tmp_path / 'photos'
  variables, rng = filled(module), np.random.default_rng(0)
  nn.save(file, module, variables)
  photos.mkdir()
  pixels = rng.integers(0, 256, (11, 8, 12, 3), np.uint8)
  for i, x in enumerate(pixels):
    Image.fromarray(x).save(photos / f'{i:02d}.png')
  run = lambda *more: cli.main(['prune', f'--network={file}', '--size=8x12', '--budget=5e4', *more,
                                f'--output={tmp_path / "small.safetensors"}',
                                '--criterion=activation'])
  assert run() == 2 and 'give pictures as --input=FOLDER' in capsys.readouterr().err
  assert run(f'--input={tmp_path / "none"}') == 2 and 'is not there' in capsys.readouterr().err
  assert run(f'--input={photos}') == 0
  batches = pixels / np.float32(127.5) - 1
  wanted = pruning.prune(module, variables, (1, 8, 12, 3), budget=5e4, criterion='activation',
                         batches=[batches[:8], batches[8:]])
  small, found = nn.load(tmp_path / 'small.safetensors')
  assert small == wanted.module != module
  jax.tree.map(np.testing.assert_array_equal, found, wanted.variables)
  labels, file = nn.spade(2, 'normal', hidden=4, labels=5), tmp_path / 'labels.safetensors'
  nn.save(file, labels, filled(labels))
  command = ['prune', f'--network={file}', '--size=32', '--budget=4e5', '--criterion=activation',
             f'--output={tmp_path / "s.safetensors"}']
  for more in ([], [f'--input={photos}']):
    assert cli.main([*command, *more]) == 2 and '--workdir' in capsys.readouterr().err


def test_a_budget_of_milliseconds(small_search):
  """Read off a table; one measured here rises with size."""
  plan, scores, cost = small_search
  whole = cost(plan.widths)
  table = pruning.LatencyTable(cost, (whole // 2, whole), (1., 4.))
  assert table(plan.widths) == 4
  half = pruning.search(plan, scores, cost, whole / 2)
  assert half.cost < whole // 2 and table(pruning.widths(half.masks)) == 1  # never less
  with pytest.raises(ValueError, match='a budget of 0.99 is below 1, what the smallest'):
    pruning.search(plan, scores, table, .99)
  found = pruning.search(plan, scores, table, 2.5)
  assert 2 < found.cost <= 2.5
  assert cost(pruning.widths(found.masks)) == pytest.approx(whole * (.5 + (found.cost - 1) / 6))
  cut = pruning.prune(nn.inception(8, 2), filled(nn.inception(8, 2)), budget=2.5, unit=table)
  assert cut.before == 4 and table(cut.module.plan().widths) == cut.cost <= 2.5
  for points in (((1, 2), (1.,)), ((2, 1), (1., 2.)), ((1, 2), (2., 1.))):
    with pytest.raises(ValueError, match='a table'):
      pruning.LatencyTable(cost, *points)


@pytest.mark.parametrize('slower, times', [(1., 1), (1.5, 2), (lambda calls: 1.2 * calls, 4)])
def test_a_cut_to_time_sets_its_table_right(monkeypatch, caplog, slower, times):
  module, shape = nn.inception(24, 3), (1, 32, 32, 3)
  plan = module.plan()
  price = pruning.cost(module, plan, shape)
  whole = price(plan.widths)
  table = pruning.LatencyTable(price, (whole // 50, whole), (.2, 10.))
  measured = []

  def clock(modules, shape, backend):
    factor = slower(len(measured) + 1) if callable(slower) else slower
    measured.append(factor * np.interp(analysis.macs(modules[1], shape), table.macs, table.ms))
    return [0., measured[-1]]

  monkeypatch.setattr('jaxgan_compress.pruning.latency.milliseconds', clock)
  _, ms = pruning.prune_to_latency(module, filled(module), shape, budget=5., table=table)
  assert len(measured) == times and ms == min(measured, key=lambda ms: abs(ms - 5))
  told = f'the nearest network takes {ms:.3g} ms, {20 * ms:.0f} % of its budget of 5 ms'
  assert (told in caplog.text) == (abs(ms / 5 - 1) > .05) == callable(slower)
  with pytest.raises(ValueError, match='budget'):
    pruning.prune_to_latency(module, filled(module), shape, budget=1e-9, table=table)


@pytest.mark.parametrize('backend', pruning.BACKENDS)
def test_a_measured_table_rises(backend):
  table = pruning.latency_table(nn.unet(2, 2), (1, 16, 16, 3), shares=(.001, .5, 1.), rounds=3,
                                backend=backend)
  assert len(table.ms) == 2 and 0 < table.ms[0] <= table.ms[1]
  assert table.macs[1] == analysis.macs(nn.unet(2, 2), (1, 16, 16, 3))


def test_a_table_that_was_measured_is_what_prune_goes_by(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(pruning.latency, 'SECONDS', .01)
  net, table, out = (tmp_path / name for name in (
      'net.safetensors', 'table.json', 'cut.safetensors'))
  module = nn.unet(4, 2)
  nn.save(net, module, filled(module))
  measure = ['profile-latency', f'--network={net}', '--size=16', f'--output={table}', '--rounds=3',
             '--backend=onnx']
  assert cli.main(measure) == 0
  stored = json.loads(table.read_text())
  assert stored['backend'] == 'onnx' and stored['macs'][-1] == analysis.macs(module, (1, 16, 16, 3))
  assert cli.main(measure) == 2 and 'exists' in capsys.readouterr().err
  # A table of another device, where the whole takes 4 ms.
  table.write_text(json.dumps({'macs': [1, stored['macs'][-1]], 'ms': [0, 4.], 'backend': 'onnx'}))
  assert cli.main(['prune', f'--network={net}', '--size=16', '--unit=ms', f'--table={table}',
                   '--budget=3', f'--output={out}']) == 0
  said = capsys.readouterr().out
  assert 'latency of the table, ms' in said and 'measured latency, ms' in said
  assert analysis.macs(nn.load(out)[0], (1, 16, 16, 3)) <= stored['macs'][-1] * .75
  with pytest.raises(ValueError, match='one of jax, onnx'):
    pruning.milliseconds([module], (1, 16, 16, 3), backend='tflite')


def test_what_scores_at_the_threshold_goes():
  plan = prunable.Plan({'a': prunable.Group(4)}, {}, {}, {})
  scores = {'a': np.array([1., 2., 3., 2.])}
  for threshold, left in ((0., [1, 1, 1, 1]), (1., [0, 1, 1, 1]), (2., [0, 0, 1, 0])):
    assert pruning.keep(plan, scores, threshold)['a'].tolist() == [bool(x) for x in left]
  found = pruning.search(plan, scores, lambda widths: widths['a'], 3)  # met exactly
  assert found.threshold == 1 and found.cost == 3 and found.masks['a'].tolist() == [
      False, True, True, True]


# --- by activations ---

class Readers(linen.Module):
  """Channels with readers of every kind, whose outputs add up: with a bias, with a norm that has
  running statistics, and with neither, which the last layer reads through an activation function.
  """
  width: int = 2
  kernel: int = 1

  @linen.compact
  def __call__(self, x, train=False):
    x = linen.relu(nn.Conv(self.width, 1, name='made')(x))
    read = lambda name, **more: nn.Conv(2, self.kernel, name=name, **more)(x)
    y = read('biased') + nn.BatchNorm(name='norm')(read('normed', bias=False), train)
    y = jnp.concatenate([y, linen.leaky_relu(read('bare', bias=False))], -1)
    return nn.Conv(1, 1, name='to_image')(y), {}

  def plan(self):
    return prunable.make_plan(self, {'made': prunable.Group(self.width)},
                              whole=('biased', 'normed', 'bare'))

  def with_widths(self, widths):
    return self.clone(width=widths['made'])

  def example(self):
    return jnp.zeros((1, 4, 4, 1))


def readers(kernel, slopes, biases):
  """(network, variables) whose first layer computes relu(x * slope + bias) in each channel."""
  module = Readers(len(slopes), kernel)
  variables = filled(module)
  variables['params']['made'] = {'kernel': np.reshape(np.float32(slopes), (1, 1, 1, -1)),
                                 'bias': np.float32(biases)}
  # Of one sign, so that its mean is exact where the other channels vary.
  for name in ('bare', 'biased', 'normed'):
    variables['params'][name]['kernel'] = abs(variables['params'][name]['kernel'])
  return module, variables


# Half of all pixels are 0 and half 1, differently in two pictures.
ZEROS_AND_ONES = np.zeros((2, 4, 4, 1), np.float32)
ZEROS_AND_ONES[0, :3] = ZEROS_AND_ONES[1, 0] = 1


def test_activations_by_hand():
  module, variables = readers(3, (1, -4, .5), (0, 3, .25))
  found = pruning.activation_statistics(module, variables, [ZEROS_AND_ONES])
  params, total = variables['params'], 0
  assert set(found.readers) == {('biased',), ('normed',), ('bare',)}
  for (name,), of in found.readers.items():
    # x, relu(3 - 4 x), 0.25 + x / 2, of x that is 0 and 1 equally often.
    np.testing.assert_allclose(of.mean, [.5, 1.5, .5], rtol=1e-6)
    np.testing.assert_allclose(of.std, [.5, 1.5, .25], rtol=1e-6)
    squares = np.square(params[name]['kernel']).sum((0, 1, 3))
    np.testing.assert_allclose(of.weight, np.sqrt(squares), rtol=1e-6)
    total += squares
  scores = pruning.scores(module.plan(), params, 'activation', statistics=found)
  np.testing.assert_allclose(scores['made'], [.5, 1.5, .25] * np.sqrt(total), rtol=1e-6)


def test_the_split_into_batches_does_not_matter():
  _, variables = readers(1, (1, -4), (0, 3))
  x = 100 + np.random.default_rng(0).normal(size=(6, 4, 4, 1)).astype(np.float32)
  variables['params']['made']['bias'] += np.float32(1000)  # the mean is far above what varies
  class Unbounded(Readers):  # of numbers that are no pictures
    input_kind = 'labels'
  whole, parts = ({path: dataclasses.astuple(of) for path, of in pruning.activation_statistics(
      Unbounded(2, 1), variables, batches).readers.items()}
                  for batches in ([x], (each for each in (x[:3], x[3:5], x[5:]))))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4), parts, whole)


@pytest.mark.parametrize('kernel', [1, 3])
def test_a_constant_channel_goes_first_and_nothing_changes(kernel):
  """But at borders, where a kernel reads zeros beside it."""
  module, variables = readers(kernel, (1, 0, .5), (0, 3, 99))  # so that no sum is negative
  cost = pruning.cost(module, module.plan(), (1, 4, 4, 1))
  found = pruning.prune(module, variables, (1, 4, 4, 1), budget=cost({'made': 2}),
                        criterion='activation', batches=[ZEROS_AND_ONES])
  assert found.masks['made'].tolist() == [True, False, True]
  x = np.random.default_rng(0).uniform(0, 1, (2, 8, 8, 1)).astype(np.float32)
  wanted, small = draw(module, variables, x), draw(found.module, found.variables, x)
  inside = slice(kernel // 2, 8 - kernel // 2)
  np.testing.assert_allclose(small[:, inside, inside], wanted[:, inside, inside], rtol=1e-5)
  lost = draw(found.module, pruning.compact(module.plan(), variables, found.masks), x)
  assert np.abs(small - wanted).max() < np.abs(lost - wanted).max()
  assert np.abs(lost - wanted)[:, inside, inside].min() > .1
  assert (kernel > 1) == bool(np.abs(small - wanted).max() > 1e-2)  # said to be approximate


def test_batches_that_can_be_read_once_suffice_for_a_cut_to_time(monkeypatch):
  module, variables = readers(1, (1, 0, .5, 2), (0, 3, 99, 0))
  price = pruning.cost(module, module.plan(), (1, 4, 4, 1))
  whole = price(module.plan().widths)
  times = iter([2.5, 2.])
  monkeypatch.setattr('jaxgan_compress.pruning.latency.milliseconds',
                      lambda *_, **__: [0., next(times)])
  found, ms = pruning.prune_to_latency(
      module, variables, (1, 4, 4, 1), budget=2., table=pruning.LatencyTable(
          price, (1, whole), (0., 3.)), criterion='activation', batches=iter([ZEROS_AND_ONES]))
  assert ms == 2 and found.masks['made'].tolist() == [False, False, False, True]


@pytest.mark.parametrize('bias', [None, True])
def test_constant_branches_vanish_and_nothing_changes(bias):
  """Of a block that reflects at borders: sums of layers with a bias, or with none, before a norm;
  a branch that vanishes leaves its bias and its mean behind."""
  module = NETWORKS['inception_batch'].clone(bias=bias)
  plan, variables, x = module.plan(), filled(module), inputs(module)
  masks = {each: np.ones(group.width, bool) for each, group in plan.groups.items()}
  for branch, gone in (('dense1', [0]), ('dense3', [0, 2, 3]), ('dense5', [0, 1, 2, 3]),
                       ('depthwise3', [1, 2]), ('depthwise5', [0, 1, 2, 3])):
    masks[f'block1/{branch}'][gone] = False
    norm = f'{branch}_norm2' if branch.startswith('depthwise') else f'{branch}_norm'
    variables['params']['block1'][norm]['scale'][gone] = 0
    variables['params']['block1'][norm]['bias'][gone] = 1 + np.arange(len(gone))
  found = pruning.activation_statistics(module, variables, [x])
  kept = pruning.keep_means(module, variables, masks, found)
  small = module.with_widths(pruning.widths(masks))
  draws = [np.asarray(draw(small, pruning.compact(plan, each, masks), x))
           for each in (kept, variables)]
  wanted = draw(module, variables, x)
  np.testing.assert_allclose(draws[0], wanted, atol=2e-4)
  assert np.abs(draws[1] - wanted).max() > .1


@pytest.mark.parametrize('name', NETWORKS)
def test_every_network_is_pruned_by_activations(name):
  module = NETWORKS[name]
  plan, variables, x = module.plan(), filled(module), inputs(module)
  shape = (1, *x.shape[1:])
  cost = pruning.cost(module, plan, shape)
  found = pruning.activation_statistics(module, variables, [x])
  scores = pruning.scores(plan, variables['params'], 'activation', statistics=found)
  assert {each: len(score) for each, score in scores.items()} == plan.widths
  assert sum(score.sum() for score in scores.values()) > 0
  result = pruning.prune(module, variables, shape, budget=.6 * cost(plan.widths), scope='group',
                         criterion='activation', batches=found)
  assert .3 * cost(plan.widths) < result.cost <= .6 * cost(plan.widths)
  # What is left is what masks leave of the corrected whole.
  whole = pruning.keep_means(module, variables, result.masks, found)
  jax.tree.map(np.testing.assert_array_equal, pruning.compact(plan, whole, result.masks),
               result.variables)
  jax.tree.map(np.testing.assert_array_equal, pruning.apply_masks(plan, whole['params'],
               result.masks), pruning.expand(plan, result.variables, result.masks)['params'])
  # Where nothing is removed nothing changes.
  everything = {each: np.ones(n, bool) for each, n in plan.widths.items()}
  jax.tree.map(np.testing.assert_array_equal,
               pruning.keep_means(module, variables, everything, found), variables)


def test_transposed_convolutions_keep_the_mean_of_their_phases():
  module = nn.DCGANGenerator(2, size=32)
  plan, variables = module.plan(), filled(module)
  found = pruning.activation_statistics(module, variables, [inputs(module)])
  masks = {name: np.arange(n) >= n // 2 for name, n in plan.widths.items()}
  kept = pruning.keep_means(module, variables, masks, found)['params']
  for reader, group in (('layer2', 'layer1'), ('layer3', 'layer2'), ('to_image', 'layer3')):
    mean = np.where(masks[group], 0, found.readers[(reader,)].mean)
    before = variables['params'][reader]
    np.testing.assert_allclose(kept[reader]['bias'], before['bias'] + mean @ before[
        'kernel'].sum((0, 1)) / 4, atol=1e-6)


def test_weights_under_spectral_norm_count_as_they_apply():
  module = NETWORKS['spade']
  variables = filled(module)
  found = pruning.activation_statistics(module, variables, [inputs(module)])
  path = 'head', 'conv0'
  kernel, u, v = variables['params']['head']['conv0']['kernel'], *(
      variables['spectral']['head']['conv0'][x] for x in 'uv')
  sigma = np.einsum('hwio,hwi,o', kernel, v, u)
  np.testing.assert_allclose(found.readers[path].weight,
                             np.sqrt(np.square(kernel).sum((0, 1, 3))) / abs(sigma), rtol=1e-4)


@pytest.mark.parametrize('fields, message', [
    (dict(batches=[]), 'there is no batch'), (dict(), 'takes batches='),
    (dict(batches=[np.zeros((2, 8, 8, 3), np.uint8)]), 'a batch is of uint8; .* core.normalise'),
    (dict(batches=[np.full((2, 8, 8, 3), np.nan)]), 'not finite'),
    (dict(batches=[np.full((2, 8, 8, 3), 200.)]), r'from 200 to 200; images are in \[-1, 1]'),
    (dict(batches=[np.zeros((2, 8, 8, 1))]), r'takes \[B,H,W,3\] and got \(2, 8, 8, 1\)'),
    (dict(batches=[np.zeros((0, 8, 8, 3))]), 'is empty'),
    (dict(batches=[np.zeros((2, 8, 8, 3))], criterion='l1'), "criterion='l1' takes no batches"),
    (dict(batches=pruning.ActivationStatistics({}, np.zeros(1))), 'of another network: block1'),
    (dict(batches=[np.zeros((2, 8, 8, 3))], broken=True), 'activations that .* are not finite')])
def test_batches_that_say_nothing_are_refused(fields, message):
  module = nn.resnet(2, 1)
  variables = filled(module)
  if fields.pop('broken', False):
    variables['params']['stem1']['kernel'][0] = np.inf
  with pytest.raises(ValueError, match=message):
    pruning.prune(module, variables, (1, 8, 8, 3), budget=1e4,
                  **{'criterion': 'activation', **fields})
