"""The house rules: imports look down, public names are documented, scripts speak clearly."""

import ast
import functools
import inspect
import io
import os
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

import jaxgan_compress as jgc
from jaxgan_compress import analysis, core, distributed, losses, metrics, parallel, train
from jaxgan_compress.config import build
from jaxgan_compress.nn.files import arrays

PACKAGE = Path(jgc.__file__).parent
ROOT = PACKAGE.parent

# What each part may import of ours, besides itself.
ALLOWED = {
    'core': set(),
    'distributed': {'core'},
    'losses': set(),
    'nn': {'core'},
    'data': {'core'},
    'parallel': {'core'},
    'convert': {'nn'},
    'analysis': {'core', 'nn'},
    'export': {'analysis', 'core', 'data', 'nn', '_version'},
    'metrics': {'core', 'data', 'losses', 'nn', 'parallel'},
    'train': {'core', 'data', 'distributed', 'parallel'},
    'pruning': {'analysis', 'core', 'export', 'nn'},
    'methods': {'core', 'losses', 'nn', 'pruning'},
    'config': {'core', 'data', 'pruning'},
    'experiment': {'analysis', 'config', 'core', 'data', 'distributed', 'export', 'metrics', 'nn',
                   'parallel', 'pruning', 'train'},
    'cli': {'analysis', 'config', 'convert', 'core', 'data', 'distributed', 'experiment', 'export',
            'metrics', 'nn', 'pruning', 'train', '_version'},
}


@functools.cache
def parsed(path):
  return ast.parse(path.read_text())


def imported(path):
  """Our modules that a file imports, by their first part."""
  for node in ast.walk(parsed(path)):
    if isinstance(node, ast.ImportFrom) and node.module:
      names = [f'{node.module}.{each.name}' for each in node.names]
    elif isinstance(node, ast.Import):
      names = [each.name for each in node.names]
    else:
      continue
    for name in names:
      parts = name.split('.')
      if parts[0] == 'jaxgan_compress' and len(parts) > 1:
        yield '_version' if parts[1].startswith('__') else parts[1]


def test_the_root_holds_folders_alone():
  files = {path.name for path in PACKAGE.iterdir() if path.is_file()}
  assert files == {'__init__.py', '__main__.py', '_version.py', 'py.typed'}
  folders = {path.name for path in PACKAGE.iterdir() if (path / '__init__.py').is_file()}
  assert folders == ALLOWED.keys()


@pytest.mark.parametrize('part', ALLOWED)
def test_imports_only_look_down(part):
  found = {name for file in (PACKAGE / part).rglob('*.py') for name in imported(file)} - {part}
  assert found <= ALLOWED[part], f'{part} imports {sorted(found - ALLOWED[part])}'


FUNCTION_LINES, BRANCHES, LOOKUPS = 60, 15, 15
BRANCHING = (ast.If, ast.For, ast.While, ast.IfExp, ast.ExceptHandler, ast.comprehension,
             ast.match_case)


def branches(function):
  """Ways that a function may take: each condition, each loop, each further operand of and, or."""
  nodes = list(ast.walk(function))
  return sum(isinstance(node, BRANCHING) for node in nodes) + sum(
      len(node.values) - 1 for node in nodes if isinstance(node, ast.BoolOp)) + sum(
      len(node.ifs) for node in nodes if isinstance(node, ast.comprehension))


def test_functions_are_small():
  """Of lines the docstring does not count."""
  large = []
  for file in PACKAGE.rglob('*.py'):
    for node in ast.walk(parsed(file)):
      if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        documented = ast.get_docstring(node) is not None and len(node.body) > 1
        size = node.end_lineno - node.body[documented].lineno + 1, branches(node)
        if size[0] > FUNCTION_LINES or size[1] > BRANCHES:
          large.append((str(file.relative_to(PACKAGE)), node.name, size))
  assert not large, f'over {FUNCTION_LINES} lines or {BRANCHES} branches'


def test_few_attributes_may_be_missing_and_each_says_why():
  """getattr and hasattr with a literal name, which hide what an object is from the reader."""
  found, bare = [], []
  for file in PACKAGE.rglob('*.py'):
    text = file.read_text()
    if 'attr(' not in text:
      continue
    calls = [node.lineno for node in ast.walk(parsed(file)) if isinstance(node, ast.Call)
             and isinstance(node.func, ast.Name) and node.func.id in ('getattr', 'hasattr')
             and isinstance(node.args[1], ast.Constant)]
    comments = {token.start[0]: token.line.lstrip()[0] == '#' for token in tokenize.generate_tokens(
        io.StringIO(text).readline) if token.type == tokenize.COMMENT}
    found += calls
    bare += [f'{file.relative_to(PACKAGE)}:{line}' for line in calls
             if line not in comments and not comments.get(line - 1)]
  assert not bare, 'without a comment on the line or above it'
  assert len(found) <= LOOKUPS


# The entry point of the command, `jaxgan_compress.cli.main:main`.
NAMESAKES = {'cli.main'}


def test_no_module_bears_the_name_of_a_function():
  """`import jaxgan_compress.part.name as m` would give the function, or look as if it did."""
  files = [file for part in ALLOWED for file in (PACKAGE / part).rglob('*.py')]
  functions = {}
  for file in files:
    functions.setdefault(file.relative_to(PACKAGE).parts[0], set()).update(
        node.name for node in parsed(file).body if isinstance(node, ast.FunctionDef))
  names = {'.'.join(file.relative_to(PACKAGE).with_suffix('').parts) for file in files}
  bad = {name for name in names if name.rpartition('.')[2] in functions[name.partition('.')[0]]}
  assert bad == NAMESAKES


def public():
  for module in (jgc, jgc.nn, jgc.convert, jgc.methods, jgc.data, metrics, analysis, parallel,
                 jgc.pruning, jgc.export, train, distributed):
    for name in module.__all__:
      yield f'{module.__name__}.{name}', getattr(module, name)
  for module in (losses.gan, losses.image, losses.features, losses.similarity, core.state,
                 core.update, core.axes, build, arrays, jgc.config.schema, jgc.nn.layers.conv,
                 jgc.nn.layers.conv_cpu, jgc.nn.layers.conv_dispatch, jgc.nn.layers.inputs,
                 jgc.nn.layers.norms, jgc.nn.layers.resample, jgc.nn.layers.upsample_cpu,
                 jgc.nn.files.network, jgc.nn.init, jgc.nn.prunable):
    for name, value in vars(module).items():
      if inspect.isfunction(value) and value.__module__ == module.__name__ and name[0] != '_':
        yield f'{module.__name__}.{name}', value


def test_public_names_are_documented():
  bare = [name for name, value in public()
          if (inspect.isclass(value) or inspect.isfunction(value)) and not value.__doc__]
  assert not bare


def test_slow_imports_wait_until_they_are_needed():
  code = ('import sys, jaxgan_compress.cli.main; '
          'print({"tensorflow", "matplotlib", "jinja2"} & set(sys.modules))')
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert done.stdout == 'set()\n'


@pytest.mark.parametrize('script', ['quickstart.sh', 'test.sh', 'reference.sh'])
def test_scripts_say_in_one_line_what_is_missing(script, tmp_path):
  done = subprocess.run(
      [ROOT / 'launch' / script], capture_output=True, text=True, check=False, cwd=tmp_path,
      env={**os.environ, 'JAXGAN_PYTHON': 'no-such-python', 'JAXGAN_VENV': str(tmp_path / 'v')})
  assert done.returncode == 1 and not done.stdout
  assert done.stderr.strip().splitlines() == [
      f'{script}: no Python 3.11 or newer was found in JAXGAN_PYTHON=no-such-python; install one, '
      'for example: apt-get install python3 python3-venv']


def test_the_networks_of_the_benchmarks_can_be_built(monkeypatch):
  monkeypatch.syspath_prepend(ROOT / 'benchmarks')
  import inference
  import jax_vs_torch
  pairs = inference.pairs((64,), (1,))
  for case in (*jax_vs_torch.CASES.values(), *(case for _, *both in pairs for case in both)):
    assert jax_vs_torch.networks(case, 'float32')
