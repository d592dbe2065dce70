"""State dicts of published PyTorch networks, as NumPy arrays, to our networks and back, exactly."""

from __future__ import annotations

import functools
import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, traverse_util

from jaxgan_compress.convert.pytorch_families import FAMILIES, OPEN, Family, newer_names
from jaxgan_compress.nn.discriminators import PatchGAN
from jaxgan_compress.nn.files import arrays
from jaxgan_compress.nn.files.network import build, is_network, spell
from jaxgan_compress.nn.generators.spades import UPSAMPLING
from jaxgan_compress.nn.init import shapes
from jaxgan_compress.nn.layers.conv_dispatch import IMPLEMENTATIONS
from jaxgan_compress.nn.layers.norms import NORMS
from jaxgan_compress.nn.layers.resample import PADDINGS

_LEAVES = {'bias': 'bias', 'scale': 'weight', 'slope': 'weight', 'mean': 'running_mean',
           'var': 'running_var', 'count': 'num_batches_tracked', 'u': 'weight_u', 'v': 'weight_v'}
UNUSED = 'unused'  # a collection of what PyTorch keeps and no forward pass reads


def load(path: str | Path, key: str | None = None) -> dict[str, np.ndarray]:
  """A state dict from a `.pth` (both of PyTorch's formats), `.safetensors` or `.npz` file.

  key: the state dict to take from a checkpoint that holds several ('state_dict', 'models.G').

  PyTorch is not needed and nothing pickled is ever run: anything but tensors in plain containers is
  refused by name. Raises FileNotFoundError, and ValueError that says what is wrong with the file.
  """
  if is_network(path):
    raise ValueError(f'{path} is a network of this library; open it with nn.load')
  return arrays.read(path, key)


def from_torch(state: Mapping[str, np.ndarray], *, prefix: str = '', **overrides
               ) -> tuple[linen.Module, dict[str, Any]]:
  """The network that a state dict describes: `(module, variables)`.

  state: published key names to arrays in PyTorch's layout, as `convert.load` reads them. Family,
    widths, depth, norm, heads and surviving branches are inferred from keys and shapes, and every
    array must then have its place and shape. Variables are NumPy arrays of the dtypes given.
  prefix: the start of the keys to take ('module.'), which is removed; other keys are left out.
  overrides: fields that keys cannot tell, by family: `norm` (all that have a choice), `dropout`,
    `padding`, `clamp` (ResNets), `dropout` (U-Nets), `slope` (CAT's generators), `upsampling`
    (SPADE), `separable_norm`, `shared` (OMGD's discriminator, required), `size=28` (DCGAN), `depth`
    (VGG), `layers` (VGG, EfficientNet-Lite0); `dtype` and `implementation` always. The others have
    the value of published code:
    `assumed` tells which fields that concerns. Norms without parameters ('instance', 'none') look
    alike, and so do those with a scale ('instance_affine', 'batch_stat'): the one that published
    code combines with such biases of convolutions is taken.

  Known parameters that no forward pass reads (dead copies of heads, statistics that PyTorch before
  0.4 kept of instance norms, norms of emptied blocks, Inception's auxiliary classifier) are kept in
  the collection 'unused', so that `to_torch` gives the file back; what is above a VGG trunk is left
  behind. Newer files with such statistics may have been trained to use them, so they need
  norm='instance'. DRN's upsampling kernel is built in: the file's must equal it.

  Spectral norm is kept where the network has it (SPADE, its discriminator), also of newer names
  (`parametrizations`), which become the older ones. Elsewhere it is folded into the weights as
  PyTorch's eval mode does, W / (u' W v), with a UserWarning; so is weight norm. The names of
  ESRGAN's own files become those that Real-ESRGAN gives the same network.

  Raises ValueError, with what to do, for an unknown family, missing or unknown keys, wrong shapes
  or dtypes, NaN or infinity in what a forward pass reads, a prefix on every key, unknown overrides.
  """
  state = _without_prefix({key: np.asarray(x) for key, x in state.items()}, prefix)
  state = _without_weight_norm(newer_names(_older_names(state)))
  shapes = {key.removesuffix('_orig'): x.shape for key, x in state.items()} | {
      key: x.shape for key, x in state.items()}
  family = _family(shapes)
  _check_overrides(family, overrides)
  if isinstance(overrides.get('dtype'), str):
    overrides['dtype'] = build(overrides['dtype'], 'dtype')
  strange = [f'{key} {x.shape}' for key, x in state.items()
             if not re.fullmatch(family.pattern, key) and not family.beyond(key)]
  if strange:
    raise ValueError(f'this looks like a {family.name}, but {len(strange)} unknown: '
                     f'{_some(strange)}')
  try:
    module = family.module(shapes, overrides).clone(**overrides)
    places = _places(family, module)
  except (LookupError, StopIteration, ValueError, TypeError, ArithmeticError, MemoryError) as e:
    reason = e if isinstance(e, ValueError) else (
        f'{e if isinstance(e, KeyError) else "a convolution"} is missing, or of another rank or '
        'size')
    raise ValueError(f'this looks like a {family.name}, but {reason}. {_convolutions(shapes)}'
                     ) from e
  state = _without_spectral_norm(state, places)
  return module, _fill(family, module, state, 'norm' in overrides)


def assumed(module: linen.Module) -> dict[str, Any]:
  """{field: value} of what keys cannot tell of such a module: `from_torch` was given these values,
  or took those of published code. Raises ValueError as `to_torch`."""
  return {name: getattr(module, name) for name in _family_of(module).overrides
          if OPEN.get(name, lambda module: True)(module)}


def built_in(module: linen.Module) -> str:
  """What keys cannot tell either and no field can change: it is as in published code."""
  return _family_of(module).built_in


def to_torch(module: linen.Module, variables: Mapping) -> dict[str, np.ndarray]:
  """The state dict, in PyTorch's names and layout: the exact inverse of `from_torch`.

  Raises ValueError for a class that no published network has, or variables of another network.
  """
  family = _family_of(module)
  state = {key: np.asarray(x) for key, x in variables.get(UNUSED, {}).items()}
  flat = traverse_util.flatten_dict(dict(variables), sep='/')
  for place in _places(family, module):
    path = '/'.join((place.collection, *place.path))
    if path not in flat:
      raise ValueError(f'the variables lack {path}; are they of this {type(module).__name__}?')
    x = np.asarray(flat[path])
    if x.shape != place.shape:
      raise ValueError(f'{path} is {x.shape} and this {type(module).__name__} has {place.shape}')
    array = place.to_torch(x)
    if place.key in state:  # the tail of a longer array
      array = np.concatenate([array, state[place.key]])
    state[place.key] = array
  dtype = jax.tree.leaves(variables['params'])[0].dtype
  return state | {key: x.astype(dtype) for key, x in family.fixed(module).items()}


def _without_prefix(state, prefix):
  if not prefix:
    return state
  starts = list(dict.fromkeys(key.partition('.')[0] + '.' for key in state))
  state = {key.removeprefix(prefix): x for key, x in state.items() if key.startswith(prefix)}
  if not state:
    raise ValueError(f'no key starts with {prefix!r}; there are {_some(starts)}')
  if all(key.startswith('.') for key in state):
    raise ValueError(f'prefix={prefix!r} lacks its dot; pass {prefix + "."!r}')
  return state


def _check_overrides(family, overrides):
  possible = (*family.overrides, 'dtype', 'implementation')
  for name, value in overrides.items():
    if name not in possible:
      raise ValueError(f'a {family.name} takes no override {name!r}; it takes '
                       f'{", ".join(possible)}, all else is in the keys')
    accepted, words = _OVERRIDES[name]
    if not accepted(value):
      raise ValueError(f'{name}={value!r}; {words}')


def _older_names(state):
  """The names of `torch.nn.utils.spectral_norm` and `weight_norm` for those that replaced them."""
  leaves = {'original': '_orig', '0._u': '_u', '0._v': '_v', 'original0': '_g', 'original1': '_v'}

  def older(key):
    match = re.fullmatch(r'(.*\.)?parametrizations\.(\w+)\.(.*)', key)
    return f'{match[1] or ""}{match[2]}{leaves[match[3]]}' if match and match[3] in leaves else key

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


def _choice(*options):
  return lambda x: x in options, f'{", ".join(map(str, options[:-1]))} or {options[-1]}'


def _rate(name):
  return (lambda x: isinstance(x, int | float) and not isinstance(x, bool) and 0 <= x < 1,
          f'a {name} from 0 to below 1')


# {override: (whether a value is possible, which are)}
_OVERRIDES = {
    **dict.fromkeys(('clamp', 'separable_norm'), (lambda x: isinstance(x, bool), 'True or False')),
    'dropout': _rate('rate'),
    'slope': _rate('slope'),
    'shared': (lambda x: type(x) is int and 0 <= x <= 5, 'a whole number from 0 to 5'),
    'heads': (lambda x: isinstance(x, tuple) and len(set(x)) == 2, 'two names'),
    'size': _choice(28, 32, 64),
    'depth': _choice(16, 19),
    'layers': (lambda x: isinstance(x, tuple) and x, "names in a tuple, ('relu1_2', 'relu2_2')"),
    'padding': _choice(*PADDINGS),
    'norm': _choice(*NORMS),
    'upsampling': _choice(*UPSAMPLING),
    'implementation': (
        lambda x: x in ('auto', 'reference', 'optimized', *IMPLEMENTATIONS['upsample']),
        'auto, reference or optimized'),
    'dtype': (lambda x: not isinstance(x, str) or x in ('float16', 'bfloat16', 'float32',
                                                        'float64'), 'a floating-point type'),
}


class _Place(NamedTuple):
  """One array: its key in PyTorch, its place in our variables, our shape."""
  key: str
  collection: str
  path: tuple[str, ...]
  shape: tuple[int, ...]
  transposed: bool

  @property
  def torch_shape(self) -> tuple[int, ...]:
    shape = self.shape
    if self.path[-1] == 'v':
      return (math.prod(shape),)
    if self.path[-1] != 'kernel' or len(shape) == 2:
      return shape[::-1]
    *area, into, out = shape
    return (into, out, *area) if self.transposed else (out, into, *area)

  def misfit(self, x: np.ndarray) -> str:
    """What is wrong with an array's shape or type, or ''."""
    if x.shape != self.torch_shape:
      return f'{self.key} is {x.shape} and should be {self.torch_shape}'
    kind, words = (jnp.integer, 'whole') if self.path[-1] == 'count' else (
        jnp.floating, 'floating-point')
    return '' if jnp.issubdtype(x.dtype, kind) else (
        f'{self.key} holds {x.dtype} and should hold {words} numbers')

  def broken(self, x: np.ndarray) -> list[str]:
    """The key, if no forward pass can use such values."""
    if not np.isfinite(x).all():
      return [self.key]
    return [f'{self.key} (a negative variance)'] * (self.path[-1] == 'var' and bool((x < 0).any()))

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


def _fill(family, module, state, norm_is_given):
  """The variables, once every key is accounted for."""
  left, missing, wrong, broken, unused, variables = dict(state), [], [], [], {}, {}
  for place in _places(family, module):
    x = _taken(place, left, unused)
    if x is None:
      missing.append(f'{place.key} {place.torch_shape}')
    elif reason := place.misfit(x):
      wrong.append(reason)
    else:
      broken += place.broken(x)
      variables[place.collection, *place.path] = place.from_torch(x)
  for key, x in family.fixed(module).items():
    stored = left.pop(key, None)
    if stored is None:
      missing.append(f'{key} {x.shape}')
    elif not np.array_equal(stored, x):
      wrong.append(f'{key} {stored.shape} differs from the {x.shape} that are built in')
  statistics = _statistics(state, family, module, norm_is_given)
  unused |= {key: x for key, x in left.items()
             if key.startswith(family.dead(module)) or key in statistics}
  unknown = [f'{key} {x.shape}' for key, x in left.items()
             if key not in unused and not family.beyond(key)]
  _refuse(family, module, len(state), {'missing': missing, 'unknown': unknown,
                                       'of another shape or kind': wrong}, broken)
  return traverse_util.unflatten_dict(variables) | ({UNUSED: unused} if unused else {})


def _taken(place, left, unused) -> np.ndarray | None:
  """The array of a place, taken from what is left of a file."""
  x = left.pop(place.key, None)
  if x is None and place.path[-1] == 'count':
    return np.zeros((), np.int64)  # PyTorch before 0.4.1 did not count
  if x is not None and x.ndim == 1 and re.search('param_free_norm.running_(mean|var)$', place.key):
    # Sub-networks of GAN Compression keep the statistics of the full width and read their head.
    x, tail = np.split(x, place.torch_shape)
    unused |= {place.key: tail} if len(tail) else {}
  return x


def _refuse(family, module, count, problems, broken):
  lines = [f'{len(keys)} {problem}: {_some(keys)}' for problem, keys in problems.items() if keys]
  if lines:
    raise ValueError(f'this looks like a {family.name}, {spell(module)}, but not all arrays fit.\n'
                     + '\n'.join(lines))
  if broken:
    raise ValueError(f'{len(broken)} of {count} arrays hold NaN or infinity, and so would '
                     f'every image: {_some(broken)}. The run diverged before it saved them, or the '
                     'file is damaged; take an earlier checkpoint')


def _statistics(state, family, module, norm_is_given) -> set[str]:
  """Running statistics of instance norms, which PyTorch before 0.4 kept and never read."""
  if 'norm' not in family.overrides or module.norm not in ('instance', 'instance_affine'):
    return set()
  layers = {row.torch for row in family.rows(module)
            if (f'{row.torch}.weight' in state) == (module.norm == 'instance_affine')}
  keys = {f'{layer}.{leaf}' for layer in layers
          for leaf in ('running_mean', 'running_var', 'num_batches_tracked')} & state.keys()
  counted = sorted(key for key in keys if key.endswith('num_batches_tracked'))
  if counted and not norm_is_given:
    raise ValueError(f'{counted[0].rpartition(".")[0]} keeps running statistics of an instance '
                     'norm. Networks of the CycleGAN repository do not use them: pass '
                     "norm='instance'. Of a network that was trained with "
                     'track_running_stats=True it would be another one, which is not supported')
  return keys


def _family(shapes) -> Family:
  if not shapes:
    raise ValueError('no arrays: an empty state dict describes no network')
  if family := _recognized(shapes):
    return family
  heads = {key[:at.end()] for key in shapes for at in re.finditer(r'\.', key)}
  for head in sorted(heads, key=len):
    inside = {key.removeprefix(head): s for key, s in shapes.items() if key.startswith(head)}
    family = _recognized(inside)
    if family and family.name != 'adapter':
      every = 'every key starts' if len(inside) == len(shapes) else f'{len(inside)} keys start'
      raise ValueError(f"{every} with {head!r}, and without it this is a {family.name}; pass "
                       f"prefix={head!r} (--prefix={head}); DataParallel and trainers add such "
                       'prefixes')
  raise ValueError(f'no known network has these {len(shapes)} arrays: {_some(list(shapes))}. '
                   f'{_closest(shapes)}Known are {", ".join(family.name for family in FAMILIES)}.')


def _recognized(shapes) -> Family | None:
  return next((family for family in FAMILIES if family.recognizes(shapes)), None)


def _closest(shapes) -> str:
  fits = {family.name: [key for key in shapes if re.fullmatch(family.pattern, key)]
          for family in FAMILIES if family.name != 'adapter'}
  name, keys = max(fits.items(), key=lambda item: len(item[1]))
  others = [key for key in shapes if key not in keys]
  return (f'Closest is a {name}: {len(keys)} keys fit, {len(others)} do not: {_some(others)}. '
          if keys else '')


def _family_of(module) -> Family:
  several = isinstance(module, PatchGAN) and len(module.heads) > 1
  for family in FAMILIES:
    if type(module) is family.builds and several == ('heads' in family.overrides):
      return family
  raise ValueError(f'{type(module).__name__} has no published PyTorch counterpart; known are '
                   f'{", ".join(sorted({family.builds.__name__ for family in FAMILIES}))}')


def _convolutions(shapes) -> str:
  convs = [f'{key} {shape}' for key, shape in shapes.items() if len(shape) == 4]
  return f'Of {len(shapes)} arrays {len(convs)} are convolutions: {_some(convs, 12)}'


def _some(names, count=6) -> str:
  more = f' and {len(names) - count} more' if len(names) > count else ''
  return ', '.join(names[:count]) + more
