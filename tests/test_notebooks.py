"""Notebooks are what their sources make, and run from top to bottom; the API reference builds."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import quick

jupytext = pytest.importorskip('jupytext', reason="notebooks need the extra 'notebooks'")
nbclient = pytest.importorskip('nbclient', reason="notebooks need the extra 'notebooks'")
nbformat = pytest.importorskip('nbformat', reason="notebooks need the extra 'notebooks'")
pytest.importorskip('ipykernel', reason="notebooks need the extra 'notebooks'")
pytest.importorskip('skimage', reason="notebooks draw on the extra 'samples'")

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / 'colab'
# What makes each notebook quick; it replaces parameters of the same name.
FAST = {
    'quickstart': {'STEPS': 3, 'TEACHER_WIDTH': 2, 'STUDENT_WIDTH': 1},
    'prune_and_distil': {'STEPS': 2, 'SIZE': 32, 'WIDTH': 8, 'BLOCKS': 2, 'TESTED': 4, 'SHARE': .4},
    'prune_any_network': {'STEPS': 2, 'SIZE': 32, 'WIDTH': 4, 'TESTED': 4, 'SHARE': .4},
    'write_your_own_method': {'STEPS': 3, 'SIZE': 32, 'TEACHER_WIDTH': 2, 'STUDENT_WIDTH': 2},
    'jax_vs_torch': {'SIZE': 32, 'WIDTH': 4, 'BLOCKS': 1, 'ROUNDS': 2},
}


def source(name):
  return jupytext.read(FOLDER / f'{name}.py')


def parameters(notebook):
  """The index of the one cell that says the parameters."""
  found = [i for i, cell in enumerate(notebook.cells)
           if 'parameters' in cell.metadata.get('tags', ())]
  assert len(found) == 1
  return found[0]


def test_all_notebooks_are_tested_here():
  assert {path.stem for path in FOLDER.glob('*.py')} == set(FAST)
  assert {path.stem for path in FOLDER.glob('*.ipynb')} == set(FAST)


@pytest.mark.parametrize('name', FAST)
def test_a_notebook_is_what_its_source_makes(name):
  made, there = source(name), nbformat.read(FOLDER / f'{name}.ipynb', 4)
  nbformat.validate(there)
  told = lambda notebook: [(cell.cell_type, cell.source, dict(cell.metadata))
                           for cell in notebook.cells]
  assert told(there) == told(made), 'run: jupytext --to ipynb --update colab/*.py'
  assert not any(cell.get('outputs') for cell in there.cells)


@pytest.mark.parametrize('name', FAST)
def test_a_notebook_installs_on_colab_alone_and_then_says_its_parameters(name):
  notebook = source(name)
  first, second = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == 'code'][:2]
  assert "if 'google.colab' in sys.modules:" in notebook.cells[first].source
  assert second == parameters(notebook)
  said = {}
  exec(notebook.cells[second].source, said)
  assert set(FAST[name]) <= set(said)


@pytest.mark.parametrize('name', FAST)
def test_a_notebook_runs(name, tmp_path):
  notebook = source(name)
  fast = '\n'.join(f'{key} = {value!r}' for key, value in FAST[name].items())
  notebook.cells.insert(parameters(notebook) + 1, nbformat.v4.new_code_cell(fast))
  client = nbclient.NotebookClient(notebook, timeout=300, kernel_name='python3',
                                   resources={'metadata': {'path': tmp_path}})
  client.execute(env=quick())  # one device, as a notebook has it
  outputs = [output for cell in notebook.cells for output in cell.get('outputs', ())]
  pictures = [output for output in outputs if 'image/png' in output.get('data', {})]
  assert len(pictures) >= {'jax_vs_torch': 3, 'prune_any_network': 3}.get(name, 5)
  assert not [output.text for output in outputs if output.get('name') == 'stderr']


def test_the_reference_builds_without_a_warning(tmp_path):
  pytest.importorskip('pdoc', reason="the reference needs the extra 'docs'")
  done = subprocess.run(
      [sys.executable, '-W', 'error', ROOT / 'docs' / 'reference' / 'build.py', tmp_path],
      capture_output=True, text=True, check=False)
  assert done.returncode == 0 and not done.stderr, done.stderr[-2000:]
  page = (tmp_path / 'jaxgan_compress' / 'methods.html').read_text()
  assert '<li><strong>paired</strong>: the discriminator sees source and image side by side' in page
  landing = (tmp_path / 'jaxgan_compress.html').read_text()
  assert 'href="jaxgan_compress/pruning.html"' in landing
