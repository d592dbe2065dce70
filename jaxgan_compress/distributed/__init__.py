"""Several processes as one run: who they are, how they wait for each other, stop and fail.

Knows no network and no method. JAX's distributed runtime does the work; with a single process
every function here does nothing.
"""

from jaxgan_compress.distributed.bucket import folder
from jaxgan_compress.distributed.runtime import (
    FAILED,
    Host,
    assert_same,
    barrier,
    by_main,
    expect,
    finish,
    from_main,
    from_runtime,
    host,
    initialize,
    is_main,
)
from jaxgan_compress.distributed.stop import AGAIN, StopSignal

__all__ = ['AGAIN', 'FAILED', 'Host', 'StopSignal', 'assert_same', 'barrier', 'by_main', 'expect',
           'finish', 'folder', 'from_main', 'from_runtime', 'host', 'initialize', 'is_main']
