"""Stored configs of runs that began before keys were renamed: what their keys are called now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ROLES = {'back': 'generator_ba', 'student_back': 'student_ba', 'disc_back': 'disc_ba',
         'student_back_adapters': 'student_ba_adapters'}
PRUNE = {'how': 'criterion', 'per': 'scope', 'start': 'student_init', 'floor': 'min_channels',
         'multiple': 'round_to', 'legacy': 'cat_search'}
METHOD = {
    **{key: f'{key}_weight' for key in ('adv', 'recon', 'match', 'feature', 'align', 'identity')},
    'look': 'feature_net', 'n_dis': 'teacher_every', 'n_critic': 'disc_steps', 'per': 'scope',
    'others': 'extra_students', 'lessons': 'distill', 'clock': 'schedule', 'aim': 'recon_target',
    'back': 'generator_ba', 'student_back': 'student_ba', 'going_on': 'disc_init',
    'disc_from': 'disc_init', 'index': 'similarity', 'shrink': 'gradual_pruning',
    'lesson': 'teacher_params', 'form': 'implementation', 'teach': 'teacher_steps',
    'learn': 'student_steps'}
# Further keys of sections of these names.
OF_NAME: Mapping[Any, Mapping[str, str]] = {
    'Shrink': {'how': 'criterion', 'floor': 'min_channels', 'multiple': 'round_to'},
    'CycleGAN': {'cycle': 'cycle_weight'},
}
NAMES: Mapping[Any, str] = {'Lessons': 'DistillLoss', 'Shrink': 'GradualPruning',
                           'Blocks': 'AlternatingSchedule'}
VALUES: Mapping[str, Mapping[Any, str]] = {
    'disc_init': {True: 'teacher', False: 'fresh'},
    'teacher_params': {'average': 'ema'},
    'implementation': {'plain': 'reference', 'fast': 'optimized'},
}
# What a method did by default, and can do no other way any more.
GONE = {'fresh_z': True, 'teacher_mode': 'inference'}


def upgraded(stored: Mapping[str, Any]) -> dict[str, Any]:
  """A stored config under the keys of today. Raises ValueError for what can no longer be done."""
  stored = dict(stored)
  stages = stored.get('stages', {})
  if 'mesh' not in stored and not any('given' in stage for stage in stages.values()):
    return stored
  stored.pop('mesh', None)
  return {**stored, 'stages': {name: _stage(stage) for name, stage in stages.items()}}


def _stage(stage):
  stage = dict(stage)
  files = stage.pop('given', stage.get('init_from', {}))
  stage['init_from'] = {ROLES.get(role, role): path for role, path in files.items()}
  stage['method'] = _section(stage.get('method', {}))
  stage['prune'] = {PRUNE.get(key, key): value for key, value in stage.get('prune', {}).items()}
  return stage


def _section(section: Mapping[str, Any]) -> dict[str, Any]:
  if section.get('name') == 'Lessons':
    return _distill(section)
  keys, renamed = {**METHOD, **OF_NAME.get(section.get('name'), {})}, {}
  for key, value in section.items():
    if key in GONE:
      if value != GONE[key]:
        raise ValueError(f'{key}={value!r} is of an earlier version; {GONE[key]!r} is all there is')
      continue
    key = keys.get(key, key)
    if isinstance(value, Mapping):
      value = _section(value)
    elif isinstance(value, bool | str):
      value = VALUES.get(key, {}).get(value, value)
    renamed[key] = NAMES.get(value, value) if key == 'name' else value
  return renamed


def _distill(lessons):
  """The terms of a `DistillLoss` for the weights that one section had."""
  old = {'ssim': 10., 'feature': 10., 'style': 1e4, 'tv': 1e-5, 'tap': 0., 'pixel': 0.,
         'taps': (), 'distance': 'channel_means', **lessons}
  terms: dict[str, Any] = {}
  for key, name in (('ssim', 'SSIM'), ('feature', 'Perceptual'), ('style', 'Style'),
                    ('tv', 'TotalVariation'), ('pixel', 'Pixel')):
    if old[key]:
      terms[key] = {'name': name, 'weight': old[key]}
  if 'ssim' in terms and 'ssim_window' in old:
    terms['ssim']['window'] = old['ssim_window']
  if 'tv' in terms and 'tv_reduction' in old:
    terms['tv']['reduction'] = old['tv_reduction']
  if old['taps']:
    terms['taps'] = {
        'name': 'Taps', 'similarity': {'cka': 'cka_pixel'}.get(old['distance'], old['distance']),
        'weight': old['tap'], 'names': old['taps'],
        **({'reduction': old['tap_reduction']} if 'tap_reduction' in old else {})}
  feature_net = {'feature_net': _section(old['look'])} if 'look' in old else {}
  return {'name': 'DistillLoss', **terms, **feature_net}
