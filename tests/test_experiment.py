"""The main job from its command: complete, resumable, and careful with what is there."""

import collections
import contextlib
import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import jax
import numpy as np
import onnxruntime
import pytest
from PIL import Image

import jaxgan_compress as jgc
from jaxgan_compress import config, data, experiment
from jaxgan_compress.cli import main
from jaxgan_compress.experiment import inspect, lock, runner
from jaxgan_compress.experiment.runner import compilation_cache
from jaxgan_compress.experiment.stage import Stage
from jaxgan_compress.train import log_files
from jaxgan_compress.train.progress import Reporter
from tests import forked, tiny_run
from tests.conftest import largest_difference, quick
from tests.test_survival import damage_flip

pytestmark = pytest.mark.usefixtures('kept_programs')

GENERATORS = {'teacher', 'student_mse', 'student_joint', 'scratch', 'scratch_wide_disc'}
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def stages_built():
  """How many `Stage`s the run of `finished` made, by name."""
  return collections.Counter()


@pytest.fixture(scope='module')
def finished(tmp_path_factory, stages_built):
  """A finished smoke run by the command line, with an override."""
  workdir, init = tmp_path_factory.mktemp('runs') / 'smoke', Stage.__init__

  def counted(self, run, name):
    stages_built[name] += 1
    init(self, run, name)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(Stage, '__init__', counted)
    assert main.main(['train', '--config=configs/kd/digits.py:smoke', '--config.seed=3',
                     f'--workdir={workdir}']) == 0
  return workdir


def test_a_run_builds_each_stage_once(finished, stages_built):
  assert stages_built == dict.fromkeys(json.loads((finished / 'config.json').read_text())['run'], 1)


def test_a_student_of_a_run_is_exported(finished, capsys):
  assert main.main(['export', f'--workdir={finished}', '--int8']) == 0
  assert 'network.int8.onnx' in capsys.readouterr().out
  out = finished / 'export/student_mse'
  assert 'smoke, generator student_mse, best checkpoint, seed 3' in (out / 'README.md').read_text()
  assert main.main(['export', f'--workdir={finished}']) == 2
  assert 'is there' in capsys.readouterr().err
  assert main.main(['export', f'--workdir={finished}', '--generator=studnt_mse']) == 2
  assert "did you mean 'student_mse'" in capsys.readouterr().err
  # The pictures of the report, by ONNX Runtime.
  generator, seed = experiment.open_run(finished).generator('student_mse').bound(), jax.random.key(
      1)
  reported = generator(jax.random.normal(seed, (16, generator.module.latent)))
  session = onnxruntime.InferenceSession(out / 'network.onnx')
  with np.load(out / 'examples.npz') as stored:
    drawn, = session.run(None, {'input': stored['input0']})
  np.testing.assert_allclose(drawn, reported[:8], atol=1e-5)


def lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_leaves_all_its_records(finished):
  stored = json.loads((finished / 'config.json').read_text())
  assert stored['seed'] == 3
  environment = lines(finished / 'environment.jsonl')[0]
  assert environment['packages']['jaxgan-compress'] and 'git' in environment
  results = json.loads((finished / 'results.json').read_text())
  assert set(results['generators']) == GENERATORS
  student = results['generators']['student_mse']
  assert student['params_paper'] == 13487
  assert student['ratio_paper'] == pytest.approx(143729 / 13487)
  assert {'is', 'fd', 'mmd', 'precision', 'recall', 'vol', 'classes', 'mse', 'psnr',
          'mse_on_paths'} == set(
      student['last']['measures'])
  for measure in student['last']['measures'].values():
    assert measure['protocol']['feature_net_accuracy'] is not None
  assert student['ms_per_image_batch1'] > 0 and student['macs'] == 37376
  log = lines(finished / 'student_mse' / 'log.jsonl')
  assert [line['step'] for line in log] == [2, 4] and log[0]['mse_per_pixel/student'] > 0
  assert list((finished / 'teacher' / 'events').iterdir())


def test_the_report_stands_alone_and_shows_every_generator(finished):
  page = (finished / 'report.html').read_text()
  assert not re.search(r'(src|href)="(?!data:|#)', page) and 'http' not in page
  assert page.count('data:image/png;base64,') == len(GENERATORS) + 1
  for word in ('Teacher (d=16)', 'Student, pixels', 'From scratch', 'Real images', 'VoL', 'MACs',
               'precision', 'last and best, step 4', 'lower is better', 'Learning curves', '13,487',
               '10.7:1'):
    assert word in page


def test_a_finished_run_is_left_as_it_is(finished, capsys):
  before = {path: path.stat().st_mtime_ns for pattern in ('step_*/*', 'report.html', 'results.json')
            for path in finished.rglob(pattern)}
  assert main.main(['train', '--config=configs/kd/digits.py:smoke', '--config.seed=3',
                   '--config.checkpoint.keep=1', f'--workdir={finished}']) == 0  # keep: harmless
  said = capsys.readouterr().out
  assert 'teacher: done before' in said and 'is finished and reported' in said
  assert before == {path: path.stat().st_mtime_ns for path in before}


def test_evaluate_repeats_what_training_measured(finished):
  found = experiment.evaluate(finished, 'last')
  results = json.loads((finished / 'results.json').read_text())['generators']
  for name in GENERATORS:
    for key, measure in found[name].items():
      assert measure.value == pytest.approx(results[name]['last']['measures'][key]['value'])


def first_stages(finished, folder, count=3):
  """A copy of the run that ends after so many stages."""
  shutil.copytree(finished, folder)
  stored = json.loads((folder / 'config.json').read_text())
  (folder / 'config.json').write_text(json.dumps({**stored, 'run': stored['run'][:count]}))
  return folder


def test_what_is_measured_again_is_printed(finished, tmp_path, capsys):
  copy = first_stages(finished, tmp_path / 'run')
  assert main.main(['evaluate', f'--workdir={copy}', '--count=20']) == 0
  printed = capsys.readouterr().out
  assert 'student_mse' in printed and 'count 20' in printed
  assert main.main(['evaluate', f'--workdir={copy}', '--json']) == 0
  assert json.loads(capsys.readouterr().out)['real']['vol']['value'] > 0


def test_report_and_info(finished, capsys):
  (finished / 'report.html').unlink()
  assert main.main(['report', f'--workdir={finished}']) == 0
  assert (finished / 'report.html').is_file()
  assert main.main(['info', '--config=configs/kd/digits.py']) == 0
  assert '143,729' in capsys.readouterr().out
  assert main.main(['info']) == 0
  assert json.loads(capsys.readouterr().out)['device']['platform'] == 'cpu'


def test_another_config_does_not_touch_the_run(finished, capsys):
  assert main.main(['train', '--config=configs/kd/digits.py:smoke', '--config.seed=4',
                   f'--workdir={finished}']) == 2
  assert 'seed: 3 there, 4 asked for' in capsys.readouterr().err


def test_what_is_not_ours_is_not_touched(tmp_path, capsys):
  (tmp_path / 'thesis.tex').write_text('mine')
  assert main.main(['train', '--config=kd/digits:smoke', f'--workdir={tmp_path}']) == 2
  assert 'is not empty and holds no run' in capsys.readouterr().err
  file = tmp_path / 'thesis.tex'
  assert main.main(['train', '--config=kd/digits:smoke', f'--workdir={file}']) == 2
  assert [path.name for path in tmp_path.iterdir()] == ['thesis.tex']


@pytest.mark.parametrize('argv, said', [
    (['trian'], "no verb 'trian'; did you mean 'train'?"),
    (['train', '--workdir=x'], 'train needs --config'),
    (['train', '--config=kd/digits'], 'train needs --workdir'),
    (['train', '--config=configs/kd/digit.py', '--workdir=x'], 'no config file'),
    (['train', '--config=kd/digits:smoke,dd=3', '--workdir=x'], "argument 'dd' is unknown"),
    (['train', '--config=kd/digits', '--config.sede=1', '--workdir=x'], 'seed'),
    (['train', '--config=kd/digits', '--config.seed=one', '--workdir=x'], 'one'),
    (['train', '--config=kd/digits', '--workdri=x'], 'workdir'),
    (['train', 'runs/x'], 'did you mean --config or --workdir'),
    (['evaluate', '--workdir=nowhere'], 'nowhere holds no run'),
    (['report', '--workdir=nowhere'], 'nowhere holds no run'),
    (['train', '--config=kd/digits:smoke', '--config.batch=6', '--workdir=x'],
     'batch 6 does not divide over 4 replicas; use 8'),
    (['train', '--config', 'kd/digits:smoke,dd=3', '--workdir=x'], "argument 'dd' is unknown"),
    (['evaluate', '--workdir=x', '--count=0'], 'count')])
def test_bad_input_gets_one_clear_line(argv, said, capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert main.main(argv) == 2
  error = capsys.readouterr().err
  assert said in error and 'Traceback' not in error and len(error.strip().splitlines()) <= 3
  assert not list(tmp_path.iterdir())


def test_help(capsys):
  assert main.main([]) == 0 and 'evaluate' in capsys.readouterr().out
  assert main.main(['evaluate', '--help']) == 0
  assert '--checkpoint' in capsys.readouterr().out.replace('--[no]', '--')


def test_a_loss_that_explodes_is_named_and_the_good_checkpoint_stays(tmp_path):
  workdir = tmp_path / 'run'
  c = config.load('kd/digits:smoke')
  c.run = ('classifier', 'scratch')
  c.stages.scratch.steps = 40
  # Fine until the rate jumps: the penalty-free critic then overflows float32.
  for section in (c.stages.scratch.method, c.stages.scratch.method.adversary):
    section.tx = {'name': 'sgd', 'learning_rate': {'name': 'step_decay', 'value': 1e-3, 'at': (6,),
                                                   'factor': 1e30}}
  with pytest.raises(jgc.train.TermError, match=r'step \d+: .* = (nan|inf|-inf)'):
    jgc.run(c, workdir, quiet=True)
  kept = jgc.Checkpointer(workdir / 'scratch' / 'checkpoints').steps
  assert kept and max(kept) <= 8
  assert all(np.isfinite(line['generator/loss'])
             for line in lines(workdir / 'scratch' / 'log.jsonl'))


def start(workdir):
  """The command in a process of its own: a classifier and 100 steps of a teacher."""
  return forked.Process('jaxgan_compress.cli.main', [[
      'train', '--config=kd/digits:smoke', f'--workdir={workdir}',
      "--config.run=('classifier','teacher')", '--config.stages.teacher.steps=100',
      '--config.checkpoint.every=10', '--config.log_every=10', '--config.evaluate.every=50',
      '--config.cache=False']], quick(), workdir.parent)


def newest(workdir):
  found = (path.name.removeprefix('step_') for path in workdir.glob('teacher/checkpoints/step_*'))
  return max((int(step) for step in found if step.isdecimal()), default=0)


def final_bytes(workdir):
  run = jgc.open_run(workdir)
  nets = run.stages['teacher'].nets()
  return {role: [np.asarray(x).tobytes() for x in jax.tree.leaves(net)]
          for role, net in nets.items()}


def test_killed_terminated_and_interrupted_runs_end_like_an_undisturbed_one(tmp_path):
  assert start(tmp_path / 'whole').wait(200) == 0
  for number, code, said in ((signal.SIGKILL, -9, ''), (signal.SIGTERM, 75, 'stopped by SIGTERM'),
                             (signal.SIGINT, 130, 'stopped by SIGINT')):
    before, end = newest(tmp_path / 'disturbed'), time.monotonic() + 120
    process = start(tmp_path / 'disturbed')
    while newest(tmp_path / 'disturbed') == before:
      assert time.monotonic() < end, f'no checkpoint came after step {before}'
      time.sleep(0.02)
    process.send_signal(number)
    returned, text = process.wait(100), process.said()
    if returned == 0:
      pytest.fail('the run ended before it was disturbed')
    assert returned == code, text[-2000:]
    assert said in text and 'Traceback' not in text
  assert start(tmp_path / 'disturbed').wait(200) == 0
  assert final_bytes(tmp_path / 'disturbed') == final_bytes(tmp_path / 'whole')
  steps = [line['step'] for line in lines(tmp_path / 'disturbed' / 'teacher' / 'log.jsonl')]
  assert steps == sorted(set(steps)) and steps[-1] == 100
  evaluated = lines(tmp_path / 'disturbed' / 'teacher' / 'evaluations.jsonl')
  whole = lines(tmp_path / 'whole' / 'teacher' / 'evaluations.jsonl')
  assert evaluated == whole


def test_a_signal_between_two_intervals_loses_nothing(tmp_path, monkeypatch, request):
  """It comes while step 2 is being written down; step 2 is not a step to save at."""
  c = config.load('kd/digits:smoke')
  c.run = ('classifier',)
  c.stages.classifier.steps = 8
  c.checkpoint.every = 8
  update = runner.Reporter.update
  usual = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
  request.addfinalizer(lambda: signal.signal(signal.SIGHUP, usual))

  def disturbed(self, step, logs):
    update(self, step, logs)
    if step == 2:
      os.kill(os.getpid(), signal.SIGHUP)

  monkeypatch.setattr(runner.Reporter, 'update', disturbed)
  with pytest.raises(jgc.Interrupted, match='step 4 of 8 is saved') as stopped:
    jgc.run(c, tmp_path / 'run', quiet=True)
  assert stopped.value.exit_code == 129
  checkpoints = tmp_path / 'run' / 'classifier' / 'checkpoints'
  assert jgc.Checkpointer(checkpoints, read_only=True).steps == [4]


def test_an_unfinished_run_is_reported_as_far_as_it_is(finished, tmp_path, capsys):
  with pytest.raises(FileNotFoundError, match='holds no run'):
    experiment.evaluate(tmp_path / 'run')
  shutil.copytree(finished, tmp_path / 'run')
  stored = json.loads((tmp_path / 'run' / 'config.json').read_text())
  for name in stored['run'][2:]:
    shutil.rmtree(tmp_path / 'run' / name)
  for name in ('results.json', 'report.html'):
    (tmp_path / 'run' / name).unlink()
  before = sorted(tmp_path.rglob('*'))
  assert set(experiment.evaluate(tmp_path / 'run')) == {'teacher', 'real'}
  assert sorted(tmp_path.rglob('*')) == before  # looking changes nothing
  assert main.main(['report', f'--workdir={tmp_path / "run"}']) == 0
  capsys.readouterr()
  (tmp_path / 'run' / 'config.json').write_text(json.dumps({**stored, 'run': stored['run'][:1]}))
  assert main.main(['report', f'--workdir={tmp_path / "run"}']) == 2
  assert 'no measured generator yet' in capsys.readouterr().err


def test_a_damaged_best_checkpoint_does_not_end_a_run(finished, tmp_path, caplog):
  copy = first_stages(finished, tmp_path / 'run', 2)
  damage_flip(copy / 'teacher' / 'checkpoints' / 'step_4')
  found = experiment.evaluate(copy)
  assert 'checkpoint of step 4' in caplog.text and 'passed over' in caplog.text
  whole = json.loads((finished / 'results.json').read_text())['generators']['teacher']['best']
  assert found['teacher']['fd'].value != pytest.approx(whole['measures']['fd']['value'])


def test_programs_are_kept_for_the_user_and_the_processor(monkeypatch, tmp_path):
  found = {}
  monkeypatch.setattr(jax.config, 'update', found.__setitem__)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  compilation_cache()
  assert Path(found['jax_compilation_cache_dir']).parent == tmp_path / 'jaxgan_compress'


def test_a_run_needs_no_git_and_borrows_no_revision(monkeypatch, tmp_path):
  assert log_files._revision(tmp_path) is None
  monkeypatch.setenv('PATH', str(tmp_path))
  assert log_files.environment()['git'] is None


def test_two_processes_cannot_share_a_work_directory(tmp_path):
  c = config.load('kd/digits:smoke')
  with lock.claimed(tmp_path / 'run', c), \
       pytest.raises(FileExistsError, match='another process is training'), \
       lock.claimed(tmp_path / 'run', c):
    pass


def test_an_extended_run_is_one_that_was_asked_for_as_much_at_first(tmp_path, capsys):
  def asked(steps):
    c = tiny_run.get_config('steps=3')
    c.stages.gan.steps = steps
    c.stages.gan.method.tx = dict(name='sgd', learning_rate=dict(
        name='linear_epochs', value=.01, epoch=1, constant=1, decay=3))
    return c

  jgc.run(asked(3), tmp_path / 'run', quiet=True)
  with pytest.raises(FileExistsError, match='steps: 3 there, 5 asked for.*or --extend'):
    jgc.run(asked(5), tmp_path / 'run', quiet=True)
  capsys.readouterr()
  jgc.run(asked(5), tmp_path / 'run', extend=True)
  said = capsys.readouterr().out
  assert 'gan: extended from 3 to 5 steps' in said
  assert 'stages.gan.method.tx.learning_rate: goes from 0.0025 to 0.0025, by its schedule' in said
  jgc.run(asked(5), tmp_path / 'run')
  assert 'gan: done before, 5 steps' in capsys.readouterr().out
  # The results of three steps may be left where the extended run was killed before its report.
  stored = tmp_path / 'run/results.json'
  results = json.loads(stored.read_text())
  stored.write_text(json.dumps({**results, 'steps': {**results['steps'], 'gan': 3}}))
  assert jgc.run(asked(5), tmp_path / 'run', quiet=True)['steps']['gan'] == 5
  assert json.loads(stored.read_text())['steps']['gan'] == 5
  jgc.run(asked(5), tmp_path / 'whole', quiet=True)
  states = [jgc.open_run(tmp_path / name).stages['gan'].state() for name in ('run', 'whole')]
  assert int(states[0].step) == 5 and largest_difference(*states) == 0
  assert [line['step'] for line in lines(tmp_path / 'run/gan/log.jsonl')] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize('change, error, said', [
    (dict(teacher=2), ValueError, r'steps=2: the run in .* has 4, and --extend makes it longer'),
    (dict(teacher=8), ValueError, r'steps=8: student_mse learned from teacher as it was after 4'),
    (dict(classifier=8), ValueError, r'steps=8: teacher, student_mse was measured by classifier'),
    (dict(seed=1), ValueError, r'takes more steps and nothing else, and seed differ from the run'),
    (dict(student_mse=8), None, ''), (dict(scratch=8), None, ''), ({}, None, '')])
def test_what_extending_would_make_stale_is_refused(change, error, said, tmp_path):
  stages = ('classifier', 'teacher', 'student_mse')

  def asked(seed=0, **steps):
    c = config.load('kd/digits:smoke')
    c.run = (*stages, 'scratch')  # which is not begun
    c.seed = seed
    for name, count in steps.items():
      c.stages[name].steps = count
    return c

  for name in stages:
    (tmp_path / name / 'checkpoints/step_4').mkdir(parents=True)
    (tmp_path / name / 'done.json').touch()
  (tmp_path / 'config.json').write_text(json.dumps(config.to_json(asked())))
  with pytest.raises(error, match=said) if error else contextlib.nullcontext(), \
      lock.claimed(tmp_path, asked(**change), extend=True):
    assert [(tmp_path / name / 'done.json').exists() for name in stages] == [
        name not in change for name in stages]
  if error:
    assert all((tmp_path / name / 'done.json').exists() for name in stages)
    assert json.loads((tmp_path / 'config.json').read_text()) == config.to_json(asked())
  with pytest.raises(FileNotFoundError, match='holds no run to extend; leave out --extend'), \
      lock.claimed(tmp_path / 'new', asked(), extend=True):
    pass


def test_what_a_run_needs_and_is_gone_is_said_with_its_key(tmp_path, capsys, monkeypatch):
  monkeypatch.chdir(tmp_path)
  c = tiny_run.get_config()
  c.data = dict(name='paired', path='maps', size=32)
  c.evaluate.update(extractor=dict(name='inception', path='gone/inception.safetensors'),
                    real=dict(path='elsewhere', split='val'), select='fid')
  c.stages.gan.init_from = {'features': '/nowhere/vgg.safetensors'}
  stored = tmp_path / 'run/config.json'
  stored.parent.mkdir()
  stored.write_text(json.dumps(config.to_json(c)))
  keys = ('data.path', 'evaluate.extractor.path', 'evaluate.real.path',
          'stages.gan.init_from.features')
  assert tuple(sorted(jgc.experiment.workdir.named_paths(c))) == keys
  for use in (lambda run: run.source(), lambda run: run.stages['gan'].files(),
              lambda run: run.evaluation.sides(c.evaluate.real)):
    with pytest.raises(FileNotFoundError) as e:
      use(jgc.open_run('run'))
    for key in keys:
      assert f'--moved={key}=PATH' in str(e.value) and f'{key}=' in str(e.value)
    assert f'seen from {tmp_path}' in str(e.value) and 'run/config.json' in str(e.value)
  data.record(lambda x: x, data.samples('colorize', 'test', size=32, count=4), tmp_path / 'there')
  moved = {'data.path': 'there', 'evaluate.real.path': str(tmp_path / 'there')}
  run = jgc.open_run('run', moved=moved)
  assert len(run.source()) == 4
  with pytest.raises(FileNotFoundError, match='--moved=evaluate.extractor.path=PATH'):
    run.evaluation.evaluator(c.evaluate.real, reverse=False, from_latents=True)
  assert config.to_json(c) == json.loads(stored.read_text())  # what is stored stays
  with pytest.raises(ValueError, match="'dta.path' is no path in run/config.json; did you mean"):
    jgc.open_run('run', moved={'dta.path': 'there'})
  with pytest.raises(FileNotFoundError, match='of the config; where .*--config.data.path=PATH'):
    experiment.Run(c, tmp_path, Reporter(quiet=True)).source()
  for verb in ('evaluate', 'report', 'prune', 'export', 'profile-latency'):
    argv = [verb, '--workdir=run', '--moved=data.pth=x', '--budget=1', '--output=x.json']
    known = {'evaluate': argv[:3], 'report': argv[:3], 'export': argv[:3],
             'prune': [*argv[:4], '--output=x.safetensors'],
             'profile-latency': [*argv[:3], argv[4]]}[verb]
    assert main.main(known) == 2
    assert "'data.pth' is no path in run/config.json; did you mean" in capsys.readouterr().err
    assert main.main([*known[:2], '--moved=there', *known[3:]]) == 2
    assert '--moved=there; give KEY=PATH' in capsys.readouterr().err
  # Going on: another folder only where the old one is gone.
  (tmp_path / 'run/gan/checkpoints/step_3').mkdir(parents=True)
  c.data.path = 'there'
  with lock.claimed(tmp_path / 'run', c):
    assert json.loads(stored.read_text())['data']['path'] == 'there'
  said = capsys.readouterr().out
  assert f'maps is not there any more, as seen from {tmp_path}; continues with there' in said
  c.data.path = 'maps'
  with pytest.raises(FileExistsError, match='data.path: there there, maps asked for'), \
      lock.claimed(tmp_path / 'run', c):
    pass


def test_of_several_teachers_the_best_one_teaches(tmp_path):
  c = config.load('kd/digits:smoke,teacher_d=2+4')
  c.run = ('classifier', 'teacher_d2', 'teacher_d4', 'student_mse')
  results = jgc.run(c, tmp_path / 'run', quiet=True)
  table = results['generators']
  best = min(('teacher_d2', 'teacher_d4'),
             key=lambda name: table[name]['best']['measures']['fd']['value'])
  assert table['student_mse']['teacher'] == best and table[best]['role'] == 'teacher'
  assert table['student_mse']['ratio'] == table[best]['params'] / table['student_mse']['params']


def test_the_ten_lines_of_the_readme_run(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  code = re.search(r'```python\n(.*?)```', (ROOT / 'README.md').read_text(), re.DOTALL).group(1)
  assert len(code.splitlines()) <= 16
  shrunk = re.sub(r'steps=\d+', 'steps=2', code)
  exec(compile(shrunk, 'README.md', 'exec'), {})
  assert capsys.readouterr().out


def test_a_generator_of_ones_own_is_trained_cut_distilled_and_exported(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  section = (ROOT / 'docs/howto.md').read_text().split('## A generator of your own')[1]
  code = re.search(r'```python\n(.*?)```', section, re.DOTALL).group(1)
  found = {}
  exec(compile(re.sub(r'steps=\d+', 'steps=2', code), 'howto.md', 'exec'), found)
  assert 0 < sum(found['small'].widths) < sum(found['Painter']().widths)
  assert (tmp_path / 'painter/network.onnx').is_file()


def test_pictures_in_the_readme_exist():
  for name in re.findall(r'!\[[^\]]*\]\(([^)]+)\)', (ROOT / 'README.md').read_text()):
    assert Image.open(ROOT / name).size[0] > 100


def test_what_is_chosen_on_one_split_is_reported_on_another(tmp_path, capsys):
  c = config.load('kd/digits:smoke')
  c.run = ('teacher',)
  c.data.name = 'tests.tiny_run:few_digits'  # VGG16 takes long
  c.evaluate.update(classifier='', extractor=dict(name='random_vgg'), count=16, best=('mmd',),
                    real=dict(split='train'), test=dict(split='test'))
  results = jgc.run(c, tmp_path / 'run', quiet=True)
  for line in (results['generators']['teacher'][which] for which in ('best', 'last')):
    assert line['chosen_by']['fd']['protocol']['data'] == 'digits/train'
    assert line['measures']['fd']['protocol']['data'] == 'digits/test'
  assert results['real']['fd']['protocol']['feature_net'] == 'random_vgg16'
  report = (tmp_path / 'run' / 'report.html').read_text()
  assert 'on other images (digits/train)' in report and 'inception score' not in report
  assert main.main(['evaluate', f'--workdir={tmp_path / "run"}', '--checkpoint=best:mmd',
                   '--intervals=4', '--json']) == 0
  again = json.loads(capsys.readouterr().out)['teacher']
  assert again['fd']['interval'][0] < again['fd']['value'] < again['fd']['interval'][1]
  assert again['fd']['value'] == pytest.approx(
      results['generators']['teacher']['best']['measures']['fd']['value'])


def test_a_measure_that_nothing_makes_is_refused_before_training(tmp_path):
  c = config.load('kd/digits:smoke')
  c.run = ('teacher',)
  c.data.name = 'tests.tiny_run:few_digits'
  c.evaluate.update(classifier='', extractor=dict(name='random_vgg'), best=('kid',))
  with pytest.raises(ValueError, match="'kid', which nothing here measures; there is fd, mmd"):
    jgc.run(c, tmp_path / 'run', quiet=True)
  assert not list((tmp_path / 'run').glob('*/checkpoints/*'))


@pytest.mark.parametrize('task', ['shapes', 'colorize'])
def test_data_is_shown_before_training(task, tmp_path, capsys):
  c = tmp_path / 'mine.py'
  c.write_text(f'''
from jaxgan_compress import config
def get_config(arg=''):
  c = config.base()
  c.data = dict(name='samples:{task}', size=32)
  c.stages = {{'look': config.stage(steps=2, method=dict(
      name='Classifier', classifier=dict(name='SmallSegmenter', classes=6), label='label_map',
      tx=dict(name='adam', learning_rate=1e-3)))}}
  c.run = ('look',)
  return c
''')
  out = tmp_path / 'sheet.png'
  assert main.main(['show-data', f'--config={c}', f'--output={out}', '--columns=4']) == 0
  shown = np.asarray(Image.open(out))
  assert shown.shape[1] == 4 * 34 - 2 and shown.std() > 40
  assert main.main(['show-data', f'--config={c}', f'--output={out}']) == 2
  assert 'exists; give another name' in capsys.readouterr().err


def test_a_sheet_of_large_photographs_stays_small(tmp_path, monkeypatch):
  c = tiny_run.get_config()
  c.data = dict(name='paired', path=str(tmp_path), preprocess='none')
  (tmp_path / 'train').mkdir()
  picture = np.zeros((16, 2 * 2050, 3), np.uint8)
  picture[:, 2048::2050] = 255  # left out of what is shown, and not of what is said
  Image.fromarray(picture).save(tmp_path / 'train/1.png')
  said, captioned = [], inspect.captioned
  monkeypatch.setattr(inspect, 'captioned',
                      lambda rows, title: said.extend(rows) or captioned(rows, title))
  assert experiment.show_data(c, columns=1).shape[1] == 684
  caption, shown = said[0]
  assert caption == ('training, step 0: source, 16x2050x3, one pixel of 3 each way, '
                     '-1.00 to 1.00')
  assert shown.shape == (1, 6, 684, 3) and shown.max() == -1


@pytest.mark.parametrize('channels, words', [
    ((1, 4), ('16 bits', '16 bits, alpha on white')),
    ((6, 3), ('16 bits, channels 1 to 3 of 6 as red, green and blue', '16 bits'))])
def test_a_sheet_says_how_it_shows_channels_and_bits(channels, words, tmp_path, monkeypatch):
  c = tiny_run.get_config()
  c.data = dict(name='paired', path=str(tmp_path), preprocess='none', channels=channels, bits=16)
  ramp = np.arange(64, dtype=np.uint16).reshape(8, 8, 1) * 1040
  for side, count in zip('AB', channels, strict=True):
    (tmp_path / 'train' / side).mkdir(parents=True)
    np.save(tmp_path / 'train' / side / '0.npy', ramp.repeat(count, -1))
  said, captioned = [], inspect.captioned
  monkeypatch.setattr(inspect, 'captioned',
                      lambda rows, title: said.extend(rows) or captioned(rows, title))
  experiment.show_data(c, columns=1)
  for (caption, shown), side, count, text in zip(
      said[-2:], ('source', 'target'), channels, words, strict=True):
    assert caption == (f'as evaluation sees them: {side}, 8x8x{count}, -1.00 to 1.00, {text}')
    np.testing.assert_allclose(shown[0], ramp.repeat(count, -1) / 32767.5 - 1, atol=1e-6)


def test_stages_and_seeds_have_random_numbers_of_their_own(tmp_path):
  c = config.load('kd/digits:smoke')
  run = experiment.Run(c, tmp_path, Reporter(quiet=True))
  keys = [run.stages[name].key for name in ('teacher', 'scratch')]
  c.seed = 1
  keys.append(experiment.Run(c, tmp_path, Reporter(quiet=True)).stages['teacher'].key)
  assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == 3
