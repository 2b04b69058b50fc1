#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Tests and measures on a machine with a GPU. It needs the driver, compute-sanitizer for the sanitizers, cuBLAS 13 for
# the multiplication, and the programs unweight_gpu_tests, decode_bench, matmul_bench and tune_device, which depend on
# nothing else and may have been built elsewhere; unweight_gpu_file_tests and load_bench need the libraries that lie beside them after
# the build, too. racecheck needs tests built with CUDAFLAGS=-DUNWEIGHT_RACECHECK: arrive()
# in src/cuda/device/small_batch_block.cuh says why. A sanitizer runs shares of the tests in processes side by side.
#
#   bench/gpu/run_all.sh [--parts LIST] [--seconds N] PROGRAMS OUT [COMMIT [OPTION...]]
#
#   PROGRAMS  folder of the programs
#   OUT       folder for logs and results
#   LIST      of tests,files,memcheck,initcheck,synccheck,racecheck,decode,distribution,load,matmul,profile,tune-8b,
#             tune,held-out, separated by commas; all but racecheck, load, profile and the last three by default. load
#             makes 40 GB of files in OUT/load; tune-8b makes a plan for the shapes of Llama-3.1-8B, tune one for those,
#             the 70B model's and Qwen3-0.6B's; held-out makes plans for shapes that no table has: a quick and an
#             exhaustive one
#   N         for tune: about so many seconds of measuring
#   OPTION    for matmul_bench, for example --quick
#
# Exits 1 when a test or a sanitizer fails or a result is wrong.
set -euo pipefail
parts=tests,files,memcheck,initcheck,synccheck,decode,distribution,matmul
if [[ ${1:-} == --parts ]]; then
  parts=${2:?--parts needs a list}
  shift 2
fi
seconds=150
if [[ ${1:-} == --seconds ]]; then
  seconds=${2:?--seconds needs a number}
  shift 2
fi
known='tests|files|memcheck|initcheck|synccheck|racecheck|decode|distribution|load|matmul|profile|tune-8b|tune|held-out'
if (($# < 2)) || [[ ! ,$parts, =~ ^,(($known),)+$ ]]; then
  sed -n '/^#   bench/,/^#   OPTION/s/^# \{0,3\}//p' "$0" >&2
  exit 1
fi
programs=$1
out=$2
commit=${3:-unknown}
shift $(($# < 3 ? $# : 3))
failed=0

chosen() { [[ ,$parts, == *,$1,* ]]; }

report() { # name, status, log
  if (($2 == 0)); then
    echo "$1: passed"
  else
    echo "$1: FAILED with status $2, see $3"
    failed=1
  fi
}

run() { # name, command...
  local name=$1 log=$out/$1.log status=0
  shift
  "$@" >"$log" 2>&1 || status=$?
  report "$name" "$status" "$log"
  ((status == 0)) || tail -n 20 "$log"
}

measure() { # name, command...: shows what the command prints, too
  local name=$1 log=$out/$1.log status=0
  shift
  "$@" 2>&1 | tee "$log" || status=$?
  report "$name" "$status" "$log"
}

# Folder of the first libcublasLt.so.13 found; empty where the loader finds it itself.
cublas_folder() {
  local folder
  if ldconfig -p 2>/dev/null | grep -q 'libcublasLt\.so\.13'; then return; fi
  while read -r folder; do
    if [[ -e $folder/libcublasLt.so.13 && -e $folder/libcublas.so.13 ]]; then
      echo "$folder"
      return
    fi
  done < <(
    tr ':' '\n' <<<"${LD_LIBRARY_PATH:-}"
    printf '%s\n' "${CUDA_PATH:-/usr/local/cuda}/lib64" /usr/local/cuda*/lib64 /usr/local/cuda*/targets/*/lib
    python3 -c 'if True:
      import glob, os, sys
      for folder in sys.path + __import__("site").getsitepackages():
        print("\n".join(glob.glob(os.path.join(folder, "nvidia", "c*", "lib"))))' 2>/dev/null || true
  )
}

shares=16  # of the tests, under a sanitizer

# shellcheck disable=SC2317  # called by run
sanitize() { # tool, filter: prints the shares' logs, one after the other
  local share logs status=0 pids=()
  logs=$(mktemp -d)
  for ((share = 0; share < shares; share++)); do
    GTEST_TOTAL_SHARDS=$shares GTEST_SHARD_INDEX=$share "$sanitizer" --tool "$1" --error-exitcode 1 \
      "$programs/unweight_gpu_tests" --gtest_brief=1 --gtest_filter="$2" >"$logs/$share" 2>&1 &
    pids+=($!)
  done
  for ((share = 0; share < shares; share++)); do
    wait "${pids[share]}" || status=$?
    cat "$logs/$share"
  done
  rm -r "$logs"
  return "$status"
}

mkdir -p "$out"
if chosen tests; then run tests "$programs/unweight_gpu_tests"; fi
if chosen files; then run files "$programs/unweight_gpu_file_tests"; fi
for tool in memcheck initcheck synccheck racecheck; do
  chosen "$tool" || continue
  if ! sanitizer=$(command -v compute-sanitizer); then
    echo "$tool: compute-sanitizer is not installed"
    continue
  fi
  # A tuner that has a second finds too little under a sanitizer.
  filter='-Slow*:*ATunedPlanIsFollowed'
  # racecheck takes minutes: 2 and 4 stages. In the damaged lists of a suite two entries may name one value.
  [[ $tool == racecheck ]] && filter+=':DamagedBlob*:*stages3:*stages5:*stages6:*stages7:*stages8'
  run "$tool" sanitize "$tool" "$filter"
done
if chosen decode; then
  measure decode_bench "$programs/decode_bench" --json "$out/decode.json" --commit "$commit"
fi
if chosen distribution; then
  measure distribution_bench "$programs/decode_bench" --form distribution --json "$out/distribution.json" \
    --commit "$commit"
fi
if chosen load; then
  measure load_bench "$programs/load_bench" --work "$out/load" --json "$out/load.json" --commit "$commit"
fi
if chosen matmul; then
  folder=$(cublas_folder)
  measure matmul_bench env LD_LIBRARY_PATH="${folder:+$folder:}${LD_LIBRARY_PATH:-}" "$programs/matmul_bench" \
    --json "$out/matmul.json" --svg "$out/matmul.svg" --commit "$commit" "$@"
fi
tune() { # name of the result, weights, option...
  local name=$1 weights=$2 folder
  shift 2
  folder=$(cublas_folder)
  measure "$name" env LD_LIBRARY_PATH="${folder:+$folder:}${LD_LIBRARY_PATH:-}" "$programs/tune_device" \
    --weights "$weights" --out "$out/$name.json" "$@"
}
few_tokens=1,2,4,8,16,32,64 many_tokens=128,256,512,1024,2048,4096

if chosen tune-8b; then
  tune plan_8b 6144x4096,4096x4096,28672x4096,4096x14336,128256x4096 --tokens "$few_tokens,$many_tokens" --seconds 45 \
    --command "bench/gpu/run_all.sh --parts tune-8b, commit $commit"
fi
if chosen tune; then
  # qkv, o, gate and up, down, output of each: Llama-3.1-8B, 70B, Qwen3-0.6B
  tune plan 6144x4096,4096x4096,28672x4096,4096x14336,128256x4096,10240x8192,8192x8192,57344x8192,8192x28672,\
128256x8192,4096x1024,1024x2048,6144x1024,1024x3072,151936x1024 --tokens "$few_tokens,$many_tokens,8192,16384" \
    --seconds "$seconds" \
    --command "bench/gpu/run_all.sh --parts tune --seconds $seconds, commit $commit"
fi
if chosen held-out; then
  # Llama-3.2-3B's qkv, and down of a model of that size: the quick plan's choices take part in the exhaustive search.
  tune held_out 5120x3072,3072x8192 --tokens "$few_tokens,$many_tokens" --seconds 15 \
    --command "bench/gpu/run_all.sh --parts held-out, commit $commit"
  tune held_out_exhaustive 5120x3072,3072x8192 --tokens "$few_tokens,$many_tokens" --seconds 60 --exhaustive \
    --incumbent "$out/held_out.json" --command "bench/gpu/run_all.sh --parts held-out, commit $commit"
  measure held_out_missed "$(dirname "$0")/plan_table.py" "$out/held_out.json" "$out/held_out_exhaustive.json"
fi
if chosen profile; then
  # tokens, and the kernel's configuration, for 28672 x 4096
  for kernel in "1 SmallBatchConfig<.unsigned int.2, .unsigned int.1, .bool.0" \
    "64 SmallBatchConfig<.unsigned int.8, .unsigned int.8, .bool.0" "256 LargeBatchConfig<.unsigned int.256, .bool.0"; do
    read -r tokens config <<<"$kernel"
    profile="$out/profile_m$tokens"
    LD_LIBRARY_PATH="$(cublas_folder):${LD_LIBRARY_PATH:-}" run "profile_m$tokens" ncu --clock-control none \
      --set full --kernel-name-base demangled --launch-skip 3 --launch-count 1 -f -o "$profile" \
      -k "regex:$config" \
      "$programs/matmul_bench" --quick --rounds 1 --tokens "$tokens" 28672x4096
    ncu -i "$profile.ncu-rep" --page details >"$profile.txt"
  done
fi
exit $failed
