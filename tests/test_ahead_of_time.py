"""Programs compiled for machines that are not here: what is read of them, and the verb compile."""

import argparse
import functools
import importlib.util
import json
import subprocess
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import Mesh

from jaxgan_compress import analysis, config, experiment, parallel
from jaxgan_compress.analysis import ahead_of_time, roofline, targets
from jaxgan_compress.cli import main
from jaxgan_compress.core import xla

tpu = pytest.mark.skipif(importlib.util.find_spec('libtpu') is None,
                         reason='the compiler of TPUs, libtpu, is not installed')
gpu = pytest.mark.skipif(importlib.util.find_spec('jax_cuda13_plugin') is None,
                         reason='the compiler of GPUs, jax[cuda13], is not installed')
TEXT = '''
HloModule jit_step

%turn (p: f32[8,128]) -> f32[8,128] {
  %p = f32[8,128]{1,0} parameter(0)
  ROOT %f.1 = f32[8,128]{1,0} fusion(%p), kind=kLoop, calls=%c, metadata={op_name="jit(step)/shard_map/transpose(jvp(Net))/block1/while/body/conv_general_dilated"}, backend_config={"estimated_cycles":"100"}
}

%bound (q: s32[]) -> pred[] {
  %q = s32[] parameter(0)
  %constant.7 = s32[] constant(7)
  ROOT %less = pred[] compare(%q, %constant.7), direction=LT
}

%either (r: f32[8,128]) -> f32[8,128] {
  ROOT %f.3 = f32[8,128]{1,0} fusion(%r), kind=kLoop, calls=%e, backend_config={"estimated_cycles":"40"}
}

%or (r: f32[8,128]) -> f32[8,128] {
  ROOT %f.4 = f32[8,128]{1,0} fusion(%r), kind=kLoop, calls=%f, backend_config={"estimated_cycles":"2"}
}

ENTRY %main (a: f32[8,128]) -> f32[8,128] {
  %a = f32[8,128]{1,0} parameter(0)
  %copy.1 = bf16[8,128]{0,1} copy(%a), backend_config={"estimated_cycles":"30"}
  %w = f32[8,128]{1,0} while(%a), condition=%bound, body=%turn
  %cond.1 = f32[8,128]{1,0} conditional(%i, %a, %a), branch_computations={%either, %or}
  %all-reduce.1 = (f32[8,128]{1,0}, bf16[4]{0}) all-reduce(%w, %copy.1), to_apply=%add
  ROOT %f.2 = f32[8,128]{1,0} fusion(%w), kind=kLoop, calls=%d, metadata={op_name="jit(step)/jvp(Net)/jit(relu)/max"}, backend_config={"estimated_cycles":"5"}
}
'''  # noqa: E501 - a compiler's lines


def test_a_program_is_read_as_worked_by_hand():
  lines, times = ahead_of_time._executed(roofline.parse(TEXT))
  assert ahead_of_time._cycles(lines, times) == 7 * 100 + 30 + 5 + 40 + 2
  assert ahead_of_time._collectives(lines, times) == {'all-reduce': (1, 8 * 128 * 4 + 8)}
  assert [(one.place, one.count, one.result, one.cycles)
          for one in ahead_of_time._costliest(lines, times)] == [
      ('Net/block1: convolution, gradient', 1, 'f32[8,128]', 700),
      ('outside networks: rearrangement in memory', 3, 'f32[8,128]', 72),
      ('Net: elementwise arithmetic', 1, 'f32[8,128]', 5)]


@pytest.mark.parametrize('name, message', [
    ('v5e:2x2', 'tpu:CHIP:TOPOLOGY'), ('tpu', 'no known chip'), ('tpu:v9:2x2', 'v5e, v5p'),
    ('gpu:b100', 'h100, a100'), ('tpu:v5e', 'as in tpu:v5e:2x2'), ('tpu:v5p:2x2', 'tpu:v5p:2x2x2'),
    ('tpu:v5e:0x2', 'grid of 2 sides'), ('gpu:h100:2', 'give gpu:h100')])
def test_targets_that_do_not_exist(name, message, capsys):
  with pytest.raises(ValueError, match=message):
    targets.parse_target(name)
  assert main.main(['compile', '--config=kd/digits', f'--target={name}']) == 2
  assert message in capsys.readouterr().err


def test_a_compiler_that_is_missing(monkeypatch, capsys):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  assert main.main(['compile', '--config=kd/digits', '--target=tpu:v5e:2x2']) == 2
  assert "pip install 'jaxgan-compress[tpu]'" in capsys.readouterr().err


def test_what_is_compiled_follows_the_target():
  with xla.building_for('tpu'):
    assert xla.platform() == 'tpu'
    assert xla.compiler_options()['xla_tpu_scoped_vmem_limit_kib'] == '12288'
  assert xla.platform() == jax.default_backend()


def test_a_method_computes_in_another_type():
  methods = [experiment.compilation.untrained(config.load('omgd/colorize'), 'omgd', 1, dtype)[0]
             for dtype in (None, 'bfloat16')]
  assert {module.dtype for module in methods[0].modules.values()} == {jnp.float32}
  assert {module.dtype for module in methods[1].modules.values()} == {jnp.bfloat16}


def test_stages_of_published_networks_need_neither_their_files_nor_data():
  c = config.load('superres/real_esrgan')
  found = {name: experiment.compilation.untrained(c, name, 2) for name in ('animevideov3', 'w24')}
  for *_, batch in found.values():
    assert {name: x.shape for name, x in batch.items()} == {
        'source': (2, 32, 32, 3), 'target': (2, 128, 128, 3)}
  # Its budget is that of 24 channels for recorded inputs of 64 pixels, larger than it trains on.
  assert set(found['w24'][0].modules['student'].hidden) == {24}
  assert analysis.count_params(found['animevideov3'][1].nets['generator'].params) == 621_424
  c.stages.anime.init_from = {'student': 'a file'}
  with pytest.raises(ValueError, match=r'init_from.student: .* it has generator'):
    experiment.compilation.untrained(c, 'anime', 2)


@pytest.fixture
def accelerators(monkeypatch, tmp_path):
  """The benchmark of that name, with pages of its own."""
  monkeypatch.syspath_prepend(Path(__file__).parent.parent / 'benchmarks')
  import accelerators
  monkeypatch.setattr(accelerators, 'ROWS', tmp_path / 'rows.jsonl')
  return accelerators


SCHEDULE = dict(name='optax:cosine_decay_schedule', decay_steps=10, init_value=1e-3)


def step_text(rows=2, **changes):
  """The step of kd/digits' student of a loss with several weights, as TPUs have it."""
  c = config.load('kd/digits')
  method = c.stages['student_joint'].method
  for place, value in changes.items():
    *parts, last = place.split('__')
    functools.reduce(getattr, parts, method)[last] = value
  mesh = Mesh(jax.devices()[:1], ('data',))
  with xla.building_for('tpu'):
    made, state, batch = experiment.compilation.untrained(c, 'student_joint', rows)
    return parallel.lower_step(made.step, mesh, state, batch).as_text()


unchanged = functools.cache(step_text)


@pytest.mark.parametrize('equal, changes', [
    (True, dict(adv_weight=.3, distill_weight=.5, tx__learning_rate__init_value=3e-2,
                tx__learning_rate__decay_steps=70, adversary__tx__b1=.7)),
    (True, dict(adversary__tx=dict(name='adam', b1=.5, learning_rate=SCHEDULE))),
    (False, dict(student__d=4)), (False, dict(rows=3))], ids=str)
def test_steps_that_differ_in_single_numbers_have_one_fingerprint(accelerators, equal, changes):
  texts = unchanged(), step_text(**changes)
  assert texts[0] != texts[1]
  one, other = map(accelerators.fingerprint, texts)
  assert (one == other) == equal


LOOP = """%3:2 = stablehlo.while(%a = %1, %b = %c) : tensor<4xf32>, tensor<i32>
 cond {
  %c_2 = stablehlo.constant dense<5> : tensor<i32>
} do {
  %c_2 = stablehlo.constant dense<1> : tensor<i32>
"""


@pytest.mark.parametrize('equal, one, other', [
    (True, '%cst = stablehlo.constant dense<2.0> : tensor<f32>', ''),
    (True, '%5 = stablehlo.convert %c : (tensor<i32>) -> tensor<f32>', ''),
    (True, '%5:2 = stablehlo.tanh %c_1 : tensor<2xf32>',
     '%6:2 = stablehlo.tanh %3#1 : tensor<2xf32>'),
    (True, '%5 = call @f(%1) : tensor<2xf32>', '%5 = call @f_1(%1) : tensor<2xf32>'),
    (True, 'func.func @main(%1: tensor<2xf32>, %2: tensor<i32>)', 'func.func @main(tensor<2xf32>)'),
    (True, LOOP, LOOP.replace('<1>', '<2>')), (False, LOOP, LOOP.replace('<5>', '<6>')),
    (False, '%5 = stablehlo.tanh %1 : tensor<2xf32>', '%5 = stablehlo.tanh %1 : tensor<2xbf16>'),
    (False, '%5 = stablehlo.tanh %1 : tensor<2xf32>', '%5 = stablehlo.tanh %1 : tensor<3xf32>'),
    (False, '%5 = stablehlo.tanh %1 : tensor<2xf32>', '%5 = stablehlo.sine %1 : tensor<2xf32>'),
    (False, '%5 = stablehlo.custom_call @f(%1) : tensor<2xf32>',
     '%5 = stablehlo.custom_call @g(%1) : tensor<2xf32>')])
def test_what_a_fingerprint_leaves_out(accelerators, equal, one, other):
  assert (accelerators.fingerprint(one) == accelerators.fingerprint(other)) == equal


def test_an_equal_program_is_not_compiled_again(accelerators, monkeypatch):
  made = analysis.Program('tpu:v5e:2x2', 1, seconds=7., cycles=5e6, hbm={
      'total': 1, 'available': 2, 'code': 0})
  compiled = []
  monkeypatch.setattr(accelerators, 'lower', lambda row, c, batch: types.SimpleNamespace(
      as_text=lambda: f'{row["stage"]} : tensor<2xf32>'))
  monkeypatch.setattr(accelerators, 'compiled', lambda row, *_: compiled.append(row) or made)
  for name, stage, machine in (
      ('kd/cifar10', 'd2_mse', 'tpu:v5e:2x2/1'), ('kd/celeba', 'd2_mse', 'tpu:v5e:2x2/1'),
      ('kd/mnist', 'd2_mse', 'tpu:v5e:4x4/16'), ('kd/cifar10', 'd2_joint', 'tpu:v5e:2x2/1')):
    row = accelerators.work({
        'config': name, 'stage': stage, 'machine': machine, 'dtype': 'float32', 'plain': False,
        'alone': name == 'kd/mnist', 'quick': False, 'published_batch': 128, 'batch': 128,
        'jax': '0.1', 'date': ''}, 20)
    with accelerators.ROWS.open('a') as file:
      file.write(json.dumps(row) + '\n')
  assert [row['config'] for row in compiled] == ['kd/cifar10', 'kd/mnist', 'kd/cifar10']
  rows = accelerators.known()
  same = rows['kd/celeba', 'd2_mse', 'tpu:v5e:2x2/1', 'float32', False]
  assert same['same_as'] == 'kd/cifar10 d2_mse' and same['cycles'] == 5e6
  lines = [line for line in '\n'.join(accelerators.page()).split('\n') if '5.0 M' in line]
  assert [line.split(' | ')[0] for line in lines] == [
      '| kd/celeba d2_mse, kd/cifar10 d2_mse', '| kd/cifar10 d2_joint', '| kd/mnist d2_mse']
  accelerators.ROWS.write_text(''.join(reversed(accelerators.ROWS.read_text().splitlines(True))))
  third = {**same, 'config': 'kd/digits'}
  assert accelerators.equal_row(third, 20)['config'] == 'kd/cifar10'  # not one that took figures
  assert ['7 s' in line for line in lines] == [False, False, True]  # alone


def row_of(accelerators, timeout=20, quick=False):
  """What is missing of one step."""
  given = dict(only='kd/digits teacher', machines='tpu:v5e:2x2/1', dtypes='float32', plain=False,
               alone=False)
  return list(accelerators.missing(argparse.Namespace(**given, timeout=timeout, quick=quick)))


def test_a_step_compiled_with_least_effort_is_compiled_again(accelerators, monkeypatch):
  found = dict(analysis.Program('tpu:v5e:2x2', 1, cycles=5e6, hbm={
      'total': 2**30, 'available': 2**34, 'code': 0}).to_dict(), fingerprint='f')
  monkeypatch.setattr(accelerators, 'stages', lambda: [('kd/digits', 'teacher')])
  [quick], [row] = row_of(accelerators, quick=True), row_of(accelerators)
  assert quick['quick'] and not row['quick']
  lines = [json.dumps({**one, **found, 'cycles': cycles}) + '\n'
           for one, cycles in ((row, 5e6), (quick, None))]
  accelerators.ROWS.write_text(lines[1])
  assert row_of(accelerators, quick=True) == [] and row_of(accelerators) == [row]
  assert accelerators.equal_row({**quick, 'fingerprint': 'f'}, 20)
  assert not accelerators.equal_row({**row, 'fingerprint': 'f'}, 20)
  assert '| 1.00 | least effort |' in '\n'.join(accelerators.page())
  accelerators.ROWS.write_text(''.join(lines))  # a quick one after the other changes nothing
  assert row_of(accelerators, quick=True) == row_of(accelerators) == []
  assert '| 1.00 | 5.0 M |' in '\n'.join(accelerators.page())


def test_a_compiler_that_crashes_is_in_the_table(accelerators, monkeypatch):
  monkeypatch.setattr(accelerators, 'stages', lambda: [('kd/digits', 'teacher')])
  monkeypatch.setattr(subprocess, 'run', lambda *_, **__: types.SimpleNamespace(
      returncode=-6, stdout=b''))
  [row] = row_of(accelerators)
  accelerators.compile_row(row, 20)
  assert row_of(accelerators) == []
  assert 'the compiler ended with SIGABRT' in '\n'.join(accelerators.page())


@pytest.mark.parametrize('said', [b'{"fingerprint": "f"}\n', None])
def test_a_step_that_takes_too_long_says_so(accelerators, monkeypatch, said):
  def never(command, timeout, **_):
    raise subprocess.TimeoutExpired(command, timeout, said)

  asked = functools.partial(row_of, accelerators)
  monkeypatch.setattr(accelerators, 'stages', lambda: [('kd/digits', 'teacher')])
  monkeypatch.setattr(subprocess, 'run', never)
  [row] = asked(20)
  accelerators.compile_row(row, 20)
  assert asked(20) == [] and asked(10) == [] and asked(40) == [row]
  assert 'not compiled within 20 minutes' in '\n'.join(accelerators.page())
  equal = {**row, 'stage': 'scratch', 'fingerprint': 'f'}
  assert bool(accelerators.equal_row(equal, 20)) == bool(said)
  assert not accelerators.equal_row(equal, 40)


def test_small_images_are_compiled_first(accelerators):
  names = ('cat/maps', 'teacher'), ('omgd/horse2zebra', 'omgd'), ('kd/digits', 'teacher')
  assert sorted(names, key=accelerators.size) == [*names[:0:-1], names[0]]


@tpu
def test_a_loop_costs_as_often_as_it_turns():
  def looped(turns):
    return lambda x: jax.lax.fori_loop(0, turns, lambda _, x: jnp.tanh(x @ x), x)

  x = jax.ShapeDtypeStruct((512, 512), jnp.float32)
  few, many = (analysis.compile_for(looped(turns), x, target='tpu:v5e:2x2') for turns in (16, 32))
  assert few.fits and few.collectives == {}
  assert 1.9 < many.cycles / few.cycles < 2.1


@tpu
def test_what_does_not_fit_says_so():
  x = jax.ShapeDtypeStruct((60_000, 60_000), jnp.float32)
  program = analysis.compile_for(lambda x: jnp.tanh(x @ x).T @ x, x, target='tpu:v5e:2x2')
  assert not program.fits and 'memory' in program.error


@tpu
def test_a_step_for_tpus(tmp_path, capsys):
  out = tmp_path / 'step.json'
  flags = ['compile', '--config=kd/digits', '--stage=student_mse', '--target=tpu:v5e:2x2',
           '--batch=8', f'--output={out}']
  assert main.main(flags) == 0
  said, found = capsys.readouterr().out, json.loads(out.read_text())
  assert found['devices'] == 4 and found['fits'] and found['cycles'] > 0
  assert found['collectives'].keys() == {'all-reduce'}
  assert 'Estimated by the compiler, not measured' in said and 'DCGANGenerator/layer' in said
  assert main.main(flags) == 2 and 'exists' in capsys.readouterr().err


@gpu
@pytest.mark.full
def test_a_step_for_gpus():
  program = experiment.compile_stage(config.load('kd/digits'), 'gpu:h100', 'student_mse', batch=8)
  assert program.fits and program.cycles is None
