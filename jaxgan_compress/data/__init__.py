"""Images in, as uint8 batches that are a function of the step number."""

from jaxgan_compress.data.pipeline import Pipeline, sizes_only
from jaxgan_compress.data.sources import ArraySource, digits, tfds
from jaxgan_compress.data.transforms import frame, random_shift

__all__ = ['ArraySource', 'Pipeline', 'digits', 'frame', 'random_shift', 'sizes_only', 'tfds']
