"""Data sets, read as uint8 or uint16 batches that are a function of the step number."""

from jaxgan_compress.data.decode import ImageError
from jaxgan_compress.data.pipeline import Pipeline, sizes_only
from jaxgan_compress.data.sample_images import samples
from jaxgan_compress.data.sources import (
  ArraySource,
  First,
  Source,
  as_source,
  digits,
  prepared_batch,
  stack,
)
from jaxgan_compress.data.teacher_outputs import Latents, record, recorded
from jaxgan_compress.data.tfds_sets import tfds
from jaxgan_compress.data.transforms import frame, random_shift
from jaxgan_compress.data.translation import folder, labels, paired, planes, swapped, unpaired
from jaxgan_compress.data.upscaling import photographs, upscaled
from jaxgan_compress.data.views import View

__all__ = ['ArraySource', 'First', 'ImageError', 'Latents', 'Pipeline', 'Source', 'View',
           'as_source', 'digits', 'folder', 'frame', 'labels', 'paired', 'photographs', 'planes',
           'prepared_batch', 'random_shift', 'record', 'recorded', 'samples', 'sizes_only',
           'stack', 'swapped', 'tfds', 'unpaired', 'upscaled']
