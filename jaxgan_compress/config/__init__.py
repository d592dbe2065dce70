"""What a run is told: a config's keys and files, and the values that they become."""

from jaxgan_compress.config.schema import (
  CALIBRATION_BATCHES,
  CHECKPOINTS,
  SEEDS,
  SELECT,
  STAGE,
  STARTS,
  VIA,
  Config,
  base,
  check,
  copied,
  differences,
  from_json,
  load,
  locate,
  measures,
  parse_arg,
  read,
  smoke,
  stage,
  stage_of,
  suggest,
  to_json,
  value_of,
)

__all__ = ['CALIBRATION_BATCHES', 'CHECKPOINTS', 'SEEDS', 'SELECT', 'STAGE', 'STARTS', 'VIA',
           'Config', 'base', 'check', 'copied', 'differences', 'from_json', 'load', 'locate',
           'measures', 'parse_arg', 'read', 'smoke', 'stage', 'stage_of', 'suggest', 'to_json',
           'value_of']
