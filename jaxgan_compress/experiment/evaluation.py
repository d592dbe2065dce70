"""What measures the generators of a run: networks and images of the section `evaluate`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from jaxgan_compress import data, metrics
from jaxgan_compress.config import build
from jaxgan_compress.metrics import Evaluator

if TYPE_CHECKING:
  from jaxgan_compress.experiment.workdir import Run


class Evaluation:
  """Evaluators of a run, each built once, and the images that they take.

  settings: the section `evaluate`. final: the section whose images final results are measured on.
  """

  def __init__(self, run: Run):
    self.run, self.settings = run, run.config.evaluate
    self._evaluators: dict[tuple, Evaluator] = {}
    self._networks: dict[str, Any] = {}

  @property
  def final(self) -> ConfigDict:
    return self.settings.test or self.settings.real

  def sides(self, section: ConfigDict, reverse: bool = False) -> list:
    """The sources of a section of `evaluate`: one for each of its splits. reverse: swapped."""
    fields = section.to_dict()
    splits = fields.get('split')
    several = splits if isinstance(splits, tuple | list) else (None,)
    sources = [self.run.source(**(fields if split is None else {**fields, 'split': split}))
               for split in several]
    return [data.swapped(source) for source in sources] if reverse else sources

  def inputs(self, section: ConfigDict, reverse: bool = False):
    """What images are generated from: the last of the section's sources, up to evaluate.count."""
    source = self.sides(section, reverse)[-1]
    return data.First(source.a, self.settings.count)

  def network(self, key: str) -> Any:
    """The network of `metrics` under 'extractor' or 'segmenter', opened once."""
    if key not in self._networks:
      with self.run.placed():
        self._networks[key] = build.make(self.settings[key], build.HOMES['extractor'],
                                         f'evaluate.{key}')
    return self._networks[key]

  def evaluator(self, section: ConfigDict, *, reverse: bool, from_latents: bool) -> Evaluator:
    """Measures every generator of a run in the same way; reverse: one from target to source is
    measured the other way round."""
    key = json.dumps(section.to_dict(), sort_keys=True), reverse
    if key not in self._evaluators:
      settings, segmenter = self.settings, None
      extractor = metrics.classifier(*self._trained(settings.classifier)) \
          if settings.classifier else self.network('extractor')
      if settings.segmenter.get('stage'):
        segmenter = metrics.segmenter(*self._trained(settings.segmenter.stage))
      elif settings.segmenter:
        segmenter = self.network('segmenter')
      evaluator = Evaluator(
          extractor, tuple(self.sides(section, reverse)), count=settings.count,
          seed=settings.seed, splits=settings.splits, segmenter=segmenter,
          inputs=None if from_latents else self.inputs(section, reverse))
      check_selection(settings, evaluator.names)
      self._evaluators[key] = evaluator
    return self._evaluators[key]

  def real(self, intervals: int = 0) -> dict[str, dict[str, metrics.Measure]]:
    """The measures of the real images: {'real': ...}, and 'real_ba' of the other direction."""
    measures = {}
    for generator in self.run.measured_generators():
      key = 'real_ba' if generator.is_reverse else 'real'
      if key not in measures:
        measures[key] = generator.evaluator(final=True).real(intervals)
    return measures

  def _trained(self, name):
    """Module, variables and accuracy of the network that a stage trained to measure."""
    stage = self.run.stages[name]
    return stage.module, stage.nets()[stage.recipe.main].averaged, stage.accuracy


def check_selection(settings: ConfigDict, names):
  """Raises ValueError where a measure decides on checkpoints that nothing here measures."""
  for metric in (settings.select, *settings.best):
    if metric not in names:
      raise ValueError(f'evaluate.select or evaluate.best names {metric!r}, which nothing here '
                       f'measures; there is {", ".join(names)}')
