"""A folder with a generator in formats for other programs, and the proof that they are equal."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import hashlib
import importlib.metadata
import inspect
import json
import os
import platform
import re
import shlex
import shutil
import tempfile
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from PIL import Image

from jaxgan_compress import analysis, nn
from jaxgan_compress._version import __version__
from jaxgan_compress.core import BoundGenerator, paths
from jaxgan_compress.core.xla import jit
from jaxgan_compress.data import decode, picture_files, picture_folders
from jaxgan_compress.export import litert, onnx, stablehlo
from jaxgan_compress.export.ncnn_runtime import run_ncnn
from jaxgan_compress.nn.files import arrays, ncnn, network

FORMATS = {'stablehlo': 'network.stablehlo', 'onnx': 'network.onnx', 'litert': 'network.tflite',
           'ncnn': 'network.param'}
WEIGHTS = {'network.param': 'network.bin'}  # beside an artefact, where they are not in it
DEFAULT = ('stablehlo', 'onnx')  # LiteRT needs TensorFlow
INT8 = {'onnx': 'network.int8.onnx', 'litert': 'network.int8.tflite'}
# The largest difference that is rounding, images in [-1, 1]. int8 rounds by design, and so do the
# float16 weights of ncnn: there the mean difference is bounded, for ncnn by half a step of 8 bits.
TOLERANCE, MEAN_INT8, MEAN_FLOAT16 = 1e-4, 0.1, 1 / 255
MEANS = {**dict.fromkeys(INT8.values(), MEAN_INT8), FORMATS['ncnn']: MEAN_FLOAT16}
RUNNER = Path(__file__).with_name('runner.py')
PROOF, EXAMPLES, INPUT = 'proof.json', 'examples.npz', 'input.json'
# The modules without JAX that read and write pictures, which the runner needs, too.
COPIED = (decode, picture_files, picture_folders)


class ExportError(ValueError):
  """An artefact computes other images than the network, cannot be read any more, or has been
  changed since its export."""


class _UnreadableError(ExportError):
  """An artefact that this version of JAX does not read."""


def write_folder(generator: BoundGenerator, out: str | Path, inputs: Sequence[np.ndarray], *,
                 to: Sequence[str] = DEFAULT, layout: str = 'NHWC',
                 calibration: np.ndarray | None = None, facts: Mapping[str, Any] | None = None,
                 pictures: np.ndarray | None = None, labels: Mapping[str, Any] | None = None,
                 colors: str = 'input', bits: int | None = None,
                 tolerance: float = TOLERANCE, notice: str = '', overwrite: bool = False
                 ) -> dict[str, Any]:
  """Writes a generator in every format asked for, with all that its user needs; returns the proof.

  generator: it, with float32 weights; factors are merged into it. inputs: batches [B,H,W,C] in
  [-1, 1] (or one-hot, or [B,latent]) on which every artefact is compared with the network; give
  several sizes, if it takes them. to: keys of `FORMATS`. layout: 'NHWC' or 'NCHW', of ONNX images;
  those of LiteRT are NHWC.
  calibration: inputs from which an additional int8 ONNX network takes its ranges; an additional
  8-bit LiteRT network finds its own. None: neither is written. facts: lines for the model card.
  pictures: the first inputs as images, where they are none themselves. labels: for inputs that are
  label maps, the planes as `decode.label_planes` takes them: {'classes', and perhaps 'dont_care'
  and 'edges'}; without it whoever runs the network has to say. bits: for inputs that are pictures
  of any number of channels, 8 or 16, with which their files are read; without it inputs of 1 and 3
  channels are pictures of 8 bits. colors: 'rgb' for a network that paints grey pictures in colour;
  else what it makes of a grey picture stays grey. tolerance: the largest error of float32
  artefacts; instance norms of maps of a few pixels may amplify rounding beyond the default.
  notice: what whoever passes the weights on has to say, see `network.notice_of`: it stands in the
  model card, in the proof and in network.safetensors.

  network.safetensors        weights and architecture, for `nn.load`
  network.onnx, .stablehlo   for others; architecture.json: what `nn.files.network` can build
  network.tflite             for LiteRT
  network.param, .bin        for ncnn, weights in float16, images in [0, 1]: upscalers alone
  run_onnx.py                generates with ONNX Runtime and without JAX
  input.json, decode.py ...  what it takes, and the code by which training reads files and these do
  examples.npz               the inputs, and what the network made of them; samples.png shows them
  proof.json                 of each artefact the largest and mean error on these, its size,
                             checksum and milliseconds for one input on this device; what
                             `stablehlo.lifetime` says of an artefact that expires
  README.md                  the model card

  The folder is there whole or not at all. Raises ExportError if an artefact generates something
  else than the network, ValueError for unknown formats and for modules and operations without
  counterpart, FileExistsError if the folder is there (overwrite: and no export), ImportError
  without the extra 'export', for LiteRT 'tf', OSError for a full disk.
  """
  out = paths.expand(out)
  formats = _checked_formats(to, out, overwrite, calibration is not None, generator)
  module, variables = nn.merged(generator.module, generator.variables)
  variables = jax.device_get(variables)
  inputs = _of_one_size(module, inputs, to)
  takes = _takes(module, inputs[0].shape, labels, layout, bits)
  if 'dtype' in _fields(module):
    module = module.clone(dtype=np.float32)
  apply = jit(lambda variables, x: module.apply(variables, x, train=False)[0])
  images = [np.asarray(apply(variables, x)) for x in inputs]
  if takes['kind'] != 'latents':
    takes.update(outputs=images[0].shape[-1], scale=images[0].shape[1] / inputs[0].shape[1],
                 colors=colors)
  out.absolute().parent.mkdir(parents=True, exist_ok=True)
  with _whole(out) as part:
    _save(part, module, variables, notice)
    examples: dict[str, Any] = {f'input{i}': x for i, x in enumerate(inputs)} | {
        f'image{i}': y for i, y in enumerate(images)}
    np.savez_compressed(part / EXAMPLES, **examples)
    artefacts = _write_artefacts(part, module, variables, inputs[0].shape, formats, layout,
                                 calibration)
    one, today = inputs[0][:1], datetime.datetime.now(datetime.UTC).date()
    proof = {
        'network': network.spell(module), 'params': analysis.count_params(variables),
        'macs': analysis.macs(module, one.shape), 'input': takes['kind'], 'layout': layout,
        'tolerance': tolerance, 'ms_jax': _milliseconds(lambda: apply(variables, one)),
        'device': _device(), 'versions': _versions(), 'written': today.isoformat(),
        'expires': {name: stablehlo.lifetime(today) for name in artefacts
                    if name == FORMATS['stablehlo']},
        'facts': dict(facts or {}), 'notice': notice,
        'artefacts': {name: _prove(part / name, inputs, images, layout, tolerance)
                      for name in artefacts}}
    _write_instructions(part, proof, takes, _picture_of(inputs[0], pictures, images[0], takes),
                        images[0])
    proof['sha256'] = {path.name: _sha256(path) for path in sorted(part.iterdir())}
    (part / PROOF).write_text(json.dumps(proof, indent=1))
  return proof


def verify(folder: str | Path) -> dict[str, dict[str, float]]:
  """Proves an export anew on this device; returns {artefact: errors, size and milliseconds}.

  Raises FileNotFoundError for a folder without an export, and ExportError for a file that has been
  changed, is missing, cannot be read by this version of JAX, or computes other images here.
  """
  folder = paths.expand(folder)
  if not (folder / PROOF).is_file():
    raise FileNotFoundError(f'{folder} holds no export (no {PROOF})')
  try:
    proof = json.loads((folder / PROOF).read_text())
    sums, layout, artefacts = proof['sha256'], proof['layout'], proof['artefacts']
    tolerance = float(proof['tolerance'])
  except (ValueError, KeyError, TypeError) as e:
    raise ExportError(f'{folder / PROOF} has been changed ({e}); export again') from e
  for name, expected in sums.items():
    if not (folder / name).is_file():
      raise ExportError(f'{folder / name} is missing; export again')
    if _sha256(folder / name) != expected:
      raise ExportError(f'{folder / name} is not what was exported (its checksum differs); export '
                        'again')
  with np.load(folder / EXAMPLES) as stored:
    count = len(stored.files) // 2
    inputs = [stored[f'input{i}'] for i in range(count)]
    images = [stored[f'image{i}'] for i in range(count)]
  try:
    return {name: _prove(folder / name, inputs, images, layout, tolerance) for name in artefacts}
  except _UnreadableError as e:
    raise ExportError(f'{e}. {_export_again(folder, proof, inputs[0].shape)}') from e


def _export_again(folder, proof, shape) -> str:
  """What to do about an artefact that expired."""
  writer = proof.get('versions', {}).get('jax', 'of its export')
  done = (f'It was written by jax {writer}, and JAX promises to read what releases up to '
          f'{stablehlo.MONTHS_NEWER} months older or {stablehlo.WEEKS_OLDER} weeks newer wrote. '
          f'Install jax {writer}, or export again from its weights, which do not expire: ')
  weights = folder / 'network.safetensors'
  if not (folder / 'architecture.json').is_file():
    return f'{done}export.write_folder(...) of your network with the arrays of {weights}'
  takes = json.loads((folder / INPUT).read_text()) if (folder / INPUT).is_file() else {}
  options = f' --size={shape[1]}x{shape[2]}' * (len(shape) == 4)
  options += f' --bits={takes.get("bits")}' * ('bits' in takes)
  return (f'{done}jaxgan-compress export --network={shlex.quote(str(weights))}{options} '
          '--to=stablehlo --output=NEW_FOLDER')


def _checked_formats(to, out, overwrite, int8, generator) -> tuple[str, ...]:
  """The formats asked for, before any work is done."""
  formats = tuple(to)
  if not formats or not FORMATS.keys() >= set(formats):
    raise ValueError(f'to={", ".join(formats) or "nothing"}; some of {", ".join(FORMATS)}')
  if int8 and not INT8.keys() & set(formats):
    raise ValueError(f'int8 is there for {" and ".join(INT8)}; add one of them to the formats')
  if out.exists() and not overwrite:
    raise FileExistsError(f'{out} is there; use another folder or overwrite it')
  if out.exists() and not (out / PROOF).is_file():
    raise FileExistsError(f'{out} is no export, so it is not overwritten; use another folder')
  if 'litert' in formats:
    litert.package()
  if 'ncnn' in formats:
    ncnn.graph(nn.plain(generator.module))  # raises for any other network than an upscaler
  return formats


def _fields(module) -> set[str]:
  return {field.name for field in dataclasses.fields(module)}


def _write_artefacts(folder, module, variables, shape, formats, layout, calibration) -> list[str]:
  """The files of all formats, with those in 8 bits after the others."""
  write = {
      'stablehlo': lambda: stablehlo.to_stablehlo(module, variables, shape),
      'onnx': lambda: onnx.to_onnx(module, variables, shape, layout).SerializeToString(),
      'litert': lambda: litert.to_litert(module, variables, shape)}
  for name in formats:
    if name == 'ncnn':
      ncnn.write(folder / FORMATS[name], module, variables)
    else:
      (folder / FORMATS[name]).write_bytes(write[name]())
  coarse = [] if calibration is None else [name for name in INT8 if name in formats]
  if 'onnx' in coarse:
    _quantize(folder / FORMATS['onnx'], folder / INT8['onnx'], _as_layout(calibration, layout))
  if 'litert' in coarse:
    (folder / INT8['litert']).write_bytes(litert.to_litert(module, variables, shape, int8=True))
  return [*(FORMATS[name] for name in formats), *(INT8[name] for name in coarse)]


def _write_instructions(folder, proof, takes, above, images):
  """What a person or a program needs to know and to run. above: inputs as images, or None."""
  rows = [images] if above is None else [above, images]
  Image.fromarray(analysis.contact_sheet(rows)).save(folder / 'samples.png')
  if FORMATS['onnx'] in proof['artefacts']:
    (folder / 'run_onnx.py').write_text(RUNNER.read_text())
  (folder / INPUT).write_text(json.dumps(takes, indent=1))
  if takes['kind'] != 'latents':
    for module in COPIED:
      (folder / f'{_name(module)}.py').write_text(_stand_alone(inspect.getsource(module)))
  (folder / 'README.md').write_text(_card(
      proof, takes, above is not None, _expiry(proof, (folder / 'architecture.json').is_file())))


def _name(module) -> str:
  return module.__name__.rpartition('.')[2]


def _stand_alone(source: str) -> str:
  """A module of `COPIED` that imports the others from its own folder."""
  return re.sub(r'^from jaxgan_compress\.data import (.*)$', r'import \1', source, flags=re.M)


def _save(folder, module, variables, notice):
  try:
    described = network.describe(module)
  except ValueError:  # a network of its user's, whose code is elsewhere
    flat = traverse_util.flatten_dict(dict(variables), sep='/')
    arrays.write(folder / 'network.safetensors', {k: np.asarray(x) for k, x in flat.items()},
                 {'notice': notice} if notice else None)
    return
  nn.save(folder / 'network.safetensors', module, variables, notice=notice)
  (folder / 'architecture.json').write_text(json.dumps(described, indent=1))


@contextlib.contextmanager
def _whole(out):
  """A folder that takes the place of `out` at the end, or is removed after an error."""
  part = Path(tempfile.mkdtemp(prefix=f'.{out.name}.', dir=out.absolute().parent))
  try:
    yield part
    part.chmod(0o755)
    if out.exists():
      before = part.with_name(f'{part.name}.before')
      out.rename(before)
      part.rename(out)
      shutil.rmtree(before)
    else:
      part.rename(out)
  finally:
    shutil.rmtree(part, ignore_errors=True)


def _of_one_size(module, inputs, to):
  """The inputs, or of a pruned network that runs as a program, whose shapes are numbers, one alone.
  Raises ValueError where it is to be in a format that has to take other sizes."""
  if not isinstance(module, nn.Wrapped) or not module.kept or module.execution != 'program':
    return inputs
  if more := [name for name in to if name != 'onnx']:
    raise ValueError(f'what is left of this {type(module.network).__name__} runs as a program of '
                     f'one size, and {", ".join(more)} takes any; export it to onnx alone')
  return [inputs[0][:1]]


def _prove(path, inputs, images, layout, tolerance):
  """Errors on the examples, size and time of an artefact, loaded from its file."""
  run = _load(path, layout)
  # One by one, for they have several sizes.
  errors = [np.abs(np.asarray(run(x), np.float64) - y) for x, y in zip(inputs, images, strict=True)]
  largest = max(float(x.max()) for x in errors)
  mean = float(np.mean([x.mean() for x in errors]))
  within = mean <= MEANS[path.name] if path.name in MEANS else largest <= tolerance
  if not within:  # also for NaN
    raise ExportError(f'{path.name} generates something else than the network: images in [-1, 1] '
                      f'are off by {largest:.2g} at most and {mean:.2g} on average; nothing was '
                      'kept')
  one = inputs[0][:1]
  files = {path, path.with_name(WEIGHTS.get(path.name, path.name))}
  return {'max_error': largest, 'mean_error': mean, 'bytes': sum(x.stat().st_size for x in files),
          'ms': _milliseconds(lambda: run(one)),
          'shapes': [list(x.shape) for x in inputs]}


def _load(path, layout) -> Callable[[np.ndarray], np.ndarray]:
  if path.suffix == '.stablehlo':
    import jax.export
    with _readable(path):
      call = jax.jit(jax.export.deserialize(bytearray(path.read_bytes())).call)

    @functools.cache
    def check(shape):
      with _readable(path):  # the StableHLO inside is read by the first call alone
        call.lower(jax.ShapeDtypeStruct(shape, np.float32))

    def run_stablehlo(x):
      check(x.shape)
      return np.asarray(call(x))

    return run_stablehlo
  if path.suffix == '.tflite':
    return litert.run_litert(path.read_bytes())
  if path.suffix == '.param':
    return run_ncnn(path)
  run = onnx.run_onnx(path.read_bytes())
  if layout == 'NHWC':
    return run
  return lambda x: run(_as_layout(x, layout)).transpose(0, 2, 3, 1)


@contextlib.contextmanager
def _readable(path):
  """Errors of JAX, of whatever type, as the one that says which file it does not read."""
  try:
    yield
  except (MemoryError, ImportError):
    raise
  except Exception as e:  # struct.error, AttributeError, ValueError, JaxRuntimeError and others
    raise _UnreadableError(f'{path} cannot be read by jax {jax.__version__} '
                           f'({type(e).__name__}: {e})') from e


def _as_layout(x, layout):
  x = np.asarray(x, np.float32)
  return np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if layout == 'NCHW' and x.ndim == 4 else x


def _quantize(source, target, inputs):
  """Static, per channel, weights and activations in 8 bits, ranges from the inputs."""
  from onnxruntime import quantization

  class Reader(quantization.CalibrationDataReader):
    def __init__(self):
      self.left = iter(inputs)

    def get_next(self) -> Any:
      x = next(self.left, None)
      return None if x is None else {'input': x[None]}

  quantization.quantize_static(str(source), str(target), Reader(), per_channel=True,
                               quant_format=quantization.QuantFormat.QDQ,
                               op_types_to_quantize=['Conv', 'ConvTranspose', 'MatMul', 'Add'])


def _milliseconds(call):
  return 1e3 * analysis.latency({'': call}, rounds=15, warmup=1)[''].median


def _device():
  device = jax.devices()[0]
  return f'{device.platform} {device.device_kind}, {os.cpu_count()} CPU cores'


def _versions():
  versions = {'python': platform.python_version(), 'jaxgan-compress': __version__}
  for name in ('jax', 'flax', 'onnx', 'onnxruntime', 'tensorflow-cpu', 'ai-edge-litert', 'ncnn'):
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      versions[name] = importlib.metadata.version(name)
  return versions


def _sha256(path):
  return hashlib.sha256(path.read_bytes()).hexdigest()


def _picture_of(x, pictures, outputs, takes):
  """Inputs as images to show above the outputs, or None for latents and other sizes."""
  if pictures is None:
    pictures = x if takes['kind'] == 'pictures' else None
  if pictures is None or np.shape(pictures)[1:3] != outputs.shape[1:3]:
    return None
  return np.asarray(pictures)[:len(x)]


def _takes(module, shape, labels, layout, bits):
  """What a network takes, for `runner.py` and other programs. Raises ValueError for labels that
  make another number of planes, and other bits than 8 and 16."""
  if bits not in (None, 8, 16):
    raise ValueError(f'bits={bits!r}; 8 or 16, of the pictures that the network takes')
  takes = {'kind': 'latents', 'channels': shape[-1], 'layout': layout}
  if len(shape) == 2:
    return takes
  step, least = stablehlo.sides(module)
  takes.update(kind='pictures', multiple=step, smallest=least, shown=list(shape[1:3]))
  if labels is None and (bits or shape[-1] in (1, 3)) and 'labels' not in _fields(module):
    return {**takes, 'bits': bits or 8}
  known: dict[str, Any] = dict.fromkeys(('classes', 'dont_care', 'edges')) if labels is None else \
      {'dont_care': False, 'edges': True, **labels}
  if labels is not None and sum(known.values()) != shape[-1]:
    raise ValueError(f'labels={dict(labels)} make {sum(known.values())} planes, and the network '
                     f'takes {shape[-1]}')
  return {**takes, 'kind': 'labels', **known}


def _pictures_in_words(channels, bits, sizes):
  kind = {1: 'grey pictures', 2: 'pictures of grey and alpha', 3: 'RGB pictures',
          4: 'RGBA pictures'}.get(channels, f'pictures of {channels} planes')
  number, unit = ('a byte', '127.5') if bits == 8 else ('a number of 16 bits', '32767.5')
  file = 'photograph.png' if channels <= 4 else 'planes.npy'
  return (f'{kind} in [-1, 1] ({number} / {unit} - 1), of {sizes}', f'{file} generated.png',
          f"x = decode.decode_image(open('{file}', 'rb').read(), {channels}"
          f"{', bits=16' * (bits == 16)})[None]\n"
          f'x = x.astype(np.float32) / {unit} - 1')


def _in_words(takes):
  """(what it takes, how the runner is called, how Python makes an input) for the model card."""
  if takes['kind'] == 'latents':
    return (f'{takes["channels"]} numbers, N(0, 1)', '7 generated.png',
            f'x = np.random.default_rng(7).standard_normal((1, {takes["channels"]}), np.float32)')
  sizes = f'heights and widths that are multiples of {takes["multiple"]} from {takes["smallest"]}'
  if takes['kind'] == 'pictures':
    return _pictures_in_words(takes['channels'], takes['bits'], sizes)
  planes = f'label maps as {takes["channels"]} planes of 0 and 1, of {sizes}'
  usage, classes, dont_care, edges = 'labels.png generated.png', *(
      takes[name] for name in ('classes', 'dont_care', 'edges'))
  rule = 'the instance of a pixel (its label, without an instance map) differs from a neighbour\'s'
  if classes is None:
    planes += f'; `--edges` says that the last has 1 where {rule}, `--no-edges` that it is a label'
    usage, classes, edges = f'{usage} --edges', takes['channels'] - 1, True
  else:
    planes += f': one for each label from 0 to {classes - 1}' + ', one for 255' * dont_care
    planes += f', and the last has 1 where {rule}' * edges
  usage += ' --instances=instances.png' * edges
  read = "decode.decode_labels(open('{}.png', 'rb').read())".format
  return (planes, usage, f"""\
labels = {read('labels')}
instances = {read('instances') + '    # or None' if edges else None}
x = decode.label_planes(labels, instances, classes={classes}, dont_care={bool(dont_care)},
                        edges={edges})[None]""")


# How the model card reads a file with the libraries of its format alone.
_ALONE = {'stablehlo': '''\
import jax.export                                             # JAX alone
image = jax.export.deserialize(bytearray(open('network.stablehlo', 'rb').read())).call(x)
''', 'litert': '''\
from ai_edge_litert.interpreter import Interpreter            # LiteRT alone, images as NHWC
network = Interpreter('network.tflite')
source, output = network.get_input_details()[0], network.get_output_details()[0]
network.resize_tensor_input(source['index'], x.shape)          # of any batch and size
network.allocate_tensors()
network.set_tensor(source['index'], x)
network.invoke()
image = network.get_tensor(output['index'])
''', 'ncnn': '''\
import ncnn                                                   # ncnn alone: one picture in [0, 1]
network = ncnn.Net()
network.load_param('network.param'), network.load_model('network.bin')
extractor = network.create_extractor()
planes = np.ascontiguousarray((x[0].transpose(2, 0, 1) + 1) / 2)
extractor.input('data', ncnn.Mat(planes))
image = 2 * np.array(extractor.extract('output')[1]).transpose(1, 2, 0)[None] - 1
'''}


def _expiry(proof, described: bool) -> str:
  """How long each artefact can be read, where one expires; described: in architecture.json."""
  name = FORMATS['stablehlo']
  if name not in proof['expires']:
    return ''
  expires, others = proof['expires'][name], [
      f'`{FORMATS[kind]}` ({why})' for kind, why in _LASTING.items()
      if FORMATS[kind] in proof['artefacts']]
  weights = '`network.safetensors`' + ' with `architecture.json`' * described
  again = 'jaxgan-compress export --network' if described else 'export.write_folder'
  return '\n' + textwrap.fill(
      f'`{name}` expires. jax {expires["jax"]} with jaxlib {expires["jaxlib"]} wrote it on '
      f'{proof["written"]}. JAX promises to run it with releases up to {expires["months_newer"]} '
      f'months newer or {expires["weeks_older"]} weeks older than that jaxlib, by the days on '
      f'which they were built; so none after {expires["no_promise_after"]} promises to. The '
      'versions that wrote it read it for good. The StableHLO inside is a portable artifact, which '
      'StableHLO promises to read for five years, but not what jax.export wraps it in. What does '
      f'not expire: {"; ".join([weights, *others])}. From these weights `{again}` writes it anew.',
      100, break_on_hyphens=False) + '\n'


# Why other artefacts can be read by later programs.
_LASTING = {
    'onnx': f'operator set {onnx.OPSET}; ONNX Runtime reads all from 7 on',
    'litert': 'new versions of LiteRT read old files',
    'ncnn': 'a graph as text, and float16 weights'}


def _card(proof, takes, from_images, expiry):
  artefacts = proof['artefacts']
  rows = ''.join(
      f'| `{name}` | {row["bytes"] / 1e6:.2f} MB | {row["max_error"]:.1e} | '
      f'{row["mean_error"]:.1e} | {row["ms"]:.2f} |\n' for name, row in artefacts.items())
  facts = ''.join(f'- {name}: {value}\n' for name, value in proof['facts'].items())
  shapes = ', '.join('x'.join(map(str, shape))
                     for shape in next(iter(artefacts.values()))['shapes'])
  caption = 'inputs above, outputs below' if from_images else 'outputs'
  alone = ''.join(text for name, text in _ALONE.items() if FORMATS[name] in artefacts)
  taken, usage, make_x = _in_words(takes)
  larger = f'{takes["scale"]:.12g} times larger ' if takes.get('scale', 1) != 1 else ''
  taken = textwrap.fill(
      f'It takes {taken}. It makes images {larger}in [-1, 1], and takes any batch, float32, as '
      f'NHWC, in ONNX as {proof["layout"]}. `{INPUT}` says so to programs.', 100)
  notice = ''.join(f'{line}. Its notices and disclaimer go with the weights.\n\n'
                   for line in proof['notice'].splitlines())
  without_jax = f'Without JAX: `python run_onnx.py {usage}`, see `--help`. ' \
      if FORMATS['onnx'] in artefacts else ''
  imports = '' if takes['kind'] == 'latents' else \
      'import decode                                                 # the file next to this one\n'
  return f"""# A generator in {len(artefacts)} format{'s'[:len(artefacts) > 1]}

![{caption}](samples.png)

`{proof['network']}`: {proof['params']:,} parameters, {proof['macs']:,} multiply-accumulates for an
input of the first size below. {taken}

{facts}
| file | size | largest error | mean error | ms |
|---|--:|--:|--:|--:|
{rows}
Errors are differences to the network in Flax, images in [-1, 1], on the inputs of `examples.npz`
({shapes}); milliseconds are the median for one input on {proof['device']}, where the network in JAX
takes {proof['ms_jax']:.2f}. `jaxgan-compress export --verify=.` measures all of it again.
{expiry}
```python
import numpy as np
{imports}{make_x}

from jaxgan_compress import nn                                # Flax: train on, prune, distil
module, variables = nn.load('network.safetensors')
{alone}```

{notice}{without_jax}Say here what the data was and what others may do with the weights.
"""
