"""Real-ESRGAN on photographs: small students of its x4plus generator, cut from a published network.

    ./launch/superres.sh

makes everything: it fetches photographs, records what x4plus makes of patches of them, and calls

    jaxgan-compress train --config=superres/real_esrgan:sharp,path=runs/superres/recorded \\
        --workdir=runs/superres/run

The students are pruned from animevideov3 (Real-ESRGAN's compact network, 29 times fewer MACs than
x4plus; made for anime, so that it is far from x4plus on photographs) by the activations of their
channels, and learn x4plus' recorded images: 51, 111, 191 and 406 times fewer MACs than x4plus. What
they came to: docs/results.md. Arguments: `:path=` is the folder that `jaxgan-compress record`
wrote, `:steps=3000` trains longer, `:rivals` adds the same widths cut at random and trained from
scratch, the whole network taught, and small networks of their own, `:sharp` adds students of about
0.8 of the teacher's sharpness, `:smoke` takes a minute.
"""

from jaxgan_compress import config

WIDTHS = (48, 32, 24, 16)
PUBLISHED = 'realesrgan:animevideov3-x4'


def get_config(arg=''):
  arg = config.parse_arg(arg, smoke=False, path='runs/superres/recorded', steps=1200,
                         rivals=False, sharp=False)
  c = config.base()
  # Cuts of 32 pixels, mirrored and turned; 16 pixels of the border of an image depend on what
  # the teacher saw around a patch, and are not compared.
  c.data = dict(name='upscaled', path=arg.path, crop=32, border=16)
  c.batch = 8
  c.evaluate.update(extractor=dict(name='random_vgg'), real=dict(split='validation'),
                    test=dict(split='test'), select='psnr', every=arg.steps // 4)
  c.checkpoint.every, c.log_every = c.evaluate.every, max(1, arg.steps // 40)

  # Narrow networks learn slower, and take less time for a step.
  steps_of = lambda width: arg.steps * 32 // min(width, 32)

  def learn(width, steps, distill=None, **method):
    # The narrower, the faster: 5e-4 at 32 channels.
    rate = dict(name='optax:cosine_decay_schedule', init_value=5e-4 * 32 / width,
                decay_steps=steps)
    return dict(name='Offline', distill=distill or distill_loss(),
                tx=dict(name='jaxgan_compress.train.optimizers:clipped', max_norm=1.,
                        tx=dict(name='adam', learning_rate=rate, b1=.9, b2=.99)), **method)

  def cut(width, title, **prune):
    return config.stage(
        title=title, steps=steps_of(width), teacher=('animevideov3',),
        method=learn(width, steps_of(width), teacher=None),
        prune=dict(budget=macs(width), scope='group', **prune))

  def continued(stage, width, title, method):
    # A budget of all that there is keeps all.
    return config.stage(title=title, steps=arg.steps // 4, teacher=(stage,), method=method,
                        prune=dict(budget=macs(width), scope='group', criterion='l1'))

  published = lambda title, file, **generator: config.stage(
      title=title, steps=1, init_from=dict(generator=file) if file else {},
      method=dict(name='Pretrained', generator=generator))
  run = {
      'bicubic': published('Bicubic', '', name='Resize', scale=4),
      'animevideov3': published('animevideov3, published for anime', PUBLISHED, name='srvgg'),
      'anime': published('x4plus-anime, as published', 'realesrgan:x4plus-anime', name='rrdbnet',
                         blocks=6)}
  run |= {f'w{width}': cut(width, f'{width} channels wide', criterion='activation')
          for width in WIDTHS}
  if arg.sharp:
    # First as much detail as the teacher has, where it is sure, and no grid; then the student's own
    # images sharpened, which it learns quickly, for they hold nothing that it cannot make.
    detail = distill_loss(
        pixel=dict(name='Pixel', weight=1., sharpen=.5), spectrum=dict(name='Spectrum', weight=1.),
        grid=dict(name='Grid', weight=2.))
    own = distill_loss(pixel=dict(name='Pixel', weight=1., sharpen=.55, radius=.6))
    for width in (32, 16):
      run[f'detail{width}'] = continued(
          f'w{width}', width, f'{width} wide, with detail',
          learn(1.7 * width, arg.steps // 4, detail, teacher=None))
      run[f'sharp{width}'] = continued(
          f'detail{width}', width, f'{width} wide, sharp', learn(width, arg.steps // 4, own))
  if arg.rivals:
    for width in (32, 16):
      run[f'random{width}'] = cut(width, f'{width} wide, cut at random', criterion='random')
    scratch = lambda title, width, convs: config.stage(
        title=title, steps=steps_of(width),
        method=learn(width / 2, steps_of(width), init_scheme='he', teacher=None,
                     student=dict(name='srvgg', features=width, convs=convs)))
    run |= {'scratch32': scratch('32 wide, from scratch', 32, 16),
            'scratch32_8': scratch('32 wide, 8 convolutions, from scratch', 32, 8),
            'scratch16_4': scratch('16 wide, 4 convolutions, from scratch', 16, 4),
            'whole': config.stage(
                title='animevideov3, taught', steps=arg.steps // 2,
                init_from=dict(student=PUBLISHED),
                method=learn(80, arg.steps // 2, teacher=None, student=dict(name='srvgg')))}
  c.stages, c.run = run, tuple(run)
  return smoke(c) if arg.smoke else c


def distill_loss(**terms):
  """L1 to the teacher's images, or other terms, 8 pixels of their border left out."""
  return dict(name='DistillLoss', border=8, **(terms or {'pixel': dict(name='Pixel', weight=1.)}))


def macs(width, convs=16, pixels=64 * 64):
  """Multiply-accumulates of a compact network that is `width` channels wide, for one input."""
  return pixels * (27 * width + 9 * convs * width ** 2 + 9 * 48 * width)


def smoke(c):
  """The same on few steps."""
  config.smoke(c)
  for stage in c.stages.values():
    if stage.method.name == 'Pretrained':
      stage.steps = 1
  return c
