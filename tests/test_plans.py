"""Plans of the library's networks, as their programs tell them, against an analysis of widths."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from jaxgan_compress import nn
from jaxgan_compress.nn import init, prunable
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
PUBLISHED_FORMS = {
    'resnet of a batch': nn.resnet(4, 1, norm='batch'),
    'spade with shortcuts': nn.spade(2, 'normal', hidden=4, labels=5).clone(blocks=tuple(
        nn.SPADEBlock(3, out, 4, True) for out in (32, 32, 32, 16, 8, 4, 2))),
    'deepest unet': nn.unet_deepest(2, 4, norm='instance_affine'),
    'deepest resnet': nn.mobile_deepest_resnet(2, 2, norm='batch'),
    'even inception_spade': nn.inception_spade(4, 'normal', 2, 8, labels=5),
    'plain inception': nn.inception(6, 1, norm='instance'),
    'srvgg 4': nn.srvgg(4, 1), 'rrdbnet x1': nn.rrdbnet(3, 2, 1, scale=1),
    'dcgan 64': nn.DCGANGenerator(1, size=64)}
ALL = {**NETWORKS, **PUBLISHED_FORMS}


@pytest.mark.parametrize('name', ALL)
def test_programs_and_widths_tell_the_same(name):
  check(ALL[name])
