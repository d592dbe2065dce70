"""Ctrl-C while JAX is imported, which takes seconds and which `cli.main` cannot hear: one line and
the code of `cli.main`, where this package is the program that runs."""

import os
import sys


def _answer(kind, error, trace):
  if not issubclass(kind, KeyboardInterrupt):
    sys.__excepthook__(kind, error, trace)
    return
  print('\ninterrupted', file=sys.stderr, flush=True)
  os._exit(130)


if ''.join(sys.argv[:1]).endswith('jaxgan-compress') or (
    sys.orig_argv[1:3] == ['-m', 'jaxgan_compress']):
  sys.excepthook = _answer
