# SPDX-License-Identifier: Apache-2.0
"""What the tests share. GPU tests are those marked `gpu`; they skip themselves where there is none."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import unweight


def trained_bits(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """bfloat16 bit patterns distributed as trained weights are: normal, with a scale for each row."""
    random = np.random.default_rng(seed)
    scale = 0.02 * np.exp2(0.5 * random.standard_normal((*shape[:-1], 1)))
    values = (random.standard_normal(shape) * scale).astype(np.float32)
    return ((values.view(np.uint32) + 0x8000) >> 16).astype(np.uint16)


def every_value(rows: int = 256, cols: int = 768) -> np.ndarray:
    """All 65,536 bit patterns among trained weights: infinities, NaN payloads, subnormals, -0."""
    bits = trained_bits((rows, cols), 7).reshape(-1)
    bits[:: bits.size // 65536][:65536] = np.arange(65536, dtype=np.uint16)
    return bits.reshape(rows, cols)


def assert_same(found, wanted, device: str) -> None:
    """Bit for bit on the CPU; on a GPU the same product by way of another call may sum in another order."""
    import torch

    if device == "cpu":
        assert torch.equal(found, wanted)
    else:
        torch.testing.assert_close(found, wanted, rtol=0.03, atol=0.03)


def gpu_problem() -> str | None:
    """Why GPU tests cannot run here."""
    torch = pytest.importorskip("torch")
    if not unweight.has_cuda_part():
        return "the library has no CUDA part"
    if not torch.cuda.is_available():
        return "no GPU"
    if torch.cuda.get_device_capability() != (9, 0):
        return f"GPU of compute capability {torch.cuda.get_device_capability()}, the kernels are for 9.0"
    return None


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        problem = gpu_problem()
        if problem:
            pytest.skip(problem)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """The same random numbers on every run."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
