# SPDX-License-Identifier: Apache-2.0
"""ZipNN on one thread, as a baseline.

The native module of the package is called with the arguments that ZipNN(bytearray_dtype="bfloat16", threads=1) of
zipnn 0.5.4 gives it. That is the quickest way to use it: ZipNN.compress() first makes one more copy of its input, which
is not counted here, and importing it takes PyTorch, which this module does not need.
"""

import ctypes
import time

import zipnn_core

VERSION = "0.5.4"

_HEADER = bytes(32)  # ZipNN's own fields; the native module only puts it before its result
_BUFFERS = 2  # exponents; signs and mantissas
_BIT_REORDER = 1
_BYTE_REORDER = 10
_CHUNK_BYTES = 256 * 1024
_THRESHOLD = 0.95
_CHECK_AFTER_PERCENT = 10
_THREADS = 1


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_freed_memory() -> None:
    """Lets malloc hand the same memory out again, so that zipnn, which allocates its results, runs on warm pages."""
    libc = ctypes.CDLL(None)
    if not libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30) or not libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1):
        raise RuntimeError("mallopt refused")


class ZipnnBaseline:
    """Compresses and decompresses one buffer of BF16 values; each call returns its seconds. Every result is compared."""

    def __init__(self, values: bytes):
        keep_freed_memory()
        self._values = values
        self._compressed = b""
        self.compress()
        self.decompress()
        self.compressed_bytes = len(self._compressed)

    def compress(self) -> float:
        scratch = bytearray(self._values)  # it is changed in place; the copy is not counted
        begin = time.perf_counter()
        compressed = zipnn_core.zipnn_core(
            _HEADER, scratch, _BUFFERS, _BIT_REORDER, _BYTE_REORDER, 0, _CHUNK_BYTES, _THRESHOLD, _CHECK_AFTER_PERCENT,
            _THREADS,
        )  # fmt: skip
        elapsed = time.perf_counter() - begin
        self._compressed = compressed
        return elapsed

    def decompress(self) -> float:
        begin = time.perf_counter()
        restored = self._restored()
        elapsed = time.perf_counter() - begin
        if restored != self._values:
            raise RuntimeError("zipnn did not restore its input")
        return elapsed

    def _restored(self) -> bytes:
        body = memoryview(self._compressed)[len(_HEADER) :]
        return zipnn_core.combine_dtype(
            body, _BUFFERS, _BIT_REORDER, _BYTE_REORDER, _CHUNK_BYTES, len(self._values), _THREADS
        )
