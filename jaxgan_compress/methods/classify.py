"""Training of the networks that metrics use: classifiers and segmenters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
from flax import linen

from jaxgan_compress import core
from jaxgan_compress.core import Axes, BoundGenerator, Net, Roles, TrainState
from jaxgan_compress.methods.setup import check_batch, init_net


@dataclasses.dataclass(frozen=True)
class Classifier:
  """Cross-entropy of `classifier(image) -> (logits, features)`.

  batch: `{'target': [B,H,W,C], 'label': int [B]}`; with label='label_map', int [B,H,W] and one
  prediction a pixel. Role: 'classifier'.
  """
  classifier: linen.Module
  tx: optax.GradientTransformation
  label: str = 'label'
  init_scheme: str = 'he'

  main = 'classifier'
  is_generator = False
  needs_data = True
  updates = 1
  roles = Roles('classifier')

  @property
  def modules(self) -> dict[str, linen.Module]:
    return {'classifier': self.classifier}

  def init(self, rng, batch, init_from: Mapping[str, Net] | None = None) -> TrainState:
    check_batch(self, batch, 'target', self.label)
    key, rng = jax.random.split(rng)
    variables = init_net('classifier', self.classifier, key, batch['target'][:1],
                         scheme=self.init_scheme, init_from=init_from)
    return core.create(rng, {'classifier': (variables, self.tx)})

  def step(self, state: TrainState, batch, axes: Axes = Axes()):
    check_batch(self, batch, 'target', self.label)

    def loss(params):
      logits, _ = self.classifier.apply({'params': params}, batch['target'])
      label = batch[self.label].astype(jnp.int32)
      cross = optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()
      return cross, (logits.argmax(-1) == label).mean()

    (cross, accuracy), grads = jax.value_and_grad(loss, has_aux=True)(
        state.nets['classifier'].params)
    state, norms = core.advance(state, {'classifier': grads}, {'classifier': self.tx}, axes)
    return state.tick(), core.merge_logs(
        {'classifier': {'loss': cross}, 'accuracy': {'classifier': accuracy}}, norms)

  def generators(self, state: TrainState) -> dict[str, BoundGenerator]:
    return {}
