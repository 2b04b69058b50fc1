# SPDX-License-Identifier: Apache-2.0
"""Packed tensors on a GPU: what the library needs to know of them, found once and remembered.

A packed tensor is a one-dimensional uint8 tensor whose bytes are one blob. The C interface wants header and tables
checked on the host before a kernel reads the blob; that takes a copy from the device and a wait, so the result is kept
for as long as the memory belongs to the same storage and has not been written to.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from ctypes import byref, c_size_t, c_void_p
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from .. import _library
from .._library import check, cuda_library, sized
from ..errors import DeviceProblem, InvalidArgument

if TYPE_CHECKING:
    from ..plan import PlanFile
    from .plan import Choice, Plan

ALIGNMENT = 128  #: of a blob in device memory
_LAYOUT_RAW = 0
_NOTES_BYTES = 4096


class WeightClass(NamedTuple):
    """What of a weight its choices depend on: as unweight_weight_class."""

    rows: int
    cols: int
    layout: int
    exceptions: int


class Resolved(NamedTuple):
    """A choice of the library's: as unweight_choice."""

    pipeline: int
    source: int
    first_tokens: int
    last_tokens: int
    config: Any  #: a MatmulConfig
    notes: list[str]


def resolve(
    weight: WeightClass, tokens: int, file: PlanFile | None, dependent_launch: bool, gpu: tuple[str, int] | None = None
) -> Resolved:
    """What the library would do for a weight and a number of tokens, by a plan file or without one.

    :param gpu: name and number of multiprocessors; None: of the current device
    """
    of_weight = _library.WeightClass(ctypes.sizeof(_library.WeightClass), *weight, 0)
    options = sized(_library.LinearOptions)
    options.plan = file._handle if file is not None else None
    options.dependent_launch = 1 if dependent_launch else 0
    # A decoded weight goes to PyTorch; but decoding a raw blob would only copy it.
    options.no_cublas = 1 if weight.layout == _LAYOUT_RAW else 0
    device = None
    if gpu is not None:
        device = sized(_library.DeviceFacts)
        device.gpu, device.multiprocessors, device.cublaslt = gpu[0].encode(), gpu[1], _library.ANY_CUBLASLT
    config = sized(_library.MatmulConfig)
    notes = ctypes.create_string_buffer(_NOTES_BYTES)
    choice = sized(_library.ChoiceStruct)
    choice.config = ctypes.pointer(config)
    choice.notes, choice.notes_bytes = ctypes.cast(notes, ctypes.c_char_p), _NOTES_BYTES
    check(
        cuda_library().unweight_choose(
            byref(of_weight), byref(device) if device is not None else None, byref(options), None, tokens, byref(choice)
        )
    )
    lines = notes.value.decode(errors="replace").splitlines()
    return Resolved(choice.pipeline, choice.source, choice.first_tokens, choice.last_tokens, config, lines)


class DeviceBlob:
    """A blob in device memory whose header and tables have been validated. Owns no device memory."""

    __slots__ = ("__weakref__", "_handle", "choices", "cols", "device_index", "rows", "weight_class")

    def __init__(self, packed: torch.Tensor, stream: int) -> None:
        handle = c_void_p()
        check(cuda_library().unweight_device_blob_open(packed.data_ptr(), packed.numel(), stream, byref(handle)))
        self._handle = handle
        shape = _library.MatrixShape()
        check(cuda_library().unweight_device_blob_shape(handle, byref(shape)))
        #: Of the tensor seen as one matrix.
        self.rows = int(shape.batch * shape.rows)
        self.cols = int(shape.cols)
        self.device_index = packed.device.index
        described = sized(_library.WeightClass)
        check(cuda_library().unweight_device_blob_class(handle, byref(described)))
        self.weight_class = WeightClass(described.rows, described.cols, described.layout, described.exceptions)
        #: What plans decided, by plan and number of tokens.
        self.choices: dict[tuple[Plan, int], Choice] = {}
        if shape.batch != 1:
            raise InvalidArgument(f"a packed matrix has batch {shape.batch}, must be 1", 10)

    def __del__(self) -> None:
        # At the interpreter's end the library may be gone.
        with contextlib.suppress(Exception):
            cuda_library().unweight_device_blob_destroy(self._handle)

    def decode(self, values: torch.Tensor, stream: int) -> None:
        """All rows to a contiguous bfloat16 tensor."""
        check(cuda_library().unweight_device_decode(self._handle, values.data_ptr(), self.cols, stream))

    def gather(self, row_numbers: torch.Tensor, values: torch.Tensor, stream: int) -> None:
        """Rows by number, an int64 tensor, to a contiguous bfloat16 tensor."""
        check(
            cuda_library().unweight_device_gather_rows(
                self._handle, row_numbers.data_ptr(), row_numbers.numel(), values.data_ptr(), self.cols, stream
            )
        )

    def prefetch(self, begin_byte: int, size_bytes: int, stream: int) -> None:
        check(cuda_library().unweight_device_prefetch_l2(self._handle, begin_byte, size_bytes, stream))

    def choose_config(self, tokens: int) -> Any:
        """The library's own rules: a MatmulConfig."""
        config = _library.sized(_library.MatmulConfig)
        check(cuda_library().unweight_matmul_choose_config(self._handle, tokens, byref(config)))
        return config

    def can_implement(self, tokens: int, config: Any) -> bool:
        """Whether a MatmulConfig fits a number of tokens."""
        return bool(cuda_library().unweight_matmul_can_implement(self._handle, tokens, byref(config)) == 0)

    def workspace_bytes(self) -> int:
        size = c_size_t()
        check(cuda_library().unweight_matmul_workspace_bytes(self._handle, byref(size)))
        return int(size.value)

    def matmul(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        bias: torch.Tensor | None,
        config: Any,
        workspace: torch.Tensor | None,
        stream: int,
    ) -> None:
        """y = x W^T + bias, of matrices whose last dimension is contiguous."""
        arguments = _library.MatmulArguments(
            ctypes.sizeof(_library.MatmulArguments),
            x.data_ptr(),
            max(x.stride(0), self.cols),  # of a single row any will do
            y.data_ptr(),
            max(y.stride(0), self.rows),
            bias.data_ptr() if bias is not None else None,
            0,
            workspace.data_ptr() if workspace is not None else None,
            x.shape[0],
            0,
        )
        check(cuda_library().unweight_matmul(self._handle, byref(arguments), byref(config), stream))


class _Known:
    """A blob that was opened, and how to tell whether it still is the one."""

    __slots__ = ("blob", "storage", "version")

    def __init__(self, packed: torch.Tensor, blob: DeviceBlob) -> None:
        self.blob = blob
        self.storage: Any = StorageWeakRef(packed.untyped_storage())
        self.version = _version(packed)

    def is_current(self, packed: torch.Tensor) -> bool:
        # Memory of a storage that has ended may belong to another one by now.
        return not self.storage.expired() and self.version == _version(packed)


def _version(packed: torch.Tensor) -> int:
    # Inference tensors count no versions, and cannot be written outside of inference mode.
    return -1 if packed.is_inference() else packed._version


_known: dict[tuple[int, int, int], _Known] = {}
_lock = threading.Lock()
_PURGE_EVERY = 1024


def device_blob(packed: torch.Tensor) -> DeviceBlob:
    """The blob of a packed tensor on a GPU. The device must be the current one.

    Waits for the current stream the first time that a tensor is seen, and after it was written to.
    """
    key = (packed.device.index, packed.data_ptr(), packed.numel())
    known = _known.get(key)
    if known is not None and known.is_current(packed):
        return known.blob
    _check_packed(packed)
    if torch.cuda.is_current_stream_capturing():
        raise DeviceProblem(
            "a packed weight is used for the first time while a CUDA graph is being captured: run the model once "
            "before, or call unweight.torch.prepare(model)",
            50,
        )
    blob = DeviceBlob(packed, current_stream(packed.device))
    with _lock:
        if len(_known) % _PURGE_EVERY == _PURGE_EVERY - 1:
            for stale in [k for k, v in _known.items() if v.storage.expired()]:
                del _known[stale]
        _known[key] = _Known(packed, blob)
    return blob


def forget_choices(plan: Plan) -> None:
    """Weights know a plan's choices for as long as they live: to be called where a plan has changed, or is one of many
    that were tried."""
    with _lock:
        blobs = [known.blob for known in _known.values()]
    for blob in blobs:
        for key in [key for key in list(blob.choices) if key[0] is plan]:
            blob.choices.pop(key, None)


def _check_packed(packed: torch.Tensor) -> None:
    if packed.dtype != torch.uint8 or packed.dim() != 1 or not packed.is_contiguous():
        raise InvalidArgument(
            f"a packed tensor must be contiguous, one-dimensional and uint8, not {packed.dtype} {tuple(packed.shape)}",
            10,
        )
    if packed.data_ptr() % ALIGNMENT != 0:
        raise InvalidArgument(
            f"a packed tensor lies at an address that is not a multiple of {ALIGNMENT} bytes: clone() it", 10
        )


def current_stream(device: torch.device) -> int:
    return int(torch.cuda.current_stream(device).cuda_stream)


@contextlib.contextmanager
def _switched(device: torch.device) -> Any:
    with torch.cuda.device(device):
        yield


def on_device(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """The device as the current one: nothing where it is already."""
    if torch.cuda.current_device() == device.index:
        return contextlib.nullcontext()
    return _switched(device)
