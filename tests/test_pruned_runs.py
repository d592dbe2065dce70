"""Runs whose students are cut from their teachers: once, and never again on going on."""

import dataclasses
import json
import shutil
import signal
from types import SimpleNamespace

import jax
import pytest

import jaxgan_compress as jgc
from jaxgan_compress import config, experiment, methods, nn, pruning
from jaxgan_compress.cli import main as cli
from jaxgan_compress.cli import models
from jaxgan_compress.config import build
from jaxgan_compress.experiment import dry_run, runner, training
from jaxgan_compress.nn.files import network
from jaxgan_compress.train.progress import Reporter
from tests.conftest import largest_difference
from tests.test_translation_runs import ADAM, adversary, base, with_stages

pytestmark = pytest.mark.usefixtures('kept_programs')


def whole():
  """The least network of which any kind of channel can be cut."""
  branches = nn.Branches(((1, 4), (3, 4)), ((3, 4),))
  return nn.InceptionGenerator((4, 8), (branches,), (4,), implementation='reference')


SHAPE = (1, 32, 32, 3)
BUDGET, MORE = (pruning.cost(whole(), whole().plan(), SHAPE)(whole().plan().widths) * share // 10
                for share in (5, 7))


def recipe(**prune):
  prune = {'budget': BUDGET, 'min_channels': 2, **prune}
  return with_stages(
      base('colorize', test={}),
      teacher=dict(steps=2, title='Teacher', method=dict(
          name='Pix2Pix', generator=dict(name=f'{__name__}:whole'), adversary=adversary(6, 'hinge'),
          tx=ADAM)),
      student=dict(steps=4, teacher=('teacher',), prune=prune, method=dict(
          name='CAT', adversary=dict(name='Adversary', tx=ADAM, loss='hinge'), tx=ADAM,
          taps=('stem', 'block1'))),
      alone=dict(steps=2, teacher=('teacher',), prune=dict(prune, student_init='reinit'),
                 method=dict(
          name='Pix2Pix', adversary=adversary(6, 'hinge'), tx=ADAM)))


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """Teacher and student; `alone` is there to be cut."""
  workdir, c = tmp_path_factory.mktemp('cat') / 'run', recipe()
  c.run = ('teacher', 'student')
  return workdir, jgc.run(c, workdir, quiet=True)


def after_its_teacher(c, finished, workdir):
  """The config, and a work directory of it where the teacher of another run has finished."""
  shutil.copytree(finished[0] / 'teacher', workdir / 'teacher')
  (workdir / 'config.json').write_text(json.dumps(config.to_json(c)))
  return c, workdir


def test_a_student_costs_at_most_its_budget(finished):
  workdir, results = finished
  rows, c = results['generators'], experiment.open_run(workdir).config
  c.run = ('teacher', 'student', 'alone')
  run = experiment.Run(c, workdir, Reporter(quiet=True))
  assert rows['student']['macs'] <= BUDGET < rows['teacher']['macs']
  assert rows['student']['teacher'] == 'teacher' and run.generator('alone').teacher is None
  assert (workdir / 'student' / 'pruned.png').stat().st_size > 500
  training._prune(run.stages['alone'], run.stages['teacher'])  # as a stage begins
  first, alone = (nn.load(workdir / name / 'pruned.safetensors') for name in ('student', 'alone'))
  assert run.generator('student').module == first[0] == alone[0]
  assert alone[0] == run.stages['alone'].method.generator
  # It starts from what was left of its teacher, where the other starts anew.
  teacher = run.generator('teacher').bound('best')
  cut = pruning.prune(teacher.module, jax.device_get(teacher.variables), SHAPE, budget=BUDGET,
                    min_channels=2)
  assert largest_difference(first[1], cut.variables) == 0 < largest_difference(alone[1], first[1])


def test_students_of_several_budgets_learn_in_one_step(finished, tmp_path, monkeypatch):
  """They nest, each meets its budget and starts from what was left for it. What their teacher has
  to say of its weights goes with them."""
  c = recipe(budget=(BUDGET, MORE))
  c.stages.student.method = dict(name='Offline', tx=ADAM, distill=dict(
      name='DistillLoss', ssim=dict(name='SSIM'), pixel=dict(name='Pixel', weight=1.)))
  c.run = ('teacher', 'student')
  c, workdir = after_its_teacher(c, finished, tmp_path / 'run')
  (workdir / 'teacher' / 'notice.txt').write_text('Derived from A\nDerived from B\n')
  rows = jgc.run(c, workdir, quiet=True)['generators']
  second = list(pruning.roles('student', (BUDGET, MORE)))[1]
  assert rows['student']['macs'] <= BUDGET < rows[f'student.{second}']['macs'] <= MORE
  assert {rows[name]['teacher'] for name in rows if name != 'teacher'} == {'teacher'}
  run = experiment.open_run(tmp_path / 'run')
  small, large = (run.generator(name).module for name in ('student', f'student.{second}'))
  assert all(a <= b for a, b in zip(small.stem, large.stem, strict=True)) and small != large
  file = f'{second.replace("student", "pruned")}.safetensors'
  assert nn.load(tmp_path / 'run' / 'student' / file)[0] == large
  notice = 'Derived from A\nDerived from B'
  assert notice == network.notice_of(workdir / 'student' / file) == run.stages['student'].notice
  (workdir / 'teacher' / 'notice.txt').unlink()  # each stage keeps its own
  exported = {}
  monkeypatch.setattr(experiment.export, 'write_folder', lambda *_, **more: exported.update(more))
  experiment.export_run(workdir)
  assert exported['notice'] == models._notice(run, SimpleNamespace(stage='student')) == notice
  c.stages.student.method = recipe().stages.student.method
  with pytest.raises(ValueError, match="CAT has no argument 'extra_students'"):
    build.validate(c)


def test_a_stage_is_pruned_by_what_its_batches_activate(finished, tmp_path, monkeypatch):
  """The same whenever it is asked for, with statistics of one teacher taken once; its dry run reads
  no batch for them."""
  c = recipe(criterion='activation', calibration_batches=2, budget=(BUDGET, MORE))
  c.stages.student.method = dict(name='Offline', tx=ADAM, distill=dict(
      name='DistillLoss', pixel=dict(name='Pixel', weight=1.)))
  c.run, taken = ('teacher', 'student'), []
  c, workdir = after_its_teacher(c, finished, tmp_path / 'run')
  run = experiment.Run(c, workdir, Reporter(quiet=True))
  with monkeypatch.context() as patched:
    patched.setattr(pruning, 'activation_statistics', None)
    dry_run.check(run)
  statistics = pruning.activation_statistics

  def counted(module, variables, batches):
    taken.append(list(batches))
    return statistics(module, variables, taken[-1])

  monkeypatch.setattr(pruning, 'activation_statistics', counted)
  training._prune(run.stages['student'], run.stages['teacher'])  # as a stage begins
  assert len(taken) == 1 and [x.shape for x in taken[0]] == [(c.batch, *SHAPE[1:])] * 2
  pipeline = run.stages['student'].pipeline_of(run.stages['student'].method)
  for i, x in enumerate(taken[0]):
    assert largest_difference(x, pipeline[i]['source'] / 127.5 - 1) < 1e-6
  teacher = run.generator('teacher').bound('best')
  networks = run.stages['student'].pruned.load(whole())
  assert len(networks) == 2
  for (module, variables), budget in zip(networks.values(), (BUDGET, MORE), strict=True):
    cut = pruning.prune(teacher.module, jax.device_get(teacher.variables), SHAPE, budget=budget,
                        min_channels=2, criterion='activation', batches=taken[0])
    assert module == cut.module and largest_difference(variables, cut.variables) == 0
  # The verb takes the data of the teacher's stage, which here is the student's.
  file = tmp_path / 'verb.safetensors'
  assert cli.main(['prune', f'--workdir={finished[0]}', '--stage=teacher', '--min_channels=2',
                   '--criterion=activation', '--calibration_batches=2', f'--budget={MORE}',
                   f'--output={file}']) == 0
  assert largest_difference(nn.load(file)[1], variables) == 0


def test_stages_of_one_budget_may_call_their_networks_differently(finished, tmp_path):
  c = recipe()
  c.stages.alone.prune = c.stages.student.prune.to_dict()
  c, workdir = after_its_teacher(c, finished, tmp_path / 'run')
  dry_run.check(experiment.Run(c, workdir, Reporter(quiet=True)))


def test_going_on_does_not_prune_again(finished, tmp_path, monkeypatch):
  whole, _ = finished
  c = recipe()
  c.run = ('teacher', 'student')
  stops = iter([False] * 2 + [True] * 9)  # after two steps of the student
  with monkeypatch.context() as patched:
    patched.setattr(runner, 'train_stage', stopping(runner.train_stage, stops))
    with pytest.raises(experiment.Interrupted, match='step 2 of 4'):
      jgc.run(*after_its_teacher(c, finished, tmp_path / 'run'), quiet=True)
  before = (tmp_path / 'run' / 'student' / 'pruned.safetensors').read_bytes()
  with monkeypatch.context() as patched:
    patched.setattr(pruning, 'prune', None)
    jgc.run(c, tmp_path / 'run', quiet=True)
  assert (tmp_path / 'run' / 'student' / 'pruned.safetensors').read_bytes() == before
  nets = [experiment.open_run(folder).stages['student'].nets() for folder in (
      whole, tmp_path / 'run')]
  assert largest_difference(*nets) == 0


def stopping(train, stops):
  """`train_stage` that is told to stop as by a signal, once, in the student's."""
  class Stop:
    caught, exit_code = signal.SIGTERM, 75

    def should_stop(self):
      return next(stops)

    ask = should_stop

  return lambda stage, stop: train(stage, Stop() if stage.name == 'student' else stop)


@pytest.mark.parametrize('change, message', [
    (dict(budget=1.), 'stages.student.prune: a budget of 1 is below'),
    (dict(unit='ms'), "stages.student.prune: unit='ms'; one of macs"),
    (dict(calibration_batches=4), "calibration_batches are for criterion='activation'; leave"),
    *((dict(criterion='activation', calibration_batches=bad), f'={bad} is no whole number from 1')
      for bad in (0, 2.5, True)),
    (dict(criterion='activation', budget=1.), 'stages.student.prune: a budget of 1 is below'),
    (dict(flor=2), 'stages.student.prune: .*flor')])
def test_what_cannot_be_cut_is_said_before_training(tmp_path, change, message):
  with pytest.raises(ValueError, match=message):
    jgc.run(recipe(**change), tmp_path / 'run', quiet=True)
  assert not (tmp_path / 'run' / 'teacher').exists()


def test_a_second_stage_of_one_budget_is_looked_at_too(tmp_path):
  c = recipe()
  c.stages.second = c.stages.student.copy_and_resolve_references()
  c.stages.second.prune.student_init = 'inheritt'
  c.run = ('teacher', 'student', 'second')
  with pytest.raises(ValueError,
                     match="stages.second.prune: student_init='inheritt'; one of inherit"):
    jgc.run(c, tmp_path / 'run', quiet=True)
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('change, message', [
    (dict(teacher=()), 'there is none; give teacher'),
    (dict(prune=dict(min_channels=2)), 'prune has no budget')])
def test_a_stage_that_cannot_be_cut_is_refused_before_training(change, message):
  c = recipe()
  c.stages.student.update(change)
  if 'prune' in change:
    c.stages.student.prune = change['prune']
  with pytest.raises(ValueError, match=message):
    build.validate(c)


class Mine(nn.InceptionGenerator):
  """A network of one's own, and a block inside it."""
  extra: tuple = ()


@dataclasses.dataclass(frozen=True)
class Own:
  scale: int = 1


def mine(strange=False):
  fields = {field.name: getattr(whole(), field.name) for field in dataclasses.fields(whole())
            if field.name not in ('parent', 'name')}
  return Mine(**fields, extra=(Own(2),) if not strange else (jax.nn.relu,))


def test_a_network_of_ones_own_is_cut_in_a_run(tmp_path):
  """Its class is what the config names, never what the file does."""
  c = recipe()
  c.stages.teacher.method.generator.name = f'{__name__}:mine'
  c.run = ('teacher', 'student')
  run = experiment.Run(c, tmp_path / 'run', Reporter(quiet=True))
  dry_run.check(run)
  stage = run.stages['student']
  cut = stage.prune(mine(), nn.initialise(mine(), jax.random.key(0)))['student']
  file, = stage.pruned.paths.values()
  file.parent.mkdir(parents=True)
  with pytest.raises(ValueError, match='Mine is not one of jaxgan_compress.nn'):
    nn.save(file, cut.module, cut.variables)
  nn.save(file, cut.module, cut.variables, like=mine())
  assert stage.method.student == cut.module != mine()
  assert largest_difference(stage.files()['student'].params, cut.variables['params']) == 0
  with pytest.raises(ValueError, match='no network .*:Mine.* is loaded with like='):
    nn.load(file)
  with pytest.raises(ValueError, match='no network .*:Mine'):
    nn.load(file, like=whole())
  c.stages.teacher.method.generator.strange = True  # it could not be written down
  with pytest.raises(ValueError, match='stages.student.prune: extra=.* cannot be written'):
    jgc.run(c, tmp_path / 'other', quiet=True)


# --- networks that are given ---

FILES = {
    'zero': lambda: nn.mobile_resnet(ngf=4, blocks=1, padding='zero'),
    'same': lambda: nn.mobile_resnet(ngf=4, blocks=1, dropout=.5),
    'wide': lambda: nn.mobile_resnet(ngf=6, blocks=1),
    'unet': lambda: nn.unet(ngf=2, depth=5),
    'judge': lambda: nn.PatchGAN(ndf=2, layers=1, inputs=6),
    'vgg19': lambda: nn.VGG(19, layers=('relu1_2', 'relu2_2')),
    'vgg16': lambda: nn.VGG(16, layers=('relu1_2', 'relu2_2', 'relu3_1'))}


@pytest.fixture(scope='module')
def files(tmp_path_factory):
  folder = tmp_path_factory.mktemp('init_from')
  for name, module in FILES.items():
    net = module()
    nn.save(folder / f'{name}.safetensors', net, nn.initialise(net, jax.random.key(0)))
  return {name: str(folder / f'{name}.safetensors') for name in FILES}


def given_to(stage, **more):
  """A change of the config of `with_files`."""
  return lambda c, files: c.stages[stage].update(
      {key: {role: files.get(x, x) for role, x in value.items()} if key == 'init_from' else value
       for key, value in more.items()})


class Broken(methods.Pix2Pix):
  """What goes wrong in a step alone is looked for where much would be lost by it."""

  def step(self, state, batch, axes=None):
    raise ValueError(f'of {len(batch["source"]) * 4} rows')


def with_files():
  net = dict(name='mobile_resnet', ngf=4, blocks=1)
  looking = dict(name='DistillLoss', feature=dict(name='Perceptual'),
                 taps=dict(name='Taps', similarity='attention', weight=1., names=('stem',)),
                 feature_net=dict(name='VGG', layers=('relu1_2', 'relu2_2')))
  pupil = dict(name='Offline', student=net, tx=ADAM, distill=looking)
  return with_stages(
      base('colorize'),
      teacher=dict(steps=2, method=dict(name='Pix2Pix', generator=net,
                                        adversary=adversary(6, 'hinge'), tx=ADAM)),
      pupil=dict(steps=2, teacher=('teacher',), method=pupil))


def late_mistake(c, files):
  c.stages.teacher.steps = 500
  c.stages.pupil = config.stage(steps=2, method={
      **c.stages.teacher.method, 'name': f'{__name__}:Broken'})


def distill(**fields):
  def change(c, files):
    with c.unlocked():
      c.stages.pupil.method.distill.taps.update(fields)
  return change


@pytest.mark.parametrize('change, message', [
    (given_to('teacher', init_from={'generatr': 'same'}),
     'stages.teacher.init_from.generatr: Pix2Pix has no network of this role; it has generator, '
     'disc'),
    (given_to('teacher', init_from={'generator': 'zero'}),
     "init_from.generator: .* another network, with padding='zero' where 'reflect' is needed"),
    (given_to('pupil', init_from={'student': 'unet'}),
     'init_from.student: .* a UNetGenerator where a ResNetGenerator is needed'),
    (given_to('pupil', init_from={'student': 'wide'}),
     'stages.pupil.init_from.student: .* with stem='),
    (given_to('pupil', init_from={'features': 'vgg19'}),
     'init_from.features: .* depth=19 where 16'),
    (given_to('pupil', init_from={'features': 'vgg19'}, steps=3), 'depth=19 where 16'),
    (given_to('pupil', init_from={'disc': 'judge'}),
     'pupil.init_from.disc: Offline has no network of this role; it has student, teacher, '
     'features'),
    (given_to('pupil', init_from={'teacher': 'same'}), 'both say who teaches; give one'),
    (given_to('pupil', init_from={'features': 3}), 'init_from.features: there is no file 3'),
    (given_to('pupil', prune=dict(budget=1e5, criterion='l1'), init_from={'student': 'same'}),
     'stages.pupil.init_from.student and stages.pupil.prune both say'),
    (distill(names=('stem', 'block7')),
     'stages.pupil: student has no tap block7; it has block1, stem'),
    (late_mistake, 'stages.pupil: of 16 rows')])
def test_what_does_not_fit_is_said_before_training(files, tmp_path, change, message):
  c = with_files()
  change(c, files)
  with pytest.raises(ValueError, match=message):
    jgc.run(c, tmp_path / 'run', quiet=True)
  assert not (tmp_path / 'run').exists()


def test_what_a_method_leaves_unread_is_refused(files, tmp_path):
  c = recipe()
  with c.unlocked():
    c.stages.student.method.disc_init = 'fresh'
  c.stages.student.init_from = {'disc': files['judge']}
  with pytest.raises(ValueError,
                     match='stages.student: init_from.disc is not used: .* leave it out'):
    jgc.run(c, tmp_path / 'run', quiet=True)


def test_networks_that_fit_may_be_given(files, tmp_path):
  c = with_files()
  given_to('teacher', init_from={'generator': 'same', 'disc': 'judge'})(c, files)
  given_to('pupil', init_from={'features': 'vgg16', 'student': 'same'})(c, files)
  build.validate(c)
  dry_run.check(experiment.Run(c, tmp_path, Reporter(quiet=True)))
