"""Which exact implementation of a replaced operation is faster here?

    python benchmarks/forms.py [--op upsample depthwise ...] [--rounds 60]

For layers as the networks have them: forward, and gradient by weights and input, in the textbook
form of one operation and in the other one, all other operations as this platform has them, called
in turn in one process. Prints milliseconds of the reference implementation (median) and the ratio
other / textbook (median, quartiles of the pairs) as Markdown, after proving both equal.
`nn/layers/conv_dispatch.py` decides by these figures.
"""

import argparse
import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from jaxgan_compress import analysis
from jaxgan_compress.core import Axes, xla
from jaxgan_compress.nn import layers
from jaxgan_compress.nn.generators.inceptions import Branches, InceptionBranches
from jaxgan_compress.nn.layers import conv_dispatch

# (batch, side, channels in, channels out).
UP4 = [(64, 4, 64, 32), (64, 8, 32, 16), (64, 16, 16, 1), (64, 4, 8, 4), (64, 8, 4, 2),
       (64, 16, 2, 1), (1, 32, 256, 64), (1, 128, 32, 3)]
UP3 = [(1, 64, 64, 32), (1, 128, 32, 16), (1, 64, 256, 128)]
DEPTHWISE = [(1, 64, 64, 64), (1, 64, 256, 256), (4, 64, 64, 64)]
REFLECT = [(1, 256, 3, 3), (1, 64, 64, 1), (1, 64, 256, 1)]  # the last: by how many pixels
POINTWISE = [(1, 32, 64, 10), (4, 16, 64, 64), (1, 64, 256, 256)]
THIN = [(1, 256, 3, 64), (1, 128, 6, 16), (4, 64, 6, 16)]
FEW = [(1, 128, 64, 3), (1, 256, 64, 3), (1, 256, 32, 3), (4, 64, 32, 3)]
FEW_PIXELS = [(1, 4, 512, 512), (1, 2, 512, 512), (4, 8, 128, 128)]
BORDERED = [(1, 64, 64, 64), (1, 128, 32, 32), (4, 32, 64, 64)]
HEADS = [(1, 31, 512, 1), (4, 15, 128, 1)]
DENSE = [(1, 32, 256, 256), (4, 32, 256, 256), (1, 64, 128, 128), (1, 32, 64, 64)]
BLOCKS = [(1, 32, 64, 10), (4, 16, 64, 10), (1, 64, 256, 42)]  # the last: of each branch


class Reflect(linen.Module):
  amount: int

  def __call__(self, x):
    return layers.pad(x, self.amount, 'reflect')


class Block(linen.Module):
  width: int

  @linen.compact
  def __call__(self, x):
    return InceptionBranches(
        Branches.even(self.width), x.shape[-1], 'instance_affine', 'instance_affine', 'reflect',
        bias=False)(x, True, Axes())


CASES = {
    'upsample': [('4x4 transposed to', layers.UpConv, UP4),
                 ('3x3 transposed to', functools.partial(layers.UpConv, kernel=3), UP3)],
    'depthwise': [(f'{k}x{k} depthwise to', functools.partial(
        layers.Conv, kernel=k, padding=0, depthwise=True), DEPTHWISE) for k in (3, 5, 7)],
    'reflect': [('reflection by', Reflect, REFLECT)],
    'pointwise': [('1x1 to', functools.partial(layers.Conv, kernel=1), POINTWISE)],
    'strided': [('4x4, stride 2, to', functools.partial(
        layers.Conv, kernel=4, stride=2, padding=1), THIN)],
    'few': [('7x7 to', functools.partial(layers.Conv, kernel=7), FEW),
            ('4x4 to', functools.partial(layers.Conv, kernel=4, padding=1), HEADS)],
    'small': [('4x4, stride 2, to', functools.partial(
        layers.Conv, kernel=4, stride=2, padding=1), FEW_PIXELS)],
    'border': [('3x3 to', layers.Conv, BORDERED)],
    'dense': [('3x3 to', layers.Conv, DENSE)],
    'branches': [('six branches of', Block, BLOCKS)],
}


def forward(module):
  return module.apply


def gradient(module):
  """Of half the sum of squares, by weights and input."""
  return jax.grad(lambda v, x: jnp.square(module.apply(v, x)).sum() / 2, (0, 1))


def compiled(function, args, op, optimized):
  """With one operation in the other form, or in the textbook's."""
  name = conv_dispatch.IMPLEMENTATIONS[op][optimized]
  with mock.patch.dict(conv_dispatch.CHOSEN, {op: {jax.default_backend(): name}}):
    # Of a function of its own, or the trace of the other form would be taken.
    return xla.jit(lambda *args: function(*args)).lower(*args).compile()


def check_equal(op, one, other):
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    if op == 'branches':  # one ReLU in thousands is a rounding from 0 and takes the other side
      apart = float(jnp.linalg.norm(a - b) / jnp.linalg.norm(a))
      assert apart < 1e-2, apart
    else:
      np.testing.assert_allclose(a, b, atol=1e-5 * max(float(jnp.abs(a).max()), 1))


def main():
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--op', nargs='+', choices=CASES, default=list(CASES))
  parser.add_argument('--rounds', type=int, default=60)
  args = parser.parse_args()
  device = jax.devices()[0]
  print(f'jax {jax.__version__}, {device.platform} {device.device_kind}, {args.rounds} rounds')
  rng = np.random.default_rng(0)
  for op in args.op:
    reference, other, *_ = conv_dispatch.IMPLEMENTATIONS[op]
    print(f'\n| {op} | input | pass | {reference} ms | {other} / {reference} | quartiles |\n'
          '|---|---|---|--:|--:|--:|')
    for title, build, shapes in CASES[op]:
      for batch, side, c_in, c_out in shapes:
        x = jnp.asarray(rng.standard_normal((batch, side, side, c_in)), jnp.float32)
        variables = build(c_out).init(jax.random.key(0), x)
        for name, passed in (('forward', forward), ('gradient', gradient)):
          functions = [compiled(passed(build(c_out)), (variables, x), op, optimized)
                       for optimized in (False, True)]
          check_equal(op, *(f(variables, x) for f in functions))
          calls = {i: functools.partial(f, variables, x) for i, f in enumerate(functions)}
          seconds = analysis.time_calls(calls, args.rounds, warmup=1)
          low, middle, high = np.quantile(seconds[1] / seconds[0], (.25, .5, .75))
          print(f'| {title} {c_out} | {batch}x{side}x{side}x{c_in} | {name} | '
                f'{1e3 * np.median(seconds[0]):.2f} | {middle:.2f} | {low:.2f} to {high:.2f} |',
                flush=True)


if __name__ == '__main__':
  main()
