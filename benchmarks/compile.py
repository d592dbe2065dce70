"""How long does a step take to compile, at first and from the cache?

    python benchmarks/compile.py [--configs=omgd/edges2shoes,cat/colorize] [--size=256] [--batch=1]

Builds the method of each config's last stage at its published widths (no data is read, nothing is
trained), traces its step for images of --size, and compiles it; then does the same in another
process that finds the program in the cache. Prints seconds, as Markdown.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

CONFIGS = ('omgd/edges2shoes', 'omgd/edges2shoes:net=resnet', 'cat/colorize')


def work(name, size, batch):
  """{what: seconds} of one process."""
  began = time.perf_counter()
  import jax
  import jax.numpy as jnp

  from jaxgan_compress import config, core, nn
  from jaxgan_compress.config import build
  from jaxgan_compress.core import xla
  jax.config.update('jax_compilation_cache_dir', os.environ['CACHE'])
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.)
  found = {'imports': time.perf_counter() - began}
  c = config.load(name)
  stage = c.run[-1]
  method = build.method(c, stage, next(iter(c.stages[stage].teacher), None))
  image = jnp.zeros((batch, size, size, 3))
  pair = {'source': image, 'target': image}
  init_from = None
  if hasattr(method, 'teacher'):
    init_from = {'teacher': core.Net.of(nn.initialise(method.teacher, jax.random.key(1)))}
    if hasattr(method, 'adversary'):
      init_from['disc'] = core.Net.of(nn.initialise(method.adversary.disc, jax.random.key(2), image,
                                                image))
  began = time.perf_counter()
  state = method.init(jax.random.key(0), pair, init_from)
  found['first weights'] = time.perf_counter() - began
  began = time.perf_counter()
  lowered = xla.jit(method.step, donate_argnums=0).lower(state, pair)
  found['trace'] = time.perf_counter() - began
  began = time.perf_counter()
  lowered.compile()
  found['compile'] = time.perf_counter() - began
  return found


def main():
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--configs', default=','.join(CONFIGS))
  parser.add_argument('--size', type=int, default=256)
  parser.add_argument('--batch', type=int, default=1)
  parser.add_argument('--work', help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.work:
    print(json.dumps(work(args.work, args.size, args.batch)))
    return
  print('| step | process | imports | first weights | trace | compile |\n|---|---|--:|--:|--:|--:|')
  for name in args.configs.split(','):
    with tempfile.TemporaryDirectory() as cache:
      for what in ('cold', 'cached'):
        done = subprocess.run(
            [sys.executable, __file__, f'--work={name}', f'--size={args.size}',
             f'--batch={args.batch}'], stdout=subprocess.PIPE, text=True, check=True,
            env={**os.environ, 'CACHE': cache})
        seconds = json.loads(done.stdout.splitlines()[-1])
        print(f'| {name} | {what} | ' + ' | '.join(f'{x:.1f}' for x in seconds.values()) + ' |',
              flush=True)


if __name__ == '__main__':
  main()
