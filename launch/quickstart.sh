#!/usr/bin/env bash
# Compresses a GAN on real digits: sets up .venv, trains everything, ends with a report.
#
#   ./launch/quickstart.sh [WORKDIR]       # default: runs/digits in this checkout
#
# Interrupt it and run it again: it goes on where it was.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

workdir="${1:-$root/runs/digits}"
prepare samples
# Steps of networks this small keep one core busy, whatever XLA does: each core is a device, of which
# batches of 64 want one, two or four.
cores="$(nproc 2>/dev/null || echo 1)"
export JAX_NUM_CPU_DEVICES="${JAX_NUM_CPU_DEVICES:-$((cores < 2 ? 1 : cores < 4 ? 2 : 4))}"
echo "Training teacher, students and baselines in $workdir ..."
exec "$venv/bin/jaxgan-compress" train --config="${JAXGAN_CONFIG:-kd/digits}" --workdir="$workdir"
