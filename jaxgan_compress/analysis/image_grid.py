"""Grids of images, with captions or without."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxgan_compress.core import in_colour


def to_uint8(images) -> np.ndarray:
  """Images in [-1, 1] as 0..255, rounded and clipped."""
  return np.round((np.asarray(images, np.float32) + 1) * 127.5).clip(0, 255).astype(np.uint8)


def gallery(rows: Mapping[str, np.ndarray], title: str = '', *, pixels: int = 64) -> Image.Image:
  """Rows of images under captions, as a value that a notebook displays at the end of a cell.

  rows: {caption: images [B,H,W,C]}, in [-1, 1], uint8 or uint16. pixels: small images are enlarged
  by the whole number that brings them nearest to this height.
  """
  def enlarged(images):
    images = np.asarray(images)
    if images.dtype in (np.uint8, np.uint16):
      images = images / (np.iinfo(images.dtype).max / 2) - 1
    factor = max(1, round(pixels / images.shape[1]))
    return images.repeat(factor, 1).repeat(factor, 2)

  sheets = [(caption, enlarged(images)) for caption, images in rows.items()]
  return Image.fromarray(captioned(sheets, title, height=16))


def colour_labels(label_map, edges=None) -> np.ndarray:
  """Images in [-1, 1] [B,H,W,3] of integer labels [B,H,W], one colour for each; edges are white."""
  # Hues a golden section apart stay far from their neighbours, however many there are.
  hue = np.arange(256)[:, None] * 0.618034 % 1 * 6
  palette = np.clip(np.abs((hue + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
  colours = (palette * np.linspace(1, .6, 256)[:, None])[np.asarray(label_map)] * 1.6 - .8
  if edges is not None:
    colours[np.asarray(edges, bool)] = 1
  return colours


def captioned(rows, title: str, *, height: int = 14) -> np.ndarray:
  """A contact sheet with text, uint8 [h,w,3], of rows [(caption, images [B,H,W,C]), ...].

  The title stands above the sheet, each caption above its row. Long texts are wrapped.
  """
  width = max(contact_sheet([images]).shape[1] for _, images in rows)
  parts = [_text(title, width, height)]
  for caption, images in rows:
    sheet = contact_sheet([images])
    parts += [_text(caption, width, height),
              np.pad(sheet, ((0, 6), (0, width - sheet.shape[1]), (0, 0)), constant_values=255)]
  return np.concatenate(parts)


def _text(text, width, height):
  font = ImageFont.load_default(height - 3)
  lines, letters = [], max(8, int(width / font.getlength('x')))
  for line in text.splitlines():
    lines += textwrap.wrap(line, letters) or ['']
  image = Image.new('RGB', (width, height * len(lines) + 4), 'white')
  draw = ImageDraw.Draw(image)
  for i, line in enumerate(lines):
    draw.text((2, 1 + height * i), line, 'black', font)
  return np.asarray(image)


def shown_as(channels: int) -> str:
  """How a contact sheet shows images of so many channels; '' for grey and RGB."""
  if channels in (2, 4):
    return 'alpha on white'
  return f'channels 1 to 3 of {channels} as red, green and blue' if channels > 4 else ''


def contact_sheet(rows, gap: int = 2) -> np.ndarray:
  """One image uint8 [h,w,3] of a grid with a row for each [B,H,W,C] in [-1, 1].

  Channels are shown as by `core.in_colour`, which `shown_as` says in words. Rows of smaller images,
  as the inputs of an upscaler, are enlarged by the whole number that makes them fit.
  """
  rows = [to_uint8(in_colour(np.asarray(row, np.float32))) for row in rows]
  times = [max(row.shape[1] for row in rows) // row.shape[1] for row in rows]
  rows = [row.repeat(k, 1).repeat(k, 2) for row, k in zip(rows, times, strict=True)]
  frame = ((0, 0), (0, gap), (0, gap), (0, 0))
  strips = [np.concatenate(np.pad(row, frame, constant_values=255), 1) for row in rows]
  return np.concatenate(strips)[:-gap, :-gap]
