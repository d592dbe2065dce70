"""The house rules: imports look down, public names are documented, scripts speak clearly."""

import ast
import functools
import inspect
import io
import os
import re
import subprocess
import sys
import textwrap
import tokenize
from collections.abc import Mapping
from pathlib import Path

import jax
import pytest
from ml_collections import ConfigDict

import jaxgan_compress as jgc
from jaxgan_compress import analysis, core, distributed, losses, metrics, parallel, train
from jaxgan_compress.cli import main as cli  # noqa: F401 - registers the verbs
from jaxgan_compress.cli.flags import VERBS
from jaxgan_compress.config import build
from jaxgan_compress.nn.files import arrays

PACKAGE = Path(jgc.__file__).parent
ROOT = PACKAGE.parent

# What each part may import of ours, besides itself.
ALLOWED = {
    'core': set(),
    'distributed': {'core'},
    'losses': {'core'},
    'tracing': {'core'},
    'nn': {'core', 'tracing'},
    'data': {'core'},
    'parallel': {'core'},
    'convert': {'core', 'nn'},
    'analysis': {'core', 'nn', 'tracing'},
    'export': {'analysis', 'core', 'data', 'nn', 'tracing', '_version'},
    'metrics': {'convert', 'core', 'data', 'losses', 'nn', 'parallel'},
    'train': {'core', 'data', 'distributed', 'parallel'},
    'pruning': {'analysis', 'core', 'export', 'nn', 'tracing'},
    'methods': {'core', 'losses', 'nn', 'pruning'},
    'config': {'convert', 'core', 'data', 'nn', 'pruning'},
    'experiment': {'analysis', 'config', 'convert', 'core', 'data', 'distributed', 'export',
                   'metrics', 'nn', 'parallel', 'pruning', 'train'},
    'inference': {'analysis', 'config', 'core', 'data', 'experiment', 'export', 'nn'},
    'cli': {'analysis', 'config', 'convert', 'core', 'data', 'distributed', 'experiment', 'export',
            'inference', 'metrics', 'nn', 'pruning', 'train', '_version'},
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
                 jgc.nn.files.ncnn, jgc.nn.files.network, jgc.nn.files.realesrgan,
                 jgc.nn.init, jgc.nn.prunable):
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


@pytest.mark.parametrize('script', ['quickstart.sh', 'test.sh', 'reference.sh',
                                    'get_emoji.sh'])
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
  import tpu_forms
  pairs = inference.pairs((64,), (1,))
  for case in (*jax_vs_torch.CASES.values(), *(case for _, *both in pairs for case in both)):
    assert jax_vs_torch.networks(case, 'float32')
  for title, layer, side, channels in tpu_forms.cases('float32'):
    x = jax.ShapeDtypeStruct((1, side, side, channels), 'float32')
    assert jax.eval_shape(layer.init_with_output, jax.random.key(0), x)[0].ndim == 4, title


# Words of earlier versions, for what the field calls otherwise: as parts of names ...
OLD_PARTS = {
    'judge': 'disc', 'judges': 'disc', 'lesson': 'teacher output', 'lessons': 'distill',
    'drawer': 'generator', 'drawing': 'generated image', 'drawings': 'generated images',
    'draws': 'is_generator', 'drawn': 'generated', 'pupil': 'student', 'pupils': 'roles',
    'shrink': 'gradual_pruning', 'beside': 'roles', 'clock': 'schedule',
    'others': 'extra_students', 'given': 'init_from', 'aim': 'recon_target',
    'remembering': 'maybe_remat', 'look': 'feature_net',
}
# ... and as whole names, keys and flags.
OLD_NAMES = {
    'going_on': 'disc_init', 'n_dis': 'teacher_every', 'n_critic': 'disc_steps', 'product': 'roles',
    'to_range': 'to_tanh_float32', 'Blocks': 'AlternatingSchedule', 'fixed': 'stop_gradient',
    'cut': 'prune', 'Cut': 'PruneResult', 'cut_to_time': 'prune_to_latency',
    'begin': 'init_student',
    'how': 'criterion', 'per': 'scope', 'floor': 'min_channels', 'legacy': 'cat_search',
    'form': 'implementation', 'forms': 'implementations', 'memory': 'replica_state',
    'stats': 'collections', 'disc_from': 'disc_init', 'student_back': 'student_ba',
}
OLD_PRUNING = {'start': 'student_init', 'multiple': 'round_to', 'picture': 'plot_masks'}
OLD_FLAGS = {'in': 'input', 'out': 'output', 'hint': 'override', 'part': 'key', **OLD_PRUNING}
# Of prose: docs, notebooks, docstrings, help texts, report templates.
OLD_PROSE = re.compile(
    r'\b(judges?|judged|lessons?|drawers?|drawings?|drawn|draws|drew|pupils?)\b', re.IGNORECASE)
# What reads the names of earlier versions.
OLD_ALLOWED = ('jaxgan_compress/config/old_keys.py',)


def old_words(names, more=()):
  """'old (new)' for each of the names that is one of the old words, or has one as a part."""
  table = {**OLD_NAMES, **dict(more)}
  for name in names:
    parts = re.sub(r'([a-z])([A-Z])', r'\1_\2', name).lower().split('_')
    for new in (table.get(name), *map(OLD_PARTS.get, parts)):
      if new:
        yield f'{name} ({new})'


def test_public_names_are_the_fields_words():
  modules = [module for name, module in sorted(sys.modules.items())
             if name.startswith('jaxgan_compress') and '__all__' in vars(module)]
  assert len(modules) > 12
  found = {}
  for module in modules:
    more = OLD_PRUNING if module is jgc.pruning else {}
    for name in module.__all__:
      value, names = getattr(module, name), [name]
      functions = [value] if inspect.isfunction(value) else []
      if inspect.isclass(value):
        names += [key for key in vars(value) if key[0] != '_']
        names += [] if issubclass(value, Exception) else getattr(value, '__annotations__', {})
        functions = [x for x in vars(value).values() if inspect.isfunction(x)]
      parameters = {key for function in functions
                    for key in function.__code__.co_varnames[:function.__code__.co_argcount
                                                             + function.__code__.co_kwonlyargcount]}
      # Gradual pruning has a first and a last step.
      more_here = more if 'start' not in names and name != 'schedule' else {}
      if old := sorted({*old_words([*names, *parameters], more_here)}):
        found[f'{module.__name__}.{name}'] = old
  assert not found


def test_keys_of_configs_and_flags_are_the_fields_words():
  def keys(section):
    for key, value in section.items():
      yield key
      yield from keys(value) if isinstance(value, Mapping | ConfigDict) else ()

  schema = jgc.config.schema
  assert not [*old_words([*keys(schema.base()), *keys(schema.STAGE)])]
  flags = {flag.name for verb in VERBS.values() for flag in verb.flags}
  assert 'criterion' in flags
  assert not [*old_words(flags, OLD_FLAGS)]
  texts = [text for verb in VERBS.values()
           for text in (verb.body.__doc__, *(flag.help for flag in verb.flags))]
  assert not [match[0] for text in texts for match in OLD_PROSE.finditer(text)]


DOCS = [ROOT / 'README.md', ROOT / 'launch/README.md', *sorted((ROOT / 'docs').glob('*.md'))]


def names_in(code):
  """The names in Python code, strings and comments left out."""
  tokens = tokenize.generate_tokens(io.StringIO(textwrap.dedent(code)).readline)
  return {token.string for token in tokens if token.type == tokenize.NAME}


@pytest.mark.parametrize('path', DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_docs_are_in_the_fields_words(path):
  text = path.read_text()
  assert not [match[0] for match in OLD_PROSE.finditer(text)]
  names = {name for code in re.findall(r'```python\n(.*?)```', text, re.DOTALL)
           for name in names_in(code)}
  for code in re.findall(r'`([^`\n]+)`', re.sub(r'```.*?```', '', text, flags=re.DOTALL)):
    names |= set(re.findall(r'[A-Za-z_][\w-]*', code))
  assert not [*old_words(names)]
  for line in re.findall(r'jaxgan-compress [a-z-]+ .*', text):
    verb, *words = line.partition('#')[0].split()[1:]
    options = {re.match(r'--(?:no)?(\w+)', word)[1] for word in words if word.startswith('--')}
    if verb in VERBS:
      assert options <= {flag.name for flag in VERBS[verb].flags}, line


@pytest.mark.parametrize('path', [*sorted((ROOT / 'colab').glob('*.py')),
                                  *sorted(PACKAGE.rglob('*.jinja2'))], ids=lambda path: path.name)
def test_notebooks_and_reports_are_in_the_fields_words(path):
  text = path.read_text()
  assert not [match[0] for match in OLD_PROSE.finditer(text)]
  if path.suffix == '.py':
    assert not [*old_words(names_in(text))]


def test_sources_are_in_the_fields_words():
  found = {}
  for path in sorted({*PACKAGE.rglob('*.py'), *(ROOT / 'configs').rglob('*.py')}):
    name = str(path.relative_to(ROOT))
    if name in OLD_ALLOWED:
      continue
    text = path.read_text()
    names = {part for code in re.findall(r'`([A-Za-z_.]+)`', text) for part in code.split('.')}
    if old := [*OLD_PROSE.findall(text), *old_words(names)]:
      found[name] = old
  assert not found
