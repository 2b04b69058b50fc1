# SPDX-License-Identifier: Apache-2.0
"""What happens to a tensor between its file and its place in the model, in transformers' loader."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers.core_model_loading import ConversionOps, WeightConverter

from .. import blob as codec
from ..bundle import StoredTensor, check_blob
from ..errors import InvalidData
from ..torch import ops
from ..torch.convert import why_raw
from ..torch.modules import pack, packed_module, unpack


def to_runtime(tensor: torch.Tensor, stored: StoredTensor, threads: int) -> torch.Tensor:
    """A blob of either form as a packed tensor on the same device. Distribution blobs go through the CPU."""
    if stored.form == "runtime":
        return tensor
    recoded = codec.transcode(ops.host_bytes(tensor), to="runtime", threads=threads)
    return torch.from_numpy(recoded).to(tensor.device)


def to_values(tensor: torch.Tensor, stored: StoredTensor, threads: int) -> torch.Tensor:
    """The matrix that a blob holds, or a batch of them, on the same device."""
    assert stored.matrix is not None
    if tensor.device.type == "cuda" and stored.form == "runtime" and stored.matrix[0] == 1:
        return unpack(tensor)
    data = ops.host_bytes(tensor)
    check_blob(stored, data)
    return ops.to_bfloat16(codec.decode(data, form=stored.form or "runtime", threads=threads)).to(tensor.device)


class _Op(ConversionOps):
    """One tensor in, under the only source pattern; out under all target patterns, which are whole names."""

    def convert(
        self, input_dict: dict[str, Any], source_patterns: list[str], target_patterns: list[str], **kwargs: Any
    ) -> dict[str, Any]:
        (given,) = input_dict.values()
        tensor = given[0] if isinstance(given, list) else given
        return self.place(tensor, target_patterns, kwargs["model"])

    def place(self, tensor: torch.Tensor, targets: Sequence[str], model: Any) -> dict[str, Any]:
        raise NotImplementedError


class PlaceBlob(_Op):
    """A blob into one packed module, or into several that share it."""

    def __init__(self, stored: StoredTensor, threads: int) -> None:
        self.stored = stored
        self.threads = threads

    def place(self, tensor: torch.Tensor, targets: Sequence[str], model: Any) -> dict[str, Any]:
        packed = to_runtime(tensor, self.stored, self.threads)
        for target in targets:
            # Shared already: the loader's own tying is for parameters.
            model.all_tied_weights_keys.pop(target, None)
        return dict.fromkeys(targets, packed)


class PlaceValues(_Op):
    """A tensor that stays raw: decoded where it is a blob, copied where several parameters have its values."""

    def __init__(self, stored: StoredTensor, threads: int) -> None:
        self.stored = stored
        self.threads = threads

    def place(self, tensor: torch.Tensor, targets: Sequence[str], model: Any) -> dict[str, Any]:
        if self.stored.form is not None:
            tensor = to_values(tensor, self.stored, self.threads)
        placed = {}
        for i, target in enumerate(targets):
            wanted = model.get_parameter_or_buffer(target)
            if wanted.numel() != tensor.numel():
                raise InvalidData(f"'{self.stored.name}' has {tensor.numel()} values, '{target}' {wanted.numel()}", 33)
            values = tensor.reshape(wanted.shape).to(wanted.dtype)
            placed[target] = values if i == 0 else values.clone()
        return placed


class DecodeBlobs(ConversionOps):
    """In front of the operations of one of the model's own conversions: blobs among its inputs become values."""

    def __init__(self, blobs: dict[str, StoredTensor], threads: int) -> None:
        self.blobs = blobs
        self.threads = threads

    def convert(
        self, input_dict: dict[str, Any], source_patterns: list[str], target_patterns: list[str], **_: Any
    ) -> dict[str, Any]:
        return {
            pattern: [self._decoded(tensor) for tensor in tensors]
            if isinstance(tensors, list)
            else self._decoded(tensors)
            for pattern, tensors in input_dict.items()
        }

    def _decoded(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dtype != torch.uint8 or tensor.dim() != 1:
            return tensor
        head = bytes(tensor[:56].cpu().numpy().tobytes())
        form: codec.Form = "distribution" if head[:8] == b"UNWTDIST" else "runtime"
        values = ops.to_bfloat16(codec.decode(ops.host_bytes(tensor), form=form, threads=self.threads))
        return values.to(tensor.device)

    @property
    def reverse_op(self) -> ConversionOps:
        return _Unchanged()


class _Unchanged(ConversionOps):
    """When a model is saved its values are written, and the compressor makes blobs of them."""

    def convert(
        self, input_dict: dict[str, Any], source_patterns: list[str], target_patterns: list[str], **_: Any
    ) -> dict[str, Any]:
        return input_dict


class PackValues(ConversionOps):
    """A BF16 weight, packed as it is loaded; its module, and those tied to it, become packed ones."""

    def __init__(self, threads: int, report: Any) -> None:
        self.threads = threads
        self.report = report

    def convert(
        self, input_dict: dict[str, Any], source_patterns: list[str], target_patterns: list[str], **kwargs: Any
    ) -> dict[str, Any]:
        model, full_layer_name = kwargs["model"], kwargs["full_layer_name"]
        (given,) = input_dict.values()
        weight = given[0] if isinstance(given, list) else given
        names = [full_layer_name, *tied_names(model, full_layer_name)]
        packed = pack(weight, threads=self.threads)
        if packed.numel() >= 2 * weight.numel() or any(why_raw(*_parent_and_module(model, n)) for n in names):
            self.report.raw[full_layer_name.removesuffix(".weight")] = "its weight does not become smaller"
            return {full_layer_name: weight}
        for target in names:
            replace_by_packed(model, target, torch.empty_like(packed, device="meta"))
            model.all_tied_weights_keys.pop(target, None)
            self.report.packed.append(target.removesuffix(".weight"))
        self.report.bytes_before += 2 * weight.numel()
        self.report.bytes_after += packed.numel()
        return dict.fromkeys(names, packed)


def tied_names(model: Any, name: str) -> list[str]:
    """Other parameters that the model ties to this one."""
    groups = model.all_tied_weights_keys
    source = groups.get(name, name)
    members = [source, *(target for target, of in groups.items() if of == source)]
    return [member for member in members if member != name] if len(members) > 1 else []


def _parent_and_module(model: nn.Module, weight_name: str) -> tuple[nn.Module, nn.Module]:
    path = weight_name.removesuffix(".weight")
    return model.get_submodule(path.rpartition(".")[0]), model.get_submodule(path)


def can_pack(model: nn.Module, weight_name: str) -> str | None:
    """Why the parameter of that name cannot be packed; None where it can. Does not look at its values."""
    if not weight_name.endswith(".weight"):
        return "it is no module's weight"
    parent, module = _parent_and_module(model, weight_name)
    if not isinstance(module, (nn.Linear, nn.Embedding)):
        return f"{type(module).__name__} is no linear or embedding layer"
    return why_raw(parent, module)


def replace_by_packed(model: nn.Module, weight_name: str, packed: torch.Tensor) -> None:
    """Puts a packed module in the place of a parameter's module."""
    parent, module = _parent_and_module(model, weight_name)
    setattr(parent, weight_name.removesuffix(".weight").rpartition(".")[2], packed_module(module, packed))


def converter(source: str, targets: Sequence[str], operation: ConversionOps) -> WeightConverter:
    """For exactly one tensor, by its whole name."""
    return WeightConverter(
        source_patterns=[f"^{re.escape(source)}$"], target_patterns=list(targets), operations=[operation]
    )
