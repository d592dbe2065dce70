"""A page on this machine to play with: give a picture, and see what each network makes of it.

`Demo` answers and needs no page; `serve` puts one before it, which needs Gradio (extra 'demo').
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import html
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from jaxgan_compress import analysis
from jaxgan_compress.core import BoundGenerator
from jaxgan_compress.data import sample_images
from jaxgan_compress.data.picture_folders import Failure, Job, Options, size_of
from jaxgan_compress.inference import comparison
from jaxgan_compress.inference.engines import JaxEngine, OnnxEngine, choose_engine
from jaxgan_compress.inference.folders import Runner
from jaxgan_compress.inference.gallery_page import costs_on_page, page, plain
from jaxgan_compress.inference.memory import memory_limit, needed_bytes
from jaxgan_compress.inference.networks import Network

MAX_SIDE = 1024
IMAGES = 16          # of latents, in four rows
ENLARGED = 96        # pixels of a side to which small images of latents are enlarged
EXAMPLE_SIDE = 384
LARGEST = '64mb'     # of a file that is given to the page
PORTS = range(7860, 7960)


class Answer(NamedTuple):
  """What the page shows: the input (None for latents), {caption: image}, a text about the picture,
  and what each network took."""
  input: Image.Image | None
  images: dict[str, Image.Image]
  note: str
  costs: dict[str, comparison.Cost]


class Demo:
  """What several networks make of a picture, a label map, or latents.

  networks, labels, engine: see `gallery`; 'auto' takes ONNX Runtime on CPUs, since it compiles
  nothing for a picture of another size. max_side: larger pictures are made smaller.
  """

  def __init__(self, networks: Mapping[str, str | Path | BoundGenerator | Network], *,
               labels: Mapping[str, Any] | None = None, max_side: int = MAX_SIDE,
               engine: str = 'auto'):
    self.networks = comparison.as_networks(networks, labels)
    self.takes = next(iter(self.networks.values())).takes
    options = Options(max_side=max_side)
    self._readers = comparison.readers(self.networks, options)
    self._engines = comparison.on_one_engine(
        self.networks, engine, lambda caption, engine: _engine(self.networks[caption], engine))
    self._costs: dict[tuple, comparison.Cost] = {}  # of each network and size that was run

  def of_picture(self, file: str | Path) -> Answer:
    """Raises ValueError, in words for the page, for a file that is no picture or no label map."""
    file = Path(file)
    job = Job(file, file, file.name)
    try:
      inputs = {caption: reader.read(job) for caption, reader in self._readers.items()}
    except (ValueError, OSError) as e:
      raise ValueError(plain(Failure(file, str(e)))) from e
    caption, (x, picture) = next(iter(inputs.items()))
    shown = _image(comparison.shown_input(self._readers[caption], x, picture))
    images, costs = {}, {}
    for caption, (x, picture) in inputs.items():
      made, costs[caption] = self._run(caption, x[None])
      images[caption] = _image(self._readers[caption].pixels(made[0], picture))
    return Answer(shown, images, _sizes(file, shown.size, x.shape[1::-1]), costs)

  def of_latents(self, seed: int) -> Answer:
    """The first images of `generate` with that seed; the time is of one."""
    z = comparison.latents(IMAGES, self.takes.channels, seed)
    images, costs = {}, {}
    for caption in self.networks:
      made = comparison.one_by_one(self._engines[caption], z)
      _, costs[caption] = self._run(caption, z[:1])
      factor = max(1, round(ENLARGED / made.shape[1]))
      sheet = analysis.contact_sheet(made.reshape(-1, 4, *made.shape[1:]).repeat(factor, 2).repeat(
          factor, 3))
      images[caption] = Image.fromarray(sheet)
    return Answer(None, images, f'{IMAGES} images of the latents of seed {seed}.', costs)

  def _run(self, caption, x) -> tuple[np.ndarray, comparison.Cost]:
    """(images, cost), timed when the network has seen the size before."""
    network, run = self.networks[caption], self._engines[caption]
    size = x.shape[1:3] if x.ndim == 4 else None
    if size and network.bound is not None and needed_bytes(
        network.module, network.takes, size) > memory_limit():
      run = Runner(network, {size: 1})  # in tiles
    if (caption, x.shape) not in self._costs:
      run(x)
      self._costs[caption, x.shape] = comparison.cost(network, size)
    start = time.perf_counter()
    images = run(x)
    return images, dataclasses.replace(self._costs[caption, x.shape], engine=run.name,
                                       seconds=time.perf_counter() - start)


def _engine(network, engine):
  if engine == 'auto' and network.bound is not None and jax.default_backend() == 'cpu':
    with contextlib.suppress(ImportError, ValueError):  # not installed, or no counterpart in ONNX
      return OnnxEngine(network)
    return JaxEngine(network)
  return choose_engine(network, {}, engine)


def _image(pixels) -> Image.Image:
  if pixels.dtype == np.uint16:
    pixels = (pixels / 257).round().astype(np.uint8)
  return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _sizes(file, shown, padded) -> str:
  """What was done to the picture before the networks got it; sizes are (width, height)."""
  height, width = size_of(file)
  text = f'{width:,} x {height:,} pixels'
  if (width, height) != shown:
    text += f', made smaller to {shown[0]:,} x {shown[1]:,}'
  if shown != padded:
    text += f', padded to {padded[0]:,} x {padded[1]:,} for the network'
  return text + '.'


def save_examples(folder: Path, takes) -> list[Path]:
  """Small pictures of installed packages, or scenes of labels, as files to begin with; none where
  the packages are not there, or the network has other labels or takes latents."""
  if takes.kind == 'latents' or (
      takes.kind == 'labels' and takes.classes != len(sample_images.CLASSES)):
    return []
  if takes.kind == 'labels':
    scenes = sample_images.Scenes('test', 256, 3)
    pictures = [Image.fromarray(scenes[i]['label_map'].squeeze()) for i in range(3)]
    for each in pictures:  # the palette is for the eye: a network takes the numbers
      each.putpalette(np.ravel([*sample_images.CLASSES.values()]).tolist())
  else:
    try:
      shipped = sample_images.pictures(sample_images.PHOTOGRAPHS)
    except (ImportError, FileNotFoundError):
      return []
    pictures = [Image.fromarray(each) for each in shipped[:5]]
    if takes.colors == 'rgb' or takes.channels == 1:  # it learned from grey pictures
      pictures = [each.convert('L') for each in pictures]
  names = [folder / f'example{i}.png' for i in range(1, len(pictures) + 1)]
  for name, each in zip(names, pictures, strict=True):
    if takes.kind == 'pictures':
      each.thumbnail((EXAMPLE_SIDE, EXAMPLE_SIDE))
    each.save(name)
  return names


def slider_pair(answer: Answer) -> tuple[Image.Image, Image.Image]:
  """Teacher and student, or the input and the image of the only network, of one size."""
  images = [*answer.images.values()]
  first = images[0] if len(images) > 1 else answer.input or images[0]
  second = images[min(1, len(images) - 1)]
  return first.convert('RGB').resize(second.size), second.convert('RGB')


def answered(demo: Demo, give: Callable[[], Answer]) -> list:
  """What the parts of the page show: a note, the slider, each image, and the costs, as HTML; a
  mistake is in the note."""
  labels = demo.takes.kind == 'labels'
  try:
    answer = give()
  except (ValueError, OSError, MemoryError) as e:
    said = html.escape(str(e) or 'there is not enough memory; give a smaller picture')
    return [f'<p class="wrong" role="alert">{said}</p>',
            *[None] * (2 + labels + len(demo.networks))]
  table = page('costs.html.jinja2', **costs_on_page(answer.costs, 'this machine'))
  return [f'<p role="status">{html.escape(answer.note)}</p>', *[answer.input] * labels,
          slider_pair(answer), *answer.images.values(), table]


CSS = """
h1 { font-size: 1.5rem; font-weight: 600; overflow-wrap: anywhere } .scroll { overflow-x: auto }
.costs { border-collapse: collapse; font-size: 14px } .costs .text { text-align: left }
.costs th, .costs td { padding: 5px 10px; text-align: right; border-bottom: 1px solid #8886 }
.costs td:first-child { font-weight: 600; overflow-wrap: anywhere }
.muted { opacity: .75; font-size: 13px } .costs .muted { display: block; font-size: 12px }
.wrong { border-left: 4px solid #dc2626; padding: .6rem .8rem; overflow-wrap: anywhere }
p.muted { margin-top: .5rem }
.costs td { white-space: nowrap } .costs td:first-child { white-space: normal }
@media (max-width: 40rem) { .costs { width: 100%; font-size: 12px }
  .scroll { margin: 0 -10px } .costs .muted { font-size: 11px }
  .costs th, .costs td { padding: 5px 2px } }
"""


def blocks(demo: Demo, examples: list[Path]):
  """The page, as Gradio's blocks."""
  gr = _gradio()
  kind, captions = demo.takes.kind, [*demo.networks]
  names = comparison.listed(captions)
  task = {'latents': 'Choose a seed', 'labels': 'Give a label map'}.get(kind, 'Give a picture')
  image = functools.partial(gr.Image, interactive=False, format='png', min_width=130,
                            buttons=['download', 'fullscreen'])
  text = functools.partial(gr.HTML, apply_default_css=False)
  with gr.Blocks(title=names, analytics_enabled=False, delete_cache=(600, 3600)) as made:
    text(f'<h1>{html.escape(names)}</h1><p>{task} and see what each network makes of it.</p>')
    with gr.Row():
      with gr.Column(scale=2, min_width=300):
        if kind == 'latents':
          given = gr.Slider(0, 9999, 0, step=1, label='seed')
        else:
          given = gr.Image(label='label map' if kind == 'labels' else 'picture', type='filepath',
                           image_mode=None, sources=['upload', 'webcam', 'clipboard'])
          # The file as it was given: Gradio would refuse some, turn others, and cut 16 bits to 8.
          given.preprocess = lambda payload: payload and payload.path
        note = text()
        coloured = [image(label='labels in colour')] if kind == 'labels' else []
        if examples:
          gr.Examples([[str(file)] for file in examples], given, label='or one of these')
      with gr.Column(scale=3, min_width=300):
        pair = ' | '.join(captions[:2] if len(captions) > 1 else ['input', *captions])
        slider = gr.ImageSlider(label=pair, interactive=False, format='png', max_height=700)
    with gr.Row():
      images = [image(label=caption) for caption in captions]
    outputs = [note, *coloured, slider, *images, text()]
    if kind == 'latents':
      answer = lambda seed: answered(demo, lambda: demo.of_latents(int(seed)))
    else:
      answer = lambda file: answered(demo, lambda: demo.of_picture(file)) if file else \
          [None] * len(outputs)
    # Of what changes while it computes, the last is computed next.
    gr.on([given.change, *[made.load] * (kind == 'latents')], answer, given, outputs,
          concurrency_limit=1, trigger_mode='always_last', show_progress='minimal',
          api_visibility='private')
  return made


class _NothingFromElsewhere:
  """Tells the browser to fetch from this machine alone, and to let no other page hold this one."""

  def __init__(self, app):
    self._app = app

  async def __call__(self, scope, receive, send):
    async def with_header(message):
      if message['type'] == 'http.response.start':
        message['headers'] = [*message['headers'], (b'content-security-policy', (
            b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
            b"frame-ancestors 'none'; form-action 'self'"))]
      await send(message)
    await self._app(scope, receive, with_header)


def serve(demo: Demo, host: str = '127.0.0.1', port: int | None = None, *,
          say: Callable[[str], None] = print):
  """Shows the page on this machine until Ctrl-C, one picture at a time; keeps no file.

  host: '127.0.0.1' is for this machine alone, '0.0.0.0' for all that reach it. port: 0: any that is
  free; None: the first that is free of 7860 and after.

  Raises ValueError for a port that is in use or a host that is not this machine's, and ImportError
  without Gradio.
  """
  port = free_port(host, port)
  with tempfile.TemporaryDirectory(prefix='jaxgan_demo_') as folder:
    os.environ |= {'GRADIO_ANALYTICS_ENABLED': 'False', 'GRADIO_TEMP_DIR': f'{folder}/given',
                   'HF_HUB_DISABLE_TELEMETRY': '1', 'GRADIO_SSR_MODE': 'False'}
    gr = _gradio()
    from starlette.middleware import Middleware  # pyright: ignore[reportMissingImports]
    (Path(folder) / 'examples').mkdir()
    made = blocks(demo, save_examples(Path(folder) / 'examples', demo.takes))
    made.queue(default_concurrency_limit=1, max_size=64)
    with _ended_by_sigterm():
      try:
        made.launch(server_name=host, server_port=port, share=False, quiet=True, ssr_mode=False,
                    prevent_thread_lock=True, inbrowser=False, max_file_size=LARGEST, css=CSS,
                    footer_links=[], allowed_paths=[], pwa=False, mcp_server=False,
                    theme=gr.themes.Default(font=['system-ui', 'sans-serif'],
                                            font_mono=['monospace']),
                    app_kwargs={'middleware': [Middleware(_NothingFromElsewhere)]})
        say(f'http://{f"[{host}]" if ":" in host else host}:{port}  (Ctrl-C ends it)')
        threading.Event().wait()
      finally:
        made.close(verbose=False)


@contextlib.contextmanager
def _ended_by_sigterm():
  """SIGTERM ends the program in order, so that no file is left behind."""
  def end(number, frame):
    raise SystemExit(128 + number)

  old = signal.signal(signal.SIGTERM, end)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, old)


def check_demo(host: str, port: int | None):
  """Raises what `serve` does, before a network is read."""
  _gradio()
  free_port(host, port)


def free_port(host: str, port: int | None) -> int:
  """The port given, or one that is free. Raises ValueError for one that is in use."""
  for tried in PORTS if port is None else [port]:
    with socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET) as listening:
      listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      try:
        listening.bind((host, tried))
      except (OSError, OverflowError) as e:
        if isinstance(e, OSError) and e.errno not in (errno.EADDRINUSE, errno.EACCES):
          raise ValueError(f'{host} is no address of this machine ({e}); 127.0.0.1 is for this '
                           'machine alone, 0.0.0.0 for all that reach it') from e
        continue
      return listening.getsockname()[1]
  if port is None:
    raise ValueError(f'no port of {PORTS[0]} to {PORTS[-1]} is free; give another')
  raise ValueError(f'port {port} is in use, or not allowed; give another, or 0 for a free one')


def _gradio():
  try:
    import gradio  # pyright: ignore[reportMissingImports]
  except ImportError as e:
    raise ImportError("the page needs Gradio: pip install 'jaxgan-compress[demo]'") from e
  return gradio
