#!/usr/bin/env bash
# Writes the API reference, HTML pages of all docstrings, into build/reference or the folder given.
#
#   ./launch/reference.sh [FOLDER]
set -u
. "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

prepare docs
exec "$python" "$root/docs/reference/build.py" "$@"
