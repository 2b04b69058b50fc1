# SPDX-License-Identifier: Apache-2.0
"""One tensor, one blob, on the CPU, with NumPy arrays.

Values are 16-bit bfloat16 bit patterns: arrays of dtype uint16 (or of ml_dtypes' bfloat16, which is taken as it is),
of rank 2 `[rows, cols]` or 3 `[batch, rows, cols]`. Blobs are one-dimensional arrays of dtype uint8; anything with a
contiguous buffer is accepted.

The functions of `unweight.blob` are for the runtime form, which GPU kernels read as it is; each takes
`form="distribution"` for the smaller form that storage and transfer use.
"""

from __future__ import annotations

import ctypes
from ctypes import byref, c_size_t
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from . import _library
from ._library import check, library, sized
from .errors import InvalidArgument

Form = Literal["runtime", "distribution"]
Bits = npt.NDArray[np.uint16]
Bytes = npt.NDArray[np.uint8]

_LAYOUTS = {"runtime": ("raw", "tiled"), "distribution": ("raw", "coded")}


@dataclass(frozen=True)
class BlobInfo:
    """What a blob's header and tables say."""

    form: Form
    shape: tuple[int, int, int]  #: batch, rows, cols
    layout: str  #: "raw"; "tiled" (runtime) or "coded" (distribution)
    blob_bytes: int  #: whole blob; bytes that follow it are ignored
    value_bytes: int  #: the tensor it stands for
    bits_per_weight: float
    exception_count: int  #: values stored with their exponents: exceptions, or escapes
    content_checksum: int  #: of the tensor, the same in both forms
    format_version: tuple[int, int]


def _name(form: Form, function: str) -> Any:
    if form not in _LAYOUTS:
        raise InvalidArgument(f"form = {form!r} must be 'runtime' or 'distribution'", 10)
    prefix = "unweight_distribution_" if form == "distribution" else "unweight_"
    return getattr(library(), prefix + function)


def _as_bytes(blob: Any) -> Bytes:
    array = np.frombuffer(blob, dtype=np.uint8) if not isinstance(blob, np.ndarray) else blob
    if array.dtype != np.uint8 or array.ndim != 1 or not array.flags.c_contiguous:
        raise InvalidArgument(
            f"a blob must be a contiguous one-dimensional array of uint8, not {array.dtype} {array.shape}", 10
        )
    return array


def _as_bits(values: Any) -> Bits:
    array = np.asarray(values)
    if array.dtype.itemsize != 2 or array.dtype.name not in ("uint16", "bfloat16"):
        raise InvalidArgument(f"values must be bfloat16 bit patterns (uint16 or bfloat16), not {array.dtype}", 10)
    return np.ascontiguousarray(array).view(np.uint16)


def _matrices(shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) == 2:
        return (1, shape[0], shape[1])
    if len(shape) == 3:
        return (shape[0], shape[1], shape[2])
    raise InvalidArgument(f"shape {shape} must be [rows, cols] or [batch, rows, cols]", 10)


def encode(values: Any, *, form: Form = "runtime", threads: int = 0) -> Bytes:
    """Encodes a tensor. The blob is a pure function of the values and the shape.

    :param values: bfloat16 bit patterns, `[rows, cols]` or `[batch, rows, cols]`
    :param threads: how many to use; 0: one per logical CPU. Releases the GIL.
    """
    bits = _as_bits(values)
    shape = _library.MatrixShape(*_matrices(bits.shape))
    bound, size = c_size_t(), c_size_t()
    check(library().unweight_encode_bound(byref(shape), byref(bound)))
    # The memory beyond the blob's size is never touched: it costs address space only.
    out = np.empty(bound.value, dtype=np.uint8)
    check(
        _name(form, "encode")(
            bits.ctypes.data, bits.size, byref(shape), threads, out.ctypes.data, out.size, byref(size)
        )
    )
    return out[: size.value].copy()


def inspect(blob: Any, *, form: Form = "runtime") -> BlobInfo:
    """Validates header and tables, not the payload's checksums, and says what the blob holds."""
    data = _as_bytes(blob)
    info = sized(_library.DistributionInfo if form == "distribution" else _library.BlobInfo)
    check(_name(form, "inspect")(data.ctypes.data, data.size, byref(info)))
    return _info(info, form)


def verify(blob: Any, *, form: Form = "runtime", threads: int = 0) -> BlobInfo:
    """Checks every checksum of a blob: header, payload, and the decoded tensor."""
    data = _as_bytes(blob)
    info = sized(_library.DistributionInfo if form == "distribution" else _library.BlobInfo)
    check(_name(form, "verify_blob")(data.ctypes.data, data.size, threads, byref(info)))
    return _info(info, form)


def _info(info: Any, form: Form) -> BlobInfo:
    return BlobInfo(
        form=form,
        shape=(info.shape.batch, info.shape.rows, info.shape.cols),
        layout=_LAYOUTS[form][info.layout],
        blob_bytes=info.blob_bytes,
        value_bytes=info.value_bytes,
        bits_per_weight=info.bits_per_weight,
        exception_count=info.escape_count if form == "distribution" else info.exception_count,
        content_checksum=info.content_checksum,
        format_version=(info.version_major, info.version_minor),
    )


def decode(
    blob: Any, *, form: Form = "runtime", threads: int = 0, out: Bits | None = None, check_content: bool = True
) -> Bits:
    """The whole tensor: uint16 `[rows, cols]`, or `[batch, rows, cols]` where batch is not 1.

    :param out: receives the values: contiguous, uint16, of as many elements as the tensor
    :param check_content: compare the checksum of the decoded tensor with the recorded one
    """
    data = _as_bytes(blob)
    batch, rows, cols = inspect(data, form=form).shape
    shape = (rows, cols) if batch == 1 else (batch, rows, cols)
    values = np.empty(shape, dtype=np.uint16) if out is None else _check_out(out)
    check(
        _name(form, "decode")(
            data.ctypes.data, data.size, values.ctypes.data, values.size, threads, 1 if check_content else 0
        )
    )
    return values


def decode_rows(
    blob: Any, begin: int, end: int, *, form: Form = "runtime", threads: int = 0, out: Bits | None = None
) -> Bits:
    """Rows [begin, end) of the tensor seen as one matrix of batch * rows rows. Checks no checksum of the payload."""
    data = _as_bytes(blob)
    if not 0 <= begin <= end:
        raise InvalidArgument(f"rows {begin} to {end} are no range", 10)
    cols = inspect(data, form=form).shape[2]
    values = np.empty((end - begin, cols), dtype=np.uint16) if out is None else _check_out(out)
    check(
        _name(form, "decode_rows")(
            data.ctypes.data, data.size, begin, end - begin, values.ctypes.data, values.size, threads
        )
    )
    return values


def _check_out(out: Bits) -> Bits:
    if out.dtype != np.uint16 or not out.flags.c_contiguous or not out.flags.writeable:
        raise InvalidArgument(f"out must be a contiguous writeable array of uint16, not {out.dtype} {out.shape}", 10)
    return out


def slice_blob(
    blob: Any,
    *,
    rows: tuple[int, int] | None = None,
    cols: tuple[int, int] | None = None,
    batch: tuple[int, int] | None = None,
) -> Bytes:
    """A blob of the runtime form cut out of another by copying tiles: the shards of tensor parallelism.

    Rows begin and end at multiples of 16, columns of 64, or where the tensor does. Without a range: all.
    """
    data = _as_bytes(blob)
    info = inspect(data)
    whole = _library.SliceRange(0, info.shape[0], 0, info.shape[1], 0, info.shape[2])
    for name, span in (("batch", batch), ("row", rows), ("col", cols)):
        if span is not None:
            setattr(whole, name + "_begin", span[0])
            setattr(whole, name + "_end", span[1])
    out = np.empty(info.blob_bytes, dtype=np.uint8)
    size = c_size_t()
    check(
        library().unweight_slice(
            data.ctypes.data, data.size, ctypes.byref(whole), out.ctypes.data, out.size, byref(size)
        )
    )
    return out[: size.value].copy()


def transcode(blob: Any, *, to: Form, threads: int = 0) -> Bytes:
    """The same tensor in the other form: `to` is the form of the result."""
    source: Form = "runtime" if to == "distribution" else "distribution"
    batch, rows, cols = inspect(blob, form=source).shape
    values = decode(blob, form=source, threads=threads)
    return encode(values.reshape(batch, rows, cols), form=to, threads=threads)
