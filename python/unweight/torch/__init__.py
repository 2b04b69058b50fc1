# SPDX-License-Identifier: Apache-2.0
"""PyTorch: modules with packed weights, and the operators below them.

report = unweight.torch.compress_model(model)      # packs linear and embedding layers, in place
unweight.torch.fuse_model(model)                   # optional: q/k/v, and gate/up, in one multiplication each
unweight.torch.decompress_model(model)             # and back, bit for bit

layer = unweight.torch.Linear.from_weight(weight)  # one layer; weight is [out_features, in_features], bfloat16
y = torch.ops.unweight.linear(x, layer.weight, None, layer.out_features)
"""

from __future__ import annotations

from ..errors import Missing

try:
    import torch as _torch
except ImportError as _error:
    raise Missing(f"unweight.torch needs PyTorch, which cannot be imported: {_error}") from _error
del _torch

from .convert import PackReport, compress_model, decompress_model, prefetch_l2, prepare
from .fuse import FusedLinear, FusedPart, fuse_model, unfuse_model
from .modules import Embedding, Linear, pack, unpack
from .plan import Choice, Decoded, Plan, Rules, TunedPlan, current_plan, set_plan, use_plan
from .refine import StepTimer, refine

__all__ = [
    "Choice",
    "Decoded",
    "Embedding",
    "FusedLinear",
    "FusedPart",
    "Linear",
    "PackReport",
    "Plan",
    "Rules",
    "StepTimer",
    "TunedPlan",
    "compress_model",
    "current_plan",
    "decompress_model",
    "fuse_model",
    "pack",
    "prefetch_l2",
    "prepare",
    "refine",
    "set_plan",
    "unfuse_model",
    "unpack",
    "use_plan",
]
