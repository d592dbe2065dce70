#!/usr/bin/env bash
# Collects freely licensed photographs for super-resolution in FOLDER/train, validation and test.
#
#   ./launch/get_photographs.sh [FOLDER]       # default: runs/photographs in this checkout
#
# 36 large ones come from four Debian packages (167 MB), which are unpacked without root and kept in
# FOLDER/packages, and 7 small ones from scikit-image and scikit-learn; without apt-get and dpkg-deb
# these alone are taken. What each picture's licence is, its package says; none is copied into this
# repository. A photograph stands in one split, whatever is cut from it. What is there already stays.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

folder="${1:-$root/runs/photographs}"
packages="mate-backgrounds lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 plasma-workspace-wallpapers"
tests=" life friends Picture_1A LadyBird EveningGlow astronaut coffee chelsea "
validation=" TwoWings picosdeeuropa Path rocket "
# The other pictures of the packages are drawings, or copies of these in other sizes.
drawn=" analogpattern umang Fossa Infinite-Sea Painting-Colors Autumn Elarun FlyingKonqui "

# keep FILE NAME: copies a photograph into its split.
keep() {
  local split=train name="${2%%_by_*}"
  case "$drawn" in *" $name "*) return ;; esac
  case "$tests" in *" $name "*) split="test" ;; esac
  case "$validation" in *" $name "*) split=validation ;; esac
  local target="$folder/$split/$name.${1##*.}"
  [ -f "$target" ] && return
  if ! { cp "$1" "$folder/$split/.$name.incomplete" && mv "$folder/$split/.$name.incomplete" "$target"; }; then
    fail "cannot write $target"
  fi
}

# superres.sh has done so, with more extras.
if [ -n "${JAXGAN_PREPARED:-}" ]; then python="$venv/bin/python"; else prepare samples; fi
mkdir -p "$folder/train" "$folder/validation" "$folder/test" || fail "cannot write to $folder"
if command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then
  mkdir -p "$folder/packages"
  for package in $packages; do
    unpacked="$folder/packages/$package"
    if [ ! -d "$unpacked" ]; then
      echo "Fetching $package ..."
      if ! (cd "$folder/packages" && apt-get download -qq "$package" 2>.log); then
        echo "${0##*/}: $package cannot be fetched ($(tail -1 "$folder/packages/.log")); going on without it" >&2
        continue
      fi
      rm -rf "$unpacked.incomplete"
      if ! { dpkg-deb -x "$folder/packages/$package"_*.deb "$unpacked.incomplete" &&
        mv "$unpacked.incomplete" "$unpacked"; }; then
        fail "cannot unpack $package into $folder"
      fi
      rm -f "$folder/packages/$package"_*.deb
    fi
    for file in "$unpacked"/usr/share/backgrounds/*_by_*.jpg "$unpacked"/usr/share/backgrounds/mate/nature/*.jpg; do
      [ -f "$file" ] && keep "$file" "$(basename "${file%.*}")"
    done
    for file in "$unpacked"/usr/share/wallpapers/*/contents/images/2560x1600.jpg; do
      [ -f "$file" ] && keep "$file" "$(basename "${file%/contents/*}")"
    done
  done
else
  echo "${0##*/}: apt-get and dpkg-deb are not here; the small photographs of scikit-image and scikit-learn are all" >&2
fi
"$python" - <<'END' | while read -r file; do keep "$file" "$(basename "${file%.*}")"; done
from jaxgan_compress.data import sample_images
for folder, names in ((sample_images.installed('skimage') / 'data', (
    'astronaut.png', 'chelsea.png', 'coffee.png', 'rocket.jpg', 'motorcycle_left.png')), (
    sample_images.installed('sklearn') / 'datasets/images', ('china.jpg', 'flower.jpg'))):
  for name in names:
    print(folder / name)
END
for split in train validation test; do
  echo "$folder/$split: $(find "$folder/$split" -type f ! -name '.*' | wc -l) photographs"
done
