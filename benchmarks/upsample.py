"""Which form of the 4x4, stride-2 transposed convolution is faster here?

    python benchmarks/upsample.py [--rounds 60] [--batch 64]

For each layer of the d=16 and d=2 generators at 32 px: forward, and gradient by weights and input,
in both forms, called in turn in one process. Prints milliseconds of 'transpose' (median) and the
ratio subpixel / transpose (median, quartiles of the pairs) as Markdown, after proving both equal.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan_compress.nn.layers import UpConv

LAYERS = [(4, 64, 32), (8, 32, 16), (16, 16, 1), (4, 8, 4), (8, 4, 2), (16, 2, 1)]
FORMS = ('transpose', 'subpixel')


def forward(module):
  return jax.jit(module.apply)


def gradient(module):
  """Of half the sum of squares, by weights and input."""
  return jax.jit(jax.grad(lambda v, x: jnp.square(module.apply(v, x)).sum() / 2, (0, 1)))


def compare(functions, args, rounds):
  """Seconds of each call, [rounds, len(functions)]."""
  for f in functions:
    jax.block_until_ready(f(*args))
  taken = np.zeros((rounds, len(functions)))
  for i in range(rounds):
    for j, f in enumerate(functions):
      start = time.perf_counter()
      jax.block_until_ready(f(*args))
      taken[i, j] = time.perf_counter() - start
  return taken


def main():
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--rounds', type=int, default=60)
  parser.add_argument('--batch', type=int, default=64)
  args = parser.parse_args()
  device = jax.devices()[0]
  print(f'jax {jax.__version__}, {device.platform} {device.device_kind}, batch {args.batch}, '
        f'{args.rounds} rounds\n')
  print('| layer | pass | transpose ms | subpixel / transpose | quartiles |\n|---|---|--:|--:|--:|')
  rng = np.random.default_rng(0)
  for size, c_in, c_out in LAYERS:
    x = jnp.asarray(rng.standard_normal((args.batch, size, size, c_in)), jnp.float32)
    variables = UpConv(c_out).init(jax.random.key(0), x)
    passes = {'forward': [forward(UpConv(c_out, form)) for form in FORMS],
              'gradient': [gradient(UpConv(c_out, form)) for form in FORMS]}
    for name, functions in passes.items():
      for a, b in zip(*(jax.tree.leaves(f(variables, x)) for f in functions), strict=True):
        scale = float(jnp.abs(a).max())
        np.testing.assert_allclose(a, b, atol=1e-5 * max(scale, 1))
      taken = compare(functions, (variables, x), args.rounds)
      ratio = taken[:, 1] / taken[:, 0]
      low, middle, high = np.quantile(ratio, (.25, .5, .75))
      print(f'| {size}x{size}, {c_in} to {c_out} | {name} | {1e3 * np.median(taken[:, 0]):.2f} | '
            f'{middle:.2f} | {low:.2f} to {high:.2f} |')


if __name__ == '__main__':
  main()
