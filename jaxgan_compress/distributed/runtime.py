"""How a process joins the others of a job, and leaves it so that none waits in vain."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxgan_compress.distributed.stop import AGAIN

log = logging.getLogger(__name__)

FAILED = 70  # exit code: a peer or the runtime failed, the last checkpoint is good
HEARTBEAT = 60  # seconds: longer than a host may stall, shorter than the default 100


@dataclasses.dataclass(frozen=True)
class Host:
  """One process of a job: its index, the number of processes, its devices and those of all."""
  index: int
  count: int
  local_devices: int
  devices: int


def initialize(environment: Mapping[str, str] = os.environ) -> Host:
  """Joins the other processes that a launcher started; a process that is alone does nothing.

  Call it before anything touches a device. The first of these that is set decides:

  JAXGAN_COORDINATOR=host:port, JAXGAN_PROCESSES, JAXGAN_PROCESS: as `launch/local.py` sets them.
  JAXGAN_DISTRIBUTED=auto: JAX finds its peers (TPU pods, Kubernetes); =off: alone.
  A Slurm step or Open MPI of several tasks, a TPU slice of several hosts: found by JAX.

  JAXGAN_HEARTBEAT gives the seconds until a silent peer is taken for dead, by default 60.

  Raises ValueError for variables that contradict each other, and JAX's error if a peer is missing.
  """
  options = _arguments(environment)
  if options is not None:
    jax.distributed.initialize(
        **options, initialization_timeout=300, shutdown_timeout_seconds=60,
        heartbeat_timeout_seconds=int(environment.get('JAXGAN_HEARTBEAT', HEARTBEAT)))
  process = host()
  if process.count > 1:
    log.info('process %d of %d, %d of %d devices', process.index, process.count,
             process.local_devices, process.devices)
  return process


def host() -> Host:
  """This process."""
  return Host(jax.process_index(), jax.process_count(), jax.local_device_count(),
              jax.device_count())


def is_main() -> bool:
  """Whether this process is the one that writes."""
  return jax.process_index() == 0


def barrier(name: str):
  """Waits until every process calls this. Raises AssertionError if another waits elsewhere."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def by_main(action: Callable[[], object], name: str):
  """Calls `action()` in the process that writes, while the others wait for it."""
  if is_main():
    action()
  barrier(name)


def from_main(value: int) -> int:
  """The value that the process which writes gives; those of the others are ignored."""
  if jax.process_count() == 1:
    return value
  return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def assert_same(numbers: Mapping[str, int], what: str):
  """Raises RuntimeError that names what differs between processes: {name: uint32}."""
  if jax.process_count() == 1:
    return
  every = np.asarray(multihost_utils.process_allgather(
      np.array(list(numbers.values()), np.uint32)))
  bad = [name for i, name in enumerate(numbers) if (every[:, i] != every[0, i]).any()]
  if bad:
    raise RuntimeError(f'{what} differs between processes in {len(bad)} of {len(numbers)} arrays, '
                       f'first in {bad[0]}; the hosts see other data or other code')


def expect(devices: int | None):
  """Raises ValueError, with the arithmetic, unless there are so many devices altogether."""
  process = host()
  if devices is None or devices == process.devices:
    return
  hint = ''
  if process.devices < devices and not devices % process.count:
    hint = (f'; of each process {devices // process.count} were expected. Under Slurm or Open MPI '
            'a process takes one GPU unless it is the only task of its node: start one task a GPU, '
            'or set JAX_LOCAL_DEVICE_IDS=0,1,...')
  raise ValueError(
      f'{devices} devices were expected and {process.devices} are here: {process.count} processes '
      f'x {process.local_devices} of {jax.devices()[0].platform}{hint}')


def from_runtime(error: Exception) -> bool:
  """Whether an error is of JAX's runtime, as when a peer is gone; some are plain ValueErrors."""
  return isinstance(error, jax.errors.JaxRuntimeError) or bool(re.match(
      '(UNKNOWN|UNAVAILABLE|INTERNAL|ABORTED|CANCELLED|DEADLINE_EXCEEDED|FAILED_PRECONDITION): ',
      str(error)))


def finish(code: int) -> int:
  """Leaves the job and returns the exit code. Among several processes one that failed ends at once,
  since its peers, and JAX's own clean-up, would wait for a heartbeat."""
  if jax.distributed.is_initialized():
    if code in (0, AGAIN):
      jax.distributed.shutdown()
    else:
      sys.stdout.flush()
      sys.stderr.flush()
      os._exit(code)
  return code


def _arguments(environment: Mapping[str, str]) -> dict[str, Any] | None:
  """Arguments of `jax.distributed.initialize`, or None for a process that is alone."""
  names = ('JAXGAN_COORDINATOR', 'JAXGAN_PROCESSES', 'JAXGAN_PROCESS')
  values = {name: environment[name] for name in names if environment.get(name)}
  if values:
    if missing := [name for name in names if name not in values]:
      raise ValueError(f'{", ".join(missing)} is not set and others of JAXGAN_COORDINATOR, '
                       'JAXGAN_PROCESSES and JAXGAN_PROCESS are; a launcher sets all three')
    return _of_launcher(*values.values())
  mode = environment.get('JAXGAN_DISTRIBUTED', '')
  if mode not in ('', 'auto', 'off'):
    raise ValueError(f'JAXGAN_DISTRIBUTED={mode!r}; auto, off, or not set')
  slurm = int(environment.get('SLURM_NTASKS', 1)) if 'SLURM_STEP_NODELIST' in environment else 1
  tasks = max(slurm, int(environment.get('OMPI_COMM_WORLD_SIZE', 1)),
              len(environment.get('TPU_WORKER_HOSTNAMES', '').split(',')))
  if mode == 'off' or (mode != 'auto' and tasks == 1):
    return None
  gpus = environment.get('SLURM_GPUS_ON_NODE')
  alone = re.match(r'1(\(|$|,)', environment.get('SLURM_STEP_TASKS_PER_NODE', ''))
  if slurm > 1 and alone and gpus and 'JAX_LOCAL_DEVICE_IDS' not in environment:
    # The only task of its node takes all GPUs there; JAX would give it the first.
    return {'local_device_ids': list(range(int(gpus)))}
  return {}


def _of_launcher(address: str, processes: str, process: str) -> dict[str, Any]:
  if not re.fullmatch(r'\S+:\d+', address):
    raise ValueError(f'JAXGAN_COORDINATOR={address!r}; a host and a port, as 127.0.0.1:8476')
  for name, text in (('JAXGAN_PROCESSES', processes), ('JAXGAN_PROCESS', process)):
    if not text.isdecimal():
      raise ValueError(f'{name}={text!r}; a number')
  count, index = int(processes), int(process)
  if not 0 <= index < count:
    raise ValueError(f'JAXGAN_PROCESS={index} of JAXGAN_PROCESSES={count}; 0 to {count - 1}')
  loopback = address.startswith(('127.0.0.1:', 'localhost:'))
  return {'coordinator_address': address, 'num_processes': count, 'process_id': index,
          'cluster_detection_method': 'deactivate',
          # Nobody outside may speak to a job that runs on this host alone.
          **({'coordinator_bind_address': address} if loopback and index == 0 else {})}
