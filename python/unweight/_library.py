# SPDX-License-Identifier: Apache-2.0
"""The shared library: where it is, its functions' signatures, and statuses as exceptions."""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, c_char_p, c_double, c_int, c_size_t, c_uint, c_uint16, c_uint32, c_uint64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

from .errors import Missing, error_of

ENVIRONMENT_VARIABLE = "UNWEIGHT_LIBRARY"


class MatrixShape(ctypes.Structure):
    _fields_ = [("batch", c_uint64), ("rows", c_uint64), ("cols", c_uint64)]


class BlobInfo(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64),
        ("shape", MatrixShape),
        ("layout", c_uint32),
        ("version_major", c_uint16),
        ("version_minor", c_uint16),
        ("blob_bytes", c_uint64),
        ("value_bytes", c_uint64),
        ("tile_count", c_uint64),
        ("exception_count", c_uint64),
        ("escaped_tiles", c_uint64),
        ("palette_count", c_uint32),
        ("reserved", c_uint32),
        ("content_checksum", c_uint64),
        ("bits_per_weight", c_double),
    ]


class DistributionInfo(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64),
        ("shape", MatrixShape),
        ("layout", c_uint32),
        ("version_major", c_uint16),
        ("version_minor", c_uint16),
        ("blob_bytes", c_uint64),
        ("value_bytes", c_uint64),
        ("block_count", c_uint64),
        ("escape_count", c_uint64),
        ("class_count", c_uint32),
        ("scale_count", c_uint32),
        ("content_checksum", c_uint64),
        ("bits_per_weight", c_double),
    ]


class SliceRange(ctypes.Structure):
    _fields_ = [
        (name, c_uint64) for name in ("batch_begin", "batch_end", "row_begin", "row_end", "col_begin", "col_end")
    ]


class ProgressStruct(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64),
        ("bytes_done", c_uint64),
        ("bytes_total", c_uint64),
        ("bytes_resumed", c_uint64),
        ("tensors_done", c_uint64),
        ("tensors_total", c_uint64),
        ("current", c_char_p),
    ]


PROGRESS_CALLBACK = ctypes.CFUNCTYPE(c_int, POINTER(ProgressStruct), c_void_p)
WARNING_CALLBACK = ctypes.CFUNCTYPE(None, c_char_p, c_void_p)


class CompressOptions(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64),
        ("profile", c_uint32),
        ("threads", c_uint32),
        ("no_verify", c_uint32),
        ("shard_index", c_uint32),
        ("shard_count", c_uint32),
        ("reserved", c_uint32),
        ("progress", PROGRESS_CALLBACK),
        ("warning", WARNING_CALLBACK),
        ("user_data", c_void_p),
    ]


class CompressReport(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64),
        ("source_bytes", c_uint64),
        ("bundle_bytes", c_uint64),
        ("tensors", c_uint64),
        ("tensors_blob", c_uint64),
        ("tensors_raw", c_uint64),
        ("tensors_alias", c_uint64),
        ("blob_value_bytes", c_uint64),
        ("blob_bytes", c_uint64),
        ("bytes_resumed", c_uint64),
        ("peak_memory_bytes", c_uint64),
        ("seconds", c_double),
        ("profile", c_uint32),
        ("finished", c_uint32),
        ("verified", c_uint32),
        ("reserved", c_uint32),
    ]


class RestoreOptions(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64),
        ("threads", c_uint32),
        ("reserved", c_uint32),
        ("progress", PROGRESS_CALLBACK),
        ("user_data", c_void_p),
    ]


class RestoreReport(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64),
        ("files", c_uint64),
        ("tensors", c_uint64),
        ("bytes", c_uint64),
        ("peak_memory_bytes", c_uint64),
        ("seconds", c_double),
    ]


class InspectOptions(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64),
        ("threads", c_uint32),
        ("headers_only", c_uint32),
        ("reserved", c_uint64),
        ("progress", PROGRESS_CALLBACK),
        ("user_data", c_void_p),
    ]


class InspectSummary(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64),
        ("tensors", c_uint64),
        ("source_bytes", c_uint64),
        ("stored_bytes", c_uint64),
        ("is_bundle", c_uint32),
        ("profile", c_uint32),
    ]


class TensorReport(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64),
        ("file", c_char_p),
        ("name", c_char_p),
        ("dtype", c_char_p),
        ("shape", POINTER(c_uint64)),
        ("rank", c_uint64),
        ("alias_of", c_char_p),
        ("source_bytes", c_uint64),
        ("stored_bytes", c_uint64),
        ("exception_count", c_uint64),
        ("bits_per_weight", c_double),
        ("exponent_entropy_bits", c_double),
        ("stored", c_uint32),
        ("palette_count", c_uint32),
    ]


class MatmulConfig(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64),
        ("strips", c_uint32),
        ("stages", c_uint32),
        ("split", c_uint32),
        ("dependent_launch", c_uint32),
        ("warpgroup", c_uint32),
        ("reserved", c_uint32),
    ]


class MatmulArguments(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64),
        ("x", c_void_p),
        ("x_stride", c_uint64),
        ("y", c_void_p),
        ("y_stride", c_uint64),
        ("bias", c_void_p),
        ("matrix", c_uint64),
        ("workspace", c_void_p),
        ("tokens", c_uint32),
        ("reserved", c_uint32),
    ]


class WeightClass(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64),
        ("rows", c_uint64),
        ("cols", c_uint64),
        ("layout", c_uint32),
        ("exceptions", c_uint32),
        ("reserved", c_uint64),
    ]


class LinearOptions(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64),
        ("plan", c_void_p),
        ("overrides", c_void_p),
        ("override_tokens", c_void_p),
        ("override_count", c_size_t),
        ("dependent_launch", c_uint32),
        ("no_scratch", c_uint32),
        ("no_cublas", c_uint32),
        ("no_builtin_tables", c_uint32),
        ("reserved", c_uint64),
    ]


class DeviceFacts(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64),
        ("gpu", c_char_p),
        ("multiprocessors", c_uint32),
        ("reserved", c_uint32),
        ("cublaslt", c_uint64),
    ]


class ChoiceStruct(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64),
        ("config", POINTER(MatmulConfig)),
        ("notes", c_char_p),
        ("notes_bytes", c_size_t),
        ("pipeline", c_uint32),
        ("source", c_uint32),
        ("first_tokens", c_uint32),
        ("last_tokens", c_uint32),
        ("cell_tokens", c_uint32),
        ("keeps_raw", c_uint32),
        ("algorithm", c_uint64 * 8),
    ]


class RefineProgressStruct(ctypes.Structure):
    _fields_ = [
        ("tried", c_uint64),
        ("total", c_uint64),
        ("seconds", c_double),
        ("first_us", c_double),
        ("best_us", c_double),
        ("current", c_char_p),
    ]


ANY_CUBLASLT = 2**64 - 1
STEP_TIMER = ctypes.CFUNCTYPE(c_double, c_void_p, c_void_p)
REFINE_CALLBACK = ctypes.CFUNCTYPE(c_int, c_void_p, POINTER(RefineProgressStruct))


class RefineOptions(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64),
        ("step_us", STEP_TIMER),
        ("progress", REFINE_CALLBACK),
        ("context", c_void_p),
        ("tokens", POINTER(c_uint32)),
        ("token_count", c_size_t),
        ("seconds", c_double),
        ("least_gain", c_double),
        ("rounds", c_uint32),
        ("passes", c_uint32),
        ("reserved", c_uint64),
    ]


class RefineReportStruct(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64),
        ("first_us", c_double),
        ("best_us", c_double),
        ("seconds", c_double),
        ("tried", c_uint64),
        ("accepted", c_uint64),
        ("stopped", c_uint32),
        ("reserved", c_uint32),
    ]


_CODEC_FUNCTIONS: dict[str, list[Any]] = {
    "unweight_inspect": [c_void_p, c_size_t, POINTER(BlobInfo)],
    "unweight_verify_blob": [c_void_p, c_size_t, c_uint, POINTER(BlobInfo)],
    "unweight_encode_bound": [POINTER(MatrixShape), POINTER(c_size_t)],
    "unweight_encode": [c_void_p, c_size_t, POINTER(MatrixShape), c_uint, c_void_p, c_size_t, POINTER(c_size_t)],
    "unweight_decode": [c_void_p, c_size_t, c_void_p, c_size_t, c_uint, c_int],
    "unweight_decode_rows": [c_void_p, c_size_t, c_uint64, c_uint64, c_void_p, c_size_t, c_uint],
    "unweight_slice": [c_void_p, c_size_t, POINTER(SliceRange), c_void_p, c_size_t, POINTER(c_size_t)],
    "unweight_distribution_inspect": [c_void_p, c_size_t, POINTER(DistributionInfo)],
    "unweight_distribution_verify_blob": [c_void_p, c_size_t, c_uint, POINTER(DistributionInfo)],
    "unweight_distribution_encode": [
        c_void_p,
        c_size_t,
        POINTER(MatrixShape),
        c_uint,
        c_void_p,
        c_size_t,
        POINTER(c_size_t),
    ],
    "unweight_distribution_decode": [c_void_p, c_size_t, c_void_p, c_size_t, c_uint, c_int],
    "unweight_distribution_decode_rows": [c_void_p, c_size_t, c_uint64, c_uint64, c_void_p, c_size_t, c_uint],
    "unweight_compress_checkpoint": [c_char_p, c_char_p, POINTER(CompressOptions), POINTER(CompressReport)],
    "unweight_finish_compress": [c_char_p, c_char_p, POINTER(CompressOptions), POINTER(CompressReport)],
    "unweight_transcode_bundle": [c_char_p, c_char_p, POINTER(CompressOptions), POINTER(CompressReport)],
    "unweight_decompress_bundle": [c_char_p, c_char_p, POINTER(RestoreOptions), POINTER(RestoreReport)],
    "unweight_verify_bundle": [c_char_p, c_char_p, POINTER(RestoreOptions), POINTER(RestoreReport)],
    "unweight_inspect_path": [c_char_p, POINTER(InspectOptions), POINTER(c_void_p)],
    "unweight_inspection_summary": [c_void_p, POINTER(InspectSummary)],
    "unweight_inspection_tensor": [c_void_p, c_uint64, POINTER(TensorReport)],
    "unweight_plan_read": [c_char_p, POINTER(c_void_p)],
    "unweight_plan_parse": [c_char_p, c_size_t, POINTER(c_void_p)],
    "unweight_plan_write": [c_void_p, c_char_p],
    "unweight_plan_text": [c_void_p, c_char_p, c_size_t, POINTER(c_size_t)],
    "unweight_plan_keeps_raw": [c_void_p, c_char_p, POINTER(c_int)],
    "unweight_plan_refine": [c_void_p, POINTER(RefineOptions), POINTER(RefineReportStruct)],
}

_CUDA_FUNCTIONS: dict[str, list[Any]] = {
    "unweight_device_blob_create": [c_void_p, c_size_t, c_void_p, POINTER(c_void_p)],
    "unweight_device_blob_open": [c_void_p, c_size_t, c_void_p, POINTER(c_void_p)],
    "unweight_device_blob_shape": [c_void_p, POINTER(MatrixShape)],
    "unweight_device_blob_class": [c_void_p, POINTER(WeightClass)],
    "unweight_device_decode": [c_void_p, c_void_p, c_uint64, c_void_p],
    "unweight_device_gather_rows": [c_void_p, c_void_p, c_size_t, c_void_p, c_uint64, c_void_p],
    "unweight_device_prefetch_l2": [c_void_p, c_uint64, c_uint64, c_void_p],
    "unweight_matmul_can_implement": [c_void_p, c_uint32, POINTER(MatmulConfig)],
    "unweight_matmul_choose_config": [c_void_p, c_uint32, POINTER(MatmulConfig)],
    "unweight_choose": [
        POINTER(WeightClass),
        POINTER(DeviceFacts),
        POINTER(LinearOptions),
        c_char_p,
        c_uint32,
        POINTER(ChoiceStruct),
    ],
    "unweight_matmul_workspace_bytes": [c_void_p, POINTER(c_size_t)],
    "unweight_stream_capture": [c_void_p, POINTER(c_uint64)],
    "unweight_stream_capture_lease": [c_void_p, POINTER(c_uint32)],
    "unweight_matmul": [c_void_p, POINTER(MatmulArguments), POINTER(MatmulConfig), c_void_p],
}


def _candidates() -> list[Path]:
    """Where the library may be, in the order in which it is looked for."""
    chosen = os.environ.get(ENVIRONMENT_VARIABLE)
    if chosen:
        return [Path(chosen)]
    return [Path(__file__).parent / "lib" / "libunweight.so"]


def _declare(library: ctypes.CDLL, functions: dict[str, list[Any]]) -> None:
    for name, arguments in functions.items():
        function = getattr(library, name)
        function.argtypes = arguments
        function.restype = c_uint32


@cache
def library() -> ctypes.CDLL:
    """The loaded library. Raises Missing where there is none."""
    tried = []
    for path in _candidates():
        try:
            found = ctypes.CDLL(str(path))
        except OSError as error:
            tried.append(str(error))
            continue
        _declare(found, _CODEC_FUNCTIONS)
        for name in ("unweight_inspection_destroy", "unweight_plan_destroy"):
            getattr(found, name).argtypes = [c_void_p]
            getattr(found, name).restype = None
        for name in ("unweight_version_string", "unweight_last_error_message"):
            getattr(found, name).argtypes = []
            getattr(found, name).restype = c_char_p
        if hasattr(found, "unweight_matmul"):
            _declare(found, _CUDA_FUNCTIONS)
            found.unweight_device_blob_destroy.argtypes = [c_void_p]
            found.unweight_device_blob_destroy.restype = None
        return found
    raise Missing(
        f"libunweight.so cannot be loaded ({'; '.join(tried)}): install the package with pip, or name the library in "
        f"{ENVIRONMENT_VARIABLE}"
    )


def has_cuda_part() -> bool:
    """Whether the library was built with its CUDA part; says nothing of a GPU."""
    return hasattr(library(), "unweight_matmul")


def cuda_library() -> ctypes.CDLL:
    """As library(), and raises Missing where it has no CUDA part."""
    found = library()
    if not has_cuda_part():
        raise Missing(
            "this installation of unweight has no CUDA part: install a wheel that has it, or build where nvcc is found"
        )
    return found


def check(status: int) -> None:
    """Raises the exception for a status other than 0."""
    if status != 0:
        raise error_of(status, library().unweight_last_error_message().decode(errors="replace"))


def sized(struct: type[Any]) -> Any:
    """A structure of zeros with its size filled in."""
    made = struct()
    made.struct_size = ctypes.sizeof(struct)
    return made


def version() -> str:
    """Of the library."""
    text: bytes = library().unweight_version_string()
    return text.decode()
