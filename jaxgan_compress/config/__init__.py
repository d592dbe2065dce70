"""What a run is told: a config's keys and files, and the values that they become."""

from jaxgan_compress.config.schema import (
  CHECKPOINTS,
  SEEDS,
  SELECT,
  STAGE,
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
  suggest,
  to_json,
  value_of,
)

__all__ = ['CHECKPOINTS', 'SEEDS', 'SELECT', 'STAGE', 'VIA', 'Config', 'base', 'check', 'copied',
           'differences', 'from_json', 'load', 'locate', 'measures', 'parse_arg', 'read', 'smoke',
           'stage', 'suggest', 'to_json', 'value_of']
