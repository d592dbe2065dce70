"""Which channels a mask keeps, as an image."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

from jaxgan_compress.core import AnyArray

KEPT, REMOVED = np.array((40, 90, 160)), np.array((222, 222, 222))
ROW, LEFT, RIGHT, BAR = 16, 190, 90, 512


def plot_masks(masks: Mapping[str, AnyArray], title: str = '') -> np.ndarray:
  """An image uint8 [H,W,3] with a row for each group: its channels in order, kept ones dark.

  masks: `{group: bool [width]}`. Wide groups show neighbouring channels as one shade.
  """
  page = Image.new('RGB', (LEFT + BAR + RIGHT, ROW * (len(masks) + 2)), 'white')
  draw = ImageDraw.Draw(page)
  draw.text((4, 2), title or 'kept channels (dark), in their order', fill='black')
  for i, (name, mask) in enumerate(masks.items(), 1):
    mask, top = np.asarray(mask), ROW * i + ROW // 2
    if len(mask) > BAR:
      shares = np.interp((np.arange(BAR) + .5) * len(mask) / BAR - .5, np.arange(len(mask)), mask)
    else:
      shares = mask[np.arange(BAR) * len(mask) // BAR]
    shade = shares[:, None] * KEPT + (1 - shares[:, None]) * REMOVED
    bar = np.tile(shade.round().astype(np.uint8), (ROW - 4, 1, 1))
    page.paste(Image.fromarray(bar), (LEFT, top))
    draw.text((4, top), name, fill='black')
    draw.text((LEFT + BAR + 8, top), f'{mask.sum()} of {len(mask)}', fill='black')
  return np.asarray(page)
