"""KD on 1797 real handwritten digits (scikit-learn), 32x32: minutes on two CPU cores.

    jaxgan-compress train --config=configs/kd/digits.py --workdir=runs/digits

A d=16 teacher, d=2 students by pixels and by pixels plus discriminator, and the same d=2 network
trained from scratch against a small and against the teacher's discriminator. Scores and times of
several seeds: docs/results.md. Arguments: `:smoke` runs in seconds, `:d=4` another student,
`:teacher_d=8+16+32` searches the teacher, `:steps=4000` trains longer.
"""

from jaxgan_compress import config
from jaxgan_compress.configs.kd import _stages as stages


def get_config(arg=''):
  arg = config.parse_arg(arg, smoke=False, d=2, teacher_d=(16,), steps=2000)
  c = config.base()
  c.data = dict(name='digits', size=32, split='all')
  c.evaluate.update(classifier='classifier', held_out=dict(split='test'))

  def net(d):
    return dict(d=d, size=32)

  student, wide = net(arg.d), net(max(arg.teacher_d))
  teachers = {f'teacher_d{d}': stages.gan(f'Teacher (d={d})', net(d), net(d), arg.steps, lr=1e-3)
              for d in arg.teacher_d}
  if len(teachers) == 1:
    teachers = {'teacher': next(iter(teachers.values()))}
  names = tuple(teachers)
  run = {
      'classifier': stages.classifier(550, data=dict(split='train'), shift=2),
      **teachers,
      'student_mse': stages.mse_student(
          'Student, pixels', student, names, arg.steps, lr=stages.cosine(2e-2, arg.steps)),
      'student_joint': stages.joint_student(
          'Student, pixels + D', student, names, arg.steps, lr=stages.cosine(6e-3, arg.steps),
          d_lr=4e-4, adv=0.8),
      'scratch': stages.gan('From scratch, small D', student, student, arg.steps, lr=1e-3),
      'scratch_wide_disc': stages.gan(
          "From scratch, teacher's D", student, wide, arg.steps, lr=1e-3),
  }
  c.stages, c.run = run, tuple(run)
  return config.smoke(c) if arg.smoke else c
