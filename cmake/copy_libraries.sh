#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Copies the shared libraries that a program needs, but for those of the C library and the driver, to its folder, where a
# machine that has nothing installed finds them. usage: copy_libraries.sh PROGRAM
set -euo pipefail
folder=$(dirname "$1")
ldd "$1" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | while read -r library; do
  case $(basename "$library") in
    libc.so.* | libm.so.* | libpthread.so.* | libdl.so.* | librt.so.* | libcuda.so.* | ld-linux*) continue ;;
  esac
  [[ $(dirname "$library") -ef $folder ]] || cp --update --dereference "$library" "$folder/"
done
