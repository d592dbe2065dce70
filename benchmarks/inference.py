"""How long does a drawing take, of a teacher and of its student? Ours, PyTorch, ONNX Runtime.

    python benchmarks/inference.py --torch=/path/to/python/with/torch [--cases=unet]
        [--sizes=256,512] [--batches=1,16] [--rounds=7] [--out=runs/inference]

Drawings are proven equal first; then all are called in turn, as `jax_vs_torch.py` does it, which
this builds on. Beside the milliseconds of an image stand how many times faster than its teacher
each student is, by the fastest PyTorch variant and by ours, and how many times fewer
multiply-accumulates it has. ONNX Runtime takes part where PyTorch's Python has `onnxruntime` and
`onnxscript`. Weights are random: they do not change how long a drawing takes.
"""

import argparse
import json
import sys
from pathlib import Path

import jax_vs_torch as race

VARIANTS = (*race.TORCH, 'onnx')
# Who stands for whom: networks of published runs, teacher and student.
PAIRS = {
    'OMGD CycleGAN': (('mobile_resnet', {'ngf': 64}, 0), ('mobile_resnet', {'ngf': 16}, 0)),
    'OMGD pix2pix': (('unet', {'ngf': 64}, 0), ('unet', {'ngf': 16}, 0)),
    'CAT': (('inception', {'ngf': 64}, 0), ('inception', {'ngf': 64}, 2.6e9)),
    'SPADE': (('spade', {'ngf': 64, 'labels': 36}, 0), ('spade', {'ngf': 16, 'labels': 36}, 0)),
}


def case_of(network, fields, budget, size, batch):
  # A budget is of 256 pixels; each pixel costs the same.
  return race.Case('inference', network, fields, size, batch, budget=budget * (size / 256) ** 2)


def pairs(sizes, batches):
  """[(title, teacher's case, student's case)]."""
  return [(title, *(case_of(*each, size, batch) for each in both))
          for title, both in PAIRS.items() for size in sizes for batch in batches]


def macs(case):
  from jaxgan_compress import analysis
  module = race.networks(case, 'float32')['generator']
  return analysis.macs(module, (1, case.size, case.size, module.example().shape[-1]))


def row(title, teacher, student, found, cost):
  """A line of Markdown: both networks' milliseconds an image, and what the student gains."""
  ms = lambda case, name: 1e3 * race.median(found[case.name], name) / case.batch
  ours, theirs = 'ours float32', [name for name in VARIANTS
                                  if all(name in found[case.name] for case in (teacher, student))]
  best = lambda case: min(ms(case, name) for name in theirs)
  cells = [f'{title}, {teacher.batch} x {teacher.size} px']
  for case in (teacher, student):
    cells += [f'{ms(case, ours):.1f}', f'{best(case):.1f}',
              f'**{race.ratio(found[case.name], ours, theirs)[0]:.2f}**']
  cells += [f'{a / b:.1f}x' for a, b in ((ms(teacher, ours), ms(student, ours)),
                                         (best(teacher), best(student)),
                                         (cost[teacher.name], cost[student.name]))]
  return '| ' + ' | '.join(cells) + ' |'


HEAD = ('| networks | teacher, ours, ms an image | PyTorch or ONNX at best | ratio | student, ours '
        '| at best | ratio | student faster, ours | theirs | fewer MACs |\n|---' + '|--:' * 9 + '|')


def main():
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--torch', default=sys.executable, help='the Python that has PyTorch')
  parser.add_argument('--cases', default='', help='parts of titles, one of which a pair must have')
  parser.add_argument('--sizes', default='256,512')
  parser.add_argument('--batches', default='1,16')
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument('--seconds', type=float, default=1., help='of one timing, at least one call')
  parser.add_argument('--out', type=lambda path: Path(path).expanduser(),
                      default=Path('runs/inference'))
  parser.add_argument('--work', choices=('jax', 'torch'), help=argparse.SUPPRESS)
  parser.add_argument('--variant', help=argparse.SUPPRESS)
  args = parser.parse_args()
  numbers = lambda text: [int(n) for n in text.split(',')]
  if args.work:
    return race.work(args.work, args.variant, race.Case(**json.loads(args.cases)), args.out)
  chosen = [each for each in pairs(numbers(args.sizes), numbers(args.batches))
            if any(part in each[0] for part in args.cases.split(','))]
  if not chosen:
    parser.error(f'no pair has {args.cases!r} in its title: {", ".join(PAIRS)}')
  found, cost, lines = {}, {}, [HEAD]
  print(HEAD)
  for title, teacher, student in chosen:
    for case in (teacher, student):
      cost[case.name] = macs(case)
      found[case.name] = race.compare(case, args.out / f'case{len(found)}', args.torch, VARIANTS,
                                      ('float32',), args.rounds, args.seconds)
    lines.append(row(title, teacher, student, found, cost))
    print(lines[-1], flush=True)
    (args.out / 'inference.json').write_text(json.dumps({'times': found, 'macs': cost}))
    (args.out / 'inference.md').write_text('\n'.join(lines) + '\n')
  return None


if __name__ == '__main__':
  main()
