"""The loop and what survives it: checkpoints, records, signals. Knows no method."""

from jaxgan_compress.train.checkpoint import Checkpointer, CheckpointError
from jaxgan_compress.train.loop import TermError, check_finite, fit
from jaxgan_compress.train.loss_monitor import Terms

__all__ = ['CheckpointError', 'Checkpointer', 'TermError', 'Terms', 'check_finite', 'fit']
