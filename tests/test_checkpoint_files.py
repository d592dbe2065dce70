"""Weights in files: what PyTorch recorded is read, and what is hostile or broken is refused."""

import argparse
import collections
import copyreg
import datetime
import os
import pathlib
import pickle
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from jaxgan_compress.nn.files import arrays as files

GOLDEN = Path(__file__).parent / 'golden'
FORMATS = ('zip', 'stream')


# A pickle assembled by hand may hold what no pickler would write.
def name(module, attribute):
  return f'c{module}\n{attribute}\n'.encode()


def stack_name(module, attribute):
  return text(module) + text(attribute) + b'\x93'


def text(x):
  return b'X' + len(x.encode()).to_bytes(4, 'little') + x.encode()


def number(n):
  return b'J' + n.to_bytes(4, 'little', signed=True)


def several(*items):
  return b'(' + b''.join(items) + b't'


def call(function, *args):
  return function + several(*args) + b'R'


def mapping(**items):
  return b'}(' + b''.join(text(key) + x for key, x in items.items()) + b'u'


def storage(key='0', kind='Float', count=6, *view):
  return several(text('storage'), name('torch', f'{kind}Storage'), text(key), text('cpu'),
                 number(count), *view) + b'Q'


def tensor(shape=(2, 3), strides=(3, 1), offset=0, of=None, *more):
  return call(name('torch._utils', '_rebuild_tensor_v2'), of or storage(), number(offset),
              several(*map(number, shape)), several(*map(number, strides)), b'\x89',
              call(name('collections', 'OrderedDict')), *more)


def ordered(**items):
  return (call(name('collections', 'OrderedDict')) + b'('
          + b''.join(text(key) + x for key, x in items.items()) + b'u')


def saved(path, form, body, storages=None, little=True):
  """A file of torch.save. storages: {key: array}; without, six floats."""
  storages = {'0': np.arange(6, dtype='f4')} if storages is None else storages
  pickled = b'\x80\x04' + body + b'.'
  if form == 'zip':
    with zipfile.ZipFile(path, 'w') as archive:
      archive.writestr('G/data.pkl', pickled)
      archive.writestr('G/byteorder', 'little' if little else 'big')
      for key, x in storages.items():
        archive.writestr(f'G/data/{key}', x.tobytes())
  else:
    head = [0x1950a86a20f9469cfc6c, 1001, {'little_endian': little, 'protocol_version': 1001}]
    path.write_bytes(b''.join(pickle.dumps(x, 2) for x in head) + pickled
                     + pickle.dumps(list(storages), 2)
                     + b''.join(len(x).to_bytes(8, 'little') + x.tobytes()
                                for x in storages.values()))
  return path


def same(a, b):
  return list(a) == list(b) and all(
      a[k].dtype == b[k].dtype and a[k].shape == b[k].shape and a[k].tobytes() == b[k].tobytes()
      for k in a)


def expected():
  """The arrays of golden/record_torch_files.py."""
  def ramp(i, *shape):
    return np.arange(np.prod(shape), dtype='f4').reshape(shape) / 8 - i

  base = np.arange(24, dtype='f4').reshape(4, 6)
  return {
      'conv.weight': ramp(0, 3, 2, 2, 2), 'conv.bias': ramp(1, 3), 'bn.weight': ramp(2, 3),
      'bn.bias': ramp(3, 3), 'bn.running_mean': ramp(4, 3), 'bn.running_var': ramp(5, 3),
      'bn.num_batches_tracked': np.array(7), 'transposed': base.T, 'sliced': base[1:3, 2:6:2],
      'half': np.arange(5, dtype='f2') / 4,
      'bfloat16': (np.arange(6, dtype='f4') / 2 - 1).reshape(2, 3).astype(ml_dtypes.bfloat16),
      'double': np.arange(3) / 3, 'bool': np.arange(4) % 2 == 0,
      'uint8': np.arange(3, dtype='u1'), 'parameter': np.arange(2, dtype='f4'),
      'expanded': np.full((3, 2), 2.5, 'f4'), 'empty': np.zeros((0, 3), 'f4')}


@pytest.mark.parametrize('form', FORMATS)
def test_what_pytorch_wrote_is_read(form):
  state, wanted = files.read(GOLDEN / f'torch_{form}.pth'), expected()
  assert list(state) == list(wanted)
  for key, x in state.items():
    assert x.dtype == wanted[key].dtype, key
    np.testing.assert_array_equal(x, wanted[key], err_msg=key)
    assert x.flags.c_contiguous and x.flags.writeable and x.base is None, key


def test_the_content_decides_and_not_the_name(tmp_path):
  for kind in ('zip', 'stream'):
    file = tmp_path / f'{kind}.npz'
    file.write_bytes((GOLDEN / f'torch_{kind}.pth').read_bytes())
    assert same(files.read(file), expected())
  np.savez(tmp_path / 'a.npz', x=np.eye(2))
  (tmp_path / 'a.npz').rename(tmp_path / 'a.pth')
  files.write(tmp_path / 'b.pt', {'x': np.eye(2)})
  assert same(files.read(tmp_path / 'a.pth'), {'x': np.eye(2)})
  assert same(files.read(tmp_path / 'b.pt'), {'x': np.eye(2)})


@pytest.mark.parametrize('form', FORMATS)
@pytest.mark.parametrize(('kind', 'dtype'), [
    ('Float', 'f4'), ('Double', 'f8'), ('Half', 'f2'), ('BFloat16', ml_dtypes.bfloat16),
    ('Long', 'i8'), ('Int', 'i4'), ('Short', 'i2'), ('Char', 'i1'), ('Byte', 'u1'), ('Bool', '?')])
def test_each_storage_keeps_its_dtype(form, kind, dtype, tmp_path):
  values = np.array([0, 1, 1, 0, 1, 0], dtype)
  file = saved(tmp_path / 'G.pth', form, mapping(x=tensor(of=storage(kind=kind))), {'0': values})
  assert same(files.read(file), {'x': values.reshape(2, 3)})


@pytest.mark.parametrize('form', FORMATS)
def test_older_names_and_shapes_of_pytorch_are_read(form, tmp_path):
  old = call(name('torch._utils', '_rebuild_tensor'), storage('0', 'Float', 6, b'N'), number(1),
             call(name('torch', 'Size'), several(number(2))), several(number(4)))
  file = saved(tmp_path / 'G.pth', form, ordered(x=old))
  assert same(files.read(file), {'x': np.array([1, 5], 'f4')})


@pytest.mark.parametrize('form', FORMATS)
@pytest.mark.parametrize(('body', 'named'), [
    (lambda mark: call(name('os', 'system'), text(f'touch {mark}')), r'os\.system'),
    (lambda mark: call(name('posix', 'system'), text(f'touch {mark}')), r'posix\.system'),
    (lambda mark: call(stack_name('builtins', 'eval'), text(f'open({str(mark)!r}, "w")')),
     r'builtins\.eval'),
    (lambda mark: call(name('builtins', 'getattr'), name('collections', 'OrderedDict'),
                       text('fromkeys')), r'builtins\.getattr'),
    (lambda mark: stack_name('collections', 'OrderedDict.fromkeys'), r'OrderedDict\.fromkeys'),
    (lambda mark: stack_name('torch._utils', '_rebuild_tensor_v2.__globals__'),
     r'_rebuild_tensor_v2\.__globals__'),
    (lambda mark: name('jaxgan_compress.nn.files.arrays', 'os.system'), r'arrays\.os\.system'),
    (lambda mark: b'(' + text(f'touch {mark}') + b'ios\nsystem\n', r'os\.system'),
    (lambda mark: b'(' + name('os', 'system') + text(f'touch {mark}') + b'o', r'os\.system'),
    (lambda mark: name('subprocess', 'Popen') + several(text('touch')) + b'\x81',
     r'subprocess\.Popen'),
    (lambda mark: b'\x82\xf0', 'extension 240'),
    (lambda mark: call(name('torch.storage', '_load_from_bytes'), text('')),
     r'torch\.storage\._load_from_bytes')])
def test_code_is_refused_by_name_and_not_run(form, body, named, tmp_path, monkeypatch):
  monkeypatch.setitem(copyreg._extension_cache, 240, os.system)
  file = saved(tmp_path / 'G.pth', form, mapping(a=tensor(), x=body(tmp_path / 'mark')))
  with pytest.raises(ValueError, match=rf'G\.pth holds pickled code \(.*{named}\), which is never '
                     r'run; .* torch\.save\(model\.state_dict\(\), path\)'):
    files.read(file)
  assert not (tmp_path / 'mark').exists()


def test_code_in_every_pickle_of_a_stream_is_refused(tmp_path):
  evil = b'\x80\x02' + call(name('os', 'system'), text(f'touch {tmp_path / "mark"}')) + b'.'
  data = saved(tmp_path / 'G.pth', 'stream', mapping(x=tensor())).read_bytes()
  ends = [0]
  for _ in range(4):
    ends.append(files._unpickled(data, ends[-1])[2])
  for end in ends:
    (tmp_path / 'evil.pth').write_bytes(data[:end] + evil)
    with pytest.raises(ValueError, match=r'pickled code \(os\.system\)'):
      files.read(tmp_path / 'evil.pth')
  assert not (tmp_path / 'mark').exists()


def test_a_whole_model_and_a_plain_pickle_are_told_apart(tmp_path):
  model = name('torch.nn.modules.container', 'Sequential') + b')\x81'
  with pytest.raises(ValueError, match=r'is a whole model: it holds pickled code \(torch\.nn\.mod'):
    files.read(saved(tmp_path / 'G.pth', 'zip', model))
  (tmp_path / 'G.pkl').write_bytes(pickle.dumps({'x': 1}))
  with pytest.raises(ValueError, match=r'G\.pkl is a pickle, but not of torch\.save'):
    files.read(tmp_path / 'G.pkl')


@pytest.mark.parametrize('form', FORMATS)
def test_build_changes_nothing_that_is_used(form, tmp_path):
  state = mapping(items=name('torch', 'Size'), keys=name('torch', 'Size'), _metadata=b'}')
  file = saved(tmp_path / 'G.pth', form, ordered(x=tensor()) + state + b'b')
  assert same(files.read(file), {'x': np.arange(6, dtype='f4').reshape(2, 3)})
  # A function with other defaults or attributes would outlive this file.
  before = files._tensor.__defaults__, dict(vars(files._tensor))
  for change in (mapping(mark=b'\x88'),
                 several(b'N', mapping(__defaults__=several(b'N'), mark=b'\x88'))):
    changed = name('torch._utils', '_rebuild_tensor_v2') + change + b'b0'
    files.read(saved(tmp_path / 'G.pth', form, changed + mapping(x=tensor())))
  assert before == (files._tensor.__defaults__, vars(files._tensor))
  for built in (tensor() + several(b'N', mapping(offset=number(9))) + b'b',
                tensor(of=storage() + several(b'N', mapping(count=number(9))) + b'b')):
    with pytest.raises(ValueError, match='damaged'):
      files.read(saved(tmp_path / 'G.pth', form, mapping(x=built)))


@pytest.mark.parametrize('form', FORMATS)
@pytest.mark.parametrize('protocol', [2, 5])
def test_what_stands_beside_weights_and_is_no_code_is_no_obstacle(form, protocol, tmp_path):
  """As any pickler writes it, in Python 2's names too; it is kept as a name, never made."""
  beside = {
      'best': np.float64(3), 'step': np.int32(3), 'flag': np.bool_(True), 'array': np.arange(3.),
      'names': np.array(['a']), 'dtype': np.dtype('f4'), 'at': datetime.datetime(2024, 1, 1),
      'path': pathlib.PurePosixPath('/a/b'), 'set': {1, 2}, 'frozen': frozenset([1]), 'j': 1j,
      'options': argparse.Namespace(lr=1, sizes=[1]), 'counts': collections.Counter('aab'),
      'lists': collections.defaultdict(list, a=[1]), 'queue': collections.deque([1]),
      'bytes': b'12', 'more': bytearray(b'12'), 'part': slice(1, 2), 'range': range(3),
      'ordered': collections.OrderedDict(a=1), 'kind': float, 'numpy': np.random.get_state()}
  fragments = {key: pickle.dumps(x, protocol)[2:-1] for key, x in beside.items()}
  if protocol > 3:  # after its frame
    fragments = {key: x[9:] if x[:1] == b'\x95' else x for key, x in fragments.items()}
  fragments |= {'device': call(name('torch', 'device'), text('cuda'), number(0)),
                'torch': name('torch', 'float32'), 'python_2': call(name('__builtin__', 'set'))}
  for key, fragment in fragments.items():
    file = saved(tmp_path / 'G.pth', form, mapping(state_dict=mapping(x=tensor()), beside=fragment))
    found = files.read(file, 'state_dict')
    assert same(found, {'x': np.arange(6, dtype='f4').reshape(2, 3)}), key
  file = saved(tmp_path / 'G.pth', form, mapping(x=tensor(), best=fragments['best']))
  with pytest.raises(ValueError, match=r'more than tensors .*: best \(numpy\._?core\.multiarray'):
    files.read(file)


@pytest.mark.parametrize('form', FORMATS)
def test_nothing_is_done_with_a_name_that_is_no_code(form, tmp_path):
  made = call(name('argparse', 'Namespace'))
  for hostile in (made + mapping(__class__=number(1), lr=number(2)) + b'b',
                  name('builtins', 'object') + mapping(__init__=number(1)) + b'b',
                  call(made, text('touch')), call(name('builtins', 'dict'), text('x')) + b'(' +
                  text('a') + number(1) + b'u', name('builtins', 'int') + several() + b'\x81'):
    files.read(saved(tmp_path / 'G.pth', form, mapping(
        state_dict=mapping(x=tensor()), beside=hostile)), 'state_dict')
  for other in ('builtins.eval', 'builtins.getattr', 'builtins.object.__subclasses__', 'io.open',
                'numpy.load', 'numpy.core.multiarray.fromfile', 'torch.load', 'types.FunctionType'):
    body = stack_name(*other.split('.', 1)) if other.count('.') < 3 else name(
        'numpy.core.multiarray', 'fromfile')
    with pytest.raises(ValueError, match='pickled code .* never run'):
      files.read(saved(tmp_path / 'G.pth', form, mapping(x=tensor(), y=body)))


@pytest.mark.parametrize('form', FORMATS)
@pytest.mark.parametrize('bad', [
    tensor((2, 3), (3, 2)), tensor((7,), (1,)), tensor((2, 3), (3, 1), 1), tensor((), (), 6),
    tensor((2,), (2 ** 31 - 1,)), tensor((2,), (-1,), 5), tensor((2,), (1,), -1),
    tensor((-1,), (1,)), tensor((2, 3), (3,)), tensor(of=text('0')),
    tensor(of=storage(count=-6)), tensor((1,), (1,), 0, storage(count=0))])
def test_a_tensor_beyond_its_storage_is_refused(form, bad, tmp_path):
  with pytest.raises(ValueError, match=r'G\.pth is damaged or incomplete \(.*\)\. Copy or'):
    files.read(saved(tmp_path / 'G.pth', form, mapping(x=bad)))


@pytest.mark.parametrize('form', FORMATS)
def test_a_storage_that_is_not_as_declared_is_refused(form, tmp_path):
  for stored in ({'0': np.zeros(5, 'f4')}, {'0': np.zeros(7, 'f4')}, {'1': np.zeros(6, 'f4')}, {}):
    with pytest.raises(ValueError, match='damaged'):
      files.read(saved(tmp_path / 'G.pth', form, mapping(x=tensor()), stored))
  with pytest.raises(ValueError, match='storage 0 has two sizes or types'):
    files.read(saved(tmp_path / 'G.pth', form, mapping(
        x=tensor(), y=tensor(of=storage(kind='Double')))))


@pytest.mark.parametrize('form', FORMATS)
def test_kinds_of_tensors_that_are_not_read_are_named(form, tmp_path):
  for kind, body in {
      'torch.ComplexFloatStorage': tensor(of=storage(kind='ComplexFloat')),
      'torch.QInt8Storage': tensor(of=storage(kind='QInt8')),
      'torch._utils._rebuild_sparse_tensor': name('torch._utils', '_rebuild_sparse_tensor'),
      'torch._utils._rebuild_tensor_v3': name('torch._utils', '_rebuild_tensor_v3')}.items():
    with pytest.raises(ValueError, match=rf'a kind that is not read \({kind}\); .* Convert them'):
      files.read(saved(tmp_path / 'G.pth', form, mapping(x=body)))
  with pytest.raises(ValueError, match='conjugated or negated'):
    files.read(saved(tmp_path / 'G.pth', form, mapping(
        x=tensor((1,), (1,), 0, None, mapping(neg=b'\x88')))))


@pytest.mark.parametrize('form', FORMATS)
def test_memory_is_bounded_by_the_size_of_the_file(form, tmp_path):
  with pytest.raises(ValueError, match=r'would take 4096 MiB .* Save it uncompressed'):
    files.read(saved(tmp_path / 'G.pth', form, mapping(x=tensor((2 ** 30,), (0,)))))
  with pytest.raises(ValueError, match=r'damaged .* with 2147483647 objects'):
    files.read(saved(tmp_path / 'G.pth', form, mapping(x=tensor())
                     + b'r' + (2 ** 31 - 1).to_bytes(4, 'little')))


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path):
  saved(tmp_path / 'G.pth', 'zip', mapping(x=tensor()))
  data = bytearray((tmp_path / 'G.pth').read_bytes())
  at = data.rindex(b'G/data/0') - 46  # its entry of the central directory
  data[at + 24:at + 28] = (2 ** 31).to_bytes(4, 'little')
  (tmp_path / 'G.pth').write_bytes(data)
  with pytest.raises(ValueError, match='would take 2048 MiB of memory'):
    files.read(tmp_path / 'G.pth')


@pytest.mark.parametrize('form', FORMATS)
def test_big_endian_files_are_refused(form, tmp_path):
  with pytest.raises(ValueError, match='big-endian byte order; only little-endian is read'):
    files.read(saved(tmp_path / 'G.pth', form, mapping(x=tensor()), little=False))


@pytest.mark.parametrize('form', FORMATS)
def test_parts_of_a_checkpoint_are_named_and_chosen(form, tmp_path):
  ones = call(name('collections', 'OrderedDict')) + b'0'  # made and dropped: harmless
  body = ones + mapping(state_dict=ordered(x=tensor()), epoch=number(3), empty=b'}',
                        model=mapping(G=mapping(y=tensor((6,), (1,))), D=b'N'))
  file = saved(tmp_path / 'G.pth', form, body)
  with pytest.raises(ValueError, match=r'G\.pth is a checkpoint of several parts; name one with '
                     r'part= \(--key\): state_dict, model\.G$'):
    files.read(file)
  x = np.arange(6, dtype='f4')
  assert same(files.read(file, 'state_dict'), {'x': x.reshape(2, 3)})
  assert same(files.read(file, part='model.G'), {'y': x})
  for part in ('epoch', 'model', 'empty', 'ema', 'model.D', ''):
    said = rf"several parts but '{part}'; name one with part= \(--key\): st"
    with pytest.raises(ValueError, match=said):
      files.read(file, part)


@pytest.mark.parametrize('form', FORMATS)
def test_what_is_no_state_dict_is_described(form, tmp_path):
  for body, said in {
      tensor(): 'holds one tensor; a dict of tensors is read',
      b'](' + tensor() + b'e': 'holds a list;',
      number(3): 'holds a int;',
      mapping(x=tensor(), step=number(3)): r'tensors named by text: step \(int\);',
      b'}' + number(3) + tensor() + b's': 'more than tensors named by text: int;'}.items():
    stored = {} if body == number(3) else None
    with pytest.raises(ValueError, match=rf'G\.pth .*{said}'):
      files.read(saved(tmp_path / 'G.pth', form, body, stored))
  with pytest.raises(ValueError, match="is one state dict and has no part 'ema'. Leave part= out"):
    files.read(saved(tmp_path / 'G.pth', form, mapping(x=tensor())), 'ema')
  loop = b'}q\x01' + text('again') + b'h\x01s'  # a dict that holds itself
  with pytest.raises(ValueError, match=r'again \(dict\)'):
    files.read(saved(tmp_path / 'G.pth', form, loop, {}))


@pytest.fixture
def kinds(tmp_path):
  """The same weights in each kind of file."""
  arrays = {'a.weight': np.arange(60, dtype='f4').reshape(3, 20), 'b': np.arange(7)}
  files.write(tmp_path / 'w.safetensors', arrays, {'by': 'test'})
  np.savez(tmp_path / 'w.npz', **arrays)
  np.savez_compressed(tmp_path / 'packed.npz', **arrays)
  return [GOLDEN / 'torch_zip.pth', GOLDEN / 'torch_stream.pth', tmp_path / 'w.safetensors',
          tmp_path / 'w.npz', tmp_path / 'packed.npz']


def test_a_file_that_is_cut_short_is_refused_wherever_it_is_cut(kinds, tmp_path):
  for file in kinds:
    data, cut = file.read_bytes(), tmp_path / f'cut{file.suffix}'
    for end in {*np.linspace(0, len(data) - 1, 40, dtype=int), *range(12)}:
      cut.write_bytes(data[:end])
      with pytest.raises(ValueError, match=r'cut\.\w+ is '):
        files.read(cut)


def test_a_flipped_byte_is_noticed_where_the_format_has_checksums(kinds, tmp_path):
  # A stream and safetensors have none: a value or a name may differ, and nothing else happens.
  rng = np.random.default_rng(0)
  for file in kinds:
    data, flipped, whole = bytearray(file.read_bytes()), tmp_path / 'flipped', files.read(file)
    for at in rng.choice(len(data), 150, replace=False):
      kept = data[at]
      data[at] ^= int(rng.integers(1, 256))
      flipped.write_bytes(data)
      data[at] = kept
      try:
        found = files.read(flipped)
      except ValueError as e:
        assert 'flipped ' in str(e)
      else:
        checked = file.suffix == '.npz' or file.name == 'torch_zip.pth'
        assert same(found, whole) if checked else isinstance(found, dict)


def test_what_is_no_checkpoint_is_said_plainly(tmp_path):
  file = tmp_path / 'G.pth'
  for content, said in {
      b'': 'is empty',
      b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n': 'Run git lfs pull',
      b'\n<!DOCTYPE html><html></html>': 'is a web page',
      b'<html><body>404': 'is a web page',
      b'hello world': r"it starts with b'hello wo'.* Files of PyTorch",
      b'\x89HDF\r\n\x1a\n': 'is no checkpoint',
      b'\x80': 'damaged',
      b'PK\3\4' + bytes(40): 'a zip archive without its end'}.items():
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf'G\.pth is .*{said}|{said}'):
      files.read(file)
  with pytest.raises(FileNotFoundError, match=r'none\.pth does not exist'):
    files.read(tmp_path / 'none.pth')
  with pytest.raises(IsADirectoryError, match='is a folder; name a file in it'):
    files.read(tmp_path)


def test_other_archives_are_refused(tmp_path):
  for member, said in {'G/constants.pkl': 'TorchScript', 'G/code/g.py': 'TorchScript',
                       'readme.txt': r'not of torch\.save or numpy\.savez'}.items():
    with zipfile.ZipFile(tmp_path / 'G.pth', 'w') as archive:
      archive.writestr('G/data.pkl' if member[0] == 'G' else 'other', b'')
      archive.writestr(member, b'')
    with pytest.raises(ValueError, match=said):
      files.read(tmp_path / 'G.pth')


def test_npz_is_read_without_objects(tmp_path):
  arrays = {'a/code/b': np.arange(6.).reshape(2, 3).T, 'big': np.arange(3, dtype='>f4'),
            'flag': np.array(True)}
  np.savez(tmp_path / 'w.npz', **arrays)
  found = files.read(tmp_path / 'w.npz')
  assert found['a/code/b'].flags.c_contiguous and found['big'].dtype == np.float32
  for key in arrays:
    np.testing.assert_array_equal(found[key], arrays[key])
  with pytest.raises(ValueError, match="is one state dict and has no part 'G'"):
    files.read(tmp_path / 'w.npz', 'G')
  for x, said in [(np.array([{}]), 'holds x as pickled objects, which are never loaded'),
                  (np.zeros(2, 'c8'), 'holds x as complex64; dense arrays of floats'),
                  (np.array('text'), 'holds x as <U4')]:
    np.savez(tmp_path / 'w.npz', x=x)
    with pytest.raises(ValueError, match=said):
      files.read(tmp_path / 'w.npz')


def test_safetensors_come_back_as_they_were_written(tmp_path):
  dtypes = ['f2', 'f4', 'f8', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', '?',
            ml_dtypes.bfloat16]
  arrays = {f'{np.dtype(dtype)}': np.arange(6).reshape(2, 3).astype(dtype) for dtype in dtypes}
  arrays |= {'transposed': np.arange(6.).reshape(2, 3).T, 'swapped': np.arange(3, dtype='>i4'),
             'scalar': np.array(2.), 'empty': np.zeros((0, 3), 'f4'),
             'steps': np.arange(9, dtype='f4')[::2]}
  file = tmp_path / 'w.safetensors'
  files.write(file, arrays)
  found = files.read(file)
  assert sorted(found) == sorted(arrays)
  for key, x in arrays.items():
    assert found[key].dtype == x.dtype.newbyteorder('='), key
    assert found[key].flags.c_contiguous and found[key].flags.writeable
    np.testing.assert_array_equal(found[key], x, err_msg=key)
    assert found[key].shape == x.shape
  assert list(tmp_path.iterdir()) == [file]
  with pytest.raises(ValueError, match="is one state dict and has no part 'G'"):
    files.read(file, 'G')


def test_a_header_whose_size_looks_like_a_pickle(tmp_path):
  # 0x280 bytes: the file starts as protocol 2 does.
  file = tmp_path / 'w.safetensors'
  for length in range(400, 700):
    files.write(file, {'x': np.ones(2)}, {'note': 'n' * length}, overwrite=True)
    if file.read_bytes().startswith(b'\x80\x02'):
      break
  assert file.read_bytes().startswith(b'\x80\x02')
  assert same(files.read(file), {'x': np.ones(2)})


def test_metadata_is_kept(tmp_path):
  file = tmp_path / 'w.safetensors'
  files.write(file, {'x': np.ones(2)}, {'network': 'G', 'url': 'https://example.org'})
  assert files.metadata(file) == {'network': 'G', 'url': 'https://example.org'}
  files.write(file, {'x': np.ones(2)}, overwrite=True)
  assert files.metadata(file) == {}
  assert files.metadata(GOLDEN / 'torch_zip.pth') == {}
  file.write_bytes(file.read_bytes()[:20])
  with pytest.raises(ValueError, match=r'w\.safetensors is damaged'):
    files.metadata(file)
  with pytest.raises(FileNotFoundError, match='none does not exist'):
    files.metadata(tmp_path / 'none')


def test_a_bad_safetensors_file_is_refused(tmp_path):
  file = tmp_path / 'w.safetensors'
  for header in (b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,80]}}',
                 b'{"x":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}',
                 b'{"x":{"dtype":"F99","shape":[2],"data_offsets":[0,8]}}', b'{"x"', b'{' * 9):
    file.write_bytes(len(header).to_bytes(8, 'little') + header + bytes(8))
    with pytest.raises(ValueError, match=r'w\.safetensors is damaged or incomplete'):
      files.read(file)
  header = b'{"x":{"dtype":"F8_E5M2","shape":[8],"data_offsets":[0,8]}}'
  file.write_bytes(len(header).to_bytes(8, 'little') + header + bytes(8))
  with pytest.raises(ValueError, match='holds x as F8_E5M2; dense arrays of floats'):
    files.read(file)


def test_write_refuses_what_it_cannot_keep(tmp_path):
  file = tmp_path / 'w.safetensors'
  for arrays, metadata, said in [
      ({'x': np.zeros(2, 'c16')}, None, 'holds x as complex128'),
      ({'x': np.array([{}])}, None, 'holds x as object'),
      ({3: np.zeros(2)}, None, 'cannot hold 3: names and metadata are text'),
      ({'__metadata__': np.zeros(2)}, None, 'no array is named __metadata__'),
      ({'x': np.zeros(2)}, {'step': 3}, 'cannot hold 3')]:
    with pytest.raises(ValueError, match=said):
      files.write(file, arrays, metadata)
  with pytest.raises(FileNotFoundError, match=r'there is no folder .*none; make it'):
    files.write(tmp_path / 'none' / 'w.safetensors', {})
  with pytest.raises(IsADirectoryError, match='is a folder'):
    files.write(tmp_path, {}, overwrite=True)
  assert not list(tmp_path.iterdir())


def test_write_replaces_only_when_told_and_only_whole(tmp_path, monkeypatch):
  file = tmp_path / 'w.safetensors'
  old, new = {'x': np.zeros(2)}, {'x': np.ones(3)}
  files.write(file, old)
  with pytest.raises(FileExistsError, match=r'w\.safetensors exists; pass overwrite=True'):
    files.write(file, new)
  for broken in ('fsync', 'replace'):
    with monkeypatch.context() as patch, pytest.raises(OSError, match='disk is full'):
      patch.setattr(os, broken, lambda *_: (_ for _ in ()).throw(OSError('disk is full')))
      files.write(file, new, overwrite=True)
    assert same(files.read(file), old) and list(tmp_path.iterdir()) == [file]
  files.write(file, new, overwrite=True)
  assert same(files.read(file), new) and list(tmp_path.iterdir()) == [file]


def test_a_stream_of_several_objects_is_refused(tmp_path):
  data = saved(tmp_path / 'G.pth', 'stream', mapping(x=tensor())).read_bytes()
  (tmp_path / 'G.pth').write_bytes(data + data)
  with pytest.raises(ValueError, match=f'{len(data)} bytes follow the last storage'):
    files.read(tmp_path / 'G.pth')


def test_an_archive_that_lost_an_entry_is_refused(tmp_path):
  np.savez(tmp_path / 'w.npz', a=np.ones(2), b=np.ones(3))
  data = bytearray((tmp_path / 'w.npz').read_bytes())
  first = data.index(b'PK\1\2')
  data[first + 32] = 46 + len('b.npy')  # the second entry becomes a comment of the first
  (tmp_path / 'w.npz').write_bytes(data)
  with pytest.raises(ValueError, match='a zip archive of 2 entries lists 1'):
    files.read(tmp_path / 'w.npz')
