"""Measures of images; each value is kept with the protocol that made it."""

from jaxgan_compress.metrics import resize, segmentation
from jaxgan_compress.metrics.confidence import bootstrap
from jaxgan_compress.metrics.evaluator import Evaluator, Measure
from jaxgan_compress.metrics.extractors import (
  Extractor,
  classifier,
  efficientnet_lite0,
  inception,
  random_vgg,
)
from jaxgan_compress.metrics.feature_distances import (
  kernel_distance,
  precision_recall,
  squared_mmd,
)
from jaxgan_compress.metrics.folders import compare_folders, folder_features
from jaxgan_compress.metrics.formulas import (
  class_histogram,
  frechet_distance,
  gaussian_frechet_distance,
  inception_score,
  psnr,
  variance_of_laplacian,
)
from jaxgan_compress.metrics.moments import Moments
from jaxgan_compress.metrics.segmenters import Segmenter, cityscapes_scores, drn, segmenter

__all__ = ['Evaluator', 'Extractor', 'Measure', 'Moments', 'Segmenter', 'bootstrap',
           'cityscapes_scores', 'class_histogram', 'classifier', 'compare_folders',
           'drn', 'efficientnet_lite0', 'folder_features', 'frechet_distance',
           'gaussian_frechet_distance', 'inception', 'inception_score', 'kernel_distance',
           'precision_recall', 'psnr', 'random_vgg', 'resize',
           'segmentation', 'segmenter', 'squared_mmd', 'variance_of_laplacian']
