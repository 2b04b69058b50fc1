# SPDX-License-Identifier: Apache-2.0
"""Plans for tests, and steps of a model that are simulated."""

from __future__ import annotations

import json
import re
from typing import Any

import unweight
from unweight.plan import PlanFile

GPU = "Simulated GPU"
KERNELS = "0123456789abcdef"


def fused(
    strips: int = 2, stages: int = 4, split: bool = False, warpgroup: bool = False, us: float = 10
) -> dict[str, Any]:
    config = {
        "strips": strips,
        "stages": stages,
        "split": split,
        "dependent_launch": False,
        "warpgroup": warpgroup,
    }
    return {"pipeline": "fused", "config": config, "us": us, "noise": 0.01}


def decoded(us: float = 10) -> dict[str, Any]:
    return {"pipeline": "decoded", "algorithm": "0123456789abcdef" * 8, "us": us, "noise": 0.01}


def cell(tokens: int, *choices: dict[str, Any], isolated: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {"tokens": tokens, "cublas_us": 12, "isolated": isolated or list(choices), "dependent": list(choices)}


def weight(rows: int, cols: int, *cells: dict[str, Any]) -> dict[str, Any]:
    return {"rows": rows, "cols": cols, "layout": "tiled", "exceptions": "usual", "bytes": 1000, "cells": list(cells)}


def matrices(kind: str, names: list[str], raw: int, rows: int = 64, cols: int = 64) -> dict[str, Any]:
    return {
        "kind": kind,
        "rows": rows,
        "cols": cols,
        "exceptions": "usual",
        "compressed_bytes": 1000,
        "raw_bytes": 2000,
        "raw": raw,
        "names": names,
    }


def plan_text(
    weights: list[dict[str, Any]],
    kinds: list[dict[str, Any]] | None = None,
    *,
    gpu: str = GPU,
    multiprocessors: int = 132,
    kernels: str = KERNELS,
    dependent_launch: bool = True,
) -> str:
    return json.dumps(
        {
            "unweight_plan": 1,
            "gpu": {"name": gpu, "multiprocessors": multiprocessors, "memory_bytes": 80 << 30},
            "software": {
                "driver": "580.1",
                "cuda": "13.0",
                "cublaslt": 130000,
                "library": unweight.__version__,
                "kernels": kernels,
            },
            "date": "2026-01-01T00:00:00Z",
            "command": "test",
            "request": {
                "objective": "balanced",
                "batch_sizes": [8],
                "memory_budget_bytes": 0,
                "dependent_launch": dependent_launch,
                "model": "",
                "other_bytes": 0,
                "kv_bytes_per_token": 0,
            },
            "matrices": kinds or [],
            "weights": weights,
        }
    )


def real_text(
    weights: list[dict[str, Any]],
    kinds: list[dict[str, Any]] | None = None,
    *,
    gpu: str = GPU,
    multiprocessors: int = 132,
) -> str:
    """A plan for this library's kernels, whose hash it tells where a plan is for others. Needs the CUDA part."""
    from unweight.torch._device import WeightClass, resolve

    foreign = PlanFile.parse(plan_text([], gpu=gpu, multiprocessors=multiprocessors))
    (note,) = resolve(WeightClass(64, 64, 1, 0), 1, foreign, False, (gpu, multiprocessors)).notes
    kernels = re.search(r"this library has ([0-9a-f]{16})", note)
    assert kernels, note
    return plan_text(weights, kinds, gpu=gpu, multiprocessors=multiprocessors, kernels=kernels[1])


def two_weights(**options: Any) -> str:
    """Two weights, each with one cell for 8 tokens of three choices: by their stages 2, 3, 4 in this order."""
    choices = [fused(stages=2, us=10), fused(stages=3, us=11), fused(stages=4, us=12)]
    return plan_text([weight(64, 64, cell(8, *choices)), weight(128, 64, cell(8, *choices))], **options)


def chosen_stages(plan: PlanFile, which: str = "dependent") -> list[int]:
    """Of the first choice of each weight's only cell."""
    return [entry["cells"][0][which][0]["config"]["stages"] for entry in json.loads(plan.text)["weights"]]


class SimulatedStep:
    """A step whose time depends on the choices by other figures than the plan has: stages=4 are the fastest for both
    weights. Without noise."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, plan: PlanFile) -> float:
        self.calls += 1
        return 1000 + sum({2: 100, 3: 90, 4: 50}[stages] for stages in chosen_stages(plan))
