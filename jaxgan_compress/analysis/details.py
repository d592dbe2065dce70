"""Cuts of large images, enlarged, so that people see what differs."""

from __future__ import annotations

import numpy as np


def busiest(images, side: int, step: int = 1) -> np.ndarray:
  """(top, left) of the square of `side` pixels with the strongest edges in each image: int [B,2].

  images: [B,H,W,C]. step: corners are multiples of it. A square is as large as the image at most.
  """
  grey = np.asarray(images, np.float32).mean(-1)
  edges = np.zeros_like(grey)
  edges[:, 1:] += np.abs(np.diff(grey, axis=1))
  edges[:, :, 1:] += np.abs(np.diff(grey, axis=2))
  height, width = (min(side, n) for n in grey.shape[1:])
  # Sums over all squares, of an integral image.
  total = np.pad(edges.cumsum(1, dtype=np.float64).cumsum(2), ((0, 0), (1, 0), (1, 0)))
  sums = (total[:, height:, width:] - total[:, :-height or None, width:]
          - total[:, height:, :-width or None] + total[:, :-height or None, :-width or None])
  sums = sums[:, ::step, ::step]
  best = sums.reshape(len(sums), -1).argmax(1)
  return np.stack(np.unravel_index(best, sums.shape[1:]), -1) * step


def enlarged(images, corners: np.ndarray, side: int, times: int) -> np.ndarray:
  """The square of `side` pixels at its corner of each image, every pixel `times` x `times`."""
  cuts = [np.asarray(image)[top:top + side, left:left + side]
          for image, (top, left) in zip(images, corners, strict=True)]
  return np.stack(cuts).repeat(times, 1).repeat(times, 2)
