"""Stopping and going on equals not stopping; a bad disk costs at most the last checkpoint."""

import contextlib
import dataclasses
import itertools
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgan_compress as jgc
from jaxgan_compress import core, data, train
from jaxgan_compress.core import Net
from jaxgan_compress.train import checkpoint, log_files
from jaxgan_compress.train.progress import Reporter
from tests.conftest import largest_difference, small_gan, small_kd

pytestmark = pytest.mark.usefixtures('kept_programs')


@pytest.fixture(scope='module')
def gan(sgd):
  return small_gan(sgd)


def last(run):
  return list(run)[-1][0]


def shapes_of(method, batch, init_from=None):
  return jax.eval_shape(lambda: method.init(jax.random.key(0), batch, init_from))


@pytest.mark.parametrize('kind', ['gan', 'joint'])
@pytest.mark.essential
def test_n_and_n_steps_equal_2n_bit_for_bit(gan, sgd, init_from, pipeline, tmp_path, kind):
  method = gan if kind == 'gan' else small_kd(sgd, adv_weight=.5, distill_weight=.01, ema=.9)
  key = jax.random.key(5)
  whole = last(jgc.fit(method, method.init(key, pipeline[0], init_from), pipeline, steps=6,
                       every=3))
  half = last(jgc.fit(method, method.init(key, pipeline[0], init_from), pipeline, steps=3, every=3))
  with train.Checkpointer(tmp_path / 'c') as checkpointer:
    checkpointer.save(half)
  with train.Checkpointer(tmp_path / 'c') as checkpointer:
    restored = checkpointer.restore(shapes_of(method, pipeline[0], init_from))
  assert largest_difference(restored, half) == 0
  resumed = last(jgc.fit(method, restored, pipeline, steps=6, every=3))
  assert int(resumed.step) == 6
  assert largest_difference(resumed, whole) == 0
  assert largest_difference(restored.params, whole.params) > 0


def test_fit_yields_every_interval_and_the_end_and_leaves_the_callers_state(gan, pipeline):
  state = gan.init(jax.random.key(0), pipeline[0])
  steps = [logs['step'] for _, logs in jgc.fit(gan, state, pipeline, steps=5, every=2)]
  assert steps == [2, 4, 5]
  assert int(state.step) == 0 and not jax.tree.leaves(state.params)[0].is_deleted()
  assert list(jgc.fit(gan, state.replace(step=jnp.int32(5)), pipeline, steps=5)) == []


def test_fit_stops_when_asked_with_one_last_state(gan, pipeline):
  asked = itertools.count()
  state = gan.init(jax.random.key(0), pipeline[0])
  found = list(jgc.fit(gan, state, pipeline, steps=50, every=10, stop=lambda: next(asked) == 3))
  assert [logs['step'] for _, logs in found] == [3] and int(found[0][0].step) == 3


class Counting:
  """A method that counts its steps in a weight."""

  def step(self, state, batch, axes):
    net = state.nets['w']
    return state.replace(nets={'w': net.replace(params=net.params + 1)}).tick(), {
        'seen': axes.mean(batch['target'].mean())}


@pytest.fixture
def interactive():
  """Ctrl-C as in a terminal: a shell has what it starts in the background ignore it."""
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  signal.signal(signal.SIGINT, before)


def ctrl_c():
  os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize('where, newest', [
    ('step', 5), ('data', 5), ('body', 4), ('hook', 5), ('break', 4), ('nowhere', 8)])
def test_the_loop_of_the_readme_leaves_the_newest_state_however_it_ends(
    where, newest, monkeypatch, pipeline, interactive):
  build = train.loop.parallelize

  def disturbed(*args, **more):
    made = build(*args, **more)
    steps = itertools.count(1)

    def run(*args):
      found = made.compiled(*args)  # has taken what it was given, and has not returned
      if next(steps) == 5:
        ctrl_c()
      return found

    return dataclasses.replace(made, compiled=run) if where == 'step' else made

  def batches():
    for step in itertools.count():
      if where == 'data' and step == 6:  # is asked for after step 5
        ctrl_c()
      yield pipeline[step]

  monkeypatch.setattr(train.loop, 'parallelize', disturbed)
  before, started = signal.getsignal(signal.SIGINT), held(jnp.zeros(3), 0)
  state, steps = started, []
  with pytest.raises(KeyboardInterrupt) if where not in ('break', 'nowhere') else \
      contextlib.nullcontext():
    for state, logs in jgc.fit(
        Counting(), started, batches(), steps=8, every=2,
        hook=lambda _, step: ctrl_c() if where == 'hook' and step == 5 else None):
      steps.append(int(state.step))
      assert logs['step'] == steps[-1]
      if logs['step'] == 4 and where == 'break':
        break
      if logs['step'] == 4 and where == 'body':
        ctrl_c()
  assert steps == sorted({*range(2, newest + 1, 2), newest})
  assert int(state.step) == newest and state.nets['w'].params.tolist() == [newest] * 3
  assert signal.getsignal(signal.SIGINT) is before
  where = 'again'  # the cell of the notebook
  *_, (state, _) = jgc.fit(Counting(), state, batches(), steps=12)
  assert int(state.step) == 12 and state.nets['w'].params.tolist() == [12] * 3


def test_every_state_that_was_handed_out_stays_unless_memory_is_to_be_saved(pipeline):
  for copies, whole in ((True, [True] * 4), (False, [False] * 3 + [True])):
    found = list(jgc.fit(Counting(), held(jnp.zeros(3), 0), pipeline, steps=4, every=1,
                         copies=copies))
    weights = [state.nets['w'].params for state, _ in found]
    assert [not x.is_deleted() for x in weights] == whole
    assert [int(x[0]) for x in weights if not x.is_deleted()] == ([1, 2, 3, 4] if copies else [4])


def test_newest_and_best_are_kept(gan, pipeline, tmp_path):
  state = gan.init(jax.random.key(0), pipeline[0])
  with train.Checkpointer(tmp_path, keep=2, best={'fd': 'min', 'is': 'max'}) as checkpointer:
    for step, fd in enumerate([5., 1., 4., 3., 2.], 1):
      checkpointer.save(state.replace(step=jnp.int32(step)), metrics={'fd': fd, 'is': fd})
    checkpointer.wait()
    assert checkpointer.steps == [1, 2, 4, 5] and checkpointer.best_step() == 2
    assert checkpointer.best_step('is') == 1
    with pytest.raises(ValueError, match="best checkpoint by 'kid' is not kept, but by fd, is"):
      checkpointer.best_step('kid')
  with train.Checkpointer(tmp_path, keep=2, best={'fd': 'min', 'is': 'max'}) as checkpointer:
    assert checkpointer.steps == [1, 2, 4, 5] and checkpointer.best_step() == 2
    assert int(checkpointer.restore(shapes_of(gan, pipeline[0])).step) == 5


def damage_flip(folder):
  file = max((p for p in folder.rglob('*') if p.is_file()), key=lambda p: p.stat().st_size)
  content = bytearray(file.read_bytes())
  content[len(content) // 2] ^= 1
  file.write_bytes(content)


def damage_truncate(folder):
  file = max((p for p in folder.rglob('*') if p.is_file()), key=lambda p: p.stat().st_size)
  file.write_bytes(file.read_bytes()[:100])


def damage_remove(folder):
  shutil.rmtree(folder / 'state')


def damage_meta(folder):
  for file in (folder / 'meta').rglob('*'):
    if file.is_file():
      file.write_text('{')


@pytest.mark.parametrize('damage', [damage_flip, damage_truncate, damage_remove, damage_meta])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    gan, pipeline, tmp_path, caplog, damage):
  state = gan.init(jax.random.key(0), pipeline[0])
  with train.Checkpointer(tmp_path) as checkpointer:
    for step in (1, 2):
      checkpointer.save(state.replace(step=jnp.int32(step)))
  damage(tmp_path / 'step_2')
  with caplog.at_level(logging.WARNING), train.Checkpointer(tmp_path) as checkpointer:
    restored = checkpointer.restore(shapes_of(gan, pipeline[0]))
    assert int(restored.step) == 1
    assert 'checkpoint of step 2' in caplog.text and 'set aside' in caplog.text
    assert (tmp_path / 'damaged-step_2').is_dir()  # nothing is lost
    checkpointer.save(state.replace(step=jnp.int32(2)))
    checkpointer.wait()
    assert checkpointer.steps == [1, 2]
  for step in (1, 2):
    damage_flip(tmp_path / f'step_{step}')
  with train.Checkpointer(tmp_path) as checkpointer, \
       pytest.raises(train.CheckpointError, match='all checkpoints are damaged'):
    checkpointer.restore(shapes_of(gan, pipeline[0]))


def test_a_checkpoint_of_another_network_is_not_damaged_but_refused(gan, sgd, pipeline, init_from,
                                                                     tmp_path):
  with train.Checkpointer(tmp_path) as checkpointer:
    checkpointer.save(gan.init(jax.random.key(0), pipeline[0]))
    other = small_kd(sgd)
    with pytest.raises(train.CheckpointError, match='holds another state: frozen/teacher'):
      checkpointer.restore(shapes_of(other, {}, init_from))
  assert not list(tmp_path.glob('damaged-*'))


@pytest.mark.parametrize('plain', [False, True])
def test_a_checkpoint_of_an_earlier_version_is_read_under_the_names_of_today(
    tmp_path, monkeypatch, plain):
  arrays = iter(np.arange(100, dtype=np.float32).reshape(50, 2))
  norm = lambda: {} if plain else {'batch_stats': {'norm': {'mean': next(arrays)}}}
  net = lambda: core.Net({'w': next(arrays)}, ema={'w': next(arrays)}, collections=norm())
  roles = ('generator',) if plain else ('generator', 'generator_ba', 'disc_ba', 'student_ba')
  state = core.TrainState(
      np.int32(3), jax.random.key(1), {role: net() for role in roles},
      frozen={} if plain else {'best': {'generator_ba': {'score': next(arrays)}}},
      replica_state={} if plain else {'disc_ba': {'images': np.ones((1, 2, 3), np.float32)}})
  fetch = checkpoint.fetch
  with monkeypatch.context() as older, train.Checkpointer(tmp_path) as checkpointer:
    older.setattr(checkpoint, 'FORMAT', 1)
    older.setattr(checkpoint, 'fetch', lambda state: checkpoint._with_old_names(fetch(state)))
    checkpointer.save(state)
  with train.Checkpointer(tmp_path, read_only=True) as checkpointer:
    restored = checkpointer.restore(state)
  assert jax.tree.structure(restored) == jax.tree.structure(state)
  assert largest_difference(restored, state) == 0


def test_too_little_room_is_said_before_anything_is_written(gan, pipeline, tmp_path, monkeypatch):
  state = gan.init(jax.random.key(0), pipeline[0])
  with train.Checkpointer(tmp_path) as checkpointer:
    checkpointer.save(state.replace(step=jnp.int32(1)))
    checkpointer.wait()
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: shutil._ntuple_diskusage(1, 1, 0))
    with pytest.raises(train.CheckpointError, match='0 MiB are free .* goes on from step 1'):
      checkpointer.save(state.replace(step=jnp.int32(2)))
    assert checkpointer.steps == [1]


WRITES_TOO_MUCH = '''
import resource, sys
import jax, jax.numpy as jnp
from jaxgan_compress import core, train
state = core.TrainState(jnp.int32(1), jax.random.key(0), {'w': core.Net(jnp.zeros(100_000))})
with train.Checkpointer(sys.argv[1]) as checkpointer:
  checkpointer.save(state)
  checkpointer.wait()
  big = {'w': core.Net(jax.random.normal(jax.random.key(1), (4_000_000,)))}
  resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
  try:
    checkpointer.save(state.replace(step=jnp.int32(2), nets=big))
    checkpointer.wait()
  except train.CheckpointError as e:
    print('SAID', e)
print('STEPS', train.Checkpointer(sys.argv[1]).steps)
'''


def test_a_write_that_fails_is_said_and_complete_checkpoints_stay(tmp_path):
  """The file size limit of the process stands in for a full disk."""
  done = subprocess.run([sys.executable, '-c', WRITES_TOO_MUCH, str(tmp_path / 'c')],
                        capture_output=True, text=True, timeout=120, check=False)
  assert 'SAID' in done.stdout and 'goes on from step 1' in done.stdout, done.stderr[-2000:]
  assert 'STEPS [1]' in done.stdout


def test_a_term_that_is_not_finite_is_named():
  train.check_finite({'mse': 1., 'adv': -2.}, 7)
  with pytest.raises(train.TermError, match='step 7: adv = nan, grad_disc = inf'):
    train.check_finite({'mse': 1., 'adv': float('nan'), 'grad_disc': float('inf')}, 7)


def test_records_after_the_checkpoint_are_written_again_once(tmp_path):
  with log_files.Recorder(tmp_path) as recorder:
    for step in (1, 2, 3):
      recorder.write_scalars(step, {'loss': float(step)})
  with open(tmp_path / 'log.jsonl', 'a') as f:
    f.write('{"step": 4, "lo')  # killed while writing
  with log_files.Recorder(tmp_path, start=2) as recorder:
    recorder.write_scalars(3, {'loss': 30.})
  assert log_files.read_lines(tmp_path / 'log.jsonl') == [
      {'step': 1, 'loss': 1.}, {'step': 2, 'loss': 2.}, {'step': 3, 'loss': 30.}]


def test_tensorboard_reads_scalars_and_images(tmp_path):
  from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
  with log_files.Recorder(tmp_path) as recorder:
    recorder.write_scalars(5, {'loss': 2.5})
    recorder.write_images(5, {'drawings': np.zeros((4, 8, 3), np.uint8)})
  events = EventAccumulator(str(tmp_path / 'events'))
  events.Reload()
  assert [(e.step, e.value) for e in events.Scalars('loss')] == [(5, 2.5)]
  assert events.Images('drawings')[0].width == 8


def test_environment_says_what_ran():
  found = log_files.environment()
  assert found['packages']['jax'] == jax.__version__ and found['device']['count'] == 4
  json.dumps(found)


def test_plain_progress_says_compiling_speed_losses_and_time_left(capsys):
  reporter = Reporter(seconds=0)
  reporter.begin('student', 0, 40, images=8)
  reporter.compiled(1, 2.6, 3 << 29)
  for step in (1, 20, 40):
    reporter.update(step, {'student': {'loss': 1 / step, 'mse': 2.}, 'disc': {'loss': 0.},
                           'grad_norm': {'student': 3.}})
  reporter.end()
  *lines, third, last = capsys.readouterr().out.splitlines()
  assert lines == ['student: from step 0 to 40, compiling',
                   'student: compiled in 3 s; peak memory 1.5 GiB', 'student: step 1/40  student 1']
  assert re.fullmatch(
      r'student: step 20/40 [\d.]+ steps/s \d+ images/s student 0.05, 0 s left', third)
  assert 's left' not in last and '40/40' in last


def test_what_is_freed_is_kept():
  # In a process of its own: it holds until the end.
  text = ('import numpy as np, resource; from jaxgan_compress.core import xla\n'
          'faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n'
          'def touched():\n  before = faults(); np.ones(2**24).sum(); return faults() - before\n'
          'touched(); print(touched())\n'
          'print(xla.keep_memory())\n'
          'touched(); print(touched())\n')
  cold, done, warm = subprocess.run([sys.executable, '-c', text], capture_output=True, text=True,
                                    check=True).stdout.split()
  if done == 'False':
    pytest.skip('no glibc here')
  assert int(warm) < int(cold) / 4  # pages


def test_several_steps_a_call_equal_single_ones(gan, pipeline):
  start = lambda: gan.init(jax.random.key(0), pipeline[0])
  one = list(jgc.fit(gan, start(), pipeline, steps=4, every=2))
  both = list(jgc.fit(gan, start(), pipeline, steps=4, every=2, per_call=2))
  assert [logs['step'] for _, logs in both] == [2, 4]
  expected, found = (core.flatten_logs(run[-1][1]) for run in (one, both))
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
  assert largest_difference(both[-1][0].nets, one[-1][0].nets) < 1e-4
  with pytest.raises(ValueError, match='per_call=3 does not divide steps=4'):
    next(jgc.fit(gan, start(), pipeline, steps=4, every=2, per_call=3))
  with pytest.raises(ValueError, match='a hook, which takes per_call=1'):
    next(jgc.fit(gan, start(), pipeline, steps=4, every=2, per_call=2, hook=lambda *_: None))


def test_data_that_ends_too_early_is_an_error(gan, pipeline):
  state = gan.init(jax.random.key(0), pipeline[0])
  with pytest.raises(ValueError, match='the data ended at step 2 of 5'):
    list(jgc.fit(gan, state, [pipeline[0], pipeline[1]], steps=5))


def held(values, step=1):
  return core.TrainState(jnp.int32(step), jax.random.key(0), {'w': Net(jnp.asarray(values))})


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_a_state_that_is_not_finite_is_not_saved(tmp_path, bad):
  with train.Checkpointer(tmp_path) as checkpointer:
    with pytest.raises(train.TermError, match='step 1: nets/w/params is not finite'):
      checkpointer.save(held([1., bad]))
    assert checkpointer.steps == []


def test_a_checkpoint_of_other_widths_is_refused(tmp_path):
  with train.Checkpointer(tmp_path) as checkpointer:
    checkpointer.save(held(jnp.zeros(3)))
    with pytest.raises(train.CheckpointError, match=r'nets/w/params is \[3\] there and \[4\]'):
      checkpointer.restore(held(jnp.zeros(4)))
  assert not list(tmp_path.glob('damaged-*'))


class Noting:
  """A method that learns nothing and says what it sees."""

  def step(self, state, batch, axes):
    return state.tick(), {'seen': axes.mean(batch['target'].mean())}


def test_step_s_sees_batch_s_and_compiling_is_told_once():
  source = data.ArraySource(np.arange(24, dtype=np.uint8)[:, None, None, None] *
                            np.ones((1, 4, 4, 1), np.uint8))
  pipeline, told = data.Pipeline(source, batch=4), []
  state = core.TrainState(jnp.int32(0), jax.random.key(0), {'w': Net(jnp.zeros(1))})
  for start in (0, 2):
    logs = [float(logs['seen']) for _, logs in jgc.fit(
        Noting(), state.replace(step=jnp.int32(start)), pipeline, steps=4, every=1,
        compiled=told.append)]
    np.testing.assert_allclose(logs, [
        core.normalise(pipeline[step])['target'].mean() for step in range(start, 4)], rtol=1e-6)
  assert len(told) == 2


def test_time_left_is_that_of_the_steps_to_come(capsys, monkeypatch):
  now = [0.]
  monkeypatch.setattr('time.monotonic', lambda: now[0])
  reporter = Reporter(seconds=0)
  reporter.begin('student', 0, 41, images=8)
  reporter.compiled(1, 2.6, 3 << 29)
  now[0] = 5.
  reporter.update(11, {'student': {'loss': 1.}})
  assert '2.0 steps/s 16 images/s student 1, 15 s left' in capsys.readouterr().out
