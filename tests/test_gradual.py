"""Pruning while a student learns online: masks only tighten, nobody sees them, one cut ends it."""

import dataclasses
import functools
import itertools

import jax
import numpy as np
import optax
import pytest

import jaxgan_compress as jgc
from jaxgan_compress import experiment, nn, pruning
from tests.conftest import largest_difference
from tests.test_omgd import (
  SMALL,
  UNPERCEIVED,
  alone,
  crops,
  images_of,
  in_float64,
  resumes,
  small_omgd,
  small_unpaired,
  two_steps,
)
from tests.test_translation_runs import ADAM, adversary, base, with_stages

WHOLE = nn.InceptionGenerator((2, 4), (nn.Branches(((1, 4), (3, 4)), ((3, 4),)),), (2,),
                              implementation='reference')
SHAPE = (1, 16, 16, 3)
PRICE = pruning.cost(WHOLE, WHOLE.plan(), SHAPE)
BUDGET, LESS = (PRICE(WHOLE.plan().widths) * share // 10 for share in (6, 5))
SHRINK = pruning.GradualPruning(BUDGET, start=1, end=5, every=1)


@pytest.fixture(scope='module')
def batch():
  return images_of('colorize', 4)


def shrinking(tx, gradual_pruning=SHRINK, **fields):
  return small_omgd(tx, student=WHOLE, deep=None, distill=UNPERCEIVED,
                    gradual_pruning=gradual_pruning, **fields)


def left(state, role='student'):
  return {name: np.asarray(mask) for name, mask in state.frozen['masks'][role].items()}


def test_the_budget_falls_by_a_cube():
  assert [float(pruning.schedule(step, 1000., 200., 10, 20)) for step in (0, 10, 15, 20, 99)] == [
      1000, 1000, 300, 200, 200]


@pytest.fixture(scope='module')
def history(batch):
  """The state after each of seven steps, with a rate that reorders the channels."""
  method = shrinking(optax.adam(.05), ema=.5)
  state = method.init(jax.random.key(0), batch)
  step, found = jax.jit(method.step), []
  for _ in range(7):
    state, logs = step(state, batch)
    found.append(jax.device_get((state, logs)))
  return method, found


def test_masks_only_tighten_until_the_budget_is_met(history):
  _, found = history
  masks = [left(state) for state, _ in found]
  widths = [sum(pruning.widths(each).values()) for each in masks]
  whole = sum(WHOLE.plan().widths.values())
  assert widths[0] == whole > widths[1] > widths[4] == widths[6]
  for before, after in itertools.pairwise(masks):
    assert all((after[name] <= before[name]).all() for name in before)
  for (_, logs), each in zip(found, masks, strict=True):
    cost = PRICE(pruning.widths(each))
    np.testing.assert_allclose(logs['cost']['student'], cost, rtol=1e-6)
    assert cost <= logs['budget']['student'] * (1 + 1e-6)
  assert cost <= BUDGET


def test_a_cut_finds_just_what_is_left(history, batch):
  """The masked student draws what the compact one does, averaged or not."""
  method, found = history
  state, _ = found[-1]

  @functools.partial(jax.jit, static_argnums=0)
  def draw(module, weights):
    return module.apply(weights, batch['source'], train=True)[0]

  for variables in (state.nets['student'].variables, state.nets['student'].averaged):
    cut = pruning.prune(WHOLE, variables, SHAPE, budget=BUDGET)
    assert largest_difference(cut.masks, left(state)) == 0
    np.testing.assert_allclose(draw(WHOLE, variables), draw(cut.module, cut.variables), atol=1e-4)
  assert method.generators(state)['student'].module == WHOLE


@pytest.fixture(scope='module')
def shrunk(batch):
  """What two steps in float64 come to with one budget or several, on one device; each is run
  once."""
  @functools.cache
  def run(budget):
    with jax.enable_x64(True):
      method = in_float64(shrinking(SMALL, pruning.GradualPruning(budget, 0, 2, 1), ema=.5))
      return two_steps(method, *begun(method, batch), 1, 'vmap')

  return run


def begun(method, batch):
  rows = {name: np.asarray(x, np.float64) for name, x in batch.items()}
  return method.init(jax.random.key(0), rows), rows


def same(found, expected):
  assert largest_difference(found[0], expected[0]) < 1e-9
  assert found[1].keys() == expected[1].keys()
  for name, value in expected[1].items():
    np.testing.assert_allclose(found[1][name], value, rtol=1e-7, atol=1e-10, err_msg=name)


def test_devices_change_nothing(batch, shrunk):
  with jax.enable_x64(True):
    method = in_float64(shrinking(SMALL, pruning.GradualPruning(BUDGET, 0, 2, 1), ema=.5))
    found = two_steps(method, *begun(method, batch), 4, 'pmap')
  same(found, shrunk(BUDGET))
  assert PRICE(pruning.widths(left(found[0]))) <= BUDGET


def test_students_of_several_budgets_are_those_of_runs_of_their_own(shrunk):
  """One teacher, paid for once; nobody feels the others."""
  both = shrunk((BUDGET, LESS))[0]
  roles = list(pruning.GradualPruning((BUDGET, LESS), 0, 2).roles('student'))
  assert roles[0] == 'student' and roles[1].startswith('student_')
  for role, budget in zip(roles, (BUDGET, LESS), strict=True):
    one = shrunk(budget)[0]
    assert largest_difference(both.params[role], one.params['student']) < 1e-10
    assert largest_difference(both.params['wide'], one.params['wide']) < 1e-10
    assert PRICE(pruning.widths(left(both, role))) <= budget


def test_devices_change_nothing_of_two_students(batch, shrunk):
  with jax.enable_x64(True):
    method = in_float64(shrinking(SMALL, pruning.GradualPruning((BUDGET, LESS), 0, 2, 1), ema=.5))
    found = two_steps(method, *begun(method, batch), 4, 'shard_map')
  same(found, shrunk((BUDGET, LESS)))


def test_it_stops_and_goes_on_to_the_same_bits():
  resumes(shrinking(optax.adam(.05)), crops('colorize'), 6, [2, 4])


def test_students_without_pairs_shrink_too(sgd):
  textures = images_of('grass2gravel', 2)
  method = dataclasses.replace(small_unpaired(sgd), student=WHOLE, distill=UNPERCEIVED,
                               gradual_pruning=pruning.GradualPruning(BUDGET, 0, 1, 1))
  state, logs = jax.jit(method.step)(alone(method.init(jax.random.key(0), textures)), textures)
  assert float(logs['cost']['student']) <= BUDGET
  dead = [name for name, mask in left(state).items() if not mask.all()]
  assert dead and not any(
      np.abs(np.asarray(x)[~left(state)[name]]).max() for name in dead for x in [
          pruning.scores(WHOLE.plan(), state.nets['student'].params)[name]])


@pytest.mark.parametrize('fields, message', [
    (dict(budget=-1.), 'budget=-1.0; a budget is above 0'),
    (dict(start=5), 'start=5, end=5'),
    (dict(every=0), 'every=0; 0 <= start < end and every at least 1'),
    (dict(criterion='taylor'), "criterion='taylor'; one of norm, l1, l2")])
def test_contradictory_schedules_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    pruning.GradualPruning(**{'budget': 1e6, 'start': 1, 'end': 5, **fields})


@pytest.mark.parametrize('student, budget, message', [
    (WHOLE, 1., r'a budget of 1 is below [\d,]+, what the smallest network costs'),
    (nn.resnet(2, 1, dropout=0.), 1e5, "no norm of this network has scales")])
def test_students_that_cannot_shrink_so_far_are_refused(batch, student, budget, message):
  method = small_omgd(SMALL, student=student, deep=None, distill=UNPERCEIVED,
                      gradual_pruning=pruning.GradualPruning(budget, 1, 5))
  with pytest.raises(ValueError, match=message):
    method.init(jax.random.key(0), batch)


def whole():
  return WHOLE


def test_a_run_goes_on_in_the_compact_network(tmp_path, kept_programs):
  """Two stages of one run: teachers and judge go on, the student as what was left of it."""
  budgets = 4 * BUDGET, 4 * LESS  # at four times the pixels
  method = dict(name='OMGD', tx=ADAM, adversary=adversary(6, 'hinge', heads=('wide',)),
                wide=dict(name='tests.test_omgd:small_resnet', ngf=2),
                distill=dict(name='DistillLoss', ssim=dict(name='SSIM'), pixel=dict(
                    name='Pixel', weight=1.)))
  c = with_stages(
      base('colorize', test={}),
      gradual=dict(steps=4, title='Pruned online', method=dict(
          method, student=dict(name=f'{__name__}:whole'),
          gradual_pruning=dict(name='GradualPruning', budget=budgets, start=0, end=3))),
      online=dict(steps=2, teacher=('gradual',), teacher_checkpoint='last',
                  prune=dict(budget=budgets), method=method))
  rows = jgc.run(c, tmp_path / 'run', quiet=True)['generators']
  assert rows['online']['macs'] <= budgets[0] < rows['gradual']['macs']
  _, small = pruning.roles('student', budgets)
  assert rows[f'online.{small}']['macs'] <= budgets[1] < rows[f'gradual.{small}']['macs']
  assert rows['online']['teacher'] == 'online.wide'
  run = experiment.open_run(tmp_path / 'run')
  before = run.stages['gradual'].nets('last')
  begun = run.stages['online'].init_from()
  for role in ('wide', 'disc'):
    assert largest_difference(begun[role].params, before[role].params) == 0
  for role, budget, name in zip(('student', small), budgets, ('online', f'online.{small}'),
                                strict=True):
    cut = pruning.prune(WHOLE, jax.device_get(before[role].variables), (1, 32, 32, 3),
                        budget=budget)
    assert largest_difference(begun[role].params, cut.variables['params']) == 0
    assert run.generator(name).bound('last').module == cut.module
