# SPDX-License-Identifier: Apache-2.0
"""Models: packing their linear and embedding layers in place, and restoring them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import nn

from ..errors import InvalidArgument
from ._device import current_stream, device_blob, on_device
from ._workspace import workspace
from .fuse import fuse_model, unfuse_model
from .modules import _Packed, pack, packed_class, packed_module, unpacked_module
from .plan import Plan, current_plan, keeps_raw

#: Tensors with fewer values stay as they are, as in bundles.
LEAST_VALUES = 4096
#: Why a weight is left raw that could be packed.
KEPT_BY_PLAN = "the plan keeps it raw"


@dataclass
class PackReport:
    """What compress_model() did."""

    packed: list[str] = field(default_factory=list)  #: names of modules
    raw: dict[str, str] = field(default_factory=dict)  #: linear and embedding modules left as they were, and why
    bytes_before: int = 0  #: of the weights of packed modules; a shared one counts once
    bytes_after: int = 0

    def __str__(self) -> str:
        ratio = 16 * self.bytes_after / self.bytes_before if self.bytes_before else 16.0
        return (
            f"{len(self.packed)} modules packed, {self.bytes_before / 2**30:.2f} -> {self.bytes_after / 2**30:.2f} GiB "
            f"({ratio:.2f} bits a weight), {len(self.raw)} left raw"
        )


def why_raw(parent: nn.Module, module: nn.Module) -> str | None:
    """Why a linear or embedding module cannot be packed, whatever its weight; None where it can."""
    if packed_class(type(module)) is None:
        return f"{type(module).__name__} uses its weight itself"
    if "forward" in module.__dict__ and not hasattr(module, "_hf_hook"):
        return "its forward() was replaced"
    if getattr(module, "parametrizations", None) is not None:
        return "its weight is parametrized"
    if isinstance(module, nn.Embedding) and (module.max_norm is not None or module.scale_grad_by_freq or module.sparse):
        return "max_norm, scale_grad_by_freq and sparse are not supported"
    if _reads_weights_of_children(type(parent)):
        return f"{type(parent).__name__} reads its weight"
    return None


def _reads_weights_of_children(parent: type[nn.Module]) -> bool:
    """Such as torch.nn.MultiheadAttention, which hands out_proj.weight to a function."""
    code = getattr(parent.forward, "__code__", None)
    return code is not None and "weight" in code.co_names


def _why_raw_weight(module: nn.Module) -> str | None:
    weight = module.weight
    if not isinstance(weight, torch.Tensor) or weight.dtype != torch.bfloat16:
        return f"its weight is {getattr(weight, 'dtype', type(weight).__name__)}, not torch.bfloat16"
    if weight.device.type == "meta":
        return "its weight is on the meta device"
    if weight.numel() < LEAST_VALUES:
        return f"its weight has fewer than {LEAST_VALUES} values"
    return None


def candidates(model: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Module]]:
    """Name, parent and module of each linear or embedding module that is not packed yet."""
    for parent_name, parent in list(model.named_modules()):
        for child_name, module in list(parent.named_children()):
            if isinstance(module, (nn.Linear, nn.Embedding)) and not isinstance(module, _Packed):
                yield f"{parent_name}.{child_name}" if parent_name else child_name, parent, module


def packed_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module, _Packed]]:
    """Name, parent and module of each packed module."""
    for parent_name, parent in list(model.named_modules()):
        for child_name, module in list(parent.named_children()):
            if isinstance(module, _Packed):
                yield f"{parent_name}.{child_name}" if parent_name else child_name, parent, module


def compress_model(
    model: nn.Module,
    *,
    skip: Sequence[str] = (),
    plan: Plan | None = None,
    fuse: bool = False,
    threads: int = 0,
    progress: Callable[[str], Any] | None = None,
) -> PackReport:
    """Packs the bfloat16 weights of a model's linear and embedding modules, in place.

    Module by module: extra memory is that of one weight. Weights that modules share stay shared. The packed weights are
    frozen; everything else about the model stays as it is. A module whose weight does not become smaller stays raw.

    :param skip: patterns (`fnmatch`) of names of modules to leave alone, such as "*.router"
    :param plan: weights that it keeps raw, by the names of the model's tensors, are left alone; None: current_plan()
    :param fuse: also fuse_model(): q/k/v in one multiplication, and gate/up
    :param threads: of the encoder, which runs on the CPU; 0: one per logical CPU
    :param progress: called with each module's name before it is packed
    """
    report = PackReport()
    shared: dict[int, torch.Tensor | None] = {}  # by the parameter's id, for as long as other modules have it
    asked = plan if plan is not None else current_plan()
    # All of the modules that share such a weight leave it alone, and so its id stays its own.
    kept = {id(module.weight) for name, _, module in candidates(model) if keeps_raw(asked, f"{name}.weight")}
    for name, parent, module in candidates(model):
        reason = why_raw(parent, module) or _why_raw_weight(module)
        if any(fnmatchcase(name, pattern) for pattern in skip):
            reason = "skipped"
        if reason is None and id(module.weight) in kept:
            reason = KEPT_BY_PLAN
        if reason is not None:
            report.raw[name] = reason
            continue
        weight: torch.Tensor = module.weight  # type: ignore[assignment]
        if id(weight) in shared:
            packed = shared[id(weight)]
        else:
            if progress is not None:
                progress(name)
            packed = _pack_if_smaller(weight, threads, report)
        if packed is None:
            report.raw[name] = "its weight does not become smaller"
        else:
            _replace(parent, name.rpartition(".")[2], module, partial(packed_module, packed=packed))
            report.packed.append(name)
        # While some module has the parameter, its id is not given to another one.
        if _is_used(model, weight):
            shared[id(weight)] = packed
        else:
            shared.pop(id(weight), None)
        del weight, module
    if fuse:
        fuse_model(model, threads=threads)
    return report


def _pack_if_smaller(weight: torch.Tensor, threads: int, report: PackReport) -> torch.Tensor | None:
    packed = pack(weight, threads=threads)
    if packed.numel() >= 2 * weight.numel():
        return None
    report.bytes_before += 2 * weight.numel()
    report.bytes_after += packed.numel()
    return packed


def _is_used(model: nn.Module, weight: torch.Tensor) -> bool:
    return any(parameter is weight for module in model.modules() for parameter in module._parameters.values())


def decompress_model(model: nn.Module, *, progress: Callable[[str], Any] | None = None) -> list[str]:
    """The opposite of compress_model(): the original modules, with the original weights bit for bit, as frozen
    parameters. Fused layers come apart again. Returns the names of the modules restored."""
    restored = []
    shared: dict[int, nn.Module] = {}
    unfuse_model(model)
    for name, parent, module in packed_modules(model):
        if progress is not None:
            progress(name)
        key = module.weight.data_ptr()

        def restore(packed: nn.Module, key: int = key) -> nn.Module:
            assert isinstance(packed, _Packed)
            made = unpacked_module(packed, shared.get(key))
            shared[key] = made
            return made

        _replace(parent, name.rpartition(".")[2], module, restore)
        restored.append(name)
    return restored


def _replace(parent: nn.Module, name: str, module: nn.Module, make: Callable[[nn.Module], nn.Module]) -> None:
    """Puts make(module) in the module's place, with the hook that accelerate may have put on it."""
    hook = module.__dict__.get("_hf_hook")
    if hook is None:
        setattr(parent, name, make(module))
        return
    from accelerate.hooks import add_hook_to_module, remove_hook_from_module  # type: ignore[import-untyped]

    remove_hook_from_module(module)
    made = make(module)
    add_hook_to_module(made, hook)
    setattr(parent, name, made)


def prepare(model: nn.Module) -> int:
    """Looks at all packed weights on GPUs now and not at their first use, which waits for the device; needed only
    before a CUDA graph captures a model that has not run yet. Returns how many there are."""
    weights = [module.weight for _, _, module in packed_modules(model) if module.weight.device.type == "cuda"]
    for weight in weights:
        with on_device(weight.device):
            blob = device_blob(weight)
            workspace(weight.device, current_stream(weight.device), blob.workspace_bytes())
    return len(weights)


def prefetch_l2(packed: torch.Tensor, begin_byte: int = 0, size_bytes: int = 1 << 62) -> None:
    """Asks for bytes of a packed weight in the GPU's L2 cache, on the current stream: for the next layer, on a stream
    of its own while attention or other work leaves memory idle. May be captured."""
    if packed.device.type != "cuda":
        raise InvalidArgument(f"packed is on {packed.device}, must be on a GPU", 10)
    with on_device(packed.device):
        device_blob(packed).prefetch(begin_byte, size_bytes, current_stream(packed.device))
