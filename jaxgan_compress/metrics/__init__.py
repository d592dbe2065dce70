"""Numbers from images: each value is kept with the protocol that made it."""

from jaxgan_compress.metrics.evaluator import Evaluator, Measure
from jaxgan_compress.metrics.scores import (
    class_histogram,
    frechet_distance,
    gaussian_frechet_distance,
    inception_score,
    psnr,
    variance_of_laplacian,
)

__all__ = ['Evaluator', 'Measure', 'class_histogram', 'frechet_distance',
           'gaussian_frechet_distance', 'inception_score', 'psnr', 'variance_of_laplacian']
