# SPDX-License-Identifier: Apache-2.0
"""Layers that multiply the same activations, as one multiplication: query, key and value; gate and up.

The model's own code stays: each layer is replaced by a part of a fused one. The first part that is called multiplies
for all of them, and the others take their columns of the result, as long as they are called with the same tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from .. import blob as codec
from . import ops
from .modules import Linear, pack

#: Children that are fused where a module has all of them, and the name of the fused one.
GROUPS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("q_proj", "k_proj", "v_proj"), "qkv_proj_packed"),
    (("gate_proj", "up_proj"), "gate_up_proj_packed"),
)


class FusedLinear(Linear):
    """Several linear layers' rows in one packed weight."""

    def __init__(self, in_features: int, parts: Sequence[int], packed: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__(in_features, sum(parts), packed, bias)
        self.parts = tuple(parts)
        self._input: torch.Tensor | None = None
        self._outputs: list[torch.Tensor | None] = []

    def part(self, input: torch.Tensor, index: int) -> torch.Tensor:
        """The output of one part. What was computed for the other parts is kept until they ask for it."""
        if self._input is not input or not self._outputs or self._outputs[index] is None:
            self._input = input
            self._outputs = list(self(input).split(self.parts, dim=-1))
        output = self._outputs[index]
        assert output is not None
        self._outputs[index] = None
        if all(kept is None for kept in self._outputs):
            self._input, self._outputs = None, []
        return output

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_input": None, "_outputs": []}


class FusedPart(nn.Linear):
    """One of the layers that a FusedLinear computes."""

    def __init__(self, fused: FusedLinear, index: int, original: type[nn.Module]) -> None:
        nn.Module.__init__(self)
        self._fused = (fused,)  # not a submodule: its parent has it already
        self.index = index
        self.in_features = fused.in_features
        self.out_features = fused.parts[index]
        self.unpacked_class = original

    @property
    def weight(self) -> torch.Tensor:  # type: ignore[override]
        """The whole fused weight: for its device, not its values."""
        return self._fused[0].weight

    @property
    def bias(self) -> torch.Tensor | None:  # type: ignore[override]
        whole = self._fused[0].bias
        return whole[self.row_begin : self.row_begin + self.out_features] if whole is not None else None

    @property
    def row_begin(self) -> int:
        """The part's first row of the fused weight."""
        return sum(self._fused[0].parts[: self.index])

    def decoded_weight(self) -> torch.Tensor:
        """The part's original weight: a new bfloat16 tensor on the weight's device."""
        packed, end = self.weight, self.row_begin + self.out_features
        if packed.device.type == "cuda":
            rows = torch.arange(self.row_begin, end, device=packed.device)
            return torch.ops.unweight.embedding(rows, packed, self.in_features)  # type: ignore[no-any-return]
        return ops.to_bfloat16(codec.decode_rows(ops.host_bytes(packed), self.row_begin, end))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self._fused[0].part(input, self.index)

    def reset_parameters(self) -> None:
        """Nothing: the weight is what it is."""

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, part {self.index} of a fused layer"


def fuse_model(model: nn.Module, *, threads: int = 0) -> list[str]:
    """Fuses packed layers of all modules that have a group of GROUPS, in place. Decodes and encodes again, on the CPU.

    Only plain packed layers of one device, all or none with a bias. Returns the names of the fused layers.
    """
    fused_names = []
    for name, parent in list(model.named_modules()):
        for members, fused_name in GROUPS:
            layers = [getattr(parent, member, None) for member in members]
            if not all(type(layer) is Linear for layer in layers):
                continue
            if not _belong_together(layers):  # type: ignore[arg-type]
                continue
            _fuse(parent, members, fused_name, layers, threads)  # type: ignore[arg-type]
            fused_names.append(f"{name}.{fused_name}" if name else fused_name)
    return fused_names


def _belong_together(layers: Sequence[Linear]) -> bool:
    first = layers[0]
    return all(
        layer.in_features == first.in_features
        and layer.weight.device == first.weight.device
        and (layer.bias is None) == (first.bias is None)
        and "_hf_hook" not in layer.__dict__
        for layer in layers
    )


def _fuse(parent: nn.Module, members: Sequence[str], fused_name: str, layers: Sequence[Linear], threads: int) -> None:
    device = layers[0].weight.device
    rows = torch.cat([layer.decoded_weight().cpu() for layer in layers])
    bias = torch.cat([layer.bias for layer in layers]) if layers[0].bias is not None else None
    fused = FusedLinear(
        layers[0].in_features, [layer.out_features for layer in layers], pack(rows, threads=threads).to(device), bias
    )
    fused.train(layers[0].training)
    setattr(parent, fused_name, fused)
    for index, member in enumerate(members):
        part = FusedPart(fused, index, layers[index].unpacked_class)
        part.train(layers[index].training)
        setattr(parent, member, part)


def unfuse_model(model: nn.Module) -> list[str]:
    """The opposite of fuse_model(): packed layers of their own. Returns the names of the layers that were fused."""
    names = []
    for name, parent in list(model.named_modules()):
        for members, fused_name in GROUPS:
            if not isinstance(getattr(parent, fused_name, None), FusedLinear):
                continue
            for member in members:
                part = getattr(parent, member)
                bias = nn.Parameter(part.bias.clone(), requires_grad=False) if part.bias is not None else None
                layer = Linear.from_weight(part.decoded_weight(), bias)
                layer.train(part.training)
                setattr(parent, member, layer)
            delattr(parent, fused_name)
            names.append(f"{name}.{fused_name}" if name else fused_name)
    return names
