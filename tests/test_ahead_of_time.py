"""Programs compiled for machines that are not here: what is read of them, and the verb compile."""

import importlib.util
import json

import jax
import jax.numpy as jnp
import pytest

from jaxgan_compress import analysis, config, experiment
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
