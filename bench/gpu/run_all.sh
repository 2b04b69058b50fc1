#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Tests and measures on a machine with a GPU. It needs the driver, compute-sanitizer for the sanitizers, and the two
# programs unweight_gpu_tests and decode_bench, which depend on nothing else and may have been built elsewhere.
#
#   bench/gpu/run_all.sh PROGRAMS OUT [COMMIT]     folder of the programs, folder for logs and results
#
# Exits 1 when a test or a sanitizer fails.
set -euo pipefail
programs=$1
out=$2
commit=${3:-unknown}
failed=0

run() { # name, command...
  local name=$1 log=$out/$1.log
  shift
  if "$@" >"$log" 2>&1; then
    echo "$name: passed"
  else
    echo "$name: FAILED, see $log"
    tail -n 20 "$log"
    failed=1
  fi
}

mkdir -p "$out"
run tests "$programs/unweight_gpu_tests"
if sanitizer=$(command -v compute-sanitizer); then
  for tool in memcheck initcheck synccheck racecheck; do
    filter='-Slow*'
    # In the damaged lists of that suite two entries may name one value.
    [[ $tool == racecheck ]] && filter='-Slow*:DamagedBlob*'
    run "$tool" "$sanitizer" --tool "$tool" --error-exitcode 1 "$programs/unweight_gpu_tests" --gtest_brief=1 \
      --gtest_filter="$filter"
  done
else
  echo "compute-sanitizer: not installed"
fi
"$programs/decode_bench" --json "$out/decode.json" --commit "$commit" | tee "$out/decode_bench.log"
exit $failed
