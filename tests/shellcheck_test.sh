#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Every shell script passes shellcheck; exits 77 where that is not installed. usage: shellcheck_test.sh REPOSITORY
set -euo pipefail
cd "$1"
command -v shellcheck >/dev/null || {
  echo "shellcheck is not installed"
  exit 77
}
mapfile -t scripts < <(
  {
    find .ci scripts tests bench examples -type f -name '*.sh'
    grep -rlE --exclude-dir=data --exclude-dir=results '^#!.*\bbash$' .ci scripts tests bench examples
  } | sort -u
)
shellcheck --external-sources "${scripts[@]}"
echo "${#scripts[@]} scripts are clean"
