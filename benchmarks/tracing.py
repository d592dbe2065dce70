"""How long it takes to find the channels of the published networks in their programs.

    python benchmarks/tracing.py [--rounds 3]

For one image of the smallest size, in inference and in training mode together: equations and atoms
(indices of axes of leaves), seconds of this process to trace the programs, nothing of them known
before, and to walk through them. The median of several rounds, as Markdown.
"""

import argparse
import time

import jax
import numpy as np

from jaxgan_compress import nn
from jaxgan_compress.nn import init
from jaxgan_compress.nn.layers import conv_dispatch
from jaxgan_compress.nn.layers.inputs import example
from jaxgan_compress.tracing import network as networks
from jaxgan_compress.tracing import program

NETWORKS = {'resnet, 64': nn.resnet(64), 'unet, 64': nn.unet(64), 'inception, 64': nn.inception(64),
            'inception_spade, 64': nn.inception_spade(64), 'spade, 64': nn.spade(64),
            'rrdbnet, 23 blocks of 64': nn.rrdbnet()}


def equations(jaxpr):
  """Of a program and of those that it calls."""
  inner = (getattr(value, 'jaxpr', value) for eqn in jaxpr.eqns for value in eqn.params.values())
  return len(jaxpr.eqns) + sum(equations(each) for each in inner if hasattr(each, 'eqns'))


def once(module, leaves):
  """(equations, atoms, seconds to trace, seconds to walk)."""
  shapes, x = networks.shapes_of(module, leaves, ()), example(module)
  jax.clear_caches()
  marks = [time.process_time()]
  with conv_dispatch.reference():
    calls = [networks.traced_call(call, shapes, [x], lambda out: out[0])
             for call in networks.functions(module, {path[0] for path in shapes})]
  marks.append(time.process_time())
  found = program.understand(calls, {path: leaf.shape for path, leaf in shapes.items()})
  marks.append(time.process_time())
  return (sum(equations(call.jaxpr.jaxpr) for call in calls), len(found.atoms), *np.diff(marks))


def main():
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--rounds', type=int, default=3)
  rounds = parser.parse_args().rounds
  print('| network | pixels | equations | atoms | trace s | label s |\n|---|--:|--:|--:|--:|--:|')
  for name, module in NETWORKS.items():
    leaves = init.shapes(module)
    taken = np.median([once(module, leaves) for _ in range(rounds)], 0)
    print(f'| {name} | {example(module).shape[1]} | {taken[0]:,.0f} | {taken[1]:,.0f} | '
          f'{taken[2]:.2f} | {taken[3]:.2f} |', flush=True)


if __name__ == '__main__':
  main()
