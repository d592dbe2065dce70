#!/usr/bin/env bash
# Fetches 7,885 emoji in three styles (npm package fluentui-emoji 1.3.0; pictures by Microsoft, MIT
# licence) and renders them as PNG, 256x256 on white, for `samples:emoji`. Takes four minutes.
#
#   ./launch/get_emoji.sh [FOLDER [TARBALL]]   # default: where samples:emoji looks, and npm fetches
#
# Interrupt it and run it again: it goes on where it was.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

# The first interpreter that has resvg-py, else the one that says what is missing.
python="$venv/bin/python"
if [ -n "${JAXGAN_PYTHON:-}" ] || ! "$python" -c 'import resvg_py' 2>/dev/null; then
  other="$(find_python)" || exit 1
  if [ ! -x "$python" ] || [ -n "${JAXGAN_PYTHON:-}" ] || "$other" -c 'import resvg_py' 2>/dev/null; then
    python="$other"
  fi
fi
exec "$python" "$root/launch/get_emoji.py" "$@"
