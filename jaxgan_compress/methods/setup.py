"""What methods share: first networks, checks of fields and batches, a pass in training mode."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from flax import linen

from jaxgan_compress import nn
from jaxgan_compress.core import Axes, Net
from jaxgan_compress.core.state import FIXED
from jaxgan_compress.nn import initialise
from jaxgan_compress.nn.init import flat, shapes

log = logging.getLogger(__name__)


def choose(field: str, value: str, possible: Iterable[str]):
  """Raises ValueError unless the value is one of the possible."""
  if value not in (possible := tuple(possible)):
    raise ValueError(f'{field}={value!r}; one of {", ".join(possible)}')


def check_weights(method, *fields: str):
  """Raises ValueError unless these fields of a method are at least 0."""
  weights = {field: getattr(method, field) for field in fields}
  if min(weights.values()) < 0:
    raise ValueError(', '.join(f'{field}={value}' for field, value in weights.items())
                     + '; at least 0')


def check_batch(method, batch: Mapping, *needed: str):
  """Raises ValueError for a batch without what the method learns from."""
  if missing := [name for name in needed if name not in batch]:
    listed = lambda names: ', '.join(map(repr, names)) or 'nothing'
    raise ValueError(
        f'{type(method).__name__} learns from {listed(needed)}, and the batch has '
        f'{listed(sorted(batch))}: {listed(missing)} is missing. Give data that has it, or take a '
        'method that learns without')


def refuse_dropout(modules: Mapping[str, linen.Module]):
  """Raises ValueError for a generator with dropout, which OMGD and CycleGAN train without."""
  for role, module in modules.items():
    if dropout := vars(nn.plain(module)).get('dropout'):
      raise ValueError(f'{role} has dropout={dropout}; OMGD trains without: dropout=0.')


def init_net(role: str, module: linen.Module, key, *inputs, scheme: str, init_from):
  """The variables of init_from[role] if it is there, else fresh ones.

  A network of low rank takes its own, or those of its base, beside which it begins. Raises
  ValueError for those of another network.
  """
  low_rank = isinstance(module, nn.LowRank)
  if not init_from or role not in init_from:
    if low_rank:
      log.warning('%s is of low rank, and without init_from[%r] its base is random, which says '
                  'nothing of an effect', role, role)
    return initialise(module, key, *inputs, scheme=scheme)
  if low_rank and not set(FIXED) & init_from[role].variables.keys():
    return module.adapted(init_from[role].variables, key)
  return check_same(role, init_from, shapes(module, *inputs), type(module).__name__)


def check_same(role: str, init_from: Mapping[str, Net], fresh: Mapping, kind: str):
  """The variables of init_from[role], of the shapes of `fresh`. Raises ValueError for others."""
  def named(variables):
    kept = [variables['params'], *(variables[kind] for kind in FIXED if kind in variables)]
    return {name: leaf.shape for leaves in kept for name, leaf in flat(leaves).items()}

  expected, found = named(fresh), named(init_from[role].variables)
  for name in sorted(expected.keys() | found.keys()):
    if expected.get(name) != found.get(name):
      raise ValueError(f'init_from[{role!r}] is of another network than this {kind}: '
                       f'its {name} is {found.get(name, "missing")} and would be '
                       f'{expected.get(name, "missing")} here')
  return init_from[role].variables


def need_teacher(method, init_from):
  """The variables of init_from['teacher']. Raises ValueError without a trained teacher."""
  if not init_from or 'teacher' not in init_from:
    raise ValueError(f'{type(method).__name__}.init needs init_from={{"teacher": Net}}, a teacher '
                     'that has learned')
  return init_from['teacher'].averaged


def need_disc(method, init_from, disc: linen.Module, image, source):
  """The variables of init_from['disc'], the discriminator of a finished teacher.

  image, source: what it sees, [1,H,W,C] each. Raises ValueError without one, or for one of another
  kind.
  """
  if not init_from or 'disc' not in init_from:
    raise ValueError(f'a term of {type(method).__name__} asks the discriminator of the teacher; '
                     'give init_from={"disc": Net}, as it has learned')
  inputs = (image, source) if sees_source(disc, source) else (image,)
  return check_same('disc', init_from, shapes(disc, *inputs), type(disc).__name__)


def sees_source(disc: linen.Module, source) -> bool:
  """Whether a discriminator of images sees the source next to them, [B,H,W,C]."""
  return vars(disc).get('inputs', 0) > source.shape[-1]


def forward_train(module: linen.Module, variables, x, axes: Axes, rngs=None):
  """((image, taps), new collections) of a generator in training mode."""
  output, collections = module.apply(variables, x, train=True, axes=axes, rngs=rngs,
                                     mutable=[name for name in variables if name != 'params'])
  return output, dict(collections)
