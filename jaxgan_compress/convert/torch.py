"""PyTorch state dicts, as NumPy arrays, become Flax variables."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def dcgan_generator(state: Mapping[str, np.ndarray]):
  """Variables of `nn.DCGANGenerator` from a generator of the same family.

  state: `deconv{i}.weight` [in,out,4,4], `deconv{i}.bias` and, for all but the last i,
  `deconv{i}_bn.{weight,bias,running_mean,running_var}`, i from 1. PyTorch scatters kernels where
  Flax gathers through them, so both spatial axes are flipped.

  Raises KeyError, naming it, for a missing array, and ValueError if nothing is of this family.
  """
  layers = sum(name.startswith('deconv') and name.endswith('.weight') and '_bn' not in name
               for name in state)

  if not layers:
    raise ValueError(f'no deconv*.weight among {len(state)} arrays: not a DCGAN generator')

  def array(name):
    if name not in state:
      raise KeyError(f'{name} is missing; there is {", ".join(sorted(state))}')
    return np.asarray(state[name], np.float32)

  params, stats = {}, {}
  for i in range(1, layers + 1):
    kernel = array(f'deconv{i}.weight').transpose(2, 3, 0, 1)[::-1, ::-1]
    params['to_image' if i == layers else f'layer{i}'] = {
        'kernel': np.ascontiguousarray(kernel), 'bias': array(f'deconv{i}.bias')}
    if i < layers:
      params[f'norm{i}'] = {'scale': array(f'deconv{i}_bn.weight'),
                            'bias': array(f'deconv{i}_bn.bias')}
      stats[f'norm{i}'] = {'mean': array(f'deconv{i}_bn.running_mean'),
                           'var': array(f'deconv{i}_bn.running_var')}
  return {'params': params, 'batch_stats': stats}
