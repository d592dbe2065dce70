"""Which channels of a network live and die together, as its program tells."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from flax import linen, traverse_util

from jaxgan_compress.core import AnyArray
from jaxgan_compress.nn import init
from jaxgan_compress.nn.layers import conv_dispatch
from jaxgan_compress.nn.layers.inputs import example
from jaxgan_compress.tracing import traced_plan
from jaxgan_compress.tracing.plan import Group, Path, Plan, runs

Widths = Mapping[str, int]
UNNAMED = -3  # instead of the number of a channel that no group has


def make_plan(module: linen.Module, groups: Mapping[str, Group],
              parts: Mapping[str, tuple[str, ...]] | None = None,
              whole: Sequence[str] = ()) -> Plan:
  """The plan of a module that has `with_widths` and `example`: of groups that are named by hand the
  leaves in which their channels lie, as `pruning.trace_plan` finds them. Nothing runs.

  groups: the channels of a group are those that the layer of its name makes: the last axis of the
    last kernel that is read in that part of the network. `Group.layers` names another layer, or
    several of one width. A layer that several groups name makes their channels one after another,
    and a layer of k times as many channels each group's k times. A norm that has no scales does not
    vote. parts: see `Plan`. whole: layers whose channels always stay.

  Raises ValueError where the program says otherwise: for a layer that is not there, makes another
    number of channels, makes some that must stay, or such as another layer has made already; for a
    norm of other channels; and for channels that no group has.
  """
  # An axis of length 1 has no labels: of twice the channels the first half stays.
  times = 2 if any(group.width == 1 for group in groups.values()) else 1
  wide = {name: dataclasses.replace(group, width=times * group.width)
          for name, group in groups.items()}
  if times > 1:
    module = module.with_widths({name: group.width for name, group in wide.items()})
  leaves, shapes = _leaves(module, wide, whole)
  plan = Plan(wide, dict(parts or {}), leaves, shapes)
  plan = dataclasses.replace(plan, groups={name: _voting(plan, name) for name in wide})
  return plan if times == 1 else traced_plan.narrowed(plan, {
      name: np.arange(group.width) < group.width // 2 for name, group in wide.items()})


def _leaves(module, groups, whole):
  """(leaves, shapes) of a plan."""
  leaves, shapes, names, kernels = _traced(module)
  number = np.full(len(names) + 1, UNNAMED)  # of each channel that was found
  number[-1] = -1
  for layer in whole:
    if (channels := leaves[_kernel(kernels, layer)][-1]) is not None:
      number[channels] = -1
  for layer, makers in _layers(groups).items():
    channels = _made(module, leaves, layer, _kernel(kernels, layer))
    if len(set(channels)) < len(channels) or (number[channels] != UNNAMED).any():
      raise ValueError(f'{layer}: some of its {len(channels)} channels are one with others of it, '
                       'or of another layer that is named; name one layer of them in one group')
    number[channels] = _numbers(groups, layer, makers, len(channels))
  if (number == UNNAMED).any():
    at = names[np.argmax(number == UNNAMED)]
    raise ValueError(f'{at} makes {names.count(at)} channels that are in no group; name it in '
                     '`layers` of the group whose width it follows, or in `whole`, where its width '
                     'is fixed')
  renamed = lambda x: None if x is None or (number[x] == -1).all() else number[x]
  return {path: tuple(map(renamed, leaves[path])) for path in shapes}, shapes


@init.remembered
def _traced(module):
  """(channels along each axis of each leaf, in the order in which these are read; shapes; the layer
  that makes each channel; the last kernel of each part of the network)."""
  plan = _trace(module)
  shapes = {path: plan.shapes[path] for path in
            traverse_util.flatten_dict(dict(init.shapes(module)))}
  kernels = {'/'.join(path[1:i]): path for path in plan.leaves if path[-1] == 'kernel'
             for i in range(2, len(path))}
  names = [name for name, width in plan.widths.items() for _ in range(width)]
  return plan.leaves, shapes, names, kernels


def _trace(module) -> traced_plan.TracedPlan:
  # Fewer operations, the same channels.
  with conv_dispatch.reference():
    return traced_plan.trace_plan(module, init.shapes(module), example(module), prove=False,
                                  outputs=_image)


def _image(out):
  return out[0] if isinstance(out, tuple) else out  # of (image, taps)


def _layers(groups):
  """{layer: the groups whose channels it makes, one after another}."""
  found: dict[str, list[str]] = {}
  for name, group in groups.items():
    for layer in (group.layers or (name,)) if group.width else ():
      found.setdefault(layer, []).append(name)
  return found


def _kernel(kernels, layer: str) -> Path:
  if layer not in kernels:
    raise ValueError(f'{layer}: this network has no layer of that name with a kernel; name those '
                     'that make the channels of a group in `layers`, as Group(8, '
                     "layers=('block1/conv1',))")
  return kernels[layer]


def _made(module, leaves, layer, path) -> np.ndarray:
  """The channels that a layer makes, of the kernel at `path`."""
  channels = leaves[path][-1]
  if channels is None or (channels < 0).any():
    reason = _trace(module).reason(path, len(leaves[path]) - 1) or 'what some of them have become'
    raise ValueError(f'{layer}: its channels cannot be cut, because of {reason}')
  return channels


def _numbers(groups, layer, makers, count):
  """Of the channels that a layer makes."""
  width = sum(groups[name].width for name in makers)
  if count % width:
    raise ValueError(f'{layer} makes {count} channels where '
                     f'{", ".join(f"{name} has {groups[name].width}" for name in makers)}')
  return runs(groups, [(name, count // width) for name in makers])


def _voting(plan, name):
  """The group with its norm, or without where that has no scales."""
  group = plan.groups[name]
  axes = plan.leaves.get(('params', *group.norm.split('/'), 'scale'))
  if not axes:
    return dataclasses.replace(group, norm='')
  if axes[0] is None or not set(plan.numbers[name]) <= set(axes[0].tolist()):
    raise ValueError(f'{group.norm} does not scale the channels of {name}, but others')
  return group


def renewed(widths: Widths, name: str, current: tuple[int, ...], start: int = 0):
  """`current` with what `widths` says of 'name0', 'name1', ..."""
  return tuple(widths.get(f'{name}{i}', n) for i, n in enumerate(current, start))


def narrowed(module: linen.Module, masks: Mapping[str, AnyArray]) -> linen.Module:
  """The smaller module that masks leave, {group: bool [width]}: `with_widths` of a network that
  knows its widths, `with_masks` of one that knows its channels."""
  if 'with_masks' in dir(module):
    return module.with_masks(masks)
  return module.with_widths({name: int(np.sum(mask)) for name, mask in masks.items()})
