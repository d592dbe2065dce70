"""One page over several runs: who is compared with whom, and who is on the front."""

import json
import re
import shutil

import pytest

from jaxgan_compress.cli import main
from jaxgan_compress.experiment.compare_runs import compare
from jaxgan_compress.experiment.plots import front
from jaxgan_compress.experiment.report import rounded

pytestmark = pytest.mark.usefixtures('kept_programs')


def test_the_front_is_what_no_other_beats_in_both():
  points = {'small': (1, 9.), 'worse': (2, 10.), 'middle': (3, 5.), 'same': (4, 5.), 'big': (8, 1.)}
  assert front(list(points.values()), 'fd') == [points[k] for k in ('small', 'middle', 'big')]
  assert front([(1, 9.)], 'fd') == [(1, 9.)]
  # 'is' is better high: the dear one with the worst images leaves.
  assert front(list(points.values()), 'is') == [points['small'], points['worse']]


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """A smoke run, the same as though of another seed, and one that was measured otherwise."""
  folder = tmp_path_factory.mktemp('sweep')
  assert main.main(['train', '--config=configs/kd/digits.py:smoke', f'--workdir={folder}/seed0',
                   "--config.run=('classifier','teacher','student_mse')"]) == 0

  def copy(name, change_config, change_results):
    shutil.copytree(folder / 'seed0', folder / name)
    for file, change in (('config.json', change_config), ('results.json', change_results)):
      stored = json.loads((folder / name / file).read_text())
      change(stored)
      (folder / name / file).write_text(json.dumps(stored))

  def better(results):
    for each in results['generators'].values():
      each['best']['measures']['fd']['value'] += 2

  def elsewhere(results):
    for each in results['generators'].values():
      for measure in each['best']['measures'].values():
        measure['protocol']['data'] = 'other digits'

  copy('seed1', lambda config: config.update(seed=1), better)
  copy('other', lambda config: config['evaluate'].update(count=41), elsewhere)
  return folder


def test_seeds_are_one_and_other_measures_stand_apart(runs, capsys):
  assert main.main(['report', *(str(runs / name) for name in ('seed0', 'seed1', 'other'))]) == 0
  assert f'report: {runs}/comparison.html' in capsys.readouterr().out
  page = (runs / 'comparison.html').read_text()
  assert '3 runs compared' in page and 'there are 2 parts below' in page
  assert 'href="seed0/report.html">seed 0' in page and 'href="other/report.html">report' in page
  assert 'evaluate.count: 41' in page and 'seeds 0, 1' in page
  assert page.count('<svg') == 4 and page.count('class=best') == 2 * page.count('<h2>Latents')
  values = [each['best']['measures']['fd']['value'] for each in json.loads(
      (runs / 'seed0/results.json').read_text())['generators'].values()]
  cells = re.findall(r'<td>([^<]+ ± [^<]+)</td>', page)
  assert {rounded(value + 1, 2 ** .5) for value in values} <= set(cells)  # 2 apart: sqrt 2
  assert page.count('data:image/png') == 2 * len(values) and 'http' not in page
  assert main.main(['report', *(str(runs / name) for name in ('seed0', 'seed1'))]) == 0  # over it


def test_what_cannot_be_compared_is_refused(runs, tmp_path, capsys):
  def refused(*args):
    assert main.main(['report', *map(str, args)]) == 2
    return capsys.readouterr().err

  assert 'give two or more folders' in refused(runs / 'seed0', runs / 'seed0/.')
  assert 'holds no run' in refused(runs / 'seed0', tmp_path)
  assert 'takes --workdir=FOLDER' in refused()
  assert 'for two folders or more' in refused(runs / 'seed0', '--metric=fd')
  assert "metric 'fdi' was not measured everywhere; there is fd" in refused(
      runs / 'seed0', runs / 'seed1', '--metric=fdi')
  mine = tmp_path / 'mine.html'
  mine.write_text('<html>mine')
  assert 'is no comparison' in refused(runs / 'seed0', runs / 'seed1', f'--output={mine}')
  assert mine.read_text() == '<html>mine'
  shutil.copytree(runs / 'seed0', tmp_path / 'unfinished')
  (tmp_path / 'unfinished/results.json').unlink()
  with pytest.raises(FileNotFoundError, match='has no results yet'):
    compare([runs / 'seed0', tmp_path / 'unfinished'])
