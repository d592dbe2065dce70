#!/usr/bin/env bash
# What `tpu_pod.sh setup` runs on every host: the environment, and the bucket at ~/runs.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

[ "$#" -eq 1 ] || fail "wants the name of a bucket"
prepare tpu
mkdir -p "$HOME/runs"
mountpoint -q "$HOME/runs" && exit 0
command -v gcsfuse >/dev/null ||
  fail "gcsfuse is not on this image; install it (Cloud Storage FUSE), or mount a folder that all hosts share at ~/runs"
# Orbax renames whole folders when a checkpoint is complete.
gcsfuse --implicit-dirs --rename-dir-limit=100000 "$1" "$HOME/runs" || fail "$1 cannot be mounted"
