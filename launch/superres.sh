#!/usr/bin/env bash
# Compresses a published super-resolution GAN, Real-ESRGAN x4plus, on real photographs: fetches both,
# records what x4plus makes of patches, cuts students from the published compact network, trains
# them, and ends with a report, exports for phones (ncnn) and ONNX Runtime, and a whole photograph.
#
#   ./launch/superres.sh [WORKDIR]       # default: runs/superres in this checkout
#
# About a quarter of an hour on two idle cores. Interrupt it and run it again: it goes on where it was. Without
# Debian's tools it takes the photographs of scikit-image and scikit-learn alone, and says so.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

workdir="${1:-$root/runs/superres}"
photographs="$workdir/photographs" recorded="$workdir/recorded" run="$workdir/run"
prepare samples,superres,export
jaxgan="$venv/bin/jaxgan-compress"

# count SPLIT: its photographs.
count() { find "$photographs/$1" -type f ! -name '.*' | wc -l; }

step() { echo && echo "$*"; }

step "1 of 5: photographs"
JAXGAN_PREPARED=1 "$root/launch/get_photographs.sh" "$photographs" || exit 1

step "2 of 5: what x4plus makes of patches of them"
# Some 250 patches to learn from, and 24 to test on, whatever the number of photographs.
"$jaxgan" record --network=realesrgan:x4plus --input="$photographs" --output="$recorded" \
  --each=$((250 / $(count train) + 1)) --each_held_out=$((24 / $(count test))) || exit

step "3 of 5: students of 48, 32, 24 and 16 channels, and sharp ones"
"$jaxgan" train --config="superres/real_esrgan:sharp,path=$recorded${JAXGAN_ARGUMENTS:+,$JAXGAN_ARGUMENTS}" \
  --workdir="$run" || exit

for student in w32 sharp32; do
  step "4 of 5: $student for other programs"
  if [ -d "$workdir/export/$student" ]; then
    echo "$workdir/export/$student: exported before"
  else
    "$jaxgan" export --workdir="$run" --generator="$student" --to=onnx,ncnn \
      --output="$workdir/export/$student" || exit
  fi
done

step "5 of 5: a photograph of the test, whole, four times as large"
"$jaxgan" generate --workdir="$run" --generator=sharp32 --input="$photographs/test/coffee.png" \
  --output="$workdir/coffee_x4.png" --overwrite || exit
echo
echo "Open $run/report.html"
