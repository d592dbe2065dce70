"""What are the forms that TPUs get worth, by the compiler's estimate?

    python benchmarks/tpu_forms.py [--only=U-Net] [--dtype=bfloat16] [--batch=4]

Compiles networks, forward and with the gradient by parameters and input, for one TPU: in the
reference form of each operation, and in the forms that the library takes there
(`nn/layers/conv_dispatch.py`). Prints the cycles that the compiler expects, the seconds that it
takes and the size of the program, as Markdown. Nothing runs; the extra `tpu` brings the compiler.
"""

import argparse
from unittest import mock

import jax
import jax.numpy as jnp

from jaxgan_compress import analysis, nn
from jaxgan_compress.nn.layers import conv_dispatch

FORMS = ('rows', 'reflect')  # the operations that have a form for TPUs
NETWORKS = {  # name: (network, channels of the image)
    'U-Net, ngf 64': (nn.unet(64), 3), 'U-Net, ngf 16': (nn.unet(16), 3),
    'deeper U-Net, ngf 16': (nn.unet_deepest(16), 3),
    'ResNet, ngf 64, 2 blocks': (nn.resnet(64, 2), 3),
    'separable ResNet, ngf 64, 2 blocks': (nn.mobile_resnet(64, 2), 3),
    'deeper ResNet, ngf 16, 2 blocks': (nn.mobile_deepest_resnet(16, 2), 3),
    'inception, ngf 64, 2 blocks': (nn.inception(64, 2), 3),
    'PatchGAN, ndf 128': (nn.PatchGAN(128, inputs=6, norm='batch'), 6)}


def program(module, channels, args):
  """A network's forward and backward pass, compiled."""
  x = jax.ShapeDtypeStruct((args.batch, 256, 256, channels), jnp.float32)
  variables = jax.eval_shape(module.init, jax.random.key(0), x)
  state = {key: value for key, value in variables.items() if key != 'params'}

  def step(params, state, x, slope):
    def apply(params, x):
      y, moved = module.apply({**state, 'params': params}, x, True, mutable=list(state))
      return jax.tree.leaves(y[0])[0], moved

    y, back, moved = jax.vjp(apply, params, x, has_aux=True)
    return y, moved, back(y * slope)

  return analysis.compile_for(step, variables['params'], state, x,
                              jax.ShapeDtypeStruct((), jnp.float32), target=args.target)


def main():
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--only', default='')
  parser.add_argument('--dtype', default='float32')
  parser.add_argument('--batch', type=int, default=4)
  parser.add_argument('--target', default='tpu:v5e:2x2')
  args = parser.parse_args()
  jax.config.update('jax_platforms', 'cpu')
  print(f'jax {jax.__version__}, {args.target}, batch {args.batch} at 256 px, {args.dtype}\n\n'
        '| network | cycles, reference | for TPUs | ratio | compiling, s | | code, MB | |\n'
        '|---|--:|--:|--:|--:|--:|--:|--:|')
  for name, (module, channels) in NETWORKS.items():
    if args.only in name:
      module = module.clone(dtype=jnp.dtype(args.dtype).type)
      with mock.patch.dict(conv_dispatch.CHOSEN, {op: {} for op in FORMS}):
        reference = program(module, channels, args)
      ours = program(module, channels, args)
      print(f'| {name} | {reference.cycles / 1e6:.1f} M | {ours.cycles / 1e6:.1f} M | '
            f'{ours.cycles / reference.cycles:.2f} | {reference.seconds:.0f} | '
            f'{ours.seconds:.0f} | {reference.hbm["code"] / 1e6:.0f} | '
            f'{ours.hbm["code"] / 1e6:.0f} |', flush=True)


if __name__ == '__main__':
  main()
