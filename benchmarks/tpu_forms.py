"""What do the forms that layers take on TPUs gain there? Asks XLA's compiler, needs no TPU.

    python benchmarks/tpu_forms.py [--dtype bfloat16] [--batch 4] [--only 7x7] [--target TPU]
    python benchmarks/tpu_forms.py --limits --only 'residual block' [...]
    python benchmarks/tpu_forms.py --widths [...]

For layers as the networks have them: forward, and gradients by parameters and input, in one program
for one device, compiled with all operations in their textbook forms and with those that
`nn/layers/conv_dispatch.py` chooses for TPUs, by XLA's own options. Prints a Markdown table, a line
as soon as it is known. --limits: in our forms alone, at several limits of the on-chip memory for
one operation, of which `core.xla` chooses one. --widths: a 3x3 convolution and its norm at many
numbers of channels. The cycles are the compiler's estimates, by which it schedules the program: no
measurement. `benchmarks/forms.py` measures the forms of the machine that it runs on. Needs
`pip install 'jaxgan-compress[tpu]'`.
"""

import argparse
import datetime
import functools
from importlib import metadata
from unittest import mock

import jax
import jax.numpy as jnp
from flax import linen

from jaxgan_compress import analysis
from jaxgan_compress.core import Axes
from jaxgan_compress.nn import layers
from jaxgan_compress.nn.generators.resnets import ExpansionBlock, ResidualBlock
from jaxgan_compress.nn.layers import conv_dispatch

LIMITS = (6, 8, 12, 16, 32)  # MiB of on-chip memory for one operation; XLA's own is 16
WIDTHS = (16, 24, 32, 40, 48, 56, 64, 72, 80, 96, 112, 120, 128, 136, 160, 192, 224, 256)
BLOCK = dict(norm='instance', bias=True, padding='reflect', dropout=None, implementation='auto')


class Block(linen.Module):
  """A block of a network, in training."""
  block: type[linen.Module]
  fields: dict

  @linen.compact
  def __call__(self, x):
    return self.block(**BLOCK, **self.fields)(x, True, Axes())


def cases(dtype):
  """(what it is, layer, side of its input, channels of its input)."""
  conv = functools.partial(layers.Conv, dtype=dtype)
  halving = functools.partial(conv, kernel=4, stride=2, padding=1)
  up = functools.partial(layers.UpConv, dtype=dtype)
  separable = layers.SeparableConv(256, mode='reflect', dtype=dtype)
  residual = dict(hidden=256, separable=False, dtype=dtype)
  return [
      ('stem 7x7 to 64, reflected', conv(64, 7, mode='reflect'), 256, 3),
      ('image 7x7 to 3, reflected', conv(3, 7, mode='reflect'), 256, 64),
      ('first of PatchGAN, 4x4 / 2 to 64', halving(64), 256, 6),
      ('PatchGAN and U-Net, 4x4 / 2 to 128', halving(128), 128, 64),
      ('3x3 to 256, reflected', conv(256, mode='reflect'), 64, 256),
      ('3x3 to 64', conv(64), 128, 64),
      ('1x1 to 64', conv(64, 1), 128, 16),
      ('U-Net, up 4x4 to 3', up(3), 128, 128),
      ('U-Net, up 4x4 to 64', up(64), 32, 256),
      ('ResNet, up 3x3 to 128', up(128, 3), 64, 256),
      ('separable 3x3 to 256, reflected', separable, 64, 256),
      ('residual block', Block(ResidualBlock, residual), 64, 256),
      ('residual block, separable', Block(ResidualBlock, {**residual, 'separable': True}), 64, 256),
      ('expansion block', Block(ExpansionBlock, dict(dtype=dtype)), 128, 16),
      ('instance norm', layers.InstanceNorm(), 256, 64),
      ('instance norm, affine', layers.InstanceNorm(affine=True), 64, 256)]


def step(layer, variables, x, dy):
  """Output, and gradients by parameters and input where the output's is dy."""
  y, back = jax.vjp(layer.apply, variables, x)
  return y, back(dy)


def compiled(layer, x, target, reference, options):
  """The program of the layer's step, in textbook forms or in those chosen for the target."""
  chosen = {op: {} for op in conv_dispatch.CHOSEN} if reference else {}
  with mock.patch.dict(conv_dispatch.CHOSEN, chosen):
    variables = jax.eval_shape(layer.init, jax.random.key(0), x)
    dy = jax.eval_shape(layer.apply, variables, x)
    return analysis.compile_for(functools.partial(step, layer), variables, x, dy, target=target,
                                options=options)


def short(number):
  """Three significant digits, thousands apart."""
  return f'{float(f"{number:.3g}"):,.10g}'


def line(title, x, reference, ours):
  start = f'| {title} | {"x".join(map(str, x.shape))} | {x.dtype} '
  if errors := [program.error for program in (reference, ours) if program.error]:
    return f'{start}| not compiled: {errors[0]} | | | | | | |'
  seconds = [short(program.seconds) for program in (reference, ours)]
  code = [short(program.hbm['code'] / 1e6) for program in (reference, ours)]
  return f'{start}| ' + ' | '.join([
      short(reference.cycles), short(ours.cycles), f'{ours.cycles / reference.cycles:.2f}',
      *seconds, *code]) + ' |'


def by_limit(layer, x, target):
  """Cells of cycles, seconds to compile and MB of code at each of the `LIMITS`."""
  programs = [compiled(layer, x, target, False, {
      'xla_tpu_scoped_vmem_limit_kib': str(1024 * limit),
      'xla_tpu_enable_deduplicated_calls': 'true'}) for limit in LIMITS]
  return [program.error or ' / '.join(map(short, (
      program.cycles, program.seconds, program.hbm['code'] / 1e6))) for program in programs]


def by_width(args):
  """Prints a line for each of the `WIDTHS`."""
  print('| channels | cycles | cycles a multiply-accumulate, beside 128 channels |\n|--:|--:|--:|')
  found = {}
  for width in (128, *WIDTHS):  # the others are compared with the first
    block = linen.Sequential([layers.Conv(width, mode='reflect', dtype=jnp.dtype(args.dtype)),
                              layers.InstanceNorm()])
    x = jax.ShapeDtypeStruct((args.batch, 64, 64, width), args.dtype)
    if width not in found:
      found[width] = compiled(block, x, args.target, False, None).cycles
    if len(found) > 1:
      each = found[width] / found[128] * (128 / width) ** 2
      print(f'| {width} | {short(found[width])} | {each:.2f} |', flush=True)


def main():
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--dtype', choices=('float32', 'bfloat16'), default='float32')
  parser.add_argument('--batch', type=int, default=4)
  parser.add_argument('--only', default='', help='layers whose title has this')
  parser.add_argument('--limits', action='store_true')
  parser.add_argument('--widths', action='store_true')
  parser.add_argument('--target', default='tpu:v5e:2x2')
  args = parser.parse_args()
  found = [case for case in cases(jnp.dtype(args.dtype)) if args.only in case[0]]
  if not found:
    parser.error(f'--only={args.only} is in no title; titles are '
                 + ', '.join(title for title, *_ in cases(jnp.float32)))
  print(f'{args.target}, one device, {datetime.date.today()}, jax {jax.__version__}, '
        f'libtpu {metadata.version("libtpu")}\n')
  if args.widths:
    by_width(args)
    return
  if args.limits:
    heads = ' | '.join(f'{limit} MiB' for limit in LIMITS)
    print(f'| layer: cycles / s to compile / MB of code | {heads} |\n|---{"|--:" * len(LIMITS)}|')
  else:
    print('| layer | input | dtype | cycles, textbook | ours | ratio | s to compile, textbook '
          '| ours | MB of code, textbook | ours |\n|---|---|---|--:|--:|--:|--:|--:|--:|--:|')
  number = jax.ShapeDtypeStruct((), args.dtype)
  analysis.compile_for(jnp.negative, number, target=args.target)  # or the first would seem slow
  for title, layer, side, channels in found:
    x = jax.ShapeDtypeStruct((args.batch, side, side, channels), args.dtype)
    if args.limits:
      print(f'| {title} | {" | ".join(by_limit(layer, x, args.target))} |', flush=True)
      continue
    programs = [compiled(layer, x, args.target, reference, {}) for reference in (True, False)]
    print(line(title, x, *programs), flush=True)


if __name__ == '__main__':
  main()
