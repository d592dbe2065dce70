"""Generators for other programs, each proved to draw what the network draws."""

from jaxgan_compress.export.folder import FORMATS, ExportError, verify, write_folder
from jaxgan_compress.export.onnx import to_onnx
from jaxgan_compress.export.runs import export_network, export_run
from jaxgan_compress.export.stablehlo import to_stablehlo

__all__ = ['FORMATS', 'ExportError', 'export_network', 'export_run', 'to_onnx', 'to_stablehlo',
           'verify', 'write_folder']
