"""Smaller networks from larger ones, as pure functions of parameters.

    plan = teacher.plan()
    scores = pruning.scores(plan, params)
    price = pruning.cost(teacher, plan, (1, 256, 256, 3))
    found = pruning.search(plan, scores, price, budget=2.6e9, floor=16)
    student, variables = pruning.begin(teacher, plan, variables, found.masks)

Any network with `plan` and `with_widths` can be pruned; see `nn.plans`.
"""

from jaxgan_compress.pruning.begin import begin
from jaxgan_compress.pruning.cost import Cost, cost
from jaxgan_compress.pruning.picture import picture
from jaxgan_compress.pruning.scores import scores
from jaxgan_compress.pruning.search import Pruned, keep, search, tighten, widths
from jaxgan_compress.pruning.surgery import apply_masks, compact, expand

__all__ = ['Cost', 'Pruned', 'apply_masks', 'begin', 'compact', 'cost', 'expand', 'keep', 'picture',
           'scores', 'search', 'tighten', 'widths']
