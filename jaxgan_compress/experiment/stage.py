"""One stage of a run: cut if it is to be, trained, measured on the way, and saved."""

from __future__ import annotations

import functools
import json
import time

import jax
import numpy as np
from PIL import Image

from jaxgan_compress import config as configs
from jaxgan_compress import data, nn, pruning
from jaxgan_compress.analysis import colour_labels, contact_sheet
from jaxgan_compress.config import SELECT
from jaxgan_compress.core import normalise, xla
from jaxgan_compress.distributed import StopSignal, by_main
from jaxgan_compress.experiment.workdir import Run
from jaxgan_compress.parallel import build_mesh
from jaxgan_compress.train import Terms, check_finite, fit, log_files


class Interrupted(Exception):  # noqa: N818 - a request was met, nothing went wrong
  """A signal stopped the run and its state is saved; `exit_code` is for the process."""

  def __init__(self, text: str, exit_code: int):
    super().__init__(text)
    self.exit_code = exit_code


def train_stage(run: Run, name: str, stop: StopSignal):
  """Trains a stage to its end, from its newest checkpoint; returns at once if it is done."""
  config, stage = run.config, run.config.stages[name]
  if run.is_done(name):
    run.reporter.say(f'{name}: done before, {stage.steps} steps')
    return
  if stage.prune and not run.pruned(name):
    _prune(run, name)
  method, rng = run.method(name), run.root_key(name)
  batch = stage.batch or config.batch
  batches, first = data.sizes_only(batch * method.updates), {}
  if method.needs_data:
    batches = run.pipeline(name)
    first = normalise(batches.prepare(batches[0]))
  start = functools.partial(method.init, rng, first, run.given(name))
  measuring = configs.measures(config) and method.draws
  if measuring:
    run.evaluator(name)  # made now, not in the middle of the stage

  with run.checkpointer(name) as checkpointer:
    state = checkpointer.restore(run.shapes(name)) or start()
    at = saved = int(state.step)
    with log_files.Recorder(run.folder(name), at) as recorder:
      watch = _Watch(recorder, run.reporter, at, name, run.folder(name) / 'log.jsonl',
                     config.steps_per_call)
      hook = _promoting(run, name, method, recorder, watch) if measuring and getattr(
          method, 'clock', None) else None
      run.reporter.begin(name, at, stage.steps, batch)
      try:
        training = fit(method, state, batches, steps=stage.steps, every=config.log_every,
                       replicas=config.replicas, stop=stop.ask, **_devices(config, method),
                       hook=hook, compiled=watch.compiled, per_call=config.steps_per_call,
                       copies=False)
        for state, logs in training:
          at = logs['step']
          last = at == stage.steps or stop.should_stop()
          evaluate = measuring and (at % config.evaluate.every == 0 or at == stage.steps)
          save = last or evaluate or at % config.checkpoint.every == 0
          watch.see(logs, now=save)  # raises on a term that is not finite, before it is saved
          measures = _evaluate(run, name, method, state, recorder) if evaluate else {}
          if save:
            checkpointer.save(state, config=configs.to_json(config), metrics={
                key: m.value for key, m in measures.items() if isinstance(m.value, float)})
            saved = at
            watch.restart()  # evaluating and saving is not training
        if saved != at:  # a signal came after the last yield: fit had nothing more to say
          watch.flush()
          checkpointer.save(state, config=configs.to_json(config))
      finally:
        run.reporter.end()
      if stop.should_stop() and at < stage.steps:
        checkpointer.wait()
        raise Interrupted(f'stopped by {stop.caught.name} in stage {name!r}; step {at} of '
                          f'{stage.steps} is saved. The same command goes on from there.',
                          stop.exit_code)
    checkpointer.wait()
    done = {}
    if not method.draws and config.evaluate.held_out:
      done['accuracy'] = _accuracy(run, method, state)
      run.reporter.say(f'{name}: {done["accuracy"]:.1%} of the held-out images classified right')
    by_main(lambda: log_files.write_whole(run.done_file(name), json.dumps(done)), f'{name} is done')
  if stop.should_stop():
    raise Interrupted(f'stopped by {stop.caught.name} after stage {name!r}, which is complete. '
                      'The same command goes on from there.', stop.exit_code)


def _devices(config, method):
  """How `fit` spreads a stage over devices. Students of which there are as many as places stand
  side by side; other stages of the run have the places for more data."""
  beside = getattr(method, 'beside', ())
  axes = {'student': config.mesh.student if len(beside) == config.mesh.student else 1,
          'space': config.mesh.space}
  alone = max(axes.values()) == 1
  return {'mesh': build_mesh(**axes), 'via': config.via if alone else 'shard_map',
          'students': beside if axes['student'] > 1 else ()}


def _prune(run, name):
  stage, files, teacher = run.config.stages[name], run.cut_files(name), run.teacher(name)
  whole = run.drawer(teacher, stage.teacher_checkpoint)
  # Students that shrank beside each other go on each as what was left of it.
  shrank = getattr(run.method(teacher), 'shrink', None)
  there = {f'{teacher}.{role}' for role in shrank.roles(run.method(teacher).product)} if shrank \
      else {}

  def own(role):
    return jax.device_get(run.drawer(f'{teacher}.{role}', stage.teacher_checkpoint).variables) \
        if f'{teacher}.{role}' in there else None

  title = f'{name}: channels that stay (dark), in their order'

  def cut_and_write():
    run.folder(name).mkdir(parents=True, exist_ok=True)
    for role, cut in run.cut(name, whole.module, jax.device_get(whole.variables), own).items():
      Image.fromarray(pruning.picture(cut.masks, title)).save(files[role].with_suffix('.png'))
      nn.save(files[role], cut.module, cut.variables, overwrite=True, like=whole.module)
      run.reporter.say(f'{name}: cut from {cut.before:,} to {cut.cost:,} '
                       f'{stage.prune.get("unit", "macs")}')

  by_main(cut_and_write, f'{name} is cut')


def _promoting(run, name, method, recorder, watch):
  """A hook of `fit` that measures the teachers of a method with a clock, at the end of their
  turns and at every evaluation within them, and tells it which are best so far."""
  metric = run.config.evaluate.select
  sign = 1 if SELECT[metric] == 'min' else -1

  def hook(state, step):
    began = time.monotonic()
    ends = not method.clock.teaching(step)
    due = ends or step % run.config.evaluate.every == 0
    if not due or not method.clock.teaching(step - 1):
      return None
    scores = {}
    for role in method.teachers:
      # The newest: `method.generators` has the best so far.
      measures = run.evaluator(f'{name}.{role}')(method.cycle.generators(state)[role])
      recorder.write_measures(step, {metric: measures[metric]}, role)
      scores[role] = sign * measures[metric].value
    before = {role: float(best['score']) for role, best in state.frozen['best'].items()}
    better = [role for role, score in scores.items() if score < before[role]]
    run.reporter.say(f'{name}: step {step}: teachers ' + ', '.join(
        f'{role} {metric} {sign * score:.4g}' + ' (best so far)' * (role in better)
        for role, score in scores.items()))
    watch.pause(time.monotonic() - began)  # measuring is not training
    return method.promote(state, scores)

  return hook


def _evaluate(run, name, method, state, recorder):
  drawers = method.generators(state)
  draw = drawers[method.product]
  teacher = drawers.get(getattr(method, 'pupils', {}).get(method.product, 'teacher'))
  evaluator = run.evaluator(name)
  measures = evaluator(draw, teacher)
  step = int(state.step)
  recorder.write_measures(step, measures)
  rows = []
  if hasattr(draw.module, 'latent'):
    x = evaluator.latents(draw.module.latent)[:16]
  else:
    batch = data.prepared_batch(evaluator.inputs, range(min(8, evaluator.count)))
    x = batch.get('source', batch.get('image'))
    rows = [colour_labels(batch['label_map'], batch['edges']) if 'label_map' in batch else x]
    rows += [batch['target']] if 'target' in batch else []
  rows += [np.asarray(each(x)) for each in ([teacher] if teacher else []) + [draw]]
  recorder.write_images(step, {'drawings': contact_sheet(rows)})
  short = ' '.join(f'{key} {m.value:.4g}' for key, m in measures.items()
                   if isinstance(m.value, float))
  run.reporter.say(f'{name}: step {step}: {short}')
  return measures


def _accuracy(run, method, state):
  source = run.source(**run.config.evaluate.held_out)
  module = getattr(method, method.product)
  variables = state.nets[method.product].averaged
  look = xla.jit(lambda images: module.apply(variables, images)[0].argmax(-1))
  right = 0
  for i in range(0, len(source), 500):
    batch = data.prepared_batch(source, range(i, min(i + 500, len(source))))
    truth = np.asarray(batch[method.label])
    right += (np.asarray(look(batch['target'])) == truth).mean() * len(truth)
  return float(right / len(source))


class _Watch:
  """Turns device logs into records one interval late, so that the device never waits."""

  def __init__(self, recorder, reporter, step, stage, log, per_call):
    self._recorder, self._reporter, self._stage = recorder, reporter, stage
    self._terms = Terms()
    for line in log_files.read_lines(log):  # of a run that goes on: what was seen and said before
      self._terms.see({name: x for name, x in line.items() if name != 'step'})
    self._pending = None
    self._step, self._time, self._per_call = step, time.monotonic(), per_call

  def compiled(self, seconds):
    self._step += self._per_call
    self._reporter.compiled(self._step, seconds, log_files.peak_memory())
    self.restart()

  def restart(self):
    self._time = time.monotonic()

  def pause(self, seconds):
    self._time += seconds

  def see(self, logs, now: bool):
    """Records the logs before these, and these too if `now`."""
    if now:
      jax.block_until_ready(logs)
    clock = time.monotonic()
    seconds, steps = clock - self._time, logs['step'] - self._step
    self._step, self._time = logs['step'], clock
    self.flush()
    self._pending = {**logs, 'seconds': seconds, 'steps_per_second': steps / max(seconds, 1e-9)}
    if now:
      self.flush()

  def flush(self):
    logs, self._pending = self._pending, None
    if logs is None:
      return
    scalars = {name: float(x) for name, x in logs.items() if name != 'step'}
    check_finite(scalars, logs['step'])
    for warning in self._terms.see(scalars):
      self._reporter.say(f'{self._stage}: step {logs["step"]}: {warning}')
    self._recorder.write_scalars(logs['step'], scalars)
    self._reporter.update(logs['step'], scalars)
