"""Every shipped config takes its steps; every mistake in one is told before time is spent."""

import json
from pathlib import Path

import ml_collections
import pytest
import tensorflow_datasets

import jaxgan_compress as jgc
from jaxgan_compress import build, config, configs
from jaxgan_compress.nn import DCGANGenerator

SHIPPED = ('kd/celeba', 'kd/cifar10', 'kd/digits', 'kd/mnist')


def test_all_shipped_configs_are_tested_here():
  folder = Path(configs.__file__).parent
  assert tuple(sorted(f'{path.parent.name}/{path.stem}' for path in folder.glob('*/*.py')
                      if not path.name.startswith('_'))) == SHIPPED


@pytest.mark.parametrize('name', SHIPPED)
def test_every_shipped_config_can_be_built(name):
  c = config.load(name)
  build.validate(c)
  restored = config.from_json(json.loads(json.dumps(config.to_json(c))))
  build.validate(restored)
  assert config.to_json(restored) == config.to_json(c)


@pytest.mark.parametrize('name', [name for name in SHIPPED if name != 'kd/digits'])
def test_catalogue_configs_run_on_mock_data(name, tmp_path):
  c = config.smoke(config.load(f'{name}:smoke'), steps=1)
  c.update(log_every=1, batch=4, checkpoint={'every': 1})
  c.run = tuple(stage for stage in c.run if not stage.endswith(('wide', 'small')))
  with tensorflow_datasets.testing.mock_data(num_examples=20):
    results = jgc.run(c, tmp_path / 'run', quiet=True)
  assert set(results['generators']) == {'teacher_d2', 'd1_mse', 'd1_joint'}
  assert results['generators']['d1_mse']['params_paper'] == 672 + 12831 + 1


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
  for text, said in (('smoek', "'smoke'"), ('n=two', 'a int is expected, as in n=3'),
                     ('d=a+b', 'as in d=1'), ('smoke=maybe', 'bool')):
    with pytest.raises(ValueError, match=said):
      config.parse_arg(text, smoke=False, d=(1,), n=3)


def set_key(path, value):
  def change(c):
    *parents, last = path.split('.')
    with c.unlocked():
      for parent in parents:
        c = c[parent]
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
    (set_key('evaluate.every', 0), 'evaluate.every=0; at least 1'),
    (set_key('evaluate.count', 1), 'evaluate.count=1; at least 2'),
    (set_key('evaluate.select', 'mse'), "know no 'mse'; one of fd, "),
    (set_key('stages.student_mse.teacher_checkpoint', 'latest'), 'one of best, last'),
    (set_key('run', ('teacher', 'classifier')), "has 'teacher' before 'classifier'"),
    (set_key('stages.student_joint.method.adversary.disc', {
        'name': 'DCGANDiscriminator', 'd': 3, 'size': 32}), "or set disc_from='fresh'"),
    (set_key('replicas', 3), 'replicas=3 does not divide over 4 devices'),
    (set_key('batch', 6), 'batch 6 does not divide over 4 replicas; use 8')])
def test_a_mistake_is_named_with_its_place_and_a_cure(change, said, tmp_path):
  c = config.load('kd/digits:smoke')
  change(c)
  with pytest.raises(ValueError, match=said):
    jgc.run(c, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_names_can_come_from_anywhere():
  assert build.resolve('jaxgan_compress.nn.dcgan:DCGANGenerator', 'optax') is DCGANGenerator
  with pytest.raises(ValueError, match="cannot import nowhere"):
    build.resolve('nowhere:Thing', 'optax')
  with pytest.raises(ValueError, match="no '_widths'"):
    build.resolve('jaxgan_compress.nn.dcgan:_widths', 'optax')


def test_a_config_is_found_by_path_or_by_name(tmp_path):
  assert config.locate('configs/kd/digits.py:smoke')[1] == 'smoke'
  assert config.locate('kd/digits')[0].name == 'digits.py'
  mine = tmp_path / 'mine.py'
  mine.write_text('from jaxgan_compress import config\n'
                  'def get_config(arg): return config.base()\n')
  assert isinstance(config.load(f'{mine}:x'), ml_collections.ConfigDict)
  with pytest.raises(FileNotFoundError, match='shipped are configs/kd/celeba.py'):
    config.load('configs/kd/digit.py')


def test_differences_are_dotted():
  assert config.differences({'a': {'b': 1, 'c': 2}}, {'a': {'b': 1, 'c': 3}, 'd': 4}) == {
      'a.c': (2, 3), 'd': ('absent', 4)}


def test_a_method_on_images_is_not_run_by_config_yet():
  c = config.base()
  c.data = dict(name='samples:colorize', size=32)
  c.stages = {'omgd': config.stage(steps=2, method=dict(
      name='OMGD', student=dict(name='mobile_resnet', ngf=2),
      wide=dict(name='mobile_resnet', ngf=4),
      tx=dict(name='adam', learning_rate=2e-4)))}
  c.run = ('omgd',)
  with pytest.raises(ValueError, match='OMGD draws from images'):
    build.validate(c)
