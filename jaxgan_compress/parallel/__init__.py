"""Devices: the names a step uses for its peers, the mesh, and the mapped step.

Nothing outside this package knows how many devices there are.
"""

from jaxgan_compress.core import Axes
from jaxgan_compress.parallel.batch_map import RowMap
from jaxgan_compress.parallel.mesh import build_mesh, fetch, local, put_state, spread
from jaxgan_compress.parallel.train_step import VIAS, ParallelStep, lower_step, parallelize

__all__ = ['VIAS', 'Axes', 'ParallelStep', 'RowMap', 'build_mesh', 'fetch', 'local',
           'lower_step', 'parallelize', 'put_state', 'spread']
