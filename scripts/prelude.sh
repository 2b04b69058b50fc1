# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Sourced by the scripts beside it: strict mode, the repository's root as working directory, quiet steps.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
build_root=${UNWEIGHT_BUILD_ROOT:-$root/build}
jobs=${UNWEIGHT_JOBS:-$(nproc)}
script=scripts/$(basename "$0")

# die MESSAGE...: one line on stderr, exit 1.
die() {
  printf '%s: %s\n' "$script" "$*" >&2
  exit 1
}

# quietly NAME COMMAND...: says what runs and how long it took; shows the command's output only when it fails.
quietly() {
  local name=$1 log start=$SECONDS
  shift
  mkdir -p "$build_root/logs"
  log=$build_root/logs/${name//[^A-Za-z0-9]/-}.log
  printf '%-44s' "$name"
  if "$@" >"$log" 2>&1 </dev/null; then
    printf ' %4d s\n' $((SECONDS - start))
  else
    local status=$?
    printf ' FAILED\n'
    cat "$log" >&2
    printf '%s: %s failed with status %d; log: %s\n' "$script" "$name" "$status" "$log" >&2
    exit "$status"
  fi
}

# configure PRESET [CMAKE_ARGUMENT...]
configure() {
  local preset=$1
  shift
  quietly "configure $preset" cmake --preset "$preset" -B "$build_root/$preset" "$@"
}

# build PRESET [TARGET...]
build() {
  local preset=$1 arguments=()
  shift
  (($#)) && arguments=(--target "$@")
  quietly "build $preset" cmake --build "$build_root/$preset" --parallel "$jobs" "${arguments[@]}"
}
