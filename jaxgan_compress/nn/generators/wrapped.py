"""A network of your own, made to fit methods, pruning, files and exports."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util

from jaxgan_compress.core import AnyArray, Axes
from jaxgan_compress.nn.init import remembered
from jaxgan_compress.nn.layers import conv_dispatch, inputs
from jaxgan_compress.nn.prunable import Widths
from jaxgan_compress.tracing import laws, rewriting
from jaxgan_compress.tracing import network as networks
from jaxgan_compress.tracing.plan import Path, living
from jaxgan_compress.tracing.running import with_arrays_as_given
from jaxgan_compress.tracing.traced_plan import TracedPlan, narrowed, terms_at, trace_plan

TAPS = 3  # how many layers' outputs are compared where nobody says which
MULTIPLES = 1, 2, 4, 8, 16, 32, 64, 128, 256  # that sides of images may have to be of
SIDE = 16  # of images on which a plan is proved: on single pixels an instance norm gives zeros
HIDDEN = 'intermediates'


class Wrapped(nn.Module):
  """A generator of any module of linen, which then trains, is pruned, taught, saved and exported as
  those of the library.

  x: what `network` takes -> (its image, in float32 at least; taps: outputs of layers, by name). Its
  variables are those of `network`, under the same names.

  network: a module (x) -> image, or -> (image, ...). It may take `train`, `training`, `is_training`
    or `deterministic`. Its batch norms of flax average over all replicas, unless they name an axis.
  taps: paths of layers whose outputs are compared with a teacher's, as 'down2' or 'block3/conv'; or
    the path of one and a name that it gives `self.sow('intermediates', name, x)`. Default: the
    widest maps that direct parts of the network return.
  inputs: channels of the images it takes, where it has no `example()` that says it, and no field
    `latent`, the length of its latents.
  multiple: of which the sides of images are; 0 for the least with which it runs.
  allow, execution: see `pruning.trace_plan`.
  kept: what pruning left, (group, channels that stay) of each group that lost some.
  """
  network: nn.Module
  taps: tuple[str, ...] = ()
  inputs: int = 3
  multiple: int = 0
  allow: tuple[str, ...] = ()
  execution: str = 'auto'
  kept: tuple[tuple[str, tuple[int, ...]], ...] = ()

  @nn.compact
  def __call__(self, x, train: bool = False, axes: Axes = Axes()):
    plain = self.clone(parent=None, name=None)
    if self.input_kind != 'latent':
      self.takes.check(x, f'this {type(self.network).__name__}')
    if self.is_initializing():
      for kind, leaves in plain.first(x, self.make_rng('params')).items():
        for name, leaf in leaves.items():
          self.put_variable(kind, name, leaf)
    changing = [kind for kind in self.variables if kind != 'params' and not self.is_initializing()
                and self.is_mutable_collection(kind)]
    rngs = {name: self.make_rng(name) for name in networks.STREAMS if self.has_rng(name)}
    image, states = plain.run(self.variables, x, train, changing, rngs, (*axes.inner, *axes.mesh))
    taps = states.pop(HIDDEN)
    for kind, leaves in states.items():
      for name, leaf in leaves.items():
        self.put_variable(kind, name, leaf)
    return jnp.asarray(image, jnp.promote_types(image.dtype, jnp.float32)), taps

  def run(self, variables: Mapping, x, train: bool = False, changing: Sequence[str] = (),
          rngs: Mapping | None = None, axis_names: tuple[str, ...] = ()):
    """(image, new states) of the network with these arrays, whatever their widths; its taps among
    the states. changing: collections that it may change."""
    call = _tapped(self.network, self.tap_names, train, changing, rngs or {})
    variables = {kind: dict(leaves) for kind, leaves in variables.items()}
    if not self.kept or self.execution == 'module':
      with with_arrays_as_given(axis_names or None):
        return call(variables, x)
    with with_arrays_as_given(axis_names or None):
      image, states = rewriting.function(_groups(self.whole), call, self._masks)(
          traverse_util.flatten_dict(variables), x)
    return image, {HIDDEN: {}, **traverse_util.unflatten_dict(states)}

  def first(self, x, key) -> dict:
    """Fresh variables as the network makes them, of what is left."""
    variables = self.network.init(key, x, **networks.mode(self.network, train=False))
    variables = {kind: leaves for kind, leaves in nn.meta.unbox(dict(variables)).items()
                 if kind != HIDDEN}
    if not self.kept:
      return variables
    plan = _groups(self.whole)
    alive = plan.alive(self._masks)
    flat: dict[Path, Any] = traverse_util.flatten_dict(variables)
    return traverse_util.unflatten_dict({
        path: leaf[living(plan.leaves[path], leaf.shape, alive)] for path, leaf in flat.items()})

  @property
  def whole(self) -> Wrapped:
    """The network before it was pruned."""
    execution = 'auto' if self.kept else self.execution
    return self.clone(kept=(), execution=execution, parent=None, name=None)

  @property
  def _masks(self) -> dict[str, np.ndarray]:
    widths = _groups(self.whole).widths
    return {name: np.isin(np.arange(widths[name]), channels) for name, channels in self.kept}

  @property
  def tap_names(self) -> tuple[str, ...]:
    return self.taps or _widest(self.whole)

  def plan(self) -> TracedPlan:
    """Its groups of channels, named after layers, see `pruning.trace_plan`. The first call traces
    the network and proves the groups on random weights. Raises ValueError where there
    is none."""
    plan = _proved(self.whole)
    return narrowed(plan, self._masks) if self.kept else plan

  def with_masks(self, masks: Mapping[str, AnyArray]) -> Wrapped:
    """What is left, {group: bool [width]}; other groups stay as they are."""
    before, plan = dict(self.kept), self.plan()
    whole = _proved(self.whole).widths
    for name, mask in masks.items():
      channels = np.asarray(before.get(name, np.arange(whole[name])))[np.asarray(mask, bool)]
      before[name] = tuple(channels.tolist())
    kept = tuple((name, before[name]) for name in plan.groups
                 if len(before.get(name, ())) not in (0, whole[name]))
    execution = plan.execution if kept else self.execution
    return self.clone(kept=kept, execution=execution, parent=None, name=None)

  def prove(self) -> None:
    """Raises ValueError unless, on random weights, just what is left of the network computes what
    the whole one does with all else at 0; nothing is asked of channels that `allow` lets change
    it."""
    if self.kept and not _law_holds(self):
      raise ValueError(f'what is left of this {type(self.network).__name__} does not compute what '
                       "the masked network does; take execution='program', or report the network")

  def with_widths(self, widths: Widths) -> Wrapped:
    """The first channels of each group, {group: channels}."""
    return self.with_masks({name: np.arange(n) < widths[name]
                            for name, n in self.plan().widths.items() if name in widths})

  def terms(self, shape: Sequence[int] | None = None) -> tuple:
    """Multiply-accumulates by channels, see `TracedPlan`. shape: of one input."""
    if shape and self.input_kind != 'latent':
      self.takes.check(jax.ShapeDtypeStruct(tuple(shape), jnp.float32),
                       f'this {type(self.network).__name__}')
    terms = _terms(self.whole, tuple(shape or self.example().shape))
    return narrowed(
        dataclasses.replace(_proved(self.whole), terms=terms), self._masks).terms if self.kept \
        else terms

  @property
  def takes(self) -> inputs.Images:
    return _sizes(self.whole)[0]

  @property
  def scale(self) -> int:
    """How many times larger than the input the image is."""
    return _sizes(self.whole)[1]

  @property
  def input_kind(self) -> str:
    return inputs.input_kind(self.network)

  def example(self, size: int | tuple[int, int] | None = None):
    """Zeros of batch 1. size: (height, width), or both in one; None for a small one."""
    if 'example' in dir(self.network):
      return self.network.example(size) if size else self.network.example()
    if self.input_kind == 'latent':
      return jnp.zeros((1, self.network.latent))
    height, width = np.broadcast_to(size or self.takes.fit(SIDE), 2).tolist()
    return jnp.zeros((1, height, width, self.inputs))


def wrap(network: nn.Module, **fields) -> nn.Module:
  """A generator of the library or one of its shape, which has `example()`, as it is; any other
  module `Wrapped`, with these fields."""
  return network if 'example' in dir(network) and not fields else Wrapped(network, **fields)


def _apart(function):
  """A function of networks that keeps its results, and runs in a thread of its own: what is asked
  of a network while it is traced, or while its layers are watched, is not part of that."""

  @remembered
  @functools.wraps(function)
  def call(*args):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
      return pool.submit(function, *args).result()

  return call


def _image(out):
  image = out[0] if isinstance(out, tuple | list) and out else out
  if 'shape' not in dir(image):
    raise ValueError(f'a generator returns its image, or (image, ...), and this one returns a '
                     f'{type(out).__name__}')
  return image


def _tapped(network, wanted, train, changing, rngs) -> Callable:
  """(variables, x) -> (image, new states), outputs of wanted layers among them."""

  def call(variables, x):
    layers = {tuple(name.split('/')) for name in wanted}
    out, states = network.apply(
        variables, x, **networks.mode(network, train=train), rngs=dict(rngs),
        mutable=[*changing, HIDDEN],
        capture_intermediates=lambda layer, name: name == '__call__' and layer.path in layers)
    hidden = _by_name(nn.meta.unbox(dict(states)).pop(HIDDEN, {}))
    if missing := [name for name in wanted if name not in hidden]:
      raise ValueError(
          f'{type(network).__name__} has no layer {missing[0]!r} that returns an array; there are '
          f'{", ".join(_layers(network, x, variables))[:300]}')
    states = {kind: leaves for kind, leaves in nn.meta.unbox(dict(states)).items()
              if kind in changing}
    return _image(out), {**states, HIDDEN: {name: hidden[name] for name in wanted}}

  return call


def _by_name(tree) -> dict[str, Any]:
  """{'block3/conv': the first array of its output, 'block3/name': what it sowed}."""
  flat = traverse_util.flatten_dict(tree)
  named = {'/'.join(path[:-1] if path[-1] == '__call__' else path): leaf
           for path, leaf in flat.items()}
  arrays = {name: jax.tree.leaves(leaf) for name, leaf in named.items()}
  return {name: leaves[0] for name, leaves in arrays.items() if leaves}


def _layers(network, x, variables=None) -> dict[str, Any]:
  """{path: shape of the output} of every layer, in the order in which they return."""
  order: list[str] = []

  def note(layer, name):
    order.extend(['/'.join(layer.path)] if name == '__call__' and layer.path else [])
    return name == '__call__'

  def run(variables, x):
    return network.apply(variables, x, **networks.mode(network, train=False), mutable=[HIDDEN],
                         rngs=dict.fromkeys(networks.STREAMS, jax.random.key(0)),
                         capture_intermediates=note)[1][HIDDEN]

  with with_arrays_as_given():
    variables = variables or jax.eval_shape(
        functools.partial(network.init, **networks.mode(network, train=False)),
        jax.random.key(0), x)
    hidden = _by_name(jax.eval_shape(run, variables, x))
  return {name: hidden[name] for name in dict.fromkeys(order) if name in hidden}


@_apart
def _widest(wrapped):
  """Names of the layers that are compared where nobody names any: of the direct parts of a network
  that return maps, without the last one, the widest, as many as `TAPS`."""
  found = {name: x for name, x in _layers(wrapped.network, wrapped.example()).items()
           if '/' not in name and x.ndim in (2, 4)}
  names = list(found)[:-1] or list(found)
  best = sorted(names, key=lambda name: -found[name].shape[-1])[:TAPS]
  return tuple(name for name in names if name in best)


@_apart
def _sizes(wrapped):
  """(images that it takes, how many times larger those are that it makes), by trying."""
  network = wrapped.network
  if 'takes' in dir(network):
    return network.takes, inputs.output_scale(network)
  if wrapped.input_kind == 'latent' or 'example' in dir(network):
    shape = jax.eval_shape(wrapped.example).shape
    channels = shape[-1]
    return inputs.Images(channels), inputs.output_scale(network)
  problem = ''
  for multiple in (wrapped.multiple,) if wrapped.multiple else MULTIPLES:
    ratios = set()
    for side in (multiple, 3 * multiple, 5 * multiple):
      try:
        image = jax.eval_shape(functools.partial(_first_image, network), jax.ShapeDtypeStruct(
            (1, side, side, wrapped.inputs), jnp.float32))
      except Exception as e:  # whatever a network raises of a size that it does not take
        problem = str(e).strip().split('\n')[0]
        break
      ratios |= {n / side for n in image.shape[1:3]}
    else:
      if len(ratios) == 1 and (ratio := ratios.pop()) == int(ratio) > 0:
        return inputs.Images(wrapped.inputs, multiple), int(ratio)
  raise ValueError(
      f'{type(network).__name__} makes no image [B,s H,s W,C] of [B,H,W,{wrapped.inputs}] of any '
      f'size from {MULTIPLES[0]} to {5 * MULTIPLES[-1]}{f" ({problem})" if problem else ""}; give '
      'inputs=, the channels of its input, multiple=, of what its sides are, or the network an '
      'example()')


def _first_image(network, x):
  with with_arrays_as_given():
    out, _ = network.init_with_output(
        dict.fromkeys(networks.STREAMS, jax.random.key(0)), x,
        **networks.mode(network, train=False))
  return _image(out)


@_apart
def _groups(wrapped):
  """Its plan without proof, of which `kept` says channels."""
  return _traced(wrapped, prove=False)


@_apart
def _proved(wrapped):
  return _traced(wrapped, prove=True)


def _traced(wrapped, prove):
  with conv_dispatch.reference():
    return trace_plan(wrapped.network, None, jax.eval_shape(wrapped.example), outputs=_image,
                      allow=wrapped.allow, execution=wrapped.execution, prove=prove)


@remembered
def _subject(wrapped):
  leaves = networks.shapes_of(wrapped.network, None, [x := jax.eval_shape(wrapped.example)])
  return laws.subject(networks.function_of(wrapped.network), leaves, [x], _image, seed=1)


@_apart
def _law_holds(wrapped):
  plan = _proved(wrapped.whole)
  with conv_dispatch.reference():
    return bool(plan.approximate) or laws.removes(plan, _subject(wrapped.whole), wrapped._masks,
                                                  wrapped.execution)


@_apart
def _terms(wrapped, shape):
  with conv_dispatch.reference():
    return terms_at(_proved(wrapped), wrapped.network, None,
                    jax.ShapeDtypeStruct(shape, jnp.float32), outputs=_image)

