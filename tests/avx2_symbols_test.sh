#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Objects compiled for AVX2 must not define inline functions that other objects define too: the linker keeps one of the
# copies, and a CPU without AVX2 would run it. usage: avx2_symbols_test.sh ARCHIVE
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

mapfile -t members < <(ar t "$1" | grep '_avx2\.cpp\.o$')
((${#members[@]})) || {
  echo "$1 has no _avx2 objects"
  exit 77
}
ar x "$1" "${members[@]}"
if nm --demangle --defined-only "${members[@]}" | grep -E '^[0-9a-f]+ [WVu] '; then
  echo "the symbols above are shared with code for any CPU"
  exit 1
fi
