#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs a build into an empty prefix and uses it as a stranger would: find_package from examples/, the CUDA part where
# it was built, pkg-config, the command line tool. usage: install_test.sh SOURCE_DIR BUILD_DIR CXX_COMPILER C_COMPILER GENERATOR
set -euo pipefail
source_dir=$1 build_dir=$2 cxx=$3 cc=$4 generator=$5

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix=$work/prefix

cmake --install "$build_dir" --prefix "$prefix" >"$work/install.log"

have_cuda=0
[[ -n $(find "$prefix" -name unweightCudaTargets.cmake) ]] && have_cuda=1

# Nothing but public headers, and none forgotten. Those of the CUDA part come with it.
public_headers() {
  (cd "$source_dir/include" && find . -type f | sort) | if ((have_cuda)); then cat; else grep -vE '(cublas|cuda|pipelines|plan|tune)\.hpp$|_cuda\.h$'; fi
}
diff <(public_headers) <(cd "$prefix/include" && find . -type f | sort)

# The installed package does not know where it was built.
if grep -rlF -e "$source_dir" -e "$build_dir" "$prefix"/lib*/cmake "$prefix"/lib*/pkgconfig; then
  echo "these installed files name the build's own folders" >&2
  exit 1
fi

cmake -G "$generator" -S "$source_dir/examples" -B "$work/examples" \
  -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_BUILD_TYPE=Release \
  -DCMAKE_CXX_COMPILER="$cxx" -DCMAKE_C_COMPILER="$cc" -DCMAKE_C_FLAGS=-Werror -DCMAKE_CXX_FLAGS=-Werror
cmake --build "$work/examples"
programs=$(find "$work/examples" -maxdepth 1 -type f -name 'roundtrip*' -perm -u+x)
[[ -n $programs ]]
while read -r program; do
  echo "$(basename "$program"): $("$program" | tail -n 1)"
  "$program" | grep -qx identical
done <<<"$programs"

# A project without the CUDA language; it runs on machines without a device too, and says that there is none.
cuda_project=(cmake -G "$generator" -S "$source_dir/tests/install/cuda" -B "$work/cuda" -DCMAKE_PREFIX_PATH="$prefix"
  -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER="$cxx" -DCMAKE_C_COMPILER="$cc" -DCMAKE_CXX_FLAGS=-Werror
  -DCMAKE_C_FLAGS=-Werror)
if ((have_cuda)); then
  "${cuda_project[@]}"
  cmake --build "$work/cuda"
  "$work/cuda/device_blob"
  "$work/cuda/device_blob_c"
elif "${cuda_project[@]}" >"$work/cuda.log" 2>&1; then
  echo "find_package(unweight COMPONENTS cuda) succeeds without a CUDA part" >&2
  exit 1
else
  tr -s '\n ' ' ' <"$work/cuda.log" | grep -oF "this unweight was built without its CUDA part"
fi

if command -v pkg-config >/dev/null; then
  PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name unweight.pc)")
  export PKG_CONFIG_PATH
  read -ra flags <<<"$(pkg-config --cflags --libs unweight)"
  "$cxx" -std=c++20 "$source_dir/examples/roundtrip.cpp" "${flags[@]}" -o "$work/roundtrip_pkg_config"
  LD_LIBRARY_PATH=$(dirname "$PKG_CONFIG_PATH") "$work/roundtrip_pkg_config" | grep -qx identical
fi

version=$(sed -n 's/^#define UNWEIGHT_VERSION_STRING "\(.*\)"/\1/p' "$prefix/include/unweight/version.h")
"$prefix/bin/unweight" --version | grep -F "$version"
