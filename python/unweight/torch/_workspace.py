# SPDX-License-Identifier: Apache-2.0
"""Workspaces of multiplications that split K: zeroed once, left zeroed by every call, and never shared by calls that
may run at the same time.

Outside of CUDA graphs there is one for each stream. A graph has workspaces of its own, one for each stream that is
captured into it, since two graphs that were captured on one stream may be replayed on two. They are allocated during
the capture, from the graph's memory, and zeroed there: so each replay begins with a fill of some 9 MB.
"""

from __future__ import annotations

import ctypes
import threading
from ctypes import byref, c_int, c_uint64, c_void_p
from functools import cache
from typing import Any

import torch

from ..errors import DeviceProblem

_of_streams: dict[tuple[int, int], torch.Tensor] = {}
_lock = threading.Lock()


class _Captures(threading.local):
    """Workspaces of the graph that this thread is capturing."""

    def __init__(self) -> None:
        self.number = 0
        self.of_streams: dict[tuple[int, int], torch.Tensor] = {}


_captures = _Captures()


@cache
def _capture_info() -> Any:
    """cuStreamGetCaptureInfo() of the driver: PyTorch tells whether, but not which, graph is being captured."""
    driver = ctypes.CDLL("libcuda.so.1")
    function = driver.cuStreamGetCaptureInfo_v2
    function.argtypes = [c_void_p, *[c_void_p] * 5]
    function.restype = c_int
    return function


def _capture_number(stream: int) -> int:
    status, number = c_int(), c_uint64()
    error = _capture_info()(stream, byref(status), byref(number), None, None, None)
    if error != 0:
        raise DeviceProblem(f"cuStreamGetCaptureInfo: error {error}", 51)
    return int(number.value)


def workspace(device: torch.device, stream: int, size_bytes: int) -> torch.Tensor:
    """For a call on the current stream, whose handle is `stream`."""
    if torch.cuda.is_current_stream_capturing():
        number = _capture_number(stream)
        if _captures.number != number:
            _captures.number = number
            _captures.of_streams.clear()
        return _find(_captures.of_streams, device, stream, size_bytes)
    # What a finished capture used belongs to its graph, which keeps the memory.
    _captures.of_streams.clear()
    _captures.number = 0
    with _lock:
        return _find(_of_streams, device, stream, size_bytes)


def _find(
    known: dict[tuple[int, int], torch.Tensor], device: torch.device, stream: int, size_bytes: int
) -> torch.Tensor:
    key = (device.index, stream)
    found = known.get(key)
    if found is None or found.numel() < size_bytes:
        known[key] = found = torch.zeros(size_bytes, dtype=torch.uint8, device=device)
    return found
