"""Smaller networks from larger ones, as pure functions of parameters.

    pruned = pruning.prune(teacher, variables, (1, 256, 256, 3), budget=2.6e9, min_channels=16)
    nn.save('student.safetensors', pruned.module, pruned.variables)

The same, step by step:

    plan = teacher.plan()
    scores = pruning.scores(plan, variables['params'])
    price = pruning.cost(teacher, plan, (1, 256, 256, 3))
    found = pruning.search(plan, scores, price, budget=2.6e9, min_channels=16)
    student = teacher.with_widths(pruning.widths(found.masks))
    variables = pruning.compact(plan, variables, found.masks)

Networks of the library say their widths, by `plan()` and `with_widths()`. Any other network, of
linen, of nnx, or a function, is traced:

    print(pruning.trace_plan(network, variables, x))
    small = pruning.prune_traced(network, variables, (x,), budget=2.6e9)
    small.network.apply(small.variables, x)
"""

from jaxgan_compress.analysis.mask_plot import plot_masks
from jaxgan_compress.pruning.activation import (
  ActivationStatistics,
  ReaderStatistics,
  activation_statistics,
  keep_means,
)
from jaxgan_compress.pruning.budget_search import SearchResult, keep, search, tighten, widths
from jaxgan_compress.pruning.gradual import GradualPruning, roles, schedule
from jaxgan_compress.pruning.importance import scores
from jaxgan_compress.pruning.latency import (
  BACKENDS,
  LatencyTable,
  latency_table,
  milliseconds,
  prune_to_latency,
)
from jaxgan_compress.pruning.one_shot import PruneResult, init_student, prune
from jaxgan_compress.pruning.surgery import apply_masks, compact, expand
from jaxgan_compress.pruning.traced import SmallNetwork, TracedPruneResult, prune_traced, trace_plan
from jaxgan_compress.pruning.width_cost import Cost, cost
from jaxgan_compress.tracing.traced_plan import TracedPlan

__all__ = [
  'BACKENDS',
  'ActivationStatistics',
  'Cost',
  'GradualPruning',
  'LatencyTable',
  'PruneResult',
  'ReaderStatistics',
  'SearchResult',
  'SmallNetwork',
  'TracedPlan',
  'TracedPruneResult',
  'activation_statistics',
  'apply_masks',
  'compact',
  'cost',
  'expand',
  'init_student',
  'keep',
  'keep_means',
  'latency_table',
  'milliseconds',
  'plot_masks',
  'prune',
  'prune_to_latency',
  'prune_traced',
  'roles',
  'schedule',
  'scores',
  'search',
  'tighten',
  'trace_plan',
  'widths',
]
