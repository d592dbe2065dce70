"""States on disk; no other module knows Orbax."""

from __future__ import annotations

import contextlib
import logging
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from jaxgan_compress import distributed
from jaxgan_compress.core import Net, TrainState, paths
from jaxgan_compress.parallel import fetch
from jaxgan_compress.train.loop import TermError

log = logging.getLogger(__name__)


FORMAT = 2  # of the names inside a checkpoint


class CheckpointError(RuntimeError):
  """A checkpoint could not be written or none could be read."""


class Checkpointer:
  """The newest `keep` checkpoints of one training stage and the best ones.

  directory: its folder, made when the first checkpoint is saved.
  best: `{metric: 'min' | 'max'}`: the best checkpoint by each is kept too; the best without a name
    is that by the first. Only checkpoints saved with metrics compete.

  read_only: nothing is made, saved or set aside, so that a run which is still training can be
    looked at.

  Saving is atomic and goes on in the background; each leaf carries a CRC-32, since storage does
  not notice a flipped byte. What is on disk does not depend on the devices that wrote it: of
  several processes, which share the folder, one writes, and `save` and `restore` are called by all
  alike. Use as a context manager, or call `close`.
  """

  def __init__(self, directory: str | Path, *, keep: int = 2,
               best: Mapping[str, str] | None = None, read_only: bool = False):
    self.directory = paths.expand(directory).absolute()
    self._keep, self._best = keep, dict(best or {})
    self._read_only = read_only or not distributed.is_main()
    self._manager = self._open()

  def __enter__(self):
    return self

  def __exit__(self, kind, *_):
    # An error on its way out says more than a failed save that it probably caused.
    with contextlib.suppress(CheckpointError) if kind else contextlib.nullcontext():
      self.close()

  def close(self):
    """Waits for what is being written."""
    with self._explained('finish writing'):
      self._manager.wait_until_finished()
      self._manager.close()

  def save(self, state: TrainState, *, config: Mapping[str, Any] | None = None,
           metrics: Mapping[str, float] | None = None):
    """Writes the state, with its config and metrics.

    Returns when the values are copied. Raises CheckpointError if this or the save before it
    failed, or if the disk has too little room, TermError if the state is not finite, and
    RuntimeError if processes hold different ones. Complete checkpoints are never touched by a
    failure.
    """
    step = int(state.step)
    host = fetch(state)
    for name, x in _named(host):
      if jnp.issubdtype(x.dtype, jnp.inexact) and not np.isfinite(x).all():
        raise TermError(f'step {step}: {name} is not finite')
    described = _described(host)
    distributed.assert_same({name: leaf['crc32'] for name, leaf in described.items()},
                            f'the state of step {step}')
    if self._read_only:
      return
    size = sum(x.nbytes for x in jax.tree.leaves(host))
    free = shutil.disk_usage(_existing(self.directory)).free
    if free < 1.1 * size + 2 ** 20:
      raise CheckpointError(
          f'{self.directory}: {free / 2 ** 20:.0f} MiB are free and the checkpoint of step {step} '
          f'takes {size / 2 ** 20:.0f} MiB; make room and run again, which goes on from '
          f'{self._latest_in_words()}')
    with self._explained(f'save step {step}'):
      self._manager.wait_until_finished()
      self._manager.save(step, args=ocp.args.Composite(
          state=ocp.args.PyTreeSave(host),
          meta=ocp.args.JsonSave({
              'format': FORMAT, 'leaves': described, 'config': dict(config or {})})),
          metrics=dict(metrics) if metrics else None)

  def wait(self):
    """Returns when everything saved is on disk; raises CheckpointError if it could not be."""
    with self._explained('finish writing'):
      self._manager.wait_until_finished()
    distributed.barrier(f'{self.directory} is written')

  @property
  def steps(self) -> list[int]:
    """Steps with a complete checkpoint."""
    return sorted(self._manager.all_steps()) if self.directory.is_dir() else []

  def best_step(self, metric: str | None = None) -> int | None:
    """The step with the best `metric` (default: the first), None if no checkpoint has one.

    Raises ValueError for a metric whose best is not kept.
    """
    if metric is not None and metric not in self._best:
      raise ValueError(f'the best checkpoint by {metric!r} is not kept, but by '
                       f'{", ".join(self._best) or "nothing"}; see evaluate.best')
    metric = metric or next(iter(self._best), '')
    values = {step: (self._manager.metrics(step) or {}).get(metric) for step in self.steps}
    ranked = [(value, step) for step, value in values.items() if value is not None]
    choose = min if self._best.get(metric) == 'min' else max
    return choose(ranked, key=lambda pair: pair[0])[1] if ranked else None

  def restore(self, template: TrainState, step: int | None = None) -> TrainState | None:
    """The state of `step`, or of the newest intact checkpoint, as host arrays; None if none is.

    template: a state, or its shapes by `jax.eval_shape`; its `replica_state` may be of another
    number of replicas than was stored, which `parallel.spread` decides on. A damaged checkpoint is
    named in a warning and set aside as `damaged-...`, and the newest before it is used. So it goes
    with a `step`, too: then the others, newest first, come after it.

    Of several processes the one that writes chooses, and the others read the same. Raises
    CheckpointError if checkpoints are there and none is intact, or if the checkpoint is of
    another network.
    """
    restored = self._newest(template, step) if distributed.is_main() else None
    chosen = distributed.from_main(-1 if restored is None else int(restored.step))
    if distributed.is_main() or chosen < 0:
      return restored
    try:
      return self._read(template, chosen)
    except _Damaged as e:
      raise CheckpointError(f'{self.directory}: process {jax.process_index()} cannot read step '
                            f'{chosen}, which process 0 can ({e}); all need the same folder') from e

  def _newest(self, template, step):
    steps = self.steps
    # Newest first, but before all others the one asked for.
    for candidate in sorted(steps, key=lambda other: (other == step, other), reverse=True):
      try:
        return self._read(template, candidate)
      except _Damaged as e:
        log.warning('checkpoint of step %d in %s is damaged (%s); %s', candidate, self.directory,
                    e, 'it is passed over' if self._read_only else 'it is set aside')
        if not self._read_only:
          self._set_aside(candidate)
    if steps:
      raise CheckpointError(f'{self.directory}: all checkpoints are damaged (steps '
                            f'{", ".join(map(str, steps))}); nothing was deleted')
    return None

  def _read(self, template, step):
    plain = _plain(template)
    with _damaged_unless_read():
      meta = self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))
      leaves, old = meta['meta']['leaves'], meta['meta'].get('format', 1) < FORMAT
    plain = plain.replace(replica_state=_of_stored_replicas(plain.replica_state, leaves))
    if old:
      plain = _with_old_names(plain)
    wanted = {name: list(x.shape) for name, x in _named(plain)}
    stored = {name: leaf['shape'] for name, leaf in leaves.items()}
    if wanted != stored:
      raise CheckpointError(f'{self.directory} step {step} holds another state: '
                            f'{_difference(wanted, stored)}')
    with _damaged_unless_read():
      args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), plain)
      host = self._manager.restore(step, args=ocp.args.Composite(
          state=ocp.args.PyTreeRestore(plain, restore_args=args)))['state']
    for name, leaf in _described(host).items():
      if leaf != leaves[name]:
        raise _Damaged(f'{name} is not what was written')
    host = _with_new_names(host) if old else host
    return host.replace(rng=jax.random.wrap_key_data(host.rng))

  def _open(self):
    alone = jax.process_index()
    if not self._read_only:
      self.directory.mkdir(parents=True, exist_ok=True)
    policies: list[Any] = [checkpoint_managers.LatestN(self._keep)]
    options = {}
    for metric, mode in self._best.items():
      read = lambda metrics, metric=metric: metrics[metric]
      options = options or {'best_fn': read, 'best_mode': mode}  # without it none would be stored
      # The classic max_to_keep with best_fn would delete the newest checkpoint.
      policies.append(checkpoint_managers.BestN(
          get_metric_fn=read, reverse=mode == 'min', n=1, keep_checkpoints_without_metrics=False))
    return _Manager(self.directory, options=ocp.CheckpointManagerOptions(
        # Others may be elsewhere: this process waits for nobody inside Orbax.
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            primary_host=alone, active_processes={alone}, barrier_sync_key_prefix=f'of_{alone}'),
        preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
        save_decision_policy=checkpoint_managers.FixedIntervalPolicy(1),
        step_prefix='step', read_only=self._read_only, create=False, **options))

  def _set_aside(self, step):
    self._manager.close()
    aside = self.directory / f'damaged-step_{step}'
    while aside.exists():
      aside = aside.with_name(aside.name + '+')
    (self.directory / f'step_{step}').rename(aside)
    self._manager = self._open()

  def _latest_in_words(self):
    return f'step {self.steps[-1]}' if self.steps else 'the start'

  @contextlib.contextmanager
  def _explained(self, doing):
    try:
      yield
    except (OSError, ValueError, RuntimeError) as e:
      raise CheckpointError(
          f'{self.directory}: could not {doing}: {_first_line(e)}; the run goes on from '
          f'{self._latest_in_words()} when it is started again') from e


class _Manager(ocp.CheckpointManager):
  """Orbax's, which would ask about preemption by itself and upset the count of `StopSignal`."""

  def reached_preemption(self, step: int) -> bool:
    return False


class _Damaged(Exception):  # noqa: N818
  """A checkpoint that cannot be read back as it was written."""


@contextlib.contextmanager
def _damaged_unless_read():
  try:
    yield
  except (MemoryError, PermissionError, InterruptedError, TimeoutError):
    raise  # trouble of this process or machine, which says nothing about the file
  except Exception as e:
    raise _Damaged(_first_line(e)) from e


def _plain(state):
  """The state with its key as integers."""
  rng = state.rng
  if jnp.issubdtype(rng.dtype, jax.dtypes.prng_key):
    rng = jax.eval_shape(jax.random.key_data, rng) if isinstance(rng, jax.ShapeDtypeStruct) \
        else jax.random.key_data(rng)
  return state.replace(rng=rng)


def _named(tree):
  return [(jax.tree_util.keystr(path, simple=True, separator='/'), leaf)
          for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def _of_stored_replicas(replica_state, leaves):
  def resized(path, x):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    role, _, rest = name.partition('/')
    stored = leaves.get(f'replica_state/{name}') or leaves.get(
        f'memory/{_OLD.get(role, role)}/{rest}')
    shape = tuple(stored['shape']) if stored else x.shape
    return jax.ShapeDtypeStruct(shape, x.dtype) if shape[1:] == tuple(x.shape[1:]) else x

  return jax.tree_util.tree_map_with_path(resized, replica_state)


# What earlier versions called the roles of unpaired translation in checkpoints, which are still
# read.
_OLD = {'generator_ba': 'back', 'student_ba': 'student_back', 'disc_ba': 'disc_back',
        'student_ba_adapters': 'student_back_adapters'}


def _renamed(tree, names) -> Any:
  return {names.get(key, key): value for key, value in tree.items()} \
      if isinstance(tree, dict) else tree


def _with_old_names(state):
  frozen = {key: _renamed(value, _OLD) if key == 'best' else value
            for key, value in state.frozen.items()}
  nets = {role: {'params': net.params, 'opt_state': net.opt_state, 'stats': net.collections,
                 'ema': net.ema} for role, net in state.nets.items()}
  return {'step': state.step, 'rng': state.rng, 'nets': _renamed(nets, _OLD), 'frozen': frozen,
          'memory': _renamed(state.replica_state, _OLD)}


def _with_new_names(stored):
  new = {old: role for role, old in _OLD.items()}
  frozen = {key: _renamed(value, new) if key == 'best' else value
            for key, value in stored['frozen'].items()}
  nets = {role: Net(net['params'], net['opt_state'], net['stats'], net['ema'])
          for role, net in _renamed(stored['nets'], new).items()}
  return TrainState(stored['step'], stored['rng'], nets, frozen, _renamed(stored['memory'], new))


def _described(host):
  return {name: {'shape': list(x.shape), 'dtype': str(x.dtype),
                 'crc32': zlib.crc32(np.ascontiguousarray(x).view(np.uint8).data)}
          for name, x in _named(host)}


def _difference(wanted, stored):
  name = min(name for name in wanted.keys() | stored.keys()
             if wanted.get(name) != stored.get(name))
  return (f'{name} is {stored.get(name, "absent")} there and {wanted.get(name, "absent")} in this '
          'run')


def _existing(path):
  while not path.exists():
    path = path.parent
  return path


def _first_line(e):
  return (str(e).strip().splitlines() or [type(e).__name__])[0][:300]
