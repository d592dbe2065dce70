"""Small students of a generator of your own, any module of linen (x) -> image, on pairs of images.

    jaxgan-compress train --config=configs/cat/any_network.py:network=my_net:Generator \\
        --workdir=runs/mine

`my_net.py` stands in this folder or anywhere on Python's path. The generator learns first, as in
pix2pix; then students that cost a share of its multiply-accumulates are pruned from it, whatever
its layers are, and learn from its images: see docs/any_network.md. Nobody has published a run.

Arguments: `:network=module:Name`; `:data=paired,path=FOLDER` for pairs of your own (default: colour
for grey photographs, `samples:colorize`); `:size=128` (default: 64); `:shares=8+20`, in per cent;
`:steps=5000`; `:rivals` adds other ways to small students, pruning during online distillation among
them; `:smoke` takes a minute or two.
"""

from jaxgan_compress import config
from jaxgan_compress.configs.cat import _stages as stages


def get_config(arg=''):
  arg = config.parse_arg(arg, smoke=False, network='', data='samples:colorize', path='', size=64,
                         steps=600, shares=(25,), rivals=False)
  if ':' not in arg.network:
    raise ValueError(f'network={arg.network!r} is no generator of yours; give network=module:Name, '
                     'as in --config=configs/cat/any_network.py:network=my_net:Generator')
  c = stages.sample_pairs(config.base(), arg, 'colorize', size=arg.size, taps=(),
                          teacher=dict(name=arg.network))
  c.data = dict(name=arg.data, size=arg.size, **({'path': arg.path} if arg.path else {}))
  return c
