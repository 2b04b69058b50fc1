#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds the wheel without the CUDA part, as `pip install .` does, installs it into an environment of its own, and runs
# the tests there from another folder. usage: wheel_test.sh REPOSITORY BUILD_FOLDER
set -euo pipefail
root=$1 work=$2/wheel_test
python=${UNWEIGHT_PYTHON:-$root/build/venv/bin/python}
[[ -x $python ]] || python=python3
for module in numpy pytest scikit_build_core; do
  if ! "$python" -c "import $module" 2>/dev/null; then
    echo "$python has no $module: skipped (scripts/bootstrap --test installs it)"
    exit 77
  fi
done
rm -rf "$work"
mkdir -p "$work"
export CMAKE_BUILD_PARALLEL_LEVEL=${UNWEIGHT_JOBS:-$(nproc)}
# Without optimisation: it is the package that is tested.
"$python" -m pip wheel "$root" --no-deps --no-build-isolation --no-index --wheel-dir "$work" \
  --config-settings "build-dir=$work/build" --config-settings cmake.build-type=Debug \
  --config-settings cmake.define.UNWEIGHT_CUDA=OFF >"$work/build.log" 2>&1 || {
  cat "$work/build.log"
  exit 1
}
wheels=("$work"/unweight-*-py3-none-*.whl)
if [[ ${#wheels[@]} != 1 || ! -e ${wheels[0]} ]]; then
  echo "expected one wheel for any Python 3, found: ${wheels[*]}"
  exit 1
fi
"$python" -m pip install --quiet --no-deps --no-index --target "$work/site" "${wheels[0]}"
[[ -e $work/site/unweight/py.typed ]]
# Nothing of the system but the C library; what else there is comes along.
needed=$(ldd "$work/site/unweight/lib/libunweight.so")
if grep -q 'not found' <<<"$needed" || ! grep -q "$work/site/unweight/lib/libsimdjson" <<<"$needed" ||
  grep -Eq 'libcrypto' <<<"$needed"; then
  echo "$needed"
  exit 1
fi
mkdir "$work/tests"
cp "$root"/tests/python/{conftest,test_blob,test_checkpoint}.py "$work/tests"
cd "$work/tests"
env -u UNWEIGHT_LIBRARY PYTHONPATH="$work/site" "$python" -m pytest --quiet -p no:cacheprovider .
rm -rf "$work"
