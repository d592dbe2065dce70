"""The training loop, checkpoints, log files, progress, learning rates and the monitor of losses.

Nothing here knows a method. Signals that stop a run are in `distributed.stop`.
"""

from jaxgan_compress.train.checkpoint import Checkpointer, CheckpointError
from jaxgan_compress.train.loop import TermError, check_finite, fit
from jaxgan_compress.train.loss_monitor import Terms

__all__ = ['CheckpointError', 'Checkpointer', 'TermError', 'Terms', 'check_finite', 'fit']
