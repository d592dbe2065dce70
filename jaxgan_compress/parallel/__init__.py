"""Devices: the names a step uses for its peers, the mesh, and the mapped step.

Nothing outside this package knows how many devices there are.
"""

from jaxgan_compress.axes import Axes
from jaxgan_compress.parallel.check import replica_disagreement
from jaxgan_compress.parallel.mesh import build_mesh, put_state, spread
from jaxgan_compress.parallel.transform import VIAS, ParallelStep, parallelize

__all__ = ['VIAS', 'Axes', 'ParallelStep', 'build_mesh', 'parallelize', 'put_state',
           'replica_disagreement', 'spread']
