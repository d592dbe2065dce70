"""A generator that has learned elsewhere, as a stage among those that learn."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import optax
from flax import linen

from jaxgan_compress import core
from jaxgan_compress.core import Axes, BoundGenerator, Net, Roles, TrainState
from jaxgan_compress.methods.setup import check_batch, check_same
from jaxgan_compress.nn.init import shapes


@dataclasses.dataclass(frozen=True)
class Pretrained:
  """Measures a generator, prunes students from it and lets it teach, and changes nothing in it.

  Its stage takes one step. batch: `{'source'}`. init_from['generator']: its weights, which only a
  generator without any, as `nn.Resize`, goes without. Role: 'generator'.
  """
  generator: linen.Module

  main = 'generator'
  is_generator = True
  needs_data = True
  updates = 1
  roles = Roles('generator')

  @property
  def modules(self) -> dict[str, linen.Module]:
    return {'generator': self.generator}

  def init(self, rng, batch, init_from: Mapping[str, Net] | None = None) -> TrainState:
    check_batch(self, batch, 'source')
    variables = expected = shapes(self.generator, batch['source'][:1])
    if init_from and 'generator' in init_from:
      variables = check_same('generator', init_from, expected, type(self.generator).__name__)
    elif jax.tree.leaves(expected):
      raise ValueError("Pretrained.init needs init_from={'generator': Net}, a generator that has "
                       'learned')
    return core.create(rng, {'generator': ({'params': {}, **variables}, optax.set_to_zero())})

  def step(self, state: TrainState, batch, axes: Axes = Axes()):
    return state.tick(), {}

  def generators(self, state: TrainState) -> dict[str, BoundGenerator]:
    return {'generator': BoundGenerator(state.nets['generator'].averaged, self.generator)}
