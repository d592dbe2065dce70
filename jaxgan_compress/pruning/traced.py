"""Pruning of any network: modules of linen and nnx, and functions of arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from flax import linen, nnx, traverse_util

from jaxgan_compress.nn.layers import conv_dispatch
from jaxgan_compress.nn.prunable import Plan
from jaxgan_compress.pruning.budget_search import Masks, search
from jaxgan_compress.pruning.importance import scores
from jaxgan_compress.pruning.one_shot import prune
from jaxgan_compress.pruning.surgery import compact
from jaxgan_compress.pruning.width_cost import cost_of_params, cost_of_terms
from jaxgan_compress.tracing import laws, nnx_modules, rewriting, traced_plan
from jaxgan_compress.tracing import network as networks
from jaxgan_compress.tracing.running import with_arrays_as_given
from jaxgan_compress.tracing.traced_plan import TracedPlan

UNITS = 'macs', 'params'
SIDE = 32  # above which images are halved for the proof of a plan, where the network takes less


def trace_plan(network: Any, variables: Any, *inputs: Any, calls: Sequence[tuple] | None = None,
               outputs: Callable[[Any], Any] | None = None, allow: Sequence[str] = (),
               execution: str = 'auto', seed: int = 0) -> TracedPlan:
  """The groups of channels that live and die together in any network, found in its program and
  proved on random weights, see `tracing.traced_plan.trace_plan`.

  network: a module of linen; a model of nnx, whose variables are None; or a function
    (variables, *inputs) -> arrays of nested dictionaries of arrays.

  `print(plan)` says which groups there are, what is left whole, and why.
  """
  network, variables = _plain(network, variables)
  with conv_dispatch.reference():
    return traced_plan.trace_plan(network, variables, *inputs, calls=calls, outputs=outputs,
                                  allow=allow, execution=execution, seed=seed)


@dataclasses.dataclass(frozen=True, eq=False)
class TracedPruneResult:
  """A smaller network and how it came about.

  network: `network.apply(variables, *inputs)` returns what the whole network did, as a module of
    linen does; a model of nnx is `network(*inputs)`, and holds its variables.
  variables: what is left of those given. masks: `{group: bool [width]}`, True stayed. plan: of the
    whole network. threshold: see `SearchResult`. before, cost: in the unit of the budget.
  """
  network: Any
  variables: Any
  masks: Masks
  plan: Plan
  threshold: float
  before: float
  cost: float


@dataclasses.dataclass(frozen=True, eq=False)
class SmallNetwork:
  """What a cut left of a network: the same code with smaller arrays, or the same program with other
  shapes, as `plan.execution` says."""
  network: Any
  plan: TracedPlan
  masks: Masks
  outputs: Callable | None = None

  def apply(self, variables: Any, *inputs: Any, **kwargs: Any) -> Any:
    """What the whole network returns with these arrays. kwargs: as of `linen.Module.apply`, of
    which `mutable` is a list or False."""
    if isinstance(self.network, _OfParams):
      variables = {'params': variables}
    call = self.network.apply if isinstance(self.network, linen.Module) else self.network
    if self.plan.execution == 'module':
      with with_arrays_as_given():
        return call(variables, *inputs, **kwargs)
    changing = kwargs.get('mutable', False)

    def both(variables, *inputs):
      out = call(variables, *inputs, **kwargs)
      return out if changing else (out, {})

    run = rewriting.function(self.plan, both, self.masks, self.outputs)
    out, states = run(traverse_util.flatten_dict(dict(variables)), *inputs)
    return (out, traverse_util.unflatten_dict(states)) if changing else out


def prune_traced(network: Any, variables: Any, inputs: Sequence[Any], *, budget: float,
                 unit: str = 'macs', criterion: str = 'norm', min_channels: int = 1,
                 round_to: int = 1, scope: str = 'global', grads: Any = None,
                 key: jax.Array | None = None, calls: Sequence[tuple] | None = None,
                 outputs: Callable[[Any], Any] | None = None, allow: Sequence[str] = (),
                 execution: str = 'auto') -> TracedPruneResult:
  """The largest network inside this one that costs at most `budget` by its scores, with the weights
  that are left.

  network, variables, calls, outputs, allow, execution: see `trace_plan`; a network that has a
    `plan()` is pruned by that. inputs: of one call, arrays or their shapes; `budget` counts them.
  unit: 'macs', exact, or 'params'. criterion, grads, key: see `scores`. min_channels, round_to,
    scope: see `search`.

  The law of removal is proved once more for just what was cut. Raises ValueError as `trace_plan`,
  `scores` and `search` do, and where that law fails.
  """
  if unit not in UNITS:
    raise ValueError(f'unit={unit!r}; one of {", ".join(UNITS)}')
  if isinstance(network, linen.Module) and 'plan' in dir(network):
    found = prune(network, variables, inputs[0].shape, budget=budget, unit=unit, key=key,
                  criterion=criterion, min_channels=min_channels, round_to=round_to, scope=scope)
    return TracedPruneResult(found.module, found.variables, found.masks, network.plan(),
                             found.threshold, found.before, found.cost)
  plain, arrays = _plain(network, variables)
  small = _smaller(plain, arrays, inputs)
  plan = trace_plan(plain, arrays, *small, calls=calls, outputs=outputs, allow=allow,
                    execution=execution)
  with conv_dispatch.reference():
    terms = traced_plan.terms_at(plan, plain, arrays, *inputs, calls=calls, outputs=outputs)
  price = cost_of_params(plan) if unit == 'params' else cost_of_terms(plan, unit, terms)
  arrays = nnx_modules.variables_of(network) if isinstance(network, nnx.Module) else arrays
  ranked = scores(plan, arrays['params'], criterion, grads=grads, key=key)
  found = search(plan, ranked, price, budget, min_channels=min_channels, round_to=round_to,
                 scope=scope)
  plan = _proved(plan, plain, arrays, small, found.masks, calls, outputs, execution)
  kept = compact(plan, arrays, found.masks)
  result = TracedPruneResult(SmallNetwork(plain, plan, found.masks, outputs), kept, found.masks,
                             plan, found.threshold, price(plan.widths), found.cost)
  if isinstance(network, nnx.Module) and plan.execution == 'module':
    return dataclasses.replace(result, network=nnx_modules.small_model(network, kept))
  if plain is not network:  # its variables were put below 'params'
    return dataclasses.replace(result, variables=kept['params'])
  return result


def _proved(plan, network, variables, inputs, masks, calls, outputs, execution):
  """The plan, executed in a way in which just these masks leave what the masked network computes.
  """
  with conv_dispatch.reference():
    shapes = networks.shapes_of(network, variables, inputs)
    function = networks.functions(network, {path[0] for path in shapes}, calls)[0]
    about = laws.subject(function, shapes, inputs, outputs, seed=1)
    exact = not plan.approximate
    for way in dict.fromkeys((plan.execution, 'program') if execution == 'auto' else
                             (plan.execution,)):
      if not exact or laws.removes(plan, about, masks, way):
        return dataclasses.replace(plan, execution=way)
  raise ValueError(f'execution={execution!r}: without just these channels the network does not '
                   "compute what it does with them at 0; take execution='program', or report the "
                   'network')


class _OfParams:
  """A function of bare parameters as one of variables."""

  def __init__(self, function: Callable):
    self.function = function

  def __call__(self, variables, *inputs, **kwargs):
    return self.function(variables['params'], *inputs, **kwargs)


def _plain(network, variables):
  """The network and its variables, those of a function below 'params'."""
  if isinstance(network, linen.Module | nnx.Module):
    return network, variables
  if not isinstance(variables, Mapping):
    raise ValueError(f'the variables of a function are a {type(variables).__name__}; give nested '
                     'dictionaries of arrays')
  if 'params' in variables:
    return network, variables
  return _OfParams(network), {'params': variables}


def _smaller(network, variables, inputs):
  """Shapes of inputs on which a proof takes less: images halved as long as the network takes them.
  """
  shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in inputs]
  while any(len(x.shape) == 4 and min(x.shape[1:3]) > SIDE for x in shapes):
    half = [jax.ShapeDtypeStruct((1, x.shape[1] // 2, x.shape[2] // 2, x.shape[3]), x.dtype)
            if len(x.shape) == 4 else x for x in shapes]
    try:
      leaves = networks.shapes_of(network, variables, half)
      tree = traverse_util.unflatten_dict(dict(leaves))
      jax.eval_shape(networks.functions(network, ())[0], tree, *half)
    except Exception:  # whatever a network raises of a size that it does not take
      break
    shapes = half
  return [given if shape.shape == given.shape else shape
          for given, shape in zip(inputs, shapes, strict=True)]

