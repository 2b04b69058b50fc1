#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs the shell commands of README.md that stand in a fence right below a line `<!-- tested -->`, in the order of the
# page and in one folder, where my-model/ is a tiny checkpoint; compares the fences below `<!-- file: PATH -->` with the
# file they quote, and looks for those below `<!-- from: PATH -->` in it. usage: readme_test.sh SOURCE_DIR FOLDER_OF_THE_TOOL
set -euo pipefail
source_dir=$1
PATH=$2:$PATH
readme=$source_dir/README.md

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# fences MARKER: the contents of the fences that follow a line equal to MARKER.
fences() {
  awk -v marker="$1" '
    inside && /^```$/ { inside = 0; next }
    inside { print; next }
    $0 == marker { armed = 1; next }
    armed && /^```[a-z]+$/ { inside = 1; armed = 0; next }
    armed { print "README.md:" NR ": no fence below " marker > "/dev/stderr"; exit 1 }
    END { if (inside) { print "README.md: a fence does not end" > "/dev/stderr"; exit 1 } }
  ' "$readme"
}

fences '<!-- tested -->' >"$work/commands.sh"
grep -q 'unweight compress' "$work/commands.sh" || {
  echo "README.md has no tested command" >&2
  exit 1
}
mkdir "$work/here"
unweight synth --model tiny-llama-test "$work/here/my-model" >/dev/null
(cd "$work/here" && bash -euxo pipefail "$work/commands.sh" </dev/null)

while read -r path; do
  fences "<!-- file: $path -->" | diff - "$source_dir/$path" || {
    echo "README.md quotes $path, but not as it is" >&2
    exit 1
  }
done < <(sed -n 's/^<!-- file: \(.*\) -->$/\1/p' "$readme")

# Each such file is quoted once, in consecutive lines.
while read -r path; do
  [[ $(<"$source_dir/$path") == *"$(fences "<!-- from: $path -->")"* ]] || {
    echo "README.md quotes lines that $path does not have" >&2
    exit 1
  }
done < <(sed -n 's/^<!-- from: \(.*\) -->$/\1/p' "$readme")
