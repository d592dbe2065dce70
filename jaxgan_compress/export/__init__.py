"""Generators in formats for other programs; each file is proved to compute the same images."""

from jaxgan_compress.export.bundle import DEFAULT, FORMATS, ExportError, verify, write_folder
from jaxgan_compress.export.litert import run_litert, to_litert
from jaxgan_compress.export.ncnn_runtime import run_ncnn
from jaxgan_compress.export.onnx import run_onnx, to_onnx
from jaxgan_compress.export.stablehlo import sides, to_stablehlo

__all__ = ['DEFAULT', 'FORMATS', 'ExportError', 'run_litert', 'run_ncnn', 'run_onnx', 'sides',
           'to_litert', 'to_onnx', 'to_stablehlo', 'verify', 'write_folder']
