"""What does mapping a training step over devices cost where there is only one?

    python benchmarks/overhead.py [--rounds 60]

The steps of a DCGAN that learns from a teacher and of OMGD are compiled as they stand, by
`jax.jit`, and mapped over one device by pmap and by shard_map, and called in turn. The states are
proved equal after the first step. Prints milliseconds as they stand (median), and for each way the
ratio of the medians and of the minima, as Markdown.
"""

import argparse
import functools

import jax
import numpy as np
import optax

from jaxgan_compress import analysis, core, data, methods, nn
from jaxgan_compress.core import xla
from jaxgan_compress.parallel import build_mesh, parallelize

WAYS = ('pmap', 'shard_map')


def cases():
  """(title, method, batch, what is given)."""
  tx = optax.adam(1e-4)
  teacher, student = (nn.DCGANGenerator(d, channels=3, size=32) for d in (32, 4))
  weights = core.Net.of(nn.initialise(teacher, jax.random.key(1)))
  images = np.random.default_rng(0).uniform(-1, 1, (32, 32, 32, 3)).astype(np.float32)
  yield 'KD, 32 px, batch 32', methods.KD(student, teacher, tx), {'target': images}, {
      'teacher': weights}
  pairs = data.Pipeline(data.samples('colorize', size=64), batch=4)[0]
  disc = nn.PatchGAN(8, layers=2, inputs=6, heads=('wide',))
  yield 'OMGD, 64 px, batch 4', methods.OMGD(
      nn.mobile_resnet(4, 3), tx, methods.Adversary(disc, tx, 'hinge'),
      wide=nn.mobile_resnet(16, 3), distill=methods.DistillLoss(
          methods.SSIM(), methods.TotalVariation())), core.normalise(pairs), None


def main():
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--rounds', type=int, default=60)
  args = parser.parse_args()
  device = jax.devices()[0]
  print(f'jax {jax.__version__}, {device.platform} {device.device_kind}, {args.rounds} rounds\n')
  print('| step | way | ms as it stands | ratio of medians | of minima |\n|---|---|--:|--:|--:|')
  for title, method, batch, init_from in cases():
    state = method.init(jax.random.key(0), batch, init_from)
    ways = {via: parallelize(method.step, build_mesh(1), via=via) for via in WAYS}
    calls = {'': xla.jit(method.step, donate_argnums=0), **{
        via: way.run for via, way in ways.items()}}
    placed = {'': jax.device_put(batch), **{via: way.place(batch) for via, way in ways.items()}}
    states = {'': jax.tree.map(jax.numpy.copy, state), **{
        via: way.put(jax.device_get(state)) for via, way in ways.items()}}
    seconds = measured(calls, states, placed, args.rounds)
    for via in WAYS:
      print(f'| {title} | {via} | {1e3 * np.median(seconds[""]):.2f} | '
            f'{np.median(seconds[via]) / np.median(seconds[""]):.2f} | '
            f'{seconds[via].min() / seconds[""].min():.2f} |', flush=True)


def measured(calls, states, placed, rounds):
  """Seconds of each step, {way: [rounds]}, whose states are equal after the first one."""
  def step(name):
    states[name], logs = calls[name](states[name], placed[name])
    return states[name], logs

  steps = {name: functools.partial(step, name) for name in calls}
  plain, *others = (jax.device_get(step()[0].params) for step in steps.values())
  for other in others:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), other, plain)
  return analysis.time_calls(steps, rounds, warmup=1)


if __name__ == '__main__':
  main()
