# SPDX-License-Identifier: Apache-2.0
"""Errors of the library as exceptions. Every message is one line with the values that matter."""

from __future__ import annotations


class UnweightError(Exception):
    """Something that the library refused. `code` is the number of `unweight_status`."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class InvalidArgument(UnweightError, ValueError):
    """Codes 10 to 19: what the caller asked for cannot be."""


class InvalidData(UnweightError, ValueError):
    """Codes 20 to 39: bytes that are damaged, of another format, or contradict each other."""


class FileProblem(UnweightError, OSError):
    """Codes 40 to 49: the file system, or what exists there."""

    def __init__(self, message: str, code: int = 0) -> None:
        # OSError takes a lone string as its message; with two arguments it would make the second an errno.
        UnweightError.__init__(self, message, code)

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class DeviceProblem(UnweightError, RuntimeError):
    """Codes 50 to 59: no usable GPU, or a CUDA call that failed."""


class Cancelled(UnweightError):
    """Code 61: a progress callback asked to stop. The same call continues the work."""


class Missing(UnweightError, ImportError):
    """Something that this installation does not have, and that the message names: torch, the CUDA part, ..."""


class OutOfMemory(UnweightError, MemoryError):
    """Code 60."""


_BY_TENS: dict[int, type[UnweightError]] = {
    1: InvalidArgument,
    2: InvalidData,
    3: InvalidData,
    4: FileProblem,
    5: DeviceProblem,
}
_BY_CODE: dict[int, type[UnweightError]] = {60: OutOfMemory, 61: Cancelled}


def error_of(code: int, message: str) -> UnweightError:
    """The exception for a status of the C interface."""
    kind = _BY_CODE.get(code) or _BY_TENS.get(code // 10, UnweightError)
    return kind(message, code)
