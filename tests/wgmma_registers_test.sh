#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The machine code of the kernels that multiply with wgmma, checked by wgmma_registers.py; exits 77 where nvdisasm or
# python3 is missing. usage: wgmma_registers_test.sh REPOSITORY NVCC
set -euo pipefail
cd "$1"
nvcc=$2
nvdisasm=$(PATH="$PATH:$(dirname "$nvcc")" command -v nvdisasm) || {
  echo "nvdisasm is not installed"
  exit 77
}
command -v python3 >/dev/null || {
  echo "python3 is not installed"
  exit 77
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for file in src/cuda/instances/sm90_small_batch_{tiled,raw}_warpgroup.cu src/cuda/instances/sm90_large_batch_{tiled,raw}.cu; do
  name=$(basename "$file" .cu)
  "$nvcc" -std=c++20 -O3 -DNDEBUG -I include -I src --generate-code=arch=compute_90a,code=sm_90a -cubin \
    -o "$work/$name.cubin" "$file"
  "$nvdisasm" -c "$work/$name.cubin" >"$work/$name.sass"
done
python3 tests/wgmma_registers.py "$work"/*.sass
