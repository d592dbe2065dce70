"""Runs of image-to-image methods from their configs: what is measured, shown and stored."""

import hashlib
import importlib.util
import json
import runpy

import jax
import numpy as np
import pytest
from PIL import Image

import jaxgan_compress as jgc
from jaxgan_compress import config, convert, distributed, experiment, nn
from jaxgan_compress.config import build
from jaxgan_compress.convert import packaged
from jaxgan_compress.data import sample_images
from jaxgan_compress.experiment import export
from jaxgan_compress.experiment import results as run_results
from jaxgan_compress.nn.files import arrays
from jaxgan_compress.parallel import spread
from jaxgan_compress.train.progress import Reporter
from tests.conftest import largest_difference

ADAM = dict(name='adam', learning_rate=2e-4, b1=.5)
DISTILL = dict(name='DistillLoss', ssim=dict(name='SSIM'), tv=dict(name='TotalVariation'),
               taps=dict(name='Taps', similarity='attention', weight=1., names=('stem',)))
PERCEPTUAL = {**DISTILL, 'feature': dict(name='Perceptual'), 'style': dict(name='Style'),
              'feature_net': dict(name='VGG', layers=('relu1_2', 'relu2_2'))}

pytestmark = pytest.mark.usefixtures('kept_programs')


def net(ngf, **fields):
  return dict(name='mobile_resnet', ngf=ngf, blocks=1, implementation='reference', **fields)


def adversary(inputs, loss, **disc):
  return dict(name='Adversary', tx=ADAM, loss=loss, disc=dict(
      name='PatchGAN', ndf=2, layers=1, inputs=inputs, **disc))


def base(task, **fields):
  c = config.base()
  c.update(batch=4, log_every=2, checkpoint={'every': 2}, cache=False)
  c.data = dict(name=f'samples:{task}', size=32)
  c.evaluate.update(**{
      'extractor': dict(name='random_vgg'), 'select': 'mmd', 'every': 2, 'count': 5, 'splits': 2,
      'real': dict(split='validation', count=6), 'test': dict(split='test', count=7), **fields})
  return c


def with_stages(c, **stages):
  c.stages = {name: config.stage(**fields) for name, fields in stages.items()}
  c.run = tuple(stages)
  return c


@pytest.fixture(scope='module')
def paired(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('paired') / 'run'
  teacher = dict(name='Pix2Pix', generator=net(4), adversary=adversary(6, 'hinge'), tx=ADAM)
  c = with_stages(
      base('colorize'), teacher=dict(steps=2, method=teacher, title='Teacher'),
      offline=dict(steps=2, teacher=('teacher',), method=dict(
          name='Offline', student=net(2), tx=ADAM, distill=DISTILL)),
      online=dict(steps=2, method=dict(
          name='OMGD', student=net(2), extra_students={'half': net(1)}, wide=net(4), tx=ADAM,
          adversary=adversary(6, 'hinge', heads=('wide',), shared=1), distill=PERCEPTUAL)))
  return workdir, c, jgc.run(c, workdir, quiet=True)


@pytest.fixture(scope='module')
def unpaired(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('unpaired') / 'run'
  c = with_stages(
      base('grass2gravel', test={}, real=dict(split=('validation', 'test'), count=5)),
      turns=dict(steps=8, method=dict(
          name='OMGDCycle', student=net(2), student_ba=net(1), tx=ADAM, distill=DISTILL,
          schedule=dict(name='AlternatingSchedule', teacher_steps=2, student_steps=2, total=4),
          cycle=dict(name='CycleGAN', generator=net(4), adversary=adversary(3, 'lsgan'), tx=ADAM))))
  return workdir, c, jgc.run(c, workdir, quiet=True)


def test_every_learner_of_a_pair_run_has_a_row(paired):
  _, _, results = paired
  rows = results['generators']
  assert list(rows) == ['teacher', 'offline', 'online', 'online.half', 'online.wide']
  assert {name: row['teacher'] for name, row in rows.items()} == {
      'teacher': None, 'offline': 'teacher', 'online': 'online.wide',
      'online.half': 'online.wide', 'online.wide': None}
  assert [row['role'] for row in rows.values()] == ['teacher', 'student', 'student', 'student',
                                                    'teacher']
  assert all(row['from_scratch'] for row in rows.values())
  assert rows['online.wide']['title'] == 'online: wide' and rows['teacher']['title'] == 'Teacher'
  student = nn.mobile_resnet(2, 1)
  macs = jgc.macs(student, (1, 32, 32, 3))
  assert rows['online']['macs'] == rows['offline']['macs'] == macs
  assert rows['online']['ratio_macs'] == rows['teacher']['macs'] / macs
  for name, row in rows.items():
    measures = row['best']['measures']
    assert {'mmd', 'fd', 'psnr', 'ssim', 'l1'} <= set(measures)
    assert ('psnr_teacher' in measures) == (row['role'] == 'student')
    assert 'test[:5]' in measures['psnr']['protocol']['inputs'] and measures['mmd'][
        'protocol']['real_count'] == 7
    assert 'validation' in row['best']['chosen_by']['mmd']['protocol']['data']
    assert row['ms_per_image_batch4'] > 0, name


def test_measuring_again_gives_the_same(paired):
  workdir, _, results = paired
  found = experiment.evaluate(workdir)
  for name, row in results['generators'].items():
    for key in ('fd', 'psnr', 'ssim'):
      np.testing.assert_allclose(found[name][key].value, row['best']['measures'][key]['value'],
                                 rtol=1e-5)


def test_the_report_shows_inputs_and_targets(paired, unpaired):
  page = (paired[0] / 'report.html').read_text()
  assert page.count('<img') == 7 and 'Input' in page and 'Target' in page
  assert 'times fewer multiply-accumulate operations' in page and 'KD paper' not in page
  page = (unpaired[0] / 'report.html').read_text()
  # Two directions: inputs and real images of each, two generators of each.
  assert page.count('<img') == 8 and '>Target<' not in page
  assert all(f'{what}: the other direction' in page for what in ('Generated images', 'Quality'))


def test_both_directions_are_measured_the_right_way_round(unpaired):
  _, _, results = unpaired
  rows = results['generators']
  assert list(rows) == ['turns', 'turns.student_ba', 'turns.generator', 'turns.generator_ba']
  for name, (drawn, compared) in {'turns': ('grass', 'gravel'),
                                  'turns.generator_ba': ('gravel', 'grass'),
                                  'turns.student_ba': ('gravel', 'grass')}.items():
    protocol = rows[name]['last']['measures']['fd']['protocol']
    assert drawn in protocol['inputs'] and compared in protocol['data']
    # With two splits: compared with both, drawn from the last.
    assert protocol['real_count'] == 10 and 'test' in protocol['inputs']
  assert rows['turns.student_ba']['teacher'] == 'turns.generator_ba'
  assert rows['turns.generator_ba']['from'] == 'target' and set(results) >= {'real', 'real_ba'}


def test_the_best_teacher_is_promoted_at_the_end_of_each_turn(unpaired):
  workdir, _, _ = unpaired
  for role in ('generator', 'generator_ba'):
    lines = [json.loads(line) for line in
             (workdir / 'turns' / f'evaluations_{role}.jsonl').read_text().splitlines()]
    assert [line['step'] for line in lines] == [2, 6]
    best = min(line['measures']['mmd']['value'] for line in lines)
    state = experiment.open_run(workdir).stages['turns'].state()
    np.testing.assert_allclose(state.frozen['best'][role]['score'], best, rtol=1e-6)


def test_a_finished_stage_resumes_to_the_same_bits_from_its_turns(unpaired, tmp_path, monkeypatch):
  """Stopped after the first promotion, in the middle of the student's turn."""
  for closing in ('tabulate', 'write_report'):  # the states are looked at, and nothing else
    monkeypatch.setattr(run_results, closing, lambda *_: {})
  _, c, _ = unpaired
  calls = []

  class Stop:
    caught, exit_code = type('Signal', (), {'name': 'SIGTERM'}), 143

    def __enter__(self):
      return self

    def __exit__(self, *_):
      pass

    def should_stop(self):
      calls.append(1)
      return len(calls) > 4

    ask = should_stop

  with monkeypatch.context() as patch:
    patch.setattr(distributed, 'StopSignal', Stop)
    with pytest.raises(experiment.Interrupted, match='step [34] of 8'):
      jgc.run(c, tmp_path / 'run', quiet=True)
  jgc.run(c, tmp_path / 'run', quiet=True)
  ours, theirs = (experiment.open_run(path).stages['turns'].state()
                  for path in (tmp_path / 'run', unpaired[0]))
  assert largest_difference(ours, theirs) == 0


def test_pools_of_other_replicas_are_read_and_not_trained_on(unpaired):
  """What was trained on four devices can be measured on one, and says who can go on with it."""
  workdir, _, _ = unpaired
  state = experiment.open_run(workdir).stages['turns'].state()
  assert len(state.replica_state['disc']['count']) == jax.device_count() == 4
  with pytest.raises(ValueError, match='remembers images for 4 replicas and 2 are to go on'):
    spread(state, 2)


def test_a_direction_of_one_stage_is_refused(paired):
  c = config.from_json(config.to_json(paired[1]))
  with c.unlocked():
    c.stages.teacher.data = {'direction': 'BtoA'}
  with pytest.raises(ValueError, match="give it as data.direction, which evaluation follows"):
    build.validate(c)


def test_labels_are_read_back_by_a_trained_network(tmp_path):
  c = base('shapes', segmenter=dict(stage='reader'), select='miou', held_out=dict(split='test'))
  c = with_stages(
      c, reader=dict(steps=2, method=dict(
          name='Classifier', label='label_map', tx=ADAM,
          classifier=dict(name='SmallSegmenter', classes=6))),
      gaugan=dict(steps=2, method=dict(
          name='GauGAN', tx=ADAM, feature_weight=0.,
          generator=dict(name='tests.test_omgd:OneBlock', width=2, labels=7),
          adversary=dict(name='Adversary', tx=ADAM, loss='hinge', disc=dict(
              name='MultiScale', ndf=2, layers=2, inputs=10)))))
  results = jgc.run(c, tmp_path / 'run', quiet=True)
  measures = results['generators']['gaugan']['best']['measures']
  assert 0 <= measures['miou']['value'] <= 1 and len(measures['iou']['value']) == 6
  assert 'mIoU' in (tmp_path / 'run' / 'report.html').read_text()
  # What is exported draws from files what the run draws, edges of instances and all.
  folder, _ = export.export_run(tmp_path / 'run', 'gaugan', to=('onnx',))
  scene = sample_images.scene(np.random.default_rng(3), 32)
  Image.fromarray(scene['label_map']).save(tmp_path / 'labels.png')
  Image.fromarray(scene['instances']).save(tmp_path / 'instances.tif')
  runpy.run_path(str(folder / 'run_onnx.py'))['main']([
      f'{tmp_path}/labels.png', f'{tmp_path}/generated.png',
      f'--instances={tmp_path}/instances.tif'])
  element = {name: x[None] for name, x in sample_images.label_element(scene).items()}
  draw = experiment.open_run(tmp_path / 'run').generator('gaugan').bound()
  expected = (np.asarray(draw(sample_images.label_batch(element, 6)['source']))[0] + 1) * 127.5
  drawn = np.asarray(Image.open(tmp_path / 'generated.png'), np.float32)
  assert np.abs(drawn - expected).max() < .51


def test_given_features_are_taken_and_checked_early(paired, tmp_path):
  _, c, _ = paired
  look = nn.VGG(layers=('relu1_2', 'relu2_2'))
  variables = nn.initialise(look, jax.random.key(5), scheme='he')
  nn.save(tmp_path / 'vgg.safetensors', look, variables)
  c = config.from_json(config.to_json(c))
  c.run = ('online',)
  c.stages.online.steps = 2
  with c.unlocked():
    c.stages.online.init_from = {'features': str(tmp_path / 'nowhere.safetensors')}
  with pytest.raises(ValueError,
                     match=r'stages.online.init_from.features: there is no file .*convert'):
    build.validate(c)
  c.stages.online.init_from.features = str(tmp_path / 'vgg.safetensors')
  c.evaluate.extractor = {}  # nothing is to be measured
  jgc.run(c, tmp_path / 'run', quiet=True)
  state = experiment.open_run(tmp_path / 'run').stages['online'].state()
  assert largest_difference(state.frozen['features'], variables) == 0


def test_weights_of_a_package_are_named_in_a_config(paired, tmp_path, monkeypatch):
  c = config.from_json(config.to_json(paired[1]))
  c.run = ('online',)
  with c.unlocked():
    c.stages.online.method.distill = {**PERCEPTUAL, 'feature_net': dict(
        name='EfficientNetLite0', layers=('stride2', 'stride4'))}
  with pytest.raises(ValueError, match="is no measure; give features='efficientnet_lite0'"):
    build.validate(c)
  with c.unlocked():
    c.stages.online.init_from = {'features': 'efficientnet_lite0'}
  with monkeypatch.context() as patch:
    patch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(ImportError, match=r"install 'jaxgan-compress\[features\]'"):
      build.validate(c)
  # It is no file that a run could miss.
  assert not experiment.workdir.named_paths(c)
  network = nn.EfficientNetLite0()
  variables = nn.initialise(network, jax.random.key(5), scheme='he')
  (tmp_path / '__init__.py').touch()
  package = convert.PACKAGED['efficientnet_lite0']._replace(
      package=tmp_path.name, file='weights.safetensors')
  arrays.write(tmp_path / package.file, convert.to_torch(network, variables))
  package = package._replace(sha256=hashlib.sha256(
      (tmp_path / package.file).read_bytes()).hexdigest())
  monkeypatch.setattr(packaged, 'PACKAGED', {'efficientnet_lite0': package})
  monkeypatch.syspath_prepend(tmp_path.parent)
  build.validate(c)
  stage = experiment.Run(c, tmp_path / 'run', Reporter(quiet=True)).stages['online']
  found = stage.named_files(stage.method)['features'].variables
  assert largest_difference(found, variables) == 0


@pytest.mark.parametrize('change, said', [
    (lambda c: c.stages.turns.update(steps=9), 'steps=9 and its schedule takes 8 .*give steps=8'),
    (lambda c: c.stages.turns.method.cycle.update(pools=3), "no argument 'pools'; did you mean"),
    (lambda c: c.stages.turns.method.distill.taps.update(similarity='x'), 'one of ka, cka'),
    (lambda c: c.evaluate.update(segmenter=dict(stage='reader')), "stage='reader' is not in run")])
def test_mistakes_are_named(unpaired, change, said):
  c = config.from_json(config.to_json(unpaired[1]))
  with c.unlocked():
    change(c)
  with pytest.raises(ValueError, match=said):
    build.validate(c)


def test_data_of_another_kind_is_refused(unpaired, tmp_path):
  c = config.from_json(config.to_json(unpaired[1]))
  c.data.name = 'samples:shapes'
  with pytest.raises(ValueError, match='has 3 channels|takes|inputs'):
    jgc.run(c, tmp_path / 'run', quiet=True)
  assert not (tmp_path / 'run').exists()
