"""A stage is trained: pruned if it is to be, measured on the way, and saved."""

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
from jaxgan_compress.core import flatten_logs, normalise, paths, xla
from jaxgan_compress.distributed import StopSignal, by_main
from jaxgan_compress.experiment.generators import TrainedGenerator
from jaxgan_compress.experiment.stage import Stage
from jaxgan_compress.train import Terms, check_finite, fit, log_files


class Interrupted(Exception):  # noqa: N818 - a request was met, nothing went wrong
  """A signal stopped the run and its state is saved; `exit_code` is for the process."""

  def __init__(self, text: str, exit_code: int):
    super().__init__(text)
    self.exit_code = exit_code


def train_stage(stage: Stage, stop: StopSignal):
  """Trains a stage to its end, from its newest checkpoint; returns at once if it is done."""
  config, spec, reporter = stage.run.config, stage.spec, stage.run.reporter
  if stage.is_done:
    reporter.say(f'{stage.name}: done before, {spec.steps} steps')
    return
  if spec.prune and not stage.pruned.written and (teacher := stage.teacher):
    _prune(stage, teacher)
  method = stage.method
  batches, first = data.sizes_only(stage.batch * method.updates), {}
  if method.needs_data:
    batches = stage.pipeline()
    first = normalise(batches.prepare(batches[0]))
  init = functools.partial(method.init, stage.key, first, stage.init_from())
  if notice := stage.notice:
    by_main(lambda: _write_notice(stage, notice), f'{stage.name} has its notice')
  if measuring := configs.measures(config) and method.is_generator:
    TrainedGenerator(stage, method.main).evaluator()  # made now, not in the middle of the stage

  with stage.checkpointer() as checkpointer:
    state = checkpointer.restore(stage.shapes()) or init()
    with log_files.Recorder(stage.folder, int(state.step)) as recorder:
      session = _Session(stage, int(state.step), checkpointer, recorder, measuring, stop)
      reporter.begin(stage.name, session.step, spec.steps, stage.batch)
      try:
        session.train(state, batches)
      finally:
        reporter.end()
      if (caught := stop.caught) and session.step < spec.steps:
        checkpointer.wait()
        raise Interrupted(f'stopped by {caught.name} in stage {stage.name!r}; step '
                          f'{session.step} of {spec.steps} is saved. The same command goes on from '
                          'there.', stop.exit_code)
    checkpointer.wait()
    done = {}
    if not method.is_generator and config.evaluate.held_out:
      done['accuracy'] = _accuracy(stage, session.state)
      reporter.say(f'{stage.name}: {done["accuracy"]:.1%} of the held-out images classified right')
    by_main(lambda: paths.write_atomically(stage.done_file, json.dumps(done)),
            f'{stage.name} is done')
  if caught := stop.caught:
    raise Interrupted(f'stopped by {caught.name} after stage {stage.name!r}, which is '
                      'complete. The same command goes on from there.', stop.exit_code)


class _Session:
  """The training of a stage from one start of the process on."""

  def __init__(self, stage, step, checkpointer, recorder, measuring, stop):
    self.stage, self.checkpointer, self.recorder = stage, checkpointer, recorder
    self.measuring, self.stop, self.config = measuring, stop, stage.run.config
    self.step = self.saved = step
    self.state = None
    self.watch = _Watch(recorder, stage.run.reporter, self.step, stage.name,
                        stage.folder / 'log.jsonl', self.config.steps_per_call)

  def train(self, state, batches):
    config, method, steps = self.config, self.stage.method, self.stage.spec.steps
    self.state = state
    schedule = self.measuring and vars(method).get('schedule')  # of OMGD without pairs
    training = fit(
        method, state, batches, steps=steps, every=config.log_every, replicas=config.replicas,
        via=config.via, stop=self.stop.ask, hook=self._update_best_teachers if schedule else None,
        compiled=self.watch.compiled, per_call=config.steps_per_call, copies=False)
    for state, logs in training:
      self.state, self.step = state, logs['step']
      self._see(logs)
    if self.saved != self.step:  # a signal came after the last yield: fit had nothing more to say
      self.watch.flush()
      self._save({})

  def _see(self, logs):
    config, last = self.config, self.step == self.stage.spec.steps
    evaluate = self.measuring and (self.step % config.evaluate.every == 0 or last)
    save = last or self.stop.should_stop() or evaluate or self.step % config.checkpoint.every == 0
    self.watch.see(logs, now=save)  # raises on a term that is not finite, before it is saved
    measures = self._evaluate() if evaluate else {}
    if save:
      self._save(measures)
      self.watch.restart()  # evaluating and saving is not training

  def _save(self, measures):
    self.checkpointer.save(self.state, config=configs.to_json(self.config), metrics={
        key: measure.value for key, measure in measures.items()
        if isinstance(measure.value, float)})
    self.saved = self.step

  def _evaluate(self):
    method, stage = self.stage.method, self.stage
    generators = method.generators(self.state)
    generator = generators[method.main]
    teacher = generators.get(method.roles.teacher_of.get(method.main))
    evaluator = TrainedGenerator(stage, method.main).evaluator()
    measures = evaluator(generator, teacher)
    self.recorder.write_measures(self.step, measures)
    rows = []
    if evaluator.inputs is None:
      x = evaluator.latents(generator.module.latent)[:16]
    else:
      batch = data.prepared_batch(evaluator.inputs, range(min(8, evaluator.count)))
      x = batch.get('source', batch.get('image'))
      rows = [colour_labels(batch['label_map'], batch['edges']) if 'label_map' in batch else x]
      rows += [batch['target']] if 'target' in batch else []
    rows += [np.asarray(each(x)) for each in ([teacher] if teacher else []) + [generator]]
    self.recorder.write_images(self.step, {'generated': contact_sheet(rows)})
    short = ' '.join(f'{key} {measure.value:.4g}' for key, measure in measures.items()
                     if isinstance(measure.value, float))
    stage.run.reporter.say(f'{stage.name}: step {self.step}: {short}')
    return measures

  def _update_best_teachers(self, state, step):
    """A hook of `fit` for a method with a schedule: measures the teachers at the end of their turns
    and at every evaluation within them, and tells the method which are the best so far."""
    method, metric = self.stage.method, self.config.evaluate.select
    sign = 1 if SELECT[metric] == 'min' else -1
    began = time.monotonic()
    due = not method.schedule.teaching(step) or step % self.config.evaluate.every == 0
    if not due or not method.schedule.teaching(step - 1):
      return None
    scores = {}
    newest = method.cycle.generators(state)  # `method.generators` has the best so far
    for role in method.teachers:
      measures = TrainedGenerator(self.stage, role).evaluator()(newest[role])
      self.recorder.write_measures(step, {metric: measures[metric]}, role)
      scores[role] = sign * measures[metric].value
    better = [role for role, score in scores.items()
              if score < float(state.frozen['best'][role]['score'])]
    self.stage.run.reporter.say(f'{self.stage.name}: step {step}: teachers ' + ', '.join(
        f'{role} {metric} {sign * score:.4g}' + ' (best so far)' * (role in better)
        for role, score in scores.items()))
    self.watch.pause(time.monotonic() - began)  # measuring is not training
    return method.update_best_teachers(state, scores)


def _write_notice(stage: Stage, notice: str):
  stage.folder.mkdir(parents=True, exist_ok=True)
  paths.write_atomically(stage.notice_file, f'{notice}\n')


def _prune(stage: Stage, teacher: Stage):
  """Prunes the teacher's generator for the students of a stage and writes what is left."""
  spec, run = stage.spec, stage.run
  whole = TrainedGenerator(teacher, teacher.recipe.main).bound(spec.teacher_checkpoint)
  # Students that were pruned online next to each other continue each as what was left of it.
  gradual = vars(teacher.method).get('gradual_pruning')  # of OMGD's methods
  pruned_before = set(gradual.roles(teacher.recipe.main)) if gradual else set()

  def own(role):
    return jax.device_get(TrainedGenerator(teacher, role).bound(
        spec.teacher_checkpoint).variables) if role in pruned_before else None

  title = f'{stage.name}: channels that stay (dark), in their order'

  def prune_and_write():
    stage.folder.mkdir(parents=True, exist_ok=True)
    results = stage.prune(whole.module, jax.device_get(whole.variables), own)
    for role, result in results.items():
      path = stage.pruned.paths[role]
      Image.fromarray(pruning.plot_masks(result.masks, title)).save(path.with_suffix('.png'))
      nn.save(path, result.module, result.variables, overwrite=True, like=whole.module,
              notice=teacher.notice)
      run.reporter.say(f'{stage.name}: pruned from {result.before:,} to {result.cost:,} '
                       f'{spec.prune.get("unit", "macs")}')

  by_main(prune_and_write, f'{stage.name} is pruned')


def _accuracy(stage: Stage, state):
  source = stage.run.source(**stage.run.config.evaluate.held_out)
  module, variables = stage.module, state.nets[stage.recipe.main].averaged
  predict = xla.jit(lambda images: module.apply(variables, images)[0].argmax(-1))
  right = 0
  for i in range(0, len(source), 500):
    batch = data.prepared_batch(source, range(i, min(i + 500, len(source))))
    truth = np.asarray(batch[vars(stage.method)['label']])
    right += (np.asarray(predict(batch['target'])) == truth).mean() * len(truth)
  return float(right / len(source))


class _Watch:
  """Turns device logs into records one interval late, so that the device never waits."""

  def __init__(self, recorder, reporter, step, stage, log, per_call):
    self._recorder, self._reporter, self._stage = recorder, reporter, stage
    self._terms = Terms()
    for logs in log_files.read_logs(log):  # of a run that continues: what was seen before
      self._terms.see(logs)
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
    time_now = time.monotonic()
    seconds, steps = time_now - self._time, logs['step'] - self._step
    self._step, self._time = logs['step'], time_now
    self.flush()
    self._pending = {**logs, 'seconds': seconds, 'steps_per_second': steps / max(seconds, 1e-9)}
    if now:
      self.flush()

  def flush(self):
    logs, self._pending = self._pending, None
    if logs is None:
      return
    step, logs = logs['step'], jax.tree.map(float, {
        name: value for name, value in logs.items() if name != 'step'})
    check_finite(flatten_logs(logs), step)
    for warning in self._terms.see(logs):
      self._reporter.say(f'{self._stage}: step {step}: {warning}')
    self._recorder.write_scalars(step, logs)
    self._reporter.update(step, logs)
