#!/usr/bin/env bash
# Runs the tests in .venv, set up like the quickstart's with the test extra.
#
#   ./launch/test.sh [PYTEST ARGUMENTS]
#   ./launch/test.sh --full         # and what takes networks of published size
set -u
. "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

prepare test
cd "$root" || exit 1
exec "$python" -m pytest "$@"
