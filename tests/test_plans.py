"""Plans of the library's networks, as their programs tell them, against an analysis of widths."""

from __future__ import annotations

import contextlib
import functools
import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from jaxgan_compress import nn
from jaxgan_compress.nn import init, prunable
from jaxgan_compress.nn.layers import conv_cpu, conv_dispatch
from tests.test_pruning import NETWORKS

# --- the analysis: every group is given a width of its own, and how long an axis of a leaf has then
# become tells whose channels lie along it ---

TIMES = 1, 2, 4  # copies of a group along an axis that are looked for
LONG = 1 << 20  # no axis of a leaf is, but those with a share of a telling width


def told_by_widths(module, groups):
  """(leaves, shapes) as of a plan."""
  wide, meaning = telling(tuple(groups), joined(module))
  leaves, shapes = {}, {}
  for name, x in init.flat(init.shapes(module.with_widths(wide))).items():
    axes = [meaning[n] if n >= LONG else () for n in x.shape]
    path = tuple(name.split('/'))
    shapes[path] = tuple(sum(k * groups[name].width for name, k in axis) or n
                         for axis, n in zip(axes, x.shape, strict=True))
    leaves[path] = tuple(prunable.runs(groups, axis) for axis in axes)
  return leaves, shapes


@functools.cache
def telling(names, joined):
  """(a width for each group, {length of an axis: what lies along it}): no two sums agree."""
  rng = np.random.default_rng(0)
  while True:
    wide = {name: int(n) for name, n in zip(names, rng.integers(
        16 * LONG, 128 * LONG, len(names)), strict=True)}
    single = [(n * wide[name], (name, n)) for name in names for n in TIMES]
    sums = [(sum(wide[name] for name in each), tuple((name, 1) for name in each))
            for each in joined] or [
        (a + b, (one, other)) for (a, one), (b, other) in itertools.combinations(single, 2)
        if one[0] != other[0]]
    meaning = {length: (term,) for length, term in single} | dict(sums)
    if len(meaning) == len(single) + len(sums):
      return wide, meaning


def joined(module):
  """Groups that lie one after another, where more than two do: a growing convolution of a dense
  block, and its last, reads the trunk and all before it."""
  if not isinstance(module, nn.RRDBGenerator):
    return ()
  names = [name for name, _ in module._growing()]
  return tuple(('trunk', *names[start:start + k]) for start in range(0, len(names), 4)
               for k in range(1, 5))


def check(module):
  plan = module.plan()
  leaves, shapes = told_by_widths(module, plan.groups)
  assert plan.shapes == shapes == {tuple(path.split('/')): x.shape
                                   for path, x in init.flat(init.shapes(module)).items()}
  assert plan.leaves.keys() == leaves.keys()
  for path, axes in leaves.items():
    for found, wanted in zip(plan.leaves[path], axes, strict=True):
      np.testing.assert_array_equal(found, wanted, '/'.join(path))
  return plan


# --- the networks ---
MORE = {
    'spade with shortcuts': nn.spade(2, 'normal', hidden=4, labels=5).clone(blocks=tuple(
        nn.SPADEBlock(3, out, 4, True) for out in (32, 32, 32, 16, 8, 4, 2))),
    'plain inception': nn.inception(6, 1, norm='instance'),
    'srvgg 4': nn.srvgg(4, 1), 'rrdbnet x1': nn.rrdbnet(3, 2, 1, scale=1),
    'dcgan 64': nn.DCGANGenerator(1, size=64)}
ALL = {**NETWORKS, **MORE}


def narrowed(module, plan, seed=0):
  """The network at random widths, which may be equal to each other and to sides of images; some
  branches are gone."""
  rng, widths = np.random.default_rng(seed), {}
  for name, group in plan.groups.items():
    widths[name] = group.step * int(rng.integers(group.least, 1 + group.width // group.step))
    if group.follows:
      base, factor = group.follows
      widths[name] = widths[base] // factor
  return module.with_widths(widths)


@pytest.mark.parametrize('name', ALL)
def test_programs_and_widths_tell_the_same(name):
  whole = check(ALL[name])
  assert sum(check(narrowed(ALL[name], whole)).widths.values()) < sum(whole.widths.values())


@pytest.fixture
def on_cpu(monkeypatch):
  """The forms that 'auto' takes on CPUs, also where they pay for wider networks only."""
  monkeypatch.setattr(conv_dispatch, 'reference', contextlib.nullcontext)
  monkeypatch.setattr(prunable, '_traced', prunable._traced.__wrapped__)
  monkeypatch.setattr(conv_dispatch.xla, 'platform', lambda: 'cpu')
  monkeypatch.setattr(conv_cpu, 'MANY', 1)
  monkeypatch.setattr(conv_cpu, 'BROAD', 2)
  monkeypatch.setattr(conv_cpu, 'NARROW', 2)


@pytest.mark.parametrize('name', [
    'batch', 'unet', 'inception_batch', 'spade', 'inception_spade', 'rrdbnet', 'srvgg',
    'dcgan'])
def test_programs_of_other_forms_tell_the_same(name, on_cpu):
  check(NETWORKS[name])


# --- what a program refuses ---

class Tiny(linen.Module):
  """Two layers of one width, since their maps are added, and a third."""
  widths: tuple[int, int] = (4, 6)

  @linen.compact
  def __call__(self, x, train=False):
    x = nn.BatchNorm(name='norm_a')(nn.Conv(self.widths[0], name='a')(x), train)
    x = x + nn.Conv(self.widths[0], name='b')(x)
    x = nn.BatchNorm(name='norm_c')(nn.Conv(self.widths[1], name='c')(x), train)
    return nn.Conv(3, name='to_image')(x), {}

  def with_widths(self, widths):
    return self.clone(widths=(widths.get('a', self.widths[0]), widths.get('c', self.widths[1])))

  def example(self):
    return jnp.zeros((1, 4, 4, 3))


A, C = {'a': nn.Group(4, 'norm_a')}, {'c': nn.Group(6)}


@pytest.mark.parametrize('groups, message', [
    ({'pair': nn.Group(4)}, r"pair: this network has no layer.*layers=\('block1/conv1'"),
    ({'a': nn.Group(4, layers=('norm_a',))}, 'norm_a: this network has no layer'),
    ({'a': nn.Group(3), **C}, 'a makes 4 channels where a has 3'),
    ({'a': nn.Group(3), 'more': nn.Group(2, layers=('a',)), **C},
     'a makes 4 channels where a has 3, more has 2'),
    ({**A, 'b': nn.Group(4), **C}, 'b: some of its 4 channels are one with others'),
    ({'a': nn.Group(4, layers=('a', 'b')), **C}, 'b: some of its 4 channels are one with others'),
    (A, 'c makes 6 channels that are in no group; .* `whole`'),
    ({**A, **C, 'to_image': nn.Group(3)},
     'to_image: its channels cannot be cut, because of the output of the network'),
    ({'a': nn.Group(4, 'norm_c'), **C}, 'norm_c does not scale the channels of a')])
def test_a_plan_that_the_program_contradicts_is_refused(groups, message):
  with pytest.raises(ValueError, match=message):
    nn.make_plan(Tiny(), groups)


def test_a_plan_by_hand():
  plan = nn.make_plan(Tiny(), {'a': nn.Group(4, 'norm_a', layers=('b',)), 'none': nn.Group(0)},
                      whole=('c', 'to_image'))
  assert {name: group.norm for name, group in plan.groups.items()} == {'a': 'norm_a', 'none': ''}
  *_, read, made = plan.leaves['params', 'c', 'kernel']
  assert read.tolist() == [0, 1, 2, 3] and made is None
  for path in (('params', 'a', 'bias'), ('batch_stats', 'norm_a', 'var')):
    np.testing.assert_array_equal(plan.leaves[path], [range(4)])
  assert not plan.members['none']
  halves = {name: nn.Group(2, layers=('b',)) for name in ('first', 'second')}
  made = nn.make_plan(Tiny(), {**halves, **C}).leaves['params', 'b', 'kernel'][-1]
  assert made.tolist() == [0, 1, 2, 3]
  twice = nn.make_plan(Tiny(), {'a': nn.Group(2), **C}).leaves['params', 'b', 'kernel'][-1]
  assert twice.tolist() == [0, 1, 0, 1]


def test_channels_of_width_1_are_found():
  plan = nn.make_plan(Tiny((1, 1)), {'a': nn.Group(1, 'norm_a'), 'c': nn.Group(1)})
  *_, read, made = plan.leaves['params', 'c', 'kernel']
  assert (read.tolist(), made.tolist()) == ([0], [1])
  assert plan.shapes['params', 'c', 'kernel'] == (3, 3, 1, 1) and plan.widths == {'a': 1, 'c': 1}
  np.testing.assert_array_equal(plan.leaves['params', 'norm_a', 'scale'], [[0]])
