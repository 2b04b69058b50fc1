#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Dependencies run one way. Each folder may include its own files and those listed for it here; system headers are
# listed where only some are allowed. usage: includes_test.sh REPOSITORY
set -euo pipefail
cd "$1"

# folder | project folders it may include | third-party headers it may include (regular expression)
rules='
include/unweight | unweight                                          | tl/expected\.hpp
src/format       | unweight format                                   | tl/expected\.hpp|fmt/.*
src/codec        | unweight format codec                             | tl/expected\.hpp|fmt/.*|xxhash\.h
src/io           | unweight format codec io                          | tl/expected\.hpp|fmt/.*|simdjson\.h|openssl/.*
src/tune         | unweight format codec io tune                     | tl/expected\.hpp|fmt/.*|simdjson\.h
src/capi         | unweight format codec io tune capi                | tl/expected\.hpp|fmt/.*
src/cuda/ptx     | cuda/ptx                                          | cuda.*
src/cuda/device  | format cuda/ptx cuda/device                       | cuda.*|vector_types\.h
src/cuda/kernels | format cuda/ptx cuda/device cuda/kernels          | cuda.*
src/cuda/instances | format cuda/ptx cuda/device cuda/kernels cuda/instances | cuda.*
src/cuda/launch  | unweight format codec cuda                        | dlfcn\.h|tl/expected\.hpp|fmt/.*|cu.*
src/pipelines    | unweight format codec io tune capi cuda pipelines | dlfcn\.h|tl/expected\.hpp|fmt/.*|cu.*
src/cuda/loader  | unweight format codec io capi cuda                | tl/expected\.hpp|fmt/.*|cu.*
tools/unweight   | unweight                                          | tl/expected\.hpp|fmt/.*|CLI/.*
tools/tune_device | unweight                                         | tl/expected\.hpp|fmt/.*|CLI/.*
examples         | unweight                                          |
'

# Names with a slash or an extension that the C library and POSIX provide; all other names of the standard library have
# neither.
posix='(sys|netinet|linux)/.*|(assert|errno|fcntl|inttypes|limits|math|poll|pthread|sched|signal|spawn|stdbool|stddef|stdint|stdio|stdlib|string|time|unistd|immintrin|dirent)\.h'

include_line='^[[:space:]]*#[[:space:]]*include[[:space:]]*(["<])([^">]+)[">]'
failures=0
checked=0
while IFS='|' read -r folder own third_party; do
  folder=${folder// /}
  [[ -n $folder && -d $folder ]] || continue
  read -ra allowed_folders <<<"$own"
  # The rest of the line: the regular expression may itself contain bars.
  third_party=${third_party// /}
  while IFS=: read -r file line text; do
    checked=$((checked + 1))
    [[ $text =~ $include_line ]] || continue
    quote=${BASH_REMATCH[1]}
    name=${BASH_REMATCH[2]}
    # The tool's own files lie in one folder and are not reached from elsewhere.
    if [[ $quote == '"' || ($folder == tools/unweight && -e $folder/$name) ]]; then
      [[ $folder == tools/unweight ]] && continue
      printf '%s:%s: "%s" must be included as <folder/file>\n' "$file" "$line" "$name"
      failures=$((failures + 1))
      continue
    fi
    [[ $name =~ ^[a-z_0-9]+$ || $name =~ ^($posix)$ ]] && continue
    [[ -n $third_party && $name =~ ^($third_party)$ && ! -e src/$name ]] && continue
    for allowed in "${allowed_folders[@]}"; do
      [[ $name == "$allowed"/* ]] && continue 2
    done
    printf '%s:%s: %s may not include <%s>\n' "$file" "$line" "$folder" "$name"
    failures=$((failures + 1))
  done < <(grep -rnE '^[[:space:]]*#[[:space:]]*include' "$folder" \
    --include='*.cpp' --include='*.hpp' --include='*.h' --include='*.c' --include='*.cu' --include='*.cuh')
done <<<"$rules"

if ((checked == 0)); then
  echo "no include lines found in $1"
  exit 1
fi
echo "$checked include lines, $failures against the rules"
((failures == 0))
