"""One process of several: trains a paired run, measures it, and writes what it came to."""

import jax
import numpy as np


def train_and_measure(devices):
  """{name: what it came to} of three steps, and of measures of the student beside its teacher."""
  # Only here, for they ask for the devices, which `initialize` below has to come before.
  import optax

  from jaxgan_compress import core, data, methods, metrics, nn, parallel, train
  tx = optax.sgd(1e-4)
  net = lambda ngf: nn.ResNetGenerator((ngf,), (ngf,), (), implementation='reference')
  method = methods.OMGD(
      net(1), tx, methods.Adversary(nn.PatchGAN(2, layers=1, inputs=6, heads=('wide',)), tx,
                                    'hinge'),
      wide=net(2), distill=methods.DistillLoss(
          methods.SSIM(), methods.TotalVariation(),
          methods.Taps('channel_means', 1., ('stem',))))
  source = data.samples('colorize', size=32)
  whole = data.Pipeline(source, batch=4, host=0, hosts=1)
  state = method.init(jax.random.key(0), core.normalise(whole[0]))
  [(state, logs)] = train.fit(method, state, data.Pipeline(source, batch=4), steps=3, every=3,
                              mesh=parallel.build_mesh(devices), via='shard_map')
  local = lambda x: np.asarray(x.addressable_data(0))
  found = {jax.tree_util.keystr(path): local(x)
           for path, x in jax.tree_util.tree_leaves_with_path(state.params)}
  means = metrics.Extractor(lambda _, x: {'features': x.mean((1, 2))}, {}, {})
  # Seven images, two at once: the last batch is short, and one process has a batch less.
  evaluator = metrics.Evaluator(means, data.samples('colorize', 'validation', size=32, count=9),
                                inputs=data.samples('colorize', 'test', size=32, count=7), batch=2)
  draw = method.generators(state)
  measures = {f'measured_{name}': measure.value
              for name, measure in evaluator(draw['student'], draw['wide']).items()}
  return {**measures, 'loss': local(logs['student']['loss']), 'devices': devices, **found}


def main(port, processes, number, out):
  jax.distributed.initialize(
      coordinator_address=f'127.0.0.1:{port}', num_processes=int(processes),
      process_id=int(number), coordinator_bind_address=None if int(number) else f'127.0.0.1:{port}',
      initialization_timeout=60, heartbeat_timeout_seconds=20, shutdown_timeout_seconds=20)
  np.savez(out, **train_and_measure(jax.device_count()))
