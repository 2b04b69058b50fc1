# SPDX-License-Identifier: Apache-2.0
"""Modules whose weight is packed: in place of torch.nn.Linear and torch.nn.Embedding, which they are subclasses of.

The weight is a buffer named `weight`, one-dimensional and uint8: the blob as a bundle stores it, under the same name.
So state dicts, .to(), deepcopy and pickling work as usual; the weight is frozen.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .. import blob as codec
from ..errors import InvalidArgument
from . import ops


def pack(weight: torch.Tensor, *, threads: int = 0) -> torch.Tensor:
    """A bfloat16 matrix as a packed tensor on the same device. Encodes on the CPU."""
    if weight.dtype != torch.bfloat16 or weight.dim() != 2:
        raise InvalidArgument(f"weight is {weight.dtype} {tuple(weight.shape)}, must be a bfloat16 matrix", 10)
    bits = weight.detach().cpu().contiguous().view(torch.int16).numpy().view("uint16")
    return torch.from_numpy(codec.encode(bits, threads=threads)).to(weight.device)


def unpack(packed: torch.Tensor, *, threads: int = 0) -> torch.Tensor:
    """The bfloat16 matrix of a packed tensor, on the same device."""
    if packed.device.type == "cuda":
        rows, cols = packed_shape(packed)
        return torch.ops.unweight.decode(packed, rows, cols)  # type: ignore[no-any-return]
    return ops.to_bfloat16(codec.decode(ops.host_bytes(packed), threads=threads))


def packed_shape(packed: torch.Tensor) -> tuple[int, int]:
    """Rows and columns of a packed tensor, from its header."""
    if packed.device.type == "cuda":
        from ._device import device_blob, on_device

        with on_device(packed.device):
            blob = device_blob(packed)
        return blob.rows, blob.cols
    batch, rows, cols = codec.inspect(ops.host_bytes(packed)).shape
    if batch != 1:
        raise InvalidArgument(f"the packed tensor holds {batch} matrices, must hold one", 10)
    return rows, cols


class _Packed(nn.Module):
    """What the two have in common. `weight` may be on the meta device, to be filled in later."""

    weight: torch.Tensor
    #: The class that decompress_model() makes again.
    unpacked_class: type[nn.Module]

    def _matrix(self) -> tuple[int, int]:
        raise NotImplementedError

    def _set_packed(self, packed: torch.Tensor) -> None:
        if packed.dtype != torch.uint8 or packed.dim() != 1:
            raise InvalidArgument(f"packed is {packed.dtype} {tuple(packed.shape)}, must be one-dimensional uint8", 10)
        if packed.device.type != "meta" and packed_shape(packed) != self._matrix():
            found, wanted = packed_shape(packed), self._matrix()
            raise InvalidArgument(f"packed holds {found[0]} x {found[1]} values, not {wanted[0]} x {wanted[1]}", 10)
        self.register_buffer("weight", packed)

    def decoded_weight(self) -> torch.Tensor:
        """The original weight: a new bfloat16 tensor on the weight's device."""
        return unpack(self.weight)

    @property
    def bits_per_weight(self) -> float:
        rows, cols = self._matrix()
        return 8 * self.weight.numel() / max(1, rows * cols)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Blobs of other values have other sizes; and a plain bfloat16 weight is packed."""
        key = prefix + "weight"
        given = state_dict.get(key)
        if isinstance(given, torch.Tensor) and given.dtype == torch.bfloat16 and tuple(given.shape) == self._matrix():
            state_dict[key] = given = pack(given)
        if isinstance(given, torch.Tensor) and given.dtype == torch.uint8 and given.dim() == 1:
            found = packed_shape(given) if given.device.type != "meta" else self._matrix()
            if found != self._matrix():
                args[-1].append(f"{key}: holds {found[0]} x {found[1]} values, not {self._matrix()}")
            elif given.shape != self.weight.shape:
                self.weight = torch.empty_like(given, device=self.weight.device)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def reset_parameters(self) -> None:
        """Nothing: the weight is what it is."""


class Linear(_Packed, nn.Linear):
    """y = x W^T + bias with a packed W.

    :param packed: the blob, or a tensor on the meta device in its place
    :param bias: a bfloat16 parameter of `out_features` elements, or None
    """

    unpacked_class = nn.Linear

    def __init__(
        self, in_features: int, out_features: int, packed: torch.Tensor, bias: torch.Tensor | None = None
    ) -> None:
        nn.Module.__init__(self)
        self.in_features = in_features
        self.out_features = out_features
        self._set_packed(packed)
        if bias is not None and not isinstance(bias, nn.Parameter):
            bias = nn.Parameter(bias, requires_grad=False)
        self.register_parameter("bias", bias)

    @classmethod
    def from_weight(cls, weight: torch.Tensor, bias: torch.Tensor | None = None, *, threads: int = 0) -> Linear:
        """From a bfloat16 matrix `[out_features, in_features]`."""
        return cls(weight.shape[1], weight.shape[0], pack(weight, threads=threads), bias)

    def _matrix(self) -> tuple[int, int]:
        return self.out_features, self.in_features

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return torch.ops.unweight.linear(  # type: ignore[no-any-return]
            input, self.weight, self.bias, self.out_features
        )

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, "
            f"bits_per_weight={self.bits_per_weight:.2f}"
        )


class Embedding(_Packed, nn.Embedding):
    """Rows of a packed matrix. On a GPU a row number out of range gives a row of NaN, not an error."""

    unpacked_class = nn.Embedding

    def __init__(
        self, num_embeddings: int, embedding_dim: int, packed: torch.Tensor, padding_idx: int | None = None
    ) -> None:
        nn.Module.__init__(self)
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = padding_idx
        # What torch.nn.Embedding's users may look at; only these values are supported.
        self.max_norm = None
        self.norm_type = 2.0
        self.scale_grad_by_freq = False
        self.sparse = False
        self._set_packed(packed)

    @classmethod
    def from_weight(cls, weight: torch.Tensor, padding_idx: int | None = None, *, threads: int = 0) -> Embedding:
        """From a bfloat16 matrix `[num_embeddings, embedding_dim]`."""
        return cls(weight.shape[0], weight.shape[1], pack(weight, threads=threads), padding_idx)

    def _matrix(self) -> tuple[int, int]:
        return self.num_embeddings, self.embedding_dim

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return torch.ops.unweight.embedding(  # type: ignore[no-any-return]
            input, self.weight, self.embedding_dim
        )

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}, bits_per_weight={self.bits_per_weight:.2f}"


# ---- subclasses of torch.nn's modules, such as an embedding that is scaled ------------------------------------------


_twins: dict[type[nn.Module], type[_Packed] | None] = {nn.Linear: Linear, nn.Embedding: Embedding}


def packed_class(original: type[nn.Module]) -> type[_Packed] | None:
    """The packed twin of a class, or None where there is none.

    A subclass of torch.nn.Linear or torch.nn.Embedding has one if all that it does with its weight goes through
    super().forward(): the twin's forward() is the subclass's own, whose super() is the packed module.
    """
    if original not in _twins:
        _twins[original] = _make_twin(original)
    return _twins[original]


def _make_twin(original: type[nn.Module]) -> type[_Packed] | None:
    for base, packed in ((nn.Linear, Linear), (nn.Embedding, Embedding)):
        if issubclass(original, base) and not issubclass(original, _Packed) and _leaves_weight_to(original, base):
            members: dict[str, Any] = {"unpacked_class": original}
            if _is_scaled_embedding(original):
                members["forward"] = _scaled_forward
            twin = type(original.__name__, (_PicklesByOriginal, original, packed), members)
            twin.__module__ = __name__
            twin.__doc__ = f"{original.__module__}.{original.__qualname__} with a packed weight."
            return twin
    return None


class _ScaledEmbedding(nn.Embedding):
    """As transformers' Gemma and others have it: never used, but compared with."""

    embed_scale: torch.Tensor

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input) * self.embed_scale.to(self.weight.dtype)


def _scaled_forward(self: Any, input: torch.Tensor) -> torch.Tensor:
    """The same for a packed weight, whose dtype is not that of its values."""
    scale: torch.Tensor = self.embed_scale
    return Embedding.forward(self, input) * scale.to(torch.bfloat16)


def _is_scaled_embedding(original: type[nn.Module]) -> bool:
    """Whether forward() is, instruction for instruction, that of _ScaledEmbedding."""
    code, reference = getattr(original.forward, "__code__", None), _ScaledEmbedding.forward.__code__
    return code is not None and (code.co_code, code.co_names, code.co_freevars, code.co_nlocals) == (
        reference.co_code,
        reference.co_names,
        reference.co_freevars,
        reference.co_nlocals,
    )


def _leaves_weight_to(original: type[nn.Module], base: type[nn.Module]) -> bool:
    if base is nn.Embedding and _is_scaled_embedding(original):
        return True
    for ancestor in original.__mro__[: original.__mro__.index(base)]:
        forward = vars(ancestor).get("forward")
        if forward is None:
            continue
        code = getattr(forward, "__code__", None)
        if code is None or "weight" in code.co_names or "super" not in code.co_names:
            return False
    return True


class _PicklesByOriginal:
    """Classes made at run time have no name to be imported by."""

    unpacked_class: type[nn.Module]

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _empty_twin, (self.unpacked_class,), self.__dict__.copy()


def _empty_twin(original: type[nn.Module]) -> nn.Module:
    twin = packed_class(original)
    if twin is None:
        raise InvalidArgument(f"{original.__qualname__} has no packed twin in this version", 10)
    return twin.__new__(twin)


def packed_module(module: nn.Module, packed: torch.Tensor) -> _Packed:
    """A packed module in place of `module`, with everything of it but the weight."""
    twin = packed_class(type(module))
    if twin is None:
        raise InvalidArgument(f"{type(module).__qualname__} has no packed twin", 10)
    return _swap_weight(module, twin, packed, as_buffer=True)  # type: ignore[return-value]


def unpacked_module(module: _Packed, shares_with: nn.Module | None = None) -> nn.Module:
    """The original module with its weight as a frozen parameter, or with that of a module that has it already."""
    if shares_with is not None:
        weight = shares_with.weight
    else:
        weight = nn.Parameter(module.decoded_weight(), requires_grad=False)
    return _swap_weight(module, module.unpacked_class, weight, as_buffer=False)  # type: ignore[arg-type]


def _swap_weight(module: nn.Module, new_class: type[nn.Module], weight: torch.Tensor, *, as_buffer: bool) -> nn.Module:
    made = new_class.__new__(new_class)
    made.__dict__.update(
        {name: value.copy() if isinstance(value, (dict, set)) else value for name, value in module.__dict__.items()}
    )
    made._parameters.pop("weight", None)
    made._buffers.pop("weight", None)
    if as_buffer:
        made._set_packed(weight)  # type: ignore[operator]
    else:
        # First, as torch.nn's modules have it: the order of state dicts.
        others = dict(made._parameters)
        made._parameters.clear()
        made.register_parameter("weight", weight)  # type: ignore[arg-type]
        made._parameters.update(others)
    return made
