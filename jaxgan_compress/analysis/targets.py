"""Machines that programs are compiled for without being there: TPUs and NVIDIA GPUs."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import platform as host
import re

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh


@dataclasses.dataclass(frozen=True)
class Chip:
  """One kind of chip, by its maker's figures.

  code: XLA's name of the generation. memory: bytes. flops: floating point operations a second in
  bfloat16, dense. clock: cycles a second of the unit that multiplies, where it is known.
  """
  code: str
  memory: float
  flops: float
  clock: float | None = None


# cloud.google.com/tpu/docs lists memory and peak; a v5e multiplies four times 128 x 128 numbers a
# cycle, a v5p eight times, which gives their clocks.
TPUS = {'v5e': Chip('v5e', 16 * 2**30, 197e12, 197e12 / (4 * 2 * 128**2)),
        'v5p': Chip('v5', 95 * 2**30, 459e12, 459e12 / (8 * 2 * 128**2)),
        'v6e': Chip('v6e', 32 * 2**30, 918e12)}
# NVIDIA's data sheets, SXM modules.
GPUS = {'h100': Chip('sm_90', 84_978_434_048, 989e12),
        'a100': Chip('sm_80', 84_987_740_160, 312e12)}

# What XLA's compiler for CUDA asks of a device (`GpuTargetConfigProto`).
_GPU_CONFIG = '''
gpu_device_info {{ threads_per_block_limit: 1024 threads_per_warp: 32
  shared_memory_per_block: 49152 shared_memory_per_core: {shared} threads_per_core_limit: 2048
  core_count: {cores} fpus_per_core: {units} block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: {bandwidth}
  l2_cache_size: {cache} clock_rate_ghz: {clock} device_memory_size: {memory}
  shared_memory_per_block_optin: {optin}
  cuda_compute_capability {{ major: {major} minor: 0 }}
  registers_per_core_limit: 65536 registers_per_block_limit: 65536 }}
platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 10 }}
runtime_version {{ major: 13 minor: 0 }} device_description_str: "{name}"
'''
_GPU_FIGURES = {
    'h100': dict(shared=233472, cores=132, units=128, bandwidth=3352320000000, cache=52428800,
                 clock=1.98, optin=232448, major=9, name='NVIDIA H100 80GB HBM3'),
    'a100': dict(shared=167936, cores=108, units=64, bandwidth=2039000000000, cache=41943040,
                 clock=1.41, optin=166912, major=8, name='NVIDIA A100-SXM4-80GB')}
# What libtpu asks its environment, where it would ask Google's servers for it.
_LIBTPU = {'TPU_SKIP_MDS_QUERY': '1', 'TPU_ACCELERATOR_TYPE': 'v5litepod-4',
           'TPU_WORKER_HOSTNAMES': 'localhost', 'TPU_WORKER_ID': '0',
           'ALLOW_MULTIPLE_LIBTPU_LOAD': '1'}  # several processes may compile at once


@dataclasses.dataclass(frozen=True)
class Target:
  """A machine to compile for.

  name: as it was asked for, as 'tpu:v5e:2x2'. platform: 'tpu' or 'gpu'. topology: how the chips of
  a TPU are connected, as '2x2'.
  """
  name: str
  platform: str
  chip: Chip
  topology: str

  @property
  def devices(self) -> list:
    """Descriptions of its devices: programs can be lowered and compiled for them, not run.

    Raises ImportError where the compiler is not installed, ValueError for a topology that the
    compiler does not know.
    """
    return (_tpus if self.platform == 'tpu' else _gpus)(self)

  def mesh(self, devices: int | None = None) -> Mesh:
    """A mesh of its first `devices` devices (default: all) with the one axis 'data'.

    Raises ValueError where it has fewer, and as `devices` does.
    """
    found = self.devices
    if devices is not None and not 1 <= devices <= len(found):
      raise ValueError(f'{self.name} has {len(found)} devices and {devices} were asked for')
    return Mesh(np.array(found[:devices]), ('data',))


def parse_target(name: str) -> Target:
  """The machine of a name: 'tpu:v5e:2x2', 'tpu:v5p:2x2x2', 'gpu:h100'.

  Raises ValueError for a platform, a chip or a topology that does not exist.
  """
  platform, _, rest = name.partition(':')
  kind, _, topology = rest.partition(':')
  if platform not in ('tpu', 'gpu'):
    raise ValueError(f'target {name!r} is for no platform that programs are compiled for without '
                     f'the machine; {_examples()}')
  chips = TPUS if platform == 'tpu' else GPUS
  if kind not in chips:
    raise ValueError(f'target {name!r} has no known chip; {_examples()}')
  if platform == 'gpu':
    if topology:
      raise ValueError(f'target {name!r}: a GPU is compiled for alone; give gpu:{kind}')
    return Target(name, platform, chips[kind], '')
  sides = 3 if kind == 'v5p' else 2
  if not re.fullmatch('x'.join([r'[1-9]\d*'] * sides), topology):
    raise ValueError(f'target {name!r} does not say how its chips are connected; the chips of a '
                     f'{kind} form a grid of {sides} sides, as in tpu:{kind}:'
                     f'{"x".join("2" * sides)}')
  return Target(name, platform, chips[kind], topology)


def _examples() -> str:
  return (f'targets are tpu:CHIP:TOPOLOGY with {", ".join(TPUS)}, as in tpu:v5e:2x2, and gpu:CHIP '
          f'with {", ".join(GPUS)}')


def _tpus(target: Target) -> list:
  if importlib.util.find_spec('libtpu') is None:
    where = '' if host.system() == 'Linux' and host.machine() == 'x86_64' else \
        f'; it exists for Linux on x86-64, and this is {host.system()} on {host.machine()}'
    raise ImportError("compiling for TPUs needs their compiler, libtpu: pip install "
                      f"'jaxgan-compress[tpu]'{where}")
  for key, value in _LIBTPU.items():
    os.environ.setdefault(key, value)
  try:
    return list(topologies.get_topology_desc(
        platform='tpu', topology_name=f'{target.chip.code}:{target.topology}').devices)
  except jax.errors.JaxRuntimeError as error:
    raise ValueError(f'the compiler of TPUs knows no topology {target.topology} of these chips: '
                     f'{_first_line(error)}') from None


def _gpus(target: Target) -> list:
  name = target.name.partition(':')[2]
  config = _GPU_CONFIG.format(**_GPU_FIGURES[name], memory=target.chip.memory)
  try:
    return list(topologies.get_topology_desc(
        platform='cuda', target_config=config, topology='1x1x1').devices)
  except (RuntimeError, NotImplementedError, jax.errors.JaxRuntimeError) as error:
    raise ImportError("compiling for NVIDIA's GPUs needs the plugin of their compiler: pip install "
                      f"'jaxgan-compress[cuda13]' ({_first_line(error)})") from None


def _first_line(error: Exception) -> str:
  return str(error).partition('\n')[0]
