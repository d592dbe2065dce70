"""A run in its folder: stages train one after the other, are measured, compared and exported."""

from jaxgan_compress.experiment.compare_runs import compare
from jaxgan_compress.experiment.compilation import DTYPES, compile_stage
from jaxgan_compress.experiment.export import export_network, export_run
from jaxgan_compress.experiment.inspect import describe, show_data
from jaxgan_compress.experiment.results import evaluate, tabulate, write_report
from jaxgan_compress.experiment.runner import run
from jaxgan_compress.experiment.stage import Stage
from jaxgan_compress.experiment.step_profile import profile
from jaxgan_compress.experiment.training import Interrupted
from jaxgan_compress.experiment.workdir import Run, open_run

__all__ = ['DTYPES', 'Interrupted', 'Run', 'Stage', 'compare', 'compile_stage', 'describe',
           'evaluate', 'export_network', 'export_run', 'open_run', 'profile', 'run', 'show_data',
           'tabulate', 'write_report']
