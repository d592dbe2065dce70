"""What does mapping a training step over devices cost where there is only one?

    python benchmarks/overhead.py [--rounds 60]

The steps of a DCGAN that learns from a teacher and of OMGD are compiled as they stand, by
`jax.jit`, and mapped over one device by pmap and by shard_map, and called in turn. The states are
proved equal after the first step. Prints milliseconds as they stand (median), and for each way the
ratio of the medians and of the minima, as Markdown.
"""

import argparse
import time

import jax
import numpy as np
import optax

from jaxgan_compress import core, data, methods, nn
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
    taken = {name: [] for name in calls}
    for i in range(args.rounds + 2):
      for name, call in calls.items():
        began = time.perf_counter()
        states[name], _ = jax.block_until_ready(call(states[name], placed[name]))
        taken[name].append(time.perf_counter() - began)
      if not i:
        plain, *others = (jax.device_get(states[name].params) for name in calls)
        for other in others:
          jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), other, plain)
    taken = {name: np.array(seconds[2:]) for name, seconds in taken.items()}  # compiled by then
    for via in WAYS:
      print(f'| {title} | {via} | {1e3 * np.median(taken[""]):.2f} | '
            f'{np.median(taken[via]) / np.median(taken[""]):.2f} | '
            f'{taken[via].min() / taken[""].min():.2f} |', flush=True)


if __name__ == '__main__':
  main()
