"""Random programs of arrays, whose channels must be free to change places once they are found.

    python -m tests.fuzz_programs [first seed] [count]

prints the seeds of programs that change with their channels' places; `program(seed)` is one of
them. Of a channel with several copies the law takes the first for the first, which a slice or a
flip between two leaves makes wrong: these are called doubtful.
"""

from __future__ import annotations

import random
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tests import test_tracing


class Maker:
  """Makes a program step by step: `leaf` gives a new leaf, `step` a new array from one."""

  def __init__(self, seed, variables):
    self.random = random.Random(seed)
    self.variables, self.count, self.log = variables, 0, []

  def leaf(self, *shape):
    name = f'leaf{self.count}'
    self.count += 1
    return self.variables(name, shape)

  def axis(self, x, least=2):
    return self.random.choice([i for i, n in enumerate(x.shape) if n >= least] or [-1]) % x.ndim

  def step(self, pool):
    names = [name for name in dir(self) if name.startswith('do_')]
    x = self.random.choice(pool[-4:])
    name = self.random.choice(names)
    y = getattr(self, name)(x, pool)
    if y is None or y.size > 5000 or y.size == 0 or y.ndim > 5:
      return None
    self.log.append((name, x.shape, y.shape))
    return y

  def do_dense(self, x, pool):
    return jnp.tanh(jnp.tensordot(x, self.leaf(x.shape[-1], self.random.choice([4, 6])), 1))

  def do_dense_first(self, x, pool):
    return jnp.tensordot(self.leaf(self.random.choice([4, 6]), x.shape[0]), x, 1)

  def do_contract(self, x, pool):
    """Over two axes at once."""
    if x.ndim < 3:
      return None
    axes = self.random.sample(range(x.ndim), 2)
    return jnp.tensordot(x, self.leaf(*(x.shape[i] for i in axes), 6), (axes, (0, 1)))

  def do_batched(self, x, pool):
    others = [y for y in pool if y.ndim >= 3 and y.shape[0] == x.shape[0]
              and y.shape[-1] == x.shape[-1]]
    if x.ndim < 3 or not others:
      return None
    y = self.random.choice(others)
    return jnp.tanh(lax.dot_general(x, y, (((x.ndim - 1,), (y.ndim - 1,)), ((0,), (0,)))) * 0.3)

  def do_conv(self, x, pool):
    if x.ndim != 4:
      return None
    c = x.shape[-1]
    groups = self.random.choice([g for g in (1, 1, 2, 3, 4, c) if c % g == 0])
    out = groups * self.random.choice([1, 2, 3])
    return jnp.tanh(lax.conv_general_dilated(
        x, self.leaf(3, 3, c // groups, out), (1, 1), 'SAME', feature_group_count=groups,
        dimension_numbers=('NHWC', 'HWIO', 'NHWC')))

  def do_made_kernel(self, x, pool):
    """A kernel that is itself computed."""
    if x.ndim != 4:
      return None
    c = x.shape[-1]
    kernel = self.leaf(3, 3, c, 4) * self.leaf(c)[:, None]
    kernel = kernel.reshape(3, 3, c, 2, 2).swapaxes(3, 4).reshape(3, 3, c, 4)
    return jnp.tanh(lax.conv_general_dilated(x, kernel, (1, 1), 'SAME',
                                             dimension_numbers=('NHWC', 'HWIO', 'NHWC')))

  def do_bias(self, x, pool):
    axis = self.axis(x)
    return x + self.leaf(*(n if i == axis else 1 for i, n in enumerate(x.shape)))

  def do_scale_two(self, x, pool):
    return x * self.leaf(*x.shape[-2:])

  def do_scale_one(self, x, pool):
    return x * self.leaf(x.shape[-1])

  def do_add(self, x, pool):
    others = [y for y in pool if y.ndim == x.ndim and all(
        a == b or 1 in (a, b) for a, b in zip(x.shape, y.shape, strict=True))]
    return x * self.random.choice(others) + x

  def do_norm(self, x, pool):
    axis = self.random.sample(range(x.ndim), self.random.choice([1, min(2, x.ndim)]))
    return (x - x.mean(axis, keepdims=True)) * lax.rsqrt(x.var(axis, keepdims=True) + 0.1)

  def do_softmax(self, x, pool):
    return jax.nn.softmax(x, self.axis(x))

  def do_reduce(self, x, pool):
    if x.ndim < 2:
      return None
    return self.random.choice([jnp.sum, jnp.max, jnp.mean])(
        x, self.axis(x), keepdims=self.random.random() < 0.5)

  def do_transpose(self, x, pool):
    return x.transpose(self.random.sample(range(x.ndim), x.ndim))

  def do_split_axis(self, x, pool):
    axis = self.axis(x, 4)
    n = x.shape[axis]
    parts = [a for a in (2, 3, 4) if n % a == 0 and n > a]
    if not parts:
      return None
    a = self.random.choice(parts)
    return x.reshape(*x.shape[:axis], a, n // a, *x.shape[axis + 1:])

  def do_join_axes(self, x, pool):
    if x.ndim < 3:
      return None
    axis = self.random.randrange(x.ndim - 1)
    return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2:])

  def do_reshape(self, x, pool):
    """Over the borders of axes."""
    if x.ndim < 2 or x.shape[-1] * x.shape[-2] % 4:
      return None
    return x.reshape(*x.shape[:-2], 4, -1)

  def do_lax_reshape(self, x, pool):
    order = self.random.sample(range(x.ndim), x.ndim)
    return lax.reshape(x, (x.shape[order[0]], x.size // x.shape[order[0]]), order)

  def do_concatenate(self, x, pool):
    axis = self.axis(x)
    others = [y for y in pool if y.ndim == x.ndim and all(
        a == b or i == axis for i, (a, b) in enumerate(zip(x.shape, y.shape, strict=True)))]
    return jnp.concatenate([x, *self.random.choices(others, k=self.random.choice([1, 2]))], axis)

  def do_slice(self, x, pool):
    axis = self.axis(x, 4)
    start, stop, step = self.random.choice([
        (0, x.shape[axis] // 2, 1), (x.shape[axis] // 2, None, 1), (0, None, 2), (1, 2, 1),
        (None, None, -1)])
    return x[(slice(None),) * axis + (slice(start, stop, step),)]

  def do_gate(self, x, pool):
    axis = self.axis(x, 4)
    if x.shape[axis] % 2:
      return None
    a, b = jnp.split(x, 2, axis)
    return a * jax.nn.sigmoid(b)

  def do_pad(self, x, pool):
    axis = self.axis(x)
    kind = self.random.choice(['constant', 'edge', 'reflect', 'wrap'])
    return jnp.pad(x, [(1, 2) if i == axis and x.shape[i] > 2 else (0, 0)
                       for i in range(x.ndim)], kind)

  def do_tile(self, x, pool):
    axis = self.axis(x)
    return jnp.tile(x, [2 if i == axis else 1 for i in range(x.ndim)])

  def do_repeat(self, x, pool):
    return jnp.repeat(x, 2, self.axis(x))

  def do_stack(self, x, pool):
    return jnp.stack([x, jnp.flip(x, self.axis(x))], self.random.randrange(x.ndim + 1))

  def do_unstack(self, x, pool):
    if x.ndim < 2:
      return None
    return sum((i + 1) * y for i, y in enumerate(jnp.unstack(x, axis=self.axis(x))))

  def do_roll(self, x, pool):
    return jnp.roll(x, 1, self.axis(x))

  def do_cumsum(self, x, pool):
    return jnp.cumsum(x, self.axis(x))

  def do_sort(self, x, pool):
    return jnp.sort(x, self.axis(x))

  def do_gather(self, x, pool):
    return jnp.take(x, jnp.array([1, 0, 1]), self.axis(x))

  def do_positions(self, x, pool):
    return x * (1 + lax.broadcasted_iota(x.dtype, x.shape, self.axis(x)))

  def do_pool(self, x, pool):
    axis = self.axis(x)
    window = [2 if i == axis else 1 for i in range(x.ndim)]
    return lax.reduce_window(x, -jnp.inf, lax.max, window, window, 'SAME')

  def do_update(self, x, pool):
    axis = self.axis(x)
    return lax.dynamic_update_slice_in_dim(x, 2 * lax.slice_in_dim(x, 0, 1, axis=axis), 1, axis)

  def do_scan(self, x, pool):
    if x.ndim < 2:
      return None
    w = self.leaf(x.shape[0], x.shape[-1])
    y, rows = lax.scan(lambda c, a: (jnp.tanh(c * a + 0.1), c + a), x.sum(0), (
        x * w.reshape(w.shape[0], *[1] * (x.ndim - 2), w.shape[1])))
    return rows * y

  def do_loop(self, x, pool):
    w = self.leaf(x.shape[-1])
    return lax.fori_loop(0, 2, lambda i, c: jnp.roll(c, 1, 0) * w, x)

  def do_cond(self, x, pool):
    b = self.leaf(x.shape[-1])
    return lax.cond(jnp.sum(x ** 2) > 1, lambda: x + b, lambda: x * 2)

  def do_outer(self, x, pool):
    if x.ndim > 3:
      return None
    return x[..., None] * self.leaf(4)

  def do_compare(self, x, pool):
    """With itself, its axes exchanged."""
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
      return None
    return x + x.swapaxes(-1, -2)

  def do_vmapped(self, x, pool):
    if x.ndim != 5:
      return None
    return jax.vmap(lambda a: self.do_conv(a, pool))(x)

  def do_sample_kernels(self, x, pool):
    if x.ndim != 4:
      return None
    kernel = self.leaf(3, 3, x.shape[-1], 4)
    style = jnp.tanh(x.mean((1, 2)))

    def one(a, s):
      return lax.conv_general_dilated(a[None], kernel * s[:, None], (1, 1), 'SAME',
                                      dimension_numbers=('NHWC', 'HWIO', 'NHWC'))[0]
    return jnp.tanh(jax.vmap(one)(x, style))


def program(seed, steps=8):
  """(function of variables and x, shapes of its variables, what it does)."""
  found = {}

  def run(variables, x):
    maker = Maker(seed, variables)
    pool = [maker.do_conv(x, []), jnp.tanh(maker.leaf(6, 4))]
    pool.append(jnp.tanh(jnp.tensordot(pool[0], maker.leaf(pool[0].shape[-1], 8), 1)))
    tries = 0
    while len(pool) < steps + 3 and tries < 100:
      tries += 1
      before = maker.count
      y = maker.step(pool)
      if y is not None:
        pool.append(y / (1 + jnp.abs(y).max()) if maker.random.random() < 0.2 else y)
      else:
        maker.count = max(before, maker.count)
    out = 0
    for y in pool[-4:]:
      if y.size > 1:
        axes = tuple(range(y.ndim))
        out = out + jnp.tensordot(y, maker.leaf(*y.shape), (axes, axes))
        out = out + jnp.tanh(jnp.tensordot(y, maker.leaf(y.shape[-1], 3), 1)).sum(
            tuple(range(y.ndim - 1)))
    return out, maker.log

  def note(name, shape):
    found[name] = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jnp.zeros(shape)

  log = []
  jax.eval_shape(lambda x: (lambda out: (log.extend(out[1]), out[0])[1])(run(note, x)),
                 jax.ShapeDtypeStruct((2, 4, 4, 3), jnp.float32))
  return lambda variables, x: run(lambda name, _: variables[name], x)[0], found, log


def check(seed):
  """(how far the output moves, whether that is certainly wrong, channels)."""
  with jax.numpy_rank_promotion('allow'):
    f, variables, _ = program(seed)
    known = test_tracing.understood(f, ((2, 4, 4, 3), jnp.float32), variables)
    found = test_tracing.groups(known)
    with jax.enable_x64(True):
      x = np.random.default_rng(0).normal(size=(2, 4, 4, 3))
      weights = test_tracing.random_weights(known.leaves)
      moved = lambda found: test_tracing.change(f, x, known, weights, test_tracing.permuted(
          known, weights, found)) if found else 0.0
      single = {foot: atoms for foot, atoms in found.items() if all(n == 1 for *_, n in foot)}
      far = moved(found)
      return far, not (far < 1e-9 or moved(single) < 1e-9), sum(map(len, found.values()))


if __name__ == '__main__':
  first, number = (int(x) for x in (*sys.argv[1:], 0, 100)[:2])
  total = 0
  for seed in range(first, first + number):
    moved, certain, channels = check(seed)
    total += channels
    if not moved < 1e-9:
      print(f'seed {seed}: the output moves by {moved:.1e}' + ('' if certain else ', doubtful'),
            flush=True)
  print(f'{number} programs, {total} channels')
