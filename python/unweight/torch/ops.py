# SPDX-License-Identifier: Apache-2.0
"""Operators for PyTorch: `torch.ops.unweight.*`.

    linear(x, packed, bias, out_features)                    y = x W^T + bias
    linear_input_gradient(gradient, packed, in_features)     gradient W
    embedding(row_numbers, packed, columns)                  rows of W
    decode(packed, rows, columns)                            W

`packed` is a one-dimensional uint8 tensor, one blob of the runtime form that holds a matrix W; everything else is
bfloat16. They run eagerly, under CUDA graphs, on any stream, and are opaque to torch.compile, without graph breaks.
Gradients flow to x, gradient and bias; W has none. Under autocast x, gradient and bias become bfloat16.

On the CPU the weight is decoded for every call: exact, and for tests rather than for use.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from .. import blob as codec
from ..errors import InvalidArgument
from . import plan
from ._device import DeviceBlob, current_stream, device_blob, on_device
from ._workspace import workspace

_definitions = torch.library.Library("unweight", "DEF")
_TAGS = (torch.Tag.pt2_compliant_tag,)
for _schema in (
    "linear(Tensor x, Tensor packed, Tensor? bias, SymInt out_features) -> Tensor",
    "linear_input_gradient(Tensor gradient, Tensor packed, SymInt in_features) -> Tensor",
    "embedding(Tensor row_numbers, Tensor packed, SymInt columns) -> Tensor",
    "decode(Tensor packed, SymInt rows, SymInt columns) -> Tensor",
):
    _definitions.define(_schema, tags=_TAGS)


# ---- arguments ------------------------------------------------------------------------------------------------------


def _check_values(what: str, values: torch.Tensor, packed: torch.Tensor) -> None:
    if values.dtype != torch.bfloat16:
        raise InvalidArgument(
            f"{what} is {values.dtype}, must be torch.bfloat16 as the weights are, or use autocast", 10
        )
    if values.device != packed.device:
        raise InvalidArgument(f"{what} is on {values.device}, the packed weight on {packed.device}", 10)


def _check_matrix(rows: int, cols: int, wanted_rows: int, wanted_cols: int) -> None:
    if (rows, cols) != (wanted_rows, wanted_cols):
        raise InvalidArgument(f"the packed weight is {rows} x {cols}, not {wanted_rows} x {wanted_cols}", 10)


def _check_linear(x: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None, out_features: int) -> None:
    _check_values("x", x, packed)
    if x.dim() == 0:
        raise InvalidArgument("x has no dimensions", 10)
    if bias is not None:
        _check_values("bias", bias, packed)
        if bias.shape != (out_features,):
            raise InvalidArgument(f"bias has shape {tuple(bias.shape)}, must have {out_features} elements", 10)


# ---- on the GPU -----------------------------------------------------------------------------------------------------


def _decoded(blob: DeviceBlob, device: torch.device, stream: int) -> torch.Tensor:
    values = torch.empty((blob.rows, blob.cols), dtype=torch.bfloat16, device=device)
    blob.decode(values, stream)
    return values


def _rows_of(x: torch.Tensor) -> torch.Tensor:
    """As a matrix whose rows are contiguous and do not overlap."""
    matrix = x.reshape(-1, x.shape[-1])
    if matrix.stride(1) != 1 or (matrix.shape[0] > 1 and matrix.stride(0) < matrix.shape[1]):
        return matrix.contiguous()
    return matrix


def _linear_cuda(x: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None, out_features: int) -> torch.Tensor:
    _check_linear(x, packed, bias, out_features)
    with on_device(packed.device):
        blob = device_blob(packed)
        _check_matrix(blob.rows, blob.cols, out_features, x.shape[-1])
        y = x.new_empty((*x.shape[:-1], out_features))
        if y.numel() == 0:
            return y
        stream = current_stream(packed.device)
        matrix = _rows_of(x)
        choice = plan.choose(blob, matrix.shape[0])
        if choice.pipeline == "decoded":
            return F.linear(x, _decoded(blob, packed.device, stream), bias)
        scratch = workspace(packed.device, stream, blob.workspace_bytes()) if choice.needs_workspace else None
        blob.matmul(
            matrix,
            y.view(-1, out_features),
            bias.contiguous() if bias is not None else None,
            choice.config,
            scratch,
            stream,
        )
        return y


def _linear_input_gradient_cuda(gradient: torch.Tensor, packed: torch.Tensor, in_features: int) -> torch.Tensor:
    _check_values("gradient", gradient, packed)
    with on_device(packed.device):
        blob = device_blob(packed)
        _check_matrix(blob.rows, blob.cols, gradient.shape[-1], in_features)
        return torch.matmul(gradient, _decoded(blob, packed.device, current_stream(packed.device)))


def _embedding_cuda(row_numbers: torch.Tensor, packed: torch.Tensor, columns: int) -> torch.Tensor:
    _check_numbers(row_numbers, packed)
    with on_device(packed.device):
        blob = device_blob(packed)
        _check_matrix(blob.rows, blob.cols, blob.rows, columns)
        values = torch.empty((*row_numbers.shape, columns), dtype=torch.bfloat16, device=packed.device)
        blob.gather(row_numbers.to(torch.int64).contiguous(), values, current_stream(packed.device))
        return values


def _decode_cuda(packed: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    with on_device(packed.device):
        blob = device_blob(packed)
        _check_matrix(blob.rows, blob.cols, rows, columns)
        return _decoded(blob, packed.device, current_stream(packed.device))


def _check_numbers(row_numbers: torch.Tensor, packed: torch.Tensor) -> None:
    if row_numbers.dtype not in (torch.int32, torch.int64):
        raise InvalidArgument(f"row_numbers are {row_numbers.dtype}, must be torch.int64 or torch.int32", 10)
    if row_numbers.device != packed.device:
        raise InvalidArgument(f"row_numbers are on {row_numbers.device}, the packed weight on {packed.device}", 10)


# ---- on the CPU -----------------------------------------------------------------------------------------------------


def host_bytes(packed: torch.Tensor) -> codec.Bytes:
    """A packed tensor's bytes, copied where it is not on the CPU."""
    return packed.detach().cpu().contiguous().numpy()


def to_bfloat16(bits: codec.Bits) -> torch.Tensor:
    return torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16)


def _matrix_shape(packed: torch.Tensor) -> tuple[int, int]:
    batch, rows, cols = codec.inspect(host_bytes(packed)).shape
    return batch * rows, cols


def _decoded_cpu(packed: torch.Tensor) -> torch.Tensor:
    return to_bfloat16(codec.decode(host_bytes(packed), check_content=False))


def _linear_cpu(x: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None, out_features: int) -> torch.Tensor:
    _check_linear(x, packed, bias, out_features)
    _check_matrix(*_matrix_shape(packed), out_features, x.shape[-1])
    return F.linear(x, _decoded_cpu(packed), bias)


def _linear_input_gradient_cpu(gradient: torch.Tensor, packed: torch.Tensor, in_features: int) -> torch.Tensor:
    _check_values("gradient", gradient, packed)
    _check_matrix(*_matrix_shape(packed), gradient.shape[-1], in_features)
    return torch.matmul(gradient, _decoded_cpu(packed))


def _embedding_cpu(row_numbers: torch.Tensor, packed: torch.Tensor, columns: int) -> torch.Tensor:
    _check_numbers(row_numbers, packed)
    rows, cols = _matrix_shape(packed)
    _check_matrix(rows, cols, rows, columns)
    if row_numbers.numel() == 0:
        return torch.empty((*row_numbers.shape, columns), dtype=torch.bfloat16)
    numbers, positions = np.unique(row_numbers.numpy(), return_inverse=True)
    if not 0 <= numbers[0] <= numbers[-1] < rows:
        raise IndexError(f"row numbers {numbers[0]} to {numbers[-1]} are outside of 0 to {rows - 1}")
    values = np.empty((numbers.size, cols), dtype=np.uint16)
    data = host_bytes(packed)
    # Rows of one strip of 16 are decoded together.
    strips = np.flatnonzero(np.diff(numbers // 16, prepend=-1))
    for begin, end in zip(strips, [*strips[1:], numbers.size], strict=True):
        first, last = int(numbers[begin]), int(numbers[end - 1])
        values[begin:end] = codec.decode_rows(data, first, last + 1, threads=1)[numbers[begin:end] - first]
    return to_bfloat16(values[positions.reshape(row_numbers.shape)])


def _decode_cpu(packed: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    _check_matrix(*_matrix_shape(packed), rows, columns)
    return _decoded_cpu(packed)


for _name, _cuda, _cpu in (
    ("linear", _linear_cuda, _linear_cpu),
    ("linear_input_gradient", _linear_input_gradient_cuda, _linear_input_gradient_cpu),
    ("embedding", _embedding_cuda, _embedding_cpu),
    ("decode", _decode_cuda, _decode_cpu),
):
    _definitions.impl(_name, _cuda, "CUDA")
    _definitions.impl(_name, _cpu, "CPU")


# ---- shapes, for torch.compile and the meta device ------------------------------------------------------------------


@torch.library.register_fake("unweight::linear", lib=_definitions)
def _(x: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None, out_features: int) -> torch.Tensor:
    return x.new_empty((*x.shape[:-1], out_features))


@torch.library.register_fake("unweight::linear_input_gradient", lib=_definitions)
def _(gradient: torch.Tensor, packed: torch.Tensor, in_features: int) -> torch.Tensor:
    return gradient.new_empty((*gradient.shape[:-1], in_features))


@torch.library.register_fake("unweight::embedding", lib=_definitions)
def _(row_numbers: torch.Tensor, packed: torch.Tensor, columns: int) -> torch.Tensor:
    return packed.new_empty((*row_numbers.shape, columns), dtype=torch.bfloat16)


@torch.library.register_fake("unweight::decode", lib=_definitions)
def _(packed: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    return packed.new_empty((rows, columns), dtype=torch.bfloat16)


# ---- gradients ------------------------------------------------------------------------------------------------------


def _linear_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    x, packed, bias, _ = inputs
    ctx.save_for_backward(packed)
    ctx.in_features = x.shape[-1]
    ctx.has_bias = bias is not None


def _linear_backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    (packed,) = ctx.saved_tensors
    of_x = of_bias = None
    if ctx.needs_input_grad[0]:
        of_x = torch.ops.unweight.linear_input_gradient(gradient, packed, ctx.in_features)
    if ctx.has_bias and ctx.needs_input_grad[2]:
        of_bias = gradient.reshape(-1, gradient.shape[-1]).sum(0)
    return of_x, None, of_bias, None


def _gradient_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    gradient, packed, _ = inputs
    ctx.save_for_backward(packed)
    ctx.out_features = gradient.shape[-1]


def _gradient_backward(ctx: Any, second: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    (packed,) = ctx.saved_tensors
    return torch.ops.unweight.linear(second, packed, None, ctx.out_features), None, None


torch.library.register_autograd("unweight::linear", _linear_backward, setup_context=_linear_context, lib=_definitions)
torch.library.register_autograd(
    "unweight::linear_input_gradient", _gradient_backward, setup_context=_gradient_context, lib=_definitions
)
for _device_type in ("cuda", "cpu"):
    for _name in ("linear", "linear_input_gradient"):
        torch.library.register_autocast(f"unweight::{_name}", _device_type, torch.bfloat16, lib=_definitions)
