#!/usr/bin/env bash
# A run on a Cloud TPU slice: made, set up, trained on all its hosts, deleted.
#
#   export TPU_NAME=gan TPU_ZONE=us-west4-a TPU_TYPE=v5litepod-16 TPU_BUCKET=my-bucket
#   ./launch/tpu_pod.sh create             # queued; TPU_SPOT=1 for a cheaper, preemptible one
#   ./launch/tpu_pod.sh setup              # this checkout and its environment on every host
#   ./launch/tpu_pod.sh train --config=cat/horse2zebra:path=tfds --workdir=runs/zebra
#   ./launch/tpu_pod.sh delete
#
# `setup` mounts the bucket at ~/runs on every host (gcsfuse), which all see: give --workdir below
# it. `train` starts again what a preemption stopped (exit code 75), and failures TPU_RETRIES times
# (3). A slice that was taken away is to be deleted and created again; the run goes on from the
# bucket. TPU_VERSION is the image (default tpu-ubuntu2204-base), TPU_PROJECT a project.
set -u
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

fail() {
  echo "tpu_pod.sh: $*" >&2
  exit 2
}

name="${TPU_NAME:-}" zone="${TPU_ZONE:-}"
[ "${name:+x}${zone:+x}" = xx ] || fail "set TPU_NAME and TPU_ZONE; see the head of this file"
command -v gcloud >/dev/null || fail "gcloud is not installed"
where=(--zone "$zone")
[ -z "${TPU_PROJECT:-}" ] || where+=(--project "$TPU_PROJECT")

everywhere() {
  gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker=all --command="$1"
}

create() {
  local spot=() state=""
  [ -n "${TPU_TYPE:-}" ] || fail "set TPU_TYPE, as v5litepod-16"
  [ -z "${TPU_SPOT:-}" ] || spot=(--spot)
  gcloud compute tpus queued-resources create "$name" --node-id "$name" "${where[@]}" \
    --accelerator-type "$TPU_TYPE" --runtime-version "${TPU_VERSION:-tpu-ubuntu2204-base}" \
    ${spot[@]+"${spot[@]}"} || exit 1
  while [ "$state" != ACTIVE ]; do
    state="$(gcloud compute tpus queued-resources describe "$name" "${where[@]}" \
      --format='value(state.state)')" || exit 1
    echo "$name: $state"
    case "$state" in
      ACTIVE) ;;
      FAILED | SUSPENDED) fail "$name is $state; delete it and create it again" ;;
      *) sleep "${TPU_POLL:-30}" ;;
    esac
  done
}

setup() {
  local archive
  [ -n "${TPU_BUCKET:-}" ] || fail "set TPU_BUCKET; runs are kept there"
  archive="$(mktemp -d)/jaxgan.tar.gz"
  git -C "$root" archive --format=tar.gz --prefix=jaxgan/ HEAD -o "$archive" || exit 1
  gcloud compute tpus tpu-vm scp "$archive" "$name:jaxgan.tar.gz" "${where[@]}" --worker=all ||
    exit 1
  everywhere "tar xzf jaxgan.tar.gz && ./jaxgan/launch/tpu_host.sh $TPU_BUCKET"
}

# Every host says with which code it ended; gcloud itself only says whether all was well.
train() {
  local failures=0 output code
  output="$(mktemp)"
  while true; do
    everywhere "cd ~ && JAXGAN_DISTRIBUTED=auto ./jaxgan/.venv/bin/jaxgan-compress train $(
      printf '%q ' "$@"); echo JAXGAN_EXIT=\$?" 2>&1 | tee "$output"
    code="$(sed -n 's/.*JAXGAN_EXIT=\([0-9]*\).*/\1/p' "$output" | sort -n | uniq | tr '\n' ' ')"
    case " $code" in
      " 0 ") exit 0 ;;
      *" 1 "* | *" 2 "* | *" 126 "* | *" 127 "* | *" 129 "* | *" 130 "*)
        fail "the hosts ended with ${code}" # a mistake, which would come again
        ;;
      " 75 " | " 0 75 ") echo "tpu_pod.sh: saved and stopped; starting again" ;;
      *)
        failures=$((failures + 1))
        [ "$failures" -le "${TPU_RETRIES:-3}" ] || fail "failed $failures times (${code:-no answer})"
        echo "tpu_pod.sh: the hosts ended with ${code:-no answer}; starting again"
        sleep "$((failures * ${TPU_POLL:-30}))"
        ;;
    esac
  done
}

delete() {
  gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet
}

verb="${1:-}"
case "$verb" in
  create | setup | delete) "$verb" ;;
  train)
    shift
    [ "$#" -gt 0 ] || fail "train wants --config and --workdir"
    train "$@"
    ;;
  *) fail "${verb:-no verb}; one of create, setup, train, delete" ;;
esac
