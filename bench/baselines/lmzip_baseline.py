# SPDX-License-Identifier: Apache-2.0
"""lmzip on one thread, as a baseline.

Chunks of the size that `lmz compress` cuts go through the functions that it calls, in memory: without files, manifest and
CRC-32, all of which is left out in lmzip's favour. Its native kernel is compiled on first use, by the package itself.
"""

import time

import lmz
import lmz.codec

VERSION = lmz.__version__

_ELEMENT_BYTES = 2
_LEVEL = lmz.DEFAULT_LEVEL
_CHUNK_BYTES = lmz.DEFAULT_CHUNK_SIZE


class LmzipBaseline:
    """Compresses and decompresses one buffer of BF16 values; each call returns its seconds. Every result is compared."""

    def __init__(self, values: bytes):
        if not str(lmz.backends().get("kernel", "")).startswith("native"):
            raise RuntimeError(f"lmzip has no native kernel: {lmz.backends()}")
        view = memoryview(values)
        self._chunks = [view[at : at + _CHUNK_BYTES] for at in range(0, len(values), _CHUNK_BYTES)]
        self._compressed: list[tuple] = []
        self.compress()
        self.decompress()
        self.compressed_bytes = sum(len(payload) for payload, *_ in self._compressed)

    def compress(self) -> float:
        begin = time.perf_counter()
        compressed = [
            lmz.codec.encode_chunk(chunk, _ELEMENT_BYTES, _LEVEL, checksum=False, kind=lmz.codec.KIND_BF16)
            for chunk in self._chunks
        ]
        elapsed = time.perf_counter() - begin
        self._compressed = [
            (b"".join(bytes(part) for part in payload) if isinstance(payload, list) else bytes(payload), codec, flags)
            for payload, codec, flags, _crc in compressed
        ]
        return elapsed

    def decompress(self) -> float:
        elapsed = 0.0
        for chunk, (payload, codec, flags) in zip(self._chunks, self._compressed):
            begin = time.perf_counter()
            restored = lmz.codec.decode_chunk(payload, codec, _ELEMENT_BYTES, flags, len(chunk), verify=False)
            elapsed += time.perf_counter() - begin
            if restored != chunk:
                raise RuntimeError("lmzip did not restore its input")
        return elapsed
