# SPDX-License-Identifier: Apache-2.0
"""Workspaces of multiplications that split K: zeroed once, left zeroed by every call, and never shared by calls that
may run at the same time.

Outside of CUDA graphs there is one for each stream. A graph has workspaces of its own, one for each stream that is
captured into it, since two graphs that were captured on one stream may be replayed on two; they are given back when the
graph is gone. Nothing can be allocated during a capture but from the graph's own memory, which PyTorch does not want to
see in use afterwards: so some workspaces are kept in reserve.
"""

from __future__ import annotations

import threading
from ctypes import byref, c_uint32, c_uint64

import torch

from .._library import check, cuda_library
from ..errors import DeviceProblem

RESERVE = 4  #: workspaces for graphs that are kept ready on each device, 9 MB each


class _Workspaces:
    """Those of one device."""

    def __init__(self, device: torch.device, size_bytes: int) -> None:
        self._device = device
        self._size_bytes = size_bytes
        self._lock = threading.Lock()
        self._of_streams: dict[int, torch.Tensor] = {}
        self._reserve: list[torch.Tensor] = []
        self._leased: list[tuple[torch.Tensor, c_uint32]] = []  # with the flag that tells when the graph is gone
        #: By capture and stream; those of captures that have ended are forgotten.
        self._of_captures: dict[tuple[int, int], torch.Tensor] = {}

    def of_stream(self, stream: int) -> torch.Tensor:
        found = self._of_streams.get(stream)
        if found is None or len(self._reserve) < RESERVE:
            with self._lock:
                self._of_captures.clear()
                self._fill_reserve()
                found = self._of_streams.get(stream)
                if found is None:
                    self._of_streams[stream] = found = self._allocate()
        return found

    def of_capture(self, number: int, stream: int) -> torch.Tensor:
        key = (number, stream)
        found = self._of_captures.get(key)
        if found is None:
            with self._lock:
                self._take_back()
                if not self._reserve:
                    raise DeviceProblem(
                        f"no workspace is left for another CUDA graph: after every {RESERVE} captures the model must "
                        "run once outside of a capture, or unweight.torch.prepare(model) be called",
                        50,
                    )
                found = self._reserve.pop()
                released = c_uint32()
                check(cuda_library().unweight_stream_capture_lease(stream, byref(released)))
                self._leased.append((found, released))
                self._of_captures[key] = found
        return found

    def _take_back(self) -> None:
        still = []
        for workspace, released in self._leased:
            if released.value:
                self._reserve.append(workspace)
            else:
                still.append((workspace, released))
        self._leased = still

    def _fill_reserve(self) -> None:
        self._take_back()
        while len(self._reserve) < RESERVE:
            self._reserve.append(self._allocate())

    def _allocate(self) -> torch.Tensor:
        """On a thread of its own: what this thread allocates may be going to a memory pool of a graph to be."""
        made: list[torch.Tensor] = []

        def allocate() -> None:
            with torch.inference_mode(False), torch.cuda.device(self._device):
                made.append(torch.zeros(self._size_bytes, dtype=torch.uint8, device=self._device))
                torch.cuda.current_stream().synchronize()

        thread = threading.Thread(target=allocate)
        thread.start()
        thread.join()
        if not made:
            raise DeviceProblem(f"no memory for a workspace of {self._size_bytes} bytes on {self._device}", 60)
        return made[0]


_of_devices: dict[int, _Workspaces] = {}
_lock = threading.Lock()


def _workspaces(device: torch.device, size_bytes: int) -> _Workspaces:
    found = _of_devices.get(device.index)
    if found is None:
        with _lock:
            found = _of_devices.setdefault(device.index, _Workspaces(device, size_bytes))
    return found


def workspace(device: torch.device, stream: int, size_bytes: int) -> torch.Tensor:
    """For a call on the current stream, whose handle is `stream`. The size is the same for all weights on a device."""
    workspaces = _workspaces(device, size_bytes)
    if not torch.cuda.is_current_stream_capturing():
        return workspaces.of_stream(stream)
    number = c_uint64()
    check(cuda_library().unweight_stream_capture(stream, byref(number)))
    return workspaces.of_capture(number.value, stream)
