"""Do the tests see faults? Plants one fault at a time and runs the tests of the part it is in.

    python -m tests.mutants                          every fault, the tests of this checkout
    python -m tests.mutants --list                   what there is, and nothing runs
    python -m tests.mutants --only=losses --jobs=2   those whose file, text or reason says so
    python -m tests.mutants --tree=../other --out=before.json
    python -m tests.mutants --out=after.json --against=before.json
    python -m tests.mutants -- -m full               all after -- goes to pytest

For people who rewrite code or tests; no part of the test suite. Each fault, a `Mutant`, is planted
in a copy of the tree, by file and text; where that text is not there exactly once, the tool says
so. A fault is caught if a selected test fails, which proves nothing for a test that fails anyway:
--baseline runs each selection on the unchanged copy first. The last lines name what survived.

Exit code 1 if a mutant survived or could not be judged; with --against those that were caught
before are named once more.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import contextlib
import dataclasses
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = 'jaxgan_compress'
LEFT_OUT = ('.*', '__pycache__', '*.egg-info', 'runs', 'build', 'dist')


@dataclasses.dataclass(frozen=True)
class Mutant:
  """A fault of one line.

  file: in the package. why: what is wrong with it. old, new: the text, which is there once, and
  the fault. tests: files in tests/ that look at that part. k: which of their tests, as `pytest -k`
  takes it; where it selects none, which the tool says, all of the files run. hangs: the fault keeps
  a test from ending, so that running out of time counts as caught.
  """
  file: str
  why: str
  old: str
  new: str
  tests: tuple[str, ...]
  k: str = ''
  hangs: bool = False

  @property
  def name(self) -> str:
    return f'{self.file}: {self.old} -> {self.new}'


MUTANTS = (
    # losses
    Mutant('losses/gan.py', 'the margin of hinge is gone for drawings',
           'lambda x: relu(1 + x)', 'lambda x: relu(x)', ('test_losses.py',), 'by_hand'),
    Mutant('losses/gan.py', 'a drawing is compared with other drawings, not with real images',
           'softplus(fake - real.mean()).mean()', 'softplus(fake - fake.mean()).mean()',
           ('test_losses.py',), 'relative'),
    Mutant('losses/gan.py', 'real and drawing swap roles in the penalty',
           'mix * real + (1 - mix) * fake)', 'mix * fake + (1 - mix) * real)',
           ('test_losses.py',), 'penalty'),
    Mutant('losses/gan.py', 'R1 without its half',
           '.sum((1, 2, 3)).mean() / 2', '.sum((1, 2, 3)).mean()', ('test_losses.py',), 'penalty'),
    Mutant('losses/image.py', 'a mean over the batch that is a sum',
           'squares.sum((1, 2, 3)).mean()', 'squares.sum((1, 2, 3)).sum()',
           ('test_losses.py',), 'mse'),
    Mutant('losses/image.py', '|x| has slope 1 at 0: a student equal to its teacher moves',
           'jnp.sign(primals[0]) * tangents[0]', 'jnp.where(primals[0] < 0, -1, 1) * tangents[0]',
           ('test_losses.py',), 'kink'),
    Mutant('losses/image.py', 'total variation sees one direction twice',
           'jnp.diff(image, axis=2)', 'jnp.diff(image, axis=1)',
           ('test_trajectories.py',), 'losses_between_images'),
    Mutant('losses/image.py', 'SSIM of the wrong variance',
           'var_b = blur(target * target) - mean_b * mean_b',
           'var_b = blur(target * target) - mean_a * mean_b',
           ('test_trajectories.py',), 'losses_between_images'),
    Mutant('losses/features.py', 'Gram matrices depend on the number of channels',
           '/ (C * H * W)', '/ (H * W)', ('test_trajectories.py',), 'features_of_vgg'),
    Mutant('losses/similarity.py', 'HSIC of n - 1 where the unbiased estimate has n - 2',
           '2 / (n - 2) * (rows_k', '2 / (n - 1) * (rows_k', ('test_losses.py',), 'cka'),
    Mutant('losses/similarity.py', 'a mean over positions that is a sum',
           'unit(_wide(teacher))).sum(-1).mean()',
           'unit(_wide(teacher))).sum(-1).sum()',
           ('test_losses.py',), 'normalised'),
    Mutant('losses/similarity.py', 'means over n - 1 of n - 2 samples',
           'rows = k.sum(0) / (n - 2)',
           'rows = k.sum(0) / (n - 1)',
           ('test_cat.py',), 'align'),
    Mutant('losses/similarity.py', 'cka is not centred',
           "_unit(z) if kind == 'ka' else",
           "_unit(z) if kind != 'cka_debiased' else",
           ('test_cat.py',), 'align'),
    # train
    Mutant('train/checkpoint.py', 'a checksum is not checked',
           'if leaf != leaves[name]:', "if leaf['shape'] != leaves[name]['shape']:",
           ('test_survival.py',), 'damaged_checkpoint'),
    Mutant('train/checkpoint.py', 'the best is the worst',
           "choose = min if self._best.get(metric) == 'min' else max",
           "choose = max if self._best.get(metric) == 'min' else min",
           ('test_survival.py',), 'newest_and_best'),
    Mutant('train/checkpoint.py', 'a state that is not finite is saved',
           'not np.isfinite(x).all():', 'np.isnan(x).any():',
           ('test_survival.py',), 'not_finite'),
    Mutant('train/checkpoint.py', 'of another network only the names are compared',
           'if wanted != stored:', 'if wanted.keys() != stored.keys():',
           ('test_survival.py',), 'another_network or other_widths'),
    Mutant('train/loop.py', 'off by one in the data position: who goes on sees a batch twice',
           'data.batches(at) if own', 'data.batches(max(at - 1, 0)) if own', ('test_survival.py',),
           'n_and_n and gan'),
    Mutant('train/loop.py', 'off by one in the data position: no run sees the first batch',
           'data.batches(at) if own', 'data.batches(at + 1) if own',
           ('test_survival.py',), 'sees_batch or n_and_n'),
    Mutant('train/loop.py', 'a run that stops says nothing of its last state',
           '\n  if yielded != at:', '\n  if yielded > at:', ('test_survival.py',),
           'stops_when_asked'),
    Mutant('train/loop.py', 'the first of several steps is logged, not the last',
           'jax.tree.map(lambda x: x[-1], logs)', 'jax.tree.map(lambda x: x[0], logs)',
           ('test_survival.py',), 'several_steps'),
    Mutant('train/loop.py', 'every step is said to have compiled',
           'if at == first + per_call:', 'if at >= first + per_call:',
           ('test_survival.py',), 'sees_batch'),
    Mutant('train/log_files.py', 'the line of the last checkpoint is dropped: < for <=',
           "if line['step'] <= start]", "if line['step'] < start]", ('test_survival.py',),
           'records_after'),
    Mutant('train/schedules.py', 'the rate falls an epoch late',
           'jnp.minimum((epochs + 1) * stride, last)', 'jnp.minimum(epochs * stride, last)',
           ('test_terms.py',), 'rate'),
    Mutant('train/loss_monitor.py', 'a worry is told one look late: > for >=',
           'if count >= TIMES',
           'if count > TIMES',
           ('test_terms.py',), 'vanishes or three_looks'),
    Mutant('train/progress.py', 'time left of the steps that are done',
           '(self._steps - step) / rate', 'step / rate',
           ('test_survival.py',), 'progress or time_left'),
    # nn
    Mutant('nn/layers/norms.py', 'running variances are of the biased estimate',
           'unbiased = var * (count / max(count - 1, 1))', 'unbiased = var',
           ('test_dcgan.py',), 'batch_norm'),
    Mutant('nn/layers/norms.py', 'instance norm of the unbiased variance',
           'variance = statistic(jnp.square(centred))',
           'variance = jnp.var(y, (1, 2), keepdims=True, ddof=1)',
           ('test_networks.py',), 'generators_of_omgd and mobile'),
    Mutant('nn/layers/norms.py', 'layer norms for TPUs take the mean square for the variance',
           'statistic(jnp.square(y)) - jnp.square(mean)', 'statistic(jnp.square(y))',
           ('test_networks.py',), 'samples_for_tpus'),
    Mutant('nn/layers/norms.py', 'the closed gradient of layer norms has no part along the map',
           'dx = (dy * factor - flat - unit * along) * inverse',
           'dx = (dy * factor - flat) * inverse', ('test_networks.py',), 'samples_for_tpus'),
    Mutant('nn/layers/norms.py', 'the gradient of batch norm sees one replica',
           '- unit * per_channel(axes.mean(along), phases)', '- unit * per_channel(along, phases)',
           ('test_networks.py',), 'gradients_of_batch_norm'),
    Mutant('nn/layers/norms.py', 'the scale of an instance norm in blocks learns from a phase',
           'pixels = x.shape[1] * x.shape[2] * (phases or 1)',
           'pixels = x.shape[1] * x.shape[2]',
           ('test_networks.py',), 'tpus'),
    Mutant('nn/layers/norms.py', 'the scale of a batch norm in blocks learns from a phase',
           'count = x.size // x.shape[-1] * phases', 'count = x.size // x.shape[-1]',
           ('test_networks.py',), 'tpus'),
    Mutant('nn/layers/few_channels_tpu.py', 'an image is reflected with its border',
           'side - 1 - jnp.abs(side - 1 - jnp.abs(at))', 'side - 1 - jnp.abs(side - jnp.abs(at))',
           ('test_networks.py',), 'tpus'),
    Mutant('nn/layers/few_channels_tpu.py', 'phases of a block are swapped',
           "'ijfc,ra,sb->irjsfabc'", "'ijfc,ra,sb->irjsfbac'", ('test_networks.py',), 'tpus'),
    Mutant('nn/layers/few_channels_tpu.py', 'a map is gathered along one axis twice',
           "_gather(dy, *reads)", "_gather(dy, *reads[::-1])", ('test_networks.py',), 'tpus'),
    Mutant('nn/layers/conv_tpu.py', 'the gradient by the input of a product is not turned',
           'back[::-1, ::-1], 1, 0)', 'back, 1, 0)', ('test_networks.py',), 'products'),
    Mutant('analysis/ahead_of_time.py', 'a loop costs as one turn',
           'if len(bounds) == 1 else 1', 'if len(bounds) == 9 else 1',
           ('test_ahead_of_time.py',), 'by_hand'),
    Mutant('core/xla.py', 'forms follow the host, not the target',
           'return _target.get() or jax.default_backend()', 'return jax.default_backend()',
           ('test_ahead_of_time.py',), 'follows_the_target'),
    Mutant('nn/layers/norms.py', "PyTorch's momentum is taken for flax's",
           'share = 1 - self.momentum', 'share = self.momentum', ('test_dcgan.py',), 'batch_norm'),
    Mutant('nn/layers/conv.py', 'the kernel of a projection is not flipped',
           'matrix = kernel[::-1, ::-1].astype', 'matrix = kernel.astype', ('test_dcgan.py',),
           'pytorch'),
    Mutant('nn/layers/upsample_cpu.py', 'a flipped kernel in the gradient of an up-convolution',
           'turned = lambda kernel: kernel[::-1, ::-1].swapaxes(2, 3)',
           'turned = lambda kernel: kernel.swapaxes(2, 3)', ('test_networks.py',),
           'implementations_of_transposed'),
    Mutant('nn/layers/conv.py', 'a gradient flows through spectral vectors',
           'constant = lax.stop_gradient(matrix)', 'constant = matrix', ('test_networks.py',),
           'spectral'),
    Mutant('nn/layers/resample.py', 'reflection repeats the border',
           "np.pad(np.arange(n), amount, 'reflect')", "np.pad(np.arange(n), amount, 'symmetric')",
           ('test_networks.py',), 'implementations_of_reflection'),
    Mutant('nn/layers/resample.py', 'label maps are subsampled from the middle of each block',
           'x[:, ::rows, ::columns]', 'x[:, rows // 2::rows, columns // 2::columns]',
           ('test_networks.py',), 'inception_spade_generator'),
    Mutant('nn/layers/conv_cpu.py', 'one sign of Winograd',
           'm[1] - m[2] - m[3]', 'm[1] - m[2] + m[3]', ('test_networks.py',),
           'implementations_of_convolution'),
    Mutant('nn/discriminators.py', 'condition and image swap places',
           'jnp.concatenate([fitted(condition, image), image], -1)',
           'jnp.concatenate([image, fitted(condition, image)], -1)',
           ('test_networks.py',), 'discriminators_of_omgd and wide'),
    Mutant('nn/discriminators.py', 'smaller copies are darker at the border: padding counts',
           'sums(x) / sums(jnp.ones((1, *x.shape[1:3], 1), x.dtype))', 'sums(x) / 9',
           ('test_networks.py',), 'smaller_copies or spectral'),
    Mutant('nn/generators/resnets.py', 'the blocks of the deeper teacher stand one earlier',
           'i == len(self.hidden) // 2 + 1', 'i == len(self.hidden) // 2', ('test_networks.py',),
           'generators_of_omgd and deepest and not unet'),
    Mutant('nn/generators/unets.py', 'dropout begins a level further in: > 4 for > 3',
           'self.dropout if i > 3 else 0.', 'self.dropout if i > 4 else 0.',
           ('test_networks.py',), 'dropout'),
    Mutant('nn/generators/spades.py', 'a modulation without its 1',
           'free(x, train, axes) * (1 + gamma) + beta', 'free(x, train, axes) * gamma + beta',
           ('test_networks.py',), 'modulation or inception_spade'),
    Mutant('nn/generators/spades.py', 'gamma and beta swap roles where they are merged',
           'convolve_together(both, hidden)', 'convolve_together(both[::-1], hidden)',
           ('test_networks.py',), 'implementations_of_whole'),
    Mutant('nn/generators/inceptions.py', 'an example too small for its largest kernel',
           '4 * max(3, reflected + 1)', '12', ('test_networks.py',), 'large_enough'),
    Mutant('nn/layers/conv.py', 'merged branches keep the bias of the first',
           'sum(bias) if conv.bias', 'bias[0] if conv.bias', ('test_networks.py',),
           'implementations_of_branches'),
    Mutant('nn/feature_nets/drn.py', 'the last level is dilated by 2',
           '(2, 2, 1, 1), (1, 1, 2, 4)', '(2, 2, 1, 1), (1, 1, 2, 2)',
           ('test_evaluation_networks.py',), 'drn_is'),
    Mutant('nn/feature_nets/fid_inception.py', 'the last block pools as the others do',
           "'7c': ('max', _E)", "'7c': ('average', _E)", ('test_evaluation_networks.py',),
           'poolings'),
    Mutant('nn/feature_nets/efficientnet.py', 'strides pad before an even side, too',
           '((side, 1) for side in odd)', '((1, 1) for side in odd)',
           ('test_evaluation_networks.py',), 'pad_as_tensorflow'),
    Mutant('nn/feature_nets/efficientnet.py', 'of an even side even pixels are kept',
           'y[:, 1 - odd[0]::2, 1 - odd[1]::2]', 'y[:, ::2, ::2]',
           ('test_evaluation_networks.py',), 'pad_as_tensorflow'),
    Mutant('nn/init.py', 'all kernels are of the same noise',
           'noise[used - x.size:used].reshape', 'noise[:x.size].reshape',
           ('test_networks.py',), 'drawn_anew or schemes'),
    Mutant('nn/init.py', 'He without its 2',
           'math.sqrt(2 / fan_in))', 'math.sqrt(1 / fan_in))',
           ('test_networks.py',), 'he_is or schemes'),
    Mutant('nn/files/network.py', 'a checksum is not checked',
           "if str(checksum(arrays)) != metadata.get('crc32'):", "if 'crc32' not in metadata:",
           ('test_convert.py',), 'file_of_ours'),
    Mutant('nn/generators/dcgan.py', 'the frame of 28 px is grey, not black',
           'constant_values=-1)', 'constant_values=0)', ('test_dcgan.py',), 'frame or shapes_and'),
    Mutant('nn/feature_nets/vgg.py', 'an adapter takes its running statistics',
           "BatchNorm(name='norm')(x, train, axes)", "BatchNorm(name='norm')(x, False, axes)",
           ('test_trajectories.py',), 'channel_distillation'),
    Mutant('nn/prunable.py', 'copies of a group are not counted',
           '(name, count // width) for name in makers', '(name, 1) for name in makers',
           ('test_plans.py',), 'deeper or by_hand'),
    Mutant('nn/prunable.py', 'groups of one channel are in no leaf',
           'times = 2 if any', 'times = 1 if any', ('test_plans.py',), 'width_1'),
    # methods
    Mutant('methods/adversary.py', 'of two kinds of real images the critic sees one',
           'shown[::kinds] if self.relativistic',
           'shown[:len(fake)] if self.relativistic',
           ('test_methods.py',), 'pairing or critic'),
    Mutant('methods/adversary.py', 'relativistic pairing counts twice',
           "(losses[0] if self.loss == 'rp' else sum(losses))",
           'sum(losses)',
           ('test_methods.py',), 'pairing or critic'),
    Mutant('methods/gan.py', 'all updates of the critic see the same images',
           "batch['target'][i::self.updates]", "batch['target'][::self.updates]",
           ('test_methods.py',), 'critic_updates'),
    Mutant('methods/kd.py', 'statistics of replicas do not meet',
           'state.with_collections(moved, axes)',
           'state.with_collections(moved)',
           ('test_methods.py',), 'per_replica_or_global'),
    Mutant('methods/kd.py', 'of several updates the first one lends its latents',
           "z = latents('z') if self.teacher",
           "z = latents('z_disc0') if self.teacher",
           ('test_methods.py',), 'latents_of_its_own'),
    Mutant('methods/kd.py', 'a lesson depends on the rest of the batch',
           "state.frozen['teacher'], z, train=False))",
           "state.frozen['teacher'], z, train=True))",
           ('test_methods.py',), 'function_of_z'),
    Mutant('methods/pix2pix.py', 'the discriminator minimises the sum of its sides, not half',
           'loss = (on_real + on_fake) / 2 +', 'loss = on_real + on_fake +',
           ('test_omgd.py',), 'discriminator_moves'),
    Mutant('methods/pix2pix.py', 'the generator answers to the judge of before',
           "moved_disc = {'params': state.nets['disc'].params",
           "moved_disc = {'params': disc.params",
           ('test_omgd.py',), 'discriminator_moves'),
    Mutant('methods/pix2pix.py', 'each pass moves statistics from where the step began',
           "forward('real', target, moved, fake=generated)",
           "forward('real', target, fake=generated)",
           ('test_methods.py',), 'statistics_move'),
    Mutant('methods/omgd.py', "a head's pass moves the statistics of every head",
           'collections = of_head(collections, moved, role, self.adversary.disc.heads)',
           'collections = moved',
           ('test_methods.py',), 'statistics_move'),
    Mutant('methods/gaugan.py', 'batch statistics move once, not twice',
           'generate(state.nets[role].params, collections)',
           'generate(state.nets[role].params, state.nets[role].collections)',
           ('test_omgd.py',), 'label_map_generator'),
    Mutant('methods/gaugan.py', 'features are summed over scales',
           'for name, x in fake.items()) / len(logits)}',
           'for name, x in fake.items())}',
           ('test_omgd.py',), 'label_map_generator or mean_over_scales'),
    Mutant('losses/similarity.py', 'the student is driven away from its teacher',
           '-alignment(student, teacher, kind)',
           'alignment(student, teacher, kind)',
           ('test_cat.py',), 'label_maps'),
    Mutant('methods/cat.py', 'target and lesson swap roles',
           "(self.recon_target == 'auto' and not self.paired)",
           "(self.recon_target == 'auto' and self.paired)",
           ('test_cat.py',), 'drawn_towards'),
    Mutant('methods/cyclegan.py', 'identity of the wrong domain',
           'generate(role, real)[0], real)',
           'generate(role, x)[0], real)',
           ('test_trajectories.py',), 'cycles'),
    Mutant('methods/image_pool.py', 'a pool is full one image late: > for >=',
           'full = count >= size',
           'full = count > size',
           ('test_omgd.py',), 'pool_is'),
    Mutant('methods/cyclegan.py', "the discriminator's loss moves the generator",
           'fake, pool = stop_gradient(generated), {}',
           'fake, pool = generated, {}',
           ('test_omgd.py',), 'graph_of_cycles'),
    Mutant('methods/students.py', "the student's loss moves its teacher",
           '*stop_gradient(generated), disc',
           '*generated, disc',
           ('test_omgd.py',), 'graph_of_cycles'),
    Mutant('methods/omgd_unpaired.py', 'a teacher as good as the best takes its place: <= for <',
           "if score < float(best[role]['score']):",
           "if score <= float(best[role]['score']):",
           ('test_omgd.py',), 'best_teacher or only_as_good'),
    Mutant('methods/tap_terms.py', "the student's loss moves its teacher",
           'stop_gradient(teacher.taps[tap])\n      if',
           'teacher.taps[tap]\n      if',
           ('test_omgd.py',), 'moved_by_themselves'),
    Mutant('methods/omgd.py', "the teacher's relativistic loss moves the discriminator",
           'stop_gradient(real[role]))',
           'real[role])',
           ('test_omgd.py',), 'penalties or relative_loss_of'),
    Mutant('methods/omgd.py', 'a judge of two minimises the sum of its sides, not half',
           "losses['disc'] += (on_real + on_fake) / 2 +", "losses['disc'] += on_real + on_fake +",
           ('test_omgd.py',), 'penalties or half_of_both'),
    Mutant('methods/omgd.py', 'teachers move a step early',
           '(state.step + 1) % self.teacher_every == 0',
           'state.step % self.teacher_every == 0',
           ('test_omgd.py',), 'teachers_move'),
    Mutant('methods/setup.py', 'a finished teacher draws without its average',
           "return init_from['teacher'].averaged",
           "return init_from['teacher'].variables",
           ('test_omgd.py',), 'offline or by_its_average'),
    Mutant('methods/terms.py', 'total variation depends on the number of devices',
           '(axes.count, len(teachers)) if',
           '(1, len(teachers)) if',
           ('test_omgd.py',), 'test_devices_change_nothing and not of_'),
    Mutant('methods/classify.py', 'a mean over the batch that is a sum',
           'integer_labels(logits, label).mean()', 'integer_labels(logits, label).sum()',
           ('test_methods.py',), 'cross_entropy'),
    Mutant('methods/diagnosis.py', 'every term is asked for all of them',
           'zeros = jax.tree.map(lambda x: 0 * x, terms)',
           'zeros = jax.tree.map(lambda x: 1 + 0 * x, terms)', ('test_omgd.py',),
           'gradients_of_terms'),
    # metrics
    Mutant('metrics/moments.py', 'a biased covariance',
           'centred.T @ centred / (len(x) - 1)', 'centred.T @ centred / len(x)',
           ('test_scores.py',), 'moments'),
    Mutant('metrics/moments.py', 'the mean of both sets is drawn to the smaller one',
           'shift * (m / (n + m))', 'shift * (n / (n + m))', ('test_scores.py',),
           'moments'),
    Mutant('metrics/formulas.py', 'each part is compared with the mean of all',
           'log(part.mean(0))', 'log(probs.mean(0))', ('test_metrics.py',), 'inception_score'),
    Mutant('metrics/formulas.py', 'few samples have a biased covariance',
           '(len(x) - 1) ** -.5', 'len(x) ** -.5', ('test_scores.py',), 'frechet'),
    Mutant('metrics/feature_distances.py', 'a biased estimate: samples meet themselves, too',
           '(total(x, x) - alone) / (len(x) * (len(x) - 1))', 'total(x, x) / len(x) ** 2',
           ('test_scores.py',), 'mmd or kernel'),
    Mutant('metrics/feature_distances.py', 'a sample is its own nearest neighbour',
           'k, 1)[:, k] for', 'k, 1)[:, k - 1] for', ('test_scores.py',), 'precision'),
    Mutant('metrics/feature_distances.py', 'balls have no surface: < for <=',
           '1e-12) <= radii)', '-1e-12) < radii)', ('test_scores.py',), 'precision'),
    Mutant('metrics/confidence.py', 'the interval keeps the bias of halves',
           'halves - halves.mean()', 'halves - value', ('test_scores.py',), 'interval'),
    Mutant('metrics/resize.py', 'pytorch-fid with antialias',
           '_linear, antialias=False)', '_linear, antialias=True)', ('test_scores.py',),
           'fid_pytorch'),
    Mutant('metrics/segmentation.py', 'the union counts what is right twice',
           'confusion.sum(0) + confusion.sum(1) - right', 'confusion.sum(0) + confusion.sum(1)',
           ('test_scores.py',), 'confusion'),
    Mutant('metrics/evaluator.py', 'drawings are compared with the images they came from',
           'as_source(source).b for source in (real', 'as_source(source).a for source in (real',
           ('test_evaluator.py',), 'unpaired_inputs'),
    Mutant('metrics/evaluator.py', 'values of different protocols compare',
           'self.protocol.get(key) != other.protocol.get(key)]',
           "self.protocol.get(key) != other.protocol.get(key) and key == 'data']",
           ('test_evaluator.py',), 'protocols'),
    Mutant('metrics/evaluator.py', 'real images are not truncated as drawings are',
           'images = jnp.asarray(LEVELS)[images]', 'images = images / jnp.float32(127.5) - 1',
           ('test_evaluator.py',), 'truncated'),
    Mutant('metrics/evaluator.py', 'precision and recall swap roles',
           'feature_distances.precision_recall(real, fake)',
           'feature_distances.precision_recall(fake, real)',
           ('test_evaluator.py',), 'precision_is or stand_in'),
    Mutant('metrics/extractors.py', 'the FID of the papers rounds, where they truncate',
           "round=protocol == 'fid_clean'", "round=protocol == 'fid_pytorch'",
           ('test_evaluator.py',), 'become_bytes or fid_is_made'),
    Mutant('metrics/extractors.py', 'features of EfficientNet-Lite0 truncate',
           'resize.to_uint8(images, round=True)', 'resize.to_uint8(images)',
           ('test_evaluator.py',), 'bear_its_name'),
    Mutant('metrics/segmenters.py', 'the mean is divided, not the difference',
           '(pixels - mean) / std', 'pixels - mean / std',
           ('test_evaluator.py',), 'drn or cityscapes'),
    # pruning
    Mutant('pruning/budget_search.py', 'what scores at the threshold stays: >= for >',
           '_allowed((ranked > threshold).sum()', '_allowed((ranked >= threshold).sum()',
           ('test_pruning.py',), 'at_the_threshold or no_threshold'),
    Mutant('pruning/budget_search.py', 'a budget that is met exactly is too small: >= for >',
           'if price > budget:', 'if price >= budget:',
           ('test_pruning.py',), 'at_the_threshold or no_threshold'),
    Mutant('pruning/budget_search.py', 'equal scores of a group go before those of the next',
           'return (left - np.float32(.5)) / all_', 'return left * 0', ('test_pruning.py',),
           'equal_scores'),
    Mutant('pruning/budget_search.py', 'dead channels stay where the budget allows them',
           'xp.maximum(dead - 2, -1)', '-1', ('test_pruning.py',), 'dead_channels'),
    Mutant('tracing/labels.py',
           'operands of an elementwise operation need not lose the same channels',
           '      self.atoms.unite(atoms[0], other, self.why)',
           '      pass',
           ('test_tracing.py',), 'computes_what and batch'),
    Mutant('tracing/labels.py', 'a grid that loses an axis need not be the same along it',
           '          self.atoms.unite(labels, first, self.why)',
           '          pass',
           ('test_tracing.py',), 'computes_what and (dense or attention)'),
    Mutant('tracing/labels.py', 'what repeats over groups of channels may differ',
           '      self.atoms.unite(own[places[0]], own[each], self.why)',
           '      pass',
           ('test_tracing.py',), 'laws_hold and numbered'),
    Mutant('tracing/rules.py', 'what is turned round stays in its order',
           'axes: np.flip(labels, tuple(i for i, axis in enumerate(axes) '
           "if axis in params['dimensions']))",
           'axes: labels',
           ('test_tracing.py',), 'laws_hold and flipped'),
    Mutant('tracing/rules.py', 'what is joined side by side need not agree along other axes',
           'merged, joined = space.merge(*others), np.concatenate(labels)',
           'merged, joined = others[0], np.concatenate(labels)',
           ('test_tracing.py',), 'laws_hold'),
    Mutant('tracing/rules.py', 'channels of several copies come one after another',
           'np.tile(parts[axes], times)',
           'np.repeat(parts[axes], times)',
           ('test_tracing.py',), 'laws_hold and tile'),
    Mutant('tracing/rules.py', 'the channel that is taken by number may go',
           '      space.atoms.freeze(labels, space.why)\n    elif len(indices) > 1:',
           '      pass\n    elif len(indices) > 1:',
           ('test_tracing.py',), 'laws_hold and one'),
    Mutant('tracing/rules.py', 'what is stacked need not agree',
           '  merged = space.merge(*values)\n  places',
           '  merged = values[0]\n  places',
           ('test_tracing.py',), 'laws_hold and stack'),
    Mutant('tracing/program.py', 'the output may lose channels',
           '    space.pin_all(results[i])',
           '    pass',
           ('test_tracing.py',), 'computes_what and batch'),
    Mutant('tracing/labels.py', 'a sum over a part of a grid leaves the rest free to differ',
           '        v = self.pin(v, *(axis for axis in part if axis not in axes))',
           '        pass',
           ('test_tracing.py',), 'computes_what and (attention or group)'),
    Mutant('tracing/running.py', 'heads of an attention keep their size',
           "  return {'features': features if isinstance(module.features, tuple) else features[0]}",
           '  return {}',
           ('test_tracing.py',), 'computes_what and attention'),
    Mutant('tracing/rewriting.py', 'a slice takes the indices that it took of the whole',
           '    places = np.flatnonzero(taken if there is None else taken[there])',
           '    places = np.flatnonzero(taken[:x.shape[axis]])',
           ('test_tracing.py',), 'computes_what and split'),
    Mutant('tracing/laws.py', 'channels that go are those that score best',
           '  large = {path: masked(x, plan.leaves[path], alive) for path, x in '
           'about.flat.items()}',
           '  large = dict(about.flat)',
           ('test_tracing.py',), 'computes_what and batch'),
    Mutant('pruning/latency.py', 'below its first point a table falls to 0',
           'return float(np.interp(count, self.macs, self.ms))',
           'return float(np.interp(count, (0, *self.macs), (0, *self.ms)))',
           ('test_pruning.py',), 'budget_of_milliseconds'),
    Mutant('pruning/budget_search.py', 'widths are rounded down to a multiple',
           'xp.minimum(-(-count // round_to) * round_to',
           'xp.minimum(count // round_to * round_to',
           ('test_pruning.py',), 'multiple'),
    Mutant('pruning/surgery.py', 'a part dies with any of its groups, not with all',
           'functools.reduce(operator.or_,', 'functools.reduce(operator.and_,',
           ('test_pruning.py',), 'vanish'),
    Mutant('pruning/importance.py', 'channels are ranked by who reads them',
           'and axis == len(plan.shapes[path]) - 1', 'and axis == len(plan.shapes[path]) - 2',
           ('test_pruning.py',), 'by_hand'),
    Mutant('pruning/importance.py', 'readers of one channel are not all counted',
           'squares[name] = squares.get(name, 0) + ', 'squares[name] = ', ('test_pruning.py',),
           'activations_by_hand'),
    Mutant('pruning/activation.py', 'batches are merged as if they had one mean',
           '+ np.square(apart) * (self.count * other.count / count)', '', ('test_pruning.py',),
           'split_into'),
    Mutant('pruning/activation.py', 'a bias loses what removed channels gave',
           'sign * lacking)', '-sign * lacking)', ('test_pruning.py',), 'nothing_changes'),
    Mutant('pruning/activation.py', 'layers without a bias keep nothing of removed channels',
           'other = _less(y, lacking)', 'other = y', ('test_pruning.py',), 'nothing_changes'),
    Mutant('pruning/activation.py', 'what a removed branch gave is lost',
           'return self._if_dead(leaf, _less(y, all_), other)', 'return other',
           ('test_pruning.py',), 'branches_vanish'),
    Mutant('pruning/activation.py', 'a transposed convolution is taken for one of stride 1',
           '.reshape(features) / phases', '.reshape(features)', ('test_pruning.py',), 'phases'),
    Mutant('pruning/activation.py', 'weights count before their spectral norm',
           'self._kernels[layer.path] = found[0]', 'pass', ('test_pruning.py',), 'spectral'),
    Mutant('experiment/stage.py', 'activations are looked at in one batch again and again',
           'batches.prepare(batches[i])', 'batches.prepare(batches[0])', ('test_pruned_runs.py',),
           'activate'),
    Mutant('pruning/width_cost.py', 'dead parts are paid for',
           'widths.dtype) * alive)', 'widths.dtype))', ('test_pruning.py',), 'vanish'),
    Mutant('pruning/gradual.py', 'a mask is applied a step late',
           'held = functools.partial(apply_masks, plan, masks=masks)',
           "held = functools.partial(apply_masks, plan, masks=state.frozen['masks'][role])",
           ('test_gradual.py',), 'without_pairs or finds_just'),
    Mutant('pruning/gradual.py', 'the average keeps what is dead',
           'ema=held(net.ema) if net.ema else ()', 'ema=net.ema', ('test_gradual.py',),
           'finds_just'),
    Mutant('pruning/gradual.py', 'the last cut is missed: < for <=',
           '(step <= self.end)', '(step < self.end)',
           ('test_gradual.py',), 'tighten or without_pairs'),
    Mutant('pruning/latency.py', 'a cut that is slow makes the table quick',
           'table.scaled(found[-1][1] / one.cost)', 'table.scaled(one.cost / found[-1][1])',
           ('test_pruning.py',), 'cut_to_time'),
    Mutant('pruning/one_shot.py', 'fresh networks keep every norm',
           'all(len(groups) == 1 for groups in plan.feeders(path))', 'True', ('test_pruning.py',),
           'starts_from'),
    # parallel
    Mutant('parallel/batch_map.py', 'what fills up the last batch is kept',
           'np.concatenate(x)[:count]', 'np.concatenate(x)',
           ('test_evaluator.py',), 'batches_and_devices'),
    Mutant('parallel/batch_map.py', 'batches of several processes come back out of order',
           'x[i % processes, i // processes]', 'x[i // len(mine), i % len(mine)]',
           ('test_parallel.py',), 'two_processes'),
    Mutant('parallel/mesh.py', 'a memory of other replicas is taken',
           'if there - {1, replicas}:', 'if len(there) > 1:', ('test_omgd.py',),
           'memory_of_other'),
    Mutant('parallel/mesh.py', "a step donates the caller's own state",
           'jax.device_put(jax.tree.map(lambda x: x.copy(), tree), sharding)',
           'jax.device_put(tree, sharding)', ('test_survival.py',), 'leaves_the_callers'),
    Mutant('parallel/train_step.py', 'for TPUs a forgotten mean passes',
           'jax.eval_shape(virtual, shared, local, batch)', '0', ('test_parallel.py',),
           'ship_for_tpus'),
    Mutant('parallel/train_step.py', 'steps for TPUs have a virtual replica',
           "if replicas > 1 or xla.platform() != 'tpu':", 'if True:', ('test_parallel.py',),
           'have_no_virtual'),
    Mutant('core/update.py', 'gradients for TPUs lie as XLA leaves them',
           'xla.in_order(axes.mean(dict(grads)))', 'axes.mean(dict(grads))',
           ('test_parallel.py',), 'gradients_lie'),
    Mutant('parallel/train_step.py', 'nothing is donated',
           '(0, 1) if donate else ())', '())', ('test_parallel.py',), 'donation'),
    Mutant('core/update.py', 'of two logs of one network the second is lost',
           'merged.setdefault(role, {}).update(terms)', 'merged.setdefault(role, dict(terms))',
           ('test_methods.py',), 'put_together'),
    Mutant('methods/tap_terms.py', 'code and paper swap their reductions of taps',
           "(1 if self.reduction == 'sum' else", "(1 if self.reduction != 'sum' else",
           ('test_omgd.py',), 'reductions'),
    Mutant('losses/relations.py', 'angles count once',
           'return distances + 2 * angles.mean()',
           'return distances + angles.mean()',
           ('test_distillation_terms.py',), 'test_relations and patches'),
    Mutant('losses/relations.py', 'the gradient of vectors that coincide has no bound',
           'jnp.sqrt(jnp.where(apart, squares, 1))',
           'jnp.sqrt(squares)',
           ('test_distillation_terms.py',), 'coincide'),
    Mutant('losses/image.py', 'levels of a mean count alike in the orthonormal sum',
           "(1 if balance == 'orthonormal' else .5 ** j)",
           '(.5 ** j)',
           ('test_distillation_terms.py',), 'test_wavelets and not hand'),
    Mutant('losses/similarity.py', 'regions are told apart where the student is active',
           'heat = jnp.abs(flat(teacher)).mean(-1)',
           'heat = jnp.abs(flat(student)).mean(-1)',
           ('test_distillation_terms.py',), 'contrast_of_regions'),
    Mutant('methods/augment.py', 'a condition stays where it was',
           "if condition is not None and policy != 'color':",
           "if condition is not None and policy == 'x':",
           ('test_distillation_terms.py',), 'pair_is_seen'),
    Mutant('methods/augment.py', 'an even rectangle is never centred behind the last pixel',
           'side + 1 - side // 2 % 2',
           'side',
           ('test_distillation_terms.py',), 'every_position'),
    Mutant('methods/augment.py', 'the probability rises while the discriminator is unsure',
           'jnp.sign(total / steps - self.target)',
           'jnp.sign(self.target - total / steps)',
           ('test_distillation_terms.py',), 'follows_the_signs'),
    Mutant('methods/adversary.py', "what 'rp' subtracts is seen differently",
           '"pair" if self.loss == "rp" else name',
           'name',
           ('test_distillation_terms.py',), 'rp_subtracts'),
    Mutant('methods/adversary.py', 'the teacher is scored by its discriminator, too, and moves it',
           'return self.adversary.apply(stop_gradient(self.variables), image',
           'return self.adversary.apply(self.variables, image',
           ('test_distillation_terms.py',), 'moves_the_student'),
    Mutant('methods/adversary.py', "'lsgan' knows everything from the start",
           "middle = .5 if self.loss == 'lsgan' else 0.",
           'middle = 0.',
           ('test_distillation_terms.py',), 'shown_as_real'),
    Mutant('methods/omgd.py', "a student that has a head is scored by its teacher's",
           'role if role in self.adversary.disc.heads else teacher, output',
           'teacher, output',
           ('test_distillation_terms.py',), 'may_meet'),
    Mutant('methods/terms.py', 'the scores of two teachers are added up',
           'self.weight / len(teachers) * discriminator_of(',
           'self.weight * discriminator_of(',
           ('test_distillation_terms.py',), 'mean_over_heads'),
    Mutant('methods/kd.py', 'recorded images teach other rows on other numbers of devices',
           "(batch['target'][::self.updates], {})", "(batch['target'][:size], {})",
           ('test_methods.py',), 'same_rows'),
    Mutant('methods/adversary.py', 'two kinds of real images are seen as one',
           '({}, [x])\n', "({}, [x])\n      parts = [x]\n",
           ('test_parallel.py',), 'same_losses and shard_map and not 4'),
    Mutant('methods/adversary.py', 'the gap is a mean of absolute values',
           'jnp.abs(axes.mean(x))', 'jnp.abs(x)', ('test_parallel.py',),
           'same_losses and shard_map and not 2'),
    Mutant('methods/distillation.py', 'of two terms of one kind the last counts',
           'terms[key] + value if key in terms', 'value if key in terms',
           ('test_distillation_terms.py',), 'add_up'),
    Mutant('methods/students.py', 'extra students minimise what the first does',
           'return method.extra_distill.get(student, method.distill)',
           'return method.distill',
           ('test_distillation_terms.py',), 'moves_the_student'),
    Mutant('methods/tap_terms.py', "the teacher's projection takes statistics of the batch",
           'y, axes, train=False)',
           'y, axes)',
           ('test_distillation_terms.py',), 'discriminator_sees'),
    Mutant('train/checkpoint.py', 'a checkpoint of an earlier version is taken for one of today',
           ".get('format', 1) < FORMAT", ".get('format', 1) < 0", ('test_survival.py',),
           'earlier_version'),
    Mutant('config/old_keys.py', 'averaged teachers of an older config teach as they are',
           "{'average': 'ema'}", "{'average': 'current'}", ('test_configs.py',), 'older_keys'),
    Mutant('experiment/dry_run.py', 'a trial of pruning is kept under the roles of another stage',
           'dict(zip(stage.pruned.paths,', "dict(zip(('student',),", ('test_pruned_runs.py',),
           'one_budget'),
    Mutant('train/loop.py', 'Ctrl-C may come between two states',
           'with _finished():', 'with contextlib.nullcontext():', ('test_survival.py',), 'readme'),
    Mutant('train/loop.py', 'what was handed out is donated',
           'if copies and at < steps', 'if not copies and at < steps', ('test_survival.py',),
           'handed_out'),
    # paths, folders
    Mutant('data/folder_layouts.py', 'what is hidden counts as left out',
           "in sorted(names) if name[0] != '.')", 'in sorted(names))',
           ('test_translation_data.py',), 'left_out'),
    Mutant('metrics/extractors.py', 'strips see less of each other than a layer does',
           'HALO = 48', 'HALO = 32', ('test_evaluator.py',), 'strips'),
    # distributed
    Mutant('distributed/stop.py', 'the second SIGHUP of a terminal kills',
           'self._before.keys() - {signal.SIGHUP}', 'self._before.keys()',
           ('test_distributed.py',), 'terminal'),
    Mutant('distributed/stop.py', 'a run that was told to stop is not started again',
           'signal.SIGTERM: AGAIN}', 'signal.SIGTERM: 143}', ('test_distributed.py',),
           'second_signal'),
    Mutant('distributed/stop.py', 'a second signal is caught as the first one was',
           'signal.signal(signum, self._before.pop(signum))', 'self._before.pop(signum)',
           ('test_distributed.py',), 'second_signal'),
    Mutant('distributed/bucket.py', 'a lock not taken',
           'fcntl.flock(lock, fcntl.LOCK_EX)', 'fcntl.flock(lock, fcntl.LOCK_UN)',
           ('test_bucket.py',)),
    Mutant('distributed/bucket.py', 'a folder is taken for a mounted bucket',
           'if not mounted.is_mount():', 'if not mounted.is_dir():', ('test_bucket.py',)),
    Mutant('distributed/runtime.py', 'only what differs everywhere is told: all for any',
           '(every[:, i] != every[0, i]).any()', '(every[:, i] != every[0, i]).all()',
           ('test_distributed.py',), 'numbers_that_differ'),
    Mutant('distributed/runtime.py', 'off by one in the number of a process',
           'if not 0 <= index < count:', 'if not 0 <= index <= count:', ('test_distributed.py',),
           'contradictory'),
    Mutant('distributed/runtime.py', "a process's own devices are taken for all",
           'devices == process.devices:', 'devices == process.local_devices:',
           ('test_distributed.py',), 'number_of_devices or of_all_processes'),
    # data
    Mutant('data/pipeline.py', 'off by one in the data position: a stream begins a step late',
           'self._dataset[start:]', 'self._dataset[start + 1:]', ('test_data.py',),
           'stream and not 2'),
    Mutant('data/pipeline.py', 'the seed is not taken',
           '.seed(seed).shuffle()', '.seed(0).shuffle()', ('test_data.py',),
           'epoch'),
    Mutant('data/views.py', 'off by one: the last row and column are never cut',
           'int(rng.integers(0, side + 1))', 'int(rng.integers(0, side or 1))',
           ('test_translation_data.py',), 'evaluation_resizes'),
    Mutant('data/views.py', 'a device mirrors top and bottom',
           'jnp.where(flip, y[:, ::-1], y)', 'jnp.where(flip, y[::-1], y)',
           ('test_translation_data.py',), 'backends'),
    Mutant('data/upscaling.py', 'cuts of input and target part',
           '(x[k * top:k * (top + crop), k * left:k * (left + crop)], flip, turn)',
           '(x[k * top:k * (top + crop), k * left:k * (left + crop)], flip, turn * (k == 1))',
           ('test_upscaling.py',), 'both_grids'),
    Mutant('data/upscaling.py', 'a photograph is dealt by more than its name',
           'zlib.crc32(file.stem.encode()) % 10', 'zlib.crc32(f"{split}{file.stem}".encode()) % 10',
           ('test_upscaling.py',), 'dealt'),
    Mutant('metrics/upscaling.py', 'the border is compared',
           'inner = images[:, border:images.shape[1] - border, border:images.shape[2] - border]',
           'inner = images', ('test_upscaling.py',), 'visible or without_their_border'),
    Mutant('metrics/evaluator.py', 'intervals are over patches',
           'if len(groups) != len(values):', 'if True:', ('test_upscaling.py',),
           'without_their_border'),
    Mutant('losses/image.py', 'tiles keep their mean, so that light is a grid',
           'x = (x - x.mean((2, 4), keepdims=True)).transpose', 'x = x.transpose',
           ('test_upscaling.py',), 'grid_is_what_repeats'),
    Mutant('methods/distillation.py', 'the border of the teacher is learned',
           '    if self.border:\n      inner', '    if False:\n      inner', ('test_upscaling.py',),
           'border_is_no_part'),
    Mutant('methods/offline.py', 'the adversary has its whole weight at once',
           'if self.adv_rise else 1.', 'if False else 1.', ('test_upscaling.py',), 'rises'),
    Mutant('experiment/stage.py', 'a stage learns from a pruned generator as if it was whole',
           '      whole = teacher.module\n', '      whole = None\n', ('test_upscaling.py',),
           'published_networks'),
    Mutant('inference/recording.py', 'the recording of another network is taken for this one',
           "get('identity') == about['identity']", "get('identity') is not None",
           ('test_upscaling.py',), 'recorded_once'),
    Mutant('data/teacher_outputs.py', 'recorded pictures are truncated, not rounded',
           '+ 1) * 127.5).round().astype', '+ 1) * 127.5).astype', ('test_recorded.py',),
           'folder_is_one or latents_and'),
    Mutant('data/decode.py', 'white of 16 bits is not white',
           '* 255 / white, 255)', '* 254 / white, 255)', ('test_translation_data.py',), 'sixteen'),
    Mutant('data/decode.py', 'label maps are not turned as pictures are',
           'numbers = np.asarray(ImageOps.exif_transpose(image))',
           'numbers = np.asarray(image)', ('test_translation_data.py',), 'label or exif'),
    Mutant('data/decode.py', 'edges mark one side alone',
           'edges[:-1] |= rows', 'edges[1:] |= rows', ('test_translation_data.py',), 'edges'),
    Mutant('data/decode.py', 'labels of few bits stay as Pillow stretches them',
           '(bits := _bits(raw)) < 8', '(bits := _bits(raw)) < 0', ('test_images.py',), 'labels'),
    Mutant('data/decode.py', 'the clear level of few bits is not what is shown',
           'clear * (255 // (2 ** _bits(raw) - 1))', 'clear', ('test_images.py',), 'viewer'),
    Mutant('data/decode.py', 'the low bytes of 16 bits are the high ones',
           "raw.replace('16B', '16L')", 'raw', ('test_images.py',), 'is_stored'),
    Mutant('data/decode.py', 'differences of a tiled TIFF go on over its tiles',
           'page.get(322, width // wide)', 'width // wide', ('test_images.py',), 'is_stored'),
    Mutant('data/views.py', 'bright numbers of 16 bits wrap where they are resized',
           'np.rint(x).clip(0, 65535)', 'np.rint(x)', ('test_data.py',), 'framing'),
    Mutant('data/image_checks.py', 'what passed with other channels passes',
           "else f'{counts} of {bits} bits'", "else 'picture'", ('test_translation_data.py',),
           'other_channels_is_checked'),
    Mutant('core/state.py', 'alpha is shown on black',
           'images[..., :-1] * alpha + (1 - alpha)', 'images[..., :-1] * alpha - (1 - alpha)',
           ('test_evaluator.py',), 'of_rgb'),
    Mutant('export/runner.py', 'the runner forgets the instances',
           'folders.Reader(takes, options, instances), []', 'folders.Reader(takes, options), []',
           ('test_export.py',), 'edges_and_void'),
    Mutant('inference/overlap.py', 'padding is not counted in the receptive field',
           'first.moved(1, -amount, -amount)', 'first', ('test_tiles.py',), 'receptive'),
    Mutant('inference/tiles.py', 'padded rows at the border of the picture do not count',
           '(row < end) | (end == whole)', 'row < end', ('test_tiles.py',), 'exact'),
    Mutant('inference/tiles.py', 'statistics count pixels in each tile that holds them',
           'weight = (inside', 'weight = 1 + 0 * (inside', ('test_tiles.py',), 'exact'),
    Mutant('inference/norm_statistics.py', 'what tiles differ by is not in the variance',
           ' + np.square(apart) * a.count * share', '', ('test_tiles.py',), 'exact'),
    Mutant('inference/folders.py', 'images that depend on each other are run together',
           'count > 1 and self._of_batches', 'False', ('test_tiles.py',), 'depend'),
    Mutant('inference/engines.py', '16 bits are read as 8',
           '2 / np.iinfo(x.dtype).max', '2 / 255', ('test_generate.py',), 'right_pixels'),
    Mutant('data/picture_folders.py', 'a grey picture gives an image in colour',
           'picture_files.to_grey(pixels) if picture.grey else pixels', 'pixels',
           ('test_generate.py',), 'right_pixels'),
    Mutant('data/picture_folders.py', 'another network skips what is done',
           "row.get('key') != self.key or ", '', ('test_generate.py',), 'skip or done or again'),
    Mutant('data/image_checks.py', 'what another reading let pass is remembered',
           'decode.READING, stat', '0, stat', ('test_translation_data.py',), 'another_reading'),
    Mutant('data/translation.py', 'partners are always the same two',
           'else int(rng.integers(len(self.b)))', 'else i % len(self.b)',
           ('test_translation_data.py',), 'partner'),
    Mutant('data/decode.py', 'off by one in the label of what nobody named',
           'label_map, classes).astype', 'label_map, classes - 1).astype',
           ('test_translation_data.py',), '255'),
    Mutant('data/folder_layouts.py', '10 comes after 1',
           "sorted(partners['target'], key=natural)", "sorted(partners['target'])",
           ('test_translation_data.py',), 'labels_come and spade'),
    Mutant('data/image_checks.py', 'a file of the same size is not checked again',
           'stat.st_size, stat.st_mtime_ns]', 'stat.st_size]',
           ('test_translation_data.py',), 'remembered or checked_again'),
    Mutant('data/decode.py', 'a label too many: <= for <',
           '0 <= x < classes', '0 <= x <= classes', ('test_translation_data.py',), '255'),
    Mutant('data/preprocess.py', 'a shard that lost its end is read',
           'if length != size:', 'if length is None:', ('test_translation_data.py',), 'manifest'),
    Mutant('data/transforms.py', 'off by one: never shifted by all pixels one way',
           '2 * pixels + 1, 2)', '2 * pixels, 2)', ('test_data.py',), 'shift'),
    Mutant('data/sample_images.py', 'validation and test share their pixels',
           "'validation': picture[:height // 2,", "'validation': picture[height // 2:,",
           ('test_translation_data.py',), 'share_no'),
    Mutant('data/emoji.py', 'twins are in two splits', 'part(emoji_of(name),', 'part(name,',
           ('test_emoji.py',), 'stay_together'),
    Mutant('data/emoji.py', 'a name is in both domains', "'domain') % 2 == side",
           "'domain') % 2 >= 0", ('test_emoji.py',), 'two_styles'),
    # convert
    Mutant('convert/pytorch_families.py', 'the two norms of a branch swap roles',
           "('in', 'norm', 'filter', 'norm2', 'out')", "('in', 'norm2', 'filter', 'norm', 'out')",
           ('test_networks.py',), 'inception_generator and affine'),
    Mutant('convert/pytorch_families.py', 'a norm that is told does not keep the biases there are',
           "'bias': None if biased == conv_bias(kind) else biased", "'bias': None",
           ('test_convert.py',), 'every_norm'),
    Mutant('convert/pytorch.py', 'weights may be infinite',
           'if not np.isfinite(x).all():', 'if np.isnan(x).any():', ('test_convert.py',),
           'not_finite'),
    Mutant('convert/pytorch_families.py', 'the two heads of a discriminator swap roles',
           'for i, head in enumerate(m.heads)]', 'for i, head in enumerate(m.heads[::-1])]',
           ('test_networks.py',), 'discriminators_of_omgd'),
    Mutant('convert/pytorch_families.py', 'a flipped kernel of the U-Net',
           "yield Row(f'{prefix}.{up}', f'up{i}', transposed=True)",
           "yield Row(f'{prefix}.{up}', f'up{i}')", ('test_convert.py',), 'UNet'),
    Mutant('convert/pytorch.py', 'the tail of longer statistics is read, not their head',
           'x, tail = np.split(x, place.torch_shape)',
           'tail, x = np.split(x, [len(x) - place.torch_shape[0]])',
           ('test_convert.py',), 'head_of'),
    Mutant('convert/pytorch.py', 'spectral vectors keep the order of PyTorch',
           'x.reshape(self.shape[2], *self.shape[:2]).transpose(1, 2, 0)', 'x.reshape(self.shape)',
           ('test_convert.py',), 'MultiScale'),
    Mutant('convert/pytorch.py', 'what is built in is not compared',
           'elif not np.array_equal(stored, x):', 'elif stored.shape != x.shape:',
           ('test_evaluation_networks.py',), 'no_drn'),
    # export
    Mutant('export/bundle.py', 'a checksum is not checked',
           'if _sha256(folder / name) != expected:', 'if not _sha256(folder / name):',
           ('test_export.py',), 'edited'),
    Mutant('export/bundle.py', 'of the largest error the mean is judged',
           'else largest <= tolerance', 'else mean <= tolerance',
           ('test_export.py',), 'something_else or one_pixel'),
    Mutant('export/onnx.py', 'a convolution takes in what is subtracted with the wrong sign',
           "bias = bias + x if node.op == 'Add' else bias - x", 'bias = bias + x',
           ('test_export.py',), 'every_format and resnet and batch'),
    Mutant('export/onnx.py', 'the border is mirrored, not repeated',
           "'replicate': 'edge'}", "'replicate': 'reflect'}", ('test_export.py',),
           'every_format and separable and resnet'),
    Mutant('export/stablehlo.py', 'networks are exported as they train',
           'apply(variables, x, train=False)[0])', 'apply(variables, x, train=True)[0])',
           ('test_export.py',), 'every_format and inception and batch and norm'),
    # analysis
    Mutant('tracing/program.py', 'zeros between pixels are multiplied',
           "return count // math.prod(eqn.params['lhs_dilation']), count", 'return count, count',
           ('test_cost.py',), 'by_hand'),
    Mutant('analysis/model_cost.py', "CAT's profiler leaves out every norm",
           "(convention == 'cat' and 'var' in stats)", "convention == 'cat'", ('test_cost.py',),
           'cats_profiler'),
    Mutant('analysis/model_cost.py', "torchprofile counts no leaky ReLU of a modulation",
           'return out.size * (1 + (layer.slope != 1))', 'return out.size', ('test_cost.py',),
           'spades_family or published'),
    Mutant('experiment/runner.py', 'a finished run is measured again',
           'from_main(was_finished and', 'from_main(not was_finished and',
           ('test_experiment.py',), 'left_as_it_is'),
    Mutant('experiment/runner.py', 'an extended run keeps the results of fewer steps',
           " and _stored(this).get('steps') == results.steps(this)", '',
           ('test_experiment.py',), 'extended_run'),
    Mutant('experiment/lock.py', 'what learned from an extended stage is stale and stays',
           'if measures or name in (\n',
           'if measures or None in (\n',
           ('test_experiment.py',), 'stale'),
    Mutant('analysis/model_cost.py', 'what a loop sends is counted once',
           '+= times * sum(map(_bytes', '+= sum(map(_bytes',
           ('test_cost.py',), 'step_costs or loop_sends'),
    Mutant('analysis/model_cost.py', 'nothing is computed in place',
           '+ sum(made.values()) - in_place', '+ sum(made.values())',
           ('test_cost.py',), 'activation or written_over'),
    Mutant('analysis/roofline.py', 'the sides of the roof add up',
           'max(operation.flops / self.flops, operation.bytes / self.bandwidth)',
           'operation.flops / self.flops + operation.bytes / self.bandwidth',
           ('test_roofline.py',), 'roof'),
    Mutant('experiment/plots.py', 'a generator that beats none is on the front: <= for <',
           'if sign * value < best:', 'if sign * value <= best:', ('test_compare.py',), 'front'),
    Mutant('experiment/report.py', 'a biased deviation over seeds',
           'np.std(values, ddof=1)', 'np.std(values)', ('test_report.py',), 'seeds'),
    Mutant('analysis/image_grid.py', 'pictures are truncated, not rounded',
           'np.round((np.asarray(images, np.float32) + 1) * 127.5)',
           'np.floor((np.asarray(images, np.float32) + 1) * 127.5)',
           ('test_cost.py',), 'picture_is_rounded'),
    Mutant('experiment/templates/parts.html.jinja2', 'a share of the score is upside down',
           "measures['is'].value / teacher.best.measures['is'].value",
           "teacher.best.measures['is'].value / measures['is'].value", ('test_report.py',),
           'summary_says'),
    # the modules beside the folders
    Mutant('core/update.py', 'an average that forgets: old and new swap roles',
           'ema * old + (1 - ema) * new',
           '(1 - ema) * old + ema * new',
           ('test_methods.py',), 'average'),
    Mutant('core/state.py', 'every step has the same random numbers',
           'key = jax.random.fold_in(self.rng, self.step)', 'key = self.rng',
           ('test_methods.py',), 'key_is_of or latents'),
    Mutant('core/state.py', 'white is not 1',
           '(jnp.iinfo(x.dtype).max / 2) - 1', '((jnp.iinfo(x.dtype).max + 1) / 2) - 1',
           ('test_recorded.py',), 'latents_and'),
    Mutant('core/update.py', 'arrays of exactly SMALL numbers are in no norm: > for >=',
           'if x.size >= SMALL]',
           'if x.size > SMALL]',
           ('test_methods.py',), 'norm'),
    Mutant('core/axes.py', 'a mean over replicas that is a sum',
           'jax.lax.pmean(mean, names)', 'jax.lax.psum(mean, names)', ('test_parallel.py',),
           'averaged'),
    Mutant('core/axes.py', 'replicas draw the same latents',
           'numbers = self.index() * shape[0] + jnp.arange(shape[0])',
           'numbers = jnp.arange(shape[0])', ('test_parallel.py',), 'rows_draw'),
    Mutant('core/axes.py', 'rows of several axes are gathered in another order',
           'for name in reversed(self.mesh + self.inner):', 'for name in self.mesh + self.inner:',
           ('test_parallel.py',), 'gathered or rows_draw'),
    Mutant('nn/files/arrays.py', 'the length of a storage is not checked',
           'if sizes.get(name) != size:', 'if name not in sizes:', ('test_checkpoint_files.py',),
           'as_declared'),
    Mutant('nn/files/arrays.py', 'what follows the last storage is not looked at',
           'if at != len(data):', 'if at > len(data):', ('test_checkpoint_files.py',)),
    Mutant('config/schema.py', 'keys that are younger than a stored stage are missing',
           '{**STAGE, **each.to_dict()}', 'each.to_dict()',
           ('test_configs.py',), 'older_run or differences'),
    Mutant('config/build.py', 'a stage may learn from itself',
           'if refuses(config, stage, config.run[:i]):',
           'if refuses(config, stage, config.run[:i + 1]):',
           ('test_configs.py',), 'from_itself or mistake'),
    Mutant('config/schema.py', 'a dict that is used twice is one section',
           'super().__setitem__(key, _apart(value))', 'super().__setitem__(key, value)',
           ('test_configs.py',), 'shared'),
    Mutant('experiment/stage.py', 'a given network of another padding is taken',
           'pairs.items() if a != b)',
           'pairs.items() if type(a) is not type(b))',
           ('test_pruned_runs.py',), 'fit'),
    Mutant('experiment/dry_run.py', 'a given file may go unread',
           'if unused := sorted(files.keys() - used):',
           'if unused := sorted(files.keys() - init_from.keys()):',
           ('test_pruned_runs.py',), 'unread'),
    Mutant('cli/output.py', 'numbers of wide tables are cut off',
           'console.width = max(1, Measurement.get(console, console.options, table).maximum)',
           'console.width = 160', ('test_commands.py',), 'cut_off'),
    Mutant('experiment/stage.py', 'the worst of several teachers teaches',
           "return (min if SELECT[metric] == 'min' else max)(values",
           "return (max if SELECT[metric] == 'min' else min)(values",
           ('test_experiment.py',), 'several_teachers'),
    Mutant('experiment/stage.py', 'all stages have the same random numbers',
           'jax.random.fold_in(jax.random.key(run.config.seed), zlib.crc32(name.encode()))',
           'jax.random.key(run.config.seed)',
           ('test_experiment.py',), 'of_their_own'),
    Mutant('experiment/training.py', 'a signal after the last yield loses its steps',
           'if self.saved != self.step:',
           'if self.saved > self.step:',
           ('test_experiment.py',), 'signal_between'),
    Mutant('experiment/lock.py', 'a lock not taken alone',
           'fcntl.LOCK_EX | fcntl.LOCK_NB',
           'fcntl.LOCK_SH | fcntl.LOCK_NB',
           ('test_experiment.py',), 'two_processes'),
    Mutant('experiment/results.py', 'a ratio upside down',
           'row |= {ratio: base[cost] / row[cost] for', 'row |= {ratio: row[cost] / base[cost] for',
           ('test_translation_runs.py',), 'every_learner'),
    Mutant('experiment/lock.py', 'another seed is taken for the same run',
           "'workers', 'cache', 'via',",
           "'workers', 'cache', 'seed', 'via',",
           ('test_experiment.py',), 'another_config'),
)


@dataclasses.dataclass(frozen=True)
class Found:
  """What came of a mutant, or of a selection without one.

  outcome: 'caught', 'survived', 'time out', or why nothing is known. by: the test that failed.
  """
  outcome: str
  by: str = ''
  seconds: float = 0.
  notes: tuple[str, ...] = ()


class Copies:
  """Copies of a tree, one for each job, in which mutants are planted and tests run."""

  def __init__(self, tree: Path, python: str, jobs: int, limit: float, more: list[str]):
    self.tree, self._python, self._limit, self._more = tree, python, limit, more
    self._running = set()
    self._folder = tempfile.TemporaryDirectory(prefix='mutants-')
    self._free = queue.Queue()
    for job in range(jobs):
      copy = Path(self._folder.name) / str(job) / 'tree'
      shutil.copytree(tree, copy, ignore=shutil.ignore_patterns(*LEFT_OUT))
      # Installed, the configs are a part of the package; its finder would take the original's.
      if not (copy / PACKAGE / 'configs').exists():
        (copy / PACKAGE / 'configs').symlink_to('../configs')
      self._free.put(copy)
      self._check(copy)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    for process in list(self._running):
      _kill(process)
    self._folder.cleanup()

  def missing(self, mutant: Mutant) -> str:
    """Why a mutant cannot be judged in this tree; '' if it can."""
    path = self.tree / PACKAGE / mutant.file
    if (count := path.read_text().count(mutant.old) if path.is_file() else 0) != 1:
      return f'text is found {count} times' if count else 'text is gone'
    lost = [name for name in mutant.tests if not (self.tree / 'tests' / name).is_file()]
    return f'no test file {", ".join(lost)}' if lost else ''

  def judge(self, mutant: Mutant) -> Found:
    """What the tests say of a mutant."""
    with self._copy() as copy:
      path = copy / PACKAGE / mutant.file
      text = path.read_text()
      path.write_text(text.replace(mutant.old, mutant.new))
      try:
        found = self._test(copy, mutant.tests, mutant.k)
      finally:
        path.write_text(text)
    if found.outcome == 'time out' and mutant.hangs:
      return dataclasses.replace(found, outcome='caught (time out)')
    return found

  def baseline(self, tests: tuple[str, ...], k: str) -> Found:
    """What the tests say of the tree as it is."""
    with self._copy() as copy:
      return self._test(copy, tests, k)

  @contextlib.contextmanager
  def _copy(self):
    copy = self._free.get()
    try:
      yield copy
    finally:
      self._free.put(copy)

  def _test(self, copy, tests, k):
    began, notes = time.monotonic(), ()
    code, said = self._pytest(copy, tests, k)
    if code == 5 and k:
      notes = (f'-k {k!r} selects nothing; all of {", ".join(tests)} ran',)
      code, said = self._pytest(copy, tests, '')
    by = re.search(r'^(?:FAILED|ERROR) (.+?)(?: - .*)?$', said, re.MULTILINE)
    # 2: a file of tests could not even be imported; 4: so with conftest.py, or a wrong argument.
    code = 2 if code == 4 and 'while loading conftest' in said else code
    outcome = {None: 'time out', 0: 'survived', 1: 'caught', 2: 'caught', 5: 'no test'}.get(
        code, f'pytest ended with {code}')
    if outcome == 'survived' and not re.search(r'\d+ passed|^\w*\.', said, re.MULTILINE):
      outcome = 'no test'  # all of them skipped
    if outcome.startswith('pytest'):
      notes += tuple(said.strip().splitlines()[-3:])
    return Found(outcome, by[1] if by and code else '', round(time.monotonic() - began, 1), notes)

  def _pytest(self, copy, tests, k):
    """(exit code, None after the time limit; output)."""
    # The last -n counts: each job is one process.
    command = [self._python, '-m', 'pytest', *(f'tests/{name}' for name in tests), '-x', '-rfE',
               '--tb=no', '-p', 'no:cacheprovider', '-n', '0', '--dist', 'no',
               f'--basetemp={copy.parent / "tmp"}', *(['-k', k] if k else []), *self._more]
    process = subprocess.Popen(command, cwd=copy, env=_environment(copy), text=True,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, start_new_session=True)
    self._running.add(process)
    try:
      said, _ = process.communicate(timeout=self._limit)
      return process.returncode, said
    except subprocess.TimeoutExpired:
      _kill(process)
      return None, process.communicate()[0]
    finally:
      self._running.discard(process)

  def _check(self, copy):
    """Raises RuntimeError unless programs that tests start, too, take the package of the copy."""
    program = f'import {PACKAGE}.configs as c, {PACKAGE} as p; print(p.__file__, *c.__path__)'
    done = subprocess.run([self._python, '-c', program], cwd='/', env=_environment(copy), text=True,
                          capture_output=True, check=True)
    if strange := [path for path in done.stdout.split() if not path.startswith(str(copy))]:
      raise RuntimeError(f'{self._python} takes {", ".join(strange)} and not what is in {copy}')


def _environment(copy):
  before = [os.environ['PYTHONPATH']] if os.environ.get('PYTHONPATH') else []
  return {**os.environ, 'PYTHONPATH': os.pathsep.join([str(copy), *before]),
          'XDG_CACHE_HOME': str(copy.parent / 'cache')}


def _kill(process):
  with contextlib.suppress(ProcessLookupError):
    os.killpg(process.pid, signal.SIGKILL)


def read(path: Path | None) -> dict[str, dict]:
  """Results by the name of their mutant; {} for no file."""
  return json.loads(path.read_text()) if path and path.is_file() else {}


def chosen(text: str) -> list[Mutant]:
  return [m for m in MUTANTS if text in m.file or text in m.name or text in m.why]


def show(mutants):
  counts = collections.Counter(m.file.partition('/')[0] if '/' in m.file else '.' for m in mutants)
  for m in mutants:
    print(f'{m.file}: {m.why}\n    {m.old}\n    {m.new}\n    {" ".join(m.tests)}'
          + (f' -k {m.k!r}' if m.k else ''))
  print(', '.join(f'{folder} {count}' for folder, count in sorted(counts.items()))
        + f': {len(mutants)} mutants')


def judge_all(mutants, copies, options, out):
  """Runs the mutants, a line as each ends; `out` is filled and kept in a file."""
  with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
    try:
      missing = {m: reason for m in mutants if (reason := copies.missing(m))}
      out |= {m.name: _entry(m, Found(reason)) for m, reason in missing.items()}
      mutants, red = [m for m in mutants if m not in missing], {}
      if options.baseline:
        selections = list(dict.fromkeys((m.tests, m.k) for m in mutants))
        for selection, found in zip(selections, pool.map(
            lambda selection: copies.baseline(*selection), selections), strict=True):
          print(f'unchanged, {" ".join(selection[0])} {selection[1]}: {found.outcome} '
                f'{found.by} {found.seconds:.0f} s', *found.notes, flush=True)
          red |= {} if found.outcome == 'survived' else {selection: found}
      waiting = {pool.submit(copies.judge, m): m for m in mutants if (m.tests, m.k) not in red}
      out |= {m.name: _entry(m, Found('fails unchanged', red[m.tests, m.k].by))
              for m in mutants if (m.tests, m.k) in red}
      for i, done in enumerate(concurrent.futures.as_completed(waiting), 1):
        mutant, found = waiting[done], done.result()
        out[mutant.name] = _entry(mutant, found)
        if options.out:
          options.out.write_text(json.dumps(out, indent=1))
        print(f'{i}/{len(waiting)} {found.outcome}, {found.seconds:.0f} s: {mutant.file}: '
              f'{mutant.why}' + (f' [{found.by}]' if found.by else ''), *found.notes,
              sep='\n    ', flush=True)
    except BaseException:
      pool.shutdown(wait=False, cancel_futures=True)
      copies.__exit__()  # or the pool would wait for what runs
      raise


def _entry(mutant, found):
  return {'file': mutant.file, 'why': mutant.why, 'tests': list(mutant.tests), 'k': mutant.k,
          **dataclasses.asdict(found)}


def main(arguments=None) -> int:
  parser = argparse.ArgumentParser(prog='python -m tests.mutants', description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--list', action='store_true', help='show the mutants')
  parser.add_argument('--only', default='', help='those whose file, text or reason contains this')
  parser.add_argument('--tree', type=Path, default=ROOT, help='the checkout to copy')
  parser.add_argument('--python', default=sys.executable, help='runs the tests')
  parser.add_argument('--jobs', type=int, default=2, help='copies in which tests run at once')
  parser.add_argument('--time-limit', type=float, default=300., help='seconds for one mutant')
  parser.add_argument('--baseline', action='store_true', help='the tests without a fault first')
  parser.add_argument('--out', type=Path, help='results, JSON')
  parser.add_argument('--resume', action='store_true', help='leave alone what --out has judged')
  parser.add_argument('--against', type=Path, help='results of before, to compare with')
  parser.add_argument('pytest', nargs='*', help='arguments of pytest')
  options = parser.parse_args(arguments)
  mutants = chosen(options.only)
  if options.list:
    show(mutants)
    return 0
  signal.signal(signal.SIGTERM, signal.default_int_handler)  # the copies go, too
  before, out = read(options.against), read(options.out if options.resume else None)
  judged = [m.name for m in mutants if out.get(m.name, {}).get('tests') == list(m.tests)
            and out[m.name]['k'] == m.k and out[m.name]['outcome'].startswith(('caught', 'surv'))]
  with Copies(options.tree.resolve(), options.python, options.jobs, options.time_limit,
              options.pytest) as copies:
    judge_all([m for m in mutants if m.name not in judged], copies, options, out)
  if options.out:
    options.out.write_text(json.dumps(out, indent=1))
  found = {m: out[m.name]['outcome'] for m in mutants}
  left = {m: outcome for m, outcome in found.items() if not outcome.startswith('caught')}
  print(f'\n{len(found) - len(left)} of {len(found)} caught')
  for m, outcome in sorted(left.items(), key=lambda each: each[1]):
    print(f'{outcome}: {m.file}: {m.why}\n    {m.old}\n    {m.new}')
  lost = [m for m in left if before.get(m.name, {}).get('outcome', '').startswith('caught')]
  for m in lost:
    print(f'no longer caught, before by {before[m.name]["by"]}: {m.file}: {m.why}')
  return int(bool(left))


if __name__ == '__main__':
  sys.exit(main())
