"""Several CPU devices and quick compilation, set before anything imports jax."""

import gc
import os
import tempfile
from importlib import metadata

os.environ['JAX_PLATFORMS'] = os.environ.get('JAXGAN_TEST_PLATFORM', 'cpu')
os.environ['XLA_FLAGS'] = ' '.join((
    os.environ.get('XLA_FLAGS', ''), '--xla_force_host_platform_device_count=4',
    # Compiling is most of what the tests do: without optimisation (on CPUs), on one thread, ...
    *(['--xla_backend_optimization_level=0'] if os.environ['JAX_PLATFORMS'] == 'cpu' else []),
    '--xla_cpu_parallel_codegen_split_count=1',
    # ... and by the older of XLA's two ways to write a loop, which takes a third of the time and
    # is gone from XLA since jaxlib 0.11.
    *(['--xla_cpu_use_fusion_emitters=false']
      if metadata.version('jaxlib').split('.')[:2] == ['0', '10'] else [])))

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.experimental.compilation_cache import compilation_cache

from jaxgan_compress import data, methods, nn
from jaxgan_compress.experiment import runner

jax.config.update('jax_numpy_rank_promotion', 'raise')
# A run in one test would turn it on for all after it, and writing the largest steps there crashes.
jax.config.update('jax_enable_compilation_cache', False)
# On all weights laid end to end, which is the same numbers of it: a program for each array would be
# a sixth of what there is to compile of a step.
PUBLISHED_ADAM = optax.flatten(optax.adam(2e-4, b1=0.5, b2=0.999))
# Traces are large and hold no cycles; looking for some takes a sixth of the time to trace.
gc.set_threshold(100_000, 50, 100)


def pytest_addoption(parser):
  parser.addoption('--full', action='store_true', help='runs the tests marked full as well')


# Of seconds, in their order: a worker that takes one of them last keeps all waiting.
LONG = ('trajectories', 'experiment', 'omgd', 'distributed', 'networks', 'translation_runs', 'cat',
        'configs', 'gradual', 'pruning', 'parallel', 'notebooks', 'export', 'methods', 'evaluator',
        'pruned_runs', 'launchers', 'cost', 'roofline', 'translation_data', 'survival', 'convert',
        'compare')


def pytest_collection_modifyitems(config, items):
  rank = {f'test_{name}.py': i for i, name in enumerate(LONG)}
  items.sort(key=lambda item: rank.get(item.path.name, len(rank)))
  if not config.getoption('--full'):
    full = [item for item in items if item.get_closest_marker('full')]
    config.hook.pytest_deselected(items=full)
    items[:] = [item for item in items if item not in full]


@pytest.fixture(scope='module', autouse=True)
def forget_programs():
  """Every compiled program holds memory maps, of which Linux grants a process 65,530. Few and small
  ones stay: other files run them too."""
  yield
  if not few_and_small():
    jax.clear_caches()


def few_and_small():
  """Whether this process holds less than a quarter of those maps and 1.5 GiB; False where only
  Linux could tell."""
  try:
    with open('/proc/self/maps') as maps, open('/proc/self/statm') as pages:
      resident = int(pages.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')
      return sum(1 for _ in maps) < 16_000 and resident < 1.5 * 2**30
  except OSError:
    return False


@pytest.fixture(scope='session')
def images():
  """uint8 [24,32,32,1]: the first real digits."""
  return data.digits().target[:24]


@pytest.fixture(scope='session')
def pipeline(images):
  return data.Pipeline(data.ArraySource(images), batch=8)


@pytest.fixture(scope='session')
def sgd():
  """Plain SGD: Adam would hide a constant factor on gradients."""
  return optax.sgd(0.01)


@pytest.fixture
def convolutions_as_matmuls(monkeypatch):
  """XLA:CPU has fast matmuls in float64, and for convolutions only plain loops."""
  if jax.default_backend() != 'cpu':
    return
  convolve = lax.conv_general_dilated

  def matmuls(x, kernel, strides, padding, feature_group_count=1, **more):
    if feature_group_count > 1 or x.dtype != np.float64:
      return convolve(x, kernel, strides, padding, feature_group_count=feature_group_count, **more)
    if padding != 'VALID':
      x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    (down, right), (rows, columns) = strides, kernel.shape[:2]
    h, w = x.shape[1] - rows + 1, x.shape[2] - columns + 1
    # One for each row: columns stand side by side as channels.
    x = jnp.concatenate([x[:, :, j:j + w:right] for j in range(columns)], -1)
    kernel = kernel.reshape(rows, -1, kernel.shape[-1])
    return sum(x[:, i:i + h:down] @ kernel[i] for i in range(rows))

  monkeypatch.setattr(lax, 'conv_general_dilated', matmuls)


def small_gan(tx, **adversary):
  norm = 'none' if adversary.get('loss') == 'wgan_gp' else 'batch'
  return methods.GAN(
      nn.DCGANGenerator(d=2, size=32), tx=tx,
      adversary=methods.Adversary(nn.DCGANDiscriminator(2, 32, norm), tx, **adversary))


def small_kd(tx, disc_steps=1, augment=None, **fields):
  adversary = methods.Adversary(nn.DCGANDiscriminator(2, 32), tx, disc_steps=disc_steps,
                                augment=augment)
  return methods.KD(nn.DCGANGenerator(d=1, size=32), nn.DCGANGenerator(d=2, size=32), tx,
                    adversary=adversary, **fields)


@pytest.fixture(scope='session')
def init_from(sgd, images):
  """A teacher with running statistics that are not the initial ones, and its discriminator."""
  method = small_gan(sgd)
  state = method.init(jax.random.key(7), {'target': images[:8]})
  rng = np.random.default_rng(0)
  nets = {role: net.replace(
      params=jax.tree.map(lambda x: x + np.float32(.05) * rng.standard_normal(
          x.shape, np.float32), net.params),
      collections=jax.tree.map(lambda x: x + rng.random(x.shape, np.float32), net.collections))
      for role, net in jax.device_get(state.nets).items()}
  return {'teacher': nets['generator'], 'disc': nets['disc']}


def largest_difference(a, b):
  """The largest absolute difference between two trees of arrays, keys included."""

  def plain(x):
    key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(x) if key else x, np.float64)

  return max(jax.tree.leaves(jax.tree.map(
      lambda x, y: float(np.abs(plain(x) - plain(y)).max(initial=0)), a, b)))


PROGRAMS = tempfile.TemporaryDirectory(prefix='jaxgan_programs_')


def quick(devices=1):
  """The environment of a process of its own with so many CPU devices: it compiles as these tests
  do, and nothing that another such process has compiled."""
  flags = [flag for flag in os.environ['XLA_FLAGS'].split() if 'device_count' not in flag]
  return {**os.environ, 'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': str(devices),
          'XLA_FLAGS': ' '.join(flags), 'JAX_COMPILATION_CACHE_DIR': PROGRAMS.name,
          'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0'}


@pytest.fixture(scope='module')
def kept_programs():
  """For a module whose runs compile the same small programs again and again: they are read."""
  changed = {'jax_enable_compilation_cache': True, 'jax_compilation_cache_dir': PROGRAMS.name,
             'jax_persistent_cache_min_compile_time_secs': 0}
  before = {name: getattr(jax.config, name) for name in changed}

  def use(settings):
    compilation_cache.reset_cache()
    for name, value in settings.items():
      jax.config.update(name, value)

  use(changed)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(runner, 'compilation_cache', lambda: None)  # of large ones, in another place
    patch.setattr(jax, 'clear_caches', lambda: None)  # after each stage, for runs of many
    yield
  use(before)
