"""Words, numbers and charts of the HTML pages; whole pages: test_experiment, test_compare."""

import base64
import io
import logging
import re

import matplotlib
import numpy as np
import pytest
from PIL import Image

from jaxgan_compress.config import SELECT
from jaxgan_compress.experiment import plots, report


def parts():
  return report._environment().get_template('parts.html.jinja2').module


def row(title, role, teacher=None, **measures):
  return {'title': title, 'role': role, 'teacher': teacher, 'from': 'latents', 'ratio': 10.,
          'ratio_macs': 4., 'params': 1, 'from_scratch': True, 'best': {'step': 2, 'measures': {
              key: {'value': value} for key, value in measures.items()}}}


@pytest.mark.parametrize(('value', 'spread', 'text'), [
    (90.1234, 187.6, '90 ± 190'),  # four decimals beside a spread of hundreds say nothing
    (1299.4, 1018., '1,300 ± 1,000'), (.548766, .0561665, '0.549 ± 0.056'),
    (7.63, .0996, '7.63 ± 0.10'), (7.63, .0994, '7.630 ± 0.099'),
    (-.0012, .0034, '-0.0012 ± 0.0034'),
    (12.34567, 0., '12.35 ± 0.00'), (1.00000004, 2e-9, '1.00000 ± 0.00000'),
    (12.34567, None, '12.35'), (9999.6, None, '10,000'), (23148., None, '23,150'),
    (.0016687, None, '0.001669'), (0., None, '0.000'), (float('nan'), .1, 'nan'),
    (float('inf'), None, 'inf')])
def test_a_value_has_the_digits_that_its_spread_leaves(value, spread, text):
  assert report.rounded(value, spread) == text


@pytest.mark.parametrize(('number', 'text'), [
    (0, '0'), (.01234, '0.0123'), (999, '999'), (37376, '37.4 k'), (1216512, '1.22 M'),
    (5.68e10, '56.8 G'), (-1500, '-1.5 k'),
    (999_400, '999 k'), (999_700, '1 M'), (2.5e12, '2.5 T')])
def test_large_numbers_have_a_letter(number, text):
  assert plots.si(number) == text


def test_seeds_become_mean_and_deviation():
  seed = lambda fd: {'measures': {'fd': {'value': fd, 'spread': 9.},
                                  'classes': {'value': [1., 0.]}}}
  assert report.quality_cells([seed(10.)]) == {'fd': '10.0 ± 9.0'}
  assert report.quality_cells([seed(10.)], over_seeds=True) == {'fd': '10.00'}
  assert report.quality_cells([seed(10.), seed(12.)], over_seeds=True) == {'fd': '11.0 ± 1.4'}


def test_what_latents_have_no_target_for_is_to_the_teacher():
  measured = {'psnr': {'value': 20.}, 'mse_on_paths': {'value': .1}}
  assert set(report.quality_cells([{'measures': measured}])) == {'psnr_teacher', 'mse_on_paths'}
  measured = {'psnr': {'value': 20.}, 'psnr_teacher': {'value': 30.}}
  assert report.quality_cells([{'measures': measured}])['psnr'] == '20.00'


def test_every_measure_and_cost_is_explained():
  for measures in (parts().QUALITY, parts().COSTS):
    for heading, better, meaning in measures.values():
      assert heading and better in ('lower', 'higher', '') and meaning.endswith(('.', '?'))
  sense = {'min': 'lower', 'max': 'higher'}
  assert all(parts().QUALITY[key][1] == sense[which] for key, which in SELECT.items())
  assert set(parts().COSTS) == set(report.COSTS)
  assert set(report.CURVES) <= set(parts().QUALITY)


def test_the_summary_says_what_a_student_keeps():
  rows = {'teacher': row('Teacher', 'teacher', **{'is': 8.}, fd=20.),
          'student': row('Student', 'student', 'teacher', **{'is': 6.}, fd=30.),
          'scratch': row('Alone', 'baseline', **{'is': 2.}, fd=90.),
          'wide': {**row('Wide', 'baseline', **{'is': 7.}, fd=1.), 'params': 2},
          'continued': {**row('Goes on', 'baseline', **{'is': 7.}, fd=1.), 'from_scratch': False}}
  text = ' '.join(re.sub('<.*?>', '', str(parts().summary(rows))).split())
  assert text == ('Student is 10.0 times smaller than Teacher, keeps 75% of its inception score '
                  'and reaches FD 30.0 against 20.0; lower is better. The same network trained '
                  'from scratch reaches FD 90.0 at best.')
  for each in rows.values():
    each['best']['measures']['fd_efficientnet_lite0'] = each['best']['measures'].pop('fd')
  text = ' '.join(re.sub('<.*?>', '', str(parts().summary(rows))).split())
  assert text.count('reaches FD of EfficientNet-Lite0 ') == 2
  images = {name: {**each, 'from': 'source'} for name, each in rows.items()}
  assert 'takes 4.0 times fewer multiply-accumulate operations' in parts().summary(images)
  assert not parts().summary({'scratch': rows['scratch']}).strip()


def test_titles_are_text_and_no_markup():
  evil = '<b>$x$ & "y"\'s</b>'
  results = {'generators': {'a': {**row(evil, 'baseline'), 'macs': 2000, 'seconds': 1.}},
             'environment': {'device': {'count': 1, 'platform': 'cpu', 'kind': 'cpu', 'cpus': 2},
                             'packages': {'jax': '1'}, 'python': '3', 'git': None, 'time': 'now'}}
  del results['generators']['a']['best']  # nothing was measured
  images = np.zeros((2, 4, 4, 1))
  groups = {'latents': {'images': [('a', images)], 'pictures': None, 'targets': None,
                        'originals': None, 'detail': '', 'real': images}}
  of_latents = {'psnr': {'value': 20.}, 'mse_on_paths': {'value': 1.}}  # to the teacher
  curves = {'a': [{'step': step, 'measures': {'fd': {'value': 1. / step}, **of_latents}}
                  for step in (1, 2, 3)]}
  config = {'data': {'name': evil}, 'seed': 0, 'run': ['a'], 'note': evil,
            'evaluate': {'select': 'fd'}}
  page = report.render(results, groups, curves, config)
  assert evil not in page and '<b>$x$' not in page
  assert page.count('&lt;b&gt;$x$ &amp;') == 8  # wherever a title or a name stands
  assert '2 k' in page and 'Generators trained in this run.' in page
  assert 'PSNR to the target' not in page
  assert 'step 2: 0.5' in page and page == report.render(results, groups, curves, config)


def text(svg):
  return re.findall('<text[^>]*>(.*?)</text>', svg)


def test_curves_are_drawn_on_round_numbers():
  points = [(500, 5.), (1000, 40.), (2000, 90.)]
  svg = plots.learning_curves([('a', points), ('none', []), ('b', [(500, 0.), (1000, 7.)])])
  assert [each for each in text(svg) if each in ('5', '10', '20', '50')] == ['5', '10', '20', '50']
  assert '<title>a\nstep 500: 5\nstep 1000: 40\nstep 2000: 90</title>' in svg.replace('&#10;', '\n')
  assert 'stroke: var(--c0)' in svg and 'var(--c1)' not in svg and 'stroke: var(--c2)' in svg
  assert '#00ff' not in svg and 'http' not in svg and 'id="figure' not in svg
  assert not plots.learning_curves([('none', []), ('zero', [(1, 0.)])])
  powers = plots.learning_curves([('a', [(1, .002), (2, 3000.)])])
  assert {'0.01', '1', '1 k'} <= set(text(powers)) and '2' not in text(powers)[3:]
  narrow = plots.learning_curves([('a', [(1, 12.64), (2, 12.87)])])
  assert len([each for each in text(narrow) if each.startswith('12.')]) >= 3


def test_the_tenth_series_is_dashed_in_the_chart_and_in_its_key():
  svg = plots.learning_curves([(str(i), [(1, 1. + i), (2, 2. + i)]) for i in range(10)])
  assert svg.count('stroke-dasharray') == 2
  assert 'solid var(--c1)' in parts().key(1) and 'dashed var(--c1)' in parts().key(9)


def test_a_tradeoff_has_dots_stairs_and_seeds():
  dot = lambda i, cost, *values: {
      'label': f'no {i}', 'note': f'dot {i}', 'series': i, 'role': 'teacher' if i else 'student',
      'at': (cost, float(np.mean(values))), 'values': values}
  dots = [dot(0, 1e6, 30., 50.), dot(1, 9e6, 10.)]
  svg = plots.tradeoff(dots, [each['at'] for each in dots], 'MACs', 'FD')
  assert {'no 0', 'no 1', 'MACs', 'FD', '1 M', '2 M', '5 M', '10', '20', '50'} <= set(text(svg))
  assert '<title>dot 0</title>' in svg and '<title>dot 1</title>' in svg
  negative = plots.tradeoff([dot(0, 1., -.1), dot(1, 2., .4)], [(1., -.1)], 'MACs', 'MMD')
  assert {'0', '0.2', '0.4'} <= set(text(negative))  # a linear axis
  assert not plots.tradeoff([], [], 'MACs', 'FD')


def test_charts_leave_the_users_matplotlib_as_it_is(monkeypatch, caplog):
  monkeypatch.setitem(matplotlib.rcParams, 'text.usetex', True)  # needs LaTeX, were it heeded
  before, logger = dict(matplotlib.rcParams), logging.getLogger('matplotlib')
  monkeypatch.setattr(matplotlib, 'rcdefaults', lambda real=matplotlib.rcdefaults: (
      logger.warning('no home'), real()))
  assert plots.learning_curves([('a', [(1, 2.)])])
  assert dict(matplotlib.rcParams) == before and logger.level == logging.NOTSET
  assert not caplog.records


@pytest.mark.parametrize('channels', [1, 3, 4, 6])
def test_images_lie_in_the_page_with_transparent_gaps(channels):
  images = np.stack([np.full((4, 4, channels), -1.), np.ones((4, 4, channels))])
  images[..., 3:] = 1  # opaque
  kind, data = report._data_url(images).split(',')
  pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
  assert kind == 'data:image/png;base64' and pixels.shape == (4, 10, 4)
  assert (pixels[:, :4] == (0, 0, 0, 255)).all() and (pixels[:, 6:] == 255).all()
  assert not pixels[:, 4:6, 3].any()
