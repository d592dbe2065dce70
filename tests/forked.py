"""Processes that begin where Python has imported everything, which takes each other one seconds."""

import atexit
import importlib
import multiprocessing
import os
import signal
import sys
import tempfile
from pathlib import Path

import jax

# It imports once, touches no device, and is forked for each process.
SERVER = multiprocessing.get_context('forkserver')
SERVER.set_forkserver_preload(['jaxgan_compress.cli.main', 'tests.forked'])


class Process:
  """One that ends with the code that `main(*arguments)` of a module returns, as of `python -m`.

  environment: as of `conftest.quick`; JAX reads it as if it had been there at its import. cwd: the
  folder to be in.
  """

  def __init__(self, module, arguments, environment, cwd):
    # The folder goes when the tests end.
    out, printed = tempfile.mkstemp(dir=environment['JAX_COMPILATION_CACHE_DIR'])
    os.close(out)
    self._printed = Path(printed)
    self._process = SERVER.Process(target=_run, daemon=True, args=(
        module, arguments, environment, cwd, printed))
    self._process.start()

  def send_signal(self, number):
    os.kill(self._process.pid, number)

  def kill(self):
    self.send_signal(signal.SIGKILL)

  def poll(self):
    """The exit code, or None while it runs."""
    return self._process.exitcode

  def wait(self, seconds):
    """The exit code; raises TimeoutError if it does not end by itself."""
    self._process.join(seconds)
    if self.poll() is None:
      self.kill()
      raise TimeoutError(f'no end after {seconds} s: {self.said()}')
    return self.poll()

  def said(self):
    """What it printed."""
    return self._printed.read_text()


def _run(module, arguments, environment, cwd, printed):
  os.environ.update(environment)
  os.chdir(cwd)
  for name, kind in (('num_cpu_devices', int), ('compilation_cache_dir', str),
                     ('persistent_cache_min_compile_time_secs', float)):
    jax.config.update(f'jax_{name}', kind(environment[f'JAX_{name.upper()}']))
  out = os.open(printed, os.O_WRONLY | os.O_APPEND)
  for number in (1, 2):
    os.dup2(out, number)
  for stream in (sys.stdout, sys.stderr):
    stream.reconfigure(line_buffering=True)
  code = importlib.import_module(module).main(*arguments)
  atexit._run_exitfuncs()  # which `multiprocessing` leaves out
  sys.exit(code)
