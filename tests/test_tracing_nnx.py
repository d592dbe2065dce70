"""Models of nnx: which channels belong together, and the same models with fewer of them."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx, traverse_util
from flax.nnx import bridge

from jaxgan_compress.tracing import laws, nnx_modules
from jaxgan_compress.tracing import network as networks
from jaxgan_compress.tracing.plan import living, masked
from jaxgan_compress.tracing.traced_plan import trace_plan
from tests.traced_networks import OfNNX

IMAGE = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)


@pytest.fixture(autouse=True)
def as_users_do():
  with jax.numpy_rank_promotion('allow'):
    yield


def conv(inputs, outputs, rngs, size=3, **kwargs):
  return nnx.Conv(inputs, outputs, (size, size), rngs=rngs, **kwargs)


class Block(nnx.Module):
  def __init__(self, features, inner, rngs):
    self.conv1 = conv(features, inner, rngs)
    self.norm = nnx.BatchNorm(inner, rngs=rngs)
    self.dropout = nnx.Dropout(0.5, rngs=rngs)
    self.conv2 = conv(inner, features, rngs)

  def __call__(self, x):
    return x + self.conv2(self.dropout(nnx.relu(self.norm(self.conv1(x)))))


class Residual(nnx.Module):
  def __init__(self, rngs):
    self.stem = conv(3, 8, rngs)
    self.blocks = nnx.List([Block(8, inner, rngs) for inner in (6, 10)])
    self.last = conv(8, 3, rngs)

  def __call__(self, x):
    x = self.stem(x)
    for block in self.blocks:
      x = block(x)
    return self.last(x)


class UNet(nnx.Module):
  def __init__(self, rngs):
    self.down1 = conv(3, 6, rngs, strides=2)
    self.down2 = conv(6, 8, rngs, strides=2)
    self.norm1 = nnx.BatchNorm(8, rngs=rngs)
    self.depthwise = conv(8, 16, rngs, feature_group_count=8)
    self.up1 = nnx.ConvTranspose(16, 7, (4, 4), (2, 2), rngs=rngs)
    self.norm2 = nnx.BatchNorm(7, rngs=rngs)
    self.up2 = nnx.ConvTranspose(7 + 6, 3, (4, 4), (2, 2), rngs=rngs)

  def __call__(self, x):
    skip = nnx.relu(self.down1(x))
    x = nnx.relu(self.depthwise(self.norm1(self.down2(skip))))
    x = nnx.relu(self.norm2(self.up1(x)))
    return nnx.tanh(self.up2(jnp.concatenate([x, skip], -1)))


class Normalised(nnx.Module):
  def __init__(self, wrap, rngs):
    self.conv1 = wrap(conv(3, 8, rngs), rngs=rngs)
    self.conv2 = wrap(conv(8, 3, rngs), rngs=rngs)

  def __call__(self, x):
    return self.conv2(nnx.relu(self.conv1(x)))


class WithArgument(nnx.Module):
  def __init__(self, rngs):
    self.conv = conv(3, 8, rngs)
    self.norm = nnx.BatchNorm(8, rngs=rngs)
    self.last = conv(8, 3, rngs)

  def __call__(self, x, train):
    return self.last(nnx.relu(self.norm(self.conv(x), use_running_average=not train)))


class ByArgumentAlone(nnx.Module):
  def __call__(self, x, deterministic):
    return x if deterministic else 2 * x


class Recurrent(nnx.Module):
  def __init__(self, rngs):
    self.rnn = nnx.RNN(nnx.GRUCell(3, 8, rngs=rngs))
    self.last = nnx.Linear(8, 3, rngs=rngs)

  def __call__(self, x):
    return self.last(self.rnn(x[:, :, 0]))


class Gain(nnx.Variable):
  pass


class OwnVariables(nnx.Module):
  """A Variable of a kind of its own, an array that is none; and what must not be traced: an array
  of NumPy, a number, a count."""

  def __init__(self, rngs):
    self.conv = conv(3, 8, rngs)
    self.gain = Gain(jnp.arange(1.0, 9))
    self.shift = nnx.data(jnp.arange(8.0))
    self.order = nnx.data(np.array([1.0, 2.0, 0.0]))
    self.half, self.calls = nnx.Variable(0.5), nnx.Variable(jnp.array(0))
    self.last = conv(8, 3, rngs)

  def __call__(self, x):
    self.calls[...] += 1
    x = self.half * self.last(nnx.relu(self.conv(x) * self.gain + self.shift))
    return jnp.stack([x[..., int(i)] for i in self.order], -1)


class Masked(nnx.Module):
  """A mask by number: the kernel that it masks stays whole, and with it the channels it joins."""

  def __init__(self, rngs):
    self.stem = conv(3, 8, rngs)
    self.conv = conv(8, 6, rngs, mask=jnp.tri(8, 6) * jnp.ones((3, 3, 1, 1), int) > 0)
    self.inner, self.last = conv(6, 5, rngs), conv(5, 3, rngs)

  def __call__(self, x):
    return self.last(self.inner(self.conv(self.stem(x))))


class Shared(nnx.Module):
  def __init__(self, rngs):
    self.stem = conv(3, 8, rngs)
    self.conv1, self.conv2 = conv(8, 8, rngs), conv(8, 8, rngs)
    self.conv2.kernel = self.conv1.kernel
    self.last = conv(8, 3, rngs)

  def __call__(self, x):
    return self.last(nnx.relu(self.conv2(nnx.relu(self.conv1(self.stem(x))))))


# {name: (model, widths of its groups)}
MODELS = {
    'residual': (Residual, {'stem': 8, 'blocks/0/conv1': 6, 'blocks/1/conv1': 10}),
    'unet': (UNet, {'down1': 6, 'down2': 8, 'up1': 7}),
    'spectral norm': (lambda rngs: Normalised(nnx.SpectralNorm, rngs),
                      {'conv1/layer_instance': 8}),
    'weight norm': (lambda rngs: Normalised(nnx.WeightNorm, rngs), {'conv1/layer_instance': 8}),
    'mode by argument': (WithArgument, {'conv': 8}),
    'recurrent': (Recurrent, {'rnn/cell/dense_i': 8}),
    'own variables': (OwnVariables, {'conv': 8}),
    'masked': (Masked, {'inner': 5}),
    # The kernel's both axes are one group, for it is used twice.
    'shared': (Shared, {'stem': 8}),
}


def snapshot(model):
  """All that a model is: its graph with modes and counts, its Variables, and copies of arrays."""
  definition, state = nnx.split(model)
  leaves = [np.array(jax.random.key_data(x) if jax.dtypes.issubdtype(
      jnp.result_type(x), jax.dtypes.prng_key) else x) for x in jax.tree.leaves(state)]
  return definition, [id(x) for _, x in nnx.iter_graph(model)], leaves


@pytest.mark.parametrize('name', MODELS)
def test_models_are_cut_by_smaller_arrays_and_by_their_program_and_stay_as_they_are(name):
  make, widths = MODELS[name]
  model = make(nnx.Rngs(0))
  model.eval()
  before = snapshot(model)
  for way in 'module', 'program':
    plan = trace_plan(model, None, IMAGE, execution=way)
    assert (plan.widths, plan.execution) == (widths, way)
    assert not plan.approximate and not plan.notes
  after = snapshot(model)
  assert before[:2] == after[:2]
  jax.tree.map(np.testing.assert_array_equal, before[2], after[2])


@pytest.mark.parametrize(('way', 'widths', 'approximate', 'refused'), [
    ('module', {'conv1': 2, 'conv2': 12, 'up': 6, 'attention/query#2': 2}, {'conv1', 'conv2'},
     ['attention/query', 'attention/value']),
    ('program', {'conv1': 2, 'conv2': 12, 'up': 6, 'attention/query': 4, 'attention/query#2': 2,
                 'attention/value': 4}, set(), [])])
def test_a_model_of_many_layers_has_the_groups_known_by_hand(way, widths, approximate, refused):
  plan = trace_plan(OfNNX(nnx.Rngs(0)), None, IMAGE, execution=way, allow=('mixed',))
  assert (plan.widths, plan.approximate) == (widths, approximate)
  assert len(plan.notes) == len(refused)
  for name, note in zip(refused, plan.notes, strict=True):
    # Where attention takes sizes of queries and values for equal.
    assert re.match(rf'{name} is not pruned: traced_networks.py:\d+ cannot run with 2 of its 4 '
                    r'channels \(value shape should be', note)


class Attention(nnx.Module):
  """With a scale of its own, which does not depend on how many channels queries have."""

  def __init__(self, rngs):
    self.stem = nnx.Linear(3, 6, rngs=rngs)
    self.attention = nnx.MultiHeadAttention(2, 6, 8, decode=False, rngs=rngs,
                                            attention_fn=self.of_scale)
    self.last = nnx.Linear(6, 3, rngs=rngs)

  @staticmethod
  def of_scale(query, key, value, **_):
    return jax.nn.dot_product_attention(query, key, value, scale=0.3)

  def __call__(self, x):
    return self.last(self.attention(self.stem(x[:, 0])))


def test_groups_that_must_have_as_many_channels_are_not_cut_though_they_run_together():
  plan = trace_plan(Attention(nnx.Rngs(0)), None, IMAGE, execution='module')
  assert plan.widths == {'stem': 6, 'attention/query#2': 2, 'attention/out': 6}
  assert [note.split(' (')[0].split(': ')[0] for note in plan.notes] == [
      'attention/query is not pruned', 'attention/value is not pruned']


def test_calls_in_both_modes_are_those_of_the_model_itself():
  rngs = nnx.Rngs(0)
  model = nnx.Sequential(nnx.Linear(3, 8, rngs=rngs), nnx.BatchNorm(8, rngs=rngs),
                         nnx.Dropout(0.5, rngs=rngs))
  before, variables = nnx.graphdef(model), nnx_modules.variables_of(model)
  x = jax.random.normal(jax.random.key(1), (4, 3))
  for train in False, True:
    call, = networks.functions(model, variables, [((), {'train': train})])
    out, states = call(variables, x)
    own = nnx.clone(model)
    own.train() if train else own.eval()
    np.testing.assert_array_equal(out, own(x))
    assert set(states) == ({'batch_stats'} if train else set())
    now = nnx_modules.variables_of(own)
    jax.tree.map(np.testing.assert_array_equal, {**variables, **states}, now)
  assert nnx.graphdef(model) == before


@pytest.mark.parametrize(('make', 'calls'), [
    (lambda rngs: nnx.Linear(3, 8, rngs=rngs), 1), (lambda rngs: nnx.Dropout(0.5, rngs=rngs), 2),
    (lambda rngs: nnx.BatchNorm(3, rngs=rngs), 2), (lambda rngs: ByArgumentAlone(), 2)])
def test_models_that_train_otherwise_are_traced_in_both_modes(make, calls):
  assert len(networks.functions(make(nnx.Rngs(0)), ['params'])) == calls


def random_cut(model, seed=0):
  """(plan, model with random weights and dead channels at 0, the small model), in float64."""
  plan = trace_plan(model, None, IMAGE, execution='module')
  masks = laws.random_masks(plan, list(plan.groups), seed)
  alive, rng = plan.alive(masks), np.random.default_rng(seed)
  flat = {path: laws.random_leaf(rng, path, x) for path, x in traverse_util.flatten_dict(
      nnx_modules.variables_of(model)).items()}
  large = {path: masked(x, plan.leaves[path], alive) for path, x in flat.items()}
  small = {path: x[living(plan.leaves[path], x.shape, alive)] for path, x in flat.items()}
  made = [nnx_modules.small_model(model, traverse_util.unflatten_dict(x)) for x in (large, small)]
  return plan, alive, *made


def test_a_small_model_trains_as_the_masked_one_does():
  with jax.enable_x64(True):
    plan, alive, large, small = random_cut(UNet(nnx.Rngs(0)))
    x, y = np.random.default_rng(1).standard_normal((2, 2, 8, 8, 3))

    @nnx.jit
    def step(model, optimizer):
      model.train()
      loss, grads = nnx.value_and_grad(lambda model: jnp.mean((model(x) - y) ** 2))(model)
      optimizer.update(model, grads)
      model.eval()
      return loss, model(x)

    results = [step(model, nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param))
               for model in (large, small)]
    np.testing.assert_allclose(results[1][0], results[0][0], rtol=1e-10)
    wide, narrow = (traverse_util.flatten_dict(nnx_modules.variables_of(model))
                    for model in (large, small))
    for path, leaf in wide.items():  # weights and statistics after the step
      np.testing.assert_allclose(
          narrow[path], leaf[living(plan.leaves[path], leaf.shape, alive)], atol=1e-10)


def test_a_small_model_keeps_mode_random_state_and_sharing():
  model = Residual(nnx.Rngs(0))
  model.eval()
  model.blocks[0].dropout.rngs()
  small = nnx_modules.small_model(model, nnx_modules.variables_of(model))
  assert nnx.graphdef(small) == nnx.graphdef(model)
  assert int(small.blocks[0].dropout.rngs.count[...]) == 1
  shared = Shared(nnx.Rngs(0))
  small = nnx_modules.small_model(shared, nnx_modules.variables_of(shared))
  assert small.conv2.kernel is small.conv1.kernel is not shared.conv1.kernel


def test_leaves_are_named_by_kind_and_path():
  model = OwnVariables(nnx.Rngs(0))
  model.seen = nnx.Intermediate(jnp.ones((2, 8)))  # as a call leaves it behind
  leaves = {'/'.join(path) for path in traverse_util.flatten_dict(
      nnx_modules.variables_of(model))}
  assert leaves == {'params/conv/kernel', 'params/conv/bias', 'params/last/kernel',
                    'params/last/bias', 'gain/gain', 'arrays/shift'}
  leaves = {'/'.join(path) for path in traverse_util.flatten_dict(nnx_modules.variables_of(
      Residual(nnx.Rngs(0)))) if path[1] == 'blocks' and path[2] == '1'}
  assert leaves == {f'params/blocks/1/{name}/{leaf}' for name in ('conv1', 'conv2')
                    for leaf in ('kernel', 'bias')} | {
      f'{kind}/blocks/1/norm/{leaf}' for kind, leaf in (
          ('params', 'scale'), ('params', 'bias'), ('batch_stats', 'mean'), ('batch_stats', 'var'))}
  shared = nnx_modules.variables_of(Shared(nnx.Rngs(0)))['params']
  assert 'kernel' in shared['conv1'] and 'kernel' not in shared['conv2']


class OfLinen(linen.Module):
  @linen.compact
  def __call__(self, x):
    return linen.Dense(3)(linen.relu(linen.Dense(8)(x)))


def test_a_module_of_linen_inside_is_cut_by_its_program_alone():
  model = bridge.ToNNX(OfLinen(), rngs=nnx.Rngs(0))
  bridge.lazy_init(model, jnp.zeros((1, 4)))
  x = jax.ShapeDtypeStruct((1, 4), jnp.float32)
  plan = trace_plan(model, None, x)
  assert (plan.execution, list(plan.widths.values())) == ('program', [8]) and not plan.approximate
  with pytest.raises(ValueError, match='linen inside a model of nnx has the sizes of its fields'):
    trace_plan(model, None, x, execution='module')


# Layers of nnx whose attributes repeat sizes, of a width and random numbers.
LAYERS = {
    'linear': lambda w, r: nnx.Linear(w, 2 * w, rngs=r),
    'linear general': lambda w, r: nnx.LinearGeneral((w, 3), (2, 3 * w), axis=(-2, -1), rngs=r),
    'linear of a batch': lambda w, r: nnx.LinearGeneral(3, w, batch_axis={0: 2 * w}, rngs=r),
    'einsum without bias': lambda w, r: nnx.Einsum('tc,cd->td', (w, 3 * w), rngs=r),
    'einsum': lambda w, r: nnx.Einsum('btc,cd->btd', (w, 3 * w), (3 * w,), rngs=r),
    'conv': lambda w, r: conv(w, 2 * w, r),
    'conv of 1': lambda w, r: conv(1, 2 * w, r),
    'depthwise': lambda w, r: conv(w, 3 * w, r, feature_group_count=w),
    'grouped': lambda w, r: conv(4 * w, 8 * w, r, feature_group_count=4),
    'transposed': lambda w, r: nnx.ConvTranspose(w, 3 * w, (4, 4), rngs=r),
    'transposed kernel': lambda w, r: nnx.ConvTranspose(w, 3 * w, (4, 4), transpose_kernel=True,
                                                        rngs=r),
    'embed': lambda w, r: nnx.Embed(11, w, rngs=r),
    'embed of 1': lambda w, r: nnx.Embed(1, w, rngs=r),
    'batch norm': lambda w, r: nnx.BatchNorm(w, rngs=r),
    'statistics': lambda w, r: nnx.BatchNorm(w, use_scale=False, use_bias=False, rngs=r),
    'layer norm': lambda w, r: nnx.LayerNorm(w, use_scale=False, rngs=r),
    'rms norm': lambda w, r: nnx.RMSNorm(w, rngs=r),
    'instance norm': lambda w, r: nnx.InstanceNorm(w, rngs=r),
    'group norm': lambda w, r: nnx.GroupNorm(4 * w, num_groups=4, rngs=r),
    'group norm of 1': lambda w, r: nnx.GroupNorm(w, num_groups=None, group_size=1, rngs=r),
    'attention': lambda w, r: nnx.MultiHeadAttention(
        2 * w, 3 * w, 4 * w, 5 * w, in_kv_features=6 * w, num_kv_heads=w, decode=False, rngs=r),
    'attention, normalised': lambda w, r: nnx.MultiHeadAttention(
        2, 3 * w, 4 * w, normalize_qk=True, decode=False, rngs=r),
    'lora': lambda w, r: nnx.LoRA(w, 3, 2 * w, rngs=r),
    'lora linear': lambda w, r: nnx.LoRALinear(w, 2 * w, lora_rank=3, rngs=r),
    'lstm': lambda w, r: nnx.LSTMCell(w, 2 * w, rngs=r),
    'lstm, optimised': lambda w, r: nnx.OptimizedLSTMCell(w, 2 * w, rngs=r),
    'gru': lambda w, r: nnx.GRUCell(w, 2 * w, rngs=r),
    'simple cell': lambda w, r: nnx.SimpleCell(w, 2 * w, rngs=r),
}


@pytest.mark.parametrize('name', LAYERS)
def test_a_layer_with_smaller_arrays_is_the_layer_made_so(name):
  large, small = (nnx.eval_shape(lambda w=w: LAYERS[name](w, nnx.Rngs(0))) for w in (4, 2))
  made = nnx_modules.small_model(large, nnx_modules.variables_of(small))
  sizes = [[(path, {key: value for key, value in vars(layer).items()
                    if isinstance(value, int | tuple | nnx.nn.linear.FrozenDict)})
            for path, layer in nnx.iter_modules(model)] for model in (made, small)]
  assert sizes[0] == sizes[1]


@pytest.mark.parametrize(('change', 'said'), [
    (lambda v: v['params'].pop('stem'), 'without params/stem/bias, params/stem/kernel: take'),
    (lambda v: v['params'].update(more={'bias': 0}), 'with unknown params/more/bias: take'),
    (lambda v: v.update(cache=v.pop('batch_stats')), r'without batch_stats/.* and with unknown')])
def test_variables_must_be_those_of_the_model(change, said):
  model = Residual(nnx.Rngs(0))
  variables = nnx_modules.variables_of(model)
  change(variables)
  for use in (lambda: nnx_modules.small_model(model, variables),
              lambda: trace_plan(model, variables, IMAGE)):
    with pytest.raises(ValueError, match=said):
      use()
