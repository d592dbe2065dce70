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
echo "Training teacher, students and baselines in $workdir ..."
exec "$venv/bin/jaxgan-compress" train --config="${JAXGAN_CONFIG:-kd/digits}" --workdir="$workdir"
