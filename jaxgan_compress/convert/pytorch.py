"""State dicts of published PyTorch networks, as NumPy arrays, to our networks and back, exactly."""

from __future__ import annotations

import collections
import functools
import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen

from jaxgan_compress.convert.pytorch_families import FAMILIES, OPEN, Family
from jaxgan_compress.nn.files import arrays
from jaxgan_compress.nn.files.network import build, is_network, spell
from jaxgan_compress.nn.generators.spade import UPSAMPLING
from jaxgan_compress.nn.init import shapes
from jaxgan_compress.nn.layers.conv import PADDINGS
from jaxgan_compress.nn.layers.conv_dispatch import FORMS
from jaxgan_compress.nn.layers.norms import NORMS

_LEAVES = {'bias': 'bias', 'scale': 'weight', 'mean': 'running_mean', 'var': 'running_var',
           'count': 'num_batches_tracked', 'u': 'weight_u', 'v': 'weight_v'}
UNUSED = 'unused'  # a collection of what PyTorch keeps and no forward pass reads


def load(path: str | Path, part: str | None = None) -> dict[str, np.ndarray]:
  """A state dict from a `.pth` (both of PyTorch's formats), `.safetensors` or `.npz` file.

  part: which one, of a checkpoint that holds several ('state_dict', 'models.G').

  PyTorch is not needed and nothing pickled is ever run: anything but tensors in plain containers is
  refused by name. Raises FileNotFoundError, and ValueError that says what is wrong with the file.
  """
  if is_network(path):
    raise ValueError(f'{path} is a network of this library; open it with nn.load')
  return arrays.read(path, part)


def from_torch(state: Mapping[str, np.ndarray], *, prefix: str = '', **hints):
  """The network that a state dict describes: `(module, variables)`.

  state: published key names to arrays in PyTorch's layout, as `convert.load` reads them. Family,
    widths, depth, norm, heads and surviving branches are inferred from keys and shapes, and every
    array must then have its place and shape. Variables are NumPy arrays of the dtypes given.
  prefix: of the keys to take ('module.'), which is removed; others are left out.
  hints: fields that keys cannot tell, by family: `norm` (all that have a choice), `dropout`,
    `padding`, `clamp` (ResNets), `dropout` (U-Nets), `slope` (CAT's generators), `upsampling`
    (SPADE), `separable_norm`, `shared` (OMGD's discriminator, required), `size=28` (DCGAN), `depth`
    and `layers` (VGG); `dtype` and `form` always. Without a hint published code's value is taken:
    `assumed` tells which fields that concerns. Norms without parameters ('instance', 'none') look
    alike, and so do those with a scale ('instance_affine', 'batch_stat'): by their convolutions'
    biases the published one is taken.

  Known parameters that no forward pass reads (dead copies of heads, statistics that PyTorch before
  0.4 kept of instance norms, norms of emptied blocks, Inception's auxiliary classifier) are kept in
  the collection 'unused', so that `to_torch` gives the file back; what is above a VGG trunk is left
  behind. Newer files with such statistics may have been trained to use them, so they need the hint
  norm='instance'. DRN's upsampling kernel is built in: the file's must equal it.

  Spectral norm is kept where the network has it (SPADE, its discriminator), also of newer names
  (`parametrizations`), which become the older ones. Elsewhere it is folded into the weights as
  PyTorch's eval mode does, W / (u' W v), with a UserWarning; so is weight norm.

  Raises ValueError, with what to do, for an unknown family, missing or unknown keys, wrong shapes
  or dtypes, NaN or infinity in what a forward pass reads, a prefix on every key, an unknown hint.
  """
  state = {key: np.asarray(x) for key, x in state.items()}
  if prefix:
    starts = list(dict.fromkeys(key.partition('.')[0] + '.' for key in state))
    state = {key.removeprefix(prefix): x for key, x in state.items() if key.startswith(prefix)}
    if not state:
      raise ValueError(f'no key starts with {prefix!r}; there are {_some(starts)}')
    if all(key.startswith('.') for key in state):
      raise ValueError(f'prefix={prefix!r} lacks its dot; pass {prefix + "."!r}')
  state = _without_weight_norm(_older_names(state))
  shapes = {key.removesuffix('_orig'): x.shape for key, x in state.items()} | {
      key: x.shape for key, x in state.items()}
  family = _family(shapes)
  for name, value in hints.items():
    if name not in (*family.hints, 'dtype', 'form'):
      raise ValueError(f'a {family.name} takes no hint {name!r}; it takes '
                       f'{", ".join((*family.hints, "dtype", "form"))}, all else is in the keys')
    accepted, possible = _HINTS[name]
    if not accepted(value):
      raise ValueError(f'{name}={value!r}; {possible}')
  if isinstance(hints.get('dtype'), str):
    hints['dtype'] = build(hints['dtype'], 'dtype')
  strange = [f'{key} {x.shape}' for key, x in state.items()
             if not re.fullmatch(family.pattern, key) and not family.beyond(key)]
  if strange:
    raise ValueError(f'this looks like a {family.name}, but {len(strange)} unknown: '
                     f'{_some(strange)}')
  try:
    module = family.module(shapes, hints).clone(**hints)
    places = _places(family, module)
  except (LookupError, StopIteration, ValueError, TypeError, ArithmeticError, MemoryError) as e:
    said = e if isinstance(e, ValueError) else (
        f'{e if isinstance(e, KeyError) else "a convolution"} is missing, or of another rank or '
        'size')
    raise ValueError(f'this looks like a {family.name}, but {said}. {_convolutions(shapes)}') from e
  state = _without_spectral_norm(state, places)
  return module, _fill(family, module, state, hints)


def assumed(module: linen.Module) -> dict[str, Any]:
  """{field: value} of what keys cannot tell of such a module: hints it was given, or what published
  code has; another value is another hint. Raises ValueError as `to_torch`."""
  return {name: getattr(module, name) for name in _family_of(module).hints
          if OPEN.get(name, lambda module: True)(module)}


def built_in(module: linen.Module) -> str:
  """What keys cannot tell either, and is as in published code for every such module."""
  return _family_of(module).built_in


def to_torch(module: linen.Module, variables: Mapping) -> dict[str, np.ndarray]:
  """The state dict, in PyTorch's names and layout: the exact inverse of `from_torch`.

  Raises ValueError for a class that no published network has, or variables of another network.
  """
  family = _family_of(module)
  variables = jax.tree.map(np.asarray, dict(variables))
  state = dict(variables.pop(UNUSED, {}))
  for place in _places(family, module):
    tree = variables
    for part in (place.collection, *place.path):
      if part not in tree:
        raise ValueError(f'the variables lack {"/".join((place.collection, *place.path))}; are '
                         f'they of this {type(module).__name__}?')
      tree = tree[part]
    if tree.shape != place.shape:
      raise ValueError(f'{"/".join((place.collection, *place.path))} is {tree.shape} and this '
                       f'{type(module).__name__} has {place.shape}')
    array = place.to_torch(tree)
    if place.key in state:  # the tail of a longer array
      array = np.concatenate([array, state[place.key]])
    state[place.key] = array
  dtype = jax.tree.leaves(variables['params'])[0].dtype
  return state | {key: x.astype(dtype) for key, x in family.fixed(module).items()}


def _older_names(state):
  """The names of `torch.nn.utils.spectral_norm` and `weight_norm` for those that replaced them."""
  leaves = {'original': '_orig', '0._u': '_u', '0._v': '_v', 'original0': '_g', 'original1': '_v'}

  def older(key):
    found = re.fullmatch(r'(.*\.)?parametrizations\.(\w+)\.(.*)', key)
    return f'{found[1] or ""}{found[2]}{leaves[found[3]]}' if found and found[3] in leaves else key

  renamed = {older(key): x for key, x in state.items()}
  return renamed if len(renamed) == len(state) else state


def _without_weight_norm(state):
  """weight_g, weight_v become weight = g v / |v|, the norm over all axes along which g is 1."""
  state, folded = dict(state), [key[:-2] for key in state if key.endswith('.weight_g')]
  for name in folded:
    g, v = state.pop(f'{name}_g'), state.pop(f'{name}_v', np.zeros(()))
    if g.ndim not in (0, v.ndim) or any(n not in (1, m) for n, m in zip(g.shape, v.shape,
                                                                        strict=False)):
      raise ValueError(f'{name}_g {g.shape} and {name}_v {v.shape} are no weight norm; call '
                       'torch.nn.utils.remove_weight_norm before the state dict is saved')
    axes = tuple(i for i in range(v.ndim) if not g.ndim or g.shape[i] == 1)
    wide = v.astype(np.float64)
    state[name] = _divided(wide * g, np.sqrt((wide ** 2).sum(axes, keepdims=True)), v.dtype)
  _warn_of_folding('weight', folded)
  return state


def _without_spectral_norm(state, places):
  """weight_orig, weight_u, weight_v become weight = weight_orig / (u' W v), as in PyTorch's eval
  mode, where the module has a plain weight. Files of PyTorch 0.4 keep the weight itself, no v."""
  state, folded = dict(state), []
  for place in places:
    if f'{place.key}_orig' not in state:
      continue
    w, u, v = (state.pop(f'{place.key}{end}', None) for end in ('_orig', '_u', '_v'))
    folded.append(place.key)
    if v is None and place.key in state:
      continue
    wide = w.astype(np.float64)
    matrix = wide.swapaxes(0, 1) if place.transposed else wide
    matrix = matrix.reshape(len(matrix), -1) if w.ndim > 1 else wide[:, None]
    if u is None or v is None or (u.shape, v.shape) != tuple((n,) for n in matrix.shape):
      u, v = ('missing' if x is None else x.shape for x in (u, v))
      raise ValueError(f'{place.key}_orig {w.shape} is of spectral norm, and {place.key}_u is {u}, '
                       f'{place.key}_v is {v}; call torch.nn.utils.remove_spectral_norm before the '
                       'state dict is saved')
    state[place.key] = _divided(wide, u.astype(np.float64) @ matrix @ v.astype(np.float64), w.dtype)
  _warn_of_folding('spectral', folded)
  return state


def _divided(x, norm, dtype):
  with np.errstate(all='ignore'):  # who divides by 0 is told of what is not finite
    return (x / norm).astype(dtype)


def _warn_of_folding(kind, names):
  if names:
    warnings.warn(f'the {kind} norm of {len(names)} layers is folded into their weights, as in '
                  f'eval mode; a run that goes on from here has none: {_some(names)}', stacklevel=3)


def _is_number(x):
  return isinstance(x, int | float) and not isinstance(x, bool)


def _is_whole(x):
  return isinstance(x, int) and not isinstance(x, bool)


# What each hint may be.
_HINTS = {
    'clamp': (lambda x: isinstance(x, bool), 'True or False'),
    'separable_norm': (lambda x: isinstance(x, bool), 'True or False'),
    'dropout': (lambda x: _is_number(x) and 0 <= x < 1, 'a rate from 0 to below 1'),
    'slope': (lambda x: _is_number(x) and 0 <= x < 1, 'a slope from 0 to below 1'),
    'shared': (lambda x: _is_whole(x) and 0 <= x <= 5, 'a whole number from 0 to 5'),
    'heads': (lambda x: isinstance(x, tuple) and len(set(x)) == 2, 'two names'),
    'size': (lambda x: x in (28, 32, 64), '28, 32 or 64'),
    'depth': (lambda x: x in (16, 19), '16 or 19'),
    'layers': (lambda x: isinstance(x, tuple) and x, "names in a tuple, ('relu1_2', 'relu2_2')"),
    'padding': (lambda x: x in PADDINGS, f'one of {", ".join(PADDINGS)}'),
    'norm': (lambda x: x in NORMS, f'one of {", ".join(NORMS)}'),
    'upsampling': (lambda x: x in UPSAMPLING, f'one of {", ".join(UPSAMPLING)}'),
    'form': (lambda x: x in ('auto', 'plain', 'fast', *FORMS['upsample']), 'auto, plain or fast'),
    'dtype': (lambda x: not isinstance(x, str) or x in ('float16', 'bfloat16', 'float32',
                                                        'float64'), 'a floating-point type'),
}


class _Place(collections.namedtuple('Place', 'key collection path shape transposed')):
  """One array: its key in PyTorch, its place in our variables, our shape."""

  @property
  def torch_shape(self):
    shape = self.shape
    if self.path[-1] == 'v':
      return (math.prod(shape),)
    if self.path[-1] != 'kernel' or len(shape) == 2:
      return shape[::-1]
    *area, into, out = shape
    return (into, out, *area) if self.transposed else (out, into, *area)

  def to_torch(self, x):
    name = self.path[-1]
    if name == 'kernel' and x.ndim == 2:
      x = x.T
    elif name == 'kernel':
      x = x[::-1, ::-1].transpose(2, 3, 0, 1) if self.transposed else x.transpose(3, 2, 0, 1)
    elif name == 'v':
      x = x.transpose(2, 0, 1).reshape(-1)
    elif name == 'count':
      x = x.astype(np.int64)
    return np.ascontiguousarray(x).reshape(x.shape)

  def from_torch(self, x):
    name = self.path[-1]
    if name == 'kernel' and x.ndim == 2:
      x = x.T
    elif name == 'kernel':
      x = x.transpose(2, 3, 0, 1)[::-1, ::-1] if self.transposed else x.transpose(2, 3, 1, 0)
    elif name == 'v':
      x = x.reshape(self.shape[2], *self.shape[:2]).transpose(1, 2, 0)
    elif name == 'count':
      x = x.astype(np.int32)
    return np.ascontiguousarray(x).reshape(x.shape)


@functools.lru_cache(16)
def _places(family: Family, module: linen.Module) -> list[_Place]:
  """Every array of the module, in the order of its rows."""
  variables = shapes(module)
  rows = {row.ours: row for row in family.rows(module)}
  places, spectral = [], variables.get('spectral', {})
  for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
    collection, *inside, name = (part.key for part in path)
    row = rows['/'.join(inside)]
    torch = _LEAVES.get(name, 'weight_orig' if _has(spectral, inside) else 'weight')
    places.append(_Place(f'{row.torch}.{torch}'.lstrip('.'), collection, (*inside, name),
                         leaf.shape, row.transposed))
  return places


def _has(tree, path):
  for part in path:
    tree = tree.get(part, {})
  return bool(tree)


def _fill(family, module, state, hints):
  """The variables, once every key is accounted for."""
  left, missing, wrong, broken, tails, variables = dict(state), [], [], [], set(), {}
  for place in _places(family, module):
    x, shape = left.pop(place.key, None), place.torch_shape
    if x is None and place.path[-1] == 'count':
      x = np.zeros((), np.int64)  # PyTorch before 0.4.1 did not count
    if x is None:
      missing.append(f'{place.key} {shape}')
      continue
    if place.key.endswith(('param_free_norm.running_mean', 'param_free_norm.running_var')) and \
        x.ndim == 1 and len(x) > shape[0]:
      # Sub-networks of GAN Compression keep the statistics of the full width and read their head.
      left[place.key], x = x[shape[0]:], x[:shape[0]]
      tails.add(place.key)
    if x.shape != shape:
      wrong.append(f'{place.key} is {x.shape} and should be {shape}')
    elif not (np.issubdtype(x.dtype, np.integer) if place.path[-1] == 'count' else
              jax.dtypes.issubdtype(x.dtype, np.floating)):
      wrong.append(f'{place.key} holds {x.dtype} and should hold '
                   f'{"whole" if place.path[-1] == "count" else "floating-point"} numbers')
    else:
      if not np.isfinite(x).all():
        broken.append(place.key)
      elif place.path[-1] == 'var' and (x < 0).any():
        broken.append(f'{place.key} (a negative variance)')
      tree = variables.setdefault(place.collection, {})
      for part in place.path[:-1]:
        tree = tree.setdefault(part, {})
      tree[place.path[-1]] = place.from_torch(x)
  for key, x in family.fixed(module).items():
    given = left.pop(key, None)
    if given is None:
      missing.append(f'{key} {x.shape}')
    elif not np.array_equal(given, x):
      wrong.append(f'{key} {given.shape} differs from the {x.shape} that are built in')
  dead = family.dead(module)
  unused = {key: x for key, x in left.items() if key.startswith(dead or ('\0',))
            or key in tails or _statistics(key, state, family, module, hints)}
  unknown = [f'{key} {x.shape}' for key, x in left.items()
             if key not in unused and not family.beyond(key)]
  if missing or wrong or unknown:
    lines = [f'{len(found)} {what}: {_some(found)}' for what, found in (
        ('missing', missing), ('unknown', unknown), ('of another shape or kind', wrong)) if found]
    raise ValueError(f'this looks like a {family.name}, {spell(module)}, but not all arrays fit.\n'
                     + '\n'.join(lines))
  if broken:
    raise ValueError(f'{len(broken)} of {len(state)} arrays hold NaN or infinity, and so would '
                     f'every image: {_some(broken)}. The run diverged before it saved them, or the '
                     'file is damaged; take an earlier checkpoint')
  return {**variables, **({UNUSED: unused} if unused else {})}


def _statistics(key, state, family, module, hints):
  """Running statistics of instance norms, which PyTorch before 0.4 kept and never read."""
  layer, _, leaf = key.rpartition('.')
  scaled = f'{layer}.weight' in state
  if getattr(module, 'norm', '') != ('instance_affine' if scaled else 'instance') or \
      leaf not in ('running_mean', 'running_var', 'num_batches_tracked') or \
      layer not in {row.torch for row in family.rows(module)}:
    return False
  if f'{layer}.num_batches_tracked' in state and 'norm' not in hints:
    raise ValueError(f'{layer} keeps running statistics of an instance norm. Networks of the '
                     "CycleGAN repository do not use them: give the hint norm='instance'. Of a "
                     'network that was trained with track_running_stats=True it would be another '
                     'one, which is not supported')
  return True


def _family(shapes) -> Family:
  found = next((family for family in FAMILIES if family.told(shapes)), None)
  if found:
    return found
  if not shapes:
    raise ValueError('no arrays: an empty state dict describes no network')
  heads = {key[:at + 1] for key in shapes for at, letter in enumerate(key) if letter == '.'}
  for head in sorted(heads, key=len):
    inside = {key.removeprefix(head): s for key, s in shapes.items() if key.startswith(head)}
    family = next((family for family in FAMILIES if family.told(inside)), None)
    if family and family.name != 'adapter':
      every = 'every key starts' if len(inside) == len(shapes) else f'{len(inside)} keys start'
      raise ValueError(f"{every} with {head!r}, and without it this is a {family.name}; pass "
                       f"prefix={head!r} (--prefix={head}); DataParallel and trainers add such "
                       'prefixes')
  fits = {family.name: [key for key in shapes if re.fullmatch(family.pattern, key)]
          for family in FAMILIES if family.name != 'adapter'}
  closest = max(fits, key=lambda name: len(fits[name]))
  others = [key for key in shapes if key not in fits[closest]]
  raise ValueError(
      f'no known network has these {len(shapes)} arrays: {_some(list(shapes))}. '
      + (f'Closest is a {closest}: {len(fits[closest])} keys fit, {len(others)} do not: '
         f'{_some(others)}. ' if fits[closest] else '')
      + f'Known are {", ".join(family.name for family in FAMILIES)}.')


def _family_of(module):
  several = len(getattr(module, 'heads', 'x')) > 1
  for family in FAMILIES:
    if type(module) is family.builds and (several == ('heads' in family.hints)):
      return family
  raise ValueError(f'{type(module).__name__} has no published PyTorch counterpart; known are '
                   f'{", ".join(sorted({family.builds.__name__ for family in FAMILIES}))}')


def _convolutions(shapes):
  found = [f'{key} {shape}' for key, shape in shapes.items() if len(shape) == 4]
  return f'Of {len(shapes)} arrays {len(found)} are convolutions: {_some(found, 12)}'


def _some(names, count=6):
  more = f' and {len(names) - count} more' if len(names) > count else ''
  return ', '.join(names[:count]) + more
