"""Several processes are one run: equal to one, killed and started again, told to stop."""

import importlib.util
import json
import os
import signal
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxgan_compress import distributed, experiment
from tests import forked
from tests.conftest import largest_difference, quick

ROOT = Path(__file__).parents[1]
STEPS = 40

spec = importlib.util.spec_from_file_location('local', ROOT / 'launch' / 'local.py')
local = importlib.util.module_from_spec(spec)
spec.loader.exec_module(local)


class Job:
  """So many processes that train `tests/tiny_run.py` in a folder, or each in one of several."""

  def __init__(self, workdir, count, devices=1, *flags):
    port, self.workdir, self.processes = local.free_port(), workdir, []
    folders = workdir if isinstance(workdir, list) else [workdir] * count
    self.began = self.step()
    for i in range(count):
      environment = quick(devices)
      if count > 1:
        environment |= {'JAXGAN_COORDINATOR': f'127.0.0.1:{port}', 'JAXGAN_PROCESSES': str(count),
                        'JAXGAN_PROCESS': str(i)}
      self.processes.append(forked.Process('jaxgan_compress.cli.main', [[
          'train', f'--workdir={folders[i]}', f'--config=tests/tiny_run.py:steps={STEPS}', *flags,
      ]], environment, ROOT))

  def step(self):
    """How far the log has gone, if this is about one folder."""
    log = None if isinstance(self.workdir, list) else self.workdir / 'gan' / 'log.jsonl'
    lines = log.read_text().splitlines() if log and log.is_file() else []
    return json.loads(lines[-1])['step'] if lines and lines[-1].endswith('}') else 0

  def reach(self, step):
    """Waits until the log has gone that far, and farther than it was."""
    until = time.monotonic() + 180
    while time.monotonic() < until:
      if self.step() >= max(step, self.began + 1):
        return
      assert None in [process.poll() for process in self.processes], self.end()
      time.sleep(0.02)
    raise TimeoutError(f'step {step} was not reached')

  def end(self):
    """[(exit code, what it said)]"""
    return [(process.wait(240), process.said()) for process in self.processes]


def final(workdir):
  return experiment.open_run(workdir).stages['gan'].state()


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """The state that two undisturbed processes come to."""
  workdir = tmp_path_factory.mktemp('whole') / 'run'
  assert [code for code, _ in Job(workdir, 2).end()] == [0, 0]
  return workdir


def test_two_processes_equal_one_with_two_devices_bit_for_bit(whole, tmp_path):
  (code, said), = Job(tmp_path / 'run', 1, 2).end()
  assert code == 0, said
  assert largest_difference(final(tmp_path / 'run'), final(whole)) == 0


def test_killed_and_stopped_processes_go_on_as_if_nothing_had_been(whole, tmp_path):
  workdir = tmp_path / 'run'
  for victim, step in ((1, 6), (0, 16)):  # 0 is the coordinator
    job = Job(workdir, 2)
    job.reach(step)
    job.processes[victim].kill()
    began = time.monotonic()
    code, said = job.end()[1 - victim]
    # A second or two, more on a busy machine; the heartbeat is 60 s.
    assert time.monotonic() - began < 20
    assert local.verdict([code]) == 'failed', said
  job = Job(workdir, 2)
  job.reach(26)
  job.processes[1].send_signal(signal.SIGTERM)
  ends = job.end()
  assert [code for code, _ in ends] == [distributed.AGAIN] * 2, ends
  stopped = int(final(workdir).step)
  assert 26 <= stopped < STEPS and all(f'step {stopped} of {STEPS} is saved' in said
                                       for _, said in ends)
  # On one process and one device, both replicas there, and then again on two processes.
  for count, until in ((1, stopped + 4), (2, STEPS)):
    job = Job(workdir, count, 1, '--config.replicas=2')
    if until < STEPS:
      job.reach(until)
      job.processes[0].send_signal(signal.SIGTERM)
    assert [code for code, _ in job.end()] == [distributed.AGAIN if until < STEPS else 0] * count
  assert largest_difference(final(workdir), final(whole)) < 1e-6
  steps = [json.loads(line)['step']
           for line in (workdir / 'gan' / 'log.jsonl').read_text().splitlines()]
  assert steps == list(range(1, STEPS + 1))


def test_a_finished_run_started_again_ends_well_and_trains_nothing(whole):
  log = (whole / 'gan' / 'log.jsonl').read_text()
  kept = sorted((whole / 'gan' / 'checkpoints').iterdir())
  for code, said in Job(whole, 2).end():
    assert code == 0 and 'compiling' not in said, said
  assert (whole / 'gan' / 'log.jsonl').read_text() == log
  assert sorted((whole / 'gan' / 'checkpoints').iterdir()) == kept


def test_hosts_that_see_other_folders_are_told(whole, tmp_path):
  """Also where an older run of the same config lies in the other."""
  _, (code, said) = Job([tmp_path / 'run', whole], 2).end()
  assert code == 2 and 'process 1 does not see what process 0 wrote to' in said, said
  assert 'a folder that all hosts share' in said


@pytest.mark.parametrize(('environment', 'expected'), [
    ({}, None),
    ({'JAXGAN_COORDINATOR': '127.0.0.1:5', 'JAXGAN_PROCESSES': '2', 'JAXGAN_PROCESS': '0'},
     {'coordinator_address': '127.0.0.1:5', 'num_processes': 2, 'process_id': 0,
      'cluster_detection_method': 'deactivate', 'coordinator_bind_address': '127.0.0.1:5'}),
    ({'JAXGAN_COORDINATOR': 'node7:5', 'JAXGAN_PROCESSES': '2', 'JAXGAN_PROCESS': '1'},
     {'coordinator_address': 'node7:5', 'num_processes': 2, 'process_id': 1,
      'cluster_detection_method': 'deactivate'}),
    ({'JAXGAN_DISTRIBUTED': 'auto'}, {}),
    ({'SLURM_NTASKS': '4', 'SLURM_STEP_NODELIST': 'n[1-4]', 'SLURM_STEP_TASKS_PER_NODE': '1(x4)',
      'SLURM_GPUS_ON_NODE': '2'}, {'local_device_ids': [0, 1]}),
    ({'SLURM_NTASKS': '8', 'SLURM_STEP_NODELIST': 'n[1-2]', 'SLURM_STEP_TASKS_PER_NODE': '4(x2)',
      'SLURM_GPUS_ON_NODE': '4'}, {}),
    ({'SLURM_NTASKS': '4'}, None),  # the batch script itself, outside srun
    ({'SLURM_NTASKS': '4', 'SLURM_STEP_NODELIST': 'n[1-4]', 'JAXGAN_DISTRIBUTED': 'off'}, None),
    ({'OMPI_COMM_WORLD_SIZE': '2'}, {}),
    ({'TPU_WORKER_HOSTNAMES': 't0,t1'}, {}),
    ({'TPU_WORKER_HOSTNAMES': 'localhost'}, None)])
def test_who_the_peers_are(environment, expected):
  assert distributed.runtime._arguments(environment) == expected


@pytest.mark.parametrize(('environment', 'message'), [
    ({'JAXGAN_COORDINATOR': '127.0.0.1:5'}, 'JAXGAN_PROCESSES, JAXGAN_PROCESS is not set'),
    ({'JAXGAN_COORDINATOR': 'node7', 'JAXGAN_PROCESSES': '2', 'JAXGAN_PROCESS': '1'},
     "'node7'; a host and a port"),
    ({'JAXGAN_COORDINATOR': 'n:5', 'JAXGAN_PROCESSES': '2', 'JAXGAN_PROCESS': '2'},
     'JAXGAN_PROCESS=2 of JAXGAN_PROCESSES=2; 0 to 1'),
    ({'JAXGAN_COORDINATOR': 'n:5', 'JAXGAN_PROCESSES': 'two', 'JAXGAN_PROCESS': '1'},
     "JAXGAN_PROCESSES='two'; a number"),
    ({'JAXGAN_DISTRIBUTED': 'yes'}, "'yes'; auto, off, or not set")])
def test_contradictory_variables_are_refused(environment, message):
  with pytest.raises(ValueError, match=message):
    distributed.initialize(environment)


def test_another_number_of_devices_is_refused_with_the_arithmetic():
  distributed.expect(None)
  distributed.expect(4)
  with pytest.raises(ValueError, match='8 devices were expected and 4 are here: 1 processes x 4 of '
                                       'cpu; of each process 8 were expected.* one task a GPU'):
    distributed.expect(8)


@pytest.mark.parametrize(('codes', 'verdict'), [
    ([0, 0], 'done'), ([75, 75], 'again'), ([0, 75], 'again'), ([70, 134], 'failed'),
    ([70, -9], 'failed'), ([75, 70], 'failed'), ([-6, 0], 'failed'), ([2, 70], 'stop'),
    ([1, -9], 'stop'), ([130, 130], 'stop')])
def test_exit_codes_decide(codes, verdict):
  assert local.verdict(codes) == verdict


def script(tmp_path, codes):
  """A program that ends with these codes, one a start, and notes each start."""
  path = tmp_path / 'program.py'
  path.write_text('import os, sys, pathlib\n'
                  f'folder, codes = pathlib.Path({str(tmp_path)!r}), {codes!r}\n'
                  'for starts in range(99):\n'
                  '  try:  # another may start at the same time\n'
                  '    (folder / f"start_{starts}").open("x").write(" ".join(sys.argv[1:]))\n'
                  '    break\n'
                  '  except FileExistsError:\n'
                  '    pass\n'
                  'print("start", starts)\n'
                  'os._exit(codes[min(starts, len(codes) - 1)])\n')
  return f'{sys.executable} {path}'


@pytest.mark.parametrize(('codes', 'retries', 'code', 'starts'), [
    ([0], 3, 0, 1), ([75, 75, 75, 75, 75, 0], 0, 0, 6), ([70, 0], 1, 0, 2), ([70, 70, 0], 1, 70, 2),
    ([2], 3, 2, 1), ([75, 1], 3, 1, 2)])
def test_the_launcher_restarts_by_exit_code(tmp_path, codes, retries, code, starts):
  assert local.main(['--logs', str(tmp_path / 'logs'), '--retries', str(retries), '--backoff', '0',
                     '--program', script(tmp_path, codes), '--', 'train']) == code
  assert len(list(tmp_path.glob('start_*'))) == starts
  log = (tmp_path / 'logs' / 'process_0.log').read_text()
  assert log.count('start ') == starts


def test_failures_are_forgiven_once_a_job_ran_well(tmp_path, monkeypatch):
  monkeypatch.setattr(local, 'WELL', -1)
  assert local.main(['--logs', str(tmp_path / 'logs'), '--retries', '1', '--backoff', '0',
                     '--program', script(tmp_path, [70, 70, 70, 0]), '--', 'train']) == 0


def test_a_sweep_gives_each_run_a_folder_and_its_settings(tmp_path):
  run = lambda *sweep: local.main([
      *sweep, '--at-once', '2', '--logs', str(tmp_path / 'logs'), '--program',
      script(tmp_path, [0]), '--', 'train', '--config=tests/tiny_run.py', '--workdir', 'runs/s'])
  assert run('--sweep', 'seed=0,1', '--sweep', 'stages.gan.steps=5') == 0
  said = sorted(path.read_text() for path in tmp_path.glob('start_*'))
  assert sorted((tmp_path / 'logs').iterdir()) == [tmp_path / 'logs' / f'seed{i}_steps5'
                                                   for i in range(2)]
  assert said[-1] == ('train --config=tests/tiny_run.py --workdir=runs/s/seed1_steps5 '
                      '--config.seed=1 --config.stages.gan.steps=5')
  found = local.settings_of([''], str(ROOT / 'tests' / 'tiny_run.py'))
  assert found == [{'seed': '0'}, {'seed': '1'}]
  with pytest.raises(ValueError, match='has no sweep'):
    local.settings_of([''], 'kd/digits')
  with pytest.raises(ValueError, match='as in --sweep seed=0,1,2'):
    local.settings_of(['seed'], 'kd/digits')


def test_errors_of_the_runtime_are_no_mistakes_of_a_config():
  assert distributed.from_runtime(ValueError('UNKNOWN: Gloo AllGather failed: Connection reset'))
  assert distributed.from_runtime(jax.errors.JaxRuntimeError('INTERNAL: no'))
  assert not distributed.from_runtime(ValueError('batch=0; at least 1'))


def test_numbers_that_differ_are_named(monkeypatch):
  monkeypatch.setattr(distributed.runtime.jax, 'process_count', lambda: 2)
  monkeypatch.setattr(distributed.runtime.multihost_utils, 'process_allgather',
                      lambda mine: np.stack([mine, mine + np.uint32([0, 1])]))
  with pytest.raises(RuntimeError, match='the state differs between processes in 1 of 2 arrays, '
                                         'first in b'):
    distributed.assert_same({'a': 1, 'b': 2}, 'the state')


def test_devices_of_all_processes_are_counted(monkeypatch):
  monkeypatch.setattr(distributed.runtime, 'host', lambda: distributed.Host(0, 2, 4, 8))
  distributed.expect(8)
  with pytest.raises(ValueError, match='4 devices were expected and 8 are here: 2 processes x 4'):
    distributed.expect(4)


@pytest.fixture
def heard(monkeypatch):
  """The signals that reach whoever listened before, and 'left' when a terminal is."""
  found, numbers = [], (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
  before = {number: signal.signal(number, lambda number, _: found.append(number))
            for number in numbers}
  monkeypatch.setattr(distributed.stop, '_leave_terminal', lambda: found.append('left'))
  yield found
  for number, handler in before.items():
    signal.signal(number, handler)


@pytest.mark.parametrize('number, code', [
    (signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGTERM, 75)])
def test_a_second_signal_has_its_usual_effect(number, code, heard):
  with distributed.StopSignal() as stop:
    signal.raise_signal(number)
    assert stop.should_stop() and stop.exit_code == code and number not in heard
    signal.raise_signal(signal.SIGINT)
    assert heard[-1] == signal.SIGINT and stop.exit_code == code


def test_a_terminal_that_closes_stops_a_run_as_sigterm_does(heard, monkeypatch):
  with distributed.StopSignal() as stop:
    for _ in range(2):  # the kernel's, and the shell's
      signal.raise_signal(signal.SIGHUP)
    assert stop.caught == signal.SIGHUP and stop.exit_code == 129 and heard == ['left'] * 2
  signal.raise_signal(signal.SIGHUP)
  assert heard.pop() == signal.SIGHUP
  with distributed.StopSignal() as stop:  # Ctrl-C, and the window is closed while it saves
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGHUP)
    assert stop.caught == signal.SIGINT and heard == ['left'] * 3
  handler = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
  with distributed.StopSignal() as stop:
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
  signal.signal(signal.SIGHUP, handler)
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  with distributed.StopSignal() as stop:  # JAX's runtime listens to SIGTERM alone
    signal.raise_signal(signal.SIGHUP)
  assert heard == ['left'] * 4 + [signal.SIGTERM] and stop.caught is None


def test_what_is_written_to_a_terminal_that_is_gone_is_no_error(tmp_path):
  reader, writer = os.pipe()
  os.close(reader)
  with open(tmp_path / 'log', 'wb', 0) as log:
    distributed.stop._leave_terminal((writer, log.fileno()))
    log.write(b'kept')
  os.write(writer, b'nobody reads it')
  os.close(writer)
  assert (tmp_path / 'log').read_text() == 'kept'
