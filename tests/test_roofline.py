"""Where a step's time goes: arithmetic and bytes of compiled operations, and the verb profile."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from jaxgan_compress import config, experiment
from jaxgan_compress.analysis import roofline
from jaxgan_compress.cli import main


def operations(f, *shapes, dtype=jnp.float32):
  args = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
  return roofline.operations(jax.jit(f).lower(*args).compile().as_text()).values()


@pytest.mark.parametrize('f, shapes, expected', [
    (lambda a, b: a @ b, ((8, 32), (32, 16)), 2 * 8 * 32 * 16),
    # 6x6 outputs of 3x3x4 products for each of 5 features.
    (lambda x, k: lax.conv_general_dilated(
        x, k, (1, 1), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')),
     ((2, 8, 8, 4), (3, 3, 4, 5)), 2 * 2 * 36 * 9 * 4 * 5),
    # One filter a channel: no sum over channels.
    (lambda x, k: lax.conv_general_dilated(
        x, k, (1, 1), 'VALID', feature_group_count=4,
        dimension_numbers=('NHWC', 'HWIO', 'NHWC')), ((2, 8, 8, 4), (3, 3, 1, 4)),
     2 * 2 * 36 * 9 * 4),
    # Twice as large through zeros between pixels, of which a quarter is no zero.
    (lambda x, k: lax.conv_general_dilated(
        x, k, (1, 1), ((2, 2), (2, 2)), lhs_dilation=(2, 2),
        dimension_numbers=('NHWC', 'HWIO', 'NHWC')), ((1, 4, 4, 3), (4, 4, 3, 2)),
     2 * 64 * 16 * 3 * 2 / 4)])
def test_arithmetic_is_counted_by_hand(f, shapes, expected):
  assert max(each.flops for each in operations(f, *shapes)) == expected


def test_bytes_are_those_read_and_written():
  found = operations(lambda x: x + 1, (10, 10), dtype=jnp.bfloat16)
  assert max(each.bytes for each in found if each.opcode == 'fusion') in (
      400, 402)  # the 1 may be an operand


def test_the_longer_side_of_the_roof_counts():
  device = roofline.Device(flops=100, bandwidth=10)
  assert device.seconds(roofline.Operation('dot', '', '', 500, 20)) == 5
  assert device.seconds(roofline.Operation('dot', '', '', 50, 20)) == 2


def test_layers_are_named():
  assert roofline.layer_of('jit(f)/jvp(Net)/block1/conv/dot_general') == 'block1/conv/dot_general'
  assert roofline.layer_of('jit(f)/transpose(jvp(Net))/block1/dot') == 'gradient of block1/dot'


def test_profile_of_a_config_that_nothing_trained(tmp_path, capsys):
  # Which operations are the costliest is a matter of time, and of what else the machine does.
  args = ['profile', '--config=configs/kd/digits.py:smoke', '--steps=2', '--top=100']
  assert main.main([*args, f'--output={tmp_path}/trace']) == 0
  said = capsys.readouterr().out
  assert 'stage student_mse: a step takes' in said and '/layer' in said
  assert list(tmp_path.glob('trace/**/perfetto_trace.json.gz'))
  assert main.main([*args, f'--output={tmp_path}/trace']) == 2  # whose trace would be lost
  assert 'is not empty' in capsys.readouterr().err
  assert main.main([*args, f'--output={tmp_path}/other', '--stage=techer']) == 2
  assert "'teacher'" in capsys.readouterr().err


def test_profile_has_image_pools_and_stages_that_are_only_cut(tmp_path):
  """A CycleGAN remembers images, and here takes no more of its teacher than the size."""
  c = config.load('cat/grass2gravel:smoke')
  c.data.size = 32
  c.stages.teacher.method.generator.update(ngf=4, blocks=1)
  c.stages.teacher.method.pool = 2
  c.stages.alone_8.prune.update(budget=3.1e5, min_channels=1)
  found = experiment.profile(c, tmp_path / 'trace', 'alone_8', 1)
  assert found['stage'] == 'alone_8' and found['flops'] > 0


def test_profile_cuts_students_of_a_teacher_that_nothing_trained(tmp_path):
  c = config.load('cat/colorize:smoke')
  c.stages.teacher.method.generator.update(ngf=4, blocks=1)
  for stage in c.stages.values():
    if stage.prune:
      stage.prune.update(budget=1.24e6, min_channels=1)
      if 'taps' in stage.method:
        stage.method.taps = ('stem',)
  found = experiment.profile(c, tmp_path / 'trace', 'cat_8', 1)
  assert found['stage'] == 'cat_8' and found['flops'] > 0 and found['bytes'] > 0
