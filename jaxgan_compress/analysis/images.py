"""Arrays become pictures."""

from __future__ import annotations

import numpy as np


def to_uint8(images) -> np.ndarray:
  """Images in [-1, 1] as 0..255, rounded and clipped."""
  return np.round((np.asarray(images, np.float32) + 1) * 127.5).clip(0, 255).astype(np.uint8)


def contact_sheet(rows, gap: int = 2) -> np.ndarray:
  """One picture of a grid of images: [[B,H,W,C], ...] in [-1, 1], a row each, to uint8 [h,w,3]."""
  rows = [to_uint8(row) for row in rows]
  rows = [np.repeat(row, 3, -1) if row.shape[-1] == 1 else row for row in rows]
  frame = ((0, 0), (0, gap), (0, gap), (0, 0))
  strips = [np.concatenate(np.pad(row, frame, constant_values=255), 1) for row in rows]
  return np.concatenate(strips)[:-gap, :-gap]
