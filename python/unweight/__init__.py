# SPDX-License-Identifier: Apache-2.0
"""Lossless compression of BF16 model weights, in a form that GPU kernels read directly.

    unweight.compress("model", "bundle")           # whole checkpoints (unweight.checkpoint)
    unweight.blob.encode(array)                    # one tensor, NumPy (unweight.blob)
    unweight.plan.PlanFile                         # plans of `unweight tune` (unweight.plan)
    unweight.torch.Linear                          # packed layers (needs PyTorch)
    import unweight.transformers                   # from_pretrained() loads bundles (needs transformers)

Importing this package needs NumPy alone.
"""

from __future__ import annotations

from . import blob, checkpoint, errors, plan
from ._library import has_cuda_part
from ._library import version as library_version
from .checkpoint import compress, decompress, finish, inspect, transcode, verify
from .errors import UnweightError

__all__ = [
    "UnweightError",
    "__version__",
    "blob",
    "checkpoint",
    "compress",
    "decompress",
    "errors",
    "finish",
    "has_cuda_part",
    "inspect",
    "library_version",
    "plan",
    "transcode",
    "verify",
]


def __getattr__(name: str) -> str:
    # Not at import: a missing library is reported when it is needed.
    if name == "__version__":
        return library_version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
