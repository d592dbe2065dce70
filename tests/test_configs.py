"""Every shipped config takes its steps; every mistake in one is told before time is spent."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import tensorflow_datasets
from PIL import Image

import jaxgan_compress as jgc
from jaxgan_compress import config, configs, core, experiment, methods, nn
from jaxgan_compress.cli.main import VERBS
from jaxgan_compress.config import build
from jaxgan_compress.experiment import Run, dry_run, step_profile
from jaxgan_compress.nn import DCGANGenerator
from jaxgan_compress.train.progress import Reporter

pytestmark = pytest.mark.usefixtures('kept_programs')

SHIPPED = ('cat/any_network', 'cat/cityscapes', 'cat/colorize', 'cat/emoji', 'cat/gaugan',
           'cat/grass2gravel', 'cat/horse2zebra', 'cat/maps', 'cat/shapes', 'kd/celeba',
           'kd/cifar10', 'kd/digits', 'kd/mnist', 'lora/effects', 'omgd/cityscapes',
           'omgd/colorize', 'omgd/edges2photo', 'omgd/edges2shoes', 'omgd/emoji',
           'omgd/grass2gravel', 'omgd/horse2zebra', 'omgd/pairs', 'omgd/summer2winter',
           'superres/real_esrgan', 'union/colorize', 'union/emoji', 'union/pairs')


def test_all_shipped_configs_are_tested_here():
  folder = Path(configs.__file__).parent
  assert tuple(sorted(f'{path.parent.name}/{path.stem}' for path in folder.glob('*/*.py')
                      if not path.name.startswith('_'))) == SHIPPED


@pytest.mark.parametrize('name', SHIPPED)
def test_every_shipped_config_can_be_built(name, tmp_path, monkeypatch):
  monkeypatch.setenv('JAXGAN_REALESRGAN', str(tmp_path))  # a place of weights, which nothing reads
  c = config.load(name)
  build.validate(c)
  restored = config.from_json(json.loads(json.dumps(config.to_json(c))))
  build.validate(restored)
  assert config.to_json(restored) == config.to_json(c)


@pytest.mark.parametrize('name', ['cat/colorize', 'omgd/emoji', 'omgd/pairs', 'union/colorize',
                                  'union/pairs'])
def test_rivals_are_no_copies_of_each_other(name):
  c = config.load(f'{name}:rivals')
  stages = [(c.stages[stage].method.to_json(), str(c.stages[stage].get('prune')),
             c.stages[stage].teacher) for stage in c.run]
  assert len({str(stage) for stage in stages}) == len(c.run) > 4


@pytest.mark.parametrize('name', [
    name for name in SHIPPED if name.startswith('kd/') and name != 'kd/digits'])
def test_catalogue_configs_run_on_mock_data(name, tmp_path):
  c = config.smoke(config.load(f'{name}:smoke'), steps=1)
  c.update(log_every=1, batch=4, checkpoint={'every': 1})
  student = build.method(c, 'd1_mse', 'teacher_d2').student
  shapes = jax.eval_shape(student.init, jax.random.key(0), student.example())
  assert jgc.count_params(shapes, 'paper') == 672 + 12831 + 1
  # Students see the data as their teacher does, so those of one set stand for all.
  c.run = c.run[:4 if name == 'kd/mnist' else 2]
  with tensorflow_datasets.testing.mock_data(num_examples=20):
    results = jgc.run(c, tmp_path / 'run', quiet=True)
  assert tuple(results['generators']) == ('teacher_d2', 'd1_mse', 'd1_joint')[:len(c.run) - 1]


def test_paper_sizes_are_the_default():
  c = config.load('kd/mnist')
  assert c.stages.teacher_d256.method.generator.d == 256 and c.stages.d2_mse.steps == 20 * 468


def test_rates_fall_at_the_epochs_meant_whatever_the_critic_updates():
  c = config.load('kd/celeba')
  epoch = 162_770 // 128
  teacher, joint = c.stages.teacher_d128.method, c.stages.d8_joint.method
  assert teacher.tx.learning_rate.at == joint.tx.learning_rate.at == (11 * epoch, 16 * epoch)
  assert teacher.adversary.tx.learning_rate.at == (5 * 11 * epoch, 5 * 16 * epoch)
  assert joint.adversary.tx.learning_rate.at == (3 * 11 * epoch, 3 * 16 * epoch)


def test_arguments_are_typed_by_their_defaults():
  arg = config.parse_arg('smoke,d=2+8,rate=1e-3,name=x', smoke=False, d=(1,), rate=1., name='', n=3)
  assert (arg.smoke, arg.d, arg.rate, arg.name, arg.n) == (True, (2, 8), 1e-3, 'x', 3)
  for text, said in (('smoek', "'smoke'"), ('n=two', 'it is a whole number, as in n=3'),
                     ('d=a+b', 'as in d=1'), ('smoke=maybe', 'True or False')):
    with pytest.raises(ValueError, match=said):
      config.parse_arg(text, smoke=False, d=(1,), n=3)


def set_key(path, value):
  def change(c):
    *parents, last = path.split('.')
    with c.unlocked():
      for parent in parents:
        c = c[parent]
      if last in c:
        del c[last]  # whatever its kind was
      c[last] = value
  return change


@pytest.mark.parametrize('change, said', [
    (set_key('stages.teacher.method.name', 'GNA'), "no 'GNA' in jaxgan_compress.methods; did you"),
    (set_key('stages.teacher.method.generator.name', 'DCGANGenerater'), "mean 'DCGANGenerator'"),
    (set_key('stages.teacher.method.generator.dd', 3), "no argument 'dd'; did you mean 'd'"),
    (set_key('stages.teacher.method.generator.size', 48), 'student has size=32 and the teacher'),
    (set_key('stages.teacher.method.tx.name', 'adamm'), "no 'adamm' in optax; did you mean 'adam"),
    (set_key('stages.teacher.method.adversary.loss', 'vanilla'), 'stages.teacher.method.adversary'),
    (set_key('stages.teacher.stepss', 3), "stages.teacher has no field 'stepss'; did you mean"),
    (set_key('stages.teacher.steps', 0), 'stages.teacher.steps=0'),
    (set_key('stages.student_mse.teacher', ('techer',)), "learns from 'techer', which run does"),
    (set_key('run', ('classifier', 'teachr')), "names the stage 'teachr'; did you mean 'teacher'"),
    (set_key('run', ()), 'run names no stage'),
    (set_key('evaluate.classifier', 'clasifier'), 'is not in run'),
    (set_key('evaluate.every', 3), 'not a multiple of log_every=2; make it one'),
    (set_key('steps_per_call', 0), 'steps_per_call=0; at least 1'),
    (set_key('steps_per_call', 3), 'log_every=2 is not a multiple of steps_per_call=3'),
    (set_key('evaluate.every', 0), 'evaluate.every=0; at least 1'),
    (set_key('evaluate.count', 1), 'evaluate.count=1; at least 4'),
    *((set_key('evaluate.select', metric), f"know no '{metric}'; one of fd, ")
      for metric in ('mse', 'perceptual')),
    (set_key('stages.student_mse.teacher_checkpoint', 'latest'), 'one of best, last'),
    (set_key('run', ('teacher', 'classifier')), "has 'teacher' before 'classifier'"),
    (set_key('stages.student_joint.method.adversary.disc', {
        'name': 'DCGANDiscriminator', 'd': 3, 'size': 32}), "or set disc_init='fresh'"),
    (set_key('bacth', 3), "the config has no field 'bacth'; did you mean 'batch'"),
    (set_key('evaluate.evry', 3), "evaluate has no field 'evry'; did you mean 'every'"),
    (set_key('batch', 8.), 'batch=8.0; it is a whole number'),
    (set_key('seed', -1), 'seed=-1; at least 0 and at most 4294967295'),
    (set_key('cache', 1), 'cache=1; it is True or False'),
    (set_key('run', 'teacher'), "run='teacher'; it is several"),
    (set_key('run', ('classifier', 'teacher', 'teacher')), 'run names a stage twice|names a stage'),
    (set_key('devices', 'all'), "devices='all'; it is a whole number"),
    (set_key('replicas', 0), 'replicas=0; at least 1'),
    (set_key('via', 'map'), "via='map'; one of pmap, shard_map"),
    (set_key('data', 'digits'), "data='digits'; it is a section"),
    (set_key('data.size', 'small'), "data: size='small'; it is a whole"),
    (set_key('data.view', print), 'data.view is <built-in function print>; a config is stored'),
    (set_key('evaluate.select', 'fid'), "names 'fid', which nothing here measures; there is fd, "),
    (set_key('evaluate.best', ('miou',)), "names 'miou', which nothing here measures"),
    (set_key('evaluate.segmenter', {'stage': 'classifier'}), 'compares label maps and the'),
    (set_key('evaluate.real', {'size': 28}),
     'generates 32x32x1 .* is compared with images of 28x28x1'),
    (set_key('stages.student_mse.shift', 99), 'shift=99; at least 0 and at most 64'),
    (set_key('stages.teacher.method', {}), 'stages.teacher.method={}; it is empty'),
    (set_key('stages.teacher.method.tx', {}), 'stages.teacher.method: tx={}; it is Gradient'),
    (set_key('stages.teacher.method.ema', 1.5), 'method: ema=1.5; at least 0 and below 1'),
    (set_key('stages.teacher.method.tx.learning_rate', 'x'), "tx: learning_rate='x'; it is"),
    (set_key('stages.teacher.method.generator.d', 0), 'generator: d=0; at least 1'),
    (set_key('stages.teacher.method.name', 'Adversary'), 'Adversary is no method; methods are'),
    (set_key('stages.classifier.method.label', 'digit'),
     "stages.classifier: .*'target', 'digit', and the batch has 'label', 'target': 'digit'"),
    (set_key('stages.teacher.method.tx.learning_rate', float('nan')), 'learning_rate is nan'),
    (set_key('replicas', 3), 'replicas=3 does not divide over 4 devices'),
    (set_key('batch', 6), 'batch 6 does not divide over 4 replicas; use 8')])
def test_a_mistake_is_named_with_its_place_and_a_cure(change, said, tmp_path):
  c = config.load('kd/digits:smoke')
  change(c)
  with pytest.raises(ValueError, match=said):
    jgc.run(c, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_networks_are_found_under_keys_of_ones_own():
  section = {'name': 'argparse:Namespace', 'helper': {'name': 'PatchGAN', 'ndf': 2},
             'several': {'a': {'name': 'PatchGAN', 'ndf': 3}}}
  built = build.make(section, build.HOMES['method'], 'mine')
  assert (built.helper, built.several) == (nn.PatchGAN(2), {'a': nn.PatchGAN(3)})
  with pytest.raises(ValueError, match="mine.helper: no 'PatchGam' in jaxgan_compress.nn; did you"):
    build.make({**section, 'helper': {'name': 'PatchGam'}}, build.HOMES['method'], 'mine')


def test_names_can_come_from_anywhere():
  found = build.resolve('jaxgan_compress.nn.generators.dcgan:DCGANGenerator', 'optax')
  assert found is DCGANGenerator
  with pytest.raises(ValueError, match="cannot import nowhere"):
    build.resolve('nowhere:Thing', 'optax')
  with pytest.raises(ValueError, match="no '_widths'"):
    build.resolve('jaxgan_compress.nn.generators.dcgan:_widths', 'optax')


def test_a_config_is_found_by_path_or_by_name(tmp_path):
  assert config.locate('configs/kd/digits.py:smoke')[1] == 'smoke'
  assert config.locate('kd/digits')[0].name == 'digits.py'
  mine = tmp_path / 'mine.py'
  mine.write_text('from jaxgan_compress import config\n'
                  'def get_config(arg): return config.base()\n')
  assert isinstance(config.load(f'{mine}:x'), ml_collections.ConfigDict)
  with pytest.raises(FileNotFoundError, match='shipped are configs/cat/any_network.py'):
    config.load('configs/kd/digit.py')


@pytest.mark.parametrize('stored', ['{"seed": [', '[1]', '{"seed": "x"}', '{"stages": {"a": 3}}'])
def test_a_stored_config_that_was_changed_is_named(stored, tmp_path):
  (tmp_path / 'config.json').write_text(stored)
  with pytest.raises(ValueError, match=r'config.json is no config of a run: .*; take it from a'):
    jgc.open_run(tmp_path)


def test_differences_are_dotted():
  assert config.differences({'a': {'b': 1, 'c': 2}}, {'a': {'b': 1, 'c': 3}, 'd': 4}) == {
      'a.c': (2, 3), 'd': ('absent', 4)}


# --- OMGD ---


@pytest.mark.parametrize('name, row', [
    # Student, wide, deep, ndf, n_share, n_dis, batch, weight of taps, steps (thousands).
    ('edges2shoes', (16, 64, 16, 128, 5, 1, 4, 10, 2398)),
    ('edges2shoes:student=12', (12, 48, 12, 96, 5, 1, 4, 10, 2398)),
    ('edges2shoes:student=8', (8, 48, 12, 96, 5, 1, 4, 10, 2398)),
    ('edges2shoes:net=resnet', (16, 64, 16, 128, 3, 1, 4, 100, 2398)),
    ('edges2shoes:net=resnet,student=12', (12, 48, 12, 96, 3, 1, 4, 1000, 2398)),
    ('edges2shoes:net=resnet,student=8', (8, 48, 12, 96, 3, 1, 4, 1000, 2398)),
    ('edges2shoes:net=resnet,student=24', (24, 96, 24, 128, 3, 1, 4, 100, 2398)),
    ('cityscapes', (16, 64, 16, 128, 5, 3, 4, 50, 557)),
    ('cityscapes:student=12', (12, 48, 12, 96, 5, 3, 4, 50, 557)),
    ('cityscapes:student=8', (8, 48, 12, 96, 3, 3, 4, 50, 557)),
    ('cityscapes:net=resnet', (16, 64, 16, 128, 4, 3, 1, 0, 2231)),
    ('cityscapes:net=resnet,student=12', (12, 48, 12, 96, 3, 3, 1, 0, 2231)),
    ('cityscapes:net=resnet,student=8', (8, 48, 12, 96, 3, 3, 1, 0, 2231)),
    ('cityscapes:net=resnet,student=24', (24, 96, 24, 128, 3, 3, 1, 0, 2231))])
def test_published_pair_runs(name, row):
  c = config.load(f'omgd/{name}')
  m = c.stages.omgd.method
  disc = m.adversary.disc
  assert (m.student.ngf, m.wide.ngf, m.deep.ngf, disc.ndf, disc.shared, m.teacher_every, c.batch,
          m.distill.taps.weight, c.stages.omgd.steps // 1000) == row
  unet = 'resnet' not in name
  assert {m.student.norm, m.wide.norm, m.deep.norm, disc.norm} == {
      'batch' if unet else 'instance'} and m.adversary.loss == 'hinge'
  assert (c.data.size, c.data.load) == (256, 286)
  built = build.method(c, 'omgd')
  assert set(methods.PUBLISHED) <= set(built.distill.terms)
  assert (built.adv_weight, built.recon_weight, built.init_scheme) == (1, 100, 'normal')
  assert built.distill.taps.similarity == 'channel_means'
  assert built.adversary.disc.heads == ('wide', 'deep')
  assert c.data.get('direction', 'AtoB') == ('BtoA' if 'city' in name else 'AtoB')


@pytest.mark.parametrize('name, student, wide, tap, blocks, teachers, students', [
    ('horse2zebra', 16, 64, 500, 20, 266_800, 1_067_200),
    ('horse2zebra:student=12', 12, 48, 500, 17, 266_800, 1_088_544),
    ('horse2zebra:student=8', 8, 48, 500, 25, 266_800, 1_067_200),
    ('summer2winter', 16, 64, 100, 34, 246_200, 1_004_496),
    ('summer2winter:student=12', 12, 48, 100, 34, 246_200, 1_004_496),
    ('summer2winter:student=8', 8, 48, 100, 34, 246_200, 1_004_496)])
def test_published_runs_without_pairs(name, student, wide, tap, blocks, teachers, students):
  c = config.load(f'omgd/{name}')
  m, schedule = c.stages.omgd.method, c.stages.omgd.method.schedule
  assert (m.student.ngf, m.cycle.generator.ngf, m.distill.taps.weight, c.batch) == (
      student, wide, tap, 1)
  assert schedule.total == teachers and schedule.student_steps == 4 * schedule.teacher_steps
  assert c.stages.omgd.steps - schedule.total == students == blocks * schedule.student_steps
  assert m.cycle.adversary.loss == 'lsgan' and m.cycle.adversary.disc.ndf == 64
  built = build.method(c, 'omgd')
  cycle = built.cycle
  assert (cycle.cycle_weight, cycle.identity_weight, cycle.pool) == (10, 5, 50)
  assert tuple(c.evaluate.real.split) == ('train', 'test')


def pictures(folder, count, width, height):
  folder.mkdir(parents=True)
  rng = np.random.default_rng(0)
  for i in range(count):
    Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8)).save(folder / f'{i}.png')


@pytest.mark.parametrize('name, real', [('edges2shoes', 4), ('horse2zebra', 8)])
def test_published_runs_can_take_their_steps(name, real, tmp_path):
  """Small runs of their methods are trained and measured in test_translation_runs.py, and such
  networks' steps are compared with published ones in test_trajectories.py."""
  for part in ('train', 'val') if 'edges' in name else ('trainA', 'trainB', 'testA', 'testB'):
    pictures(tmp_path / 'data' / part, 4, 80 if 'edges' in name else 40, 40)
  c = config.load(f'omgd/{name}:smoke,path={tmp_path / "data"}')
  if 'horse' in name:  # nine blocks of four networks take long to trace
    method = c.stages.omgd.method
    with c.unlocked():
      method.student.blocks = method.cycle.generator.blocks = 1
    method.distill.taps.names = ('stem', 'block1')
  run = Run(c, tmp_path / 'run', Reporter(quiet=True))
  dry_run.check(run)
  method, prepare, batch, state = step_profile.untrained(run.stages['omgd'])
  after, logs = jax.eval_shape(method.step, state, core.normalise(prepare(batch)))
  assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
  assert 'loss' in logs['student'] and 'loss' in logs['disc']
  assert run.generator('omgd').evaluator().protocol['real_count'] == real


@pytest.mark.full
def test_a_published_run_trains_for_a_moment(tmp_path):
  for part in ('train', 'val'):
    pictures(tmp_path / 'data' / part, 4, 80, 40)
  c = config.load(f'omgd/edges2shoes:smoke,path={tmp_path / "data"}')
  c.batch = 4
  results = jgc.run(c, tmp_path / 'run', quiet=True)
  assert results['generators']['omgd']['last']['step'] == 4


# --- CAT ---


@pytest.mark.parametrize('name, row', [
    # Budget, align, recon of teacher and student, ndf, start, norm, steps of teacher and student.
    ('horse2zebra', (2.6e9, 4., None, 5., 64, 'reinit_keep_norm', 'instance_affine', 41_000,
                     16_000)),
    ('horse2zebra:reverse', (2.6e9, .4, None, 5., 64, 'reinit_keep_norm', 'instance_affine', 41_000,
                          16_000)),
    ('horse2zebra:reverse,batch_stat', (2.6e9, .4, None, 5., 64, 'reinit', 'batch_stat', 41_000,
                                     16_000)),
    ('cityscapes', (5.6e9, 2., 100., 100., 128, 'reinit', 'batch', 115_000, 46_250)),
    ('maps', (4.6e9, 5.2, 10., 100., 128, 'reinit', 'batch', 51_000, 19_500))])
def test_published_students_of_budgets(name, row):
  c = config.load(f'cat/{name}')
  teacher, student = c.stages.teacher, c.stages.student
  adversary = student.method.adversary.disc
  assert (student.prune.budget, student.method['align_weight'], teacher.method.get('recon_weight'),
          student.method.recon_weight, adversary.ndf, student.prune.student_init, adversary.norm,
          teacher.steps, student.steps) == row
  assert (teacher.batch, student.batch, student.prune.min_channels, student.prune.unit) == (
      32, 80, 16, 'cat') and student.prune.cat_search
  built = build.method(c, 'student', 'teacher')
  assert (built.similarity, built.taps) == ('ka', ('stem', 'block3', 'block6', 'block9'))
  assert built.teacher == DEFAULT_TEACHER.clone(norm=adversary.norm)
  assert built.adversary.loss == ('hinge' if built.paired else 'lsgan')
  assert c.data.get('direction', 'AtoB') == ('AtoB' if name == 'horse2zebra' else 'BtoA')
  rate = student.method.tx.learning_rate
  assert (rate.value, rate.constant * rate.epoch + rate.decay * rate.epoch) == (2e-4, student.steps)


DEFAULT_TEACHER = nn.inception(64, 9, reduction=6)


def test_published_label_map_students():
  c = config.load('cat/gaugan')
  assert [c.stages[name].prune.budget for name in c.run[1:]] == [3e10, 5.6e9]
  assert {c.stages[name].steps for name in c.run} == {200 * 185} and c.batch == 16
  built = build.method(c, 'student_5', 'teacher')
  assert (built.match_weight, built.feature_weight, built.align_weight, built.taps) == (
      10, 10, .5, ('head', 'middle1', 'up1'))
  assert built.teacher == nn.inception_spade(64, slope=0.01)  # the student keeps its teacher's
  rates = [c.stages.student_5.method[key] for key in ('tx', 'adversary')]
  assert (rates[0].learning_rate.value, rates[1].tx.learning_rate.value, rates[0].b1) == (
      1e-4, 4e-4, 0)


BEFORE = json.loads((Path(__file__).parent / 'golden/configs_before_renaming.json').read_text())


@pytest.mark.parametrize('name', BEFORE)
def test_a_config_that_was_stored_under_older_keys_is_the_config_of_today(name):
  assert config.to_json(config.from_json(BEFORE[name])) == config.to_json(config.load(name))


def test_what_older_configs_could_do_and_is_gone_is_refused():
  stored = json.loads(json.dumps(BEFORE['kd/digits:smoke']))
  stored['stages']['student_mse']['method']['teacher_mode'] = 'batch'
  with pytest.raises(ValueError, match="teacher_mode='batch' is of an earlier version"):
    config.from_json(stored)
  student = stored['stages']['student_mse']['method']
  student.update(teacher_mode='inference', student={**student['student'], 'form': 'plain'})
  revived = config.from_json(stored).stages.student_mse.method
  assert revived.student.implementation == 'reference' and 'teacher_mode' not in revived


def test_a_width_that_was_not_published_is_refused():
  with pytest.raises(ValueError, match='student=24; published with unet are 16, 12, 8'):
    config.load('omgd/edges2shoes:student=24')
  with pytest.raises(ValueError, match="net='vgg'; one of unet, resnet"):
    config.load('omgd/edges2shoes:net=vgg')


@pytest.mark.parametrize('task', ['colorize', 'edges2photo', 'emoji', 'grass2gravel'])
def test_sample_runs_have_students_twenty_times_smaller(task):
  c = config.load(f'omgd/{task}:rivals')
  rows = {(row['stage'], row['role']): row['macs'] for row in experiment.describe(c)}
  teacher = rows['omgd', 'generator' if task == 'grass2gravel' else 'wide']
  assert teacher / rows['omgd', 'student'] >= 20
  assert rows['teacher', 'generator'] == teacher
  for rival in ('alone', 'alone_slow', 'offline'):
    assert rows['omgd', 'student'] in (rows.get((rival, 'generator')), rows.get((rival, 'student')))


@pytest.mark.parametrize('name', ['colorize:rivals', 'grass2gravel:rivals', 'horse2zebra:online',
                                  'edges2shoes'])
def test_an_override_changes_one_section_alone(name):
  c = config.load(f'omgd/{name}')
  seen = {}

  def walk(section, path):
    assert seen.setdefault(id(section), path) == path
    for key in section:
      if isinstance(section[key], ml_collections.ConfigDict):
        walk(section[key], f'{path}.{key}')

  walk(c, '')
  assert len(seen) > 10


SHARING = """from ml_collections import ConfigDict
from jaxgan_compress import config

def get_config(arg):
  adam = dict(name='adam', learning_rate=1e-3, b1=.5, at=[1])
  method = dict(name='GAN', tx=adam, adversary=dict(name='Adversary', tx=adam))
  c = config.base() if arg else ConfigDict(config.base().to_dict())
  c.stages = {name: {**config.STAGE, 'method': method} for name in ('one', 'two')}
  c.stages.three = c.stages.one
  c.evaluate.real = c.evaluate.test = dict(split='test')
  return c
"""


@pytest.mark.parametrize('arg', ['', 'base'])
@pytest.mark.parametrize('loaded', [
    lambda name: VERBS['train'].parse([
        f'--config={name}', '--workdir=x', '--config.stages.one.method.tx.learning_rate=5.',
        '--config.evaluate.test.split=val']).config,
    lambda name: config.load(name),
    lambda name: config.copied(config.schema._ran(*config.locate(name)))])
def test_no_section_of_a_config_is_shared(loaded, arg, tmp_path):
  (tmp_path / 'mine.py').write_text(SHARING)
  c = loaded(f'{tmp_path / "mine.py"}:{arg}')
  c.stages.one.method.tx.learning_rate, c.evaluate.test.split = 5., 'val'
  c.stages.one.method.tx.at.append(2)
  rates = [(tx.learning_rate, tx.at) for stage in (c.stages.one, c.stages.two, c.stages.three)
           for tx in (stage.method.tx, stage.method.adversary.tx)]
  assert rates == [(5., [1, 2])] + [(1e-3, [1])] * 5
  assert c.evaluate.real.split == 'test'
  sections = [c.stages.one.data, c.stages.one.prune, c.stages.two.data, c.stages.two.init_from]
  assert len(set(map(id, sections))) == 4


def test_what_python_assigns_twice_is_not_shared():
  c, adam = config.base(), dict(name='adam', b1=.5)
  c.stages = {name: config.stage(method=dict(tx=adam)) for name in ('one', 'two')}
  c.data, c.evaluate.real = adam, adam
  c.stages.three = c.stages.one
  c.stages.one.method.tx.b1 = c.data.b1 = .9
  assert c.stages.two.method.tx.b1 == c.stages.three.method.tx.b1 == c.evaluate.real.b1 == .5
  assert adam['b1'] == .5
  c.devices = 4
  assert config.base().devices is None
  c.data.size = 32
  c.evaluate.real.size = c.data.get_ref('size') * 2
  copy = config.copied(c)
  copy.devices = copy.data.size = 7
  assert (c.devices, c.data.size, c.evaluate.real.size) == (4, 32, 64)
  assert (copy.data.size, copy.evaluate.real.size) == (7, 14)
  loop = ml_collections.ConfigDict()
  loop.inside = loop
  with pytest.raises(ValueError, match='contains itself'):
    c.data = loop


@pytest.mark.parametrize('task', ['colorize', 'grass2gravel', 'shapes'])
def test_budgets_of_sample_students_are_shares_of_their_teacher(task):
  c = config.load(f'cat/{task}:shares=10+30,rivals')
  rows = {(row['stage'], row['role']): row for row in experiment.describe(c)}
  teacher = rows['teacher', 'generator']['macs']
  for share in (10, 30):
    for name in ('taught', 'cat', 'alone', 'fresh', 'narrow'):
      assert c.stages[f'{name}_{share}'].prune.budget == share / 100 * teacher
    assert rows[f'cat_{share}', 'student']['budget'] == share / 100 * teacher
  assert ('online_30' in c.run) == (task != 'shapes')
  assert {'kept_10', 'blind_10'} < set(c.run) and 'blind_30' not in c.run


@pytest.mark.parametrize(('kind', 'first'), [('omgd', 'omgd'), ('cat', 'teacher')])
def test_emoji_runs_are_what_their_arguments_say(kind, first):
  c = config.load(f'{kind}/emoji:size=128,pair=flat2shaded,path=pictures')
  assert c.run[0] == first and experiment.workdir.named_paths(c) == {'data.path': 'pictures'}
  assert c.data.to_dict() == dict(name='samples:emoji', size=128, pair='flat2shaded',
                                  path='pictures')
  arg = config.parse_arg('smoke', smoke=False, size=64, pair='mono2flat', path='nowhere')
  smoke = configs.omgd._stages.emoji(c, arg).data
  assert smoke.to_dict() == dict(name='samples:icons', size=64, pair='mono2flat')
  assert build.source(smoke)[0]['target'].shape == (64, 64, 3)


def test_students_that_take_turns_learn_to_their_end():
  c = config.load('omgd/grass2gravel:blocks=250')
  rate = build.make(c.stages.omgd.method.tx.learning_rate.to_dict(),
                    'jaxgan_compress.train.schedules', 'x')
  assert c.stages.omgd.steps == 600 + 3 * 1000 and rate(1400) == np.float32(4e-3) > rate(2900) > 0


def test_a_stage_of_an_older_run_has_the_defaults_of_younger_keys():
  stored = config.to_json(config.load('kd/digits:smoke'))
  del stored['stages']['teacher']['shift'], stored['steps_per_call']
  found = config.from_json(stored)
  assert found.stages.teacher.shift == 0 and found.steps_per_call == 1


def test_a_stage_does_not_learn_from_itself():
  c = config.load('kd/digits:smoke')
  c.stages.student_mse.teacher = ('student_mse',)
  with pytest.raises(ValueError, match="'student_mse', which run does not have before it"):
    build.validate(c)
