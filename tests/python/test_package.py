# SPDX-License-Identifier: Apache-2.0
"""What the package does where something is missing, and that it needs nothing but NumPy to be imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import unweight
from unweight import _library

BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ImportError(name + " is not there")
sys.meta_path.insert(0, Blocker())
"""


def run(code: str, blocked: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "PYTHONPATH": str(Path(unweight.__file__).parents[1]), **environment}
    return subprocess.run(
        [sys.executable, "-c", BLOCKER.format(blocked=blocked) + code],
        capture_output=True,
        text=True,
        env=env,
        check=False,
    )


def test_version():
    root = Path(__file__).parents[2]
    text = (root / "include" / "unweight" / "version.h").read_text()
    assert f'"{unweight.__version__}"' in text


def test_needs_numpy_alone():
    done = run(
        "import numpy, unweight; b = unweight.blob.encode(numpy.zeros((64, 64), numpy.uint16)); "
        "assert not unweight.blob.decode(b).any(); assert 'torch' not in sys.modules; print('fine')",
        ("torch", "transformers", "safetensors"),
    )
    assert done.stdout.strip() == "fine", done.stderr


@pytest.mark.parametrize(
    ("module", "blocked", "message"),
    [
        ("unweight.torch", ("torch",), "Missing: unweight.torch needs PyTorch"),
        ("unweight.transformers", ("transformers",), "Missing: unweight.transformers needs transformers"),
    ],
)
def test_missing_parts_are_named(module, blocked, message):
    done = run(f"import {module}", blocked)
    assert message in done.stderr.strip().splitlines()[-1]


def test_missing_library():
    done = run("import unweight; print('imported'); unweight.__version__", UNWEIGHT_LIBRARY="/nowhere/libunweight.so")
    assert done.stdout.strip() == "imported"
    last = done.stderr.strip().splitlines()[-1]
    assert "Missing: libunweight.so cannot be loaded" in last and "/nowhere" in last


@pytest.mark.skipif(unweight.has_cuda_part(), reason="the library has its CUDA part")
def test_missing_cuda_part():
    with pytest.raises(unweight.errors.Missing, match="no CUDA part"):
        _library.cuda_library()


@pytest.mark.parametrize("code", range(70))
def test_every_status_has_an_exception(code):
    error = unweight.errors.error_of(code, "text")
    assert isinstance(error, unweight.UnweightError) and str(error) == "text" and error.code == code


def test_structures_have_the_sizes_of_the_c_interface():
    """Sizes in the release that introduced them; offsets follow."""
    import ctypes

    sizes = {
        "BlobInfo": 104,
        "DistributionInfo": 96,
        "SliceRange": 48,
        "ProgressStruct": 56,
        "CompressOptions": 56,
        "CompressReport": 112,
        "RestoreOptions": 32,
        "RestoreReport": 48,
        "InspectOptions": 40,
        "InspectSummary": 40,
        "TensorReport": 104,
        "MatmulConfig": 32,
        "MatmulArguments": 72,
        "WeightClass": 40,
        "LinearOptions": 64,
        "DeviceFacts": 32,
        "ChoiceStruct": 120,
        "RefineProgressStruct": 48,
        "RefineOptions": 80,
        "RefineReportStruct": 56,
    }
    for name, size in sizes.items():
        assert ctypes.sizeof(getattr(_library, name)) == size, name
