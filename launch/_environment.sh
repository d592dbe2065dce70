# shellcheck shell=bash disable=SC2034
# Sourced by the scripts next to it: makes .venv with this checkout and the extras named, at the
# tested versions, and leaves $root, $python and $constraints. Says one clear line and exits where
# it cannot.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="${JAXGAN_VENV:-$root/.venv}"

fail() {
  echo "${0##*/}: $*" >&2
  exit 1
}

find_python() {
  local name
  for name in ${JAXGAN_PYTHON:-python3.11 python3.12 python3.13 python3.14 python3 python}; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$name"
      return
    fi
  done
  fail "no Python 3.11 or newer was found${JAXGAN_PYTHON:+ in JAXGAN_PYTHON=$JAXGAN_PYTHON}; install one, for example: apt-get install python3 python3-venv"
}

# prepare EXTRA[,EXTRA...]
prepare() {
  local base version stamp free
  python="$venv/bin/python"
  if [ ! -x "$python" ]; then
    base="$(find_python)" || exit 1
    mkdir -p "$venv" || fail "cannot write to $venv"
    free="$(df -Pm "$venv" | awk 'NR == 2 {print $4}')"
    [ "${free:-0}" -ge 2500 ] || fail "$free MiB are free for $venv and 2500 are needed; make room, or set JAXGAN_VENV to another place"
    echo "Making $venv with $("$base" --version) ..."
    "$base" -m venv "$venv" >/dev/null || { rm -rf "$venv"; false; } || fail "$base cannot make a virtual environment; on Debian: apt-get install python3-venv"
  fi
  version="$("$python" -c 'import sys; print(f"py{sys.version_info[0]}{sys.version_info[1]}")')" || fail "$python does not run; remove $venv and try again"
  constraints="$root/constraints/$version.txt"
  [ -f "$constraints" ] || constraints="$root/constraints/py312.txt"
  # Installed once for each set of requirements.
  stamp="$venv/.jaxgan_$(cat "$root/setup.py" "$constraints" <(echo "$root $1") | cksum | cut -d' ' -f1)"
  if [ ! -f "$stamp" ]; then
    echo "Installing jaxgan_compress [$1] and its libraries (about 1.2 GB, a minute or two) ..."
    "$python" -m pip install --quiet --disable-pip-version-check --constraint "$constraints" --editable "${root}[$1]" ||
      fail "installation failed (see above); it needs a network that reaches the package index, and 2.5 GB of disk. Run me again to go on"
    touch "$stamp"
  fi
}
