#!/bin/bash
# One command that checks and times the library on one GPU, in at most 8 minutes.
#
#     ./benchmarks/gpu.sh [--out=FOLDER] [--torch=PYTHON] [--limit=SECONDS] [--rehearse]
#
# Run it from anywhere, on a machine with one idle GPU and a `python3` (or $JAXGAN_PYTHON) of 3.11 or
# later that holds JAX for CUDA, PyTorch, pytest, pytest-xdist, pytest-timeout and what setup.py's
# install_requires names, but tensorflow-datasets and clu, which nothing here reads; libraries that
# are not installed may lie on PYTHONPATH. Nothing is downloaded. The library itself need not be
# installed. PyTorch may live in another Python: --torch or $JAXGAN_TORCH. First the GPU subset of
# the tests runs, and beside it each step is compared with PyTorch in true float32; then both are
# timed. Results go to runs/gpu/DEVICE, or --out: speed.md with the tables, speed.json with every
# time, tests.txt. `--rehearse` runs all of it at tiny sizes on CPUs; no time of that means anything.
# What each step and column is: benchmarks/gpu.py.
set -u
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
python=${JAXGAN_PYTHON:-python3}
exec "$python" "$root/benchmarks/gpu.py" --torch="${JAXGAN_TORCH:-$python}" "$@"
