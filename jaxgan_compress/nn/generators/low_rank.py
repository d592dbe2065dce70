"""Small factors beside the kernels of a trained network, one set for each effect: LoRA."""

from __future__ import annotations

import fnmatch
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util

from jaxgan_compress.core import Axes
from jaxgan_compress.core.state import FIXED
from jaxgan_compress.nn.init import flat, remembered, shapes
from jaxgan_compress.nn.layers import conv_dispatch, inputs
from jaxgan_compress.tracing.network import STREAMS
from jaxgan_compress.tracing.plan import Path

BASE, = FIXED


class LowRank(nn.Module):
  """A generator that learns a new effect by a few numbers beside the kernels of a trained one.

      K' = K + alpha / rank * reshape(A B)

  K [kh,kw,Cin,Cout] is a kernel of the base network as it is stored, also of a transposed
  convolution; of a dense layer kh = kw = 1. A [kh kw Cin,rank] has its rows in the order (kh, kw,
  Cin) and starts he-normal; B [rank,Cout] starts at 0, so the start is the base exactly. A layer
  then has rank (kh kw Cin + Cout) numbers to learn instead of kh kw Cin Cout.

  x: what `network` takes -> what it returns. Variables: 'params' {'lora': {layer: {'A', 'B'}},
  'free': what learns whole}; 'base', the other parameters of the network, which stay; and the
  network's own collections, which follow the new effect, as statistics of batch norms have to.

  network: a generator of the library, or any other module as `nn.wrap` makes it.
  rank, alpha: of all factors; alpha is the rank by default.
  layers: patterns of the layers that have factors, as 'block*/conv1' or '*/pointwise'. Default: all
    but the first and the last. Depthwise kernels have no factors, nor have those of which factors
    of rank 1 are no smaller.
  train: patterns of parameters that learn whole, by name or path, as 'slope' or 'up1_norm/*'.

  Hu et al. 2021; E2GAN, Gong et al. 2024, which gives neither layers nor ranks. Where it names 3x3
  kernels, this takes all: those of a U-Net are 4x4, and most weights of a mobile ResNet are in 1x1
  kernels. Raises ValueError for a rank below 1, an alpha that is not positive, no layer of a
  pattern, and a rank at which the factors of a layer are more numbers than its kernel.
  """
  network: nn.Module
  rank: int = 4
  alpha: float | None = None
  layers: tuple[str, ...] = ()
  train: tuple[str, ...] = ('bias', 'scale')

  def __post_init__(self):
    super().__post_init__()
    if self.parent is None:  # else it is a copy that flax makes to run it
      if self.rank < 1 or (self.alpha is not None and not self.alpha > 0):
        raise ValueError(f'rank={self.rank}, alpha={self.alpha}; a rank is at least 1, and alpha '
                         'above 0')
      if isinstance(self.network, LowRank):
        raise ValueError('network is of low rank itself; give what nn.merged makes of it')
      _ = self.kernels

  @nn.compact
  def __call__(self, x, train: bool = False, axes: Axes = Axes()):
    plain = self.clone(parent=None, name=None)
    if self.is_initializing():
      for kind, leaves in plain.first(x, self.make_rng('params')).items():
        for name, leaf in leaves.items():
          self.put_variable(kind, name, leaf)
    moving = [kind for kind in self.variables if kind not in ('params', BASE)
              and self.is_mutable_collection(kind) and not self.is_initializing()]
    rngs = {name: self.make_rng(name) for name in STREAMS if self.has_rng(name)}
    out, states = plain.network.apply(plain.merge(self.variables), x, train=train, axes=axes,
                                      rngs=rngs, mutable=moving)
    for kind, leaves in states.items():
      for name, leaf in leaves.items():
        self.put_variable(kind, name, leaf)
    return out

  @property
  def kernels(self) -> dict[Path, tuple[int, ...]]:
    """{path: shape} of the kernels that have factors. Raises ValueError as the class."""
    return _kernels(self.network.clone(parent=None, name=None), self.rank, tuple(self.layers),
                    tuple(self.train))

  def merge(self, variables: Mapping) -> dict[str, Any]:
    """The variables of the plain network, of its own."""
    params, free, factors = (_leaves(tree) for tree in (
        variables[BASE], variables['params']['free'], variables['params']['lora']))
    params |= free
    scale = (self.alpha or self.rank) / self.rank
    for path in self.kernels:
      product = jnp.matmul(*(factors[(*path[:-1], name)] for name in 'AB'), precision='highest')
      params[path] = params[path] + scale * product.reshape(params[path].shape)
    return {'params': traverse_util.unflatten_dict(params), **{
        kind: leaves for kind, leaves in variables.items() if kind not in ('params', BASE)}}

  def adapted(self, variables: Mapping, key: jax.Array) -> dict[str, Any]:
    """Its own variables at the start, of those of the base network. Raises ValueError for those of
    another network.

    key: of the factors A.
    """
    given = {name: leaf.shape for name, leaf in flat(variables).items()}
    expected = {name: leaf.shape for name, leaf in flat(self._shapes).items()}
    for name in sorted(given.keys() | expected.keys()):
      if given.get(name) != expected.get(name):
        raise ValueError(f'the base is of another network than this {type(self.network).__name__}: '
                         f'its {name} is {given.get(name, "missing")} and would be '
                         f'{expected.get(name, "missing")} here')
    params = _leaves(variables['params'])
    free = {path: leaf for path, leaf in params.items() if _matches(path, self.train)}
    base = {path: leaf for path, leaf in params.items() if path not in free}
    pairs = _factors(key, tuple((math.prod(shape[:-1]), shape[-1])
                                for shape in self.kernels.values()), self.rank)
    lora = {(*path[:-1], name): x for path, pair in zip(self.kernels, pairs, strict=True)
            for name, x in zip('AB', pair, strict=True)}
    return {'params': {'lora': traverse_util.unflatten_dict(lora),
                       'free': traverse_util.unflatten_dict(free)},
            BASE: traverse_util.unflatten_dict(base),
            **{kind: leaves for kind, leaves in variables.items() if kind != 'params'}}

  def first(self, x, key) -> dict[str, Any]:
    """Variables of a base that has not learned."""
    return self.adapted(nn.meta.unbox(dict(self.network.init(key, x))), key)

  @property
  def _shapes(self):
    return _made(self.network.clone(parent=None, name=None))[1]

  def plan(self):
    """Raises ValueError: factors are of the kernels as they are."""
    raise ValueError('a network of low rank is not pruned: prune its base first and give what is '
                     'left as network, or prune what nn.merged makes of it')

  @property
  def input_kind(self) -> str:
    return inputs.input_kind(self.network)

  @property
  def takes(self) -> inputs.Images:
    return self.network.takes

  @property
  def latent(self) -> int:
    return self.network.latent

  @property
  def scale(self) -> int:
    """How many times larger than the input the image is."""
    return inputs.output_scale(self.network)

  def example(self, *args, **kwargs):
    """Zeros of batch 1, as of the base network."""
    return self.network.example(*args, **kwargs)


def plain(module: nn.Module) -> nn.Module:
  """The network that one of low rank becomes when it is merged; any other as it is."""
  return module.network if isinstance(module, LowRank) else module


def merged(module: nn.Module, variables: Mapping) -> tuple[nn.Module, Mapping]:
  """(network, variables) without factors of one of low rank; any other as it is."""
  if not isinstance(module, LowRank):
    return module, variables
  return module.network, module.merge(variables)


def search_rank(distance: Callable[[int], float], most: int = 64, gain: float = 0.02
                ) -> tuple[int, dict[int, float]]:
  """(the rank, {rank: distance}): doubled from 1 until that improves by a smaller share than
  `gain`.

  distance: of a rank, what a training with it comes to, as its FD on validation images, smaller
  being better. most: no larger rank is tried. The rank that is returned is the last that was worth
  its double.
  """
  found = {1: distance(1)}
  rank = 1
  while 2 * rank <= most:
    found[2 * rank] = distance(2 * rank)
    if found[2 * rank] > (1 - gain) * found[rank]:
      break
    rank *= 2
  return rank, found


def _leaves(tree: Mapping) -> dict[Path, Any]:
  return dict(traverse_util.flatten_dict(dict(tree)))


def _matches(path: Path, patterns: tuple[str, ...]) -> bool:
  name = '/'.join(path)
  return any(fnmatch.fnmatchcase(name, each) or fnmatch.fnmatchcase(name, f'*/{each}')
             for each in patterns)


@remembered
def _made(network) -> tuple[tuple[Path, ...], Any]:
  """(paths of the kernels in the order in which a network reads them, shapes of its variables)."""
  if 'example' not in dir(network):
    raise ValueError(f'a {type(network).__name__} does not say what its input is; give '
                     'network=nn.wrap(...) of it')
  variables, x = shapes(network), jnp.zeros_like(inputs.example(network))
  paths = [tuple(part.key for part in path)
           for path, _ in jax.tree_util.tree_leaves_with_path(variables)]
  with conv_dispatch.reference():
    program = jax.make_jaxpr(lambda variables: network.apply(variables, x)[0])(variables).jaxpr
  read: dict[int, int] = {}
  for i, operation in enumerate(program.eqns):
    for value in operation.invars:
      read.setdefault(id(value), i)
  kernels = {path[1:]: read[id(value)] for path, value in zip(paths, program.invars, strict=True)
             if path[0] == 'params' and path[-1] == 'kernel' and id(value) in read}
  return tuple(sorted(kernels, key=lambda path: kernels[path])), variables


@remembered
def _kernels(network, rank, layers, train):
  order, variables = _made(network)
  params = _leaves(variables['params'])
  name = type(network).__name__
  sides = {path: (math.prod(shape[:-1]), shape[-1]) for path in order
           if (shape := params[path].shape)[-2] > 1}  # others are depthwise
  dense = [path for path, (rows, columns) in sides.items() if rows + columns < rows * columns]
  for pattern in layers:
    if not any(_matches(path[:-1], (pattern,)) for path in dense):
      raise ValueError(f'layers: no layer {pattern!r} of this {name} may have factors; there are '
                       + ', '.join('/'.join(path[:-1]) for path in dense))
  chosen = {path: params[path].shape for path in dense if not _matches(path, train) and (
      _matches(path[:-1], layers) if layers else path not in (order[0], order[-1]))}
  if not chosen:
    raise ValueError(f'no layer of this {name} has factors: it has {len(order)} kernels, of which '
                     f'the first, the last and those of train={train} learn none; give layers')
  for path in chosen:
    rows, columns = sides[path]
    if rank * (rows + columns) > rows * columns:
      raise ValueError(f'rank={rank}: the factors of {"/".join(path[:-1])} are '
                       f'{rank * (rows + columns):,} numbers and its kernel {rows * columns:,}; '
                       f'take a rank up to {rows * columns // (rows + columns)}, or name other '
                       'layers in `layers`')
  return chosen


@functools.partial(jax.jit, static_argnums=(1, 2))
def _factors(key, sizes, rank):
  """[(A, B)] of kernels of (rows, columns); one draw serves all, and one program."""
  ends = [0]
  for rows, _ in sizes:
    ends.append(ends[-1] + rows * rank)
  noise = jax.random.normal(key, (ends[-1],))
  return [(noise[start:end].reshape(rows, rank) * math.sqrt(2 / rows),
           jnp.zeros((rank, columns), noise.dtype))
          for start, end, (rows, columns) in zip(ends, ends[1:], sizes, strict=False)]
