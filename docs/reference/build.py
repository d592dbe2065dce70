"""Writes the API reference, HTML pages of all docstrings:

    python docs/reference/build.py [FOLDER]     # build/reference by default; needs the extra 'docs'
"""

import re
import sys
from pathlib import Path

import pdoc

HERE = Path(__file__).parent
# The package names its public parts; these are public, too, and reached by their full names.
MORE = ('core', 'core.xla', 'distributed', 'nn.prunable', 'nn.layers.conv_dispatch')
# 'name: ...', 'one, other: ...', "'value': ..." at the beginning of a line.
NAME = r"""(?:\*{0,2}[\w.]+|'[^'\n]+'|"[^"\n]+")"""
ITEM = re.compile(rf'^( *)({NAME}(?:(?:, | or ){NAME})*):(?= |$)')


def bulleted(docstring: str) -> str:
  """Markdown in which what a docstring says of each argument is an item of a list.

  What is indented under an argument belongs to it; `code` and indented blocks stay as they are.
  """
  lines, level, blank, heads = [], None, True, False  # heads: an item that only announces others
  for line in docstring.splitlines():
    indent = len(line) - len(line.lstrip())
    if not line.strip() or (blank and indent >= 4):
      lines.append(line)
      level, blank = (None, True) if not line.strip() else (level, blank)
      continue
    item = ITEM.match(line)
    if item and (not indent or (level is not None and (heads or level))):
      lines += [''] * (level is None)
      level, heads = min(indent, 1), not line[item.end():]
      text = f'- **{item[2]}**:{line[item.end():]}'
    else:
      if level is not None and indent == 0:
        lines.append('')
        level = None
      text = line.strip() if level is None else '  ' + line.strip()
    lines.append('    ' * (level or 0) + escaped(text))
    blank = False
  return '\n'.join(lines)


def escaped(text: str) -> str:
  """`<` is no beginning of a tag, but in code."""
  parts = text.split('`')
  parts[::2] = [part.replace('<', '&lt;') for part in parts[::2]]
  return '`'.join(parts)


def build(folder: Path):
  pdoc.render.configure(docformat='markdown', template_directory=HERE,
                        footer_text='jaxgan_compress')
  filters = pdoc.render.env.filters
  to_markdown = filters['to_markdown']

  # The decorator of the filter that it wraps asks for the template's context.
  def markdown(context, docstring):
    return to_markdown(context, bulleted(docstring))

  markdown.jinja_pass_arg = to_markdown.jinja_pass_arg
  filters['to_markdown'] = markdown
  pdoc.pdoc('jaxgan_compress', *(f'jaxgan_compress.{name}' for name in MORE),
            output_directory=folder)


if __name__ == '__main__':
  target = Path(sys.argv[1] if len(sys.argv) > 1 else HERE.parents[1] / 'build' / 'reference')
  build(target)
  print(target / 'index.html')
