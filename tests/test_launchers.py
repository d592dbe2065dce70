"""What starts runs on clusters, tried without one: on this machine, on stand-ins, by schema."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import largest_difference, quick
from tests.test_distributed import STEPS, Job, final, local

ROOT = Path(__file__).parents[1]


def test_shell_scripts_are_sound():
  if not shutil.which('shellcheck'):
    pytest.skip('shellcheck is not installed')
  files = [*(ROOT / 'launch').glob('*.sh'), *(ROOT / 'launch').glob('*.sbatch')]
  assert len(files) >= 6
  subprocess.run(['shellcheck', '-x', '-P', 'SCRIPTDIR', *files], check=True)


@pytest.mark.parametrize('has', [True, False])
def test_emoji_are_rendered_by_the_interpreter_that_can(has, tmp_path):
  for name, can in (('venv', False), ('other', has)):
    python = tmp_path / name / 'bin' / 'python'
    python.parent.mkdir(parents=True)
    python.write_text(f"""#!/usr/bin/env bash
case "$*" in
  *resvg_py*) exit {0 if can else 1} ;;
  -c*) exit 0 ;;
esac
echo {name} "${{@:2}}"
""")
    python.chmod(0o755)
  (tmp_path / 'other' / 'bin' / 'python').rename(tmp_path / 'other' / 'bin' / 'python3.11')
  done = subprocess.run(
      [ROOT / 'launch' / 'get_emoji.sh', 'my pictures', 'x.tgz'], text=True, capture_output=True,
      check=True, env={'JAXGAN_VENV': str(tmp_path / 'venv'),
                       'PATH': f'{tmp_path / "other" / "bin"}:{os.environ["PATH"]}'})
  assert done.stdout == f'{"other" if has else "venv"} my pictures x.tgz\n'


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
  """What one process with two devices comes to."""
  workdir = tmp_path_factory.mktemp('undisturbed') / 'run'
  assert [code for code, _ in Job(workdir, 1, 2).end()] == [0]
  return final(workdir)


# Stands in for gcloud: notes its arguments, and runs what is to run on every host twice, with what
# a TPU slice of two hosts sets.
GCLOUD = """#!/usr/bin/env bash
all="$*"
printf '%s\\n' "$all" >> "$FAKE/calls"
case "$all" in
  *describe*) echo ACTIVE ;;
  *--command=*)
    cd "$FAKE/home" || exit 1
    for i in 0 1; do
      HOME="$FAKE/home" JAX_FORCE_TPU_INIT=1 TPU_WORKER_HOSTNAMES=localhost,localhost \\
        TPU_WORKER_ID=$i MEGASCALE_NUM_SLICES= MEGASCALE_SLICE_ID= \\
        MEGASCALE_COORDINATOR_ADDRESS= JAX_COORDINATOR_PORT="$PORT" \\
        bash -c "${all#*--command=}" > "$FAKE/host_$i" 2>&1 &
    done
    wait
    cat "$FAKE/host_0" "$FAKE/host_1"
    ;;
esac
"""


@pytest.fixture
def pod(tmp_path):
  """(environment, folder) in which `tpu_pod.sh` finds the stand-in."""
  (tmp_path / 'bin').mkdir()
  fake = tmp_path / 'bin' / 'gcloud'
  fake.write_text(GCLOUD)
  fake.chmod(0o755)
  (tmp_path / 'home' / 'jaxgan' / '.venv' / 'bin').mkdir(parents=True)
  return {**quick(), 'PATH': f'{tmp_path / "bin"}:{os.environ["PATH"]}', 'FAKE': str(tmp_path),
          'PORT': str(local.free_port()), 'TPU_NAME': 'gan', 'TPU_ZONE': 'here',
          'TPU_TYPE': 'v5litepod-16', 'TPU_BUCKET': 'mine', 'TPU_POLL': '0'}, tmp_path


def tpu_pod(environment, *arguments):
  return subprocess.run([ROOT / 'launch' / 'tpu_pod.sh', *arguments], env=environment, text=True,
                        capture_output=True, timeout=300, check=False)


def test_a_pod_is_made_set_up_and_deleted_by_these_commands(pod):
  environment, folder = pod
  for verb in ('create', 'setup', 'delete'):
    done = tpu_pod({**environment, 'TPU_SPOT': '1'}, verb)
    # `setup` finds no archive on the stand-in's hosts.
    assert done.returncode == 0, done.stderr
  calls = (folder / 'calls').read_text()
  archive = calls.split('tpu-vm scp ')[1].split()[0]
  assert calls.splitlines() == [
      'compute tpus queued-resources create gan --node-id gan --zone here --accelerator-type '
      'v5litepod-16 --runtime-version tpu-ubuntu2204-base --spot',
      'compute tpus queued-resources describe gan --zone here --format=value(state.state)',
      f'compute tpus tpu-vm scp {archive} gan:jaxgan.tar.gz --zone here --worker=all',
      'compute tpus tpu-vm ssh gan --zone here --worker=all --command=tar xzf jaxgan.tar.gz && '
      './jaxgan/launch/tpu_host.sh mine',
      'compute tpus queued-resources delete gan --zone here --force --quiet']
  assert 'TPU_NAME and TPU_ZONE' in tpu_pod({**environment, 'TPU_NAME': ''}, 'create').stderr
  assert 'one of create, setup, train, delete' in tpu_pod(environment, 'start').stderr


def program(folder, text):
  path = folder / 'home' / 'jaxgan' / '.venv' / 'bin' / 'jaxgan-compress'
  path.write_text(f'#!/usr/bin/env bash\n{text}\n')
  path.chmod(0o755)


def test_a_pod_trains_on_all_hosts_as_one_does(pod, undisturbed):
  environment, folder = pod
  program(folder, f'cd {ROOT} && exec {sys.executable} -m jaxgan_compress "$@"')
  workdir = folder / 'run'
  done = tpu_pod(environment, 'train', f'--config=tests/tiny_run.py:steps={STEPS}',
                 f'--workdir={workdir}')
  assert done.returncode == 0, done.stdout + done.stderr
  assert largest_difference(final(workdir), undisturbed) == 0


@pytest.mark.parametrize(('codes', 'expected', 'starts'), [
    ((75, 75, 0), 0, 3), ((70, 0), 0, 2), ((2,), 2, 1), ((134, 134, 134, 134, 134), 2, 4)])
def test_a_pod_starts_again_by_exit_code(pod, codes, expected, starts):
  environment, folder = pod
  # Each host takes the code of its own count of starts.
  program(folder, 'n=$(cat count_$TPU_WORKER_ID 2>/dev/null || echo 0); '
          f'echo $((n + 1)) > count_$TPU_WORKER_ID; codes=({" ".join(map(str, codes))}); '
          'exit ${codes[$n]}')
  done = tpu_pod(environment, 'train', '--config=x', '--workdir=y')
  assert done.returncode == expected, done.stdout + done.stderr
  assert (folder / 'home' / 'count_0').read_text().strip() == str(starts)


def jobset(*arguments, command=('--', 'train', '--config=x', '--workdir=/runs/x')):
  return subprocess.run([sys.executable, ROOT / 'launch' / 'gke_jobset.py', '--name', 'gan',
                         '--image', 'image', '--bucket', 'mine', *arguments, *command],
                        capture_output=True, text=True, check=False)


def lifted(manifest):
  """The one job of a JobSet as a Job of its own, whose schema is at hand."""
  template = manifest['spec']['replicatedJobs'][0]['template']
  return {'apiVersion': 'batch/v1', 'kind': 'Job', 'metadata': {'name': 'gan'}, **template}


@pytest.mark.parametrize(('arguments', 'hosts', 'slices', 'limits', 'selector'), [
    (['--tpu', 'v5e:4x4'], 4, 1, {'google.com/tpu': 4}, {
        'cloud.google.com/gke-tpu-accelerator': 'tpu-v5-lite-podslice',
        'cloud.google.com/gke-tpu-topology': '4x4'}),
    (['--tpu', 'v5p:2x2x4', '--slices', '2', '--spot'], 4, 2, {'google.com/tpu': 4}, {
        'cloud.google.com/gke-tpu-accelerator': 'tpu-v5p-slice',
        'cloud.google.com/gke-tpu-topology': '2x2x4', 'cloud.google.com/gke-spot': 'true'}),
    (['--gpu', 'nvidia-h100-80gb:8', '--nodes', '2'], 2, 1, {'nvidia.com/gpu': 8}, {
        'cloud.google.com/gke-accelerator': 'nvidia-h100-80gb'})])
def test_a_jobset_is_valid_and_says_what_was_asked_for(arguments, hosts, slices, limits, selector):
  done = jobset(*arguments)
  assert done.returncode == 0, done.stderr
  manifest = json.loads(done.stdout)
  assert manifest['apiVersion'] == 'jobset.x-k8s.io/v1alpha2' and manifest['kind'] == 'JobSet'
  assert manifest['spec'].keys() == {'failurePolicy', 'replicatedJobs'}
  job, = manifest['spec']['replicatedJobs']
  assert job.keys() == {'name', 'replicas', 'template'} and job['replicas'] == slices
  spec = job['template']['spec']
  assert spec['parallelism'] == spec['completions'] == hosts
  assert (spec['completionMode'], spec['backoffLimit']) == ('Indexed', 0)
  pod = spec['template']['spec']
  assert pod['containers'][0]['resources']['limits'] == limits
  assert pod['nodeSelector'] == selector
  assert pod['containers'][0]['command'] == ['jaxgan-compress', 'train', '--config=x',
                                             '--workdir=/runs/x']
  validate = pytest.importorskip('kubernetes_validate')
  valid = lambda found: validate.validate(found, '1.32', strict=True)
  valid(lifted(manifest))
  spec['backOffLimit'] = 0
  with pytest.raises(validate.ValidationError, match='backOffLimit'):
    valid(lifted(manifest))
  del spec['backOffLimit']
  pod['terminationGracePeriodSeconds'] = '60s'
  with pytest.raises(validate.ValidationError, match='60s'):
    valid(lifted(manifest))


def test_the_account_of_gpu_pods_is_valid():
  done = jobset('--gpu', 'a:1', '--rbac')
  validate = pytest.importorskip('kubernetes_validate')
  *account, _ = json.loads(done.stdout)['items']
  assert [item['kind'] for item in account] == ['ServiceAccount', 'Role', 'RoleBinding']
  for item in account:
    validate.validate(item, '1.32', strict=True)


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--tpu', 'v9:4x4'], "--tpu 'v9:4x4'; as v5e:4x4"), (['--gpu', 'h100'], "--gpu 'h100'; as"),
    ([], 'give --tpu or --gpu'), (['--gpu', 'a:1', '--slices', '2'], 'take --nodes')])
def test_a_jobset_that_cannot_be_is_refused(arguments, message):
  done = jobset(*arguments)
  assert done.returncode == 2 and message in done.stderr


def test_a_pod_keeps_nothing_outside_the_bucket():
  done = jobset('--gpu', 'a:1', command=('--', 'train', '--workdir=/data/x'))
  assert done.returncode == 2 and 'below /runs' in done.stderr


@pytest.fixture
def slurm(tmp_path):
  """A Slurm of two nodes, both this machine; its environment."""
  if not shutil.which('slurmctld') or not shutil.which('slurmd') or os.getuid():
    pytest.skip('slurmctld and slurmd are not installed, or this is not root')
  ports, sockets = [], [socket.socket() for _ in range(3)]
  for s in sockets:
    s.bind(('127.0.0.1', 0))
    ports.append(s.getsockname()[1])
  for s in sockets:
    s.close()
  host = socket.gethostname()
  for folder in ('state', 'spool_n1', 'spool_n2'):
    (tmp_path / folder).mkdir()
  nodes = ''.join(f'NodeName=n{i} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[i]} '
                  'CPUs=1 State=UNKNOWN\n' for i in (1, 2))
  (tmp_path / 'slurm.conf').write_text(f"""ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
StateSaveLocation={tmp_path}/state
SlurmdSpoolDir={tmp_path}/spool_%n
SlurmctldPidFile={tmp_path}/slurmctld.pid
SlurmdPidFile={tmp_path}/slurmd_%n.pid
SlurmctldLogFile={tmp_path}/slurmctld.log
SlurmdLogFile={tmp_path}/slurmd_%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
{nodes}PartitionName=p Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
""")
  environment = {**quick(), 'SLURM_CONF': str(tmp_path / 'slurm.conf')}
  daemons = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
             for command in (['slurmctld', '-D'], ['slurmd', '-D', '-N', 'n1'],
                             ['slurmd', '-D', '-N', 'n2'])]
  try:
    for _ in range(100):
      found = subprocess.run(['sinfo', '-h', '-o', '%D%t'], env=environment, text=True,
                             capture_output=True, check=False).stdout
      if found.strip() == '2idle':
        break
      time.sleep(0.2)
    else:
      pytest.skip(f'Slurm does not start here: {found}')
    yield environment
  finally:
    for daemon in daemons:
      daemon.kill()
      daemon.wait()


def test_a_slurm_job_told_to_stop_is_requeued_and_ends_the_same(slurm, tmp_path, undisturbed):
  workdir = tmp_path / 'run'
  program = tmp_path / 'jaxgan-compress'
  # Nodes that are not real have no address: the first task is the coordinator, on this machine.
  program.write_text('#!/usr/bin/env bash\n'
                     f'export JAX_COORDINATOR_ADDRESS=127.0.0.1:{local.free_port()}\n'
                     f'cd {ROOT} && exec {sys.executable} -m jaxgan_compress "$@"\n')
  program.chmod(0o755)
  say = lambda *command: subprocess.run(command, env={**slurm, 'JAXGAN_PROGRAM': str(program)},
                                        capture_output=True, text=True, check=True).stdout
  job = say('sbatch', '--parsable', '--nodes=2', f'--output={tmp_path}/out', '--export=ALL',
            str(ROOT / 'launch' / 'slurm.sbatch'), 'train',
            f'--config=tests/tiny_run.py:steps={STEPS}', f'--workdir={workdir}').strip()
  output = lambda: (tmp_path / 'out').read_text() if (tmp_path / 'out').is_file() else ''

  def until(reached, seconds=200):
    end = time.monotonic() + seconds
    while not reached():
      assert time.monotonic() < end, output() + say('scontrol', 'show', 'job', job)
      time.sleep(0.1)

  log = workdir / 'gan' / 'log.jsonl'
  until(lambda: log.is_file() and len(log.read_text().splitlines()) > 5)
  say('scancel', '--signal=TERM', job)
  until(lambda: 'starting again' in output())
  # Slurm holds what was requeued for two minutes; sooner it may start once its nodes are free.
  until(lambda: 'JobState=PENDING' in say('scontrol', 'show', 'job', job)
        and say('sinfo', '-h', '-o', '%D%t').strip() == '2idle')
  time.sleep(1)
  say('scontrol', 'update', f'jobid={job}', 'StartTime=now')
  until(lambda: 'JobState=COMPLETED' in say('scontrol', 'show', 'job', job))
  assert 'exit code 75, start 0' in output() and 'report:' in output()
  assert largest_difference(final(workdir), undisturbed) == 0
