#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs tests of the Python package from the source tree. usage: run_tests.sh core|torch|gpu REPOSITORY LIBRARY [PYTEST
# OPTION...]
#
#   core   NumPy alone
#   torch  PyTorch and transformers, on the CPU
#   gpu    those that need a GPU; LIBRARY must have been built with the CUDA part
#
# UNWEIGHT_PYTHON names the interpreter; by default that of build/venv, which scripts/bootstrap makes, or python3.
set -euo pipefail
part=$1 root=$2 library=$3
shift 3
python=${UNWEIGHT_PYTHON:-$root/build/venv/bin/python}
[[ -x $python ]] || python=python3

needs=(numpy pytest)
case $part in
  core) tests=(test_blob.py test_checkpoint.py test_package.py test_plan.py) ;;
  torch | gpu)
    needs+=(torch transformers peft)
    tests=(test_torch_ops.py test_torch_models.py test_torch_plan.py test_transformers.py test_trained_model.py)
    ;;
  *)
    echo "unknown part '$part'; known: core torch gpu" >&2
    exit 1
    ;;
esac
marks=(-m "not gpu")
if [[ $part == gpu ]]; then
  tests+=(test_gpu.py test_gpu_plan.py)
  marks=(-m gpu)
fi
for module in "${needs[@]}"; do
  if ! "$python" -c "import $module" 2>/dev/null; then
    echo "$python has no $module: skipped (scripts/bootstrap --test --torch installs it)"
    exit 77
  fi
done
export PYTHONPATH=$root/python${PYTHONPATH:+:$PYTHONPATH} UNWEIGHT_LIBRARY=$library PYTHONDONTWRITEBYTECODE=1
cd "$root/tests/python"
exec "$python" -m pytest --quiet --show-capture=no --override-ini "addopts=--strict-markers" -p no:cacheprovider \
  "${marks[@]}" "$@" "${tests[@]}"
