"""Any network as a generator of the library, and pruned by trace."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import errors, nnx, traverse_util
from flax import linen as linen
from PIL import Image

from jaxgan_compress import analysis, core, export, nn, pruning
from jaxgan_compress.cli import main
from jaxgan_compress.config import build
from jaxgan_compress.configs.cat.any_network import Generator
from jaxgan_compress.core import Axes
from jaxgan_compress.tracing import laws
from jaxgan_compress.tracing.running import with_arrays_as_given

UNET = nn.Wrapped(Generator(4, depth=2))
SHAPE = 1, 16, 16, 3


@pytest.fixture(autouse=True)
def as_users_do():
  with jax.numpy_rank_promotion('allow'):
    yield


@pytest.fixture(scope='module')
def unet():
  """(the wrapped network, its variables with scales that rank, a batch)."""
  variables = jax.device_get(nn.initialise(UNET, jax.random.key(0), scheme='he'))
  rng = np.random.default_rng(0)
  flat = {path: rng.uniform(.2, 1, x.shape).astype(np.float32) if path[-1] == 'scale' else x
          for path, x in traverse_util.flatten_dict(variables).items()}
  return UNET, traverse_util.unflatten_dict(flat), rng.uniform(-1, 1, (2, 16, 16, 3)).astype('f')


class FromLatents(linen.Module):
  """Which repeats a width by number."""
  latent: int = 5

  @linen.compact
  def __call__(self, z):
    x = linen.relu(linen.Dense(4 * 4 * 6)(z)).reshape(-1, 4, 4, 6)
    x = linen.relu(linen.ConvTranspose(8, (4, 4), (2, 2), name='rise')(x))
    return linen.tanh(linen.Conv(3, (3, 3))(x))


class Sowing(linen.Module):
  @linen.compact
  def __call__(self, x):
    x = linen.relu(linen.Conv(8, (3, 3), name='first')(x))
    self.sow('intermediates', 'half', x[:, ::2, ::2])
    x = linen.relu(linen.Conv(6, (3, 3), name='second')(x))
    return linen.Conv(3, (3, 3), name='last')(x), x


class Scores(linen.Module):
  @linen.compact
  def __call__(self, x):
    return linen.Dense(3)(x.mean((1, 2)))


class Named(linen.Module):
  @linen.compact
  def __call__(self, x):
    return {'image': linen.Conv(3, (3, 3))(x)}


def largest(x):
  return float(jnp.abs(x).max())


def test_a_wrapped_network_is_its_network(unet):
  wrapped, variables, x = unet
  own = Generator(4, depth=2)
  assert jax.tree.map(jnp.shape, own.init(jax.random.key(0), x)) == jax.tree.map(
      jnp.shape, variables)
  image, taps = wrapped.apply(variables, x)
  assert (image == own.apply(variables, x)).all()
  assert {name: tap.shape for name, tap in taps.items()} == {
      'down1': (2, 8, 8, 8), 'middle': (2, 4, 4, 16), 'rise1': (2, 8, 8, 8)}
  (_, taps), states = wrapped.apply(variables, x, train=True, mutable=['batch_stats'])
  _, expected = own.apply(variables, x, train=True, mutable=['batch_stats'])
  assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), states, expected))
  assert (wrapped.takes, wrapped.scale, wrapped.input_kind) == (
      nn.layers.inputs.Images(3, 4), 1, 'image')


def test_images_of_other_sizes_are_refused():
  with pytest.raises(ValueError, match='this Generator takes multiples of 4 from 4 and got 18x16'):
    jax.eval_shape(UNET.init, jax.random.key(0), jnp.zeros((1, 18, 16, 3)))
  with pytest.raises(ValueError, match='makes no image .* of any size .*; give inputs='):
    print(nn.Wrapped(Scores()).takes)
  with pytest.raises(ValueError, match=r'or \(image, ...\), and this one returns a dict'):
    print(nn.Wrapped(Named()).takes)
  with pytest.raises(ValueError, match='takes multiples of 4 from 4 and got 18x16'):
    pruning.cost(UNET, UNET.plan(), (1, 18, 16, 3))


def test_taps_are_layers_by_path_and_what_is_sown():
  x = jnp.ones(SHAPE)
  wrapped = nn.Wrapped(Sowing(), taps=('second', 'half'))
  image, taps = wrapped.apply(wrapped.init(jax.random.key(0), x), x)
  assert image.shape == SHAPE and {name: tap.shape for name, tap in taps.items()} == {
      'second': (1, 16, 16, 6), 'half': (1, 8, 8, 8)}
  assert nn.Wrapped(Sowing()).tap_names == ('first', 'second')
  with pytest.raises(ValueError, match="Sowing has no layer 'third' .* first, second, last"):
    nn.Wrapped(Sowing(), taps=('third',)).init(jax.random.key(0), x)


@pytest.mark.parametrize('execution', ['module', 'program'])
def test_what_is_left_computes_what_the_masked_network_does(unet, execution):
  wrapped, variables, x = unet
  whole = analysis.macs(wrapped, SHAPE)
  found = pruning.prune(wrapped.clone(execution=execution), variables, SHAPE, budget=whole / 3)
  assert found.module.execution == execution
  assert found.cost == analysis.macs(found.module, SHAPE) <= whole / 3
  masked = {**variables, 'params': pruning.apply_masks(wrapped.plan(), variables['params'],
                                                       found.masks)}
  image, taps = jax.jit(found.module.apply)(found.variables, x)
  expected, of_whole = wrapped.apply(masked, x)
  assert largest(image - expected) < 1e-6 < largest(expected)
  assert taps['middle'].shape[-1] == found.masks['middle/Conv_0'].sum()
  assert largest(taps['down1']) == pytest.approx(largest(of_whole['down1']), rel=1e-5)
  states = found.module.apply(found.variables, x, train=True, mutable=['batch_stats'])[1]
  kept = pruning.compact(wrapped.plan(), wrapped.apply(
      masked, x, train=True, mutable=['batch_stats'])[1], found.masks)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), dict(states), kept)


def test_a_pruned_network_is_pruned_again_and_starts_anew(unet):
  wrapped, variables, x = unet
  whole = analysis.macs(wrapped, SHAPE)
  first = pruning.prune(wrapped, variables, SHAPE, budget=whole / 2)
  second = pruning.prune(first.module, first.variables, SHAPE, budget=whole / 5)
  assert second.cost == analysis.macs(second.module, SHAPE)
  chained = {name: np.flatnonzero(mask)[second.masks[name]].tolist()
             for name, mask in first.masks.items()}
  assert {name: list(channels) for name, channels in second.module.kept} == {
      name: channels for name, channels in chained.items()
      if len(channels) < wrapped.plan().groups[name].width}
  fresh = nn.initialise(second.module, jax.random.key(1), scheme='normal')
  assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, second.variables)
  assert jax.tree.map(jnp.shape, second.module.init(jax.random.key(1), x)) == jax.tree.map(
      jnp.shape, second.variables)
  assert second.module.plan().widths == pruning.widths(second.masks)


def test_a_network_that_repeats_a_width_runs_as_a_program(tmp_path):
  wrapped = nn.Wrapped(FromLatents())
  assert (wrapped.input_kind, wrapped.example().shape) == ('latent', (1, 5))
  plan = wrapped.plan()
  assert (plan.execution, plan.widths) == ('program', {'Dense_0': 6, 'rise': 8})
  variables = nn.initialise(wrapped, jax.random.key(0), scheme='he')
  found = pruning.prune(wrapped, variables, (1, 5), budget=20_000, criterion='l1')
  z = jax.random.normal(jax.random.key(1), (3, 5))
  masked = {'params': pruning.apply_masks(plan, variables['params'], found.masks)}
  image, taps = found.module.apply(found.variables, z)
  assert largest(image - wrapped.apply(masked, z)[0]) < 1e-6 < largest(image)
  assert taps['rise'].shape == (3, 8, 8, found.masks['rise'].sum())
  student = core.BoundGenerator(found.variables, found.module)
  with pytest.raises(ValueError, match='runs as a program of one size, and stablehlo takes any'):
    export.write_folder(student, tmp_path / 'x', [np.asarray(z)])
  pytest.importorskip('onnxruntime', reason="ONNX needs the extra 'export'")
  proof = export.write_folder(student, tmp_path / 'x', [np.asarray(z)], to=('onnx',))
  assert proof['artefacts']['network.onnx']['max_error'] < 1e-5


def test_a_file_names_only_classes_that_are_allowed(unet, tmp_path, monkeypatch):
  wrapped, variables, x = unet
  found = pruning.prune(wrapped, variables, SHAPE, budget=analysis.macs(wrapped, SHAPE) / 3)
  file = tmp_path / 'student.safetensors'
  nn.save(file, found.module, found.variables, like=wrapped)
  with pytest.raises(ValueError, match='no network .*any_network:Generator'):
    nn.load(file)
  for like in wrapped, Generator():
    module, loaded = nn.load(file, like=like)
    assert module == found.module
    assert (module.apply(loaded, x)[0] == found.module.apply(found.variables, x)[0]).all()
  monkeypatch.setattr(nn.files.network, '_allowed', set())
  nn.allow(Generator)
  assert nn.load(file)[0] == found.module


def test_batch_norms_average_over_all_replicas(unet):
  wrapped, variables, x = unet
  run = lambda x, axes=Axes(): wrapped.apply(variables, x, train=True, axes=axes,
                                             mutable=['batch_stats'])
  (image, _), states = run(x)
  (halves, _), theirs = jax.vmap(lambda x: run(x[None], Axes(inner=('half',))),
                                 axis_name='half')(x)
  np.testing.assert_allclose(halves[:, 0], image, atol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b[0], atol=1e-5), dict(states),
               dict(theirs))


def test_a_config_wraps_a_module_of_the_users():
  made = build.generator(dict(name='jaxgan_compress.configs.cat.any_network:Generator', width=4,
                              depth=2))
  assert made == UNET
  assert build.generator(dict(name='unet', ngf=4, depth=4)) == nn.unet(4, depth=4)


def test_a_class_is_pruned_and_generates_by_commands(unet, tmp_path, monkeypatch, capsys):
  _, variables, x = unet
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(nn.files.network, '_allowed', set())
  name = f'{build.__name__.split(".")[0]}.configs.cat.any_network:Generator'
  network = f'--network={name}:width=4,depth=2'
  nn.files.arrays.write('w.safetensors', nn.init.flat(variables), {})
  assert main.main(['prune', network, '--size=16', '--plan']) == 0
  out = capsys.readouterr().out
  for said in '9 groups of 58 channels', 'What stays whole', 'each group at its least':
    assert said in out
  assert main.main(['prune', network, '--size=16', '--weights=w.safetensors', '--budget=2e5',
                    '--output=s.safetensors']) == 0
  assert 'Wrapped(network=Generator(width=4, depth=2)' in capsys.readouterr().out
  Image.fromarray(np.uint8(127 * x[0] + 128)).save('x.png')
  assert main.main(['generate', '--network=s.safetensors', '--input=x.png', '--output=y.png']) == 2
  assert f'--like={name}' in capsys.readouterr().err
  assert main.main(['generate', '--network=s.safetensors', f'--like={name}', '--input=x.png',
                    '--output=y.png', '--engine=jax']) == 0
  assert Image.open('y.png').size == (16, 16)


# By trace, without a wrapping.


def test_flax_compares_shapes_where_nobody_says_otherwise(unet):
  """The one place, which `with_arrays_as_given` replaces: this tells when Flax changes."""
  dense = linen.Dense(4)
  variables = {'params': {'kernel': np.ones((2, 3)), 'bias': np.zeros(3)}}
  with pytest.raises(errors.ScopeParamShapeError):
    dense.apply(variables, np.ones((1, 2)))
  with with_arrays_as_given():
    assert dense.apply(variables, np.ones((1, 2))).shape == (1, 3)


def test_a_network_is_pruned_as_it_is(unet):
  _, variables, x = unet
  found = pruning.prune_traced(Generator(4, depth=2), variables, (x[:1],), budget=1e5)
  masked = {**variables, 'params': pruning.apply_masks(found.plan, variables['params'],
                                                       found.masks)}
  assert found.cost <= 1e5 < found.before == analysis.macs(UNET, SHAPE)
  out = found.network.apply(found.variables, x)
  assert largest(out - Generator(4, depth=2).apply(masked, x)) < 1e-6
  _, states = found.network.apply(found.variables, x, train=True, mutable=['batch_stats'])
  assert jax.tree.map(jnp.shape, states['batch_stats']) == jax.tree.map(
      jnp.shape, found.variables['batch_stats'])


def test_a_function_is_pruned_and_keeps_its_structure():
  function = lambda p, x: {'out': jax.nn.relu(x @ p['a']) @ p['b']}
  rng = np.random.default_rng(0)
  params = {'a': rng.normal(size=(5, 20)), 'b': rng.normal(size=(20, 3))}
  x = rng.normal(size=(2, 5))
  for execution in 'module', 'program':
    found = pruning.prune_traced(function, params, (x,), budget=50, unit='params',
                                 criterion='taylor', grads=params, execution=execution)
    alive = found.masks['a']
    assert found.cost == 48 and alive.sum() == 6
    np.testing.assert_allclose(found.network.apply(found.variables, x)['out'], function(
        {'a': params['a'] * alive, 'b': params['b']}, x)['out'], rtol=1e-6)


def test_a_model_of_nnx_is_pruned():
  class Model(nnx.Module):
    def __init__(self, rngs):
      self.first = nnx.Conv(3, 8, (3, 3), rngs=rngs)
      self.last = nnx.Conv(8, 3, (3, 3), rngs=rngs)

    def __call__(self, x):
      return self.last(nnx.relu(self.first(x)))

  found = pruning.prune_traced(Model(nnx.Rngs(0)), None, (jnp.ones(SHAPE),), criterion='l1',
                               budget=16 * 16 * 9 * 6 * 5)
  assert found.network.first.kernel.shape[-1] == found.network.last.in_features == 5
  assert found.network(jnp.ones(SHAPE)).shape == SHAPE


def test_the_law_is_proved_for_just_what_was_removed(unet, monkeypatch):
  _, variables, x = unet
  removes, asked = laws.removes, []

  def only_programs(plan, about, masks, execution):
    asked.append(execution)
    return len(asked) == 1 or (execution == 'program' and removes(plan, about, masks, execution))

  monkeypatch.setattr(laws, 'removes', only_programs)
  found = pruning.prune_traced(Generator(4, depth=2), variables, (x[:1],), budget=1e5)
  assert asked == ['module', 'module', 'program'] and found.plan.execution == 'program'
  asked.clear()
  with pytest.raises(ValueError, match="take execution='program'"):
    pruning.prune_traced(Generator(4, depth=2), variables, (x[:1],), budget=1e5,
                         execution='module')


def test_just_what_was_removed_of_a_wrapped_network_is_proved(unet, monkeypatch):
  wrapped, variables, _ = unet
  masks = {name: np.arange(n) > n // 3 for name, n in wrapped.plan().widths.items()}
  kept = wrapped.with_masks(masks)
  kept.prove()
  monkeypatch.setattr(laws, 'living', lambda axes, shape, alive: np.ix_(*(
      np.arange(n) if channels is None else np.flatnonzero(np.roll(alive[channels], 1))
      for channels, n in zip(axes, shape, strict=True))))  # what is left is of other channels
  masks['middle/Conv_0'][-1] = False  # not what has been proved
  monkeypatch.setattr(pruning.one_shot, 'search', lambda *args, **more: pruning.SearchResult(
      masks, 0., 1.))
  with pytest.raises(ValueError, match='does not compute what the masked network does'):
    pruning.prune(wrapped, variables, SHAPE, budget=1e5)


def conv(x, width, name):
  return linen.Conv(width, (3, 3), name=name)(x)


def network(body):
  """A module of a function of (x, layer)."""
  class Network(linen.Module):
    @linen.compact
    def __call__(self, x):
      return body(x)
  return Network()


REFUSED = {
    'nothing': (lambda x: conv(x, 3, 'only'), {},
                'no channel of this network can be pruned: .*the output of the network'),
    'a mean': (lambda x: conv(conv(x, 8, 'conv3').mean(-1, keepdims=True), 3, 'last'),
               {'execution': 'module'},
               r"conv3 is not pruned: test_wrapped.py:\d+ takes its channels "
               r"together \(reduce_sum\), so what is left would change; allow=\('mixed',\)"),
    'a number': (lambda x: conv(conv(x, 8, 'conv3').reshape(1, 8, 8, 8), 3, 'last'),
                 {'execution': 'module'},
                 r'conv3 is not pruned: .*test_wrapped.py:\d+ cannot run with 4 of its 8 channels'
                 '.*'
                 "it repeats a width by number. Take -1 or .*, or execution='program'"),
    'an operation': (lambda x: conv(jnp.fft.fft(conv(x, 8, 'conv3'), axis=-1).real, 3, 'last'), {},
                     r'an operation whose axes are not known: fft at test_wrapped.py:\d+; all it '
                     'touches stays whole')}


@pytest.mark.parametrize('name', REFUSED)
def test_what_cannot_be_pruned_is_said_with_its_place(name):
  body, options, said = REFUSED[name]
  with pytest.raises(ValueError, match=said):
    pruning.trace_plan(network(body), None, jnp.zeros((1, 8, 8, 3)), **options)


class Attention(linen.Module):
  @linen.compact
  def __call__(self, x):
    y = linen.Conv(12, (3, 3), name='first')(x)
    tokens = y.reshape(len(y), -1, y.shape[-1])
    gain = self.param('gain', linen.initializers.constant(2.), (y.shape[-1],))
    tokens *= gain.reshape(1, 1, -1)  # ranks are not promoted in a thread of its own
    tokens += linen.MultiHeadDotProductAttention(4, qkv_features=16, name='attention')(tokens)
    return linen.Conv(3, (3, 3), name='last')(tokens.reshape(y.shape))


def test_heads_are_ranked_and_own_parameters_start_as_they_do(unet):
  wrapped, x = nn.Wrapped(Attention(), allow=('mixed',)), unet[2]
  variables = jax.device_get(nn.initialise(wrapped, jax.random.key(0), scheme='he'))
  assert (variables['params']['gain'] == 2).all()
  found = pruning.prune(wrapped, variables, SHAPE, budget=5e5, criterion='l1')
  assert found.cost == analysis.macs(found.module, SHAPE) <= 5e5
  heads = wrapped.plan().groups.keys() - {'first', 'attention/value'}
  assert {found.masks[name].size for name in heads} == {4}
  assert found.module.apply(found.variables, x)[0].shape == x.shape
  with pytest.raises(ValueError, match="attention/query is .12, 4, 4., as in an attention: take"):
    pruning.prune(wrapped, variables, SHAPE, budget=5e5, criterion='activation', batches=[x])


def test_channels_of_any_network_are_ranked_by_activation(unet):
  wrapped, variables, x = unet
  found = pruning.prune(wrapped, variables, SHAPE, budget=2e5, criterion='activation', batches=[x])
  by_chance = pruning.prune(wrapped, variables, SHAPE, budget=2e5, criterion='random',
                            key=jax.random.key(0))
  whole = wrapped.apply(variables, x)[0]
  off, worse = (float(jnp.square(each.module.apply(each.variables, x)[0] - whole).mean())
                for each in (found, by_chance))
  assert off < worse


def test_groups_beside_what_is_refused_are_pruned():
  def body(x):
    x = conv(linen.relu(conv(x, 6, 'free')), 8, 'mixed')
    return conv(linen.softmax(x), 3, 'last')

  plan = pruning.trace_plan(network(body), None, jnp.zeros((1, 8, 8, 3)))
  assert plan.widths == {'free': 6}
  assert 'mixed is not pruned: ' in str(plan) and 'last/kernel[3]' in str(plan)
  both = pruning.trace_plan(network(body), None, jnp.zeros((1, 8, 8, 3)), allow=('mixed',))
  assert both.widths == {'free': 6, 'mixed': 8} and both.approximate == {'mixed'}
  assert 'mixed: 8, approximate' in str(both)


@pytest.mark.parametrize(('options', 'said'), [
    ({'execution': 'fast'}, "execution='fast', .*one of auto, module, program"),
    ({'allow': ('all',)}, "allow has mixed or nothing"), ({'unit': 'ms'}, "unit='ms'; one of macs"),
    ({'budget': 1.}, 'a budget of 1 is below'), ({'criterion': 'worst'}, 'one of norm, l1')])
def test_wrong_arguments_are_refused(unet, options, said):
  _, variables, x = unet
  with pytest.raises(ValueError, match=said):
    pruning.prune_traced(Generator(4, depth=2), variables, (x[:1],), **{'budget': 1e5, **options})
  with pytest.raises(ValueError, match='nested dictionaries'):
    pruning.prune_traced(lambda v, x: x, [np.ones(3)], (x,), budget=1)
