"""Which channels survived, as a picture."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

KEPT, CUT = (40, 90, 160), (222, 222, 222)
ROW, LEFT, RIGHT, BAR = 16, 190, 90, 512


def plot_masks(masks: Mapping[str, np.ndarray], title: str = '') -> np.ndarray:
  """uint8 [H,W,3]: a row for each group, its channels in order, dark where they stay.

  masks: `{group: bool [width]}`. Wide groups show neighbouring channels as one shade.
  """
  height = ROW * (len(masks) + 2)
  page = Image.new('RGB', (LEFT + BAR + RIGHT, height), 'white')
  draw = ImageDraw.Draw(page)
  draw.text((4, 2), title or 'channels that stay (dark), in their order', fill='black')
  for i, (name, mask) in enumerate(masks.items(), 1):
    mask, top = np.asarray(mask), ROW * i + ROW // 2
    draw.text((4, top), name, fill='black')
    shares = np.interp((np.arange(BAR) + .5) * len(mask) / BAR - .5, np.arange(len(mask)),
                       mask.astype(float)) if len(mask) > BAR else mask[
                           np.arange(BAR) * len(mask) // BAR].astype(float)
    shade = shares[:, None] * np.array(KEPT) + (1 - shares[:, None]) * np.array(CUT)
    bar = np.repeat(shade[None].round().astype(np.uint8), ROW - 4, 0)
    page.paste(Image.fromarray(bar), (LEFT, top))
    draw.text((LEFT + BAR + 8, top), f'{mask.sum()} of {len(mask)}', fill='black')
  return np.asarray(page)
